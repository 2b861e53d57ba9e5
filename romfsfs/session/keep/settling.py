"""Whether an extracted work tree is durable, or only in the page cache so far.

Extracting thousands of files syncs none of them: that would make every mount wait for the disk.
Instead the session is marked `unsettled` before its tree is renamed into place, the file system is
synced while the mount is already in use, and the mark is removed. A mark of an earlier boot means
that the system stopped in between: extracted files may be missing, short or full of zeros, and
they are restored from the base's image, which is always synced.
"""

from __future__ import annotations

import logging

from romfsfs.session.keep.folder import SessionFolder
from romfsfs.session.keep.locks import boot_id
from romfsfs.system.files import replace_atomically, sync_dir, sync_file_system

log = logging.getLogger(__name__)

#: The mark without a boot id; it never counts as a power cut: what looks torn may be an edit.
_UNKNOWN = "unknown"


def mark(folder: SessionFolder) -> None:
    """Mark the tree as not settled. OSError. Durable with the folder's next sync.

    A power cut can leave the mark empty: that counts as one of an earlier boot."""
    with replace_atomically(folder.unsettled, durable=False) as file:
        file.write((boot_id() or _UNKNOWN).encode())


def lost_power(folder: SessionFolder) -> bool:
    """Whether the system stopped between the tree's extraction and its settling. OSError."""
    try:
        marked = folder.unsettled.read_text("ascii", "replace")
    except FileNotFoundError:
        return False
    return not marked or marked not in (_UNKNOWN, boot_id())


def settle(folder: SessionFolder) -> None:
    """Make the tree durable, however long that takes, and remove the mark. Any thread.

    An OSError is logged, and the tree stays marked for the next opening.
    """
    if not folder.unsettled.exists():
        return
    try:
        sync_file_system(folder.path)
        folder.unsettled.unlink(missing_ok=True)
        sync_dir(folder.path)
    except OSError as error:
        log.warning("the work tree is not synced yet: %s", error)
