"""A home, state and cache of each test's own."""

from __future__ import annotations

from pathlib import Path

import pytest


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
