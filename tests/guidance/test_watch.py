"""`status --watch`: shown again when something has changed, until Ctrl-C or the unmount."""

from __future__ import annotations

import json
import os
import pty
import queue
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from processes import until

from romfsfs.cli import main
from romfsfs.cli.output import draws
from romfsfs.cli.watch import _screen
from romfsfs.image.writer import encode

_PATIENCE_SECONDS = 60


@pytest.fixture
def cam(tmp_path: Path, fuse_device: None) -> Iterator[Path]:
    """A mounted image; whoever unmounts it leaves the folder."""
    (tmp_path / "app.img").write_bytes(encode({"main.py": b"pass\n"}))
    folder = tmp_path / "cam"
    folder.mkdir()
    assert main(["mount", str(tmp_path / "app.img"), str(folder), "--board", "OPENMV4P"]) == 0
    yield folder
    if os.path.ismount(folder):
        assert main(["umount", "--discard", str(folder)]) == 0


class Watching:
    """`romfsfs status --watch`, and what it prints, line by line."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            ["romfsfs", "status", "--watch", *arguments], stdout=subprocess.PIPE, text=True
        )
        self._lines: queue.Queue[str] = queue.Queue()
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)

    def until(self, text: str) -> str:
        while text not in (line := self._lines.get(timeout=_PATIENCE_SECONDS)):
            pass
        return line

    def end(self, number: int = 0) -> int:
        if number:
            self.process.send_signal(number)
        return self.process.wait(_PATIENCE_SECONDS)

    def close(self) -> None:
        self.end(signal.SIGKILL)
        self._reading.join(_PATIENCE_SECONDS)
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def watching() -> Iterator[Callable[..., Watching]]:
    started: list[Watching] = []

    def start(*arguments: str) -> Watching:
        started.append(Watching(*arguments))
        return started[-1]

    yield start
    for each in started:
        each.close()


def test_a_change_is_shown_and_an_unmount_ends_it(
    cam: Path, watching: Callable[..., Watching]
) -> None:
    plain, as_json = watching(str(cam)), watching(str(cam), "--json")
    plain.until("nothing to commit")
    assert json.loads(as_json.until("clean"))["clean"] is True
    (cam / "app.py").write_text("print(1)\n")
    plain.until("A app.py -> app.mpy")
    assert "app.py" in as_json.until('"clean": false')
    assert plain.end(signal.SIGINT) == 0, "Ctrl-C is how one ends it"
    until(lambda: main(["umount", "--discard", str(cam)]) == 0)  # it reads now and then, briefly
    assert as_json.end() == 0


def test_it_ends_when_nobody_reads_any_more(cam: Path) -> None:
    """`| head -1` would wait for the next change, which may never come."""
    process = subprocess.Popen(
        ["romfsfs", "status", "--watch", str(cam)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(_PATIENCE_SECONDS) == 0


def test_an_unmounted_session_is_watched_too(
    cam: Path, tmp_path: Path, watching: Callable[..., Watching]
) -> None:
    (cam / "app.py").write_text("print(1)\n")
    assert main(["umount", str(cam)]) == 0
    started = watching(str(tmp_path / "app.img"))
    started.until("A app.py")
    assert main(["revert", str(tmp_path / "app.img"), "--yes"]) == 0
    assert started.end() == 0, "without edits there is nothing to follow"


def test_a_dumb_terminal_is_not_drawn_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ours, theirs = pty.openpty()
    with open(theirs, "w") as terminal:
        monkeypatch.setenv("TERM", "xterm")
        assert draws(terminal)
        monkeypatch.setenv("TERM", "dumb")
        assert not draws(terminal)
    os.close(ours)


def test_a_terminal_is_drawn_anew(cam: Path) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        ["romfsfs", "status", "--watch", str(cam)], stdout=theirs, stderr=theirs, stdin=theirs,
        start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    try:
        seen = b""
        while b"B (0." not in seen:
            seen += os.read(ours, 4096)
        assert seen.startswith(b"\x1b[H\x1b[2J")
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(_PATIENCE_SECONDS) == 0
        os.close(ours)


def test_a_screen_too_small_cuts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.setenv("LINES", "6")
    text = "".join(f"line {n} is longer than that\n" for n in range(10)) + "  [###...]\n"
    shown = _screen(text).partition("\x1b[2J")[2].splitlines()
    assert shown == [
        "line 0 is longer ...", "line 1 is longer ...", "line 2 is longer ...",
        "  ... 7 lines more", "  [###...]",
    ]  # fmt: skip
