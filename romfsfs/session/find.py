"""Sessions of cameras, found without opening the camera's port.

Opening a port ends the script that runs on the camera. Who only wants to see the edits, which are
on this machine, need not pay that. So nothing here is certain enough to write by: what writes
opens the camera, and asks it who it is.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

from romfsfs.devices.discovery import CameraPort, camera_port, pick_camera, telling
from romfsfs.errors import DeviceAbsent
from romfsfs.session.session import Session, sessions


def known_session(source: str, partition: int) -> Session | None:
    """The only session of the camera that SOURCE names, None if that is not clear from here.

    By the USB serial number; where there is none, the one that is mounted now from that port.
    UsageError when SOURCE may mean several cameras that are connected.
    """
    if source.startswith("dfu:"):
        return None
    try:
        port = _port(source)
    except DeviceAbsent:
        return unplugged_session(source, partition)
    if not os.path.exists(port.port):
        return unplugged_session(source, partition)
    return _only(each for each in _of_cameras(partition) if _is_on(each, port))


def unplugged_session(source: str, partition: int) -> Session | None:
    """The only session that was opened by this name, for a camera that is not there now."""
    return _only(
        each for each in _of_cameras(partition) if source in (each.info.source, each.info.name)
    )


def _only(found: Iterable[Session]) -> Session | None:
    all_of_them = list(found)
    return all_of_them[0] if len(all_of_them) == 1 else None


def _of_cameras(partition: int) -> Iterator[Session]:
    for session in sessions():
        if not session.info.is_file and session.info.partition == partition:
            yield session


def _port(source: str) -> CameraPort:
    if source == "camera" or source.startswith("camera:"):
        return pick_camera(source.partition(":")[2] or None)
    return camera_port(source)


def _is_on(session: Session, port: CameraPort) -> bool:
    info = session.info
    if not info.has_port or (port.boards and info.board and info.board not in port.boards):
        return False
    number = telling(port.serial_number)
    if number or info.usb_serial:
        return number.casefold() == info.usb_serial.casefold()
    was_on = info.name.rpartition(" on ")[2]
    return (
        os.path.realpath(was_on) == os.path.realpath(port.port)
        and session.folder.mounted_at() is not None
    )
