"""From a plan to a verified image file."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, NamedTuple

from romfsfs.errors import RomfsError
from romfsfs.files import CHUNK, Progress, digest_fd, no_progress
from romfsfs.image.check import check_image
from romfsfs.image.layout import Layout
from romfsfs.image.model import Extent
from romfsfs.image.writer import Source, write_image
from romfsfs.session.plan import Plan
from romfsfs.session.shadow import InBase, InCache, InWork
from romfsfs.session.state import Base
from romfsfs.session.worktree import open_file


class Encoded(NamedTuple):
    """An image file that was written and parsed back. Sizes in bytes, slack included in `size`."""

    digest: str
    size: int
    image_size: int


class Sources:
    """Opens the stored bytes of a plan's files; `close` when the image is written."""

    def __init__(
        self,
        plan: Plan,
        base_image: Path,
        extents: Callable[[], Mapping[str, Extent]],
        work_fd: int,
    ) -> None:
        self._plan = plan
        self._base_image = base_image
        self._extents = extents
        self._work_fd = work_fd
        self._base_fd = -1
        self._known: Mapping[str, Extent] = {}

    def open(self, path: str) -> Source:
        """Where the bytes of a file of the plan are. RomfsError if it is gone since."""
        location = self._plan.files[path].location
        if isinstance(location, InBase):
            if self._base_fd < 0:
                self._base_fd = os.open(self._base_image, os.O_RDONLY | os.O_CLOEXEC)
                self._known = self._extents()
            return Source(self._base_fd, self._known[location.path].offset)
        try:
            if isinstance(location, InCache):
                return Source(os.open(location.file, os.O_RDONLY | os.O_CLOEXEC), owned=True)
            if isinstance(location, InWork):
                return Source(open_file(self._work_fd, location.path), owned=True)
        except FileNotFoundError:
            pass
        raise RomfsError(
            "the file changed while it was being committed",
            where=self._plan.files[path].source,
            next_step="nothing was written; commit again",
        )

    def close(self) -> None:
        if self._base_fd >= 0:
            os.close(self._base_fd)
            self._base_fd = -1


def encode_plan(
    plan: Plan,
    layout: Layout,
    sources: Sources,
    out: Path,
    slack: Callable[[BinaryIO], None] | None = None,
    progress: Progress = no_progress,
) -> Encoded:
    """Write the image to `out` (replaced), durably, parse it back and compare all of it.

    slack: writes what follows the image in the file (a partition dump keeps its length).
    VerifyError when what was written is not what was planned.
    """
    with open(out, "w+b") as file, ThreadPoolExecutor(max_workers=2) as pool:
        fd = file.fileno()
        os.chmod(fd, 0o600)
        try:
            write_image(layout, file, sources.open, progress)
        finally:
            sources.close()
        file.flush()
        synced = pool.submit(os.fsync, fd)  # the disk writes while the processor compares
        digests = {entry.path: entry.digest for entry in plan.files.values()}
        check_image(fd, layout, digests, plan.rules, progress)
        synced.result()
        if slack is not None:
            slack(file)
            file.flush()
            os.fsync(fd)
        return Encoded(digest_fd(fd), os.fstat(fd).st_size, layout.size)


def keep_slack(
    base_image: Path, base: Base, image_size: int, drop: bool
) -> Callable[[BinaryIO], None] | None:
    """What to append to a new image so that a partition dump stays one.

    Slack of one repeated byte (FF: erased flash) is refilled up to the old length. Anything
    else is data that romfsfs does not know: it stays where it was, and RomfsError says so when
    the new image would lie over it, unless it may be dropped.
    """
    if base.trailing == 0 or drop:
        return None
    with open(base_image, "rb") as file:
        fill = _fill_byte(file, base)
    if fill is None and image_size > base.image_size:
        raise RomfsError(
            f"{base.trailing:,} bytes of unknown data follow the image in the file, and the new image "
            f"is {image_size - base.image_size:,} bytes longer",
            next_step="commit --to another file, or commit --force drops them",
        )

    def append(out: BinaryIO) -> None:
        out.seek(0, os.SEEK_END)
        _fill(out, 0xFF if fill is None else fill, base.image_size if fill is None else base.size)
        if fill is None:
            with open(base_image, "rb") as file:
                file.seek(base.image_size)
                while data := file.read(CHUNK):
                    out.write(data)

    return append


def _fill_byte(file: BinaryIO, base: Base) -> int | None:
    file.seek(base.image_size)
    first = file.read(1)
    data = first
    while data:
        if data.count(first) != len(data):
            return None
        data = file.read(CHUNK)
    return first[0]


def _fill(out: BinaryIO, byte: int, until: int) -> None:
    left = until - out.tell()
    while left > 0:
        count = min(left, CHUNK)
        out.write(bytes([byte]) * count)
        left -= count
