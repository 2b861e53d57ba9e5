"""DFU through a fake dfu-util: the right setting or nothing, read back, and cables pulled."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import signal
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import killed_push
import pytest
from listed import listed
from ota_slots import one_slot, two_slots

import romfsfs
from romfsfs.boards import get_board
from romfsfs.cli import doctor, main, production
from romfsfs.devices import discovery
from romfsfs.devices import open as opening
from romfsfs.devices.base import Device
from romfsfs.devices.bootloader import dfu
from romfsfs.devices.bootloader.dfu_util import (
    DfuListing,
    DfuSetting,
    choose_setting,
    parse_list,
    percentage,
    read_argv,
    reset_argvs,
    write_argv,
)
from romfsfs.devices.discovery import CameraPort
from romfsfs.devices.open import open_device
from romfsfs.devices.serial_camera.camera import SerialCamera
from romfsfs.devices.serial_camera.identity import NoRomfsAccess
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
from romfsfs.simulator import Simulator, preset

KIB = 1024
#: board -> USB id of its loader, and its settings in their order with what is erased together
#: (docs/cameras.md, "DFU"; erase sizes: the loaders' source)
BOARDS: dict[str, tuple[str, dict[str, int]]] = {
    "OPENMV4": (
        "37c5:9204",
        dict.fromkeys(["BOOTLOADER", "FILESYSTEM", "FIRMWARE", "ROMFS0"], 128 * KIB),
    ),
    "OPENMV4P": (
        "37c5:924a",
        {
            **dict.fromkeys(["BOOTLOADER", "FILESYSTEM", "FIRMWARE"], 128 * KIB),
            **dict.fromkeys(["SPI_FLASH", "ROMFS0"], 64 * KIB),
        },
    ),
    "OPENMV_N6": (
        "37c5:9206",
        dict.fromkeys(["BOOTLOADER", "FIRMWARE", "FILESYSTEM", "ROMFS0"], 64 * KIB),
    ),
    "OPENMV_AE3": (
        "37c5:96e3",
        {
            **dict.fromkeys(["BOOT", "HP", "HE", "ROMFS1", "TOC"], 16),
            **dict.fromkeys(["RWFS", "ROMFS0", "RECOVERY"], 4 * KIB),
        },
    ),
    "ARDUINO_GIGA": (
        "2341:0366",
        dict.fromkeys(
            [
                "@Internal Flash   2MB/0x08000000/16*128Kg",
                "@Ext RAW  Flash 16MB/0x90B00000/1024*04Kg",
            ],
            4 * KIB,
        ),
    ),
}
SIZE = 128 * KIB
PAGE = 256
CALLS = 9  # of dfu-util in a push: list, header, image, slots, write and write, read, leave, list


def file_of(setting: str) -> str:
    """The fake's file for a setting."""
    return setting.split("/")[0].strip("@ ").replace(" ", "")


def files_of(board: str) -> list[str]:
    return [file_of(name) for name in BOARDS[board][1]]


def romfs_file(board: str) -> str:
    return next(name for name in files_of(board) if name.startswith(("ROMFS0", "ExtRAW")))


def make_image(size: int, seed: int = 0) -> bytes:
    return encode({"a.bin": random.Random(seed).randbytes(size - 100)}, DEFAULT_RULES)


def make_files(size: int, seed: int) -> dict[str, bytes]:
    """Files that fill an image of about this size, the largest last."""
    data = random.Random(seed)
    files = {f"{seed}{index}.bin": data.randbytes(size // 8) for index in range(4)}
    return {**files, f"{seed}z.bin": data.randbytes(size // 2 - 500)}


def open_board(board: str, partition: int = 0, **arguments: Any) -> Device:
    """As `dfu:BOARD`; enter: what sends it to its loader."""
    enter = arguments.pop("enter")
    return opening._connect(get_board(board), partition, enter, **arguments)


@pytest.fixture
def attach(install_fake: Callable[[str, str], Any]) -> Callable[..., Any]:
    """A board in DFU mode; its flash files are called after the settings."""

    def make(board: str, image: bytes = b"", **changes: Any) -> Any:
        tool = install_fake("dfu-util", "FAKE_DFU")
        add(tool, board, image, **changes)
        return tool

    return make


def add(tool: Any, board: str, image: bytes = b"", **changes: Any) -> None:
    usb_id, erased = BOARDS[board]
    settings = []
    mark = changes.pop("mark", "")
    for name in changes.pop("names", erased):
        file = mark + file_of(name)
        settings.append(
            {"name": name, "file": file, "size": SIZE, "erase": erased.get(name, 4096),
             "address": 0x90B00000}
        )  # fmt: skip
        content = image if name.startswith(("ROMFS", "@Ext")) else b""
        if content or name.startswith("ROMFS"):
            number = int(name == "ROMFS1")
            settings[-1]["real"] = get_board(board).partition(number).size
        (tool.folder / file).write_bytes(content + b"\xff" * (SIZE - len(content)))
    vid, pid = usb_id.split(":")
    device = {"vid": vid, "pid": pid, "serial": "33004B", "path": "1-2"}
    path = tool.folder / "devices.json"
    devices = json.loads(path.read_text()) if path.exists() else []
    made = path.with_suffix(".made")
    made.write_text(json.dumps([*devices, {**device, "settings": settings, **changes}]))
    made.replace(path)  # a tool may just read it


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
    for _ in range(2):
        device.clear()
        assert device.read_image(io.BytesIO()) == 0
    assert all(tool.flash(name) == content for name, content in others.items())
    assert not tool.was_reset
    device.restart()
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


@pytest.mark.parametrize("number", [0, 1])
def test_the_partition_that_a_source_names_is_reset_alone(
    attach: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, number: int
) -> None:
    monkeypatch.setenv("ROMFSFS_STATE_DIR", str(tmp_path / "state"))
    tool = attach("OPENMV_AE3")
    images = [make_image(9000, seed) for seed in (0, 1)]
    folder = tmp_path / "defaults" / "OPENMV_AE3"
    folder.mkdir(parents=True)
    for index, image in enumerate(images):
        (folder / f"romfs{index}.img").write_bytes(image)
    source = f"dfu:ae3:{number}@1-2"
    assert main(["reset", source, "--from", str(folder.parent), "--yes"]) == 0
    assert tool.flash(f"ROMFS{number}").startswith(images[number])
    assert tool.flash(f"ROMFS{1 - number}") == b"\xff" * SIZE


def test_the_partition_that_a_source_names_is_looked_at(
    attach: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """And its session is found by that name when it is unplugged."""
    monkeypatch.setenv("ROMFSFS_STATE_DIR", str(tmp_path / "state"))
    tool = attach("OPENMV_AE3")
    open_device("dfu:ae3:1").write_image(io.BytesIO(encode({"a.txt": b"a"}, DEFAULT_RULES)))
    for command in ("info", "verify"):
        assert main([command, "dfu:ae3:1"]) == 0
        assert "1 file" in capsys.readouterr().out
    assert main(["verify", "dfu:ae3"]) == 4, "the first one is blank"
    romfsfs.open("dfu:ae3:1").close()
    (tool.folder / "devices.json").write_text("[]")
    assert main(["status", "dfu:ae3:1"]) == 0
    assert "partition 1: not mounted, no edits" in capsys.readouterr().out


def test_the_setting_is_found_by_name(attach: Callable[..., Any]) -> None:
    """Another loader has it under another number; where it is missing nothing is written."""
    attach("OPENMV_N6", names=["ROMFS0", "BOOTLOADER", "FIRMWARE", "FILESYSTEM"])
    image = make_image(9000)
    device = open_device("dfu:OPENMV_N6")
    device.write_image(io.BytesIO(image))


def test_a_missing_setting_is_an_error(attach: Callable[..., Any]) -> None:
    tool = attach("OPENMV_N6", names=["BOOTLOADER", "FIRMWARE", "FILESYSTEM", "USER"])
    with pytest.raises(DeviceError, match=r"offers no ROMFS0.*3 USER.*nothing was written there"):
        open_device("dfu:OPENMV_N6")
    assert [call for call in tool.calls if "-D" in call] == []


def test_arduino_settings_are_checked_by_their_address() -> None:
    board = get_board("ARDUINO_GIGA")
    assert board.dfu_id is not None
    internal = DfuSetting(*board.dfu_id, "1-1", 1, "@Internal Flash   2MB/0x08000000/16*128Kg", "x")
    with pytest.raises(DeviceError, match="external flash"):
        choose_setting(DfuListing((internal,)), board, board.partition(0))


def test_two_of_a_kind_are_told_apart_by_their_ports(attach: Callable[..., Any]) -> None:
    tool = attach("OPENMV_N6")
    with pytest.raises(DeviceAbsent, match="no camera is connected"):
        open_device("dfu:OPENMV4P")
    with pytest.raises(UsageError, match="unknown board"):
        open_device("dfu:nothing")
    with pytest.raises(UsageError, match="no DFU boot loader"):
        open_device("dfu:MPS2_AN500")
    add(tool, "OPENMV_N6", serial="other", path="1-3.1")
    named = r"2 boards.*name one: dfu:OPENMV_N6@1-2 or dfu:OPENMV_N6@1-3.1"
    with pytest.raises(DeviceError, match=named):
        open_device("dfu:OPENMV_N6")
    assert {camera.path for camera in discovery.dfu_cameras()} == {"1-2", "1-3.1"}
    with pytest.raises(DeviceAbsent, match=r"at 1-4 \(in DFU mode at: 1-2, 1-3.1\)"):
        open_device("dfu:OPENMV_N6@1-4")
    device = open_device("dfu:OPENMV_N6@1-3.1")
    assert device.info().key == "OPENMV_N6/other/0"
    device.write_image(io.BytesIO(make_image(9000)))
    device.restart()
    device.close()
    assert [each["path"] for each in json.loads((tool.folder / "devices.json").read_text())] == [
        "1-2"
    ]


def test_another_camera_that_waits_in_dfu_mode_is_not_written(
    attach: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """The one that is named runs firmware without access to its ROMFS, and goes to its loader."""
    monkeypatch.setenv("ROMFSFS_STATE_DIR", str(tmp_path / "state"))
    tool = attach("OPENMV4", serial="other", path="1-3")
    sent: list[str] = []

    def send(port: str, board: Any) -> None:
        sent.append(port)
        add(tool, "OPENMV4", path="1-2", mark="its")

    def old_firmware(port: str, **words: Any) -> Any:
        raise NoRomfsAccess(port, get_board("OPENMV4"))

    monkeypatch.setattr(SerialCamera, "open", old_firmware)
    monkeypatch.setattr(opening, "send_to_loader", send)
    path = {"/dev/ttyACM0": "1-2"}
    monkeypatch.setattr(discovery, "usb_path", lambda port: path.get(port, ""))
    image = tmp_path / "new.img"
    image.write_bytes(make_image(9000))
    assert main(["push", str(image), "/dev/ttyACM9"]) == 5, "its USB port is not known"
    assert "another OPENMV4 is in DFU mode" in capsys.readouterr().err
    assert sent == []
    assert main(["push", str(image), "/dev/ttyACM0"]) == 0
    assert sent == ["/dev/ttyACM0"]
    assert tool.flash("itsROMFS0").startswith(image.read_bytes())
    assert tool.flash("ROMFS0") == b"\xff" * SIZE
    left = json.loads((tool.folder / "devices.json").read_text())
    assert [each["path"] for each in left] == ["1-3"], "the other still waits"


def test_a_camera_on_another_port_is_not_sent_to_its_loader(
    attach: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that is named has left its loader, or the path of its USB port is mistyped."""
    tool = attach("OPENMV4", path="1-3")
    cameras = tuple(
        CameraPort(f"/dev/ttyACM{number}", 0x37C5, 0x1204, boards=("OPENMV4",)) for number in (7, 8)
    )
    path = {"/dev/ttyACM7": "1-9", "/dev/ttyACM8": "1-8"}
    monkeypatch.setattr(discovery, "serial_cameras", lambda: cameras)
    monkeypatch.setattr(discovery, "usb_path", lambda port: path[port])
    sent: list[str] = []

    def send(port: str, board: Any) -> None:
        sent.append(port)
        add(tool, "OPENMV4", path=path[port], mark="its")

    monkeypatch.setattr(opening, "send_to_loader", send)
    with pytest.raises(DeviceAbsent) as caught:
        open_device("dfu:OPENMV4@1-2")
    assert caught.value.line == (
        "no OPENMV4 in DFU mode at 1-2 (in DFU mode at: 1-3); unplug it and plug it in again: its "
        "boot loader answers for 1.5 s; repeat the command with --wait first"
    )
    assert sent == []
    image = make_image(9000)
    open_device("dfu:OPENMV4@1-8").write_image(io.BytesIO(image))
    assert sent == ["/dev/ttyACM8"]
    assert tool.flash("itsROMFS0").startswith(image)
    assert tool.flash("ROMFS0") == b"\xff" * SIZE


def test_one_is_waited_for_where_it_will_be_plugged_in(attach: Callable[..., Any]) -> None:
    """Another waits in its loader meanwhile; it is not the one."""
    tool = attach("OPENMV4", path="1-3")
    said: list[str] = []

    def plug(line: str) -> None:
        said.append(line)
        add(tool, "OPENMV4", path="1-2", mark="its")

    device = open_device("dfu:OPENMV4@1-2", wait=plug)
    device.write_image(io.BytesIO(make_image(9000)))
    assert len(said) == 1
    assert tool.flash("ROMFS0") == b"\xff" * SIZE


def test_a_production_line_of_loaders(
    attach: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Two at once, another board beside them; one comes back and is known by its number."""
    monkeypatch.setenv("ROMFSFS_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setattr(production, "LOOK_SECONDS", 0.05)
    tool = attach("OPENMV4")
    add(tool, "OPENMV4", serial="second", path="1-3", mark="2")
    add(tool, "OPENMV_N6", serial="third", path="1-4", mark="3")
    image, log = tmp_path / "product.img", tmp_path / "made.csv"
    image.write_bytes(make_image(9000))
    noted: list[str] = []
    note = production.Line._note

    def listen(self: production.Line, name: str, outcome: Any) -> None:
        note(self, name, outcome)
        noted.append(name)
        if len(noted) == 2:  # both are gone from the bus
            add(tool, "OPENMV4", path="1-7", mark="4")
        elif len(noted) == 3:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(production.Line, "_note", listen)
    words = ["push", str(image), "dfu:OPENMV4", "--all", "--watch", "--no-backup"]
    assert main([*words, "--log", str(log)]) == 0
    said = capsys.readouterr()
    assert said.out.endswith("2 written, 0 had it already, 0 failed\n")
    assert "dfu:OPENMV4@1-7: OPENMV4 in DFU mode was written before: left alone" in said.err
    assert all(tool.flash(f"{mark}ROMFS0").startswith(image.read_bytes()) for mark in ("", "2"))
    assert all(tool.flash(f"{mark}ROMFS0") == b"\xff" * SIZE for mark in ("3", "4"))
    rows = [line.split(",") for line in log.read_text().splitlines()[1:]]
    assert {(row[1], row[2], row[-1]) for row in rows} == {
        ("dfu:OPENMV4@1-2", "33004b", "written"), ("dfu:OPENMV4@1-3", "second", "written"),
    }  # fmt: skip


@pytest.mark.parametrize("serial", ["", "0123456789ABCDEF"])
def test_loaders_that_have_no_number_of_their_own_are_all_written(
    attach: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    capsys: pytest.CaptureFixture[str], serial: str,
) -> None:  # fmt: skip
    """No serial number, or what the loader says where it knows none, is nobody's."""
    monkeypatch.setenv("ROMFSFS_STATE_DIR", str(tmp_path / "state"))
    tool = attach("OPENMV4", serial=serial)
    add(tool, "OPENMV4", make_image(8000, 1), serial=serial, path="1-3", mark="2")
    plugged = json.loads((tool.folder / "devices.json").read_text())
    image, log = tmp_path / "product.img", tmp_path / "made.csv"
    image.write_bytes(make_image(9000))
    assert main(["push", str(image), "dfu:OPENMV4", "--all", "--log", str(log)]) == 0
    said = capsys.readouterr()
    assert said.out.count("wrote") == 2
    assert said.err.count("reports no unique id") == 2
    assert all(tool.flash(f"{mark}ROMFS0").startswith(image.read_bytes()) for mark in ("", "2"))
    rows = [line.split(",") for line in log.read_text().splitlines()[1:]]
    assert {(row[1], row[2], row[-1]) for row in rows} == {
        ("dfu:OPENMV4@1-2", "", "written"), ("dfu:OPENMV4@1-3", "", "written"),
    }  # fmt: skip
    (tool.folder / "devices.json").write_text(json.dumps(plugged[1:]))
    assert main(["undo", "dfu:OPENMV4@1-3"]) == 0
    assert tool.flash("2ROMFS0").startswith(make_image(8000, 1)), "what it held, not the other"


@pytest.mark.parametrize("unique_id", ["77", ""])
@pytest.mark.parametrize("serial", ["33004B", ""])
def test_a_production_line_of_cameras_that_are_written_in_their_loaders(
    attach: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    capsys: pytest.CaptureFixture[str], unique_id: str, serial: str,
) -> None:  # fmt: skip
    """Their firmware gives no access. One stays plugged in: it restarts, and is not sent again."""
    monkeypatch.setenv("ROMFSFS_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setattr(production, "LOOK_SECONDS", 0.05)
    tool = attach("OPENMV4")
    devices = tool.folder / "devices.json"
    devices.write_text("[]")
    sent: list[str] = []
    looks: list[int] = []

    def there() -> dict[str, object]:
        """Its port, another device file after each restart; in its loader it has none."""
        return {} if json.loads(devices.read_text()) else {"/dev/ttyACM0": len(sent) + 1}

    def look() -> dict[str, object]:
        found = there()
        if sent and found:  # it is back
            looks.append(1)
        if len(looks) == 10:
            os.kill(os.getpid(), signal.SIGINT)
        return found

    def old_firmware(port: str, *, accept: Callable[[object], None], **words: Any) -> Any:
        board = get_board("OPENMV4")
        accept(SimpleNamespace(board=board, unique_id=unique_id, partitions=(), firmware="1.2"))
        raise NoRomfsAccess(port, board)

    def send(port: str, board: Any) -> None:
        sent.append(port)
        add(tool, "OPENMV4", serial=serial)

    monkeypatch.setattr(SerialCamera, "open", old_firmware)
    monkeypatch.setattr(opening, "send_to_loader", send)
    monkeypatch.setattr(discovery, "usb_path", lambda port: "1-2")
    monkeypatch.setattr(production, "serial_ports", look)
    monkeypatch.setattr(production, "inode_of", lambda port: there().get(port, 0))
    image, log = tmp_path / "product.img", tmp_path / "made.csv"
    image.write_bytes(make_image(9000))
    words = ["push", str(image), "--all", "--watch", "--no-backup", "--board", "OPENMV4"]
    assert main([*words, "--log", str(log)]) == 0
    said = capsys.readouterr()
    assert sent == ["/dev/ttyACM0"]
    assert said.out.endswith("1 written, 0 had it already, 0 failed\n")
    assert said.err.count("is back from its boot loader: left alone") == 1
    assert ("reports no unique id" in said.err) is not bool(unique_id or serial)
    number = unique_id or serial.lower()
    assert log.read_text().splitlines()[1].split(",")[1:3] == ["/dev/ttyACM0", number]
    assert tool.flash("ROMFS0").startswith(image.read_bytes())


def test_a_camera_that_is_written_in_its_loader_is_undone_by_its_serial_port(
    attach: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Which session that is, its loader tells; it is opened once more when its port is back."""
    monkeypatch.setenv("ROMFSFS_STATE_DIR", str(tmp_path / "state"))
    old, image = make_image(8000, 1), tmp_path / "new.img"
    image.write_bytes(make_image(9000))
    tool = attach("OPENMV4")
    devices = tool.folder / "devices.json"
    plugged, there = devices.read_text(), True
    (tool.folder / "ROMFS0").write_bytes(old + b"\xff" * (SIZE - len(old)))
    devices.write_text("[]")
    access = os.access

    def old_firmware(port: str, **words: Any) -> Any:
        if not there:
            raise DeviceAbsent("no such serial port", where=port)
        raise NoRomfsAccess(port, get_board("OPENMV4"))

    def send(port: str, board: Any) -> None:
        nonlocal there
        there = False
        devices.write_text(plugged)

    def comes_back(path: Any, mode: int, **how: Any) -> bool:
        nonlocal there
        if path != "/dev/ttyACM7":
            return access(path, mode, **how)
        there = devices.read_text() == "[]"
        return there

    monkeypatch.setattr(SerialCamera, "open", old_firmware)
    monkeypatch.setattr(opening, "send_to_loader", send)
    monkeypatch.setattr(discovery, "usb_path", lambda port: "1-2")
    monkeypatch.setattr(os, "access", comes_back)
    assert main(["push", str(image), "/dev/ttyACM7"]) == 0
    assert tool.flash("ROMFS0").startswith(image.read_bytes())
    there = True
    assert main(["undo", "/dev/ttyACM7"]) == 0
    assert tool.flash("ROMFS0").startswith(old)


def test_what_a_push_by_the_serial_port_replaced_comes_back_through_the_loader(
    attach: Callable[..., Any], micropython: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The loader of an STM32 says the unique id in reverse order; it is the same camera."""
    monkeypatch.setenv("ROMFSFS_STATE_DIR", str(tmp_path / "state"))
    unique_id = bytes.fromhex("330034001951393337303732")
    old, image = make_image(8000, 1), tmp_path / "new.img"
    image.write_bytes(make_image(9000))
    config = preset("OPENMV4P", unique_id=unique_id, images={0: old})
    with Simulator(config, micropython=micropython) as simulator:
        assert main(["push", str(image), simulator.port]) == 0
    tool = attach("OPENMV4P", image.read_bytes(), serial=unique_id[::-1].hex().upper())
    assert main(["undo", "dfu:OPENMV4P"]) == 0
    assert tool.flash("ROMFS0").startswith(old)


def test_waiting_for_the_boot_loader(
    attach: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """It is talked to as soon as it is there: 1.5 s later it would start the firmware."""
    tool = attach("OPENMV_N6")
    tool.fault(appear_after=3)
    entered: list[str] = []
    device = open_device("dfu:OPENMV_N6", wait=entered.append)
    device.close()
    assert len(entered) == 1
    assert "unplug it and plug it in again" in entered[0]
    assert [word for word in tool.calls[-3] if word in ("-w", "-U")] == ["-w", "-U"]
    open_device("dfu:OPENMV_N6", wait=entered.append).close()
    assert len(entered) == 1, "it is there already"
    assert "-U" in tool.calls[-1]
    image = tmp_path / "new.img"
    image.write_bytes(encode({"a.txt": b"new"}, DEFAULT_RULES))
    monkeypatch.setenv("ROMFSFS_STATE_DIR", str(tmp_path / "state"))
    tool.fault(appear_after=3)
    assert main(["push", str(image), "dfu:OPENMV_N6", "--wait"]) == 0
    assert "its boot loader answers for 1.5 s" in capsys.readouterr().err
    assert tool.flash("ROMFS0").startswith(image.read_bytes())
    tool.fault(appear_after=100)
    monkeypatch.setattr(dfu, "APPEAR_LIMIT", 1.0)
    with pytest.raises(DeviceAbsent, match="did not appear in DFU mode within 1 s"):
        open_board("OPENMV_N6", enter=lambda: None)
    with pytest.raises(UsageError, match="only a boot loader can be waited for"):
        open_device("camera", wait=entered.append)


def test_without_permission(attach: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> None:
    """dfu-util's listing ends well all the same; the board is there and may not be opened."""
    tool = attach("OPENMV_N6", denied=True)
    entered: list[int] = []
    for work in (
        lambda: open_device("dfu:OPENMV_N6"),
        lambda: open_board("OPENMV_N6", enter=lambda: entered.append(1)),
    ):
        with pytest.raises(DeviceError, match="may not open OPENMV_N6 in DFU mode; romfsfs doctor"):
            work()
    assert entered == [], "it is there"
    tool.fault(appear_after=2)
    with pytest.raises(DeviceError, match="may not open OPENMV_N6 in DFU mode"):
        open_board("OPENMV_N6", enter=lambda: entered.append(1))
    assert entered == [1]
    assert main(["cameras", "--no-open"]) == 0
    said = capsys.readouterr().out
    assert "OPENMV_N6: in DFU mode; this user may not open it; romfsfs doctor\n" in said


@pytest.mark.parametrize("there", ["loader", "rule", "ports alone", "nothing"])
def test_doctor_looks_at_boot_loaders_too(
    attach: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, there: str
) -> None:
    tool = attach("OPENMV_N6", denied=True)
    if there != "loader":
        (tool.folder / "devices.json").write_text("[]")
    rules = {
        "rule": 'SUBSYSTEM=="usb", ATTR{idVendor}=="37c5", MODE="0666"',
        "ports alone": 'SUBSYSTEM!="tty", GOTO="end"\nATTRS{idVendor}=="37c5", TAG+="uaccess"',
    }
    (tmp_path / "70-some.rules").write_text(rules.get(there, ""))
    monkeypatch.setattr(doctor, "_RULES", (str(tmp_path), "/nowhere"))
    monkeypatch.setattr(doctor.os, "geteuid", lambda: 1000)
    check = doctor._found("boot loaders", "", doctor._loader_permission)
    assert check.ok == (there == "rule")
    assert ("udevadm trigger" in check.remedy) != check.ok
    assert ("you may not open it" in check.detail) == (there == "loader")


def test_a_running_camera_is_not_sent_where_it_could_not_be_opened(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its USB device now says what this user may do with the loader; nothing is sent to it."""
    nodes = {"busnum": "1\n", "devnum": "7\n"}
    real = open

    def opened(path: Any, *args: Any, **more: Any) -> Any:
        name = str(path)
        if name.startswith("/sys/dev/char/"):
            return io.StringIO(nodes[name.rpartition("/")[2]])
        return real(path, *args, **more)

    monkeypatch.setattr(discovery, "open", opened, raising=False)
    monkeypatch.setattr(discovery.os, "access", lambda path, mode: "/usb/001/007" not in path)
    with pytest.raises(DeviceError, match=r"/dev/bus/usb/001/007 cannot be opened.*doctor"):
        opening.send_to_loader("/dev/ttyACM0", get_board("OPENMV_N6"))


def test_no_dfu_util(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(DeviceError, match="dfu-util is not installed; "):
        open_board("OPENMV_N6", enter=list)


def digests(tree: dict[str, bytes]) -> dict[str, str]:
    return {name: hashlib.sha256(data).hexdigest() for name, data in tree.items()}


def cuts(size: int, start: int) -> list[int]:
    """Where the cable is pulled in writes of `size` bytes and then of `start`: around the first
    pages, and at the blocks."""
    near = [0, PAGE, 2 * PAGE, 4096]
    blocks = range(4096, size + start, 8192)
    return sorted({*near, *blocks, *(size + each for each in near if each < start)})


@pytest.mark.parametrize(
    ("board", "partition", "size", "start", "lead"),
    [
        ("OPENMV_N6", 0, 110 * KIB, 64 * KIB, 0),
        ("OPENMV_N6", 0, 110 * KIB, 256, 64 * KIB),
        ("OPENMV4P", 0, 110 * KIB, 64 * KIB, 0),
        ("OPENMV_AE3", 0, 30 * KIB, 4 * KIB, 0),
        ("OPENMV_AE3", 1, 30 * KIB, 16, 0),
        ("ARDUINO_GIGA", 0, 30 * KIB, 4 * KIB, 0),
        ("OPENMV4", 0, 60 * KIB, 60 * KIB, 0),
    ],
)
def test_cable_pulled_at_any_moment(
    attach: Callable[..., Any], micropython: Path, tmp_path: Path, board: str, partition: int,
    size: int, start: int, lead: int,
) -> None:  # fmt: skip
    """MicroPython lists the old files, the new ones, or none; the same again mends it.

    But for one gap: the page with the header is programmed, and what the loader has erased with
    it is not yet. start: so much is written at last. It is that page alone where the rest is FF
    (lead), and in MRAM.
    """
    blank = {"0.txt": b"\xff" * lead} if lead else {}
    trees = [make_files(20 * KIB, 1), {**blank, **make_files(size - lead, 2)}]
    old, new = (encode(tree, DEFAULT_RULES) for tree in trees)
    start = min(start, len(new))
    first = 0 if start == len(new) else len(new)
    name = "ROMFS1" if partition else romfs_file(board)
    tool = attach(board, old)
    plugged = (tool.folder / "devices.json").read_text()
    states, stops = [], cuts(first, start)
    for stop in stops:
        (tool.folder / name).write_bytes(old + b"\xff" * (SIZE - len(old)))
        (tool.folder / "devices.json").write_text(plugged)
        tool.fault(stop_after=stop)
        device = open_device(f"dfu:{board}", partition=partition)
        with pytest.raises(DeviceLost, match=r"written.*connect it again"):
            device.write_image(io.BytesIO(new))
        states.append(tool.flash(name))
    wanted = [digests(tree) for tree in trees]
    gaps = [stop for stop in stops if first < stop < first + start and start > PAGE]
    for stop, files in zip(stops, listed(micropython, tmp_path, states), strict=True):
        assert stop in gaps or files in (None, *wanted), stop
    assert bool(gaps) == (start > PAGE)
    (tool.folder / "devices.json").write_text(plugged)
    tool.fault()
    device = open_device(f"dfu:{board}", partition=partition)
    assert device.write_image(io.BytesIO(new)).verified
    assert listed(micropython, tmp_path, [tool.flash(name)]) == [wanted[1]]


def test_a_commit_leaves_what_is_erased_with_the_header_empty(
    attach: Callable[..., Any], micropython: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that its last write is the header's page alone; an image that has no room for that, or
    is to be compact, has no such place."""
    monkeypatch.setenv("ROMFSFS_STATE_DIR", str(tmp_path / "state"))
    old = make_files(20 * KIB, 1)
    tool = attach("OPENMV_N6", encode(old, DEFAULT_RULES))
    plugged = (tool.folder / "devices.json").read_text()
    for compact in (False, True):
        (tool.folder / "devices.json").write_text(plugged)
        with romfsfs.open("dfu:OPENMV_N6") as editor:
            (editor.path / "new.txt").write_bytes(b"new")
            editor.commit(compact=compact)
        held = tool.flash("ROMFS0")
        assert (set(held[PAGE : 64 * KIB]) == {0xFF}) != compact
        assert listed(micropython, tmp_path, [held]) == [digests({**old, "new.txt": b"new"})]


def test_half_an_image_is_not_what_undo_brings_back(
    attach: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """The cable was pulled just after the header: what is there then looks like an image."""
    monkeypatch.setenv("ROMFSFS_STATE_DIR", str(tmp_path / "state"))
    texts = [{"a.txt": letter * 80_000} for letter in (b"1", b"2")]
    old, new = (encode(each, DEFAULT_RULES) for each in texts)
    tool = attach("OPENMV_N6", old)
    plugged = (tool.folder / "devices.json").read_text()
    (tmp_path / "new.img").write_bytes(new)
    push = ["push", str(tmp_path / "new.img"), "dfu:OPENMV_N6"]
    tool.fault(stop_after=len(new) + 4096)
    assert main(push) == 5
    assert tool.flash("ROMFS0").startswith(new[:4096])
    assert not tool.flash("ROMFS0").startswith(new)
    tool.fault()
    for command in (push, push, ["undo", "dfu:OPENMV_N6"]):
        (tool.folder / "devices.json").write_text(plugged)
        assert main(command) == 0
    said = capsys.readouterr().out
    assert "has this image already" in said, said
    assert tool.flash("ROMFS0").startswith(old)


@pytest.mark.parametrize("after", [0, 4096])
def test_cable_pulled_in_a_read(attach: Callable[..., Any], after: int) -> None:
    tool = attach("OPENMV_N6", make_image(9000))
    device = open_device("dfu:OPENMV_N6")
    tool.fault(pull_read=after)
    with pytest.raises(DeviceLost, match="went away while it was read"):
        device.read_image(io.BytesIO())
    device.close()


def test_a_read_ends_when_there_is_enough(attach: Callable[..., Any]) -> None:
    """24 MiB of an N6 for an image of 9 KB: dfu-util itself would read to the end."""
    image = make_image(9000)
    tool = attach("OPENMV_N6", image)
    tool.fault(stuck_after=12 * KIB)
    device = open_device("dfu:OPENMV_N6")
    back = io.BytesIO()
    assert device.read_image(back) == len(image)
    assert back.getvalue() == image
    device.close()


def test_what_is_there_is_read_once(attach: Callable[..., Any]) -> None:
    """For the backup, the comparisons and the check of what was written, in one push."""
    old, new = make_image(50_000), make_image(90_000, 1)
    tool = attach("OPENMV_N6", old)
    device = open_device("dfu:OPENMV_N6")
    assert device.matches(io.BytesIO(old), len(old)) is None
    device.read_image(io.BytesIO())
    assert device.matches(io.BytesIO(old), len(old)) is True
    assert device.matches(io.BytesIO(new), len(new)) is False
    report = device.write_image(io.BytesIO(old))
    assert (report.written, report.skipped) == (0, len(old))
    device.write_image(io.BytesIO(new))
    device.read_image(io.BytesIO())
    assert device.matches(io.BytesIO(new), len(new)) is True
    device.close()
    modes = [next(word for word in call if word in ("-l", "-U", "-D")) for call in tool.calls]
    assert modes == ["-l", "-U", "-U", "-D", "-D", "-U"]  # header, all; two writes, one check


@pytest.mark.parametrize(
    ("number", "calls"),
    [(signal.SIGKILL, (2, 3, 4, 5, 6, 7)), (signal.SIGINT, (5,))],  # 5 and 6 write
)
def test_a_push_is_killed(
    attach: Callable[..., Any], tmp_path: Path, number: signal.Signals, calls: Iterable[int]
) -> None:
    """As dfu-util reads and writes: the camera has the old image, the new one, or none that
    mounts; the same again mends it."""
    old, new = make_image(30_000), make_image(25_000, 1)
    tool = attach("OPENMV_AE3", old)
    devices = (tool.folder / "devices.json").read_text()
    (tmp_path / "new.img").write_bytes(new)

    def push(pause_at: int) -> tuple[int, str]:
        (tool.folder / "devices.json").write_text(devices)  # plugged in
        return killed_push.push(tool, tmp_path, "dfu:OPENMV_AE3", number, pause_at)

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
        assert len(tool.calls) <= CALLS, "fewer for what is blank, or there already"


def test_unplugged_between_two_calls(attach: Callable[..., Any]) -> None:
    """Nothing is waited for: the next camera that is plugged in there may be another one."""
    tool = attach("OPENMV_N6", make_image(9000))
    device = open_device("dfu:OPENMV_N6")
    (tool.folder / "devices.json").write_text("[]")
    for work in (device.read_image, device.write_image):
        with pytest.raises(DeviceLost, match="went away"):
            work(io.BytesIO(make_image(9000)))
    assert not any("-w" in call for call in tool.calls)
    device.close()


@pytest.mark.parametrize("board", ["OPENMV_N6", "ARDUINO_GIGA"])
@pytest.mark.parametrize("status", [0, 74, 251])
def test_leaving_is_seen_by_the_board_being_gone(
    attach: Callable[..., Any], board: str, status: int
) -> None:
    """Whatever dfu-util says of it; another camera that comes meanwhile is left alone."""
    tool = attach(board)
    device = open_device(f"dfu:{board}")
    add(tool, board, path="1-3")
    tool.fault(detach_status=status)
    device.restart()
    device.close()
    assert len(json.loads((tool.folder / "devices.json").read_text())) == 1
    assert (tool.folder / "resets").read_text() == "reset\n"


def test_a_board_that_does_not_leave(
    attach: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = attach("OPENMV_N6")
    device = open_device("dfu:OPENMV_N6")
    monkeypatch.setattr(dfu, "LEAVE_LIMIT", 0.1)
    tool.fault(no_detach=True, fail="U")
    with pytest.raises(DeviceError, match=r"could not reset .*replug it"):
        device.restart()
    device.close()


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
    why = "LIBUSB_ERROR_PIPE" if mode == "U" else "Device is unable to write memory"
    assert why in caught.value.line, "what the loader says is no secret of -v"


@pytest.mark.parametrize("length", [-1, 0, 5])
@pytest.mark.parametrize("board", ["OPENMV_N6", "ARDUINO_GIGA"])
def test_a_read_that_is_cut(attach: Callable[..., Any], board: str, length: int) -> None:
    """The tool says that it succeeded; what the camera holds is not called damaged for that."""
    tool = attach(board, make_image(9000))
    device = open_device(f"dfu:{board}")
    tool.fault(short=length)
    with pytest.raises(DeviceError, match=r"ended \d+ bytes early"):
        device.read_image(io.BytesIO())


def test_nothing_overwrites_a_slot_of_openmv_ota(
    attach: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv("ROMFSFS_STATE_DIR", str(tmp_path / "state"))
    old, new = make_image(9000), make_image(12_000, 1)
    both = two_slots(1024 * KIB, old, old)
    tool = attach("OPENMV_AE3", both)
    plugged = (tool.folder / "devices.json").read_text()
    (tmp_path / "new.img").write_bytes(new)
    push = ["push", str(tmp_path / "new.img"), "dfu:OPENMV_AE3:1", "--force"]
    assert main(push) == 1
    assert "breaks its signature" in capsys.readouterr().err
    assert main([*push, "--slot", "B"]) == 2
    assert "slot B is reached by the camera's serial port" in capsys.readouterr().err
    assert [call for call in tool.calls if "-D" in call] == []
    (tool.folder / "devices.json").write_text(plugged)
    assert main([*push, "--slot", "A"]) == 0
    assert tool.flash("ROMFS1").startswith(new)
    assert tool.flash("ROMFS1")[504 * KIB :] == both[504 * KIB :], "A's status and trailer, and B"


@pytest.mark.parametrize("single", [True, False])
def test_no_slot_is_written_where_that_erases_more(
    attach: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    capsys: pytest.CaptureFixture[str], single: bool,
) -> None:  # fmt: skip
    """The loader of the H7 erases all of the partition at once."""
    monkeypatch.setenv("ROMFSFS_STATE_DIR", str(tmp_path / "state"))
    old = make_image(9000)
    content = one_slot(SIZE, old, stride=32) if single else two_slots(SIZE, old, old)
    tool = attach("OPENMV4", content)
    (tmp_path / "new.img").write_bytes(make_image(12_000, 1))
    push = ["push", str(tmp_path / "new.img"), "dfu:OPENMV4", "--force"]
    assert main(push) == 1
    said = capsys.readouterr().err
    assert "breaks its signature" in said
    assert "--slot A" not in said, "which is of no use"
    assert main([*push, "--slot", "A"]) == 1
    into = "its own status and trailer" if single else "slot B"
    assert f"spans slot A and {into}" in capsys.readouterr().err
    assert [call for call in tool.calls if "-D" in call] == []


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


def test_leaving_with_an_old_dfu_util(
    attach: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = attach("OPENMV_N6")
    device = open_device("dfu:OPENMV_N6")
    monkeypatch.setattr(dfu, "LEAVE_LIMIT", 0.1)
    tool.fault(no_detach=True)
    device.restart()
    assert tool.was_reset
    device.close()


def test_what_waits_is_stopped_when_it_reads_or_may_not(tmp_path: Path) -> None:
    path = tmp_path / "start"
    seen = dfu._Seen(path)
    found = [seen.is_set()]
    for size in (0, 15, 16, 4096):
        path.write_bytes(bytes(size))
        found.append(seen.is_set())
    assert found == [False, False, False, True, True]
    seen = dfu._Seen(tmp_path / "none")
    denied = "Cannot open DFU device 37c5:96e3 found on devnum 9 (LIBUSB_ERROR_ACCESS)\n"
    for piece, stopped in (("Waiting\n", False), (denied, True), ("Waiting\n", True)):
        seen.listen(piece)
        assert seen.is_set() == stopped


def test_how_far_a_read_is(tmp_path: Path) -> None:
    """As much as was asked for, at most; it is stopped at what is enough for the loader."""
    told: list[tuple[str, int, int]] = []
    path = tmp_path / "read.img"
    growing = dfu._Growing(path, 100, 200, lambda *step: told.append(step))
    found = [growing.is_set()]
    for size in (0, 99, 150, 200):
        path.write_bytes(bytes(size))
        found.append(growing.is_set())
    assert found == [False, False, False, False, True]
    assert told == [("reading", done, 100) for done in (0, 0, 99, 100, 100)]


def test_how_far_a_write_is(attach: Callable[..., Any]) -> None:
    """In the percent that dfu-util says; the whole image, and then its beginning."""
    attach("OPENMV_N6")
    image = make_image(100_000)
    told: list[tuple[str, int, int]] = []
    device = open_device("dfu:OPENMV_N6")
    device.write_image(io.BytesIO(image), None, lambda *step: told.append(step))
    size = len(image)
    assert {phase for phase, _, _ in told} == {"writing", "verifying"}
    for total in (size, 64 * KIB):
        done = [step[1] for step in told if step[0] == "writing" and step[2] == total]
        assert (done[0], done[-1]) == (0, total)
        assert done == sorted(done)
    assert told[-1] == ("verifying", size, size)


@pytest.mark.parametrize(("mode", "advice"), [("U", " and repeat the command"), ("D", "")])
def test_a_camera_that_went_away_in_all_that_is_said(
    attach: Callable[..., Any], mode: str, advice: str
) -> None:
    tool = attach("OPENMV_N6", make_image(9000))
    device = open_device("dfu:OPENMV_N6")
    tool.fault(**({"pull_read": 0} if mode == "U" else {"stop_after": 0}))
    work = device.read_image if mode == "U" else device.write_image
    with pytest.raises(DeviceLost) as caught:
        work(io.BytesIO(make_image(9000)))
    what = "read" if mode == "U" else "written"
    assert caught.value.line == (
        f"the camera went away while it was {what} (OPENMV_N6 in DFU mode); connect it again"
        f"{advice}"
    )
    assert "dfu-util" in caught.value.detail


def test_command_lines() -> None:
    setting = DfuSetting(0x37C5, 0x9206, "1-2", 3, "ROMFS0", "X")
    base = ["dfu-util", "-d", ",37c5:9206", "-p", "1-2", "-a", "3"]
    assert read_argv("dfu-util", setting, "f") == [*base, "-U", "f"]
    assert write_argv("dfu-util", setting, "f") == [*base, "-D", "f"]
    assert reset_argvs("dfu-util", setting, "f") == [[*base, "-e"], [*base, "-R", "-U", "f"]]
    place = {"address": 0x90B00000}
    assert read_argv("dfu-util", setting, "f", length=16, **place)[7:9] == ["-s", "0x90B00000:16"]
    assert write_argv("dfu-util", setting, "f", **place)[7:9] == ["-s", "0x90B00000"]
    assert reset_argvs("dfu-util", setting, "f", **place)[0][8] == "0x90B00000:16:leave"
    unknown = DfuSetting(0x37C5, 0x9206, "", 3, "ROMFS0", "X")
    assert "-p" not in read_argv("dfu-util", unknown, "f")


def test_listing() -> None:
    text = (
        'Found DFU: [37c5:9206] ver=0200, devnum=12, cfg=1, intf=0, path="1-2", alt=3, '
        'name="ROMFS0", serial="3300"\n'
        'Found Runtime: [37c5:1206] ver=0200, devnum=2, cfg=1, intf=0, path="1-3", alt=0, '
        'name="x", serial="y"\n'
    )
    found = (DfuSetting(0x37C5, 0x9206, "1-2", 3, "ROMFS0", "3300"),)
    assert parse_list(text) == DfuListing(found)
    assert parse_list(text.replace("1-2", "--help")).settings[0].path == ""
    assert parse_list("dfu-util: Cannot open DFU device\n") == DfuListing(())
    denied = "dfu-util: Cannot open DFU device 37c5:96e3 found on devnum 9 (LIBUSB_ERROR_ACCESS)\n"
    assert parse_list(text + denied) == DfuListing(found, ((0x37C5, 0x96E3),))
    assert percentage("Download [==   ]  12%   100 bytes\r [=== ]  40%") == 40
    assert percentage("nothing") is None


def test_a_board_shows_that_may_be_opened_or_may_not() -> None:
    board = get_board("OPENMV4")
    listed = DfuSetting(*board.dfu_id, "1-2", 3, "ROMFS0", "1")
    other = (board.dfu_id[0], board.dfu_id[1] + 1)
    assert DfuListing((listed,)).shows(board)
    assert DfuListing((), (board.dfu_id,)).shows(board)
    assert not DfuListing(()).shows(board)
    assert not DfuListing((DfuSetting(*other, "1-2", 3, "ROMFS0", "1"),), (other,)).shows(board)
    assert DfuListing((listed,)).shows(board, "1-2")
    assert not DfuListing((listed,)).shows(board, "1-3")
    assert DfuListing((), (board.dfu_id,)).shows(board, "1-3"), "its port is not listed"
