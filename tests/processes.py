"""Other processes of a test: whether they have ended, and stopping them for certain."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

#: In seconds. Only a failure takes that long, on however busy a machine.
SECONDS = 60


def until(condition: Callable[[], object], seconds: float = SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.005)


def ended(pid: int) -> bool:
    """Whether the process has ended, whatever time its parent takes to notice (Z) and to let go of
    it (X). Its first thread has ended while another may still be in a system call, with all that is
    open: a lock, a mount."""
    return all(state in "ZX" for state in _states(pid))


def stop(pid: int) -> None:
    """SIGSTOP, and no thread of it runs any more.

    One that was not stopped yet could still take a request. Whoever asked that cannot end then, not
    even killed, before it is answered; a request that nobody has taken ends with who asked.
    """
    os.kill(pid, signal.SIGSTOP)
    until(lambda: all(state == "T" for state in _states(pid)))


def _states(pid: int) -> list[str]:
    """The letters of its threads that are there still. What ends between the opening and the
    reading of its file in /proc is ESRCH, not ENOENT."""
    found, tasks = [], Path(f"/proc/{pid}/task")
    with suppress(FileNotFoundError, ProcessLookupError):
        for task in os.listdir(tasks):
            with suppress(FileNotFoundError, ProcessLookupError):
                text = (tasks / task / "stat").read_text()
                found.append(text.rpartition(")")[2].split()[0])
    return found
