"""Background workers: conversions run here while the mount goes on answering.

A path is queued at most once. Submitting one that is being worked on stops that work, because
the file has changed since, and queues it again; nothing is reported for the stopped one.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from romfsfs.convert.types import Conversion, Diagnostic, StaleSource, State, error
from romfsfs.errors import Cancelled

log = logging.getLogger(__name__)

_MAX_WORKERS = 4
#: A file that changes under us this often in a row is left alone until its next `submit`.
_STALE_ATTEMPTS = 3

#: Opens and hashes the file, calls `Converters.convert` with the event as `cancel`.
Work = Callable[[str, threading.Event], Conversion]
Done = Callable[[str, Conversion], None]


class WorkerPool:
    """Runs `work(path, cancel)` for submitted paths on at most `workers` threads.

    done is called on a worker thread with each result that is still wanted; it may submit.
    The threads are started by the first `submit` (fork first: ARCHITECTURE.md) and are daemons:
    `close` ends them and kills what they run, within a fraction of a second."""

    def __init__(self, work: Work, done: Done | None = None, workers: int | None = None) -> None:
        self._work = work
        self._done = done
        self._limit = workers or min(_MAX_WORKERS, os.cpu_count() or 1)
        self._changed = threading.Condition()
        self._queue: OrderedDict[str, None] = OrderedDict()
        self._running: dict[str, threading.Event] = {}
        self._threads: list[threading.Thread] = []
        self._idle = 0
        self._closed = False

    def submit(self, path: str) -> None:
        """Have `path` worked on, first come first served. After `close` it does nothing."""
        with self._changed:
            if self._closed:
                return
            self._queue[path] = None
            if path in self._running:
                self._running[path].set()
            if len(self._queue) > self._idle and len(self._threads) < self._limit:
                try:
                    self._start()
                except RuntimeError as caught:  # the save that asks for it must not fail
                    log.warning("no thread to convert %s on: %s", path, caught)
            self._changed.notify_all()

    def ensure(self, path: str) -> None:
        """As `submit`, but for a path that is queued or worked on already it does nothing."""
        with self._changed:
            if path not in self._queue and path not in self._running:
                self.submit(path)

    def pending(self) -> frozenset[str]:
        """The paths that are queued or being worked on."""
        with self._changed:
            return frozenset(self._queue) | frozenset(self._running)

    def wait_idle(self, timeout: float | None = None) -> bool:
        """Wait until nothing is pending; False when `timeout` seconds were not enough."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._queue and not self._running, timeout)

    def close(self, timeout: float = 5.0) -> None:
        """Forget what is queued, stop what runs, and wait for the threads up to `timeout` s."""
        with self._changed:
            self._closed = True
            self._queue.clear()
            for cancel in self._running.values():
                cancel.set()
            self._changed.notify_all()
            threads = list(self._threads)
        deadline = time.monotonic() + timeout
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join(max(deadline - time.monotonic(), 0))

    def _start(self) -> None:
        name = f"romfsfs-convert-{len(self._threads)}"
        thread = threading.Thread(target=self._run, name=name, daemon=True)
        thread.start()
        self._threads.append(thread)  # one that the system could not start takes no place

    def _run(self) -> None:
        while True:
            with self._changed:
                self._idle += 1
                try:
                    self._changed.wait_for(lambda: self._closed or self._next() is not None)
                finally:
                    self._idle -= 1
                path = self._next()
                if self._closed or path is None:
                    return
                del self._queue[path]
                cancel = self._running[path] = threading.Event()
            result = self._attempt(path, cancel)
            if result is not None and not cancel.is_set():
                self._report(path, result)
            with self._changed:
                del self._running[path]
                self._changed.notify_all()

    def _next(self) -> str | None:
        """The first queued path that no other thread is still stopping."""
        return next((path for path in self._queue if path not in self._running), None)

    def _attempt(self, path: str, cancel: threading.Event) -> Conversion | None:
        """The worker boundary: whatever happens in there, the thread and the user go on."""
        for _ in range(_STALE_ATTEMPTS):
            try:
                return self._work(path, cancel)
            except Cancelled:
                return None
            except StaleSource:
                if cancel.is_set():
                    return None
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                return None  # removed or replaced meanwhile: who did that submits what is there
            except OSError as caught:  # its disk fails: not our fault, and the status asks again
                return _failed(path, error("io", f"cannot be read: {caught.strerror or caught}"))
            except Exception as caught:
                log.exception("converting %s failed", path)
                message = f"internal error while converting: {type(caught).__name__}: {caught}"
                return _failed(path, error("internal", message))
        message = "the file keeps changing; close it in the program that writes it"
        return _failed(path, error("changing", message))

    def _report(self, path: str, result: Conversion) -> None:
        if self._done is None:
            return
        try:
            self._done(path, result)
        except Exception:
            log.exception("reporting the conversion of %s failed", path)


def _failed(path: str, diagnostic: Diagnostic) -> Conversion:
    return Conversion(State.FAILED, path, path, diagnostics=(diagnostic,))
