"""Operations on files and their open handles.

Called by the methods of `fuse_class.py`: read and write get libfuse's own buffer. `info` is a
`fuse_file_info` structure (`raw_fi`), whose `fh` is the open file's descriptor, or a handle of the
control directory from `control.FIRST_HANDLE` on; the path may be missing then.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from romfsfs.fs import control, tree
from romfsfs.fs.handles import Handle, Handles
from romfsfs.fs.tree import WorkTree, refuse, to_text

if TYPE_CHECKING:
    from romfsfs.session.service import SessionHost

# The open flags that matter for the descriptor in the work tree. Not O_APPEND: the kernel sends
# the offset, and pwrite on such a descriptor ignores it.
_OPEN_FLAGS = os.O_ACCMODE | os.O_TRUNC | os.O_SYNC | getattr(os, "O_DSYNC", 0)

_BY_PATH = hasattr(os, "O_PATH") and os.path.exists("/proc/self/fd")
_TO_TRUNCATE = getattr(os, "O_PATH", 0) if _BY_PATH else os.O_WRONLY


class Space:
    """The room left in the partition. Any thread. Sizes in bytes.

    The room is an estimate, kept without looking at the tree: growth lowers it, freed space raises
    it. A write is refused only after the tree was counted, and it is counted again only after a
    change that could lower the count.
    """

    def __init__(self, host: SessionHost) -> None:
        self._host = host
        self._room = 0
        self._counted = False
        self._lock = threading.Lock()

    def take(self, size: int, capacity: int) -> None:
        """Take `size` bytes for a file that is stored unconverted. ENOSPC if they do not fit."""
        with self._lock:
            if size > self._room and not self._counted:
                self._room, self._counted = capacity - self._host.least(), True
            if size > self._room:
                raise refuse(errno.ENOSPC)
            self._room -= size
            self._counted = False

    def give(self, size: int) -> None:
        """Return `size` bytes that were freed, as far as is known; negative: they were taken."""
        with self._lock:
            self._room += size
            self._counted = False


class FileOperations:
    """The half of a mount's operations that deals with file content, and what both halves share.

    caller: returns the (user id, group id) whose request is being served, who then owns what it
    creates (a mount by root for others); None: the daemon's user owns it.
    requester: the same, for any mount, to check who may use the control directory (`control`).
    ready: called once, when the kernel has mounted. keeps_times: reading changes no access time.
    """

    def __init__(
        self,
        host: SessionHost,
        *,
        caller: Callable[[], tuple[int, int]] | None = None,
        requester: Callable[[], tuple[int, int]] | None = None,
        ready: Callable[[], None] = lambda: None,
        keeps_times: bool = False,
    ) -> None:
        self._host = host
        self._tree = WorkTree(host.work_fd, host.hidden_fd, keeps_times)
        self._space = Space(host)
        self._handles = Handles()
        self._cutting = threading.Lock()  # no O_TRUNC between reading a size and acting upon it
        self._control = control.ControlDirectory(host, self.open_writers, requester)
        self._caller = caller
        self._ready = ready
        self._read_only = host.read_only
        # The kernel has applied the caller's umask to a mode; ours must not be applied again.
        self._umask = os.umask(0o077)
        os.umask(self._umask)
        self._tree.remove_leftovers()

    def open_writers(self) -> list[str]:
        """Paths, as the host knows them, of the files open for writing now."""
        return [to_text(path) for path in self._handles.writers()]

    # -- files

    def create(self, path: str, mode: int, info: Any) -> int:
        self._check_change(path)
        # Always for reading too: a program that opened it for writing only may map it later.
        flags = os.O_RDWR | os.O_CREAT | (info.flags & (os.O_EXCL | os.O_TRUNC))
        fd = self._tree.open(path, flags, stat.S_IMODE(mode))
        try:
            self._hand_over(path, mode, fd)
            # A program that opens it read-only, as flock(1) does its lock file, cannot write.
            writable = info.flags & os.O_ACCMODE != os.O_RDONLY
            handle = Handle(fd, path, writable, self._host.limit(to_text(path)))
        except BaseException:
            os.close(fd)
            raise
        handle.changed = True  # reported at close: an empty new file is nothing to convert yet
        self._opened(handle, info)
        return 0

    def open(self, path: str, info: Any) -> int:
        if path.startswith(control.ROOT) and self._control.owns(path):
            info.fh = self._control.open(path, info.flags)
            info.direct_io = 1
            return 0
        flags = info.flags & _OPEN_FLAGS
        writable = flags & (os.O_ACCMODE | os.O_TRUNC) != os.O_RDONLY
        if writable and self._read_only:
            raise refuse(errno.EROFS)
        cut_off = self._taken(path) if flags & os.O_TRUNC else 0
        with self._cutting if flags & os.O_TRUNC else contextlib.nullcontext():
            fd = self._tree.open(path, flags)
        try:
            handle = Handle(
                fd, path, writable, self._host.limit(to_text(path)) if writable else None
            )
        except BaseException:
            os.close(fd)
            raise
        handle.hidden = self._tree.hidden_name(path)
        if handle.hidden is not None:
            handle.path, handle.limit = None, None
        handle.changed = bool(flags & os.O_TRUNC)
        if handle.changed:
            self._space.give(cut_off)
            self._drop_set_id(fd)
        self._opened(handle, info)
        return 0

    def read(self, space: memoryview, offset: int, info: Any) -> int:
        """Fill `space` with content from `offset`; returns the bytes read, fewer at the end."""
        fh = info.fh
        if fh < control.FIRST_HANDLE:
            return os.preadv(fh, [space], offset)
        data = self._control.file(fh).read(len(space), offset)
        space[: len(data)] = data
        return len(data)

    def write(self, data: memoryview, offset: int, info: Any) -> int:
        fh = info.fh
        handle = self._handles.get(fh)
        if handle is None:
            self._control.file(fh).write(bytes(data))
            return len(data)
        length = len(data)
        if info.writepage:
            return self._write_pages(handle, data, offset)
        if handle.limit is not None:
            self._grow(fh, offset + length, handle.limit, errno.ENOSPC)
        written = 0
        try:
            while written < length:  # full disk: write what fits, the next call raises ENOSPC
                written += os.pwrite(fh, data[written:], offset + written)
        except OSError:
            if not written:
                raise
        finally:
            # Only now: a concurrent flush must not clear this before the data is written.
            handle.changed = True
        return written

    def _write_pages(self, handle: Handle, data: memoryview, offset: int) -> int:
        """Write back pages of a shared mapping, which never make a file longer. Those that would
        are late: Linux does not wait for them when an open truncates the file."""
        with self._cutting:
            inside = data[: max(0, os.fstat(handle.fd).st_size - offset)]
            written = os.pwrite(handle.fd, inside, offset) if inside else 0
        handle.changed = True
        return len(data) if written == len(inside) else written

    def truncate(self, path: str | None, length: int, info: Any = None) -> int:
        if info is not None:
            if info.fh >= control.FIRST_HANDLE:
                return 0  # only `ctl` can be open for writing
            handle = self._handles.get(info.fh)
            if handle is None:
                raise refuse(errno.EBADF)
            if handle.limit is not None:
                self._grow(handle.fd, length, handle.limit, errno.EFBIG)
                self._space.give(max(0, os.fstat(handle.fd).st_size - length))
            os.ftruncate(handle.fd, length)
            handle.changed = True
        elif path is not None and self._control.owns(path):
            self._control.truncate(path)
        elif path is not None:
            self._check_change(path, hidden=True)
            limit = self._host.limit(to_text(path))
            fd = self._tree.open(path, _TO_TRUNCATE)
            try:
                if limit is not None:
                    self._grow(fd, length, limit, errno.EFBIG)
                    self._space.give(max(0, os.fstat(fd).st_size - length))
                (tree.truncate_path if _BY_PATH else os.ftruncate)(fd, length)
            finally:
                os.close(fd)
            self._changed(path)
        return 0

    def fallocate(self, path: str | None, mode: int, offset: int, length: int, info: Any) -> int:
        """Without this, glibc's posix_fallocate reads and writes a byte of every block, and fails
        where the file was opened for writing only."""
        if info.fh >= control.FIRST_HANDLE:
            raise refuse(errno.EOPNOTSUPP)
        handle = self._handles.get(info.fh)
        if handle is None:
            raise refuse(errno.EBADF)
        if handle.limit is not None and not mode & tree.PUNCH_HOLE:
            self._grow(handle.fd, offset + length, handle.limit, errno.ENOSPC)
        tree.allocate(handle.fd, mode, offset, length)
        handle.changed = True
        return 0

    def flush(self, path: str | None, info: Any) -> int:
        """Report changes. close(2) waits for this call, unlike for release: the session knows of
        the change before the user's next command."""
        fh = info.fh
        if fh >= control.FIRST_HANDLE:
            self._control.file(fh).flush()
        else:
            handle = self._handles.get(fh)
            if handle is not None:
                self._report(handle)
        return 0

    def release(self, path: str | None, info: Any) -> int:
        fh = info.fh
        if fh >= control.FIRST_HANDLE:
            self._control.close(fh)
            return 0
        handle, nameless = self._handles.remove(fh)
        os.close(fh)
        if nameless is not None:
            # libfuse removes it too, but finds no path to it once its folder is gone.
            with contextlib.suppress(FileNotFoundError):
                os.unlink(nameless, dir_fd=self._host.hidden_fd)
        if handle is not None:
            self._report(handle)
        return 0

    def fsync(self, path: str | None, data_only: int, info: Any) -> int:
        if info.fh < control.FIRST_HANDLE:
            (os.fdatasync if data_only and hasattr(os, "fdatasync") else os.fsync)(info.fh)
        return 0

    # -- shared

    def _check_change(self, path: str, *, hidden: bool = False) -> None:
        """Raise EROFS or EPERM if `path` may not be changed; `hidden` lets libfuse's names pass."""
        if self._read_only or (path.startswith(control.ROOT) and self._control.owns(path)):
            raise refuse(errno.EROFS)
        if not hidden and self._tree.hidden_name(path) is not None:
            raise refuse(errno.EPERM)

    def _grow(self, fd: int, length: int, limit: int, number: int) -> None:
        """Take the room that a file, stored unconverted, needs to become `length` bytes long.

        limit: the longest it may be. number: the errno raised if it alone is too large; ENOSPC if
        all files together are."""
        more = length - os.fstat(fd).st_size
        if more > 0:
            if length > limit:
                raise refuse(number)
            self._space.take(more, limit)

    def _taken(self, path: str) -> int:
        """Bytes of the partition that a file takes for certain; 0 if it may be converted."""
        if self._host.limit(to_text(path)) is None:
            return 0
        with contextlib.suppress(OSError):
            found = self._tree.stat(path)
            return found.st_size if stat.S_ISREG(found.st_mode) else 0
        return 0

    def _changed(self, path: str) -> None:
        if self._tree.hidden_name(path) is None:
            self._host.changed(to_text(path))

    def _opened(self, handle: Handle, info: Any) -> None:
        info.fh = handle.fd
        if self._handles.add(handle):
            # All writes went through the kernel's pages, which it must not drop during a write:
            # pages read back before that write arrives are stale, and a shared mapping writes
            # them over the new data.
            info.keep_cache = 1

    def _report(self, handle: Handle) -> None:
        if handle.changed and handle.path is not None:
            handle.changed = False
            if handle.limit is None:  # count again: a source may replace what is stored unconverted
                self._space.give(0)
            self._host.changed(to_text(handle.path))

    def _descriptor(self, info: Any) -> int:
        """The descriptor of an open file that is to be changed; EROFS if it may not be."""
        if self._read_only or info.fh >= control.FIRST_HANDLE:
            raise refuse(errno.EROFS)
        fd: int = info.fh
        return fd

    def _drop_set_id(self, fd: int) -> None:
        """Clear set-id bits, as the system does when a user other than root truncates a file.
        Here root serves that user, and for an open with O_TRUNC the kernel does not ask for it."""
        if self._caller is not None and self._caller()[0] != 0:
            mode = os.fstat(fd).st_mode
            dropped = stat.S_ISUID | (stat.S_ISGID if mode & stat.S_IXGRP else 0)
            if mode & dropped:
                os.fchmod(fd, stat.S_IMODE(mode) & ~dropped)

    def _hand_over(self, path: str, mode: int, fd: int | None = None) -> None:
        """Give a new file or folder the mode that was asked for and, with `caller`, its owner."""
        mode = stat.S_IMODE(mode)
        lost = self._umask
        if self._caller is not None:
            uid, gid = self._caller()
            if self._tree.stat(path.rpartition("/")[0] or "/").st_mode & stat.S_ISGID:
                gid = -1  # a set-group-id folder: the system has set its group
            if fd is not None:
                os.fchown(fd, uid, gid)
            else:
                self._tree.at(os.chown, path, uid, gid, follow_symlinks=False)
            lost |= stat.S_ISUID | stat.S_ISGID  # by the change of owner
        if not mode & lost:
            return
        if fd is not None:
            os.fchmod(fd, mode)
        else:  # a folder may have inherited the set-group-id bit
            self._tree.at(os.chmod, path, mode | self._tree.stat(path).st_mode & stat.S_ISGID)
