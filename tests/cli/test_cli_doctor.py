"""`doctor`: what is missing, and what of it no mount can do without."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from cli_mounts import Ran

from romfsfs.cli import doctor

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
