"""`info --map`: every byte of a partition is accounted for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from romfsfs.boards import get_board
from romfsfs.cli import main
from romfsfs.cli.maps import map_lines
from romfsfs.image.layout import TreeEntry
from romfsfs.image.model import Image
from romfsfs.image.reader import read_image
from romfsfs.image.rules import DEFAULT_RULES
from romfsfs.image.stable import stable
from romfsfs.image.writer import encode
from romfsfs.session.plan.partition_map import (
    DIRECTORY,
    FILE,
    FREE,
    GAP,
    HEADER,
    RECORDS,
    TRAILING,
    Row,
    partition_map,
)

FILES = {
    "a.bin": b"a" * 5000,
    "empty.txt": b"",
    "lib/net.mpy": b"n" * 100,
    "lib/z.tflite": b"z" * 64,
}


def without_holes(rows: tuple[Row, ...], end: int) -> None:
    position = 0
    for row in rows:
        assert row.offset == position, row
        position = row.end
    assert position == end


@pytest.fixture
def image() -> Image:
    return read_image(encode(FILES, DEFAULT_RULES))


def test_rows_follow_each_other_from_the_first_byte_to_the_last(image: Image) -> None:
    rows = partition_map(image, DEFAULT_RULES, 1 << 20)
    without_holes(rows, 1 << 20)
    assert [(row.kind, row.path) for row in rows if row.kind in (FILE, DIRECTORY)] == [
        (FILE, "a.bin"), (FILE, "empty.txt"), (DIRECTORY, "lib"), (FILE, "lib/net.mpy"),
        (FILE, "lib/z.tflite"),
    ]  # fmt: skip
    assert rows[0].kind == HEADER
    assert rows[-1].kind == FREE
    model = next(row for row in rows if row.path == "lib/z.tflite")
    assert model.wanted == 16
    assert not model.misaligned
    assert model.actual is not None
    assert model.actual >= 16


def test_without_a_capacity_it_ends_with_the_file(image: Image) -> None:
    without_holes(partition_map(image), image.size)
    dump = read_image(encode(FILES, DEFAULT_RULES) + b"\xff" * 999)
    rows = partition_map(dump)
    assert (rows[-1].kind, rows[-1].size) == (TRAILING, 999)
    without_holes(rows, dump.size + 999)
    assert partition_map(read_image(encode({})))[0].kind == HEADER


def test_gaps_of_a_stable_layout_are_shown() -> None:
    files = {f"{n}.bin": bytes([n]) * 50_000 for n in range(4)}
    before = encode(files)
    kept = [f"{n}.bin" for n in (0, 2, 3)]
    entries = [TreeEntry(path, 50_000) for path in kept]
    layout = stable(entries, DEFAULT_RULES, read_image(before), kept, 4096, 1 << 20, before)
    assert layout.stable
    after = b"".join(
        piece if isinstance(piece, bytes) else bytes(piece.size) for piece in layout.pieces
    )
    rows = partition_map(read_image(after))
    without_holes(rows, len(after))
    (gap,) = (row for row in rows if row.kind == GAP)
    assert 49_000 < gap.size < 51_000
    assert "(gap)" in "\n".join(map_lines(rows, 40))


def test_the_drawing(image: Image) -> None:
    drawn = list(map_lines(partition_map(image, DEFAULT_RULES, 20_000), 40))
    bar = drawn[0].partition("[")[2].partition("]")[0]
    assert len(bar) == 40
    assert bar.startswith("aaaaaaaaaa")
    assert bar.endswith(".............................")
    assert any("0x00000030" in line and "5,000 B" in line and "a.bin" in line for line in drawn)
    assert any(line.startswith("  .") and "(free)" in line for line in drawn)
    assert "free 1" in drawn[-1]
    assert list(map_lines([], 40)) == ["  empty"]


def test_what_a_peer_got_wrong_is_marked() -> None:
    """mpremote packs without alignment: data lands wherever the names before it end."""
    wrong = read_image(b"\xd2\xcd\x31\x10\x05\x0e\x06x.lite\x02\x05abcde")
    (row,) = (row for row in partition_map(wrong) if row.kind == FILE)
    assert row.misaligned
    drawn = "\n".join(map_lines(partition_map(wrong), 40))
    assert "MISALIGNED, 16 wanted" in drawn
    assert "commit --compact" in drawn


def test_the_board_is_given_or_remembered(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(tmp_path / "app.img")
    assert main(["new", path, "--board", "OPENMV_AE3"]) == 0
    capsys.readouterr()
    assert main(["info", "--map", path]) == 0
    assert "OPENMV_AE3 partition 0" in capsys.readouterr().out
    assert main(["info", "--map", "--json", path, "--board", "OPENMV2"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["board"] == "OPENMV2"
    assert record["capacity"] == get_board("OPENMV2").partition().size
    assert sum(row["size"] for row in record["rows"]) == record["capacity"]


def test_the_whole_drawing() -> None:
    """With what no layout of ours has: data in the wrong place, an empty file, more cells than
    bytes."""
    rows = (
        Row(HEADER, 0, 16), Row(RECORDS, 16, 16), Row(FILE, 32, 0, "empty", 4, 32),
        Row(FILE, 32, 8192, "two\nlines", 16, 32), Row(GAP, 8224, 8160),
        Row(FILE, 16384, 100, "far", 16, 16384), Row(FILE, 16484, 28, "wrong", 16, 4),
        Row(DIRECTORY, 16512, 4, "lib"), Row(FREE, 16516, 3484),
    )  # fmt: skip
    assert list(map_lines(rows, 20)) == [
        "  [bbbbbbbb--------....]  1,000 B a cell",
        "",
        "          from         to           size  align  name",
        "  | 0x00000000 0x0000000f           16 B         (header)",
        "  a 0x00000020 0x00000020            0 B         empty",
        "  b 0x00000020 0x0000201f        8,192 B     32  two\\nlines",
        "  - 0x00002020 0x00003fff        8,160 B         (gap)",
        "  c 0x00004000 0x00004063          100 B   4096  far",
        "  d 0x00004064 0x0000407f           28 B     4!  wrong  MISALIGNED, 16 wanted",
        "  | 0x00004080 0x00004083            4 B         lib/",
        "  . 0x00004084 0x00004e1f        3,484 B         (free)",
        "",
        "  files 8,320 B (41.6%), names and padding 36 B (0.2%), gaps 8,160 B (40.8%), "
        "free 3,484 B (17.4%)",
        "  1 file misaligned: mount, then commit --compact",
    ]
    small = (Row(HEADER, 0, 2), Row(FILE, 2, 1, "a", 1, 2), Row(TRAILING, 3, 1))
    assert next(map_lines(small, 12)) == "  [||||||aaa~~~]  0 B a cell"
    assert next(map_lines(small, 3)) == "  [||a]  1 B a cell"


@pytest.mark.parametrize(("columns", "width"), [(10, 16), (24, 16), (25, 17), (71, 63), (72, 64),
                                                (200, 64)])  # fmt: skip
def test_how_wide_it_is_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    columns: int, width: int,
) -> None:  # fmt: skip
    (tmp_path / "app.img").write_bytes(encode(FILES))
    monkeypatch.setenv("COLUMNS", str(columns))
    assert main(["info", "--map", str(tmp_path / "app.img")]) == 0
    bar = capsys.readouterr().out.splitlines()[1]
    assert bar.index("]") - bar.index("[") - 1 == width
