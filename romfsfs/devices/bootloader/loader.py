"""What a boot loader can do with a ROMFS partition: the `BootLoader` protocol. Sizes in bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from romfsfs.system.files import Progress


class BootLoader(Protocol):
    """One partition of a camera that is in its boot loader.

    kind: "dfu" or "rt1060". name: how to show it. identity: the camera's unique id, '' if the
    loader tells none. path: of its USB port, '' if that is not known. capacity: of the partition.
    header_unit: bytes that the image header has to be written together with, because writing it
    erases them, or because they are one page.
    Every call raises DeviceLost if the camera goes away, DeviceError for other failures, and calls
    `progress` from this or another thread. Callers write the image header, the first bytes, last.
    """

    kind: str
    name: str
    identity: str
    path: str
    capacity: int
    header_unit: int

    def read(self, path: Path, length: int, progress: Progress) -> None:
        """Read at least the first `length` bytes to a new file; a tool may leave fewer."""
        ...

    def write(self, path: Path, progress: Progress) -> None:
        """Write a file from the partition's start on; its end may get padded. What it covers was
        erased before, or is erased by being written (DFU)."""
        ...

    def erase(self, length: int, progress: Progress) -> None:
        """Erase the first `length` bytes, unless writing does that."""
        ...

    def reset(self) -> None:
        """Start the firmware."""
        ...
