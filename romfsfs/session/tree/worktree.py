"""The work tree on disk: scanning it, and opening and removing files in it.

Everything works relative to directory descriptors and climbs with `..`, so paths longer than
PATH_MAX and trees deeper than the limit of open files work, and no symbolic link leads out of the
tree (the mount refuses links; one placed by hand is reported, never followed).
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

from romfsfs.session.keep.state import Signature

_DIR_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NO_ACCESS_TIME = getattr(os, "O_NOATIME", 0)


class WorkFile(NamedTuple):
    """A file or folder of the work tree.

    kind: 'file', 'dir', 'closed' (a folder without read permission) or 'other' (a symbolic link,
    a device).
    """

    path: str
    kind: str
    signature: Signature
    mode: int


def scan(root_fd: int) -> list[WorkFile]:
    """Every file and folder below `root_fd`, parents first, siblings in code point order."""
    return [work for found in scan_folders(root_fd).values() for work in found or ()]


def scan_folders(
    root_fd: int, known: Mapping[str, Sequence[str]] | None = None
) -> dict[str, list[WorkFile] | None]:
    """As `scan`, by the folder that the entries are in ('' is the root), parents first. OSError.

    known: folders that need not be listed, each with the folders in it; their result is None."""
    found: dict[str, list[WorkFile] | None] = {}
    closed = set()
    with Climber(root_fd) as climber:
        pending = [""]
        while pending:
            folder = pending.pop()
            inside = known.get(folder) if known is not None else None
            if inside is not None:
                found[folder] = None
                pending.extend(reversed(inside))
                continue
            try:
                listed = _list(climber.enter(folder))
            except (FileNotFoundError, NotADirectoryError):
                continue  # removed since it was listed
            except PermissionError:  # no permission to list or to enter it
                closed.add(folder)
                continue
            prefix = folder + "/" if folder else ""
            found[folder] = here = [
                WorkFile(prefix + name, _kind(status), Signature.of(status), status.st_mode)
                for name, status in listed
            ]
            pending.extend(work.path for work in reversed(here) if work.kind == "dir")
    for path in closed:
        beside = found.get(path.rpartition("/")[0]) or []
        beside[:] = [each._replace(kind="closed") if each.path == path else each for each in beside]
    return found


def _kind(status: os.stat_result) -> str:
    if stat.S_ISDIR(status.st_mode):
        return "dir"
    return "file" if stat.S_ISREG(status.st_mode) else "other"


def _list(fd: int) -> list[tuple[str, os.stat_result]]:
    with os.scandir(fd) as entries:
        listed = []
        for entry in entries:
            try:
                listed.append((entry.name, entry.stat(follow_symlinks=False)))
            except FileNotFoundError:
                continue  # removed while listing
    listed.sort(key=lambda item: item[0])
    return listed


class Climber:
    """One directory descriptor that moves through a tree of any depth. One thread at a time."""

    def __init__(self, root_fd: int) -> None:
        self._root_fd = root_fd
        self._fd = _open_unnoticed(".", _DIR_FLAGS, root_fd)
        self._folder: str | None = ""
        self._at: list[str] = []
        self._known = [os.fstat(self._fd)]  # the root, and each folder of `_at`

    def __enter__(self) -> Climber:
        return self

    def __exit__(self, *exc: object) -> None:
        os.close(self._fd)

    def enter(self, folder: str) -> int:
        """Move to a folder ('' is the root); its descriptor, valid until the next move. OSError."""
        if folder == self._folder:
            return self._fd
        self._folder = None  # until the move is complete: it may fail half way
        parts = folder.split("/") if folder else []
        common = 0
        for mine, theirs in zip(self._at, parts, strict=False):
            if mine != theirs:
                break
            common += 1
        if common < len(self._at):
            self._climb(common)
        for part in parts[len(self._at) :]:
            self._step(part)
            self._at.append(part)
            self._known.append(os.fstat(self._fd))
        self._folder = folder
        return self._fd

    def _climb(self, depth: int) -> None:
        """Climb to the folder at this depth, or return to the root if `..` leads elsewhere.

        After somebody moved the current folder, `..` may lead beside the path, or above the tree.
        """
        try:
            while len(self._at) > depth:
                self._step("..")
                self._at.pop()
                self._known.pop()
            if os.path.samestat(os.fstat(self._fd), self._known[-1]):
                return
        except (FileNotFoundError, PermissionError):  # the folder was removed, or its mode changed
            pass
        os.close(self._fd)
        self._fd = _open_unnoticed(".", _DIR_FLAGS, self._root_fd)
        self._at, self._known = [], self._known[:1]

    def _step(self, name: str) -> None:
        fd = _open_unnoticed(name, _DIR_FLAGS, self._fd)
        os.close(self._fd)
        self._fd = fd


def open_file(root_fd: int, path: str) -> int:
    """Open a file below `root_fd` to read, never a symbolic link. OSError as `os.open`, but
    FileNotFoundError also where a file has taken the place of a folder above."""
    # O_NONBLOCK: a fifo that someone put there must not block us.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        if len(path) < 1000:
            return _open_unnoticed(path, flags, root_fd)
        folder, _, name = path.rpartition("/")
        with Climber(root_fd) as climber:
            return _open_unnoticed(name, flags, climber.enter(folder))
    except NotADirectoryError as error:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path) from error


def _open_unnoticed(name: str, flags: int, dir_fd: int) -> int:
    """`os.open` without changing the access time: our reads are not the user's."""
    try:
        return os.open(name, flags | _NO_ACCESS_TIME, dir_fd=dir_fd)
    except PermissionError:  # O_NOATIME is for the owner only; some file systems refuse it to all
        return os.open(name, flags, dir_fd=dir_fd)


def status_at(root_fd: int, path: str) -> os.stat_result | None:
    """The `stat` of what is at a path, a link not followed; None if nothing is. OSError."""
    folder, _, name = path.rpartition("/")
    with suppress(FileNotFoundError, NotADirectoryError), Climber(root_fd) as climber:
        return os.stat(name, dir_fd=climber.enter(folder), follow_symlinks=False)
    return None


def kind_at(root_fd: int, path: str) -> str:
    """'file', 'dir', 'other', or '' if nothing is there. OSError."""
    status = status_at(root_fd, path)
    return "" if status is None else _kind(status)


def remove_file(root_fd: int, path: str) -> None:
    """Remove a file, a link or the like, if there is one. OSError, for a folder too."""
    folder, _, name = path.rpartition("/")
    with suppress(FileNotFoundError, NotADirectoryError), Climber(root_fd) as climber:
        os.unlink(name, dir_fd=climber.enter(folder))
