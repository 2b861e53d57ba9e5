"""The parts of the reader and of the canonical layout, each by itself, in all that it says."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from image_trees import directory, file, image, named, number, record

from romfsfs.errors import CapacityError, ImageFormatError, PlanError
from romfsfs.image import file_buffer, reader
from romfsfs.image.file_buffer import FileBuffer
from romfsfs.image.layout import AlignmentRules, TreeEntry, canonical, image_header
from romfsfs.image.model import DirNode, Extent, FileNode, Image, Note
from romfsfs.image.reader import is_blank, read_image
from romfsfs.image.rules import DEFAULT_RULES
from romfsfs.image.tree import Branch, Leaf, build
from romfsfs.image.varuint import MAX_VALUE, decode, encode, encode_to, padding_head

LONG = "n" * 70
#: records that nearly all are like: their names, where their data is, how long it is
COMMON = {
    "plain": (file("a", b"123"), "a", 6, 3),
    "empty": (file("a", b""), "a", 6, 0),
    "two bytes of length": (file("ab", bytes(200)), "ab", 9, 200),
    "three": (file("ab", bytes(20_000)), "ab", 11, 20_000),
    "a zero in a length": (file("ab", bytes(1 << 14)), "ab", 11, 1 << 14),
    "padded": (record(5, number(1) + b"a" + record(2, b"xyz", 9), 7), "a", 20, 3),
    "long name": (file(LONG, b"1"), LONG, 75, 1),
    "dots": (file("a..", b"1"), "a..", 8, 1),
    "UTF-8": (file("é", b"1"), "é", 7, 1),
}


@pytest.mark.parametrize("case", COMMON)
def test_a_common_record_is_read_without_the_strict_reader(case: str) -> None:
    """Up to the end of its directory; its name is taken then."""
    data, name, offset, size = COMMON[case]
    for more in (0, 1):
        within = reader._Directory("d", Extent(90, 10 + len(data) + more))
        found = reader._common_file(data[:96], 100, within)
        assert found == FileNode(name, Extent(100 + offset, size), Extent(100, len(data)))
        assert within.names == {name}
        assert reader._common_file(data[:96], 100, within) is None, "the name is taken"
    short = reader._Directory("d", Extent(90, 10 + len(data) - 1))
    assert reader._common_file(data[:96], 100, short) is None
    assert short.names == set()


@pytest.mark.parametrize(
    "data",
    [
        file("", b"1"), file(".", b"1"), file(".x", b"1"), file("a/b", b"1"), file("a\0b", b"1"),
        file("n" * 200, b"1"), named(5, b"\xff", record(2, b"1")), file("a", b"1")[:3], b"\x05",
        named(5, b"a", record(3, b"\0\0")), named(5, b"a", record(1, b"") + record(2, b"1")),
        named(5, b"a", record(2, b"1") + record(2, b"2")), named(5, b"a", b"\x02\x05abcd"),
        record(5, b"\x7fa\x02\x011"),
    ],
    ids=range(14),
)  # fmt: skip
def test_what_is_less_common_is_left_to_the_strict_reader(data: bytes) -> None:
    within = reader._Directory("d", Extent(90, 1000))
    assert reader._common_file(data[:96], 100, within) is None
    assert within.names == set()


def test_all_that_is_said_of_an_image() -> None:
    inner = directory(
        "in", record(9, b"?"), named(5, b"p", record(3, number(2) + number(2))), record(1, b"--")
    )
    made = image(
        record(2, b"pool"), record(3, b""), record(1, b"---"), file("a.b", b"1"), file("a.b", b"2"),
        named(5, b"two", record(7, b"") + record(2, b"1st") + record(2, b"2nd")), inner, width=13,
    )  # fmt: skip
    pointer = "its data is stored elsewhere in the image"
    same = "the name 'a.b' occurs twice, and cameras open the first: shown as 'a.b~2'"
    again = "the name 'a.b' occurs twice, and cameras open the first: shown as 'a~2.b'"
    assert same not in again
    expected = Image(
        DirNode("", (
            FileNode("a.b", Extent(37, 1), Extent(29, 9)),
            FileNode("a~2.b", Extent(46, 1), Extent(38, 9)),
            FileNode("two", Extent(57, 3), Extent(47, 18)),
            DirNode("in", (FileNode("p", Extent(18, 2), Extent(73, 8)),), Extent(65, 20)),
        ), Extent(0, 85)), 85,
        (
            Note("same-name", "a~2.b", again, 41),
            Note("unknown-kind", "two", "a record of unknown kind 7", 53),
            Note("extra-data", "two", "5 unused bytes", 60),
            Note("unknown-kind", "in", "a record of unknown kind 9", 70),
            Note("pointer", "in/p", pointer, 77),
            Note("padding", "", "2 padding records hold 9 bytes", 24),
            Note("odd-length", "", "the image has an odd length, 85 bytes", 0),
        ), 3,
    )  # fmt: skip
    assert read_image(made + b"abc") == expected
    one = read_image(image(record(1, b"-"), file("a", b"12")))
    assert one.notes == (
        Note("padding", "", "1 padding record holds 3 bytes", 4),
        Note("odd-length", "", "the image has an odd length, 15 bytes", 0),
    )


def test_no_more_notes_than_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    assert reader._MAX_NOTES == 1000
    monkeypatch.setattr(reader, "_MAX_NOTES", 2)
    for count, more in ((2, ()), (3, (Note("more-notes", "", "and 1 more note", 0),))):
        found = read_image(image(record(9, b"") * count))
        notes = [Note("unknown-kind", "", "a record of unknown kind 9", at) for at in (4, 6)]
        assert found.notes == (*notes, *more)


def test_a_path_is_put_together_once_for_all_its_notes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Deep below it is long."""
    paths: list[str] = []
    path = reader._Reader.path

    def watched(self: reader._Reader) -> str:
        paths.append(path(self))
        return paths[-1]

    monkeypatch.setattr(reader._Reader, "path", watched)
    odd = [record(9, b"")] * 5
    found = read_image(image(*odd, directory("d", *odd, directory("e", *odd)), *odd))
    assert paths == ["", "d", "d/e", ""]
    assert [note.path for note in found.notes[:20]] == [
        *[""] * 5, *["d"] * 5, *["d/e"] * 5, *[""] * 5,
    ]  # fmt: skip


def said(data: bytes) -> str:
    with pytest.raises(ImageFormatError) as caught:
        read_image(data)
    return caught.value.line.removeprefix("not a valid ROMFS image: ")


def test_paths_and_shared_data_have_room_in_proportion(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each directory once and once more for each of its children and notes; pointers' bytes."""
    whole = reader._Reader(b"", 0, 7)
    assert (whole.path_room, whole.shared_room) == ((32 << 20) + 64 * 7,) * 2
    made = image(file("a", b"1"), directory("dd", file("x", b""), directory(
        "e", file("y", b""), record(9, b""))))  # fmt: skip
    monkeypatch.setattr(reader, "_FACTOR", 0)
    nested = "directories are nested so deep that their paths are larger than the image"
    steps = [(3, "dd, offset 0xb"), (8, "dd/e, offset 0x16"), (13, "dd/e, offset 0x16"),
             (18, "offset 0x16"), (24, "offset 0xb")]  # fmt: skip
    least = 0
    for room, where in steps:
        for allowance in range(least, room):
            monkeypatch.setattr(reader, "_ALLOWANCE", allowance)
            assert said(made) == f"{nested} ({where})"
        least = room
    monkeypatch.setattr(reader, "_ALLOWANCE", 24)
    assert read_image(made).root.children[1].name == "dd"
    shared = image(
        record(2, b"pool"), *(named(5, name, record(3, number(size) + number(2)))
                              for name, size in ((b"a", 4), (b"b", 3))),
    )  # fmt: skip
    reason = "files share their data so often that they are larger than the image"
    for allowance, line in ((3, f"{reason} (offset 0xe)"), (6, f"{reason} (offset 0x16)")):
        monkeypatch.setattr(reader, "_ALLOWANCE", allowance)
        assert said(shared) == line
    monkeypatch.setattr(reader, "_ALLOWANCE", 7)
    assert len(read_image(shared).root.children) == 2


def test_the_end_of_a_long_path_is_shown() -> None:
    first, second = "a" * 200, "b" * 150
    bad = image(directory(first, directory(second, file("..", b""))))
    where = f"{first}/{second}"[-300:]
    assert said(bad) == f"'..' cannot be the name of a file ({where}, offset 0x170)"


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b"\xff" * 16 + b"x", "erased flash, no image (offset 0x0)"),
        (b"\xff", "erased flash, no image (offset 0x0)"),
        (b"abc", "only 3 bytes (offset 0x0)"),
        (b"abcd", "it does not start with d2 cd 31 (offset 0x0)"),
        (image(file("a", b"1"))[:-1],
         "truncated: the header declares 11 bytes, but only 10 are present (offset 0xa)"),
        (image(b"\x05\x7f\x01a"),
         "a record of 127 bytes extends 125 bytes beyond the end of its parent (offset 0x4)"),
        (image(named(5, b"a", b"\x02\x05abcd"), b"\0" * 3),
         "the data of 'a' runs 1 byte over its file (offset 0x8)"),
        (image(named(5, b"a", record(3, b"\x02\x08"))),
         "the data of 'a', 2 bytes at 0xc, is beyond the image's end (offset 0xc)"),
        (image(named(5, b"\xff", record(2, b""))), r"a name is not UTF-8: b'\xff' (offset 0x7)"),
        (image(b"\x80" * 65538),
         "more than 65536 bytes of padding in front of a number (offset 0x6)"),
    ],
    ids=range(10),
)  # fmt: skip
def test_refusals_in_all_their_words(data: bytes, line: str) -> None:
    assert said(data) == line


def test_the_shortest_blank_header() -> None:
    assert [is_blank(data) for data in (b"", b"\xff", b"\xff\xfe", b"\xfe")] == [
        False, True, False, False,
    ]  # fmt: skip


EDGES = (1, 1 << 7, 1 << 14, 1 << 21, 1 << 28, 1 << 32)


@pytest.mark.parametrize("value", [edge + more for edge in EDGES for more in (-1, 0, 1)])
def test_numbers_of_every_width(value: int) -> None:
    shortest = number(value)
    assert encode(value) == shortest
    width = len(shortest)
    assert [encode_to(value, each) for each in (width, width + 1)] == [
        shortest, b"\x80" + shortest,
    ]  # fmt: skip
    with pytest.raises(ValueError, match=f"^{value} needs {width} bytes, not {width - 1}$"):
        encode_to(value, width - 1)
    for data in (shortest, b"\x80\x80" + shortest):
        if value <= MAX_VALUE:
            assert decode(b"x" + data + b"y", 1, 9) == (value, 1 + len(data))
        else:
            with pytest.raises(ImageFormatError, match=r"more than 32 bits .*0x1"):
                decode(b"x" + data + b"y", 1, 9)
    with pytest.raises(ImageFormatError, match=r"a number is cut off \(offset 0x1\)"):
        decode(b"x" + shortest, 1, width)


def test_so_much_padding_in_front_of_a_number() -> None:
    most = b"\x80" * (1 << 16)
    assert decode(most + b"\x07", 0, 1 << 17) == (7, (1 << 16) + 1)
    with pytest.raises(ImageFormatError, match="more than 65536 bytes of padding"):
        decode(most + b"\x80\x07", 0, 1 << 17)
    for data, reason in (
        (b"\xff" * 5, "erased flash inside"),
        (b"\xff\xff\xff\xfe\xff", "32 bits"),
    ):
        with pytest.raises(ImageFormatError, match=reason):
            decode(data, 0, 5)


def test_a_padding_record_has_the_size_that_is_asked_for() -> None:
    """In as few bytes of header as that takes."""
    for total in (*range(2, 300), *range(16_380, 16_400), 1 << 21):
        head = padding_head(total)
        kind, position = decode(head, 0, len(head))
        length, position = decode(head, position, len(head))
        assert (kind, position, position + length) == (1, len(head), total)
        assert len(head) == 2 or total - len(head) + 1 >= 1 << 7 * (len(head) - 2)
    for total in (0, 1):
        with pytest.raises(ValueError, match=f"^no padding record has {total} bytes$"):
            padding_head(total)


def test_how_a_file_is_aligned() -> None:
    rules = AlignmentRules(8, (("bin", 32), ("txt", 4)), {"d/a.bin": 64, "b.bin": 16, "c": 128})
    wanted = {
        "d/a.bin": 64, "a.bin": 32, "b.bin": 32, "c": 128, "d": 8, "x.txt": 4, ".bin": 8,
        "x.BIN": 32, "x.bin.y": 8, "d.bin/x": 8,
    }  # fmt: skip
    assert {path: rules.for_path(path) for path in wanted} == wanted
    assert AlignmentRules(paths={}).for_path("a") == AlignmentRules().for_path("a") == 4
    assert AlignmentRules(paths={"b": 8}).for_path("a") == 4
    assert (rules.largest, AlignmentRules().largest) == (128, 4)
    suffixes = ("tflite", "lite", "bin", "txt")
    assert [DEFAULT_RULES.for_name(f"a.{suffix}") for suffix in suffixes] == [16, 16, 16, 4]


@pytest.mark.parametrize("bad", [0, 1, 2, 3, 5, 6, 12, 4095, 4097, -4])
def test_every_alignment_is_checked(bad: int) -> None:
    AlignmentRules(4, (("a", 8), ("b", 4096)), {"c": 4}).check()
    for rules in (AlignmentRules(bad), AlignmentRules(4, (("a", 4), ("b", bad))),
                  AlignmentRules(paths={"c": 8, "d": bad})):  # fmt: skip
        with pytest.raises(
            ValueError, match=f"^alignment {bad} is not a power of two of at least 4$"
        ):
            rules.check()


@pytest.mark.parametrize(
    "names",
    list(itertools.permutations(["a.bin", ".bin", "d.bin/x", "x", "d.bin/a.bin"], 3)),
    ids="-".join,
)
def test_a_suffix_is_looked_up_once_and_for_the_right_names(names: tuple[str, ...]) -> None:
    rules = AlignmentRules(4, (("bin", 64),))
    entries = [TreeEntry("d.bin", None), *(TreeEntry(name, 5) for name in names)]
    places = canonical(entries, rules).placements
    for name in names:
        assert places[name].offset % 64 == 0 or not name.endswith("a.bin")
    free = [name for name in names if not name.endswith("a.bin")]
    alone = {name: canonical([entries[0], TreeEntry(name, 5)], rules) for name in free}
    assert all(alone[name].placements[name].offset % 64 for name in free if "/" not in name)
    seen: list[str] = []

    class Counting(AlignmentRules):
        def for_path(self, path: str) -> int:
            seen.append(path)
            return super().for_path(path)

    canonical([TreeEntry(f"{n}.bin", 1) for n in range(9)], Counting(4, (("bin", 64),)))
    assert seen == ["0.bin"]
    canonical([TreeEntry(f"{n}.bin", 1) for n in range(3)], Counting(4, (), {"x": 8}))
    assert seen[1:] == ["0.bin", "1.bin", "2.bin"]


def shape(branch: Branch) -> Any:
    return [
        (child.path, child.raw, shape(child)) if isinstance(child, Branch) else child
        for child in branch.children
    ]


def test_the_tree_of_a_list() -> None:
    branches = build([
        TreeEntry("z", 1), TreeEntry("d", None), TreeEntry("d/é", 2), TreeEntry("a", 0),
        TreeEntry("d/e", None), TreeEntry("d/z", 3),
    ])  # fmt: skip
    assert [(each.path, each.raw, each.content_size) for each in branches] == [
        ("", b"", 0), ("d", b"d", 0), ("d/e", b"e", 0),
    ]  # fmt: skip
    assert shape(branches[0]) == [
        Leaf("z", b"z", 1),
        ("d", b"d", [Leaf("d/é", "é".encode(), 2), ("d/e", b"e", []), Leaf("d/z", b"z", 3)]),
        Leaf("a", b"a", 0),
    ]


def test_everything_that_is_wrong_with_a_list() -> None:
    bad = ["\udc80", "", ".", "d/..", "a\0", "/b", "f/x", "none/x", "f", "d"]
    entries = [TreeEntry("f", 1), TreeEntry("d", None), *(TreeEntry(path, 1) for path in bad)]
    with pytest.raises(PlanError) as caught:
        build([*entries, TreeEntry("ok", 1)])
    name = "a camera cannot use this name"
    lines = [
        "'\\udc80': the name is not valid Unicode", *(f"{path!r}: {name}" for path in bad[1:6]),
        "'f/x': there is no directory 'f' before it",
        "'none/x': there is no directory 'none' before it",
        "'f': this path occurs twice", "'d': this path occurs twice",
    ]  # fmt: skip
    assert caught.value.detail.split("\n") == lines
    assert caught.value.what == f"{lines[0]} and 9 more"
    for count, more in ((1, ""), (2, " and 1 more")):
        with pytest.raises(PlanError) as caught:
            build([TreeEntry("", 1)] * count)
        assert caught.value.what == f"'': {name}{more}"


def test_an_image_of_4_gib_less_one_byte() -> None:
    assert image_header(MAX_VALUE, 16) == b"\xd2\xcd\x31" + number(MAX_VALUE - 16, 13)
    with pytest.raises(CapacityError) as caught:
        image_header(MAX_VALUE + 1, 16)
    assert caught.value.line == "an image cannot be larger than 4 GiB"
    assert (caught.value.size, caught.value.capacity) == (MAX_VALUE + 1, MAX_VALUE)


def test_the_beginning_is_filled_with_one_record() -> None:
    filled = b"\x01\x20" + b"\xff" * 32
    for lead, fill, size in ((16, b"", 20), (18, b"\x01\x00", 24), (50, filled, 56)):
        layout = canonical([TreeEntry("d", None)], AlignmentRules(), lead)
        pieces = list(layout.pieces)
        assert b"".join(pieces)[16:lead] == fill  # type: ignore[arg-type]
        assert (layout.stable, layout.moved, layout.directories) == (False, frozenset(), ("d",))
        assert layout.size == len(b"".join(pieces)) == size  # type: ignore[arg-type]


def test_a_file_that_is_read_in_small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    data, asked = bytes(range(200)), []

    def pread(fd: int, count: int, at: int) -> bytes:
        asked.append((fd, count, at))
        return data[at : at + min(count, 30)]

    monkeypatch.setattr(file_buffer.os, "pread", pread)
    buffer = FileBuffer(7, 200, 100)
    assert buffer[20:90] == data[20:90]
    assert asked == [(7, 100, 20), (7, 70, 50), (7, 40, 80)]
    assert buffer[109] == data[109]
    assert buffer[110] == data[110]
    assert asked[3:] == [(7, 90, 110)]
    assert FileBuffer(7, 1 << 20)[0] == 0
    assert asked[4:] == [(7, 32 << 10, 0)]
