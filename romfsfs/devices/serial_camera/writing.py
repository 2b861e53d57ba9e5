"""The host's side of the WRITE loop (`snippets.py`): frames out, every answer checked.

A few frames are on the way at once, so that the link works while the camera erases. What is lost
or garbled is sent again, a limited number of times.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from romfsfs.devices.serial_camera import frames, snippets
from romfsfs.devices.serial_camera.flash_plan import Operation
from romfsfs.devices.serial_camera.reading import ATTEMPTS, SILENCE, Window, bytes_lost
from romfsfs.devices.serial_camera.repl import ANSWER_LIMIT, RawRepl
from romfsfs.errors import DeviceAnswer, DeviceError, DeviceLost

_FRAMES_AHEAD = 4
#: seconds allowed for erasing 4 KiB: four times the typical 45 ms (docs/cameras.md, "Flash")
ERASE_SECONDS = 4 * 0.045
#: an erase above this many bytes is awaited before more is sent: its data would block the port
_LONG_ERASE = 65536
#: seconds within which the camera has answered every frame that is on the way, and falls silent
_LONGEST_BABBLE = 30.0
#: ioctl 5 is not implemented on stm32 and alif: EINVAL; EOPNOTSUPP elsewhere
_NO_FINISH = (-22, -95)

_Words = tuple[str, int, int]


@dataclass(slots=True)
class _Frame:
    number: int
    operation: Operation | None  # None: the finish frame
    data: bytes


class Writer:
    """The WRITE loop, running from `with` to its end: `run` carries operations out, in order.

    Several frames are on the way at once; every one is answered, and answers are checked.
    programmed: bytes so far.
    """

    def __init__(self, repl: RawRepl, window: Window, *, prefix: bool, advice: str) -> None:
        self._repl = repl
        self._advice = advice
        self._raw = window.raw
        self._start = window.start
        self.chunk = window.chunk
        self._erase = b"P" if prefix else b"E"
        self._code = snippets.write_loop(
            window.kind, window.partition, raw=window.raw, crc32=window.crc32, poll=window.poll,
            cached=window.cached, mram=window.mram,
        )  # fmt: skip
        self._number = 0
        self._sent: deque[_Frame] = deque()
        self._failures = 0
        self._done: Callable[[Operation], None] | None = None
        self.programmed = 0
        #: what the last erase answered: the minimum write size, 0 where it does not say
        self.erase_answer = 0

    def __enter__(self) -> Writer:
        self._repl.start_loop(self._code)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._repl.port.write(frames.frame(b"Q", 0, 0))
            self._repl.finish(ANSWER_LIMIT)
        elif not issubclass(kind, DeviceLost):
            self._repl.recover()

    def run(
        self, operations: Iterable[Operation], done: Callable[[Operation], None] | None = None
    ) -> None:
        """Carry out operations, then the finish call.

        DeviceAnswer, with the address, if the driver refuses one; DeviceLost if the camera falls
        silent or frames keep getting lost.
        """
        self._done = done
        for operation in operations:
            while len(self._sent) >= _FRAMES_AHEAD:
                self._await()
            self._queue(operation)
            if operation.kind == "erase" and operation.end - operation.start > _LONG_ERASE:
                while self._sent:
                    self._await()
        self._queue(None)
        while self._sent:
            self._await()

    def _queue(self, operation: Operation | None) -> None:
        number = self._number
        self._number = (number + 1) & 0xFFFF
        if operation is None:
            data = frames.frame(b"F", number, 0)
        elif operation.kind == "erase":
            length = operation.end - operation.start
            at = self._start + operation.start
            data = frames.frame(self._erase, number, at, length=length)
        else:
            at = self._start + operation.start
            data = frames.frame(b"W", number, at, operation.data, raw=self._raw)
        self._sent.append(_Frame(number, operation, data))
        self._repl.port.write(data)

    def _await(self) -> None:
        """Wait for the oldest frame's answer; send again what was lost. Errors as for `run`."""
        number = self._sent[0].number
        while self._sent and self._sent[0].number == number:
            frame = self._sent[0]
            words = self._answer(frame)
            if words and words[0] == "k" and words[1] == number:
                self._complete(words[2])
                return
            if words and words[0] == "e":
                self._check(frame, words[2])
            self._failures += 1
            if self._failures >= ATTEMPTS:
                raise bytes_lost(self._repl, _place(frame))
            self._resend(words)

    def _complete(self, answer: int) -> None:
        """Take note that the oldest frame was carried out. DeviceAnswer."""
        frame = self._sent.popleft()
        self._check(frame, answer)
        self._failures = 0
        operation = frame.operation
        if operation is None:
            return
        if operation.kind == "erase":
            self.erase_answer = answer
        else:
            self.programmed += operation.end - operation.start
        if self._done:
            self._done(operation)

    def _answer(self, frame: _Frame) -> _Words | None:
        """The next answer line; None if nothing that makes sense came in time. DeviceLost."""
        limit = SILENCE
        if frame.operation and frame.operation.kind == "erase":
            limit += (frame.operation.end - frame.operation.start) / 4096 * ERASE_SECONDS
        words = self._read_words(time.monotonic() + limit)
        if words and words[0] == "t":
            raise DeviceLost(
                "the camera waited too long for data and gave up",
                where=f"{self._repl.port.name}, {_place(frame)}",
                next_step="repeat the command; it continues where it stopped",
            )
        return words

    def _read_words(self, deadline: float) -> _Words | None:
        line = self._repl.port.read_until(b"\n", deadline)
        if b"\x04" in line:
            raise self._ended(line)
        words = line.split()
        try:
            numbers = [int(word) for word in (*words[1:], b"0", b"0")]
            return words[0].decode(), numbers[0], numbers[1]
        except (IndexError, ValueError):
            return None

    def _resend(self, words: _Words | None) -> None:
        """Make the camera drop half a frame, learn which one it expects, send again from there."""
        if words is None:
            self._repl.port.write(b"\n" * frames.LONGEST)
        expected = None
        end = time.monotonic() + _LONGEST_BABBLE
        # nothing is sent before the line is silent, or an old answer would be taken for a new one
        while True:
            if words and words[0] == "k" and self._sent and words[1] == self._sent[0].number:
                self._complete(words[2])
            elif words and words[0] == "e" and self._sent:
                self._check(self._sent[0], words[2])
            elif words and words[0] == "r":
                expected = words[1]
            words = self._read_words(time.monotonic() + 0.5)
            if words is None:
                break
            if time.monotonic() > end:
                raise bytes_lost(self._repl, "its answers do not end")
        ahead = [frame.number for frame in self._sent] + [self._number]
        if expected in ahead:  # those before it were carried out: only their answers got lost
            for _ in range(ahead.index(expected)):
                self._complete(0)
        for frame in self._sent:
            self._repl.port.write(frame.data)

    def _check(self, frame: _Frame, answer: int) -> None:
        """DeviceAnswer if the driver refused. Programming must answer 0, the others no error."""
        operation = frame.operation
        if operation is None:
            if answer < 0 and answer not in _NO_FINISH:
                raise self._refused("to finish writing", answer, "")
        elif operation.kind == "erase":
            if answer < 0:
                raise self._refused("to erase", answer, _place(frame))
        elif answer != 0:
            raise self._refused("to program", answer, _place(frame))

    def _refused(self, what: str, answer: int, where: str) -> DeviceAnswer:
        reason = os.strerror(-answer) if -4096 < answer < 0 else "an unknown answer"
        port = self._repl.port.name
        return DeviceAnswer(
            f"the camera refuses {what}: {reason} ({answer})",
            errno=max(0, -answer),
            where=f"{port}, {where}" if where else port,
            next_step=self._advice,
        )

    def _ended(self, line: bytes) -> DeviceError:
        """The error of a loop that ended by itself, mostly with an exception, which follows."""
        self._repl.port.unread(line[line.index(b"\x04") :])
        try:
            self._repl.finish(ANSWER_LIMIT)
        except DeviceError as error:
            return error
        return DeviceLost(
            "the camera ended the transfer",
            where=self._repl.port.name,
            next_step="repeat the command; it continues where it stopped",
        )


def _place(frame: _Frame) -> str:
    operation = frame.operation
    return f"{operation.start:#x}..{operation.end:#x}" if operation else "finish"
