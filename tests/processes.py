"""Other processes of a test: whether they have ended, and stopping them for certain."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
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
    """Whether the process has ended, whatever time its parent takes to notice."""
    return all(state == "Z" for state in _states(Path("/proc"), str(pid)))


def stop(pid: int) -> None:
    """SIGSTOP, and no thread of it runs any more.

    One that was not stopped yet could still take a request. Whoever asked that cannot end then, not
    even killed, before it is answered; a request that nobody has taken ends with who asked.
    """
    os.kill(pid, signal.SIGSTOP)
    tasks = Path(f"/proc/{pid}/task")
    until(lambda: all(state == "T" for state in _states(tasks, *os.listdir(tasks))))


def _states(folder: Path, *pids: str) -> Iterator[str]:
    """The letters of those that are there still. What ends between the opening and the reading of
    its file in /proc is ESRCH, not ENOENT."""
    for pid in pids:
        with suppress(FileNotFoundError, ProcessLookupError):
            yield (folder / pid / "stat").read_text().rpartition(")")[2].split()[0]
