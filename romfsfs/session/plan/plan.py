"""The plan of a commit: what the image will hold, in which order, and what is wrong with it.

Every problem is found before anything is written, and all are listed at once.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

from romfsfs.convert import Target, labels_name
from romfsfs.errors import CapacityError, printable
from romfsfs.image.layout import DEFAULT_RULES, AlignmentRules, Layout, TreeEntry, canonical
from romfsfs.image.model import Extent
from romfsfs.session.keep.state import Base
from romfsfs.session.plan.shadow import Change, ShadowEntry
from romfsfs.session.plan.stored import InBase, Stored

if TYPE_CHECKING:
    from romfsfs.session.keep.base_image import BaseImage

#: Problems of this severity stop a commit.
ERROR = "error"
WARNING = "warning"
INFO = "info"
#: Most severe first.
SEVERITIES = (ERROR, WARNING, INFO)

LARGEST_SHOWN = 5
#: Files that are named where the same is to be said of many.
TOLD_FILES = 3

#: The control directory of a mount (`fs/control.py`).
HIDDEN_NAME = ".romfs"

#: Problems of what the tree as a whole becomes (exit code 4); others are of a conversion (3).
PLAN_CODES = ("conflict", "name", "capacity", "unsupported", "trailing")


@dataclass(frozen=True, slots=True)
class Problem:
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


class PlanEntry(NamedTuple):
    """A file or folder as it will be stored. size None: a folder. alignment in bytes."""

    path: str
    source: str
    size: int | None
    digest: str
    alignment: int
    location: Stored | None
    shadow: ShadowEntry


@dataclass(frozen=True, slots=True)
class Plan:
    """entries: in the order of the image. problems: most severe first. layout: canonical.

    changed: whether the work tree says anything else than the base does, be it what cannot be
    stored.
    """

    entries: tuple[PlanEntry, ...]
    problems: tuple[Problem, ...]
    layout: Layout
    capacity: int | None
    rules: AlignmentRules
    changed: bool
    files: Mapping[str, PlanEntry] = field(repr=False, default_factory=dict)

    @property
    def errors(self) -> tuple[Problem, ...]:
        return tuple(problem for problem in self.problems if problem.severity == ERROR)

    @property
    def size(self) -> int:
        """Of the image in canonical layout, bytes."""
        return self.layout.size

    def tree(self) -> list[TreeEntry]:
        return [TreeEntry(entry.path, entry.size) for entry in self.entries]


def alignment_rules(target: Target, chosen: Mapping[str, ShadowEntry]) -> AlignmentRules:
    """The partition's rules, and what the user wants for single files; without a board 16 bytes
    for models, as every board wants at least. chosen: by path in the image."""
    rules = target.partition.alignment if target.partition is not None else DEFAULT_RULES
    wanted = {
        path: target.options.for_path(entry.path).align
        for path, entry in (chosen.items() if target.options.rules else ())
        if not entry.is_dir
    }
    return rules._replace(paths={path: align for path, align in wanted.items() if align})


def make_plan(
    shadow: Sequence[ShadowEntry], base: Base, target: Target, capacity: int | None,
    order: Sequence[str] = (), extents: Mapping[str, Extent] | None = None,
) -> Plan:  # fmt: skip
    """Order, check and measure what the work tree becomes.

    order: files that come first, as the tree calls them; then follows what the base has. extents:
    where the base's files lie."""
    problems = [problem for entry in shadow for problem in _entry_problems(entry)]
    chosen, conflicts = _choose(shadow)
    problems += conflicts
    left_out = bool(conflicts)
    for path in list(chosen):
        if (problem := _name_problem(path, chosen[path])) is not None:
            problems.append(problem)
            if problem.severity == ERROR:
                del chosen[path]
                left_out = True
    problems += _label_problems(chosen)
    rules = alignment_rules(target, chosen)
    entries = tuple(
        PlanEntry(
            path,
            entry.path,
            None if entry.is_dir else (entry.size if entry.size is not None else entry.estimate),
            entry.digest,
            1 if entry.is_dir else rules.for_path(path),
            entry.location,
            entry,
        )
        for path, entry in _ordered(chosen, base, order)
    )
    most = capacity
    try:
        layout = canonical([TreeEntry(entry.path, entry.size) for entry in entries], rules)
    except CapacityError as error:  # beyond what the format holds: a layout to measure, no more
        layout = Layout(error.size, {}, (), ())
        most = min(error.capacity, capacity or error.capacity)
    if most is not None and layout.size > most:
        problems.append(_capacity_problem(entries, layout.size, most))
    return Plan(
        entries,
        by_severity(problems),
        layout,
        capacity,
        rules,
        left_out or _differs(entries, base) or _misplaced(entries, rules, extents or {}),
        {entry.path: entry for entry in entries if entry.size is not None},
    )


def _entry_problems(entry: ShadowEntry) -> list[Problem]:
    problems = []
    if entry.state == "failed" and entry.note:
        problems.append(Problem("unsupported", entry.path, entry.note))
    problems += [
        Problem(each.code, entry.path, each.message, each.severity, each.detail)
        for each in entry.diagnostics
    ]
    return problems


def _choose(shadow: Sequence[ShadowEntry]) -> tuple[dict[str, ShadowEntry], list[Problem]]:
    """The entry for each stored path, and a problem for each path that several want."""
    wanted: dict[str, list[ShadowEntry]] = {}
    for entry in shadow:
        if entry.stored_as is not None and entry.change not in (Change.DELETED, Change.IGNORED):
            wanted.setdefault(entry.stored_as, []).append(entry)
    chosen, problems = {}, []
    for path, entries in wanted.items():
        chosen[path] = entries[0]
        if len(entries) > 1:
            names = " and ".join(sorted(entry.path for entry in entries))
            for entry in entries:
                message = f"{names} would both be stored as {path}: rename or remove one"
                problems.append(Problem("conflict", entry.path, message))
    return chosen, problems


def _name_problem(path: str, entry: ShadowEntry) -> Problem | None:
    name = path.rpartition("/")[2]
    if path == HIDDEN_NAME:
        message = "the mount's own folder of that name hides it; it stays in the image"
        return Problem("hidden", entry.path, message, INFO)
    if name.isascii() and name.isprintable():
        return None
    try:
        name.encode()
    except UnicodeEncodeError:
        return Problem(
            "name", entry.path, "the name is not valid UTF-8, the camera cannot open it: rename it"
        )
    if any(unicodedata.category(character) == "Cc" for character in name):
        if entry.change is not Change.ADDED:  # it was there before us, and the camera reads it
            return Problem("name-control", entry.path, "the name has a control character", WARNING)
        return Problem("name", entry.path, "the name has a control character: rename it")
    if not name.isascii():
        message = (
            "the camera reads this name, but the OpenMV IDE shows and stores it with '?' for each "
            "special character"
        )
        severity = INFO if entry.change is Change.UNCHANGED else WARNING
        return Problem("name-ascii", entry.path, message, severity)
    return None


def _label_problems(chosen: Mapping[str, ShadowEntry]) -> list[Problem]:
    """Models with labels beside them that `ml.Model` will not find (it cuts at the first dot)."""
    problems = []
    for path, entry in chosen.items():
        stem, dot, suffix = path.rpartition(".")
        if entry.is_dir or not dot or suffix.lower() not in ("tflite", "lite"):
            continue
        looked_for = labels_name(path)
        if f"{stem}.txt" in chosen and looked_for not in chosen:
            message = (
                f"ml.Model looks for labels in {looked_for}, not {stem}.txt: rename the model and "
                "labels without inner dots"
            )
            problems.append(Problem("labels", entry.path, message, WARNING))
    return problems


def _ordered(
    chosen: Mapping[str, ShadowEntry], base: Base, order: Sequence[str]
) -> list[tuple[str, ShadowEntry]]:
    """Base order first, new names after it in code point order; parents before children."""
    stored_as = {entry.path: path for path, entry in chosen.items()} if order else {}
    known = [*(stored_as.get(name, name) for name in order), *(e.path for e in base.entries)]
    rank = {path: number for number, path in enumerate(known)}
    last = len(rank)
    children: dict[str, list[str]] = {}
    for path in chosen:
        children.setdefault(path.rpartition("/")[0], []).append(path)
    for paths in children.values():
        paths.sort(key=lambda path: (rank.get(path, last), path.rpartition("/")[2]))
    ordered = []
    pending = list(reversed(children.get("", [])))
    while pending:
        path = pending.pop()
        entry = chosen[path]
        ordered.append((path, entry))
        if entry.is_dir:
            pending.extend(reversed(children.get(path, [])))
    return ordered


def _differs(entries: Sequence[PlanEntry], base: Base) -> bool:
    """Whether the image would hold anything else, or in another order, than the base does."""
    if base.fresh or len(entries) != len(base.entries):
        return True
    return any(
        mine.path != theirs.path
        or mine.size != theirs.size
        or (mine.digest != theirs.digest and not isinstance(mine.location, InBase))
        for mine, theirs in zip(entries, base.entries, strict=True)
    )


def _misplaced(
    entries: Sequence[PlanEntry], rules: AlignmentRules, extents: Mapping[str, Extent]
) -> bool:
    """Whether a file of the base lies where the user does not want it (option `align`)."""
    wanted = rules.paths if rules.paths and extents else {}
    return any(
        extents[entry.location.path].offset % entry.alignment
        for entry in entries
        if entry.path in wanted and entry.size and isinstance(entry.location, InBase)
    )


def _capacity_problem(entries: Sequence[PlanEntry], size: int, capacity: int) -> Problem:
    largest = sorted(
        (entry for entry in entries if entry.size), key=lambda entry: -(entry.size or 0)
    )
    shown = ", ".join(f"{entry.path} {entry.size:,} B" for entry in largest[:LARGEST_SHOWN])
    message = (
        f"the image is {size - capacity:,} bytes larger than the {capacity:,} there are: remove "
        f"or shrink files, the largest are {shown}"
    )
    return Problem("capacity", "", message)


def trailing_problem(plan: Plan, held: BaseImage) -> Problem | None:
    """What becomes of the bytes that follow the image in the file, a partition dump's say.

    Fill of one repeated byte is kept and shrinks as the image grows. Other data is nothing that
    romfsfs knows: it stays where it is, and a commit is refused where the image would lie over it.
    """
    trailing = held.base.trailing
    if trailing == 0:
        return None
    longer = plan.size - held.base.image_size
    if held.trailing_fill is not None or (longer <= 0 or not plan.changed):
        message = f"{trailing:,} bytes follow the image in the file; a commit keeps them"
        return Problem("trailing", "", message, INFO)
    message = (
        f"{trailing:,} bytes of unknown data follow the image in the file, and the new image is "
        f"{longer:,} bytes longer: commit --to another file, or commit --force drops them"
    )
    return Problem("trailing", "", message)


def by_severity(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """Errors first, then warnings, then notes; within each as they come."""
    return tuple(sorted(problems, key=lambda problem: SEVERITIES.index(problem.severity)))


def told(problems: Iterable[Problem], verbose: bool = False) -> list[Problem]:
    """Problems for people, most severe first: what would be said of many files in the same words is
    said once, with their number and the first of them. A conflict names its files itself.

    verbose: of each file, but for conflicts."""
    groups: dict[tuple[str, ...], dict[str, Problem]] = {}
    for problem in by_severity(problems):
        itself = problem.path if verbose and problem.code != "conflict" else ""
        key = (problem.severity, problem.code, problem.message, itself)
        groups.setdefault(key, {}).setdefault(problem.path, problem)
    return [_together(list(group.values())) for group in groups.values()]


def _together(group: Sequence[Problem]) -> Problem:
    """One problem for all these, whose words are the same."""
    first = group[0]
    if len(group) == 1 or first.code == "conflict":
        return first
    names = ", ".join(problem.path for problem in group[:TOLD_FILES])
    more = ", ..." if len(group) > TOLD_FILES else ""
    return replace(first, path=f"{len(group):,} files ({names}{more})")


def counted(problems: Iterable[Problem]) -> list[str]:
    """`1 error`, `2 warnings`, as far as there are any."""
    severities = [problem.severity for problem in told(problems, verbose=True)]
    counts = [(severities.count(kind), kind) for kind in (ERROR, WARNING)]
    return [f"{count:,} {kind}{'' if count == 1 else 's'}" for count, kind in counts if count]
