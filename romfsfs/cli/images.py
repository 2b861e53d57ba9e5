"""Commands on images without mounting: new, extract, info, verify."""

from __future__ import annotations

import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import click

from romfsfs.boards import Board, get_board
from romfsfs.cli import parameters
from romfsfs.cli.output import Output
from romfsfs.cli.parameters import board
from romfsfs.cli.reading import image_of, tree_of
from romfsfs.cli.reports import refuse_existing, say_warnings
from romfsfs.convert import Target
from romfsfs.convert.admission.models import is_model
from romfsfs.convert.types import Figures
from romfsfs.devices.base import DeviceInfo
from romfsfs.devices.file import FileDevice
from romfsfs.devices.open import is_camera
from romfsfs.errors import (
    EXIT_IMAGE,
    EXIT_OK,
    ImageFormatError,
    UsageError,
    count_text,
    printable,
    shell_word,
)
from romfsfs.image.check import lint
from romfsfs.image.layout import DEFAULT_RULES
from romfsfs.image.model import FileNode, Image, walk
from romfsfs.image.slots import Slot, find_slots_of_file, slots_text
from romfsfs.image.writer import encode
from romfsfs.session.build import extract_image
from romfsfs.session.find import find_session
from romfsfs.session.keep.folder import folder_of, make_folder
from romfsfs.session.plan.admission import admit_image, image_figures
from romfsfs.session.plan.problems import ERROR, told
from romfsfs.session.rebase.read import OpenOptions, session_for
from romfsfs.session.settings import device_target
from romfsfs.system.files import digest_fd


@click.command()
@parameters.IMAGE
@board("The board it is for; remembered. See: romfsfs boards.", required=True)
@parameters.PARTITION_0
@parameters.REPLACE
@click.pass_obj
def new(output: Output, image: str, board: str, partition: int, force: bool) -> None:
    """Make an empty image for a board."""
    chosen = get_board(board)
    place = chosen.partition(partition)
    refuse_existing(image, force=force)
    device = FileDevice(image)
    with make_folder(device.path).lock_unmounted(image):
        with tempfile.TemporaryFile() as file:
            file.write(encode({}, place.alignment))
            file.flush()
            device.write_image(file)
        session_for(device, image, OpenOptions(chosen.name, partition))
    what = f"empty, for {chosen.name}, {place.size:,} B"
    output.say(f"{image}: {what}; mount it: romfsfs mount {shell_word(image)} DIR")


@click.command()
@parameters.SOURCE
@parameters.DIRECTORY
@parameters.CAMERA_BOARD
@parameters.PARTITION
@parameters.SLOT_TO_READ
@click.pass_obj
def extract(output: Output, /, source: str, directory: str, **place: Any) -> None:
    """Extract SOURCE to DIR, a new or empty folder."""
    if os.path.lexists(directory) and not os.path.isdir(directory):
        raise UsageError("not a folder", where=directory, next_step="choose another name")
    with (
        output.progress() as progress,
        image_of(source, progress, **place) as (image, file, _),
    ):
        done = extract_image(image, file, Path(directory), progress)
    output.say(f"{directory}: {count_text(sum(entry is not None for entry in done), 'file')}")


@click.command()
@parameters.SOURCE
@board("Check alignment and capacity for it.")
@parameters.PARTITION_0
@parameters.SLOT_TO_READ
@click.option("--map", "as_map", is_flag=True, help="What lies where, and what is free.")
@parameters.JSON
@click.pass_obj
def info(
    output: Output, source: str, board: str | None, partition: int, slot: str, as_map: bool
) -> None:
    """What SOURCE holds: size, files, and what is worth knowing about its layout.

    Of a mounted directory: the image as last read or committed; `romfsfs status` has the edits.
    """
    title = source
    if os.path.isdir(source):
        session = find_session(source, slot=slot, only_looks=True).session
        board, partition = board or session.info.board, session.info.partition
        source, title, slot = str(session.base_image), session.info.title, ""
    if as_map:
        from romfsfs.cli.maps import show_map

        show_map(output, source, board, partition, slot, title)
        return
    models: dict[str, Figures] | None = None
    slots: tuple[Slot, ...] = ()
    with output.progress() as progress:
        if is_camera(source):  # only the tree is read from it
            image, digest, found = tree_of(
                source, progress, digested=True, partition=partition, slot=slot
            )
            if found is not None:
                slots = found.slots
                copy = folder_of(found.key).image(digest)  # the session's, never changed
                if copy.exists():
                    with open(copy, "rb") as file:
                        models = image_figures(image, file)
        else:
            with image_of(source, progress, slot=slot) as (image, file, _):
                digest = digest_fd(file.fileno(), 0, image.size)
                models = image_figures(image, file)
                slots = _slots_of(file)
    record = _summary(image, digest, source, get_board(board) if board else None, partition)
    record["models"] = {path: each._asdict() for path, each in (models or {}).items()}
    output.json({**record, "slots": [slot.record() for slot in slots]})
    files, folders = record["files"], record["directories"]
    counts = f"{count_text(files, 'file')}, {count_text(folders, 'directory')}"
    output.show(f"{title}: {record['size']:,} B, {counts if image.size else 'blank'}\n")
    output.show(f"  sha256 {record['digest']}\n")
    if slots:
        output.show(f"  openmv-ota: {slots_text(slots)}\n")
    if record["capacity"] is not None:
        output.show(f"  {record['size'] / record['capacity']:.1%} of {record['capacity']:,} B\n")
    if models is None and any(is_model(path, b"") for path, _ in walk(image)):
        quoted = shell_word(source)
        output.show("  only the names and sizes of its models were read; for operators and memory: "
                    f"romfsfs pull {quoted} FILE, romfsfs info FILE\n")  # fmt: skip
    for path, figures in (models or {}).items():
        output.show(f"  {printable(path)}: {figures.text}\n")
    for note in record["notes"]:
        output.show(f"  {note['code']}: {_said(note)} (offset {note['offset']:#x})\n")


def _said(note: dict[str, Any]) -> str:
    return f"{printable(note['path'])}: {note['message']}" if note["path"] else note["message"]


def _slots_of(file: BinaryIO) -> tuple[Slot, ...]:
    fd = file.fileno()
    return find_slots_of_file(
        lambda at, count: os.pread(fd, count, at),
        os.fstat(fd).st_size,
        lambda start, end: digest_fd(fd, start, end - start),
    )


def _summary(
    image: Image, digest: str, source: str, board: Board | None, partition: int
) -> dict[str, Any]:
    nodes = [node for _, node in walk(image)]
    files = [node for node in nodes if isinstance(node, FileNode)]
    place = board.partition(partition) if board else None
    notes = lint(image, place.alignment if place else DEFAULT_RULES)
    return {
        "source": source, "board": board.name if board else None, "size": image.size,
        "digest": digest, "files": len(files), "directories": len(nodes) - len(files),
        "data": sum(node.extent.size for node in files), "trailing": image.trailing,
        "capacity": place.size if place else None, "notes": [note._asdict() for note in notes],
    }  # fmt: skip


#: Notes on what every layout of ours has: `verify` prints them only with -v.
_USUAL = frozenset({"padding"})


@click.command()
@parameters.SOURCE
@board("Also check alignment and capacity for this board.")
@parameters.PARTITION_0
@parameters.SLOT_TO_READ
@parameters.JSON
@click.pass_obj
def verify(output: Output, source: str, board: str | None, partition: int, slot: str) -> int:
    """Check SOURCE as the camera would read it; exit code 4 if it is invalid or does not fit."""
    chosen = get_board(board) if board else None
    with (
        output.progress() as progress,
        image_of(source, progress, partition=partition, slot=slot) as (image, file, info),
    ):
        if image.size == 0:
            raise ImageFormatError("blank: it holds no image", 0, where=source)
        digest = digest_fd(file.fileno(), 0, image.size)
        record = _summary(image, digest, source, chosen, partition)
        found = admit_image(image, file, _target(chosen, partition, info))
        slots = info.slots if info else _slots_of(file)
        record["slots"] = [slot.record() for slot in slots]
        record["problems"] = [each.record() for each in found]
        failures = [problem.text for problem in told(found) if problem.severity == ERROR]
        if record["capacity"] is not None and record["size"] > record["capacity"]:
            over, limit = record["size"] - record["capacity"], record["capacity"]
            failures.append(f"{over:,} B too large, {record['board']} has room for {limit:,} B")
    output.json({**record, "ok": not failures, "failures": failures})
    if not output.as_json:
        for note in record["notes"]:
            if note["code"] == "misaligned":
                continue  # it is among the problems, with its remedy
            if output.verbose or note["code"] not in _USUAL:
                output.note(f"{source}: {_said(note)}")
        if slots:
            output.note(f"{source}: an openmv-ota image: {slots_text(slots)}")
        say_warnings(output, found, f"{source}: ")
        for failure in failures:
            output.fault(f"{source}: {failure}")
    if not failures:
        fit = f" and fits {chosen.name}" if chosen else ""
        files = count_text(record["files"], "file")
        output.say(f"{source}: valid{fit}, {files}, {record['size']:,} B")
    return EXIT_IMAGE if failures else EXIT_OK


def _target(board: Board | None, partition: int, info: DeviceInfo | None) -> Target:
    """What the image is checked for: the board that was named, else the camera that it is on."""
    if info is not None:
        return device_target(info if board is None else replace(info, board=board.name))
    return Target(board, board.partition(partition) if board else None)
