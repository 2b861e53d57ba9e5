"""A desktop of its own for a test: X server, window manager, message buses; keys and eyes.

Keys and clicks are xdotool's. What a window shows is read where screen readers read it (AT-SPI),
so that tests wait for words and not for time. Pictures are of the X server's own memory.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import struct
import subprocess
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from jeepney import DBusAddress, MessageType, new_method_call
from jeepney.io.blocking import DBusConnection, open_dbus_connection
from processes import SECONDS

_ACCESSIBLE = "org.a11y.atspi.Accessible"
_COMPONENT = "org.a11y.atspi.Component"
_VALUE = "org.a11y.atspi.Value"
_REGISTRY = ("org.a11y.atspi.Registry", "/org/a11y/atspi/accessible/root")


#: what is not looked into for something else
_LEAVES = ("tool bar", "menu bar", "scroll bar", "icon", "label", "button", "statusbar")

_Place = tuple[str, str]  # bus name and path


class Widget(NamedTuple):
    """Something on the screen. role: AT-SPI's word for its kind."""

    role: str
    name: str
    place: _Place


class Crashed(Exception):
    """A program of the desktop died of a signal, by its own fault."""


class Desktop:
    """Started by making it, ended by `close`. home: the user's; without one it is new.

    The folder is in /tmp: sockets have short paths, and GLib trashes nothing below /dev.
    """

    def __init__(self, size: tuple[int, int] = (900, 600), home: Path | None = None) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="romfsfs-desk-", dir="/tmp"))
        self.home = home or self.folder / "home"
        self.home.mkdir(exist_ok=True)
        self._screen = self.folder / "screen"
        self._screen.mkdir()
        (self.folder / "run").mkdir(mode=0o700)
        self.env = {
            **os.environ, "HOME": str(self.home), "XDG_RUNTIME_DIR": str(self.folder / "run"),
            "XDG_CONFIG_HOME": str(self.home / ".config"), "LC_ALL": "C.UTF-8",
            "XDG_DATA_HOME": str(self.home / ".local/share"), "GTK_A11Y": "atspi",
            "XDG_CACHE_HOME": str(self.home / ".cache"), "GDK_BACKEND": "x11",
        }  # fmt: skip
        self.env.pop("WAYLAND_DISPLAY", None)
        self._running: list[subprocess.Popen[bytes]] = []
        self._words: DBusConnection | None = None
        try:
            self._start_all(size)
        except BaseException:
            self.close()
            raise

    def _start_all(self, size: tuple[int, int]) -> None:
        # A number of its own: two servers that look for a free one at once may both take it.
        number = f":{1000 + os.getpid() % 50_000}"
        reading, writing = os.pipe()
        with os.fdopen(reading) as display:
            try:
                # It must not start afresh when its first client ends: others would be cut off.
                self.start(
                    "Xvfb", number, "-displayfd", str(writing), "-fbdir", str(self._screen),
                    "-screen", "0", f"{size[0]}x{size[1]}x24", "-nolisten", "tcp", "-noreset",
                    pass_fds=[writing],
                )  # fmt: skip
            finally:
                os.close(writing)
            assert display.readline(), self.log()
        self.env["DISPLAY"] = number
        bus = self.start("dbus-daemon", "--session", "--print-address", "--nofork", "--nopidfile",
                         stdout=subprocess.PIPE)  # fmt: skip
        assert bus.stdout is not None
        self.env["DBUS_SESSION_BUS_ADDRESS"] = bus.stdout.readline().decode().strip()
        self.start("xfwm4", "--compositor=off")
        self.until(lambda: self._xdotool("get_desktop", check=False).returncode == 0)
        session = open_dbus_connection(self.env["DBUS_SESSION_BUS_ADDRESS"])
        try:
            place = ("org.a11y.Bus", "/org/a11y/bus")
            address = _call(session, place, "org.a11y.Bus", "GetAddress")
        finally:
            session.close()
        self._words = open_dbus_connection(address)

    def start(self, *command: str, **options: Any) -> subprocess.Popen[bytes]:
        """A program of this desktop; what it complains of is in `log`."""
        with open(self.folder / "log", "ab") as log:
            options = {"stdin": subprocess.DEVNULL, "stdout": log, **options}
            self._running.append(subprocess.Popen(command, env=self.env, stderr=log, **options))
        return self._running[-1]

    def close(self) -> None:
        """End what was started, last first; what the buses started goes with its bus."""
        if self._words is not None:
            self._words.close()
        for each in reversed(self._running):
            each.terminate()
            try:
                each.wait(SECONDS)
            except subprocess.TimeoutExpired:
                each.kill()
                each.wait()
            if each.stdout is not None:
                each.stdout.close()
        # What the buses started ends by itself, and writes settings while it does.
        deadline = time.monotonic() + 10
        while self._is_used() and time.monotonic() < deadline:
            time.sleep(0.05)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _is_used(self) -> bool:
        """Whether a process has its home here."""
        for environment in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):
                if os.fsencode(self.folder) in environment.read_bytes():
                    return True
        return False

    def until(self, condition: Callable[[], object], seconds: float = SECONDS) -> None:
        """Wait for it. Crashed where a program dies of a signal meanwhile."""
        deadline = time.monotonic() + seconds
        while not condition():
            for each in self._running:
                if (each.poll() or 0) < 0:
                    raise Crashed(f"{each.args} ended with {each.returncode}\n{self.log()}")
            assert time.monotonic() < deadline, f"it never happened; {self._state()}"
            time.sleep(0.02)

    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")[-3000:]

    def _state(self) -> str:
        """What a person would see, for who reads a failed test."""
        picture = Path(tempfile.gettempdir()) / f"romfsfs-desktop-{os.getpid()}.png"
        picture.write_bytes(self.picture())
        shown = []
        if self._words is not None:
            shown = [f"{widget.role} {widget.name!r}" for widget in self.widgets() if widget.name]
        return f"active: {self.active!r}, see {picture}\n{shown}\n{self.log()}"

    # -- hands

    def _xdotool(self, *words: object, check: bool = True) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["xdotool", *map(str, words)], env=self.env, check=check, capture_output=True,
            text=True, timeout=SECONDS,
        )  # fmt: skip

    def key(self, *names: str) -> None:
        self._xdotool("key", *names)

    def type(self, text: str) -> None:
        self._xdotool("type", text)

    def click(self, widget: Widget, button: int = 1) -> None:
        """In the middle of something shown."""
        self.click_at(*self.middle(widget), button)

    def double_click(self, widget: Widget) -> None:
        self._xdotool("mousemove", *self.middle(widget), "click", "--repeat", 2, "--delay", 90, 1)

    def click_at(self, x: int, y: int, button: int = 1) -> None:
        self._xdotool("mousemove", x, y, "click", button)

    def point(self, place: tuple[int, int]) -> None:
        self._xdotool("mousemove", *place)

    def resize(self, width: int, height: int) -> None:
        """The window that gets the keys."""
        self._xdotool("getactivewindow", "windowsize", "--sync", width, height)

    def middle(self, widget: Widget) -> tuple[int, int]:
        assert self._words is not None
        x, y, width, height = _call(self._words, widget.place, _COMPONENT, "GetExtents", "u", (0,))
        return x + width // 2, y + height // 2

    def value(self, widget: Widget) -> float:
        """Of a bar that shows how far something is."""
        assert self._words is not None
        get = ("org.freedesktop.DBus.Properties", "Get", "ss")
        value = _call(self._words, widget.place, *get, (_VALUE, "CurrentValue"))[1]
        return float(value)

    def clipboard(self, kind: str) -> str:
        """What was copied, as this kind of data; empty: nothing."""
        done = subprocess.run(
            ["xclip", "-selection", "clipboard", "-o", "-t", kind], env=self.env, check=False,
            capture_output=True, text=True, timeout=SECONDS,
        )  # fmt: skip
        return done.stdout

    # -- eyes

    @property
    def active(self) -> str:
        """The title of the window that gets the keys."""
        done = self._xdotool("getactivewindow", "getwindowname", check=False)
        return done.stdout.strip().replace("\xa0", " ")

    def wait_active(self, title: str) -> None:
        def active() -> bool:
            if self.active == "":  # a window may come before the manager that would let it
                search = ("search", "--onlyvisible", "--name", f"^{re.escape(title)}$")
                self._xdotool(*search, "windowactivate", check=False)
            return self.active == title

        self.until(active)

    def widgets(self, role: str = "") -> Iterator[Widget]:
        """What the programs show, the newest window first; of this role, or all."""
        for application in self._children(_REGISTRY):
            for window in reversed(self._children(application)):
                yield from self._below(window, role)

    def _below(self, place: _Place, role: str) -> Iterator[Widget]:
        found = self._ask(place, _ACCESSIBLE, "GetRoleName")
        found = "button" if found == "push button" else found  # AT-SPI before 2.55
        if not role or found == role:
            name = self._ask(place, "org.freedesktop.DBus.Properties", "Get", "ss",
                             (_ACCESSIBLE, "Name"))  # fmt: skip
            if name is not None:
                yield Widget(found, name[1].replace("\xa0", " "), place)
        if found not in _LEAVES or not role:
            for child in self._children(place):
                yield from self._below(child, role)

    def _children(self, place: _Place) -> list[_Place]:
        return [(bus, path) for bus, path in self._ask(place, _ACCESSIBLE, "GetChildren") or ()]

    def _ask(self, place: _Place, *call: Any) -> Any:
        """None where it is gone."""
        assert self._words is not None
        try:
            return _call(self._words, place, *call)
        except LookupError:
            return None

    def find(self, role: str, pattern: str) -> Widget | None:
        """The first of this role whose name matches."""
        found = (widget for widget in self.widgets(role) if re.search(pattern, widget.name))
        return next(found, None)

    def wait_for(self, role: str, pattern: str) -> Widget:
        found: list[Widget] = []

        def there() -> bool:
            widget = self.find(role, pattern)
            found.extend([widget] if widget else [])
            return bool(found)

        self.until(there)
        return found[-1]

    def picture(self) -> bytes:
        """A PNG of the screen."""
        return _png(next(self._screen.iterdir()).read_bytes())


def _call(
    connection: DBusConnection, place: _Place, interface: str, method: str,
    signature: str | None = None, body: tuple[Any, ...] = (),
) -> Any:  # fmt: skip
    """A D-Bus call's answer. LookupError where there is nobody, or nothing, of that name."""
    address = DBusAddress(place[1], place[0], interface)
    message = new_method_call(address, method, signature, body)
    reply = connection.send_and_get_reply(message, timeout=SECONDS)
    if reply.header.message_type is MessageType.error:
        raise LookupError(f"{interface}.{method} of {place}: {reply.body}")
    return reply.body[0]


def _png(xwd: bytes) -> bytes:
    """An X window dump (<X11/XWDFile.h>) of 32 bits a pixel as a PNG with a palette if it can."""
    header = struct.unpack(">25I", xwd[:100])
    start = header[0] + 12 * header[19]  # the header and a table of colours
    width, height, stride = header[4], header[5], header[12]
    rows = [memoryview(xwd)[start + y * stride :][: width * 4] for y in range(height)]
    pixels = [[bytes(row[x : x + 3]) for x in range(0, width * 4, 4)] for row in rows]
    colours = {colour: 0 for row in pixels for colour in row}
    if len(colours) <= 256:
        kind, palette = 3, b"".join(colour[::-1] for colour in colours)
        numbers = {colour: bytes([number]) for number, colour in enumerate(colours)}
    else:
        kind, palette = 2, b""
        numbers = {colour: colour[::-1] for colour in colours}
    lines = b"".join(b"\0" + b"".join(map(numbers.__getitem__, row)) for row in pixels)

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    return b"".join([
        b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", struct.pack(">2I5B", width, height, 8, kind, 0, 0, 0)),
        chunk(b"PLTE", palette) if palette else b"", chunk(b"IDAT", zlib.compress(lines, 9)),
        chunk(b"IEND", b""),
    ])  # fmt: skip
