"""From a plan to a verified image file."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import BinaryIO, NamedTuple

from romfsfs.errors import RomfsError, VerifyError
from romfsfs.image.check import check_image
from romfsfs.image.layout import Layout
from romfsfs.image.writer import Data, DataChanged, write_image
from romfsfs.session.keep.base_image import BaseImage
from romfsfs.session.plan.plan import Plan
from romfsfs.session.plan.stored import InBase, open_stored
from romfsfs.system.beside import Beside
from romfsfs.system.files import CHUNK, Progress, digest_fd, no_progress


class Encoded(NamedTuple):
    """An image file that was written and parsed back. Sizes in bytes, slack included in `size`."""

    digest: str
    size: int
    image_size: int


class TreeChanged(RomfsError):
    """A file was edited or removed while it was being stored: look at the tree again."""

    def __init__(self, what: str, where: str) -> None:
        super().__init__(what, where=where, next_step="try again when it is saved")


class StoredFiles:
    """Opens the stored bytes of a plan's files. held: None where nothing comes from a base."""

    def __init__(self, plan: Plan, held: BaseImage | None, work_fd: int) -> None:
        self._plan = plan
        self._held = held
        self._work_fd = work_fd

    def open(self, path: str) -> Data:
        """Where the bytes of a file of the plan are. TreeChanged if it is gone since."""
        location = self._plan.files[path].location
        if isinstance(location, InBase) and self._held is not None:
            return Data(self._held.fd, self._held.extents[location.path].offset)
        if location is not None:
            with contextlib.suppress(FileNotFoundError):
                return Data(open_stored(location, self._work_fd, None)[0], owned=True)
        raise TreeChanged("a file is gone since it was planned", where=path)

    @property
    def base_fd(self) -> int | None:
        """The image that a stable layout keeps parts of."""
        return None if self._held is None else self._held.fd

    def changed(self) -> bool:
        """Whether any file is not what the plan says any more."""
        for path, entry in self._plan.files.items():
            if isinstance(entry.location, InBase):
                continue
            try:
                source = self.open(path)
            except TreeChanged:
                return True
            try:
                if digest_fd(source.fd) != entry.digest:
                    return True
            finally:
                os.close(source.fd)
        return False


def encode_plan(
    plan: Plan,
    layout: Layout,
    sources: StoredFiles,
    file: BinaryIO,
    slack: Callable[[BinaryIO], None] | None = None,
    progress: Progress = no_progress,
) -> Encoded:
    """Write the image to an empty file, parse it back and compare all of it.

    Whoever gives the file its name syncs it (`SessionFolder.place`).
    slack: writes what follows the image in the file (a partition dump keeps its length).
    TreeChanged when files were edited meanwhile; VerifyError when what was written is not
    what was planned and they were not.
    """
    fd = file.fileno()
    try:
        write_image(layout, file, sources.open, progress, sources.base_fd)
    except DataChanged as error:
        raise TreeChanged(error.what, where=error.where) from error
    file.flush()
    # The disk writes while the processors compare.
    syncing: Beside[None] = Beside([lambda _: os.fsync(fd)])
    hashing = Beside([lambda _: "" if slack else digest_fd(fd)])
    with syncing, hashing:
        digests = {entry.path: entry.digest for entry in plan.files.values()}
        try:
            check_image(fd, layout, digests, plan.rules, progress)
        except VerifyError as error:
            if sources.changed():
                raise TreeChanged("a file was edited while it was stored", error.where) from error
            raise
        syncing.result(0)
        digest = hashing.result(0)
    if slack is not None:
        slack(file)
        file.flush()
        digest = digest_fd(fd)
    return Encoded(digest, os.fstat(fd).st_size, layout.size)


def keep_slack(held: BaseImage, image_size: int, drop: bool) -> Callable[[BinaryIO], None] | None:
    """What to append to a new image so that a partition dump stays one (`trailing_problem`).

    drop: leave out data that is unknown where the new image would lie over it.
    """
    base = held.base
    fill = held.trailing_fill
    if base.trailing == 0 or (fill is None and image_size > base.image_size and drop):
        return None

    def append(out: BinaryIO) -> None:
        out.seek(0, os.SEEK_END)
        if fill is not None:
            _fill(out, fill, base.size)
            return
        _fill(out, 0xFF, base.image_size)
        offset = base.image_size
        while data := os.pread(held.fd, CHUNK, offset):
            out.write(data)
            offset += len(data)

    return append


def _fill(out: BinaryIO, byte: int, until: int) -> None:
    left = until - out.tell()
    while left > 0:
        count = min(left, CHUNK)
        out.write(bytes([byte]) * count)
        left -= count
