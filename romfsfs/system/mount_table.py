"""The system's mount table, and whether what is mounted answers.

Reading the table touches no mount: one that hangs does not block it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import select
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from romfsfs.errors import UsageError, shell_word

_LINKS = 40  # followed in a row, as on Linux


class Mount(NamedTuple):
    """A line of the table. kind: the file system type."""

    mountpoint: str
    kind: str
    source: str


def find_mount(mountpoint: str) -> Mount | None:
    """The topmost mount there; None: none, or the system has no mount table to read (macOS)."""
    found = None
    for mount in mounts():
        if mount.mountpoint == mountpoint:
            found = mount
    return found


def mounts() -> Iterator[Mount]:
    """All mounts; one on top of another comes after it. Nothing if there is no table to read."""
    try:
        lines = Path("/proc/self/mountinfo").read_bytes().splitlines()
    except OSError:
        return
    for line in lines:
        # ID PARENT MAJOR:MINOR ROOT MOUNTPOINT OPTIONS [TAG...] - TYPE SOURCE SUPEROPTIONS
        front, _, back = line.partition(b" - ")
        fields, rest = front.split(b" "), back.split(b" ")
        if len(fields) >= 5 and len(rest) >= 2:
            yield Mount(_plain(fields[4]), _plain(rest[0]), _plain(rest[1]))


def _plain(field: bytes) -> str:
    """Undo the kernel's escapes of space, tab, newline and backslash: three octal digits."""
    return os.fsdecode(re.sub(rb"\\([0-7]{3})", lambda m: bytes([int(m[1], 8)]), field))


def real_places(path: str | os.PathLike[str]) -> Iterator[str]:
    """The way to `path`, from the root down, through links to where they lead; its last place is
    the real path, as the table has it.

    A place is looked at when the next is asked for, and not before: what is mounted there may hang.
    """
    place, told = os.path.sep, ""
    here = "" if os.path.isabs(path) else os.getcwd()
    ahead = os.path.join(here, path).split(os.path.sep)[::-1]
    links = 0
    while ahead:
        name = ahead.pop()
        if name == os.pardir:
            place = os.path.dirname(place)
        elif name not in ("", os.curdir):
            place = told = os.path.join(place, name)
            yield place
            if links < _LINKS:
                with contextlib.suppress(OSError):  # it is no link
                    target = os.readlink(place)
                    links += 1
                    place = os.path.sep if os.path.isabs(target) else os.path.dirname(place)
                    ahead += target.split(os.path.sep)[::-1]
    if place != told:
        yield place


def real_place(mountpoint: str | os.PathLike[str]) -> str:
    """The real path of a mountpoint, or of a link to one, as the table has it.

    Not `os.path.realpath`: that looks at the folder itself, and what is mounted there may hang.
    """
    *_, place = real_places(mountpoint)
    return place


def is_dead(mountpoint: str | os.PathLike[str]) -> bool:
    """Whether a FUSE file system is mounted there whose daemon is gone. Blocks on one that is
    `hanging`, as every access does."""
    try:
        # Not stat(2): for a second the kernel answers that from its cache.
        os.statvfs(mountpoint)
    except OSError as error:
        # ENOTCONN on Linux, ECONNABORTED while the daemon is still ending; macOS says ENXIO
        return error.errno in (errno.ENOTCONN, errno.ECONNABORTED, errno.ENXIO)
    return False


def dead_mountpoint(path: str | os.PathLike[str]) -> str | None:
    """Where the mount that a path names or lies in is mounted, if it `is_dead`, and so all in it;
    None if it is not."""
    if not is_dead(path):
        return None
    real = real_place(path)
    return next(filter(is_dead, map(str, reversed(Path(real).parents))), real)


#: Looks for `$1` in the background, so that the shell itself ends at once. It takes a millisecond.
_ASK = 'cd / && { test -e "$1" & }'


def answers(mountpoint: str, seconds: float = 5.0) -> bool:
    """Whether the daemon of this folder (an absolute path) answers in time, be it with an error.

    A daemon can be stopped or stuck. A separate process asks it, which shares nothing with us: once
    the daemon has taken a request, not even SIGKILL ends the process that waits for the answer. It
    asks for a name that does not exist, which the kernel does not cache. Not statfs(2): for that,
    the daemon of a large tree needs seconds.
    """
    path = os.path.join(mountpoint, ".romfs", f"answers-{os.getpid()}")
    reading, writing = os.pipe()
    nowhere = os.devnull, os.O_RDWR, 0
    streams = (
        (os.POSIX_SPAWN_DUP2, writing, 1),  # open until it has its answer
        (os.POSIX_SPAWN_OPEN, 0, *nowhere),
        (os.POSIX_SPAWN_OPEN, 2, *nowhere),
    )
    answered = False
    with open(reading, "rb", 0) as asking:
        try:
            command = ["sh", "-c", _ASK, "sh", path]
            pid = os.posix_spawn("/bin/sh", command, {}, file_actions=streams, setsid=True)
        finally:
            os.close(writing)
        try:
            answered = bool(select.select([asking], [], [], seconds)[0])
        finally:
            if not answered:  # its group is still there
                os.killpg(pid, signal.SIGKILL)
            # The shell has ended; or our current folder is in the mount, and it hangs too.
            with contextlib.suppress(ChildProcessError):  # a caller that ignores SIGCHLD
                os.waitpid(pid, 0 if answered else os.WNOHANG)
    return answered


def hanging(path: str | os.PathLike[str]) -> Mount | None:
    """The FUSE mount that a path names or lies in, if it does not answer: a process that looks
    there cannot be ended. Checked from the root down, so that nothing below it is looked at."""
    known = {mount.mountpoint: mount for mount in mounts() if mount.kind.startswith("fuse")}
    for place in real_places(path) if known else ():
        mount = known.get(place)
        if mount is not None and not answers(mount.mountpoint):
            return mount
    return None


def refuse_hanging(path: str) -> None:
    """UsageError for a path that is `hanging`."""
    mount = hanging(path)
    if mount is not None:
        what = f"{mount.source} is mounted there, and does not answer"
        next_step = f"romfsfs umount --lazy {shell_word(mount.mountpoint)}"
        raise UsageError(what, where=mount.mountpoint, next_step=next_step)
