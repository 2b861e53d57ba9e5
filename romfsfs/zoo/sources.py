"""Where a zoo's files come from: a folder, a zip, or a listing of files at a URL.

A folder is a `models/` folder, or one that holds it (the resource folder of an OpenMV IDE); a zip
likewise, at any depth. A listing (`index.json`) lies at the root of a models folder on a server:

    {"format": "romfsfs-zoo-1",
     "files": [{"path": "openmv/face/fomo/fomo.tflite", "size": 54321, "sha256": "..."}, ...]}

path: below the listing's own URL; size in bytes. `index.csv`, if it is listed, filters as in a
folder (alone it lists nothing, it holds only patterns). `romfsfs zoo index` writes one.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from romfsfs.errors import RomfsError
from romfsfs.system.files import (
    CHUNK,
    cache_dir,
    digest_bytes,
    digest_file,
    make_private_dir,
    replace_atomically,
)
from romfsfs.zoo.members import (
    INDEX,
    MAX_FILE_BYTES,
    MAX_FILES,
    Member,
    checked_path,
    is_model,
    is_wanted,
)

FORMAT = "romfsfs-zoo-1"
_MAX_INDEX_BYTES = 4 << 20
#: What zipfile raises, one time or another, for a zip that is damaged. RuntimeError: encrypted.
_DAMAGED = (
    OSError, EOFError, RuntimeError, ValueError, OverflowError, struct.error, zlib.error,
    zipfile.BadZipFile, zipfile.LargeZipFile,
)  # fmt: skip
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


class FolderSource:
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
        seen = {str(self.root): os.stat(self.root).st_mtime_ns}
        for folder, folders, names in os.walk(self.root):
            folders[:] = [name for name in folders if not name.startswith(".")]
            for each in folders:
                path = os.path.join(folder, each)
                seen[path] = os.lstat(path).st_mtime_ns
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
        text = _decoded(index.read_bytes()) if index.is_file() else None
        return _scan(members, text, str(index))

    def open(self, member: Member) -> int:
        return os.open(self.root / member.path, os.O_RDONLY | os.O_CLOEXEC)


class ZipSource:
    """A zip on this machine; its files are extracted to the cache when they are opened."""

    def __init__(self, path: Path, name: str = "") -> None:
        self._path = path
        self._name = name or str(path)
        self._stamp: tuple[int, ...] = ()
        self._infos: dict[str, zipfile.ZipInfo] = {}

    @property
    def name(self) -> str:
        return self._name

    def changed(self) -> bool:
        return _stamp(self._path) != self._stamp

    def scan(self) -> Scan:
        stamp = _stamp(self._path)
        with self._opened() as archive:
            listed = [info for info in archive.infolist() if not info.filename.endswith("/")]
            if len(listed) > MAX_FILES:
                raise _not_a_zoo(f"more than {MAX_FILES:,} files", self.name)
            for info in listed:
                checked_path(info.filename, self.name)
            files = [info for info in listed if not stat.S_ISLNK(info.external_attr >> 16)]
            root = _zip_root([info.filename for info in files])
            infos = {
                info.filename[len(root) :]: info
                for info in files
                if info.filename.startswith(root) and is_wanted(info.filename[len(root) :])
            }
            index = infos.get(INDEX)
            text = None
            if index is not None:
                if index.file_size > _MAX_INDEX_BYTES:
                    raise _not_a_zoo("its index.csv is too large", self.name)
                text = _decoded(b"".join(self._chunks(archive, index)))
        self._stamp, self._infos = stamp, infos
        members = {path: Member(path, i.file_size, stamp[2]) for path, i in infos.items()}
        return _scan(members, text, f"{self.name}, {root}{INDEX}")

    def open(self, member: Member) -> int:
        from romfsfs.zoo.download import locked  # flock and HTTP: only where something is fetched

        info = self._infos[member.path]
        if info.file_size > MAX_FILE_BYTES:
            raise RomfsError(
                f"a file of {info.file_size:,} bytes: no model is that large",
                where=f"{self.name}, {info.filename}",
            )
        # Identity of the bytes without reading them: this zip as it is now, and the place in it.
        key = (*self._stamp, str(self._path), info.header_offset, info.CRC, info.file_size)
        target = files_cache() / digest_bytes(repr(key).encode(errors="surrogateescape"))
        if not target.exists():
            with locked(target):
                if not target.exists():
                    self._extract(info, target)
        return os.open(target, os.O_RDONLY | os.O_CLOEXEC)

    def _extract(self, info: zipfile.ZipInfo, target: Path) -> None:
        with self._opened() as archive, replace_atomically(target) as out:
            for data in self._chunks(archive, info):
                out.write(data)

    def _chunks(self, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[bytes]:
        """The bytes of a file, never more than it declares, its CRC compared."""
        where = f"{self.name}, {info.filename}"
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise _damaged(where, f"compression method {info.compress_type} is not supported")
        left = info.file_size
        try:
            with archive.open(info) as file:
                while data := file.read(CHUNK):
                    left -= len(data)
                    yield data
        except _DAMAGED as error:
            raise _damaged(where, error) from error
        if left:
            raise _damaged(where, "its size is not as declared")

    def _opened(self) -> zipfile.ZipFile:
        try:
            return zipfile.ZipFile(self._path)
        except FileNotFoundError:
            raise
        except _DAMAGED as error:
            raise _damaged(self.name, error) from error


class ListingSource:
    """Files listed by an `index.json` at a URL; each is downloaded when it is opened."""

    def __init__(self, listing: Path, url: str) -> None:
        self._listing = listing
        self._url = url
        self._stamp: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        return self._url

    def changed(self) -> bool:
        return _stamp(self._listing) != self._stamp

    def entries(self) -> list[Any]:
        """What the listing says of each file. RomfsError if it is none."""
        if self._listing.stat().st_size > _MAX_INDEX_BYTES:
            raise _not_a_zoo("its listing is too large", self.name)
        return _listed(self._listing.read_bytes(), self.name)

    def scan(self) -> Scan:
        stamp = _stamp(self._listing)
        members = {}
        for entry in self.entries():
            member = _member(entry, self.name, stamp[2])
            if is_wanted(member.path):
                members[member.path] = member
        text = None
        if INDEX in members:
            fd = self.open(members[INDEX])
            with open(fd, "rb") as file:
                text = _decoded(file.read(_MAX_INDEX_BYTES))
        self._stamp = stamp
        return _scan(members, text, f"{INDEX} beside {self.name}")

    def open(self, member: Member) -> int:
        from urllib.parse import quote, urljoin

        from romfsfs.zoo.download import download

        url = urljoin(self._url, quote(member.path))
        fetched = download(
            url, files_cache() / member.digest, sha256=member.digest, size=member.size
        )
        return os.open(fetched.path, os.O_RDONLY | os.O_CLOEXEC)


def make_listing(folder: Path) -> str:
    """The `index.json` for a models folder (or one that holds it), for a server."""
    source = FolderSource(folder)
    members = source.scan().members
    files = [
        {"path": path, "size": members[path].size, "sha256": digest_file(source.root / path)}
        for path in sorted(members)
    ]
    return json.dumps({"format": FORMAT, "files": files}, indent=1) + "\n"


def is_zip(path: Path) -> bool:
    """`zipfile.is_zipfile` raises for some that are damaged; opening those says what is wrong."""
    try:
        return zipfile.is_zipfile(path)
    except (zipfile.BadZipFile, struct.error):
        return True


def files_cache() -> Path:
    """Where single files of zips and servers are kept; disposable."""
    return make_private_dir(make_private_dir(cache_dir()) / "zoo" / "files")


def _listed(data: bytes, where: str) -> list[Any]:
    next_step = "give a resource zip, or an index.json that romfsfs zoo index wrote"
    try:
        record = json.loads(data)
    except (ValueError, RecursionError) as error:
        what = "neither a zip nor a listing of a zoo"
        if data.lstrip().startswith((b"#", b'"')):
            what = "an index.csv holds patterns and lists no files"
        raise RomfsError(what, where=where, next_step=next_step) from error
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise RomfsError("not a listing of a zoo", where=where, next_step=next_step)
    files = record.get("files")
    if not isinstance(files, list) or len(files) > MAX_FILES:
        raise _not_a_zoo("its listing has no files, or too many", where)
    return files


def _member(entry: Any, where: str, mtime_ns: int) -> Member:
    try:
        path, size, digest = entry["path"], entry["size"], entry["sha256"]
        valid = isinstance(size, int) and len(bytes.fromhex(digest)) == 32 and bool(path)
    except (TypeError, KeyError, ValueError):
        valid = False
    if not valid or not 0 <= size <= MAX_FILE_BYTES:
        raise RomfsError(f"its listing has a wrong entry: {str(entry)[:80]}", where=where)
    return Member(checked_path(str(path), where), size, mtime_ns, digest.lower())


def _zip_root(names: list[str]) -> str:
    """The folder of a zip that is the zoo: the outermost `models/` with a model in it, else the
    outermost folder with an `index.csv`, else the whole."""
    roots = {
        name[: name.index("models/") + len("models/")]
        for name in names
        if is_model(name) and (name.startswith("models/") or "/models/" in name)
    } or {name[: -len(INDEX)] for name in names if name == INDEX or name.endswith("/" + INDEX)}
    return min(roots, key=lambda root: (root.count("/"), root), default="")


def _scan(members: dict[str, Member], text: str | None, where: str) -> Scan:
    return Scan(members, None if text is None else (text, where))


def _stamp(path: Path) -> tuple[int, ...]:
    status = os.stat(path)
    return status.st_ino, status.st_size, status.st_mtime_ns


def _decoded(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _not_a_zoo(why: str, where: str) -> RomfsError:
    return RomfsError(
        f"not a model zoo: {why}",
        where=where,
        next_step="choose a resource folder, zip or listing with --from",
    )


def _damaged(where: str, why: object) -> RomfsError:
    return RomfsError(f"cannot read the zip: {why}", where=where, next_step="get it again")
