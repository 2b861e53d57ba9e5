"""The options of `mount` and `build` that choose how files are converted.

Each takes `VALUE`, for all files, or `PATTERN=VALUE`, and may be given several times; they override
the tree's `romfs.toml`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import click

from romfsfs.cli import values
from romfsfs.cli.parameters import EXCLUDE, STEDGEAI
from romfsfs.convert import FileOptions, Options, Rule
from romfsfs.convert.options import EVERYTHING, OptionError, check
from romfsfs.errors import UsageError

_Command = TypeVar("_Command", bound=Callable[..., Any])

_YES_NO = {"yes": True, "no": False, "true": True, "false": False}
#: option -> (field of `FileOptions`, metavar of its value, completer, help)
_PER_FILE = {
    "convert": ("convert", "yes|no", values.choices("yes", "no"),
                "Store scripts and models converted or as they are."),
    "optimise": ("optimise", "HOW", values.choices("Performance", "Size", "0", "1", "2", "3"),
                 "Models: Performance or Size (AE3), 0 to 3 (N6)."),
    "profile": ("profile", "[NAME@]FILE", values.files,
                "Models for the N6: your own neuralart JSON."),
    "mpool": ("mpool", "FILE", values.files, "Models for the N6: your own memory pool file."),
    "arg": ("arguments", "ARG", None, "Models: an extra argument for Vela or ST Edge AI."),
    "align": ("align", "BYTES", values.choices("16", "32", "64", "4096"),
              "Align the data to this many bytes, at least."),
}  # fmt: skip


def conversion_options(command: _Command) -> _Command:
    """Add the options to a command; `chosen` reads their values."""
    options = [
        click.option(
            f"--{name}", multiple=True, metavar=f"[PATTERN=]{value}", shell_complete=completer,
            help=text,
        )
        for name, (_, value, completer, text) in _PER_FILE.items()
    ]  # fmt: skip
    options.append(click.option("--no-convert", is_flag=True, help="The same as --convert no."))
    options += [STEDGEAI, EXCLUDE]
    for option in reversed(options):
        command = option(command)
    return command


def chosen(given: Mapping[str, Any]) -> Options:
    """The conversion options of a command line. UsageError for an invalid value."""
    rules = [Rule(EVERYTHING, FileOptions(convert=False))] if given["no_convert"] else []
    for option, (name, *_) in _PER_FILE.items():
        rules += _rules(option, name, given[option])
    stedgeai = given["stedgeai"]
    if stedgeai:
        stedgeai = os.path.abspath(os.path.expanduser(stedgeai))
        if not os.path.exists(stedgeai):
            raise UsageError("no such file or folder", where=f"--stedgeai {stedgeai}")
    return Options().extended(Options(tuple(rules), stedgeai or None))


def _rules(option: str, name: str, texts: Iterable[str]) -> list[Rule]:
    found: dict[str, Any] = {}
    for text in texts:
        # A text with a leading dash is an argument for a tool, and a `=` in it is the tool's.
        pattern, equals, value = ("", "", text) if text.startswith("-") else text.partition("=")
        if not equals:
            pattern, value = EVERYTHING, text
        if name == "arguments":
            found[pattern] = (*found.get(pattern, ()), value)
        else:
            found[pattern] = _value(name, value)
    try:
        checked = {pattern: check(name, value) for pattern, value in found.items()}
    except OptionError as caught:
        raise UsageError(str(caught), where=f"--{option}") from None
    return [Rule(pattern, FileOptions(**{name: value})) for pattern, value in checked.items()]


def _value(name: str, text: str) -> Any:
    if name == "convert":
        return _YES_NO.get(text.lower(), text)
    return int(text) if name in ("optimise", "align") and text.isdecimal() else text
