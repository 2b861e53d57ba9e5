"""What the session tests share: an image file and someone who edits it, and a camera of a file."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

from romfsfs.devices.base import Device, DeviceInfo, OpenedModel, WriteReport
from romfsfs.devices.file import FileDevice
from romfsfs.errors import DeviceError, ImageFormatError, VerifyError
from romfsfs.image.model import FileNode, walk
from romfsfs.image.reader import image_size, read_image
from romfsfs.image.writer import encode
from romfsfs.session.keep import history
from romfsfs.session.keep.folder import SessionFolder, make_folder
from romfsfs.session.plan.shadow import Change
from romfsfs.session.rebase.commit import CommitOptions, CommitReport, commit
from romfsfs.session.rebase.read import OpenOptions, make_ready, session_for
from romfsfs.session.session import Session
from romfsfs.system.files import Progress, no_progress

HEADER = 16


class Desk:
    """A target and the session on it. `work` is what a mount would show."""

    def __init__(self, device: Device, source: str) -> None:
        self.device = device
        self.source = source
        self.session: Session

    @classmethod
    def with_image(
        cls, folder: Path, files: dict[str, bytes], dirs: list[str] | None = None
    ) -> Desk:
        image = folder / "app.img"
        image.write_bytes(encode(files, dirs=dirs or []))
        return cls.of_file(image)

    @classmethod
    def of_file(cls, image: Path) -> Desk:
        return cls(FileDevice(image), str(image))

    @staticmethod
    def session_in(folder: Path) -> Session:
        """As another process loads it."""
        return Session.load(SessionFolder(folder))

    @property
    def image(self) -> Path:
        return Path(self.source)

    @property
    def work(self) -> Path:
        return self.session.work

    def open(self, *, new: bool = False, **chosen: Any) -> Session:
        """As a mount does, until the directory would be ready."""
        info = self.device.info()
        with make_folder(info.key).lock_for_mount(info.name):
            self.session = session_for(self.device, self.source, OpenOptions(**chosen))
            make_ready(self.session, self.device, new=new)
        return self.session

    def write(self, path: str, data: bytes) -> Path:
        file = self.work / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
        return file

    def commit(self, **how: Any) -> CommitReport:
        return commit(self.session, self.device, CommitOptions(**how))

    def changes(self) -> dict[str, str]:
        """Path to first letter of its change, unchanged and ignored left out."""
        return {
            entry.path: entry.change.value[0].upper()
            for entry in self.session.status().entries
            if entry.change not in (Change.UNCHANGED, Change.IGNORED)
        }

    def stored(self) -> dict[str, bytes]:
        """What the image file holds now."""
        return files_of(self.image.read_bytes())

    def again(self) -> Desk:
        """The same target, as another process would open it."""
        other = Desk.of_file(self.image)
        other.session = Session.load(self.session.folder)
        return other


def image_of(desk: Desk, number: int) -> Path:
    """The image of an entry of the log."""
    [entry] = [e for e in history.entries(desk.session.folder) if e.number == number]
    return desk.session.folder.image(entry.digest)


def files_of(image: bytes) -> dict[str, bytes]:
    """The files in an image, by path."""
    if not image:
        return {}
    return {
        path: image[node.extent.offset : node.extent.offset + node.extent.size]
        for path, node in walk(read_image(image))
        if isinstance(node, FileNode)
    }


def tree_of(folder: Path) -> dict[str, bytes | None]:
    """Everything below a folder: file contents by path, None for folders."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


class Flash(Device):
    """A camera's partition in a file: erased bytes are FF, the header is programmed last.

    It can be told to lose power after so many bytes were programmed: in whole write units, of
    which the header is one, as the firmware programs it.
    """

    def __init__(self, path: Path, size: int, erase_size: int = 4096) -> None:
        self.path = path
        self.size = size
        self.erase_size = erase_size
        self.power = 1 << 40
        self.lies = False
        if not path.exists():
            path.write_bytes(b"\xff" * size)

    def info(self) -> DeviceInfo:
        return DeviceInfo(
            kind="serial", key="TEST/0001/0", name="test camera", capacity=self.size,
            erase_size=self.erase_size,
        )  # fmt: skip

    def digest(self, size: int) -> str | None:
        return hashlib.sha256(self.path.read_bytes()[:size]).hexdigest()

    def read_image(self, out: BinaryIO, progress: Progress = no_progress) -> int:
        data = self.path.read_bytes()
        if data[:HEADER] == b"\xff" * HEADER:
            return 0
        size = image_size(data[:HEADER])
        if size > len(data):
            raise ImageFormatError("longer than the partition", 0)
        out.write(data[:size])
        return size

    def write_image(
        self, image: BinaryIO, old: BinaryIO | None = None, progress: Progress = no_progress
    ) -> WriteReport:
        image.seek(0)
        data = image.read()
        self._program(0, b"\x00" * HEADER)
        self._program(HEADER, data[HEADER:])
        if self.lies:
            raise VerifyError("what was read back differs", where="test camera")
        self._program(0, data[:HEADER])
        return WriteReport(len(data), -(-len(data) // self.erase_size), 0.0, True)

    def clear(self) -> None:
        self._program(0, b"\xff" * HEADER)

    def _program(self, offset: int, data: bytes) -> None:
        allowed = data if len(data) <= self.power else data[: self.power // HEADER * HEADER]
        with open(self.path, "r+b") as file:
            os.pwrite(file.fileno(), allowed, offset)
        self.power -= len(allowed)
        if len(allowed) < len(data):
            raise PowerLost


class PowerLost(Exception):
    """The plug was pulled."""


class Camera(Flash):
    """A camera whose next write, restart or model may fail. says: what else `info` has.

    error: how its next write ends; untouched: before anything was erased. restarts: how often it
    was told to. models: what opening each answers; opened: those that were asked for.
    """

    def __init__(self, path: Path, size: int = 65536, **says: Any) -> None:
        super().__init__(path, size)
        self.says = says
        self.error: BaseException | None = None
        self.untouched = False
        self.restarts = 0
        self.fails_to_restart = False
        self.models: dict[str, OpenedModel | DeviceError | None] = {}
        self.opened: list[str] = []

    def put(self, image: bytes) -> None:
        """Somebody else's doing."""
        self.path.write_bytes(image + b"\xff" * (self.size - len(image)))

    def info(self) -> DeviceInfo:
        return replace(super().info(), **self.says)

    def write_image(self, *image: Any) -> WriteReport:
        if self.error is None:
            return super().write_image(*image)
        if not self.untouched:
            self._program(0, b"\0" * HEADER)
        raise self.error

    def restart(self) -> None:
        self.restarts += 1
        if self.fails_to_restart:
            raise DeviceError("it is gone")

    def open_model(self, path: str) -> OpenedModel | None:
        self.opened.append(path)
        said = self.models[path]
        if isinstance(said, DeviceError):
            raise said
        return said
