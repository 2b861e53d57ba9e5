"""An image file as a device.

The file is only ever replaced as a whole: temporary file in the same folder, fsync, rename,
fsync of the folder. Its mode is kept, its owner where that is permitted, and a symbolic link stays
one (what it points to is replaced).
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from collections.abc import Callable
from typing import BinaryIO

from romfsfs.devices.base import Device, DeviceInfo, WriteReport
from romfsfs.errors import (
    DeviceAbsent,
    DeviceError,
    ImageFormatError,
    RomfsError,
    UsageError,
    VerifyError,
    shell_word,
)
from romfsfs.image.reader import image_size
from romfsfs.system.beside import Beside
from romfsfs.system.clock import uncertain_for, wait_until_certain
from romfsfs.system.copying import copy_in_kernel, difference, fill_byte
from romfsfs.system.files import (
    CHUNK,
    Progress,
    check_plain,
    digest_fd,
    named,
    no_progress,
    replace_atomically,
    sync_dir,
)

#: device, inode, size, modification time, change time
Stamp = tuple[int, int, int, int, int]

#: Up to this many bytes (more than any camera has) what was written is read back from the disk;
#: above, from the page cache, as the disk would take longer than the writing did.
_FROM_DISK = 64 << 20


class FileDevice(Device):
    """An image file, which may not exist yet.

    DeviceError, with the path, if it cannot be opened or written; UsageError for a folder. Reading
    that fails after opening raises OSError, or RomfsError if the file became shorter."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.given = os.fspath(path)
        self.path = os.path.realpath(self.given)
        self._written: Stamp | None = None
        if os.path.isdir(self.path):
            raise UsageError(
                "a folder, not an image file",
                where=self.given,
                next_step="to make an image of it: romfsfs build FOLDER IMAGE --board BOARD",
            )
        try:
            check_plain(self.path)
        except RomfsError as error:
            raise DeviceError(error.what, where=self.given, next_step=error.next_step) from None

    def info(self) -> DeviceInfo:
        return DeviceInfo(kind="file", key=self.path, name=os.path.abspath(self.given))

    def exists(self) -> bool:
        return os.path.exists(self.path)

    def stamp(self) -> Stamp | None:
        """The file's identity without reading it; None if it is not there.

        Equal stamps mean equal content if the first is older than a tick of the kernel's clock
        (`certain_stamp`): no program can set the change time.
        """
        try:
            return _stamp(os.stat(self.path))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._unreadable(error) from error

    def certain_stamp(self) -> Stamp | None:
        """A stamp that any later change of the file will alter. Waits until that is certain: up to
        20 ms, 2 s where times have no fraction, and three times that if the file changes meanwhile.

        None if there is no file, or it keeps changing: only reading it tells then.
        """
        for _ in range(3):
            stamp = self.stamp()
            if stamp is None or uncertain_for(stamp[4]) <= 0:
                return stamp
            wait_until_certain([stamp[4]])
        return None

    @property
    def written_stamp(self) -> Stamp | None:
        """The stamp of what `write_image` wrote and compared; None if it was changed since."""
        return self._written

    def digest(self, size: int) -> str | None:
        with self._open() as file, named(self.given):
            return digest_fd(file.fileno(), 0, size)

    def read_image(self, out: BinaryIO, progress: Progress = no_progress) -> int:
        """The whole file, with whatever follows the image in it; 0 for an empty or blank one."""
        with self._open() as file, named(self.given):
            size = os.fstat(file.fileno()).st_size
            header = os.pread(file.fileno(), 16, 0)
            if size == 0 or fill_byte(file.fileno()) == 0xFF:
                return 0
            try:
                image_size(header)
            except ImageFormatError as error:
                advice = "is this a ROMFS image? 'romfsfs new' makes an empty one"
                raise error.at(self.given, advice) from None
            copy_all(file, out, size, "reading", progress)
            return size

    def read_bytes(self, out: BinaryIO, progress: Progress = no_progress) -> int:
        """The whole file, whatever it is; its size."""
        with self._open() as file:
            size = os.fstat(file.fileno()).st_size
            copy_all(file, out, size, "reading", progress)
            return size

    def write_image(
        self,
        image: BinaryIO,
        old: BinaryIO | None = None,
        progress: Progress = no_progress,
        last_look: Callable[[], None] = lambda: None,
    ) -> WriteReport:
        """As the protocol says. What was written is read back before it takes the file's place,
        so whatever goes wrong, the file is whole: the old one or the new. image: has a descriptor.
        last_look: called just before the rename; what it raises leaves the old file."""
        started = time.monotonic()
        size = os.fstat(image.fileno()).st_size
        before, self._written = self.stamp(), None
        self._refuse_protected()
        try:
            try:
                self._replace(image, size, progress, last_look)
            except VerifyError:
                self._replace(image, size, progress, last_look)  # once more, as every device does
        except FileNotFoundError as error:
            folder = os.path.dirname(self.path)
            raise DeviceError(
                "no such folder", where=folder, next_step=f"mkdir -p {shell_word(folder)}"
            ) from error
        except OSError as error:
            changed = "whether the file has changed is not known"
            with contextlib.suppress(DeviceError):
                same = self.stamp() == before
                changed = "nothing was changed" if same else "the file has changed"
            raise DeviceError(
                f"cannot write: {error.strerror}",
                where=self.given,
                next_step=f"{changed}; free space or check permissions and try again, or "
                "write another file (commit --to FILE)",
            ) from error
        return WriteReport(size, 0, time.monotonic() - started, True)

    def _replace(
        self, image: BinaryIO, size: int, progress: Progress, last_look: Callable[[], None]
    ) -> None:
        before = os.stat(self.path) if os.path.exists(self.path) else None
        mode = stat.S_IMODE(before.st_mode) if before else 0o666
        with replace_atomically(self.path, mode) as file:
            if before is not None:
                _keep_owner(file.fileno(), before)
                os.fchmod(file.fileno(), mode)
            copy_all(image, file, size, "writing", progress)
            file.flush()
            fd = file.fileno()
            with Beside([lambda _: os.fsync(fd)]) as syncing:
                if size <= _FROM_DISK:
                    syncing.result(0)
                    _drop_from_memory(fd)
                self._read_back(fd, image, size)
                syncing.result(0)
            compared = _stamp(os.fstat(file.fileno()))
            wait_until_certain([compared[4]])
            last_look()
        now = self.stamp()
        # The rename changes the change time and nothing else.
        self._written = now if now is not None and now[:4] == compared[:4] else None

    def _read_back(self, fd: int, image: BinaryIO, size: int) -> None:
        wrong = difference(fd, 0, image.fileno(), 0, size)
        if wrong is not None:
            raise VerifyError(
                "what was read back differs from what was written; the file is unchanged",
                where=f"{self.given}, offset {wrong:#x}",
                next_step="the disk may be failing; commit --to a file on another one",
            )

    def clear(self) -> None:
        self._refuse_protected()
        try:
            os.unlink(self.path)
            sync_dir(os.path.dirname(self.path))
        except FileNotFoundError:
            return
        except OSError as error:
            raise DeviceError(
                f"cannot remove: {error.strerror}",
                where=self.given,
                next_step="check the folder's permissions and the disk, and try again",
            ) from error

    def _refuse_protected(self) -> None:
        """DeviceError for a read-only file. A rename would need the folder's permission alone, but
        whoever made the file read-only meant it."""
        if os.path.exists(self.path) and not os.access(self.path, os.W_OK):
            what, way = "file is read-only", f"allow it: chmod u+w {shell_word(self.path)}"
            if os.statvfs(self.path).f_flag & os.ST_RDONLY:
                what, way = "file system is read-only", "mount it so that it can be written to"
            raise DeviceError(
                f"the {what}",
                where=self.given,
                next_step=f"{way}; or write another file: commit --to FILE",
            )

    def _open(self) -> BinaryIO:
        try:
            return open(self.path, "rb")
        except FileNotFoundError:
            raise DeviceAbsent(
                "no such image file",
                where=self.given,
                next_step=f"make one: romfsfs new {shell_word(self.given)} --board BOARD",
            ) from None
        except OSError as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: OSError) -> DeviceError:
        return DeviceError(
            f"cannot read: {error.strerror}",
            where=self.given,
            next_step=f"check the file: ls -ld {shell_word(self.path)}",
        )


def _stamp(status: os.stat_result) -> Stamp:
    return (
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )


def _drop_from_memory(fd: int) -> None:
    """Drop the file from the page cache, so that the next read comes from the disk."""
    advise = getattr(os, "posix_fadvise", None)  # not on macOS
    if advise:
        advise(fd, 0, 0, getattr(os, "POSIX_FADV_DONTNEED", 4))


#: errno of an owner or group that cannot be kept.
_NO_OWNER = frozenset({errno.EPERM, errno.EACCES, errno.EINVAL, errno.ENOTSUP, errno.ENOSYS})


def _keep_owner(fd: int, before: os.stat_result) -> None:
    """Keep owner and group where permitted: only root can give a file away, a member of a group can
    give it to that group, and nobody to an owner or group that a container does not know (EINVAL),
    or on a file system without owners."""
    for uid in (before.st_uid, -1):
        try:
            os.fchown(fd, uid, before.st_gid)
            break
        except OSError as error:
            if error.errno not in _NO_OWNER:
                raise


def copy_all(source: BinaryIO, target: BinaryIO, size: int, phase: str, progress: Progress) -> None:
    """Copy `size` bytes from the start of `source` to the position of `target`, in the kernel where
    possible. OSError; RomfsError if `source` became shorter."""
    target.flush()
    start, done = target.tell(), 0
    while done < size:
        want = min(size - done, 16 * CHUNK)
        count = copy_in_kernel(source.fileno(), done, target.fileno(), start + done, want)
        if not count:
            data = os.pread(source.fileno(), min(want, CHUNK), done)
            if not data:
                what = "the file became shorter while it was read"
                raise RomfsError(what, where=str(source.name))
            count = os.pwrite(target.fileno(), data, start + done)
        done += count
        progress(phase, done, size)
    target.seek(start + size)
