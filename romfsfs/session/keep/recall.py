"""Source recall: the sources of converted files, found by the digest of the converted bytes.

After a commit the image holds `app.mpy`; a later mount of that image, from any target, shows
`app.py` again. The key is path and digest of the stored bytes: if the image holds bytes that are
not those the source became, they are shown as they are. Scripts that differ only in a comment
become the same bytes, so a session's own sources come first, and another's only if it has none. A
convenience that may be deleted: without its record, a file is shown in its compiled form.
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
    TEMPORARY,
    digest_bytes,
    digest_fd,
    named,
    remove_temporaries,
    replace_atomically,
    sync_paths,
)
from romfsfs.system.user_folders import make_private_dir, state_dir

#: Bytes that remembered sources may take together; the least recently used go first.
BUDGET_BYTES = 1 << 30
#: The most records of which source became which bytes.
MOST_RECORDS = 50_000


class Recalled(NamedTuple):
    """A remembered source. name: of its file, in the folder of the stored one. digest: SHA-256 of
    its bytes. file: where they are. made_for: what it was converted for (`BaseEntry.made_for`)."""

    name: str
    digest: str
    file: Path
    made_for: str | None = None


class Recall:
    """The store of sources, one per user. Safe between processes: files appear atomically.

    session: the folder name of the session that it is used for.
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
        """Keep the bytes of `fd` as the source that became `stored_digest` at `stored_path`.

        Not durable before `sync`. ChangedMeanwhile if their digest is not `source_digest`; OSError.
        """
        objects = make_private_dir(make_private_dir(self.folder) / "objects")
        copy = objects / source_digest
        if not _is_whole(copy, source_digest):
            # `sync` makes all of them durable at once; the digest reveals one torn by a power cut.
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
        """Make what was remembered durable, so that the work tree may be removed. OSError."""
        if self._written:
            sync_paths(self.folder, self._written, self._written)
            self._written = []

    def find(self, stored_path: str, stored_digest: str) -> Recalled | None:
        """The source that became these bytes at this path, if it is known and intact, else None.

        OSError (EIO) if the disk fails."""
        own = self.find_own(stored_path, stored_digest)
        return own or self._read(_key(stored_path, stored_digest, ""))

    def find_own(self, stored_path: str, stored_digest: str) -> Recalled | None:
        """As `find`, among this session's own sources."""
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
            if error.errno == errno.EIO:  # showing `app.mpy` instead would look like a lost source
                raise
            return None
        except (ValueError, KeyError, TypeError, RecursionError):
            return None
        with contextlib.suppress(OSError):
            os.utime(source.file)  # most recently used: the last to be trimmed
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
        """Remove the least recently used sources beyond `budget` bytes, records of sources that are
        gone, and the oldest records beyond `MOST_RECORDS`. Others may remember more meanwhile.
        OSError."""
        with contextlib.suppress(FileNotFoundError):
            records = _latest_first(self.folder / "index")  # before their sources, which come first
            total = 0
            for entry, status in _latest_first(self.folder / "objects"):
                total += status.st_size
                if total > budget:
                    _forget(entry)
            left = set(os.listdir(self.folder / "objects"))
            for count, (entry, _) in enumerate(records):
                try:
                    digest = json.loads(Path(entry.path).read_bytes())["digest"]
                except (OSError, ValueError, KeyError, TypeError, RecursionError):
                    digest = ""
                if digest not in left or count >= MOST_RECORDS:
                    _forget(entry)


def _latest_first(folder: Path) -> list[tuple[os.DirEntry[str], os.stat_result]]:
    """The files of a folder, without those that are being written."""
    remove_temporaries(folder)
    found = [
        (entry, entry.stat(follow_symlinks=False))
        for entry in os.scandir(folder)
        if not TEMPORARY.fullmatch(entry.name)
    ]
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
    """The work tree's path for the source of a stored file; None if it cannot be shown.

    taken: the paths of the image; one of them may be the source's.
    """
    if source is None:
        return None
    folder, slash, _ = stored_path.rpartition("/")
    shown = folder + slash + source.name
    return shown if shown == stored_path or shown not in taken else None


class ChangedMeanwhile(Exception):
    """The source file changed while it was copied: there is nothing to remember."""


def _key(stored_path: str, stored_digest: str, session: str) -> str:
    """The name of a record. session: '' for the record that all sessions share."""
    whose = f"\0{session}" if session else ""
    return digest_bytes(os.fsencode(stored_path) + f"\0{stored_digest}{whose}".encode())
