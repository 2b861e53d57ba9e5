"""Where an installed OpenMV IDE keeps its resources: firmware, default images, the model zoo.

The IDE copies what it ships into the user's settings folder when it first starts, and updates it
there over the network, so that copy is the newest. Sources of the places: `userResourcePath` of
the IDE's `icore.cpp` (the folder of the settings file, then the program's id: `openmvide`, before
version 3 `qtcreator`; on macOS too), and what its installers write. Imports nothing of romfsfs
but errors and files; the zoo and the devices' default images share it.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from romfsfs.errors import UsageError

#: The environment variable that names a resource folder; then nothing else is searched.
VARIABLE = "ROMFSFS_IDE_RESOURCES"

_DATA = Path("share", "qtcreator")


def resource_folders() -> list[Path]:
    """The resource folders on this machine, those kept up to date first; [] without an IDE.

    A folder holds `firmware/BOARD/...` or `models/...`; which of them, the caller looks.
    `$ROMFSFS_IDE_RESOURCES` replaces the search: UsageError if it names no folder.
    """
    chosen = os.environ.get(VARIABLE)
    if chosen:
        folder = Path(chosen).expanduser().absolute()
        if not folder.is_dir():
            raise UsageError(f"${VARIABLE} names no folder", where=chosen)
        return [folder]
    found: list[Path] = []
    for candidate in (*_user_copies(), *_installs()):
        if candidate not in found and _has_resources(candidate):
            found.append(candidate)
    return found


def _has_resources(folder: Path) -> bool:
    return any((folder / name).is_dir() for name in ("models", "firmware"))


def _user_copies() -> list[Path]:
    home = Path.home()
    settings = [Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config") / "OpenMV"]
    if sys.platform == "darwin":
        settings.append(home / "Library" / "Application Support" / "OpenMV")
    return [folder / name for folder in settings for name in ("openmvide", "qtcreator")]


def _installs() -> list[Path]:
    """Program folders, the highest version of each place first."""
    home = Path.home()
    found = []
    program = shutil.which("openmvide")
    if program:
        found.append(Path(program).resolve().parent.parent / _DATA)
    for place in (home, Path("/opt"), Path("/usr/local")):
        for pattern in ("openmvide*", "openmv-ide*"):
            found += [folder / _DATA for folder in sorted(place.glob(pattern), reverse=True)]
    for applications in (Path("/Applications"), home / "Applications"):
        found += sorted(applications.glob("OpenMV*.app/Contents/Resources"), reverse=True)
    return found
