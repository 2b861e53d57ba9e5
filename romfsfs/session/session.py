"""A session: one target, the image it held, and the user's work tree.

Thread rules: a `Session` may be used from several threads (the daemon's request threads and
workers do); what changes base, history or target takes the session's `commit.lock`, so it is
safe between processes too. Other processes' commits are seen: the base is read again when
`base.json` was replaced.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from romfsfs.boards import parse_board
from romfsfs.convert.romfs_toml import NAME as OPTIONS_NAME
from romfsfs.errors import RomfsError, shell_word
from romfsfs.session.keep.base_image import BaseImage, open_base
from romfsfs.session.keep.folder import SessionFolder, all_folders
from romfsfs.session.keep.images import parse_fd
from romfsfs.session.keep.recall import Recall
from romfsfs.session.keep.state import Base, SessionInfo, Signature, as_ours
from romfsfs.session.plan.advice import advice
from romfsfs.session.plan.plan import Plan, make_plan, trailing_problem
from romfsfs.session.plan.problems import INFO, WARNING, Problem
from romfsfs.session.plan.shadow import (
    NOTHING,
    Convert,
    Deriver,
    Folders,
    ShadowEntry,
    flat,
    untouched,
)
from romfsfs.session.plan.status import Status, make_status
from romfsfs.session.plan.stored import InWork, Stored, open_stored
from romfsfs.session.settings import NO_OPTIONS, Settings, make_settings, options_below
from romfsfs.session.tree.digests import DigestCache, certain
from romfsfs.session.tree.worktree import scan_folders
from romfsfs.system.errors import worded

log = logging.getLogger(__name__)


@dataclass
class Look:
    """One look at the work tree: the settings and base used, its shadow tree, and its plan.

    before: the plan of an earlier look that shares folders with this one; dropped once used."""

    settings: Settings
    held: BaseImage
    folders: Folders
    before: Plan | None = None

    @cached_property
    def plan(self) -> Plan:
        """Made on first use: a look that only finds what is still to be converted needs none."""
        settings, held = self.settings, self.held
        before, self.before = self.before, None
        extents = held.extents if settings.target.options.rules else None
        return make_plan(
            self.folders, held.base, settings.target, settings.capacity, extents=extents,
            before=before, more=settings.problems,
        )  # fmt: skip

    @property
    def shadow(self) -> list[ShadowEntry]:
        return flat(self.folders)


class Session:
    """The session in one folder. RomfsError when its state cannot be read or used."""

    def __init__(self, folder: SessionFolder, info: SessionInfo) -> None:
        self.folder = folder
        self.digests = DigestCache()
        self._remembered = info
        self._settings: tuple[Signature | None, Settings] | None = None
        self._held: BaseImage | None = None
        self._held_signature: Signature | None = None
        _ = self.settings  # raises now if they cannot be used

    @classmethod
    def load(cls, folder: SessionFolder) -> Session:
        return cls(folder, SessionInfo.load(folder.info))

    @property
    def settings(self) -> Settings:
        """The settings in force now: the tree's `romfs.toml` may change at any time."""
        signature = None
        with contextlib.suppress(OSError):
            signature = Signature.of(os.lstat(self.work / OPTIONS_NAME))
        known = self._settings
        if known is not None and known[0] == signature:
            return known[1]
        tree = NO_OPTIONS
        if signature is not None and not self._came_with_image(OPTIONS_NAME):
            tree = options_below(self.work)
        with as_ours(self.folder.info):
            made = make_settings(self._remembered, tree)
        if signature is None or certain(signature):
            self._settings = signature, made
        return made

    def _came_with_image(self, path: str) -> bool:
        with contextlib.suppress(RomfsError):
            return any(entry.source == path for entry in self.held().base.entries)
        return False

    @property
    def info(self) -> SessionInfo:
        """What is remembered of the target and the user's choices."""
        return self.settings.info

    @property
    def work(self) -> Path:
        return self.folder.work

    @property
    def base_image(self) -> Path:
        """The path of the base's image."""
        return self.folder.image(self.base.digest)

    @property
    def has_work(self) -> bool:
        """Whether there is a work tree (mounted, kept with edits, or left by a crash)."""
        return self.work.is_dir()

    @property
    def interrupted(self) -> bool:
        """Whether a transaction has begun and not ended (it may be running now)."""
        return self.folder.record.exists()

    @property
    def needs_recovery(self) -> bool:
        """Whether a transaction was interrupted: it has not ended, and no process is at it."""
        # Looked for again, as the process may just have ended it.
        return self.interrupted and self.folder.changed_by() is None and self.interrupted

    @property
    def base(self) -> Base:
        """The base, as last written by any process. RomfsError as `held`."""
        return self.held().base

    @property
    def tree_base(self) -> Base | None:
        """The base that the work tree was edited from; None without a work tree."""
        return self.base if self.has_work else None

    def recall(self) -> Recall:
        """The store of remembered sources; this session's own come before all others."""
        return Recall(self.folder.path.name)

    def held(self) -> BaseImage:
        """The base with its image held open. RomfsError when there is none yet or it is damaged."""
        signature = None
        with contextlib.suppress(FileNotFoundError):
            signature = Signature.of(os.stat(self.folder.base))
        held = self._held
        if held is None or signature != self._held_signature:
            held = open_base(self.folder, self._remembered)
            self._held, self._held_signature = held, signature
        return held

    @contextmanager
    def work_fd(self) -> Iterator[int]:
        """A descriptor of the work tree's root. RomfsError if there is no work tree."""
        try:
            fd = os.open(self.work, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise RomfsError(
                f"{self.info.name} is not mounted and has no edits",
                next_step=f"romfsfs mount {self.info.argument} DIR",
            ) from None
        try:
            yield fd
        finally:
            os.close(fd)

    def _derived(
        self,
        settings: Settings,
        held: BaseImage,
        known: Folders = NOTHING,
        quick: bool = False,
        convert: Convert | None = None,
    ) -> Folders:
        """The shadow tree.

        known: folders of an earlier one that are still valid. quick: as in `Deriver`, and stored
        bytes are not checked (`Admission`)."""

        def check(entry: ShadowEntry) -> ShadowEntry:
            return settings.admission.checked(entry, lambda place: self.open_location(place, held))

        with self.work_fd() as fd:
            deriver = Deriver(
                fd,
                held.base,
                settings.converters.concerns,
                convert or settings.converters.lookup,
                settings.excludes.matches,
                self.digests.digest,
                settings.tree.problems,
                None if quick else check,
                settings.converters.made_for,
                quick,
            )
            found = scan_folders(fd, {folder: each.inside for folder, each in known.items()})
            folders = deriver.derive(found, known)
        if not quick:  # every file was looked at: cached facts about others can go
            entries = flat(folders)
            self.digests.keep(entry.signature for entry in entries)
            settings.admission.keep(entries)
        return folders

    def look(
        self, held: BaseImage | None = None, quick: bool = False, before: Look | None = None,
        touched: Collection[str] = (), convert: Convert | None = None,
    ) -> Look:  # fmt: skip
        """The tree now, and what a commit would make of it.

        held: the base to use throughout, as another process may be committing. quick: sizes only;
        files stored as they are are not read. before: an earlier look, given only if `touched`
        names every path changed since; folders without one are not looked at again. convert:
        supplies results; without it conversions that have not run are 'pending'.
        """
        settings, held = self.settings, held or self.held()
        known: Folders = NOTHING
        if before is not None and before.settings is settings and before.held is held:
            known = untouched(before.folders, touched, quick)
        folders = self._derived(settings, held, known, quick, convert)
        return Look(settings, held, folders, before.plan if before is not None and known else None)

    def status(self, look: Look | None = None) -> Status:
        """What would be committed, now or at the time of `look`."""
        look = look or self.look()
        settings, notes = look.settings, self._notes(look)
        return make_status(settings.info, settings.target, look.shadow, look.plan, notes)

    def page(self, status: Status, held: BaseImage) -> str:
        """The status as a web page (HTML). held: the base that the status was made with."""
        from romfsfs.session.plan.page import page  # rarely needed

        holder = self.folder.mounted_at()
        mountpoint = holder.mountpoint if holder is not None else ""
        place = shell_word(mountpoint) if mountpoint else self.info.argument
        return page(status, held.base, parse_fd(held.fd, "the base's image"), place)

    def _notes(self, look: Look) -> list[Problem]:
        """What is worth saying about the session itself."""
        settings, held, plan = look.settings, look.held, look.plan
        notes = []
        trailing = trailing_problem(plan, held)
        if trailing is not None:
            notes.append(trailing)
        if held.base.fresh and held.base.target_digest is not None:
            message = "started empty (mount --new): the commit replaces all that the target holds"
            notes.append(Problem("new", "", message, INFO))
        if settings.info.slots:
            info, slot = settings.info, settings.info.slot or "A"
            message = f"an openmv-ota camera: {info.slots}; this is slot {slot}, "
            # The erase block at its end holds the slot's status and trailer too.
            if (info.capacity or 0) % (info.erase_size or 1):
                message += "which only openmv-ota's tools write"
            else:
                message += f"and a commit, which breaks its signature, needs --slot {slot} --force"
            notes.append(Problem("slots", "", message, WARNING))
        if self.needs_recovery:
            way_on = f"romfsfs recover {settings.info.argument}"
            message = f"a write was interrupted; finish it with: {way_on}"
            notes.append(Problem("interrupted", "", message, WARNING))
        if settings.tree.board is not None and not settings.problems:
            board, number = parse_board(settings.tree.board)
            is_for = settings.info.board, settings.info.partition
            if is_for != (board.name, is_for[1] if number is None else number):
                message = (
                    f"its board, {settings.tree.board}, is ignored: this session is for "
                    f"{is_for[0]}, partition {is_for[1]}"
                )
                notes.append(Problem("options", OPTIONS_NAME, message, INFO))
        for rule in settings.tree.rules:
            if not any(rule.names(entry.source) for entry in plan.files.values()):
                message = f'no file matches ["{rule.pattern}"]'
                notes.append(Problem("options", OPTIONS_NAME, message, INFO))
        if settings.target.board is None and not settings.problems:
            message = (
                "no board chosen: scripts become portable bytecode, models are stored as they are "
                "(aligned to 16), no size limit is known; choose one with: mount --board BOARD"
            )
            notes.append(Problem("no-board", "", message, INFO))
        return notes + advice(plan, held, settings.info.argument)

    def open_location(
        self, location: Stored, held: BaseImage | None = None
    ) -> tuple[int, int, int]:
        """A descriptor (the caller closes it), the offset and the size of stored bytes.

        held: the base that the location was derived from, if it may have been replaced since.
        OSError when the bytes are gone.
        """
        if isinstance(location, InWork):
            with self.work_fd() as work_fd:
                return open_stored(location, work_fd, None)
        return open_stored(location, None, held or self.held())


def sessions() -> Iterator[Session]:
    """All sessions of this user that can be read."""
    for folder, session in every_session():
        if isinstance(session, Session):
            yield session
        else:
            log.warning("romfsfs: session %s is skipped: %s", folder.path, session.line)


def every_session() -> Iterator[tuple[SessionFolder, Session | RomfsError]]:
    """Each session folder of this user with its session, or why that cannot be read: it is damaged,
    or was written by another version."""
    for folder in all_folders():
        if folder.info.exists():
            try:
                with worded():
                    session = Session.load(folder)
            except RomfsError as error:
                yield folder, error
            else:
                yield folder, session
