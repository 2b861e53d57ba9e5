"""A request to mount, and what the process that serves the mount opens for it."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

from romfsfs.devices.open import is_camera
from romfsfs.errors import UsageError
from romfsfs.session.connect import device, session_device
from romfsfs.session.keep.locks import MountedAt
from romfsfs.session.opening import Entered, enter
from romfsfs.session.plan.status import Status
from romfsfs.session.rebase.read import OpenOptions
from romfsfs.session.service import Notifier, SessionHost
from romfsfs.system.errors import worded
from romfsfs.system.files import Progress
from romfsfs.system.mount_table import real_place
from romfsfs.system.user_folders import cache_dir, state_dir


def _is_word(source: str) -> bool:
    return source == "camera" or source.startswith(("camera:", "dfu:"))


class MountRequest:
    """What to mount; `open_host` opens it in the daemon, after the fork.

    notifier: makes the notifier of: the target's title, where commits go (`on the camera`), and
    how a command names the target.
    """

    def __init__(
        self, source: str, directory: Path, chosen: OpenOptions, read_only: bool,
        notifier: Callable[[str, str, str], Notifier] | None = None,
    ) -> None:  # fmt: skip
        # Absolute, as the daemon's folder is `/`; the file need not exist (--new creates it).
        named = is_camera(source) and not os.path.exists(source)
        self.source = source if named or _is_word(source) else os.path.abspath(source)
        self.mountpoint = real_place(directory)
        self.chosen = chosen
        self.read_only = read_only
        self._notifier = notifier
        self._host: SessionHost | None = None
        self._entered: Entered | None = None
        self._mounted = False
        #: The status of edits kept from before, set by `open_host` (see `make_ready`).
        self.resumed: Status | None = None
        self.said: list[str] = []

    def open_host(self, progress: Progress) -> SessionHost:
        """Open the device, the session and its work tree; the session stays locked for the mount.

        Raises as `opening.enter` does; RomfsError in place of OSError."""
        with worded():
            return self._open_host(progress)

    def _open_host(self, progress: Progress) -> SessionHost:
        self._refuse_to_hide()
        chosen = self.chosen
        with device(self.source, chosen.board, chosen.partition, chosen.slot) as opened:
            self._entered = enter(opened, self.source, chosen, progress)
        session, self.resumed = self._entered.session, self._entered.resumed
        notifier = None
        if self._notifier is not None:
            place = "in the image file" if session.info.is_file else "on the camera"
            notifier = self._notifier(session.info.title, place, session.info.argument)
        target = partial(session_device, session, "commit")
        host = SessionHost(session, self.read_only, target, notifier)
        host.start(self.resumed is not None)
        self._host = host
        return host

    def say_where(self) -> list[str]:
        """Record the mountpoint in the lock; the messages for the user who mounts.

        Only once the kernel has mounted: before, other processes would not find the mount there
        and take it for one that was lazily unmounted."""
        if self._entered is not None:
            self._entered.lock.write(MountedAt(os.getpid(), self.mountpoint))
        self._mounted = True
        if self._host is not None:
            self._host.tells_end = True
        return self.said

    def give_up(self) -> None:
        """Leave the session as it was, unless it has been mounted; the host is closed. OSError."""
        if self._entered is not None and not self._mounted:
            self._entered.give_up()

    def _refuse_to_hide(self) -> None:
        """UsageError if the mount would hide its source or state, as it can with `-o nonempty`."""
        needed = [str(state_dir()), str(cache_dir())]
        if not is_camera(self.source) and not _is_word(self.source):
            needed.append(self.source)
        for path in needed:
            if os.path.realpath(path).startswith(self.mountpoint.rstrip("/") + "/"):
                raise UsageError(
                    f"the mount would hide {path}, which it needs",
                    where=self.mountpoint,
                    next_step="choose an empty folder",
                )
