"""Runs the cases: `python conformance FOLDER [CASE]`; as root, `--prepare FOLDER` before."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import attributes
import content
import folders
import opening
import refusals
import renaming
from cases import CASES, Case

#: Whose import fills CASES.
CHAPTERS = (attributes, folders, opening, renaming, content, refusals)


def prepare(root: Path) -> None:
    """What only root can put below `root`: another user's files."""
    for folder, mode in (("shared", 0o777), ("sticky", 0o1777)):
        place = root / "prepared" / folder
        place.mkdir(parents=True)
        (place / "theirs").write_bytes(b"theirs")
        (place / "open").write_bytes(b"open")
        (place / "folder").mkdir()
        for path in (place / "theirs", place / "open", place / "folder", place):
            os.chown(path, 1, 1)
        (place / "theirs").chmod(0o644)
        (place / "open").chmod(0o666)
        place.chmod(mode)


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
