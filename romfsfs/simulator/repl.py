"""The REPL of the firmware, byte for byte: MicroPython's `shared/runtime/pyexec.c`.

Friendly mode (prompt, echo, simple line editing; not its paste mode, which no program uses), raw
mode and raw paste. It does no I/O of its own: input comes in by `process`, answers go out by
`write`, snippets by `execute`.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from romfsfs.simulator.config import SimulatorConfig
from romfsfs.simulator.executor import (
    BOOT_SCRIPT,
    FAILED,
    LINE,
    MAIN_SCRIPT,
    SNIPPET,
    SOFT_RESET,
)

CTRL_A, CTRL_B, CTRL_C, CTRL_D, CTRL_E = 1, 2, 3, 4, 5
RAW_BANNER = b"raw REPL; CTRL-B to exit\r\n"
INTERRUPTED = b"Traceback (most recent call last):\r\nKeyboardInterrupt: \r\n"
#: bytes; MICROPY_REPL_STDIN_BUFFER_MAX is 256, and a window is half of it
PASTE_WINDOW = 128

_RAW_CONTROL = re.compile(rb"[\x01-\x04]")
_PASTE_END = re.compile(rb"[\x03\x04]")
_COMPOUND = re.compile(
    rb"@|(if|while|for|try|with|def|class|async)\b"
)  # a block: an empty line ends it


class Repl:
    """The state of the REPL; belongs to the camera's thread.

    write: sends to the host. execute: begins to run source of a kind; `finished` must be called
    when it ends, and `process` not before that. soft_reset: restarts the interpreter and then
    calls `boot`.
    """

    def __init__(
        self,
        config: SimulatorConfig,
        write: Callable[[bytes], None],
        execute: Callable[[bytes, int], None],
        soft_reset: Callable[[], None],
    ) -> None:
        self._config = config
        self._write = write
        self._execute = execute
        self._soft_reset = soft_reset
        self._line = bytearray()
        self._before = b""  # the lines already typed of a block
        self._state: Callable[[bytearray], None] = self._friendly
        self._window = 0
        self._startup: list[int] = []
        self.busy = False

    def boot(self, power_up: bool) -> None:
        """Run the start-up scripts, then show the prompt of the friendly or the raw REPL."""
        if power_up:
            self._raw = False
        self._booting = True
        self._startup = [BOOT_SCRIPT, MAIN_SCRIPT] if power_up else [BOOT_SCRIPT]
        self._next_startup()

    def process(self, data: bytearray) -> None:
        """Consume input from the host, up to the end of a snippet that must run first."""
        while data and not self.busy:
            self._state(data)

    def finished(self, status: int, error: bytes) -> None:
        """The snippet ended. error: its traceback, if status is FAILED."""
        self.busy = False
        error = error if status == FAILED else b""
        if self._framed:
            self._write(b"\x04" + error + b"\x04")
            if status == SOFT_RESET:
                self._soft_reset()
            else:
                self._write(b">")
        elif status == SOFT_RESET:
            self._soft_reset()
        else:
            self._write(error)
            if self._booting:
                if status == FAILED:
                    self._startup.clear()  # the firmware skips main.py if boot.py failed
                self._next_startup()
            else:
                self._prompt()

    # ---- starting

    def _next_startup(self) -> None:
        if self._startup:
            self._run(b"", self._startup.pop(0), framed=False)
            return
        self._booting = False
        if self._raw:
            self._enter_raw()
        else:
            self._enter_friendly()

    def _run(self, source: bytes, kind: int, framed: bool) -> None:
        self.busy = True
        self._framed = framed
        self._execute(source, kind)

    # ---- friendly

    def _enter_friendly(self) -> None:
        config = self._config
        self._raw = False
        self._state = self._friendly
        self._write(
            f"MicroPython v{config.release} on 2025-07-01; {config.machine}\r\n"
            'Type "help()" for more information.\r\n'.encode()
        )
        self._prompt()

    def _prompt(self) -> None:
        self._line.clear()
        self._before = b""
        self._write(b">>> ")

    def _friendly(self, data: bytearray) -> None:
        byte = data.pop(0)
        if byte <= CTRL_E and not self._line and not self._before:
            self._friendly_control(byte)
        elif byte == CTRL_C:
            self._write(b"\r\n")
            self._prompt()
        elif byte == 13:
            self._write(b"\r\n")
            self._end_of_line()
        elif byte in (8, 127):
            if self._line:
                self._line.pop()
                self._write(b"\b \b")
        elif 32 <= byte <= 126:
            self._line.append(byte)
            self._write(bytes([byte]))

    def _friendly_control(self, byte: int) -> None:
        does = {
            CTRL_A: self._enter_raw,
            CTRL_B: self._enter_friendly,
            CTRL_C: self._prompt,
            CTRL_D: self._soft_reset,
        }
        if byte in does:
            self._write(b"\r\n")
            does[byte]()

    def _end_of_line(self) -> None:
        source = self._before + bytes(self._line)
        if not source.strip():
            self._prompt()
        elif _continues(source, bytes(self._line), bool(self._before)):
            self._before = source + b"\n"
            self._line.clear()
            self._write(b"... ")
        else:
            self._run(source + b"\n", LINE, framed=False)

    # ---- raw

    def _enter_raw(self) -> None:
        self._raw = True
        self._state = self._raw_line
        self._line.clear()
        self._write(RAW_BANNER + b">")

    def _raw_line(self, data: bytearray) -> None:
        control = _RAW_CONTROL.search(data)
        if control is None:
            self._line += data
            data.clear()
            return
        self._line += data[: control.start()]
        byte = data[control.start()]
        del data[: control.end()]
        if byte == CTRL_A:
            if len(self._line) == 2 and self._line[0] == CTRL_E:
                self._begin_paste(self._line[1])
            else:
                self._enter_raw()
        elif byte == CTRL_B:
            self._write(b"\r\n")
            self._enter_friendly()
        elif byte == CTRL_C:
            self._line.clear()
        elif not self._line:
            self._write(b"OK\r\n")
            self._soft_reset()
        else:
            source = bytes(self._line)
            self._line.clear()
            self._write(b"OK")
            self._run(source, SNIPPET, framed=True)

    def _begin_paste(self, kind: int) -> None:
        self._line.clear()
        if kind != ord("A"):
            self._write(b"R\x00>")
        else:
            self._window = PASTE_WINDOW
            self._state = self._raw_paste
            self._write(b"R\x01" + PASTE_WINDOW.to_bytes(2, "little") + b"\x01")

    def _raw_paste(self, data: bytearray) -> None:
        end = _PASTE_END.search(data)
        piece = data[: end.start()] if end else data[:]
        self._line += piece
        self._window -= len(piece)
        while self._window <= 0:
            self._window += PASTE_WINDOW
            self._write(b"\x01")
        if end is None:
            data.clear()
            return
        byte = data[end.start()]
        del data[: end.end()]
        source = bytes(self._line)
        self._line.clear()
        self._state = self._raw_line
        self._write(b"\x04")
        if byte == CTRL_C:
            self._write(b"\x04" + INTERRUPTED + b"\x04>")
        else:
            self._run(source, SNIPPET, framed=True)


def _continues(source: bytes, line: bytes, in_block: bool) -> bool:
    """Whether this input needs another line: `mp_repl_continue_with_input` without corner cases."""
    if source.rstrip(b" ").endswith(b"\\"):
        return True
    opened = sum(source.count(mark) for mark in (b"(", b"[", b"{"))
    closed = sum(source.count(mark) for mark in (b")", b"]", b"}"))
    if opened > closed or source.count(b'"""') % 2 or source.count(b"'''") % 2:
        return True
    if _COMPOUND.match(source):
        return bool(line.strip()) if in_block else True
    return False
