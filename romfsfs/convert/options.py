"""What the user chooses about conversions: for all files, or for those that match a pattern.

    FileOptions   the choices for one file
    Rule          a pattern of paths, and the choices for them
    Options       all rules; `for_path` applies them to one file

Rules come from `romfs.toml` (`romfs_toml`), from the command line, and from a firmware's recipe
(`recipe`). If two set the same option of the same file, the later one wins. Everything here is a
plain value that any thread may use.
"""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from romfsfs.system.files import digest_file

#: The IDE's limit for one conversion, seconds (docs/converters.md).
DEFAULT_TIMEOUT_SECONDS = 300.0
#: Bytes. A larger one would exceed the pages of any board's flash and only waste space.
ALIGNMENTS = tuple(1 << bits for bits in range(2, 17))
#: The pattern that matches every file.
EVERYTHING = "*"
STRATEGIES = ("Performance", "Size")
#: ST Edge AI's `--optimization`: its levels, and the default.
LEVELS, DEFAULT_LEVEL = range(4), 3


class OptionError(ValueError):
    """A value that an option cannot have. Its text is a phrase that says what it can be."""


class FileOptions(NamedTuple):
    """The choices for one file; None: not set, the default applies.

    convert: False stores the file as it is. optimise: `Performance` or `Size`, Vela's strategies,
    or a level from 0 to 3 for ST Edge AI; each tool ignores the other's. profile: for ST Edge AI,
    `NAME`, `FILE` or `NAME@FILE`, of a neuralart JSON; "": ours. mpool: its memory pool file; "":
    ours. arguments: for the tool that converts the file; what romfsfs itself sets wins. align: the
    least alignment of the data in the image, bytes, in addition to the board's.
    """

    convert: bool | None = None
    optimise: str | int | None = None
    profile: str | None = None
    mpool: str | None = None
    arguments: tuple[str, ...] | None = None
    align: int | None = None

    def over(self, other: FileOptions) -> FileOptions:
        """These choices, completed by those of `other`."""
        return FileOptions(**{**other.record(), **self.record()})

    def record(self) -> dict[str, Any]:
        """The options that are set, by name; `FileOptions(**record)` restores them."""
        values = self._asdict().items()
        return {name: value for name, value in values if value is not None}

    @property
    def strategy(self) -> str:
        """Vela's strategy: the chosen one, else the default."""
        return self.optimise if isinstance(self.optimise, str) else STRATEGIES[0]

    @property
    def level(self) -> int:
        """ST Edge AI's level: the chosen one, else the default."""
        return self.optimise if isinstance(self.optimise, int) else DEFAULT_LEVEL


_NOTHING = FileOptions()


class Rule(NamedTuple):
    """A pattern of paths and the choices for them.

    pattern: as for fnmatch, case-sensitive. Without `/` it matches the name of a file or folder
    anywhere; with `/`, a path from the root (`**`: any number of folders). A folder stands for
    everything in it."""

    pattern: str
    options: FileOptions

    def names(self, path: str) -> bool:
        """Whether the pattern matches the file at `path` (relative, with `/`)."""
        if self.pattern == EVERYTHING:
            return True
        names = path.split("/")
        if "/" not in self.pattern.rstrip("/"):
            return any(fnmatch.fnmatchcase(name, self.pattern.rstrip("/")) for name in names)
        return _leads(self.pattern.strip("/").split("/"), names)


def _leads(parts: Sequence[str], names: Sequence[str]) -> bool:
    """Whether the parts of a pattern match the leading names of a path."""
    if not parts:
        return True
    if parts[0] == "**":
        return any(_leads(parts[1:], names[skip:]) for skip in range(len(names) + 1))
    return bool(names) and fnmatch.fnmatchcase(names[0], parts[0]) and _leads(parts[1:], names[1:])


@dataclass(frozen=True, slots=True)
class Options:
    """The options of all files. rules: the later ones win.

    stedgeai: ST's tool, or the folder it is installed in. timeout_seconds: for one conversion."""

    rules: tuple[Rule, ...] = ()
    stedgeai: str | None = None
    timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS
    # Memo of `for_path`, which is called for every file whenever a tree is looked at.
    _known: dict[str, FileOptions] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def for_path(self, path: str) -> FileOptions:
        """The choices for the file at `path` of the tree."""
        chosen = self._known.get(path) if self.rules else _NOTHING
        if chosen is None:
            chosen = _NOTHING
            for rule in self.rules:
                if rule.names(path):
                    chosen = rule.options if chosen is _NOTHING else rule.options.over(chosen)
            self._known[path] = chosen
        return chosen

    def over(self, rules: Iterable[Rule]) -> Options:
        """These options with `rules` put before their own, which win."""
        return Options((*rules, *self.rules), self.stedgeai, self.timeout_seconds)

    def extended(self, later: Options) -> Options:
        """Both merged, with one rule for each pattern; where they differ, `later` wins."""
        known: dict[str, FileOptions] = {}
        for pattern, options in (*self.rules, *later.rules):
            known[pattern] = options.over(known.pop(pattern, FileOptions()))
        rules = tuple(Rule(*item) for item in known.items())
        return Options(rules, later.stedgeai or self.stedgeai, later.timeout_seconds)

    def record(self) -> dict[str, Any]:
        """The options as JSON values, for `from_record`; without the time limit."""
        rules = [[pattern, options.record()] for pattern, options in self.rules]
        return {"rules": rules, "stedgeai": self.stedgeai}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Options:
        """The options that `record` gave; {} gives the defaults. TypeError, ValueError: others."""
        rules: list[Rule] = []
        for rule in record.get("rules", ()):
            match rule:
                case [str(pattern), dict(chosen)]:
                    rules.append(Rule(pattern, checked(chosen)))
                case _:
                    raise TypeError(f"a rule of the options is {rule!r:.40}")
        stedgeai = record.get("stedgeai")
        if not isinstance(stedgeai, str | None):
            raise TypeError(f"stedgeai is {stedgeai!r:.40}")
        return cls(tuple(rules), stedgeai)


def checked(values: Mapping[str, Any], folder: str = "") -> FileOptions:
    """FileOptions from values that the user wrote. OptionError for the first that is not allowed.

    folder: the base of relative file names; "": the current folder."""
    return FileOptions(**{name: check(name, value, folder) for name, value in values.items()})


def check(name: str, value: Any, folder: str = "") -> Any:
    """The value for one option of `checked`, with file names made absolute. OptionError."""
    if name not in OPTIONS:
        raise OptionError(f"unknown option {name!r}; known are {', '.join(OPTIONS)}")
    is_right, can_be = OPTIONS[name]
    if not is_right(value):
        raise OptionError(f"{name} is {value!r}; it can be {can_be}")
    if name == "arguments":
        return tuple(value)
    if name == "mpool" and value:
        return os.path.join(folder or os.getcwd(), os.path.expanduser(value))
    file = profile_file(value) if name == "profile" else ""
    if file:
        return value[: -len(file)] + os.path.join(folder or os.getcwd(), os.path.expanduser(file))
    return value


def profile_file(profile: str) -> str:
    """The file named by a `FileOptions.profile`; "": it names a profile of ours."""
    _, at, file = profile.rpartition("@")
    return file if at or "/" in file or "." in file else ""


def _is_text(value: object) -> bool:
    return isinstance(value, str) and "\0" not in value


def _is_number(value: object, numbers: Container[int]) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value in numbers


#: option -> a test of its value, and a phrase that says what it can be
OPTIONS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "convert": (lambda value: isinstance(value, bool), "true or false"),
    "optimise": (
        lambda value: value in STRATEGIES or _is_number(value, LEVELS),
        "'Performance' or 'Size' (Vela), or 0 to 3 (ST Edge AI)",
    ),
    "profile": (_is_text, "the name of a profile, a file, or NAME@FILE"),
    "mpool": (_is_text, "the name of a file"),
    "arguments": (
        lambda value: isinstance(value, list | tuple) and all(map(_is_text, value)),
        "a list of strings, ['--option', 'value']",
    ),
    "align": (
        lambda value: _is_number(value, ALIGNMENTS),
        f"a power of two from {ALIGNMENTS[0]} to {ALIGNMENTS[-1]}",
    ),
}


def file_digest(path: str) -> str:
    """The first 12 digits of a settings file's digest, for `described`."""
    try:
        return digest_file(path)[:12]
    except OSError:
        return "(not there)"


def described(values: Mapping[str, str]) -> str:
    """What bytes are made for, as one text: equal texts mean equal bytes (with the same tool)."""
    return "; ".join(f"{name}={value}" for name, value in values.items() if value)


def difference(old: str, new: str) -> str:
    """How two results of `described` differ, for people."""
    was, now = (dict(part.partition("=")[::2] for part in text.split("; ")) for text in (old, new))
    names = [name for name in {**was, **now} if name and was.get(name) != now.get(name)]
    return "; ".join(
        f"{name} was {was.get(name, 'not set')}, is {now.get(name, 'not set')}" for name in names
    )
