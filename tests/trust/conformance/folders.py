"""Making, listing and removing folders; names and long paths."""

from __future__ import annotations

import os
from pathlib import Path

from cases import (
    LONG_NAME,
    Case,
    bad_paths,
    case,
    closed_folder,
    make,
)


@case
def mkdir(c: Case) -> None:
    for mask, mode in ((0, 0o777), (0o22, 0o777), (0o77, 0o777), (0o70, 0o345), (0o777, 0o777)):
        os.umask(mask)
        name = f"d{mask:o}-{mode:o}"
        c.do(f"mkdir {name}", os.mkdir, name, mode)
        os.umask(0o22)
        c.do("stat", lambda name=name: oct(os.stat(name).st_mode))
    c.do("links of .", lambda: os.stat(".").st_nlink)
    with c.changes("mkdir", "."):
        os.mkdir("in", 0o2775)
    os.chmod("in", 0o2775)
    c.do("below set-group-id", os.mkdir, "in/herits")
    c.do("mode", lambda: oct(os.stat("in/herits").st_mode))
    c.do("links of in", lambda: os.stat("in").st_nlink)
    make("f")
    with c.changes("failing mkdir", "."):
        c.do("over a file", os.mkdir, "f")
        c.do("over a folder", os.mkdir, "in")
    c.do("dot", os.mkdir, ".")
    c.do("dot dot", os.mkdir, "..")
    c.do("with a slash", os.mkdir, "slash/")
    c.do("below itself", os.mkdir, "new/.")
    c.do("longest name", os.mkdir, LONG_NAME)
    bad_paths(c, "mkdir", os.mkdir)
    closed_folder(c, "mkdir", os.mkdir, also="new")


@case
def rmdir(c: Case) -> None:
    os.mkdir("d")
    with c.changes("rmdir", "."):
        c.do("rmdir", os.rmdir, "d")
    c.do("again", os.rmdir, "d")
    os.mkdir("full")
    make("full/f")
    with c.changes("failing rmdir", ".", "full"):
        c.do("not empty", os.rmdir, "full")
        c.do("not empty with a slash", os.rmdir, "full/")
    c.do("dot", os.rmdir, "full/.")
    c.do("dot dot", os.rmdir, "full/..")
    c.do("a file", os.rmdir, "full/f")
    os.mkdir(LONG_NAME)
    c.do("longest name", os.rmdir, LONG_NAME)
    os.mkdir("slash")
    c.do("with a slash", os.rmdir, "slash/")
    bad_paths(c, "rmdir", os.rmdir)
    closed_folder(c, "rmdir", lambda path: os.rmdir(path[:-1] + "d"))
    c.note(
        "still there", [name for name in ("no-search", "no-write") if os.path.exists(f"{name}/d")]
    )


@case
def a_removed_folder(c: Case) -> None:
    os.mkdir("gone")
    fd = os.open("gone", os.O_RDONLY)
    home = os.getcwd()
    os.chdir("gone")
    c.do("rmdir of the working directory", os.rmdir, "../gone")
    c.do("getcwd", os.getcwd)
    c.do("create in it", os.open, "x", os.O_CREAT | os.O_WRONLY)
    c.do("mkdir in it", os.mkdir, "x")
    c.do("list it", os.listdir, ".")
    os.chdir(home)
    c.do("openat in it", os.open, "x", os.O_CREAT | os.O_WRONLY, dir_fd=fd)
    c.do("fstat", lambda: os.fstat(fd).st_nlink)
    os.close(fd)


@case
def names(c: Case) -> None:
    for name in (
        b"\xff\xfe", b"a\nb", b" ", b"  x ", b"...", b"-rf", b"\\", b"a:b", b"*?", b"\x01", b"con",
        "é".encode(), "e\u0301".encode(), "日本語".encode(), b"x" * 255, "é".encode() * 127,
    ):  # fmt: skip
        c.do(
            f"create {name!r}=", lambda name=name: os.close(os.open(name, os.O_CREAT | os.O_WRONLY))
        )
        c.do("stat", os.stat, name)
        c.do("listed", lambda name=name: name in os.listdir(b"."))
        c.do("rename", os.rename, name, b"+" + name[:254])
        c.do("mkdir", os.mkdir, name)
    make("Upper")
    c.do("upper and lower case", os.stat, "upper")
    c.do("a folder's listing", lambda: sorted(os.fsencode(name).hex() for name in os.listdir(".")))


@case
def paths_near_path_max(c: Case) -> None:
    part = "p" * 200
    path = "."
    while len(path) + 201 < 4095:
        path += "/" + part
        os.mkdir(path)
    for length in (4093, 4094, 4095, 4096):
        name = path + "/" + "f" * (length - len(path) - 1)
        c.do(f"create, path of {length}", lambda name=name: make(name, b"deep"))
        c.do("stat", os.stat, name)
        c.do("rename", os.rename, name, path + "/r")
        c.do("read", lambda: Path(path + "/r").read_bytes())
        c.do("unlink", os.unlink, path + "/r")
    here = os.open(path, os.O_RDONLY)
    os.fchdir(here)
    c.do("deeper than that", os.mkdir, part)
    c.do("file there", lambda: make(f"{part}/f", b"x" * 10))
    c.do("truncate there", os.truncate, f"{part}/f", 3)
    c.do("stat there", os.stat, f"{part}/f")
    c.do("utime there", os.utime, f"{part}/f", ns=(1, 2))
    c.do("chmod there", os.chmod, f"{part}/f", 0o600)
    c.do("listing", os.listdir, part)
    c.do("unlink there", os.unlink, f"{part}/f")
    c.do("rmdir there", os.rmdir, part)
    os.close(here)


@case
def folders(c: Case) -> None:
    for number in range(40):
        os.mkdir(f"d{number}")
        make(f"f{number}")
    c.do("links", lambda: os.stat(".").st_nlink)
    c.do("kinds", lambda: sorted((e.name, e.is_dir(), e.is_file()) for e in os.scandir(".")))
    removed = 0
    with os.scandir(".") as entries:
        for entry in entries:
            (os.rmdir if entry.is_dir() else os.unlink)(entry.name)
            removed += 1
    c.note("removed while listing", removed)
    c.do("left", os.listdir, ".")
    c.do("links", lambda: os.stat(".").st_nlink)
    os.makedirs("x/y/z")
    c.do("nested links", lambda: [os.stat(path).st_nlink for path in ("x", "x/y", "x/y/z")])
    c.do("..", lambda: os.stat("x/y/..").st_ino == os.stat("x").st_ino)
