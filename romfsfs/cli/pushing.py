"""`push`: write a whole image to cameras."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from functools import partial
from typing import Any

import click

from romfsfs.cli import values
from romfsfs.cli.output import Output, flush, write
from romfsfs.cli.parameters import (
    IMAGE,
    JSON,
    NO_RESET,
    OVER_ANYTHING,
    PARTITION,
    SLOT,
    TRY,
    WAIT,
    board,
)
from romfsfs.cli.reports import HELD, say_tried, wait_for, write_record, write_text
from romfsfs.devices.base import HEADER_SIZE
from romfsfs.errors import ImageFormatError, RomfsError, UsageError, shell_word
from romfsfs.image.reader import image_size
from romfsfs.session.connect import device
from romfsfs.session.rebase.push import PushOptions, PushResult, push_all


@click.command()
@IMAGE
@click.argument("cameras", metavar="[CAMERA]...", nargs=-1, shell_complete=values.cameras)
@click.option(
    "--all",
    "everyone",
    is_flag=True,
    help="All connected cameras of the image's board; `dfu:BOARD --all`: all in its boot loader.",
)
@click.option("--watch", is_flag=True, help="With --all: also those that are plugged in later.")
@click.option(
    "--log",
    metavar="FILE",
    shell_complete=values.files,
    help="With --all: append a row of CSV for each camera.",
)
@click.option(
    "--no-backup", is_flag=True,
    help="Keep no copy of what a camera held, so `undo` cannot restore it.",
)  # fmt: skip
@board("For a camera that cannot be identified; with --all: only cameras of this board.")
@PARTITION
@WAIT
@OVER_ANYTHING
@SLOT
@TRY
@NO_RESET
@JSON
@click.pass_obj
def push(
    output: Output, image: str, cameras: tuple[str, ...], everyone: bool, watch: bool,
    log: str | None, no_backup: bool, board: str | None, partition: int | None, wait: bool,
    force: bool, slot: str, tries: bool, no_reset: bool,
) -> int:  # fmt: skip
    """Write a whole image to one or more cameras, verified, and report each on a line.

    What a camera held is backed up first. Cameras that hold the image already are left alone,
    so running it again resumes with those that failed.

    --all --watch is a production line: each camera that is plugged in gets the image once, several
    at a time. Ctrl-C stops after the writes in progress. A camera that failed is tried again
    when it is plugged in again.
    """
    if not os.path.isfile(image):
        what = "not an image file" if os.path.exists(image) else "no such image file"
        raise UsageError(what, where=image, next_step="romfsfs push IMAGE CAMERA")
    if (watch or log) and not everyone:
        raise UsageError("--watch and --log need --all")
    if wait and everyone:
        raise UsageError("--wait is for one boot loader", next_step="--all --watch waits for all")
    if not (cameras or everyone):
        raise UsageError("name a camera, or --all", next_step="romfsfs cameras lists them")
    options = PushOptions(force, not no_reset, tries, slot, not no_backup)
    report = _Report(output, _size(image), watch)
    if no_backup:
        output.note("no copy is kept of what a camera holds: undo cannot bring it back")
    if everyone:
        from romfsfs.cli.production import Order, every

        order = Order(image, board, partition, options)
        code = every(output, order, cameras, log, report, watch=watch)
    else:
        wait_for(output, cameras if wait else [], partition)
        with output.progress() as progress:
            connect = partial(device, board=board, partition=partition, slot=slot)
            outcomes = push_all(image, cameras, connect, options, progress)
        code = max(report(camera, outcome) for camera, outcome in outcomes.items())
    report.end()
    return code


def _size(image: str) -> int:
    """The size of an image in bytes, without what follows it in its file; 0 if it is none."""
    with open(image, "rb") as file, suppress(ImageFormatError):
        return image_size(file.read(HEADER_SIZE))
    return 0


class _Report:
    """Prints each camera's outcome. watch: with `--json` one line each, at once."""

    def __init__(self, output: Output, size: int, watch: bool) -> None:
        self._output, self._size, self._watch = output, size, watch
        self._records: list[dict[str, Any]] = []
        self._failed = False

    def __call__(self, camera: str, outcome: PushResult) -> int:
        """Print an outcome and return the exit code that it means."""
        output = self._output
        if isinstance(outcome, RomfsError):
            self._failed = True
            code = outcome.exit_code
            record = {"camera": camera, "ok": False, "error": outcome.line}
            if not output.as_json:
                if camera not in outcome.line:
                    outcome.what = f"{camera}: {outcome.what}"
                output.error(outcome)
        else:
            written = write_record(outcome) if outcome else None
            record = {"camera": camera, "ok": True, "write": written}
            text = write_text(outcome, self._size) if outcome else HELD
            output.say(f"{camera}: {text}")
            code = say_tried(output, shell_word(camera), outcome)
        self._records.append(record)
        if self._watch:
            with suppress(BrokenPipeError):  # nobody reads it; the work goes on
                if output.as_json:
                    write(json.dumps(record) + "\n")
                flush()
        return code

    def end(self) -> None:
        if self._watch:
            return
        self._output.json(self._records)
        if not self._output.as_json and self._failed and len(self._records) > 1:
            self._output.note("repeat the command: it goes on with the cameras that failed")
