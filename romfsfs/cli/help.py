"""`romfsfs help COMMAND`, for people who do not think of --help."""

import click

from romfsfs.cli.output import Output


@click.command()
@click.argument("words", metavar="[COMMAND]...", nargs=-1)
@click.pass_context
def help(context: click.Context, words: tuple[str, ...]) -> None:
    """What COMMAND does and takes; without one, all commands."""
    output: Output = context.obj
    assert context.parent is not None
    group = context.parent
    command = group.command
    for word in words:
        found = command.get_command(group, word) if isinstance(command, click.Group) else None
        if found is None:
            raise click.UsageError(f"No such command '{word}'.", context.parent)
        command, group = found, click.Context(found, info_name=word, parent=group)
    output.show(command.get_help(group) + "\n")
