"""What is simulated: boards, their flash, their firmware's age, the speed of the link.

Sizes in bytes, times in seconds. The facts are those of the firmware's own sources (upstream
MicroPython's `ports/*/vfs_rom_ioctl.c`, `ports/mimxrt/mimxrt_flash.c`) and of OpenMV's board
headers. Nothing here is shared with the package's own table of boards, on purpose: a mistake
there must not be repeated by the camera that tests it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from romfsfs.errors import UsageError

KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True, slots=True)
class PartitionConfig:
    """One ROMFS partition.

    kind: "nor" (erase to FF, programming clears bits) or "mram" (no erase, words overwritten; an
    interrupt during a write hangs the camera, and here one always comes unless they are disabled).
    word: bytes that the hardware programs at once. A shorter tail is dropped without an error on
    internal flash ("nor"); MRAM and block devices (rp2: words are pages of 256 bytes) pad it with
    whatever follows the buffer. Block devices ignore a write to an address within a word.
    whole_words: as the H7's driver, which refuses an address within a word and pads a shorter tail
    with FF.
    min_write: what the erase call answers; the H7 says 16 though its words have 32 bytes.
    access: "memory" (memory-mapped, programmed with `rom_ioctl`) or "block" (a block device).
    cached: reads return what was there before a write until that cache line is dropped
    (`machine.mem32`, DCCIMVAC), as with internal flash on M7 cores, whose cache the firmware's
    driver does not drop; a soft reset empties this cache.
    wedge_tail: reading this many bytes at the end through the memory map hangs the camera.
    """

    size: int
    erase_size: int = 4 * KIB
    kind: str = "nor"
    word: int = 1
    whole_words: bool = False
    cached: bool = False
    min_write: int = 4
    access: str = "memory"
    wedge_tail: int = 0


@dataclass(frozen=True, slots=True)
class SimulatorConfig:
    """A camera, its firmware and its link; see `preset` for the boards there are.

    machine, arch_string, board_type, platform, mpy, release: what the firmware says of itself.
    heap_size: MicroPython's heap on the camera (openmv: boards/*/board_config.h, OMV_GC_BLOCK0_SIZE
    and more).
    unique_id: b"" where the firmware has none.
    erase_by_range: the firmware has command 6 and the 4-argument erase; older firmware answers
    -22 to the first and takes the second for "erase the first `offset` bytes".
    writable: the firmware erases and programs; otherwise it answers -22, as MicroPython ports do
    whose flash driver only reads.
    stdio_buffer: `sys.stdin.buffer` and `sys.stdout.buffer` exist. missing: modules ("hashlib")
    and attributes ("binascii.crc32") that this firmware lacks.
    flash_files, sd_files: what is in /flash and on the SD card (None: no card) when the camera is
    first powered; both are FAT, and keep what scripts write. boot_script and main_script are
    /flash/boot.py and /flash/main.py: the first runs at every soft reset, the second at power-up
    only, and both only if /flash is the current folder, not the card or /rom (`volumes.upy`).
    runs_rom: openmv-ota's firmware, which mounts a slot (none if none is as it was signed) and
    changes into /rom before it looks for boot.py.
    usb: how the port handles Ctrl-C: "tinyusb" (taken out of a packet, and the ring is emptied; not
    seen while the ring is full) or "stm32" (its own driver: whole packets or none, the ring stays).
    byte_seconds: the time that a script takes for each character if it reads them one by one.
    erase_seconds (for each 4 KiB) and program_seconds (for each 256 bytes) pass in real time.
    rate: bytes a second, each way; None: as fast as this machine. latency: seconds, each way.
    rx_buffer: bytes of the ring in which the firmware keeps input that nobody has read.
    reset_seconds: how long the port is gone while `machine.reset()` restarts the camera.
    images: contents of the partitions when the camera is made, by partition number.
    """

    board: str
    machine: str
    arch_string: str
    partitions: tuple[PartitionConfig, ...]
    board_type: str = ""
    platform: str = "stm32"
    mpy: int = 6 | 3 << 8 | 8 << 10  # version 6.3, armv7emdp (7: armv7emsp, as of OPENMV2)
    release: str = "1.25.0"
    unique_id: bytes = bytes.fromhex("330034001951393337303732")
    heap_size: int = 4 * MIB
    erase_by_range: bool = True
    writable: bool = True
    stdio_buffer: bool = True
    missing: tuple[str, ...] = ()
    flash_files: Mapping[str, bytes] = field(default_factory=dict)
    sd_files: Mapping[str, bytes] | None = None
    boot_script: str = ""
    main_script: str = ""
    erase_seconds: float = 0.0
    program_seconds: float = 0.0
    rate: float | None = None
    latency: float = 0.0
    usb: str = "tinyusb"
    runs_rom: bool = False
    byte_seconds: float = 0.0
    rx_buffer: int = 512
    reset_seconds: float = 0.3
    images: Mapping[int, bytes] = field(default_factory=dict)


_UNITS = {"B": 1, "KiB": KIB, "MiB": MIB}


def _values(table: dict[str, Any]) -> dict[str, Any]:
    """An object of `cameras.json`, in which sizes are texts such as "8 MiB"."""
    for key, value in table.items():
        if key.endswith("size"):
            number, unit = value.split()
            table[key] = int(number) * _UNITS[unit]
        elif isinstance(value, list):
            table[key] = tuple(value)
    return table


@cache
def _presets() -> dict[str, SimulatorConfig]:
    data = Path(__file__).with_name("cameras.json").read_bytes()
    presets = {}
    for board, entry in json.loads(data, object_hook=_values).items():
        partitions = tuple(PartitionConfig(**part) for part in entry.pop("partitions"))
        presets[board] = SimulatorConfig(board=board, partitions=partitions, **entry)
    return presets


def preset_names() -> tuple[str, ...]:
    """The boards that can be simulated."""
    return tuple(_presets())


def preset(board: str, **changes: object) -> SimulatorConfig:
    """The camera of this name (upper or lower case), with fields of SimulatorConfig changed.

    Raises UsageError for a board that is not simulated.
    """
    try:
        config = _presets()[board.upper()]
    except KeyError:
        raise UsageError(
            f"no board {board} is simulated", next_step=f"one of {', '.join(preset_names())}"
        ) from None
    return replace(config, **changes)  # type: ignore[arg-type]
