"""The shadow tree: what each file of the work tree becomes in the image.

A pure function of (work tree, base, conversions): nothing here is kept on disk, and nothing is
converted here: `Converters.lookup` never runs a tool, and callers that may wait pass
`Converters.convert` instead. Any thread may call it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from enum import Enum
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from romfsfs.convert.options import difference
from romfsfs.convert.romfs_toml import NAME as OPTIONS_NAME
from romfsfs.convert.types import Diagnostic
from romfsfs.image.varuint import MAX_VALUE
from romfsfs.session.keep.state import Base, BaseEntry, Signature
from romfsfs.session.plan.stored import InBase, InCache, InWork, Stored
from romfsfs.session.tree.restore import is_below
from romfsfs.session.tree.worktree import WorkFile, open_file
from romfsfs.system.files import EMPTY_DIGEST

if TYPE_CHECKING:
    from romfsfs.convert import Conversion
    from romfsfs.convert.types import Figures

#: (work path, open descriptor, digest of its content) -> what it becomes
Convert = Callable[[str, int, str], "Conversion"]

#: an entry -> the same entry with the problems of its stored bytes
Check = Callable[["ShadowEntry"], "ShadowEntry"]

#: open descriptor -> its digest, and its signature if any later change must alter that, else None
Digest = Callable[[int], "tuple[str, Signature | None]"]


#: The note of a compiled file from the image that a source of the user's replaces.
SUPERSEDED = "replaced by its source"


class Change(str, Enum):
    """What a commit would do with a file of the work tree."""

    ADDED = "added"
    MODIFIED = "modified"
    DELETED = "deleted"
    UNCHANGED = "unchanged"
    IGNORED = "ignored"


class ShadowEntry(NamedTuple):
    """A file or folder of the work tree, or one deleted from it, and what a commit makes of it.

    path: in the work tree. stored_as: in the image, None when nothing is stored. size, digest:
    of the stored bytes (size None for a folder, and for a file not converted yet; then `estimate`
    is the best guess). source_digest, signature: of the work file. made_for: what the bytes are
    made for (`Converters.made_for`), None if unknown. figures: of a model.
    """

    path: str
    change: Change
    is_dir: bool = False
    stored_as: str | None = None
    size: int | None = None
    estimate: int = 0
    digest: str = ""
    state: str = "ready"
    location: Stored | None = None
    diagnostics: tuple[Diagnostic, ...] = ()
    source_digest: str = ""
    signature: Signature | None = None
    note: str = ""
    made_for: str | None = None
    figures: Figures | None = None

    @property
    def is_edit(self) -> bool:
        """Whether the user changed it: a stale file, made for another target, is no edit."""
        if self.change in (Change.UNCHANGED, Change.IGNORED):
            return False
        return not any(each.code == "stale" for each in self.diagnostics)


class Derived(NamedTuple):
    """The shadow entries of one folder of the work tree, deleted ones included.

    inside: its subfolders. passing: derive it anew at the next look, as conversions end and cached
    results may be trimmed. quick: not every file was read.
    """

    entries: tuple[ShadowEntry, ...]
    inside: tuple[str, ...] = ()
    passing: bool = False
    quick: bool = False


#: A shadow tree by the folders of the work tree ('' is the root), parents first.
Folders = Mapping[str, Derived]
NOTHING: Folders = MappingProxyType({})


def flat(folders: Folders) -> list[ShadowEntry]:
    """All entries of a shadow tree."""
    return [entry for each in folders.values() for entry in each.entries]


def untouched(known: Folders, touched: Collection[str], quick: bool) -> dict[str, Derived]:
    """The folders of a shadow tree that are still valid after these paths were touched.

    An entry depends on its file, on the base and on its siblings: a source replaces the compiled
    file, labels belong to a model. touched: files, and folders that were made, moved or removed
    with their content. quick: whether folders that were derived with `quick` will do."""
    above = {path.rpartition("/")[0] for path in touched}
    moved = {path for path in touched if path in known}
    return {
        folder: each
        for folder, each in known.items()
        if not each.passing and (quick or not each.quick) and folder not in above
        if not moved or (folder not in moved and not is_below(folder, moved))
    }


class Deriver(NamedTuple):
    """Derives shadow entries; holds nothing but its helpers.

    tree_problems: of the tree's own options, in `romfs.toml`. made_for: what the bytes of a path
    would be made for now; a base entry made for something else is stale. quick: files whose names
    say that they are stored as they are, are not opened; their digest stays ''.
    """

    work_fd: int
    base: Base
    concerns: Callable[[str], bool]
    convert: Convert
    is_junk: Callable[[str], bool]
    digest: Digest
    tree_problems: tuple[Diagnostic, ...] = ()
    check: Check | None = None
    made_for: Callable[[str], str | None] = lambda path: None
    quick: bool = False

    def derive(
        self, found: Mapping[str, Sequence[WorkFile] | None], known: Folders = NOTHING
    ) -> dict[str, Derived]:
        """Derive the folders that `scan_folders` found, and those of the base. Folders found as
        None are taken from `known`. OSError if a file cannot be read."""
        folders: dict[str, Derived] = {}
        for folder in sorted(found.keys() | self.base.folders.keys()):
            listed = found.get(folder, ())
            derived = known[folder] if listed is None else self._folder(folder, listed)
            # A folder of the base that was not found is looked for again at the next look.
            folders[folder] = derived if folder in found else derived._replace(passing=True)
        return folders

    def _folder(self, folder: str, found: Sequence[WorkFile]) -> Derived:
        entries = []
        seen = set()
        for work in found:
            base = self.base.by_source.get(work.path)
            if base is None and work.path == OPTIONS_NAME:
                problems, note = self.tree_problems, "the options of this tree"
                entries.append(
                    ShadowEntry(work.path, Change.IGNORED, diagnostics=problems, note=note)
                )
                continue
            if base is None and self.is_junk(work.path):
                entries.append(ShadowEntry(work.path, Change.IGNORED, work.kind == "dir"))
                continue
            entry = self._entry(work, base)
            if entry is not None:
                seen.add(work.path)
                entries.append(entry)
        entries = _superseded(entries)
        if self.check is not None:
            entries = [self.check(entry) for entry in entries]
        replaced = {entry.stored_as for entry in entries if entry.stored_as is not None}
        for base in self.base.folders.get(folder, ()):
            if base.source not in seen and base.path not in replaced:
                entries.append(
                    ShadowEntry(base.source, Change.DELETED, base.is_dir, base.path, base.size)
                )
        inside = tuple([work.path for work in found if work.kind == "dir"])
        passing = any(e.state != "ready" or isinstance(e.location, InCache) for e in entries)
        return Derived(tuple(entries), inside, passing, self.quick)

    def _entry(self, work: WorkFile, base: BaseEntry | None) -> ShadowEntry | None:
        if work.kind == "dir":
            known = base is not None and base.is_dir
            change = Change.UNCHANGED if known else Change.ADDED
            return ShadowEntry(work.path, change, True, work.path)
        if (unusable := _unusable_kind(work)) is not None:
            return unusable
        if base is not None and base.is_dir:
            base = None
        stale = "" if base is None else self._stale(base)
        if base is not None and base.signature == work.signature and not stale:
            return _unchanged(base)
        change = Change.ADDED if base is None else Change.MODIFIED
        if self.quick and not self.concerns(work.path):
            return self._as_it_is(work, change, "", work.signature)
        try:
            fd = open_file(self.work_fd, work.path)
        except FileNotFoundError:
            return None  # it or its folder was removed since the scan
        except OSError as error:
            return _unusable(work.path, f"cannot be read: {error.strerror}")
        try:
            digest, signature = self.digest(fd)
            same = base is not None and digest == base.source_digest
            if base is not None and same and not stale:
                return _unchanged(base)._replace(signature=signature)
            entry = self._converted(work, change, fd, digest, signature)
            if base is None or not same:
                return entry
            if (entry.stored_as, entry.digest) == (base.path, base.digest):
                return _unchanged(base)._replace(signature=signature)
            why = Diagnostic("info", "stale", f"made for another target ({stale}); a commit "
                             "would rebuild it")  # fmt: skip
            return entry._replace(diagnostics=(*entry.diagnostics, why))
        except IsADirectoryError:  # a folder since the scan: open(2) takes it, read(2) does not
            return None
        except OSError as error:  # a failing disk: read(2) names no file
            error.filename = error.filename or work.path
            raise
        finally:
            os.close(fd)

    def _stale(self, base: BaseEntry) -> str:
        """How the target differs from what the bytes were made for; '' if it does not or if that is
        unknown: then only `check` judges the bytes."""
        now = self.made_for(base.source) if base.made_for is not None else None
        if now is None or base.made_for is None or now == base.made_for:
            return ""
        return difference(base.made_for, now)

    def _converted(
        self, work: WorkFile, change: Change, fd: int, digest: str, signature: Signature | None
    ) -> ShadowEntry:
        entry = self._as_it_is(work, change, digest, signature)
        if not self.concerns(work.path):
            return entry
        made = self.convert(work.path, fd, digest)
        entry = entry._replace(
            stored_as=made.stored_path, state=made.state.value, diagnostics=made.diagnostics
        )
        if made.artifact is not None:
            entry = entry._replace(
                size=made.size, estimate=made.size, digest=made.digest,
                location=InCache(made.artifact),
            )  # fmt: skip
        return entry if entry.state == "ready" else entry._replace(
            size=None, digest="", location=None
        )  # fmt: skip

    def _as_it_is(
        self, work: WorkFile, change: Change, digest: str, signature: Signature | None
    ) -> ShadowEntry:
        path, size = work.path, work.signature.size
        return ShadowEntry(
            path, change, False, path, size, size, digest, "ready", InWork(path), (), digest,
            signature, "", self.made_for(path),
        )  # fmt: skip


def _unusable_kind(work: WorkFile) -> ShadowEntry | None:
    if work.kind == "other":
        return _unusable(work.path, "only files and folders can be stored: remove it")
    if work.kind == "closed":
        return _unusable(work.path, "no permission to read the folder: change its mode")
    if work.signature.size > MAX_VALUE:  # not read: it may be a sparse file of terabytes
        return _unusable(work.path, "an image holds 4 GiB at most: shrink or remove the file")
    return None


def _unusable(path: str, why: str) -> ShadowEntry:
    return ShadowEntry(path, Change.ADDED, state="failed", note=why)


def _unchanged(base: BaseEntry) -> ShadowEntry:
    size = base.size or 0
    return ShadowEntry(
        base.source, Change.UNCHANGED, False, base.path, size, size,
        base.digest if size else EMPTY_DIGEST, "ready", InBase(base.path), (), base.source_digest,
        base.signature, "", base.made_for,
    )  # fmt: skip


def _superseded(entries: list[ShadowEntry]) -> list[ShadowEntry]:
    """Mark a compiled file from the image as ignored if a source of the user's replaces it.

    `app.mpy` from the image and a new `app.py` do not conflict: the source wins. Two files that
    the user made do (see `plan`).
    """
    made = {
        e.stored_as
        for e in entries
        if e.change in (Change.ADDED, Change.MODIFIED) and e.stored_as != e.path
    }
    if not made:
        return entries
    return [
        entry._replace(change=Change.IGNORED, stored_as=None, note=SUPERSEDED)
        if entry.change is Change.UNCHANGED
        and not entry.is_dir
        and entry.path == entry.stored_as
        and entry.path in made
        else entry
        for entry in entries
    ]
