"""The simulated camera itself: its power, its link, and what its snippets ask for.

Everything here belongs to one thread, which calls `step` and `wait` in turn (`server.py`).
"""

from __future__ import annotations

import logging
import select
import signal
import time

from romfsfs.simulator import executor as ex
from romfsfs.simulator.config import SimulatorConfig
from romfsfs.simulator.executor import Executor
from romfsfs.simulator.faults import (
    TO_CAMERA,
    TO_HOST,
    CameraStopped,
    Faults,
    Statistics,
)
from romfsfs.simulator.flash import BLOCK_WRITE, WRITE, Flash, Operation
from romfsfs.simulator.link import Line, Port
from romfsfs.simulator.repl import Repl

log = logging.getLogger(__name__)

#: bytes that wait for the host before the camera's output blocks
TX_BUFFER = 16 * 1024
#: seconds until a write to a host that does not read is retried; Linux calls a full pty writable
STALL_SECONDS = 0.005
#: seconds after which output that the host does not take is dropped, and the script goes on
#: (micropython: shared/tinyusb/mp_usbd_cdc.c, MICROPY_HW_USB_CDC_TX_TIMEOUT)
GIVE_UP_SECONDS = 0.5
#: seconds between two interrupts of one snippet: each is a signal, and MicroPython may crash if
#: one arrives while it handles another
INTERRUPT_PAUSE = 0.02
#: seconds between looks at a full input ring: nothing signals that it was read from
RING_SECONDS = 0.02
#: bytes of a packet of a full-speed USB port
PACKET = 64
#: seconds; two Ctrl-C within this are one: the firmware notes that there was one, not how many
SAME_INTERRUPT = 0.002


class Camera:
    """One camera, off at first. micropython: the program that runs the snippets."""

    def __init__(
        self,
        config: SimulatorConfig,
        flash: Flash,
        faults: Faults,
        statistics: Statistics,
        port: Port,
        micropython: str,
    ) -> None:
        self.config = config
        self.flash = flash
        self.faults = faults
        self.statistics = statistics
        self.silent = False
        self._port = port
        self._micropython = micropython
        self._repl = Repl(config, self._write, self._execute, self._soft_reset)
        self._executor: Executor | None = None
        self._in = Line(config.rate, config.latency)
        self._out = Line(config.rate, config.latency)
        self._rx = bytearray()  # arrived at the camera, not read yet
        self._tx = bytearray()  # written by the camera, not yet on the wire
        self._to_pty = b""
        self._operation: tuple[Operation, int, float] | None = None
        self._stalled_until: float | None = None
        self._taken_at = 0.0  # when the host last took output, or none was waiting
        self._interrupted_at = 0.0
        self._interrupt_due: float | None = None
        self._power_on_at: float | None = None

    # ---- power

    def power_on(self) -> None:
        """Plug in (after unplugging, if need be): boots with the flash as it is."""
        self.power_off()
        self.statistics.power_ups += 1
        self._power_on_at = None
        self.silent = False
        self._executor = self._new_executor()
        self._port.open()
        self._repl.boot(power_up=True)

    def power_off(self) -> None:
        """Cut power and port at once, whatever the camera is doing. May be called twice."""
        if self._executor is not None:
            self._executor.stop()
        self._executor = None
        self._port.close()
        self._operation = None
        self._interrupt_due = None
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

    def step(self, now: float) -> None:
        """Do everything that can be done now without waiting."""
        try:
            self._step(now)
        except CameraStopped:
            log.info("%s: the power went", self.config.board)
            self.power_off()

    def _step(self, now: float) -> None:
        if self._power_on_at is not None and now >= self._power_on_at:
            self.power_on()
        if not self._port.is_open:
            return
        self._receive(now)
        if self.silent:
            self._rx.clear()
            return
        self._check_executor()
        self._run_operation(now)
        self._consume(now)
        self._interrupt(now)
        self._send(now)

    def _receive(self, now: float) -> None:
        if self._takes_input:
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
        if self._tx and self._has_output_room:
            self._out.push(self.faults.wire(TO_HOST, bytes(self._tx)), now)
            self._tx.clear()
        if not self._to_pty:
            self._taken_at = now
        self._to_pty += self._out.pop(now)
        if self._to_pty and self._port.speaks_ide_protocol:
            self._to_pty = b""  # nothing of the REPL in the other protocol
        self._stalled_until = None
        if self._to_pty:
            written = self._port.write(self._to_pty)
            self._to_pty = self._to_pty[written:]
            if written:
                self._taken_at = now
            else:
                self._stalled_until = now + STALL_SECONDS
                self._give_up(now)
        if self.faults.cut_now():
            raise CameraStopped

    def _give_up(self, now: float) -> None:
        """Drop the output beyond the port's buffer if the host took none for GIVE_UP_SECONDS."""
        if now - self._taken_at < GIVE_UP_SECONDS:
            return
        lost = bytes(self._tx) + (self._executor.read_output() if self._executor else b"")
        self.statistics.dropped_output += len(lost)
        self._tx.clear()
        self._taken_at = now

    @property
    def _takes_input(self) -> bool:
        return self._in.size < self._line_limit and len(self._rx) < self.config.rx_buffer

    @property
    def _has_output_room(self) -> bool:
        return self._out.size + len(self._to_pty) < self._line_limit

    @property
    def _line_limit(self) -> float:
        """Bytes in flight that keep a link of this rate and latency full."""
        rate = self.config.rate
        window = rate * (self.config.latency + 0.02) if rate else 0.0
        return max(window, float(self.config.rx_buffer))

    def _consume(self, now: float) -> None:
        """Pass input on to the running snippet, or else to the REPL."""
        while self._rx:
            executor = self._executor
            if executor is None:
                return
            if not executor.running:
                self._repl.process(self._rx)
                continue
            room = executor.room
            whole = self.config.usb == "stm32"
            if room < (PACKET + 1 if whole else 1):
                return  # the ring is full: a Ctrl-C in what follows is not seen either
            piece = bytes(self._rx[: PACKET if whole else room])
            del self._rx[: len(piece)]
            if executor.interrupt_char >= 0:
                mark = bytes([executor.interrupt_char])
                if mark in piece:
                    self._note_interrupt(now)
                if whole:
                    piece = piece.replace(mark, b"")
                elif mark in piece:
                    executor.leftover()  # the ring is emptied; what precedes the Ctrl-C is lost too
                    piece = piece[piece.rindex(mark) + 1 :]
            taken = executor.feed(piece) if piece else 0
            if taken < len(piece):
                self._rx[:0] = piece[taken:]
                return

    def _note_interrupt(self, now: float) -> None:
        self.statistics.interrupts += 1
        if now - self._interrupted_at > SAME_INTERRUPT:
            self._interrupt_due = max(now, self._interrupted_at + INTERRUPT_PAUSE)

    def _interrupt(self, now: float) -> None:
        """Interrupt the snippet if that is due; never in the middle of a flash operation."""
        if self._interrupt_due is None or self._operation is not None or self._executor is None:
            return
        if not self._executor.running:
            self._interrupt_due = None
        elif now >= self._interrupt_due:
            self._interrupted_at = now
            self._interrupt_due = None
            self._executor.interrupt()

    def _check_executor(self) -> None:
        executor = self._executor
        if executor is None or executor.poll() or executor is not self._executor:
            return
        log.warning("%s: MicroPython ended (%s)", self.config.board, executor.exit_code)
        if executor.interrupted and executor.exit_code == -signal.SIGSEGV:
            # A camera notes Ctrl-C and acts upon it between two bytecodes. MicroPython for Linux
            # raises KeyboardInterrupt in the signal handler, even in the middle of an allocation
            # (ports/unix/unix_mphal.c, MICROPY_ASYNC_KBD_INTR), and may crash then.
            self._operation = self._interrupt_due = None
            self._rx.clear()
            self._soft_reset()
        else:
            self.silent = True

    def wait(self, wake_fd: int) -> None:
        """Sleep until something can be done, or until wake_fd becomes readable."""
        now = time.monotonic()
        poll = select.poll()
        poll.register(wake_fd, select.POLLIN)
        dues = [self._power_on_at]
        executor = self._executor
        if self._port.is_open:
            events = select.POLLIN if self._takes_input else 0
            if self._to_pty and not self.silent and self._stalled_until is None:
                events |= select.POLLOUT
            if events:
                poll.register(self._port.fd, events)
            dues.append(self._in.due)
        if executor is not None and not self.silent:
            executor.register(poll, output=len(self._tx) < TX_BUFFER, input=bool(self._rx))
            dues += [self._stalled_until, self._out.due]
            if self._rx and executor.running:
                dues.append(now + RING_SECONDS)
            if self._tx:
                dues.append(now if self._has_output_room else self._taken_at + GIVE_UP_SECONDS)
            dues += [self._operation[2] if self._operation else self._interrupt_due]
        due = min((due for due in dues if due is not None), default=None)
        poll.poll(None if due is None else max(0.0, due - now) * 1000)

    # ---- what the REPL and the snippets ask for

    def _write(self, data: bytes) -> None:
        self._tx += data

    def _execute(self, source: bytes, kind: int) -> None:
        self.statistics.execs += kind not in (ex.BOOT_SCRIPT, ex.MAIN_SCRIPT)
        self._interrupted_at = 0.0
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
            error = executor.error(frame[3]).replace(b"\n", b"\r\n")
            self._interrupt_due = None
            self._repl.finished(frame[2], error)
        elif kind == ex.KBD_INTR:
            executor.interrupt_char = frame[2]
            executor.answer(number, 0)
        elif kind == ex.RESET:
            self.power_off()
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
        """Advance the pending flash operation to the current time."""
        while self._operation is not None and self._operation[2] <= now:
            operation, number, due = self._operation
            try:
                self._operation = (operation, number, due + next(operation))
            except StopIteration as end:
                self._operation = None
                if self._executor is not None:
                    self._executor.answer(number, end.value)
