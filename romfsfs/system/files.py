"""Small file-system helpers that every part shares: atomic replacement, syncing, locks, digests.

Digests are SHA-256 in lower-case hexadecimal everywhere: cameras with hashlib can compute the
same one (docs/cameras.md), and CPUs have instructions for it (about 1 GiB/s here, twice
BLAKE2b's speed).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO, cast

from romfsfs.errors import RomfsError

#: phase ("reading", "erasing", ...), bytes or items done, total (0 where it is not known)
Progress = Callable[[str, int, int], None]

CHUNK = 1 << 20
#: files below this size are read in one call
SMALL = 1 << 16
EMPTY_DIGEST = hashlib.sha256().hexdigest()


def no_progress(phase: str, done: int, total: int) -> None:
    """A `Progress` that shows nothing."""


@contextlib.contextmanager
def opened(path: str | os.PathLike[str], flags: int = 0) -> Iterator[int]:
    """A descriptor for reading a file, or for work below a folder; closed after the block."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | flags)
    try:
        yield fd
    finally:
        os.close(fd)


def opened_folder(path: str | os.PathLike[str]) -> contextlib.AbstractContextManager[int]:
    """As `opened`, for a folder. OSError if it is none."""
    return opened(path, os.O_DIRECTORY)


def sync_dir(path: str | os.PathLike[str]) -> None:
    """Make a rename or creation in this folder durable."""
    _sync(path, os.O_DIRECTORY)


#: Syncing more files than this one by one takes longer than syncing the whole file system.
_FEW = 24
#: Longer paths may be beyond PATH_MAX.
_LONG = 1000


def sync_paths(
    root: str | os.PathLike[str], files: Iterable[str] = (), names: Iterable[str] = ()
) -> None:
    """Make the bytes of these files below `root` durable, and the creation or removal of these
    names. Missing ones are left out. OSError."""
    files, folders = set(files), set[str]()
    for name in names:
        folder = name
        while folder:  # a folder above may be new too
            folder = folder.rpartition("/")[0]
            folders.add(folder)
    if len(files) + len(folders) > _FEW or any(len(path) > _LONG for path in files | folders):
        sync_file_system(root)
        return
    for path in [*sorted(files), *sorted(folders, key=len, reverse=True)]:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            _sync(os.path.join(root, path), os.O_NOFOLLOW | os.O_NONBLOCK)


def _sync(path: str | os.PathLike[str], flags: int) -> None:
    with opened(path, flags) as fd, named(path):
        try:
            os.fsync(fd)
        except OSError as error:
            # There are file systems that sync no folders: VirtualBox's, older SMB.
            if error.errno != errno.EINVAL or not stat.S_ISDIR(os.fstat(fd).st_mode):
                raise


@contextlib.contextmanager
def named(path: str | os.PathLike[str]) -> Iterator[None]:
    """Name this path in an OSError of the block that names none."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = os.fspath(path)
        raise


def sync_file_system(path: str | os.PathLike[str]) -> None:
    """Sync the whole file system of this folder: one call for any number of files. OSError."""
    import ctypes

    syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
    if syncfs is None:  # macOS
        os.sync()
        return
    with opened_folder(path) as fd:
        if syncfs(fd) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), os.fspath(path))


@contextlib.contextmanager
def replace_atomically(
    path: str | os.PathLike[str], mode: int = 0o600, *, durable: bool = True
) -> Iterator[BinaryIO]:
    """A file to write; it becomes `path`, durably, when the block ends without an exception.

    Temporary file in the same folder, fsync, rename, fsync of the folder: whatever happens,
    `path` is the old file or the new one. The temporary file is removed on failure, and with the
    next success if the process was killed. durable: False, for one of many files, syncs nothing
    and looks for no such leftovers. RomfsError if `path` is a device or a fifo (`/dev/null`),
    which a rename would replace. OSError.
    """
    target = os.fspath(path)
    check_plain(target)
    folder, name = os.path.split(target)
    fd, temporary = _create(os.path.join(folder, _stem(name)), mode)
    try:
        with named(target), open(fd, "w+b") as file:
            yield cast(BinaryIO, file)
            file.flush()
            if durable:
                os.fsync(file.fileno())
            os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    if durable:
        remove_temporaries(folder or ".", name)
        sync_dir(folder or ".")


#: What `replace_atomically` calls a file until it is complete; nothing else makes such names.
TEMPORARY = re.compile(r"(.+)\.romfsfs-[0-9a-f]{16}\.tmp")
#: bytes of a name that leave room for this suffix: no name has more than 255
_LONGEST_STEM = 226


def remove_temporaries(folder: str | os.PathLike[str], name: str = "") -> None:
    """Remove the temporary files that killed processes left in this folder (only those of the file
    `name`, if given). What is in use or cannot be removed stays."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            found = TEMPORARY.fullmatch(entry.name)
            if found and _stem(name) in ("", found[1]) and entry.is_file(follow_symlinks=False):
                with contextlib.suppress(OSError):  # gone, in use, or in /tmp another user's
                    _remove_unused(entry.path)


def _remove_unused(path: str) -> None:
    """OSError if the process that writes it is alive: it holds a lock, which unlike a pid says so
    across containers too."""
    with opened(path, os.O_NOFOLLOW | os.O_NONBLOCK) as fd:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.unlink(path)


def _stem(name: str) -> str:
    encoded = os.fsencode(name)
    return name if len(encoded) <= _LONGEST_STEM else digest_bytes(encoded)


def check_plain(path: str | os.PathLike[str]) -> None:
    """RomfsError unless `path` is a plain file (or a link to one), or does not exist."""
    with contextlib.suppress(OSError):  # the error of using it says more
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise RomfsError(
                "neither a file nor a camera",
                where=os.fspath(path),
                next_step="give the name of a file; '-' is standard input or output",
            )


def _create(stem: str, mode: int) -> tuple[int, str]:
    """Create and lock a file under a name that nobody can guess: in a shared folder others could
    put a link there. Tries anew if another process took it for a leftover before it was locked."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    while True:
        path = f"{stem}.romfsfs-{os.urandom(8).hex()}.tmp"
        fd = os.open(path, flags, mode)
        if _lock(fd, path):
            return fd, path
        os.close(fd)


def _lock(fd: int, path: str) -> bool:
    """Lock a temporary file; False: `_remove_unused` has it, or it is gone."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks, where nobody removes it
        return True
    try:
        return os.path.samestat(os.fstat(fd), os.lstat(path))
    except FileNotFoundError:
        return False


def lock_within(fd: int, seconds: float) -> bool:
    """Take the `flock` of an open file, waiting for so many seconds; whether it was taken. OSError
    on a file system without such locks."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(_LOCK_PAUSE)


#: Seconds between two tries to take a lock.
_LOCK_PAUSE = 0.005


def digest_bytes(data: bytes | bytearray | memoryview) -> str:
    """The SHA-256 of these bytes, by which images, sources and results are known."""
    return hashlib.sha256(data).hexdigest()


def digest_fd(fd: int, offset: int = 0, size: int | None = None) -> str:
    """The digest of `size` bytes (None: to the end) of an open file, without moving its position.

    Reads in chunks, so memory stays flat whatever the size.
    """
    small = os.pread(fd, SMALL if size is None else min(size, SMALL), offset)
    if len(small) < SMALL:  # all of it: most files are this small, and there may be thousands
        return hashlib.sha256(small).hexdigest()
    digest = hashlib.sha256()
    buffer = bytearray(CHUNK)
    view = memoryview(buffer)
    left = size
    while left is None or left > 0:
        want = CHUNK if left is None else min(CHUNK, left)
        count = os.preadv(fd, [view[:want]], offset)
        if count == 0:
            break
        digest.update(view[:count])
        offset += count
        if left is not None:
            left -= count
    return digest.hexdigest()


def digest_file(path: str | os.PathLike[str]) -> str:
    """The digest of a whole file."""
    with opened(path) as fd:
        return digest_fd(fd)
