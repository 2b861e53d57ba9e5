"""Fixtures that more than one part's tests use."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def micropython() -> Path:
    """An executable MicroPython with VfsRom, the firmware's own ROMFS reader: of 32 bits, as the
    cameras', where this machine can run that."""
    return _get_micropython()


@pytest.fixture(scope="session")
def micropython64() -> Path:
    """The same of 64 bits, for samples of what runs on 32."""
    return _get_micropython("64")


def _get_micropython(*bits: str) -> Path:
    """Fetched once (`scripts/get-micropython`); a test fails where it cannot be had."""
    done = subprocess.run(
        [CHECKOUT / "scripts" / "get-micropython", *bits],
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
