"""A camera in its boot loader as a `Device`: whole images, with the header last.

The image is written without its header first, then its beginning once more, with the header: a
cable that is pulled leaves no image that mounts, but for one gap. Where the loader erases more than
the header's page when the header is written (64 KiB on H7 Plus, Pure Thermal and N6, all of it on
M4, M7 and H7), that much is written after the header; a cable pulled in that moment leaves an
image without it. What of it is FF is not written: it need only be erased.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from pathlib import Path
from typing import BinaryIO

from romfsfs.boards import Board, Partition
from romfsfs.devices.base import HEADER_SIZE, DeviceInfo, WriteReport
from romfsfs.devices.bootloader.loader import BootLoader
from romfsfs.errors import CapacityError, DeviceError, ImageFormatError, VerifyError
from romfsfs.image.model import Image
from romfsfs.image.reader import image_size, is_blank
from romfsfs.system.files import Progress, no_progress

#: what is written of the beginning is a multiple of this, as flash is programmed by pages
_PAGE = 256


class BootLoaderDevice:
    """One ROMFS partition through a boot loader. What was read is kept until it is written: nobody
    else writes to a camera in its loader."""

    def __init__(
        self, loader: BootLoader, board: Board, partition: Partition, *, leave: bool = False
    ) -> None:
        """leave: `close` starts the firmware."""
        self._loader = loader
        self._board = board
        self._partition = partition
        self._leave = leave
        self._seen: bytes | None = None

    def info(self) -> DeviceInfo:
        loader = self._loader
        return DeviceInfo(
            kind=loader.kind,
            key=f"{self._board.name}/{loader.identity}/{self._partition.index}",
            name=loader.name,
            board=self._board.name,
            partition=self._partition.index,
            capacity=loader.capacity,
            erase_size=self._partition.erase_size,
            march=self._board.march,
            header_unit=loader.header_unit if loader.header_unit > _PAGE else 0,
            notes=("in its boot loader the camera does not tell its bytecode version",),
        )

    def digest(self, size: int) -> str | None:
        return None

    def matches(self, image: BinaryIO, size: int) -> bool | None:
        if self._seen is None:
            return None
        image.seek(0)
        return image.read(size) == self._seen[:size]

    def read_tree(self) -> Image | None:
        return None

    def read_image(self, out: BinaryIO, progress: Progress = no_progress) -> int:
        if self._seen is None:
            with tempfile.TemporaryDirectory(prefix="romfsfs-") as folder:
                path = Path(folder, "read.img")
                self._loader.read(path, HEADER_SIZE, no_progress)
                size = self._declared_size(path.read_bytes()[:HEADER_SIZE])
                if size:
                    self._loader.read(path, size, progress)
                self._seen = path.read_bytes()[:size]
        out.write(self._seen)
        return len(self._seen)

    def _declared_size(self, header: bytes) -> int:
        """The size of the image that the partition begins with; 0: blank."""
        if is_blank(header):
            return 0
        name = self._loader.name
        advice = "nothing was changed; `romfsfs push IMAGE` or `mount --new` replaces what is there"
        try:
            size = image_size(header)
        except ImageFormatError as error:
            raise ImageFormatError(
                error.reason, error.offset, where=name, next_step=advice
            ) from error
        if size > self._loader.capacity:
            raise ImageFormatError(
                f"its header declares {size} bytes, the partition has {self._loader.capacity}",
                0,
                where=name,
                next_step=advice,
            )
        return size

    def write_image(
        self, image: BinaryIO, old: BinaryIO | None = None, progress: Progress = no_progress
    ) -> WriteReport:
        started = time.monotonic()
        size = self._check_fits(image)
        image.seek(0)
        data = image.read(size)
        if data == self._seen:
            return WriteReport(0, 0, time.monotonic() - started, verified=True, skipped=size)
        notes: tuple[str, ...] = ()
        with tempfile.TemporaryDirectory(prefix="romfsfs-") as folder:
            written, wrong = self._write(data, Path(folder), progress)
            if wrong is not None:
                notes = ("the first attempt was read back wrong",)
                more, wrong = self._write(data, Path(folder), progress)
                written += more
        if wrong is not None:
            raise VerifyError(
                "what was read back from the camera is not what was written",
                where=f"{self._loader.name}, first at {wrong:#x}",
                next_step="repeat the command; if it happens again, use another cable or port",
            )
        blocks = -(-size // self._partition.erase_size)
        seconds = time.monotonic() - started
        return WriteReport(written, blocks, seconds, verified=True, sent=written, notes=notes)

    def _check_fits(self, image: BinaryIO) -> int:
        """The size to write. ImageFormatError or CapacityError before anything destructive."""
        length = image.seek(0, os.SEEK_END)
        image.seek(0)
        size = image_size(image.read(HEADER_SIZE))
        if size > length:
            raise ImageFormatError("the header declares more than there is", 0)
        if size > self._loader.capacity:
            raise CapacityError(
                f"the image has {size} bytes, the partition takes {self._loader.capacity}",
                size=size,
                capacity=self._loader.capacity,
                where=self._loader.name,
                next_step="remove files, or build the image for another partition",
            )
        return size

    def _write(self, data: bytes, folder: Path, progress: Progress) -> tuple[int, int | None]:
        """The bytes written, and where the partition then first differs (None: nowhere)."""
        self._seen = None
        part = folder / "part.img"
        start = _start(data, self._loader.header_unit)
        written = len(start)
        self._loader.erase(len(data), progress)
        if len(start) < len(data):
            part.write_bytes(b"\xff" * HEADER_SIZE + data[HEADER_SIZE:])
            self._loader.write(part, progress)
            written += len(data)
        part.write_bytes(start)
        self._loader.write(part, progress)
        self._loader.read(part, len(data), _verifying(progress))
        found = part.read_bytes()[: len(data)]
        if found == data:
            self._seen = data
            return written, None
        pairs = enumerate(zip(data, found, strict=True))
        return written, next(at for at, (wanted, there) in pairs if wanted != there)

    def restart(self) -> None:
        """Start the firmware."""
        self._leave = False
        self._loader.reset()

    def open_model(self, path: str) -> None:
        """Nobody runs there."""

    def close(self) -> None:
        """The tools open the camera for each command; it may have to be restarted."""
        self._seen = None
        if self._leave:
            with contextlib.suppress(DeviceError):
                self.restart()


def _start(data: bytes, unit: int) -> bytes:
    """What has to be written together with the header, where `unit` bytes are erased for it."""
    filled = len(data[:unit].rstrip(b"\xff"))
    page = min(unit, _PAGE)
    return data[: -(-max(filled, HEADER_SIZE) // page) * page]


def _verifying(progress: Progress) -> Progress:
    return lambda phase, done, total: progress("verifying", done, total)
