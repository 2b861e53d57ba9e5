"""Names in the image that mean something to the firmware (docs/cameras.md: "Names", "Start")."""

from __future__ import annotations

from romfsfs.convert.types import Diagnostic, Reader, Target, warning

#: Built-in modules that a script of the same name hides (MicroPython registers them as
#: extensible; tried one by one on MicroPython 1.26).
_EXTENSIBLE = frozenset({
    "array", "binascii", "bluetooth", "collections", "cryptolib", "errno", "hashlib", "heapq", "io",
    "json", "machine", "os", "platform", "random", "re", "select", "socket", "struct", "time",
    "websocket",
})  # fmt: skip
_SUFFIXES = (".py", ".mpy")
_PACKAGES = ("/__init__.py", "/__init__.mpy")
#: A module that extends the built-in one is longer than it takes to say so, and no longer.
_MAX_READ = 256 << 10


def name_findings(path: str, read: Reader, size: int, target: Target) -> tuple[Diagnostic, ...]:
    """What the firmware does with a file because of its name."""
    folder, *nearer = target.here or ("",)
    if path in ("main.py", "boot.py"):
        if folder == "/rom":
            return ()  # openmv-ota's firmware
        message = (
            f"stock firmware starts {path} from /flash, not from ROMFS; keep what it does in "
            f"another module, and import that in /flash/{path}"
        )
        return (warning("not-started", message),)
    module = _module(path)
    hiding = [name for name in nearer if module and name in (module, *_files_of(module))]
    if hiding:
        message = (
            f"{folder.rstrip('/')}/{hiding[0]} on the camera hides it: `import {module}` takes "
            "that one; delete or rename it there"
        )
        return (warning("hidden", message),)
    if module not in _EXTENSIBLE:
        return ()
    if f"u{module}".encode() in read(0, min(size, _MAX_READ)):
        return ()  # it takes the built-in one by its u name: an extension, made to be found first
    message = (
        f"hides the firmware's {module} from every `import {module}`; rename it, unless that is "
        f"intended (`import u{module}` gets the built-in one)"
    )
    return (warning("hides-module", message),)


def _files_of(module: str) -> list[str]:
    return [module + suffix for suffix in _SUFFIXES]


def _module(path: str) -> str:
    """What a file is imported as from /rom or /rom/lib; "" when it is no top-level module."""
    path = path.removeprefix("lib/")
    for ending in (*_PACKAGES, *_SUFFIXES):
        if path.endswith(ending):
            path = path[: -len(ending)]
            return "" if "/" in path else path
    return ""
