"""Every command says what it does, and every option what it means."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import romfsfs as package
from romfsfs.cli import main
from romfsfs.cli.app import COMMANDS, romfsfs


def walk_commands() -> Iterator[tuple[str, click.Command]]:
    """Every command and subcommand, by what one types."""
    context = click.Context(romfsfs)
    for name in COMMANDS:
        command = romfsfs.get_command(context, name)
        assert command is not None, name
        yield name, command
        if isinstance(command, click.Group):
            below = click.Context(command)
            for inner in command.list_commands(below):
                found = command.get_command(below, inner)
                assert found is not None, f"{name} {inner}"
                yield f"{name} {inner}", found


COMMAND_TREE = dict(walk_commands())


@pytest.mark.parametrize("name", COMMAND_TREE)
def test_a_command_has_help(name: str) -> None:
    command = COMMAND_TREE[name]
    assert command.help, f"{name}: no help text"
    assert command.help.split("\n\n")[0].rstrip().endswith((".", ":")), f"{name}: not a sentence"
    silent = [
        parameter.opts[0]
        for parameter in command.params
        if isinstance(parameter, click.Option) and not (parameter.help or parameter.hidden)
    ]
    assert not silent, f"{name}: options without help: {', '.join(silent)}"


@pytest.mark.parametrize("name", COMMAND_TREE)
def test_help_is_shown(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*name.split(), "--help"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"Usage: romfsfs {name} ")
    assert all(len(line) <= 80 for line in shown.splitlines()), "wider than a terminal"


def test_the_overview_has_one_line_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    for name, (_, line) in COMMANDS.items():
        assert f"  {name} " in shown
        assert line.endswith("."), f"{name}: not a sentence"
        assert len(line) < 65, f"{name}: its line would wrap"


def test_a_typing_error_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--jsno"]) == 2
    assert "--json" in capsys.readouterr().err
    assert main(["stauts"]) == 2


def test_no_message_points_to_what_a_wheel_lacks() -> None:
    """Neither pages of docs/ nor scripts/; docstrings may: they are read with the sources."""
    pointing = set()
    for file in Path(package.__file__).parent.rglob("*.py"):
        tree = ast.parse(file.read_bytes())
        docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and id(node) not in docstrings:
                found = re.findall(r"\b(?:docs|scripts)/[\w.-]+", str(node.value))
                pointing |= {(each, file.name) for each in found}
    assert not pointing


#: Options of other programs that messages name, and an example of one.
OTHERS = {
    "--cap-add", "--cask", "--device", "--force-reinstall", "--help", "--optimization", "--option",
    "--reload", "--reset", "--subsystem-match", "--upgrade", "--user",
}  # fmt: skip


def test_every_option_that_a_message_names_exists() -> None:
    """`choose optimise=Size` once was told to people, and was nothing that they could type."""
    known = {
        option
        for command in COMMAND_TREE.values()
        for parameter in (*command.params, *romfsfs.params)
        for option in (*parameter.opts, *parameter.secondary_opts)
    }
    unknown = set()
    for file in Path(package.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_bytes())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
                named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", node.value))
                unknown |= {(option, file.name) for option in named - known - OTHERS}
    assert not unknown
