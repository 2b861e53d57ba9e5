"""Committing: from the work tree to a verified image on the target.

    refuse open files -> convert -> plan -> layout -> encode new.img -> parse it back
    -> is the target what it was? -> commit.json -> write, read back -> rebase

Up to `commit.json` nothing outside the session folder has changed and a crash costs nothing;
after it, `recovery` finishes or rolls back.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from romfsfs.devices.base import Device, WriteReport
from romfsfs.devices.file import FileDevice
from romfsfs.errors import (
    CapacityError,
    DeviceError,
    ImageFormatError,
    Interrupted,
    RomfsError,
    UsageError,
    VerifyError,
)
from romfsfs.image.file_buffer import FileBuffer
from romfsfs.image.layout import Layout
from romfsfs.session.keep import base_image, store
from romfsfs.session.keep.images import open_image, parse_fd
from romfsfs.session.keep.settling import settle
from romfsfs.session.keep.state import Base, BaseEntry
from romfsfs.session.plan.plan import ERROR, Plan, Problem, trailing_problem
from romfsfs.session.plan.shadow import Change, InBase, ShadowEntry
from romfsfs.session.rebase import recovery
from romfsfs.session.rebase.encoding import Encoded, keep_slack
from romfsfs.session.rebase.prepare import Prepared, prepared, raise_problems, refuse_open_files
from romfsfs.session.rebase.recovery import CommitRecord
from romfsfs.session.rebase.steps import reached
from romfsfs.session.rebase.target import (
    believed,
    holds,
    keep_overwritten,
    no_space,
    restarted,
    target_changed,
    target_is,
)
from romfsfs.session.rebase.whole import push
from romfsfs.session.session import Session
from romfsfs.system.files import Progress, no_progress

log = logging.getLogger(__name__)

#: Bytes that flash erases at once where neither camera nor table says: a sector of SPI flash.
DEFAULT_ERASE_SIZE = 4096


@dataclass(frozen=True, slots=True)
class CommitReport:
    """clean: there was nothing to commit, and nothing was written. size: of the image, bytes.

    blocks: erase blocks of the partition that change, None for a file.
    """

    clean: bool
    plan: Plan
    shadow: tuple[ShadowEntry, ...]
    size: int = 0
    digest: str = ""
    write: WriteReport | None = None
    blocks: int | None = None


def commit(
    session: Session,
    device: Device,
    *,
    force: bool = False,
    compact: bool = False,
    dry_run: bool = False,
    open_files: Sequence[str] = (),
    root: Path | None = None,
    reset: bool = True,
    progress: Progress = no_progress,
) -> CommitReport:
    """Make the target hold what the work tree says, verified.

    force: over a target that changed elsewhere, and over unknown data after the image. compact:
    the canonical layout on a camera too. open_files: what the mount has open for writing. root:
    the mountpoint. reset: restart a camera afterwards. Raises ConversionError (3), PlanError and
    CapacityError (4), DeviceError (5), VerifyError (6), TargetChanged (7), SessionBusy and
    RomfsError (1); edits are never touched, and a target that was being written is finished or
    restored by `recovery`.
    """
    with store.lock_for_change(session.directory, session.info.name):
        _recover(session, device, dry_run, root, progress)
        if not dry_run:
            settle(session.directory)
        refuse_open_files(open_files)
        over = force and not target_is(session, device)
        new = session.directory / ("trial.img" if dry_run else "new.img")

        def choose(plan: Plan, problems: list[Problem]) -> Layout | None:
            trailing = trailing_problem(plan, session.held())
            if trailing is not None and trailing.severity == ERROR and not force:
                problems.append(trailing)
            writes = plan.changed or compact or over
            if not writes:  # what is there already may be too large, or not for this board
                kept = [each.source for each in plan.entries if isinstance(each.location, InBase)]
                problems = [p for p in problems if p.code != "capacity" and p.path not in kept]
            raise_problems(plan, problems)
            return choose_layout(session, plan, compact) if writes else None

        try:
            made = prepared(
                session, new, choose, lambda size: keep_slack(session.held(), size, force), progress
            )
            base = session.base
            if made.encoded is None or (made.encoded.digest == base.digest and not over):
                return CommitReport(True, made.plan, made.shadow, base.size, base.digest)
            changed = not target_is(session, device)
            if changed and not force:
                raise target_changed(session)
            blocks = differing_blocks(session, new)
            if dry_run:
                return _report(made, made.encoded, None, blocks)
            write = _carry_out(session, device, made, made.encoded, changed, root, progress)
            if reset:
                write = restarted(device, write)
            return _report(made, made.encoded, write, blocks)
        finally:
            if dry_run:
                new.unlink(missing_ok=True)
            elif not session.interrupted:
                recovery.forget(session)


def _report(
    made: Prepared, encoded: Encoded, write: WriteReport | None, blocks: int | None = None
) -> CommitReport:
    return CommitReport(False, made.plan, made.shadow, encoded.size, encoded.digest, write, blocks)


def _recover(
    session: Session, device: Device, dry_run: bool, root: Path | None, progress: Progress
) -> None:
    if not session.interrupted:
        return
    if dry_run:
        raise RomfsError(
            "a commit was interrupted, and a dry run would not mend that",
            where=session.info.name,
            next_step=f"romfsfs recover {session.info.argument}",
        )
    done = recovery.recover_locked(session, device, root=root, progress=progress)
    log.info("an interrupted commit was %s", done)


def _carry_out(
    session: Session,
    device: Device,
    made: Prepared,
    encoded: Encoded,
    changed: bool,
    root: Path | None,
    progress: Progress,
) -> WriteReport:
    """From a verified `new.img` on: the target is written, and the session follows."""
    try:
        if (changed or session.base.fresh) and _exists(device):
            keep_overwritten(session, device, progress)
        base = _rebased(made.plan, session.base, encoded)
        record = CommitRecord.new(session, base, _summary(made.shadow))
        base_image.stage(session.directory, session.directory / "new.img", base)
        reached("commit-staged")
        record.save(session)
    except OSError as error:
        raise no_space(session, error, "the commit cannot begin") from error
    reached("commit-record")
    write = write_target(session, device, progress)
    reached("target-written")
    recovery.finish(session, device, record, root)
    return write


def _exists(device: Device) -> bool:
    return not isinstance(device, FileDevice) or device.exists()


def commit_to(
    session: Session,
    device: Device,
    *,
    source: str = "",
    dry_run: bool = False,
    force: bool = False,
    open_files: Sequence[str] = (),
    reset: bool = True,
    progress: Progress = no_progress,
) -> CommitReport:
    """Write what the work tree says to another target; the session stays as it is.

    What a camera held is kept in its own log first, as `push` does. source: what the target was
    opened as. force: also over contents that are no image.
    """
    found = device.info()
    if found.key == session.info.key:
        raise UsageError(
            "that is the session's own target",
            where=found.name,
            next_step=f"romfsfs commit {session.info.argument}",
        )

    def choose(plan: Plan, problems: list[Problem]) -> Layout:
        raise_problems(plan, problems)
        layout = plan.layout
        if found.capacity is not None and layout.size > found.capacity:
            raise CapacityError(
                f"the image is {layout.size - found.capacity:,} bytes larger than the target holds",
                size=layout.size,
                capacity=found.capacity,
                where=found.name,
            )
        return layout

    with store.lock_for_change(session.directory, session.info.name):
        refuse_open_files(open_files)
        out = session.directory / "elsewhere.img"
        try:
            made = prepared(session, out, choose, lambda size: None, progress)
            assert made.encoded is not None  # `choose` always gives a layout
            if dry_run:
                return _report(made, made.encoded, None)
            with open(out, "rb") as image:
                if isinstance(device, FileDevice):
                    _refuse_other_files(device, force)
                    write: WriteReport | None = device.write_image(image, None, progress)
                else:  # what it holds is kept first
                    write = push(device, source or found.name, image, session.info.name,
                                 force=force, reset=reset, progress=progress)  # fmt: skip
            if write is None:  # it held all of that already
                write = WriteReport(0, 0, 0.0, verified=True, skipped=made.encoded.size)
            return _report(made, made.encoded, write)
        finally:
            out.unlink(missing_ok=True)


def _refuse_other_files(device: FileDevice, force: bool) -> None:
    """A name that was mistyped must not cost a file that is no image."""
    if force or not device.exists():
        return
    try:
        with open_image(device.path):
            return
    except ImageFormatError as error:
        raise ImageFormatError(
            error.reason, error.offset, where=device.given,
            next_step="nothing was written; choose another name, or --force replaces the file",
        ) from None  # fmt: skip


def choose_layout(session: Session, plan: Plan, compact: bool) -> Layout:
    """Canonical for files and `--compact`; stable for cameras, so that few blocks differ."""
    if compact or session.info.kind == "file" or not session.base.image_size:
        return plan.layout
    from romfsfs.image.stable import stable

    unchanged = {entry.path for entry in plan.files.values() if isinstance(entry.location, InBase)}
    erase_size = session.erase_size or DEFAULT_ERASE_SIZE
    fd = session.held().fd
    image = parse_fd(fd, "base.img")
    base = FileBuffer(fd, image.size)
    return stable(plan.tree(), plan.rules, image, unchanged, erase_size, plan.capacity, base)


def write_target(session: Session, device: Device, progress: Progress) -> WriteReport:
    """Write `new.img` to the target. A file that was left as it was needs no recovery."""
    new = session.directory / "new.img"
    try:
        with open(new, "rb") as image, believed(session) as old:
            return device.write_image(image, old, progress)
    except (VerifyError, DeviceError) as error:
        if not isinstance(device, FileDevice):
            error.next_step = (
                f"{error.next_step + '; ' if isinstance(error, DeviceError) else ''}"
                f"your edits are kept: romfsfs recover {session.info.argument} "
                "finishes it, with --rollback it brings the image before back"
                + (f", which is {session.base_image}" if session.base_image.exists() else "")
            )
        raise
    except KeyboardInterrupt:
        if isinstance(device, FileDevice):
            raise  # it is whole, the old one or the new
        raise Interrupted(
            "interrupted while the camera was written, which is not finished",
            where=session.info.name,
            next_step=f"your edits are kept: romfsfs recover {session.info.argument} finishes it, "
            "with --rollback it brings the image before back",
        ) from None
    finally:
        if isinstance(device, FileDevice) and not _was_written(device, new):
            recovery.forget(session)


def _was_written(device: FileDevice, new: Path) -> bool:
    if device.written_stamp is not None:
        return True
    with contextlib.suppress(RomfsError, OSError):
        return holds(device, new)
    return True  # not known: recovery will look again


def differing_blocks(session: Session, new: Path) -> int | None:
    """How many erase blocks of the partition a new image changes, as far as the host knows."""
    block = session.erase_size
    if not block or session.info.kind == "file":
        return None
    count = 0
    with open(new, "rb") as file, open(session.base_image, "rb") as old:
        for offset in range(0, os.fstat(file.fileno()).st_size, block):
            mine = os.pread(file.fileno(), block, offset)
            count += mine != os.pread(old.fileno(), len(mine), offset)
    return count


def _rebased(plan: Plan, base: Base, encoded: Encoded) -> Base:
    """The base that the committed image is, as far as it is known before it is written."""
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
