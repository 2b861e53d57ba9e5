"""`models/index.csv`: which boards a model is shown for.

`#` begins a comment line; blank lines say nothing; every other line is `"path regex", "board
regex"`. The first line whose path regex is found in a file's path decides: the file is shown if
the board regex, whatever the case, is found in the name of the board's folder (`OPENMV_N6`); an
empty one hides it from every board. Sources: docs/cameras.md, "Default contents", and the IDE's
`openmvmodelzoo.cpp`.

Two decisions. The IDE looks at absolute paths, so a regex may begin with `/models/`; one may as
well begin at the vendor (`^vendor/`): both are tried. A file that no line is about is shown: it is
the user's own, or newer than the index. (The IDE shows it only when its filter is off.)
"""

from __future__ import annotations

import re
from typing import NamedTuple

from romfsfs.errors import RomfsError

_LINE = re.compile(r'\s*"(.*?)"\s*,\s*"(.*?)"\s*(?:#.*)?')


class Rule(NamedTuple):
    """board: None hides what `path` is found in."""

    path: re.Pattern[str]
    board: re.Pattern[str] | None


class BoardFilter:
    """The rules of an `index.csv`, in order. Immutable: any thread may ask."""

    def __init__(self, rules: tuple[Rule, ...] = ()) -> None:
        self.rules = rules

    def shows(self, path: str, board: str | None) -> bool:
        """Whether a file (its path below `models/`) is for this board; None: any board."""
        if board is None:
            return True
        for rule in self.rules:
            if rule.path.search("/models/" + path) or rule.path.search(path):
                return rule.board is not None and rule.board.search(board) is not None
        return True


def parse_index(text: str, where: str) -> BoardFilter:
    """The filter that an `index.csv` says. RomfsError names the line that is not understood."""
    rules = []
    for number, line in enumerate(text.removeprefix("\ufeff").splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise RomfsError(
                'a line is not `"path regex", "board regex"`',
                where=f"{where}, line {number}",
                next_step="correct it, or begin it with #",
            )
        path, board = match.groups()
        try:
            rules.append(
                Rule(re.compile(path), re.compile(board, re.IGNORECASE) if board else None)
            )
        except (re.error, OverflowError, RecursionError) as error:  # huge counts, deep nesting
            raise RomfsError(
                f"not a regular expression: {error}",
                where=f"{where}, line {number}",
                next_step="correct it, or begin it with #",
            ) from error
    return BoardFilter(tuple(rules))
