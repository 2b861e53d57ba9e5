"""Values for shell completion: boards, cameras, mounts, models and so on.

Each function takes click's context and the word as typed so far, and gives (value, description)
pairs. Nothing here opens a camera's port or asks a server, and an error means no values: a shell
prompt is no place for a message.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

import click
from click.shell_completion import CompletionItem

from romfsfs.cli import fstab
from romfsfs.errors import RomfsError

_Values = Iterable[tuple[str, str]]
#: The signature of click's `shell_complete=`.
Completer = Callable[[click.Context, click.Parameter, str], "list[CompletionItem[str]]"]

_IMAGE_SUFFIXES = (".img", ".romfs")


def completer(values: Callable[[click.Context, str], _Values], otherwise: str = "") -> Completer:
    """A completer of the values that begin with the word, in any case.

    otherwise: `file` or `dir`, which the shell completes itself if there are no such values."""

    def complete(
        context: click.Context, parameter: click.Parameter, word: str
    ) -> list[CompletionItem[str]]:
        try:
            found = dict(values(context, word))
        except (RomfsError, OSError, ValueError, KeyError):
            found = {}
        # A shell would take a name with a line break for two.
        items = [
            CompletionItem(value, help=said or None)
            for value, said in found.items()
            if value.lower().startswith(word.lower()) and value.isprintable()
        ]
        return items if items or not otherwise else [CompletionItem(word, type=otherwise)]

    return complete


def choices(*words: str) -> Completer:
    """A completer of these words."""
    return completer(lambda context, word: [(each, "") for each in words])


def _boards(context: click.Context, word: str) -> Iterator[tuple[str, str]]:
    from romfsfs.boards import boards

    for board in boards().values():
        yield board.name, board.display_name
        if ":" in word:
            yield from ((f"{board.name}:{part.index}", part.name) for part in board.partitions)


def _partitions(context: click.Context, word: str) -> _Values:
    from romfsfs.boards import boards, get_board

    named = context.params.get("board")
    known = [get_board(named)] if isinstance(named, str) else list(boards().values())
    parts = [part for board in known for part in board.partitions]
    return sorted({str(part.index): part.name for part in parts}.items())


def _cameras(context: click.Context, word: str) -> Iterator[tuple[str, str]]:
    from romfsfs.boards import boards
    from romfsfs.devices.discovery import serial_cameras

    yield "camera", "the only camera connected"
    for camera in serial_cameras():
        label = " or ".join(camera.boards) or "camera"
        if camera.serial_number:
            yield f"camera:{camera.serial_number}", label
        yield camera.port, label
    if word.startswith("dfu:"):
        yield from ((f"dfu:{name}", board.display_name) for name, board in boards().items())


def _sources(context: click.Context, word: str) -> Iterator[tuple[str, str]]:
    """Image files in the folder that the word names so far, and cameras."""
    folder = os.path.dirname(word)
    with os.scandir(os.path.expanduser(folder) or ".") as entries:
        names = sorted(e.name for e in entries if e.name.lower().endswith(_IMAGE_SUFFIXES))
    yield from ((os.path.join(folder, name), "image file") for name in names)
    yield from _cameras(context, word)


def _mounts(context: click.Context, word: str) -> Iterator[tuple[str, str]]:
    from romfsfs.session.keep.folder import all_sessions

    for folder, info in all_sessions():
        holder = folder.mounted_at()
        if holder is not None and holder.mountpoint:
            yield _near(holder.mountpoint, word), f"{info.name} is mounted there"


def _sessions(context: click.Context, word: str) -> Iterator[tuple[str, str]]:
    from romfsfs.session.keep.folder import all_sessions

    yield from _mounts(context, word)
    yield from ((_near(info.source, word), "session") for _, info in all_sessions())


def _near(path: str, word: str) -> str:
    """A path relative to the current folder if it lies below it and the word is not absolute."""
    inside = os.path.relpath(path) if os.path.isabs(path) else path
    return path if word.startswith("/") or inside.startswith("..") else inside


def _in_image(context: click.Context, word: str) -> Iterator[tuple[str, str]]:
    """Paths in the image file that the command line names."""
    from romfsfs.image.model import DirNode, walk
    from romfsfs.session.keep.images import open_image

    source = context.params.get("source")
    if isinstance(source, str) and os.path.isfile(source):
        with open_image(source) as (image, _):
            for path, node in walk(image):
                yield path + "/" * isinstance(node, DirNode), ""


def _models(context: click.Context, word: str) -> Iterator[tuple[str, str]]:
    from romfsfs.zoo.choose import chosen, open_known
    from romfsfs.zoo.members import stem

    zoo = open_known(chosen(), offline=True)
    if zoo is not None:
        board = context.params.get("board")
        listed = zoo.catalog().models(board if isinstance(board, str) else None)
        names = Counter(stem(model.name) for model in listed)
        for model in listed:
            yield model.path, ""
            if word and names[stem(model.name)] == 1:  # without a word, paths are enough
                yield stem(model.name), model.path


boards = completer(_boards)
partitions = completer(_partitions)
cameras = completer(_cameras, "file")
sources = completer(_sources, "file")
mounts = completer(_mounts, "dir")
sessions = completer(_sessions, "file")
in_image = completer(_in_image)
models = completer(_models)
files = completer(lambda context, word: (), "file")
folders = completer(lambda context, word: (), "dir")
mount_options = choices(
    *fstab.FLAGS, "allow_other", *(f"{name}=" for name in (*fstab.VALUES, *fstab.LISTS))
)
