"""Somebody who sits at the machine: logged in, with a systemd of his own, and a desktop's bus."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from lab import Lab, UsbCamera, tty_of, wait_for


class Desk:
    """A user of the serial ports. `notes`: the notifications of what was logged in to."""

    def __init__(self, lab: Lab, name: str) -> None:
        self.lab, self.name = lab, lab.user(name, "dialout")
        self.uid = pwd.getpwnam(name).pw_uid
        self.home = Path(pwd.getpwnam(name).pw_dir)
        self._notes = lab.folder / f"notes-{name}"
        self._notes.touch()
        os.chown(self._notes, self.uid, -1)
        self._processes: list[subprocess.Popen[str]] = []
        lab.cleanup.callback(self.log_out)

    def log_in(self) -> None:
        """Through PAM, as at a console: logind starts the user's systemd."""
        argv = ["su", "--login", self.name, "-c", "echo ready; exec sleep infinity"]
        self._start(argv, None)
        wait_for(lambda: Path(f"/run/user/{self.uid}/bus").exists())
        recorder = Path(__file__).with_name("notifications.py")
        self._start([sys.executable, str(recorder), str(self._notes)], self.name)

    def _start(self, argv: list[str], user: str | None) -> None:
        process = self.lab.process(argv, user, Path("/"))
        self._processes.append(process)
        assert process.stdout is not None
        said = process.stdout.readline()
        assert said == "ready\n", said + process.stdout.read()

    def log_out(self) -> None:
        for process in reversed(self._processes):
            process.terminate()
            process.wait(30)
        self._processes.clear()
        self.lab.shell(f"loginctl terminate-user {self.uid}", code=None)
        # logind does not start another one for who is still leaving
        wait_for(lambda: not Path(f"/run/user/{self.uid}").exists(), every=0.5)

    def shell(self, command: str, code: int | None = 0) -> str:
        return self.lab.shell(command, self.name, code)

    def run(self, *words: object, code: int = 0, says: str = "") -> str:
        return self.lab.run(*words, code=code, says=says, user=self.name)

    def until(self, condition: Callable[[], object], what: str) -> None:
        """Wait; what is not so in time is said with what systemd and the units said."""
        with contextlib.suppress(TimeoutError):
            wait_for(condition, every=0.5)
            return
        self.lab.shell("systemctl --user --no-pager status 'romfsfs*'", self.name, code=None)
        self.lab.shell("mount | grep romfsfs; ls -l /dev/ttyACM*", code=None)
        raise AssertionError(f"not so: {what}; the units said: {self.journal()}")

    # ---- automount

    def install(self) -> None:
        """`automount --install`, and what it says that root has to do."""
        self.lab.install_rule(self.name)

    def place_of(self, port: str) -> Path:
        return self.home / "cameras" / Path(port).name

    def is_mounted(self, place: Path) -> bool:
        lines = Path("/proc/self/mounts").read_text().splitlines()
        return any(line.split()[1] == str(place) for line in lines)

    def camera_appears(self, camera: UsbCamera) -> Path:
        """Its folder, when it is mounted."""
        place = self.place_of(tty_of(camera))
        self.until(lambda: self.is_mounted(place), f"{place} is mounted")
        return place

    def is_gone(self, place: Path) -> None:
        """Neither a mount is left nor its folder, and nothing that failed."""
        self.until(lambda: not self.is_mounted(place), f"{place} is no mount")
        self.until(lambda: not place.exists(), f"there is no {place}")

    def failed_units(self) -> str:
        command = "systemctl --user list-units --failed --no-legend --plain 'romfsfs*'"
        said, _ = self.lab.process(["sh", "-c", command], self.name).communicate(timeout=60)
        return said

    def journal(self) -> str:
        argv = ["journalctl", "--no-pager", "-o", "cat", "-n", "60", f"_UID={self.uid}"]
        return subprocess.run(argv, capture_output=True, text=True, check=True).stdout

    # ---- notifications

    @property
    def notes(self) -> list[tuple[str, str]]:
        """Title and text of each so far."""
        sent = [json.loads(line) for line in self._notes.read_text().splitlines()]
        assert all(program == "romfsfs" for program, _, _ in sent), sent
        return [(title, text) for _, title, text in sent]

    def is_told(self, word: str, after: int = 0) -> tuple[str, str]:
        """The first notification with this word in its title or text. after: of those so many."""

        def found() -> list[tuple[str, str]]:
            return [note for note in self.notes[after:] if any(word in part for part in note)]

        self.until(found, f"a notification says {word!r}")
        self.lab.say(f"notified: {found()[0]}")
        return found()[0]
