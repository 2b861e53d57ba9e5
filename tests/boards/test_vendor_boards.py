"""Boards of third parties that an OpenMV IDE 5 was given."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from romfsfs.boards import Board, Partition, boards, by_usb_id, get_board, identify
from romfsfs.cli import main
from romfsfs.errors import UsageError
from romfsfs.ide.defaults import find_defaults
from romfsfs.image.rules import DEFAULT_RULES, AlignmentRules
from romfsfs.image.writer import encode

ACME: dict[str, Any] = {
    "boardDisplayName": "Acme Cam (STM32N6)", "boardFirmwareFolder": "ACME-CAM",
    "boardArchString": "ACMECAM N6", "boardVidPid": "1234:5678", "boardPidMask": "ffff",
    "firmware_version": "1.2.0", "bootloaderType": "openmv_dfu",
    "romfsConfig": [
        {"name": "Second", "index": 1, "size": 65536},
        {"name": "First", "index": 0, "size": 4194304},
    ],
}  # fmt: skip


@pytest.fixture
def ide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An IDE's writable resource folder."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    boards.cache_clear()
    yield tmp_path / "OpenMV" / "openmvide"
    boards.cache_clear()


def add(ide: Path, vendor: str, text: str) -> Path:
    folder = ide / "third-party" / vendor / "firmware"
    folder.mkdir(parents=True)
    (folder / "settings.json").write_text(text)
    return folder


def test_a_board_of_a_third_party(ide: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Known by name, USB id and what its firmware says; its defaults are found."""
    folder = add(ide, "acme", json.dumps({"boards": [ACME]}))
    board = get_board("acme cam")
    assert by_usb_id(0x1234, 0x5678) == (board,)
    assert identify("", "ACMECAM N6 32768") is board
    assert identify("ACME_CAM with STM32N6") is board
    assert [(part.name, part.size) for part in board.partitions] == [
        ("First", 4194304), ("Second", 65536),
    ]  # fmt: skip
    assert main(["boards"]) == 0
    assert "Acme Cam" in capsys.readouterr().out
    image = encode({"a.txt": b"a"}, DEFAULT_RULES)
    (ide / "firmware").mkdir()
    (folder / "ACME-CAM").mkdir()
    (folder / "ACME-CAM" / "romfs0.img").write_bytes(image)
    [found] = find_defaults(board)
    assert found.read() == image


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", '{"boards": 1}', '{"boards": [1]}', '{"boards": [{}]}', "[" * 100_000,
        json.dumps({"boards": [{**ACME, "boardVidPid": "12345678"}]}),
        json.dumps({"boards": [{**ACME, "romfsConfig": [{"size": "x"}]}]}),
        json.dumps({"boards": [{**ACME, "romfsConfig": []}]}),
        json.dumps({"boards": [{**ACME, "boardFirmwareFolder": "openmv4p"}]}),
    ],
)  # fmt: skip
def test_what_is_no_list_of_boards_changes_nothing(ide: Path, text: str) -> None:
    """Nor can it take the name of a board that is known. Another vendor's list counts still,
    whichever comes first."""
    add(ide, "acme", text)
    add(ide, "zeta", text)
    beta = {**ACME, "boardFirmwareFolder": "BETA", "boardArchString": ""}
    add(ide, "beta", json.dumps({"boards": [beta]}))
    assert get_board("OPENMV4P").display_name.startswith("OpenMV")
    assert get_board("beta").partition(0).size == 4194304
    with pytest.raises(UsageError, match="unknown board"):
        get_board("acme-cam")


def test_generic_is_listed_and_explained(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["boards"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].split()[0] == "generic"
    assert main(["boards", "generic"]) == 0
    assert "as the board reports them" in capsys.readouterr().out
    assert main(["boards", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[-1]["name"] == "generic"
    assert main(["new", "a.img", "--board", "generic"]) == 2
    assert "leave --board out" in capsys.readouterr().err


def test_all_that_a_list_says_of_a_board(
    ide: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What it leaves out, and what it has and we do not want."""
    usual = AlignmentRules(4, (("tflite", 16), ("lite", 16), ("bin", 16)))
    least = {"boardFirmwareFolder": "least.1", "boardVidPid": "00fF:0001",
             "romfsConfig": [{"size": 1}]}  # fmt: skip
    odd = {**ACME, "boardArchString": "--", "boardDisplayName": "", "romfsConfig": [
        {"size": "0", "index": 0}, {"size": 70000, "index": "2"}, {"size": -1, "index": 1},
        {"size": 5},
    ]}  # fmt: skip
    add(ide, "acme", json.dumps({"boards": [least, odd]}))
    wanted = [
        Board("LEAST_1", "LEAST_1", "", "", ((0xFF, 1),), None,
              (Partition(0, "ROMFS0", 1, 4096, usual),), (("LEAST", "1"),)),
        Board("ACME_CAM", "ACME_CAM", "--", "", ((0x1234, 0x5678),), None,
              (Partition(0, "ROMFS1", 5, 4096, usual), Partition(1, "ROMFS3", 70000, 4096, usual)),
              (("ACME", "CAM"),)),
    ]  # fmt: skip
    assert list(boards().values())[-2:] == wanted
    assert len(boards()) == 15
    elsewhere = tmp_path / "elsewhere"
    add(elsewhere, "beta", json.dumps({"boards": [{**least, "boardFirmwareFolder": "BETA"}]}))
    monkeypatch.setenv("ROMFSFS_IDE_RESOURCES", str(elsewhere))
    boards.cache_clear()
    assert list(boards())[13:] == ["BETA"]


@pytest.mark.parametrize(
    "bad",
    [{**ACME, "boardVidPid": ""}, {**ACME, "boardVidPid": None}, {}, 1,
     {**ACME, "romfsConfig": [{"name": "without a size"}]}, {**ACME, "romfsConfig": [1]}],
)  # fmt: skip
def test_one_board_that_cannot_be_used_costs_no_other(ide: Path, bad: object) -> None:
    """Such as one that is reached over Wi-Fi, and so has no USB id: the IDE skips it alone."""
    beta = {**ACME, "boardFirmwareFolder": "BETA"}
    add(ide, "acme", json.dumps({"boards": [beta, bad, {**beta, "boardFirmwareFolder": "GAMMA"}]}))
    assert list(boards())[13:] == ["BETA", "GAMMA"]


def test_a_name_that_no_firmware_can_say_is_no_camera_s(ide: Path) -> None:
    add(ide, "acme", json.dumps({"boards": [{**ACME, "boardArchString": "\u661f\u77b3"}]}))
    assert get_board("acme-cam").says == (("ACME", "CAM"),)
    assert identify("Something unknown with X") is None


def test_a_board_of_two_installed_ides_is_as_the_newer_says(ide: Path) -> None:
    """Its vendor made the partition larger, and the older IDE's list is still there. Default images
    are looked for in the same order."""
    for folder, name, size in (
        ("openmvide", "ACME-CAM", 8), ("qtcreator", "ACME-CAM", 4),
        ("openmvide-5.1", "BETA", 1), ("openmvide-5.2", "BETA", 2),
    ):  # fmt: skip
        board = {**ACME, "boardFirmwareFolder": name, "romfsConfig": [{"size": size << 20}]}
        add(ide.parent / folder, "acme", json.dumps({"boards": [board]}))
    assert [(board.name, board.partition().size) for board in list(boards().values())[13:]] == [
        ("ACME_CAM", 8 << 20), ("BETA", 2 << 20),
    ]  # fmt: skip


def test_the_log_says_what_is_not_used(ide: Path, caplog: pytest.LogCaptureFixture) -> None:
    empty = {**ACME, "romfsConfig": []}
    taken = {**ACME, "boardFirmwareFolder": "openmv4"}
    path = add(ide, "acme", json.dumps({"boards": [empty, taken]})) / "settings.json"
    bad = add(ide, "beta", '{"boards": [{"boardFirmwareFolder": "x", "boardVidPid": "1"}]}')
    none = add(ide, "gamma", "{}")
    with caplog.at_level("INFO"):
        assert len(boards()) == 13
    assert caplog.messages == [
        f"{none / 'settings.json'} is not used: KeyError('boards')",
        f"{bad / 'settings.json'}: a board is not used: ValueError('1 is no USB id')",
        f"{path}: ACME_CAM is not used: another board, or no ROMFS",
        f"{path}: OPENMV4 is not used: another board, or no ROMFS",
    ]
