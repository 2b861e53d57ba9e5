"""What flags ask of an open file, and buffers, places and lengths of reading and writing."""

from __future__ import annotations

import ctypes
import mmap
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

from cases import (
    LIBC,
    Case,
    called,
    case,
    make,
)


@case
def opening_with_flags_together(c: Case) -> None:
    make("f", b"12345")
    os.mkdir("d")
    for name, flags in (
        ("create folder", os.O_CREAT | os.O_DIRECTORY), ("exclusive alone", os.O_EXCL),
        ("read and cut", os.O_RDONLY | os.O_TRUNC), ("append and cut", 0o2001 | os.O_TRUNC),
        ("path and write", os.O_PATH | os.O_RDWR), ("path and cut", os.O_PATH | os.O_TRUNC),
        ("path and create", os.O_PATH | os.O_CREAT), ("all access", os.O_ACCMODE),
        ("create, only, cut", os.O_CREAT | os.O_EXCL | os.O_TRUNC | os.O_WRONLY),
        ("data sync", os.O_DSYNC | os.O_RDWR), ("asynchronous", os.O_ASYNC | os.O_RDONLY),
        ("large", 0o100000 | os.O_RDONLY), ("folder and cut", os.O_DIRECTORY | os.O_TRUNC),
        ("no terminal", os.O_NOCTTY), ("unknown", 1 << 30),
    ):  # fmt: skip
        for path in ("f", "d", "new"):
            fd = c.opened(f"{name} {path}", path, flags)
            if fd >= 0:
                os.close(fd)
            c.do("size", lambda: os.stat("f").st_size)
            if os.path.isfile("new"):
                os.unlink("new")
            Path("f").write_bytes(b"12345")
    fd = os.open("f", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
    c.do("write", os.write, fd, b"ab")
    c.do("place", os.lseek, fd, 0, os.SEEK_CUR)
    os.truncate("f", 0)
    c.do("write after a cut", os.write, fd, b"c")
    os.rename("f", "g")
    make("f", b"")
    c.do("write after a rename", os.write, fd, b"d")
    c.do("content", lambda: [Path(name).read_bytes() for name in ("f", "g")])
    os.close(fd)


@case
def a_path_descriptor(c: Case) -> None:
    make("f", b"data")
    fd = os.open("f", os.O_PATH)
    os.rename("f", "g")
    c.do("stat after a rename", os.fstat, fd)
    c.do("open again", lambda: os.read(os.open(f"/proc/self/fd/{fd}", os.O_RDONLY), 9))
    c.do("chmod through /proc", os.chmod, f"/proc/self/fd/{fd}", 0o600)
    c.do("truncate through /proc", os.truncate, f"/proc/self/fd/{fd}", 2)
    c.do("stat", os.fstat, fd)
    c.do("where", lambda: os.path.basename(os.readlink(f"/proc/self/fd/{fd}")))
    os.unlink("g")
    c.do("stat without a name", os.fstat, fd)
    os.close(fd)


@case
def direct_and_synchronous(c: Case) -> None:
    room = mmap.mmap(-1, 1 << 16)
    room[:] = bytes(range(256)) * 256
    fd = c.opened("~direct", "f", os.O_CREAT | os.O_RDWR | os.O_DIRECT)
    if fd >= 0:
        c.do("write", os.pwritev, fd, [memoryview(room)[:8192]], 0)
        c.do("write at 4096", os.pwritev, fd, [memoryview(room)[:4096]], 4096)
        c.do("read", os.preadv, fd, [memoryview(room)[4096:12288]], 0)
        c.do("read at the end", os.preadv, fd, [memoryview(room)[:4096]], 8192)
        c.do("size", os.fstat, fd)
        os.close(fd)
    with Path("f").open("rb") as file:
        c.do("content", lambda: file.read() == bytes(range(256)) * 32)
    fd = os.open("f", os.O_RDWR | os.O_SYNC)
    with c.changes("synchronous write", "f"):
        c.do("write", os.pwrite, fd, b"sync", 3)
    for name, call in (
        ("fdatasync", lambda: os.fdatasync(fd)),
        ("advice", lambda: os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)),
        ("range", lambda: called(LIBC.sync_file_range, fd, ctypes.c_long(0), ctypes.c_long(10), 7)),
        ("read ahead", lambda: called(LIBC.readahead, fd, ctypes.c_long(0), ctypes.c_size_t(10))),
    ):
        c.do(name, call)
    c.do("content", os.pread, fd, 9, 0)
    os.close(fd)


@case
def places_and_buffers(c: Case) -> None:
    make("f")
    fd = os.open("f", os.O_RDWR)
    c.do("writev", os.writev, fd, [bytes([number % 256]) * number for number in range(1000)])
    c.do("size", os.fstat, fd)
    parts = [bytearray(number) for number in range(1000)]
    c.do("preadv", os.preadv, fd, parts, 0)
    c.note("as written", all(set(part) <= {n % 256} for n, part in enumerate(parts)))
    c.do("too many buffers", os.writev, fd, [b"x"] * 1025)
    c.do("no buffers", os.preadv, fd, [], 0)
    c.do("nothing", os.write, fd, b"")
    c.do("read nothing", os.read, fd, 0)
    c.do("read at the end", os.pread, fd, 10, 499_500)
    c.do("read beyond", os.pread, fd, 10, 1 << 40)
    c.do("across the end", os.pread, fd, 100, 499_490)
    for name, offset in (("negative", -1), ("least", -(1 << 63)), ("last", (1 << 63) - 1)):
        place = ctypes.c_int64(offset)
        room = ctypes.create_string_buffer(10)
        c.do(f"pread {name}", lambda p=place, r=room: called(LIBC.pread64, fd, r, 10, p))
        c.do(f"pwrite {name}", lambda p=place, r=room: called(LIBC.pwrite64, fd, r, 10, p))
    for name, flags in (("append", 0x10), ("data sync", 2), ("sync", 4), ("unknown", 1 << 20)):
        c.do(f"~pwritev2 {name}", os.pwritev, fd, [b"zz"], 0, flags)
        c.do("?size", os.fstat, fd)
    for whence in (os.SEEK_SET, os.SEEK_CUR, os.SEEK_END, 9, -1):
        for offset in (0, -5, 5, (1 << 63) - 1):
            os.lseek(fd, 100, os.SEEK_SET)
            if whence != os.SEEK_END:
                c.do(f"seek {offset} from {whence}", os.lseek, fd, offset, whence)
    os.ftruncate(fd, 5000)
    for offset in (0, 4999, 5000, 5001, -1):
        c.do(f"hole from {offset}", os.lseek, fd, offset, os.SEEK_HOLE)
        c.do(f"data from {offset}", os.lseek, fd, offset, os.SEEK_DATA)
    os.close(fd)
    c.do("closed", os.pread, fd, 1, 0)


@case
def what_was_cut_off_is_zero(c: Case) -> None:
    for cut in (10, 4096, 5000):
        make("f", b"x" * 9000)
        fd = os.open("f", os.O_RDWR)
        os.pread(fd, 9000, 0)
        os.ftruncate(fd, cut)
        c.do("read at the cut", os.pread, fd, 20, cut - 5)
        os.ftruncate(fd, 9000)
        c.note("zeros", not any(os.pread(fd, 9000, cut)))
        os.ftruncate(fd, cut)
        os.pwrite(fd, b"y", 8000)
        c.note("zeros before what is written", not any(os.pread(fd, 8000 - cut, cut)))
        os.truncate("f", 100)
        os.truncate("f", 8000)
        c.do("cut by name", lambda: Path("f").read_bytes().count(b"\0"))
        os.close(fd)
        os.unlink("f")


@case
def pipes_and_copies(c: Case) -> None:
    make("f", bytes(range(256)) * 40)
    make("g", b"")
    f, g = os.open("f", os.O_RDWR), os.open("g", os.O_RDWR)
    reading, writing = os.pipe()
    c.do("file to pipe", os.splice, f, writing, 5000, offset_src=100)
    c.do("pipe to file", os.splice, reading, g, 5000, offset_dst=10)
    c.do("content", lambda: os.pread(g, 5000, 10) == os.pread(f, 5000, 100))
    c.do("size", os.fstat, g)
    c.do("copy", os.copy_file_range, f, g, 3000, 0, 20_000)
    c.do("size", os.fstat, g)
    c.do("copy beyond the end", os.copy_file_range, f, g, 10, 99_999, 0)
    c.do("copy across the end", os.copy_file_range, f, g, 500, 10_000, 0)
    c.do("copy onto itself", os.copy_file_range, f, f, 100, 0, 50)
    c.do("copy within", os.copy_file_range, f, f, 100, 0, 5000)
    folder, reader = os.open(".", os.O_RDONLY), os.open("f", os.O_RDONLY)
    writer, appender = os.open("g", os.O_WRONLY), os.open("g", os.O_WRONLY | os.O_APPEND)
    for name, source, target in (
        ("a folder", folder, g), ("to a folder", f, folder), ("write-only", writer, g),
        ("to read-only", f, reader), ("to append", f, appender), ("a pipe", reading, g),
    ):  # fmt: skip
        c.do(f"copy: {name}", os.copy_file_range, source, target, 10, 0, 0)
        c.do(f"send: {name}", os.sendfile, target, source, 0, 10)
    for fd in (f, g, reading, writing, folder, reader, writer, appender):
        os.close(fd)


@case
def space_by_name_of_its_ways(c: Case) -> None:
    make("f", b"x" * 20_000)
    fd = os.open("f", os.O_RDWR)
    for name, mode, offset, length in (
        ("keep", 1, 30_000, 4096), ("punch", 3, 4096, 4096), ("punch without keep", 2, 0, 10),
        ("zero", 0x10, 100, 100), ("collapse", 8, 4096, 4096), ("insert", 0x20, 4096, 4096),
        ("unshare", 0x40, 0, 100), ("unknown", 0x1000, 0, 10), ("no length", 1, 0, 0),
        ("negative", 1, -1, 10), ("too far", 1, (1 << 63) - 1, 10),
    ):  # fmt: skip
        where = ctypes.c_int64(offset), ctypes.c_int64(length)
        c.do(f"~{name}", called, LIBC.fallocate64, fd, mode, *where)
        c.do("?size", os.fstat, fd)
        c.do("?zeros", lambda: Path("f").read_bytes().count(b"\0"))
    os.close(fd)


LIMITED = """
import os, resource, signal
count = 0
def counted(*_):
    global count
    count += 1
signal.signal(signal.SIGXFSZ, counted)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
fd = os.open("f", os.O_CREAT | os.O_RDWR)
for call in (lambda: os.write(fd, bytes(2000)), lambda: os.write(fd, b"x"),
             lambda: os.truncate("f", 1001), lambda: os.ftruncate(fd, 2000),
             lambda: os.posix_fallocate(fd, 0, 5000), lambda: os.pwrite(fd, b"x", 999)):
    try:
        print(call(), end=" ")
    except OSError as error:
        print(error.errno, end=" ")
print(count, os.fstat(fd).st_size)
"""


@case
def the_signal_of_a_limit(c: Case) -> None:
    done = subprocess.run([sys.executable, "-c", LIMITED], capture_output=True, check=False)
    c.note("answers, signals, size", done.stdout.decode())


@case
def waiting_for_a_file(c: Case) -> None:
    """A file is always ready."""
    make("f", b"x")
    fd = os.open("f", os.O_RDWR | os.O_NONBLOCK)
    c.do("select", lambda: [len(ready) for ready in select.select([fd], [fd], [], 0)])
    poll = select.poll()
    poll.register(fd, select.POLLIN | select.POLLOUT)
    c.do("poll", lambda: [event for _, event in poll.poll(0)])
    c.do("epoll", lambda: select.epoll().register(fd))
    c.do("not waiting", os.read, fd, 5)
    os.close(fd)


@case
def programs_and_scripts(c: Case) -> None:
    Path("true").write_bytes(Path("/bin/true").read_bytes())
    Path("script").write_text("#!/bin/sh\necho said $1\n")
    for mode in (0o644, 0o755, 0o111, 0o511):
        for name in ("true", "script"):
            os.chmod(name, mode)
            c.do(f"{name} {mode:o}", lambda name=name: subprocess.run(
                [f"./{name}", "it"], capture_output=True, check=False).returncode)  # fmt: skip
    os.chmod("true", 0o755)
    fd = os.open("true", os.O_WRONLY)
    c.do("run what is written to", lambda: subprocess.run(["./true"], check=False).returncode)
    os.close(fd)
    c.do("run it then", lambda: subprocess.run(["./true"], check=False).returncode)
    Path("sleep").write_bytes(Path("/bin/sleep").read_bytes())
    os.chmod("sleep", 0o755)
    process = subprocess.Popen(["./sleep", "30"])
    try:
        Path("new").write_bytes(b"new")
        c.do("rename over it", os.rename, "new", "sleep")
        c.do("it runs on", process.poll)
        c.do("the new one", lambda: Path("sleep").read_bytes())
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
