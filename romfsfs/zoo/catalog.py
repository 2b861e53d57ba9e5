"""The models of a zoo for a board, finding one by what people type, and copying it with its labels
into a directory: a mount, or a session's work tree."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from romfsfs.errors import RomfsError, UsageError
from romfsfs.system.files import CHUNK, Progress, no_progress, replace_atomically
from romfsfs.zoo.index import BoardFilter, parse_index
from romfsfs.zoo.members import (
    Description,
    Member,
    Model,
    describe,
    is_model,
    label_name,
    models,
    stem,
)
from romfsfs.zoo.sources import Source

#: A source is asked whether it changed no more often than this: a listing asks for every file.
_CHECK_SECONDS = 1.0
_MAX_PAGE_BYTES = 1 << 20


class Catalog:
    """What a zoo held when it was scanned. Any thread.

    `models` and `find` run the patterns of its `index.csv` when a board is first asked for: call
    them without a lock. RomfsError, then and ever after, where these cannot be used.
    """

    def __init__(self, members: Mapping[str, Member], rules: BoardFilter) -> None:
        self.members = members
        self._rules = rules
        self._models = models(members)
        self._shown: dict[str | None, set[str] | RomfsError] = {}

    def models(self, board: str | None) -> list[Model]:
        """The models for a board (its folder name), None: all of them. In order of their paths."""
        if board not in self._shown:
            try:
                paths = [model.path for model in self._models]
                self._shown[board] = set(self._rules.shown(paths, board))
            except RomfsError as error:  # asked again it would only take as long
                self._shown[board] = error
        shown = self._shown[board]
        if isinstance(shown, RomfsError):
            raise shown
        return [model for model in self._models if model.path in shown]

    def find(self, text: str, board: str | None) -> Model:
        """The one model that `text` names: its path, its file name or stem, the end of its path,
        or a folder with one model. In any case (the exact one wins).

        UsageError lists what it could be, or the closest names.
        """
        shown = self.models(board)
        found = _named(text, shown)
        if len(found) == 1:
            return found[0]
        if found:
            what = f"{text!r} is the name of {len(found)} models"
            paths = ", ".join(model.path for model in found[:8])
            raise UsageError(what, next_step=f"give one of the paths: {paths}")
        if _named(text, self._models):
            what = f"{text!r} is not for {board}, says the zoo's index.csv"
            raise UsageError(what, next_step="add it anyway with --all")
        raise UsageError(f"the zoo has no model {text!r}", next_step=_suggestion(text, shown))


def _named(text: str, among: list[Model]) -> list[Model]:
    wanted = text.strip("/")
    for fold in (str, str.casefold):
        key = fold(wanted)
        for matches in (
            [m for m in among if fold(m.path) == key],
            [m for m in among if fold(m.name) == key or fold(stem(m.name)) == key],
            [m for m in among if fold(m.path).endswith("/" + key)],
            [m for m in among if f"/{key}/" in fold("/" + m.path)],
        ):
            if matches:
                return matches
    return []


def _suggestion(text: str, shown: list[Model]) -> str:
    from difflib import get_close_matches

    names = {name.casefold(): m for m in shown for name in (m.path, m.name, stem(m.name))}
    key = text.casefold()
    close = [name for name in names if key in name]
    close += get_close_matches(key, names, n=6, cutoff=0.5)
    paths = list(dict.fromkeys(names[name].path for name in close))[:3]
    return "did you mean " + " or ".join(paths) + "?" if paths else "see: romfsfs zoo list"


class Zoo:
    """A source with its catalog, scanned when it is first asked for and after changes.

    Any thread. RomfsError and OSError where the source cannot be read.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self._lock = threading.Lock()
        self._catalog: Catalog | None = None
        self._checked = 0.0

    @property
    def name(self) -> str:
        """The source, to show."""
        return self.source.name

    def catalog(self) -> Catalog:
        with self._lock:
            now = time.monotonic()
            if self._catalog is not None and now - self._checked < _CHECK_SECONDS:
                return self._catalog
            if self._catalog is None or self.source.changed():
                members, rules = self.source.scan()
                self._catalog = Catalog(members, parse_index(*rules) if rules else BoardFilter())
            self._checked = now
            return self._catalog

    def open(self, path: str) -> int:
        """A descriptor (the caller closes it) of a member's bytes. KeyError if there is none."""
        return self.source.open(self.catalog().members[path])

    def open_here(self, path: str) -> int | None:
        """As `open`; None where the member would have to be fetched."""
        member = self.catalog().members[path]
        return self.source.open(member) if self.source.is_here(member) else None

    def fetch(self, paths: Iterable[str]) -> None:
        """Bring these onto this machine, over one connection. RomfsError, OSError."""
        members = self.catalog().members
        self.source.fetch([members[path] for path in sorted(paths)])

    def descriptions(self, listed: list[Model]) -> dict[str, Description]:
        """By the models' paths, of those whose pages are on this machine."""
        pages: dict[str, Description] = {}
        for page in {model.page for model in listed if model.page}:
            fd = self.open_here(page)
            if fd is not None:
                with open(fd, "rb") as file:
                    pages[page] = describe(file.read(_MAX_PAGE_BYTES))
        return {model.path: pages[model.page] for model in listed if model.page in pages}


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
        what = f"already there: {' and '.join(existing)}"
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
