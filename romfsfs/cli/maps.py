"""`info --map`: a map of what lies where in an image or partition."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
from collections.abc import Iterator, Sequence

from romfsfs.boards import get_board
from romfsfs.cli.output import Output
from romfsfs.cli.reading import tree_of
from romfsfs.devices.base import DeviceInfo
from romfsfs.errors import RomfsError, count_text, printable
from romfsfs.image.rules import DEFAULT_RULES
from romfsfs.session.keep.folder import folder_of
from romfsfs.session.keep.state import SessionInfo
from romfsfs.session.plan.partition_map import (
    DIRECTORY,
    FILE,
    FREE,
    GAP,
    HEADER,
    RECORDS,
    TRAILING,
    Row,
    partition_map,
)  # fmt: skip
from romfsfs.session.session import Session

_DEFAULT_WIDTH = 64
_MARKS = {HEADER: "|", RECORDS: "|", DIRECTORY: "|", GAP: "-", TRAILING: "~", FREE: "."}
#: For the files in the order of the image, again and again: neighbours never share a letter.
_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_NAMES = {HEADER: "(header)", GAP: "(gap)", TRAILING: "(after the image)", FREE: "(free)"}


def show_map(
    output: Output, source: str, board: str | None, partition: int, slot: str, title: str
) -> None:
    """Print the map of SOURCE. A board that is given overrides the one known for SOURCE."""
    with output.progress() as progress:
        image, _, info = tree_of(source, progress, board=board, partition=partition, slot=slot)
    known: DeviceInfo | SessionInfo | None = info
    with contextlib.suppress(RomfsError, OSError):  # a file: what `new` or `mount` was told
        known = known or Session.load(folder_of(os.path.realpath(source))).info
    name, index, capacity = board, partition, None
    if known is not None:
        capacity = known.capacity
        name, index = (board, partition) if board else (known.board, known.partition)
    chosen = get_board(name) if name else None
    place = chosen.partition(index) if chosen else None
    if place and (board or capacity is None):
        capacity = place.size
    rows = partition_map(image, place.alignment if place else DEFAULT_RULES, capacity)
    output.json({
        "source": source, "board": chosen.name if chosen else None, "partition": index,
        "size": image.size, "capacity": capacity,
        "erase_size": place.erase_size if place else None,
        "rows": [row.record() for row in rows],
    })  # fmt: skip
    where = f", {chosen.name} partition {index}" if chosen else ", no board"
    output.show(f"{title}{where}\n")
    # A few columns are left for what a terminal or a quoting mail program puts in front.
    width = min(_DEFAULT_WIDTH, max(16, shutil.get_terminal_size().columns - 8))
    output.show("".join(line + "\n" for line in map_lines(rows, width)))


def map_lines(rows: Sequence[Row], width: int = _DEFAULT_WIDTH) -> Iterator[str]:
    """The map's lines: a bar of the whole, a line for each file, folder and gap, and the totals.

    Names, record headers and alignment padding between files are in the bar and the totals only.
    """
    total = rows[-1].end if rows else 0
    if not total:
        yield "  empty"
        return
    letters = itertools.cycle(_LETTERS)
    marks = [next(letters) if row.kind == FILE else _MARKS[row.kind] for row in rows]
    cells = _cells(rows, marks, total, width)
    yield f"  [{cells}]  {total / width:,.0f} B a cell"
    yield ""
    yield f"    {'from':>10} {'to':>10} {'size':>14} {'align':>6}  name"
    for row, mark in zip(rows, marks, strict=True):
        if row.kind != RECORDS:
            yield _row_line(row, mark)
    yield ""
    yield from _sums(rows, total)


def _cells(rows: Sequence[Row], marks: Sequence[str], total: int, width: int) -> str:
    """Each cell shows what takes most of it."""
    cells = []
    for cell in range(width):
        start = cell * total // width
        end = max((cell + 1) * total // width, start + 1)
        shared = [min(end, row.end) - max(start, row.offset) for row in rows]
        cells.append(marks[shared.index(max(shared))])
    return "".join(cells)


def _row_line(row: Row, mark: str) -> str:
    name = _NAMES.get(row.kind) or printable(row.path) + ("/" if row.kind == DIRECTORY else "")
    align = ""
    if row.kind == FILE and row.size:
        # Nobody asks for more than a page.
        align = f"{min(row.actual or 1, 4096)}" + ("!" if row.misaligned else "")
    wrong = f"  MISALIGNED, {row.wanted} wanted" if row.misaligned else ""
    last = max(row.offset, row.end - 1)
    return f"  {mark} {row.offset:#010x} {last:#010x} {row.size:>12,} B {align:>6}  {name}{wrong}"


def _sums(rows: Sequence[Row], total: int) -> Iterator[str]:
    sums: dict[str, int] = {}
    for row in rows:
        kind = RECORDS if row.kind in (HEADER, DIRECTORY) else row.kind
        sums[kind] = sums.get(kind, 0) + row.size
    words = {FILE: "files", RECORDS: "names and padding", GAP: "gaps", TRAILING: "after the image",
             FREE: "free"}  # fmt: skip
    parts = [f"{word} {sums[kind]:,} B ({sums[kind] / total:.1%})" for kind, word in words.items()
             if sums.get(kind)]  # fmt: skip
    yield "  " + ", ".join(parts)
    wrong = sum(row.misaligned for row in rows)
    if wrong:
        yield f"  {count_text(wrong, 'file')} misaligned: mount, then commit --compact"
