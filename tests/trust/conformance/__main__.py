"""Runs the cases: `python conformance FOLDER [CASE]`; as root, `--prepare FOLDER` before.

`--prepare-read-only FOLDER`, and when it is mounted read-only `--read-only FOLDER`, for that case.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asynchronous
import attributes
import content
import flags
import folders
import handles
import listing
import locking
import mapped
import opening
import others
import paths
import read_only
import refusals
import renaming
import sharing
import space
import times
from cases import CASES, Case

#: Whose import fills CASES.
CHAPTERS = (
    attributes, times, paths, folders, listing, opening, flags, renaming, content, sharing,
    refusals, others, mapped, space, asynchronous, locking, handles,
)  # fmt: skip

#: User and group of who runs the cases after `prepare`, and of another user.
US = 65534, 65534
THEM = 1, 1


def prepare(root: Path) -> None:
    """What only root can put below `root`: another user's files, made as that user.

    Not given away with `chown`: a mount refuses that, as an image holds no owners.
    """
    prepared = root / "prepared"
    prepared.mkdir()
    prepared.chmod(0o777)
    os.chdir(prepared)  # the folders above may be closed to that user
    os.setgroups([])
    with _as(*THEM):
        for folder, mode in (("shared", 0o777), ("sticky", 0o1777)):
            place = Path(folder)
            place.mkdir()
            (place / "theirs").write_bytes(b"theirs")
            (place / "open").write_bytes(b"open")
            (place / "folder").mkdir()
            (place / "theirs").chmod(0o644)
            (place / "open").chmod(0o666)
            place.chmod(mode)
        _bits(Path("bits"), Path("folders"))
        _group(Path("group"))
        _theirs(Path("theirs"))
    with _as(THEM[0], US[1]):
        _of_the_group(Path("of-the-group"))
    _sticky()
    prepared.chmod(0o755)


@contextlib.contextmanager
def _as(uid: int, gid: int) -> Iterator[None]:
    os.setegid(gid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


def _theirs(place: Path) -> None:
    (place / "d").mkdir(parents=True)
    for name, mode in (("f", 0o644), ("writable", 0o666)):
        (place / name).write_bytes(b"theirs")
        (place / name).chmod(mode)


def _of_the_group(place: Path) -> None:
    """Files and folders with each permission for the group, and with all for others."""
    place.mkdir()
    for bits in range(8):
        (place / f"{bits}").write_bytes(b"theirs")
        (place / f"{bits}").chmod(0o707 | bits << 3)
        folder = place / f"folder{bits}"
        folder.mkdir()
        (folder / "f").write_bytes(b"x")
        folder.chmod(0o707 | bits << 3)


def _sticky() -> None:
    """Sticky folders of both users, each with the same entries of both."""
    users = {"ours": US, "theirs": THEM}
    for name, owner in users.items():
        folder = Path(f"sticky-{name}")
        with _as(*owner):
            folder.mkdir()
            folder.chmod(0o1777)
        for prefix, user in users.items():
            with _as(*user):
                for kind, mode in others.KINDS:
                    for number in range(len(others.STICKY)):
                        path = folder / f"{prefix}-{kind}-{number}"
                        (Path.touch if kind == "file" else Path.mkdir)(path)
                        path.chmod(mode)


def _bits(bits: Path, folders: Path) -> None:
    """Files and folders with each permission for others."""
    bits.mkdir()
    folders.mkdir()
    for mode in range(8):
        (bits / f"{mode}").touch()
        (bits / f"{mode}").chmod(0o770 | mode)
        folder = folders / f"{mode}"
        folder.mkdir()
        (folder / "d").mkdir()
        for name in ("f", "h"):
            (folder / name).write_bytes(b"x")
        folder.chmod(0o770 | mode)


def _group(place: Path) -> None:
    """A folder that gives its group to what is made in it, and set-id files that all may write."""
    place.mkdir()
    for name in ("setid", "setid-cut", "setid-truncate"):
        (place / name).write_bytes(b"data")
        (place / name).chmod(0o6777)
    place.chmod(0o2777)


def run(root: Path, wanted: str = "") -> dict[str, list[tuple[str, Any]]]:
    found = {}
    for name, function in CASES.items():
        if wanted and wanted != name:
            continue
        folder = root / name
        folder.mkdir()
        os.umask(0o22)
        os.chdir(folder)
        running = Case()
        try:
            function(running)
        except OSError as error:
            running.note("the case itself", f"{error} ({error.filename})")
        found[name] = running.answers
    os.chdir("/")
    return found


if __name__ == "__main__":
    if sys.argv[1] == "--prepare":
        prepare(Path(sys.argv[2]))
    elif sys.argv[1] == "--prepare-read-only":
        read_only.prepare(Path(sys.argv[2]))
    elif sys.argv[1] == "--read-only":
        os.chdir(sys.argv[2])
        running = Case()
        read_only.read_only(running)
        json.dump({"read_only": running.answers}, sys.stdout, default=repr)
    else:
        json.dump(run(Path(sys.argv[1]), *sys.argv[2:3]), sys.stdout, default=repr)
