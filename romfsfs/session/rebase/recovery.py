"""What happens to a commit from the moment that it may have reached the target.

`commit.json` is there from just before the target is written until the session's base is the
new image. Whoever finds it (the next command on that target, or `recover`) compares the target
with the image before and the image after, and finishes or rolls back. Every step may be
repeated. Edits are never touched: only what the work tree still has as it was in the old base
follows the new one (compiled files that a source now replaces go, an undo's images are shown).
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from romfsfs.devices.base import Device
from romfsfs.devices.file import FileDevice
from romfsfs.errors import DeviceError, RomfsError
from romfsfs.session.keep import base_image, history, store
from romfsfs.session.keep.state import VERSION, Base, Types, as_ours, check_types, load_json, save
from romfsfs.session.rebase import sources
from romfsfs.session.rebase.steps import reached
from romfsfs.session.rebase.target import believed, holds, trusted_stamp, unknown_image
from romfsfs.session.session import Session
from romfsfs.session.tree.restore import change_tree, follow, work_digest
from romfsfs.session.tree.worktree import remove_tree
from romfsfs.system.files import Progress, digest_file, no_progress, sync_dir, sync_paths

log = logging.getLogger(__name__)


_GIVEN_UP = "given up, since another image was written to it meanwhile; your edits are kept"

_RECORD_TYPES: Types = {
    "old_digest": str, "old_target_digest": (str, type(None)), "new_digest": str, "new_size": int,
    "kind": str, "summary": str, "restores": int, "pid": int,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class CommitRecord:
    """`commit.json`. digests and sizes (bytes) of the image before and after.

    old_target_digest: what the target held, None if it did not exist. kind: 'commit' or 'undo'.
    restores: the number in the log that an undo brings back, else -1. pid: who commits.
    """

    old_digest: str
    old_target_digest: str | None
    new_digest: str
    new_size: int
    kind: str
    summary: str
    restores: int
    pid: int

    @classmethod
    def new(
        cls, session: Session, base: Base, summary: str, kind: str = "commit", restores: int = -1
    ) -> CommitRecord:
        """The record of a commit of `new.img`, which makes `base`."""
        try:
            old = base_image.load_recorded(session.directory)
            before = old.digest, old.target_digest
        except FileNotFoundError:  # never mounted: whole images were written to it
            before = "", None
        return cls(*before, base.digest, base.size, kind, summary, restores, os.getpid())

    def save(self, session: Session) -> None:
        record = {"version": VERSION, **asdict(self)}
        save(session.directory / "commit.json", json.dumps(record).encode())

    @classmethod
    def load(cls, session: Session) -> CommitRecord:
        record = load_json(session.directory / "commit.json")
        with as_ours(session.directory / "commit.json"):
            check_types(record, _RECORD_TYPES)
            return cls(**{name: record[name] for name in cls.__slots__})


def recover(
    session: Session,
    device: Device,
    *,
    rollback: bool = False,
    root: Path | None = None,
    progress: Progress = no_progress,
) -> str:
    """Finish or roll back an interrupted commit; says which, '' if there was none.

    A file target is the old image or the new one: the record is brought in line. A camera may
    hold neither: the new image is written (rollback: the old one), verified. But where somebody
    wrote another one since, that stays, and the commit is given up. DeviceError when
    the target is away: then nothing changes and it can be tried again. root: the mountpoint.
    """
    with store.lock_for_change(session.directory, session.info.name):
        done = recover_locked(session, device, rollback=rollback, root=root, progress=progress)
        if done:
            with contextlib.suppress(DeviceError):  # what it holds is right and verified
                device.reset()
        return done


def recover_locked(
    session: Session,
    device: Device,
    *,
    rollback: bool = False,
    root: Path | None = None,
    progress: Progress = no_progress,
) -> str:
    """As `recover`, for who holds the session's lock."""
    if not session.interrupted:
        _remove(session, "new.img", "new.json", "found.img")
        return ""
    record = CommitRecord.load(session)
    if isinstance(device, FileDevice):
        device.remove_leftovers()
    new = session.directory / "new.img"
    if not new.exists():
        # The rebase had begun: the target was written and verified, only our own books are open.
        finish(session, device, record, root)
        return "finished"
    written = holds(device, new)
    if not written and unknown_image(session, device, record.old_target_digest, progress):
        forget(session)
        return _GIVEN_UP
    if rollback:
        _roll_back(session, device, record, progress)
        return "rolled back"
    if written:
        finish(session, device, record, root)
        return "finished"
    if isinstance(device, FileDevice):
        forget(session)  # the rename never happened: the file is whole, as it was
        return "rolled back"
    if digest_file(new) != record.new_digest:
        raise RomfsError(
            "the image of the interrupted commit is damaged",
            where=str(new),
            next_step=f"your edits are kept; the image before is {session.base_image}: bring it "
            f"back with: romfsfs recover {session.info.argument} --rollback",
        )
    with open(new, "rb") as image, believed(session) as old_image:
        device.write_image(image, old_image, progress)
    finish(session, device, record, root)
    return "finished"


def _roll_back(session: Session, device: Device, record: CommitRecord, progress: Progress) -> None:
    """Bring back what the target held before, from the base or from the log."""
    if isinstance(device, FileDevice) and not holds(device, session.directory / "new.img"):
        forget(session)  # not written, or changed again since: nothing of ours to take back
        return
    before = record.old_target_digest
    images = [session.base_image] if before == record.old_digest else []
    images += [
        history.image_path(session, entry.number)
        for entry in reversed(history.entries(session))
        if entry.digest == before
    ]
    image = next((i for i in images if i.exists() and digest_file(i) == before), None)
    if image is None or image.stat().st_size == 0:
        raise RomfsError(
            "there is no image to roll back to",
            where=session.info.name,
            next_step=f"finish the commit instead: romfsfs recover {session.info.argument}",
        )
    if not holds(device, image):
        with open(image, "rb") as file:
            device.write_image(file, None, progress)
    forget(session)


def finish(
    session: Session, device: Device, record: CommitRecord, root: Path | None = None
) -> None:
    """The target holds `new.img`, verified: make it the session's base. May be repeated."""
    directory = session.directory
    new = directory / "new.img"
    try:
        if new.exists():
            history.add(
                session, new, record.new_digest, record.kind, record.summary, record.restores
            )
            reached("history")
            base_image.switch(directory, new)
        reached("base-image")
        base = base_image.load_staged(directory)
        if base is not None:
            _bring_work_along(session, base, record.kind, root)
            reached("work-tree")
            base_image.record(directory, base, trusted_stamp(device, base))
            reached("base-record")
            sources.remember(session, base)
            reached("sources")
        forget(session)
    except OSError as error:
        raise RomfsError(
            f"the image is on the target and verified, but the session could not be brought in "
            f"line: {error.strerror or error}",
            where=str(directory),
            next_step=f"your edits are kept; free space there, then: romfsfs recover "
            f"{session.info.argument}",
        ) from error
    reached("done")


def _bring_work_along(session: Session, base: Base, kind: str, root: Path | None) -> None:
    """Let the work tree follow the new base, where it has no edits."""
    if not session.has_work:
        return
    try:
        old = base_image.load_recorded(session.directory)
    except FileNotFoundError:
        return
    if kind == "undo":
        is_junk, root = session.excludes.matches, root or session.work
        follow(session.held(), old, is_junk, session.work, root, session.recall())
    else:
        _remove_superseded(session, old, base, root or session.work)


def _remove_superseded(session: Session, old: Base, base: Base, root: Path) -> None:
    """Remove compiled files that came from the image and that a source now makes anew.

    Left in place they would be stored again, outdated, as soon as the source is deleted.
    """
    made = {entry.path: entry.source for entry in base.entries if entry.source != entry.path}
    shown = {entry.source for entry in base.entries}
    gone = [
        entry
        for entry in old.entries
        if entry.source == entry.path and entry.path in made and entry.path not in shown
    ]
    if not gone:
        return

    def change(root_fd: int) -> None:
        with session.work_fd() as work_fd:
            for entry in gone:
                digest = work_digest(work_fd, entry.path, entry.signature, entry.source_digest)
                if digest == entry.source_digest:
                    log.info("removing %s: %s replaces it", entry.path, made[entry.path])
                    remove_tree(root_fd, entry.path)

    change_tree(session.work, root, change)
    # Before the base says so: what came back would be a second source of the same file.
    sync_paths(session.work, [entry.path for entry in gone])


def forget(session: Session) -> None:
    """The commit is over, one way or the other.

    For certain, before its files go: a record that came back after a power cut without them would
    mean that the target was written.
    """
    if session.interrupted:
        _remove(session, "commit.json")
        sync_dir(session.directory)
    _remove(session, "new.img", "new.json")


def _remove(session: Session, *names: str) -> None:
    for name in names:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(session.directory / name)
