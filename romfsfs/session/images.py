"""Image files as the session uses them: opened, mapped and parsed."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from romfsfs.errors import ImageFormatError
from romfsfs.image.model import DirNode, Extent, Image
from romfsfs.image.reader import read_image

#: What a blank partition or an empty file amounts to.
EMPTY = Image(DirNode("", (), Extent(0, 0)), 0, (), 0)


def parse(file: BinaryIO, name: str) -> Image:
    """The tree of an open image file; an empty file is an empty tree. ImageFormatError with `name`.

    The file is mapped, not read: memory does not grow with its size.
    """
    if os.fstat(file.fileno()).st_size == 0:
        return EMPTY
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        try:
            return read_image(mapped)
        except ImageFormatError as error:
            raise ImageFormatError(error.reason, error.offset, where=name) from None


@contextmanager
def open_image(path: str | os.PathLike[str]) -> Iterator[tuple[Image, BinaryIO]]:
    """An image file, parsed, and the open file. ImageFormatError, OSError."""
    with open(path, "rb") as file:
        yield parse(file, os.fspath(path)), file
