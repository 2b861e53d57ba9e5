"""Removing folders of ours, whatever was left in them and whoever changes them meanwhile."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path

from romfsfs.system.files import opened
from romfsfs.system.private import trusted_users


def remove_folder(path: Path) -> None:
    """Remove a folder of ours with all that is in it; nothing if it does not exist. OSError.

    `shutil.rmtree` recurses, cannot name what lies deeper than PATH_MAX, and is stopped by a folder
    that its owner may not enter or write to: a user or a tool can leave all three. So inner folders
    are moved up until none holds another. A link is removed, not its target.

    All work is relative to descriptors: a link that is swapped in meanwhile raises OSError and is
    not followed. PermissionError for a folder of another user (`trusted_users`).
    """
    if path.parent.exists():
        # O_PATH: it may not be readable.
        with opened(path.parent, getattr(os, "O_PATH", 0) | os.O_DIRECTORY) as parent:
            _remove_folder(parent, path.name)


def _remove_folder(parent: int, name: str) -> None:
    try:
        if not stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
            os.unlink(name, dir_fd=parent)
            return
    except FileNotFoundError:
        return
    root = _entered(parent, name)
    try:
        if os.fstat(root).st_uid not in trusted_users():
            raise PermissionError(errno.EPERM, "the folder belongs to another user", name)
        _empty(root)
    finally:
        os.close(root)
    os.rmdir(name, dir_fd=parent)


def _empty(root: int) -> None:
    mark = os.urandom(8).hex()
    pending = ["."]
    moved = 0
    while pending:
        name = pending.pop()
        folder = _entered(root, name)
        try:
            with os.scandir(folder) as entries:
                inside = [(each.name, each.is_dir(follow_symlinks=False)) for each in entries]
            for each, is_folder in inside:
                if not is_folder:
                    os.unlink(each, dir_fd=folder)
                elif name == ".":
                    pending.append(each)
                else:
                    moved += 1
                    os.close(_entered(folder, each))  # a folder must be writable to be moved
                    os.rename(each, f"{mark}-{moved}", src_dir_fd=folder, dst_dir_fd=root)
                    pending.append(f"{mark}-{moved}")
        finally:
            os.close(folder)
        if name != ".":
            os.rmdir(name, dir_fd=root)


def _entered(parent: int, name: str) -> int:
    """Open a folder, and give its owner all rights (0700). OSError if it is a link by now."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(name, flags, dir_fd=parent)
    except PermissionError:  # its mode forbids its owner, who is not root and alone in `parent`
        os.chmod(name, 0o700, dir_fd=parent)
        fd = os.open(name, flags, dir_fd=parent)
    with contextlib.suppress(PermissionError):  # another user's, which can go if it is empty
        os.fchmod(fd, 0o700)
    return fd


def discard_folder(path: Path) -> None:
    """`remove_folder`, as far as possible: errors are ignored."""
    with contextlib.suppress(OSError):
        remove_folder(path)
