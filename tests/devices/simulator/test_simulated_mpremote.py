"""mpremote, MicroPython's own tool, works against the simulated camera as it is."""

from __future__ import annotations

import random
import subprocess
import sys

import pytest


def mpremote(simulator, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "mpremote", "connect", simulator.port, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("board", ["OPENMV4P", "OPENMV2", "OPENMV_RT1060", "OPENMV_AE3"])
def test_mpremote_deploys_a_tree_that_the_camera_then_mounts(camera, tmp_path, board):
    tree = tmp_path / "tree"
    (tree / "lib").mkdir(parents=True)
    (tree / "lib" / "greet.py").write_text("print('hello from the camera')\n")
    (tree / "data.txt").write_bytes(random.Random(4).randbytes(20000))
    simulator = camera(board)
    assert "Not a valid ROMFS" in mpremote(simulator, "romfs", "query")
    assert "ROMFS image deployed" in mpremote(simulator, "romfs", "deploy", str(tree))
    assert "ROMFS image size: 20" in mpremote(simulator, "romfs", "query")
    assert mpremote(simulator, "exec", "import greet").strip() == "hello from the camera"
    assert simulator.statistics.bad_programs == 0
    assert (tree / "data.txt").read_bytes() in simulator.flash[0].content


def test_mpremote_runs_snippets_and_shows_tracebacks(camera):
    simulator = camera()
    assert mpremote(simulator, "exec", "print(6 * 7)") == "42\n"
    assert "OPENMV4P with STM32H743" in mpremote(
        simulator, "exec", "import os; print(os.uname().machine)"
    )
    with pytest.raises(AssertionError, match="ZeroDivisionError: divide by zero"):
        mpremote(simulator, "exec", "1/0")
