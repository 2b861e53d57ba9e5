"""openmv-ota's slots: which are there, which runs, and what is said of them."""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Callable

import pytest
from oracles import slot_makers
from ota_slots import two_slots

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
SLOT_A = Slot("A", 0, HALF, len(A), 2, True, 24 * KIB)
SLOT_B = Slot("B", HALF, HALF, len(B), 1, True, 24 * KIB)
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
    assert trailer_places(SIZE) == (HALF - BLOCK, SIZE - BLOCK)


def test_both_slots_in_every_field() -> None:
    assert found(BOTH) == (SLOT_A, SLOT_B)
    assert found(BOTH + b"\xff" * BLOCK) == (SLOT_A, SLOT_B), "the half is in whole blocks"
    assert found(changed(BOTH, HALF - BLOCK, b"OMVX")) == (SLOT_B,)
    assert found(changed(BOTH, SIZE - BLOCK, b"\xff" * BLOCK)) == (SLOT_A,)
    assert found(A.ljust(SIZE, b"\xff")) == ()
    assert SLOT_B.record() == {
        "name": "B", "offset": HALF, "size": HALF, "body_size": len(B), "counter": 1,
        "whole": True, "room": 24 * KIB,
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
        f"slot A, its trailer is of a version that is not known here; slot B, {len(B)} B, runs"
    )


def test_what_openmv_ota_itself_writes() -> None:
    """Its trailer and status, as it would lay down a slot."""
    status, trailer = slot_makers()
    size, digest = HALF, hashlib.sha256(A).digest()
    for stride in (16, 32):
        sector = status.build_status_sector(
            BLOCK, pending=False, tried=False, confirmed=True, counter=5, stride=stride
        )
        pad = size - 2 * BLOCK - len(A)
        signed = trailer.pack_trailer(trailer.Trailer(
            len(A), pad, {"ota": True}, 1 << 60, 1 << 24, 1, 0, -7, digest, bytes(64)
        ))  # fmt: skip
        slot = A + b"\xff" * pad + sector + signed.ljust(BLOCK, b"\xff")
        assert found(slot + BOTH[HALF:])[0] == SLOT_A._replace(counter=5)


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
    assert found(changed(BOTH, status, b"\xff" * 8))[0] == SLOT_A._replace(counter=None)
    assert found(changed(BOTH, status, struct.pack("<II", 7, ~7 & 0xFFFFFFFF)))[0].counter == 7
    assert found(changed(BOTH, status, struct.pack("<II", 7, 7)))[0].counter is None


def test_a_file_is_a_partition_or_one_slot() -> None:
    one = Slot("", 0, HALF, len(B), 1, True, 24 * KIB)
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
        ((SLOT_A._replace(counter=None),), None, f"slot A, {len(A):,} B, older"),
        (
            (SLOT_B._replace(name=""),), SLOT_B._replace(name=""),
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
