"""The images a session has read and written: `log`, and what `undo` goes back to.

`history/NNNNNN.json` says what happened; the image lies beside it under its digest, once however
often it was there, that of nothing too: a blank target is gone back to like any other. The last
entry is the base's, unless its tree was started empty: what is on the target is asked of the base
alone.
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
from romfsfs.system.files import make_private_dir

#: What the images of one session may take together; the oldest go first, the last two stay.
BUDGET_BYTES = 1 << 30
_ALWAYS_KEPT = 2


class HistoryEntry(NamedTuple):
    """kind: 'read' (found on the target), 'commit', 'undo', 'push' or 'reset'.

    time: seconds since the epoch. restores: the number that an undo brought back, else -1.
    size: bytes of the image. missing: there was no file, of which the image is empty.
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
    """The number of the last entry, -1 where there is none."""
    return max((entry.number for entry in entries(folder)), default=-1)


def add(folder: SessionFolder, new: HistoryEntry, *, since: int) -> None:
    """Append an image that is in the history to the log, with the next number.

    since: the last number when the transaction began: what it has entered since, before a crash,
    is not entered again. Nor is an image that was read and that the log ends with.
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
    """What tells one state of the target from another."""
    return entry.digest, entry.missing


def keep_within(folder: SessionFolder, budget: int) -> None:
    """Trim the log to so many bytes, and remember that. In this order: the disk may be full."""
    base = ""
    with contextlib.suppress(FileNotFoundError, RomfsError):
        base = Base.load(folder.base).digest
    trim(folder, base, budget)
    info = replace(SessionInfo.load(folder.info), history_bytes=budget)
    save(folder.info, dump(info, 1))


def trim(folder: SessionFolder, base: str, budget: int | None = None) -> None:
    """Drop the oldest entries beyond the budget, by default the session's, and images that nothing
    names.

    The last two entries are always kept, and so is the base's image, whose digest is given.
    Nothing goes while a transaction is under way: its images may have no other name yet.
    """
    if folder.record.exists():
        return
    if budget is None:  # as it is now: another process may have changed it
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
    """The image that an undo brings back: the one before the present. RomfsError if none."""
    known = entries(folder)
    by_number = {entry.number: entry for entry in known}
    if known:
        now: HistoryEntry | None = known[-1]
        number = known[-1].number
        while now is not None and now.kind == "undo":
            number = now.restores  # trimmed away, it is still what the present image was
            now = by_number.get(number)
        last = _image(known[-1])
        before = [entry for entry in known if entry.number < number and _image(entry) != last]
        if before:
            return before[-1]
    others = f"any image of the log, a later one too: romfsfs undo {info.argument} --to N; "
    raise RomfsError(
        "there is no earlier image to go back to",
        where=info.name,
        next_step=(others if len(known) > 1 else "") + f"romfsfs log {info.argument}",
    )
