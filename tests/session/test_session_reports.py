"""What a commit or an opening did, in numbers: its whole report, and what it did only once."""

from __future__ import annotations

import stat
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from session_desk import Camera, Desk, files_of
from stopping import ends_at

from romfsfs.cli import main
from romfsfs.convert import FileOptions, Options, Rule
from romfsfs.devices.base import WriteReport
from romfsfs.devices.file import FileDevice
from romfsfs.errors import (
    CapacityError,
    ConversionError,
    PlanError,
    RomfsError,
    UsageError,
)
from romfsfs.image.model import FileNode, walk
from romfsfs.image.reader import read_image
from romfsfs.image.writer import encode
from romfsfs.session.keep import recall
from romfsfs.session.keep.folder import make_folder
from romfsfs.session.keep.state import SessionInfo
from romfsfs.session.plan.problems import Problem
from romfsfs.session.rebase import prepare
from romfsfs.session.rebase.commit import CommitOptions, CommitReport, commit_to
from romfsfs.session.rebase.prepare import raise_problems
from romfsfs.session.rebase.read import OpenOptions, session_for
from romfsfs.session.revert import leave_work, revert
from romfsfs.system.files import digest_bytes

BLOCK = 4096
OTHER = encode({"b.txt": b"other"})


def figures(report: CommitReport) -> tuple[bool, int, str, int | None]:
    return report.clean, report.size, report.digest, report.blocks


@pytest.fixture
def camera(tmp_path: Path) -> Camera:
    return Camera(tmp_path / "flash")


@pytest.mark.parametrize("verbose", [[], ["-v"]])
def test_what_a_commit_elsewhere_says_is_said_once(
    desk: Desk, camera: Camera, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch, verbose: list[str],
) -> None:  # fmt: skip
    """Both the session and who writes the camera look at the same files."""
    camera.says = {"notes": ("its firmware is old",)}
    monkeypatch.setattr("romfsfs.cli.sessions.device", lambda *_: nullcontext(camera))
    desk.open()
    for number in range(2):
        desk.write(f"{number}.mpy", b"M\x05\x00\x1f")
    assert main(["commit", str(desk.image), "--to", "camera", *verbose]) == 0
    said = capsys.readouterr()
    assert said.err.count("is bytecode 5") == len(verbose) + 1
    assert said.out.endswith(" s, verified; its firmware is old\n")


@pytest.fixture
def desk_of_camera(camera: Camera) -> Desk:
    """With four files of a block each."""
    desk = Desk(camera, "camera")
    desk.open()
    for number in range(4):
        desk.write(f"{number}.bin", bytes([number]) * BLOCK)
    desk.commit()
    return desk


def test_a_commit_to_a_camera_says_how_many_blocks_change(
    desk_of_camera: Desk, camera: Camera
) -> None:
    """Those that differ, with the header's; a dry run says the same and does nothing."""
    desk = desk_of_camera
    before, restarts = camera.path.read_bytes(), camera.restarts
    base = desk.session.base
    clean = desk.commit()
    assert figures(clean) == (True, base.size, base.digest, None)
    assert clean.write is None
    desk.write("2.bin", b"\xee" * BLOCK)
    tried = desk.commit(dry_run=True)
    assert tried.write is None
    assert (camera.path.read_bytes(), camera.restarts) == (before, restarts)
    done = desk.commit()
    assert figures(done) == figures(tried)
    after = camera.path.read_bytes()
    differ = [
        at
        for at in range(0, camera.size, BLOCK)
        if before[at : at + BLOCK] != after[at : at + BLOCK]
    ]
    size = desk.session.base.size
    assert figures(done) == (False, size, digest_bytes(after[:size]), len(differ))
    assert len(differ) == 2
    assert camera.restarts == restarts + 1
    desk.write("2.bin", b"\xdd" * BLOCK)
    desk.commit(restart=False)
    assert camera.restarts == restarts + 1
    (desk.work / "1.bin").unlink()
    desk.commit(restart=False)
    assert not desk.commit(compact=True).clean
    assert camera.restarts == restarts + 2
    assert desk.commit(compact=True).clean
    assert camera.restarts == restarts + 2


def test_a_commit_to_a_file_counts_no_blocks(desk: Desk) -> None:
    desk.open(board="OPENMV4")
    desk.write("a.txt", b"second\n")
    image = desk.commit(dry_run=True)
    done = desk.commit()
    assert figures(image) == figures(done)
    data = desk.image.read_bytes()
    assert figures(done) == (False, len(data), digest_bytes(data), None)


def test_through_a_boot_loader_nothing_lies_with_the_header(tmp_path: Path) -> None:
    """A cable that is pulled at any moment leaves the old files, the new ones, or none."""

    def committed(size: int, **how: bool) -> tuple[int, int]:
        """The image's size, and where the first file of it lies."""
        camera = Camera(tmp_path / f"{size}{how}", size, header_unit=BLOCK)
        desk = Desk(camera, "camera")
        desk.open()
        for name in ("a.bin", "b.bin"):
            desk.write(name, name.encode() * 300)
        desk.commit(**how)
        nodes = walk(read_image(camera.path.read_bytes()))
        starts = [node.extent.offset for _, node in nodes if isinstance(node, FileNode)]
        return desk.session.base.size, min(starts)

    size, start = committed(16 * BLOCK)
    assert BLOCK <= start < BLOCK + 100
    assert committed(size) == (size, start), "it just fits"
    small, start = committed(size - 2)
    assert start < 100, "where there is no room for that, as in a file"
    assert committed(16 * BLOCK, compact=True) == (small, start)


# -- to another place


def test_to_a_camera_that_holds_it_already(desk: Desk, camera: Camera) -> None:
    desk.open()
    desk.write("a.txt", b"second\n")
    first = commit_to(desk.session, camera, source="elsewhere")
    assert first.write is not None
    assert (camera.restarts, first.blocks) == (1, None)
    size = first.size
    again = commit_to(desk.session, camera, source="elsewhere")
    assert again.write == WriteReport(0, 0, 0.0, verified=True, skipped=size)
    assert figures(again) == figures(first)
    assert camera.restarts == 1
    info = SessionInfo.load(make_folder(camera.info().key).info)
    assert info.source == "elsewhere"
    names = {path.name for path in desk.session.folder.path.iterdir()}
    assert {"staged.img", "found.img", "rebase.json"}.isdisjoint(names)


@pytest.mark.parametrize("spare", [0, -1])
def test_to_a_camera_that_it_just_fits(desk: Desk, tmp_path: Path, spare: int) -> None:
    desk.open()
    desk.write("a.bin", bytes(9999))
    size = commit_to(desk.session, Camera(tmp_path / "1"), CommitOptions(dry_run=True)).size
    small = Camera(tmp_path / "2", size + spare)
    if spare < 0:
        with pytest.raises(CapacityError) as refused:
            commit_to(desk.session, small)
        said = f"the image is 1 B too large, there is room for {size - 1:,} B (test camera)"
        assert refused.value.line == said
    else:
        commit_to(desk.session, small)
        assert files_of(small.path.read_bytes())["a.bin"] == bytes(9999)


def test_to_a_file_that_exists(desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that was mistyped must not cost a file. With --force no copy of it is kept, so none is
    made, for which the session's disk may have no room."""
    desk.open()
    monkeypatch.delattr(FileDevice, "read_bytes")
    desk.write("a.txt", b"second\n")
    letter = tmp_path / "letter.txt"
    for content in b"Dear reader, this is no image of any kind.", OTHER:
        letter.write_bytes(content)
        with pytest.raises(UsageError, match=r"the file exists .* replace it with --force"):
            commit_to(desk.session, FileDevice(letter))
        assert letter.read_bytes() == content
        commit_to(desk.session, FileDevice(letter), CommitOptions(force=True))
        assert files_of(letter.read_bytes())["a.txt"] == b"second\n"
    assert not {"staged.img", "found.img"} & {p.name for p in desk.session.folder.path.iterdir()}
    with pytest.raises(UsageError, match="a camera on its serial port"):
        commit_to(desk.session, FileDevice(letter), CommitOptions(tries=True))


def test_what_is_wrong_with_the_tree_stops_it_too(desk: Desk, tmp_path: Path) -> None:
    desk.open()
    desk.write("bad.py", b"def f(:\n")
    with pytest.raises(ConversionError, match="cannot commit: 1 error"):
        commit_to(desk.session, FileDevice(tmp_path / "new.img"))
    assert not (tmp_path / "new.img").exists()


# -- what is asked before anything is written


def test_a_dry_run_finishes_nothing(desk: Desk) -> None:
    desk.open()
    desk.write("a.txt", b"second\n")
    with ends_at("recorded", InterruptedError):
        desk.commit()
    with pytest.raises(RomfsError) as refused:
        desk.commit(dry_run=True)
    assert refused.value.line == (
        f"a commit was interrupted, which a dry run does not finish ({desk.image}); "
        f"romfsfs recover {desk.image}"
    )
    assert desk.session.interrupted


def test_how_often_a_tree_that_never_rests_is_looked_at(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = []
    look = prepare.converted_plan

    def changing(*args: Any, **how: Any) -> Any:
        made = look(*args, **how)
        looks.append(desk.write("a.txt", b"%d" % len(looks) * 9))
        return made

    desk.open()
    desk.write("a.txt", b"x")
    with monkeypatch.context() as patch:
        patch.setattr(prepare, "converted_plan", changing)
        with pytest.raises(RomfsError) as refused:
            desk.commit()
    said = "files keep changing while they are committed; nothing was written; "
    assert refused.value.line == said + "commit again when they are saved"
    assert len(looks) == 5
    looks.clear()
    monkeypatch.setattr(prepare, "_is_whole", lambda *_: looks.append(Path()))
    with pytest.raises(RomfsError, match="keep changing"):
        desk.commit()
    assert len(looks) == 5


BIG = Problem("capacity", "", "3 bytes too many")
NAME = Problem("name", "b", "a name")
SLOW = Problem("x", "m.tflite", "no model", detail="its tool said:\n  why\n\n")


@pytest.mark.parametrize(
    ("errors", "capacity", "kind", "said"),
    [
        ([BIG], 9, CapacityError, "3 bytes too many"),
        ([BIG], None, PlanError, "cannot build: 1 error; nothing was written"),
        ([BIG, NAME], 9, PlanError, "cannot build: 2 errors; nothing was written"),
        ([NAME], 9, PlanError, "cannot build: 1 error; nothing was written"),
        ([SLOW], 9, ConversionError, "cannot build: 1 error; nothing was written"),
        ([SLOW, NAME], 9, PlanError, "cannot build: 2 errors; nothing was written"),
    ],
)
def test_all_that_is_wrong_is_one_error(
    errors: list[Problem], capacity: int | None, kind: type[RomfsError], said: str
) -> None:
    plan: Any = SimpleNamespace(capacity=capacity, size=12)
    raise_problems(plan, [], "build")
    with pytest.raises(kind) as refused:
        raise_problems(plan, errors, "build")
    assert type(refused.value) is kind
    if isinstance(refused.value, CapacityError):
        assert (refused.value.size, refused.value.capacity) == (12, 9)
        assert said in refused.value.line
        return
    assert refused.value.line == f"{said}; fix what is listed below"
    lines = {BIG: "3 bytes too many", NAME: "b: a name", SLOW: "m.tflite: no model\n    its tool "
             "said:\n      why"}  # fmt: skip
    assert refused.value.detail == "\n".join(lines[each] for each in errors)


# -- opening


def test_what_is_chosen_is_remembered(desk: Desk) -> None:
    """A board brings its first partition with it, and what is not said stays."""

    def chosen(**how: Any) -> tuple[str | None, int, tuple[str, ...], bool]:
        info = session_for(desk.device, desk.source, OpenOptions(**how)).info
        assert SessionInfo.load(make_folder(info.key).info) == info
        return info.board, info.partition, info.excludes, info.commit_on_unmount

    assert chosen() == (None, 0, (), False)
    assert chosen(board="OPENMV_AE3", partition=1) == ("OPENMV_AE3", 1, (), False)
    assert chosen(excludes=("*.bak",)) == ("OPENMV_AE3", 1, ("*.bak",), False)
    assert chosen(board="OPENMV_AE3") == ("OPENMV_AE3", 1, ("*.bak",), False)
    assert chosen(board="OPENMV4", commit_on_unmount=True) == ("OPENMV4", 0, ("*.bak",), True)
    assert chosen(board="OPENMV_AE3:1", excludes=("*.bak", "*.tmp")) == (
        "OPENMV_AE3", 1, ("*.bak", "*.tmp"), False,
    )  # fmt: skip
    assert chosen(partition=0) == ("OPENMV_AE3", 0, ("*.bak", "*.tmp"), False)
    for wrong in ({"partition": 2}, {"board": "OPENMV4", "partition": 1}, {"board": "X"}):
        with pytest.raises(UsageError):
            chosen(**wrong)
    assert chosen()[:2] == ("OPENMV_AE3", 0)
    options = Options((Rule("a", FileOptions(convert=False)),))
    session = session_for(desk.device, desk.source, OpenOptions(options=options))
    assert session.settings.target.options.for_path("a").convert is False
    again = session_for(desk.device, desk.source)
    assert again.settings.target.options.for_path("a").convert is False


def test_what_a_camera_says_of_itself_is_believed(camera: Camera) -> None:
    camera.says = {"board": "OPENMV4P", "partition": 0, "capacity": 65536, "name": "mine"}
    info = session_for(camera, "camera", OpenOptions(board="OPENMV4", partition=1)).info
    assert (info.board, info.partition, info.name) == ("OPENMV4", 0, "mine")
    assert session_for(camera, "camera").info.board == "OPENMV4P"
    camera.says = {"mpy_version": (6, 3), "notes": ("old",)}
    info = session_for(camera, "port").info
    assert (info.board, info.mpy_version, info.notes, info.source) == (
        "OPENMV4P", (6, 3), ("old",), "port",
    )  # fmt: skip


class Reading(Camera):
    reads = 0

    def read_image(self, *how: Any) -> int:
        self.reads += 1
        return super().read_image(*how)


def test_a_camera_that_holds_what_we_have_is_not_read_again(tmp_path: Path) -> None:
    camera = Reading(tmp_path / "flash")
    camera.put(encode({"a.txt": b"first"}))
    desk = Desk(camera, "camera")
    desk.open()
    assert camera.reads == 1
    assert leave_work(desk.session) is None
    desk.open()
    assert (camera.reads, (desk.work / "a.txt").read_bytes()) == (1, b"first")
    assert leave_work(desk.session) is None
    image = desk.session.base_image
    whole = image.read_bytes()
    image.unlink()
    image.write_bytes(whole.replace(b"first", b"fjrst"))  # the disk's doing
    desk.open()
    assert (camera.reads, (desk.work / "a.txt").read_bytes()) == (2, b"first")
    leave_work(desk.session)
    camera.put(OTHER)
    desk.open()
    assert (camera.reads, (desk.work / "b.txt").read_bytes()) == (3, b"other")
    revert(desk.session)
    desk.open(new=True)
    assert (camera.reads, list(desk.work.iterdir())) == (3, [])


def test_what_killed_processes_left_goes_and_the_tree_is_for_all(desk: Desk) -> None:
    folder = make_folder(desk.device.info().key)
    folder.hidden.mkdir()
    (folder.hidden / "1").write_bytes(b"open then")
    folder.staged.write_bytes(b"x")
    desk.open()
    assert not folder.hidden.exists()
    assert stat.S_IMODE(desk.work.stat().st_mode) == 0o755
    names = sorted(path.name for path in folder.path.iterdir())
    assert names == [
        "base.json", "commit.lock", "history", "lock", "session.json", "unsettled", "work",
    ]  # fmt: skip


def test_a_read_that_fails_leaves_nothing_half_made(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("romfsfs.session.rebase.read.extract", full)
    with pytest.raises(RomfsError) as refused:
        desk.open()
    folder = make_folder(desk.device.info().key)
    assert refused.value.line == (
        f"the image cannot be read into the session: No space left on device ({folder.path}); "
        "nothing was written to the target and your edits are kept; free space there, or use "
        "another place with $ROMFSFS_STATE_DIR, and try again"
    )
    names = {path.name for path in folder.path.iterdir()}
    assert names <= {"commit.lock", "history", "lock", "session.json"}


def test_a_source_is_remembered_once(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[tuple[str, str]] = []
    remember = recall.Recall.remember

    def noted(self: recall.Recall, stored: str, digest: str, name: str, *rest: Any) -> None:
        kept.append((stored, name))
        remember(self, stored, digest, name, *rest)

    monkeypatch.setattr(recall.Recall, "remember", noted)
    desk.open()
    desk.write("lib/app.py", b"x = 1\n")
    desk.write("other.py", b"y = 1\n")
    desk.write("data.bin", b"not converted")
    desk.commit()
    assert kept == [("lib/app.mpy", "app.py"), ("other.mpy", "other.py")]
    kept.clear()
    desk.write("other.py", b"y = 2\n")
    desk.commit()
    assert kept == [("other.mpy", "other.py")]
    desk.write("lib/app.py", b"x = 1  # the same bytes\n")
    assert desk.commit().clean
    kept.clear()
    assert leave_work(desk.session) is None
    assert kept == [("lib/app.mpy", "app.py")]
    desk.open()
    leave_work(desk.session)
    assert kept == [("lib/app.mpy", "app.py")]
