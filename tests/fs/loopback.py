"""The yardstick: a bare fusepy loopback, `python loopback.py ROOT MOUNTPOINT`, in the foreground.

What one writes first with fusepy: paths joined, results copied, options as romfsfs uses them.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from fuse import FUSE, Operations

_STAT = ("atime", "ctime", "gid", "mode", "mtime", "nlink", "size", "uid", "blocks")


class Loopback(Operations):  # type: ignore[misc]
    use_ns = True
    flag_utime_omit_ok = 1

    def __init__(self, root: str) -> None:
        self.root = root

    def __call__(self, op: str, path: str | None, *args: Any) -> Any:
        return super().__call__(op, self.root + path if path is not None else None, *args)

    def getattr(self, path: str, fh: int | None = None) -> dict[str, int]:
        found = os.lstat(path)
        return {
            f"st_{name}": getattr(found, f"st_{name}_ns" if name.endswith("time") else f"st_{name}")
            for name in _STAT
        }

    def access(self, path: str, mode: int) -> None:
        if not os.access(path, mode):
            raise PermissionError(13, path)

    def readdir(self, path: str, fh: int) -> list[str]:
        return [".", "..", *os.listdir(path)]

    def statfs(self, path: str) -> dict[str, int]:
        found = os.statvfs(path)
        return {
            key: getattr(found, key)
            for key in ("f_bsize", "f_frsize", "f_blocks", "f_bfree", "f_bavail", "f_files",
                        "f_ffree", "f_favail", "f_namemax")
        }  # fmt: skip

    def open(self, path: str, flags: int) -> int:
        return os.open(path, flags)

    def create(self, path: str, mode: int, fi: Any = None) -> int:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, mode)

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        return os.pread(fh, size, offset)

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        return os.pwrite(fh, data, offset)

    def truncate(self, path: str, length: int, fh: int | None = None) -> None:
        os.truncate(path if fh is None else fh, length)

    def release(self, path: str, fh: int) -> None:
        os.close(fh)

    def utimens(self, path: str, times: tuple[int, int] | None = None) -> None:
        os.utime(path, ns=times)

    def rename(self, old: str, new: str) -> None:
        os.rename(old, self.root + new)

    def chmod(self, path: str, mode: int) -> None:
        os.chmod(path, mode)

    def mkdir(self, path: str, mode: int) -> None:
        os.mkdir(path, mode)

    def rmdir(self, path: str) -> None:
        os.rmdir(path)

    def unlink(self, path: str) -> None:
        os.unlink(path)


if __name__ == "__main__":
    FUSE(
        Loopback(os.path.realpath(sys.argv[1])), sys.argv[2],
        foreground=True, big_writes=True, auto_cache=True, fsname="loopback",
    )  # fmt: skip
