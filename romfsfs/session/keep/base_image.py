"""`base.img` and `base.json`: never one without the other.

Two files cannot be replaced in one step, and another process (`status` while a commit runs) may
look at any moment. So the next base is staged first: `new.json` names the very file that will be
`base.img` (inode, size, modification time: a rename keeps them), and the rename of the image is
the one moment in which the base changes. Whoever finds a `base.img` that `base.json` does not
describe takes `new.json`; it becomes `base.json` later.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from romfsfs.errors import RomfsError
from romfsfs.image.model import Extent, FileNode, walk
from romfsfs.session.keep.images import parse_fd
from romfsfs.session.keep.state import Base, save
from romfsfs.system.files import CHUNK, digest_fd, sync_dir

#: Each look at the two files can be overtaken by one commit.
_LOOKS = 3


class BaseImage:
    """A base and the image it describes, held open: a commit may replace both meanwhile.

    fd is for `pread` and closed with the object. Any thread.
    """

    def __init__(self, base: Base, fd: int) -> None:
        self.base = base
        self.fd = fd
        self._close = weakref.finalize(self, os.close, fd)
        self._extents: Mapping[str, Extent] | None = None
        self._fill: int | None = -1
        self._mutex = threading.Lock()

    @property
    def extents(self) -> Mapping[str, Extent]:
        """Offset and size in the image of each file's data."""
        with self._mutex:
            if self._extents is None:
                image = parse_fd(self.fd, "base.img")
                self._extents = {
                    path: node.extent for path, node in walk(image) if isinstance(node, FileNode)
                }
            return self._extents

    @property
    def trailing_fill(self) -> int | None:
        """The one byte that fills the file after the image; None: other data is there."""
        with self._mutex:
            if self._fill == -1:
                self._fill = _fill_byte(self.fd, self.base.image_size)
            return self._fill


def _fill_byte(fd: int, offset: int) -> int | None:
    data = os.pread(fd, CHUNK, offset)
    first = data[:1]
    while data:
        if data.count(first) != len(data):
            return None
        offset += len(data)
        data = os.pread(fd, CHUNK, offset)
    return first[0] if first else None


def image_id(status: os.stat_result) -> tuple[int, int, int]:
    """What stays the same when an image file is renamed or linked, and differs between images."""
    return status.st_ino, status.st_size, status.st_mtime_ns


def open_base(directory: Path, name: str, source: str) -> BaseImage:
    """The session's base. RomfsError when there is none yet, or when it is damaged."""
    fd = -1
    for look in range(_LOOKS):
        try:
            base = Base.load(directory / "base.json")
            fd = os.open(directory / "base.img", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise RomfsError(
                "its image has not been read yet",
                where=name,
                next_step=f"romfsfs mount {source} DIR",
            ) from None
        found = image_id(os.fstat(fd))
        if found == base.image_id:
            return BaseImage(base, fd)
        staged = load_staged(directory)
        if staged is not None and staged.image_id == found:
            return BaseImage(staged, fd)
        if look < _LOOKS - 1:
            os.close(fd)
    # A session folder that was copied or restored from a backup has other inodes.
    if digest_fd(fd) == base.digest:
        return BaseImage(base, fd)
    os.close(fd)
    raise RomfsError(
        "the session's copy of the image is damaged",
        where=str(directory / "base.img"),
        next_step=f"your files are in {directory / 'work'}: copy them out, then "
        f"romfsfs umount --discard or remove the session's folder",
    )


def load_staged(directory: Path) -> Base | None:
    """`new.json`, None if there is none."""
    try:
        return Base.load(directory / "new.json")
    except FileNotFoundError:
        return None


def load_recorded(directory: Path) -> Base:
    """`base.json` as it is, even if `base.img` is already the next one."""
    return Base.load(directory / "base.json")


def stage(directory: Path, image: Path, base: Base) -> None:
    """Say that `image` (in the session's folder) is going to be the base."""
    save(directory / "new.json", replace(base, image_id=image_id(os.stat(image))).dump())


def switch(directory: Path, image: Path) -> None:
    """Make the staged image the base: the one moment in which the base changes."""
    os.replace(image, directory / "base.img")
    sync_dir(directory)


def record(directory: Path, base: Base, stamp: tuple[int, ...] | None) -> None:
    """Write `base.json` for the image that now is `base.img`. stamp: the target's, if trusted."""
    identity = image_id(os.stat(directory / "base.img"))
    save(directory / "base.json", replace(base, stamp=stamp, image_id=identity).dump())
