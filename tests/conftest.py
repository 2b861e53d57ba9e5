"""Fixtures that more than one part's tests use."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def micropython() -> Path:
    """An executable MicroPython with VfsRom, the firmware's own ROMFS reader.

    Fetched once (`scripts/get-micropython`); a test that needs it fails where it cannot be had.
    """
    done = subprocess.run(
        [CHECKOUT / "scripts" / "get-micropython"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    if done.returncode:
        pytest.fail(f"no MicroPython to test with:\n{done.stderr}", pytrace=False)
    return Path(done.stdout.strip())


@pytest.fixture(scope="session")
def shared_data() -> Path | None:
    """A folder of real images and models beside the checkout, or None; never a reason to skip.

    `$ROMFSFS_TEST_DATA` names another place.
    """
    place = Path(os.environ.get("ROMFSFS_TEST_DATA", CHECKOUT.parent / "shared" / "data"))
    return place if place.is_dir() else None
