"""Buffers whose bytes are in a file or on a device, and are read on access.

Files are not mapped (mmap): with a mapping, a failing disk, a USB stick that is pulled out, or
another program that truncates the file would kill the process with SIGBUS instead of raising an
error that can be reported.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import overload

from romfsfs.errors import ImageFormatError

#: bytes read at once: the records of small files are adjacent
_WINDOW = 32 << 10


class WindowBuffer:
    """`size` bytes, indexed and sliced like bytes, of which one window at a time is in memory.

    read: `read(start, least, most)` returns `least` to `most` bytes from `start` on; its errors
    reach the caller. window: bytes to read at once. Negative indexes (but not slices) are an
    IndexError. Not safe for several threads.
    """

    def __init__(self, size: int, window: int, read: Callable[[int, int, int], bytes]) -> None:
        self._size = size
        self._least_window = window
        self._fetch = read
        self._window = b""
        self._start = 0  # of the window in the file

    def __len__(self) -> int:
        return self._size

    @overload
    def __getitem__(self, key: int) -> int: ...
    @overload
    def __getitem__(self, key: slice) -> bytes: ...
    def __getitem__(self, key: int | slice) -> int | bytes:
        if isinstance(key, slice):
            first, stop, step = key.indices(self._size)
            return self._read(first, stop)[::step]
        at = key - self._start
        if not 0 <= at < len(self._window):
            if not 0 <= key < self._size:
                raise IndexError(key)
            self._load(key, 1)
            at = 0
        return self._window[at]

    def _read(self, start: int, stop: int) -> bytes:
        if stop <= start:
            return b""
        at = start - self._start
        if not 0 <= at <= len(self._window) - (stop - start):
            self._load(start, stop - start)
            at = 0
        return self._window[at : at + stop - start]

    def _load(self, start: int, least: int) -> None:
        """Move the window to `start`, with at least `least` bytes."""
        most = min(max(least, self._least_window), self._size - start)
        self._window = self._fetch(start, least, most)
        self._start = start


class FileBuffer(WindowBuffer):
    """The first `size` bytes of a file (None: all it has now).

    Memory does not grow with the file's size, and the file's position is left alone. Access raises
    OSError if the disk fails, ImageFormatError if the file has become shorter.
    """

    def __init__(self, fd: int, size: int | None = None, window: int = _WINDOW) -> None:
        self._fd = fd
        super().__init__(os.fstat(fd).st_size if size is None else size, window, self._of_file)

    def _of_file(self, start: int, least: int, most: int) -> bytes:
        window = b""
        while len(window) < least:
            data = os.pread(self._fd, most - len(window), start + len(window))
            if not data:
                raise ImageFormatError("the file has become shorter", start + len(window))
            window += data
        return window
