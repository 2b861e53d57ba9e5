"""What surrounds every operation: the one place where an exception becomes an error number.

Both bindings have holes here: an OSError without errno (pyserial raises such) escapes fusepy's
wrapper as a NameError and kills the request loop, anything else becomes EINVAL. So every
operation is wrapped, and what leaves the wrapper is an OSError with an errno, always.

It also keeps Python's state of a request's thread. libfuse 3 makes its own threads, so ctypes
makes an interpreter thread state for each call and frees it again: two system calls and a few page
faults (16 KiB of stack) at every request, a third of a request's time. Holding one reference for
the thread (PyGILState_Ensure without its Release) keeps the state instead.
"""

from __future__ import annotations

import ctypes
import errno
import itertools
import logging
import os
import threading
from collections.abc import Callable
from typing import Any

from romfsfs.errors import RomfsError, count_text

log = logging.getLogger(__name__)

# Other errors are normal answers to a user's mistake. These mean that something is wrong with the
# machine or with us, and someone will look for the reason in the log.
_WORTH_LOGGING = frozenset(
    {errno.EIO, errno.EBADF, errno.EFAULT, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE}
)

# A kept state outlives its thread, and libfuse ends its threads beyond about ten. So only so many
# threads get one: repeated bursts of requests must not fill the memory.
_KEPT_THREADS = 64

_thread = threading.local()
_numbers = itertools.count(1)


class AskAgain(OSError):
    """ESTALE: the kernel drops what it cached of this path and asks again; programs see nothing."""

    def __init__(self) -> None:
        super().__init__(errno.ESTALE, os.strerror(errno.ESTALE))


def guarded(name: str, operation: Callable[..., Any]) -> Callable[..., Any]:
    """`operation`, but every exception leaves it as an OSError with a positive errno."""

    def dispatch(*args: Any) -> Any:
        try:
            _thread.known  # noqa: B018
        except AttributeError:
            _keep_thread_state()
        try:
            return operation(*args)
        except (FileNotFoundError, AskAgain):  # the first is the commonest answer of all
            raise
        except OSError as error:
            number = error.errno
            if isinstance(number, int) and number > 0:
                if number in _WORTH_LOGGING:
                    log.error("%s%s failed: %s", name, _brief(args), error)
                raise
            log.exception("%s%s raised an OSError without errno", name, _brief(args))
            raise OSError(errno.EIO, "no errno") from error
        except RomfsError as error:
            log.error("%s%s: %s", name, _brief(args), error.line)
            if error.detail:
                log.error("%s", error.detail)
            raise OSError(errno.EIO, error.what) from error
        except BaseException as error:
            # SystemExit and the like too: libfuse has no use for them, and fusepy's handling of
            # them is a NameError.
            log.exception("%s%s raised", name, _brief(args))
            raise OSError(errno.EIO, type(error).__name__) from error

    return dispatch


def _keep_thread_state() -> None:
    _thread.known = True
    if next(_numbers) <= _KEPT_THREADS and hasattr(ctypes, "pythonapi"):
        ctypes.pythonapi.PyGILState_Ensure()


def _brief(args: tuple[Any, ...]) -> str:
    """The arguments for the log, without file content."""
    return f"({', '.join(map(_shown, args))})"


def _shown(arg: Any) -> str:
    if isinstance(arg, bytes | memoryview):
        return f"<{count_text(len(arg), 'byte')}>"
    handle = getattr(arg, "fh", None)
    return repr(arg) if handle is None else f"handle {handle}"
