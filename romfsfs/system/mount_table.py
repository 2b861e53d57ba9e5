"""The system's mount table, and whether what is mounted answers.

A look into the table asks no mount anything: one that does not answer holds nobody up.
"""

from __future__ import annotations

import errno
import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

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
    """Whether a FUSE file system is mounted there whose daemon is gone."""
    try:
        # Not stat(2): for a second the kernel answers that from what it remembers.
        os.statvfs(mountpoint)
    except OSError as error:
        # ENOTCONN on Linux, ECONNABORTED while the daemon is still ending; macOS says ENXIO
        return error.errno in (errno.ENOTCONN, errno.ECONNABORTED, errno.ENXIO)
    return False


def answers(mountpoint: str | os.PathLike[str], seconds: float = 5.0) -> bool:
    """Whether who serves this folder answers at all, be it with an error.

    A daemon can be stopped or stuck. It is asked on a thread that may be left behind: nothing
    interrupts a request that nobody takes, not even Ctrl-C. And for a name that there is not, which
    the kernel does not remember: to say how full it is, the daemon of a large tree needs seconds.
    """
    path = os.path.join(mountpoint, ".romfs", f"answers-{os.getpid()}")
    asking = threading.Thread(target=os.path.lexists, args=(path,), daemon=True)
    asking.start()
    asking.join(seconds)
    return not asking.is_alive()
