"""Signals while a tool runs: nothing waits for it, and it does not outlive who started it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from processes import ended, until
from real_mount import CLEAN, RealMount

from romfsfs.image.writer import encode

#: romfsfs, with a compiler that takes its time.
SLOW = """
import sys
from romfsfs.cli import main
from romfsfs.system import runner
start = runner._start
runner._start = lambda argv, *rest: start(["sleep", "600"], *rest)
sys.exit(main(sys.argv[1:]))
"""
#: The same; the signal is given to the thread that starts it, which wakes no other.
GIVEN_TO_ANOTHER_THREAD = SLOW.replace(
    "runner._start = lambda argv, *rest: ", "import signal, threading\n"
    "runner._start = lambda argv, *rest: "
    "signal.pthread_kill(threading.get_ident(), signal.SIGINT) or "
)  # fmt: skip


@pytest.fixture
def place(make_mount: Callable[..., RealMount]) -> RealMount:
    place = make_mount()
    place.image.write_bytes(encode({}))
    return place


def start(place: RealMount, *words: object, program: str = SLOW) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, words)],
        env={**place.env, **CLEAN}, cwd=place.base, text=True, start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def tools(place: RealMount) -> Iterator[int]:
    """The tools that run for this place: each works in a folder of its cache."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if os.readlink(process / "cwd").startswith(str(place.base / "cache")):
                yield int(process.name)
        except OSError:
            continue


@pytest.mark.parametrize(
    ("number", "command"),
    [(signal.SIGINT, "build"), (signal.SIGHUP, "commit"), (signal.SIGTERM, "commit")],
)
def test_a_command_that_waits_for_a_tool(
    place: RealMount, number: signal.Signals, command: str
) -> None:
    place.mount()
    (place.mnt / "a.txt").write_text("edit")
    place.umount()
    before = place.image.read_bytes()
    source = place.base / "product" if command == "build" else place.work
    source.mkdir(exist_ok=True)
    (source / "app.py").write_text("x = 1\n")
    running = start(
        place, command, *(["--force", source] if command == "build" else []), place.image
    )
    until(lambda: list(tools(place)))
    running.send_signal(number)
    _, said = running.communicate(timeout=60)
    assert running.returncode == 130, said
    assert "interrupted; " in said.splitlines()[-1]
    assert place.image.read_bytes() == before
    assert not list(tools(place))
    assert not list(place.base.rglob("*.tmp"))
    assert (place.work / "a.txt").read_text() == "edit"


def test_a_signal_that_wakes_nobody_is_noticed_all_the_same(place: RealMount) -> None:
    """As one that comes just before Python waits for a thread."""
    product = place.base / "product"
    product.mkdir()
    (product / "app.py").write_text("x = 1\n")
    running = start(
        place, "build", "--force", product, place.image, program=GIVEN_TO_ANOTHER_THREAD
    )
    _, said = running.communicate(timeout=60)
    assert running.returncode == 130, said
    assert not list(tools(place))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_daemon_whose_tool_runs(place: RealMount, number: signal.Signals) -> None:
    """It unmounts, its tools end with it, and the edits are kept."""
    mounting = start(place, "mount", place.image, place.mnt)
    assert mounting.communicate(timeout=60)[1].endswith("--board takes\n")
    (place.mnt / "app.py").write_text("x = 1\n")
    (place.mnt / "a.txt").write_text("edit")
    until(lambda: list(tools(place)))
    pid = place.pid
    os.kill(pid, number)
    until(lambda: ended(pid))
    assert not place.is_mounted
    assert list(place.mnt.iterdir()) == []
    until(lambda: not list(tools(place)))  # killed, and gone when the kernel has done it
    place._pid = 0
    place.mount()
    assert (place.mnt / "a.txt").read_text() == "edit"
    assert (place.mnt / "app.py").read_text() == "x = 1\n"
    place.umount()


@pytest.mark.parametrize("binding", ["fusepy", "mfusepy"])
def test_a_daemon_that_is_told_to_end_again_and_again(
    binding: str, make_mount: Callable[..., RealMount]
) -> None:
    """By who is impatient: what has still to be done is done, and the tools end with it."""
    place = make_mount(binding)
    place.image.write_bytes(encode({}))
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        mounting = start(place, "mount", place.image, place.mnt)
        mounting.communicate(timeout=60)
        assert mounting.returncode == 0
        (place.mnt / "app.py").write_text(f"x = {number}\n")
        until(lambda: list(tools(place)))
        pid = place.pid
        while not ended(pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
            time.sleep(0.001)
        assert not place.is_mounted
        until(lambda: not list(tools(place)))  # killed, and gone when the kernel has done it
        place._pid = 0
