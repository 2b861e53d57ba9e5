"""Renames, of everything to everything."""

from __future__ import annotations

import ctypes
import os
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
    next_tick,
)


@case
def rename_matrix(c: Case) -> None:
    kinds = ("none", "file", "empty", "full")

    def put(kind: str, name: str) -> None:
        if kind == "file":
            make(name, name.encode())
        elif kind != "none":
            os.mkdir(name)
            if kind == "full":
                make(f"{name}/inside")

    for source in kinds:
        for target in kinds:
            folder = f"{source}-{target}"
            os.mkdir(folder)
            put(source, f"{folder}/a")
            put(target, f"{folder}/b")
            if source != "none":
                number = os.stat(f"{folder}/a").st_ino
            with c.changes(f"rename {folder}", folder):
                c.do(f"rename {folder}", os.rename, f"{folder}/a", f"{folder}/b")
            c.do("left", lambda folder=folder: sorted(os.listdir(folder)))
            c.do("links", lambda folder=folder: os.stat(folder).st_nlink)
            if source != "none" and os.path.exists(f"{folder}/b"):
                same = os.stat(f"{folder}/b").st_ino == number
                c.note("the same file", same)


@case
def rename_places(c: Case) -> None:
    os.makedirs("a/b/c")
    os.mkdir("z")
    make("a/f", b"f")
    with c.changes("across folders", "a", "z", "a/f"):
        c.do("file across folders", os.rename, "a/f", "z/g")
    with c.changes("folder across folders", "a", "z"):
        c.do("folder across folders", os.rename, "a/b", "z/b")
    c.do("links", lambda: [os.stat(path).st_nlink for path in ("a", "z", "z/b", ".")])
    c.do("time of the moved", lambda: os.stat("z/b/..").st_ino == os.stat("z").st_ino)
    with c.changes("rename to itself", "z", "z/g"):
        c.do("to itself", os.rename, "z/g", "z/g")
        c.do("folder to itself", os.rename, "z/b", "z/b")
    c.do("into itself", os.rename, "z", "z/b/z")
    c.do("into its child", os.rename, "z", "z/z")
    c.do("parent over child", os.rename, "z", "z/b")
    c.do("child over parent", os.rename, "z/b", "z")
    c.do("dot", os.rename, ".", "x")
    c.do("to dot", os.rename, "z", ".")
    c.do("dot dot", os.rename, "z/..", "x")
    c.do("to dot dot", os.rename, "z", "z/..")
    c.do("a file to a name with a slash", os.rename, "z/g", "z/h/")
    c.do("a file named with a slash", os.rename, "z/g/", "z/h")
    c.do("a folder to a name with a slash", os.rename, "z/b", "z/B/")
    c.do("to the longest name", os.rename, "z/g", LONG_NAME)
    c.do("from the longest name", os.rename, LONG_NAME, "z/g")
    c.do("other case", os.rename, "z/g", "z/G")
    c.do("listing", lambda: sorted(os.listdir("z")))
    make("here")
    bad_paths(c, "rename from", lambda path: os.rename(path, "there"))
    os.unlink("plain-file")
    bad_paths(c, "rename to", lambda path: os.rename("here", path))
    make("mine")
    closed_folder(c, "rename out of", lambda path: os.rename(path, "out"))
    c.do("out", lambda: os.path.exists("out"))


@case
def rename_into_closed(c: Case) -> None:
    make("mine")
    closed_folder(c, "rename into", lambda path: os.rename("mine", path), also="2")
    os.makedirs("moved/sub")
    make("moved/sub/f", b"f")
    os.chmod("moved/sub", 0o500)
    c.do("a folder one may not write in, same parent", os.rename, "moved/sub", "moved/sub2")
    c.do("... another parent", os.rename, "moved/sub2", "sub3")


@case
def rename_within_closed(c: Case) -> None:
    for name, mode in (("no-search", 0o600), ("no-write", 0o500)):
        os.mkdir(name)
        make(f"{name}/f", b"f")
        make(f"{name}/g", b"g")
        os.mkdir(f"{name}/d")
        inside = tuple(f"{name}/{each}" for each in "fgd")
        before = [os.stat(path).st_ctime_ns for path in inside]
        os.chmod(name, mode)
        for what, source, target in (
            ("to a new name", "f", "h"), ("over another", "f", "g"), ("to itself", "f", "f"),
            ("a folder", "d", "e"), ("a file over a folder", "f", "d"), ("missing", "x", "y"),
        ):  # fmt: skip
            c.do(f"{name}: {what}", os.rename, f"{name}/{source}", f"{name}/{target}")
        os.chmod(name, 0o700)
        c.do("left", lambda name=name: sorted(os.listdir(name)))
        if sorted(os.listdir(name)) == ["d", "f", "g"]:
            same = [os.stat(path).st_ctime_ns for path in inside] == before
            c.note("what was refused changed no times", same)


@case
def times_of_what_is_renamed(c: Case) -> None:
    """Of what is moved, and of what gave way to it."""
    os.makedirs("one/d/inside")
    os.mkdir("two")
    make("one/f", b"f")
    for what, source, target in (
        ("file", "one/f", "one/g"), ("file elsewhere", "one/g", "two/g"),
        ("folder", "one/d", "one/e"), ("folder elsewhere", "one/e", "two/e"),
    ):  # fmt: skip
        os.utime(source, ns=(1, 2))
        before = os.stat(source)
        next_tick()
        c.do(f"rename a {what}", os.rename, source, target)
        after = os.stat(target)
        c.note("later status", after.st_ctime_ns > before.st_ctime_ns)
        c.note("other times", (after.st_atime_ns, after.st_mtime_ns))
    os.mkdir("empty")
    os.makedirs("full/folder")
    c.do("a folder over one that holds a folder", os.rename, "empty", "full")
    make("new", b"new")
    make("old", b"old")
    fd = os.open("old", os.O_RDWR)
    before = os.fstat(fd)
    next_tick()
    os.rename("new", "old")
    after = os.fstat(fd)
    c.note("links of what gave way", after.st_nlink)
    c.note("its status is later", after.st_ctime_ns > before.st_ctime_ns)
    c.note("its data is not", after.st_mtime_ns == before.st_mtime_ns)
    os.close(fd)


@case
def rename_while_open(c: Case) -> None:
    make("old", b"old")
    make("new", b"new")
    fd = os.open("new", os.O_RDWR)
    os.rename("old", "new")
    c.do("what was open", os.pread, fd, 9, 0)
    c.do("links", lambda: os.fstat(fd).st_nlink)
    c.do("write to it", os.write, fd, b"more")
    c.do("truncate it", os.ftruncate, fd, 2)
    c.do("read again", os.pread, fd, 9, 0)
    c.do("the name", lambda: Path("new").read_bytes())
    os.close(fd)
    os.mkdir("d")
    fd = os.open("d", os.O_RDONLY)
    os.rename("d", "e")
    c.do(
        "create through the folder's handle", lambda: os.close(os.open("x", os.O_CREAT, dir_fd=fd))
    )
    c.do("there", os.listdir, "e")
    home = os.getcwd()
    os.chdir("e")
    os.rename("../e", "../moved")
    c.do("working directory follows", lambda: os.path.basename(os.getcwd()))
    os.chdir(home)
    os.close(fd)


@case
def rename_flags(c: Case) -> None:
    make("a", b"a")
    make("b", b"b")
    for name, flags in (
        ("noreplace", 1),
        ("exchange", 2),
        ("whiteout", 4),
        ("both", 3),
        ("bad", 64),
    ):
        c.do(
            f"~{name}",
            lambda flags=flags: called(
                LIBC.renameat2, -100, b"a", -100, b"b", ctypes.c_uint(flags)
            ),
        )
        c.do("?names", lambda: sorted(os.listdir(".")))
    c.do("?both files", lambda: sorted(Path(name).read_bytes() for name in ("a", "b")))
