"""What is plugged in, as `push --all` polls it: cameras at serial ports, or in DFU mode."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress

from romfsfs.boards import get_board
from romfsfs.devices.discovery import dfu_cameras, serial_cameras
from romfsfs.errors import UsageError

#: Polls what is plugged in: SOURCE -> a value that changes when it is plugged in again.
Look = Callable[[], Mapping[str, object]]


def serial_ports() -> Mapping[str, object]:
    """A `Look` at the serial ports of cameras; the value is the inode of the device file."""
    found = {camera.port: inode_of(camera.port) for camera in serial_cameras()}
    return {port: inode for port, inode in found.items() if inode}


def inode_of(port: str) -> int:
    """The inode of a port's device file: another one when a camera comes back. 0: no such file."""
    with suppress(OSError):
        return os.stat(port).st_ino
    return 0


def loaders(source: str, only: str | None = None) -> Look:
    """A `Look` at the cameras of `dfu:BOARD` in DFU mode. UsageError if the board has no DFU, or is
    not the one that `only` names."""
    board = get_board(source.removeprefix("dfu:").partition(":")[0])
    if only not in (None, board.name):
        raise UsageError(
            f"--board {only} is another board", where=source, next_step="leave one of them out"
        )
    if board.dfu_id is None:
        raise UsageError(
            f"blhost cannot tell the boot loaders of {board.name} apart", where=source,
            next_step="run --all while their firmware runs; or plug them in one after the other, "
            f"each with: romfsfs push IMAGE {source} --wait",
        )  # fmt: skip

    def look() -> Mapping[str, object]:
        return {
            f"{source}@{each.path}" if each.path else source: each.serial_number
            for each in dfu_cameras()
            if board.name in each.boards
        }

    return look
