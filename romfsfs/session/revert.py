"""Going back: single paths to the base, the work tree to another image, the target by one image.

Files are restored through the mountpoint when the session is mounted, so that the kernel's
caches of the mount stay true; into `work/` otherwise.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from romfsfs.devices.base import Device, WriteReport
from romfsfs.errors import RomfsError, UsageError
from romfsfs.files import Progress, digest_fd, no_progress
from romfsfs.image.model import Extent, FileNode, walk
from romfsfs.session import history, recovery, store
from romfsfs.session.commit import target_changed
from romfsfs.session.encoding import Encoded
from romfsfs.session.images import open_image
from romfsfs.session.opening import discard_work, target_is
from romfsfs.session.recall import Recall
from romfsfs.session.session import Session
from romfsfs.session.shadow import Change
from romfsfs.session.state import Base, BaseEntry
from romfsfs.session.worktree import Climber, Item, extract, remove_tree


def revert(session: Session, paths: Sequence[str] = (), root: Path | None = None) -> list[str]:
    """Bring paths of the work tree (all, if none is given) back to the base; which ones changed.

    root: the mountpoint when the session is mounted. UsageError for a path that is neither in
    the work tree nor in the base. Not mounted and no path: the edits are dropped as a whole.
    """
    with store.lock_for_change(session.directory, session.info.name):
        changed = [
            entry.path
            for entry in session.derive()
            if entry.change not in (Change.UNCHANGED, Change.IGNORED)
            and _selected(entry.path, paths)
        ]
        _refuse_unknown(session, paths)
        if not paths and root is None:
            discard_work(session)
            return changed
        _restore(session, changed, root or session.work)
        return changed


def _selected(path: str, paths: Sequence[str]) -> bool:
    return not paths or any(path == wanted or path.startswith(wanted + "/") for wanted in paths)


def _refuse_unknown(session: Session, paths: Sequence[str]) -> None:
    known = {entry.path for entry in session.derive()} | {
        entry.source for entry in session.base.entries
    }
    for path in paths:
        if path not in known and not any(other.startswith(path + "/") for other in known):
            raise UsageError("no such file, now or in the image", where=path)


def _restore(session: Session, paths: Sequence[str], root: Path) -> None:
    """Remove what is at these paths, then put there what the base has."""
    wanted = set(paths)
    in_base = [entry for entry in session.base.entries if entry.source in wanted]
    parents = {parent for entry in in_base for parent in _parents(entry.source)}
    folders = [entry for entry in session.base.entries if entry.is_dir and entry.source in parents]
    root_fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for path in sorted(wanted, key=lambda path: -path.count("/")):
            _remove_for_revert(root_fd, path)
        missing = [
            entry
            for entry in folders
            if entry not in in_base and not _exists(root_fd, entry.source)
        ]
        order = {entry.path: number for number, entry in enumerate(session.base.entries)}
        restored = sorted([*missing, *in_base], key=lambda entry: order[entry.path])
        with open(session.base_image, "rb") as file:
            extents = session.base_extents()
            recall = Recall()
            items = [_item(entry, file.fileno(), extents, recall) for entry in restored]
            for _ in extract((item for item in items if not _is_there(root_fd, item)), root_fd):
                pass
    finally:
        os.close(root_fd)


def _parents(path: str) -> list[str]:
    parts = path.split("/")[:-1]
    return ["/".join(parts[: count + 1]) for count in range(len(parts))]


def _remove_for_revert(root_fd: int, path: str) -> None:
    """Remove a file; a folder only if nothing that is to stay is in it."""
    folder, _, name = path.rpartition("/")
    try:
        with Climber(root_fd) as climber:
            if _is_folder(root_fd, path):
                os.rmdir(name, dir_fd=climber.enter(folder))
            else:
                remove_tree(root_fd, path)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        if not _is_folder(root_fd, path):
            raise RomfsError(f"cannot revert: {error.strerror}", where=path) from error


def _is_folder(root_fd: int, path: str) -> bool:
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=root_fd))
    except OSError:
        return False
    return True


def _exists(root_fd: int, path: str) -> bool:
    try:
        os.stat(path, dir_fd=root_fd, follow_symlinks=False)
    except OSError:
        return False
    return True


def _is_there(root_fd: int, item: Item) -> bool:
    return item.source is None and _exists(root_fd, item.path)


def _item(entry: BaseEntry, fd: int, extents: Mapping[str, Extent], recall: Recall) -> Item:
    if entry.is_dir:
        return Item(entry.source, None, 0, 0)
    offset, size = extents[entry.path]
    if entry.source != entry.path or entry.source_digest != entry.digest:
        source = recall.find(entry.path, entry.digest)
        if source is not None:
            return Item(entry.source, source.file, 0, source.file.stat().st_size)
        return Item(entry.path, fd, offset, size)
    return Item(entry.source, fd, offset, size)


def undo(
    session: Session,
    device: Device,
    *,
    number: int | None = None,
    root: Path | None = None,
    progress: Progress = no_progress,
) -> tuple[history.HistoryEntry, WriteReport]:
    """Write an earlier image back to the target (the one before the present, or `number`).

    Refused with RomfsError while the work tree holds edits; TargetChanged when the target is
    not what was last written. The work tree follows.
    """
    with store.lock_for_change(session.directory, session.info.name):
        recovery.recover_locked(session, device, progress=progress)
        wanted = undo_target(session, number)
        if session.has_work and not session.status().clean:
            raise RomfsError(
                "the work tree holds edits that an undo would mix with",
                where=session.info.name,
                next_step=f"commit them, or drop them: romfsfs revert {session.info.source}",
            )
        if not target_is(session, device):
            raise target_changed(session)
        image = history.image_path(session, wanted.number)
        new = session.directory / "new.img"
        new.unlink(missing_ok=True)
        os.link(image, new)
        base = base_of(image)
        encoded = Encoded(base.digest, base.size, base.image_size)
        summary = f"back to {wanted.number}"
        record = recovery.CommitRecord.new(session, encoded, base, summary, "undo", wanted.number)
        record.save(session)
        with open(new, "rb") as file, open(session.base_image, "rb") as old:
            report = device.write_image(file, old, progress)
        _follow(session, device, record, root)
        return wanted, report


def _follow(
    session: Session, device: Device, record: recovery.CommitRecord, root: Path | None
) -> None:
    if root is None:
        discard_work(session)
        recovery.finish(session, device, record)
        return
    recovery.finish(session, device, record)
    changed = [
        e.path for e in session.derive() if e.change not in (Change.UNCHANGED, Change.IGNORED)
    ]
    _restore(session, changed, root)


def undo_target(session: Session, number: int | None = None) -> history.HistoryEntry:
    """The image that `undo` would write. RomfsError if there is none."""
    if number is None:
        return history.previous(session)
    for entry in history.entries(session):
        if entry.number == number:
            return entry
    raise UsageError(
        f"no image {number} in the log",
        where=session.info.name,
        next_step=f"romfsfs log {session.info.source}",
    )


def base_of(path: Path) -> Base:
    """The base that an image file amounts to, sources recalled, nothing extracted."""
    recall = Recall()
    entries = []
    with open_image(path) as (image, file):
        fd = file.fileno()
        for stored, node in walk(image):
            if not isinstance(node, FileNode):
                entries.append(BaseEntry(stored, None, "", stored, "", None))
                continue
            digest = digest_fd(fd, node.extent.offset, node.extent.size)
            source = recall.find(stored, digest)
            shown = stored if source is None else stored.rpartition("/")[0] + "/" + source.name
            source_digest = digest if source is None else source.digest
            entries.append(
                BaseEntry(stored, node.extent.size, digest, shown.lstrip("/"), source_digest, None)
            )
        digest = digest_fd(fd)
        size = os.fstat(fd).st_size
        return replace(Base(digest, size, image.size, digest, None), entries=tuple(entries))
