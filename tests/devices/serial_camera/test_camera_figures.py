"""The figures that were asked for, in counts that do not depend on how busy this machine is.

`scripts/bench camera` measures the times, also mpremote's.
"""

from __future__ import annotations

import io
import random
import time
from collections.abc import Callable

import pytest
from camera_helpers import KIB, edited, make_image, opened

from romfsfs.devices.serial_camera.camera import SerialCamera
from romfsfs.image.rules import DEFAULT_RULES
from romfsfs.image.writer import encode
from romfsfs.simulator import Simulator

MIB = 1024 * KIB


def test_an_edit_among_8_mib_of_models(simulate: Callable[..., Simulator]) -> None:
    source = random.Random(1)
    files = {f"model{index}.tflite": source.randbytes(MIB - 3000) for index in range(7)}
    files["main.py"] = b"print(1)\n" * 113
    files["z.tflite"] = source.randbytes(900_000)
    old = encode(files, DEFAULT_RULES)
    new = encode({**files, "main.py": b"print(2)\n" * 113}, DEFAULT_RULES)
    with simulate("OPENMV4P", images={0: old}) as simulator:
        camera = SerialCamera.open(simulator.port)
        camera.write_image(opened(new), opened(old))
        camera.restart()
        camera.close()
        assert simulator.statistics.wire_in < 40 * KIB
        assert simulator.statistics.erased_blocks <= 4


@pytest.mark.parametrize("blank", [True, False])
def test_no_page_is_programmed_needlessly(simulate: Callable[..., Simulator], blank: bool) -> None:
    """Runs of FF are there already, whether they fill a block, a page or lie between two."""
    pieces = [b"a" * 700, b"\xff" * 1100, b"b" * 5000, b"\xff" * 9000, b"c" * 100, b"\xff" * 300]
    image = encode({"a.bin": b"".join(pieces) * 3}, DEFAULT_RULES)
    old = make_image(64 * KIB)
    with simulate("OPENMV4P", images={} if blank else {0: old}) as simulator:
        camera = SerialCamera.open(simulator.port)
        assert camera.write_image(opened(image), None if blank else opened(old)).verified
        assert simulator.statistics.needless_pages == 0
        written = image.count(b"a") + image.count(b"b") + image.count(b"c")
        assert simulator.statistics.programmed < written + 256 * 20
        before = simulator.statistics.programs
        camera.write_image(opened(edited(image, 3000)), opened(image))
        camera.close()
        assert simulator.statistics.programs - before <= 5
        assert simulator.statistics.needless_pages == 0


def test_an_image_that_the_host_knows_is_not_read(simulate: Callable[..., Simulator]) -> None:
    image = make_image(8 * MIB - 64 * KIB)
    for missing in ((), ("hashlib",)):
        with simulate("OPENMV4P", images={0: image}, missing=missing) as simulator:
            camera = SerialCamera.open(simulator.port)
            assert camera.matches(opened(image), len(image))
            camera.close()
            statistics = simulator.statistics
            assert statistics.wire_in + statistics.wire_out < 6 * KIB


def test_reading_uses_the_link(simulate: Callable[..., Simulator]) -> None:
    """At least 0.8 of its rate, with 1 ms of latency each way, as USB has it.

    A slow link and the best of three: the share of the link is asked for, not of a busy machine.
    """
    image = make_image(384 * KIB)
    rate = 250_000.0
    best = 0.0
    with simulate("OPENMV4P", images={0: image}, rate=rate, latency=0.001) as simulator:
        camera = SerialCamera.open(simulator.port)
        for _ in range(3):
            started = time.monotonic()
            camera.read_image(io.BytesIO())
            best = max(best, len(image) / (time.monotonic() - started))
            if best > 0.8 * rate:
                break
        camera.close()
    assert best > 0.8 * rate
