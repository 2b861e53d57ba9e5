"""`push --all`: write an image to all connected cameras, several at once.

With `--watch`, also to cameras that are plugged in later, until it is interrupted. A camera is
recognised by its unique id, on whatever port. The main thread polls the ports, prints, and writes
the log; each camera is written in a thread of its own.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import BinaryIO

from romfsfs.boards import boards
from romfsfs.cli.output import Output
from romfsfs.cli.plugged import Look, inode_of, loaders, serial_ports
from romfsfs.cli.production_log import Log, unique_id
from romfsfs.devices.base import UNKNOWN, Device, DeviceInfo
from romfsfs.devices.bootloader.dfu import APPEAR_LIMIT
from romfsfs.devices.discovery import usb_path
from romfsfs.devices.open import open_device
from romfsfs.devices.serial_camera.probe import CameraFacts
from romfsfs.errors import (
    EXIT_FAILURE,
    EXIT_OK,
    DeviceAbsent,
    DeviceBusy,
    DeviceError,
    DeviceLost,
    ImageError,
    Interrupted,
    RomfsError,
    UsageError,
)
from romfsfs.session.rebase.push import PushOptions, PushResult, check_fit, push_all
from romfsfs.system.errors import os_error
from romfsfs.system.files import digest_fd

#: Seconds between two polls of the ports. A new port is used when a second poll shows it: at the
#: first, its permissions may not be set yet.
LOOK_SECONDS = 0.5
#: Cameras that are written at once.
AT_ONCE = 16

#: Signals that end the command.
_ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, slots=True)
class Order:
    """What to write, and where. board: only its cameras are written; None: all. digest: of the
    image, for the log."""

    image: str
    board: str | None
    partition: int | None
    options: PushOptions
    digest: str = ""


def every(
    output: Output, order: Order, sources: Sequence[str], log: str | None,
    report: Callable[[str, PushResult], int], *, watch: bool,
) -> int:  # fmt: skip
    """Run `push --all` and return its exit code, or raise OSError or RomfsError with nothing
    written. Main thread only. sources: none, or one `dfu:BOARD`. log: the CSV file's path."""
    look: Look = serial_ports
    if sources:
        if len(sources) > 1 or not sources[0].startswith("dfu:") or "@" in sources[0]:
            raise UsageError(
                "--all chooses the cameras itself", where=sources[0],
                next_step="name cameras, or use --all alone or with one dfu:BOARD",
            )  # fmt: skip
        look = loaders(sources[0], order.board)
    with open(order.image, "rb") as image:
        size, _ = check_fit(image, order.image, DeviceInfo("serial", "", ""))
        digest = digest_fd(image.fileno(), 0, size)
        board = order.board or _board_of(image, order.image, sure=watch and not sources)
    order = replace(order, digest=digest, board=None if sources else board)
    rows = Log(log) if log else None
    try:
        return Line(output, order, look, rows, report).run(watch=watch)
    finally:
        if rows is not None:
            rows.close()


def _board_of(image: BinaryIO, name: str, *, sure: bool) -> str | None:
    """The only board on which this image can work; None, or if `sure` UsageError, if not one."""
    fitting = []
    for known in boards().values():
        for part in known.partitions:
            about = DeviceInfo("serial", "", known.name, known.name, part.index, part.size)
            with suppress(ImageError):
                check_fit(image, name, about)
                fitting.append(known.name)
    fitting = list(dict.fromkeys(fitting))
    if sure and len(fitting) != 1:
        raise UsageError(
            "the image does not say what board it is for; it may work on "
            + (", ".join(fitting) or "none that is known"),
            where=name, next_step="add --board BOARD: cameras of other boards are left alone",
        )  # fmt: skip
    return fitting[0] if len(fitting) == 1 else None


class _LeftAlone(RomfsError):
    """A camera that is not to be written: of another board, or written before."""


class Line:
    """The production line: it writes the image to each camera once.

    report: prints one camera's outcome and returns its exit code; called in the main thread.
    """

    def __init__(
        self, output: Output, order: Order, look: Look, log: Log | None,
        report: Callable[[str, PushResult], int],
    ) -> None:  # fmt: skip
        self._output, self._order, self._look = output, order, look
        self._log, self._report = log, report
        self._infos: dict[str, DeviceInfo] = {}
        self._written: set[str] = set()  # unique ids
        # Exit codes: of a camera's last try, by its unique id; of each try by itself where no id
        # tells whether the next one is of the same camera; by port while another program uses that.
        self._codes: dict[object, int] = {}
        # Cameras that were sent to their boot loaders, by unique id, else by USB port: until when
        # their port comes back because they restart, and not because they are plugged in again.
        self._restarts: dict[str, float] = {}
        self._counts = {"written": 0, "had it already": 0}
        self._ending = False
        self._stop = threading.Event()
        self._code = 0
        self._pool = ThreadPoolExecutor(AT_ONCE)
        self._running: dict[Future[PushResult], str] = {}

    def run(self, *, watch: bool) -> int:
        """Write to all cameras and return the exit code. Main thread only: it sets signal handlers.

        watch: until Ctrl-C, which lets writes in progress finish; a second one, or without `watch`
        the first, interrupts them. DeviceError from the first poll."""

        def end(number: int, frame: object) -> None:
            # A closed terminal sends two SIGHUPs: one by the shell, one as the shell ends.
            if not watch or (self._ending and number != signal.SIGHUP):
                self._stop.set()
            self._ending = True

        # Flags, as a KeyboardInterrupt could come between an outcome and its row in the log.
        previous = {
            number: signal.signal(number, end)
            for number in _ENDS
            if signal.getsignal(number) != signal.SIG_IGN  # nohup
        }
        try:
            try:
                self._serve(watch)
            finally:  # whatever ended it
                self._ending = True
                if watch and self._running:
                    self._output.note("finishing what is being written; Ctrl-C again interrupts it")
                while self._running:
                    self._settle()
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
            self._pool.shutdown()
        if watch:
            failed = sum(code != 0 for code in self._codes.values())
            texts = [f"{number} {what}" for what, number in self._counts.items()]
            self._output.say(f"{', '.join(texts)}, {failed} failed")
        return max(self._code, *self._codes.values(), 0)

    def _serve(self, watch: bool) -> None:
        there = self._look()
        if watch:
            self._output.note("waiting for cameras; Ctrl-C stops after the writes in progress")
        before = {} if watch else there
        used: dict[str, object] = {}
        while not (self._ending or self._code):
            busy = set(self._running.values())
            used = {name: it for name, it in used.items() if name in busy or there.get(name) == it}
            for name, it in there.items():
                if name not in used and before.get(name) == it:
                    used[name] = it
                    self._running[self._pool.submit(self._write, name)] = name
            if not (watch or self._running):
                if not self._codes:  # none, or all were left alone
                    board = f" of {self._order.board}" if self._order.board else ""
                    raise DeviceAbsent(
                        f"no camera{board} is connected",
                        next_step="check the cable; romfsfs doctor says what else may be missing",
                    )
                return
            again = self._settle()
            before = there
            if watch:
                used = {name: it for name, it in used.items() if name not in again}
                with suppress(DeviceError, OSError):  # the next poll tries again
                    there = self._look()

    def _settle(self) -> list[str]:
        """Report the writes that end within `LOOK_SECONDS`. Returns the cameras that another
        program used, to try them again."""
        if not self._running:
            time.sleep(LOOK_SECONDS)
            return []
        again = []
        for future in wait(self._running, LOOK_SECONDS, FIRST_COMPLETED).done:
            name, outcome = self._running.pop(future), future.result()
            if isinstance(outcome, DeviceBusy):
                again.append(name)
            self._note(name, outcome)
        return again

    def _note(self, name: str, outcome: PushResult) -> None:
        """Count an outcome, log it, and print it: the log must not miss what cannot be printed."""
        info = self._infos.pop(name, None)
        busy = isinstance(outcome, DeviceBusy)
        if not busy:
            self._codes.pop(name, None)
        if isinstance(outcome, _LeftAlone):
            self._output.note(f"{name}: {outcome.what}")
            return
        number = unique_id(info) if info else ""
        writing = map(unique_id, list(self._infos.values()))
        tells = number and number not in writing  # several with one id at once are not one camera
        who = number if tells else name if busy else object()
        if busy and self._codes.get(who) == DeviceBusy.exit_code:
            return  # said already
        if isinstance(outcome, RomfsError):
            said = f"failed: {outcome.line}"
        else:
            said = "written" if outcome else "had it already"
            self._counts[said] += 1
            if number:
                self._written.add(number)
            elif info:
                self._output.note(f"{name}: {info.name} reports no unique id: it is written "
                                  "and counted each time it is plugged in")  # fmt: skip
        lost = f"{name}, {said}; no more cameras are written"
        try:
            if self._log is not None:
                digest = "" if isinstance(outcome, RomfsError) else self._order.digest
                self._log.row(name, info, digest, said)
        except OSError as error:
            self._fail(error, f"not in the log: {lost}")
        self._codes[who] = outcome.exit_code if isinstance(outcome, RomfsError) else EXIT_OK
        try:
            self._codes[who] = self._report(name, outcome)
        except OSError as error:
            self._fail(error, f"not printed: {lost}")

    def _fail(self, error: OSError, next_step: str) -> None:
        wrong = os_error(error)
        wrong.next_step = next_step
        self._output.error(wrong)
        self._code = EXIT_FAILURE

    def _write(self, name: str) -> PushResult:
        def check(phase: str, done: int, total: int) -> None:
            if self._stop.is_set():
                raise KeyboardInterrupt

        order = self._order
        try:
            check("", 0, 0)
            return push_all(order.image, [name], self._opened, order.options, check)[name]
        except KeyboardInterrupt:
            return Interrupted("interrupted", where=name, next_step="repeat the command")
        except OSError as error:
            return os_error(error)

    @contextmanager
    def _opened(self, name: str) -> Iterator[Device]:
        """Open the camera. _LeftAlone if it is not to be written."""
        order = self._order
        known = sent = ""
        port = inode_of(name)

        def accept(facts: CameraFacts) -> None:
            nonlocal known, sent
            said, known = facts.board, facts.unique_id
            who = f"{said.name if said else 'the camera'} on {name}"
            if said is not None and order.board not in (None, said.name):
                raise _LeftAlone(f"{who}, not {order.board}: left alone")
            place = known or usb_path(name) or name
            if time.monotonic() < self._restarts.pop(place, 0.0):
                raise _LeftAlone(f"{who} is back from its boot loader: left alone")
            if known in self._written:
                raise _LeftAlone(f"{who} was written before: left alone")
            if not facts.partitions:
                sent = place
            if known:  # of one that fails from here on, and of one whose boot loader tells another
                key = f"{said.name if said else UNKNOWN}/{known}/{order.partition or 0}"
                self._infos[name] = DeviceInfo("serial", key, who, firmware=facts.firmware)

        try:
            device = open_device(
                name, board=order.board, partition=order.partition, slot=order.options.slot,
                accept=accept,
            )  # fmt: skip
            try:
                info = self._infos.setdefault(name, device.info())
                if unique_id(info) in self._written:
                    raise _LeftAlone(f"{info.name} was written before: left alone")
                yield device
            finally:
                device.close()
        except DeviceLost:  # the cable: what comes back is plugged in
            sent = ""
            raise
        finally:
            if sent and port != inode_of(name):
                self._restarts[sent] = time.monotonic() + APPEAR_LIMIT
