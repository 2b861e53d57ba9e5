"""Hosts that die in the middle of a transfer: whoever comes next gets in, from every state.

A host dies here in one of its frames: nothing more is sent, and nothing is said in parting, as with
kill -9. What it has sent still travels, on a slow line for seconds. The next host has its limit of
15 s to get in (`repl.ENTER_LIMIT`, which DeviceLost ends), and finds what a power cut leaves.
"""

from __future__ import annotations

import binascii
import io
import subprocess
import sys
from collections.abc import Callable

import pytest
from camera_helpers import KIB, holds, make_image, opened

from romfsfs.devices.serial_camera import frames, snippets
from romfsfs.devices.serial_camera.camera import SerialCamera
from romfsfs.devices.serial_camera.port import Port
from romfsfs.devices.serial_camera.repl import RawRepl
from romfsfs.simulator import Simulator
from romfsfs.simulator.config import PartitionConfig

Simulate = Callable[..., Simulator]

SMALL = (PartitionConfig(32 * KIB),)
OLD = make_image(14 * KIB)
NEW = make_image(11 * KIB, 1)


class Died(BaseException):
    """kill -9."""


def die(camera: SerialCamera, image: bytes, frame: int, part: float) -> bool:
    """Write, and die in this frame when `part` of it is sent; False: there are not so many."""
    write, seen = camera._port.write, 0

    def dying(data: bytes | bytearray | memoryview) -> None:
        nonlocal seen
        if len(data) >= 24 and is_frame(bytes(data[:24])):
            seen += 1
            if seen > frame:
                write(data[: int(len(data) * part)])
                raise Died
        write(data)

    camera._port.write = dying  # type: ignore[method-assign]
    camera._repl.recover = lambda: None  # type: ignore[method-assign]
    try:
        camera.write_image(opened(image))
    except Died:
        camera._port.close()
        return True
    camera.close()
    return False


def is_frame(header: bytes) -> bool:
    try:
        return binascii.a2b_base64(header, strict_mode=True)[1] == frames.MARKER
    except ValueError:
        return False


def dies_in_every_frame(simulator: Simulator, parts: list[float], step: int = 1) -> int:
    """How many hosts have died; each left the old image, the new one, or none."""
    deaths, frame = 0, 0
    while True:
        for part in parts:
            camera = SerialCamera.open(simulator.port)
            camera.write_image(opened(OLD))
            if not die(camera, NEW, frame, part):
                return deaths
            deaths += 1
            camera = SerialCamera.open(simulator.port)
            assert holds(simulator, OLD, NEW) != "mixture", (frame, part)
            camera.close()
        frame += step


@pytest.mark.parametrize("usb", ["tinyusb", "stm32"])
@pytest.mark.parametrize("stdio_buffer", [True, False])
def test_in_every_frame(simulate: Simulate, stdio_buffer: bool, usb: str) -> None:
    changes = {"partitions": SMALL, "stdio_buffer": stdio_buffer, "usb": usb}
    with simulate("OPENMV_N6", images={0: OLD}, **changes) as simulator:
        assert dies_in_every_frame(simulator, [0.0, 0.01, 0.7]) > 30
        assert simulator.statistics.bad_programs == 0


@pytest.mark.parametrize(("rate", "step"), [(11_000.0, 4), (1_000_000.0, 3)])
def test_on_a_line_that_is_slower_than_the_host(simulate: Simulate, rate: float, step: int) -> None:
    changes = {"partitions": SMALL, "rate": rate, "erase_seconds": 0.045}
    with simulate("OPENMV_N6", images={0: OLD}, **changes) as simulator:
        assert dies_in_every_frame(simulator, [0.7], step) >= 3


def test_mpremote_gets_in_too(simulate: Simulate) -> None:
    """Whoever sends Ctrl-C, without knowing anything of the loop. What mpremote sends right behind
    its first Ctrl-C may be read as input, as by any script that reads; then it is run again."""
    with simulate("OPENMV_N6", partitions=SMALL, images={0: OLD}) as simulator:
        assert die(SerialCamera.open(simulator.port), NEW, 4, 0.5)
        for _ in (1, 2):
            done = subprocess.run(
                [sys.executable, "-m", "mpremote", "connect", simulator.port, "exec", "print(42)"],
                capture_output=True, text=True, timeout=30, check=False,
            )  # fmt: skip
        assert done.stdout == "42\n", done.stderr


def test_in_the_middle_of_reading(simulate: Simulate) -> None:
    """With requests on the way, half a line of one, and answers that nobody takes."""
    with simulate("OPENMV_N6", partitions=SMALL, images={0: OLD}) as simulator:
        for sent in (b"", b"0 1000 1000\n" * 4, b"0 10"):
            dead = RawRepl(Port(simulator.port))
            code = snippets.read_loop("memory", 0, raw=True, crc32=True, poll=True)
            dead.start_loop(code)
            dead.port.write(sent)
            dead.port.close()
            camera = SerialCamera.open(simulator.port)
            back = io.BytesIO()
            camera.read_image(back)
            assert back.getvalue() == OLD
            camera.close()


@pytest.mark.parametrize("loop", ["read", "write"])
def test_a_loop_that_nobody_talks_to_ends_by_itself(simulate: Simulate, loop: str) -> None:
    """After 10 s of silence; whatever connects then finds a prompt."""
    with simulate("OPENMV_N6", partitions=SMALL, images={0: OLD}) as simulator:
        host = RawRepl(Port(simulator.port))
        how = {"raw": True, "crc32": True, "poll": True}
        code = (
            snippets.read_loop("memory", 0, **how)
            if loop == "read"
            else snippets.write_loop("memory", 0, **how, cached=False, mram=False)
        )
        host.start_loop(code)
        assert host.finish(30.0) == (b"" if loop == "read" else b"t\r\n")
        host.port.close()


def test_no_frame_contains_ctrl_c() -> None:
    every = bytes(range(256))
    for payload in (every * 16, b"\x03" * 4096, b"\x04" * 4096, b"\x04\x05\x06\x03" * 1024):
        for number in range(1024):
            framed = frames.frame(b"W", number, 0x030303, payload[: number * 4])
            assert b"\x03" not in framed
            assert len(framed) <= frames.LONGEST
        plain = frames.escaped(payload)
        assert plain.replace(b"\x04\x05", b"\x03").replace(b"\x04\x06", b"\x04") == payload
