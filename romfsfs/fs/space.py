"""Whether the partition has room for what files grow by, where that is certain before a commit."""

from __future__ import annotations

import errno
import threading
from typing import TYPE_CHECKING

from romfsfs.fs.tree import refuse

if TYPE_CHECKING:
    from romfsfs.session.service import SessionHost


class Space:
    """Any thread. Sizes in bytes.

    The room is a guess, kept without a look at the tree: what files grow by makes it smaller, what
    they free makes it larger. Only a count of the tree refuses, and it is not made again before
    something changes that could make it smaller.
    """

    def __init__(self, host: SessionHost) -> None:
        self._host = host
        self._room = 0
        self._counted = False
        self._lock = threading.Lock()

    def take(self, size: int, capacity: int) -> None:
        """A file that is stored as it is grows by so much. ENOSPC where there is no room."""
        with self._lock:
            if size > self._room and not self._counted:
                self._room, self._counted = capacity - self._host.least(), True
            if size > self._room:
                raise refuse(errno.ENOSPC)
            self._room -= size
            self._counted = False

    def give(self, size: int) -> None:
        """So much was freed, as far as is known; negative: it is taken."""
        with self._lock:
            self._room += size
            self._counted = False
