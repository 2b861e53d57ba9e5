"""The signal handler of a command: SIGINT, SIGTERM or SIGHUP, however many, are one interrupt."""

from __future__ import annotations

import sys


def interrupt(number: int, frame: object) -> None:
    """Raise KeyboardInterrupt, unless one is being handled already.

    A second one, raised during the cleanup for the first (`finally`, `except`, the exit of a
    `with`), would cut that short: a tool runs on, a file stays. No code there can keep it out, as a
    handler may run before a function's first line. An interrupt that Python dropped, as it does in
    a destructor, does not keep out the next.
    """
    error = sys.exc_info()[1]  # also in functions that the cleanup calls
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return
        error = error.__context__
    raise KeyboardInterrupt
