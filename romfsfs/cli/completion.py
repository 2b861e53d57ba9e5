"""Shell completion: `romfsfs completion bash|zsh|fish` prints the script that a shell reads at its
start; what the script asks later is answered by `answer`, before anything else is imported.

The protocol and the scripts for zsh and fish are click's. The one for bash is our own: click's
takes the words as bash splits them, at colons too, so that `camera:SERIAL` and `dfu:BOARD` could
not be completed.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from typing import Any

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    FishComplete,
    ShellComplete,
    ZshComplete,
)

from romfsfs.cli.output import Output
from romfsfs.errors import EXIT_FAILURE, EXIT_OK

#: The variable by which the scripts ask: `bash_complete` and so on.
VARIABLE = "_ROMFSFS_COMPLETE"

_BASH = """\
# romfsfs completion for bash 4.4 and newer:  eval "$(romfsfs completion bash)"
%(complete_func)s() {
    local kind value
    COMPREPLY=()
    while IFS=, read -r kind value; do
        case $kind in
            dir) compopt -o dirnames ;;
            file) compopt -o default ;;
            plain)
                COMPREPLY+=("$value")
                [[ $value == */ || $value == *= ]] && compopt -o nospace
                ;;
        esac
    done < <(COMP_PART="${COMP_LINE:0:COMP_POINT}" COMP_BREAKS="$COMP_WORDBREAKS" \\
        %(complete_var)s=bash_complete "$1" 2>/dev/null)
}
complete -o nosort -F %(complete_func)s %(prog_name)s
"""

_HOW = {
    "bash": 'eval "$(romfsfs completion bash)"          # in ~/.bashrc',
    "zsh": 'eval "$(romfsfs completion zsh)"           # in ~/.zshrc, after compinit',
    "fish": "romfsfs completion fish > ~/.config/fish/completions/romfsfs.fish",
}


class _Values(ShellComplete):
    """Values come from `values`, and commands from the table: their modules stay unimported."""

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem[str]]:
        # click's own functions find the parameter: only they know how options are parsed.
        from click.shell_completion import _resolve_context, _resolve_incomplete

        from romfsfs.cli.app import COMMANDS
        from romfsfs.cli.values import items_for

        context = _resolve_context(self.cli, self.ctx_args, self.prog_name, args)
        found, word = _resolve_incomplete(context, args, incomplete)
        if isinstance(found, click.Parameter):
            # A name with a line break would be two answers to a shell.
            return [item for item in items_for(context, found, word) if item.value.isprintable()]
        if found is self.cli and not word.startswith("-"):
            return [
                CompletionItem(name, help=line)
                for name, (_, line) in COMMANDS.items()
                if name.startswith(word)
            ]
        return found.shell_complete(context, word)


class _Bash(_Values, BashComplete):
    source_template = _BASH

    def source(self) -> str:
        return ShellComplete.source(self)  # BashComplete runs bash to look at its version

    def get_completion_args(self) -> tuple[list[str], str]:
        return split_line(os.environ.get("COMP_PART", ""))

    def format_completion(self, item: CompletionItem[Any]) -> str:
        if item.type != "plain":
            return f"{item.type},"
        _, word = self.get_completion_args()
        return f"plain,{bash_word(item.value, word, os.environ.get('COMP_BREAKS', ''))}"


class _Zsh(_Values, ZshComplete):
    pass


class _Fish(_Values, FishComplete):
    pass


_SHELLS: dict[str, type[ShellComplete]] = {"bash": _Bash, "zsh": _Zsh, "fish": _Fish}


def split_line(line: str) -> tuple[list[str], str]:
    """A command line up to the cursor: the finished words after the program, and the word begun."""
    lexer = shlex.shlex(line, posix=True)
    lexer.whitespace_split = True
    lexer.commenters = ""
    words: list[str] = []
    try:
        words.extend(lexer)
    except ValueError:  # within quotes, or after a backslash
        words.append(lexer.token or "")
        return words[1:-1], words[-1]
    if not line or line[-1].isspace():
        words.append("")
    return words[1:-1], words[-1]


def bash_word(value: str, word: str, breaks: str) -> str:
    """A value as bash wants it: quoted, and without what stands before the last break in `word`,
    because bash replaces only what follows that."""
    cut = max((word.rfind(each) for each in breaks if each in ":="), default=-1) + 1
    return re.sub(r"([^\w@%+=:,./~-])", r"\\\1", value[cut:])


def answer(instruction: str) -> int:
    """What a shell's script asked by `VARIABLE`. Exit code 1 if that is no question."""
    shell, _, what = instruction.partition("_")
    if shell not in _SHELLS or what != "complete":
        return EXIT_FAILURE
    sys.stdout.write(_completer(shell).complete() + "\n")
    return EXIT_OK


def script(shell: str) -> str:
    """The script for bash, zsh or fish."""
    return _completer(shell).source()


def _completer(shell: str) -> ShellComplete:
    from romfsfs.cli.app import romfsfs

    return _SHELLS[shell](romfsfs, {}, "romfsfs", VARIABLE)


@click.command(
    epilog="\b\n" + "\n".join(_HOW.values()),
)
@click.argument("shell", type=click.Choice(list(_SHELLS)))
@click.pass_obj
def completion(output: Output, /, shell: str) -> None:
    """Print the script that makes a shell complete commands, options, boards, image files,
    connected cameras, mounted directories and models of the zoo."""
    output.show(script(shell))
