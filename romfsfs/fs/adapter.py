"""The operations of a mount: the work tree passed through, plus the control directory.

Everything the user sees is the kernel's own behaviour on the plain directory behind it; this
module only refuses what ROMFS has no place for, keeps track of open files, and tells the session
what changed. Operations come with `fuse_file_info` structures (`raw_fi`), whose `fh` is the open
file's descriptor, or a number from `control.FIRST_HANDLE` on. Those on an open file may come
without a path.

Any of libfuse's threads calls these, several at once. libfuse itself keeps a rename from running
beside another operation on the same path.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable
from typing import Any

from . import control
from .calls import RENAME_EXCHANGE, renamer, resolve_times
from .handles import Handle, Handles
from .host import MountHost
from .tree import WorkTree, from_text, hidden_name, refuse, to_text

STATE_ATTRIBUTE = "user.romfs.state"

# What the kernel asks of an open that means something for the descriptor behind it. O_APPEND
# does not: the kernel sends the offset, and pwrite on such a descriptor ignores it.
_OPEN_FLAGS = os.O_ACCMODE | os.O_TRUNC | os.O_SYNC | getattr(os, "O_DSYNC", 0)

_NO_ATTRIBUTE = getattr(errno, "ENOATTR", errno.ENODATA)
_BLOCK = 512  # bytes; of statfs for a partition


def _mode(is_dir: bool) -> int:
    return stat.S_IFDIR if is_dir else stat.S_IFREG


class Adapter:
    """libfuse's operations on a host. Named and called as the bindings name and call them.

    caller: (user id, group id) whose request is being served, when what it creates should be
    its own (a mount by root for others); None: what is created is the daemon's user's.
    ready: called once, when the kernel has mounted.
    """

    def __init__(
        self,
        host: MountHost,
        *,
        caller: Callable[[], tuple[int, int]] | None = None,
        ready: Callable[[], None] = lambda: None,
    ) -> None:
        self._host = host
        self._tree = WorkTree(host.work_fd, host.hidden_fd)
        self._handles = Handles()
        self._control = control.ControlDirectory(host, self.open_writers)
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

    # -- the mount itself

    def init(self, path: str) -> None:
        self._ready()

    def destroy(self, path: str) -> None:
        pass

    def statfs(self, path: str) -> dict[str, int]:
        real = os.fstatvfs(self._host.work_fd)
        capacity, used = self._host.usage()
        numbers = {"f_files": real.f_files, "f_ffree": real.f_ffree, "f_favail": real.f_favail}
        if capacity is None:
            numbers |= {"f_bsize": real.f_bsize, "f_frsize": real.f_frsize}
            numbers |= {"f_blocks": real.f_blocks, "f_bfree": real.f_bfree}
            numbers |= {"f_bavail": real.f_bavail}
        else:
            free = max(0, capacity - used) // _BLOCK
            numbers |= {"f_bsize": _BLOCK, "f_frsize": _BLOCK, "f_blocks": capacity // _BLOCK}
            numbers |= {"f_bfree": free, "f_bavail": free}
        return {**numbers, "f_namemax": 255}

    # -- names

    def getattr(self, path: str | None, info: Any = None) -> dict[str, int]:
        if info is not None:
            if info.fh >= control.FIRST_HANDLE:
                return self._control.file(info.fh).attributes
            found = os.fstat(info.fh)
        elif path is None:
            raise refuse(errno.ENOENT)
        elif path.startswith(control.ROOT) and self._control.owns(path):
            return self._control.attributes(path)
        else:
            found = self._tree.stat(path)
        # Written out, and only what the kernel takes: this is the hottest path of all.
        return {
            "st_mode": found.st_mode,
            "st_ino": found.st_ino,
            "st_nlink": found.st_nlink,
            "st_uid": found.st_uid,
            "st_gid": found.st_gid,
            "st_size": found.st_size,
            "st_blocks": found.st_blocks,
            "st_blksize": found.st_blksize,
            "st_atime": found.st_atime_ns,
            "st_mtime": found.st_mtime_ns,
            "st_ctime": found.st_ctime_ns,
        }

    def access(self, path: str, mode: int) -> int:
        if self._control.owns(path):
            self._control.attributes(path)
            if mode & os.W_OK and path != control.ROOT + "/ctl":
                raise refuse(errno.EROFS)
        elif mode & os.W_OK and self._read_only:
            raise refuse(errno.EROFS)
        elif not self._tree.at(os.access, path, mode):
            self._tree.stat(path)  # ENOENT where that is the reason
            raise refuse(errno.EACCES)
        return 0

    def mkdir(self, path: str, mode: int) -> int:
        self._check_change(path)
        self._tree.at(os.mkdir, path, mode)
        self._settle(path, mode)
        self._changed(path)
        return 0

    def mknod(self, path: str, mode: int, device: int) -> int:
        self._check_change(path)
        if not stat.S_ISREG(mode):
            raise refuse(errno.EPERM)
        os.close(self._tree.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, stat.S_IMODE(mode)))
        self._settle(path, mode)
        self._changed(path)
        return 0

    def symlink(self, path: str, target: str) -> int:
        raise refuse(errno.EPERM)

    def link(self, path: str, source: str) -> int:
        raise refuse(errno.EPERM)

    def unlink(self, path: str) -> int:
        self._check_change(path, hidden=True)
        self._tree.at(os.unlink, path)
        self._changed(path)
        return 0

    def rmdir(self, path: str) -> int:
        self._check_change(path)
        self._tree.at(os.rmdir, path)
        self._changed(path)
        return 0

    def rename(self, old: str, new: str, flags: int = 0) -> int:
        self._check_change(old, hidden=True)
        self._check_change(new, hidden=True)
        hides, reveals = hidden_name(new), hidden_name(old)
        if hides is not None and stat.S_ISDIR(self._tree.stat(old).st_mode):
            raise refuse(errno.EPERM)  # libfuse hides files only: a user made this name up
        self._tree.rename(old, new, renamer(flags))
        if hides is not None:
            self._handles.hide(old, hides)
            moved = []
        elif reveals is not None:
            moved = self._handles.reveal(reveals, new)
        elif flags & RENAME_EXCHANGE:
            moved = self._handles.exchange(old, new)
        else:
            moved = self._handles.rename(old, new)
        for handle in moved:
            if handle.writable and handle.path is not None:
                handle.limit = self._host.limit(to_text(handle.path))
        self._changed(old)
        self._changed(new)
        return 0

    # -- attributes

    def chmod(self, path: str | None, mode: int, info: Any = None) -> int:
        if info is not None:
            os.fchmod(self._descriptor(info), stat.S_IMODE(mode))
        elif path is not None:
            self._check_change(path, hidden=True)
            self._tree.at(os.chmod, path, stat.S_IMODE(mode))
        return 0

    def chown(self, path: str | None, uid: int, gid: int, info: Any = None) -> int:
        # The kernel decides who may: an ordinary user's daemon gets EPERM for foreign ids.
        if info is not None:
            os.fchown(self._descriptor(info), uid, gid)
        elif path is not None:
            self._check_change(path, hidden=True)
            self._tree.at(os.chown, path, uid, gid, follow_symlinks=False)
        return 0

    def utimens(self, path: str | None, times: tuple[int, int] | None, info: Any = None) -> int:
        if info is not None:
            fd = self._descriptor(info)
            ns = resolve_times(times, lambda: os.fstat(fd))
            os.utime(fd) if ns is None else os.utime(fd, ns=ns)
        elif path is not None:
            self._check_change(path, hidden=True)
            place = path
            ns = resolve_times(times, lambda: self._tree.stat(place))
            options = {} if ns is None else {"ns": ns}
            self._tree.at(os.utime, path, follow_symlinks=False, **options)
        return 0

    def getxattr(self, path: str, name: str, position: int = 0) -> bytes:
        # The kernel asks for security.capability at every write: answer that without a call.
        if name != STATE_ATTRIBUTE or self._control.owns(path) or hidden_name(path) is not None:
            raise refuse(_NO_ATTRIBUTE)
        self._tree.stat(path)
        return self._host.file_state(to_text(path))

    def listxattr(self, path: str) -> list[str]:
        return []  # not listed: `cp -a` and `rsync -X` must not carry the state along

    def setxattr(self, path: str, name: str, value: bytes, flags: int, position: int = 0) -> int:
        raise refuse(errno.ENOTSUP)

    def removexattr(self, path: str, name: str) -> int:
        raise refuse(errno.ENOTSUP)

    # -- folders

    def opendir(self, path: str) -> int:
        if self._control.owns(path):
            return self._control.open_dir(path)
        return self._tree.open(path, os.O_RDONLY | os.O_DIRECTORY)

    def readdir(self, path: str | None, handle: int) -> list[tuple[str, dict[str, int], int]]:
        # Kind and number of an entry cost nothing here, and the kind saves `find` and `rm -r` a
        # stat each. An entry without a number would be skipped: 0 means deleted.
        if handle >= control.FIRST_HANDLE:
            entries = [
                (name, {"st_mode": _mode(is_dir), "st_ino": control.FIRST_HANDLE}, 0)
                for name, is_dir in self._control.listing(handle)
            ]
        else:
            with os.scandir(handle) as found:
                entries = [
                    (
                        from_text(entry.name),
                        {
                            "st_mode": _mode(entry.is_dir(follow_symlinks=False)),
                            "st_ino": entry.inode(),
                        },
                        0,
                    )
                    for entry in found
                ]
        dots = {"st_mode": stat.S_IFDIR, "st_ino": control.FIRST_HANDLE}
        return [(".", dots, 0), ("..", dots, 0), *entries]

    def releasedir(self, path: str | None, handle: int) -> int:
        if handle >= control.FIRST_HANDLE:
            self._control.close_dir(handle)
        else:
            os.close(handle)
        return 0

    def fsyncdir(self, path: str | None, data_only: int, handle: int) -> int:
        if handle < control.FIRST_HANDLE:
            os.fsync(handle)
        return 0

    # -- files

    def create(self, path: str, mode: int, info: Any) -> int:
        self._check_change(path)
        # Always for reading too: who opened it for writing only may still map it later.
        flags = os.O_RDWR | os.O_CREAT | (info.flags & (os.O_EXCL | os.O_TRUNC))
        fd = self._tree.open(path, flags, stat.S_IMODE(mode))
        try:
            self._settle(path, mode, fd)
            handle = Handle(fd, path, True, self._host.limit(to_text(path)))
        except BaseException:
            os.close(fd)
            raise
        handle.changed = True  # said at the close: an empty new file is nothing to convert yet
        self._handles.add(handle)
        info.fh = fd
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
        fd = self._tree.open(path, flags)
        try:
            handle = Handle(
                fd, path, writable, self._host.limit(to_text(path)) if writable else None
            )
        except BaseException:
            os.close(fd)
            raise
        handle.hidden = hidden_name(path)
        if handle.hidden is not None:
            handle.path, handle.limit = None, None
        handle.changed = bool(flags & os.O_TRUNC)
        self._handles.add(handle)
        info.fh = fd
        return 0

    def read(self, path: str | None, size: int, offset: int, info: Any) -> bytes:
        fh = info.fh
        if fh >= control.FIRST_HANDLE:
            return self._control.file(fh).read(size, offset)
        return os.pread(fh, size, offset)

    def write(self, path: str | None, data: bytes, offset: int, info: Any) -> int:
        fh = info.fh
        handle = self._handles.get(fh)
        if handle is None:
            self._control.file(fh).write(data)
            return len(data)
        length = len(data)
        if handle.limit is not None and offset + length > handle.limit:
            raise refuse(errno.ENOSPC)
        try:
            written = os.pwrite(fh, data, offset)
            while written < length:  # a full disk: what fits first, the reason at the next call
                written += os.pwrite(fh, data[written:], offset + written)
        finally:
            # Only now: a flush in between must not take this write for one it has reported.
            handle.changed = True
        return length

    def truncate(self, path: str | None, length: int, info: Any = None) -> int:
        if info is not None:
            if info.fh >= control.FIRST_HANDLE:
                return 0  # only `ctl` can be open for writing
            handle = self._handles.get(info.fh)
            if handle is None:
                raise refuse(errno.EBADF)
            if handle.limit is not None and length > handle.limit:
                raise refuse(errno.ENOSPC)
            os.ftruncate(handle.fd, length)
            handle.changed = True
        elif path is not None and self._control.owns(path):
            self._control.truncate(path)
        elif path is not None:
            self._check_change(path, hidden=True)
            limit = self._host.limit(to_text(path))
            if limit is not None and length > limit:
                raise refuse(errno.ENOSPC)
            fd = self._tree.open(path, os.O_WRONLY)
            try:
                os.ftruncate(fd, length)
            finally:
                os.close(fd)
            self._changed(path)
        return 0

    def flush(self, path: str | None, info: Any) -> int:
        """Called by close(2), which waits for it, unlike for release: what it tells the session
        is known to the next command of the user."""
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
        """Raise what refuses a change at `path`; libfuse's own names pass where `hidden`."""
        if self._read_only or (path.startswith(control.ROOT) and self._control.owns(path)):
            raise refuse(errno.EROFS)
        if not hidden and hidden_name(path) is not None:
            raise refuse(errno.EPERM)

    def _changed(self, path: str) -> None:
        if hidden_name(path) is None:
            self._host.changed(to_text(path))

    def _report(self, handle: Handle) -> None:
        if handle.changed and handle.path is not None:
            handle.changed = False
            self._host.changed(to_text(handle.path))

    def _descriptor(self, info: Any) -> int:
        """The descriptor behind an open file that is to be changed."""
        if self._read_only or info.fh >= control.FIRST_HANDLE:
            raise refuse(errno.EROFS)
        fd: int = info.fh
        return fd

    def _settle(self, path: str, mode: int, fd: int | None = None) -> None:
        """Give something just made the mode and owner that its maker asked for."""
        mode = stat.S_IMODE(mode)
        if mode & self._umask:
            os.fchmod(fd, mode) if fd is not None else self._tree.at(os.chmod, path, mode)
        if self._caller is not None:
            ids = self._caller()
            if fd is not None:
                os.fchown(fd, *ids)
            else:
                self._tree.at(os.chown, path, *ids, follow_symlinks=False)
