"""The images a session has read and committed: `log`, and what `undo` goes back to.

`history/NNNNNN.img` with `NNNNNN.json` beside it. An image is a hard link to what was (or is)
`base.img`, which is only ever replaced, so a commit copies nothing for it.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from romfsfs.errors import RomfsError
from romfsfs.session.keep.state import SessionInfo, save
from romfsfs.system.files import make_private_dir

if TYPE_CHECKING:
    from romfsfs.session.session import Session

#: What the images of one session may take together; the oldest go first, the last two stay.
BUDGET_BYTES = 1 << 30
_ALWAYS_KEPT = 2

#: FAT, some network and FUSE file systems; too many links to one file.
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EXDEV)


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """kind: 'read' (found on the target), 'commit', 'undo' or 'push' (a whole image).

    time: seconds since the epoch. restores: the number that an undo brought back, else -1.
    size: bytes of the image.
    """

    number: int
    kind: str
    time: float
    digest: str
    size: int
    summary: str = ""
    restores: int = -1


def _folder(session: Session) -> Path:
    return session.directory / "history"


def image_path(session: Session, number: int) -> Path:
    """The image of a history entry (it may have been trimmed away)."""
    return _folder(session) / f"{number:06d}.img"


def entries(session: Session) -> list[HistoryEntry]:
    """All entries whose image is still there, oldest first. Damaged records are left out."""
    found = []
    with contextlib.suppress(FileNotFoundError):
        for path in sorted(_folder(session).glob("*.json")):
            with contextlib.suppress(ValueError, TypeError, OSError, RecursionError):
                entry = HistoryEntry(**json.loads(path.read_bytes()))
                if image_path(session, entry.number).exists():
                    found.append(entry)
    return found


def remember_first(session: Session, digest: str) -> None:
    """Keep the image just read from the target, unless it is what the log ends with."""
    add(session, session.base_image, digest, "read", "as found on the target")


def add(
    session: Session, image: Path, digest: str, kind: str, summary: str, restores: int = -1
) -> HistoryEntry:
    """Append an image to the log, and trim the log to its budget."""
    make_private_dir(_folder(session))
    known = entries(session)
    if known and known[-1].digest == digest and kind in ("read", known[-1].kind):
        return known[-1]  # entered before a crash, or found as it was left
    number = known[-1].number + 1 if known else 0
    entry = HistoryEntry(number, kind, time.time(), digest, image.stat().st_size, summary, restores)
    target = image_path(session, number)
    target.unlink(missing_ok=True)
    link(image, target)
    save(target.with_suffix(".json"), json.dumps(asdict(entry)).encode())
    trim(session)
    return entry


def link(image: Path, name: Path) -> None:
    """Give an image another name; a copy where the file system has no links."""
    try:
        os.link(image, name)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        shutil.copyfile(image, name)


def keep_within(session: Session, budget: int) -> None:
    """Remember how many bytes the log may take, and trim it to that now."""
    session.save_info(replace(_info(session), history_bytes=budget))
    trim(session)


def _info(session: Session) -> SessionInfo:
    """As it is now: another process may have changed it since the session was opened."""
    return SessionInfo.load(session.directory / "session.json")


def trim(session: Session) -> None:
    """Drop the oldest images beyond the session's budget; the last two are always kept."""
    chosen = _info(session).history_bytes
    budget = BUDGET_BYTES if chosen is None else chosen
    known = entries(session)
    total = 0
    for kept, entry in enumerate(reversed(known)):
        total += entry.size
        if total > budget and kept >= _ALWAYS_KEPT:
            image_path(session, entry.number).unlink(missing_ok=True)
            image_path(session, entry.number).with_suffix(".json").unlink(missing_ok=True)


def previous(session: Session) -> HistoryEntry:
    """The image that an undo brings back: the one before the present. RomfsError if none."""
    known = entries(session)
    by_number = {entry.number: entry for entry in known}
    if known:
        now: HistoryEntry | None = known[-1]
        number = known[-1].number
        while now is not None and now.kind == "undo":
            number = now.restores  # trimmed away, it is still what the present image was
            now = by_number.get(number)
        digest = known[-1].digest
        before = [entry for entry in known if entry.number < number and entry.digest != digest]
        if before:
            return before[-1]
    raise RomfsError(
        "there is no earlier image to go back to",
        where=session.info.name,
        next_step=f"any image of the log, a later one too: romfsfs undo "
        f"{session.info.argument} --to N; romfsfs log {session.info.argument}",
    )
