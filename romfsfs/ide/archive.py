"""A zip of resources, on this machine or at a URL: the list of its members, and members as files.

Members are kept in a folder for each zip below `<cache dir>/resources/`, and checked against their
CRC-32 before they are used again. Folders that are not used for 90 days are removed. A zip is not
trusted: sizes are limited, and damage is an error.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import lzma
import os
import struct
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from romfsfs.errors import RomfsError, UsageError
from romfsfs.system.files import CHUNK, Progress, digest_bytes, no_progress, replace_atomically
from romfsfs.system.removal import discard_folder
from romfsfs.system.user_folders import cache_dir, make_private_dir

#: More than any camera's partition; a larger file is a mistake, or a zip bomb.
MAX_FILE_BYTES = 256 << 20
#: What zipfile may raise for a zip that is damaged, encrypted or not supported.
DAMAGED: tuple[type[Exception], ...] = (
    OSError, EOFError, KeyError, RuntimeError, ValueError, OverflowError, struct.error, zlib.error,
    lzma.LZMAError, zipfile.BadZipFile, zipfile.LargeZipFile,
)  # fmt: skip
#: Those of an OSError: zipfile seeks to where a damaged one says, and a decoder may give none.
_DAMAGED_ERRNOS = (None, errno.EINVAL)
_UNUSED_SECONDS = 90 * 86_400.0


def _unasked(what: str) -> None:
    raise UsageError(f"you have not agreed to download {what}", next_step="see: romfsfs zoo list")


@dataclass(frozen=True, slots=True)
class Fetching:
    """What may be fetched. agree: called before the first contact with a server that the user did
    not name; raises to refuse it. offline: use only what is kept. update: ask the server for a
    newer version of what is kept."""

    agree: Callable[[str], None] = _unasked
    offline: bool = False
    update: bool = False
    progress: Progress = no_progress


class Missing(RomfsError):
    """The server has no such file."""


@dataclass(frozen=True, slots=True)
class Zip:
    """name: its path or URL. opened: opens it to read. identity: changes with its contents; OSError
    if the file is gone. damaged: what reading it may raise."""

    name: str
    opened: Callable[[], AbstractContextManager[zipfile.ZipFile]]
    identity: Callable[[], str]
    damaged: tuple[type[Exception], ...] = DAMAGED

    @property
    def folder(self) -> Path:
        """Where members are kept. Made anew if it was unused for long. RomfsError, OSError."""
        return zip_folder(self.name)

    def infos(self) -> list[zipfile.ZipInfo]:
        """Its members that are files. RomfsError, OSError."""
        with self._open() as archive:
            return [each for each in archive.infolist() if not each.filename.endswith("/")]

    def keep(self, infos: Sequence[zipfile.ZipInfo]) -> list[Path]:
        """Files with these members' bytes, extracted unless kept already. RomfsError, OSError."""
        folder = self.folder
        paths = [folder / _kept_name(info) for info in infos]
        pairs = zip(paths, infos, strict=True)
        missing = [(path, info) for path, info in pairs if not _is_whole(path, info)]
        if missing:
            with self._open() as archive:  # once: over one connection
                for path, info in missing:
                    if not _is_whole(path, info):  # another thread may have made it by now
                        self._extract(archive, info, path)
        return paths

    def is_kept(self, info: zipfile.ZipInfo) -> bool:
        return _is_whole(self.folder / _kept_name(info), info)

    def _extract(self, archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> None:
        where = f"{self.name}, {info.filename}"
        if info.file_size > MAX_FILE_BYTES:
            what = f"a file of {info.file_size:,} bytes: no camera can hold that"
            raise RomfsError(what, where=where)
        with replace_atomically(path) as out:
            for data in self._read(archive, info, where):
                out.write(data)  # what fails here is no fault of the zip

    def _read(self, archive: zipfile.ZipFile, info: zipfile.ZipInfo, where: str) -> Iterator[bytes]:
        left = info.file_size
        with self._worded(where):
            _check_supported(info)
            with archive.open(info) as file:
                while data := file.read(CHUNK):
                    left -= len(data)
                    yield data
            if left:
                raise ValueError("its size is not as declared")

    @contextlib.contextmanager
    def _open(self) -> Iterator[zipfile.ZipFile]:
        with contextlib.ExitStack() as stack:
            with self._worded(self.name):
                archive = stack.enter_context(self.opened())
            yield archive

    @contextlib.contextmanager
    def _worded(self, where: str) -> Iterator[None]:
        try:
            yield
        except self.damaged as error:
            if isinstance(error, OSError) and error.errno not in _DAMAGED_ERRNOS:
                raise  # of a disk, on which parts of a zip at a URL are written too
            what = f"cannot read the zip: {error}"
            raise RomfsError(what, where=where, next_step="download it again") from error


def local_zip(path: Path) -> Zip:
    """A zip on this machine."""

    def identity() -> str:
        status = os.stat(path)
        return repr((status.st_ino, status.st_size, status.st_mtime_ns))

    return Zip(str(path), lambda: zipfile.ZipFile(path), identity)


def is_zip(path: Path) -> bool:
    """Whether it is a zip; True for one that is so damaged that `zipfile.is_zipfile` raises:
    opening it says what is wrong."""
    try:
        return zipfile.is_zipfile(path)
    except (zipfile.BadZipFile, struct.error):
        return True


def zip_folder(where: str) -> Path:
    """The folder of a zip (its path or URL) in the cache, made if need be; its time is that of its
    last use. Making one removes those not used for `_UNUSED_SECONDS`. RomfsError, OSError."""
    parent = make_private_dir(make_private_dir(cache_dir()) / "resources")
    folder = parent / digest_bytes(where.encode(errors="surrogateescape"))[:32]
    if not folder.is_dir():
        for other in parent.iterdir():
            with contextlib.suppress(OSError):
                if time.time() - other.stat().st_mtime > _UNUSED_SECONDS:
                    discard_folder(other)
    make_private_dir(folder)
    with contextlib.suppress(OSError):  # a cache that can only be read
        os.utime(folder)
    return folder


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, against other threads and processes; blocks until it is free."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(folder / "lock", flags, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _check_supported(info: zipfile.ZipInfo) -> None:
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        # Others allocate as much memory as the zip says, up to 4 GiB, before the first byte.
        raise ValueError(f"compression method {info.compress_type} is not supported")


def _kept_name(info: zipfile.ZipInfo) -> str:
    name = digest_bytes(info.filename.encode(errors="surrogateescape"))[:16]
    return f"{name}-{info.CRC:08x}-{info.file_size}"


def _is_whole(path: Path, info: zipfile.ZipInfo) -> bool:
    crc = 0
    try:
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_size != info.file_size:
                return False
            while data := file.read(CHUNK):
                crc = zlib.crc32(data, crc)
    except FileNotFoundError:
        return False
    return crc == info.CRC
