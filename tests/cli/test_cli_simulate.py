"""`simulate`: who the simulated camera is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cli_mounts import Ran

from romfsfs.cli import machines


def test_two_simulated_cameras_are_two(
    run: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one board: with one id they would share a session, and `push --all` would refuse one."""
    ids = []

    def no_run(config: Any, **given: Any) -> SimpleNamespace:
        ids.append(config.unique_id)
        return SimpleNamespace(programmed=65536, erased_blocks=2, wire_in=70000, wire_out=9)

    monkeypatch.setattr("romfsfs.simulator.server.run_simulator", no_run)
    for words in (("--link", "a"), ("--link", "b"), ("--link", "./a"), ("--flash", "c")):
        done = run("simulate", *words)
        assert done.code == 0
        assert (
            done.err
            == "romfsfs: programmed 65,536 B, erased 2 blocks, received 70,000 B, sent 9 B\n"
        )
    first, second, again, other = ids
    assert first == again
    assert len({first, second, other}) == 3
    assert all(len(each) == 12 for each in ids)


def test_a_slow_link_an_old_firmware_and_a_cut(
    run: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    done = SimpleNamespace(programmed=0, erased_blocks=0, wire_in=0, wire_out=0)
    faults = SimpleNamespace(power_cut_after_programmed=seen.append)

    def no_run(config: Any, ready: Callable[[Any], None], **given: Any) -> SimpleNamespace:
        seen.append((config.latency, config.erase_by_range))
        ready(SimpleNamespace(port="/dev/pts/0", faults=faults))
        return done

    monkeypatch.setattr("romfsfs.simulator.server.run_simulator", no_run)
    assert run("simulate").out == "OPENMV4P on /dev/pts/0; try: romfsfs mount /dev/pts/0 DIR\n"
    run("simulate", "--latency", "0.25", "--old-firmware", "--cut-after", "4096")
    assert seen == [(0.0, True), (0.25, False), 4096]


def test_what_it_holds_at_the_start(
    run: Callable[..., Ran], image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And whoever waits for its port reads at once where it is."""
    seen: list[Any] = []
    done = SimpleNamespace(programmed=0, erased_blocks=0, wire_in=0, wire_out=0)

    def no_run(config: Any, ready: Callable[[Any], None], **given: Any) -> SimpleNamespace:
        ready(SimpleNamespace(port="/dev/pts/0"))
        seen.append((config.images, config.rate, config.erase_seconds, given))
        return done

    monkeypatch.setattr(machines, "flush", lambda: seen.append("flushed"))
    monkeypatch.setattr("romfsfs.simulator.server.run_simulator", no_run)
    words = ["--image", image, "--rate", "9", "--erase-time", "0.5", "--link", "a", "--flash", "b"]
    assert run("simulate", *words).code == 0
    assert run("simulate").code == 0
    held = ({0: image.read_bytes()}, 9.0, 0.5, {"link": "a", "flash_file": "b"})
    nothing = ({}, None, 0.0, {"link": None, "flash_file": None})
    assert seen == ["flushed", held, "flushed", nothing]
