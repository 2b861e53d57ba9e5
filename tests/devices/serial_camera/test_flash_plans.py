"""What of a partition is erased and programmed, span by span; no camera is needed for that."""

from __future__ import annotations

import io
import zlib
from dataclasses import replace
from typing import Any

import pytest

from romfsfs.devices.serial_camera.flash_plan import (
    PAGE,
    FlashPlan,
    Geometry,
    Operation,
    Span,
    block_at,
    clearing,
    make_plan,
    opening,
    operations,
    seal,
)

BLOCK = 4096
RANGES = Geometry(65536, BLOCK, "ranges", 65536)
PREFIX = replace(RANGES, mode="prefix")
NEVER = replace(RANGES, mode="never")
#: two blocks and a half, with FF in the second: pages 5 and 6 of it
IMAGE = bytes(range(1, 251)) * 22 + b"\xff" * 700 + bytes(range(1, 251)) * 15
SIZE = len(IMAGE)
END = -(-SIZE // PAGE) * PAGE
STARTS = (0, BLOCK, 2 * BLOCK)
assert SIZE == 9950


def held(content: bytes) -> list[int]:
    """What the camera says of its blocks, up to the last page of the image."""
    full = content.ljust(END, b"\xff")
    return [zlib.crc32(full[start : min(start + BLOCK, END)]) for start in STARTS]


def plan(geometry: Geometry, found: list[int] | None, old: bytes | None = None) -> FlashPlan:
    return make_plan(
        geometry, io.BytesIO(IMAGE), SIZE, found, zlib.crc32,
        None if old is None else io.BytesIO(old),
    )  # fmt: skip


def changed(*places: int) -> bytes:
    data = bytearray(IMAGE)
    for place in places:
        data[place] ^= 1
    return bytes(data)


ALL = (Span(0, 4096, True), Span(4096, 8192, True), Span(8192, END, True))
FIRST, SECOND, THIRD = (0, 4096), (4096, 8192), (8192, 12288)
OVER = tuple(replace(span, erased=False) for span in ALL)


@pytest.mark.parametrize(
    ("geometry", "found", "erases", "programs", "differing"),
    [
        (RANGES, None, (FIRST, SECOND, THIRD), ALL, 3),
        (PREFIX, None, ((0, 12288),), ALL, 3),
        (NEVER, None, (), OVER, 3),
        (RANGES, held(IMAGE), (), (), 0),
        # the block with the header is erased whatever differs
        (RANGES, held(changed(5000)), (FIRST, SECOND), ALL[:2], 1),
        (RANGES, held(changed(9000)), (FIRST, THIRD), (ALL[0], ALL[2]), 1),
        (RANGES, held(changed(0)), (FIRST,), ALL[:1], 1),
        (PREFIX, held(changed(5000)), ((0, 8192),), ALL[:2], 1),
        (PREFIX, held(changed(0)), ((0, 4096),), ALL[:1], 1),
        (NEVER, held(changed(5000)), (), OVER[:2], 1),
        (NEVER, held(changed(0)), (), OVER[:1], 1),
        # a blank partition: only what is not FF, and one block erased
        (
            RANGES, held(b""), (FIRST,),
            (ALL[0], Span(4096, 5632, True), Span(6144, 8192, True), ALL[2]), 3,
        ),
        (
            PREFIX, held(b""), (FIRST,),
            (ALL[0], Span(4096, 5632, True), Span(6144, 8192, True), ALL[2]), 3,
        ),
    ],
)  # fmt: skip
def test_what_differs_is_written_and_no_more(
    geometry: Geometry, found: list[int] | None, erases: Any, programs: Any, differing: int
) -> None:
    made = plan(geometry, found)
    assert made == FlashPlan(geometry, SIZE, erases, programs, differing)
    assert made.needed == (differing > 0)
    assert made.erased_blocks == sum((end - start) // BLOCK for start, end in erases)


def test_a_page_that_is_still_erased_needs_no_erase() -> None:
    """Where what was there is known, and said by the camera; else its block is erased."""
    old = IMAGE[:7936] + b"\xff" * 256 + IMAGE[8192:]  # its last page of block 1 is blank
    one = FlashPlan(RANGES, SIZE, (FIRST,), (ALL[0], Span(7936, 8192, True)), 1)
    assert plan(RANGES, held(old), old) == one
    assert plan(RANGES, held(old), IMAGE).erases == (FIRST, SECOND), "nobody knows what was there"
    assert plan(RANGES, held(old)).erases == (FIRST, SECOND)
    worse = bytearray(old)
    worse[7936] = 0xFE
    assert plan(RANGES, held(bytes(worse)), bytes(worse)).erases == (FIRST, SECOND)


def test_nothing_beyond_what_may_be_read() -> None:
    short = replace(RANGES, readable=SIZE)
    made = plan(short, None)
    assert made.programs[-1] == Span(8192, SIZE, True)
    assert [short.limit(size) for size in (1, 256, 257, SIZE - 1, SIZE)] == [
        256, 256, 512, SIZE, SIZE,
    ]  # fmt: skip
    image = io.BytesIO(b"abc")
    assert (block_at(image, 1, 3), block_at(image, 2, 5)) == (b"bc", b"c\xff\xff")


def shown(work: Any) -> list[tuple[str, int, int]]:
    found = list(work)
    for each in found:
        if each.kind == "program":
            assert each.data == block_at(io.BytesIO(IMAGE), each.start, each.end)
    return [(each.kind, each.start, each.end) for each in found]


@pytest.mark.parametrize(
    ("geometry", "sealing", "chunk", "wanted"),
    [
        (
            RANGES, 16, 4096,
            [
                ("erase", 4096, 8192), ("program", 4096, 5632), ("program", 6144, 8192),
                ("erase", 8192, 12288), ("program", 8192, END), ("program", 16, 4096),
            ],
        ),
        (
            RANGES, 4, 1536,
            [
                ("erase", 4096, 8192), ("program", 4096, 5632), ("program", 6144, 7168),
                ("program", 7168, 8192), ("erase", 8192, 12288), ("program", 8192, 9728),
                ("program", 9728, END), ("program", 4, 1540), ("program", 1540, 3076),
                ("program", 3076, 4096),
            ],
        ),
        (
            PREFIX, 32, 4096,
            [
                ("program", 4096, 5632), ("program", 6144, 8192), ("program", 8192, END),
                ("program", 32, 4096),
            ],
        ),
        (
            NEVER, 16, 4096,
            [("program", 4096, 8192), ("program", 8192, END), ("program", 16, 4096)],
        ),
    ],
)  # fmt: skip
def test_the_order_of_a_write(
    geometry: Geometry, sealing: int, chunk: int, wanted: list[tuple[str, int, int]]
) -> None:
    """Each block is erased and programmed; the first comes last, its beginning at the very end.
    No call crosses a multiple of 4096."""
    made = plan(geometry, None)
    found = shown(operations(made, io.BytesIO(IMAGE), sealing, chunk))
    assert found == wanted
    assert seal(io.BytesIO(IMAGE), sealing) == Operation("program", 0, sealing, IMAGE[:sealing])


def test_what_invalidates_the_image_that_is_there() -> None:
    assert opening(plan(RANGES, None)) == Operation("erase", 0, 4096)
    assert opening(plan(PREFIX, None)) == Operation("erase", 0, 12288)
    blank = Operation("program", 0, 16, b"\xff" * 16)
    assert opening(plan(NEVER, None)) == clearing(NEVER) == blank
    assert clearing(replace(NEVER, write_unit=32)).end == 32
    assert clearing(RANGES) == clearing(PREFIX) == Operation("erase", 0, 4096)


def test_flash_of_whole_pages_gets_its_first_page_twice() -> None:
    """All but the header, and then the header with the same around it."""
    pages = replace(RANGES, word=PAGE)
    made = plan(pages, held(changed(0)))
    first, *rest = operations(made, io.BytesIO(IMAGE), PAGE, 4096)
    assert first == Operation("program", 0, PAGE, b"\xff" * 16 + IMAGE[16:PAGE])
    assert shown(rest) == [("program", PAGE, 4096)]
