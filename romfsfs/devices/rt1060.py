"""The RT1060's resident boot loader, through NXP's blhost (extra `rt1060`). A `Device`.

See docs/cameras.md, "RT1060". The loader listens for about one second after machine.bootloader(),
so the first command follows at once and is repeated until it is answered.
"""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from romfsfs.boards import Board, Partition
from romfsfs.devices.base import HEADER_SIZE, DeviceInfo, WriteReport
from romfsfs.devices.tools import ToolResult, failed, find_tool, run_tool
from romfsfs.devices.whole_image import (
    check_fits,
    check_read,
    copy_image,
    declared_size,
    first_difference,
    write_file,
)
from romfsfs.errors import DeviceAbsent, UsageError, VerifyError
from romfsfs.system.files import Progress, no_progress

#: USB id of the resident boot loader
_USB_ID = "0x15A2,0x0073"
_ENTER_LIMIT = 10.0
_QUICK = 15.0
_TRANSFER_START = 60.0
_SLOWEST = 20_000
_SECTOR = 4096
#: flash is programmed by pages: the one with the header is the smallest last write
_PAGE = 256
_RETRY = "replug the camera and repeat the command; if it stays so, use its serial port"
_STATUS = re.compile(r"Response status = ([0-9]+)")


def property_argv(tool: str) -> list[str]:
    return [tool, "-u", _USB_ID, "get-property", "1"]


def read_argv(tool: str, address: int, length: int, file: str) -> list[str]:
    return [tool, "-u", _USB_ID, "read-memory", hex(address), str(length), file]


def erase_argv(tool: str, address: int, length: int) -> list[str]:
    return [tool, "-u", _USB_ID, "flash-erase-region", hex(address), str(length)]


def write_argv(tool: str, address: int, file: str) -> list[str]:
    return [tool, "-u", _USB_ID, "write-memory", hex(address), file]


def reset_argv(tool: str) -> list[str]:
    return [tool, "-u", _USB_ID, "reset"]


def succeeded(result: ToolResult) -> bool:
    """Status 0, and every `Response status = N` that it prints is 0 (blhost may exit 0 anyway)."""
    return result.status == 0 and not any(
        code.strip("0") for code in _STATUS.findall(result.output)
    )


class Rt1060Device:
    """The ROMFS partition of an RT1060 in its boot loader."""

    def __init__(self, tool: str, board: Board, partition: Partition) -> None:
        if partition.imx is None:
            raise UsageError(f"{board.name} has no i.MX boot loader")
        self._tool = tool
        self._board = board
        self._partition = partition
        self._address = partition.imx.address
        self._capacity = min(partition.imx.size, partition.size)
        self._name = f"{board.name} in its boot loader"

    @classmethod
    def open(
        cls, board: Board, partition: int = 0, *, enter: Callable[[], None] | None = None
    ) -> Rt1060Device:
        """Reach the loader. enter: sends the camera there from its serial port."""
        tool = find_tool("blhost", "pip install 'romfsfs[rt1060]'")
        target = board.partition(partition)
        if target.imx is None:
            raise UsageError(f"{board.name} has no i.MX boot loader")
        if not succeeded(run_tool(property_argv(tool), limit=_QUICK)):
            if enter is None:
                raise _absent(board)
            enter()
            end = time.monotonic() + _ENTER_LIMIT
            while not succeeded(run_tool(property_argv(tool), limit=_QUICK)):
                if time.monotonic() > end:
                    raise _absent(board)
                time.sleep(0.1)
        return cls(tool, board, target)

    def info(self) -> DeviceInfo:
        return DeviceInfo(
            kind="rt1060",
            key=f"{self._board.name}/bootloader/{self._partition.index}",
            name=self._name,
            board=self._board.name,
            partition=self._partition.index,
            capacity=self._capacity,
            erase_size=self._partition.erase_size,
            march=self._board.march,
            notes=("in its boot loader the camera does not tell its bytecode version",),
        )

    def digest(self, size: int) -> str | None:
        return None

    def matches(self, image: BinaryIO, size: int) -> bool | None:
        return None

    def read_image(self, out: BinaryIO, progress: Progress = no_progress) -> int:
        with tempfile.TemporaryDirectory(prefix="romfsfs-") as folder:
            header, path = Path(folder, "header"), Path(folder, "read.img")
            self._read(header, HEADER_SIZE)
            size = declared_size(header, self._capacity, self._name)
            if size:
                progress("reading", 0, size)
                self._read(path, size)
                copy_image(path, size, out, self._name)
                progress("reading", size, size)
            return size

    def _read(self, path: Path, length: int) -> None:
        argv = read_argv(self._tool, self._address, length, str(path))
        self._run(argv, "read the ROMFS", length)
        check_read(path, length, self._name)

    def _run(self, argv: list[str], what: str, length: int) -> None:
        result = run_tool(argv, limit=_TRANSFER_START + length / _SLOWEST)
        if not succeeded(result):
            raise failed(result, what, _RETRY)

    def write_image(
        self, image: BinaryIO, old: BinaryIO | None = None, progress: Progress = no_progress
    ) -> WriteReport:
        """Erase, write all but the first page, compare, then the first page with the header."""
        started = time.monotonic()
        size = check_fits(image, self._capacity, self._name)
        blocks = -(-size // _SECTOR)
        with tempfile.TemporaryDirectory(prefix="romfsfs-") as folder:
            whole = Path(folder, "whole.img")
            write_file(image, size, whole)
            wrong: int | None = None
            for attempt in ("1", "2"):
                wrong = self._write_once(whole, size, Path(folder), attempt, progress)
                if wrong is None:
                    seconds = time.monotonic() - started
                    return WriteReport(size, blocks, seconds, verified=True, sent=size)
        raise VerifyError(
            "what was read back from the camera is not what was written",
            where=f"{self._name}, first at {wrong or 0:#x}",
            next_step=_RETRY,
        )

    def _write_once(
        self, whole: Path, size: int, folder: Path, attempt: str, progress: Progress
    ) -> int | None:
        data = whole.read_bytes()
        back = folder / f"back{attempt}"
        progress("erasing", 0, size)
        length = -(-size // _SECTOR) * _SECTOR
        self._run(erase_argv(self._tool, self._address, length), "erase the ROMFS", size)
        for start, end in ((_PAGE, size), (0, min(_PAGE, size))):
            if start >= end:
                continue
            part = folder / f"part{attempt}-{start}"
            # the loader's flash driver wants whole pages; FF leaves the rest erased
            part.write_bytes(data[start:end] + b"\xff" * (-(end - start) % _PAGE))
            progress("writing", size - (end - start), size)
            argv = write_argv(self._tool, self._address + start, str(part))
            self._run(argv, "write the ROMFS", end - start)
            if start:
                self._read(back, size)
                wrong = first_difference(whole, back, start, end)
                if wrong is not None:
                    return wrong
                back.unlink()
        progress("verifying", 0, size)
        self._read(back, size)
        return first_difference(whole, back, 0, size)

    def reset(self) -> None:
        result = run_tool(reset_argv(self._tool), limit=_QUICK)
        if not succeeded(result):
            raise failed(result, "reset the camera", "what was written is verified; replug it")

    def close(self) -> None:
        """Nothing to close: blhost opens the device for each command."""


def _absent(board: Board) -> DeviceAbsent:
    return DeviceAbsent(
        f"no {board.name} answers in its boot loader",
        next_step="connect it, let it start, and repeat the command",
    )
