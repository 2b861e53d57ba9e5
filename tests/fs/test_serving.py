"""The daemon and unmounting, with the kernel's and libfuse's part played by the test: what is
called, in which order, with what, and all that is said."""

from __future__ import annotations

import errno
import io
import json
import logging
import os
import re
import resource
import signal
import stat
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from processes import SECONDS, ended, until

from romfsfs.errors import Interrupted, RomfsError, UsageError
from romfsfs.fs import daemon, messages, mountpoint, output
from romfsfs.fs.daemon import MountOptions, _in_background, mount
from romfsfs.fs.request_loop import END

pytestmark = pytest.mark.usefixtures("signals")


# -- the daemon


def test_what_a_log_holds_commands_no_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And it stays within bounds, as long as its disk allows that."""
    shortened: list[int] = []

    def shorten(fd: int) -> None:
        shortened.append(fd)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(output, "shorten", shorten)
    with (tmp_path / "log").open("w+", encoding="utf-8") as stream:
        handler = output._LogHandler(stream)
        for message in ("a\tb \x1b[2J", "one\ntwo"):
            handler.emit(logging.LogRecord("n", logging.INFO, "p", 1, message, (), None))
        assert shortened == [stream.fileno()] * 2
        assert (tmp_path / "log").read_text() == "a       b \\x1b[2J\none\ntwo\n"


def test_what_the_parent_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of progress no more than can be seen; nothing after the end, nor once the parent has gone."""
    now = [0.0]
    monkeypatch.setattr(messages, "time", SimpleNamespace(monotonic=lambda: now[0]))
    reading, writing = os.pipe()
    send = messages.Sender(writing)
    send(ready=["a"])
    for phase, done, seconds in (
        ("x", 0, 0.0), ("x", 1, 0.04), ("x", 2, 0.05), ("x", 3, 0.09), ("x", 9, 0.09),
        ("x", 8, 0.1), ("y", 1, 0.1), ("y", 10, 0.1), ("y", 2, 0.16),
    ):  # fmt: skip
        now[0] = seconds
        send.progress(phase, done, 9)
    for _ in range(2):
        send.close()
        send(error={})
        send.progress("z", 9, 9)
    with open(reading, "rb") as pipe:
        told = [json.loads(line) for line in pipe]
    shown = [("x", 0), ("x", 2), ("x", 9), ("y", 1), ("y", 10), ("y", 2)]
    assert told == [{"ready": ["a"]}, *({"progress": [*each, 9]} for each in shown)]
    reading, writing = os.pipe()
    os.close(reading)
    send = messages.Sender(writing)
    send(ready=[])
    send.close()


class _Told(list[object]):
    """Plays the pipe to the parent."""

    def __call__(self, **message: object) -> None:
        self.append(message)

    def close(self) -> None:
        self.append("closed")


def test_output_is_the_logs_once_the_kernel_has_mounted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was noted and said until then stands there first; the parent is told, and let go."""
    done = _Told()
    (tmp_path / "log").write_text("before\n")
    captured = output.Captured(io.BytesIO(b"said\n"), (tmp_path / "noted").open("w+b"))
    captured.noted.write(b"noted\n")
    host: Any = SimpleNamespace(log_file=tmp_path / "log")
    ready = output.to_log(host, done, captured)  # type: ignore[arg-type]
    assert done == []
    monkeypatch.setattr(
        os, "dup2",
        lambda fd, to, inheritable=True: done.append((os.fstat(fd).st_ino, to, inheritable)),
    )  # fmt: skip
    monkeypatch.setattr(output, "shorten", lambda fd: done.append(("shortened", fd)))
    ready(["a"])
    log = (tmp_path / "log").stat().st_ino
    noted = captured.noted.fileno()
    assert done == [
        (log, 1, True), (log, 2, True), (log, noted, False), ("shortened", 2), {"ready": ["a"]},
        "closed",
    ]  # fmt: skip
    assert (tmp_path / "log").read_text() == "before\nnoted\nsaid\n"
    assert (captured.said.closed, captured.noted.closed) == (True, False)
    captured.noted.close()


@pytest.mark.parametrize("ends", ["well", "badly"])
@pytest.mark.parametrize("options", [(), ("allow_other", "nonempty,noatime")])
def test_the_life_of_a_mount(
    ends: str, options: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Checked, opened, claimed, mounted; others are told when the kernel has mounted; closed."""
    done: list[object] = []
    allowed = bool(options)

    @contextmanager
    def claimed(path: str, nonempty: bool) -> Iterator[Callable[[], None]]:
        done.append(("claimed", path, nonempty))
        yield lambda: done.append("released")
        done.append("done")

    def prepare(place: str, **how: bool) -> str:
        done.append(("prepared", place, how))
        return "/real"

    def serve(given: object, host: object, path: str, of_libfuse: object, ready: Any) -> None:
        assert (given, host) == (loaded, opened)
        done.append(("served", path, of_libfuse))
        if ends == "badly":
            raise RomfsError("no")
        ready()

    def told(**how: object) -> str:
        done.append(how)
        return "as libfuse wants it"

    loaded = SimpleNamespace(libfuse=(3, 17))
    opened = SimpleNamespace(read_only=True, log_file=None, close=lambda: done.append("closed"))
    monkeypatch.setattr(daemon, "load_binding", lambda: loaded)
    monkeypatch.setattr(daemon, "prepare", prepare)
    monkeypatch.setattr(daemon, "claimed", claimed)
    monkeypatch.setattr(daemon, "_serve", serve)
    monkeypatch.setattr(
        daemon, "fuse_options",
        lambda libfuse, source, extra, **how: told(given=(libfuse, source, extra), **how),
    )  # fmt: skip
    how = MountOptions(
        "S",
        foreground=True,
        extra=options,
        mounted=lambda: done.append("mounted") or ["said"],  # type: ignore[func-returns-value]
    )

    def open_host(progress: Callable[[str, int, int], None]) -> Any:
        done.append("opened")
        return opened

    if ends == "well":
        assert mount(open_host, "place", how) == (0, [])
    else:
        with pytest.raises(RomfsError):
            mount(open_host, "place", how)
    assert done == [
        ("prepared", "place", {"allow_other": allowed, "nonempty": allowed}), "opened",
        ("claimed", "/real", allowed),
        {"given": ((3, 17), "S", {"noatime": True} if allowed else {}), "read_only": True,
         "allow_other": allowed, "nonempty": allowed},
        ("served", "/real", "as libfuse wants it"),
        *(["mounted", "released", "done"] if ends == "well" else []), "closed",
    ]  # fmt: skip


class Run:
    """A binding that mounts, if it is told to, and then ends."""

    def __init__(self, mounts: bool, code: int | None, options: dict[str, str | bool]) -> None:
        self.mounts, self.code, self.options = mounts, code, options
        self.handlers: list[object] = []
        self.adapter: Any = None

    def caller(self) -> tuple[int, int]:
        return 7, 8

    def run(self, adapter: Any, path: str, options: dict[str, Any]) -> None:
        assert (path, options) == ("/m", self.options)
        self.adapter = adapter
        self.handlers = [signal.getsignal(number) for number in END]
        if self.mounts:
            adapter.init("/")
        if self.code is not None:
            raise RuntimeError(self.code)


@pytest.mark.parametrize(
    ("mounts", "code", "options", "user", "shared"),
    [
        (True, None, {}, 0, False), (True, 8, {"allow_other": True}, 0, True),
        (True, None, {"allow_other": True, "noatime": True}, 5, False),
        (False, 1, {}, 0, False),
    ],
)  # fmt: skip
def test_what_a_binding_is_given(
    tmp_path: Path, mounts: bool, code: int | None, options: dict[str, str | bool], user: int,
    shared: bool, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Signals as it wants them, and none that ends what comes after it."""
    from fake_host import FakeHost

    (tmp_path / "state").mkdir()
    host, ready, run = FakeHost(tmp_path / "state"), [], Run(mounts, code, options)
    limits: list[object] = []
    monkeypatch.setattr(daemon, "_share_one_heap", lambda: limits.append("heap"))
    monkeypatch.setattr(daemon.os, "geteuid", lambda: user)
    monkeypatch.setattr(resource, "getrlimit", lambda what: (10, 20))
    monkeypatch.setattr(resource, "setrlimit", lambda *what: limits.append(what))
    work: Any = (run, host, "/m", options, lambda: ready.append("ready"))
    if mounts:
        daemon._serve(*work)
    else:
        with pytest.raises(RomfsError) as refused:
            daemon._serve(*work)
        assert refused.value.line == (
            "could not mount (/m); remove the -o options that libfuse refuses; see romfsfs doctor"
        )
    assert ready == ["ready"] * mounts
    assert limits == [(resource.RLIMIT_NOFILE, (20, 20)), "heap"]
    assert run.handlers == [signal.SIG_IGN, signal.SIG_DFL, signal.SIG_DFL]
    assert {signal.getsignal(number) for number in END} == {signal.SIG_IGN}
    files = run.adapter
    assert files._caller == (run.caller if shared else None)
    assert files._control._requester == run.caller
    assert bool(files._tree._unnoticed) is ("noatime" in options)
    host.close()


def served(serve: Any, progress: Any = lambda *told: None) -> tuple[int, list[str]]:
    """What comes out of a daemon that does this."""
    with warnings.catch_warnings():  # Python 3.12 warns of a fork beside pytest's own threads
        warnings.simplefilter("ignore", DeprecationWarning)
        return _in_background(serve, "/m", progress)


def test_what_libfuse_says_before_the_mount_is_the_error_s() -> None:
    """On both its outputs; standard input is nobody's."""

    def refuses(progress: Any, begin: Any) -> None:
        os.write(1, b"fuse: mountpoint is\n")
        os.write(2, b"not empty: " + os.read(0, 9) + os.getcwd().encode() + b"\n")
        raise RomfsError("could not mount", where="there", detail="more")

    with pytest.raises(RomfsError) as refused:
        served(refuses)
    assert refused.value.line == "could not mount: fuse: mountpoint is (there)"
    assert refused.value.detail == "more\nfuse: mountpoint is\nnot empty: /"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (lambda: RomfsError("it refuses", where="w", next_step="n"), "it refuses (w); n"),
        (lambda: UsageError("it refuses"), "it refuses"),
        (lambda: OSError(errno.ENOSPC, "No space left", "/x"), "no space left (/x); free space, or "
         "choose another place"),
        (lambda: ZeroDivisionError("a bug"), "ZeroDivisionError: a bug"),
        (None, "the mount's process ended and gave no reason (/m); run romfsfs -vv mount "
         "--foreground to see what it does"),
    ],
    ids=["ours", "usage", "system", "bug", "nothing"],
)  # fmt: skip
def test_how_a_daemon_ends_is_what_mount_raises(
    error: Callable[[], BaseException] | None, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed: list[object] = []
    monkeypatch.setattr(daemon.os, "kill", lambda *how: killed.append(how))

    def ends(progress: Any, begin: Any) -> None:
        if error is None:
            os._exit(0)
        raise error()

    with pytest.raises(RomfsError) as refused:
        served(ends)
    assert refused.value.line.casefold() == line.casefold()
    assert killed == []


def test_what_is_said_goes_into_the_session_s_log(tmp_path: Path) -> None:
    """From the kernel's mounting on, and what was said before it; names command no terminal."""
    log, told = tmp_path / "log", []

    def works(progress: Any, begin: Any) -> None:
        progress("reading", 1, 2)
        ready = begin(SimpleNamespace(log_file=log))
        os.write(2, b"before\n")
        logging.getLogger("x").warning("a\x1b\tb\nc")
        ready(["one", "two"])
        os.write(1, b"after\n")
        logging.getLogger("x").info("d")
        logging.getLogger("x").debug("not shown")

    pid, said = served(works, lambda *each: told.append(each))
    until(lambda: ended(pid))
    assert said == ["one", "two"]
    assert told == [("reading", 1, 2)]
    first, second, before, after, last = log.read_text().splitlines()
    assert (second, before, after) == ("c", "before", "after")
    assert re.search(r" WARNING x: a\\x1b +b$", first)
    assert last.endswith(" INFO x: d")
    assert stat.S_IMODE(log.stat().st_mode) == 0o600


def test_ctrl_c_while_it_is_mounted_ends_the_daemon() -> None:
    pids: list[int] = []

    def lasts(progress: Any, begin: Any) -> None:
        signal.alarm(2 * SECONDS)  # where the test fails, it must not stay
        progress(str(os.getpid()), 0, 1)
        signal.pause()

    def told(phase: str, done: int, total: int) -> None:
        pids.append(int(phase))
        raise KeyboardInterrupt

    with pytest.raises(Interrupted) as refused:
        served(lasts, told)
    assert refused.value.line == "interrupted while mounting (/m)"
    until(lambda: ended(pids[0]))


def test_ctrl_c_before_the_daemon_has_said_who_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    killed: list[object] = []

    def interrupted(line: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(daemon.os, "kill", lambda *how: killed.append(how))
    monkeypatch.setattr(daemon, "json", SimpleNamespace(loads=interrupted))
    with pytest.raises(Interrupted):
        served(lambda progress, begin: None)
    assert killed == []


def test_a_log_is_made_shorter_by_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "log"
    line = b"0123456789abcde\n"
    for size, left in (
        (1 << 20, 1 << 20),
        ((1 << 20) + 16, (1 << 18) - 16),
        ((1 << 20) + 1, 1 << 18),
    ):
        path.write_bytes((line * 65537)[: size - 1] + b"\n")
        fd = os.open(path, os.O_RDWR | os.O_APPEND)
        output.shorten(fd)
        os.close(fd)
        kept = path.read_bytes()
        if size % 16 == 0:
            assert (len(kept), kept[:16]) == (left, line), size
        else:
            assert left - 16 <= len(kept) < left
            assert kept.startswith(line)


@pytest.mark.parametrize(
    ("level", "handlers", "shown"),
    [(logging.WARNING, True, ["WARNING"]), (logging.DEBUG, True, ["DEBUG", "INFO", "WARNING"]),
     (logging.WARNING, False, [])],
)  # fmt: skip
def test_in_the_foreground_the_log_has_it_too(
    tmp_path: Path, level: int, handlers: bool, shown: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And standard error hears no more than before."""
    heard, root = io.StringIO(), logging.Logger("root", level)
    monkeypatch.setattr(logging, "getLogger", lambda: root)
    monkeypatch.setattr(logging.StreamHandler, "terminator", "\n")
    if handlers:
        root.addHandler(logging.StreamHandler(heard))
        root.handlers[0].setFormatter(logging.Formatter("%(levelname)s"))
    log = tmp_path / "log"
    log.write_text("before\n")
    output.log_too(SimpleNamespace(log_file=None))([])  # type: ignore[arg-type]
    assert len(root.handlers) == handlers
    output.log_too(SimpleNamespace(log_file=log))(["said"])  # type: ignore[arg-type]
    for name in ("debug", "info", "warning"):
        getattr(root, name)(name)
    assert [type(each).__name__ for each in root.handlers] == ["StreamHandler", "_LogHandler"]
    assert root.handlers[0].level == level
    root.handlers[1].stream.close()  # type: ignore[attr-defined]
    assert heard.getvalue().split() == shown
    lines = log.read_text().splitlines()
    said = ["debug"] * (level == logging.DEBUG) + ["info", "warning"]
    assert [line.rpartition(" root: ")[2] for line in lines] == ["before", *said]


# -- unmounting


@pytest.fixture
def unmounted(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """What the system says while something is unmounted; `busy` unless a test says otherwise."""
    said = SimpleNamespace(code=1, output="first\numount: busy", mounted=True, users=[], inside=[],
                           runs=[], waits=[], ends=True)  # fmt: skip

    def run(command: list[str]) -> tuple[int, str]:
        said.runs.append(command)
        return said.code, said.output

    def wait(pid: int, seconds: float) -> bool:
        said.waits.append((pid, seconds))
        return bool(said.ends)

    monkeypatch.setattr(mountpoint, "_run", run)
    monkeypatch.setattr(mountpoint, "_BUSY_SECONDS", -1)
    monkeypatch.setattr(mountpoint, "find_mount", lambda path: said.mounted or None)
    monkeypatch.setattr(mountpoint, "processes_using", lambda path: iter(said.users))
    monkeypatch.setattr(
        mountpoint, "mounts", lambda: [SimpleNamespace(mountpoint=each) for each in said.inside]
    )
    monkeypatch.setattr(mountpoint, "find_on_path", lambda name: f"/bin/{name}")
    monkeypatch.setattr(mountpoint.sys, "platform", "linux")
    monkeypatch.setattr(mountpoint, "wait_for_exit", wait)
    return said


@pytest.mark.parametrize(
    ("says", "line"),
    [
        ({}, "cannot unmount: umount: busy (/m)"),
        ({"output": ""}, "cannot unmount: no reason given (/m)"),
        ({"mounted": False}, "nothing is mounted there (/m)"),
        ({"users": ["sh (pid 1)"], "inside": ["/m/a"]}, "the folder is in use by sh (pid 1) (/m); "
         "end them or leave the folder, and try again"),
        ({"users": list("abcdefgh")}, "the folder is in use by a, b, c, d, e, f, g, h (/m); end "
         "them or leave the folder, and try again"),
        ({"users": list("abcdefghi")}, "the folder is in use by a, b, c, d, e, f, g, h, ... (/m); "
         "end them or leave the folder, and try again"),
        ({"inside": ["/m", "/mm", "/m/a", "/m/b"]}, "something else is mounted in it, at /m/b "
         "(/m); unmount that first"),
        ({"inside": ["/m", "/mm"]}, "cannot unmount: umount: busy (/m)"),
        ({"code": 0, "ends": False}, "unmounted, but its process 5 did not end within 60 s (/m); "
         "a container that was started meanwhile may hold a copy of the mount; see the mount's "
         "log"),
    ],
)  # fmt: skip
def test_what_keeps_a_mount(unmounted: SimpleNamespace, says: dict[str, Any], line: str) -> None:
    vars(unmounted).update(says)
    with pytest.raises(RomfsError) as refused:
        mountpoint.unmount("/m", pid=5)
    assert refused.value.line == line
    assert isinstance(refused.value, UsageError) is line.startswith("nothing")
    assert unmounted.runs == [["/bin/fusermount3", "-u", "--", "/m"]]
    assert unmounted.waits == ([(5, 60.0)] if says.get("code") == 0 else [])


@pytest.mark.parametrize("ends", [True, False])
def test_a_mount_that_is_taken_away_lazily(unmounted: SimpleNamespace, ends: bool) -> None:
    unmounted.code, unmounted.ends = 0, ends
    assert mountpoint.unmount("/m", pid=5, lazy=True) is ends
    assert mountpoint.unmount("/m", lazy=True) is True
    assert unmounted.runs == [["/bin/fusermount3", "-uz", "--", "/m"]] * 2
    assert unmounted.waits == [(5, 2.0)]


def test_what_unmounts(monkeypatch: pytest.MonkeyPatch) -> None:
    there = {"fusermount3", "fusermount"}
    monkeypatch.setattr(mountpoint, "find_on_path", lambda name: name if name in there else None)
    for system, program, usual, lazy in (
        ("linux", "fusermount3", ["fusermount3", "-u", "--"], ["fusermount3", "-uz", "--"]),
        ("linux", "fusermount", ["fusermount", "-u", "--"], ["fusermount", "-uz", "--"]),
        ("linux", "", ["umount"], ["umount", "-l"]), ("freebsd", "", ["umount"], ["umount", "-l"]),
        ("darwin", "x", ["umount"], ["umount", "-f"]),
    ):  # fmt: skip
        monkeypatch.setattr(mountpoint.sys, "platform", system)
        assert (mountpoint._unmounter(), mountpoint._unmounter(lazy=True)) == (usual, lazy)
        there.discard(program)
    assert mountpoint._run(["/no/such"]) == (1, "[Errno 2] No such file or directory: '/no/such'")
    assert mountpoint._run(["sh", "-c", "pwd; echo \u00e9 >&2; exit 3"]) == (3, "/\n\u00e9")


@pytest.mark.parametrize(
    ("answers", "left"),
    [([None, PermissionError, ProcessLookupError], True), ([ProcessLookupError], True),
     ([None] * 9, False)],
)  # fmt: skip
def test_a_process_is_waited_for_without_a_descriptor_of_it(
    answers: list[type[OSError] | None], left: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kernel, a sandbox or a system without pidfd_open: it is asked 50 times a second."""
    now, asked = [0.0], []

    def kill(pid: int, number: int) -> None:
        asked.append((pid, number))
        if error := answers[len(asked) - 1]:
            raise error

    def sleep(seconds: float) -> None:
        now[0] += seconds

    def refused(pid: int) -> int:
        raise OSError(errno.ENOSYS, "no such call")

    monkeypatch.setattr(mountpoint.os, "pidfd_open", refused, raising=False)
    monkeypatch.setattr(mountpoint.os, "kill", kill)
    clock = SimpleNamespace(monotonic=lambda: now[0], sleep=sleep)
    monkeypatch.setattr(mountpoint, "time", clock)
    assert mountpoint.wait_for_exit(7, 0.17) is left
    assert asked == [(7, 0)] * len(answers)
