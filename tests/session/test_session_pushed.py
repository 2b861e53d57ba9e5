"""Sessions of what is pushed, and what is left of one that a command began in vain."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from session_desk import Flash, PowerLost, files_of
from stopping import ends_at

from romfsfs.devices.base import Device
from romfsfs.devices.file import FileDevice
from romfsfs.errors import DeviceAbsent, ImageFormatError, SessionBusy, UsageError
from romfsfs.image.writer import encode
from romfsfs.session.keep.folder import make_folder, sessions_dir
from romfsfs.session.opening import drop, enter
from romfsfs.session.rebase.push import PushOptions, push
from romfsfs.session.rebase.read import OpenOptions
from romfsfs.session.rebase.recovery import recover
from romfsfs.session.rebase.undo import undo
from romfsfs.session.session import sessions


class Stop(BaseException):
    """As if the process ended there."""


def known() -> list[str]:
    return [path.name for path in sessions_dir().iterdir()]


def pushed(device: Device, image: bytes, **how: Any) -> None:
    with tempfile.TemporaryFile() as file:
        file.write(image)
        file.flush()
        push(device, device.info().name, file, "given.img", PushOptions(**how))


@pytest.mark.parametrize("backup", [True, False])
def test_a_push_that_is_refused_leaves_no_session(tmp_path: Path, backup: bool) -> None:
    thesis = b"%PDF-1.7 a thesis" * 100
    (tmp_path / "thesis.pdf").write_bytes(thesis)
    for name, why in (("nix.img", DeviceAbsent), ("thesis.pdf", ImageFormatError)):
        with pytest.raises(why):
            pushed(FileDevice(tmp_path / name), encode({"a.txt": b"1"}), backup=backup)
    assert known() == []
    assert (tmp_path / "thesis.pdf").read_bytes() == thesis


def test_a_push_of_what_is_there_already_leaves_no_session(tmp_path: Path) -> None:
    image = encode({"a.txt": b"1"})
    pushed(flash := Flash(tmp_path / "flash", 65536), image)
    drop(make_folder(flash.info().key), "")
    pushed(flash, image)
    assert known() == []
    pushed(flash, encode({"a.txt": b"2"}))
    assert len(known()) == 1


@pytest.mark.parametrize("backup", [True, False])
def test_a_push_that_is_cut_leaves_what_recovers_it(tmp_path: Path, backup: bool) -> None:
    flash = Flash(tmp_path / "flash", 65536)
    flash.power = 100
    with pytest.raises(PowerLost):
        pushed(flash, encode({"a.txt": b"1" * 300}), backup=backup)
    flash.power = 1 << 40
    [session] = sessions()
    assert recover(session, flash) == "finished"


@pytest.mark.parametrize("step", ["recorded", "target-written", "switched", "followed"])
def test_a_push_to_a_file_that_was_killed_is_repeated(tmp_path: Path, step: str) -> None:
    """What is finished first locks the file's folder too, and so must not find it locked by us."""
    file = tmp_path / "app.img"
    first, second = encode({"a.txt": b"1"}), encode({"a.txt": b"2"})
    file.write_bytes(first)
    with ends_at(step, Stop):
        pushed(FileDevice(file), second)
    pushed(FileDevice(file), second)
    assert file.read_bytes() == second
    [session] = sessions()
    undo(session, FileDevice(file))
    assert file.read_bytes() == first


def test_a_push_to_a_file_without_a_backup(tmp_path: Path) -> None:
    """The file is looked at all the same: what is written replaces that and nothing else."""
    (tmp_path / "app.img").write_bytes(encode({"a.txt": b"1"}))
    pushed(FileDevice(tmp_path / "app.img"), encode({"a.txt": b"2"}), backup=False)
    assert files_of((tmp_path / "app.img").read_bytes()) == {"a.txt": b"2"}
    assert known() == []


def test_a_file_that_is_no_image_is_replaced_with_force(tmp_path: Path) -> None:
    (tmp_path / "app.img").write_bytes(b"something else")
    pushed(FileDevice(tmp_path / "app.img"), encode({"a.txt": b"2"}), force=True)
    assert files_of((tmp_path / "app.img").read_bytes()) == {"a.txt": b"2"}


def test_a_mount_that_is_refused_does_not_take_what_another_begins(tmp_path: Path) -> None:
    """A push to the same file has its session by then, and needs it for the way back."""
    image = tmp_path / "app.img"
    image.write_bytes(encode({"a.txt": b"1"}))
    folder = make_folder(str(image))
    with folder.lock_for_change("push"), pytest.raises(SessionBusy):
        enter(FileDevice(image), str(image), OpenOptions())
    assert folder.path.exists()


def test_a_mount_that_is_refused_leaves_no_session(tmp_path: Path) -> None:
    image = tmp_path / "app.img"
    image.write_bytes(encode({"a.txt": b"1"}))
    with pytest.raises(UsageError):
        enter(FileDevice(image), str(image), OpenOptions(board="OPENMV99"))
    assert known() == []
