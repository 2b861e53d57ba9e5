"""Boards of third parties that an OpenMV IDE 5 has been given.

`third-party/VENDOR/firmware/settings.json` in the IDE's writable resource folder lists them, in the
form of the IDE's own list (openmv-ide: `openmvthirdparty.h`). It tells names, USB ids, and the
partitions' sizes; not their erase units, boot loader or alignment.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from romfsfs.system.programs import installed

log = logging.getLogger(__name__)

_WRITABLE = ("{config}/OpenMV/*", "~/Library/Application Support/OpenMV/*", "~/AppData/*/OpenMV/*")
_LIST = "third-party/*/firmware/settings.json"


def vendor_entries(taken: Collection[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The boards, as `boards.json` would have them. taken: names that mean other boards.

    What cannot be used is left out: whoever runs romfsfs did not write it. The log says it."""
    for path in _lists():
        try:
            found = [_entry(board) for board in json.loads(path.read_bytes())["boards"]]
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            log.info("%s is not used: %r", path, error)
            continue
        for name, entry in found:
            if name in taken or not entry["partitions"]:
                log.info("%s: %s is not used: another board, or no ROMFS", path, name)
            else:
                yield name, entry


def _lists() -> list[Path]:
    chosen = os.environ.get("ROMFSFS_IDE_RESOURCES")
    places = (os.path.abspath(os.path.expanduser(chosen)),) if chosen else _WRITABLE
    return [path for place in places for path in installed(f"{place}/{_LIST}")]


def _entry(board: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """KeyError, ValueError or the like for what is no board."""
    name = re.sub(r"[^A-Z0-9]+", "_", board["boardFirmwareFolder"].upper())
    usb = board["boardVidPid"]
    if not re.fullmatch(r"[0-9a-fA-F]{4}:[0-9a-fA-F]{4}", usb):
        raise ValueError(f"{usb} is no USB id")
    arch = str(board.get("boardArchString", ""))
    parts = sorted(board.get("romfsConfig", []), key=lambda part: int(part.get("index", 0)))
    partitions = [
        {"name": str(part.get("name", f"ROMFS{number}")), "size": f"{int(part['size'])} B",
         "erase": "4 KiB", "align": {"16": "tflite lite bin"}}
        for number, part in enumerate(parts)
        if int(part["size"]) > 0
    ]  # fmt: skip
    says = [text for text in (arch, name) if re.search(r"\w", text)]
    return name, {
        "title": str(board.get("boardDisplayName") or name), "arch": arch, "says": says,
        "march": "", "usb": [usb], "partitions": partitions,
    }  # fmt: skip
