"""What an image holds: its tree, where each piece lies, and what is worth saying about it.

Sizes and offsets are in bytes; offsets count from the first byte of the image. Everything here is
an immutable tuple and may be shared between threads. A tree can be thousands of directories deep:
iterate with `walk`, because comparing, hashing, printing or pickling a whole tree recurses.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple


class Extent(NamedTuple):
    """`size` bytes from `offset` on."""

    offset: int
    size: int

    @property
    def end(self) -> int:
        return self.offset + self.size


class FileNode(NamedTuple):
    """A file. extent: its data; record: the whole record, header and name included.

    The data lies inside the record unless the record points elsewhere (`pointer` note).
    """

    name: str
    extent: Extent
    record: Extent


class DirNode(NamedTuple):
    """A directory, its children in the order of the image. The root's name is empty."""

    name: str
    children: tuple[Node, ...]
    record: Extent


Node = FileNode | DirNode


class Note(NamedTuple):
    """Something that is valid but worth knowing.

    code: stable, for scripts. path: the file or directory it is about; empty for the whole image.
    """

    code: str
    path: str
    message: str
    offset: int


class Image(NamedTuple):
    """A parsed image.

    size: of the whole image record, header included. trailing: bytes of the buffer after it (the
    slack of a partition dump). notes: see `romfsfs.image.reader`.
    """

    root: DirNode
    size: int
    notes: tuple[Note, ...]
    trailing: int


def walk(image: Image) -> Iterator[tuple[str, Node]]:
    """Every file and directory with its path (`lib/a.mpy`), parents first, without the root."""
    stack = [("", iter(image.root.children))]
    while stack:
        prefix, children = stack[-1]
        for node in children:
            path = prefix + node.name
            yield path, node
            if isinstance(node, DirNode) and node.children:
                stack.append((path + "/", iter(node.children)))
                break
        else:
            stack.pop()
