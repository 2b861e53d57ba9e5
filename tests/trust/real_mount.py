"""A real mount of an image file: the program as users have it, with its own state and cache."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from processes import SECONDS, ended, until

from romfsfs.image.model import FileNode, walk
from romfsfs.image.reader import read_image
from romfsfs.image.writer import encode

CHECKOUT = Path(__file__).parents[2]

#: What `scripts/soak` asks of a long run: how much of it (0: the short form), and which of its
#: rounds this is, for other random numbers than the last one had.
LONG = int(os.environ.get("ROMFSFS_LONG", "0") or 0)
ROUND = int(os.environ.get("ROMFSFS_ROUND", "0") or 0)


#: What a process is told that must not find the sessions of the user who runs the tests.
CLEAN = {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(CHECKOUT), "HOME": "/nonexistent"}


def memory_folder(prefix: str) -> Path:
    """A new folder on a file system in memory, where there is one: the disk is not tested."""
    memory = Path("/dev/shm")
    return Path(tempfile.mkdtemp(prefix=prefix, dir=memory if os.access(memory, os.W_OK) else None))


def compiled(name: str, folder: Path) -> Path:
    """`NAME.c` of this folder as a library to preload."""
    source, library = Path(__file__).with_name(f"{name}.c"), folder / f"{name}.so"
    command = ["cc", "-shared", "-fPIC", "-Wall", "-Werror", "-o", library, source]
    subprocess.run([*command, "-ldl"], check=True, timeout=60)
    return library


def remove_tree(folder: Path) -> None:
    """Whatever its modes; with paths near PATH_MAX, which shutil.rmtree cannot remove."""
    subprocess.run(["chmod", "-R", "u+rwX", folder], check=False, timeout=SECONDS)
    subprocess.run(["rm", "-rf", folder], check=True, timeout=SECONDS)


class RealMount:
    """base/: app.img, mnt/, state/, cache/. `run` is the command line."""

    def __init__(self, base: Path, binding: str = "auto", *, board: str | None = None) -> None:
        self.base = base
        self.image = base / "app.img"
        self.mnt = base / "mnt"
        self.board = board
        self.env = {
            **os.environ,
            **CLEAN,
            "ROMFSFS_STATE_DIR": str(base / "state"),
            "ROMFSFS_CACHE_DIR": str(base / "cache"),
            "ROMFSFS_FUSE": binding,
        }
        self.mnt.mkdir(exist_ok=True)
        self._pid = 0

    def run(self, *words: object, code: int = 0) -> str:
        """A romfsfs command that must end with this exit code; what it printed."""
        done = self.try_run(*words)
        said = done.stdout + done.stderr
        assert done.returncode == code, f"{words}: {done.returncode}: {said}"
        assert "Traceback" not in said, said
        return said

    def try_run(self, *words: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "romfsfs", *map(str, words)],
            env=self.env, cwd="/", stdin=subprocess.DEVNULL, capture_output=True, text=True,
            errors="backslashreplace", timeout=SECONDS * 5, check=False,
        )  # fmt: skip

    def mount(self, *options: str) -> RealMount:
        if not self.image.exists():
            self.image.write_bytes(encode({}))
        chosen = ["--board", self.board] if self.board else []
        self.run("mount", self.image, self.mnt, *chosen, *options)
        self._pid = 0
        return self

    def umount(self, *options: str) -> str:
        said = self.run("umount", self.mnt, *options)
        self._pid = 0
        return said

    @property
    def session(self) -> Path:
        (found,) = (self.base / "state/sessions").iterdir()
        return found

    @property
    def work(self) -> Path:
        return self.session / "work"

    @property
    def pid(self) -> int:
        """The daemon's."""
        if not self._pid:
            import json

            self._pid = int(json.loads((self.session / "lock").read_text())["pid"])
        return self._pid

    def kill(self) -> None:
        """kill -9 of the daemon; the mountpoint is dead when this returns."""
        pid = self.pid
        os.kill(pid, signal.SIGKILL)
        until(lambda: ended(pid))
        self._pid = 0

    @property
    def is_mounted(self) -> bool:
        mounts = Path("/proc/self/mounts").read_bytes()  # of others too, in whatever encoding
        return f" {self.mnt} fuse.romfsfs ".encode() in mounts

    def stored(self) -> dict[str, bytes | None]:
        """What the image file holds now: contents by path, None for folders."""
        return image_tree(self.image.read_bytes())

    def log(self) -> str:
        log = self.session / "log"
        return log.read_text(errors="replace") if log.exists() else ""

    def complaints(self) -> list[str]:
        """Lines of the daemon's log that nobody should ever see."""
        return [line for line in self.log().splitlines() if " INFO " not in line]

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def open_files(self) -> Counter[str]:
        """What its descriptors are of, to show."""
        names: Counter[str] = Counter()
        for fd in Path(f"/proc/{self.pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                names[os.readlink(fd)] += 1
        return names

    def threads(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/task"))

    def memory(self) -> int:
        """Bytes of the daemon that are in memory."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def remove(self) -> None:
        """Whatever happened: nothing stays mounted, nothing stays behind."""
        if self.is_mounted:
            subprocess.run(["fusermount3", "-uz", self.mnt], check=False, timeout=SECONDS)
        remove_tree(self.base)


def sh(mounted: RealMount, script: str, **environment: str) -> str:
    """A shell script in the mountpoint, which stops at the first failure."""
    done = subprocess.run(
        ["sh", "-euc", script], cwd=mounted.mnt, env={**mounted.env, **environment},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def image_tree(image: bytes) -> dict[str, bytes | None]:
    """The tree in an image: contents by path, None for folders."""
    return {
        path: image[node.extent.offset : node.extent.offset + node.extent.size]
        if isinstance(node, FileNode)
        else None
        for path, node in walk(read_image(image))
    }
