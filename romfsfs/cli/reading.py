"""Reading images: opening them, `ls` and `cat`. Slow imports are left to the functions."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from romfsfs.cli import values
from romfsfs.cli.output import Output, write
from romfsfs.cli.parameters import CAMERA_BOARD, JSON, PARTITION, SLOT_TO_READ, SOURCE
from romfsfs.errors import ImageFormatError, UsageError, printable, shell_word
from romfsfs.image.model import DirNode, FileNode, Image, walk
from romfsfs.session.keep.images import WHOLE_COPY, parse
from romfsfs.system.files import CHUNK, Progress, digest_fd, digest_file, no_progress

if TYPE_CHECKING:
    from pathlib import Path

    from romfsfs.devices.base import Device, DeviceInfo


@contextmanager
def image_of(
    source: str, progress: Progress = no_progress, *, slot: str = "", **place: Any
) -> Iterator[tuple[Image, BinaryIO, DeviceInfo | None]]:
    """Open an image to read: a file, `-` for standard input, or what a camera holds.

    Yields the image, a file with its bytes, and a camera's `DeviceInfo` (else None). slot, place:
    of a camera, as `device` takes them. RomfsError, OSError."""
    if source != "-" and os.path.isfile(source) and not slot:
        with open(source, "rb") as file:
            yield parse(file, source, WHOLE_COPY), file, None
        return
    import tempfile

    from romfsfs.session.connect import device
    from romfsfs.session.find import containing_mount

    if os.path.isdir(source) and (found := containing_mount(source)) is not None:
        next_step = f"use it like any folder; the committed image is {found.session.info.source}"
        raise UsageError("a mounted directory, not an image", where=source, next_step=next_step)
    info = None
    with tempfile.TemporaryFile() as copy:
        if source == "-" and not slot:
            shutil.copyfileobj(sys.stdin.buffer, copy, CHUNK)
        else:
            with device(source, slot=slot, **place) as opened:
                info = opened.info()
                known = known_copy(opened)
                if known is None:
                    opened.read_image(copy, progress)
            if known is not None:
                with open(known, "rb") as file:
                    yield parse(file, source, WHOLE_COPY), file, info
                return
        copy.flush()
        yield parse(copy, "standard input" if source == "-" else source, WHOLE_COPY), copy, info


def known_copy(opened: Device) -> Path | None:
    """The session's copy of the image on the camera, if its digest is the one that the camera
    reports; None without such a copy."""
    from romfsfs.session.keep.folder import folder_of

    kept = {
        copy: copy.stat().st_size for copy in folder_of(opened.info().key).history.glob("*.img")
    }
    try:
        tree = opened.read_tree() if kept else None
    except ImageFormatError:
        return None  # reading the whole image reports what is wrong
    if tree is None or tree.size not in kept.values():
        return None  # spares the camera the digest, about a second for each megabyte
    digest = opened.digest(tree.size)
    return next((copy for copy in kept if copy.stem == digest == digest_file(copy)), None)


def tree_of(
    source: str, progress: Progress, *, digested: bool = False, **place: Any
) -> tuple[Image, str, DeviceInfo | None]:
    """As `image_of`, without the bytes: the tree, its digest ('' unless `digested`), the camera.

    From a camera little more than the records of files and folders is read; it computes the digest.
    """
    if not os.path.isfile(source) and source != "-" and not source.startswith("dfu:"):
        from romfsfs.devices.open import is_camera
        from romfsfs.session.connect import device

        if is_camera(source):
            with device(source, **place) as opened:
                tree = opened.read_tree()
                digest = opened.digest(tree.size) if tree and digested else ""
                if tree is not None and digest is not None:
                    return tree, digest, opened.info()
    with image_of(source, progress, **place) as (image, file, info):
        return image, digest_fd(file.fileno(), 0, image.size) if digested else "", info


@click.command()
@SOURCE
@click.argument("path", required=False, shell_complete=values.in_image)
@click.option("-l", "--long", is_flag=True, help="Size and offset of each file.")
@JSON
@CAMERA_BOARD
@PARTITION
@SLOT_TO_READ
@click.pass_obj
def ls(output: Output, /, source: str, path: str | None, long: bool, **place: Any) -> None:
    """List SOURCE (an image file, a camera, or `-`), or what is below PATH in it."""
    below = (path or "").strip("/")
    records: list[dict[str, Any]] = []
    with output.progress() as progress:
        if output.as_json:
            with image_of(source, progress, **place) as (image, file, _):
                records = [each for each in _records(image, file) if _below(each["path"], below)]
        else:
            image, _, _ = tree_of(source, progress, **place)
    if below and all(found != below for found, _ in walk(image)):
        raise _no_file(source, path or "")
    output.json(records)
    output.show("".join(f"{line}\n" for line in _lines(image, long, below)))


def _below(path: str, folder: str) -> bool:
    return not folder or path == folder or path.startswith(folder + "/")


def _records(image: Image, file: BinaryIO) -> list[dict[str, Any]]:
    return [
        {"path": path, "type": "file", "size": node.extent.size, "offset": node.extent.offset,
         "digest": digest_fd(file.fileno(), *node.extent)}
        if isinstance(node, FileNode)
        else {"path": path, "type": "directory", "size": None, "offset": None, "digest": None}
        for path, node in walk(image)
    ]  # fmt: skip


@click.command()
@SOURCE
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, shell_complete=values.in_image)
@CAMERA_BOARD
@PARTITION
@SLOT_TO_READ
@click.pass_obj
def cat(output: Output, /, source: str, paths: tuple[str, ...], **place: Any) -> None:
    """Print files of SOURCE to standard output."""
    with (
        output.progress() as progress,
        image_of(source, progress, **place) as (image, file, _),
    ):
        nodes = dict(walk(image))
        for path in paths:
            node = nodes.get(path.strip("/"))
            if not isinstance(node, FileNode):
                what = "no such file in the image" if node is None else "a directory"
                raise _no_file(source, path, what)
            offset, end = node.extent.offset, sum(node.extent)
            while offset < end:
                data = os.pread(file.fileno(), min(CHUNK, end - offset), offset)
                write(data)
                offset += len(data)


def _no_file(source: str, path: str, what: str = "no such file in the image") -> UsageError:
    next_step = f"romfsfs ls {shell_word(source)}"
    return UsageError(what, where=f"{source}: {path}", next_step=next_step)


def _lines(image: Image, long: bool, below: str) -> Iterator[str]:
    for path, node in walk(image):
        if not _below(path, below):
            continue
        shown = printable(path)
        if isinstance(node, DirNode):
            yield f"{'-':>10}  {'-':>10}  {shown}/" if long else shown + "/"
        elif isinstance(node, FileNode):
            offset, size = node.extent
            yield f"{size:10}  {offset:#10x}  {shown}" if long else shown
