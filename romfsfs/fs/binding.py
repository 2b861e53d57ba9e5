"""Which FUSE binding and library a mount uses, and the little that differs between them.

fusepy (module `fuse`, libfuse 2) is required; mfusepy, its fork, is used for libfuse 3.
`$ROMFSFS_FUSE` (fusepy, mfusepy or auto) chooses; auto is mfusepy where it is installed and a
libfuse 3 that does not deadlock can be loaded (see `request_loop.py`), else fusepy.

Both look for their library with `ctypes.util.find_library`, which runs compilers, and mfusepy
prefers libfuse 2. So the library is found here and passed in `$FUSE_LIBRARY_PATH`. Its major
version is checked: the wrong one would be called with the wrong structures.

Names are passed as Latin-1, one character per byte: fusepy decodes strictly, and a name that is
not valid UTF-8 would end in EINVAL.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import os
import sys
from collections.abc import Mapping
from typing import Any

from romfsfs.errors import RomfsError, UsageError
from romfsfs.fs.ending import Ending
from romfsfs.fs.fuse_class import ENCODING, add_operations_of_29, fuse_class_of
from romfsfs.fs.guard import guarded
from romfsfs.fs.request_loop import MENDED, main_2
from romfsfs.system import programs

_OPERATIONS = (
    "access", "chmod", "chown", "create", "destroy", "fallocate", "flush", "fsync", "fsyncdir",
    "getattr", "getxattr", "init", "link", "listxattr", "mkdir", "mknod", "open", "opendir",
    "read", "readdir", "release", "releasedir", "removexattr", "rename", "rmdir", "setxattr",
    "statfs", "symlink", "truncate", "unlink", "utimens", "write",
)  # fmt: skip

#: binding: (module, major version of libfuse, what pip installs); the preferred one first
_BINDINGS = {"mfusepy": ("mfusepy", 3, "'romfsfs[fuse3]'"), "fusepy": ("fuse", 2, "fusepy")}
_LIBRARIES = {2: ("libfuse.so.2",), 3: ("libfuse3.so.4", "libfuse3.so.3")}

# <fuse_common.h>, FUSE_CAP_...
_AUTO_INVAL_DATA = 1 << 12
_READDIRPLUS = 1 << 13
_READDIRPLUS_AUTO = 1 << 14


class _Operations:
    """The operations as a binding wants them: guarded attributes, and flags for libfuse.

    flag_utime_omit_ok: without it `touch -m` silently does nothing. flag_nopath and
    flag_nullpath_ok: operations on an open file come without its path, which saves building it
    and works when the file's folder is gone. use_ns: times are integers in nanoseconds.
    """

    use_ns = True
    flag_utime_omit_ok = 1
    flag_nullpath_ok = 1
    flag_nopath = 1

    def __init__(self, adapter: object) -> None:
        for name in _OPERATIONS:
            setattr(self, name, guarded(name, getattr(adapter, name)))


class _Operations2(_Operations):
    """For fusepy, which calls the object itself; mfusepy warns if the object is callable."""

    def __call__(self, operation: str, *args: Any) -> Any:
        return self.__dict__[operation](*args)


class _Operations3(_Operations):
    """For mfusepy: libfuse 3 lets `init` adjust the connection."""

    def __init__(self, adapter: Any, max_read: int | None, ending: Ending) -> None:
        super().__init__(adapter)

        def init(connection: Any, config: Any) -> None:
            ending.begin()
            if max_read is not None:
                connection.max_read = max_read  # unless both agree, libfuse exits after mounting
            # READDIRPLUS would need a stat per entry; without attributes it only makes listings
            # longer. mfusepy cannot fill in attributes anyway.
            connection.want &= ~(_READDIRPLUS | _READDIRPLUS_AUTO)
            # With it the kernel drops a file's pages whenever it sees a new mtime, even during a
            # write: pages read back before that write arrives are stale, and a shared mapping
            # writes them over the new data. `auto_cache` checks at open only, as with libfuse 2.
            connection.want &= ~_AUTO_INVAL_DATA
            adapter.init("/")

        def destroy(path: str) -> None:
            ending.forget()
            adapter.destroy(path)

        self.init_with_config = guarded("init", init)
        self.destroy = guarded("destroy", destroy)


class Binding:
    """A loaded binding. name: fusepy or mfusepy. libfuse: (major, minor) version of the library."""

    def __init__(self, name: str, module: Any, libfuse: tuple[int, int]) -> None:
        self.name = name
        self.libfuse = libfuse
        self._module = module

    def run(self, adapter: object, mountpoint: str, options: Mapping[str, str | bool]) -> None:
        """Mount and serve until unmounted; for the main thread, as it sets signal handlers.

        Raises RuntimeError when libfuse could not mount (the reason is on standard error), with
        libfuse 3 also after a signal; RomfsError for a library or binding that lacks a function.
        options: as for `-o`, True for those without a value.
        """
        library = self._module._libfuse
        # The object in which the binding looks up libfuse's `fuse_main_real`.
        owner = self._module if self.libfuse >= (3,) else library
        theirs = owner.fuse_main_real
        if self.libfuse >= (3,):
            limit = str(options.get("max_read", ""))
            ending = Ending(library)
            operations: _Operations = _Operations3(
                adapter, int(limit) if limit.isdecimal() else None, ending
            )
            ours = ending.around(theirs)
        else:
            operations = _Operations2(adapter)
            if sys.platform.startswith("linux") and self.libfuse >= (2, 9):
                add_operations_of_29(self._module)
            ours = main_2(library)
        texts = {key: _bytewise(text) for key, text in options.items() if isinstance(text, str)}
        owner.fuse_main_real = ours
        try:
            # In the foreground: the daemon has forked already, before it started threads.
            fuse_class_of(self._module, self.libfuse[0])(
                operations, _bytewise(mountpoint), raw_fi=True, encoding=ENCODING,
                foreground=True, **{**options, **texts},
            )  # fmt: skip
        finally:
            owner.fuse_main_real = theirs

    def caller(self) -> tuple[int, int]:
        """(user id, group id) of the process whose request this thread is serving."""
        uid, gid, _ = self._module.fuse_get_context()
        return uid, gid


def load_binding(wanted: str | None = None) -> Binding:
    """The binding to use; `wanted` defaults to `$ROMFSFS_FUSE`, else auto.

    Raises UsageError for an unknown name, RomfsError with the command that installs what is
    missing.
    """
    wanted = wanted or os.environ.get("ROMFSFS_FUSE") or "auto"
    if wanted != "auto" and wanted not in _BINDINGS:
        what, next_step = f"no FUSE binding is called {wanted!r}", "use fusepy, mfusepy or auto"
        raise UsageError(what, where="$ROMFSFS_FUSE", next_step=next_step)
    needed = "libfuse" if wanted == "auto" else f"libfuse {_BINDINGS[wanted][1]}"
    problem = RomfsError(f"{needed} is not installed", next_step=install_command())
    for name, (module, major, package) in _BINDINGS.items():
        if wanted not in ("auto", name):
            continue
        installed = importlib.util.find_spec(module) is not None
        if not installed and wanted == name:
            what = f"the FUSE binding {name} is not installed"
            raise RomfsError(what, next_step=f"pip install {package}")
        library = _find_library(major)
        if library is None or (major == 3 and not sys.platform.startswith("linux")):
            continue  # mfusepy speaks libfuse 3 on Linux only
        path, version = library
        shown = ".".join(map(str, version))
        if major == 3 and version < MENDED:  # its loop cannot be replaced by ours
            problem = RomfsError(
                f"libfuse {shown} is not used: before {MENDED[0]}.{MENDED[1]}, simultaneous "
                "renames can deadlock a mount", next_step=install_command(),
            )  # fmt: skip
        elif not installed:
            what = f"libfuse {shown} is installed, but its Python binding is not"
            next_step = f"pip install {package} (with pipx: pipx inject romfsfs {name})"
            problem = RomfsError(what, next_step=next_step)
        else:
            return Binding(name, _import(module, path), version)
    raise problem


def _find_library(major: int) -> tuple[str, tuple[int, int]] | None:
    """(name, version) of a libfuse of this major version that can be loaded, or None."""
    given = os.environ.get("FUSE_LIBRARY_PATH")
    names = [given] if given else list(_LIBRARIES[major])
    if not given and not sys.platform.startswith("linux"):
        # Not on Linux, where find_library runs ldconfig and gcc for the same answer.
        import ctypes.util

        stems = ("fuse", "osxfuse", "fuse-t") if major == 2 else ("fuse3",)
        names += filter(None, map(ctypes.util.find_library, stems))
    for name in names:
        version = _version(name)
        if version is not None and version[0] == major:
            return name, version
    return None


def _version(library: str) -> tuple[int, int] | None:
    """(major, minor) of a libfuse, or None when it cannot be loaded."""
    try:
        version: int = ctypes.CDLL(library).fuse_version()
    except (OSError, AttributeError):
        return None
    return divmod(version, 10 if version < 100 else 100)


def _import(name: str, library: str) -> Any:
    before = os.environ.get("FUSE_LIBRARY_PATH")
    os.environ["FUSE_LIBRARY_PATH"] = library
    try:
        module = importlib.import_module(name)
    finally:
        del os.environ["FUSE_LIBRARY_PATH"]
        if before is not None:
            os.environ["FUSE_LIBRARY_PATH"] = before
    if not hasattr(module, "FUSE") or not hasattr(module, "fuse_get_context"):
        # The package fuse-python installs a module `fuse` too, a different one.
        what = f"the installed Python module `{name}` is not the FUSE binding fusepy"
        next_step = "pip uninstall fuse-python && pip install --force-reinstall fusepy"
        raise RomfsError(what, where=str(getattr(module, "__file__", name)), next_step=next_step)
    return module


def install_command() -> str:
    """How to install libfuse on this system."""
    return programs.install_command(
        "fuse3 libfuse2",
        {"brew": "--cask macfuse", "dnf": "fuse3 fuse fuse-libs", "pacman": "fuse3 fuse2",
         "zypper": "fuse3 fuse libfuse2", "apk": "fuse3 fuse", "pkg": "fusefs-libs"},
    )  # fmt: skip


def _bytewise(text: str) -> str:
    return os.fsencode(text).decode(ENCODING)
