"""Names in the image that mean something to the firmware (docs/cameras.md: "Names", "Start")."""

from __future__ import annotations

from romfsfs.convert.types import Diagnostic, Reader, Target, warning

#: Built-in modules that a script of the same name hides: MicroPython registers them as extensible
#: (tried one by one on MicroPython 1.26).
_EXTENSIBLE = frozenset({
    "array", "binascii", "bluetooth", "collections", "cryptolib", "errno", "hashlib", "heapq", "io",
    "json", "machine", "os", "platform", "random", "re", "select", "socket", "struct", "time",
    "websocket",
})  # fmt: skip
_SUFFIXES = (".py", ".mpy")
_PACKAGES = ("/__init__.py", "/__init__.mpy")
#: Bytes searched for the built-in module's u name: no module that extends it is longer.
_MAX_READ = 256 << 10


def name_findings(path: str, read: Reader, size: int, target: Target) -> tuple[Diagnostic, ...]:
    """Warnings about a file that the firmware treats specially, or never finds, by its name.

    OSError of `read`."""
    folder, *nearer = target.here or ("",)
    if path in ("main.py", "boot.py"):
        if folder == "/rom":
            return ()  # openmv-ota's firmware starts them from there
        message = (
            f"stock firmware starts {path} from /flash, not from ROMFS; move its code to "
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
        return ()  # it imports the built-in one by its u name: an extension, meant to hide it
    message = (
        f"hides the firmware's {module} from every `import {module}`; rename it, unless that is "
        f"intended (`import u{module}` gets the built-in one)"
    )
    return (warning("hides-module", message),)


def _files_of(module: str) -> list[str]:
    return [module + suffix for suffix in _SUFFIXES]


def _module(path: str) -> str:
    """The name a file is imported by from /rom or /rom/lib; "" if it is no top-level module."""
    path = path.removeprefix("lib/")
    for ending in (*_PACKAGES, *_SUFFIXES):
        if path.endswith(ending):
            path = path[: -len(ending)]
            return "" if "/" in path else path
    return ""
