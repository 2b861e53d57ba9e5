"""What every target can do: the `Device` protocol, and the records that it hands out.

A device moves bytes: one whole image in, one whole image out. It decides itself how little of it
has to travel. All sizes are bytes, all times seconds. A device belongs to the thread that opened
it; nothing here locks. Every operation ends within a time limit: with its result, or with

    DeviceAbsent, DeviceBusy, DeviceLost, DeviceAnswer    exit code 5
    VerifyError                                           exit code 6: what was read back differs
    ImageFormatError                                      exit code 4: neither an image nor blank
    KeyboardInterrupt                                     after the device was put in order

and the same operation can then simply be repeated: an interrupted write leaves the old image, the
new one, or none (the block with the image header is invalidated first and programmed last).
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from romfsfs.errors import ImageFormatError, too_large
from romfsfs.image.model import Image
from romfsfs.image.reader import image_size
from romfsfs.image.slots import Slot
from romfsfs.system.files import CHUNK, Progress, no_progress

#: bytes of the image header that say how long the image is (docs/format.md)
HEADER_SIZE = 16
#: the board in the key of a camera that says none that is known
UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Known:
    """What of a device is remembered too, when it is not open.

    kind: "file", "serial", "dfu" or "rt1060". key: who it is, the same however it is reached: the
    real path of a file, 'board/unique id/partition' of a camera, with the board that it says it
    is, whatever it is used as. name: how to show it. slot: 'B' for the second slot of openmv-ota,
    a target of its own; '' for the partition's start, which is slot A where there are slots.
    capacity: bytes of the partition, None when nothing limits it. erase_size: bytes that can only
    be erased together. mpy_version (version, sub-version) and march: what the camera's own
    firmware reports; scripts are compiled for that. notes: worth a warning, a sentence each.
    usb_serial: of the port's USB device, '' where there is none: it is seen without opening it.
    here: the camera's current folder, and the modules (and folders) there, found before /rom's.
    """

    kind: str
    key: str
    name: str
    board: str | None = None
    partition: int = 0
    capacity: int | None = None
    erase_size: int | None = None
    mpy_version: tuple[int, int] | None = None
    march: str | None = None
    notes: tuple[str, ...] = ()
    usb_serial: str = ""
    here: tuple[str, ...] = ()
    slot: str = ""

    # What the kind means to those above: nobody else compares it.

    @property
    def is_file(self) -> bool:
        """An image file: board and partition are the user's choice."""
        return self.kind == "file"

    @property
    def is_serial(self) -> bool:
        """A camera whose own firmware is spoken to, on a port whose number may change. A write
        programs the block with the image header last; boot loaders write as they please."""
        return self.kind == "serial"


@dataclass(frozen=True, slots=True)
class DeviceInfo(Known):
    """What is known of an open device.

    has_id: the camera says a unique id; without one the key ends in the port, and what the camera
    holds decides whether it is the one that is meant.
    slots: of openmv-ota, where opening told (`Device.slots` tells of all).
    header_unit: bytes that can only be written after the image header, 0 where the header is last:
    a write that is cut between leaves the header without them.
    """

    firmware: str = ""
    header_unit: int = 0
    has_id: bool = True
    slots: tuple[Slot, ...] = ()

    def may_be(self, key: str) -> bool:
        """Whether nothing but its contents says that this is not the device of that key."""
        if self.has_id:
            return self.key == key
        board, _, rest = key.partition("/")
        number = self.key.rpartition("/")[2]
        return self.key.startswith(f"{board}/") and rest.endswith(f"/{number}")


@dataclass(frozen=True, slots=True)
class WriteReport:
    """What a write took.

    written: bytes programmed into the device. skipped: bytes of the image that were there already
    and were not sent. sent: bytes on the wire towards the device, where that is known.
    verified: the device's content was compared with the image after writing. tried: what the
    camera said of models that it was to open then.
    """

    written: int
    erased_blocks: int
    seconds: float
    verified: bool
    skipped: int = 0
    sent: int = 0
    notes: tuple[str, ...] = ()
    tried: tuple[OpenedModel, ...] = ()


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input or output of a model. dtype: as struct and array call it (`b`: int8, `f`: float)."""

    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True, slots=True)
class OpenedModel:
    """What a camera said when it was to open the model at `path` (of the image).

    error: why it could not, in the firmware's own words, "" if it could. detail: what it printed
    meanwhile. memory: bytes of RAM that the model takes.
    """

    path: str
    error: str = ""
    detail: str = ""
    memory: int = 0
    inputs: tuple[Tensor, ...] = ()
    outputs: tuple[Tensor, ...] = ()


@dataclass(frozen=True, slots=True)
class PartitionState:
    """What a partition of a camera holds, from its first bytes: cheap to ask.

    state: "image", "blank" or "foreign". image_size: bytes the image header declares, else 0.
    """

    index: int
    size: int
    erase_size: int | None
    state: str
    image_size: int


class Device(Protocol):
    """A target of images; see the module's docstring for the rules that all share. What has an
    answer here is inherited by devices that can do no better."""

    def info(self) -> DeviceInfo:
        """What the device is; asks nothing of it that opening did not."""
        ...

    def digest(self, size: int) -> str | None:
        """SHA-256 (lower-case hex) of the first `size` bytes now there.

        None: the device cannot tell without sending all of them; ask `matches` instead.
        """
        ...

    def matches(self, image: BinaryIO, size: int) -> bool | None:
        """Does the device now hold the first `size` bytes of `image`? Moves a few KiB at most.

        None: it cannot tell without sending everything (DFU, RT1060): read it.
        """
        found = self.digest(size)
        if found is None:
            return None
        image.seek(0)
        digest, left = hashlib.sha256(), size
        while data := image.read(min(left, CHUNK)):
            digest.update(data)
            left -= len(data)
        return digest.hexdigest() == found

    def read_tree(self) -> Image | None:
        """The tree of the image there, of which little more than the records was moved.

        None: blank, or it takes as much as reading the image (`read_image`). ImageFormatError.
        """
        return None

    def slots(self, size: int) -> tuple[Slot, ...]:
        """The slots of openmv-ota that a write of the first `size` bytes may break, () if none.

        A boot loader reads up to the trailers for it: half of the partition, or all of it.
        """
        return ()

    def read_image(self, out: BinaryIO, progress: Progress = no_progress) -> int:
        """Write to `out` (from its position) the image there, and return its size in bytes.

        What the image header declares and no more (a file: all of it, trailing bytes included).
        0: blank, all FF. Raises ImageFormatError for anything else that is not an image.
        """
        ...

    def write_image(
        self, image: BinaryIO, old: BinaryIO | None = None, progress: Progress = no_progress
    ) -> WriteReport:
        """Make the device hold `image` (from its position 0 to its end), durably, and verify it.

        old: what the device is believed to hold; a hint that may be wrong, never trusted.
        """
        ...

    def clear(self) -> None:
        """Leave no image there, verified: no file, or a header that reads as erased flash does."""
        ...

    def open_model(self, path: str) -> OpenedModel | None:
        """Have the camera open a model of the image it holds now, and let go of it.

        The first call after a write restarts it. None: it cannot be asked that.
        """
        return None

    def restart(self) -> None:
        """Restart the camera so that it mounts what it now holds; does nothing for a file."""
        return

    def close(self) -> None:
        """Leave the device as it was found. May be called twice."""
        return


def size_to_write(image: BinaryIO, capacity: int, name: str) -> int:
    """Of an image for a camera's partition; what follows the image in the file is not written.
    ImageFormatError or CapacityError before anything is."""
    length = image.seek(0, os.SEEK_END)
    image.seek(0)
    size = image_size(image.read(HEADER_SIZE))
    if size > length:
        raise ImageFormatError("the header declares more than there is", 0)
    if size > capacity:
        next_step = "remove files, or build the image for another partition"
        raise too_large(size, capacity, name, next_step)
    return size


def declared_size(header: bytes, capacity: int, name: str) -> int:
    """The image's size; ImageFormatError with what to do when there is none, or an absurd one."""
    advice = "nothing was changed; `romfsfs push --force IMAGE` or `mount --new` replaces it"
    try:
        size = image_size(header)
    except ImageFormatError as error:
        raise error.at(name, advice) from error
    if size > capacity:
        reason = f"its header declares {size} bytes, the partition has {capacity}"
        raise ImageFormatError(reason, 0, where=name, next_step=advice)
    return size
