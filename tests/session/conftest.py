"""Sessions without mounts: `desk` is an image file, its session and a user who edits."""

from __future__ import annotations

from pathlib import Path

import pytest
from session_desk import Desk

from romfsfs.session.keep import steps


@pytest.fixture(scope="session")
def conversion_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all tests of a run: compiling the same line a hundred times proves nothing."""
    return tmp_path_factory.mktemp("conversions")


@pytest.fixture(autouse=True)
def romfsfs_dirs(tmp_path: Path, conversion_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """State of this test alone."""
    monkeypatch.setenv("ROMFSFS_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("ROMFSFS_CACHE_DIR", str(conversion_cache))


@pytest.fixture(autouse=True)
def no_steps_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that watches steps leaves none watched."""
    monkeypatch.setattr(steps, "on_step", steps.on_step)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """A small image of two files and an empty folder."""
    files = {"a.txt": b"first\n", "lib/b.bin": bytes(range(200))}
    return Desk.with_image(tmp_path, files, ["empty"])
