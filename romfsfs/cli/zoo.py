"""`zoo list`, `zoo add` and `zoo index`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from romfsfs.boards import get_board
from romfsfs.cli import values
from romfsfs.cli.output import Output, size_text
from romfsfs.cli.parameters import JSON, board
from romfsfs.cli.sources import Found, find_session
from romfsfs.errors import CapacityError, RomfsError, UsageError, printable
from romfsfs.zoo.adding import Copy, add, copies
from romfsfs.zoo.catalog import Zoo
from romfsfs.zoo.choose import VARIABLE, absolute, chosen, open_source, remember
from romfsfs.zoo.members import Model
from romfsfs.zoo.sources import make_listing

_Command = Callable[..., Any]


def _source_options(command: _Command) -> _Command:
    for option in (
        click.option("--update", is_flag=True, help="Ask the server for a newer version."),
        click.option(
            "--from", "source", metavar="SOURCE", shell_complete=values.files,
            help="A resource folder, a zip, or a URL of one; `ide`: the installed OpenMV IDE. "
            f"Remembered; ${VARIABLE} wins over what is remembered.",
        ),
        board("Models for this board; without it, for the mounted one."),
        click.option("--all", "show_all", is_flag=True, help="Models for all boards."),
    ):  # fmt: skip
        command = option(command)
    return command


@click.group(
    epilog="The zoo is also at DIR/.romfs/zoo of every mount, to copy from. A URL may end in "
    "#sha256=HEX, and is then held to it."
)
def zoo() -> None:
    """Models that can be added, from an OpenMV IDE or another model zoo."""


@zoo.command("list")
@click.argument("directory", metavar="[DIR]", required=False, shell_complete=values.mounts)
@_source_options
@JSON
@click.pass_obj
def list_models(
    output: Output, directory: str | None, as_json: bool, source: str | None, update: bool,
    board: str | None, show_all: bool,
) -> None:  # fmt: skip
    """The models for the mounted board, or for --board; all of them with --all."""
    opened = _open(output, source, update)
    name = None if show_all else _board(output, board, directory)
    models = opened.catalog().models(name)
    if as_json:
        output.json({
            "source": opened.name, "board": name, "models": [_record(model) for model in models],
        })  # fmt: skip
        return
    for model in models:
        labels = "  + labels" if model.label else ""
        output.show(f"{size_text(model.size):>14}  {printable(model.path)}{labels}\n")
    if not models:
        where = f" for {name}; see --all" if name else ""
        output.note(f"no models in {opened.name}{where}")


@zoo.command("add")
@click.argument("model", shell_complete=values.models)
@click.argument("directory", metavar="[DIR]", required=False, shell_complete=values.mounts)
@_source_options
@click.option("--as", "name", default="", metavar="NAME", help="Its file name in the image.")
@click.option(
    "--into",
    default="",
    metavar="FOLDER",
    shell_complete=values.folders,
    help="A folder of DIR, made if need be.",
)
@click.option("--no-labels", is_flag=True, help="Leave its labels out.")
@click.option("--force", is_flag=True, help="Replace files of these names.")
@click.pass_obj
def add_model(
    output: Output, model: str, directory: str | None, name: str, into: str, no_labels: bool,
    force: bool, source: str | None, update: bool, board: str | None, show_all: bool,
) -> None:  # fmt: skip
    """Copy MODEL and its labels into DIR: a mount, a folder of it, or a session kept unmounted.

    MODEL is a path that `zoo list` shows, or as much of its name as only one model has. It is
    converted for the board as everything that is copied there.
    """
    found = find_session(directory)
    wanted_board = get_board(board).name if board else found.session.info.board
    opened = _open(output, source, update)
    chosen_model = opened.catalog().find(model, None if show_all else wanted_board)
    wanted = copies(opened, chosen_model, name, labels=not no_labels)
    folder = _inside(found, into)
    _check_capacity(found, folder, wanted)
    with output.progress() as progress:
        add(opened, wanted, _root(found) / folder, force=force, progress=progress)
    for copy in wanted:
        output.say(f"{copy.source} -> {folder / copy.name}, {size_text(copy.size)}")


@zoo.command("index")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.pass_obj
def index(output: Output, folder: Path) -> None:
    """Write the listing that serves FOLDER as a zoo: keep it there as index.json, and give its
    URL to --from."""
    output.show(make_listing(folder))


def _open(output: Output, source: str | None, update: bool) -> Zoo:
    """The zoo that was chosen; a source given here is remembered once it has proved to be one."""
    text = absolute(source) if source else chosen()
    with output.progress() as progress:
        opened = Zoo(open_source(text, update=update, progress=progress))
    if not opened.catalog().models(None):
        raise RomfsError(
            "no models there",
            where=opened.name,
            next_step="name a resource folder, a zip, or a URL with --from",
        )
    if source:
        remember(text)
    return opened


def _board(output: Output, board: str | None, directory: str | None) -> str | None:
    if board:
        return get_board(board).name
    try:
        mounted = find_session(directory).session.info.board
    except UsageError:
        if directory is not None:
            raise
        mounted = None
    if mounted is None:
        output.note("no board is mounted: models for all boards; choose one with --board")
    return mounted


def _record(model: Model) -> dict[str, Any]:
    parts = model.path.split("/")
    vendor, task = (parts[0], parts[1]) if len(parts) > 2 else ("", "")
    return {
        "path": model.path,
        "name": model.name,
        "vendor": vendor,
        "task": task,
        "size": model.size,
        "labels": model.label,
    }


def _root(found: Found) -> Path:
    """Where files are put: through the mount, so that it notices, or into the work tree."""
    if found.mountpoint is not None:
        return found.mountpoint
    session = found.session
    if not session.has_work:
        raise UsageError(
            f"{session.info.name} is not mounted and has no edits",
            next_step=f"romfsfs mount {session.info.argument} DIR",
        )
    return session.work


def _inside(found: Found, into: str) -> Path:
    """The folder below the root that DIR and --into name."""
    folder = Path(found.inside) / into.strip("/")
    if ".." in folder.parts:
        raise UsageError(f"not a folder of it: {into!r}", next_step="give --into without '..'")
    return folder


def _check_capacity(found: Found, folder: Path, wanted: list[Copy]) -> None:
    """A file stored as it is that is larger than the partition is refused before it is copied."""
    session = found.session
    for copy in wanted:
        capacity = session.capacity
        if (
            capacity is not None
            and copy.size > capacity
            and not session.converters.concerns(str(folder / copy.name))
        ):
            raise CapacityError(
                f"larger than the partition: {size_text(copy.size)} of {size_text(capacity)}",
                size=copy.size, capacity=capacity, where=copy.source,
                next_step="choose a smaller one: romfsfs zoo list",
            )  # fmt: skip
