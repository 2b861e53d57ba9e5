"""What ROMFS has no place for, and what is another user's."""

from __future__ import annotations

import fcntl
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cases import (
    Case,
    bad_paths,
    case,
    closed_folder,
    make,
)


@case
def links_and_devices(c: Case) -> None:
    make("f", b"x")
    os.mkdir("d")
    c.do("!symlink", os.symlink, "f", "s")
    c.do("!link", os.link, "f", "l")
    c.do("!link of a folder", os.link, "d", "l2")
    c.do("!fifo", os.mkfifo, "p")
    c.do("!fifo by mknod", os.mknod, "p2", stat.S_IFIFO | 0o600)
    c.do("!socket by mknod", os.mknod, "k", stat.S_IFSOCK | 0o600)
    c.do("!device", os.mknod, "dev", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    c.do("!block device", os.mknod, "blk", stat.S_IFBLK | 0o600, os.makedev(1, 3))
    for name, call in (
        ("symlink", lambda path: os.symlink("f", path)), ("link", lambda path: os.link("f", path)),
        ("fifo", os.mkfifo),
    ):  # fmt: skip
        c.do(f"!{name} over a file", call, "d")
        c.do(f"!{name} in a missing folder", call, "missing/x")
    c.do("mknod of a file", os.mknod, "n", stat.S_IFREG | 0o640)
    c.do("stat", os.stat, "n")
    c.do("mknod over a file", os.mknod, "n", stat.S_IFREG | 0o640)
    c.do("readlink", os.readlink, "f")
    c.do("!attribute", os.setxattr, "f", "user.x", b"1")
    c.do("no such attribute", os.getxattr, "f", "user.y")
    c.do("!trusted attribute", os.setxattr, "f", "security.x", b"1")
    c.do("files", lambda: [name for name in ("f", "d", "n") if os.path.exists(name)])


@case
def what_refuses_links_and_devices_first(c: Case) -> None:
    """A path that leads nowhere, a place that is taken, a folder that is closed: all as ever."""
    make("there", b"x")
    calls: dict[str, Callable[[str], Any]] = {
        "!symlink": lambda path: os.symlink("there", path),
        "!link": lambda path: os.link("../there", path),
        "!link from": lambda path: os.link(path, "new") or os.unlink("new"),
        "!fifo": os.mkfifo,
        "!socket": lambda path: os.mknod(path, stat.S_IFSOCK | 0o600),
        "!device": lambda path: os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3)),
        "!block device": lambda path: os.mknod(path, stat.S_IFBLK | 0o600, os.makedev(1, 3)),
        "node": os.mknod,
    }
    for name, call in calls.items():
        os.mkdir(name.strip("!"))
        os.chdir(name.strip("!"))
        for part, ask in (
            ("paths", lambda name=name, call=call: bad_paths(c, name, call)),
            ("taken", lambda name=name, call=call: closed_folder(c, name, call)),
            ("closed", lambda name=name, call=call: closed_folder(c, name, call, also="2")),
        ):
            os.mkdir(part)
            os.chdir(part)
            ask()
            os.chdir("..")
        make("file")
        os.mkdir("folder")
        for path in ("file", "folder", "folder/", ".", "..", "missing/", "missing/.", "../x/"):
            c.do(f"{name} at {path}", call, path)
        os.chdir("..")


@case
def locks(c: Case) -> None:
    make("f", b"x")
    one, two = os.open("f", os.O_RDWR), os.open("f", os.O_RDWR)
    c.do("flock", fcntl.flock, one, fcntl.LOCK_EX | fcntl.LOCK_NB)
    c.do("flock again", fcntl.flock, two, fcntl.LOCK_EX | fcntl.LOCK_NB)
    c.do("unlock", fcntl.flock, one, fcntl.LOCK_UN)
    c.do("flock at last", fcntl.flock, two, fcntl.LOCK_SH | fcntl.LOCK_NB)
    c.do("record lock", fcntl.lockf, one, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 0)
    other = "import fcntl, os; fcntl.lockf(os.open('f', os.O_RDWR), fcntl.LOCK_EX | fcntl.LOCK_NB)"
    code = subprocess.run([sys.executable, "-c", other], stderr=subprocess.DEVNULL, check=False)
    c.note("another process", code.returncode)
    os.close(one)
    os.close(two)


@case
def foreign_files(c: Case) -> None:
    """Files of another user, in folders with and without the sticky bit (`prepare` made them)."""
    for folder in ("shared", "sticky"):
        place = f"../prepared/{folder}"
        if not os.path.isdir(place):
            continue
        c.do(f"{folder}: read", lambda place=place: Path(f"{place}/theirs").read_bytes())
        for what, call in (
            ("write", lambda place: os.close(os.open(f"{place}/theirs", os.O_WRONLY))),
            ("write open", lambda place: os.close(os.open(f"{place}/open", os.O_WRONLY))),
            ("chmod", lambda place: os.chmod(f"{place}/theirs", 0o777)),
            ("chown", lambda place: os.chown(f"{place}/theirs", os.geteuid(), -1)),
            ("set times", lambda place: os.utime(f"{place}/open", ns=(1, 1))),
            ("touch", lambda place: os.utime(f"{place}/open")),
            ("touch closed", lambda place: os.utime(f"{place}/theirs")),
            ("truncate", lambda place: os.truncate(f"{place}/theirs", 0)),
            ("make", lambda place: make(f"{place}/mine", b"")),
            ("rename over", lambda place: os.rename(f"{place}/mine", f"{place}/theirs")),
            ("rename theirs", lambda place: os.rename(f"{place}/open", f"{place}/taken")),
            ("rmdir", lambda place: os.rmdir(f"{place}/folder")),
            ("unlink", lambda place: os.unlink(f"{place}/theirs")),
        ):
            c.do(f"{folder}: {what}", call, place)
        c.do(f"{folder}: left", lambda place=place: sorted(os.listdir(place)))


@case
def foreign_groups_and_bits(c: Case) -> None:
    """What another user made: every permission bit, and a folder that gives its group."""
    if not os.path.isdir("../prepared/bits"):
        return
    place = "../prepared/bits"
    for name in sorted(os.listdir(place)):
        path = f"{place}/{name}"
        c.do(f"{name}: read", lambda path=path: os.close(os.open(path, os.O_RDONLY)))
        c.do(f"{name}: write", lambda path=path: os.close(os.open(path, os.O_WRONLY)))
        c.do(f"{name}: access", lambda path=path: [
            os.access(path, bit) for bit in (os.R_OK, os.W_OK, os.X_OK)])  # fmt: skip
    for name in sorted(os.listdir("../prepared/folders")):
        folder = f"../prepared/folders/{name}"
        for what, call in (
            ("list", lambda folder: os.listdir(folder)),
            ("enter", lambda folder: os.stat(f"{folder}/f").st_size),
            ("read", lambda folder: os.close(os.open(f"{folder}/f", os.O_RDONLY))),
            ("make", lambda folder: make(f"{folder}/mine")),
            ("mkdir", lambda folder: os.mkdir(f"{folder}/mined")),
            ("rename", lambda folder: os.rename(f"{folder}/f", f"{folder}/g")),
            ("rename in", lambda folder: os.rename("in", f"{folder}/in")),
            ("rename out", lambda folder: os.rename(f"{folder}/f", "out")),
            ("unlink", lambda folder: os.unlink(f"{folder}/h")),
            ("rmdir", lambda folder: os.rmdir(f"{folder}/d")),
            ("chmod", lambda folder: os.chmod(folder, 0o777)),
            ("touch", lambda folder: os.utime(folder)),
        ):  # fmt: skip
            if not os.path.exists("in"):
                make("in")
            c.do(f"{name}: {what}", call, folder)
    group = "../prepared/group"
    make(f"{group}/f", b"x")
    os.mkdir(f"{group}/d")
    for path in (f"{group}/f", f"{group}/d"):
        c.note("group of the folder", os.stat(path).st_gid)
        c.do("set its group bit", os.chmod, path, 0o2775)
        c.do("mode", lambda path=path: oct(os.stat(path).st_mode))
    setid = "../prepared/group/setid"
    fd = os.open(setid, os.O_WRONLY)
    c.do("write to another's set-id file", os.write, fd, b"x")
    c.do("its mode after a write", lambda: oct(os.stat(setid).st_mode))
    os.close(fd)
    cut = "../prepared/group/setid-cut"
    c.do("cut another's", lambda: os.close(os.open(cut, os.O_WRONLY | os.O_TRUNC)))
    c.do("mode", lambda: oct(os.stat(cut).st_mode))
    c.do("truncate another's", os.truncate, "../prepared/group/setid-truncate", 1)
    c.do(
        "its mode after a truncate",
        lambda: oct(os.stat("../prepared/group/setid-truncate").st_mode),
    )
