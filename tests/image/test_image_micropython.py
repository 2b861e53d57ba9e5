"""The fetched MicroPython is the one thing these tests trust more than ourselves."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path


def test_it_is_a_micropython_with_vfsrom(micropython: Path) -> None:
    done = subprocess.run(
        [micropython, "-c", "import sys, vfs; print(sys.implementation.name, vfs.VfsRom)"],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert done.stdout.split() == ["micropython", "<class", "'VfsRom'>"]


def test_asking_again_is_quick_and_gives_the_same(micropython: Path) -> None:
    script = Path(__file__).parents[2] / "scripts" / "get-micropython"
    start = time.monotonic()
    again = [subprocess.Popen([script], stdout=subprocess.PIPE, text=True) for _ in range(4)]
    for process in again:
        assert process.communicate(timeout=30)[0].strip() == str(micropython)
    assert time.monotonic() - start < 30
