"""Which cameras are connected, told by USB ids without opening a port.

Ports of other USB devices, plain serial adapters and simulated cameras are not listed, but can
be named as a SOURCE; $ROMFSFS_PORTS adds such ports (separated as in $PATH) to the list.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, NamedTuple

from romfsfs.boards import Board, by_dfu_id, by_usb_id
from romfsfs.devices.base import telling
from romfsfs.errors import DeviceAbsent, DeviceError, UsageError

#: how often the ports are listed while some vanish, and seconds between two attempts
_LOOKS, _PAUSE = 5, 0.05
#: where Linux lists devices by number: a container may have a port by another one's name
_BY_NUMBER = "/sys/dev/char"


class CameraPort(NamedTuple):
    """A camera's serial port. boards: names of those that use its USB id (there may be several;
    opening the camera tells which). vid and pid: 0 where there is no USB."""

    port: str
    vid: int = 0
    pid: int = 0
    serial_number: str = ""
    boards: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """How to show it in one line: port, boards, how to name it."""
        name = " or ".join(self.boards) or "unknown board"
        number = f", camera:{self.serial_number}" if self.serial_number else ""
        return f"{self.port} ({name}{number})"


class DfuCamera(NamedTuple):
    """A board in DFU mode. boards: those with its USB id; Arduino's loaders share one.
    settings: names of its alternate settings, in their order; none where this user may not open
    it."""

    vid: int
    pid: int
    path: str
    serial_number: str
    boards: tuple[str, ...]
    settings: tuple[str, ...]


def serial_cameras(ports: Iterable[Any] | None = None) -> tuple[CameraPort, ...]:
    """Connected cameras, by port. ports: pyserial's ListPortInfo objects (None: this machine's)."""
    found = []
    for port in _ports() if ports is None else ports:
        if port.vid is None or port.pid is None:
            continue
        boards = tuple(board.name for board in by_usb_id(port.vid, port.pid))
        if boards:
            number = port.serial_number or ""
            found.append(CameraPort(port.device, port.vid, port.pid, number, boards))
    added = os.environ.get("ROMFSFS_PORTS", "").split(os.pathsep)
    found += [CameraPort(name) for name in added if name]
    return tuple(sorted(found, key=lambda camera: camera.port))


def _ports() -> Iterable[Any]:
    """This machine's serial ports. pyserial raises TypeError (`int(None)`) if one vanishes while it
    is looked at, as a restarting camera's does; the next attempt finds it gone. DeviceError."""
    from serial.tools import list_ports

    for _ in range(_LOOKS):
        try:
            return list(list_ports.comports())
        except TypeError:
            time.sleep(_PAUSE)
    raise DeviceError(
        "the list of serial ports keeps changing",
        next_step="repeat the command when the cameras have started, or name the port by its path",
    )


def camera_port(port: str) -> CameraPort:
    """The port with its USB ids, looked up without opening it; no ids unless a known camera's."""
    real = os.path.realpath(port)
    for camera in serial_cameras():
        if camera.port in (port, real):
            return camera
    return CameraPort(port)


def usb_serial(port: str) -> str:
    """The USB serial number of the camera on this port, '' if it does not tell cameras apart.

    Some firmware gives all cameras one number, such as 000000000010.
    """
    return telling(camera_port(port).serial_number)


def dfu_cameras() -> tuple[DfuCamera, ...]:
    """Known boards in DFU mode, by `dfu-util -l`. DeviceError when it is missing or fails."""
    from romfsfs.devices.bootloader.dfu import list_settings
    from romfsfs.devices.bootloader.programs import find_tool

    listing = list_settings(find_tool("dfu-util"))
    groups: dict[tuple[int, int, str, str], list[str]] = {
        (*usb_id, "", ""): [] for usb_id in listing.denied
    }
    for item in listing.settings:
        groups.setdefault((item.vid, item.pid, item.path, item.serial), []).append(item.name)
    return tuple(
        DfuCamera(vid, pid, path, serial, boards, tuple(names))
        for (vid, pid, path, serial), names in groups.items()
        if (boards := tuple(board.name for board in by_dfu_id(vid, pid)))
    )


def _usb_device(port: str) -> str:
    """Where Linux tells of the USB device of a serial port; other ports have none there."""
    number = 0
    with suppress(OSError):
        number = os.stat(port).st_rdev
    return f"{_BY_NUMBER}/{os.major(number)}:{os.minor(number)}/device/.."


def usb_path(port: str) -> str:
    """The path of the USB port (`1-2.3`) that a serial port's device is plugged into, as dfu-util
    tells it of the boot loader that this becomes. '' where it is not known: not Linux, or no USB.
    """
    from romfsfs.devices.bootloader.dfu_util import port_path

    return port_path(os.path.basename(os.path.realpath(_usb_device(port))))


def check_usb_access(port: str) -> None:
    """DeviceError unless this user may open the USB device of a serial port. The same permission
    holds for the boot loader that it becomes; without it the camera would be stuck there, unseen.

    Linux tells (`busnum` and `devnum` of the device); for other ports nothing is checked.
    """
    from romfsfs.devices.bootloader.dfu_util import no_access

    device = _usb_device(port)
    try:
        with open(f"{device}/busnum") as bus, open(f"{device}/devnum") as number:
            node = f"/dev/bus/usb/{int(bus.read()):03}/{int(number.read()):03}"
    except (OSError, ValueError):
        return
    if not os.access(node, os.R_OK | os.W_OK):
        raise no_access(f"the camera in its boot loader, as {node} cannot be opened now")


def pick_camera(
    serial_number: str | None = None, cameras: tuple[CameraPort, ...] | None = None
) -> CameraPort:
    """The only camera, or the one with this serial number (in any case).

    DeviceAbsent when there is none; UsageError, listing them, when there are several.
    """
    cameras = serial_cameras() if cameras is None else cameras
    listing = ", ".join(camera.label for camera in cameras)
    if serial_number:
        wanted = serial_number.casefold()
        chosen = [camera for camera in cameras if camera.serial_number.casefold() == wanted]
        missing = f"no camera with serial number {serial_number} is connected"
    else:
        chosen, missing = list(cameras), "no camera is connected"
    if not chosen:
        raise DeviceAbsent(
            missing,
            where=f"connected: {listing}" if listing else "",
            next_step="check the cable (some only charge); name a camera in its boot loader "
            "dfu:BOARD, and any other port by its path",
        )
    if len(chosen) > 1:
        raise UsageError(
            f"{len(chosen)} cameras are connected",
            where=listing,
            next_step="name one: camera:SERIAL or its port",
        )
    return chosen[0]


def port_of(board: Board, path: str = "") -> CameraPort:
    """The only connected camera that can be this board, on this USB port if one is named; errors as
    `pick_camera`."""
    fit = (
        camera
        for camera in serial_cameras()
        if (not camera.boards or board.name in camera.boards)
        and path in ("", usb_path(camera.port))
    )
    return pick_camera(None, tuple(fit))
