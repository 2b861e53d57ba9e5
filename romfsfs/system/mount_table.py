"""The system's mount table, and whether what is mounted answers.

A look into the table asks no mount anything: one that does not answer holds nobody up.
"""

from __future__ import annotations

import errno
import os
import re
import select
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from romfsfs.errors import UsageError, shell_word

_LINKS = 40  # that lead to each other, as Linux has it


class Mount(NamedTuple):
    """A line of the table."""

    mountpoint: str
    kind: str
    source: str


def find_mount(mountpoint: str) -> Mount | None:
    """What is mounted there, on top; None: nothing, or the system has no mount table to read."""
    found = None
    for mount in mounts():
        if mount.mountpoint == mountpoint:
            found = mount
    return found


def mounts() -> Iterator[Mount]:
    """All of them, those on top of others after them."""
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


def real_place(mountpoint: str | os.PathLike[str]) -> str:
    """The real path of a mountpoint, or of a link to one, as the table has it.

    Not `os.path.realpath`: that looks at the folder itself, and what is mounted there may not
    answer.
    """
    path = os.path.abspath(mountpoint)
    for _ in range(_LINKS):
        folder, name = os.path.split(path)
        path = os.path.join(os.path.realpath(folder), name)
        try:
            target = os.readlink(path)
        except OSError:  # it is no link
            break
        path = os.path.normpath(os.path.join(os.path.dirname(path), target))
    return path


def is_dead(mountpoint: str | os.PathLike[str]) -> bool:
    """Whether a FUSE file system is mounted there whose daemon is gone. Waits for one that is
    `hanging`, as all do who look there."""
    try:
        # Not stat(2): for a second the kernel answers that from what it remembers.
        os.statvfs(mountpoint)
    except OSError as error:
        # ENOTCONN on Linux, ECONNABORTED while the daemon is still ending; macOS says ENXIO
        return error.errno in (errno.ENOTCONN, errno.ECONNABORTED, errno.ENXIO)
    return False


#: Asks for `$1`: in the background, so that whoever started it has nothing to wait for. A shell
#: takes a millisecond.
_ASK = 'cd / && { test -e "$1" & }'


def answers(mountpoint: str, seconds: float = 5.0) -> bool:
    """Whether who serves this folder (an absolute path) answers at all, be it with an error.

    A daemon can be stopped or stuck. A process of its own asks, which has nothing of ours: when the
    daemon has taken its request, nothing ends it before that is answered, not even SIGKILL. And for
    a name that there is not, which the kernel does not remember: to say how full it is, the daemon
    of a large tree needs seconds.
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
            # The shell has ended; or it looks at the folder that we are in, and that hangs.
            os.waitpid(pid, 0 if answered else os.WNOHANG)
    return answered


def hanging(path: str | os.PathLike[str]) -> Mount | None:
    """The FUSE mount that a path names or lies in, if it does not answer: nothing ends who looks
    there. From the root on, so that nothing in it is looked at here."""
    known = {mount.mountpoint: mount for mount in mounts() if mount.kind.startswith("fuse")}
    absolute = Path(os.path.abspath(path))
    for place in (*reversed(absolute.parents), absolute) if known else ():
        mount = known.get(real_place(place))
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
