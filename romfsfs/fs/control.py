"""The control directory `.romfs/`: reached by its name, not listed in the root.

    shadow/  base/  zoo/            read-only trees of the host
    status  status.json  status.html  log    text, as it was when the file was opened
    writers                         paths of the files open for writing, each ended by a NUL byte
    ctl                             commands, one per line; the write fails if the command does

Files here are opened with direct_io: they change without the kernel's knowledge, so it must not
cache their pages. Shared mappings are therefore refused (ENODEV); reads and private mappings work.
"""

from __future__ import annotations

import errno
import itertools
import os
import stat
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from romfsfs.fs.guard import AskAgain
from romfsfs.fs.tree import refuse, to_text

if TYPE_CHECKING:
    from romfsfs.session.service import OpenWriters, SessionHost
    from romfsfs.session.snapshot import LocatedTree
    from romfsfs.zoo import ZooTree

NAME = ".romfs"
ROOT = "/" + NAME
_BELOW = ROOT + "/"

#: Handles of this directory start here; those of real files are descriptors, which are small.
FIRST_HANDLE = 1 << 32

_TREES, _ZOO = ("shadow", "base"), "zoo"  # the zoo may be absent
_TEXTS = ("status", "status.json", "status.html", "log", "writers")
_CTL = "ctl"
_SNAPSHOT_SECONDS = 1.0  # the kernel caches attributes as long anyway
_COMMAND_BYTES = 4096

_KINDS = 100_000  # paths remembered; the kernel has long dropped earlier ones from its cache


class Attributes(NamedTuple):
    """A result of stat(2), with the field names of `os.stat_result`."""

    st_mode: int
    st_ino: int
    st_nlink: int
    st_uid: int
    st_gid: int
    st_size: int
    st_blocks: int
    st_blksize: int
    st_atime_ns: int
    st_mtime_ns: int
    st_ctime_ns: int


@dataclass
class _Reading:
    """An open text or tree file: `size` bytes of `data`, or of `fd` from `offset`."""

    attributes: Attributes
    data: bytes = b""
    fd: int = -1
    offset: int = 0
    size: int = 0

    def read(self, size: int, offset: int) -> bytes:
        if self.fd < 0:
            return self.data[offset : offset + size]
        size = min(size, self.size - offset)
        return os.pread(self.fd, size, self.offset + offset) if size > 0 else b""

    def write(self, data: bytes) -> None:
        raise refuse(errno.EBADF)

    def flush(self) -> None:
        pass

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)


class _Commands(_Reading):
    """An open `ctl`. A command runs when its line is complete, an unterminated one at close."""

    def __init__(self, attributes: Attributes, run: Callable[[str], None]) -> None:
        super().__init__(attributes)
        self._run = run
        self._pending = b""

    def write(self, data: bytes) -> None:
        *lines, self._pending = (self._pending + data).split(b"\n")
        if len(self._pending) > _COMMAND_BYTES:
            self._pending = b""
            raise refuse(errno.EINVAL)
        for line in lines:
            self._command(line)

    def flush(self) -> None:
        line, self._pending = self._pending, b""
        self._command(line)

    def _command(self, line: bytes) -> None:
        command = line.decode("utf-8", "replace").strip()
        if command:
            self._run(command)


class ControlDirectory:
    """Answers for everything below `.romfs`. Any thread.

    requester: returns the (user id, group id) whose request is being served; None: no check. Even
    on a shared mount, only the mounting user and root may read here or give commands: the trees
    show every file whatever its mode, and the log what is wrong with them.
    """

    def __init__(
        self,
        host: SessionHost,
        open_writers: OpenWriters,
        requester: Callable[[], tuple[int, int]] | None = None,
    ) -> None:
        self._host = host
        self._requester = requester
        self._open_writers = open_writers
        self._numbers = itertools.count(FIRST_HANDLE)
        self._files: dict[int, _Reading] = {}
        self._listings: dict[int, list[tuple[str, bool]]] = {}
        self._snapshots: dict[str, tuple[float, bytes, int]] = {}
        self._kinds: dict[str, bool] = {}  # whether a path was a folder when last asked for
        self._started = time.time_ns()
        self._owner = os.getuid(), os.getgid()

    @staticmethod
    def owns(path: str) -> bool:
        return path == ROOT or path.startswith(_BELOW)

    def attributes(self, path: str) -> Attributes:
        """What stat(2) returns. Raises FileNotFoundError, or AskAgain (see `_check_kind`)."""
        name, _, rest = path[len(_BELOW) :].partition("/")
        if not name:
            return self._made_up(path, stat.S_IFDIR | 0o500, 0, self._started)
        if not rest and (name in _TREES or (name == _ZOO and self._host.zoo() is not None)):
            return self._made_up(path, stat.S_IFDIR | 0o555, 0, self._started)
        if not rest and name == _CTL:
            return self._made_up(path, stat.S_IFREG | 0o200, 0, self._started)
        if not rest and name in _TEXTS:
            data, when = self._snapshot(name, fresh=False)
            return self._made_up(path, stat.S_IFREG | 0o444, len(data), when)
        found = self._tree(name).stat(to_text("/" + rest))
        if found is None:
            raise refuse(errno.ENOENT)
        is_dir, size, mtime = found
        self._check_kind(path, is_dir)
        mode = stat.S_IFDIR | 0o555 if is_dir else stat.S_IFREG | 0o444
        return self._made_up(path, mode, size, mtime)

    def _check_requester(self) -> None:
        """Raise EACCES for other users. Modes do not suffice: `-o umask=0` overrides them."""
        if self._requester is not None and self._requester()[0] not in (0, self._owner[0]):
            raise refuse(errno.EACCES)

    def _check_kind(self, path: str, is_dir: bool) -> None:
        """Raise AskAgain if a file has become a folder, or the reverse, since it was last seen.

        The kernel, which was not told, answers EIO when a path that it caches changes its type.
        """
        if self._kinds.get(path, is_dir) != is_dir:
            self._kinds.pop(path, None)
            raise AskAgain
        if len(self._kinds) >= _KINDS:
            self._kinds.clear()
        self._kinds[path] = is_dir

    def open_dir(self, path: str) -> int:
        """A handle for `listing`, which lists what is there now. OSError: EACCES, ENOENT."""
        self._check_requester()
        name, _, rest = path[len(_BELOW) :].partition("/")
        if not name:
            zoo = () if self._host.zoo() is None else (_ZOO,)
            entries = [(tree, True) for tree in (*_TREES, *zoo)]
            entries += [(file, False) for file in (*_TEXTS, _CTL)]
        else:
            entries = list(_found(self._tree(name).list, to_text("/" + rest)))
        handle = next(self._numbers)
        self._listings[handle] = entries
        return handle

    def listing(self, handle: int) -> list[tuple[str, bool]]:
        return self._listings[handle]

    def close_dir(self, handle: int) -> None:
        self._listings.pop(handle, None)

    def open(self, path: str, flags: int) -> int:
        """A handle for reading a file, or for writing `ctl`. OSError as of open(2)."""
        attributes = self.attributes(path)
        self._check_requester()
        if stat.S_ISDIR(attributes.st_mode):
            raise refuse(errno.EISDIR)
        writing = flags & os.O_ACCMODE != os.O_RDONLY
        name, _, rest = path[len(_BELOW) :].partition("/")
        file: _Reading
        if not rest and name == _CTL:
            if flags & os.O_ACCMODE != os.O_WRONLY:
                raise refuse(errno.EACCES)
            file = _Commands(attributes, self._run)
        elif writing:
            raise refuse(errno.EROFS)
        elif not rest and name in _TEXTS:
            data, when = self._snapshot(name, fresh=True)
            file = _Reading(attributes._replace(st_size=len(data), st_mtime_ns=when), data)
        else:
            fd, offset, size = _found(self._tree(name).open, to_text("/" + rest))
            file = _Reading(attributes._replace(st_size=size), b"", fd, offset, size)
        handle = next(self._numbers)
        self._files[handle] = file
        return handle

    def file(self, handle: int) -> _Reading:
        try:
            return self._files[handle]
        except KeyError:
            raise refuse(errno.EBADF) from None

    def close(self, handle: int) -> None:
        file = self._files.pop(handle, None)
        if file is not None:
            file.close()

    def truncate(self, path: str) -> None:
        """Allowed for `ctl`, which `echo commit > ctl` truncates first; else EROFS."""
        if path != _BELOW + _CTL:
            raise refuse(errno.EROFS)

    def _run(self, command: str) -> None:
        self._host.control(command, self._open_writers)

    def _tree(self, name: str) -> LocatedTree | ZooTree:
        host = self._host
        trees = {"shadow": host.shadow, "base": host.base, _ZOO: host.zoo}
        tree: LocatedTree | ZooTree | None = trees[name]() if name in trees else None
        if tree is None:
            raise refuse(errno.ENOENT)
        return tree

    def _snapshot(self, name: str, *, fresh: bool) -> tuple[bytes, int]:
        """(text, time it was made, in ns); up to `_SNAPSHOT_SECONDS` old unless `fresh`."""
        now = time.monotonic()
        known = self._snapshots.get(name)
        if known is not None and not fresh and now - known[0] < _SNAPSHOT_SECONDS:
            return known[1:]
        host = self._host
        asked: dict[str, Callable[[OpenWriters], str]] = {
            "status": host.status_text, "status.json": host.status_json,
            "status.html": host.status_html, "log": lambda _: host.log_text(),
            "writers": lambda writers: "".join(path + "\0" for path in writers()),
        }  # fmt: skip
        text = asked[name](self._open_writers)
        made = (now, text.encode("utf-8", "surrogateescape"), time.time_ns())
        self._snapshots[name] = made
        return made[1:]

    def _made_up(self, path: str, mode: int, size: int, mtime: int) -> Attributes:
        number = 1 << 48 | zlib.crc32(path.encode("latin-1"))  # unlike any real one
        links, blocks = 2 if stat.S_ISDIR(mode) else 1, (size + 511) // 512
        return Attributes(
            mode, number, links, *self._owner, size, blocks, 4096, mtime, mtime, mtime
        )


def _found(function: Callable[[str], Any], path: str) -> Any:
    """`function(path)`, with ENOENT for the KeyError of a tree that does not hold the path."""
    try:
        return function(path)
    except KeyError:
        raise refuse(errno.ENOENT) from None
