"""How what is said arrives: streams, colours, pagers, bars, signals; all that is done with them."""

from __future__ import annotations

import contextlib
import errno
import gc
import io
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest

import romfsfs.cli
from romfsfs.cli import app, main, watch
from romfsfs.cli import output as out
from romfsfs.cli.output import _SHOWN_AFTER_SECONDS, Output
from romfsfs.errors import ConversionError, RomfsError
from romfsfs.system.files import no_progress
from romfsfs.system.interrupts import interrupt

FULL = OSError(errno.ENOSPC, "No space left on device")
NO_SPACE = "romfsfs: error: no space left on device{}; free space, or choose another place\n"


class Stream(io.StringIO):
    """A stream whose writes and flushes go into one list; error: what each of these then raises."""

    def __init__(self, name: str, told: list[str]) -> None:
        super().__init__()
        self.name, self.told = name, told
        self.error: OSError | None = None
        self.buffer = SimpleNamespace(write=self.write)

    def write(self, text: Any) -> int:
        self._do(text if isinstance(text, str) else text.decode())
        return len(text)

    def flush(self) -> None:
        self._do("(flush)")

    def fileno(self) -> int:
        return 7

    def _do(self, what: str) -> None:
        self.told.append(f"{self.name} {what}")
        if self.error is not None:
            raise self.error


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def streams(told: list[str], monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Those that are written to. (pytest puts its own in `sys`.)"""
    streams = SimpleNamespace(stdout=Stream("1>", told), stderr=Stream("2>", told))
    monkeypatch.setattr(out, "sys", streams)
    return streams


def test_how_much_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    logs: list[dict[str, Any]] = []
    monkeypatch.setattr(out.logging, "basicConfig", lambda **how: logs.append(how))
    output = Output()
    assert (output.verbose, output.quiet, output.as_json) == (0, False, False)
    for given, verbose, quiet, count in (
        ({}, 0, False, 0), ({"verbose": 1}, 1, False, 0), ({"quiet": 1}, 1, True, 0),
        ({"quiet": 0}, 1, True, 0), ({"verbose": 1}, 2, True, 1),
    ):  # fmt: skip
        output.adjust(**given)
        assert (output.verbose, output.quiet, len(logs)) == (verbose, quiet, count)
    wanted = {"level": logging.DEBUG, "format": "%(name)s: %(message)s", "stream": sys.stderr}
    assert logs == [wanted]


@pytest.mark.parametrize(
    ("error", "verbose", "below"),
    [
        (RomfsError("no", detail="x\ty\nz\n"), 0, []),
        (RomfsError("no", detail="x\ty\nz\n"), 1, ["  x       y", "  z"]),
        (RomfsError("no"), 1, []),
        (ConversionError("no", detail="z"), 0, ["  z"]),
        (ConversionError("no"), 0, []),
    ],
)
def test_what_stands_below_an_error(
    error: RomfsError, verbose: int, below: list[str], streams: SimpleNamespace,
    told: list[str],
) -> None:  # fmt: skip
    """And results that were written before it come before it, if anybody reads them."""
    output = Output()
    output.verbose = verbose
    for streams.stdout.error in (None, FULL):
        told.clear()
        output.error(error)
        lines = ["romfsfs: error: no", *below]
        assert told == ["1> (flush)", *(f"2> {line}\n" for line in lines)]


def test_where_nobody_reads_any_more_the_work_goes_on(
    streams: SimpleNamespace, told: list[str]
) -> None:
    streams.stdout.error, streams.stderr.error = BrokenPipeError(errno.EPIPE, "Broken pipe"), FULL
    output = Output()
    output.say("done")
    output.note("a note")
    output.fault("a fault")
    assert told == ["1> done\n", "2> romfsfs: a note\n", "2> romfsfs: error: a fault\n"]
    with pytest.raises(BrokenPipeError):
        output.show("what was asked for\n")


def test_which_progress_is_shown(streams: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    bars: Any = lambda *_: None  # noqa: E731
    lines: Any = lambda *_: None  # noqa: E731
    terminal = True
    monkeypatch.setattr(out, "draws", lambda stream: stream is streams.stderr and terminal)
    monkeypatch.setattr(out, "_phase_bars", lambda: contextlib.nullcontext(bars))
    monkeypatch.setattr(out, "phase_lines", lambda: lines)
    output = Output()
    for quiet, terminal, wanted in (  # noqa: B007
        (True, True, no_progress), (True, False, no_progress), (False, True, bars),
        (False, False, lines),
    ):  # fmt: skip
        output.quiet = quiet
        with output.progress() as shown:
            assert shown is wanted


def test_a_phase_is_named_once_from_the_third_tenth_of_a_second_on(
    streams: SimpleNamespace, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(out.time, "monotonic", lambda: now)
    monkeypatch.setattr(out, "_SHOWN_AFTER_SECONDS", _SHOWN_AFTER_SECONDS)
    show = out.phase_lines()
    for now in (0.0, 0.25, 0.3, 0.5, 9.0):
        show("writing", 1, 5000)
        assert told == ([] if now < 0.3 else ["2> romfsfs: writing 5,000 bytes\n"])


class Bars:
    """What is done with rich's bars, as lines; gone: the terminal is."""

    def __init__(self) -> None:
        self.told: list[object] = []
        self.gone = False

    def start(self) -> None:
        self._do("start")

    def add_task(self, phase: str, total: int | None) -> str:
        self._do("add", phase, total)
        return f"the {phase}"

    def update(self, task: str, *, completed: int, total: int | None) -> None:
        self._do(task, completed, total)

    def stop(self) -> None:
        self._do("stop")

    def _do(self, *what: object) -> None:
        self.told.append(what)
        if self.gone:
            raise OSError(errno.EIO, "Input/output error")


def test_bars_of_phases(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Bars] = []
    monkeypatch.setattr(out, "_after_a_moment", lambda show: show)
    monkeypatch.setattr(out, "_bars", lambda: made.append(Bars()) or made[-1])
    with out._phase_bars() as show:
        assert made == []
        for phase, done, total in (("a", 0, 9), ("a", 5, 9), ("b", 1, 0), ("a", 9, 9)):
            show(phase, done, total)
        (bars,) = made
        assert bars.told == [
            ("start",), ("add", "a", None), ("the a", 0, 9), ("the a", 5, 9),
            ("add", "b", None), ("the b", 1, None), ("the a", 9, 9),
        ]  # fmt: skip
        bars.gone = True
        show("c", 1, 2)
    assert bars.told[7:] == [("add", "c", None), ("stop",)]
    with out._phase_bars():
        pass
    assert len(made) == 1, "none without a phase"


def test_bars_are_drawn_on_standard_error_and_leave_nothing() -> None:
    bars: Any = out._bars()
    assert (bars.console.stderr, bars.live.transient) == (True, True)


class Pager:
    """A pager that is interrupted twice, as Ctrl-C does it, before it ends."""

    def __init__(self, told: list[Any], broken: bool = False) -> None:
        self.told, self.broken, self.waits = told, broken, 0
        self.stdin = self

    def __call__(self, command: str, **how: Any) -> Pager:
        self.told.append((command, how))
        return self

    def __enter__(self) -> None:
        pass

    def __exit__(self, *error: object) -> None:
        self.told.append("closed")

    def writelines(self, lines: Iterator[str]) -> None:
        self.told.extend(lines)
        if self.broken:
            raise BrokenPipeError

    def wait(self) -> None:
        self.waits += 1
        self.told.append("wait")
        if self.waits < 3:
            raise KeyboardInterrupt


@pytest.mark.parametrize("broken", [False, True])
@pytest.mark.parametrize(
    ("pager", "less", "command"),
    [("mine", "/bin/less", "mine"), ("mine", None, "mine"), ("", "/bin/less", "/bin/less"),
     ("", None, "cat")],
)  # fmt: skip
def test_lines_go_through_a_pager_to_its_end(
    monkeypatch: pytest.MonkeyPatch, broken: bool, pager: str, less: str | None, command: str
) -> None:
    told: list[Any] = []
    monkeypatch.setattr(subprocess, "Popen", Pager(told, broken))
    monkeypatch.setattr(out, "find_on_path", lambda name: less if name == "less" else "?")
    monkeypatch.setenv("PAGER", pager)
    out._page(iter(["a\n", "b\n"]))
    (started, how), *rest = told
    assert started == command
    assert how.pop("env")["LESS"] == "FRX"
    assert how == {"shell": True, "stdin": subprocess.PIPE, "errors": "backslashreplace"}
    assert rest == ["a\n", "b\n", "closed", "wait", "wait", "wait"]


@pytest.mark.parametrize(("line", "shown"), [("1234567890", "1234567890"),
                                             ("12345678901", "1234567...")])  # fmt: skip
def test_a_line_is_cut_at_the_end_of_the_terminal(
    monkeypatch: pytest.MonkeyPatch, line: str, shown: str
) -> None:
    monkeypatch.setenv("COLUMNS", "10")
    assert out.fitted(line) == shown


def test_an_image_goes_to_standard_output_from_its_start(
    tmp_path: Path, streams: SimpleNamespace, told: list[str]
) -> None:
    with open(tmp_path / "image", "w+b") as file:
        file.write(b"image")
        out.write_all(file)
        assert told == ["1> image"]
        for write in (lambda: out.write_all(file), lambda: out.write("x"), lambda: out.write(b"x"),
                      out.flush):  # fmt: skip
            streams.stdout.error = OSError(errno.ENOSPC, "No space left on device")
            with pytest.raises(OSError, match="No space") as caught:
                write()
            assert caught.value.filename == "standard output"


BROKEN = BrokenPipeError(errno.EPIPE, "Broken pipe")


@pytest.mark.parametrize(
    ("stream", "error", "code", "ends", "said"),
    [
        ("", FULL, 0, 0, []), ("", FULL, 3, 3, []),
        ("stdout", FULL, 0, 1, [f"2> {NO_SPACE.format(' (standard output)')}"]),
        ("stdout", FULL, 3, 3, []), ("stdout", BROKEN, 0, 0, []), ("stdout", BROKEN, 3, 3, []),
        ("stderr", FULL, 0, 0, []), ("stderr", FULL, 3, 3, []), ("stderr", BROKEN, 0, 0, []),
    ],
)  # fmt: skip
def test_the_end_of_what_was_written(
    streams: SimpleNamespace, told: list[str], monkeypatch: pytest.MonkeyPatch,
    stream: str, error: OSError, code: int, ends: int, said: list[str],
) -> None:  # fmt: skip
    """A stream that takes nothing more is closed to nowhere, for the interpreter's own flush."""
    calls: list[tuple[object, ...]] = []
    system = {name: lambda *a, name=name: calls.append((name, *a)) or 9 for name in ("open", "dup2",
              "close")}  # fmt: skip
    monkeypatch.setattr(out, "os", SimpleNamespace(**{**vars(os), **system}))
    if stream:
        getattr(streams, stream).error = type(error)(*error.args)
    assert out.finish(Output(), code) == ends
    assert [line for line in told if "flush" not in line] == said
    nowhere = [("open", os.devnull, os.O_WRONLY), ("dup2", 9, 7), ("close", 9)]
    assert calls == (nowhere if stream else [])


def test_streams_that_were_closed_lead_to_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each gets the lowest free number, which is its own."""
    calls: list[tuple[object, ...]] = []

    def fstat(fd: int) -> None:
        calls.append(("fstat", fd))
        if fd != 1:
            raise OSError(errno.EBADF, "Bad file descriptor")

    def fdopen(fd: int, mode: str, **how: object) -> str:
        return f"{fd} {mode} {how}"

    monkeypatch.setattr(romfsfs.cli, "os", SimpleNamespace(
        fstat=fstat, fdopen=fdopen, devnull="nowhere", O_RDWR=2,
        open=lambda *what: calls.append(("open", *what)) or 40,
        set_inheritable=lambda *what: calls.append(("inherited", *what)),
    ))  # fmt: skip
    for name in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    romfsfs.cli._open_closed_streams()
    opened = [("open", "nowhere", 2), ("inherited", 40, True)]
    assert calls == [("fstat", 0), *opened, ("fstat", 1), ("fstat", 2), *opened]
    how = {"encoding": "utf-8", "closefd": False}
    wanted = (f"0 r {how}", f"1 w {how}", f"2 w {how}")
    assert (sys.stdin, sys.stdout, sys.stderr) == wanted


def test_the_collector_seldom_runs() -> None:
    assert main(["--version"]) == 0
    assert gc.get_threshold() == (100_000, 20, 20)


def test_signals_end_a_command_as_ctrl_c_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """But those that are ignored (nohup); afterwards all is as it was. SIGCHLD never is ignored."""
    known = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD)

    def now() -> list[Any]:
        return [signal.getsignal(number) for number in known]

    seen: list[Any] = []
    monkeypatch.setattr(app, "_run", lambda output, words: seen.extend((now(), words)) or 3)
    monkeypatch.setattr(app, "finish", lambda output, code: seen.append(code) or 4)
    ignored = (signal.SIGHUP, signal.SIGCHLD)
    usual = {number: signal.signal(number, signal.SIG_IGN) for number in ignored}
    try:
        before = now()
        assert app.run(["x"]) == 4
        assert now() == before
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)
    assert seen == [[interrupt, interrupt, signal.SIG_IGN, signal.SIG_DFL], ["x"], 3]


@pytest.mark.parametrize(
    ("outcome", "gone", "code", "said"),
    [
        (None, False, 0, ""), (3, False, 3, ""), ("text", False, 0, ""),
        (click.exceptions.Exit(5), False, 5, ""),
        (click.ClickException("no file"), False, 1, "romfsfs: error: no file\n"),
        (click.UsageError("Wrong."), False, 2, "romfsfs: error: wrong; romfsfs log --help\n"),
        (RomfsError("no"), False, 1, "romfsfs: error: no\n"),
        (ConversionError("no"), False, 3, "romfsfs: error: no\n"),
        (FULL, True, 1, NO_SPACE.format("")), (BROKEN, True, 0, ""),
        (BROKEN, False, 1, "romfsfs: error: broken pipe\n"),
    ],
)  # fmt: skip
def test_what_a_command_ends_with(
    outcome: object, gone: bool, code: int, said: str, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def invoke(context: object) -> object:
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    group = SimpleNamespace(make_context=lambda *_, **__: contextlib.nullcontext(), invoke=invoke)
    monkeypatch.setattr(app, "romfsfs", group)
    monkeypatch.setattr(app, "reader_has_gone", lambda: gone)
    assert app._run(Output(), ["-v", "log", "status"]) == code
    assert capsys.readouterr() == ("", said)


def test_a_question_that_is_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    def asks(context: object) -> None:
        raise click.Abort

    group = SimpleNamespace(make_context=lambda *_, **__: contextlib.nullcontext(), invoke=asks)
    monkeypatch.setattr(app, "romfsfs", group)
    with pytest.raises(KeyboardInterrupt):
        app._run(Output(), ["log"])


class Followed:
    """A session that is followed: what each look shows, and then how it ends."""

    def __init__(self, mountpoint: str | None, *shown: object) -> None:
        self.shown = list(shown)
        self.mountpoint = mountpoint and Path(mountpoint)
        self.session: Any = self
        self.folder: Any = self
        self.looks: list[object] = []

    @property
    def has_work(self) -> bool:
        return bool(self.shown)

    def mounted_at(self) -> Any:
        return SimpleNamespace(mountpoint="/cam") if self.shown else None

    def look(self) -> str:
        self.looks.append(self.shown.pop(0))
        if isinstance(self.looks[-1], BaseException):
            raise self.looks[-1]
        return str(self.looks[-1])


@pytest.mark.parametrize("mountpoint", ["/cam", None])
@pytest.mark.parametrize(
    ("shown", "terminal", "as_json", "said", "ended"),
    [
        (["a\n", "a\n", "b\n"], False, False, ["a\n\n", "b\n\n"], True),
        (["a\n", FileNotFoundError()], False, False, ["a\n\n"], True),
        (["a\n", NotADirectoryError()], False, False, ["a\n\n"], True),
        (["a\n", KeyboardInterrupt()], False, False, ["a\n\n"], False),
        (["{\n}", "{\n}", "[\n1]"], False, True, ["{}\n", "[1]\n"], True),
        (["{\n}", "[]"], True, True, ["{}\n", "[]\n"], True),
        (["a\n", "b\n"], True, False, ["\x1b[H\x1b[2Ja\n", "\x1b[H\x1b[2Jb\n"], True),
        (["a\n", KeyboardInterrupt()], True, False, ["\x1b[H\x1b[2Ja\n", "\n"], False),
        ([KeyboardInterrupt()], True, True, [], False),
    ],
)  # fmt: skip
def test_a_status_is_followed(
    mountpoint: str | None, shown: list[object], terminal: bool, as_json: bool, said: list[str],
    ended: bool, streams: SimpleNamespace, told: list[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Shown when it has changed, and at once; looked at twice a second."""
    sleeps: list[float] = []
    monkeypatch.setattr(watch.time, "sleep", sleeps.append)
    monkeypatch.setattr(out, "draws", lambda stream: terminal)
    monkeypatch.setattr(out, "reader_has_gone", lambda: False)
    monkeypatch.setenv("NO_COLOR", "1")
    output = Output()
    output.as_json = as_json
    found: Any = Followed(mountpoint, *shown)
    assert watch.watch(output, found, found.look) == 0
    assert found.looks == shown
    looks = sum(isinstance(each, str) for each in shown)
    assert sleeps == [0.5] * looks
    lines = [f"1> {text}" if text == "\n" else f"1> {text}|1> (flush)" for text in said]
    end = "no edits are left" if mountpoint is None else "no longer mounted"
    assert "|".join(told) == "|".join([*lines, *([f"2> romfsfs: {end}\n"] if ended else [])])


def test_nobody_follows_any_more(
    streams: SimpleNamespace, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(out, "reader_has_gone", lambda: True)
    found: Any = Followed("/cam", "a", "b")
    assert watch.watch(Output(), found, found.look) == 0
    assert told == ["1> a\n", "1> (flush)"]


@pytest.mark.parametrize(
    ("held", "goes_on"),
    [(None, False), ("", False), ("/c", True)],
)
def test_a_mount_is_followed_while_it_is_one(held: str | None, goes_on: bool) -> None:
    holder = None if held is None else SimpleNamespace(mountpoint=held)
    folder = SimpleNamespace(mounted_at=lambda: holder)
    found: Any = SimpleNamespace(mountpoint=Path("/c"), session=SimpleNamespace(folder=folder))
    assert watch._goes_on(found) is goes_on


@pytest.mark.parametrize(
    ("count", "shown"),
    [(5, ["0", "1", "2", "3", "4"]), (6, ["0", "1", "2", "  ... 2 lines more", "5"])],
)
def test_as_much_as_fits_on_a_screen(
    count: int, shown: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line is left for the cursor."""
    monkeypatch.setenv("LINES", "6")
    monkeypatch.setenv("COLUMNS", "80")
    text = "".join(f"{number}\n" for number in range(count))
    assert watch._screen(text).partition("\x1b[2J")[2].splitlines() == shown
