"""The simulated camera itself: power, the loop that moves bytes, and what tests turn and read.

One thread (`start`) or the caller's (`serve`) runs the camera; every other thread may use
`faults`, read `statistics` and `flash`, and call the methods of `Simulator`, which are carried
out by the camera's thread between two steps.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from romfsfs.devices.simulator import executor as ex
from romfsfs.devices.simulator.config import SimulatorConfig
from romfsfs.devices.simulator.executor import Executor, find_micropython
from romfsfs.devices.simulator.faults import (
    TO_CAMERA,
    TO_HOST,
    CameraStopped,
    Faults,
    Statistics,
)
from romfsfs.devices.simulator.flash import BLOCK_WRITE, WRITE, Flash, Operation
from romfsfs.devices.simulator.link import Line, Port
from romfsfs.devices.simulator.repl import Repl

log = logging.getLogger(__name__)

#: bytes that wait for the host before the camera's output blocks
TX_BUFFER = 16 * 1024
CALL_SECONDS = 30.0


class Simulator:
    """A camera on a pty; a context manager that powers it up and puts it away.

    config: what camera. link: path of the symbolic link to the port (None: one of its own).
    flash_file: keeps partition 0 from one run to the next (created, or used as it is).
    micropython: see `find_micropython`, which raises ToolMissing.
    """

    def __init__(
        self,
        config: SimulatorConfig,
        *,
        link: str | os.PathLike[str] | None = None,
        flash_file: str | os.PathLike[str] | None = None,
        micropython: str | os.PathLike[str] | None = None,
    ) -> None:
        self.config = config
        self._micropython = find_micropython(micropython)
        self.statistics = Statistics()
        self.faults = Faults(self.statistics)
        self.flash = Flash(config, self.faults, self.statistics, flash_file)
        self._folder = tempfile.TemporaryDirectory(prefix="romfsfs-camera-")
        self._port = Port(link if link is not None else Path(self._folder.name, "camera"))
        self._repl = Repl(config, self._write, self._execute, self._soft_reset)
        self._executor: Executor | None = None
        self._in = Line(config.rate, config.latency)
        self._out = Line(config.rate, config.latency)
        self._rx = bytearray()  # arrived at the camera, read by nobody yet
        self._tx = bytearray()  # written by the camera, not yet on the wire
        self._to_pty = b""
        self._operation: tuple[Operation, int, float] | None = None
        self._interrupt_later = False
        self._silent = False
        self._power_on_at: float | None = None
        self._calls: list[Callable[[], None]] = []
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        self._closing = False
        self._thread: threading.Thread | None = None

    # ---- for every thread

    @property
    def port(self) -> str:
        """The path that the host opens; stays the same when the camera is plugged in again."""
        return self._port.link

    @property
    def plugged(self) -> bool:
        """Is there a port now?"""
        return self._port.is_open

    def start(self) -> Simulator:
        """Power up and run the camera in a thread of its own; returns when the port is there."""
        self._power_on()
        self._thread = threading.Thread(target=self._serve, name="simulated camera", daemon=True)
        self._thread.start()
        return self

    def serve(self) -> None:
        """Power up and run the camera in this thread until `close` or KeyboardInterrupt."""
        self._power_on()
        self._serve()

    def close(self) -> None:
        """Power off and free everything; `flash` can no longer be read. May be called twice."""
        self._closing = True
        self._wake()
        if self._thread is not None:
            self._thread.join(CALL_SECONDS)
        self._power_off()
        if self._wake_write >= 0:
            os.close(self._wake_read)
            os.close(self._wake_write)
            self._wake_read = self._wake_write = -1
            self.flash.close()
            self._folder.cleanup()

    def __enter__(self) -> Simulator:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def unplug(self) -> None:
        """Take the camera's cable away: power and port go at once."""
        self._call(self._power_off)

    def replug(self) -> None:
        """Plug the camera in (again): it boots with the flash as it is."""
        self._call(self._power_cycle)

    def silence(self, silent: bool = True) -> None:
        """The port stays, the camera no longer listens nor says anything (until `replug`)."""

        def change() -> None:
            self._silent = silent

        self._call(change)

    def _call(self, function: Callable[[], None]) -> None:
        if self._thread is None or threading.current_thread() is self._thread:
            function()
            return
        done = threading.Event()

        def run() -> None:
            function()
            done.set()

        self._calls.append(run)
        self._wake()
        if not done.wait(CALL_SECONDS):
            raise TimeoutError("the simulated camera does not react")

    def _wake(self) -> None:
        if self._wake_write >= 0:
            os.write(self._wake_write, b"!")

    # ---- power

    def _power_cycle(self) -> None:
        self._power_off()
        self._power_on()

    def _power_on(self) -> None:
        self.statistics.power_ups += 1
        self._power_on_at = None
        self._silent = False
        self._executor = self._new_executor()
        self._port.open()
        self._repl.busy = False
        self._repl.boot(power_up=True)

    def _power_off(self) -> None:
        if self._executor is not None:
            self._executor.stop()
        self._executor = None
        self._port.close()
        self._operation = None
        self._interrupt_later = False
        self._in.clear()
        self._out.clear()
        self._rx.clear()
        self._tx.clear()
        self._to_pty = b""

    def _new_executor(self) -> Executor:
        executor = Executor(self.config, self.flash, self._micropython)
        executor.handle = self._frame
        return executor

    def _soft_reset(self) -> None:
        self.statistics.soft_resets += 1
        self._write(b"MPY: soft reboot\r\n")
        if self._executor is not None:
            self._executor.stop()
        self._executor = self._new_executor()
        self._repl.boot(power_up=False)

    # ---- the loop

    def _serve(self) -> None:
        while not self._closing:
            try:
                self._step(time.monotonic())
            except CameraStopped:
                log.info("%s: the power went", self.config.board)
                self._power_off()
            self._wait()

    def _step(self, now: float) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_read, 4096)
        while self._calls:
            self._calls.pop(0)()
        if self._power_on_at is not None and now >= self._power_on_at:
            self._power_on()
        if not self._port.is_open:
            return
        self._receive(now)
        if self._silent:
            self._rx.clear()
            return
        self._check_executor()
        self._run_operation(now)
        self._consume()
        self._check_executor()
        self._send(now)

    def _receive(self, now: float) -> None:
        if self._in.size < self._in_limit:
            data = self._port.read()
            if data and not self._port.speaks_ide_protocol:
                self._in.push(self.faults.wire(TO_CAMERA, data), now)
        self._rx += self._in.pop(now)
        if self.faults.cut_now():
            raise CameraStopped

    def _send(self, now: float) -> None:
        executor = self._executor
        if executor is not None and len(self._tx) < TX_BUFFER:
            self._tx += executor.read_some()
        if self._tx and self._out.size < self._in_limit:
            self._out.push(self.faults.wire(TO_HOST, bytes(self._tx)), now)
            self._tx.clear()
        self._to_pty += self._out.pop(now)
        if self._to_pty:
            self._to_pty = self._to_pty[self._port.write(self._to_pty) :]
        if self.faults.cut_now():
            raise CameraStopped

    @property
    def _in_limit(self) -> float:
        """Bytes under way that keep a link of this rate and latency full."""
        rate = self.config.rate
        window = rate * (self.config.latency + 0.02) if rate else 0.0
        return max(window, float(self.config.rx_buffer))

    def _consume(self) -> None:
        """Let the snippet, or else the REPL, have what arrived."""
        while self._rx:
            executor = self._executor
            if executor is None:
                return
            if not executor.running:
                self._repl.process(self._rx)
                continue
            end = self._rx.find(executor.interrupt_char) if executor.interrupt_char >= 0 else -1
            wanted = len(self._rx) if end < 0 else end
            taken = executor.feed(bytes(self._rx[:wanted])) if wanted else 0
            del self._rx[:taken]
            if taken < wanted:
                return  # nobody reads: neither does the Ctrl-C behind it get through
            if end >= 0:
                del self._rx[:1]
                self._interrupt()

    def _interrupt(self) -> None:
        self.statistics.interrupts += 1
        if self._operation is not None:
            self._interrupt_later = True  # the firmware does not leave a flash operation halfway
        elif self._executor is not None:
            self._executor.interrupt()

    def _check_executor(self) -> None:
        executor = self._executor
        if executor is not None and not executor.poll() and executor is self._executor:
            log.info("%s hangs: MicroPython ended (%s)", self.config.board, executor.exit_code)
            self._silent = True

    def _wait(self) -> None:
        now = time.monotonic()
        poll = select.poll()
        poll.register(self._wake_read, select.POLLIN)
        dues = [self._power_on_at]
        executor = self._executor
        if self._port.is_open and self._in.size < self._in_limit and len(self._rx) < TX_BUFFER:
            poll.register(self._port.fd, select.POLLIN | (select.POLLOUT if self._to_pty else 0))
        elif self._port.is_open and self._to_pty:
            poll.register(self._port.fd, select.POLLOUT)
        if executor is not None and not self._silent:
            executor.register(poll, output=len(self._tx) < TX_BUFFER, input=bool(self._rx))
            dues += [self._in.due, self._out.due]
            dues.append(self._operation[2] if self._operation else None)
        due = min((due for due in dues if due is not None), default=None)
        # poll rounds down to whole milliseconds; the next round sees what is due by then
        poll.poll(None if due is None else max(0.0, due - now) * 1000)

    # ---- what the REPL and the snippets ask for

    def _write(self, data: bytes) -> None:
        self._tx += data

    def _execute(self, source: bytes, kind: int) -> None:
        self.statistics.execs += 1
        if self._executor is not None:
            self._executor.run(source, kind)

    def _frame(self, frame: tuple[int, ...]) -> None:
        executor = self._executor
        if executor is None:
            return
        kind, number = frame[:2]
        if kind == ex.DONE:
            self._tx += executor.read_output()
            self._rx[:0] = executor.leftover()
            error = executor.scratch(frame[3]).replace(b"\n", b"\r\n")
            self._interrupt_later = False
            self._repl.finished(frame[2], error)
        elif kind == ex.KBD_INTR:
            executor.interrupt_char = frame[2]
            executor.answer(number, 0)
        elif kind == ex.RESET:
            self._power_off()
            if frame[2] == 0:
                self._power_on_at = time.monotonic() + self.config.reset_seconds
        elif kind == ex.IOCTL:
            _, _, command, index, counts, *numbers = frame
            size = counts >> 2
            data = executor.scratch(size) if command in (WRITE, BLOCK_WRITE) else b""
            arguments = tuple(numbers[: counts & 3])
            operation = self.flash.ioctl(command, index, arguments, data)
            self._operation = (operation, number, time.monotonic())
            self._run_operation(time.monotonic())

    def _run_operation(self, now: float) -> None:
        """Go on with what the flash is busy with, as far as time has come."""
        while self._operation is not None and self._operation[2] <= now:
            operation, number, due = self._operation
            try:
                self._operation = (operation, number, due + next(operation))
            except StopIteration as end:
                self._operation = None
                if self._executor is not None:
                    self._executor.answer(number, end.value)
                if self._interrupt_later:
                    self._interrupt_later = False
                    self._interrupt()
