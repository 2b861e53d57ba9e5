"""The flash of a simulated camera: NOR and MRAM as `rom_ioctl` of the firmware sees them.

The content lies in a shared mapping of a temporary file, which the MicroPython process maps too:
its memoryview of a partition is live, like memory-mapped flash. Only this side changes it, so
every change passes the faults and is counted. Operations are generators: they yield the seconds
that the step just done takes, and return the answer. All of this belongs to the camera's thread,
except `content` and `load`, which any thread may use while the camera is quiet.
"""

from __future__ import annotations

import mmap
import os
import random
import tempfile
from collections.abc import Generator
from io import FileIO
from typing import BinaryIO

from romfsfs.simulator.config import PartitionConfig, SimulatorConfig
from romfsfs.simulator.faults import EIO, CameraStopped, Faults, Statistics

Operation = Generator[float, None, int]

EINVAL = -22
PAGE = 256
SECTOR = 4096

COUNT, GET, ERASE, WRITE, FINISH, ERASE_SIZE = 1, 2, 3, 4, 5, 6
BLOCK_ERASE, BLOCK_WRITE = 103, 104


class Partition:
    """One partition's cells. index: its number for `rom_ioctl`."""

    def __init__(
        self,
        index: int,
        config: PartitionConfig,
        timing: SimulatorConfig,
        faults: Faults,
        statistics: Statistics,
        backing: str | os.PathLike[str] | None = None,
    ) -> None:
        self.index = index
        self.config = config
        self._timing = timing
        self._faults = faults
        self._statistics = statistics
        # The part whose reading hangs the camera must begin at a page boundary, so that the
        # MicroPython process can make exactly that part unreadable.
        readable = config.size - config.wedge_tail
        self.lead = _whole_pages(readable) - readable
        self.span = _whole_pages(self.lead + config.size)
        self._file: BinaryIO = tempfile.TemporaryFile()  # noqa: SIM115 closed by close()
        self._file.truncate(self.span)
        self._map = mmap.mmap(self._file.fileno(), self.span)
        self._backing: FileIO | None = None
        self._random = random.Random(index)
        erased = b"\xff" if config.kind == "nor" else b"\0"
        self._put(0, erased * config.size)
        if backing is not None:
            self._open_backing(backing)

    @property
    def fd(self) -> int:
        """Descriptor of the file that the MicroPython process maps; content starts at `lead`."""
        return self._file.fileno()

    @property
    def content(self) -> bytes:
        return self._map[self.lead : self.lead + self.config.size]

    def read(self, offset: int, size: int) -> bytes:
        return self._map[self.lead + offset : self.lead + offset + size]

    def load(self, image: bytes) -> None:
        """Put `image` at the start, as the factory would; the rest is erased. Raises ValueError."""
        if len(image) > self.config.size:
            raise ValueError(f"{len(image)} bytes in a partition of {self.config.size}")
        blank = b"\xff" if self.config.kind == "nor" else b"\0"
        self._put(0, image + blank * (self.config.size - len(image)))

    def close(self) -> None:
        self._map.close()
        self._file.close()
        if self._backing is not None:
            self._backing.close()

    def erase(self, offset: int, size: int) -> Operation:
        """Erase every block that the range touches. Returns `min_write`, -22 for a bad range."""
        if offset < 0 or size < 0 or offset + size > self.config.size:
            return EINVAL
        if self.config.kind == "nor":
            block_size = self.config.erase_size
            seconds = self._timing.erase_seconds * block_size / SECTOR
            for block in range(offset // block_size, -(-(offset + size) // block_size)):
                self._erase_block(block)
                yield seconds
        return self.config.min_write

    def program(self, offset: int, data: bytes) -> Operation:
        """Program. Returns 0, -22 outside the partition, -5 (`whole_words`) within a word."""
        if offset < 0 or offset + len(data) > self.config.size:
            return EINVAL
        word = self.config.word
        if offset % word and self.config.whole_words:
            return -EIO
        block_device = self.config.access == "block"
        if offset % word and block_device:
            return 0
        tail = len(data) % word
        if tail:
            self._statistics.dropped_tails += 1
            if self.config.kind == "mram" or block_device:
                data += b"\xa5" * (word - tail)
            elif self.config.whole_words:
                data += b"\xff" * (word - tail)
            else:
                data = data[: len(data) - tail]
        if data:
            self._statistics.spans.append((self.index, offset, offset + len(data)))
        pages = range(offset // PAGE * PAGE, offset + len(data), PAGE)
        self._statistics.needless_pages += sum(
            self._holds(max(page, offset), data, offset, page + PAGE) for page in pages
        )
        place = offset
        while place < offset + len(data):
            # page by page, as the chip does: the power may go between any two
            end = min(place // PAGE * PAGE + PAGE, offset + len(data))
            if not self._timing.program_seconds:
                end = min(place // SECTOR * SECTOR + SECTOR, offset + len(data))
            self._program_page(place, data[place - offset : end - offset])
            yield self._timing.program_seconds
            place = end
        return 0

    def _holds(self, first: int, data: bytes, start: int, end: int) -> bool:
        piece = data[first - start : end - start]
        return self.read(first, len(piece)) == piece

    def _erase_block(self, block: int) -> None:
        size = self.config.erase_size
        start = block * size
        room = self._faults.room("erase", size)
        if not self._faults.is_stuck(self.index, block, "erase"):
            content = b"\xff" * room
            if room < size:
                # cells of an interrupted erase: some reached 1, some did not
                rest = self.read(start + room, size - room)
                noise = self._random.randbytes(len(rest))
                content += bytes(old | new for old, new in zip(rest, noise, strict=True))
            self._put(start, content)
        self._statistics.erased_blocks += 1
        self._statistics.erase_counts[(self.index, block)] += 1
        if self._faults.cut_now():
            raise CameraStopped

    def _program_page(self, offset: int, data: bytes) -> None:
        data = data[: self._faults.room("program", len(data))]
        self._statistics.programmed += len(data)
        block = offset // max(self.config.erase_size, SECTOR)
        if not self._faults.is_stuck(self.index, block, "program"):
            if self.config.kind == "nor":
                old = int.from_bytes(self.read(offset, len(data)), "little")
                cleared = (old & int.from_bytes(data, "little")).to_bytes(len(data), "little")
                if cleared != data:
                    self._statistics.bad_programs += 1
                data = cleared
            self._put(offset, data)
        if self._faults.cut_now():
            raise CameraStopped

    def _put(self, offset: int, data: bytes) -> None:
        self._map[self.lead + offset : self.lead + offset + len(data)] = data
        if self._backing is not None:
            os.pwrite(self._backing.fileno(), data, offset)

    def _open_backing(self, path: str | os.PathLike[str]) -> None:
        """Keep the content in this file too, beginning with what it already holds."""
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        backing = FileIO(fd, "r+b")
        self.load(backing.read(self.config.size))
        self._backing = backing
        self._put(0, self.content)


class Volume:
    """A FAT file system of the camera's, which the MicroPython process maps, formats and fills."""

    SIZE = 256 * 1024

    def __init__(self, folder: str, files: dict[str, bytes]) -> None:
        self.folder = folder
        self.files = files
        self.file: BinaryIO = tempfile.TemporaryFile()  # noqa: SIM115 closed by Flash.close()
        self.file.truncate(self.SIZE)

    @property
    def settings(self) -> dict[str, object]:
        files = {path: content.decode("latin-1") for path, content in self.files.items()}
        return {"fd": self.file.fileno(), "size": self.SIZE, "files": files}


class Flash:
    """All partitions, and `rom_ioctl` over them. May be indexed like a list."""

    def __init__(
        self,
        config: SimulatorConfig,
        faults: Faults,
        statistics: Statistics,
        backing: str | os.PathLike[str] | None = None,
    ) -> None:
        self._config = config
        self._faults = faults
        self._statistics = statistics
        self.partitions = [
            Partition(index, part, config, faults, statistics, _backing_of(backing, index))
            for index, part in enumerate(config.partitions)
        ]
        for index, image in config.images.items():
            self.partitions[index].load(image)
        scripts = {"boot.py": config.boot_script, "main.py": config.main_script}
        flash_files = {name: text.encode() for name, text in scripts.items() if text}
        self.volumes = [Volume("/flash", flash_files | dict(config.flash_files))]
        if config.sd_files is not None:
            self.volumes.append(Volume("/sdcard", dict(config.sd_files)))

    def __getitem__(self, index: int) -> Partition:
        return self.partitions[index]

    def __len__(self) -> int:
        return len(self.partitions)

    def close(self) -> None:
        for partition in self.partitions:
            partition.close()
        for volume in self.volumes:
            volume.file.close()

    def ioctl(self, command: int, index: int, arguments: tuple[int, ...], data: bytes) -> Operation:
        """`rom_ioctl(command, index, *arguments)`, or one of a block device's two calls.

        data: the bytes to program. Commands 1 and 2 return objects: `camera.upy` handles them in
        the MicroPython process.
        """
        self._statistics.ioctl_calls[command] += 1
        failing = self._faults.failing_answer(command)
        if failing is not None:
            return failing
        if not 0 <= index < len(self.partitions):
            return EINVAL
        partition = self.partitions[index]
        if command in (BLOCK_ERASE, BLOCK_WRITE):
            return (yield from self._block_device(partition, command, arguments, data))
        if partition.config.access == "block" or not self._config.writable:
            return EINVAL
        if command == ERASE and arguments:
            offset, size = 0, arguments[0]
            if len(arguments) > 1 and self._config.erase_by_range:
                offset, size = arguments[0], arguments[1]
            # older firmware: the third argument is the length, whatever follows it
            return (yield from partition.erase(offset, size))
        if command == WRITE and arguments:
            return (yield from partition.program(arguments[0], data))
        if command == ERASE_SIZE and self._config.erase_by_range:
            return partition.config.erase_size
        return EINVAL

    def _block_device(
        self, partition: Partition, command: int, arguments: tuple[int, ...], data: bytes
    ) -> Operation:
        """mimxrt's flash object: erase a block, or program (with one argument: erase first)."""
        block_size = partition.config.erase_size
        offset = arguments[0]
        if command == BLOCK_ERASE or len(arguments) == 1:
            answer = yield from partition.erase(offset, block_size)
            if command == BLOCK_ERASE or answer < 0:
                return min(answer, 0)
        return (yield from partition.program(offset + sum(arguments[1:]), data))


def _backing_of(path: str | os.PathLike[str] | None, index: int) -> str | None:
    if path is None:
        return None
    return os.fspath(path) if index == 0 else f"{os.fspath(path)}.{index}"


def _whole_pages(size: int) -> int:
    return -(-size // mmap.ALLOCATIONGRANULARITY) * mmap.ALLOCATIONGRANULARITY
