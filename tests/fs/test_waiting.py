"""A request that lasts holds up nobody, and costs nothing when it has ended."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mounts import Mounted
from processes import SECONDS, ended, until

from romfsfs.fs import ending, request_loop
from romfsfs.system.mount_table import answers

STATE = "user.romfs.state"
MOMENT = 0.3  # seconds, for what nothing shows: that a request waits inside libfuse


class Callers:
    """Calls in threads, each with its result or error number. `go` lets those end that last."""

    def __init__(self, mounted: Mounted) -> None:
        self.mounted = mounted
        self.results: dict[str, object] = {}
        self.threads: list[threading.Thread] = []

    def start(self, name: str, call: Callable[..., object], *args: object) -> None:
        def run() -> None:
            try:
                self.results[name] = call(*args)
            except OSError as error:
                self.results[name] = error.errno

        self.threads.append(threading.Thread(target=run, daemon=True))
        self.threads[-1].start()

    def start_long(self, name: str, path: Path) -> None:
        before = self.waiting()
        self.start(name, os.getxattr, path, STATE)
        until(lambda: self.waiting() > before)

    def waiting(self) -> int:
        return self.mounted.calls().count("waiting")

    def go(self) -> None:
        (self.mounted.state / "go").touch()

    def alive(self) -> bool:
        return any(thread.is_alive() for thread in self.threads)

    def ended(self) -> bool:
        deadline = time.monotonic() + SECONDS
        for thread in self.threads:
            thread.join(max(0, deadline - time.monotonic()))
        return not self.alive()


@pytest.fixture
def callers(mounted: Mounted) -> Iterator[Callers]:
    callers = Callers(mounted)
    try:
        yield callers
        callers.go()
        assert callers.ended()
    finally:
        if callers.alive():
            mounted.kill()  # or this process could not end


def _threads(mounted: Mounted) -> int:
    return len(os.listdir(f"/proc/{mounted.pid}/task"))


def test_a_rename_that_waits_stops_nothing_for_good(mounted: Mounted, callers: Callers) -> None:
    # libfuse before 3.13: a rename that waits for one path and holds the other, and an rmdir of
    # the folder of both, wait for each other.
    (mounted.work / "p/a").mkdir(parents=True)
    (mounted.work / "p/b").mkdir()
    (mounted.work / "p/a/slow").touch()
    folder = mounted.mnt / "p"
    callers.start_long("state", folder / "a/slow")
    callers.start("rename", os.rename, folder / "a/slow", folder / "b/f")
    time.sleep(MOMENT)
    os.statvfs(mounted.mnt)  # with every answer libfuse looks who may go on
    callers.start("rmdir", os.rmdir, folder)
    time.sleep(MOMENT)
    os.statvfs(mounted.mnt)
    callers.go()
    assert callers.ended()
    assert callers.results == {"state": b"ready", "rename": None, "rmdir": errno.ENOTEMPTY}
    assert os.listdir(folder / "b") == ["f"]


def test_the_mount_answers_beside_many_requests_that_last(
    mounted: Mounted, callers: Callers
) -> None:
    names = [f"{number}slow" for number in range(30)]
    for name in names:
        (mounted.work / name).touch()
        callers.start_long(name, mounted.mnt / name)
    (mounted.mnt / "f").write_text("written")
    (mounted.mnt / "f").rename(mounted.mnt / "g")
    assert (mounted.mnt / "g").read_text() == "written"
    assert len(os.listdir(mounted.mnt)) == len(names) + 1
    assert callers.results == {}
    assert _threads(mounted) > len(names)
    callers.go()
    assert callers.ended()
    assert set(callers.results.values()) == {b"ready"}
    # libfuse 3 keeps ten, and ends those beyond as they get something to do.
    for _ in range(len(names)):
        os.statvfs(mounted.mnt)
    until(lambda: _threads(mounted) <= 13)


def test_a_look_at_a_large_tree_is_no_mount_that_does_not_answer(
    place: Mounted, callers: Callers
) -> None:
    """Each change of the tree makes the next question how full it is a long one."""
    place.settings(slow=True, capacity=1 << 20)
    place.unmount()
    place.mount()
    callers.start("df", os.statvfs, place.mnt)
    until(callers.waiting)
    assert answers(place.mnt, SECONDS / 2)
    assert callers.results == {}
    callers.go()
    assert callers.ended()


def test_a_mount_that_nobody_uses_sleeps(mounted: Mounted, callers: Callers) -> None:
    def wakings() -> int:
        count = 0
        for task in Path(f"/proc/{mounted.pid}/task").iterdir():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it just ended
                lines = (task / "status").read_text().splitlines()
                count += sum(int(line.split()[1]) for line in lines if line.startswith("volun"))
        return count

    before = -1

    def quiet() -> bool:
        nonlocal before
        last, before = before, wakings()
        time.sleep(MOMENT)
        return last == before

    until(quiet)
    # And wakes up for requests that last.
    for name in ("1slow", "2slow", "3slow"):
        (mounted.work / name).touch()
        callers.start_long(name, mounted.mnt / name)
    assert (mounted.mnt / "1slow").read_bytes() == b""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_lets_a_request_end_that_lasts(
    mounted: Mounted, callers: Callers, number: signal.Signals
) -> None:
    (mounted.work / "slow").touch()
    callers.start_long("state", mounted.mnt / "slow")
    os.kill(mounted.pid, number)
    time.sleep(MOMENT)
    assert not ended(mounted.pid)
    callers.go()
    assert callers.ended()
    assert callers.results == {"state": b"ready"}
    mounted.wait_for_end()
    assert not os.path.ismount(mounted.mnt)
    assert mounted.calls()[-1] == "close"


def test_a_signal_in_a_worker_s_wait_ends_no_mount() -> None:
    """The kernel gives a process's signal to whatever thread it likes: one that waits for requests
    waits on, unless the mount is to end."""
    answers = iter([-errno.EINTR, 40, -errno.EINTR, 40, 0])
    done: list[int] = []
    call = SimpleNamespace(
        receive=lambda *args: next(answers), process=lambda *args: done.append(args[2])
    )
    loop = SimpleNamespace(
        call=call,
        session=0,
        channel=0,
        apart=threading.Lock(),
        asleep=0,
        ending=False,
        failed=False,
    )
    worker: Any = SimpleNamespace(_loop=loop, _size=64, has_place=True, begun=0, busy=False)
    buffer = ctypes.create_string_buffer(64)
    assert not request_loop._Worker._serve(worker, buffer)
    assert (done, worker.begun, loop.failed) == ([40, 40], 2, False), "0: it was unmounted"
    loop.ending, answers = True, iter([-errno.EINTR, 40])
    assert not request_loop._Worker._serve(worker, buffer)
    assert (worker.begun, loop.failed) == (2, False)
    loop.ending, answers = False, iter([-errno.EIO])
    assert not request_loop._Worker._serve(worker, buffer)
    assert loop.failed


@pytest.mark.usefixtures("signals")
def test_only_the_nudge_interrupts_what_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wait for fusermount3 that a second Ctrl-C cut short would leave the mount behind."""
    chosen: dict[int, bool] = {}
    made = ending.Ending.__new__(ending.Ending)
    made._over = threading.Event()
    monkeypatch.setattr(made, "_watch", lambda reading: os.close(reading), raising=False)
    monkeypatch.setattr(ending.signal, "siginterrupt", lambda n, flag: chosen.update({n: flag}))
    assert made.around(lambda: 7)() == 7
    assert chosen == {**dict.fromkeys(ending.END, False), ending.NUDGE: True}
