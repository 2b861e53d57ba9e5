"""The session's side of a mount: what the FUSE adapter calls, and the conversions behind it.

Runs in the daemon. Every method may be called from any of libfuse's threads, several at once.
Paths are relative to the tree's root, separated by '/', without a leading one; '' is the root.
Names that are not valid UTF-8 carry surrogates (`os.fsdecode`).
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from romfsfs.convert import Cancelled, Conversion, State, WorkerPool
from romfsfs.convert.romfs_toml import NAME as OPTIONS_NAME
from romfsfs.devices.base import Device
from romfsfs.errors import RomfsError, UsageError
from romfsfs.session.keep.base_image import BaseImage
from romfsfs.session.keep.settling import settle
from romfsfs.session.plan.status import Status
from romfsfs.session.plan.stored import InBase
from romfsfs.session.rebase.commit import commit
from romfsfs.session.rebase.transaction import Mounted
from romfsfs.session.session import Look, Session
from romfsfs.session.snapshot import Leaf, LocatedTree, Snapshot
from romfsfs.session.tree.worktree import Climber, kind_at, open_file, scan

if TYPE_CHECKING:
    from romfsfs.zoo import ZooTree

log = logging.getLogger(__name__)

#: Bytes at the end of the log that `.romfs/log` shows.
_LOG_BYTES = 64 << 10
#: Touched paths remembered between two looks at the tree; beyond that, the next covers all of it.
_MOST_TOUCHED = 10_000
#: The note of a file that is not converted because it is still open for writing.
OPEN_NOTE = "open for writing: converted when it is closed"
#: Returns the paths that are open for writing now.
OpenWriters = Callable[[], list[str]]
_DIR_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class Notifier(Protocol):
    """Notifies a user who sees no terminal. Called from any thread; never raises."""

    def failed(self, path: str, message: str) -> None:
        """A conversion failed."""
        ...

    def ended(self, changes: int) -> None:
        """The mount has ended with this many uncommitted edits."""
        ...

    def close(self) -> None: ...


class SessionHost:
    """Serves one mounted session.

    Call `start` after the fork, in the process that serves the mount: threads do not survive a
    fork. work_fd: descriptor of `work/`, which the user edits. hidden_fd: descriptor of `hidden/`,
    on the same file system, which holds files that were deleted while open. The mount empties it
    when it starts: whatever a killed daemon left there, the user had deleted.
    """

    def __init__(
        self,
        session: Session,
        read_only: bool,
        open_device: Callable[[], contextlib.AbstractContextManager[Device]],
        notifier: Notifier | None = None,
    ) -> None:
        self.session = session
        self.read_only = read_only
        self._open_device = open_device
        self._mutex = threading.Lock()
        self._deriving = threading.Lock()
        self._generation = 0
        self._touched: set[str] | None = None
        self._look: Look | None = None
        self._looked = -1  # the generation at which `_look` was made
        self._snapshot: Snapshot | None = None
        self._base: LocatedTree | None = None
        self._seen: BaseImage | None = None
        self._pool: WorkerPool | None = None
        self._ended: set[str] = set()  # converted since the pool was last idle
        self._notifier = notifier
        #: Whether `close` notifies of uncommitted edits: once mounted, unless they are dropped.
        self.tells_end = False
        self.work_fd = os.open(session.work, _DIR_FLAGS)
        hidden = session.folder.hidden
        hidden.mkdir(mode=0o700, exist_ok=True)
        self.hidden_fd = os.open(hidden, _DIR_FLAGS)

    def start(self, resumed: bool = True) -> None:
        """Start the workers, and submit what a resumed session has not converted yet.

        resumed: whether a commit would write something (see `make_ready`). If not, a mount of
        thousands of files does not wait for a look at all of them.
        """
        threading.Thread(target=self._tidy, name="romfsfs-tidy", daemon=True).start()
        self._pool = WorkerPool(self._convert, self._converted)
        if resumed:
            self._submit_pending()

    def _submit_pending(self) -> None:
        for entry in self._status().entries:
            if entry.state == "pending" and self._pool is not None:
                self._pool.submit(entry.path)

    def _tidy(self) -> None:
        """Sync the tree and trim remembered sources, in a thread: a mount does not wait for it."""
        settle(self.session.folder)
        try:
            self.session.recall().trim()
        except OSError as error:
            log.info("remembered sources are not trimmed: %s", error)

    @property
    def log_file(self) -> Path | None:
        """Where a background mount's standard error and log records are appended."""
        return self.session.folder.log

    def changed(self, path: str) -> None:
        """Note that `path` may have changed: written and closed, renamed, created or removed.

        A folder stands for all that it holds. Cheap. Called once per close, not per write."""
        self._outdated([path])
        if self._pool is None or self.session.settings.excludes.matches(path):
            return
        if path == OPTIONS_NAME:  # any file may have to be converted again
            self._pool.submit("")
            return
        if self.session.settings.converters.concerns(path) or self._is_folder(path):
            self._pool.submit(path)

    def _is_folder(self, path: str) -> bool:
        try:
            return kind_at(self.work_fd, path) == "dir"
        except OSError:  # no permission, a failing disk: the change itself has already succeeded
            return False

    def limit(self, path: str) -> int | None:
        """The maximum size in bytes of a file with this path; None: no limit. Cheap.

        There is none for an excluded file, nor for one that is converted: its result counts."""
        settings = self.session.settings  # read once: each access checks `romfs.toml` for a change
        if settings.converters.concerns(path) or settings.excludes.matches(path):
            return None
        return settings.capacity

    def least(self) -> int:
        """The bytes that the files with a `limit` take at least. Scans the whole tree.

        Not counted: a file that a source beside it may replace, as app.py replaces app.mpy."""
        files = [work for work in scan(self.work_fd) if work.kind == "file"]
        settings = self.session.settings
        concerns, excluded = settings.converters.concerns, settings.excludes.matches
        made = {os.path.splitext(work.path)[0] for work in files if concerns(work.path)}
        return sum(
            work.signature.size
            for work in files
            if os.path.splitext(work.path)[0] not in made and not excluded(work.path)
            if work.path != OPTIONS_NAME
        )

    def usage(self) -> tuple[int | None, int]:
        """(capacity, size that the image would have now) in bytes; capacity None: unlimited."""
        held = self._held()
        with self._mutex:
            look = self._look if self._looked == self._generation else None
        plan = look.plan if look is not None else None
        if plan is None and self._deriving.acquire(blocking=False):
            try:
                plan = self._look_again(held, quick=True).plan
            finally:
                self._deriving.release()
        if plan is None:  # a status may be reading gigabytes; programs ask this between two writes
            plan = self.session.look(held, quick=True).plan
        return plan.capacity, plan.size

    def status_text(self, open_writers: OpenWriters) -> str:
        return self._explained(open_writers).text()

    def status_json(self, open_writers: OpenWriters) -> str:
        return self._explained(open_writers).json()

    def status_html(self, open_writers: OpenWriters) -> str:
        held = self._held()
        return self.session.page(self._explained(open_writers), held)

    def log_text(self) -> str:
        try:
            with open(self.session.folder.log, "rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - _LOG_BYTES))
                return file.read().decode(errors="replace")
        except FileNotFoundError:
            return ""

    def base(self) -> LocatedTree:
        """The tree of the image as last read or committed.

        Cached for each base: every path that is looked up below `.romfs/base` asks for it."""
        held, known = self._held(), self._base
        if known is not None and known.held is held:
            return known
        leaves = {
            entry.path: Leaf(None if entry.is_dir else entry.size or 0, InBase(entry.path), "ready")
            for entry in held.base.entries
        }
        self._base = known = LocatedTree(self.session, held, leaves)
        return known

    def shadow(self) -> LocatedTree:
        """What a commit would write now."""
        return self._current().shadow

    def zoo(self) -> ZooTree | None:
        """The models that fit the session's board; None without a source of models."""
        from romfsfs.zoo import open_zoo  # 50 ms that a mount need not wait for

        return open_zoo(self.session.info.board)

    def control(self, command: str, open_writers: OpenWriters) -> None:
        """Run the command written to `.romfs/ctl`; returns when it is done.

        RomfsError: the adapter logs it, and the write fails with EIO."""
        word = command.strip()
        if word in ("discard", "keep"):  # what `umount` is about to do with the edits
            self.tells_end = word == "keep"
            return
        if word != "commit":
            raise UsageError(
                f"unknown command {word!r}", where=".romfs/ctl", next_step="write: commit"
            )
        with self._open_device() as device:
            report = commit(self.session, device, mounted=Mounted(None, open_writers))
        self._outdated()
        if report.clean:
            log.info("commit: nothing to commit")
        else:
            log.info("commit: %d bytes, verified", report.size)

    def file_state(self, path: str) -> bytes:
        """The value of the extended attribute `user.romfs.state` of this file or folder."""
        return self._current().states.get(path, "ignored").encode()

    def close(self) -> None:
        """End the workers, notify of uncommitted edits, close descriptors. Once, after unmount."""
        if self._pool is not None:
            self._pool.close()
        if self._notifier is not None:
            self._notifier.close()
            # A read-only mount has no edits, and `umount` cannot tell it of a discard.
            if self.tells_end and not self.read_only:
                self._tell_end(self._notifier)
        os.close(self.work_fd)
        os.close(self.hidden_fd)

    def _tell_end(self, notifier: Notifier) -> None:
        self._outdated()  # once unmounted, commands change the tree in place
        try:
            edits = self._status().edits
        except (RomfsError, OSError) as error:  # a failing disk, for instance
            log.warning("the uncommitted edits at unmount are not known: %s", error)
            return
        if edits:
            notifier.ended(edits)

    def _convert(self, path: str, cancel: threading.Event) -> Conversion:
        try:
            if path == "":
                self._submit_pending()
                raise Cancelled("the whole tree: what is pending was queued instead")
            if kind_at(self.work_fd, path) == "dir":
                self._submit_below(path)
                raise Cancelled("a folder: what is in it was queued instead")
            fd = open_file(self.work_fd, path)
        except PermissionError as error:  # the file's mode, which the status reports
            raise Cancelled(str(error)) from error
        try:
            digest, _ = self.session.digests.digest(fd)
            return self.session.settings.converters.convert(path, fd, digest, cancel)
        finally:
            os.close(fd)

    def _submit_below(self, folder: str) -> None:
        """Submit the files of a folder that was renamed into place: none was closed here."""
        with Climber(self.work_fd) as climber:
            inside = scan(climber.enter(folder))
        for work in inside:
            path = f"{folder}/{work.path}"
            if work.kind == "file" and self._wants_conversion(path) and self._pool is not None:
                self._pool.submit(path)

    def _wants_conversion(self, path: str) -> bool:
        settings = self.session.settings
        return settings.converters.concerns(path) and not settings.excludes.matches(path)

    def _converted(self, path: str, result: Conversion) -> None:
        self._outdated([path])
        with self._mutex:
            self._ended.add(path)
            if self._pool is None or self._pool.pending() <= {path}:
                self._ended.clear()
        if result.state is State.FAILED:
            log.warning("%s: %s", path, result.message)
            if self._notifier is not None:
                self._notifier.failed(path, result.message)
        else:
            log.info("%s is %s, %d bytes", path, result.stored_path, result.size)

    def _outdated(self, paths: Iterable[str] | None = None) -> None:
        """Note that these paths may have changed; None: anything may have."""
        with self._mutex:
            self._generation += 1
            if self._touched is not None:
                self._touched.update(paths or ())
            if paths is None or (self._touched and len(self._touched) > _MOST_TOUCHED):
                self._touched = None

    def _look_again(self, held: BaseImage, quick: bool = False) -> Look:
        """Look at what was touched since the last look. The caller holds `_deriving`.

        Nothing else can have changed: while the mount is writable, the tree is changed through it
        alone, by our own commands too (`restore.change_tree`), and `changed` is called after each
        change. `_explained` adds the files that are still being written. A change of the base or
        of the settings discards the earlier look.
        """
        with self._mutex:
            before, touched, generation = self._look, self._touched, self._generation
            self._look, self._touched = None, set()  # if this look fails, the next covers all
        if self.read_only or touched is None:  # commands bypass a read-only mount
            before = None
        look = self.session.look(held, quick, before, touched or ())
        with self._mutex:
            self._look, self._looked = look, generation
        return look

    def _held(self) -> BaseImage:
        """The base. Drops what was derived from an earlier one, which pins that image on disk."""
        held = self.session.held()
        with self._mutex:
            if self._seen is not held:
                self._seen, self._snapshot, self._look, self._base = held, None, None, None
        return held

    def _status(self) -> Status:
        return self._current().status

    def _explained(self, open_writers: OpenWriters) -> Status:
        """The status, with the progress of conversions, and a note on files that are still open.

        A file is converted when it is closed. One that is pending although it is closed and no
        worker has it has lost its result (the cache was trimmed, say): it is submitted again.
        """
        working = self._pool.pending() if self._pool is not None else frozenset()
        writing = set(open_writers())
        with self._mutex:
            known = self._snapshot
        if writing or (known is not None and self._is_passing(known.status)):
            self._outdated(writing)  # `changed` reports a write only at its close
        status = self._status()  # after `working`: a conversion that ended in between is ready
        if not status.pending or self._pool is None:
            return status
        entries, waiting = [], set()
        for entry in status.entries:
            if entry.state == "pending":
                waiting.add(entry.path)
            if entry.state == "pending" and entry.path not in working:
                if entry.path in writing:
                    entry = entry._replace(note=OPEN_NOTE)
                else:
                    self._pool.ensure(entry.path)
            entries.append(entry)
        with self._mutex:
            done = len(self._ended - waiting)
        return status._replace(entries=tuple(entries), converting=(done + 1, done + len(waiting)))

    def _is_passing(self, status: Status) -> bool:
        """Whether it may have changed without a call of `changed`: in a read-only mount, by a tool
        that was installed, or by the beginning or end of an interrupted write."""
        told = any(problem.code == "interrupted" for problem in status.problems)
        failed = any(entry.state == "failed" for entry in status.entries)
        return self.read_only or failed or told != self.session.needs_recovery

    def _current(self) -> Snapshot:
        """The session's state now, computed at most once for each change of the tree."""
        with self._deriving:  # a second caller waits here, and finds the first one's result
            with self._mutex:
                generation, known = self._generation, self._snapshot
            held = self._held()
            if known is not None and known.generation == generation and known.held is held:
                return known
            status = self.session.status(self._look_again(held))
            snapshot = Snapshot(generation, held, status, self.session)
            with self._mutex:
                self._snapshot = snapshot
            return snapshot
