"""One file, changed in every way at once, is what memory says."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from fsx import exercise
from real_mount import LONG, ROUND, RealMount

OPERATIONS = LONG or 10_000  # on each binding; `scripts/soak fsx` does a million


@pytest.mark.timeout(3600 if LONG else 300)
def test_a_file_is_what_was_done_to_it(
    mounted: RealMount, record_property: Callable[[str, object], None]
) -> None:
    exercise(mounted.mnt / "file", OPERATIONS, seed=20 + ROUND)
    assert (mounted.mnt / "file").read_bytes() == (mounted.work / "file").read_bytes()
    record_property("operations", OPERATIONS)
