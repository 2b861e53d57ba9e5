"""One file, changed in every way at once, is what memory says."""

from __future__ import annotations

from fsx import exercise
from real_mount import RealMount

OPERATIONS = 10_000  # on each binding; `scripts/soak` does a million


def test_a_file_is_what_was_done_to_it(mounted: RealMount) -> None:
    exercise(mounted.mnt / "file", OPERATIONS, seed=20)
    assert (mounted.mnt / "file").read_bytes() == (mounted.work / "file").read_bytes()
