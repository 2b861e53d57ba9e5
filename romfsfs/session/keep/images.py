"""Opening and parsing image files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from romfsfs.errors import ImageFormatError
from romfsfs.image.file_buffer import FileBuffer
from romfsfs.image.model import DirNode, Extent, Image
from romfsfs.image.reader import read_image
from romfsfs.system.copying import fill_byte

#: The next step for a file that is no image: the usual reasons.
WHOLE_COPY = "is it the right file, and copied whole?"


def parse(file: BinaryIO, name: str, next_step: str = "") -> Image:
    """Parse an open image file. ImageFormatError, which carries `name` and `next_step`; OSError."""
    return parse_fd(file.fileno(), name, next_step)


def parse_fd(fd: int, name: str, next_step: str = "") -> Image:
    """As `parse`, by descriptor.

    An empty or erased (all FF) file is an empty image of size 0, all its bytes trailing. Only the
    records are read: memory does not grow with the file's size.
    """
    size = os.fstat(fd).st_size
    if size == 0 or fill_byte(fd) == 0xFF:
        return Image(DirNode("", (), Extent(0, 0)), 0, (), size)
    try:
        return read_image(FileBuffer(fd, size))
    except ImageFormatError as error:
        raise error.at(name, next_step) from None


@contextmanager
def open_image(path: str | os.PathLike[str]) -> Iterator[tuple[Image, BinaryIO]]:
    """The parsed image and the open file, closed after the block. ImageFormatError, OSError."""
    with open(path, "rb") as file:
        yield parse(file, os.fspath(path)), file
