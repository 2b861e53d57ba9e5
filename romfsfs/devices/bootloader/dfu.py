"""A camera in its DFU boot loader, through dfu-util: a `BootLoader`. Sizes in bytes.

OpenMV's loaders (their source, `boot/src`) write each block as it comes, from the partition's start
on. Flash is erased, as many bytes as the board table says, when the first of them is written;
programming can only clear bits. A file shorter than the partition changes only the erase units that
it reaches. A read always runs to the partition's end, so it is stopped when there is enough.
"""

from __future__ import annotations

import contextlib
import re
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from romfsfs.boards import Board, Partition
from romfsfs.devices.base import HEADER_SIZE, telling
from romfsfs.devices.bootloader import dfu_util
from romfsfs.devices.bootloader.dfu_util import DfuListing, DfuSetting, choose_setting
from romfsfs.devices.bootloader.programs import (
    QUICK,
    described,
    failed,
    find_tool,
    run,
    transfer_limit,
)
from romfsfs.errors import Cancelled, DeviceAbsent, DeviceError, DeviceLost, UsageError
from romfsfs.system.files import Progress
from romfsfs.system.runner import Outcome

#: seconds until a board that was sent to its boot loader must be listed
APPEAR_LIMIT = 15.0
#: seconds until a board that was told to leave must be gone
LEAVE_LIMIT = 5.0
#: USB vendor id of OpenMV, and what its loaders make of a chip's unique id
_OPENMV = 0x37C5
_CHIP_ID = re.compile(r"[0-9a-f]{24}")
_RETRY = "repeat the command; if it happens again, use another cable or port"


class DfuLoader:
    """One ROMFS partition of a board in DFU mode; made by `find_loader`."""

    kind = "dfu"

    def __init__(self, tool: str, board: Board, partition: Partition, setting: DfuSetting) -> None:
        target = partition.dfu
        assert target is not None
        self._tool = tool
        self._setting = setting
        self._address = target.address
        self.name = f"{board.name} in DFU mode"
        self.identity = _unique_id(setting)
        self.path = setting.path
        self.capacity = partition.size
        self.header_unit = target.erase_size

    def read(self, path: Path, length: int, progress: Progress) -> None:
        argv = dfu_util.read_argv(
            self._tool, self._setting, str(path), address=self._address, length=length
        )
        # Arduino's loader reads the length asked for, and must not be stopped before its end.
        enough = length if self._address is None else self.capacity + 1
        growing = _Growing(path, length, enough, progress)
        with contextlib.suppress(Cancelled):
            outcome = run(argv, transfer_limit(length), cancel=growing)
            if outcome.status:
                raise self._failed(argv, outcome, "read")
        growing.is_set()  # a last report: the tool may have ended since

    def write(self, path: Path, progress: Progress) -> None:
        size = path.stat().st_size
        argv = dfu_util.write_argv(self._tool, self._setting, str(path), address=self._address)

        def show(piece: str) -> None:
            percent = dfu_util.percentage(piece)
            if percent is not None:
                progress("writing", size * percent // 100, size)

        progress("writing", 0, size)
        outcome = run(argv, transfer_limit(size), on_output=show)
        if outcome.status:
            raise self._failed(argv, outcome, "write")

    def _failed(self, argv: list[str], outcome: Outcome, what: str) -> DeviceError:
        there = True
        with contextlib.suppress(DeviceError):  # what failed first says more
            there = self._is_there()
        if not there:  # dfu-util has many messages for that
            return DeviceLost(
                f"the camera went away while it was {what.replace('write', 'written')}",
                where=self.name,
                next_step="connect it again"
                + (" and repeat the command" if what == "read" else ""),
                detail=described(argv, outcome),
            )
        return failed(argv, outcome, f"{what} {self.name}, {self._setting.name}", _RETRY)

    def erase(self, length: int, progress: Progress) -> None:
        """Does nothing: these loaders erase what they write."""

    def reset(self) -> None:
        """Leave DFU mode: done when the board is gone, whatever dfu-util says. DeviceError."""
        with tempfile.TemporaryDirectory(prefix="romfsfs-") as folder:
            unread = str(Path(folder, "unread"))
            argvs = dfu_util.reset_argvs(self._tool, self._setting, unread, address=self._address)
            for argv in argvs:
                outcome = run(argv, transfer_limit(self.capacity))
                if self._is_gone():
                    return
        raise failed(argv, outcome, "reset the camera", "what was written is verified; replug it")

    def _is_there(self) -> bool:
        me = self._setting
        return any(
            (item.vid, item.pid, item.path) == (me.vid, me.pid, me.path)
            for item in list_settings(self._tool).settings
        )

    def _is_gone(self) -> bool:
        end = time.monotonic() + LEAVE_LIMIT
        while self._is_there():
            if time.monotonic() > end:
                return False
            time.sleep(0.1)
        return True


class _Growing:
    """A `Cancel` for a tool that reads: reports the size of its file, stops it at `enough`."""

    def __init__(self, path: Path, length: int, enough: int, progress: Progress) -> None:
        self._path, self._length, self._enough = path, length, enough
        self._progress = progress

    def is_set(self) -> bool:
        try:
            size = self._path.stat().st_size
        except FileNotFoundError:
            size = 0
        self._progress("reading", min(size, self._length), self._length)
        return size >= self._enough


def _unique_id(setting: DfuSetting) -> str:
    """The camera's unique id by the serial number of its loader, as its firmware tells it where
    that is known; '' if the number is not one camera's alone.

    OpenMV's loaders for the STM32 have the 12 bytes of the chip's id in reverse order (openmv:
    boot/src/ports/stm32, `port_get_uid`). The AE3's tells something else than its firmware.
    """
    number = telling(setting.serial).lower()
    if setting.vid == _OPENMV and _CHIP_ID.fullmatch(number):
        return bytes.fromhex(number)[::-1].hex()
    return number


def find_loader(
    board: Board,
    target: Partition,
    enter: Callable[[], str | None],
    limit: float,
    path: str = "",
    *,
    runs: bool = False,
) -> DfuLoader:
    """The board's loader; `enter` sends the board there if it is not there yet, and tells the path
    of its USB port if it is known: another board may be plugged in meanwhile.

    path: of that port, '' if it is the only one. runs: its firmware runs, so no board that is in
    DFU mode now is the one that is meant. limit: seconds in which it must appear after `enter`.
    DeviceAbsent, DeviceError (tool missing, no access, wrong settings, several boards), UsageError
    (no DFU). Writes nothing.
    """
    if target.dfu is None or board.dfu_id is None:
        raise UsageError(
            f"{board.name} has no DFU boot loader for partition {target.index}",
            next_step="use its serial port: SOURCE camera",
        )
    tool = find_tool("dfu-util")
    listing = list_settings(tool)
    if not runs and listing.shows(board, path):
        return DfuLoader(tool, board, target, choose_setting(listing, board, target, path))
    if not path and listing.shows(board):
        raise DeviceError(
            f"another {board.name} is in DFU mode, and could be taken for this one",
            next_step="nothing was written; repeat the command when that one has been written, or "
            "is unplugged",
        )
    try:
        sent = enter()
    except DeviceAbsent:
        if path and not runs:  # no camera is plugged in there: this says where there are some
            choose_setting(listing, board, target, path)
        raise
    path = path or sent or ""
    _wait_for(tool, board, target, limit, path)
    listing = list_settings(tool)
    try:
        return DfuLoader(tool, board, target, choose_setting(listing, board, target, path))
    except DeviceError:
        mine = [
            item
            for item in listing.settings
            if (item.vid, item.pid) == board.dfu_id and path in ("", item.path)
        ]
        if len({item.path for item in mine}) == 1:  # of several, none is known to be the one sent
            with contextlib.suppress(DeviceError):
                DfuLoader(tool, board, target, mine[0]).reset()
        raise


def _wait_for(tool: str, board: Board, partition: Partition, limit: float, path: str) -> None:
    """Have dfu-util wait for the board, at this USB port if one is named, and read a little as soon
    as it is there: without a transfer the loader starts the firmware 1.5 s after power-up.

    The tool's result does not matter: the listing tells what is there. DeviceAbsent.
    """
    with tempfile.TemporaryDirectory(prefix="romfsfs-") as folder:
        file = Path(folder, "start")
        seen = _Seen(file)
        argv = dfu_util.wait_argv(tool, board, partition, str(file), path)
        try:
            run(argv, limit, cancel=seen, on_output=seen.listen)
        except Cancelled:
            return
        except DeviceLost:
            raise DeviceAbsent(
                f"{board.name} did not appear in DFU mode"
                + (f" at {path}" if path else "")
                + f" within {limit:.0f} s",
                next_step="replug it and repeat the command",
            ) from None


class _Seen:
    """A `Cancel` for a waiting dfu-util: stops it once it reads, or may not open what it sees."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._denied = False

    def listen(self, piece: str) -> None:
        self._denied = self._denied or bool(dfu_util.parse_list(piece).denied)

    def is_set(self) -> bool:
        return self._denied or (self._path.exists() and self._path.stat().st_size >= HEADER_SIZE)


def list_settings(tool: str) -> DfuListing:
    """What is in DFU mode now. DeviceError if the tool fails."""
    argv = dfu_util.list_argv(tool)
    outcome = run(argv, QUICK)
    if outcome.status:
        raise failed(argv, outcome, "list devices", "run `dfu-util -l` to see why")
    return dfu_util.parse_list(outcome.output)
