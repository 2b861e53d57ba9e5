"""Several processes at one file: mappings, locks, appends, notices."""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from cases import (
    LIBC,
    Case,
    called,
    case,
    make,
)


def elsewhere(call: Callable[[], Any]) -> str:
    """What a call answers in another process, which has our open files; 'signal N' if it died."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            answer = repr(call())
        except OSError as error:
            answer = f"errno {error.errno}"
        os.write(writing, answer.encode())
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as said:
        answer = said.read().decode()
    status = os.waitpid(child, 0)[1]
    return f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else answer


@case
def mappings(c: Case) -> None:
    make("f", b"x" * 10_000)
    fd = os.open("f", os.O_RDWR)
    shared = mmap.mmap(fd, 10_000)

    def change() -> bytes:
        with mmap.mmap(os.open("f", os.O_RDWR), 10_000) as theirs:
            theirs[5000:5003] = b"abc"
            return theirs[:3]

    c.do("changed by another", elsewhere, change)
    c.note("seen in the mapping", shared[4999:5004].hex())
    c.do("seen by reading", os.pread, fd, 5, 4999)
    os.pwrite(fd, b"W", 9999)
    c.note("written is mapped", shared[9998:10_000].hex())
    private = mmap.mmap(fd, 10_000, flags=mmap.MAP_PRIVATE)
    private[0:1] = b"P"
    c.do("private is private", os.pread, fd, 1, 0)
    c.do("sync", shared.flush)
    os.ftruncate(fd, 4096)
    c.do("beyond the end", elsewhere, lambda: shared[4096])
    c.do("before the end", elsewhere, lambda: shared[4095])
    os.ftruncate(fd, 10_000)
    c.do("within again", elsewhere, lambda: shared[4096])
    os.unlink("f")
    shared[1:2] = b"U"
    c.do("without a name", os.pread, fd, 2, 0)
    os.close(fd)
    c.note("without a descriptor", shared[0:2].hex())
    shared.close()
    private.close()
    make("empty")
    fd = os.open("empty", os.O_RDWR)
    c.do("not a page", lambda: mmap.mmap(fd, 10, offset=4097))
    os.close(fd)


def lock(kind: int, start: int, length: int) -> bytes:
    return struct.pack("hhqqi4x", kind, os.SEEK_SET, start, length, 0)


@case
def locks_of_ranges(c: Case) -> None:
    make("f", b"x" * 100)
    fd, other = os.open("f", os.O_RDWR), os.open("f", os.O_RDWR)
    reader, writer = os.open("f", os.O_RDONLY), os.open("f", os.O_WRONLY)
    get, put, wait = fcntl.F_GETLK, fcntl.F_SETLK, fcntl.F_SETLKW
    own, own_get = 37, 36  # <fcntl.h>, F_OFD_SETLK, F_OFD_GETLK

    def ask(call: int, kind: int, start: int, length: int, through: int = fd) -> Any:
        kind, _, start, length, pid = struct.unpack(
            "hhqqi4x", fcntl.fcntl(through, call, lock(kind, start, length))
        )
        return kind, start, length, pid in (os.getppid(), -1)

    def fresh(*words: int) -> Callable[[], Any]:
        return lambda: ask(*words, through=os.open("f", os.O_RDWR))[:3]

    c.do("write 10 to 19", ask, put, fcntl.F_WRLCK, 10, 10)
    c.do("read 30 to 39", ask, put, fcntl.F_RDLCK, 30, 10)
    for name, words in (
        ("who has 15", (get, fcntl.F_RDLCK, 15, 1)), ("who has 30", (get, fcntl.F_RDLCK, 30, 1)),
        ("who has 30 to write", (get, fcntl.F_WRLCK, 0, 0)),
        ("write 19", (put, fcntl.F_WRLCK, 19, 5)), ("write 20", (put, fcntl.F_WRLCK, 20, 5)),
        ("read 35", (put, fcntl.F_RDLCK, 35, 1)), ("write 35", (put, fcntl.F_WRLCK, 35, 1)),
        ("read to the end", (put, fcntl.F_RDLCK, 40, 0)),
    ):  # fmt: skip
        c.do(name, elsewhere, fresh(*words))
    c.do("part of it", ask, put, fcntl.F_UNLCK, 12, 3)
    c.do("the rest, asked", elsewhere, fresh(get, fcntl.F_WRLCK, 12, 3))
    c.do("around it", elsewhere, fresh(get, fcntl.F_WRLCK, 11, 3))
    c.do("upgrade", ask, wait, fcntl.F_WRLCK, 30, 5)
    c.do("to write a read-only file", ask, put, fcntl.F_WRLCK, 0, 1, through=reader)
    c.do("to read a write-only file", ask, put, fcntl.F_RDLCK, 0, 1, through=writer)
    c.do("negative", ask, put, fcntl.F_RDLCK, -5, 1)
    os.close(other)
    c.do("all gone with any close", elsewhere, fresh(get, fcntl.F_WRLCK, 0, 0))
    c.do("open file's own", ask, own, fcntl.F_WRLCK, 0, 50)
    c.do("another open file", fresh(own, fcntl.F_WRLCK, 10, 1))
    c.do("asked", fresh(own_get, fcntl.F_WRLCK, 10, 1))
    c.do("another process", elsewhere, fresh(put, fcntl.F_WRLCK, 10, 1))
    c.do("inherited", elsewhere, lambda: ask(own, fcntl.F_WRLCK, 20, 1)[:3])
    fcntl.flock(fd, fcntl.LOCK_EX)
    c.do("whole file, another process", elsewhere, lambda: fcntl.flock(
        os.open("f", os.O_RDONLY), fcntl.LOCK_SH | fcntl.LOCK_NB))  # fmt: skip
    c.do("to shared", fcntl.flock, fd, fcntl.LOCK_SH)
    c.do("shared", elsewhere, lambda: fcntl.flock(
        os.open("f", os.O_RDONLY), fcntl.LOCK_SH | fcntl.LOCK_NB))  # fmt: skip
    for each in (fd, reader, writer):
        os.close(each)
    c.do("lease", lambda: fcntl.fcntl(os.open("f", os.O_RDONLY), 1025, fcntl.F_UNLCK))


@case
def appends_of_processes(c: Case) -> None:
    make("f")
    script = (
        "import os\nfd = os.open('f', os.O_WRONLY | os.O_APPEND)\n"
        "for n in range(50): os.write(fd, b'%07d\\n' % n)"
    )
    both = [subprocess.Popen([sys.executable, "-c", script]) for _ in range(2)]
    c.note("ended", [process.wait() for process in both])
    with open("f") as file:
        c.note("nothing lost or torn", sorted(file) == sorted(f"{n // 2:07}\n" for n in range(100)))
    fd = os.open("f", os.O_RDWR)
    os.lseek(fd, 8, os.SEEK_SET)
    elsewhere(lambda: os.read(fd, 16))
    c.do("a place that is shared", os.lseek, fd, 0, os.SEEK_CUR)
    again = os.dup(fd)
    os.lseek(again, 100, os.SEEK_SET)
    c.do("and by a copy", os.lseek, fd, 0, os.SEEK_CUR)
    os.close(fd)
    c.do("which stays", os.pread, again, 3, 8)
    os.close(again)


@case
def notices(c: Case) -> None:
    """inotify(7), by which editors and file managers see changes."""
    os.mkdir("d")
    watcher = called(LIBC.inotify_init1, os.O_NONBLOCK)
    called(LIBC.inotify_add_watch, watcher, b"d", 0xFC6 | 8)  # all but opening and reading
    make("d/f", b"data")
    os.rename("d/f", "d/g")
    os.utime("d/g", ns=(1, 2))
    os.truncate("d/g", 1)
    os.mkdir("d/sub")
    os.rename("d/g", "g")
    os.rename("g", "d/h")
    os.unlink("d/h")
    os.rmdir("d/sub")
    os.rmdir("d")
    try:
        data = os.read(watcher, 1 << 16)
    except BlockingIOError:
        data = b""
    seen = []
    while data:
        _, mask, _, length = struct.unpack_from("iIII", data)
        seen.append([hex(mask), data[16 : 16 + length].strip(b"\0").decode()])
        data = data[16 + length :]
    c.note("seen", seen)
    os.close(watcher)
