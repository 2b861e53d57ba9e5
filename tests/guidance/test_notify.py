"""Notifications of failed conversions: one for files that fail together, and never in the way."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from romfsfs.cli import main
from romfsfs.image.writer import encode
from romfsfs.session.notify import Notifier, notification_command, show, wording


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

    notifier = Notifier("cam", "notify-send", run, gather=0.05)
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


def test_a_broken_script_copied_into_the_mount_is_notified(tmp_path: Path) -> None:
    said = tmp_path / "said"
    notifier = tmp_path / "programs" / "notify-send"
    notifier.write_text(
        f"#!/bin/sh\nprintf '%s\\n' \"$@\" >> '{said}.new'; mv '{said}.new' '{said}'\n"
    )
    notifier.chmod(0o755)
    (tmp_path / "app.img").write_bytes(encode({"main.py": b"pass\n"}))
    cam = tmp_path / "cam"
    cam.mkdir()
    assert main(["mount", str(tmp_path / "app.img"), str(cam), "--notify"]) == 0
    try:
        (cam / "bad.py").write_text("def (:\n")
        deadline = time.monotonic() + 20
        while not said.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
    finally:
        assert main(["umount", "--discard", str(cam)]) == 0
    assert "bad.py could not be converted" in said.read_text()
