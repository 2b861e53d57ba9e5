"""Started without standard streams, as some services and scripts do it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest
from real_mount import SECONDS, RealMount


@pytest.mark.parametrize("closed", [">&-", "<&- >&- 2>&-"])
def test_a_mount_without_them(make_mount: Callable[..., RealMount], closed: str) -> None:
    """It ended in a traceback; without standard error nothing was mounted either."""
    place = make_mount().mount()
    place.umount()
    command = f"exec {closed}; {sys.executable} -m romfsfs mount {place.image} {place.mnt}"
    done = subprocess.run(
        ["sh", "-c", command], env=place.env, cwd="/", capture_output=True, text=True,
        timeout=SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    (place.mnt / "f").write_bytes(b"x" * 10_000)
    assert (place.work / "f").read_bytes() == b"x" * 10_000
    assert place.complaints() == []
    place.umount()
    assert place.stored() == {}  # nothing was written to where it does not belong
