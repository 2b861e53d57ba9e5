"""Differences as people read them: unified for text, sizes and digests for the rest."""

from __future__ import annotations

import difflib
import io
import os
from collections.abc import Callable, Iterator
from typing import NamedTuple

from romfsfs.errors import printable
from romfsfs.image.model import FileNode, walk
from romfsfs.session.keep.base_image import BaseImage
from romfsfs.session.keep.images import open_image
from romfsfs.session.keep.recall import Recall
from romfsfs.session.keep.state import BaseEntry
from romfsfs.session.plan.shadow import Change
from romfsfs.session.session import Session
from romfsfs.session.tree.restore import shown_item
from romfsfs.session.tree.worktree import open_file
from romfsfs.system.files import digest_bytes, digest_fd

#: Larger files are compared by digest: nobody reads such a diff.
MAX_TEXT = 1 << 20


class Side(NamedTuple):
    """One side of a comparison. size: bytes. text: None if not UTF-8 text, or over `MAX_TEXT`."""

    size: int
    digest: str
    text: str | None


def side(fd: int, offset: int, size: int) -> Side:
    """The side made of `size` bytes at `offset` of an open file."""
    if size > MAX_TEXT:
        return Side(size, digest_fd(fd, offset, size), None)
    data = os.pread(fd, size, offset)
    return Side(size, digest_bytes(data), _text(data))


def _text(data: bytes) -> str | None:
    if b"\0" in data:
        return None
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None


def difference(path: str, old: Side | None, new: Side | None) -> Iterator[str]:
    """The lines (without newline) that show how `path` differs; None: the side has no such file."""
    if old is not None and new is not None and old.digest == new.digest:
        return
    path = printable(path)
    if (old is None or old.text is not None) and (new is None or new.text is not None):
        before, after = _lines(old), _lines(new)
        names = (
            "/dev/null" if old is None else f"a/{path}",
            "/dev/null" if new is None else f"b/{path}",
        )
        lines = list(difflib.unified_diff(before, after, *names))
        if lines:
            for line in lines:
                yield line.removesuffix("\n")
                if not line.endswith("\n"):
                    yield "\\ No newline at end of file"
            return
    yield f"--- {_describe(f'a/{path}', old)}"
    yield f"+++ {_describe(f'b/{path}', new)}"


def _lines(shown: Side | None) -> list[str]:
    """The lines of a text with their ends, as `patch` counts them: a form feed ends none."""
    return list(io.StringIO(shown.text, newline="\n")) if shown and shown.text else []


def _describe(name: str, shown: Side | None) -> str:
    if shown is None:
        return "/dev/null"
    return f"{name}  {shown.size:,} B  sha256 {shown.digest[:16]}"


def diff_session(session: Session, selected: Callable[[str], bool]) -> Iterator[str]:
    """The lines that show how the work tree differs from the base.

    A base file is compared by its source if that is known. selected: of a path in the work tree.
    """
    recall = session.recall()
    held = session.held()
    base = {entry.source: entry for entry in held.base.entries if not entry.is_dir}
    with session.work_fd() as work_fd:
        for entry in sorted(session.look(held).shadow, key=lambda entry: entry.path):
            if (
                entry.is_dir
                or entry.change in (Change.UNCHANGED, Change.IGNORED)
                or not selected(entry.path)
            ):
                continue
            if entry.note:  # a link, an unreadable file: the status asks the user to fix it
                yield f"+++ b/{printable(entry.path)}  {entry.note}"
                continue
            old = _stored(base.get(entry.path), held, recall)
            new = None if entry.change is Change.DELETED else _work(work_fd, entry.path)
            yield from difference(entry.path, old, new)


def _stored(entry: BaseEntry | None, held: BaseImage, recall: Recall) -> Side | None:
    if entry is None:
        return None
    item = shown_item(entry, held, recall)
    if isinstance(item.source, int):
        return side(item.source, item.offset, item.size)
    with open(item.source or "", "rb") as file:
        return side(file.fileno(), 0, item.size)


def _work(work_fd: int, path: str) -> Side | None:
    try:
        fd = open_file(work_fd, path)
    except FileNotFoundError:
        return None
    try:
        return side(fd, 0, os.fstat(fd).st_size)
    finally:
        os.close(fd)


def diff_images(
    old: os.PathLike[str], new: os.PathLike[str], selected: Callable[[str], bool]
) -> Iterator[str]:
    """The lines that show how two images differ, by path. ImageFormatError, OSError."""
    for path, before, after in _sides(old, new, selected):
        yield from difference(path, before, after)


def changes_between(old: os.PathLike[str], new: os.PathLike[str]) -> Iterator[tuple[Change, str]]:
    """Which files differ between two images. ImageFormatError, OSError."""
    for path, before, after in _sides(old, new, lambda path: True):
        if before is None:
            yield Change.ADDED, path
        elif after is None:
            yield Change.DELETED, path
        elif before.digest != after.digest:
            yield Change.MODIFIED, path


def _sides(
    old: os.PathLike[str], new: os.PathLike[str], selected: Callable[[str], bool]
) -> Iterator[tuple[str, Side | None, Side | None]]:
    with open_image(old) as (before, old_file), open_image(new) as (after, new_file):
        left = {path: node.extent for path, node in walk(before) if isinstance(node, FileNode)}
        right = {path: node.extent for path, node in walk(after) if isinstance(node, FileNode)}
        for path in sorted(left.keys() | right.keys()):
            if selected(path):
                yield (
                    path,
                    side(old_file.fileno(), *left[path]) if path in left else None,
                    side(new_file.fileno(), *right[path]) if path in right else None,
                )
