"""Committing: from the work tree to a verified image on the target.

wait for writers -> convert -> plan -> layout -> encode -> parse it back -> look for writers again
-> look at the target -> the transaction (`transaction.py`)
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from romfsfs.devices.base import Device, WriteReport
from romfsfs.errors import UsageError, file_exists, too_large
from romfsfs.image.file_buffer import FileBuffer
from romfsfs.image.layout import Layout, canonical
from romfsfs.session.keep.images import parse_fd
from romfsfs.session.keep.settling import settle
from romfsfs.session.keep.state import Base, BaseEntry
from romfsfs.session.keep.steps import reached
from romfsfs.session.plan.plan import Plan, trailing_problem
from romfsfs.session.plan.problems import ERROR, Problem
from romfsfs.session.plan.shadow import Change, ShadowEntry
from romfsfs.session.plan.stored import InBase
from romfsfs.session.rebase.encoding import Encoded, keep_slack
from romfsfs.session.rebase.prepare import Prepared, prepared, raise_problems
from romfsfs.session.rebase.push import PushOptions, push, refuse
from romfsfs.session.rebase.record import Record, interrupted_write
from romfsfs.session.rebase.recovery import finish_switched, recover_locked, with_restart
from romfsfs.session.rebase.target import target_of
from romfsfs.session.rebase.target.base import Held, Target
from romfsfs.session.rebase.target.file import FileTarget
from romfsfs.session.rebase.transaction import (
    UNMOUNTED,
    Mounted,
    WriteOptions,
    look,
    rebase,
    space_for,
    target_changed,
)
from romfsfs.session.rebase.trial import after_write, refuse_trial
from romfsfs.session.session import Session
from romfsfs.system.files import Progress, no_progress

#: Erase block in bytes if neither camera nor board table names one: a sector of SPI flash.
DEFAULT_ERASE_SIZE = 4096


@dataclass(frozen=True, slots=True)
class CommitOptions(WriteOptions):
    """force: overwrite unknown data after the image too. compact: canonical layout on a camera too.
    dry_run: do all but the write."""

    compact: bool = False
    dry_run: bool = False


class CommitReport(NamedTuple):
    """clean: there was nothing to commit, and nothing was written. size: of the image file, bytes.

    blocks: erase blocks of the partition that change, None for a file or if unknown. recovered:
    how an earlier transaction that was interrupted ended, '' if there was none.
    """

    clean: bool
    plan: Plan
    shadow: tuple[ShadowEntry, ...]
    size: int = 0
    digest: str = ""
    write: WriteReport | None = None
    blocks: int | None = None
    recovered: str = ""


def commit(
    session: Session,
    device: Device,
    options: CommitOptions = CommitOptions(),
    mounted: Mounted = UNMOUNTED,
    progress: Progress = no_progress,
) -> CommitReport:
    """Write the work tree to the target as an image, and verify it.

    Raises UsageError (2), ConversionError (3), PlanError and CapacityError (4), DeviceError (5),
    VerifyError (6), TargetChanged (7), Interrupted (130), SessionBusy and RomfsError (1). Edits are
    never touched, and `recovery` finishes or restores a target that was being written.
    """
    target = options.target(device)
    folder = session.folder
    if options.tries:
        refuse_trial(device.info())
    with folder.lock_for_change(session.info.name, "commit"):
        cut = interrupted_write(folder)
        recovered = recover_locked(
            session, target, dry_run=options.dry_run, mounted=mounted, progress=progress
        )
        if not options.dry_run:
            settle(folder)
        over = options.force and not target.unchanged_since(session.held())

        def choose(plan: Plan, problems: list[Problem]) -> Layout | None:
            trailing = trailing_problem(plan, session.held())
            if trailing is not None and trailing.severity == ERROR and not options.force:
                problems.append(trailing)
            writes = plan.changed or options.compact or over
            # An image that is already too large stops only a commit that would write.
            raise_problems(plan, [p for p in problems if writes or p.code != "capacity"])
            return _layout(session, target, plan, options.compact) if writes else None

        try:
            made = prepared(
                session, choose, lambda size: keep_slack(session.held(), size, options.force),
                mounted.writers, progress,
            )  # fmt: skip
            base = session.base
            if made.encoded is None or (made.encoded.digest == base.digest and not over):
                if not options.force and not target.unchanged_since(session.held()):
                    raise target_changed(session, edited=False)
                if cut and options.restart:
                    recovered = with_restart(device, recovered)
                return CommitReport(
                    True, made.plan, made.shadow, base.size, base.digest, recovered=recovered
                )
            blocks = None if over else _differing_blocks(session, target)
            if options.dry_run:
                if not options.force and not target.unchanged_since(session.held()):
                    raise target_changed(session)
                target.refuse_slots(made.encoded.size)
                return _report(made, made.encoded, None, blocks)
            with target.alone():
                write = _carry_out(session, target, made, options.force, mounted, progress)
        finally:
            folder.staged.unlink(missing_ok=True)
        write = after_write(device, write, options, base, session.base, progress)
        return _report(made, made.encoded, write, blocks)._replace(recovered=recovered)


def _report(
    made: Prepared, encoded: Encoded, write: WriteReport | None, blocks: int | None = None
) -> CommitReport:
    return CommitReport(False, made.plan, made.shadow, encoded.size, encoded.digest, write, blocks)


def _carry_out(
    session: Session, target: Target, made: Prepared, force: bool, mounted: Mounted,
    progress: Progress,
) -> WriteReport:  # fmt: skip
    """Write the verified `staged.img`. The caller holds `commit.lock` and `target.alone()`."""
    folder, old, encoded = session.folder, session.base, made.encoded
    assert encoded is not None
    before = look(session, target, progress)
    if before.unseen and not force and not _is_as_started(old, before):
        raise target_changed(session)
    with space_for(session, "the commit cannot begin"):
        folder.place(folder.staged, encoded.digest)
    reached("after-placed")
    base = _committed(made.plan, old, encoded)
    record = Record("commit", before, base, _tree_base(old, base), _summary(made.shadow))
    write = rebase(session, target, record, mounted, progress)
    assert write is not None
    return write


def _is_as_started(old: Base, held: Held) -> bool:
    """Whether the tree was started empty (`--new`), to replace what the target still holds."""
    return old.fresh and old.target_digest in ("", held.digest)


def _tree_base(old: Base, base: Base) -> Base:
    """What the committed work tree held: the new base, and compiled files of the old one that a
    source replaces. Left in the tree, these would be stored again, outdated, once the source is
    deleted."""
    made = {entry.path for entry in base.entries if entry.source != entry.path}
    shown = {entry.source for entry in base.entries}
    gone = [e for e in old.entries if e.source == e.path and e.path in made - shown]
    return replace(base, entries=(*base.entries, *gone))


def commit_to(
    session: Session,
    device: Device,
    options: CommitOptions = CommitOptions(),
    mounted: Mounted = UNMOUNTED,
    progress: Progress = no_progress,
    source: str = "",
) -> CommitReport:
    """Write the work tree to another target, and verify it; the session stays as it is.

    A tree that was just following another image when that was interrupted does so first.
    What a camera held is first kept in its own log, as `push` does. source: what the target was
    opened as. force: overwrite a file that exists, without keeping a copy, or what is no image.
    Raises as `commit`; UsageError also for the session's own target and a file that exists.
    """
    found, target, folder = device.info(), target_of(device), session.folder
    if options.tries:
        refuse_trial(found)
    if found.key == session.info.key:
        raise UsageError(
            "that is the session's own target",
            where=found.name,
            next_step=f"romfsfs commit {session.info.argument}",
        )
    if target.atomic and not options.force and not target.holds(None):
        raise file_exists(found.name)

    def choose(plan: Plan, problems: list[Problem]) -> Layout:
        raise_problems(plan, problems)
        layout = plan.layout
        if found.capacity is not None and layout.size > found.capacity:
            raise too_large(layout.size, found.capacity, found.name)
        return layout

    with folder.lock_for_change(session.info.name, "commit"):
        finish_switched(session, dry_run=options.dry_run, mounted=mounted)
        try:
            made = prepared(session, choose, lambda size: None, mounted.writers, progress)
            assert made.encoded is not None  # `choose` always gives a layout
            how = PushOptions(options.force, options.restart, options.tries, options.slot)
            if options.dry_run:
                if not target.atomic:
                    with open(folder.staged, "rb") as image:
                        refuse(device, image, session.info.name, how)
                return _report(made, made.encoded, None)
            if isinstance(target, FileTarget):
                with target.alone():
                    held = target.held() if options.force else Held(None, 0)
                    write: WriteReport | None = target.write(folder.staged, None, held, progress)
            else:  # what it holds is kept first
                with open(folder.staged, "rb") as image:
                    write = push(device, source or found.name, image, session.info.name, how,
                                 progress)  # fmt: skip
            if write is None:  # it held all of that already
                write = WriteReport(0, 0, 0.0, verified=True, skipped=made.encoded.size)
            return _report(made, made.encoded, write)
        finally:
            folder.staged.unlink(missing_ok=True)


def _layout(session: Session, target: Target, plan: Plan, compact: bool) -> Layout:
    """Canonical for files and `--compact`; stable for cameras, so that few blocks differ.

    A boot loader writes all blocks. What it erases together with the image header gets no files, if
    there is room: then a cable pulled at any moment leaves the old files, the new ones, or none.
    """
    lead = target.device.info().header_unit
    if lead and not compact:
        layout = canonical(plan.tree(), plan.rules, lead)
        return layout if plan.capacity is None or layout.size <= plan.capacity else plan.layout
    if compact or target.atomic or not session.base.image_size:
        return plan.layout
    from romfsfs.image.stable import stable

    unchanged = {entry.path for entry in plan.files.values() if isinstance(entry.location, InBase)}
    erase_size = session.settings.erase_size or DEFAULT_ERASE_SIZE
    fd = session.held().fd
    image = parse_fd(fd, "the base's image")
    base = FileBuffer(fd, image.size)
    return stable(plan.tree(), plan.rules, image, unchanged, erase_size, plan.capacity, base)


def _differing_blocks(session: Session, target: Target) -> int | None:
    """How many erase blocks differ between `staged.img` and the base's image; None if unknown."""
    block = None if target.atomic else session.settings.erase_size
    if not block:
        return None
    count, old = 0, session.held()
    with open(session.folder.staged, "rb") as file:
        for offset in range(0, os.fstat(file.fileno()).st_size, block):
            mine = os.pread(file.fileno(), block, offset)
            count += mine != os.pread(old.fd, len(mine), offset)
    return count


def _committed(plan: Plan, base: Base, encoded: Encoded) -> Base:
    """The base that a committed image becomes."""
    kept = {entry.path: entry for entry in base.entries}
    entries = []
    for entry in plan.entries:
        source = entry.shadow
        if entry.size is None:
            made = BaseEntry(entry.path, None, "", source.path, "", None)
        elif isinstance(entry.location, InBase):
            made = kept[entry.location.path]._replace(path=entry.path, signature=source.signature)
        else:
            made = BaseEntry(
                entry.path,
                entry.size,
                entry.digest,
                source.path,
                source.source_digest,
                source.signature,
                source.made_for,
            )
        entries.append(made)
    return Base(
        encoded.digest, encoded.size, encoded.image_size, encoded.digest, None, tuple(entries)
    )


def _summary(shadow: Sequence[ShadowEntry]) -> str:
    """What changed, in one line, for the log."""
    marks = {Change.ADDED: "A", Change.MODIFIED: "M", Change.DELETED: "D"}
    changes = [f"{marks[entry.change]} {entry.path}" for entry in shadow if entry.change in marks]
    return ", ".join(changes[:8]) + (f" and {len(changes) - 8} more" if len(changes) > 8 else "")
