"""Which blocks of a partition to erase and program, decided from what is really there.

Pure: no camera, no clock. It compares the camera's checksum of every block with the new image.
Three kinds of memory (docs/cameras.md, "Flash"):

ranges  each erase block can be erased alone
prefix  only from the start (firmware without ioctl 6, and where the partition is one erase unit)
never   MRAM: written without erasing

Power may fail at any moment, so the block with the image header is erased first, and its first
write unit, which holds the magic number, is programmed last of all, after everything else was
compared. Nothing that is half written mounts.

A block that differs is programmed without erasing where every unit that differs is still erased
(all FF). Clearing more bits of a unit that was programmed would work on plain NOR, but breaks
the error correction of newer octal flash and of STM32H7 internal flash: not done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Literal

#: bytes; a flash page. Image ends are filled up to it, and "still erased" is judged by it. Every
#: known minimum write size (1 to 32, page 256) divides it.
PAGE = 256
#: flash drivers want aligned addresses, so nothing shorter is written even where 1 is announced
_SMALLEST_WRITE = 4
#: where nothing is announced: as much as an image header
_DEFAULT_WRITE = 16
#: bytes at the partition's end that wedge the flash when read (OPENMV4P and OPENMVPT)
UNREADABLE_TAIL = 512

Mode = Literal["ranges", "prefix", "never"]
Checksum = Callable[[bytes], int]


@dataclass(frozen=True, slots=True)
class Geometry:
    """How a partition can be changed; bytes. block: an erase block, or what is rewritten at once.
    readable: how far it may be read.

    write_unit: the smallest write in mode "never"; elsewhere an erase answers it. word: what the
    hardware programs at once, where that is more than the answer, else 0; a PAGE means NOR flash,
    so a page may be programmed again where it is FF. cached: the processor's cache keeps the old
    content when the flash is written.
    """

    size: int
    block: int
    mode: Mode
    readable: int
    write_unit: int = 16
    word: int = 0
    cached: bool = False

    def limit(self, image_size: int) -> int:
        """Where comparing and programming an image of `image_size` bytes ends."""
        return min(-(-image_size // PAGE) * PAGE, self.readable)


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes start..end to program. erased: they are all FF before that."""

    start: int
    end: int
    erased: bool


@dataclass(frozen=True, slots=True)
class FlashPlan:
    """What to do; `operations` has the order. erases: (start, end), the first holds block 0.

    programs: ascending. differing: number of blocks that are not as they should be.
    """

    geometry: Geometry
    image_size: int
    erases: tuple[tuple[int, int], ...]
    programs: tuple[Span, ...]
    differing: int

    @property
    def needed(self) -> bool:
        return self.differing > 0

    @property
    def erased_blocks(self) -> int:
        return sum(-(-(end - start) // self.geometry.block) for start, end in self.erases)


def block_at(image: BinaryIO, start: int, end: int) -> bytes:
    """Bytes start..end of an image, FF behind its end."""
    image.seek(start)
    data = image.read(end - start)
    return data + b"\xff" * (end - start - len(data))


def make_plan(
    geometry: Geometry,
    image: BinaryIO,
    image_size: int,
    found: Sequence[int] | None,
    checksum: Checksum,
    old: BinaryIO | None = None,
) -> FlashPlan:
    """Compare block by block, and plan what to erase and program.

    found: the camera's checksum of every block of 0..limit; None: rewrite all. old: what the
    camera is believed to hold; used for a block only if its checksum is the camera's.
    """
    limit = geometry.limit(image_size)
    starts = range(0, limit, geometry.block)
    spans: dict[int, list[Span]] = {}
    erase: list[int] = []
    for index, start in enumerate(starts):
        end = min(start + geometry.block, limit)
        new = block_at(image, start, end)
        there = None if found is None else found[index]
        if there is not None and checksum(new) == there:
            continue
        known = _known(there, old, start, end, checksum)
        units = None if known is None else _erased_units(known, new, start)
        if geometry.mode == "never":
            spans[start] = [Span(start, end, False)]
        elif units is not None:
            spans[start] = units
        else:
            erase.append(start)
            spans[start] = [Span(start, end, True)]
    differing = len(spans)
    if not differing:
        return FlashPlan(geometry, image_size, (), (), 0)
    erases = _erases(geometry, erase)
    for start in range(0, erases[0][1] if erases else geometry.block, geometry.block):
        end = min(start + geometry.block, limit)
        spans[start] = [Span(start, end, geometry.mode != "never")]
    programs = tuple(span for start in sorted(spans) for span in spans[start])
    return FlashPlan(geometry, image_size, erases, programs, differing)


def _known(
    there: int | None, old: BinaryIO | None, start: int, end: int, checksum: Checksum
) -> bytes | None:
    """What the camera holds at start..end, if the checksum tells it; else None."""
    if there is None:
        return None
    candidates = [b"\xff" * (end - start)]
    if old is not None:
        candidates.append(block_at(old, start, end))
    return next((data for data in candidates if checksum(data) == there), None)


def _erased_units(known: bytes, new: bytes, start: int) -> list[Span] | None:
    """The pages to program if all that differ are still erased; None: an erase is needed."""
    spans: list[Span] = []
    for offset in range(0, len(new), PAGE):
        there, wanted = known[offset : offset + PAGE], new[offset : offset + PAGE]
        if there == wanted:
            continue
        if there.count(0xFF) != len(there):
            return None
        first, last = start + offset, start + offset + len(wanted)
        if spans and spans[-1].end == first:
            spans[-1] = Span(spans[-1].start, last, True)
        else:
            spans.append(Span(first, last, True))
    return spans


def _erases(geometry: Geometry, blocks: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Block 0 first, whether it differs or not; in mode "prefix" one range from the start."""
    if geometry.mode == "never":
        return ()
    if geometry.mode == "prefix":
        last = max(blocks, default=0)
        return ((0, min(last + geometry.block, geometry.size)),)
    # One by one: while the camera erases a block, the next block's bytes travel.
    starts = [0, *(start for start in blocks if start)]
    return tuple((start, min(start + geometry.block, geometry.size)) for start in starts)


@dataclass(frozen=True, slots=True)
class Operation:
    """One frame's worth: "erase" or "program" start..end with `data`."""

    kind: Literal["erase", "program"]
    start: int
    end: int
    data: bytes = b""


def opening(plan: FlashPlan) -> Operation:
    """What invalidates the old image: the plan's first erase, or overwriting the magic number."""
    return Operation("erase", *plan.erases[0]) if plan.erases else clearing(plan.geometry)


def clearing(geometry: Geometry) -> Operation:
    """The smallest operation that leaves no image."""
    if geometry.mode != "never":
        return Operation("erase", 0, geometry.block)
    unit = geometry.write_unit
    return Operation("program", 0, unit, b"\xff" * unit)  # reads as blank, as erased flash does


def seal_size(geometry: Geometry, announced: int) -> int | None:
    """Bytes of the last write. announced: minimum write size that an erase answered (0: none).
    None: that cannot be, as it does not divide a PAGE."""
    if geometry.mode == "never":
        return geometry.write_unit
    unit = max(announced or _DEFAULT_WRITE, _SMALLEST_WRITE, geometry.word)
    return None if PAGE % unit else unit


def operations(plan: FlashPlan, image: BinaryIO, sealing: int, chunk: int) -> Iterator[Operation]:
    """Everything between `opening` and `seal`: each block is erased, then programmed; block 0 last.

    chunk: most bytes of one operation. None of them crosses a multiple of 4096, so that block
    device drivers see one block at a time.
    """
    first_block = [span for span in plan.programs if span.start < plan.geometry.block]
    rest = [span for span in plan.programs if span.start >= plan.geometry.block]
    erases = dict(plan.erases[1:])
    for span in rest:
        if span.start in erases:
            yield Operation("erase", span.start, erases[span.start])
        yield from _chunks(span, image, chunk, span.start)
    # there the seal is a whole page: all of it but the header is written before
    if plan.geometry.word == PAGE:
        data = b"\xff" * _DEFAULT_WRITE + block_at(image, _DEFAULT_WRITE, sealing)
        yield from _written_pages(0, data)
    for span in first_block:
        yield from _chunks(span, image, chunk, max(span.start, sealing))


def _chunks(span: Span, image: BinaryIO, chunk: int, start: int) -> Iterator[Operation]:
    while start < span.end:
        end = min(start + chunk, (start // 4096 + 1) * 4096, span.end)
        data = block_at(image, start, end)
        if span.erased:
            yield from _written_pages(start, data)
        else:
            yield Operation("program", start, end, data)
        start = end


def _written_pages(start: int, data: bytes) -> Iterator[Operation]:
    """Program the pages that are not all FF, as erased flash is already; neighbours at once."""
    first = None
    for at in range(start // PAGE * PAGE, start + len(data), PAGE):
        page = data[max(0, at - start) : at + PAGE - start]
        if page.count(0xFF) != len(page):
            first = at if first is None else first
        elif first is not None:
            yield _program(max(first, start), at, start, data)
            first = None
    if first is not None:
        yield _program(max(first, start), start + len(data), start, data)


def _program(first: int, end: int, start: int, data: bytes) -> Operation:
    return Operation("program", first, end, data[first - start : end - start])


def seal(image: BinaryIO, sealing: int) -> Operation:
    """The last write: the unit with the magic number. It makes the image valid."""
    return Operation("program", 0, sealing, block_at(image, 0, sealing))
