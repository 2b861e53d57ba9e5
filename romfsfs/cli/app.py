"""The click group: global options, lazily imported commands, errors to exit codes."""

from __future__ import annotations

import importlib
import io
import signal
import sys
from typing import Any

import click
from click.shell_completion import CompletionItem

from romfsfs import __version__
from romfsfs.cli.fstab import with_mount
from romfsfs.cli.mistakes import usage_error
from romfsfs.cli.output import Output, finish, reader_has_gone
from romfsfs.errors import EXIT_FAILURE, EXIT_OK, EXIT_USAGE, RomfsError
from romfsfs.system.environment import make_absolute
from romfsfs.system.errors import os_error
from romfsfs.system.interrupts import interrupt

#: Click 8.2's error for a group without a command; its text is the help.
_NO_ARGUMENTS = getattr(click.exceptions, "NoArgsIsHelpError", ())

#: command -> (module of this package, one line for `romfsfs --help`)
COMMANDS = {
    "mount": ("mounting", "Mount an image file or a camera as a directory."),
    "umount": ("mounting", "Unmount; keep, commit or discard the edits."),
    "status": ("sessions", "What would be committed, and any problems."),
    "diff": ("sessions", "The edits, as a unified diff."),
    "commit": ("sessions", "Write the edits to the file or camera, verified."),
    "revert": ("sessions", "Restore paths, or everything, as last committed."),
    "undo": ("sessions", "Write the previous image back."),
    "log": ("sessions", "The images read and committed so far."),
    "sessions": ("unfinished", "Sessions with their targets, mounts and edits."),
    "recover": ("unfinished", "Finish or roll back an interrupted write."),
    "new": ("images", "Make an empty image for a board."),
    "build": ("building", "Make images from a directory, in one go."),
    "ls": ("reading", "List an image or a camera."),
    "cat": ("reading", "Print files of an image or a camera."),
    "extract": ("images", "Extract an image or a camera to a directory."),
    "info": ("images", "What an image holds: size, files, layout."),
    "verify": ("images", "Check an image, for a board if one is given."),
    "boards": ("machines", "The boards that are known, or one in detail."),
    "cameras": ("machines", "The cameras that are connected."),
    "doctor": ("machines", "What is missing on this machine, and how to install it."),
    "simulate": ("machines", "A simulated camera, for trying and testing."),
    "pull": ("whole", "Copy a camera's whole image to a file."),
    "push": ("pushing", "Write a whole image to cameras."),
    "reset": ("whole", "Restore a camera's default contents."),
    "zoo": ("zoo", "Models that can be added."),
    "automount": ("automount", "Mount cameras when they are plugged in."),
    "desktop": ("desktop", "Commit, Status and image files in file managers."),
    "completion": ("completion", "The completion script for your shell."),
    "man": ("man", "The manual page."),
    "help": ("man", "Help for a command, or the list of commands."),
}

#: Other names that people type.
ALIASES = {"unmount": "umount"}


class LazyGroup(click.Group):
    """A group that imports a command's module when the command is named."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        name = ALIASES.get(cmd_name, cmd_name)
        if name not in COMMANDS:
            return None
        module = importlib.import_module(f"romfsfs.cli.{COMMANDS[name][0]}")
        command: click.Command = getattr(module, name)
        _take_everywhere(command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem[Any]]:
        if incomplete.startswith("-"):
            return click.Command.shell_complete(self, ctx, incomplete)
        return [
            CompletionItem(name, help=line)
            for name, (_, line) in COMMANDS.items()
            if name.startswith(incomplete)
        ]


def _take_everywhere(command: click.Command) -> None:
    """Make a command and its subcommands accept the global options too."""
    taken = {option for parameter in command.params for option in parameter.opts}
    command.params += [each for each in _global_options() if not taken & set(each.opts)]
    if isinstance(command, click.Group):
        for inner in command.commands.values():
            _take_everywhere(inner)


def _global_options() -> list[click.Option]:
    def heard(context: click.Context, option: click.Parameter, value: int) -> None:
        if isinstance(context.obj, Output):  # it is none during shell completion
            context.obj.adjust(**{option.name or "": value})

    hidden: dict[str, Any] = {"hidden": True, "expose_value": False, "callback": heard}
    return [
        click.Option(["-v", "--verbose"], count=True, **hidden),
        click.Option(["-q", "--quiet"], is_flag=True, **hidden),
    ]


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 ok, 1 failure, 2 usage, 3 conversion failed, 4 image invalid, "
    "conflicting or too large, 5 device absent, busy or lost, 6 verification mismatch, 7 target "
    "changed elsewhere, 130 interrupted.",
)
@click.option("-v", "--verbose", count=True, help="Say more; twice: show the log as well.")
@click.option("-q", "--quiet", is_flag=True, help="Only results and errors, no progress.")
@click.version_option(__version__, message="romfsfs %(version)s")
@click.pass_context
def romfsfs(context: click.Context, verbose: int, quiet: bool) -> None:
    """Edit the ROMFS of an OpenMV camera, or of an image file, as a directory.

    SOURCE is an image file, `camera` (the only one connected), `camera:SERIAL`, a serial port,
    or `dfu:BOARD`. Nothing touches the file or camera before a commit.

    -v and -q can also follow the command.
    """
    context.obj.adjust(verbose, quiet)


def run(arguments: list[str], output: Output | None = None) -> int:
    """Run the group and return the exit code. Main thread only: it sets signal handlers.

    RomfsError and OSError are printed as one line; KeyboardInterrupt is left to the caller.
    output: prints results and errors; None: to standard output and standard error."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A name that is not UTF-8, or that the terminal's encoding lacks, is escaped, no error.
        sys.stdout.reconfigure(errors="backslashreplace")
    output = output or Output()
    make_absolute()
    ends = signal.SIGINT, signal.SIGTERM, signal.SIGHUP
    previous = {number: signal.getsignal(number) for number in ends}
    for number, handler in previous.items():
        if handler is not signal.SIG_IGN:  # nohup ignores SIGHUP, and that stays
            # SIGTERM and SIGHUP unwind as Ctrl-C does: temporary files are removed, tools end,
            # locks are released.
            signal.signal(number, interrupt)
    # A launcher may have ignored it: the system would not tell how the programs that we start end.
    previous[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        return finish(output, _run(output, arguments))
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _run(output: Output, arguments: list[str]) -> int:
    words = with_mount(arguments, {*COMMANDS, *ALIASES})
    try:
        with romfsfs.make_context("romfsfs", words, obj=output) as context:
            result = romfsfs.invoke(context)
            return result if isinstance(result, int) else EXIT_OK
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.UsageError as error:
        if not arguments or isinstance(error, _NO_ARGUMENTS):
            error.show()  # the help
        else:
            output.error(usage_error(error, next((w for w in words if w in COMMANDS), "")))
        return EXIT_USAGE
    except click.Abort:
        raise KeyboardInterrupt from None
    except click.ClickException as error:
        output.error(RomfsError(error.format_message()))
        return EXIT_FAILURE
    except RomfsError as error:
        output.error(error)
        return error.exit_code
    except OSError as error:
        if isinstance(error, BrokenPipeError) and reader_has_gone():
            return EXIT_OK  # the reader has seen enough: `| head`
        output.error(os_error(error))
        return EXIT_FAILURE
