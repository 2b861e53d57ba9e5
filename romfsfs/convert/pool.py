"""Background workers: conversions run here while the mount goes on answering.

A path is queued at most once. Submitting one that is being worked on stops that work, because
the file has changed since, and begins it again; nothing is reported for the stopped one, nor for
a file that changed while it was read: whoever changes a file submits it when that is done.
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

#: Opens and hashes the file, calls `Converters.convert` with the event as `cancel`.
Work = Callable[[str, threading.Event], Conversion]
Done = Callable[[str, Conversion], None]


class WorkerPool:
    """Runs `work(path, cancel)` for submitted paths on at most `workers` threads.

    done is called on a worker thread with each result that is still wanted; it may submit.
    The threads are started by `submit` (fork first: ARCHITECTURE.md). `close` kills what they run
    and ends them, within a fraction of a second."""

    def __init__(self, work: Work, done: Done | None = None, workers: int | None = None) -> None:
        self._work = work
        self._done = done
        count = workers or min(_MAX_WORKERS, os.cpu_count() or 1)
        self._threads = ThreadPoolExecutor(count, "romfsfs-convert")
        self._changed = threading.Condition()
        #: Queued or at work. An event that is set: to be done, or to be stopped and done again.
        self._pending: dict[str, threading.Event] = {}
        self._closed = False

    def submit(self, path: str) -> None:
        """Have `path` worked on, first come first served. After `close` it does nothing."""
        with self._changed:
            if self._closed:
                return
            is_new = path not in self._pending
            self._pending.setdefault(path, threading.Event()).set()
            if is_new:
                try:
                    self._threads.submit(self._run, path)
                except RuntimeError as caught:  # it is queued; the save must not fail
                    log.warning("no thread to convert %s on: %s", path, caught)

    def ensure(self, path: str) -> None:
        """As `submit`, but for a path that is queued or worked on already it does nothing."""
        with self._changed:
            if path not in self._pending:
                self.submit(path)

    def pending(self) -> frozenset[str]:
        """The paths that are queued or being worked on."""
        with self._changed:
            return frozenset(self._pending)

    def wait_idle(self, timeout: float | None = None) -> bool:
        """Wait until nothing is pending; False when `timeout` seconds were not enough."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._pending, timeout)

    def close(self, timeout: float = 5.0) -> None:
        """Forget what is queued, stop what runs, and wait for that up to `timeout` s."""
        with self._changed:
            self._closed = True
            for cancel in self._pending.values():
                cancel.set()
        self._threads.shutdown(wait=False)
        self.wait_idle(timeout)

    def _run(self, path: str) -> None:
        """On a worker thread, until nobody asks for the path again."""
        while (cancel := self._begin(path)) is not None:
            result = self._attempt(path, cancel)
            if result is not None and not cancel.is_set():
                self._report(path, result)

    def _begin(self, path: str) -> threading.Event | None:
        """What will stop the work that begins now; None: there is none."""
        with self._changed:
            if self._pending[path].is_set() and not self._closed:
                cancel = self._pending[path] = threading.Event()
                return cancel
            del self._pending[path]
            self._changed.notify_all()
            return None

    def _attempt(self, path: str, cancel: threading.Event) -> Conversion | None:
        """The worker boundary: whatever happens in there, the thread and the user go on."""
        try:
            return self._work(path, cancel)
        except (Cancelled, StaleSource):
            return None
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None  # removed or replaced meanwhile: who did that submits what is there
        except OSError as caught:  # its disk fails: not our fault, and the status asks again
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
