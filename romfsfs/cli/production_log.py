"""The log of `push --all`: a CSV file that has a row for each camera."""

from __future__ import annotations

import csv
import datetime
import errno
import io
import os
import stat
from contextlib import suppress

from romfsfs.devices.base import DeviceInfo
from romfsfs.errors import UsageError


class Log:
    """A CSV file to which a row is appended for each camera. OSError if it cannot be written, with
    the rows in it as they were; UsageError for a file that is not such a log."""

    COLUMNS = ("time", "port", "id", "firmware", "digest", "outcome")

    def __init__(self, path: str) -> None:
        self._path = path
        self._fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            self._begin()
        except BaseException:
            self.close()
            raise

    def _begin(self) -> None:
        head = _csv(self.COLUMNS)
        is_file = stat.S_ISREG(os.fstat(self._fd).st_mode)
        there = os.pread(self._fd, len(head), 0) if is_file else b"?"
        if there not in (b"", head):
            raise UsageError("not a log of push", where=self._path, next_step="name another file")
        if not there:
            self._append(head)

    def row(self, port: str, info: DeviceInfo | None, digest: str, outcome: str) -> None:
        now = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
        number, firmware = (unique_id(info), info.firmware) if info else ("", "")
        self._append(_csv((now, port, number, firmware, digest, outcome)))

    def _append(self, row: bytes) -> None:
        end = os.lseek(self._fd, 0, os.SEEK_END)
        if end and os.pread(self._fd, 1, end - 1) != b"\n":
            row = b"\n" + row  # the last writer was interrupted within a row
        try:
            if os.write(self._fd, row) < len(row):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(self._fd)
        except OSError as error:
            with suppress(OSError):
                os.ftruncate(self._fd, end)
            error.filename = self._path
            raise

    def close(self) -> None:
        os.close(self._fd)


def _csv(cells: tuple[str, ...]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue().encode("utf-8", "backslashreplace")


def unique_id(info: DeviceInfo) -> str:
    """The camera's unique id; '' if it reports none."""
    return info.key.split("/")[1] if info.has_id and info.key.count("/") == 2 else ""
