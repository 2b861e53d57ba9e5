"""Opening a session: resume the edits that are there, or start from what the target holds.

Order on disk, so that a process killed anywhere leaves a session that opens: `session.json`;
`base.img`; the tree is extracted beside its place; `base.json`; the tree is renamed to `work`.
A folder without `work` has no edits.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, BinaryIO, NamedTuple

from romfsfs.boards import get_board
from romfsfs.devices.base import Device, DeviceInfo
from romfsfs.devices.file import FileDevice
from romfsfs.errors import DeviceAbsent, TargetChanged
from romfsfs.files import (
    EMPTY_DIGEST,
    Progress,
    digest_fd,
    make_private_dir,
    no_progress,
    replace_atomically,
)
from romfsfs.image.model import FileNode, Image, walk
from romfsfs.session import history, store
from romfsfs.session.digests import RACY_NS
from romfsfs.session.images import open_image
from romfsfs.session.recall import Recall
from romfsfs.session.session import Session
from romfsfs.session.state import Base, BaseEntry, SessionInfo, load_json, save
from romfsfs.session.worktree import Extracted, Item, extract


def session_for(
    device: Device,
    source: str,
    *,
    board: str | None = None,
    partition: int | None = None,
    options: Mapping[str, Any] | None = None,
    excludes: tuple[str, ...] = (),
    commit_on_unmount: bool = False,
) -> Session:
    """The session of this target, made if there is none; what is given here is remembered.

    UsageError for a board or partition that does not exist.
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
        info = replace(info, board=get_board(board).name)
    if partition is not None and found.kind == "file":
        info = replace(info, partition=partition)
    if info.board:
        get_board(info.board).partition(info.partition)
    if options:
        info = replace(info, options={**info.options, **options})
    if excludes:
        info = replace(
            info, excludes=(*info.excludes, *(e for e in excludes if e not in info.excludes))
        )
    if commit_on_unmount:
        info = replace(info, commit_on_unmount=True)
    save(directory / "session.json", info.dump())
    return Session(directory, info)


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
    )


def prepare(
    session: Session, device: Device, *, new: bool = False, progress: Progress = no_progress
) -> bool:
    """Make the work tree ready; whether kept edits were resumed.

    new: start from an empty tree, whatever the target holds (it is replaced at the commit).
    TargetChanged (exit 7) when edits are kept and the target is no longer what they started
    from; ImageFormatError when the target is neither an image nor blank.
    """
    with store.lock_for_change(session.directory, session.info.name):
        for leftover in ("work.new", "hidden"):
            shutil.rmtree(session.directory / leftover, ignore_errors=True)
        make_private_dir(session.directory / "hidden")
        if session.has_work:
            same = target_is(session, device)
            clean = session.status().clean
            if clean and same and not new:
                return False
            if not clean:
                if new:
                    raise _kept_edits(session, "--new would drop them")
                if not same:
                    raise _kept_edits(session, "its target changed elsewhere")
                return True
            discard_work(session)
        _start(session, device, new, progress)
        return False


def _kept_edits(session: Session, why: str) -> TargetChanged:
    source = session.info.source
    return TargetChanged(
        f"the session holds edits, and {why}",
        where=session.info.name,
        next_step=f"commit them to another file: romfsfs commit {source} --to FILE; throw them away: "
        f"romfsfs revert {source}; or force them over the change: romfsfs commit {source} --force",
    )


def target_is(session: Session, device: Device) -> bool:
    """Whether the target still holds what the session last read from it or wrote to it."""
    base = session.base
    if isinstance(device, FileDevice):
        stamp = device.stamp()
        if stamp is None or base.target_digest is None:
            return stamp is None and base.target_digest is None
        if base.stamp is not None and tuple(stamp) == tuple(base.stamp):
            return True
        return device.digest(stamp[2]) == base.target_digest
    with open(session.base_image, "rb") as image:
        same = device.matches(image, base.image_size) if base.image_size else None
    if same is None:
        return _read_digest(session, device) == base.target_digest
    return same


def _read_digest(session: Session, device: Device) -> str:
    """What the target holds, by reading all of it: for devices that cannot tell otherwise."""
    path = session.directory / "check.img"
    try:
        with open(path, "w+b") as file:
            size = device.read_image(file)
            file.flush()
            return digest_fd(file.fileno(), 0, size) if size else EMPTY_DIGEST
    finally:
        path.unlink(missing_ok=True)


def discard_work(session: Session) -> None:
    """Drop the work tree (renamed first, so that a crash leaves it whole or gone)."""
    doomed = session.directory / "work.old"
    shutil.rmtree(doomed, ignore_errors=True)
    if session.has_work:
        os.rename(session.work, doomed)
        shutil.rmtree(doomed, ignore_errors=True)


def _start(session: Session, device: Device, new: bool, progress: Progress) -> None:
    base = fetch_base(session, device, new, progress)
    stage = session.directory / "work.new"
    stage.mkdir(mode=0o755)  # the mount's root; the session folder above keeps others out
    stage.chmod(0o755)
    extracted = extract_base(session, stage, progress)
    wait_until_settled()
    save(session.directory / "base.json", replace(base, entries=extracted).dump())
    os.rename(stage, session.work)
    if base.target_digest is not None and base.size:
        history.remember_first(session, base.digest)


def wait_until_settled() -> None:
    """Let the kernel's clock move on, so that any later edit shows in its file's signature."""
    time.sleep(RACY_NS / 1e9)


def fetch_base(session: Session, device: Device, new: bool, progress: Progress) -> Base:
    """Read the target into `base.img`; a Base without entries."""
    is_file = isinstance(device, FileDevice)
    stamp = device.stamp() if isinstance(device, FileDevice) else None
    exists = not is_file or stamp is not None
    if not exists and not new:
        raise DeviceAbsent(
            "no such image file",
            where=session.info.name,
            next_step=f"make one: romfsfs new {session.info.name} --board BOARD, or mount with --new",
        )
    if not new and not is_file and _reuse_base(session, device):
        return replace(session.base, entries=())
    with replace_atomically(session.base_image) as file:
        target_digest: str | None = None
        if new:
            if exists:
                target_digest = _digest_now(device)
        else:
            size = device.read_image(file, progress)
            file.flush()
            target_digest = digest_fd(file.fileno()) if size or is_file else EMPTY_DIGEST
            if is_file and not size:
                target_digest = device.digest(stamp[2] if stamp else 0)
        size = os.fstat(file.fileno()).st_size
        digest = digest_fd(file.fileno())
    with open_image(session.base_image) as (image, _):
        return Base(digest, size, image.size, target_digest, stamp, (), new)


def _digest_now(device: Device) -> str | None:
    """What a target that will be replaced holds now, to notice changes until then."""
    if isinstance(device, FileDevice):
        stamp = device.stamp()
        return device.digest(stamp[2]) if stamp else None
    return None


def _reuse_base(session: Session, device: Device) -> bool:
    """Whether the camera still holds the image that this session has: nothing to transfer then."""
    try:
        base = session.base
        with open(session.base_image, "rb") as file:
            if not base.image_size or digest_fd(file.fileno()) != base.digest:
                return False
            return device.matches(file, base.image_size) is True
    except FileNotFoundError:
        return False


class _Placed(NamedTuple):
    """An entry of the image, and what stands for it in the work tree (its source, if recalled)."""

    path: str
    size: int | None
    digest: str
    item: Item


def extract_base(
    session: Session, folder: os.PathLike[str], progress: Progress
) -> tuple[BaseEntry, ...]:
    """Extract `base.img` into an empty folder, sources recalled; what each file became."""
    with open_image(session.base_image) as (image, file):
        placed = _place(image, file, Recall())
        root_fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            total = sum(entry.item.size for entry in placed)
            written = extract((entry.item for entry in placed), root_fd, total, progress)
            return tuple(
                _base_entry(entry, done) for entry, done in zip(placed, written, strict=True)
            )
        finally:
            os.close(root_fd)


def _base_entry(entry: _Placed, done: Extracted | None) -> BaseEntry:
    if done is None:
        return BaseEntry(entry.path, None, "", entry.item.path, "", None)
    digest = entry.digest or done.digest
    return BaseEntry(entry.path, entry.size, digest, entry.item.path, done.digest, done.signature)


def _place(image: Image, file: BinaryIO, recall: Recall) -> list[_Placed]:
    placed = []
    fd = file.fileno()
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
            if source is not None:
                folder, slash, _ = path.rpartition("/")
                shown = folder + slash + source.name
                if shown == path or shown not in paths:
                    item = Item(shown, source.file, 0, source.file.stat().st_size)
        placed.append(_Placed(path, size, digest, item))
    return placed


def load_commit_record(session: Session) -> dict[str, Any] | None:
    """The record of a commit that is under way or was interrupted, None if there is none."""
    try:
        return load_json(session.directory / "commit.json")
    except FileNotFoundError:
        return None
