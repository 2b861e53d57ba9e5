"""Boot loaders on USB: OpenMV's (DFU 1.1, as TinyUSB's) and Arduino's (DfuSe).

What they do was read in their source (openmv `boot/src`, TinyUSB `dfu_device.c`): the states and
when they are reset, blocks at multiples of 4,096 B from the setting's start, flash that is erased
`erase` bytes at a time when the first of them is written, programming that clears bits. A setting
is a piece of memory, and `pull_after` the bytes that are programmed until the cable is pulled.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from usbip import Descriptors, Setup, Stall, UsbDevice, configuration

DETACH, DNLOAD, UPLOAD, GETSTATUS, CLRSTATUS, GETSTATE, ABORT = range(7)
IDLE, SYNC, BUSY, DNLOAD_IDLE, MANIFEST_SYNC, UPLOAD_IDLE, ERROR = 2, 3, 4, 5, 6, 9, 10
OK, ERR_WRITE, ERR_ADDRESS, ERR_STALLED = 0, 3, 8, 15
BLOCK, PAGE = 4096, 256
#: bytes that MRAM takes at a time
WORD = 16


class Memory(Protocol):
    """Cells of a partition."""

    size: int

    def read(self, offset: int, count: int) -> bytes: ...

    def put(self, offset: int, data: bytes) -> None: ...


@dataclass
class Ram:
    """A memory that no test looks into."""

    size: int = 1 << 20

    def __post_init__(self) -> None:
        self.cells = bytearray(b"\xff" * self.size)

    def read(self, offset: int, count: int) -> bytes:
        return bytes(self.cells[offset : offset + count])

    def put(self, offset: int, data: bytes) -> None:
        self.cells[offset : offset + len(data)] = data


class Pulled(Exception):
    """The cable was pulled while flash was programmed."""


@dataclass
class Setting:
    """name: of the alternate setting; None: it has none. erase: bytes that are erased together;
    0: MRAM."""

    name: str | None
    memory: Memory = field(default_factory=Ram)
    erase: int = BLOCK
    read_only: bool = False
    programmed: int = 0
    pull_after: int | None = None

    def write(self, offset: int, data: bytes, *, erases: bool = True) -> int:
        if self.read_only:
            return ERR_WRITE
        if offset + len(data) > self.memory.size:
            return ERR_ADDRESS
        if erases and self.erase and offset % self.erase == 0:
            self.clear(offset)
        unit = PAGE if self.erase else WORD
        for start in range(0, len(data), unit):
            page = data[start : start + unit]
            if self.pull_after is not None and self.programmed >= self.pull_after:
                self.pull_after = None
                raise Pulled
            if self.erase:
                old = self.memory.read(offset + start, len(page))
                page = bytes(a & b for a, b in zip(page, old, strict=True))
            self.memory.put(offset + start, page)
            self.programmed += len(page)
        return OK

    def clear(self, offset: int) -> None:
        start = offset - offset % self.erase
        self.memory.put(start, b"\xff" * min(self.erase, self.memory.size - start))


class DfuDevice(UsbDevice):
    """A board in its loader. left: called when it starts its firmware; pulled: when its cable was.

    read_limit: bytes of a read after which the cable is pulled. window: seconds after which it
    starts the firmware unless something was transferred.
    """

    ATTRIBUTES, VERSION = 0x07, 0x0101

    def __init__(
        self,
        vid: int,
        pid: int,
        serial: str,
        settings: list[Setting],
        left: Callable[[], None],
        pulled: Callable[[], None],
        window: float | None = None,
    ) -> None:
        functional = struct.pack("<BBBHHH", 9, 0x21, self.ATTRIBUTES, 1000, BLOCK, self.VERSION)
        body = b"".join(
            struct.pack("<9B", 9, 4, 0, at, 0, 0xFE, 1, 2, 0 if each.name is None else 4 + at)
            for at, each in enumerate(settings)
        )
        strings = ["OpenMV", "DFU", serial, *(setting.name or "" for setting in settings)]
        super().__init__(Descriptors(vid, pid, configuration(body + functional, 1), strings))
        self.settings = settings
        self.read_limit: int | None = None
        self._left, self._pulled = left, pulled
        self._was_pulled = False
        self._deadline = None if window is None else time.monotonic() + window
        self._alt = 0
        self._reset()

    def _reset(self) -> None:
        self.state, self.status = IDLE, OK
        self.block, self.data = 0, b""
        self.pending = False

    def set_interface(self, interface: int, setting: int) -> None:
        if setting >= len(self.settings):
            raise Stall
        self._alt = setting
        self._reset()

    def ready(self) -> None:
        if self._deadline is not None and time.monotonic() > self._deadline:
            self.leaving = True

    def gone(self) -> None:
        (self._pulled if self._was_pulled else self._left)()

    def pull(self) -> None:
        self._was_pulled = True
        super().pull()

    def control(self, setup: Setup, data: bytes) -> bytes:
        if setup.request == DETACH:
            self.leaving = True
            return b""
        if setup.request in (CLRSTATUS, ABORT):
            self._reset()
            return b""
        if setup.request == GETSTATE:
            return bytes([self.state])
        if setup.request == GETSTATUS:
            return self._get_status()
        if setup.request == DNLOAD:
            return self._download(setup.value, data)
        if setup.request == UPLOAD:
            self._deadline = None
            answer = self._upload(setup.value, setup.length)
            if self.read_limit is not None:
                self.read_limit -= len(answer)
                if self.read_limit < 0:
                    self._cut()
            return answer
        raise Stall

    def _cut(self) -> None:
        self._was_pulled = True
        raise ConnectionError

    def _fail(self, status: int) -> None:
        self.state, self.status = ERROR, status

    def _get_status(self) -> bytes:
        """Flashing begins with the first one after a block; the next says how that went."""
        told = self.state
        if self.state == SYNC and self.pending:
            self._deadline = None
            self.pending = False
            told = BUSY
            try:
                status = self._flash(self.block, self.data)
            except Pulled:
                self._cut()
            if status:
                self._fail(status)
        elif self.state == SYNC:
            told = self.state = DNLOAD_IDLE
        elif self.state == MANIFEST_SYNC:
            told = self.state = IDLE
            self._manifest()
        return bytes([self.status, 0, 0, 0, told, 0])

    def _download(self, block: int, data: bytes) -> bytes:
        if self.state not in (IDLE, DNLOAD_IDLE):
            self._fail(ERR_STALLED)
            raise Stall
        self.block, self.data = block, data
        self.pending = bool(data)
        self.state = SYNC if data else MANIFEST_SYNC
        return b""

    def _flash(self, block: int, data: bytes) -> int:
        return self.settings[self._alt].write(block * BLOCK, data)

    def _manifest(self) -> None: ...

    def _upload(self, block: int, length: int) -> bytes:
        memory = self.settings[self._alt].memory
        if block * BLOCK + length > memory.size:
            return bytes(4)
        return memory.read(block * BLOCK, length)


class DfuSeDevice(DfuDevice):
    """Arduino's loader: memories with addresses. start: of the setting that is the flash."""

    ATTRIBUTES, VERSION = 0x0B, 0x011A
    START = 0x90000000
    address = START

    def _flash(self, block: int, data: bytes) -> int:
        flash = self.settings[self._alt]
        if block == 0 and len(data) == 5:
            self.address = struct.unpack("<I", data[1:])[0]
            if data[0] == 0x41:
                flash.clear(self.address - self.START)
            elif data[0] != 0x21:
                return ERR_STALLED
            return OK
        if block < 2:
            return ERR_STALLED
        place = self.address - self.START + (block - 2) * BLOCK
        return flash.write(place, data, erases=False)

    def _manifest(self) -> None:
        """A download of nothing: the firmware starts."""
        self.leaving = True

    def _upload(self, block: int, length: int) -> bytes:
        if self.state not in (IDLE, UPLOAD_IDLE) or block < 2:
            self._fail(ERR_STALLED)
            raise Stall
        self.state = UPLOAD_IDLE
        place = self.address - self.START + (block - 2) * BLOCK
        return self.settings[self._alt].memory.read(place, length)
