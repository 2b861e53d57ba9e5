"""`simulate`: who the simulated camera is."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from cli_mounts import Ran


def test_two_simulated_cameras_are_two(
    run: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one board: with one id they would share a session, and `push --all` would refuse one."""
    ids = []

    def no_run(config: Any, **given: Any) -> SimpleNamespace:
        ids.append(config.unique_id)
        return SimpleNamespace(programmed=0, erased_blocks=0, wire_in=0, wire_out=0)

    monkeypatch.setattr("romfsfs.simulator.server.run_simulator", no_run)
    for words in (("--link", "a"), ("--link", "b"), ("--link", "./a"), ("--flash", "c")):
        assert run("simulate", *words).code == 0
    first, second, again, other = ids
    assert first == again
    assert len({first, second, other}) == 3
    assert all(len(each) == 12 for each in ids)
