"""What a commit does before the target is touched: convert, plan, encode, check."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import BinaryIO, NamedTuple

from romfsfs.errors import CapacityError, ConversionError, PlanError, RomfsError, count_text
from romfsfs.image.layout import Layout
from romfsfs.session.keep.steps import reached
from romfsfs.session.plan.conversions import Conversions
from romfsfs.session.plan.plan import Plan
from romfsfs.session.plan.problems import PLAN_CODES, Problem, counted, told
from romfsfs.session.plan.shadow import Change, ShadowEntry
from romfsfs.session.rebase.encoding import Encoded, StoredFiles, TreeChanged, encode_plan
from romfsfs.session.rebase.transaction import space_for
from romfsfs.session.session import Session
from romfsfs.session.tree.worktree import scan
from romfsfs.system.files import Progress, no_progress

log = logging.getLogger(__name__)

#: How often the tree is looked at, if files keep changing meanwhile.
_ATTEMPTS = 5
#: Seconds to wait for programs that have files open for writing.
WRITERS_SECONDS = 2.0


class Prepared(NamedTuple):
    """encoded: None when there is nothing to write."""

    shadow: tuple[ShadowEntry, ...]
    plan: Plan
    encoded: Encoded | None


def prepared(
    session: Session,
    choose: Callable[[Plan, list[Problem]], Layout | None],
    slack: Callable[[int], Callable[[BinaryIO], None] | None],
    writers: Callable[[], Sequence[str]],
    progress: Progress = no_progress,
) -> Prepared:
    """Encode the work tree as a verified image, in the session's `staged.img`.

    choose: refuses the plan or gives its layout; None: nothing is to be written. slack: for an
    image of so many bytes, the function that writes what follows it. writers: gives the files open
    for writing; asked before the conversions and again after encoding. If files were edited
    meanwhile, all is done again; RomfsError when they keep changing.
    """
    for _ in range(_ATTEMPTS):
        wait_for_writers(session, writers)
        shadow, plan = converted_plan(session, progress)
        layout = choose(plan, list(plan.errors))
        if layout is None:
            return Prepared(tuple(shadow), plan, None)
        folder = session.folder
        try:
            with space_for(session, "the new image cannot be made"), session.work_fd() as work_fd:
                sources = StoredFiles(plan, session.held(), work_fd)
                with folder.create(folder.staged) as out:
                    encoded = encode_plan(plan, layout, sources, out, slack(layout.size), progress)
                reached("encoded")
                if not wait_for_writers(session, writers) and not sources.changed():
                    return Prepared(tuple(shadow), plan, encoded)
            log.info("files were written meanwhile: once more")
        except TreeChanged as changed:
            log.info("%s: once more", changed)
    raise _keeps_changing()


def wait_for_writers(session: Session, writers: Callable[[], Sequence[str]]) -> bool:
    """Wait until no file that would be packed is open for writing; return whether one was.

    The kernel releases a file a moment after close(2) has returned to the program. RomfsError
    names the files that stay open.
    """
    deadline = time.monotonic() + WRITERS_SECONDS
    waited = False
    while True:
        written = writers()
        names = list(filter(_is_packed(session), written)) if written else []
        if not names:
            return waited
        if time.monotonic() > deadline:
            shown = ", ".join(sorted(names)[:5]) + (" ..." if len(names) > 5 else "")
            are, them = ("is", "it") if len(names) == 1 else ("are", "them")
            raise RomfsError(
                f"{count_text(len(names), 'file')} {are} open for writing: {shown}",
                next_step=f"save and close {them}, then try again",
            )
        waited = True
        time.sleep(0.02)


def _is_packed(session: Session) -> Callable[[str], bool]:
    """Whether a file of this path would be packed. What came with the image is, whatever its name
    (see `Deriver`)."""
    known, excluded = session.base.by_source, session.settings.excludes.matches
    return lambda path: path in known or not excluded(path)


def converted_plan(
    session: Session, progress: Progress = no_progress
) -> tuple[list[ShadowEntry], Plan]:
    """The shadow tree with every conversion done, and its plan. Blocks while tools run."""
    with session.work_fd() as work_fd:
        conversions = Conversions(session.settings.converters, work_fd)
        for _ in range(_ATTEMPTS):
            look = session.look(convert=conversions.lookup)
            shadow = look.shadow
            if not conversions.run(shadow, progress) and _is_whole(session, work_fd, shadow):
                return shadow, look.plan
    raise _keeps_changing()


def _is_whole(session: Session, work_fd: int, shadow: Sequence[ShadowEntry]) -> bool:
    """Whether the shadow tree has all that is in the work tree now: a file that was renamed during
    the scan may have been seen under neither name, and would be missing in the image."""
    there = {work.path for work in scan(work_fd)}
    seen = {entry.path for entry in shadow if entry.change is not Change.DELETED}
    ignored = {entry.path for entry in shadow if entry.change is Change.IGNORED}
    return seen - ignored <= there and not any(map(_is_packed(session), there - seen))


def _keeps_changing() -> RomfsError:
    return RomfsError(
        "files keep changing while they are committed; nothing was written",
        next_step="commit again when they are saved",
    )


def raise_problems(plan: Plan, errors: Sequence[Problem], doing: str = "commit") -> None:
    """Raise one error for all problems that stop a commit or a build, each on a line of its detail.
    PlanError, CapacityError or ConversionError."""
    if not errors:
        return
    lines = []
    for problem in told(errors):
        lines.append(problem.text)
        lines += [f"    {line}" for line in problem.detail.rstrip().splitlines()]
    of_the_plan = [problem for problem in errors if problem.code in PLAN_CODES]
    if len(errors) == 1 and errors[0].code == "capacity" and plan.capacity is not None:
        raise CapacityError(errors[0].message, size=plan.size, capacity=plan.capacity)
    what = f"cannot {doing}: {counted(errors)[0]}; nothing was written"
    kind = PlanError if of_the_plan else ConversionError
    raise kind(what, detail="\n".join(lines), next_step="fix what is listed below")
