"""Environment variables that name files and folders."""

from __future__ import annotations

import contextlib
import os

#: Of these, a text that begins with `~` is a path below a home folder.
_WITH_HOME = frozenset({"ROMFSFS_IDE_RESOURCES", "ROMFSFS_ZOO"})
#: Variables with one path.
_PLACES = (
    "ROMFSFS_STATE_DIR", "ROMFSFS_CACHE_DIR", "ROMFSFS_CONFIG_DIR", *sorted(_WITH_HOME),
    "STEDGEAI_CORE_DIR", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE",
)  # fmt: skip
#: Variables with several, as PATH has them.
_LISTS = ("PATH", "ROMFSFS_PORTS")


def make_absolute() -> None:
    """Make the paths in these variables absolute, for this process and those that it starts.

    A relative path means one below the current folder. A mount's daemon works in `/`, as do the
    programs that it starts, and `umount` leaves the mount that it was called in: without this,
    they would take another folder for the session's. Does nothing where the current folder is gone.
    """
    with contextlib.suppress(FileNotFoundError):
        for name in _PLACES:
            if value := os.environ.get(name):
                os.environ[name] = _absolute(name, value)
        for name in _LISTS:
            if value := os.environ.get(name):
                paths = (path and os.path.abspath(path) for path in value.split(os.pathsep))
                os.environ[name] = os.pathsep.join(paths)


def _absolute(name: str, value: str) -> str:
    if name in _WITH_HOME and value.startswith("~"):
        return value
    if name == "ROMFSFS_ZOO" and (value == "ide" or "://" in value):
        return value
    return os.path.abspath(value)
