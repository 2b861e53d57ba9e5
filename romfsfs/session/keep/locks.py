"""Locks that say who holds them: `flock` on a small file, so a killed process leaves none behind.

The file keeps its words after the holder has ended: a dead mount is told by them.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from pathlib import Path
from typing import NamedTuple, cast

from romfsfs.session.keep.state import decoded
from romfsfs.system.files import lock_within, named, opened

#: How long a holder is waited for; and those who look whether there is one, and share the lock for
#: an instant: on a busy machine, or of a status that is watched, many of them.
_PATIENCE_SECONDS = 0.1
_LOOKS_SECONDS = 10.0


def boot_id() -> str:
    """Which run of the system this is; '' where that is not known."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:  # macOS, a container without /proc
        return ""


class MountedAt(NamedTuple):
    """Who holds a session: process id, and mountpoint ('' while it is not or not yet mounted).

    boot, since: when that was said, the run of the system and its seconds. doing: what else a lock
    is held for ("commit").
    """

    pid: int
    mountpoint: str
    boot: str = ""
    since: float = 0.0
    doing: str = ""


class Lock:
    """An exclusive `flock` on a file; `with` releases it, so does the end of the process.

    A forked child shares it: the lock lasts until both have closed it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = -1

    def acquire(self, doing: str = "") -> bool:
        """Take the lock if nobody has it, and say who did; whether it was taken. OSError."""
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        self._fd = os.open(self.path, flags, 0o600)
        taken = False
        try:
            if self._take() and self._has_name():
                self.write(MountedAt(os.getpid(), "", doing=doing))
                taken = True
            return taken
        finally:
            if not taken:  # a disk that fails must not leave it taken for as long as we live
                self.release()

    def _take(self) -> bool:
        end = time.monotonic() + _LOOKS_SECONDS
        while not lock_within(self._fd, _PATIENCE_SECONDS):
            if _is_held(self._fd) or time.monotonic() >= end:
                return False
        return True

    def _has_name(self) -> bool:
        """Whether others find it: its session may have been forgotten while it was waited for."""
        with contextlib.suppress(FileNotFoundError):
            return os.path.samestat(os.fstat(self._fd), os.lstat(self.path))
        return False

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


def holder_of(path: Path) -> MountedAt | None:
    """Who holds the lock on this file now; None if nobody does."""
    with contextlib.suppress(FileNotFoundError), opened(path, os.O_NOFOLLOW) as fd:
        if _is_held(fd):
            return _read_record(fd)
    return None


def _is_held(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(fd, fcntl.LOCK_UN)
    return False


def last_holder(path: Path) -> MountedAt:
    """Who holds it or held it last. OSError where nobody ever did."""
    with opened(path, os.O_NOFOLLOW) as fd:
        return _read_record(fd)


def _read_record(fd: int) -> MountedAt:
    try:
        return cast(MountedAt, decoded(MountedAt, json.loads(os.pread(fd, 8192, 0))))
    except (ValueError, KeyError, TypeError, RecursionError):
        return MountedAt(0, "")  # taken, not yet written
