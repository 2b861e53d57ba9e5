"""A process that is stopped for certain; an operation that ends at one of its durable steps."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from romfsfs.session.keep import steps


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


@contextmanager
def ends_at(step: str, error: type[BaseException]) -> Iterator[None]:
    """What runs in the block has to end at this step (`keep/steps.py`), as that error."""

    def reached(name: str) -> None:
        if name == step:
            raise error

    before, steps.on_step = steps.on_step, reached
    try:
        with pytest.raises(error):
            yield
    finally:
        steps.on_step = before
