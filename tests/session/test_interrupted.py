"""A signal interrupts a command that waits for a tool, at each place: `interrupted_child.py`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from interrupted_child import WHAT

import romfsfs


@pytest.mark.timeout(600)
@pytest.mark.parametrize("times", ["ONCE", "TWICE"])
@pytest.mark.parametrize("what", WHAT)
def test_it_ends_and_its_tool_with_it(what: str, times: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("interrupted_child.py"), what, tmp_path,
         times],
        env={**os.environ, "PYTHONPATH": str(Path(romfsfs.__file__).parent.parent)},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found) > (20 if times == "ONCE" else 10)
    assert {place: wrong for place, wrong in found.items() if wrong} == {}
    assert not any(tmp_path.iterdir())
