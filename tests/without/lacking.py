"""Takes away what macOS lacks, from romfsfs alone: tests and the standard library keep it.

`scripts/test --without` runs the tests in a copy of the checkout with a .venv of its own, whose
`lacking.pth` imports this at the start of every Python: the tests' own and those that they start.
"""

from __future__ import annotations

import ctypes
import os
import resource
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

#: what macOS's standard library lacks, by its module
_NAMES = {
    os: ("O_PATH", "O_TMPFILE", "copy_file_range", "posix_fadvise", "memfd_create", "pidfd_open",
         "splice", "POSIX_FADV_DONTNEED"),
    resource: ("prlimit",),
}  # fmt: skip
#: functions of the C library that macOS has not
_FUNCTIONS = ("renameat2", "syncfs", "mallopt", "statx", "prlimit", "copy_file_range")
_find_function = ctypes.CDLL.__getattr__


def _is_ours() -> bool:
    """Whether romfsfs asks, itself or through the standard library."""
    frame = sys._getframe(2)
    library = os.path.dirname(os.__file__)
    while frame is not None:
        name = str(frame.f_globals.get("__name__", ""))
        if name.split(".")[0] == "romfsfs":
            return True
        file = frame.f_code.co_filename
        if not (file.startswith((library, "<frozen")) or file == __file__) or "-packages" in file:
            return False
        frame = frame.f_back  # type: ignore[assignment]
    return False


def _without(library: ctypes.CDLL, name: str) -> Any:
    if name in _FUNCTIONS and _is_ours():
        raise AttributeError(name)
    return _find_function(library, name)


def _keep_from_us(module: ModuleType, names: Sequence[str]) -> None:
    kept = {name: vars(module).pop(name) for name in names if name in vars(module)}

    class Lacking(ModuleType):
        def __getattr__(self, name: str) -> Any:
            asks = str(sys._getframe(1).f_globals.get("__name__"))
            if name not in kept or asks.split(".")[0] == "romfsfs":
                raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")
            return kept[name]

    module.__class__ = Lacking


ctypes.CDLL.__getattr__ = _without  # type: ignore[method-assign]


def _in_proc(path: object) -> bool:
    text = os.fsdecode(path) if isinstance(path, (str, bytes, os.PathLike)) else ""
    # What is mounted a Mac tells by another way, which is not this machine's.
    return text.startswith("/proc") and not text.endswith(("/mountinfo", "/mounts"))


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if event in ("open", "os.listdir", "os.scandir") and _in_proc(arguments[0]) and _is_ours():
        raise FileNotFoundError(2, "taken away", str(arguments[0]))


def _hidden(call: Callable[..., Any]) -> Callable[..., Any]:
    def asked(path: Any, *rest: Any, **options: Any) -> Any:
        if _in_proc(path) and _is_ours():
            raise FileNotFoundError(2, "taken away", str(path))
        return call(path, *rest, **options)

    return asked


for _module, _module_names in _NAMES.items():
    _keep_from_us(_module, _module_names)
sys.addaudithook(_hook)
for _name in ("stat", "lstat", "readlink", "truncate"):
    setattr(os, _name, _hidden(getattr(os, _name)))
