"""What lies where in an image and its partition: every byte from the first to the last, in order.

A pure function of the parsed image; nothing is read. Offsets and sizes in bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from romfsfs.image.model import FileNode, Image, walk
from romfsfs.image.rules import DEFAULT_RULES, AlignmentRules

HEADER = "header"
FILE = "file"
DIRECTORY = "directory"
RECORDS = "records"
GAP = "gap"
TRAILING = "trailing"
FREE = "free"

#: Bytes. Between the data of two files lie names, record headers and alignment padding. A region
#: longer than these (and the largest alignment) is a gap: a padding record.
_LONGEST_HEADER = 16
_ORDINARY_NAME = 64


@dataclass(frozen=True, slots=True)
class Row:
    """One region of the partition.

    kind: header, file (its data), directory (its own records), records (names and padding), gap
    (unused, inside the image), trailing (in the file, after the image), free. wanted: the alignment
    that the rules ask for, files only; actual: the largest power of two that divides the offset.
    """

    kind: str
    offset: int
    size: int
    path: str = ""
    wanted: int | None = None
    actual: int | None = None

    @property
    def end(self) -> int:
        return self.offset + self.size

    @property
    def misaligned(self) -> bool:
        return self.wanted is not None and self.size > 0 and self.offset % self.wanted != 0

    def record(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "kind": self.kind,
            "offset": self.offset,
            "size": self.size,
            "path": self.path or None,
            "alignment": self.actual,
            "wanted_alignment": self.wanted,
            "misaligned": self.misaligned,
        }


def partition_map(
    image: Image, rules: AlignmentRules = DEFAULT_RULES, capacity: int | None = None
) -> tuple[Row, ...]:
    """Rows without a hole or an overlap, from offset 0 to the end.

    The end is the capacity, or the end of the file if no capacity is known; an image beyond its
    capacity is shown in full. Data that several records point to is shown once, under the first
    file's name.
    """
    rows = list(_inside(image, rules))
    end = image.size + image.trailing
    if image.size < (held := min(end, capacity) if capacity is not None else end):
        rows.append(Row(TRAILING, image.size, held - image.size))
    if capacity is not None and capacity > end:
        rows.append(Row(FREE, end, capacity - end))
    return tuple(rows)


def _inside(image: Image, rules: AlignmentRules) -> Iterator[Row]:
    """The image record's rows: known regions in order of offset, and what lies between them."""
    position = 0
    for row in sorted(_known(image, rules), key=lambda row: (row.offset, row.end)):
        if row.offset < position or row.end > image.size:
            continue  # pointed to twice
        if row.offset > position:
            yield _between(position, row.offset, rules)
        yield row
        position = row.end
    if position < image.size:
        yield _between(position, image.size, rules)


def _known(image: Image, rules: AlignmentRules) -> Iterator[Row]:
    first = min((node.record.offset for node in image.root.children), default=image.size)
    yield Row(HEADER, 0, min(first, _LONGEST_HEADER, image.size))
    for path, node in walk(image):
        start = node.record.offset
        if isinstance(node, FileNode):
            # The data offset of an empty file means nothing.
            offset, size = node.extent if node.extent.size else (start, 0)
            yield Row(FILE, offset, size, path, rules.for_path(path), _alignment_of(offset))
        else:
            inside = [child.record.offset for child in node.children]
            end = min((each for each in inside if each >= start), default=node.record.end)
            longest = _LONGEST_HEADER + len(node.name.encode()) + rules.largest
            yield Row(DIRECTORY, start, min(end - start, longest), path)


def _between(start: int, end: int, rules: AlignmentRules) -> Row:
    ordinary = _LONGEST_HEADER + _ORDINARY_NAME + rules.largest
    return Row(GAP if end - start > ordinary else RECORDS, start, end - start)


def _alignment_of(offset: int) -> int:
    return offset & -offset if offset else 1 << 32
