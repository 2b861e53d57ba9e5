"""Cameras are mounted when they are plugged in: the unit and the rule, and that both go again."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from romfsfs.boards import boards
from romfsfs.cli import automount, main, mounting
from romfsfs.desktop.units import config_home, data_home, port_group, rule, rule_command, units
from romfsfs.devices.discovery import CameraPort
from romfsfs.errors import DeviceBusy, DeviceLost, SessionBusy, UsageError

UNITS = ".config/systemd/user"
UNIT = f"{UNITS}/romfsfs@.service"


@pytest.fixture(autouse=True)
def rule_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this machine's udev rule would be; tests may run as root."""
    place = tmp_path / "70-romfsfs.rules"
    monkeypatch.setattr(automount, "RULE", place)
    return place


def test_the_rule_knows_every_board() -> None:
    text = rule(boards().values())
    assert len(boards()) == 13
    for board in boards().values():
        assert board.name in text or not board.runtime_ids  # an emulator has no USB
        for vid, pid in board.runtime_ids:
            assert f'ATTRS{{idVendor}}=="{vid:04x}", ATTRS{{idProduct}}=="{pid:04x}"' in text
    assert "romfsfs@%k.service" in text


def test_the_rule_opens_boot_loaders_to_users() -> None:
    """A rule for serial ports alone leaves them to root, where a camera stays unseen."""
    usb, _, tty = rule(boards().values()).partition('LABEL="romfsfs_tty"')
    loaders = {each for board in boards().values() for each in board.loader_ids}
    assert len(loaders) == 11
    for vid, pid in loaders:
        line = f'ATTRS{{idVendor}}=="{vid:04x}", ATTRS{{idProduct}}=="{pid:04x}", TAG+="uaccess"'
        assert f'{line}, MODE="0660", GROUP=' in usb
    assert "SYSTEMD_USER_WANTS" not in usb
    assert "GROUP=" not in tty


def test_udev_takes_the_rule(tmp_path: Path) -> None:
    file = tmp_path / "70-romfsfs.rules"
    file.write_text(rule(boards().values()))
    assert file.read_text().endswith('LABEL="romfsfs_end"\n')
    if shutil.which("udevadm"):
        done = subprocess.run(
            ["udevadm", "verify", "--resolve-names=never", file], capture_output=True, text=True,
            timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0 or "Unknown command" in done.stderr, done.stdout + done.stderr


@pytest.mark.parametrize("folder", ["cameras", "my cameras 100%", 'a"b$HOME'])
def test_systemd_takes_the_units(tmp_path: Path, home: Path, folder: str) -> None:
    program = tmp_path / "bin with space" / "romfsfs"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    files = units([str(program)], tmp_path / folder)
    assert {str(each.path.relative_to(home / UNITS)) for each in files} == {
        "romfsfs@.service", "romfsfs-login.service", "default.target.d/romfsfs.conf"
    }  # fmt: skip
    # run again after `romfsfs umount`, when there is nothing to unmount: no failure of the unit
    assert b"\nExecStop=-" in files[0].data
    # one process, and SIGTERM to it alone: fusermount3 must not be ended with the mount
    assert b"\nType=exec\nKillMode=mixed\n" in files[0].data
    for each in files:
        each.path.parent.mkdir(parents=True, exist_ok=True)
        name = each.path.name.replace("@", "@ttyACM0")
        each.path.with_name(name).write_bytes(each.data)
    if shutil.which("systemd-analyze"):
        done = subprocess.run(
            ["systemd-analyze", "verify", "--user", "--man=yes", "--recursive-errors=no",
             "romfsfs@ttyACM0.service", "romfsfs-login.service"],
            capture_output=True, text=True, timeout=60, check=False, cwd=home / UNITS,
            env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)},
        )  # fmt: skip
        complaints = [line for line in done.stderr.splitlines() if "romfsfs" in line]
        assert not complaints, done.stderr


@pytest.mark.parametrize(
    ("folder", "below", "place"),
    [
        ("/me/cams", "/me/cams", "/me/cams/%i"),
        ("/me/my cams 100%", '"/me/my cams 100%%"', '"/me/my cams 100%%/%i"'),
        ('/me/a"b$HOME', '"/me/a\\"b$$HOME"', '"/me/a\\"b$$HOME/%i"'),
    ],
)
def test_the_unit_names_the_folder(home: Path, folder: str, below: str, place: str) -> None:
    text = units(["/usr/bin/romfsfs", "-m", "a b"], Path(folder))[0].data.decode()
    program = '/usr/bin/romfsfs -m "a b"'
    assert [line for line in text.splitlines() if line.startswith("Exec")] == [
        f"ExecStartPre=/bin/mkdir -p {place}",
        f"ExecStart={program} automount --plugged /dev/%I --dir {below}",
        f"ExecStop=-{program} -q umount --keep --lazy {place}",
        f"ExecStopPost=-/bin/rmdir {place}",
    ]


def test_a_path_that_a_unit_cannot_say_is_refused(home: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        units(["/bin/romfsfs"], tmp_path / "a\nExecStart=b")
    for character in "\"'\\$":  # systemd 252: "Executable name contains special characters"
        with pytest.raises(UsageError, match="systemd cannot start a program"):
            units([f"/opt/it{character}s/romfsfs"], tmp_path)


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where systemctl and notify-send write down what they are told."""
    folder = tmp_path / "tools"
    folder.mkdir()
    for name in ("systemctl", "notify-send"):
        script = folder / name
        script.write_text(f'#!/bin/sh\nfor word; do echo "$word"; done >>"{folder}/{name}.said"\n')
        script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


def said(tools: Path, name: str) -> list[str]:
    path = tools / f"{name}.said"
    return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def mounts(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What mounting does, from one try to the next: it works for None."""
    outcomes: list[Any] = []

    def mount(host: object, directory: str, options: object) -> tuple[int, list[str]]:
        outcome = outcomes.pop(0)
        if outcome is not None:
            raise outcome
        return 1, ["camera"]

    monkeypatch.setattr(mounting, "mount_fuse", mount)
    monkeypatch.setattr(automount, "_PAUSE", 0.0)
    return outcomes


def test_a_camera_in_use_is_tried_again(home: Path, tools: Path, mounts: list[Any]) -> None:
    mounts += [DeviceBusy("in use"), DeviceBusy("in use"), None]
    assert main(["automount", "--plugged", "/dev/ttyACM0", "--dir", str(home)]) == 0
    assert mounts == []
    assert said(tools, "notify-send") == []


def test_a_camera_in_use_for_good_is_told_once(
    home: Path, tools: Path, mounts: list[Any], monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(automount, "BUSY_SECONDS", -1.0)
    mounts += [DeviceBusy("in use by the <IDE>", next_step="end it"), None]
    assert main(["automount", "--plugged", "/dev/ttyACM0", "--dir", str(home)]) == 5
    assert said(tools, "notify-send")[-3:] == [
        "the camera on ttyACM0 is not mounted", "in use by the &lt;IDE&gt;; end it",
        "then plug it in again",
    ]  # fmt: skip
    assert "in use by the <IDE>; end it" in capsys.readouterr().err
    assert len(mounts) == 1


def test_a_camera_that_fails_is_not_tried_again(
    home: Path, tools: Path, mounts: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    mounts += [DeviceLost("it does not answer"), None]
    assert main(["automount", "--plugged", "/dev/ttyACM0", "--dir", str(home)]) == 5
    assert said(tools, "notify-send")[-2:] == ["it does not answer", "then plug it in again"]
    assert len(mounts) == 1


def test_cameras_that_are_there_at_login(
    home: Path, tools: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [CameraPort("/dev/ttyACM1", 0x37C5, 0x1206), CameraPort("/tmp/simulated")]
    monkeypatch.setattr(automount, "serial_cameras", lambda: tuple(found))
    assert main(["automount", "--now"]) == 0
    wanted = ["--user", "start", "--no-block", "romfsfs@ttyACM1.service"]
    assert said(tools, "systemctl") == wanted
    found.clear()
    assert main(["automount", "--now"]) == 0
    assert said(tools, "systemctl") == wanted


def test_it_is_off_until_it_is_installed_and_gone_afterwards(
    home: Path, rule_place: Path, tools: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["automount", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["on"] is False
    assert main(["automount", "--install", "--dry-run"]) == 0
    assert "[Service]" in capsys.readouterr().out
    assert not (home / UNIT).exists()

    assert main(["automount", "--install", "--dir", str(home / "cams")]) == 0
    assert "sudo tee /etc/udev/rules.d/70-romfsfs.rules" in capsys.readouterr().out
    assert f"{home / 'cams'}/%i" in (home / UNIT).read_text()
    assert not rule_place.exists(), "never written without being asked for as root"
    assert main(["automount", "--status"]) == 1
    assert "romfsfs: as root: " in capsys.readouterr().err

    assert main(["automount", "--rule"]) == 0
    rule_place.write_text(capsys.readouterr().out)
    assert main(["automount", "--status"]) == 0
    assert capsys.readouterr().err == ""
    rule = rule_place.read_text()
    rule_place.write_text(f"{rule}# of last year\n")
    assert main(["automount", "--status"]) == 0
    assert "the installed rule is from another version; update it: " in capsys.readouterr().err
    rule_place.write_text(rule)
    assert main(["automount", "--install"]) == 0, "again, with another folder"
    assert f"{home}/cameras/%i" in (home / UNIT).read_text()
    capsys.readouterr()
    reloads = said(tools, "systemctl").count("daemon-reload")
    assert main(["automount", "--uninstall"]) == 0
    assert said(tools, "systemctl").count("daemon-reload") == reloads + 1
    removed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("removed")]
    assert f"removed: {home / UNIT}" in removed
    assert not any(path.is_file() for path in (home / UNITS).rglob("*"))


def test_a_unit_of_the_users_own_is_never_touched(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / UNIT).parent.mkdir(parents=True)
    (home / UNIT).write_text("# mine\n")
    assert main(["automount", "--install"]) == 2
    assert main(["automount", "--uninstall"]) == 0
    assert (home / UNIT).read_text() == "# mine\n"


def test_a_unit_that_was_edited_is_left(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["automount", "--install"]) == 0
    with (home / UNIT).open("a") as file:
        file.write("Environment=A=b\n")
    assert main(["automount", "--install"]) == 2
    capsys.readouterr()
    assert main(["automount", "--uninstall"]) == 0
    assert (
        f"{home / UNIT} was edited since it was installed, and is left" in capsys.readouterr().err
    )
    assert (home / UNIT).exists()


@pytest.mark.parametrize(
    ("have_units", "have_rule", "on", "advice"),
    [
        (False, "", False, "turn it on with: romfsfs automount --install"),
        (True, "", False, "as root: {command}"),
        (True, "current", True, ""),
        (True, "old", True, "the installed rule is from another version; update it: {command}"),
        (False, "current", False, "turn it on with: romfsfs automount --install"),
        (False, "old", False,
         "the installed rule is from another version; update it: {command}"),
    ],
)  # fmt: skip
def test_what_is_set_up_and_what_is_missing(
    home: Path, rule_place: Path, tools: Path, capsys: pytest.CaptureFixture[str],
    have_units: bool, have_rule: str, on: bool, advice: str,
) -> None:  # fmt: skip
    if have_units:
        assert main(["automount", "--install", "-q"]) == 0
    if have_rule:
        rule_place.write_text(rule(boards().values()) + "# old\n" * (have_rule == "old"))
    capsys.readouterr()
    assert main(["automount"]) == (not on)
    said = capsys.readouterr()
    words = {True: "installed", False: "not installed"}
    assert said.out == (
        f"unit: {words[have_units]} ({home / UNIT})\n"
        f"rule: {words[bool(have_rule)]} ({rule_place})\n"
    )
    command = rule_command(automount.program())
    assert said.err == (f"romfsfs: {advice}\n" if advice else "").format(command=command)
    assert main(["automount", "--status", "--json"]) == (not on)
    said = capsys.readouterr()
    assert json.loads(said.out) == {
        "unit": str(home / UNIT), "unit_installed": have_units, "rule": str(rule_place),
        "rule_installed": bool(have_rule), "rule_current": have_rule == "current", "on": on,
    }  # fmt: skip
    assert said.err == ""
    ours = units(automount.program(), home / "cameras")
    for only in (["--dry-run"], [], []):
        assert main(["automount", "--uninstall", *only]) == 0
        verb = "would remove" if only else "removed"
        lines = [f"{verb}: {each.path}" for each in ours] if have_units else []
        if have_rule:
            lines += ["one more step, once, as root:",
                      f"  {rule_command(automount.program(), remove=True)}"]  # fmt: skip
        assert capsys.readouterr().out.splitlines() == (lines or ["nothing is installed"])
        have_units = have_units and bool(only)


def test_where_systemd_does_not_answer(
    home: Path, rule_place: Path, tools: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    found = (CameraPort("/dev/ttyACM1", 0x37C5, 0x1206), CameraPort("/dev/ttyACM2", 0x37C5, 0x1206))
    monkeypatch.setattr(automount, "serial_cameras", lambda: found)
    (tools / "systemctl").write_text("#!/bin/sh\nexit 1\n")
    rule_place.write_text(rule(boards().values()))
    assert main(["automount", "--install"]) == 0
    said = capsys.readouterr()
    written = [f"written: {each.path}" for each in units(automount.program(), home / "cameras")]
    assert said.out.splitlines() == written
    assert said.err.splitlines() == [
        "romfsfs: takes effect at the next login",
        "romfsfs: plug in again to mount: ttyACM1, ttyACM2",
    ]


def test_who_uses_a_camera_is_said_once_each(
    home: Path, tools: Path, mounts: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    mounts += [
        DeviceBusy("by a"),
        DeviceBusy("by a"),
        SessionBusy("by b"),
        DeviceBusy("by a"),
        None,
    ]
    assert main(["automount", "--plugged", "/dev/ttyACM0", "--dir", str(home)]) == 0
    tried = [line for line in capsys.readouterr().err.splitlines() if "tried again" in line]
    assert tried == [f"romfsfs: by {name}; it is tried again" for name in "aba"]


def test_how_others_call_this_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The script beside this Python, else one on PATH, else the module."""
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setenv("PATH", str(tmp_path / "none"))
    assert automount.program() == [str(python), "-m", "romfsfs"]
    for folder in ("other", "bin"):
        script = tmp_path / folder / "romfsfs"
        script.parent.mkdir(exist_ok=True)
        script.write_text("#!/bin/sh\n")
        monkeypatch.setenv("PATH", str(tmp_path / "other"))
        script.chmod(0o755)
        assert automount.program() == [str(script)]


def test_what_is_to_be_done_as_root(monkeypatch: pytest.MonkeyPatch) -> None:
    place, reload = "/etc/udev/rules.d/70-romfsfs.rules", (
        "sudo udevadm control --reload && sudo udevadm trigger --subsystem-match=tty "
        "--subsystem-match=usb"
    )  # fmt: skip
    assert rule_command(["/a b/romfsfs"]) == (
        f"'/a b/romfsfs' automount --rule | sudo tee {place} >/dev/null && {reload}"
    )
    assert rule_command(["x"], remove=True) == f"sudo rm -f {place} && {reload}"

    there = {name: SimpleNamespace(gr_name=name) for name in ("dialout", "uucp")}
    monkeypatch.setattr("grp.getgrnam", lambda name: there[name])
    assert port_group() == "dialout"
    del there["dialout"]
    assert port_group() == "uucp"
    there.clear()
    assert port_group() == "dialout"


@pytest.mark.parametrize(
    ("find", "variable", "usual"),
    [(config_home, "XDG_CONFIG_HOME", ".config"), (data_home, "XDG_DATA_HOME", ".local/share")],
)
def test_where_the_users_own_files_are(
    home: Path, monkeypatch: pytest.MonkeyPatch, find: Any, variable: str, usual: str
) -> None:
    for chosen, place in (("", home / usual), ("rel", home / usual), ("/x/y", Path("/x/y"))):
        monkeypatch.setenv(variable, chosen)
        assert find() == place


def test_what_the_unit_runs(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A mount in the foreground, with notifications; between tries it waits, a minute in all."""
    now, sleeps, asked = 0.0, [], []

    def mount_fuse(host: object, directory: str, options: Any) -> tuple[int, list[str]]:
        asked.append((directory, options.source, options.foreground))
        raise DeviceBusy("in use")

    def sleep(seconds: float) -> None:
        nonlocal now
        sleeps.append(seconds)
        now += seconds

    notifies: list[object] = []
    monkeypatch.setattr(mounting, "mount_fuse", mount_fuse)
    monkeypatch.setattr(mounting, "_notifies", lambda output, chosen: notifies.append(chosen))
    clock = SimpleNamespace(monotonic=lambda: now, sleep=sleep)
    monkeypatch.setattr(automount, "time", clock)
    monkeypatch.setattr(automount, "tell_not_mounted", lambda *what: asked.append(what))
    assert main(["automount", "--plugged", "/dev/ttyACM0", "--dir", str(home)]) == 5
    assert sleeps == [2.0] * 31
    assert notifies == [True] * 32
    tried = (str(home / "ttyACM0"), "/dev/ttyACM0", True)
    assert asked == [*[tried] * 32, ("ttyACM0", "in use")]
    assert capsys.readouterr() == ("", (
        "romfsfs: in use; it is tried again\nromfsfs: error: in use\n"
    ))  # fmt: skip


def test_how_systemd_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[object] = []
    ends: list[Exception | None] = [
        None, FileNotFoundError(), subprocess.CalledProcessError(1, "x"),
        subprocess.TimeoutExpired("x", 20),
    ]  # fmt: skip

    def run(command: list[str], **how: object) -> None:
        calls.append((command, how))
        end = ends.pop(0)
        if end is not None:
            raise end

    monkeypatch.setattr(automount.subprocess, "run", run)
    assert [automount._systemctl("a", "b") for _ in range(4)] == [True, False, False, False]
    how = {"stdin": subprocess.DEVNULL, "capture_output": True, "timeout": 20, "check": True}
    assert calls == [(["systemctl", "--user", "a", "b"], how)] * 4


def test_it_is_for_linux_alone(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(automount.sys, "platform", "darwin")
    assert main(["automount", "--install"]) == 1
    said = "romfsfs: error: automount needs systemd and udev: Linux only\n"
    assert capsys.readouterr() == ("", said)
    assert list(home.iterdir()) == []
