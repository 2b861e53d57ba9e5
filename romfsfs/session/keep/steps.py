"""The durable steps of a session's operations: after each, a crash leaves another state on disk.

`KINDS` has them in the order of each operation. `tests/session` ends a process at each of them,
interrupts it, and fills its disk.
"""

from __future__ import annotations

from collections.abc import Callable

#: What every transaction does (`rebase/transaction.py`); a read writes no target.
_BOOKS = ("switched", "followed", "sources", "logged", "done")
REBASE = ("recorded", "target-written", *_BOOKS)
_READ = ("read", "after-placed", "recorded", *_BOOKS)

COMMIT = ("encoded", "after-placed", *REBASE)
UNDO = ("after-placed", *REBASE)
PUSH = ("before-kept", "after-placed", *REBASE)
#: A first read; a changed target that a session without edits adopts.
OPEN = ("open-info", *_READ)
ADOPT = OPEN
#: A tree that was kept is opened again.
RESUME = ("open-info",)
DISCARD = ("discard-moved",)
REVERT = ("revert-removed", "revert-staged", "revert-restored")

#: operation -> its steps
KINDS = {
    "commit": COMMIT, "undo": UNDO, "push": PUSH, "reset": PUSH, "open": OPEN, "adopt": ADOPT,
    "resume": RESUME,
    "discard": DISCARD, "revert": REVERT,
}  # fmt: skip


def reached(name: str) -> None:
    """Called after each durable step; a test replaces `on_step` to end or hurt the process here."""
    on_step(name)


def _ignore(name: str) -> None:
    return


on_step: Callable[[str], None] = _ignore
