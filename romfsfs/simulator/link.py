"""The wire of a simulated camera: a pty, and the speed and delay of each direction.

Belongs to the camera's thread. Sizes in bytes, times in seconds of the monotonic clock.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pty
import termios
import tty
from collections import deque

from romfsfs.errors import UsageError

#: bytes that travel together when the rate is limited; smaller is smoother and slower to simulate
PIECE = 512
#: at this rate the firmware speaks OpenMV's own protocol (docs/cameras.md, "Serial")
IDE_BAUD_RATE = getattr(termios, "B921600", -1)


class Line:
    """One direction of the link. rate: bytes a second, None: unlimited. latency: seconds."""

    def __init__(self, rate: float | None, latency: float) -> None:
        self._rate = rate
        self._latency = latency
        self._pieces: deque[tuple[float, bytes]] = deque()
        self._busy_until = 0.0
        self.size = 0

    def push(self, data: bytes, now: float) -> None:
        if not data:
            return
        self.size += len(data)
        if self._rate is None:
            self._pieces.append((now + self._latency, data))
            return
        for start in range(0, len(data), PIECE):
            piece = data[start : start + PIECE]
            self._busy_until = max(self._busy_until, now) + len(piece) / self._rate
            self._pieces.append((self._busy_until + self._latency, piece))

    def pop(self, now: float) -> bytes:
        """What has arrived by now."""
        pieces = []
        while self._pieces and self._pieces[0][0] <= now:
            pieces.append(self._pieces.popleft()[1])
        data = b"".join(pieces)
        self.size -= len(data)
        return data

    @property
    def due(self) -> float | None:
        """When something arrives next; None: nothing is on the way."""
        return self._pieces[0][0] if self._pieces else None

    def clear(self) -> None:
        self._pieces.clear()
        self.size = 0


class Port:
    """The pty that the host opens, under a symbolic link that stays the same over a re-plug."""

    def __init__(self, link: str | os.PathLike[str]) -> None:
        self.link = os.path.abspath(os.fspath(link))
        self.fd = -1
        self._slave = -1

    @property
    def is_open(self) -> bool:
        return self.fd >= 0

    def open(self) -> None:
        """Plug in: make a new raw pty and point the link at it. UsageError if a file is there."""
        if os.path.lexists(self.link) and not os.path.islink(self.link):
            raise UsageError("the port's link would replace a file", where=self.link)
        master, slave = pty.openpty()
        tty.setraw(slave)
        os.set_blocking(master, False)
        temporary = f"{self.link}.{os.getpid()}.tmp"
        try:
            os.symlink(os.ttyname(slave), temporary)
            os.replace(temporary, self.link)
        except OSError:
            os.close(slave)
            os.close(master)
            raise
        self._slave = slave
        self.fd = master

    def close(self) -> None:
        """Unplug: whoever has the port open gets end of file or EIO. May be called twice."""
        if not self.is_open:
            return
        master, slave = self.fd, self._slave
        self.fd = self._slave = -1
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.link)
        # The slave was held open so that the pty kept its settings while no host had it open.
        os.close(slave)
        os.close(master)

    @property
    def speaks_ide_protocol(self) -> bool:
        """Has the host set the rate at which the firmware leaves the REPL?"""
        return bool(termios.tcgetattr(self._slave)[5] == IDE_BAUD_RATE)

    def read(self) -> bytes:
        try:
            return os.read(self.fd, 65536)
        except BlockingIOError:
            return b""
        except OSError as error:
            if error.errno == errno.EIO:
                return b""
            raise

    def write(self, data: bytes) -> int:
        try:
            return os.write(self.fd, data)
        except BlockingIOError:
            return 0
