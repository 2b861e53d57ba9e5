"""`build`: a directory to an image, for one board or for several."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import click

from romfsfs.cli import values
from romfsfs.cli.choices import chosen, conversion_options
from romfsfs.cli.output import Output, count_text, flush, write
from romfsfs.cli.parameters import DIRECTORY, IMAGE, JSON, PARTITION_0, REPLACE
from romfsfs.cli.reports import refuse_existing, say_warnings
from romfsfs.convert import Options, Target
from romfsfs.errors import EXIT_OK, UsageError
from romfsfs.session.build import Built
from romfsfs.session.build import build as build_image
from romfsfs.session.build_many import (
    Order,
    boards_of,
    build_each,
    build_file,
    build_recipe,
    orders,
)
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
    help="Convert and align for it; several make an image each. Without: portable bytecode.",
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
    as_json: bool, **given: Any,
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
        raise UsageError("an image of a recipe is a file", where="-")
    if image == "-":
        _to_standard_output(output, directory, boards, partition, options, given["exclude"])
        return EXIT_OK
    wanted = orders(boards, image, partition)
    refuse_existing(*(order.image for order in wanted), force=given["force"])
    if not boards:
        refuse_existing(image, force=given["force"])
    if not boards:
        with output.progress() as progress:
            target = Target(None, None, options)
            built = build_file(Path(directory), Path(image), target, given["exclude"], progress)
        _report(output, image, built, as_json)
        return EXIT_OK
    if len(wanted) > 1:
        return _many(output, directory, wanted, options, given["exclude"], as_json)
    (order,) = wanted
    if str(order.image) != image:  # a folder or a pattern: made as for several
        order.image.parent.mkdir(parents=True, exist_ok=True)
    with output.progress() as progress:
        target = Target(order.board, order.partition, options)
        if recipe is not None:
            built = build_recipe(
                Path(directory), Path(recipe), order, options, given["exclude"], progress
            )
        else:
            built = build_file(Path(directory), order.image, target, given["exclude"], progress)
    _report(output, str(order.image), built, as_json)
    return EXIT_OK


def _board_of_recipe(recipe: str, given: tuple[str, ...]) -> tuple[str, ...]:
    named = given or tuple(filter(None, [board_of(Path(recipe))]))
    if len(named) != 1:
        raise UsageError(
            "which board is the recipe for?",
            where=recipe,
            next_step="say it with one --board BOARD",
        )
    return named


def _many(
    output: Output, directory: str, wanted: list[Order], options: Options,
    excludes: tuple[str, ...], as_json: bool,
) -> int:  # fmt: skip
    worst = EXIT_OK
    records = []
    with output.progress() as progress:
        for outcome in build_each(Path(directory), wanted, options, excludes, progress):
            order, error = outcome.order, outcome.error
            record: dict[str, Any] = {"board": order.board.name, "partition": order.partition.index}
            if outcome.built is not None:
                say_warnings(output, outcome.built.plan.problems, f"{order.name}: ")
                records.append({**record, "ok": True, **_record(str(order.image), outcome.built)})
                if not as_json:
                    output.say(f"{order.name}: {_line(str(order.image), outcome.built)}")
            elif error is not None:
                worst = max(worst, error.exit_code)
                records.append({**record, "ok": False, "error": error.line})
                error.what = f"{order.name}: {error.what}"
                output.error(error)
    if as_json:
        output.json(records)
    return worst


def _to_standard_output(
    output: Output, directory: str, boards: tuple[str, ...], partition: int, options: Options,
    excludes: tuple[str, ...],
) -> None:  # fmt: skip
    if len(boards) > 1:
        raise UsageError("standard output takes the image of one board", where="-")
    target, capacity = Target(None, None, options), None
    if boards:
        (order,) = orders(boards, "-", partition)
        target, capacity = Target(order.board, order.partition, options), order.partition.size
    with tempfile.TemporaryFile() as file, output.progress() as progress:
        built = build_image(Path(directory), file, target, capacity, excludes, progress)
        say_warnings(output, built.plan.problems)
        file.seek(0)
        while data := file.read(1 << 20):
            write(data)
    flush()


def _report(output: Output, image: str, built: Built, as_json: bool) -> None:
    say_warnings(output, built.plan.problems)
    if as_json:
        output.json(_record(image, built))
    else:
        output.say(_line(image, built))


def _line(image: str, built: Built) -> str:
    return f"{image}: {count_text(len(built.plan.files), 'file')}, {built.size:,} B"


def _record(image: str, built: Built) -> dict[str, Any]:
    return {
        "image": image,
        "size": built.size,
        "digest": built.digest,
        "files": len(built.plan.files),
    }
