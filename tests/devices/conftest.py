"""Fake external tools on PATH."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

FAKES = Path(__file__).parent / "fake_tools"


class FakeTool:
    """A fake tool's folder: its flash files, its faults, and the calls that it got."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fault(self, **faults: Any) -> None:
        (self.folder / "faults.json").write_text(json.dumps(faults))

    @property
    def calls(self) -> list[list[str]]:
        path = self.folder / "calls"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    @property
    def was_reset(self) -> bool:
        return (self.folder / "resets").exists()

    def flash(self, name: str = "flash") -> bytes:
        return (self.folder / name).read_bytes()


@pytest.fixture
def install_fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], FakeTool]:
    """Put a fake of this tool first on PATH; it gets its folder in the environment variable."""

    def install(tool: str, variable: str) -> FakeTool:
        folder = tmp_path / tool
        programs = tmp_path / "bin"
        folder.mkdir()
        programs.mkdir(exist_ok=True)
        script = FAKES / f"fake_{tool.replace('-', '_')}.py"
        program = programs / tool
        # tools get none of our environment but PATH and the like
        call = f'{variable}="{folder}" exec "{sys.executable}" "{script}" "$@"'
        program.write_text(f"#!/bin/sh\n{call}\n")
        program.chmod(0o755)
        if tool == "blhost":  # the Python of its environment, which has its package
            python = programs / "python3"
            call = f'{variable}="{folder}" PYTHONPATH="{FAKES}" exec "{sys.executable}" "$@"'
            python.write_text(f"#!/bin/sh\n{call}\n")
            python.chmod(0o755)
        monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
        return FakeTool(folder)

    return install
