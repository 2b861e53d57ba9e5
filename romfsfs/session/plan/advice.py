"""Advice that blocks no commit: files that another tool misaligned, a partition that is nearly
full, the same bytes stored twice.

No file is read but the records of the base's image.
"""

from __future__ import annotations

from collections.abc import Sequence

from romfsfs.errors import count_text, printable
from romfsfs.session.keep.base_image import BaseImage
from romfsfs.session.plan.plan import LARGEST_SHOWN, Plan, PlanEntry
from romfsfs.session.plan.problems import INFO, WARNING, Problem
from romfsfs.session.plan.stored import InBase

#: Share of the partition above which the largest files are named.
NEARLY_FULL = 0.9
#: Bytes: smaller copies, of less than an erase block, are not reported.
_WORTH_NAMING = 4096
_PROBLEMS_SHOWN = 5


def advice(plan: Plan, held: BaseImage, source: str) -> list[Problem]:
    """All advice on a plan. held: its base. source: how commands name the target."""
    # A changed file gets a new, aligned place anyway.
    wrong = [
        each for each in held.misaligned(plan.rules)
        if each[0] in plan.files and isinstance(plan.files[each[0]].location, InBase)
    ]  # fmt: skip
    problems = misaligned(
        wrong, "the next commit repairs it" if plan.changed
        else f"repair it with: romfsfs commit --compact {source}",
    )  # fmt: skip
    for found in (nearly_full(plan), duplicates(plan)):
        if found is not None:
            problems.append(found)
    return problems


def misaligned(wrong: Sequence[tuple[str, int, int]], remedy: str) -> list[Problem]:
    """Warnings of these files of the image (`BaseImage.misaligned`), with the remedy."""
    problems = [
        Problem(
            "misaligned", path,
            f"misaligned in the image: its data is at {offset:#x}, not a multiple of {alignment}; "
            f"{remedy}", WARNING,
        )
        for path, offset, alignment in wrong[:_PROBLEMS_SHOWN]
    ]  # fmt: skip
    if (more := len(wrong) - _PROBLEMS_SHOWN) > 0:
        message = f"{count_text(more, 'more file')} misaligned in the image; {remedy}"
        problems.append(Problem("misaligned", "", message, WARNING))
    return problems


def nearly_full(plan: Plan) -> Problem | None:
    """A note of the largest files if little space is left; a plan too large has an error."""
    if not plan.capacity or not plan.capacity * NEARLY_FULL < plan.size <= plan.capacity:
        return None
    largest = sorted(plan.files.values(), key=lambda entry: -(entry.size or 0))[:LARGEST_SHOWN]
    shown = ", ".join(f"{printable(entry.path)} {entry.size:,} B" for entry in largest)
    left = plan.capacity - plan.size
    return Problem("nearly-full", "", f"{left:,} B are left; the largest files: {shown}", INFO)


def duplicates(plan: Plan) -> Problem | None:
    """A note of files with the same bytes: ROMFS stores each of them in full."""
    groups: dict[str, list[PlanEntry]] = {}
    for entry in (entry for part in plan.parts.values() for entry in part.entries):
        if (entry.size or 0) >= _WORTH_NAMING and entry.digest:
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
