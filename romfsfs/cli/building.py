"""`build`: a directory to an image, for one board or for several."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import click

from romfsfs.cli import values
from romfsfs.cli.choices import chosen, conversion_options
from romfsfs.cli.output import Output, write_all
from romfsfs.cli.parameters import DIRECTORY, IMAGE, JSON, PARTITION_0, REPLACE
from romfsfs.cli.reports import refuse_existing, say_warnings
from romfsfs.errors import EXIT_OK, UsageError, count_text
from romfsfs.session.build import Built
from romfsfs.session.build import build as build_image
from romfsfs.session.build_many import Order, boards_of, build_each, build_order, orders
from romfsfs.session.recipe import board_of


@click.command()
@DIRECTORY
@IMAGE
@click.option(
    "--board",
    "boards",
    multiple=True,
    metavar="BOARD[:PARTITION]",
    shell_complete=values.boards,
    help="Convert and align for this board; may be repeated. Without it: portable bytecode.",
)
@PARTITION_0
@click.option(
    "--recipe",
    metavar="FILE",
    shell_complete=values.files,
    help="DIR is a checkout of the firmware; take what its boards/BOARD/romfs_config.json says.",
)
@conversion_options
@REPLACE
@JSON
@click.pass_obj
def build(
    output: Output, /, directory: str, image: str, boards: tuple[str, ...], partition: int,
    **given: Any,
) -> int:  # fmt: skip
    """Make IMAGE from everything in DIR; `-` writes to standard output.

    The same directory always gives the same bytes. For several boards IMAGE is a folder (for
    BOARD.img, or BOARD.1.img for partition 1) or a pattern such as 'out/{board}.img'; the exit
    code is then the worst of all.
    """
    if not os.path.isdir(directory):
        what = "not a folder" if os.path.lexists(directory) else "no such folder"
        raise UsageError(what, where=directory, next_step="DIR holds what goes into the image")
    options, recipe = chosen(given), given["recipe"]
    boards = boards_of(directory, boards) if recipe is None else _board_of_recipe(recipe, boards)
    if recipe is not None and image == "-":
        raise UsageError("a recipe's image cannot go to standard output", where="-")
    if len(boards) > 1 and image == "-":
        raise UsageError("only one board's image can go to standard output", where="-")
    wanted = orders(boards, image, partition, options, Path(recipe) if recipe else None)
    if image == "-":
        output.refuse_json()
        _to_standard_output(output, directory, wanted[0], given["exclude"])
        return EXIT_OK
    refuse_existing(*(order.image for order in wanted), force=given["force"])
    if len(wanted) > 1:
        return _many(output, directory, wanted, given["exclude"])
    (order,) = wanted
    if str(order.image) != image:  # IMAGE is a folder or a pattern: make folders as for several
        order.image.parent.mkdir(parents=True, exist_ok=True)
    with output.progress() as progress:
        built = build_order(Path(directory), order, given["exclude"], progress, output.as_json)
    say_warnings(output, built.plan.problems)
    output.json(_record(order, built))
    output.say(_line(order, built))
    return EXIT_OK


def _board_of_recipe(recipe: str, given: tuple[str, ...]) -> tuple[str, ...]:
    named = given or tuple(filter(None, [board_of(Path(recipe))]))
    if len(named) != 1:
        what = "a recipe is built for one board"
        raise UsageError(what, where=recipe, next_step="add one --board BOARD")
    return named


def _many(output: Output, directory: str, wanted: list[Order], excludes: tuple[str, ...]) -> int:
    worst = EXIT_OK
    records = []
    with output.progress() as progress:
        for outcome in build_each(Path(directory), wanted, excludes, progress, output.as_json):
            order, error = outcome.order, outcome.error
            board, _, index = order.name.partition(":")
            record: dict[str, Any] = {"board": board, "partition": int(index or 0)}
            if outcome.built is not None:
                say_warnings(output, outcome.built.plan.problems, f"{order.name}: ")
                records.append({**record, "ok": True, **_record(order, outcome.built)})
                output.say(f"{order.name}: {_line(order, outcome.built)}")
            elif error is not None:
                worst = max(worst, error.exit_code)
                records.append({**record, "ok": False, "error": error.line})
                error.what = f"{order.name}: {error.what}"
                output.error(error)
    output.json(records)
    return worst


def _to_standard_output(
    output: Output, directory: str, order: Order, excludes: tuple[str, ...]
) -> None:
    with tempfile.TemporaryFile() as file, output.progress() as progress:
        built = build_image(Path(directory), file, order.target, excludes, progress, hashed=False)
        say_warnings(output, built.plan.problems)
        write_all(file)


def _line(order: Order, built: Built) -> str:
    return f"{order.image}: {count_text(len(built.plan.files), 'file')}, {built.size:,} B"


def _record(order: Order, built: Built) -> dict[str, Any]:
    files = len(built.plan.files)
    return {
        "image": str(order.image), "size": built.size, "digest": built.digest, "files": files
    }  # fmt: skip
