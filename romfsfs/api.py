"""romfsfs from Python, without mounting.

    import romfsfs

    with romfsfs.open("app.img", board="OPENMV_AE3") as editor:
        (editor.path / "app.py").write_text("print('hello')")
        print(editor.status().text())
        report = editor.commit()
    print(report.digest, report.write.verified)

    digest = romfsfs.build("product/", "product.img", board="OPENMV_N6")

The library prints nothing: it reports through `logging` (loggers below "romfsfs") and through
progress callbacks, and raises `romfsfs.errors.RomfsError` with an exit code of its own.
"""

from __future__ import annotations

import builtins
import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from romfsfs.boards import get_board
from romfsfs.convert import Options, Target
from romfsfs.devices.base import Device
from romfsfs.devices.open import open_device
from romfsfs.files import Progress, digest_fd, no_progress
from romfsfs.session import store
from romfsfs.session.build import build as build_image
from romfsfs.session.commit import CommitReport, commit, commit_to
from romfsfs.session.opening import discard_work, prepare, session_for
from romfsfs.session.revert import revert
from romfsfs.session.session import Session
from romfsfs.session.status import Status

_PathLike = str | os.PathLike[str]


class Editor:
    """An open session: edit the files below `path`, look at `status`, then `commit`.

    Edits that are not committed are kept for the next time, as when a mount is unmounted. While
    it is open the target cannot be mounted. Use it from one thread, and as a context manager.
    """

    def __init__(self, session: Session, device: Device, lock: store.Lock) -> None:
        self.session = session
        self._device = device
        self._lock = lock

    @property
    def path(self) -> Path:
        """The work tree: plain files, edited as such."""
        return self.session.work

    def status(self) -> Status:
        """What would be committed; conversions that have not run are 'pending'."""
        return self.session.status()

    def commit(
        self, *, force: bool = False, compact: bool = False, progress: Progress = no_progress
    ) -> CommitReport:
        """Convert, write, read back, compare. Raises as `romfsfs.session.commit.commit` does."""
        return commit(self.session, self._device, force=force, compact=compact, progress=progress)

    def commit_to(self, source: str, *, progress: Progress = no_progress) -> CommitReport:
        """Write the same to another file or camera; this session stays as it is."""
        device = open_device(
            source, board=self.session.info.board, partition=self.session.info.partition
        )
        try:
            return commit_to(self.session, device, progress=progress)
        finally:
            device.close()

    def revert(self, paths: Sequence[str] = ()) -> list[str]:
        """Bring paths, or everything, back to the base; which ones changed."""
        if paths:
            return revert(self.session, paths)
        changed = revert(self.session)
        prepare(self.session, self._device)
        return changed

    def close(self) -> None:
        """Let the target go. A work tree without edits is removed. May be called twice."""
        try:
            if (
                self.session.has_work
                and self.session.status().clean
                and not self.session.interrupted
            ):
                discard_work(self.session)
        finally:
            self._device.close()
            self._lock.release()

    def __enter__(self) -> Editor:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def open(
    source: _PathLike,
    *,
    board: str | None = None,
    partition: int | None = None,
    new: bool = False,
    progress: Progress = no_progress,
) -> Editor:
    """An editor for an image file or a camera (see the command line's SOURCE).

    board, partition: remembered with the session. new: start empty. Raises SessionBusy while it
    is mounted or open elsewhere, TargetChanged when kept edits no longer fit the target,
    DeviceError, ImageFormatError.
    """
    name = os.fspath(source)
    device = open_device(name, board=board, partition=partition)
    try:
        session = session_for(device, name, board=board, partition=partition)
        lock = store.lock_for_mount(session.directory, session.info.name)
        try:
            prepare(session, device, new=new, progress=progress)
        except BaseException:
            lock.release()
            raise
    except BaseException:
        device.close()
        raise
    return Editor(session, device, lock)


def build(
    directory: _PathLike,
    image: _PathLike,
    *,
    board: str | None = None,
    partition: int = 0,
    options: Options | None = None,
    progress: Progress = no_progress,
) -> str:
    """Make an image of a directory; its SHA-256. The image is replaced only when all is well.

    The same tree gives the same bytes. Raises ConversionError, PlanError, CapacityError.
    """
    chosen = get_board(board) if board else None
    place = chosen.partition(partition) if chosen else None
    target = Target(chosen, place, options or Options())
    final = Path(image)
    stage = final.with_name(f"{final.name}.{os.getpid()}.tmp")
    try:
        with builtins.open(stage, "w+b") as file:
            build_image(Path(directory), file, target, place.size if place else None, (), progress)
            digest = digest_fd(file.fileno())
        os.replace(stage, final)
    finally:
        stage.unlink(missing_ok=True)
    return digest
