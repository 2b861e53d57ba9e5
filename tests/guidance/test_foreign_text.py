"""Names and texts from images, folders and models command no terminal, whatever command shows them,
and whether a terminal is there or `less -R` behind a pipe."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import romfsfs.api
from romfsfs.cli import main
from romfsfs.cli.app import COMMANDS
from romfsfs.desktop import notify
from romfsfs.image.writer import encode

EVIL = "\x1b]0;evil\x07\x1b[2J\u202e\n"
NAME = "e" + EVIL.replace("/", "") + ".txt"

#: Commands that show nothing of what others wrote, or whose output is bytes by its nature.
EXEMPT = {
    "cat": "bytes", "boards": "ours", "cameras": "its words are made printable on arrival",
    "doctor": "this machine", "simulate": "ours", "pull": "needs a camera",
    "push": "needs a camera", "reset": "needs a camera", "automount": "ours", "desktop": "ours",
    "completion": "ours", "man": "ours", "help": "ours", "mount": "below, with a mount",
    "umount": "below, with a mount", "recover": "below, with a mount",
}  # fmt: skip

LINES: dict[str, list[list[str]]] = {
    "status": [["status", "{app}"], ["status", "-v", "{app}"], ["status", "--json", "{app}"]],
    "diff": [["diff", "{app}"]],
    "commit": [["commit", "{app}", "--dry-run"], ["commit", "{app}", "--to", "{folder}/to.img"]],
    "revert": [["revert", "{app}", NAME], ["revert", "{app}", "--yes"]],
    "undo": [["undo", "{app}", "--dry-run"], ["undo", "{app}"]],
    "log": [["log", "{app}"], ["log", "{app}", "--json"]],
    "sessions": [["sessions"]],
    "new": [["new", "{folder}/" + NAME, "--board", "N6"]],
    "build": [["build", "{folder}/tree", "{folder}/" + NAME], ["build", "{folder}/bad", "x.img"]],
    "ls": [["ls", "{app}"], ["ls", "-l", "{app}"], ["ls", "{app}", EVIL]],
    "extract": [["extract", "{app}", "{folder}/" + EVIL]],
    "info": [["info", "{app}"], ["info", "--map", "{app}"], ["info", "--board", "N6", "{app}"]],
    "verify": [["verify", "-v", "{app}", "--board", "N6"]],
    "zoo": [["zoo", "list", "--all", "--from", "{folder}/models"]],
}  # fmt: skip


def test_every_command_is_fed() -> None:
    assert set(LINES) | set(EXEMPT) == set(COMMANDS)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An image with hostile names whose own name is one, with edits that are kept."""
    folder = tmp_path / "here"
    for name in ("tree", "bad", "models"):
        (folder / name).mkdir(parents=True)
    (folder / "tree" / NAME).write_text("1")
    (folder / "bad" / NAME.replace(".txt", ".py")).write_text(f"x = 1 +{EVIL}")
    (folder / "models" / NAME.replace(".txt", ".tflite")).write_bytes(b"x")
    app = folder / NAME.replace(".txt", ".img")
    app.write_bytes(encode({NAME: b"old\n", "lib/" + NAME: EVIL.encode()}))
    with opened(app) as editor:
        (editor.path / NAME).write_text(f"{EVIL}new\n")
        editor.commit()
        (editor.path / NAME).write_text("newer\n")
        (editor.path / NAME.replace(".txt", ".py")).write_text(f"x = 1 + '{EVIL}")
        (editor.path / "~$").mkdir()
    return folder


@contextlib.contextmanager
def opened(app: Path) -> Iterator[romfsfs.api.Editor]:
    with romfsfs.api.open(app) as editor:
        yield editor


@pytest.mark.parametrize("words", [line for lines in LINES.values() for line in lines], ids=ascii)
@pytest.mark.parametrize("terminal", [False, True], ids=["pipe", "terminal"])
def test_no_command_passes_it_on(
    folder: Path, words: list[str], terminal: bool, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PAGER", "cat")
    monkeypatch.setenv("NO_COLOR", "1")
    if terminal:
        monkeypatch.setattr("romfsfs.cli.output.sys.stdout.isatty", lambda: True)
    (app,) = folder.glob("e*.img")
    filled = [word.replace("{app}", str(app)).replace("{folder}", str(folder)) for word in words]
    capfd.readouterr()
    code = main(filled)
    said = "".join(capfd.readouterr())
    assert "\nTraceback" not in f"\n{said}", "the compiler's own is indented"
    if words[0] == "diff" and not terminal:
        assert EVIL.strip() in said, "a patch holds the bytes"
        return
    lines = [line for line in said.splitlines() if not line.isprintable()]
    assert not lines, (code, lines)
    if "--json" in words:
        json.loads(said)


@pytest.mark.mount
def test_nor_does_a_mount(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Its texts are read with `cat`, its log too."""
    (app,) = folder.glob("e*.img")
    place = folder / f"cam{EVIL}"
    place.mkdir()
    if os.fork() == 0:
        os._exit(main(["mount", str(app), str(place)]))
    assert os.waitstatus_to_exitcode(os.wait()[1]) == 0
    try:
        for name in ("status", "log"):
            text = (place / ".romfs" / name).read_text()
            assert all(line.isprintable() for line in text.split("\n")), text
        assert main(["recover"]) == 0
        assert main(["commit", str(place)]) == 4
        assert main(["status", str(place)]) == 0
    finally:
        assert main(["umount", "--keep", str(place)]) == 0
    said = "".join(capfd.readouterr())
    assert "evil" in said
    assert all(line.isprintable() for line in said.split("\n")), said


def test_nor_a_notification() -> None:
    for failed in ({NAME: f"{EVIL}1"}, {NAME: "1", "b": "2"}):
        for text in notify.wording(f"cam{EVIL}", failed):
            assert all(line.isprintable() for line in text.split("\n"))
