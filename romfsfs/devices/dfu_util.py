"""dfu-util: its command lines and its listing, as pure functions (docs/cameras.md, "DFU").

Verified in the boot loader's source (openmv `boot/src/common`): every block is written as it
comes, flash sectors are erased when their first byte is written, so a file shorter than the
partition changes only the blocks that it covers; a read ends with 4 bytes too many.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from romfsfs.boards import Board, Partition
from romfsfs.errors import DeviceAbsent, DeviceError

_LINE = re.compile(
    r"Found (?P<mode>DFU|Runtime): \[(?P<vid>[0-9a-fA-F]{4}):(?P<pid>[0-9a-fA-F]{4})\](?P<rest>.*)"
)
_FIELD = re.compile(r'(?<!\w)(\w+)=(?:"([^"]*)"|([^,\s]*))')
_ALT = re.compile(r"[0-9]{1,3}")
#: DfuSe names tell addresses: `@Ext RAW  Flash 16MB/0x90000000/4096*04Kg`
_DFUSE_START = re.compile(r"/\s*0x([0-9a-fA-F]+)\s*/")
#: the top byte of an address tells memories apart on the STM32H7
_MEMORY_MASK = 0xFF000000


@dataclass(frozen=True, slots=True)
class DfuSetting:
    """One alternate setting of a device in DFU mode, as `dfu-util -l` shows it."""

    vid: int
    pid: int
    path: str
    alt: int
    name: str
    serial: str


def parse_list(output: str) -> tuple[DfuSetting, ...]:
    """The settings of all devices in DFU mode; devices that only could enter it are left out."""
    settings = []
    for match in _LINE.finditer(output):
        fields = {name: quoted or plain for name, quoted, plain in _FIELD.findall(match["rest"])}
        if match["mode"] == "DFU" and _ALT.fullmatch(fields.get("alt", "")):
            settings.append(
                DfuSetting(
                    int(match["vid"], 16),
                    int(match["pid"], 16),
                    fields.get("path", ""),
                    int(fields["alt"]),
                    fields.get("name", ""),
                    fields.get("serial", ""),
                )
            )
    return tuple(settings)


def choose_setting(
    settings: Sequence[DfuSetting], board: Board, partition: Partition
) -> DfuSetting:
    """The setting to read and write, by its NAME: numbers differ between boards and loaders.

    DeviceAbsent when no such board is in DFU mode; DeviceError when there are several, or none
    of its settings is the partition: then nothing may be written.
    """
    mine = [item for item in settings if (item.vid, item.pid) == board.dfu_id]
    if not mine:
        raise DeviceAbsent(f"no {board.name} in DFU mode", next_step=how_to_enter(board))
    devices = {(item.path, item.serial) for item in mine}
    if len(devices) > 1:
        raise DeviceError(
            f"{len(devices)} boards with the USB id of {board.name} are in DFU mode",
            next_step="unplug all but one",
        )
    for item in mine:
        if _is_partition(item, partition):
            return item
    wanted = partition.dfu.name if partition.dfu else None
    raise DeviceError(
        f"the boot loader offers no {wanted or 'external flash'}",
        where=f"{board.name}: " + ", ".join(f"{item.alt} {item.name}" for item in mine),
        next_step="nothing was written; update boot loader and firmware, or use its serial port",
    )


def _is_partition(setting: DfuSetting, partition: Partition) -> bool:
    target = partition.dfu
    if target is None:
        return False
    if target.name is not None:
        return setting.name.strip() == target.name
    # Arduino's loader: whole memories under names that tell their start
    start = _DFUSE_START.search(setting.name)
    return (
        setting.alt == target.alt
        and target.address is not None
        and start is not None
        and int(start[1], 16) & _MEMORY_MASK == target.address & _MEMORY_MASK
        and int(start[1], 16) <= target.address
    )


def how_to_enter(board: Board) -> str:
    if board.name.startswith("ARDUINO"):
        return "press its reset button twice, then repeat the command"
    return "connect it and let it start, then repeat the command"


def list_argv(tool: str) -> list[str]:
    return [tool, "-l"]


def read_argv(
    tool: str, setting: DfuSetting, file: str, *, address: int | None = None, length: int = 0
) -> list[str]:
    """Read the setting to a file that must not exist. address, length: Arduino boards."""
    span = ["-s", f"{_hex(address)}:{length}"] if address is not None else []
    return [*_device(tool, setting), *span, "-U", file]


def write_argv(
    tool: str, setting: DfuSetting, file: str, *, address: int | None = None
) -> list[str]:
    """Write a file from the setting's start on; the board stays in DFU mode to be read back."""
    place = ["-s", _hex(address)] if address is not None else []
    return [*_device(tool, setting), *place, "-D", file]


def reset_argvs(
    tool: str, setting: DfuSetting, file: str, *, address: int | None = None
) -> list[list[str]]:
    """Ways out of DFU mode, to be tried in this order. file: takes a read nobody looks at.

    dfu-util before 0.10 does not detach a device that is in DFU mode already; its `--reset`
    after a read does.
    """
    if address is not None:
        return [[*_device(tool, setting), "-s", f"{_hex(address)}:16:leave", "-U", file]]
    return [
        [*_device(tool, setting), "--reset", "-e"],
        [*_device(tool, setting), "--reset", "-U", file],
    ]


def _device(tool: str, setting: DfuSetting) -> list[str]:
    # No -S: the serial number in DFU mode is another one, and -w would wait for it for ever.
    return [tool, "-w", "-d", f",{setting.vid:04x}:{setting.pid:04x}", "-a", str(setting.alt)]


def _hex(address: int) -> str:
    return f"0x{address:08X}"


def waits(output: str) -> bool:
    """Does it wait for a device that is not there? With -w it would do so for ever."""
    return "Waiting for device" in output


def percentage(output: str) -> int | None:
    """The last percentage in a piece of dfu-util's output."""
    found = re.findall(r"(\d{1,3})%", output)
    return min(100, int(found[-1])) if found else None
