"""Opening a session for a mount, or for an editor of the Python API.

The mount lock is taken before `session.json` is written: a process that is refused must not change
the settings of the one that has the session.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import NamedTuple

from romfsfs.devices.base import Device
from romfsfs.errors import RomfsError, SessionBusy
from romfsfs.session.keep import history
from romfsfs.session.keep.folder import SessionFolder, all_sessions, make_folder
from romfsfs.session.keep.locks import Lock
from romfsfs.session.keep.state import save
from romfsfs.session.plan.status import Status
from romfsfs.session.rebase.read import OpenOptions, make_ready, session_for
from romfsfs.session.revert import leave_work
from romfsfs.session.session import Session
from romfsfs.system.files import Progress, no_progress
from romfsfs.system.removal import remove_folder

#: A session without edits whose image file has been gone for this long is dropped.
_ABANDONED_SECONDS = 90 * 86400


class Entered(NamedTuple):
    """A session that is ready for a mount.

    lock: its mount lock, which the caller releases. resumed: the status that `make_ready` returns.
    before: `session.json` as it was, None if there was none. made: there was no session at all.
    """

    session: Session
    lock: Lock
    resumed: Status | None
    before: bytes | None
    made: bool

    def give_up(self) -> None:
        """Release a session that could not be mounted, and forget what was chosen for the mount:
        kept edits stay with the board they were made for. A new session is removed. OSError."""
        folder, name = self.session.folder, self.session.info.name
        with self.lock:
            if self.before is not None:
                save(folder.info, self.before)
            if not self.made:
                return
            with contextlib.suppress(SessionBusy), folder.lock_unmounted(name):
                # A push meanwhile keeps in the log what the target held.
                if all(entry.kind == "read" for entry in history.entries(folder)):
                    for _ in range(2):  # the thread that settles the tree may remove its mark
                        with contextlib.suppress(FileNotFoundError):
                            remove_folder(folder.path)


def enter(
    device: Device,
    source: str,
    chosen: OpenOptions,
    progress: Progress = no_progress,
) -> Entered:
    """Lock the target's session and make its work tree ready.

    Raises as `lock_for_mount`, `session_for` and `make_ready` do; then `session.json` is as it was,
    and a new session is removed (`provisional`)."""
    found = device.info()
    folder = make_folder(found.key)
    with folder.provisional(found.name):
        lock = folder.lock_for_mount(found.name)
        before = folder.info.read_bytes() if folder.info.exists() else None
        made = before is None and folder.is_empty
        try:
            session = session_for(device, source, chosen)
            resumed = make_ready(session, device, new=chosen.new, progress=progress)
            with contextlib.suppress(OSError, RomfsError):  # housekeeping: not this mount's concern
                drop_abandoned()
        except BaseException:
            with lock, contextlib.suppress(OSError):  # what failed first says more
                if before is not None:
                    save(folder.info, before)
            raise
        return Entered(session, lock, resumed, before, made)


def drop_abandoned() -> list[str]:
    """Drop sessions without edits whose image file has been gone for 90 days; their names. OSError.

    One that cannot be looked at now stays."""
    dropped = []
    for folder, info in all_sessions():
        if not info.is_file or _seconds_gone(folder, info.key) <= _ABANDONED_SECONDS:
            continue
        with contextlib.suppress(RomfsError), folder.lock_unmounted(info.name):
            session = Session(folder, info)
            kept = session.has_work and leave_work(session) is not None
            if not kept and not session.interrupted:
                remove_folder(folder.path)
                dropped.append(info.name)
    return dropped


def _seconds_gone(folder: SessionFolder, file: str) -> float:
    """How long ago the image file was first found gone; 0 if it is there, or the session was used
    since. A file on a disk that is not plugged in now is not gone for long."""
    if os.path.exists(file):
        folder.gone.unlink(missing_ok=True)
        return 0
    marked = folder.gone.stat().st_mtime if folder.gone.exists() else 0
    used = max(path.stat().st_mtime for path in folder.path.iterdir() if path != folder.gone)
    now = time.time()
    if not used <= marked <= now:  # not marked yet, used since, or the clock was wrong
        folder.gone.touch()
        return 0
    return now - marked


def drop(folder: SessionFolder, name: str) -> None:
    """Remove a session with its log and its edits. SessionBusy while it is in use; OSError."""
    with folder.lock_unmounted(name):
        remove_folder(folder.path)
