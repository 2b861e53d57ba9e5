"""`man`: the manual page, made of the `--help` texts. `help COMMAND`: the same as `--help`."""

from __future__ import annotations

from collections.abc import Iterator

import click

from romfsfs import __version__
from romfsfs.cli.output import Output


def manual() -> str:
    """The manual page, as roff with man(7) macros."""
    from romfsfs.cli.app import romfsfs

    lines = [f'.TH ROMFSFS 1 "" "romfsfs {__version__}" "User Commands"', ".SH NAME"]
    lines += ["romfsfs \\- edit the ROMFS of an OpenMV camera, or of an image file, as a directory"]
    context = click.Context(romfsfs, info_name="romfsfs", **romfsfs.context_settings)
    for title, said in _chapters(romfsfs, context):
        lines += [f".SH {_plain(title)}", ".nf", *map(_plain, said.splitlines()), ".fi"]
    return "\n".join(lines) + "\n"


def _chapters(command: click.Command, context: click.Context) -> Iterator[tuple[str, str]]:
    """(title, help text) of a command and of its subcommands."""
    yield context.command_path.upper(), command.get_help(context)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            if inner is not None:
                below = click.Context(inner, info_name=name, parent=context)
                yield from _chapters(inner, below)


def _plain(text: str) -> str:
    """Text escaped for roff: nothing in it is a request or an escape."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq")
    return f"\\&{escaped}" if escaped.startswith(".") else escaped


@click.command()
@click.pass_obj
def man(output: Output, /) -> None:
    """Print the manual page, for `romfsfs man | man -l -` or to be installed:

    romfsfs man > ~/.local/share/man/man1/romfsfs.1
    """
    output.show(manual())


@click.command()
@click.argument("words", metavar="[COMMAND]...", nargs=-1)
@click.pass_context
def help(context: click.Context, words: tuple[str, ...]) -> None:
    """What COMMAND does and takes; without one, all commands."""
    group = context.parent
    assert group is not None
    inner = group.command.make_context(group.info_name, [*words, "--help"], obj=context.obj)
    group.command.invoke(inner)  # reached with words only: else the line above prints and exits
