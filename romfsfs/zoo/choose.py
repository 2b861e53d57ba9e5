"""Which source the zoo has: an option, `$ROMFSFS_ZOO`, what was chosen before, the OpenMV IDE.

A source is written as people give it: `ide`, a folder, a zip on this machine, or a URL of one
(`http`, `https`, `file`; `#sha256=HEX` at its end pins what it must be). What `--from` chose is
remembered in `<state dir>/zoo.json`, because a mount's daemon needs to know it too.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

from romfsfs.errors import RomfsError, UsageError
from romfsfs.ide import published
from romfsfs.ide.archive import local_zip
from romfsfs.ide.fetching import Fetching
from romfsfs.ide.places import resource_folders
from romfsfs.system.files import digest_file, make_private_dir, replace_atomically, state_dir
from romfsfs.zoo.sources import FolderSource, Source, ZipSource

#: The environment variable that names a source.
VARIABLE = "ROMFSFS_ZOO"
#: The source that is searched for: the resources of an installed OpenMV IDE, else those published.
IDE = "ide"

_HOW = "name one with --from: a resource folder, a zip, or a URL"


def chosen() -> str:
    """The source as it was written, `ide` if nobody chose one."""
    return os.environ.get(VARIABLE) or _remembered() or IDE


def remember(text: str) -> None:
    """Let later commands and mounts use this source."""
    make_private_dir(state_dir())
    with replace_atomically(_settings()) as file:
        file.write(json.dumps({"source": absolute(text)}).encode(errors="surrogateescape"))


def absolute(text: str) -> str:
    """The same source, whatever the current folder."""
    if text == IDE or _is_url(text):
        return text
    return os.path.abspath(os.path.expanduser(text))


def open_source(text: str, fetching: Fetching) -> Source:
    """The source that `text` means, looked up on its server if it is not on this machine.

    UsageError if there is no such thing; VerifyError if it is not what its URL pins; RomfsError,
    OSError, and what `fetching.agree` raises.
    """
    if text == IDE:
        return _ide() or ZipSource(published.resources(fetching, "a list of less than 1 MB"))
    if not _is_url(text):
        return _on_disk(Path(absolute(text)), text)
    url, sha256 = _parts(text)
    if urlsplit(url).scheme == "file":
        path = _file_path(url)
        if sha256 and path.is_file() and digest_file(path) != sha256:
            raise RomfsError("not the file that #sha256= announces", where=url)
        return _on_disk(path, url)
    from romfsfs.ide.remote import remote_zip

    return ZipSource(remote_zip(url, fetching, sha256))


def open_known(text: str, *, offline: bool = False) -> Source | None:
    """As `open_source`, but None for what is on a server and was not looked up yet.

    Of what was, the files are fetched when they are opened, unless `offline`.
    """
    fetching = Fetching(offline=offline)
    try:
        if text == IDE:
            return _ide() or (open_source(text, fetching) if published.is_known() else None)
        if _is_url(text) and urlsplit(_parts(text)[0]).scheme != "file":
            from romfsfs.ide.remote import is_known

            return open_source(text, fetching) if is_known(_parts(text)[0]) else None
        return open_source(text, fetching)
    except UsageError:
        return None


def _ide() -> FolderSource | None:
    folders = [folder for folder in resource_folders() if (folder / "models").is_dir()]
    return FolderSource(folders[0]) if folders else None


def _on_disk(path: Path, shown: str) -> Source:
    if path.is_dir():
        return FolderSource(path)
    if path.is_file():
        return ZipSource(local_zip(path))
    raise UsageError("there is no such model zoo", where=shown, next_step=_HOW)


def _is_url(text: str) -> bool:
    return "://" in text


def _parts(text: str) -> tuple[str, str]:
    """(URL, SHA-256 that its fragment pins or ''). UsageError if it is no URL."""
    try:
        url, fragment = urldefrag(text)
        parts = urlsplit(url)
        _ = parts.port  # raises where it is no number
    except ValueError as error:
        raise UsageError(f"not a URL: {error}", where=text, next_step=_HOW) from error
    if parts.scheme in ("http", "https") and not parts.hostname:
        raise UsageError("not a URL: it names no server", where=text, next_step=_HOW)
    return url, fragment[len("sha256=") :].lower() if fragment.startswith("sha256=") else ""


def _file_path(url: str) -> Path:
    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost"):
        raise UsageError("a file URL of another computer", where=url, next_step=_HOW)
    return Path(unquote(parts.path))


def _settings() -> Path:
    return state_dir() / "zoo.json"


def _remembered() -> str:
    try:
        record = json.loads(_settings().read_bytes())
    except (FileNotFoundError, ValueError):
        return ""
    source = record.get("source") if isinstance(record, dict) else None
    return source if isinstance(source, str) else ""
