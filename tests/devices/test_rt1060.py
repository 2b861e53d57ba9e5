"""The RT1060's boot loader through a fake blhost."""

from __future__ import annotations

import io
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import killed_push
import pytest
from listed import listed

from romfsfs.boards import get_board
from romfsfs.devices import open as opening
from romfsfs.devices.base import Device
from romfsfs.devices.bootloader import blhost as loader
from romfsfs.errors import DeviceAbsent, DeviceError, ImageFormatError, VerifyError
from romfsfs.image.reader import read_image
from romfsfs.image.rules import DEFAULT_RULES
from romfsfs.image.writer import encode

SIZE = 131072


def make_image(size: int, seed: int = 0) -> bytes:
    return encode({"a.bin": random.Random(seed).randbytes(size - 100)}, DEFAULT_RULES)


@pytest.fixture
def blhost(install_fake: Callable[[str, str], Any]) -> Any:
    tool = install_fake("blhost", "FAKE_BLHOST")
    (tool.folder / "flash").write_bytes(b"\xff" * SIZE)
    return tool


def refuse() -> None:
    raise AssertionError("it is in its loader")


def open_it(enter: Callable[[], None] = refuse) -> Device:
    return opening._connect(get_board("OPENMV_RT1060"), 0, enter)


def test_write_read_reset(blhost: Any) -> None:
    device = open_it()
    assert device.read_image(io.BytesIO()) == 0
    for image in (make_image(50_001), make_image(3000, 1)):
        assert device.write_image(io.BytesIO(image)).verified
        assert blhost.flash().startswith(image)
        back = io.BytesIO()
        assert device.read_image(back) == len(image)
        assert back.getvalue() == image
    device.clear()
    assert device.read_image(io.BytesIO()) == 0
    device.restart()
    assert blhost.was_reset


def test_how_far_it_is(blhost: Any) -> None:
    """blhost tells nothing while it works: each step is shown when it begins, and as done."""
    image = make_image(50_001)
    told: list[tuple[str, int, int]] = []
    open_it().write_image(io.BytesIO(image), None, lambda *step: told.append(step))
    open_it().read_image(io.BytesIO(), lambda *step: told.append(step))
    size = len(image)
    assert [step for step in told if step[0] != "writing"] == [
        ("erasing", 0, size), ("verifying", 0, size), ("verifying", size, size),
        ("reading", 0, size), ("reading", size, size),
    ]  # fmt: skip
    writing = [step[1:] for step in told if step[0] == "writing"]
    assert [done for done, _ in writing[::2]] == [0, 0]
    assert all(done == total for done, total in writing[1::2])


def test_the_header_goes_in_last(blhost: Any) -> None:
    device = open_it()
    device.write_image(io.BytesIO(make_image(50_000)))
    writes = [call[5] for call in blhost.calls if call[4] == "write-memory"]
    assert writes == ["0x60800000", "0x60800000"]  # without its header, and its first page
    blhost.fault(status={"write-memory": 10203})
    with pytest.raises(DeviceError, match="could not write"):
        device.write_image(io.BytesIO(make_image(50_000, 1)))
    blhost.fault()
    assert device.read_image(io.BytesIO()) == 0


def test_who_waits_for_the_loader_is_there_before_it(
    blhost: Any, record_property: Callable[[str, object], None]
) -> None:
    """It listens for one second, and blhost alone takes longer to start."""
    blhost.fault(absent=True)
    sent = []

    def enter() -> None:
        assert not (blhost.folder / "held").exists()
        sent.append(1)
        (blhost.folder / "sent").touch()

    device = open_it(enter)
    assert device.read_image(io.BytesIO()) == 0
    assert sent == [1]
    record_property("gap", float((blhost.folder / "held").read_text()))


def test_the_loader_never_appears(blhost: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    blhost.fault(absent=True)
    monkeypatch.setattr(loader, "ENTER_LIMIT", 0.3)
    with pytest.raises(DeviceAbsent, match="no OPENMV_RT1060 answers"):
        open_it(lambda: None)


def test_several_loaders_are_left_alone(
    blhost: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each call of blhost might find another of them."""
    devices = tmp_path / "devices"
    monkeypatch.setattr(loader, "_DEVICES", devices)
    for name, number in (("1-1", "0073"), ("1-2", "0021"), ("1-3", "0073")):
        (devices / name).mkdir(parents=True)
        (devices / name / "idVendor").write_text("15a2\n")
        (devices / name / "idProduct").write_text(number + "\n")
    with pytest.raises(DeviceError, match=r"2 boot loaders .* unplug all but one"):
        open_it()
    assert blhost.calls == []
    (devices / "1-3" / "idProduct").write_text("?")  # it goes away meanwhile
    assert open_it().read_image(io.BytesIO()) == 0


def test_no_spsdk_and_nothing_is_sent_to_the_camera(blhost: Any, tmp_path: Path) -> None:
    blhost.fault(absent=True)
    (tmp_path / "bin" / "python3").write_text("#!/bin/sh\necho no module; exit 1\n")
    with pytest.raises(DeviceError, match=r"could not load spsdk.*pip install") as caught:
        open_it()
    assert "no module" in caught.value.detail


def test_cable_pulled_at_any_moment(blhost: Any, micropython: Path, tmp_path: Path) -> None:
    """MicroPython lists the new files or none; the same again mends it."""
    old, new = make_image(50_000), make_image(45_000, 1)
    device = open_it()
    states = []
    for stop in (0, 1, 300, 4096, 20_000, len(new) - 600, len(new) - len(new) % 256):
        blhost.fault()
        assert device.write_image(io.BytesIO(old)).verified
        blhost.fault(stop_after=stop)
        with pytest.raises(DeviceError, match="could not write"):
            device.write_image(io.BytesIO(new))
        states.append(blhost.flash())
    assert listed(micropython, tmp_path, states) == [None] * len(states)
    blhost.fault()
    assert device.write_image(io.BytesIO(new)).verified
    assert blhost.flash().startswith(new)


@pytest.mark.parametrize(
    ("number", "calls"),
    [(signal.SIGKILL, (2, 5, 6, 7, 8)), (signal.SIGINT, (6,))],  # 5 erases, 6 and 7 write
)
def test_a_push_is_killed(
    blhost: Any, tmp_path: Path, number: signal.Signals, calls: tuple[int, ...]
) -> None:
    """As blhost works: the camera has the old image, the new one, or none that mounts; the same
    again mends it."""
    old, new = make_image(30_000), make_image(25_000, 1)
    (tmp_path / "new.img").write_bytes(new)
    for at in calls:
        (blhost.folder / "flash").write_bytes(old + b"\xff" * (SIZE - len(old)))
        code, said = killed_push.push(blhost, tmp_path, "dfu:OPENMV_RT1060", number, at)
        assert code == (130 if number is signal.SIGINT else -number), said
        there = blhost.flash()
        if not there.startswith((old, new)):
            with pytest.raises(ImageFormatError):
                read_image(there)
        code, said = killed_push.push(blhost, tmp_path, "dfu:OPENMV_RT1060", number, 0)
        assert code == 0, said
        assert blhost.flash().startswith(new)


def test_erasing_takes_longer_than_blhost_waits(blhost: Any) -> None:
    """More than 300 KiB: the loader answers after minutes, and blhost by itself gives up after
    5 s."""
    (blhost.folder / "flash").write_bytes(b"\xff" * 0x400000)
    image = make_image(0x400000)
    assert open_it().write_image(io.BytesIO(image)).verified
    assert blhost.flash().startswith(image)


@pytest.mark.parametrize("command", ["read-memory", "flash-erase-region", "write-memory"])
def test_a_refusal(blhost: Any, command: str) -> None:
    """blhost may end with 0 all the same."""
    image = make_image(9000)
    device = open_it()
    blhost.fault(status={command: 10200})
    with pytest.raises(DeviceError, match=r"could not .* the ROMFS.*replug") as caught:
        device.write_image(io.BytesIO(image))
    assert "Response status = 10200" in caught.value.detail


@pytest.mark.parametrize("length", [-1, 0, 5])
def test_a_read_that_is_cut(blhost: Any, length: int) -> None:
    """blhost says that it succeeded; what the camera holds is not called damaged for that."""
    device = open_it()
    device.write_image(io.BytesIO(make_image(9000)))
    device = open_it()
    blhost.fault(short=length)
    with pytest.raises(DeviceError, match=r"ended \d+ bytes early"):
        device.read_image(io.BytesIO())


def test_bad_writes(blhost: Any) -> None:
    device = open_it()
    blhost.fault(spoil_writes=1)
    assert device.write_image(io.BytesIO(make_image(50_000))).verified
    blhost.fault(spoil_writes=9)
    with pytest.raises(VerifyError, match="first at 0x"):
        device.write_image(io.BytesIO(make_image(50_000, 1)))
    (blhost.folder / "flash").write_bytes(b"other" * 100)
    device = open_it()
    with pytest.raises(ImageFormatError, match="nothing was changed"):
        device.read_image(io.BytesIO())


def test_a_camera_that_does_not_start_its_firmware(blhost: Any) -> None:
    device = open_it()
    blhost.fault(status={"reset": 10200})
    with pytest.raises(DeviceError) as caught:
        device.restart()
    assert caught.value.line == (
        "blhost could not reset the camera (status 0: Response status = 10200 (0x27d8) Fail.); "
        "what was written is verified; replug it"
    )


def test_no_blhost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(DeviceError, match=r"pip install 'romfsfs\[rt1060\]'"):
        open_it()
