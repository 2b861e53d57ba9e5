"""Content: sizes, holes, large files, files without a name."""

from __future__ import annotations

import ctypes
import mmap
import os
import resource
import signal
from pathlib import Path

from cases import (
    LIBC,
    LONG_NAME,
    Case,
    bad_paths,
    called,
    case,
    closed_folder,
    make,
)


@case
def truncate(c: Case) -> None:
    make("f", b"0123456789")
    for size in (5, 0, 7, 4096, 12345, 1 << 20, 3):
        with c.changes(f"truncate to {size}", "f"):
            c.do("truncate", os.truncate, "f", size)
        c.do("stat", os.stat, "f")
        c.do("content", lambda: Path("f").read_bytes().strip(b"\0"))
    with c.changes("truncate to the same", "f"):
        c.do("truncate", os.truncate, "f", 3)
    c.do("negative", os.truncate, "f", -1)
    os.mkdir("d")
    c.do("a folder", os.truncate, "d", 0)
    bad_paths(c, "truncate", lambda path: os.truncate(path, 0))
    closed_folder(c, "truncate", lambda path: os.truncate(path, 0))
    make("closed", b"x", 0o400)
    c.do("without write permission", os.truncate, "closed", 0)
    fd = os.open("f", os.O_RDWR)
    for size in (5, 0, 4097):
        with c.changes(f"ftruncate to {size}", "f"):
            c.do("ftruncate", os.ftruncate, fd, size)
        c.do("fstat", os.fstat, fd)
    c.do("negative", os.ftruncate, fd, -1)
    os.unlink("f")
    c.do("ftruncate without a name", os.ftruncate, fd, 9)
    c.do("fstat without a name", os.fstat, fd)
    os.close(fd)


@case
def beyond_2_gib(c: Case) -> None:
    fd = os.open("f", os.O_CREAT | os.O_RDWR, 0o644)
    for place in ((1 << 31) - 1, (1 << 32) + 5, (1 << 40) + 1):
        c.do(f"pwrite at {place}", os.pwrite, fd, b"abc", place)
        c.do("size", os.fstat, fd)
        c.do("before", os.pread, fd, 3, place - 3)
        c.do("read", os.pread, fd, 9, place)
        c.do("sparse", lambda: os.fstat(fd).st_blocks < 4096)
        c.do("mapped", lambda place=place: mapped(fd, place))
    for size in ((1 << 33) + 7, (1 << 31) + 1, 1 << 31, 100):
        c.do(f"ftruncate {size}", os.ftruncate, fd, size)
        c.do("size", os.fstat, fd)
    c.do("huge", os.truncate, "f", 10**15)
    c.do("size", os.fstat, fd)
    c.do("far too large", os.truncate, "f", (1 << 63) - 1)
    c.do("pwrite too far", os.pwrite, fd, b"xx", (1 << 63) - 2)
    c.do("seek", os.lseek, fd, 1 << 40, os.SEEK_SET)
    c.do("ftruncate to nothing", os.ftruncate, fd, 0)
    c.do("size", os.fstat, fd)
    os.close(fd)


def mapped(fd: int, place: int) -> bytes:
    start = place & -mmap.ALLOCATIONGRANULARITY
    with mmap.mmap(fd, place + 3 - start, prot=mmap.PROT_READ, offset=start) as found:
        return bytes(found[-3:])


@case
def limits_of_the_process(c: Case) -> None:

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    fd = os.open("f", os.O_CREAT | os.O_RDWR)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))
    try:
        c.do("write up to the limit", os.pwrite, fd, bytes(20_000), 0)
        c.do("write beyond", os.pwrite, fd, b"x", 10_000)
        c.do("truncate beyond", os.ftruncate, fd, 10_001)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
    c.do("size", os.fstat, fd)
    os.close(fd)


@case
def fallocate(c: Case) -> None:
    fd = os.open("f", os.O_CREAT | os.O_RDWR, 0o644)
    c.do("posix_fallocate", os.posix_fallocate, fd, 0, 10_000)
    c.do("size", os.fstat, fd)
    c.do("inside", os.posix_fallocate, fd, 100, 10)
    c.do("size", os.fstat, fd)
    c.do("no length", os.posix_fallocate, fd, 0, 0)
    c.do("negative", os.posix_fallocate, fd, -1, 10)
    os.pwrite(fd, b"data", 0)
    c.do("over data", os.posix_fallocate, fd, 0, 20_000)
    c.do("data", os.pread, fd, 6, 0)
    c.do(
        "~keep size",
        lambda: called(LIBC.fallocate64, fd, 1, ctypes.c_int64(0), ctypes.c_int64(50_000)),
    )
    c.do("~punch", lambda: called(LIBC.fallocate64, fd, 3, ctypes.c_int64(0), ctypes.c_int64(2)))
    c.do("size", os.fstat, fd)
    os.close(fd)
    fd = os.open("f", os.O_RDONLY)
    c.do("read-only", os.posix_fallocate, fd, 0, 10)
    os.close(fd)


@case
def times_of_lengths(c: Case) -> None:
    """What makes a file longer or shorter changes its times; what is refused does not."""
    make("f", b"x" * 100)
    fd, reader = os.open("f", os.O_WRONLY), os.open("f", os.O_RDONLY)
    for what, call in (
        ("allocate beyond the end", lambda: os.posix_fallocate(fd, 20_000, 3456)),
        ("allocate inside", lambda: os.posix_fallocate(fd, 0, 10)),
        ("allocate nothing", lambda: os.posix_fallocate(fd, 0, 0)),
        ("allocate through a reader", lambda: os.posix_fallocate(reader, 0, 50_000)),
        ("ftruncate", lambda: os.ftruncate(fd, 567)),
        ("ftruncate to less than nothing", lambda: os.ftruncate(fd, -999_999)),
        ("ftruncate through a reader", lambda: os.ftruncate(reader, 123)),
        ("truncate to less than nothing", lambda: os.truncate("f", -999_999)),
        ("truncate", lambda: os.truncate("f", 1_234_567)),
    ):
        with c.changes(what, "f"):
            c.do(what, call)
        c.do("size", os.fstat, fd)
    for each in (fd, reader):
        os.close(each)


@case
def copies_in_the_kernel(c: Case) -> None:
    make("f", bytes(range(256)) * 64)
    source = os.open("f", os.O_RDONLY)
    target = os.open("g", os.O_CREAT | os.O_RDWR)
    c.do("copy_file_range", os.copy_file_range, source, target, 10_000, 5, 3)
    c.do("sendfile", os.sendfile, target, source, 0, 1000)
    c.do("same", lambda: os.pread(target, 9_000, 1003) == os.pread(source, 9_000, 1005))
    c.do("end of data", os.lseek, source, 0, os.SEEK_HOLE)
    c.do("data", os.lseek, source, 5, os.SEEK_DATA)
    c.do("data beyond", os.lseek, source, 1 << 20, os.SEEK_DATA)
    os.close(source)
    os.close(target)


@case
def unlink(c: Case) -> None:
    make("f", b"data")
    os.mkdir("d")
    fd = os.open("f", os.O_RDWR)
    with c.changes("unlink", "."):
        c.do("unlink", os.unlink, "f")
    c.do("again", os.unlink, "f")
    c.do("fstat", os.fstat, fd)
    c.do("read", os.pread, fd, 9, 0)
    c.do("write", os.pwrite, fd, b"more", 2)
    c.do("read", os.pread, fd, 9, 0)
    c.do("listing", lambda: sorted(os.listdir(".")))
    make("f", b"another")
    c.do("the new one", lambda: Path("f").read_bytes())
    c.do("the old one", os.pread, fd, 9, 0)
    c.do("times without a name", os.utime, fd, ns=(5, 6))
    c.do("times", lambda: (os.fstat(fd).st_atime_ns, os.fstat(fd).st_mtime_ns))
    c.do("another handle", lambda: os.close(os.open(f"/proc/self/fd/{fd}", os.O_RDONLY)))
    os.close(fd)
    with c.changes("failing unlink", ".", "d"):
        c.do("a folder", os.unlink, "d")
    c.do("a folder with a slash", os.unlink, "d/")
    c.do("dot", os.unlink, ".")
    c.do("dot dot", os.unlink, "..")
    make(LONG_NAME)
    c.do("longest name", os.unlink, LONG_NAME)
    bad_paths(c, "unlink", os.unlink)
    closed_folder(c, "unlink", os.unlink)


@case
def unlink_and_folders(c: Case) -> None:
    os.makedirs("a/b")
    make("a/b/f", b"deep")
    fd = os.open("a/b/f", os.O_RDWR)
    os.unlink("a/b/f")
    c.do("empty now", os.listdir, "a/b")
    c.do("rename the folder", os.rename, "a/b", "a/c")
    c.do("rmdir", os.rmdir, "a/c")
    c.do("rmdir above", os.rmdir, "a")
    c.do("still there", os.pread, fd, 9, 0)
    c.do("write", os.pwrite, fd, b"x", 100)
    c.do("fchmod", os.fchmod, fd, 0o600)
    c.do("fstat", os.fstat, fd)
    c.do("fsync", os.fsync, fd)
    os.close(fd)
