"""Whole images: pull and reset."""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from romfsfs.boards import get_board
from romfsfs.cli import parameters, values
from romfsfs.cli.output import Output, confirmed, write_all
from romfsfs.cli.parameters import partition
from romfsfs.cli.reading import known_copy
from romfsfs.cli.reports import HELD, fetching, refuse_existing, wait_for, write_record, write_text
from romfsfs.devices.base import Device, DeviceInfo
from romfsfs.errors import EXIT_FAILURE, EXIT_OK, DeviceAbsent, RomfsError, UsageError, shell_word
from romfsfs.session.connect import device
from romfsfs.session.keep.images import parse
from romfsfs.session.plan.admission import admit_image
from romfsfs.session.plan.problems import Problem, told
from romfsfs.session.rebase.push import PushOptions
from romfsfs.session.rebase.push import push as push_image
from romfsfs.session.settings import device_target
from romfsfs.system.files import Progress, digest_fd, replace_atomically

if TYPE_CHECKING:
    from romfsfs.ide.archive import Fetching
    from romfsfs.ide.defaults import DefaultImage


@click.command()
@parameters.CAMERA
@parameters.IMAGE
@parameters.CAMERA_BOARD
@parameters.PARTITION
@parameters.SLOT_TO_READ
@parameters.WAIT
@parameters.REPLACE
@parameters.JSON
@click.pass_obj
def pull(
    output: Output, camera: str, image: str, board: str | None, partition: int | None, slot: str,
    wait: bool, force: bool,
) -> None:  # fmt: skip
    """Copy a camera's whole image to a file; `-` is standard output."""
    if image == "-":
        output.refuse_json()
    else:
        refuse_existing(image, force=force)
    wait_for(output, [camera] if wait else [], partition)
    with device(camera, board, partition, slot) as opened, output.progress() as progress:
        if image == "-":
            with tempfile.TemporaryFile() as file:
                size, digest, found = _pull(opened, file, camera, progress)
                write_all(file)
            _say_found(output, found)
            return
        with replace_atomically(os.path.realpath(image), 0o666) as file:
            size, digest, found = _pull(opened, file, camera, progress)
    problems = [each.record() for each in found]
    output.json({"camera": camera, "image": image, "size": size, "digest": digest,
                 "problems": problems})  # fmt: skip
    _say_found(output, found)
    output.say(f"{image}: {size:,} B from {camera}, sha256 {digest}")


def _say_found(output: Output, found: list[Problem]) -> None:
    for problem in told(found, output.verbose > 0) if not output.as_json else ():
        output.note(f"{problem.severity}: {problem.text}")


def _pull(
    opened: Device, file: BinaryIO, camera: str, progress: Progress
) -> tuple[int, str, list[Problem]]:
    """Copy the camera's image to `file`; its size in bytes, its digest, and its problems there.

    RomfsError if the partition is blank."""
    known = known_copy(opened)
    if known is None:
        size = opened.read_image(file, progress)
    else:
        size = known.stat().st_size
        with open(known, "rb") as copy:
            shutil.copyfileobj(copy, file)
    if not size:
        raise RomfsError("the camera's partition is blank: there is no image", where=camera)
    file.flush()
    found = admit_image(parse(file, camera), file, device_target(opened.info()))
    return size, digest_fd(file.fileno()), found


@click.command()
@parameters.CAMERA
@click.option(
    "--from", "place", metavar="PLACE", shell_complete=values.files,
    help="An image, a firmware release, an IDE's resource folder, or the URL of a zip.",
)  # fmt: skip
@parameters.CAMERA_BOARD
@partition("Only this one. Default: all of the board's.")
@parameters.WAIT
@parameters.YES
@parameters.OFFLINE
@parameters.OVER_ANYTHING
@parameters.SLOT
@parameters.JSON
@click.pass_obj
def reset(
    output: Output, camera: str, place: str | None, board: str | None, partition: int | None,
    wait: bool, yes: bool, offline: bool, force: bool, slot: str,
) -> int:  # fmt: skip
    """Restore the contents that came with a camera's firmware.

    Without --from: those of an OpenMV IDE installed on this machine, else those that OpenMV
    publishes; for the camera's firmware version if there are any, else the newest.
    """
    wait_for(output, [camera] if wait else [], partition)
    with device(camera, board, partition, slot) as opened:
        info = opened.info()
        for note in info.notes:
            output.note(note)
        with output.progress() as progress:
            allowed = fetching(output, progress, offline=offline, yes=yes, update=True)
            chosen = _defaults(info, camera, place, partition, allowed)
        _tell_of_version(output, info.firmware, chosen)
        for image in chosen:
            output.say(f"partition {image.partition}: {image.label}, {image.size:,} B")
        if not yes and not confirmed(output, f"Replace everything on {info.name}?"):
            return EXIT_FAILURE
        how = PushOptions(force, kind="reset", slot=slot)
        restore = partial(_restore, output, camera, how, info.notes)
        records = [restore(opened, chosen[0], last=len(chosen) == 1)]
    try:
        for image in chosen[1:]:
            with device(camera, board, image.partition, slot) as opened:
                there = opened.info()
                if _who(there) != _who(info):
                    raise DeviceAbsent(
                        f"another camera is connected there now: {there.name}, not {info.name}",
                        where=camera,
                        next_step="it was left as it is; connect the first one and repeat the "
                        "command",
                    )
                records.append(restore(opened, image, last=image is chosen[-1]))
    finally:  # if one fails, what was written before it
        output.json(records)
    return EXIT_OK


def _who(info: DeviceInfo) -> str:
    """The camera's key without the partition."""
    return info.key.rpartition("/")[0]


def _tell_of_version(output: Output, firmware: str, chosen: list[DefaultImage]) -> None:
    """Print which defaults are restored if not those of the camera's firmware version."""
    from romfsfs.ide.defaults import find_version, version_text

    wanted = find_version(firmware)
    other = {image.version for image in chosen if image.version} - {wanted}
    if wanted and other:
        names = " and ".join(version_text(version) for version in sorted(other))
        output.note(f"the camera's firmware is {version_text(wanted)}; its default contents were "
                    f"not found, those of {names} are used")  # fmt: skip


def _defaults(
    info: DeviceInfo, camera: str, place: str | None, partition: int | None, allowed: Fetching
) -> list[DefaultImage]:
    """The image for each partition to restore. UsageError, RomfsError."""
    from romfsfs.ide.defaults import find_defaults

    if info.is_file:
        next_step = f"to empty it: romfsfs new {shell_word(camera)} --board BOARD --force"
        raise UsageError("an image file, not a camera", where=camera, next_step=next_step)
    if info.board is None:
        what = "the board cannot be identified"
        raise UsageError(what, where=camera, next_step="add --board BOARD")
    if place and "://" not in place and not os.path.exists(place):
        raise UsageError("no such file or folder", where=place)
    known = get_board(info.board)
    indexes = [part.index for part in known.partitions] if partition is None else [partition]
    chosen = [find_defaults(known, index, place, info.firmware, allowed)[0] for index in indexes]
    if len({image.path for image in chosen}) < len(chosen):
        raise UsageError(
            "this is one image, but the camera has several partitions",
            where=str(place),
            next_step="choose: " + " or ".join(f"--partition {index}" for index in indexes),
        )
    return chosen


def _restore(
    output: Output,
    camera: str,
    how: PushOptions,
    said: tuple[str, ...],
    opened: Device,
    image: DefaultImage,
    *,
    last: bool,
) -> dict[str, Any]:
    """Write one partition's image and return its record for `--json`.

    said: notes that were printed before. last: restart the camera afterwards."""
    with tempfile.TemporaryFile() as file, output.progress() as progress:
        file.write(image.read())
        file.flush()
        report = push_image(opened, camera, file, image.label, replace(how, restart=last), progress)
    text = write_text(report, image.size, said) if report else HELD
    output.say(f"{opened.info().name}, partition {image.partition}: {text}")
    return {
        "camera": camera, "partition": image.partition, "image": image.label,
        "size": image.size, "write": write_record(report) if report else None,
    }  # fmt: skip
