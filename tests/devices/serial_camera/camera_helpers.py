"""Images for simulated cameras, and what a partition holds afterwards."""

from __future__ import annotations

import io
import random
from collections.abc import Callable

from romfsfs.devices.serial_camera.port import Port
from romfsfs.errors import ImageFormatError
from romfsfs.image.reader import read_image
from romfsfs.image.rules import DEFAULT_RULES
from romfsfs.image.writer import encode
from romfsfs.simulator import Simulator

KIB = 1024


def make_image(size: int, seed: int = 0) -> bytes:
    """An image of nearly `size` bytes: four files that no compression makes smaller."""
    source = random.Random(seed)
    files = {f"model{index}.bin": source.randbytes(size // 4 - 100) for index in range(4)}
    return encode(files, DEFAULT_RULES)


def edited(image: bytes, offset: int) -> bytes:
    """The image with 50 bytes of a file's content changed, as an edit of a script does."""
    return image[:offset] + b"#" * 50 + image[offset + 50 :]


def opened(image: bytes) -> io.BytesIO:
    return io.BytesIO(image)


def content(simulator: Simulator, partition: int = 0) -> bytes:
    return bytes(simulator.flash[partition].content)


def holds(simulator: Simulator, old: bytes, new: bytes, partition: int = 0) -> str:
    """'old', 'new', 'none', or 'mixture': something else that would mount."""
    there = content(simulator, partition)
    if there.startswith(old):
        return "old"
    if there.startswith(new):
        return "new"
    try:
        read_image(there)
    except ImageFormatError:
        return "none"
    return "mixture"


class Clock:
    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


class TalkingPort(Port):
    """answer: what it says to what is written, piece by piece; where it says nothing, whoever
    reads waits to his deadline."""

    def __init__(self, clock: Clock, answer: Callable[[bytes], bytes]) -> None:
        self.name = "ttyX"
        self.sent = 0
        self._pending = bytearray()
        self._clock = clock
        self.answer = answer
        self.written: list[bytes] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written.append(bytes(data))
        self._pending += self.answer(bytes(data))

    def read_some(self, deadline: float) -> bytes:
        data = bytes(self._pending)
        self._pending.clear()
        if not data:
            self._clock.now = max(self._clock.now, deadline)
        return data

    def took(self) -> list[bytes]:
        written, self.written = self.written, []
        return written
