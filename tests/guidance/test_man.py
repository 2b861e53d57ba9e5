"""The manual page says everything, in roff that the formatters take."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from romfsfs.cli import main
from romfsfs.cli.app import COMMANDS, romfsfs
from romfsfs.cli.man import manual, text

_FORMATTERS = (
    ["groff", "-man", "-ww", "-Tutf8"],
    ["mandoc", "-T", "lint", "-W", "error"],
    ["man", "-l", "-"],
)


def options_of(command: click.Command) -> set[str]:
    found = {
        option
        for parameter in command.params
        if not getattr(parameter, "hidden", False)
        for option in parameter.opts
    }
    if isinstance(command, click.Group):
        for inner in command.commands.values():
            found |= options_of(inner)
    return {option for option in found if option.startswith("--")}


def test_every_command_and_option_is_in_it() -> None:
    page = manual()
    context = click.Context(romfsfs)
    for name in COMMANDS:
        assert f'.SS "romfsfs {text(name)}' in page
        command = romfsfs.get_command(context, name)
        assert command is not None
        for option in options_of(command):
            assert text(option) in page, f"{name} {option}"
    for code in ("0", "1", "2", "3", "4", "5", "6", "7", "130"):
        assert f".TP\n\\fB{code}\\fR\n" in page


@pytest.mark.parametrize("formatter", _FORMATTERS, ids=lambda command: command[0])
def test_formatters_take_it_without_a_word(formatter: list[str]) -> None:
    present = [command for command in _FORMATTERS if shutil.which(command[0])]
    assert present, "install groff-base, man-db or mandoc: one of them has to read the page"
    if formatter not in present:
        formatter = present[0]
    done = subprocess.run(
        formatter, input=manual(), capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_nothing_in_a_help_text_is_taken_for_roff() -> None:
    assert text("'!P' \\n .so -x") == "\\(aq!P\\(aq \\en .so \\-x"
    assert text(".romfs") == "\\&.romfs"
    assert text("ü") == "\\[u00FC]"


def test_it_can_be_installed_for_man(
    tmp_path: Path, run: Callable[..., subprocess.CompletedProcess[str]],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert main(["man"]) == 0
    page = tmp_path / "man" / "man1" / "romfsfs.1"
    page.parent.mkdir(parents=True)
    page.write_text(capsys.readouterr().out)
    if shutil.which("man"):
        done = run("man", "romfsfs", MANPATH=str(tmp_path / "man"), MANPAGER="cat", PAGER="cat")
        assert "romfsfs mount" in done.stdout, done.stderr
