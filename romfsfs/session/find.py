"""Which session DIR or SOURCE names.

Opening a camera's port ends the script that runs there. The edits are on this machine, so a command
that only shows them finds a camera's session by its USB identity and leaves the port closed. That
is not certain enough for a write: commands that write open the camera and ask for its unique id.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from romfsfs.devices.open import is_camera
from romfsfs.errors import DeviceAbsent, RomfsError, SessionBusy, UsageError, shell_word
from romfsfs.session.connect import device, known_session, unplugged_session
from romfsfs.session.keep.folder import SessionFolder, find_mounted, folder_of, mounted_folders
from romfsfs.session.keep.state import SessionInfo
from romfsfs.session.rebase.transaction import Mounted
from romfsfs.session.session import Session, sessions
from romfsfs.system.mount_table import answers, dead_mountpoint, real_place, real_places


class Found(NamedTuple):
    """A session, and where it is mounted; None: it is not.

    inside: the path named, relative to the mountpoint (where it is dead too); '' for the mountpoint
    itself."""

    session: Session
    mountpoint: Path | None
    inside: str = ""

    @property
    def idle(self) -> bool:
        """Not mounted, and without edits: nothing to look at, commit or revert."""
        session = self.session
        return self.mountpoint is None and not session.has_work and not session.interrupted

    @property
    def mounted(self) -> Mounted:
        """How the work tree is used now, for a transaction that changes its base."""
        return Mounted(self.mountpoint, self.open_files)

    def open_files(self) -> list[str]:
        """The paths that programs have open for writing in the mount. SessionBusy if unknown."""
        if self.mountpoint is None:
            away = self.session.folder.out_of_reach()
            if away is not None:
                raise away
            return []
        try:
            listed = (self.mountpoint / ".romfs" / "writers").read_bytes()
        except FileNotFoundError:
            raise SessionBusy(
                "it was unmounted just now",
                where=str(self.mountpoint),
                next_step="repeat the command",
            ) from None
        return [os.fsdecode(path) for path in listed.split(b"\0") if path]


def find_session(
    where: str | None,
    partition: int | None = None,
    slot: str = "",
    *,
    only_looks: bool = False,
    stuck: bool = False,
) -> Found:
    """The session that DIR or SOURCE names; UsageError if there is none.

    Without a name: the mount that the current folder lies in, or else the only session with edits,
    or the only one with a work tree. A mount whose daemon was killed names its session too, which
    then counts as not mounted. partition, slot: of a camera. only_looks: the caller changes
    nothing, so a camera whose session is known by USB is not interrupted. stuck: the caller copes
    with a mount that does not answer; without it such a mount is a RomfsError, as a program that
    waits for one cannot be interrupted, not even by Ctrl-C.
    """
    found = _find(where, partition, slot, only_looks)
    if not stuck and not found.inside and is_stuck(found):
        raise no_answer(found)
    info = found.session.info
    if partition not in (None, info.partition) or slot not in ("", info.slot or "A"):
        raise UsageError(
            "that is a session of "
            + (f"partition {info.partition}" if not slot else f"slot {info.slot or 'A'}"),
            where=info.title,
            next_step="romfsfs sessions lists them",
        )
    return found


def is_stuck(found: Found) -> bool:
    """Whether the mount does not answer: its daemon is stopped, or waits for a dead disk."""
    if found.mountpoint is None:
        return False
    return not answers(str(found.mountpoint))


def server(found: Found) -> tuple[int, str]:
    """(process id, mountpoint) of a mount's daemon; process id 0 if it has just ended."""
    holder = found.session.folder.mounted_at()
    return (holder.pid, holder.mountpoint) if holder else (0, str(found.mountpoint))


def no_answer(found: Found) -> RomfsError:
    """The error for a mount that does not answer."""
    pid, where = server(found)
    return RomfsError(
        "the mount does not answer",
        where=f"process {pid}",
        next_step=f"if it was stopped, kill -CONT {pid}; or romfsfs umount --lazy "
        f"{shell_word(where)}: the edits are kept",
    )


def _find(where: str | None, partition: int | None, slot: str, only_looks: bool) -> Found:
    if where is None:
        found = containing_mount(os.getcwd())
        if found is not None:
            return found
        return _only_session()
    found = containing_mount(where)
    if found is not None:
        return found
    mountpoint = dead_mountpoint(where)
    if mountpoint is not None:
        folder = find_mounted(mountpoint, dead=True)
        if folder is None:  # another user's, or its session was changed or dropped since
            raise UsageError(
                "the daemon of this mount has ended, and no session is recorded as mounted there",
                where=mountpoint,
                next_step=f"romfsfs umount {shell_word(mountpoint)}",
            )
        return _found_in(mountpoint, folder, real_place(where))._replace(mountpoint=None)
    return _by_source(where, partition, slot, only_looks)


def containing_mount(path: str) -> Found | None:
    """The session whose mount a path lies in, or where it leads as a link; of several, the
    innermost. None: in no mount.

    Walks down from the root, so that nothing inside a mount that does not answer is touched.
    RomfsError if the path lies inside such a mount.
    """
    known = mounted_folders()
    real = ""
    for place in real_places(path) if known else ():
        if real in known and not answers(real):
            raise no_answer(_found_in(real, known[real], real))
        real = place
    for mountpoint in (real, *map(str, Path(real).parents)):
        if mountpoint in known:
            return _found_in(mountpoint, known[mountpoint], real)
    return None


def _found_in(mountpoint: str, folder: SessionFolder, path: str) -> Found:
    return Found(Session.load(folder), Path(mountpoint), path[len(mountpoint) + 1 :])


def _only_session() -> Found:
    candidates = [session for session in sessions() if session.has_work]
    if len(candidates) > 1:
        candidates = [session for session in candidates if _may_have_edits(session)]
    if len(candidates) == 1:
        return as_found(candidates[0])
    what = "several sessions have edits" if candidates else "no session has edits"
    raise UsageError(
        f"{what}: name a directory or source",
        where=", ".join(session.info.title for session in candidates),
        next_step="romfsfs sessions lists them",
    )


def _may_have_edits(session: Session) -> bool:
    try:
        return session.status().edited
    except (RomfsError, OSError):  # it is damaged: the command names it, or reports that
        return True


def _by_source(source: str, partition: int | None, slot: str, only_looks: bool) -> Found:
    _refuse_hidden(source)
    if os.path.isdir(source):
        if os.path.ismount(source):
            raise UsageError(
                "something is mounted there, but not by a session of yours",
                where=source,
                next_step="run this as the user who mounted it, with the same $ROMFSFS_STATE_DIR",
            )
        raise UsageError(
            "romfsfs has nothing mounted there",
            where=source,
            next_step="romfsfs sessions lists what is",
        )
    there = os.path.exists(source) or is_camera(source) or _known(source)
    if there and only_looks and is_camera(source):
        known = known_session(source, partition or 0, slot)
        if known is not None:
            return as_found(known)
    try:
        if not there:
            raise DeviceAbsent("not there", where=source)
        with device(source, partition=partition, slot=slot) as opened:
            folder = folder_of(opened.info().key)
    except DeviceAbsent:
        # Unplugged: its edits can still be shown, if it is clear which camera is meant.
        known = unplugged_session(source, partition or 0, slot)
        if known is not None:
            return as_found(known)
        if there:
            raise
        raise UsageError(
            "no such file or folder", where=source, next_step="romfsfs sessions lists what is known"
        ) from None
    if not folder.info.exists():  # perhaps of a file that a symbolic link has replaced
        folder = folder_of(os.path.abspath(source))
    if not folder.info.exists():
        raise UsageError(
            "there is no session for it: it has not been mounted yet",
            where=source,
            next_step=f"romfsfs mount {shell_word(source)} DIR"
            + (f" --partition {partition}" if partition else "")
            + (slot and f" --slot {slot}"),
        )
    info = SessionInfo.load(folder.info)
    if is_camera(source):  # reached as it is named now: on this port, or in its boot loader
        info = replace(info, source=source)
    return as_found(Session(folder, info))


def _refuse_hidden(source: str) -> None:
    """UsageError for another user's mount: FUSE refuses others even `stat`."""
    try:
        os.stat(source)
    except PermissionError:
        raise UsageError(
            "permission denied",
            where=source,
            next_step="if another user mounted it, run this as that user",
        ) from None
    except (OSError, ValueError):
        pass


def _known(source: str) -> bool:
    """Whether there is a session for this file, which is gone: its edits are still there."""
    return folder_of(os.path.realpath(source)).info.exists()


def as_found(session: Session) -> Found:
    """A session, and where it is mounted now."""
    holder = session.folder.mounted_at()
    if holder is None or not holder.mountpoint or session.folder.out_of_reach():
        return Found(session, None)
    return Found(session, Path(holder.mountpoint))
