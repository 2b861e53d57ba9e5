"""What Ctrl-C, and a polite kill, do to a command: one interrupt, however often it is asked for."""

from __future__ import annotations

import sys


def interrupt(number: int, frame: object) -> None:
    """The handler of a signal: raises KeyboardInterrupt, unless one is on its way already.

    A second one, raised where the first has things put in order (`finally`, `except`, the exit of
    a `with`), would cut that short: a tool that runs on, a file that stays. No code there can keep
    it out, as a handler runs before the first line of a function. One that was lost on its way, as
    Python does in a destructor, is not in the way of the next.
    """
    error = sys.exc_info()[1]  # of what was called from there, too
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return
        error = error.__context__
    raise KeyboardInterrupt
