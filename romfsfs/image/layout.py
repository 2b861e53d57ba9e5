"""Where everything goes in an image.

The canonical layout is what the OpenMV IDE and openmv-ota 1.0.7 write, byte for byte, so that an
image rebuilt from its own files is the same image:

    header      kind, 0x80 padding, length: the root's records start at offset 16
    file        kind, padding so that its payload starts 8 bytes after the record does, name, then
                the data record, padded so that the data starts at its alignment in the image
    directory   kind, padding so that its children start at the largest alignment of any rule;
                offsets within it are then counted from 0

with two differences. If the length would be odd (`vfs_rom.c` wants it even), a padding record of 3
bytes ends the root: nothing moves, and every reader skips it. And the alignment rule is chosen by
the last suffix of a name (`rules.AlignmentRules`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from romfsfs.errors import CapacityError
from romfsfs.image.model import Extent
from romfsfs.image.rules import DEFAULT_RULES, AlignmentRules
from romfsfs.image.tree import Branch, Leaf, TreeEntry, build
from romfsfs.image.varuint import MAGIC, MAX_VALUE, encode, encode_to, padding_head

__all__ = [
    "DEFAULT_RULES", "AlignmentRules", "BasePiece", "FilePiece", "Layout", "TreeEntry", "canonical",
]  # fmt: skip

#: where the root's records start in images that romfsfs writes
HEADER_SIZE = 16
#: a padding record that ends the root if the length would be odd
_TO_EVEN = b"\x01\x01\xff"


class FilePiece(NamedTuple):
    """The data of the file at `path`, `size` bytes."""

    path: str
    size: int


class BasePiece(NamedTuple):
    """Bytes of the base image that stay as they are, inside a padding record."""

    offset: int
    size: int


class Layout:
    """An image as a sequence of pieces, and the offset of each file in it. Immutable.

    size: bytes of the image. placements: where each file's data lies, by path, in image order.
    directories: their paths. stable: unchanged files of the base image keep their offsets.
    moved: unchanged files that could not (always empty for a layout that is not stable).
    """

    __slots__ = ("_pieces", "directories", "moved", "placements", "size", "stable")

    def __init__(
        self,
        size: int,
        placements: Mapping[str, Extent],
        directories: Sequence[str],
        pieces: Sequence[bytes | FilePiece | BasePiece],
        *,
        stable: bool = False,
        moved: frozenset[str] = frozenset(),
    ) -> None:
        self.size = size
        self.placements = placements
        self.directories = tuple(directories)
        self.stable = stable
        self.moved = moved
        self._pieces = pieces

    @property
    def pieces(self) -> Iterator[bytes | FilePiece | BasePiece]:
        """The pieces, in the order of the image."""
        return iter(self._pieces)


def canonical(
    entries: Sequence[TreeEntry], rules: AlignmentRules = DEFAULT_RULES, lead: int = HEADER_SIZE
) -> Layout:
    """The canonical layout of a tree.

    Siblings keep the order of `entries`, in which parents precede children. PlanError for names
    that cannot be stored, CapacityError above 4 GiB, ValueError for a bad alignment.
    lead: offset of the first record. A padding record of FF fills the space between the header and
    it, so that flash there need only be erased."""
    return canonical_tree(build(entries), rules, lead)


def canonical_tree(
    branches: list[Branch], rules: AlignmentRules, lead: int = HEADER_SIZE
) -> Layout:
    """`canonical` for a tree that `tree.build` has checked."""
    measure(branches, rules, lead)
    return laid_out(branches[0], [branch.path for branch in branches[1:]], lead)


def image_size(root: Branch, lead: int = HEADER_SIZE) -> int:
    """The size in bytes of the canonical image with this measured root."""
    size = lead + root.content_size
    return size if size % 2 == 0 else size + len(_TO_EVEN)


def laid_out(root: Branch, directories: Sequence[str], lead: int = HEADER_SIZE) -> Layout:
    """The canonical layout of a measured tree. CapacityError above 4 GiB."""
    placements: dict[str, Extent] = {}
    pieces: list[bytes | FilePiece | BasePiece] = [b""]
    if lead > HEADER_SIZE:
        pieces.append(padding_head(lead - HEADER_SIZE).ljust(lead - HEADER_SIZE, b"\xff"))
    emit(root, lead, pieces, placements)
    size = image_size(root, lead)
    if size > lead + root.content_size:
        pieces.append(_TO_EVEN)
    pieces[0] = image_header(size, HEADER_SIZE)
    return Layout(size, placements, directories, pieces)


def image_header(size: int, header_size: int) -> bytes:
    """The header of an image of `size` bytes, itself included. CapacityError above 4 GiB."""
    if size > MAX_VALUE:
        raise CapacityError("an image cannot be larger than 4 GiB", size=size, capacity=MAX_VALUE)
    return MAGIC + encode_to(size - header_size, header_size - len(MAGIC))


def file_head(raw: bytes, size: int, offset: int, alignment: int) -> bytes:
    """The bytes of a file record in front of its data. offset: of the record in the image."""
    length = encode(size)
    name = encode(len(raw)) + raw
    # 8: the record's kind and length, padded; 1: the data record's kind.
    padding = -(offset + 8 + len(name) + 1 + len(length)) % alignment
    data_head = b"\x02" + length.rjust(len(length) + padding, b"\x80")
    payload = encode(len(name) + len(data_head) + size)
    return b"\x05" + payload.rjust(7, b"\x80") + name + data_head


def directory_head(raw: bytes, content_size: int, offset: int, alignment: int) -> bytes:
    """The bytes of a directory record in front of its children. offset: of the record."""
    name = encode(len(raw)) + raw
    length = encode(len(name) + content_size)
    padding = -(offset + 1 + len(length) + len(name)) % alignment
    return b"\x04" + b"\x80" * padding + length + name


def measure(branches: list[Branch], rules: AlignmentRules, lead: int = HEADER_SIZE) -> None:
    """Fill in the records and the content size of every directory. ValueError: a bad alignment.

    Offsets inside a directory count from its first child. That is aligned to the largest alignment
    wherever the directory lands, so its content is the same bytes everywhere.
    """
    rules.check()
    largest = rules.largest
    alignments: dict[str, int] = {}
    for branch in reversed(branches):
        start = 0 if branch.path else lead
        offset = start
        records: list[tuple[bytes, int]] = []
        for child in branch.children:
            if isinstance(child, Leaf):
                path, raw, size = child
                suffix = path[path.rfind(".") :]
                alignment = alignments.get(suffix)
                if alignment is None or len(raw) <= len(suffix) or rules.paths:
                    alignment = rules.for_path(path)
                    if len(raw) > len(suffix):
                        alignments[suffix] = alignment
                head = file_head(raw, size, offset, alignment)
            else:
                size = child.content_size
                head = directory_head(child.raw, size, offset, largest)
            offset += len(head)
            records.append((head, offset))
            offset += size
        branch.records = records
        branch.content_size = offset - start


def emit(
    branch: Branch,
    start: int,
    pieces: list[bytes | FilePiece | BasePiece],
    placements: dict[str, Extent],
) -> None:
    """Append a measured directory's content. start: offset of its first child in the image."""
    origin = start if branch.path else 0  # the root's offsets already count from the image
    stack = [(origin, iter(zip(branch.children, branch.records, strict=True)))]
    while stack:
        origin, records = stack[-1]
        for child, (head, offset) in records:
            pieces.append(head)
            if isinstance(child, Leaf):
                placements[child.path] = Extent(origin + offset, child.size)
                if child.size:
                    pieces.append(FilePiece(child.path, child.size))
            elif child.children:
                inner = zip(child.children, child.records, strict=True)
                stack.append((origin + offset, iter(inner)))
                break
        else:
            stack.pop()
