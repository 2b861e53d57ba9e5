"""`cameras`: what is said of each, the whole of it."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import pytest

from romfsfs.cli.machines import _camera_record, _camera_text, _dfu_records
from romfsfs.cli.output import Output
from romfsfs.cli.reports import say_warnings
from romfsfs.cli.whole import _say_found
from romfsfs.devices.base import DeviceInfo, PartitionState
from romfsfs.devices.discovery import CameraPort, DfuCamera
from romfsfs.errors import DeviceBusy, ToolMissing
from romfsfs.session.plan.problems import ERROR, WARNING, Problem

RUNNING: dict[str, Any] = {
    "kind": "serial", "port": "/dev/ttyACM0", "board": "OPENMV_AE3", "boards": ["OPENMV_AE3"],
    "serial_number": "33004B", "error": None, "firmware": "OpenMV 4.8.1", "bytecode": "6.3",
    "architecture": "armv7emdp", "notes": ["mind it"],
    "partitions": [
        {"index": 0, "size": 25165824, "state": "image", "image_size": 1000},
        {"index": 1, "size": 1048576, "state": "blank", "image_size": 0},
    ],
}  # fmt: skip
NOT_ASKED = {"firmware": None, "bytecode": None, "architecture": None, "notes": [],
             "partitions": [], "serial_number": None}  # fmt: skip
DFU = {"kind": "dfu", "path": "1-2", "error": None, "board": None, "boards": ["OPENMV4"]}


@pytest.mark.parametrize(
    ("record", "said"),
    [
        (RUNNING, [
            "/dev/ttyACM0: OPENMV_AE3, camera:33004B", "  firmware OpenMV 4.8.1, bytecode 6.3, "
            "armv7emdp", "  partition 0: 25,165,824 B, image of 1,000 B",
            "  partition 1: 1,048,576 B, blank", "  note: mind it",
        ]),
        ({**RUNNING, **NOT_ASKED, "board": None, "boards": ["A", "B"]}, ["/dev/ttyACM0: A or B"]),
        ({**RUNNING, **NOT_ASKED, "board": None, "boards": [], "error": "it is in use"},
         ["/dev/ttyACM0: unknown board", "  it is in use"]),
        ({**RUNNING, **NOT_ASKED, "partitions": [
            {"index": 0, "size": 4096, "state": "foreign", "image_size": 0}]},
         ["/dev/ttyACM0: OPENMV_AE3", "  partition 0: 4,096 B, not a ROMFS image"]),
        (DFU, ["OPENMV4: in DFU mode; dfu:OPENMV4@1-2"]),
        ({**DFU, "path": ""}, ["OPENMV4: in DFU mode; dfu:OPENMV4"]),
        ({**DFU, "error": "no access"}, ["OPENMV4: in DFU mode; no access"]),
    ],
)  # fmt: skip
def test_what_is_said_of_a_camera(record: dict[str, Any], said: list[str]) -> None:
    assert _camera_text(record) == "".join(f"{line}\n" for line in said)


def test_boards_in_dfu_mode(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = (
        DfuCamera(0x37C5, 0x9206, "1-2", "77", ("OPENMV4P",), ("flash", "romfs")),
        DfuCamera(0x2341, 0x35B, "", "", ("A", "B"), ()),
    )
    monkeypatch.setattr("romfsfs.devices.discovery.dfu_cameras", lambda: found)
    output = Output()
    usual = {"kind": "dfu", "port": None, "board": None}
    assert _dfu_records(output) == [
        {**usual, "usb": "37c5:9206", "serial_number": "77", "boards": ["OPENMV4P"], "path": "1-2",
         "settings": ["flash", "romfs"], "error": None},
        {**usual, "usb": "2341:035b", "serial_number": None, "boards": ["A", "B"], "path": None,
         "settings": [], "error": "this user may not open it; romfsfs doctor"},
    ]  # fmt: skip

    def missing() -> None:
        raise ToolMissing("dfu-util is not installed", next_step="install it")

    monkeypatch.setattr("romfsfs.devices.discovery.dfu_cameras", missing)
    listed = "boards in DFU mode cannot be listed: dfu-util is not installed; install it"
    for verbose, said in ((0, ""), (1, f"romfsfs: {listed}\n")):
        output.verbose = verbose
        assert _dfu_records(output) == []
        assert capsys.readouterr().err == said


def test_the_same_words_of_many_files_are_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    """Unless one asks for more."""
    found = [
        *(Problem("w", name, "is old", WARNING) for name in ("a.py", "b.py")),
        *(Problem("e", name, "is bad", ERROR) for name in ("c.py", "d.py")),
    ]
    output = Output()
    for verbose in (0, 1, 2):
        output.verbose = verbose
        _say_found(output, found)
        errors, warnings = [["c.py", "d.py"], ["a.py", "b.py"]] if verbose else [
            ["2 files (c.py, d.py)"], ["2 files (a.py, b.py)"],
        ]  # fmt: skip
        said = [f"romfsfs: warning: {{}}{name}: is old" for name in warnings]
        assert capsys.readouterr().err.splitlines() == [
            *(f"romfsfs: error: {name}: is bad" for name in errors),
            *(line.format("") for line in said),
        ]
        say_warnings(output, found, "x.img: ")
        assert capsys.readouterr().err.splitlines() == [line.format("x.img: ") for line in said]
    output.as_json = True
    _say_found(output, found)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("ask", [True, False])
def test_what_is_known_of_a_camera(monkeypatch: pytest.MonkeyPatch, ask: bool) -> None:
    """By USB, and asked itself; one that cannot be opened is listed too."""
    info = DeviceInfo(
        "serial", "K", "N", "OPENMV4P", mpy_version=(6, 3), march="armv7emdp", firmware="4.8.1",
        notes=("mind it",),
    )  # fmt: skip
    part = PartitionState(0, 8 << 20, 4096, "image", 500)

    def inspect(port: str) -> Any:
        if port == "/dev/b":
            raise DeviceBusy("in use", where=port, next_step="end it")
        return (info if port == "/dev/a" else replace(info, mpy_version=None)), (part,)

    monkeypatch.setattr("romfsfs.devices.open.inspect", inspect)
    unknown = dict.fromkeys(("board", "firmware", "bytecode", "architecture", "error"))
    unknown |= {"partitions": [], "slots": [], "notes": [], "kind": "serial"}
    known = {"board": "OPENMV4P", "firmware": "4.8.1", "bytecode": "6.3", "notes": ["mind it"],
             "architecture": "armv7emdp", "partitions": [asdict(part)]}  # fmt: skip
    for port, found, said in (
        (CameraPort("/dev/a", 0x37C5, 0x124A, "77", ("OPENMV4P",)),
         {"usb": "37c5:124a", "serial_number": "77", "boards": ["OPENMV4P"]}, known),
        (CameraPort("/dev/b"), {"usb": None, "serial_number": None, "boards": []},
         {"error": "in use (/dev/b); end it"}),
        (CameraPort("/dev/c"), {"usb": None, "serial_number": None, "boards": []},
         {**known, "bytecode": None}),
    ):  # fmt: skip
        wanted = {**unknown, "port": port.port, **found, **(said if ask else {})}
        assert _camera_record(port, ask) == wanted
