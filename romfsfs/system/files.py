"""Small file-system helpers that every part shares: where state lives, atomic replacement, digests.

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
from pathlib import Path
from typing import BinaryIO, cast

from romfsfs.errors import RomfsError
from romfsfs.system.private import check_private, trusted_users

#: phase ("reading", "erasing", ...), bytes or items done, total (0 where it is not known)
Progress = Callable[[str, int, int], None]

CHUNK = 1 << 20
#: files below this size are read in one call
SMALL = 1 << 16
EMPTY_DIGEST = hashlib.sha256().hexdigest()


def no_progress(phase: str, done: int, total: int) -> None:
    """A `Progress` that shows nothing."""


def state_dir() -> Path:
    """Where sessions live: `$ROMFSFS_STATE_DIR`, else the system's place for program state."""
    return _user_dir("ROMFSFS_STATE_DIR", "user_state_path")


def cache_dir() -> Path:
    """Where disposable results live: `$ROMFSFS_CACHE_DIR`, else the system's cache folder."""
    return _user_dir("ROMFSFS_CACHE_DIR", "user_cache_path")


def config_dir() -> Path | None:
    """Where the user's configuration lives: `$ROMFSFS_CONFIG_DIR`, else the system's place for it;
    None if no home folder is known. RomfsError if others could change what is in it."""
    if not os.environ.get("ROMFSFS_CONFIG_DIR") and not os.path.isabs(os.path.expanduser("~")):
        return None
    return _user_dir("ROMFSFS_CONFIG_DIR", "user_config_path")


def _user_dir(variable: str, getter: str) -> Path:
    """RomfsError if no home folder is known, or if others could change what is in this folder: it
    is read as well as written."""
    chosen = os.environ.get(variable)
    if chosen:
        path = Path(chosen).absolute()
    else:
        import platformdirs

        try:
            path = Path(getattr(platformdirs, getter)("romfsfs", appauthor=False))
        except RuntimeError:  # older ones give a path that begins with ~
            path = Path("~")
        if not path.is_absolute():
            raise _homeless(f"${variable}")
    check_private(path)
    return path


def home_dir(variable: str) -> Path:
    """The user's home folder. RomfsError if it is not known, as for a container's user without a
    name. variable: what the message suggests to set instead of $HOME."""
    path = Path(os.path.expanduser("~"))
    if not path.is_absolute():
        raise _homeless(variable)
    return path


def _homeless(variable: str) -> RomfsError:
    return RomfsError(
        "your home folder is not known", where=f"user {os.getuid()}",
        next_step=f"set $HOME, or {variable} to a folder of yours",
    )  # fmt: skip


def make_private_dir(path: Path) -> Path:
    """Make `path` and its missing parents for this user alone (0700), whatever the umask.

    RomfsError if others could put things into it, or another folder in its place
    (`check_private`).
    """
    check_private(path.absolute())
    try:
        _make_durable_dir(path)
    except FileNotFoundError:
        make_private_dir(path.parent)
        with contextlib.suppress(FileExistsError):
            _make_durable_dir(path)
    except FileExistsError:
        check_private(path.absolute())  # others may just have made it
    return path


def _make_durable_dir(path: Path) -> None:
    """Sync the parent too: what is synced in a folder is lost if the folder's own name is."""
    path.mkdir(mode=0o700)
    with contextlib.suppress(PermissionError):  # a parent that may be entered, not listed
        sync_dir(path.parent)


def remove_folder(path: Path) -> None:
    """Remove a folder of ours with all that is in it; nothing if it does not exist. OSError.

    `shutil.rmtree` recurses, cannot name what lies deeper than PATH_MAX, and is stopped by a folder
    that its owner may not enter or write to: a user or a tool can leave all three. So inner folders
    are moved up until none holds another. A link is removed, not its target.

    All work is relative to descriptors: a link that is swapped in meanwhile raises OSError and is
    not followed. PermissionError for a folder of another user (`trusted_users`).
    """
    if path.parent.exists():
        # O_PATH: it may not be readable.
        with opened(path.parent, getattr(os, "O_PATH", 0) | os.O_DIRECTORY) as parent:
            _remove_folder(parent, path.name)


def _remove_folder(parent: int, name: str) -> None:
    try:
        if not stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
            os.unlink(name, dir_fd=parent)
            return
    except FileNotFoundError:
        return
    root = _entered(parent, name)
    try:
        if os.fstat(root).st_uid not in trusted_users():
            raise PermissionError(errno.EPERM, "the folder belongs to another user", name)
        _empty(root)
    finally:
        os.close(root)
    os.rmdir(name, dir_fd=parent)


def _empty(root: int) -> None:
    mark = os.urandom(8).hex()
    pending = ["."]
    moved = 0
    while pending:
        name = pending.pop()
        folder = _entered(root, name)
        try:
            with os.scandir(folder) as entries:
                inside = [(each.name, each.is_dir(follow_symlinks=False)) for each in entries]
            for each, is_folder in inside:
                if not is_folder:
                    os.unlink(each, dir_fd=folder)
                elif name == ".":
                    pending.append(each)
                else:
                    moved += 1
                    os.close(_entered(folder, each))  # a folder must be writable to be moved
                    os.rename(each, f"{mark}-{moved}", src_dir_fd=folder, dst_dir_fd=root)
                    pending.append(f"{mark}-{moved}")
        finally:
            os.close(folder)
        if name != ".":
            os.rmdir(name, dir_fd=root)


def _entered(parent: int, name: str) -> int:
    """Open a folder, and give its owner all rights (0700). OSError if it is a link by now."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(name, flags, dir_fd=parent)
    except PermissionError:  # its mode forbids its owner, who is not root and alone in `parent`
        os.chmod(name, 0o700, dir_fd=parent)
        fd = os.open(name, flags, dir_fd=parent)
    with contextlib.suppress(PermissionError):  # another user's, which can go if it is empty
        os.fchmod(fd, 0o700)
    return fd


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


def discard_folder(path: Path) -> None:
    """`remove_folder`, as far as possible: errors are ignored."""
    with contextlib.suppress(OSError):
        remove_folder(path)


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
