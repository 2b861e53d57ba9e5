"""Where the output of a mount goes: kept while it can still fail, then into the session's log."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import sys
import tempfile
from collections.abc import Callable
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from romfsfs.errors import printable
from romfsfs.fs.messages import Sender

if TYPE_CHECKING:
    from romfsfs.session.service import SessionHost

#: A session's log that is longer than the first is cut to the second; bytes.
_LOG_LIMIT = 1 << 20
_LOG_KEPT = 1 << 18
_LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class Captured(NamedTuple):
    """What the daemon says until the session's log is known. said: by libfuse, which writes to
    standard error why it cannot mount. noted: by our own log."""

    said: BinaryIO
    noted: BinaryIO


def nameless_file() -> BinaryIO:
    """In memory if the system can do that: on a full disk no folder takes a temporary file."""
    if hasattr(os, "memfd_create"):
        return open(os.memfd_create("romfsfs"), "w+b")
    return tempfile.TemporaryFile()  # macOS


def redirect_output(captured: Captured) -> None:
    """Point standard input at /dev/null, and output at these files."""
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.close(null)
    for number in (1, 2):
        os.dup2(captured.said.fileno(), number)
    level = logging.getLogger().getEffectiveLevel()
    stream = open(  # noqa: SIM115
        captured.noted.fileno(), "w", encoding="utf-8", errors="backslashreplace", buffering=1,
        closefd=False,
    )  # fmt: skip
    sys.stdout = sys.stderr = stream
    logging.raiseExceptions = False  # on a full disk, a report of the failed write is lost too
    logging.basicConfig(
        force=True, handlers=[_LogHandler(stream)], format=_LOG_FORMAT,
        level=min(level, logging.INFO),
    )  # fmt: skip


class _LogHandler(logging.StreamHandler):  # type: ignore[type-arg]  # no [] in Python 3.10
    """Keeps a log file within `_LOG_LIMIT`, and escapes control characters: people read the log
    with `cat`, and names in it must not control the terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return "\n".join(map(printable, super().format(record).expandtabs().split("\n")))

    def emit(self, record: logging.LogRecord) -> None:
        super().emit(record)
        with contextlib.suppress(OSError):
            shorten(self.stream.fileno())


def log_too(host: SessionHost) -> Callable[[list[str]], None]:
    """In the foreground: log to the session's log too; standard error gets no more than before.
    Raises OSError if the log cannot be opened."""
    if host.log_file is not None:
        root = logging.getLogger()
        if not root.handlers:
            root.addHandler(logging.StreamHandler())  # as logging does where there is none
        for handler in root.handlers:
            handler.setLevel(max(handler.level, root.getEffectiveLevel()))
        stream = open(host.log_file, "a+", encoding="utf-8", errors="backslashreplace", buffering=1)  # noqa: SIM115
        handler = _LogHandler(stream)
        handler.setFormatter(logging.Formatter(_LOG_FORMAT))
        root.addHandler(handler)
        root.setLevel(min(root.getEffectiveLevel(), logging.INFO))
    return lambda _: None


def shorten(fd: int) -> None:
    """Cut a log, open for reading and appending, to its last `_LOG_KEPT` bytes if it exceeds
    `_LOG_LIMIT`: mounts last for months. Files not open for appending are left alone."""
    size = os.fstat(fd).st_size
    if size > _LOG_LIMIT and fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_APPEND:
        kept = os.pread(fd, _LOG_KEPT, size - _LOG_KEPT)
        os.ftruncate(fd, 0)
        os.write(fd, kept[kept.find(b"\n") + 1 :])


def to_log(host: SessionHost, send: Sender, captured: Captured) -> Callable[[list[str]], None]:
    """Open the session's log while the mount can still be refused. Raises OSError.

    Returns the function to call once the kernel has mounted: it redirects output to the log."""
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
    path = os.devnull if host.log_file is None else host.log_file
    target = os.open(path, flags, 0o600)

    def ready(said: list[str]) -> None:
        with contextlib.suppress(OSError):  # a full disk loses what was captured, not the mount
            for file in (captured.noted, captured.said):
                os.write(target, all_of(file))
        for number in (1, 2):
            os.dup2(target, number)
        os.dup2(target, captured.noted.fileno(), inheritable=False)
        os.close(target)
        shorten(2)
        captured.said.close()
        send(ready=said)
        send.close()

    return ready


def all_of(file: BinaryIO) -> bytes:
    """Its bytes from the beginning on."""
    file.seek(0)
    return file.read()
