"""Writes a layout to an open file, in constant memory."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from romfsfs.errors import RomfsError
from romfsfs.image.layout import (
    DEFAULT_RULES,
    AlignmentRules,
    BasePiece,
    FilePiece,
    TreeEntry,
    canonical,
)
from romfsfs.system.copying import copy_in_kernel

if TYPE_CHECKING:
    from romfsfs.image.layout import Layout
    from romfsfs.system.files import Progress

#: small pieces are gathered into writes of about this size
_BATCH = 1 << 18
#: a file of this size or more is copied by the kernel instead of through the batch
LARGE = 1 << 16
_CHUNK = 1 << 20


class DataChanged(RomfsError):
    """A source has not the length that the layout expects: it was edited in between."""


class Data(NamedTuple):
    """Where the data of a piece comes from: `offset` in the file open as `fd`.

    owned: the file was opened for this piece alone. Whoever reads the piece closes it, and it has
    to end where the piece ends.
    """

    fd: int
    offset: int = 0
    owned: bool = False


def write_image(
    layout: Layout,
    out: BinaryIO,
    open_source: Callable[[str], Data],
    progress: Progress | None = None,
    base: int | None = None,
    digests: dict[str, str] | None = None,
) -> None:
    """Write the image to `out` from its current position on; close nothing but owned sources.

    Memory use is constant: the kernel copies large files where it can (between files of one file
    system, possibly sharing their blocks), small ones are gathered. `out` may be any binary stream.
    Any thread. OSError of the files; DataChanged if a source is too short (or, when owned, too
    long). `progress` is called with "writing", bytes done, bytes in all.

    base: descriptor of the image that a stable layout was made for. Without it, padding records
    are filled with 0xFF: the same image to any reader, but with more blocks that differ.

    digests: SHA-256 by path, for `check_image`; those of small files are added as they are read.
    """
    sink = _Sink(out)
    done = 0
    for piece in layout.pieces:
        if isinstance(piece, FilePiece):
            source = open_source(piece.path)
            try:
                _copy(piece, source, sink, digests)
            finally:
                if source.owned:
                    os.close(source.fd)
            done += piece.size
        elif isinstance(piece, BasePiece):
            if base is None:
                sink.fill(piece.size)
            else:
                whole = FilePiece("the base image", piece.size)
                _copy(whole, Data(base, piece.offset), sink)
            done += piece.size
        else:
            sink.write(piece)
            done += len(piece)
        if progress is not None and sink.flushed:
            sink.flushed = False
            progress("writing", done, layout.size)
    sink.flush()
    if progress is not None:
        progress("writing", layout.size, layout.size)


def encode(
    files: Mapping[str, bytes],
    rules: AlignmentRules = DEFAULT_RULES,
    dirs: Iterable[str] = (),
) -> bytes:
    """A whole small image as bytes, in canonical layout. dirs: directories that may be empty.

    The directories of files need not be listed. Entries keep the order given, those of `dirs`
    first. Errors of `layout.canonical`.
    """
    entries: dict[str, TreeEntry] = {}
    for path in [*dirs, *files]:
        parts = path.split("/")
        for depth in range(1, len(parts)):
            parent = "/".join(parts[:depth])
            entries.setdefault(parent, TreeEntry(parent, None))
        entries.setdefault(path, TreeEntry(path, len(files[path]) if path in files else None))
    layout = canonical(list(entries.values()), rules)
    out = io.BytesIO()
    for piece in layout.pieces:
        if isinstance(piece, bytes):
            out.write(piece)
        elif isinstance(piece, FilePiece):
            out.write(files[piece.path])
    return out.getvalue()


class _Sink:
    """Gathers small writes; knows whether the kernel can copy to the output."""

    def __init__(self, out: BinaryIO) -> None:
        self.out = out
        self.pending: list[bytes] = []
        self.size = 0
        self.flushed = False
        try:
            self.fd = out.fileno()
            out.tell()
        except (OSError, ValueError, AttributeError):  # BytesIO and pipes
            self.fd = -1

    def write(self, data: bytes) -> None:
        self.pending.append(data)
        self.size += len(data)
        if self.size >= _BATCH:
            self.flush()

    def fill(self, size: int) -> None:
        while size > 0:
            self.write(b"\xff" * min(size, _BATCH))
            size -= _BATCH

    def flush(self) -> None:
        if self.size <= 2 * _BATCH:
            self.write_all(b"".join(self.pending))
        else:
            for data in self.pending:
                self.write_all(data)
        self.pending.clear()
        self.size = 0
        self.flushed = True

    def write_all(self, data: bytes | memoryview) -> None:
        """Write everything: unbuffered files may write less than asked."""
        written = self.out.write(data)
        while written is not None and written < len(data):
            data = memoryview(data)[written:]
            written = self.out.write(data)

    def copy(self, piece: FilePiece, source: Data) -> int:
        """Let the kernel copy. Returns the bytes copied: all, none, or fewer (source too short)."""
        if self.fd < 0:
            return 0
        self.flush()
        self.out.flush()
        start = self.out.tell()
        done = copy_in_kernel(source.fd, source.offset, self.fd, start, piece.size)
        self.out.seek(start + done)
        return done


def _copy(
    piece: FilePiece, source: Data, sink: _Sink, digests: dict[str, str] | None = None
) -> None:
    """Copy one file's data. OSError; DataChanged if the source is too short or too long."""
    path, size = piece
    if size < LARGE:
        # One byte more than needed shows a file that grew, without another system call.
        data = os.pread(source.fd, size + source.owned, source.offset)
        if len(data) == size:
            sink.write(data)
            if digests is not None and path not in digests:
                digests[path] = hashlib.sha256(data).hexdigest()
            return
        if len(data) > size:
            raise _changed(path, size, "more")
    done = sink.copy(piece, source) if size >= LARGE else 0
    while done < size:
        data = os.pread(source.fd, min(_CHUNK, size - done), source.offset + done)
        if not data:
            raise _changed(path, size, str(done))
        sink.write(data)
        done += len(data)
    if source.owned and os.pread(source.fd, 1, source.offset + size):
        raise _changed(path, size, "more")


def _changed(path: str, expected: int, found: str) -> DataChanged:
    return DataChanged(
        f"{path} changed while it was stored: {expected:,} B expected, {found} found",
        where=path,
        next_step="try again",
    )
