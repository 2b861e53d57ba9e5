"""`romfsfs help COMMAND`, for people who do not think of --help."""

from __future__ import annotations

import click


@click.command()
@click.argument("words", metavar="[COMMAND]...", nargs=-1)
@click.pass_context
def help(context: click.Context, words: tuple[str, ...]) -> None:
    """What COMMAND does and takes; without one, all commands."""
    group = context.find_root().command
    with group.make_context("romfsfs", [*words, "--help"], obj=context.obj) as called:
        group.invoke(called)
