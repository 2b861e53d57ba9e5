"""Committing: from the work tree to a verified image on the target.

    refuse open files -> convert -> plan -> layout -> encode new.img -> parse it back
    -> is the target what it was? -> commit.json -> write, read back -> rebase

Up to `commit.json` nothing outside the session folder has changed and a crash costs nothing;
after it, `recovery` finishes or rolls back.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from romfsfs.image.stable import stable

from romfsfs.devices.base import Device, WriteReport
from romfsfs.errors import CapacityError, ConversionError, PlanError, RomfsError, TargetChanged
from romfsfs.files import Progress, no_progress
from romfsfs.image.layout import Layout
from romfsfs.session import recovery, store
from romfsfs.session.conversions import Conversions
from romfsfs.session.encoding import Encoded, Sources, encode_plan, keep_slack
from romfsfs.session.images import open_image
from romfsfs.session.opening import target_is
from romfsfs.session.plan import Plan, Problem
from romfsfs.session.recovery import CommitRecord, at_step
from romfsfs.session.session import Session
from romfsfs.session.shadow import Change, InBase, ShadowEntry
from romfsfs.session.state import Base, BaseEntry

#: How often the tree is looked at again when files change while they are being converted.
_ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class CommitReport:
    """clean: there was nothing to commit, and nothing was written. size: of the image, bytes."""

    clean: bool
    plan: Plan
    shadow: tuple[ShadowEntry, ...]
    size: int = 0
    digest: str = ""
    write: WriteReport | None = None
    blocks: int | None = None
    problems: tuple[Problem, ...] = ()


def commit(
    session: Session,
    device: Device,
    *,
    force: bool = False,
    compact: bool = False,
    dry_run: bool = False,
    open_files: Sequence[str] = (),
    progress: Progress = no_progress,
) -> CommitReport:
    """Make the target hold what the work tree says, verified.

    force: over a target that changed elsewhere, and over unknown data after the image. compact:
    the canonical layout on a camera too. open_files: what the mount has open for writing.
    Raises ConversionError (3), PlanError and CapacityError (4), DeviceError (5), VerifyError (6),
    TargetChanged (7), SessionBusy and RomfsError (1); the work tree is never touched by a
    failure, and a target that was being written is finished or restored by `recovery`.
    """
    with store.lock_for_change(session.directory, session.info.name):
        if session.interrupted and not dry_run:
            recovery.recover_locked(session, device, progress=progress)
        refuse_open_files(open_files)
        shadow, plan = converted_plan(session, progress)
        raise_problems(plan)
        if not (plan.changed or compact or (force and not target_is(session, device))):
            return CommitReport(True, plan, tuple(shadow), session.base.size, session.base.digest)
        layout = choose_layout(session, plan, compact)
        encoded = _encode(session, plan, layout, force, progress)
        new = session.directory / "new.img"
        blocks = differing_blocks(session, encoded.size)
        if encoded.digest == session.base.digest and not force:
            new.unlink()
            return CommitReport(True, plan, tuple(shadow), encoded.size, encoded.digest)
        if dry_run:
            new.unlink()
            return CommitReport(
                False, plan, tuple(shadow), encoded.size, encoded.digest, None, blocks
            )
        if not force and not target_is(session, device):
            new.unlink()
            raise target_changed(session)
        record = CommitRecord.new(
            session, encoded, _rebased(plan, shadow, session.base, encoded), _summary(shadow)
        )
        record.save(session)
        at_step("commit-record")
        report = _write(session, device, progress)
        recovery.finish(session, device, record)
        return CommitReport(
            False, plan, tuple(shadow), encoded.size, encoded.digest, report, blocks
        )


def commit_to(
    session: Session,
    device: Device,
    *,
    dry_run: bool = False,
    open_files: Sequence[str] = (),
    progress: Progress = no_progress,
) -> CommitReport:
    """Write what the work tree says to another target; the session stays as it is."""
    with store.lock_for_change(session.directory, session.info.name):
        refuse_open_files(open_files)
        shadow, plan = converted_plan(session, progress)
        raise_problems(plan)
        found = device.info()
        layout = plan.layout()
        if found.capacity is not None and layout.size > found.capacity:
            raise CapacityError(
                f"the image is {layout.size - found.capacity:,} bytes larger than the target holds",
                size=layout.size,
                capacity=found.capacity,
                where=found.name,
            )
        out = session.directory / "elsewhere.img"
        try:
            with session.work_fd() as work_fd:
                sources = Sources(plan, session.base_image, session.base_extents, work_fd)
                encoded = encode_plan(plan, layout, sources, out, None, progress)
            if dry_run:
                return CommitReport(False, plan, tuple(shadow), encoded.size, encoded.digest)
            with open(out, "rb") as image:
                report = device.write_image(image, None, progress)
            return CommitReport(False, plan, tuple(shadow), encoded.size, encoded.digest, report)
        finally:
            out.unlink(missing_ok=True)


def refuse_open_files(open_files: Sequence[str]) -> None:
    """RomfsError naming the files that programs have open for writing."""
    if open_files:
        names = ", ".join(sorted(open_files)[:5]) + (" ..." if len(open_files) > 5 else "")
        count = len(open_files)
        raise RomfsError(
            f"{count} file{'s are' if count > 1 else ' is'} open for writing: {names}",
            next_step="save and close, then commit again",
        )


def converted_plan(
    session: Session, progress: Progress = no_progress
) -> tuple[list[ShadowEntry], Plan]:
    """The shadow tree with every conversion done, and its plan. Blocks while tools run."""
    with session.work_fd() as work_fd:
        conversions = Conversions(session.converters, work_fd)
        for _ in range(_ATTEMPTS):
            shadow = session.derive(conversions.lookup)
            if not conversions.run(shadow, progress):
                return shadow, session.plan(shadow)
    raise RomfsError(
        "files keep changing while they are converted", next_step="commit again when they are saved"
    )


def raise_problems(plan: Plan) -> None:
    """One error for all problems that stop a commit, each on a line of its own in the detail."""
    errors = plan.errors
    if not errors:
        return
    lines = []
    for problem in errors:
        place = (
            f"{problem.path}: "
            if problem.path and not problem.message.startswith(problem.path)
            else ""
        )
        lines.append(f"{place}{problem.message}")
        lines += [f"    {line}" for line in problem.detail.rstrip().splitlines()]
    images = [
        problem
        for problem in errors
        if problem.code in ("conflict", "name", "capacity", "unsupported")
    ]
    count = f"{len(errors)} problem{'s' if len(errors) > 1 else ''}"
    what = f"cannot commit: {count}; nothing was written"
    detail = "\n".join(lines)
    capacity = next((problem for problem in images if problem.code == "capacity"), None)
    if not images:
        raise ConversionError(what, detail=detail, next_step="mend or remove the files named below")
    if capacity is not None and len(errors) == 1 and plan.capacity is not None:
        raise CapacityError(capacity.message, size=plan.size, capacity=plan.capacity)
    raise PlanError(what, detail=detail, next_step="mend what is named below")


def target_changed(session: Session) -> TargetChanged:
    """The target is not what this session last read: the ways on."""
    source = session.info.source
    return TargetChanged(
        "the target changed elsewhere since it was read",
        where=session.info.name,
        next_step=f"write your edits to another file: romfsfs commit {source} --to FILE; over the "
        f"change: romfsfs commit {source} --force; or drop them: romfsfs revert {source}",
    )


def choose_layout(session: Session, plan: Plan, compact: bool) -> Layout:
    """Canonical for files and `--compact`; stable for cameras, so that few blocks differ."""
    if compact or session.info.kind == "file" or not session.base.image_size:
        return plan.layout()
    unchanged = {entry.path for entry in plan.files.values() if isinstance(entry.location, InBase)}
    with open_image(session.base_image) as (base, _):
        return stable(
            plan.tree(), plan.rules, base, unchanged, session.erase_size or 4096, plan.capacity
        )


def _encode(
    session: Session, plan: Plan, layout: Layout, drop_slack: bool, progress: Progress
) -> Encoded:
    slack = keep_slack(session.base_image, session.base, layout.size, drop_slack)
    new = session.directory / "new.img"
    with session.work_fd() as work_fd:
        sources = Sources(plan, session.base_image, session.base_extents, work_fd)
        return encode_plan(plan, layout, sources, new, slack, progress)


def _write(session: Session, device: Device, progress: Progress) -> WriteReport:
    with open(session.directory / "new.img", "rb") as image, open(session.base_image, "rb") as old:
        return device.write_image(image, old, progress)


def differing_blocks(session: Session, size: int) -> int | None:
    """How many erase blocks of the partition `new.img` changes, as far as the host knows."""
    block = session.erase_size
    if not block or session.info.kind == "file":
        return None
    count = 0
    with open(session.directory / "new.img", "rb") as new, open(session.base_image, "rb") as old:
        for offset in range(0, size, block):
            mine = os.pread(new.fileno(), block, offset)
            count += mine != os.pread(old.fileno(), len(mine), offset)
    return count


def _rebased(plan: Plan, shadow: Sequence[ShadowEntry], base: Base, encoded: Encoded) -> Base:
    """The base that the committed image is, as far as it is known before it is written."""
    kept = {entry.path: entry for entry in base.entries}
    entries = []
    for entry in plan.entries:
        source = entry.shadow
        if entry.size is None:
            entries.append(BaseEntry(entry.path, None, "", source.path, "", None))
        elif isinstance(entry.location, InBase):
            entries.append(
                kept[entry.location.path]._replace(path=entry.path, signature=source.signature)
            )
        else:
            digest = source.source_digest
            entries.append(
                BaseEntry(
                    entry.path, entry.size, entry.digest, source.path, digest, source.signature
                )
            )
    return Base(
        encoded.digest, encoded.size, encoded.image_size, encoded.digest, None, tuple(entries)
    )


def _summary(shadow: Sequence[ShadowEntry]) -> str:
    """What changed, in one line, for the log."""
    marks = {Change.ADDED: "A", Change.MODIFIED: "M", Change.DELETED: "D"}
    changes = [f"{marks[entry.change]} {entry.path}" for entry in shadow if entry.change in marks]
    return ", ".join(changes[:8]) + (f" and {len(changes) - 8} more" if len(changes) > 8 else "")
