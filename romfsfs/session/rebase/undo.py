"""Writing an earlier image back to the target."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import NamedTuple

from romfsfs.devices.base import Device, WriteReport
from romfsfs.errors import ImageFormatError, RomfsError, TargetChanged, UsageError
from romfsfs.session.keep import history
from romfsfs.session.keep.images import open_image
from romfsfs.session.keep.steps import reached
from romfsfs.session.rebase.prepare import wait_for_writers
from romfsfs.session.rebase.read import base_of
from romfsfs.session.rebase.record import Record, interrupted_write
from romfsfs.session.rebase.recovery import recover_locked, with_restart
from romfsfs.session.rebase.target.base import Held
from romfsfs.session.rebase.transaction import (
    UNMOUNTED,
    USUAL,
    Mounted,
    WriteOptions,
    look,
    rebase,
    restarted,
)
from romfsfs.session.session import Session
from romfsfs.system.files import EMPTY_DIGEST, Progress, no_progress

#: Before what became of it.
_ENDED = "an earlier interrupted transaction was"


class Undone(NamedTuple):
    """entry: of the image that is written back. report: None for a dry run, or if nothing was
    written. before: digest of the image that the target held, '' if it held none. there: a message
    if the target held that image already, else ''."""

    entry: history.HistoryEntry
    report: WriteReport | None
    before: str
    there: str = ""


def undo(
    session: Session,
    device: Device,
    number: int | None = None,
    options: WriteOptions = USUAL,
    *,
    dry_run: bool = False,
    mounted: Mounted = UNMOUNTED,
    progress: Progress = no_progress,
) -> Undone:
    """Write an earlier image back to the target: image `number`, or the one before the current one.

    The work tree follows. If the target already holds that image, nothing is written or logged.
    RomfsError if there are edits, files open for writing, or no such image; TargetChanged, unless
    forced, if the target changed elsewhere. If it did, or was erased or deleted, the default is
    the image that was last written. Else raises as `rebase`, and SessionBusy.
    """
    target, argument = options.target(device), session.info.argument
    with session.folder.lock_for_change(session.info.name):
        cut = interrupted_write(session.folder)
        recovered = recover_locked(
            session, target, dry_run=dry_run, mounted=mounted, progress=progress
        )
        if number is not None or not history.entries(session.folder):
            undo_target(session, number)
        wait_for_writers(session, mounted.writers)
        if session.has_work and session.status().edited:
            raise RomfsError(
                "there are uncommitted edits, which undo would mix with the earlier image",
                where=session.info.name,
                next_step=f"commit them, or drop them: romfsfs revert {argument}",
            )
        with target.alone():
            before = look(session, target, progress)
            if before.unseen and not options.force and (before.size or before.digest == ""):
                raise TargetChanged(
                    "the target changed elsewhere since it was read",
                    where=session.info.name,
                    next_step=f"to undo anyway: romfsfs undo {argument} --force; to edit "
                    f"what is there: romfsfs mount {argument} DIR"
                    + (", once it is unmounted" if mounted.root else ""),
                )
            wanted = undo_target(session, number, elsewhere=before.unseen)
            held = _image_of(session, before)
            if not before.unseen and (held, before.digest is None) == (
                wanted.digest, wanted.missing
            ):  # fmt: skip
                there = f"image {wanted.number} is there already, nothing written"
                if recovered:
                    if cut and options.restart:
                        recovered = with_restart(device, recovered)
                    there = f"{_ENDED} {recovered}; {there}"
                return Undone(wanted, None, held, there)
            image = session.folder.image(wanted.digest)
            base = base_of(image, session.recall())
            if base.digest != wanted.digest:
                raise RomfsError(
                    "the image in the log is damaged",
                    where=str(image),
                    next_step=f"nothing was written; list the other images: romfsfs log {argument}",
                )
            if dry_run:
                target.refuse_slots(wanted.size)
                return Undone(wanted, None, held)
            if wanted.missing:
                base = replace(base, target_digest=None)
            reached("after-placed")
            said = f"back to {wanted.number}"
            record = Record("undo", before, base, session.tree_base, said, wanted.number)
            report = rebase(session, target, record, mounted, progress)
        assert report is not None
        if recovered:
            report = replace(report, notes=(f"{_ENDED} {recovered}", *report.notes))
        return Undone(wanted, restarted(device, report) if options.restart else report, held)


def _image_of(session: Session, before: Held) -> str:
    digest = EMPTY_DIGEST if before.digest is None else before.digest
    with contextlib.suppress(ImageFormatError):
        if digest:
            with open_image(session.folder.image(digest)):
                return digest
    return ""


def undo_target(
    session: Session, number: int | None = None, *, elsewhere: bool = False
) -> history.HistoryEntry:
    """The log entry of the image that `undo` would write. RomfsError if there is none. elsewhere:
    the target does not hold the log's last image."""
    known = history.entries(session.folder)
    if number is None:
        return known[-1] if elsewhere and known else history.previous(session.folder, session.info)
    for entry in known:
        if entry.number == number:
            return entry
    raise UsageError(
        f"no image {number} in the log",
        where=session.info.name,
        next_step=f"romfsfs log {session.info.argument}",
    )
