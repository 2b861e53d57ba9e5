"""`zoo list` and `zoo add`."""

from __future__ import annotations

import os
import shutil
import textwrap
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import Any

import click

from romfsfs.boards import get_board
from romfsfs.cli import values
from romfsfs.cli.output import Output
from romfsfs.cli.parameters import JSON, OFFLINE, PARTITION, YES, board
from romfsfs.cli.reports import fetching
from romfsfs.convert.flatbuffer import ModelError, read_model
from romfsfs.errors import CapacityError, RomfsError, UsageError, printable
from romfsfs.session.find import Found, find_session
from romfsfs.system.files import Progress
from romfsfs.zoo.choose import VARIABLE, absolute, chosen, open_source, remember
from romfsfs.zoo.members import Description, Model
from romfsfs.zoo.sources import Copy, Zoo, add, copies

_Command = Callable[..., Any]


def _source_options(command: _Command) -> _Command:
    for option in (
        YES,
        OFFLINE,
        click.option("--update", is_flag=True, help="Ask the server for a newer version."),
        click.option(
            "--from", "source", metavar="SOURCE", shell_complete=values.files,
            help="A resource folder, a zip, or a URL of one; `ide`: the installed OpenMV IDE, else "
            f"what OpenMV publishes. Remembered; ${VARIABLE} wins over what is remembered.",
        ),
        board("Models for this board; without it, for the mounted one."),
        click.option("--all", "show_all", is_flag=True, help="Models for all boards."),
    ):  # fmt: skip
        command = option(command)
    return command


@click.group(epilog="The zoo is also at DIR/.romfs/zoo of every mount, to copy from.")
def zoo() -> None:
    """Models that can be added, from an OpenMV IDE or another model zoo."""


@zoo.command("list", short_help="The models to choose from.")
@click.argument("directory", metavar="[DIR]", required=False, shell_complete=values.mounts)
@_source_options
@click.option(
    "--shapes", is_flag=True, help="Fetch the models that are listed, to show their input shapes."
)
@PARTITION
@JSON
@click.pass_obj
def list_models(
    output: Output, /, directory: str | None, shapes: bool, show_all: bool,
    board: str | None, partition: int | None, **where: Any,
) -> None:  # fmt: skip
    """The models for the mounted board, or for --board; all of them with --all.

    Each with its size before conversion, the shape and type of its input, and whether it fits
    into the partition and into the space that is left there.
    """
    name, room = _board(board, partition or 0, directory)
    if name is None and not show_all:
        output.note("no board is mounted: models for all boards; choose one with --board")
    with output.progress() as progress:
        opened = _open(output, progress, **where)
        models = opened.catalog().models(None if show_all else name)
        if not where["offline"]:
            opened.fetch({model.page for model in models if model.page})
        if shapes:
            opened.fetch(model.path for model in models)
    descriptions = opened.descriptions(models)
    records = [
        {"path": model.path, "size": model.size, "labels": model.label,
         **descriptions.get(model.path, Description("", ""))._asdict(),
         "input": _input(opened, model), "fits": _fits(model.size, *room) if room else ""}
        for model in models
    ]  # fmt: skip
    shown_for = None if show_all else name
    output.json({"source": opened.name, "board": shown_for, "models": records})
    width = 2 * shutil.get_terminal_size().columns - 10
    for description, group in groupby(records, key=lambda each: (each["title"], each["text"])):
        text = printable(": ".join(filter(None, description))) or "without a description:"
        output.show(textwrap.shorten(text, width, placeholder=" ...") + "\n")
        for each in group:
            path = printable(each["path"]) + ("  + labels" if each["labels"] else "")
            fits, shape = each["fits"], each["input"] or "?"
            output.show(f"  {each['size']:>10,} B  {fits:9}  {shape:18}  {path}\n")
    if output.as_json:
        return
    if not models:
        hint = f" for {name}; see --all" if name and not show_all else ""
        output.note(f"no models in {opened.name}{hint}")
    elif not all(each["input"] for each in records):
        output.note("'?': not known yet; --shapes fetches or unpacks all that are listed")


def _fits(size: int, capacity: int, free: int) -> str:
    return "too large" if size > capacity else "no room" if size > free else "fits"


@zoo.command("add", short_help="Copy a model and its labels into a mount.")
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
    output: Output, /, model: str, directory: str | None, name: str, into: str, no_labels: bool,
    force: bool, board: str | None, show_all: bool, **where: Any,
) -> None:  # fmt: skip
    """Copy MODEL and its labels into DIR: a mount, a folder of it, or a session kept unmounted.

    MODEL is a path that `zoo list` shows, or a name that only one model has. It is converted for
    the board, like everything that is copied there.
    """
    found = find_session(directory)
    wanted_board = board or found.session.info.board
    with output.progress() as progress:
        opened = _open(output, progress, **where)
    chosen_model = opened.catalog().find(model, None if show_all else wanted_board)
    wanted = copies(opened, chosen_model, name, labels=not no_labels)
    folder = _inside(found, into)
    _check_capacity(found, folder, wanted)
    with output.progress() as progress:
        add(opened, wanted, _root(found) / folder, force=force, progress=progress)
    for copy in wanted:
        output.say(f"{copy.source} -> {folder / copy.name}, {copy.size:,} B")


def _input(opened: Zoo, model: Model) -> str:
    """Its input, as `1x96x96x3 int8`; '' if it is not on this machine, '-' if it does not say."""
    fd = opened.open_here(model.path)
    if fd is None:
        return ""
    with open(fd, "rb", buffering=0):
        try:
            read = read_model(lambda at, size: os.pread(fd, size, at), model.size)
        except ModelError:
            return "-"
    return f"{'x'.join(map(str, read.shape))} {read.inputs[0]}" if read.shape else "-"


def _open(
    output: Output, progress: Progress, *, source: str | None, update: bool, offline: bool,
    yes: bool,
) -> Zoo:  # fmt: skip
    """Open the chosen zoo. RomfsError if it has no models; else a source given with --from is
    remembered."""
    text = absolute(source) if source else chosen()
    allowed = fetching(output, progress, offline=offline, yes=yes, update=update)
    opened = open_source(text, allowed)
    if not opened.catalog().models(None):
        next_step = "name a resource folder, a zip, or a URL with --from"
        raise RomfsError("no models there", where=opened.name, next_step=next_step)
    if source:
        remember(text)
    return opened


def _board(
    board: str | None, partition: int, directory: str | None
) -> tuple[str | None, tuple[int, int] | None]:
    """The board to list for, and its partition's size and free room in bytes; None if unknown."""
    try:
        session = find_session(directory).session
    except UsageError:
        if directory is not None:
            raise
        session = None
    if session is not None and board in (None, session.info.board):
        plan = session.look(quick=True).plan
        room = None if plan.capacity is None else (plan.capacity, max(0, plan.capacity - plan.size))
        return session.info.board, room
    if board is None:
        return None, None
    size = get_board(board).partition(partition).size
    return board, (size, size)


def _root(found: Found) -> Path:
    """The folder to copy into: the mount, so that the daemon notices, else the work tree, or
    UsageError."""
    if found.mountpoint is not None:
        return found.mountpoint
    info = found.session.info
    if not found.session.has_work:
        next_step = f"romfsfs mount {info.argument} DIR"
        raise UsageError(f"{info.name} is not mounted and has no edits", next_step=next_step)
    return found.session.work


def _inside(found: Found, into: str) -> Path:
    """The folder that DIR and --into name, relative to the root. UsageError for `..`."""
    folder = Path(found.inside) / into.strip("/")
    if ".." in folder.parts:
        what = f"--into must be a folder in DIR: {into!r}"
        raise UsageError(what, next_step="give it without '..'")
    return folder


def _check_capacity(found: Found, folder: Path, wanted: list[Copy]) -> None:
    """CapacityError if a file that is stored unconverted is larger than the partition."""
    capacity, converters = found.session.settings.capacity, found.session.settings.converters
    for copy in wanted:
        if capacity is None or copy.size <= capacity:
            continue
        if not converters.concerns(str(folder / copy.name)):
            what = f"larger than the partition: {copy.size:,} B of {capacity:,} B"
            raise CapacityError(
                what, size=copy.size, capacity=capacity, where=copy.source,
                next_step="choose a smaller one: romfsfs zoo list",
            )  # fmt: skip
