"""The work tree on disk: scanning it, and putting an image's files into it.

Everything works relative to directory descriptors and climbs with `..`, so paths longer than
PATH_MAX and trees deeper than the limit of open files work, and no link leads out of the tree
(the mount refuses links; one placed by hand is reported, never followed).
"""

from __future__ import annotations

import hashlib
import os
import stat
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from romfsfs.errors import RomfsError
from romfsfs.files import CHUNK, Progress, no_progress
from romfsfs.session.state import Signature

#: Making a file costs about as much as writing this many bytes more; from so many on, two threads.
_FILE_COST = 64 << 10
_TWO_THREADS = 16 << 20

_DIR_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NO_ACCESS_TIME = getattr(os, "O_NOATIME", 0)


class WorkFile(NamedTuple):
    """A file or folder of the work tree.

    kind: 'file', 'dir', 'closed' (a folder that may not be read) or 'other' (a link, a device).
    """

    path: str
    kind: str
    signature: Signature
    mode: int


def scan(root_fd: int) -> list[WorkFile]:
    """Every file and folder below `root_fd`, parents first, siblings in code point order."""
    found: list[WorkFile] = []
    closed = set()
    with Climber(root_fd) as climber:
        pending = [""]
        while pending:
            folder = pending.pop()
            try:
                fd = climber.enter(folder)
            except (FileNotFoundError, NotADirectoryError):
                continue  # removed since it was listed
            except PermissionError:
                closed.add(folder)
                continue
            prefix = folder + "/" if folder else ""
            folders = []
            for name, status in _list(fd):
                path = prefix + name
                if stat.S_ISDIR(status.st_mode):
                    kind = "dir"
                    folders.append(path)
                else:
                    kind = "file" if stat.S_ISREG(status.st_mode) else "other"
                found.append(WorkFile(path, kind, Signature.of(status), status.st_mode))
            pending.extend(reversed(folders))
    if closed:
        return [each._replace(kind="closed") if each.path in closed else each for each in found]
    return found


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
    """One directory descriptor that moves through a tree, whatever its depth."""

    def __init__(self, root_fd: int) -> None:
        self._fd = _open_unnoticed(".", _DIR_FLAGS, 0, root_fd)
        self._folder = ""
        self._at: list[str] = []

    def __enter__(self) -> Climber:
        return self

    def __exit__(self, *exc: object) -> None:
        os.close(self._fd)

    def enter(self, folder: str) -> int:
        """Move to a folder ('' is the root); its descriptor, valid until the next move."""
        if folder == self._folder:
            return self._fd
        self._folder = "?"  # until we are there
        parts = folder.split("/") if folder else []
        common = 0
        for mine, theirs in zip(self._at, parts, strict=False):
            if mine != theirs:
                break
            common += 1
        while len(self._at) > common:
            self._step("..")
            self._at.pop()
        for part in parts[common:]:
            self._step(part)
            self._at.append(part)
        self._folder = folder
        return self._fd

    def _step(self, name: str) -> None:
        fd = _open_unnoticed(name, _DIR_FLAGS, 0, self._fd)
        os.close(self._fd)
        self._fd = fd


def open_file(root_fd: int, path: str, flags: int = os.O_RDONLY, mode: int = 0o644) -> int:
    """A descriptor of a file below `root_fd`; never through a link. OSError as `open`."""
    # O_NONBLOCK: a fifo that someone put there must not hold us up.
    flags |= os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    if len(path) < 1000:
        return _open_unnoticed(path, flags, mode, root_fd)
    folder, _, name = path.rpartition("/")
    with Climber(root_fd) as climber:
        return _open_unnoticed(name, flags, mode, climber.enter(folder))


def _open_unnoticed(name: str, flags: int, mode: int, dir_fd: int) -> int:
    """`open` that leaves access times alone: they are the user's, and a look at them is not his."""
    try:
        return os.open(name, flags | _NO_ACCESS_TIME, mode, dir_fd=dir_fd)
    except PermissionError:  # for the owner only, and some file systems refuse it to all
        return os.open(name, flags, mode, dir_fd=dir_fd)


class Extracted(NamedTuple):
    digest: str
    signature: Signature


class Item(NamedTuple):
    """Something to put into a tree: bytes `offset`..`offset + size` of a file, or a folder.

    source: an open descriptor, or the path of a file that is opened when its turn comes
    (thousands may not be open at once); None for a folder.
    """

    path: str
    source: int | Path | None
    offset: int
    size: int


def extract(
    items: Sequence[Item], root_fd: int, progress: Progress = no_progress
) -> list[Extracted | None]:
    """Write files and folders below `root_fd` (which has none of them yet), parents first.

    What each item became (None for a folder). RomfsError names the path where the host's file
    system cannot hold one. Two threads write where that pays: hashing and the kernel's work go on
    side by side.
    """
    results: list[Extracted | None] = [None] * len(items)
    files = []
    with Climber(root_fd) as climber:
        for number, item in enumerate(items):
            if item.source is not None:
                files.append(number)
                continue
            folder, _, name = item.path.rpartition("/")
            with _named(item):
                os.mkdir(name, 0o755, dir_fd=climber.enter(folder))
    total = sum(items[number].size for number in files)
    writers = [_Writer(items, part, results, root_fd) for part in _halves(items, files, total)]
    for writer in writers[1:]:
        writer.start()
    try:
        writers[0].write(lambda: progress("extracting", sum(w.done for w in writers), total))
    finally:
        for writer in writers:
            writer.stop = writer.stop or writers[0].error is not None
        for writer in writers[1:]:
            writer.join()
    for writer in writers:
        if writer.error is not None:
            raise writer.error
    return results


def _halves(items: Sequence[Item], files: list[int], total: int) -> list[list[int]]:
    """The files in one part, or in two that take about as long."""
    work = total + len(files) * _FILE_COST
    if work < _TWO_THREADS:
        return [files]
    done = 0
    for cut, number in enumerate(files):
        done += items[number].size + _FILE_COST
        if done * 2 >= work:
            return [files[: cut + 1], files[cut + 1 :]]
    return [files]


class _Writer(threading.Thread):
    """Writes some of the items; `error` is what ended it early."""

    def __init__(
        self, items: Sequence[Item], numbers: list[int], results: list[Extracted | None], root: int
    ) -> None:
        super().__init__(daemon=True)
        self.items = items
        self.numbers = numbers
        self.results = results
        self.root_fd = root
        self.done = 0
        self.stop = False
        self.error: RomfsError | None = None

    def run(self) -> None:
        self.write(lambda: None)

    def write(self, report: Callable[[], None]) -> None:
        try:
            with Climber(self.root_fd) as climber:
                for count, number in enumerate(self.numbers):
                    if self.stop:
                        return
                    item = self.items[number]
                    folder, _, name = item.path.rpartition("/")
                    with _named(item):
                        self.results[number] = _write_new(item, name, climber.enter(folder))
                    self.done += item.size
                    if item.size > CHUNK or count % 64 == 0:
                        report()
        except RomfsError as error:
            self.error = error


class _named:
    """Says of an OSError in its block which item it was."""

    __slots__ = ("item",)

    def __init__(self, item: Item) -> None:
        self.item = item

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if isinstance(error, OSError):
            raise RomfsError(
                f"cannot extract: {error.strerror}",
                where=self.item.path,
                next_step="free space or choose another state folder with $ROMFSFS_STATE_DIR",
            ) from error


_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def _write_new(item: Item, name: str, folder_fd: int) -> Extracted:
    source, offset, size = item.source, item.offset, item.size
    fd = os.open(name, _NEW, 0o644, dir_fd=folder_fd)
    try:
        if isinstance(source, int):
            digest = copy_range(source, offset, size, fd)
        else:
            with open(source or "", "rb") as file:
                digest = copy_range(file.fileno(), offset, size, fd)
        return Extracted(digest, Signature.of(os.fstat(fd)))
    finally:
        os.close(fd)


def copy_range(source: int, offset: int, size: int, target: int) -> str:
    """Append `size` bytes of `source` at `offset` to `target`; the digest of what was copied."""
    if 0 < size <= CHUNK:  # nearly every file: no loop, and all in one call each
        data = os.pread(source, size, offset)
        if len(data) == size:
            write_all(target, data)
            return hashlib.sha256(data).hexdigest()
    digest = hashlib.sha256()
    end = offset + size
    while offset < end:
        data = os.pread(source, min(CHUNK, end - offset), offset)
        if not data:
            raise OSError(5, "the source ended early")
        digest.update(data)
        write_all(target, data)
        offset += len(data)
    return digest.hexdigest()


def write_all(fd: int, data: bytes) -> None:
    """All of `data`, whatever `write` takes at a time."""
    written = os.write(fd, data)
    while written < len(data):
        written += os.write(fd, memoryview(data)[written:])


def kind_at(root_fd: int, path: str) -> str:
    """'file', 'dir', 'other', or '' where nothing is."""
    folder, _, name = path.rpartition("/")
    try:
        with Climber(root_fd) as climber:
            status = os.stat(name, dir_fd=climber.enter(folder), follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return ""
    if stat.S_ISDIR(status.st_mode):
        return "dir"
    return "file" if stat.S_ISREG(status.st_mode) else "other"


def remove_tree(root_fd: int, path: str) -> None:
    """Remove a file, or a folder with all that is in it; nothing if it is not there."""
    kind = kind_at(root_fd, path)
    if not kind:
        return
    folder, _, name = path.rpartition("/")
    with Climber(root_fd) as climber:
        if kind == "dir":
            empty(climber.enter(path))
            os.rmdir(name, dir_fd=climber.enter(folder))
        else:
            os.unlink(name, dir_fd=climber.enter(folder))


def empty(folder_fd: int) -> None:
    """Remove all that is in a folder, however deep."""
    inside = scan(folder_fd)
    with Climber(folder_fd) as climber:
        for entry in reversed(inside):
            folder, _, name = entry.path.rpartition("/")
            fd = climber.enter(folder)
            (os.unlink if entry.kind in ("file", "other") else os.rmdir)(name, dir_fd=fd)


def remove_folder(path: Path) -> None:
    """Remove a folder of a session's, however deep; nothing if it is not there.

    `shutil.rmtree` recurses, and a tree may be thousands of folders deep.
    """
    try:
        fd = os.open(path, _DIR_FLAGS)
    except FileNotFoundError:
        return
    try:
        empty(fd)
    finally:
        os.close(fd)
    path.rmdir()
