"""Reading a target into a session: its record, its image, and a work tree that shows it.

A first read extracts the image into `work.new`; a work tree without edits follows an image that
changed elsewhere. Both are transactions that do not write the target.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, fields, replace
from pathlib import Path

from romfsfs.boards import parse_board
from romfsfs.convert import Options
from romfsfs.devices.base import Device, DeviceInfo, Known
from romfsfs.errors import RomfsError
from romfsfs.image.model import FileNode, Image, walk
from romfsfs.image.slots import slots_text
from romfsfs.session.keep.folder import folder_of
from romfsfs.session.keep.images import open_image, parse_fd
from romfsfs.session.keep.recall import Recall, shown_as
from romfsfs.session.keep.settling import lost_power, settle
from romfsfs.session.keep.state import Base, BaseEntry, SessionInfo, as_ours, dump, save
from romfsfs.session.keep.steps import reached
from romfsfs.session.plan.status import Status
from romfsfs.session.rebase.record import Record
from romfsfs.session.rebase.recovery import recover_locked
from romfsfs.session.rebase.sources import secure
from romfsfs.session.rebase.target import target_of
from romfsfs.session.rebase.target.base import Held, Target
from romfsfs.session.rebase.transaction import (
    rebase,
    space_for,
    target_changed,
)
from romfsfs.session.session import Session
from romfsfs.session.settings import device_target
from romfsfs.session.tree.extraction import Item, extract
from romfsfs.session.tree.restore import mend_torn, remove_unfinished
from romfsfs.system.beside import Beside, Cancel
from romfsfs.system.clock import wait_until_certain
from romfsfs.system.files import (
    Progress,
    digest_fd,
    digest_file,
    no_progress,
    opened,
    opened_folder,
)
from romfsfs.system.removal import remove_folder
from romfsfs.system.user_folders import make_private_dir


@dataclass(frozen=True, slots=True)
class OpenOptions:
    """Choices for opening a session. All but `new` is remembered with it.

    board, partition: None leaves them as they were. options: of the conversions. excludes: more
    patterns of what is never stored. new: start from an empty tree, whatever the target holds (the
    commit replaces it). slot: of openmv-ota in the partition; the device is opened for it.
    """

    board: str | None = None
    partition: int | None = None
    options: Options | None = None
    excludes: tuple[str, ...] = ()
    commit_on_unmount: bool = False
    new: bool = False
    slot: str = ""


def session_for(device: Device, source: str, chosen: OpenOptions = OpenOptions()) -> Session:
    """The session of this target, made if there is none; what is chosen is remembered.

    The caller makes sure that it is not mounted: its daemon would not notice. UsageError for a
    board or partition that does not exist.
    """
    found = device.info()
    folder = folder_of(found.key)
    try:
        info = SessionInfo.load(folder.info)
    except FileNotFoundError:
        make_private_dir(folder.path)
        info = SessionInfo(key=found.key, kind=found.kind, source=source, name=found.name)
    info = _merge(info, found, source)
    partition = chosen.partition
    if chosen.board is not None:
        board, number = parse_board(chosen.board)
        name, partition = board.name, number if partition is None else partition
        if info.board not in (None, name) and info.is_file:
            info = replace(info, partition=0)  # the remembered one is of another board
        info = replace(info, board=name)
    if partition is not None and info.is_file:
        info = replace(info, partition=partition)
    device_target(info)  # refuses what does not exist
    if chosen.options is not None:
        with as_ours(folder.info):
            known = Options.from_record(info.options)
        info = replace(info, options=known.extended(chosen.options).record())
    # A pattern that is given again counts from now on, after the `!PATTERN` that took it back.
    excludes = dict.fromkeys(reversed((*info.excludes, *chosen.excludes)))
    info = replace(
        info, excludes=tuple(reversed(excludes)), commit_on_unmount=chosen.commit_on_unmount
    )
    session = Session(folder, info)  # refuses what must not be remembered
    save(folder.info, dump(info, 1))
    reached("open-info")
    return session


def _merge(info: SessionInfo, found: DeviceInfo, source: str) -> SessionInfo:
    """What was remembered, updated with what the device reports now."""
    if info.is_file:
        return replace(info, name=found.name, source=found.key)
    says = {each.name: getattr(found, each.name) for each in fields(Known)}
    says |= {"key": info.key, "board": found.board or info.board}
    return replace(info, **says, source=source, slots=slots_text(found.slots))


def make_ready(
    session: Session, device: Device, *, new: bool = False, progress: Progress = no_progress
) -> Status | None:
    """Make the work tree ready, and finish an interrupted transaction first. Returns the status of
    a kept tree if a commit of it would write something, else None.

    The caller holds the mount lock. TargetChanged (exit 7) if there are edits and the target is no
    longer what they started from; ImageFormatError if it is neither an image nor blank; RomfsError
    if `new` would drop edits.
    """
    target, folder = target_of(device), session.folder
    with folder.lock_for_change(session.info.name):
        recover_locked(session, target, progress=progress)
        remove_folder(folder.hidden)
        folder.sweep()
        status = _resumed(session) if session.has_work else None
        if status is not None:
            edited = status.edited and not (new and session.base.fresh and not _touched(status))
            if new and edited:
                raise RomfsError(
                    "the session holds edits, and --new would drop them",
                    where=session.info.name,
                    next_step=f"commit them, or throw them away: romfsfs revert "
                    f"{session.info.argument}",
                )
            if not new and target.unchanged_since(session.held()):
                return None if status.clean else status
            if edited:
                raise target_changed(session)
        try:
            with space_for(session, "the image cannot be read into the session"):
                if status is not None:
                    secure(session, status.entries)
                with target.alone():
                    _read(session, target, new, progress)
        finally:
            if not session.interrupted:
                folder.sweep()
        return None


def _resumed(session: Session) -> Status:
    """Repair the work tree that was kept, as far as needed; its status."""
    held = session.held()
    remove_unfinished(held, session.folder)
    if lost_power(session.folder):
        mend_torn(held, session.folder, session.recall())
    settle(session.folder)
    return session.status()


def _touched(status: Status) -> bool:
    """Whether anything was put into a tree that was started empty."""
    return any(entry.stored_as is not None for entry in status.entries)


def _read(session: Session, target: Target, new: bool, progress: Progress) -> None:
    """Read the target, and make what it holds the session's base."""
    folder = session.folder
    if not session.has_work and not new and _still_holds_base(session, target):
        base, image = session.base, folder.image(session.base.digest)
        parsed = parse_fd(session.held().fd, "the base's image")
    else:
        (base, parsed), image = target.read(folder, session.info, new, progress), folder.staged
    reached("read")

    def place(_: Cancel) -> Base:
        """Put the image into the history, unless it came from there."""
        if image != folder.staged:
            return base
        digest = base.digest or digest_file(image)
        folder.place(image, digest)
        return replace(base, digest=digest, target_digest=base.target_digest if new else digest)

    # Another thread hashes and syncs the image while this one extracts it.
    with opened(image) as fd, Beside([place]) as beside:
        if not session.has_work:
            folder.new_work.mkdir()
            folder.new_work.chmod(0o755)  # the mount's root; the session's folder keeps others out
            entries = _extracted(parsed, fd, folder.new_work, session.recall(), progress)
        else:
            entries = _entries(parsed, fd, session.recall())
        base = beside.result(0)
    reached("after-placed")
    rebase(session, target, Record(
        "read", Held(base.target_digest, base.size), replace(base, entries=entries),
        session.tree_base, "as found on the target", writes=False,
    ))  # fmt: skip
    # So that every later edit changes its file's signature. Nobody edits before this returns.
    wait_until_certain([e.signature.ctime_ns for e in entries if e.signature is not None])


def _still_holds_base(session: Session, target: Target) -> bool:
    """Whether the target still holds the base's image, which then need not be transferred."""
    try:
        held = session.held()
    except RomfsError:
        return False
    base = held.base
    if not base.image_size or base.fresh or digest_fd(held.fd) != base.digest:
        return False
    return target.unchanged_since(held)


def _extracted(
    image: Image, fd: int, folder: Path, recall: Recall, progress: Progress
) -> tuple[BaseEntry, ...]:
    """Extract an image into an empty folder, with recalled sources; its base entries."""
    placed = _placed(image, fd, recall, hashed=recall.knows_any)
    with opened_folder(folder) as root_fd:
        written = extract([item for _, item in placed], root_fd, progress)
    return tuple([
        entry if done is None else entry._replace(
            digest=entry.digest or done.digest, source_digest=done.digest,
            signature=done.signature,
        )
        for (entry, _), done in zip(placed, written, strict=True)
    ])  # fmt: skip


def _entries(image: Image, fd: int, recall: Recall) -> tuple[BaseEntry, ...]:
    """The base entries of an image, with recalled sources; nothing is extracted."""
    return tuple([entry for entry, _ in _placed(image, fd, recall, hashed=True)])


def base_of(path: Path, recall: Recall) -> Base:
    """The base that an image file would be, with recalled sources; nothing is extracted."""
    with open_image(path) as (image, file):
        fd = file.fileno()
        digest, size = digest_fd(fd), os.fstat(fd).st_size
        return Base(digest, size, image.size, digest, None, _entries(image, fd, recall))


def _placed(image: Image, fd: int, recall: Recall, hashed: bool) -> list[tuple[BaseEntry, Item]]:
    """Each entry of the image, and what shows it in the work tree: its recalled source, or its own
    bytes. Without `hashed`, digests are left out and no source is looked for."""
    placed = []
    nodes = list(walk(image))
    paths = {path for path, _ in nodes}
    for path, node in nodes:
        if not isinstance(node, FileNode):
            placed.append((BaseEntry(path, None, "", path, "", None), Item(path, None, 0, 0)))
            continue
        offset, size = node.extent
        item, made_for = Item(path, fd, offset, size), None
        digest = source_digest = digest_fd(fd, offset, size) if hashed else ""
        source = recall.find(path, digest) if hashed else None
        shown = shown_as(path, source, paths)
        if source is not None and shown is not None:
            item = Item(shown, source.file, 0, source.file.stat().st_size)
            source_digest, made_for = source.digest, source.made_for
        entry = BaseEntry(path, size, digest, item.path, source_digest, None, made_for)
        placed.append((entry, item))
    return placed
