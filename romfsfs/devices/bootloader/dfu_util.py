"""dfu-util: its command lines and its listing, as pure functions (docs/cameras.md, "DFU").

`-w` is used only to wait for a board that is on its way to its loader: it waits for ever for any
device that matches, so it would take the next camera that is plugged in after one has left.
No `-S`: in DFU mode the USB serial number is not the firmware's. Two loaders of one kind of board
are told apart by the path of their USB port, `-p`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from romfsfs.boards import Board, Partition
from romfsfs.errors import DeviceAbsent, DeviceError

_LINE = re.compile(
    r"Found (?P<mode>DFU|Runtime): \[(?P<vid>[0-9a-fA-F]{4}):(?P<pid>[0-9a-fA-F]{4})\](?P<rest>.*)"
)
_DENIED = re.compile(
    r"Cannot open DFU device ([0-9a-fA-F]{4}):([0-9a-fA-F]{4}) .*\(LIBUSB_ERROR_ACCESS\)"
)
_FIELD = re.compile(r'(?<!\w)(\w+)=(?:"([^"]*)"|([^,\s]*))')
_ALT = re.compile(r"[0-9]{1,3}")
#: where a device is plugged in: bus, and the ports on the way
_PATH = re.compile(r"[0-9]{1,3}-[0-9]{1,3}(\.[0-9]{1,3})*")
#: dfu-util's word for a text that the device does not have
_NO_TEXT = "UNKNOWN"
#: DfuSe names have the address: `@Ext RAW  Flash 16MB/0x90000000/4096*04Kg`
_DFUSE_START = re.compile(r"/\s*0x([0-9a-fA-F]+)\s*/")
#: the top byte of an address tells memories apart on the STM32H7
_MEMORY_MASK = 0xFF000000


@dataclass(frozen=True, slots=True)
class DfuSetting:
    """One alternate setting of a device in DFU mode, as `dfu-util -l` shows it. path: of its USB
    port, '' if it is not listed. serial: '' if the device has none, or it cannot be read."""

    vid: int
    pid: int
    path: str
    alt: int
    name: str
    serial: str


@dataclass(frozen=True, slots=True)
class DfuListing:
    """What is in DFU mode. denied: USB ids of devices that this user may not open."""

    settings: tuple[DfuSetting, ...]
    denied: tuple[tuple[int, int], ...] = ()

    def shows(self, board: Board, path: str = "") -> bool:
        """Is a board of this kind in DFU mode, at this USB port if one is named, whether it may be
        opened or not? (Of one that may not be opened the port is not listed.)"""
        there = {(item.vid, item.pid) for item in self.settings if path in ("", item.path)}
        return board.dfu_id in there or board.dfu_id in self.denied


def port_path(text: str) -> str:
    """The text if it is the path of a USB port, else ''."""
    return text if _PATH.fullmatch(text) else ""


def parse_list(output: str) -> DfuListing:
    """Parse a listing; devices that could enter DFU mode but are not in it are left out."""
    settings = []
    for match in _LINE.finditer(output):
        fields = {name: quoted or plain for name, quoted, plain in _FIELD.findall(match["rest"])}
        serial = fields.get("serial", "")
        if match["mode"] == "DFU" and _ALT.fullmatch(fields.get("alt", "")):
            settings.append(
                DfuSetting(
                    int(match["vid"], 16),
                    int(match["pid"], 16),
                    port_path(fields.get("path", "")),
                    int(fields["alt"]),
                    fields.get("name", ""),
                    "" if serial == _NO_TEXT else serial,
                )
            )
    denied = {(int(vid, 16), int(pid, 16)) for vid, pid in _DENIED.findall(output)}
    return DfuListing(tuple(settings), tuple(sorted(denied)))


def choose_setting(
    listing: DfuListing, board: Board, partition: Partition, path: str = ""
) -> DfuSetting:
    """The setting to read and write, by its NAME: numbers differ between boards and loaders.

    path: of the board's USB port, if there may be several of its kind. DeviceAbsent if no such
    board is in DFU mode; DeviceError if it may not be opened, there are several, or none of its
    settings is the partition: then nothing may be written.
    """
    mine = [item for item in listing.settings if (item.vid, item.pid) == board.dfu_id]
    there = sorted({item.path for item in mine})
    if path:
        mine = [item for item in mine if item.path == path]
    if board.dfu_id in listing.denied and not (path and mine):  # it could be the one that is meant
        raise no_access(f"{board.name} in DFU mode")
    if not mine:
        raise DeviceAbsent(
            f"no {board.name} in DFU mode" + (f" at {path}" if path else ""),
            where=f"in DFU mode at: {', '.join(there)}" if there else "",
            next_step=f"{how_to_enter(board)}; repeat the command with --wait first",
        )
    if len({(item.path, item.serial) for item in mine}) > 1:
        raise DeviceError(
            f"{len(there)} boards with the USB id of {board.name} are in DFU mode",
            next_step="name one: " + " or ".join(f"dfu:{board.name}@{each}" for each in there),
        )
    for item in mine:
        if _is_partition(item, partition):
            return item
    wanted = partition.dfu.name if partition.dfu else None
    raise DeviceError(
        f"the boot loader offers no {wanted or 'external flash'}",
        where=f"{board.name}: " + ", ".join(f"{item.alt} {item.name}" for item in mine),
        next_step="nothing was written there; update boot loader and firmware, or use its serial "
        "port",
    )


def no_access(what: str) -> DeviceError:
    """The error for a USB device that this user may not open."""
    return DeviceError(
        f"this user may not open {what}",
        next_step="romfsfs doctor has the command that allows it",
    )


def _is_partition(setting: DfuSetting, partition: Partition) -> bool:
    target = partition.dfu
    if target is None:
        return False
    if target.name is not None:
        return setting.name.strip() == target.name
    # Arduino's loader: whole memories, with their start address in the name
    start = _DFUSE_START.search(setting.name)
    return (
        setting.alt == target.alt
        and target.address is not None
        and start is not None
        and int(start[1], 16) & _MEMORY_MASK == target.address & _MEMORY_MASK
        and int(start[1], 16) <= target.address
    )


def how_to_enter(board: Board) -> str:
    """How to bring a board into DFU mode whose firmware does not answer."""
    if board.name.startswith("ARDUINO"):
        return "press its reset button twice"
    return "unplug it and plug it in again: its boot loader answers for 1.5 s"


def list_argv(tool: str) -> list[str]:
    """List what is in DFU mode."""
    return [tool, "-l"]


def read_argv(
    tool: str, setting: DfuSetting, file: str, *, address: int | None = None, length: int = 0
) -> list[str]:
    """Read the setting to a file that must not exist yet. address, length: for Arduino boards."""
    span = ["-s", f"{_hex(address)}:{length}"] if address is not None else []
    return [*_device(tool, setting), *span, "-U", file]


def wait_argv(
    tool: str, board: Board, partition: Partition, file: str, path: str = ""
) -> list[str]:
    """Wait for a board, at this USB port if one is named, and start a read, which may be stopped.
    Setting 0 will do: for one that is not there dfu-util would wait on."""
    assert board.dfu_id is not None
    assert partition.dfu is not None
    vid, pid = board.dfu_id
    target = partition.dfu
    place = ["-s", f"{_hex(target.address)}:256"] if target.address is not None else []
    alt = target.alt if place else 0
    at = ["-p", path] if path else []
    return [tool, "-w", "-d", f",{vid:04x}:{pid:04x}", *at, "-a", str(alt), *place, "-U", file]


def write_argv(
    tool: str, setting: DfuSetting, file: str, *, address: int | None = None
) -> list[str]:
    """Write a file from the setting's start on; the board stays in DFU mode to be read back."""
    place = ["-s", _hex(address)] if address is not None else []
    return [*_device(tool, setting), *place, "-D", file]


def reset_argvs(
    tool: str, setting: DfuSetting, file: str, *, address: int | None = None
) -> list[list[str]]:
    """Ways out of DFU mode, to be tried in this order. file: takes a read that nobody looks at.

    `-e` alone: with `--reset` it detaches once more, from a device that has left. dfu-util before
    0.10 does not detach what is in DFU mode already; its `--reset` after a read does.
    """
    if address is not None:
        return [[*_device(tool, setting), "-s", f"{_hex(address)}:16:leave", "-U", file]]
    return [[*_device(tool, setting), "-e"], [*_device(tool, setting), "-R", "-U", file]]


def _device(tool: str, setting: DfuSetting) -> list[str]:
    path = ["-p", setting.path] if setting.path else []
    return [tool, "-d", f",{setting.vid:04x}:{setting.pid:04x}", *path, "-a", str(setting.alt)]


def _hex(address: int) -> str:
    return f"0x{address:08X}"


def percentage(output: str) -> int | None:
    """The last percentage in a piece of dfu-util's output."""
    found = re.findall(r"(\d{1,3})%", output)
    return min(100, int(found[-1])) if found else None
