"""What the user chooses about conversions: for all files, or for those that a pattern names.

    FileOptions   what is chosen for one file
    Rule          a pattern of paths, and what is chosen for them
    Options       all rules; `for_path` says what they mean for one file

Rules come from `romfs.toml` (`romfs_toml`), from the command line, and from a firmware's recipe
(`recipe`); of two that name the same file and the same option, the later one wins. Everything here
is a plain value, which any thread may ask.
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
#: Larger than the pages of any board's flash, an alignment would only waste space.
ALIGNMENTS = tuple(1 << bits for bits in range(2, 17))
#: The pattern that names every file.
EVERYTHING = "*"
STRATEGIES = ("Performance", "Size")
#: ST Edge AI's `--optimization`: levels, and the one that is meant when none is chosen.
LEVELS, DEFAULT_LEVEL = range(4), 3


class OptionError(ValueError):
    """A value that an option cannot have: a phrase that says what it can be."""


class FileOptions(NamedTuple):
    """What is chosen for one file; None: nothing, so that the default applies.

    convert: False stores the file as it is. optimise: `Performance` or `Size`, Vela's strategies,
    or a level from 0 to 3 for ST Edge AI; each tool takes what is meant for it. profile: for ST
    Edge AI, `NAME`, `FILE` or `NAME@FILE`, of a neuralart JSON; "": ours. mpool: its memory pool
    file; "": ours. arguments: for the tool that converts the file; what romfsfs itself sets wins.
    align: where the data starts in the image is a multiple of this, bytes, and of what the board
    asks for.
    """

    convert: bool | None = None
    optimise: str | int | None = None
    profile: str | None = None
    mpool: str | None = None
    arguments: tuple[str, ...] | None = None
    align: int | None = None

    def over(self, other: FileOptions) -> FileOptions:
        """These choices, and where there is none those of `other`."""
        return FileOptions(**{**other.record(), **self.record()})

    def record(self) -> dict[str, Any]:
        """What is chosen, by name; `FileOptions(**record)` is the same again."""
        values = self._asdict().items()
        return {name: value for name, value in values if value is not None}

    @property
    def strategy(self) -> str:
        """Vela's."""
        return self.optimise if isinstance(self.optimise, str) else STRATEGIES[0]

    @property
    def level(self) -> int:
        """ST Edge AI's."""
        return self.optimise if isinstance(self.optimise, int) else DEFAULT_LEVEL


_NOTHING = FileOptions()


class Rule(NamedTuple):
    """pattern: as in `--exclude`, fnmatch's, case-sensitive. Without `/` it names files and
    folders wherever they are, with `/` paths from the root (`**`: any number of folders). A
    folder means all that is in it."""

    pattern: str
    options: FileOptions

    def names(self, path: str) -> bool:
        """Whether it is about the file at `path` (relative, with `/`)."""
        if self.pattern == EVERYTHING:
            return True
        names = path.split("/")
        if "/" not in self.pattern.rstrip("/"):
            return any(fnmatch.fnmatchcase(name, self.pattern.rstrip("/")) for name in names)
        return _leads(self.pattern.strip("/").split("/"), names)


def _leads(parts: Sequence[str], names: Sequence[str]) -> bool:
    """Whether the first names are what the parts of a pattern say."""
    if not parts:
        return True
    if parts[0] == "**":
        return any(_leads(parts[1:], names[skip:]) for skip in range(len(names) + 1))
    return bool(names) and fnmatch.fnmatchcase(names[0], parts[0]) and _leads(parts[1:], names[1:])


@dataclass(frozen=True, slots=True)
class Options:
    """rules: the later ones win. stedgeai: ST's tool, or the folder it is installed in.
    timeout_seconds: for one file."""

    rules: tuple[Rule, ...] = ()
    stedgeai: str | None = None
    timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS
    # Asked for with every file at every look at a tree.
    _known: dict[str, FileOptions] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def for_path(self, path: str) -> FileOptions:
        """What is chosen for the file at `path` of the tree."""
        chosen = self._known.get(path) if self.rules else _NOTHING
        if chosen is None:
            chosen = _NOTHING
            for rule in self.rules:
                if rule.names(path):
                    chosen = rule.options if chosen is _NOTHING else rule.options.over(chosen)
            self._known[path] = chosen
        return chosen

    def over(self, rules: Iterable[Rule]) -> Options:
        """The same with these rules before its own, which win."""
        return Options((*rules, *self.rules), self.stedgeai, self.timeout_seconds)

    def extended(self, later: Options) -> Options:
        """What both say; where they differ, `later` is right. One rule for each pattern."""
        known: dict[str, FileOptions] = {}
        for pattern, options in (*self.rules, *later.rules):
            known[pattern] = options.over(known.pop(pattern, FileOptions()))
        rules = tuple(Rule(*item) for item in known.items())
        return Options(rules, later.stedgeai or self.stedgeai, later.timeout_seconds)

    def record(self) -> dict[str, Any]:
        """For `from_record`, as JSON can hold it."""
        rules = [[pattern, options.record()] for pattern, options in self.rules]
        return {"rules": rules, "stedgeai": self.stedgeai}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Options:
        """What `record` gave, or nothing. TypeError, ValueError when it is something else."""
        rules = (Rule(str(pattern), checked(chosen)) for pattern, chosen in record.get("rules", ()))
        return cls(tuple(rules), record.get("stedgeai"))


def checked(values: Mapping[str, Any], folder: str = "") -> FileOptions:
    """FileOptions of values that someone wrote. OptionError for the first that cannot be.

    folder: what files are named relative to; "": the current one."""
    return FileOptions(**{name: check(name, value, folder) for name, value in values.items()})


def check(name: str, value: Any, folder: str = "") -> Any:
    """One value of `checked`. OptionError."""
    if name not in OPTIONS:
        raise OptionError(f"there is no option {name!r}; there are {', '.join(OPTIONS)}")
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
    """The file of a `FileOptions.profile`; "": it names a profile of ours."""
    _, at, file = profile.rpartition("@")
    return file if at or "/" in file or "." in file else ""


def _is_text(value: object) -> bool:
    return isinstance(value, str) and "\0" not in value


def _is_number(value: object, numbers: Container[int]) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value in numbers


#: option -> whether it can be a value, and what it can be
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
        "a list of texts, ['--option', 'value']",
    ),
    "align": (
        lambda value: _is_number(value, ALIGNMENTS),
        f"a power of two from {ALIGNMENTS[0]} to {ALIGNMENTS[-1]}",
    ),
}


def file_digest(path: str) -> str:
    """The start of the digest of a settings file, for `described`."""
    try:
        return digest_file(path)[:12]
    except OSError:
        return "(not there)"


def described(values: Mapping[str, str]) -> str:
    """What bytes are made for, as one text: equal texts, equal bytes (with the same tool)."""
    return "; ".join(f"{name}={value}" for name, value in values.items() if value)


def difference(old: str, new: str) -> str:
    """How two results of `described` differ, for people."""
    was, now = (dict(part.partition("=")[::2] for part in text.split("; ")) for text in (old, new))
    names = [name for name in {**was, **now} if name and was.get(name) != now.get(name)]
    return "; ".join(
        f"{name} was {was.get(name, 'not set')}, is {now.get(name, 'not set')}" for name in names
    )
