"""`boards.toml`: boards of the user's own, and what is said of mistakes in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from romfsfs.boards import boards, by_usb_id, get_board, identify
from romfsfs.cli import main
from romfsfs.convert import Target
from romfsfs.errors import UsageError


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


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[MY_BOARD\n", "line 1"),
        ("[MY_BOARD]\n", "[MY_BOARD] partitions is missing"),
        ("[OPENMV4]\n", "[OPENMV4] romfsfs has a board of this name"),
        ("[my]\n", "[my] names are of"),
        ("A = 1\n", "[A] it is not a table"),
        ("[A]\nsize = '1 MiB'\n", "[A] size is not a field"),
        ("[A]\npartitions = [{ size = '1 MB' }]\n", "[A.partitions, number 0] size is '1 MB'"),
        ("[A]\npartitions = [{}]\n", "[A.partitions, number 0] size is missing"),
        ("[A]\nmarch = 'arm'\npartitions = [{ size = '1 MiB' }]\n", "[A] march is 'arm'"),
        ("[A]\npartitions = [{ size = '1 MiB', dfu = {} }]\n", "dfu is {}; it is a table"),
        ("[A]\nusb = ['x']\npartitions = [{ size = '1 MiB' }]\n", "[A] usb is 'x'"),
        ("[A]\npartitions = [{ size = '1 MiB', dfu = { name = 'x' } }]\n", "[A] 'alt' is missing"),
    ],
)
def test_a_mistake_names_file_and_place(file: Path, text: str, said: str) -> None:
    file.write_text(text)
    with pytest.raises(UsageError) as caught:
        boards()
    assert said in caught.value.line
    assert str(file) in caught.value.line
