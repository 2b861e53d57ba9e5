"""`doctor`: what is missing, and what of it no mount can do without."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cli_mounts import Ran

from romfsfs.cli import doctor
from romfsfs.cli.automount import program
from romfsfs.desktop.units import rule_command
from romfsfs.devices.discovery import DfuCamera
from romfsfs.errors import DeviceError, RomfsError

NEEDED = {"libfuse", "/dev/fuse", "mpy-cross", "vela", "state folder", "cache folder"}


def test_what_no_mount_can_do_without(run: Callable[..., Ran], bare: None) -> None:
    found = list(doctor.checks())
    assert not any(check.ok for check in found)
    assert {check.name for check in found if check.needed} == NEEDED
    assert run("doctor").code == 1
    assert run("doctor").out.count("MISSING") == len(NEEDED)


def test_what_is_well_is_needed_as_much() -> None:
    """The table of a machine that has everything is the same one."""
    assert {check.name for check in doctor.checks() if check.needed} == NEEDED


def test_what_only_some_boards_want_is_no_failure(
    run: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch, fuse_device: None
) -> None:
    monkeypatch.setattr(doctor, "find_on_path", lambda name: None)
    done = run("doctor")
    assert done.code == 0
    assert "-  dfu-util                 not installed; it writes to cameras in DFU mode" in done.out


@pytest.mark.parametrize(
    ("groups", "named", "check"),
    [
        ([1, 2], True, (True, "me is in the group dialout", "")),
        ([2], True, (False, "me is not in the group dialout",
                     "sudo usermod -a -G dialout me, then log in again")),
        ([9, 3], False, (True, "1000 is in the group uucp", "")),
        ([9], False, (False, "1000 is not in the group dialout",
                      "sudo usermod -a -G dialout 1000, then log in again")),
    ],
)  # fmt: skip
def test_who_may_use_serial_ports(
    monkeypatch: pytest.MonkeyPatch, groups: list[int], named: bool, check: tuple[bool, str, str]
) -> None:
    names = {1: "dialout", 2: "users", 3: "uucp"}
    monkeypatch.setattr(doctor, "port_group", lambda: "dialout")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(os, "getuid", lambda: 1000)
    monkeypatch.setattr(os, "getgroups", lambda: groups)
    monkeypatch.setattr("grp.getgrgid", lambda number: SimpleNamespace(gr_name=names[number]))
    user = {1000: SimpleNamespace(pw_name="me")} if named else {}
    monkeypatch.setattr("pwd.getpwuid", lambda number: user[number])
    monkeypatch.setattr(sys, "platform", "linux")
    ok, detail, remedy = check
    wanted = doctor.Check("serial ports", ok, False, detail, remedy)
    assert doctor._found("serial ports", "", doctor._serial_permission) == wanted
    for system, number in (("darwin", 1000), ("linux", 0)):
        monkeypatch.setattr(sys, "platform", system)
        monkeypatch.setattr(os, "geteuid", lambda number=number: number)
        for look in (doctor._serial_permission, doctor._loader_permission):
            assert look() == "accessible"


NO_RULE = "no udev rule names OpenMV's USB devices"


@pytest.mark.parametrize(
    ("cameras", "rules", "detail"),
    [
        ((), "", NO_RULE),
        ((), 'SUBSYSTEM=="tty", ATTRS{idVendor}=="37c5"', NO_RULE),
        ((), 'SUBSYSTEM=="usb", ATTRS{idVendor}=="1234"', NO_RULE),
        ((), 'SUBSYSTEMS=="usb", ATTRS{idVendor}=="37C5"', ""),
        ((("A", "B"), ("C",)), 'SUBSYSTEM=="usb" 37c5',
         "A or B is in DFU mode, but you may not open it"),
    ],
)  # fmt: skip
def test_who_may_open_boot_loaders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cameras: tuple[tuple[str, ...], ...],
    rules: str, detail: str,
) -> None:  # fmt: skip
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(doctor, "find_on_path", lambda name: f"/bin/{name}")
    opened = DfuCamera(1, 2, "1-1", "", ("D",), ("flash",))
    closed = [DfuCamera(1, 2, "1-2", "", boards, ()) for boards in cameras]
    monkeypatch.setattr(doctor, "dfu_cameras", lambda: (opened, *closed))
    monkeypatch.setattr(doctor, "_RULES", (str(tmp_path / "none"), str(tmp_path)))
    (tmp_path / "4.rules").mkdir()  # as one that cannot be read
    (tmp_path / "5.rules").write_text("# 37c5\n")
    (tmp_path / "6.rules").write_text(rules)
    (tmp_path / "7.txt").write_text('SUBSYSTEM=="usb" 37c5')
    said = detail or f"{tmp_path}/6.rules names OpenMV's USB devices"
    remedy = rule_command(program()) if detail else ""
    assert doctor._found("boot loaders", "", doctor._loader_permission) == doctor.Check(
        "boot loaders", not detail, False, said, remedy
    )


def test_where_our_folders_are_and_how_much_room_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=(5000 << 20) - 1))
    path = tmp_path / "a" / "b"
    assert doctor._folder("state", lambda: path) == f"{path}, 4,999 MiB free"
    asked = []
    monkeypatch.setattr(os, "access", lambda *what: asked.append(what))
    with pytest.raises(RomfsError) as caught:
        doctor._folder("cache", lambda: path)
    assert caught.value.line == (
        f"no permission to write to {tmp_path}; export ROMFSFS_CACHE_DIR=DIR, a folder of yours"
    )
    assert asked == [(tmp_path, os.W_OK)]


@pytest.mark.parametrize(
    ("error", "detail"),
    [
        (DeviceError("dfu-util failed: no libusb", where="dfu-util"),
         "dfu-util failed: no libusb (dfu-util)"),
        (OSError(errno.EIO, "Input/output error", "/a file"), "input/output error (/a file)"),
        (ImportError("it is broken"), "it is broken"),
    ],
)  # fmt: skip
def test_whatever_a_check_runs_into_the_others_are_made(
    run: Callable[..., Ran], bare: None, monkeypatch: pytest.MonkeyPatch, error: Exception,
    detail: str,
) -> None:  # fmt: skip
    names = [check.name for check in doctor.checks()]

    def fail(*_: object) -> Any:
        raise error

    for name in ("load_binding", "check_device", "check_allow_other", "find_compiler", "version",
                 "find_tool", "find_micropython", "find_on_path", "port_group", "dfu_cameras",
                 "state_dir", "cache_dir"):  # fmt: skip
        monkeypatch.setattr(doctor, name, fail)
    monkeypatch.setattr(doctor, "program", lambda: ["romfsfs"])
    assert [(check.name, check.ok, check.detail) for check in doctor.checks()] == [
        (name, False, detail) for name in names
    ]
    assert run("doctor").code == 1
