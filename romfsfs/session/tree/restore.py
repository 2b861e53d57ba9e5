"""Restoring files of the base in the work tree.

While the session is mounted, files are written through the mountpoint, so that the kernel's caches
of the mount stay valid; otherwise, or if it is unmounted meanwhile, into `work/`. Everything may be
repeated after a crash.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

from romfsfs.errors import RomfsError
from romfsfs.session.keep.base_image import BaseImage
from romfsfs.session.keep.folder import SessionFolder
from romfsfs.session.keep.recall import Recall
from romfsfs.session.keep.state import Base, BaseEntry, Signature
from romfsfs.session.keep.steps import reached
from romfsfs.session.tree.extraction import Item, extract
from romfsfs.session.tree.worktree import (
    Climber,
    WorkFile,
    kind_at,
    open_file,
    remove_file,
    scan,
)
from romfsfs.system.files import digest_fd, opened_folder, sync_paths

log = logging.getLogger(__name__)


#: errno when a file is missing, is no regular file, or may not be read.
_NOT_TO_BE_READ = frozenset(
    {errno.ENOENT, errno.ELOOP, errno.EACCES, errno.EPERM, errno.ENXIO, errno.EISDIR}
)

#: errno of a mount whose daemon has ended, and of one that is read-only.
_NO_WAY = frozenset({errno.ENOTCONN, errno.ECONNABORTED, errno.EROFS})


def change_tree(work: Path, root: Path, change: Callable[[int], None]) -> None:
    """Change a tree through its mountpoint `root`, or in `work` if not mounted or read-only.

    change: is given a descriptor of the tree's root. The mount can end at any moment; then it is
    called again, with a descriptor of `work`. Raises OSError, and what `change` raises.
    """
    try:
        with opened_folder(root) as root_fd:
            if root == work or _is_mount_of(root_fd, work):
                change(root_fd)
                return
    except (FileNotFoundError, NotADirectoryError):
        if os.path.isdir(root):
            raise  # the mountpoint exists: something in it is missing
    except (OSError, RomfsError) as error:
        cause = error if isinstance(error, OSError) else error.__cause__
        if not isinstance(cause, OSError) or cause.errno not in _NO_WAY:
            raise
    with opened_folder(work) as work_fd:
        change(work_fd)


def _is_mount_of(root_fd: int, work: Path) -> bool:
    """Whether this is the session's mount: not the folder below it, nor another mount over it."""
    try:
        os.stat(".romfs/ctl", dir_fd=root_fd)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return os.fstat(root_fd).st_ino == os.stat(work).st_ino  # a mount passes inode numbers through


def restore(
    held: BaseImage,
    paths: Collection[str],
    folder: SessionFolder,
    root: Path | None,
    recall: Recall,
    edited: Callable[[str], bool] = lambda path: False,
) -> None:
    """Make these paths of the tree as the base has them; remove those that it lacks. Durable.

    After a crash at any point, a file is as it was or as the base has it. Folders are removed if
    nothing is left in them, and created where a restored file needs them. root: the mountpoint, to
    write through it; None if not mounted. edited: asked just before a path is removed or a file
    replaced; True leaves it. RomfsError, OSError.
    """
    wanted = set(paths)
    items = [shown_item(entry, held, recall) for entry in _with_parents(held.base, wanted)]
    files = {item.path for item in items if item.source is not None and item.path in wanted}

    def change(root_fd: int) -> None:
        over = {path for path in files if kind_at(root_fd, path) == "file"}
        for path in sorted(wanted - over, key=lambda path: (-path.count("/"), path)):
            if not edited(path):
                _remove(root_fd, path)
        reached("revert-removed")
        # What is still there stays: a folder that is not empty, an edit.
        _put([item for item in items if item.path in over or not kind_at(root_fd, item.path)],
             folder, root_fd, edited)  # fmt: skip

    change_tree(folder.work, root or folder.work, change)
    sync_paths(folder.work, names=wanted)
    reached("revert-restored")


def _put(
    items: list[Item], folder: SessionFolder, root_fd: int, edited: Callable[[str], bool]
) -> None:
    """Write items beside their places, sync them, then rename them into place."""
    staged = []
    for number, item in enumerate(items):
        if item.source is None:
            staged.append(item)
            continue
        place, slash, _ = item.path.rpartition("/")
        staged.append(item._replace(path=f"{place}{slash}{folder.beside}{number:06x}"))
        remove_file(root_fd, staged[-1].path)  # left by a process that was killed
    moved = [pair for pair in zip(staged, items, strict=True) if pair[1].source is not None]
    try:
        extract(staged, root_fd)
        sync_paths(folder.work, files=[beside.path for beside, _ in moved])
        reached("revert-staged")
        with Climber(root_fd) as climber:
            while moved:
                beside, item = moved[-1]
                if edited(item.path):
                    remove_file(root_fd, beside.path)
                    moved.pop()
                    continue
                fd = climber.enter(item.path.rpartition("/")[0])
                name, final = (path.rpartition("/")[2] for path in (beside.path, item.path))
                os.rename(name, final, src_dir_fd=fd, dst_dir_fd=fd)
                moved.pop()
    finally:
        for beside, _ in moved:
            with contextlib.suppress(OSError):
                remove_file(root_fd, beside.path)


def remove_unfinished(held: BaseImage, folder: SessionFolder) -> None:
    """Remove files that `restore` had not yet renamed into place when it was killed. OSError."""
    known = {entry.source for entry in held.base.entries}
    with opened_folder(folder.work) as work_fd:
        for work in scan(work_fd):
            name = work.path.rpartition("/")[2]
            if name.startswith(folder.beside) and work.path not in known:
                remove_file(work_fd, work.path)


def mend_torn(held: BaseImage, folder: SessionFolder, recall: Recall) -> None:
    """Restore extracted files that had not reached the disk before a power cut (`settling`).

    Such a file is missing; or its content differs and has not grown, and its modification time is
    still that of the extraction: no edit looks like that. Raises as `restore`.
    """
    with opened_folder(folder.work) as work_fd:
        there = {work.path: work for work in scan(work_fd)}
        # Nothing is put back below what the user put in a folder's place, or closed.
        others = {path for path, work in there.items() if work.kind != "dir"}
        torn = [
            entry.source
            for entry in held.base.entries
            if not is_below(entry.source, others)
            and (entry.source not in there or _is_torn(work_fd, there[entry.source], entry))
        ]
    if torn:
        log.warning("lost in a power cut, restored: %s", ", ".join(torn))
        restore(held, torn, folder, None, recall)


def _is_torn(work_fd: int, work: WorkFile, entry: BaseEntry) -> bool:
    was = entry.signature
    if was is None or work.kind != "file" or work.signature.mtime_ns != was.mtime_ns:
        return False
    return (
        work.signature.size <= was.size and work_digest(work_fd, work.path) != entry.source_digest
    )


def _with_parents(base: Base, wanted: Collection[str]) -> list[BaseEntry]:
    """The base's entries for these paths and the folders above them, in the base's order."""
    needed = set(wanted)
    for entry in base.entries:
        if entry.source in wanted:
            needed.update(parents(entry.source))
    return [e for e in base.entries if e.source in wanted or (e.is_dir and e.source in needed)]


def parents(path: str) -> list[str]:
    """The folders above a path, the outermost first."""
    parts = path.split("/")[:-1]
    return ["/".join(parts[: count + 1]) for count in range(len(parts))]


def _remove(root_fd: int, path: str) -> None:
    """Remove a file, or an empty folder; a folder that is not empty stays. RomfsError."""
    folder, _, name = path.rpartition("/")
    try:
        if kind_at(root_fd, path) != "dir":
            remove_file(root_fd, path)
            return
        with Climber(root_fd) as climber:
            os.rmdir(name, dir_fd=climber.enter(folder))
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return
        raise RomfsError(
            f"cannot restore: {error.strerror}",
            where=path,
            next_step="nothing else was lost; check the disk, then repeat the command",
        ) from error


def shown_item(entry: BaseEntry, held: BaseImage, recall: Recall) -> Item:
    """What stands for a base entry in the work tree: its source if that is known, else its bytes.

    OSError if the source cannot be read."""
    if entry.is_dir:
        return Item(entry.source, None, 0, 0)
    offset, size = held.extents[entry.path]
    if entry.source_digest != entry.digest:
        source = recall.find(entry.path, entry.digest)
        if source is None:  # no longer remembered: the stored bytes are next best
            return Item(entry.path, held.fd, offset, size)
        return Item(entry.source, source.file, 0, source.file.stat().st_size)
    return Item(entry.source, held.fd, offset, size)


def is_below(path: str, folders: Collection[str]) -> bool:
    """Whether a path lies in one of these folders, at any depth."""
    return any(parent in folders for parent in parents(path))


def work_digest(
    work_fd: int, path: str, signature: Signature | None = None, known: str = ""
) -> str | None:
    """The digest of a work file; None if it is missing, no regular file, or may not be read.

    known: returned unread if the file has this signature. Other OSErrors are raised: a failing disk
    says nothing about the file."""
    try:
        fd = open_file(work_fd, path)
        try:
            if signature is not None and Signature.of(os.fstat(fd)) == signature:
                return known
            return digest_fd(fd)
        finally:
            os.close(fd)
    except OSError as error:
        if error.errno in _NOT_TO_BE_READ:
            return None
        raise


def selected(path: str, paths: Iterable[str]) -> bool:
    """Whether `path` is one of these or below one; True for any path if there are none."""
    listed = list(paths)
    return not listed or any(path == each or path.startswith(each + "/") for each in listed)
