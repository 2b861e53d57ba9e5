"""What the tests of cameras share: commands, mounts, images, and what a camera holds."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from romfsfs.boards import get_board
from romfsfs.cli import main
from romfsfs.image.model import FileNode, walk
from romfsfs.image.reader import read_image
from romfsfs.image.writer import encode
from romfsfs.session.connect import device
from romfsfs.session.rebase.read import OpenOptions, make_ready, session_for
from romfsfs.session.session import Session, sessions
from romfsfs.simulator import Simulator
from romfsfs.system.mount_table import find_mount

KIB = 1024
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


class Rig:
    """Runs commands in this process; mounting forks, so it is a process of its own."""

    def __init__(self, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self._capfd = capfd
        self._mounted: list[Path] = []

    def run(self, *arguments: object) -> Ran:
        self._capfd.readouterr()
        code = main([str(argument) for argument in arguments])
        out, err = self._capfd.readouterr()
        assert "\nTraceback" not in "\n" + err, err
        return Ran(code, out, err)

    def ok(self, *arguments: object) -> str:
        """Run a command that must succeed; what it printed."""
        done = self.run(*arguments)
        assert done.code == 0, done.err
        return done.out

    def try_mount(self, source: str, *options: object, name: str = "cam") -> Ran:
        directory = self.folder / name
        directory.mkdir(exist_ok=True)
        self._mounted.append(directory)
        done = subprocess.run(
            [sys.executable, "-m", "romfsfs", "mount", source, directory, *map(str, options)],
            capture_output=True, text=True, timeout=LIMIT, check=False, cwd=self.folder,
        )  # fmt: skip
        assert "\nTraceback" not in "\n" + done.stderr, done.stderr
        return Ran(done.returncode, done.stdout, done.stderr)

    def mount(self, source: str, *options: object, name: str = "cam") -> Path:
        """A real mount, by a process of its own."""
        done = self.try_mount(source, *options, name=name)
        assert done.code == 0, done.err
        return self.folder / name

    def prepare(self, source: str, partition: int | None = None, slot: str = "") -> Session:
        """What mounting does, without the mount: the session's work tree, ready to be edited."""
        with device(source, None, partition, slot) as opened:
            session = session_for(opened, source, OpenOptions(partition=partition))
            make_ready(session, opened)
        return session

    def close(self) -> None:
        for directory in self._mounted:
            if find_mount(str(directory)) is not None:
                subprocess.run(["fusermount", "-uz", str(directory)], check=False, timeout=LIMIT)


def make_image(board: str, partition: int = 0, size: int = 40 * KIB, **texts: bytes) -> bytes:
    """An image for a board: four models of `size` bytes together, and texts (`a_txt` is a.txt)."""
    source = random.Random(size)
    files = {f"model{index}.bin": source.randbytes(size // 4) for index in range(4)}
    files |= {name.replace("_", "."): text for name, text in texts.items()}
    return encode(files, get_board(board).partition(partition).alignment)


def held(camera: Simulator, partition: int = 0) -> dict[str, bytes] | None:
    """The files that the camera holds; None if it would mount nothing."""
    content = bytes(camera.flash[partition].content)
    if not content.startswith(b"\xd2\xcd\x31"):
        return None
    return {
        path: content[node.extent.offset :][: node.extent.size]
        for path, node in walk(read_image(content))
        if isinstance(node, FileNode)
    }


def tree(folder: Path) -> dict[str, bytes]:
    """The files below a folder, by path."""
    return {
        os.path.relpath(path, folder): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def only_session() -> Session:
    [session] = sessions()
    return session
