"""The serial port, on a port in memory: how it is opened, what is waited for, what is said."""

from __future__ import annotations

import errno
import os
import termios
from types import SimpleNamespace
from typing import Any

import pytest
import serial
from camera_helpers import Clock

from romfsfs.devices.serial_camera import port as ports
from romfsfs.devices.serial_camera.port import Port, touch
from romfsfs.errors import DeviceAbsent, DeviceBusy, DeviceError, DeviceLost

#: what a read of nothing takes, in numbers that add up exactly
TICK = 0.0625
LISTS = "`romfsfs cameras` lists those connected"


class Line:
    """pyserial's part: pieces that come, each with how long it takes, and what is asked."""

    def __init__(self, clock: Clock, *pieces: tuple[float, bytes]) -> None:
        self.clock = clock
        self.pieces = list(pieces)
        self.calls: list[Any] = []
        self.dtr: bool | None = None
        self.error: BaseException | None = None

    def opened(self, *arguments: Any, **options: Any) -> Line:
        self.calls.append((arguments, options))
        return self._do()

    def _do(self) -> Line:
        if self.error is not None:
            raise self.error
        return self

    @property
    def in_waiting(self) -> int:
        return len(self._do().pieces[0][1]) if self.pieces and self.pieces[0][0] <= 0 else 0

    def read(self, count: int) -> bytes:
        self._do().calls.append(count)
        wait, data = self.pieces.pop(0) if self.pieces else (TICK, b"")
        self.clock.now += min(max(wait, 0), TICK)
        if wait > TICK:
            self.pieces.insert(0, (wait - TICK, data))
            return b""
        if data[count:]:
            self.pieces.insert(0, (0, data[count:]))
        return data[:count]

    def write(self, data: bytes) -> None:
        self._do().calls.append(bytes(data))

    def close(self) -> None:
        self.calls.append(("close", self.dtr))
        self._do()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(ports, "time", made)
    return made


@pytest.fixture
def line(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Line:
    made = Line(clock)
    monkeypatch.setattr(ports.serial, "Serial", made.opened)
    return made


def test_how_a_port_is_opened_written_to_and_closed(line: Line) -> None:
    port = Port("ttyX")
    options = {"timeout": 0.05, "write_timeout": 10.0, "exclusive": True}
    assert line.calls == [(("ttyX", 115200), options)]
    assert (port.name, port.sent) == ("ttyX", 0)
    port.write(b"abc")
    port.write(memoryview(b"de"))
    assert (port.sent, line.calls[1:]) == (5, [b"abc", b"de"])
    for error in (None, OSError(5, "gone"), termios.error(5, "gone")):
        line.error = error
        port.close()
    assert line.calls[3:] == [("close", None)] * 3
    line.calls.clear()
    line.error = None
    touch("ttyY")
    assert line.calls == [(("ttyY", 1200), options), ("close", False)]


@pytest.mark.parametrize("error", [OSError(5, "gone"), termios.error(5, "gone")])
def test_a_touched_port_may_go_at_once(line: Line, error: Exception) -> None:
    class Going(Line):
        @property
        def dtr(self) -> bool:
            return True

        @dtr.setter
        def dtr(self, value: bool | None) -> None:
            if value is not None:
                raise error

    line.__class__ = Going
    touch("ttyX")
    assert line.calls[-1] == ("close", True)


def test_what_has_come_is_taken_at_once_and_waited_for_to_the_deadline(line: Line) -> None:
    clock = line.clock
    port = Port("ttyX")
    line.calls.clear()
    line.pieces += [(0, b"abc"), (0.125, b"d"), (0, b"ef")]
    assert port.read_some(0.0) == b"abc"
    assert line.calls == [3]
    assert port.read_some(101.0) == b"d"
    assert (line.calls, clock.now) == ([3, 1, 1], 100.125)
    port.unread(b"34")
    port.unread(memoryview(b"12"))
    assert port.read_some(0.0) == b"1234", "what was put back comes first"
    assert port.read_some(0.0) == b"ef"
    clock.now = 200.0
    assert port.read_some(200.1875) == b""
    assert clock.now == 200.1875
    assert port.read_some(200.0) == b"", "looked at once"
    assert clock.now == 200.25


def test_as_many_bytes_as_are_asked_for(line: Line) -> None:
    port = Port("ttyX")
    line.pieces += [(0, b"ab"), (0, b"cdef")]
    assert port.read_exactly(0, 101.0) == b""
    assert port.read_exactly(3, 101.0) == b"abc"
    assert port.read_exactly(3, 101.0) == b"def"
    assert port.read_some(0.0) == b"", "nothing is left"
    line.pieces.append((0, b"gh"))
    line.clock.now = 100.0
    assert port.read_exactly(3, 100.25) == b"gh"
    assert line.clock.now == 100.25


@pytest.mark.parametrize(
    ("pieces", "found", "rest"),
    [
        ([b"one>>>two"], b"one>>>", b"two"), ([b"one>", b">", b">two"], b"one>>>", b"two"),
        ([b">>", b"x>>", b">"], b">>x>>>", b""), ([b">>>", b"x"], b">>>", b"x"),
        ([b"one", b">>"], b"one>>", b""), ([], b"", b""),
    ],
    ids=range(6),
)  # fmt: skip
def test_all_up_to_an_ending(line: Line, pieces: list[bytes], found: bytes, rest: bytes) -> None:
    """However it is cut; what follows is left; without it, all there is at the deadline."""
    port = Port("ttyX")
    line.pieces += [(0, piece) for piece in pieces]
    assert port.read_until(b">>>", 100.1) == found
    assert line.clock.now < 100.2
    left = port.read_some(0.0)
    assert left == (rest if b">>>" in found else b"")


def test_of_what_comes_without_end_the_last_is_kept(line: Line) -> None:
    port = Port("ttyX")
    for count, kept in ((2 * 65536, 2 * 65536), (2 * 65536 + 1, 65536)):
        line.pieces += [(0, b"a" * (count - 1) + b"b")]
        line.clock.now = 100.0
        heard = port.read_until(b"\n", 100.01)
        assert (len(heard), heard[-2:]) == (kept, b"ab")
    line.clock.now = 100.0
    line.pieces += [(0, b"x\n")]
    assert port.read_until(b"\n", 100.0) == b"", "nobody waits any more"


@pytest.mark.parametrize(
    ("pieces", "limit", "quiet", "seconds"),
    [
        ([], 1.0, True, 0.1875), ([(0, b"a"), (0.125, b"b")], 1.0, True, 0.3125),
        ([(0.125, b"a")] * 20, 1.0, False, 0.875), ([], 0.1875, False, 0.0),
        ([], 0.25, True, 0.1875),
    ],
    ids=range(5),
)  # fmt: skip
def test_what_comes_is_thrown_away_until_it_is_quiet(
    line: Line, pieces: list[tuple[float, bytes]], limit: float, quiet: bool, seconds: float
) -> None:
    port = Port("ttyX")
    line.pieces += pieces
    assert port.drain(0.1875, limit) == quiet
    assert line.clock.now == 100 + seconds


UNPLUGGED = (
    "the camera went away while it was in use (ttyX); plug the camera in again and repeat the "
    "command; it continues where it stopped; if a script's watchdog (machine.WDT) restarts it each "
    "time, write through its boot loader, dfu:BOARD"
)
STUCK = "the camera stopped taking data (ttyX); unplug it, plug it in again and repeat the command"


@pytest.mark.parametrize(
    ("error", "said", "detail"),
    [
        (serial.SerialException("read failed"), UNPLUGGED, "read failed"),
        (OSError(5, "Input/output error"), UNPLUGGED, "[Errno 5] Input/output error"),
        (termios.error(5, "gone"), UNPLUGGED, "(5, 'gone')"),
        (serial.SerialTimeoutException("Write timeout"), STUCK, ""),
    ],
)  # fmt: skip
def test_a_camera_that_goes_away_while_it_is_used(
    line: Line, error: Exception, said: str, detail: str
) -> None:
    port = Port("ttyX")
    line.error = error
    for work in (lambda: port.write(b"x"), lambda: port.read_some(0.0)):
        with pytest.raises(DeviceLost) as caught:
            work()
        assert (caught.value.line, caught.value.detail) == (said, detail)
    assert port.sent == 0


def opening(number: int | None, text: str, wrapped: bool = False) -> serial.SerialException:
    """As pyserial raises it; of termios's errors it only tells the text."""
    if not wrapped:
        error = serial.SerialException(text)
        error.errno = number
        return error
    try:
        try:
            raise termios.error(number, text)
        except termios.error as inner:
            raise serial.SerialException(f"Could not configure port: {inner}")  # noqa: B904
    except serial.SerialException as outer:
        return outer


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize(
    ("number", "kind", "line_"),
    [
        (errno.ENOENT, DeviceAbsent, f"no such serial port (ttyX); check the cable; {LISTS}"),
        (errno.ENODEV, DeviceAbsent, f"no such serial port (ttyX); check the cable; {LISTS}"),
        (errno.ENXIO, DeviceAbsent, f"no such serial port (ttyX); check the cable; {LISTS}"),
        (errno.EIO, DeviceAbsent, f"no such serial port (ttyX); check the cable; {LISTS}"),
        (errno.EBUSY, DeviceBusy, "the serial port is in use by mpremote (pid 7), x (pid 9) (ttyX);"
         " disconnect it there (in the OpenMV IDE: the plug at the bottom left), or end it"),
        (errno.EAGAIN, DeviceBusy, "the serial port is in use by mpremote (pid 7), x (pid 9) "
         "(ttyX); disconnect it there (in the OpenMV IDE: the plug at the bottom left), or end it"),
        (errno.ENOTTY, DeviceError, f"not a serial port (ttyX); {LISTS}"),
        (errno.EACCES, DeviceError, "no permission to open the serial port (ttyX); the way"),
        (errno.EPERM, DeviceError, "no permission to open the serial port (ttyX); the way"),
        (errno.EINVAL, DeviceError, f"cannot open the serial port: {{}} (ttyX); {LISTS}"),
        (None, DeviceError, f"cannot open the serial port: {{}} (ttyX); {LISTS}"),
    ],
)  # fmt: skip
def test_a_port_that_cannot_be_opened(
    line: Line, monkeypatch: pytest.MonkeyPatch, number: int | None, kind: type[DeviceError],
    line_: str, wrapped: bool,
) -> None:  # fmt: skip
    me = f"romfsfs (pid {os.getpid()})"
    users = ["mpremote (pid 7)", me, "x (pid 9)"]
    monkeypatch.setattr(ports, "processes_using", lambda path: users)
    monkeypatch.setattr(ports, "_permission", lambda name: "the way" if name == "ttyX" else "")
    if wrapped and number is None:
        return
    line.error = opening(number, "why", wrapped)
    with pytest.raises(DeviceError) as caught:
        Port("ttyX")
    assert type(caught.value) is kind
    assert caught.value.line == line_.format(line.error)
    assert caught.value.detail == str(line.error)
    users[:] = [me]
    assert ports._by_whom("ttyX") == ""


@pytest.mark.parametrize(
    ("group", "way"),
    [
        ("dialout", "sudo usermod -a -G dialout $USER, then log out and in again"),
        ("root", "install OpenMV's udev rules, or run it as a user who may open serial ports"),
        (None, "install OpenMV's udev rules, or run it as a user who may open serial ports"),
    ],
)
def test_how_a_user_may_open_a_port(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any, group: str | None, way: str
) -> None:
    def named(number: int) -> Any:
        assert number == tmp_path.stat().st_gid
        if group is None:
            raise KeyError(number)
        return SimpleNamespace(gr_name=group)

    monkeypatch.setattr("grp.getgrgid", named)
    assert ports._permission(str(tmp_path)) == way
    assert ports._permission(str(tmp_path / "gone")).startswith("install OpenMV's udev rules")
