"""What every scenario has: romfsfs as a user runs it, cameras on the bus, folders, judges."""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from camera import UsbCamera, tty_of, wait_for

CHECKOUT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(CHECKOUT / "tests" / "devices"))
from listed import listed  # noqa: E402

Scenario = Callable[["Lab"], None]
SCENARIOS: dict[str, Scenario] = {}


def scenario(function: Scenario) -> Scenario:
    SCENARIOS[function.__name__.replace("_", "-")] = function
    return function


class Lab:
    """One scenario's surroundings. say: one line of what happens."""

    def __init__(self, name: str, micropython: Path, say: Callable[[str], None]) -> None:
        self.name, self.micropython, self.say = name, micropython, say
        self.folder = Path(tempfile.mkdtemp(prefix=f"{name}-"))
        self.folder.chmod(0o755)
        self.env = {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "PYTHONPATH": os.environ["PYTHONPATH"],
            "PYTHONPYCACHEPREFIX": "/tmp/pyc",
            "ROMFSFS_MICROPYTHON": str(micropython),
        }
        self._ports = iter(range(8))
        self._cleanup = contextlib.ExitStack()

    def close(self) -> None:
        self._cleanup.close()

    def camera(self, board: str, *, attached: bool = True, **changes: object) -> UsbCamera:
        camera = UsbCamera(board, next(self._ports), self.micropython, **changes)  # type: ignore[arg-type]
        self._cleanup.enter_context(camera)
        if attached:
            self.say(f"{board} is on {tty_of(camera)}")
        return camera

    def start(self, *words: object, user: str | None = None) -> subprocess.Popen[str]:
        """romfsfs with a home of its own for each user."""
        name = user or "root"
        home = self.folder / f"home-{name}"
        if not home.exists():
            home.mkdir(mode=0o700)
            if user:
                subprocess.run(["chown", f"{user}:", home], check=True)
        argv = [sys.executable, "-m", "romfsfs", *map(str, words)]
        if user:
            argv = ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups", *argv]
        return subprocess.Popen(
            argv, env={**self.env, "HOME": str(home)}, cwd=self.folder, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def run(
        self, *words: object, code: int = 0, says: str = "", user: str | None = None,
        seconds: float = 300,
    ) -> str:  # fmt: skip
        """romfsfs to its end, which must be this exit code; what it said."""
        process = self.start(*words, user=user)
        try:
            said, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            said, _ = process.communicate()
            raise AssertionError(f"{words} did not end in {seconds} s: {said}") from None
        self.say(f"$ romfsfs {' '.join(map(str, words))} -> {process.returncode}: {said.strip()}")
        assert process.returncode == code, f"{words}: {process.returncode}, not {code}: {said}"
        assert "Traceback" not in said, said
        assert says in said, f"{words}: no {says!r} in {said}"
        return said

    def image(self, name: str, files: Mapping[str, bytes], board: str) -> Path:
        """An image of these files for a board, as `build` makes it."""
        source, path = self.folder / f"{name}.d", self.folder / f"{name}.img"
        for inside, data in files.items():
            place = source / inside
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(data)
        self.run("-q", "build", source, path, "--board", board, "--no-convert")
        return path

    def listed(self, content: bytes) -> Mapping[str, str] | None:
        """What MicroPython lists of a partition."""
        return listed(self.micropython, self.folder, [content])[0]

    @contextlib.contextmanager
    def mounted(self, source: object, *words: object) -> Iterator[Path]:
        place = self.folder / "mount"
        place.mkdir(exist_ok=True)
        self.run("mount", source, place, *words)
        try:
            yield place
        finally:
            if os.path.ismount(place):
                self.run("umount", place)


def digests(files: Mapping[str, bytes]) -> dict[str, str]:
    return {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}


__all__ = ["SCENARIOS", "Lab", "UsbCamera", "digests", "scenario", "tty_of", "wait_for"]
