"""Problems of a tree: errors, warnings and notes, and how many of them are told to people."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from romfsfs.errors import count_text, printable

#: Problems of this severity stop a commit.
ERROR = "error"
WARNING = "warning"
INFO = "info"
#: Most severe first.
SEVERITIES = (ERROR, WARNING, INFO)
#: How many files are named when the same is said of more.
TOLD_FILES = 3

#: Problems of the image as a whole (exit code 4); all others are of a conversion (3).
PLAN_CODES = ("conflict", "name", "capacity", "unsupported", "trailing")


class Problem(NamedTuple):
    """code: stable, for scripts. message: one line with the remedy. detail: a tool's output."""

    code: str
    path: str
    message: str
    severity: str = ERROR
    detail: str = ""

    def record(self) -> dict[str, str]:
        """As JSON."""
        return {
            "code": self.code, "path": self.path, "message": self.message,
            "severity": self.severity,
        }  # fmt: skip

    @property
    def text(self) -> str:
        """The message with the path before it, unless it begins with that already."""
        path = printable(self.path)
        shown = not path or self.message.startswith((path, self.path))
        return self.message if shown else f"{path}: {self.message}"


def by_severity(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """Errors first, then warnings, then notes; within each as they come."""
    return tuple(sorted(problems, key=lambda problem: SEVERITIES.index(problem.severity)))


def told(problems: Iterable[Problem], verbose: bool = False) -> list[Problem]:
    """Problems for people, most severe first, with equal messages merged: the merged one gives the
    number of files and the first of them. A conflict's message names its files itself.

    verbose: merge conflicts only."""
    groups: dict[tuple[str, ...], dict[str, Problem]] = {}
    for problem in by_severity(problems):
        itself = problem.path if verbose and problem.code != "conflict" else ""
        key = (problem.severity, problem.code, problem.message, itself)
        groups.setdefault(key, {}).setdefault(problem.path, problem)
    return [_together(list(group.values())) for group in groups.values()]


def _together(group: Sequence[Problem]) -> Problem:
    """Merge problems with the same message into one."""
    first = group[0]
    if len(group) == 1 or first.code == "conflict":
        return first
    names = ", ".join(problem.path for problem in group[:TOLD_FILES])
    more = ", ..." if len(group) > TOLD_FILES else ""
    return first._replace(path=f"{len(group):,} files ({names}{more})")


def counted(problems: Iterable[Problem]) -> list[str]:
    """For example `2 errors` and `1 warning`; a kind without problems is left out."""
    severities = [problem.severity for problem in told(problems, verbose=True)]
    counts = [(severities.count(kind), kind) for kind in (ERROR, WARNING)]
    return [count_text(count, kind) for count, kind in counts if count]
