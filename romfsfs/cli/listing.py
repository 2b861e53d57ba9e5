"""`ls`: one line for each file and folder. Imports nothing that takes time (see `quick`)."""

from __future__ import annotations

import os

from romfsfs.errors import printable
from romfsfs.image.file_buffer import FileBuffer
from romfsfs.image.model import DirNode, FileNode, Image, walk
from romfsfs.image.reader import read_image

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


def listing(path: str, long: bool) -> str:
    """The listing of an image file. ImageFormatError, OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        file = FileBuffer(fd)
        return lines(read_image(file), long) if file else ""
    finally:
        os.close(fd)


def lines(image: Image, long: bool, below: str = "") -> str:
    """The lines for an image, or for what lies below a path of it."""
    return "".join(line + "\n" for line in _lines(image, long, below))


def _lines(image: Image, long: bool, below: str) -> Iterator[str]:
    for path, node in walk(image):
        if below and path != below and not path.startswith(below + "/"):
            continue
        shown = path if path.isprintable() else printable(path)
        if isinstance(node, DirNode):
            yield f"{'-':>10}  {'-':>10}  {shown}/" if long else shown + "/"
        elif isinstance(node, FileNode):
            offset, size = node.extent
            yield f"{size:10}  {offset:#10x}  {shown}" if long else shown
