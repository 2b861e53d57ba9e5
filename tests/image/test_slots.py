"""openmv-ota's slots: which are there, which runs, and what is said of them."""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Callable

import pytest
from oracles import slot_makers, slot_starters
from ota_slots import PRODUCT, marker, one_slot, two_slots

from romfsfs.image.rules import DEFAULT_RULES
from romfsfs.image.slots import (
    BLOCK,
    MOST_TRAILER,
    Slot,
    find_slots,
    find_slots_of_file,
    running,
    slot_size,
    slots_text,
    trailer_places,
)
from romfsfs.image.writer import encode

KIB = 1024
SIZE = 64 * KIB
HALF = SIZE // 2
A = encode({"a.bin": b"a" * 5000}, DEFAULT_RULES)
B = encode({"b.bin": b"b" * 900}, DEFAULT_RULES)
BOTH = two_slots(SIZE, A, B)
SLOT_A = Slot("A", 0, HALF, len(A), 2, True, 24 * KIB, "confirmed", False)
SLOT_B = Slot("B", HALF, HALF, len(B), 1, True, 24 * KIB, "confirmed", False)
#: over all of it
SLOT = Slot("A", 0, SIZE, len(A), 1, True, 56 * KIB, "confirmed", True)
#: a slot of a partition of its own, as `romfsfs info` may be given one
ONE = BOTH[HALF:]


def found(content: bytes, unit: int = BLOCK) -> tuple[Slot, ...]:
    return find_slots(lambda at, count: content[at : at + count], len(content), sha(content), unit)


def found_of_file(content: bytes) -> tuple[Slot, ...]:
    return find_slots_of_file(
        lambda at, count: content[at : at + count], len(content), sha(content)
    )


def sha(content: bytes) -> Callable[[int, int], str]:
    return lambda start, end: hashlib.sha256(content[start:end]).hexdigest()


def changed(content: bytes, at: int, data: bytes) -> bytes:
    return content[:at] + data + content[at + len(data) :]


def test_where_slots_lie() -> None:
    assert [slot_size(size) for size in (0, 8191, 8192, SIZE, SIZE + BLOCK)] == [
        0, 0, BLOCK, HALF, HALF,
    ]  # fmt: skip
    assert trailer_places(SIZE) == [HALF - BLOCK, SIZE - BLOCK]
    assert trailer_places(SIZE + BLOCK) == [HALF - BLOCK, SIZE - BLOCK, SIZE]
    assert [trailer_places(blocks * BLOCK) for blocks in (6, 5, 3, 2, 0)] == [
        [2 * BLOCK, 5 * BLOCK], [4 * BLOCK], [2 * BLOCK], [], [],
    ]  # fmt: skip


def test_both_slots_in_every_field() -> None:
    assert found(BOTH) == (SLOT_A, SLOT_B)
    assert found(BOTH + b"\xff" * BLOCK) == (SLOT_A, SLOT_B), "the half is in whole blocks"
    assert found(changed(BOTH, HALF - BLOCK, b"OMVX")) == (SLOT_B,)
    assert found(changed(BOTH, SIZE - BLOCK, b"\xff" * BLOCK)) == (SLOT_A,)
    assert found(A.ljust(SIZE, b"\xff")) == ()
    assert SLOT_B.record() == {
        "name": "B", "offset": HALF, "size": HALF, "body_size": len(B), "counter": 1,
        "whole": True, "room": 24 * KIB, "status": "confirmed", "only": False,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("unit", "room"), [(256, 24 * KIB), (16 * KIB, 16 * KIB), (32 * KIB, 0), (SIZE, 0)]
)
def test_the_room_in_whole_units_of_what_is_erased(unit: int, room: int) -> None:
    assert found(BOTH, unit) == (SLOT_A._replace(room=room), SLOT_B._replace(room=room))


@pytest.mark.parametrize(("size", "names"), [(6 * BLOCK, "AB"), (5 * BLOCK, ""), (BLOCK, "")])
def test_the_smallest_partition(size: int, names: str) -> None:
    content = two_slots(6 * BLOCK, B, B)[:size]
    assert "".join(slot.name for slot in found(content)) == names


def test_what_was_changed_since_it_was_signed() -> None:
    """A byte of the body, of the trailer; a body or a trailer that cannot be."""
    not_whole = SLOT_A._replace(whole=False)
    trailer = HALF - BLOCK
    assert found(changed(BOTH, 100, b"?")) == (not_whole, SLOT_B)
    assert found(changed(BOTH, trailer + 100, b"?"))[0] == not_whole
    body = HALF - 2 * BLOCK + 1
    longer = changed(BOTH, trailer + 8, struct.pack("<I", body))
    assert found(longer)[0] == not_whole._replace(body_size=body)
    metadata = changed(BOTH, trailer + 16, struct.pack("<I", MOST_TRAILER))
    assert found(metadata)[0] == not_whole
    asked: list[tuple[int, int]] = []

    def digest(start: int, end: int) -> str:
        asked.append((start, end))
        return ""

    assert find_slots(lambda at, count: BOTH[at : at + count], SIZE, digest) == (SLOT_A, SLOT_B)
    assert asked == [(0, len(A)), (HALF, HALF + len(B))]


@pytest.mark.parametrize("version", [1, 3])
@pytest.mark.parametrize("stride", [16, 32])
def test_each_version_of_trailer_and_status(version: int, stride: int) -> None:
    both = two_slots(SIZE, A, B, version=version, stride=stride)
    assert found(both) == (SLOT_A, SLOT_B)
    assert found(changed(both, 100, b"?")) == (SLOT_A._replace(whole=False), SLOT_B)


def test_a_trailer_of_another_version_is_told_nothing_of() -> None:
    unknown = SLOT_A._replace(whole=None, body_size=0)
    slots = found(changed(BOTH, HALF - BLOCK + 4, b"\4"))
    assert slots == (unknown, SLOT_B)
    assert running(slots) == SLOT_B
    assert slots_text(slots) == (
        f"slot A, with a trailer of an unknown version; slot B, {len(B)} B, runs"
    )


def laid_down(
    size: int, body: bytes, *, stride: int = 16, counter: int | None = 5, pad: int | None = None,
    marks: str = "confirmed",
) -> bytes:  # fmt: skip
    """A slot as openmv-ota itself writes it. pad: what its trailer says of it."""
    status, trailer = slot_makers()
    room = size - 2 * BLOCK - len(body)
    sector = status.build_status_sector(
        BLOCK, **{word: word in marks for word in ("pending", "tried", "confirmed")},
        counter=counter, stride=stride, floor_key=1,
    )  # fmt: skip
    signed = trailer.pack_trailer(trailer.Trailer(
        len(body), room if pad is None else pad, {"ota": True}, PRODUCT, 1 << 24, 1, 0, -7,
        hashlib.sha256(body).digest(), bytes(64),
    ))  # fmt: skip
    return body + b"\xff" * room + sector + signed.ljust(BLOCK, b"\xff")


@pytest.mark.parametrize("stride", [16, 32])
@pytest.mark.parametrize(
    ("marks", "counter", "status"),
    [
        ("confirmed", 5, "confirmed"), ("pending tried confirmed", 5, "confirmed"),
        ("confirmed", None, "confirmed"), ("pending", 5, "trial"), ("pending tried", 5, "trial"),
        ("pending", None, "trial"), ("tried", 5, ""), ("", None, ""),
    ],
)  # fmt: skip
def test_what_openmv_ota_itself_writes(
    stride: int, marks: str, counter: int | None, status: str
) -> None:
    """Its trailer and status, as it would lay down a slot."""
    slot = laid_down(HALF, A, stride=stride, counter=counter, marks=marks)
    of_a = SLOT_A._replace(counter=counter, status=status)
    assert found(slot + BOTH[HALF:]) == (of_a, SLOT_B)
    slot = laid_down(SIZE, A, stride=stride, counter=counter, marks=marks)
    assert found(slot) == (SLOT._replace(counter=counter, status=status),)


@pytest.mark.parametrize("stride", [16, 32])
def test_what_runs_is_what_its_boot_code_starts(stride: int) -> None:
    """Each with each, as they are after installing, starting, confirming; and what is not so."""
    boot, geometry = slot_starters()

    def starts(content: bytes, erase: int = BLOCK) -> tuple[str, bytes] | None:
        mounted: list[memoryview] = []
        size = len(content)
        code = boot.OtaBoot(
            lambda at, count: content[at : at + count], lambda *_: True, mounted.append,
            lambda *_: None, size, geometry.front_size(size, erase), BLOCK, PRODUCT, {0: b""},
            1 << 24,
        )  # fmt: skip
        try:
            name = code.run()[0]
        except boot.OtaReject:
            return None
        return name, bytes(mounted[0])

    def said(content: bytes, erase: int = BLOCK) -> tuple[str, bytes] | None:
        slot = running(found(content, erase))
        if slot is None:
            return None
        return slot.name, content[slot.offset :][: slot.body_size]

    states = [
        ("confirmed", 1), ("confirmed", 2), ("confirmed", None), ("pending", 2), ("pending", None),
        ("pending tried confirmed", 3), ("tried", 4), ("", None),
    ]  # fmt: skip
    boot._set_stride(stride)
    try:
        halves = [
            [laid_down(HALF, body, stride=stride, counter=counter, marks=marks)
             for marks, counter in states]
            for body in (A, B)
        ]  # fmt: skip
        halves[0].append(changed(halves[0][4], 100, b"?"))
        halves[1].append(b"\xff" * HALF)
        for a in halves[0]:
            for b in halves[1]:
                assert said(a + b) == starts(a + b)
        for marks, counter in states:
            one = laid_down(SIZE, A, stride=stride, counter=counter, marks=marks)
            assert said(one, SIZE) == starts(one, SIZE)
        assert starts(one_slot(SIZE, A, stride=stride), SIZE) == ("A", A)
        assert starts(one_slot(SIZE, A, stride=stride)) is None, "it looks for two"
    finally:
        boot._set_stride(16)


#: what fits half of the partition just so, and one byte more, which is for none
FULL, OVER = bytes(24 * KIB), bytes(24 * KIB + 1)


@pytest.mark.parametrize(
    ("blocks", "unit", "body", "pad", "name"),
    [
        (16, BLOCK, A, None, "only"), (16, 16 * BLOCK, A, None, "only"),
        (17, BLOCK, A, None, "only"), (5, BLOCK, B, None, "only"), (3, 3 * BLOCK, B, None, "only"),
        (16, BLOCK, OVER, None, "only"), (16, BLOCK, OVER, 0, "only"),
        (16, BLOCK, FULL, None, "only"), (16, BLOCK, FULL, 0, "B"),
        (16, BLOCK, A, 24 * KIB - len(A), "B"), (16, 16 * BLOCK, A, 24 * KIB - len(A), "B"),
        (16, BLOCK, A, 0, "B"),
    ],
)  # fmt: skip
def test_one_slot_over_all_is_told_by_body_and_pad(
    blocks: int, unit: int, body: bytes, pad: int | None, name: str
) -> None:
    """Where they say half of it, the body is there or it is not: B is not as it was signed."""
    size = blocks * BLOCK
    (slot,) = found(laid_down(size, body, pad=pad), unit)
    if name == "only":
        room = (size - 2 * BLOCK) // unit * unit
        assert slot == Slot("A", 0, size, len(body), 5, True, room, "confirmed", True)
    else:
        assert slot[:6] == ("B", HALF, HALF, len(body), 5, False)
    (of_file,) = found_of_file(laid_down(size, body, pad=pad))
    room = size - 2 * BLOCK
    assert of_file == Slot("", 0, size, len(body), 5, True, room, "confirmed", True)


def test_a_trailer_that_cannot_be_read_is_placed_by_what_is_erased_at_once() -> None:
    one = one_slot(SIZE, A)
    for at, data, whole in ((4, b"\4", None), (100, b"?", False)):
        broken = changed(one, SIZE - BLOCK + at, data)
        size = len(A) if whole is False else 0
        (slot,) = found(broken, HALF + 1)
        assert slot == SLOT._replace(whole=whole, body_size=size, room=0)
        (slot,) = found(broken, HALF)
        assert slot == SLOT_B._replace(whole=whole, body_size=size, room=0)
    assert found(A.ljust(SIZE, b"\xff"), SIZE) == ()
    assert found(changed(one, 100, b"?")) == (SLOT._replace(whole=False),)


@pytest.mark.parametrize("room", [0, 1])
def test_the_longest_trailer(room: int) -> None:
    """No more than is read of one."""
    at = SIZE - BLOCK
    head = BOTH[at : at + 96]
    signature = MOST_TRAILER - 96 - 4 - 12 + room
    head = changed(head, 20, struct.pack("<I", signature))
    trailer = head + b'{"ota":true}' + bytes(signature)
    trailer += struct.pack("<I", zlib.crc32(trailer))
    assert found(changed(BOTH, at, trailer))[1].whole == (room == 0)


def test_a_status_that_says_no_counter() -> None:
    status = HALF - 2 * BLOCK + 64
    slots = found(changed(BOTH, status, b"\xff" * 8))
    assert slots == (SLOT_A._replace(counter=None), SLOT_B)
    assert running(slots) == SLOT_B
    spent = changed(BOTH, status, b"\xff" * 8 + bytes(8) + marker(b"attempt") * 4)
    assert found(spent)[0] == SLOT_A._replace(counter=None), "a start on trial is no counter"
    assert found(changed(BOTH, status, struct.pack("<II", 7, ~7 & 0xFFFFFFFF)))[0].counter == 7
    assert found(changed(BOTH, status, struct.pack("<II", 7, 7)))[0].counter is None


def test_a_file_is_a_partition_or_one_slot() -> None:
    one = Slot("", 0, HALF, len(B), 1, True, 24 * KIB, "confirmed", True)
    assert found_of_file(BOTH) == (SLOT_A, SLOT_B)
    assert found_of_file(ONE) == (one,)
    only_b = changed(BOTH, HALF - BLOCK, b"\xff" * BLOCK)
    assert found_of_file(only_b) == (SLOT_B,)
    for size in (0, BLOCK, 2 * BLOCK):
        assert found_of_file(ONE[:size]) == ()
    smallest = two_slots(6 * BLOCK, B, B)[3 * BLOCK :]
    (slot,) = found_of_file(smallest)
    assert (slot.name, slot.size, slot.whole) == ("", 3 * BLOCK, True)
    assert found_of_file(changed(smallest, 100, b"?")) == (slot._replace(whole=False),)


@pytest.mark.parametrize(
    ("slots", "started", "text"),
    [
        ((), None, ""),
        ((SLOT_A, SLOT_B), SLOT_A, f"slot A, {len(A):,} B, runs; slot B, {len(B)} B, older"),
        (
            (SLOT_A, SLOT_B._replace(counter=3)), SLOT_B._replace(counter=3),
            f"slot A, {len(A):,} B, older; slot B, {len(B)} B, runs",
        ),
        (
            (SLOT_A._replace(whole=False), SLOT_B), SLOT_B,
            f"slot A, {len(A):,} B, changed since it was signed; slot B, {len(B)} B, runs",
        ),
        (
            (SLOT_A._replace(counter=None), SLOT_B._replace(counter=0)), SLOT_B._replace(counter=0),
            f"slot A, {len(A):,} B, older; slot B, {len(B)} B, runs",
        ),
        (
            (SLOT_A._replace(counter=None),), SLOT_A._replace(counter=None),
            f"slot A, {len(A):,} B, runs",
        ),
        (
            (SLOT_A, SLOT_B._replace(counter=3, status="trial")),
            SLOT_B._replace(counter=3, status="trial"),
            f"slot A, {len(A):,} B, older; slot B, {len(B)} B, on trial",
        ),
        (
            (SLOT_A._replace(status="trial"), SLOT_B._replace(counter=2)),
            SLOT_B._replace(counter=2),
            f"slot A, {len(A):,} B, on trial; slot B, {len(B)} B, runs",
        ),
        (
            (SLOT_A._replace(status=""), SLOT_B), SLOT_B,
            f"slot A, {len(A):,} B, neither confirmed nor on trial; slot B, {len(B)} B, runs",
        ),
        ((SLOT,), SLOT, f"slot A over the whole partition, {len(A):,} B, as it was signed"),
        (
            (SLOT._replace(status="trial"),), SLOT._replace(status="trial"),
            f"slot A over the whole partition, {len(A):,} B, on trial",
        ),
        (
            (SLOT._replace(whole=None, body_size=0),), None,
            "slot A over the whole partition, with a trailer of an unknown version",
        ),
        (
            (SLOT._replace(name="", body_size=900, status=""),), None,
            "slot of a partition, 900 B, as it was signed",
        ),
        (
            (SLOT_B._replace(name="", only=True),), SLOT_B._replace(name="", only=True),
            f"slot of a partition, {len(B)} B, as it was signed",
        ),
        (
            (SLOT_B._replace(name="", whole=False),), None,
            f"slot of a partition, {len(B)} B, changed since it was signed",
        ),
    ],
)  # fmt: skip
def test_which_runs_and_how_they_are_shown(
    slots: tuple[Slot, ...], started: Slot | None, text: str
) -> None:
    assert running(slots) == started
    assert slots_text(slots) == text
