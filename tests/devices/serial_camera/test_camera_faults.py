"""Cameras that answer wrongly, slowly or not at all, and hosts that die."""

from __future__ import annotations

import errno
import io
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from camera_helpers import KIB, content, edited, make_image, opened

from romfsfs.devices.serial_camera import repl, snippets
from romfsfs.devices.serial_camera.camera import SerialCamera
from romfsfs.devices.serial_camera.port import Port
from romfsfs.devices.serial_camera.repl import RawRepl
from romfsfs.errors import (
    CapacityError,
    DeviceAbsent,
    DeviceAnswer,
    DeviceBusy,
    DeviceError,
    DeviceLost,
    ImageFormatError,
    VerifyError,
)
from romfsfs.simulator import TO_CAMERA, TO_HOST, Simulator, preset
from romfsfs.simulator.config import PartitionConfig

SMALL = (PartitionConfig(32 * KIB),)
OLD = make_image(20 * KIB)
NEW = make_image(18 * KIB, 1)


@pytest.mark.parametrize("stdio_buffer", [True, False])
@pytest.mark.parametrize("direction", [TO_CAMERA, TO_HOST])
@pytest.mark.parametrize("fault", ["garble", "lose"])
def test_a_spoiled_byte_is_noticed_and_sent_again(
    simulate: Callable[..., Simulator], stdio_buffer: bool, direction: str, fault: str
) -> None:
    changes = {"partitions": SMALL, "stdio_buffer": stdio_buffer}
    with simulate("OPENMV_N6", images={0: OLD}, **changes) as simulator:
        camera = SerialCamera.open(simulator.port)
        for position in (40, 3000, 9000):
            getattr(simulator.faults, fault)(direction, position)
            assert camera.write_image(opened(NEW)).verified
            simulator.faults.clear()
            getattr(simulator.faults, fault)(direction, position)
            back = io.BytesIO()
            camera.read_image(back)
            assert back.getvalue() == NEW
            simulator.faults.clear()
            camera.write_image(opened(OLD))
        camera.close()


def test_a_payload_that_is_no_base64_is_sent_again(simulate: Callable[..., Simulator]) -> None:
    changes: dict[str, Any] = {"partitions": SMALL, "stdio_buffer": False}
    with simulate("OPENMV_N6", images={0: OLD}, **changes) as simulator:
        camera = SerialCamera.open(simulator.port)
        for position in range(9000, 9040):
            simulator.faults.garble(TO_CAMERA, position)
        execs = simulator.statistics.execs
        assert camera.write_image(opened(NEW)).verified
        assert simulator.statistics.execs == execs + 7  # as where nothing is garbled
        camera.close()


@pytest.mark.parametrize(("command", "what"), [(3, "erase"), (4, "program")])
def test_a_refusal_names_the_address(
    simulate: Callable[..., Simulator], command: int, what: str
) -> None:
    """mpremote reports success."""
    with simulate("OPENMV_N6", partitions=SMALL, images={0: OLD}) as simulator:
        camera = SerialCamera.open(simulator.port)
        simulator.faults.fail_ioctl(3, -errno.EIO, command=command)
        with pytest.raises(DeviceAnswer, match=rf"refuses to {what}.*0x[0-9a-f]+") as caught:
            camera.write_image(opened(NEW))
        assert caught.value.errno == errno.EIO
        assert camera.write_image(opened(NEW)).verified
        camera.close()


@pytest.mark.parametrize(
    ("command", "answer", "what"),
    [(103, -5, "erase: Input"), (104, -5, "program: Input"), (104, -261, "program: .*-261")],
)
def test_a_block_device_that_refuses(
    simulate: Callable[..., Simulator], command: int, answer: int, what: str
) -> None:
    """mimxrt's raises OSError with a text where others have the number, esp32's a negative one."""
    partitions = (PartitionConfig(32 * KIB, access="block"),)
    with simulate("OPENMV_RT1060", partitions=partitions, images={0: OLD}) as simulator:
        camera = SerialCamera.open(simulator.port)
        simulator.faults.fail_ioctl(2, answer, command=command)
        with pytest.raises(DeviceAnswer, match=rf"refuses to {what}.*0x[0-9a-f]+"):
            camera.write_image(opened(NEW))
        assert camera.write_image(opened(NEW)).verified
        camera.close()


def test_worn_flash_is_a_verification_error(simulate: Callable[..., Simulator]) -> None:
    with simulate("OPENMV_N6", partitions=SMALL, images={0: OLD}) as simulator:
        simulator.faults.stuck_block(2)
        camera = SerialCamera.open(simulator.port)
        with pytest.raises(VerifyError, match="0x2000"):
            camera.write_image(opened(NEW))
        camera.close()
        assert not content(simulator).startswith(NEW[:16]), "no header over a wrong image"


def test_one_bad_write_is_repeated_in_full(simulate: Callable[..., Simulator]) -> None:
    with simulate("OPENMV_N6", partitions=SMALL, images={0: OLD}) as simulator:
        camera = SerialCamera.open(simulator.port)
        simulator.faults.fail_ioctl(2, 0, command=4)  # answers that it wrote, and did not
        report = camera.write_image(opened(NEW))
        camera.close()
        assert report.verified
        assert report.notes
        assert content(simulator).startswith(NEW)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repl, "ENTER_LIMIT", 2.0)
    monkeypatch.setattr("romfsfs.devices.serial_camera.reading.SILENCE", 0.3)
    monkeypatch.setattr(repl, "ANSWER_LIMIT", 1.0)


@pytest.mark.usefixtures("impatient")
def test_a_silent_camera_is_given_up(simulate: Callable[..., Simulator]) -> None:
    with simulate("OPENMV_N6", partitions=SMALL) as simulator:
        simulator.silence()
        started = time.monotonic()
        with pytest.raises(DeviceLost, match=r"did not answer within 2 s.*unplug it"):
            SerialCamera.open(simulator.port)
        assert time.monotonic() - started < 30


@pytest.mark.parametrize("what", ["read", "digest"])
def test_silence_in_the_middle(
    simulate: Callable[..., Simulator], what: str, request: pytest.FixtureRequest
) -> None:
    with simulate("OPENMV_N6", partitions=SMALL, images={0: OLD}, rate=20_000) as simulator:
        camera = SerialCamera.open(simulator.port)
        request.getfixturevalue("impatient")  # from here on
        timer = threading.Timer(0.4 if what == "read" else 0.0, simulator.silence)
        timer.start()
        if what == "digest":
            timer.join()
        with pytest.raises(DeviceError) as caught:
            camera.read_image(io.BytesIO()) if what == "read" else camera.digest(len(OLD))
        timer.join()
        assert caught.value.exit_code == 5
        camera.close()


def test_running_scripts_are_interrupted(simulate: Callable[..., Simulator]) -> None:
    scripts = (
        "while True: print('frame')",
        "import time\nwhile True: time.sleep(1)",
        "n = 0\nwhile n < 2:\n try:\n  while True: pass\n except KeyboardInterrupt: n += 1",
    )
    for script in scripts:
        with simulate("OPENMV_N6", partitions=SMALL, main_script=script) as simulator:
            camera = SerialCamera.open(simulator.port)
            assert camera.info().board == "OPENMV_N6"
            camera.close()


@pytest.mark.parametrize("pause", [0.1, 0.03, 0.0])
def test_what_prints_in_the_background_is_ended(micropython64: Path, pause: float) -> None:
    """Threads and timers go on when the script has been interrupted; they print into answers.
    Of 64 bits: with threads, MicroPython of 32 bits crashes on this system now and then."""
    script = (
        "import _thread, time\n"
        f"def tick():\n while True:\n  print('tick')\n  time.sleep({pause})\n"
        "_thread.start_new_thread(tick, ())\n"
    )
    image = make_image(200 * KIB)
    config = preset(
        "OPENMV_N6", partitions=(PartitionConfig(256 * KIB),), main_script=script,
        images={0: image}, rate=300_000,
    )  # fmt: skip
    with Simulator(config, micropython=micropython64) as simulator:
        camera = SerialCamera.open(simulator.port)
        back = io.BytesIO()
        assert camera.read_image(back) == len(image)
        assert back.getvalue() == image
        assert camera.matches(opened(image), len(image))
        camera.close()


@pytest.mark.parametrize("digit", range(4))
def test_a_camera_is_not_taken_for_another(simulate: Callable[..., Simulator], digit: int) -> None:
    """A digit of its number is garbled on the way: it would be another camera's session."""
    with simulate("OPENMV_N6", partitions=SMALL) as simulator:
        port = Port(simulator.port)
        text = RawRepl(port).run(snippets.PROBE)
        before = simulator.statistics.wire_out
        text = RawRepl(port).run(snippets.PROBE)
        port.close()
        place = simulator.statistics.wire_out - before - len(text) + text.index("'uid': '") + 8
        simulator.faults.garble(TO_HOST, place + digit, 0x01)
        camera = SerialCamera.open(simulator.port)
        assert camera.facts.unique_id == simulator.config.unique_id.hex()
        camera.close()


@pytest.mark.usefixtures("impatient")
def test_a_script_that_cannot_be_interrupted(simulate: Callable[..., Simulator]) -> None:
    script = "while True:\n try:\n  while True: pass\n except KeyboardInterrupt: pass"
    with (
        simulate("OPENMV_N6", partitions=SMALL, main_script=script) as simulator,
        pytest.raises(DeviceLost, match="not answer"),
    ):
        SerialCamera.open(simulator.port)


def test_ctrl_c_in_a_write(simulate: Callable[..., Simulator]) -> None:
    """It goes on to the caller; the camera holds no image, and is at its prompt again."""
    changes = {"partitions": SMALL, "erase_seconds": 0.05}
    with simulate("OPENMV_N6", images={0: OLD}, **changes) as simulator:
        camera = SerialCamera.open(simulator.port)
        main = threading.main_thread().ident
        assert main is not None

        def progress(phase: str, done: int, total: int) -> None:
            if phase == "writing" and 0 < done < total:
                signal.pthread_kill(main, signal.SIGINT)

        with pytest.raises(KeyboardInterrupt):
            camera.write_image(opened(NEW), None, progress)
        assert camera.write_image(opened(OLD)).verified
        camera.close()


def test_ctrl_c_before_a_write(simulate: Callable[..., Simulator]) -> None:
    """While the camera restarts, so that nothing uses its ROMFS: it is at its prompt afterwards."""
    changes = {"partitions": SMALL, "boot_script": "import time\ntime.sleep(2)"}
    with simulate("OPENMV_N6", images={0: OLD}, **changes) as simulator:
        camera = SerialCamera.open(simulator.port)
        main = threading.main_thread().ident
        assert main is not None

        def interrupt() -> None:
            simulator.wait_until(lambda camera: camera.statistics.soft_resets > 0)
            signal.pthread_kill(main, signal.SIGINT)

        waiting = threading.Thread(target=interrupt)
        waiting.start()
        with pytest.raises(KeyboardInterrupt):
            camera.write_image(opened(NEW))
        waiting.join()
        camera.close()
        assert content(simulator).startswith(OLD)
        assert at_the_prompt(simulator, "6*7").endswith(b"\r\n42\r\n")


def test_the_port_is_busy_or_absent(simulate: Callable[..., Simulator]) -> None:
    with simulate("OPENMV_N6", partitions=SMALL) as simulator:
        first = SerialCamera.open(simulator.port)
        with pytest.raises(DeviceBusy, match="in use"):
            SerialCamera.open(simulator.port)
        first.close()
        simulator.unplug()
        with pytest.raises(DeviceAbsent, match="no such serial port"):
            SerialCamera.open(simulator.port)


def test_unplugged_while_open(simulate: Callable[..., Simulator]) -> None:
    with simulate("OPENMV_N6", partitions=SMALL, images={0: OLD}) as simulator:
        camera = SerialCamera.open(simulator.port)
        simulator.unplug()
        with pytest.raises(DeviceLost, match=r"went away.*plug the camera in again.*machine\.WDT"):
            camera.digest(len(OLD))
        camera.close()


def test_what_is_no_image_is_refused_and_left_alone(simulate: Callable[..., Simulator]) -> None:
    foreign = b"littlefs" * 100
    with simulate("OPENMV_N6", partitions=SMALL, images={0: foreign}) as simulator:
        camera = SerialCamera.open(simulator.port)
        assert camera.partitions()[0].state == "foreign"
        with pytest.raises(ImageFormatError, match="nothing was changed"):
            camera.read_image(io.BytesIO())
        with pytest.raises(ImageFormatError):
            camera.write_image(opened(b"no image"))
        with pytest.raises(CapacityError):
            camera.write_image(opened(make_image(40 * KIB)))
        camera.close()
        assert content(simulator).startswith(foreign)
        assert simulator.statistics.erased_blocks == 0


def test_a_header_that_declares_too_much(simulate: Callable[..., Simulator]) -> None:
    header = b"\xd2\xcd\x31" + b"\x80" * 9 + b"\x84\x80\x80\x00"
    with simulate("OPENMV_N6", partitions=SMALL, images={0: header}) as simulator:
        camera = SerialCamera.open(simulator.port)
        with pytest.raises(ImageFormatError, match="declares"):
            camera.read_image(io.BytesIO())
        camera.close()


class FullDisk(io.BytesIO):
    def write(self, data: Any) -> int:
        if self.tell() > 8 * KIB:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(data)


def test_no_room_for_what_is_read(simulate: Callable[..., Simulator]) -> None:
    """The camera is at its prompt again, not in our loop."""
    with simulate("OPENMV_N6", partitions=SMALL, images={0: OLD}) as simulator:
        camera = SerialCamera.open(simulator.port)
        with pytest.raises(OSError, match="No space left"):
            camera.read_image(FullDisk())
        camera.close()
        assert at_the_prompt(simulator, "6*7").endswith(b"\r\n42\r\n")


def test_rom_is_there_again_after_a_write_to_the_other_partition(
    simulate: Callable[..., Simulator],
) -> None:
    with simulate("OPENMV_AE3", images={0: OLD}) as simulator:
        camera = SerialCamera.open(simulator.port, partition=1)
        camera.write_image(opened(NEW))
        camera.close()
        assert b"model0.bin" in at_the_prompt(simulator, "__import__('os').listdir('/rom')")


def at_the_prompt(simulator: Simulator, expression: str) -> bytes:
    """What a person at the camera's prompt gets for this."""
    port = Port(simulator.port)
    port.drain(0.2, 2.0)
    port.write(expression.encode() + b"\r\n")
    said = port.read_until(b"\r\n>>> ", time.monotonic() + 60)
    port.close()
    return said.removesuffix(b">>> ")


def test_the_camera_is_left_as_it_was_found(simulate: Callable[..., Simulator]) -> None:
    """Friendly REPL, no name of ours, /rom mounted: with reset, and also without."""
    image = make_image(20 * KIB)
    for with_reset in (True, False):
        with simulate("OPENMV_N6", partitions=SMALL, images={0: image}) as simulator:
            camera = SerialCamera.open(simulator.port)
            camera.write_image(opened(edited(image, 9000)))
            if with_reset:
                camera.restart()
            camera.close()
            port = Port(simulator.port)
            port.drain(0.2, 2.0)
            port.write(b"import os;print(os.listdir('/rom'), '_rf' in globals())\r\n")
            line = port.read_until(b"False\r\n", time.monotonic() + 60)
            assert b"model0.bin" in line
            port.close()
