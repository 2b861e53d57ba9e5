"""Records what a simulated camera says to each thing the host writes: seeds of the camera target.

    python tests/fuzz/record_camera.py MICROPYTHON BOARD[:MISSING] ...

Writes `recorded/camera-BOARD`. A camera that only its driver's first questions are answered for is
never read or written; with a whole conversation to start from, fuzzing reaches what comes after.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import fuzz_camera

from romfsfs.devices.serial_camera import identity, port, probe, repl
from romfsfs.devices.serial_camera.camera import SerialCamera
from romfsfs.simulator import Simulator
from romfsfs.simulator.config import preset


class RecordingPort(port.Port):
    """Notes what arrived after each write."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.parts: list[bytearray] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        super().write(data)
        self.parts.append(bytearray())

    def read_some(self, deadline: float) -> bytes:
        seen_before = bool(self._pending)
        data = super().read_some(deadline)
        if not seen_before and self.parts:
            self.parts[-1] += data
        return data


def main(micropython: str, *boards: str) -> None:
    vars(repl)["secrets"] = SimpleNamespace(token_hex=lambda count: fuzz_camera.NONCE)
    for board in boards:
        name, _, missing = board.partition(":")
        config = preset(name, missing=tuple(filter(None, missing.split("+"))))
        with Simulator(config, micropython=micropython) as simulator:
            end = RecordingPort(simulator.port)
            client = repl.RawRepl(end)
            facts = probe.probe(client)
            found, notes = identity.find_board(facts, None)
            chosen = identity.choose_partition(end.name, facts, found, 0)
            device = SerialCamera(end, client, facts, found, chosen, notes)
            fuzz_camera.use(device)
            device.close()
        parts = [bytes(part) for part in end.parts]
        assert not any(fuzz_camera.DIVIDER in part for part in parts)
        place = Path(__file__).with_name("recorded") / f"camera-{board.replace(':', '-')}"
        place.write_bytes(b"\0" + fuzz_camera.DIVIDER.join(parts))


if __name__ == "__main__":
    main(*sys.argv[1:])
