"""`models/index.csv`: which boards a model is shown for.

Its format: docs/cameras.md, "Default contents" (the IDE's `openmvmodelzoo.cpp`).

Two decisions. The IDE matches absolute paths, so a regex may begin with `/models/`; it may as well
begin at the vendor (`^vendor/`): both are tried. A file that no line matches is shown: it is the
user's own, or newer than the index. (The IDE shows it only when its filter is off.)
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from romfsfs.errors import RomfsError

#: Seconds of wall time, enough to use up the CPU time limit of `patterns` on a busy machine.
_WAIT_SECONDS = 60.0


class Rule(NamedTuple):
    """A line's patterns as written. board: '' hides the paths in which `path` is found."""

    line: int
    path: str
    board: str


class BoardFilter(NamedTuple):
    """The rules of an `index.csv`, in order. where: the file, for messages."""

    rules: tuple[Rule, ...] = ()
    where: str = ""

    def shown(self, paths: Sequence[str], board: str | None) -> list[str]:
        """Those of the files (paths below `models/`) that are for this board; None: all of them.

        Runs the patterns in a process, which takes a few seconds at most: hold no lock. RomfsError
        names the line of an invalid pattern, or the file whose patterns take too long.
        """
        if board is None or not self.rules:
            return list(paths)
        program = Path(__file__).with_name("patterns.py")
        try:
            done = subprocess.run(
                [sys.executable, "-I", "-S", program],
                input=json.dumps((self.rules, paths, board)).encode(),
                capture_output=True, timeout=_WAIT_SECONDS, check=True,
            )  # fmt: skip
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            said = (error.stderr or b"").decode(errors="replace").strip().rpartition("\n")[2]
            raise RomfsError(
                f"its patterns cannot be used: {said}" if said else "its patterns take too long",
                where=self.where,
                next_step="simplify them, or see the models of all boards with --all",
            ) from error
        answer = json.loads(done.stdout)
        if "error" in answer:
            raise _wrong(f"not a regular expression: {answer['error']}", self.where, answer["line"])
        return [paths[number] for number in answer["shown"]]


def parse_index(text: str, where: str) -> BoardFilter:
    """Parse an `index.csv`. RomfsError names the line that is not understood."""
    rules = []
    for number, line in enumerate(text.removeprefix("\ufeff").splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        parts = line.split('"', 4)
        between = [part.strip() for part in parts[::2]]
        if len(parts) != 5 or between[:2] != ["", ","] or between[2].split("#")[0]:
            raise _wrong('a line is not `"path regex", "board regex"`', where, number)
        rules.append(Rule(number, parts[1], parts[3]))
    return BoardFilter(tuple(rules), where)


def _wrong(what: str, where: str, line: int) -> RomfsError:
    next_step = "correct the line, or begin it with #"
    return RomfsError(what, where=f"{where}, line {line}", next_step=next_step)
