"""What happens to a commit from the moment that it may have reached the target.

`commit.json` is there from just before the target is written until the session's base is the
new image. Whoever finds it (the next command on that target, or `recover`) compares the target
with the image before and the image after, and finishes or rolls back. Every step may be
repeated; the work tree is touched by none (but that compiled files which a source now replaces
go at the end of a finished commit).
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

from romfsfs.devices.base import Device
from romfsfs.devices.file import FileDevice
from romfsfs.errors import RomfsError
from romfsfs.files import Progress, digest_fd, digest_file, no_progress
from romfsfs.session import history, store
from romfsfs.session.encoding import Encoded
from romfsfs.session.recall import ChangedMeanwhile, Recall
from romfsfs.session.session import Session
from romfsfs.session.state import VERSION, Base, load_json, save
from romfsfs.session.worktree import open_file, remove_tree

log = logging.getLogger(__name__)

#: The durable steps of a commit after which a crash leaves a different state, in their order.
STEPS = (
    "commit-record",
    "target-written",
    "history",
    "base-image",
    "base-record",
    "sources",
    "done",
)


def at_step(name: str) -> None:
    """Called after each durable step; a crash test replaces `on_step` to stop here."""
    on_step(name)


def _ignore(name: str) -> None:
    return


on_step: Callable[[str], None] = _ignore


@dataclass(frozen=True, slots=True)
class CommitRecord:
    """`commit.json`. digests and sizes (bytes) of the image before and after."""

    old_digest: str
    old_target_digest: str | None
    new_digest: str
    new_size: int
    kind: str
    summary: str
    restores: int

    @classmethod
    def new(
        cls,
        session: Session,
        encoded: Encoded,
        rebased: Base,
        summary: str,
        kind: str = "commit",
        restores: int = -1,
    ) -> CommitRecord:
        """A record of the commit of `new.img`; writes the base that it will become (`new.json`)."""
        save(session.directory / "new.json", rebased.dump())
        base = session.base
        return cls(
            base.digest, base.target_digest, encoded.digest, encoded.size, kind, summary, restores
        )

    def save(self, session: Session) -> None:
        save(
            session.directory / "commit.json",
            json.dumps({"version": VERSION, **asdict(self)}).encode(),
        )

    @classmethod
    def load(cls, session: Session) -> CommitRecord:
        record = load_json(session.directory / "commit.json")
        record.pop("version")
        return cls(**record)


def recover(
    session: Session, device: Device, *, rollback: bool = False, progress: Progress = no_progress
) -> str:
    """Finish or roll back an interrupted commit; says which, '' if there was none.

    A file target is the old image or the new one: the record is brought in line. A camera may
    hold neither: the new image is written (rollback: the old one), verified. DeviceError when
    the target is away: then nothing changes and it can be tried again.
    """
    with store.lock_for_change(session.directory, session.info.name):
        return recover_locked(session, device, rollback=rollback, progress=progress)


def recover_locked(
    session: Session, device: Device, *, rollback: bool = False, progress: Progress = no_progress
) -> str:
    """As `recover`, for who holds the session's lock."""
    if not session.interrupted:
        _remove(session, "new.img", "new.json")
        return ""
    record = CommitRecord.load(session)
    new = session.directory / "new.img"
    if not new.exists():
        # The rebase had begun: the target was written and verified, only our own books are open.
        finish(session, device, record)
        return "finished"
    if digest_file(new) != record.new_digest:
        raise RomfsError(
            "the image of the interrupted commit is damaged",
            where=str(new),
            next_step=f"your edits are intact; the image before is {session.base_image}: remove "
            f"{session.directory / 'commit.json'} and commit again",
        )
    if rollback:
        return _roll_back(session, device, progress)
    if _holds(device, new, record.new_size):
        finish(session, device, record)
        return "finished"
    if isinstance(device, FileDevice):
        _forget(session)  # the rename never happened: the file is whole, as it was
        return "rolled back"
    with open(new, "rb") as image, open(session.base_image, "rb") as old:
        device.write_image(image, old, progress)
    finish(session, device, record)
    return "finished"


def _roll_back(session: Session, device: Device, progress: Progress) -> str:
    base = session.base
    if base.target_digest == base.digest and not _holds(device, session.base_image, base.size):
        with open(session.base_image, "rb") as image:
            device.write_image(image, None, progress)
    _forget(session)
    return "rolled back"


def _holds(device: Device, image: os.PathLike[str], size: int) -> bool:
    if isinstance(device, FileDevice):
        stamp = device.stamp()
        return stamp is not None and stamp[2] == size and device.digest(size) == digest_file(image)
    with open(image, "rb") as file:
        return device.matches(file, size) is True


def finish(session: Session, device: Device, record: CommitRecord) -> None:
    """The target holds `new.img`, verified: make it the session's base. May be repeated."""
    at_step("target-written")
    new = session.directory / "new.img"
    if new.exists():
        history.add(session, new, record.new_digest, record.kind, record.summary, record.restores)
        at_step("history")
        os.replace(new, session.base_image)
    at_step("base-image")
    staged = session.directory / "new.json"
    if staged.exists():
        base = Base.load(staged)
        _remove_superseded(session, session.base, base)
        if isinstance(device, FileDevice):
            base = replace(base, stamp=device.stamp())
        save(session.directory / "base.json", base.dump())
        at_step("base-record")
        _remember_sources(session, base)
        at_step("sources")
        _remove(session, "new.json")
    _forget(session)
    at_step("done")


def _remember_sources(session: Session, base: Base) -> None:
    recall = Recall()
    with contextlib.suppress(RomfsError), session.work_fd() as work_fd:
        for entry in base.entries:
            converted = entry.size is not None and entry.digest != entry.source_digest
            if not converted or recall.find(entry.path, entry.digest) is not None:
                continue
            with contextlib.suppress(FileNotFoundError, ChangedMeanwhile):
                fd = open_file(work_fd, entry.source)
                try:
                    name = entry.source.rpartition("/")[2]
                    recall.remember(entry.path, entry.digest, name, entry.source_digest, fd)
                finally:
                    os.close(fd)
    recall.trim()


def _remove_superseded(session: Session, old: Base, base: Base) -> None:
    """Remove compiled files that came from the image and that a source now makes anew.

    Left in place they would be stored again, outdated, as soon as the source is deleted.
    """
    made = {entry.path: entry.source for entry in base.entries if entry.source != entry.path}
    sources = {entry.source for entry in base.entries}
    with contextlib.suppress(RomfsError), session.work_fd() as work_fd:
        for entry in old.entries:
            replaced = (
                entry.source == entry.path and entry.path in made and entry.path not in sources
            )
            if replaced and _work_digest(work_fd, entry.path) == entry.source_digest:
                log.info("removing %s: %s replaces it", entry.path, made[entry.path])
                remove_tree(work_fd, entry.path)


def _work_digest(work_fd: int, path: str) -> str | None:
    try:
        fd = open_file(work_fd, path)
    except OSError:
        return None
    try:
        return digest_fd(fd)
    finally:
        os.close(fd)


def _forget(session: Session) -> None:
    _remove(session, "commit.json", "new.img", "new.json")


def _remove(session: Session, *names: str) -> None:
    for name in names:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(session.directory / name)
