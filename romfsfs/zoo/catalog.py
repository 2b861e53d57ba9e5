"""The models of a zoo for a board, and finding one by what people type."""

from __future__ import annotations

from collections.abc import Mapping

from romfsfs.errors import RomfsError, UsageError
from romfsfs.zoo.index import BoardFilter
from romfsfs.zoo.members import Member, Model, models, stem


class Catalog:
    """What a zoo held when it was scanned. Any thread.

    `models` and `find` run the patterns of its `index.csv` the first time they get a board, which
    may take seconds: hold no lock. If the patterns fail, then and each later time RomfsError.
    """

    def __init__(self, members: Mapping[str, Member], rules: BoardFilter) -> None:
        self.members = members
        self._rules = rules
        self._models = models(members)
        self._shown: dict[str | None, set[str] | RomfsError] = {}

    def models(self, board: str | None) -> list[Model]:
        """The models for a board (its folder name; None: all of them), sorted by path."""
        if board not in self._shown:
            try:
                paths = [model.path for model in self._models]
                self._shown[board] = set(self._rules.shown(paths, board))
            except RomfsError as error:  # kept: another run would take as long and fail too
                self._shown[board] = error
        shown = self._shown[board]
        if isinstance(shown, RomfsError):
            raise shown
        return [model for model in self._models if model.path in shown]

    def find(self, text: str, board: str | None) -> Model:
        """The one model that `text` names: its path, its file name or stem, the end of its path,
        or a folder with one model. A match in case wins over one in any case.

        UsageError if none or several match: it lists those, or the closest names.
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
