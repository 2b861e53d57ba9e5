"""The user's own boards: `boards.toml` in the configuration folder (docs/cameras.md, "Own boards").

    [MY_BOARD]
    says = ["My Board"]                     # how the firmware's name for the board begins
    march = "armv7emsp"                     # default: what a camera reports
    partitions = [{ size = "4 MiB" }]

The fields are those of `boards.json`; all but the size of a partition may be left out.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from romfsfs.boards.model import ARCHITECTURES
from romfsfs.errors import UsageError
from romfsfs.system.toml import parse_toml

NAME = "boards.toml"
_BOARD: dict[str, type] = {
    "title": str, "arch": str, "says": list, "march": str, "usb": list, "usb_dfu": str,
    "partitions": list,
}  # fmt: skip
_PARTITION: dict[str, type] = {
    "name": str, "size": str, "erase": str, "align": dict, "vela": dict, "neural_art": dict,
    "dfu": dict, "imx": dict,
}  # fmt: skip
_KINDS: dict[type, str] = {str: "text in quotes", list: "a list", dict: "a table"}
_SIZE = r"\d+ (B|KiB|MiB)", 'a size such as "4 MiB"'
_USB = r"[0-9a-fA-F]{4}:[0-9a-fA-F]{4}", 'a USB id such as "37c5:1234"'
#: What texts look like, as a pattern and in words.
_FORMS = {
    "size": _SIZE, "erase": _SIZE, "usb": _USB, "usb_dfu": _USB,
    "march": ("|".join(filter(None, ARCHITECTURES)), 'an architecture such as "armv7emsp"'),
    "says": (r"(?s).*[A-Za-z0-9].*", "text with a letter A-Z or a digit"),
}  # fmt: skip


def own_entries(path: Path, taken: Collection[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The boards of the file, in the form of `boards.json`; none if there is no file.

    taken: names that other boards have. UsageError names the file and the place in it.
    """
    try:
        document = parse_toml(path.read_bytes().decode("utf-8-sig"))
    except FileNotFoundError:
        return
    except (OSError, ValueError, RecursionError) as error:  # its text has the line
        raise _mistake(path, "", f"it cannot be read: {error}") from None
    for name, entry in document.items():
        if not re.fullmatch(r"_*[A-Z0-9][A-Z0-9_]*", name):
            what = "a board's name may only have A-Z, 0-9 and _, and not _ alone"
            raise _mistake(path, name, what)
        if name in taken:
            raise _mistake(path, name, "romfsfs has a board of this name: choose another")
        _check(path, name, entry, _BOARD)
        for index, part in enumerate(entry.get("partitions", ())):
            place = f"{name}.partitions, number {index}"
            _check(path, place, part, _PARTITION)
            if "size" not in part:
                raise _mistake(path, place, 'size is missing, such as "4 MiB"')
            part.setdefault("name", f"ROMFS{index or ''}")
            part.setdefault("erase", "4 KiB")
            part.setdefault("align", {"16": "tflite lite bin"})
        if not entry.get("partitions"):
            raise _mistake(path, name, 'partitions is missing, such as [{ size = "4 MiB" }]')
        yield name, {"title": name, "arch": "", "says": [name], "march": "", **entry}


def _check(path: Path, place: str, table: object, fields: dict[str, type]) -> None:
    if not isinstance(table, dict):
        raise _mistake(path, place, "it is not a table")
    for key, value in table.items():
        if key not in fields:
            raise _mistake(path, place, f"{key} is not a field; the fields are {', '.join(fields)}")
        if not isinstance(value, fields[key]) or value == {}:
            kind = _KINDS[fields[key]]
            raise _mistake(path, place, f"{key} is {value!r}; it must be {kind}")
        words = value if isinstance(value, list) else [value]
        pattern, form = _FORMS.get(key, ("", ""))
        for word in words if form else ():
            if not isinstance(word, str) or not re.fullmatch(pattern, word):
                raise _mistake(path, place, f"{key} is {word!r}; it must be {form}")


def _mistake(path: Path, place: str, what: str) -> UsageError:
    what = f"[{place}] {what}" if place else what
    return UsageError(what, where=str(path), next_step="correct the file")
