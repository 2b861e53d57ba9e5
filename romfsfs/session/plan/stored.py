"""Where the bytes of a stored file are, and the one way to open them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from romfsfs.session.keep.base_image import BaseImage
from romfsfs.session.tree.worktree import open_file


class InBase(NamedTuple):
    """The bytes are those of this file in the base's image."""

    path: str


class InWork(NamedTuple):
    """The bytes are the work file itself."""

    path: str


class InCache(NamedTuple):
    """The bytes are a converter's artifact, in the cache."""

    file: Path


#: Where the bytes of a stored file are.
Stored = InBase | InWork | InCache


def open_stored(
    stored: Stored, work_fd: int | None, held: BaseImage | None
) -> tuple[int, int, int]:
    """A descriptor (the caller closes it), the offset and the size of stored bytes.

    work_fd: of the work tree's root; held: the base that `stored` was derived from. OSError.
    """
    if isinstance(stored, InBase):
        assert held is not None
        extent = held.extents[stored.path]
        return os.dup(held.fd), extent.offset, extent.size
    fd = open_new(stored, work_fd)
    return fd, 0, os.fstat(fd).st_size


def open_new(stored: InWork | InCache, work_fd: int | None) -> int:
    """Open stored bytes that are a file of their own. The caller closes the descriptor. OSError."""
    if isinstance(stored, InCache):
        return os.open(stored.file, os.O_RDONLY | os.O_CLOEXEC)
    assert work_fd is not None
    return open_file(work_fd, stored.path)
