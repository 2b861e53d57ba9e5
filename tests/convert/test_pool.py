"""Background workers: nothing lost, nothing stale, nothing left running."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import ClassVar

import pytest
from convert_helpers import open_bytes

from romfsfs.convert import (
    Cancelled,
    Conversion,
    Converters,
    StaleSource,
    State,
    Target,
    WorkerPool,
    pool,
    script,
)
from romfsfs.convert.types import error
from romfsfs.system.runner import run_tool


def ready(path: str) -> Conversion:
    return Conversion(State.READY, path)


class Results:
    def __init__(self) -> None:
        self.all: list[Conversion] = []

    def __call__(self, path: str, result: Conversion) -> None:
        assert result.stored_path == path
        self.all.append(result)


@pytest.fixture
def results() -> Results:
    return Results()


def test_every_path_is_done_once_on_a_bounded_number_of_threads(results):
    busy: set[int] = set()
    most = 0

    def work(path, cancel):
        nonlocal most
        busy.add(threading.get_ident())
        most = max(most, len(busy))
        time.sleep(0.002)
        busy.discard(threading.get_ident())
        return ready(path)

    pool = WorkerPool(work, results, workers=3)
    for number in range(60):
        pool.submit(f"{number}.py")
    assert pool.wait_idle(60)
    assert sorted(each.stored_path for each in results.all) == sorted(f"{n}.py" for n in range(60))
    assert 1 < most <= 3
    assert pool.pending() == frozenset()
    pool.close()


def test_submitting_a_queued_path_again_changes_nothing(results):
    gate = threading.Event()
    pool = WorkerPool(lambda path, cancel: gate.wait(60) and ready(path), results, workers=1)
    pool.submit("first.py")
    for _ in range(5):
        pool.submit("second.py")
    assert pool.pending() == {"first.py", "second.py"}
    assert not pool.wait_idle(0.05)
    gate.set()
    assert pool.wait_idle(60)
    assert [each.stored_path for each in results.all] == ["first.py", "second.py"]
    pool.close()


def test_newer_contents_supersede_the_work_in_progress(results):
    contents = ["old"]
    started = threading.Event()

    def work(path, cancel):
        seen = contents[-1]
        started.set()
        if seen == "old":
            assert cancel.wait(60)
            raise Cancelled("stopped")
        return Conversion(State.READY, path, digest=seen)

    pool = WorkerPool(work, results)
    pool.submit("app.py")
    assert started.wait(60)
    contents.append("new")
    pool.submit("app.py")
    assert pool.wait_idle(60)
    assert [each.digest for each in results.all] == ["new"]
    pool.close()


def test_result_that_came_although_it_was_superseded_is_not_reported(results):
    started, gate = threading.Event(), threading.Event()
    runs = []

    def work(path, cancel):
        runs.append(path)
        started.set()
        gate.wait(60)
        return Conversion(State.READY, path, digest=str(len(runs)))

    pool = WorkerPool(work, results, workers=2)
    pool.submit("app.py")
    assert started.wait(60)
    pool.submit("app.py")
    time.sleep(0.05)
    assert len(runs) == 1  # never twice at once
    gate.set()
    assert pool.wait_idle(60)
    assert [each.digest for each in results.all] == ["2"]
    pool.close()


@pytest.mark.parametrize("gone", [FileNotFoundError, NotADirectoryError, IsADirectoryError])
def test_what_is_gone_or_something_else_now_is_forgotten(results, caplog, gone):
    def work(path, cancel):
        raise gone(path)

    pool = WorkerPool(work, results)
    pool.submit("d/e")
    assert pool.wait_idle(60)
    assert results.all == []
    assert not caplog.records
    pool.close()


def test_a_thread_that_could_not_be_started_takes_no_place(results, monkeypatch):
    pool = WorkerPool(lambda path, cancel: ready(path), results, workers=1)
    with monkeypatch.context() as short:

        def refused(_):
            raise RuntimeError("can't start new thread")

        short.setattr(threading.Thread, "start", refused)
        pool.submit("first.py")  # as a save does, which must not fail by that
        assert pool.pending() == {"first.py"}
    pool.submit("second.py")
    assert pool.wait_idle(60)
    assert {each.stored_path for each in results.all} == {"first.py", "second.py"}


def test_a_path_is_made_sure_of_without_stopping_what_runs(results):
    started, go_on = threading.Event(), threading.Event()
    stopped: list[str] = []

    def work(path, cancel):
        started.set()
        assert go_on.wait(60)
        if cancel.is_set():
            stopped.append(path)
        return ready(path)

    pool = WorkerPool(work, results, workers=1)
    pool.submit("running.py")
    assert started.wait(60)
    pool.submit("queued.py")
    for path in ("running.py", "queued.py", "lost.py"):
        pool.ensure(path)
    go_on.set()
    assert pool.wait_idle(60)
    assert [each.stored_path for each in results.all] == ["running.py", "queued.py", "lost.py"]
    assert stopped == []


def test_bug_in_a_conversion_is_a_failed_file_with_a_traceback_in_the_log(results, caplog):
    def work(path, cancel):
        raise KeyError("oops")

    pool = WorkerPool(work, results)
    with caplog.at_level(logging.ERROR):
        pool.submit("app.py")
        assert pool.wait_idle(60)
    (result,) = results.all
    assert (result.state, result.diagnostics[0].code) == (State.FAILED, "internal")
    assert "Traceback" in caplog.text
    pool.submit("app.py")  # and the worker lives
    assert pool.wait_idle(60)
    assert len(results.all) == 2
    pool.close()


def test_bug_in_the_callback_does_not_end_the_worker(caplog):
    done = []

    def report(path, result):
        done.append(path)
        raise ValueError("oops")

    pool = WorkerPool(lambda path, cancel: ready(path), report, workers=1)
    pool.submit("a.py")
    pool.submit("b.py")
    assert pool.wait_idle(60)
    assert done == ["a.py", "b.py"]
    assert "reporting the conversion of a.py failed" in caplog.text
    pool.close()


def test_file_that_changed_while_it_was_read_is_left_to_its_next_submit(results, caplog):
    attempts = []

    def work(path, cancel):
        attempts.append(path)
        if len(attempts) == 1:
            raise StaleSource("changed")
        return ready(path)

    pool = WorkerPool(work, results)
    pool.submit("app.py")
    assert pool.wait_idle(60)
    assert (attempts, results.all, caplog.records) == (["app.py"], [], [])
    pool.submit("app.py")  # as its close does
    assert pool.wait_idle(60)
    assert (attempts, results.all) == (["app.py"] * 2, [ready("app.py")])
    pool.close()


def test_close_kills_the_tool_that_runs(tmp_path, cache, results, monkeypatch):
    started = threading.Event()

    def hang(argv, **arguments):
        started.set()
        return run_tool(["sleep", "600"], **arguments)

    monkeypatch.setattr(script, "run_tool", hang)
    converters = Converters(Target(), cache)

    def work(path, cancel):
        with open_bytes(tmp_path, b"x = 1\n") as (fd, digest):
            return converters.convert(path, fd, digest, cancel)

    pool = WorkerPool(work, results)
    pool.submit("app.py")
    assert started.wait(60)
    begin = time.monotonic()
    pool.close()
    assert time.monotonic() - begin < 30
    assert pool.wait_idle(0)
    assert results.all == []
    pool.submit("app.py")
    assert pool.pending() == frozenset()
    assert not list((cache / "work").iterdir())


class Threads:
    """In place of `ThreadPoolExecutor`: notes what it is given, and runs nothing."""

    made: ClassVar[list[Threads]] = []

    def __init__(self, *arguments: object) -> None:
        self.asked: list[object] = [arguments]
        Threads.made.append(self)

    def submit(self, work: Callable[..., object], path: str) -> None:
        self.asked.append((work, path))

    def shutdown(self, **options: bool) -> None:
        self.asked.append(options)


@pytest.mark.parametrize(
    ("workers", "processors", "count"),
    [
        (None, 1, 1), (None, 3, 3), (None, 4, 4), (None, 64, 4), (None, None, 1), (7, 1, 7),
        (0, 2, 2),
    ],
)  # fmt: skip
def test_how_many_threads_there_are_and_what_they_are_given(
    monkeypatch: pytest.MonkeyPatch, workers: int | None, processors: int | None, count: int
) -> None:
    Threads.made.clear()
    monkeypatch.setattr(pool, "ThreadPoolExecutor", Threads)
    monkeypatch.setattr(os, "cpu_count", lambda: processors)
    made = WorkerPool(lambda path, cancel: ready(path), workers=workers)
    (threads,) = Threads.made
    assert threads.asked == [(count, "romfsfs-convert")]
    for path in ("a", "b", "a"):
        made.submit(path)
    made.ensure("a")
    made.ensure("c")
    assert threads.asked[1:] == [(made._run, path) for path in ("a", "b", "c")]
    assert made.pending() == {"a", "b", "c"}
    assert [event.is_set() for event in made._pending.values()] == [True] * 3
    began = made._begin("a")
    assert began is not None
    assert not began.is_set()
    made.ensure("a")
    assert not began.is_set()
    made.submit("a")
    assert began.is_set()
    assert made._begin("a") is not began
    assert made._begin("a") is None
    assert made.pending() == {"b", "c"}
    last = made._begin("c")
    assert last is not None
    made.close(0)
    assert last.is_set()
    assert threads.asked[4:] == [{"wait": False}]
    assert made._begin("b") is None
    made.submit("d")
    made.ensure("d")
    assert threads.asked[5:] == []
    assert not made.wait_idle(0)
    assert made._begin("c") is None
    assert made.wait_idle(0)


@pytest.mark.parametrize(
    ("raised", "code", "message"),
    [
        (OSError(5, "Input/output error", "/x"), "io", "cannot be read: Input/output error"),
        (OSError("odd"), "io", "cannot be read: odd"),
        (ValueError("bad\nline"), "internal",
         "internal error while converting: ValueError: bad line"),
    ],
)  # fmt: skip
def test_what_is_said_of_work_that_fails(
    results: Results, raised: Exception, code: str, message: str
) -> None:
    def work(path: str, cancel: threading.Event) -> Conversion:
        raise raised

    made = WorkerPool(work, results, workers=1)
    made.submit("a.py")
    assert made.wait_idle(60)
    assert results.all == [
        Conversion(State.FAILED, "a.py", diagnostics=(error(code, message),))  # type: ignore[arg-type]
    ]
    made.close()


def test_nobody_need_be_told(caplog: pytest.LogCaptureFixture) -> None:
    made = WorkerPool(lambda path, cancel: ready(path), workers=1)
    made.submit("a.py")
    assert made.wait_idle(60)
    made.close()
    assert not caplog.records


def test_what_is_pending_is_changed_by_one_thread_at_a_time() -> None:
    class Guarded(dict[str, threading.Event]):
        """Complains of who comes without the lock."""

        def __getattribute__(self, name: str) -> object:
            assert made._changed._is_owned(), name  # type: ignore[attr-defined]
            return super().__getattribute__(name)

        def __iter__(self) -> Iterator[str]:
            assert made._changed._is_owned()  # type: ignore[attr-defined]
            return super().__iter__()

        def __contains__(self, path: object) -> bool:
            assert made._changed._is_owned()  # type: ignore[attr-defined]
            return super().__contains__(path)

        def __getitem__(self, path: str) -> threading.Event:
            assert made._changed._is_owned()  # type: ignore[attr-defined]
            return super().__getitem__(path)

        def __len__(self) -> int:
            assert made._changed._is_owned()  # type: ignore[attr-defined]
            return super().__len__()

    told: list[str] = []
    made = WorkerPool(
        lambda path, cancel: ready(path), lambda path, result: told.append(path), workers=1
    )
    made._pending = Guarded()
    made.submit("a.py")
    assert made.wait_idle(60)
    made.ensure("b.py")
    assert made.wait_idle(60)
    assert (made.pending(), told) == (frozenset(), ["a.py", "b.py"])
    made.close()
