"""The serial port: bytes with deadlines, and pyserial's errors turned into ours.

pyserial raises SerialException, an OSError that often has no errno, and lets termios.error
through; both become DeviceAbsent, DeviceBusy or DeviceLost here, with what to do about it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import termios
import time
from collections.abc import Callable, Iterator

import serial

from romfsfs.errors import DeviceAbsent, DeviceBusy, DeviceError, DeviceLost
from romfsfs.system.programs import processes_using

#: any rate but 921600, which means OpenMV's own protocol (docs/cameras.md, "Serial")
BAUD_RATE = 115200
#: opening and closing an Arduino board's port at this rate starts its boot loader
TOUCH_BAUD_RATE = 1200
#: seconds that one read waits before it looks at its deadline again
_TICK = 0.05
#: seconds after which a write that the camera does not take is given up
_WRITE_TIMEOUT = 10.0
#: bytes that `read_until` keeps: more than any line or prompt that is waited for
_KEPT = 65536
_UNPLUGGED = (
    "plug the camera in again and repeat the command; it continues where it stopped; if a script's "
    "watchdog (machine.WDT) restarts it each time, write through its boot loader, dfu:BOARD"
)


class Port:
    """An open serial port, held exclusively. One thread; every call ends within its time limit.

    DeviceAbsent, DeviceBusy or another DeviceError if it cannot be opened, DeviceLost later.
    sent: bytes written so far."""

    def __init__(self, name: str, *, baud_rate: int = BAUD_RATE) -> None:
        self.name = name
        self.sent = 0
        self._pending = bytearray()
        with _errors(name, opening=True):
            self._serial = serial.Serial(
                name, baud_rate, timeout=_TICK, write_timeout=_WRITE_TIMEOUT, exclusive=True
            )

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of it. DeviceLost if the camera takes none of it for 10 s."""
        with _errors(self.name):
            self._serial.write(data)
        self.sent += len(data)

    def read_some(self, deadline: float) -> bytes:
        """What has arrived, at least one byte; b"" when time.monotonic() reaches `deadline`."""
        if self._pending:
            data = bytes(self._pending)
            self._pending.clear()
            return data
        with _errors(self.name):
            while True:
                data = self._serial.read(max(1, self._serial.in_waiting))
                if data:
                    return bytes(data)
                if time.monotonic() >= deadline:
                    return b""

    def unread(self, data: bytes | bytearray | memoryview) -> None:
        """Put bytes back in front of what comes next."""
        self._pending[:0] = data

    def read_exactly(self, count: int, deadline: float) -> bytes:
        """`count` bytes, or fewer when the deadline passes first."""
        data = bytearray()
        while len(data) < count:
            piece = self.read_some(deadline)
            if not piece:
                break
            data += piece
        if len(data) > count:
            self.unread(memoryview(data)[count:])
            del data[count:]
        return bytes(data)

    def read_until(self, ending: bytes, deadline: float) -> bytes:
        """Everything up to and including `ending`; without it, what came before the deadline.

        If the camera does not stop sending, the last 64 KiB or more of that."""
        data = bytearray()
        searched = 0
        while True:
            found = data.find(ending, searched)
            if found >= 0:
                self.unread(memoryview(data)[found + len(ending) :])
                return bytes(data[: found + len(ending)])
            if len(data) > 2 * _KEPT:
                del data[:-_KEPT]
            searched = max(0, len(data) - len(ending) + 1)
            # a script that prints without end must not keep this from ending
            piece = self.read_some(deadline) if time.monotonic() < deadline else b""
            if not piece:
                return bytes(data)
            data += piece

    def drain(self, quiet: float, limit: float) -> bool:
        """Discard what comes until nothing came for `quiet` seconds, or for `limit` seconds;
        returns whether it became quiet."""
        end = time.monotonic() + limit
        while time.monotonic() + quiet < end:
            if not self.read_some(time.monotonic() + quiet):
                return True
        return False

    def close(self) -> None:
        with contextlib.suppress(OSError, termios.error):
            self._serial.close()


def touch(name: str) -> None:
    """Open and close the port at 1200 baud: an Arduino board starts its boot loader."""
    port = Port(name, baud_rate=TOUCH_BAUD_RATE)
    with contextlib.suppress(OSError, termios.error):
        port._serial.dtr = False
    port.close()


@contextlib.contextmanager
def _errors(name: str, *, opening: bool = False) -> Iterator[None]:
    try:
        yield
    except (OSError, termios.error) as error:
        raise (_opening_error if opening else _io_error)(name, error) from error


def _io_error(name: str, error: BaseException) -> DeviceError:
    if isinstance(error, serial.SerialTimeoutException):
        return DeviceLost(
            "the camera stopped taking data",
            where=name,
            next_step="unplug it, plug it in again and repeat the command",
        )
    return DeviceLost(
        "the camera went away while it was in use",
        where=name,
        next_step=_UNPLUGGED,
        detail=f"{error}",
    )


def _opening_error(name: str, error: BaseException) -> DeviceError:
    number = getattr(error, "errno", None) or 0
    if isinstance(error.__context__, termios.error):  # pyserial keeps only its text
        number = error.__context__.args[0]
    make: Callable[..., DeviceError] = DeviceError
    what = f"cannot open the serial port: {error}"
    next_step = "`romfsfs cameras` lists those connected"
    if number in (errno.ENOENT, errno.ENODEV, errno.ENXIO, errno.EIO):
        make, what = DeviceAbsent, "no such serial port"
        next_step = f"check the cable; {next_step}"
    elif number in (errno.EBUSY, errno.EAGAIN):
        make, what = DeviceBusy, "the serial port is in use" + _by_whom(name)
        next_step = (
            "disconnect it there (in the OpenMV IDE: the plug at the bottom left), or end it"
        )
    elif number == errno.ENOTTY:
        what = "not a serial port"
    elif number in (errno.EACCES, errno.EPERM):
        what, next_step = "no permission to open the serial port", _permission(name)
    return make(what, where=name, next_step=next_step, detail=str(error))


def _by_whom(name: str) -> str:
    """Which other processes hold this port open, as far as we may see them."""
    me = f"(pid {os.getpid()})"
    users = [each for each in processes_using(os.path.realpath(name)) if not each.endswith(me)]
    return f" by {', '.join(users)}" if users else ""


def _permission(name: str) -> str:
    """How this user may open the port: with its group, if it has one other than root."""
    import grp

    with contextlib.suppress(OSError, KeyError):
        group = grp.getgrgid(os.stat(name).st_gid).gr_name
        if group != "root":
            return f"sudo usermod -a -G {group} $USER, then log out and in again"
    return "install OpenMV's udev rules, or run it as a user who may open serial ports"
