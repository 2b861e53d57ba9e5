"""A home, state and cache of each test's own."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from romfsfs.simulator import Simulator, preset


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("STATE_DIR", "CACHE_DIR"):
        monkeypatch.setenv(f"ROMFSFS_{name}", str(tmp_path / name.lower()))
    for name in ("ROMFSFS_ZOO", "ROMFSFS_PORTS", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    place = tmp_path / "home"
    place.mkdir()
    monkeypatch.setenv("HOME", str(place))
    return place


@pytest.fixture
def camera(micropython: Path) -> Iterator[Callable[..., Simulator]]:
    """`camera("OPENMV4P", **changes)`: a running simulated camera, each with an id of its own."""
    with contextlib.ExitStack() as stack:
        numbers = itertools.count(1)

        def make(board: str = "OPENMV4P", **changes: Any) -> Simulator:
            changes.setdefault("unique_id", next(numbers).to_bytes(12, "big"))
            simulator = Simulator(preset(board, **changes), micropython=micropython)
            return stack.enter_context(simulator)

        yield make


@pytest.fixture
def product(tmp_path: Path) -> Path:
    """A small product: scripts, data, a folder."""
    folder = tmp_path / "product"
    (folder / "lib").mkdir(parents=True)
    (folder / "main.py").write_text("import app\n")
    (folder / "app.py").write_text("def run():\n    return 42\n")
    (folder / "lib" / "net.py").write_text("PORT = 80\n")
    (folder / "logo.bin").write_bytes(bytes(range(256)) * 40)
    return folder
