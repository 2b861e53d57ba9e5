"""Running the conversions that a commit or a build still needs, in parallel."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING

from romfsfs.session.tree.worktree import open_file
from romfsfs.system.beside import Beside, Cancel
from romfsfs.system.files import Progress, no_progress

if TYPE_CHECKING:
    from collections.abc import Sequence

    from romfsfs.convert import Conversion, Converters
    from romfsfs.session.plan.shadow import ShadowEntry


class Conversions:
    """Conversion results for one commit: each file is converted at most once.

    Results that may not be cached (a missing tool, a time-out) are kept here too, so that the
    plan made after the conversions sees them.
    """

    def __init__(self, converters: Converters, work_fd: int) -> None:
        self._converters = converters
        self._work_fd = work_fd
        self._results: dict[tuple[str, str], Conversion] = {}

    def lookup(self, path: str, fd: int, digest: str) -> Conversion:
        """As `Converters.lookup`, but results of `run` come first."""
        known = self._results.get((path, digest))
        return known if known is not None else self._converters.lookup(path, fd, digest)

    def run(self, entries: Sequence[ShadowEntry], progress: Progress = no_progress) -> bool:
        """Convert the pending entries; return whether there were any. Blocks.

        Each failure is retried once: one that says nothing about the file (a killed tool, a
        time-out) gets another try, any other comes from the cache. A file that changed since it
        was hashed, or is none any more, is left for the caller's next look at the tree.
        """
        pending = [entry for entry in entries if self._is_open(entry)]
        if not pending:
            return False
        work = [partial(self._convert, entry) for entry in pending]
        progress("converting", 0, len(work))
        with Beside(work, os.cpu_count() or 1) as beside:
            for number in range(len(work)):
                beside.result(number)
                progress("converting", number + 1, len(work))
        return True

    def _is_open(self, entry: ShadowEntry) -> bool:
        if entry.state == "pending":
            return True
        asked = (entry.path, entry.source_digest) in self._results
        return entry.state == "failed" and bool(entry.source_digest) and not asked

    def _convert(self, entry: ShadowEntry, cancel: Cancel) -> None:
        from romfsfs.convert import Cancelled, StaleSource

        try:
            fd = open_file(self._work_fd, entry.path)
        except FileNotFoundError:
            return
        try:
            result = self._converters.convert(entry.path, fd, entry.source_digest, cancel)
            self._results[entry.path, entry.source_digest] = result
        except (Cancelled, StaleSource, IsADirectoryError):
            return
        finally:
            os.close(fd)
