"""The models of a zoo for a board, and finding one by what people type."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping

from romfsfs.errors import RomfsError, UsageError
from romfsfs.zoo.index import BoardFilter, parse_index
from romfsfs.zoo.members import Member, Model, models, stem
from romfsfs.zoo.pages import Description, describe
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
