"""Whole images to and from a camera, other tools' writes, and the way back."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from camera_rig import KIB, Rig, held, make_image, only_session
from convert.convert_helpers import make_model

from romfsfs.boards import get_board
from romfsfs.devices.serial_camera.camera import SerialCamera
from romfsfs.image.writer import encode
from romfsfs.session.rebase.push import push as push_image
from romfsfs.simulator import Simulator, preset
from romfsfs.simulator.config import PartitionConfig

Connect = Callable[..., Simulator]

BEFORE = make_image("OPENMV4P", notes_txt=b"old\n")
OTHER = make_image("OPENMV4P", size=60 * KIB, other_txt=b"other\n")


def write_with_another_tool(camera: Simulator, image: bytes) -> None:
    device = SerialCamera.open(camera.port)
    device.write_image(io.BytesIO(image))
    device.close()


def image_file(folder: Path, image: bytes, name: str = "given.img") -> Path:
    path = folder / name
    path.write_bytes(image)
    return path


def test_a_camera_that_changed_elsewhere(rig: Rig, connect: Connect) -> None:
    """Exit 7, nothing written, and each of the ways on that it names."""
    camera = connect("OPENMV4P", images={0: BEFORE})
    session = rig.prepare("camera")
    (session.work / "notes.txt").write_text("new\n")
    write_with_another_tool(camera, OTHER)
    before = camera.statistics.programmed
    for command in (("commit", "camera"), ("commit", "camera", "--dry-run")):
        done = rig.run(*command)
        assert done.code == 7
        assert "--force" in done.error
        assert "--to" in done.error
    assert rig.try_mount("camera").code == 7
    assert camera.statistics.programmed == before

    rig.ok("commit", "camera", "--to", "mine.img")
    assert "notes.txt" in rig.ok("ls", "mine.img")
    rig.ok("commit", "camera", "--force")
    there = held(camera)
    assert there is not None
    assert there["notes.txt"] == b"new\n"
    assert "other.txt" not in there
    rig.ok("undo", "camera")  # what the other tool wrote was kept
    assert bytes(camera.flash[0].content).startswith(OTHER)


def test_reverted_edits_follow_the_camera(rig: Rig, connect: Connect) -> None:
    camera = connect("OPENMV4P", images={0: BEFORE})
    session = rig.prepare("camera")
    (session.work / "notes.txt").write_text("new\n")
    write_with_another_tool(camera, OTHER)
    rig.ok("revert", "camera", "--yes")
    cam = rig.mount("camera")
    assert (cam / "other.txt").read_bytes() == b"other\n"


def test_commit_to_a_file_leaves_camera_and_session(rig: Rig, connect: Connect) -> None:
    camera = connect("OPENMV4P", images={0: BEFORE})
    session = rig.prepare("camera")
    (session.work / "notes.txt").write_text("new\n")
    (session.work / "app.py").write_text("print(1)\n")
    rig.ok("commit", "camera", "--to", "out.img")
    assert camera.statistics.programmed == 0
    assert json.loads(rig.ok("status", "camera", "--json"))["clean"] is False
    rig.ok("verify", "out.img", "--board", "OPENMV4P")
    assert rig.ok("cat", "out.img", "notes.txt") == "new\n"
    rig.ok("commit", "camera")
    out = (rig.folder / "out.img").read_bytes()
    there = held(camera)
    assert there is not None
    assert there["app.mpy"] in out


def test_commit_to_another_camera_keeps_what_it_held(rig: Rig, connect: Connect) -> None:
    first = connect("OPENMV4P", images={0: BEFORE})
    second = connect("OPENMV4P", images={0: OTHER}, unique_id=b"another id 1")
    session = rig.prepare(first.port)
    (session.work / "notes.txt").write_text("new\n")
    rig.ok("commit", first.port, "--to", second.port)
    assert first.statistics.programmed == 0
    there = held(second)
    assert there is not None
    assert there["notes.txt"] == b"new\n"
    programmed = second.statistics.programmed
    assert "verified" in rig.ok("commit", first.port, "--to", second.port)
    assert second.statistics.programmed == programmed
    rig.ok("undo", second.port)
    assert bytes(second.flash[0].content).startswith(OTHER)


def test_commit_to_a_camera_of_somebody_else(rig: Rig, connect: Connect) -> None:
    """What is there is no image and cannot be kept: refused unless it is forced."""
    first = connect("OPENMV4P", images={0: BEFORE})
    second = connect("OPENMV4P", images={0: b"foreign" * 9}, unique_id=b"another id 1")
    session = rig.prepare(first.port)
    (session.work / "notes.txt").write_text("new\n")
    assert rig.run("commit", first.port, "--to", second.port).code == 4
    assert second.statistics.programmed == second.statistics.erased_blocks == 0
    rig.ok("commit", first.port, "--to", second.port, "--force")
    assert held(second) is not None


def test_pull_and_push(rig: Rig, connect: Connect) -> None:
    camera = connect("OPENMV4P", images={0: BEFORE})
    rig.ok("pull", "camera", "back.img")
    assert (rig.folder / "back.img").read_bytes() == BEFORE
    assert rig.run("pull", "camera", "back.img").code == 2
    assert "already" in rig.ok("push", "back.img", "camera")
    assert camera.statistics.programmed == 0
    rig.ok("push", image_file(rig.folder, OTHER), "camera")
    assert bytes(camera.flash[0].content).startswith(OTHER)
    log = json.loads(rig.ok("log", "camera", "--json"))
    assert [entry["kind"] for entry in log] == ["read", "push"]
    rig.ok("undo", "camera")
    assert bytes(camera.flash[0].content).startswith(BEFORE)


def test_push_is_refused_before_anything_is_written(rig: Rig, connect: Connect) -> None:
    camera = connect("OPENMV2", images={0: make_image("OPENMV2", size=16 * KIB)})
    large = image_file(rig.folder, make_image("OPENMV2", size=200 * KIB))
    for given, code in ((large, 4), (image_file(rig.folder, b"no image", "x.img"), 4)):
        assert rig.run("push", given, "camera").code == code
    assert camera.statistics.programmed == camera.statistics.erased_blocks == 0


def test_what_cannot_work_there_is_not_pushed(rig: Rig, connect: Connect) -> None:
    """Another board's network, and bytecode that this camera's firmware says it does not load."""
    network = make_image("OPENMV_N6", net_tflite=b"NBIN" + bytes(99))
    old = make_image("OPENMV4P", app_mpy=b"M\x05\x00\x1f" + bytes(40))
    camera = connect("OPENMV4P", images={0: old})
    done = rig.run("push", image_file(rig.folder, network), "camera")
    assert done.code == 4
    assert "compiled for the N6's Neural-ART, which OPENMV4P does not have" in done.error
    bytecode = image_file(rig.folder, old + bytes(16), "other.img")
    assert "is bytecode 5, the camera loads 6.3" in rig.run("push", bytecode, "camera").error
    assert camera.statistics.programmed == 0
    assert rig.run("verify", "camera").code == 4
    pulled = rig.run("pull", "camera", "back.img")
    assert pulled.code == 0  # a copy is a copy
    assert "error: app.mpy: is bytecode 5" in pulled.err


def test_all_of_a_board_are_those_that_say_so(rig: Rig, connect: Connect) -> None:
    """Where USB does not tell the boards apart, the others were written as if they were it."""
    image = make_image("OPENMV_N6", notes_txt=b"new")
    (rig.folder / "new.img").write_bytes(image)
    mine = connect("OPENMV_N6", images={0: make_image("OPENMV_N6", notes_txt=b"old")})
    other = connect("OPENMV4P", images={0: make_image("OPENMV4P", notes_txt=b"other")})
    said = rig.ok("push", "new.img", "--all", "--board", "OPENMV_N6")
    assert said.count("\n") == 1
    assert (held(mine) or {})["notes.txt"] == b"new"
    assert other.statistics.programmed == 0


def test_one_image_is_not_reset_into_two_partitions(rig: Rig, connect: Connect) -> None:
    partitions = (PartitionConfig(2048 * KIB),
                  PartitionConfig(1024 * KIB, 16, kind="mram", word=16, min_write=16))  # fmt: skip
    images = {n: make_image("OPENMV_AE3", n, notes_txt=b"%d" % n) for n in (0, 1)}
    camera = connect("OPENMV_AE3", partitions=partitions, images=images)
    plain = rig.folder / "mine.img"
    plain.write_bytes(make_image("OPENMV_AE3", 1, notes_txt=b"mine"))
    done = rig.run("reset", camera.port, "--yes", "--from", plain)
    assert done.code == 2
    assert "--partition 0 or --partition 1" in done.error
    assert camera.statistics.programmed == 0
    rig.ok("reset", camera.port, "--yes", "--from", plain, "--partition", 1)
    assert (held(camera, 1) or {})["notes.txt"] == b"mine"
    assert (held(camera, 0) or {})["notes.txt"] == b"0"


def test_another_camera_comes_in_the_middle_of_a_reset(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the same port, before the second partition: it keeps what it has."""
    board, link = "OPENMV_AE3", rig.folder / "port"
    (rig.folder / board).mkdir()
    for index in (0, 1):
        image_file(rig.folder / board, make_image(board, index, size=4 * KIB), f"romfs{index}.img")
    with ExitStack() as stack:
        first = stack.enter_context(Simulator(preset(board), link=link))
        others: list[Simulator] = []

        def push_and_swap(*words: Any, **options: Any) -> Any:
            report = push_image(*words, **options)
            if not others:
                first.unplug()
                config = preset(board, unique_id=bytes(range(12)))
                others.append(stack.enter_context(Simulator(config, link=link)))
            return report

        monkeypatch.setattr("romfsfs.cli.whole.push_image", push_and_swap)
        done = rig.run("reset", link, "--from", rig.folder, "--yes", "--force")
        assert done.code == 5
        assert "another camera" in done.error
        assert held(first) is not None
        assert held(others[0]) is None
        assert held(others[0], 1) is None


def test_push_while_mounted_is_refused(rig: Rig, connect: Connect) -> None:
    camera = connect("OPENMV4P", images={0: BEFORE})
    cam = rig.mount("camera", "--commit-on-unmount")
    done = rig.run("push", image_file(rig.folder, OTHER), "camera")
    assert done.code == 1
    assert "is mounted" in done.error
    assert rig.run("reset", "camera", "--from", "given.img", "--yes").code == 1
    assert camera.statistics.programmed == 0
    (cam / "new.txt").write_bytes(b"new")
    assert "verified" in rig.ok("umount", cam)  # as it was told to when it was mounted


def test_reset_keeps_a_backup(rig: Rig, connect: Connect) -> None:
    camera = connect("OPENMV4P", images={0: BEFORE})
    given = image_file(rig.folder, OTHER)
    assert rig.run("reset", "camera", "--from", given).code == 2  # nobody there to be asked
    assert camera.statistics.programmed == 0
    resets = camera.statistics.soft_resets
    rig.ok("reset", "camera", "--from", given, "--yes")
    assert camera.statistics.soft_resets > resets
    assert bytes(camera.flash[0].content).startswith(OTHER)
    rig.ok("undo", "camera")
    assert bytes(camera.flash[0].content).startswith(BEFORE)


def test_info_tells_of_models_that_its_session_has(rig: Rig, connect: Connect) -> None:
    """What the camera holds is known by its digest: nothing of the models is sent."""
    shape = [1, 4, 4]
    model = make_model(
        [(0, [0, 2], [1])], [(9, shape, 0), (9, shape, 0), (9, shape, 1)], [0], [1],
        buffers=(bytes(200_000),),
    )  # fmt: skip
    image = encode({"a.tflite": model}, get_board("OPENMV4P").partition().alignment)
    camera = connect("OPENMV4P", images={0: image})
    said = "only the names and sizes of its models were read; for operators and memory: romfsfs"
    assert f"{said} pull camera" in rig.ok("info", "camera")
    rig.prepare("camera")
    assert said not in rig.ok("info", "camera")
    before = camera.statistics.wire_out
    told = json.loads(rig.ok("info", "camera", "--json"))
    assert camera.statistics.wire_out - before < 12 * KIB
    (rig.folder / "same.img").write_bytes(image)
    assert told["models"] == json.loads(rig.ok("info", "same.img", "--json"))["models"] != {}


def test_push_to_several_cameras(rig: Rig, connect: Connect) -> None:
    """Each on its own: one that fails stops no other, and running it again resumes."""
    first = connect("OPENMV4P", images={0: BEFORE})
    second = connect("OPENMV4P", images={0: BEFORE}, unique_id=b"another id 1")
    given = image_file(rig.folder, OTHER)
    second.faults.power_cut_after_programmed(10 * KIB)
    done = rig.run("push", given, "--all")
    assert done.code == 5
    assert bytes(first.flash[0].content).startswith(OTHER)
    second.replug()
    out = rig.ok("push", given, "--all")
    assert "already" in out
    assert bytes(second.flash[0].content).startswith(OTHER)


@pytest.mark.parametrize("edit", ["larger", "smaller", "deleted", "unchanged"])
def test_unchanged_models_stay_where_they_are(rig: Rig, connect: Connect, edit: str) -> None:
    """What an edit moves is written; models of 400 KiB behind it are not."""
    image = make_image("OPENMV4P", size=400 * KIB, a_txt=b"a" * 3000)
    camera = connect("OPENMV4P", images={0: image})
    session = rig.prepare("camera")
    path = session.work / "a.txt"
    if edit == "deleted":
        path.unlink()
    elif edit == "unchanged":
        path.touch()
    else:
        path.write_bytes(b"b" * {"larger": 6000, "smaller": 100}[edit])
    rig.ok("commit", "camera")
    assert camera.statistics.programmed <= (0 if edit == "unchanged" else 16 * KIB)
    assert camera.statistics.erased_blocks <= 4
    assert not only_session().interrupted


def test_looking_at_a_camera_reads_the_records_of_its_files(rig: Rig, connect: Connect) -> None:
    """`ls` and `info` of 3.5 MB move a few KiB; what the camera's session knows is not read."""
    image = make_image(
        "OPENMV_N6", size=3584 * KIB, **{f"file{n}_txt": b"x" * n for n in range(40)}
    )
    camera = connect("OPENMV_N6", images={0: image})
    statistics = camera.statistics

    def moved(*words: object) -> tuple[str, int]:
        before = statistics.wire_in + statistics.wire_out
        said = rig.ok(*words)
        return said, statistics.wire_in + statistics.wire_out - before

    said, count = moved("ls", "camera")
    assert said.count("\n") == 44
    assert count < 24 * KIB
    (rig.folder / "same.img").write_bytes(image)
    assert said == rig.ok("ls", "same.img")
    said, count = moved("info", "camera", "--json")
    told, expected = json.loads(said), json.loads(rig.ok("info", "same.img", "--json"))
    assert {**told, "source": ""} == {**expected, "source": ""}
    assert count < 24 * KIB
    rig.prepare("camera")  # reads all of it, once
    for words in ("verify camera", "ls camera --json", "cat camera file7.txt", "pull camera x.img"):
        assert moved(*words.split())[1] < 24 * KIB, words
    assert (rig.folder / "x.img").read_bytes() == image
