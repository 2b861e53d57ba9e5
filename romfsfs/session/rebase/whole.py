"""Whole images to and from a camera, past the work tree: push and reset, with a backup first."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import BinaryIO

from romfsfs.boards import get_board
from romfsfs.devices.base import Device, DeviceInfo, WriteReport
from romfsfs.errors import (
    CapacityError,
    ImageError,
    ImageFormatError,
    Interrupted,
    RomfsError,
    SessionBusy,
    shell_word,
)
from romfsfs.image.check import lint
from romfsfs.session.keep import history, store
from romfsfs.session.keep.images import parse
from romfsfs.session.opening import session_for
from romfsfs.session.plan.admission import admit_image
from romfsfs.session.plan.plan import ERROR, WARNING, told
from romfsfs.session.rebase import recovery
from romfsfs.session.rebase.target import holds, restarted
from romfsfs.session.session import Session
from romfsfs.session.settings import device_target
from romfsfs.system.files import Progress, check_plain, digest_fd, no_progress, replace_atomically


def check_fit(image: BinaryIO, name: str, info: DeviceInfo) -> tuple[int, tuple[str, ...]]:
    """The size in bytes of an image that may be written to this device, and warnings.

    ImageFormatError, CapacityError, or ImageError when data is not aligned for the board or cannot
    work there.
    """
    board, partition, capacity = info.board, info.partition, info.capacity
    parsed = parse(image, name)
    if parsed.size == 0:
        raise ImageFormatError("the file is empty", 0, where=name)
    if capacity is not None and parsed.size > capacity:
        raise CapacityError(
            f"the image is {parsed.size - capacity:,} bytes too large for the {capacity:,} there",
            size=parsed.size,
            capacity=capacity,
            where=name,
        )
    if board is not None:
        rules = get_board(board).partition(partition).alignment
        wrong = [note for note in lint(parsed, rules) if note.code == "misaligned"]
        if wrong:
            raise ImageError(
                f"{len(wrong)} files are not aligned for {board}, the first: {wrong[0].message}",
                where=f"{name}: {wrong[0].path}",
                next_step=f"romfsfs extract {shell_word(name)} DIR; romfsfs build DIR IMAGE "
                f"--board {board}" + (f":{partition}" if partition else ""),
            )
    found = admit_image(parsed, image, device_target(info))
    errors = [problem for problem in found if problem.severity == ERROR]
    if errors:
        raise ImageError(
            f"{len(errors)} file{'s' if len(errors) > 1 else ''} cannot work on {board or 'it'}, "
            f"the first: {errors[0].text}",
            where=name,
            detail="\n".join(problem.text for problem in told(errors)),
            next_step="nothing was written; build the image for this board from the sources",
        )
    return parsed.size, tuple(each.text for each in told(found) if each.severity == WARNING)


def push(
    device: Device,
    source: str,
    image: BinaryIO,
    name: str,
    *,
    force: bool = False,
    reset: bool = True,
    progress: Progress = no_progress,
) -> WriteReport | None:
    """Make the camera hold this image, verified; None when it did already.

    What it held before is kept in the log first (`undo` brings it back). force: also over
    something that is no image. SessionBusy while the camera is mounted.
    """
    info = device.info()
    size, warnings = check_fit(image, name, info)
    directory = store.make_session_dir(info.key)
    if store.mounted_at(directory) is not None:  # nor must its session change
        raise SessionBusy(f"{info.name} is mounted", next_step="unmount it first: romfsfs sessions")
    with store.lock_for_change(directory, info.name):
        session = session_for(device, source)
        _settle(session, device)
        report = None
        if device.matches(image, size) is not True:
            _back_up(session, device, force, progress)
            report = _write(device, image, info.name, progress)
            report = replace(report, notes=(*report.notes, *info.notes, *warnings))
        recovery.forget(session)
        if report is None:
            return None
        _remember(session, image, name)
        return restarted(device, report) if reset else report


def _write(device: Device, image: BinaryIO, name: str, progress: Progress) -> WriteReport:
    try:
        return device.write_image(image, None, progress)
    except KeyboardInterrupt:
        raise Interrupted(
            "interrupted while the camera was written, which is not finished",
            where=name,
            next_step="repeat the command; what it held before is in its log (romfsfs undo)",
        ) from None


#: What became of a camera: what was written, None: it held the image already, or what went wrong.
Outcome = WriteReport | RomfsError | None


def push_all(
    image: str | os.PathLike[str],
    cameras: Sequence[str],
    connect: Callable[[str], AbstractContextManager[Device]],
    *,
    force: bool = False,
    reset: bool = True,
    progress: Progress = no_progress,
) -> dict[str, Outcome]:
    """`push` to several cameras at once, each in a thread of its own; the outcome of each.

    connect: opens a camera by its name. One that fails stops no other, and as cameras that hold
    the image already are left alone, the same call again resumes with those that failed.
    progress: reported for a single camera only. Ctrl-C ends those that are not done: for several
    cameras that is their outcome. OSError when the image cannot be read.
    """
    name = os.fspath(image)
    stop = threading.Event()

    def one(camera: str, progress: Progress) -> Outcome:
        try:
            with open(name, "rb") as file, connect(camera) as device:
                return push(device, camera, file, name, force=force, reset=reset, progress=progress)
        except RomfsError as error:
            return error

    def one_of_many(camera: str) -> Outcome:
        def check(phase: str, done: int, total: int) -> None:
            if stop.is_set():
                raise KeyboardInterrupt

        try:
            check("", 0, 0)
            return one(camera, check)
        except KeyboardInterrupt:
            return Interrupted("interrupted", where=camera, next_step="repeat the command")

    check_plain(name)
    wanted = list(dict.fromkeys(cameras))
    if len(wanted) == 1:
        return {wanted[0]: one(wanted[0], progress)}
    with ThreadPoolExecutor(max_workers=max(1, len(wanted))) as pool:
        running = {camera: pool.submit(one_of_many, camera) for camera in wanted}
        while True:
            try:
                wait(running.values())
                break
            except KeyboardInterrupt:  # each camera is put in order first, however impatient
                stop.set()
        return {camera: future.result() for camera, future in running.items()}


def _settle(session: Session, device: Device) -> None:
    """A commit that was interrupted with its image on the camera is entered into the books.

    One that was interrupted earlier is forgotten once the pushed image is there: to finish it
    later would undo the push.
    """
    new = session.directory / "new.img"
    if session.interrupted and (not new.exists() or holds(device, new)):
        recovery.recover_locked(session, device)


def _back_up(session: Session, device: Device, force: bool, progress: Progress) -> None:
    """Enter what the camera holds now into the log, unless the log ends with just that."""
    known = history.entries(session)
    if known:
        with open(history.image_path(session, known[-1].number), "rb") as last:
            if device.matches(last, known[-1].size) is True:
                return
    copy = session.directory / "backup.img"
    try:
        with replace_atomically(copy) as file:
            try:
                size = device.read_image(file, progress)
            except ImageFormatError as error:
                if not force:
                    raise ImageFormatError(
                        error.reason,
                        error.offset,
                        where=session.info.name,
                        next_step="it cannot be backed up; --force overwrites it",
                    ) from None
                size = 0
            file.flush()
            digest = digest_fd(file.fileno())
        if size:
            history.add(session, copy, digest, "read", "as found on the target")
    finally:
        copy.unlink(missing_ok=True)


def _remember(session: Session, image: BinaryIO, name: str) -> None:
    copy = session.directory / "pushed.img"
    try:
        with replace_atomically(copy) as file:
            offset = 0
            while data := os.pread(image.fileno(), 1 << 20, offset):
                file.write(data)
                offset += len(data)
            file.flush()
            digest = digest_fd(file.fileno())
        history.add(session, copy, digest, "push", f"from {name}")
    finally:
        copy.unlink(missing_ok=True)
