"""The user's folders: where state, caches and configuration live, out of the reach of others."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from romfsfs.errors import RomfsError
from romfsfs.system.files import sync_dir
from romfsfs.system.private import check_private


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
