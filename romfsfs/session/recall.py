"""Source recall: what the user wrote, known by the digest of what it became.

After a commit the image holds `app.mpy`; a later mount of that image, from whatever place, shows
`app.py` again. Keyed by path and digest of the stored bytes: when the bytes in the image are
not those that the source became, the image wins. A disposable convenience: a damaged or missing
record only means that the compiled form is shown.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import NamedTuple

from romfsfs.files import digest_bytes, digest_fd, make_private_dir, replace_atomically, state_dir
from romfsfs.session.worktree import write_all

#: What remembered sources may take together; the longest unused go first.
BUDGET_BYTES = 1 << 30


class Source(NamedTuple):
    """name: of the source file, in the folder of the stored one. file: its bytes."""

    name: str
    digest: str
    file: Path


class Recall:
    """The store of sources, one per user. Safe between processes: files appear atomically."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or state_dir() / "recall"
        self._index: set[str] | None = None

    def remember(
        self, stored_path: str, stored_digest: str, name: str, source_digest: str, fd: int
    ) -> None:
        """Keep the bytes of `fd` as the source that became `stored_digest` at `stored_path`."""
        objects = make_private_dir(make_private_dir(self.folder) / "objects")
        copy = objects / source_digest
        if not copy.exists():
            with replace_atomically(copy) as file:
                offset = 0
                while data := os.pread(fd, 1 << 20, offset):
                    write_all(file.fileno(), data)
                    offset += len(data)
                if digest_fd(file.fileno()) != source_digest:
                    raise ChangedMeanwhile
        record = make_private_dir(self.folder / "index") / _key(stored_path, stored_digest)
        with replace_atomically(record) as file:
            file.write(json.dumps({"name": name, "digest": source_digest}).encode())
        self._index = None

    def find(self, stored_path: str, stored_digest: str) -> Source | None:
        """The source that became these bytes at this path, if it is known and whole."""
        key = _key(stored_path, stored_digest)
        if key not in self._keys():
            return None
        try:
            record = json.loads((self.folder / "index" / key).read_bytes())
            source = Source(
                str(record["name"]),
                str(record["digest"]),
                self.folder / "objects" / record["digest"],
            )
            with open(source.file, "rb") as file:
                whole = digest_fd(file.fileno()) == source.digest
            os.utime(source.file)  # used now: the last to be trimmed
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return source if whole and "/" not in source.name else None

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
        """Forget the longest unused sources until the rest take at most `budget` bytes."""
        with contextlib.suppress(FileNotFoundError):
            files = [(entry.stat(), entry.path) for entry in os.scandir(self.folder / "objects")]
            files.sort(key=lambda item: item[0].st_mtime_ns, reverse=True)
            total = 0
            for status, path in files:
                total += status.st_size
                if total > budget:
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(path)


class ChangedMeanwhile(Exception):
    """The source file changed while it was copied: there is nothing to remember."""


def _key(stored_path: str, stored_digest: str) -> str:
    return digest_bytes(os.fsencode(stored_path) + b"\0" + stored_digest.encode())
