"""MicroPython's raw REPL: getting in whatever the camera is doing, running code, getting out.

The protocol and its bytes: docs/cameras.md, "Serial". All times are seconds.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable

from romfsfs.devices.serial_camera.port import Port
from romfsfs.errors import DeviceAnswer, DeviceError, DeviceLost

_BANNER = b"raw REPL; CTRL-B to exit\r\n"
_PROMPT = _BANNER + b">"
_INTERRUPT = b"\x03"
_ENTER_RAW = b"\r\x01"
_LEAVE_RAW = b"\r\x02"
_SOFT_RESET = b"\x04"
_RAW_PASTE = b"\x05A\x01"
#: the limit for reaching the raw REPL's prompt on a camera that runs anything at all
ENTER_LIMIT = 15.0
#: the limit for the answer to something quick
ANSWER_LIMIT = 10.0
#: boot.py runs at a soft reset, and may mount cards and join networks
RESET_LIMIT = 20.0
#: the longest answer: a slow camera's digest of a partition, which sends a dot now and then
LONGEST_ANSWER = 1800.0
#: bytes of the largest answer that is accepted; the checksums of 24 MiB are 48 KiB
MOST_OUTPUT = 1 << 20
_NO_ANSWER_STEP = (
    "close other programs that use it; then unplug it, plug it in again and repeat the command"
)

#: ways past boot.py and main.py: the boot loader waits a second at power-up (openmv: boot/src/
#: common/main.c); the button is that of MicroPython's own boards (ports/stm32/boards: reset modes)
_DEAF_STEP = (
    "a script that cannot be stopped can be removed through the boot loader (romfsfs push IMAGE "
    "dfu:BOARD), or, on a board with a user button, by holding it down while plugging in"
)


class RawRepl:
    """The raw REPL on an open port, entered when something is run. One thread, as the port."""

    def __init__(self, port: Port) -> None:
        self.port = port
        self._inside = False

    @property
    def busy(self) -> bool:
        """Whether the camera is not known to be at the raw prompt: started code may still run."""
        return not self._inside

    def enter(self) -> None:
        """Interrupt whatever runs and reach the raw REPL's prompt, unless already there. DeviceLost
        after ENTER_LIMIT.

        A script may print, catch KeyboardInterrupt, or be deaf for a while: interrupts are
        repeated until the limit. What prints in the background, where Ctrl-C does not reach, is
        ended by a soft reset. Every packet begins with Ctrl-C, which the port sees even if nobody
        reads its input, and is a few bytes long: of the camera's 512 bytes of input enough is left
        for the next one when a script that has switched Ctrl-C off switches it on again. A transfer
        loop that an earlier romfsfs has left behind ends like any script (`snippets.py`).
        """
        if self._inside:
            return
        end = time.monotonic() + ENTER_LIMIT
        patience = 0.4
        attempt = 0
        while time.monotonic() < end:
            attempt += 1
            self.port.write(_INTERRUPT)
            self.port.drain(0.03, 0.2)
            self.port.write(_INTERRUPT + _ENTER_RAW)
            heard = self.port.read_until(_PROMPT, min(end, time.monotonic() + patience))
            if heard.endswith(_PROMPT) and self._synchronise():
                self._inside = True
                return
            patience = min(patience * 1.5, 3.0)
            # at a prompt whose answers were garbled twice, something prints in the background
            if heard and attempt > (1 if heard.endswith(_PROMPT) else 3):
                self.port.write(_INTERRUPT + _SOFT_RESET)
        raise DeviceLost(
            f"the camera did not answer within {ENTER_LIMIT:.0f} s",
            where=self.port.name,
            next_step=f"{_NO_ANSWER_STEP}; {_DEAF_STEP}",
        )

    def _at_prompt(self, deadline: float) -> bool:
        return self.port.read_until(_PROMPT, deadline).endswith(_PROMPT)

    def _synchronise(self) -> bool:
        """Have a fresh random number printed, so that no older output is taken for an answer;
        returns whether it came."""
        nonce = secrets.token_hex(4)
        self.port.write(f"print('ro'+'{nonce}')".encode() + _SOFT_RESET)
        ending = f"ro{nonce}\r\n\x04\x04>".encode()
        return self.port.read_until(ending, time.monotonic() + 2.0).endswith(ending)

    def start(self, code: str) -> None:
        """Send code by raw paste and start it; `finish` reads its output. Never more bytes are on
        the way than the camera has announced room for. DeviceLost, DeviceAnswer."""
        self._handed_over = False  # the camera has all of the code that was started
        self.enter()
        self._inside = False  # until `finish` has seen the prompt again
        data = code.encode()
        self.port.write(_RAW_PASTE)
        answer = self.port.read_exactly(2, time.monotonic() + ANSWER_LIMIT)
        if answer != b"R\x01":
            raise self._no_answer("to raw paste, which all firmware with a ROMFS has", answer)
        deadline = time.monotonic() + ANSWER_LIMIT
        window = int.from_bytes(self.port.read_exactly(2, deadline), "little")
        if not window:
            raise self._no_answer("with room for code")
        room, sent = window, 0
        while sent < len(data):
            if room == 0:
                control = self.port.read_exactly(1, time.monotonic() + ANSWER_LIMIT)
                if control != b"\x01":
                    if control == b"\x04":
                        self.port.write(b"\x04")
                    raise self._no_answer("while code was sent", control)
                room += window
            piece = data[sent : sent + room]
            self.port.write(piece)
            room -= len(piece)
            sent += len(piece)
        self.port.write(b"\x04")
        self._handed_over = True
        # announcements of more room may still come before the acknowledgement
        if not self.port.read_until(b"\x04", time.monotonic() + ANSWER_LIMIT).endswith(b"\x04"):
            raise self._no_answer("after code was sent")

    def finish(self, limit: float, heartbeat: Callable[[bytes], None] | None = None) -> bytes:
        """Wait for the end of running code; return what it printed.

        limit: seconds without any byte. heartbeat: is given the output as it arrives. DeviceAnswer
        if the code raised, or went beyond `LONGEST_ANSWER` or `MOST_OUTPUT`; DeviceLost if silent.
        """
        output = self._until_mark(limit, heartbeat)
        error = self._until_mark(limit, None)
        if self.port.read_exactly(1, time.monotonic() + limit) != b">":
            raise self._no_answer("with its prompt")
        self._inside = True
        if error:
            raise self._raised(error)
        return output

    def _until_mark(self, limit: float, heartbeat: Callable[[bytes], None] | None) -> bytes:
        data = bytearray()
        end = time.monotonic() + LONGEST_ANSWER
        while True:
            piece = self.port.read_some(min(end, time.monotonic() + limit))
            if not piece:
                raise self._silent(limit, data)
            place = piece.find(b"\x04")
            if place >= 0:
                self.port.unread(memoryview(piece)[place + 1 :])
                piece = piece[:place]
            data += piece
            if len(data) > MOST_OUTPUT or time.monotonic() > end:
                raise self._no_answer("but prints without end", bytes(data))
            if heartbeat:
                heartbeat(piece)
            if place >= 0:
                return bytes(data)

    def run(
        self,
        code: str,
        limit: float = ANSWER_LIMIT,
        heartbeat: Callable[[bytes], None] | None = None,
    ) -> str:
        """Run code to its end and return what it printed, with plain newlines.

        The code may run twice: if the camera answers with an error or with nonsense it is sent
        once more, as a garbled byte is the likelier reason. KeyboardInterrupt is passed on when
        the camera is back at its prompt (`recover`). Errors as for `finish`.
        """
        for attempt in (1, 2):
            try:
                self.start(code)
                output = self.finish(limit, heartbeat)
                break
            except KeyboardInterrupt:
                self.recover()
                raise
            except DeviceAnswer:
                if attempt == 2:
                    raise
        return output.decode("utf-8", "replace").replace("\r\n", "\n")

    def start_loop(self, code: str) -> None:
        """Start code that prints "go" when it is ready, and goes on; sent twice like `run`'s."""
        for attempt in (1, 2):
            try:
                self.start(code)
                line = self.port.read_until(b"\n", time.monotonic() + ANSWER_LIMIT)
                if line.strip() == b"go":
                    return
                if b"\x04" in line:  # it has ended, mostly with an exception
                    self.port.unread(line[line.index(b"\x04") :])
                    self.finish(ANSWER_LIMIT)
                raise self._no_answer("as expected", line)
            except DeviceAnswer:
                self.recover()
                if attempt == 2:
                    raise
            except BaseException:
                self.recover()
                raise

    def _raised(self, error: bytes) -> DeviceAnswer:
        text = error.decode("utf-8", "replace").replace("\r\n", "\n").strip()
        last = text.splitlines()[-1] if text else "no message"
        return DeviceAnswer(
            f"the camera reports an error: {last}",
            where=self.port.name,
            next_step="reset the camera and repeat the command; -v shows all of it",
            detail=text,
        )

    def _no_answer(self, when: str, got: bytes = b"") -> DeviceError:
        """DeviceLost for silence, DeviceAnswer for bytes that make no sense there."""
        return (DeviceAnswer if got else DeviceLost)(
            f"the camera does not answer {when}",
            where=self.port.name,
            next_step=_NO_ANSWER_STEP,
            detail=f"it sent: {got[-200:]!r}" if got else "",
        )

    def _silent(self, limit: float, got: bytearray) -> DeviceLost:
        return DeviceLost(
            f"the camera has not answered for {limit:.0f} s",
            where=self.port.name,
            next_step=_NO_ANSWER_STEP,
            detail=f"last bytes: {bytes(got[-200:])!r}" if got else "",
        )

    def recover(self) -> None:
        """Stop what runs and return to the prompt, if that is possible. Raises no DeviceError."""
        self._inside = False
        with contextlib.suppress(DeviceError):
            self.enter()

    def soft_reset(self) -> None:
        """Restart MicroPython and stay in the raw REPL: boot.py runs, main.py does not.
        KeyboardInterrupt as for `run`."""
        try:
            self._soft_reset()
        except KeyboardInterrupt:
            self.recover()
            raise

    def _soft_reset(self) -> None:
        self.enter()
        self._inside = False
        self.port.write(_SOFT_RESET)
        if not self._at_prompt(time.monotonic() + RESET_LIMIT):
            self.enter()  # boot.py still runs: interrupt it
            return
        if not self._synchronise():
            raise self._no_answer("after a soft reset")
        self._inside = True

    def leave(self) -> None:
        """Back to the friendly REPL, if the raw one was entered."""
        if self._inside:
            self._inside = False
            self.port.write(_LEAVE_RAW)

    def restart(self) -> None:
        """Soft reset from the friendly REPL, so main.py runs if the firmware allows. DeviceLost."""
        self.enter()
        self.leave()
        self.port.read_until(b">>> ", time.monotonic() + 2.0)
        self.port.write(_SOFT_RESET)
        if b"soft reboot" not in self.port.read_until(
            b"soft reboot", time.monotonic() + RESET_LIMIT
        ):
            raise DeviceLost(
                "the camera does not confirm the reset",
                where=self.port.name,
                next_step="what was written is verified; press its reset button or replug it",
            )

    def start_and_forget(self, code: str) -> None:
        """Start code after which the port dies, such as machine.bootloader().

        It may die before the camera has acknowledged all of the code.
        """
        try:
            self.start(code)
        except DeviceLost:
            if not self._handed_over:
                raise
        with contextlib.suppress(DeviceError):
            self.port.drain(0.2, 1.0)
