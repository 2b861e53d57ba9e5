"""The sources of converted files, which the image does not hold.

The image has `app.mpy`. Before a work tree is removed, its `app.py` must be stored durably where a
later mount finds it (`recall`).
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterable

from romfsfs.errors import RomfsError
from romfsfs.session.keep.recall import ChangedMeanwhile, Recall
from romfsfs.session.keep.state import Base
from romfsfs.session.plan.shadow import ShadowEntry
from romfsfs.session.session import Session
from romfsfs.session.tree.worktree import open_file

log = logging.getLogger(__name__)


def remember(session: Session, base: Base) -> None:
    """Keep the sources of a new base. `secure` retries what fails before the tree is removed."""
    recall = session.recall()
    try:
        with contextlib.suppress(RomfsError), session.work_fd() as work_fd:
            for entry in base.entries:
                if entry.size is not None and entry.digest != entry.source_digest:
                    _keep(recall, work_fd, entry.path, entry.digest,
                          entry.source, entry.source_digest, entry.made_for)  # fmt: skip
        recall.sync()
    except OSError as error:
        log.info("sources are not remembered yet: %s", error)


def secure(session: Session, entries: Iterable[ShadowEntry]) -> None:
    """Make sure that the sources of these entries outlive the work tree. OSError if that fails.

    Different sources may become the same bytes (a comment was edited): the present one is kept.
    """
    recall = session.recall()
    with session.work_fd() as work_fd:
        for entry in entries:
            stored = entry.stored_as
            if stored is None or not entry.digest or entry.digest == entry.source_digest:
                continue
            if not entry.is_dir and entry.state == "ready":
                _keep(recall, work_fd, stored, entry.digest, entry.path, entry.source_digest,
                      entry.made_for)  # fmt: skip
    recall.sync()


def _keep(
    recall: Recall, work_fd: int, stored: str, digest: str, source: str, source_digest: str,
    made_for: str | None,
) -> None:  # fmt: skip
    known = recall.find_own(stored, digest)
    if known is not None and (known.digest, known.made_for) == (source_digest, made_for):
        return
    with contextlib.suppress(FileNotFoundError, ChangedMeanwhile):
        fd = open_file(work_fd, source)
        try:
            recall.remember(stored, digest, source.rpartition("/")[2], source_digest, fd, made_for)
        finally:
            os.close(fd)
