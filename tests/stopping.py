"""A process that is stopped for certain."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path


def stop(pid: int) -> None:
    """SIGSTOP, and no thread of it runs any more.

    One that was not stopped yet could still take a request. Whoever asked that cannot end then, not
    even killed, before it is answered; a request that nobody has taken ends with who asked.
    """
    os.kill(pid, signal.SIGSTOP)
    tasks = Path(f"/proc/{pid}/task")
    while any(_state(task) != "T" for task in tasks.iterdir()):
        time.sleep(0.01)


def _state(task: Path) -> str:
    return (task / "stat").read_text().rpartition(")")[2].split()[0]
