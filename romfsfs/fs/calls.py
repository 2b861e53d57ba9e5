"""Two system calls whose special arguments Python's `os` cannot express."""

from __future__ import annotations

import ctypes
import errno
import os
import sys
import time
from collections.abc import Callable

from romfsfs.fs.tree import refuse

RENAME_EXCHANGE = 2  # <linux/fs.h>

# <linux/stat.h>: instead of nanoseconds: the clock's time, or leave it as it is. libfuse passes
# them on with zero seconds, and the bindings as if they were times.
UTIME_NOW = (1 << 30) - 1
UTIME_OMIT = (1 << 30) - 2


def resolve_times(
    times: tuple[int, int] | None, find: Callable[[], os.stat_result]
) -> tuple[int, int] | None:
    """(access, modification) time in ns as `os.utime` takes them; None: both now.

    Whoever may write may set both to now; anything else takes the owner. find: the file's
    present stat, called when one of them stays.
    """
    if times is None or times == (UTIME_NOW, UTIME_NOW):
        return None
    now = time.time_ns()
    atime, mtime = (now if given == UTIME_NOW else given for given in times)
    if UTIME_OMIT in times:
        found = find()
        atime = found.st_atime_ns if atime == UTIME_OMIT else atime
        mtime = found.st_mtime_ns if mtime == UTIME_OMIT else mtime
    return atime, mtime


def renamer(flags: int) -> Callable[..., None]:
    """A function with `os.rename`'s arguments that renames with these renameat2(2) flags.

    Raises OSError EINVAL where the system has no such call; programs then do without.
    """
    if not flags:
        return os.rename
    if not sys.platform.startswith("linux"):
        raise refuse(errno.EINVAL)
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:  # a C library older than glibc 2.28 or musl 1.2.6
        raise refuse(errno.EINVAL) from None

    def rename(source: bytes, target: bytes, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        if renameat2(src_dir_fd, source, dst_dir_fd, target, ctypes.c_uint(flags)) != 0:
            raise refuse(ctypes.get_errno())

    return rename
