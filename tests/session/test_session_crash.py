"""A process is killed at every step of every operation; the next one finds all in order.

What must hold, wherever it happened: the target is the old image or the new one, byte for byte;
every edit is in the work tree; the session opens, and a commit of the edits succeeds.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from crash_child import CRASHED, FLASH_SIZE, device_of
from session_desk import Desk, files_of, tree_of

import romfsfs
from romfsfs.errors import RomfsError
from romfsfs.session.keep import history, steps
from romfsfs.session.rebase.recovery import recover
from romfsfs.session.revert import revert
from romfsfs.session.session import Session

CHILD = Path(__file__).with_name("crash_child.py")
_VARIABLES = ("ROMFSFS_STATE_DIR", "ROMFSFS_CACHE_DIR")


class Crasher:
    """Lets another process do an operation on a session and die at a step of it."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def __call__(self, operation: str, step: str, source: str) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        variables = {name: os.environ[name] for name in _VARIABLES}
        self._process.stdin.write(json.dumps([variables, operation, step, source]) + "\n")
        self._process.stdin.flush()
        code, said = json.loads(self._process.stdout.readline())
        assert code == CRASHED or (step == "power" and "PowerLost" in said), said


@pytest.fixture(scope="module")
def crash() -> Iterator[Crasher]:
    with subprocess.Popen(
        [sys.executable, str(CHILD)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(Path(romfsfs.__file__).parent.parent)},
    ) as process:  # fmt: skip
        yield Crasher(process)
        assert process.stdin is not None
        process.stdin.close()


def reopened(desk: Desk) -> Desk:
    """Another process, later: it mounts what it finds."""
    again = Desk(device_of(desk.source), desk.source)
    again.open()
    return again


def edit(desk: Desk) -> dict[str, bytes | None]:
    """What a user does: change, add, remove, compile. The tree afterwards."""
    desk.write("a.txt", b"edited\n")
    desk.write("added/c.txt", b"c")
    (desk.work / "lib/b.bin").unlink()
    desk.write("app.py", b"x = 1\n")
    return tree_of(desk.work)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    desk = Desk.with_image(
        tmp_path,
        {"a.txt": b"first\n", "lib/b.bin": bytes(200), "app.mpy": b"M\x06\x00\x1f"},
        ["empty"],
    )
    desk.open()
    return desk


@pytest.mark.parametrize("step", steps.COMMIT)
def test_a_commit_that_dies(desk: Desk, step: str, crash: Crasher) -> None:
    old = desk.stored()
    edited = edit(desk)
    crash("commit", step, desk.source)
    target = desk.stored()
    written = target != old
    assert target["a.txt"] == (b"edited\n" if written else b"first\n")
    assert written == (steps.COMMIT.index(step) >= steps.COMMIT.index("target-written"))

    again = reopened(desk)
    assert not again.session.interrupted
    left = dict(edited)
    if written:
        del left["app.mpy"]  # its source replaces it
        assert again.session.status().clean
    assert tree_of(again.work) == left
    again.commit()
    assert again.stored().keys() == {"a.txt", "added/c.txt", "app.mpy"}
    assert again.stored()["a.txt"] == b"edited\n"
    assert again.session.status().clean
    kinds = [entry.kind for entry in history.entries(again.session.folder)]
    assert kinds == ["read", "commit"]
    assert not list(again.session.folder.path.glob("*.tmp"))
    assert not list(desk.image.parent.glob("*.tmp"))


@pytest.mark.parametrize("step", steps.COMMIT)
def test_a_commit_that_dies_twice(desk: Desk, step: str, crash: Crasher) -> None:
    """Recovery is interrupted at each step too, and is done again."""
    edited = edit(desk)
    crash("commit", "target-written", desk.source)
    if steps.COMMIT.index(step) > steps.COMMIT.index("target-written"):
        crash("recover", step, desk.source)
    again = reopened(desk)
    del edited["app.mpy"]
    assert tree_of(again.work) == edited
    assert again.session.status().clean
    assert [entry.kind for entry in history.entries(again.session.folder)] == ["read", "commit"]


@pytest.mark.parametrize("step", steps.COMMIT)
def test_edits_after_the_crash_are_edits(desk: Desk, step: str, crash: Crasher) -> None:
    edit(desk)
    crash("commit", step, desk.source)
    desk.write("a.txt", b"later still\n")
    again = reopened(desk)
    assert (again.work / "a.txt").read_bytes() == b"later still\n"
    assert again.changes()["a.txt"] == "M"
    again.commit()
    assert again.stored()["a.txt"] == b"later still\n"


def camera_desk(folder: Path) -> tuple[Desk, str]:
    """A camera whose image was committed, and what it is opened as."""
    source = f"flash:{folder / 'flash'}"
    desk = Desk(device_of(source), source)
    desk.open()
    desk.write("a.txt", b"first\n")
    desk.commit()
    return desk, source


@pytest.mark.parametrize("step", [*steps.COMMIT[2:], "power"])
def test_a_commit_to_a_camera_that_dies(tmp_path: Path, step: str, crash: Crasher) -> None:
    desk, source = camera_desk(tmp_path)
    edited = edit_camera(desk)
    crash("commit", step, source)
    again = reopened(desk)
    assert tree_of(again.work) == edited
    again.commit()
    flash = (tmp_path / "flash").read_bytes()
    assert len(flash) == FLASH_SIZE
    assert files_of(flash) == {"a.txt": b"edited\n" * 500}


def edit_camera(desk: Desk) -> dict[str, bytes | None]:
    desk.write("a.txt", b"edited\n" * 500)
    return tree_of(desk.work)


def test_a_camera_can_be_rolled_back(tmp_path: Path, crash: Crasher) -> None:
    desk, source = camera_desk(tmp_path)
    edit_camera(desk)
    crash("commit", "power", source)
    session = Session.load(desk.session.folder)
    assert recover(session, device_of(source), rollback=True) == "rolled back"
    assert files_of((tmp_path / "flash").read_bytes()) == {"a.txt": b"first\n"}
    again = reopened(desk)
    assert again.changes() == {"a.txt": "M"}


def test_a_camera_is_not_rolled_back_to_what_the_disk_garbled(
    tmp_path: Path, crash: Crasher
) -> None:
    desk, source = camera_desk(tmp_path)
    edit_camera(desk)
    crash("commit", "power", source)
    session = Session.load(desk.session.folder)
    garbled = session.base_image.read_bytes().replace(b"first", b"\0\0\0\0\0")
    session.base_image.write_bytes(garbled)
    with pytest.raises(RomfsError, match="no image to roll back to"):
        recover(session, device_of(source), rollback=True)
    assert recover(session, device_of(source)) == "finished"


@pytest.mark.parametrize("step", ["recorded", "target-written"])
def test_a_file_can_be_rolled_back(desk: Desk, step: str, crash: Crasher) -> None:
    old = desk.image.read_bytes()
    edited = edit(desk)
    crash("commit", step, desk.source)
    session = Session.load(desk.session.folder)
    assert recover(session, desk.device, rollback=True) == "rolled back"
    assert desk.image.read_bytes() == old
    again = reopened(desk)
    assert tree_of(again.work) == edited
    assert again.changes()


def test_a_target_that_changed_after_the_crash_is_not_overwritten(
    desk: Desk, crash: Crasher
) -> None:
    edited = edit(desk)
    crash("commit", "recorded", desk.source)
    other = desk.image.with_name("other.img")
    desk.image.write_bytes(desk.image.read_bytes() + b"appended elsewhere")
    other.write_bytes(desk.image.read_bytes())
    session = Session.load(desk.session.folder)
    assert recover(session, desk.device).startswith("given up")
    assert desk.image.read_bytes() == other.read_bytes()
    assert tree_of(desk.work) == edited


@pytest.mark.parametrize("step", steps.UNDO)
def test_an_undo_that_dies(desk: Desk, step: str, crash: Crasher) -> None:
    old = desk.stored()
    edit(desk)
    desk.commit()
    new = desk.stored()
    crash("undo", step, desk.source)
    target = desk.stored()
    written = steps.UNDO.index(step) >= steps.UNDO.index("target-written")
    assert target == (old if written else new)
    again = reopened(desk)
    assert again.session.status().clean, "an undo must not show as edits"
    assert again.commit().clean
    assert again.stored() == target
    tree = tree_of(again.work)
    assert tree["a.txt"] == (b"first\n" if written else b"edited\n")
    assert ("app.py" in tree) == (not written)


@pytest.mark.parametrize("step", steps.REVERT)
def test_a_revert_that_dies(desk: Desk, step: str, crash: Crasher) -> None:
    edit(desk)
    crash("revert", step, desk.source)
    again = reopened(desk)
    assert (again.work / "app.py").read_bytes() == b"x = 1\n"
    revert(again.session, ["a.txt", "lib"])
    assert (again.work / "a.txt").read_bytes() == b"first\n"
    assert (again.work / "lib/b.bin").read_bytes() == bytes(200)
    assert again.changes() == {"added": "A", "added/c.txt": "A", "app.py": "A"}


@pytest.mark.parametrize("step", steps.DISCARD)
def test_a_discard_that_dies(desk: Desk, step: str, crash: Crasher) -> None:
    edit(desk)
    crash("discard", step, desk.source)
    again = reopened(desk)
    assert again.session.status().clean
    assert not (again.session.folder.path / "work.old").exists()


@pytest.mark.parametrize("step", steps.OPEN)
def test_a_first_mount_that_dies(tmp_path: Path, step: str, crash: Crasher) -> None:
    desk = Desk.with_image(tmp_path, {"a.txt": b"first\n"})
    before = desk.image.read_bytes()
    crash("open", step, desk.source)
    assert desk.image.read_bytes() == before
    again = reopened(desk)
    assert again.session.status().clean
    assert tree_of(again.work) == {"a.txt": b"first\n"}
    again.write("a.txt", b"second\n")
    again.commit()
    kinds = [entry.kind for entry in history.entries(again.session.folder)]
    assert kinds == ["read", "commit"]


@pytest.mark.parametrize("step", steps.OPEN)
def test_a_mount_of_a_changed_image_that_dies(desk: Desk, step: str, crash: Crasher) -> None:
    """The clean tree of the image before must never meet the new image's record."""
    other = Desk.with_image(desk.image.parent, {"other.txt": b"elsewhere"})
    before = other.image.read_bytes()
    crash("open", step, desk.source)
    assert desk.image.read_bytes() == before
    again = reopened(desk)
    assert again.session.status().clean
    assert tree_of(again.work) == {"other.txt": b"elsewhere"}
