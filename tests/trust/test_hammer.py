"""libfuse's threads in each other's way: nothing is lost, left behind, or refused for no reason."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hammer import STALE
from processes import until
from real_mount import LONG, ROUND, RealMount
from twin_trees import tree

SECONDS = LONG or 3  # of each binding
THREADS = 4  # in each of two processes
HAMMER = Path(__file__).with_name("hammer.py")


def hammer(folder: Path, seconds: float, seed: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, HAMMER, folder, str(seconds), str(seed), str(THREADS)],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.timeout(SECONDS * 3 + 300)
def test_everything_at_once(
    place: RealMount, record_property: Callable[[str, object], None]
) -> None:
    mounted = place.mount()
    (mounted.mnt / ".romfs/status").read_bytes()  # opens what it needs for good
    before, first = mounted.descriptors(), mounted.open_files()
    running = [hammer(mounted.mnt, SECONDS, seed) for seed in (2 * ROUND, 2 * ROUND + 1)]
    reports = [json.loads(each.communicate(timeout=SECONDS * 2 + 60)[0]) for each in running]
    operations = sum(report["operations"] for report in reports)
    record_property("operations", operations)
    assert [report["unexpected"] for report in reports] == [[], []]
    assert operations > 100 * SECONDS  # it was not standing still
    stale = sum(report["answers"].get(answer, 0) for report in reports for answer in STALE)
    libfuse_3 = place.env["ROMFSFS_FUSE"] == "mfusepy"
    assert stale <= (1 + operations // 100_000 if libfuse_3 else 0)
    # The kernel tells of closed files when it comes to it. Fewer: what a mount tidies when it has
    # begun was open at the first count.
    try:
        until(lambda: mounted.descriptors() <= before)
    except AssertionError:
        now = mounted.open_files()
        print(f"opened since: {now - first}; closed since: {first - now}")
        raise
    until(lambda: os.listdir(mounted.session / "hidden") == [])  # they go when they are closed
    assert _complaints(mounted) == []
    assert tree(mounted.mnt) == tree(mounted.work)
    assert (mounted.mnt / ".romfs/writers").read_bytes() == b""
    _is_converted_in_the_end(mounted)
    _commits_what_is_there(mounted)
    assert _complaints(mounted) == []
    mounted.umount()


def _complaints(mounted: RealMount) -> list[str]:
    """Without what is said of scripts with holes in them."""
    return [line for line in mounted.complaints() if ": SyntaxError: " not in line]


def _is_converted_in_the_end(mounted: RealMount) -> None:
    def entries() -> list[dict[str, object]]:
        status = json.loads((mounted.mnt / ".romfs/status.json").read_text())
        return [entry for entry in status["entries"] if entry["change"] != "deleted"]

    until(lambda: all(entry["state"] != "pending" for entry in entries()))
    for entry in entries():
        path = mounted.mnt / str(entry["path"])
        if path.suffix == ".py":
            readable = b"\0" not in path.read_bytes()  # a hole is no Python
            assert entry["state"] == ("ready" if readable else "failed"), entry


def _commits_what_is_there(mounted: RealMount) -> None:
    for path, seen in tree(mounted.mnt).items():
        if seen.content is not None and path.endswith(".py") and b"\0" in seen.content:
            (mounted.mnt / path).unlink()
    expected = {path.replace(".py", ".mpy") for path in tree(mounted.mnt)}
    mounted.run("commit", mounted.mnt)
    assert set(mounted.stored()) == expected
