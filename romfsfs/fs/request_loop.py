"""The loop that takes requests from the kernel and hands them to libfuse 2.

libfuse's own is not used, for two reasons.

It can deadlock. libfuse before 3.13 locks the path of every request. A request with two paths
(rename, link) that has to wait may hold one of them already; another that removes a name (rmdir,
unlink, rename) then waits for it and blocks later ones, that same rename included. No request for
a path near the two is ever answered (https://github.com/libfuse/libfuse/issues/695). Here such
requests enter libfuse one at a time, under a lock that is taken before libfuse's own: a request
that waits there holds nothing. All others run in parallel with them and with each other.

And with several clients its threads, each with a request, spend their time passing the GIL
around: eight clients are served three times faster by two threads. So only `_PLACES` threads take
requests; but a slow request gives up its place to another thread, so that the mount answers while
a commit runs.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import logging
import os
import select
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

from romfsfs.errors import RomfsError

log = logging.getLogger(__name__)

#: The first version of libfuse (major, minor) whose own loop does not deadlock.
MENDED = (3, 13)

#: Threads that take requests. With one, the kernel has no thread to wake while the last answer is
#: under way: a single client is served at two thirds of the speed.
_PLACES = 2
#: Seconds; a request that lasts longer gives up its place to another thread.
_LONG = 0.02
_LOOKS_UNTIL_ASLEEP = 50  # at an unused mount, before the main thread waits to be woken

# <linux/fuse.h>: enum fuse_opcode, and its offset in struct fuse_in_header
_OPCODE_OFFSET = 4
_UNLINK, _RMDIR, _RENAME, _LINK, _RENAME2 = 10, 11, 12, 13, 45
_APART = frozenset({_UNLINK, _RMDIR, _RENAME, _LINK, _RENAME2})

#: The signals that end a mount.
END = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
NUDGE = signal.SIGUSR1  # sent to a thread, whose system call then fails with EINTR
_NUDGE_PAUSE = 0.005  # seconds until the next: one that comes before the call has no effect

_Pointer = ctypes.c_void_p


def main_2(library: ctypes.CDLL) -> Callable[..., int]:
    """A `fuse_main_real` as libfuse 2's, same arguments and results, for a foreground mount.

    Call it in the main thread: it sets signal handlers. Raises RomfsError for a library that
    lacks a function.
    """
    call = _Functions(library)

    def fuse_main_real(count: int, words: Any, operations: Any, size: int, data: Any) -> int:
        mountpoint, threaded = ctypes.c_void_p(), ctypes.c_int()
        fuse = call.setup(
            count, words, operations, size, ctypes.byref(mountpoint), ctypes.byref(threaded), data
        )
        if not fuse:
            return 1
        failed = True
        if not threaded:  # `-o nothreads`: no request can wait for another
            failed = call.loop(fuse) != 0
            call.teardown(fuse, mountpoint)
            return int(failed)
        loop = RequestLoop(call, call.get_session(fuse))
        # The handlers stay: a second signal must not interrupt the clean-up after the loop.
        for number in (*END, NUDGE):
            signal.signal(number, loop.end)
        if call.start_cleanup(fuse) == 0:  # the thread that forgets names, for `-o remember`
            failed = not loop.run()
            call.stop_cleanup(fuse)
        call.teardown(fuse, mountpoint)
        return int(failed)

    return fuse_main_real


class RequestLoop:
    """Serves one libfuse session in threads of its own, which live as long as `run` runs."""

    def __init__(self, call: _Functions, session: int) -> None:
        self.call = call
        self.session = session
        self.channel = call.next_chan(session, None)
        self.apart = threading.Lock()  # lets in one request of `_APART` at a time
        self.asleep = False  # the main thread waits to be woken by the next request
        self.ending = False
        self.failed = False
        self.may_go = threading.Event()
        self._bell = os.pipe()  # a byte in it wakes the main thread
        self._workers: list[_Worker] = []  # used by the main thread only

    def run(self) -> bool:
        """Serve until unmounted or ended by a signal. False: reading from the kernel failed.

        Main thread only.
        """
        reading, writing = self._bell
        os.set_blocking(reading, False)
        os.set_blocking(writing, False)
        # The signal's number is written there whichever thread the kernel interrupts.
        before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        if not self.call.exited(self.session):  # by a signal before our handlers were set
            self._watch()
        self._join()
        signal.set_wakeup_fd(before)
        for fd in self._bell:
            os.close(fd)
        return not self.failed

    def end(self, number: int, _: object) -> None:
        """The signal handler: end the loop, unless the signal is NUDGE."""
        self.ending |= number != NUDGE

    def ring(self) -> None:
        """Wake the main thread. Any thread."""
        with contextlib.suppress(BlockingIOError):  # full: it has been rung often enough
            os.write(self._bell[1], b"\0")

    def _watch(self) -> None:
        """Keep `_PLACES` threads taking requests: one with a slow request gives up its place."""
        seen: dict[_Worker, int] = {}
        quiet = 0
        while not self.ending:
            self._fill_places()
            self.asleep = quiet >= _LOOKS_UNTIL_ASLEEP
            if self.asleep and self._begun() != seen:
                self.asleep = False  # a request began before it could see `asleep`
            pause = None if self.asleep else _LONG
            if select.select([self._bell[0]], [], [], pause)[0]:
                os.read(self._bell[0], select.PIPE_BUF)
            begun = self._begun()
            quiet = quiet + 1 if begun == seen else 0
            for worker, number in begun.items():
                # It may have finished just now. Then it leaves after its next request: no harm.
                worker.has_place = not (worker.busy and seen.get(worker) == number == worker.begun)
            seen = begun

    def _fill_places(self) -> None:
        self._workers = [worker for worker in self._workers if not worker.has_left]
        while len(self._begun()) < _PLACES:
            worker = _Worker(self)
            try:
                worker.start()
            except RuntimeError as error:  # the system has no more: try again at the next look
                log.warning("a request waits for a thread: %s", error)
                break
            self._workers.append(worker)

    def _begun(self) -> dict[_Worker, int]:
        """The number of requests begun, for each thread that has a place."""
        return {worker: worker.begun for worker in self._workers if worker.has_place}

    def _join(self) -> None:
        """Wait for all threads: let them finish their requests, wake those that wait for one."""
        for worker in self._workers:
            while not worker.has_left:
                if not worker.busy and worker.ident is not None:
                    signal.pthread_kill(worker.ident, NUDGE)
                time.sleep(_NUDGE_PAUSE)
        self.may_go.set()
        for worker in self._workers:
            worker.join()


class _Worker(threading.Thread):
    """A thread that takes and answers requests for as long as it has a place."""

    def __init__(self, loop: RequestLoop) -> None:
        super().__init__(name="requests", daemon=True)
        self._loop = loop
        self._size = loop.call.bufsize(loop.channel)
        self.has_place = True
        self.begun = 0  # number of requests
        self.busy = False  # with a request
        self.has_left = False

    def run(self) -> None:
        loop = self._loop
        try:
            if not self._serve(ctypes.create_string_buffer(self._size)):
                loop.ending = True
                loop.ring()
        finally:
            self.has_left = True
            if loop.ending:  # `_join` may be about to signal this thread: it must exist
                loop.may_go.wait()

    def _serve(self, buffer: Any) -> bool:
        """Take and answer requests until the place is taken away. False: the mount has ended."""
        loop = self._loop
        # The hot path of every request: look names up once.
        receive, process = loop.call.receive, loop.call.process
        session, channel, apart = loop.session, loop.channel, loop.apart
        address, size = ctypes.addressof(buffer), self._size
        opcode = ctypes.c_uint32.from_buffer(buffer, _OPCODE_OFFSET)
        out_channel = _Pointer(channel)
        while self.has_place:
            length = receive(ctypes.byref(out_channel), address, size)
            if length <= 0:
                if length == -errno.EINTR and not loop.ending:
                    continue
                loop.failed |= length not in (0, -errno.EINTR)  # 0: it was unmounted
                return False
            self.begun += 1
            self.busy = True
            if loop.asleep:
                loop.ring()
            if opcode.value in _APART:
                with apart:
                    process(session, address, length, channel)
            else:
                process(session, address, length, channel)
            self.busy = False
            if loop.ending:
                return False
        return True


def function_of(library: ctypes.CDLL, name: str, result: Any, *types: Any) -> Callable[..., Any]:
    """A function of libfuse. Raises RomfsError if this library lacks it."""
    try:
        # A new object: the attribute of `library` is the binding's, with the binding's types.
        return ctypes.CFUNCTYPE(result, *types)((name, library))
    except AttributeError:
        raise RomfsError(
            f"this libfuse has no {name}", where=str(library._name),
            next_step="use libfuse 2.9, or libfuse 3 with pip install 'romfsfs[fuse3]'",
        ) from None  # fmt: skip


class _Functions:
    """The functions of libfuse 2 that are called here, each with its types."""

    def __init__(self, library: ctypes.CDLL) -> None:
        def function(name: str, result: Any, *arguments: Any) -> Callable[..., Any]:
            return function_of(library, name, result, *arguments)

        pointer, number, size = ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t
        # <fuse.h>
        self.setup = function(
            "fuse_setup", pointer, number, pointer, pointer, size, pointer, pointer, pointer
        )
        self.teardown = function("fuse_teardown", None, pointer, pointer)
        self.get_session = function("fuse_get_session", pointer, pointer)
        self.loop = function("fuse_loop", number, pointer)
        self.start_cleanup = function("fuse_start_cleanup_thread", number, pointer)
        self.stop_cleanup = function("fuse_stop_cleanup_thread", None, pointer)
        # <fuse_lowlevel.h>
        self.exited = function("fuse_session_exited", number, pointer)
        self.next_chan = function("fuse_session_next_chan", pointer, pointer, pointer)
        self.bufsize = function("fuse_chan_bufsize", size, pointer)
        self.receive = function("fuse_chan_recv", number, pointer, pointer, size)
        self.process = function("fuse_session_process", None, pointer, pointer, size, pointer)
