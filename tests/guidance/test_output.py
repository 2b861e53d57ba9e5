"""What lists has `--json`; `python -m romfsfs` works; the plainest commands import little."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import struct
import subprocess
import sys
import termios
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from romfsfs import __version__, api
from romfsfs.cli import main
from romfsfs.cli.app import COMMANDS, romfsfs
from romfsfs.image.writer import encode

CHECKOUT = Path(__file__).parents[2]

#: Commands whose result is text by its nature, is nothing but a sentence, or is a file.
NO_LISTING = {
    "mount", "umount", "diff", "revert", "new", "cat", "extract", "simulate", "desktop",
    "completion", "man", "help", "recover", "zoo add", "zoo index",
}  # fmt: skip


def test_whatever_lists_has_json() -> None:
    root = click.Context(romfsfs)
    for name in COMMANDS:
        command = romfsfs.get_command(root, name)
        inner = command.commands if isinstance(command, click.Group) else {}
        for full, each in ({f"{name} {k}": v for k, v in inner.items()} or {name: command}).items():
            assert each is not None
            options = {option for parameter in each.params for option in parameter.opts}
            assert "--json" in options or full in NO_LISTING, full


@pytest.mark.parametrize("arguments", [
    ["boards"], ["boards", "OPENMV_N6"], ["cameras", "--no-open"], ["sessions"], ["doctor"],
    ["ls", "app.img"], ["info", "app.img"], ["info", "--map", "app.img"], ["verify", "app.img"],
    ["automount"],
], ids=" ".join)  # fmt: skip
def test_json_is_json(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "app.img").write_bytes(encode({"main.py": b"pass\n"}))
    assert main([*arguments, "--json"]) in (0, 1)
    json.loads(capsys.readouterr().out)


def test_python_m_romfsfs(run: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    done = run(
        sys.executable, "-m", "romfsfs", "--version", PYTHONPATH=str(Path(__file__).parents[2])
    )
    assert (done.returncode, done.stdout) == (0, f"romfsfs {__version__}\n")


def test_the_version_is_known_without_being_installed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-q", "--version"]) == 0
    assert capsys.readouterr().out == f"romfsfs {__version__}\n"


#: What takes most of the time to start, and is not needed to look into a file.
_LATE = {"asyncio", "fuse", "rich", "serial", "ssl", "subprocess", "tempfile", "urllib.request"}
_LATE |= {f"romfsfs.{part}" for part in ("boards", "convert", "devices", "fs", "zoo")}


@pytest.mark.parametrize("arguments", [["--version"], ["ls", "{image}"], ["ls", "-l", "{image}"]])
def test_commands_that_should_start_quickly_import_little(
    arguments: list[str], tmp_path: Path, run: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    """Imports are what takes the time, and can be counted."""
    image = tmp_path / "app.img"
    image.write_bytes(encode({f"{n}.py": b"pass\n" for n in range(20)}))
    imported = imported_by([word.format(image=image) for word in arguments], tmp_path, run)
    assert not imported & _LATE
    assert 10 < len(imported) < 110, sorted(imported)


def test_a_board_with_an_npu_starts_quickly_where_no_model_is_converted(
    tmp_path: Path, run: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    """The metadata of packages, where Vela's version is, brings the e-mail package and sockets."""
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "labels.txt").write_text("cat\n")
    words = ["-q", "build", "--board", "OPENMV_AE3", str(tree), str(tmp_path / "app.img")]
    imported = imported_by(words, tmp_path, run)
    assert "romfsfs.convert.vela" in imported
    assert not imported & {"email", "importlib.metadata", "socket"}


def imported_by(
    words: list[str], folder: Path, run: Callable[..., subprocess.CompletedProcess[str]]
) -> set[str]:
    """The modules that a command brings, run as pip's console script does it."""
    script = folder / "console-script"
    script.write_text(
        "import sys\nbefore = set(sys.modules)\nfrom romfsfs.cli import main\ncode = main()\n"
        "print(*(set(sys.modules) - before), file=sys.stderr)\nsys.exit(code)\n"
    )
    done = run(sys.executable, str(script), *words, PYTHONPATH=str(CHECKOUT))
    assert done.returncode == 0
    return set(done.stderr.split())


def on_a_terminal(columns: int, *words: str, **environment: str) -> str:
    """What a command shows on a terminal of so many columns."""
    here, there = os.openpty()
    fcntl.ioctl(there, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    started = subprocess.Popen(
        [sys.executable, "-m", "romfsfs", *words], stdin=there, stdout=there, stderr=there,
        env={**os.environ, "TERM": "xterm", "PYTHONPATH": str(CHECKOUT), **environment},
    )  # fmt: skip
    os.close(there)
    said = b""
    with contextlib.suppress(OSError):  # the other end is closed
        while data := os.read(here, 4096):
            said += data
    os.close(here)
    assert started.wait(60) == 0, said
    return said.decode().replace("\r\n", "\n")


@pytest.fixture
def edited(tmp_path: Path) -> Path:
    """An image with a long log entry, and edits that are kept."""
    image = tmp_path / "app.img"
    image.write_bytes(encode({"a.txt": b"old\n"}))
    with api.open(image) as editor:
        for n in range(9):
            (editor.path / f"a rather long name {n}.txt").write_text("1")
        editor.commit()
        (editor.path / "a.txt").write_text("new\n")
    return image


def test_colours_are_for_terminals_that_want_them(edited: Path) -> None:
    green, red = "\x1b[32m+new\x1b[0m\n", "\x1b[31m-old\x1b[0m\n"
    shown = on_a_terminal(80, "diff", str(edited), PAGER="cat")
    assert green in shown
    assert red in shown
    assert "\x1b[33m  M a.txt" in on_a_terminal(80, "status", str(edited))
    for words, environment in (
        (["diff", str(edited)], {"NO_COLOR": "1", "PAGER": "cat"}),
        (["status", str(edited)], {"NO_COLOR": "1"}),
        (["status", str(edited)], {"TERM": "dumb"}),
    ):
        assert "\x1b" not in on_a_terminal(80, *words, **environment)


def test_diff_and_log_go_through_the_pager(edited: Path, tmp_path: Path) -> None:
    for command in ("diff", "log"):
        pager = f"echo paged; cat > '{tmp_path}/{command}'"
        assert on_a_terminal(80, command, str(edited), PAGER=pager, NO_COLOR="1") == "paged\n"
    assert "+new\n" in (tmp_path / "diff").read_text()
    assert all(len(line) <= 80 for line in (tmp_path / "log").read_text().splitlines())
    assert on_a_terminal(80, "log", str(edited), PAGER="head -c 1")  # closed early: no error


@pytest.mark.parametrize("words", [["boards"], ["info", "--map", "app.img"], ["--help"]])
def test_a_screen_of_80_columns_is_enough(
    words: list[str], edited: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(edited.parent)
    shown = on_a_terminal(80, *words, NO_COLOR="1")
    assert [line for line in shown.splitlines() if len(line) > 80] == []
