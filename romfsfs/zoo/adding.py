"""A model and its labels, copied into a directory: a mount, or a session's work tree."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import NamedTuple

from romfsfs.errors import RomfsError, UsageError
from romfsfs.system.files import CHUNK, Progress, no_progress, replace_atomically
from romfsfs.zoo.catalog import Zoo
from romfsfs.zoo.members import Model, is_model, label_name


class Copy(NamedTuple):
    """A file to add. source: its path in the zoo. name: in the directory. size in bytes."""

    source: str
    name: str
    size: int


def copies(zoo: Zoo, model: Model, name: str = "", *, labels: bool = True) -> list[Copy]:
    """What adding a model means: the model, as `name` if given, and its labels under the name
    that the firmware looks for. UsageError if `name` is no file name.
    """
    chosen = name or model.name
    if chosen in (".", "..") or "/" in chosen or "\0" in chosen:
        raise UsageError(f"not a file name: {chosen!r}", next_step="choose the folder with --into")
    if not is_model(chosen):
        chosen += os.path.splitext(model.name)[1]
    made = [Copy(model.path, chosen, model.size)]
    if labels and model.label is not None:
        size = zoo.catalog().members[model.label].size
        made.append(Copy(model.label, label_name(chosen), size))
    return made


def add(
    zoo: Zoo, wanted: list[Copy], directory: Path, *, force: bool = False,
    progress: Progress = no_progress,
) -> None:  # fmt: skip
    """Copy files into `directory` (made if need be), each complete or not at all.

    Nothing is written when one of them is there already, unless `force`: RomfsError. OSError from
    the directory or the source.
    """
    existing = [copy.name for copy in wanted if os.path.lexists(directory / copy.name)]
    if existing and not force:
        next_step = "replace with --force, or choose another name with --as"
        what = f"{' and '.join(existing)} already there"
        raise RomfsError(what, where=str(directory), next_step=next_step)
    directory.mkdir(parents=True, exist_ok=True)
    total = sum(copy.size for copy in wanted)
    done = 0
    for copy in wanted:
        # Converted when it gets its name; what a kill leaves before is never packed (`junk.txt`).
        with (
            open(zoo.open(copy.source), "rb") as source,
            replace_atomically(directory / copy.name, 0o666) as target,
        ):
            shutil.copyfileobj(source, target, CHUNK)
        done += copy.size
        progress("copying", done, total)
