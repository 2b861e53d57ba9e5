"""romfsfs from Python, without mounting.

    import romfsfs

    with romfsfs.open("app.img", board="OPENMV_AE3") as editor:
        (editor.path / "app.py").write_text("print('hello')")
        print(editor.status().text())
        report = editor.commit()
    print(report.digest, report.write.verified)

    for camera, outcome in romfsfs.push("product.img", ["/dev/ttyACM0", "camera:3871"]).items():
        print(camera, "failed: %s" % outcome if isinstance(outcome, Exception) else "holds it")

`Editor` is for a directory that is edited and committed as on the command line; `build` and `push`
are for whole images, in continuous integration and production. An image written by `push` has the
digest that `build` returned. `Editor.commit` to a camera keeps unchanged files where they are, so
its `report.digest` may be that of another layout of the same files; `compact=True` writes what
`build` would.

The library prints nothing: it reports through `logging` (loggers below "romfsfs") and through
progress callbacks, and raises `romfsfs.errors.RomfsError` with an exit code of its own, also for
what the operating system refuses (`__cause__` is its OSError then).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from romfsfs.convert import Options
from romfsfs.devices.base import Device
from romfsfs.devices.open import open_device
from romfsfs.errors import SessionBusy, UsageError
from romfsfs.session.build_many import BoardResult, boards_of, build_each, build_order, orders
from romfsfs.session.connect import device as connected
from romfsfs.session.find import Found, find_session
from romfsfs.session.keep.locks import Lock
from romfsfs.session.mounting import MountRequest
from romfsfs.session.opening import enter
from romfsfs.session.plan.status import Status
from romfsfs.session.rebase.commit import CommitOptions, CommitReport, commit, commit_to
from romfsfs.session.rebase.push import PushOptions, PushResult, push_all
from romfsfs.session.rebase.read import OpenOptions, make_ready
from romfsfs.session.revert import leave_work, revert
from romfsfs.session.session import Session
from romfsfs.system.errors import worded
from romfsfs.system.files import Progress, no_progress

_PathLike = str | os.PathLike[str]


class Editor:
    """An open session: edit the files below `path`, look at `status`, then `commit`.

    Edits that are not committed are kept for the next time, as when a mount is unmounted. While
    it is open, the target cannot be mounted. Use it from one thread, and as a context manager.
    After `close` another process may have the session: all methods but `close` raise UsageError.
    """

    def __init__(self, session: Session, device: Device, lock: Lock) -> None:
        self._session: Session | None = session
        self._device = device
        self._lock = lock

    @property
    def session(self) -> Session:
        if self._session is None:
            raise UsageError("the editor is closed", next_step="romfsfs.open() gives a new one")
        return self._session

    @property
    def path(self) -> Path:
        """The work tree, a plain folder to edit files in."""
        return self.session.work

    @worded()
    def status(self) -> Status:
        """What would be committed; conversions that have not run are 'pending'."""
        return self.session.status()

    @worded()
    def commit(
        self, *, force: bool = False, compact: bool = False, tries: bool = False, slot: str = "",
        progress: Progress = no_progress,
    ) -> CommitReport:  # fmt: skip
        """Convert, write, read back, compare. Raises as `session.rebase.commit.commit` does.

        tries: a camera opens the models that changed; `report.write.tried` has its answers."""
        options = CommitOptions(force=force, compact=compact, tries=tries, slot=slot)
        return commit(self.session, self._device, options, progress=progress)

    @worded()
    def commit_to(self, source: str, *, progress: Progress = no_progress) -> CommitReport:
        """Write what a commit would to another file or camera; this session stays as it is."""
        info = self.session.info
        with connected(source, info.board, info.partition) as device:
            return commit_to(self.session, device, progress=progress, source=source)

    @worded()
    def revert(self, paths: Sequence[str] = ()) -> list[str]:
        """Bring paths, or everything, back to the base. Returns the paths that changed."""
        changed = revert(
            self.session, paths, connect=lambda _: contextlib.nullcontext(self._device)
        )
        if paths:
            return changed
        make_ready(self.session, self._device)
        return changed

    @worded()
    def close(self) -> None:
        """Release the target; drop a work tree that the image holds all of. May be called twice."""
        session, self._session = self._session, None
        if session is None:
            return
        try:
            with (
                contextlib.suppress(SessionBusy),  # being committed: the tree is kept
                session.folder.lock_for_change(session.info.name),
            ):
                if session.has_work:
                    leave_work(session)
        finally:
            self._device.close()
            self._lock.release()

    def __enter__(self) -> Editor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@worded()
def open(
    source: _PathLike,
    *,
    board: str | None = None,
    partition: int | None = None,
    slot: str = "",
    options: Options | None = None,
    new: bool = False,
    progress: Progress = no_progress,
) -> Editor:
    """An editor for an image file or a camera (see the command line's SOURCE).

    board, partition, options: remembered with the session. slot: 'A' or 'B', of an openmv-ota
    camera; each is a session of its own. new: start empty. Raises SessionBusy while the target is
    mounted or open elsewhere, TargetChanged when kept edits no longer fit it, DeviceError,
    ImageFormatError.
    """
    name = os.fspath(source)
    device = open_device(name, board=board, partition=partition, slot=slot)
    try:
        chosen = OpenOptions(board, partition, options, new=new, slot=slot)
        entered = enter(device, name, chosen, progress)
    except BaseException:
        device.close()
        raise
    return Editor(entered.session, device, entered.lock)


@worded()
def mount(
    source: _PathLike,
    directory: _PathLike,
    *,
    board: str | None = None,
    partition: int | None = None,
    new: bool = False,
    read_only: bool = False,
    progress: Progress = no_progress,
) -> Found:
    """Mount a source at an empty folder, served by a daemon. Returns its session and mountpoint.

    Call it before starting threads: this process forks. `unmount` ends the mount and keeps the
    edits. Raises as `open` does, and RomfsError if the system cannot mount.
    """
    from romfsfs.fs.daemon import MountOptions
    from romfsfs.fs.daemon import mount as mount_fuse

    chosen = OpenOptions(board, partition, new=new)
    request = MountRequest(os.fspath(source), Path(directory), chosen, read_only)
    options = MountOptions(
        source=request.source, progress=progress, mounted=request.say_where,
        failed=request.give_up,
    )  # fmt: skip
    mount_fuse(request.open_host, directory, options)
    return find_session(os.fspath(directory))


@worded()
def unmount(directory: _PathLike) -> None:
    """Unmount a folder; edits are kept for the next time. Raises RomfsError while it is in use."""
    from romfsfs.fs.mountpoint import unmount as unmount_fuse

    found = find_session(os.fspath(directory))
    holder = found.session.folder.mounted_at()
    unmount_fuse(os.path.realpath(directory), pid=holder.pid if holder else None)
    with (
        contextlib.suppress(SessionBusy),
        found.session.folder.lock_unmounted(found.session.info.name),
    ):
        if found.session.has_work:
            leave_work(found.session)


@worded()
def find(where: _PathLike | None = None, *, partition: int | None = None) -> Found:
    """The session that a mounted folder or a source names, and where it is mounted.

    Without a name: the mount that the current folder lies in, or else the only session with edits.
    `found.session.status()` says what a commit would do. Raises UsageError if there is none.
    """
    return find_session(None if where is None else os.fspath(where), partition)


@worded()
def build(
    directory: _PathLike,
    image: _PathLike,
    *,
    board: str | None = None,
    partition: int = 0,
    options: Options | None = None,
    progress: Progress = no_progress,
) -> str:
    """Build an image from a directory. Returns its SHA-256; on failure `image` stays as it was.

    The same tree gives the same bytes. board: by default that of the tree's `romfs.toml`; without
    one, scripts become portable bytecode and models stay as they are. options: these override the
    tree's. Raises ConversionError, PlanError, CapacityError.
    """
    boards = boards_of(directory, (board,) if board else ())
    (order,) = orders(boards, os.fspath(image), partition, options)
    return build_order(Path(directory), order, (), progress).digest


@worded()
def build_many(
    directory: _PathLike,
    image: _PathLike,
    boards: Sequence[str],
    *,
    options: Options | None = None,
    progress: Progress = no_progress,
) -> list[BoardResult]:
    """Build an image for each board (`NAME` or `NAME:PARTITION`), converted for that board.

    image: a folder, or a pattern such as 'out/{board}.img'. A board that fails stops no other: its
    result has the `error`. UsageError for an unknown board, or if two would write the same file.
    """
    name = os.fspath(image)
    if len(boards) > 1 and "{" not in name:
        name = os.path.join(name, "")
    wanted = orders(boards, name, options=options) if boards else []
    return list(build_each(Path(directory), wanted, (), progress))


@worded()
def push(
    image: _PathLike,
    cameras: Sequence[str],
    *,
    board: str | None = None,
    partition: int | None = None,
    force: bool = False,
    reset: bool = True,
    tries: bool = False,
    progress: Progress = no_progress,
) -> dict[str, PushResult]:
    """Write a whole image to cameras, in parallel, and verify it. Returns the outcomes by name.

    An outcome is a WriteReport, None if the camera held the image already, or the RomfsError that
    stopped it: one failure stops no other camera. What a camera held is kept, for `undo`.
    board: for cameras that cannot be identified. force: also over contents that are no image.
    reset: restart the camera, so that it mounts what it now holds. tries: the camera opens the
    models that changed; `tried` of the report has its answers.
    """

    def connect(camera: str) -> AbstractContextManager[Device]:
        return connected(camera, board, partition)

    return push_all(image, cameras, connect, PushOptions(force, reset, tries=tries), progress)
