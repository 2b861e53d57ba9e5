"""Finding programs and Python packages, what installs them, and which processes use a path.

The current folder may be a mount, whose files came from a camera or an image: they are data,
whatever they are called. So it is skipped where `sys.path` has it (`python -m romfsfs`,
PYTHONPATH=:/x, an interactive Python), and so is an empty entry of PATH, which means it and which
nobody writes on purpose. An entry `.` of PATH is a choice: it is made absolute, since tools run in
another folder, and no file that came from an image is executable.
"""

from __future__ import annotations

import contextlib
import glob
import importlib.machinery
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path


def search_path() -> str:
    """PATH, every entry absolute."""
    entries = os.environ.get("PATH", os.defpath).split(os.pathsep)
    return os.pathsep.join(os.path.abspath(entry) for entry in entries if entry)


def find_on_path(name: str) -> str | None:
    """The absolute path of a program, as `shutil.which` finds it in `search_path`."""
    return shutil.which(name, path=search_path())


def installed(pattern: str) -> list[Path]:
    """The existing paths that match a glob pattern, in reverse order: the highest version first.
    `~`, and `{config}` for the user's settings folder, are expanded."""
    config = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    expanded = os.path.expanduser(pattern.replace("{config}", config))
    found = glob.glob(expanded) if os.path.isabs(expanded) else ()  # relative: there is no home
    return [Path(path) for path in sorted(found, reverse=True)]


def package_folders(name: str) -> list[Path]:
    """The folders of an installed package, without importing anything of it."""
    entries = [entry for entry in sys.path if os.path.isabs(entry) and not _is_here(entry)]
    try:
        spec = importlib.machinery.PathFinder.find_spec(name, entries)
    except (ImportError, ValueError):
        return []
    return [Path(folder) for folder in (spec and spec.submodule_search_locations) or ()]


def _is_here(entry: str) -> bool:
    try:
        return os.path.samefile(entry or os.curdir, os.curdir)
    except OSError:
        return False


#: Package managers, by their programs, and what installs with each.
_MANAGERS = {
    "apt-get": "sudo apt-get install",
    "dnf": "sudo dnf install",
    "pacman": "sudo pacman -S",
    "zypper": "sudo zypper install",
    "apk": "sudo apk add",
    "pkg": "sudo pkg install",
}


def install_command(package: str, names: Mapping[str, str] | None = None) -> str:
    """The command that installs a package on this system. names: its name by package manager
    ("brew", "dnf"), where that differs."""
    names = names or {}
    if sys.platform == "darwin":
        return f"brew install {names.get('brew', package)}"
    folders = os.pathsep.join((search_path(), "/usr/sbin", "/sbin"))
    for manager, command in _MANAGERS.items():
        if shutil.which(manager, path=folders):
            return f"{command} {names.get(manager, package)}"
    return f"install {package} with the system's package manager"


def processes_using(path: str) -> Iterator[str]:
    """'name (pid N)' of each process that uses this path or one below it, as an open or mapped
    file, program, current or root folder; only of those that /proc lets us see."""
    inside = path.rstrip("/") + "/"
    with contextlib.suppress(OSError):
        for pid in sorted((name for name in os.listdir("/proc") if name.isdigit()), key=int):
            if any(link == path or link.startswith(inside) for link in _links(pid)):
                name = "?"
                with contextlib.suppress(OSError):
                    name = Path(f"/proc/{pid}/comm").read_text(errors="replace").strip()
                yield f"{name} (pid {pid})"


def _links(pid: str) -> Iterator[str]:
    links = ["cwd", "root", "exe"]
    for folder in ("fd", "map_files"):
        with contextlib.suppress(OSError):
            links += [f"{folder}/{name}" for name in os.listdir(f"/proc/{pid}/{folder}")]
    for link in links:
        with contextlib.suppress(OSError):
            yield os.readlink(f"/proc/{pid}/{link}")
