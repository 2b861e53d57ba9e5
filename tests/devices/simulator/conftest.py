"""A host at the other end of the simulated camera's cable: the raw REPL with a time limit."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import serial

from romfsfs.simulator import Simulator, preset

RAW_PROMPT = b"raw REPL; CTRL-B to exit\r\n>"


class Host:
    """Types at a camera's port; every wait ends within `timeout` seconds, as a failure."""

    def __init__(self, port: str, timeout: float = 60.0, baudrate: int = 115200) -> None:
        self.serial = serial.Serial(port, baudrate, timeout=timeout)

    def send(self, data: bytes) -> None:
        self.serial.write(data)

    def read(self, count: int) -> bytes:
        data = self.serial.read(count)
        assert len(data) == count, f"{count} bytes expected, {data!r} arrived"
        return data

    def until(self, end: bytes) -> bytes:
        data = self.serial.read_until(end)
        assert data.endswith(end), f"{end!r} expected, {data!r} arrived"
        return data

    def quiet(self, seconds: float) -> bool:
        self.serial.timeout, before = seconds, self.serial.timeout
        try:
            return self.serial.read(1) == b""
        finally:
            self.serial.timeout = before

    def enter_raw(self) -> None:
        self.send(b"\r\x03\r\x01")
        self.until(RAW_PROMPT)

    def begin(self, code: str) -> None:
        self.send(code.encode() + b"\x04")
        assert self.read(2) == b"OK"

    def leave(self, code: str) -> None:
        """Start a snippet that takes the port away: what the camera still says may be lost."""
        self.send(code.encode() + b"\x04")

    def finish(self) -> tuple[bytes, bytes]:
        output = self.until(b"\x04")[:-1]
        error = self.until(b"\x04")[:-1]
        assert self.read(1) == b">"
        return output, error

    def run(self, code: str) -> bytes:
        """Run a snippet that must not fail; its output."""
        self.begin(code)
        output, error = self.finish()
        assert error == b"", error.decode()
        return output

    def value(self, expression: str) -> Any:
        return eval(self.run(f"print(repr(({expression})))"))


@pytest.fixture
def camera(micropython: Path) -> Iterator[Callable[..., Simulator]]:
    """`camera("OPENMV4P", **changes)`: a running camera, put away when the test ends."""
    with contextlib.ExitStack() as stack:

        def make(board: str = "OPENMV4P", *, link: Path | None = None, **changes: Any) -> Simulator:
            simulator = Simulator(preset(board, **changes), link=link, micropython=micropython)
            return stack.enter_context(simulator)

        yield make


@pytest.fixture
def connect() -> Iterator[Callable[..., Host]]:
    """`connect(camera)`: a host in the raw REPL; `raw=False`: as it finds the camera."""
    with contextlib.ExitStack() as stack:

        def make(simulator: Simulator, *, raw: bool = True, **options: Any) -> Host:
            host = Host(simulator.port, **options)
            stack.callback(host.serial.close)
            if raw:
                host.enter_raw()
            return host

        yield make
