"""Notifications of failed conversions, one for files that fail together, and of edits that a mount
leaves; by default where a desktop is running, and never in the way."""

from __future__ import annotations

import contextlib
import logging
import queue
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
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

from romfsfs.cli import desktop, doctor, main, mounting
from romfsfs.desktop import programs
from romfsfs.desktop.notify import Notifier, notification_command, show, wording
from romfsfs.image.writer import encode


def test_commands() -> None:
    linux = notification_command("/usr/bin/notify-send", "-title", "a <b> & c")
    assert linux[-3:] == ["--", "-title", "a &lt;b&gt; &amp; c"]
    mac = notification_command("/usr/bin/osascript", 'say "x"', "y")
    assert mac[-2:] == ['say "x"', "y"]
    assert not any("say" in word for word in mac[:-2]), "text is never part of the script"


def test_wording() -> None:
    assert wording("cam", {"a.py": "line 1: no"}) == (
        "a.py could not be converted",
        "line 1: no\ncam",
    )
    title, text = wording("cam", {f"{n}.py": "" for n in range(5)})
    assert title == "5 files could not be converted"
    assert text == "0.py, 1.py, 2.py and 2 more\ncam"


def test_files_that_fail_together_are_one_notification() -> None:
    shown: list[Sequence[str]] = []
    done = threading.Event()

    def run(command: Sequence[str]) -> None:
        shown.append(command)
        done.set()

    notifier = Notifier("cam", program="notify-send", run=run, gather=0.05)
    for name in "abc":
        notifier.failed(f"{name}.py", "no")
    assert done.wait(10)
    assert len(shown) == 1
    assert "3 files" in shown[0][-2]
    notifier.failed("d.py", "no")
    notifier.close()
    assert [command[-2] for command in shown[1:]] == ["d.py could not be converted"]
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
def cam(tmp_path: Path) -> Path:
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
    wait_for(said)
    assert said.read_text().splitlines()[-3:] == [
        "1 change is NOT in the image file", "it is kept: mount again and commit", image,
    ]  # fmt: skip
    said.unlink()
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


def wait_for(file: Path) -> None:
    deadline = time.monotonic() + 20
    while not file.exists() and time.monotonic() < deadline:
        time.sleep(0.05)


def test_a_broken_script_copied_into_the_mount_is_notified(
    tmp_path: Path, said: Path, cam: Path
) -> None:
    assert main(["mount", str(tmp_path / "app.img"), str(cam), "--notify"]) == 0
    try:
        (cam / "bad.py").write_text("def (:\n")
        wait_for(said)
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


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
