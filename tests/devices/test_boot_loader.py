"""What a `BootLoaderDevice` asks of a boot loader, call by call, on one whose flash is memory."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from ota_slots import one_slot, two_slots

from romfsfs.boards import Partition, get_board
from romfsfs.devices.base import DeviceInfo, WriteReport
from romfsfs.devices.bootloader import device as bootloader_device
from romfsfs.devices.bootloader.device import BootLoaderDevice
from romfsfs.errors import DeviceError, DeviceLost, VerifyError
from romfsfs.image.rules import DEFAULT_RULES
from romfsfs.image.writer import encode
from romfsfs.system.files import Progress

KIB = 1024
SIZE = 64 * KIB
AE3 = get_board("OPENMV_AE3")
IMAGE = encode({"a.bin": bytes(range(256)) * 30}, DEFAULT_RULES)
OTHER = encode({"a.bin": bytes(range(255, -1, -1)) * 40}, DEFAULT_RULES)
PAGE = 256


class RamLoader:
    """NOR flash: writing clears bits. Its calls are kept; the next writes can be spoilt."""

    kind = "rt1060"
    name = "board in its boot loader"
    identity = "1234"
    path = "1-2"

    def __init__(self, content: bytes = b"", size: int = SIZE, header_unit: int = PAGE) -> None:
        self.flash = bytearray(content.ljust(size, b"\xff"))
        self.capacity = size
        self.header_unit = header_unit
        self.calls: list[tuple[str, int]] = []
        self.spoil: list[int] = []  # where the next writes drop a bit
        self.stuck = False
        self.failing = False

    def read(self, path: Path, length: int, progress: Progress) -> None:
        assert not path.exists(), "dfu-util does not write to a file that is there"
        self.calls.append(("read", length))
        progress("reading", length, length)
        path.write_bytes(self.flash[:length])

    def write(self, path: Path, progress: Progress) -> None:
        data = path.read_bytes()
        self.calls.append(("write", len(data)))
        progress("writing", len(data), len(data))
        if not self.stuck:
            self.flash[: len(data)] = bytes(a & b for a, b in zip(self.flash, data, strict=False))
        if self.spoil:
            self.flash[self.spoil.pop(0)] ^= 1

    def erase(self, length: int, progress: Progress) -> None:
        self.calls.append(("erase", length))
        if self.failing:
            raise DeviceLost("the cable")
        progress("erasing", 0, length)
        if not self.stuck:
            self.flash[:length] = b"\xff" * length

    def reset(self) -> None:
        self.calls.append(("reset", 0))
        if self.failing:
            raise DeviceError("it does not leave")

    def took(self) -> list[tuple[str, int]]:
        """The calls since the last question."""
        calls, self.calls = self.calls, []
        return calls


def made(
    loader: RamLoader, erase_size: int = 4096, leave: bool = False, port: str = ""
) -> BootLoaderDevice:
    partition: Partition = replace(AE3.partition(), size=loader.capacity, erase_size=erase_size)
    return BootLoaderDevice(loader, AE3, partition, leave=leave, port=port)


def report(of: WriteReport) -> WriteReport:
    assert of.seconds >= 0
    return replace(of, seconds=0)


@pytest.mark.parametrize(("unit", "told"), [(16, 0), (PAGE, 0), (4096, 4096)])
def test_what_is_known_of_a_camera_in_its_loader(unit: int, told: int) -> None:
    device = made(RamLoader(header_unit=unit))
    assert device.info() == DeviceInfo(
        kind="rt1060", key="OPENMV_AE3/1234/0", name="board in its boot loader",
        board="OPENMV_AE3", partition=0, capacity=SIZE, erase_size=4096, march="armv7emdp",
        notes=("a camera in its boot loader does not report its bytecode version",),
        header_unit=told,
    )  # fmt: skip
    assert device.digest(100) is None


@pytest.mark.parametrize(("path", "key"), [("1-2", "1-2"), ("", "bootloader")])
def test_a_loader_that_tells_no_unique_id(path: str, key: str) -> None:
    """Where it is plugged in stands for it, and nothing counts as known about who it is."""
    loader = RamLoader()
    loader.identity, loader.path = "", path
    info = made(loader).info()
    assert (info.key, info.has_id) == (f"OPENMV_AE3/{key}/0", False)


def test_what_was_read_answers_until_the_device_is_closed() -> None:
    """Wherever the file that it is compared with stands."""
    loader = RamLoader(IMAGE)
    device = made(loader)
    same, other = io.BytesIO(IMAGE), io.BytesIO(OTHER)
    assert device.matches(same, len(IMAGE)) is None
    out = io.BytesIO(b"before")
    out.seek(6)
    assert device.read_image(out) == len(IMAGE)
    assert out.getvalue() == b"before" + IMAGE
    for file in (same, other):
        file.seek(0, io.SEEK_END)
    assert device.matches(same, len(IMAGE)) is True
    assert device.matches(other, len(OTHER)) is False
    assert loader.took() == [("read", 16), ("read", len(IMAGE))]
    device.close()
    assert device.matches(same, len(IMAGE)) is None
    assert loader.took() == []


def test_a_write_asks_for_what_it_needs_and_no_more() -> None:
    """Erased, all but the header, the page with the header; read back. The same again: nothing.

    How much the loader erased for that is not reported: it may erase 16 times what the firmware
    does, and the header's block twice."""
    loader = RamLoader(OTHER)
    device = made(loader)
    told: list[tuple[str, int, int]] = []
    image = io.BytesIO(IMAGE)
    image.seek(0, io.SEEK_END)
    size = len(IMAGE)
    done = device.write_image(image, None, lambda *step: told.append(step))
    assert report(done) == WriteReport(size + PAGE, 0, 0, verified=True)
    assert loader.took() == [("erase", size), ("write", size), ("write", PAGE), ("read", size)]
    assert told == [
        ("erasing", 0, size), ("writing", size, size), ("writing", PAGE, PAGE),
        ("verifying", size, size),
    ]  # fmt: skip
    assert loader.flash[:size] == IMAGE
    again = device.write_image(io.BytesIO(IMAGE))
    assert report(again) == WriteReport(0, 0, 0, verified=True, skipped=size)
    assert loader.took() == []
    loader.failing = True
    with pytest.raises(DeviceLost):
        device.write_image(io.BytesIO(OTHER))
    assert device.matches(io.BytesIO(IMAGE), size) is None, "who knows what is there now"


@pytest.mark.parametrize(
    ("fill", "unit", "last"),
    [
        (0x00, 16, 16), (0x00, PAGE, PAGE), (0x00, 4096, 4096), (0x00, SIZE, len(IMAGE)),
        (0xFF, 4096, PAGE),
    ],
)  # fmt: skip
def test_how_much_is_written_together_with_the_header(fill: int, unit: int, last: int) -> None:
    """What is erased with it, but for the pages of it that are FF; where that is all of the
    image there is one write alone."""
    image = IMAGE[:PAGE] + bytes([fill]) * (4096 - PAGE) + IMAGE[4096:]
    loader = RamLoader(header_unit=unit)
    made(loader).write_image(io.BytesIO(image))
    size = len(image)
    writes = [("write", last)] if last >= size else [("write", size), ("write", last)]
    assert loader.took() == [("erase", size), *writes, ("read", size)]
    assert loader.flash[:size] == image


def test_a_write_that_is_read_back_wrong_is_repeated_once() -> None:
    loader = RamLoader()
    size = len(IMAGE)
    once = [("erase", size), ("write", size), ("write", PAGE), ("read", size)]
    loader.spoil = [300]
    done = made(loader).write_image(io.BytesIO(IMAGE))
    notes = ("the first attempt was read back wrong",)
    assert report(done) == WriteReport(2 * (size + PAGE), 0, 0, verified=True, notes=notes)
    assert loader.took() == once * 2
    loader.spoil = [300, 301, 5000, 4000]
    with pytest.raises(VerifyError) as caught:
        made(loader).write_image(io.BytesIO(IMAGE))
    assert caught.value.line == (
        "what was read back from the camera differs from what was written, in two attempts (board "
        "in its boot loader, first at 0xfa0); repeat the command; if it happens again, use another "
        "cable or port"
    )
    assert loader.took() == once * 2


def test_clearing_erases_a_page_and_looks() -> None:
    loader = RamLoader(IMAGE)
    device = made(loader)
    device.read_image(io.BytesIO())
    loader.took()
    device.clear()
    assert loader.took() == [("read", 16), ("erase", PAGE), ("write", PAGE), ("read", 16)]
    assert device.read_image(io.BytesIO()) == 0
    assert loader.took() == [("read", 16)]
    device.clear()
    assert loader.took() == [("read", 16)], "it is blank"
    loader = RamLoader(IMAGE)
    loader.stuck = True
    with pytest.raises(VerifyError, match=r"^the image is still there \(board .*; repeat the com"):
        made(loader).clear()


SLOTS = two_slots(SIZE, IMAGE, OTHER)
HALF = SIZE // 2
#: bytes up to the end of the trailer of A, of B
TO_A, TO_B = HALF - 4096 + 3072, SIZE - 4096 + 3072


@pytest.mark.parametrize(
    ("content", "seen", "size", "reads"),
    [
        (SLOTS, False, 1, [TO_A]),
        (SLOTS, False, HALF - 4096, [TO_A]),
        (SLOTS, False, HALF - 4095, [TO_B]),
        (SLOTS, True, 1, [TO_A]),
        (b"", False, 1, [TO_A]),
        (b"", True, 1, []),  # blank: no A, and B is not reached
        (b"", True, HALF, [TO_B]),
    ],
)
def test_as_much_is_read_for_slots_as_a_write_reaches(
    content: bytes, seen: bool, size: int, reads: list[int]
) -> None:
    """Once; what has no room for slots is not read for any."""
    loader = RamLoader(content)
    device = made(loader)
    if seen:
        device.read_image(io.BytesIO())
    loader.took()
    found = device.slots(size)
    names = {TO_A: "A", TO_B: "AB"}[reads[0]] if content else ""
    assert "".join(slot.name for slot in found) == names
    assert device.slots(size) == found
    assert loader.took() == [("read", count) for count in reads]


@pytest.mark.parametrize(
    ("erase", "blank", "size", "read", "room"),
    [
        (SIZE, False, 1, TO_B, 0), (SIZE, True, 1, TO_B, 0), (HALF + 4096, False, 1, TO_B, 0),
        (HALF, False, 1, TO_A, None), (HALF, False, HALF, TO_B, HALF),
    ],
)  # fmt: skip
def test_a_single_slot_is_looked_for_where_two_cannot_be(
    erase: int, blank: bool, size: int, read: int, room: int | None
) -> None:
    """Whatever is at its start; elsewhere before a write that reaches beyond the half."""
    loader = RamLoader(one_slot(SIZE, IMAGE))
    if blank:
        loader.flash[:HALF] = b"\xff" * HALF
    device = made(loader, erase)
    device.read_image(io.BytesIO())
    loader.took()
    found = device.slots(size)
    assert loader.took() == [("read", read)]
    assert [(slot.name, slot.only, slot.whole, slot.room) for slot in found] == (
        [] if room is None else [("A", True, not blank, room)]
    )


@pytest.mark.parametrize("size", [4096, 8192])
def test_a_partition_without_room_for_slots_is_not_read(size: int) -> None:
    loader = RamLoader(size=size)
    assert made(loader).slots(size) == ()
    assert loader.took() == []


@pytest.mark.parametrize(
    ("unit", "erase", "room"),
    [(PAGE, 4096, 24 * KIB), (16 * KIB, 4096, 16 * KIB), (PAGE, 16 * KIB, 16 * KIB)],
)
def test_the_room_of_a_slot_ends_where_the_loader_would_erase_its_status(
    unit: int, erase: int, room: int
) -> None:
    (slot,) = made(RamLoader(SLOTS, header_unit=unit), erase).slots(1)
    assert slot.room == room


@pytest.mark.parametrize(
    ("work", "leave", "resets"),
    [
        ([], False, 0), ([], True, 1), (["close"], True, 1), (["restart"], False, 1),
        (["restart"], True, 1), (["hold"], True, 1),
    ],
)  # fmt: skip
def test_the_firmware_is_started_once(work: list[str], leave: bool, resets: int) -> None:
    loader = RamLoader(IMAGE)
    device = made(loader, leave=leave)
    for name in work:
        getattr(device, name)()
    device.close()
    assert loader.took().count(("reset", 0)) == resets


def test_a_camera_that_does_not_leave_is_still_closed() -> None:
    loader = RamLoader(IMAGE)
    loader.failing = True
    device = made(loader, leave=True)
    device.close()
    assert loader.took() == [("reset", 0)]
    with pytest.raises(DeviceError, match="it does not leave"):
        device.restart()


@pytest.mark.parametrize(
    ("comes", "leave", "fails", "waits"),
    [(0, True, False, 0), (3, True, False, 3), (99, True, False, 50), (99, False, False, 0),
     (99, True, True, 0)],
)  # fmt: skip
def test_a_camera_is_closed_when_its_serial_port_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, comes: int, leave: bool, fails: bool,
    waits: int,
) -> None:  # fmt: skip
    """Who opens it next may name that. One that is not back within 5 s was unplugged."""
    port = tmp_path / "ttyACM0"
    slept = 0

    def sleep(seconds: float = 0.1) -> None:
        nonlocal slept
        assert seconds == 0.1
        slept += 1
        if slept == comes:
            port.touch()

    if comes == 0:
        port.touch()
    clock = SimpleNamespace(monotonic=lambda: slept / 10, sleep=sleep)
    monkeypatch.setattr(bootloader_device, "time", clock)
    loader = RamLoader(IMAGE)
    loader.failing = fails
    made(loader, leave=leave, port=str(port)).close()
    assert slept == waits


@pytest.mark.parametrize(("missing", "words"), [(1, "1 byte"), (16, "16 bytes")])
def test_a_read_that_ends_early_says_by_how_much(
    missing: int, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    loader = RamLoader(IMAGE)

    def cut(path: Path, length: int, progress: Callable[..., None]) -> None:
        if length > missing:
            path.write_bytes(IMAGE[: length - missing])

    monkeypatch.setattr(loader, "read", cut)
    with pytest.raises(DeviceError) as caught:
        made(loader).hold()
    assert not isinstance(caught.value, DeviceLost), "it is there: its cable was not pulled"
    assert caught.value.line == (
        f"the read ended {words} early (board in its boot loader); repeat the command"
    )
