"""Opening a session: resume the edits that are there, or start from what the target holds.

Order on disk, so that a process killed anywhere leaves a session that opens: `session.json`;
`base.img`; the tree is extracted beside its place; `base.json`; the tree is renamed to `work`.
A folder without `work` has no edits.
"""

from __future__ import annotations

import logging
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from romfsfs.boards import get_board
from romfsfs.convert import Options
from romfsfs.devices.base import Device, DeviceInfo
from romfsfs.errors import RomfsError
from romfsfs.image.model import FileNode, Image, walk
from romfsfs.session.keep import base_image, history, store
from romfsfs.session.keep.images import open_image
from romfsfs.session.keep.recall import Recall, shown_as
from romfsfs.session.keep.settling import lost_power, mark, settle
from romfsfs.session.keep.state import BaseEntry, SessionInfo, as_ours, save
from romfsfs.session.leftovers import carry, ignored
from romfsfs.session.plan.shadow import Change
from romfsfs.session.plan.status import Status
from romfsfs.session.rebase import recovery
from romfsfs.session.rebase.reading import fetch, sync
from romfsfs.session.rebase.sources import secure
from romfsfs.session.rebase.steps import reached
from romfsfs.session.rebase.target import no_space, target_changed, target_is
from romfsfs.session.session import Session
from romfsfs.session.tree.extraction import Item, extract
from romfsfs.session.tree.restore import is_beside, opened, restore, work_digest
from romfsfs.session.tree.worktree import WorkFile, remove_tree, scan
from romfsfs.system.clock import wait_until_settled
from romfsfs.system.files import (
    Progress,
    digest_fd,
    make_private_dir,
    no_progress,
    remove_folder,
    sync_dir,
    sync_file_system,
)

log = logging.getLogger(__name__)


def session_for(
    device: Device,
    source: str,
    *,
    board: str | None = None,
    partition: int | None = None,
    options: Options | None = None,
    excludes: tuple[str, ...] = (),
    commit_on_unmount: bool = False,
) -> Session:
    """The session of this target, made if there is none; what is given here is remembered.

    For who knows that it is not mounted: the daemon would not notice. UsageError for a board or
    partition that does not exist.
    """
    found = device.info()
    directory = store.session_dir(found.key)
    try:
        info = SessionInfo.load(directory / "session.json")
    except FileNotFoundError:
        make_private_dir(directory)
        info = SessionInfo(key=found.key, kind=found.kind, source=source, name=found.name)
    info = _merge(info, found, source)
    if board is not None:
        name = get_board(board).name
        if info.board not in (None, name) and found.kind == "file":
            info = replace(info, partition=0)  # what was remembered is another board's
        info = replace(info, board=name)
    if partition is not None and found.kind == "file":
        info = replace(info, partition=partition)
    if info.board:
        get_board(info.board).partition(info.partition)
    if options is not None:
        with as_ours(directory / "session.json"):
            known = Options.from_record(info.options)
        info = replace(info, options=known.extended(options).record())
    if excludes:
        info = replace(
            info, excludes=(*info.excludes, *(e for e in excludes if e not in info.excludes))
        )
    info = replace(info, commit_on_unmount=commit_on_unmount)
    session = Session(directory, info)  # what it refuses must not be remembered
    save(directory / "session.json", info.dump())
    reached("open-info")
    return session


def _merge(info: SessionInfo, found: DeviceInfo, source: str) -> SessionInfo:
    """What the device says of itself now, over what was remembered."""
    if found.kind == "file":
        return replace(info, kind=found.kind, source=found.key, name=found.name)
    return replace(
        info,
        kind=found.kind,
        source=source,
        name=found.name,
        board=found.board or info.board,
        partition=found.partition,
        capacity=found.capacity,
        erase_size=found.erase_size,
        mpy_version=found.mpy_version,
        march=found.march,
        usb_serial=found.usb_serial,
    )


def prepare(
    session: Session, device: Device, *, new: bool = False, progress: Progress = no_progress
) -> bool:
    """Make the work tree ready; whether kept edits were resumed. Finishes an interrupted commit.

    For who holds the mount lock. new: start from an empty tree, whatever the target holds (it is
    replaced at the commit). TargetChanged (exit 7) when edits are kept and the target is no
    longer what they started from; ImageFormatError when it is neither an image nor blank.
    """
    with store.lock_for_change(session.directory, session.info.name):
        recovery.recover_locked(session, device, progress=progress)
        _sweep(session)
        kept: list[str] = []
        status = None
        if session.has_work:
            _remove_unfinished(session)
            if lost_power(session.directory):
                _mend_torn(session)
            settle(session.directory)
            status = session.status()
            clean, kept = status.clean or (new and _is_untouched(session, status)), ignored(status)
            if new and not clean:
                raise RomfsError(
                    "the session holds edits, and --new would drop them",
                    where=session.info.name,
                    next_step=f"commit them, or throw them away: romfsfs revert "
                    f"{session.info.argument}",
                )
            if not new and target_is(session, device):
                return not clean
            if not clean:
                raise target_changed(session)
        try:
            if status is not None:
                secure(session, status.entries)
            _start(session, device, new, kept, progress)
        except OSError as error:
            raise no_space(session, error, "the image cannot be read into the session") from error
        finally:
            _sweep(session)
        return False


def _is_untouched(session: Session, status: Status) -> bool:
    """Whether the tree was started empty (`--new`) and nothing was put into it."""
    return session.base.fresh and all(e.change is Change.IGNORED for e in status.entries)


def _sweep(session: Session) -> None:
    """Remove what an opening or a mount that was killed left behind."""
    # What `kept` holds is in the work tree again, if there is one.
    for name in ("work.new", "work.old", "hidden", *(("kept",) if session.has_work else ())):
        remove_folder(session.directory / name)
    for name in ("read.img", "found.img", "trial.img", "elsewhere.img"):
        (session.directory / name).unlink(missing_ok=True)


def _remove_unfinished(session: Session) -> None:
    with session.work_fd() as work_fd:
        for work in scan(work_fd):
            if is_beside(work.path):
                remove_tree(work_fd, work.path)


def _mend_torn(session: Session) -> None:
    """Put back what was extracted and had not reached the disk when the power went (`settling`).

    It is missing, or its modification time is still that of the extraction: no edit looks so.
    """
    held = session.held()
    with session.work_fd() as work_fd:
        there = {work.path: work for work in scan(work_fd)}
        torn = [
            entry.source
            for entry in held.base.entries
            if entry.source not in there or _is_torn(work_fd, there[entry.source], entry)
        ]
    if torn:
        log.warning("lost by a power cut, put back: %s", ", ".join(torn))
        restore(held, torn, session.work, session.work, session.recall())


def _is_torn(work_fd: int, work: WorkFile, entry: BaseEntry) -> bool:
    was = entry.signature
    if was is None or work.kind != "file" or work.signature.mtime_ns != was.mtime_ns:
        return False
    return (
        work.signature.size <= was.size and work_digest(work_fd, work.path) != entry.source_digest
    )


def discard_work(session: Session) -> None:
    """Drop the work tree (renamed first, so that a crash leaves it whole or gone)."""
    doomed = session.directory / "work.old"
    remove_folder(doomed)
    if session.has_work:
        os.rename(session.work, doomed)
        sync_dir(session.directory)  # or half of it could be back after a power cut
        reached("discard-moved")
        remove_folder(doomed)


def leave_work(session: Session) -> Status | None:
    """Nobody uses the work tree any more: drop it if the image holds all of it.

    Its status when it stays: with edits, with files that are never packed, or with sources that
    cannot be kept elsewhere.
    """
    status = session.status()
    if not status.clean or session.interrupted or ignored(status):
        settle(session.directory)
        return status
    try:
        secure(session, status.entries)
    except OSError as error:
        log.info("the work tree stays, its sources cannot be kept elsewhere: %s", error)
        return status
    discard_work(session)
    return None


def _start(
    session: Session, device: Device, new: bool, kept: list[str], progress: Progress
) -> None:
    """Read the target, extract it, and put base and work tree in place of what there was.

    kept: what is never packed and follows into the new tree.
    """
    directory = session.directory
    base, image = fetch(session, device, new, progress)
    reached("open-read")
    stage = directory / "work.new"
    stage.mkdir()
    stage.chmod(0o755)  # the mount's root; the session's folder keeps others out
    with ThreadPoolExecutor(max_workers=1) as pool:
        synced = pool.submit(sync, image)  # the disk writes while the processors extract
        extracted = _extract_base(image, stage, session.recall(), progress)
        aside = _put_aside(session, kept)
        if aside:
            carry([found.path for found in aside], directory / "kept", stage)
            sync_file_system(stage)
        # So that any later edit shows in its file's signature.
        wait_until_settled([e.signature.ctime_ns for e in extracted if e.signature is not None])
        synced.result()
    reached("open-extracted")
    if session.has_work:  # without edits; it must not meet the new base
        os.rename(session.work, directory / "work.old")
        sync_dir(directory)  # nor may it come back without a record
    (directory / "base.json").unlink(missing_ok=True)
    sync_dir(directory)  # nor the old record beside the new image
    if image != session.base_image:
        os.replace(image, session.base_image)
    mark(directory)
    reached("open-base-image")
    base_image.record(directory, replace(base, entries=extracted), base.stamp)
    reached("open-base-record")
    if base.target_digest is not None and base.size:
        history.remember_first(session, base.digest)
    reached("open-history")
    os.rename(stage, session.work)
    sync_dir(directory)
    reached("open-work")


def _put_aside(session: Session, kept: list[str]) -> list[WorkFile]:
    """Keep what is never packed in a tree of its own while there is no work tree; what is in it.

    A crash may have left it there: then that is all there is of it.
    """
    aside = session.directory / "kept"
    if kept:
        aside.mkdir()
        carry(kept, session.work, aside)
        sync_file_system(aside)
    if not aside.exists():
        return []
    with opened(aside) as fd:
        return scan(fd)


class _Placed(NamedTuple):
    """An entry of the image, and what stands for it in the work tree (its source, if recalled)."""

    path: str
    size: int | None
    digest: str
    item: Item


def _extract_base(
    source: Path, folder: Path, recall: Recall, progress: Progress
) -> tuple[BaseEntry, ...]:
    """Extract an image into an empty folder, sources recalled; what each file became."""
    with open_image(source) as (image, file), opened(folder) as root_fd:
        placed = _place(image, file.fileno(), recall)
        written = extract([entry.item for entry in placed], root_fd, progress)
        return tuple([
            BaseEntry(entry.path, None, "", entry.item.path, "", None)
            if done is None
            else BaseEntry(entry.path, entry.size, entry.digest or done.digest, entry.item.path,
                           done.digest, done.signature)
            for entry, done in zip(placed, written, strict=True)
        ])  # fmt: skip


def _place(image: Image, fd: int, recall: Recall) -> list[_Placed]:
    placed = []
    nodes = list(walk(image))
    paths = {path for path, _ in nodes}
    for path, node in nodes:
        if not isinstance(node, FileNode):
            placed.append(_Placed(path, None, "", Item(path, None, 0, 0)))
            continue
        offset, size = node.extent
        item, digest = Item(path, fd, offset, size), ""
        if recall.knows_any:
            digest = digest_fd(fd, offset, size)
            source = recall.find(path, digest)
            shown = shown_as(path, source, paths)
            if source is not None and shown is not None:
                item = Item(shown, source.file, 0, source.file.stat().st_size)
        placed.append(_Placed(path, size, digest, item))
    return placed
