"""Targets as a transaction asks them: what each answers, and how often it reads for it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from session_desk import Camera, Desk, files_of

from romfsfs.devices.file import FileDevice
from romfsfs.errors import DeviceAbsent, DeviceBusy, RomfsError, TargetChanged
from romfsfs.image.slots import Slot, slots_text
from romfsfs.image.writer import encode
from romfsfs.session.keep.base_image import BaseImage
from romfsfs.session.keep.folder import make_folder
from romfsfs.session.rebase.commit import CommitOptions, commit_to
from romfsfs.session.rebase.target import file as file_target
from romfsfs.session.rebase.target import target_of
from romfsfs.session.rebase.target.base import Held
from romfsfs.session.rebase.target.camera import CameraTarget
from romfsfs.session.rebase.target.file import FileTarget
from romfsfs.system.clock import wait_until_certain
from romfsfs.system.files import EMPTY_DIGEST, digest_bytes, no_progress

IMAGE = encode({"a.txt": b"first\n"})
OTHER = encode({"a.txt": b"other\n"})


class Counted(FileDevice):
    """An image file, and how often all of it was read to be compared. meanwhile: called then."""

    meanwhile: Callable[[], object] | None = None
    reads = 0

    def digest(self, size: int) -> str | None:
        self.reads += 1
        found = super().digest(size)
        if self.meanwhile is not None:
            self.meanwhile()
        return found


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "app.img"
    path.write_bytes(IMAGE)
    wait_until_certain([path.stat().st_ctime_ns])
    return path


def base_of(desk: Desk) -> BaseImage:
    desk.open()
    return desk.session.held()


class TestFile:
    @pytest.fixture
    def device(self, image: Path) -> Counted:
        return Counted(image)

    @pytest.fixture
    def base(self, image: Path) -> BaseImage:
        return base_of(Desk.of_file(image))

    def test_one_with_its_stamp_is_not_read_at_all(self, device: Counted, base: BaseImage) -> None:
        target = FileTarget(device)
        assert target.unchanged_since(base)
        target.write(base_path(device), None, Held(base.base.target_digest, len(IMAGE)))
        assert device.reads == 0

    def test_a_touched_one_is_read_once(self, device: Counted, base: BaseImage) -> None:
        target = FileTarget(device)
        os.utime(device.path, ns=(1, 1))
        assert target.unchanged_since(base)
        assert target.unchanged_since(base)
        assert device.reads == 1

    def test_one_that_changes_while_it_is_read_is_read_again(
        self, device: Counted, base: BaseImage
    ) -> None:
        target = FileTarget(device)
        os.utime(device.path, ns=(1, 1))
        device.meanwhile = lambda: os.utime(device.path, ns=(2, device.reads))
        assert target.unchanged_since(base)
        assert target.unchanged_since(base)
        assert device.reads == 2
        device.meanwhile = None
        Path(device.path).write_bytes(OTHER)
        assert not target.unchanged_since(base)

    def test_what_was_copied_is_not_read_again(self, device: Counted, tmp_path: Path) -> None:
        folder = make_folder("x")
        target = FileTarget(device)
        held = target.keep_copy(folder)
        assert held == Held(digest_bytes(IMAGE), len(IMAGE), unseen=False)
        assert folder.found.read_bytes() == IMAGE
        target.write(base_path(device), None, held)
        assert device.reads == 0

    def test_what_is_only_looked_at_is_read_once(self, device: Counted) -> None:
        target = FileTarget(device)
        held = target.held()
        assert held == Held(digest_bytes(IMAGE), len(IMAGE), unseen=False)
        target.write(base_path(device), None, held)
        assert device.reads == 1
        Path(device.path).unlink()
        assert target.held() == Held(None, 0)

    def test_what_changes_while_it_is_copied_is_looked_at_again(
        self, device: Counted, tmp_path: Path
    ) -> None:
        target = FileTarget(device)

        def copying(phase: str, done: int, total: int) -> None:
            if done == total:
                Path(device.path).write_bytes(OTHER)

        held = target.keep_copy(make_folder("x"), copying)
        with pytest.raises(TargetChanged) as refused:
            target.write(base_path(device), None, held)
        assert refused.value.line == (
            f"another program changed the file just before it was to be replaced ({device.given}); "
            "nothing was written; look at the file, and try again"
        )
        assert Path(device.path).read_bytes() == OTHER

    @pytest.mark.parametrize(
        ("there", "asked", "answer", "reads"),
        [
            (None, None, True, 0), (IMAGE, None, False, 0), (None, IMAGE, False, 0),
            (IMAGE, IMAGE, True, 1), (OTHER, IMAGE, False, 1), (IMAGE + b"\xff", IMAGE, False, 0),
            (b"", b"", True, 1), (b"", IMAGE, False, 0),
        ],
    )  # fmt: skip
    def test_whether_it_holds_just_that(
        self, tmp_path: Path, there: bytes | None, asked: bytes | None, answer: bool, reads: int
    ) -> None:
        device = Counted(tmp_path / "app.img")
        if there is not None:
            Path(device.path).write_bytes(there)
        image = None
        if asked is not None:
            image = tmp_path / "asked.img"
            image.write_bytes(asked)
        assert FileTarget(device).holds(image) is answer
        assert device.reads == reads

    def test_the_stamp_of_what_it_holds(self, device: Counted, base: BaseImage) -> None:
        """So that the next look need not read it. None where nothing is certain."""
        target = FileTarget(device)
        read = base.base
        assert target.stamp_of(read) == read.stamp == device.stamp()
        assert device.reads == 0
        os.utime(device.path, ns=(1, 1))
        assert target.stamp_of(read) == device.stamp()
        assert device.reads == 1
        device.meanwhile = lambda: os.utime(device.path, ns=(2, 2))
        assert target.stamp_of(read) != device.stamp(), "nor is it that of what came since"
        device.meanwhile = None
        Path(device.path).write_bytes(OTHER)
        assert target.stamp_of(read) is None
        os.unlink(device.path)
        assert target.stamp_of(replace(read, target_digest=None)) is None
        report = target.write(base_path(device, IMAGE), None, Held(None, 0))
        assert report.verified
        assert target.stamp_of(read) == device.stamp()

    def test_where_there_is_none(self, tmp_path: Path) -> None:
        device = Counted(tmp_path / "my app.img")
        folder, target = make_folder("x"), FileTarget(device)
        assert target.keep_copy(folder) == Held(None, 0)
        info = Desk(device, "x").device.info()
        with pytest.raises(DeviceAbsent) as refused:
            target.read(folder, info, False)  # type: ignore[arg-type]
        assert refused.value.line == (
            f"no such image file ({info.name}); make one: romfsfs new '{info.name}' "
            "--board BOARD, or mount with --new"
        )
        base, _ = target.read(folder, info, True)  # type: ignore[arg-type]
        assert (base.digest, base.size, base.target_digest, base.fresh) == (
            EMPTY_DIGEST, 0, None, True,
        )  # fmt: skip

    def test_one_that_changes_while_it_is_read_is_not_taken(
        self, device: Counted, tmp_path: Path
    ) -> None:
        def reading(phase: str, done: int, total: int) -> None:
            Path(device.path).write_bytes(OTHER)

        info = device.info()
        with pytest.raises(DeviceBusy) as refused:
            FileTarget(device).read(make_folder("x"), info, False, reading)  # type: ignore[arg-type]
        assert refused.value.line == (
            f"the file is being changed by another program ({info.name}); "
            "try again when that has finished"
        )

    def test_a_file_system_without_locks_keeps_nobody_out(
        self, device: Counted, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: list[float] = []

        def none(fd: int, seconds: float) -> bool:
            asked.append(seconds)
            raise OSError(95, "Operation not supported")

        monkeypatch.setattr(file_target, "lock_within", none)
        with FileTarget(device).alone():
            assert asked == [10.0]
        device.path = "/no/such/folder/app.img"
        with FileTarget(device).alone():  # the write says what is wrong with it
            assert len(asked) == 1

    def test_no_image_is_left_there(self, device: Counted) -> None:
        target = FileTarget(device)
        for image in (None, base_path(device)):
            with pytest.raises(TargetChanged):
                target.write(image, None, Held(digest_bytes(OTHER), len(OTHER)), never_told)
        report = target.write(None, None, Held(digest_bytes(IMAGE), len(IMAGE)))
        assert replace(report, seconds=0.0) == cleared(
            "the file was deleted: there was none before"
        )
        assert not os.path.exists(device.path)


def never_told(phase: str, done: int, total: int) -> None:
    raise AssertionError  # nothing is written that will not take the file's place


def cleared(note: str) -> Any:
    from romfsfs.devices.base import WriteReport

    return WriteReport(0, 0, 0.0, verified=True, notes=(note,))


def base_path(device: FileDevice, data: bytes = OTHER) -> Path:
    """An image that is to be written."""
    path = Path(device.path).with_name("new.img")
    path.write_bytes(data)
    return path


class Silent(Camera):
    """A boot loader: it cannot tell what it holds without sending all of it."""

    reads = 0

    def digest(self, size: int) -> str | None:
        return None

    def read_image(self, out: BinaryIO, progress: Any = no_progress) -> int:
        self.reads += 1
        return super().read_image(out, progress)


@pytest.mark.parametrize("kind", [Camera, Silent])
class TestCamera:
    def test_whether_it_is_as_it_was(self, kind: type[Camera], tmp_path: Path) -> None:
        camera = kind(tmp_path / "flash")
        target = CameraTarget(camera)
        assert isinstance(target_of(camera), CameraTarget)
        desk = Desk(camera, "camera")
        blank = base_of(desk)
        assert target.unchanged_since(blank)
        camera.put(IMAGE)
        assert not target.unchanged_since(blank)
        desk.open()
        base = desk.session.held()
        assert target.unchanged_since(base)
        for other in (OTHER, b"", b"garbled header"):
            camera.put(other)
            assert not target.unchanged_since(base)

    def test_started_empty_it_does_not_matter(self, kind: type[Camera], tmp_path: Path) -> None:
        camera = kind(tmp_path / "flash")
        camera.put(IMAGE)
        desk = Desk(camera, "camera")
        desk.open(new=True)
        assert CameraTarget(camera).unchanged_since(desk.session.held())

    @pytest.mark.parametrize(
        ("there", "asked", "answer"),
        [
            (IMAGE, IMAGE, True), (OTHER, IMAGE, False), (b"", IMAGE, False), (b"", b"", True),
            (IMAGE, b"", False), (IMAGE, IMAGE + b"\xff" * 99, True), (b"garbled", IMAGE, False),
        ],
    )  # fmt: skip
    def test_whether_it_holds_just_that(
        self, kind: type[Camera], tmp_path: Path, there: bytes, asked: bytes, answer: bool
    ) -> None:
        camera = kind(tmp_path / "flash")
        camera.put(there)
        (tmp_path / "asked.img").write_bytes(asked)
        assert CameraTarget(camera).holds(tmp_path / "asked.img") is answer

    def test_no_image_is_left_there(self, kind: type[Camera], tmp_path: Path) -> None:
        camera = kind(tmp_path / "flash")
        camera.put(IMAGE)
        (tmp_path / "none.img").write_bytes(b"")
        report = CameraTarget(camera).write(tmp_path / "none.img", None, Held("", 0))
        assert replace(report, seconds=0.0) == cleared("the camera is blank again")
        assert camera.path.read_bytes() == b"\xff" * 16 + camera.path.read_bytes()[16:]

    def test_what_it_holds_is_kept_and_not_fetched_again(
        self, kind: type[Camera], tmp_path: Path
    ) -> None:
        camera, folder = kind(tmp_path / "flash"), make_folder("x")
        target = CameraTarget(camera)
        assert target.keep_copy(folder) == Held(EMPTY_DIGEST, 0)
        camera.put(IMAGE)
        assert target.keep_copy(folder) == Held(digest_bytes(IMAGE), len(IMAGE))
        assert folder.found.read_bytes() == IMAGE
        camera.put(b"garbled")
        assert target.keep_copy(folder) == Held("", 0)
        assert target.stamp_of(base_of(Desk(kind(tmp_path / "2"), "camera")).base) is None


class Slotted(Camera):
    """A camera with openmv-ota's slots. room: bytes that an image in the first may have. only: it
    is the one that there is."""

    room = 100
    only = False

    def slots(self, size: int) -> tuple[Slot, ...]:
        names = "BA" if self.info().slot else "AB"
        if self.only:
            names = "A"
        return tuple(
            Slot(name, 0, 4096, 50, 1, True, self.room, "confirmed", self.only) for name in names
        )


@pytest.mark.parametrize(
    ("slot", "only", "mine", "then", "into", "write"),
    [
        ("", False, "A", "slot B, or nothing", "slot B", "openmv-ota's tools write both"),
        ("B", False, "B", "slot A, or nothing", "slot A", "openmv-ota's tools write both"),
        ("", True, "A", "nothing", "its own status and trailer",
         "`openmv-ota flash romfs` writes it"),
    ],
)  # fmt: skip
def test_a_slot_is_only_written_by_who_gives_it_up(
    tmp_path: Path, slot: str, only: bool, mine: str, then: str, into: str, write: str
) -> None:
    camera = Slotted(tmp_path / "flash")
    camera.says = {"slot": slot, "partition": 1}
    camera.only = only
    target = CameraTarget(camera, mine)
    target.refuse_slots(100)

    def said(by: CameraTarget, size: int) -> str:
        with pytest.raises(RomfsError) as refused:
            by.refuse_slots(size)
        return refused.value.line

    refused = (
        f"this partition is openmv-ota's ({slots_text(camera.slots(10))}), and writing slot {mine} "
        f"breaks its signature: the camera then mounts {then} (test camera); nothing was written "
        "there; build and sign the image with openmv-ota's tools (commit --to FILE gives its body)"
    )
    assert said(CameraTarget(camera), 10) == f"{refused}, or add --slot {mine} --force"
    assert said(target, 101) == (
        f"the image is 1 B too large, there is room for 100 B (test camera, slot {mine}); "
        "nothing was written there; remove files"
    )
    camera.room = 0
    instead = (
        "; to give openmv-ota up there, run this and replug the camera: "
        "mpremote connect PORT romfs -p 1 deploy FILE.img"
    )
    assert said(CameraTarget(camera), 10) == refused + instead * only, "nor would that help"
    assert said(target, 1) == (
        f"an erase block there spans slot {mine} and {into} "
        f"(test camera); nothing was written there; {write}{instead * only}"
    )


def test_a_blank_image_needs_a_header_s_room(tmp_path: Path) -> None:
    camera = Slotted(tmp_path / "flash")
    camera.room = 15
    (tmp_path / "none.img").write_bytes(b"")
    with pytest.raises(RomfsError, match="1 B too large, there is room for 15 B"):
        CameraTarget(camera, "A").write(tmp_path / "none.img", None, Held("", 0))


@pytest.mark.parametrize(
    "why", ["breaks its signature", "1 file cannot work on it", "test camera is mounted"]
)
def test_a_dry_run_to_a_camera_is_refused_as_the_write_would_be(
    tmp_path: Path, desk: Desk, why: str
) -> None:
    """It said what it would write, and the commit then refused."""
    camera = Camera(tmp_path / "flash")
    if "signature" in why:
        camera = Slotted(tmp_path / "flash")
        camera.room = 4096
    desk.open()
    if "cannot work" in why:
        camera.says = {"mpy_version": (6, 3)}
        desk.write("old.mpy", b"M\x05\x00\x1f")
    said = []
    with make_folder(camera.info().key).lock_for_mount("x") as lock:
        if "mounted" not in why:
            lock.release()
        for dry_run in (True, False):
            with pytest.raises(RomfsError, match=why) as refused:
                commit_to(desk.session, camera, CommitOptions(dry_run=dry_run), source="camera")
            said.append(refused.value.line)
    assert said[0] == said[1]
    camera.says = {}
    how = CommitOptions(dry_run=True, force=True, slot="A")
    assert commit_to(desk.session, camera, how).write is None
    assert camera.path.read_bytes() == b"\xff" * camera.size


def test_an_interrupted_commit_to_a_slot_is_finished_without_asking_again(tmp_path: Path) -> None:
    """Who had given the slot up has done so."""
    from romfsfs.session.rebase.recovery import recover

    camera = Slotted(tmp_path / "flash")
    camera.room = 4096
    desk = Desk(camera, "camera")
    desk.open()
    desk.write("a.txt", b"edited")
    with pytest.raises(RomfsError, match="breaks its signature"):
        desk.commit()
    with pytest.raises(RomfsError, match="breaks its signature"):
        desk.commit(slot="A")
    with pytest.raises(RomfsError, match="breaks its signature"):
        desk.commit(dry_run=True)
    assert not desk.session.interrupted
    camera.error = KeyboardInterrupt()
    with pytest.raises(RomfsError, match="interrupted"):
        desk.commit(slot="A", force=True)
    camera.error = None
    assert recover(desk.session, camera) == "finished"
    assert files_of(camera.path.read_bytes()) == {"a.txt": b"edited"}
