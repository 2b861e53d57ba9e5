"""Notifications of failed conversions, one for files that fail together, and of edits that a mount
leaves; by default where a desktop is running, and never in the way."""

from __future__ import annotations

import contextlib
import logging
import queue
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from jeepney import (
    DBusAddress,
    HeaderFields,
    message_bus,
    new_method_return,
    new_signal,
)
from jeepney.io.blocking import open_dbus_connection
from processes import until

from romfsfs.cli import desktop, doctor, main, mounting
from romfsfs.desktop import programs
from romfsfs.desktop.notify import (
    Notifier,
    desktop_runs,
    notification_command,
    offering_commit,
    offers,
    show,
    tell_not_mounted,
    wording,
    wording_at_end,
)
from romfsfs.image.writer import encode
from romfsfs.session.keep.folder import folder_of


def test_commands() -> None:
    assert notification_command("/usr/bin/notify-send", "-title", "a <b> & c") == [
        "/usr/bin/notify-send", "--app-name=romfsfs", "--icon=dialog-warning",
        "--category=transfer.error", "--", "-title", "a &lt;b&gt; &amp; c",
    ]  # fmt: skip
    assert notification_command("/usr/bin/osascript", 'say "x"', "y <z>") == [
        "/usr/bin/osascript", "-e", "on run argv", "-e",
        "display notification (item 2 of argv) with title (item 1 of argv)", "-e", "end run",
        'say "x"', "y <z>",
    ]  # fmt: skip
    assert offering_commit(["notify-send", "--", "t", "x"], "'my app.img'") == [
        "sh", "-c", f'test "$("$@")" = commit && exec {shlex.quote(sys.executable)} -m romfsfs '
        "desktop --run commit 'my app.img'",
        "sh", "notify-send", "--action=commit=Commit", "--", "t", "x",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("failed", "title", "text"),
    [
        (["a.py"], "a.py could not be converted", "line 1: no\ncam"),
        (["a\nb.py"], "a\\nb.py could not be converted", "line 1: no\ncam"),
        (["0.py", "1.py", "2.py"], "3 files could not be converted", "0.py, 1.py, 2.py\ncam"),
        (
            [f"{number}.py" for number in range(4)],
            "4 files could not be converted", "0.py, 1.py, 2.py and 1 more\ncam",
        ),
    ],
)  # fmt: skip
def test_wording(failed: list[str], title: str, text: str) -> None:
    assert wording("cam", dict.fromkeys(failed, "line 1: no")) == (title, text)


@pytest.mark.parametrize(
    ("changes", "title", "text"),
    [
        (1, "1 change is NOT on the camera", "it is kept: mount again and commit\ncam"),
        (1000, "1,000 changes are NOT on the camera", "they are kept: mount again and commit\ncam"),
    ],
)
def test_wording_at_the_end(changes: int, title: str, text: str) -> None:
    assert wording_at_end("cam", "on the camera", changes) == (title, text)


@pytest.mark.parametrize(
    ("shown", "bus", "runs"),
    [
        ("DISPLAY", "DBUS_SESSION_BUS_ADDRESS", True),
        ("WAYLAND_DISPLAY", "DBUS_SESSION_BUS_ADDRESS", True),
        ("DISPLAY", "XDG_RUNTIME_DIR", True),
        ("DISPLAY", "", False),
        ("", "DBUS_SESSION_BUS_ADDRESS", False),
        ("", "", False),
    ],
)
def test_where_a_desktop_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shown: str, bus: str, runs: bool
) -> None:
    monkeypatch.setattr("romfsfs.desktop.notify.sys.platform", "linux")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    if bus == "XDG_RUNTIME_DIR":
        (tmp_path / "bus").touch()
    for name in {shown, bus} - {"", "XDG_RUNTIME_DIR"}:
        monkeypatch.setenv(name, ":0")
    assert desktop_runs() is runs
    monkeypatch.setattr("romfsfs.desktop.notify.sys.platform", "darwin")
    assert desktop_runs()


@pytest.mark.parametrize(
    ("help", "cgroup", "can"),
    [
        ("--action=NAME", "0::/user.slice/app.service", True),
        ("--urgency", "0::/user.slice/app.service", False),
        ("--action=NAME", "0::/user.slice/romfsfs@ttyACM0.service", False),
        (None, "0::/", False),
        ("--action=NAME", None, False),
    ],
)
def test_where_a_button_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, help: str | None, cgroup: str | None, can: bool
) -> None:
    program = tmp_path / "notifier"
    if help is not None:
        program.write_text(f"#!/bin/sh\n[ $1 = --help ] && echo '  {help}  ...'\n")
        program.chmod(0o755)

    def read(path: Path) -> str:
        assert str(path) == "/proc/self/cgroup"
        if cgroup is None:
            raise FileNotFoundError
        return cgroup

    monkeypatch.setattr(Path, "read_text", read)
    assert offers(str(program)) is can


def test_a_camera_that_is_not_mounted(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Sequence[str]] = []
    monkeypatch.setattr("romfsfs.desktop.notify.show", told.append)
    monkeypatch.setattr("romfsfs.desktop.notify.find_notifier", lambda: None)
    tell_not_mounted("ttyACM0", "it is in use")
    assert told == []
    monkeypatch.setattr("romfsfs.desktop.notify.find_notifier", lambda: "notify-send")
    tell_not_mounted("ttyACM0", "it is\x07 in use")
    title, text = "the camera on ttyACM0 is not mounted", "it is\\x07 in use\nthen plug it in again"
    assert told == [notification_command("notify-send", title, text)]


def test_what_a_notifier_says_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a button where there can be one, and with none where nobody knows the target's name."""
    told: list[tuple[str, Sequence[str]]] = []
    offered = True
    notify = "romfsfs.desktop.notify."
    monkeypatch.setattr(f"{notify}leave", lambda command: told.append(("left", command)))
    monkeypatch.setattr(f"{notify}offers", lambda program: offered)
    plain = notification_command("p", *wording_at_end("cam", "on the camera", 2))

    def ended(argument: str) -> None:
        Notifier(
            "cam", argument=argument, program="p", run=lambda c: told.append(("run", c))
        ).ended(2)

    ended("camera")
    ended("")
    offered = False
    ended("camera")
    assert told == [("left", offering_commit(plain, "camera")), ("run", plain), ("run", plain)]


def test_without_a_notifier_nothing_is_started(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("romfsfs.desktop.notify.find_notifier", lambda: None)
    before = threading.enumerate()
    notifier = Notifier("cam", run=lambda command: pytest.fail("run"), gather=0.0)
    assert caplog.messages == ["no notifications: notify-send is not installed"]
    notifier.failed("a.py", "no")
    notifier.ended(1)
    notifier.close()
    assert set(threading.enumerate()) <= {*before}


def test_files_that_fail_together_are_one_notification(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[Sequence[str]] = []
    told, done = threading.Event(), threading.Event()

    class Timer(threading.Timer):
        """Its time begins when all is told, however busy the machine."""

        def run(self) -> None:
            assert told.wait(60)
            super().run()

    monkeypatch.setattr(
        "romfsfs.desktop.notify.threading", SimpleNamespace(Timer=Timer, Lock=threading.Lock)
    )

    def run(command: Sequence[str]) -> None:
        shown.append(command)
        done.set()

    notifier = Notifier("cam", program="notify-send", run=run, gather=0.01)
    for name in "abc":
        notifier.failed(f"{name}.py", "no")
    told.set()
    assert done.wait(60)
    assert len(shown) == 1
    assert "3 files" in shown[0][-2]
    told.clear()
    notifier.failed("d.py", "no")
    notifier.close()
    assert [command[-2] for command in shown[1:]] == ["d.py could not be converted"]
    told.set()
    notifier.close()
    assert len(shown) == 2


def test_a_notifier_that_fails_is_a_line_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broken = tmp_path / "notify-send"
    broken.write_text("#!/bin/sh\necho no display >&2\nexit 1\n")
    broken.chmod(0o755)
    with caplog.at_level(logging.WARNING):
        show([str(broken)])
        show([str(tmp_path / "missing")])
    assert "no display" in caplog.text
    assert "missing" in caplog.text


@pytest.fixture
def said(tmp_path: Path) -> Path:
    """What the last notification said."""
    said = tmp_path / "said"
    notifier = tmp_path / "programs" / "notify-send"
    notifier.write_text(
        # As one before libnotify 0.8, which knows no --action.
        f'#!/bin/sh\n[ "$1" != --help ] || exit 0\n'
        f"printf '%s\\n' \"$@\" >> '{said}.new'; mv '{said}.new' '{said}'\n"
    )
    notifier.chmod(0o755)
    (tmp_path / "app.img").write_bytes(encode({"main.py": b"pass\n"}))
    return said


@pytest.fixture
def cam(tmp_path: Path, fuse_device: None) -> Path:
    cam = tmp_path / "cam"
    cam.mkdir()
    return cam


@pytest.fixture
def on_desktop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WAYLAND_DISPLAY", "wayland-0")
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", "unix:path=/nowhere")


@pytest.mark.usefixtures("on_desktop")
def test_edits_that_a_mount_leaves_are_notified_where_a_desktop_runs(
    tmp_path: Path, said: Path, cam: Path
) -> None:
    image = str(tmp_path / "app.img")
    assert main(["mount", image, str(cam)]) == 0
    assert main(["umount", str(cam)]) == 0
    assert not said.exists(), "nothing was edited"
    assert main(["mount", image, str(cam)]) == 0
    (cam / "data.bin").write_bytes(b"x")
    subprocess.run(["umount", cam], check=True)  # as a file manager that ejects it
    until(said.exists)
    assert said.read_text().splitlines()[-3:] == [
        "1 change is NOT in the image file", "it is kept: mount again and commit", image,
    ]  # fmt: skip
    said.unlink()
    until(lambda: folder_of(image).mounted_at() is None)  # its process has ended
    assert main(["mount", image, str(cam)]) == 0
    assert main(["umount", "--discard", str(cam)]) == 0
    assert not said.exists(), "what was thrown away is not kept"


@pytest.mark.usefixtures("on_desktop")
def test_an_unmount_that_fails_drops_nothing(tmp_path: Path, said: Path, cam: Path) -> None:
    assert main(["mount", str(tmp_path / "app.img"), str(cam)]) == 0
    (cam / "data.bin").write_bytes(b"x")
    with (cam / "data.bin").open():
        assert main(["umount", "--discard", str(cam)]) == 1
    assert main(["umount", str(cam)]) == 0
    assert "1 change is NOT" in said.read_text()


@pytest.mark.parametrize("words", [["--no-notify"], ["-o", "no_notify"]])
@pytest.mark.usefixtures("on_desktop")
def test_who_wants_none_gets_none(tmp_path: Path, said: Path, cam: Path, words: list[str]) -> None:
    assert main(["mount", str(tmp_path / "app.img"), str(cam), *words]) == 0
    (cam / "data.bin").write_bytes(b"x")
    assert main(["umount", str(cam)]) == 0
    assert not said.exists()


def test_without_a_desktop_there_are_none(tmp_path: Path, said: Path, cam: Path) -> None:
    assert main(["mount", str(tmp_path / "app.img"), str(cam)]) == 0
    (cam / "data.bin").write_bytes(b"x")
    assert main(["umount", str(cam)]) == 0
    assert not said.exists()


def test_missing_programs_are_named(
    tmp_path: Path, cam: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "app.img").write_bytes(encode({"main.py": b"pass\n"}))
    monkeypatch.setattr(mounting, "find_notifier", lambda: None)
    for module in (programs, desktop):
        monkeypatch.setattr(module, "find_on_path", lambda name: None)
    assert main(["mount", str(tmp_path / "app.img"), str(cam), "--notify"]) == 0
    assert main(["umount", str(cam)]) == 0
    said = capsys.readouterr().err
    assert "zenity is not installed" in said
    assert "notify-send is not installed" in said
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert main(["desktop", "--install"]) == 0
    said = capsys.readouterr().err
    for name in programs.PROGRAMS:
        assert f"{name} is not installed" in said
    assert set(programs.PROGRAMS) <= {check.name for check in doctor.checks()}


def test_a_broken_script_copied_into_the_mount_is_notified(
    tmp_path: Path, said: Path, cam: Path
) -> None:
    assert main(["mount", str(tmp_path / "app.img"), str(cam), "--notify"]) == 0
    try:
        (cam / "bad.py").write_text("def (:\n")
        until(said.exists)
    finally:
        assert main(["umount", "--discard", str(cam)]) == 0
    assert "bad.py could not be converted" in said.read_text()


class Notifications(threading.Thread):
    """A notification service on a bus of its own, which writes down what it is asked for."""

    def __init__(self, capabilities: list[str]) -> None:
        super().__init__(daemon=True)
        self.bus = subprocess.Popen(
            ["dbus-daemon", "--session", "--print-address", "--nofork", "--nopidfile"],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self.bus.stdout is not None
        self.address = self.bus.stdout.readline().strip()
        self.shown: queue.Queue[tuple[Any, ...]] = queue.Queue()
        self._capabilities = capabilities
        self._connection = open_dbus_connection(self.address)
        request = message_bus.RequestName("org.freedesktop.Notifications")
        self._connection.send_and_get_reply(request)
        self.start()

    def run(self) -> None:
        answers = {
            "GetCapabilities": ("as", (self._capabilities,)),
            "GetServerInformation": ("ssss", ("test", "romfsfs", "1", "1.2")),
            "Notify": ("u", (1,)),
        }
        with contextlib.suppress(OSError, EOFError):  # the bus has ended
            while True:
                asked = self._connection.receive()
                method = asked.header.fields.get(HeaderFields.member)
                if method in answers:
                    self._connection.send(new_method_return(asked, *answers[method]))
                if method == "Notify":
                    self.shown.put(asked.body)

    def signal(self, name: str, signature: str, *body: object) -> None:
        place = DBusAddress("/org/freedesktop/Notifications", None, "org.freedesktop.Notifications")
        self._connection.send(new_signal(place, name, signature, body))

    def close(self) -> None:
        self.bus.terminate()
        self.bus.wait()
        assert self.bus.stdout is not None
        self.bus.stdout.close()
        self.join()
        self._connection.close()


@pytest.fixture(params=[["actions", "body", "body-markup"], ["body"]], ids=["buttons", "plain"])
def service(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    service = Notifications(request.param)
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", service.address)
    monkeypatch.setenv("DISPLAY", ":0")
    yield service
    service.close()


@pytest.mark.program("dbus-daemon", "notify-send")
def test_a_click_commits_what_a_mount_left(
    tmp_path: Path, cam: Path, service: Notifications
) -> None:
    """With the real notify-send. Where the service has no buttons it says what to do."""
    image = tmp_path / "my app.img"
    image.write_bytes(encode({"main.py": b"pass\n"}))
    zenity = tmp_path / "programs" / "zenity"
    zenity.write_text(f"#!/bin/sh\ncat >> '{tmp_path}/progress'\n"
                      f"printf '%s\\n' \"$@\" >> '{tmp_path}/windows'\n")  # fmt: skip
    zenity.chmod(0o755)
    assert main(["mount", str(image), str(cam)]) == 0
    (cam / "data.bin").write_bytes(b"x")
    subprocess.run(["umount", cam], check=True)
    shown = service.shown.get(timeout=60)
    assert shown[0] == "romfsfs"
    assert shown[3:6] == (
        "1 change is NOT in the image file", f"it is kept: mount again and commit\n{image}",
        ["commit", "Commit"] if "actions" in service._capabilities else [],
    )  # fmt: skip
    if "actions" in service._capabilities:
        service.signal("ActionInvoked", "us", 1, "commit")
    service.signal("NotificationClosed", "uu", 1, 2)
    if "actions" in service._capabilities:
        windows = tmp_path / "windows"
        until(lambda: windows.exists() and "verified" in windows.read_text())
        assert main(["cat", str(image), "data.bin"]) == 0
