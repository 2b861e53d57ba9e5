"""How a signal ends a mount of libfuse 3.

libfuse's own handlers restore the default action as soon as its loop has ended, before it runs
fusermount3 (for users other than root) and long before the daemon has cleaned up: a second signal
then kills the daemon, and the tools it started run on. So the handlers are Python's, which libfuse
leaves alone. They only write the signal's number to a pipe (`set_wakeup_fd`); a thread reads it
and makes libfuse end its loop.
"""

from __future__ import annotations

import ctypes
import os
import signal
import threading
from collections.abc import Callable
from typing import Any

from romfsfs.fs.request_loop import END, NUDGE, function_of

#: Seconds until the main thread is woken again: the first time has no effect if it comes just
#: before the loop waits.
_NUDGE_PAUSE = 0.5


class Ending:
    """Ends one mount. Call `begin` in libfuse's first request (init), `forget` in its last."""

    def __init__(self, library: ctypes.CDLL) -> None:
        pointer = ctypes.c_void_p
        # <fuse.h>, <fuse_lowlevel.h>; a struct fuse_context begins with its struct fuse
        self._context = function_of(library, "fuse_get_context", ctypes.POINTER(pointer))
        self._session_of = function_of(library, "fuse_get_session", pointer, pointer)
        self._exit = function_of(library, "fuse_session_exit", None, pointer)
        self._lock = threading.Lock()
        self._session: int | None = None
        self._begun = threading.Event()
        self._over = threading.Event()

    def begin(self) -> None:
        """Let signals end the loop from now on. Called within a request."""
        with self._lock:
            self._session = self._session_of(self._context().contents)
        self._begun.set()

    def forget(self) -> None:
        """Let go of the session, which is about to be freed."""
        with self._lock:
            self._session = None

    def around(self, fuse_main_real: Callable[..., int]) -> Callable[..., int]:
        """libfuse's function with our signal handlers, to be called in the main thread."""

        def main(*arguments: Any) -> int:
            reading, writing = os.pipe()
            os.set_blocking(writing, False)
            # The handlers stay: a second signal must not interrupt the clean-up after the loop.
            for number in (*END, NUDGE):
                signal.signal(number, lambda *_: None)
                # Only NUDGE interrupts system calls: libfuse's wait for fusermount3 must go on.
                signal.siginterrupt(number, number == NUDGE)
            before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
            threading.Thread(target=self._watch, args=(reading,), daemon=True).start()
            try:
                return fuse_main_real(*arguments)
            finally:
                signal.set_wakeup_fd(before)
                self._over.set()
                os.close(writing)

        return main

    def _watch(self, reading: int) -> None:
        """Wait for a signal that ends the mount, and end it."""
        with open(reading, "rb", 0) as numbers:  # to its end: other signals are written there too
            while heard := numbers.read(512):
                if not set(END).isdisjoint(heard):
                    self._end()
                    return

    def _end(self) -> None:
        self._begun.wait()
        with self._lock:
            if self._session is not None:
                self._exit(self._session)
        waiting = threading.main_thread().ident
        while waiting is not None:
            signal.pthread_kill(waiting, NUDGE)
            if self._over.wait(_NUDGE_PAUSE):
                break
