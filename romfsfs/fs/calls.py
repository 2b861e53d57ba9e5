"""System calls whose special arguments Python's `os` cannot express."""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from collections.abc import Callable
from typing import Any

from romfsfs.fs.tree import refuse

# <linux/fs.h>
RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2

# <linux/falloc.h>
PUNCH_HOLE = 2

_NO_FOLLOW = 0x20 if sys.platform == "darwin" else 0x100  # <fcntl.h>, AT_SYMLINK_NOFOLLOW

_LIBC = ctypes.CDLL(None, use_errno=True)

# With sizes of 64 bits on every machine: glibc has them in the first, musl knows only the second.
_FALLOCATE = getattr(_LIBC, "fallocate64", None) or getattr(_LIBC, "fallocate", None)


def set_times(name: bytes | None, times: Any, *, dir_fd: int) -> None:
    """utimensat(2); without a name, the times of `dir_fd` itself.

    times: a pointer to libfuse's two `struct timespec`, in which the clock's time and "leave it"
    are numbers of the C library's own; None: both now. Only the system can do the latter two
    without a moment in which someone else's change gets lost.
    """
    flags = 0 if name is None else _NO_FOLLOW
    if _LIBC.utimensat(dir_fd, name, times, flags) != 0:
        raise refuse(ctypes.get_errno())


def truncate_path(fd: int, length: int) -> None:
    """truncate(2) of a file that `fd` is an O_PATH descriptor of.

    Not ftruncate: of a file that has this length already truncate(2) leaves the times alone.
    """
    os.truncate(f"/proc/self/fd/{fd}", length)


def allocate(fd: int, mode: int, offset: int, length: int) -> None:
    """fallocate(2). Raises OSError EOPNOTSUPP where the system or the disk has no such call.

    Not `os.posix_fallocate`, which knows no modes, and writes where the disk cannot.
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
