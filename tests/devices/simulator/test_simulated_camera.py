"""The simulated camera's loop by itself: what it waits for, and who gets what arrives."""

from __future__ import annotations

import select
from types import SimpleNamespace
from typing import Any

import pytest

from romfsfs.simulator import camera as loop
from romfsfs.simulator import executor, preset
from romfsfs.simulator.camera import GIVE_UP_SECONDS, TX_BUFFER, Camera
from romfsfs.simulator.faults import CameraStopped, Faults, Statistics

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
        self.takes = 512
        self.calls: list[Any] = []
        self.output = b""

    def register(self, poll: Any, *, output: bool, input: bool) -> None:
        self.calls.append(("register", output, input))

    def feed(self, data: bytes) -> int:
        self.calls.append(data)
        return min(len(data), self.takes)

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
        ({"_to_pty": b"x", "is_open": False}, None, None, (True, False)),
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
        owner = {"running": running, "is_open": camera._port}.get(name, camera)
        setattr(owner, name, value)
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
        ("tinyusb", b"abc", {"takes": 0}, [b"abc"], b"abc", False),
        ("tinyusb", b"abc", {"takes": 1}, [b"abc"], b"bc", False),
        ("tinyusb", b"abc", {"takes": 0, "room": 2}, [b"ab"], b"abc", False),
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


class Repl:
    """A REPL that takes all that it is given, and what it was told."""

    busy = False

    def __init__(self) -> None:
        self.told: list[Any] = []

    def process(self, data: bytearray) -> None:
        self.told.append(bytes(data))
        data.clear()

    def finished(self, status: int, error: bytes) -> None:
        self.told.append((status, error))

    def boot(self, *, power_up: bool) -> None:
        self.told.append("power up" if power_up else "boot")


class Asking(Executor):
    """A MicroPython that has something to say, and is told the answers."""

    interrupted = False
    exit_code: int | None = 0

    def answer(self, number: int, value: int) -> None:
        self.calls.append(("answer", number, value))

    def error(self, size: int) -> bytes:
        return b"line\nline\n"[:size]

    def scratch(self, size: int) -> bytes:
        return b"line\nline\n"[:size]

    def leftover(self) -> bytes:
        return b"unread "

    def run(self, source: bytes, kind: int) -> None:
        self.calls.append((source, kind))

    def poll(self) -> bool:
        return False


def test_what_a_snippet_asks_for(made: Any) -> None:
    camera = made(reset_seconds=2.0)
    camera._repl, camera._executor = Repl(), Asking()
    running = camera._executor
    camera._rx += b"typed"
    camera._interrupt_due, running.output = NOW, b"printed"
    camera._frame((executor.DONE, 9, executor.FAILED, 5, 0, 0, 0))
    assert (camera._repl.told, running.calls) == ([(executor.FAILED, b"line\r\n")], [])
    assert (camera._rx, camera._tx, camera._interrupt_due) == (b"unread typed", b"printed", None)
    camera._frame((executor.KBD_INTR, 7, -1, 0, 0, 0, 0))
    assert (running.interrupt_char, running.calls) == (-1, [("answer", 7, 0)])
    camera._frame((executor.READY, 7, 0, 0, 0, 0, 0))
    assert len(running.calls) == 1
    camera._frame((executor.RESET, 8, 1, 0, 0, 0, 0))
    assert (camera._executor, camera._power_on_at, camera._port.is_open) == (None, None, False)
    camera._frame((executor.RESET, 8, 0, 0, 0, 0, 0))
    assert camera._power_on_at is None, "what was said before the power went"
    camera._executor = running
    camera._frame((executor.RESET, 8, 0, 0, 0, 0, 0))
    assert (camera._executor, camera._power_on_at) == (None, NOW + 2.0)


@pytest.mark.parametrize(
    ("command", "counts", "numbers", "asked"),
    [
        (3, 0 << 2 | 2, (8, 16, 0), (3, 1, (8, 16), b"")),
        (4, 6 << 2 | 1, (8, 16, 0), (4, 1, (8,), b"line\nl")),
        (104, 2 << 2 | 3, (8, 16, 24), (104, 1, (8, 16, 24), b"li")),
        (103, 6 << 2 | 1, (2, 0, 0), (103, 1, (2,), b"")), (6, 0, (0, 0, 0), (6, 1, (), b"")),
    ],
)  # fmt: skip
def test_what_is_asked_of_the_flash(
    made: Any, command: int, counts: int, numbers: tuple[int, ...], asked: Any
) -> None:
    """A step is done as soon as the one before it has taken its time; the answer comes last."""
    done: list[Any] = []

    def ioctl(*given: Any) -> Any:
        done.append(given)
        for step in (0.0, 0.5, 0.25):
            yield step
            done.append(step)
        return -5

    camera = made()
    camera.flash = SimpleNamespace(ioctl=ioctl)
    camera._executor = Asking()
    running = camera._executor
    camera._frame((executor.IOCTL, 11, command, 1, counts, *numbers))
    assert done == [asked, 0.0]
    for now, steps in ((0.25, 0), (0.5, 1), (0.625, 1), (0.75, 2)):
        camera._run_operation(NOW + now)
        assert done[2:] == [0.5, 0.25][:steps]
        assert running.calls == ([("answer", 11, -5)] if steps == 2 else [])
    assert camera._operation is None
    camera._operation, camera._executor = (ioctl(), 1, NOW), None
    camera._run_operation(NOW + 9)
    assert camera._operation is None


def test_what_runs_is_counted_but_not_the_scripts_of_a_start(made: Any) -> None:
    camera = made()
    camera._executor = Asking()
    snippets = (executor.SNIPPET, executor.LINE, executor.SNIPPET)
    kinds = (*snippets, executor.BOOT_SCRIPT, executor.MAIN_SCRIPT)
    for kind in kinds:
        camera._interrupted_at = NOW
        camera._execute(b"1", kind)
        assert camera._interrupted_at == 0.0
    assert camera._executor.calls == [(b"1", kind) for kind in kinds]
    assert camera.statistics.execs == 3
    camera._executor = None
    camera._execute(b"1", executor.LINE)


@pytest.mark.parametrize(
    ("state", "silent", "told"),
    [
        ({}, True, []), ({"interrupted": True}, True, []), ({"exit_code": -11}, True, []),
        ({"interrupted": True, "exit_code": -11}, False, ["boot"]),
    ],
)  # fmt: skip
def test_a_micropython_that_has_ended(
    made: Any, state: dict[str, Any], silent: bool, told: list[str]
) -> None:
    """It hangs; or starts anew where only MicroPython for Linux falls apart."""
    camera = made()
    camera._repl, camera._executor = Repl(), Asking()
    camera._new_executor = fresh = Executor
    running = camera._executor
    vars(running).update(state)
    camera._rx += b"typed"
    camera._operation, camera._interrupt_due = (None, 1, NOW), NOW
    camera._check_executor()
    assert (camera.silent, camera._repl.told) == (silent, told)
    assert camera.statistics.soft_resets == len(told)
    if told:
        assert (camera._rx, camera._operation, camera._interrupt_due) == (b"", None, None)
        assert (camera._tx, running.calls) == (b"MPY: soft reboot\r\n", ["stop"])
        assert type(camera._executor) is fresh
    else:
        assert (camera._rx, camera._executor, camera._tx) == (b"typed", running, b"")


def test_a_micropython_that_lives_or_was_replaced_is_let_be(made: Any) -> None:
    camera = made()
    camera._repl, camera._executor = Repl(), Asking()
    camera._executor.poll = lambda: True
    camera._check_executor()
    camera._executor.poll = lambda: setattr(camera, "_executor", None)
    camera._check_executor()
    camera._check_executor()
    assert (camera.silent, camera._repl.told) == (False, [])


@pytest.mark.parametrize(
    ("state", "calls"),
    [
        ({}, "receive check operation consume interrupt send"),
        ({"silent": True}, "receive"), ({"power": NOW + 1}, "receive check operation consume "
                                        "interrupt send"),
        ({"power": NOW}, "on receive check operation consume interrupt send"),
        ({"open": False}, ""), ({"open": False, "power": NOW - 1}, "on"),
    ],
)  # fmt: skip
def test_a_turn_of_the_loop(made: Any, state: dict[str, Any], calls: str) -> None:
    camera = made()
    done: list[str] = []
    camera._port.is_open = state.get("open", True)
    camera.silent = state.get("silent", False)
    camera._power_on_at = state.get("power")
    camera._rx += b"typed"
    for name in ("receive", "run_operation", "consume", "interrupt", "send", "check_executor"):
        short = {"run_operation": "operation", "check_executor": "check"}.get(name, name)
        setattr(camera, f"_{name}", lambda *now, short=short: done.append(short))
    camera.power_on = lambda: done.append("on")
    camera._step(NOW)
    assert " ".join(done) == calls
    assert camera._rx == (b"" if camera.silent else b"typed")


@pytest.mark.parametrize("step", ["_receive", "_send"])
def test_power_that_goes_on_the_wire(made: Any, step: str) -> None:
    camera = made()
    camera.faults.cut_after_wire_bytes(2)
    camera._port.typed = camera._executor.output = b"abc"
    with pytest.raises(CameraStopped):
        getattr(camera, step)(NOW)
    camera.faults.cut_after_wire_bytes(2)
    camera._port.typed = b"abc"
    camera.step(NOW)
    assert (camera._executor, camera._port.is_open) == (None, False)


def test_power_on_is_power_off_first(made: Any) -> None:
    camera = made()
    opened: list[bool] = []
    camera._repl, camera._power_on_at, camera.silent = Repl(), NOW, True
    camera._port.open = lambda: opened.append(camera._port.is_open)
    before, camera._new_executor = camera._executor, Executor
    camera._tx += b"old"
    camera.power_on()
    assert (before.calls, opened, camera._repl.told) == (["stop"], [False], ["power up"])
    assert (camera.statistics.power_ups, camera._power_on_at, camera.silent) == (1, None, False)
    assert (camera._tx, camera._executor.calls) == (b"", [])


def test_a_reset_without_a_micropython(made: Any) -> None:
    camera = made()
    camera._repl, camera._executor, camera._new_executor = Repl(), None, Executor
    camera._soft_reset()
    assert camera._repl.told == ["boot"]
    assert camera._executor.calls == []


def test_what_waits_for_room_on_the_wire(made: Any) -> None:
    """A snippet's output is taken up to so much; what is typed, while the ring has room."""
    camera = made()
    running, limit = camera._executor, 512
    running.output = b"more"
    camera._tx += bytes(TX_BUFFER)
    camera._to_pty = bytes(limit)
    camera._port.room, camera._taken_at = 0, NOW
    camera._send(NOW)
    assert (len(camera._tx), running.output, camera._out.size) == (TX_BUFFER, b"more", 0)
    camera._tx.pop()
    camera._send(NOW)
    assert (len(camera._tx), running.output, camera._out.size) == (TX_BUFFER + 3, b"", 0)
    camera._port.typed = b"x" * limit
    camera._receive(NOW)
    camera._port.typed = b"stays"
    camera._receive(NOW)
    assert (len(camera._rx), camera._port.typed) == (limit, b"stays")
    camera._rx.clear()
    camera._in.push(bytes(limit), NOW + 1)
    assert not camera._takes_input
    camera._in.clear()
    camera._in.push(bytes(limit - 1), NOW + 1)
    assert camera._takes_input


def test_the_repl_gets_what_no_snippet_reads(made: Any) -> None:
    camera = made()
    camera._repl, camera._executor.running = Repl(), False
    camera._rx += b"1+1\r"
    camera._consume(NOW)
    assert (camera._repl.told, camera._rx, camera._executor.calls) == ([b"1+1\r"], b"", [])


def test_a_host_that_takes_nothing_is_given_up_after_a_while(made: Any) -> None:
    camera = made()
    camera._port.room = 0
    camera._executor.output = b"said"
    camera._send(NOW)
    assert (camera._to_pty, camera._taken_at) == (b"said", NOW), "nothing waited before"
    camera._to_pty = bytes(512)
    camera._tx += b"waits"
    camera._send(NOW + GIVE_UP_SECONDS)
    assert (camera._tx, camera.statistics.dropped_output) == (b"", 5)
    assert camera._taken_at == NOW + GIVE_UP_SECONDS


def test_what_is_on_its_way_in_is_waited_for(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    poll = SimpleNamespace(register=lambda fd, events: None, poll=slept.append)
    monkeypatch.setattr(select, "poll", lambda: poll)
    camera = made(latency=1.5)
    camera._in.push(b"x", NOW)
    camera.wait(WAKE)
    camera._out.push(b"x", NOW - 1)
    camera.wait(WAKE)
    assert slept == [1500.0, 500.0]


def test_ctrl_c_in_one_moment_is_one(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "SAME_INTERRUPT", 0.25)
    camera = made()
    camera._interrupted_at = NOW
    for later, due in ((0.25, None), (0.5, NOW + 0.5)):
        camera._note_interrupt(NOW + later)
        assert camera._interrupt_due == due


def test_a_new_micropython_talks_to_its_camera(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []
    monkeypatch.setattr(loop, "Executor", lambda *all: given.append(all) or SimpleNamespace())
    camera = made()
    flash: Any = object()
    parts = camera.config, flash, Faults(camera.statistics), camera.statistics, camera._port
    camera = Camera(*parts, "/bin/micropython")
    assert camera._new_executor().handle == camera._frame
    assert given == [(camera.config, flash, "/bin/micropython")]
