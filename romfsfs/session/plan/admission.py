"""Will what lands run there? The check of stored bytes (`convert.admission`), asked for every file
of a shadow tree and of a whole image. Nobody else asks it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import BinaryIO

from romfsfs.convert import Diagnostic, Target, admit
from romfsfs.image.model import Extent, FileNode, Image, walk
from romfsfs.session.plan.plan import SEVERITIES, Problem
from romfsfs.session.plan.shadow import Change, Location, ShadowEntry

#: A descriptor (the asker closes it), the offset and the size of stored bytes.
OpenLocation = Callable[[Location], "tuple[int, int, int]"]


class Admission:
    """The check for one target. Any thread; what was found is remembered by content."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._known: dict[tuple[str, str], tuple[Diagnostic, ...]] = {}

    def checked(self, entry: ShadowEntry, open_location: OpenLocation) -> ShadowEntry:
        """The entry with the problems of the bytes that it stores; failed where they cannot
        work, unless the image held them before. OSError when they cannot be read."""
        if entry.location is None or entry.stored_as is None or entry.change is Change.IGNORED:
            return entry
        key = (entry.stored_as, entry.digest)
        found = self._known.get(key) if entry.digest else None
        if found is None:
            try:
                fd, offset, size = open_location(entry.location)
            except FileNotFoundError:
                return entry  # removed meanwhile: there is another look at the tree
            try:
                found = _admit(entry.stored_as, fd, offset, size, self._target)
            finally:
                os.close(fd)
            if entry.digest:
                self._known[key] = found
        if not found:
            return entry
        if entry.change is Change.UNCHANGED:  # nobody asked for it: it stops no commit
            found = tuple(map(_there_already, found))
        failed = any(each.severity == "error" for each in found)
        return entry._replace(
            state="failed" if failed else entry.state, diagnostics=(*entry.diagnostics, *found)
        )

    def keep(self, entries: list[ShadowEntry]) -> None:
        """Forget all but these entries."""
        keys = {(entry.stored_as or "", entry.digest) for entry in entries}
        for key in self._known.keys() - keys:
            self._known.pop(key, None)


def _there_already(found: Diagnostic) -> Diagnostic:
    if found.severity != "error":
        return found
    return replace(found, severity="warning", message=f"already in the image: {found.message}")


def admit_files(extents: Iterable[tuple[str, Extent]], fd: int, target: Target) -> list[Problem]:
    """Problems of files of an image, by path, that lie in an open file; errors first."""
    found = [
        Problem(each.code, path, each.message, each.severity, each.detail)
        for path, extent in extents
        for each in _admit(path, fd, *extent, target)
    ]
    return sorted(found, key=lambda problem: SEVERITIES.index(problem.severity))


def admit_image(image: Image, file: BinaryIO, target: Target) -> list[Problem]:
    """Problems of the files of an image; errors first."""
    files = ((path, node.extent) for path, node in walk(image) if isinstance(node, FileNode))
    return admit_files(files, file.fileno(), target)


def _admit(path: str, fd: int, offset: int, size: int, target: Target) -> tuple[Diagnostic, ...]:
    def read(at: int, count: int) -> bytes:
        return os.pread(fd, min(count, max(size - at, 0)), offset + at)

    return admit(path, read, size, target)
