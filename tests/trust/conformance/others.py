"""What belongs to another user, or to a group: all of it made by `prepare`."""

from __future__ import annotations

import ctypes
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cases import (
    LIBC,
    NOW,
    OMIT,
    Case,
    called,
    case,
    make,
    utimensat,
)

#: What is done to an entry of a sticky folder: each to one of its own, as most of it removes.
STICKY: dict[str, Callable[[str, bool], Any]] = {
    "remove": lambda path, is_dir: (os.rmdir if is_dir else os.unlink)(path),
    "rename": lambda path, is_dir: os.rename(path, path + "-new"),
    "take": lambda path, is_dir: os.rename(path, "taken"),
    "take over mine": lambda path, is_dir: os.rename(path, mine(is_dir)),
    "replace": lambda path, is_dir: os.rename(mine(is_dir), path),
    "replace by a neighbour": lambda path, is_dir: os.rename(mine(is_dir, path + "-mine"), path),
    "exchange": lambda path, is_dir: called(
        LIBC.renameat2, -100, os.fsencode(mine(is_dir)), -100, os.fsencode(path), ctypes.c_uint(2)
    ),
    "noreplace": lambda path, is_dir: called(
        LIBC.renameat2, -100, os.fsencode(path), -100, b"taken", ctypes.c_uint(1)
    ),
}

#: Entries of a sticky folder: name and mode. A folder that others may not write to cannot be moved
#: elsewhere by them, as that changes what `..` is in it.
KINDS = (("file", 0o644), ("folder", 0o755), ("open-folder", 0o777))


def mine(is_dir: bool, path: str = "mine") -> str:
    if not os.path.lexists(path):
        (os.mkdir if is_dir else make)(path)
    return path


@case
def sticky_folders(c: Case) -> None:
    """Whoever owns the entry or the folder may remove and rename; nobody else."""
    for folder in ("ours", "theirs"):
        for owner in ("ours", "theirs"):
            for kind, _ in KINDS:
                for number, (what, call) in enumerate(STICKY.items()):
                    path = f"../prepared/sticky-{folder}/{owner}-{kind}-{number}"
                    if not os.path.lexists(path):
                        return  # nothing is prepared for root, whom nothing of this binds
                    before = os.stat(path)
                    mark = "~" if what in ("exchange", "noreplace") else ""
                    shown = f"{what} {owner} {kind} in {folder}"
                    c.do(f"{mark}{shown}", call, path, kind != "file")
                    c.note(f"{'?' if mark else ''}there", [
                        os.path.lexists(each) and os.stat(each).st_ino == before.st_ino
                        for each in (path, path + "-new", "taken", "mine")
                    ])  # fmt: skip
                    for left in ("taken", "mine"):
                        _clear(left)


def _clear(path: str) -> None:
    """Another's folder can be moved here, and then removed, as this folder is mine."""
    if os.path.isdir(path):
        os.rmdir(path)
    elif os.path.lexists(path):
        os.unlink(path)


@case
def permissions_of_the_group(c: Case) -> None:
    """Files and folders of another user and of my group, with each permission for it."""
    place = "../prepared/of-the-group"
    if not os.path.isdir(place):
        return
    for bits in range(8):
        path, folder = f"{place}/{bits}", f"{place}/folder{bits}"
        found = os.stat(path)
        c.note(f"{bits}: whose", (found.st_uid, found.st_gid == os.getegid()))
        for name, flags in (
            ("read", os.O_RDONLY), ("write", os.O_WRONLY), ("both", os.O_RDWR),
            ("append", os.O_WRONLY | os.O_APPEND), ("create", os.O_RDONLY | os.O_CREAT),
            ("cut", os.O_RDONLY | os.O_TRUNC),
        ):  # fmt: skip
            c.do(f"{bits}: {name}", lambda path, flags: os.close(os.open(path, flags)), path, flags)
        c.do(f"{bits}: size", os.stat, path)
        c.do(f"{bits}: truncate", os.truncate, path, 3)
        c.do(f"{bits}: touch", os.utime, path)
        c.do(f"{bits}: chmod", os.chmod, path, 0o770)
        for bit in (os.R_OK, os.W_OK, os.X_OK):
            c.do(f"{bits}: access {bit}", os.access, path, bit)
        c.do(f"{bits}: list the folder", os.listdir, folder)
        c.do(f"{bits}: look into it", os.stat, f"{folder}/f")
        c.do(f"{bits}: make in it=", make, f"{folder}/mine")
        c.do(f"{bits}: mkdir in it", os.mkdir, f"{folder}/mined")
        c.do(f"{bits}: rename in it", os.rename, f"{folder}/f", f"{folder}/g")
        c.do(f"{bits}: unlink in it", os.unlink, f"{folder}/g")


@case
def refused_for_another_user(c: Case) -> None:
    """Which errno each call gives, and that it changes no times and nothing else."""
    place = "../prepared/theirs"
    if not os.path.isdir(place):
        return
    f, w, d = (f"{place}/{name}" for name in ("f", "writable", "d"))
    now, omit, some = (0, NOW), (0, OMIT), (1, 2)
    calls: tuple[tuple[str, Callable[[], Any]], ...] = (
        ("chmod", lambda: os.chmod(f, 0o777)), ("chmod a folder", lambda: os.chmod(d, 0o777)),
        ("chmod to what it is", lambda: os.chmod(f, 0o644)),
        ("chown", lambda: os.chown(f, os.geteuid(), -1)),
        ("chown the group", lambda: os.chown(f, -1, os.getegid())),
        ("chown both", lambda: os.chown(f, os.geteuid(), os.getegid())),
        ("chown to what it is", lambda: os.chown(f, os.stat(f).st_uid, os.stat(f).st_gid)),
        ("truncate", lambda: os.truncate(f, 1)),
        ("allocate", lambda: os.posix_fallocate(os.open(f, os.O_RDONLY), 0, 9)),
        ("open to write", lambda: os.open(f, os.O_WRONLY)),
        ("open to cut", lambda: os.open(f, os.O_RDONLY | os.O_TRUNC)),
        ("unlink", lambda: os.unlink(f)), ("rmdir", lambda: os.rmdir(d)),
        ("rename", lambda: os.rename(f, f"{place}/g")), ("rename away", lambda: os.rename(f, "f")),
        ("rename a folder", lambda: os.rename(d, f"{place}/e")),
        ("rename in", lambda: os.rename(make("in"), f"{place}/in")),
        ("rename over", lambda: os.rename("in", f)),
        ("create", lambda: make(f"{place}/new")), ("mkdir", lambda: os.mkdir(f"{place}/new")),
        ("mknod", lambda: os.mknod(f"{place}/new")),
        ("set times", lambda: utimensat(f, some, some)),
        ("set one time", lambda: utimensat(f, some, omit)),
        ("set the other", lambda: utimensat(f, omit, some)), ("touch", lambda: os.utime(f)),
        ("set no time", lambda: utimensat(f, omit, omit)),
        ("set times of what I may write", lambda: utimensat(w, some, some)),
        ("set one time of it", lambda: utimensat(w, some, omit)),
        ("set the other of it", lambda: utimensat(w, omit, some)),
        ("set one of it to now", lambda: utimensat(w, now, omit)),
        ("set the other of it to now", lambda: utimensat(w, omit, now)),
        ("set one to now and one not", lambda: utimensat(w, now, some)),
        ("set it to now through a reader", lambda: utimensat(
            None, now, now, fd=os.open(w, os.O_RDONLY))),
    )  # fmt: skip
    for what, call in calls:
        before = [os.stat(path) for path in (place, f, w, d)]
        c.do(what, call)
        c.note("the same", [os.stat(path) == old for path, old in zip(
            (place, f, w, d), before, strict=True)])  # fmt: skip
    c.do("chown to nobody in particular", os.chown, f, -1, -1)
    c.do("chown a folder to nobody in particular", os.chown, d, -1, -1)
    c.do("left", lambda: sorted(os.listdir(place)))
    c.do("content", lambda: Path(f).read_bytes())


@case
def made_where_another_group_owns(c: Case) -> None:
    """Group and set-id bits of what is made: the folder's group is not one of mine."""
    for place in ("group", "of-the-group/folder7", "shared"):
        folder = f"../prepared/{place}"
        if not os.path.isdir(folder):
            return
        os.umask(0)
        for mode in (0o2775, 0o2755, 0o6777, 0o4755, 0o2664, 0o1777):
            for kind, make_one in (
                ("file", lambda path, mode: os.close(
                    os.open(path, os.O_CREAT | os.O_WRONLY, mode))),
                ("node", lambda path, mode: os.mknod(path, stat.S_IFREG | mode)),
                ("folder", os.mkdir),
            ):  # fmt: skip
                path = f"{folder}/{kind}{mode:o}"
                c.do(f"{place}: make a {kind}, {mode:o}", make_one, path, mode)
                for when in ("made", "changed"):
                    found = os.stat(path)
                    c.note(f"{place}/{kind}{mode:o} as {when}", (oct(found.st_mode), found.st_gid))
                    os.chmod(path, mode)
