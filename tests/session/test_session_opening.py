"""Opening: what is read, what is resumed, what is refused."""

from __future__ import annotations

import os
import shutil
import stat
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import needs
import pytest
from session_desk import Desk, Flash, image_of, tree_of

from romfsfs.cli import main
from romfsfs.convert import FileOptions, Options, Rule
from romfsfs.errors import (
    DeviceAbsent,
    ImageFormatError,
    RomfsError,
    SessionBusy,
    TargetChanged,
    UsageError,
)
from romfsfs.image.writer import encode
from romfsfs.session import opening
from romfsfs.session.keep import history, locks, settling
from romfsfs.session.keep.folder import SessionFolder, find_mounted, folder_of, make_folder
from romfsfs.session.keep.locks import MountedAt
from romfsfs.session.opening import enter
from romfsfs.session.plan import page as status_page
from romfsfs.session.rebase import read
from romfsfs.session.rebase.commit import commit_to
from romfsfs.session.rebase.read import OpenOptions, make_ready
from romfsfs.session.rebase.undo import undo
from romfsfs.session.revert import leave_work, revert
from romfsfs.session.session import Session
from romfsfs.system import clock
from romfsfs.system.files import digest_fd
from romfsfs.system.removal import remove_folder


def test_a_first_mount_shows_what_the_image_holds(desk: Desk) -> None:
    desk.open()
    assert tree_of(desk.work) == {
        "a.txt": b"first\n", "empty": None, "lib": None, "lib/b.bin": bytes(range(200)),
    }  # fmt: skip
    assert desk.session.status().clean
    assert [entry.kind for entry in history.entries(desk.session.folder)] == ["read"]


def test_edits_are_there_again_at_the_next_mount(desk: Desk) -> None:
    desk.open()
    desk.write("a.txt", b"second\n")
    desk.write("new/c.txt", b"c")
    again = desk.again()
    again.open()
    assert again.changes() == {"a.txt": "M", "new": "A", "new/c.txt": "A"}
    assert (again.work / "a.txt").read_bytes() == b"second\n"


def test_without_edits_a_changed_image_is_read_anew(desk: Desk) -> None:
    desk.open()
    desk.image.write_bytes(encode({"other.txt": b"from elsewhere"}))
    desk.open()
    assert tree_of(desk.work) == {"other.txt": b"from elsewhere"}
    assert [entry.kind for entry in history.entries(desk.session.folder)] == ["read", "read"]


def test_with_edits_a_changed_image_is_refused_and_each_way_on_works(desk: Desk) -> None:
    elsewhere = encode({"other.txt": b"from elsewhere"})
    desk.open()
    desk.write("a.txt", b"mine\n")
    desk.image.write_bytes(elsewhere)
    with pytest.raises(TargetChanged) as refused:
        desk.open()
    assert refused.value.exit_code == 7
    for way in ("--to FILE", "--force", "revert"):
        assert way in refused.value.next_step
    with pytest.raises(TargetChanged):
        desk.commit()
    with pytest.raises(TargetChanged):
        desk.commit(dry_run=True)
    assert desk.image.read_bytes() == elsewhere

    saved = Desk.of_file(desk.image.with_name("saved.img"))
    commit_to(desk.session, saved.device)
    assert saved.stored()["a.txt"] == b"mine\n"
    assert desk.changes() == {"a.txt": "M"}

    desk.commit(force=True)
    assert desk.stored()["a.txt"] == b"mine\n"
    kinds = [(entry.kind, entry.summary) for entry in history.entries(desk.session.folder)]
    assert kinds[1] == ("read", "as found before it was overwritten")
    assert image_of(desk, 1).read_bytes() == elsewhere

    desk.write("a.txt", b"again\n")
    desk.image.write_bytes(elsewhere)
    assert revert(desk.session) == ["a.txt"]
    desk.open()
    assert tree_of(desk.work) == {"other.txt": b"from elsewhere"}


def test_a_touched_image_is_not_a_changed_one(desk: Desk) -> None:
    desk.open()
    desk.write("a.txt", b"mine\n")
    os.utime(desk.image, ns=(1, 1))
    desk.open()
    desk.commit()
    assert desk.stored()["a.txt"] == b"mine\n"


def test_an_image_from_the_future_is_read_and_written(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock was set back, or the server's is ahead: it was said to be changed by another
    program until that time had come."""
    really = clock.clock_ns
    monkeypatch.setattr(clock, "clock_ns", lambda: really() - 3600 * 10**9)
    desk.open()
    desk.write("a.txt", b"mine")
    desk.commit()
    assert desk.stored()["a.txt"] == b"mine"
    desk.image.write_bytes(encode({"theirs.txt": b"theirs"}))
    desk.write("a.txt", b"mine again")
    with pytest.raises(TargetChanged):
        desk.commit()


def test_a_change_of_the_same_length_with_the_old_times_is_noticed(desk: Desk) -> None:
    desk.open()
    desk.write("a.txt", b"mine\n")
    before = os.stat(desk.image)
    with open(desk.image, "r+b") as file:
        file.seek(-3, os.SEEK_END)
        file.write(b"\x00")
    os.utime(desk.image, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(TargetChanged):
        desk.commit()


def test_an_image_that_is_gone_keeps_the_edits(desk: Desk) -> None:
    desk.open()
    desk.write("a.txt", b"mine\n")
    desk.image.unlink()
    with pytest.raises(TargetChanged):
        desk.open()
    desk.commit(force=True)
    assert desk.stored()["a.txt"] == b"mine\n"


def test_an_image_that_is_gone_without_edits_loses_nothing_more(desk: Desk) -> None:
    desk.open()
    held = desk.image.read_bytes()
    desk.image.unlink()
    with pytest.raises(DeviceAbsent):
        desk.open()
    assert desk.session.base_image.read_bytes() == held
    assert (desk.work / "a.txt").exists()
    assert not list(desk.session.folder.path.glob("*.new"))


@pytest.mark.parametrize("content", [b"", b"\xff" * 5000], ids=["0 bytes", "erased"])
def test_a_blank_file_is_an_empty_directory(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "app.img").write_bytes(content)
    desk = Desk.of_file(tmp_path / "app.img")
    desk.open()
    assert tree_of(desk.work) == {}
    assert desk.commit().clean
    assert desk.image.read_bytes() == content
    desk.write("a.txt", b"a")
    desk.commit()
    assert desk.stored() == {"a.txt": b"a"}
    assert desk.image.stat().st_size == max(len(content), desk.session.base.image_size)
    desk.open()
    assert desk.session.status().clean


def test_what_is_no_image_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "app.img").write_bytes(b"PK\x03\x04 not an image")
    desk = Desk.of_file(tmp_path / "app.img")
    with pytest.raises(ImageFormatError):
        desk.open()
    assert not desk.session.has_work
    assert desk.image.read_bytes() == b"PK\x03\x04 not an image"


def test_new_on_a_missing_file_makes_it_at_the_commit(tmp_path: Path) -> None:
    desk = Desk.of_file(tmp_path / "app.img")
    with pytest.raises(DeviceAbsent) as absent:
        desk.open()
    assert "--new" in absent.value.next_step
    desk.open(new=True)
    assert not desk.image.exists()
    desk.commit()
    assert desk.stored() == {}
    assert desk.commit().clean


def test_new_on_an_existing_image_starts_empty_and_keeps_the_old_one(desk: Desk) -> None:
    old = desk.image.read_bytes()
    desk.open(new=True)
    assert tree_of(desk.work) == {}
    desk.write("only.txt", b"1")
    assert desk.image.read_bytes() == old
    desk.commit()
    assert desk.stored() == {"only.txt": b"1"}
    first = history.entries(desk.session.folder)[0]
    assert desk.session.folder.image(first.digest).read_bytes() == old


def test_new_over_a_file_that_changed_since_is_refused(desk: Desk) -> None:
    desk.open(new=True)
    desk.write("only.txt", b"1")
    desk.image.write_bytes(encode({"x": b"y"}))
    with pytest.raises(TargetChanged):
        desk.commit()


def test_new_again_after_nothing_was_made(desk: Desk) -> None:
    """The mount that came after it had failed, say: there is nothing to lose."""
    desk.open(new=True)
    desk.open(new=True)
    assert desk.session.status().entries == ()
    desk.write("b.txt", b"b")
    with pytest.raises(RomfsError, match="holds edits"):
        desk.open(new=True)


def test_new_does_not_drop_edits(desk: Desk) -> None:
    desk.open()
    desk.write("a.txt", b"mine\n")
    with pytest.raises(RomfsError, match="holds edits") as refused:
        desk.open(new=True)
    assert refused.value.exit_code == 1
    assert (desk.work / "a.txt").read_bytes() == b"mine\n"


def test_a_pattern_that_was_taken_back_can_be_given_again(desk: Desk) -> None:
    desk.open()
    desk.write("a.psd", b"drawn")
    for given, changes in (
        ("*.psd", {}), ("!*.psd", {"a.psd": "A"}), ("*.psd", {}), ("!*.psd", {"a.psd": "A"}),
    ):  # fmt: skip
        desk.open(excludes=(given,))
        assert desk.changes() == changes
    assert desk.session.info.excludes == ("*.psd", "!*.psd")


def test_only_the_user_can_look_into_a_session(desk: Desk) -> None:
    desk.open()
    desk.write("a.txt", b"mine\n")
    desk.commit()
    folder = desk.session.folder.path
    for path in (folder, folder.parent, folder.parent.parent, folder / "history"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700, path
    for path in [*folder.iterdir(), *(folder / "history").iterdir()]:
        if path.is_file():
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_a_second_mount_is_refused_and_told_where_the_first_is(desk: Desk) -> None:
    desk.open(board="OPENMV4")
    with desk.session.folder.lock_for_mount("app.img") as lock:
        lock.write(MountedAt(os.getpid(), "/home/me/cam"))
        with pytest.raises(SessionBusy) as busy:
            desk.open(board="OPENMV_AE3")
    assert "/home/me/cam" in busy.value.line
    assert str(os.getpid()) in busy.value.line
    assert Session.load(desk.session.folder).info.board == "OPENMV4"


@pytest.mark.parametrize("order", ["ab", "ba"])
@pytest.mark.parametrize("clock", ["goes on", "was set back", "and the system was started anew"])
def test_the_dead_mount_at_a_place_is_the_last_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: str, clock: str
) -> None:
    """Machines without a clock of their own start in the past, and know better later."""
    place = str(tmp_path / "cam")
    folders = [make_folder(str(tmp_path / name)) for name in order]
    with monkeypatch.context() as earlier, folders[0].lock_for_mount("app.img") as first:
        if clock == "and the system was started anew":
            earlier.setattr(locks, "boot_id", lambda: "another run")
            earlier.setattr(time, "monotonic", lambda: 1e9)
        first.write(MountedAt(os.getpid(), place))
    if clock != "goes on":
        os.utime(folders[0].path / "lock", (2e9, 2e9))
    with folders[1].lock_for_mount("app.img") as last:
        last.write(MountedAt(os.getpid(), place))
    found = find_mounted(place, dead=True)
    assert found is not None
    assert found.path == folders[1].path


def test_an_unknown_board_is_a_usage_error(desk: Desk) -> None:
    with pytest.raises(UsageError):
        desk.open(board="OPENMV99")


def test_edits_whose_books_are_gone_stay_when_a_mount_fails(desk: Desk) -> None:
    """A mount that fails takes away the folder that it made for that, and only that one."""
    desk.open()
    desk.write("a.txt", b"mine\n")
    for book in (desk.session.folder.info, desk.session.folder.base):
        book.unlink()
    with pytest.raises(UsageError):
        enter(desk.device, desk.source, OpenOptions(board="OPENMV99"))
    assert (desk.work / "a.txt").read_bytes() == b"mine\n"


@pytest.mark.skipif(not needs.LINUX, reason="without a boot id nothing counts as torn")
@pytest.mark.parametrize("left", [b"", bytes(range(100)), bytes(200), None])
def test_files_torn_by_a_power_cut_are_put_back(
    desk: Desk, left: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.open()
    tear(desk.work / "lib/b.bin", left)
    desk.write("a.txt", b"")
    monkeypatch.setattr(settling, "boot_id", lambda: "the next one")
    desk.open()
    assert (desk.work / "lib/b.bin").read_bytes() == bytes(range(200))
    assert desk.changes() == {"a.txt": "M"}


@pytest.mark.skipif(not needs.LINUX, reason="without a boot id nothing counts as torn")
@pytest.mark.parametrize("place", ["file", "link"])
def test_what_took_a_folder_s_place_before_a_power_cut_stays(
    desk: Desk, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files of the folder are no loss of the power cut; no later mount could put them back."""
    desk.open()
    shutil.rmtree(desk.work / "lib")
    if place == "file":
        desk.write("lib", b"a file now")
    else:
        (desk.work / "lib").symlink_to("/nowhere")
    tear(desk.work / "a.txt", None)
    monkeypatch.setattr(settling, "boot_id", lambda: "the next one")
    desk.open()
    assert (desk.work / "a.txt").exists(), "that one was"
    assert (desk.work / "lib").is_file() == (place == "file")
    assert (desk.work / "lib").is_symlink() == (place == "link")
    assert desk.changes()["lib/b.bin"] == "D"


@pytest.mark.parametrize("left", [b"", None])
def test_what_is_short_without_a_power_cut_is_an_edit(
    desk: Desk, left: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And after one, where the tree had been on the disk before."""
    desk.open()
    settling.settle(desk.session.folder)
    tear(desk.work / "lib/b.bin", left)
    monkeypatch.setattr(settling, "boot_id", lambda: "the next one")
    desk.open()
    assert desk.changes() == {"lib/b.bin": "M" if left is not None else "D"}


def test_where_no_run_of_the_system_is_known_an_edit_is_an_edit(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """macOS has no boot id: zeros that a person wrote were taken for a tear, and replaced."""
    monkeypatch.setattr(settling, "boot_id", lambda: "")
    desk.open()
    tear(desk.work / "lib/b.bin", bytes(200))
    desk.open()
    assert desk.changes() == {"lib/b.bin": "M"}
    desk.session.folder.unsettled.write_text("")  # the mark itself was torn
    desk.open()
    assert desk.changes() == {}


def tear(file: Path, left: bytes | None) -> None:
    """What a power cut leaves of a file that was not synced."""
    before = file.stat()
    file.unlink() if left is None else file.write_bytes(left)
    if left is not None:
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_a_session_folder_from_a_backup_opens(desk: Desk, tmp_path: Path) -> None:
    desk.open()
    desk.write("a.txt", b"mine\n")
    for path in (desk.session.base_image, desk.session.folder.base):
        data = path.read_bytes()
        path.unlink()
        path.write_bytes(data)
    again = desk.again()
    again.open()
    assert again.changes() == {"a.txt": "M"}
    again.commit()
    assert again.stored()["a.txt"] == b"mine\n"


def test_a_damaged_copy_of_the_image_is_named_and_the_files_are_kept(desk: Desk) -> None:
    desk.open()
    desk.write("a.txt", b"mine\n")
    desk.session.base_image.write_bytes(b"rubbish")
    with pytest.raises(RomfsError, match="damaged") as damaged:
        desk.again().session.status()
    assert "work" in damaged.value.next_step
    assert (desk.work / "a.txt").read_bytes() == b"mine\n"


def test_leftovers_of_killed_processes_are_swept(desk: Desk) -> None:
    desk.open()
    folder = desk.session.folder.path
    (folder / "base.json.romfsfs-0123456789abcdef.tmp").write_bytes(b"{")
    (folder / "work.new").mkdir()
    (folder / "work.new/x").write_bytes(b"x")
    (folder / "staged.img").write_bytes(b"x")
    desk.open()
    names = {path.name for path in folder.iterdir()}
    assert not names & {
        "base.json.romfsfs-0123456789abcdef.tmp",
        "work.new",
        "staged.img",
        "work.old",
    }


class TestOnACamera:
    """The same with a partition that is no file."""

    def test_a_blank_camera_is_empty_and_takes_an_image(self, tmp_path: Path) -> None:
        desk = Desk(Flash(tmp_path / "flash", 65536), "camera")
        desk.open()
        assert tree_of(desk.work) == {}
        assert desk.commit().clean
        desk.write("a.txt", b"a")
        report = desk.commit()
        assert report.write is not None
        assert report.write.verified
        assert report.blocks == 1
        desk.open()
        assert desk.session.status().clean

    def test_new_replaces_what_the_camera_holds_and_logs_it(self, tmp_path: Path) -> None:
        flash = Flash(tmp_path / "flash", 65536)
        desk = Desk(flash, "camera")
        desk.open()
        desk.write("a.txt", b"a")
        desk.commit()
        held = flash.path.read_bytes()
        revert(desk.session)
        desk.open(new=True)
        desk.write("b.txt", b"b")
        desk.commit()
        assert b"a.txt" not in flash.path.read_bytes()
        kept = [desk.session.folder.image(e.digest) for e in history.entries(desk.session.folder)]
        assert any(held.startswith(path.read_bytes()) for path in kept)

    def test_a_camera_that_changed_elsewhere_is_refused(self, tmp_path: Path) -> None:
        flash = Flash(tmp_path / "flash", 65536)
        desk = Desk(flash, "camera")
        desk.open()
        desk.write("a.txt", b"a")
        desk.commit()
        desk.write("a.txt", b"b")
        image = encode({"x": b"y"})
        flash.path.write_bytes(image + b"\xff" * (65536 - len(image)))
        with pytest.raises(TargetChanged):
            desk.commit()
        desk.commit(force=True)
        assert b"a.txt" in flash.path.read_bytes()


class TestMadeForAnotherTarget:
    """The image holds `app.mpy`, and what is chosen now stores `app.py`: a commit makes it anew,
    but nobody has edited anything."""

    @pytest.fixture
    def desk(self, desk: Desk) -> Desk:
        desk.open()
        desk.write("app.py", b"x = 1\n")
        desk.commit()
        desk.open(options=Options((Rule("app.py", FileOptions(convert=False)),)))
        assert desk.changes() == {"app.py": "M"}
        return desk

    @staticmethod
    def kept(desk: Desk) -> tuple[object, ...]:
        with desk.session.folder.lock_for_mount("app.img"):
            status = make_ready(desk.session, desk.device)
        assert status is not None
        return status.clean, status.changes, status.edits, status.edited

    def test_is_no_edit(self, desk: Desk) -> None:
        assert self.kept(desk) == (False, 1, 0, False)
        assert revert(desk.session, ["app.py"]) == []
        desk.write("a.txt", b"edited")
        assert self.kept(desk) == (False, 2, 1, True)
        assert revert(desk.session, ["app.py", "a.txt"]) == ["a.txt"]
        desk.write("app.py", b"x = 2\n")
        assert self.kept(desk) == (False, 1, 1, True)
        assert revert(desk.session) == ["app.py"]
        assert not desk.session.has_work

    def test_another_alignment_alone_is_to_be_written(self, desk: Desk) -> None:
        desk.commit()
        desk.open(options=Options((Rule("a.txt", FileOptions(align=4096)),)))
        assert self.kept(desk) == (False, 0, 0, True)

    def test_does_not_keep_from_what_was_put_there_elsewhere(self, desk: Desk) -> None:
        desk.image.write_bytes(encode({"other.txt": b"1"}))
        desk.open()
        assert tree_of(desk.work) == {"other.txt": b"1"}

    def test_does_not_keep_from_an_undo(self, desk: Desk) -> None:
        undo(desk.session, desk.device)
        assert tree_of(desk.work).keys() == {"a.txt", "empty", "lib", "lib/b.bin"}
        undo(desk.session, desk.device, 1)
        assert (desk.work / "app.py").read_bytes() == b"x = 1\n"

    def test_is_kept_and_said(self, desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
        with desk.session.folder.lock_unmounted("app.img"):
            assert leave_work(desk.session) is not None
        assert main(["sessions"]) == 0
        assert capsys.readouterr().out.startswith(f"{desk.image}: clean\n")
        assert desk.commit().clean is False
        assert desk.stored()["app.py"] == b"x = 1\n"


def test_each_mount_drops_what_was_abandoned(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """And is none the worse for a session that cannot be dropped."""
    asked: list[str] = []
    failure: list[Exception] = [OSError("no"), RomfsError("no"), ZeroDivisionError()]

    def drop() -> list[str]:
        asked.append("drop")
        raise failure[len(asked) - 1]

    monkeypatch.setattr(opening, "drop_abandoned", drop)
    for _ in range(2):
        entered = enter(desk.device, desk.source, OpenOptions())
        entered.lock.release()
        session = entered.session
        assert (session.work.exists(), entered.resumed) == (True, None)
        leave_work(session)
    before = session.folder.info.read_bytes()
    with pytest.raises(ZeroDivisionError):
        enter(desk.device, desk.source, OpenOptions(board="OPENMV4P"))
    assert asked == ["drop"] * 3
    assert session.folder.info.read_bytes() == before
    assert session.folder.mounted_at() is None


def test_why_a_mount_fails_is_told_on_a_full_disk_too(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not that its choices could not be taken back."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    desk.open()
    desk.write("a.txt", b"mine")
    desk.image.write_bytes(encode({"other.txt": b"from elsewhere"}))
    monkeypatch.setattr(opening, "save", full)
    with pytest.raises(TargetChanged):
        enter(desk.device, desk.source, OpenOptions())
    assert desk.session.folder.mounted_at() is None


def test_a_mount_that_fails_leaves_no_session_where_there_was_none(desk: Desk) -> None:
    """With edits, or with a log, it stays."""
    folder = folder_of(desk.device.info().key)
    with pytest.raises(UsageError):
        enter(desk.device, desk.source, OpenOptions(board="NONE"))
    assert not folder.path.exists()
    entered = enter(desk.device, desk.source, OpenOptions())
    entered.lock.release()
    with pytest.raises(UsageError):
        enter(desk.device, desk.source, OpenOptions(board="NONE"))
    assert entered.session.work.exists()


def test_a_session_that_could_not_be_mounted_is_given_up(desk: Desk) -> None:
    """A new one goes, unless another process writes the file or has written it; others stay."""
    entered = enter(desk.device, desk.source, OpenOptions(board="OPENMV4P"))
    folder = entered.session.folder
    entered.give_up()
    assert not folder.path.exists()
    entered = enter(desk.device, desk.source, OpenOptions(board="OPENMV4P"))
    with folder.lock_for_change("push"):
        entered.give_up()
    assert folder.work.exists()
    remove_folder(folder.path)
    entered = enter(desk.device, desk.source, OpenOptions(board="OPENMV4P"))
    desk.session = entered.session
    desk.write("a.txt", b"from elsewhere")
    desk.commit()
    entered.give_up()
    assert [entry.kind for entry in history.entries(folder)] == ["read", "commit"]
    before = folder.info.read_bytes()
    entered = enter(desk.device, desk.source, OpenOptions(board="OPENMV2", excludes=("*.py",)))
    assert folder.info.read_bytes() != before
    entered.give_up()
    assert (folder.info.read_bytes(), folder.mounted_at()) == (before, None)


def test_after_a_read_any_edit_shows_in_its_time(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock is waited for, until it is later than what was extracted."""
    waited: list[list[int]] = []
    monkeypatch.setattr(read, "wait_until_certain", waited.append)
    desk.open()
    files = [desk.work / "a.txt", desk.work / "lib/b.bin"]
    assert waited == [[path.stat().st_ctime_ns for path in files]]
    desk.open()
    assert len(waited) == 1


def test_a_page_names_where_it_is_mounted(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else its image: what commands are given."""
    session = desk.open()
    status, held = session.status(), session.held()
    monkeypatch.setattr(status_page, "page", lambda *given: given)
    for mounted, place in ((None, desk.source), ("/my cam", "'/my cam'"), ("", desk.source)):
        holder = None if mounted is None else MountedAt(1, mounted)
        monkeypatch.setattr(SessionFolder, "mounted_at", lambda _, holder=holder: holder)
        shown: Any = session.page(status, held)
        assert (shown[0], shown[1], shown[3]) == (status, held.base, place)
        assert shown[2].size == held.base.image_size


@pytest.mark.parametrize(
    ("image_size", "fresh", "digest", "same", "holds"),
    [
        (9, False, "", True, True), (0, False, "", True, False), (9, True, "", True, False),
        (9, False, "other", True, False), (9, False, "", False, False),
    ],
)  # fmt: skip
def test_what_a_target_need_not_be_read_for(
    tmp_path: Path, image_size: int, fresh: bool, digest: str, same: bool, holds: bool
) -> None:
    (tmp_path / "image").write_bytes(b"image")
    with (tmp_path / "image").open("rb") as file:
        base = SimpleNamespace(
            image_size=image_size, fresh=fresh, digest=digest or digest_fd(file.fileno())
        )
        held = SimpleNamespace(base=base, fd=file.fileno())
        session: Any = SimpleNamespace(held=lambda: held)
        target: Any = SimpleNamespace(unchanged_since=lambda given: given is held and same)
        assert read._still_holds_base(session, target) is holds
