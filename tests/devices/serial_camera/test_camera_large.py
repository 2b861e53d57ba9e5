"""A partition of 24 MiB on a camera of 32 bits, where a memoryview's offsets end at 16 MiB."""

from __future__ import annotations

import io
import random
from collections.abc import Callable

import pytest
from camera_helpers import content, edited, opened

from romfsfs.devices.serial_camera.camera import SerialCamera
from romfsfs.image.rules import DEFAULT_RULES
from romfsfs.image.writer import encode
from romfsfs.simulator import Simulator
from romfsfs.simulator.config import MIB, PartitionConfig

SIZE = 24 * MIB
BLOCK = 4096


@pytest.fixture(scope="module")
def full() -> bytes:
    """An image of exactly 24 MiB."""
    noise = random.Random(24).randbytes(SIZE)
    size = SIZE - 64
    while len(image := encode({"model.bin": noise[:size]}, DEFAULT_RULES)) != SIZE:
        size += SIZE - len(image)
    return image


@pytest.mark.parametrize("access", ["memory", "block"])
def test_all_of_24_mib_is_read_compared_and_edited(
    simulate: Callable[..., Simulator], full: bytes, access: str
) -> None:
    partitions = (PartitionConfig(SIZE, access=access),)
    with simulate("OPENMV_N6", partitions=partitions, images={0: full}) as simulator:
        camera = SerialCamera.open(simulator.port)
        back = io.BytesIO()
        assert camera.read_image(back) == SIZE
        assert back.getvalue() == full
        assert camera.matches(opened(full), SIZE)
        for place in (1000, 17 * MIB + 77, SIZE - 50):
            changed = edited(full, place)
            assert not camera.matches(opened(changed), SIZE)
            report = camera.write_image(opened(changed), opened(full))
            assert report.erased_blocks == len({0, place // BLOCK})
            header = 256 if access == "block" else 0  # its page, once without it
            assert report.written == report.erased_blocks * BLOCK + header
            assert content(simulator) == changed
            camera.write_image(opened(full), opened(changed))
        camera.close()


@pytest.mark.parametrize("access", ["memory", "block"])
def test_an_empty_camera_is_filled_to_the_last_byte(
    simulate: Callable[..., Simulator], access: str
) -> None:
    """What is erased is not sent, so most of this image is."""
    name_and_header = len(encode({"model.bin": b""}, DEFAULT_RULES))
    data = b"a" * BLOCK + b"\xff" * (SIZE - 3 * BLOCK) + b"z" * BLOCK
    image = encode({"model.bin": data}, DEFAULT_RULES)
    image = encode({"model.bin": data + b"z" * (SIZE - len(image))}, DEFAULT_RULES)
    assert name_and_header < len(image) == SIZE
    partitions = (PartitionConfig(SIZE, access=access),)
    with simulate("OPENMV_N6", partitions=partitions) as simulator:
        camera = SerialCamera.open(simulator.port)
        assert camera.write_image(opened(image)).verified
        assert content(simulator) == image
        camera.close()
