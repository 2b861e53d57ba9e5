"""The board table, read from `boards.json` beside this file when it is first needed.

Source of the figures: the OpenMV IDE 4.8 settings and the firmware's board headers. Sizes are
written for people ("8 MiB"), suffixes are grouped by the alignment they need.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from romfsfs.boards.model import Board, DfuTarget, ImxTarget, NeuralArtNpu, Partition, VelaNpu
from romfsfs.boards.own import NAME as OWN
from romfsfs.boards.own import own_entries
from romfsfs.boards.vendors import vendor_entries
from romfsfs.errors import UsageError
from romfsfs.image.rules import AlignmentRules
from romfsfs.system.user_folders import config_dir

_UNITS = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20}


@lru_cache(maxsize=1)
def boards() -> Mapping[str, Board]:
    """Every known board by its firmware name (`OPENMV4P`): the user's own first, those of third
    parties last.

    Read once. UsageError for a mistake in the user's file.
    """
    table = json.loads(Path(__file__).with_name("boards.json").read_bytes())
    folder = config_dir()
    known = {}
    for name, entry in own_entries(folder / OWN, table) if folder is not None else ():
        try:
            known[name] = _board(name, entry)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UsageError(
                f"[{name}] a field of one of its tables is missing or wrong: {error}",
                where=str(folder and folder / OWN), next_step="correct the file",
            ) from None  # fmt: skip
    known |= {name: _board(name, entry) for name, entry in table.items()}
    vendors: dict[str, Board] = {}
    for name, entry in vendor_entries(known):
        vendors.setdefault(name, _board(name, entry))  # of several lists the newest comes first
    return MappingProxyType(known | vendors)


def get_board(name: str) -> Board:
    """The board of this name, in any case; `-` and spaces count as `_`, and `AE3` is accepted for
    `OPENMV_AE3`.

    UsageError, with the closest names, if there is none.
    """
    wanted = re.sub(r"[-\s]+", "_", name.strip()).upper()
    known = boards()
    if wanted == "GENERIC":
        what = "generic is any board that is not in the table: such a camera reports what it is"
        raise UsageError(what, next_step="leave --board out, or enter the board in boards.toml")
    board = known.get(wanted) or known.get(f"OPENMV_{wanted}")
    if board is None:
        from difflib import get_close_matches

        close = [each for each in known if len(wanted) > 1 and wanted in each]  # AE3, N6
        close = close or get_close_matches(wanted, known, n=3, cutoff=0.5)
        asked = f", did you mean {' or '.join(close)}?" if 0 < len(close) < 4 else ""
        raise UsageError(f"unknown board {name!r}{asked}", next_step="romfsfs boards lists them")
    return board


def parse_board(text: str) -> tuple[Board, int | None]:
    """Parse `BOARD` or `BOARD:PARTITION`: the board, and the partition's number or None.

    UsageError for an unknown board or partition.
    """
    name, colon, number = text.partition(":")
    board = get_board(name)
    if not colon:
        return board, None
    if not number.isdecimal():
        what, next_step = f"not a partition number: {number!r}", f"such as {board.name}:0"
        raise UsageError(what, where=text, next_step=next_step)
    return board, board.partition(int(number)).index


def identify(machine: str, arch: str = "") -> Board | None:
    """The board whose firmware reports this, or None.

    machine: `sys.implementation._machine` ("OPENMV4P with STM32H743"). arch: `omv.arch()`
    ("OMV4P H7 32768 SDRAM"), used where `machine` matches no board. Whole words count, so that
    OPENMV4 is not taken for OPENMV4P.
    """
    for text in (machine, arch):
        words = _words(text)
        for board in boards().values():
            if any(words[: len(name)] == name for name in board.says):
                return board
    return None


def by_usb_id(vid: int, pid: int) -> tuple[Board, ...]:
    """The boards whose firmware has this USB id."""
    return tuple(board for board in boards().values() if (vid, pid) in board.runtime_ids)


def by_dfu_id(vid: int, pid: int) -> tuple[Board, ...]:
    """The boards whose boot loader has this USB id; some share one."""
    return tuple(board for board in boards().values() if (vid, pid) == board.dfu_id)


def _words(text: str) -> tuple[str, ...]:
    return tuple(re.findall(r"[A-Z0-9]+", text.upper()))


def _board(name: str, entry: dict[str, Any]) -> Board:
    return Board(
        name, entry["title"], entry["arch"], entry["march"],
        runtime_ids=tuple(_usb_id(text) for text in entry.get("usb", ())),
        dfu_id=_usb_id(entry["usb_dfu"]) if "usb_dfu" in entry else None,
        partitions=tuple(_partition(*item) for item in enumerate(entry["partitions"])),
        says=tuple(_words(text) for text in entry["says"]),
    )  # fmt: skip


def _partition(index: int, entry: dict[str, Any]) -> Partition:
    suffixes = tuple(
        (suffix.lstrip(".").lower(), int(size))
        for size, group in entry["align"].items()
        for suffix in group.split()
    )
    rules = AlignmentRules(4, suffixes)
    rules.check()
    npu: VelaNpu | NeuralArtNpu | None = None
    if vela := entry.get("vela"):
        npu = VelaNpu(vela["system"], vela["accelerator"], vela["memory"], _size(vela["sram_heap"]))
    elif neural_art := entry.get("neural_art"):
        npu = NeuralArtNpu(**neural_art)
    dfu: DfuTarget | None = None
    if loader := entry.get("dfu"):
        erased = _size(loader.get("erase", entry["erase"]))  # the loader may erase more at once
        address = int(loader["address"], 16) if "address" in loader else None
        dfu = DfuTarget(loader["alt"], erased, loader.get("name"), address)
    imx: ImxTarget | None = None
    if loader := entry.get("imx"):
        imx = ImxTarget(int(loader["address"], 16), _size(loader["size"]))
    size, erase_size = _size(entry["size"]), _size(entry["erase"])
    return Partition(index, entry["name"], size, erase_size, rules, npu, dfu, imx)


def _size(text: str) -> int:
    number, unit = text.split()
    if int(number) < 1:
        raise ValueError(f"{text} is no size")
    return int(number) * _UNITS[unit]


def _usb_id(text: str) -> tuple[int, int]:
    vid, pid = text.split(":")
    return int(vid, 16), int(pid, 16)
