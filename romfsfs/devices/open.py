"""What a SOURCE means, and the device that it opens.

    camera            the only camera connected        camera:SERIAL   the one with this USB serial
    /dev/..., COM3    a serial port: any terminal device, so simulated cameras work too
    dfu:BOARD         the board's boot loader: DFU, or RT1060's; entered from the serial port
    dfu:BOARD@PORT    the one on this USB port, as `cameras` lists them
    anything else     an image file

Each kind is imported only when it is opened: working with files costs no pyserial.
"""

from __future__ import annotations

import os
import re
import stat
import threading
from collections.abc import Callable
from contextlib import nullcontext
from typing import TYPE_CHECKING

from romfsfs.errors import UsageError

if TYPE_CHECKING:
    from romfsfs.boards import Board
    from romfsfs.devices.base import Device, DeviceInfo, PartitionState
    from romfsfs.devices.bootloader.device import BootLoaderDevice
    from romfsfs.devices.serial_camera.probe import CameraFacts

#: seconds to wait for a boot loader that somebody has to start by hand
WAIT_SECONDS = 24 * 3600.0
#: where USB ports are not known, one camera at a time is sent to its boot loader and looked for:
#: each of several that `push` sends at once would take the first that appears
_ONE_BY_ONE = threading.Lock()
_WINDOWS_PORT = re.compile(r"(\\\\\.\\)?COM\d+", re.IGNORECASE)


def is_camera(source: str) -> bool:
    """Does this SOURCE name a camera, however it is reached? Decided by its name and `stat`."""
    return source == "camera" or source.startswith(("camera:", "dfu:")) or _is_port(source)


def open_device(
    source: str,
    *,
    board: str | None = None,
    partition: int | None = None,
    slot: str = "",
    wait: Callable[[str], None] | None = None,
    accept: Callable[[CameraFacts], None] | None = None,
) -> Device:
    """Open what SOURCE names.

    board: names the board where the camera cannot be identified (serial cameras only; an image
    file has none). partition: of a camera, default 0. slot: of openmv-ota in it, 'A' or 'B'. wait:
    for a boot loader only: wait up to WAIT_SECONDS for somebody to start it, instead of entering it
    from the serial port; called with the line that says how. accept: see `SerialCamera.open`; not
    called for other devices. UsageError for what makes no sense; DeviceAbsent, DeviceBusy and so on
    for what cannot be opened.
    """
    if "\0" in source:  # ValueError below would end the work on other SOURCEs too
        raise UsageError("a name cannot contain a NUL byte", where=source)
    if source.startswith("dfu:"):
        if slot == "B":
            raise UsageError(
                "boot loaders write from the partition's start on, which is slot A",
                where=source, next_step="slot B is reached by the camera's serial port",
            )  # fmt: skip
        return _open_bootloader(source[len("dfu:") :], partition, wait)
    if wait is not None:
        raise UsageError(
            "only a boot loader can be waited for", where=source, next_step="name it: dfu:BOARD"
        )
    if source == "camera" or source.startswith("camera:"):
        from romfsfs.devices.discovery import pick_camera

        number = source[len("camera:") :] if ":" in source else None
        return open_serial(pick_camera(number).port, board, partition, slot, accept)
    if _is_port(source):
        return open_serial(source, board, partition, slot, accept)
    if slot:
        raise UsageError("only cameras have slots", where=source, next_step="leave out --slot")
    from romfsfs.devices.file import FileDevice

    return FileDevice(source)


def _is_port(source: str) -> bool:
    if _WINDOWS_PORT.fullmatch(source):
        return not os.path.exists(source)
    try:
        return stat.S_ISCHR(os.stat(source).st_mode)
    except (OSError, ValueError):
        # Unplugged: "no such port" says more than "no such file". /dev/shm is for files.
        return source.startswith("/dev/") and not source.startswith("/dev/shm/")  # noqa: S108


def inspect(port: str) -> tuple[DeviceInfo, tuple[PartitionState, ...]]:
    """What the camera on a port is, and what its partitions hold; interrupts a script that runs
    there. Errors as for opening."""
    from romfsfs.devices.serial_camera.camera import SerialCamera

    camera = SerialCamera.open(port)
    try:
        return camera.info(), camera.partitions()
    finally:
        camera.close()


def open_serial(
    port: str, board: str | None = None, partition: int | None = None, slot: str = "",
    accept: Callable[[CameraFacts], None] | None = None,
) -> Device:  # fmt: skip
    """A camera on its serial port; by DFU if its firmware gives no access to the ROMFS. The boot
    loader must then appear on the same USB port: another camera may wait in its own."""
    from romfsfs.devices.discovery import usb_path
    from romfsfs.devices.serial_camera.camera import SerialCamera
    from romfsfs.devices.serial_camera.identity import NoRomfsAccess

    try:
        return SerialCamera.open(port, board=board, partition=partition, slot=slot, accept=accept)
    except NoRomfsAccess as error:
        chosen = error.board
        if chosen is None or chosen.dfu_id is None or slot == "B":
            raise
        return _connect(
            chosen, partition or 0, lambda: send_to_loader(port, chosen), path=usb_path(port),
            runs=True, port=port,
        )  # fmt: skip


def _open_bootloader(
    name: str, partition: int | None, wait: Callable[[str], None] | None
) -> Device:
    from romfsfs.boards import parse_board
    from romfsfs.devices.bootloader.dfu_util import how_to_enter
    from romfsfs.devices.discovery import port_of

    name, _, path = name.partition("@")
    if not name:
        raise UsageError("which board?", where="dfu:", next_step="dfu:BOARD; see `romfsfs boards`")
    board, number = parse_board(name)
    if None not in (number, partition) and number != partition:
        raise UsageError(f"that is partition {number}, not {partition}", where=f"dfu:{name}")
    index = number or partition or 0
    if path and board.partition(index).imx is not None:
        raise UsageError(
            f"blhost cannot choose a boot loader of {board.name} by its USB port",
            where=f"dfu:{name}@{path}", next_step=f"connect only that one, and name it dfu:{name}",
        )  # fmt: skip
    if wait is not None:
        say = wait
        line = f"waiting for {board.name} in its boot loader, Ctrl-C ends it: {how_to_enter(board)}"
        device = _connect(board, index, lambda: say(line), path=path, waits=True)
        device.hold()
        return device
    return _connect(
        board, index, lambda: send_to_loader(port_of(board, path).port, board), path=path
    )


def _connect(
    board: Board,
    partition: int,
    enter: Callable[[], str | None],
    *,
    path: str = "",
    waits: bool = False,
    runs: bool = False,
    port: str = "",
) -> BootLoaderDevice:
    """Open the board in its boot loader, sent there by `enter` if it is not there. waits: somebody
    has to start it. runs: its firmware runs now, so it has to be sent, and `close` restarts it and
    waits for its serial port."""
    from romfsfs.devices.bootloader import blhost, dfu
    from romfsfs.devices.bootloader.device import BootLoaderDevice
    from romfsfs.devices.bootloader.loader import BootLoader

    target = board.partition(partition)
    loader: BootLoader
    if target.imx is not None:
        limit = WAIT_SECONDS if waits else blhost.ENTER_LIMIT
        loader = blhost.find_loader(board, target, enter, limit)
    else:
        limit = WAIT_SECONDS if waits else dfu.APPEAR_LIMIT
        with _ONE_BY_ONE if runs and not path else nullcontext():
            loader = dfu.find_loader(board, target, enter, limit, path, runs=runs)
    return BootLoaderDevice(loader, board, target, leave=runs, port=port)


def send_to_loader(port: str, board: Board) -> str:
    """Restart the camera on this port into its boot loader; the port disappears. Returns where that
    is to be found, as `usb_path` does.

    Arduino boards: open and close it at 1200 baud. Others: from the REPL. DeviceError, with
    nothing done, if this user could not open the camera there.
    """
    from romfsfs.devices.discovery import check_usb_access, usb_path
    from romfsfs.devices.serial_camera.port import Port, touch
    from romfsfs.devices.serial_camera.repl import RawRepl
    from romfsfs.devices.serial_camera.snippets import BOOTLOADER

    check_usb_access(port)
    path = usb_path(port)
    if board.name.startswith("ARDUINO"):
        touch(port)
        return path
    opened = Port(port)
    try:
        RawRepl(opened).start_and_forget(BOOTLOADER)
    finally:
        opened.close()
    return path
