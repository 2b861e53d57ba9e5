"""Unmounting ends, whatever else goes on: at once, or with the reason why it cannot be."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import needs
import pytest
from processes import ended, stop, until
from real_mount import RealMount

Make = Callable[..., RealMount]

MOMENT = 30  # seconds, on a machine that does much else; waits of a minute would show


def started(script: str, *arguments: object, **options: object) -> subprocess.Popen[bytes]:
    """A user's program, once it has said that it is where it wants to be."""
    program = subprocess.Popen(
        ["sh", "-c", script, "sh", *map(str, arguments)], stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, start_new_session=True, **options,  # type: ignore[call-overload]
    )  # fmt: skip
    assert program.stdout is not None
    assert program.stdout.readline() == b"ready\n"
    return program


def end(program: subprocess.Popen[bytes]) -> None:
    os.killpg(program.pid, signal.SIGKILL)
    program.communicate()


def test_a_mount_in_use_says_by_whom_and_stays(make_mount: Make) -> None:
    place = make_mount().mount()
    pid = place.pid
    (place.mnt / "folder").mkdir()
    for script in (
        'cd "$1/folder"; echo ready; sleep 600',
        'exec 3>"$1/file"; echo ready; sleep 600',
        'exec 3<"$1/.romfs/status"; echo ready; sleep 600',
    ):
        program = started(script, place.mnt)
        try:
            said = place.run("umount", place.mnt, code=1)
            assert (f"(pid {program.pid})" in said) is needs.LINUX  # by what /proc tells
            assert place.is_mounted
            (place.mnt / "goes on").write_text(script)
        finally:
            end(program)
    until(lambda: (place.mnt / ".romfs/writers").read_bytes() == b"")
    place.umount()
    assert ended(pid)


def test_a_reader_that_waits_holds_up_nobody(make_mount: Make) -> None:
    """Someone reads what takes its time, again and again, and dies in the middle of it."""
    place = make_mount().mount()
    for number in range(300):
        (place.mnt / f"f{number}").write_bytes(b"x")
    reader = started(
        'echo ready; while :; do echo >"$1/again"; cat "$1/.romfs/status.json" >/dev/null; done',
        place.mnt,
    )
    pid = place.pid
    end(reader)
    place.umount()
    assert ended(pid)
    assert (place.work / "f299").read_bytes() == b"x"


def test_conversions_that_run_are_left(make_mount: Make) -> None:
    """Scripts and none of them waited for: they are converted after the next mount."""
    place = make_mount().mount()
    for number in range(40):
        (place.mnt / f"s{number}.py").write_text(f"x = {number}\n" * 50)
    pid, begun = place.pid, time.monotonic()
    place.umount()
    assert time.monotonic() - begun < MOMENT
    assert ended(pid)
    assert not _children_of_conversions(place)
    place.mount()
    place.run("commit", place.mnt)
    assert len(place.stored()) == 40
    place.umount()


def _children_of_conversions(place: RealMount) -> list[str]:
    found = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has ended
            found.append(process.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return [line for line in found if str(place.base / "cache") in line]


def test_a_commit_that_runs_ends_first(make_mount: Make) -> None:
    """A commit by `.romfs/ctl` is a program that uses the mount."""
    place = make_mount().mount()
    (place.mnt / "big").write_bytes(os.urandom(1 << 20) * 24)
    committing = started('exec 3>"$1/.romfs/ctl"; echo ready; echo commit >&3', place.mnt)
    for _ in range(100):
        done = place.try_run("umount", place.mnt)
        if done.returncode == 0:
            break
        assert re.search("in use by|a commit of .* is running", done.stderr), done.stderr
    assert committing.wait(MOMENT) == 0
    committing.communicate()
    assert len(place.stored()["big"] or b"") == 24 << 20


def test_a_daemon_that_was_stopped(make_mount: Make) -> None:
    """Ctrl-Z, a debugger, a disk that hangs: the kernel would have everyone wait, for ever."""
    place = make_mount().mount()
    (place.mnt / "edit").write_text("kept")
    pid = place.pid
    stop(pid)
    begun = time.monotonic()
    said = place.run("umount", place.mnt, code=1)
    assert "does not answer" in said
    assert f"kill -CONT {pid}" in said
    assert place.run("status", place.mnt, code=1) == said
    assert place.is_mounted
    said = place.run("umount", "--lazy", place.mnt)
    assert f"kill -9 {pid}" in said
    assert not place.is_mounted
    assert time.monotonic() - begun < 2 * MOMENT
    assert not ended(pid)
    os.kill(pid, signal.SIGCONT)  # and it sees that it is not needed any more
    until(lambda: ended(pid))
    place.mount()
    assert (place.mnt / "edit").read_text() == "kept"
    place.umount()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_daemon_that_is_told_to_end(make_mount: Make, number: signal.Signals) -> None:
    """Logging out, shutting down: it unmounts, and what was written is kept."""
    place = make_mount().mount()
    (place.mnt / "edit").write_text("kept")
    pid = place.pid
    os.kill(pid, number)
    until(lambda: ended(pid))
    assert not place.is_mounted
    assert [line for line in place.complaints() if "Traceback" in line] == []
    place.mount()
    entries = json.loads(place.run("status", "--json", place.mnt))["entries"]
    assert [(entry["path"], entry["change"]) for entry in entries] == [("edit", "added")]
    place.umount()
