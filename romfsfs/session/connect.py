"""Opening the devices that sources and sessions name; a camera's session by its USB identity."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from romfsfs.devices.base import Device, telling
from romfsfs.devices.discovery import CameraPort, camera_port, pick_camera
from romfsfs.devices.open import is_camera, open_device
from romfsfs.errors import DeviceAbsent, RomfsError, UsageError
from romfsfs.session.keep.folder import SessionFolder, all_sessions
from romfsfs.session.keep.state import SessionInfo
from romfsfs.session.session import Session, sessions


@contextmanager
def device(
    source: str, board: str | None = None, partition: int | None = None, slot: str = ""
) -> Iterator[Device]:
    """An open device, closed at the end of the block. Raises as `open_device` does.

    SessionBusy while another process changes what the camera holds: the port is left alone."""
    if is_camera(source) and not source.startswith("dfu:"):
        _refuse_changed(source)
    opened = open_device(source, board=board, partition=partition, slot=slot)
    try:
        yield opened
    finally:
        opened.close()


def _refuse_changed(source: str) -> None:
    """SessionBusy while a session on this camera is being changed.

    Root may open a port that is in use, and bytes sent there would corrupt a commit."""
    try:
        port = _port(source)
        here = [each for each in all_sessions() if _is_on(*each, port)]
    except (RomfsError, OSError):  # opening the device reports it, or there is no state folder
        return
    for folder, info in here:
        folder.refuse_changed(info.name)


@contextmanager
def session_device(session: Session, doing: str = "") -> Iterator[Device]:
    """The open target of a session, on whatever port it is; closed at the end of the block.

    doing: "commit", for the message that other processes get meanwhile. DeviceAbsent if it is on no
    port; SessionBusy if another process changes the session, and so has the port."""
    with ExitStack() as stack:
        if not session.folder.changed_by_me:
            # Held while the port is opened: a second process learns why it is in use.
            stack.enter_context(session.folder.lock_for_change(session.info.name, doing))
        opened = _open_target(session)
    try:
        yield opened
    finally:
        opened.close()


def _open_target(session: Session) -> Device:
    """Open the session's target, identified by its key.

    Cameras change ports, and `camera` is ambiguous once two are connected."""
    info = session.info
    refused: RomfsError
    try:
        if not info.is_file and not is_camera(info.source):
            raise not_connected(session)  # the port was a link or a pty that is gone
        opened = _opened(info, info.source)
        found = opened.info()
        if found.may_be(info.key):
            return opened
        opened.close()
        if info.is_file:
            raise DeviceAbsent(
                f"its path is now a link to another file: {found.key}",
                where=info.name,
                next_step="nothing was written; write your edits to a file: romfsfs commit "
                f"{info.argument} --to FILE",
            )
        refused = DeviceAbsent(
            f"another camera is connected there: {found.key}, not {info.key}",
            where=info.source,
            next_step="nothing was written; connect the session's own camera; romfsfs sessions "
            "lists them",
        )
    except (DeviceAbsent, UsageError) as error:
        refused = error
    elsewhere = _on_another_port(session) if info.is_serial else None
    if elsewhere is None:
        raise refused
    return elsewhere


def _opened(info: SessionInfo, source: str) -> Device:
    return open_device(source, board=info.board, partition=info.partition, slot=info.slot)


def not_connected(session: Session) -> DeviceAbsent:
    """The error for a session whose camera is on no port."""
    return DeviceAbsent(
        "the camera is not connected",
        where=session.info.name,
        next_step="your edits are kept; connect it and try again; romfsfs cameras lists those "
        "connected",
    )


def _on_another_port(session: Session) -> Device | None:
    """The session's camera on another port, open, else None. Opens only cameras that may be it."""
    from romfsfs.devices.discovery import serial_cameras

    info = session.info
    for camera in serial_cameras():
        if camera.port == info.source or (camera.boards and info.board not in camera.boards):
            continue
        try:
            opened = _opened(info, camera.port)
        except RomfsError:
            continue
        if opened.info().key == info.key:
            return opened
        opened.close()
    return None


def known_session(source: str, partition: int, slot: str) -> Session | None:
    """The only session of the camera that SOURCE names, found without opening its port, else None.

    It is found by the USB serial number; without one, it is the session that is in use on that port
    now. UsageError when SOURCE may mean several connected cameras.
    """
    if source.startswith("dfu:"):
        return None
    try:
        port = _port(source)
    except DeviceAbsent:
        return unplugged_session(source, partition, slot)
    if not os.path.exists(port.port):
        return unplugged_session(source, partition, slot)
    return _only(partition, slot, lambda session: _is_on(session.folder, session.info, port))


def unplugged_session(source: str, partition: int, slot: str) -> Session | None:
    """The only camera session that was opened by this name, or is shown by it, else None."""
    return _only(partition, slot, lambda each: source in (each.info.source, each.info.name))


def _only(partition: int, slot: str, is_it: Callable[[Session], bool]) -> Session | None:
    place = partition, slot.replace("A", "")
    cameras = (each for each in sessions() if not each.info.is_file)
    found = [e for e in cameras if (e.info.partition, e.info.slot) == place and is_it(e)]
    return found[0] if len(found) == 1 else None


def _port(source: str) -> CameraPort:
    if source == "camera" or source.startswith("camera:"):
        return pick_camera(source.partition(":")[2] or None)
    return camera_port(source)


def _is_on(folder: SessionFolder, info: SessionInfo, port: CameraPort) -> bool:
    if not info.is_serial or (port.boards and info.board and info.board not in port.boards):
        return False
    number = telling(port.serial_number)
    if number or info.usb_serial:
        return number.casefold() == info.usb_serial.casefold()
    was_on = info.name.rpartition(" on ")[2]
    return os.path.realpath(was_on) == os.path.realpath(port.port) and not (
        folder.mounted_at() is None and folder.changed_by() is None
    )
