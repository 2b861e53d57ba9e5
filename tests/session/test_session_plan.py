"""What a work tree becomes: changes, names, conflicts, junk, capacity."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from session_desk import Desk

from romfsfs.errors import CapacityError, ConversionError, PlanError, TargetChanged
from romfsfs.image.writer import encode
from romfsfs.session.diff import diff_session
from romfsfs.session.plan.plan import make_plan
from romfsfs.session.plan.problems import Problem
from romfsfs.session.plan.shadow import Change, Derived, ShadowEntry
from romfsfs.session.plan.stored import InWork
from romfsfs.session.revert import leave_work
from romfsfs.system.files import digest_bytes

CASCADE = (
    '<?xml version="1.0"?><opencv_storage><cascade type_id="opencv-cascade-classifier">'
    "</cascade></opencv_storage>"
)


def problems(desk: Desk) -> dict[str, Problem]:
    return {problem.code: problem for problem in desk.session.status().problems}


def test_each_change_is_told(desk: Desk) -> None:
    desk.open()
    desk.write("a.txt", b"other")
    (desk.work / "lib/b.bin").unlink()
    (desk.work / "empty").rmdir()
    (desk.work / "made").mkdir()
    assert desk.changes() == {"a.txt": "M", "lib/b.bin": "D", "empty": "D", "made": "A"}
    desk.commit()
    assert desk.stored() == {"a.txt": b"other"}
    assert desk.changes() == {}
    desk.open()
    assert (desk.work / "made").is_dir()
    assert (desk.work / "lib").is_dir()


def test_a_rename_moves_the_bytes(desk: Desk) -> None:
    desk.open()
    (desk.work / "lib").rename(desk.work / "libs")
    (desk.work / "a.txt").rename(desk.work / "z.txt")
    assert desk.changes() == {
        "lib": "D", "lib/b.bin": "D", "libs": "A", "libs/b.bin": "A", "a.txt": "D", "z.txt": "A",
    }  # fmt: skip
    desk.commit()
    assert desk.stored() == {"libs/b.bin": bytes(range(200)), "z.txt": b"first\n"}


@pytest.mark.parametrize(
    ("names", "warned"),
    [
        (["m.tflite", "m.txt"], False), (["m.tflite"], False), (["m.v8.tflite"], False),
        (["m.v8.tflite", "m.txt"], False), (["m.v8.tflite", "m.v8.txt"], True),
        (["m.v8.lite", "m.v8.txt"], True), (["m.v8.tflite", "m.v8.txt", "m.txt"], False),
        (["m.v8.txt"], False), (["m.v8.bin", "m.v8.txt"], False), (["m.tflite/m.txt"], False),
    ],
)  # fmt: skip
def test_labels_that_would_not_be_found_are_warned_of_and_no_others(
    desk: Desk, names: list[str], warned: bool
) -> None:
    desk.open()
    for name in names:
        desk.write(name, b"x")
    found = problems(desk).get("labels")
    assert (found is not None) == warned
    if found is not None:
        assert found.severity == "warning"
        assert found.message.startswith("ml.Model looks for labels in m.txt, not m.v8.txt: ")


def test_touch_and_chmod_change_nothing(desk: Desk) -> None:
    desk.open()
    os.utime(desk.work / "a.txt")
    (desk.work / "lib/b.bin").chmod(0o755)
    assert desk.session.status().clean
    assert desk.commit().clean


def test_the_same_bytes_saved_again_change_nothing(desk: Desk) -> None:
    desk.open()
    desk.write("a.txt", b"something else")
    desk.write("a.txt", b"first\n")
    assert desk.session.status().clean


def test_a_rewrite_within_the_clocks_tick_is_noticed(desk: Desk) -> None:
    desk.open()
    for number in range(200):
        file = desk.write("a.txt", b"%06d" % number)
        assert desk.session.status().entries[0].source_digest
        before = file.stat()
        file.write_bytes(b"%06d" % (number + 1))
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
        entry = desk.session.status().entries[0]
        desk.write("a.txt", b"%06d" % (number + 1))
        assert entry.source_digest == desk.session.status().entries[0].source_digest


def test_a_rewrite_within_a_second_where_files_have_whole_ones(
    whole_seconds: Path, tmp_path: Path
) -> None:
    """As long as the first, just after the mount, and after each look at it."""
    desk = Desk.with_image(tmp_path, {"a.txt": b"0"})
    desk.open()
    for number in range(1, 4):
        with open(desk.work / "a.txt", "r+b") as file:
            file.write(b"%d" % number)
        assert desk.session.status().entries[0].source_digest == digest_bytes(b"%d" % number)
    desk.commit()
    assert desk.stored() == {"a.txt": b"3"}


def test_a_target_changed_elsewhere_within_the_second_of_the_commit(whole_seconds: Path) -> None:
    """By a program that writes in place, and as much as there was."""
    desk = Desk.with_image(whole_seconds, {"a.txt": b"1"})
    desk.open()
    desk.write("a.txt", b"2")
    desk.commit()
    with open(desk.image, "r+b") as file:
        file.write(encode({"a.txt": b"3"}))
    desk.write("a.txt", b"4")
    with pytest.raises(TargetChanged):
        desk.commit()
    assert desk.stored() == {"a.txt": b"3"}


@pytest.fixture
def whole_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A state folder on a file system without fractions of a second: ext4 with small inodes."""
    disk, folder = tmp_path / "disk.img", tmp_path / "disk"
    folder.mkdir()
    with open(disk, "wb") as file:
        file.truncate(8 << 20)
    for command in (["mkfs.ext4", "-q", "-I", "128", disk], ["mount", "-o", "loop", disk, folder]):
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=30)
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"making such a disk needs root and mkfs.ext4: {error}")
    monkeypatch.setenv("ROMFSFS_STATE_DIR", str(folder / "state"))
    yield folder
    subprocess.run(["umount", "-l", folder], check=True, timeout=30)


def test_a_file_becomes_a_folder_and_back(desk: Desk) -> None:
    desk.open()
    (desk.work / "a.txt").unlink()
    desk.write("a.txt/inner", b"1")
    desk.commit()
    assert desk.stored() == {"a.txt/inner": b"1", "lib/b.bin": bytes(range(200))}
    (desk.work / "a.txt/inner").unlink()
    (desk.work / "a.txt").rmdir()
    desk.write("a.txt", b"2")
    desk.commit()
    assert desk.stored()["a.txt"] == b"2"


def test_new_names_follow_the_order_of_the_base(desk: Desk) -> None:
    desk.open()
    for name in ("Z", "A", "m/x", "é"):
        desk.write(name, b"1")
    desk.commit()
    assert list(desk.stored()) == ["a.txt", "lib/b.bin", "A", "Z", "m/x", "é"]


def test_junk_is_kept_in_the_tree_and_out_of_the_image(desk: Desk) -> None:
    desk.open(excludes=("*.bak",))
    for name in (".DS_Store", "a.txt~", ".git/config", "lib/__pycache__/x.pyc", "notes.bak"):
        desk.write(name, b"junk")
    status = desk.session.status()
    assert status.clean
    ignored = {each.path: each.is_dir for each in status.entries if each.change is Change.IGNORED}
    assert ignored == {
        ".DS_Store": False, "a.txt~": False, ".git": True, ".git/config": False,
        "lib/__pycache__": True, "lib/__pycache__/x.pyc": False, "notes.bak": False,
    }  # fmt: skip
    assert "5 files" in status.text() or "left out" in status.text()
    told = [line.split(maxsplit=2) for line in status.text(verbose=True).splitlines()]
    assert ["I", "a.txt~", "(not stored)"] in told
    assert desk.commit().clean
    assert (desk.work / ".git/config").exists()


def test_an_exclamation_mark_drops_a_pattern(desk: Desk) -> None:
    desk.open(excludes=("!*~",))
    desk.write("a.txt~", b"wanted")
    desk.commit()
    assert desk.stored()["a.txt~"] == b"wanted"


def test_what_the_image_holds_stays_whatever_it_is_called(tmp_path: Path) -> None:
    desk = Desk.with_image(tmp_path, {".git/config": b"c", "x~": b"x"})
    desk.open()
    assert desk.session.status().clean
    desk.write("x~", b"edited")
    desk.write(".git/junk", b"new")
    desk.commit()
    assert desk.stored() == {".git/config": b"c", "x~": b"edited"}


def test_two_files_of_the_users_for_one_name_are_a_conflict(desk: Desk) -> None:
    desk.open()
    desk.write("app.py", b"x = 1\n")
    desk.write("app.mpy", b"M\x06\x00\x1f made by hand")
    desk.write("face.xml", CASCADE.encode())
    with pytest.raises(PlanError) as refused:
        desk.commit()
    assert refused.value.exit_code == 4
    assert "app.mpy and app.py would both be stored as app.mpy" in refused.value.detail
    assert desk.stored().keys() == {"a.txt", "lib/b.bin"}


def test_a_folder_with_the_name_of_a_result_is_a_conflict(desk: Desk) -> None:
    desk.open()
    desk.write("app.py", b"x = 1\n")
    desk.write("app.mpy/inner", b"1")
    with pytest.raises(PlanError) as refused:
        desk.commit()
    assert "would both be stored as app.mpy" in refused.value.detail


def test_a_folder_of_the_image_with_the_name_of_a_result_is_one_too(tmp_path: Path) -> None:
    desk = Desk.with_image(tmp_path, {"app.mpy/inner": b"1"})
    desk.open()
    desk.write("app.py", b"x = 1\n")
    with pytest.raises(PlanError):
        desk.commit()


def test_names_that_no_camera_can_open_are_refused(desk: Desk) -> None:
    desk.open()
    desk.write("bad\nname", b"1")
    (desk.work / os.fsdecode(b"latin\xe9")).write_bytes(b"1")
    desk.write("été", b"1")
    status = desk.session.status()
    codes = sorted(problem.code for problem in status.problems if problem.code != "no-board")
    assert codes == ["name", "name", "name-ascii"]
    json.loads(status.json())
    status.text().encode()
    with pytest.raises(PlanError) as refused:
        desk.commit()
    assert refused.value.detail.count("\n") == 1


@pytest.mark.parametrize("name", ["two\nlines", os.fsdecode(b"latin\xe9")])
def test_a_file_that_no_camera_can_open_is_kept_all_the_same(desk: Desk, name: str) -> None:
    """It is the only thing that was made: still there is something to commit, and to keep."""
    desk.open()
    desk.write(name, b"the only copy")
    status = desk.session.status()
    assert not status.clean
    assert "(no board): 1 change, 1 error" in status.text()
    with pytest.raises(PlanError):
        desk.commit()
    assert leave_work(desk.session) is not None
    desk.open()
    assert (desk.work / name).read_bytes() == b"the only copy"


def test_a_name_the_ide_garbles_is_only_a_warning(desk: Desk) -> None:
    desk.open()
    desk.write("été", b"1")
    desk.commit()
    assert desk.stored()["été"] == b"1"
    assert problems(desk)["name-ascii"].severity == "info"


def test_too_much_is_refused_with_the_bytes_and_the_largest(desk: Desk) -> None:
    desk.open(board="OPENMV2")
    capacity = desk.session.settings.capacity
    assert capacity is not None
    desk.write("big.dat", bytes(capacity))
    with pytest.raises(CapacityError) as refused:
        desk.commit()
    over = desk.session.status().used - capacity
    assert f"{over:,} B too large" in refused.value.what
    assert f"big.dat {capacity:,} B" in refused.value.what
    assert refused.value.exit_code == 4


def test_everything_that_is_wrong_is_said_at_once(desk: Desk) -> None:
    desk.open(board="OPENMV2")
    desk.write("big.dat", bytes(desk.session.settings.capacity or 0))
    desk.write("bad.py", b"def f(:\n")
    desk.write("bad\x07", b"1")
    desk.write("app.py", b"x = 1\n")
    desk.write("app.mpy", b"M\x06\x00\x1f")
    os.mkfifo(desk.work / "pipe")
    with pytest.raises(PlanError) as refused:
        desk.commit()
    for word in ("too large", "bad.py", "\\x07", "app.mpy and app.py", "pipe"):
        assert word in refused.value.detail, word


def test_a_syntax_error_alone_is_a_conversion_failure(desk: Desk) -> None:
    desk.open()
    desk.write("bad.py", b"def f(:\n")
    with pytest.raises(ConversionError) as refused:
        desk.commit()
    assert refused.value.exit_code == 3
    assert "SyntaxError" in refused.value.detail
    (desk.work / "bad.py").unlink()
    assert desk.commit().clean


def test_links_and_fifos_put_there_by_hand_are_named_and_not_followed(
    desk: Desk, tmp_path: Path
) -> None:
    desk.open()
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "file").write_bytes(b"outside")
    (desk.work / "link").symlink_to(secret)
    os.mkfifo(desk.work / "pipe")
    with pytest.raises(PlanError) as refused:
        desk.commit()
    assert "2 files (link, pipe): only files and folders" in refused.value.detail
    shown = list(diff_session(desk.session, lambda path: True))
    assert [line.partition(": ")[0] for line in shown] == [
        "+++ b/link  only files and folders can be stored",
        "+++ b/pipe  only files and folders can be stored",
    ]


class TestScriptsAndWhatTheyReplace:
    """`app.mpy` came from the image; the user writes `app.py`."""

    @pytest.fixture
    def desk(self, tmp_path: Path) -> Desk:
        desk = Desk.with_image(tmp_path, {"app.mpy": b"M\x06\x00\x1f from the image", "z": b"z"})
        desk.open()
        desk.write("app.py", b"x = 1\n")
        return desk

    def test_the_script_wins(self, desk: Desk) -> None:
        assert desk.changes() == {"app.py": "A"}
        desk.commit()
        stored = desk.stored()
        assert list(stored) == ["app.mpy", "z"]
        assert stored["app.mpy"] != b"M\x06\x00\x1f from the image"
        assert sorted(path.name for path in desk.work.iterdir()) == ["app.py", "z"]

    def test_deleted_before_the_commit_the_compiled_file_is_back(self, desk: Desk) -> None:
        (desk.work / "app.py").unlink()
        assert desk.session.status().clean
        assert desk.commit().clean

    def test_deleted_after_the_commit_nothing_comes_back(self, desk: Desk) -> None:
        desk.commit()
        (desk.work / "app.py").unlink()
        assert desk.changes() == {"app.py": "D"}
        desk.commit()
        assert desk.stored() == {"z": b"z"}

    def test_a_compiled_file_that_was_edited_too_is_a_conflict(self, desk: Desk) -> None:
        desk.write("app.mpy", b"M\x06\x00\x1f by hand")
        with pytest.raises(PlanError):
            desk.commit()


def test_trailing_bytes_of_a_partition_dump_are_kept(tmp_path: Path) -> None:
    image = encode({"a.txt": b"first\n"})
    for fill in (b"\xff", b"\x00"):
        (tmp_path / "app.img").write_bytes(image + fill * (65536 - len(image)))
        desk = Desk.of_file(tmp_path / "app.img")
        desk.open()
        note = problems(desk)["trailing"]
        assert note.severity == "info"
        desk.write("b.txt", b"second\n" * 100)
        desk.commit()
        data = desk.image.read_bytes()
        assert len(data) == 65536
        used = desk.session.base.image_size
        assert data[used:] == fill * (65536 - used)
        desk.open()
        assert desk.session.status().clean
        assert (desk.work / "b.txt").exists()


def test_unknown_data_after_the_image_stays_where_it_is(tmp_path: Path) -> None:
    image = encode({"a.txt": b"first\n", "b.txt": bytes(500)})
    foreign = b"settings of another program"
    (tmp_path / "app.img").write_bytes(image + foreign)
    desk = Desk.of_file(tmp_path / "app.img")
    desk.open()
    desk.write("b.txt", b"1" * 500)  # as long as it was
    assert problems(desk)["trailing"].severity == "info"
    desk.commit()
    desk.write("b.txt", bytes(300))
    desk.commit()
    data = desk.image.read_bytes()
    assert data[len(image) :] == foreign
    desk.write("b.txt", bytes(5000))
    assert problems(desk)["trailing"].severity == "error"
    with pytest.raises(PlanError) as refused:
        desk.commit()
    assert "--force" in refused.value.detail
    assert "--to" in refused.value.detail
    assert desk.image.read_bytes() == data
    desk.commit(force=True)
    assert foreign not in desk.image.read_bytes()
    assert desk.stored()["b.txt"] == bytes(5000)


def test_more_than_the_format_holds_is_a_problem_and_not_an_error(desk: Desk) -> None:
    desk.open()
    session = desk.session
    large = tuple(
        ShadowEntry(name, Change.ADDED, False, name, 3 << 30, digest="0", location=InWork(name))
        for name in ("a", "b")
    )
    for capacity in (None, 8 << 20):
        plan = make_plan({"": Derived(large)}, session.base, session.settings.target, capacity)
        assert [problem.code for problem in plan.errors] == ["capacity"]
        assert plan.size > 6 << 30
    desk.write("hole.bin", b"")
    os.truncate(desk.work / "hole.bin", 1 << 40)
    status = session.status()
    assert [problem.path for problem in status.errors] == ["hole.bin"]
    assert "4 GiB" in status.errors[0].message
