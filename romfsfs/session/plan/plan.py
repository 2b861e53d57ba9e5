"""The plan of a commit: what the image will hold, in which order, and what is wrong with it.

Every problem is found before anything is written, and all are listed at once.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from romfsfs.convert import Options, Target, labels_name
from romfsfs.errors import count_text, too_large
from romfsfs.image.layout import (
    DEFAULT_RULES,
    AlignmentRules,
    Layout,
    TreeEntry,
    image_size,
    laid_out,
    measure,
)
from romfsfs.image.model import Extent
from romfsfs.image.tree import Branch, Leaf
from romfsfs.image.varuint import MAX_VALUE
from romfsfs.session.keep.state import Base, BaseEntry
from romfsfs.session.plan.problems import ERROR, INFO, WARNING, Problem, by_severity
from romfsfs.session.plan.shadow import Change, Derived, Folders, ShadowEntry
from romfsfs.session.plan.stored import InBase, Stored

if TYPE_CHECKING:
    from romfsfs.session.keep.base_image import BaseImage

LARGEST_SHOWN = 5
#: The control directory of a mount (`fs/control.py`).
HIDDEN_NAME = ".romfs"


class PlanEntry(NamedTuple):
    """A file or folder as it will be stored.

    path: in the image. source: in the work tree. size: bytes, None for a folder.
    """

    path: str
    source: str
    size: int | None
    digest: str
    location: Stored | None
    shadow: ShadowEntry


class Part(NamedTuple):
    """The plan of one folder, derived from its own entries alone.

    shadow: what it was derived from. entries: in image order. inside: paths of its subfolders.
    aligned: option `align` of single files in bytes, by path. left_out: an entry cannot be stored.
    differs: content or order differ from the base.
    """

    shadow: Derived
    entries: tuple[PlanEntry, ...]
    inside: tuple[str, ...]
    problems: tuple[Problem, ...]
    aligned: Mapping[str, int]
    left_out: bool
    differs: bool


@dataclass(frozen=True)
class Plan:
    """What a commit would write, and the problems with it.

    problems: most severe first. size: of the image in canonical layout, bytes. changed: whether
    there is anything to commit, including what cannot be stored. parts: by folder of the image,
    parents first. branches: the same folders in canonical layout.
    """

    problems: tuple[Problem, ...]
    size: int
    capacity: int | None
    rules: AlignmentRules
    changed: bool
    parts: Mapping[str, Part] = field(repr=False)
    branches: Mapping[str, Branch] = field(repr=False)

    @cached_property
    def entries(self) -> tuple[PlanEntry, ...]:
        """In image order: parents before children."""
        ordered = []
        pending = list(reversed(self.parts[""].entries))
        while pending:
            entry = pending.pop()
            ordered.append(entry)
            if entry.size is None:
                pending.extend(reversed(self.parts[entry.path].entries))
        return tuple(ordered)

    @cached_property
    def files(self) -> Mapping[str, PlanEntry]:
        return {entry.path: entry for entry in self.entries if entry.size is not None}

    @cached_property
    def layout(self) -> Layout:
        """The canonical layout. CapacityError above 4 GiB, which `problems` then names too."""
        directories = [entry.path for entry in self.entries if entry.size is None]
        return laid_out(self.branches[""], directories)

    @property
    def errors(self) -> tuple[Problem, ...]:
        return tuple(problem for problem in self.problems if problem.severity == ERROR)

    def tree(self) -> list[TreeEntry]:
        return [TreeEntry(entry.path, entry.size) for entry in self.entries]


def alignment_rules(target: Target, wanted: Mapping[str, int]) -> AlignmentRules:
    """The partition's alignment rules, with the user's `wanted` alignments by image path.

    Without a board, models get 16 bytes, the least that any board asks for."""
    rules = target.partition.alignment if target.partition is not None else DEFAULT_RULES
    return rules._replace(paths=wanted)


def make_plan(
    folders: Folders, base: Base, target: Target, capacity: int | None,
    order: Sequence[str] = (), extents: Mapping[str, Extent] | None = None,
    before: Plan | None = None, more: Sequence[Problem] = (),
) -> Plan:  # fmt: skip
    """Order, check and measure what the folders of the work tree become.

    order: files to place first, by work tree path; base order follows. extents: of the base's
    files in its image. before: an earlier plan for the same base and target, whose results are
    reused for folders that are the same objects. more: problems found elsewhere."""
    known = before.parts if before is not None else {}
    rank = {path: number for number, path in enumerate(order)}
    every: dict[str, Part] = {}
    for folder, shadow in folders.items():
        part = known.get(folder)
        if part is None or part.shadow is not shadow:
            part = _part(shadow, base.folders.get(folder, ()), target.options, rank)
        every[folder] = part
    nothing = Part(Derived(()), (), (), (), {}, False, False)
    parts: dict[str, Part] = {}
    pending = [""]
    while pending:
        folder = pending.pop()
        parts[folder] = every.get(folder, nothing)  # removed since its parent was listed
        pending.extend(reversed(parts[folder].inside))
    wanted: dict[str, int] = {}
    for part in parts.values():
        wanted.update(part.aligned)
    rules = alignment_rules(target, wanted)
    branches = _measured(parts, rules, before if before and before.rules == rules else None)
    size = image_size(branches[""])
    problems = [*more, *(problem for part in every.values() for problem in part.problems)]
    most = min(MAX_VALUE, MAX_VALUE if capacity is None else capacity)
    if size > most:
        entries = [entry for part in parts.values() for entry in part.entries]
        problems.append(_capacity_problem(entries, size, most))
    return Plan(
        by_severity(problems),
        size,
        capacity,
        rules,
        base.fresh
        or any(part.left_out for part in every.values())
        or any(part.differs for part in parts.values())
        or _misplaced(parts, rules, extents or {}),
        parts,
        branches,
    )


def _part(
    shadow: Derived, base: Sequence[BaseEntry], options: Options, first: Mapping[str, int]
) -> Part:
    """Plan one folder. base: its base entries. first: ranks of files to place first, by path."""
    problems = [problem for entry in shadow.entries for problem in _entry_problems(entry)]
    chosen, conflicts = _choose(shadow.entries)
    problems += conflicts
    left_out = bool(conflicts)
    for path in list(chosen):
        if (problem := _name_problem(path, chosen[path])) is not None:
            problems.append(problem)
            if problem.severity == ERROR:
                del chosen[path]
                left_out = True
    problems += _label_problems(chosen)
    aligned = {
        path: align
        for path, entry in (chosen.items() if options.rules else ())
        if not entry.is_dir and (align := options.for_path(entry.path).align)
    }
    entries = tuple([
        PlanEntry(
            path,
            entry.path,
            None if entry.is_dir else (entry.size if entry.size is not None else entry.estimate),
            entry.digest,
            entry.location,
            entry,
        )
        for path, entry in _ordered(chosen, base, first)
    ])  # fmt: skip
    inside = tuple([entry.path for entry in entries if entry.size is None])
    differs = _differs(entries, base)
    return Part(shadow, entries, inside, tuple(problems), aligned, left_out, differs)


def _measured(
    parts: dict[str, Part], rules: AlignmentRules, before: Plan | None
) -> dict[str, Branch]:
    """Each folder's canonical layout, inner folders first. before: a plan with the same rules,
    whose branches of unchanged folders are reused."""
    branches: dict[str, Branch] = {}
    for folder in reversed(parts):
        part = parts[folder]
        if before is not None and before.parts.get(folder) is part:
            known = before.branches
            if all(known[path] is branches[path] for path in part.inside):
                branches[folder] = known[folder]
                continue
        branch = branches[folder] = Branch(folder, folder.rpartition("/")[2].encode())
        branch.children = [
            branches[path] if size is None else Leaf(path, path.rpartition("/")[2].encode(), size)
            for path, _, size, *_ in part.entries
        ]
        measure([branch], rules)
    return branches


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
    """The entry for each stored path, and a conflict for each of several that map to one path."""
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
        if entry.change is not Change.ADDED:  # it came with the image, and the camera reads it
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
    """Warnings of labels that `ml.Model` will not find (it cuts a name at its first dot)."""
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
    chosen: Mapping[str, ShadowEntry], base: Sequence[BaseEntry], first: Mapping[str, int]
) -> list[tuple[str, ShadowEntry]]:
    """Files of `first`, then base order, then new names in code point order."""
    rank = {entry.path: len(first) + number for number, entry in enumerate(base)}
    last = len(first) + len(rank)

    def place(item: tuple[str, ShadowEntry]) -> tuple[int, str]:
        path, entry = item
        known = rank.get(path, last)
        return first.get(entry.path, first.get(path, known)), path

    return sorted(chosen.items(), key=place)


def _differs(entries: Sequence[PlanEntry], base: Sequence[BaseEntry]) -> bool:
    """Whether a folder's content or order would differ from the base."""
    return len(entries) != len(base) or any(
        mine.path != theirs.path
        or mine.size != theirs.size
        or (mine.digest != theirs.digest and not isinstance(mine.location, InBase))
        for mine, theirs in zip(entries, base, strict=True)
    )


def _misplaced(
    parts: Mapping[str, Part], rules: AlignmentRules, extents: Mapping[str, Extent]
) -> bool:
    """Whether the offset of a file in the base violates its option `align`."""
    return any(
        extents[entry.location.path].offset % rules.for_path(entry.path)
        for part in (parts.values() if extents else ())
        for entry in (part.entries if part.aligned else ())
        if entry.path in part.aligned and entry.size and isinstance(entry.location, InBase)
    )


def _capacity_problem(entries: Sequence[PlanEntry], size: int, capacity: int) -> Problem:
    largest = sorted(
        (entry for entry in entries if entry.size), key=lambda entry: -(entry.size or 0)
    )
    shown = ", ".join(f"{entry.path} {entry.size:,} B" for entry in largest[:LARGEST_SHOWN])
    what = too_large(size, capacity, "").what
    message = f"{what}: remove or shrink files, the largest are {shown}"
    return Problem("capacity", "", message)


def trailing_problem(plan: Plan, held: BaseImage) -> Problem | None:
    """What a commit does with bytes after the image in the file (a partition dump); None if none.

    One repeated fill byte is kept, and shrinks as the image grows. Other data is unknown to
    romfsfs: it keeps its offset, and a commit whose image would overwrite it is refused.
    """
    trailing = held.base.trailing
    if trailing == 0:
        return None
    after = count_text(trailing, "byte")
    longer = plan.size - held.base.image_size
    if held.trailing_fill is not None or (longer <= 0 or not plan.changed):
        message = f"a commit keeps the {after} after the image in the file"
        return Problem("trailing", "", message, INFO)
    message = (
        f"{after} of unknown data after the image in the file, and the new image is "
        f"{count_text(longer, 'byte')} longer: commit --to another file, or commit --force drops "
        "the data"
    )
    return Problem("trailing", "", message)
