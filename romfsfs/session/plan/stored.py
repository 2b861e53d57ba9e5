"""Where the bytes of a stored file are, and the one way to open them."""

import os
from pathlib import Path
from typing import NamedTuple

from romfsfs.session.keep.base_image import BaseImage
from romfsfs.session.tree.worktree import open_file


class InBase(NamedTuple):
    """The bytes lie in `base.img` at this offset."""

    path: str


class InWork(NamedTuple):
    """The bytes are the work file itself."""

    path: str


class InCache(NamedTuple):
    """The bytes are a converter's artifact."""

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
    if isinstance(stored, InCache):
        fd = os.open(stored.file, os.O_RDONLY | os.O_CLOEXEC)
    else:
        assert work_fd is not None
        fd = open_file(work_fd, stored.path)
    return fd, 0, os.fstat(fd).st_size
