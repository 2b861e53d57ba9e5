"""A real mount of a fake host, and what a test asks of it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from processes import SECONDS, ended, until

SERVE = Path(__file__).with_name("serve.py")


class Mounted:
    """A mount, or the place for one. mnt: the mountpoint. state: the fake host's folder."""

    def __init__(self, base: Path, binding: str, prefix: tuple[str, ...] = ()) -> None:
        self.base = base
        self.binding = binding
        self.prefix = prefix  # of commands, to run them as the mount's user
        self.python = sys.executable
        self.state = base / "state"
        self.mnt = base / "mnt"
        self.work = self.state / "work"
        self.pid = 0
        self.expected: list[str] = []  # regular expressions of lines the log may hold
        self.state.mkdir()
        self.mnt.mkdir()

    def settings(self, **settings: Any) -> None:
        (self.state / "settings.json").write_text(json.dumps(settings))

    def command(self, *options: str) -> list[str]:
        return [*self.prefix, self.python, str(SERVE), str(self.state), str(self.mnt), *options]

    def environment(self) -> dict[str, str]:
        return {**os.environ, "ROMFSFS_FUSE": self.binding, "PYTHONDONTWRITEBYTECODE": "1"}

    def try_mount(self, *options: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            self.command(*options), env=self.environment(), stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=SECONDS, check=False,
        )  # fmt: skip
        found = re.search(r"^pid (\d+)$", done.stdout, re.MULTILINE)
        self.pid = int(found[1]) if found else 0
        return done

    def mount(self, *options: str) -> Mounted:
        done = self.try_mount(*options)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        return self

    def unmount(self) -> None:
        self.run("fusermount3", "-u", str(self.mnt))
        self.wait_for_end()

    def wait_for_end(self) -> None:
        until(lambda: ended(self.pid))
        self.pid = 0

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        self.wait_for_end()

    def run(self, *command: object, **options: Any) -> str:
        """A command in the mountpoint, as the mount's user; its output."""
        words = [*self.prefix, *(str(word) for word in command)]
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SECONDS,
            check=False, **options,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def sh(self, script: str) -> str:
        """A shell script in the mountpoint, which stops at the first failure."""
        return self.run("sh", "-euc", f"cd {self.mnt}\n{script}")

    def calls(self) -> list[str]:
        """What the host was told."""
        text = (self.state / "calls").read_bytes()
        return os.fsdecode(text).splitlines()

    def changes(self) -> list[str]:
        return [call[8:] for call in self.calls() if call.startswith("changed ")]

    def log(self) -> str:
        log = self.state / "log"
        return log.read_text() if log.exists() else ""

    def open_descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def finish(self) -> None:
        """Unmount if need be, and see that all is as it should be."""
        if self.pid:
            assert not ended(self.pid), f"the daemon died: {self.log()}"
            self.unmount()
            assert self.calls()[-1] == "close"
            left = os.listdir(self.state / "hidden")
            assert left == []
        unexpected = [
            line for line in self.log().splitlines()
            if not any(re.search(pattern, line) for pattern in (" INFO ", *self.expected))
        ]  # fmt: skip
        assert not unexpected
