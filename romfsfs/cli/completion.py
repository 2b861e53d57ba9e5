"""Shell completion: click's own, with its scripts for bash and fish corrected.

bash splits words at colons too, so that `camera:SERIAL` arrives as three; and click's script for it
drops backslashes from names, expands them as patterns, and leaves them unquoted. Its script for
fish cuts names at a comma. The values to complete are in `values`.
"""

from __future__ import annotations

import re
from typing import Any

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    FishComplete,
    add_completion_class,
    get_completion_class,
    shell_complete,
)

from romfsfs.cli.output import Output

#: The environment variable in which a shell's script sends its request.
VARIABLE = "_ROMFSFS_COMPLETE"

_HOW = """\b
eval "$(romfsfs completion bash)"          # in ~/.bashrc
eval "$(romfsfs completion zsh)"           # in ~/.zshrc, after compinit
romfsfs completion fish > ~/.config/fish/completions/romfsfs.fish"""


_BASH = """\
%(complete_func)s() {
    local IFS=$'\\n' type value
    COMPREPLY=()
    while IFS=, read -r type value; do
        case $type in
            dir) compopt -o dirnames ;;
            file) compopt -o default ;;
            plain)
                COMPREPLY+=("$value")
                # readline then quotes it as it does files, or not where a quote is open
                [[ $value != *[^[:alnum:]_@%%+=:,./~-]* ]] || compopt -o filenames ;;
        esac
    done < <(COMP_CWORD=$COMP_CWORD COMP_WORDS="${COMP_WORDS[*]}" %(complete_var)s=bash_complete $1)
}
complete -o nosort -F %(complete_func)s %(prog_name)s
"""


@add_completion_class
class _Bash(BashComplete):
    source_template = _BASH
    _cut: int  # characters up to the last colon, which bash has and must not get again

    def get_completion_args(self) -> tuple[list[str], str]:
        args, word = super().get_completion_args()
        joined = re.sub("\n?:\n?", ":", "\n".join([*args, word])).split("\n")
        whole = ":" in word[1:]  # in quotes bash does not split
        self._cut = 0 if whole else joined[-1].rfind(":") + 1
        return joined[:-1], joined[-1]

    def format_completion(self, item: CompletionItem[Any]) -> str:
        return f"{item.type},{item.value[self._cut :]}"


@add_completion_class
class _Fish(FishComplete):
    source_template = FishComplete.source_template.replace('split ","', 'split -m1 ","')


def answer(instruction: str) -> int:
    """Print what a shell requests in `VARIABLE`: its script, or completions. The exit code."""
    from romfsfs.cli.app import romfsfs

    return shell_complete(romfsfs, {}, "romfsfs", VARIABLE, instruction)


@click.command(epilog=_HOW)
@click.argument("shell", metavar="SHELL", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_obj
def completion(output: Output, /, shell: str) -> None:
    """Print the script with which a shell completes commands, options, boards, image files,
    connected cameras, mounted directories and models of the zoo."""
    from romfsfs.cli.app import romfsfs

    found = get_completion_class(shell)
    assert found is not None
    output.show(found(romfsfs, {}, "romfsfs", VARIABLE).source())
