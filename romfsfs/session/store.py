"""The folders that sessions live in, and who may use one now.

`<state dir>/sessions/<id>/`, one for each target. Two locks, both `flock`, so a killed process
leaves none behind: `lock` is held by the daemon for as long as the session is mounted and says
by which process and where; `commit.lock` is held by whoever changes base, history or target.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from romfsfs.errors import RomfsError, SessionBusy
from romfsfs.files import make_private_dir, state_dir
from romfsfs.session.state import SessionInfo


class MountedAt(NamedTuple):
    """Who holds a session: process id and mountpoint ('' while it is being mounted)."""

    pid: int
    mountpoint: str


class Lock:
    """An exclusive `flock` on a file; `with` releases it, so does the end of the process.

    A forked child shares it: the lock lasts until both have closed it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = -1

    def acquire(self) -> bool:
        """Take the lock if nobody has it; whether it was taken."""
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(fd)
            return False
        self._fd = fd
        return True

    def write(self, record: MountedAt) -> None:
        """Say who holds it."""
        data = json.dumps(record._asdict()).encode()
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


def sessions_dir() -> Path:
    """The folder of all sessions, made for this user alone."""
    return make_private_dir(make_private_dir(state_dir()) / "sessions")


def session_id(key: str) -> str:
    """A folder name for a target: readable, unique."""
    stem = re.sub(r"[^A-Za-z0-9.-]+", "_", key.rstrip("/").rpartition("/")[2] or "target")[:40]
    return f"{stem}-{hashlib.sha256(os.fsencode(key)).hexdigest()[:12]}"


def session_dir(key: str) -> Path:
    return sessions_dir() / session_id(key)


def all_sessions() -> Iterator[tuple[Path, SessionInfo]]:
    """Every session folder with readable state; damaged ones are left out (`recover` names them)."""
    for folder in sorted(sessions_dir().iterdir()):
        try:
            yield folder, SessionInfo.load(folder / "session.json")
        except (RomfsError, OSError, KeyError):
            continue


def mounted_at(folder: Path) -> MountedAt | None:
    """Who has this session mounted now, None if nobody has."""
    path = folder / "lock"
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return None
        except OSError:
            return _read_holder(fd)
    finally:
        os.close(fd)


def _read_holder(fd: int) -> MountedAt:
    try:
        record = json.loads(os.pread(fd, 8192, 0))
        return MountedAt(int(record["pid"]), str(record["mountpoint"]))
    except (ValueError, KeyError, TypeError):
        return MountedAt(0, "")  # taken, not yet written


def find_mounted(mountpoint: str) -> Path | None:
    """The session mounted at this folder (or at the mount that this path lies in)."""
    wanted = os.path.abspath(mountpoint)
    real = os.path.join(os.path.realpath(os.path.dirname(wanted)), os.path.basename(wanted))
    for folder in sorted(sessions_dir().iterdir()):
        holder = mounted_at(folder)
        if holder and holder.mountpoint and holder.mountpoint in (wanted, real):
            return folder
    return None


def lock_for_mount(folder: Path, name: str) -> Lock:
    """The session's mount lock. SessionBusy names who has it."""
    lock = Lock(folder / "lock")
    if lock.acquire():
        lock.write(MountedAt(os.getpid(), ""))
        return lock
    holder = mounted_at(folder)
    where = holder.mountpoint if holder else ""
    pid = holder.pid if holder else 0
    raise SessionBusy(
        f"{name} is already mounted" + (f" at {where}" if where else ""),
        where=f"process {pid}" if pid else "",
        next_step=f"use it there, or: romfsfs umount {where}"
        if where
        else "wait until that mount has finished",
    )


def lock_for_change(folder: Path, name: str) -> Lock:
    """The right to change base, history and target. SessionBusy if another process is at it."""
    lock = Lock(folder / "commit.lock")
    if not lock.acquire():
        raise SessionBusy(f"another commit of {name} is running", next_step="wait for it to finish")
    return lock
