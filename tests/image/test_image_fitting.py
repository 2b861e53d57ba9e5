"""The parts of the stable layout, each by itself: gaps, places, what makes room, what changes."""

from __future__ import annotations

from typing import Any

import pytest

from romfsfs.image import fitting, stable
from romfsfs.image.fitting import Kept, Slot, fit
from romfsfs.image.layout import BasePiece, FilePiece
from romfsfs.image.model import DirNode, Extent, FileNode, Image
from romfsfs.image.rules import AlignmentRules
from romfsfs.image.tree import Branch, Leaf

RULES = AlignmentRules(4, (("bin", 16),))
#: of 50 bytes; its record takes 62 at multiples of 4, up to three more elsewhere
FILE = Leaf("a", b"a", 50)


def leaf(path: str, size: int = 50) -> Leaf:
    return Leaf(path, path.rpartition("/")[2].encode(), size)


def branch(path: str, content: int = 0, *children: Leaf | Branch) -> Branch:
    made = Branch(path, path.rpartition("/")[2].encode())
    made.content_size = content
    made.children += children
    return made


def slots(*spans: tuple[int, int]) -> list[Slot]:
    return [Slot(start, end, leaf(f"f{start}")) for start, end in spans]


def gaps(space: Any) -> list[tuple[int, int]]:
    return list(zip(space.starts, space.ends, strict=True))


def placed(space: Any) -> list[tuple[int, int, str]]:
    return [(slot.start, slot.end, slot.what.path) for slot in space.placed]


@pytest.mark.parametrize(
    ("start", "spans", "found", "end"),
    [
        (100, [], [], 100),
        (100, [(100, 150), (150, 200), (201, 300)], [(200, 201)], 300),
        (90, [(100, 150), (210, 300)], [(90, 100), (150, 210)], 300),
    ],
)
def test_gaps_lie_between_what_stays(
    start: int, spans: list[tuple[int, int]], found: list[tuple[int, int]], end: int
) -> None:
    space = fitting._Space(start, slots(*spans), RULES)
    assert (gaps(space), space.open_end, space.placed) == (found, end, [])


@pytest.mark.parametrize(
    ("size", "old", "place", "left"),
    [
        (50, 200, (200, 262), [(262, 300)]),
        (50, 201, (200, 262), [(262, 300)]),  # a byte alone in front of it would be lost
        (50, 202, (202, 266), [(200, 202), (266, 300)]),
        (50, 236, (236, 298), [(200, 236), (298, 300)]),
        (50, 240, (200, 262), [(262, 300)]),
        (50, 299, (200, 262), [(262, 300)]),
        (52, 236, (236, 300), [(200, 236)]),
        (88, 200, (200, 300), []),
        (89, 200, None, [(200, 300)]),
        (50, 199, None, [(200, 300)]),
        (50, 300, None, [(200, 300)]),
        (50, 20, None, [(200, 300)]),
        (50, 500, None, [(200, 300)]),
    ],
)
def test_a_record_goes_back_to_its_place(
    size: int, old: int, place: tuple[int, int] | None, left: list[tuple[int, int]]
) -> None:
    """Or else to the beginning of the gap that it is in; the gap shrinks, others stay."""
    fixed = slots((50, 200), (300, 400), (420, 430))
    space = fitting._Space(40, fixed, RULES)
    assert space._put_back(FILE._replace(size=size), old) == (place is not None)
    assert placed(space) == ([(*place, "a")] if place else [])
    assert gaps(space) == [(40, 50), *left, (400, 420)]


@pytest.mark.parametrize(
    ("item", "by_size", "place", "left"),
    [
        (FILE, [(53, 8), (62, 200), (70, 400)], (200, 262), [(53, 8), (70, 400)]),
        (FILE, [(62, 201), (63, 400), (99, 500)], (400, 462), [(1, 462), (62, 201), (99, 500)]),
        (FILE, [(61, 200), (99, 500)], (500, 562), [(37, 562), (61, 200)]),
        (FILE, [(61, 200)], None, [(61, 200)]),
        (FILE, [], None, []),
        (leaf("a.bin"), [(80, 200)], (200, 274), [(6, 274)]),
        (branch("d", 20), [(23, 40), (24, 12), (99, 500)], (12, 36), [(23, 40), (99, 500)]),
        (FILE, [(60, 4 * at) for at in range(63)] + [(99, 500)], (500, 562), None),
        (FILE, [(60, 4 * at) for at in range(64)] + [(99, 500)], None, None),
    ],
    ids=range(9),
)  # fmt: skip
def test_the_smallest_gap_that_takes_it(
    item: Leaf | Branch, by_size: list[tuple[int, int]], place: tuple[int, int] | None,
    left: list[tuple[int, int]] | None,
) -> None:  # fmt: skip
    """Of 64 that might; what remains of it is a gap."""
    space = fitting._Space(0, [], RULES)
    assert space._best_fit(item, by_size) == (place is not None)
    assert placed(space) == ([(*place, item.path)] if place else [])
    assert left is None or by_size == left


def test_the_order_of_what_is_placed() -> None:
    """First what goes back, then the largest; what fits nowhere goes to the end as it came."""
    fixed = slots((100, 200), (270, 400), (480, 500))
    space = fitting._Space(100, fixed, RULES)
    loose = [leaf("e1", 300), leaf("s", 20), leaf("e2", 400), leaf("m", 50), leaf("back", 30)]
    old = FileNode("back", Extent(0, 0), Extent(204, 60))
    gone = FileNode("s", Extent(0, 0), Extent(7, 9))
    space.place([*loose, branch("d", 10)], {"back": old, "s": gone})
    assert placed(space) == [
        (204, 250, "back"), (400, 462, "m"), (250, 266, "d"), (500, 816, "e1"), (816, 848, "s"),
        (848, 1264, "e2"),
    ]  # fmt: skip
    assert space.open_end == 1264


@pytest.mark.parametrize(
    ("spans", "stay", "loose"),
    [
        ([(0, 10), (10, 20)], [0, 1], []),
        ([(0, 15), (10, 20)], [0], [1]),
        ([(0, 15), (10, 30)], [1], [0]),
        ([(0, 20), (10, 30)], [0], [1]),  # as large as what is in its way
        ([(0, 40), (10, 20), (20, 45)], [0], [1, 2]),
        ([(0, 30), (10, 20), (20, 45)], [1, 2], [0]),
        ([(0, 40), (10, 20), (20, 45), (40, 41), (50, 60)], [0, 3, 4], [1, 2]),
        ([(0, 15), (10, 30), (25, 60), (60, 61)], [2, 3], [0, 1]),
        ([], [], []),
    ],
    ids=range(9),
)  # fmt: skip
def test_the_smaller_makes_room(
    spans: list[tuple[int, int]], stay: list[int], loose: list[int]
) -> None:
    names = [leaf(f"{number}") for number in range(len(spans))]
    fixed = [Slot(*span, name) for span, name in zip(spans, names, strict=True)]
    found = fitting._part(fixed)
    assert [slot.what for slot in fixed] == [names[number] for number in stay]
    assert found == [names[number] for number in loose]
    inner = branch("d")
    kept = Slot(0, 5, Kept(inner, Extent(0, 5), 3))
    assert fitting._part([kept, Slot(3, 100, FILE)]) == [inner], "as what it is to be made anew"


def arranged(
    path: str, record: Extent, content_start: int, ends: int, *more: Leaf | Branch
) -> tuple[Kept, list[tuple[int, int, str]]]:
    """A directory with a kept file from its content's start to `ends`, and `more`."""
    kept = leaf(f"{path}/k".lstrip("/"))
    directory = Kept(branch(path, 0, *more, kept), record, content_start)
    node = FileNode("k", Extent(0, 0), Extent(content_start, ends - content_start))
    fit(directory, {}, {kept.path: node}, {kept.path: node}, RULES)
    return directory, [
        (slot.start, slot.end, "/".join(slot.what.path.split("/")[-1:]))  # type: ignore[union-attr]
        for slot in directory.slots
    ]


@pytest.mark.parametrize(
    ("path", "ends", "end"),
    [
        ("d", 150, 150), ("d", 149, 149), ("d", 148, 150), ("d", 140, 150), ("d", 151, 151),
        ("", 140, 140), ("", 150, 150), ("", 160, 160),
    ],
)  # fmt: skip
def test_a_directory_keeps_its_length_where_it_can(path: str, ends: int, end: int) -> None:
    """One byte is too small for a padding record. The root ends where its records end."""
    directory, shown = arranged(path, Extent(100, 50), 110, ends)
    assert (directory.end, directory.fits, shown) == (end, True, [(110, ends, "k")])


def test_a_directory_that_no_longer_fits_into_its_header() -> None:
    """The length of 127 has one byte, 128 two; its name is part of it."""
    for ends, fits in ((229, True), (230, False)):
        directory, _ = arranged("d", Extent(100, 50), 104, ends)
        assert (directory.fits, directory.end) == (fits, ends)
    assert arranged("", Extent(0, 50), 4, 500)[0].fits, "the root's is written by others"
    wide = Kept(branch("d/name"), Extent(100, 50), 110)
    assert wide.end == 150
    assert wide.head() == b"\x04\x80\x80\x80\x2d\x04name"
    wide.end = 110
    assert wide.head() == b"\x04\x80\x80\x80\x05\x04name"


def test_what_of_a_directory_stays() -> None:
    """Kept files, and kept directories that still fit; in the order of their places."""
    inner, tight, new = branch("d/in", 9), branch("d/tight", 9), branch("d/new", 9)
    files = [leaf("d/b", 5), leaf("d/x", 7), leaf("d/a", 5)]
    directory = Kept(branch("d", 0, inner, *files, tight, new), Extent(100, 400), 110)
    kept = {path: Kept(each, Extent(at, 20), at + 10) for path, each, at in (
        ("d/in", inner, 300), ("d/tight", tight, 350))}  # fmt: skip
    kept["d/tight"].fits = False
    kept["d/in"].end = 310
    nodes = {path: FileNode(path, Extent(0, 0), Extent(at, 20)) for path, at in (
        ("d/a", 110), ("d/b", 200))}  # fmt: skip
    fit(directory, kept, nodes, nodes, RULES)
    assert [(slot.start, slot.end, bool(slot.head)) for slot in directory.slots] == [
        (110, 130, False), (130, 153, True), (153, 169, True), (169, 191, True), (200, 220, False),
        (300, 310, False),
    ]  # fmt: skip
    assert [slot.what for slot in directory.slots] == [
        files[2], tight, new, files[1], files[0], kept["d/in"],
    ]  # fmt: skip
    assert (directory.end, directory.fits) == (500, True)
    empty = Kept(branch("d"), Extent(100, 40), 110)
    fit(empty, {}, {}, {}, RULES)
    assert (empty.slots, empty.end) == ([], 140)


def assembly(
    end: int = 16, base: int = 100, erase_size: int = 16, buffer: bytes = b""
) -> stable._Assembly:
    root = Kept(branch(""), Extent(0, base), 16)
    root.end = end
    image = Image(DirNode("", (), Extent(0, base)), base, (), 0)
    return stable._Assembly(root, {}, image, buffer, erase_size)


@pytest.mark.parametrize(
    ("end", "base", "size"),
    [
        (100, 100, 100), (99, 100, 102), (98, 100, 100), (97, 100, 100), (85, 100, 100),
        (84, 100, 84), (83, 100, 86), (98, 101, 98), (97, 101, 100), (120, 100, 120),
        (121, 100, 124), (95, 102, 102),
    ],
)  # fmt: skip
def test_the_size_is_even_and_the_bases_where_that_costs_no_block(
    end: int, base: int, size: int
) -> None:
    assert assembly(end, base)._size() == size


@pytest.mark.parametrize(
    ("offset", "end", "pieces"),
    [
        (50, 50, []), (50, 51, []), (50, 52, [b"\x01\x00"]),
        (50, 58, [b"\x01\x06", BasePiece(52, 6)]), (50, 100, [b"\x01\x30", BasePiece(52, 48)]),
        (50, 101, [b"\x01\x31", BasePiece(52, 48), b"\xff"]),
        (97, 103, [b"\x01\x04", BasePiece(99, 1), b"\xff" * 3]),
        (98, 110, [b"\x01\x0a", b"\xff" * 10]), (99, 105, [b"\x01\x04", b"\xff" * 4]),
        (100, 104, [b"\x01\x02", b"\xff" * 2]),
    ],
    ids=range(10),
)  # fmt: skip
def test_a_gap_is_one_padding_record(offset: int, end: int, pieces: list[Any]) -> None:
    """What is there is left there, as far as the base goes; a single byte is left to the next."""
    made = assembly()
    made.offset = offset
    assert made._pad(end) == (1 if end - offset == 1 else 0)
    assert (made.pieces, made.offset) == (pieces, end if pieces else offset)


@pytest.mark.parametrize(
    ("span", "dirty", "pieces"),
    [
        ((10, 60), set(), [BasePiece(10, 6), BasePiece(16, 48), BasePiece(64, 6)]),
        ((10, 60), {0}, [b"\xff" * 6, BasePiece(16, 48), BasePiece(64, 6)]),
        ((10, 60), {4}, [BasePiece(10, 6), BasePiece(16, 48), b"\xff" * 6]),
        ((10, 60), {0, 1, 3, 4}, [b"\xff" * 6, BasePiece(16, 48), b"\xff" * 6]),
        ((10, 26), {0, 1, 2}, [b"\xff" * 6, BasePiece(16, 16), b"\xff" * 4]),
        ((16, 16), {1}, [BasePiece(16, 16)]),
        ((18, 2), {1}, [b"\xff" * 2]),
        ((18, 2), {0, 2}, [BasePiece(18, 2)]),
        ((18, 14), {1}, [b"\xff" * 14]),
    ],
    ids=range(9),
)  # fmt: skip
def test_what_was_deleted_is_cleared_in_blocks_that_change(
    span: tuple[int, int], dirty: set[int], pieces: list[Any]
) -> None:
    made = assembly()
    start, size = span
    made.pieces = [bytes(start - 1), FilePiece("a", 1), BasePiece(start, size), b"end"]
    made.dirty = dirty
    assert made._clear() == [bytes(start - 1), FilePiece("a", 1), *pieces, b"end"]


BUFFER = bytes(range(100))
PIECES = [
    BUFFER[:16], b"", FilePiece("same", 20), FilePiece("moved", 12), FilePiece("new", 1), b"x",
    FilePiece("none", 0), BasePiece(50, 30), BUFFER[80:96], b"yyyy", b"beyond" * 4,
]  # fmt: skip


@pytest.mark.parametrize(
    ("enough", "dirty"),
    [
        (None, {2, 3, 6, 7}), (7, {2, 3, 6, 7}), (3, {2, 3, 6, 7}), (2, {2, 3, 6}), (1, {2, 3}),
        (0, {2}),
    ],
)  # fmt: skip
def test_which_blocks_change(enough: int | None, dirty: set[int]) -> None:
    """Bytes are compared; files that stay in place, and what is left of the base, are not."""
    before = {"same": 16, "moved": 35, "none": 9}
    found = stable._dirty(PIECES, BUFFER, before, 16, enough)
    assert found == dirty


def test_a_header_takes_up_one_byte() -> None:
    assert stable._widen(b"\x05\x80\x03a", 1) == b"\x05\x80\x80\x03a"
    assert stable._widen(b"\x05\x80\x03a", 0) == b"\x05\x80\x03a"
