"""The runner of programs by its parts: what is asked of the system, and how often."""

from __future__ import annotations

import errno
import io
import os
import resource
import signal
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from romfsfs.errors import Cancelled
from romfsfs.system import runner
from romfsfs.system.programs import processes_using
from romfsfs.system.runner import Limits, environment, run_tool


class Told:
    """Takes what a tool says, piece by piece."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []

    def add(self, data: bytes) -> None:
        self.pieces.append(data)


class Flag:
    """A `Cancel` that is set after so many looks."""

    def __init__(self, looks: float = float("inf")) -> None:
        self.looks = looks

    def is_set(self) -> bool:
        self.looks -= 1
        return self.looks < 0


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long is slept, which takes no time."""
    slept: list[float] = []
    monkeypatch.setattr(runner, "time", SimpleNamespace(sleep=slept.append, monotonic=lambda: 9.0))
    return slept


def test_what_a_tool_may_use() -> None:
    assert Limits(5) == (5, 4 << 30, 1 << 30, True)
    assert (runner.HEAD_BYTES, runner.TAIL_BYTES) == (16 << 10, 48 << 10)


def test_a_tool_that_is_busy_is_tried_again_after_a_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pauses: list[float]
) -> None:
    number = errno.ETXTBSY

    def refuse(argv: list[str], **how: Any) -> None:
        assert argv == ["tool", "x"]
        assert how == {
            "cwd": tmp_path, "env": {"A": "b"}, "stdin": subprocess.DEVNULL, "bufsize": 0,
            "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "start_new_session": True,
        }  # fmt: skip
        raise OSError(number, "no")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    with pytest.raises(OSError, match="no"):
        runner._start(("tool", "x"), tmp_path, {"A": "b"}, False)
    assert pauses == [0.01] * 99
    number = errno.ENOENT
    with pytest.raises(OSError, match="no"):
        runner._start(("tool", "x"), tmp_path, {"A": "b"}, False)
    assert len(pauses) == 99


def test_a_result_of_just_the_size_that_it_may_have() -> None:
    file = io.BytesIO()
    result = runner._Result(file, 5)
    for piece in (b"abc", b"", b"de", b""):
        result.add(piece)
    with pytest.raises(OSError, match="too large") as caught:
        result.add(b"f")
    assert (caught.value.errno, file.getvalue()) == (errno.EFBIG, b"abcde")


def test_a_byte_more_of_the_last_lines_is_left_out() -> None:
    capture = runner._Capture()
    capture.add(b"h" * runner.HEAD_BYTES + b"t" * runner.TAIL_BYTES)
    assert "left out" not in capture.text()
    capture.add(b"x")
    assert capture.text().partition("h\n")[2] == (
        f"[... 1 byte left out ...]\n{'t' * (runner.TAIL_BYTES - 1)}x"
    )


def test_the_outputs_of_a_tool_hold_nobody_up() -> None:
    pipes = [os.pipe() for _ in range(2)]
    files = [os.fdopen(reading, "rb", 0) for reading, _ in pipes]
    process: Any = SimpleNamespace(stdout=files[0], stderr=files[1])
    capture, limits, target = runner._Capture(), Limits(1, file_bytes=3), io.BytesIO()
    try:
        ((pipe, taker),) = runner._outputs(process, capture, None, limits)
        assert (pipe, taker, os.get_blocking(pipe.fileno())) == (files[0], capture, False)
        outputs = runner._outputs(process, capture, target, limits)
        assert [pipe for pipe, _ in outputs] == files
        assert [os.get_blocking(pipe.fileno()) for pipe in files] == [False, False]
        assert isinstance(outputs[0][1], runner._Result)
        assert outputs[1][1] is capture
        told = [Told(), Told()]
        for _, writing in pipes:
            os.write(writing, b"last")
        os.close(pipes[0][1])  # the other tool writes on
        runner._drain(list(zip(files, told, strict=True)))  # type: ignore[arg-type]
        assert [each.pieces for each in told] == [[b"last"], [b"last"]]
        assert [file.closed for file in files] == [True, True]
    finally:
        os.close(pipes[1][1])
        for file in files:
            file.close()


@pytest.mark.parametrize(
    ("left", "looks", "ended", "paused"),
    [
        (50.0, 3, [True], []),
        (50.0, 9, [False, False, False, True], [0.002]),
        (2**-10, 9, [False, False, False, True], [2**-10]),
        (0.0, 9, [], False), (-1.0, 9, [], False), (50.0, 0, [], False), (50.0, 1, [False], False),
    ],
)  # fmt: skip
def test_a_tool_is_followed_to_its_end(
    monkeypatch: pytest.MonkeyPatch, pauses: list[float], left: float, looks: int,
    ended: list[bool], paused: list[float] | bool,
) -> None:  # fmt: skip
    """Its pipe is waited for while it is open; then there is a pause between two looks."""
    answers = [*ended]
    monkeypatch.setattr(runner, "_has_ended", lambda process: answers.pop(0))
    reading, writing = os.pipe()
    os.write(writing, b"said")
    os.close(writing)
    told = Told()
    process: Any = None
    with os.fdopen(reading, "rb", 0) as pipe:
        outputs: Any = [(pipe, told)]
        done = runner._follow(process, outputs, 9.0 + left, Flag(looks))
    assert done == bool(ended and ended[-1])
    assert answers == []
    assert told.pieces == [b"said", b""][: len(ended)]
    assert pauses == (paused or [])


@pytest.mark.parametrize("children", [True, False])
def test_who_is_limited(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, children: bool) -> None:
    """Those too that the tool started meanwhile; looked for until there is none more."""
    limits, limited = Limits(1, children=children), []
    found = [[7, 8], [8, 9], [7, 9], [1]]

    def limit(pid: int, given: Limits) -> bool:
        assert given is limits
        limited.append(pid)
        return can

    monkeypatch.setattr(runner, "_limit", limit)
    monkeypatch.setattr(runner, "_processes_at", lambda folder: found.pop(0))
    can = False
    runner._limit_all(7, tmp_path, limits)
    assert (limited, len(found)) == ([7], 4)
    can = True
    runner._limit_all(7, tmp_path, limits)
    assert limited == [7, 7, *([8, 9] if children else [])]
    assert len(found) == (1 if children else 4)


def test_a_limit_of_who_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []

    def gone(pid: int, kind: int, limits: object = None) -> tuple[int, int]:
        tried.append(kind)
        raise ProcessLookupError

    monkeypatch.setattr(resource, "prlimit", gone, raising=False)
    assert runner._limit(1, Limits(1))
    assert len(tried) == 4
    asked: dict[int, object] = {}

    def set_it(pid: int, kind: int, limits: object = None) -> tuple[int, int]:
        if limits is not None:
            asked[kind] = limits
        return 0, resource.RLIM_INFINITY

    monkeypatch.setattr(resource, "prlimit", set_it)
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert runner._limit(1, Limits(30))
    assert asked[resource.RLIMIT_CPU] == (31, 31)
    monkeypatch.delattr(resource, "prlimit")
    assert not runner._limit(1, Limits(1))


def test_strays_are_looked_for_until_there_is_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = [[7, 8], [9], [], [1]]
    killed: list[tuple[int, int]] = []

    def kill(pid: int, number: int) -> None:
        killed.append((pid, number))
        if pid != 9:
            raise ProcessLookupError if pid == 7 else PermissionError

    monkeypatch.setattr(runner, "_processes_at", lambda folder: found.pop(0))
    monkeypatch.setattr(os, "kill", kill)
    runner._kill_strays(tmp_path)
    assert killed == [(pid, signal.SIGKILL) for pid in (7, 8, 9)]
    assert found == [[1]]


@pytest.mark.skipif(not any(processes_using("/")), reason="looked for in /proc")
def test_which_process_is_at_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside, beside = tmp_path / "job" / "a", tmp_path / "job2"
    for folder in (inside, beside):
        folder.mkdir(parents=True)
    known = Path("/proc/self/environ").read_bytes().split(b"\0")[0]
    me, nothing = os.getpid(), b"ROMFSFS_NONE=1"
    found = []
    for here in (inside, inside.parent, beside, tmp_path):
        monkeypatch.chdir(here)
        found.append(runner._is_at(me, (nothing, str(inside.parent))))
    assert found == [True, True, False, False]
    assert runner._is_at(me, (known, "/nowhere"))
    assert not runner._is_at(me, (known[:-1], "/nowhere"))
    assert not runner._is_at(1 << 30, (known, "/"))
    monkeypatch.chdir(inside)
    assert me not in runner._processes_at(inside.parent), "never ourselves"


def test_where_nobody_can_wait_for_a_process_that_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "waitid", raising=False)
    for status in (None, 0, 3):
        process: Any = SimpleNamespace(poll=lambda status=status: status)
        assert runner._has_ended(process) == (status is not None)


def test_where_the_system_reaps_our_children(tmp_path: Path) -> None:
    """A program that uses us ignores SIGCHLD: how a tool ended is unknown there, but not that."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        done = run_tool(["sh", "-c", "echo said"], folder=tmp_path, env={}, limits=Limits(60))
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert (done.output, done.timed_out) == ("said\n", False)


def test_a_group_that_has_gone_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for error in (ProcessLookupError, PermissionError):

        def killpg(pid: int, number: int, error: type[OSError] = error) -> None:
            assert number == signal.SIGKILL
            raise error

        monkeypatch.setattr(os, "killpg", killpg)
        done = run_tool(["sh", "-c", "exit 3"], folder=tmp_path, env={}, limits=Limits(60))
        assert (done.status, done.output, done.timed_out) == (3, "", False)


def test_a_tool_that_was_stopped_is_named(tmp_path: Path) -> None:
    with pytest.raises(Cancelled) as caught:
        run_tool(["/bin/sh", "-c", "sleep 600"], folder=tmp_path, env=environment(tmp_path),
                 limits=Limits(300), cancel=Flag(0))  # fmt: skip
    assert caught.value.line == "the program was stopped (sh)"
