"""Draws OUT.png: what a desktop shows when a mount with edits is ejected.

Wants xfce4-notifyd, which the bus starts when it is first asked for, on a screen of its own
(tests/trust/desktop.py). The buttons are there where this machine's notify-send can show some.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(CHECKOUT / "tests"), str(CHECKOUT / "tests/trust")]

from desktop import Desktop  # noqa: E402

SIZE = (1000, 170)  # on a narrow screen, the title is cut off


def draw(folder: Path) -> bytes:
    home, cam = folder / "home", folder / "cam"
    home.mkdir()
    cam.mkdir()
    desktop = Desktop(SIZE, home)
    desktop.env |= {
        "PYTHONPATH": str(CHECKOUT), "ROMFSFS_STATE_DIR": f"{folder}/state",
        "ROMFSFS_CACHE_DIR": f"{folder}/cache",
    }  # fmt: skip

    def run(*command: object) -> None:
        words = list(map(str, command))
        subprocess.run(words, env=desktop.env, check=True, stdout=subprocess.DEVNULL)

    romfsfs = [sys.executable, "-m", "romfsfs"]
    try:
        empty = desktop.picture()
        run(*romfsfs, "new", folder / "app.img", "--board", "OPENMV_AE3")
        run(*romfsfs, "mount", folder / "app.img", cam)
        (cam / "labels.txt").write_text("no person\nperson\n")
        run("umount", cam)  # as a file manager ejects it
        desktop.until(lambda: desktop.picture() != empty)
        desktop.until(lambda: desktop.picture() == desktop.picture())
        return desktop.picture()
    finally:
        desktop.close()


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="me.", dir="/tmp") as folder:
        Path(sys.argv[1]).write_bytes(draw(Path(folder)))


main()
