"""Writing an earlier image back to the target."""

from __future__ import annotations

from dataclasses import replace

from romfsfs.devices.base import Device, WriteReport
from romfsfs.errors import RomfsError, UsageError
from romfsfs.session.keep import history
from romfsfs.session.keep.steps import reached
from romfsfs.session.rebase.prepare import wait_for_writers
from romfsfs.session.rebase.read import base_of
from romfsfs.session.rebase.record import Record
from romfsfs.session.rebase.recovery import recover_locked
from romfsfs.session.rebase.target import target_of
from romfsfs.session.rebase.transaction import (
    UNMOUNTED,
    Mounted,
    look,
    rebase,
    restarted,
    target_changed,
)
from romfsfs.session.session import Session
from romfsfs.system.files import Progress, no_progress


def undo(
    session: Session,
    device: Device,
    number: int | None = None,
    *,
    restart: bool = True,
    slot: str = "",
    mounted: Mounted = UNMOUNTED,
    progress: Progress = no_progress,
) -> tuple[history.HistoryEntry, WriteReport]:
    """Write an earlier image back to the target (the one before the present, or `number`).

    The work tree follows. RomfsError while it holds edits or files are open for writing;
    TargetChanged when the target is not what was last written.
    """
    target = target_of(device, slot)
    with session.folder.lock_for_change(session.info.name):
        recovered = recover_locked(session, target, mounted=mounted, progress=progress)
        wait_for_writers(session, mounted.writers)
        wanted = undo_target(session, number)
        if session.has_work and not session.status().clean:
            raise RomfsError(
                "there are uncommitted edits, which an undo would mix with",
                where=session.info.name,
                next_step=f"commit them, or drop them: romfsfs revert {session.info.argument}",
            )
        with target.alone():
            before = look(session, target, progress)
            if before.unseen:
                raise target_changed(session)
            image = session.folder.image(wanted.digest)
            base = base_of(image, session.recall())
            if base.digest != wanted.digest:
                raise RomfsError(
                    "the image in the log is damaged",
                    where=str(image),
                    next_step=f"nothing was written; list the other images: romfsfs log "
                    f"{session.info.argument}",
                )
            if wanted.missing:
                base = replace(base, target_digest=None)
            reached("after-placed")
            said = f"back to {wanted.number}"
            record = Record("undo", before, base, session.tree_base, said, wanted.number)
            report = rebase(session, target, record, mounted, progress)
        assert report is not None
        if recovered:
            report = replace(report, notes=(f"interrupted before, {recovered}", *report.notes))
        return wanted, restarted(device, report) if restart else report


def undo_target(session: Session, number: int | None = None) -> history.HistoryEntry:
    """The image that `undo` would write. RomfsError if there is none."""
    if number is None:
        return history.previous(session.folder, session.info)
    for entry in history.entries(session.folder):
        if entry.number == number:
            return entry
    raise UsageError(
        f"no image {number} in the log",
        where=session.info.name,
        next_step=f"romfsfs log {session.info.argument}",
    )
