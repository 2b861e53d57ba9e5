"""The target of a session: an image file, or a camera's partition behind a `Device`.

All that differs between the two is here. A file is replaced in one step, and any program may change
it at any moment. A camera is written block by block, and only by the program that has it open.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from romfsfs.devices.base import HEADER_SIZE, Device, WriteReport
from romfsfs.devices.file import FileDevice, Stamp
from romfsfs.errors import (
    DeviceAbsent,
    DeviceBusy,
    ImageFormatError,
    RomfsError,
    SessionBusy,
    TargetChanged,
    shell_word,
    too_large,
)
from romfsfs.image.model import Image
from romfsfs.image.reader import image_size
from romfsfs.image.slots import slots_text
from romfsfs.session.keep import history
from romfsfs.session.keep.base_image import BaseImage
from romfsfs.session.keep.folder import SessionFolder
from romfsfs.session.keep.images import WHOLE_COPY, parse
from romfsfs.session.keep.state import Base, SessionInfo
from romfsfs.system.copying import fill
from romfsfs.system.errors import os_error
from romfsfs.system.files import (
    EMPTY_DIGEST,
    Progress,
    digest_fd,
    digest_file,
    lock_within,
    named,
    no_progress,
    remove_temporaries,
)

#: errno of a full disk: of where something is written.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
#: Seconds to wait for another commit into the same folder.
_FOLDER_PATIENCE = 10.0


class Held(NamedTuple):
    """What a target holds. digest: None if there is no file, '' if a camera holds something that
    cannot be kept, or was not looked at. size: bytes that were kept. unseen: it is not the image of
    the session's base, and was copied unless `digest` is ''."""

    digest: str | None
    size: int
    unseen: bool = False


class Target(ABC):
    """What a transaction asks of a target. Raises as `Device` does."""

    #: Whether a failed write leaves the old content. If not, the stable layout keeps writes short:
    #: unchanged files keep their offsets.
    atomic = False

    def __init__(self, device: Device, slot: str = "") -> None:
        """slot: of openmv-ota, which may be written; '' for none."""
        self.device = device
        self.slot = slot

    def refuse_slots(self, size: int) -> None:  # noqa: B027 (nothing runs a file)
        """RomfsError if writing `size` bytes would break another slot of openmv-ota than `slot`;
        CapacityError if they do not fit into that."""

    @contextmanager
    def alone(self) -> Iterator[None]:
        """No other session writes to this target while the block lasts. SessionBusy if one does."""
        yield  # a camera's port is ours alone while the device is open

    @abstractmethod
    def unchanged_since(self, base: BaseImage) -> bool:
        """Whether it still holds what the session last read from it or wrote to it."""

    @abstractmethod
    def holds(self, image: Path | None) -> bool:
        """Whether it holds exactly this image; for None, whether there is no file."""

    @abstractmethod
    def keep_copy(self, folder: SessionFolder, progress: Progress = no_progress) -> Held:
        """Copy what it holds now to `folder.found`, if there is anything that can be kept."""

    @abstractmethod
    def read(self, folder: SessionFolder, info: SessionInfo, new: bool,
             progress: Progress = no_progress) -> tuple[Base, Image]:  # fmt: skip
        """Copy its image to `folder.staged`. Returns a base without entries and without the digest
        of what was read, and the image's tree. new: start from an empty image instead."""

    @abstractmethod
    def write(self, image: Path | None, old: Path | None, before: Held,
              progress: Progress = no_progress) -> WriteReport:  # fmt: skip
        """Write this image and verify it; None: delete the file. TargetChanged if a file no longer
        holds what it did `before`.

        old: an image that it is believed to hold: a hint."""

    def _cleared(self, said: str) -> WriteReport:
        """Delete the file, or blank the camera. said: the report's note."""
        started = time.monotonic()
        self.device.clear()
        return WriteReport(0, 0, time.monotonic() - started, verified=True, notes=(said,))

    def stamp_of(self, base: Base) -> Stamp | None:
        """Its stamp while it holds `base`'s image; None if it has no stamp, or holds another."""
        return None


def target_of(device: Device, slot: str = "") -> Target:
    """slot: of openmv-ota, which may be written although that breaks its signature; '' for none."""
    return FileTarget(device) if isinstance(device, FileDevice) else CameraTarget(device, slot)


class FileTarget(Target):
    """An image file."""

    atomic = True
    device: FileDevice

    def __init__(self, device: FileDevice) -> None:
        super().__init__(device)
        #: Digest, and the stamp from before reading: a file that changed since has another stamp.
        self._seen: tuple[str | None, Stamp | None] | None = None

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Lock the file's folder with flock(2), which leaves no file there and excludes other users
        and containers too. SessionBusy if it stays locked for 10 seconds."""
        folder = os.path.dirname(self.device.path)
        try:
            fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:  # the write reports it
            yield
            return
        try:
            with contextlib.suppress(OSError):  # a file system without such locks
                if not lock_within(fd, _FOLDER_PATIENCE):
                    raise SessionBusy(
                        "another program keeps the folder locked",
                        where=folder,
                        next_step="nothing was written; try again when it has finished",
                    )
            remove_temporaries(*os.path.split(self.device.path))  # of writes that were killed
            yield
        finally:
            os.close(fd)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Word an OSError of reading the file; the caller would blame the session's folder, for
        which that of a full disk is left."""
        try:
            with named(self.device.given):
                yield
        except OSError as error:
            if error.errno in _FULL:
                raise
            raise os_error(error) from error

    def unchanged_since(self, base: BaseImage) -> bool:
        """Compares stamps, and reads the file only if they differ."""
        stamp, digest = self.device.stamp(), base.base.target_digest
        if stamp == base.base.stamp:
            self._seen = digest, stamp
        return self._is(digest)

    def _is(self, digest: str | None) -> bool:
        """Whether the file has this digest; for None, whether there is no file."""
        stamp = self.device.stamp()
        if stamp is None or digest is None:
            return stamp is None and digest is None
        return self._seen == (digest, stamp) or self.held().digest == digest

    def held(self) -> Held:
        """What it holds, read but not copied."""
        stamp = self.device.stamp()
        if stamp is None:
            return Held(None, 0)
        certain = self.device.certain_stamp()
        size = (certain or stamp)[2]
        with self._reading():
            digest = self.device.digest(size)
        self._seen = digest, certain
        return Held(digest, size)

    def holds(self, image: Path | None) -> bool:
        stamp = self.device.stamp()
        if stamp is None or image is None:
            return stamp is None and image is None
        size = os.stat(image).st_size
        if stamp[2] != size:
            return False
        return self.device.digest(size) == digest_file(image)

    def keep_copy(self, folder: SessionFolder, progress: Progress = no_progress) -> Held:
        """All of its bytes, image or not."""
        if not self.device.exists():
            return Held(None, 0)
        stamp = self.device.certain_stamp()
        with folder.create(folder.found) as file:
            with self._reading():
                size = self.device.read_bytes(file, progress)
            file.flush()
            digest = digest_fd(file.fileno())
        self._seen = digest, stamp
        return Held(digest, size)

    def read(self, folder: SessionFolder, info: SessionInfo, new: bool,
             progress: Progress = no_progress) -> tuple[Base, Image]:  # fmt: skip
        device = self.device
        stamp = device.certain_stamp()
        before = stamp or device.stamp()  # its change time may lie in the future
        if not device.exists() and not new:
            name, last = shell_word(info.name), history.entries(folder)[-1:]
            known = last and not last[0].missing
            raise DeviceAbsent(
                "no such image file",
                where=info.name,
                next_step=(f"bring it back: romfsfs undo {name}; or " if known else "")
                + f"make one: romfsfs new {name} --board BOARD, or mount with --new",
            )
        with folder.create(folder.staged) as file:
            if new:
                with self._reading():
                    target = digest_file(device.path) if device.exists() else None
            else:
                length = before[2] if before else 0
                with self._reading():
                    size = device.read_image(file, progress)
                if not size:
                    fill(file, 0xFF, length)  # a dump of erased flash keeps its length
                file.flush()
                target = ""
            if device.stamp() != before:
                raise DeviceBusy(
                    "the file is being changed by another program",
                    where=info.name,
                    next_step="try again when that has finished",
                )
            image = parse(file, info.name, f"{WHOLE_COPY} mount --new starts empty")
            size = os.fstat(file.fileno()).st_size
        return Base(EMPTY_DIGEST if new else "", size, image.size, target, stamp, (), new), image

    def write(self, image: Path | None, old: Path | None, before: Held,
              progress: Progress = no_progress) -> WriteReport:  # fmt: skip
        def last_look() -> None:
            if not self._is(before.digest):
                raise TargetChanged(
                    "another program changed the file just before it was to be replaced",
                    where=self.device.given,
                    next_step="nothing was written; look at the file, and try again",
                )

        last_look()
        if image is None:
            return self._cleared("the file was deleted: there was none before")
        with open(image, "rb") as file:
            return self.device.write_image(file, None, progress, last_look)

    def stamp_of(self, base: Base) -> Stamp | None:
        if self.device.written_stamp is not None:
            return self.device.written_stamp
        stamp = self.device.certain_stamp()
        if stamp is None or stamp == base.stamp:  # unchanged since it was read
            return stamp
        return stamp if self.device.digest(stamp[2]) == base.target_digest else None


class CameraTarget(Target):
    """A partition of a camera."""

    def refuse_slots(self, size: int) -> None:
        slots = self.device.slots(size)
        if not slots:
            return
        info = self.device.info()
        name, (mine, other) = info.name, ("BA" if info.slot else "AB")
        only, room = slots[0].only, slots[0].room
        way_out = ""
        if only and not room:  # one erase unit: what writes that erases status and trailer too
            command = f"mpremote connect PORT romfs -p {info.partition} deploy FILE.img"
            way_out = f"; to give openmv-ota up there, run this and replug the camera: {command}"
        if not self.slot:
            raise RomfsError(
                f"this partition is openmv-ota's ({slots_text(slots)}), and writing slot {mine} "
                "breaks its signature: the camera then mounts "
                + ("nothing" if only else f"slot {other}, or nothing"),
                where=name,
                next_step="nothing was written; build and sign the image with openmv-ota's tools "
                "(commit --to FILE gives its body)"
                + (f", or add --slot {mine} --force" if room else way_out),
            )
        if not room:
            tools = "openmv-ota's tools write both"
            if only:
                tools = "`openmv-ota flash romfs` writes it"
            raise RomfsError(
                f"an erase block there spans slot {mine} and "
                + ("its own status and trailer" if only else f"slot {other}"),
                where=name,
                next_step=f"nothing was written; {tools}{way_out}",
            )
        if size > room:
            next_step = "nothing was written; remove files"
            raise too_large(size, room, f"{name}, slot {mine}", next_step)

    def unchanged_since(self, base: BaseImage) -> bool:
        held = base.base
        if held.fresh and held.target_digest == "":
            return True  # `--new`: what it held was not looked at, and is replaced
        same = None
        if held.image_size:
            with os.fdopen(os.dup(base.fd), "rb") as image:
                same = self.device.matches(image, held.image_size)
        return self._digest() == held.target_digest if same is None else same

    def holds(self, image: Path | None) -> bool:
        """Compares the image only: bytes after it in the file are not written to a camera."""
        assert image is not None  # None: no file
        with open(image, "rb") as file:
            header = file.read(16)
            size = image_size(header) if header else 0
            same = self.device.matches(file, size) if size else None
            if same is not None:
                return same
            return self._digest() == digest_fd(file.fileno(), 0, size)

    def _digest(self) -> str:
        """The digest of the image it holds, '' if it holds none: by reading all of it, for devices
        that cannot compute one."""
        import tempfile

        with tempfile.TemporaryFile() as copy:
            try:
                size = self.device.read_image(copy)
            except ImageFormatError:
                return ""
            copy.flush()
            return digest_fd(copy.fileno()) if size else EMPTY_DIGEST

    def keep_copy(self, folder: SessionFolder, progress: Progress = no_progress) -> Held:
        with folder.create(folder.found) as file:
            try:
                size = self.device.read_image(file, progress)
            except ImageFormatError:
                return Held("", 0)
            file.flush()
            return Held(digest_fd(file.fileno()), size)

    def read(self, folder: SessionFolder, info: SessionInfo, new: bool,
             progress: Progress = no_progress) -> tuple[Base, Image]:  # fmt: skip
        with folder.create(folder.staged) as file:
            size = 0 if new else self.device.read_image(file, progress)
            file.flush()
            advice = (
                "nothing was changed; `romfsfs push --force IMAGE` or `mount --new` replaces it"
            )
            image = parse(file, info.name, advice)
        return Base(EMPTY_DIGEST if new else "", size, image.size, "", None, (), new), image

    def write(self, image: Path | None, old: Path | None, before: Held,
              progress: Progress = no_progress) -> WriteReport:  # fmt: skip
        assert image is not None
        size = os.stat(image).st_size
        self.refuse_slots(size or HEADER_SIZE)
        if not size:
            return self._cleared("the camera is blank again")
        with contextlib.ExitStack() as stack:
            believed = stack.enter_context(open(old, "rb")) if old is not None else None
            file = stack.enter_context(open(image, "rb"))
            return self.device.write_image(file, believed, progress)
