"""Making a work tree follow a new base: paths still as the old base had them follow, edits stay.

The only code that does so, after a commit, an undo, a push, or a target that changed elsewhere. It
may be repeated after a crash: which paths follow is decided once, and recorded before the first of
them is touched.
"""

from __future__ import annotations

import fnmatch
import stat
from collections.abc import Callable, Collection
from pathlib import Path

from romfsfs.session.keep.base_image import BaseImage
from romfsfs.session.keep.folder import SessionFolder
from romfsfs.session.keep.recall import Recall
from romfsfs.session.keep.state import Base, BaseEntry, Signature
from romfsfs.session.tree.restore import is_below, parents, restore, work_digest
from romfsfs.session.tree.worktree import kind_at, scan, status_at
from romfsfs.system.files import opened_folder

#: What file managers and Python leave in every folder: removed with the folder. Other files that
#: are never packed (a `.git`, a backup) are the user's, and the folder is kept for them.
_LITTER = (".DS_Store", "._*", "Thumbs.db", "desktop.ini", ".directory", "__pycache__", "*.pyc")


def follow(
    held: BaseImage,
    old: Base,
    folder: SessionFolder,
    root: Path | None,
    recall: Recall,
    is_junk: Callable[[str], bool],
    decided: Collection[str] | None,
    decide: Callable[[list[str]], None],
) -> None:
    """Make a tree that was edited from `old` follow the base `held`. Raises as `restore`.

    root: the mountpoint, to write through it; None if not mounted. decided: the paths that follow,
    if an attempt before a crash has decided that; otherwise `decide` is called to record them.
    """
    before = {entry.source: entry for entry in old.entries}
    after = {entry.source: entry for entry in held.base.entries}
    changed = [path for path in before.keys() | after.keys()
               if _content(before.get(path)) != _content(after.get(path))]  # fmt: skip
    with opened_folder(folder.work) as work_fd:
        # Taken before the comparison: a file saved from here on is an edit.
        seen = {path: _signature(work_fd, path) for path in decided or changed}
        if decided is None:
            wanted = [path for path in changed if _is_as(work_fd, path, before.get(path))]
            if not wanted:
                return
            decide(wanted)
        else:  # some are removed and not put back yet, and some have followed already
            wanted = [
                path for path in decided
                if not kind_at(work_fd, path) or _is_as(work_fd, path, before.get(path))
            ]  # fmt: skip
        # A path whose folder the user has replaced by a file cannot follow.
        there = {above for path in wanted for above in parents(path)} - set(wanted)
        taken = {path for path in there if kind_at(work_fd, path) not in ("", "dir")}
        wanted = [path for path in wanted if not is_below(path, taken)]

        def edited(path: str) -> bool:
            """Whether it was saved since the comparison: writing a tree takes time."""
            return path in seen and _signature(work_fd, path) not in (None, seen[path])

        junk = _in_the_way(work_fd, wanted, before, after, is_junk)
        restore(held, [*wanted, *junk], folder, root, recall, edited)


def _in_the_way(
    work_fd: int, wanted: Collection[str], before: dict[str, BaseEntry],
    after: dict[str, BaseEntry], is_junk: Callable[[str], bool],
) -> list[str]:  # fmt: skip
    """Files that are never packed and are removed with their folder."""
    gone = {path for path in wanted if path in before and before[path].is_dir}
    junk = []
    for found in scan(work_fd) if gone else ():
        above = [path for path in parents(found.path) if path in gone]
        goes = is_litter(found.path) or any(path in after for path in above)
        if above and goes and found.path not in before and is_junk(found.path):
            junk.append(found.path)
    return junk


def is_litter(path: str) -> bool:
    """Whether a file that is never packed is removed with its folder."""
    name = path.rpartition("/")[2]
    return any(fnmatch.fnmatchcase(name, each) for each in _LITTER)


def _signature(work_fd: int, path: str) -> Signature | None:
    """The signature of a file; None if there is no file."""
    status = status_at(work_fd, path)
    return Signature.of(status) if status is not None and stat.S_ISREG(status.st_mode) else None


def _content(entry: BaseEntry | None) -> tuple[bool, str] | None:
    return None if entry is None else (entry.is_dir, entry.source_digest)


def _is_as(work_fd: int, path: str, entry: BaseEntry | None) -> bool:
    kind = kind_at(work_fd, path)
    if entry is None or not kind:
        return entry is None and not kind
    if entry.is_dir or kind != "file":
        return entry.is_dir and kind == "dir"
    return work_digest(work_fd, path, entry.signature, entry.source_digest) == entry.source_digest
