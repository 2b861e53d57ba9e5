"""Bringing paths of the work tree, or all of it, back to the base."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from romfsfs.errors import UsageError
from romfsfs.session.keep import store
from romfsfs.session.leftovers import ignored
from romfsfs.session.opening import discard_work
from romfsfs.session.plan.shadow import Change, ShadowEntry
from romfsfs.session.plan.status import Status
from romfsfs.session.rebase.sources import secure
from romfsfs.session.session import Session
from romfsfs.session.tree.restore import is_below, restore, selected


def revert(session: Session, paths: Sequence[str] = (), root: Path | None = None) -> list[str]:
    """Bring paths (all, if none is given) back to what was last read or committed; which changed.

    root: the mountpoint when the session is mounted; SessionBusy if it is and that was not said.
    UsageError for a path that is neither in the work tree nor in the base. Not mounted and no
    path: the edits are dropped as a whole (files that are never packed stay), and the next mount
    reads the target anew.
    """
    if root is not None:
        with store.lock_for_change(session.directory, session.info.name):
            return _revert(session, paths, root)
    with store.lock_unmounted(session.directory, session.info.name):
        status = session.status()
        if paths or ignored(status) or not _outlive(session, status):
            return _revert(session, paths, session.work)
        discard_work(session)
        return [entry.path for entry in status.entries if _is_edit(entry)]


def _outlive(session: Session, status: Status) -> bool:
    """Whether the sources of what is committed outlive the work tree."""
    try:
        secure(session, [e for e in status.entries if e.change is Change.UNCHANGED])
    except OSError:
        return False
    return True


def _revert(session: Session, paths: Sequence[str], root: Path) -> list[str]:
    shadow = session.derive()
    refuse_unknown(session, shadow, paths)
    changed = [entry for entry in shadow if _is_edit(entry) and selected(entry.path, paths)]
    made = {entry.path for entry in changed if entry.is_dir and entry.change is Change.ADDED}
    # What a file manager left in a folder that goes, goes with it.
    junk = [
        entry.path
        for entry in shadow
        if entry.change is Change.IGNORED and not entry.note and is_below(entry.path, made)
    ]
    paths = [*(entry.path for entry in changed), *junk]
    restore(session.held(), paths, session.work, root, session.recall())
    return [entry.path for entry in changed]


def _is_edit(entry: ShadowEntry) -> bool:
    return entry.change not in (Change.UNCHANGED, Change.IGNORED)


def refuse_unknown(session: Session, shadow: Sequence[ShadowEntry], paths: Sequence[str]) -> None:
    known = {entry.path for entry in shadow} | {entry.source for entry in session.base.entries}
    for path in paths:
        if path not in known and not any(other.startswith(path + "/") for other in known):
            raise UsageError(
                "no such file, now or in the image",
                where=path,
                next_step=f"romfsfs status {session.info.argument}",
            )
