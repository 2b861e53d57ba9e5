"""What README.md says works: its commands are run, or at least parsed.

A `console` block after `<!-- run -->` is run, all of them in one home folder, in order, with one
simulated camera connected; output shown below a command must be what it prints, where `...` stands
for anything. `# exit N` after a command says how it ends, else it must succeed. A block after
`<!-- not run -->` is parsed as the command line would parse it.
"""

from __future__ import annotations

import html
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click
import pytest
from processes import until

from romfsfs.cli.app import COMMANDS, romfsfs
from romfsfs.simulator import Simulator, preset

CHECKOUT = Path(__file__).parent.parent
README = CHECKOUT / "README.md"
_BLOCK = re.compile(r"^(?:<!-- (?P<mark>[^\n]+) -->\n)?```console\n(?P<body>.*?)^```$", re.M | re.S)
_PATIENCE_SECONDS = 60


class Command(NamedTuple):
    """line: in README.md, for messages. status: the exit code it promises."""

    line: int
    text: str
    status: int
    output: str


def commands(mark: str) -> list[Command]:
    text = README.read_text(encoding="utf-8")
    found = []
    for block in _BLOCK.finditer(text):
        if block["mark"] == mark:
            first = text[: block.start("body")].count("\n") + 1
            found += _commands_of(block["body"], first)
    return found


def _commands_of(body: str, first: int) -> Iterator[Command]:
    pieces = re.split(r"^\$ ", body, flags=re.M)
    assert not pieces[0].strip(), f"README.md:{first}: output before any command"
    line = first
    for piece in pieces[1:]:
        text, _, output = piece.partition("\n")
        expected = re.search(r" # exit (\d+)$", text)
        yield Command(line, text, int(expected[1]) if expected else 0, output)
        line += piece.count("\n")


@pytest.fixture
def camera(micropython: Path) -> Iterator[Simulator]:
    """The only camera connected: its ROMFS is blank."""
    with Simulator(preset("OPENMV4P"), micropython=micropython) as simulated:
        yield simulated


@pytest.fixture
def shell(tmp_path: Path, camera: Simulator) -> Iterator[dict[str, str]]:
    """The environment of a user with a new home, this checkout's romfsfs, two example files and
    a camera."""
    home, programs = tmp_path / "home", tmp_path / "bin"
    home.mkdir()
    programs.mkdir()
    program = programs / "romfsfs"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m romfsfs "$@"\n')
    program.chmod(0o755)
    subprocess.run(
        [sys.executable, CHECKOUT / "scripts/example_model.py", home / "person_detect.tflite"],
        check=True,
    )
    (home / "person_detect.txt").write_text("no person\nperson\n")
    environment = {
        **os.environ,
        "HOME": str(home),
        "PATH": f"{programs}:{os.environ['PATH']}",
        "PYTHONPATH": str(CHECKOUT),
        "ROMFSFS_PORTS": camera.port,
        "ROMFSFS_STATE_DIR": str(tmp_path / "state"),
        "ROMFSFS_CACHE_DIR": str(tmp_path / "cache"),
    }
    yield environment
    if os.path.ismount(home / "cam"):
        run(
            Command(0, "romfsfs umount --discard ~/cam || fusermount3 -uz ~/cam", 0, ""),
            environment,
        )


def run(command: Command, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", command.text], cwd=environment["HOME"], env=environment, text=True,
        stdin=subprocess.DEVNULL, capture_output=True,
        timeout=_PATIENCE_SECONDS, check=False,
    )  # fmt: skip


def matches(expected: str, output: str) -> bool:
    """Whether the output is what is shown; `...` in a line, or as a line, stands for anything."""
    pattern = re.escape(expected.rstrip()).replace(r"\.\.\.", ".*")
    return re.fullmatch(pattern, output.rstrip(), re.S) is not None


def wait_for_conversions(environment: dict[str, str]) -> None:
    """What is shown is what a reader sees who types slower than Vela converts."""
    status = Path(environment["HOME"]) / "cam/.romfs/status.json"
    until(lambda: not (status.exists() and '"pending"' in status.read_text()))


def test_a_reader_can_follow_it(shell: dict[str, str]) -> None:
    for command in commands("run"):
        wait_for_conversions(shell)
        done = run(command, shell)
        both = done.stdout + done.stderr
        said = f"README.md:{command.line}: $ {command.text}\n{both}"
        assert done.returncode == command.status, said
        if command.output:
            # Notes on standard error are left out where the result is shown.
            shown = matches(command.output, done.stdout) or matches(command.output, both)
            assert shown, f"{said}\nREADME shows:\n{command.output}"


@pytest.mark.parametrize("command", commands("not run"), ids=lambda command: command.text)
def test_what_is_not_run_is_a_command_of_ours(command: Command) -> None:
    words = shlex.split(command.text, comments=True)
    if words[0] != "romfsfs":
        return
    context = click.Context(romfsfs)
    found = romfsfs.get_command(context, words[1])
    assert found is not None, f"no command {words[1]}"
    found.make_context(words[1], words[2:], parent=context)  # UsageError for a wrong option


def test_every_console_block_is_one_or_the_other() -> None:
    marks = {block["mark"] for block in _BLOCK.finditer(README.read_text(encoding="utf-8"))}
    assert marks == {"run", "not run"}


def test_every_command_is_mentioned() -> None:
    text = README.read_text(encoding="utf-8")
    missing = [name for name in COMMANDS if not re.search(rf"(romfsfs |`){name}\b", text)]
    assert not missing, f"README.md does not mention: {', '.join(missing)}"


def test_the_python_example_works(
    shell: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    block = re.search(r"^```python\n(.*?)^```$", README.read_text(encoding="utf-8"), re.M | re.S)
    assert block is not None
    for name in ("ROMFSFS_STATE_DIR", "ROMFSFS_CACHE_DIR", "ROMFSFS_PORTS"):
        monkeypatch.setenv(name, shell[name])
    monkeypatch.chdir(shell["HOME"])
    made = "romfsfs new app.img --board OPENMV_AE3 && mkdir product && echo 1 > product/main.py"
    assert run(Command(0, made, 0, ""), shell).returncode == 0
    names: dict[str, object] = {}
    exec(compile(block[1], "README.md", "exec"), names)
    assert names["report"].write.verified  # type: ignore[attr-defined]
    assert names["outcome"].verified  # type: ignore[attr-defined]


def test_the_picture_is_of_the_commands_shown() -> None:
    """`scripts/record` draws it; it asks no server for fonts and shows no path of a machine."""
    text = README.read_text(encoding="utf-8")
    section = text.partition("## Five minutes with a file")[2].partition("\n## ")[0]
    drawn = (CHECKOUT / "scripts/session.svg").read_text(encoding="utf-8")
    shown = html.unescape(re.sub(r"<[^>]+>", "", drawn)).replace("\xa0", " ")
    for block in _BLOCK.finditer(section):
        for command in _commands_of(block["body"], 0):
            assert command.text in shown, f"run scripts/record: no $ {command.text}"
    assert len(drawn) < 60_000
    assert "/tmp" not in shown
    assert re.findall(r"https?:[^\"]*", drawn) == ["http://www.w3.org/2000/svg"]


def test_links_lead_somewhere() -> None:
    for name in ("README.md", "ARCHITECTURE.md"):
        text = (CHECKOUT / name).read_text(encoding="utf-8")
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", text):
            assert (CHECKOUT / target).exists(), f"{name} links to {target}"


def test_every_environment_variable_is_explained() -> None:
    text = README.read_text(encoding="utf-8")
    sources = "".join(path.read_text() for path in (CHECKOUT / "romfsfs").rglob("*.py"))
    read = set(re.findall(r"\b(ROMFSFS_[A-Z_]+)\b", sources)) - {"ROMFSFS_"}
    read |= set(re.findall(r"environ\.get\(\"([A-Z_]+)\"", sources)) - _NOT_OURS
    missing = sorted(name for name in read if f"`{name}`" not in text)
    assert not missing, f"README.md, Environment, does not explain: {missing}"


#: Variables of the system that need no explanation.
_NOT_OURS = {"PATH", "TERM", "PYTHONPATH", "SUDO_UID", "XDG_CONFIG_HOME", "XDG_DATA_HOME"}
_NOT_OURS |= {"DBUS_SESSION_BUS_ADDRESS", "DISPLAY", "WAYLAND_DISPLAY", "XDG_RUNTIME_DIR"}
_NOT_OURS |= {"_ROMFSFS_COMPLETE"}
