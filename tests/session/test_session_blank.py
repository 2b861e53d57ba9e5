"""Undo of the first commit: the target is blank again, or the file gone, as it was found."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from crash_table import CRASHED, fail, forked
from session_desk import Desk, Flash

from romfsfs.errors import RomfsError
from romfsfs.image.writer import encode
from romfsfs.session.keep import history, steps
from romfsfs.session.rebase.push import PushOptions, push
from romfsfs.session.rebase.recovery import recover
from romfsfs.session.rebase.transaction import WriteOptions
from romfsfs.session.rebase.undo import undo
from romfsfs.session.session import Session

SIZE = 65536
#: What the target is before; None: no file.
FILES = {"no file": None, "an empty file": b"", "an erased file": b"\xff" * 5000}
TARGETS = [*FILES, "a blank camera", "a blank camera, --new"]
#: Hurt at each step of an undo, which then is finished or taken back.
HURTS = ["kill", "ENOSPC", "EIO"]


def desk_of(target: str, folder: Path) -> Desk:
    if "camera" in target:
        return Desk(Flash(folder / "flash", SIZE), "camera")
    data = FILES[target]
    if data is not None:
        (folder / "app.img").write_bytes(data)
    return Desk.of_file(folder / "app.img")


def there(desk: Desk) -> bytes | None:
    """All that the target holds."""
    if isinstance(desk.device, Flash):
        data = desk.device.path.read_bytes()
        return data[:16] if data.startswith(b"\xff" * 16) else data
    return desk.image.read_bytes() if desk.image.exists() else None


def kinds(session: Session) -> list[str]:
    return [entry.kind for entry in history.entries(session.folder)]


@pytest.fixture(params=TARGETS)
def desk(request: pytest.FixtureRequest, tmp_path: Path) -> Desk:
    return desk_of(request.param, tmp_path)


@pytest.fixture
def before(desk: Desk) -> bytes | None:
    return there(desk)


@pytest.fixture
def committed(desk: Desk, before: bytes | None, request: pytest.FixtureRequest) -> bytes | None:
    """What the target holds after its first commit."""
    desk.open(new=before is None or "--new" in request.node.name)
    desk.write("a.txt", b"first\n")
    desk.commit()
    return there(desk)


def test_the_log_begins_with_what_was_there(
    desk: Desk, before: bytes | None, committed: bytes | None
) -> None:
    first, second = history.entries(desk.session.folder)
    assert (first.kind, second.kind) == ("read", "commit")
    assert first.summary.startswith("no file" if before is None else "blank")
    assert first.missing is (before is None)


def test_undo_brings_it_back_and_an_undo_by_number_the_image(
    desk: Desk, before: bytes | None, committed: bytes | None
) -> None:
    undo(desk.session, desk.device)
    assert there(desk) == before
    assert not any(desk.work.iterdir())
    assert desk.session.status().clean
    with pytest.raises(RomfsError, match="no earlier image"):
        undo(desk.session, desk.device)
    undo(desk.session, desk.device, 1)
    assert there(desk) == committed
    assert (desk.work / "a.txt").read_bytes() == b"first\n"
    undo(desk.session, desk.device)
    assert there(desk) == before
    desk.open()  # as a mount of what is kept
    desk.write("b.txt", b"second\n")
    desk.commit()
    assert kinds(desk.session) == ["read", "commit", "undo", "undo", "undo", "commit"]


def test_no_file_is_not_an_empty_one(tmp_path: Path) -> None:
    """Their images have the same bytes, none."""
    desk = desk_of("no file", tmp_path)
    desk.open(new=True)
    desk.write("a.txt", b"first\n")
    desk.commit()
    desk.image.write_bytes(b"")
    undo(desk.session, desk.device, options=WriteOptions(force=True))
    for number, held in ((2, b""), (0, None), (2, b"")):
        assert undo(desk.session, desk.device, number).there == ""
        assert there(desk) == held


@pytest.mark.parametrize("step", steps.UNDO)
@pytest.mark.parametrize("how", HURTS)
@pytest.mark.parametrize("rollback", [False, True])
def test_hurt_at_each_step(
    step: str, how: str, rollback: bool, tmp_path: Path, desk: Desk, before: bytes | None,
    committed: bytes | None,
) -> None:  # fmt: skip
    def hurt() -> None:
        def reached(name: str) -> None:
            if name == step and how == "kill":
                os._exit(CRASHED)
            if name == step:
                fail(getattr(errno, how), tmp_path)

        steps.on_step = reached
        undo(desk.session, desk.device)

    forked(hurt)
    session = Session.load(desk.session.folder)
    was = session.interrupted
    done = recover(session, desk.device, rollback=rollback)
    assert bool(done) is was
    assert there(desk) in (before, committed)
    if done == "rolled back":
        assert there(desk) == committed
    if done == "finished":
        assert there(desk) == before
    assert session.status().clean
    last = history.entries(session.folder)[-1]
    assert (last.kind == "commit") is (there(desk) == committed)


def test_a_protected_file_is_not_taken_away(
    tmp_path: Path, refuse_writing: Callable[[Path], None]
) -> None:
    desk = desk_of("no file", tmp_path)
    desk.open(new=True)
    desk.write("a.txt", b"first\n")
    desk.commit()
    refuse_writing(desk.image)
    with pytest.raises(RomfsError, match="read-only"):
        undo(desk.session, desk.device)
    assert desk.stored() == {"a.txt": b"first\n"}
    assert not desk.session.interrupted


@pytest.fixture
def refuse_writing(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Root may write anything: the answer of `access` is what an ordinary user gets."""
    from romfsfs.devices import file

    def refuse(path: Path) -> None:
        path.chmod(0o444)
        monkeypatch.setattr(file.os, "access", lambda name, mode: False)

    return refuse


def test_a_push_onto_a_blank_camera_is_undone(tmp_path: Path) -> None:
    flash = Flash(tmp_path / "flash", SIZE)
    with tempfile.TemporaryFile() as image:
        image.write(encode({"a.txt": b"pushed"}))
        image.flush()
        push(flash, "camera", image, "given.img")
        desk = Desk(flash, "camera")
        desk.open()
        assert kinds(desk.session) == ["read", "push"]
        undo(desk.session, flash)
        assert flash.path.read_bytes().startswith(b"\xff" * 16)
        undo(desk.session, flash, 1)
        assert flash.path.read_bytes().startswith(encode({"a.txt": b"pushed"}))
        undo(desk.session, flash)
        push(flash, "camera", image, "given.img", PushOptions(kind="reset"))
    assert kinds(desk.session) == ["read", "push", "undo", "undo", "undo", "reset"]


def test_trimming_leaves_the_images_of_an_interrupted_transaction(tmp_path: Path) -> None:
    """`log --keep` may come at any moment, and the record alone names them."""
    desk = Desk(Flash(tmp_path / "flash", SIZE), "camera")
    desk.open()
    for text in (b"1", b"2", b"3"):
        desk.write("a.txt", text)
        desk.commit()
    forked(lambda: _killed_undo(desk))
    with pytest.raises(RomfsError, match="may need the images of the log"):
        history.keep_within(desk.session.folder, 0)
    assert recover(Session.load(desk.session.folder), desk.device) == "finished"
    assert (desk.work / "a.txt").read_bytes() == b"1"


def _killed_undo(desk: Desk) -> None:
    def reached(name: str) -> None:
        if name == "recorded":
            os._exit(CRASHED)

    steps.on_step = reached
    undo(desk.session, desk.device, 1)
