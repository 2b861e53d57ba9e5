"""The durable steps of a session's operations: after each, a crash leaves another state on disk.

`KINDS` has all that each operation may pass, in order; `COMMIT`, `UNDO` and `OPEN` those that it
passes in any case. `tests/session` ends a process at each of them, interrupts it, and fills its
disk.
"""

from __future__ import annotations

from collections.abc import Callable

DISCARD = ("discard-moved",)
REVERT = ("revert-removed", "revert-staged", "revert-restored")
#: A tree that was kept is opened again.
RESUME = ("open-info",)

#: What every transaction does (`rebase/transaction.py`); a read writes no target.
_BOOKS = ("switched", "followed", "sources", "logged", "done")
_REBASE = ("after-placed", "recorded", "target-written", *_BOOKS)
COMMIT = ("encoded", *_REBASE)
UNDO = _REBASE
_READ = (*RESUME, "read", "after-placed", "recorded")
#: A first read; a changed target that a session without edits adopts.
OPEN = (*_READ, *_BOOKS)

#: Where the work tree follows, and where the target holds something else than the base says.
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
    """Called after each durable step; a test replaces `on_step` to end or hurt the process here."""
    on_step(name)


def _ignore(name: str) -> None:
    return


on_step: Callable[[str], None] = _ignore
