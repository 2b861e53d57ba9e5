"""Whether a work tree is on the disk, or only in the kernel's memory so far.

Extracting thousands of files syncs none of them: that would make every mount wait for the disk.
Instead the session is marked `unsettled` before its tree gets its place, the file system is
synced while the mount is in use already, and the mark is removed. A mark of an earlier run of
the system means that the power went in between: what was extracted may be missing, short or
zeros, and `opening` puts it back from `base.img`, which is always synced.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

from romfsfs.system.files import named, sync_dir, sync_file_system

log = logging.getLogger(__name__)

MARK = "unsettled"


def boot_id() -> str:
    """Which run of the system this is; '' where that is not known."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:  # macOS, a container without /proc
        return ""


def mark(directory: Path) -> None:
    """Say that the tree is not settled. Durable with the folder's next sync; a mark that lost
    its text is one of an earlier run."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    with named(directory / MARK), open(os.open(directory / MARK, flags, 0o600), "w") as file:
        file.write(boot_id())


def is_marked(directory: Path) -> bool:
    return (directory / MARK).exists()


def lost_power(directory: Path) -> bool:
    """Whether the system stopped since the tree was made, and before it was settled."""
    try:
        marked = (directory / MARK).read_text("ascii", "replace")
    except FileNotFoundError:
        return False
    return not marked or marked != boot_id()


def settle(directory: Path) -> None:
    """Make the tree durable, however long that takes, and forget the mark. Any thread.

    An error is left for the next opening: the tree stays marked.
    """
    if not is_marked(directory):
        return
    try:
        sync_file_system(directory)
        (directory / MARK).unlink(missing_ok=True)
        sync_dir(directory)
    except OSError as error:
        log.warning("the work tree is not synced yet: %s", error)
