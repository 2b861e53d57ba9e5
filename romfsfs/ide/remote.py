"""A zip at a URL: only the byte ranges that are needed are fetched, and each only once.

`remotezip` parses the zip and gets its ranges from here. Those of the zip's directory stay in its
cache folder, so that it can be listed without a network. A member's is deleted once it is complete
and opened; until then, the next command that needs it resumes the download.

What servers do: docs/cameras.md, "Default contents". So each request starts at the URL itself, HEAD
is not used, and the size is asked for with a range of one byte.

Proxies are those of the environment; certificates those of the system, or of $SSL_CERT_FILE.
"""

from __future__ import annotations

import contextlib
import json
import os
import ssl
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import remotezip
import requests

from romfsfs.errors import RomfsError
from romfsfs.ide.archive import DAMAGED, MAX_FILE_BYTES, Fetching, Missing, Zip, locked, zip_folder
from romfsfs.system.files import named, replace_atomically

#: Seconds to connect, and seconds without a byte.
_TIMEOUT = (10.0, 30.0)
#: This many attempts in a row without a new byte end a download; the pause grows with each.
_PATIENCE = 4
_PAUSE_SECONDS = 0.3
#: Bytes of a read. A part of one is lost when the connection is cut.
_READ = 1 << 13
#: Bytes fetched from a zip's end, where its directory is; remotezip asks for more if need be.
_DIRECTORY_BYTES = 1 << 18

_T = TypeVar("_T")


class _Dropped(Exception):
    """The connection or the server failed in a way that may pass."""


class _About(NamedTuple):
    """What a server said of a file. size in bytes, 0 if it did not say. version: the ETag or
    Last-Modified, or ''."""

    size: int
    version: str


def remote_zip(url: str, fetching: Fetching) -> Zip:
    """The zip at a URL; asks the server if it is not known, or for `fetching.update`. RomfsError if
    it cannot be had, `Missing` for 404 and 410."""
    with _Remote(url, fetching).alone() as file:
        file.about(anew=fetching.update and not fetching.offline)
    return Zip(
        url, lambda: _Remote(url, fetching).opened(), lambda: repr(_Remote(url, fetching).known()),
        (*DAMAGED, remotezip.RemoteZipError),
    )  # fmt: skip


def is_known(url: str) -> bool:
    """Whether the zip at this URL was looked at before."""
    return _Remote(url, Fetching()).known() is not None


def fetch_text(url: str, limit: int) -> str:
    """A text at a URL, up to `limit` bytes. RomfsError."""
    with requests.Session() as session:

        def attempt() -> str:
            with _answer(session, url, {}) as response:
                return next(response.iter_content(limit), b"").decode("utf-8", "replace")

        return _patiently(url, attempt)


class _Remote:
    """A file at a URL, from which `remotezip` fetches ranges. For one thread."""

    def __init__(self, url: str, fetching: Fetching) -> None:
        self.url = url
        self.folder = zip_folder(url)
        self._fetching = fetching
        self._open = contextlib.ExitStack()
        self._session: requests.Session | None = None

    @contextlib.contextmanager
    def alone(self) -> Iterator[_Remote]:
        """Hold the folder's lock; close files and connections at the end."""
        with locked(self.folder), self._open:
            yield self

    @contextlib.contextmanager
    def opened(self) -> Iterator[zipfile.ZipFile]:
        """The zip, open to read, with the folder locked. RomfsError, and `DAMAGED` of `archive`."""
        with self.alone():
            if self.about().size:  # here, as zipfile takes any OSError of it for damage
                self.fetch((-_DIRECTORY_BYTES, None))
            try:
                archive = remotezip.RemoteZip(
                    self.url, initial_buffer_size=_DIRECTORY_BYTES, fetcher=lambda *_, **__: self
                )
            except zipfile.BadZipFile:
                self._forget()
                raise
            with archive:
                yield archive

    def fetch(self, wanted: tuple[int, int | None], stream: bool = False) -> Any:
        """For `remotezip`: the bytes from `wanted[0]` (negative: from the end) to `wanted[1]`
        (included; None: the last). stream: they are a member, and read once."""
        size = self.about().size
        first = max(0, size + wanted[0]) if wanted[0] < 0 else wanted[0]
        last = size - 1 if wanted[1] is None else min(wanted[1], size - 1)
        if last - first >= MAX_FILE_BYTES:
            raise RomfsError(f"{last - first:,} bytes of it are too many", where=self.url)
        path = self.folder / f"range-{first}-{last}"
        if not path.exists():
            part = path.with_suffix(".part")
            _patiently(self.url, lambda: self._go_on(part, first, last), lambda: _size(part))
            os.replace(part, path)
        file = self._open.enter_context(path.open("rb"))
        if stream:
            path.unlink()
        return remotezip.PartialBuffer(file, first, last - first + 1, stream)

    def known(self) -> _About | None:
        """Its size and version as kept on this machine; None if it was never looked at."""
        try:
            record = json.loads((self.folder / "about.json").read_bytes())
            return _About(int(record["size"]), str(record["version"]))
        except (FileNotFoundError, ValueError, TypeError, KeyError):
            return None

    def about(self, anew: bool = False) -> _About:
        """Its size and version; asks the server if they are not known, or if `anew`. RomfsError."""
        known = None if anew else self.known()
        return known or _patiently(self.url, self._ask)

    def _forget(self) -> None:
        for path in self.folder.iterdir():
            if path.name != "lock":
                path.unlink()

    def _ask(self) -> _About:
        with self._answer(0, 0) as response:
            about = _about(response)
        if about != self.known():
            self._forget()  # ranges of another version
            with replace_atomically(self.folder / "about.json") as file:
                file.write(json.dumps(about._asdict()).encode())
        return about

    def _go_on(self, part: Path, first: int, last: int) -> None:
        at = first + _size(part)
        if at > last:
            return
        with self._answer(at, last) as response:
            if _about(response) != self.about():
                self._forget()
                what = "the server has another version now"
                raise RomfsError(what, where=self.url, next_step="run the command again")
            with named(part), open(part, "ab") as out:
                for data in response.iter_content(_READ):
                    wanted = data[: last + 1 - at]
                    out.write(wanted)
                    at += len(wanted)
                    self._fetching.progress("fetching", at - first, last - first + 1)
                    if len(wanted) < len(data):  # the server sends more than it said
                        break
        if at <= last:
            raise _Dropped("the server sent less than was asked for")

    @contextlib.contextmanager
    def _answer(self, first: int, last: int) -> Iterator[requests.Response]:
        if self._fetching.offline:
            what = "it is not on this machine"
            raise RomfsError(what, where=self.url, next_step="repeat without --offline")
        if self._session is None:
            self._session = self._open.enter_context(requests.Session())
        headers = {"Range": f"bytes={first}-{last}"}
        with _answer(self._session, self.url, headers) as response:
            if not response.headers.get("Content-Range", "").startswith(f"bytes {first}-"):
                what = "the server does not send parts of a file"
                next_step = "download the whole file, and name it with --from"
                raise RomfsError(what, where=self.url, next_step=next_step)
            yield response


def _cause(error: BaseException) -> str:
    """The system's own words: requests and urllib3 wrap them in words about their objects."""
    inside = [getattr(error, "reason", None), error.__cause__, *error.args]
    inner = next((each for each in inside if isinstance(each, BaseException)), None)
    if inner is not None:
        return _cause(inner)
    return getattr(error, "strerror", None) or str(error)


def _patiently(url: str, attempt: Callable[[], _T], have: Callable[[], int] = lambda: 0) -> _T:
    """The result of `attempt`, retried until `_PATIENCE` tries in a row bring no new byte.

    have: how many bytes there are. RomfsError."""
    best, stalled = have(), 0
    while True:
        try:
            return attempt()
        except (_Dropped, requests.RequestException) as dropped:
            stalled = 0 if have() > best else stalled + 1
            best = max(best, have())
            if stalled >= _PATIENCE:
                what = f"the download failed: {_cause(dropped)}"
                next_step = "repeat the command: it continues where it stopped"
                raise RomfsError(what, where=url, next_step=next_step) from dropped
            time.sleep(_PAUSE_SECONDS * stalled)


@contextlib.contextmanager
def _answer(
    session: requests.Session, url: str, headers: dict[str, str]
) -> Iterator[requests.Response]:
    """A good response of the server, its body not read yet. RomfsError; _Dropped if another try
    may succeed."""
    if url.startswith("https://"):
        session.adapters.pop("http://", None)  # no redirect to plain HTTP
    system = ssl.get_default_verify_paths()
    session.verify = system.cafile or system.capath or True
    chosen = os.environ.get("SSL_CERT_FILE")  # else $REQUESTS_CA_BUNDLE, else the system's
    headers = {"User-Agent": "romfsfs", "Accept-Encoding": "identity", **headers}
    try:
        response = session.get(url, headers=headers, stream=True, timeout=_TIMEOUT, verify=chosen)
    except requests.exceptions.SSLError as error:
        what = f"its certificate is not accepted: {_cause(error)}"
        next_step = "set $SSL_CERT_FILE to your organisation's certificates"
        raise RomfsError(what, where=url, next_step=next_step) from error
    except (requests.exceptions.InvalidSchema, requests.exceptions.InvalidURL, ValueError) as error:
        raise RomfsError(f"cannot fetch it: {error}", where=url) from error
    with response:
        code, answer = response.status_code, f"the server answered {response.status_code}"
        if code in (200, 206):
            yield response
        elif code in (404, 410):
            raise Missing(f"{answer}: it has no such file", where=url, next_step="check the URL")
        elif code >= 500 or code in (408, 429) or (response.history and code in (400, 401, 403)):
            raise _Dropped(answer)  # last case: the signed address expired, or is not valid yet
        else:
            raise RomfsError(f"{answer} {response.reason}", where=url, next_step="check the URL")


def _about(response: requests.Response) -> _About:
    headers = response.headers
    total = headers["Content-Range"].rpartition("/")[2]
    version = headers.get("ETag") or headers.get("Last-Modified") or ""
    return _About(int(total) if total.isdecimal() and len(total) < 19 else 0, version)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
