"""What is in a work tree and never packed: a `.git`, an editor's backup, a model's source notes.

The image does not hold it, so a work tree is all there is of it: it stays when the edits go, and
follows when the tree is made anew from an image that changed elsewhere.
"""

from __future__ import annotations

import os
from pathlib import Path

from romfsfs.convert.romfs_toml import NAME as OPTIONS_NAME
from romfsfs.errors import RomfsError, shell_word
from romfsfs.session.plan.shadow import Change
from romfsfs.session.plan.status import Status
from romfsfs.session.tree.extraction import copy_range
from romfsfs.session.tree.restore import opened
from romfsfs.session.tree.worktree import Climber, kind_at, open_file

_LOOK_INTO = os.R_OK | os.X_OK


def ignored(status: Status) -> list[str]:
    """Paths that the user made and that are never packed, folders before what they hold."""
    return [
        entry.path
        for entry in status.entries
        if entry.change is Change.IGNORED and (not entry.note or entry.path == OPTIONS_NAME)
    ]


def carry(paths: list[str], old: Path, new: Path) -> None:
    """Put these files and folders of one tree into another, which has none of them.

    Files are shared (hard links), where the file system can: they keep modes, times and numbers.
    What the other tree has a file or folder for already is left out.
    """
    with opened(old) as old_fd, opened(new) as new_fd:
        folders = []
        for path in paths:
            if kind_at(new_fd, path):
                continue
            kind = kind_at(old_fd, path)
            folder, _, name = path.rpartition("/")
            if not _made(new_fd, folder):
                continue
            with Climber(old_fd) as source, Climber(new_fd) as target:
                source_fd, target_fd = source.enter(folder), target.enter(folder)
                if kind == "dir":
                    _refuse_closed(old / path, os.access(name, _LOOK_INTO, dir_fd=source_fd))
                    os.mkdir(name, 0o755, dir_fd=target_fd)
                    folders.append(path)
                elif kind == "file":
                    _share(name, source_fd, target_fd)
        for path in reversed(folders):  # last: what is put into a folder changes its time
            folder, _, name = path.rpartition("/")
            with Climber(old_fd) as source, Climber(new_fd) as target:
                found = os.stat(name, dir_fd=source.enter(folder))
                target_fd = target.enter(folder)
                os.chmod(name, found.st_mode & 0o7777, dir_fd=target_fd)
                os.utime(name, ns=(found.st_atime_ns, found.st_mtime_ns), dir_fd=target_fd)


def _refuse_closed(folder: Path, is_open: bool) -> None:
    """What is in it could not follow, and the tree that has it goes."""
    if not is_open:
        raise RomfsError(
            "a folder that is never packed may not be read, and what is in it would be lost",
            where=str(folder),
            next_step=f"let it be read: chmod u+rwx {shell_word(folder)}",
        )


def _made(root_fd: int, folder: str) -> bool:
    """Whether there is this folder, made if need be; False where a file is in its place."""
    parts = folder.split("/") if folder else []
    for count in range(1, len(parts) + 1):
        path = "/".join(parts[:count])
        kind = kind_at(root_fd, path)
        if kind == "":
            above, _, name = path.rpartition("/")
            with Climber(root_fd) as climber:
                os.mkdir(name, 0o755, dir_fd=climber.enter(above))
        elif kind != "dir":
            return False
    return True


def _share(name: str, source_fd: int, target_fd: int) -> None:
    try:
        os.link(name, name, src_dir_fd=source_fd, dst_dir_fd=target_fd)
    except OSError:  # no links here: FAT, some network file systems
        fd = open_file(source_fd, name)
        try:
            found = os.fstat(fd)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
            copy = open_file(target_fd, name, flags, found.st_mode & 0o7777)
            try:
                copy_range(fd, 0, found.st_size, copy)
                os.utime(copy, ns=(found.st_atime_ns, found.st_mtime_ns))
            finally:
                os.close(copy)
        finally:
            os.close(fd)
