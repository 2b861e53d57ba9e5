"""The images a session has read and written: `log`, and what `undo` goes back to.

`history/NNNNNN.json` is an entry of the log. Its image lies beside it, named by its digest, so that
it is stored once for any number of entries. A blank target has an (empty) image too, and undo goes
back to it like to any other. The last entry is the base's image, unless the tree was started empty:
only the base says what the target holds.
"""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import replace
from typing import NamedTuple

from romfsfs.errors import RomfsError
from romfsfs.session.keep.folder import SessionFolder
from romfsfs.session.keep.state import Base, SessionInfo, decoded, dump, save
from romfsfs.system.user_folders import make_private_dir

#: Bytes that the images of one session may take; the oldest go first, the last two stay.
BUDGET_BYTES = 1 << 30
_ALWAYS_KEPT = 2


class HistoryEntry(NamedTuple):
    """An entry of the log. kind: 'read' (found on the target), 'commit', 'undo', 'push' or 'reset'.

    time: seconds since the epoch. restores: the number of the entry that an undo wrote back, else
    -1. size: bytes of the image file. missing: the target was a file that did not exist; its image
    is empty.
    """

    number: int
    kind: str
    time: float
    digest: str
    size: int
    summary: str
    restores: int = -1
    missing: bool = False


def entries(folder: SessionFolder) -> list[HistoryEntry]:
    """All entries whose image is still there, oldest first. Damaged records are left out."""
    found = []
    with contextlib.suppress(FileNotFoundError):
        for path in sorted(folder.history.glob("*.json")):
            with contextlib.suppress(ValueError, KeyError, TypeError, OSError, RecursionError):
                entry: HistoryEntry = decoded(HistoryEntry, json.loads(path.read_bytes()))
                if folder.image(entry.digest).exists():
                    found.append(entry)
    return found


def last_number(folder: SessionFolder) -> int:
    """The number of the last entry, -1 if there is none."""
    return max((entry.number for entry in entries(folder)), default=-1)


def add(folder: SessionFolder, new: HistoryEntry, *, since: int) -> None:
    """Append an entry, whose image is in the history, to the log with the next number and the time.

    since: the last number when the transaction began. An entry that it added after that, before a
    crash, is not added again; nor is one of kind 'read' whose image the log ends with. OSError.
    """
    make_private_dir(folder.history)
    known = entries(folder)
    if any(e.number > since and (e.digest, e.kind) == (new.digest, new.kind) for e in known):
        return
    if new.kind == "read" and known and _image(known[-1]) == _image(new):
        return
    number = known[-1].number + 1 if known else 0
    entry = new._replace(number=number, time=time.time())
    save(folder.history / f"{number:06d}.json", json.dumps(entry._asdict()).encode())


def _image(entry: HistoryEntry) -> tuple[str, bool]:
    """The state of the target, to compare."""
    return entry.digest, entry.missing


def keep_within(folder: SessionFolder, budget: int) -> None:
    """Trim the log to `budget` bytes, then remember that: the disk may be full until then.
    RomfsError while a transaction is under way (see `trim`)."""
    if folder.record.exists():
        info = SessionInfo.load(folder.info)
        raise RomfsError(
            "an interrupted operation may need the images of the log",
            where=info.name,
            next_step=f"nothing was dropped; first: romfsfs recover {info.argument}",
        )
    base = ""
    with contextlib.suppress(FileNotFoundError, RomfsError):
        base = Base.load(folder.base).digest
    trim(folder, base, budget)
    info = replace(SessionInfo.load(folder.info), history_bytes=budget)
    save(folder.info, dump(info, 1))


def trim(folder: SessionFolder, base: str, budget: int | None = None) -> None:
    """Drop the oldest entries beyond the budget, and images that no entry names.

    budget: bytes; None: the session's. base: the digest of the base's image, which is always kept,
    as are the last two entries. Does nothing while a transaction is under way, whose images may
    not be in the log yet. The caller holds the change lock.
    """
    if folder.record.exists():
        return
    if budget is None:  # read again: another process may have changed it
        chosen = SessionInfo.load(folder.info).history_bytes
        budget = BUDGET_BYTES if chosen is None else chosen
    needed = {base}
    total = 0
    for kept, entry in enumerate(reversed(entries(folder))):
        total += 0 if entry.digest in needed else entry.size
        if total > budget and kept >= _ALWAYS_KEPT:
            (folder.history / f"{entry.number:06d}.json").unlink(missing_ok=True)
        else:
            needed.add(entry.digest)
    with contextlib.suppress(FileNotFoundError):
        for image in folder.history.glob("*.img"):
            if image.stem not in needed:
                image.unlink(missing_ok=True)


def previous(folder: SessionFolder, info: SessionInfo) -> HistoryEntry:
    """The entry that an undo writes back: the one before the present image. RomfsError if none."""
    known = entries(folder)
    by_number = {entry.number: entry for entry in known}
    if known:
        now: HistoryEntry | None = known[-1]
        number = known[-1].number
        while now is not None and now.kind == "undo":
            number = now.restores  # counts even if that entry has been trimmed
            now = by_number.get(number)
        last = _image(known[-1])
        before = [entry for entry in known if entry.number < number and _image(entry) != last]
        if before:
            return before[-1]
    others = (
        "to write back any image of the log, a later one too: "
        f"romfsfs undo {info.argument} --to N; to list them: "
    )
    raise RomfsError(
        "there is no earlier image to go back to",
        where=info.name,
        next_step=(others if len(known) > 1 else "") + f"romfsfs log {info.argument}",
    )
