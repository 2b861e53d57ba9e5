"""Open files: their flags, their handles by number, and many of them."""

from __future__ import annotations

import ctypes
import fcntl
import os
import subprocess
from pathlib import Path

from cases import (
    LIBC,
    Case,
    called,
    case,
    make,
)

GET, SET = fcntl.F_GETFL, fcntl.F_SETFL
CREATED = 1028  # <linux/fcntl.h>, F_CREATED_QUERY


@case
def flags_of_an_open_file(c: Case) -> None:
    make("f", b"0123456789")
    for name, flags in (
        ("read", os.O_RDONLY), ("write", os.O_WRONLY), ("both", os.O_RDWR),
        ("append", os.O_WRONLY | os.O_APPEND), ("sync", os.O_RDWR | os.O_SYNC),
        ("data sync", os.O_RDWR | os.O_DSYNC), ("not waiting", os.O_RDWR | os.O_NONBLOCK),
        ("cut", os.O_RDWR | os.O_TRUNC), ("create", os.O_RDWR | os.O_CREAT),
        ("path", os.O_PATH), ("no access time", os.O_RDONLY | os.O_NOATIME),
    ):  # fmt: skip
        fd = os.open("f", flags)
        c.do(name, lambda fd=fd: hex(fcntl.fcntl(fd, GET)))
        c.do("made by this", fcntl.fcntl, fd, CREATED)
        os.close(fd)
    fd = os.open("new", os.O_RDWR | os.O_CREAT)
    c.do("new: made by this", fcntl.fcntl, fd, CREATED)
    os.close(fd)
    fd = os.open("f", os.O_RDWR)
    other = os.dup(fd)
    os.write(fd, b"0123456789")
    os.lseek(fd, 0, os.SEEK_SET)
    for what, flags in (
        ("append", os.O_APPEND), ("not", 0), ("not waiting", os.O_NONBLOCK), ("sync", os.O_SYNC),
        ("~direct", os.O_DIRECT), ("not direct", 0),
    ):  # fmt: skip
        c.do(f"{what}: set", fcntl.fcntl, fd, SET, flags)
        if what != "~direct":
            c.do("of its copy", lambda: hex(fcntl.fcntl(other, GET)))
            c.do("write", os.write, fd, b"ab")
        c.do("content", lambda: Path("f").read_bytes())
    for each in (fd, other):
        os.close(each)


@case
def reading_and_writing_with_flags(c: Case) -> None:
    make("f", b"x" * 10_000)
    fd = os.open("f", os.O_RDWR)
    appender = os.open("f", os.O_RDWR | os.O_APPEND)
    for name, flag in (("high priority", 1), ("data sync", 2), ("sync", 4), ("not waiting", 8),
                       ("append", 0x10), ("no append", 0x20), ("atomic", 0x40),
                       ("uncached", 0x80)):  # fmt: skip
        room = bytearray(10)
        c.do(f"~read {name}", os.preadv, fd, [room], 0, flag)
        c.do(f"~write {name}", os.pwritev, fd, [b"yy"], 0, flag)
        c.do("?size", os.fstat, fd)
        c.do(f"~write {name} to append", os.pwritev, appender, [b"zz"], 0, flag)
        c.do("?size", os.fstat, fd)
    for each in (fd, appender):
        os.close(each)


class FileHandle(ctypes.Structure):
    _fields_ = (("bytes", ctypes.c_uint), ("type", ctypes.c_int), ("data", ctypes.c_char * 128))


@case
def opened_by_handle(c: Case) -> None:
    os.mkdir("d")
    make("d/f", b"data")
    home = os.open(".", os.O_RDONLY)
    mount = ctypes.c_int()
    found = FileHandle(bytes=128)
    c.do("its handle", called, LIBC.name_to_handle_at, home, b"d/f", ctypes.byref(found),
         ctypes.byref(mount), 0)  # fmt: skip
    kept = os.open("d/f", os.O_RDONLY)

    def again() -> bytes:
        fd = called(LIBC.open_by_handle_at, home, ctypes.byref(found), os.O_RDONLY)
        with os.fdopen(fd, "rb") as file:
            return file.read()

    c.do("open it", again)
    os.rename("d/f", "g")
    c.do("renamed", again)
    os.unlink("g")
    c.do("without a name", again)
    os.close(kept)
    c.do("gone", again)
    os.close(home)


@case
def many_that_are_open(c: Case) -> None:
    """Each keeps what is its own when its name, and the folder of its name, have gone."""
    count = 100
    os.mkdir("d")
    opened = []
    for number in range(count):
        opened.append(os.open(f"d/{number}", os.O_CREAT | os.O_RDWR, 0o644))
        os.write(opened[-1], b"%d" % number)
    for number in range(count):
        os.unlink(f"d/{number}")
    c.do("listed", os.listdir, "d")
    c.do("rmdir", os.rmdir, "d")
    right = [os.pread(fd, 9, 0) == b"%d" % number for number, fd in enumerate(opened)]
    c.note("each its own", right.count(True))
    for fd in opened:
        os.pwrite(fd, b"more", 9)
    c.note("and more", [os.pread(fd, 9, 9) for fd in opened].count(b"more"))
    for fd in opened:
        os.close(fd)


@case
def run_without_a_name(c: Case) -> None:
    Path("true").write_bytes(Path("/bin/true").read_bytes())
    os.chmod("true", 0o755)
    fd = os.open("true", os.O_RDONLY)
    os.unlink("true")
    c.do("run it", lambda: subprocess.run(
        [f"/proc/self/fd/{fd}"], pass_fds=(fd,), check=False).returncode)  # fmt: skip
    os.close(fd)


@case
def requests_for_files(c: Case) -> None:
    """ioctl(2)s that programs make of any file."""
    make("f", b"0123456789")
    make("g")
    fd, other = os.open("f", os.O_RDWR), os.open("g", os.O_RDWR)
    os.lseek(fd, 4, os.SEEK_SET)
    room = bytearray(64)
    for name, number in (
        ("to read", 0x541B), ("terminal", 0x5401), ("map of blocks", 1), ("block size", 2),
        ("async", 0x5452), ("unknown", 0x1234),
    ):  # fmt: skip
        c.do(f"{name}=" if name == "block size" else name, fcntl.ioctl, fd, number, room)
    c.note("left", int.from_bytes(room[:4], "little") if room else 0)
    c.do("~clone", fcntl.ioctl, other, 0x40049409, fd)
    c.do("?size", os.fstat, other)
    for each in (fd, other):
        os.close(each)
