"""`commit --try` and `push --try`: the camera opens the models that changed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from camera_rig import Rig, held
from convert.convert_helpers import make_model

from romfsfs.boards import get_board
from romfsfs.devices.serial_camera import trying
from romfsfs.image.writer import encode
from romfsfs.simulator import Simulator

Connect = Callable[..., Simulator]
INT8, ADD, POW = 9, 0, 78


def model(kind: int, side: int = 4) -> bytes:
    shape = [1, side, side]
    return make_model([(kind, [0], [1])], [(INT8, shape, 0), (INT8, shape, 0)], [0], [1])


@pytest.fixture
def image() -> bytes:
    return image_of({"old.tflite": model(ADD)})


def image_of(files: dict[str, bytes]) -> bytes:
    return encode(files, get_board("OPENMV4P").partition().alignment)


def test_what_changed_is_opened_and_shown(rig: Rig, connect: Connect, image: bytes) -> None:
    camera = connect("OPENMV4P", images={0: image})
    session = rig.prepare("camera")
    (session.work / "models").mkdir()
    (session.work / "models/new.tflite").write_bytes(model(ADD, 8))
    (session.work / "loud.py").write_text("print('imported')\n")
    out = rig.ok("commit", "camera", "--try")
    assert "  models/new.tflite opens: 640 B of memory, 1x8x8 int8 -> 1x8x8 int8\n" in out
    assert "old.tflite" not in out
    assert "imported" not in out
    assert camera.statistics.soft_resets >= 2  # and it is left restarted
    (session.work / "models/new.tflite").write_bytes(model(ADD, 16))
    done = json.loads(rig.ok("commit", "camera", "--try", "--json"))
    (said,) = done["write"]["tried"]
    assert (said["path"], said["error"], said["memory"]) == ("models/new.tflite", "", 1024)
    assert said["inputs"] == [{"shape": [1, 16, 16], "dtype": "b"}]
    (session.work / "models/new.tflite").write_bytes(model(ADD, 32))
    assert json.loads(rig.ok("commit", "camera", "--json"))["write"]["tried"] == []  # not asked for


def test_what_does_not_open_is_said_and_undo_brings_the_image_back(
    rig: Rig, connect: Connect, image: bytes
) -> None:
    camera = connect("OPENMV4P", images={0: image})
    session = rig.prepare("camera")
    (session.work / "bad.tflite").write_bytes(model(POW))
    (session.work / "good.tflite").write_bytes(model(ADD, 8))
    done = rig.run("commit", "camera", "--try")
    assert done.code == 1
    assert "verified" in done.out
    assert "good.tflite opens" in done.out
    assert done.error.startswith(
        "romfsfs: error: bad.tflite does not open on the camera: Failed to allocate tensors "
        "(Didn't find op for builtin opcode 'POW'); the image before: romfsfs undo "
    )
    there = held(camera)
    assert there is not None
    assert "bad.tflite" in there  # it was written
    rig.ok("undo", done.error.rpartition("romfsfs undo ")[2])
    assert held(camera) == {"old.tflite": model(ADD)}


def test_push_tries_what_the_camera_did_not_hold(
    rig: Rig, connect: Connect, image: bytes, tmp_path: Path
) -> None:
    connect("OPENMV4P", images={0: image})
    pushed = tmp_path / "p.img"
    pushed.write_bytes(image_of({"old.tflite": model(ADD), "bad.tflite": model(POW)}))
    done = rig.run("push", pushed, "camera", "--try", "--json")
    assert done.code == 1
    (record,) = json.loads(done.out)
    assert [each["path"] for each in record["write"]["tried"]] == ["bad.tflite"]
    assert "romfsfs undo camera" in done.error
    pushed.write_bytes(image_of({"old.tflite": model(ADD), "good.tflite": model(ADD, 8)}))
    assert "  good.tflite opens: 640 B" in rig.ok("push", pushed, "camera", "--try")


def test_a_model_that_takes_the_camera_down_is_named(
    rig: Rig, connect: Connect, image: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opening = trying.open_model

    def impatient(*given: Any) -> object:
        monkeypatch.setattr(trying, "OPEN_LIMIT", 1.0)
        monkeypatch.setattr("romfsfs.devices.serial_camera.repl.ENTER_LIMIT", 1.0)
        return opening(*given)

    monkeypatch.setattr(trying, "open_model", impatient)
    # What nobody would let through, were it not for the test.
    monkeypatch.setattr("romfsfs.session.rebase.push.admit_image", lambda *args: [])
    connect("OPENMV4P", images={0: image})
    pushed = tmp_path / "p.img"
    blind = b"\xff\xff\xff\x7fTFL3" + bytes(16)
    pushed.write_bytes(image_of({"a.tflite": blind, "b.tflite": model(ADD)}))
    done = rig.run("push", pushed, "camera", "--try")
    assert done.code == 1
    assert "verified" in done.out
    assert "a.tflite does not open on the camera: the camera went away meanwhile" in done.error
    assert "the camera's restart was not confirmed" in done.out


def test_where_nobody_can_open_models(rig: Rig, connect: Connect, tmp_path: Path) -> None:
    file = tmp_path / "app.img"
    file.write_bytes(encode({"a.txt": b"1"}))
    session = rig.prepare(str(file))
    (session.work / "a.txt").write_bytes(b"2")
    done = rig.run("commit", file, "--try")
    assert (done.code, "only a camera on its serial port" in done.error) == (2, True)
    assert file.read_bytes() == encode({"a.txt": b"1"})  # nothing was done
    connect("OPENMV2")
    rig.prepare("camera")
    (rig.prepare("camera").work / "a.tflite").write_bytes(model(ADD))
    assert "its firmware runs no models: none was tried" in rig.ok("commit", "camera", "--try")
