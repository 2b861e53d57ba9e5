"""Checks and comparisons that the boot loader devices (DFU, RT1060) share. Sizes in bytes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

from romfsfs.devices.base import HEADER_SIZE
from romfsfs.errors import CapacityError, DeviceLost, ImageFormatError
from romfsfs.image.reader import image_size, is_blank
from romfsfs.system.files import CHUNK


def check_fits(image: BinaryIO, capacity: int, name: str) -> int:
    """The size to write. ImageFormatError or CapacityError before anything destructive."""
    length = image.seek(0, os.SEEK_END)
    image.seek(0)
    size = image_size(image.read(HEADER_SIZE))
    if size > length:
        raise ImageFormatError("the header declares more than there is", 0)
    if size > capacity:
        raise CapacityError(
            f"the image has {size} bytes, the partition takes {capacity}",
            size=size,
            capacity=capacity,
            where=name,
            next_step="remove files, or build the image for another partition",
        )
    return size


def check_read(path: Path, least: int, name: str) -> None:
    """Of a tool that says it succeeded: DeviceLost when it read fewer bytes than `least`."""
    size = path.stat().st_size if path.exists() else 0
    if size < least:
        raise DeviceLost(
            f"the read ended {least - size} bytes early", where=name, next_step="repeat the command"
        )


def declared_size(path: Path, capacity: int, name: str) -> int:
    """The size of the image that a file read from a partition begins with; 0: blank."""
    with open(path, "rb") as file:
        header = file.read(HEADER_SIZE)
    if is_blank(header):
        return 0
    advice = "nothing was changed; `romfsfs push IMAGE` or `mount --new` replaces what is there"
    try:
        size = image_size(header)
    except ImageFormatError as error:
        raise ImageFormatError(error.reason, error.offset, where=name, next_step=advice) from error
    if size > capacity:
        raise ImageFormatError(
            f"its header declares {size} bytes, the partition has {capacity}",
            0,
            where=name,
            next_step=advice,
        )
    return size


def copy_image(path: Path, size: int, out: BinaryIO, name: str) -> None:
    """Copy the first `size` bytes of a file. DeviceLost when there are fewer."""
    check_read(path, size, name)
    with open(path, "rb") as file:
        left = size
        while left:
            data = file.read(min(left, CHUNK))
            out.write(data)
            left -= len(data)


def write_file(image: BinaryIO, size: int, path: Path) -> None:
    """The first `size` bytes of an image as a file for a tool."""
    image.seek(0)
    with open(path, "wb") as file:
        left = size
        while left:
            data = image.read(min(left, CHUNK))
            file.write(data)
            left -= len(data)


def first_difference(expected: Path, found: Path, start: int, end: int) -> int | None:
    """The first offset in start..end where two files differ, None if they do not."""
    with open(expected, "rb") as left, open(found, "rb") as right:
        left.seek(start)
        right.seek(start)
        position = start
        while position < end:
            count = min(CHUNK, end - position)
            one, other = left.read(count), right.read(count)
            if one != other:
                pairs = enumerate(zip(one, other, strict=False))
                same = next((at for at, (a, b) in pairs if a != b), min(len(one), len(other)))
                return position + same
            position += count
    return None
