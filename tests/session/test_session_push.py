"""Whole images to cameras: what is refused, what is said, what stays when one fails."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import BinaryIO

import pytest
from convert.convert_helpers import make_model
from session_desk import Camera, Desk, PowerLost, files_of
from stopping import ends_at

from romfsfs.boards import get_board
from romfsfs.devices.base import OpenedModel, WriteReport
from romfsfs.devices.file import FileDevice
from romfsfs.errors import (
    DeviceAbsent,
    DeviceError,
    Interrupted,
    RomfsError,
    SessionBusy,
    UsageError,
)
from romfsfs.image.writer import encode
from romfsfs.session.keep import history
from romfsfs.session.keep.folder import SessionFolder, make_folder
from romfsfs.session.rebase import push as push_module
from romfsfs.session.rebase.commit import CommitOptions, commit
from romfsfs.session.rebase.push import PushOptions, push, push_all
from romfsfs.session.rebase.recovery import recover
from romfsfs.session.rebase.transaction import WriteOptions
from romfsfs.session.rebase.undo import undo
from romfsfs.session.session import Session
from romfsfs.system.files import Progress

IMAGE = encode({"a.txt": b"pushed"})
OTHER = encode({"b.txt": b"other"})
#: Scripts for a camera that reads another bytecode.
OLD = {f"{number}.mpy": b"M\x05\x00\x1f" for number in range(2)}


@pytest.fixture
def camera(tmp_path: Path) -> Camera:
    camera = Camera(tmp_path / "flash")
    camera.put(OTHER)
    return camera


def pushed(camera: Camera, image: bytes = IMAGE, **how: object) -> WriteReport | None:
    with tempfile.TemporaryFile() as file:
        file.write(image)
        file.flush()
        return push(camera, "camera", file, "given.img", PushOptions(**how))  # type: ignore[arg-type]


def folder_of(camera: Camera) -> SessionFolder:
    return make_folder(camera.info().key)


def log(camera: Camera) -> list[tuple[str, str]]:
    return [(entry.kind, entry.summary) for entry in history.entries(folder_of(camera))]


def test_what_a_push_leaves_and_says(camera: Camera) -> None:
    camera.says = {"notes": ("its firmware is old",)}
    report = pushed(camera, encode({**OLD, "a.txt": b"pushed"}))
    assert report is not None
    assert (report.verified, report.tried) == (True, ())
    assert report.notes == (
        "its firmware is old",
        "2 files (0.mpy, 1.mpy): is bytecode 5, current firmware loads 6.3; copy the .py instead "
        "of the .mpy",
    )
    assert camera.restarts == 1
    assert log(camera) == [
        ("read", "as found before it was overwritten"), ("push", "from given.img"),
    ]  # fmt: skip
    names = sorted(path.name for path in folder_of(camera).path.iterdir())
    assert names == ["base.json", "commit.lock", "history", "session.json"]
    assert pushed(camera, encode({**OLD, "a.txt": b"pushed"})) is None, "it holds it already"
    assert pushed(camera, restart=False, kind="reset") is not None
    assert camera.restarts == 1
    assert log(camera)[-1] == ("reset", "from given.img")


ANEW = "it was not written; to build it for that board: romfsfs extract given.img DIR, "


@pytest.mark.parametrize(
    ("image", "says", "said"),
    [
        (b"", {}, "not a valid ROMFS image: the file is empty (given.img, offset 0x0)"),
        (
            IMAGE,
            {"capacity": len(IMAGE) - 2},
            f"the image is 2 B too large, there is room for {len(IMAGE) - 2:,} B (given.img)",
        ),
        (
            encode({"0.mpy": OLD["0.mpy"]}),
            {"mpy_version": (6, 3)},
            "1 file cannot work on it, the first: 0.mpy: is bytecode 5, the camera loads 6.3 "
            f"(given.img); {ANEW}romfsfs build DIR IMAGE --board BOARD",
        ),
        (
            encode(OLD),
            {"mpy_version": (6, 3), "board": "OPENMV4"},
            "2 files cannot work on OPENMV4, the first: 0.mpy: is bytecode 5, the camera loads 6.3 "
            f"(given.img); {ANEW}romfsfs build DIR IMAGE --board OPENMV4",
        ),
    ],
    ids=["empty", "large", "a script", "scripts"],
)
def test_what_cannot_work_there_is_refused(
    camera: Camera, image: bytes, says: dict[str, object], said: str
) -> None:
    camera.says = says
    with pytest.raises(RomfsError) as refused:
        pushed(camera, image)
    assert refused.value.line == said
    assert camera.path.read_bytes().startswith(OTHER)
    camera.says = {"capacity": len(IMAGE)}
    pushed(camera)  # which it takes just so
    assert files_of(camera.path.read_bytes()) == {"a.txt": b"pushed"}


def test_a_mounted_camera_is_left_alone(camera: Camera) -> None:
    with folder_of(camera).lock_for_mount("x"), pytest.raises(SessionBusy) as refused:
        pushed(camera)
    assert refused.value.line == "test camera is mounted; unmount it first: romfsfs sessions"


def test_what_is_no_image_is_only_replaced_when_asked_to(camera: Camera) -> None:
    """It cannot be kept, so nothing would bring it back."""
    camera.put(b"not an image")
    with pytest.raises(RomfsError) as refused:
        pushed(camera)
    assert refused.value.line == (
        "not a valid ROMFS image: it holds something else (test camera, offset 0x0); "
        "nothing was written there; --force replaces what it holds"
    )
    assert camera.path.read_bytes().startswith(b"not an image")
    assert not folder_of(camera).record.exists()
    assert pushed(camera, force=True) is not None
    assert log(camera) == [("push", "from given.img")]
    camera.put(b"not an image")
    assert pushed(camera, OTHER, backup=False) is not None
    assert log(camera)[1:] == [("push", "from given.img")]


def test_of_a_file_another_name_may_have_been_meant(tmp_path: Path) -> None:
    thesis = tmp_path / "thesis.txt"
    thesis.write_text("not an image")
    with tempfile.TemporaryFile() as file:
        file.write(IMAGE)
        file.flush()
        with pytest.raises(RomfsError) as refused:
            push(FileDevice(thesis), str(thesis), file, "given.img", PushOptions())
    assert refused.value.line == (
        f"not a valid ROMFS image: it does not start with d2 cd 31 ({thesis}, offset 0x0); "
        "nothing was written there; choose another name, or --force replaces what it holds"
    )
    assert thesis.read_text() == "not an image"


def test_without_a_backup_nothing_is_read(camera: Camera, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(*_: object) -> int:
        raise AssertionError

    monkeypatch.setattr(camera, "read_image", read)
    assert pushed(camera, backup=False) is not None
    assert not folder_of(camera).info.exists(), "nor is anything remembered"


# -- after one that was interrupted


def cut(camera: Camera, image: bytes) -> None:
    """A push that the cable ends after the header was erased."""
    camera.power = 20
    with pytest.raises(PowerLost):
        pushed(camera, image)
    camera.power = 1 << 40


@pytest.mark.parametrize("unit", [0, 1])
def test_a_push_takes_the_place_of_one_that_was_interrupted(camera: Camera, unit: int) -> None:
    """Half of an image is nothing to come back to: what was there before it is."""
    camera.says = {"header_unit": unit}
    cut(camera, encode({"cut.txt": b"cut" * 99}))
    if unit:  # a boot loader leaves the header of what it had not finished
        camera.put(encode({"half.txt": b"half"}))
    assert pushed(camera) is not None
    assert log(camera) == [
        ("read", "as found before it was overwritten"), ("push", "from given.img"),
    ]  # fmt: skip
    session = Session.load(folder_of(camera))
    undo(session, camera)
    assert files_of(camera.path.read_bytes()) == {"b.txt": b"other"}


def test_an_image_that_somebody_else_wrote_after_it_is_kept(camera: Camera) -> None:
    cut(camera, encode({"cut.txt": b"cut" * 99}))
    camera.put(encode({"theirs.txt": b"theirs"}))
    assert pushed(camera) is not None
    undo(Session.load(folder_of(camera)), camera)
    assert files_of(camera.path.read_bytes()) == {"theirs.txt": b"theirs"}


def test_the_books_of_one_that_was_written_are_closed_first(camera: Camera) -> None:
    first = encode({"cut.txt": b"cut" * 99})
    cut(camera, first)
    camera.put(first)
    assert pushed(camera) is not None
    assert log(camera) == [
        ("read", "as found before it was overwritten"), *[("push", "from given.img")] * 2,
    ]  # fmt: skip
    cut(camera, OTHER)
    camera.put(IMAGE)
    assert pushed(camera) is None
    assert not folder_of(camera).record.exists(), "to finish the other would undo this one"


@pytest.mark.parametrize(("kind", "done"), [("serial", "given up"), ("dfu", "finished")])
def test_an_image_that_is_neither_is_somebody_else_s_on_a_serial_port_alone(
    camera: Camera, kind: str, done: str
) -> None:
    """Through a boot loader it may be half of ours."""
    camera.says = {"kind": kind}
    cut(camera, IMAGE)
    camera.put(encode({"theirs.txt": b"theirs"}))
    said = recover(Session.load(folder_of(camera)), camera)
    assert said.partition(",")[0] == done
    found = {"theirs.txt": b"theirs"} if kind == "serial" else {"a.txt": b"pushed"}
    assert files_of(camera.path.read_bytes()) == found
    names = sorted(path.name for path in folder_of(camera).path.iterdir())
    assert {"rebase.json", "found.img"}.isdisjoint(names)
    assert camera.restarts == 1


def test_one_without_a_backup_that_had_not_begun(camera: Camera) -> None:
    """It was said that the camera had been changed elsewhere, which nobody had looked at."""
    with ends_at("recorded", SystemExit):
        pushed(camera, backup=False)
    said = recover(Session.load(folder_of(camera)), camera)
    assert said == "given up, since it had not begun, or the target was changed elsewhere meanwhile"
    assert files_of(camera.path.read_bytes()) == {"b.txt": b"other"}
    assert pushed(camera, backup=False) is not None


@pytest.mark.parametrize("left", ["no image", "a header alone", "what was there"])
def test_what_is_nobody_s_image_is_written_anew(camera: Camera, left: str) -> None:
    cut(camera, IMAGE)
    whole = encode({"x.txt": bytes(99)})
    garbled = whole[:8] + b"\xff" * (len(whole) - 8)
    camera.put({"no image": b"zzzz", "a header alone": garbled, "what was there": OTHER}[left])
    camera.fails_to_restart = True  # what it holds is right all the same
    said = recover(Session.load(folder_of(camera)), camera)
    assert said == "finished; the camera's restart was not confirmed: it is gone"
    assert files_of(camera.path.read_bytes()) == {"a.txt": b"pushed"}
    assert recover(Session.load(folder_of(camera)), camera) == ""
    assert camera.restarts == 1, "nothing was to be done"


@pytest.mark.parametrize("fails", [False, True])
def test_one_that_only_closes_the_books_of_another_restarts_the_camera(
    camera: Camera, fails: bool
) -> None:
    """Its /rom is the old one, or none, until then."""
    with ends_at("target-written", SystemExit):
        pushed(camera)
    camera.fails_to_restart = fails
    report = pushed(camera)
    assert camera.restarts == 1
    if fails:
        note = "the camera's restart was not confirmed: it is gone"
        assert report == WriteReport(0, 0, 0.0, True, skipped=len(IMAGE), notes=(note,))
    else:
        assert report is None
    assert pushed(camera) is None
    assert camera.restarts == 1, "nothing was to be done"
    with ends_at("target-written", SystemExit):
        pushed(camera, OTHER)
    assert pushed(camera, OTHER, restart=False) is None
    assert camera.restarts == 1


@pytest.mark.parametrize(
    ("restart", "fails", "restarts", "done"),
    [
        (True, False, 1, "finished"),
        (True, True, 1, "finished; the camera's restart was not confirmed: it is gone"),
        (False, True, 0, "finished"),
    ],
)
@pytest.mark.parametrize("by", ["commit", "undo"])
def test_who_only_finishes_another_restarts_the_camera(
    camera: Camera, by: str, restart: bool, fails: bool, restarts: int, done: str
) -> None:
    camera.fails_to_restart = fails
    desk = Desk(camera, "camera")
    desk.open()
    desk.write("c.txt", b"c")
    camera.power = 20
    with pytest.raises(PowerLost):
        desk.commit()
    camera.power = 1 << 40
    if by == "commit":
        report = desk.commit(restart=restart)
        assert (report.clean, report.recovered) == (True, done)
    else:
        said = undo(desk.session, camera, 1, WriteOptions(restart=restart)).there
        assert said == (
            f"an earlier interrupted transaction was {done}; image 1 is there already, nothing "
            "written"
        )
    assert camera.restarts == restarts


@pytest.mark.parametrize("step", ["recorded", "switched"])
def test_a_camera_that_was_only_read_is_not_restarted(tmp_path: Path, step: str) -> None:
    """Its script runs on."""
    camera = Camera(tmp_path / "camera")
    camera.put(IMAGE)
    desk = Desk(camera, "camera")
    with ends_at(step, KeyboardInterrupt):
        desk.open()
    assert recover(desk.session, camera) == ("finished" if step == "switched" else "rolled back")
    assert not desk.session.interrupted
    assert camera.restarts == 0


@pytest.mark.parametrize("by", ["commit", "undo", "push"])
def test_who_only_ends_a_read_does_not_restart_the_camera(camera: Camera, by: str) -> None:
    desk = Desk(camera, "camera")
    desk.open()
    camera.put(IMAGE)
    with ends_at("switched", KeyboardInterrupt):
        desk.open()
    if by == "commit":
        assert desk.commit().recovered == "finished"
    elif by == "undo":
        assert undo(desk.session, camera, 1).there == (
            "an earlier interrupted transaction was finished; image 1 is there already, nothing "
            "written"
        )
    else:
        assert pushed(camera) is None
    assert not desk.session.interrupted
    assert camera.restarts == 0


@pytest.mark.parametrize("unit", [0, 1])
@pytest.mark.parametrize("step", ["recorded", "switched"])
def test_what_was_written_after_an_interrupted_read_is_kept(
    camera: Camera, step: str, unit: int
) -> None:
    """Through a boot loader too, where half an image may look like one."""
    camera.says = {"header_unit": unit}
    desk = Desk(camera, "camera")
    with ends_at(step, KeyboardInterrupt):
        desk.open()
    camera.put(encode({"theirs.txt": b"theirs"}))
    assert pushed(camera) is not None
    undo(desk.session, camera)
    assert files_of(camera.path.read_bytes()) == {"theirs.txt": b"theirs"}


# -- several cameras


class Bench:
    """Cameras by name; those that are not there cannot be opened."""

    def __init__(self, folder: Path, names: str) -> None:
        self.cameras = {name: Camera(folder / name) for name in names}
        for name, camera in self.cameras.items():
            camera.says = {"key": f"TEST/{name}/0", "name": name}
        self.closed: list[str] = []

    @contextmanager
    def connect(self, name: str) -> Iterator[Camera]:
        if name not in self.cameras:
            raise DeviceAbsent("not there", where=name)
        try:
            yield self.cameras[name]
        finally:
            self.closed.append(name)

    def push(self, image: Path, names: str, **how: object) -> dict[str, object]:
        return dict(push_all(image, list(names), self.connect, **how))  # type: ignore[arg-type]


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "product.img"
    path.write_bytes(IMAGE)
    return path


def told(phase: str, done: int, total: int) -> None:
    raise AssertionError


def test_one_that_fails_stops_no_other_and_the_same_again_resumes(
    tmp_path: Path, image: Path
) -> None:
    bench = Bench(tmp_path, "abc")
    bench.cameras["b"].error = DeviceError("it left")
    done = bench.push(image, "abaxc", progress=told)
    assert list(done) == ["a", "b", "x", "c"], "each once, in this order"
    assert isinstance(done["a"], WriteReport)
    assert isinstance(done["c"], WriteReport)
    assert isinstance(done["b"], DeviceError)
    assert str(done["x"]) == "not there (x)"
    assert sorted(bench.closed) == ["a", "b", "c"]
    bench.cameras["b"].error = None
    again = bench.push(image, "abc")
    assert again["a"] is again["c"] is None
    assert isinstance(again["b"], WriteReport)


def test_one_whose_session_cannot_be_written_stops_no_other(tmp_path: Path, image: Path) -> None:
    """An error of the system stopped the others in the middle of their write."""
    bench = Bench(tmp_path, "ab")
    place = folder_of(bench.cameras["a"]).path
    place.rmdir()
    place.touch()
    failed = threading.Event()
    close, slow = bench.closed.append, bench.cameras["b"]

    def closed(name: str) -> None:
        close(name)
        failed.set()

    def slowly(file: BinaryIO, old: object, progress: Progress) -> WriteReport:
        slow._program(0, bytes(100))
        assert failed.wait(30)
        progress("writing", 1, 2)
        return Camera.write_image(slow, file)

    bench.closed = SimpleNamespace(append=closed)  # type: ignore[assignment]
    slow.write_image = slowly  # type: ignore[method-assign]
    done = bench.push(image, "ab")
    assert str(done["a"]) == f"not a directory ({place / 'lock'})"
    assert isinstance(done["b"], WriteReport)
    assert slow.path.read_bytes().startswith(IMAGE)
    with pytest.raises(FileNotFoundError):
        bench.push(tmp_path / "mistyped.img", "ab")


def test_a_single_camera_s_progress_is_told(tmp_path: Path, image: Path) -> None:
    bench = Bench(tmp_path, "a")
    shown: list[str] = []
    camera = bench.cameras["a"]
    write = camera.write_image

    def telling(*args: object) -> WriteReport:
        args[2]("writing", 1, 1)  # type: ignore[operator]
        return write(*args)

    camera.write_image = telling  # type: ignore[method-assign]
    assert isinstance(bench.push(image, "aa", progress=lambda *each: shown.append(each[0]))["a"],
                      WriteReport)  # fmt: skip
    assert shown == ["writing"]
    camera.error = KeyboardInterrupt()
    image.write_bytes(OTHER)
    assert isinstance(bench.push(image, "a")["a"], Interrupted)


def test_they_are_written_side_by_side_and_ctrl_c_ends_those_that_are_not_done(
    tmp_path: Path, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path, "abc")
    meeting = threading.Barrier(3, timeout=30)
    for camera in bench.cameras.values():
        write = camera.write_image

        def together(*args: object, write: object = write) -> WriteReport:
            meeting.wait()
            return write(*args)  # type: ignore[operator,no-any-return]

        camera.write_image = together  # type: ignore[method-assign]
    assert all(isinstance(done, WriteReport) for done in bench.push(image, "abc").values())


def test_a_pipe_is_no_image(tmp_path: Path) -> None:
    """Each camera would wait for it."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(RomfsError, match="pipe"):
        Bench(tmp_path, "ab").push(tmp_path / "pipe", "ab")


# -- what the camera itself opens


def model(side: int) -> bytes:
    """One that adds: 9 is int8, 0 the operator."""
    shape = [1, side, side]
    return make_model([(0, [0], [1])], [(9, shape, 0), (9, shape, 0)], [0], [1])


def image_of(files: dict[str, bytes]) -> bytes:
    return encode(files, get_board("OPENMV4P").partition().alignment)


MODELS = {
    name: model(side) for side, name in enumerate(("new.tflite", "old.tflite", "z.tflite"), 1)
}


def test_models_that_changed_are_opened(camera: Camera) -> None:
    camera.put(image_of({**MODELS, "new.tflite": model(9), "z.tflite": model(9)}))
    new, z = OpenedModel("new.tflite", memory=9), OpenedModel("z.tflite", error="no")
    camera.models = {"new.tflite": new, "z.tflite": z}
    shown: list[tuple[str, int, int]] = []
    with tempfile.TemporaryFile() as file:
        file.write(image_of({**MODELS, "a.txt": b"1"}))
        file.flush()
        options = PushOptions(tries=True)
        report = push(
            camera, "camera", file, "given.img", options, lambda *each: shown.append(each)
        )
    assert report is not None
    assert report.tried == (new, z)
    assert [each for each in shown if each[0] == "trying"] == [("trying", 0, 2), ("trying", 1, 2)]
    assert camera.restarts == 1


def test_all_models_are_where_nothing_was_before(camera: Camera) -> None:
    camera.put(b"")
    camera.models = {name: OpenedModel(name) for name in MODELS}
    report = pushed(camera, image_of(MODELS), tries=True)
    assert report is not None
    assert [each.path for each in report.tried] == list(MODELS)


def test_all_models_are_where_what_was_before_is_not_kept(camera: Camera) -> None:
    camera.models = {name: OpenedModel(name) for name in MODELS}
    report = pushed(camera, image_of(MODELS), tries=True, backup=False)
    assert report is not None
    assert [each.path for each in report.tried] == list(MODELS)


def test_nothing_is_read_for_a_trial_that_nobody_wants(
    camera: Camera, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []
    real = push_module.base_of
    monkeypatch.setattr(
        push_module, "base_of", lambda path, recall: (read.append(path), real(path, recall))[1]
    )
    pushed(camera)
    assert [path.name for path in read] == ["staged.img"]


def test_a_camera_that_goes_away_or_runs_no_models(camera: Camera) -> None:
    camera.models = {"new.tflite": DeviceError("it left")}
    report = pushed(camera, image_of(MODELS), tries=True)
    assert report is not None
    assert report.tried == (OpenedModel("new.tflite", "the camera went away meanwhile, it left"),)
    assert camera.opened == ["new.tflite"]
    camera.put(OTHER)
    camera.models = {"new.tflite": None}
    camera.fails_to_restart = True
    report = pushed(camera, image_of(MODELS), tries=True)
    assert report is not None
    assert report.tried == ()
    assert report.notes == (
        "its firmware runs no models: none was tried",
        "the camera's restart was not confirmed: it is gone",
    )
    assert camera.opened == ["new.tflite"] * 2


@pytest.mark.parametrize("says", [{"kind": "dfu"}, {"partition": 1}, {"slots": ("A",)}])
def test_who_cannot_be_asked_is_not_written(camera: Camera, says: dict[str, object]) -> None:
    before = camera.path.read_bytes()
    desk = Desk(camera, "camera")
    desk.open()
    desk.write("c.txt", b"c")
    camera.says = says
    for work in (
        lambda: pushed(camera, tries=True),
        lambda: commit(desk.session, camera, CommitOptions(tries=True)),
    ):
        with pytest.raises(UsageError) as refused:
            work()
        assert refused.value.line == (
            "only a camera on its serial port can open models, and only in its first partition, "
            "without openmv-ota's slots (test camera); leave out --try"
        )
    assert camera.path.read_bytes() == before


def test_a_commit_has_those_opened_that_it_changed(camera: Camera) -> None:
    camera.put(image_of({"old.tflite": MODELS["old.tflite"]}))
    desk = Desk(camera, "camera")
    desk.open()
    for name in ("new.tflite", "old.tflite"):
        desk.write(name, MODELS[name])
    camera.models = {"new.tflite": OpenedModel("new.tflite")}
    report = desk.commit(tries=True, restart=False)
    assert report.write is not None
    assert report.write.tried == (OpenedModel("new.tflite"),)
    assert camera.restarts == 0
    desk.write("a.txt", b"a")
    report = desk.commit()
    assert report.write is not None
    assert (report.write.tried, camera.restarts) == ((), 1)
