"""`boards.toml`: boards of the user's own, and what is said of mistakes in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from romfsfs.boards import (
    Board,
    DfuTarget,
    ImxTarget,
    NeuralArtNpu,
    Partition,
    VelaNpu,
    boards,
    by_dfu_id,
    by_usb_id,
    get_board,
    identify,
    parse_board,
)
from romfsfs.cli import main
from romfsfs.convert import Target
from romfsfs.convert.romfs_toml import read_tree_options
from romfsfs.devices.open import open_device
from romfsfs.errors import UsageError
from romfsfs.image.rules import AlignmentRules


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("ROMFSFS_CONFIG_DIR", str(tmp_path))
    boards.cache_clear()
    yield tmp_path / "boards.toml"
    boards.cache_clear()


def test_a_board_of_the_user(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text(
        '[MY_BOARD]\nsays = ["OPENMV4P of mine"]\nusb = ["1234:5678"]\n'
        'partitions = [{ size = "1 MiB" }, { size = "64 KiB", erase = "64 KiB", '
        'dfu = { alt = 3, name = "ROMFS0" } }]\n'
    )
    board = get_board("my-board")
    assert identify("OPENMV4P of mine with STM32H743") is board
    assert identify("OPENMV4P with STM32H743") is get_board("OPENMV4P")
    assert by_usb_id(0x1234, 0x5678) == (board,)
    assert [(part.size, part.erase_size) for part in board.partitions] == [
        (1 << 20, 4096),
        (1 << 16, 1 << 16),
    ]
    assert board.partition(1).dfu is not None
    assert Target(board, board.partition(0)).architecture is None
    assert Target(board, board.partition(0), march="rv32imc").architecture == "rv32imc"
    assert main(["boards"]) == 0
    assert "MY_BOARD" in capsys.readouterr().out
    assert main(["boards", "MY_BOARD"]) == 0
    said = capsys.readouterr().out
    assert "what the camera reports" in said
    for number, partition in enumerate(board.partitions):
        assert f"  partition {number} ({partition.name}): {partition.size:,} B, erased by " in said


#: A board with every field, and one with as few as can be.
FULL = """
[FULL_1]
title = "Full"
arch = "FULL F4 64"
says = ["Full-Cam 1", "FC1"]
march = "rv32imc"
usb = ["12aB:00ff", "0001:0002"]
usb_dfu = "1234:abcd"

[[FULL_1.partitions]]
name = "First"
size = "3 B"
erase = "2 KiB"
align = { 8 = "a .B", 32 = "c" }
vela = { system = "s", accelerator = "ethos-u55-64", memory = "m", sram_heap = "5 KiB" }
dfu = { alt = 3, name = "ROMFS0", erase = "64 KiB", address = "0x90B00000" }
imx = { address = "0x60800000", size = "8 MiB" }

[[FULL_1.partitions]]
size = "1 MiB"
neural_art = { target = "t", profile = "p" }
dfu = { alt = 0 }

[LEAST]
partitions = [{ size = "4 MiB" }]
"""
USUAL = AlignmentRules(4, (("tflite", 16), ("lite", 16), ("bin", 16)))


def test_all_that_a_file_says_of_boards(file: Path) -> None:
    file.write_bytes(b"\xef\xbb\xbf" + FULL.encode())
    first = Partition(
        0, "First", 3, 2048, AlignmentRules(4, (("a", 8), ("b", 8), ("c", 32))),
        VelaNpu("s", "ethos-u55-64", "m", 5120), DfuTarget(3, 65536, "ROMFS0", 0x90B00000),
        ImxTarget(0x60800000, 8 << 20),
    )  # fmt: skip
    second = Partition(
        1, "ROMFS1", 1 << 20, 4096, USUAL, NeuralArtNpu("t", "p"), DfuTarget(0, 4096)
    )
    full = Board(
        "FULL_1", "Full", "FULL F4 64", "rv32imc", ((0x12AB, 0xFF), (1, 2)), (0x1234, 0xABCD),
        (first, second), (("FULL", "CAM", "1"), ("FC1",)),
    )  # fmt: skip
    least = Board(
        "LEAST", "LEAST", "", "", (), None, (Partition(0, "ROMFS", 4 << 20, 4096, USUAL),),
        (("LEAST",),),
    )  # fmt: skip
    assert list(boards().items())[:2] == [("FULL_1", full), ("LEAST", least)]
    assert len(boards()) == 15
    assert full.loader_ids == ((0x1234, 0xABCD), (0x15A2, 0x0073))
    assert least.loader_ids == ()
    assert get_board("OPENMV2").loader_ids == ((0x37C5, 0x9202),)
    assert (full.partition(), full.partition(1)) == (first, second)
    for machine, arch, board in (
        ("full cam 1 x", "", full), ("Full-Cam", "", None), ("?", "FC1", full), ("", "", None),
        ("LEAST", "FC1", least),
    ):  # fmt: skip
        assert identify(machine, arch) == board
    assert by_usb_id(1, 2) == (full,)
    assert by_dfu_id(0x1234, 0xABCD) == (full,)
    for text, found in (
        ("full-1", (full, None)), (" Full 1 ", (full, None)), ("full_1:1", (full, 1)),
        ("LEAST:0", (least, 0)),
    ):  # fmt: skip
        assert parse_board(text) == found
    for text, said in (
        ("FULL_1:", "not a partition number: '' (FULL_1:); such as FULL_1:0"),
        ("least:x", "not a partition number: 'x' (least:x); such as LEAST:0"),
        ("full_1:2", "FULL_1 has no partition 2; it has 0 (First), 1 (ROMFS1)"),
        ("generic", "generic is any board that is not in the table: such a camera reports what it "
         "is; leave --board out, or enter the board in boards.toml"),
    ):  # fmt: skip
        with pytest.raises(UsageError) as caught:
            parse_board(text)
        assert caught.value.line == said


def test_a_fourth_of_that_name_is_one_too_many_to_be_meant(file: Path) -> None:
    file.write_text("[ARDUINO_X]\npartitions = [{ size = '1 MiB' }]\n")
    with pytest.raises(UsageError) as caught:
        get_board("arduino")
    assert caught.value.line == "unknown board 'arduino'; romfsfs boards lists them"


PART = 'partitions = [{ size = "1 MiB" }]'
FIELDS = "title, arch, says, march, usb, usb_dfu, partitions"
SAYS = "it must be text with a letter A-Z or a digit"
USB = 'it must be a USB id such as "37c5:1234"'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[MY_BOARD\n", "it cannot be read: Expected ']' at the end of a table declaration (at "
         "line 1, column 10)"),
        ("[MY_BOARD]\n", '[MY_BOARD] partitions is missing, such as [{ size = "4 MiB" }]'),
        ("[A]\npartitions = []\n", '[A] partitions is missing, such as [{ size = "4 MiB" }]'),
        ("[OPENMV4]\n", "[OPENMV4] romfsfs has a board of this name: choose another"),
        ("[my]\n", "[my] a board's name may only have A-Z, 0-9 and _, and not _ alone"),
        ("[__]\n", "[__] a board's name may only have A-Z, 0-9 and _, and not _ alone"),
        ("A = 1\n", "[A] it is not a table"),
        ("[A]\npartitions = [1]\n", "[A.partitions, number 0] it is not a table"),
        ("[A]\nsize = '1 MiB'\n", f"[A] size is not a field; the fields are {FIELDS}"),
        (f"[A]\nmarch = 3\n{PART}\n", "[A] march is 3; it must be text in quotes"),
        (f"[A]\nsays = 'A'\n{PART}\n", "[A] says is 'A'; it must be a list"),
        (f"[A]\nsays = ['A', '.']\n{PART}\n", f"[A] says is '.'; {SAYS}"),
        (f"[A]\nsays = ['\u661f\u77b3']\n{PART}\n",
         f"[A] says is '\u661f\u77b3'; {SAYS}"),
        (f"[A]\nsays = ['A', 3]\n{PART}\n", f"[A] says is 3; {SAYS}"),
        (f"[A]\nusb = ['1:2']\n{PART}\n", f"[A] usb is '1:2'; {USB}"),
        (f"[A]\nusb_dfu = '12345678'\n{PART}\n", f"[A] usb_dfu is '12345678'; {USB}"),
        (f"[A]\nmarch = ''\n{PART}\n",
         "[A] march is ''; it must be an architecture such as \"armv7emsp\""),
        ("[A]\npartitions = [{ size = '1 MiB' }, { size = '1 MB' }]\n",
         "[A.partitions, number 1] size is '1 MB'; it must be a size such as \"4 MiB\""),
        ("[A]\npartitions = [{ name = 'x' }]\n",
         '[A.partitions, number 0] size is missing, such as "4 MiB"'),
        ("[A]\npartitions = [{ size = '1 MiB', dfu = 3 }]\n",
         "[A.partitions, number 0] dfu is 3; it must be a table"),
        ("[A]\npartitions = [{ size = '1 MiB', align = { 16 = 3 } }]\n",
         "[A] a field of one of its tables is missing or wrong: 'int' object has no attribute "
         "'split'"),
        ("[A]\npartitions = [{ size = '1 MiB', dfu = { name = 'x' } }]\n",
         "[A] a field of one of its tables is missing or wrong: 'alt'"),
        ("[A]\npartitions = [{ size = '1 MiB', align = { 2 = 'txt' } }]\n",
         "[A] a field of one of its tables is missing or wrong: alignment 2 is not a power of two "
         "of at least 4"),
        ("[A]\npartitions = [{ size = '0 MiB' }]\n",
         "[A] a field of one of its tables is missing or wrong: 0 MiB is no size"),
        ("[A]\npartitions = [{ size = '1 MiB', dfu = { alt = 0, erase = '0 B' } }]\n",
         "[A] a field of one of its tables is missing or wrong: 0 B is no size"),
    ],
)  # fmt: skip
def test_every_mistake_in_words(file: Path, text: str, said: str) -> None:
    file.write_text(text)
    with pytest.raises(UsageError) as caught:
        boards()
    assert caught.value.line == f"{said} ({file}); correct the file"


def test_no_board_is_chosen_while_there_is_a_mistake(file: Path) -> None:
    """Nor a camera's script interrupted: the board that is wrong may be this camera's. The file at
    fault is named where a tree's own file asks for a board, too."""
    file.write_text(f"[A]\nsays = 'OPENMV4'\n{PART}\n")
    said = f"[A] says is 'OPENMV4'; it must be a list ({file}); correct the file"
    for ask in (
        lambda: identify("OPENMV4 with STM32H743"), lambda: get_board("OPENMV4"),
        lambda: by_usb_id(0x37C5, 0x1204), lambda: open_device("/dev/ttyNONE"),
    ):  # fmt: skip
        with pytest.raises(UsageError) as caught:
            ask()
        assert caught.value.line == said
    [problem] = read_tree_options(b"board = 'OPENMV4'", "/tree").problems
    assert problem.message == f"line 1: {said}"


def test_a_file_that_cannot_be_read(file: Path) -> None:
    byte = "'utf-8' codec can't decode byte 0xff in position 0: invalid start byte"
    for data, said in ((b"\xff", byte), (None, f"[Errno 21] Is a directory: '{file}'")):
        if data is None:
            file.unlink()
            file.mkdir()
        else:
            file.write_bytes(data)
        with pytest.raises(UsageError) as caught:
            boards()
        assert caught.value.line == f"it cannot be read: {said} ({file}); correct the file"
