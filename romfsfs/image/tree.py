"""The tree that an image is made from, with its names checked."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from romfsfs.errors import PlanError


class TreeEntry(NamedTuple):
    """A file of `size` bytes, or a directory (None), at `path` (`lib/a.mpy`)."""

    path: str
    size: int | None


class Leaf(NamedTuple):
    """A file. raw: its name as stored."""

    path: str
    raw: bytes
    size: int


class Branch:
    """A directory. path: empty for the root. raw: its name as stored.

    records and content_size are filled in by `layout.measure`.
    """

    __slots__ = ("children", "content_size", "path", "raw", "records")

    def __init__(self, path: str, raw: bytes) -> None:
        self.path = path
        self.raw = raw
        self.children: list[Leaf | Branch] = []
        self.records: list[tuple[bytes, int]] = []
        self.content_size = 0


def build(entries: Iterable[TreeEntry]) -> list[Branch]:
    """The directories of a tree, parents before children, the root first.

    PlanError for names that no camera can open, paths that occur twice, and entries whose
    directory was not listed before them; its detail names them all.
    """
    root = Branch("", b"")
    branches = [root]
    by_path: dict[str, Branch] = {"": root}
    seen: set[str] = set()
    problems: list[str] = []
    for path, size in entries:
        parent_path, _, name = path.rpartition("/")
        try:
            raw = name.encode()
        except UnicodeEncodeError:
            problems.append(f"{path!r}: the name is not valid Unicode")
            continue
        if name in ("", ".", "..") or "\0" in name or path[0] == "/":
            problems.append(f"{path!r}: a camera cannot use this name")
            continue
        parent = by_path.get(parent_path)
        if parent is None:
            problems.append(f"{path!r}: there is no directory {parent_path!r} before it")
            continue
        if path in seen:
            problems.append(f"{path!r}: this path occurs twice")
            continue
        seen.add(path)
        if size is None:
            branch = by_path[path] = Branch(path, raw)
            branches.append(branch)
            parent.children.append(branch)
        else:
            parent.children.append(Leaf(path, raw, size))
    if problems:
        more = f" and {len(problems) - 1} more" if len(problems) > 1 else ""
        raise PlanError(problems[0] + more, detail="\n".join(problems))
    return branches
