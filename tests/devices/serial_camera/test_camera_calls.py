"""What a `SerialCamera` asks of a camera, call by call, on one whose flash is memory."""

from __future__ import annotations

import errno
import hashlib
import io
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from camera_helpers import KIB, Clock, edited, make_image, opened
from ota_slots import two_slots

from romfsfs.boards import get_board
from romfsfs.devices.base import PartitionState, WriteReport
from romfsfs.devices.serial_camera import camera as cameras
from romfsfs.devices.serial_camera import questions
from romfsfs.devices.serial_camera.camera import SerialCamera
from romfsfs.devices.serial_camera.probe import CameraFacts, PartitionFacts
from romfsfs.devices.serial_camera.reading import Window
from romfsfs.errors import (
    DeviceAnswer,
    DeviceError,
    DeviceLost,
    ImageFormatError,
    RomfsError,
    UsageError,
    VerifyError,
)
from romfsfs.image.writer import encode

SIZE = 64 * KIB
PARTITION = PartitionFacts(0, "memory", SIZE, 4096, b"\xff" * 16, 4)
FACTS = CameraFacts(
    "OPENMV_N6 with STM32N657", "N6", "4.8.1", "3300", "1.26.0", (6, 3), "armv7emdp",
    (PARTITION,), True, True, True, True, True, 200_000,
)  # fmt: skip
OLD, NEW = make_image(20 * KIB), make_image(18 * KIB, 1)
#: where programming of it ends
END = -(-len(NEW) // 256) * 256
LOADER = "; if that happens again, write with SOURCE dfu:OPENMV_N6"


class Desk:
    """A camera's port and REPL in one. Commands are tuples in place of code; each call is kept.
    spoil: what comes in place of the next answers, text or an error; None: the answer."""

    name = "ttyX"

    def __init__(self, content: bytes = b"", size: int = SIZE) -> None:
        self.flash = bytearray(content.ljust(size, b"\xff"))
        self.calls: list[Any] = []
        self.spoil: list[Any] = []
        self.lost: list[int] = []  # how far the next reads come
        self.stuck: set[int] = set()  # blocks that keep what they hold
        self.erase_answer = 4
        self.failing: DeviceError | None = None
        self.sent = 0
        self.port = self
        self.limits: list[float] = []

    def run(
        self, code: Any, limit: float = 10.0, heartbeat: Callable[[bytes], None] | None = None
    ) -> str:
        self.calls.append(code)
        self.limits.append(limit)
        self.sent += 100
        if self.failing:
            raise self.failing
        said = self.spoil.pop(0) if self.spoil else None
        if isinstance(said, Exception):
            raise said
        if heartbeat:
            heartbeat(b"..")
            heartbeat(b"x.")
        return self.answer(*code) if said is None else said

    def answer(self, what: str, *words: Any) -> str:
        if what == "digest":
            return "..." + f"{hashlib.sha256(self.flash[words[0] : words[1]]).hexdigest()}\n" * 2
        if what == "checksums":
            start, end, step, crc32 = words
            blocks = [self.flash[at : min(at + step, end)] for at in range(start, end, step)]
            return "".join(f"{checksum(block, crc32):08x}" for block in blocks) + "\n"
        if what == "peek":
            return f"{b''.join(self.flash[at : at + count] for at, count in words).hex()}\n" * 2
        return ""

    def called(self, name: str) -> None:
        self.calls.append(name)
        if self.failing:
            raise self.failing

    def soft_reset(self) -> None:
        self.called("soft reset")

    def recover(self) -> None:
        self.called("recover")

    def restart(self) -> None:
        self.called("restart")

    def leave(self) -> None:
        self.called("leave")

    def close(self) -> None:
        self.calls.append("close")

    def took(self) -> list[Any]:
        calls, self.calls = self.calls, []
        return calls


def checksum(data: bytes, crc32: bool) -> int:
    return zlib.crc32(data) if crc32 else int(hashlib.sha256(data).hexdigest()[:8], 16)


class Writing:
    """In the place of `Writer`: carries operations out in the flash."""

    def __init__(self, desk: Desk, window: Window, *, prefix: bool, advice: str) -> None:
        self.desk, self.window, self.prefix = desk, window, prefix
        self.advice = advice
        self.chunk = window.chunk
        self.programmed = self.erase_answer = 0

    def __enter__(self) -> Writing:
        self.desk.calls.append("prefix" if self.prefix else "write")
        return self

    def __exit__(self, *_: object) -> None: ...

    def run(self, operations: Any, done: Callable[[Any], None] | None = None) -> None:
        for each in operations:
            self.desk.calls.append((each.kind[0], each.start, each.end))
            if self.desk.failing:
                raise self.desk.failing
            at, end = (self.window.start + place for place in (each.start, each.end))
            if not self.desk.stuck & set(range(at // 4096, -(-end // 4096))):
                data = each.data or b"\xff" * (end - at)
                self.desk.flash[at:end] = data
            if each.kind == "erase":
                self.erase_answer = self.desk.erase_answer
            else:
                self.programmed += end - at
            if done:
                done(each)


def reading(
    desk: Desk, window: Window, start: int, end: int, out: Any, done: Callable[[int], None]
) -> int:
    """In the place of `read_range`."""
    desk.calls.append(("read", start, end))
    if desk.spoil and isinstance(desk.spoil[0], Exception):
        raise desk.spoil.pop(0)
    stop = desk.lost.pop(0) if desk.lost else end
    out.write(desk.flash[window.start + start : window.start + stop])
    done(stop)
    return stop


@contextmanager
def records(desk: Desk, window: Window, size: int) -> Iterator[bytes]:
    desk.calls.append(("records", window.start, size))
    yield bytes(desk.flash[window.start : window.start + size])


@pytest.fixture(autouse=True)
def modelled(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Commands that tell what they are, and a clock that stands still."""
    clock = Clock()
    table = SimpleNamespace(
        digest=lambda kind, index, start, end: ("digest", start, end),
        peek=lambda kind, index, *places: ("peek", *places),
        checksums=lambda kind, index, *, start, end, step, crc32: (
            "checksums", start, end, step, crc32),
        mount=lambda index: ("mount", index),
        UNMOUNT=("unmount",),
    )  # fmt: skip
    for name, value in {
        "snippets": table, "Writer": Writing, "read_range": reading, "records_of": records,
        "time": clock, "usb_serial": lambda port: f"usb of {port}",
        "trying": SimpleNamespace(open_model=lambda repl, path: repl.run(("model", path)) or path),
    }.items():  # fmt: skip
        monkeypatch.setattr(cameras, name, value)
    monkeypatch.setattr(questions, "snippets", table)
    return clock


def made(desk: Desk, board: str | None = "OPENMV_N6", **changes: Any) -> SerialCamera:
    parts = {name: changes.pop(name) for name in list(changes) if hasattr(PARTITION, name)}
    partition = replace(PARTITION, size=len(desk.flash), **parts)
    facts = replace(FACTS, partitions=(partition,), **changes)
    return SerialCamera(desk, desk, facts, board and get_board(board), partition, ("a note",))  # type: ignore[arg-type]


PEEK = ("peek", (0, 16))
#: what a slot is looked for with, in a partition of this size
LOOK = ("peek", (28 * KIB, 4), (60 * KIB, 4))


@pytest.mark.parametrize("index", [None, 0, 1])
def test_opening(monkeypatch: pytest.MonkeyPatch, index: int | None) -> None:
    desk = Desk(OLD)
    second = replace(PARTITION, index=1, header=OLD[:16])
    facts = replace(FACTS, partitions=(PARTITION, second))
    monkeypatch.setattr(cameras, "Port", lambda name: desk if name == "ttyX" else None)
    monkeypatch.setattr(cameras, "RawRepl", lambda port: port)
    monkeypatch.setattr(cameras, "probe", lambda repl: facts if repl is desk else None)
    camera = SerialCamera.open("ttyX", partition=index)
    info = camera.info()
    assert (info.partition, info.key, info.usb_serial) == (
        index or 0, f"OPENMV_N6/3300/{index or 0}", "usb of ttyX",
    )  # fmt: skip
    assert camera.partitions() == (
        PartitionState(0, SIZE, 4096, "blank", 0),
        PartitionState(1, SIZE, 4096, "image", len(OLD)),
    )
    assert desk.took() == [LOOK]
    camera = SerialCamera.open("ttyX", board="OPENMV4P")
    info = camera.info()
    assert (info.board, info.notes[0][:20]) == ("OPENMV4P", "the camera says that")
    assert info.capacity == SIZE, "of what it is"
    assert camera.board == get_board("OPENMV4P")
    for failing, error in ((None, UsageError), (DeviceLost("gone"), DeviceLost)):
        desk.took()
        desk.failing = failing
        with pytest.raises(error):
            SerialCamera.open("ttyX", slot="" if failing else "B")
        assert desk.took() == [LOOK, "leave", "close"]
    stranger = replace(facts, machine="Homemade", arch="", partitions=(replace(
        PARTITION, size=24 << 20, erase_size=None),))  # fmt: skip
    desk = Desk()
    used = SerialCamera(desk, desk, stranger, get_board("OPENMV_N6"), stranger.partitions[0])  # type: ignore[arg-type]
    assert used.partitions()[0].erase_size == 4096, "as what it is used as"
    assert used.info().notes == ()


def test_a_digest_is_told_about_as_it_comes() -> None:
    """Three dots of 256 KiB; no more than may be read."""
    desk = Desk(OLD, 1 << 20)
    camera = made(desk)
    assert camera.digest(1 << 20) == hashlib.sha256(desk.flash).hexdigest()
    assert camera.digest(1 << 21) == camera.digest(1 << 20)
    assert desk.took() == [("digest", 0, 1 << 20)] * 3
    told: list[Any] = []
    camera._ask.digest(1000, 700_000, lambda *step: told.append(step))
    assert told == [("verifying", 0x80000, 699_000), ("verifying", 699_000, 699_000)]
    assert made(desk, sha256=False).digest(10) is None


def test_what_makes_no_sense_is_asked_for_once_more() -> None:
    """When a soft reset has ended what prints; where /rom is unmounted it stays so."""
    desk = Desk(OLD)
    camera = made(desk)
    bad = DeviceAnswer("nonsense")
    for unmounted, mend in ((False, "soft reset"), (True, "recover")):
        camera._unmounted = unmounted
        for spoil in ("tick", bad):
            desk.spoil = [spoil]
            assert camera._ask.peek((0, 16)) == OLD[:16]
            assert desk.took() == [PEEK, mend, PEEK]
        desk.spoil = ["tick\n", "tock\n"]
        with pytest.raises(DeviceAnswer) as caught:
            camera._ask.peek((0, 16))
        assert (caught.value.line, caught.value.detail) == (
            "the camera's answer makes no sense (ttyX); reset the camera and repeat the command",
            "tock",
        )
        assert desk.took() == [PEEK, mend] * 2
        desk.spoil = ["tick", bad]
        with pytest.raises(DeviceAnswer, match="nonsense"):
            camera._ask.peek((0, 16))
        assert desk.took() == [PEEK, mend, PEEK]


@pytest.mark.parametrize(
    ("changes", "asked"),
    [
        ({}, ("digest", 0, SIZE)),
        ({"sha256": False}, ("checksums", 0, SIZE, 65536, True)),
        ({"sha256": False, "crc32": False}, None),
    ],
)
def test_is_an_image_there(changes: dict[str, Any], asked: Any) -> None:
    """Up to the last byte that may be read; a larger one is not, and nothing is asked."""
    whole = OLD.ljust(SIZE, b"\xff")
    desk = Desk(whole)
    camera = made(desk, **changes)
    assert camera.matches(opened(whole), SIZE) is (None if asked is None else True)
    assert camera.matches(opened(edited(whole, 0)), SIZE) is (None if asked is None else False)
    assert desk.took() == ([asked] * 2 if asked else [])
    assert camera.matches(opened(whole + b"x"), SIZE + 1) is False
    assert desk.took() == []
    if not changes:
        return
    assert made(Desk(whole), crc32=False)._ask.checksum(b"x") == checksum(b"x", False)
    desk.limits.clear()
    camera._ask.checksums(0, 200, 100)
    camera._ask.checksums(0, 200, 1 << 20)
    assert desk.limits == [10 + 100 / 100_000, 10 + (1 << 20) / 100_000]


def test_what_is_read() -> None:
    desk = Desk(OLD + b"more")
    camera, told, out = made(desk), [], io.BytesIO()
    size = len(OLD)
    assert camera.read_image(out, lambda *step: told.append(step)) == size
    assert out.getvalue() == OLD
    assert told == [("reading", 0, size), ("reading", size, size)]
    assert desk.took() == [PEEK, ("read", 0, size)]
    tree = camera.read_tree()
    assert tree is not None
    assert [node.name for node in tree.root.children] == [f"model{n}.bin" for n in range(4)]
    assert desk.took() == [PEEK, ("records", 0, size)]
    desk.flash[:] = b"\xff" * SIZE
    told.clear()
    assert camera.read_image(out, lambda *step: told.append(step)) == 0
    assert camera.read_tree() is None
    assert (desk.took(), told) == ([PEEK] * 2, [])
    for content, why in (
        (b"littlefs", "it does not start"),
        (NEW[:13] + b"\x84\x80\0", "declares"),
    ):
        desk.flash[:] = content.ljust(SIZE, b"\0")
        for work in (lambda: camera.read_image(out), camera.read_tree):
            with pytest.raises(ImageFormatError, match=rf"{why}.*OPENMV_N6 on ttyX"):
                work()
            assert desk.took() == [PEEK]


@pytest.mark.parametrize("unmounted", [False, True])
def test_a_read_goes_on_where_it_stopped_once(unmounted: bool) -> None:
    size = len(OLD)
    mend = [] if unmounted else ["soft reset"]
    whole, rest = ("read", 0, size), ("read", 5000, size)
    bad = DeviceAnswer("nonsense")

    def read(lost: list[int], spoil: list[Any]) -> Any:
        desk = Desk(OLD)
        camera = made(desk)
        camera._unmounted = unmounted
        desk.lost, desk.spoil, out = lost, [None, *spoil], io.BytesIO()
        try:
            assert camera.read_image(out) == size
            return desk.took()[1:], out.getvalue() == OLD
        except DeviceError as error:
            return desk.took()[1:], error.line

    assert read([5000], []) == ([whole, *mend, rest], True)
    assert read([], [bad]) == ([whole, *mend, whole], True)
    assert read([], [bad, bad]) == ([whole, *mend, whole], "nonsense")
    assert read([5000, 7000], []) == (
        [whole, *mend, rest, *mend],
        "bytes keep getting lost on the way (5 attempts) (ttyX, offset 0x1b58); use another cable "
        "or port, without a hub, and repeat the command",
    )


CRC = ("checksums", 0, END, 4096, True)
UNMOUNTING = ["soft reset", ("unmount",)]
BLOCKS = [(at, min(at + 4096, END)) for at in range(0, END, 4096)]
#: all blocks but the first, erased and programmed; then the first without its header
BODY = [step for at, end in BLOCKS[1:] for step in (("e", at, at + 4096), ("p", at, end))]
REST = [*BODY, ("p", 4, 4096)]


def sealed(verify: Any, whole: Any, *body: Any) -> list[Any]:
    """A write from its first erase to its last look."""
    return ["write", ("e", 0, 4096), *body, verify, "write", ("p", 0, 4), whole]


@pytest.mark.parametrize(
    ("changes", "crc", "looks"),
    [
        ({}, CRC, [("digest", 4, len(NEW)), ("digest", 0, len(NEW))]),
        ({"crc32": False}, (*CRC[:4], False), [("digest", 4, len(NEW)), ("digest", 0, len(NEW))]),
        ({"sha256": False}, CRC,
         [("checksums", 4, len(NEW), 65536, True), ("checksums", 0, len(NEW), 65536, True)]),
        ({"sha256": False, "crc32": False}, None, [("read", 0, len(NEW))] * 2),
    ],
)  # fmt: skip
def test_all_of_a_write(changes: dict[str, Any], crc: Any, looks: list[Any]) -> None:
    """Compared, unmounted, erased, written, compared, sealed, compared; the same again: nothing."""
    desk = Desk(OLD)
    camera, told = made(desk, **changes), []
    size = len(NEW)
    done = camera.write_image(opened(NEW), None, lambda *step: told.append(step))
    first = [crc] if crc else []
    assert desk.took() == [*first, *UNMOUNTING, *sealed(*looks, *REST)]
    asked = len(first) + 1 + (0 if crc is None else 2)
    assert done == WriteReport(END, len(BLOCKS), 0.0, True, 0, asked * 100)
    steps = list(dict.fromkeys(step for step in told if step[0] not in ("verifying", "reading")))
    compared = [("comparing", 0, size), ("comparing", size, size)] if crc else [
        ("comparing", 0, size)]  # fmt: skip
    written = [end - at for at, end in BLOCKS[1:]] + [4092]
    sums = [sum(written[: count + 1]) for count in range(len(written))]
    assert steps == [
        *compared, ("erasing", 0, END),
        *dict.fromkeys(("writing", count, END) for count in [0, *sums, END] if count or BODY),
    ]  # fmt: skip
    assert desk.flash[:END] == NEW.ljust(END, b"\xff")
    again = camera.write_image(opened(NEW))
    if crc:
        assert desk.took() == [crc, looks[1]]
        assert again == WriteReport(0, 0, 0.0, True, size, 200)
    camera.close()
    assert desk.took()[-3:] == [("mount", 0), "leave", "close"]


def test_an_image_that_is_shorter_than_the_last_write() -> None:
    """Where the flash takes pages: nothing of it can be compared before it is sealed."""
    desk, small = Desk(OLD), encode({"a.txt": b"first\n"})
    desk.erase_answer = 256
    assert made(desk).write_image(opened(small)).verified
    assert desk.flash[:256] == small.ljust(256, b"\xff")
    assert desk.took()[-4:] == [("e", 0, 4096), "write", ("p", 0, 256), ("digest", 0, len(small))]


def test_a_write_that_is_read_back_wrong() -> None:
    """Without its seal; once more in full, and then said where it is wrong."""
    desk, told = Desk(), []
    camera = made(desk)
    image = opened(NEW)
    size = len(NEW)
    before, after = ("digest", 4, size), ("digest", 0, size)
    desk.spoil = [None, None, f"{'0' * 64} " * 2]
    done = camera.write_image(image, None, lambda *step: told.append(step))
    blank = [("p", at, end) for at, end in BLOCKS[1:]] + [("p", 4, 4096)]
    assert desk.took() == [
        CRC, *UNMOUNTING, "write", ("e", 0, 4096), *blank, before, after,
        *sealed(before, after, *REST),
    ]  # fmt: skip
    note = ("the first attempt was read back wrong",)
    assert done == WriteReport(2 * END - 4, 1 + len(BLOCKS), 0.0, True, 0, 600, notes=note)
    desk = Desk(OLD)
    camera = made(desk)
    desk.stuck = {2}
    with pytest.raises(VerifyError) as caught:
        camera.write_image(image)
    assert caught.value.line == (
        "what was read back from the camera differs from what was written, in two attempts "
        f"(OPENMV_N6 on ttyX, first at 0x2000); repeat the command{LOADER}; its flash may be worn"
    )
    once = ["write", ("e", 0, 4096), *REST, before, after]
    assert desk.took() == [
        CRC, *UNMOUNTING, *once, *once, ("checksums", 0, size, 4096, True),
    ]  # fmt: skip
    desk.stuck = {0}
    desk.flash[:] = NEW.ljust(SIZE, b"\xff")
    desk.flash[0] ^= 1
    assert camera._first_difference(image, size) == "first at 0x0"
    desk.flash[9000] ^= 1
    assert camera._first_difference(image, size) == "first at 0x2000"
    desk.failing = DeviceLost("gone")
    assert camera._first_difference(image, size) == "at an unknown address"


def test_a_camera_that_goes_away_is_not_waited_for() -> None:
    """Nobody is there to mount anything; after a refusal somebody is."""
    lost, refused = DeviceLost("gone"), DeviceAnswer("refused")
    for error, more in ((lost, []), (refused, [("mount", 0)])):
        desk = Desk(OLD)
        camera = made(desk)

        def fail(what: str, *words: Any, desk: Desk = desk, error: Any = error) -> str:
            if what == "unmount":
                desk.failing = error
                return ""
            return Desk.answer(desk, what, *words)

        desk.answer = fail  # type: ignore[method-assign]
        with pytest.raises(type(error)):
            camera.write_image(opened(NEW))
        desk.failing = None
        assert desk.took() == [CRC, *UNMOUNTING, "write", ("e", 0, 4096)]
        camera.close()
        assert desk.took() == [*more, "leave", "close"]


def test_an_erase_answer_that_is_no_unit() -> None:
    desk = Desk(OLD)
    desk.erase_answer = 24
    with pytest.raises(DeviceAnswer, match="makes no sense") as caught:
        made(desk).write_image(opened(NEW))
    assert caught.value.detail == "minimum write size 24"
    assert desk.took()[-1] == ("e", 0, 4096)


def test_clearing() -> None:
    desk = Desk(OLD)
    camera = made(desk)
    camera.clear()
    assert desk.took() == [PEEK, *UNMOUNTING, "write", ("e", 0, 4096), PEEK]
    camera.clear()
    assert desk.took() == [PEEK], "it is blank"
    desk.flash[:] = OLD.ljust(SIZE, b"\xff")
    desk.stuck = {0}
    with pytest.raises(VerifyError) as caught:
        camera.clear()
    assert caught.value.line == (
        f"the image is still there (OPENMV_N6 on ttyX); repeat the command{LOADER}"
    )
    assert desk.took() == [PEEK, "write", ("e", 0, 4096), PEEK], "it was unmounted before"
    camera.restart()
    camera.clear = lambda: None  # type: ignore[method-assign]
    assert desk.took() == ["restart"]
    camera.close()
    assert desk.took() == ["leave", "close"], "the restart has mounted it"


SLOTTED = two_slots(96 * KIB, OLD, NEW)


@pytest.mark.parametrize("slot", ["", "A", "B"])
@pytest.mark.parametrize("sha256", [True, False])
def test_a_slot_is_read_and_written_where_it_is(slot: str, sha256: bool) -> None:
    desk = Desk(SLOTTED, 96 * KIB)
    camera = made(desk, sha256=sha256)
    camera._choose_slot(slot)
    asked = desk.took()
    assert asked[0] == ("peek", (44 * KIB, 4), (92 * KIB, 4))
    assert {call[0] for call in asked} == ({"peek", "digest"} if sha256 else {"peek"})
    at, image = (48 * KIB, NEW) if slot == "B" else (0, OLD)
    info = camera.info()
    assert (info.slot, info.capacity) == ("B" if slot == "B" else "", 40 * KIB)
    assert [each.name for each in camera.slots(1)] == ["A", "B"]
    out = io.BytesIO()
    assert camera.read_image(out) == len(image)
    assert out.getvalue() == image
    assert camera.read_tree() is not None
    assert desk.took() == [
        ("peek", (at, 16)), ("read", 0, len(image)), ("peek", (at, 16)),
        ("records", at, len(image)),
    ]  # fmt: skip
    other = OLD if slot == "B" else NEW
    assert camera.write_image(opened(other)).verified
    assert desk.flash[at : at + len(other)] == other
    assert desk.flash[48 * KIB - at : 88 * KIB - at] == SLOTTED[48 * KIB - at : 88 * KIB - at]
    assert camera._loader == ("" if slot == "B" else "dfu:OPENMV_N6")
    assert camera._advice == "repeat the command" + ("" if slot == "B" else LOADER)
    desk.took()
    camera.close()
    assert desk.took() == ["soft reset", "leave", "close"], "its boot code mounts a slot"
    camera.close()
    assert desk.took() == ["leave", "close"]


@pytest.mark.parametrize(("slot", "size"), [("B", len(NEW)), ("", 0)])
def test_a_camera_whose_slot_a_was_never_written(slot: str, size: int) -> None:
    desk = Desk(b"\xff" * 48 * KIB + SLOTTED[48 * KIB :], 96 * KIB)
    camera = made(desk)
    camera._choose_slot(slot)
    assert [each.name for each in camera.slots(1)] == ["B"]
    assert camera.info().capacity == 40 * KIB
    out = io.BytesIO()
    assert camera.read_image(out) == size
    assert out.getvalue() == NEW[:size]
    assert camera.matches(opened(NEW), len(NEW)) == bool(size)


@pytest.mark.parametrize(
    ("changes", "slot", "line"),
    [
        ({"min_write": None}, "", "this camera's firmware cannot write its ROMFS (OPENMV_N6 on "
         "ttyX); nothing was changed; write with SOURCE dfu:OPENMV_N6, or update its firmware"),
        ({"min_write": None}, "B", "this camera's firmware cannot write its ROMFS (OPENMV_N6 on "
         "ttyX); nothing was changed; update its firmware"),
        ({"erase_size": None}, "B", "this camera's firmware erases from the partition's start on: "
         "slot B cannot be written without slot A (OPENMV_N6 on ttyX); nothing was changed; update "
         "its firmware"),
        ({"erase_size": None}, "A", None), ({}, "B", None),
    ],
)  # fmt: skip
def test_what_cannot_be_written_is_refused_before_anything_is(
    changes: dict[str, Any], slot: str, line: str | None
) -> None:
    desk = Desk(SLOTTED, 96 * KIB)
    camera = made(desk, **changes)
    camera._choose_slot(slot)
    held = bytes(desk.flash)
    image = OLD if slot == "B" else NEW
    for work in (lambda: camera.write_image(opened(image)), camera.clear):
        desk.took()
        if line is None:
            work()
            assert ("prefix" in desk.took()) == ("erase_size" in changes)
            continue
        with pytest.raises(RomfsError) as caught:
            work()
        assert (caught.value.line, caught.value.errno) == (line, errno.EROFS)  # type: ignore[attr-defined]
        assert {call[0] for call in desk.took()} <= {"peek", "checksums"}
        assert desk.flash == held


def test_a_model_is_opened_from_what_is_mounted() -> None:
    desk = Desk(OLD)
    camera = made(desk)
    assert camera.open_model("a") == "a"
    assert desk.took() == [("model", "a")]
    camera.clear()
    desk.took()
    for _ in range(2):
        camera.open_model("a")
    assert desk.took() == ["soft reset", ("model", "a"), ("model", "a")]
    assert made(desk, index=1).open_model("a") is None
    assert desk.took() == []


def test_closing_whatever_happens() -> None:
    desk = Desk(OLD)
    camera = made(desk)
    camera.close()
    assert desk.took() == ["leave", "close"]
    camera.clear()
    desk.took()
    desk.failing = DeviceLost("gone")
    camera.close()
    assert desk.took() == [("mount", 0), "leave", "close"]
