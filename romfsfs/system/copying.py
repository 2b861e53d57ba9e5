"""Copying, comparing and filling the bytes of open files."""

from __future__ import annotations

import errno
import hashlib
import os
from typing import BinaryIO

from romfsfs.system.files import CHUNK

#: errors of `copy_file_range` where it does not work: other file systems, pipes, append mode
_NO_KERNEL_COPY = (
    errno.ENOSYS,
    errno.EXDEV,
    errno.EINVAL,
    errno.EOPNOTSUPP,
    errno.EBADF,
    errno.EPERM,
)


def copy_range(source: int, offset: int, size: int, target: int) -> str:
    """Append `size` bytes of `source` at `offset` to `target`; the digest of what was copied.
    OSError, also if `source` is shorter."""
    if 0 < size <= CHUNK:  # nearly every file: one read and one write
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


def copy_in_kernel(source: int, offset: int, target: int, start: int, size: int) -> int:
    """Have the kernel copy between open files, which then may share their blocks (Btrfs, XFS).

    Returns the bytes copied: fewer if the source ends, 0 where the kernel cannot (other file
    systems, pipes, macOS). OSError."""
    done = 0
    while done < size and hasattr(os, "copy_file_range"):
        try:
            count = os.copy_file_range(source, target, size - done, offset + done, start + done)
        except OSError as error:
            if error.errno not in _NO_KERNEL_COPY:
                raise
            break
        if count == 0:  # the end, or a file system whose files look empty to the kernel
            break
        done += count
    return done


#: Bytes. Buffers of this size reuse the same memory; one of a mebibyte is mapped anew each time,
#: which takes three times as long as the comparison.
_COMPARED = 256 << 10


def difference(one: int, offset: int, other: int, other_offset: int, size: int) -> int | None:
    """Where `size` bytes of two open files first differ, relative to their offsets and rounded down
    to 256 KiB; None: nowhere. Missing bytes differ. OSError."""
    for done in range(0, size, _COMPARED):
        count = min(_COMPARED, size - done)
        data = os.pread(one, count, offset + done)
        if len(data) < count or data != os.pread(other, count, other_offset + done):
            return done
    return None


def write_all(fd: int, data: bytes) -> None:
    """Write all of `data`, however little write(2) takes at a time. OSError."""
    written = os.write(fd, data)
    while written < len(data):
        written += os.write(fd, memoryview(data)[written:])


def fill(out: BinaryIO, byte: int, size: int) -> None:
    """Write this byte `size` times (nothing if that is below 0)."""
    while size > 0:
        count = min(size, CHUNK)
        out.write(bytes([byte]) * count)
        size -= count


def fill_byte(fd: int, offset: int = 0) -> int | None:
    """The one byte that fills an open file from `offset` on; None: bytes differ, or none follow."""
    first = data = os.pread(fd, 16, offset)  # other data nearly always differs here already
    while data:
        if data.count(first[:1]) != len(data):
            return None
        offset += len(data)
        data = os.pread(fd, CHUNK, offset)
    return first[0] if first else None
