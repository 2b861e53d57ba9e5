"""A push whose process gets a signal while the tool that it runs is half-way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any


def push(
    tool: Any, folder: Path, source: str, number: signal.Signals, pause_at: int
) -> tuple[int, str]:
    """Push `folder/new.img`, and send the signal at that call of the tool, counted from 1 (0: at
    none): (exit code, what was said)."""
    for name in ("calls", "paused"):
        (tool.folder / name).unlink(missing_ok=True)
    tool.fault(pause_at=pause_at)
    environment = {
        **os.environ,
        "ROMFSFS_STATE_DIR": str(folder / "state"),
        "ROMFSFS_CACHE_DIR": str(folder / "cache"),
        "TMPDIR": str(folder),  # who is killed leaves what it had there
    }
    with subprocess.Popen(
        [sys.executable, "-m", "romfsfs", "push", str(folder / "new.img"), source],
        env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True,
    ) as pushing:  # fmt: skip
        while pushing.poll() is None and not (tool.folder / "paused").exists():
            time.sleep(0.01)
        if pushing.returncode is None:
            pushing.send_signal(number)
        said, _ = pushing.communicate(timeout=60)
    assert "Traceback" not in said
    return pushing.returncode, said
