"""A camera's serial port on USB (CDC-ACM) in front of the pty of a simulated camera."""

from __future__ import annotations

import os
import struct
import termios
import tty
from collections import deque
from collections.abc import Callable

from usbip import Descriptors, Setup, Stall, UsbDevice, configuration

SET_LINE_CODING, GET_LINE_CODING, SET_CONTROL_LINE_STATE, SEND_BREAK = 0x20, 0x21, 0x22, 0x23
NOTIFY, OUT, IN = 1, 2, 2
DTR = 1
#: opened at this rate and closed again, Arduino's boards go to their loader
TOUCH = 1200
_SPEEDS = {921600: termios.B921600}

_INTERFACES = b"".join([
    bytes([8, 11, 0, 2, 2, 2, 0, 0]),  # interface association
    bytes([9, 4, 0, 0, 1, 2, 2, 0, 4]),
    bytes([5, 0x24, 0, 0x10, 1, 5, 0x24, 1, 0, 1, 4, 0x24, 2, 2, 5, 0x24, 6, 0, 1]),
    struct.pack("<BBBBHB", 7, 5, 0x80 | NOTIFY, 3, 8, 16),
    bytes([9, 4, 1, 0, 2, 10, 0, 0, 0]),
    struct.pack("<BBBBHB", 7, 5, OUT, 2, 64, 0),
    struct.pack("<BBBBHB", 7, 5, 0x80 | IN, 2, 64, 0),
])  # fmt: skip


class SerialDevice(UsbDevice):
    """pty: the simulated camera's port. An OUT transfer is answered when all of it was taken:
    that is the back-pressure. While DTR is off, output is thrown away. touched: see TOUCH."""

    def __init__(
        self, vid: int, pid: int, serial: str, pty: str, touched: Callable[[], None]
    ) -> None:
        strings = ["OpenMV", "OpenMV Camera", serial, "CDC"]
        description = configuration(_INTERFACES, 2)
        super().__init__(Descriptors(vid, pid, description, strings, (0xEF, 2, 1)))
        self._fd = os.open(pty, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        tty.setraw(self._fd)
        self._coding = struct.pack("<IBBB", 115200, 0, 0, 8)
        self._dtr = False
        self._touched = touched

    def control(self, setup: Setup, data: bytes) -> bytes:
        if setup.request == SET_LINE_CODING:
            self._coding = data
            self._set_speed(struct.unpack_from("<I", data)[0])
        elif setup.request == GET_LINE_CODING:
            return self._coding
        elif setup.request == SET_CONTROL_LINE_STATE:
            self._dtr = bool(setup.value & DTR)
            if not self._dtr and struct.unpack_from("<I", self._coding)[0] == TOUCH:
                self._touched()
        elif setup.request != SEND_BREAK:
            raise Stall
        return b""

    def _set_speed(self, rate: int) -> None:
        modes = termios.tcgetattr(self._fd)
        modes[4] = modes[5] = _SPEEDS.get(rate, termios.B115200)
        termios.tcsetattr(self._fd, termios.TCSANOW, modes)

    def watched(self) -> list[int]:
        return [self._fd] if self._waiting(self.inputs, IN) or not self._dtr else []

    def blocked(self) -> list[int]:
        return [self._fd] if self._waiting(self.outputs, OUT) else []

    @staticmethod
    def _waiting(queues: dict[int, deque], endpoint: int) -> deque:
        return queues.setdefault(endpoint, deque())

    def ready(self) -> None:
        self._send()
        self._receive()

    def _send(self) -> None:
        queue = self._waiting(self.outputs, OUT)
        while queue:
            urb = queue[0]
            try:
                written = os.write(self._fd, urb.data) if urb.data else 0
            except BlockingIOError:
                return
            except OSError as error:
                raise ConnectionError from error
            urb.data = urb.data[written:]
            if urb.data:
                return
            queue.popleft()
            self.answer(urb.number, b"", taken=urb.length)

    def _receive(self) -> None:
        queue = self._waiting(self.inputs, IN)
        while queue or not self._dtr:
            try:
                data = os.read(self._fd, queue[0].length if queue and self._dtr else 4096)
            except BlockingIOError:
                return
            except OSError as error:
                raise ConnectionError from error
            if not data:
                raise ConnectionError
            if self._dtr:
                self.answer(queue.popleft().number, data)

    def gone(self) -> None:
        os.close(self._fd)
