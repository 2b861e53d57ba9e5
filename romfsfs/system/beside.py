"""Work in threads beside this one, which a signal may interrupt anywhere.

Python runs a signal's handler in the main thread between two bytecodes, and the handler raises
KeyboardInterrupt there. In the middle of `threading.Condition`, on which `Event`, `Thread.start`
and the executors are built, that leaves a lock held for ever (https://bugs.python.org/issue29988),
raises another error, or loses track of a thread. So the thread that waits here takes no lock of
Python's, and all its steps may be repeated. It waits in short turns: a signal that comes just
before a wait, or that the system delivers to another thread, is noticed only after that wait.
"""

from __future__ import annotations

import _thread
import contextlib
import queue
from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

from romfsfs.errors import RomfsError

T = TypeVar("T")

#: Seconds of a single wait: so late a signal may be noticed that came just before it.
_TICK = 0.05
#: Claims a piece of work in place of a thread: it was not begun, and will not be.
_WITHDRAWN = object()


class Cancel(Protocol):
    """Tells work to stop; a `threading.Event` is one."""

    def is_set(self) -> bool: ...


class Beside(Generic[T]):
    """Runs each piece of `work` in one of so many threads (0: one each) while the context lasts.

    Each is passed a `Cancel`, set when the context is left by an exception or when `cancel` is set.
    Leaving waits for all work that has begun; the rest is never begun. RomfsError if the system
    cannot start a thread.
    """

    def __init__(
        self, work: Sequence[Callable[[Cancel], T]], threads: int = 0, cancel: Cancel | None = None
    ) -> None:
        self._work = work
        self._threads = min(len(work), threads or len(work))
        self._cancel = cancel
        self._stopped = False
        self._begun_by: dict[int, object] = {}  # claimed by `setdefault`, which is atomic
        self._outcomes: dict[int, tuple[T, None] | tuple[None, BaseException]] = {}
        self._bell: queue.SimpleQueue[None] = queue.SimpleQueue()

    def is_set(self) -> bool:
        return self._stopped or (self._cancel is not None and self._cancel.is_set())

    def result(self, number: int) -> T:
        """Wait for this piece of work. Returns what it returned, or raises what it raised."""
        self._wait([number])
        value, error = self._outcomes[number]
        if error is not None:
            raise error
        return value  # type: ignore[return-value]  # a T, where there is no error

    def __enter__(self) -> Beside[T]:
        try:
            for started in range(self._threads):
                try:
                    _thread.start_new_thread(self._run, ())
                except RuntimeError as error:
                    if not started:
                        raise RomfsError("the system cannot start another thread") from error
        except BaseException:
            self._stopped = True
            self._leave()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._stopped |= kind is not None
        self._leave()

    def _leave(self) -> None:
        """Wait for what has begun, even if interrupted again."""
        try:
            begun = [
                number
                for number in range(len(self._work))
                if self._begun_by.setdefault(number, _WITHDRAWN) is not _WITHDRAWN
            ]
            self._wait(begun)
        except KeyboardInterrupt:
            self._stopped = True
            self._leave()
            raise

    def _wait(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            while number not in self._outcomes:
                with contextlib.suppress(queue.Empty):
                    self._bell.get(timeout=_TICK)

    def _run(self) -> None:
        """What each thread does: the work that no other has begun."""
        me = object()  # not the thread's id: that of an ended thread is used again
        for number, function in enumerate(self._work):
            if self._begun_by.setdefault(number, me) is not me:
                continue
            try:
                self._outcomes[number] = function(self), None
            except BaseException as error:  # noqa: BLE001 (`result` raises it)
                self._outcomes[number] = None, error
            self._bell.put(None)
