"""Commits: what is written, what is refused, what happens beside them."""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from session_desk import Camera, Desk, Flash, files_of, tree_of
from stopping import ends_at

from romfsfs.convert import script
from romfsfs.devices import file as file_device
from romfsfs.devices.file import FileDevice
from romfsfs.errors import (
    CapacityError,
    DeviceError,
    RomfsError,
    SessionBusy,
    UsageError,
    VerifyError,
)
from romfsfs.image.writer import encode
from romfsfs.session.keep import history, locks, steps
from romfsfs.session.plan import conversions
from romfsfs.session.plan.plan import Plan, make_plan
from romfsfs.session.rebase import prepare
from romfsfs.session.rebase.commit import CommitOptions, commit, commit_to
from romfsfs.session.rebase.transaction import Mounted
from romfsfs.session.rebase.undo import undo
from romfsfs.session.revert import revert
from romfsfs.session.session import Session


def test_nothing_changed_nothing_written(desk: Desk) -> None:
    desk.open()
    before = desk.image.stat()
    assert desk.commit().clean
    assert desk.image.stat() == before


def test_a_commit_says_what_it_wrote_and_leaves_the_tree_clean(desk: Desk) -> None:
    desk.open()
    desk.write("a.txt", b"second\n")
    report = desk.commit()
    assert not report.clean
    assert report.write is not None
    assert report.write.verified
    assert report.write.written == report.size == desk.image.stat().st_size
    assert desk.session.status().clean
    assert desk.again().session.status().clean
    assert sorted(path.name for path in desk.session.folder.path.iterdir()) == [
        "base.json", "commit.lock", "history", "lock", "session.json", "work",
    ]  # fmt: skip


def test_what_has_to_be_converted_first_is_planned_once(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Plans of thousands of files take their time, and the first look's would be for nothing."""
    plans = []

    def counted(*args: Any, **how: Any) -> Plan:
        plans.append(make_plan(*args, **how))
        return plans[-1]

    monkeypatch.setattr("romfsfs.session.session.make_plan", counted)
    desk.open()
    desk.write("app.py", b"planned = 1\n")
    report = desk.commit()
    assert "app.mpy" in desk.stored()
    assert plans == [report.plan]


def test_scripts_are_converted_side_by_side(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many at a time as there are processors: each run waits for the others."""
    meeting = threading.Barrier(4, timeout=60)
    real = script.run_tool

    def run(*arguments: Any, **options: Any) -> Any:
        meeting.wait()
        return real(*arguments, **options)

    monkeypatch.setattr(script, "run_tool", run)
    monkeypatch.setattr(conversions.os, "cpu_count", lambda: 4)
    desk.open()
    for number in range(4):
        desk.write(f"a{number}.py", b"x = %d\n" % number)
    desk.commit()
    assert {f"a{number}.mpy" for number in range(4)} <= set(desk.stored())


def test_mode_owner_and_a_link_to_the_image_stay(desk: Desk, tmp_path: Path) -> None:
    desk.image.chmod(0o640)
    link = tmp_path / "link.img"
    link.symlink_to(desk.image)
    linked = Desk.of_file(link)
    linked.open()
    linked.write("a.txt", b"second\n")
    linked.commit()
    assert link.is_symlink()
    assert desk.image.stat().st_mode & 0o777 == 0o640
    assert desk.stored()["a.txt"] == b"second\n"


def test_the_layout_of_an_unchanged_tree_is_rewritten_only_when_asked(tmp_path: Path) -> None:
    (tmp_path / "app.img").write_bytes(b"\xd2\xcd\x31\x02\x01\x00")  # a padding record
    desk = Desk.of_file(tmp_path / "app.img")
    desk.open()
    assert desk.commit().clean
    desk.commit(compact=True)
    assert desk.image.read_bytes() == encode({})
    assert desk.commit(compact=True).clean


def test_files_open_for_writing_are_named(desk: Desk) -> None:
    desk.open()
    desk.write("a.txt", b"half")
    with pytest.raises(RomfsError, match="open for writing") as refused:
        commit(desk.session, desk.device, mounted=Mounted(None, lambda: ["a.txt", "lib/b.bin"]))
    assert "2 files" in refused.value.what
    assert "a.txt, lib/b.bin" in refused.value.what


def test_a_dry_run_leaves_nothing_behind(desk: Desk) -> None:
    desk.open()
    desk.write("a.txt", b"second\n")
    before = tree_of(desk.session.folder.path), desk.image.read_bytes()
    report = desk.commit(dry_run=True)
    assert not report.clean
    assert report.size
    after = tree_of(desk.session.folder.path), desk.image.read_bytes()
    after[0]["commit.lock"] = before[0]["commit.lock"]
    assert after == before


def test_to_another_file_leaves_session_and_target_alone(desk: Desk, tmp_path: Path) -> None:
    desk.open()
    desk.write("a.txt", b"second\n")
    before = desk.image.read_bytes()
    other = Desk.of_file(tmp_path / "other.img")
    assert commit_to(desk.session, other.device, CommitOptions(dry_run=True)).write is None
    assert not other.image.exists()
    commit_to(desk.session, other.device)
    assert other.stored()["a.txt"] == b"second\n"
    assert desk.image.read_bytes() == before
    assert desk.changes() == {"a.txt": "M"}
    assert not (desk.session.folder.path / "elsewhere.img").exists()


@pytest.mark.parametrize("step", ["switched", "revert-removed", "revert-restored"])
def test_to_another_file_after_an_undo_that_was_interrupted(
    desk: Desk, tmp_path: Path, step: str
) -> None:
    """What was written was half of one image and half of the other."""
    desk.open()
    old = desk.stored()
    desk.write("a.txt", b"two")
    desk.write("added.txt", b"added")
    (desk.work / "lib/b.bin").unlink()
    desk.commit()
    with ends_at(step, KeyboardInterrupt):
        undo(desk.session, desk.device)
    other, session = FileDevice(tmp_path / "other.img"), desk.again().session
    with pytest.raises(RomfsError, match="undo was interrupted, which a dry run does not"):
        commit_to(session, other, CommitOptions(dry_run=True))
    commit_to(session, other)
    assert files_of((tmp_path / "other.img").read_bytes()) == old == desk.stored()
    assert not session.interrupted
    assert desk.changes() == {}


def test_to_another_file_while_the_camera_is_gone(tmp_path: Path) -> None:
    """The tree is that of the edits yet: whether the camera was written, only that can tell."""
    desk = Desk(Camera(tmp_path / "camera"), "camera")
    desk.open()
    desk.write("a.txt", b"mine")
    with ends_at("recorded", KeyboardInterrupt):
        desk.commit()
    commit_to(desk.session, FileDevice(tmp_path / "other.img"))
    assert files_of((tmp_path / "other.img").read_bytes()) == {"a.txt": b"mine"}
    assert desk.session.interrupted


def test_how_many_blocks_change_is_not_known_over_another_s_image(tmp_path: Path) -> None:
    """It was counted against what the camera had held before: 0 blocks, and all were erased."""
    camera = Camera(tmp_path / "camera")
    camera.put(encode({"a.txt": bytes(9000)}))
    desk = Desk(camera, "camera")
    desk.open()
    desk.write("b.txt", b"b")
    assert desk.commit(force=True, dry_run=True).blocks
    camera.put(encode({"theirs.txt": b"\x01" * 20000}))
    assert desk.commit(force=True, dry_run=True).blocks is None
    assert desk.commit(force=True).blocks is None


def test_to_its_own_target_is_a_mistake(desk: Desk) -> None:
    desk.open()
    desk.write("a.txt", b"second\n")
    with pytest.raises(UsageError):
        commit_to(desk.session, desk.device)


def test_to_a_camera_that_is_too_small(desk: Desk, tmp_path: Path) -> None:
    desk.open()
    desk.write("a.txt", bytes(10000))
    with pytest.raises(CapacityError, match="too large, there is room for"):
        commit_to(desk.session, Flash(tmp_path / "flash", 8192))


def test_edits_made_while_a_commit_runs_stay_edits(desk: Desk) -> None:
    desk.open()
    desk.write("a.txt", b"committed\n")

    def edit(step: str) -> None:
        if step == "recorded":
            desk.write("a.txt", b"edited meanwhile\n")
            desk.write("new.txt", b"n")

    steps.on_step = edit
    desk.commit()
    assert desk.stored()["a.txt"] == b"committed\n"
    assert desk.changes() == {"a.txt": "M", "new.txt": "A"}
    steps.on_step = lambda name: None
    desk.commit()
    assert desk.stored()["a.txt"] == b"edited meanwhile\n"


def test_an_edit_between_plan_and_copy_is_taken_in(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.open()
    desk.write("a.txt", b"planned\n")
    plans = prepare.converted_plan
    edits = [b"longer than before\n", b"plannee\n"]

    def planned(*args: object, **how: object) -> object:
        made = plans(*args, **how)  # type: ignore[arg-type]
        if edits:
            desk.write("a.txt", edits.pop())
        return made

    monkeypatch.setattr(prepare, "converted_plan", planned)
    desk.commit()
    assert desk.stored()["a.txt"] == b"longer than before\n"
    assert desk.session.status().clean


def test_a_tree_that_never_rests_is_not_committed(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.open()
    plans = prepare.converted_plan
    number = iter(range(100))

    def planned(*args: object, **how: object) -> object:
        made = plans(*args, **how)  # type: ignore[arg-type]
        desk.write("a.txt", b"%d" % next(number) * 10)
        return made

    desk.write("a.txt", b"first")
    before = desk.image.read_bytes()
    monkeypatch.setattr(prepare, "converted_plan", planned)
    with pytest.raises(RomfsError, match="keep changing"):
        desk.commit()
    assert desk.image.read_bytes() == before
    assert not (desk.session.folder.path / "new.img").exists()


def test_two_commits_at_once_one_waits_for_nothing_and_says_so(desk: Desk) -> None:
    desk.open()
    desk.write("a.txt", b"second\n")
    inside, go_on = threading.Event(), threading.Event()

    def pause(step: str) -> None:
        if step == "recorded":
            inside.set()
            assert go_on.wait(30)

    steps.on_step = pause
    first = threading.Thread(target=desk.commit)
    first.start()
    try:
        assert inside.wait(30)
        with pytest.raises(SessionBusy) as busy:
            desk.again().commit()
        assert str(os.getpid()) in busy.value.line
        with pytest.raises(SessionBusy):
            desk.again().open()
        status = desk.again().session.status()
        assert "interrupted" not in {problem.code for problem in status.problems}
    finally:
        go_on.set()
        first.join(30)
    assert desk.again().session.status().clean


@pytest.mark.parametrize("step", steps.COMMIT)
def test_a_status_at_any_moment_of_a_commit_sees_one_image(desk: Desk, step: str) -> None:
    """Another process must never read the new image with the old record, or the other way."""
    desk.open()
    desk.write("0.txt", b"moves all that follows")
    desk.write("a.txt", b"second\n")
    old = {"a.txt": b"first\n", "lib/b.bin": bytes(range(200))}
    new = {**old, "a.txt": b"second\n", "0.txt": b"moves all that follows"}
    seen: list[bool] = []

    def look(name: str) -> None:
        if name != step:
            return
        held = Session.load(desk.session.folder).held()
        stored = {
            path: os.pread(held.fd, extent.size, extent.offset)
            for path, extent in held.extents.items()
        }
        assert stored in (old, new)
        assert stored.keys() == {e.path for e in held.base.entries if not e.is_dir}
        desk.again().session.status()
        seen.append(True)

    steps.on_step = look
    desk.commit()
    assert seen


def test_a_failing_write_leaves_no_trace(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.open()
    desk.write("a.txt", b"second\n")
    before = desk.image.read_bytes()

    def full(*args: object, **how: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("romfsfs.devices.file.copy_all", full)
    with pytest.raises(DeviceError, match="No space left") as refused:
        desk.commit()
    assert "nothing was changed" in refused.value.next_step
    assert desk.image.read_bytes() == before
    assert not desk.session.interrupted
    assert not list(desk.image.parent.glob("*.tmp"))
    monkeypatch.undo()


def test_a_disk_that_lies_is_found_out_before_the_image_is_replaced(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.open()
    desk.write("a.txt", b"second\n")
    before = desk.image.read_bytes()
    copy = file_device.copy_all
    copies = []

    def damaged(source: object, target: object, size: int, *rest: object) -> None:
        copy(source, target, size, *rest)  # type: ignore[arg-type]
        os.pwrite(target.fileno(), b"?", size - 1)  # type: ignore[attr-defined]
        copies.append(size)

    monkeypatch.setattr(file_device, "copy_all", damaged)
    with pytest.raises(VerifyError) as refused:
        desk.commit()
    assert refused.value.exit_code == 6
    assert len(copies) == 2  # retried once in full
    assert desk.image.read_bytes() == before
    assert not desk.session.interrupted


def test_a_camera_that_lies_is_reported_with_the_backup(tmp_path: Path) -> None:
    flash = Flash(tmp_path / "flash", 65536)
    desk = Desk(flash, "camera")
    desk.open()
    desk.write("a.txt", b"before")
    desk.commit()
    desk.write("a.txt", b"a")
    flash.lies = True
    with pytest.raises(VerifyError) as refused:
        desk.commit()
    assert str(desk.session.base_image) in refused.value.next_step
    assert desk.session.interrupted
    flash.lies = False
    desk.commit()
    assert files_of(flash.path.read_bytes()) == {"a.txt": b"a"}


def test_a_camera_keeps_unchanged_files_in_place(tmp_path: Path) -> None:
    flash = Flash(tmp_path / "flash", 1 << 20)
    desk = Desk(flash, "camera")
    desk.open()
    desk.write("0.txt", b"0" * 5000)
    desk.write("model.bin", os.urandom(200_000))
    desk.commit()
    desk.write("0.txt", b"0" * 4000)
    report = desk.commit()
    assert report.blocks is not None
    assert report.blocks <= 3
    assert files_of(flash.path.read_bytes())["0.txt"] == b"0" * 4000


@pytest.mark.parametrize("edit", ["first goes", "first grows", "second goes", "new"])
def test_a_camera_with_two_files_of_one_name_takes_commits(tmp_path: Path, edit: str) -> None:
    """openmv-ota stores `ä.txt` and `ö.txt` both as `?.txt`; cameras open the first."""
    model = os.urandom(200_000)
    image = encode({"A.txt": b"1" * 5000, "B.txt": b"2" * 5000, "model.bin": model})
    image = image.replace(b"\x05A.txt", b"\x05?.txt").replace(b"\x05B.txt", b"\x05?.txt")
    (tmp_path / "flash").write_bytes(image.ljust(1 << 20, b"\xff"))
    flash = Flash(tmp_path / "flash", 1 << 20)
    desk = Desk(flash, "camera")
    desk.open()
    shown = {"?.txt": b"1" * 5000, "?~2.txt": b"2" * 5000, "model.bin": model}
    assert files_of(flash.path.read_bytes()) == shown
    path = {"second goes": "?~2.txt", "new": "new.txt"}.get(edit, "?.txt")
    if edit.endswith("goes"):
        (desk.work / path).unlink()
        del shown[path]
    else:
        shown[path] = b"x" * 7000
        desk.write(path, shown[path])
    report = desk.commit()
    assert report.blocks is not None
    assert report.blocks <= 10
    assert files_of(flash.path.read_bytes()) == shown


@pytest.fixture
def small_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A state folder on a file system of 400 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(disk)],
        capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    monkeypatch.setenv("ROMFSFS_STATE_DIR", str(disk / "state"))
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True, timeout=30)


@pytest.mark.root("mount a small disk")
def test_a_full_disk_at_a_commit_is_one_line_and_loses_nothing(
    small_disk: Path, tmp_path: Path
) -> None:
    desk = Desk.with_image(tmp_path, {"a.bin": b"a" * 100_000})
    desk.open()  # the base's image and the tree: 200,000 bytes
    desk.write("b.bin", b"b" * 90_000)
    before = desk.image.read_bytes()
    with pytest.raises(RomfsError, match="No space left") as refused:
        desk.commit()
    assert "your edits are kept" in refused.value.next_step
    assert str(desk.session.folder.path) in refused.value.line
    assert desk.image.read_bytes() == before
    assert not (desk.session.folder.path / "new.img").exists()
    assert desk.changes() == {"b.bin": "A"}
    subprocess.run(["mount", "-o", "remount,size=2m", str(small_disk)], check=True, timeout=30)
    desk.commit()
    assert desk.stored()["b.bin"] == b"b" * 90_000


@pytest.mark.root("mount a small disk")
def test_a_full_disk_after_the_target_was_written_is_mended_later(
    small_disk: Path, tmp_path: Path
) -> None:
    desk = Desk.with_image(tmp_path, {"a.bin": b"a" * 50_000})
    desk.open()
    desk.write("a.bin", b"b" * 50_000)
    ballast = small_disk / "ballast"

    def fill(step: str) -> None:
        if step == "target-written":
            with open(ballast, "wb", 0) as file, contextlib.suppress(OSError):
                while True:
                    file.write(bytes(4096))

    steps.on_step = fill
    with pytest.raises(RomfsError, match="on the target and verified") as refused:
        desk.commit()
    assert "romfsfs recover" in refused.value.next_step
    steps.on_step = lambda name: None
    ballast.unlink()
    assert desk.commit().clean
    assert desk.stored()["a.bin"] == b"b" * 50_000
    assert [entry.kind for entry in history.entries(desk.session.folder)] == ["read", "commit"]


@pytest.mark.root("mount a small disk")
def test_a_full_disk_at_a_mount_leaves_nothing_half_made(small_disk: Path, tmp_path: Path) -> None:
    desk = Desk.with_image(tmp_path, {"a.bin": b"a" * 300_000})
    with pytest.raises(RomfsError, match="No space left"):
        desk.open()
    folder = next((small_disk / "state/sessions").iterdir())
    assert not [path for path in folder.iterdir() if path.name in ("work", "work.new", "read.img")]
    subprocess.run(["mount", "-o", "remount,size=2m", str(small_disk)], check=True, timeout=30)
    desk.open()
    assert (desk.work / "a.bin").stat().st_size == 300_000


def test_a_look_at_a_lock_does_not_turn_a_commit_away(desk: Desk) -> None:
    """`status` and `sessions` look who holds a lock by taking it for an instant."""
    desk.open()
    desk.write("a.txt", b"second\n")
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            desk.session.folder.mounted_at()
            desk.session.folder.changed_by()

    watchers = [threading.Thread(target=look) for _ in range(2)]
    for watcher in watchers:
        watcher.start()
    try:
        for number in range(10):
            desk.write("a.txt", b"%d" % number)
            desk.commit()
    finally:
        stop.set()
        for watcher in watchers:
            watcher.join(30)


@pytest.mark.parametrize("kind", [fcntl.LOCK_SH, fcntl.LOCK_EX])
def test_who_looks_at_a_lock_is_waited_for_longer_than_a_holder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: int
) -> None:
    other = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(other, kind)
    tried, really = [], locks.lock_within

    def lock_within(fd: int, seconds: float) -> bool:
        tried.append(seconds)
        if len(tried) == 3:
            fcntl.flock(other, fcntl.LOCK_UN)
        return really(fd, 0)

    monkeypatch.setattr(locks, "lock_within", lock_within)
    with locks.Lock(tmp_path / "lock") as lock:
        assert lock.acquire() is (kind == fcntl.LOCK_SH)
    assert tried == [0.1] * (3 if kind == fcntl.LOCK_SH else 1)
    with monkeypatch.context() as impatient:  # nor is it waited for without end
        impatient.setattr(locks, "_LOOKS_SECONDS", 0)
        fcntl.flock(other, kind)
        assert locks.Lock(tmp_path / "lock").acquire() is False
    os.close(other)


def test_a_session_is_usable_where_links_are_not(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*args: object, **how: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    desk.open()
    desk.write("a.txt", b"second\n")
    desk.commit()
    assert [entry.kind for entry in history.entries(desk.session.folder)] == ["read", "commit"]


def test_a_tree_deeper_than_the_interpreters_stack(tmp_path: Path) -> None:
    depth = sys.getrecursionlimit() + 200
    desk = Desk.with_image(tmp_path, {"/".join(["d"] * depth) + "/x": b"deep"})
    desk.open()
    desk.write("a.txt", b"1")
    desk.commit()
    assert b"deep" in desk.stored().values()
    revert(desk.session)
    assert not desk.session.has_work
