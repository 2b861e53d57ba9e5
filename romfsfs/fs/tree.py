"""The work tree, accessed relative to a directory descriptor.

It takes long paths, odd names, unlinked open files, and the system calls whose arguments Python's
`os` cannot express. Paths come from libfuse as '/a/b', each character a byte of the name (Latin-1,
see `binding.py`), so every name that a file system can hold passes through unharmed.

libfuse keeps an open file that is unlinked or renamed over by renaming it to `.fuse_hiddenN` in
the same folder, N being 16 hexadecimal digits (`hidden_name` in its `lib/fuse.c`). Here such names
live in a folder of their own: they show in no listing, do not keep their folder from being removed,
and are never packed. Creating one is refused (EPERM), but a user's `mv` to one cannot be told from
libfuse's own rename, and removes the file. One that came with an image is a file like any other.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

#: bytes of the longest path that the kernel takes in one call, with its NUL
PATH_MAX = 1024 if sys.platform == "darwin" else 4096

_HIDDEN = re.compile(rb"\.fuse_hidden[0-9a-f]{16}")

# Only to walk through: O_PATH needs no read permission on the folders in between.
_WALK = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


# <linux/fs.h>
RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2

# <linux/falloc.h>
PUNCH_HOLE = 2

_NO_FOLLOW = 0x20 if sys.platform == "darwin" else 0x100  # <fcntl.h>, AT_SYMLINK_NOFOLLOW

_LIBC = ctypes.CDLL(None, use_errno=True)

# The call with 64-bit sizes on every machine: the first in glibc, the second in musl.
_FALLOCATE = getattr(_LIBC, "fallocate64", None) or getattr(_LIBC, "fallocate", None)


def to_text(path: str) -> str:
    """libfuse's '/a/b' as the host knows it: 'a/b', names as `os.fsdecode` gives them."""
    if path.isascii():
        return path[1:]
    return os.fsdecode(path.encode("latin-1"))[1:]


def hidden_name(path: str) -> bytes | None:
    """The name in the folder for unlinked files if `path` is a hidden one of libfuse's, or None."""
    if ".fuse_hidden" not in path:
        return None
    last = path.rpartition("/")[2].encode("latin-1")
    return last if _HIDDEN.fullmatch(last) else None


class WorkTree:
    """Calls `os` functions on paths relative to the work tree. Any thread."""

    def __init__(self, work_fd: int, hidden_fd: int, keeps_times: bool) -> None:
        """keeps_times: reading leaves access times alone (mount option `noatime`)."""
        self.work_fd = work_fd
        self.hidden_fd = hidden_fd
        self._unnoticed = getattr(os, "O_NOATIME", 0) if keeps_times else 0
        self._ordinary: set[str] = set()  # paths with hidden names that were in the work tree

    def hidden_name(self, path: str) -> bytes | None:
        """As the function of that name, but None for a path that is or was in the work tree."""
        hidden = hidden_name(path)
        if hidden is None or path in self._ordinary:
            return None
        try:
            self._in_work(os.stat, path, follow_symlinks=False)
        except OSError:
            return hidden
        self._ordinary.add(path)  # libfuse takes no name that exists
        return None

    def at(self, function: Callable[..., Any], path: str, *args: Any, **options: Any) -> Any:
        """`function(name, *args, dir_fd=...)` with the descriptor and name that mean `path`."""
        if ".fuse_hidden" in path:
            hidden = self.hidden_name(path)
            if hidden is not None:
                return function(hidden, *args, dir_fd=self.hidden_fd, **options)
        return self._in_work(function, path, *args, **options)

    def _in_work(self, function: Callable[..., Any], path: str, *args: Any, **options: Any) -> Any:
        """As `at`, whatever the name."""
        name = path.encode("latin-1")[1:] or b"."
        if len(name) < PATH_MAX:
            return function(name, *args, dir_fd=self.work_fd, **options)
        with self._walked(name) as (dir_fd, last):
            return function(last, *args, dir_fd=dir_fd, **options)

    def stat(self, path: str) -> os.stat_result:
        result: os.stat_result = self.at(os.stat, path, follow_symlinks=False)
        return result

    def open(self, path: str, flags: int, mode: int = 0o666) -> int:
        flags |= os.O_NOFOLLOW | os.O_CLOEXEC | self._unnoticed
        try:
            fd: int = self.at(os.open, path, flags, mode)
        except OSError as error:
            if error.errno != errno.EPERM or not self._unnoticed:  # O_NOATIME may be refused so
                raise
            fd = self.at(os.open, path, flags & ~self._unnoticed, mode)
        return fd

    def rename(self, old: str, new: str, rename: Callable[..., None] = os.rename) -> None:
        """rename(2) between the two, by `rename`, which takes os.rename's arguments."""

        def with_source(source: bytes, *, dir_fd: int) -> None:
            source_fd = dir_fd

            def with_target(target: bytes, *, dir_fd: int) -> None:
                rename(source, target, src_dir_fd=source_fd, dst_dir_fd=dir_fd)

            self.at(with_target, new)

        self.at(with_source, old)

    def remove_leftovers(self) -> None:
        """Remove unlinked files. Only before the mount begins or after it has ended."""
        for name in os.listdir(self.hidden_fd):
            with contextlib.suppress(OSError):
                os.unlink(name, dir_fd=self.hidden_fd)

    @contextlib.contextmanager
    def _walked(self, name: bytes) -> Iterator[tuple[int, bytes]]:
        """(descriptor of the folder, last component) of a path too long for one call."""
        parts = name.split(b"/")
        last = parts.pop()
        fd = os.dup(self.work_fd)
        try:
            while parts:
                step = [parts.pop(0)]
                length = len(step[0])
                while parts and length + 1 + len(parts[0]) < PATH_MAX:
                    length += 1 + len(parts[0])
                    step.append(parts.pop(0))
                inner = os.open(b"/".join(step), _WALK, dir_fd=fd)
                os.close(fd)
                fd = inner
            yield fd, last
        finally:
            os.close(fd)


def refuse(number: int) -> OSError:
    """The OSError for an error number, with the system's own words."""
    return OSError(number, os.strerror(number))


def set_times(name: bytes, times: Any, *, dir_fd: int) -> None:
    """utimensat(2), not following links. Raises OSError.

    times: a pointer to libfuse's two `struct timespec`, with UTIME_NOW and UTIME_OMIT as numbers
    of the C library's own; None: both now. Only the kernel can apply these without a moment in
    which another program's change gets lost.
    """
    if _LIBC.utimensat(dir_fd, name, times, _NO_FOLLOW):
        raise refuse(ctypes.get_errno())


def truncate_path(fd: int, length: int) -> None:
    """truncate(2) of the file that the O_PATH descriptor `fd` refers to.

    Not ftruncate: truncate(2) leaves the times alone if the file has this length already.
    """
    os.truncate(f"/proc/self/fd/{fd}", length)


def allocate(fd: int, mode: int, offset: int, length: int) -> None:
    """fallocate(2). Raises OSError, EOPNOTSUPP where the system or file system has no such call.

    Not `os.posix_fallocate`, which takes no mode, and writes where the file system cannot.
    """
    if _FALLOCATE is None:
        raise refuse(errno.EOPNOTSUPP)
    place = ctypes.c_int64(offset), ctypes.c_int64(length)
    while _FALLOCATE(fd, mode, *place) != 0:
        number = ctypes.get_errno()
        if number != errno.EINTR:  # a signal to this process does not concern the caller
            raise refuse(number)


def renamer(flags: int) -> Callable[..., None]:
    """A function with `os.rename`'s arguments that renames with these renameat2(2) flags.

    Raises OSError EINVAL where the system has no such call; programs then do without.
    """
    if not flags:
        return os.rename
    if not sys.platform.startswith("linux"):
        raise refuse(errno.EINVAL)
    try:
        renameat2 = _LIBC.renameat2
    except AttributeError:  # a C library older than glibc 2.28 or musl 1.2.6
        raise refuse(errno.EINVAL) from None

    def rename(source: bytes, target: bytes, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        if renameat2(src_dir_fd, source, dst_dir_fd, target, ctypes.c_uint(flags)) != 0:
            raise refuse(ctypes.get_errno())

    return rename
