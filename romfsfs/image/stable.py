"""The stable layout: a new image that differs from the one on the camera in few erase blocks.

Unchanged files keep their offsets, and so every block that they fill stays as it is. Between them
are gaps, left by files that were deleted, replaced or grew:

    a changed file goes back to its old place if it fits, else into the smallest gap that takes it,
    else to the end of its directory
    what remains of a gap becomes a padding record; a gap of one byte, too small for a record, is
    filled by one more 0x80 in the header of the record after it
    a file whose name was taken in its directory (the reader's `same-name`) gets a record with the
    name that it is shown with; so does a directory
    a directory keeps its offset and length, so that what follows it stays; if it has to grow, it
    first takes the gap after it. If records are in the way, they or the whole directory move,
    whichever is smaller (`Layout.moved` names the files)

No pointer records: the IDE and openmv-ota misread them. Every reader skips padding records.

Bytes of deleted files stay inside padding records in blocks that need no rewriting. In blocks that
are rewritten anyway they are cleared; the canonical layout clears them all.

The canonical layout is chosen instead if it changes no more blocks, if the stable one would exceed
the capacity, or if the base cannot be edited in place: pointers, records of unknown kinds,
misaligned data. An image without a capacity would grow with every edit, so the canonical layout
is also chosen if the stable one is larger than twice its size plus 16 erase blocks.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from romfsfs.image.fitting import Kept, Slot, fit
from romfsfs.image.layout import BasePiece, FilePiece, Layout, canonical_tree, emit, image_header
from romfsfs.image.model import DirNode, Extent, FileNode, walk
from romfsfs.image.tree import Branch, Leaf, build
from romfsfs.image.varuint import HEADER_KIND, decode, padding_head

if TYPE_CHECKING:
    from romfsfs.image.layout import AlignmentRules, TreeEntry
    from romfsfs.image.model import Image, Node
    from romfsfs.image.varuint import Buffer

    Piece = bytes | FilePiece | BasePiece

#: the reader's notes on images that are not edited in place
_UNSAFE = frozenset(("pointer", "unknown-kind", "extra-data", "more-notes"))


def stable(
    entries: Sequence[TreeEntry],
    rules: AlignmentRules,
    base: Image,
    unchanged: Collection[str],
    erase_size: int,
    capacity: int | None,
    buffer: Buffer,
) -> Layout:
    """A layout of `entries` close to `base`, the parsed image in `buffer`; or the canonical one.

    buffer: the image and nothing after it; read only during the call. unchanged: paths of files
    whose bytes are those of the base. erase_size, capacity: of the device, bytes. The layout
    exceeds the capacity only if the canonical one does, too. `write_image` needs the base image
    for the `BasePiece`s. Errors of `layout.canonical`, and of reading the buffer.
    """
    branches = build(entries)
    compact = canonical_tree(branches, rules)
    nodes = dict(walk(base))
    kept_files = _kept_files(entries, nodes, unchanged)
    if kept_files is None or any(note.code in _UNSAFE for note in base.notes):
        return compact
    if any(node.extent.offset % rules.for_path(path) for path, node in kept_files.items()):
        return compact
    # The name in such a record is not the file's: it has to be written anew.
    misnamed = {note.path for note in base.notes if note.code == "same-name"}
    staying = {path: node for path, node in kept_files.items() if path not in misnamed}
    root = _fit_all(branches, nodes, staying, base, buffer, rules)
    assembly = _Assembly(root, kept_files, base, buffer, erase_size)
    layout = assembly.layout([branch.path for branch in branches[1:]])
    if layout is None:
        return compact
    changed = len(assembly.dirty)
    before = assembly.before
    if len(_dirty(compact.pieces, buffer, before, erase_size, changed)) <= changed:
        return compact
    if capacity is not None and layout.size > capacity:
        return compact
    if capacity is None and layout.size > 2 * compact.size + 16 * erase_size:
        return compact
    return layout


def _kept_files(
    entries: Sequence[TreeEntry], nodes: Mapping[str, Node], unchanged: Collection[str]
) -> dict[str, FileNode] | None:
    """The base's files that may stay where they are, by path; None if there are none."""
    kept: dict[str, FileNode] = {}
    for path, size in entries:
        if path in unchanged:
            node = nodes.get(path)
            if isinstance(node, FileNode) and node.extent.size == size:
                kept[path] = node
    return kept or None


def _fit_all(
    branches: list[Branch],
    nodes: Mapping[str, Node],
    kept_files: Mapping[str, FileNode],
    base: Image,
    buffer: Buffer,
    rules: AlignmentRules,
) -> Kept:
    """Arrange every directory that holds a kept file, inner ones first, and return the root."""
    holders = {""}
    for path in kept_files:
        while (path := path.rpartition("/")[0]) not in holders:
            holders.add(path)
    kept: dict[str, Kept] = {}
    for branch in reversed(branches):
        if branch.path not in holders:
            continue
        node = nodes[branch.path] if branch.path else base.root
        assert isinstance(node, DirNode)
        directory = Kept(branch, node.record, _content_start(node, buffer))
        fit(directory, kept, kept_files, nodes, rules)
        kept[branch.path] = directory
    return kept[""]


def _content_start(node: DirNode, buffer: Buffer) -> int:
    """The offset of a directory's first child record."""
    kind, position = decode(buffer, node.record.offset, node.record.end)
    _, position = decode(buffer, position, node.record.end)
    if kind == HEADER_KIND:
        return position
    length, position = decode(buffer, position, node.record.end)
    return position + length


class _Assembly:
    """Turns arranged directories into pieces."""

    def __init__(
        self,
        root: Kept,
        kept_files: Mapping[str, FileNode],
        base: Image,
        buffer: Buffer,
        erase_size: int,
    ) -> None:
        self.root = root
        self.kept_files = kept_files
        self.base = base
        self.buffer = buffer
        self.erase_size = erase_size
        self.before = {path: node.extent.offset for path, node in kept_files.items()}
        self.dirty: set[int] = set()  # numbers of the erase blocks that change
        self.pieces: list[Piece] = []
        self.placements: dict[str, Extent] = {}
        self.offset = 0

    def layout(self, directories: list[str]) -> Layout | None:
        """The finished layout; None if the base's header has no room for the new length."""
        size = self._size()
        start = self.root.content_start
        try:
            self._add(image_header(size, start))
        except ValueError:
            return None
        stack = [(self.root, iter(self.root.slots))]
        while stack:
            directory, slots = stack[-1]
            for slot in slots:
                spare = self._pad(slot.start)
                if isinstance(slot.what, Kept):
                    self._add(_widen(slot.what.head(), spare))
                    stack.append((slot.what, iter(slot.what.slots)))
                    break
                self._slot(slot, spare)
            else:
                self._pad(directory.end if directory.branch.path else size)
                stack.pop()
        moved = frozenset(
            path for path, old in self.before.items() if self.placements[path].offset != old
        )
        self.dirty = _dirty(self.pieces, self.buffer, self.before, self.erase_size)
        pieces = self._clear()
        return Layout(size, self.placements, directories, pieces, stable=True, moved=moved)

    def _size(self) -> int:
        """The image's size: even, and that of the base if this adds less than an erase block."""
        size = self.root.end
        if 2 <= self.base.size - size < self.erase_size and self.base.size % 2 == 0:
            return self.base.size
        return size + 3 if size % 2 else size

    def _slot(self, slot: Slot, spare: int) -> None:
        """Append a file that stays, or anything that is placed anew."""
        what = slot.what
        if isinstance(what, Branch):
            self._add(_widen(slot.head, spare))
            emit(what, self.offset, self.pieces, self.placements)
            self.offset += what.content_size
            return
        assert isinstance(what, Leaf)
        if slot.head:
            self._add(_widen(slot.head, spare))
            self.placements[what.path] = Extent(self.offset, what.size)
        else:
            _, extent, record = self.kept_files[what.path]
            head = bytes(self.buffer[record.offset : extent.offset])
            self._add(_widen(head, spare) if spare else head)
            self.placements[what.path] = extent
        if what.size:
            self.pieces.append(FilePiece(what.path, what.size))
            self.offset += what.size

    def _add(self, piece: bytes) -> None:
        self.pieces.append(piece)
        self.offset += len(piece)

    def _pad(self, end: int) -> int:
        """Fill up to `end`. Returns 1 if one byte is left, for the next record's header to fill."""
        total = end - self.offset
        if total < 2:
            return total
        self._add(padding_head(total))
        for start, stop in (
            (self.offset, min(end, self.base.size)),
            (max(self.offset, self.base.size), end),
        ):
            if stop > start:
                old = start < self.base.size
                size = stop - start
                self.pieces.append(BasePiece(start, size) if old else b"\xff" * size)
                self.offset = stop
        return 0

    def _clear(self) -> list[Piece]:
        """The pieces, with remains of deleted files cleared in blocks that change anyway."""
        erase_size = self.erase_size
        pieces: list[Piece] = []
        position = 0
        for piece in self.pieces:
            end = position + _length(piece)
            if isinstance(piece, BasePiece):
                first = min(end, (position // erase_size + 1) * erase_size)
                last = max(first, end // erase_size * erase_size)
                for start, stop in ((position, first), (first, last), (last, end)):
                    if stop > start:
                        size = stop - start
                        clear = size < erase_size and start // erase_size in self.dirty
                        pieces.append(b"\xff" * size if clear else BasePiece(start, size))
            else:
                pieces.append(piece)
            position = end
        return pieces


def _widen(head: bytes, spare: int) -> bytes:
    """A record's first bytes with `spare` 0x80 added after its kind: the data stays in place."""
    return head[:1] + b"\x80" * spare + head[1:] if spare else head


def _length(piece: Piece) -> int:
    return len(piece) if isinstance(piece, bytes) else piece.size


def _dirty(
    pieces: Iterable[Piece],
    base: Buffer,
    before: Mapping[str, int],
    erase_size: int,
    enough: int | None = None,
) -> set[int]:
    """Numbers of the erase blocks that differ from the base.

    Files are not read: one that was changed or moved counts as different everywhere. The count
    stops above `enough`."""
    dirty: set[int] = set()
    position = 0
    for piece in pieces:
        if isinstance(piece, bytes):
            end = position + len(piece)
            same = base[position:end] == piece
        else:
            end = position + piece.size
            same = isinstance(piece, BasePiece) or before.get(piece.path) == position
        if not same and end > position:
            dirty.update(range(position // erase_size, (end - 1) // erase_size + 1))
            if enough is not None and len(dirty) > enough:
                break
        position = end
    return dirty
