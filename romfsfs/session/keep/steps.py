"""The durable steps of a session's operations: after each, a crash leaves a new state on disk.

`KINDS` lists all steps that an operation may pass, in order; `COMMIT`, `UNDO` and `OPEN` those that
it always passes. `tests/session` kills and interrupts a process at each step, and fills its disk.
"""

from __future__ import annotations

from collections.abc import Callable

DISCARD = ("discard-moved",)
REVERT = ("revert-removed", "revert-staged", "revert-restored")
#: A kept work tree is opened again.
RESUME = ("open-info",)

#: The steps of every transaction (`rebase/transaction.py`); a read writes no target.
_BOOKS = ("switched", "followed", "sources", "logged", "done")
_REBASE = ("after-placed", "recorded", "target-written", *_BOOKS)
COMMIT = ("encoded", *_REBASE)
UNDO = _REBASE
_READ = (*RESUME, "read", "after-placed", "recorded")
#: A first read, or a session without edits that adopts a changed target.
OPEN = (*_READ, *_BOOKS)

#: With a work tree that follows, and with a target that does not hold what the base says.
_FOLLOWS = ("switched", *REVERT, *_BOOKS[1:])
_OVER = ("before-kept", "after-placed", "recorded", "target-written", *_FOLLOWS)
_PUSH = (*RESUME, *_OVER)

#: operation -> its steps
KINDS = {
    "commit": ("encoded", *_OVER), "undo": _OVER, "push": _PUSH, "reset": _PUSH,
    "open": OPEN, "adopt": (*_READ, *_FOLLOWS), "resume": RESUME,
    "discard": DISCARD, "revert": REVERT,
}  # fmt: skip


def reached(name: str) -> None:
    """Called after each durable step. Tests replace `on_step` to kill or disturb the process."""
    on_step(name)


def _ignore(name: str) -> None:
    return


on_step: Callable[[str], None] = _ignore
