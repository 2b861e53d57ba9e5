"""Going back: recall of sources, revert, undo."""

from __future__ import annotations

import errno
import hashlib
import re
import shutil
import tempfile
from pathlib import Path

import pytest
from session_desk import Desk, Flash, files_of, image_of, tree_of

from romfsfs.errors import DeviceAbsent, RomfsError, TargetChanged, UsageError
from romfsfs.image.writer import encode
from romfsfs.session.keep import history, recall, steps
from romfsfs.session.keep.state import Signature
from romfsfs.session.rebase.push import push
from romfsfs.session.rebase.transaction import Mounted, WriteOptions
from romfsfs.session.rebase.undo import Undone, undo
from romfsfs.session.revert import leave_work, revert


class TestRecall:
    """What the user wrote is shown again, wherever the image goes."""

    @pytest.fixture
    def desk(self, desk: Desk) -> Desk:
        desk.open()
        desk.write("app.py", b"x = 1\n")
        desk.commit()
        return desk

    def test_after_umount_and_mount(self, desk: Desk) -> None:
        revert(desk.session)
        desk.open()
        assert (desk.work / "app.py").read_bytes() == b"x = 1\n"
        assert not (desk.work / "app.mpy").exists()
        assert desk.session.status().clean

    def test_what_changes_while_it_is_copied_is_not_remembered(self, desk: Desk) -> None:
        memory = recall.Recall("")
        before = sorted((memory.folder / "index").iterdir())
        with (desk.work / "app.py").open() as file, pytest.raises(recall.ChangedMeanwhile):
            memory.remember("app.mpy", "0" * 64, "app.py", "1" * 64, file.fileno())
        assert sorted((memory.folder / "index").iterdir()) == before
        assert not (memory.folder / "objects" / ("1" * 64)).exists()

    def test_for_a_copy_of_the_image_elsewhere(self, desk: Desk, tmp_path: Path) -> None:
        copy = tmp_path / "copy.img"
        shutil.copyfile(desk.image, copy)
        other = Desk.of_file(copy)
        other.open()
        assert (other.work / "app.py").read_bytes() == b"x = 1\n"

    def test_other_bytes_in_the_image_win(self, desk: Desk) -> None:
        revert(desk.session)
        desk.image.write_bytes(encode({"app.mpy": b"M\x06\x00\x1f from elsewhere"}))
        desk.open()
        assert tree_of(desk.work) == {"app.mpy": b"M\x06\x00\x1f from elsewhere"}

    def test_another_file_with_the_sources_name_wins(self, desk: Desk) -> None:
        compiled = desk.stored()["app.mpy"]
        revert(desk.session)
        desk.image.write_bytes(encode({"app.mpy": compiled, "app.py": b"other"}))
        desk.open()
        assert tree_of(desk.work) == {"app.mpy": compiled, "app.py": b"other"}

    def test_a_damaged_memory_shows_the_compiled_file(self, desk: Desk) -> None:
        compiled = desk.stored()["app.mpy"]
        revert(desk.session)
        for file in (recall.Recall("").folder / "objects").iterdir():
            file.write_bytes(b"damaged")
        desk.open()
        assert (desk.work / "app.mpy").read_bytes() == compiled
        assert desk.session.status().clean

    def test_an_edit_after_it_is_a_change_of_the_source(self, desk: Desk) -> None:
        revert(desk.session)
        desk.open()
        desk.write("app.py", b"x = 2\n")
        assert desk.changes() == {"app.py": "M"}
        revert(desk.session, ["app.py"])
        assert (desk.work / "app.py").read_bytes() == b"x = 1\n"
        assert desk.session.status().clean

    def test_it_is_forgotten_oldest_first(self, desk: Desk) -> None:
        memory = recall.Recall("")
        revert(desk.session)
        memory.trim(0)
        assert not list((memory.folder / "objects").iterdir())
        desk.open()
        assert (desk.work / "app.mpy").exists()

    @pytest.mark.parametrize("lost", ["damaged", "gone"])
    def test_a_source_that_is_not_remembered_does_not_go_with_the_tree(
        self, desk: Desk, lost: str
    ) -> None:
        """The disk was full at the commit, or what it had was not synced when the power went."""
        for file in (recall.Recall("").folder / "objects").iterdir():
            file.write_bytes(b"torn") if lost == "damaged" else file.unlink()
        assert leave_work(desk.session) is None
        desk.open()
        assert (desk.work / "app.py").read_bytes() == b"x = 1\n"

    def test_an_edit_that_changes_no_stored_byte_is_no_less_the_user_s(self, desk: Desk) -> None:
        desk.write("app.py", b"x = 1  # why\n")
        assert desk.commit().clean
        assert leave_work(desk.session) is None
        desk.open()
        assert (desk.work / "app.py").read_bytes() == b"x = 1  # why\n"

    def test_each_target_shows_what_was_written_for_it(self, desk: Desk, tmp_path: Path) -> None:
        """Two cameras' scripts that differ in a comment become the same bytes."""
        desk.write("app.py", b"x = 1  # in the kitchen\n")
        assert desk.commit().clean
        assert leave_work(desk.session) is None
        (tmp_path / "other").mkdir()
        other = Desk.with_image(tmp_path / "other", {})
        other.open()
        other.write("app.py", b"x = 1  # in the garage\n")
        other.commit()
        assert other.stored()["app.mpy"] == desk.stored()["app.mpy"]
        assert leave_work(other.session) is None
        desk.open()
        assert (desk.work / "app.py").read_bytes() == b"x = 1  # in the kitchen\n"
        desk.write("app.py", b"x = 2\n")
        revert(desk.session, ["app.py"])
        assert (desk.work / "app.py").read_bytes() == b"x = 1  # in the kitchen\n"
        other.open()
        assert (other.work / "app.py").read_bytes() == b"x = 1  # in the garage\n"

    def test_the_tree_stays_where_sources_cannot_be_kept(
        self, desk: Desk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*args: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        for file in (recall.Recall("").folder / "objects").iterdir():
            file.unlink()
        with monkeypatch.context() as hurting:
            hurting.setattr(recall.Recall, "remember", full)
            status = leave_work(desk.session)
            assert status is not None
            assert status.clean
            desk.write("a.txt", b"dropped")
            revert(desk.session)
        assert desk.stored().keys() == {"a.txt", "lib/b.bin", "app.mpy"}
        assert (desk.work / "a.txt").read_bytes() == b"first\n"
        desk.open()
        assert (desk.work / "app.py").exists()


class TestRevert:
    @pytest.fixture
    def desk(self, desk: Desk) -> Desk:
        desk.open()
        desk.write("a.txt", b"edited")
        desk.write("lib/new", b"1")
        (desk.work / "lib/b.bin").unlink()
        return desk

    def test_one_file(self, desk: Desk) -> None:
        assert revert(desk.session, ["a.txt"]) == ["a.txt"]
        assert (desk.work / "a.txt").read_bytes() == b"first\n"
        assert desk.changes() == {"lib/b.bin": "D", "lib/new": "A"}

    def test_a_folder_with_what_was_deleted_and_added_in_it(self, desk: Desk) -> None:
        assert sorted(revert(desk.session, ["lib"])) == ["lib/b.bin", "lib/new"]
        assert tree_of(desk.work / "lib") == {"b.bin": bytes(range(200))}

    def test_a_deleted_file_in_a_deleted_folder(self, desk: Desk) -> None:
        shutil.rmtree(desk.work / "lib")
        revert(desk.session, ["lib/b.bin"])
        assert (desk.work / "lib/b.bin").read_bytes() == bytes(range(200))
        assert desk.changes() == {"a.txt": "M"}

    def test_an_added_folder_goes_with_the_junk_in_it(self, desk: Desk) -> None:
        desk.write("made/deep/file", b"1")
        desk.write("made/.DS_Store", b"junk")
        revert(desk.session, ["made"])
        assert not (desk.work / "made").exists()

    def test_what_is_never_packed_keeps_an_added_folder(self, desk: Desk) -> None:
        """A repository in it is all there is of it."""
        desk.write("made/file", b"1")
        desk.write("made/.git/HEAD", b"ref")
        revert(desk.session)
        assert (desk.work / "made/.git/HEAD").read_bytes() == b"ref"
        assert not (desk.work / "made/file").exists()

    def test_of_two_files_of_one_name_the_one_that_is_named(self, desk: Desk) -> None:
        """Of `lib.py` and `lib.mpy`, which cannot both be stored, one is taken back."""
        desk.write("lib.py", b"x = 1\n")
        desk.write("lib.mpy", b"M\x06\x00\x1f")
        assert revert(desk.session, ["lib.mpy"]) == ["lib.mpy"]
        assert (desk.work / "lib.py").read_bytes() == b"x = 1\n"

    @pytest.mark.parametrize("named", ["app.py", "app.mpy"])
    def test_a_source_in_whose_place_nothing_can_be_stored(self, desk: Desk, named: str) -> None:
        """By its own name, and by the one that it is stored as."""
        source = desk.write("app.py", b"x = 1\n")
        desk.commit()
        source.unlink()
        source.symlink_to("a.txt")
        assert revert(desk.session, [named]) == ["app.py"]
        assert not source.is_symlink()
        assert source.read_bytes() == b"x = 1\n"

    def test_a_file_that_became_a_folder(self, desk: Desk) -> None:
        (desk.work / "a.txt").unlink()
        desk.write("a.txt/inner", b"1")
        desk.write("a.txt/.DS_Store", b"junk")
        revert(desk.session, ["a.txt"])
        assert (desk.work / "a.txt").read_bytes() == b"first\n"

    def test_a_folder_that_became_a_file(self, desk: Desk) -> None:
        shutil.rmtree(desk.work / "lib")
        desk.write("lib", b"a file now")
        revert(desk.session, ["lib"])
        assert (desk.work / "lib/b.bin").read_bytes() == bytes(range(200))

    def test_a_file_in_a_folder_that_became_a_file(self, desk: Desk) -> None:
        """What was not named stays, and is said to be in the way."""
        shutil.rmtree(desk.work / "lib")
        desk.write("lib", b"a file now")
        with pytest.raises(UsageError) as refused:
            revert(desk.session, ["lib/b.bin"])
        assert refused.value.line == (
            "a file is in its way: lib (lib/b.bin); rename that, or revert it: romfsfs revert "
            f"{desk.image} lib"
        )
        (desk.work / "lib").rename(desk.work / "mine")
        revert(desk.session, ["lib/b.bin"])
        assert (desk.work / "lib/b.bin").read_bytes() == bytes(range(200))
        assert (desk.work / "mine").read_bytes() == b"a file now"

    def test_a_script_that_replaced_a_compiled_file(self, tmp_path: Path) -> None:
        desk = Desk.with_image(tmp_path, {"app.mpy": b"M\x06\x00\x1f"})
        desk.open()
        desk.write("app.py", b"x = 1\n")
        revert(desk.session, ["app.py"])
        assert tree_of(desk.work) == {"app.mpy": b"M\x06\x00\x1f"}

    def test_a_path_that_is_nowhere(self, desk: Desk) -> None:
        with pytest.raises(UsageError, match="no such file"):
            revert(desk.session, ["nowhere"])

    def test_everything(self, desk: Desk) -> None:
        assert sorted(revert(desk.session)) == ["a.txt", "lib/b.bin", "lib/new"]
        desk.open()
        assert desk.session.status().clean


class TestUndo:
    @pytest.fixture
    def desk(self, desk: Desk) -> Desk:
        """Images 0 (found), 1 ('one') and 2 ('two')."""
        desk.open()
        for content in (b"one", b"two"):
            desk.write("a.txt", content)
            desk.commit()
        return desk

    def test_twice_in_a_row_goes_two_back(self, desk: Desk) -> None:
        undo(desk.session, desk.device)
        assert desk.stored()["a.txt"] == b"one"
        assert (desk.work / "a.txt").read_bytes() == b"one"
        undo(desk.session, desk.device)
        assert desk.stored()["a.txt"] == b"first\n"
        assert desk.session.status().clean
        with pytest.raises(RomfsError, match="no earlier image"):
            undo(desk.session, desk.device)

    def test_an_undo_can_be_undone_by_number(self, desk: Desk) -> None:
        undo(desk.session, desk.device)
        undo(desk.session, desk.device, number=2)
        assert desk.stored()["a.txt"] == b"two"
        assert (desk.work / "a.txt").read_bytes() == b"two"
        kinds = [entry.kind for entry in history.entries(desk.session.folder)]
        assert kinds == ["read", "commit", "commit", "undo", "undo"]

    def test_after_the_log_was_trimmed_it_does_not_go_forward(self, desk: Desk) -> None:
        desk.open()
        for text in (b"2", b"3"):
            desk.write("a.txt", text)
            desk.commit()
        history.keep_within(desk.session.folder, 0)
        undo(desk.session, desk.device)
        assert desk.stored()["a.txt"] == b"2"
        with pytest.raises(RomfsError, match="no earlier image"):
            undo(desk.session, desk.device)
        assert desk.stored()["a.txt"] == b"2"

    def test_a_commit_after_it_goes_on_from_there(self, desk: Desk) -> None:
        undo(desk.session, desk.device)
        desk.write("new.txt", b"n")
        desk.commit()
        assert desk.stored() == {"a.txt": b"one", "lib/b.bin": bytes(range(200)), "new.txt": b"n"}

    def test_unmounted(self, desk: Desk) -> None:
        revert(desk.session)
        undo(desk.session, desk.device)
        assert desk.stored()["a.txt"] == b"one"
        desk.open()
        assert (desk.work / "a.txt").read_bytes() == b"one"

    def test_edits_are_in_the_way(self, desk: Desk) -> None:
        desk.write("a.txt", b"mine")
        with pytest.raises(RomfsError, match="uncommitted edits"):
            undo(desk.session, desk.device)
        assert (desk.work / "a.txt").read_bytes() == b"mine"
        assert desk.stored()["a.txt"] == b"two"

    @pytest.mark.parametrize("step", ["revert-removed", "revert-staged"])
    def test_what_is_saved_while_the_tree_follows_stays(
        self, desk: Desk, monkeypatch: pytest.MonkeyPatch, step: str
    ) -> None:
        """Its files are written beside their places and synced, which takes its time."""

        def save(name: str) -> None:
            if name == step:
                desk.write("a.txt", b"just saved")
                desk.write("new.txt", b"just made")

        desk.open()
        desk.write("new.txt", b"goes")
        desk.commit()
        (desk.work / "new.txt").unlink()
        desk.write("a.txt", b"2")
        desk.commit()
        monkeypatch.setattr(steps, "on_step", save)
        undo(desk.session, desk.device)
        assert (desk.work / "a.txt").read_bytes() == b"just saved"
        assert (desk.work / "new.txt").read_bytes() == b"just made"
        assert desk.changes() == {"a.txt": "M", "new.txt": "M"}
        assert not list(desk.work.glob(".romfsfs*"))

    def test_files_open_for_writing_are_in_the_way(self, desk: Desk) -> None:
        with pytest.raises(RomfsError, match="open for writing"):
            undo(desk.session, desk.device, mounted=Mounted(None, lambda: ["a.txt"]))

    def test_a_target_changed_elsewhere_is_not_overwritten(self, desk: Desk) -> None:
        desk.image.write_bytes(encode({"x": b"y"}))
        for number in (None, 1):
            with pytest.raises(TargetChanged) as refused:
                undo(desk.session, desk.device, number)
        assert refused.value.next_step == (
            f"to undo anyway: romfsfs undo {desk.image} --force; to edit what is there: "
            f"romfsfs mount {desk.image} DIR"
        )
        assert desk.stored() == {"x": b"y"}

    def test_unless_forced_and_then_it_is_in_the_log(self, desk: Desk) -> None:
        desk.image.write_bytes(encode({"x": b"y"}))
        done = undo(desk.session, desk.device, options=WriteOptions(force=True))
        assert (done.entry.number, desk.stored()["a.txt"]) == (2, b"two")
        assert done.before == hashlib.sha256(encode({"x": b"y"})).hexdigest()
        undo(desk.session, desk.device)
        assert desk.stored()["a.txt"] == b"one"
        undo(desk.session, desk.device, number=3)
        assert desk.stored() == {"x": b"y"}

    def test_over_what_is_no_image(self, desk: Desk) -> None:
        desk.image.write_bytes(b"damaged")
        with pytest.raises(TargetChanged):
            undo(desk.session, desk.device)
        done = undo(desk.session, desk.device, options=WriteOptions(force=True))
        assert (done.before, desk.stored()["a.txt"]) == ("", b"two")

    @pytest.mark.parametrize("mounted", [True, False])
    def test_a_file_that_was_deleted_comes_back(self, desk: Desk, mounted: bool) -> None:
        """Nothing is overwritten there, so nobody has to say --force."""
        if not mounted:
            revert(desk.session)
        desk.image.unlink()
        with pytest.raises(DeviceAbsent, match=re.escape(f"romfsfs undo {desk.image}; or make")):
            desk.open()
        assert undo(desk.session, desk.device).entry.number == 2
        assert desk.stored()["a.txt"] == b"two"
        log = history.entries(desk.session.folder)[-2:]
        assert [(entry.kind, entry.missing) for entry in log] == [("read", True), ("undo", False)]
        undo(desk.session, desk.device)
        assert desk.stored()["a.txt"] == b"one"

    @pytest.mark.parametrize("number", [1, 3])
    @pytest.mark.parametrize("dry_run", [False, True])
    def test_to_the_image_that_is_there_nothing_changes(
        self, desk: Desk, number: int, dry_run: bool
    ) -> None:
        undo(desk.session, desk.device)
        log, target = history.entries(desk.session.folder), Signature.of(desk.image.stat())
        there = f"image {number} is there already, nothing written"
        done = undo(desk.session, desk.device, number, dry_run=dry_run)
        assert done == Undone(log[number], None, log[1].digest, there)
        assert history.entries(desk.session.folder) == log
        assert Signature.of(desk.image.stat()) == target

    def test_a_dry_run_refuses_what_an_undo_would(self, desk: Desk) -> None:
        done = undo(desk.session, desk.device, dry_run=True)
        assert (done.entry.number, done.report, desk.stored()["a.txt"]) == (1, None, b"two")
        desk.write("a.txt", b"mine")
        with pytest.raises(RomfsError, match="uncommitted edits"):
            undo(desk.session, desk.device, dry_run=True)
        revert(desk.session)
        desk.image.write_bytes(encode({"x": b"y"}))
        with pytest.raises(TargetChanged):
            undo(desk.session, desk.device, dry_run=True)

    def test_folders_and_sources_follow(self, desk: Desk) -> None:
        desk.write("pkg/mod.py", b"x = 1\n")
        desk.write("pkg/.DS_Store", b"junk")
        (desk.work / "empty").rmdir()
        desk.commit()
        undo(desk.session, desk.device)
        assert (desk.work / "empty").is_dir()
        assert not (desk.work / "pkg/mod.py").exists()
        assert desk.stored()["a.txt"] == b"two"
        undo(desk.session, desk.device, number=3)
        assert (desk.work / "pkg/mod.py").read_bytes() == b"x = 1\n"
        assert not (desk.work / "empty").exists()
        assert desk.session.status().clean

    def test_a_number_that_is_not_there_is_said_before_anything_else(self, desk: Desk) -> None:
        """Who drops his edits for it would have dropped them for nothing."""
        desk.write("a.txt", b"mine")
        with pytest.raises(UsageError, match="no image 99 in the log"):
            undo(desk.session, desk.device, number=99, mounted=Mounted(None, lambda: ["a.txt"]))

    def test_a_number_that_is_not_there(self, desk: Desk) -> None:
        with pytest.raises(UsageError):
            undo(desk.session, desk.device, number=99)

    def test_on_a_camera(self, tmp_path: Path) -> None:
        flash = Flash(tmp_path / "flash", 65536)
        desk = Desk(flash, "camera")
        desk.open()
        for content in (b"one", b"two"):
            desk.write("a.txt", content)
            desk.commit()
        undo(desk.session, flash)
        assert files_of(flash.path.read_bytes()) == {"a.txt": b"one"}
        assert (desk.work / "a.txt").read_bytes() == b"one"

    def test_an_image_of_the_log_that_the_disk_garbled_is_not_written(self, desk: Desk) -> None:
        """To the reader it is still one: only a file's bytes are others."""
        old = image_of(desk, 1)
        old.write_bytes(old.read_bytes().replace(b"one", b"\0\0\0"))
        with pytest.raises(RomfsError, match="damaged"):
            undo(desk.session, desk.device)
        assert desk.stored()["a.txt"] == b"two"
        assert not desk.session.interrupted
        undo(desk.session, desk.device, number=0)
        assert desk.stored()["a.txt"] == b"first\n"

    def test_the_log_is_trimmed_oldest_first(self, desk: Desk) -> None:
        history.keep_within(desk.session.folder, 0)
        assert [entry.number for entry in history.entries(desk.session.folder)] == [1, 2]
        undo(desk.session, desk.device)
        assert desk.stored()["a.txt"] == b"one"

    def test_what_another_process_chose_meanwhile_counts(self, desk: Desk) -> None:
        """The board was forgotten, and a mount trimmed the log to what it knew."""
        desk.open()
        mounted = desk.session
        asked = desk.again().session
        desk.open(board="OPENMV_AE3")
        history.keep_within(asked.folder, 0)
        info = desk.again().session.info
        assert (info.board, info.history_bytes) == ("OPENMV_AE3", 0)
        desk.session = mounted
        for number in range(4):
            desk.write("a.txt", b"%d" % number)
            desk.commit()
        assert len(history.entries(mounted.folder)) == 2

    def test_the_log_stays_within_what_the_user_said(self, desk: Desk) -> None:
        history.keep_within(desk.session.folder, 0)
        desk.write("a.txt", b"four")
        desk.commit()
        assert len(history.entries(desk.session.folder)) == 2
        assert desk.session.load(desk.session.folder).info.history_bytes == 0


def test_a_file_that_the_user_put_where_a_pushed_image_has_a_folder(tmp_path: Path) -> None:
    """It stays, the push ends, and the next commands go on."""
    desk = Desk(Flash(tmp_path / "flash", 65536), "camera")
    desk.open()
    desk.write("lib", b"mine")
    with tempfile.TemporaryFile() as file:
        file.write(encode({"lib/b.bin": b"theirs", "c.txt": b"c"}))
        file.flush()
        push(desk.device, "camera", file, "given.img")
    assert not desk.session.interrupted
    assert tree_of(desk.work) == {"lib": b"mine", "c.txt": b"c"}
    desk.commit()
    assert files_of((tmp_path / "flash").read_bytes()) == {"lib": b"mine", "c.txt": b"c"}
