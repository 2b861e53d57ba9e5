"""What a transaction asks of a target, and what it is told."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from romfsfs.devices.base import Device, WriteReport
from romfsfs.devices.file import Stamp
from romfsfs.image.model import Image
from romfsfs.session.keep.base_image import BaseImage
from romfsfs.session.keep.folder import SessionFolder
from romfsfs.session.keep.state import Base, SessionInfo
from romfsfs.system.files import Progress, no_progress


class Held(NamedTuple):
    """What a target holds. digest: None if there is no file, '' if a camera holds something that
    cannot be kept, or was not looked at. size: bytes that were kept. unseen: it is not the image of
    the session's base, and was copied unless `digest` is ''."""

    digest: str | None
    size: int
    unseen: bool = False


class Target(ABC):
    """What a transaction asks of a target. Raises as `Device` does."""

    #: Whether a failed write leaves the old content. If not, the stable layout keeps writes short:
    #: unchanged files keep their offsets.
    atomic = False

    def __init__(self, device: Device, slot: str = "") -> None:
        """slot: of openmv-ota, which may be written; '' for none."""
        self.device = device
        self.slot = slot

    def refuse_slots(self, size: int) -> None:  # noqa: B027 (nothing runs a file)
        """RomfsError if writing `size` bytes would break another slot of openmv-ota than `slot`;
        CapacityError if they do not fit into that."""

    @contextmanager
    def alone(self) -> Iterator[None]:
        """No other session writes to this target while the block lasts. SessionBusy if one does."""
        yield  # a camera's port is ours alone while the device is open

    @abstractmethod
    def unchanged_since(self, base: BaseImage) -> bool:
        """Whether it still holds what the session last read from it or wrote to it."""

    @abstractmethod
    def holds(self, image: Path | None) -> bool:
        """Whether it holds exactly this image; for None, whether there is no file."""

    @abstractmethod
    def keep_copy(self, folder: SessionFolder, progress: Progress = no_progress) -> Held:
        """Copy what it holds now to `folder.found`, if there is anything that can be kept."""

    @abstractmethod
    def read(self, folder: SessionFolder, info: SessionInfo, new: bool,
             progress: Progress = no_progress) -> tuple[Base, Image]:  # fmt: skip
        """Copy its image to `folder.staged`. Returns a base without entries and without the digest
        of what was read, and the image's tree. new: start from an empty image instead."""

    @abstractmethod
    def write(self, image: Path | None, old: Path | None, before: Held,
              progress: Progress = no_progress) -> WriteReport:  # fmt: skip
        """Write this image and verify it; None: delete the file. TargetChanged if a file no longer
        holds what it did `before`.

        old: an image that it is believed to hold: a hint."""

    def _cleared(self, said: str) -> WriteReport:
        """Delete the file, or blank the camera. said: the report's note."""
        started = time.monotonic()
        self.device.clear()
        return WriteReport(0, 0, time.monotonic() - started, verified=True, notes=(said,))

    def stamp_of(self, base: Base) -> Stamp | None:
        """Its stamp while it holds `base`'s image; None if it has no stamp, or holds another."""
        return None
