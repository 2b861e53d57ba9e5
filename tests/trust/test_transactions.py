"""Whatever is done to targets in whatever order, and hurt wherever: nothing is lost.

`transactions.py` says how; a long run is `scripts/soak transactions`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from real_mount import LONG, ROUND

import romfsfs

SEQUENCES = LONG or 10
TESTS = Path(__file__).parent.parent


@pytest.mark.timeout(24 * 3600 if LONG else 300)
def test_nothing_is_lost(micropython: Path, record_property: Callable[[str, object], None]) -> None:
    places = [Path(romfsfs.__file__).parents[1], TESTS, TESTS / "session", TESTS / "image"]
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("transactions.py"), str(ROUND * SEQUENCES),
         str(SEQUENCES)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, places))},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout, done.stderr
    found = json.loads(done.stdout)
    faults = found.pop("faults")
    for name, value in found.items():
        record_property(name.replace(" ", "_").replace("-", ""), value)
    assert faults == {}, done.stderr
    assert done.returncode == 0
