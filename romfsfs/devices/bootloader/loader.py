"""What a boot loader can do with a ROMFS partition: the `BootLoader` protocol. Sizes in bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from romfsfs.system.files import Progress


class BootLoader(Protocol):
    """One partition of a camera that is in its boot loader.

    kind: "dfu" or "rt1060". name: how to show it. identity: tells this camera from others as far
    as the loader can. capacity: of the partition. header_unit: bytes that the image header has to
    be written together with, since writing it erases them, or since they are one page.
    Every call raises DeviceLost when the camera went away, DeviceError for other failures. The
    image header is in the first bytes, so a caller writes them last.
    """

    kind: str
    name: str
    identity: str
    capacity: int
    header_unit: int

    def read(self, path: Path, length: int, progress: Progress) -> None:
        """Make a new file of at least the first `length` bytes; a tool may leave fewer."""
        ...

    def write(self, path: Path, progress: Progress) -> None:
        """Write a file from the start of the partition on, where that was erased before or is
        erased by being written (DFU)."""
        ...

    def erase(self, length: int, progress: Progress) -> None:
        """Erase the first `length` bytes, where writing does not do that."""
        ...

    def reset(self) -> None:
        """Start the firmware."""
        ...
