"""Whole images of cameras, read and written: what is asked of the camera, and all that is said.

Simulated cameras answer in `tests/camera`; this one is asked for nothing that it would not do.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO

import pytest
from cli_mounts import Ran

from romfsfs.boards import get_board
from romfsfs.cli import pushing, reading, reports, whole
from romfsfs.cli.output import Output
from romfsfs.devices.base import DeviceInfo, OpenedModel, WriteReport
from romfsfs.errors import DeviceAbsent, ImageFormatError, RomfsError, UsageError
from romfsfs.ide.archive import Fetching
from romfsfs.ide.defaults import DefaultImage
from romfsfs.image.model import Image
from romfsfs.image.reader import read_image
from romfsfs.image.writer import encode
from romfsfs.session.keep.folder import folder_of, make_folder
from romfsfs.session.plan.problems import WARNING, Problem
from romfsfs.session.rebase.commit import CommitReport
from romfsfs.session.rebase.push import PushOptions
from romfsfs.system.files import no_progress

Run = Callable[..., Ran]

HELD = encode({"a.txt": b"first\n", "old.mpy": b"M\x05\x00\x1f"})
DIGEST = hashlib.sha256(HELD).hexdigest()
OLD = "old.mpy: is bytecode 5, current firmware loads 6.3; copy the .py instead of the .mpy"
KEY = "OPENMV4P/77/0"
#: the image on standard output, as the test's capture shows it
SHOWN = HELD.decode(errors="backslashreplace")


class Camera:
    """asked: all that it was asked for."""

    def __init__(self, held: bytes = HELD, key: str = KEY, **about: Any) -> None:
        self.held = held
        self.asked: list[object] = []
        self.hashes = self.has_tree = True
        self.about = DeviceInfo(
            "serial", key, "OPENMV4P on ACM0", "OPENMV4P", int(key[-1]), 8 << 20, **about
        )

    def info(self) -> DeviceInfo:
        return self.about

    def digest(self, size: int) -> str | None:
        self.asked.append(("digest", size))
        return hashlib.sha256(self.held[:size]).hexdigest() if self.hashes else None

    def read_tree(self) -> Image | None:
        self.asked.append("tree")
        return read_image(self.held) if self.has_tree else None

    def read_image(self, out: BinaryIO, progress: object) -> int:
        self.asked.append("image")
        return out.write(self.held)


Opens = Callable[..., list[tuple[object, ...]]]


@pytest.fixture
def opens(monkeypatch: pytest.MonkeyPatch) -> Opens:
    """`opens(camera, ...)`: these are opened, one after the other; with what is in the list."""

    def prepare(*cameras: Camera) -> list[tuple[object, ...]]:
        calls: list[tuple[object, ...]] = []
        pending = list(cameras)

        @contextlib.contextmanager
        def device(*words: object, **given: object) -> Iterator[Camera]:
            calls.append((*words, *([given] if given else [])))
            yield pending.pop(0)
            calls.append(("closed",))

        for module in (whole, pushing):
            monkeypatch.setattr(module, "device", device)
        monkeypatch.setattr("romfsfs.session.connect.device", device)
        return calls

    return prepare


def keep(data: bytes, name: str) -> Path:
    """An image in the history of the camera's session."""
    history = make_folder(KEY).history
    history.mkdir(exist_ok=True)
    (history / f"{name}.img").write_bytes(data)
    return history / f"{name}.img"


SIZE = len(HELD)


@pytest.mark.parametrize(
    ("kept", "hashes", "has_tree", "asked", "is_known"),
    [
        ([], True, True, [], False),
        ([(b"x", "x")], True, True, ["tree"], False),
        ([(HELD, DIGEST)], True, False, ["tree"], False),
        ([(HELD, DIGEST)], True, True, ["tree", ("digest", SIZE)], True),
        ([(b"x", "x"), (HELD, DIGEST), (b"y", "y")], True, True, ["tree", ("digest", SIZE)], True),
        ([(HELD, DIGEST)], False, True, ["tree", ("digest", SIZE)], False),
        ([(bytes(SIZE), DIGEST)], True, True, ["tree", ("digest", SIZE)], False),
        ([(HELD, "0" * 64)], True, True, ["tree", ("digest", SIZE)], False),
    ],
)
def test_a_copy_of_the_session_spares_reading_it_again(
    kept: list[tuple[bytes, str]], hashes: bool, has_tree: bool, asked: list[object],
    is_known: bool, opens: Opens, run: Run,
) -> None:  # fmt: skip
    """Where its size, its name and its bytes are those of what the camera holds."""
    for data, name in kept:
        keep(data, name)
    copy = folder_of(KEY).history / f"{DIGEST}.img"
    camera: Any = Camera()
    camera.hashes, camera.has_tree = hashes, has_tree
    assert reading.known_copy(camera) == (copy if is_known else None)
    assert camera.asked == asked
    calls = opens(camera, camera)
    for words in (["cat", "camera:77", "a.txt"], ["pull", "camera:77", "-", "-q"]):
        camera.asked.clear()
        assert run(*words).out == {"cat": "first\n"}.get(words[0], SHOWN)
        assert camera.asked == [*asked, *([] if is_known else ["image"])]
    usual = {"board": None, "partition": None, "slot": ""}
    assert calls == [("camera:77", usual), ("closed",), ("camera:77", None, None, ""), ("closed",)]


def test_what_is_no_image_is_read_to_say_what_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    camera: Any = Camera()
    keep(HELD, DIGEST)

    def broken() -> None:
        raise ImageFormatError("it does not start with d2 cd 31", 0)

    camera.read_tree = broken
    assert reading.known_copy(camera) is None


@pytest.mark.parametrize(
    ("words", "hashes", "has_tree", "asked"),
    [
        (["ls"], True, True, ["tree"]),
        (["ls"], True, False, ["tree", "image"]),
        (["ls", "--json"], True, True, ["image"]),
        (["info"], True, True, ["tree", ("digest", SIZE)]),
        (["info"], False, True, ["tree", ("digest", SIZE), "image"]),
        (["info"], True, False, ["tree", "image"]),
        (["info", "--map"], True, True, ["tree"]),
        (["info", "--map"], True, False, ["tree", "image"]),
        (["verify"], True, True, ["image"]),
    ],
)
def test_how_little_is_read_of_a_camera(
    opens: Opens, run: Run, words: list[str], hashes: bool, has_tree: bool, asked: list[object]
) -> None:
    camera = Camera()
    camera.hashes, camera.has_tree = hashes, has_tree
    opens(camera, camera)
    done = run(words[0], "camera:77", *words[1:])
    assert done.code == 0
    assert camera.asked == asked
    if words == ["info"]:
        assert done.out == f"camera:77: {SIZE} B, 2 files, 0 directories\n  sha256 {DIGEST}\n"


@pytest.mark.parametrize(
    ("words", "board", "capacity", "erase_size"),
    [([], "OPENMV4P", 1 << 20, 4096), (["--board", "OPENMV2"], "OPENMV2", 1 << 17, 1 << 17)],
)
def test_how_much_room_a_map_shows(
    opens: Opens, run: Run, words: list[str], board: str, capacity: int, erase_size: int
) -> None:
    """The camera's own, unless a board is named: then as much as that has."""
    camera = Camera()
    camera.about = replace(camera.about, capacity=1 << 20)
    opens(camera)
    shown = json.loads(run("info", "--map", "--json", "camera:77", *words).out)
    assert shown["rows"].pop()["offset"] == SIZE
    del shown["rows"]
    assert shown == {
        "source": "camera:77", "board": board, "partition": 0, "size": SIZE, "capacity": capacity,
        "erase_size": erase_size,
    }  # fmt: skip


def test_the_digest_of_a_file_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "a.img").write_bytes(HELD)
    for digested, digest in ((True, DIGEST), (False, "")):
        image, found, info = reading.tree_of(
            str(tmp_path / "a.img"), no_progress, digested=digested
        )
        assert (image.size, found, info) == (SIZE, digest, None)
    assert reading.tree_of(str(tmp_path / "a.img"), no_progress)[1] == ""


def test_a_pulled_image_and_what_of_it_does_not_work(
    opens: Opens, run: Run, tmp_path: Path
) -> None:
    image = tmp_path / "x.img"
    calls = opens(Camera(), Camera(), Camera(), Camera(b""), Camera(b""))
    line = f"x.img: {SIZE} B from camera, sha256 {DIGEST}\n"
    said = f"romfsfs: warning: {OLD}\n"
    assert run("pull", "camera", "x.img", "--board", "N6", "--slot", "B") == (0, line, said)
    assert image.read_bytes() == HELD
    assert run("pull", "camera", "-", "--partition", "1") == (0, SHOWN, said)
    done = run("pull", "camera", "x.img", "--json", "--force")
    assert (done.code, done.err) == (0, "")
    path, _, message = OLD.partition(": ")
    assert json.loads(done.out) == {
        "camera": "camera", "image": "x.img", "size": SIZE, "digest": DIGEST,
        "problems": [{"code": "mpy-version", "path": path, "message": message,
                      "severity": "warning"}],
    }  # fmt: skip
    blank = "romfsfs: error: the camera's partition is blank: there is no image (camera)\n"
    for words in (["x.img", "--force"], ["-"]):
        assert run("pull", "camera", *words) == (1, "", blank)
    assert image.read_bytes() == HELD
    usual = ("camera", None, None, "")
    assert [call for call in calls if call != ("closed",)] == [
        ("camera", "OPENMV_N6", None, "B"), ("camera", None, 1, ""), usual, usual, usual,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "sources"),
    [
        (["mount", "dfu:N6", "cam"], ["dfu:N6"]), (["pull", "dfu:N6", "x.img"], ["dfu:N6"]),
        (["pull", "dfu:N6", "-"], ["dfu:N6"]), (["reset", "dfu:N6"], ["dfu:N6"]),
        (["push", "app.img", "dfu:N6", "dfu:AE3"], ("dfu:N6", "dfu:AE3")),
    ],
)  # fmt: skip
def test_boot_loaders_are_waited_for_when_that_is_said(
    run: Run, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str],
    sources: object,
) -> None:  # fmt: skip
    """Before anything is opened."""
    (tmp_path / "cam").mkdir()
    waits: list[object] = []

    def wait_for(output: Output, *what: object) -> None:
        waits.append(what)
        raise RomfsError("enough")

    for module in ("mounting", "whole", "pushing"):
        monkeypatch.setattr(f"romfsfs.cli.{module}.wait_for", wait_for)
    for more, wanted in ((["--wait", "--partition", "1"], (sources, 1)), ([], ([], None))):
        waits.clear()
        assert run(*words, *more) == (1, "", "romfsfs: error: enough\n")
        assert waits == [wanted]


def test_what_waits_opens_and_closes_each(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[object] = []
    output = Output()

    def open_device(source: str, **how: object) -> Any:
        calls.append((source, how))
        return SimpleNamespace(close=lambda: calls.append("closed"))

    monkeypatch.setattr(reports, "open_device", open_device)
    reports.wait_for(output, ["dfu:N6", "dfu:AE3"], 1)
    how = {"partition": 1, "wait": output.note}
    assert calls == [("dfu:N6", how), "closed", ("dfu:AE3", how), "closed"]


def default(tmp_path: Path, partition: int, version: Any = (4, 8, 1)) -> DefaultImage:
    path = tmp_path / f"default{partition}"
    path.write_bytes(f"image of {partition}".encode())
    return DefaultImage(path, "the IDE", version, "OPENMV4P", partition, 10)


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_defaults_of_each_partition_are_restored(
    opens: Opens, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int,
    as_json: bool,
) -> None:  # fmt: skip
    """And the camera restarts after the last."""
    cameras = [Camera(key=f"OPENMV4P/77/{n}", firmware="v4.8.1", notes=("mind it",))
               for n in range(count)]  # fmt: skip
    calls = opens(*cameras)
    written: list[object] = []
    asked: list[Any] = []
    reported = [WriteReport(10, n, 1.23456, True) for n in range(count - 1)]

    def push(
        opened: Any, camera: str, file: BinaryIO, label: str, how: PushOptions, progress: object
    ) -> WriteReport | None:
        held = os.pread(file.fileno(), 100, 0)
        written.append((cameras.index(opened), camera, held, label, how))
        return reported[opened.about.partition] if opened is not cameras[-1] else None

    def defaults(*what: Any) -> list[DefaultImage]:
        asked.append(what)
        return [default(tmp_path, n) for n in range(count)]

    monkeypatch.setattr(whole, "push_image", push)
    monkeypatch.setattr(whole, "_defaults", defaults)
    words = ["--from", "place", "--yes", "--force", "--slot", "B", "--board", "N6", "--partition",
             "2"]  # fmt: skip
    done = run("reset", "camera", *words, *(["--json"] if as_json else []))
    label = "OPENMV4P 4.8.1 (the IDE)"
    assert written == [
        (n, "camera", f"image of {n}".encode()[:10], label,
         PushOptions(True, n == count - 1, slot="B", kind="reset"))
        for n in range(count)
    ]  # fmt: skip
    assert calls == [
        ("camera", "OPENMV_N6", 2, "B"), ("closed",),
        *(call for n in range(1, count)
          for call in (("camera", "OPENMV_N6", n, "B"), ("closed",))),
    ]  # fmt: skip
    ((info, *chosen, allowed),) = asked
    assert (info, chosen) == (cameras[0].about, ["camera", "place", 2])
    assert (allowed.offline, allowed.update) == (False, True)
    assert (done.code, done.err) == (0, "romfsfs: mind it\n")
    if not as_json:
        assert done.out.splitlines() == [
            *(f"partition {n}: {label}, 10 B" for n in range(count)),
            *(f"OPENMV4P on ACM0, partition {n}: wrote 10 of 10 B, "
              + ("" if n == 0 else "1 erase block, ") + "1.23 s, verified"
              for n in range(count - 1)),
            f"OPENMV4P on ACM0, partition {count - 1}: has this image already, nothing written",
        ]  # fmt: skip
        return
    write = {"written": 10, "seconds": 1.235, "verified": True, "skipped": 0, "sent": 0,
             "notes": [], "tried": []}  # fmt: skip
    assert json.loads(done.out) == [
        {"camera": "camera", "partition": n, "image": label, "size": 10,
         "write": {**write, "erased_blocks": n} if n < count - 1 else None}
        for n in range(count)
    ]  # fmt: skip


def test_another_camera_that_comes_meanwhile_is_left_as_it_is(
    opens: Opens, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(whole, "push_image", lambda *_: None)
    monkeypatch.setattr(whole, "_defaults", lambda *_: [default(tmp_path, n) for n in range(2)])
    opens(Camera(), Camera(key="OPENMV4P/78/1"))
    done = run("reset", "camera", "--yes")
    assert done.code == 5
    assert done.error == (
        "romfsfs: error: another camera is connected there now: OPENMV4P on ACM0, not OPENMV4P on "
        "ACM0 (camera); it was left as it is; connect the first one and repeat the command"
    )
    opens(Camera(), Camera(key="OPENMV4P/78/1"))
    done = run("reset", "camera", "--yes", "--json")
    assert (done.code, [each["partition"] for each in json.loads(done.out)]) == (5, [0])


def test_a_reset_that_is_not_agreed_to(
    opens: Opens, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    questions: list[str] = []
    monkeypatch.setattr(whole, "push_image", lambda *_: pytest.fail("it was not agreed to"))
    monkeypatch.setattr(whole, "_defaults", lambda *_: [default(tmp_path, 0)])
    monkeypatch.setattr(whole, "confirmed", lambda _, question: questions.append(question))
    opens(Camera())
    assert run("reset", "camera") == (1, "partition 0: OPENMV4P 4.8.1 (the IDE), 10 B\n", "")
    assert questions == ["Replace everything on OPENMV4P on ACM0?"]


@pytest.mark.parametrize(
    ("firmware", "versions", "said"),
    [
        ("v4.8.1", [(4, 8, 1)], ""), ("v4.8.1", [None], ""), ("unknown", [(4, 8, 1)], ""),
        ("v4.8.1", [None, (4, 8, 1), (4, 7, 0)],
         "romfsfs: the camera's firmware is 4.8.1; its default contents were not found, those of "
         "4.7.0 are used\n"),
        ("v4.8.1", [(4, 7, 0), (4, 6, 9)],
         "romfsfs: the camera's firmware is 4.8.1; its default contents were not found, those of "
         "4.6.9 and 4.7.0 are used\n"),
    ],
)  # fmt: skip
def test_defaults_of_another_firmware_are_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], firmware: str, versions: list[Any],
    said: str,
) -> None:  # fmt: skip
    chosen = [default(tmp_path, n, version) for n, version in enumerate(versions)]
    whole._tell_of_version(Output(), firmware, chosen)
    assert capsys.readouterr().err == said


def about(board: str | None, kind: str = "serial") -> DeviceInfo:
    return DeviceInfo(kind, "K", "its name", board, firmware="v4.8.1")


@pytest.mark.parametrize(
    ("info", "place", "partition", "files", "asked", "error"),
    [
        (about("OPENMV4P"), None, None, ["a", "a2"], [0], ""),
        (about("OPENMV_AE3"), None, None, ["a", "b"], [0, 1], ""),
        (about("OPENMV_AE3"), None, None, ["a", "a"], [0, 1],
         "this is one image, but the camera has several partitions (None); choose: --partition 0 "
         "or --partition 1"),
        (about("OPENMV_AE3"), "here", 1, ["a"], [1], ""),
        (about("OPENMV_AE3"), "http://x/no.zip", 0, ["a"], [0], ""),
        (about("OPENMV_AE3"), "nowhere", 0, [], [], "no such file or folder (nowhere)"),
        (about(None), None, None, [], [],
         "the board cannot be identified (the camera); add --board BOARD"),
        (about("OPENMV4P", "file"), None, None, [], [],
         "an image file, not a camera (the camera); to empty it: romfsfs new 'the camera' --board "
         "BOARD --force"),
    ],
)  # fmt: skip
def test_which_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, info: DeviceInfo, place: str | None,
    partition: int | None, files: list[str], asked: list[int], error: str,
) -> None:  # fmt: skip
    (tmp_path / "here").touch()
    allowed = Fetching()
    calls: list[tuple[object, ...]] = []

    def find(*what: object) -> list[Any]:
        calls.append(what)
        return [SimpleNamespace(path=files[len(calls) - 1]), SimpleNamespace(path="older")]

    monkeypatch.setattr("romfsfs.ide.defaults.find_defaults", find)
    if error:
        with pytest.raises(UsageError) as caught:
            whole._defaults(info, "the camera", place, partition, allowed)
        assert caught.value.line == error
    else:
        found: Any = whole._defaults(info, "the camera", place, partition, allowed)
        assert [each.path for each in found] == files[: len(asked)]
    if asked:
        board = get_board(info.board or "")
        assert calls == [(board, index, place, "v4.8.1", allowed) for index in asked]


def test_outcomes_of_a_push(capsys: pytest.CaptureFixture[str]) -> None:
    """Each on its line as it comes; what is to be done is said where more than one was named."""
    well = WriteReport(100, 0, 0.5, True)
    ill = WriteReport(100, 0, 0.5, True, tried=(OpenedModel("m.tflite", "no room"),))
    wrote = "wrote 100 of 100 B, 0.50 s, verified\n"
    gone = "romfsfs: error: {}gone (p 2); plug in\n"
    again = "romfsfs: repeat the command: it goes on with the cameras that failed\n"
    for outcomes, codes, out, err in (
        ([("p1", well)], [0], f"p1: {wrote}", ""),
        ([("p1", well), ("p 2", None)], [0, 0],
         f"p1: {wrote}p 2: has this image already, nothing written\n", ""),
        ([("p 2", "gone")], [5], "", gone.format("")),
        ([("p3", "gone")], [5], "", gone.format("p3: ")),
        ([("p 2", "gone"), ("p1", well)], [5, 0], f"p1: {wrote}", gone.format("") + again),
        ([("p 1", ill), ("p2", None)], [1, 0],
         f"p 1: {wrote}p2: has this image already, nothing written\n",
         "romfsfs: error: m.tflite does not open on the camera: no room; the image before: romfsfs "
         "undo 'p 1'\n"),
    ):  # fmt: skip
        for watch, as_json in ((False, False), (True, False), (False, True), (True, True)):
            output = Output()
            output.as_json = as_json
            report = pushing._Report(output, 100, watch)
            records = []
            for (camera, outcome), code in zip(outcomes, codes, strict=True):
                lost = DeviceAbsent("gone", where="p 2", next_step="plug in")
                became: Any = lost if outcome == "gone" else outcome
                assert report(camera, became) == code
                write = became and {
                    "written": 100, "erased_blocks": 0, "seconds": 0.5, "verified": True,
                    "skipped": 0, "sent": 0, "notes": [], "tried": [],
                }  # fmt: skip
                if became is ill:
                    write |= {"tried": [{"path": "m.tflite", "error": "no room", "detail": "",
                                         "memory": 0, "inputs": [], "outputs": []}]}  # fmt: skip
                records.append({"camera": camera, "ok": False, "error": "gone (p 2); plug in"}
                               if outcome == "gone" else
                               {"camera": camera, "ok": True, "write": write})  # fmt: skip
            report.end()
            said = capsys.readouterr()
            if not as_json:
                assert said == (out, err.removesuffix(again) if watch else err)
            elif watch:
                assert [json.loads(line) for line in said.out.splitlines()] == records
            else:
                assert json.loads(said.out) == records
                assert said.err == (err if "open on" in err else "")


def test_a_line_of_production_is_seen_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(pushing, "flush", lambda: told.append("flush"))
    monkeypatch.setattr(pushing, "write", told.append)
    output = Output()
    output.as_json = True
    for watch, wanted in ((False, []), (True, ['{"camera": "p", "ok": true, "write": null}\n',
                                               "flush"])):  # fmt: skip
        pushing._Report(output, 1, watch)("p", None)
        assert told == wanted


@pytest.mark.parametrize("as_json", [True, False])
def test_a_line_of_production_goes_on_when_nobody_reads_it(
    monkeypatch: pytest.MonkeyPatch, as_json: bool
) -> None:
    def closed(*data: str) -> None:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe", "standard output")

    monkeypatch.setattr(pushing, "write" if as_json else "flush", closed)
    output = Output()
    output.as_json = as_json
    report = pushing._Report(output, 1, True)
    assert [report("p", None), report("p", DeviceAbsent("gone"))] == [0, 5]


@pytest.mark.parametrize(
    ("words", "options", "code"),
    [
        ([], PushOptions(), 0),
        (["--force", "--no-reset", "--try", "--slot", "A", "--no-backup", "--board", "AE3:1"],
         PushOptions(True, False, True, "A", False), 7),
    ],
)  # fmt: skip
def test_what_a_push_is_asked_for(
    opens: Opens, run: Run, image: Path, monkeypatch: pytest.MonkeyPatch, words: list[str],
    options: PushOptions, code: int,
) -> None:  # fmt: skip
    """The worst outcome counts."""
    asked: list[object] = []

    class Failed(RomfsError):
        exit_code = code

    def push(image: str, cameras: object, connect: Any, how: object, progress: object) -> Any:
        asked.append((image, cameras, how))
        with connect("c"):
            return {"c": None, "d": Failed("d is ill") if code else None, "e": None}

    calls = opens(Camera())
    monkeypatch.setattr(pushing, "push_all", push)
    assert run("push", image, "c", "d", "e", *words).code == code
    assert asked == [(str(image), ("c", "d", "e"), options)]
    board, partition = ("OPENMV_AE3", 1) if words else (None, None)
    how = {"board": board, "partition": partition, "slot": options.slot}
    assert calls == [("c", how), ("closed",)]


@pytest.mark.parametrize(
    ("report", "said"),
    [
        ({"clean": True}, ["a\\nb: nothing to commit, nothing written"]),
        ({"clean": True, "recovered": "finished"},
         ["a\\nb: an earlier interrupted transaction was finished",
          "a\\nb: nothing to commit, nothing else written"]),
        ({"clean": False, "size": 5000}, ["a\\nb: would write an image of 5,000 B (dry run)"]),
        ({"clean": False, "size": 5, "blocks": 0, "recovered": "rolled back"},
         ["a\\nb: an earlier interrupted transaction was rolled back",
          "a\\nb: would write an image of 5 B, which differs in 0 erase blocks (dry run)"]),
        ({"clean": False, "size": 5, "write": WriteReport(
            9, 2, 1, False, notes=("x.py: is odd", "n")
        )}, [
            "a\\nb: wrote 5 of 5 B, 2 erase blocks, 1.00 s, NOT verified; n"
        ]),
    ],
)  # fmt: skip
def test_what_a_commit_says(
    report: dict[str, Any], said: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    plan: Any = SimpleNamespace(problems=[Problem("w", "x.py", "is odd", WARNING)])
    reports.say_commit(Output(), "a\nb", CommitReport(plan=plan, shadow=(), **report))
    lines = "".join(f"{line}\n" for line in said)
    assert capsys.readouterr() == (lines, "romfsfs: warning: x.py: is odd\n")


@pytest.mark.parametrize(
    ("yes", "answer", "refused"), [(True, None, False), (False, "y", False), (False, "n", True)]
)
def test_what_is_downloaded_is_asked_before(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], yes: bool,
    answer: str | None, refused: bool,
) -> None:  # fmt: skip
    answers = io.StringIO(f"{answer}\n")
    monkeypatch.setattr(answers, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stdin", answers)
    allowed = reports.fetching(Output(), no_progress, offline=True, yes=yes, update=True)
    assert (allowed.offline, allowed.update, allowed.progress) == (True, True, no_progress)
    if refused:
        with pytest.raises(RomfsError) as caught:
            allowed.agree("1 MB")
        assert caught.value.line == "nothing was downloaded; name another place with --from"
    else:
        allowed.agree("1 MB")
    asked = "No OpenMV IDE is installed. Download 1 MB? [y/N]: " if answer else ""
    more = "romfsfs: nothing was changed\n" if refused else ""
    assert capsys.readouterr() == ("", asked + more)
