"""A port on which anything may come, and the fuzz targets that talk over it.

The camera is the input: its parts, divided by 0xFD, are released one for each thing the host
writes. Its first byte says what comes after the last: silence, the same again for ever, or a
cable pulled. No time passes but the clock's here, so that every limit is reached at once.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

from romfsfs.devices.serial_camera import camera as camera_module
from romfsfs.devices.serial_camera import identity, port, probe, reading, repl, writing
from romfsfs.devices.serial_camera.camera import SerialCamera
from romfsfs.devices.serial_camera.flash_plan import Operation
from romfsfs.errors import (
    CapacityError,
    DeviceError,
    DeviceLost,
    ImageFormatError,
    RomfsError,
    UsageError,
    VerifyError,
)
from romfsfs.image.writer import encode

DIVIDER = b"\xfd"
#: What nothing here may take, in the clock's seconds and in bytes: the longest answer is allowed
#: half an hour (`repl.LONGEST_ANSWER`), and a command asks a few dozen times.
MOST_SECONDS = 200_000.0
MOST_CALLS = 400_000
NONCE = "00000000"
#: Without the divider, so that a camera may say it.
IMAGE = encode({"main.py": b"print(1)\n", "data.bin": bytes(range(253)) * 20})


class Clock:
    """`time` for the modules under test."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class FuzzPort(port.Port):
    """A port whose other end is the input."""

    def __init__(self, data: bytes, clock: Clock) -> None:
        self.name = "fuzz"
        self.sent = 0
        self.received = 0
        self._pending = bytearray()
        self._serial = SimpleNamespace(close=lambda: None)
        self._clock = clock
        self._mode = data[0] % 3 if data else 0
        self._parts = data[1:].split(DIVIDER)
        self._next = 0
        self._ready = bytearray()
        self._calls = 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._count()
        self.sent += len(data)
        if self._next < len(self._parts):
            self._ready += self._parts[self._next]
            self._next += 1

    def read_some(self, deadline: float) -> bytes:
        self._count()
        if self._pending:
            data = bytes(self._pending)
            self._pending.clear()
            return data
        if self._clock.now >= deadline:
            return b""
        if not self._ready and self._next >= len(self._parts):
            if self._mode == 2:
                raise DeviceLost("the cable is pulled")
            if self._mode == 1:
                self._ready += self._parts[-1]
        if not self._ready:
            self._clock.now = max(self._clock.now, deadline)
            return b""
        data = bytes(self._ready[:512])
        del self._ready[:512]
        self._clock.now += 0.05 if self._mode == 1 else 0.001
        self.received += len(data)
        return data

    def _count(self) -> None:
        self._calls += 1
        assert self._calls < MOST_CALLS, "it does not end"
        assert self._clock.now < MOST_SECONDS, "it takes too long"


@contextlib.contextmanager
def fuzz_port(data: bytes) -> Iterator[FuzzPort]:
    clock = Clock()
    modules: list[Any] = [port, repl, reading, writing, camera_module]
    saved = [module.time for module in modules]
    secrets = repl.secrets
    vars(repl)["secrets"] = SimpleNamespace(token_hex=lambda count: NONCE)
    try:
        for module in modules:
            module.time = clock
        yield FuzzPort(data, clock)
    finally:
        vars(repl)["secrets"] = secrets
        for module, time in zip(modules, saved, strict=True):
            module.time = time


def entering() -> list[bytes]:
    """What a camera says to each write while the raw REPL is entered."""
    return [b"", repl._PROMPT, f"ro{NONCE}\r\n\x04\x04>".encode()]


def running(output: bytes, error: bytes = b"") -> list[bytes]:
    """And to code sent by raw paste: its window, room for more, what it printed.

    Code of up to 64 KiB goes out in one piece, then its end."""
    return [b"R\x01\xff\xff", b"", b"\x04" + output + b"\x04" + error + b"\x04>"]


def raw_repl(data: bytes) -> None:
    """Every way the raw REPL is used."""
    for use in (_run, _reset, _restart, _lines):
        with fuzz_port(data) as end, contextlib.suppress(DeviceError):
            use(repl.RawRepl(end))


def _run(client: repl.RawRepl) -> None:
    text = client.run("print(1)")
    assert len(text) <= repl.MOST_OUTPUT
    client.run("print(2)")
    client.leave()


def _reset(client: repl.RawRepl) -> None:
    client.soft_reset()
    client.start_and_forget("machine.bootloader()")
    client.recover()


def _restart(client: repl.RawRepl) -> None:
    client.restart()


def _lines(client: repl.RawRepl) -> None:
    client.start_loop("print('go')")
    client.finish(2.0)


def transfers(data: bytes) -> None:
    """The loops that read and write flash, whatever the camera answers."""
    raw = bool(data and data[0] & 0x10)
    window = reading.Window("memory", 0, raw, bool(data and data[0] & 0x20), False)

    def read(client: repl.RawRepl) -> None:
        out = io.BytesIO()
        came = reading.read_range(client, window, 0, 9000, out, lambda done: None)
        assert len(out.getvalue()) == came <= 9000

    def write(client: repl.RawRepl) -> None:
        with writing.Writer(client, window, prefix=False, advice="repeat it") as writer:
            writer.run([
                Operation("erase", 0, 4096),
                Operation("program", 0, 1024, bytes(1024)),
                Operation("program", 1024, 2048, bytes(1024)),
            ])  # fmt: skip

    uses: tuple[Callable[[repl.RawRepl], None], ...] = (read, write)
    for use in uses:
        with fuzz_port(data) as end, contextlib.suppress(DeviceError):
            use(repl.RawRepl(end))


def camera(data: bytes) -> None:
    """A whole camera: identified, read, written."""
    with fuzz_port(data) as end:
        try:
            client = repl.RawRepl(end)
            facts = probe.probe(client)
            board, notes = identity.find_board(facts, None)
            chosen = identity.choose_partition(end.name, facts, board, 0)
            device = SerialCamera(end, client, facts, board, chosen, notes)
            use(device)
            device.close()
        except (DeviceError, UsageError):
            pass


def use(device: SerialCamera) -> None:
    """Looked at, read, written; read and found to hold what is to be written."""
    device.info()
    device.partitions()
    for each in (_read_camera, _write_camera, _read_camera, _write_camera):
        with contextlib.suppress(DeviceError, ImageFormatError, CapacityError, VerifyError):
            each(device)


def _read_camera(device: SerialCamera) -> None:
    out = io.BytesIO()
    size = device.read_image(out)
    assert len(out.getvalue()) == size
    device.digest(size)


def _write_camera(device: SerialCamera) -> None:
    report = device.write_image(io.BytesIO(IMAGE))
    assert report.verified


def facts(data: bytes) -> None:
    """Only what the camera says of itself."""
    text = data.decode("utf-8", "replace").rstrip("\r\n")
    answer = SimpleNamespace(
        run=lambda code: f"{text}\n{text}\n",
        soft_reset=lambda: None,
        port=SimpleNamespace(name="fuzz"),
    )
    try:
        found = probe.probe(answer)  # type: ignore[arg-type]
        board, notes = identity.find_board(found, None)
        chosen = identity.choose_partition("fuzz", found, board, 0)
        flash = identity.geometry(chosen, board, found.machine)
        identity.describe("fuzz", found, board, chosen, flash, notes)
        for part in found.partitions:
            identity.partition_state(part, board)
    except RomfsError:
        pass
