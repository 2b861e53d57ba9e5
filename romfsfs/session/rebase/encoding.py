"""From a plan to a verified image file."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import BinaryIO, NamedTuple

from romfsfs.errors import RomfsError, VerifyError
from romfsfs.image.check import check_image
from romfsfs.image.layout import Layout
from romfsfs.image.writer import LARGE, Data, DataChanged, write_image
from romfsfs.session.keep.base_image import BaseImage
from romfsfs.session.plan.plan import Plan
from romfsfs.session.plan.stored import InBase, open_new
from romfsfs.session.tree.restore import work_digest
from romfsfs.system.beside import Beside, Cancel
from romfsfs.system.copying import fill
from romfsfs.system.files import CHUNK, Progress, no_progress

#: Seconds within which the hashing thread notices that it is cancelled.
_TICK = 0.05


class Encoded(NamedTuple):
    """An image file that was written and parsed back. digest: of the whole file, "" if none was
    wanted. Sizes in bytes; `size` includes the slack."""

    digest: str
    size: int
    image_size: int


class TreeChanged(RomfsError):
    """A file was edited or removed while it was being stored: look at the tree again."""

    def __init__(self, what: str, where: str) -> None:
        super().__init__(what, where=where, next_step="try again when it is saved")


class StoredFiles:
    """Opens the stored bytes of a plan's files. held: the base, None if nothing comes from one."""

    def __init__(self, plan: Plan, held: BaseImage | None, work_fd: int) -> None:
        self._plan = plan
        self._held = held
        self._work_fd = work_fd

    def open(self, path: str) -> Data:
        """Open the bytes of a file of the plan. TreeChanged if it is gone since; RomfsError if it
        cannot be read."""
        location = self._plan.files[path].location
        if isinstance(location, InBase):
            assert self._held is not None
            return Data(self._held.fd, self._held.extents[location.path].offset)
        if location is not None:
            try:
                return Data(open_new(location, self._work_fd), owned=True)
            except FileNotFoundError:
                pass
            except OSError as error:
                raise RomfsError(
                    f"cannot be read: {error.strerror}", where=path,
                    next_step="nothing was written; check its permissions: ls -l",
                ) from error  # fmt: skip
        raise TreeChanged("a file is gone since it was planned", where=path)

    def digests(self) -> dict[str, str]:
        """The known digests by path, without large files of the base: comparing those with the base
        proves as much as a digest, in a fraction of the time."""
        return {
            path: entry.digest
            for path, entry in self._plan.files.items()
            if entry.digest
            and not (isinstance(entry.location, InBase) and (entry.size or 0) >= LARGE)
        }

    @property
    def base_fd(self) -> int | None:
        """The base's image, parts of which a stable layout keeps."""
        return None if self._held is None else self._held.fd

    def changed(self) -> bool:
        """Whether a file was saved since it was looked at: conversions may take minutes."""
        return any(
            work_digest(self._work_fd, was.path, was.signature, was.source_digest)
            != was.source_digest
            for was in (entry.shadow for entry in self._plan.files.values())
            if not isinstance(was.location, InBase)
        )


def _hashing(fd: int, sizes: SimpleQueue[int | None]) -> Callable[[Cancel], str]:
    """Work for `Beside`: hash a file while it is being written, from its start to its end.

    sizes: how many of its first bytes are final; None: the file is complete."""

    def run(cancel: Cancel) -> str:
        digest, offset = hashlib.sha256(), 0
        while not cancel.is_set():
            with contextlib.suppress(Empty):
                size = sizes.get(timeout=_TICK)
                if size is None:
                    break
                while offset < size:
                    data = os.pread(fd, min(CHUNK, size - offset), offset)
                    digest.update(data)
                    offset += len(data)
        return digest.hexdigest()

    return run


def encode_plan(
    plan: Plan,
    layout: Layout,
    sources: StoredFiles,
    file: BinaryIO,
    slack: Callable[[BinaryIO], None] | None = None,
    progress: Progress = no_progress,
    hashed: bool = True,
) -> Encoded:
    """Write the image to an empty file, parse it back and compare all of it.

    slack: writes what follows the image in the file (a partition dump keeps its length); the image
    is synced here, the slack by whoever names the file (`SessionFolder.place`). hashed: whether
    its digest is wanted; the comparison does not need it. TreeChanged if files were edited
    meanwhile; VerifyError if the written image differs from the plan, and none was edited.
    """
    fd = file.fileno()
    digests = sources.digests()
    sizes: SimpleQueue[int | None] = SimpleQueue()

    def written(phase: str, done: int, total: int) -> None:
        sizes.put(os.fstat(fd).st_size)
        progress(phase, done, total)

    with Beside([_hashing(fd, sizes)] if hashed else []) as hashing:
        try:
            write_image(layout, file, sources.open, written, sources.base_fd, digests)
        except DataChanged as error:
            raise TreeChanged(error.what, where=error.where) from error
        except IsADirectoryError as error:  # open(2) takes a folder, read(2) does not
            raise TreeChanged("a file became a folder while it was stored", where="") from error
        file.flush()
        sizes.put(layout.size)
        # The disk writes while the processors compare.
        syncing: Beside[None] = Beside([lambda _: os.fsync(fd)])
        with syncing:
            try:
                check_image(fd, layout, digests, plan.rules, progress, sources.open)
            except VerifyError as error:
                if sources.changed():
                    what = "a file was edited while it was stored"
                    raise TreeChanged(what, error.where) from error
                raise
            syncing.result(0)
        if slack is not None:
            slack(file)
            file.flush()
        size = os.fstat(fd).st_size
        sizes.put(size)
        sizes.put(None)
        return Encoded(hashing.result(0) if hashed else "", size, layout.size)


def keep_slack(held: BaseImage, image_size: int, drop: bool) -> Callable[[BinaryIO], None] | None:
    """The function that appends what follows the base's image to a new one, so that a partition
    dump keeps its length (`trailing_problem`); None if there is nothing to append.

    drop: leave out unknown data that the new image would overwrite.
    """
    base = held.base
    byte = held.trailing_fill
    if base.trailing == 0 or (byte is None and image_size > base.image_size and drop):
        return None

    def append(out: BinaryIO) -> None:
        out.seek(0, os.SEEK_END)
        if byte is not None:
            fill(out, byte, base.size - out.tell())
            return
        fill(out, 0xFF, base.image_size - out.tell())
        offset = base.image_size
        while data := os.pread(held.fd, CHUNK, offset):
            out.write(data)
            offset += len(data)

    return append
