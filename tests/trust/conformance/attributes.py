"""Modes, owners, times."""

from __future__ import annotations

import mmap
import os
import time
from pathlib import Path

from cases import (
    NOW,
    OMIT,
    Case,
    bad_paths,
    case,
    closed_folder,
    make,
    utimensat,
)


@case
def chmod_modes(c: Case) -> None:
    make("f")
    os.mkdir("d")
    for mode in (0, 0o111, 0o644, 0o755, 0o777, 0o1777, 0o2755, 0o4755, 0o6711, 0o7777, 0o400):
        for path in ("f", "d"):
            c.do(f"chmod {mode:o} {path}", os.chmod, path, mode)
            c.do(f"mode of {path}", lambda path=path: oct(os.stat(path).st_mode))
    os.chmod("d", 0o755)
    with c.changes("chmod", "f", "d", "."):
        os.chmod("f", 0o640)
    fd = os.open("f", os.O_RDWR)
    with c.changes("fchmod", "f", "."):
        c.do("fchmod", os.fchmod, fd, 0o604)
    c.do("stat", os.stat, "f")
    os.unlink("f")
    c.do("fchmod without a name", os.fchmod, fd, 0o444)
    c.do("fstat without a name", os.fstat, fd)
    os.close(fd)


@case
def chmod_errors(c: Case) -> None:
    bad_paths(c, "chmod", lambda path: os.chmod(path, 0o600))
    closed_folder(c, "chmod", lambda path: os.chmod(path, 0o600))


@case
def set_id_bits_and_writes(c: Case) -> None:
    for mode in (0o6777, 0o2777, 0o2767, 0o4755):
        make("f", b"1234", mode)
        fd = os.open("f", os.O_RDWR)
        c.do("write", os.write, fd, b"x")
        c.do(f"mode {mode:o} after a write", lambda: oct(os.stat("f").st_mode))
        os.chmod("f", mode)
        os.ftruncate(fd, 1)
        c.do(f"mode {mode:o} after ftruncate", lambda: oct(os.stat("f").st_mode))
        os.close(fd)
        os.chmod("f", mode)
        c.do("truncate", os.truncate, "f", 2)
        c.do(f"mode {mode:o} after truncate", lambda: oct(os.stat("f").st_mode))
        os.unlink("f")


@case
def chown(c: Case) -> None:
    make("f", b"", 0o644)
    uid, gid = os.geteuid(), os.getegid()
    c.do("to myself", os.chown, "f", uid, gid)
    c.do("neither", os.chown, "f", -1, -1)
    c.do("stat", os.stat, "f")
    if uid:
        c.do("to root", os.chown, "f", 0, -1)
        c.do("to root's group", os.chown, "f", -1, 0)
    with c.changes("chown", "f"):
        os.chown("f", uid, -1)
    os.chmod("f", 0o6755)
    c.do("chown of set-id", os.chown, "f", uid, gid)
    c.do("mode", lambda: oct(os.stat("f").st_mode))
    bad_paths(c, "chown", lambda path: os.chown(path, uid, gid))
    closed_folder(c, "chown", lambda path: os.chown(path, uid, gid))


@case
def chown_of_set_id(c: Case) -> None:
    """What becomes of the bits and the status time, whichever of both ids is named."""
    uid, gid = os.geteuid(), os.getegid()
    make("f", b"", 0o755)
    os.mkdir("d")
    fd = os.open("f", os.O_RDONLY)
    for mode in (0o6755, 0o2745, 0o4644):
        for ids in ((uid, gid), (-1, gid), (uid, -1), (-1, -1)):
            for name, call in (
                ("f", lambda ids=ids: os.chown("f", *ids)),
                ("f", lambda ids=ids: os.chown("f", *ids, follow_symlinks=False)),
                ("f", lambda ids=ids: os.fchown(fd, *ids)),
                ("d", lambda ids=ids: os.chown("d", *ids)),
            ):
                os.chmod(name, mode)
                c.do(f"chown of {name}, {mode:o}, {[n != -1 for n in ids]}", call)
                c.do("mode", lambda name=name: oct(os.stat(name).st_mode))
    for ids in ((uid, gid), (-1, -1)):
        with c.changes(f"chown of {[n != -1 for n in ids]}", "f", "d", "."):
            os.chown("f", *ids)
            os.chown("d", *ids)
    os.close(fd)


@case
def utimens(c: Case) -> None:
    make("f")
    os.mkdir("d")
    for path in ("f", "d"):
        for times in (
            ((1, 2), (3, 4)), ((1_700_000_000, 123_456_789), (1_600_000_000, 999_999_999)),
            ((-1, 5), (-2, 0)), ((1 << 31, 1), ((1 << 32) + 1, 2)), ((0, 0), (0, 0)),
            ((9, OMIT), (11, 12)), ((13, 14), (15, OMIT)), ((0, OMIT), (0, OMIT)),
        ):  # fmt: skip
            c.do(f"utimensat {times}", utimensat, path, *times)
            c.do("times", lambda path=path: (os.stat(path).st_atime_ns, os.stat(path).st_mtime_ns))
        for times in (
            ((0, NOW), (5, 5)),
            ((5, 5), (0, NOW)),
            ((0, NOW), (0, NOW)),
            ((0, NOW), (0, OMIT)),
        ):
            c.do(f"utimensat {times}", utimensat, path, *times)
            c.do("recent", lambda path=path: recent(path))
        c.do("bad nanoseconds", utimensat, path, (0, 1 << 30), (0, 0))
        c.do("bad nanoseconds", utimensat, path, (0, 0), (0, -1))
    with c.changes("utimensat", "f", "."):
        os.utime("f", ns=(7, 8))
    with c.changes("omitting both", "f"):
        utimensat("f", (0, OMIT), (0, OMIT))
    fd = os.open("f", os.O_RDONLY)
    c.do("futimens", utimensat, None, (21, 22), (23, 24), fd=fd)
    c.do("times", lambda: (os.fstat(fd).st_atime_ns, os.fstat(fd).st_mtime_ns))
    os.close(fd)
    bad_paths(c, "utimensat", lambda path: utimensat(path, (1, 0), (1, 0)))
    closed_folder(c, "utimensat", lambda path: utimensat(path, (1, 0), (1, 0)))
    make("mine", b"", 0o400)
    c.do("set without write permission", utimensat, "mine", (1, 0), (1, 0))
    c.do("now without write permission", utimensat, "mine", (0, NOW), (0, NOW))


def recent(path: str) -> list[bool]:
    found = os.stat(path)
    return [time.time_ns() - each < 30 * 10**9 for each in (found.st_atime_ns, found.st_mtime_ns)]


@case
def times_of_data(c: Case) -> None:
    make("f", b"x" * 5000)
    fd = os.open("f", os.O_RDWR)
    with c.changes("write", "f", "."):
        os.write(fd, b"y")
    with c.changes("write of nothing", "f"):
        os.write(fd, b"")
    with c.changes("read", "f"):
        os.read(fd, 10)
    with c.changes("fsync", "f"):
        os.fsync(fd)
    with c.changes("mmap", "f"), mmap.mmap(fd, 5000) as mapping:
        mapping[100:104] = b"mmap"
        mapping.flush()
    os.utime(fd, ns=(1, 1))
    with c.changes("close after utime", "f"):
        os.close(fd)
    fd = os.open("f", os.O_WRONLY | os.O_APPEND)
    os.write(fd, b"z")
    os.utime("f", ns=(1_234_567_890, 987_654_321))
    os.close(fd)
    c.do("cp -p's order", lambda: os.stat("f").st_mtime_ns)
    c.do("content", lambda: Path("f").read_bytes()[98:106])


@case
def set_id_bits_and_cutting(c: Case) -> None:
    """As `set_id_bits_and_writes`, by the other calls that change content."""
    for mode in (0o6777, 0o2767, 0o4755):
        for name, call in (
            ("cut by opening", lambda: os.close(os.open("f", os.O_WRONLY | os.O_TRUNC))),
            ("allocate", lambda: os.posix_fallocate(os.open("f", os.O_RDWR), 0, 100)),
            ("copy", lambda: os.copy_file_range(
                os.open("g", os.O_RDONLY), os.open("f", os.O_RDWR), 2)),
            ("open", lambda: os.close(os.open("f", os.O_RDWR))),
            ("rename", lambda: (os.rename("f", "h"), os.rename("h", "f"))),
            ("touch", lambda: os.utime("f")),
        ):  # fmt: skip
            make("f", b"1234", mode)
            if not os.path.exists("g"):
                make("g", b"from")
            c.do(f"{name} {mode:o}=", call)
            c.do("mode", lambda: oct(os.stat("f").st_mode))
            os.unlink("f")
