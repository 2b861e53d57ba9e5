"""Reading a target's image into a session."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from romfsfs.devices.base import Device
from romfsfs.devices.file import FileDevice
from romfsfs.errors import DeviceAbsent, DeviceBusy, RomfsError, shell_word
from romfsfs.session.keep.images import WHOLE_COPY, parse
from romfsfs.session.keep.state import Base
from romfsfs.session.session import Session
from romfsfs.system.files import CHUNK, EMPTY_DIGEST, Progress, digest_fd, digest_file


def fetch(session: Session, device: Device, new: bool, progress: Progress) -> tuple[Base, Path]:
    """Read the target; a Base without entries, and the image file it describes (`sync` it)."""
    if isinstance(device, FileDevice):
        return _fetch_file(session, device, new, progress)
    if not new and _still_holds_base(session, device):
        return replace(session.base, entries=()), session.base_image
    copy = session.directory / "read.img"
    with _created(copy) as file:
        size = 0 if new else device.read_image(file, progress)
        file.flush()
        digest = digest_fd(file.fileno())
    advice = "nothing was changed; `romfsfs push --force IMAGE` or `mount --new` replaces it"
    with open(copy, "rb") as file:
        image = parse(file, session.info.name, advice)
        return Base(digest, size, image.size, None if new else digest, None, (), new), copy


def _fetch_file(
    session: Session, device: FileDevice, new: bool, progress: Progress
) -> tuple[Base, Path]:
    stamp = device.settled_stamp()
    name = session.info.name
    if not device.exists() and not new:
        raise DeviceAbsent(
            "no such image file",
            where=name,
            next_step=f"make one: romfsfs new {shell_word(name)} --board BOARD, "
            "or mount with --new",
        )
    copy = session.directory / "read.img"
    with _created(copy) as file:
        if new:
            target = digest_file(device.path) if device.exists() else None
        else:
            length = os.stat(device.path).st_size
            if not device.read_image(file, progress):
                _fill(file, length)  # erased flash as a file: it keeps its length
            file.flush()
            target = digest_fd(file.fileno())
        if device.stamp() != stamp:
            raise DeviceBusy(
                "the file is being changed by another program",
                where=name,
                next_step="try again when that has finished",
            )
        digest = EMPTY_DIGEST if new else str(target)
        size = os.fstat(file.fileno()).st_size
    with open(copy, "rb") as file:
        image = parse(file, name, f"{WHOLE_COPY} mount --new starts empty")
        return Base(digest, size, image.size, target, stamp, (), new), copy


def _created(path: Path) -> BinaryIO:
    """A new file of this user's alone; whoever uses it later syncs it."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    return open(fd, "w+b")


def sync(path: Path) -> None:
    """Make a fetched image durable."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def _fill(file: BinaryIO, size: int) -> None:
    while size > 0:
        count = min(size, CHUNK)
        file.write(b"\xff" * count)
        size -= count


def _still_holds_base(session: Session, device: Device) -> bool:
    """Whether the camera still holds the image that this session has: nothing to transfer then."""
    try:
        held = session.held()
    except RomfsError:
        return False
    base = held.base
    if not base.image_size or base.fresh or digest_fd(held.fd) != base.digest:
        return False
    with open(session.base_image, "rb") as file:
        return device.matches(file, base.image_size) is True
