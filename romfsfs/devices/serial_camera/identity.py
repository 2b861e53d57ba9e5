"""Which board a camera is, and what follows from it: pure functions on what the probe found."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import replace

from romfsfs.boards import Board, get_board
from romfsfs.devices.base import UNKNOWN, DeviceInfo, PartitionState
from romfsfs.devices.serial_camera.flash_plan import PAGE, UNREADABLE_TAIL, Geometry, Mode
from romfsfs.devices.serial_camera.probe import CameraFacts, PartitionFacts
from romfsfs.errors import DeviceAnswer, DeviceError, ImageFormatError, UsageError
from romfsfs.image.reader import image_size, is_blank
from romfsfs.image.slots import BLOCK, MAGIC, Digest, Slot, find_slots, slots_text, trailer_places

#: reading the last 512 bytes through the memory map wedges these (docs/cameras.md, "Flash")
_WEDGING_BOARDS = ("OPENMV4P", "OPENMVPT")
#: Special builds of the AE3 have MRAM where the table of boards has octal flash. Their firmware
#: reports no erase size, but a smallest write of 16 bytes, and 4 for flash (micropython:
#: ports/alif/vfs_rom_ioctl.c). MRAM is not FF after it was "erased".
MRAM_WORD, NOR_SECTOR = 16, 4096
#: an erase size up to this is a unit of writing: the memory needs no erasing (AE3's MRAM says 16)
_LARGEST_WRITE_UNIT = 256
#: bytes compared and rewritten at once where nothing has to be erased
_MRAM_BLOCK = 4096
#: where the erase size exceeds this it is a microcontroller's internal flash
_LARGEST_NOR_BLOCK = 65536
#: the H7's internal flash is programmed in aligned words of 32 bytes, whatever smaller unit it
#: announces; it refuses other addresses and fills up shorter words
_INTERNAL_WORD = 32


class NoRomfsAccess(DeviceError):
    """The firmware has no `vfs.rom_ioctl`, or no partition; DFU may reach it. Has the board."""

    def __init__(self, port: str, board: Board | None) -> None:
        super().__init__(
            "this camera's firmware gives no access to a ROMFS partition",
            where=port,
            next_step="update its firmware (OpenMV IDE: Tools, Run Bootloader)",
        )
        self.board = board


def find_board(facts: CameraFacts, asked: str | None) -> tuple[Board | None, tuple[str, ...]]:
    """The board, and notes that deserve a warning. UsageError if `asked` is no board's name."""
    found = facts.board
    if asked is None:
        if found is None:
            name = facts.machine or "no name"
            return None, (
                f"the camera's board is not known ({name}): what it reports itself is used, and no "
                "model is compiled; name a board with --board, or enter it in boards.toml",
            )
        return found, ()
    board = get_board(asked)
    if found is not None and found.name != board.name:
        note = f"the camera says that it is {found.name}; {board.name} is used as asked"
        return board, (note,)
    return board, ()


def choose_partition(
    port: str, facts: CameraFacts, board: Board | None, index: int
) -> PartitionFacts:
    """The partition with this number. NoRomfsAccess if there is none at all; UsageError."""
    if not facts.partitions:
        raise NoRomfsAccess(port, facts.board or board)
    for partition in facts.partitions:
        if partition.index == index:
            return partition
    there = ", ".join(str(partition.index) for partition in facts.partitions)
    raise UsageError(
        f"the camera has no ROMFS partition {index}", where=port, next_step=f"it has: {there}"
    )


def _table(partition: PartitionFacts, board: Board | None) -> tuple[int | None, int | None]:
    """(size, erase size) of the partition in the board table."""
    for known in board.partitions if board else ():
        if known.index == partition.index:
            return known.size, known.erase_size
    return None, None


def geometry(partition: PartitionFacts, board: Board | None, machine: str) -> Geometry:
    """The camera's answers come first; the board table fills in what old firmware does not report.
    machine: as the camera reports it, with the name of its chip."""
    size = readable = partition.size
    if board is not None and board.name in _WEDGING_BOARDS:
        readable -= UNREADABLE_TAIL
    erase_size = partition.erase_size or _table(partition, board)[1]
    if not partition.erase_size and partition.min_write == MRAM_WORD and erase_size == NOR_SECTOR:
        erase_size = MRAM_WORD
    if erase_size is not None and erase_size <= _LARGEST_WRITE_UNIT:
        return Geometry(size, _MRAM_BLOCK, "never", readable, max(erase_size, 16))
    block = min(erase_size or size, size)
    mode: Mode = "ranges" if partition.erases_ranges and block < size else "prefix"
    if partition.kind == "block":
        # They program whole pages, but do not say so (micropython: ports/rp2/rp2_flash.c).
        return Geometry(size, block, mode, readable, word=PAGE)
    internal = block > _LARGEST_NOR_BLOCK
    word = _INTERNAL_WORD if internal and "STM32F" not in machine else 0
    # Cortex-M7 cores have a data cache. The driver of internal flash ignores it, unlike that of
    # external flash (micropython: ports/stm32/flash.c, qspi.c).
    cached = internal and ("STM32F7" in machine or "STM32H7" in machine)
    return Geometry(size, block, mode, readable, word=word, cached=cached)


def describe(
    port: str,
    facts: CameraFacts,
    board: Board | None,
    partition: PartitionFacts,
    flash: Geometry,
    notes: tuple[str, ...],
    usb_serial: str = "",
) -> DeviceInfo:
    """The camera's `DeviceInfo` by its answers and the board table. notes: those made so far."""
    said = facts.board
    size = _table(partition, board)[0]
    erase_size = _table(partition, said or board)[1]
    if board is not None and size is not None and size != partition.size:
        notes += (
            f"the camera's partition {partition.index} has {partition.size:,} bytes, the table of "
            f"boards says {size:,} for {board.name}: the camera's size is used",
        )
    if not partition.writable:
        loader = boot_loader(said or board, partition.index)
        notes += (
            "this camera's firmware cannot write its ROMFS: edits can be committed to a file "
            "(romfsfs commit --to FILE)"
            + (f", and that file pushed to {loader}" if loader else ""),
        )
    name = board.name if board else facts.machine or "camera"
    # The key has the board that the camera reports: its edits must be found without --board.
    return DeviceInfo(
        kind="serial",
        key=f"{said.name if said else UNKNOWN}/{facts.unique_id or port}/{partition.index}",
        name=f"{name} on {port}",
        board=board.name if board else None,
        partition=partition.index,
        capacity=flash.readable,
        erase_size=partition.erase_size or erase_size,
        mpy_version=facts.mpy_version,
        march=facts.march,
        firmware=facts.firmware,
        notes=notes,
        usb_serial=usb_serial,
        has_id=bool(facts.unique_id),
        here=facts.here,
    )


def in_slot(flash: Geometry, start: int, size: int) -> Geometry:
    """The geometry of a slot: nothing beyond it is read or changed."""
    return replace(
        flash, size=size, block=min(flash.block, size), readable=min(size, flash.readable - start)
    )


def find_slots_there(
    peek: Callable[..., bytes], digest: Digest, flash: Geometry
) -> tuple[Slot, ...]:
    """The slots of openmv-ota; without any it takes one short question. peek: from ranges
    (offset, length) to their bytes."""
    places = [(place, 4) for place in trailer_places(flash.size)]
    if not places or MAGIC not in peek(*places):
        return ()
    return find_slots(lambda at, count: peek((at, count)), flash.size, digest, flash.block)


def with_slots(info: DeviceInfo, slots: tuple[Slot, ...], slot: str, flash: Geometry) -> DeviceInfo:
    """The info of an openmv-ota camera for one slot: '', 'A' or 'B'. Its capacity is the slot's
    room. UsageError if a slot was asked for that is not there."""
    if slot and (not slots or (slot == "B" and slots[0].only)):
        there = "slot A of openmv-ota alone" if slots else "no slots of openmv-ota"
        raise UsageError(
            f"partition {info.partition} holds {there}",
            where=info.name, next_step="nothing was written there; leave out --slot",
        )  # fmt: skip
    if not slots:
        return info
    note = f"an openmv-ota camera: {slots_text(slots)}; what is shown here is slot {slot or 'A'}"
    second = slot.replace("A", "")
    if second and flash.mode == "prefix":
        note += f"; {no_range_erase(info.name).what}"
    return replace(
        info, key=info.key + second, slot=second, slots=slots, notes=(*info.notes, note),
        capacity=slots[0].room or slots[0].size - 2 * BLOCK,
    )  # fmt: skip


def no_range_erase(name: str) -> DeviceAnswer:
    """The error for slot B where only the partition's start can be erased."""
    return DeviceAnswer(
        "this camera's firmware erases from the partition's start on: slot B cannot be written "
        "without slot A",
        errno=errno.EROFS, where=name, next_step="nothing was changed; update its firmware",
    )  # fmt: skip


def boot_loader(board: Board | None, index: int) -> str:
    """The SOURCE that writes this partition without its firmware; '' if there is none."""
    for known in board.partitions if board else ():
        if known.index == index and board and (known.dfu or known.imx):
            return f"dfu:{board.name}"
    return ""


def partition_state(partition: PartitionFacts, board: Board | None) -> PartitionState:
    """What a partition holds, judged by its header alone."""
    state, size = "foreign", 0
    if is_blank(partition.header):
        state = "blank"
    else:
        try:
            size = image_size(partition.header)
            state = "image"
        except ImageFormatError:
            pass
    erase_size = partition.erase_size or _table(partition, board)[1]
    return PartitionState(partition.index, partition.size, erase_size, state, size)


def not_writable(name: str, loader: str) -> DeviceAnswer:
    """The error for firmware without `rom_ioctl`'s writing calls. loader: as `boot_loader`."""
    return DeviceAnswer(
        "this camera's firmware cannot write its ROMFS",
        errno=errno.EROFS,
        where=name,
        next_step="nothing was changed; "
        + (f"write with SOURCE {loader}, or " if loader else "")
        + "update its firmware",
    )


def wrong_answer(port: str, text: str) -> DeviceAnswer:
    """The error for output that is not an answer to our question."""
    return DeviceAnswer(
        "the camera's answer makes no sense",
        where=port,
        next_step="reset the camera and repeat the command",
        detail=text[-500:],
    )
