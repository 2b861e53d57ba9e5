"""Things about a session that speak against nothing but are worth knowing: alignment that another
tool got wrong, a partition that is nearly full, the same bytes stored twice.

Pure functions; nothing is read.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from romfsfs.errors import printable
from romfsfs.image.model import Extent
from romfsfs.image.rules import AlignmentRules
from romfsfs.session.plan.plan import INFO, LARGEST_SHOWN, WARNING, Plan, PlanEntry, Problem
from romfsfs.session.plan.stored import InBase

#: From this share of the partition on, the largest files are named.
NEARLY_FULL = 0.9
#: Copies of less than an erase block are not worth a word.
_WORTH_NAMING = 4096
_PROBLEMS_SHOWN = 5


def advice(plan: Plan, extents: Mapping[str, Extent], source: str) -> list[Problem]:
    """All of it. extents: where the base's files lie; source: how commands name the target."""
    kept = {
        entry.location.path for entry in plan.files.values() if isinstance(entry.location, InBase)
    }
    problems = misaligned(
        extents, plan.rules, kept, "the next commit repairs it" if plan.changed
        else f"repair it with: romfsfs commit --compact {source}",
    )  # fmt: skip
    for found in (nearly_full(plan), duplicates(plan)):
        if found is not None:
            problems.append(found)
    return problems


def misaligned(
    extents: Mapping[str, Extent],
    rules: AlignmentRules,
    kept: Collection[str] | None = None,
    remedy: str = "the next commit repairs it",
) -> list[Problem]:
    """Files of the image whose data does not lie where `rules` want it, as warnings.

    extents: of the image's files. kept: those that still are as they were in the image (None:
    all); what was changed gets a place of its own anyway.
    """
    wrong = [
        (path, extent.offset, rules.for_path(path))
        for path, extent in extents.items()
        if (kept is None or path in kept) and extent.size
        if extent.offset % rules.for_path(path)
    ]
    problems = [
        Problem(
            "misaligned", path,
            f"misaligned in the image: its data is at {offset:#x}, not a multiple of {alignment}; "
            f"{remedy}", WARNING,
        )
        for path, offset, alignment in wrong[:_PROBLEMS_SHOWN]
    ]  # fmt: skip
    if len(wrong) > _PROBLEMS_SHOWN:
        message = f"{len(wrong) - _PROBLEMS_SHOWN} more files are misaligned in the image; {remedy}"
        problems.append(Problem("misaligned", "", message, WARNING))
    return problems


def nearly_full(plan: Plan) -> Problem | None:
    """The largest files, where little is left. A plan that is too large has its own problem."""
    if not plan.capacity or not plan.capacity * NEARLY_FULL < plan.size <= plan.capacity:
        return None
    largest = sorted(plan.files.values(), key=lambda entry: -(entry.size or 0))[:LARGEST_SHOWN]
    shown = ", ".join(f"{printable(entry.path)} {entry.size:,} B" for entry in largest)
    left = plan.capacity - plan.size
    return Problem("nearly-full", "", f"{left:,} B are left; the largest files: {shown}", INFO)


def duplicates(plan: Plan) -> Problem | None:
    """Files with the same bytes: ROMFS stores each of them in full."""
    groups: dict[str, list[PlanEntry]] = {}
    for entry in plan.files.values():
        if entry.digest and (entry.size or 0) >= _WORTH_NAMING:
            groups.setdefault(entry.digest, []).append(entry)
    copies = sorted(
        (group for group in groups.values() if len(group) > 1),
        key=lambda group: -(group[0].size or 0) * (len(group) - 1),
    )
    if not copies:
        return None
    wasted = sum((group[0].size or 0) * (len(group) - 1) for group in copies)
    shown = "; ".join(
        " = ".join(printable(entry.path) for entry in group[:LARGEST_SHOWN])
        for group in copies[:_PROBLEMS_SHOWN]
    )
    return Problem("duplicates", "", f"{wasted:,} B are stored more than once: {shown}", INFO)
