"""Checks of images: lint of any image, and proof that a written one is as planned."""

from __future__ import annotations

import hashlib
import os
from bisect import bisect_right
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from romfsfs.errors import ImageFormatError, VerifyError, count_text
from romfsfs.image.file_buffer import FileBuffer
from romfsfs.image.model import Extent, FileNode, Note, walk
from romfsfs.image.reader import read_image
from romfsfs.system.beside import Beside, Cancel
from romfsfs.system.copying import difference

if TYPE_CHECKING:
    from romfsfs.image.layout import Layout
    from romfsfs.image.model import Image
    from romfsfs.image.rules import AlignmentRules
    from romfsfs.image.writer import Data
    from romfsfs.system.files import Progress

_CHUNK = 1 << 20
#: small files are read together; a larger window would read more of a large file for nothing
_WINDOW = 1 << 16
#: from this many bytes on, two threads read (reading and hashing release the interpreter lock)
_TWO_THREADS = 8 << 20


def lint(image: Image, rules: AlignmentRules) -> tuple[Note, ...]:
    """The reader's notes on an image, and these:

    misaligned     a file whose data is not aligned as `rules` demand
    ide-name       a name that is not printable ASCII: the IDE and openmv-ota show and store `?`
    trailing       bytes after the image record, which cameras ignore; not for blank flash (size 0)
    """
    notes = list(image.notes)
    for path, node in walk(image):
        if not (node.name.isascii() and node.name.isprintable()):
            notes.append(
                Note("ide-name", path, f"the IDE turns the name {node.name!r} into one with '?'",
                     node.record.offset)
            )  # fmt: skip
        if isinstance(node, FileNode):
            alignment = rules.for_path(path)
            if node.extent.size and node.extent.offset % alignment:
                message = f"its data is at {node.extent.offset:#x}, not a multiple of {alignment}"
                notes.append(Note("misaligned", path, message, node.extent.offset))
    if image.trailing and image.size:
        message = f"{count_text(image.trailing, 'byte')} after the image"
        notes.append(Note("trailing", "", message, image.size))
    return tuple(notes)


def check_image(
    fd: int,
    layout: Layout,
    digests: Mapping[str, str],
    rules: AlignmentRules,
    progress: Progress | None = None,
    open_source: Callable[[str], Data] | None = None,
) -> None:
    """Parse the image file open as `fd` and compare it with its plan.

    Compared are every path, size, offset, alignment, and the data: by its SHA-256 (`digests`,
    lower-case hexadecimal by path), or, for a path without one, byte for byte with what
    `open_source` gives. VerifyError names the path and offset of a difference; OSError of reading.
    Nothing of the encoder is used but the layout's result. Read with pread: memory stays flat for
    any size, and the file's position is left alone. Large images are read by two threads, which
    both call `open_source`. `progress` is called in this thread with "checking", bytes done, all.
    """
    size = os.fstat(fd).st_size
    if size != layout.size:
        raise VerifyError(f"the image has {size} bytes instead of {layout.size}")
    try:
        extents = _compare_tree(read_image(FileBuffer(fd)), layout, rules)
        missing = [] if open_source else [path for path in extents if path not in digests]
        if missing:
            raise VerifyError("there is no digest to compare with", where=missing[0])
        todo = sorted(extents.items(), key=lambda item: item[1])
        parts = [todo]
        if size >= _TWO_THREADS:
            middle = bisect_right(todo, size // 2, key=lambda item: item[1].offset)
            parts = [todo[:middle], todo[middle:]]
        _run_all([_Reader(fd, part, digests, open_source) for part in parts], size, progress)
    except ImageFormatError as error:
        raise VerifyError("the image that was written cannot be read", where=error.line) from None


def _compare_tree(image: Image, layout: Layout, rules: AlignmentRules) -> dict[str, Extent]:
    """Compare everything but the data, and return where each file's data lies. VerifyError."""
    if image.size != layout.size:
        raise VerifyError(f"the header declares {image.size} bytes instead of {layout.size}")
    extents: dict[str, Extent] = {}
    directories: set[str] = set()
    for path, node in walk(image):
        if isinstance(node, FileNode):
            extents[path] = node.extent
        else:
            directories.add(path)
    for path, extent in extents.items():
        expected = layout.placements.get(path)
        if expected is None:
            raise _difference("a file that should not be there", path, extent.offset)
        if expected.size != extent.size:
            sizes = f"{extent.size:,} B instead of {expected.size:,} B"
            raise _difference(sizes, path, extent.offset)
        if expected.offset != extent.offset:
            raise _difference(f"not at offset {expected.offset:#x}", path, extent.offset)
        alignment = rules.for_path(path)
        if extent.offset % alignment:
            raise _difference(f"not at a multiple of {alignment}", path, extent.offset)
    for path, expected in layout.placements.items():
        if path not in extents:
            raise _difference("the file is missing", path, expected.offset)
    if difference := directories.symmetric_difference(layout.directories):
        raise VerifyError("a directory is missing or unexpected", where=min(difference))
    return extents


def _difference(what: str, path: str, offset: int) -> VerifyError:
    return VerifyError(
        f"the written image differs from the plan: {what}", where=f"{path}, offset {offset:#x}"
    )


class _Reader:
    """Compares the data of successive files of an image, in one pass."""

    def __init__(
        self, fd: int, files: list[tuple[str, Extent]], digests: Mapping[str, str],
        open_source: Callable[[str], Data] | None,
    ) -> None:  # fmt: skip
        self.fd = fd
        self.files = files
        self.digests = digests
        self.open_source = open_source
        self.done = 0
        self._image = FileBuffer(fd, window=_WINDOW)

    def run(self, cancel: Cancel | None, report: Callable[[], None] = lambda: None) -> None:
        """Compare all files, or until `cancel` is set; call `report` about once a mebibyte.

        VerifyError, OSError, and what `open_source` raises."""
        told = 0
        for path, extent in self.files:
            if cancel is not None and cancel.is_set():
                return
            wanted = self.digests.get(path)
            if wanted is None and self.open_source is not None:
                same = self._is_as(self.open_source(path), extent)
            else:
                same = self._digest(extent) == wanted
            if not same:
                raise _difference("the data differs", path, extent.offset)
            self.done += extent.size
            if self.done - told >= _CHUNK:
                told = self.done
                report()

    def _is_as(self, source: Data, extent: Extent) -> bool:
        try:
            where = difference(self.fd, extent.offset, source.fd, source.offset, extent.size)
            return where is None
        finally:
            if source.owned:
                os.close(source.fd)

    def _digest(self, extent: Extent) -> str:
        digest = hashlib.sha256()
        for start in range(extent.offset, extent.end, _CHUNK):
            digest.update(self._image[start : min(start + _CHUNK, extent.end)])
        return digest.hexdigest()


def _run_all(readers: list[_Reader], total: int, progress: Progress | None) -> None:
    """Run the first reader in this thread and each other one in its own. Errors of `run`."""

    def report() -> None:
        if progress is not None:
            progress("checking", sum(reader.done for reader in readers), total)

    with Beside([reader.run for reader in readers[1:]]) as beside:
        readers[0].run(None, report)
        for number in range(len(readers) - 1):
            beside.result(number)
    report()
