"""Simulated cameras with real MicroPython."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from romfsfs.simulator import Simulator, preset


@pytest.fixture
def simulate(micropython: Path) -> Callable[..., Simulator]:
    """A camera of a board, with fields of its SimulatorConfig changed; use it as a context."""

    def make(board: str, **changes: Any) -> Simulator:
        return Simulator(preset(board, **changes), micropython=micropython)

    return make
