"""`info --map`: what lies where, drawn as people look at disks."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from romfsfs.boards import get_board
from romfsfs.cli.output import Output
from romfsfs.cli.reading import image_of
from romfsfs.errors import RomfsError, printable
from romfsfs.image.model import Image
from romfsfs.image.rules import DEFAULT_RULES
from romfsfs.session.connect import device
from romfsfs.session.keep.folder import folder_of
from romfsfs.session.keep.images import parse_fd
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
from romfsfs.system.files import Progress

_DEFAULT_WIDTH = 64
_MARKS = {HEADER: "|", RECORDS: "|", DIRECTORY: "|", GAP: "-", TRAILING: "~", FREE: "."}
#: Files in the order of the image, over and over: neighbours never share a letter.
_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_NAMES = {HEADER: "(header)", GAP: "(gap)", TRAILING: "(after the image)", FREE: "(free)"}


def show_map(
    output: Output, source: str, board: str | None, partition: int, as_json: bool, title: str = ""
) -> None:
    """Print the map of SOURCE. A board that was given wins over what is known of the source."""
    with output.progress() as progress, _image(source, board, partition, progress) as found:
        image, known = found
    chosen = get_board(board) if board else get_board(known.board) if known.board else None
    index = partition if board else known.partition
    place = chosen.partition(index) if chosen else None
    capacity = place.size if place and (board or known.capacity is None) else known.capacity
    rows = partition_map(image, place.alignment if place else DEFAULT_RULES, capacity)
    if as_json:
        output.json({
            "source": source, "board": chosen.name if chosen else None, "partition": index,
            "size": image.size, "capacity": capacity,
            "erase_size": place.erase_size if place else None,
            "rows": [row.record() for row in rows],
        })  # fmt: skip
        return
    where = f", {chosen.name} partition {index}" if chosen else ", no board"
    output.show(f"{title}{where}\n")
    # A few columns are left for what a terminal or a quoting mail program puts in front.
    width = min(_DEFAULT_WIDTH, max(16, shutil.get_terminal_size((80, 24)).columns - 8))
    output.show("".join(line + "\n" for line in map_lines(rows, width)))


class _Known:
    """What is remembered of an image file, or what a camera says of itself."""

    def __init__(self, board: str | None, partition: int, capacity: int | None) -> None:
        self.board = board
        self.partition = partition
        self.capacity = capacity


@contextmanager
def _image(
    source: str, board: str | None, partition: int, progress: Progress
) -> Iterator[tuple[Image, _Known]]:
    if source == "-":
        with image_of(source, progress=progress) as (image, _, _):
            yield image, _Known(None, 0, None)
        return
    if os.path.isfile(source):
        with image_of(source, progress=progress) as (image, _, _):
            yield image, _remembered(os.path.realpath(source))
        return
    with device(source, board, partition) as opened, tempfile.TemporaryFile() as copy:
        info = opened.info()
        opened.read_image(copy, progress)
        copy.flush()
        yield parse_fd(copy.fileno(), source), _Known(info.board, info.partition, info.capacity)


def _remembered(path: str) -> _Known:
    """The board that `new` or `mount` was given for an image file, if any."""
    try:
        info = Session.load(folder_of(path)).info
    except (RomfsError, OSError):
        return _Known(None, 0, None)
    return _Known(info.board, info.partition, info.capacity)


def map_lines(rows: Sequence[Row], width: int = _DEFAULT_WIDTH) -> Iterator[str]:
    """The drawing: one bar of the whole, a line for each stretch worth one, and what it adds up to.

    Names, record headers and alignment padding between files are in the bar and the sum alone.
    """
    total = rows[-1].end if rows else 0
    if not total:
        yield "  empty"
        return
    marks = _marks(rows)
    cells = _cells(rows, marks, total, width)
    yield f"  [{cells}]  {total / width:,.0f} B a cell"
    yield ""
    yield f"    {'from':>10} {'to':>10} {'size':>14} {'align':>6}  name"
    for row, mark in zip(rows, marks, strict=True):
        if row.kind != RECORDS:
            yield _row_line(row, mark)
    yield ""
    yield from _sums(rows, total)


def _marks(rows: Sequence[Row]) -> list[str]:
    marks, number = [], 0
    for row in rows:
        if row.kind == FILE:
            marks.append(_LETTERS[number % len(_LETTERS)])
            number += 1
        else:
            marks.append(_MARKS[row.kind])
    return marks


def _cells(rows: Sequence[Row], marks: Sequence[str], total: int, width: int) -> str:
    """Each cell shows what takes most of it."""
    cells = []
    first = 0
    for cell in range(width):
        start, end = (
            cell * total // width,
            max((cell + 1) * total // width, cell * total // width + 1),
        )
        while rows[first].end <= start and first < len(rows) - 1:
            first += 1
        best, most = marks[first], 0
        index = first
        while index < len(rows) and rows[index].offset < end:
            shared = min(end, rows[index].end) - max(start, rows[index].offset)
            if shared > most:
                best, most = marks[index], shared
            index += 1
        cells.append(best)
    return "".join(cells)


def _row_line(row: Row, mark: str) -> str:
    name = _NAMES.get(row.kind) or printable(row.path) + ("/" if row.kind == DIRECTORY else "")
    align = ""
    if row.kind == FILE and row.size:
        align = f"{_shown_alignment(row)}" + ("!" if row.misaligned else "")
    wrong = f"  MISALIGNED, {row.wanted} wanted" if row.misaligned else ""
    last = max(row.offset, row.end - 1)
    return f"  {mark} {row.offset:#010x} {last:#010x} {row.size:>12,} B {align:>6}  {name}{wrong}"


def _shown_alignment(row: Row) -> int:
    """Beyond a page nobody asks for it."""
    return min(row.actual or 1, 4096)


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
        yield f"  {wrong} file{'' if wrong == 1 else 's'} misaligned: mount, then commit --compact"
