"""The one operation that gives a target another image, or a session another base.

    before = what the target holds, looked at now
    after  = an image and its entries (from a commit, the log, the caller, or the target)

    place after in the history -> record -> write the target, read it back -> switch the base
    -> the work tree follows -> sources -> log -> forget the record

Until the record is written, nothing outside the session's history has changed, and a crash costs
nothing. From then on `recovery` finishes or rolls back, and every step may be repeated. Edits are
never touched: only what still is as in the old base follows the new one (`tree/follow.py`).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from romfsfs.devices.base import Device, WriteReport
from romfsfs.errors import (
    DeviceAnswer,
    DeviceError,
    ImageFormatError,
    Interrupted,
    RomfsError,
    TargetChanged,
    VerifyError,
)
from romfsfs.session.keep import history
from romfsfs.session.keep.base_image import switch
from romfsfs.session.keep.folder import SessionFolder
from romfsfs.session.keep.images import open_image
from romfsfs.session.keep.settling import mark
from romfsfs.session.keep.steps import reached
from romfsfs.session.rebase import sources
from romfsfs.session.rebase.record import Record, forget
from romfsfs.session.rebase.target import target_of
from romfsfs.session.rebase.target.base import Held, Target
from romfsfs.session.session import Session
from romfsfs.session.tree.follow import follow
from romfsfs.system.errors import os_error
from romfsfs.system.files import EMPTY_DIGEST, Progress, no_progress, sync_dir


@dataclass(frozen=True, slots=True)
class WriteOptions:
    """How an image is written to a target. force: overwrite one that changed elsewhere, or that
    holds no image. tries: then have the camera open the models that changed. restart: then restart
    it. slot: of openmv-ota, with force: written although that breaks its signature."""

    force: bool = False
    restart: bool = True
    tries: bool = False
    slot: str = ""

    def target(self, device: Device) -> Target:
        return target_of(device, self.slot if self.force else "")


#: Nothing is forced, and a camera restarts.
USUAL = WriteOptions()


class Mounted(NamedTuple):
    """How a work tree is used while its base changes. root: its mountpoint, None if it is not
    mounted. writers: gives the paths that are open for writing now."""

    root: Path | None = None
    writers: Callable[[], Sequence[str]] = tuple


#: A work tree that nobody uses.
UNMOUNTED = Mounted()


def look(session: Session, target: Target, progress: Progress = no_progress) -> Held:
    """What the target holds now. Anything but the base's image is copied into the history.

    Call it in `target.alone()`, and write in the same block. RomfsError if the disk is full.
    """
    folder = session.folder
    if folder.base.exists():
        held = session.held()
        if not held.base.fresh and target.unchanged_since(held):
            return Held(held.base.target_digest, held.base.size)
    try:
        with space_for(session, "what the target holds cannot be kept"):
            found = target.keep_copy(folder, progress)
            if found.digest is None:  # no file, which undo restores too: logged as an empty image
                with folder.create(folder.found):
                    pass
            if found.digest != "":
                folder.place(folder.found, found.digest or EMPTY_DIGEST)
    finally:
        folder.found.unlink(missing_ok=True)
    reached("before-kept")
    return found._replace(unseen=True)


def rebase(
    session: Session,
    target: Target,
    record: Record,
    mounted: Mounted = UNMOUNTED,
    progress: Progress = no_progress,
) -> WriteReport | None:
    """Carry out the transaction whose images are in the history. None: the target is not written.

    The caller holds `commit.lock` and `target.alone()`. Raises DeviceError, VerifyError,
    Interrupted and TargetChanged of the write, and RomfsError if the transaction cannot be recorded
    or the session not updated afterwards: `recovery` does the latter. OSError: nothing was written.
    """
    folder = session.folder
    if record.writes:  # before anything is recorded
        target.refuse_slots(record.base.size)
    # A read has nothing to tell apart: its target is not written.
    same = record.writes and record.is_switched(folder)
    record = replace(record, logged=history.last_number(folder), slot=target.slot, same=same)
    with space_for(session, f"the {record.kind} cannot begin"):
        record.save(folder)
    reached("recorded")
    report = None
    if record.writes:
        report = write(session, target, record, progress)
        reached("target-written")
    finish(session, target, record, mounted.root)
    return report


def write(session: Session, target: Target, record: Record, progress: Progress) -> WriteReport:
    """Write the record's image to the target. A failure that leaves the target as it was removes
    the record; any other says how to go on."""
    folder, image = session.folder, record.image(session.folder)
    held = folder.image(record.before.digest) if record.before.digest else None
    written = False
    try:
        report = target.write(
            image, held if held is not None and held.exists() else None, record.before, progress
        )
        written = True
        return report
    except (RomfsError, OSError) as error:
        if target.atomic:
            raise  # the file is the old one or the new one
        # Of a camera that may be gone, or that is not as it was written, there is nothing to ask.
        asks = isinstance(error, DeviceAnswer) or not isinstance(error, (VerifyError, DeviceError))
        if asks and _is_untouched(target, held):
            forget(folder)
            raise
        said = os_error(error) if isinstance(error, OSError) else error
        advice = "" if isinstance(said, VerifyError) else said.next_step
        said.next_step = "; ".join(filter(None, [advice, _ways_on(session, record)]))
        if said is not error:
            raise said from error
        raise
    except KeyboardInterrupt:
        if target.atomic:
            raise
        if _is_untouched(target, held):
            forget(folder)
            raise
        raise Interrupted(
            "interrupted while writing to the camera: the write may be incomplete",
            where=session.info.name,
            next_step=_ways_on(session, record),
        ) from None
    finally:
        if target.atomic and not written and not _may_be_written(target, image):
            forget(folder)


def _is_untouched(target: Target, held: Path | None) -> bool:
    """Whether a camera still holds its previous image, so that there is nothing to finish."""
    with contextlib.suppress(RomfsError, OSError):
        return held is not None and held.exists() and target.holds(held)
    return False


def _may_be_written(target: Target, image: Path | None) -> bool:
    with contextlib.suppress(RomfsError, OSError):
        return target.holds(image)
    return True  # not known: recovery will look again


def _ways_on(session: Session, record: Record) -> str:
    """The next steps after a camera was written in part."""
    argument = session.info.argument
    ways = f"your edits are kept: romfsfs recover {argument} finishes it"
    if record.kind in ("push", "reset"):
        ways = f"repeat the command, or romfsfs recover {argument} finishes it"
    if not record.before.digest or not record.before.size:
        return ways
    image = session.folder.image(record.before.digest)
    return f"{ways}, with --rollback it restores the previous image, {image}"


def finish(
    session: Session, target: Target | None, record: Record, root: Path | None = None
) -> None:
    """Update the session to the record's image, which the target holds: base, work tree, sources,
    log. Repeatable. target: not needed once the base is switched. RomfsError if the session's
    folder cannot be written."""
    folder = session.folder
    try:
        if not record.is_switched(folder):
            assert target is not None
            switch(folder, replace(record.base, stamp=target.stamp_of(record.base)))
            if record.same:  # from here on, whatever happens to the target, this is to be finished
                record = replace(record, same=False)
                record.save(folder)
        reached("switched")
        _bring_tree_along(session, record, root)
        reached("followed")
        sources.remember(session, record.base)
        reached("sources")
        _enter(session, record)
        reached("logged")
        forget(folder)
        history.trim(folder, record.base.digest)
    except OSError as error:
        where = "read" if not record.writes else "on the target and verified"
        raise RomfsError(
            f"the image is {where}, but the session could not be updated: "
            f"{error.strerror or error}",
            where=str(folder.path),
            next_step=f"your edits are kept; free space there, then: romfsfs recover "
            f"{session.info.argument}",
        ) from error
    reached("done")


def _bring_tree_along(session: Session, record: Record, root: Path | None) -> None:
    folder = session.folder
    if not session.has_work:
        # Only this read's own: before a write, `work.new` is left over from a read given up.
        if not record.writes and folder.new_work.exists():
            mark(folder)
            sync_dir(folder.path)
            os.rename(folder.new_work, folder.work)
            sync_dir(folder.path)
        return
    if record.stood_on is None:
        return

    def decide(paths: list[str]) -> None:
        replace(record, follows=tuple(paths)).save(folder)

    follow(
        session.held(), record.stood_on, folder, root, session.recall(),
        session.settings.excludes.matches, record.follows, decide,
    )  # fmt: skip


def give_up(session: Session, record: Record) -> None:
    """Drop a transaction whose target somebody else has written since. What the target held before
    was lost with the first erase: it is logged, and after it the base's image again."""
    folder = session.folder
    standing = [e for e in history.entries(folder) if e.number <= record.logged][-1:]
    _enter_unseen(folder, record)
    for entry in standing:
        again = entry._replace(kind="read", summary="as before", restores=-1)
        history.add(folder, again, since=record.logged)
    forget(folder)


def _enter(session: Session, record: Record) -> None:
    """Log the base's image, and before it one that was overwritten unseen."""
    folder, base = session.folder, record.base
    _enter_unseen(folder, record)
    if not base.fresh:
        summary = _said(record.summary, base.target_digest, base.image_size)
        _add(folder, record, record.kind, base.target_digest, base.size, summary, record.restores)


def _enter_unseen(folder: SessionFolder, record: Record) -> None:
    before = record.before
    if before.unseen and before.digest not in ("", record.base.target_digest):
        with contextlib.suppress(ImageFormatError):  # undo never goes back to what is no image
            size = 0
            if before.size:
                with open_image(folder.image(before.digest or "")) as (image, _):
                    size = image.size
            summary = _said("as found before it was overwritten", before.digest, size)
            _add(folder, record, "read", before.digest, before.size, summary)


def _said(summary: str, digest: str | None, image_size: int) -> str:
    what = "no file" if digest is None else "" if image_size else "blank"
    return ", ".join(filter(None, [what, summary]))


def _add(
    folder: SessionFolder, record: Record, kind: str, digest: str | None, size: int, summary: str,
    restores: int = -1,
) -> None:  # fmt: skip
    """Log an image. digest: of what the target held, None if there was no file."""
    entry = history.HistoryEntry(
        -1, kind, 0, digest or EMPTY_DIGEST, size, summary, restores, digest is None
    )
    history.add(folder, entry, since=record.logged)


def target_changed(session: Session, *, edited: bool = True) -> TargetChanged:
    """The error for a target that is not what this session last read. edited: there are edits."""
    source = session.info.argument
    keep, drop = "mount it again to see what it holds", ""
    if edited:
        keep = f"write your edits to another file: romfsfs commit {source} --to FILE"
        drop = f"; or drop them: romfsfs revert {source}"
    return TargetChanged(
        "the target changed elsewhere since it was read",
        where=session.info.name,
        next_step=f"{keep}; to overwrite the change: romfsfs commit {source} --force{drop}",
    )


def restarted(device: Device, report: WriteReport) -> WriteReport:
    """Restart the camera; the report, with a note if the restart was not confirmed."""
    note = restart(device)
    return replace(report, notes=(*report.notes, note)) if note else report


def restart(device: Device) -> str:
    """Restart the camera so that `/rom` is what was written. Returns a note if nothing confirmed
    that (it may have restarted all the same), else ''.

    The image is written and verified by then: a camera that disappears now fails no commit.
    """
    try:
        device.restart()
    except DeviceError as error:
        return f"the camera's restart was not confirmed: {error.line}"
    return ""


@contextlib.contextmanager
def space_for(session: Session, doing: str) -> Iterator[None]:
    """Turn an OSError of the block into the RomfsError of a session folder that cannot be written,
    before the target was. doing: what failed, for the message."""
    try:
        yield
    except OSError as error:
        other = "or use another place with $ROMFSFS_STATE_DIR"
        if len(history.entries(session.folder)) > 2:
            other = (
                f"romfsfs log {session.info.argument} --keep 0 drops all but the last two images"
            )
        raise RomfsError(
            f"{doing}: {error.strerror or error}",
            where=str(session.folder.path),
            next_step="nothing was written to the target and your edits are kept; free space "
            f"there, {other}, and try again",
        ) from error
