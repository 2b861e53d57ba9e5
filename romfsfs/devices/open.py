"""What a SOURCE means, and the device that it opens.

    camera            the only camera connected        camera:SERIAL   the one with this USB serial
    /dev/..., COM3    a serial port; any terminal device counts, so that a simulated camera does
    dfu:BOARD         the board's boot loader: DFU, or RT1060's; entered from the serial port
    anything else     an image file

Each kind is imported only when it is opened: working with files costs no pyserial.
"""

from __future__ import annotations

import os
import re
import stat
from typing import TYPE_CHECKING

from romfsfs.errors import UsageError

if TYPE_CHECKING:
    from romfsfs.boards import Board
    from romfsfs.devices.base import Device

_WINDOWS_PORT = re.compile(r"(\\\\\.\\)?COM\d+", re.IGNORECASE)


def is_camera(source: str) -> bool:
    """Does this SOURCE name a camera, however it is reached? Decided by its name and `stat`."""
    return source == "camera" or source.startswith(("camera:", "dfu:")) or _is_port(source)


def open_device(source: str, *, board: str | None = None, partition: int | None = None) -> Device:
    """Open what SOURCE names.

    board: names the board where the camera cannot be identified (serial cameras only; an image
    file has none). partition: of a camera, default 0. UsageError for what cannot be meant;
    DeviceAbsent, DeviceBusy and so on for what is not there.
    """
    if source.startswith("dfu:"):
        return _open_bootloader(source[len("dfu:") :], partition)
    if source == "camera" or source.startswith("camera:"):
        from romfsfs.devices.discovery import pick_camera

        number = source[len("camera:") :] if ":" in source else None
        return open_serial(pick_camera(number).port, board=board, partition=partition)
    if _is_port(source):
        return open_serial(source, board=board, partition=partition)
    from romfsfs.devices.file import FileDevice

    return FileDevice(source)


def _is_port(source: str) -> bool:
    if _WINDOWS_PORT.fullmatch(source):
        return os.name == "nt" or not os.path.exists(source)
    try:
        return stat.S_ISCHR(os.stat(source).st_mode)
    except (OSError, ValueError):
        # Unplugged: "no such port" says more than "no such file". /dev/shm is for files.
        return source.startswith("/dev/") and not source.startswith("/dev/shm/")


def open_serial(port: str, *, board: str | None = None, partition: int | None = None) -> Device:
    """A camera on its serial port; by DFU where its firmware gives no access to the ROMFS."""
    from romfsfs.boards import get_board
    from romfsfs.devices.serial_camera.camera import SerialCamera
    from romfsfs.devices.serial_camera.identity import NoRomfsAccess

    try:
        return SerialCamera.open(port, board=board, partition=partition)
    except NoRomfsAccess as error:
        known = error.board or (get_board(board) if board else None)
        if known is None or known.dfu_id is None:
            raise
        from romfsfs.devices.dfu import DfuDevice

        chosen = known
        return DfuDevice.open(
            known, partition or 0, enter=lambda: send_to_loader(port, chosen), leave=True
        )


def _open_bootloader(name: str, partition: int | None) -> Device:
    from romfsfs.boards import parse_board
    from romfsfs.devices.discovery import port_of

    if not name:
        raise UsageError("which board?", where="dfu:", next_step="dfu:BOARD; see `romfsfs boards`")
    board, number = parse_board(name)
    if None not in (number, partition) and number != partition:
        raise UsageError(f"that is partition {number}, not {partition}", where=f"dfu:{name}")
    index = number or partition or 0

    def enter() -> None:
        send_to_loader(port_of(board).port, board)

    if board.partition(index).imx is not None:
        from romfsfs.devices.rt1060 import Rt1060Device

        return Rt1060Device.open(board, index, enter=enter)
    from romfsfs.devices.dfu import DfuDevice

    return DfuDevice.open(board, index, enter=enter)


def send_to_loader(port: str, board: Board) -> None:
    """Restart the camera on this port into its boot loader; the port disappears.

    Arduino boards: open and close it at 1200 baud. Others: from the REPL.
    """
    from romfsfs.devices.serial_camera.port import Port, touch
    from romfsfs.devices.serial_camera.repl import RawRepl
    from romfsfs.devices.serial_camera.snippets import BOOTLOADER

    if board.name.startswith("ARDUINO"):
        touch(port)
        return
    opened = Port(port)
    try:
        RawRepl(opened).start_and_forget(BOOTLOADER)
    finally:
        opened.close()
