"""Extracting many files and folders into a folder."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from romfsfs.errors import RomfsError
from romfsfs.session.keep.state import Signature
from romfsfs.session.tree.worktree import Climber
from romfsfs.system.copying import copy_range
from romfsfs.system.files import CHUNK, Progress, no_progress

#: characters of a path that an error shows
_SHOWN = 300
_REMEDY = "free space or choose another state folder with $ROMFSFS_STATE_DIR"
_REMEDIES = {
    errno.ENAMETOOLONG: "file names on this machine are limited to 255 bytes, the camera's are "
    "not; romfsfs ls, cat and push still work on the image",
    errno.EEXIST: "this file system treats two names of the image as one; use a "
    "case-sensitive file system",
}


class Extracted(NamedTuple):
    """The digest and signature of a file as it was written."""

    digest: str
    signature: Signature


class Item(NamedTuple):
    """A file or folder to create. A file's content is `size` bytes of its source from `offset`.

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

    Returns a result for each item, None for a folder. Nothing is synced. RomfsError, which names
    the path, if an item cannot be written.
    """
    results: list[Extracted | None] = []
    total = sum(item.size for item in items)
    done = 0
    with Climber(root_fd) as climber:
        for count, item in enumerate(items):
            folder, _, name = item.path.rpartition("/")
            try:
                fd = climber.enter(folder)
                if item.source is None:
                    os.mkdir(name, 0o755, dir_fd=fd)
                results.append(None if item.source is None else _write_new(item, name, fd))
            except OSError as error:
                raise RomfsError(
                    f"cannot extract: {error.strerror}",
                    where=_shortened(item.path),
                    next_step=_REMEDIES.get(error.errno or 0, _REMEDY),
                ) from error
            done += item.size
            if item.size > CHUNK or count % 64 == 0:
                progress("extracting", done, total)
    return results


def _shortened(path: str) -> str:
    """A path for an error: a name in an image may be as long as the image."""
    return path if len(path) <= _SHOWN else f"{path[:_SHOWN]}..."


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
