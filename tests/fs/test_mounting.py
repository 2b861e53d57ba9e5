"""What happens between the look at a mountpoint and the mount, and what a mount takes along."""

from __future__ import annotations

import os
import select
import signal
import subprocess

import pytest
from mounts import Mounted
from processes import SECONDS, stop, until

from romfsfs.system.mount_table import find_mount, mounts


def being_mounted(place: Mounted) -> subprocess.Popen[str]:
    """A mount whose session takes its time; `go` in its state folder ends that."""
    (place.state / "hold").touch()
    process = subprocess.Popen(
        place.command(), env=place.environment(), stdin=subprocess.DEVNULL, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    until((place.state / "held").exists)
    return process


def test_a_folder_that_filled_up_meanwhile_is_left_alone(place: Mounted) -> None:
    process = being_mounted(place)
    (place.mnt / "put there").write_text("precious")
    (place.state / "go").touch()
    _, said = process.communicate(timeout=SECONDS)
    assert process.returncode == 2
    assert "the folder is not empty" in said
    assert find_mount(str(place.mnt)) is None
    assert place.calls() == ["close"]


def test_two_mounts_at_once_do_not_lie_on_each_other(place: Mounted) -> None:
    for turn in range(2):
        others = place.base / f"other {turn}"
        others.mkdir()
        other = Mounted(others, place.binding)
        other.mnt = place.mnt
        process = being_mounted(place)
        if turn == 0:  # the other is there first
            other.mount()
            (place.state / "go").touch()
            _, said = process.communicate(timeout=SECONDS)
        else:  # nobody knows
            second = being_mounted(other)
            (place.state / "go").touch()
            (other.state / "go").touch()
            ends = [each.communicate(timeout=SECONDS) for each in (process, second)]
            assert sorted(each.returncode for each in (process, second)) == [0, 2]
            (out,) = (out for out, _ in ends if "pid" in out)
            (said,) = (said for _, said in ends if said)
            other.pid = int(out.split()[-1])
        assert "being made there" in said or "is mounted there already" in said
        assert [mount.mountpoint for mount in mounts()].count(str(place.mnt)) == 1
        other.unmount()
        for path in ("hold", "held", "go"):
            (place.state / path).unlink()


def test_what_the_caller_has_open_is_not_taken_along(place: Mounted) -> None:
    """A lock would last as long as the mount, and who reads a pipe to its end wait as long."""
    reading, writing = os.pipe()
    standard, typed = os.pipe()
    done = subprocess.run(
        place.command(), env=place.environment(), stdin=standard, capture_output=True,
        text=True, timeout=SECONDS, check=True, pass_fds=[writing],
    )  # fmt: skip
    os.close(writing)
    os.close(standard)
    place.pid = int(done.stdout.split()[-1])
    with pytest.raises(BrokenPipeError):
        os.write(typed, b"for whoever reads next")
    os.close(typed)
    assert select.select([reading], [], [], SECONDS)[0]
    assert os.read(reading, 1) == b""
    os.close(reading)
    (place.mnt / "f").write_text("x")


def test_a_mount_over_one_that_does_not_answer_is_refused(mounted: Mounted) -> None:
    link = mounted.base / "link"
    link.symlink_to(mounted.mnt)
    stop(mounted.pid)
    try:
        pid, mnt = mounted.pid, mounted.mnt
        mounted.mnt = link
        done = mounted.try_mount()
        mounted.pid, mounted.mnt = pid, mnt
    finally:
        os.kill(mounted.pid, signal.SIGCONT)
    assert done.returncode == 2
    assert f"does not answer ({mounted.mnt}); romfsfs umount --lazy" in done.stderr
