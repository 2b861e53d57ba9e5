"""`romfs.toml` at the root of a tree: the tree's own options, for `mount` and `build` alike.

    board = "OPENMV_AE3"            # or "OPENMV_AE3:1" for its second partition
    exclude = ["*.psd", "!*~"]      # as --exclude

    ["models/*.tflite"]             # a pattern of paths, see `options.Rule`
    optimise = "Size"
    align = 64

It is never stored. One that came with an image is a file like any other and is not obeyed: someone
else's image must not decide how programs are called here.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from romfsfs.boards import parse_board
from romfsfs.convert.junk import Excludes
from romfsfs.convert.options import OPTIONS, FileOptions, OptionError, Rule, check
from romfsfs.convert.types import Diagnostic, error
from romfsfs.errors import UsageError
from romfsfs.system.toml import parse_toml

NAME = "romfs.toml"
MAX_BYTES = 1 << 20
_AT_LINE = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")


class TreeOptions(NamedTuple):
    """The content of the file. board: `NAME` or `NAME:PARTITION`.

    problems: mistakes, each with its line; the other fields lack the values they are about."""

    board: str | None = None
    excludes: tuple[str, ...] = ()
    rules: tuple[Rule, ...] = ()
    problems: tuple[Diagnostic, ...] = ()


def read_tree_options(data: bytes, folder: str) -> TreeOptions:
    """Parse the file's bytes. Mistakes become `problems`, not exceptions.

    folder: the tree's root, the base of relative file names in it."""
    try:
        if len(data) > MAX_BYTES:
            raise OptionError(f"it is larger than {MAX_BYTES >> 20} MiB")
        text = data.decode("utf-8-sig")
        document = parse_toml(text)
    except UnicodeDecodeError as caught:
        line = data.count(b"\n", 0, caught.start) + 1
        return unreadable("not UTF-8; save it as UTF-8", line)
    except OptionError as caught:
        return unreadable(str(caught))
    except RecursionError:
        return unreadable("lists or tables are nested too deep")
    except ValueError as caught:
        place = _AT_LINE.search(str(caught))
        what = str(caught)[: place.start()] if place else str(caught)
        line = int(place[1]) if place and place[1] else text.count("\n") + 1
        return unreadable(f"not TOML: {what}", line)
    return _Reader(text, folder).read(document)


def unreadable(why: str, line: int = 0) -> TreeOptions:
    """The result for a file that cannot be read at all. line: 0 if it is unknown."""
    return TreeOptions(problems=(_problem(line, why),))


class _Reader:
    """Reads a parsed TOML document and collects what is wrong with it."""

    def __init__(self, text: str, folder: str) -> None:
        self._text = text
        self._folder = folder
        self._problems: list[Diagnostic] = []

    def read(self, document: dict[str, Any]) -> TreeOptions:
        board = self._board(document.pop("board", None))
        excludes = self._excludes(document.pop("exclude", []))
        rules = [
            Rule(pattern, self._options(pattern, table))
            for pattern, table in document.items()
            if self._is_table(pattern, table)
        ]
        return TreeOptions(board, excludes, tuple(rules), tuple(self._problems))

    def _complain(self, what: str, table: str, key: str) -> None:
        self._problems.append(_problem(_line(self._text, table, key), what))

    def _board(self, value: object) -> str | None:
        if value is None:
            return None
        try:
            if not isinstance(value, str):
                raise OptionError(f"board is {value!r}; it must be the name of a board, in quotes")
            parse_board(value)
        except (OptionError, UsageError) as caught:
            self._complain(str(caught), "", "board")
            return None
        return value

    def _excludes(self, value: object) -> tuple[str, ...]:
        try:
            if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
                raise OptionError(f"exclude is {value!r}; it must be a list of patterns, ['*.psd']")
            Excludes(value)
        except (OptionError, UsageError) as caught:
            self._complain(str(caught), "", "exclude")
            return ()
        return tuple(value)

    def _is_table(self, pattern: str, table: object) -> bool:
        if isinstance(table, dict):
            return True
        if pattern in OPTIONS:
            what = f'{pattern} must be in a table; put it below ["*"] to apply it to all files'
        else:
            what = f"unknown key {pattern!r}; known are board, exclude and tables of patterns"
        self._complain(what, "", pattern)
        return False

    def _options(self, pattern: str, table: dict[str, Any]) -> FileOptions:
        chosen = {}
        for key, value in table.items():
            try:
                if isinstance(value, dict):  # [models.tflite]: a table within a table
                    raise OptionError(f'write the pattern in quotes, ["{pattern}.{key}"]')
                chosen[key] = check(key, value, self._folder)
            except OptionError as caught:
                self._complain(str(caught), pattern, key)
        return FileOptions(**chosen)


def _problem(line: int, what: str) -> Diagnostic:
    return error("options", f"line {line}: {what}" if line else what)


def _line(text: str, table: str, key: str) -> int:
    """The line of a key, else that of its table; 0: neither is found. The TOML parser has none.

    Lines are matched one by one, so one inside a multi-line string may be mistaken for a key. Then
    the line reported with a problem is wrong, and nothing else.
    """

    def begins(line: str, name: str) -> bool:
        return re.match(rf"\s*[\"']?{re.escape(name)}[\"']?\s*[.=]", line) is not None

    found, inside = 0, ""
    for number, line in enumerate(text.split("\n"), 1):
        if line.lstrip().startswith("["):
            inside = table if table and table in line else line
            found = number if inside == table else found
        elif inside == table and begins(line, key):
            return number
        elif not inside and begins(line, table):  # an inline table
            found = number
    return found
