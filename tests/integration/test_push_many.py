"""One image to several cameras at once: a line for each, and a second run that resumes."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import romfsfs
from romfsfs.boards import get_board
from romfsfs.cli import main
from romfsfs.errors import EXIT_DEVICE, EXIT_INTERRUPTED, EXIT_OK, EXIT_USAGE, DeviceError
from romfsfs.image.rules import DEFAULT_RULES
from romfsfs.image.writer import encode
from romfsfs.simulator import Simulator

Camera = Callable[..., Simulator]


@pytest.fixture
def image(product: Path, tmp_path: Path) -> Path:
    path = tmp_path / "product.img"
    romfsfs.build(product, path, board="OPENMV4P")
    return path


def held(camera: Simulator, tmp_path: Path) -> bytes:
    """What `pull` finds on a camera."""
    out = tmp_path / "held.img"
    assert main(["pull", camera.port, str(out), "--force"]) == EXIT_OK
    return out.read_bytes()


def test_one_camera_fails_the_other_is_written_and_a_second_run_resumes(
    camera: Camera, image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    well, ill = camera(), camera()
    ill.faults.fail_ioctl(command=4, count=100)
    monkeypatch.setenv("ROMFSFS_PORTS", f"{well.port}:{ill.port}")

    assert main(["push", str(image), "--all"]) == EXIT_DEVICE
    said = capsys.readouterr()
    assert f"{well.port}: wrote" in said.out
    assert "verified" in said.out
    assert ill.port in said.err
    assert "repeat the command: it goes on" in said.err
    assert held(well, tmp_path) == image.read_bytes()

    ill.faults.clear()
    capsys.readouterr()
    assert main(["push", str(image), "--all", "--json"]) == EXIT_OK
    records = {each["camera"]: each for each in json.loads(capsys.readouterr().out)}
    assert records[well.port] == {"camera": well.port, "ok": True, "write": None}
    assert records[ill.port]["write"]["verified"] is True
    assert held(ill, tmp_path) == image.read_bytes()


def test_ctrl_c_ends_every_push(
    camera: Camera, image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a moment, however often it comes; nothing half written mounts; a second run resumes."""
    large = tmp_path / "large.img"
    large.write_bytes(encode({"a.bin": bytes(range(255)) * 4000}, DEFAULT_RULES))
    cameras = [camera(rate=50_000.0) for _ in range(2)]  # 20 s for all of it
    main_thread = threading.main_thread().ident
    assert main_thread is not None

    def interrupt() -> None:
        for each in cameras:
            each.wait_until(lambda c: c.statistics.programmed > 0, 30)
        for _ in range(3):
            signal.pthread_kill(main_thread, signal.SIGINT)
            time.sleep(0.05)

    waiting = threading.Thread(target=interrupt)
    waiting.start()
    ports = [each.port for each in cameras]
    assert main(["push", str(large), *ports]) == EXIT_INTERRUPTED
    waiting.join()
    assert capsys.readouterr().err.count("error: ") == 2
    for each in cameras:
        assert each.statistics.programmed < 500_000
        assert bytes(each.flash[0].content[:16]) == b"\xff" * 16
    assert main(["push", str(image), *ports]) == EXIT_OK


def test_what_cannot_be_meant_is_said_before_anything_is_written(
    image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["push", str(image)]) == EXIT_USAGE
    assert (
        main(["push", str(tmp_path / "missing.img"), "/dev/ttyACM77", "/dev/ttyACM78"])
        == EXIT_USAGE
    )
    assert "missing.img" in capsys.readouterr().err


def test_the_worst_exit_code_counts(
    camera: Camera, image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An image aligned for another board (4) and a camera that is not there (5)."""
    other = camera("OPENMV_N6")
    image.write_bytes(
        encode({"abc.tflite": bytes(100)}, get_board("OPENMV4P").partition().alignment)
    )
    assert main(["push", str(image), "/dev/ttyACM77", other.port]) == EXIT_DEVICE
    said = capsys.readouterr().err
    assert "/dev/ttyACM77" in said
    assert said.count("romfsfs: error:") == 2
    assert said.count("to build it for that board: romfsfs extract ") == 1
    assert "commit --compact" not in said  # one advice, for all of it


def test_a_production_line(camera: Camera, product: Path, tmp_path: Path) -> None:
    """From Python: an image built in CI, three cameras, the digests compared."""
    image = tmp_path / "product.img"
    digest = romfsfs.build(product, image, board="OPENMV4P")
    cameras = {each.port: each for each in (camera(), camera(), camera())}
    outcomes = romfsfs.push(image, list(cameras))
    assert set(outcomes) == set(cameras)
    for port, simulator in cameras.items():
        outcome = outcomes[port]
        assert not isinstance(outcome, (DeviceError, type(None)))
        assert outcome.verified
        out = tmp_path / "back.img"
        out.write_bytes(held(simulator, tmp_path))
        assert romfsfs.build(product, tmp_path / "again.img", board="OPENMV4P") == digest
        assert out.read_bytes() == image.read_bytes()
    assert set(romfsfs.push(image, list(cameras)).values()) == {None}
