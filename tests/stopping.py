"""An operation that ends at one of its durable steps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from romfsfs.session.keep import steps


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
