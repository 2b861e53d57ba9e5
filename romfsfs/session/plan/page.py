"""The status as a web page: one file that loads nothing, has no script and refreshes itself.

Names and the output of tools come from images and cameras. All of it goes through `_text`, which
lets through neither markup nor control characters that reverse the reading direction.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from html import escape
from pathlib import Path
from string import Template

from romfsfs.errors import printable
from romfsfs.image.model import Image
from romfsfs.image.rules import DEFAULT_RULES
from romfsfs.session.keep.state import Base
from romfsfs.session.plan.partition_map import (
    DIRECTORY,
    FILE,
    GAP,
    HEADER,
    RECORDS,
    Row,
    partition_map,
)
from romfsfs.session.plan.problems import INFO, Problem, told
from romfsfs.session.plan.shadow import Change, ShadowEntry
from romfsfs.session.plan.status import Status, headline, what_it_becomes

#: Share of the partition below which neighbouring regions are drawn as one.
_SMALLEST = 1 / 400
_CHANGED = (Change.ADDED, Change.MODIFIED, Change.DELETED)
_COMMANDS = (
    ("commit", "write the edits"), ("diff", "see them"), ("revert", "drop them"),
)  # fmt: skip


def page(status: Status, base: Base, image: Image, place: str) -> str:
    """The HTML of the page.

    base, image: as last read or committed. place: the target in the commands, quoted for a shell.
    """
    partition = status.target.partition
    rows = partition_map(
        image, partition.alignment if partition else DEFAULT_RULES, status.capacity
    )
    changed = {entry.path for entry in status.entries if entry.change in _CHANGED}
    touched = {entry.path for entry in base.entries if entry.source in changed}
    template = Path(__file__).with_name("status.html").read_text("utf-8")
    return Template(template).substitute(
        title=_text(headline(status)),
        problems="\n".join(map(_problem, told(status.problems))),
        usage=_usage(status),
        map="".join(_segments(rows, touched)),
        files="\n".join(_files(status)),
        commands="\n".join(_commands(status, place)),
    )


def _text(text: str) -> str:
    """Escape text for elements and attributes."""
    return escape(printable(text))


def _problem(problem: Problem) -> str:
    label = "note" if problem.severity == INFO else problem.severity
    lines = problem.detail.rstrip().splitlines()
    detail = "\n".join(_text(line.expandtabs()) for line in lines)
    return (
        f'<div class="problem {_text(problem.severity)}"><b>{_text(label)}</b>'
        f"<span><bdi>{_text(problem.text)}</bdi></span>"
        + (f"<pre>{detail}</pre>" if detail else "")
        + "</div>"
    )


def _usage(status: Status) -> str:
    used = "after a commit" if not status.clean else "used"
    if status.capacity is None:
        return f"{status.used:,} B {used}, capacity unknown (no board)"
    share = status.used / status.capacity if status.capacity else 1.0
    return f"{status.used:,} of {status.capacity:,} B {used} ({share:.1%})"


def _segments(rows: Sequence[Row], touched: set[str]) -> Iterator[str]:
    """The partition's bar, from its first to its last byte, as HTML."""
    total = rows[-1].end if rows else 0
    size, stored, kind, names = 0, 0, "", 0
    name = ""
    for row in rows:
        small = row.size < total * _SMALLEST
        its_kind = _kind(row, touched)
        if size and not (small and size < total * _SMALLEST and its_kind in (kind, RECORDS)):
            yield _segment(kind, size, stored, name, names)
            size, stored, names = 0, 0, 0
        if not size or row.kind == FILE:
            kind, name = its_kind, row.path
        size += row.size
        if row.kind == FILE:
            stored, names = stored + row.size, names + 1
    if size:
        yield _segment(kind, size, stored, name, names)


def _kind(row: Row, touched: set[str]) -> str:
    if row.kind == FILE:
        return "touched" if row.path in touched else FILE
    if row.kind in (HEADER, DIRECTORY):
        return RECORDS
    return row.kind if row.kind in (GAP, RECORDS) else "free"


def _segment(kind: str, size: int, stored: int, name: str, names: int) -> str:
    """stored: bytes of file data; `size` adds the names and padding that are drawn with them."""
    what = _text(f"{names:,} files" if names > 1 else name or kind)
    shown = stored if names else size
    return f'<i class="{kind}" style="flex-grow:{size}" title="{what}: {shown:,} B"></i>'


def _files(status: Status) -> Iterator[str]:
    for entry in sorted(status.entries, key=lambda entry: entry.path.split("/")):
        folder, _, name = entry.path.rpartition("/")
        depth = folder.count("/") + 1 if folder else 0
        becomes, size = _fate(entry, status)
        failed = " failed" if entry.state == "failed" else ""
        letter = entry.change.name[0] if entry.change is not Change.UNCHANGED else ""
        shown = _text(name) + ("/" if entry.is_dir else "")
        yield (
            f'<tr class="{entry.change.value}{failed}"><td>{letter}</td>'
            f'<td class="name" style="padding-left:{1.2 * depth:.1f}em" '
            f'title="{_text(entry.path)}"><bdi>{shown}</bdi></td>'
            f'<td class="becomes"><bdi>{_text(becomes)}</bdi></td>'
            f'<td class="size">{size}</td></tr>'
        )


def _fate(entry: ShadowEntry, status: Status) -> tuple[str, str]:
    """What a file becomes, as plain text, and its stored size, as HTML."""
    if entry.is_dir or entry.change is Change.DELETED:
        return "", ""
    if entry.change is Change.IGNORED:
        return entry.note or "not stored", ""
    if entry.state == "failed":
        return "FAILED", ""
    size = f"{entry.size or 0:,} B"
    if entry.state == "pending":
        size = _text(entry.note or "not converted yet")
    return what_it_becomes(entry, status.target), size


def _commands(status: Status, place: str) -> Iterable[str]:
    commands: Sequence[tuple[str, str]] = (("status", "look"),)
    if status.changes:
        commands = _COMMANDS
    elif not status.clean:  # a fresh session, or another order or alignment
        commands = (("commit", "write the image"),)
    for command, use in commands:
        yield f"<span>{use}</span><code>{_text(f'romfsfs {command} {place}')}</code>"
