"""Every kind of memory and firmware: what is written is there, byte for byte, and is read back."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from camera_helpers import KIB, content, edited, make_image, opened

from romfsfs.devices.serial_camera.camera import SerialCamera
from romfsfs.devices.serial_camera.port import Port
from romfsfs.devices.serial_camera.repl import RawRepl
from romfsfs.image.layout import DEFAULT_RULES
from romfsfs.image.writer import encode
from romfsfs.simulator import Simulator, preset
from romfsfs.simulator.config import PartitionConfig

NOR = (PartitionConfig(256 * KIB),)
FIRMWARES = {
    "newest": {},
    "no range erase": {"erase_by_range": False},
    "no binary stdio": {"stdio_buffer": False},
    "no hashlib": {"missing": ("hashlib",)},
    "no crc32": {"missing": ("binascii.crc32",)},
    "no checksums": {"missing": ("hashlib", "binascii.crc32")},
    "no select": {"missing": ("select",)},
    "slow byte loops": {"stdio_buffer": False, "byte_seconds": 20e-6},
    "the STM32's own port driver": {"usb": "stm32"},
    "no unique id": {"unique_id": b""},
    "oldest": {"stdio_buffer": False, "erase_by_range": False, "missing": ("hashlib", "select")},
}


def write_and_read(simulator: Simulator, partition: int, first: bytes, second: bytes) -> None:
    camera = SerialCamera.open(simulator.port, partition=partition)
    try:
        for image in (first, second):
            report = camera.write_image(opened(image))
            assert report.verified
            assert content(simulator, partition).startswith(image)
            back = io.BytesIO()
            assert camera.read_image(back) == len(image)
            assert back.getvalue() == image
            assert camera.matches(opened(image), len(image)) in (True, None)
            assert camera.matches(opened(edited(image, 500)), len(image)) in (False, None)
            again = camera.write_image(opened(image))
            if camera.facts.crc32 or camera.facts.sha256:
                assert (again.written, again.erased_blocks) == (0, 0)
        for _ in range(2):
            camera.clear()
            assert camera.read_image(io.BytesIO()) == 0
    finally:
        camera.close()
    assert simulator.statistics.bad_programs == 0


@pytest.mark.parametrize("firmware", FIRMWARES)
@pytest.mark.parametrize("access", ["memory", "block"])
def test_firmwares(simulate: Callable[..., Simulator], firmware: str, access: str) -> None:
    changes: dict[str, Any] = dict(FIRMWARES[firmware])
    word = 256 if access == "block" else 1  # as rp2's, and so mimxrt's too
    partitions = (PartitionConfig(256 * KIB, access=access, word=word),)
    with simulate("OPENMV_N6", partitions=partitions, **changes) as simulator:
        write_and_read(simulator, 0, make_image(150 * KIB), make_image(90 * KIB, 1))


@pytest.mark.parametrize(
    ("board", "partition"),
    [("OPENMV2", 0), ("OPENMV3", 0), ("OPENMV4", 0), ("OPENMV_AE3", 0), ("OPENMV_AE3", 1)],
)
def test_memories(simulate: Callable[..., Simulator], board: str, partition: int) -> None:
    with simulate(board) as simulator:
        write_and_read(simulator, partition, make_image(100 * KIB), make_image(70 * KIB, 1))


def test_an_edit_writes_its_block_and_the_headers(simulate: Callable[..., Simulator]) -> None:
    old = make_image(200 * KIB)
    with simulate("OPENMV_N6", partitions=NOR, images={0: old}) as simulator:
        camera = SerialCamera.open(simulator.port)
        report = camera.write_image(opened(edited(old, 100_000)))
        camera.close()
        assert report.erased_blocks == 2
        assert report.written == 2 * 4096
        assert set(simulator.statistics.erase_counts) == {(0, 0), (0, 100_000 // 4096)}


def test_firmware_without_command_6_never_gets_the_range_erase(
    simulate: Callable[..., Simulator],
) -> None:
    """It would take a range's offset for the length and destroy what is in front of it."""
    old = make_image(200 * KIB)
    changes = {"partitions": NOR, "erase_by_range": False, "images": {0: old}}
    with simulate("OPENMV_N6", **changes) as simulator:
        camera = SerialCamera.open(simulator.port)
        camera.write_image(opened(edited(old, 50_000)))
        camera.close()
        erased = {block for _, block in simulator.statistics.erase_counts}
        assert erased == set(range(50_000 // 4096 + 1))
        assert content(simulator).startswith(edited(old, 50_000))


def test_appending_into_erased_flash_erases_only_the_header_block(
    simulate: Callable[..., Simulator],
) -> None:
    """And a write onto a blank partition, however large, erases one block."""
    with simulate("OPENMV_N6", partitions=NOR) as simulator:
        camera = SerialCamera.open(simulator.port)
        report = camera.write_image(opened(make_image(200 * KIB)))
        camera.close()
        assert report.erased_blocks == 1


def test_nothing_beyond_the_image_is_read_or_written(simulate: Callable[..., Simulator]) -> None:
    """OPENMV4P hangs when the last 512 bytes of its partition are read."""
    partitions = (PartitionConfig(128 * KIB, wedge_tail=512),)
    image = make_image(127 * KIB)
    with simulate("OPENMV4P", partitions=partitions) as simulator:
        camera = SerialCamera.open(simulator.port)
        assert camera.info().capacity == 128 * KIB - 512
        camera.write_image(opened(image))
        assert camera.digest(128 * KIB) is not None
        assert camera.read_image(io.BytesIO()) == len(image)
        camera.close()


@pytest.mark.parametrize("says_erase_size", [True, False])
def test_mram_where_the_table_of_boards_has_flash(
    simulate: Callable[..., Simulator], says_erase_size: bool
) -> None:
    """Special builds of the AE3; an image with FF in it shows whether they are taken for erased."""
    mram = PartitionConfig(512 * KIB, 16, kind="mram", word=16, min_write=16)
    image = encode({"a.bin": b"a" * 9000 + b"\xff" * 30_000 + b"b" * 5000}, DEFAULT_RULES)
    changes: dict[str, Any] = {"partitions": (mram,), "erase_by_range": says_erase_size}
    with simulate("OPENMV_AE3", images={0: make_image(200 * KIB)}, **changes) as simulator:
        write_and_read(simulator, 0, image, make_image(90 * KIB, 1))
        assert simulator.statistics.erased_blocks == 0


@pytest.mark.parametrize("access", ["memory", "block"])
def test_on_a_micropython_of_64_bits(micropython64: Path, access: str) -> None:
    """A sample: everything else runs on 32, as cameras do."""
    partitions = (PartitionConfig(256 * KIB, access=access),)
    config = preset("OPENMV_N6", partitions=partitions)
    with Simulator(config, micropython=micropython64) as simulator:
        assert simulator_bits(simulator) == 64
        write_and_read(simulator, 0, make_image(150 * KIB), make_image(90 * KIB, 1))


def simulator_bits(simulator: Simulator) -> int:
    """Of the MicroPython that plays the camera."""
    repl = RawRepl(Port(simulator.port))
    try:
        return 8 * int(repl.run("import ustruct\nprint(ustruct.calcsize('P'))\n"))
    finally:
        repl.leave()
        repl.port.close()
