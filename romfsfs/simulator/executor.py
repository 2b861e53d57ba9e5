"""The process that runs a camera's snippets: the real MicroPython, made to look like the firmware.

A process lives from one soft reset to the next, as the firmware's heap does. It runs `camera.upy`,
which describes the protocol between the two. Belongs to the camera's thread.
"""

from __future__ import annotations

import fcntl
import json
import logging
import mmap
import os
import select
import shutil
import signal
import struct
import subprocess
import tempfile
import termios
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import IO

from romfsfs.errors import ToolMissing, shell_word
from romfsfs.simulator.config import SimulatorConfig
from romfsfs.simulator.flash import Flash
from romfsfs.system.user_folders import cache_dir

log = logging.getLogger(__name__)

SCRATCH = 4096
COMMAND, KIND, LENGTH, ANSWER, VALUE = 0, 1, 2, 3, 4
SNIPPET, LINE, BOOT_SCRIPT, MAIN_SCRIPT = 0, 1, 2, 3
FRAME = struct.Struct("<IIiiiii")
DONE, IOCTL, KBD_INTR, RESET, READY = 1, 2, 3, 4, 5
FINISHED, FAILED, SOFT_RESET = 0, 1, 2

START_SECONDS = 20.0
PAGE = 4096
#: bytes of heap for `camera.upy` itself and for objects that are larger on 64 bits; it takes away
#: what exceeds the camera's heap
OWN_HEAP = 64 << 10
#: modules that are frozen into the firmware, a file each
FIRMWARE = Path(__file__).with_name("firmware")
ENVIRONMENT = "ROMFSFS_MICROPYTHON"


def find_micropython(path: str | os.PathLike[str] | None = None) -> str:
    """The MicroPython to run: `path`, else $ROMFSFS_MICROPYTHON, else what scripts/get-micropython
    has fetched (of 32 bits, as cameras are, before 64), else the one on PATH.

    Raises ToolMissing, with the command that fetches it.
    """
    chosen = os.fspath(path) if path is not None else os.environ.get(ENVIRONMENT)
    fetched = [str(cache_dir() / "micropython" / bits / "micropython") for bits in ("32", "64")]
    candidates = [chosen] if chosen else [*fetched, "micropython"]
    found = next(filter(None, map(shutil.which, candidates)), None)
    if found is None:
        raise ToolMissing(
            f"the simulated camera needs MicroPython; {chosen or 'micropython'} is not installed",
            next_step=f"{_how_to_get_one()}, or name one in ${ENVIRONMENT}",
        )
    return found


def _how_to_get_one() -> str:
    """A checkout can fetch one; what pip installed has no scripts."""
    script = Path(__file__).parents[2] / "scripts" / "get-micropython"
    if script.exists():
        return f"fetch it: {shell_word(str(script))}"
    return "install MicroPython 1.25 or newer (Debian 13: apt-get install micropython)"


class Executor:
    """One MicroPython process. Descriptors to wait on: `output` and `up`."""

    def __init__(self, config: SimulatorConfig, flash: Flash, micropython: str) -> None:
        self._config = config
        self._flash = flash
        self._micropython = micropython
        self._number = 0
        self.running = False
        self.interrupted = False  # at any time since it was started
        self.interrupt_char = -1
        self.handle: Callable[[tuple[int, ...]], None] = lambda frame: None
        size = SCRATCH + max([1 << 20, *(part.config.size for part in flash.partitions)])
        with tempfile.TemporaryFile() as mailbox:
            mailbox.truncate(size)
            self._mailbox = mmap.mmap(mailbox.fileno(), size)
            self._start(mailbox.fileno(), size)

    def _start(self, mailbox: int, room: int) -> None:
        size = self._config.heap_size
        # One page: the pipe polls as writable when it is empty, which is when input is wanted.
        self._input_read, self._input = _pipe(PAGE)
        # Opened anew: reads of the process's own end block, reads of this one must not.
        again = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
        self._input_again = os.open(f"/dev/fd/{self._input_read}", again)
        self.output, output = _pipe()
        bell, self._bell = _pipe()
        self.up, up = _pipe()
        for fd in (self._input_read, bell, up, output):
            os.set_blocking(fd, True)  # the process's ends; O_NONBLOCK is shared by duplicates
        fds = [mailbox, bell, up, *(part.fd for part in self._flash.partitions)]
        fds += [volume.file.fileno() for volume in self._flash.volumes]
        # Not as an argument: MicroPython cannot start with one of more than 255 bytes.
        settings = json.dumps(self._settings(bell, up)).encode()
        self._mailbox[SCRATCH : SCRATCH + len(settings)] = settings
        self._set(LENGTH, len(settings))
        with tempfile.TemporaryFile() as messages:
            self._process = subprocess.Popen(
                [
                    self._micropython,
                    "-X",
                    f"heapsize={OWN_HEAP + size + min(size, 512 << 10)}",
                    str(Path(__file__).with_name("camera.upy")),
                    str(mailbox),
                    str(room),
                ],
                stdin=self._input_read,
                stdout=output,
                stderr=messages,
                pass_fds=fds,
                start_new_session=True,
                env={"PATH": os.defpath},
            )
            for fd in (output, bell, up):
                os.close(fd)
            self._await_ready(messages)

    def _settings(self, bell: int, up: int) -> dict[str, object]:
        config = self._config
        said = ("runs_rom", "board", "machine", "arch_string", "board_type", "platform", "mpy",
                "release", "stdio_buffer", "missing")  # fmt: skip
        return {
            **{name: getattr(config, name) for name in said},
            "bell": bell,
            "up": up,
            "partitions": [
                {"fd": part.fd, "lead": part.lead, "span": part.span, **asdict(part.config)}
                for part in self._flash.partitions
            ],
            "volumes": [(volume.folder, volume.settings) for volume in self._flash.volumes],
            "frozen": sorted(path.stem for path in FIRMWARE.glob("*.upy")),
            "byte_us": round(config.byte_seconds * 1e6),
            "unique_id": list(config.unique_id),
            "heap": config.heap_size,
        }

    def _await_ready(self, messages: IO[bytes]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            select.select([self.up], [], [], 0.5)
            for frame in self._frames():
                if frame[0] == READY:
                    return
            if self._process.poll() is not None:
                break
        output = self.read_output()
        self.stop()
        messages.seek(0)
        raise ToolMissing(
            f"{self._micropython} cannot run the simulated camera",
            next_step=_how_to_get_one(),
            detail=(output + messages.read()).decode(errors="replace"),
        )

    def stop(self) -> None:
        """End the process at once, as a power cut does. May be called twice."""
        if not self._mailbox.closed:
            self._process.kill()
            self._process.wait()
            ours = (self._input_read, self._input_again, self._input)
            for fd in (*ours, self.output, self._bell, self.up):
                os.close(fd)
            self._mailbox.close()
        self.running = False

    def run(self, source: bytes, kind: int) -> None:
        """Begin to run a snippet; a DONE frame will follow."""
        self._mailbox[SCRATCH : SCRATCH + len(source)] = source
        self._number += 1
        self._set(KIND, kind)
        self._set(LENGTH, len(source))
        self._set(COMMAND, self._number)
        self.running = True
        self.interrupt_char = 3
        self._ring()

    def answer(self, number: int, value: int) -> None:
        """Answer the process's request of this number."""
        self._set(VALUE, value & 0xFFFFFFFF)
        self._set(ANSWER, number)
        self._ring()

    def scratch(self, size: int) -> bytes:
        """`size` bytes that the process put into the mailbox: data to program."""
        return self._mailbox[SCRATCH : SCRATCH + size]

    def error(self, size: int) -> bytes:
        """The error text of `size` bytes that the process put at the mailbox's end."""
        return self._mailbox[len(self._mailbox) - size :]

    def interrupt(self) -> None:
        """Interrupt the running snippet (Ctrl-C) by SIGINT."""
        self.interrupted = True
        self._process.send_signal(signal.SIGINT)

    def feed(self, data: bytes) -> int:
        """Give the snippet input, at most `room` bytes; return how many the pipe took. It may have
        no room now, as it does not wrap around at the end of a page that was not read to its end,
        and it takes a part of what exceeds a page."""
        try:
            return os.write(self._input, data)
        except BlockingIOError:
            return 0

    @property
    def room(self) -> int:
        """Bytes that still fit into the ring of input that the snippet has not read."""
        unread = struct.unpack("=i", fcntl.ioctl(self._input_read, termios.FIONREAD, b"\0" * 4))[0]
        return max(0, self._config.rx_buffer - int(unread))

    def leftover(self) -> bytes:
        """Take back the input that the snippet did not read."""
        return _read_all(self._input_again)

    def read_output(self) -> bytes:
        """All that the snippet printed and that was not taken yet."""
        return _read_all(self.output)

    def read_some(self) -> bytes:
        """At most 16 KiB of what the snippet printed: it must block if nobody takes the rest."""
        try:
            return os.read(self.output, 16384)
        except BlockingIOError:
            return b""

    def register(self, poll: select.poll, *, output: bool, input: bool) -> None:
        """Add to `poll`: frames, and if asked for, output and room for input."""
        poll.register(self.up, select.POLLIN)
        if output:
            poll.register(self.output, select.POLLIN)
        if input and self.running:
            poll.register(self._input, select.POLLOUT)

    def poll(self) -> bool:
        """Hand every frame that arrived to `handle`. False: the process is dead."""
        for frame in self._frames():
            if frame[0] == DONE:
                if frame[1] != self._number or not self.running:
                    continue  # sent twice: a Ctrl-C came between sending and noting it
                self.running = False
                self.interrupt_char = -1
            self.handle(frame)
            if self._mailbox.closed:
                return True  # stopped on its own request
        return self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        return self._process.returncode

    def _frames(self) -> list[tuple[int, ...]]:
        try:
            # writes of a frame are atomic, so reads of whole frames never see half of one
            data = os.read(self.up, FRAME.size * 16)
        except BlockingIOError:
            return []
        return list(FRAME.iter_unpack(data))

    def _set(self, word: int, value: int) -> None:
        struct.pack_into("=I", self._mailbox, 4 * word, value)

    def _ring(self) -> None:
        try:
            os.write(self._bell, b"!")
        except (BlockingIOError, BrokenPipeError):
            pass  # rung often enough, or the process is dead, which `poll` reports


def _pipe(size: int | None = None) -> tuple[int, int]:
    """A pipe whose ends do not block, holding about `size` bytes where the system allows that."""
    read, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK) if hasattr(os, "pipe2") else os.pipe()
    os.set_blocking(read, False)
    os.set_blocking(write, False)
    if size is not None and hasattr(fcntl, "F_SETPIPE_SZ"):
        fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, size)
    return read, write


def _read_all(fd: int) -> bytes:
    pieces = []
    while True:
        try:
            piece = os.read(fd, 65536)
        except BlockingIOError:
            break
        if not piece:
            break
        pieces.append(piece)
    return b"".join(pieces)
