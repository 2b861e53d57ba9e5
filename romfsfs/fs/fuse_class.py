"""A binding's class FUSE with its hot and its lossy methods replaced.

What a binding calls when libfuse calls it are methods of its class FUSE; those here replace the
ones that take longer than all the rest of a request, or drop what libfuse passed. They call the
operations with arguments of their own; see `adapter.py` and `file_operations.py`.
"""

from __future__ import annotations

import ctypes
import errno
import os
from typing import Any

from romfsfs.errors import RomfsError
from romfsfs.fs.control import Attributes

#: One character per byte, so that every name passes through unharmed.
ENCODING = "latin-1"

# <cpython/memoryobject.h>: PyBUF_READ, PyBUF_WRITE
_READABLE, _WRITABLE = 0x100, 0x200


def fuse_class_of(module: Any, libfuse: int) -> Any:  # noqa: C901 (it holds what libfuse calls)
    """The binding's FUSE, quicker where it counts, and with what mfusepy drops for libfuse 3.

    Attributes are filled in field by field, where both bindings go through a dictionary, for as
    long as all the rest of the request. Reading and writing use libfuse's own buffer, which they
    copy. They make a new structure for each entry of a folder; one will do, since libfuse
    copies it.
    """

    # A ctypes array would be a type of its own for each size: 40 us to make, and 2 KB until the
    # garbage collector comes.
    view = ctypes.pythonapi.PyMemoryView_FromMemory
    view.restype = ctypes.py_object
    view.argtypes = ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_int

    def fgetattr(self: Any, path: bytes | None, buffer: Any, info: Any) -> int:
        try:
            found = self.operations.getattr(
                None if path is None else path.decode(ENCODING), info.contents if info else None
            )
        except FileNotFoundError:  # the answer before anything is created
            return -errno.ENOENT
        _fill(buffer.contents, found)
        return 0

    def getattr_2(self: Any, path: bytes, buffer: Any) -> int:
        return fgetattr(self, path, buffer, None)

    def write(self: Any, path: Any, buffer: Any, size: int, offset: int, info: Any) -> int:
        written: int = self.operations.write(view(buffer, size, _READABLE), offset, info.contents)
        return written

    def read(self: Any, path: Any, buffer: Any, size: int, offset: int, info: Any) -> int:
        count: int = self.operations.read(view(buffer, size, _WRITABLE), offset, info.contents)
        return count

    def fallocate(self: Any, path: Any, mode: int, offset: int, length: int, info: Any) -> Any:
        return self.operations.fallocate(None, mode, offset, length, info.contents)

    def utimens_2(self: Any, path: bytes, times: Any) -> Any:
        return self.operations.utimens(path.decode(ENCODING), times or None)

    def readdir_2(self: Any, path: Any, buffer: Any, filler: Any, offset: int, info: Any) -> int:
        entry = module.c_stat()
        pointer = ctypes.pointer(entry)
        for name, entry.st_mode, entry.st_ino in self.operations.readdir(info.contents.fh):
            if filler(buffer, name, pointer, 0) != 0:
                break
        return 0

    def readdir_3(
        self: Any, path: Any, buffer: Any, filler: Any, offset: int, info: Any, flags: int
    ) -> int:
        entry = module.c_stat()
        pointer = ctypes.pointer(entry)
        for name, entry.st_mode, entry.st_ino in self.operations.readdir(info.contents.fh):
            if filler(buffer, name, pointer, 0, 0) != 0:
                break
        return 0

    methods: dict[str, Any] = {"read": read, "write": write}
    if libfuse == 3:
        methods |= {"getattr_fuse_3": fgetattr, "readdir_fuse_3": readdir_3, **_with_handles()}
    else:
        methods |= {"getattr": getattr_2, "fgetattr": fgetattr}
        methods |= {"readdir": readdir_2, "utimens": utimens_2}
    for name in methods:
        if not hasattr(module.FUSE, name):
            raise RomfsError(
                f"this version of the FUSE binding {module.__name__} is not supported",
                where=f"it has no FUSE.{name}", next_step="ROMFSFS_FUSE=fusepy romfsfs mount ...",
            )  # fmt: skip
    if not hasattr(module.FUSE, "fallocate"):
        methods["fallocate"] = fallocate
    return type("Fuse", (module.FUSE,), methods)


def add_operations_of_29(fusepy: Any) -> None:
    """Give fusepy the operations that libfuse 2.9 has and it does not know; used is fallocate.

    libfuse is told how long the structure is, and takes what is not in it for absent.
    """
    known = fusepy.fuse_operations._fields_
    if any(field[0] == "fallocate" for field in known):
        return
    # <fuse/fuse.h>, struct fuse_operations
    unused = [(name, ctypes.c_void_p) for name in ("poll", "write_buf", "read_buf", "flock")]
    information = ctypes.POINTER(fusepy.fuse_file_info)
    numbers = ctypes.c_int, ctypes.c_int64, ctypes.c_int64
    prototype = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_char_p, *numbers, information)
    fields = [*known, *unused, ("fallocate", prototype)]
    fusepy.fuse_operations = type("fuse_operations", (ctypes.Structure,), {"_fields_": fields})


def _fill(entry: Any, found: Attributes | os.stat_result) -> None:
    """Fill in a C `struct stat`, which libfuse has zeroed."""
    entry.st_mode = found.st_mode
    entry.st_ino = found.st_ino
    entry.st_nlink = found.st_nlink
    entry.st_uid = found.st_uid
    entry.st_gid = found.st_gid
    entry.st_size = found.st_size
    entry.st_blocks = found.st_blocks
    entry.st_blksize = found.st_blksize
    for time, nanoseconds in (
        (entry.st_atimespec, found.st_atime_ns),
        (entry.st_mtimespec, found.st_mtime_ns),
        (entry.st_ctimespec, found.st_ctime_ns),
    ):
        time.tv_sec, time.tv_nsec = divmod(nanoseconds, 1_000_000_000)


def _with_handles() -> dict[str, Any]:
    """Methods of mfusepy's FUSE for libfuse 3, passing on what mfusepy drops.

    libfuse 3 gives these calls the open file instead of its path (nullpath_ok) and gives rename
    flags; mfusepy 3.1 passes neither on: truncating an open file would fail, and an exchange of
    two files would remove one of them.
    """

    def handle(info: Any) -> Any:
        return info.contents if info else None

    def text(path: bytes | None) -> str | None:
        return None if path is None else path.decode(ENCODING)

    def truncate(self: Any, path: bytes | None, length: int, info: Any) -> Any:
        return self.operations.truncate(text(path), length, handle(info))

    def chmod(self: Any, path: bytes | None, mode: int, info: Any) -> Any:
        return self.operations.chmod(text(path), mode, handle(info))

    def chown(self: Any, path: bytes | None, uid: int, gid: int, info: Any) -> Any:
        ids = (-1 if value == 0xFFFFFFFF else value for value in (uid, gid))
        return self.operations.chown(text(path), *ids, handle(info))

    def utimens(self: Any, path: bytes | None, times: Any, info: Any) -> Any:
        return self.operations.utimens(text(path), times or None, handle(info))

    def rename(self: Any, old: bytes, new: bytes, flags: int) -> Any:
        return self.operations.rename(text(old), text(new), flags)

    return {
        "truncate_fuse_3": truncate,
        "chmod_fuse_3": chmod,
        "chown_fuse_3": chown,
        "utimens_fuse_3": utimens,
        "rename_fuse_3": rename,
    }
