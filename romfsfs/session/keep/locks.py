"""Locks that record their holder: `flock` on a small file, so a killed process leaves none behind.

The record stays in the file after the holder has ended: a dead mount is recognised by it.
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

#: How long `acquire` waits for a holder to release, and how long in all for shared locks:
#: `holder_of` takes one for an instant, many times over with a busy machine or a watched status.
_PATIENCE_SECONDS = 0.1
_LOOKS_SECONDS = 10.0
#: Tells this process from one of another container, which may have the same process id.
_ME = os.urandom(8).hex()


def boot_id() -> str:
    """An id of the current boot; '' if the system gives none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:  # macOS, a container without /proc
        return ""


class MountedAt(NamedTuple):
    """Who holds a lock: process id (0: not recorded yet), and mountpoint ('' while not mounted).

    boot, since: when the record was written: `boot_id`, and seconds of the monotonic clock. doing:
    what a change lock is held for ("commit"). who: random, chosen by the process.
    """

    pid: int
    mountpoint: str
    boot: str = ""
    since: float = 0.0
    doing: str = ""
    who: str = ""

    @property
    def is_me(self) -> bool:
        """Whether that is this process."""
        return (self.pid, self.who) == (os.getpid(), _ME)


class Lock:
    """An exclusive `flock` on a file, advisory, released by `with` or the end of the process.

    A forked child shares it: the lock lasts until both have closed it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = -1

    def acquire(self, doing: str = "") -> bool:
        """Take the lock if it is free and record this process; whether it was taken. OSError.

        Waits up to 0.1 s for a holder; up to 10 s while other processes only look."""
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        self._fd = os.open(self.path, flags, 0o600)
        taken = False
        try:
            if self._take() and self._has_name():
                self.write(MountedAt(os.getpid(), "", doing=doing))
                taken = True
            return taken
        finally:
            if not taken:  # an error of the disk must not leave it locked until this process ends
                self.release()

    def _take(self) -> bool:
        end = time.monotonic() + _LOOKS_SECONDS
        while not lock_within(self._fd, _PATIENCE_SECONDS):
            if _is_held(self._fd) or time.monotonic() >= end:
                return False
        return True

    def _has_name(self) -> bool:
        """Whether the path still names it: the session may have been removed during the wait."""
        with contextlib.suppress(FileNotFoundError):
            return os.path.samestat(os.fstat(self._fd), os.lstat(self.path))
        return False

    def write(self, record: MountedAt) -> None:
        """Record who holds it, from now on. The lock is held; OSError."""
        record = record._replace(boot=boot_id(), since=time.monotonic(), who=_ME)
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
    """Who holds the lock on this file now; None if nobody does. OSError."""
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
    """Who holds the lock or held it last. OSError if nobody ever did."""
    with opened(path, os.O_NOFOLLOW) as fd:
        return _read_record(fd)


def _read_record(fd: int) -> MountedAt:
    try:
        return cast(MountedAt, decoded(MountedAt, json.loads(os.pread(fd, 8192, 0))))
    except (ValueError, KeyError, TypeError, RecursionError):
        return MountedAt(0, "")  # taken, not yet written
