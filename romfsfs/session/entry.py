"""The way into a session for who keeps it for a while: a mount, or an editor of the Python API.

Locked before anything is remembered: who is refused must not change what another one works with.
"""

from __future__ import annotations

from romfsfs.convert import Options
from romfsfs.devices.base import Device
from romfsfs.session.keep import store
from romfsfs.session.keep.state import save
from romfsfs.session.keep.store import Lock
from romfsfs.session.opening import prepare, session_for
from romfsfs.session.session import Session
from romfsfs.system.files import Progress, no_progress, remove_folder


def enter(
    device: Device,
    source: str,
    *,
    new: bool = False,
    board: str | None = None,
    partition: int | None = None,
    options: Options | None = None,
    excludes: tuple[str, ...] = (),
    commit_on_unmount: bool = False,
    progress: Progress = no_progress,
) -> tuple[Session, Lock, bool]:
    """The session of this target with its work tree, the mount lock, and whether kept edits were
    resumed. Raises as `store.lock_for_mount`, `session_for` and `prepare` do."""
    found = device.info()
    directory = store.make_session_dir(found.key)
    lock = store.lock_for_mount(directory, found.name)
    remembered = directory / "session.json"
    before = remembered.read_bytes() if remembered.exists() else None
    try:
        session = session_for(
            device,
            source,
            board=board,
            partition=partition,
            options=options,
            excludes=excludes,
            commit_on_unmount=commit_on_unmount,
        )
        resumed = prepare(session, device, new=new, progress=progress)
    except BaseException:
        with lock:
            if before is not None:
                save(remembered, before)  # its edits are still for the board that they were for
            elif not any((directory / name).exists() for name in ("base.json", "work")):
                remove_folder(directory)  # nothing was read: there is nothing to remember
        raise
    return session, lock, resumed
