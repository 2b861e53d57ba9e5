"""Programs of the desktop that romfsfs starts, what for, and what installs them."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from romfsfs.system.programs import find_on_path, install_command


class Program(NamedTuple):
    """use: what it does (`it USE`). package: its package. names: that by manager, if different."""

    use: str
    package: str
    names: Mapping[str, str] = {}

    @property
    def installing(self) -> str:
        """The command that installs it."""
        return install_command(self.package, self.names)


#: Programs that show windows, the best first.
DIALOGS = ("zenity", "kdialog", "xmessage")
PROGRAMS = {
    "notify-send": Program(
        "notifies of edits that are left when a mount ends", "libnotify",
        {"apt-get": "libnotify-bin", "zypper": "libnotify-tools"},
    ),
    "zenity": Program("shows the progress and result of Commit", "zenity"),
    "xdg-open": Program("opens the mounted folder and the status page", "xdg-utils"),
    "update-mime-database": Program(
        "lets the desktop recognise images by their first bytes", "shared-mime-info"
    ),
    "update-desktop-database": Program("lets a double click open images", "desktop-file-utils"),
}  # fmt: skip


def find_notifier() -> str | None:
    """The path of the program that shows notifications on this system; None if it is missing."""
    return find_on_path("osascript" if sys.platform == "darwin" else "notify-send")


def missing(names: Iterable[str]) -> list[str]:
    """A line for each of these programs that is missing; any of `DIALOGS` stands for zenity."""
    return [
        f"{name} is not installed; it {PROGRAMS[name].use}: {PROGRAMS[name].installing}"
        for name in names
        if not any(map(find_on_path, DIALOGS if name == "zenity" else (name,)))
    ]
