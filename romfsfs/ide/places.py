"""Where an installed OpenMV IDE keeps its resources: firmware, default images, the model zoo.

The IDE copies what it ships into the user's settings folder when it first starts, and updates it
there over the network, so that copy is the newest. Sources of the places: `userResourcePath` of
the IDE's `icore.cpp`, and what its installers write.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from romfsfs.errors import UsageError
from romfsfs.system.programs import find_on_path, installed

#: The environment variable that names a resource folder; then nothing else is searched.
VARIABLE = "ROMFSFS_IDE_RESOURCES"

#: In the user's settings, newest layout first. `{config}`: $XDG_CONFIG_HOME or `~/.config`.
_USER_COPIES = (
    "{config}/OpenMV/openmvide",
    "{config}/OpenMV/qtcreator",
    "{config}/OpenMV/*",
    "{config}/OpenMV",
    "{config}/OpenMV/*/*",
    "~/.local/share/OpenMV/*",
    "~/Library/Application Support/OpenMV/*",
    "~/AppData/*/OpenMV/*",
)
#: Where programs are installed; of several versions in one place, the highest first.
_INSTALLS = (
    "~/[Oo]pen[Mm][Vv]*/share/qtcreator",
    "~/*/[Oo]pen[Mm][Vv]*/share/qtcreator",
    "/opt/[Oo]pen[Mm][Vv]*/share/qtcreator",
    "/usr/local/[Oo]pen[Mm][Vv]*/share/qtcreator",
    "/Applications/OpenMV*.app/Contents/Resources",
    "~/Applications/OpenMV*.app/Contents/Resources",
    "C:/Program Files*/OpenMV*/share/qtcreator",
    "C:/OpenMV*/share/qtcreator",
)


def resource_folders() -> list[Path]:
    """The resource folders on this machine, those kept up to date first; [] without an IDE.

    A folder holds `firmware/BOARD/...` or `models/...`, or both; the caller checks which.
    `$ROMFSFS_IDE_RESOURCES` replaces the search: UsageError if it is not a folder.
    """
    chosen = os.environ.get(VARIABLE)
    if chosen:
        folder = Path(os.path.expanduser(chosen)).absolute()
        if not folder.is_dir():
            raise UsageError(f"${VARIABLE} is not a folder", where=chosen)
        return [folder]
    found: list[Path] = []
    for candidate in _candidates():
        if candidate not in found and _has_resources(candidate):
            found.append(candidate)
    # IDE 5 keeps resources for boards of third parties in folders of the same layout.
    vendors = (path for folder in found for path in sorted(folder.glob("third-party/*")))
    return [*found, *filter(_has_resources, vendors)]


def _has_resources(folder: Path) -> bool:
    return any((folder / name).is_dir() for name in ("models", "firmware"))


def _candidates() -> Iterator[Path]:
    for pattern in _USER_COPIES:
        yield from installed(pattern)
    program = find_on_path("openmvide")
    if program:
        yield Path(program).resolve().parent.parent / "share" / "qtcreator"
    for pattern in _INSTALLS:
        yield from installed(pattern)
