"""Writing whole images to a camera, past the work tree: push and reset, with a backup first."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import BinaryIO

from romfsfs.devices.base import Device, DeviceInfo, WriteReport
from romfsfs.errors import (
    ImageError,
    ImageFormatError,
    Interrupted,
    RomfsError,
    SessionBusy,
    count_text,
    shell_word,
    too_large,
)
from romfsfs.session.keep.folder import SessionFolder, folder_of, make_folder
from romfsfs.session.keep.images import open_image, parse
from romfsfs.session.keep.state import Base, SessionInfo
from romfsfs.session.keep.steps import reached
from romfsfs.session.plan.admission import admit_image
from romfsfs.session.plan.problems import ERROR, WARNING, told
from romfsfs.session.rebase.read import base_of, session_for
from romfsfs.session.rebase.record import Record, interrupted_write
from romfsfs.session.rebase.recovery import recover_locked
from romfsfs.session.rebase.target.base import Held, Target
from romfsfs.session.rebase.transaction import (
    WriteOptions,
    give_up,
    look,
    rebase,
    restart,
    space_for,
)
from romfsfs.session.rebase.trial import after_write, refuse_trial
from romfsfs.session.session import Session
from romfsfs.session.settings import device_target
from romfsfs.system.beside import Beside, Cancel
from romfsfs.system.copying import copy_range
from romfsfs.system.errors import os_error
from romfsfs.system.files import Progress, check_plain, no_progress, opened


def check_fit(image: BinaryIO, name: str, info: DeviceInfo) -> tuple[int, tuple[str, ...]]:
    """The size in bytes of an image that may be written to this device, and warnings.

    ImageFormatError, CapacityError, or ImageError if a file in it cannot work there.
    """
    board, capacity = info.board, info.capacity
    parsed = parse(image, name)
    if parsed.size == 0:
        raise ImageFormatError("the file is empty", 0, where=name)
    if capacity is not None and parsed.size > capacity:
        raise too_large(parsed.size, capacity, name)
    found = admit_image(parsed, image, device_target(info))
    errors = [problem for problem in found if problem.severity == ERROR]
    if errors:
        raise ImageError(
            f"{count_text(len(errors), 'file')} cannot work on {board or 'it'}, "
            f"the first: {errors[0].text.partition('; ')[0]}",  # the next step is one for all
            where=name,
            detail="\n".join(problem.text for problem in told(errors)),
            next_step=f"it was not written; to build it for that board: romfsfs extract "
            f"{shell_word(name)} DIR, romfsfs build DIR IMAGE --board {board or 'BOARD'}",
        )
    return parsed.size, tuple(each.text for each in told(found) if each.severity == WARNING)


@dataclass(frozen=True, slots=True)
class PushOptions(WriteOptions):
    """backup: keep what the camera held in the log; without it, a camera that had no session gets
    none. kind: its name in the log, 'push' or 'reset'."""

    backup: bool = True
    kind: str = "push"


def refuse(device: Device, image: BinaryIO, name: str, options: PushOptions) -> None:
    """For a dry run: raise what `push` raises before it reads all that the camera holds."""
    info = device.info()
    size, _ = check_fit(image, name, info)
    _refuse_mounted(folder_of(info.key), info.name)
    if device.matches(image, size) is not True:
        options.target(device).refuse_slots(size)


def _refuse_mounted(folder: SessionFolder, name: str) -> None:
    if folder.mounted_at() is not None:  # its daemon would not notice what changes
        raise SessionBusy(f"{name} is mounted", next_step="unmount it first: romfsfs sessions")


def push(
    device: Device,
    source: str,
    image: BinaryIO,
    name: str,
    options: PushOptions = PushOptions(),
    progress: Progress = no_progress,
) -> WriteReport | None:
    """Write this image to the camera and verify it; None if it held the image already. (If it only
    had to restart and nothing confirmed that, the report holds just that note.)

    What it held before is logged first, for `undo`. Edits in its session stay, on top of the new
    image. source: what the camera was opened as. name: the image's, for messages. Raises
    SessionBusy while the camera is mounted, UsageError, and as `check_fit` and `rebase`.
    """
    info = device.info()
    if options.tries:
        refuse_trial(info)
    size, warnings = check_fit(image, name, info)
    folder = make_folder(info.key)
    _refuse_mounted(folder, info.name)
    drops = not options.backup
    with folder.provisional(info.name, drops), folder.lock_for_change(info.name):
        session, target = session_for(device, source), options.target(device)
        cut = interrupted_write(folder)
        interrupted = _interrupted(session, target)
        with target.alone():
            there = device.matches(image, size)
            if there is not True:
                target.refuse_slots(size)
                before = _before(session, target, options, interrupted, progress)
                there = device.matches(image, size)  # a boot loader can tell once it was read
            if there is True:
                if interrupted is not None:
                    give_up(session, interrupted)
                # After a write interrupted before its restart, `/rom` still is the old image.
                note = restart(device) if cut and options.restart else ""
                skipped = WriteReport(0, 0, 0.0, verified=True, skipped=size, notes=(note,))
                return skipped if note else None
            base = _staged(session, image, size)
            record = Record(options.kind, before, base, session.tree_base, f"from {name}")
            report = rebase(session, target, record, progress=progress)
        assert report is not None
        report = replace(report, notes=(*report.notes, *info.notes, *warnings))
        had = folder.image(before.digest or "")
        known = options.tries and had.exists()
        old = base_of(had, session.recall()) if known else None
        return after_write(device, report, options, old, base, progress)


#: The outcome for a camera: what was written, None if it held the image already, or the error.
PushResult = WriteReport | RomfsError | None


def push_all(
    image: str | os.PathLike[str],
    cameras: Sequence[str],
    connect: Callable[[str], AbstractContextManager[Device]],
    options: PushOptions = PushOptions(),
    progress: Progress = no_progress,
) -> dict[str, PushResult]:
    """`push` to several cameras at once, each in a thread of its own; the outcome of each.

    connect: opens a camera by its name. One that fails stops no other. The same call again retries
    those that failed, as cameras that hold the image already are left alone. progress: reported
    for a single camera only. Ctrl-C ends those that are not done: for several cameras, Interrupted
    is their outcome. OSError if the image cannot be read, RomfsError if it is no plain file.
    """
    name = os.fspath(image)

    def one(camera: str, progress: Progress) -> PushResult:
        try:
            with open(name, "rb") as file, connect(camera) as device:
                return push(device, camera, file, name, options, progress)
        except RomfsError as error:
            return error

    def one_of_many(camera: str, cancel: Cancel) -> None:
        def check(phase: str, done: int, total: int) -> None:
            if cancel.is_set():
                raise KeyboardInterrupt

        try:
            outcomes[camera] = one(camera, check)
        except OSError as error:  # of its session's folder: the others go on
            outcomes[camera] = os_error(error)

    check_plain(name)
    wanted = list(dict.fromkeys(cameras))
    if len(wanted) == 1:
        return {wanted[0]: one(wanted[0], progress)}
    with opened(name):  # OSError for all of them
        pass
    outcomes: dict[str, PushResult] = {
        camera: Interrupted("interrupted", where=camera, next_step="repeat the command")
        for camera in wanted
    }
    with (
        suppress(KeyboardInterrupt),
        Beside([partial(one_of_many, camera) for camera in wanted]) as beside,
    ):
        for number in range(len(wanted)):
            beside.result(number)
    return outcomes


def _interrupted(session: Session, target: Target) -> Record | None:
    """The interrupted transaction that this push replaces (to finish it later would undo the push),
    or None. A read is ended first, and one whose image is on the camera already."""
    if not session.interrupted:
        return None
    record = Record.load(session.folder)
    new = session.folder.image(record.base.digest)
    done = record.is_switched(session.folder) or (new.exists() and target.holds(new))
    if done or target.atomic or not record.writes:  # a file is the old image or the new one
        recover_locked(session, target)
        return None
    return record


def _before(
    session: Session, target: Target, options: PushOptions, interrupted: Record | None,
    progress: Progress,
) -> Held:  # fmt: skip
    """What the camera holds now; after an interrupted write, what it held before that."""
    looks = options.backup or target.atomic  # a file is compared with it before it is replaced
    before = look(session, target, progress) if looks else Held("", 0)
    # Half an image may have a valid header, and only a boot loader may leave one.
    half = target.device.info().header_unit > 0
    if interrupted is not None:
        if half or not before.size:
            return interrupted.before
        give_up(session, interrupted)
    if looks:
        copy = session.folder.image(before.digest or "")
        _refuse_other_contents(before, copy, session.info, options.force)
    return before


def _refuse_other_contents(held: Held, copy: Path, info: SessionInfo, force: bool) -> None:
    """ImageFormatError if the target holds what is no image: a mistyped name must not cost a file.
    copy: of what it holds."""
    if force or held.digest is None:
        return
    wrong = ImageFormatError("it holds something else", 0)
    if held.digest:
        try:
            with open_image(copy):
                return
        except ImageFormatError as error:
            wrong = error
    other = "choose another name, or " if info.is_file else ""
    raise wrong.at(info.name, f"nothing was written there; {other}--force replaces what it holds")


def _staged(session: Session, image: BinaryIO, size: int) -> Base:
    """Put the image, without what follows it in its file, into the history; the base it becomes."""
    folder = session.folder
    try:
        with space_for(session, "the image cannot be staged"):
            with folder.create(folder.staged) as file:
                copy_range(image.fileno(), 0, size, file.fileno())
            base = base_of(folder.staged, session.recall())
            folder.place(folder.staged, base.digest)
    finally:
        folder.staged.unlink(missing_ok=True)
    reached("after-placed")
    return base
