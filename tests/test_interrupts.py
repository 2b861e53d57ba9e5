"""`system.interrupts`: one interrupt at a time, and none that is lost for good."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from typing import NoReturn

import pytest

from romfsfs.errors import Interrupted
from romfsfs.system.interrupts import interrupt


def signalled() -> None:
    interrupt(signal.SIGINT, None)


def test_a_second_one_waits_until_the_first_has_ended() -> None:
    order: list[str] = []

    @contextlib.contextmanager
    def put_in_order() -> Iterator[None]:
        try:
            yield
        finally:
            signalled()
            with contextlib.suppress(ValueError):
                try:
                    raise ValueError
                finally:
                    signalled()  # another error on top of it
            order.append("whole")

    def reworded() -> NoReturn:
        try:
            signalled()
        except KeyboardInterrupt:
            raise Interrupted("interrupted", where="", next_step="") from None
        raise AssertionError

    with pytest.raises(KeyboardInterrupt), put_in_order():
        signalled()
    with pytest.raises(Interrupted), put_in_order():
        reworded()
    assert order == ["whole", "whole"]


def test_after_it_was_dealt_with_another_one_counts() -> None:
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            signalled()


def test_one_in_the_middle_of_another_error_counts() -> None:
    def handled() -> None:
        try:
            raise ValueError
        except ValueError:
            signalled()

    with pytest.raises(KeyboardInterrupt):
        handled()
