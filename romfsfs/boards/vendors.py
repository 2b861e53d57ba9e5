"""Boards of third parties that are installed in an OpenMV IDE 5.

`third-party/VENDOR/firmware/settings.json` in the IDE's writable resource folder lists them, in the
form of the IDE's own list (openmv-ide: `openmvthirdparty.h`). It has names, USB ids and partition
sizes, but no erase sizes, boot loaders or alignments.
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

#: Newest layout first, as in ide/places.py, so that a board and its images are of one IDE.
_WRITABLE = (
    "{config}/OpenMV/openmvide", "{config}/OpenMV/*", "~/Library/Application Support/OpenMV/*",
    "~/AppData/*/OpenMV/*",
)  # fmt: skip
_LIST = "third-party/*/firmware/settings.json"


def vendor_entries(taken: Collection[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The boards, in the form of `boards.json`, one that is in several lists as often: that of the
    newest IDE comes first. taken: names that other boards have.

    Entries that cannot be used are logged and left out: the user did not write them."""
    for path in _lists():
        try:
            listed = list(json.loads(path.read_bytes())["boards"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            log.info("%s is not used: %r", path, error)
            continue
        for board in listed:
            try:
                name, entry = _entry(board)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                log.info("%s: a board is not used: %r", path, error)
                continue
            if name in taken or not entry["partitions"]:
                log.info("%s: %s is not used: another board, or no ROMFS", path, name)
            else:
                yield name, entry


def _lists() -> list[Path]:
    chosen = os.environ.get("ROMFSFS_IDE_RESOURCES")
    places = (os.path.abspath(os.path.expanduser(chosen)),) if chosen else _WRITABLE
    found = (path for place in places for path in installed(f"{place}/{_LIST}"))
    return list(dict.fromkeys(found))


def _entry(board: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """A board's name and entry. KeyError, ValueError or the like if this is no board."""
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
    says = [text for text in (arch, name) if re.search("[A-Za-z0-9]", text)]
    return name, {
        "title": str(board.get("boardDisplayName") or name), "arch": arch, "says": says,
        "march": "", "usb": [usb], "partitions": partitions,
    }  # fmt: skip
