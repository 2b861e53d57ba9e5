"""A file system that is mounted read-only: what is refused for that, and what comes before."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cases import (
    LIBC,
    NOW,
    OMIT,
    Case,
    called,
    make,
    utimensat,
)


def prepare(root: Path) -> None:
    """What there is to be changed, for as long as the file system is not read-only yet."""
    make(f"{root}/f", b"data", 0o644)
    make(f"{root}/closed", b"data", 0o444)
    os.makedirs(f"{root}/d/e")
    os.mkdir(f"{root}/empty")


def read_only(c: Case) -> None:
    """Run in the prepared folder itself, as none can be made for the case."""
    some, now, omit = (1, 2), (0, NOW), (0, OMIT)
    pairs: dict[str, Callable[[str], Any]] = {
        "chmod": lambda path: os.chmod(path, 0o600),
        "chown": lambda path: os.chown(path, os.geteuid(), -1),
        "chown to nobody": lambda path: os.chown(path, -1, -1),
        "truncate": lambda path: os.truncate(path, 1),
        "truncate to the same": lambda path: os.truncate(path, 4),
        "set times": lambda path: utimensat(path, some, some),
        "touch": lambda path: utimensat(path, now, now),
        "set no time": lambda path: utimensat(path, omit, omit),
        "unlink": os.unlink,
        "rmdir": os.rmdir,
        "mkdir": os.mkdir,
        "mknod": os.mknod,
        "fifo": os.mkfifo,
        "device": lambda path: os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3)),
        "symlink": lambda path: os.symlink("f", path),
        "link": lambda path: os.link("f", path),
        "link from": lambda path: os.link(path, "new"),
        "rename": lambda path: os.rename(path, "new"),
        "rename over": lambda path: os.rename("f", path),
        "rename a folder over": lambda path: os.rename("empty", path),
        "rename to itself": lambda path: os.rename(path, path),
        "access": lambda path: called(LIBC.access, os.fsencode(path), os.W_OK),
        "access to read": lambda path: called(LIBC.access, os.fsencode(path), os.R_OK),
        "attribute": lambda path: os.removexattr(path, "user.x"),
        "stat": lambda path: os.stat(path).st_mode,
    }
    for name, flags in (
        ("read", os.O_RDONLY), ("write", os.O_WRONLY), ("both", os.O_RDWR),
        ("append", os.O_WRONLY | os.O_APPEND), ("cut", os.O_WRONLY | os.O_TRUNC),
        ("read and cut", os.O_RDONLY | os.O_TRUNC), ("create", os.O_RDONLY | os.O_CREAT),
        ("create to write", os.O_WRONLY | os.O_CREAT),
        ("create only", os.O_WRONLY | os.O_CREAT | os.O_EXCL),
        ("unnamed", os.O_TMPFILE | os.O_RDWR), ("path", os.O_PATH),
    ):  # fmt: skip
        pairs[f"open to {name}"] = lambda path, flags=flags: os.close(os.open(path, flags))
    for name, call in pairs.items():
        for path in (
            "f",
            "closed",
            "d",
            "empty",
            "d/e",
            "new",
            "new/",
            "f/x",
            "missing/x",
            ".",
            "",
        ):
            c.do(f"{name} {path!r}", call, path)
    for path, flags in (("f", os.O_RDONLY), ("d", os.O_RDONLY | os.O_DIRECTORY)):
        fd = os.open(path, flags)
        c.do(f"fchmod of {path}", os.fchmod, fd, 0o600)
        c.do(f"fchown of {path}", os.fchown, fd, os.geteuid(), -1)
        c.do(f"futimens of {path}", utimensat, None, some, some, fd=fd)
        c.do(f"ftruncate of {path}", os.ftruncate, fd, 1)
        c.do(f"allocate in {path}", os.posix_fallocate, fd, 0, 10)
        c.do(f"fsync of {path}", os.fsync, fd)
        os.close(fd)
    c.do("flags of statvfs", lambda: os.statvfs(".").f_flag & os.ST_RDONLY)
    c.do("left", lambda: sorted([*os.listdir("."), *os.listdir("d")]))
    c.do("content", lambda: Path("f").read_bytes())
