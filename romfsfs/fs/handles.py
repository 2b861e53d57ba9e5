"""The files open through a mount, and their names.

A handle's number is the descriptor itself, so that reading needs no look-up here. The names
follow renames: commit asks which files are open for writing, a file's size limit depends on its
name, and an unlinked file is removed with its last handle.
"""

from __future__ import annotations

import os
import threading
from collections import Counter


class Handle:
    """An open file. path: libfuse's; None once the file is unlinked, and then `hidden` is its name
    in the folder for such files. limit: most bytes it may have; None: converted or never packed.
    changed: its content changed, and the session was not told yet."""

    __slots__ = ("changed", "fd", "hidden", "inode", "limit", "path", "writable")

    def __init__(self, fd: int, path: str, writable: bool, limit: int | None) -> None:
        self.fd = fd
        self.inode = os.fstat(fd).st_ino
        self.path: str | None = path
        self.hidden: bytes | None = None
        self.writable = writable
        self.limit = limit
        self.changed = False


class Handles:
    """All open files of a mount. Any thread."""

    def __init__(self) -> None:
        self._open: dict[int, Handle] = {}
        self._writing: Counter[int] = Counter()  # handles that may write, by inode
        self._lock = threading.Lock()  # held for bookkeeping only, never for a system call
        self.get = self._open.get  # by descriptor; the hot path of writes, atomic under the GIL

    def add(self, handle: Handle) -> bool:
        """Add a handle. Returns whether another handle has its file open for writing."""
        with self._lock:
            self._open[handle.fd] = handle
            written = self._writing[handle.inode] > 0
            if handle.writable:
                self._writing[handle.inode] += 1
            return written

    def remove(self, fd: int) -> tuple[Handle | None, bytes | None]:
        """Remove the handle of `fd`, before that is closed. Returns (the handle, its hidden name if
        no other handle has it); each may be None."""
        with self._lock:
            handle = self._open.pop(fd, None)
            if handle is not None and handle.writable:
                self._writing[handle.inode] -= 1
                if not self._writing[handle.inode]:
                    del self._writing[handle.inode]
            if handle is None or handle.hidden is None:
                return handle, None
            last = all(other.hidden != handle.hidden for other in self._open.values())
            return handle, handle.hidden if last else None

    def hide(self, path: str, hidden: bytes) -> bool:
        """The file at `path` was unlinked. Returns whether it is open at all."""
        with self._lock:
            found = [handle for handle in self._open.values() if handle.path == path]
            for handle in found:
                handle.path, handle.hidden, handle.limit = None, hidden, None
            return bool(found)

    def reveal(self, hidden: bytes, path: str) -> list[Handle]:
        """An unlinked file got a name again. Returns its handles, whose limits may have changed."""
        with self._lock:
            found = [handle for handle in self._open.values() if handle.hidden == hidden]
            for handle in found:
                handle.path, handle.hidden = path, None
            return found

    def move(self, moves: dict[str, str]) -> list[Handle]:
        """Files or folders have new names. Returns the handles that moved with them."""
        moved = []
        with self._lock:
            for handle in self._open.values():
                path = handle.path
                if path is None:
                    continue
                for old, new in moves.items():
                    if path == old or path.startswith(old + "/"):
                        handle.path = new + path[len(old) :]
                        moved.append(handle)
        return moved

    def writers(self) -> list[str]:
        """The paths open for writing, each once, sorted."""
        with self._lock:
            return sorted(
                {h.path for h in self._open.values() if h.writable and h.path is not None}
            )
