"""`system.beside`: each piece of work is done once."""

from __future__ import annotations

import _thread
import time
from collections.abc import Callable
from typing import Any

import pytest

from romfsfs.system import beside
from romfsfs.system.beside import Beside, Cancel


def test_a_thread_with_the_number_of_one_that_has_ended_does_nothing_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The system gives the number of a thread that has ended to the next one: here to all."""
    start = _thread.start_new_thread

    def start_and_wait(run: Callable[[], None], arguments: tuple[Any, ...]) -> int:
        over: list[bool] = []

        def whole() -> None:
            run(*arguments)
            over.append(True)

        number = start(whole, ())
        while not over:
            time.sleep(0.001)
        return number

    monkeypatch.setattr(beside._thread, "start_new_thread", start_and_wait)
    monkeypatch.setattr(beside._thread, "get_ident", lambda: 7)
    done: list[int] = []

    def piece(number: int) -> Callable[[Cancel], int]:
        def work(_: Cancel) -> int:
            done.append(number)
            return number * 2

        return work

    with Beside([piece(number) for number in range(3)], 3) as work:
        assert [work.result(number) for number in range(3)] == [0, 2, 4]
    assert done == [0, 1, 2]
