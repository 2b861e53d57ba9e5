"""Installing files into the user's folders, and removing exactly those again.

`<state dir>/installed.json` lists every file that was written, with its digest, and while it is
replaced with both, separated by a space. A file that is not listed, or was edited since, is the
user's own and is never replaced or removed.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from romfsfs.errors import UsageError
from romfsfs.system.files import digest_bytes, digest_file, replace_atomically
from romfsfs.system.user_folders import make_private_dir, state_dir

_MANIFEST = "installed.json"


@dataclass(frozen=True, slots=True)
class File:
    """A file to install. mode: its permissions."""

    path: Path
    data: bytes
    mode: int = 0o644


def filled(template: str, **values: str) -> str:
    """A file that lies beside this module, with each `@NAME@` in it replaced."""
    text = (resources.files("romfsfs.desktop") / template).read_text("utf-8")
    return re.sub("@([A-Z]+)@", lambda found: values[found[1]], text)


def install(files: list[File]) -> None:
    """Write files. UsageError, before anything is written, if one of them is the user's own."""
    known = _known()
    for file in files:
        present = _digest_of(file.path)
        if present not in (None, digest_bytes(file.data), *_digests(known, file.path)):
            what = "the file exists, and romfsfs did not write it, or it was edited since"
            raise UsageError(what, where=str(file.path), next_step="move it away and try again")
    for file in files:
        # Entered first, beside what is there: after a crash or a full disk in between, the file is
        # still known to be ours.
        present, new = _digest_of(file.path), digest_bytes(file.data)
        known[str(file.path)] = f"{present} {new}" if present else new
        _save(known)
        file.path.parent.mkdir(parents=True, exist_ok=True)
        with replace_atomically(file.path, file.mode) as out:
            out.write(file.data)
            os.fchmod(out.fileno(), file.mode)
        known[str(file.path)] = new
    _save(known)


def uninstall(paths: list[Path], *, dry_run: bool) -> tuple[list[Path], list[Path]]:
    """Remove those of these files that were installed: (removed, left because they were edited).

    A folder named romfsfs is removed too if that empties it. dry_run: remove nothing.
    """
    known = _known()
    removed, left = [], []
    for path in paths:
        written, present = _digests(known, path), _digest_of(path)
        known.pop(str(path), None)
        if not written or present is None:
            continue
        if present not in written:
            left.append(path)
            continue
        removed.append(path)
        if dry_run:
            continue
        path.unlink()
        if path.parent.name == "romfsfs":
            with contextlib.suppress(OSError):  # there is something else in it
                path.parent.rmdir()
    if not dry_run:
        _save(known)
    return removed, left


def _digest_of(path: Path) -> str | None:
    with contextlib.suppress(FileNotFoundError):
        return digest_file(path)
    return None


def _digests(known: dict[str, str], path: Path) -> list[str]:
    """Of what romfsfs wrote there, none if it wrote nothing."""
    return known.get(str(path), "").split()


def _known() -> dict[str, str]:
    with contextlib.suppress(FileNotFoundError, ValueError):
        record = json.loads((state_dir() / _MANIFEST).read_bytes())
        return {str(path): str(digest) for path, digest in record.items()}
    return {}


def _save(known: dict[str, str]) -> None:
    with replace_atomically(make_private_dir(state_dir()) / _MANIFEST) as file:
        file.write(json.dumps(known, indent=1).encode())
