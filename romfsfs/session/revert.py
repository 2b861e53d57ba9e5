"""What becomes of uncommitted edits: reverted to the base, dropped with the work tree, or kept."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from romfsfs.convert.romfs_toml import NAME as OPTIONS_NAME
from romfsfs.devices.base import Device
from romfsfs.errors import UsageError, shell_word
from romfsfs.session.connect import session_device
from romfsfs.session.keep.settling import settle
from romfsfs.session.keep.steps import reached
from romfsfs.session.plan.shadow import SUPERSEDED, Change, ShadowEntry
from romfsfs.session.plan.status import Status
from romfsfs.session.rebase.record import interrupted_kind
from romfsfs.session.rebase.recovery import recover
from romfsfs.session.rebase.sources import secure
from romfsfs.session.rebase.transaction import Mounted
from romfsfs.session.session import Session
from romfsfs.session.tree.follow import is_litter
from romfsfs.session.tree.restore import is_below, parents, restore, selected
from romfsfs.system.files import sync_dir
from romfsfs.system.removal import remove_folder

log = logging.getLogger(__name__)


def revert(
    session: Session,
    paths: Sequence[str] = (),
    root: Path | None = None,
    connect: Callable[[Session], AbstractContextManager[Device]] = session_device,
    say: Callable[[str], None] = log.info,
) -> list[str]:
    """Revert paths (all, if none is given) to what was last read or committed; those that changed.

    An interrupted transaction is finished first: `connect` opens the target, and `say` reports the
    result. Without paths, an interrupted commit is rolled back instead. Not mounted and without
    paths, the work tree is dropped as a whole, and the next mount reads the target again; but if it
    holds files that are never packed, or sources that cannot be saved, its edits are reverted in
    place. root: the mountpoint of a mounted session; SessionBusy if it is mounted and root is None.
    UsageError for a path that is neither in the work tree nor in the base.
    """
    if session.interrupted:
        back = not paths and interrupted_kind(session.folder) == "commit"
        with connect(session) as device:
            done = recover(session, device, rollback=back, mounted=Mounted(root))
            say(f"{session.info.name}: {done}")
    if root is not None:
        with session.folder.lock_for_change(session.info.name):
            return _revert(session, paths, root)
    with session.folder.lock_unmounted(session.info.name):
        status = session.status()
        if paths or never_packed(status) or not _outlive(session, status):
            return _revert(session, paths, None)
        discard_work(session)
        return [entry.path for entry in status.entries if entry.is_edit]


def _outlive(session: Session, status: Status) -> bool:
    """Save the sources of committed files outside the work tree; False if that fails."""
    try:
        secure(session, [e for e in status.entries if e.change is Change.UNCHANGED])
    except OSError:
        return False
    return True


def _revert(session: Session, paths: Sequence[str], root: Path | None) -> list[str]:
    shadow = session.look().shadow
    # The base entries to put back: selected by the path of their source or by the stored path.
    back = [e for e in session.base.entries
            if selected(e.source, paths) or selected(e.path, paths)]  # fmt: skip
    stored = {entry.path for entry in back}
    refuse_unknown(session, shadow, [path for path in paths if path not in stored])
    own = {entry.path for entry in shadow if entry.change is not Change.DELETED}
    folders = {entry.path for entry in shadow if entry.is_dir}
    edits = [
        entry
        for entry in shadow
        if entry.is_edit
        if selected(entry.path, paths)
        or entry.stored_as in stored
        or (entry.stored_as not in own and selected(entry.stored_as or entry.path, paths))
    ]
    made = {entry.path for entry in edits if entry.is_dir and entry.change is Change.ADDED}
    # Litter of file managers goes with an added folder; if a file of the base takes that folder's
    # place, so does everything that is never packed.
    files = {entry.source for entry in session.base.entries if not entry.is_dir}
    junk = [
        entry.path
        for entry in shadow
        if entry.change is Change.IGNORED and not entry.note
        if is_below(entry.path, made & files)
        or (is_litter(entry.path) and is_below(entry.path, made))
    ]
    # What the base has and the tree lacks or has as something else. A file that another one
    # replaces does not count as deleted, but is to be put back all the same.
    there = {
        e.path for e in shadow
        if e.note == SUPERSEDED or not (e.is_edit or e.change is Change.IGNORED)
    }  # fmt: skip
    replaced = {entry.stored_as for entry in edits}
    missing = [
        entry.source
        for entry in session.base.entries
        if entry.source not in there and (entry.path in replaced or entry.path in stored)
    ]
    wanted = dict.fromkeys([*(entry.path for entry in edits), *missing])
    _refuse_blocked(session, wanted, own - folders)
    restore(session.held(), [*wanted, *junk], session.folder, root, session.recall())
    return list(wanted)


def _refuse_blocked(session: Session, wanted: Collection[str], files: Collection[str]) -> None:
    """UsageError if a file that stays has the name of a folder that is needed."""
    for path in wanted:
        for above in parents(path):
            if above in files and above not in wanted:
                raise UsageError(
                    f"a file is in its way: {above}",
                    where=path,
                    next_step="rename that, or revert it: romfsfs revert "
                    f"{session.info.argument} {shell_word(above)}",
                )


def discard_work(session: Session) -> None:
    """Drop the work tree (renamed first, so that a crash leaves it whole or gone). OSError."""
    folder = session.folder
    remove_folder(folder.old_work)
    if session.has_work:
        os.rename(folder.work, folder.old_work)
        sync_dir(folder.path)  # or a power cut could bring back half of it under its old name
        reached("discard-moved")
        remove_folder(folder.old_work)


def leave_work(session: Session) -> Status | None:
    """Drop a work tree that is no longer in use if the image holds all of it.

    Returns None then, else its status: it stays with edits, an interrupted transaction, files that
    are never packed, or sources that cannot be saved elsewhere. The caller holds both locks.
    """
    status = session.status()
    if not status.clean or session.interrupted or never_packed(status):
        settle(session.folder)
        return status
    try:
        secure(session, status.entries)
    except OSError as error:
        log.info("the work tree stays, its sources cannot be kept elsewhere: %s", error)
        return status
    discard_work(session)
    return None


def never_packed(status: Status) -> list[str]:
    """Paths of the user's that are never packed, such as a `.git` or a backup: only the work tree
    has them."""
    return [
        entry.path
        for entry in status.entries
        if entry.change is Change.IGNORED and (not entry.note or entry.path == OPTIONS_NAME)
    ]


def refuse_unknown(session: Session, shadow: Sequence[ShadowEntry], paths: Sequence[str]) -> None:
    """UsageError for a path that is neither in the work tree nor in the base."""
    known = {entry.path for entry in shadow} | {entry.source for entry in session.base.entries}
    for path in paths:
        if path not in known and not any(other.startswith(path + "/") for other in known):
            raise UsageError(
                "no such file, now or in the image",
                where=path,
                next_step=f"romfsfs status {session.info.argument}",
            )
