"""The figures that were asked for, in counts that do not depend on how busy this machine is.

`scripts/bench camera` measures the times, also mpremote's.
"""

from __future__ import annotations

import io
import itertools
import random
import struct
import zlib
from binascii import a2b_base64
from collections import deque
from collections.abc import Callable

import pytest
from camera_helpers import KIB, edited, make_image, opened

from romfsfs.devices.serial_camera import reading
from romfsfs.devices.serial_camera.camera import SerialCamera
from romfsfs.devices.serial_camera.flash_plan import (
    Geometry,
    make_plan,
    opening,
    operations,
    seal,
)
from romfsfs.devices.serial_camera.port import Port
from romfsfs.devices.serial_camera.reading import Window, read_range
from romfsfs.devices.serial_camera.writing import Writer
from romfsfs.image.rules import DEFAULT_RULES
from romfsfs.image.writer import encode
from romfsfs.simulator import Simulator

MIB = 1024 * KIB
#: what erasing 4 KiB and programming 256 bytes of NOR flash take
SECTOR_SECONDS, PAGE_SECONDS = 0.045, 0.0004


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
        before = len(simulator.statistics.spans)
        camera.write_image(opened(edited(image, 3000)), opened(image))
        camera.close()
        assert len(simulator.statistics.spans) - before <= 5
        assert simulator.statistics.needless_pages == 0


def test_what_is_still_erased_is_only_programmed(simulate: Callable[..., Simulator]) -> None:
    """A file more behind the last one: of its block only the pages that follow are touched."""
    source = random.Random(1)
    data, more = source.randbytes(10_000), source.randbytes(2000)
    for size in range(9000, 10_000):
        old = encode({"a.txt": data[:size]}, DEFAULT_RULES)
        new = encode({"a.txt": data[:size], "b.txt": more}, DEFAULT_RULES)
        if len(old) % 256 == 0 and new[4096:].startswith(old[4096:]):
            break
    with simulate("OPENMV4P", images={0: old}) as simulator:
        camera = SerialCamera.open(simulator.port)
        assert camera.write_image(opened(new), opened(old)).verified
        camera.close()
        assert simulator.statistics.erased_blocks == 1  # the header's
        assert simulator.statistics.programmed < 4096 + 2000 + 2 * 256


@pytest.mark.parametrize("raw", [True, False])
def test_few_and_large_calls_carry_what_is_programmed(
    simulate: Callable[..., Simulator], raw: bool
) -> None:
    """As large as a frame may be, and what lies side by side is not cut; little besides it is
    sent: raw bytes grow by 1 %, base64 by a third."""
    image = make_image(200 * KIB)
    with simulate("OPENMV4P", stdio_buffer=raw) as simulator:
        camera = SerialCamera.open(simulator.port)
        before = simulator.statistics.wire_in
        camera.write_image(opened(image))
        sent = simulator.statistics.wire_in - before
        camera.close()
        spans = [(start, end) for _, start, end in simulator.statistics.spans]
    largest = 4096 if raw else 1536
    assert max(end - start for start, end in spans) == largest
    assert sum(end - start for start, end in spans) <= len(image) + 256
    cuts = [
        (start, end)
        for (first, start), (again, end) in itertools.pairwise(spans)
        if start == again and start % 4096 and end - first <= largest
    ]
    assert cuts == []
    assert sent < len(image) * (1.03 if raw else 1.37) + 6 * KIB


@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize("heap", [45, 26])
def test_cameras_with_little_memory(
    simulate: Callable[..., Simulator], raw: bool, heap: int
) -> None:
    """The M4's heap has 45 KiB, the M7's 52; the same with less of it left, filled by a script."""
    image = make_image(64 * KIB)
    hog = "import gc\nhog=bytearray(gc.mem_free()-9000)\nprint('full')\nwhile 1:pass\n"
    with simulate(
        "OPENMV2", stdio_buffer=raw, heap_size=heap * KIB, main_script=hog, images={0: image}
    ) as simulator:
        simulator.wait_until(lambda camera: camera.statistics.wire_out > 0)
        camera = SerialCamera.open(simulator.port)
        tree = camera.read_tree()
        assert tree is not None
        assert tree.size == len(image)
        assert camera.write_image(opened(edited(image, 3000))).verified
        found = io.BytesIO()
        camera.read_image(found)
        camera.close()
        assert found.getvalue() == edited(image, 3000)
        assert max(end - start for _, start, end in simulator.statistics.spans) == 1536


def test_a_read_that_went_well_ends_without_an_interrupt(
    simulate: Callable[..., Simulator],
) -> None:
    """Which would cost a restart of its REPL."""
    image = make_image(20 * KIB)
    with simulate("OPENMV4P", images={0: image}) as simulator:
        camera = SerialCamera.open(simulator.port)
        before = simulator.statistics.interrupts, simulator.statistics.soft_resets
        out = io.BytesIO()
        assert camera.read_image(out) == len(image)
        assert out.getvalue() == image
        assert (simulator.statistics.interrupts, simulator.statistics.soft_resets) == before
        camera.close()


def test_an_image_that_the_host_knows_is_not_read(simulate: Callable[..., Simulator]) -> None:
    image = make_image(8 * MIB - 64 * KIB)
    for missing in ((), ("hashlib",)):
        with simulate("OPENMV4P", images={0: image}, missing=missing) as simulator:
            camera = SerialCamera.open(simulator.port)
            assert camera.matches(opened(image), len(image))
            camera.close()
            statistics = simulator.statistics
            assert statistics.wire_in + statistics.wire_out < 6 * KIB


class Sender:
    """A camera in a clock of its own, behind a link: it answers the READ loop's requests."""

    busy = True
    name = "modelled"

    def __init__(self, content: bytes, rate: float, latency: float) -> None:
        self.content, self.rate, self.latency = content, rate, latency
        self.now = self.camera = 0.0
        self.sent = 0
        self.answers: deque[tuple[float, bytes]] = deque()
        self.port = self

    def start_loop(self, code: str) -> None: ...

    def finish(self, limit: float) -> None: ...

    def write(self, data: bytes) -> None:
        offset, length, _ = (int(word, 16) for word in data.split())
        piece = self.content[offset : offset + length]
        piece += struct.pack("<I", zlib.crc32(piece, offset))
        self.sent += len(piece) + len(data)
        heard = self.now + len(data) / self.rate + self.latency
        self.camera = max(heard, self.camera) + len(piece) / self.rate
        self.answers.append((self.camera + self.latency, piece))

    def read_exactly(self, count: int, deadline: float) -> bytes:
        when, piece = self.answers.popleft()
        assert len(piece) == count
        self.now = max(self.now, when)
        return piece


@pytest.mark.parametrize(("rate", "latency"), [(250_000.0, 0.001), (MIB, 0.004)])
def test_reading_uses_the_link(rate: float, latency: float) -> None:
    """At least 0.8 of its rate, in the camera's own clock, as far as USB's latency goes."""
    image = make_image(384 * KIB)
    camera = Sender(image, rate, latency)
    out = io.BytesIO()
    window = Window("memory", 0, True, True, True)
    end = read_range(camera, window, 0, len(image), out, lambda done: None)  # type: ignore[arg-type]
    assert end == len(image)
    assert out.getvalue() == image
    assert camera.now <= len(image) / rate / 0.8
    assert camera.sent <= 1.01 * len(image)


def test_reading_sends_little_but_the_image(simulate: Callable[..., Simulator]) -> None:
    image = make_image(384 * KIB)
    with simulate("OPENMV4P", images={0: image}) as simulator:
        camera = SerialCamera.open(simulator.port)
        before = simulator.statistics.wire_in, simulator.statistics.wire_out
        camera.read_image(io.BytesIO())
        sent = simulator.statistics.wire_in - before[0]
        received = simulator.statistics.wire_out - before[1]
        camera.close()
    assert len(image) <= received <= 1.01 * len(image) + KIB
    assert sent <= 0.01 * len(image) + 4 * KIB


class Modelled:
    """A camera in a clock of its own, behind a link: it answers the WRITE loop's frames.

    While it erases or programs it takes no more than its ring of 512 bytes, as on USB.
    """

    def __init__(self, rate: float, latency: float) -> None:
        self.rate, self.latency = rate, latency
        self.now = self.line = self.camera = self.erasing = 0.0
        self.sent = 0
        self.answers: deque[tuple[float, bytes]] = deque()
        self.port = self
        self.name = "modelled"

    def start_loop(self, code: str) -> None: ...

    def finish(self, limit: float) -> None: ...

    def write(self, data: bytes) -> None:
        operation, _, number, _, length, _ = struct.unpack("<BBHIIH", a2b_base64(data[:24])[:14])
        self.sent += len(data)
        begin = max(self.now, self.line, self.camera - 512 / self.rate)
        self.line = begin + len(data) / self.rate
        takes = {69: length / 4096 * SECTOR_SECONDS, 87: -(-length // 256) * PAGE_SECONDS}
        self.erasing += takes[69] if operation == 69 else 0
        self.camera = max(self.line + self.latency, self.camera) + takes.get(operation, 0)
        unit = 4 if operation == 69 else 0
        self.answers.append((self.camera + self.latency, b"k %d %d\n" % (number, unit)))

    def read_until(self, ending: bytes, deadline: float) -> bytes:
        when, line = self.answers.popleft()
        self.now = max(self.now, when)
        return line


def test_writing_takes_little_more_than_erasing_and_the_link() -> None:
    """At most 1.2 times both, in the camera's own clock: its answers are not waited for."""
    image = make_image(320 * KIB)
    geometry = Geometry(8 * MIB, 4096, "ranges", 8 * MIB)
    plan = make_plan(geometry, opened(image), len(image), None, zlib.crc32)
    camera = Modelled(rate=250_000.0, latency=0.004)
    window = Window("memory", 0, True, True, True)
    writer = Writer(camera, window, prefix=False, advice="")  # type: ignore[arg-type]
    with writer:
        writer.run([opening(plan)])
        writer.run(operations(plan, opened(image), 4, writer.chunk))
        writer.run([seal(opened(image), 4)])
    assert plan.erased_blocks == 80
    assert writer.programmed >= len(image)
    assert camera.now <= 1.2 * (camera.erasing + len(image) / camera.rate)
    assert camera.sent < 1.03 * len(image) + 80 * 24


def test_a_host_that_sleeps_for_a_second_loses_nothing(
    simulate: Callable[..., Simulator], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The port drops after half a second what nobody takes: it is asked for again."""
    image = make_image(2 * MIB)
    monkeypatch.setattr(reading, "_READ_AHEAD", 16)  # more than the system's own buffers hold
    read = Port.read_some

    def sleepy(self: Port, deadline: float) -> bytes:
        dropped = simulator.statistics.dropped_output
        if simulator.statistics.wire_out > MIB and not dropped:
            simulator.wait_until(lambda camera: camera.statistics.dropped_output > 0)
        return read(self, deadline)

    with simulate("OPENMV4P", images={0: image}) as simulator:
        camera = SerialCamera.open(simulator.port)
        monkeypatch.setattr(Port, "read_some", sleepy)
        found = io.BytesIO()
        camera.read_image(found)
        camera.close()
        assert found.getvalue() == image
        assert simulator.statistics.dropped_output
