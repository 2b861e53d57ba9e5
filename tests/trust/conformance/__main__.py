"""Runs the cases: `python conformance FOLDER [CASE]`; as root, `--prepare FOLDER` before."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import attributes
import content
import flags
import folders
import listing
import opening
import paths
import refusals
import renaming
import sharing
import times
from cases import CASES, Case

#: Whose import fills CASES.
CHAPTERS = (
    attributes, times, paths, folders, listing, opening, flags, renaming, content, sharing,
    refusals,
)  # fmt: skip


def prepare(root: Path) -> None:
    """What only root can put below `root`: another user's files, made as that user.

    Not given away with `chown`: a mount refuses that, as an image holds no owners.
    """
    prepared = root / "prepared"
    prepared.mkdir()
    prepared.chmod(0o777)
    os.chdir(prepared)  # the folders above may be closed to that user
    os.setgroups([])
    os.setegid(1)
    os.seteuid(1)
    try:
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
    finally:
        os.seteuid(0)
        os.setegid(0)
    prepared.chmod(0o755)


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
    else:
        json.dump(run(Path(sys.argv[1]), *sys.argv[2:3]), sys.stdout, default=repr)
