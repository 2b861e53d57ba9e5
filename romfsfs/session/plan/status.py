"""What would be committed now, as a record, as JSON and as text."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, NamedTuple

from romfsfs.boards import VelaNpu
from romfsfs.convert import Target
from romfsfs.errors import count_text, printable
from romfsfs.session.keep.state import SessionInfo
from romfsfs.session.plan.plan import Plan
from romfsfs.session.plan.problems import ERROR, INFO, Problem, by_severity, counted, told
from romfsfs.session.plan.shadow import Change, ShadowEntry
from romfsfs.session.plan.stored import InCache

_CHANGES = (Change.ADDED, Change.MODIFIED, Change.DELETED)
_LETTERS = {Change.ADDED: "A", Change.MODIFIED: "M", Change.DELETED: "D", Change.IGNORED: "I"}
_BAR_WIDTH = 24
#: Columns: longer names do not move the sizes of other lines.
_NAME_WIDTH = 60


class Status(NamedTuple):
    """used: bytes the image would take. capacity: of the partition in bytes, None if unlimited.
    converting: the number of the running conversion, and of all that were requested together; None
    if none is running."""

    info: SessionInfo
    target: Target
    entries: tuple[ShadowEntry, ...]
    problems: tuple[Problem, ...]
    used: int
    capacity: int | None
    clean: bool
    converting: tuple[int, int] | None = None

    @property
    def pending(self) -> bool:
        """Whether a conversion is still pending."""
        return any(entry.state == "pending" for entry in self.entries)

    @property
    def changes(self) -> int:
        """How many files were added, modified or deleted."""
        return sum(entry.change in _CHANGES for entry in self.entries)

    @property
    def edits(self) -> int:
        """How many of these are the user's edits, and not only stale."""
        return sum(entry.is_edit for entry in self.entries)

    @property
    def edited(self) -> bool:
        """Whether there is more to commit than stale files."""
        return not self.clean and (self.edits > 0 or not self.changes)

    @property
    def errors(self) -> tuple[Problem, ...]:
        return tuple(problem for problem in self.problems if problem.severity == ERROR)

    def record(self) -> dict[str, Any]:
        """The JSON object of `status --json`. Its problems are errors, then warnings."""
        return {
            "source": self.info.name,
            "board": self.info.board,
            "partition": self.info.partition,
            "capacity": self.capacity,
            "used": self.used,
            "free": None if self.capacity is None else max(0, self.capacity - self.used),
            "clean": self.clean,
            "entries": [_entry_record(entry) for entry in self.entries],
            "problems": [each.record() for each in self.problems if each.severity != INFO],
        }

    def json(self) -> str:
        return json.dumps(self.record(), indent=1) + "\n"

    def text(self, verbose: bool = False, *, mounted: bool = True) -> str:
        """For a terminal: errors and warnings, the changes, notes, and how full it is.

        mounted: whether a daemon runs the pending conversions.
        """
        lines = [headline(self)]
        problems = told(self.problems, verbose)
        grave = [problem for problem in problems if problem.severity != INFO]
        for problem in grave:
            lines += _problem_lines(problem, verbose)
        shown = [entry for entry in self.entries if _is_shown(entry, verbose)]
        cells = [_entry_cells(entry, self.target, mounted) for entry in shown]
        width = min(
            _NAME_WIDTH, max((len(printable(name)) for name, said in cells if said), default=0)
        )
        sizes = max((len(said) for _, said in cells if said.endswith(" B")), default=0)
        for entry, (name, said) in zip(shown, cells, strict=True):
            aligned = said.rjust(sizes) if said.endswith(" B") else said
            lines.append(f"{printable(name):{width}}  {aligned}" if said else name)
            if verbose and entry.figures is not None:
                lines.append(f"      {entry.figures.text}")
        ignored = sum(
            entry.change is Change.IGNORED and not entry.is_dir and not entry.note
            for entry in self.entries
        )
        if ignored and not verbose:
            files = count_text(ignored, "file")
            lines.append(f"  {files} of editors and file managers left out (-v lists them)")
        for problem in problems[len(grave) :]:
            lines += _problem_lines(problem, verbose)
        lines.append(_usage_line(self.used, self.capacity))
        return "".join(f"{printable(line)}\n" for line in lines)


def make_status(
    info: SessionInfo,
    target: Target,
    shadow: Iterable[ShadowEntry],
    plan: Plan,
    notes: Iterable[Problem],
) -> Status:
    """The status of a shadow tree and its plan; `notes` are problems found elsewhere."""
    entries = tuple(sorted(shadow, key=lambda entry: entry.path))
    problems = by_severity((*plan.problems, *notes))
    blocked = any(entry.state == "failed" for entry in entries)
    clean = not plan.changed and not blocked
    return Status(info, target, entries, problems, plan.size, plan.capacity, clean)


def _entry_record(entry: ShadowEntry) -> dict[str, Any]:
    messages = [diagnostic.message for diagnostic in entry.diagnostics]
    return {
        "path": entry.path,
        "change": entry.change.value,
        "stored_as": entry.stored_as,
        "stored_size": entry.size,
        "state": entry.state,
        "message": "; ".join(messages) or entry.note,
        **({"model": entry.figures._asdict()} if entry.figures is not None else {}),
    }


def headline(status: Status) -> str:
    """One line: the target, and what there is to commit."""
    info = status.info
    board = f"{info.board}, partition {info.partition}" if info.board else "no board"
    changes = status.changes
    if status.clean:
        what = "nothing to commit"
        if changes:
            what += ": the changes convert to what the image already holds"
    elif changes:
        what = count_text(changes, "change")
    else:
        what = "no edits, but a commit would write the image"
    waiting = sum(entry.state == "pending" for entry in status.entries)
    more = [f"{waiting:,} still to convert"] if waiting else []
    if status.converting is not None:
        more = ["converting {:,} of {:,}".format(*status.converting)]
    return f"{info.name} ({board}): {', '.join([what, *counted(status.problems), *more])}"


def _is_shown(entry: ShadowEntry, verbose: bool) -> bool:
    if entry.change is Change.UNCHANGED:
        return verbose
    return verbose or entry.change is not Change.IGNORED


def _entry_cells(entry: ShadowEntry, target: Target, mounted: bool) -> tuple[str, str]:
    """The left and right part of an entry's line: the name, and its size or state."""
    letter = _LETTERS.get(entry.change, " ")
    path = entry.path + ("/" if entry.is_dir else "")
    line = f"  {letter} {path}"
    if entry.change is Change.DELETED or entry.is_dir:
        return line, ""
    if entry.change is Change.IGNORED:
        return line, f"({entry.note or 'not stored'})"
    if entry.state == "failed":
        return line, "FAILED"
    size = f"{entry.size or 0:,} B"
    if entry.state == "pending":
        size = entry.note or ("converting" if mounted else "converted on commit")
    becomes = what_it_becomes(entry, target)
    return f"{line} -> {becomes}" if becomes else line, size


def what_it_becomes(entry: ShadowEntry, target: Target) -> str:
    """The stored file's name if it differs, or the NPU that it is compiled for; '' if neither."""
    if entry.stored_as != entry.path:
        return (entry.stored_as or "").rpartition("/")[2]
    # Of files that keep their name, only models are converted, for the partition's NPU.
    npu = target.partition.npu if target.partition is not None else None
    if npu is None or not (entry.state == "pending" or isinstance(entry.location, InCache)):
        return ""
    return "Ethos-U" if isinstance(npu, VelaNpu) else "Neural-ART"


def _problem_lines(problem: Problem, verbose: bool) -> list[str]:
    label = "note" if problem.severity == INFO else problem.severity
    lines = [f"  {label}: {problem.text}"]
    if problem.detail and (verbose or problem.severity == ERROR):
        lines += [f"    | {line.expandtabs()}" for line in problem.detail.rstrip().splitlines()]
    return lines


def _usage_line(used: int, capacity: int | None) -> str:
    if capacity is None:
        return f"  {used:,} B, capacity unknown (no board)"
    share = used / capacity if capacity else 1.0
    filled = min(_BAR_WIDTH, round(share * _BAR_WIDTH))
    bar = "#" * filled + "." * (_BAR_WIDTH - filled)
    return f"  [{bar}] {used:,} of {capacity:,} B ({share:.1%})"
