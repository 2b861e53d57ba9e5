"""Will what lands run there? The check of stored bytes (`convert.admission`), for the files of a
shadow tree or of a whole image. No other module calls it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import BinaryIO

from romfsfs.convert import Converters, Diagnostic, Target, admit
from romfsfs.convert.admission import concerns
from romfsfs.convert.admission.models import MODEL_SUFFIXES, suffix
from romfsfs.convert.cache import Cache
from romfsfs.convert.types import Figures, Reader
from romfsfs.image.model import Extent, FileNode, Image, walk
from romfsfs.session.plan.plan import alignment_rules
from romfsfs.session.plan.problems import SEVERITIES, Problem
from romfsfs.session.plan.shadow import Change, ShadowEntry
from romfsfs.session.plan.stored import Stored
from romfsfs.session.tree.digests import SPARE
from romfsfs.system.files import digest_fd, named
from romfsfs.system.user_folders import cache_dir

#: -> a descriptor (the caller closes it), the offset and the size of stored bytes
OpenLocation = Callable[[Stored], "tuple[int, int, int]"]


class Admission:
    """The check for one target. Any thread may call it; results are kept by path and digest."""

    def __init__(self, converters: Converters) -> None:
        self._converters = converters
        self._known: dict[tuple[str, str], tuple[tuple[Diagnostic, ...], Figures | None]] = {}
        self._most = SPARE

    def checked(self, entry: ShadowEntry, open_location: OpenLocation) -> ShadowEntry:
        """The entry with the problems of its stored bytes, and a model's figures.

        An error makes its state 'failed'; for bytes unchanged from the image it becomes a warning.
        OSError if the bytes cannot be read."""
        if entry.location is None or entry.stored_as is None or entry.change is Change.IGNORED:
            return entry
        if not concerns(entry.stored_as):
            return entry
        key = (entry.stored_as, entry.digest)
        known = self._known.get(key) if entry.digest else None
        if known is None:
            try:
                fd, offset, size = open_location(entry.location)
            except FileNotFoundError:
                return entry  # removed meanwhile: the tree is looked at again
            try:
                read, figures = _reader(fd, offset, size), None
                with named(entry.path):
                    found = admit(entry.stored_as, read, size, self._converters.target)
                    if entry.digest:  # '' in a build, for a file that is stored as it is
                        figures = self._converters.figures(
                            entry.stored_as, read, size, entry.digest
                        )
            finally:
                os.close(fd)
            known = found, figures
            if entry.digest:
                self._known[key] = known
        found, figures = known
        if not found and figures is None:
            return entry
        if entry.change is Change.UNCHANGED:  # not the user's doing: it stops no commit
            found = tuple(map(_there_already, found))
        failed = any(each.severity == "error" for each in found)
        return entry._replace(
            state="failed" if failed else entry.state,
            diagnostics=(*entry.diagnostics, *found),
            figures=figures,
        )

    def keep(self, entries: Iterable[ShadowEntry]) -> None:
        """Forget the results for all other entries, once their number has doubled."""
        if len(self._known) > self._most:
            keys = {(entry.stored_as or "", entry.digest) for entry in entries}
            for key in self._known.keys() - keys:
                self._known.pop(key, None)
            self._most = 2 * len(self._known) + SPARE


def _there_already(found: Diagnostic) -> Diagnostic:
    if found.severity != "error":
        return found
    return found._replace(severity="warning", message=f"already in the image: {found.message}")


def admit_files(extents: Iterable[tuple[str, Extent]], fd: int, target: Target) -> list[Problem]:
    """Problems of an image's files, whose extents lie in the open file `fd`; errors first."""
    found = [
        Problem(each.code, path, each.message, each.severity, each.detail)
        for path, extent in extents
        for each in admit(path, _reader(fd, *extent), extent.size, target)
    ]
    return sorted(found, key=lambda problem: SEVERITIES.index(problem.severity))


def admit_image(image: Image, file: BinaryIO, target: Target) -> list[Problem]:
    """Problems of an image's files and of their alignment; errors first."""
    rules = alignment_rules(target, {})
    files = [(path, node.extent) for path, node in walk(image) if isinstance(node, FileNode)]
    misaligned = [
        Problem(
            "misaligned", path, f"its data is at {extent.offset:#x}, not a multiple of "
            f"{rules.for_path(path)}; mount it, then romfsfs commit --compact",
        )
        for path, extent in files
        if extent.size and extent.offset % rules.for_path(path)
    ]  # fmt: skip
    return misaligned + admit_files(files, file.fileno(), target)


def image_figures(image: Image, file: BinaryIO) -> dict[str, Figures]:
    """Figures of the models in an image, by path."""
    found = {}
    cache = Cache(cache_dir() / "convert")
    for path, node in walk(image):
        if isinstance(node, FileNode) and suffix(path) in MODEL_SUFFIXES:
            fd, size = file.fileno(), node.extent.size
            digest = digest_fd(fd, *node.extent)
            known = cache.figures(path, _reader(fd, *node.extent), size, digest)
            if known is not None:
                found[path] = known
    return found


def _reader(fd: int, offset: int, size: int) -> Reader:
    """Reads within one extent of a file, never beyond it."""
    return lambda at, count: os.pread(fd, min(count, max(size - at, 0)), offset + at)
