"""What can stand on a command line where a value is asked for: boards, sources, mounts, models.

For shell completion (`completion`). Every function takes the word as far as it is typed and gives
what it could become. Nothing here opens a camera's port or asks a server, and what goes wrong is
no value: a shell prompt is no place for an error.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator

import click
from click.shell_completion import CompletionItem

from romfsfs.errors import RomfsError

Item = CompletionItem
Completer = Callable[[click.Context, str], Iterable["Item[str]"]]

_IMAGE_SUFFIXES = (".img", ".romfs")


def items_for(context: click.Context, parameter: click.Parameter, word: str) -> list[Item[str]]:
    """What `parameter` of the context's command could be, having begun with `word`."""
    completer = completer_of(context, parameter)
    if completer is None:
        return list(parameter.shell_complete(context, word))
    try:
        return list(completer(context, word))
    except (RomfsError, OSError, ValueError, KeyError):
        return []


def completer_of(context: click.Context, parameter: click.Parameter) -> Completer | None:
    """The table's entry; None: what click knows itself (choices, or nothing)."""
    command = context.command_path.partition(" ")[2]
    name = parameter.name or ""
    return VALUES.get(f"{command} {name}") or VALUES.get(name)


def _starting(values: Iterable[tuple[str, str]], word: str) -> Iterator[Item[str]]:
    seen = set()
    for value, text in values:
        if value.startswith(word) and value not in seen:
            seen.add(value)
            yield CompletionItem(value, help=text or None)


def _folders(context: click.Context, word: str) -> Iterator[Item[str]]:
    yield CompletionItem(word, type="dir")


def _files(context: click.Context, word: str) -> Iterator[Item[str]]:
    yield CompletionItem(word, type="file")


def _boards(context: click.Context, word: str) -> Iterator[Item[str]]:
    from romfsfs.boards import boards

    return _starting(
        ((board.name, board.display_name) for board in boards().values()), word.upper()
    )


def _partitions(context: click.Context, word: str) -> Iterator[Item[str]]:
    from romfsfs.boards import boards, get_board

    named = context.params.get("board")
    known = [get_board(named)] if isinstance(named, str) else list(boards().values())
    numbers = {str(part.index): part.name for board in known for part in board.partitions}
    return _starting(sorted(numbers.items()), word)


def _cameras(context: click.Context, word: str) -> Iterator[Item[str]]:
    yield from _or_files(_camera_names(word), word)


def _sources(context: click.Context, word: str) -> Iterator[Item[str]]:
    yield from _or_files([*_images(word), *_camera_names(word)], word)


def _or_files(values: Iterable[tuple[str, str]], word: str) -> Iterator[Item[str]]:
    """The values; the shell's own completion of files where none begins like that."""
    found = list(_starting(values, word))
    yield from found or [CompletionItem(word, type="file")]


def _images(word: str) -> Iterator[tuple[str, str]]:
    """Image files in the folder that the word names so far."""
    folder = os.path.dirname(word)
    with os.scandir(os.path.expanduser(folder) or ".") as entries:
        names = sorted(e.name for e in entries if e.name.lower().endswith(_IMAGE_SUFFIXES))
    for name in names:
        yield os.path.join(folder, name), "image file"


def _camera_names(word: str) -> Iterator[tuple[str, str]]:
    from romfsfs.devices.discovery import serial_cameras

    connected = serial_cameras()
    yield "camera", "the only camera connected"
    for camera in connected:
        label = " or ".join(camera.boards) or "camera"
        if camera.serial_number:
            yield f"camera:{camera.serial_number}", label
        yield camera.port, label
    if word.startswith("dfu:"):
        from romfsfs.boards import boards

        for board in boards().values():
            yield f"dfu:{board.name}", board.display_name


def _mounts(context: click.Context, word: str) -> Iterator[Item[str]]:
    found = list(_starting(_mounted(word), word))
    yield from found or [CompletionItem(word, type="dir")]


def _sessions(context: click.Context, word: str) -> Iterator[Item[str]]:
    from romfsfs.session.keep.store import all_sessions

    targets = ((_near(info.source, word), "session") for _, info in all_sessions())
    yield from _or_files([*_mounted(word), *targets], word)


def _mounted(word: str) -> Iterator[tuple[str, str]]:
    from romfsfs.session.keep.store import all_sessions, mounted_at

    for folder, info in all_sessions():
        holder = mounted_at(folder)
        if holder is not None and holder.mountpoint:
            yield _near(holder.mountpoint, word), f"{info.name} is mounted there"


def _near(path: str, word: str) -> str:
    """A path below the current folder as people type it, unless they began at the root."""
    inside = os.path.relpath(path) if os.path.isabs(path) else path
    return path if word.startswith("/") or inside.startswith("..") else inside


def _in_image(context: click.Context, word: str) -> Iterator[Item[str]]:
    """Paths in the image file that the command line names."""
    from romfsfs.image.model import DirNode, walk
    from romfsfs.session.keep.images import open_image

    source = context.params.get("source")
    if not isinstance(source, str) or not os.path.isfile(source):
        return
    with open_image(source) as (image, _):
        paths = [(path + "/" * isinstance(node, DirNode), "") for path, node in walk(image)]
    yield from _starting(paths, word)


def _models(context: click.Context, word: str) -> Iterator[Item[str]]:
    from romfsfs.zoo.catalog import Zoo
    from romfsfs.zoo.choose import chosen, open_offline

    source = open_offline(chosen())
    if source is None:
        return
    board = context.params.get("board")
    models = Zoo(source).catalog().models(board.upper() if isinstance(board, str) else None)
    yield from _starting(((model.path, "") for model in models), word)


def _choices(*words: str) -> Completer:
    return lambda context, word: _starting(((each, "") for each in words), word)


#: 'command parameter', or 'parameter' of any command -> what it can be
VALUES: dict[str, Completer] = {
    "board": _boards,
    "boards name": _boards,
    "build boards": _boards,
    "partition": _partitions,
    "source": _sources,
    "where": _sessions,
    "camera": _cameras,
    "cameras": _cameras,
    "image": _files,
    "elsewhere": _sources,
    "path": _in_image,
    "cat paths": _in_image,
    "paths": _files,
    "directory": _folders,
    "umount directory": _mounts,
    "zoo list directory": _mounts,
    "zoo add directory": _mounts,
    "zoo add model": _models,
    "zoo list source": _files,
    "zoo add source": _files,
    "folder": _folders,
    "into": _folders,
    "place": _files,
    "stedgeai": _files,
    "link": _files,
    "flash_file": _files,
    "log keep": _choices("200M", "1G", "5G"),
    "options": _choices(
        "ro", "allow_other", "board=", "partition=", "new", "commit_on_unmount", "notify"
    ),
}
