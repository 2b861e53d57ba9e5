"""`rebase.json`: the record of the transaction under way.

It exists from just before the target is written (for a read: before the base is switched) until
base, work tree and log are up to date. The next command on that target that finds it, or `recover`,
finishes the transaction or rolls it back.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path

from romfsfs.errors import RomfsError
from romfsfs.session.keep.folder import SessionFolder
from romfsfs.session.keep.state import Base, dump, load_state, save
from romfsfs.session.rebase.target.base import Held
from romfsfs.system.files import sync_dir


@dataclass(frozen=True, slots=True)
class Record:
    """One transaction. kind: 'commit', 'undo', 'push', 'reset' or 'read'.

    before: what the target held; it is logged if it was unseen. base: the session's new base.
    stood_on: the base that the work tree was edited from, None without a work tree. restores: the
    log's number that an undo brings back, else -1. writes: whether the target is written. follows:
    the work tree's paths that follow the new base, None until that is decided. slot: of openmv-ota,
    to be written although that breaks its signature; '' for none. logged: the log's last number
    when the transaction began, -1 if it was empty. same: whether `base` was the session's base
    before the target was written; until it is switched, only the target tells how far this came.
    pid: of the process that began it.
    """

    kind: str
    before: Held
    base: Base
    stood_on: Base | None
    summary: str = ""
    restores: int = -1
    writes: bool = True
    follows: tuple[str, ...] | None = None
    logged: int = -1
    slot: str = ""
    same: bool = False
    pid: int = field(default_factory=os.getpid)

    def save(self, folder: SessionFolder) -> None:
        save(folder.record, dump(self))

    @classmethod
    def load(cls, folder: SessionFolder) -> Record:
        return load_state(cls, folder.record, slot="", same=False)

    def image(self, folder: SessionFolder) -> Path | None:
        """The image that the target is to hold; None: the file is to be deleted."""
        return None if self.base.target_digest is None else folder.image(self.base.digest)

    def image_before(self, folder: SessionFolder) -> Path | None:
        """The image that the target held; None: there was no file."""
        return None if self.before.digest is None else folder.image(self.before.digest)

    def is_switched(self, folder: SessionFolder) -> bool:
        """Whether the base is already the new one: then only the session is left to be updated."""
        if self.same:
            return False
        try:
            now = Base.load(folder.base)
        except (FileNotFoundError, RomfsError):
            return False
        return replace(now, stamp=None, image_id=None) == replace(
            self.base, stamp=None, image_id=None
        )


def interrupted_kind(folder: SessionFolder) -> str:
    """The kind of the transaction under way; '' if there is none, or if it cannot be read."""
    try:
        return Record.load(folder).kind
    except (OSError, RomfsError):
        return ""


def interrupted_write(folder: SessionFolder) -> bool:
    """Whether the transaction under way writes the target: a camera must restart when it has ended.
    RomfsError if it cannot be read."""
    return folder.record.exists() and Record.load(folder).writes


def forget(folder: SessionFolder) -> None:
    """Remove the record of a transaction that is over. Durably: its images may be trimmed next."""
    if folder.record.exists():
        folder.record.unlink()
        sync_dir(folder.path)
