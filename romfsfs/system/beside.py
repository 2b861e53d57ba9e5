"""Work in threads beside this one, which a signal may interrupt wherever it is.

Python runs a signal's handler in the main thread between two steps, and the handler raises
KeyboardInterrupt there. In the middle of `threading.Condition`, on which `Event`, `Thread.start`
and the executors are built, that leaves a lock taken for ever (https://bugs.python.org/issue29988),
an error of another kind, or a thread that nobody knows of. So the thread that waits here uses no
lock of Python's, and whatever it has noted may be looked at twice. It waits in short turns: a
signal that comes just before a wait, or is given to another thread, is noticed only after it.
"""

from __future__ import annotations

import _thread
import contextlib
import queue
from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

from romfsfs.errors import RomfsError

T = TypeVar("T")

#: How soon a signal is noticed that came just before a wait, seconds.
_TICK = 0.05
#: Who began a piece of work, instead of a thread: nobody, and nobody will.
_WITHDRAWN = object()


class Cancel(Protocol):
    """Tells work to stop; a `threading.Event` is one."""

    def is_set(self) -> bool: ...


class Beside(Generic[T]):
    """Does each piece of `work` in one of so many threads, from entering to leaving this context.

    A piece is given what tells it to stop: set when the context is left by an exception, and when
    `cancel` is. Leaving waits for all that has begun; what has not is not begun any more.
    RomfsError when the system has no thread.
    """

    def __init__(
        self, work: Sequence[Callable[[Cancel], T]], threads: int = 0, cancel: Cancel | None = None
    ) -> None:
        self._work = work
        self._threads = min(len(work), threads or len(work))
        self._cancel = cancel
        self._stopped = False
        self._begun_by: dict[int, object] = {}  # setdefault: who comes first has it
        self._outcomes: dict[int, tuple[T, None] | tuple[None, BaseException]] = {}
        self._bell: queue.SimpleQueue[None] = queue.SimpleQueue()

    def is_set(self) -> bool:
        return self._stopped or (self._cancel is not None and self._cancel.is_set())

    def result(self, number: int) -> T:
        """Wait for this piece of work; what it returned, or raise what it raised."""
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
        """However impatient who interrupts: what has begun is ended first."""
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
        """A thread: begin whatever nobody has begun."""
        me = object()  # no number of the system's: that of a thread that ended is given again
        for number, function in enumerate(self._work):
            if self._begun_by.setdefault(number, me) is not me:
                continue
            try:
                self._outcomes[number] = function(self), None
            except BaseException as error:  # noqa: BLE001 (`result` raises it)
                self._outcomes[number] = None, error
            self._bell.put(None)
