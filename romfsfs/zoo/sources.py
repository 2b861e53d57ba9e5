"""A zoo: a folder, or a zip on this machine or at a URL; and copying models from it into a mount
or a session's work tree.

A folder is a `models/` folder, or one that holds it (the resource folder of an OpenMV IDE); a zip
likewise, at any depth. Of a zip at a URL only the files that are opened are fetched.
"""

from __future__ import annotations

import contextlib
import os
import stat
import threading
import time
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from romfsfs.errors import RomfsError, UsageError
from romfsfs.ide.archive import Zip
from romfsfs.system.files import CHUNK, Progress, named, no_progress, replace_atomically
from romfsfs.zoo.catalog import Catalog
from romfsfs.zoo.index import BoardFilter, parse_index
from romfsfs.zoo.members import (
    INDEX,
    MAX_FILES,
    Description,
    Member,
    Model,
    checked_path,
    describe,
    is_model,
    is_wanted,
    label_name,
)

#: Seconds between two checks for changes: a listing asks for the catalog at every file.
_CHECK_SECONDS = 1.0
_MAX_INDEX_BYTES = 4 << 20
_MAX_PAGE_BYTES = 1 << 20
_INNER = ("models", "share/qtcreator/models", "Contents/Resources/models")


class Zoo:
    """A folder or a zip with its catalog, scanned at the first use and after changes.

    name: for messages. Any thread. RomfsError and OSError if it cannot be read.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._lock = threading.Lock()
        self._catalog: Catalog | None = None
        self._checked = 0.0

    def _changed(self) -> bool:
        """Whether the last scan may be outdated. Cheap. Called with the lock."""
        raise NotImplementedError

    def _scan(self) -> tuple[dict[str, Member], str]:
        """All files by path, and for messages the place of `index.csv`. Called with the lock."""
        raise NotImplementedError

    def _files(self, members: Sequence[Member]) -> list[Path]:
        """Paths of files with these members' bytes, fetched over one connection if need be."""
        raise NotImplementedError

    def _is_here(self, member: Member) -> bool:
        """Whether `_files` would fetch nothing."""
        return True

    def catalog(self) -> Catalog:
        with self._lock:
            now = time.monotonic()
            if self._catalog is not None and now - self._checked < _CHECK_SECONDS:
                return self._catalog
            if self._catalog is None or self._changed():
                members, where = self._scan()
                self._catalog = Catalog(members, self._filter(members.get(INDEX), where))
            self._checked = now
            return self._catalog

    def _filter(self, index: Member | None, where: str) -> BoardFilter:
        if index is None:
            return BoardFilter()
        if index.size > _MAX_INDEX_BYTES:
            raise _not_a_zoo("its index.csv is too large", self.name)
        with open(self._opened(index), "rb") as file:
            return parse_index(file.read(_MAX_INDEX_BYTES).decode("utf-8", "replace"), where)

    def _opened(self, member: Member) -> int:
        (path,) = self._files([member])
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def open(self, path: str) -> int:
        """Open a member, fetched if need be; the caller closes the descriptor. KeyError if there
        is no such member."""
        return self._opened(self.catalog().members[path])

    def open_here(self, path: str) -> int | None:
        """As `open`; None where the member would have to be fetched."""
        member = self.catalog().members[path]
        return self._opened(member) if self._is_here(member) else None

    def fetch(self, paths: Iterable[str]) -> None:
        """Fetch members, over one connection. KeyError, RomfsError, OSError."""
        members = self.catalog().members
        self._files([members[path] for path in sorted(paths)])

    def descriptions(self, listed: list[Model]) -> dict[str, Description]:
        """Descriptions by model path, of models whose pages are on this machine."""
        pages: dict[str, Description] = {}
        for page in {model.page for model in listed if model.page}:
            fd = self.open_here(page)
            if fd is not None:
                with open(fd, "rb") as file:
                    pages[page] = describe(file.read(_MAX_PAGE_BYTES))
        return {model.path: pages[model.page] for model in listed if model.page in pages}


class FolderZoo(Zoo):
    """A folder on this machine: `models/`, one that holds it, or where an IDE is installed."""

    def __init__(self, folder: Path) -> None:
        inner = (folder / name for name in _INNER)
        self._root = next((path for path in inner if path.is_dir()), folder)
        self._seen: dict[str, int] = {}
        super().__init__(str(self._root))

    def _changed(self) -> bool:
        try:
            return any(os.stat(path).st_mtime_ns != time for path, time in self._seen.items())
        except OSError:
            return True

    def _scan(self) -> tuple[dict[str, Member], str]:
        members: dict[str, Member] = {}
        seen: dict[str, int] = {}
        for folder, folders, names in os.walk(self._root):
            folders[:] = [name for name in folders if not name.startswith(".")]
            seen[folder] = os.stat(folder).st_mtime_ns
            prefix = os.path.relpath(folder, self._root) + "/" if folder != str(self._root) else ""
            for name in names:
                path = prefix + name
                if is_wanted(path) and not name.startswith("."):
                    with contextlib.suppress(FileNotFoundError):  # a dangling link
                        status = os.stat(os.path.join(folder, name))
                        if stat.S_ISREG(status.st_mode):
                            members[path] = Member(path, status.st_size, status.st_mtime_ns)
            if len(members) + len(seen) > MAX_FILES:
                raise _not_a_zoo(f"more than {MAX_FILES:,} files", self.name)
        index = self._root / INDEX
        if index.is_file():
            seen[str(index)] = os.stat(index).st_mtime_ns
        self._seen = seen
        return members, str(index)

    def _files(self, members: Sequence[Member]) -> list[Path]:
        return [self._root / member.path for member in members]


class ZipZoo(Zoo):
    """A zip on this machine or at a URL; members are kept in the cache once they are opened."""

    def __init__(self, archive: Zip) -> None:
        super().__init__(archive.name)
        self._archive = archive
        self._identity = ""
        self._infos: dict[str, zipfile.ZipInfo] = {}

    def _changed(self) -> bool:
        return self._archive.identity() != self._identity

    def _scan(self) -> tuple[dict[str, Member], str]:
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
        now = time.time_ns()  # dates in a zip may be invalid
        members = {path: Member(path, info.file_size, now) for path, info in infos.items()}
        return members, f"{self.name}, {root}{INDEX}"

    def _files(self, members: Sequence[Member]) -> list[Path]:
        return self._archive.keep([self._infos[member.path] for member in members])

    def _is_here(self, member: Member) -> bool:
        return self._archive.is_kept(self._infos[member.path])


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


class Copy(NamedTuple):
    """A file to add. source: its path in the zoo. name: in the directory. size in bytes."""

    source: str
    name: str
    size: int


def copies(zoo: Zoo, model: Model, name: str = "", *, labels: bool = True) -> list[Copy]:
    """The files to copy for a model: the model, as `name` if given, and its labels under the name
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

    RomfsError, with nothing written, if one of them exists and not `force`. OSError from the
    directory or the source.
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
        # The mount converts it at the rename. A kill before leaves a temporary file, which is
        # never packed (`junk.txt`).
        with replace_atomically(directory / copy.name, 0o666) as target:
            target.writelines(_pieces(zoo, copy.source))
        done += copy.size
        progress("copying", done, total)


def _pieces(zoo: Zoo, path: str) -> Iterator[bytes]:
    """A member's bytes. An OSError names the zoo, not the file that they are written to."""
    with open(zoo.open(path), "rb") as file, named(f"{zoo.name}, {path}"):
        while data := file.read(CHUNK):
            yield data
