"""What every scenario has: romfsfs as a user runs it, cameras on the bus, folders, judges."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pwd
import random
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from camera import PATIENCE, UsbCamera, tty_of, wait_for

import romfsfs

RULES = Path("/etc/udev/rules.d/70-romfsfs.rules")
#: as an administrator put it there, for everybody and for mount(8)
PROGRAM = "/usr/local/bin/romfsfs"

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
        self.home = self.folder / "home"
        self.home.mkdir(mode=0o700)
        self.cleanup = contextlib.ExitStack()
        self._ports = iter(range(8))

    def close(self) -> None:
        self.cleanup.close()

    def environment(self, user: str | None = None) -> dict[str, str]:
        """root's has a home of this scenario alone."""
        known = {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "HOME": str(self.home),
            "ROMFSFS_MICROPYTHON": str(self.micropython),
        }
        if user:
            entry = pwd.getpwnam(user)
            runtime = f"/run/user/{entry.pw_uid}"
            known |= {
                "HOME": entry.pw_dir, "USER": user, "XDG_RUNTIME_DIR": runtime,
                "DBUS_SESSION_BUS_ADDRESS": f"unix:path={runtime}/bus",
            }  # fmt: skip
        return known

    def camera(self, board: str, *, plugged: bool = True, **changes: object) -> UsbCamera:
        camera = UsbCamera(board, next(self._ports), self.micropython, **changes)  # type: ignore[arg-type]
        self.cleanup.enter_context(camera)
        if plugged:
            camera.plug(window=False)
            self.say(f"{board} is on {tty_of(camera)}")
        return camera

    def user(self, name: str, *groups: str) -> str:
        """Somebody new, who is gone with the scenario."""
        self.shell(f"useradd --create-home --shell /bin/sh {name}")
        self.cleanup.callback(self.shell, f"userdel --remove {name}", code=None)
        for group in groups:
            self.group(name, group)
        return name

    def group(self, user: str, group: str) -> None:
        self.shell(f"usermod -aG {group} {user}")

    def install_rule(self, user: str) -> None:
        """What `automount --install` says that has to be done once as root."""
        said = self.run("automount", "--install", user=user, says="once, as root:")
        command = next(line for line in said.splitlines() if line.strip().endswith("=usb"))
        self.cleanup.callback(RULES.unlink, missing_ok=True)
        self.shell(command.replace("sudo ", ""))

    def process(
        self, argv: list[str], user: str | None = None, cwd: Path | None = None
    ) -> subprocess.Popen[str]:
        if user:
            argv = ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups", *argv]
        return subprocess.Popen(
            argv, env=self.environment(user), cwd=cwd or self.folder, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def start(self, *words: object, user: str | None = None) -> subprocess.Popen[str]:
        """romfsfs as this user runs it."""
        return self.process([PROGRAM, *map(str, words)], user)

    def shell(self, command: str, user: str | None = None, code: int | None = 0) -> str:
        """What it says. code: what it must end with; None: with anything."""
        process = self.process(["sh", "-c", command], user)
        said, _ = process.communicate(timeout=PATIENCE)
        self.say(f"{user or 'root'}$ {command} -> {process.returncode}: {said.strip()}")
        assert code in (None, process.returncode), f"{command}: {process.returncode}: {said}"
        return said

    def run(
        self, *words: object, code: int | None = 0, says: str = "", user: str | None = None
    ) -> str:  # fmt: skip
        """romfsfs to its end, which must be this exit code; what it said."""
        process = self.start(*words, user=user)
        try:
            said, _ = process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            said, _ = process.communicate()
            raise AssertionError(f"{words} did not end: {said}") from None
        self.say(f"$ romfsfs {' '.join(map(str, words))} -> {process.returncode}: {said.strip()}")
        assert code in (None, process.returncode), f"{words}: {process.returncode}: {said}"
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
        romfsfs.build(source, path, board=board)
        return path

    def listed(self, content: bytes) -> Mapping[str, str] | None:
        """What MicroPython lists of a partition."""
        from listed import listed

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


def files(seed: int, size: int = 40 * 1024) -> dict[str, bytes]:
    """Eight files of so many bytes together."""
    data = random.Random(seed)
    return {f"{seed}-{index}.bin": data.randbytes(size // 8) for index in range(8)}


__all__ = [
    "RULES", "SCENARIOS", "Lab", "UsbCamera", "digests", "files", "scenario", "tty_of", "wait_for",
]  # fmt: skip
