"""Ways in which edits and logged images were lost, or commits refused without reason."""

from __future__ import annotations

import contextlib
import errno
import multiprocessing
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from session_desk import Desk, Flash, PowerLost, files_of, image_of, tree_of
from stopping import ends_at

from romfsfs.cli import main
from romfsfs.devices import file as file_device
from romfsfs.errors import DeviceError, RomfsError, SessionBusy, TargetChanged
from romfsfs.image.writer import encode
from romfsfs.session.keep import history, locks, recall, steps
from romfsfs.session.keep.folder import SessionFolder, folder_of
from romfsfs.session.keep.locks import MountedAt
from romfsfs.session.opening import drop_abandoned
from romfsfs.session.plan.conversions import Conversions
from romfsfs.session.rebase import prepare, recovery
from romfsfs.session.rebase import push as pushing
from romfsfs.session.rebase.commit import commit, commit_to
from romfsfs.session.rebase.push import PushOptions, push
from romfsfs.session.rebase.record import Record
from romfsfs.session.rebase.recovery import recover
from romfsfs.session.rebase.target import file as file_target
from romfsfs.session.rebase.target.base import Held
from romfsfs.session.rebase.target.file import FileTarget
from romfsfs.session.rebase.transaction import Mounted
from romfsfs.session.rebase.undo import undo
from romfsfs.session.revert import leave_work, revert
from romfsfs.session.session import Session
from romfsfs.system import files


class Stop(Exception):
    """The operation ends here."""


def log_images(desk: Desk) -> dict[int, bytes]:
    return {e.number: image_of(desk, e.number).read_bytes()
            for e in history.entries(desk.session.folder)}  # fmt: skip


@pytest.fixture
def committed(desk: Desk) -> Desk:
    """Images 0 (found), 1 ('one') and 2 ('two')."""
    desk.open()
    for content in (b"one", b"two"):
        desk.write("a.txt", content)
        desk.commit()
    return desk


def flash_desk(folder: Path) -> tuple[Desk, Flash]:
    flash = Flash(folder / "flash", 65536)
    desk = Desk(flash, "camera")
    desk.open()
    desk.write("a.txt", b"mine")
    desk.commit()
    return desk, flash


@pytest.mark.parametrize("step", ["after-placed", "recorded"])
@pytest.mark.parametrize("number", [None, 0])
def test_an_undo_that_stops_early_costs_no_image_of_the_log(
    committed: Desk, step: str, number: int | None
) -> None:
    """The next commit wrote into the image that the undo had only linked to."""
    before = log_images(committed)
    with ends_at(step, Stop):
        undo(committed.session, committed.device, number)
    committed.write("a.txt", b"three")
    committed.commit()
    assert {number: log_images(committed)[number] for number in before} == before
    assert committed.stored()["a.txt"] == b"three"
    assert committed.again().open().status().clean


@pytest.mark.parametrize("way", ["all", "by the source's name", "by the stored name", "discard"])
def test_a_source_that_its_compiled_form_took_the_place_of_comes_back(desk: Desk, way: str) -> None:
    source, compiled, text = "app.py", "app.mpy", b"x = 1\n"
    desk.open()
    desk.write(source, text)
    desk.commit()
    stored = desk.stored()[compiled]
    desk.write("b~", b"junk: the tree stays")
    (desk.work / source).unlink()
    desk.write(compiled, stored)
    paths = {"by the source's name": [source], "by the stored name": [compiled]}.get(way, [])
    revert(desk.session, paths)
    assert (desk.work / source).read_bytes() == text
    assert not (desk.work / compiled).exists()
    assert desk.session.status().clean


def test_a_compiled_file_that_a_source_took_the_place_of_comes_back(tmp_path: Path) -> None:
    desk = Desk.with_image(tmp_path, {"lib.mpy": b"M\x06\x00\x1f"})
    desk.open()
    (desk.work / "lib.mpy").unlink()
    desk.write("lib.py", b"x = 1\n")
    assert sorted(revert(desk.session, ["lib.mpy"])) == ["lib.mpy", "lib.py"]
    assert tree_of(desk.work) == {"lib.mpy": b"M\x06\x00\x1f"}


def test_a_file_that_is_opened_and_half_written_while_others_are_converted(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.open()
    desk.write("a.txt", b"all of it")
    writing: list[str] = []
    asked = []

    def convert_for_minutes(step: str) -> None:
        if step == "encoded" and not asked:
            asked.append(step)
            desk.write("a.txt", b"half")
            writing.append("a.txt")

    steps.on_step = convert_for_minutes
    monkeypatch.setattr(prepare, "WRITERS_SECONDS", 0.1)
    before = desk.image.read_bytes()
    with pytest.raises(RomfsError, match="1 file is open for writing"):
        commit(desk.session, desk.device, mounted=Mounted(None, lambda: writing))
    assert desk.image.read_bytes() == before
    writing.clear()
    desk.write("a.txt", b"the other half too")
    desk.commit()
    assert desk.stored()["a.txt"] == b"the other half too"


def test_a_file_that_was_saved_while_others_were_converted_is_stored_as_it_is_now(
    desk: Desk,
) -> None:
    desk.open()
    desk.write("a.txt", b"half")
    saves = [b"whole"]

    def save(step: str) -> None:
        if step == "encoded" and saves:
            desk.write("a.txt", saves.pop())

    steps.on_step = save
    desk.commit()
    assert desk.stored()["a.txt"] == b"whole"


@pytest.mark.parametrize("when", [(Conversions, "run"), (prepare, "encode_plan")])
@pytest.mark.parametrize("path", ["pkg", "pkg/mod.py", "pkg/raw.bin"])
def test_what_becomes_a_file_or_a_folder_meanwhile_is_stored_as_that(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, when: tuple[Any, str], path: str
) -> None:
    """It was "not a directory", or the disk of the session was said to be at fault."""
    desk.open()
    for name in ("mod.py", "raw.bin"):
        desk.write(f"pkg/{name}", f"x = {len(name)}\n".encode())
    place, real = desk.work / path, getattr(*when)

    def late(*given: Any) -> Any:
        if path == "pkg" and place.is_dir():
            shutil.rmtree(place)
            place.write_bytes(b"a file now")
        elif path != "pkg" and place.is_file():
            place.unlink()
            (place / "inside").mkdir(parents=True)
        return real(*given)

    monkeypatch.setattr(*when, late)
    desk.commit()
    assert desk.session.status().clean
    stored = desk.stored()
    if path == "pkg":
        assert stored["pkg"] == b"a file now"
    else:
        assert desk.session.base.by_source[f"{path}/inside"].is_dir


def test_a_swap_file_is_no_file_being_written(desk: Desk) -> None:
    """With Vim open, nothing could be committed."""
    desk.open()
    desk.write("a.txt", b"new")
    swap = [".a.txt.swp", ".goutputstream-AB12CD", "lib/.b.bin.swp"]
    commit(desk.session, desk.device, mounted=Mounted(None, lambda: swap))
    assert desk.stored()["a.txt"] == b"new"


def test_a_close_that_is_on_its_way_is_waited_for(desk: Desk) -> None:
    desk.open()
    desk.write("a.txt", b"new")
    told = iter([["a.txt"], ["a.txt"], []])
    commit(desk.session, desk.device, mounted=Mounted(None, lambda: next(told, [])))
    assert desk.stored()["a.txt"] == b"new"


def commit_from(state: str, image: str, text: bytes, barrier: object) -> None:
    os.environ["ROMFSFS_STATE_DIR"] = state
    desk = Desk.of_file(Path(image))
    desk.open()
    desk.write("a.txt", text)
    barrier.wait()  # type: ignore[attr-defined]
    try:
        desk.commit()
    except TargetChanged:
        os._exit(7)
    os._exit(0)


@pytest.mark.parametrize("round_", range(3))
def test_two_state_folders_that_commit_to_one_file_at_once(desk: Desk, round_: int) -> None:
    """Two users, or a container and its host: both were told that they had committed."""
    states = [str(desk.image.parent / name) for name in ("one", "two")]
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(2)
    both = [
        context.Process(target=commit_from, args=(state, str(desk.image), state.encode(), barrier))
        for state in states
    ]
    for process in both:
        process.start()
    for process in both:
        process.join(60)
    codes = [process.exitcode for process in both]
    assert sorted(map(str, codes)) == ["0", "7"]
    assert desk.stored()["a.txt"] == states[codes.index(0)].encode()


def test_a_program_that_writes_the_file_at_the_last_moment_loses_nothing(desk: Desk) -> None:
    desk.open()
    desk.write("a.txt", b"mine")
    writes = 0

    def write(step: str) -> None:
        nonlocal writes
        if step == "recorded":
            writes += 1
            desk.image.write_bytes(encode({"theirs.txt": b"%d" % writes}))

    steps.on_step = write
    for forced in (False, True):
        with pytest.raises(TargetChanged, match="just before it was to be replaced"):
            desk.commit(force=forced)
        assert desk.stored() == {"theirs.txt": b"%d" % writes}
        assert not desk.session.interrupted
        assert (desk.work / "a.txt").read_bytes() == b"mine"
    steps.on_step = lambda step: None
    theirs = desk.image.read_bytes()
    desk.commit(force=True)
    assert theirs in log_images(desk).values()


def test_a_program_that_writes_the_file_while_ours_is_written_loses_nothing(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.open()
    desk.write("a.txt", b"mine")
    theirs = encode({"theirs.txt": b"1"})
    copy = file_device.copy_all

    def slowly(*args: Any) -> None:
        copy(*args)
        if args[3] == "writing":
            desk.image.write_bytes(theirs)

    monkeypatch.setattr(file_device, "copy_all", slowly)
    with pytest.raises(TargetChanged, match="just before it was to be replaced"):
        desk.commit()
    assert desk.image.read_bytes() == theirs
    assert (desk.work / "a.txt").read_bytes() == b"mine"


def test_a_push_that_was_interrupted_is_finished_or_taken_back(tmp_path: Path) -> None:
    """It said that undo brings back what was there, and nothing could."""
    for rollback in (False, True):
        folder = tmp_path / str(rollback)
        folder.mkdir()
        os.environ["ROMFSFS_STATE_DIR"] = str(folder / "state")
        desk, flash = flash_desk(folder)
        before = flash.path.read_bytes()
        other = encode({"other.txt": b"pushed" * 300})
        flash.power = 100
        with pytest.raises(PowerLost):
            push_image(flash, other)
        flash.power = 1 << 40
        assert files_of_or_none(flash) is None
        session = Session.load(desk.session.folder)
        assert session.interrupted
        said = recover(session, flash, rollback=rollback)
        assert said == ("rolled back" if rollback else "finished")
        if rollback:
            assert files_of(flash.path.read_bytes()) == files_of(before)
        else:
            assert files_of(flash.path.read_bytes()) == {"other.txt": b"pushed" * 300}
            kinds = [e.kind for e in history.entries(session.folder)]
            assert kinds == ["read", "commit", "push"]
            undo(session, flash)
            assert files_of(flash.path.read_bytes()) == {"a.txt": b"mine"}


def push_image(flash: Flash, image: bytes, kind: str = "push") -> None:
    with tempfile.TemporaryFile() as file:
        file.write(image)
        file.flush()
        push(flash, "camera", file, "other.img", PushOptions(kind=kind))


def files_of_or_none(flash: Flash) -> dict[str, bytes] | None:
    data = flash.path.read_bytes()
    return files_of(data) if data.startswith(b"\xd2\xcd\x31") else None


def test_an_undo_after_a_push_is_rolled_back_to_what_was_pushed(tmp_path: Path) -> None:
    desk, flash = flash_desk(tmp_path)
    pushed = encode({"other.txt": b"pushed"})
    push_image(flash, pushed)
    session = Session.load(desk.session.folder)
    with ends_at("target-written", Stop):
        undo(session, flash)
    assert files_of(flash.path.read_bytes()) == {"a.txt": b"mine"}
    assert recover(session, flash, rollback=True) == "rolled back"
    assert flash.path.read_bytes().startswith(pushed)


@pytest.mark.parametrize("theirs", [encode({"x": b"y"}), b"no image at all", b"", b"\xff" * 999])
def test_a_forced_commit_is_rolled_back_to_what_the_file_held(desk: Desk, theirs: bytes) -> None:
    desk.open()
    desk.write("a.txt", b"mine")
    desk.image.write_bytes(theirs)
    with ends_at("target-written", Stop):
        desk.commit(force=True)
    assert desk.stored()["a.txt"] == b"mine"
    assert recover(desk.session, desk.device, rollback=True) == "rolled back"
    assert desk.image.read_bytes() == theirs


@pytest.mark.parametrize("how", ["commit", "push"])
def test_the_same_image_again_over_another_s_is_not_finished_before_it_is_written(
    tmp_path: Path, how: str
) -> None:
    """The base is the new one from the start: only the camera tells how far the write came."""
    flash = Flash(tmp_path / "flash", 65536)
    push_image(flash, mine := encode({"a.txt": b"mine", "big.bin": bytes(9000)}))
    desk = Desk(flash, "camera")
    if how == "commit":
        desk.open()
    theirs = encode({"theirs.txt": b"theirs" * 100})
    flash.path.write_bytes(theirs + b"\xff" * (flash.size - len(theirs)))
    flash.power = 5000
    with pytest.raises(PowerLost):
        desk.commit(force=True) if how == "commit" else push_image(flash, mine, how)
    flash.power = 1 << 40
    assert files_of_or_none(flash) is None
    session = Session.load(folder_of(flash.info().key))
    assert recover(session, flash) == "finished"
    assert flash.path.read_bytes().startswith(mine)
    assert not session.interrupted
    kinds = [entry.kind for entry in history.entries(session.folder)]
    assert kinds == ["read", "push", "read", how]


@pytest.mark.parametrize(
    ("step", "done", "kinds"),
    [
        ("recorded", "rolled back", []), ("target-written", "finished", ["read", "commit"]),
        ("switched", "finished", ["read", "commit"]), ("logged", "finished", ["read", "commit"]),
    ],
)  # fmt: skip
def test_the_same_image_again_over_a_file_that_another_changed(
    desk: Desk, step: str, done: str, kinds: list[str]
) -> None:
    desk.open()
    theirs = encode({"theirs.txt": b"theirs"})
    desk.image.write_bytes(theirs)
    with ends_at(step, Stop):
        desk.commit(force=True)
    written = desk.image.read_bytes()
    assert (written == theirs) == (step == "recorded")
    if step in ("switched", "logged"):  # it was written: what comes later does not take it back
        desk.image.write_bytes(encode({"later.txt": b"later"}))
    assert recover(desk.session, desk.device) == done
    assert not desk.session.interrupted
    assert [entry.kind for entry in history.entries(desk.session.folder)][1:] == kinds
    assert desk.image.read_bytes() == (
        encode({"later.txt": b"later"}) if step in ("switched", "logged") else written
    )


def test_a_commit_that_made_the_file_is_rolled_back_to_none(tmp_path: Path) -> None:
    desk = Desk.of_file(tmp_path / "app.img")
    desk.open(new=True)
    with ends_at("target-written", Stop):
        desk.commit()
    assert recover(desk.session, desk.device, rollback=True) == "rolled back"
    assert not desk.image.exists()


def test_a_push_of_a_partition_dump_can_be_undone(tmp_path: Path) -> None:
    """Bytes follow the image in its file: undo took that for a change by somebody else."""
    desk, flash = flash_desk(tmp_path)
    pushed = encode({"other.txt": b"pushed"})
    push_image(flash, pushed + b"\xff" * 3000)
    assert undo(Session.load(desk.session.folder), flash)[0].kind == "commit"
    assert files_of(flash.path.read_bytes()) == {"a.txt": b"mine"}


def test_edits_outlive_a_push(tmp_path: Path) -> None:
    desk, flash = flash_desk(tmp_path)
    desk.write("a.txt", b"edited")
    pushed = encode({"a.txt": b"pushed", "b.txt": b"new"})
    push_image(flash, pushed, "reset")
    desk.open()
    assert (desk.work / "a.txt").read_bytes() == b"edited"
    assert (desk.work / "b.txt").read_bytes() == b"new"
    assert desk.changes() == {"a.txt": "M"}
    assert history.entries(desk.session.folder)[-1].kind == "reset"


def test_files_that_are_called_as_ours_are_the_user_s(desk: Desk) -> None:
    theirs = [desk.image.with_name("app.img.1.tmp"), desk.image.with_name("app.img.77.tmp")]
    for path in theirs:
        path.write_bytes(b"the user's")
    names = [".romfsfs.restore.000001", "lib/.romfsfs.restore.000002"]
    desk.image.write_bytes(encode({**dict.fromkeys(names, b"stored"), "a.txt": b"first\n"}))
    desk.open()
    desk.write("a.txt", b"new")
    desk.write("lib/.romfsfs.restore.000003", b"the user's")
    desk.open()  # resumed
    desk.commit()
    assert [path.read_bytes() for path in theirs] == [b"the user's"] * 2
    assert {name: desk.stored().get(name) for name in names} == dict.fromkeys(names, b"stored")
    assert (desk.work / "lib/.romfsfs.restore.000003").exists()


def test_dropping_everything_asks_or_is_told_yes(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    desk.open()
    desk.write("a.txt", b"edited")
    assert main(["revert", str(desk.image)]) == 2
    assert "--yes" in capsys.readouterr().err
    assert (desk.work / "a.txt").read_bytes() == b"edited"
    assert main(["revert", str(desk.image), "--yes"]) == 0
    assert not desk.session.has_work


def test_what_was_made_for_another_target_is_made_anew(desk: Desk) -> None:
    """The board was chosen later: "nothing to commit", and the old bytes stayed."""
    desk.open()
    desk.write("app.py", b"@micropython.viper\ndef f() -> int:\n    return 1\n")
    desk.write("same.py", b"x = 1\n")
    desk.open(board="OPENMV4")
    desk.commit()
    first = desk.stored()
    desk.open(board="OPENMV2")
    entries = {entry.path: entry for entry in desk.session.status().entries}
    assert entries["app.py"].change.value == "modified"
    [why] = [d.message for d in entries["app.py"].diagnostics if d.code == "stale"]
    assert "march" in why or "architecture" in why
    desk.commit()
    assert desk.stored()["app.mpy"] != first["app.mpy"]
    assert desk.stored()["same.mpy"] == first["same.mpy"]
    assert desk.session.status().clean
    shutil.rmtree(desk.work)
    desk.open(board="OPENMV4")  # and known from what is recalled
    assert desk.changes()["app.py"] == "M"
    assert desk.commit().clean is False
    assert desk.stored() == first


def test_a_session_is_forgotten_when_asked_to(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    desk.open()
    desk.write("a.txt", b"edited")
    assert main(["sessions", "--forget", str(desk.image)]) == 2
    assert "--yes" in capsys.readouterr().err
    with desk.session.folder.lock_for_mount("app.img") as lock:
        lock.write(MountedAt(1, "/somewhere"))
        assert main(["sessions", "--forget", str(desk.image), "--yes"]) == 1
    assert (desk.work / "a.txt").exists()
    assert main(["sessions", "--forget", str(desk.image), "--yes"]) == 0
    assert not desk.session.folder.path.exists()


def days_later(desk: Desk, days: int) -> None:
    """Set the times of all that the session's folder holds back."""
    for path in desk.session.folder.path.iterdir():
        then = path.stat().st_mtime - days * 86400
        os.utime(path, (then, then))


@pytest.mark.parametrize("work", ["left by a commit", "none"])
def test_a_session_whose_file_is_gone_is_forgotten_after_90_days(desk: Desk, work: str) -> None:
    desk.open()
    if work == "none":
        shutil.rmtree(desk.work)
    else:
        desk.write("a.txt", b"edited")
        desk.commit()
    desk.image.unlink()
    assert drop_abandoned() == []
    days_later(desk, 89)
    assert drop_abandoned() == []
    days_later(desk, 2)
    assert drop_abandoned() == [str(desk.image)]
    assert not desk.session.folder.path.exists()


def test_a_file_that_is_gone_for_a_moment_keeps_its_log(desk: Desk) -> None:
    """It is on a disk that was unplugged, or the clock was wrong when it was found gone."""
    desk.open()
    shutil.rmtree(desk.work)
    image, folder = desk.image.read_bytes(), desk.session.folder
    days_later(desk, 100)
    desk.image.unlink()
    assert drop_abandoned() == []
    desk.image.write_bytes(image)
    days_later(desk, 100)
    assert drop_abandoned() == []  # it is back
    desk.image.unlink()
    for wrong in (0.0, time.time() + 86400):
        folder.gone.touch()
        os.utime(folder.gone, (wrong, wrong))
        assert drop_abandoned() == []
        assert abs(folder.gone.stat().st_mtime - time.time()) < 3600
    days_later(desk, 100)
    folder.log.write_text("used since")
    assert drop_abandoned() == []
    assert len(history.entries(folder)) == 1


@pytest.mark.parametrize("kept", ["edit", "never packed", "interrupted", "damaged", "mounted"])
def test_what_is_not_known_to_be_needless_is_never_forgotten(desk: Desk, kept: str) -> None:
    desk.open()
    folder = desk.session.folder
    if kept == "edit":
        desk.write("a.txt", b"edited")
    elif kept == "never packed":
        desk.write(".git/config", b"mine")
    elif kept == "interrupted":
        shutil.rmtree(desk.work)
        folder.record.touch()
    elif kept == "damaged":
        folder.base.write_bytes(b"{")
    desk.image.unlink()
    with contextlib.ExitStack() as held:
        if kept == "mounted":
            held.enter_context(folder.lock_for_mount("app.img")).write(MountedAt(1, "/cam"))
        for _ in range(3):
            assert drop_abandoned() == []
            days_later(desk, 100)
        assert folder.info.exists()
        assert desk.work.exists() == (kept != "interrupted")


def test_what_is_remembered_of_sources_is_trimmed_with_them(desk: Desk) -> None:
    desk.open()
    desk.write("app.py", b"x = 1\n")
    desk.commit()
    memory = recall.Recall("")
    assert list((memory.folder / "index").iterdir())
    memory.trim(0)
    assert not list((memory.folder / "index").iterdir())
    assert not list((memory.folder / "objects").iterdir())


def test_a_push_after_a_read_that_was_given_up_shows_what_was_pushed(tmp_path: Path) -> None:
    """Not the tree that the read had extracted: a commit would write the old files back."""
    flash = Flash(tmp_path / "flash", 65536)
    image = encode({"old.txt": b"old"})
    flash.path.write_bytes(image + b"\xff" * (65536 - len(image)))
    desk = Desk(flash, "camera")
    with ends_at("recorded", KeyboardInterrupt):
        desk.open()
    with open(tmp_path / "new.img", "w+b") as file:
        file.write(encode({"new.txt": b"new"}))
        file.flush()
        push(flash, "camera", file, "new.img")
    desk.open()
    assert tree_of(desk.work) == {"new.txt": b"new"}


def test_a_file_that_was_replaced_is_not_called_unchanged(
    committed: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk fails after the rename, as the folder is synced: the next commit goes on there."""
    real = files.sync_dir

    def failing(folder: str | os.PathLike[str]) -> None:
        if os.fspath(folder) == os.fspath(committed.image.parent):
            raise OSError(errno.EIO, "Input/output error")
        real(folder)

    committed.write("a.txt", b"three")
    monkeypatch.setattr(files, "sync_dir", failing)
    with pytest.raises(DeviceError) as refused:
        committed.commit()
    assert refused.value.next_step.startswith("the file has changed")
    assert committed.stored()["a.txt"] == b"three"
    monkeypatch.setattr(files, "sync_dir", real)
    report = committed.again().commit()
    assert (report.clean, report.recovered) == (True, "finished")


def test_a_session_that_is_forgotten_while_it_is_waited_for(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock of a file that has no name any more keeps nobody out."""
    real = locks.lock_within

    def forgotten(fd: int, seconds: float) -> bool:
        shutil.rmtree(desk.session.folder.path)
        return real(fd, seconds)

    folder = desk.open().folder
    monkeypatch.setattr(locks, "lock_within", forgotten)
    with pytest.raises(SessionBusy):
        folder.lock_for_mount("app.img")


@pytest.mark.parametrize("name", ["app.img", "mine.txt", "its copy"])
def test_a_file_that_the_disk_does_not_give_is_named(
    desk: Desk, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system's own error says of a read which descriptor it was, at most."""

    def failing(fd: int, *_: object) -> str:
        raise OSError(errno.EIO, "Input/output error")

    desk.open()
    desk.write("mine.txt", b"mine")
    session = Session.load(desk.session.folder)
    if name == "mine.txt":
        monkeypatch.setattr("romfsfs.session.tree.digests.digest_fd", failing)
    elif name == "app.img":
        os.utime(desk.image, ns=(1, 1))
        monkeypatch.setattr(file_device, "digest_fd", failing)
    else:
        copy = session.folder.image(session.base.digest)
        os.utime(copy, ns=(1, 1))
        session, name = Session.load(session.folder), copy.name
        monkeypatch.setattr("romfsfs.session.keep.base_image.digest_fd", failing)
    with pytest.raises((OSError, RomfsError), match=r"(?i)input/output error") as refused:
        commit(session, desk.device)
    error = refused.value
    path = error.where if isinstance(error, RomfsError) else error.filename
    assert os.path.basename(path) == name


@pytest.mark.parametrize("step", ["recorded", "target-written"])
@pytest.mark.parametrize("theirs", [encode({"theirs.txt": b"1"}), b"no image", None])
def test_a_file_that_another_changed_after_a_crash_is_not_called_rolled_back(
    desk: Desk, step: str, theirs: bytes | None
) -> None:
    """What the commit was to replace, with --force, is in the log: nobody else has it now."""
    desk.open()
    desk.write("a.txt", b"mine")
    desk.image.write_bytes(unseen := encode({"unseen.txt": b"a week's work"}))
    with ends_at(step, Stop):
        desk.commit(force=True)
    desk.image.unlink()
    if theirs is not None:
        desk.image.write_bytes(theirs)
    assert recover(desk.again().session, desk.device).startswith("given up, since the target")
    found = desk.image.read_bytes() if desk.image.exists() else None
    assert (found, (desk.work / "a.txt").read_bytes()) == (theirs, b"mine")
    assert unseen in log_images(desk).values()


FREE = "nothing was written to the target and your edits are kept; free space there, "
ELSEWHERE = "or use another place with $ROMFSFS_STATE_DIR, and try again"
TRIM = "romfsfs log {image} --keep 0 drops all but the last two images, and try again"
BOOKS = "your edits are kept; free space there, then: romfsfs recover {image}"


@pytest.mark.parametrize(
    ("where", "doing", "log", "said"),
    [
        ("encoded", "commit", 1, f"the new image cannot be made: {{why}}; {FREE}{ELSEWHERE}"),
        ("place", "commit", 1, f"the commit cannot begin: {{why}}; {FREE}{ELSEWHERE}"),
        ("save", "commit", 1, f"the commit cannot begin: {{why}}; {FREE}{ELSEWHERE}"),
        ("save", "commit", 2, f"the commit cannot begin: {{why}}; {FREE}{ELSEWHERE}"),
        ("save", "commit", 3, f"the commit cannot begin: {{why}}; {FREE}{TRIM}"),
        ("place", "force", 1, f"what the target holds cannot be kept: {{why}}; {FREE}{ELSEWHERE}"),
        ("save", "undo", 2, f"the undo cannot begin: {{why}}; {FREE}{ELSEWHERE}"),
        *((step, "commit", 1, "the image is on the target and verified, but the session could not "
           f"be updated: {{why}}; {BOOKS}")
          for step in ("switched", "followed", "sources", "logged")),
        ("switched", "open", 1, "the image is read, but the session could not be updated: {why}; "
         f"{BOOKS}"),
    ],
)  # fmt: skip
def test_what_is_said_where_the_sessions_disk_is_full(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, where: str, doing: str, log: int, said: str
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    def step(name: str) -> None:
        if name == where:
            full()

    if doing != "open":
        desk.open()
        for number in range(log - 1):
            desk.write("a.txt", b"%d" % number)
            desk.commit()
        if doing != "undo":
            desk.write("a.txt", b"more")
        if doing == "force":
            desk.image.write_bytes(encode({"b.txt": b"other"}))
    if where == "place":
        monkeypatch.setattr(SessionFolder, "place", full)
    elif where == "save":
        monkeypatch.setattr(Record, "save", full)
    else:
        monkeypatch.setattr(steps, "on_step", step)
    ways = {"open": desk.open, "undo": lambda: undo(desk.session, desk.device)}
    with pytest.raises(RomfsError) as caught:
        ways.get(doing, lambda: desk.commit(force=doing == "force"))()
    why = f"No space left on device ({desk.session.folder.path})"
    assert caught.value.line == said.format(why=why, image=desk.image)


DONE, BACK, UP = recovery._FINISHED, recovery._ROLLED_BACK, recovery._GIVEN_UP
NOT_BEGUN = recovery._NOT_BEGUN


@pytest.mark.parametrize(
    ("how", "done", "calls"),
    [
        ({"switched": True}, DONE, "finish"),
        ({"switched": True, "rollback": True}, DONE, "finish"),
        ({"switched": True, "writes": False}, DONE, "finish"), ({"writes": False}, BACK, "forget"),
        ({"holds": "new"}, DONE, "finish"), ({"holds": "new", "atomic": True}, DONE, "finish"),
        ({"holds": "new", "rollback": True}, BACK, "put_back forget"),
        ({"holds": "new", "rollback": True, "atomic": True}, BACK, "put_back forget"),
        ({"holds": None, "new": None}, DONE, "finish"),
        ({"holds": "old", "atomic": True}, BACK, "forget"),
        ({"holds": None, "old": None, "atomic": True}, BACK, "forget"),
        ({"holds": "old", "gone": "old", "atomic": True}, UP, "give_up"),
        ({"holds": "other", "atomic": True}, UP, "give_up"),
        ({"holds": "new", "gone": "new", "atomic": True}, UP, "give_up"),
        ({"holds": "other", "elses": True}, UP, "elses give_up"),
        ({"holds": "other", "elses": True, "before": ""}, NOT_BEGUN, "elses give_up"),
        ({"holds": "other"}, DONE, "elses check write finish"),
        ({"holds": "new", "gone": "new"}, DONE, "elses check write finish"),
        ({"holds": "other", "rollback": True}, BACK, "elses put_back forget"),
    ],
)  # fmt: skip
def test_what_becomes_of_an_interrupted_transaction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: dict[str, Any], done: str, calls: str
) -> None:
    """By what the target holds, what the record knows, and what is asked for."""
    called: list[str] = []
    gone = how.get("gone")
    for name in {"new", "old"} - {gone}:
        (tmp_path / name).touch()
    places = {each: each and tmp_path / each for each in ("new", "old", "other", None)}
    record: Any = SimpleNamespace(
        is_switched=lambda folder: how.get("switched", False), writes=how.get("writes", True),
        slot="B", before=Held(how.get("before", "old"), 1),
        image=lambda folder: places[how.get("new", "new")],
        image_before=lambda folder: places[how.get("old", "old")],
    )  # fmt: skip
    target: Any = SimpleNamespace(
        slot="", atomic=how.get("atomic", False),
        holds=lambda path: path == places[how.get("holds", "other")],
    )  # fmt: skip
    for name, each in (
        ("finish", "finish"), ("forget", "forget"), ("give_up", "give_up"), ("write", "write"),
        ("_put_back", "put_back"), ("_check_whole", "check"),
    ):  # fmt: skip
        monkeypatch.setattr(recovery, name, lambda *_, each=each: called.append(each))
    monkeypatch.setattr(
        recovery, "_is_somebody_elses", lambda *_: called.append("elses") or how.get("elses", False)
    )
    session: Any = SimpleNamespace(folder=None)
    found = recovery._recover(session, target, record, how.get("rollback", False), Mounted(), str)
    assert (found, " ".join(called)) == (done, calls)
    decided = how.get("switched", False) or not how.get("writes", True)
    assert target.slot == ("" if decided else "B")


@pytest.mark.parametrize(
    ("interrupted", "unit", "found"),
    [(True, 0, "kept"), (True, 16, "kept"), (False, 16, "nothing")],
)
def test_what_a_push_without_a_backup_takes_for_what_was_there(
    interrupted: bool, unit: int, found: str
) -> None:
    """After one that was interrupted, what that found: the camera holds half of an image."""
    device = SimpleNamespace(info=lambda: SimpleNamespace(header_unit=unit))
    target: Any = SimpleNamespace(atomic=False, device=device)
    record: Any = SimpleNamespace(before="kept") if interrupted else None
    session: Any = None
    options = PushOptions(backup=False)
    before = pushing._before(session, target, options, record, str)  # type: ignore[arg-type]
    assert before == ("kept" if found == "kept" else Held("", 0))


def test_a_file_is_written_alone(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a commit to another file too: whoever writes to its folder meanwhile is refused."""
    done: list[str] = []
    alone, write = FileTarget.alone, FileTarget.write

    @contextlib.contextmanager
    def watched(target: FileTarget) -> Iterator[None]:
        with alone(target):
            done.append("alone")
            yield
        done.append("over")

    def writing(target: FileTarget, *given: Any) -> Any:
        done.append("write")
        return write(target, *given)

    monkeypatch.setattr(FileTarget, "alone", watched)
    monkeypatch.setattr(FileTarget, "write", writing)
    desk.open()
    done.clear()
    commit_to(desk.session, file_device.FileDevice(tmp_path / "other.img"))
    assert done == ["alone", "write", "over"]
    done.clear()
    desk.write("a.txt", b"more")
    desk.commit()
    assert done == ["alone", "write", "over"]
    done.clear()
    (tmp_path / "given.img").write_bytes(encode({"b.txt": b"other"}))
    with (tmp_path / "given.img").open("rb") as image:
        push(desk.device, desk.source, image, "given.img", PushOptions(force=True))
    assert done == ["alone", "write", "over"]


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EIO])
def test_a_folder_that_its_file_system_cannot_sync(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """A folder that VirtualBox shares: every commit there failed after it had been written. Nor
    could the state folder be there."""
    desk.open()
    desk.write("a.txt", b"mine")
    fsync, there = os.fsync, os.stat(desk.image.parent)

    def on_such(fd: int) -> None:
        status = os.fstat(fd)
        ours = number == errno.EINVAL and stat.S_ISDIR(status.st_mode)
        if ours or os.path.samestat(status, there):
            raise OSError(number, os.strerror(number))
        fsync(fd)

    monkeypatch.setattr(os, "fsync", on_such)
    if number == errno.EINVAL:
        desk.commit()
        shutil.rmtree(desk.work / "lib")
        revert(desk.session, ["lib"])
        assert desk.changes() == {}
    else:
        with pytest.raises(DeviceError, match="Input/output error"):
            desk.commit()
    assert desk.stored()["a.txt"] == b"mine"
    assert desk.session.interrupted == (number == errno.EIO)


def test_a_disk_that_is_full_yet_when_a_commit_is_to_be_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk, flash = flash_desk(tmp_path)
    desk.write("a.txt", bytes(3000))
    flash.power = 1000
    with pytest.raises(PowerLost):
        desk.commit()
    flash.power = 1 << 40
    session = Session.load(desk.session.folder)

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as hurting:
        hurting.setattr(flash, "read_image", full)
        with pytest.raises(RomfsError, match=r"no space left on device .*your edits are kept"):
            recover(session, flash)
    assert session.interrupted
    assert recover(session, flash) == "finished"
    assert files_of_or_none(flash) == {"a.txt": bytes(3000)}


@pytest.mark.parametrize("doing", ["open", "force", "again", "new"])
@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_an_image_that_cannot_be_read_is_not_the_sessions_fault(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, doing: str, number: int
) -> None:
    """The advice for its folder is to drop the log, which has the only copies by then."""
    if doing != "open":
        desk.open()
        leave_work(desk.session) if doing == "again" else desk.write("a.txt", b"mine")
        desk.image.write_bytes(encode({"theirs.txt": bytes(1000)}))
    if doing == "new":
        revert(desk.session, connect=lambda _: contextlib.nullcontext(desk.device))

    def failing(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(file_device, "copy_in_kernel", failing)
    if number == errno.EIO:
        monkeypatch.setattr(file_device, "digest_fd", failing)
    monkeypatch.setattr(file_target, "digest_file", failing)
    with pytest.raises(RomfsError) as refused:
        desk.commit(force=True) if doing == "force" else desk.open(new=doing == "new")
    full = number == errno.ENOSPC
    assert refused.value.where == str(desk.session.folder.path if full else desk.image)
    assert ("free space" in refused.value.next_step) is full
