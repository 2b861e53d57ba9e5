"""What the commands print, all of it, in text files that are stories (`tests/transcripts.py`)."""

from __future__ import annotations

import grp
import pwd
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from cli_mounts import Ran
from stopping import ends_at
from transcripts import stories

from romfsfs.boards import boards
from romfsfs.cli import automount, desktop, doctor
from romfsfs.desktop import file_managers as menus
from romfsfs.desktop import programs, units
from romfsfs.desktop.units import rule
from romfsfs.session.session import Session

HERE = Path(__file__).parent / "transcripts"
#: many commands, one after the other
pytestmark = pytest.mark.timeout(600)


@pytest.mark.parametrize("name", stories(HERE / "plain"))
def test_what_is_said(name: str, retell: Callable[[Path], None]) -> None:
    retell(HERE / "plain" / f"{name}.txt")


@pytest.mark.parametrize("name", stories(HERE / "mounted"))
def test_what_is_said_on_mounts(
    name: str, retell: Callable[[Path], None], fuse_device: None
) -> None:
    retell(HERE / "mounted" / f"{name}.txt")


def prepared(name: str) -> Path:
    return HERE / "prepared" / f"{name}.txt"


@pytest.mark.parametrize(
    ("name", "step"),
    [("interrupted", "switched"), ("undone", "target-written"), ("rolled_back", "recorded")],
)
def test_what_is_said_of_a_commit_that_was_killed(
    name: str, step: str, run: Callable[..., Ran], session: Session, image: Path,
    retell: Callable[[Path], None],
) -> None:  # fmt: skip
    with ends_at(step, SystemExit):
        run("commit", image)
    retell(prepared(name))


def test_what_doctor_says_of_a_machine_that_has_nothing(
    retell: Callable[[Path], None], bare: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor.pwd, "getpwuid", lambda number: pwd.struct_passwd(["me"] * 7))
    monkeypatch.setattr(doctor, "program", lambda: ["romfsfs"])
    monkeypatch.setattr(doctor, "port_group", lambda: "dialout")
    monkeypatch.setattr(doctor, "package_command", lambda *_: "sudo apt-get install it")
    for module in (doctor, programs):
        monkeypatch.setattr(module, "install_command", lambda *_: "sudo apt-get install it")
    retell(prepared("doctor_bare"))


def test_what_doctor_says_of_a_machine_that_has_everything(
    retell: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = tmp_path / "rules"
    rules.mkdir()
    (rules / "70-romfsfs.rules").write_text(rule(boards().values()))
    for name, value in {
        "load_binding": SimpleNamespace(name="fusepy", libfuse=(2, 9, 9)),
        "find_compiler": SimpleNamespace(version=(6, 3)), "version": "4.2.0",
        "find_tool": "/opt/stedgeai", "find_micropython": "/opt/micropython",
        "check_device": None, "check_allow_other": None, "_is_all_accessible": False,
        "dfu_cameras": (),
    }.items():  # fmt: skip
        monkeypatch.setattr(doctor, name, lambda *_, value=value: value)
    monkeypatch.setattr(doctor, "find_on_path", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(doctor.os, "getgroups", lambda: [20])
    monkeypatch.setattr(doctor.pwd, "getpwuid", lambda number: pwd.struct_passwd(["me"] * 7))
    group = grp.struct_group(["dialout", "x", 20, []])
    monkeypatch.setattr(doctor.grp, "getgrgid", lambda number: group)
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: SimpleNamespace(free=5 << 30))
    monkeypatch.setattr(doctor, "_RULES", (str(rules),))
    retell(prepared("doctor_well"))


def test_what_is_installed_for_the_desktop(
    retell: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setattr(automount, "RULE", tmp_path / "rules")
    monkeypatch.setattr(menus, "SYSTEM_UCA", tmp_path / "system-uca.xml")
    for module in (automount, desktop):
        monkeypatch.setattr(module, "program", lambda: ["/usr/bin/romfsfs"])
        monkeypatch.setattr(module, "find_on_path", lambda name: None)
    monkeypatch.setattr(programs, "find_on_path", lambda name: None)
    monkeypatch.setattr(programs, "install_command", lambda *_: "sudo apt-get install it")
    monkeypatch.setattr(automount, "_systemctl", lambda *words: False)
    monkeypatch.setattr(units, "port_group", lambda: "dialout")
    retell(prepared("desktop"))
