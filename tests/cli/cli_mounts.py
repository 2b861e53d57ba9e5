"""What the tests of the command line share: the result of a command, and real mounts."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from romfsfs.system.mount_table import find_mount

#: Seconds after which a command has failed.
LIMIT = 60


class Ran(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one line that says what went wrong."""
        lines = [line for line in self.err.splitlines() if line.startswith("romfsfs: error: ")]
        assert len(lines) == 1, self.err
        return lines[0]


class Mounts:
    """Real mounts. Mounting is done by a process of its own, as it forks the daemon; the other
    commands run here, which is faster, or with `shell` as processes too."""

    def __init__(self, folder: Path, run: Callable[..., Ran]) -> None:
        self.folder = folder
        self.command = run
        self.directories: list[Path] = []

    def shell(self, *arguments: object) -> Ran:
        done = subprocess.run(
            [sys.executable, "-m", "romfsfs", *map(str, arguments)],
            capture_output=True, text=True, errors="surrogateescape", timeout=LIMIT, check=False,
            cwd=self.folder,
        )  # fmt: skip
        assert "\nTraceback" not in "\n" + done.stderr, done.stderr
        return Ran(done.returncode, done.stdout, done.stderr)

    def mount(self, source: Path, *options: object, name: str = "cam") -> Path:
        directory = self.folder / name
        with contextlib.suppress(FileExistsError):  # exist_ok looks, which a dead mount refuses
            directory.mkdir()
        self.directories.append(directory)
        done = self.shell("mount", source, directory, *options)
        assert done.code == 0, done.err
        return directory

    def close(self) -> None:
        for directory in self.directories:
            if find_mount(str(directory)) is not None:
                subprocess.run(["fusermount", "-uz", str(directory)], check=False, timeout=LIMIT)
