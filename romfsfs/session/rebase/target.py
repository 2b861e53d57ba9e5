"""The target as the session knows it: is it still that, and what a commit is about to overwrite."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from romfsfs.devices.base import Device, WriteReport
from romfsfs.devices.file import FileDevice, Stamp
from romfsfs.errors import DeviceError, ImageFormatError, RomfsError, TargetChanged
from romfsfs.session.keep import history
from romfsfs.session.keep.images import open_image
from romfsfs.session.keep.state import Base
from romfsfs.session.session import Session
from romfsfs.system.files import (
    EMPTY_DIGEST,
    Progress,
    digest_file,
    no_progress,
    replace_atomically,
)

log = logging.getLogger(__name__)


def target_is(session: Session, device: Device) -> bool:
    """Whether the target still holds what the session last read from it or wrote to it."""
    held = session.held()
    base = held.base
    if isinstance(device, FileDevice):
        return file_is(device, base)
    if base.fresh and base.target_digest is None:
        return True  # `--new` on a camera: what it held was not looked at, and is replaced
    same = None
    if base.image_size:
        with os.fdopen(os.dup(held.fd), "rb") as image:
            same = device.matches(image, base.image_size)
    if same is None:
        return _read_digest(session, device) == base.target_digest
    return same


def file_is(device: FileDevice, base: Base) -> bool:
    """`target_is` for a file: told by its stamp, read only when that differs."""
    stamp = device.stamp()
    if stamp is None or base.target_digest is None:
        return stamp is None and base.target_digest is None
    if base.stamp is not None and stamp == base.stamp:
        return True
    return device.digest(stamp[2]) == base.target_digest


def holds(device: Device, image: Path) -> bool:
    """Whether the target holds just the bytes of this image file."""
    size = os.stat(image).st_size
    if isinstance(device, FileDevice):
        stamp = device.stamp()
        return stamp is not None and stamp[2] == size and device.digest(size) == digest_file(image)
    with open(image, "rb") as file:
        return device.matches(file, size) is True


def trusted_stamp(device: Device, base: Base) -> Stamp | None:
    """The stamp of a file target whose bytes are those of `base`, None where that is not known."""
    if not isinstance(device, FileDevice):
        return None
    if device.written_stamp is not None:
        return device.written_stamp
    stamp = device.settled_stamp()
    if stamp is None or device.digest(stamp[2]) != base.target_digest:
        return None
    return stamp if device.stamp() == stamp else None


def target_changed(session: Session) -> TargetChanged:
    """The target is not what this session last read: the ways on."""
    source = session.info.argument
    return TargetChanged(
        "the target changed elsewhere since it was read",
        where=session.info.name,
        next_step=f"write your edits to another file: romfsfs commit {source} --to FILE; over the "
        f"change: romfsfs commit {source} --force; or drop them: romfsfs revert {source}",
    )


@contextlib.contextmanager
def believed(session: Session) -> Iterator[BinaryIO | None]:
    """What the target is believed to hold; None where only whole images were written to it."""
    try:
        file = open(session.base_image, "rb")  # noqa: SIM115
    except FileNotFoundError:
        yield None
        return
    with file:
        yield file


@contextlib.contextmanager
def _copied(
    session: Session, device: Device, progress: Progress = no_progress
) -> Iterator[tuple[Path, int]]:
    """A copy of the image that the target holds, there while the block lasts, and its size (0:
    there is none). ImageFormatError where something else is there."""
    copy = session.directory / "found.img"
    try:
        with replace_atomically(copy) as file:
            size = device.read_image(file, progress)
        yield copy, size
    finally:
        copy.unlink(missing_ok=True)


def keep_overwritten(session: Session, device: Device, progress: Progress = no_progress) -> None:
    """Enter into the log what the target holds, before a commit writes over it unseen.

    Only an image can be kept; anything else is lost, as the user asked for.
    """
    try:
        with _copied(session, device, progress) as (copy, size):
            if size:
                digest = digest_file(copy)
                history.add(session, copy, digest, "read", "as found before it was overwritten")
    except ImageFormatError:
        log.warning("%s holds no image: overwritten without a copy", session.info.name)


def unknown_image(
    session: Session, device: Device, old_digest: str | None, progress: Progress = no_progress
) -> bool:
    """Whether a camera holds an image that is neither the old one nor in the log.

    A write that was interrupted leaves none, as the header comes last of all: somebody else wrote
    it. Boot loaders write in larger pieces, so there it may be half of ours; never for those.
    """
    if device.info().kind != "serial":
        return False
    try:
        with _copied(session, device, progress) as (copy, size), open_image(copy):
            digest = digest_file(copy)
    except ImageFormatError:
        return False
    known = {old_digest, *(entry.digest for entry in history.entries(session))}
    return size > 0 and digest not in known


def _read_digest(session: Session, device: Device) -> str:
    """What the target holds, by reading all of it: for devices that cannot tell otherwise."""
    try:
        with _copied(session, device) as (copy, size):
            return digest_file(copy) if size else EMPTY_DIGEST
    except ImageFormatError:
        return ""


def restarted(device: Device, report: WriteReport) -> WriteReport:
    """Restart the camera so that `/rom` is what was written; a report that says if it could not.

    The image is written and verified by then: a camera that goes away now is no failed commit.
    """
    try:
        device.reset()
    except DeviceError as error:
        return replace(report, notes=(*report.notes, f"the camera was not restarted: {error.line}"))
    return report


def no_space(session: Session, error: OSError, doing: str) -> RomfsError:
    """What to say when the session's folder cannot be written."""
    return RomfsError(
        f"{doing}: {error.strerror or error}",
        where=str(session.directory),
        next_step="nothing was written to the target and your edits are kept; free space there, "
        "or use another place with $ROMFSFS_STATE_DIR, and try again",
    )
