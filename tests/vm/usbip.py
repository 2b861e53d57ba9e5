"""USB devices without hardware: a socket that Linux's vhci_hcd takes for one (USB/IP).

`attach` hands one end of a socket pair to the kernel; a thread answers its packets at the other.
Closing it is a pulled cable. Only the transfers that the cameras of these tests need are known:
control, bulk and interrupt. Facts: docs/cameras.md, "Emulated USB devices (virtual machine tests)".
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

VHCI = Path("/sys/devices/platform/vhci_hcd.0")
SUBMIT, UNLINK, RET_SUBMIT, RET_UNLINK = 1, 2, 3, 4
HEADER = struct.Struct(">IIIII")
PACKET = 48
EPIPE, ECONNRESET = 32, 104
#: `speed` of vhci_hcd's attach file: a full-speed device
FULL_SPEED = 2
STANDARD, CLASS, DEVICE_IN = 0x00, 0x20, 0x80


class Stall(Exception):
    """The request is none that the device knows."""


@dataclass(frozen=True, slots=True)
class Setup:
    """The eight bytes of a control transfer."""

    type: int
    request: int
    value: int
    index: int
    length: int


@dataclass(slots=True)
class Descriptors:
    """What a device says of itself. strings: by their numbers, from 1."""

    vid: int
    pid: int
    configuration: bytes
    strings: list[str]
    device_class: tuple[int, int, int] = (0, 0, 0)
    version: int = 0x0200
    serial_index: int = 3

    def get(self, kind: int, index: int) -> bytes:
        if kind == 1:
            return struct.pack(
                "<BBHBBBBHHHBBBB", 18, 1, 0x0200, *self.device_class, 64, self.vid, self.pid,
                self.version, 1, 2, self.serial_index, 1,
            )  # fmt: skip
        if kind == 2:
            return self.configuration
        if kind == 3 and index == 0:
            return bytes([4, 3, 9, 4])
        if kind == 3 and index <= len(self.strings):
            text = self.strings[index - 1].encode("utf-16-le")
            return bytes([len(text) + 2, 3]) + text
        raise Stall


def configuration(interfaces: bytes, count: int) -> bytes:
    return struct.pack("<BBHBBBBB", 9, 2, 9 + len(interfaces), count, 1, 0, 0x80, 250) + interfaces


def _write(path: Path, line: str) -> None:
    """To the driver, which is busy for as long as it takes the port's last device away."""
    end = time.monotonic() + 30
    while True:
        try:
            path.write_text(line)
            return
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > end:
                raise
        time.sleep(0.05)


@dataclass(slots=True)
class Urb:
    """A transfer that the kernel waits for."""

    number: int
    length: int
    data: bytes = b""


@dataclass
class UsbDevice:
    """A device on the bus, from `attach` until it leaves or its cable is pulled.

    A subclass answers `control`, and may use `outputs` and `inputs`, the queues of an endpoint.
    `watched` are descriptors that `ready` is called for. Everything runs in the device's thread.
    """

    descriptors: Descriptors
    port: int = -1
    outputs: dict[int, deque[Urb]] = field(default_factory=dict)
    inputs: dict[int, deque[Urb]] = field(default_factory=dict)
    leaving: bool = False

    def control(self, setup: Setup, data: bytes) -> bytes:
        """The answer to a class request. Stall."""
        raise Stall

    def set_interface(self, interface: int, setting: int) -> None: ...

    def watched(self) -> list[int]:
        return []

    def blocked(self) -> list[int]:
        """Descriptors that are waited for to be written to."""
        return []

    def ready(self) -> None:
        """Move what can be moved: a URB came, or a descriptor can be used."""

    def gone(self) -> None:
        """The device is off the bus."""

    # ---- the bus

    def attach(self, port: int) -> None:
        mine, kernels = socket.socketpair()
        self.port = port
        self._socket = mine
        self._wake_read, self._wake = os.pipe()
        self._thread = threading.Thread(target=self._serve, name=f"usb {port}", daemon=True)
        with kernels:
            _write(VHCI / "attach", f"{port} {kernels.fileno()} {port + 1} {FULL_SPEED}")
        self._thread.start()

    def pull(self) -> None:
        """Take the cable away, whatever is on the way."""
        self.leaving = True
        os.write(self._wake, b"!")
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(30)

    def _serve(self) -> None:
        try:
            while not self.leaving:
                wanted = [self._socket, self._wake_read, *self.watched()]
                found, _, _ = select.select(wanted, self.blocked(), [], 0.2)
                if self._wake_read in found:
                    break
                if self._socket in found:
                    self._packet()
                self.ready()
        except (ConnectionError, EOFError):
            pass
        finally:
            self._socket.close()
            self.gone()

    def _read(self, count: int) -> bytes:
        data = bytearray()
        while len(data) < count:
            piece = self._socket.recv(count - len(data))
            if not piece:
                raise EOFError
            data += piece
        return bytes(data)

    def _packet(self) -> None:
        head = self._read(PACKET)
        command, number, _, to_host, endpoint = HEADER.unpack_from(head)
        if command == UNLINK:
            self._unlink(number, struct.unpack_from(">I", head, 20)[0])
            return
        length = struct.unpack_from(">I", head, 24)[0]
        data = b"" if to_host else self._read(length)
        if endpoint:
            queues = self.inputs if to_host else self.outputs
            queues.setdefault(endpoint, deque()).append(Urb(number, length, data))
            return
        setup = Setup(*struct.unpack_from("<BBHHH", head, 40))
        try:
            answer = self._control(setup, data)
        except Stall:
            self.answer(number, b"", status=-EPIPE)
            return
        self.answer(number, answer[:length] if to_host else b"", taken=len(data))

    def _control(self, setup: Setup, data: bytes) -> bytes:
        if setup.type & 0x60 == CLASS:
            return self.control(setup, data)
        if setup.request == 6:
            return self.descriptors.get(setup.value >> 8, setup.value & 0xFF)
        if setup.request == 0:
            return b"\0\0"
        if setup.request == 11:
            self.set_interface(setup.index, setup.value)
        elif setup.request not in (1, 3, 9):
            raise Stall
        return b""

    def _unlink(self, number: int, wanted: int) -> None:
        """-ECONNRESET where it was still queued."""
        found = 0
        for queue in (*self.inputs.values(), *self.outputs.values()):
            for urb in [urb for urb in queue if urb.number == wanted]:
                queue.remove(urb)
                found = -ECONNRESET
        self._socket.sendall(HEADER.pack(RET_UNLINK, number, 0, 0, 0) + struct.pack(">i24x", found))

    def answer(self, number: int, data: bytes, status: int = 0, taken: int = 0) -> None:
        """End a transfer. taken: bytes of an OUT transfer that arrived."""
        sizes = struct.pack(">iIIII8x", status, len(data) or taken, 0, 0, 0)
        self._socket.sendall(HEADER.pack(RET_SUBMIT, number, 0, 0, 0) + sizes + data)
