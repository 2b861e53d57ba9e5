"""A host over plain directories: the least that a mount needs, with a journal of what it was told.

STATE/          work/ hidden/ base/ shadow/ zoo/    plain directories
STATE/calls     a line for each `changed`, `control`, `close`
STATE/log       the daemon's log
STATE/settings.json   capacity, used, slow, limits {path: bytes}, read_only, notes
"""

from __future__ import annotations

import importlib
import json
import logging
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from processes import until

from romfsfs.errors import RomfsError
from romfsfs.system.files import Progress

log = logging.getLogger(__name__)


class DirectoryTree:
    def __init__(self, root: Path) -> None:
        self.root = root

    def list(self, path: str) -> Iterable[tuple[str, bool]]:
        return [(entry.name, entry.is_dir()) for entry in os.scandir(self.root / path)]

    def stat(self, path: str) -> tuple[bool, int, int] | None:
        place = self.root / path
        if not place.exists():
            return None
        found = place.stat()
        return place.is_dir(), found.st_size, found.st_mtime_ns

    def open(self, path: str) -> tuple[int, int, int]:
        if not (self.root / path).is_file():
            raise KeyError(path)
        if path.endswith(".pending"):
            raise OSError(11, "pending")
        fd = os.open(self.root / path, os.O_RDONLY)
        size = os.fstat(fd).st_size
        # Bytes before and after the file's own are nobody's business: as in an image.
        return fd, min(3, size), max(0, size - 6)


class FakeHost:
    def __init__(self, state: Path) -> None:
        self.state = state
        for name in ("work", "hidden", "base", "shadow"):
            (state / name).mkdir(exist_ok=True)
        self.work_fd = os.open(state / "work", os.O_RDONLY | os.O_DIRECTORY)
        self.hidden_fd = os.open(state / "hidden", os.O_RDONLY | os.O_DIRECTORY)
        self.log_file: Path | None = state / "log"
        settings = state / "settings.json"
        self.settings: dict[str, Any] = (
            json.loads(settings.read_text()) if settings.exists() else {}
        )
        if self.settings.get("notes"):
            log.info("it is opened")
        self.read_only: bool = self.settings.get("read_only", False)
        self._calls = os.open(state / "calls", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def _note(self, *words: str) -> None:
        os.write(self._calls, " ".join(words).encode("utf-8", "surrogateescape") + b"\n")

    def changed(self, path: str) -> None:
        self._note("changed", path)

    def limit(self, path: str) -> int | None:
        limits: dict[str, int] = self.settings.get("limits", {})
        return limits.get(path)

    def least(self) -> int:
        self._note("counted")
        limits: dict[str, int] = self.settings.get("limits", {})
        stored = [self.state / "work" / name for name in limits]
        return sum(path.stat().st_size for path in stored if path.exists())

    def usage(self) -> tuple[int | None, int]:
        if "slow" in self.settings:
            self._wait()
        return self.settings.get("capacity"), self.settings.get("used", 0)

    def status_text(self, open_writers: Callable[[], list[str]]) -> str:
        return f"{len(os.listdir(self.work_fd))} entries\n"

    def status_json(self, open_writers: Callable[[], list[str]]) -> str:
        return json.dumps({"entries": sorted(os.listdir(self.work_fd))}) + "\n"

    def status_html(self, open_writers: Callable[[], list[str]]) -> str:
        return f"<p>{len(open_writers())} writers\n"

    def log_text(self) -> str:
        return (self.state / "log").read_text() + "end\n"

    def base(self) -> DirectoryTree:
        return DirectoryTree(self.state / "base")

    def shadow(self) -> DirectoryTree:
        return DirectoryTree(self.state / "shadow")

    def zoo(self) -> DirectoryTree | None:
        zoo = self.state / "zoo"
        return DirectoryTree(zoo) if zoo.exists() else None

    def control(self, command: str, open_writers: Callable[[], list[str]]) -> None:
        self._note("control", command, json.dumps(open_writers()))
        if command == "refuse":
            raise RomfsError("refused as asked", where="app.py", next_step="ask for something else")
        if command == "wait":
            self._wait()
        if command == "crash":
            raise ZeroDivisionError("a bug in the host")
        if command == "exit":
            raise SystemExit(3)

    def _wait(self) -> None:
        """Until the test says so; the request that asked for it is not answered before."""
        self._note("waiting")
        until((self.state / "go").exists)

    def file_state(self, path: str) -> bytes:
        if path.endswith("slow"):
            self._wait()
        if path.endswith("serial"):
            raise OSError("an OSError without errno, as pyserial raises")
        if path.endswith("bug"):
            raise ValueError("a bug in the host")
        return b"failed" if path.endswith("bad.py") else b"ready"

    def close(self) -> None:
        self._note("close")
        for fd in (self.work_fd, self.hidden_fd, self._calls):
            os.close(fd)


def open_host(state: Path) -> Callable[[Progress], FakeHost]:
    """A factory as `mount` takes it."""

    def factory(progress: Progress) -> FakeHost:
        progress("reading", 1, 2)
        if (state / "hold").exists():  # a camera that takes its time
            (state / "held").touch()
            until((state / "go").exists)
        progress("reading", 2, 2)
        if (state / "refuse").exists():
            module, _, name = (state / "refuse").read_text().partition(" ")
            kind = getattr(importlib.import_module(module), name) if module else RomfsError
            error = kind.__new__(kind)
            RomfsError.__init__(error, "the session refuses", where="there", next_step="go on")
            raise error
        return FakeHost(state)

    return factory
