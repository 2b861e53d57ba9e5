"""The simulated camera's loop by itself: what it waits for, and who gets what arrives."""

from __future__ import annotations

import select
from typing import Any

import pytest

from romfsfs.simulator import camera as loop
from romfsfs.simulator import preset
from romfsfs.simulator.camera import GIVE_UP_SECONDS, TX_BUFFER, Camera
from romfsfs.simulator.faults import Faults, Statistics

IN, OUT = select.POLLIN, select.POLLOUT
WAKE, PORT = 5, 7
NOW = 100.0


class Port:
    """A pty that takes so many bytes at a time."""

    fd = PORT
    is_open = True
    speaks_ide_protocol = False

    def __init__(self) -> None:
        self.typed = b""
        self.said = b""
        self.room = 1 << 20

    def read(self) -> bytes:
        data, self.typed = self.typed, b""
        return data

    def write(self, data: bytes) -> int:
        self.said += data[: self.room]
        return min(len(data), self.room)

    def close(self) -> None:
        self.is_open = False


class Executor:
    """A MicroPython that runs a snippet, and the ring of its input."""

    def __init__(self) -> None:
        self.running = True
        self.room = 512
        self.interrupt_char = 3
        self.takes = True
        self.calls: list[Any] = []
        self.output = b""

    def register(self, poll: Any, *, output: bool, input: bool) -> None:
        self.calls.append(("register", output, input))

    def feed(self, data: bytes) -> bool:
        self.calls.append(data)
        return self.takes

    def leftover(self) -> bytes:
        self.calls.append("emptied")
        return b""

    def interrupt(self) -> None:
        self.calls.append("interrupt")

    def read_some(self) -> bytes:
        data, self.output = self.output, b""
        return data

    read_output = read_some

    def stop(self) -> None:
        self.calls.append("stop")


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`made()`: a camera that is on, with its parts as they are here."""
    monkeypatch.setattr("romfsfs.simulator.camera.time.monotonic", lambda: NOW)

    def make(**config: Any) -> Any:
        statistics = Statistics()
        port: Any = Port()
        flash: Any = None
        camera: Any = Camera(
            preset("OPENMV4P", **config), flash, Faults(statistics), statistics, port, ""
        )
        camera._executor = Executor()
        return camera

    return make


@pytest.mark.parametrize(
    ("state", "polled", "seconds", "executor"),
    [
        ({}, IN, None, (True, False)),
        ({"_executor": None}, IN, None, None),
        ({"_power_on_at": NOW + 2, "_executor": None}, IN, 2.0, None),
        ({"_power_on_at": NOW - 2}, IN, 0.0, (True, False)),
        ({"_rx": bytearray(512), "running": False}, None, None, (True, True)),
        ({"_rx": bytearray(511)}, IN, loop.RING_SECONDS, (True, True)),
        ({"_to_pty": b"x"}, IN | OUT, None, (True, False)),
        ({"_to_pty": b"x", "silent": True}, IN, None, None),
        ({"_to_pty": b"x", "_stalled_until": NOW + 1}, IN, 1.0, (True, False)),
        ({"_rx": bytearray(512), "_to_pty": b"x"}, OUT, loop.RING_SECONDS, (True, True)),
        ({"_tx": bytearray(1)}, IN, 0.0, (True, False)),
        ({"_tx": bytearray(TX_BUFFER)}, IN, 0.0, (False, False)),
        ({"_tx": bytearray(1), "_to_pty": bytes(512), "_taken_at": NOW}, IN | OUT,
         GIVE_UP_SECONDS, (True, False)),
        ({"_operation": (None, 1, NOW + 3), "_interrupt_due": NOW + 1}, IN, 3.0, (True, False)),
        ({"_interrupt_due": NOW + 1}, IN, 1.0, (True, False)),
        ({"_interrupt_due": NOW + 1, "silent": True}, IN, None, None),
    ],
)  # fmt: skip
def test_what_is_waited_for(
    made: Any, monkeypatch: pytest.MonkeyPatch, state: dict[str, Any], polled: int | None,
    seconds: float | None, executor: tuple[bool, bool] | None,
) -> None:  # fmt: skip
    """And no more: what is ready all the time would have it turn without end."""
    camera = made()
    running = camera._executor
    for name, value in state.items():
        setattr(running if name == "running" else camera, name, value)
    registered: dict[int, int] = {}
    slept: list[float | None] = []

    class Poll:
        def register(self, fd: int, events: int) -> None:
            registered[fd] = events

        def poll(self, milliseconds: float | None) -> None:
            slept.append(None if milliseconds is None else milliseconds / 1000)

    monkeypatch.setattr(select, "poll", Poll)
    camera.wait(WAKE)
    assert registered == {WAKE: IN, **({} if polled is None else {PORT: polled})}
    assert slept == [seconds if seconds is None else pytest.approx(seconds)]
    assert running.calls == ([] if executor is None else [("register", *executor)])


def test_a_line_on_its_way_is_waited_for(made: Any) -> None:
    camera = made(latency=0.5)
    camera._port.typed = b"abc"
    camera._receive(NOW)
    assert (camera._rx, camera._in.due) == (b"", NOW + 0.5)
    camera._receive(NOW + 0.5)
    assert camera._rx == b"abc"
    camera._port.speaks_ide_protocol = True
    camera._port.typed = b"not for the REPL"
    camera._receive(NOW + 1)
    camera._receive(NOW + 2)
    assert camera._rx == b"abc"


LONG = bytes(range(65, 91)) * 4


@pytest.mark.parametrize(
    ("usb", "typed", "state", "calls", "left", "interrupted"),
    [
        ("tinyusb", b"ab", {}, [b"ab"], b"", False),
        ("tinyusb", b"ab\x03cd\x03e", {}, ["emptied", b"e"], b"", True),
        ("tinyusb", b"ab\x03", {}, ["emptied"], b"", True),
        ("tinyusb", b"ab\x03", {"interrupt_char": -1}, [b"ab\x03"], b"", False),
        ("tinyusb", b"a\x04", {"interrupt_char": 4}, ["emptied"], b"", True),
        ("tinyusb", b"\x00a", {"interrupt_char": 0}, ["emptied", b"a"], b"", True),
        ("tinyusb", b"abc", {"room": 0}, [], b"abc", False),
        ("tinyusb", b"abc", {"room": 1}, [b"a", b"b", b"c"], b"", False),
        ("tinyusb", b"abc", {"takes": False}, [b"abc"], b"abc", False),
        ("stm32", LONG, {}, [LONG[:64], LONG[64:]], b"", False),
        ("stm32", b"a\x03b\x03", {}, [b"ab"], b"", True),
        ("stm32", b"\x03", {}, [], b"", True),
        ("stm32", b"ab", {"room": 64}, [], b"ab", False),
        ("stm32", b"ab", {"room": 65}, [b"ab"], b"", False),
    ],
)  # fmt: skip
def test_who_gets_what_arrives(
    made: Any, usb: str, typed: bytes, state: dict[str, Any], calls: list[Any], left: bytes,
    interrupted: bool,
) -> None:  # fmt: skip
    camera = made(usb=usb)
    running = camera._executor
    vars(running).update(state)
    camera._rx += typed
    camera._consume(NOW)
    assert running.calls == calls
    assert camera._rx == left
    assert camera.statistics.interrupts == interrupted
    assert camera._interrupt_due == (NOW if interrupted else None)
    camera._executor = None
    camera._consume(NOW)
    assert camera._rx == left


def test_ctrl_c_is_felt_once_and_not_in_the_middle_of_the_flash(made: Any) -> None:
    camera = made()
    running = camera._executor
    camera._interrupt(NOW)
    camera._note_interrupt(NOW)
    camera._operation = (None, 1, NOW)
    camera._interrupt(NOW)
    assert running.calls == []
    camera._operation = None
    camera._interrupt(NOW)
    assert (running.calls, camera._interrupt_due) == (["interrupt"], None)
    camera._note_interrupt(NOW + loop.SAME_INTERRUPT / 2)
    assert camera._interrupt_due is None, "the firmware notes that there was one, not how many"
    camera._note_interrupt(NOW + loop.SAME_INTERRUPT * 2)
    assert camera._interrupt_due == NOW + loop.INTERRUPT_PAUSE
    camera._interrupt(NOW + loop.INTERRUPT_PAUSE / 2)
    assert running.calls == ["interrupt"]
    running.running = False
    camera._interrupt(NOW + 1)
    assert (running.calls, camera._interrupt_due) == (["interrupt"], None)
    assert camera.statistics.interrupts == 3


def test_output_that_the_host_does_not_take_is_lost_after_a_while(made: Any) -> None:
    camera = made()
    running, port = camera._executor, camera._port
    running.output = b"hello"
    camera._send(NOW)
    assert (port.said, camera._stalled_until) == (b"hello", None)
    port.room = 0
    running.output = b"stuck"
    camera._send(NOW + 1)
    assert (camera._to_pty, camera._stalled_until) == (b"stuck", NOW + 1 + loop.STALL_SECONDS)
    camera._tx += b"waits"
    running.output = b"runs on"
    camera._give_up(NOW + 1 + GIVE_UP_SECONDS / 2)
    assert (bytes(camera._tx), camera.statistics.dropped_output) == (b"waits", 0)
    camera._give_up(NOW + 1 + GIVE_UP_SECONDS)
    assert (bytes(camera._tx), camera.statistics.dropped_output) == (b"", 12)
    assert (camera._to_pty, camera._taken_at) == (b"stuck", NOW + 1 + GIVE_UP_SECONDS)
    port.room = 2
    camera._send(NOW + 2)
    assert (port.said, camera._to_pty) == (b"hellost", b"uck")
    assert (camera._stalled_until, camera._taken_at) == (None, NOW + 2)
    port.speaks_ide_protocol = True
    camera._send(NOW + 3)
    assert (port.said, camera._to_pty) == (b"hellost", b"")


@pytest.mark.parametrize(
    ("config", "limit"),
    [({}, 512.0), ({"rate": 1000.0}, 512.0), ({"rate": 100_000.0}, 2000.0),
     ({"rate": 100_000.0, "latency": 0.08}, 10_000.0), ({"latency": 9.0}, 512.0)],
)  # fmt: skip
def test_how_much_is_under_way(made: Any, config: dict[str, float], limit: float) -> None:
    camera = made(**config)
    assert camera._line_limit == pytest.approx(limit)
    camera._to_pty = bytes(int(limit) - 1)
    assert camera._has_output_room
    camera._to_pty = bytes(int(limit))
    assert not camera._has_output_room


def test_without_power_nothing_is_left(made: Any) -> None:
    camera = made()
    running = camera._executor
    for _ in range(2):
        camera._rx += b"a"
        camera._tx += b"b"
        camera._to_pty, camera._operation, camera._interrupt_due = b"c", (None, 1, 1.0), 2.0
        camera._in.push(b"d", NOW)
        camera._out.push(b"e", NOW)
        camera.power_off()
        assert (camera._rx, camera._tx, camera._to_pty) == (b"", b"", b"")
        assert (camera._executor, camera._operation, camera._interrupt_due) == (None, None, None)
        assert (camera._in.size, camera._out.size, camera._port.is_open) == (0, 0, False)
    assert running.calls == ["stop"]
