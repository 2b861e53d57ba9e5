"""Every kind of operation, hurt at every step, and every command after it: `crash_table.py`.

Here a sample of the combinations; in the rounds of `scripts/soak table` all of them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from crash_table import KINDS

import romfsfs

LONG = int(os.environ.get("ROMFSFS_LONG", "0") or 0)
ROUND = int(os.environ.get("ROMFSFS_ROUND", "0") or 0)
SECONDS = 3600 if LONG else 290
#: Of the combinations of a kind, every so-many-th: a prime, so that all steps have their turn.
EVERY = 29

pytestmark = pytest.mark.timeout(SECONDS + 10)


@pytest.mark.parametrize("kind", KINDS)
def test_hurt_at_every_step(kind: str, record_property: Callable[[str, object], None]) -> None:
    every = LONG or min(EVERY, 5 if kind in ("revert", "discard", "resume") else EVERY)
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("crash_table.py"), kind, str(every),
         str(1 + ROUND % every)],
        env={**os.environ, "PYTHONPATH": str(Path(romfsfs.__file__).parent.parent)},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    record_property("combinations", found["tried"])
    record_property("hurt", found["hurt"])
    assert found["found"] == {}
    assert found["hurt"]
