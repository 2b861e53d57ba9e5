"""Thunar, and who uses it: each key is pressed when it can be taken, and waited for."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote

from desktop import Desktop, Widget

_COPIED = "x-special/gnome-copied-files"  # "copy" or "cut", then a URI a line


def version() -> tuple[int, ...]:
    """Since 4.18 it can undo."""
    said = subprocess.run(["thunar", "--version"], capture_output=True, text=True, check=True)
    found = re.search(r"thunar (\d+)\.(\d+)", said.stdout)
    assert found is not None, said.stdout
    return tuple(map(int, found.groups()))


class Thunar:
    """One window of it. folder: what it shows."""

    def __init__(self, desktop: Desktop, folder: Path) -> None:
        self.desktop = desktop
        self.folder = folder
        desktop.start("thunar", str(folder))
        self.wait_for_folder()

    def wait_for_folder(self) -> None:
        """Until its window has the keys and has read the folder."""
        self.desktop.wait_active(f"{self.folder.name} - Thunar")
        self.desktop.wait_for("statusbar", ".")

    def go(self, folder: Path) -> None:
        if folder == self.folder:
            return  # the keys would stay with the line for the path
        self.folder = folder
        title = f"{folder.name} - Thunar"

        def went() -> bool:
            self.desktop.key("ctrl+l")
            self.desktop.type(str(folder))
            self.desktop.key("Return")
            return _soon(lambda: self.desktop.active == title)

        self.desktop.until(went)
        self.wait_for_folder()

    def go_by_device(self, folder: Path) -> None:
        """By its name at the side, among the devices."""
        title = f"{folder.name} - Thunar"
        self.folder = folder

        def click() -> None:
            self.desktop.click(self.desktop.wait_for("table cell", f"^{folder.name}$"))

        self.do(click, lambda: self.desktop.active == title)
        self.wait_for_folder()

    def do(self, action: Callable[[], None], done: Callable[[], object]) -> None:
        """Act until it is done: a key or click may be lost while windows change."""

        def acted() -> bool:
            action()
            return _soon(done, 10)

        self.desktop.until(acted)

    def press_key(self, key: str, done: Callable[[], object]) -> None:
        self.do(lambda: self.desktop.key(key), done)

    def status(self, pattern: str) -> None:
        """Wait for this in the status bar, with nothing selected."""
        self.desktop.until(lambda: self._says(pattern))

    def reload(self, pattern: str) -> None:
        """Read the folder again until the status bar says this, with nothing selected."""

        def shown() -> bool:
            self.desktop.key("F5")
            return _soon(lambda: self._says(pattern))

        self.desktop.until(shown)

    def _says(self, pattern: str) -> bool:
        self.desktop.key("Escape")  # it selects what is next to something removed, later
        return self.desktop.find("statusbar", pattern) is not None

    def open_dialog(self, key: str, title: str) -> None:
        """A key that opens a dialog; pressed again if it was lost, as a person would."""

        def opened() -> bool:
            self.desktop.key(key)
            return _soon(lambda: self.desktop.active == title)

        self.desktop.until(opened)

    def answer(self, text: str = "") -> None:
        """Fill in the dialog that is open, Enter, and back to the folder."""
        if text:
            self.desktop.key("ctrl+a")
            self.desktop.type(text)
        self.desktop.key("Return")
        self.wait_for_folder()

    def press(self, button: str) -> None:
        """A button of the dialog that is open."""
        self.desktop.click(self.desktop.wait_for("button", f"^{button}$"))

    def copy(self, name: str) -> None:
        """Select this one file or folder and press Ctrl-C; the clipboard tells that it worked.

        Thunar 4.18 once did not show, for a minute, what its own undo had brought back from the
        trash: then the folder is read again, as a person would.
        """

        def copied() -> bool:
            self.open_dialog("ctrl+s", "Select by Pattern")
            self.answer(name)
            self.desktop.key("ctrl+c")
            wanted = f"copy\nfile://{self.folder / name}"
            done = _soon(lambda: unquote(self.desktop.clipboard(_COPIED)) == wanted)
            if not done:
                self.desktop.key("ctrl+r")
            return done

        self.desktop.until(copied)

    select = copy

    def rename(self, name: str, new: str) -> None:
        self.select(name)
        self.open_dialog("F2", f'Rename "{name}"')
        self.answer(new)

    def make_folder(self, name: str) -> None:
        self.open_dialog("ctrl+shift+n", "Create New Folder")
        self.answer(name)

    def open_menu(self, entry: str, x: int = 500, y: int = 420) -> Widget:
        """Open the menu of the folder itself, where nothing lies; this entry of it."""
        desktop, name = self.desktop, f"^{entry}$"
        opened = lambda: desktop.find("menu item", name)  # noqa: E731
        self.do(lambda: desktop.click_at(x, y, button=3), opened)
        return desktop.wait_for("menu item", name)

    def choose(self, entry: str, done: Callable[[], object]) -> None:
        self.desktop.click(self.open_menu(entry))
        self.desktop.until(done)


def _soon(condition: Callable[[], object], seconds: float = 3) -> bool:
    """Whether it comes true within the time a person would give it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return False
