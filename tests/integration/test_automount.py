"""Cameras are mounted when they are plugged in: the unit and the rule, and that both go again."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from romfsfs.boards import boards
from romfsfs.cli import automount, main
from romfsfs.desktop.units import rule, unit
from romfsfs.errors import UsageError

UNIT = ".config/systemd/user/romfsfs@.service"


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
def test_systemd_takes_the_unit(tmp_path: Path, folder: str) -> None:
    program = tmp_path / "bin with space" / "romfsfs"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    text = unit([str(program)], tmp_path / folder)
    assert "BindsTo=dev-%i.device" in text
    file = tmp_path / "romfsfs@ttyACM0.service"
    file.write_text(text)
    if shutil.which("systemd-analyze"):
        done = subprocess.run(
            ["systemd-analyze", "verify", "--user", "--man=no", "--recursive-errors=no", file],
            capture_output=True, text=True, timeout=60, check=False,
            env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)},
        )  # fmt: skip
        complaints = [line for line in done.stderr.splitlines() if "romfsfs@" in line]
        assert not complaints, done.stderr


def test_a_path_that_a_unit_cannot_say_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        unit(["/bin/romfsfs"], tmp_path / "a\nExecStart=b")


def test_it_is_off_until_it_is_installed_and_gone_afterwards(
    home: Path, rule_place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["automount", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["on"] is False
    assert main(["automount", "--install", "--dry-run"]) == 0
    assert "[Service]" in capsys.readouterr().out
    assert not (home / UNIT).exists()

    assert main(["automount", "--install", "--dir", str(home / "cams")]) == 0
    said = capsys.readouterr().out
    assert "sudo tee /etc/udev/rules.d/70-romfsfs.rules" in said
    assert f"{home / 'cams'}/%i" in (home / UNIT).read_text()
    assert not rule_place.exists(), "never written without being asked for as root"

    assert main(["automount", "--rule"]) == 0
    rule_place.write_text(capsys.readouterr().out)
    assert main(["automount", "--status"]) == 0
    assert main(["automount", "--install"]) == 0, "again, with another folder"
    assert f"{home}/cameras/%i" in (home / UNIT).read_text()
    assert main(["automount", "--uninstall"]) == 0
    assert not (home / UNIT).exists()


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
    assert main(["automount", "--uninstall"]) == 2
    assert (home / UNIT).exists()
