"""Boards that are in no table, as MicroPython's other ports present them: `generic`."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from camera_rig import KIB, Rig, held

from romfsfs.simulator import Simulator
from romfsfs.simulator.config import PartitionConfig

Connect = Callable[..., Simulator]
MIB = 1024 * KIB


@pytest.mark.parametrize(
    ("machine", "platform", "march", "partition"),
    [
        ("Raspberry Pi Pico 2 with RP2350", "rp2", 7, PartitionConfig(512 * KIB, access="block")),
        ("Raspberry Pi Pico with RP2040", "rp2", 4, PartitionConfig(128 * KIB, access="block")),
        ("ESP32S3 with ESP32S3", "esp32", 10, PartitionConfig(2 * MIB, access="block")),
        ("ESP32C3 module with ESP32C3", "esp32", 11, PartitionConfig(1 * MIB, access="block")),
        ("NRF52840-DK with NRF52840", "nrf52", 7, PartitionConfig(64 * KIB, access="block")),
        ("SOMEBODY'S BOARD with STM32F7", "pyboard", 8, PartitionConfig(240 * KIB, 8 * KIB)),
    ],
)
def test_what_a_board_reports_is_used(
    rig: Rig, connect: Connect, machine: str, platform: str, march: int, partition: PartitionConfig
) -> None:
    """Size and erase unit of its partition, bytecode and architecture; no `omv` module there."""
    marches = {4: "armv6m", 7: "armv7emsp", 8: "armv7emdp", 10: "xtensawin", 11: "rv32imc"}
    changes: dict[str, Any] = {"arch_string": "", "board_type": "", "missing": ("omv", "ml")}
    camera = connect(
        "OPENMV4P", machine=machine, platform=platform, mpy=6 | 3 << 8 | march << 10,
        partitions=(partition,), **changes,
    )  # fmt: skip
    session = rig.prepare("camera")
    status = json.loads(rig.ok("status", "camera", "--json"))
    assert status["board"] is None
    assert status["capacity"] == partition.size
    native = "@micropython.native\ndef f(a):\n    return a + 1\n"
    (session.work / "app.py").write_text(native)
    (session.work / "lib").mkdir()
    (session.work / "lib" / "data.bin").write_bytes(b"data" * 1000)
    said = rig.ok("commit", "camera")
    assert "verified" in said
    files = held(camera)
    assert files is not None
    assert set(files) == {"app.mpy", "lib/data.bin"}
    compiled = files["app.mpy"]
    assert compiled[:2] == b"M\x06"
    assert compiled[2] >> 2 == march, marches[march]
    assert camera.statistics.erased_blocks <= -(-partition.size // partition.erase_size)
    assert camera.statistics.bad_programs == 0
    (session.work / "app.py").unlink()
    rig.ok("commit", "camera")
    rig.ok("undo", "camera")
    assert held(camera) == files
    assert "not known" in rig.run("cameras").out + rig.run("info", camera.port).err
