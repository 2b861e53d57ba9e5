"""`cameras`: what is said of each, the whole of it."""

from __future__ import annotations

from typing import Any

import pytest

from romfsfs.cli.machines import _camera_text

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
        (DFU, ["OPENMV4: in DFU mode; dfu:OPENMV4@1-2"]),
        ({**DFU, "path": ""}, ["OPENMV4: in DFU mode; dfu:OPENMV4"]),
        ({**DFU, "error": "no access"}, ["OPENMV4: in DFU mode; no access"]),
    ],
)  # fmt: skip
def test_what_is_said_of_a_camera(record: dict[str, Any], said: list[str]) -> None:
    assert _camera_text(record) == "".join(f"{line}\n" for line in said)
