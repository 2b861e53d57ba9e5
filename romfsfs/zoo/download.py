"""Files over HTTP: resumed where they stopped, bounded, verified, kept with their digest.

Beside a downloaded file lies NAME.json: its URL, size, SHA-256 and what the server calls this
version of it (ETag, Last-Modified). While it comes in it is NAME.part, with NAME.part.json, and
outlives the process: the next call asks only for the rest, and only if the server still has the
same version (`Range` with `If-Range`; RFC 9110, sections 13.1.5 and 14.2). A server that ignores
the range sends everything again, which is noticed (200 instead of 206). Without a version to name
nothing can be resumed safely, unless the digest is known beforehand.

Safe between threads and processes: a lock per file.
"""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import json
import os
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from romfsfs.errors import RomfsError, VerifyError
from romfsfs.system.files import Progress, digest_file, no_progress, replace_atomically, sync_dir

SCHEMES = ("http", "https", "file")
#: The largest resource zip so far has some hundred megabytes.
MAX_BYTES = 4 << 30
TIMEOUT_SECONDS = 30.0
#: This many attempts in a row without a new byte end a download.
_PATIENCE = 3
_PAUSE_SECONDS = 0.2
_READ = 1 << 16
#: A length of more digits is nonsense, which `int` refuses to look at.
_MAX_DIGITS = 18
_AGAIN = "run the command again: it goes on where it stopped"


class Fetched(NamedTuple):
    path: Path
    digest: str
    size: int


class _Dropped(Exception):
    """The connection or the server failed in a way that may pass."""


class _NotModified(Exception):
    """What is kept is still the server's version."""


def download(
    url: str,
    target: Path,
    *,
    sha256: str = "",
    size: int | None = None,
    limit: int = MAX_BYTES,
    update: bool = False,
    timeout: float = TIMEOUT_SECONDS,
    progress: Progress = no_progress,
    accept: Callable[[Path], None] | None = None,
) -> Fetched:
    """The file at `url`, kept as `target`; no network if it is there already.

    sha256, size: what it must have, if known. limit: most bytes taken. update: ask whether the
    server has another version now. timeout: seconds without a byte. accept: looks at what came
    before it replaces what is kept; a RomfsError of it goes on. VerifyError when digest or size
    are others; RomfsError when it cannot be had; OSError from the disk.
    """
    if urlsplit(url).scheme not in SCHEMES:
        raise RomfsError(
            "cannot download from there", where=url, next_step="use an http or https URL"
        )
    with locked(target):
        known = kept(target, sha256)
        if known is not None and not update:
            return known
        transfer = _Transfer(url, target, sha256, size, limit, timeout, progress, accept)
        if known is not None:
            transfer.unless = _read_json(_beside(target, ".json"))
        try:
            transfer.run()
        except _NotModified:
            if known is not None:
                return known
            raise RomfsError("the server answered 304 to no condition", where=url) from None
        return transfer.keep()


def kept(target: Path, sha256: str = "") -> Fetched | None:
    """What an earlier `download` left at `target`, if it is whole (and has this digest)."""
    record = _read_json(_beside(target, ".json"))
    try:
        status = target.stat()
        same = (record["size"], record["mtime_ns"]) == (status.st_size, status.st_mtime_ns)
        digest = str(record["sha256"])
    except (FileNotFoundError, KeyError):
        return None
    return Fetched(target, digest, status.st_size) if same and sha256 in ("", digest) else None


@contextlib.contextmanager
def locked(target: Path) -> Iterator[None]:
    """Alone at making `target`, among threads and processes; waits for the others."""
    fd = os.open(_beside(target, ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


class _Transfer:
    """One file on its way into `target.part`."""

    def __init__(
        self, url: str, target: Path, sha256: str, size: int | None, limit: int, timeout: float,
        progress: Progress, accept: Callable[[Path], None] | None,
    ) -> None:  # fmt: skip
        self.url = url
        self.target = target
        self.part = _beside(target, ".part")
        self.sha256 = sha256.lower()
        self.size = size
        self.limit = limit
        self.timeout = timeout
        self.progress = progress
        self.accept = accept
        self.unless: dict[str, Any] = {}
        self.version: dict[str, str] = {}

    def run(self) -> None:
        """Get all of it, over as many connections as it takes."""
        best = stalled = 0
        while True:
            try:
                return self._attempt()
            except _Dropped as dropped:
                got = self._have()
                stalled = 0 if got > best else stalled + 1
                best = max(best, got)
                if stalled >= _PATIENCE:
                    raise RomfsError(
                        f"the download failed: {dropped}", where=self.url, next_step=_AGAIN
                    ) from dropped
                time.sleep(_PAUSE_SECONDS * stalled)

    def keep(self) -> Fetched:
        """Verify what came and make it `target`."""
        self.progress("verifying", 0, 0)
        size = self._have()
        if self.size is not None and size != self.size:
            self._forget()
            raise self._wrong(f"{size:,} bytes instead of {self.size:,}")
        digest = digest_file(self.part)
        if self.sha256 and digest != self.sha256:
            self._forget()
            raise self._wrong(f"SHA-256 {digest} instead of {self.sha256}")
        if self.accept is not None:
            try:
                self.accept(self.part)
            except RomfsError:
                self._forget()
                raise
        fd = os.open(self.part, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        os.replace(self.part, self.target)
        record = {"url": self.url, "size": size, "sha256": digest, **self.version}
        record["mtime_ns"] = self.target.stat().st_mtime_ns
        _write_json(_beside(self.target, ".json"), record)
        self._forget()
        sync_dir(self.target.parent)
        return Fetched(self.target, digest, size)

    def _attempt(self) -> None:
        offset, headers = self._conditions()
        try:
            response = _opener().open(
                urllib.request.Request(self.url, headers=headers), timeout=self.timeout
            )
        except urllib.error.HTTPError as error:
            with error:
                self._refused(error, offset)
        except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
            reason = getattr(error, "reason", error)
            if isinstance(reason, (ssl.SSLCertVerificationError, FileNotFoundError)):
                raise RomfsError(f"cannot download: {reason}", where=self.url) from error
            raise _Dropped(str(reason) or type(error).__name__) from error
        except ValueError as error:  # a host that is none, in the URL or in a redirect
            raise RomfsError(f"cannot download: {error}", where=self.url) from error
        else:
            with response:
                self._receive(response, offset)

    def _conditions(self) -> tuple[int, dict[str, str]]:
        """(from which byte, request headers)."""
        headers = {"User-Agent": "romfsfs", "Accept-Encoding": "identity"}
        offset = self._have()
        origin = _read_json(_beside(self.part, ".json"))
        version = _validator(origin)
        if not offset or origin.get("url") != self.url or not (version or self.sha256):
            offset = 0
            if etag := self.unless.get("etag"):
                headers["If-None-Match"] = etag
            elif modified := self.unless.get("last_modified"):
                headers["If-Modified-Since"] = modified
            return 0, headers
        self.version = {k: origin[k] for k in ("etag", "last_modified") if k in origin}
        headers["Range"] = f"bytes={offset}-"
        if version:
            headers["If-Range"] = version
        return offset, headers

    def _refused(self, error: urllib.error.HTTPError, offset: int) -> None:
        """An answer that is no content: raises, unless nothing was missing after all."""
        if error.code == 304:
            raise _NotModified
        if error.code == 416 and offset:
            if error.headers.get("Content-Range", "").strip() == f"bytes */{offset}":
                return
            self._forget()
            raise _Dropped("the server has another version now") from error
        answer = f"the server answered {error.code} {error.reason}"
        if error.code >= 500 or error.code in (408, 429):
            raise _Dropped(answer) from error
        raise RomfsError(answer, where=self.url, next_step="check the URL") from error

    def _receive(self, response: Any, offset: int) -> None:
        headers = response.headers
        if headers.get("Content-Encoding", "identity") != "identity":
            raise RomfsError("the server sends it in another encoding", where=self.url)
        if response.status != 206:
            offset = 0
        elif not headers.get("Content-Range", "").startswith(f"bytes {offset}-"):
            self._forget()
            raise _Dropped("the server sent another range than was asked for")
        length = headers.get("Content-Length", "")
        known = length.isdecimal() and len(length) <= _MAX_DIGITS
        total = offset + int(length) if known else None
        if self.size is not None and total not in (None, self.size):
            raise self._wrong(f"{total:,} bytes instead of {self.size:,}")
        self._check_limit(total or 0)
        names = {"etag": "ETag", "last_modified": "Last-Modified"}
        self.version = {key: headers[name] for key, name in names.items() if headers.get(name)}
        if not offset:
            self._forget()  # first: what is kept must never be taken for the new version's
        _write_json(_beside(self.part, ".json"), {"url": self.url, **self.version})
        with open(self.part, "r+b" if offset else "wb") as out:
            out.seek(offset)
            done = offset
            while data := self._read(response):
                done += len(data)
                self._check_limit(done)
                out.write(data)
                self.progress("downloading", done, total or 0)
        if total is not None and done < total:
            raise _Dropped(f"the connection ended after {done:,} of {total:,} bytes")

    def _read(self, response: Any) -> bytes:
        try:
            data: bytes = response.read1(_READ)
        except (http.client.HTTPException, OSError) as error:
            raise _Dropped(str(error) or type(error).__name__) from error
        return data

    def _check_limit(self, size: int) -> None:
        if self.size is not None and size > self.size:
            self._forget()
            raise self._wrong(f"more than {self.size:,} bytes")
        if size > self.limit:
            self._forget()
            raise RomfsError(
                f"larger than the {self.limit:,} bytes that it may have", where=self.url
            )

    def _have(self) -> int:
        try:
            return self.part.stat().st_size
        except FileNotFoundError:
            return 0

    def _forget(self) -> None:
        for path in (self.part, _beside(self.part, ".json")):
            path.unlink(missing_ok=True)

    def _wrong(self, how: str) -> VerifyError:
        return VerifyError(
            f"not the file that was announced: {how}",
            where=self.url,
            next_step="the server and its index disagree; try --update, or another source",
        )


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but none that leads away from HTTP or gives up encryption."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        new = urlsplit(newurl).scheme
        if new != "https" and not (new == "http" and urlsplit(req.full_url).scheme == "http"):
            raise RomfsError(f"refused: a redirect to {newurl}", where=req.full_url)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> urllib.request.OpenerDirector:
    return urllib.request.build_opener(_Redirects())


def _validator(origin: dict[str, Any]) -> str:
    """What `If-Range` takes: a strong ETag, or else the time."""
    etag = str(origin.get("etag", ""))
    return etag if etag and not etag.startswith("W/") else str(origin.get("last_modified", ""))


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(path.name + ending)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


def _write_json(path: Path, record: dict[str, Any]) -> None:
    with replace_atomically(path) as file:
        file.write(json.dumps(record, indent=1).encode())
