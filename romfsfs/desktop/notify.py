"""Desktop notifications: failed conversions, edits that a mount leaves, cameras not mounted.

A user who copies a broken script with a file manager, or ejects the mount there, sees no terminal.
A notification that cannot be shown is only logged.
"""

from __future__ import annotations

import logging
import os
import shlex
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from romfsfs.desktop.programs import find_notifier
from romfsfs.errors import printable

log = logging.getLogger(__name__)

#: Files that are copied together fail together: failures within this time share a notification.
GATHER_SECONDS = 1.0
#: notify-send waits for a service, which may have to be started first (over two seconds on a busy
#: computer), and may never answer; an unmount does not wait longer than this for it.
_PATIENCE_SECONDS = 10.0
_SHOWN = 3

#: The text is passed as arguments, so that nothing in it is taken for AppleScript.
_APPLESCRIPT = (
    "on run argv",
    "display notification (item 2 of argv) with title (item 1 of argv)",
    "end run",
)


def notification_command(program: str, title: str, text: str) -> list[str]:
    """The argv that shows a notification. program: the path of notify-send or osascript."""
    if program.endswith("osascript"):
        script = [word for line in _APPLESCRIPT for word in ("-e", line)]
        return [program, *script, title, text]
    # The text of a desktop notification is markup; the title is not.
    marked = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return [
        program, "--app-name=romfsfs", "--icon=dialog-warning", "--category=transfer.error",
        "--", title, marked,
    ]  # fmt: skip


def wording(name: str, failed: Mapping[str, str]) -> tuple[str, str]:
    """Title and text for files that could not be converted (path: reason) on the target `name`."""
    name = printable(name)
    if len(failed) == 1:
        ((path, message),) = failed.items()
        return f"{printable(path)} could not be converted", f"{printable(message)}\n{name}"
    shown = ", ".join(map(printable, list(failed)[:_SHOWN]))
    more = f" and {len(failed) - _SHOWN} more" if len(failed) > _SHOWN else ""
    return f"{len(failed)} files could not be converted", f"{shown}{more}\n{name}"


def wording_at_end(name: str, place: str, changes: int) -> tuple[str, str]:
    """Title and text for a mount of `name` that ended with so many changed files not committed.

    place: where the changes are not, e.g. `on the camera`."""
    are = "1 change is" if changes == 1 else f"{changes:,} changes are"
    kept = "it is" if changes == 1 else "they are"
    return f"{are} NOT {place}", f"{kept} kept: mount again and commit\n{printable(name)}"


def desktop_runs() -> bool:
    """Whether this process belongs to a desktop session that can be sent notifications."""
    if sys.platform == "darwin":
        return True
    shown = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    bus = os.environ.get("DBUS_SESSION_BUS_ADDRESS") or (
        runtime is not None and Path(runtime, "bus").exists()
    )
    return bool(shown and bus)


def offers(program: str) -> bool:
    """Whether the notifier can show a button that works: notify-send of libnotify 0.8 and later,
    but not in a unit of `automount`: systemd ends what waits for the click with the mount."""
    try:
        if "/romfsfs@" in Path("/proc/self/cgroup").read_text():
            return False
        done = subprocess.run(
            [program, "--help"], stdin=subprocess.DEVNULL, capture_output=True,
            timeout=_PATIENCE_SECONDS, check=False, cwd="/",
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return False
    return b"--action" in done.stdout


def offering_commit(command: Sequence[str], argument: str) -> list[str]:
    """The argv that shows `command`'s notification with a button, and commits if it is pressed.

    argument: the target, as a shell word. A shell waits for the button: the notification may stand
    for days, and Python would take 30 MB.
    """
    romfsfs = f"{shlex.quote(sys.executable)} -m romfsfs"
    script = f'test "$("$@")" = commit && exec {romfsfs} desktop --run commit {argument}'
    button = "--action=commit=Commit"  # NAME=TEXT; implies --wait, and the name is printed
    return ["sh", "-c", script, "sh", command[0], button, *command[1:]]


def leave(command: Sequence[str]) -> None:
    """Start a notifier that outlives this process. Never raises: errors are logged."""
    nowhere = subprocess.DEVNULL
    try:
        # In a session of its own: this process's session and group end with the mount.
        subprocess.Popen(command, stdin=nowhere, stdout=nowhere, cwd="/", start_new_session=True)
    except OSError as error:
        log.warning("no notification: %s", error)


def show(command: Sequence[str]) -> None:
    """Run a notifier, for `_PATIENCE_SECONDS` at most. Never raises: errors are logged."""
    try:
        subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_PATIENCE_SECONDS,
            check=True, cwd="/",
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError) as error:
        said = (getattr(error, "stderr", None) or b"").decode("utf-8", "replace").strip()
        log.warning("no notification: %s %s", error, said)


def tell_not_mounted(port: str, why: str) -> None:
    """Notify that the camera on `port` was not mounted. Waits as `show`; never raises."""
    if (program := find_notifier()) is not None:
        text = f"{printable(why)}\nthen plug it in again"
        show(notification_command(program, f"the camera on {port} is not mounted", text))


class Notifier:
    """Shows failures within `gather` seconds as one notification. Any thread; never raises.

    argument: the target as a shell word, for a button that commits what a mount leaves; "": none.
    Implements `romfsfs.session.service.Notifier`.
    """

    def __init__(
        self, name: str, place: str = "on the camera", argument: str = "",
        program: str | None = None, run: Callable[[Sequence[str]], None] = show,
        gather: float = GATHER_SECONDS,
    ) -> None:  # fmt: skip
        self._name = name
        self._place = place
        self._argument = argument
        self._program = program or find_notifier()
        self._run = run
        self._gather = gather
        self._mutex = threading.Lock()
        self._failed: dict[str, str] = {}
        self._timer: threading.Timer | None = None
        if self._program is None:
            log.warning("no notifications: notify-send is not installed")

    def failed(self, path: str, message: str) -> None:
        """A conversion failed."""
        if self._program is None:
            return
        with self._mutex:
            self._failed[path] = message
            if self._timer is None:
                self._timer = threading.Timer(self._gather, self._send)
                self._timer.daemon = True
                self._timer.start()

    def ended(self, changes: int) -> None:
        """The mount has ended with this many files changed and not committed."""
        if self._program is None:
            return
        words = wording_at_end(self._name, self._place, changes)
        command = notification_command(self._program, *words)
        if self._argument and offers(self._program):
            leave(offering_commit(command, self._argument))
        else:
            self._run(command)

    def close(self) -> None:
        """Show at once the failures that are not shown yet."""
        with self._mutex:
            timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
            self._send()

    def _send(self) -> None:
        with self._mutex:
            failed, self._failed = self._failed, {}
            self._timer = None
        if failed and self._program is not None:
            self._run(notification_command(self._program, *wording(self._name, failed)))
