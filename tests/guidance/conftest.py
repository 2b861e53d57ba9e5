"""State and home of each test alone; the command line as a user's shell starts it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from romfsfs.errors import shell_word

CHECKOUT = Path(__file__).parent.parent.parent


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("STATE_DIR", "CACHE_DIR"):
        monkeypatch.setenv(f"ROMFSFS_{name}", str(tmp_path / name.lower()))
    for name in ("ROMFSFS_ZOO", "ROMFSFS_PORTS", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    # Written by a console script of pip's; the checkout's own takes its place.
    programs = tmp_path / "programs"
    programs.mkdir()
    script = programs / "romfsfs"
    python = f"PYTHONPATH={shell_word(CHECKOUT)} exec {shell_word(sys.executable)}"
    script.write_text(f'#!/bin/sh\n{python} -m romfsfs "$@"\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=os.pathsep)


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a program in the test's folder; its output is text."""

    def call(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=tmp_path, env=os.environ | environment, capture_output=True, text=True,
            stdin=subprocess.DEVNULL, timeout=60, check=False,
        )  # fmt: skip

    return call
