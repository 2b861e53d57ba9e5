"""Options and arguments that several commands share, each defined once."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

import click

from romfsfs.cli import values
from romfsfs.cli.output import Output
from romfsfs.errors import UsageError
from romfsfs.system.mount_table import refuse_hanging

_FC = TypeVar("_FC", bound="Callable[..., Any] | click.Command")

_OF_LOADER = re.compile(r"dfu:[^:@]*:([0-9]+)(@.*)?")


def _board(context: click.Context, option: click.Parameter, text: str | None) -> str | None:
    """The board's name; `BOARD:1` also chooses the partition."""
    if text is None or context.resilient_parsing:
        return text
    from romfsfs.boards import parse_board

    board, partition = parse_board(text)
    if partition is not None:
        _choose(context, partition)
    return board.name


def _named(context: click.Context, argument: click.Parameter, source: str | None) -> str | None:
    """What is named; `dfu:BOARD:1` also chooses the partition. If an option names another one,
    opening it says so."""
    if found := _OF_LOADER.fullmatch(source or ""):
        context.meta.setdefault(_CHOSEN, int(found[1]))
    return source


def _partition(context: click.Context, option: click.Parameter, number: int | None) -> int | None:
    """The number from --partition, else from `--board BOARD:N` or `dfu:BOARD:N`, else the default.

    Click processes absent options after what is given, so `BOARD:N` is known by then."""
    if number is not None and number < 0:
        raise click.BadParameter(f"{number} is not a partition number")
    given = context.get_parameter_source(option.name or "")
    if given is not click.core.ParameterSource.DEFAULT:  # by `-o partition=N`, too
        _choose(context, number)
    chosen: int | None = context.meta.get(_CHOSEN, number)
    return chosen


_CHOSEN = "romfsfs.partition"


def _choose(context: click.Context, number: int | None) -> None:
    if context.meta.setdefault(_CHOSEN, number) != number:
        raise UsageError("SOURCE, --board or --partition name different partitions")


def _json(context: click.Context, option: click.Parameter, value: bool) -> None:
    if isinstance(context.obj, Output):  # it is none during shell completion
        context.obj.as_json |= value


def _answering(context: click.Context, argument: click.Parameter, path: str) -> str:
    if not context.resilient_parsing:
        refuse_hanging(path)
    return path


def _source(context: click.Context, argument: click.Parameter, source: str) -> str | None:
    return _named(context, argument, _answering(context, argument, source))


def board(help: str, **more: Any) -> Callable[[_FC], _FC]:
    """The option that names a board."""
    return click.option(
        "--board", metavar="BOARD", callback=_board, shell_complete=values.boards, help=help, **more
    )


def partition(
    help: str = "The partition, on boards with several. Default: 0.", **more: Any
) -> Callable[[_FC], _FC]:
    """The option that names a partition."""
    return click.option(
        "--partition", type=int, metavar="N", callback=_partition, shell_complete=values.partitions,
        help=help, **more,
    )  # fmt: skip


def force(help: str) -> Callable[[_FC], _FC]:
    """The option --force; help says what it overrides."""
    return click.option("--force", is_flag=True, help=help)


def slot(more: str = "") -> Callable[[_FC], _FC]:
    """The option that names a slot; '' if it is not given."""
    return click.option(
        "--slot",
        type=click.Choice(("A", "B")),
        callback=lambda context, option, value: value or "",
        help=f"The slot of an openmv-ota camera. Default: A.{more}",
    )


PARTITION = partition()
PARTITION_0 = partition(default=0)
CAMERA_BOARD = board("For a camera that cannot be identified.")
JSON = click.option("--json", is_flag=True, expose_value=False, callback=_json, help="Print JSON.")
REPLACE = force("Replace an existing file.")
OVER_ANYTHING = force("Overwrite even contents that are not an image.")
NO_RESET = click.option("--no-reset", is_flag=True, help="Do not restart the camera afterwards.")
WAIT = click.option(
    "--wait", is_flag=True, help="Wait for `dfu:BOARD` to appear, and say how to get it there."
)
SLOT = slot(" Writing to it also needs --force, and breaks its signature.")
SLOT_TO_READ = slot()
TRY = click.option(
    "--try", "tries", is_flag=True, help="Have the camera open the models that changed."
)
OFFLINE = click.option(
    "--offline", is_flag=True, help="Download nothing: use what is on this machine."
)
YES = click.option("--yes", "-y", is_flag=True, help="Do not ask for confirmation.")
STEDGEAI = click.option(
    "--stedgeai", metavar="PATH", shell_complete=values.files,
    help="ST Edge AI: the program or its folder.",
)  # fmt: skip
EXCLUDE = click.option(
    "--exclude",
    multiple=True,
    metavar="PATTERN",
    help="New files of these names are never stored; '!PATTERN' removes a default.",
)

SOURCE = click.argument("source", shell_complete=values.sources, callback=_source)
CAMERA = click.argument("camera", metavar="CAMERA", shell_complete=values.cameras, callback=_named)
IMAGE = click.argument("image", metavar="IMAGE", shell_complete=values.files, callback=_answering)
DIRECTORY = click.argument(
    "directory", metavar="DIR", shell_complete=values.folders, callback=_answering
)


def where(metavar: str, *, required: bool) -> Callable[[_FC], _FC]:
    """The argument that names a session, by its mountpoint or its target."""
    return click.argument(
        "where", metavar=metavar, required=required, shell_complete=values.sessions,
        callback=_named,
    )  # fmt: skip
