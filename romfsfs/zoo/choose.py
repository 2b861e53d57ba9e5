"""The source of the zoo: an option, else `$ROMFSFS_ZOO`, the last choice, or the OpenMV IDE.

A source is a text as the user gives it: `ide`, a folder, a zip on this machine, or the URL of one
(`http`, `https`). What `--from` chose is remembered in `<state dir>/zoo.json`, because a mount's
daemon needs to know it too.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from urllib.parse import urlsplit

from romfsfs.errors import UsageError
from romfsfs.ide import published
from romfsfs.ide.archive import Fetching, local_zip
from romfsfs.ide.places import resource_folders
from romfsfs.system.files import replace_atomically
from romfsfs.system.user_folders import make_private_dir, state_dir
from romfsfs.zoo.sources import FolderZoo, ZipZoo, Zoo

#: The environment variable that names a source.
VARIABLE = "ROMFSFS_ZOO"
#: The default source: the resources of an installed OpenMV IDE, else those that are published.
IDE = "ide"

_SETTINGS = "zoo.json"
_HOW = "name one with --from: a resource folder, a zip, or a URL"


def chosen() -> str:
    """The chosen source, as text; `ide` if none was chosen."""
    return os.environ.get(VARIABLE) or _remembered() or IDE


def remember(text: str) -> None:
    """Make later commands and mounts use this source. OSError, RomfsError."""
    with replace_atomically(make_private_dir(state_dir()) / _SETTINGS) as file:
        file.write(json.dumps({"source": absolute(text)}).encode(errors="surrogateescape"))


def absolute(text: str) -> str:
    """The source, with an absolute path if it is one."""
    if text == IDE or _is_url(text):
        return text
    return os.path.abspath(os.path.expanduser(text))


def open_source(text: str, fetching: Fetching) -> Zoo:
    """Open the source that `text` names; a zip at a URL is looked up there if it is not known.

    UsageError if there is no such source; RomfsError, OSError, and what `fetching.agree` raises.
    """
    if text == IDE:
        return _ide() or ZipZoo(published.resources(fetching, "a list of less than 1 MB"))
    if not _is_url(text):
        return _on_disk(Path(absolute(text)))
    _check_url(text)
    from romfsfs.ide.remote import remote_zip

    return ZipZoo(remote_zip(text, fetching))


def open_known(text: str, *, offline: bool = False) -> Zoo | None:
    """As `open_source`, but asks no server: None for a zip at a URL that was never looked up, and
    for a source that does not exist.

    A known zip's files are fetched when they are opened, unless `offline`.
    """
    fetching = Fetching(offline=offline)
    try:
        if text == IDE:
            return _ide() or (open_source(text, fetching) if published.is_known() else None)
        if _is_url(text):
            from romfsfs.ide.remote import is_known

            return open_source(text, fetching) if is_known(text) else None
        return open_source(text, fetching)
    except UsageError:
        return None


def _ide() -> FolderZoo | None:
    folders = [folder for folder in resource_folders() if (folder / "models").is_dir()]
    return FolderZoo(folders[0]) if folders else None


def _on_disk(path: Path) -> Zoo:
    if path.is_dir():
        return FolderZoo(path)
    if path.is_file():
        return ZipZoo(local_zip(path))
    raise UsageError("there is no such model zoo", where=str(path), next_step=_HOW)


def _is_url(text: str) -> bool:
    return "://" in text


def _check_url(text: str) -> None:
    """UsageError unless it is an http or https URL with a host."""
    try:
        parts = urlsplit(text)
        _ = parts.port  # raises ValueError if it is no number
    except ValueError as error:
        raise UsageError(f"not a URL: {error}", where=text, next_step=_HOW) from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        what = "not a URL of a server: http or https, and a name"
        raise UsageError(what, where=text, next_step=_HOW)


def _remembered() -> str:
    with contextlib.suppress(FileNotFoundError, ValueError, TypeError, KeyError):
        source = json.loads((state_dir() / _SETTINGS).read_bytes())["source"]
        return source if isinstance(source, str) else ""
    return ""
