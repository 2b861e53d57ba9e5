"""Which source the zoo has: an option, `$ROMFSFS_ZOO`, what was chosen before, the OpenMV IDE.

A source is written as people give it: `ide`, a folder, a zip or listing on this machine, or a URL
of one (`http`, `https`, `file`; `#sha256=HEX` at its end pins what it must be). What `--from` chose
is remembered in `<state dir>/zoo.json`, because a mount's daemon needs to know it too.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

from romfsfs.errors import RomfsError, UsageError
from romfsfs.ide.places import resource_folders
from romfsfs.system.files import (
    Progress,
    cache_dir,
    digest_bytes,
    digest_file,
    make_private_dir,
    no_progress,
    replace_atomically,
    state_dir,
)
from romfsfs.zoo.sources import FolderSource, ListingSource, Source, ZipSource, is_zip

#: The environment variable that names a source.
VARIABLE = "ROMFSFS_ZOO"
#: The source that is searched for: the resources of an installed OpenMV IDE.
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


def open_source(text: str, *, update: bool = False, progress: Progress = no_progress) -> Source:
    """The source that `text` means, downloaded if need be.

    update: ask the server for a newer version. UsageError if there is no such thing; VerifyError,
    RomfsError, OSError as `download`.
    """
    if text == IDE:
        return _ide()
    if not _is_url(text):
        return _on_disk(Path(absolute(text)), text)
    from romfsfs.zoo.download import download

    url, sha256 = _parts(text)
    if urlsplit(url).scheme == "file":
        path = _file_path(url)
        if sha256 and path.is_file() and digest_file(path) != sha256:
            raise RomfsError("not the file that #sha256= announces", where=url)
        return _on_disk(path, url)
    target = _downloaded(url)

    def accept(path: Path) -> None:
        """Not the page of a hotel's network, nor half a zip."""
        source = _zip_or_listing(path, url, url)
        if isinstance(source, ListingSource):
            source.entries()

    fetched = download(url, target, sha256=sha256, update=update, progress=progress, accept=accept)
    return _zip_or_listing(fetched.path, url, url)


def open_offline(text: str) -> Source | None:
    """As `open_source`, but None for what is not on this machine (yet). Downloads nothing."""
    url, sha256 = _parts(text) if text != IDE and _is_url(text) else ("", "")
    if url and urlsplit(url).scheme != "file":
        from romfsfs.zoo.download import kept

        fetched = kept(_downloaded(url), sha256)
        return None if fetched is None else _zip_or_listing(fetched.path, url, url)
    try:
        return open_source(text)
    except UsageError:
        return None


def _ide() -> FolderSource:
    for folder in resource_folders():
        if (folder / "models").is_dir():
            return FolderSource(folder)
    raise UsageError("no model zoo: no OpenMV IDE with models was found", next_step=_HOW)


def _on_disk(path: Path, shown: str) -> Source:
    if path.is_dir():
        return FolderSource(path)
    if path.is_file():
        return _zip_or_listing(path, str(path), path.as_uri())
    raise UsageError("there is no such model zoo", where=shown, next_step=_HOW)


def _zip_or_listing(path: Path, name: str, url: str) -> Source:
    return ZipSource(path, name) if is_zip(path) else ListingSource(path, url)


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


def _downloaded(url: str) -> Path:
    """Where what this URL gives is kept."""
    folder = make_private_dir(make_private_dir(cache_dir()) / "zoo" / "downloads")
    return folder / digest_bytes(url.encode(errors="surrogateescape"))[:32]


def _settings() -> Path:
    return state_dir() / "zoo.json"


def _remembered() -> str:
    try:
        record = json.loads(_settings().read_bytes())
    except (FileNotFoundError, ValueError):
        return ""
    source = record.get("source") if isinstance(record, dict) else None
    return source if isinstance(source, str) else ""
