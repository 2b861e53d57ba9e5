"""The board table: against the facts where they are at hand, and spot checks of our own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from romfsfs.boards import (
    Board,
    DfuTarget,
    ImxTarget,
    NeuralArtNpu,
    VelaNpu,
    boards,
    by_dfu_id,
    by_usb_id,
    get_board,
    identify,
)
from romfsfs.errors import UsageError


def usb_id(text: str) -> tuple[int, int]:
    return int(text[:4], 16), int(text[5:], 16)


def compare_partition(board: Board, fact: dict[str, Any]) -> None:
    partition = board.partition(fact["index"])
    assert partition.name == fact["name"]
    assert partition.size == fact["size"]
    assert partition.erase_size == fact["erase_size"]
    assert dict(partition.alignment.suffixes) == fact["alignment"]
    assert partition.alignment.default == 4
    dfu = fact.get("dfu")
    assert (partition.dfu is None) == (dfu is None)
    if partition.dfu is not None:
        assert partition.dfu.alt == dfu["alt"]
        assert partition.dfu.address == (int(dfu["address"], 16) if "address" in dfu else None)
        assert (partition.dfu.name is None) == ("address" in dfu)
    imx = fact.get("imx")
    expected = ImxTarget(int(imx["address"], 16), int(imx["size"], 16)) if imx else None
    assert partition.imx == expected
    npu = fact["npu"]
    if npu is None:
        assert partition.npu is None
    elif npu["type"] == "vela":
        assert isinstance(partition.npu, VelaNpu)
        assert npu["args"] == [
            f"--system-config {partition.npu.system_config}",
            f"--accelerator-config {partition.npu.accelerator_config}",
            f"--memory-mode {partition.npu.memory_mode}",
        ]
        assert partition.npu.sram_heap_bytes == npu["sram_heap_bytes"]
    else:
        assert isinstance(partition.npu, NeuralArtNpu)
        assert npu["args"] == [
            f"--target {partition.npu.target}",
            f"--st-neural-art {partition.npu.profile}@neuralart.json",
        ]


def test_every_figure_is_as_the_facts_say(shared_data: Path | None) -> None:
    facts = shared_data.parent / "facts" / "boards.json" if shared_data else None
    if facts is None or not facts.exists():
        return
    table = json.loads(facts.read_text())["boards"]
    assert list(table) == list(boards())
    for name, fact in table.items():
        board = get_board(name)
        assert board.display_name == fact["display_name"]
        assert board.arch_string == fact["firmware_arch_string"]
        assert board.march == fact["mpy_cross_march"]
        usb = fact["usb_vid_pid"]
        assert board.runtime_ids == tuple(usb_id(text) for text in usb.get("runtime", []))
        assert board.dfu_id == (usb_id(usb["bootloader_dfu"]) if "bootloader_dfu" in usb else None)
        assert len(board.partitions) == len(fact["partitions"])
        for partition in fact["partitions"]:
            compare_partition(board, partition)


def test_thirteen_boards_that_make_sense() -> None:
    assert len(boards()) == 13
    for name, board in boards().items():
        assert board.name == name
        assert board.march in ("armv7emsp", "armv7emdp")
        for index, partition in enumerate(board.partitions):
            assert partition.index == index
            assert partition.size % partition.erase_size == 0
            partition.alignment.check()
            ways = [partition.dfu, partition.imx]
            assert sum(way is not None for way in ways) == (0 if name.startswith("MPS") else 1)


def test_spot_checks() -> None:
    ae3 = get_board("OPENMV_AE3")
    assert [partition.dfu for partition in ae3.partitions] == [
        DfuTarget(6, 4096, "ROMFS0"),
        DfuTarget(3, 16, "ROMFS1"),
    ]
    assert ae3.partition(1).npu == VelaNpu(
        "RTSS_HE_SRAM_MRAM", "ethos-u55-128", "Shared_Sram", 2 << 20
    )
    assert ae3.partition(1).erase_size == 16
    n6 = get_board("OPENMV_N6").partition(0)
    assert n6.size == 24 << 20
    assert n6.alignment.for_name("yolo.ONNX") == 32
    assert get_board("OPENMV4P").partition(0).alignment.for_name("yolo.onnx") == 4
    assert get_board("OPENMV4P").partition(0).dfu == DfuTarget(4, 65536, "ROMFS0")
    assert get_board("OPENMV3").partition(0).erase_size == 256 << 10
    assert get_board("ARDUINO_GIGA").partition(0).dfu == DfuTarget(1, 4096, None, 0x90B00000)
    assert get_board("OPENMV_RT1060").partition(0).imx == ImxTarget(0x60800000, 8 << 20)
    assert get_board("MPS3_AN547").partition(0).alignment.for_name("a.tflite") == 32
    assert get_board("OPENMV2").march == "armv7emsp"


@pytest.mark.parametrize(
    ("machine", "arch", "name"),
    [
        ("OPENMV2 with STM32F427", "", "OPENMV2"),
        ("OPENMV4 with STM32H743", "", "OPENMV4"),
        ("OPENMV4P with STM32H743", "", "OPENMV4P"),
        ("OPENMVPT with STM32H743", "", "OPENMVPT"),
        ("OpenMV-AE3 with AE302F80F55D5AE", "", "OPENMV_AE3"),
        ("OpenMV IMXRT1060 with MIMXRT1062DVJ6A", "", "OPENMV_RT1060"),
        ("OpenMV N6 with STM32N657X0", "", "OPENMV_N6"),
        ("Arduino Nicla Vision with STM32H747", "", "ARDUINO_NICLA_VISION"),
        ("Arduino Portenta H7 with STM32H747", "", "ARDUINO_PORTENTA_H7"),
        ("Arduino Giga with STM32H747", "", "ARDUINO_GIGA"),
        ("mps2-an500 with Cortex-M7", "", "MPS2_AN500"),
        ("something unheard of", "OMV4 H7 1024", "OPENMV4"),
        ("OPENMV4P with STM32H743", "OMV4 H7 1024", "OPENMV4P"),
        ("", "OMV4P H7 32768 SDRAM", "OPENMV4P"),
        ("", "OMVRT1060 32768 SDRAM", "OPENMV_RT1060"),
        ("", "NICLAV H7 1024", "ARDUINO_NICLA_VISION"),
    ],
)
def test_identify(machine: str, arch: str, name: str) -> None:
    board = identify(machine, arch)
    assert board is not None
    assert board.name == name


def test_every_arch_string_identifies_its_board_alone() -> None:
    for board in boards().values():
        assert identify("", board.arch_string) is board
        assert identify(board.name) is board


@pytest.mark.parametrize(
    "machine", ["", "OPENMV", "OPENMV4PX with STM32H743", "OpenMV", "PYBV11 with STM32F405RG"]
)
def test_strangers_are_not_identified(machine: str) -> None:
    assert identify(machine) is None


def test_by_usb_id() -> None:
    assert [board.name for board in by_usb_id(0x37C5, 0x124A)] == ["OPENMV4P"]
    assert by_usb_id(0x37C5, 0x924A) == ()
    assert [board.name for board in by_usb_id(0x2341, 0x045F)] == ["ARDUINO_NICLA_VISION"]
    assert [board.name for board in by_dfu_id(0x37C5, 0x924A)] == ["OPENMV4P"]
    assert len(by_dfu_id(0x2341, 0x035F)) == 1


def test_unknown_names_get_suggestions() -> None:
    assert get_board("openmv-n6") is get_board("OpenMV N6") is boards()["OPENMV_N6"]
    with pytest.raises(UsageError, match="OPENMV_N6") as caught:
        get_board("openmvn6")
    assert caught.value.exit_code == 2
    for name, close in (
        ("H7", "ARDUINO_PORTENTA_H7"),
        ("AE4", ""),
        ("N", ""),
        ("zz", ""),
        ("OPENMV9", "OPENMV4 or OPENMV3 or OPENMV2"),
        ("arduino", "ARDUINO_PORTENTA_H7 or ARDUINO_GIGA or ARDUINO_NICLA_VISION"),
    ):
        asked = f", did you mean {close}?" if close else ""
        with pytest.raises(UsageError) as caught:
            get_board(name)
        assert caught.value.line == f"unknown board {name!r}{asked}; romfsfs boards lists them"
    with pytest.raises(UsageError, match=r"no partition 2.*1 \(High Efficiency Core\)"):
        get_board("OPENMV_AE3").partition(2)


def test_the_table_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        boards()["X"] = get_board("OPENMV2")  # type: ignore[index]
