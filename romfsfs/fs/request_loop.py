"""The loop that takes requests from the kernel and hands them to libfuse 2.

libfuse's own is not used, for two reasons.

It can stop for good. libfuse before 3.13 locks the path of every request. One with two paths
(rename, link) that has to wait may hold one of them already; another that takes a name away
(rmdir, unlink, rename) then waits for it, and shuts out later ones, that same rename too. No
request that comes near the two is ever answered (https://github.com/libfuse/libfuse/issues/695).
Here these are let into libfuse one at a time, by a lock that is taken before libfuse's own: a
request that waits there holds nothing. All others run beside them and beside each other.

And with several clients its threads, each with a request, spend their time handing the
interpreter's lock around: eight are served three times faster by two threads. So only so many
threads take requests; but a request that lasts leaves its place to another thread, so that the
mount answers while a commit runs.
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

#: The first version of libfuse (major, minor) whose own loop does not stop for good.
MENDED = (3, 13)

#: With one, the kernel has nobody to wake while the answer to the last request is on its way:
#: a single client is served at two thirds of the speed.
_PLACES = 2
#: A request that lasts longer, in seconds, leaves its place to another thread.
_LONG = 0.02
_LOOKS_UNTIL_ASLEEP = 50  # at a mount that nobody uses, before it is not looked at any more

# <linux/fuse.h>: enum fuse_opcode, and where it is in struct fuse_in_header
_OPCODE_OFFSET = 4
_UNLINK, _RMDIR, _RENAME, _LINK, _RENAME2 = 10, 11, 12, 13, 45
_APART = frozenset({_UNLINK, _RMDIR, _RENAME, _LINK, _RENAME2})

#: The signals that end a mount.
END = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
NUDGE = signal.SIGUSR1  # to a thread, which gets EINTR from the kernel
_NUDGE_PAUSE = 0.005  # seconds until the next: the first may come too early

_Pointer = ctypes.c_void_p


def main_2(library: ctypes.CDLL) -> Callable[..., int]:
    """libfuse 2's `fuse_main_real`, with its arguments and results, for a foreground mount.

    What it returns must be called in the main thread: it sets the handlers of signals. Raises
    RomfsError for a library that lacks a function.
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
        if not threaded:  # `-o nothreads`, where nothing can wait for another
            failed = call.loop(fuse) != 0
            call.teardown(fuse, mountpoint)
            return int(failed)
        loop = RequestLoop(call, call.get_session(fuse))
        # They stay: a second one must not cut off what comes after the loop.
        for number in (*END, NUDGE):
            signal.signal(number, loop.end)
        if call.start_cleanup(fuse) == 0:  # of names, for `-o remember`
            failed = not loop.run()
            call.stop_cleanup(fuse)
        call.teardown(fuse, mountpoint)
        return int(failed)

    return fuse_main_real


class RequestLoop:
    """Serves one session of libfuse, in threads of its own, from `run` until that returns."""

    def __init__(self, call: _Functions, session: int) -> None:
        self.call = call
        self.session = session
        self.channel = call.next_chan(session, None)
        self.apart = threading.Lock()  # held for a request that must not meet its like
        self.asleep = False  # the main thread wants to hear of the next request
        self.ending = False
        self.failed = False
        self.may_go = threading.Event()
        self._bell = os.pipe()  # for the main thread: written to, it looks what is new
        self._workers: list[_Worker] = []  # the main thread's alone

    def run(self) -> bool:
        """Serve until it is unmounted or a signal ends it; False: the kernel could not be heard.

        Main thread.
        """
        reading, writing = self._bell
        os.set_blocking(reading, False)
        os.set_blocking(writing, False)
        # The signal's number is written there whichever thread the system interrupts.
        before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        if not self.call.exited(self.session):  # by a signal, before the handlers were ours
            self._watch()
        self._join()
        signal.set_wakeup_fd(before)
        for fd in self._bell:
            os.close(fd)
        return not self.failed

    def end(self, number: int, _: object) -> None:
        """What a signal does."""
        self.ending |= number != NUDGE

    def ring(self) -> None:
        """Make the main thread look. Any thread."""
        with contextlib.suppress(BlockingIOError):  # full: it has been rung often enough
            os.write(self._bell[1], b"\0")

    def _watch(self) -> None:
        """Keep threads at all places: one with a request that lasts leaves its place to another."""
        seen: dict[_Worker, int] = {}
        quiet = 0
        while not self.ending:
            self._fill_places()
            self.asleep = quiet >= _LOOKS_UNTIL_ASLEEP
            if self.asleep and self._begun() != seen:
                self.asleep = False  # a request that did not ring yet
            pause = None if self.asleep else _LONG
            if select.select([self._bell[0]], [], [], pause)[0]:
                os.read(self._bell[0], select.PIPE_BUF)
            begun = self._begun()
            quiet = quiet + 1 if begun == seen else 0
            for worker, number in begun.items():
                # It may just have finished. Then it ends after the next one: no harm.
                worker.has_place = not (worker.busy and seen.get(worker) == number == worker.begun)
            seen = begun

    def _fill_places(self) -> None:
        self._workers = [worker for worker in self._workers if not worker.has_left]
        while len(self._begun()) < _PLACES:
            worker = _Worker(self)
            try:
                worker.start()
            except RuntimeError as error:  # the system has no more: at the next look, perhaps
                log.warning("a request waits for a thread: %s", error)
                break
            self._workers.append(worker)

    def _begun(self) -> dict[_Worker, int]:
        """How many requests each thread that has a place has begun."""
        return {worker: worker.begun for worker in self._workers if worker.has_place}

    def _join(self) -> None:
        """Wait for all threads: their requests end, or they are woken from waiting for one."""
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
        self.begun = 0  # requests
        self.busy = False  # with one
        self.has_left = False

    def run(self) -> None:
        loop = self._loop
        try:
            if not self._serve(ctypes.create_string_buffer(self._size)):
                loop.ending = True
                loop.ring()
        finally:
            self.has_left = True
            if loop.ending:  # it may be about to get a signal
                loop.may_go.wait()

    def _serve(self, buffer: Any) -> bool:
        """Take and answer requests until the place is taken away. False: there are no more."""
        loop = self._loop
        # Every request passes here: what it needs is looked up once.
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
    """A function of libfuse. RomfsError where this one lacks it."""
    try:
        # An object of our own: that of `library` is the binding's, and has its types.
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
