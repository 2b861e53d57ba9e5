"""A camera in its boot loader as a `Device`: whole images, with the header last.

The image is written without its header first, then its beginning once more, with the header: a
cable that is pulled leaves no image that mounts, with one exception. Where writing the header
erases more than its page (64 KiB on H7 Plus, Pure Thermal and N6, all of it on M4, M7 and H7), that
much is written after the header, and a cable pulled in that moment leaves a header without it. FF
at the end of it is not written: erased flash reads as FF.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import time
from pathlib import Path
from typing import BinaryIO

from romfsfs.boards import Board, Partition
from romfsfs.devices.base import (
    HEADER_SIZE,
    Device,
    DeviceInfo,
    WriteReport,
    declared_size,
    size_to_write,
)
from romfsfs.devices.bootloader.loader import BootLoader
from romfsfs.errors import DeviceError, VerifyError, count_text
from romfsfs.image.reader import is_blank
from romfsfs.image.slots import MOST_TRAILER, Slot, find_slots, trailer_places
from romfsfs.system.files import Progress, no_progress

#: the beginning is written in multiples of this, as flash is programmed by pages
_PAGE = 256
#: seconds in which the serial port of a camera whose firmware was started should be there
_BACK_LIMIT = 5.0


class BootLoaderDevice(Device):
    """One ROMFS partition through a boot loader. An image that was read is kept until the next
    write: nobody else writes to a camera in its loader."""

    def __init__(
        self,
        loader: BootLoader,
        board: Board,
        partition: Partition,
        *,
        leave: bool,
        port: str = "",
    ) -> None:
        """leave: `close` starts the firmware. port: the serial port that it then waits for, as the
        next to open the camera may name that; '' for none."""
        self._loader = loader
        self._board = board
        self._partition = partition
        self._leave = leave
        self._port = port
        self._seen: bytes | None = None
        self._slots: dict[int, tuple[Slot, ...]] = {}

    def info(self) -> DeviceInfo:
        loader = self._loader
        place = loader.identity or loader.path or "bootloader"
        return DeviceInfo(
            kind=loader.kind,
            key=f"{self._board.name}/{place}/{self._partition.index}",
            name=loader.name,
            board=self._board.name,
            partition=self._partition.index,
            capacity=loader.capacity,
            erase_size=self._partition.erase_size,
            march=self._board.march,
            header_unit=loader.header_unit if loader.header_unit > _PAGE else 0,
            has_id=bool(loader.identity),
            notes=("a camera in its boot loader does not report its bytecode version",),
        )

    def digest(self, size: int) -> str | None:
        return None

    def matches(self, image: BinaryIO, size: int) -> bool | None:
        if self._seen is None:
            return None
        image.seek(0)
        return image.read(size) == self._seen[:size]

    def slots(self, size: int) -> tuple[Slot, ...]:
        places = trailer_places(self._loader.capacity)
        if not places:
            return ()
        # A slot is never smaller than an erase block. Where two fit and the write ends before A's
        # trailer, only that is read: openmv-ota 1.0.7 starts no single slot there, and reading all
        # of the partition takes minutes.
        two = self._partition.erase_size <= self._loader.capacity // 2
        place = places[0] if two and size <= places[0] else places[-1]
        blank = place < places[-1] and self._seen == b""  # B is out of reach, A is blank
        if not blank and place not in self._slots:
            data = self._read(place + MOST_TRAILER, no_progress)
            self._slots[place] = find_slots(
                lambda at, count: data[at : at + count],
                self._loader.capacity,
                lambda start, end: hashlib.sha256(data[start:end]).hexdigest(),
                max(self._loader.header_unit, self._partition.erase_size),
            )
        return self._slots.get(place, ())

    def read_image(self, out: BinaryIO, progress: Progress = no_progress) -> int:
        if self._seen is None:
            header = self._read(HEADER_SIZE, no_progress)
            size = 0
            if not is_blank(header):
                size = declared_size(header, self._loader.capacity, self._loader.name)
            self._seen = self._read(size, progress) if size else b""
        out.write(self._seen)
        return len(self._seen)

    def _read(self, size: int, progress: Progress) -> bytes:
        """The first bytes of the partition. DeviceError if the tool left fewer."""
        with tempfile.TemporaryDirectory(prefix="romfsfs-") as folder:
            path = Path(folder, "read.img")
            self._loader.read(path, size, progress)
            data = path.read_bytes()[:size] if path.exists() else b""
        if len(data) < size:
            raise DeviceError(
                f"the read ended {count_text(size - len(data), 'byte')} early",
                where=self._loader.name,
                next_step="repeat the command",
            )
        return data

    def hold(self) -> None:
        """Read a little: without a transfer the loader starts the firmware 1.5 s after power-up."""
        self._read(HEADER_SIZE, no_progress)

    def write_image(
        self, image: BinaryIO, old: BinaryIO | None = None, progress: Progress = no_progress
    ) -> WriteReport:
        started = time.monotonic()
        size = size_to_write(image, self._loader.capacity, self._loader.name)
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
                "what was read back from the camera differs from what was written, in two attempts",
                where=f"{self._loader.name}, first at {wrong:#x}",
                next_step="repeat the command; if it happens again, use another cable or port",
            )
        # Loaders do not tell what they erased, nor the tools what they sent.
        return WriteReport(written, 0, time.monotonic() - started, verified=True, notes=notes)

    def clear(self) -> None:
        if is_blank(self._read(HEADER_SIZE, no_progress)):
            return
        self._seen = None
        with tempfile.TemporaryDirectory(prefix="romfsfs-") as folder:
            part = Path(folder, "part.img")
            part.write_bytes(b"\xff" * _PAGE)
            self._loader.erase(_PAGE, no_progress)
            self._loader.write(part, no_progress)
        if not is_blank(self._read(HEADER_SIZE, no_progress)):
            raise VerifyError(
                "the image is still there",
                where=self._loader.name,
                next_step="repeat the command",
            )

    def _write(self, data: bytes, folder: Path, progress: Progress) -> tuple[int, int | None]:
        """Write and read back: bytes written, and the offset of the first difference, or None."""
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
        found = self._read(len(data), _verifying(progress))
        if found == data:
            self._seen = data
            return written, None
        pairs = enumerate(zip(data, found, strict=True))
        return written, next(at for at, (wanted, there) in pairs if wanted != there)

    def restart(self) -> None:
        """Start the firmware."""
        self._leave = False
        self._loader.reset()

    def close(self) -> None:
        """Restart the camera if `leave` says so; the tools hold nothing open between commands."""
        self._seen = None
        if self._leave:
            with contextlib.suppress(DeviceError):
                self.restart()
                end = time.monotonic() + _BACK_LIMIT
                while self._port and time.monotonic() < end:
                    if os.access(self._port, os.R_OK | os.W_OK):
                        break
                    time.sleep(0.1)


def _start(data: bytes, unit: int) -> bytes:
    """What has to be written together with the header, as writing it erases `unit` bytes."""
    filled = len(data[:unit].rstrip(b"\xff"))
    page = min(unit, _PAGE)
    return data[: -(-max(filled, HEADER_SIZE) // page) * page]


def _verifying(progress: Progress) -> Progress:
    return lambda phase, done, total: progress("verifying", done, total)
