"""Installing files into the user's folders, and removing exactly those again.

`<state dir>/installed.json` lists every file that was written, with its digest. A file that is
not listed is the user's own and is never replaced or removed; one that was changed since is left.
"""

import contextlib
import json
import os
import re
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from romfsfs.errors import UsageError
from romfsfs.system.files import (
    digest_bytes,
    digest_file,
    make_private_dir,
    replace_atomically,
    state_dir,
)


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
    """Write files; UsageError, before anything is written, if one of them is the user's own."""
    known = _known()
    for file in files:
        present = _digest_of(file.path)
        if present not in (None, known.get(str(file.path)), digest_bytes(file.data)):
            raise UsageError(
                "a file is there that romfsfs did not write, or that was edited",
                where=str(file.path), next_step="move it away and try again",
            )  # fmt: skip
    for file in files:
        # Entered first: after a crash in between, the file is still known to be ours.
        known[str(file.path)] = digest_bytes(file.data)
        _save(known)
        file.path.parent.mkdir(parents=True, exist_ok=True)
        with replace_atomically(file.path, file.mode) as out:
            out.write(file.data)
            os.fchmod(out.fileno(), file.mode)


def uninstall(paths: list[Path]) -> tuple[list[Path], list[Path]]:
    """Remove those of these files that were installed: (removed, left because they were changed).

    A folder named romfsfs that is empty then goes too.
    """
    known = _known()
    removed, left = [], []
    for path in paths:
        written = known.pop(str(path), None)
        present = _digest_of(path)
        if written is None or present is None:
            continue
        if present == written:
            path.unlink()
            _remove_empty(path.parent)
            removed.append(path)
        else:
            left.append(path)
    _save(known)
    return removed, left


def _remove_empty(folder: Path) -> None:
    """The folder of a removed file, if it is romfsfs's own and nothing else is in it."""
    if folder.name == "romfsfs":
        with contextlib.suppress(OSError):
            folder.rmdir()


def _digest_of(path: Path) -> str | None:
    try:
        return digest_file(path)
    except FileNotFoundError:
        return None


def _manifest() -> Path:
    return state_dir() / "installed.json"


def _known() -> dict[str, str]:
    try:
        record = json.loads(_manifest().read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return {str(path): str(digest) for path, digest in record.items()}


def _save(known: dict[str, str]) -> None:
    make_private_dir(state_dir())
    with replace_atomically(_manifest()) as file:
        file.write(json.dumps(known, indent=1).encode())
