"""Paths: every call with names that are too long, end oddly, or lead through what is no folder."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cases import (
    LIBC,
    LONG_NAME,
    NOW,
    Case,
    bad_paths,
    called,
    case,
    closed_folder,
    make,
    utimensat,
)


def looks() -> dict[str, Callable[[str], Any]]:
    """Calls that only look; os.listdir's and os.walk's kind of opening is among them."""
    return {
        "stat": lambda path: os.stat(path).st_mode,
        "lstat": lambda path: os.lstat(path).st_mode,
        "access": lambda path: called(LIBC.access, os.fsencode(path), os.R_OK),
        "effective access": lambda path: called(
            LIBC.faccessat, -100, os.fsencode(path), os.R_OK, 0x200
        ),
        "statvfs": lambda path: os.statvfs(path).f_namemax,
        "list": lambda path: sorted(os.listdir(path)),
        "chdir": lambda path: os.chdir(path) or os.chdir(HOME[0]),
        "read link": os.readlink,
        "attributes": os.listxattr,
        "open path": lambda path: os.close(os.open(path, os.O_PATH)),
        "open folder": lambda path: os.close(os.open(path, os.O_RDONLY | os.O_DIRECTORY)),
        "open to cut": lambda path: os.close(os.open(path, os.O_WRONLY | os.O_TRUNC)),
        "execute": lambda path: called(LIBC.execv, os.fsencode(path), (ctypes.c_char_p * 1)()),
    }


HOME = [""]


@case
def looking(c: Case) -> None:
    HOME[0] = os.getcwd()
    for name, call in looks().items():
        place = name.replace(" ", "-")
        os.mkdir(place)
        os.chdir(place)
        HOME[0] = os.getcwd()
        bad_paths(c, name, call)
        closed_folder(c, name, call)
        os.chdir("..")


@case
def every_call_and_the_end_of_its_path(c: Case) -> None:
    """A file and a folder, named with a slash, a dot, two dots, many slashes, 255 bytes."""
    calls: dict[str, Callable[[str], Any]] = {
        "stat": lambda path: os.stat(path).st_mode,
        "chmod": lambda path: os.chmod(path, 0o750),
        "chown": lambda path: os.chown(path, -1, -1),
        "utimensat": lambda path: utimensat(path, (0, NOW), (0, NOW)),
        "access": lambda path: called(LIBC.access, os.fsencode(path), os.W_OK),
        "truncate": lambda path: os.truncate(path, 1),
        "open": lambda path: os.close(os.open(path, os.O_RDONLY)),
        "open to write": lambda path: os.close(os.open(path, os.O_WRONLY)),
        "create": lambda path: os.close(os.open(path, os.O_WRONLY | os.O_CREAT)),
        "create only": lambda path: os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)),
        "mkdir": os.mkdir,
        "mknod": os.mknod,
        "list": lambda path: sorted(os.listdir(path)),
        "rename": lambda path: os.rename(path, "elsewhere"),
        "rename to": lambda path: os.rename("another", path),
        "rename a folder to": lambda path: os.rename("folder", path),
        "unlink": os.unlink,
        "rmdir": os.rmdir,
        "!link from": lambda path: os.link(path, "elsewhere"),
        "!link to": lambda path: os.link("another", path),
        "!symlink": lambda path: os.symlink("another", path),
    }
    ends = (
        "f/", "f/.", "f/..", "f//", "d/", "d/.", "d/..", "d//", ".//d/.//", "d/../d/", "new/",
        "new/.", "new/..", "./new", "", "d/" + LONG_NAME, "d/" + LONG_NAME + "n",
        LONG_NAME + "n/x", "d/" * 1500 + "x",
    )  # fmt: skip
    for name, call in calls.items():
        left: object = None
        for number, end in enumerate(ends):
            if left != _LEFT:  # or it is as good as new
                os.mkdir(f"{name.replace(' ', '-')}-{number}")
                os.chdir(f"{name.replace(' ', '-')}-{number}")
                os.mkdir("d")
                os.mkdir("folder")
                make("f", b"data")
                make("another", b"more")
            shown = end if len(end) < 20 else f"{end[:6]}..({len(end)})"
            c.do(f"{name} {shown!r}", call, end)
            left = [sorted(os.listdir(".")), sorted(os.listdir("d")) if os.path.isdir("d") else 0]
            c.note("?left" if name[0] == "!" else "left", left)
            if left != _LEFT or end == ends[-1]:
                os.chdir("..")


_LEFT = [["another", "d", "f", "folder"], []]


@case
def every_call_and_the_longest_path(c: Case) -> None:
    """Names of 255 bytes and paths of 4095, which are good, and one byte more, which is not."""
    deep = "."
    while len(deep) + 201 < 4050:
        deep += "/" + "p" * 200
        os.mkdir(deep)
    make("another", b"more")
    for kind, good in (("name", LONG_NAME), ("path", f"{deep}/{'x' * (4094 - len(deep))}")):
        for path in (good, good + "x"):
            length = len(path)

            def do(what: str, call: Callable[..., Any], *args: Any, length: int = length) -> None:
                c.do(f"{what}, {length} bytes", call, *args)

            for what, call in (
                ("create", lambda path=path: make(path, b"data") == path),
                ("create what is there", lambda path=path: os.close(
                    os.open(path, os.O_CREAT | os.O_WRONLY))),
                ("stat", lambda path=path: os.stat(path)),
                ("chmod", lambda path=path: os.chmod(path, 0o640)),
                ("chown", lambda path=path: os.chown(path, os.geteuid(), -1)),
                ("truncate", lambda path=path: os.truncate(path, 2)),
                ("utimensat", lambda path=path: utimensat(path, (1, 2), (3, 4))),
                ("access", lambda path=path: os.access(path, os.W_OK)),
                ("attribute", lambda path=path: os.listxattr(path)),
                ("stat", lambda path=path: (os.stat(path).st_mode, os.stat(path).st_mtime_ns)),
                ("mkdir over it", lambda path=path: os.mkdir(path)),
                ("rename over it", lambda path=path: os.rename("another", path)),
                ("rename to a short name", lambda path=path: os.rename(path, "another")),
                ("rename from a short name", lambda path=path: os.rename("another", path)),
                ("unlink", lambda path=path: os.unlink(path)),
                ("unlink again", lambda path=path: os.unlink(path)),
                ("mkdir", lambda path=path: os.mkdir(path)),
                ("list", lambda path=path: os.listdir(path)),
                ("rmdir", lambda path=path: os.rmdir(path)),
                ("rmdir again", lambda path=path: os.rmdir(path)),
                ("mknod", lambda path=path: os.mknod(path)),
                ("unlink", lambda path=path: os.unlink(path)),
            ):  # fmt: skip
                do(what, call)
            if not os.path.exists("another"):
                make("another", b"more")
            for what, call in (
                ("symlink", lambda path=path: os.symlink("another", path)),
                ("link", lambda path=path: os.link("another", path)),
                ("fifo", lambda path=path: os.mkfifo(path)),
            ):
                do(f"!{what}", call)
                with contextlib.suppress(OSError):
                    os.unlink(path)
        c.do(f"left of the {kind}", lambda: sorted(map(len, os.listdir("."))))


@case
def descriptors_instead_of_paths(c: Case) -> None:
    """The calls' *at forms: a folder by its descriptor, and no path at all."""
    os.makedirs("d/e")
    make("d/f", b"data")
    folder, file = os.open("d", os.O_RDONLY), os.open("d/f", os.O_RDWR)
    path = os.open("d/f", os.O_PATH)
    c.do("stat", os.stat, "f", dir_fd=folder)
    c.do("stat below a file", os.stat, "f", dir_fd=file)
    c.do("stat below a number", os.stat, "f", dir_fd=999)
    c.do("mkdir", os.mkdir, "g", dir_fd=folder)
    c.do("mkdir below a file", os.mkdir, "g", dir_fd=file)
    c.do("mknod", os.mknod, "n", dir_fd=folder)
    c.do("open", lambda: os.close(os.open("new", os.O_CREAT | os.O_RDWR, dir_fd=folder)))
    c.do("chmod", os.chmod, "f", 0o604, dir_fd=folder)
    c.do("utime", os.utime, "f", dir_fd=folder, ns=(1, 2))
    c.do("rename", os.rename, "new", "newer", src_dir_fd=folder, dst_dir_fd=folder)
    c.do("rename out", os.rename, "newer", "newest", src_dir_fd=folder)
    c.do("unlink", os.unlink, "n", dir_fd=folder)
    c.do("unlink a folder", os.unlink, "g", dir_fd=folder)
    c.do("rmdir a file", os.rmdir, "f", dir_fd=folder)
    c.do("rmdir", os.rmdir, "g", dir_fd=folder)
    c.do("unlinkat with unknown flags", lambda: called(LIBC.unlinkat, folder, b"f", 0x4000))
    c.do("listing", lambda: sorted(os.listdir(folder)))
    empty, follow_not = 0x1000, 0x100
    for name, fd in (("folder", folder), ("file", file), ("path", path), ("bad", 999)):
        c.do(f"fchownat of {name}", lambda fd=fd: called(LIBC.fchownat, fd, b"", -1, -1, empty))
        c.do(f"fchownat {name} without the flag",
             lambda fd=fd: called(LIBC.fchownat, fd, b"", -1, -1, 0))  # fmt: skip
        c.do(f"fchdir to {name}", lambda fd=fd: called(LIBC.fchdir, fd) or os.chdir(".."))
        c.do(f"fchmod of {name}", lambda fd=fd: called(LIBC.fchmod, fd, 0o700))
        c.do(f"futimens of {name}", lambda fd=fd: called(LIBC.futimens, fd, None))
        c.do(f"fsync of {name}", lambda fd=fd: called(LIBC.fsync, fd))
        c.do(f"syncfs of {name}", lambda fd=fd: called(LIBC.syncfs, fd))
        c.do(f"fstat of {name}", os.fstat, fd)
        c.do(f"read of {name}", lambda fd=fd: os.read(fd, 1))
        c.do(f"write to {name}", lambda fd=fd: os.pwrite(fd, b"x", 0))
        c.do(f"ftruncate of {name}", lambda fd=fd: os.ftruncate(fd, 2))
        c.do(f"lookup below {name}", lambda fd=fd: os.stat("e", dir_fd=fd))
    c.do("no link", os.stat, "f", dir_fd=folder, follow_symlinks=False)
    c.do("chmod without following", lambda: called(LIBC.fchmodat, folder, b"f", 0o600, follow_not))
    c.do("data", lambda: Path("d/f").read_bytes())
    for name, fd in (("folder", folder), ("file", file), ("path", path), ("bad", 999)):
        new = f"linked-{name}".encode()
        c.do(f"!linkat of {name}",
             lambda fd=fd, new=new: called(LIBC.linkat, fd, b"", -100, new, empty))  # fmt: skip
    for fd in (folder, file, path):
        os.close(fd)


class OpenHow(ctypes.Structure):
    """<linux/openat2.h>, struct open_how"""

    _fields_ = tuple((name, ctypes.c_uint64) for name in ("flags", "mode", "resolve"))


@case
def resolving(c: Case) -> None:
    """openat2(2), which says how a path may be followed."""
    os.makedirs("d/e")
    make("d/f", b"data")
    folder = os.open("d", os.O_PATH)
    for name, resolve in (("below", 8), ("in root", 16), ("no links", 4), ("same mount", 1)):
        for path in (b"f", b"e", b"../d/f", b"/f", b"e/../f", b"missing", b"f/x"):
            if resolve in (1, 4) and path == b"/f":
                continue
            how = OpenHow(os.O_RDONLY, 0, resolve)

            def call(path: bytes = path, how: OpenHow = how) -> None:
                os.close(called(LIBC.syscall, 437, folder, path, ctypes.byref(how), 24))

            c.do(f"{name}: {path!r}", call)
    how = OpenHow(os.O_CREAT | os.O_RDWR, 0o600, 8)
    c.do("create", lambda: os.close(called(LIBC.syscall, 437, folder, b"n", ctypes.byref(how), 24)))
    how = OpenHow(1 << 40, 0, 0)
    c.do("unknown flags", lambda: called(LIBC.syscall, 437, folder, b"f", ctypes.byref(how), 24))
    c.do("listing", lambda: sorted(os.listdir("d")))
    os.close(folder)


@case
def every_byte_a_name_may_hold(c: Case) -> None:
    wanted = [bytes([value]) for value in range(1, 256) if value not in b"/."]
    wanted += [b"n" + name for name in wanted] + [name + b"\xcc\x81" for name in wanted[100:]]
    for name in wanted:
        os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    found = os.listdir(b".")
    c.note("all listed", sorted(found) == sorted(wanted))
    c.note("all there", all(os.path.exists(name) for name in wanted))
    for name in wanted[::5]:
        os.rename(name, b"+" + name)
    c.note("each its own", len(os.listdir(b".")))
    for one, other in ((b"case", b"CASE"), (b"\xc3\xa9", b"e\xcc\x81"), (b"ss", b"\xc3\x9f")):
        Path(os.fsdecode(one)).write_bytes(b"one")
        Path(os.fsdecode(other)).write_bytes(b"other")
        c.do("the one", lambda one=one: Path(os.fsdecode(one)).read_bytes())
        c.do("the other", lambda other=other: Path(os.fsdecode(other)).read_bytes())


@case
def addresses_that_are_none(c: Case) -> None:
    """EFAULT, for paths and for data; what could be copied before it counts."""
    make("f", b"0123456789" * 1000)
    fd = os.open("f", os.O_RDWR)
    nowhere = ctypes.c_void_p(8)
    for name, call in (
        ("open", lambda: LIBC.open(nowhere, 0)), ("unlink", lambda: LIBC.unlink(nowhere)),
        ("mkdir", lambda: LIBC.mkdir(nowhere, 0o700)), ("rmdir", lambda: LIBC.rmdir(nowhere)),
        ("rename", lambda: LIBC.rename(nowhere, b"x")), ("to", lambda: LIBC.rename(b"f", nowhere)),
        ("truncate", lambda: LIBC.truncate(nowhere, 0)), ("chmod", lambda: LIBC.chmod(nowhere, 0)),
        ("chown", lambda: LIBC.chown(nowhere, -1, -1)), ("mknod", lambda: LIBC.mkfifo(nowhere, 0)),
        ("link", lambda: LIBC.link(nowhere, b"x")), ("link to", lambda: LIBC.link(b"f", nowhere)),
        ("symlink", lambda: LIBC.symlink(b"f", nowhere)),
        ("symlink of", lambda: LIBC.symlink(nowhere, b"x")),
        ("read", lambda: LIBC.read(fd, nowhere, 10)),
        ("write", lambda: LIBC.write(fd, nowhere, 10)),
        ("times", lambda: LIBC.utimensat(-100, b"f", nowhere, 0)),
        ("list", lambda: LIBC.syscall(217, os.open(".", os.O_RDONLY), nowhere, 4096)),
    ):  # fmt: skip
        c.do(name, lambda call=call: called(call))
    LIBC.mmap.restype = ctypes.c_void_p
    pages = LIBC.mmap(None, ctypes.c_size_t(8192), 3, 0x22, -1, ctypes.c_long(0))
    LIBC.mprotect(ctypes.c_void_p(pages + 4096), ctypes.c_size_t(4096), 0)
    edge = ctypes.c_void_p(pages + 4096 - 100)
    size = ctypes.c_size_t(200)
    c.do("read into the edge", lambda: called(LIBC.pread64, fd, edge, size, ctypes.c_long(0)))
    c.do("size", os.fstat, fd)
    ctypes.memset(edge, ord("x"), 100)
    wrote = LIBC.pwrite64(fd, edge, size, ctypes.c_long(20_000))
    c.note("write from the edge is all or what was there", wrote in (-1, 100))
    c.note("size", os.fstat(fd).st_size in (10_000, 20_100))
    os.close(fd)
