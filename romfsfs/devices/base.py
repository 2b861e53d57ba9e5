"""What every target can do: the `Device` protocol, and the records that it returns.

A device moves bytes: one whole image in, one whole image out. It decides itself how few of them
have to travel. All sizes are bytes, all times seconds. A device belongs to the thread that opened
it and takes no lock; boot loaders report progress from another thread while that one waits.
Every operation ends within a time limit: with its result, or with

    DeviceAbsent, DeviceBusy, DeviceLost, DeviceAnswer    exit code 5
    VerifyError                                           exit code 6: what was read back differs
    ImageFormatError, CapacityError                       exit code 4: no image, or too large
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

#: bytes at the start of an image that tell how long it is (docs/format.md)
HEADER_SIZE = 16
#: the board in the key of a camera that reports no known board
UNKNOWN = "unknown"
#: the serial number of OpenMV's boot loader where it knows none (openmv: boot/src/common/desc.c)
_NO_SERIAL = "0123456789ABCDEF"


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a device, and remembered while it is not open.

    kind: "file", "serial", "dfu" or "rt1060". key: its identity, however it is reached: a file's
    real path; a camera's 'board/unique id/partition', with the board that it reports, whatever it
    is used as, and a B at the end for slot B. name: how to show it. slot: 'B' for the second slot
    of openmv-ota, a target of its own; '' for the partition's start, which is slot A where there
    are slots. capacity: bytes of the largest image, None when nothing limits it. erase_size:
    bytes of an erase block. mpy_version (version, sub-version) and march: what the camera's own
    firmware reports; scripts are compiled for that. notes: sentences that deserve a warning.
    usb_serial: of the port's USB device, '' where it identifies none; known without opening it.
    here: the camera's current folder, then modules and folders in it, found before those of /rom.
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

    # What the kind means to callers: no other module compares it.

    @property
    def is_file(self) -> bool:
        """An image file: board and partition are the user's choice."""
        return self.kind == "file"

    @property
    def is_serial(self) -> bool:
        """A camera reached through its own firmware, on a port whose name may change. A write
        programs the block with the image header last, which boot loaders cannot promise."""
        return self.kind == "serial"


@dataclass(frozen=True, slots=True)
class DeviceInfo(Known):
    """What is known of an open device.

    has_id: the camera reports a unique id. Without one the key has the port in its place, and only
    what the camera holds can tell whether it is the one that is meant.
    slots: of openmv-ota, as far as opening found them (`Device.slots` finds all).
    header_unit: bytes from the start that are erased with the image header and so written after it;
    0 where the header is written last. An interruption in between leaves a header without them.
    """

    firmware: str = ""
    header_unit: int = 0
    has_id: bool = True
    slots: tuple[Slot, ...] = ()

    def may_be(self, key: str) -> bool:
        """Whether this can be the device with that key; without a unique id only contents tell."""
        if self.has_id:
            return self.key == key
        board, _, rest = key.partition("/")
        number = self.key.rpartition("/")[2]
        return self.key.startswith(f"{board}/") and rest.endswith(f"/{number}")


@dataclass(frozen=True, slots=True)
class WriteReport:
    """What a write took.

    written: bytes programmed into the device. skipped: bytes of the image that were there already
    and were not sent. erased_blocks, and sent (bytes on the wire towards the device): 0 where that
    is not known, as through a boot loader. verified: the device's content was compared with the
    image after writing. tried: what came of opening models there afterwards.
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
    """What came of having a camera open the model at `path` (in the image).

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
    """What a partition of a camera holds, judged by its first bytes: cheap to ask.

    state: "image", "blank" or "foreign". image_size: bytes the image header declares, else 0.
    """

    index: int
    size: int
    erase_size: int | None
    state: str
    image_size: int


class Device(Protocol):
    """A target of images; the module's docstring has the rules for all. Methods with a body are
    defaults for devices that can do no better."""

    def info(self) -> DeviceInfo:
        """What the device is, as found when it was opened."""
        ...

    def digest(self, size: int) -> str | None:
        """SHA-256 (lower-case hex) of the first `size` bytes now there.

        None: the device cannot tell without sending all of them; ask `matches` instead.
        """
        ...

    def matches(self, image: BinaryIO, size: int) -> bool | None:
        """Does the device now hold the first `size` bytes of `image`? Moves a few KiB at most.

        None: it cannot tell before everything was sent (`read_image`), such as a boot loader.
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
        """The tree of the image there, from little more than its records.

        None: blank, or all of the image would have to be read (`read_image`). ImageFormatError.
        """
        return None

    def slots(self, size: int) -> tuple[Slot, ...]:
        """The slots of openmv-ota that a write of the first `size` bytes may break, () if none.

        A boot loader has to read up to the trailers: half of the partition, or all of it.
        """
        return ()

    def read_image(self, out: BinaryIO, progress: Progress = no_progress) -> int:
        """Write to `out` (from its position) the image there, and return its size in bytes.

        What the image header declares and no more (a file: all of it, trailing bytes included).
        0: blank: a header of FF; an empty file, or one all FF. ImageFormatError for anything else
        that is not an image.
        """
        ...

    def write_image(
        self, image: BinaryIO, old: BinaryIO | None = None, progress: Progress = no_progress
    ) -> WriteReport:
        """Make the device hold `image` (from its position 0 to its end), durably, and verify it.

        old: what the device is believed to hold; a hint that may be wrong, never trusted. A camera
        gets no more than the header declares, ImageFormatError and CapacityError come first.
        """
        ...

    def clear(self) -> None:
        """Remove the image, verified: no file is left, or a header that reads as erased flash."""
        ...

    def open_model(self, path: str) -> OpenedModel | None:
        """Have the camera open a model of the image it now holds, and free it again.

        The first call after a write restarts MicroPython. None: this device opens no models.
        """
        return None

    def restart(self) -> None:
        """Restart the camera so that it mounts what it now holds; does nothing for a file."""
        return

    def close(self) -> None:
        """Release the device; a serial camera's /rom is mounted again. Raises no DeviceError.

        May be called twice.
        """
        return


def telling(number: str) -> str:
    """The USB serial number if it can be one camera's alone, '' if it looks made up."""
    return number if len(set(number)) > 3 and number.upper() != _NO_SERIAL else ""


def size_to_write(image: BinaryIO, capacity: int, name: str) -> int:
    """Bytes of the image in a file that is to be written; what follows it there is not written.
    ImageFormatError; CapacityError if it exceeds `capacity`."""
    length = image.seek(0, os.SEEK_END)
    image.seek(0)
    size = image_size(image.read(HEADER_SIZE))
    if size > length:
        raise ImageFormatError("the image is shorter than its header declares", 0)
    if size > capacity:
        next_step = "remove files, or build the image for another partition"
        raise too_large(size, capacity, name, next_step)
    return size


def declared_size(header: bytes, capacity: int, name: str) -> int:
    """The image's size by its header. ImageFormatError if it is no image or exceeds `capacity`."""
    advice = "nothing was changed; `romfsfs push --force IMAGE` or `mount --new` replaces it"
    try:
        size = image_size(header)
    except ImageFormatError as error:
        raise error.at(name, advice) from error
    if size > capacity:
        reason = f"its header declares {size} bytes, the partition has {capacity}"
        raise ImageFormatError(reason, 0, where=name, next_step=advice)
    return size
