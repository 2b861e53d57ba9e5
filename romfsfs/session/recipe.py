"""The firmware's own recipes for images.

`boards/BOARD/romfs_config.json` of a checkout says what goes into a board's image, in which order
and with which options:

    {"0": {"size": "0x400000", "entries": [
        {"type": "tflite", "path": "{TOP}/lib/models/a.tflite", "alignment": 16,
         "optimize": "Performance", "profile": "default"},
        {"type": "haar", "path": "{TOP}/lib/haar/*.xml", "stages": 0}, ...]}}

The keys are partition numbers; `{TOP}` is the checkout, `*` as in a shell. Every file goes to the
root of the image, a model's labels (`a.txt` beside it) right after it. Files of any other type are
stored as they are. (docs/converters.md, from the firmware's tools/mkromfs.py.)
"""

from __future__ import annotations

import glob
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from romfsfs.boards import boards
from romfsfs.convert.options import FileOptions, OptionError, Rule, check
from romfsfs.errors import RomfsError, UsageError
from romfsfs.system.user_folders import cache_dir, make_private_dir

#: option name in a recipe -> option name here
_OPTIONS = {"alignment": "align", "optimize": "optimise", "profile": "profile"}
_CONVERTED = ("tflite", "haar")
MAX_BYTES = 1 << 20


class Ingredient(NamedTuple):
    """A file, and what the recipe chooses for it."""

    file: Path
    options: FileOptions


class Laid(NamedTuple):
    """A tree made from a recipe. order: its file names in the order of the image."""

    folder: Path
    rules: tuple[Rule, ...]
    order: tuple[str, ...]


@contextmanager
def laid_out(recipe: Path, top: Path, partition: int) -> Iterator[Laid]:
    """A temporary folder with the files of a recipe, removed after the block.

    top: the firmware's checkout. UsageError when the recipe cannot be followed; OSError."""
    by_name: dict[str, Ingredient] = {}
    for each in ingredients(recipe, top, partition):
        if by_name.setdefault(each.file.name, each).file != each.file:
            raise _refused(recipe, f"two entries would be stored as {each.file.name}")
    found = by_name.values()
    parent = make_private_dir(cache_dir())
    with tempfile.TemporaryDirectory(prefix="recipe.", dir=parent) as folder:
        for each in found:
            shutil.copyfile(each.file, os.path.join(folder, each.file.name))
        rules = [Rule(f"/{glob.escape(each.file.name)}", each.options) for each in found]
        yield Laid(Path(folder), tuple(rules), tuple(by_name))


def board_of(recipe: Path) -> str | None:
    """The board that a recipe is for, by the name of its folder; None if that is no known board."""
    name = Path(os.path.realpath(recipe)).parent.name
    return name if name in boards() else None


def ingredients(recipe: Path, top: Path, partition: int) -> list[Ingredient]:
    """The files of a recipe, in its order. top: the checkout. Raises as `laid_out`."""
    found: list[Ingredient] = []
    for entry in _entries(recipe, partition):
        if not isinstance(entry, dict) or not isinstance(entry.get("path"), str):
            raise _refused(recipe, f"an entry has no path: {entry!r:.60}")
        if entry.get("enabled", True):
            options = _options(recipe, entry)
            for file in _files(recipe, top, entry["path"]):
                found.append(Ingredient(file, options))
                labels = file.with_suffix(".txt")
                if entry.get("type") == "tflite" and labels.is_file():
                    found.append(Ingredient(labels, FileOptions(convert=False)))
    return found


def _entries(recipe: Path, partition: int) -> list[Any]:
    try:
        with recipe.open("rb") as file:
            document = json.loads(file.read(MAX_BYTES + 1))
    except (ValueError, RecursionError) as caught:
        raise _refused(recipe, f"not JSON: {caught}") from None
    entries = None
    if isinstance(document, dict) and str(partition) in document:
        part = document[str(partition)]
        entries = part.get("entries") if isinstance(part, dict) else None
    if not isinstance(entries, list):
        raise _refused(recipe, f"it has no entries for partition {partition}")
    return entries


def _options(recipe: Path, entry: dict[str, Any]) -> FileOptions:
    if entry.get("stages"):
        raise _refused(
            recipe,
            f"{entry['path']}: stages is {entry['stages']}, but only 0 (all stages) is supported",
        )
    chosen: dict[str, Any] = {} if entry.get("type") in _CONVERTED else {"convert": False}
    try:
        for theirs, ours in _OPTIONS.items():
            if theirs in entry:
                chosen[ours] = check(ours, entry[theirs])
    except OptionError as caught:
        raise _refused(recipe, f"{entry['path']}: {caught}") from None
    return FileOptions(**chosen)


def _files(recipe: Path, top: Path, path: str) -> list[Path]:
    place = path.replace("{TOP}", os.path.abspath(top))
    if "{" in place:
        raise _refused(recipe, f"{path} uses a variable that only the firmware's make defines")
    if not os.path.isabs(place):
        place = os.path.join(top, place)
    if os.path.isfile(place):
        return [Path(place)]
    matching = [Path(each) for each in sorted(glob.glob(place)) if os.path.isfile(each)]
    if not matching:
        raise _refused(recipe, f"there is no {path}")
    return matching


def _refused(recipe: Path, why: str) -> RomfsError:
    return UsageError(
        f"the recipe cannot be followed: {why}", where=str(recipe),
        next_step="DIR is the checkout of the firmware, {TOP} in the recipe",
    )  # fmt: skip
