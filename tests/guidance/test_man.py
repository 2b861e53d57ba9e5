"""The manual page says everything, in roff that the formatters take."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from romfsfs.cli import main
from romfsfs.cli.app import COMMANDS, romfsfs
from romfsfs.cli.man import manual

_FORMATTERS = [
    pytest.param(command, marks=pytest.mark.program(command[0]), id=command[0])
    for command in (
        ["groff", "-man", "-ww", "-Tutf8"],
        ["mandoc", "-T", "lint", "-W", "error"],
        ["man", "-l", "-"],
    )
]


def test_every_command_and_visible_option_is_in_it() -> None:
    page = manual()
    context = click.Context(romfsfs)
    for name in COMMANDS:
        assert f"\n.SH ROMFSFS {name.upper()}\n" in page
        command = romfsfs.get_command(context, name)
        assert command is not None
        for parameter in command.params:
            if isinstance(parameter, click.Option) and not parameter.hidden:
                assert parameter.opts[-1].replace("-", "\\-") in page, f"{name} {parameter.opts}"
    assert "ROMFSFS ZOO ADD" in page
    assert "130 interrupted" in page


@pytest.mark.parametrize("formatter", _FORMATTERS)
def test_formatters_take_it_without_a_word(formatter: list[str]) -> None:
    done = subprocess.run(
        formatter, input=manual(), capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.program("man")
def test_it_can_be_installed_for_man(
    tmp_path: Path, run: Callable[..., subprocess.CompletedProcess[str]],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert main(["man"]) == 0
    page = tmp_path / "man" / "man1" / "romfsfs.1"
    page.parent.mkdir(parents=True)
    page.write_text(capsys.readouterr().out)
    done = run("man", "romfsfs", MANPATH=str(tmp_path / "man"), MANPAGER="cat", PAGER="cat")
    assert "romfsfs mount" in done.stdout, done.stderr
