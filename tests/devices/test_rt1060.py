"""The RT1060's boot loader through a fake blhost."""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from typing import Any

import pytest

from romfsfs.boards import get_board
from romfsfs.devices import rt1060
from romfsfs.devices.rt1060 import Rt1060Device
from romfsfs.errors import DeviceAbsent, DeviceError, ImageFormatError, VerifyError
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


def open_it(**arguments: Any) -> Rt1060Device:
    return Rt1060Device.open(get_board("OPENMV_RT1060"), **arguments)


def test_write_read_reset(blhost: Any) -> None:
    device = open_it()
    assert device.read_image(io.BytesIO()) == 0
    for image in (make_image(50_001), make_image(3000, 1)):
        assert device.write_image(io.BytesIO(image)).verified
        assert blhost.flash().startswith(image)
        back = io.BytesIO()
        assert device.read_image(back) == len(image)
        assert back.getvalue() == image
    device.reset()
    assert blhost.was_reset


def test_the_header_goes_in_last(blhost: Any) -> None:
    device = open_it()
    device.write_image(io.BytesIO(make_image(50_000)))
    writes = [call[3] for call in blhost.calls if call[2] == "write-memory"]
    assert writes == ["0x60801000", "0x60800000"]
    blhost.fault(status={"write-memory": 10203})
    with pytest.raises(DeviceError, match="could not write"):
        device.write_image(io.BytesIO(make_image(50_000, 1)))
    blhost.fault()
    assert device.read_image(io.BytesIO()) == 0


def test_the_loader_appears_late_or_never(blhost: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    blhost.fault(absent_for=3)
    entered = []
    open_it(enter=lambda: entered.append(1))
    assert entered == [1]
    monkeypatch.setattr(rt1060, "_ENTER_LIMIT", 0.3)
    blhost.fault(absent_for=1000)
    with pytest.raises(DeviceAbsent, match="no OPENMV_RT1060 answers"):
        open_it(enter=lambda: None)


def test_bad_writes(blhost: Any) -> None:
    device = open_it()
    blhost.fault(spoil_writes=1)
    assert device.write_image(io.BytesIO(make_image(50_000))).verified
    blhost.fault(spoil_writes=9)
    with pytest.raises(VerifyError, match="first at 0x"):
        device.write_image(io.BytesIO(make_image(50_000, 1)))
    (blhost.folder / "flash").write_bytes(b"other" * 100)
    with pytest.raises(ImageFormatError, match="nothing was changed"):
        device.read_image(io.BytesIO())


def test_no_blhost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(DeviceError, match=r"pip install 'romfsfs\[rt1060\]'"):
        open_it()
