"""The loop that takes requests, and how a signal ends a mount, with the kernel's and libfuse's part
played by the test: what is called, in which order."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from romfsfs.fs import ending, request_loop
from romfsfs.fs.ending import Ending
from romfsfs.fs.request_loop import END, NUDGE, RequestLoop

pytestmark = pytest.mark.usefixtures("signals")


# -- the loop


def test_what_takes_a_name_away_is_let_in_one_at_a_time() -> None:
    """<linux/fuse.h>: FUSE_UNLINK, RMDIR, RENAME, LINK and RENAME2 of all opcodes."""
    buffer = ctypes.create_string_buffer(64)
    opcode = ctypes.c_uint32.from_buffer(buffer, 4)
    codes, apart, alone = iter(range(64)), threading.Lock(), []

    def receive(*_: object) -> int:
        opcode.value = next(codes, 0)
        return 40 if opcode.value else 0

    def process(*_: object) -> None:
        if apart.locked():
            alone.append(opcode.value)

    next(codes)
    loop = SimpleNamespace(
        call=SimpleNamespace(receive=receive, process=process), session=0, channel=0, apart=apart,
        asleep=False, ending=False, failed=False,
    )  # fmt: skip
    worker: Any = SimpleNamespace(_loop=loop, _size=64, has_place=True, begun=0, busy=False)
    assert not request_loop._Worker._serve(worker, buffer)
    assert (alone, worker.begun, worker.busy) == ([10, 11, 12, 13, 45], 63, False)


def test_a_new_thread_has_a_place_and_nothing_to_do() -> None:
    loop: Any = SimpleNamespace(
        call=SimpleNamespace(bufsize=lambda channel: channel + 1), channel=7
    )
    worker = request_loop._Worker(loop)
    assert (worker.name, worker.daemon, worker._loop, worker._size) == ("requests", True, loop, 8)
    assert (worker.has_place, worker.begun, worker.busy, worker.has_left) == (True, 0, False, False)


@pytest.mark.parametrize("asleep", [True, False])
def test_a_request_wakes_who_sleeps_and_a_place_that_is_gone_ends_it(asleep: bool) -> None:
    rung: list[bool] = []
    worker: Any = SimpleNamespace(_size=64, has_place=True, begun=0, busy=False)

    def process(*_: object) -> None:
        assert worker.busy
        worker.has_place = worker.begun < 2

    call = SimpleNamespace(receive=lambda *_: 40, process=process)
    worker._loop = loop = SimpleNamespace(
        call=call, session=0, channel=0, apart=threading.Lock(), asleep=asleep, ending=False,
        failed=False, ring=lambda: rung.append(worker.busy),
    )  # fmt: skip
    assert request_loop._Worker._serve(worker, ctypes.create_string_buffer(64))
    assert (worker.begun, rung) == (2, [True, True] if asleep else [])
    worker.has_place, loop.ending = True, True
    assert not request_loop._Worker._serve(worker, ctypes.create_string_buffer(64))
    assert worker.begun == 3, "the request that it has is answered"


class Thread:
    """A worker without a thread."""

    fails = False

    def __init__(self, loop: object) -> None:
        self.has_place, self.begun, self.busy, self.has_left = True, 0, False, False
        self.started = False

    def start(self) -> None:
        if Thread.fails:
            raise RuntimeError("can't start new thread")
        self.started = True


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Iterator[RequestLoop]:
    monkeypatch.setattr(request_loop, "_Worker", Thread)
    monkeypatch.setattr(Thread, "fails", False)
    call: Any = SimpleNamespace(next_chan=lambda *_: 7, exited=lambda session: 0)
    loop = RequestLoop(call, 5)
    yield loop
    for fd in loop._bell:
        os.close(fd)


def test_two_places_are_taken_and_those_that_left_are_forgotten(
    loop: RequestLoop, caplog: pytest.LogCaptureFixture
) -> None:
    assert (loop.session, loop.channel) == (5, 7)
    loop._fill_places()
    first, second = loop._workers
    assert first.started
    assert second.started
    loop._fill_places()
    assert loop._workers == [first, second]
    first.has_place = False  # with a request that lasts
    loop._fill_places()
    assert loop._workers[:2] == [first, second]
    assert len(loop._workers) == 3
    first.has_left = True
    second.has_place = False
    Thread.fails = True
    with caplog.at_level(logging.WARNING):
        loop._fill_places()
    assert [record.message for record in caplog.records] == [
        "a request waits for a thread: can't start new thread"
    ]
    assert first not in loop._workers
    assert len(loop._workers) == 2


def test_who_is_watched_and_when_it_sleeps(
    loop: RequestLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """50 looks at nothing, each of 20 ms; then it waits to be woken. What lasts over a look leaves
    its place to another."""
    pauses: list[float | None] = []
    events: dict[int, Callable[[], object]] = {}
    read: list[int] = []

    def select(readers: list[int], _: object, __: object, pause: float | None) -> Any:
        assert readers == [loop._bell[0]]
        pauses.append(pause)
        assert loop.asleep is (pause is None)
        events.pop(len(pauses), lambda: None)()
        return (readers if pause is None else [], [], [])

    monkeypatch.setattr(request_loop.select, "select", select)
    monkeypatch.setattr(request_loop.os, "read", lambda fd, count: read.append(fd))

    def begin() -> None:
        worker = loop._workers[0]
        worker.begun, worker.busy = worker.begun + 1, True

    def stays() -> None:
        assert all(worker.has_place for worker in loop._workers)

    def finish() -> None:
        assert [worker.has_place for worker in loop._workers] == [False, True, True]
        loop.ending = True

    events |= {51: begin, 52: stays, 53: finish}
    loop._watch()
    # the first look sees the threads themselves for the first time
    assert pauses == [0.02] * 51 + [0.02, 0.02]
    pauses.clear()
    loop.ending, loop._workers = False, []
    events |= {52: lambda: None, 53: lambda: setattr(loop, "ending", True)}
    loop._watch()
    assert pauses == [0.02] * 51 + [None, None]
    assert read == [loop._bell[0]] * 2


def test_one_that_did_not_ring_is_not_slept_through(
    loop: RequestLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float | None] = []
    real = RequestLoop._begun

    def begun(self: RequestLoop) -> Any:
        if self.asleep:
            self._workers[0].begun += 1  # just now
        return real(self)

    def select(*args: Any) -> Any:
        pauses.append(args[3])
        loop.ending = len(pauses) == 53
        return [], [], []

    monkeypatch.setattr(RequestLoop, "_begun", begun)
    monkeypatch.setattr(request_loop.select, "select", select)
    loop._watch()
    assert pauses == [0.02] * 53


def test_the_end_waits_for_all_threads(loop: RequestLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that wait for a request are woken, the others finish theirs."""
    nudged: list[tuple[int, int]] = []
    joined: list[bool] = []
    loop._fill_places()
    for number, worker in enumerate(loop._workers):
        worker.ident, worker.busy = 100 + number, number == 1
        worker.join = lambda: joined.append(loop.may_go.is_set())  # type: ignore[method-assign]

    def pause(seconds: float) -> None:
        assert seconds == 0.005
        first, second = loop._workers
        second.has_left = first.has_left
        first.has_left = len(nudged) >= 2

    monkeypatch.setattr(request_loop.signal, "pthread_kill", lambda *who: nudged.append(who))
    monkeypatch.setattr(request_loop, "time", SimpleNamespace(sleep=pause))
    loop._join()
    assert (nudged, joined) == ([(100, NUDGE)] * 2, [True, True])


@pytest.mark.parametrize(
    ("exited", "failed", "said"), [(0, False, True), (0, True, False), (1, False, True)]
)
def test_what_surrounds_the_watch(
    exited: int, failed: bool, said: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    call: Any = SimpleNamespace(next_chan=lambda *_: 7, exited=lambda session: exited)
    loop = RequestLoop(call, 5)
    reading, _ = loop._bell
    old = os.pipe()
    os.set_blocking(old[1], False)
    before = signal.set_wakeup_fd(old[1])
    try:

        def watch() -> None:
            done.append("watch")
            assert not os.get_blocking(reading)
            signal.raise_signal(signal.SIGUSR1)
            assert os.read(reading, 9) == bytes([signal.SIGUSR1])
            for _ in range(70_000):  # full: it has been rung often enough
                loop.ring()
            assert set(os.read(reading, 1 << 20)) == {0}

        signal.signal(signal.SIGUSR1, loop.end)
        monkeypatch.setattr(loop, "_watch", watch)
        monkeypatch.setattr(loop, "_join", lambda: done.append("join"))
        loop.failed = failed
        assert loop.run() is said
        assert not loop.ending, "the nudge ends nothing"
        assert done == (["join"] if exited else ["watch", "join"])
        for fd in loop._bell:
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.fstat(fd)
    finally:
        assert signal.set_wakeup_fd(before) == old[1]
        for fd in old:
            os.close(fd)
    for number in END:
        loop.ending = False
        loop.end(number, None)
        assert loop.ending
        loop.end(NUDGE, None)
        assert loop.ending


@pytest.mark.parametrize(
    ("fuse", "threaded", "cleanup", "answer", "code", "calls"),
    [
        (0, 1, 0, 0, 1, ["setup"]),
        (9, 0, 0, 0, 0, ["setup", "loop 9", "teardown 9 77"]),
        (9, 0, 0, 5, 1, ["setup", "loop 9", "teardown 9 77"]),
        (9, 1, 0, 1, 0, ["setup", "session 9", "cleanup 9", "run", "stop 9", "teardown 9 77"]),
        (9, 1, 0, 0, 1, ["setup", "session 9", "cleanup 9", "run", "stop 9", "teardown 9 77"]),
        (9, 1, 3, 1, 1, ["setup", "session 9", "cleanup 9", "teardown 9 77"]),
    ],
)  # fmt: skip
def test_what_libfuse_2_is_asked_for_one_after_the_other(
    fuse: int, threaded: int, cleanup: int, answer: int, code: int, calls: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    done: list[str] = []

    def noted(name: str, result: int = 0) -> Callable[..., int]:
        def call(*args: Any) -> int:
            words = [str(getattr(each, "value", each)) for each in args]
            done.append(" ".join([name, *words]))
            return result

        return call

    def setup(count: int, words: str, operations: str, size: int, place: Any, threads: Any,
              data: str) -> int:  # fmt: skip
        assert (count, words, operations, size, data) == (2, "words", "operations", 3, "data")
        done.append("setup")
        place._obj.value, threads._obj.value = 77, threaded
        return fuse

    library: Any = SimpleNamespace(
        setup=setup, loop=noted("loop", answer), teardown=noted("teardown"),
        get_session=noted("session"), start_cleanup=noted("cleanup", cleanup),
        stop_cleanup=noted("stop"),
    )  # fmt: skip

    class Loop:
        def __init__(self, call: object, session: int) -> None:
            assert (call, session) == (library, 0)

        def run(self) -> bool:
            done.append("run")
            assert {signal.getsignal(number) for number in (*END, NUDGE)} == {self.end}
            return bool(answer)

        def end(self, *_: object) -> None:
            pass

    monkeypatch.setattr(request_loop, "_Functions", lambda given: given)
    monkeypatch.setattr(request_loop, "RequestLoop", Loop)
    run = request_loop.main_2(library)
    assert run(2, "words", "operations", 3, "data") == code
    assert done == calls


def test_the_functions_of_libfuse_2(monkeypatch: pytest.MonkeyPatch) -> None:
    """<fuse.h>, <fuse_lowlevel.h>: which are called, with how many arguments, what they give."""
    monkeypatch.setattr(
        request_loop, "function_of",
        lambda library, name, result, *types: (name, getattr(result, "__name__", None), len(types)),
    )  # fmt: skip
    assert vars(request_loop._Functions("library")) == {  # type: ignore[arg-type]
        "setup": ("fuse_setup", "c_void_p", 7), "teardown": ("fuse_teardown", None, 2),
        "get_session": ("fuse_get_session", "c_void_p", 1), "loop": ("fuse_loop", "c_int", 1),
        "start_cleanup": ("fuse_start_cleanup_thread", "c_int", 1),
        "stop_cleanup": ("fuse_stop_cleanup_thread", None, 1),
        "exited": ("fuse_session_exited", "c_int", 1),
        "next_chan": ("fuse_session_next_chan", "c_void_p", 2),
        "bufsize": ("fuse_chan_bufsize", ctypes.c_size_t.__name__, 1),
        "receive": ("fuse_chan_recv", "c_int", 3),
        "process": ("fuse_session_process", None, 4),
    }  # fmt: skip


# -- how a signal ends libfuse 3


def ending_of(monkeypatch: pytest.MonkeyPatch) -> tuple[Ending, list[object]]:
    done: list[object] = []
    functions = {
        "fuse_get_context": lambda: SimpleNamespace(contents=5),
        "fuse_get_session": lambda fuse: fuse + 1,
        "fuse_session_exit": lambda session: done.append(session),
    }
    monkeypatch.setattr(ending, "function_of", lambda library, name, *types: functions[name])
    made: Any = Ending("library")  # type: ignore[arg-type]
    monkeypatch.setattr(ending.signal, "pthread_kill", lambda *who: done.append(who))
    answers = iter([False, True])
    wait = made._over.wait
    made._over.wait = lambda seconds=None: (done.append(seconds), next(answers, wait))[1]
    return made, done


@pytest.mark.parametrize("forgotten", [True, False])
def test_a_loop_is_told_to_end_and_woken_until_it_does(
    forgotten: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, done = ending_of(monkeypatch)
    made.begin()
    if forgotten:
        made.forget()
    made._end()
    woken = (threading.main_thread().ident, NUDGE)
    assert done == [*([] if forgotten else [6]), woken, 0.5, woken, 0.5]


def test_a_signal_that_comes_first_waits_for_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    made, done = ending_of(monkeypatch)
    monkeypatch.setattr(made._begun, "wait", made.begin)
    made._end()
    assert done[0] == 6


def test_which_signals_end_it(monkeypatch: pytest.MonkeyPatch) -> None:
    made, _ = ending_of(monkeypatch)
    ends: list[str] = []
    monkeypatch.setattr(made, "_end", lambda: ends.append("end"))
    for numbers, times in (
        (b"", 0), (bytes([NUDGE]), 0), (bytes([NUDGE, signal.SIGHUP]), 1),
        *((bytes([number]), 1) for number in END),
    ):  # fmt: skip
        ends.clear()
        reading, writing = os.pipe()
        os.write(writing, numbers)
        os.close(writing)
        made._watch(reading)
        assert ends == ["end"] * times
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(reading)


@pytest.mark.parametrize("fails", [True, False])
def test_a_signal_while_libfuse_runs_is_heard(fails: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    made, _ = ending_of(monkeypatch)
    heard: list[bytes] = []
    listened = threading.Event()

    def listen(reading: int) -> None:
        with open(reading, "rb", 0) as numbers:
            heard.extend(iter(lambda: numbers.read(1), b""))
        listened.set()

    def runs(*words: object) -> int:
        assert words == ("a", 1)
        for number in (signal.SIGTERM, NUDGE):
            signal.raise_signal(number)
        if fails:
            raise ZeroDivisionError
        return 7

    monkeypatch.setattr(made, "_watch", listen)
    before = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(before)
    if fails:
        with pytest.raises(ZeroDivisionError):
            made.around(runs)("a", 1)
    else:
        assert made.around(runs)("a", 1) == 7
    assert listened.wait(30)
    assert heard == [bytes([signal.SIGTERM]), bytes([NUDGE])]
    assert made._over.is_set()
    assert signal.set_wakeup_fd(before) == before
