"""SOURCE: which cameras there are, and which one is meant."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import needs
import pytest
import serial
from serial.tools import list_ports_linux

from romfsfs.boards import get_board
from romfsfs.cli import main
from romfsfs.devices import discovery
from romfsfs.devices.discovery import (
    CameraPort,
    dfu_cameras,
    pick_camera,
    serial_cameras,
)
from romfsfs.devices.open import inspect, is_camera, open_device, send_to_loader
from romfsfs.errors import DeviceAbsent, DeviceBusy, DeviceError, UsageError
from romfsfs.image.rules import DEFAULT_RULES
from romfsfs.image.writer import encode
from romfsfs.simulator import Simulator, preset


def port(device: str, vid: int | None, pid: int | None, serial: str | None = "") -> Any:
    return SimpleNamespace(device=device, vid=vid, pid=pid, serial_number=serial)


N6 = port("/dev/ttyACM1", 0x37C5, 0x1206, "33004B")
AE3 = port("/dev/ttyACM0", 0x37C5, 0x16E3, "AE3X")


def test_cameras_are_told_by_their_usb_ids() -> None:
    others = [port("/dev/ttyS0", None, None), port("/dev/ttyUSB0", 0x0403, 0x6001)]
    found = serial_cameras([N6, *others, AE3])
    assert [camera.boards for camera in found] == [("OPENMV_AE3",), ("OPENMV_N6",)]
    assert found[1] == CameraPort("/dev/ttyACM1", 0x37C5, 0x1206, "33004B", ("OPENMV_N6",))


def test_ports_that_are_no_cameras_or_say_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the environment have no ids; all come in the order of their names."""
    half = [port("/dev/ttyS1", 0x37C5, None), port("/dev/ttyS2", None, 0x1206)]
    mute = port("/dev/ttyACM7", 0x37C5, 0x1206, None)
    monkeypatch.setenv("ROMFSFS_PORTS", os.pathsep.join(["/dev/z", "", "/dev/a"]))
    found = serial_cameras([*half, mute])
    assert found == (
        CameraPort("/dev/a"), CameraPort("/dev/ttyACM7", 0x37C5, 0x1206, "", ("OPENMV_N6",)),
        CameraPort("/dev/z"),
    )  # fmt: skip
    shared = CameraPort("/dev/ttyACM1", 1, 2, "33", ("A", "B"))
    assert [each.label for each in (*found[:2], shared)] == [
        "/dev/a (unknown board)", "/dev/ttyACM7 (OPENMV_N6)",
        "/dev/ttyACM1 (A or B, camera:33)",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("number", "told"),
    [
        ("", ""),
        ("000000000010", ""),
        ("0123", "0123"),
        ("012", ""),
        ("33004B", "33004B"),
        ("0123456789ABCDEF", ""),
        ("0123456789abcdef", ""),
    ],
)
def test_a_number_that_all_cameras_have_is_none(
    monkeypatch: pytest.MonkeyPatch, number: str, told: str
) -> None:
    camera = CameraPort("/dev/ttyACM1", 1, 2, number)
    monkeypatch.setattr(discovery, "serial_cameras", lambda: (camera,))
    assert discovery.usb_serial("/dev/ttyACM1") == told
    assert discovery.usb_serial("/dev/ttyACM2") == ""


def test_which_camera_can_be_that_board(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of its USB id, or a port of which nothing is known."""
    n6, ae3 = (
        CameraPort(f"/dev/{name}", 1, 2, "", (name,)) for name in ("OPENMV_N6", "OPENMV_AE3")
    )
    other = CameraPort("/dev/pts/1")
    for there, port_name in (((n6, ae3), "/dev/OPENMV_N6"), ((ae3, other), "/dev/pts/1")):
        monkeypatch.setattr(discovery, "serial_cameras", lambda there=there: there)
        assert discovery.port_of(get_board("OPENMV_N6")).port == port_name
    monkeypatch.setattr(discovery, "serial_cameras", lambda: (n6, other))
    monkeypatch.setattr(discovery, "usb_path", lambda name: "1-2" if name == n6.port else "")
    assert discovery.port_of(get_board("OPENMV_N6"), "1-2") == n6
    with pytest.raises(DeviceAbsent, match="no camera is connected"):
        discovery.port_of(get_board("OPENMV_N6"), "1-3")
    with pytest.raises(UsageError) as several:
        discovery.port_of(get_board("OPENMV_N6"))
    assert several.value.line == (
        "2 cameras are connected (/dev/OPENMV_N6 (OPENMV_N6), /dev/pts/1 (unknown board)); name "
        "one: camera:SERIAL or its port"
    )
    with pytest.raises(DeviceAbsent) as none:
        pick_camera("x", (n6,))
    assert none.value.line == (
        "no camera with serial number x is connected (connected: /dev/OPENMV_N6 (OPENMV_N6)); "
        "check the cable (some only charge); name a camera in its boot loader dfu:BOARD, and any "
        "other port by its path"
    )


def test_whether_a_user_may_open_the_usb_device_is_asked_where_linux_tells(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[tuple[str, int]] = []

    def access(path: str, mode: int) -> bool:
        asked.append((path, mode))
        return len(asked) > 1

    nodes = {"busnum": "1\n", "devnum": "27\n"}
    monkeypatch.setattr(discovery, "open", lambda path: io.StringIO(
        nodes[path.rpartition("/")[2]]), raising=False)  # fmt: skip
    monkeypatch.setattr(discovery.os, "access", access)
    with pytest.raises(DeviceError) as caught:
        discovery.check_usb_access("/dev/ttyACM0")
    assert caught.value.line == (
        "this user may not open the camera in its boot loader, as /dev/bus/usb/001/027 cannot be "
        "opened now; romfsfs doctor has the command that allows it"
    )
    discovery.check_usb_access("/dev/ttyACM0")
    assert asked == [("/dev/bus/usb/001/027", os.R_OK | os.W_OK)] * 2
    nodes["busnum"] = "?"
    discovery.check_usb_access("/dev/ttyACM0")
    assert len(asked) == 2


@pytest.mark.parametrize(
    ("source", "options", "line"),
    [
        ("dfu:OPENMV_AE3:1", {"partition": 0}, "that is partition 1, not 0 (dfu:OPENMV_AE3:1)"),
        ("dfu:OPENMV_AE3", {"slot": "B"}, "boot loaders write from the partition's start on, which "
         "is slot A (dfu:OPENMV_AE3); slot B is reached by the camera's serial port"),
        ("x.img", {"slot": "A"}, "only cameras have slots (x.img); leave out --slot"),
        ("camera", {"wait": print}, "only a boot loader can be waited for (camera); name it: "
         "dfu:BOARD"),
        ("dfu:", {}, "which board? (dfu:); dfu:BOARD; see `romfsfs boards`"),
        ("dfu:@1-2", {}, "which board? (dfu:); dfu:BOARD; see `romfsfs boards`"),
        ("dfu:OPENMV_RT1060@1-2", {}, "blhost cannot choose a boot loader of OPENMV_RT1060 by its "
         "USB port (dfu:OPENMV_RT1060@1-2); connect only that one, and name it dfu:OPENMV_RT1060"),
    ],
)  # fmt: skip
def test_a_source_that_cannot_be_meant(source: str, options: dict[str, Any], line: str) -> None:
    with pytest.raises(UsageError) as caught:
        open_device(source, **options)
    assert caught.value.line == line


@pytest.mark.parametrize(
    ("source", "camera"),
    [
        ("camera", True), ("camera:1", True), ("cameras", False), ("dfu:X", True), ("dfu", False),
        ("/dev/ttyACM99", True), ("/dev/shm/none", False), ("COM3", True), ("com12", True),
        ("\\\\.\\COM3", True), ("COM", False), ("COM3.img", False), ("a\0b", False),
        ("/dev/null", True), (__file__, False),
    ],
)  # fmt: skip
def test_what_names_a_camera(source: str, camera: bool) -> None:
    assert is_camera(source) == camera


def test_what_usb_knows_of_a_port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its name, or by a link to it as below /dev/serial; of others it knows nothing."""
    named = str(tmp_path / "ttyACM1")
    Path(named).touch()
    (tmp_path / "by-id").symlink_to(named)
    found = CameraPort(named, 0x37C5, 0x1206, "33004B", ("OPENMV_N6",))
    others = CameraPort("/dev/ttyACM0", 0x37C5, 0x16E3, "AE3X", ("OPENMV_AE3",))
    monkeypatch.setattr(discovery, "serial_cameras", lambda: (others, found))
    assert discovery.camera_port(named) == found
    assert discovery.camera_port(str(tmp_path / "by-id")) == found
    assert discovery.camera_port("/dev/ttyS0") == CameraPort("/dev/ttyS0")


def test_where_a_serial_port_is_plugged_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the links that Linux has, whatever the port is called here: a container may give it
    another name than Linux does. Ports without a USB device are nowhere."""
    monkeypatch.setattr(discovery, "_BY_NUMBER", str(tmp_path / "char"))
    (tmp_path / "char").mkdir()
    for name, device in (("null", "usb1/1-2/1-2.3/1-2.3:1.0"), ("zero", "pnp0/00:04")):
        folder = tmp_path / "devices" / device / "tty" / "ttyACM0"
        folder.mkdir(parents=True)
        (folder / "device").symlink_to("../../../" + os.path.basename(device))
        number = os.stat(f"/dev/{name}").st_rdev
        (tmp_path / "char" / f"{os.major(number)}:{os.minor(number)}").symlink_to(folder)
    (tmp_path / "by-id").symlink_to("/dev/null")
    ports = ["/dev/null", str(tmp_path / "by-id"), "/dev/zero", "/dev/none", str(tmp_path)]
    assert [discovery.usb_path(name) for name in ports] == ["1-2.3", "1-2.3", "", "", ""]


@pytest.mark.skipif(sys.platform != "linux", reason="how Linux tells of serial ports")
@pytest.mark.parametrize("looks", [1, 100])
def test_a_port_that_vanishes_while_it_is_looked_at(
    looks: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A camera restarts: its port is listed, and what it is can no longer be read."""
    vanishing = iter([["/dev/ttyACM0"]] * looks)
    gone = str(tmp_path / "gone" / "usb")
    path = SimpleNamespace(**vars(os.path))
    path.exists, path.islink, path.realpath = lambda p: True, lambda p: False, lambda p: gone
    monkeypatch.setattr(list_ports_linux, "os", SimpleNamespace(path=path))
    monkeypatch.setattr(
        list_ports_linux.glob, "glob", lambda name: next(vanishing, []) if "ACM" in name else []
    )
    if looks == 1:
        assert serial_cameras() == ()
    else:
        with pytest.raises(DeviceError, match="name the port by its path"):
            serial_cameras()


def test_the_only_camera_or_the_named_one() -> None:
    both = serial_cameras([N6, AE3])
    assert pick_camera(None, both[:1]).port == "/dev/ttyACM0"
    assert pick_camera("33004b", both).port == "/dev/ttyACM1"
    with pytest.raises(UsageError, match=r"2 cameras.*camera:AE3X.*camera:33004B.*name one"):
        pick_camera(None, both)
    with pytest.raises(DeviceAbsent, match="serial number nine"):
        pick_camera("nine", both)
    with pytest.raises(DeviceAbsent, match=r"^no camera is connected; check the cable"):
        pick_camera(None, ())


def test_a_simulated_camera_by_path_and_by_listing(
    micropython: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with Simulator(preset("OPENMV4P"), micropython=micropython) as simulator:
        assert is_camera(simulator.port)
        for source in (simulator.port, "camera"):
            monkeypatch.setenv("ROMFSFS_PORTS", simulator.port)
            device = open_device(source)
            assert device.info().kind == "serial"
            assert device.info().board == "OPENMV4P"
            device.close()
        _, partitions = inspect(simulator.port)
        assert partitions[0].state == "blank"


def test_who_holds_a_port_is_named(micropython: Path) -> None:
    """Another program, where /proc tells; of ourselves it would be no help."""
    code = "import sys, serial\nport = serial.Serial(sys.argv[1], exclusive=True)\nprint()\ninput()"
    with Simulator(preset("OPENMV4P"), micropython=micropython) as simulator:
        argv = [sys.executable, "-c", code, simulator.port]
        with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"\n"
            with pytest.raises(DeviceBusy) as caught:
                open_device(simulator.port)
            command = Path(f"/proc/{holder.pid}/comm").read_text().strip()
            by_whom = f" by {command} (pid {holder.pid})" if needs.LINUX else ""
            assert caught.value.what == f"the serial port is in use{by_whom}"
            holder.communicate(b"\n")
        with serial.Serial(simulator.port, exclusive=True), pytest.raises(DeviceBusy) as caught:
            open_device(simulator.port)
        assert caught.value.what == "the serial port is in use"
        open_device(simulator.port).close()


def test_files_and_ports(tmp_path: Path) -> None:
    image = tmp_path / "COM3"
    image.write_bytes(b"")
    os.chdir(tmp_path)
    assert not is_camera("COM3"), "a file of that name is a file here"
    assert open_device("COM3").info().kind == "file"
    for path in (str(tmp_path / "new.img"), "/dev/shm/romfsfs-there-is-none/new.img"):
        assert open_device(path).info().kind == "file"
    with pytest.raises(DeviceAbsent, match="no such serial port"):
        open_device("/dev/ttyACM99")
    with pytest.raises(DeviceError) as caught:
        open_device("/dev/null")
    said = "not a serial port (/dev/null); `romfsfs cameras` lists those connected"
    assert caught.value.line == said
    with pytest.raises(UsageError, match="which board"):
        open_device("dfu:")


def test_boards_in_dfu_mode(install_fake: Callable[[str, str], Any]) -> None:
    tool = install_fake("dfu-util", "FAKE_DFU")
    assert dfu_cameras() == ()
    tool.folder.joinpath("devices.json").write_text(
        '[{"vid": "2341", "pid": "035b", "serial": "S", "path": "1-1",'
        ' "settings": [{"name": "a"}, {"name": "b"}]}]'
    )
    portenta = ("ARDUINO_PORTENTA_H7",)
    found = discovery.DfuCamera(0x2341, 0x035B, "1-1", "S", portenta, ("b", "a"))
    assert dfu_cameras() == (found,)  # dfu-util lists the last setting first
    tool.folder.joinpath("devices.json").write_text(
        '[{"vid": "2341", "pid": "035b", "serial": "S", "path": "1-1", "denied": true,'
        ' "settings": [{"name": "a"}]},'
        ' {"vid": "1111", "pid": "2222", "serial": "S", "path": "1-2",'
        ' "settings": [{"name": "a"}]}]'
    )
    assert dfu_cameras() == (discovery.DfuCamera(0x2341, 0x035B, "", "", portenta, ()),)


def test_into_the_boot_loader_from_the_repl(micropython: Path) -> None:
    script = "while True: print('busy')"
    config = preset("OPENMV_N6", main_script=script)
    with Simulator(config, micropython=micropython) as simulator:
        send_to_loader(simulator.port, get_board("OPENMV_N6"))
        assert not simulator.plugged


def test_firmware_without_access_is_for_dfu(
    micropython: Path, install_fake: Callable[[str, str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The camera goes to its boot loader by itself; where there is none the error says so."""
    install_fake("dfu-util", "FAKE_DFU")
    monkeypatch.setattr("romfsfs.devices.bootloader.dfu.APPEAR_LIMIT", 0.5)
    config = preset("OPENMV_N6", missing=("vfs.rom_ioctl",))
    with Simulator(config, micropython=micropython) as simulator:
        with pytest.raises(DeviceAbsent, match="did not appear in DFU mode"):
            open_device(simulator.port)
        assert not simulator.plugged
    config = preset("OPENMV_RT1060", missing=("vfs.rom_ioctl",))
    with (
        Simulator(config, micropython=micropython) as simulator,
        pytest.raises(DeviceError, match="update its firmware"),
    ):
        open_device(simulator.port)


@pytest.fixture
def in_loader(install_fake: Callable[[str, str], Any]) -> Callable[..., Any]:
    """Makes the fake board that appears in DFU mode when the camera is sent there."""

    def make(*settings: str) -> Any:
        tool = install_fake("dfu-util", "FAKE_DFU")
        tool.fault(appear_after=1)
        files = [
            {
                "name": name,
                "file": name,
                "size": 131072,
                "real": 24 << 20,
                "address": 0,
                "erase": 65536,
            }
            for name in settings
        ]
        device = {"vid": "37c5", "pid": "9206", "serial": "33", "path": "1-2"}
        for name in settings:
            (tool.folder / name).write_bytes(b"\xff" * 131072)
        (tool.folder / "devices.json").write_text(json.dumps([{**device, "settings": files}]))
        return tool

    return make


@pytest.mark.parametrize("settings", [("FIRMWARE", "ROMFS0"), ("FIRMWARE",)])
def test_a_camera_is_not_left_in_its_boot_loader(
    micropython: Path, in_loader: Callable[..., Any], settings: tuple[str, ...]
) -> None:
    """It was sent there only because its firmware gives no access; also where that was in vain."""
    tool = in_loader(*settings)
    config = preset("OPENMV_N6", missing=("vfs.rom_ioctl",))
    with Simulator(config, micropython=micropython) as simulator:
        if "ROMFS0" in settings:
            # whatever it is to be used as, its loader is the one of the board that it says it is
            device = open_device(simulator.port, board="OPENMV4")
            assert device.read_image(io.BytesIO()) == 0
            assert not tool.was_reset
            assert not simulator.plugged
            device.close()
        else:
            with pytest.raises(DeviceError, match="offers no ROMFS0"):
                open_device(simulator.port)
        assert tool.was_reset


def test_reset_by_way_of_the_boot_loader(
    micropython: Path, in_loader: Callable[..., Any], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    tool = in_loader("FIRMWARE", "ROMFS0")
    monkeypatch.setenv("ROMFSFS_STATE_DIR", str(tmp_path / "state"))
    image = tmp_path / "romfs0.img"
    image.write_bytes(encode({"a.txt": b"default"}, DEFAULT_RULES))
    config = preset("OPENMV_N6", missing=("vfs.rom_ioctl",))
    with Simulator(config, micropython=micropython) as simulator:
        assert main(["reset", simulator.port, "--from", str(image), "--yes"]) == 0
    assert tool.flash("ROMFS0").startswith(image.read_bytes())
    assert tool.was_reset
