"""Writing an earlier image back to the target."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from romfsfs.devices.base import Device, WriteReport
from romfsfs.errors import RomfsError, UsageError
from romfsfs.image.model import FileNode, walk
from romfsfs.session.keep import base_image, history, store
from romfsfs.session.keep.images import open_image
from romfsfs.session.keep.recall import Recall, shown_as
from romfsfs.session.keep.state import Base, BaseEntry
from romfsfs.session.rebase import recovery
from romfsfs.session.rebase.commit import write_target
from romfsfs.session.rebase.prepare import refuse_open_files
from romfsfs.session.rebase.recovery import CommitRecord
from romfsfs.session.rebase.steps import reached
from romfsfs.session.rebase.target import holds, restarted, target_changed, target_is
from romfsfs.session.session import Session
from romfsfs.system.files import Progress, digest_fd, no_progress


def undo(
    session: Session,
    device: Device,
    *,
    number: int | None = None,
    root: Path | None = None,
    open_files: Sequence[str] = (),
    reset: bool = True,
    progress: Progress = no_progress,
) -> tuple[history.HistoryEntry, WriteReport]:
    """Write an earlier image back to the target (the one before the present, or `number`).

    The work tree follows (through `root`, where it is mounted). RomfsError while it holds edits
    or files are open for writing; TargetChanged when the target is not what was last written.
    """
    with store.lock_for_change(session.directory, session.info.name):
        recovery.recover_locked(session, device, root=root, progress=progress)
        refuse_open_files(open_files)
        wanted = undo_target(session, number)
        if session.has_work and not session.status().clean:
            raise RomfsError(
                "the work tree holds edits that an undo would mix with",
                where=session.info.name,
                next_step=f"commit them, or drop them: romfsfs revert {session.info.argument}",
            )
        if not _is_as_left(session, device):
            raise target_changed(session)
        new = session.directory / "new.img"
        new.unlink(missing_ok=True)
        history.link(history.image_path(session, wanted.number), new)
        reached("undo-image")
        base = base_of(new, session.recall())
        if base.digest != wanted.digest:
            raise _damaged(session, wanted)
        record = CommitRecord.new(session, base, f"back to {wanted.number}", "undo", wanted.number)
        base_image.stage(session.directory, new, base)
        reached("commit-staged")
        record.save(session)
        reached("commit-record")
        report = write_target(session, device, progress)
        reached("target-written")
        recovery.finish(session, device, record, root)
        return wanted, restarted(device, report) if reset else report


def _damaged(session: Session, entry: history.HistoryEntry) -> RomfsError:
    return RomfsError(
        "the image in the log is damaged",
        where=str(history.image_path(session, entry.number)),
        next_step=f"nothing was written; the others: romfsfs log {session.info.argument}",
    )


def present_image(session: Session) -> Path:
    """The image that the session last read or wrote: what an undo would replace.

    Without a work tree the log knows better than the base: whole images are written past it.
    """
    known = history.entries(session)
    if not session.has_work and known:
        return history.image_path(session, known[-1].number)
    return session.base_image


def _is_as_left(session: Session, device: Device) -> bool:
    """Whether the target holds what the session last read or wrote."""
    present = present_image(session)
    if present != session.base_image:
        return holds(device, present)
    return target_is(session, device)


def undo_target(session: Session, number: int | None = None) -> history.HistoryEntry:
    """The image that `undo` would write. RomfsError if there is none."""
    if number is None:
        return history.previous(session)
    for entry in history.entries(session):
        if entry.number == number:
            return entry
    raise UsageError(
        f"no image {number} in the log",
        where=session.info.name,
        next_step=f"romfsfs log {session.info.argument}",
    )


def base_of(path: Path, recall: Recall) -> Base:
    """The base that an image file amounts to, sources recalled, nothing extracted."""
    entries = []
    with open_image(path) as (image, file):
        fd = file.fileno()
        nodes = list(walk(image))
        paths = {stored for stored, _ in nodes}
        for stored, node in nodes:
            if not isinstance(node, FileNode):
                entries.append(BaseEntry(stored, None, "", stored, "", None))
                continue
            digest = digest_fd(fd, *node.extent)
            source = recall.find(stored, digest)
            shown = shown_as(stored, source, paths)
            if source is None or shown is None:
                made = BaseEntry(stored, node.extent.size, digest, stored, digest, None)
            else:
                made = BaseEntry(stored, node.extent.size, digest, shown, source.digest, None)
            entries.append(made)
        digest = digest_fd(fd)
        size = os.fstat(fd).st_size
    return replace(Base(digest, size, image.size, digest, None), entries=tuple(entries))
