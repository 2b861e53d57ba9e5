"""`rebase.json`: the transaction under way, from just before the target is written (or the base
switched, where nothing is written) until all books are closed.

Whoever finds it, the next command on that target or `recover`, finishes or rolls back.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path

from romfsfs.errors import RomfsError
from romfsfs.session.keep.folder import SessionFolder
from romfsfs.session.keep.state import Base, dump, load_state, save
from romfsfs.session.rebase.target import Held
from romfsfs.system.files import sync_dir


@dataclass(frozen=True, slots=True)
class Record:
    """One transaction. kind: 'commit', 'undo', 'push', 'reset' or 'read'.

    before: what the target held; it is entered into the log where it was unseen. base: what the
    session will stand on. stood_on: what the work tree is edited from, None where there is no work
    tree. restores: the number in the log that an undo brings back, else -1. writes: whether the
    target is written. follows: the paths of the tree that follow, None while that is not decided.
    slot: of openmv-ota, that was to be written all the same.
    logged: the last number in the log when it began, -1 where there was none. pid: whose it is.
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
    pid: int = field(default_factory=os.getpid)

    def save(self, folder: SessionFolder) -> None:
        save(folder.record, dump(self))

    @classmethod
    def load(cls, folder: SessionFolder) -> Record:
        return load_state(cls, folder.record, slot="")

    def image(self, folder: SessionFolder) -> Path | None:
        """The image that the target is to hold; None: no file."""
        return None if self.base.target_digest is None else folder.image(self.base.digest)

    def image_before(self, folder: SessionFolder) -> Path | None:
        """The image that the target held; None: there was no file."""
        return None if self.before.digest is None else folder.image(self.before.digest)

    def is_switched(self, folder: SessionFolder) -> bool:
        """Whether the base is the new one already: what is left are our own books."""
        try:
            now = Base.load(folder.base)
        except (FileNotFoundError, RomfsError):
            return False
        return replace(now, stamp=None, image_id=None) == replace(
            self.base, stamp=None, image_id=None
        )


def interrupted_kind(folder: SessionFolder) -> str:
    """Of the transaction under way; '' if there is none, or none that can be read."""
    try:
        return Record.load(folder).kind
    except (OSError, RomfsError):
        return ""


def forget(folder: SessionFolder) -> None:
    """The transaction is over, one way or the other. For certain, before its images may go."""
    if folder.record.exists():
        folder.record.unlink()
        sync_dir(folder.path)
