"""Shell completion: click's own, with two things that its bash part lacks.

bash splits words at colons too, so that `camera:SERIAL` arrives as three; and a value with a space
has to be quoted. What can stand where is in `values`.
"""

import re
from typing import Any

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    add_completion_class,
    get_completion_class,
    shell_complete,
)

from romfsfs.cli.output import Output

#: The variable by which the shells' scripts ask.
VARIABLE = "_ROMFSFS_COMPLETE"

_HOW = """\b
eval "$(romfsfs completion bash)"          # in ~/.bashrc
eval "$(romfsfs completion zsh)"           # in ~/.zshrc, after compinit
romfsfs completion fish > ~/.config/fish/completions/romfsfs.fish"""


@add_completion_class
class _Bash(BashComplete):
    def get_completion_args(self) -> tuple[list[str], str]:
        args, word = super().get_completion_args()
        joined = re.sub("\n?:\n?", ":", "\n".join([*args, word])).split("\n")
        return joined[:-1], joined[-1]

    def format_completion(self, item: CompletionItem[Any]) -> str:
        if item.type != "plain":
            return super().format_completion(item)
        _, word = self.get_completion_args()
        value = item.value[word.rfind(":") + 1 :]  # bash replaces only what follows the colon
        return "plain," + re.sub(r"([^\w@%+=:,./~-])", r"\\\1", value)


def answer(instruction: str) -> int:
    """What a shell asks by `VARIABLE`: its script, or what can follow a command line."""
    from romfsfs.cli.app import romfsfs

    return shell_complete(romfsfs, {}, "romfsfs", VARIABLE, instruction)


@click.command(epilog=_HOW)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_obj
def completion(output: Output, /, shell: str) -> None:
    """Print the script with which a shell completes commands, options, boards, image files,
    connected cameras, mounted directories and models of the zoo."""
    from romfsfs.cli.app import romfsfs

    found = get_completion_class(shell)
    assert found is not None
    output.show(found(romfsfs, {}, "romfsfs", VARIABLE).source() + "\n")
