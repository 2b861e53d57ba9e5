"""A binding's class FUSE with its slow and its lossy methods replaced.

libfuse's callbacks are methods of the binding's class FUSE. Those replaced here take longer than
all the rest of a request, or drop arguments of libfuse's. The replacements call the operations
with arguments of their own; see `adapter.py` and `file_operations.py`.
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


def fuse_class_of(module: Any, libfuse: int) -> Any:
    """The binding's FUSE, faster where it counts, and passing on what mfusepy drops for libfuse 3.

    Attributes are set field by field, where both bindings go through a dictionary. Read and write
    use libfuse's own buffer, which the bindings copy. For a folder's entries one structure will
    do, since libfuse copies it; the bindings make one for each. RomfsError if a method is missing.
    """

    # A ctypes array would be a new type for each size: 40 us to make, and 2 KB until the garbage
    # collector runs.
    view = ctypes.pythonapi.PyMemoryView_FromMemory
    view.restype = ctypes.py_object
    view.argtypes = ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_int

    def write(self: Any, path: Any, buffer: Any, size: int, offset: int, info: Any) -> int:
        written: int = self.operations.write(view(buffer, size, _READABLE), offset, info.contents)
        return written

    def read(self: Any, path: Any, buffer: Any, size: int, offset: int, info: Any) -> int:
        count: int = self.operations.read(view(buffer, size, _WRITABLE), offset, info.contents)
        return count

    def fallocate(self: Any, path: Any, mode: int, offset: int, length: int, info: Any) -> Any:
        return self.operations.fallocate(None, mode, offset, length, info.contents)

    def readdir(
        self: Any, path: Any, buffer: Any, filler: Any, offset: int, info: Any, *flags: int
    ) -> int:
        entry = module.c_stat()
        pointer = ctypes.pointer(entry)
        rest = (0, *(0 for _ in flags))  # libfuse 3 passes flags, and expects some for each entry
        for name, entry.st_mode, entry.st_ino in self.operations.readdir(info.contents.fh):
            if filler(buffer, name, pointer, *rest) != 0:
                break
        return 0

    methods: dict[str, Any] = {"read": read, "write": write}
    if libfuse == 3:
        methods |= {"getattr_fuse_3": _getattr, "readdir_fuse_3": readdir, **_OF_LIBFUSE_3}
    else:
        methods |= {"getattr": _getattr, "fgetattr": _getattr}
        methods |= {"readdir": readdir, "utimens": _utimens}
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
    """Add libfuse 2.9's operations that fusepy does not know; of these, fallocate is used.

    libfuse is told the size of the structure, and takes operations beyond it for absent.
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


def _text(path: bytes | None) -> str | None:
    return None if path is None else path.decode(ENCODING)


def _handle(info: Any) -> Any:
    return info.contents if info else None


def _getattr(self: Any, path: bytes | None, buffer: Any, info: Any = None) -> int:
    try:
        found: Attributes | os.stat_result = self.operations.getattr(
            None if path is None else path.decode(ENCODING), info.contents if info else None
        )
    except FileNotFoundError:  # precedes every creation: answered here, at less cost
        return -errno.ENOENT
    entry = buffer.contents  # a C `struct stat`, which libfuse has zeroed
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
    return 0


# libfuse 3 gives these the open file instead of its path (nullpath_ok), and gives rename flags.
# mfusepy 3.1 passes on neither: truncating an open file would fail, and exchanging two files would
# remove one of them. The kernel names an open file for ftruncate, and for the mode change that
# comes with it; it changes owners and times by path alone.


def _truncate(self: Any, path: bytes | None, length: int, info: Any) -> Any:
    return self.operations.truncate(_text(path), length, _handle(info))


def _chmod(self: Any, path: bytes | None, mode: int, info: Any) -> Any:
    return self.operations.chmod(_text(path), mode, _handle(info))


def _chown(self: Any, path: bytes | None, uid: int, gid: int, info: Any) -> Any:
    ids = (-1 if value == 0xFFFFFFFF else value for value in (uid, gid))
    return self.operations.chown(_text(path), *ids)


def _utimens(self: Any, path: bytes | None, times: Any, info: Any = None) -> Any:
    return self.operations.utimens(_text(path), times or None)


def _rename(self: Any, old: bytes, new: bytes, flags: int) -> Any:
    return self.operations.rename(_text(old), _text(new), flags)


_OF_LIBFUSE_3 = {
    "truncate_fuse_3": _truncate, "chmod_fuse_3": _chmod, "chown_fuse_3": _chown,
    "utimens_fuse_3": _utimens, "rename_fuse_3": _rename,
}  # fmt: skip
