"""What of the desktop is written, started and said, in whole calls."""

from __future__ import annotations

import errno
import json
import logging
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from romfsfs.desktop import installed, notify, programs
from romfsfs.desktop.file_managers import (
    caches,
    image_type,
    nautilus_scripts,
    progress_command,
    progress_words,
    uca_path,
    with_actions,
    without_actions,
)
from romfsfs.desktop.installed import File, filled, install, uninstall
from romfsfs.desktop.notify import Notifier, notification_command, wording, wording_at_end
from romfsfs.desktop.units import units
from romfsfs.errors import RomfsError, UsageError
from romfsfs.system.files import digest_bytes

NONE = subprocess.DEVNULL


@pytest.fixture
def listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What is written down as installed, by the names of the files."""
    monkeypatch.setenv("ROMFSFS_STATE_DIR", str(tmp_path / "state"))
    place = tmp_path / "state" / "installed.json"

    def read() -> dict[str, str]:
        known = json.loads(place.read_bytes()) if place.exists() else {}
        return {os.path.relpath(path, tmp_path): digest for path, digest in known.items()}

    return read


def tree(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_just_what_was_installed_goes_again(tmp_path: Path, listed: Any) -> None:
    data = tmp_path / "data"
    one, two = data / "romfsfs" / "one", data / "deep" / "er" / "two"
    files = [File(one, b"1", 0o755), File(two, b"2")]
    old = os.umask(0o077)
    try:
        install(files)
    finally:
        os.umask(old)
    assert [(file.path.read_bytes(), file.path.stat().st_mode & 0o777) for file in files] == [
        (b"1", 0o755), (b"2", 0o644),
    ]  # fmt: skip
    all_of_it = {"data/romfsfs/one": digest_bytes(b"1"), "data/deep/er/two": digest_bytes(b"2")}
    assert listed() == all_of_it
    install([File(one, b"new")])
    assert (one.read_bytes(), one.stat().st_mode & 0o777) == (b"new", 0o644)
    two.write_bytes(b"edited")
    mine = data / "mine"
    mine.write_bytes(b"mine")
    for refused in (two, mine):
        with pytest.raises(UsageError) as caught:
            install([File(data / "three", b"3"), File(refused, b"4")])
        assert caught.value.line == (
            f"the file exists, and romfsfs did not write it, or it was edited since ({refused}); "
            "move it away and try again"
        )
    assert not (data / "three").exists()
    install([File(mine, b"mine")])  # the same: it is ours from now on
    install([File(data / "gone", b"5")])
    (data / "gone").unlink()
    all_of_it |= {"data/romfsfs/one": digest_bytes(b"new"), "data/mine": digest_bytes(b"mine"),
                  "data/gone": digest_bytes(b"5")}  # fmt: skip
    asked = [one, two, data / "gone", data / "never"]
    before = tree(data)
    assert uninstall(asked, dry_run=True) == ([one], [two])
    assert (listed(), tree(data)) == (all_of_it, before)
    (data / "romfsfs" / "other").touch()
    assert uninstall(asked, dry_run=False) == ([one], [two])
    assert listed() == {"data/mine": digest_bytes(b"mine")}
    assert tree(data) == ["deep", "deep/er", "deep/er/two", "mine", "romfsfs", "romfsfs/other"]
    assert uninstall([mine, two], dry_run=False) == ([mine], [])
    (data / "romfsfs" / "other").unlink()
    install([File(one, b"1")])
    install([File(data / "a" / "b", b"1")])
    assert uninstall([one, data / "a" / "b"], dry_run=False) == ([one, data / "a" / "b"], [])
    assert tree(data) == ["a", "deep", "deep/er", "deep/er/two"], "a folder of ours goes too"


def test_a_list_that_is_damaged_makes_every_file_the_user_s(tmp_path: Path, listed: Any) -> None:
    install([File(tmp_path / "a", b"1")])
    (tmp_path / "state" / "installed.json").write_bytes(b"\0")
    assert uninstall([tmp_path / "a"], dry_run=False) == ([], [])
    with pytest.raises(UsageError):
        install([File(tmp_path / "a", b"2")])


def test_a_file_is_known_to_be_ours_before_it_is_there(
    tmp_path: Path, listed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(fd: int, mode: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(installed.os, "fchmod", stop)
    with pytest.raises(KeyboardInterrupt):
        install([File(tmp_path / "a", b"1"), File(tmp_path / "b", b"2")])
    assert listed() == {"a": digest_bytes(b"1")}
    assert not (tmp_path / "a").exists()


def test_a_new_version_on_a_full_disk(
    tmp_path: Path, listed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old one stays, and stays ours: to be replaced once there is room, or to be removed."""
    one, two = tmp_path / "one", tmp_path / "two"
    old = [File(one, b"1"), File(two, b"2")]
    new = [File(one, b"1"), File(two, b"3")]
    real = installed.replace_atomically

    def full(path: Path, *mode: int) -> Any:
        if path == two:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return real(path, *mode)

    def fails_to_upgrade() -> None:
        with monkeypatch.context() as patched:
            patched.setattr(installed, "replace_atomically", full)
            with pytest.raises(OSError, match="No space left"):
                install(new)
        assert two.read_bytes() == b"2"

    install(old)
    fails_to_upgrade()
    install(new)
    assert two.read_bytes() == b"3"
    assert listed() == {"one": digest_bytes(b"1"), "two": digest_bytes(b"3")}
    install(old)
    fails_to_upgrade()
    fails_to_upgrade()
    two.write_bytes(b"edited")
    with pytest.raises(UsageError):
        install(new)
    two.write_bytes(b"2")
    assert uninstall([one, two], dry_run=False) == ([one, two], [])
    assert listed() == {}
    assert not one.exists()
    assert not two.exists()


def test_what_is_put_where(tmp_path: Path) -> None:
    words = ["/bin/romfsfs", "-m", "a b"]
    scripts = nautilus_scripts(words, tmp_path)
    place = tmp_path / "nautilus" / "scripts" / "romfsfs"
    assert [(file.path, file.mode) for file in scripts] == [
        (place / "Commit", 0o755), (place / "Status", 0o755),
    ]  # fmt: skip
    assert [file.data.decode() for file in scripts] == [
        filled("nautilus.sh", PROGRAM="/bin/romfsfs -m 'a b'", ACTION=action)
        for action in ("commit", "status")
    ]
    kind, entry = image_type(words, tmp_path)
    assert kind == File(tmp_path / "mime/packages/romfsfs.xml", filled("romfsfs.xml").encode())
    assert entry == File(
        tmp_path / "applications/romfsfs.desktop",
        filled("romfsfs.desktop", PROGRAM='/bin/romfsfs -m "a b"').encode(),
    )
    assert caches(tmp_path) == [
        ["update-mime-database", f"{tmp_path}/mime"],
        ["update-desktop-database", f"{tmp_path}/applications"],
    ]
    assert uca_path(tmp_path) == tmp_path / "Thunar" / "uca.xml"
    assert progress_command("z", "T") == [
        "z", "--progress", "--no-cancel", "--width=450", "--title=T", "--text=",
    ]  # fmt: skip
    assert [progress_words("p", *at) for at in ((0, 0), (1, 1), (1, 2), (2, 2), (0, 2))] == [
        f"# p\npulsate:{pulse}\n{share}\n".encode()
        for pulse, share in (("true", 0), ("true", 0), ("false", 50), ("false", 99), ("false", 0))
    ]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"<actions>", "Thunar's actions cannot be read: no element found: line 1, column 9"),
        (b"<other></other>", "not a file of Thunar's actions"),
        (b"<actions><!-- <action><unique-id>romfsfs-commit</unique-id></action> -->"
         b"<action><unique-id>romfsfs-commit</unique-id></action ></actions>",
         "Thunar's actions cannot be edited"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_with_thunar_s_file(data: bytes, said: str) -> None:
    for change in (without_actions, lambda data: with_actions(data, ["x"])):
        with pytest.raises(RomfsError) as caught:
            change(data)
        assert caught.value.line == f"{said} (uca.xml)"


def test_an_action_without_an_id_stays() -> None:
    mine = b"<actions><action><name>x</name></action></actions>"
    made = with_actions(mine, ["romfsfs"])
    assert without_actions(made) == mine
    assert made.count(b"<unique-id>romfsfs-") == 2


def test_a_path_of_several_lines_in_a_unit(home: Path) -> None:
    for word in ("a\nb", "a\rb", "a\0b"):
        with pytest.raises(UsageError) as caught:
            units(["/bin/romfsfs", word], home)
        assert caught.value.line == (f"a path with a line break cannot be used here ({word!r})")
    with pytest.raises(UsageError) as caught:
        units(["/it's"], home)
    assert caught.value.line == (
        "systemd cannot start a program whose path has a quote, a backslash or a $ (/it's)"
    )


def test_what_is_missing_of_the_desktop(monkeypatch: pytest.MonkeyPatch) -> None:
    here = {"kdialog", "xdg-open", "osascript", "notify-send"}
    monkeypatch.setattr(programs, "find_on_path", lambda name: name if name in here else None)
    monkeypatch.setattr(programs, "install_command", lambda name, names: f"get {name} {names}")
    said = programs.missing(programs.PROGRAMS)
    assert said == [
        "update-mime-database is not installed; it lets the desktop recognise images by their "
        "first bytes: get shared-mime-info {}",
        "update-desktop-database is not installed; it lets a double click open images: get "
        "desktop-file-utils {}",
    ]
    for platform, name in (("darwin", "osascript"), ("linux", "notify-send")):
        monkeypatch.setattr(sys, "platform", platform)
        assert programs.find_notifier() == name
    here.clear()
    assert [line.partition(";")[0] for line in programs.missing(["zenity", "notify-send"])] == [
        "zenity is not installed", "notify-send is not installed",
    ]  # fmt: skip


def test_how_programs_are_started(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """With nothing of ours and not for ever; one that stays, in a session of its own."""
    started: list[Any] = []
    error: Exception | None = None

    def run(command: Sequence[str], **how: Any) -> Any:
        started.append((command, how))
        if error is not None:
            raise error
        return subprocess.CompletedProcess(command, 0, b"--action", b"")

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(subprocess, "Popen", run)
    monkeypatch.setattr(Path, "read_text", lambda path: "0::/")
    assert notify.offers("p")
    notify.show(["p", "a"])
    notify.leave(["p", "b"])
    common = {"stdin": NONE, "capture_output": True, "timeout": 10.0, "cwd": "/"}
    assert started == [
        (["p", "--help"], {**common, "check": False}), (["p", "a"], {**common, "check": True}),
        (["p", "b"], {"stdin": NONE, "stdout": NONE, "cwd": "/", "start_new_session": True}),
    ]  # fmt: skip
    assert caplog.messages == []
    with caplog.at_level(logging.WARNING):
        error = subprocess.TimeoutExpired("p", 10.0)
        assert not notify.offers("p")
        notify.show(["p"])
        error = subprocess.CalledProcessError(1, "p", stderr=b" no display\n")
        notify.show(["p"])
        error = FileNotFoundError("gone")
        assert not notify.offers("p")
        notify.show(["p"])
        notify.leave(["p"])
    assert caplog.messages == [
        "no notification: Command 'p' timed out after 10.0 seconds ",
        "no notification: Command 'p' returned non-zero exit status 1. no display",
        "no notification: gone ", "no notification: gone",
    ]  # fmt: skip


class Timer:
    """A timer that goes off when the test says so."""

    made: list[Timer] = []  # noqa: RUF012 (of all)

    def __init__(self, seconds: float, call: Any) -> None:
        self.seconds, self.call, self.daemon, self.done = seconds, call, False, list[str]()
        self.made.append(self)

    def start(self) -> None:
        self.done.append(f"started as daemon: {self.daemon}")

    def cancel(self) -> None:
        self.done.append("cancelled")


class Mutex:
    def __init__(self) -> None:
        self.held, self.taken = False, 0

    def __enter__(self) -> None:
        self.held, self.taken = True, self.taken + 1

    def __exit__(self, *_: object) -> None:
        self.held = False


def test_when_failures_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """A moment after the first of them, or at the end of the mount; outside the lock."""
    shown: list[Any] = []
    monkeypatch.setattr(notify.threading, "Timer", Timer)
    monkeypatch.setattr(Timer, "made", [])
    monkeypatch.setattr(notify, "find_notifier", lambda: "found")
    told = Notifier("cam", run=lambda command: shown.append((command, mutex.held)))
    mutex: Any = Mutex()
    told._mutex = mutex
    for path in ("a", "b", "a"):
        told.failed(path, f"no {path}")
    (timer,) = Timer.made
    assert (timer.seconds, timer.done) == (1.0, ["started as daemon: True"])
    timer.call()
    both = notification_command("found", *wording("cam", {"a": "no a", "b": "no b"}))
    assert (shown, mutex.taken) == ([(both, False)], 4)
    timer.call()
    told.close()
    assert len(shown) == 1
    told.failed("c", "no")
    assert len(Timer.made) == 2
    told.close()
    assert Timer.made[1].done[1:] == ["cancelled"]
    assert shown[1:] == [(notification_command("found", *wording("cam", {"c": "no"})), False)]
    told.close()
    assert len(shown) == 2
    told.ended(1)
    plain = notification_command("found", *wording_at_end("cam", "on the camera", 1))
    assert shown[2:] == [(plain, False)]
    Notifier("cam", "here", program="mine", run=lambda command: shown.append(command)).ended(3)
    assert shown[3:] == [notification_command("mine", *wording_at_end("cam", "here", 3))]
