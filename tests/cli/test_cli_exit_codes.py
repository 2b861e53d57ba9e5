"""Exit codes: one for each kind of error, whatever command it comes out of."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_mounts import Mounts, Ran

from romfsfs import errors
from romfsfs.cli import machines
from romfsfs.cli.mounting import MountRequest
from romfsfs.errors import RomfsError, SessionBusy
from romfsfs.session.keep.folder import all_sessions
from romfsfs.session.rebase.read import OpenOptions
from romfsfs.system.files import no_progress

CODES = {
    "RomfsError": 1, "SessionBusy": 1, "UsageError": 2, "ConversionError": 3, "ToolMissing": 3,
    "ImageError": 4, "ImageFormatError": 4, "CapacityError": 4, "PlanError": 4, "DeviceError": 5,
    "DeviceAbsent": 5, "DeviceBusy": 5, "DeviceLost": 5, "DeviceAnswer": 5, "VerifyError": 6,
    "TargetChanged": 7, "Interrupted": 130, "Cancelled": 1,
}  # fmt: skip


def test_the_table_is_whole() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    assert {kind.__name__ for kind in kinds if issubclass(kind, RomfsError)} == set(CODES)


@pytest.mark.parametrize("name", CODES)
def test_a_command_ends_with_the_code_of_its_error(
    name: str, run: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = getattr(errors, name)

    def fail() -> None:
        error = kind.__new__(kind)
        RomfsError.__init__(error, "it went wrong", where="there", next_step="try again")
        raise error

    monkeypatch.setattr(machines, "all_boards", fail)
    done = run("boards")
    assert done.code == CODES[name]
    assert done.error == "romfsfs: error: it went wrong (there); try again"


def test_a_reader_that_has_gone_is_no_failure(image: Path) -> None:
    """`romfsfs ... | head -1` under `set -o pipefail`."""
    for words in (["boards"], ["ls", str(image)], ["boards", "--json"], ["--help"]):
        started = subprocess.Popen(
            [sys.executable, "-m", "romfsfs", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert started.stdout is not None
        started.stdout.close()
        _, said = started.communicate(timeout=60)
        assert (started.returncode, said) == (0, b""), words


def test_a_mount_that_is_being_made_blames_nobody(
    image: Path, tmp_path: Path, mounts: Mounts
) -> None:
    """Until the kernel has mounted, no program can be in the way there."""
    (tmp_path / "cam").mkdir()
    request = MountRequest(str(image), tmp_path / "cam", OpenOptions(), False)
    host = request.open_host(no_progress)
    (folder,) = (folder for folder, _ in all_sessions())
    with pytest.raises(SessionBusy, match=r"app\.img is being mounted or changed by another"):
        folder.lock_for_mount("app.img")
    host.close()
    request.give_up()
    assert not folder.path.exists(), "there was no session before"


def test_two_mounts_at_once_leave_one_and_a_plain_refusal(
    image: Path, tmp_path: Path, mounts: Mounts
) -> None:
    places = [tmp_path / name for name in ("one", "two")]
    for place in places:
        place.mkdir()
        mounts.directories.append(place)
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "romfsfs", "mount", str(image), str(place)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for place in places
    ]  # fmt: skip
    said = [each.communicate(timeout=60)[1] for each in started]
    assert sorted(each.returncode for each in started) == [0, 1], said
    (refusal,) = (each for each in said if each.startswith("romfsfs: error"))
    assert "already mounted at" in refusal or "is being mounted or changed" in refusal
