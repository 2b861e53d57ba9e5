"""Times: of folders and files, of what succeeds and what fails, and far from now."""

from __future__ import annotations

import os

from cases import (
    Case,
    case,
    make,
    next_tick,
    utimensat,
)


@case
def times_of_names(c: Case) -> None:
    """What each call that changes names does to the times of both folders and of the file."""
    for folder in ("one", "two"):
        os.mkdir(folder)
    make("one/f", b"data")
    make("two/g", b"more")
    os.mkdir("one/d")
    os.mkdir("two/e")
    for path in ("one/d", "two/e", "one/f", "two/g"):
        os.utime(path, ns=(1, 2))
    watched = ("one", "two", "one/f", "two/g", "one/d", "two/e", ".")
    for name, call in (
        ("create over a file", lambda: os.open("one/f", os.O_CREAT | os.O_EXCL)),
        ("mkdir over a file", lambda: os.mkdir("one/f")),
        ("unlink a folder", lambda: os.unlink("one/d")),
        ("rmdir a file", lambda: os.rmdir("one/f")),
        ("rename a file over a folder", lambda: os.rename("one/f", "two/e")),
        ("rename a folder over a file", lambda: os.rename("one/d", "two/g")),
        ("rename a folder into itself", lambda: os.rename("one", "one/d/x")),
        ("truncate a folder", lambda: os.truncate("one/d", 0)),
        ("truncate to less than nothing", lambda: os.truncate("one/f", -1)),
        ("open a folder to write", lambda: os.open("one/d", os.O_WRONLY)),
        ("open for reading", lambda: os.close(os.open("one/f", os.O_RDONLY))),
        ("open for writing", lambda: os.close(os.open("one/f", os.O_WRONLY))),
        ("stat", lambda: os.stat("one/f")), ("list", lambda: os.listdir("one")),
        ("chmod to the same", lambda: os.chmod("one/f", 0o644)),
        ("mknod", lambda: os.mknod("one/n")),
        ("rename over", lambda: os.rename("one/n", "two/g")),
        ("folder over folder", lambda: os.rename("one/d", "two/e")),
        ("chmod a folder", lambda: os.chmod("two/e", 0o700)),
        ("utime a folder", lambda: os.utime("two/e")),
    ):  # fmt: skip
        there = tuple(path for path in watched if os.path.exists(path))
        with c.changes(name, *there):
            c.do(f"{name}=", call)
    fd = os.open("two/g", os.O_RDWR)
    before = os.fstat(fd).st_ctime_ns
    next_tick()
    os.unlink("two/g")
    c.note("unlink: status time of what is open", os.fstat(fd).st_ctime_ns > before)
    os.close(fd)


@case
def access_times(c: Case) -> None:
    """As far as a plain directory keeps them: the first reading after a change."""
    make("f", b"data")
    os.mkdir("d")
    make("d/x")
    for path in ("f", "d"):
        os.utime(path, ns=(1, 2))
    with open("f", "rb") as file:
        file.read()
    c.note("read", os.stat("f").st_atime_ns > 10**18)
    os.listdir("d")
    c.note("listed", os.stat("d").st_atime_ns > 10**18)
    c.note("others stay", [os.stat(path).st_mtime_ns for path in ("f", "d")])
    make("g", b"data")
    os.utime("g", ns=(1, 2))
    os.stat("g")
    os.chmod("g", 0o600)
    os.close(os.open("g", os.O_RDONLY))
    fd = os.open("g", os.O_WRONLY)
    os.write(fd, b"x")
    os.close(fd)
    c.note("not read", os.stat("g").st_atime_ns)


@case
def times_far_away(c: Case) -> None:
    make("f")
    for seconds, nanoseconds in (
        (1 << 33, 1), (1 << 34, 999_999_999), (-(1 << 31), 1), (-(1 << 31) - 1, 999_999_999),
        (-(1 << 33), 5), (1, 73_741_823), (1, 73_741_822), (-1, 999_999_999), (0, 1),
        (4_102_444_800, 123_456_789),
    ):  # fmt: skip
        when = (seconds, nanoseconds)
        c.do(f"set {when}", utimensat, "f", when, when)
        c.do("times", lambda: (os.stat("f").st_atime_ns, os.stat("f").st_mtime_ns))
