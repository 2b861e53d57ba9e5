"""The one runner of other programs: converters, and the tools of boot loaders.

A tool gets a private folder, an environment of a few variables, no input, limits of time, memory
and file size, and a process group of its own that is killed as a whole; children that left the
group are found by the folder, which is in their environment. Its two outputs are read as one, in
order, unless the first is its result; of a long output the head and the tail are kept. What it
leaves in the folder may be anything, and is only looked at with `made_file`.

The limits are set on the running child with prlimit(2): `preexec_fn` can deadlock in a program
with threads, and a shell in between would be one more thing to kill. Where prlimit is missing
(macOS, which does not enforce RLIMIT_AS anyway) only the time limit holds.

Modules that only a run needs are imported by it: `status` runs no tool. Command lines are built by
pure functions where the tool is known (`convert/`, `devices/bootloader/`).
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import stat
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, BinaryIO, NamedTuple

from romfsfs.errors import Cancelled, count_text
from romfsfs.system.beside import Beside, Cancel
from romfsfs.system.programs import search_path

if TYPE_CHECKING:
    import subprocess

GIB = 1 << 30
HEAD_BYTES = 16 << 10
TAIL_BYTES = 48 << 10
#: Seconds within which a cancelled or ended tool is noticed while it prints nothing.
TICK_SECONDS = 0.05
#: Tries to start a program: one just written is ETXTBSY while another thread's child has it open.
BUSY_ATTEMPTS = 100
#: Searches for children that left the group: each limits or kills all that it finds.
STRAY_ATTEMPTS = 20


class Limits(NamedTuple):
    """seconds: of wall-clock time. memory_bytes: address space. file_bytes: of any file.

    children: whether the tool may start other processes, which are then searched for (that takes
    as long as a small script takes to compile).
    """

    seconds: float
    memory_bytes: int = 4 * GIB
    file_bytes: int = GIB
    children: bool = True


class Outcome(NamedTuple):
    """How a tool ended. status: exit status, -N if signal N killed it. output: standard output and
    error (only the latter if the former is its result), shortened in the middle if long. timed_out:
    it was stopped because its time was up."""

    status: int
    output: str
    timed_out: bool
    seconds: float

    @property
    def last_line(self) -> str:
        """The last line that says something, or ""."""
        lines = [line.strip() for line in self.output.splitlines()]
        return next((line for line in reversed(lines) if line), "")


class _Capture:
    """Keeps the first HEAD_BYTES and the last TAIL_BYTES of what is added."""

    def __init__(self, listener: Callable[[str], None] | None = None) -> None:
        self._listener = listener
        self._head = bytearray()
        self._tail = bytearray()
        self._dropped = 0

    def add(self, data: bytes) -> None:
        if self._listener is not None:
            self._listener(data.decode("utf-8", "replace"))
        room = HEAD_BYTES - len(self._head)
        self._head += data[:room]
        self._tail += data[max(room, 0) :]
        excess = len(self._tail) - TAIL_BYTES
        if excess > 0:
            del self._tail[:excess]
            self._dropped += excess

    def text(self) -> str:
        head = bytes(self._head)
        tail = bytes(self._tail)
        if self._dropped:
            head += f"\n[... {count_text(self._dropped, 'byte')} left out ...]\n".encode()
        return (head + tail).decode("utf-8", "replace").replace("\r\n", "\n")


class _Result:
    """Writes what is added to a file of at most `limit` bytes. OSError (EFBIG) above."""

    def __init__(self, file: BinaryIO, limit: int) -> None:
        self._file = file
        self._left = limit

    def add(self, data: bytes) -> None:
        self._left -= len(data)
        if self._left < 0:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        self._file.write(data)


def environment(folder: Path, **extra: str) -> dict[str, str]:
    """The environment of a tool: where programs are, UTF-8, its own folder; and `extra`."""
    return {
        "PATH": search_path(),
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "LANG": "C.UTF-8",
        "LC_ALL": "C.UTF-8",
        "PYTHONIOENCODING": "utf-8",
        **extra,
    }


def run_tool(
    argv: Sequence[str],
    *,
    folder: Path,
    env: Mapping[str, str],
    limits: Limits,
    cancel: Cancel | None = None,
    result: BinaryIO | None = None,
    on_output: Callable[[str], None] | None = None,
) -> Outcome:
    """Run `argv` in `folder` and wait for it. OSError if it does not start; Cancelled if stopped.

    result: where its standard output goes, which is then no part of the outcome's text. OSError if
    that cannot be written: some tools do not notice a full disk themselves. on_output: is called
    with pieces of the text as they come, in another thread."""

    def run(cancel: Cancel) -> Outcome:
        return _run(argv, folder, env, limits, cancel, result, on_output)

    # A signal could interrupt the main thread when the tool has started but is not known yet.
    with Beside([run], cancel=cancel) as beside:
        return beside.result(0)


def _run(
    argv: Sequence[str], folder: Path, env: Mapping[str, str], limits: Limits, cancel: Cancel,
    result: BinaryIO | None, on_output: Callable[[str], None] | None,
) -> Outcome:  # fmt: skip
    import signal

    started = time.monotonic()
    process = _start(argv, folder, env, result is not None)
    capture = _Capture(on_output)
    outputs = _outputs(process, capture, result, limits)
    try:
        _limit_all(process.pid, folder, limits)
        ended = _follow(process, outputs, started + limits.seconds, cancel)
    finally:
        # Before the leader is reaped: until then its pid cannot belong to another group.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        status = process.wait()
        if limits.children:
            _kill_strays(folder)
        _drain(outputs)
    if not ended and cancel.is_set():
        raise Cancelled("the program was stopped", where=os.path.basename(argv[0]))
    return Outcome(status, capture.text(), not ended, time.monotonic() - started)


def _start(
    argv: Sequence[str], folder: Path, env: Mapping[str, str], apart: bool
) -> subprocess.Popen[bytes]:
    """apart: two pipes for its two outputs, instead of one."""
    import subprocess

    for attempt in range(BUSY_ATTEMPTS):
        try:
            return subprocess.Popen(
                list(argv),
                cwd=folder,
                env=dict(env),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE if apart else subprocess.STDOUT,
                start_new_session=True,
                bufsize=0,
            )
        except OSError as caught:
            if caught.errno != errno.ETXTBSY or attempt == BUSY_ATTEMPTS - 1:
                raise
            time.sleep(0.01)
    raise AssertionError("unreachable")


#: The pipes from a tool, and what takes what comes out of each.
_Outputs = list[tuple[IO[bytes], "_Capture | _Result"]]


def _outputs(
    process: subprocess.Popen[bytes], capture: _Capture, result: BinaryIO | None, limits: Limits
) -> _Outputs:
    assert process.stdout is not None
    if result is None or process.stderr is None:
        found: _Outputs = [(process.stdout, capture)]
    else:
        found = [(process.stdout, _Result(result, limits.file_bytes)), (process.stderr, capture)]
    for pipe, _ in found:
        os.set_blocking(pipe.fileno(), False)
    return found


def _limit_all(pid: int, folder: Path, limits: Limits) -> None:
    """Limit a tool that has just started, and what it has started meanwhile: other threads may
    have delayed us for long."""
    if not _limit(pid, limits):
        return
    limited = {pid}
    for _ in range(STRAY_ATTEMPTS if limits.children else 0):
        found = set(_processes_at(folder)) - limited
        for each in found:
            _limit(each, limits)
        if not found:
            return
        limited |= found


def _limit(pid: int, limits: Limits) -> bool:
    """Limit one process; False where the system cannot (macOS)."""
    import resource

    if not hasattr(resource, "prlimit"):
        return False
    # CPU time, of all processors together: ends the tool if we are killed before we stop it.
    seconds = math.ceil(limits.seconds * (os.cpu_count() or 1)) + 1
    wanted = (
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_AS, limits.memory_bytes),
        (resource.RLIMIT_FSIZE, limits.file_bytes),
        (resource.RLIMIT_CORE, 0),
    )
    for kind, value in wanted:
        # ProcessLookupError: it has ended already.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            hard = resource.prlimit(pid, kind)[1]
            if hard != resource.RLIM_INFINITY:
                value = min(value, hard)
            resource.prlimit(pid, kind, (value, value))
    return True


def _follow(
    process: subprocess.Popen[bytes], outputs: _Outputs, deadline: float, cancel: Cancel
) -> bool:
    """Read until the tool ends: True; False when time is up or `cancel` is set."""
    import selectors

    with selectors.DefaultSelector() as selector:
        for pipe, taker in outputs:
            selector.register(pipe, selectors.EVENT_READ, taker)
        while True:
            left = deadline - time.monotonic()
            if left <= 0 or cancel.is_set():
                return False
            still_open = bool(selector.get_map())
            ready = selector.select(min(left, TICK_SECONDS)) if still_open else []
            for key, _ in ready:
                data = os.read(key.fd, 1 << 16)
                key.data.add(data)
                if not data:
                    selector.unregister(key.fileobj)
            if _has_ended(process):  # a child may write on; the tool's own output is drained later
                return True
            if not still_open:
                time.sleep(min(left, 0.002))


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Whether the leader has ended, leaving it unreaped where the system can."""
    if not hasattr(os, "waitid"):
        return process.poll() is not None
    options = os.WEXITED | os.WNOHANG | os.WNOWAIT
    try:
        return os.waitid(os.P_PID, process.pid, options) is not None
    except ChildProcessError:  # a caller that ignores SIGCHLD: the system has reaped it
        return True


def _kill_strays(folder: Path) -> None:
    """Kill what left the tool's process group (setsid). Repeated until there is none: one may just
    have started another."""
    import signal

    for _ in range(STRAY_ATTEMPTS):
        found = _processes_at(folder)
        for pid in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        if not found:
            return


def _processes_at(folder: Path) -> list[int]:
    """The processes that have this folder as TMPDIR, or are in it or below it."""
    if not os.path.isdir("/proc/self"):
        return []
    marks = (b"TMPDIR=" + os.fsencode(folder), os.path.realpath(folder))
    running = {int(name) for name in os.listdir("/proc") if name.isdigit()} - {os.getpid()}
    return [pid for pid in running if _is_at(pid, marks)]


def _is_at(pid: int, marks: tuple[bytes, str]) -> bool:
    """Whether a process has this TMPDIR or this current folder. One that has ended has neither."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            if marks[0] in file.read().split(b"\0"):
                return True
        here = os.readlink(f"/proc/{pid}/cwd")
    except OSError:  # another user's, or it has ended
        return False
    return here == marks[1] or here.startswith(marks[1] + os.sep)


def made_file(path: Path, folder: Path) -> int | None:
    """The size in bytes of a file that a tool made below `folder`; None if it is no plain file.

    A tool that was tricked may leave a symbolic link to another file, or in place of a folder on
    the way, a hard link to one, or a fifo that blocks whoever opens it. None of these is a result.
    """
    try:
        inside = Path(os.path.realpath(path.parent)).is_relative_to(os.path.realpath(folder))
        status = os.lstat(path)
    except OSError:
        return None
    plain = stat.S_ISREG(status.st_mode) and status.st_nlink == 1
    return status.st_size if plain and inside else None


def _drain(outputs: _Outputs) -> None:
    """Read the tool's last output. 64 reads a pipe at most: a child that got away may write on."""
    with contextlib.ExitStack() as stack:
        for pipe, _ in outputs:
            stack.enter_context(pipe)
        for pipe, taker in outputs:
            for _ in range(64):
                try:
                    data = os.read(pipe.fileno(), 1 << 16)
                except BlockingIOError:
                    break
                if not data:
                    break
                taker.add(data)
