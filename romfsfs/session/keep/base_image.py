"""The base: `base.json`, and the image that it names by its digest.

The base changes at one moment, when `base.json` is replaced. Its image is in the history before
that, under its digest, and images are never written to. So another process (`status` while a commit
runs) sees the old base or the new one, each with its own image.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Mapping
from dataclasses import replace

from romfsfs.errors import RomfsError
from romfsfs.image.model import Extent, FileNode, walk
from romfsfs.image.rules import AlignmentRules
from romfsfs.session.keep.folder import SessionFolder
from romfsfs.session.keep.images import parse_fd
from romfsfs.session.keep.state import Base, SessionInfo, dump, save
from romfsfs.system.copying import fill_byte
from romfsfs.system.files import digest_fd, named

#: Tries: between reading `base.json` and opening the image, a commit may replace and trim both.
_LOOKS = 3


class BaseImage:
    """A base and the image it describes, held open: a commit may replace both meanwhile.

    fd: for `pread`; closed when the object is collected. May be used from any thread.
    """

    def __init__(self, base: Base, fd: int) -> None:
        self.base = base
        self.fd = fd
        self._close = weakref.finalize(self, os.close, fd)
        self._extents: Mapping[str, Extent] | None = None
        self._misaligned: tuple[AlignmentRules, list[tuple[str, int, int]]] | None = None
        self._fill: int | None = -1
        self._mutex = threading.Lock()

    @property
    def extents(self) -> Mapping[str, Extent]:
        """Offset and size in bytes of each file's data in the image. ImageFormatError, OSError."""
        with self._mutex:
            if self._extents is None:
                image = parse_fd(self.fd, "the base's image")
                self._extents = {
                    path: node.extent for path, node in walk(image) if isinstance(node, FileNode)
                }
            return self._extents

    def misaligned(self, rules: AlignmentRules) -> list[tuple[str, int, int]]:
        """(path, offset, required alignment) in bytes of each file whose data breaks `rules`."""
        if self._misaligned is None or self._misaligned[0] != rules:
            wrong = [
                (path, extent.offset, alignment)
                for path, extent in self.extents.items()
                if extent.size and extent.offset % (alignment := rules.for_path(path))
            ]
            self._misaligned = rules, wrong
        return self._misaligned[1]

    @property
    def trailing_fill(self) -> int | None:
        """The one byte that fills the file after the image; None: other data is there, or none."""
        with self._mutex:
            if self._fill == -1:
                self._fill = fill_byte(self.fd, self.base.image_size)
            return self._fill


def image_id(status: os.stat_result) -> tuple[int, int, int]:
    """An image file's identity: unchanged by a rename, changed by a write."""
    return status.st_ino, status.st_size, status.st_mtime_ns


def open_base(folder: SessionFolder, info: SessionInfo) -> BaseImage:
    """The session's base, its image open. RomfsError if there is none yet, or it is damaged."""
    for look in range(_LOOKS):
        try:
            base = Base.load(folder.base)
        except FileNotFoundError:
            raise RomfsError(
                "its image has not been read yet",
                where=info.name,
                next_step=f"romfsfs mount {info.argument} DIR",
            ) from None
        try:
            fd = os.open(folder.image(base.digest), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            if look < _LOOKS - 1:
                continue
            raise _damaged(folder, base) from None
        # The digest decides where a session folder was copied or restored: it has other inodes.
        held = BaseImage(base, fd)
        with named(folder.image(base.digest)):
            if image_id(os.fstat(fd)) == base.image_id or digest_fd(fd) == base.digest:
                return held
        break
    raise _damaged(folder, base)


def _damaged(folder: SessionFolder, base: Base) -> RomfsError:
    return RomfsError(
        "the session's copy of the image is damaged",
        where=str(folder.image(base.digest)),
        next_step=f"your files are in {folder.work}: copy them out, then romfsfs umount --discard "
        "or remove the session's folder",
    )


def switch(folder: SessionFolder, base: Base) -> None:
    """Make this the base, durably. Its image is already in the history. OSError."""
    identity = image_id(os.stat(folder.image(base.digest)))
    save(folder.base, dump(replace(base, image_id=identity)))
