"""What a camera's answers mean, field by field; no camera is needed for that."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from ota_slots import one_slot, two_slots

from romfsfs.boards import get_board
from romfsfs.devices.base import DeviceInfo, PartitionState
from romfsfs.devices.serial_camera import identity
from romfsfs.devices.serial_camera.flash_plan import PAGE, Geometry, seal_size
from romfsfs.devices.serial_camera.probe import CameraFacts, PartitionFacts, probe
from romfsfs.devices.serial_camera.reading import said_twice, words_said
from romfsfs.errors import DeviceAnswer, UsageError
from romfsfs.image.rules import DEFAULT_RULES
from romfsfs.image.slots import Slot, find_slots
from romfsfs.image.writer import encode

KIB = 1024
IMAGE = encode({"a.bin": b"a" * 5000}, DEFAULT_RULES)
HEADER = IMAGE[:16]
ANSWER: dict[str, Any] = {
    "here": ("/flash", "main.py"), "machine": "OPENMV4P with STM32H743", "arch": "OMV4P H7",
    "omv": "4.8.1", "uid": "3300", "mpy": 6 | 3 << 8 | 8 << 10, "release": "1.26.0",
    "partitions": [("memory", 64 * KIB, 4096, HEADER, 4)],
    "stdin": True, "stdout": False, "sha256": True, "crc32": False, "poll": True, "heap": 70_000,
}  # fmt: skip
PARTITION = PartitionFacts(0, "memory", 64 * KIB, 4096, HEADER, 4)
FACTS = CameraFacts(
    "OPENMV4P with STM32H743", "OMV4P H7", "4.8.1", "3300", "1.26.0", (6, 3), "armv7emdp",
    (PARTITION,), True, False, True, False, True, 70_000, ("/flash", "main.py"),
)  # fmt: skip


class Told:
    """A REPL that answers with these texts, one after the other."""

    port = SimpleNamespace(name="ttyX")

    def __init__(self, *texts: str) -> None:
        self.texts = list(texts)
        self.resets = 0

    def run(self, code: str) -> str:
        return self.texts.pop(0)

    def soft_reset(self) -> None:
        self.resets += 1


def told(**changes: Any) -> CameraFacts:
    text = repr(ANSWER | changes)
    return probe(Told(f"{text}\n{text}\n"))  # type: ignore[arg-type]


def test_every_field_of_the_answer() -> None:
    assert told() == FACTS
    assert FACTS.board == get_board("OPENMV4P")
    turned = {name: not ANSWER[name] for name in ("stdin", "stdout", "sha256", "crc32", "poll")}
    assert told(**turned) == replace(
        FACTS, raw_input=False, raw_output=True, sha256=False, crc32=True, poll=False
    )


@pytest.mark.parametrize(
    ("mpy", "version", "march"),
    [
        (0, None, None),
        (6, (6, 0), None),
        (6 | 1 << 8, (6, 1), None),
        (6 | 3 << 8 | 1 << 10, (6, 3), "x86"),
        (255 | 12 << 10, (255, 0), "rv64imc"),
        (6 | 13 << 10, (6, 0), None),
        (6 | 64 << 10, (6, 0), None),
    ],
)
def test_the_version_of_bytecode_and_the_architecture(
    mpy: int, version: tuple[int, int] | None, march: str | None
) -> None:
    assert told(mpy=mpy) == replace(FACTS, mpy_version=version, march=march)


@pytest.mark.parametrize(
    ("kind", "erase", "erased", "erase_size", "min_write", "writable", "ranges"),
    [
        ("memory", 4096, 4, 4096, 4, True, True),
        ("memory", 64 * KIB, 4, 64 * KIB, 4, True, True),
        ("memory", 64 * KIB + 1, 4, None, 4, True, False),
        ("memory", 1, 1, 1, 1, True, True),
        ("memory", 0, 0, None, 0, True, False),
        ("memory", None, None, None, 0, True, False),
        ("memory", "4096", "4", None, 0, True, False),
        ("memory", -22, -22, None, None, False, False),
        ("memory", 4096, -38, 4096, None, False, True),
        ("memory", 4096, -95, 4096, None, False, True),
        ("memory", 4096, -5, 4096, 0, True, True),
        ("block", None, 0, None, 0, True, True),
    ],
)
def test_how_a_partition_can_be_changed(
    kind: str, erase: object, erased: object, erase_size: int | None, min_write: int | None,
    writable: bool, ranges: bool,
) -> None:  # fmt: skip
    facts = told(partitions=[("none", 0, -2, b"", 0), (kind, 64 * KIB, erase, HEADER, erased)])
    (found,) = facts.partitions
    assert found == PartitionFacts(1, kind, 64 * KIB, erase_size, HEADER, min_write)
    assert (found.writable, found.erases_ranges) == (writable, ranges)


@pytest.mark.parametrize("size", [1, 1 << 31, 0, (1 << 31) + 1])
def test_the_smallest_and_the_largest_partition(size: int) -> None:
    partitions = [("memory", size, 1, HEADER, 4)]
    if 1 <= size <= 1 << 31:
        assert [part.size for part in told(partitions=partitions).partitions] == [size]
    else:
        text = repr(ANSWER | {"partitions": partitions})
        with pytest.raises(DeviceAnswer):
            probe(Told(f"{text}\n{text}", f"{text}\n{text}"))  # type: ignore[arg-type]


def test_a_garbled_answer_is_asked_for_once_more_after_a_reset() -> None:
    good = repr(ANSWER)
    bad = good.replace("3300", "3301")
    repl = Told(f"{good}\n{bad}\n", f"tick\n{good}\n{good}\n")
    assert probe(repl) == FACTS  # type: ignore[arg-type]
    assert repl.resets == 1
    repl = Told(f"{good}\n{good}\n")
    assert probe(repl) == FACTS  # type: ignore[arg-type]
    assert repl.resets == 0
    long = f"{'#' * 16384}\n{good}\n{good}\n"
    for nonsense in ("", good, f"{good}\n{bad}", f"{bad}\n{good}", long):
        repl = Told(nonsense, nonsense)
        with pytest.raises(DeviceAnswer) as caught:
            probe(repl)  # type: ignore[arg-type]
        assert repl.resets == 1
        assert caught.value.detail == nonsense.strip()[-500:]
        assert caught.value.line == (
            "the camera does not answer as MicroPython does (ttyX); check that the port is an "
            "OpenMV camera's, reset it and try again"
        )


def test_what_it_calls_itself_is_shown_without_control_characters_and_cut() -> None:
    facts = told(machine="a\x1b[2Jb" + "c" * 300, here=["x\ny"])
    assert facts.machine == ("a\\x1b[2Jb" + "c" * 300)[:200]
    assert facts.here == ("x\\ny",)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("0aff 0aff", b"\x0a\xff"), ("0aff\n0aff\n", b"\x0a\xff"), ("", None), ("0a", None),
        ("0a 0b", None), ("0a 0a 0a", None), ("0x 0x", None), ("0 0", None),
    ],
)  # fmt: skip
def test_bytes_that_are_said_twice(text: str, found: bytes | None) -> None:
    assert said_twice(text) == found


@pytest.mark.parametrize(
    ("text", "count", "found"),
    [
        ("000000ff00000100", 2, [255, 256]), ("", 0, []), ("000000ff", 2, None),
        ("000000ff00000100", 1, None), ("0000 0xx", 1, None),
    ],
)  # fmt: skip
def test_checksums_that_are_said(text: str, count: int, found: list[int] | None) -> None:
    assert words_said(text, count) == found


@pytest.mark.parametrize(
    ("header", "erase", "board", "found"),
    [
        (HEADER, 4096, None, PartitionState(0, 64 * KIB, 4096, "image", len(IMAGE))),
        (b"\xff" * 16, None, None, PartitionState(0, 64 * KIB, None, "blank", 0)),
        (b"littlefs" * 2, None, "OPENMV4", PartitionState(0, 64 * KIB, 131072, "foreign", 0)),
        (HEADER, 4096, "OPENMV4", PartitionState(0, 64 * KIB, 4096, "image", len(IMAGE))),
    ],
)
def test_what_a_partition_holds(
    header: bytes, erase: int | None, board: str | None, found: PartitionState
) -> None:
    facts = replace(PARTITION, header=header, erase_size=erase)
    assert identity.partition_state(facts, get_board(board) if board else None) == found


UNNAMED = replace(FACTS, machine="", arch="")
STRANGER = replace(FACTS, machine="Homemade", arch="")
UNKNOWN_NOTE = (
    "the camera's board is not known ({}): what it reports itself is used, and no model is "
    "compiled; name a board with --board, or enter it in boards.toml"
)


@pytest.mark.parametrize(
    ("facts", "asked", "board", "notes"),
    [
        (FACTS, None, "OPENMV4P", ()),
        (FACTS, "OPENMV4P", "OPENMV4P", ()),
        (STRANGER, "OPENMV4", "OPENMV4", ()),
        (STRANGER, None, None, (UNKNOWN_NOTE.format("Homemade"),)),
        (UNNAMED, None, None, (UNKNOWN_NOTE.format("no name"),)),
        (FACTS, "n6", "OPENMV_N6",
         ("the camera says that it is OPENMV4P; OPENMV_N6 is used as asked",)),
    ],
)  # fmt: skip
def test_which_board_it_is_taken_for(
    facts: CameraFacts, asked: str | None, board: str | None, notes: tuple[str, ...]
) -> None:
    found, said = identity.find_board(facts, asked)
    assert (found and found.name, said) == (board, notes)


def described(facts: CameraFacts, board: str | None, usb: str = "") -> DeviceInfo:
    known = get_board(board) if board else None
    part = facts.partitions[0]
    flash = Geometry(part.size, 4096, "ranges", part.size - 512)
    return identity.describe("ttyX", facts, known, part, flash, ("a note",), usb)


def test_what_is_known_of_a_camera() -> None:
    whole = replace(
        FACTS, partitions=(replace(PARTITION, size=get_board("OPENMV4P").partition().size),)
    )
    size = whole.partitions[0].size
    info = DeviceInfo(
        kind="serial", key="OPENMV4P/3300/0", name="OPENMV4P on ttyX", board="OPENMV4P",
        partition=0, capacity=size - 512, erase_size=4096, mpy_version=(6, 3), march="armv7emdp",
        notes=("a note",), usb_serial="usb", here=("/flash", "main.py"),
        firmware="OpenMV 4.8.1, MicroPython 1.26.0", has_id=True,
    )  # fmt: skip
    assert described(whole, "OPENMV4P", "usb") == info
    n6 = described(whole, "OPENMV_N6", "usb")
    assert n6 == replace(
        info, name="OPENMV_N6 on ttyX", board="OPENMV_N6",
        notes=("a note", f"the camera's partition 0 has {size:,} bytes, the table of boards says "
               f"{24 << 20:,} for OPENMV_N6: the camera's size is used"),
    )  # fmt: skip
    mute = replace(
        whole, machine="", arch="", unique_id="",
        partitions=(replace(whole.partitions[0], erase_size=None, min_write=None),),
    )  # fmt: skip
    cannot = (
        "this camera's firmware cannot write its ROMFS: edits can be committed to a file "
        "(romfsfs commit --to FILE)"
    )
    assert described(mute, None) == replace(
        info, key="unknown/ttyX/0", name="camera on ttyX", board=None, erase_size=None,
        usb_serial="", has_id=False, notes=("a note", cannot),
    )  # fmt: skip
    read_only = replace(mute, machine="OPENMV4P with STM32H743")
    assert described(read_only, "OPENMV4P") == replace(
        info, key="OPENMV4P/ttyX/0", usb_serial="", has_id=False,
        notes=("a note", f"{cannot}, and that file pushed to dfu:OPENMV4P"),
    )  # fmt: skip
    assert described(replace(mute, machine="Homemade"), None).name == "Homemade on ttyX"


def test_a_stranger_is_what_it_is_used_as() -> None:
    """Its erase size, and the way by the boot loader, are then of that board."""
    part = replace(PARTITION, size=1 << 17, erase_size=None, min_write=None)
    stranger = replace(FACTS, machine="Homemade", arch="", partitions=(part,))
    info = described(stranger, "OPENMV4")
    assert (info.key, info.board, info.erase_size) == ("unknown/3300/0", "OPENMV4", 1 << 17)
    assert info.notes[1].endswith(", and that file pushed to dfu:OPENMV4")
    known = described(replace(stranger, machine="OPENMV4P"), "OPENMV4")
    assert known.erase_size == 4096
    assert known.notes[-1].endswith(", and that file pushed to dfu:OPENMV4P")


def test_the_partition_that_is_meant() -> None:
    second = replace(PARTITION, index=2)
    facts = replace(FACTS, partitions=(PARTITION, second))
    n6 = get_board("OPENMV_N6")
    assert identity.choose_partition("ttyX", facts, None, 0) == PARTITION
    assert identity.choose_partition("ttyX", facts, None, 2) == second
    with pytest.raises(UsageError) as wrong:
        identity.choose_partition("ttyX", facts, None, 1)
    assert wrong.value.line == "the camera has no ROMFS partition 1 (ttyX); it has: 0, 2"
    for said, board in ((FACTS, get_board("OPENMV4P")), (STRANGER, n6)):
        with pytest.raises(identity.NoRomfsAccess) as caught:
            identity.choose_partition("ttyX", replace(said, partitions=()), n6, 0)
        assert caught.value.board is board
        assert caught.value.line == (
            "this camera's firmware gives no access to a ROMFS partition (ttyX); update its "
            "firmware (OpenMV IDE: Tools, Run Bootloader)"
        )


def test_what_is_said_of_firmware_that_does_not_answer_or_write() -> None:
    for loader, way in (("", ""), ("dfu:X", "write with SOURCE dfu:X, or ")):
        error = identity.not_writable("name", loader)
        assert (error.line, error.errno) == (
            f"this camera's firmware cannot write its ROMFS (name); nothing was changed; {way}"
            "update its firmware", 30,
        )  # fmt: skip
    wrong = identity.wrong_answer("ttyX", "a" + "b" * 500)
    assert (wrong.line, wrong.detail) == (
        "the camera's answer makes no sense (ttyX); reset the camera and repeat the command",
        "b" * 500,
    )


@pytest.mark.parametrize(
    ("board", "index", "source"),
    [
        ("OPENMV4P", 0, "dfu:OPENMV4P"), ("OPENMV_AE3", 1, "dfu:OPENMV_AE3"),
        ("OPENMV_AE3", 2, ""), ("OPENMV_RT1060", 0, "dfu:OPENMV_RT1060"), ("MPS2_AN500", 0, ""),
        (None, 0, ""),
    ],
)  # fmt: skip
def test_the_way_by_the_boot_loader(board: str | None, index: int, source: str) -> None:
    assert identity.boot_loader(get_board(board) if board else None, index) == source


SIZE = 64 * KIB
RANGES = Geometry(SIZE, 4096, "ranges", SIZE - 512)


def slots_of(content: bytes, unit: int = 4096) -> tuple[Slot, ...]:
    return find_slots(lambda at, count: content[at : at + count], SIZE, lambda *_: "", unit)


SLOTS = slots_of(two_slots(SIZE, IMAGE, IMAGE))
INFO = DeviceInfo("serial", "OPENMV4P/3300/0", "OPENMV4P on ttyX", notes=("a note",), capacity=SIZE)
SHOWN = (
    f"an openmv-ota camera: slot A, {len(IMAGE):,} B, runs; slot B, {len(IMAGE):,} B, older; "
    "what is shown here is slot "
)


def test_a_camera_of_openmv_ota_is_one_of_its_slots() -> None:
    assert [slot.room for slot in SLOTS] == [24 * KIB] * 2
    shown = replace(INFO, slots=SLOTS, capacity=24 * KIB)
    assert identity.with_slots(INFO, (), "", RANGES) == INFO
    for slot in ("", "A"):
        found = identity.with_slots(INFO, SLOTS, slot, RANGES)
        assert found == replace(shown, notes=("a note", f"{SHOWN}A"))
    b = replace(shown, key="OPENMV4P/3300/0B", slot="B", notes=("a note", f"{SHOWN}B"))
    assert identity.with_slots(INFO, SLOTS, "B", RANGES) == b
    prefix = replace(RANGES, mode="prefix")
    assert identity.with_slots(INFO, SLOTS, "A", prefix).notes == ("a note", f"{SHOWN}A")
    assert identity.with_slots(INFO, SLOTS, "B", prefix).notes[1:] == (
        f"{SHOWN}B; this camera's firmware erases from the partition's start on: slot B cannot be "
        "written without slot A",
    )
    narrow = tuple(slot._replace(room=0) for slot in SLOTS)
    assert identity.with_slots(INFO, narrow, "", RANGES).capacity == 24 * KIB
    for slots, slot, there in (((), "A", "no slots of openmv-ota"), (ONE, "B", ALONE)):
        with pytest.raises(UsageError) as caught:
            identity.with_slots(INFO, slots, slot, RANGES)
        assert caught.value.line == (
            f"partition 0 holds {there} (OPENMV4P on ttyX); nothing was written there; leave out "
            "--slot"
        )


ONE, ALONE = slots_of(one_slot(SIZE, IMAGE)), "slot A of openmv-ota alone"


@pytest.mark.parametrize(
    ("flash", "room"), [(RANGES, SIZE - 8 * KIB), (replace(RANGES, block=SIZE), 0)]
)
def test_one_slot_is_all_of_the_partition(flash: Geometry, room: int) -> None:
    """What a write may not erase is not offered as room: what openmv-ota's tools take is."""
    (one,) = slots = slots_of(one_slot(SIZE, IMAGE), flash.block)
    assert (one.name, one.offset, one.size, one.room, one.only) == ("A", 0, SIZE, room, True)
    note = (
        f"an openmv-ota camera: slot A over the whole partition, {len(IMAGE):,} B, as it was "
        "signed; what is shown here is slot A"
    )
    wanted = replace(INFO, slots=slots, capacity=SIZE - 8 * KIB, notes=("a note", note))
    for slot in ("", "A"):
        assert identity.with_slots(INFO, slots, slot, flash) == wanted
    assert identity.in_slot(flash, 0, one.size) == flash, "as far as it may be read"


def test_what_of_the_flash_is_a_slot() -> None:
    half = 32 * KIB
    assert identity.in_slot(RANGES, 0, half) == replace(RANGES, size=half, readable=half)
    assert identity.in_slot(RANGES, half, half) == replace(RANGES, size=half, readable=half - 512)
    wide = replace(RANGES, block=SIZE)
    assert identity.in_slot(wide, 0, half).block == half


def test_a_camera_without_slots_is_asked_one_short_question() -> None:
    asked: list[tuple[tuple[int, int], ...]] = []

    def peek(*ranges: tuple[int, int]) -> bytes:
        asked.append(ranges)
        return b"".join(held[at : at + count] for at, count in ranges)

    held = IMAGE.ljust(SIZE, b"\xff")
    assert identity.find_slots_there(peek, lambda *_: "", RANGES) == ()
    assert asked == [((28 * KIB, 4), (60 * KIB, 4))]
    held = two_slots(SIZE, IMAGE, IMAGE)
    assert identity.find_slots_there(peek, lambda *_: "", RANGES) == SLOTS
    held = b"\xff" * (SIZE - 4096) + held[SIZE - 4096 :]  # A was never written
    found = identity.find_slots_there(peek, lambda *_: "", RANGES)
    assert [slot.name for slot in found] == ["B"]
    assert identity.with_slots(INFO, found, "", RANGES).capacity == 24 * KIB
    held = one_slot(SIZE, IMAGE)
    assert identity.find_slots_there(peek, lambda *_: "", RANGES) == ONE
    held, odd = one_slot(SIZE + 4096, IMAGE), replace(RANGES, size=SIZE + 4096)
    asked.clear()
    (one,) = identity.find_slots_there(peek, lambda *_: "", odd)
    assert (one.only, one.size) == (True, SIZE + 4096)
    assert asked[0] == ((28 * KIB, 4), (60 * KIB, 4), (SIZE, 4))
    asked.clear()
    assert (
        identity.find_slots_there(peek, lambda *_: "", Geometry(8192, 4096, "ranges", 8192)) == ()
    )
    assert asked == []


@pytest.mark.parametrize(
    ("size", "kind", "erase", "machine", "found"),
    [
        (SIZE, "memory", 4096, "", Geometry(SIZE, 4096, "ranges", SIZE)),
        (SIZE, "block", 4096, "", Geometry(SIZE, 4096, "ranges", SIZE, word=PAGE)),
        (SIZE, "memory", SIZE, "", Geometry(SIZE, SIZE, "prefix", SIZE)),
        (SIZE, "memory", 2 * SIZE, "", Geometry(SIZE, SIZE, "prefix", SIZE)),
        (SIZE, "memory", None, "STM32H7", Geometry(SIZE, SIZE, "prefix", SIZE)),
        (2 * SIZE, "memory", None, "", Geometry(2 * SIZE, 2 * SIZE, "prefix", 2 * SIZE, word=32)),
        (
            2 * SIZE,
            "memory",
            None,
            "X with STM32F4",
            Geometry(2 * SIZE, 2 * SIZE, "prefix", 2 * SIZE),
        ),
        (
            2 * SIZE,
            "memory",
            None,
            "X with STM32F765",
            Geometry(2 * SIZE, 2 * SIZE, "prefix", 2 * SIZE, cached=True),
        ),
        (
            2 * SIZE,
            "memory",
            None,
            "X with STM32H743",
            Geometry(2 * SIZE, 2 * SIZE, "prefix", 2 * SIZE, word=32, cached=True),
        ),
        (SIZE, "memory", 257, "", Geometry(SIZE, 257, "ranges", SIZE)),
        (SIZE, "memory", 256, "", Geometry(SIZE, 4096, "never", SIZE, 256)),
        (SIZE, "memory", 16, "", Geometry(SIZE, 4096, "never", SIZE, 16)),
        (SIZE, "block", 4, "", Geometry(SIZE, 4096, "never", SIZE, 16)),
    ],
)
def test_the_geometry_of_a_memory(
    size: int, kind: str, erase: int | None, machine: str, found: Geometry
) -> None:
    facts = replace(PARTITION, size=size, kind=kind, erase_size=erase)
    assert identity.geometry(facts, None, machine) == found


@pytest.mark.parametrize(
    ("mode", "word", "announced", "size"),
    [
        ("never", 0, 4, 16), ("ranges", 0, 0, 16), ("ranges", 0, 1, 4), ("ranges", 0, 4, 4),
        ("ranges", 0, 8, 8), ("ranges", 0, 256, 256), ("ranges", 0, 24, None),
        ("ranges", 0, 512, None), ("prefix", 32, 16, 32), ("prefix", 32, 64, 64),
        ("ranges", PAGE, 0, PAGE),
    ],
)  # fmt: skip
def test_the_last_write(mode: Any, word: int, announced: int, size: int | None) -> None:
    assert seal_size(Geometry(SIZE, 4096, mode, SIZE, 16, word), announced) == size


@pytest.mark.parametrize(
    ("board", "machine", "facts", "found"),
    [
        ("OPENMV4P", "STM32H743", {}, Geometry(SIZE, 4096, "ranges", SIZE - 512)),
        ("OPENMV_N6", "STM32N657", {}, Geometry(SIZE, 4096, "ranges", SIZE)),
        (None, "", {}, Geometry(SIZE, 4096, "ranges", SIZE)),
        (None, "", {"kind": "block", "erase_size": None},
         Geometry(SIZE, SIZE, "prefix", SIZE, 16, PAGE)),
        ("OPENMV_N6", "", {"erase_size": None}, Geometry(SIZE, 4096, "prefix", SIZE)),
        ("OPENMV2", "OPENMV2 with STM32F427", {"size": 2 * SIZE, "erase_size": 2 * SIZE},
         Geometry(2 * SIZE, 2 * SIZE, "prefix", 2 * SIZE, 16, 0)),
        ("OPENMV4", "OPENMV4 with STM32H743", {"size": 2 * SIZE, "erase_size": 2 * SIZE},
         Geometry(2 * SIZE, 2 * SIZE, "prefix", 2 * SIZE, 16, 32, cached=True)),
        # the AE3's MRAM, which only says what it writes at least
        ("OPENMV_AE3", "", {"erase_size": None, "min_write": 16},
         Geometry(SIZE, 4096, "never", SIZE, 16)),
        ("OPENMV_AE3", "", {"erase_size": None, "min_write": 4},
         Geometry(SIZE, 4096, "prefix", SIZE)),
        ("OPENMV_AE3", "", {"erase_size": 4096, "min_write": 16},
         Geometry(SIZE, 4096, "ranges", SIZE)),
        ("OPENMV4", "", {"erase_size": None, "min_write": 16},
         Geometry(SIZE, SIZE, "prefix", SIZE)),
    ],
)  # fmt: skip
def test_the_geometry_of_a_cameras_partition(
    board: str | None, machine: str, facts: dict[str, Any], found: Geometry
) -> None:
    known = get_board(board) if board else None
    assert identity.geometry(replace(PARTITION, **facts), known, machine) == found
