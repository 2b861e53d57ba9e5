"""`push --all` by its parts: ports that change from look to look, the log's bytes, who is opened.

With cameras: `test_production.py`.
"""

from __future__ import annotations

import errno
import os
import signal
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from spoken import Spoken

from romfsfs.boards import get_board
from romfsfs.cli import plugged, production, production_log
from romfsfs.cli.production import Line, Order
from romfsfs.cli.production_log import Log
from romfsfs.devices.base import DeviceInfo, WriteReport
from romfsfs.devices.discovery import CameraPort
from romfsfs.errors import (
    DeviceAbsent,
    DeviceBusy,
    DeviceError,
    DeviceLost,
    RomfsError,
    UsageError,
)
from romfsfs.image.writer import encode
from romfsfs.session.rebase.push import PushOptions, PushResult
from romfsfs.system.files import digest_bytes

HEAD = b"time,port,id,firmware,digest,outcome\n"
REPORT = WriteReport(1, 1, 1.0, True)


def test_the_bytes_of_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each row is on the disk before the next camera; what stands there stays as it is."""
    path = tmp_path / "log.csv"
    synced: list[bytes] = []
    sync = os.fsync
    monkeypatch.setattr(
        production_log.os, "fsync", lambda fd: synced.append(path.read_bytes()) or sync(fd)
    )
    before = os.umask(0)
    try:
        log = Log(str(path))
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o644
    assert synced == [HEAD]
    log.row("p1", None, "d", 'a "b", c')
    log.close()
    first = path.read_bytes().removeprefix(HEAD)
    assert first.partition(b",")[2] == b'p1,,,d,"a ""b"", c"\n'
    with open(path, "ab") as file:
        file.write(b"half a row")
    log = Log(str(path))
    info = DeviceInfo("serial", "B/77/0", "N", firmware="1.2")
    for name in ("p2", "p3"):
        log.row(name, info, "", "written")
    log.close()
    rows = path.read_bytes().splitlines(keepends=True)
    assert rows[:3] == [HEAD, first, b"half a row\n"]
    assert [row.partition(b",")[2] for row in rows[3:]] == [
        b"p2,77,1.2,,written\n", b"p3,77,1.2,,written\n"
    ]  # fmt: skip
    assert len(synced) == 4
    assert synced[1:] == [b"".join(rows[:2]), b"".join(rows[:4]), b"".join(rows)]


def test_what_is_no_log_is_not_written_to(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    for data in (b"time,port\n", HEAD.upper(), b"\n" + HEAD):
        path.write_bytes(data)
        with pytest.raises(UsageError, match="not a log of push"):
            Log(str(path))
        assert path.read_bytes() == data
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError) as caught:
        Log(str(tmp_path / "pipe"))
    assert caught.value.line == f"not a log of push ({tmp_path}/pipe); name another file"


def test_a_row_that_cannot_be_written_says_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = Log(str(tmp_path / "log.csv"))

    def fails(*what: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(production_log.os, "fsync", fails)
    monkeypatch.setattr(production_log.os, "ftruncate", fails)  # which spoils nothing more
    with pytest.raises(OSError, match="Input/output") as caught:
        log.row("p1", None, "", "written")
    assert caught.value.filename == str(tmp_path / "log.csv")
    log.close()


class Ports:
    """What is plugged in, from one look to the next, and what writing comes to. told: the looks,
    the pauses and what was written, in order. Writing is done at once."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *looks: Any, **outcomes: Any) -> None:
        self.told: list[object] = []
        self.looks, self.outcomes = list(looks), outcomes
        self.output = Spoken()
        self.codes: list[str] = []
        order = Order("x.img", None, None, PushOptions())
        self.line = Line(self.output, order, self.look, None, self.report)
        self.line._pool.shutdown()
        pool: Any = SimpleNamespace(submit=self.submit, shutdown=lambda: self.told.append("end"))
        self.line._pool = pool
        monkeypatch.setattr(production.time, "sleep", lambda seconds: self.told.append(seconds))

    def look(self) -> Mapping[str, object]:
        self.told.append("look")
        if not self.looks:
            os.kill(os.getpid(), signal.SIGINT)
            return {}
        look = self.looks.pop(0)
        if isinstance(look, Exception):
            raise look
        return look  # type: ignore[no-any-return]

    def submit(self, write: Callable[[str], PushResult], name: str) -> Future[PushResult]:
        assert write == self.line._write
        self.told.append(name)
        done: Future[PushResult] = Future()
        outcome = self.outcomes.get(name, REPORT)
        done.set_result(outcome.pop(0) if isinstance(outcome, list) else outcome)
        return done

    def report(self, name: str, outcome: PushResult) -> int:
        return outcome.exit_code if isinstance(outcome, RomfsError) else 0


def test_a_port_is_written_when_two_looks_show_it_once_each_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It was plugged in again when it is another file; one that another program had is tried again
    at once, one that failed when it comes back; a look that fails is no end."""
    ports = Ports(
        monkeypatch,
        {"a": 1}, {"a": 1}, {"a": 1}, {"a": 2}, DeviceLost("no"), {"a": 2}, {"a": 2, "b": 1},
        OSError(errno.ENOSPC, "full"), {"b": 1}, {"b": 1}, {}, {"b": 1}, {"b": 1}, {"b": 1},
        b=[DeviceBusy("in use"), DeviceLost("gone"), None],
    )  # fmt: skip
    monkeypatch.setattr(production, "LOOK_SECONDS", 7.0)
    assert ports.line.run(watch=True) == 5
    idle = [7.0, "look"]
    assert ports.told == [
        "look", *idle, "a", "look", *idle, *idle, "a", "look", *idle, *idle, "b", "look", "b",
        "look", *idle, *idle, *idle, "b", "look", *idle, "end",
    ]  # fmt: skip
    assert ports.output.said == [
        "note: waiting for cameras; Ctrl-C stops after the writes in progress",
        "2 written, 1 had it already, 1 failed",  # which of them came back, nobody can tell
    ]


def test_what_is_plugged_in_now_is_written_once(monkeypatch: pytest.MonkeyPatch) -> None:
    ports = Ports(monkeypatch, {"a": 1, "b": 2}, a=DeviceLost("gone"), b=None)
    assert ports.line.run(watch=False) == 5
    assert ports.told == ["look", "a", "b", "end"]
    assert ports.output.said == []


@pytest.mark.parametrize("watch", [True, False])
def test_signals_while_a_line_runs(monkeypatch: pytest.MonkeyPatch, watch: bool) -> None:
    """The first ends it, the second interrupts what is written; without --watch the first does.
    What was ignored stays so, and in the end all is as it was."""
    ends = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    ports = Ports(monkeypatch)
    line = ports.line
    seen: list[object] = []

    def serve(watching: bool) -> None:
        assert watching is watch
        seen.append(signal.getsignal(signal.SIGHUP))
        for number in ends[:2]:
            os.kill(os.getpid(), number)
            seen.append((line._ending, line._stop.is_set()))

    monkeypatch.setattr(line, "_serve", serve)
    usual = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        before = [signal.getsignal(number) for number in ends]
        assert line.run(watch=watch) == 0
        assert [signal.getsignal(number) for number in ends] == before
    finally:
        signal.signal(signal.SIGHUP, usual)
    assert seen == [signal.SIG_IGN, (True, not watch), (True, True)]
    assert ports.told == ["end"]


def test_a_closed_terminal_interrupts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """It sends two SIGHUPs, but nobody pressed Ctrl-C twice."""
    line = Ports(monkeypatch).line
    seen = []

    def serve(watching: bool) -> None:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGHUP)
            seen.append((line._ending, line._stop.is_set()))

    monkeypatch.setattr(line, "_serve", serve)
    usual = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        assert line.run(watch=True) == 0
    finally:
        signal.signal(signal.SIGHUP, usual)
    assert seen == [(True, False)] * 2


def rows(path: Path) -> list[bytes]:
    """Of a log, without their times."""
    return sorted(row.partition(b",")[2] for row in path.read_bytes().splitlines()[1:])


@pytest.mark.parametrize("log", ["log.csv", None])
def test_what_cannot_be_printed_is_in_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: str | None
) -> None:
    """The terminal was closed, or the disk behind standard output is full: no more are begun."""
    ports = Ports(monkeypatch, {"a": 1, "b": 1}, {"a": 1, "b": 1}, b=DeviceLost("gone"))
    line = ports.line

    def report(name: str, outcome: PushResult) -> int:
        raise OSError(errno.EIO, "Input/output error", "standard output")

    monkeypatch.setattr(line, "_report", report)
    line._log = Log(str(tmp_path / log)) if log else None
    assert line.run(watch=True) == 5
    if line._log:
        line._log.close()
        assert rows(tmp_path / "log.csv") == [b"a,,,,written", b"b,,,,failed: gone"]
    assert sorted(ports.output.said) == [
        "1 written, 0 had it already, 1 failed",
        "error: input/output error (standard output); not printed: a, written; no more cameras are "
        "written",
        "error: input/output error (standard output); not printed: b, failed: gone; no more "
        "cameras are written",
        "note: waiting for cameras; Ctrl-C stops after the writes in progress",
    ]
    assert ports.looks == []
    assert ports.told[-1] == "end"


def test_whatever_ends_a_line_what_is_being_written_has_a_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = threading.Event()
    looks = 0

    def look() -> Mapping[str, object]:
        nonlocal looks
        looks += 1
        if looks > 2:
            go.set()
            raise ValueError("a fault of ours")
        return {"a": 1, "b": 1}

    def write(name: str) -> PushResult:
        assert go.wait(60)
        return REPORT

    monkeypatch.setattr(production, "LOOK_SECONDS", 0)
    output, log = Spoken(), Log(str(tmp_path / "log.csv"))
    line = Line(output, Order("x.img", None, None, PushOptions()), look, log, lambda *_: 0)
    monkeypatch.setattr(line, "_write", write)
    with pytest.raises(ValueError, match="a fault of ours"):
        line.run(watch=True)
    log.close()
    assert rows(tmp_path / "log.csv") == [b"a,,,,written", b"b,,,,written"]
    assert output.said[1:] == ["note: finishing what is being written; Ctrl-C again interrupts it"]


class Camera:
    def __init__(self, about: DeviceInfo, told: list[object]) -> None:
        self.about, self.told = about, told

    def info(self) -> DeviceInfo:
        return self.about

    def close(self) -> None:
        self.told.append("closed")


def test_who_is_opened_and_who_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A camera of another board is left before it is asked for more, and one that was written."""
    told: list[object] = []
    about = DeviceInfo("serial", "OPENMV4P/77/0", "its name")

    def open_device(name: str, *, accept: Callable[[object], None], **how: object) -> Camera:
        told.append((name, how))
        said = {"a": None, "b": get_board("N6"), "c": get_board("OPENMV4P")}[name]
        accept(SimpleNamespace(board=said, unique_id="", partitions=("one",)))
        return Camera(about, told)

    monkeypatch.setattr(production, "open_device", open_device)
    how = {"board": "OPENMV4P", "partition": 1, "slot": "B"}
    order = Order("x.img", "OPENMV4P", 1, PushOptions(slot="B"))
    line = Line(Spoken(), order, dict, None, lambda name, outcome: 0)
    for name in ("a", "c"):
        told.clear()
        with line._opened(name) as device:
            assert device.info() is about
            assert told == [(name, how)]
        assert told == [(name, how), "closed"]
        assert line._infos == {name: about}
        line._infos.clear()
    for name, written, said, closed in (
        ("b", "", "OPENMV_N6 on b, not OPENMV4P: left alone", []),
        ("c", "77", "its name was written before: left alone", ["closed"]),
    ):
        told.clear()
        line._written = {written}
        with pytest.raises(production._LeftAlone) as caught, line._opened(name):
            pytest.fail("it is to be left alone")
        assert caught.value.what == said
        assert told == [(name, how), *closed]
    line._order = Order("x.img", None, None, PushOptions())
    line._written = set()
    with line._opened("b") as device:
        assert device.info() is about


class OldFirmware:
    """A camera whose firmware reaches no ROMFS, on port p: opening it sends it to its boot loader,
    and it is another device file when it comes back."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, unique_id: str, loader_id: str) -> None:
        self.facts = SimpleNamespace(
            board=get_board("OPENMV4"), unique_id=unique_id, partitions=(), firmware="1.2"
        )
        self.about = DeviceInfo(
            "dfu", f"OPENMV4/{loader_id}/0", "in its loader", has_id=bool(loader_id)
        )
        self.inode, self.now, self.sent = 1, 100.0, 0
        self.loader = True
        monkeypatch.setattr(production, "open_device", self.open)
        monkeypatch.setattr(production, "usb_path", lambda port: "1-2")
        monkeypatch.setattr(production, "inode_of", lambda port: self.inode)
        monkeypatch.setattr(production.time, "monotonic", lambda: self.now)
        order = Order("x.img", "OPENMV4", None, PushOptions())
        self.line = Line(Spoken(), order, dict, None, lambda *_: 0)
        self.line._pool.shutdown()

    def open(self, name: str, *, accept: Callable[[object], None], **how: object) -> Camera:
        accept(self.facts)
        if not self.loader:
            raise DeviceError("dfu-util is not installed")
        self.sent += 1
        self.inode = 0
        return Camera(self.about, [])

    def write(self, *, error: RomfsError | None = None, back: bool = True) -> str:
        """What comes of writing it: why it is left alone, or ''."""
        self.now += 20.0  # before, or while it is written
        try:
            with self.line._opened("p"):
                if error:
                    raise error
        except RomfsError as caught:
            if caught is not error:
                return caught.what
        finally:
            self.inode = self.sent + 1 if back else 0
        return ""


BACK = "OPENMV4 on p is back from its boot loader: left alone"


@pytest.mark.parametrize(
    ("unique_id", "loader_id", "then"),
    [
        ("77", "ff", "OPENMV4 on p was written before: left alone"),
        ("", "ff", "in its loader was written before: left alone"), ("", "", ""),
    ],
)  # fmt: skip
def test_a_camera_that_restarts_is_not_plugged_in(
    monkeypatch: pytest.MonkeyPatch, unique_id: str, loader_id: str, then: str
) -> None:
    """It comes back from its boot loader by itself, written or not, once; and is not sent there
    again if its id tells that it was written."""
    camera = OldFirmware(monkeypatch, unique_id, loader_id)
    assert camera.write() == ""
    number = production_log.unique_id(camera.line._infos["p"])
    assert number == (unique_id or loader_id), "as its firmware says it, where it does"
    camera.line._written |= {number} - {""}  # as `_note` does
    camera.now -= 19.0
    assert (camera.write(), camera.sent) == (BACK, 1)
    assert camera.write() == then
    assert camera.sent == (1 if unique_id else 2)


def test_a_camera_that_failed_in_its_boot_loader(monkeypatch: pytest.MonkeyPatch) -> None:
    """It restarts too, and is tried again when it is plugged in again; at once if its cable was
    pulled, or if it was never sent there."""
    camera = OldFirmware(monkeypatch, "77", "ff")
    camera.write(error=DeviceError("offers no ROMFS0"))
    camera.now -= 19.0
    assert camera.write() == BACK
    for error, loader in ((DeviceLost("the cable"), True), (None, False)):
        camera.loader = loader
        assert camera.write(error=error) == ("" if loader else "dfu-util is not installed")
        camera.now -= 19.0
        camera.loader = True
    assert camera.write() == ""
    assert camera.sent == 3


def test_a_camera_that_fails_before_it_is_open_counts_by_its_id(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its firmware told that before it was to go to its boot loader."""
    camera = OldFirmware(monkeypatch, "77", "ff")
    camera.loader = False
    assert camera.write() == "dfu-util is not installed"
    info = camera.line._infos["p"]
    assert (production_log.unique_id(info), info.firmware) == ("77", "1.2")
    monkeypatch.setattr(camera.line, "_report", lambda name, outcome: outcome.exit_code)
    camera.line._note("p", DeviceError("dfu-util is not installed"))
    assert camera.line._codes == {"77": 5}


def test_what_writing_one_comes_to(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    outcome: Any = REPORT

    def push(image: str, cameras: list[str], opened: object, options: object, check: Any) -> Any:
        asked.append((image, cameras, opened == line._opened, options))
        check("writing", 1, 2)
        if isinstance(outcome, Exception):
            raise outcome
        return {cameras[0]: outcome}

    monkeypatch.setattr(production, "push_all", push)
    options = PushOptions(True)
    line = Line(Spoken(), Order("x.img", None, None, options), dict, None, lambda *_: 0)
    assert line._write("p") is REPORT
    outcome = OSError(errno.EIO, "Input/output error", "x.img")
    failed = line._write("p")
    assert isinstance(failed, RomfsError)
    assert failed.line.startswith("input/output error (x.img); ")
    assert asked == [("x.img", ["p"], True, options)] * 2
    line._stop.set()
    interrupted = line._write("p")
    assert isinstance(interrupted, RomfsError)
    assert (interrupted.exit_code, interrupted.line) == (
        130, "interrupted (p); repeat the command"
    )  # fmt: skip
    assert len(asked) == 2, "it is not begun"
    line._pool.shutdown()


def test_ports_of_cameras(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """By what changes when one is plugged in again; one that has just gone is none."""
    (tmp_path / "a").touch()
    found = (CameraPort(str(tmp_path / "a")), CameraPort(str(tmp_path / "gone")))
    monkeypatch.setattr(plugged, "serial_cameras", lambda: found)
    assert plugged.serial_ports() == {str(tmp_path / "a"): (tmp_path / "a").stat().st_ino}


IMAGE = encode({"a.txt": b"1"})


@pytest.mark.parametrize(
    ("sources", "given", "fits", "watch", "board", "error"),
    [
        ([], None, ["N6"], True, "OPENMV_N6", ""), ([], None, ["N6"], False, "OPENMV_N6", ""),
        ([], "OPENMV2", [], True, "OPENMV2", ""),
        ([], None, ["N6", "OPENMV2"], False, None, ""), ([], None, [], False, None, ""),
        ([], None, ["OPENMV2", "N6"], True, None,
         "the image does not say what board it is for; it may work on OPENMV2, OPENMV_N6 (x.img); "
         "add --board BOARD: cameras of other boards are left alone"),
        ([], None, [], True, None,
         "the image does not say what board it is for; it may work on none that is known (x.img); "
         "add --board BOARD: cameras of other boards are left alone"),
        (["dfu:N6"], None, ["N6", "OPENMV2"], True, None, ""),
        (["dfu:N6"], "OPENMV_N6", [], False, None, ""),
        (["dfu:N6"], "OPENMV_AE3", [], False, None,
         "--board OPENMV_AE3 is another board (dfu:N6); leave one of them out"),
        (["dfu:N6", "dfu:AE3"], None, [], False, None,
         "--all chooses the cameras itself (dfu:N6); name cameras, or use --all alone or with one "
         "dfu:BOARD"),
        (["dfu:N6@1-2"], None, [], False, None,
         "--all chooses the cameras itself (dfu:N6@1-2); name cameras, or use --all alone or with "
         "one dfu:BOARD"),
        (["camera"], None, [], False, None,
         "--all chooses the cameras itself (camera); name cameras, or use --all alone or with one "
         "dfu:BOARD"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("log", [None, "log.csv"])
def test_the_whole_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sources: list[str], given: str | None,
    fits: list[str], watch: bool, board: str | None, error: str, log: str | None,
) -> None:  # fmt: skip
    made: list[Any] = []
    asked: list[object] = []

    class Made:
        def __init__(self, *what: object) -> None:
            made.append(what)

        def run(self, *, watch: bool) -> int:
            asked.append(watch)
            raise DeviceAbsent("none is there")

    def check_fit(image: object, name: str, info: DeviceInfo) -> tuple[int, None]:
        if info.board and info.board not in [get_board(each).name for each in fits]:
            raise production.ImageError("not there")
        return len(IMAGE) - 2, None

    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.img").write_bytes(IMAGE)
    monkeypatch.setattr(production, "Line", Made)
    monkeypatch.setattr(production, "check_fit", check_fit)
    monkeypatch.setattr(production, "Log", lambda path: SimpleNamespace(
        path=path, close=lambda: asked.append(f"{path} closed")))  # fmt: skip
    order = Order("x.img", given, 1, PushOptions(True))
    output: Any = "output"
    report: Any = "report"
    with pytest.raises(RomfsError) as caught:
        production.every(output, order, sources, log, report, watch=watch)
    if error:
        assert caught.value.line == error
        assert made == []
        return
    ((shown, wanted, look, written, reported),) = made
    digest = digest_bytes(IMAGE[:-2])
    assert wanted == Order("x.img", board, 1, PushOptions(True), digest)
    assert (shown, reported, written and written.path) == (output, report, log)
    assert (look is plugged.serial_ports) is (not sources)
    assert asked == [watch, *([f"{log} closed"] if log else [])]


def test_so_many_cameras_are_written_at_once() -> None:
    line = Line(Spoken(), Order("x.img", None, None, PushOptions()), dict, None, lambda *_: 0)
    assert line._pool._max_workers == 16
    line._pool.shutdown()
