"""`romfsfs man`: the manual page, made from the commands, so that none is ever missing."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

import click

from romfsfs import __version__
from romfsfs.cli.output import Output

_SYNOPSIS = "edit the ROMFS of an OpenMV camera, or of an image file, as a directory"

_ENVIRONMENT = {
    "ROMFSFS_STATE_DIR": "Where sessions are kept; default: the system's place for program state.",
    "ROMFSFS_CACHE_DIR": "Where converted files and downloads are kept.",
    "ROMFSFS_PORTS": "More serial ports to look for cameras on, separated as in $PATH.",
    "ROMFSFS_ZOO": "The model zoo: a folder, a zip, or a URL.",
    "STEDGEAI_CORE_DIR": "Where ST Edge AI is installed, for models of the OpenMV N6.",
}

_EXAMPLES = (
    "romfsfs new app.img --board OPENMV_AE3",
    "romfsfs mount app.img cam",
    "cp app.py person_detect.tflite cam/",
    "romfsfs umount --commit cam",
    "romfsfs push app.img camera",
)

#: [option or argument, what it does]
_Term = tuple[str, str]


def manual() -> str:
    """The whole manual page, as roff with man(7) macros."""
    from romfsfs.cli.app import romfsfs

    context = click.Context(romfsfs, info_name="romfsfs")
    lines = [f'.TH ROMFSFS 1 "" "romfsfs {__version__}" "User Commands"']
    lines += [".SH NAME", f"romfsfs \\- {text(_SYNOPSIS)}", ".SH SYNOPSIS"]
    lines += [".B romfsfs", "[options] \\fIcommand\\fR [arguments]", ".SH DESCRIPTION"]
    lines += _paragraphs(romfsfs.help)
    lines += [".SH OPTIONS", *_terms(_options(romfsfs, context))]
    lines += [".SH COMMANDS"]
    for name in romfsfs.list_commands(context):
        command = romfsfs.get_command(context, name)
        if command is not None and not command.hidden:
            lines += _command(command, click.Context(command, info_name=name, parent=context))
    lines += [".SH EXIT STATUS", *_exit_codes(romfsfs.epilog or "")]
    lines += [".SH ENVIRONMENT", *_terms(list(_ENVIRONMENT.items()))]
    lines += [".SH EXAMPLES", ".nf", *(text(line) for line in _EXAMPLES), ".fi"]
    lines += [".SH SEE ALSO", ".BR mount.fuse3 (8),", ".BR fusermount3 (1)"]
    return "\n".join(lines) + "\n"


def _command(command: click.Command, context: click.Context) -> Iterator[str]:
    """A subsection for a command, and one for each command of a group."""
    usage = " ".join(command.collect_usage_pieces(context)).replace("[OPTIONS]", "[options]")
    yield f'.SS "{text(context.command_path)} {text(usage)}"'
    yield from _paragraphs(command.help)
    yield from _terms([*_arguments(command, context), *_options(command, context)])
    if command.epilog:
        yield from _paragraphs(command.epilog)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            if inner is not None and not inner.hidden:
                yield from _command(inner, click.Context(inner, info_name=name, parent=context))


def _options(command: click.Command, context: click.Context) -> list[_Term]:
    records = (
        parameter.get_help_record(context)
        for parameter in command.get_params(context)
        if isinstance(parameter, click.Option) and not parameter.hidden
        if context.parent is None or "--help" not in parameter.opts  # said once is enough
    )
    return [record for record in records if record is not None]


def _arguments(command: click.Command, context: click.Context) -> list[_Term]:
    """Arguments with a help of their own; click has none, but a later version may."""
    found: list[_Term] = []
    for parameter in command.params:
        said: Any = getattr(parameter, "help", None)
        if isinstance(parameter, click.Argument) and said:
            found.append((parameter.make_metavar(context), said))
    return found


def _paragraphs(help_text: str | None) -> Iterator[str]:
    """Help text as paragraphs; those that begin with click's \\b keep their lines."""
    for number, paragraph in enumerate(re.split(r"\n\s*\n", inspect.cleandoc(help_text or ""))):
        if number:
            yield ".PP"
        if paragraph.startswith("\b"):
            yield ".nf"
            yield from (text(line) for line in paragraph.splitlines()[1:])
            yield ".fi"
        elif paragraph.strip():
            yield text(" ".join(paragraph.split()))


def _terms(terms: list[_Term]) -> Iterator[str]:
    for term, said in terms:
        yield ".TP"
        yield f"\\fB{text(term)}\\fR"
        yield text(" ".join(said.split())) or "\\&"


def _exit_codes(epilog: str) -> Iterator[str]:
    """The epilog says them all in one sentence: `Exit codes: 0 ok, 1 failure, ...`."""
    codes = re.findall(r"\b(\d+) (.*?)(?=, \d+ |\.$)", " ".join(epilog.split()))
    yield from _terms([(code, said) for code, said in codes])


def text(plain: str) -> str:
    """Plain text as roff: nothing in it is a request, an escape or a fancy character."""
    escaped = plain.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq")
    escaped = escaped.replace('"', "\\(dq").replace("`", "\\(ga")
    escaped = escaped.replace("^", "\\(ha").replace("~", "\\(ti")
    escaped = "".join(c if c.isascii() else f"\\[u{ord(c):04X}]" for c in escaped)
    return "\\&" + escaped if escaped.startswith(".") else escaped


@click.command()
@click.pass_obj
def man(output: Output, /) -> None:
    """Print the manual page, for `romfsfs man | man -l -` or to be installed:

    romfsfs man > ~/.local/share/man/man1/romfsfs.1
    """
    output.show(manual())
