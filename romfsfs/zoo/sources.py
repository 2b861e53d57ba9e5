"""Where a zoo's files come from: a folder, or a zip on this machine or at a URL.

A folder is a `models/` folder, or one that holds it (the resource folder of an OpenMV IDE); a zip
likewise, at any depth. Of a zip at a URL only the files that are opened are fetched.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from romfsfs.errors import RomfsError
from romfsfs.ide.archive import Zip
from romfsfs.zoo.members import INDEX, MAX_FILES, Member, checked_path, is_model, is_wanted

_MAX_INDEX_BYTES = 4 << 20
_INNER = ("models", "share/qtcreator/models", "Contents/Resources/models")


class Scan(NamedTuple):
    """members by path. rules: (text of `index.csv`, where that is), None if there is none."""

    members: dict[str, Member]
    rules: tuple[str, str] | None


class Source(Protocol):
    """Files by path. `changed` and `scan` are called under the zoo's lock, `open` is not."""

    @property
    def name(self) -> str:
        """The source, to show."""
        ...

    def changed(self) -> bool:
        """Whether what the last scan gave may be outdated; cheap."""
        ...

    def scan(self) -> Scan:
        """All files now. RomfsError, OSError."""
        ...

    def open(self, member: Member) -> int:
        """A descriptor of its bytes, which the caller closes. RomfsError, OSError."""
        ...

    def fetch(self, members: Sequence[Member]) -> None:
        """Bring these onto this machine, over one connection. RomfsError, OSError."""
        return

    def is_here(self, member: Member) -> bool:
        """Whether `open` would fetch nothing."""
        return True


class FolderSource(Source):
    """A folder on this machine: `models/`, one that holds it, or where an IDE is installed."""

    def __init__(self, folder: Path) -> None:
        inner = (folder / name for name in _INNER)
        self.root = next((path for path in inner if path.is_dir()), folder)
        self._seen: dict[str, int] = {}

    @property
    def name(self) -> str:
        return str(self.root)

    def changed(self) -> bool:
        try:
            return any(os.stat(path).st_mtime_ns != time for path, time in self._seen.items())
        except OSError:
            return True

    def scan(self) -> Scan:
        members: dict[str, Member] = {}
        seen: dict[str, int] = {}
        for folder, folders, names in os.walk(self.root):
            folders[:] = [name for name in folders if not name.startswith(".")]
            seen[folder] = os.stat(folder).st_mtime_ns
            prefix = os.path.relpath(folder, self.root) + "/" if folder != str(self.root) else ""
            for name in names:
                path = prefix + name
                if is_wanted(path) and not name.startswith("."):
                    with contextlib.suppress(FileNotFoundError):  # a dangling link
                        status = os.stat(os.path.join(folder, name))
                        if stat.S_ISREG(status.st_mode):
                            members[path] = Member(path, status.st_size, status.st_mtime_ns)
            if len(members) + len(seen) > MAX_FILES:
                raise _not_a_zoo(f"more than {MAX_FILES:,} files", self.name)
        index = self.root / INDEX
        if index.is_file():
            seen[str(index)] = os.stat(index).st_mtime_ns
        self._seen = seen
        return Scan(members, _rules(self, members, str(index)))

    def open(self, member: Member) -> int:
        return os.open(self.root / member.path, os.O_RDONLY | os.O_CLOEXEC)


class ZipSource(Source):
    """A zip on this machine or at a URL; its files are kept in the cache when they are opened."""

    def __init__(self, archive: Zip) -> None:
        self._archive = archive
        self._identity = ""
        self._infos: dict[str, zipfile.ZipInfo] = {}

    @property
    def name(self) -> str:
        return self._archive.name

    def changed(self) -> bool:
        return self._archive.identity() != self._identity

    def scan(self) -> Scan:
        identity = self._archive.identity()
        listed = self._archive.infos()
        if len(listed) > MAX_FILES:
            raise _not_a_zoo(f"more than {MAX_FILES:,} files", self.name)
        for info in listed:
            checked_path(info.filename, self.name)
        files = [info for info in listed if not stat.S_ISLNK(info.external_attr >> 16)]
        root = _zip_root([info.filename for info in files])
        below = [info for info in files if info.filename.startswith(root)]
        inside = {info.filename[len(root) :]: info for info in below}
        infos = {path: info for path, info in inside.items() if is_wanted(path)}
        self._identity, self._infos = identity, infos
        now = time.time_ns()  # the dates in a zip may be none
        members = {path: Member(path, info.file_size, now) for path, info in infos.items()}
        return Scan(members, _rules(self, members, f"{self.name}, {root}{INDEX}"))

    def open(self, member: Member) -> int:
        (path,) = self._archive.keep([self._infos[member.path]])
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def fetch(self, members: Sequence[Member]) -> None:
        self._archive.keep([self._infos[member.path] for member in members])

    def is_here(self, member: Member) -> bool:
        return self._archive.is_kept(self._infos[member.path])


def _rules(source: Source, members: dict[str, Member], where: str) -> tuple[str, str] | None:
    index = members.get(INDEX)
    if index is None:
        return None
    if index.size > _MAX_INDEX_BYTES:
        raise _not_a_zoo("its index.csv is too large", source.name)
    with open(source.open(index), "rb") as file:
        return file.read(_MAX_INDEX_BYTES).decode("utf-8", "replace"), where


def _zip_root(names: list[str]) -> str:
    """The folder of a zip that is the zoo: the outermost `models/` with a model in it, else the
    outermost folder with an `index.csv`, else the whole."""
    roots = {
        name[: name.index("models/") + len("models/")]
        for name in names
        if is_model(name) and (name.startswith("models/") or "/models/" in name)
    } or {name[: -len(INDEX)] for name in names if name == INDEX or name.endswith("/" + INDEX)}
    return min(roots, key=lambda root: (root.count("/"), root), default="")


def _not_a_zoo(why: str, where: str) -> RomfsError:
    next_step = "choose a resource folder or zip with --from"
    return RomfsError(f"not a model zoo: {why}", where=where, next_step=next_step)
