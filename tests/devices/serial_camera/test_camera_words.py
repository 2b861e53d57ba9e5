"""What a camera says of itself, and lines that come together."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

from romfsfs.boards import get_board
from romfsfs.devices.serial_camera.identity import boot_loader, not_writable
from romfsfs.devices.serial_camera.port import Port
from romfsfs.devices.serial_camera.probe import CameraFacts, probe
from romfsfs.errors import DeviceAnswer


@pytest.mark.parametrize(
    ("openmv", "release", "shown"),
    [
        ("4.8.1", "1.26.0", "OpenMV 4.8.1, MicroPython 1.26.0"),
        ("", "1.26.0", "MicroPython 1.26.0"),
        ("4.8.1", "", "OpenMV 4.8.1"),
        ("", "", ""),
    ],
)
def test_the_firmware_is_shown_with_what_is_known_of_it(
    openmv: str, release: str, shown: str
) -> None:
    facts = CameraFacts(
        "OpenMV Cam", "", openmv, "", release, None, None, (), False, False, False, False, False
    )
    assert facts.firmware == shown


@pytest.mark.parametrize(
    ("partition", "known"),
    [
        (("m", 65536, 4096, b"\xff" * 16, 4096), True), (("none", 0, None, b"", 0), None),
        (("m", 0, 4096, b"", 0), False), (("m", -1, 4096, b"", 0), False),
        (("m", 1 << 40, 4096, b"", 0), False), (("m", 65536, 4096, None, 0), False),
        (("m", "x", 4096, b"", 0), False), (("m",), False),
    ],
)  # fmt: skip
def test_what_is_no_partition_is_no_answer(partition: tuple[Any, ...], known: bool | None) -> None:
    """Its size is what is read and erased: one that cannot be is not believed."""
    words = dict.fromkeys(["machine", "arch", "omv", "uid", "release"], "x")
    numbers = dict.fromkeys(["mpy", "heap", "stdin", "stdout", "sha256", "crc32", "poll"], 0)
    answer = {**words, **numbers, "here": [], "partitions": [partition]}
    port = SimpleNamespace(name="port")
    repl: Any = SimpleNamespace(
        run=lambda code: f"{answer}\n{answer}\n", soft_reset=lambda: None, port=port
    )
    if known is False:
        with pytest.raises(DeviceAnswer, match="does not answer as MicroPython does"):
            probe(repl)
    else:
        assert [each.size for each in probe(repl).partitions] == ([65536] if known else [])


@pytest.mark.parametrize(
    ("board", "way"), [("OPENMV_N6", "write with SOURCE dfu:OPENMV_N6, or "), (None, "")]
)
def test_the_way_past_firmware_that_cannot_write(board: str | None, way: str) -> None:
    loader = boot_loader(get_board(board) if board else None, 0)
    error = not_writable("ttyACM0", loader)
    assert error.next_step == f"nothing was changed; {way}update its firmware"


def test_lines_that_come_in_one_piece_are_read_one_by_one() -> None:
    """And in many: where a piece ends says nothing of the lines."""

    class Said(Port):
        def __init__(self, pieces: list[bytes]) -> None:
            self._pieces, self._pending = pieces, bytearray()

        def read_some(self, deadline: float) -> bytes:
            data = bytes(self._pending)
            self._pending.clear()
            return data or (self._pieces.pop(0) if self._pieces else b"")

    for pieces in ([b"one\ntwo\n\nthree\n"], [b"on", b"e\nt", b"wo\n\n", b"three\n"]):
        port = Said(pieces)
        lines = [port.read_until(b"\n", time.monotonic() + 30) for _ in range(4)]
        assert lines == [b"one\n", b"two\n", b"\n", b"three\n"]
