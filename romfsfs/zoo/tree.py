"""The zoo as a folder: `.romfs/zoo/` in a mount, to copy from with a file manager.

Shows a board's models with their labels and no other file, so that a whole folder can be copied.
Nothing is scanned before a folder is listed, and no file is downloaded before it is opened. A zoo
at a URL appears once `romfsfs zoo list` has looked it up.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
import time
from collections.abc import Iterable

from romfsfs.errors import RomfsError
from romfsfs.zoo.catalog import Catalog
from romfsfs.zoo.choose import chosen, open_known
from romfsfs.zoo.members import Member
from romfsfs.zoo.sources import Zoo

log = logging.getLogger(__name__)

#: Seconds for which the chosen source is not looked up again: a mount asks at every access to
#: `.romfs`.
_CHOICE_SECONDS = 2.0

_lock = threading.Lock()
_trees: dict[tuple[str, str, str | None], ZooTree] = {}
_choice: tuple[float, Zoo | None] = (float("-inf"), None)


def open_zoo(board: str | None) -> ZooTree | None:
    """The chosen zoo with the models for this board (None: all); None if there is no zoo here.

    Cheap; call it whenever the tree is needed, so that another choice (`zoo list --from`) is
    seen. Any thread.
    """
    global _choice
    with _lock:
        if time.monotonic() - _choice[0] > _CHOICE_SECONDS:
            _choice = (time.monotonic(), _chosen())
        zoo = _choice[1]
        if zoo is None:
            return None
        key = (type(zoo).__name__, zoo.name, board)
        if key not in _trees:
            _trees[key] = ZooTree(zoo, board)
        return _trees[key]


def _chosen() -> Zoo | None:
    try:
        return open_known(chosen())
    except (RomfsError, OSError) as error:
        log.warning("the model zoo: %s", error)
        return None


class ZooTree:
    """A zoo's models for one board, with the methods of `LocatedTree`. Any thread. OSError (EIO) if
    the zoo cannot be read."""

    def __init__(self, zoo: Zoo, board: str | None) -> None:
        self._zoo = zoo
        self._board = board
        self._known: _View | None = None
        self._time_ns = time.time_ns()

    def list(self, path: str) -> Iterable[tuple[str, bool]]:
        return self._view().children[path]

    def stat(self, path: str) -> tuple[bool, int, int] | None:
        if path == "":
            return True, 0, self._time_ns  # no scan: programs stat what they never open
        view = self._view()
        if path in view.children:
            return True, 0, self._time_ns
        member = view.files.get(path)
        return None if member is None else (False, member.size, member.mtime_ns)

    def open(self, path: str) -> tuple[int, int, int]:
        if path not in self._view().files:
            raise KeyError(path)
        try:
            fd = self._zoo.open(path)
        except RomfsError as error:
            raise _refused(error) from error
        return fd, 0, os.fstat(fd).st_size

    def _view(self) -> _View:
        try:
            catalog = self._zoo.catalog()
            known = self._known
            if known is None or known.catalog is not catalog:
                self._known = known = _View(catalog, self._board)
        except (RomfsError, OSError) as error:
            raise _refused(error) from error
        return known


class _View:
    """The files and folders of a catalog that a board sees."""

    def __init__(self, catalog: Catalog, board: str | None) -> None:
        self.catalog = catalog
        self.files: dict[str, Member] = {}
        self.children: dict[str, list[tuple[str, bool]]] = {"": []}
        for model in catalog.models(board):
            for path in (model.path, model.label):
                if path is not None:
                    self.files[path] = catalog.members[path]
        for path in sorted(self.files):
            self._place(path, False)

    def _place(self, path: str, is_dir: bool) -> None:
        folder, _, name = path.rpartition("/")
        if folder not in self.children:
            self.children[folder] = []
            self._place(folder, True)
        self.children[folder].append((name, is_dir))


def _refused(error: Exception) -> OSError:
    log.warning("the model zoo: %s", error)
    return OSError(errno.EIO, str(error))
