"""DFU through a fake dfu-util: the right setting or nothing, read back, and cables pulled."""

from __future__ import annotations

import io
import json
import random
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import killed_push
import pytest

from romfsfs.boards import get_board
from romfsfs.devices import dfu
from romfsfs.devices.dfu import DfuDevice
from romfsfs.devices.dfu_util import (
    DfuSetting,
    choose_setting,
    parse_list,
    percentage,
    read_argv,
    reset_argvs,
    write_argv,
)
from romfsfs.devices.open import open_device
from romfsfs.errors import (
    CapacityError,
    DeviceAbsent,
    DeviceError,
    DeviceLost,
    ImageFormatError,
    UsageError,
    VerifyError,
)
from romfsfs.image.reader import read_image
from romfsfs.image.rules import DEFAULT_RULES
from romfsfs.image.writer import encode

BOARDS: dict[str, tuple[str, int, list[str]]] = {
    # vid:pid, sector, settings in their order (docs/cameras.md, "DFU")
    "OPENMV4": ("37c5:9204", 131072, ["BOOTLOADER", "FILESYSTEM", "FIRMWARE", "ROMFS0"]),
    "OPENMV4P": (
        "37c5:924a",
        4096,
        ["BOOTLOADER", "FILESYSTEM", "FIRMWARE", "SPI_FLASH", "ROMFS0"],
    ),
    "OPENMV_N6": ("37c5:9206", 4096, ["BOOTLOADER", "FIRMWARE", "FILESYSTEM", "ROMFS0"]),
    "OPENMV_AE3": (
        "37c5:96e3",
        16,
        ["BOOT", "HP", "HE", "ROMFS1", "TOC", "RWFS", "ROMFS0", "RECOVERY"],
    ),
    "ARDUINO_GIGA": (
        "2341:0366",
        4096,
        ["@Internal Flash   2MB/0x08000000/16*128Kg", "@Ext RAW  Flash 16MB/0x90B00000/1024*04Kg"],
    ),
}
SIZE = 131072
CALLS = 7  # of dfu-util in a push: list, read what is there, write and read twice, reset


def file_of(setting: str) -> str:
    """The fake's file for a setting."""
    return setting.split("/")[0].strip("@ ").replace(" ", "")


def files_of(board: str) -> list[str]:
    return [file_of(name) for name in BOARDS[board][2]]


def romfs_file(board: str) -> str:
    return next(name for name in files_of(board) if name.startswith(("ROMFS0", "ExtRAW")))


def make_image(size: int, seed: int = 0) -> bytes:
    return encode({"a.bin": random.Random(seed).randbytes(size - 100)}, DEFAULT_RULES)


@pytest.fixture
def attach(install_fake: Callable[[str, str], Any]) -> Callable[..., Any]:
    """A board in DFU mode; its flash files are called after the settings."""

    def make(board: str, image: bytes = b"", **changes: Any) -> Any:
        tool = install_fake("dfu-util", "FAKE_DFU")
        add(tool, board, image, **changes)
        return tool

    return make


def add(tool: Any, board: str, image: bytes = b"", **changes: Any) -> None:
    usb_id, sector, names = BOARDS[board]
    settings = []
    for name in changes.pop("names", names):
        file = file_of(name)
        settings.append({"name": name, "file": file, "size": SIZE, "address": 0x90B00000})
        content = image if name.startswith(("ROMFS0", "@Ext")) else b""
        (tool.folder / file).write_bytes(content + b"\xff" * (SIZE - len(content)))
    vid, pid = usb_id.split(":")
    device = {"vid": vid, "pid": pid, "serial": "33004B", "path": "1-2", "sector": sector}
    path = tool.folder / "devices.json"
    devices = json.loads(path.read_text()) if path.exists() else []
    path.write_text(json.dumps([*devices, {**device, "settings": settings, **changes}]))


@pytest.mark.parametrize("board", BOARDS)
def test_write_read_back_reset(attach: Callable[..., Any], board: str) -> None:
    old, new = make_image(50_000), make_image(40_001, 1)
    tool = attach(board, old)
    file = romfs_file(board)
    device = open_device(f"dfu:{board.lower()}")
    back = io.BytesIO()
    assert device.read_image(back) == len(old)
    assert back.getvalue() == old
    others = {name: tool.flash(name) for name in set(files_of(board)) - {file}}
    report = device.write_image(io.BytesIO(new))
    assert report.verified
    assert tool.flash(file).startswith(new)
    assert all(tool.flash(name) == content for name, content in others.items())
    assert not tool.was_reset
    device.reset()
    assert tool.was_reset
    device.close()


def test_the_second_core_of_the_ae3(attach: Callable[..., Any]) -> None:
    image = make_image(9000)
    tool = attach("OPENMV_AE3")
    device = open_device("dfu:OPENMV_AE3", partition=1)
    assert device.info().key == "OPENMV_AE3/33004b/1"
    assert device.read_image(io.BytesIO()) == 0
    device.write_image(io.BytesIO(image))
    assert tool.flash("ROMFS1").startswith(image)
    assert tool.flash("ROMFS0") == b"\xff" * SIZE


def test_the_setting_is_found_by_name(attach: Callable[..., Any]) -> None:
    """Another loader has it under another number; where it is missing nothing is written."""
    attach("OPENMV_N6", names=["ROMFS0", "BOOTLOADER", "FIRMWARE", "FILESYSTEM"])
    image = make_image(9000)
    device = open_device("dfu:OPENMV_N6")
    device.write_image(io.BytesIO(image))


def test_a_missing_setting_is_an_error(attach: Callable[..., Any]) -> None:
    tool = attach("OPENMV_N6", names=["BOOTLOADER", "FIRMWARE", "FILESYSTEM", "USER"])
    with pytest.raises(DeviceError, match=r"offers no ROMFS0.*3 USER.*nothing was written"):
        open_device("dfu:OPENMV_N6")
    assert [call for call in tool.calls if "-D" in call] == []


def test_arduino_settings_are_checked_by_their_address() -> None:
    board = get_board("ARDUINO_GIGA")
    assert board.dfu_id is not None
    settings = [
        DfuSetting(*board.dfu_id, "1-1", 1, "@Internal Flash   2MB/0x08000000/16*128Kg", "x")
    ]
    with pytest.raises(DeviceError, match="external flash"):
        choose_setting(settings, board, board.partition(0))


def test_two_of_a_kind_and_none(attach: Callable[..., Any]) -> None:
    tool = attach("OPENMV_N6")
    with pytest.raises(DeviceAbsent, match="no camera is connected"):
        open_device("dfu:OPENMV4P")
    with pytest.raises(UsageError, match="unknown board"):
        open_device("dfu:nothing")
    with pytest.raises(UsageError, match="no DFU boot loader"):
        open_device("dfu:MPS2_AN500")
    add(tool, "OPENMV_N6", serial="other", path="1-3")
    with pytest.raises(DeviceError, match=r"2 boards.*unplug all but one"):
        open_device("dfu:OPENMV_N6")


def test_waiting_for_the_boot_loader(
    attach: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = attach("OPENMV_N6")
    tool.fault(appear_after=3)
    entered = []
    DfuDevice.open(get_board("OPENMV_N6"), enter=lambda: entered.append(1))
    assert entered == [1]
    tool.fault(appear_after=100)
    monkeypatch.setattr(dfu, "APPEAR_LIMIT", 1.0)
    with pytest.raises(DeviceAbsent, match="did not appear in DFU mode within 1 s"):
        DfuDevice.open(get_board("OPENMV_N6"), enter=lambda: None)


def test_no_dfu_util(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(DeviceError, match="dfu-util is not installed; "):
        DfuDevice.open(get_board("OPENMV_N6"))


@pytest.mark.parametrize("board", ["OPENMV_N6", "OPENMV_AE3", "ARDUINO_GIGA"])
def test_cable_pulled_at_any_moment(attach: Callable[..., Any], board: str) -> None:
    """No image that mounts but the old or the new, where the loader allows it."""
    old, new = make_image(50_000), make_image(45_000, 1)
    tool = attach(board, old)
    name = romfs_file(board)
    device = open_device(f"dfu:{board}")
    for stop in (1, 17, 4096, 20_000, 44_999, len(new) + 5, len(new) + 4095):
        tool.fault(stop_after=stop)
        with pytest.raises(DeviceError, match="could not write"):
            device.write_image(io.BytesIO(new))
        there = tool.flash(name)
        if not there.startswith((old, new)) and stop < len(new):
            with pytest.raises(ImageFormatError):
                read_image(there)
        tool.fault()
        assert device.write_image(io.BytesIO(old)).verified


@pytest.mark.parametrize(
    ("number", "calls"),
    [(signal.SIGKILL, (3, 4, 5, 6)), (signal.SIGINT, (4,))],  # 4 and 6 write
)
def test_a_push_is_killed(
    attach: Callable[..., Any], tmp_path: Path, number: signal.Signals, calls: Iterable[int]
) -> None:
    """As dfu-util reads and writes: the camera has the old image, the new one, or none that
    mounts; the same again mends it."""
    old, new = make_image(30_000), make_image(25_000, 1)
    tool = attach("OPENMV4P", old)
    devices = (tool.folder / "devices.json").read_text()
    (tmp_path / "new.img").write_bytes(new)

    def push(pause_at: int) -> tuple[int, str]:
        (tool.folder / "devices.json").write_text(devices)  # plugged in
        return killed_push.push(tool, tmp_path, "dfu:OPENMV4P", number, pause_at)

    for at in calls:
        (tool.folder / "ROMFS0").write_bytes(old + b"\xff" * (SIZE - len(old)))
        code, said = push(at)
        assert code == (130 if number is signal.SIGINT else -number), said
        there = tool.flash("ROMFS0")
        if not there.startswith((old, new)):
            with pytest.raises(ImageFormatError):
                read_image(there)
        code, said = push(0)
        assert code == 0, said
        assert tool.flash("ROMFS0").startswith(new)
        assert len(tool.calls) == CALLS


def test_unplugged_between_two_calls(
    attach: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """dfu-util waits for the board; that ends long before a transfer would have to."""
    tool = attach("OPENMV_N6", make_image(9000))
    device = open_device("dfu:OPENMV_N6")
    (tool.folder / "devices.json").write_text("[]")
    monkeypatch.setattr(dfu, "APPEAR_LIMIT", 1.0)
    started = time.monotonic()
    for work in (device.read_image, device.write_image, lambda image: device.reset()):
        with pytest.raises(DeviceLost, match=r"dfu-util did not finish within .* s; unplug"):
            work(io.BytesIO(make_image(9000)))
    assert time.monotonic() - started < 30


def test_a_bad_write_is_repeated_once(attach: Callable[..., Any]) -> None:
    image = make_image(50_000)
    tool = attach("OPENMV_N6")
    device = open_device("dfu:OPENMV_N6")
    tool.fault(spoil_writes=1)
    report = device.write_image(io.BytesIO(image))
    assert report.verified
    assert report.notes
    tool.fault(spoil_writes=9)
    with pytest.raises(VerifyError, match="0x"):
        device.write_image(io.BytesIO(make_image(50_000, 1)))


@pytest.mark.parametrize(("mode", "what"), [("U", "read"), ("D", "write")])
def test_a_failing_tool(attach: Callable[..., Any], mode: str, what: str) -> None:
    tool = attach("OPENMV_N6", make_image(9000))
    device = open_device("dfu:OPENMV_N6")
    tool.fault(fail=mode)
    work = device.read_image if mode == "U" else device.write_image
    with pytest.raises(DeviceError, match=f"could not {what}") as caught:
        work(io.BytesIO(make_image(9000)))
    assert "LIBUSB" in caught.value.detail or "dfu abort" in caught.value.detail


@pytest.mark.parametrize("length", [-1, 0, 5])
@pytest.mark.parametrize("board", ["OPENMV_N6", "ARDUINO_GIGA"])
def test_a_read_that_is_cut(attach: Callable[..., Any], board: str, length: int) -> None:
    """The tool says that it succeeded; what the camera holds is not called damaged for that."""
    tool = attach(board, make_image(9000))
    device = open_device(f"dfu:{board}")
    tool.fault(short=length)
    with pytest.raises(DeviceLost, match=r"ended \d+ bytes early"):
        device.read_image(io.BytesIO())


def test_refused_before_anything_is_written(attach: Callable[..., Any]) -> None:
    tool = attach("OPENMV4", b"no image at all")
    device = open_device("dfu:OPENMV4")
    with pytest.raises(ImageFormatError, match="nothing was changed"):
        device.read_image(io.BytesIO())
    with pytest.raises(ImageFormatError):
        device.write_image(io.BytesIO(b"no image at all"))
    with pytest.raises(CapacityError):
        device.write_image(io.BytesIO(make_image(140_000)))
    assert [call for call in tool.calls if "-D" in call] == []


def test_leaving_with_an_old_dfu_util(attach: Callable[..., Any]) -> None:
    tool = attach("OPENMV_N6")
    device = open_device("dfu:OPENMV_N6")
    tool.fault(no_detach=True)
    device.reset()
    assert tool.was_reset


def test_command_lines() -> None:
    setting = DfuSetting(0x37C5, 0x9206, "1-2", 3, "ROMFS0", "X")
    base = ["dfu-util", "-w", "-d", ",37c5:9206", "-a", "3"]
    assert read_argv("dfu-util", setting, "f") == [*base, "-U", "f"]
    assert write_argv("dfu-util", setting, "f") == [*base, "-D", "f"]
    assert reset_argvs("dfu-util", setting, "f") == [
        [*base, "--reset", "-e"],
        [*base, "--reset", "-U", "f"],
    ]
    place = {"address": 0x90B00000}
    assert read_argv("dfu-util", setting, "f", length=16, **place)[6:8] == ["-s", "0x90B00000:16"]
    assert write_argv("dfu-util", setting, "f", **place)[6:8] == ["-s", "0x90B00000"]
    assert reset_argvs("dfu-util", setting, "f", **place)[0][7] == "0x90B00000:16:leave"


def test_listing() -> None:
    text = (
        'Found DFU: [37c5:9206] ver=0200, devnum=12, cfg=1, intf=0, path="1-2", alt=3, '
        'name="ROMFS0", serial="3300"\n'
        'Found Runtime: [37c5:1206] ver=0200, devnum=2, cfg=1, intf=0, path="1-3", alt=0, '
        'name="x", serial="y"\n'
    )
    assert parse_list(text) == (DfuSetting(0x37C5, 0x9206, "1-2", 3, "ROMFS0", "3300"),)
    assert parse_list("dfu-util: Cannot open DFU device\n") == ()
    assert percentage("Download [==   ]  12%   100 bytes\r [=== ]  40%") == 40
    assert percentage("nothing") is None
