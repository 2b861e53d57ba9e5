"""The folders that sessions live in, and who may use one now.

`<state dir>/sessions/<id>/`, one for each target. Two locks, both `flock`, so a killed process
leaves none behind: `lock` is held by the daemon for as long as the session is mounted, and by
who must not have it mounted meanwhile; `commit.lock` by whoever changes base, history or target.
Both files say who holds them, and go on saying it after a crash. Who takes both takes `lock`
first.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from romfsfs.errors import RomfsError, SessionBusy, shell_word
from romfsfs.session.keep.settling import boot_id
from romfsfs.session.keep.state import SessionInfo
from romfsfs.system.files import make_private_dir, named, remove_temporaries, state_dir
from romfsfs.system.mount_table import find_mount, mounts, real_place

#: Looking who holds a lock takes it for an instant: such a look is waited for, this long.
_PATIENCE_SECONDS = 0.1
_PAUSE_SECONDS = 0.005


class MountedAt(NamedTuple):
    """Who holds a session: process id, and mountpoint ('' while it is not or not yet mounted).

    resumed: the mount began with edits that were kept. boot, since: when that was said, the run of
    the system and its seconds.
    """

    pid: int
    mountpoint: str
    resumed: bool = False
    boot: str = ""
    since: float = 0.0


class Lock:
    """An exclusive `flock` on a file; `with` releases it, so does the end of the process.

    A forked child shares it: the lock lasts until both have closed it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = -1

    def acquire(self) -> bool:
        """Take the lock if nobody has it, and say who did; whether it was taken. OSError."""
        self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        taken = False
        try:
            if _take(self._fd):
                self.write(MountedAt(os.getpid(), ""))
                taken = True
            return taken
        finally:
            if not taken:  # a disk that fails must not leave it taken for as long as we live
                self.release()

    def write(self, record: MountedAt) -> None:
        """Say who holds it, from now on."""
        record = record._replace(boot=boot_id(), since=time.monotonic())
        data = json.dumps(record._asdict()).encode()
        with named(self.path):
            os.pwrite(self._fd, data, 0)
            os.ftruncate(self._fd, len(data))

    def release(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *exc: object) -> None:
        self.release()


def _take(fd: int) -> bool:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(_PAUSE_SECONDS)


def sessions_dir() -> Path:
    """The folder of all sessions, made for this user alone."""
    return make_private_dir(make_private_dir(state_dir()) / "sessions")


def session_id(key: str) -> str:
    """A folder name for a target: readable, unique.

    A file's name tells it; of a camera all of 'board/unique id/partition' does.
    """
    name = key.rstrip("/").rpartition("/")[2] if key.startswith("/") else key
    stem = re.sub(r"[^A-Za-z0-9.-]+", "_", name or "target")[:60]
    return f"{stem}-{hashlib.sha256(os.fsencode(key)).hexdigest()[:12]}"


def session_dir(key: str) -> Path:
    return sessions_dir() / session_id(key)


def make_session_dir(key: str) -> Path:
    """The session's folder, made for this user alone if it is not there."""
    return make_private_dir(session_dir(key))


def all_sessions() -> Iterator[tuple[Path, SessionInfo]]:
    """Every session folder whose state can be read; damaged ones are left out."""
    for folder in sorted(sessions_dir().iterdir()):
        try:
            yield folder, SessionInfo.load(folder / "session.json")
        except (RomfsError, OSError, KeyError):
            continue


def mounted_at(folder: Path) -> MountedAt | None:
    """Who has this session mounted now, None if nobody has."""
    return _holder(folder / "lock")


def changed_by(folder: Path) -> int | None:
    """The process that commits or otherwise changes this session now (0: not known yet)."""
    holder = _holder(folder / "commit.lock")
    return None if holder is None else holder.pid


def _holder(path: Path) -> MountedAt | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return None
    except BlockingIOError:
        return _read_record(fd)
    finally:
        os.close(fd)


def _read_record(fd: int) -> MountedAt:
    try:
        record = json.loads(os.pread(fd, 8192, 0))
        return MountedAt(
            int(record["pid"]),
            str(record["mountpoint"]),
            bool(record.get("resumed", False)),
            str(record.get("boot", "")),
            float(record.get("since", 0.0)),
        )
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return MountedAt(0, "")  # taken, not yet written


def find_mounted(mountpoint: str, *, dead: bool = False) -> Path | None:
    """The session mounted at this folder; with `dead`, the one whose daemon was killed there.

    Several may say so, and only one is it, the last that was mounted there: another may have been
    taken away lazily and still be in use, or have ended without a word of ours (`fusermount -u`).
    """
    names = os.path.abspath(mountpoint), real_place(mountpoint)
    boot = boot_id()
    found = []
    for folder in sessions_dir().iterdir():
        try:
            holder = _read_last(folder / "lock") if dead else mounted_at(folder)
            if holder is not None and holder.mountpoint in names:
                found.append((holder.boot == boot, holder.since, holder.mountpoint, folder))
        except OSError:
            continue
    if not found:
        return None
    *_, where, folder = max(found)
    return folder if dead or _is_there(where) else None


def _is_there(mountpoint: str) -> bool:
    """Whether anything is mounted there, as far as the system tells."""
    return find_mount(mountpoint) is not None or not any(mounts())


def out_of_reach(folder: Path) -> SessionBusy | None:
    """What to say of a session whose mount was taken away lazily, or covered by another; None:
    it is not mounted, or where it says."""
    holder = mounted_at(folder)
    if holder is None or not holder.mountpoint or find_mounted(holder.mountpoint) == folder:
        return None
    return SessionBusy(
        f"its mount at {holder.mountpoint} is out of reach",
        where=f"process {holder.pid}",
        next_step="end the programs that still use it, and try again",
    )


def _read_last(path: Path) -> MountedAt:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return _read_record(fd)
    finally:
        os.close(fd)


def lock_for_mount(folder: Path, name: str) -> Lock:
    """The session's mount lock. SessionBusy names who has it."""
    lock = Lock(folder / "lock")
    if lock.acquire():
        return lock
    holder = mounted_at(folder)
    where = holder.mountpoint if holder else ""
    pid = holder.pid if holder else 0
    away = out_of_reach(folder)
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


def lock_for_change(folder: Path, name: str) -> Lock:
    """The right to change base, history and target. SessionBusy if another process is at it."""
    lock = Lock(folder / "commit.lock")
    if not lock.acquire():
        pid = changed_by(folder)
        raise SessionBusy(
            f"{name} is being committed or changed by another process",
            where=f"process {pid}" if pid else "",
            next_step="try again when it has finished",
        )
    remove_temporaries(folder)
    return lock


@contextlib.contextmanager
def lock_unmounted(folder: Path, name: str) -> Iterator[None]:
    """Both locks, for what must not happen under a mount: nobody can mount it meanwhile.

    Where this process has the mount lock already (`romfsfs.open`), that is as good.
    """
    holder = mounted_at(folder)
    mine = holder is not None and holder.pid == os.getpid() and not holder.mountpoint
    with contextlib.ExitStack() as stack:
        if not mine:
            stack.enter_context(lock_for_mount(folder, name))
        stack.enter_context(lock_for_change(folder, name))
        yield
