"""Whether a work tree is on the disk, or only in the kernel's memory so far.

Extracting thousands of files syncs none of them: that would make every mount wait for the disk.
Instead the session is marked `unsettled` before its tree gets its place, the file system is
synced while the mount is in use already, and the mark is removed. A mark of an earlier run of
the system means that the power went in between: what was extracted may be missing, short or
zeros, and it is put back from the base's image, which is always synced.
"""

from __future__ import annotations

import logging

from romfsfs.session.keep.folder import SessionFolder
from romfsfs.session.keep.locks import boot_id
from romfsfs.system.files import replace_atomically, sync_dir, sync_file_system

log = logging.getLogger(__name__)

#: Where nothing tells one run of the system from the next: what looks torn may be an edit.
_UNKNOWN = "unknown"


def mark(folder: SessionFolder) -> None:
    """Say that the tree is not settled. Durable with the folder's next sync; a mark that lost
    its text is one of an earlier run."""
    with replace_atomically(folder.unsettled, durable=False) as file:
        file.write((boot_id() or _UNKNOWN).encode())


def lost_power(folder: SessionFolder) -> bool:
    """Whether the system stopped since the tree was made, and before it was settled."""
    try:
        marked = folder.unsettled.read_text("ascii", "replace")
    except FileNotFoundError:
        return False
    return not marked or marked not in (_UNKNOWN, boot_id())


def settle(folder: SessionFolder) -> None:
    """Make the tree durable, however long that takes, and forget the mark. Any thread.

    An error is left for the next opening: the tree stays marked.
    """
    if not folder.unsettled.exists():
        return
    try:
        sync_file_system(folder.path)
        folder.unsettled.unlink(missing_ok=True)
        sync_dir(folder.path)
    except OSError as error:
        log.warning("the work tree is not synced yet: %s", error)
