"""Source recall: what the user wrote, known by the digest of what it became.

After a commit the image holds `app.mpy`; a later mount of that image, from whatever place, shows
`app.py` again. Keyed by path and digest of the stored bytes: when the bytes in the image are
not those that the source became, the image wins. Scripts that differ in a comment become the same
bytes, so each session's own come first, and another's only where it has none. A disposable
convenience: a damaged or missing record only means that the compiled form is shown.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from romfsfs.system.copying import copy_range
from romfsfs.system.files import (
    digest_bytes,
    digest_fd,
    make_private_dir,
    named,
    replace_atomically,
    state_dir,
    sync_paths,
)

#: What remembered sources may take together; the longest unused go first.
BUDGET_BYTES = 1 << 30
#: Records of which source became which bytes, at most.
MOST_RECORDS = 50_000


class Recalled(NamedTuple):
    """name: of the source file, in the folder of the stored one. file: its bytes. made_for: what
    it was converted for (`BaseEntry.made_for`)."""

    name: str
    digest: str
    file: Path
    made_for: str | None = None


class Recall:
    """The store of sources, one per user. Safe between processes: files appear atomically.

    session: the name of the folder of the session that asks.
    """

    def __init__(self, session: str) -> None:
        self.folder = state_dir() / "recall"
        self._session = session
        self._index: set[str] | None = None
        self._written: list[str] = []

    def remember(
        self, stored_path: str, stored_digest: str, name: str, source_digest: str, fd: int,
        made_for: str | None = None,
    ) -> None:  # fmt: skip
        """Keep the bytes of `fd` as the source that became `stored_digest` at `stored_path`."""
        objects = make_private_dir(make_private_dir(self.folder) / "objects")
        copy = objects / source_digest
        if not _is_whole(copy, source_digest):
            # Synced with all others; what a power cut leaves of it is noticed by its digest.
            with replace_atomically(copy, durable=False) as out:
                if copy_range(fd, 0, os.fstat(fd).st_size, out.fileno()) != source_digest:
                    raise ChangedMeanwhile
        index = make_private_dir(self.folder / "index")
        self._written.append(f"objects/{source_digest}")
        kept = {"name": name, "digest": source_digest, "made_for": made_for}
        for session in (self._session, ""):
            record = index / _key(stored_path, stored_digest, session)
            with replace_atomically(record, durable=False) as out:
                out.write(json.dumps(kept).encode())
            self._written.append(f"index/{record.name}")
        self._index = None

    def sync(self) -> None:
        """Make what was remembered durable: the work tree it came from may go then."""
        if self._written:
            sync_paths(self.folder, self._written, self._written)
            self._written = []

    def find(self, stored_path: str, stored_digest: str) -> Recalled | None:
        """The source that became these bytes at this path, if it is known and whole. OSError where
        the disk fails."""
        own = self.find_own(stored_path, stored_digest)
        return own or self._read(_key(stored_path, stored_digest, ""))

    def find_own(self, stored_path: str, stored_digest: str) -> Recalled | None:
        """As `find`, of this session alone."""
        return self._read(_key(stored_path, stored_digest, self._session))

    def _read(self, key: str) -> Recalled | None:
        if key not in self._keys():
            return None
        try:
            record = json.loads((self.folder / "index" / key).read_bytes())
            source = Recalled(
                str(record["name"]),
                str(record["digest"]),
                self.folder / "objects" / record["digest"],
                None if record.get("made_for") is None else str(record["made_for"]),
            )
            if "/" in source.name or not _is_whole(source.file, source.digest):
                return None
        except OSError as error:
            if error.errno == errno.EIO:  # to show `app.mpy` for it would look like a lost source
                raise
            return None
        except (ValueError, KeyError, TypeError, RecursionError):
            return None
        with contextlib.suppress(OSError):
            os.utime(source.file)  # used now: the last to be trimmed
        return source

    @property
    def knows_any(self) -> bool:
        """Whether anything is remembered at all."""
        return bool(self._keys())

    def _keys(self) -> set[str]:
        if self._index is None:
            try:
                self._index = set(os.listdir(self.folder / "index"))
            except FileNotFoundError:
                self._index = set()
        return self._index

    def trim(self, budget: int = BUDGET_BYTES) -> None:
        """Forget the longest unused sources until the rest take at most `budget` bytes, and what
        was known of those that are forgotten."""
        with contextlib.suppress(FileNotFoundError):
            total = 0
            for entry, status in _latest_first(self.folder / "objects"):
                total += status.st_size
                if total > budget:
                    _forget(entry)
            left = set(os.listdir(self.folder / "objects"))
            for count, (entry, _) in enumerate(_latest_first(self.folder / "index")):
                try:
                    digest = json.loads(Path(entry.path).read_bytes())["digest"]
                except (OSError, ValueError, KeyError, TypeError, RecursionError):
                    digest = ""
                if digest not in left or count >= MOST_RECORDS:
                    _forget(entry)


def _latest_first(folder: Path) -> list[tuple[os.DirEntry[str], os.stat_result]]:
    found = [(entry, entry.stat(follow_symlinks=False)) for entry in os.scandir(folder)]
    return sorted(found, key=lambda item: item[1].st_mtime_ns, reverse=True)


def _forget(entry: os.DirEntry[str]) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(entry.path)


def _is_whole(path: Path, digest: str) -> bool:
    """Whether the file is there, with these bytes."""
    try:
        with named(path), open(path, "rb") as file:
            return digest_fd(file.fileno()) == digest
    except FileNotFoundError:
        return False


def shown_as(stored_path: str, source: Recalled | None, taken: Collection[str]) -> str | None:
    """The work tree's path for the source of a stored file; None: it cannot be shown.

    Another file of the image (`taken`) may have the source's name.
    """
    if source is None:
        return None
    folder, slash, _ = stored_path.rpartition("/")
    shown = folder + slash + source.name
    return shown if shown == stored_path or shown not in taken else None


class ChangedMeanwhile(Exception):
    """The source file changed while it was copied: there is nothing to remember."""


def _key(stored_path: str, stored_digest: str, session: str) -> str:
    """session: '' for what any session may be shown."""
    whose = f"\0{session}" if session else ""
    return digest_bytes(os.fsencode(stored_path) + f"\0{stored_digest}{whose}".encode())
