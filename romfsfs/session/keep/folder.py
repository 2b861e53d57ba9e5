"""A session's folder: every path in it, its two locks, and how new files are made there.

`<state dir>/sessions/<id>/`, one for each target:

    session.json   target and user's choices   base.json     the base
    work/          the work tree               history/      images by digest, and their log
    lock           held while it is mounted    commit.lock   held while base or target changes
    rebase.json    the transaction under way   unsettled     the work tree is not synced yet
    log            the mount's log             hidden/       open files that were deleted
    staged.img     an image being made         found.img     what a target held, being copied
    work.new/      a tree being extracted      work.old/     a tree being removed
    gone           since when the image file is not there

Both locks are `flock`, so a killed process leaves neither behind. A process that needs both takes
`lock` first. The lock files name their holder, and still do after a crash. Images and state are
written to new files (O_EXCL, O_NOFOLLOW) and renamed into place: a file that another name or
process may refer to is never written to.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from romfsfs.errors import RomfsError, SessionBusy, shell_word
from romfsfs.session.keep.locks import Lock, MountedAt, boot_id, holder_of, last_holder
from romfsfs.session.keep.state import SessionInfo
from romfsfs.system.files import named, opened, remove_temporaries, sync_dir
from romfsfs.system.mount_table import mounts, real_place
from romfsfs.system.removal import remove_folder
from romfsfs.system.user_folders import make_private_dir, state_dir


class SessionFolder:
    """The folder of one session. The constructor opens and creates nothing."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.info = path / "session.json"
        self.base = path / "base.json"
        self.record = path / "rebase.json"
        self.work = path / "work"
        self.new_work = path / "work.new"
        self.old_work = path / "work.old"
        self.hidden = path / "hidden"
        self.history = path / "history"
        self.staged = path / "staged.img"
        self.found = path / "found.img"
        self.unsettled = path / "unsettled"
        self.gone = path / "gone"
        self.log = path / "log"
        self._mount_lock = path / "lock"
        self._change_lock = path / "commit.lock"
        #: Name prefix of work files that are not complete yet (`restore`). The digest in the
        #: session's id is part of it, so that no file of an image or of the user's has it.
        self.beside = f".romfsfs.restore.{path.name.rpartition('-')[2]}."

    def image(self, digest: str) -> Path:
        """The path of the image with this digest: of the base, the log, or a transaction."""
        return self.history / f"{digest}.img"

    @staticmethod
    @contextlib.contextmanager
    def create(path: Path) -> Iterator[BinaryIO]:
        """A new file, open to write and read; replaces what an earlier attempt left there.

        Not synced (see `place`). Removed if the block fails. OSError.
        """
        path.unlink(missing_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with named(path), open(os.open(path, flags, 0o600), "w+b") as file:
            try:
                yield file
                file.flush()
            except BaseException:
                path.unlink(missing_ok=True)
                raise

    def place(self, made: Path, digest: str) -> None:
        """Move a finished image into the history under its digest, durably. OSError."""
        make_private_dir(self.history)
        with opened(made, os.O_NOFOLLOW) as fd, named(made):
            os.fsync(fd)
        os.replace(made, self.image(digest))
        sync_dir(self.history)

    def sweep(self) -> None:
        """Remove what killed operations left behind. The caller holds both locks."""
        for folder in (self.new_work, self.old_work):
            remove_folder(folder)
        for file in (self.staged, self.found):
            file.unlink(missing_ok=True)

    # -- locks

    def mounted_at(self) -> MountedAt | None:
        """Who holds the mount lock now, None if nobody does. OSError."""
        return holder_of(self._mount_lock)

    def last_mounted_at(self) -> MountedAt:
        """Who held the mount lock last, perhaps killed since. OSError if nobody ever did."""
        return last_holder(self._mount_lock)

    def changed_by(self) -> int | None:
        """The process id that commits or otherwise changes this session now; None if none does.

        0: the lock is taken, its holder not recorded yet."""
        holder = holder_of(self._change_lock)
        return None if holder is None else holder.pid

    @property
    def changed_by_me(self) -> bool:
        """Whether this process holds the change lock."""
        holder = holder_of(self._change_lock)
        return holder is not None and holder.is_me

    def out_of_reach(self) -> SessionBusy | None:
        """The error for a session whose mount was lazily unmounted, or is covered by another one.

        None if it is not mounted, or can be reached at its mountpoint."""
        holder = self.mounted_at()
        if holder is None or not holder.mountpoint:
            return None
        there = find_mounted(holder.mountpoint)
        if there is not None and there.path == self.path:
            return None
        return SessionBusy(
            f"its mount at {holder.mountpoint} cannot be reached",
            where=f"process {holder.pid}",
            next_step="end the programs that still use it, and try again",
        )

    def lock_for_mount(self, name: str) -> Lock:
        """Take the session's mount lock. SessionBusy, which names the holder, if it is taken."""
        lock = Lock(self._mount_lock)
        if lock.acquire():
            return lock
        holder = self.mounted_at()
        where = holder.mountpoint if holder else ""
        pid = holder.pid if holder else 0
        away = self.out_of_reach()
        if away is not None:
            raise away
        if where:
            raise SessionBusy(
                f"{name} is already mounted at {where}",
                where=f"process {pid}",
                next_step=f"use it there, or: romfsfs umount {shell_word(where)}",
            )
        raise SessionBusy(
            f"{name} is being mounted or changed by another process",
            where=f"process {pid}" if pid else "",
            next_step="try again when it has finished",
        )

    def lock_for_change(self, name: str, doing: str = "") -> Lock:
        """Take the lock for changes of base, history and target. SessionBusy if it is taken.

        doing: "commit", for the message that other processes get meanwhile."""
        lock = Lock(self._change_lock)
        if not lock.acquire(doing):
            raise self.busy(name)
        remove_temporaries(self.path)
        return lock

    def refuse_changed(self, name: str) -> None:
        """SessionBusy while another process changes the session, and so may have its port open."""
        holder = holder_of(self._change_lock)
        if holder is not None and not holder.is_me:
            raise self.busy(name)

    def busy(self, name: str) -> SessionBusy:
        """The error while another process changes the session."""
        holder = holder_of(self._change_lock)
        committed = holder is not None and holder.doing == "commit"
        what = f"a commit of {name} is running"
        return SessionBusy(
            what if committed else f"{name} is being changed by another process",
            where=f"process {holder.pid}" if holder and holder.pid else "",
            next_step="try again when it has finished",
        )

    @contextlib.contextmanager
    def lock_unmounted(self, name: str) -> Iterator[None]:
        """Hold both locks, for changes that must not happen under a mount. SessionBusy.

        A mount lock that this process holds already, without a mount (`romfsfs.open`), will do.
        """
        holder = self.mounted_at()
        mine = holder is not None and holder.is_me and not holder.mountpoint
        with contextlib.ExitStack() as stack:
            if not mine:
                stack.enter_context(self.lock_for_mount(name))
            stack.enter_context(self.lock_for_change(name))
            yield

    @contextlib.contextmanager
    def provisional(self, name: str, drops: bool = False) -> Iterator[None]:
        """Remove a session that the block creates and leaves empty: no base, work tree, log or
        transaction. Nothing is removed while it is locked; the block releases the locks it takes.

        drops: remove it even if it is not empty, unless the block fails.
        """
        known = self.info.exists()
        try:
            yield
        except BaseException:
            drops = False
            raise
        finally:
            if not known and self.path.exists() and (drops or self.is_empty):
                with contextlib.suppress(SessionBusy, OSError), self.lock_unmounted(name):
                    if drops or self.is_empty:
                        remove_folder(self.path)

    @property
    def is_empty(self) -> bool:
        """Whether it has no base, work tree, log or transaction."""
        left = (self.base, self.work, self.record, *self.history.glob("*.json"))
        return not any(path.exists() for path in left)


def sessions_dir() -> Path:
    """The folder of all sessions, created with mode 0700. RomfsError as `make_private_dir`."""
    return make_private_dir(make_private_dir(state_dir()) / "sessions")


def session_id(key: str) -> str:
    """A readable, unique folder name for a target.

    Its readable part is a file's name, or all of a camera's 'board/unique id/partition'.
    """
    name = key.rstrip("/").rpartition("/")[2] if key.startswith("/") else key
    stem = re.sub(r"[^A-Za-z0-9.-]+", "_", name or "target")[:60]
    return f"{stem}-{hashlib.sha256(os.fsencode(key)).hexdigest()[:12]}"


def folder_of(key: str) -> SessionFolder:
    """The session's folder, which may not exist yet. key: of the target (`Known.key`)."""
    return SessionFolder(sessions_dir() / session_id(key))


def make_folder(key: str) -> SessionFolder:
    """The session's folder, created with mode 0700 if it does not exist."""
    folder = folder_of(key)
    make_private_dir(folder.path)
    return folder


def all_folders() -> list[SessionFolder]:
    """Every session folder, also of a session that cannot be read."""
    return [SessionFolder(path) for path in sorted(sessions_dir().iterdir())]


def all_sessions() -> Iterator[tuple[SessionFolder, SessionInfo]]:
    """Every session folder whose state can be read; damaged ones are left out."""
    for folder in all_folders():
        try:
            yield folder, SessionInfo.load(folder.info)
        except (RomfsError, OSError):
            continue


def find_mounted(mountpoint: str, *, dead: bool = False) -> SessionFolder | None:
    """The session mounted at this folder, or None; with `dead`, the one whose daemon was killed."""
    known = mounted_folders(dead=dead)
    return known.get(real_place(mountpoint)) or known.get(os.path.abspath(mountpoint))


def mounted_folders(*, dead: bool = False) -> dict[str, SessionFolder]:
    """The mounted sessions by mountpoint; with `dead`, those last mounted there.

    If several name one mountpoint, the one mounted there last counts: an earlier one may have been
    lazily unmounted and still be in use, or unmounted without us (`fusermount -u`).
    """
    boot = boot_id()
    found = []
    for path in sessions_dir().iterdir():
        folder = SessionFolder(path)
        try:
            holder = folder.last_mounted_at() if dead else folder.mounted_at()
            if holder is not None and holder.mountpoint:
                found.append((holder.boot == boot, holder.since, holder.mountpoint, path))
        except OSError:
            continue
    there = {mount.mountpoint for mount in mounts()}  # empty: the system has no mount table
    return {
        where: SessionFolder(path)
        for *_, where, path in sorted(found)
        if dead or where in there or not there
    }
