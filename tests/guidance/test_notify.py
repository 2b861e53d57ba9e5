"""Notifications of failed conversions, one for files that fail together, and of edits that a mount
leaves; by default where a desktop is running, and never in the way."""

from __future__ import annotations

import logging
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from romfsfs.cli import desktop, doctor, main, mounting
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
        f"#!/bin/sh\nprintf '%s\\n' \"$@\" >> '{said}.new'; mv '{said}.new' '{said}'\n"
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
    for module in (mounting, desktop):
        monkeypatch.setattr(module, "find_program", lambda: None)
    monkeypatch.setattr(desktop, "find_on_path", lambda name: None)
    assert main(["mount", str(tmp_path / "app.img"), str(cam), "--notify"]) == 0
    assert main(["umount", str(cam)]) == 0
    assert "notify-send is not installed" in capsys.readouterr().err
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert main(["desktop", "--install"]) == 0
    said = capsys.readouterr().err
    assert "zenity is not installed" in said
    assert "notify-send is not installed" in said
    assert {"zenity", "notify-send"} <= {check.name for check in doctor.checks()}


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
