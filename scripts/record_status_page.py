"""Draws OUT.png: the status page of a mount with edits, as Chromium shows it.

The temporary home is shown as /home/me.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from record_file_manager import environment_of, prepare
from record_session import wait_for_conversions

SIZE = (860, 1040)


def edit(home: Path, environment: dict[str, str]) -> None:
    """Commit what is there, then change, break and delete something."""
    cam = home / "cam"
    (cam / "lib" / "logo.bin").write_bytes(bytes(3_000_000))
    (cam / "lib" / "fonts.bin").write_bytes(bytes(6_000_000))
    command = [sys.executable, "-m", "romfsfs", "commit", cam]
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    (cam / "app.py").write_text("print('hello again')\n")
    (cam / "lib" / "logo.bin").unlink()
    (cam / "lib" / "net.py").write_text("def connect(:\n    pass\n")
    wait_for_conversions(home)


def draw(page: Path, out: Path) -> None:
    subprocess.run(
        ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
         f"--window-size={SIZE[0]},{SIZE[1]}", f"--user-data-dir={page.parent / 'chromium'}",
         f"--screenshot={out}", f"file://{page}"],
        check=True, stderr=subprocess.DEVNULL, timeout=100,
    )  # fmt: skip


def main() -> None:
    out = Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory(prefix="romfsfs-record.", dir="/tmp") as folder:
        home = Path(folder) / "home"
        environment = environment_of(home)
        try:
            prepare(home, environment)
            edit(home, environment)
            page = Path(folder) / "status.html"
            text = (home / "cam/.romfs/status.html").read_text("utf-8")
            page.write_text(text.replace(str(home), "/home/me"), "utf-8")
            draw(page, out)
        finally:
            subprocess.run(["fusermount3", "-u", home / "cam"], env=os.environ, check=True)


if __name__ == "__main__":
    main()
