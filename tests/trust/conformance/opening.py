"""What opens, how, and for what."""

from __future__ import annotations

import ctypes
import mmap
import os
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cases import (
    LIBC,
    LONG_NAME,
    Case,
    bad_paths,
    called,
    case,
    closed_folder,
    make,
    next_tick,
)


@case
def open_create(c: Case) -> None:
    for mask, mode in ((0, 0o666), (0o22, 0o666), (0o77, 0o777), (0o345, 0o777), (0o22, 0o4755)):
        os.umask(mask)
        name = f"f{mask:o}-{mode:o}"
        os.close(c.opened(f"create {name}", name, os.O_CREAT | os.O_WRONLY, mode))
        os.umask(0o22)
        c.do("mode", lambda name=name: oct(os.stat(name).st_mode))
    with c.changes("create", "."):
        make("f", b"12345")
    c.do("exclusive", os.open, "f", os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    os.mkdir("d")
    c.do("exclusive over a folder", os.open, "d", os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    c.do("create over a folder", os.open, "d", os.O_CREAT | os.O_RDONLY)
    with c.changes("opening what is there", ".", "f"):
        os.close(c.opened("create what is there", "f", os.O_CREAT | os.O_RDONLY))
    c.do("size", os.stat, "f")
    with c.changes("truncating", ".", "f"):
        os.close(c.opened("truncate", "f", os.O_WRONLY | os.O_TRUNC))
    c.do("size", os.stat, "f")
    with c.changes("truncating what is empty", "f"):
        os.close(c.opened("truncate", "f", os.O_WRONLY | os.O_TRUNC))
    os.close(c.opened("longest name", LONG_NAME, os.O_CREAT | os.O_WRONLY))
    c.do("create with a slash", os.open, "new/", os.O_CREAT | os.O_WRONLY)
    c.do("create dot", os.open, ".", os.O_CREAT | os.O_WRONLY)
    bad_paths(c, "create", lambda path: os.close(os.open(path, os.O_CREAT | os.O_WRONLY)))
    closed_folder(
        c, "create", lambda path: os.close(os.open(path, os.O_CREAT | os.O_WRONLY)), also="2"
    )


@case
def open_kinds(c: Case) -> None:
    make("f", b"12345")
    os.mkdir("d")
    for name, flags in (
        ("read", os.O_RDONLY), ("write", os.O_WRONLY), ("both", os.O_RDWR),
        ("folder", os.O_RDONLY | os.O_DIRECTORY), ("folder to write", os.O_RDWR | os.O_DIRECTORY),
        ("cut", os.O_WRONLY | os.O_TRUNC), ("path", os.O_PATH), ("no link", os.O_NOFOLLOW),
        ("append", os.O_APPEND | os.O_WRONLY), ("sync", os.O_SYNC | os.O_RDWR),
        ("not waiting", os.O_NONBLOCK), ("no access time", os.O_NOATIME),
    ):  # fmt: skip
        for path in ("d", "f"):
            fd = c.opened(f"open {path} {name}", path, flags)
            if fd >= 0:
                os.close(fd)
    c.do("f", os.stat, "f")
    bad_paths(c, "open", lambda path: os.close(os.open(path, os.O_RDONLY)))
    closed_folder(c, "open", lambda path: os.close(os.open(path, os.O_RDONLY)))
    closed_folder_write = lambda path: os.close(os.open(path, os.O_WRONLY))  # noqa: E731
    make("g", b"x")
    for mode in (0, 0o100, 0o200, 0o400, 0o600, 0o077):
        os.chmod("g", mode)
        c.do(f"read {mode:o}", lambda: os.close(os.open("g", os.O_RDONLY)))
        c.do(f"write {mode:o}", closed_folder_write, "g")
        c.do(f"both {mode:o}", lambda: os.close(os.open("g", os.O_RDWR)))
        c.do(f"cut {mode:o}", lambda: os.close(os.open("g", os.O_RDONLY | os.O_TRUNC)))
        c.do(f"access {mode:o}", lambda: [os.access("g", m) for m in (os.R_OK, os.W_OK, os.X_OK)])
    os.mkdir("h")
    for mode in (0, 0o100, 0o400, 0o500, 0o300, 0o700):
        os.chmod("h", mode)
        c.do(f"list {mode:o}", os.listdir, "h")
        c.do(f"enter {mode:o}", os.chdir, "h")
        if os.getcwd().endswith("/h"):
            os.chdir("..")
    for flags in (os.O_RDWR | os.O_TRUNC, os.O_RDONLY | os.O_TRUNC):
        c.do("cut a folder", os.open, "d", flags)
    c.do("~unnamed file", lambda: os.close(os.open(".", os.O_TMPFILE | os.O_RDWR)))


@case
def what_is_new(c: Case) -> None:
    """Whose it is, which bits the mask leaves, and that its times are those of its making."""
    kinds: dict[str, Callable[[str, int], Any]] = {
        "file": lambda path, mode: os.close(os.open(path, os.O_CREAT | os.O_WRONLY, mode)),
        "folder": os.mkdir,
        "node": lambda path, mode: os.mknod(path, stat.S_IFREG | mode),
    }
    for kind, create in kinds.items():
        for mask, mode in ((0, 0o755), (0, 0o151), (0o77, 0o151), (0o70, 0o345), (0o501, 0o345)):
            name = f"{kind}{mask:o}-{mode:o}"
            os.umask(mask)
            c.do(f"make {name}", create, name, mode)
            os.umask(0o22)
            c.do("mode", lambda name=name: oct(os.stat(name).st_mode))
        found = os.stat(name)
        c.note("mine", (found.st_uid == os.geteuid(), found.st_gid == os.getegid()))
        before = os.stat(".").st_ctime_ns
        next_tick()
        create(f"new-{kind}", 0o700)
        found, above = os.stat(f"new-{kind}"), os.stat(".")
        c.note("data and access at one moment", found.st_atime_ns == found.st_mtime_ns)
        times = found.st_mtime_ns, found.st_ctime_ns, above.st_mtime_ns, above.st_ctime_ns
        c.note("its times and the folder's are new", [each > before for each in times])


@case
def made_without_any_permission(c: Case) -> None:
    """Mode 0 binds the next who opens a file, not who makes it."""
    for name, access in (("read", os.O_RDONLY), ("write", os.O_WRONLY), ("both", os.O_RDWR)):
        fd = c.opened(f"make to {name}", name, os.O_CREAT | access, 0)
        c.do("mode", lambda name=name: oct(os.stat(name).st_mode))
        c.do("ftruncate to nothing", os.ftruncate, fd, 0)
        c.do("ftruncate", os.ftruncate, fd, 10)
        c.do("allocate", os.posix_fallocate, fd, 0, 100)
        c.do("read", os.pread, fd, 4, 0)
        c.do("fstat", os.fstat, fd)
        os.close(fd)
        c.do("open it again", lambda name=name: os.close(os.open(name, os.O_RDONLY)))
        c.do("cut it", lambda name=name: os.close(os.open(name, os.O_RDONLY | os.O_TRUNC)))
        c.do("create what is there", lambda name=name: os.close(
            os.open(name, os.O_CREAT | os.O_WRONLY, 0o666)))  # fmt: skip
        c.do("size", lambda name=name: os.stat(name).st_size)


@case
def handles_obey_how_they_were_opened(c: Case) -> None:
    fd = os.open("f", os.O_CREAT | os.O_RDWR, 0)
    c.do("write to mode 0", os.write, fd, b"0123456789")
    c.do("read it back", os.pread, fd, 20, 0)
    os.close(fd)
    os.chmod("f", 0o600)
    fd = os.open("f", os.O_RDONLY)
    c.do("write to read-only", os.write, fd, b"x")
    c.do("ftruncate read-only", os.ftruncate, fd, 1)
    c.do("fsync read-only", os.fsync, fd)
    c.do("mmap writable of read-only", lambda: mmap.mmap(fd, 4, prot=mmap.PROT_WRITE))
    c.do("mmap", lambda: bytes(mmap.mmap(fd, 4, prot=mmap.PROT_READ)))
    os.close(fd)
    fd = os.open("f", os.O_WRONLY)
    c.do("read from write-only", os.read, fd, 1)
    c.do("mmap of write-only", lambda: mmap.mmap(fd, 4, prot=mmap.PROT_READ))
    c.do("seek to a negative place", os.lseek, fd, -1, os.SEEK_SET)
    c.do("seek beyond the end", os.lseek, fd, 1 << 33, os.SEEK_SET)
    c.do("seek from the end", os.lseek, fd, -3, os.SEEK_END)
    c.do(
        "pwrite at a negative place", lambda: called(LIBC.pwrite64, fd, b"x", 1, ctypes.c_int64(-1))
    )
    os.close(fd)
    one = os.open("f", os.O_WRONLY | os.O_APPEND)
    two = os.open("f", os.O_WRONLY | os.O_APPEND)
    for _ in range(3):
        os.write(one, b"1")
        os.write(two, b"2")
    c.do("pwrite to append", os.pwrite, one, b"p", 0)
    os.close(one)
    os.close(two)
    c.do("content", lambda: Path("f").read_bytes())
    folder = os.open(".", os.O_RDONLY)
    c.do("read a folder", os.read, folder, 10)
    c.do("fsync of a folder", os.fsync, folder)
    c.do("fchmod of a folder", os.fchmod, folder, 0o700)
    c.do("fchdir", os.fchdir, folder)
    os.close(folder)


@case
def a_program_that_runs(c: Case) -> None:
    Path("sleep").write_bytes(Path("/bin/sleep").read_bytes())
    c.do(
        "execute without the bit", lambda: subprocess.run(["./sleep", "0"], check=False).returncode
    )
    os.chmod("sleep", 0o755)
    process = subprocess.Popen(["./sleep", "30"])
    try:
        c.do("open to write", lambda: os.close(os.open("sleep", os.O_WRONLY)))
        c.do("cut", lambda: os.close(os.open("sleep", os.O_WRONLY | os.O_TRUNC)))
        c.do("open for both", lambda: os.close(os.open("sleep", os.O_RDWR)))
        c.do("truncate", os.truncate, "sleep", 1)
        c.do("open to read", lambda: os.close(os.open("sleep", os.O_RDONLY)))
        c.do("cut by a reader", lambda: os.close(os.open("sleep", os.O_RDONLY | os.O_TRUNC)))
        c.do("size after that", lambda: os.stat("sleep").st_size)
        c.do("unlink", os.unlink, "sleep")
    finally:
        process.kill()
        process.wait()
