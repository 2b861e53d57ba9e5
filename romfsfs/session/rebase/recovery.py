"""Recovery from a transaction that was interrupted.

Whoever finds its record (`record.py`) looks at the target, and finishes the transaction or rolls
back to what the target held. Every step may be repeated. Edits are never touched.
"""

from __future__ import annotations

import logging
from pathlib import Path

from romfsfs.devices.base import Device
from romfsfs.errors import ImageFormatError, RomfsError
from romfsfs.session.keep import history
from romfsfs.session.keep.images import open_image
from romfsfs.session.rebase.record import Record, forget, interrupted_write
from romfsfs.session.rebase.target import target_of
from romfsfs.session.rebase.target.base import Held, Target
from romfsfs.session.rebase.transaction import UNMOUNTED, Mounted, finish, give_up, restart, write
from romfsfs.session.session import Session
from romfsfs.system.errors import worded
from romfsfs.system.files import Progress, digest_file, no_progress

log = logging.getLogger(__name__)

_FINISHED, _ROLLED_BACK = "finished", "rolled back"
_GIVEN_UP = "given up, since the target was changed elsewhere meanwhile; your edits are kept"
#: Without a backup, nobody knows what it held before.
_NOT_BEGUN = "given up, since it had not begun, or the target was changed elsewhere meanwhile"


def recover(
    session: Session,
    device: Device,
    *,
    rollback: bool = False,
    mounted: Mounted = UNMOUNTED,
    progress: Progress = no_progress,
) -> str:
    """Finish or roll back an interrupted transaction. Returns what was done, and whether the
    camera's restart was not confirmed; '' if nothing was interrupted. A camera that was only read
    is not restarted.

    A file holds the old image or the new one, and the session is updated to match. A camera may
    hold neither: the new image (rollback: what it held before) is written and verified. If somebody
    wrote another image since, that stays, and the transaction is given up. DeviceError if the
    target is absent: nothing changes, and it can be tried again. RomfsError if the image to be
    written is damaged or lost. SessionBusy.
    """
    target, folder = target_of(device), session.folder
    with folder.lock_for_change(session.info.name):
        writes = interrupted_write(folder)
        done = recover_locked(
            session, target, rollback=rollback, mounted=mounted, progress=progress
        )
        return with_restart(device, done) if writes else done


def with_restart(device: Device, done: str) -> str:
    """Restart the camera, to which nothing more is written; `done`, with a note if the restart was
    not confirmed."""
    note = restart(device)
    return f"{done}; {note}" if note else done


def recover_locked(
    session: Session,
    target: Target,
    *,
    rollback: bool = False,
    dry_run: bool = False,
    mounted: Mounted = UNMOUNTED,
    progress: Progress = no_progress,
) -> str:
    """As `recover`, without the restart; the caller holds `commit.lock`. RomfsError for a dry run,
    which finishes nothing."""
    if not session.interrupted:
        return ""
    record = Record.load(session.folder)
    if dry_run:
        raise _not_finished(session, record)
    with target.alone():
        done = _recover(session, target, record, rollback, mounted, progress)
    log.info("%s of process %d: %s", record.kind, record.pid, done)
    return done


def _not_finished(session: Session, record: Record) -> RomfsError:
    return RomfsError(
        f"a {record.kind} was interrupted, which a dry run does not finish",
        where=session.info.name,
        next_step=f"romfsfs recover {session.info.argument}",
    )


def finish_switched(session: Session, *, dry_run: bool, mounted: Mounted) -> None:
    """Finish an interrupted transaction that needs its target no more, so that the work tree is of
    one image. The caller holds `commit.lock`. RomfsError, also for a dry run."""
    record = Record.load(session.folder) if session.interrupted else None
    if record is None or not record.is_switched(session.folder):
        return
    if dry_run:
        raise _not_finished(session, record)
    finish(session, None, record, mounted.root)


def _recover(
    session: Session, target: Target, record: Record, rollback: bool, mounted: Mounted,
    progress: Progress,
) -> str:  # fmt: skip
    folder = session.folder
    if record.is_switched(folder):  # the target is written and verified, or is not to be written
        finish(session, target, record, mounted.root)
        return _FINISHED
    if not record.writes:
        forget(folder)
        return _ROLLED_BACK
    target.slot = target.slot or record.slot  # allowed then; a rollback writes there too
    new = record.image(folder)
    if (new is None or new.exists()) and target.holds(new):
        if not rollback:
            finish(session, target, record, mounted.root)
            return _FINISHED
    elif target.atomic:
        old = record.image_before(folder)
        if (old is None or old.exists()) and target.holds(old):
            forget(folder)
            return _ROLLED_BACK
        give_up(session, record)
        return _GIVEN_UP
    elif _is_somebody_elses(session, target, record, progress):
        give_up(session, record)
        return _GIVEN_UP if record.before.digest else _NOT_BEGUN
    elif not rollback:
        _check_whole(session, record, new)
        write(session, target, record, progress)
        finish(session, target, record, mounted.root)
        return _FINISHED
    _put_back(session, target, record, progress)
    forget(folder)
    return _ROLLED_BACK


def _check_whole(session: Session, record: Record, new: Path | None) -> None:
    if new is not None and (not new.exists() or digest_file(new) != record.base.digest):
        raise RomfsError(
            f"the image of the interrupted {record.kind} is damaged",
            where=str(new),
            next_step="your edits are kept; restore the previous image with: romfsfs recover "
            f"{session.info.argument} --rollback",
        )


def _is_somebody_elses(
    session: Session, target: Target, record: Record, progress: Progress
) -> bool:
    """Whether a camera holds an image that is neither what it held before nor in the log.

    An interrupted write over serial leaves no image, as the header is programmed last: somebody
    else wrote this one. A boot loader may leave half of our image: always False there.
    """
    folder = session.folder
    if not target.device.info().is_serial:
        return False
    try:
        with worded():  # of a full disk, say
            found = target.keep_copy(folder, progress)
        if not found.size or not found.digest:
            return False
        with open_image(folder.found):
            known = {record.before.digest, *(entry.digest for entry in history.entries(folder))}
            return found.digest not in known
    except ImageFormatError:
        return False
    finally:
        folder.found.unlink(missing_ok=True)


def _put_back(session: Session, target: Target, record: Record, progress: Progress) -> None:
    """Write back what the target held before. RomfsError if that is damaged or was not kept."""
    image = record.image_before(session.folder)
    if image is not None and not (image.exists() and digest_file(image) == record.before.digest):
        raise RomfsError(
            "there is no image to roll back to",
            where=session.info.name,
            next_step=f"finish the {record.kind} instead: romfsfs recover {session.info.argument}",
        )
    if not target.holds(image):
        target.write(image, None, Held(record.base.target_digest, record.base.size), progress)
