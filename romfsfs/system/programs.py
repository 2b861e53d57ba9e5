"""Where other programs and Python packages are looked for, and what installs them.

The folder we happen to be in may be a mount, and what is in it came from a camera or an image:
that is data, whatever it is called. `sys.path` may mean it (`python -m romfsfs`, PYTHONPATH=:/x,
an interactive Python), and so does an empty entry of PATH, which nobody writes on purpose. An entry
`.` is somebody's choice: it is taken as the folder that it is now, since tools run elsewhere, and
nothing that came from an image is executable.
"""

from __future__ import annotations

import contextlib
import importlib.machinery
import os
import shutil
import sys
from pathlib import Path


def search_path() -> str:
    """PATH, every entry absolute."""
    entries = os.environ.get("PATH", os.defpath).split(os.pathsep)
    return os.pathsep.join(os.path.abspath(entry) for entry in entries if entry)


def find_on_path(name: str) -> str | None:
    """The absolute path of a program, as `shutil.which` finds it in `search_path`."""
    return shutil.which(name, path=search_path())


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


#: what installs a package, by the names in /etc/os-release (ID, then ID_LIKE)
_INSTALLERS = {
    "debian": "sudo apt install {}",
    "ubuntu": "sudo apt install {}",
    "fedora": "sudo dnf install {}",
    "rhel": "sudo dnf install {}",
    "arch": "sudo pacman -S {}",
    "suse": "sudo zypper install {}",
    "opensuse": "sudo zypper install {}",
    "alpine": "sudo apk add {}",
}


def install_command(package: str, os_release: str | None = None) -> str:
    """The command that installs a package on this system. os_release: that file's text."""
    if sys.platform == "darwin":
        return f"brew install {package}"
    if os_release is None:
        os_release = ""
        with contextlib.suppress(OSError), open("/etc/os-release", encoding="utf-8") as file:
            os_release = file.read()
    fields = dict(line.split("=", 1) for line in os_release.splitlines() if "=" in line)
    names = [fields.get("ID", "").strip('"'), *fields.get("ID_LIKE", "").strip('"').split()]
    for name in names:
        if name in _INSTALLERS:
            return _INSTALLERS[name].format(package)
    return f"install {package} with your system's package manager"
