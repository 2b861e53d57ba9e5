"""Waiting for threads without missing a signal."""

from __future__ import annotations

from collections.abc import Collection
from concurrent.futures import Future, wait
from typing import Any

_TICK_SECONDS = 0.05


def wait_for_all(futures: Collection[Future[Any]]) -> None:
    """Wait until all have ended.

    Python looks for signals before it waits for another thread. One that comes just after that
    look, or is given to another thread, would be noticed when the wait ends: never, if it was to
    end it.
    """
    while wait(futures, _TICK_SECONDS).not_done:
        pass
