"""The state of a mounted session at one moment, and the trees of stored bytes below `.romfs/`."""

from __future__ import annotations

import errno
import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from romfsfs.errors import RomfsError
from romfsfs.session.keep.base_image import BaseImage
from romfsfs.session.plan.shadow import Change
from romfsfs.session.plan.status import Status
from romfsfs.session.plan.stored import Stored
from romfsfs.session.session import Session


class Leaf(NamedTuple):
    """A file or folder of a tree. size: bytes, None for a folder. location: None without bytes."""

    size: int | None
    location: Stored | None
    state: str


class LocatedTree:
    """A read-only tree of stored bytes, wherever they lie; shown below `.romfs/`."""

    def __init__(self, session: Session, held: BaseImage, leaves: dict[str, Leaf]) -> None:
        self._session = session
        self.held = held
        self._leaves = leaves
        self._time_ns = time.time_ns()
        self._children: dict[str, list[tuple[str, bool]]] = {"": []}
        for path, leaf in leaves.items():
            folder, _, name = path.rpartition("/")
            self._children.setdefault(folder, []).append((name, leaf.size is None))
            if leaf.size is None:
                self._children.setdefault(path, [])

    def list(self, path: str) -> Iterable[tuple[str, bool]]:
        """(name, whether it is a folder) of each entry of a folder. KeyError if there is none."""
        return self._children[path]

    def stat(self, path: str) -> tuple[bool, int, int] | None:
        """(whether it is a folder, size in bytes, modification time in ns); None: not there."""
        if path == "":
            return True, 0, self._time_ns
        leaf = self._leaves.get(path)
        if leaf is None:
            return None
        return leaf.size is None, leaf.size or 0, self._time_ns

    def open(self, path: str) -> tuple[int, int, int]:
        """(descriptor, which the caller closes, offset, size in bytes) of a file's content.

        KeyError if it is not there; OSError EAGAIN while its conversion is pending, EIO when it
        failed or the bytes cannot be opened."""
        leaf = self._leaves[path]
        if leaf.location is None:
            raise OSError(errno.EAGAIN if leaf.state == "pending" else errno.EIO, leaf.state)
        try:
            return self._session.open_location(leaf.location, self.held)
        except RomfsError as error:
            raise OSError(errno.EIO, str(error)) from error


@dataclass(frozen=True)
class Snapshot:
    """The session's state at one generation. `shadow` and `states` are made on first use."""

    generation: int
    held: BaseImage
    status: Status
    session: Session

    @cached_property
    def shadow(self) -> LocatedTree:
        leaves = {
            entry.stored_as: Leaf(
                None if entry.is_dir else entry.size or 0, entry.location, entry.state
            )
            for entry in self.status.entries
            if entry.stored_as is not None and entry.change not in (Change.DELETED, Change.IGNORED)
        }
        return LocatedTree(self.session, self.held, leaves)

    @cached_property
    def states(self) -> dict[str, str]:
        """The state of each file and folder, by its path in the work tree."""
        return {
            entry.path: "ignored" if entry.change is Change.IGNORED else entry.state
            for entry in self.status.entries
            if entry.change is not Change.DELETED
        }
