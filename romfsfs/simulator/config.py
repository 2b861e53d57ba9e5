"""What is simulated: boards, their flash, their firmware's age, the speed of the link.

Sizes in bytes, times in seconds. The facts are those of the firmware's own sources (upstream
MicroPython's `ports/*/vfs_rom_ioctl.c`, `ports/mimxrt/mimxrt_flash.c`) and of OpenMV's board
headers. Nothing here is shared with the package's own table of boards, on purpose: a mistake
there must not be repeated by the camera that tests it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from romfsfs.errors import UsageError

KIB = 1024
MIB = 1024 * KIB

#: seconds to erase 4 KiB of NOR flash on the hardware (docs/cameras.md, "Flash")
SECTOR_ERASE_SECONDS = 0.045
#: seconds to program 256 bytes of NOR flash, typical of SPI flash data sheets
PAGE_PROGRAM_SECONDS = 0.0004


@dataclass(frozen=True, slots=True)
class PartitionConfig:
    """One ROMFS partition.

    kind: "nor" (erase to FF, programming clears bits) or "mram" (no erase, words overwritten).
    word: bytes the hardware programs at once; a shorter tail is dropped without an error on
    internal flash ("nor") and padded with whatever lies behind the buffer on MRAM.
    min_write: what the erase call answers; the H7 says 16 where its words have 32 bytes.
    access: "memory" (memory-mapped, programmed with `rom_ioctl`) or "block" (a block device).
    wedge_tail: reading the last so many bytes through the memory map hangs the camera.
    """

    size: int
    erase_size: int = 4 * KIB
    kind: str = "nor"
    word: int = 1
    min_write: int = 4
    access: str = "memory"
    wedge_tail: int = 0


@dataclass(frozen=True, slots=True)
class SimulatorConfig:
    """A camera, its firmware and its link; see `preset` for the boards there are.

    machine, arch_string, board_type, platform, mpy, release: what the firmware says of itself.
    heap_size: MicroPython's heap in the process that runs the snippets (on a 64-bit MicroPython
    objects take about twice the room that they take on the camera).
    unique_id: b"" where the firmware has none.
    erase_by_range: the firmware has command 6 and the 4-argument erase; older firmware answers
    -22 to the first and takes the second for "erase the first `offset` bytes".
    writable: the firmware erases and programs; without that it answers -22, as MicroPython's ports
    do whose flash driver only reads.
    stdio_buffer: `sys.stdin.buffer` and `sys.stdout.buffer` exist. missing: modules ("hashlib")
    and attributes ("binascii.crc32") that this firmware lacks. raw_paste: the REPL has it.
    flash_files, sd_files: what is in /flash and on the SD card (None: there is none) when the
    camera is first powered; both are FAT, and keep what scripts write. boot_script and main_script
    are /flash/boot.py and /flash/main.py: the first runs at every soft reset, the second at
    power-up only, and both only where the card's folder is not the current one (`volumes.upy`).
    runs_rom: openmv-ota's firmware, which mounts one of two slots (`ota.py`) where there are such,
    and changes into /rom before it looks for boot.py.
    usb: how the port takes Ctrl-C, "tinyusb" (out of a packet, and the ring is emptied; not while
    the ring is full) or "stm32" (its own driver: whole packets or none, the ring stays).
    byte_seconds: what a script's own loop over single characters of its input takes for each.
    erase_seconds (for each 4 KiB) and program_seconds (for each 256 bytes) pass in real time.
    rate: bytes a second, each way; None: as fast as this machine. latency: seconds, each way.
    rx_buffer: bytes of the ring in which the firmware keeps input that nobody has read.
    reset_seconds: how long the port is gone while `machine.reset()` restarts the camera.
    """

    board: str
    machine: str
    arch_string: str
    partitions: tuple[PartitionConfig, ...]
    board_type: str = ""
    platform: str = "stm32"
    mpy: int = 6 | 3 << 8 | 8 << 10  # version 6.3, armv7emdp
    release: str = "1.25.0"
    unique_id: bytes = bytes.fromhex("330034001951393337303732")
    heap_size: int = 4 * MIB
    erase_by_range: bool = True
    writable: bool = True
    stdio_buffer: bool = True
    raw_paste: bool = True
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


_H7_INTERNAL = PartitionConfig(128 * KIB, 128 * KIB, word=32, min_write=16)
_QSPI_WEDGE = PartitionConfig(8 * MIB, wedge_tail=512)
_ARDUINO = (PartitionConfig(4 * MIB),)
_MPY_SP = 6 | 3 << 8 | 7 << 10  # version 6.3, armv7emsp

_PRESETS = {
    config.board: config
    for config in (
        SimulatorConfig(
            "OPENMV2",
            "OPENMV2 with STM32F427",
            "OMV2 F4 256 JPEG",
            (PartitionConfig(128 * KIB, 128 * KIB, word=16, min_write=16),),
            board_type="M4",
            mpy=_MPY_SP,
            heap_size=192 * KIB,
            stdio_buffer=False,
            missing=("ml",),
        ),
        SimulatorConfig(
            "OPENMV3",
            "OPENMV3 with STM32F765",
            "OMV3 F7 512",
            (PartitionConfig(256 * KIB, 256 * KIB, word=16, min_write=16),),
            board_type="M7",
            heap_size=384 * KIB,
        ),
        SimulatorConfig(
            "OPENMV4",
            "OPENMV4 with STM32H743",
            "OMV4 H7 1024",
            (_H7_INTERNAL,),
            board_type="H7",
            heap_size=512 * KIB,
        ),
        SimulatorConfig(
            "OPENMV4P",
            "OPENMV4P with STM32H743",
            "OMV4P H7 32768 SDRAM",
            (_QSPI_WEDGE,),
            board_type="H7",
        ),
        SimulatorConfig(
            "OPENMVPT",
            "OPENMVPT with STM32H743",
            "OPENMVPT 65536 SDRAM",
            (_QSPI_WEDGE,),
            board_type="H7",
        ),
        SimulatorConfig(
            "OPENMV_RT1060",
            "OpenMV IMXRT1060 with MIMXRT1062DVJ6A",
            "OMVRT1060 32768 SDRAM",
            (PartitionConfig(8 * MIB, access="block"),),
            board_type="IMXRT1060",
            platform="mimxrt",
        ),
        SimulatorConfig(
            "OPENMV_AE3",
            "OpenMV-AE3 with AE302F80F55D5AE",
            "OPENMV AE3",
            (
                PartitionConfig(24 * MIB),
                PartitionConfig(1 * MIB, 16, kind="mram", word=16, min_write=16),
            ),
            board_type="AE3",
            platform="alif",
        ),
        SimulatorConfig(
            "OPENMV_N6",
            "OpenMV N6 with STM32N657X0",
            "OpenMV N6",
            (PartitionConfig(24 * MIB),),
            board_type="N6",
        ),
        SimulatorConfig(
            "ARDUINO_PORTENTA_H7",
            "Arduino Portenta H7 with STM32H747",
            "PORTENTA H7 8192 SDRAM",
            _ARDUINO,
            board_type="H7",
        ),
        SimulatorConfig(
            "ARDUINO_GIGA",
            "Arduino Giga with STM32H747",
            "GIGA H7 8192 SDRAM",
            _ARDUINO,
            board_type="H7",
        ),
        SimulatorConfig(
            "ARDUINO_NICLA_VISION",
            "Arduino Nicla Vision with STM32H747",
            "NICLAV H7 1024",
            _ARDUINO,
            board_type="H7",
            heap_size=512 * KIB,
        ),
    )
}


def preset_names() -> tuple[str, ...]:
    return tuple(_PRESETS)


def preset(board: str, *, realistic: bool = False, **changes: object) -> SimulatorConfig:
    """The camera of this name (upper or lower case), with fields of SimulatorConfig changed.

    realistic: erasing and programming take the time that they take on the hardware.
    Raises UsageError for a board that is not simulated.
    """
    try:
        config = _PRESETS[board.upper()]
    except KeyError:
        raise UsageError(
            f"no board {board} is simulated", next_step=f"one of {', '.join(_PRESETS)}"
        ) from None
    if realistic:
        config = replace(
            config, erase_seconds=SECTOR_ERASE_SECONDS, program_seconds=PAGE_PROGRAM_SECONDS
        )
    return replace(config, **changes)  # type: ignore[arg-type]
