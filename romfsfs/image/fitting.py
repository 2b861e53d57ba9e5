"""Fits the records of a directory around those that keep their offsets (see `stable`)."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from romfsfs.image.layout import directory_head, file_head
from romfsfs.image.model import Extent
from romfsfs.image.tree import Branch, Leaf
from romfsfs.image.varuint import encode, encode_to

if TYPE_CHECKING:
    from romfsfs.image.model import FileNode, Node
    from romfsfs.image.rules import AlignmentRules

#: how many gaps are tried for a record before it goes to the end
_TRIES = 64


class Slot(NamedTuple):
    """A record's place. head: its bytes in front of its content; empty for one that stays."""

    start: int
    end: int
    what: Leaf | Branch | Kept
    head: bytes = b""


class Kept:
    """A directory of the base that keeps its offset.

    content_start: offset of its first child. slots: its records, by offset. end: offset after the
    new record. fits: false if the header has no room for the new length; then it has to move.
    """

    __slots__ = ("branch", "content_start", "end", "fits", "record", "slots")

    def __init__(self, branch: Branch, record: Extent, content_start: int) -> None:
        self.branch = branch
        self.record = record
        self.content_start = content_start
        self.end = record.end
        self.slots: list[Slot] = []
        self.fits = True

    def head(self) -> bytes:
        """The bytes in front of its first child, as many as before. ValueError if too few."""
        name = encode(len(self.branch.raw)) + self.branch.raw
        width = self.content_start - self.record.offset - 1 - len(name)
        length = self.end - self.content_start + len(name)
        return b"\x04" + encode_to(length, width) + name


def fit(
    directory: Kept,
    kept: Mapping[str, Kept],
    kept_files: Mapping[str, FileNode],
    nodes: Mapping[str, Node],
    rules: AlignmentRules,
) -> None:
    """Arrange a directory's children. The kept directories below it have been arranged before.

    nodes: what the base has at each path, to find the old places of changed files.
    """
    fixed: list[Slot] = []
    loose: list[Leaf | Branch] = []
    for child in directory.branch.children:
        if child.path in kept_files and isinstance(child, Leaf):
            record = kept_files[child.path].record
            fixed.append(Slot(record.offset, record.end, child))
        elif child.path in kept and kept[child.path].fits:
            inner = kept[child.path]
            fixed.append(Slot(inner.record.offset, inner.end, inner))
        else:
            loose.append(child)
    fixed.sort(key=_start)
    loose += _part(fixed)
    space = _Space(directory.content_start, fixed, rules)
    space.place(loose, nodes)
    directory.slots = sorted(fixed + space.placed, key=_start)
    end = directory.slots[-1].end if directory.slots else directory.content_start
    # A directory keeps its length if it can. One byte is too small for a padding record.
    if directory.branch.path and end <= directory.record.end and directory.record.end - end != 1:
        end = directory.record.end
    directory.end = end
    if directory.branch.path:
        try:
            directory.head()
        except ValueError:
            directory.fits = False


def _start(slot: Slot) -> int:
    return slot.start


def _part(fixed: list[Slot]) -> list[Leaf | Branch]:
    """Remove overlaps: a directory that grew, or the records it grew over if they are smaller.

    What is taken out of `fixed` is returned, to be placed anew."""
    loose: list[Leaf | Branch] = []
    index = 0
    while index < len(fixed):
        slot = fixed[index]
        after = index + 1
        while after < len(fixed) and fixed[after].start < slot.end:
            after += 1
        in_the_way = fixed[index + 1 : after]
        if in_the_way and sum(s.end - s.start for s in in_the_way) > slot.end - slot.start:
            loose.append(_plain(fixed.pop(index)))
            continue
        loose += [_plain(each) for each in in_the_way]
        del fixed[index + 1 : after]
        index += 1
    return loose


def _plain(slot: Slot) -> Leaf | Branch:
    return slot.what.branch if isinstance(slot.what, Kept) else slot.what


class _Space:
    """The gaps between a directory's fixed records, and the open end after them."""

    def __init__(self, start: int, fixed: list[Slot], rules: AlignmentRules) -> None:
        self.rules = rules
        self.placed: list[Slot] = []
        self.starts: list[int] = []  # of the gaps, ascending; `ends` has the same order
        self.ends: list[int] = []
        for slot in fixed:
            if slot.start > start:
                self.starts.append(start)
                self.ends.append(slot.start)
            start = slot.end
        self.open_end = start

    def place(self, loose: list[Leaf | Branch], nodes: Mapping[str, Node]) -> None:
        """Place all items: at their old places, then, largest first, in gaps, then at the end."""
        remaining: list[Leaf | Branch] = []
        for item in loose:
            node = nodes.get(item.path)
            if node is None or not self._put_back(item, node.record.offset):
                remaining.append(item)
        by_size = sorted(
            (end - start, start) for start, end in zip(self.starts, self.ends, strict=True)
        )
        at_end: list[Leaf | Branch] = []
        order = {id(item): number for number, item in enumerate(remaining)}
        for item in sorted(remaining, key=_content, reverse=True):
            if not self._best_fit(item, by_size):
                at_end.append(item)  # noqa: PERF401 (asking places it)
        for item in sorted(at_end, key=lambda item: order[id(item)]):
            self.placed.append(self._slot(item, self.open_end))
            self.open_end = self.placed[-1].end

    def _put_back(self, item: Leaf | Branch, old: int) -> bool:
        """Place at the old offset, else at the start of the gap around it, if it fits."""
        index = bisect_right(self.starts, old) - 1
        if index < 0 or old >= self.ends[index]:
            return False
        gap_start, gap_end = self.starts[index], self.ends[index]
        for start in (old, gap_start) if old - gap_start != 1 else (gap_start,):
            slot = self._slot(item, start)
            if slot.end <= gap_end:
                self.placed.append(slot)
                rest = [(gap_start, start), (slot.end, gap_end)]
                self.starts[index : index + 1] = [a for a, b in rest if b > a]
                self.ends[index : index + 1] = [b for a, b in rest if b > a]
                return True
        return False

    def _best_fit(self, item: Leaf | Branch, by_size: list[tuple[int, int]]) -> bool:
        """Place in the smallest gap that is large enough; False if none is found."""
        least = _content(item) + len(item.raw) + 3
        first = bisect_left(by_size, (least, 0))
        for index in range(first, min(first + _TRIES, len(by_size))):
            size, start = by_size[index]
            slot = self._slot(item, start)
            if slot.end <= start + size:
                self.placed.append(slot)
                del by_size[index]
                if slot.end < start + size:
                    insort(by_size, (start + size - slot.end, slot.end))
                return True
        return False

    def _slot(self, item: Leaf | Branch, start: int) -> Slot:
        """The record of `item` if it starts at `start`."""
        if isinstance(item, Leaf):
            head = file_head(item.raw, item.size, start, self.rules.for_path(item.path))
        else:
            head = directory_head(item.raw, item.content_size, start, self.rules.largest)
        return Slot(start, start + len(head) + _content(item), item, head)


def _content(item: Leaf | Branch) -> int:
    return item.size if isinstance(item, Leaf) else item.content_size
