"""A camera in its DFU boot loader, through dfu-util. A `Device`; whole images only.

Two writes where flash allows it: first the image without its header, read back and compared,
then its first block alone, with the header. A cable pulled at any moment leaves no image that
mounts. Where the partition is one erase unit (OPENMV2, 3 and 4) the loader erases all of it for
its first byte, so there it is one write, and a cut one shows in the comparison of the next run.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from romfsfs.boards import Board, Partition
from romfsfs.devices import dfu_util
from romfsfs.devices.base import HEADER_SIZE, DeviceInfo, WriteReport
from romfsfs.devices.dfu_util import DfuSetting
from romfsfs.devices.tools import ToolResult, failed, find_tool, run_tool
from romfsfs.devices.whole_image import (
    check_fits,
    check_read,
    copy_image,
    declared_size,
    first_difference,
    write_file,
)
from romfsfs.errors import DeviceAbsent, DeviceError, UsageError, VerifyError
from romfsfs.system.files import Progress, no_progress

#: seconds until a board that was sent to its boot loader must be listed
APPEAR_LIMIT = 15.0
#: seconds for a listing, and for what a transfer needs besides its bytes
_QUICK = 20.0
_TRANSFER_START = 60.0
#: bytes per second that even the slowest board keeps up (erasing included)
_SLOWEST = 20_000
#: flash erase unit up to which the first block can be written alone
_SECTOR = 4096
_RETRY = "repeat the command; if it stays so, use another cable or port"


class DfuDevice:
    """One ROMFS partition of a board in DFU mode; `open` finds it."""

    def __init__(
        self,
        tool: str,
        board: Board,
        partition: Partition,
        setting: DfuSetting,
        *,
        leave: bool = False,
    ) -> None:
        self._leave = leave
        self._tool = tool
        self._board = board
        self._partition = partition
        self._setting = setting
        self._address = partition.dfu.address if partition.dfu else None

    @classmethod
    def open(
        cls,
        board: Board,
        partition: int = 0,
        *,
        enter: Callable[[], None] | None = None,
        leave: bool = False,
    ) -> DfuDevice:
        """Find the board in DFU mode. enter: sends it there from its serial port if it is not.
        leave: `close` restarts a board that was sent there.
        Errors: DeviceAbsent, DeviceError (tool missing, wrong
        settings, several boards), UsageError (no DFU, no such partition). Writes nothing."""
        target = board.partition(partition)
        if target.dfu is None or board.dfu_id is None:
            raise UsageError(
                f"{board.name} has no DFU boot loader for partition {partition}",
                next_step="use its serial port: SOURCE camera",
            )
        tool = find_tool("dfu-util")
        settings = list_settings(tool)
        if enter and not any((item.vid, item.pid) == board.dfu_id for item in settings):
            enter()
            settings = _wait_for(tool, board)
        else:
            leave = False
        try:
            setting = dfu_util.choose_setting(settings, board, target)
        except DeviceError:
            entered = [item for item in settings if (item.vid, item.pid) == board.dfu_id]
            if leave and entered:
                cls(tool, board, target, entered[0], leave=True).close()
            raise
        return cls(tool, board, target, setting, leave=leave)

    def info(self) -> DeviceInfo:
        return DeviceInfo(
            kind="dfu",
            # where the loader knows the chip's number it is what the firmware tells, in capitals
            key=f"{self._board.name}/{self._setting.serial.lower()}/{self._partition.index}",
            name=f"{self._board.name} in DFU mode",
            board=self._board.name,
            partition=self._partition.index,
            capacity=self._partition.size,
            erase_size=self._partition.erase_size,
            march=self._board.march,
            notes=("in DFU mode the camera does not tell its bytecode version",),
        )

    def digest(self, size: int) -> str | None:
        return None

    def matches(self, image: BinaryIO, size: int) -> bool | None:
        return None

    def read_image(self, out: BinaryIO, progress: Progress = no_progress) -> int:
        with tempfile.TemporaryDirectory(prefix="romfsfs-") as folder:
            path = Path(folder, "read.img")
            if self._address is not None:
                self._read(Path(folder, "header"), HEADER_SIZE, no_progress)
                size = declared_size(Path(folder, "header"), self._partition.size, self._name)
                if size:
                    self._read(path, size, progress)
            else:
                self._read(path, self._partition.size, progress)
                size = declared_size(path, self._partition.size, self._name)
            if size:
                copy_image(path, size, out, self._name)
            return size

    @property
    def _name(self) -> str:
        return f"{self._board.name} in DFU mode, {self._setting.name}"

    def _read(self, path: Path, length: int, progress: Progress) -> None:
        argv = dfu_util.read_argv(
            self._tool, self._setting, str(path), address=self._address, length=length
        )
        self._transfer(argv, "read", "reading", length, progress)
        check_read(path, length if self._address is not None else HEADER_SIZE, self._name)

    def _transfer(
        self, argv: list[str], what: str, phase: str, size: int, progress: Progress
    ) -> None:
        progress(phase, 0, size)

        def show(percent: int) -> None:
            progress(phase, size * percent // 100, size)

        result = _run(argv, _TRANSFER_START + size / _SLOWEST, show)
        if result.status:
            raise failed(result, f"{what} {self._name}", _RETRY)
        progress(phase, size, size)

    def write_image(
        self, image: BinaryIO, old: BinaryIO | None = None, progress: Progress = no_progress
    ) -> WriteReport:
        started = time.monotonic()
        size = check_fits(image, self._partition.size, self._name)
        notes: tuple[str, ...] = ()
        with tempfile.TemporaryDirectory(prefix="romfsfs-") as folder:
            whole = Path(folder, "whole.img")
            write_file(image, size, whole)
            written, right = 0, False
            if self._partition.erase_size <= _SECTOR:
                written, right = self._write_in_two(whole, size, Path(folder), progress)
                if not right:
                    notes = ("the first attempt was read back wrong",)
            wrong: int | None = None
            if not right:
                self._write(whole, size, progress)
                written += size
                wrong = self._compare(whole, Path(folder, "third"), 0, size, progress)
        if wrong is not None:
            raise VerifyError(
                "what was read back from the camera is not what was written",
                where=f"{self._name}, first at {wrong:#x}",
                next_step=_RETRY,
            )
        blocks = -(-size // self._partition.erase_size)
        seconds = time.monotonic() - started
        return WriteReport(written, blocks, seconds, verified=True, sent=written, notes=notes)

    def _write_in_two(
        self, whole: Path, size: int, folder: Path, progress: Progress
    ) -> tuple[int, bool]:
        """The image without its header, compared; then its first block, and all compared.

        Returns the bytes written and whether the partition is right; if it is not there may be
        no image in it.
        """
        data = whole.read_bytes()
        first = min(size, _SECTOR)
        body, start = folder / "body.img", folder / "start.img"
        body.write_bytes(b"\xff" * min(HEADER_SIZE, size) + data[HEADER_SIZE:])
        start.write_bytes(data[:first])
        self._write(body, size, progress)
        if self._compare(body, folder / "first", HEADER_SIZE, size, progress) is not None:
            return size, False
        self._write(start, first, progress)
        wrong = self._compare(whole, folder / "second", 0, size, progress)
        return size + first, wrong is None

    def _write(self, path: Path, size: int, progress: Progress) -> None:
        argv = dfu_util.write_argv(self._tool, self._setting, str(path), address=self._address)
        self._transfer(argv, "write", "writing", size, progress)

    def _compare(
        self, expected: Path, scratch: Path, start: int, end: int, progress: Progress
    ) -> int | None:
        """Where the partition first differs from a file between start and end; None: nowhere."""
        self._read(scratch, end if self._address is not None else self._partition.size, progress)
        return first_difference(expected, scratch, start, end)

    def reset(self) -> None:
        """Leave DFU mode: the firmware starts."""
        self._leave = False
        with tempfile.TemporaryDirectory(prefix="romfsfs-") as folder:
            unread = os.path.join(folder, "unread")
            argvs = dfu_util.reset_argvs(self._tool, self._setting, unread, address=self._address)
            for argv in argvs:
                result = _run(argv, _TRANSFER_START + self._partition.size / _SLOWEST)
                if result.status == 0:
                    return
        raise failed(result, "reset the camera", "what was written is verified; replug it")

    def close(self) -> None:
        """dfu-util opens the device for each command; the board may have to be restarted."""
        if self._leave:
            with contextlib.suppress(DeviceError):
                self.reset()


def _run(
    argv: list[str], limit: float, show: Callable[[int], None] = lambda percent: None
) -> ToolResult:
    """dfu-util, which waits for a device that is gone only as long as one may take to appear."""
    waited = False

    def look(piece: str) -> float | None:
        nonlocal waited
        percent = dfu_util.percentage(piece)
        if percent is not None:
            show(percent)
        before, waited = waited, dfu_util.waits(piece)
        if waited:
            return APPEAR_LIMIT
        return limit if before else None

    return run_tool(argv, limit=limit, on_output=look)


def list_settings(tool: str) -> tuple[DfuSetting, ...]:
    """What is in DFU mode now. DeviceError when the tool fails."""
    result = run_tool(dfu_util.list_argv(tool), limit=_QUICK)
    if result.status:
        raise failed(result, "list devices", "run `dfu-util -l` to see why")
    return dfu_util.parse_list(result.output)


def _wait_for(tool: str, board: Board) -> tuple[DfuSetting, ...]:
    """The settings, once the board is among them."""
    end = time.monotonic() + APPEAR_LIMIT
    while time.monotonic() < end:
        settings = list_settings(tool)
        if any((item.vid, item.pid) == board.dfu_id for item in settings):
            return settings
        time.sleep(0.3)
    raise DeviceAbsent(
        f"{board.name} did not appear in DFU mode within {APPEAR_LIMIT:.0f} s",
        next_step="check that this user may open USB devices (OpenMV's udev rules), replug it "
        "and repeat the command",
    )
