"""What lists has `--json`; `python -m romfsfs` works; the plainest commands import little."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from romfsfs import __version__
from romfsfs.cli import main
from romfsfs.cli.app import COMMANDS, romfsfs
from romfsfs.image.writer import encode

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
    """Run as pip's console script does it. Imports are what takes the time, and can be counted."""
    image = tmp_path / "app.img"
    image.write_bytes(encode({f"{n}.py": b"pass\n" for n in range(20)}))
    script = tmp_path / "console-script"
    script.write_text(
        "import sys\nbefore = set(sys.modules)\nfrom romfsfs.cli import main\ncode = main()\n"
        "print(*(set(sys.modules) - before), file=sys.stderr)\nsys.exit(code)\n"
    )
    words = [word.format(image=image) for word in arguments]
    done = run(sys.executable, str(script), *words, PYTHONPATH=str(Path(__file__).parents[2]))
    assert done.returncode == 0
    imported = set(done.stderr.split())
    assert not imported & _LATE
    assert 10 < len(imported) < 110, sorted(imported)
