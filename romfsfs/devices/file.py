"""An image file as a device.

The file is only ever replaced as a whole: temporary file in the same folder, fsync, rename,
fsync of the folder. Its mode and owner are kept, and a symbolic link stays one (what it points
to is replaced).
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from typing import BinaryIO

from romfsfs.devices.base import DeviceInfo, WriteReport, matches_by_digest
from romfsfs.errors import DeviceAbsent, DeviceError, ImageFormatError, RomfsError, VerifyError
from romfsfs.files import CHUNK, Progress, digest_fd, no_progress, replace_atomically
from romfsfs.image.reader import image_size, is_blank


class FileDevice:
    """An image file, which may not exist yet. Errors are DeviceError with the path."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.given = os.fspath(path)
        self.path = os.path.realpath(self.given)
        if os.path.isdir(self.path):
            raise DeviceError(
                "a folder, not an image file",
                where=self.given,
                next_step="to make an image of it: romfsfs build FOLDER IMAGE --board BOARD",
            )

    def info(self) -> DeviceInfo:
        return DeviceInfo(kind="file", key=self.path, name=os.path.abspath(self.given))

    def exists(self) -> bool:
        return os.path.exists(self.path)

    def stamp(self) -> tuple[int, ...] | None:
        """The file's identity without reading it; None if it is not there.

        Equal stamps mean equal content: the change time cannot be set by a program.
        """
        try:
            status = os.stat(self.path)
        except FileNotFoundError:
            return None
        return (
            status.st_dev,
            status.st_ino,
            status.st_size,
            status.st_mtime_ns,
            status.st_ctime_ns,
        )

    def digest(self, size: int) -> str | None:
        with self._open() as file:
            return digest_fd(file.fileno(), 0, size)

    def matches(self, image: BinaryIO, size: int) -> bool | None:
        return matches_by_digest(self, image, size)

    def read_image(self, out: BinaryIO, progress: Progress = no_progress) -> int:
        """The whole file, whatever follows the image in it included; 0 for an empty or blank one."""
        with self._open() as file:
            size = os.fstat(file.fileno()).st_size
            header = os.pread(file.fileno(), 16, 0)
            if size == 0 or (is_blank(header) and self._is_erased(file.fileno())):
                return 0
            try:
                image_size(header)
            except ImageFormatError as error:
                raise ImageFormatError(
                    error.reason,
                    error.offset,
                    where=self.given,
                    next_step="is this a ROMFS image? 'romfsfs new' makes an empty one",
                ) from None
            copy_all(file, out, size, "reading", progress)
            return size

    def _is_erased(self, fd: int) -> bool:
        offset = 0
        while data := os.pread(fd, CHUNK, offset):
            if data.count(0xFF) != len(data):
                return False
            offset += len(data)
        return True

    def write_image(
        self, image: BinaryIO, old: BinaryIO | None = None, progress: Progress = no_progress
    ) -> WriteReport:
        started = time.monotonic()
        size = os.fstat(image.fileno()).st_size
        try:
            before = os.stat(self.path) if os.path.exists(self.path) else None
            mode = stat.S_IMODE(before.st_mode) if before else 0o666 & ~_umask()
            with replace_atomically(self.path, mode) as file:
                if before is not None:
                    _keep_owner(file.fileno(), before)
                    os.fchmod(file.fileno(), mode)
                copy_all(image, file, size, "writing", progress)
        except OSError as error:
            raise DeviceError(
                f"cannot write: {error.strerror}",
                where=self.given,
                next_step="the file is unchanged; free space or check permissions and commit again, "
                "or commit --to another file",
            ) from error
        self._read_back(image, size)
        return WriteReport(size, 0, time.monotonic() - started, True)

    def _read_back(self, image: BinaryIO, size: int) -> None:
        with self._open() as file:
            offset = 0
            while offset < size or offset == 0:
                mine = os.pread(file.fileno(), CHUNK, offset)
                if mine != os.pread(image.fileno(), CHUNK, offset):
                    raise VerifyError(
                        "what was read back differs from what was written",
                        where=f"{self.given}, offset {offset:#x}",
                        next_step="the disk may be failing; commit --to a file on another one",
                    )
                if not mine:
                    break
                offset += len(mine)

    def reset(self) -> None:
        """A file needs none."""

    def close(self) -> None:
        """Nothing is held open."""

    def _open(self) -> BinaryIO:
        try:
            return open(self.path, "rb")
        except FileNotFoundError:
            raise DeviceAbsent(
                "no such image file",
                where=self.given,
                next_step=f"make one: romfsfs new {self.given} --board BOARD",
            ) from None
        except OSError as error:
            raise DeviceError(f"cannot read: {error.strerror}", where=self.given) from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _keep_owner(fd: int, before: os.stat_result) -> None:
    """Only root can give a file away; for others the owner already is who may write here."""
    with contextlib.suppress(PermissionError):
        os.fchown(fd, before.st_uid, before.st_gid)


def copy_all(source: BinaryIO, target: BinaryIO, size: int, phase: str, progress: Progress) -> None:
    """Copy `size` bytes from the start of `source` to where `target` stands.

    In the kernel where it can (no copy through this process, shared extents on btrfs and XFS).
    """
    target.flush()
    done = 0
    in_kernel = hasattr(os, "copy_file_range")
    while done < size:
        want = min(size - done, 16 * CHUNK)
        if in_kernel:
            try:
                count = os.copy_file_range(source.fileno(), target.fileno(), want, done)
            except OSError:
                in_kernel = False  # other file system, old kernel: by hand from here on
                continue
        else:
            count = os.write(target.fileno(), os.pread(source.fileno(), min(want, CHUNK), done))
        if count == 0:
            raise RomfsError("the file became shorter while it was read", where=str(source.name))
        done += count
        progress(phase, done, size)
    target.seek(0, os.SEEK_CUR)
