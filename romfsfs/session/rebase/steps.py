"""The durable steps of a session's operations: after each, a crash leaves another state on disk.

Every list is in the order of its operation. `tests/session` kills a process at each of them.
"""

from __future__ import annotations

from collections.abc import Callable

OPEN = ("open-info", "open-read", "open-extracted", "open-base-image", "open-base-record",
        "open-history", "open-work")  # fmt: skip
DISCARD = ("discard-moved",)
COMMIT = ("commit-encoded", "commit-staged", "commit-record", "target-written", "history",
          "base-image", "work-tree", "base-record", "sources", "done")  # fmt: skip
UNDO = ("undo-image", *COMMIT[1:])
REVERT = ("revert-removed", "revert-staged", "revert-restored")


def reached(name: str) -> None:
    """Called after each durable step; a crash test replaces `on_step` to end the process here."""
    on_step(name)


def _ignore(name: str) -> None:
    return


on_step: Callable[[str], None] = _ignore
