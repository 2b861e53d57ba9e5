"""The reader: each case of docs/format.md, the peers' known defects, and scale."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from image_trees import directory, file, image, lines_run, named, number, record
from mpremote.romfs import VfsRomWriter

from romfsfs.errors import ImageFormatError
from romfsfs.image.file_buffer import FileBuffer
from romfsfs.image.model import DirNode, Extent, FileNode, Image, walk
from romfsfs.image.reader import image_size, is_blank, read_image


def listing(data: bytes) -> dict[str, bytes | None]:
    """Paths and contents; None for a directory."""
    return {
        path: data[node.extent.offset : node.extent.end] if isinstance(node, FileNode) else None
        for path, node in walk(read_image(data))
    }


def codes(data: bytes) -> list[str]:
    return [note.code for note in read_image(data).notes]


@pytest.mark.parametrize("header", [b"\xd2\xcd\x31\x00", b"\xd2\xcd\x31" + b"\x80" * 12 + b"\x00"])
@pytest.mark.parametrize("slack", [b"", b"\xff" * 100])
def test_empty_image(header: bytes, slack: bytes) -> None:
    result = read_image(header + slack)
    assert result.root.children == ()
    assert (result.size, result.trailing) == (len(header), len(slack))
    assert result.notes == ()


def test_what_a_partition_dump_holds_after_the_image_is_trailing() -> None:
    data = image(file("a", b"1"), file("bc", b"22"))
    for slack in (b"\xff" * 1000, b"anything", b"\x00" * 7):
        assert read_image(data + slack).trailing == len(slack)
        assert listing(data + slack) == {"a": b"1", "bc": b"22"}
        assert image_size((data + slack)[:16]) == len(data)


REFUSED = {
    "nothing": (b"", 0, "only 0 bytes"),
    "shorter than any image": (b"\xd2\xcd\x31", 3, "cut off"),
    "erased flash": (b"\xff" * 64, 0, "erased"),
    "zeroes": (b"\x00" * 64, 0, "d2 cd 31"),
    "wrong magic": (b"\xd2\xcd\x32\x00", 0, "d2 cd 31"),
    "padding in front of the magic": (b"\x80\xd2\xcd\x31\x00", 0, "d2 cd 31"),
    "length beyond the buffer": (b"\xd2\xcd\x31\x05\x05\x00", 6, "truncated"),
    "length of more than 32 bits": (b"\xd2\xcd\x31\x90\x80\x80\x80\x00", 3, "32 bits"),
    "endless padding": (b"\xd2\xcd\x31" + b"\x80" * 70000 + b"\x00", 3, "padding in front"),
    "kind 0": (image(b"\x00\x00", file("a", b"")), 4, "kind 0"),
    "erased inside": (image(file("a", b""), b"\xff" * 40), 10, "erased flash inside"),
    "record cut off": (image(file("a", b""), b"\x05"), 11, "cut off"),
    "record over its image": (
        image(b"\x05\x7f\x01a"),
        4,
        "a record of 127 bytes extends 125 bytes beyond the end of its parent",
    ),
    "record over its directory": (image(named(4, b"d", b"\x01\x02\x00"), b"\0" * 9), 8, "parent"),
    "file over its directory": (image(named(4, b"d", b"\x05\x05\x01a"), b"\0" * 9), 8, "parent"),
    "name over its record": (image(record(5, b"\x7fa")), 6, "name runs over"),
    "no name": (image(record(5, b"")), 6, "cut off"),
    "data over its file": (
        image(named(5, b"a", b"\x02\x05abcd"), b"\0\0\0"),
        8,
        "runs 1 byte over its file",
    ),
    "data header cut off": (image(named(5, b"a", b"\x02")), 9, "cut off"),
    "file without data": (image(named(5, b"a", b""), file("b", b"1")), 8, "without data"),
    "file with padding only": (image(named(5, b"a", record(1, b"xx"))), 8, "without data"),
    "kind 0 before the data": (image(named(5, b"a", b"\0\0\x02\x011")), 8, "without data"),
    "pointer past the end": (image(named(5, b"a", record(3, b"\x02\x08"))), 12, "beyond"),
    "pointer cut short": (image(named(5, b"a", record(3, b"\x02"))), 11, "cut off"),
    "one name very often": (image(*[file("a", b"1")] * 200), 701, "occurs too often"),
    "name with a slash": (image(file("a/b", b"")), 7, "'a/b'"),
    "absolute name": (image(file("/etc", b"")), 7, "'/etc'"),
    "name .": (image(file(".", b"")), 7, "'.'"),
    "name ..": (image(directory("..", file("evil", b""))), 7, "'..'"),
    "empty name": (image(file("", b"")), 7, "''"),
    "name with NUL": (image(file("a\0b", b"")), 7, "'a\\x00b'"),
    "name that is not UTF-8": (image(named(5, b"\xff\xfe", record(2, b""))), 7, "not UTF-8"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_offset_and_reason(case: str) -> None:
    data, offset, reason = REFUSED[case]
    with pytest.raises(ImageFormatError) as caught:
        read_image(data)
    assert reason in caught.value.reason
    assert caught.value.offset == offset
    assert f"offset {offset:#x}" in caught.value.line


def test_an_error_names_the_directory_it_is_in() -> None:
    with pytest.raises(ImageFormatError, match=r"lib/sub, offset"):
        read_image(image(directory("lib", directory("sub", file("..", b"")))))


def test_padding_and_unknown_kinds_are_skipped_everywhere() -> None:
    inside = record(1, b"pad") + record(99, b"?") + record(5, b"not a file here") + record(2, b"hi")
    data = image(
        record(1, b""), named(5, b"a", inside), record(77, b"new"), directory("d", record(1, b"x")),
        file("z", b"end"),
    )  # fmt: skip
    assert listing(data) == {"a": b"hi", "d": None, "z": b"end"}
    assert [code for code in codes(data) if code != "odd-length"] == [
        "unknown-kind", "unknown-kind", "unknown-kind", "padding",
    ]  # fmt: skip
    assert read_image(data).notes[0].path == "a"


def test_padded_numbers_mean_the_same() -> None:
    data = image(record(5, number(1, 5) + b"a" + record(2, b"x", 9), 7), width=12)
    assert listing(data) == {"a": b"x"}
    assert listing(image(b"\x80\x05\x05\x01a\x02\x01x")) == {"a": b"x"}


def test_pointers_count_from_after_the_header_also_in_directories() -> None:
    """openmv-ota resolves them from the image's start; it and the IDE skip short ones."""
    pool = record(2, b"shared data")  # what mpremote's `mkdata` writes
    pointer = record(3, number(6) + number(2))
    data = image(
        pool, named(5, b"a", pointer), directory("d", directory("e", named(5, b"b", pointer))),
        named(5, b"whole", record(3, number(11) + number(2))), width=13,
    )  # fmt: skip
    assert listing(data) == {"a": b"shared", "d": None, "d/e": None, "d/e/b": b"shared",
                             "whole": b"shared data"}  # fmt: skip
    notes = [(note.code, note.path) for note in read_image(data).notes if note.code == "pointer"]
    assert notes == [("pointer", "a"), ("pointer", "d/e/b"), ("pointer", "whole")]


def test_a_pointer_may_end_where_the_image_ends() -> None:
    data = image(named(5, b"a", record(3, b"\x00\x08")))
    assert listing(data) == {"a": b""}


def test_the_first_data_of_a_file_counts() -> None:
    data = image(named(5, b"a", record(2, b"1st") + record(2, b"2nd")))
    assert listing(data) == {"a": b"1st"}
    assert "extra-data" in codes(data)


def test_zero_length_files_are_there() -> None:
    """They vanish when the IDE unpacks an image."""
    assert listing(image(file("empty", b""), file("b", b"1"))) == {"empty": b"", "b": b"1"}


def test_any_utf8_name_is_read() -> None:
    names = ["häß", "日本", "with space", "?", "...", ".hidden", "a\\b", "new\nline", "x" * 300]
    data = image(*(file(name, b"") for name in names))
    assert list(listing(data)) == names


def test_odd_length_is_noted() -> None:
    assert codes(image(file("a", b"1"))) == ["odd-length"]
    assert codes(image(file("a", b"12"))) == []


def test_extents_and_records() -> None:
    data = image(file("a", b"123"), directory("d", file("b", b"4")))
    a, d = read_image(data).root.children
    assert isinstance(a, FileNode)
    assert isinstance(d, DirNode)
    assert (a.record, a.extent) == (Extent(4, 9), Extent(10, 3))
    assert d.record == Extent(13, 11)
    (b,) = d.children
    assert (b.record, data[b.record.offset : b.record.end]) == (Extent(17, 7), file("b", b"4"))


def test_images_of_mpremote() -> None:
    writer = VfsRomWriter()
    offset = writer.mkdata(b"0123456789")
    writer.mkfile("main.py", b"print(1)\n")
    writer.opendir("lib")
    writer.mkfile("a.bin", bytes(1000))
    writer.opendir("empty")
    writer.closedir()
    writer.mkfile("pointed", (4, offset + 3))
    writer.closedir()
    data = bytes(writer.finalise())
    assert listing(data) == {
        "main.py": b"print(1)\n", "lib": None, "lib/a.bin": bytes(1000), "lib/empty": None,
        "lib/pointed": b"3456",
    }  # fmt: skip


def test_real_images(shared_data: Path | None) -> None:
    if shared_data is None:
        return
    images = {place.name: place.read_bytes() for place in (shared_data / "images").iterdir()}
    found = listing(images["mpremote_built.romfs"])
    assert len(found) == 7
    assert found["romfs_sentinel.txt"] is not None
    assert len(listing(images["OPENMV4P_romfs0.img"])) == 14
    assert len(listing(images["OPENMV2_romfs0.img"])) == 3


def test_nesting_of_3000_directories() -> None:
    data = file("leaf", b"deep")
    for _ in range(3000):
        data = directory("d", data)
    data = image(data)
    *_, (path, leaf) = walk(read_image(data))
    assert path == "d/" * 3000 + "leaf"
    assert isinstance(leaf, FileNode)
    assert leaf.extent.size == 4


def test_any_buffer_will_do(tmp_path: Path) -> None:
    data = image(file("a", b"1"), directory("d", file("b", b"22")))
    expected = read_image(data)
    place = tmp_path / "image"
    place.write_bytes(data)
    with place.open("rb") as opened:
        assert read_image(FileBuffer(opened.fileno())) == expected
    assert read_image(memoryview(data)) == expected
    assert read_image(bytearray(data)) == expected
    padded = data + bytes(-len(data) % 4)
    assert read_image(memoryview(padded).cast("I")).root == expected.root


def test_ten_times_the_files_cost_ten_times_the_work() -> None:
    def cost(folders: int) -> int:
        files = [file(f"file_{j}.py", b"x" * 99) for j in range(100)]
        data = image(*(directory(f"d{i}", *files) for i in range(folders)))
        return lines_run(lambda: read_image(data))

    few, many = cost(20), cost(200)
    assert many < 11 * few
    assert many < 20_000 * 60


def test_a_gigabyte_costs_no_memory(tmp_path: Path) -> None:
    """Sparse file, read in a process of its own whose peak memory is compared."""
    place = tmp_path / "large"
    head = image(file("a", b"1"))[4:] + b"\x05\x83\xff\xff\xff\x7f\x01b\x02\x83\xff\xff\xff\x75"
    size = len(head) - 14 + 6 + 0x3FFFFFFF
    with place.open("wb") as out:
        out.write(b"\xd2\xcd\x31" + number(size) + head)
        out.truncate(out.tell() + size - len(head))
    script = (
        "import resource, sys\n"
        "from romfsfs.image.file_buffer import FileBuffer\n"
        "from romfsfs.image.reader import read_image\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "with open(sys.argv[1], 'rb') as f:\n"
        "    image = read_image(FileBuffer(f.fileno()))\n"
        "after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "assert image.root.children[1].extent.size == 0x3ffffff5, image\n"
        "print(after - before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, place], capture_output=True, text=True, check=False,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 2048  # KiB


@given(st.binary(max_size=60), st.booleans())
@example(b"\x05\x03\x81", True)
def test_garbage_is_read_or_refused_and_never_anything_else(garbage: bytes, framed: bool) -> None:
    data = image(garbage) if framed else b"\xd2\xcd\x31" + garbage
    result, offset = _read_or_offset(data)
    if result is None:
        assert 0 <= offset <= len(data)
        return
    for _, node in walk(result):
        assert 0 <= node.record.offset <= node.record.end <= result.size
        if isinstance(node, FileNode):
            assert 0 <= node.extent.offset <= node.extent.end <= result.size


def _read_or_offset(data: bytes) -> tuple[Image | None, int]:
    try:
        return read_image(data), 0
    except ImageFormatError as error:
        return None, error.offset


def test_every_damaged_byte_is_refused_or_read_within_bounds() -> None:
    good = image(file("a", b"1"), directory("d", file("b", b"22"), directory("e")), file("c", b""))
    for position in range(len(good)):
        for value in (0x00, 0x01, 0x05, 0x7F, 0x80, 0xFF):
            data = good[:position] + bytes((value,)) + good[position + 1 :]
            try:
                result = read_image(data)
            except ImageFormatError:
                continue
            assert result.size + result.trailing == len(data)
        with pytest.raises(ImageFormatError):
            read_image(good[:position])


def test_blank() -> None:
    assert is_blank(b"\xff" * 16)
    assert not is_blank(b"")
    assert not is_blank(b"\xff" * 15 + b"\xfe")
    with pytest.raises(ImageFormatError, match="erased"):
        image_size(b"\xff" * 16)
    with pytest.raises(ImageFormatError, match="cut off"):
        image_size(b"\xd2\xcd\x31" + b"\x80" * 13)


def test_files_of_one_name_are_all_there() -> None:
    """openmv-ota makes `?.txt` of `ä.txt` and of `ö.txt`; cameras open the first."""
    made = image(
        file("?.txt", b"1"), file("?.txt", b"2"), file("?~2.txt", b"3"), directory("lib"),
        file("lib", b"4"), directory("d", file(".x", b"5"), file(".x", b"6")),
    )  # fmt: skip
    found = read_image(made)
    paths = {
        path: made[node.extent.offset] - ord("0")
        for path, node in walk(found)
        if isinstance(node, FileNode)
    }
    assert paths == {
        "?.txt": 1, "?~2.txt": 2, "?~2~2.txt": 3, "lib~2": 4, "d/.x": 5, "d/.x~2": 6
    }  # fmt: skip
    notes = [(note.code, note.path) for note in found.notes]
    assert ("same-name", "?~2.txt") in notes
    assert ("same-name", "d/.x~2") in notes


@pytest.mark.parametrize("size", [0, 1, 127, 128, 255, 256, 16383, 16384, 16385, 1 << 15, 1 << 21])
def test_lengths_of_every_width(size: int) -> None:
    """Where a byte of a number is 80, and nothing is padding; names of every length too."""
    data = bytes(size)
    for name in ("a", "b" * 127, "c" * 128):
        made = image(file(name, data), file("next", b"12"))
        assert listing(made) == {name: data, "next": b"12"}
        padded = named(5, name.encode(), record(2, data, 5))
        assert listing(image(padded, file("next", b"12"))) == {name: data, "next": b"12"}
