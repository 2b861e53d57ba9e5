"""Bytes from one open file to another, digested on the way."""

from __future__ import annotations

import hashlib
import os

from romfsfs.system.files import CHUNK


def copy_range(source: int, offset: int, size: int, target: int) -> str:
    """Append `size` bytes of `source` at `offset` to `target`; the digest of what was copied."""
    if 0 < size <= CHUNK:  # nearly every file: no loop, and all in one call each
        data = os.pread(source, size, offset)
        if len(data) == size:
            write_all(target, data)
            return hashlib.sha256(data).hexdigest()
    digest = hashlib.sha256()
    end = offset + size
    while offset < end:
        data = os.pread(source, min(CHUNK, end - offset), offset)
        if not data:
            raise OSError(5, "the source ended early")
        digest.update(data)
        write_all(target, data)
        offset += len(data)
    return digest.hexdigest()


def write_all(fd: int, data: bytes) -> None:
    """All of `data`, whatever `write` takes at a time."""
    written = os.write(fd, data)
    while written < len(data):
        written += os.write(fd, memoryview(data)[written:])
