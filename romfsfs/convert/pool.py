"""Background workers: conversions run here while the mount keeps answering.

A path is queued at most once. Submitting a path whose conversion is running cancels and restarts
that, because the file has changed since. Nothing is reported for a cancelled conversion, nor for a
file that changed while it was read: whoever changes a file submits it afterwards.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from romfsfs.convert.types import Conversion, Diagnostic, StaleSource, State, error
from romfsfs.errors import Cancelled

log = logging.getLogger(__name__)

_MAX_WORKERS = 4

#: Opens and hashes the file, then calls `Converters.convert` with the event as `cancel`.
Work = Callable[[str, threading.Event], Conversion]
Done = Callable[[str, Conversion], None]


class WorkerPool:
    """Runs `work(path, cancel)` for submitted paths on at most `workers` threads.

    done: called on a worker thread with each result that was not cancelled; it may submit.
    `submit` starts the threads, so fork before it (ARCHITECTURE.md). `close` kills the tools they
    run and ends them, within a fraction of a second. Any thread may call any method."""

    def __init__(self, work: Work, done: Done | None = None, workers: int | None = None) -> None:
        self._work = work
        self._done = done
        count = workers or min(_MAX_WORKERS, os.cpu_count() or 1)
        self._threads = ThreadPoolExecutor(count, "romfsfs-convert")
        self._changed = threading.Condition()
        #: Queued or running. The event is set: not begun yet, or to be cancelled and run again.
        self._pending: dict[str, threading.Event] = {}
        self._closed = False

    def submit(self, path: str) -> None:
        """Queue `path`, or restart its running conversion. Does nothing after `close`."""
        with self._changed:
            if self._closed:
                return
            is_new = path not in self._pending
            self._pending.setdefault(path, threading.Event()).set()
            if is_new:
                try:
                    self._threads.submit(self._run, path)
                except RuntimeError as caught:  # it is queued all the same; a save must not fail
                    log.warning("no thread to convert %s on: %s", path, caught)

    def ensure(self, path: str) -> None:
        """Queue `path` unless it is queued or running already."""
        with self._changed:
            if path not in self._pending:
                self.submit(path)

    def pending(self) -> frozenset[str]:
        """The paths that are queued or running."""
        with self._changed:
            return frozenset(self._pending)

    def wait_idle(self, timeout: float | None = None) -> bool:
        """Wait until nothing is pending; False if `timeout` seconds were not enough."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._pending, timeout)

    def close(self, timeout: float = 5.0) -> None:
        """Drop what is queued, cancel what runs, and wait for that up to `timeout` seconds."""
        with self._changed:
            self._closed = True
            for cancel in self._pending.values():
                cancel.set()
        self._threads.shutdown(wait=False)
        self.wait_idle(timeout)

    def _run(self, path: str) -> None:
        """Convert `path`, on a worker thread, until nobody has submitted it again."""
        while (cancel := self._begin(path)) is not None:
            result = self._attempt(path, cancel)
            if result is not None and not cancel.is_set():
                self._report(path, result)

    def _begin(self, path: str) -> threading.Event | None:
        """The cancel event of the run that begins now; None: there is nothing more to do."""
        with self._changed:
            if self._pending[path].is_set() and not self._closed:
                cancel = self._pending[path] = threading.Event()
                return cancel
            del self._pending[path]
            self._changed.notify_all()
            return None

    def _attempt(self, path: str, cancel: threading.Event) -> Conversion | None:
        """Convert once; no exception leaves the worker. None: there is nothing to report."""
        try:
            return self._work(path, cancel)
        except (Cancelled, StaleSource):
            return None
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None  # removed or replaced meanwhile: whoever did that submits the new file
        except OSError as caught:  # the disk fails: no bug of ours, and `status` tries again
            return _failed(path, error("io", f"cannot be read: {caught.strerror or caught}"))
        except Exception as caught:
            log.exception("converting %s failed", path)
            message = f"internal error while converting: {type(caught).__name__}: {caught}"
            return _failed(path, error("internal", message))

    def _report(self, path: str, result: Conversion) -> None:
        if self._done is None:
            return
        try:
            self._done(path, result)
        except Exception:
            log.exception("reporting the conversion of %s failed", path)


def _failed(path: str, diagnostic: Diagnostic) -> Conversion:
    return Conversion(State.FAILED, path, diagnostics=(diagnostic,))
