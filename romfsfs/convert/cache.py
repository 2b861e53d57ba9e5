"""Results of conversions, kept by content across mounts, sessions and processes.

    results/<key[:2]>/<key>.bin     what is stored in the image (absent: failed or only checked)
    results/<key[:2]>/<key>.json    its record: digest and size, diagnostics, figures of a model
    locks/<key>                     locked (flock) while that input is converted
    work/                           private folders of running conversions, locked likewise
    trimmed                         its mtime: when the cache was last trimmed to its limit

An entry exists once its record does, which is renamed into place. Nothing is fsynced: a lost entry
can be made again, and a torn one is noticed, because the artifact's digest is compared before its
first use in a process. Everything here may be deleted at any time. Safe between threads and
processes.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from romfsfs.convert.admission.models import MODEL_SUFFIXES, look_into, suffix
from romfsfs.convert.flatbuffer import Model
from romfsfs.convert.types import Diagnostic, Figures, Product, Reader
from romfsfs.errors import Cancelled
from romfsfs.system.beside import Cancel
from romfsfs.system.files import digest_bytes, digest_file, lock_within
from romfsfs.system.removal import discard_folder
from romfsfs.system.user_folders import make_private_dir

log = logging.getLogger(__name__)

_SCHEMA = 1
#: What the results may take, approximately, bytes (`keep_limit`).
LIMIT_BYTES = 1 << 30
_RECORD = ".json"
#: Entries used this recently are not trimmed, seconds: a process may be about to open them.
GRACE_SECONDS = 600.0
#: A lock file or work folder that is older and not locked was left by a crash, seconds: whoever
#: makes one locks it at once.
ABANDONED_SECONDS = 60.0
#: How long an artifact without a record is kept, seconds: its record may be about to be written.
_ORPHAN_SECONDS = 3600.0
#: Trim if the last time was so many seconds ago, or this process has added a 16th of the limit.
_TRIM_SECONDS = 3600.0
_TRIM_PART = 16
#: A use is recorded at most so often, seconds: trimming needs no finer order.
_TOUCH_SECONDS = 60.0
_LOCK_POLL_SECONDS = 0.02


class LockTimeout(Exception):
    """Another thread or process kept converting the same input for longer than the time limit."""


class Cache:
    """Results by key, below one folder. Any thread, and any number of processes."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._filed = 0
        self._verified: dict[str, tuple[int, int, int]] = {}
        self._mutex = threading.Lock()

    def get(self, key: str) -> Product | None:
        """The result under `key`; None if there is none or it is damaged (`put` replaces it)."""
        artifact = self._artifact(key)
        try:
            entry = self._read(key, artifact)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as caught:
            log.warning("cache entry %s is damaged and will be made again: %s", key, caught)
            return None
        self._touch(artifact.with_suffix(_RECORD))
        return entry

    def put(self, key: str, product: Product) -> Product:
        """Store a result, moving its artifact here; returns it with digest and size.

        With an artifact, the caller holds the lock of `key`, lest another's record be put to it,
        and is still in `work_folder`. OSError, RomfsError."""
        kept = self._artifact(key)
        make_private_dir(kept.parent)
        if product.artifact is not None:
            digest, size = digest_file(product.artifact), product.artifact.stat().st_size
            os.replace(product.artifact, kept)
            product = product._replace(artifact=kept, digest=digest, size=size)
        record = {
            "schema": _SCHEMA, "digest": product.digest, "size": product.size,
            "diagnostics": [each._asdict() for each in product.diagnostics],
            "figures": product.figures and product.figures._asdict(),
        }  # fmt: skip
        with tempfile.NamedTemporaryFile("w", dir=kept.parent, delete=False) as file:
            json.dump(record, file)
        os.replace(file.name, kept.with_suffix(_RECORD))
        with self._mutex:
            self._filed += product.size
        return product

    def keep_figures(self, digest: str, figures: Figures) -> None:
        """Store a compiler's figures for the model whose artifact has this digest.

        A later mount, and `info` of an image, find them there. OSError, RomfsError."""
        self.put(_figures_key(digest), Product(None, figures=figures))

    def figures(self, path: str, read: Reader, size: int, digest: str) -> Figures | None:
        """What is known of a stored model, from its compiler, else from its bytes.

        None: its name is not a model's. OSError of `read`."""
        if suffix(path) not in MODEL_SUFFIXES:
            return None
        filed = self.get(_figures_key(digest))
        if filed is not None and filed.figures is not None:
            return filed.figures
        model = look_into(read, size)
        if not isinstance(model, Model) or model.npu:
            return Figures(flash=size)
        return Figures(0, model.cpu, None, size)

    @contextlib.contextmanager
    def lock(self, key: str, seconds: float, cancel: Cancel | None = None) -> Iterator[None]:
        """Lock `key` against all other threads and processes, waiting up to `seconds`.

        LockTimeout, Cancelled, OSError. The lock file is removed while it is locked, so a waiter
        with the old file and a newcomer with a new one may both get the lock. That does no harm:
        each looks for the result first."""
        path = make_private_dir(self.directory / "locks") / key
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            self._acquire(fd, key, time.monotonic() + seconds, cancel)
            try:
                yield
            finally:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
        finally:
            os.close(fd)

    @contextlib.contextmanager
    def work_folder(self) -> Iterator[Path]:
        """A private folder (0700) on the cache's file system, removed at the end."""
        parent = make_private_dir(self.directory / "work")
        folder = Path(tempfile.mkdtemp(dir=parent))
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            with contextlib.suppress(OSError):  # no flock here, or taken for abandoned just now
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield folder
        finally:
            discard_folder(folder)
            os.close(fd)

    def keep_limit(self) -> None:
        """`trim` to the limit if that is due. Call it after `put`. Errors are ignored."""
        stamp = self.directory / "trimmed"
        with contextlib.suppress(OSError):
            try:
                age = time.time() - stamp.stat().st_mtime
            except FileNotFoundError:
                age = _TRIM_SECONDS
            if 0 <= age < _TRIM_SECONDS and self._filed < LIMIT_BYTES // _TRIM_PART:
                return
            self._filed = 0
            stamp.touch(0o600)  # first, so that no other process trims meanwhile
            self.trim(LIMIT_BYTES)

    def trim(self, max_bytes: int) -> int:
        """Remove the least recently used entries until at most `max_bytes` are left.

        Returns the bytes removed. Also removes what crashes left behind. Entries used in the last
        GRACE_SECONDS stay."""
        now = time.time()
        self._sweep(now)
        entries = sorted(self._usage())
        total = sum(size for _, size, _ in entries)
        removed = 0
        for used, size, record in entries:
            if total - removed <= max_bytes or now - used < GRACE_SECONDS:
                break
            try:
                if record.stat().st_mtime > used:
                    continue  # used meanwhile
                record.unlink()
                record.with_suffix(".bin").unlink()
            except FileNotFoundError:  # another removed it, or it has no artifact
                pass
            except OSError:
                continue
            removed += size
        return removed

    def _artifact(self, key: str) -> Path:
        return self.directory / "results" / key[:2] / f"{key}.bin"

    def _read(self, key: str, artifact: Path) -> Product:
        record = json.loads(artifact.with_suffix(_RECORD).read_text("utf-8"))
        if not isinstance(record, dict) or record.get("schema") != _SCHEMA:
            raise ValueError("another schema")
        diagnostics = tuple(Diagnostic(**each) for each in record["diagnostics"])
        digest, size, figures = str(record["digest"]), int(record["size"]), record.get("figures")
        if not digest:
            return Product(None, diagnostics, figures=Figures(**figures) if figures else None)
        status = artifact.stat()
        stamp = (status.st_ino, status.st_size, status.st_mtime_ns)
        if self._verified.get(key) != stamp:
            if status.st_size != size or digest_file(artifact) != digest:
                raise ValueError("the artifact is not what was filed")
            with self._mutex:
                self._verified[key] = stamp
        return Product(artifact, diagnostics, digest=digest, size=size)

    def _touch(self, record: Path) -> None:
        with contextlib.suppress(OSError):
            if time.time() - record.stat().st_mtime > _TOUCH_SECONDS:
                os.utime(record)

    @staticmethod
    def _acquire(fd: int, key: str, deadline: float, cancel: Cancel | None) -> None:
        while not lock_within(fd, _LOCK_POLL_SECONDS):
            if cancel is not None and cancel.is_set():
                raise Cancelled("the conversion was stopped while it waited for another")
            if time.monotonic() >= deadline:
                raise LockTimeout(key)

    def _usage(self) -> Iterator[tuple[float, int, Path]]:
        """Last use (seconds since the epoch), bytes and record of each entry."""
        for record in self.directory.glob(f"results/??/*{_RECORD}"):
            with contextlib.suppress(OSError):
                status, artifact = record.stat(), record.with_suffix(".bin")
                size = status.st_size + (artifact.stat().st_size if artifact.exists() else 0)
                yield status.st_mtime, size, record

    def _sweep(self, now: float) -> None:
        for pattern, seconds in (
            ("work/*", ABANDONED_SECONDS),
            ("locks/*", ABANDONED_SECONDS),
            ("results/??/*", _ORPHAN_SECONDS),
        ):
            for path in self.directory.glob(pattern):
                if pattern.startswith("results") and path.with_suffix(_RECORD).exists():
                    continue
                with contextlib.suppress(OSError):  # locked: in use
                    if path.is_symlink():  # made by a tool: we make none
                        path.unlink()
                    elif now - path.lstat().st_mtime > seconds:
                        _remove_unheld(path)


def _figures_key(digest: str) -> str:
    return digest_bytes(f"figures {digest}".encode())


def _remove_unheld(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        discard_folder(path)
    finally:
        os.close(fd)
