"""A time of change proves that nothing changed since, but only when it is old enough."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from romfsfs.session.keep.state import Signature
from romfsfs.session.tree.digests import certain
from romfsfs.system import clock

SECOND = 1_000_000_000


def test_a_change_after_the_wait_has_another_time(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    for number in range(50):
        path.write_bytes(bytes([number]))
        before = path.stat().st_ctime_ns
        clock.wait_until_certain([before])
        path.write_bytes(b"x")
        assert path.stat().st_ctime_ns != before


def test_a_clock_of_file_times_that_is_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A virtual machine whose processor was away: file times stand still, the other clock does
    not. What was written by then would be taken for old."""
    path = tmp_path / "file"
    path.write_bytes(b"x")
    status = path.stat()
    monkeypatch.setattr(clock, "clock_ns", lambda: status.st_ctime_ns)
    time.sleep(0.05)
    assert not certain(Signature.of(os.stat(path)))
    monkeypatch.setattr(clock, "clock_ns", lambda: status.st_ctime_ns + SECOND // 10)
    assert certain(Signature.of(status)) == (status.st_ctime_ns % SECOND != 0)


def test_whole_seconds_take_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_700_000_000 * SECOND
    monkeypatch.setattr(clock, "clock_ns", lambda: now + SECOND)
    assert clock.uncertain_for(now) > 1
    assert clock.uncertain_for(now + 1) < 0


def test_a_clock_that_was_set_back_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does a server's that is ahead: its next tick is waited for, not the hour."""
    now = 1_700_000_000 * SECOND
    slept: list[float] = []
    monkeypatch.setattr(clock, "clock_ns", lambda: now)
    monkeypatch.setattr(clock.time, "sleep", slept.append)
    clock.wait_until_certain([now + 3600 * SECOND + 1, now - 3 * SECOND])
    assert slept == [0.02]
    clock.wait_until_certain([now + 3600 * SECOND + 1, now + 3600 * SECOND])
    assert slept[1:] == [2.02], "whole seconds"
