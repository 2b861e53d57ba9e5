"""The system's mount table. A look into it asks no mount anything: one that does not answer holds
nobody up."""

from __future__ import annotations

import os
import re
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
