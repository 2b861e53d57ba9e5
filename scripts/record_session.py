"""Runs README.md's "Five minutes with a file" and draws what the terminal shows: OUT.svg.

Commands and output are the program's own. The temporary home is shown as /home/me; fonts are
whatever the reader's browser has, so that the picture asks no server for anything.
"""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

CHECKOUT = Path(__file__).resolve().parent.parent
SECTION = "Five minutes with a file"
COLUMNS = 92
_COLOURS = [
    (r"^  A .*", "green"), (r"^\S+: valid.*|verified$", "bold green"), (r"\[[#.]+\]", "cyan"),
]  # fmt: skip


def commands(readme: str) -> list[str]:
    """The commands of the section's console blocks."""
    section = readme.split(f"## {SECTION}\n", 1)[1].split("\n## ", 1)[0]
    blocks = re.findall(r"^```console\n(.*?)^```$", section, re.M | re.S)
    return [line[2:] for block in blocks for line in block.splitlines() if line.startswith("$ ")]


def run_all(words: list[str], home: Path) -> list[tuple[str, str]]:
    """Each command with what it printed."""
    programs = home.parent / "bin"
    programs.mkdir()
    program = programs / "romfsfs"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m romfsfs "$@"\n')
    program.chmod(0o755)
    environment = {
        "PATH": f"{programs}:{os.environ['PATH']}", "HOME": str(home), "LC_ALL": "C.UTF-8",
        "PYTHONPATH": str(CHECKOUT), "ROMFSFS_STATE_DIR": f"{home.parent}/state",
        "ROMFSFS_CACHE_DIR": f"{home.parent}/cache",
    }  # fmt: skip
    subprocess.run(
        [sys.executable, CHECKOUT / "scripts/example_model.py", home / "person_detect.tflite"],
        check=True,
    )
    (home / "person_detect.txt").write_text("no person\nperson\n")
    shown = []
    try:
        for word in words:
            wait_for_conversions(home)
            done = subprocess.run(
                ["bash", "-c", word], cwd=home, env=environment, text=True, check=True, timeout=60,
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )  # fmt: skip
            shown.append((word, done.stdout.replace(str(home), "/home/me")))
    finally:
        if os.path.ismount(home / "cam"):
            subprocess.run([program, "umount", "--discard", home / "cam"], env=environment)
    return shown


def wait_for_conversions(home: Path) -> None:
    """As a reader would, who types slower than Vela converts."""
    status = home / "cam/.romfs/status.json"
    while status.exists() and '"pending"' in status.read_text():
        time.sleep(0.05)


def draw(shown: list[tuple[str, str]]) -> str:
    """The session as an SVG."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    for word, output in shown:
        console.print(Text.assemble(("$ ", "bold cyan"), (word, "bold white")))
        if output:
            text = Text(output.rstrip("\n"))
            for pattern, colour in _COLOURS:
                text.highlight_regex(re.compile(pattern, re.M), colour)  # type: ignore[arg-type]
            console.print(text)
    drawn = console.export_svg(title="romfsfs", theme=MONOKAI, unique_id="session")
    drawn = re.sub(r"@font-face \{.*?\}\s*", "", drawn, flags=re.S)
    drawn = drawn.replace("Fira Code, monospace", "ui-monospace, Menlo, Consolas, monospace")
    drawn = drawn.replace("<text ", '<text xml:space="preserve" ')  # else some drop indents
    return re.sub(r"<!-- .*? -->\s*", "", drawn).replace("<svg ", '<svg role="img" ', 1)


def main() -> None:
    words = commands((CHECKOUT / "README.md").read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory(prefix="romfsfs-record.") as folder:
        home = Path(folder) / "home"
        home.mkdir()
        shown = run_all(words, home)
    Path(sys.argv[1]).write_text(draw(shown), encoding="utf-8")


if __name__ == "__main__":
    main()
