"""What a SOURCE opens: which device, with which words, and what is put in order where it fails."""

from __future__ import annotations

import os
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from romfsfs.boards import get_board
from romfsfs.devices import discovery
from romfsfs.devices import open as opening
from romfsfs.devices.bootloader import blhost, dfu
from romfsfs.devices.discovery import CameraPort
from romfsfs.devices.open import inspect, open_device, send_to_loader
from romfsfs.devices.serial_camera import camera, port, repl
from romfsfs.devices.serial_camera.identity import NoRomfsAccess
from romfsfs.devices.serial_camera.snippets import BOOTLOADER
from romfsfs.errors import DeviceError, DeviceLost, UsageError

N6 = get_board("OPENMV_N6")


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """All that is called. A camera on port bad-NAME gives no access and says that it is NAME."""
    calls: list[Any] = []

    def serial(name: str, **words: Any) -> Any:
        calls.append(("serial", name, words))
        if name.startswith("/dev/bad-"):
            said = name.removeprefix("/dev/bad-")
            raise NoRomfsAccess(name, get_board(said) if said else None)
        return "camera"

    def connect(board: Any, partition: int, enter: Callable[[], None], **words: Any) -> Any:
        enter()
        calls.append(("connect", board.name, partition, words))
        return SimpleNamespace(hold=lambda: calls.append("hold"))

    def pick(number: str | None) -> CameraPort:
        calls.append(("pick", number))
        return CameraPort("/dev/ttyACM1")

    monkeypatch.setattr(camera.SerialCamera, "open", serial)
    monkeypatch.setattr(opening, "_connect", connect)
    monkeypatch.setattr(
        opening, "send_to_loader", lambda name, board: calls.append(("send", name, board.name))
    )
    monkeypatch.setattr(discovery, "pick_camera", pick)
    monkeypatch.setattr(discovery, "usb_path", lambda name: f"of {name}")
    monkeypatch.setattr(
        discovery, "port_of", lambda board, path: CameraPort(f"/dev/{board.name}{path}")
    )
    return calls


def serial(
    name: str, board: Any = None, partition: Any = None, slot: str = "", accept: Any = None
) -> Any:
    words = {"board": board, "partition": partition, "slot": slot, "accept": accept}
    return "serial", name, words


SENT = ("send", "/dev/OPENMV_AE3", "OPENMV_AE3")
BAD = "/dev/bad-OPENMV_N6"
#: its boot loader is looked for where its serial port was
RUNS = {"path": f"of {BAD}", "runs": True, "port": BAD}


@pytest.mark.parametrize(
    ("source", "words", "calls"),
    [
        ("camera", {}, [("pick", None), serial("/dev/ttyACM1")]),
        ("camera:7", {"board": "X", "partition": 1, "slot": "B", "accept": print},
         [("pick", "7"), serial("/dev/ttyACM1", "X", 1, "B", print)]),
        ("camera:", {}, [("pick", ""), serial("/dev/ttyACM1")]),
        ("/dev/ttyX", {"board": "X", "partition": 0, "slot": "A", "accept": print},
         [serial("/dev/ttyX", "X", 0, "A", print)]),
        (BAD, {"board": "X"}, [serial(BAD, "X"), ("send", BAD, "OPENMV_N6"),
                               ("connect", "OPENMV_N6", 0, RUNS)]),
        (BAD, {"partition": 2, "slot": "A"}, [serial(BAD, None, 2, "A"), ("send", BAD, "OPENMV_N6"),
                                              ("connect", "OPENMV_N6", 2, RUNS)]),
        (BAD, {"slot": "B"}, [serial(BAD, slot="B"), NoRomfsAccess]),
        ("/dev/bad-", {}, [serial("/dev/bad-"), NoRomfsAccess]),
        ("/dev/bad-OPENMV_RT1060", {}, [serial("/dev/bad-OPENMV_RT1060"), NoRomfsAccess]),
        ("dfu:OPENMV_AE3", {}, [SENT, ("connect", "OPENMV_AE3", 0, {"path": ""})]),
        ("dfu:OPENMV_AE3", {"partition": 1}, [SENT, ("connect", "OPENMV_AE3", 1, {"path": ""})]),
        ("dfu:ae3:1@1-2.3", {"slot": "A"},
         [("send", "/dev/OPENMV_AE31-2.3", "OPENMV_AE3"),
          ("connect", "OPENMV_AE3", 1, {"path": "1-2.3"})]),
        ("dfu:OPENMV_AE3:1", {"partition": 1}, [SENT, ("connect", "OPENMV_AE3", 1, {"path": ""})]),
        ("dfu:OPENMV_AE3:0", {"partition": 1}, [UsageError]),
        ("dfu:OPENMV_AE3:0", {"partition": 0}, [SENT, ("connect", "OPENMV_AE3", 0, {"path": ""})]),
    ],
    ids=range(15),
)  # fmt: skip
def test_what_is_opened(
    opened: list[Any], source: str, words: dict[str, Any], calls: list[Any]
) -> None:
    if isinstance(calls[-1], type):
        with pytest.raises(calls[-1]):
            open_device(source, **words)
        assert opened == calls[:-1]
    else:
        open_device(source, **words)
        assert opened == calls


def test_a_loader_that_is_waited_for_is_held(opened: list[Any]) -> None:
    said: list[str] = []
    open_device("dfu:OPENMV_AE3@1-2", wait=said.append)
    assert opened == [("connect", "OPENMV_AE3", 0, {"path": "1-2", "waits": True}), "hold"]
    assert said == [
        "waiting for OPENMV_AE3 in its boot loader, Ctrl-C ends it: unplug it and plug it in "
        "again: its boot loader answers for 1.5 s"
    ]


@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize("runs", [False, True])
def test_who_looks_for_a_loader(monkeypatch: pytest.MonkeyPatch, waits: bool, runs: bool) -> None:
    """For as long as that takes; a camera whose firmware ran is started again."""
    calls: list[Any] = []
    made: Any = SimpleNamespace(reset=lambda: calls.append("reset"))

    def of_dfu(board: Any, target: Any, enter: Any, limit: float, path: str, *, runs: bool) -> Any:
        calls.append((board.name, target.index, enter, limit, path, runs))
        return made

    def of_rt(board: Any, target: Any, enter: Any, limit: float) -> Any:
        calls.append((board.name, target.index, enter, limit))
        return made

    monkeypatch.setattr(dfu, "find_loader", of_dfu)
    monkeypatch.setattr(blhost, "find_loader", of_rt)
    words: dict[str, Any] = {"waits": waits, "runs": runs}
    ae3, rt = get_board("OPENMV_AE3"), get_board("OPENMV_RT1060")
    limit = 86400.0 if waits else 15.0
    opening._connect(ae3, 1, print, path="1-2", **words).close()
    left = ["reset"] if runs else []
    assert calls == [("OPENMV_AE3", 1, print, limit, "1-2", runs), *left]
    calls.clear()
    opening._connect(rt, 0, print, waits=waits).close()
    assert calls == [("OPENMV_RT1060", 0, print, limit)]
    calls.clear()
    opening._connect(ae3, 0, print).close()
    assert calls == [("OPENMV_AE3", 0, print, 15.0, "", False)]


@pytest.mark.parametrize(
    ("path", "runs", "alone"), [("", True, True), ("1-2", True, False), ("", False, False)]
)
def test_cameras_are_looked_for_one_by_one_where_their_ports_are_not_known(
    monkeypatch: pytest.MonkeyPatch, path: str, runs: bool, alone: bool
) -> None:
    """Two threads of a push that each send one would both take the first that appears."""
    seen: list[bool] = []

    def find(*what: Any, **how: Any) -> Any:
        seen.append(opening._ONE_BY_ONE.locked())
        raise DeviceError("it is not there")

    monkeypatch.setattr(dfu, "find_loader", find)
    for _ in range(2):
        with pytest.raises(DeviceError, match="it is not there"):
            opening._connect(N6, 0, lambda: None, path=path, runs=runs)
    assert seen == [alone] * 2


@pytest.mark.parametrize("error", [None, DeviceLost("gone")])
def test_a_camera_is_sent_to_its_loader(
    monkeypatch: pytest.MonkeyPatch, error: DeviceError | None
) -> None:
    """When its user may open it there; the port is let go of whatever happens. Its USB port is told
    as it was before: then the port is gone."""
    calls: list[Any] = []

    def start(self: Any, code: str) -> None:
        calls.append(code)
        if error:
            raise error

    monkeypatch.setattr(discovery, "check_usb_access", lambda name: calls.append(("may", name)))
    monkeypatch.setattr(discovery, "usb_path", lambda name: f"{name} after {len(calls)}")
    monkeypatch.setattr(port, "touch", lambda name: calls.append(("touch", name)))
    monkeypatch.setattr(port, "Port", lambda name: SimpleNamespace(
        name=name, close=lambda: calls.append(("close", name))))  # fmt: skip
    monkeypatch.setattr(repl.RawRepl, "start_and_forget", start)
    assert send_to_loader("ttyX", get_board("ARDUINO_GIGA")) == "ttyX after 1"
    assert calls == [("may", "ttyX"), ("touch", "ttyX")]
    calls.clear()
    if error:
        with pytest.raises(DeviceLost):
            send_to_loader("ttyX", N6)
    else:
        assert send_to_loader("ttyX", N6) == "ttyX after 1"
    assert calls == [("may", "ttyX"), BOOTLOADER, ("close", "ttyX")]


def test_looking_into_a_camera(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    info: Any = "info"
    there = SimpleNamespace(
        info=lambda: info, partitions=lambda: ("part",), close=lambda: calls.append("close")
    )
    monkeypatch.setattr(camera.SerialCamera, "open", lambda name: calls.append(name) or there)
    assert inspect("ttyX") == ("info", ("part",))

    def fail() -> None:
        raise DeviceLost("gone")

    there.info = fail
    with pytest.raises(DeviceLost):
        inspect("ttyX")
    assert calls == ["ttyX", "close"] * 2


@pytest.mark.parametrize("stumbles", [0, 1, 4, 5])
def test_how_often_a_list_of_ports_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, stumbles: int
) -> None:
    from serial.tools import list_ports

    left = [TypeError()] * stumbles
    looks: list[int] = []
    slept: list[float] = []

    def comports() -> list[Any]:
        looks.append(1)
        if left:
            raise left.pop()
        return [SimpleNamespace(device="/dev/x", vid=0x37C5, pid=0x1206, serial_number="1")]

    monkeypatch.setattr(list_ports, "comports", comports)
    monkeypatch.setattr(discovery.time, "sleep", slept.append)
    monkeypatch.delenv("ROMFSFS_PORTS", raising=False)
    if stumbles < 5:
        assert [each.port for each in discovery.serial_cameras()] == ["/dev/x"]
        assert discovery.pick_camera().port == "/dev/x"
        assert len(looks) == stumbles + 2
    else:
        with pytest.raises(DeviceError) as caught:
            discovery.serial_cameras()
        assert caught.value.line == (
            "the list of serial ports keeps changing; repeat the command when the cameras have "
            "started, or name the port by its path"
        )
        assert len(looks) == 5
    assert slept == [0.05] * stumbles


def test_a_windows_port_is_none_where_a_file_has_its_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os.path, "exists", lambda name: name == "COM3")
    assert [opening._is_port(name) for name in ("COM3", "COM4", "/dev/none", "none")] == [
        False, True, True, False,
    ]  # fmt: skip
