"""A user's session with a camera, with real mounts: mount, edit, commit, come back."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from camera_rig import KIB, Rig, held, make_image, only_session, tree

from romfsfs.boards import get_board
from romfsfs.devices.serial_camera.camera import SerialCamera
from romfsfs.simulator import Simulator
from romfsfs.simulator.config import PartitionConfig

Connect = Callable[..., Simulator]


def test_mount_edit_commit_and_come_back(rig: Rig, connect: Connect) -> None:
    """The camera is restarted with the new content; mounting it again transfers no image."""
    image = make_image("OPENMV4P", size=400 * KIB, notes_txt=b"old\n")
    camera = connect("OPENMV4P", images={0: image})
    cam = rig.mount("camera")
    assert tree(cam) == held(camera)
    (cam / "app.py").write_text("print('hello')\n")
    (cam / "notes.txt").write_text("new\n")
    resets = camera.statistics.soft_resets
    assert "verified" in rig.ok("umount", "--commit", cam)
    assert not list(cam.iterdir())
    assert camera.statistics.soft_resets > resets
    assert camera.statistics.bad_programs == 0
    there = held(camera)
    assert there is not None
    assert there["notes.txt"] == b"new\n"
    assert there["app.mpy"][:2] == b"M\x06"
    assert "app.mpy" in rig.ok("ls", camera.port)

    before = camera.statistics.wire_out
    rig.mount("camera")
    assert camera.statistics.wire_out - before < 8 * KIB
    assert (cam / "app.py").read_text() == "print('hello')\n"
    before = camera.statistics.programmed
    assert "nothing to commit" in rig.ok("umount", "--commit", cam)
    assert camera.statistics.programmed == before
    name = only_session().folder.path.name
    assert name.startswith(f"OPENMV4P_{camera.config.unique_id.hex()}_0-")


def test_edits_stay_on_this_machine_until_they_are_committed(rig: Rig, connect: Connect) -> None:
    image = make_image("OPENMV4P", notes_txt=b"old\n")
    camera = connect("OPENMV4P", images={0: image})
    cam = rig.mount("camera")
    (cam / "notes.txt").write_text("new\n")
    out = rig.ok("umount", cam)
    assert "1 change kept" in out
    assert bytes(camera.flash[0].content).startswith(image)
    assert camera.statistics.programmed == 0
    camera.unplug()
    status = json.loads(rig.ok("status", "camera", "--json"))  # unplugged: still to be looked at
    assert status["clean"] is False
    camera.replug()
    rig.ok("commit", "camera")
    there = held(camera)
    assert there is not None
    assert there["notes.txt"] == b"new\n"


def test_a_blank_partition_is_an_empty_tree(rig: Rig, connect: Connect) -> None:
    camera = connect("OPENMV4P")
    cam = rig.mount("camera")
    assert list(cam.iterdir()) == []
    (cam / "main.py").write_text("print(1)\n")
    rig.ok("umount", "--commit", cam)
    assert held(camera) == {"main.py": b"print(1)\n"}


def test_foreign_content_is_refused_and_not_formatted(rig: Rig, connect: Connect) -> None:
    foreign = b"somebody's own data" * 100
    camera = connect("OPENMV4P", images={0: foreign})
    done = rig.try_mount("camera")
    assert done.code == 4
    assert "not a valid ROMFS image" in done.error
    assert "--new" in done.error
    assert rig.run("push", _image_file(rig, make_image("OPENMV4P")), "camera").code == 4
    assert camera.statistics.erased_blocks == camera.statistics.programmed == 0
    assert bytes(camera.flash[0].content).startswith(foreign)
    cam = rig.mount("camera", "--new")
    (cam / "a.txt").write_text("a")
    rig.ok("umount", "--commit", cam)
    assert held(camera) == {"a.txt": b"a"}


def _image_file(rig: Rig, image: bytes) -> Path:
    path = rig.folder / "given.img"
    path.write_bytes(image)
    return path


@pytest.mark.parametrize(
    ("mpy", "march", "code"),
    [(6 | 3 << 8 | 8 << 10, "armv7emdp", 8), (6 | 3 << 8 | 7 << 10, "armv7emsp", 7)],
)
def test_scripts_are_compiled_for_what_the_camera_reports(
    rig: Rig, connect: Connect, mpy: int, march: str, code: int
) -> None:
    """The board's table says armv7emdp; the camera's own word counts."""
    camera = connect("OPENMV4P", mpy=mpy)
    session = rig.prepare("camera")
    assert session.info.march == march
    (session.work / "fast.py").write_text(
        "import micropython\n@micropython.viper\ndef f(x: int) -> int:\n    return x + 1\n"
    )
    rig.ok("commit", "camera")
    there = held(camera)
    assert there is not None
    assert there["fast.mpy"][:2] == b"M\x06"
    assert there["fast.mpy"][2] >> 2 == code


def test_two_cameras_are_listed_and_named_by_their_ports(rig: Rig, connect: Connect) -> None:
    first = connect("OPENMV4P", images={0: make_image("OPENMV4P", notes_txt=b"1")})
    cam = rig.mount("camera")
    (cam / "notes.txt").write_text("edited")
    other = bytes.fromhex("00112233445566778899aabb")
    second = connect("OPENMV4P", unique_id=other, images={0: make_image("OPENMV4P", b_txt=b"2")})
    done = rig.try_mount("camera", name="other")
    assert done.code == 2
    assert first.port in done.error
    assert second.port in done.error
    assert rig.run("camera:12345", "x").code == 2
    assert rig.run("ls", "camera:12345").code == 5
    assert "b.txt" in rig.ok("ls", second.port)

    # What is mounted is committed to its own camera, though `camera` no longer says which.
    rig.ok("umount", "--commit", cam)
    there = held(first)
    assert there is not None
    assert there["notes.txt"] == b"edited"
    assert second.statistics.programmed == 0
    listed = json.loads(rig.ok("cameras", "--json"))
    assert [camera["board"] for camera in listed] == ["OPENMV4P", "OPENMV4P"]


def test_the_same_camera_on_another_port(rig: Rig, connect: Connect) -> None:
    """Plugged in again it may get another port: its edits go there all the same."""
    image = make_image("OPENMV4P", notes_txt=b"1")
    before = connect("OPENMV4P", images={0: image})
    session = rig.prepare(before.port)
    (session.work / "notes.txt").write_text("edited")
    before.unplug()
    after = connect("OPENMV4P", images={0: image})
    rig.ok("commit", after.port)
    there = held(after)
    assert there is not None
    assert there["notes.txt"] == b"edited"


@pytest.mark.parametrize("board", ["OPENMV4P", "OPENMV_N6"])
def test_another_camera_on_the_sessions_port_is_left_alone(
    rig: Rig, connect: Connect, monkeypatch: pytest.MonkeyPatch, board: str
) -> None:
    image = make_image("OPENMV4P", notes_txt=b"1")
    mine = connect("OPENMV4P", images={0: image})
    link = rig.folder / "port"
    link.symlink_to(mine.port)
    cam = rig.mount(str(link))
    (cam / "notes.txt").write_text("edited")
    mine.unplug()
    other = connect(board, images={0: image}, unique_id=bytes(12))
    monkeypatch.delenv("ROMFSFS_PORTS")
    link.unlink()
    link.symlink_to(other.port)
    for arguments in (("commit", cam), ("commit", cam, "--force"), ("umount", "--commit", cam)):
        done = rig.run(*arguments)
        assert done.code == 5
        assert "another camera is connected there" in done.error
    assert rig.run("commit", link).code == 2  # there is no session of that camera
    assert (cam / "notes.txt").read_text() == "edited"
    assert other.statistics.programmed == 0


def test_two_partitions_are_two_sessions(rig: Rig, connect: Connect) -> None:
    """The AE3's second core has its own partition, in memory that is not erased."""
    partitions = (PartitionConfig(2048 * KIB),
                  PartitionConfig(1024 * KIB, 16, kind="mram", word=16, min_write=16))  # fmt: skip
    images = {n: make_image("OPENMV_AE3", n, notes_txt=b"%d" % n) for n in (0, 1)}
    camera = connect("OPENMV_AE3", partitions=partitions, images=images)
    first = rig.mount("camera", name="first")
    second = rig.mount("camera", "--partition", 1, name="second")
    assert (first / "notes.txt").read_bytes() == b"0"
    assert (second / "notes.txt").read_bytes() == b"1"
    (second / "app.py").write_text("print(2)\n")
    assert "no edits" not in rig.ok("sessions")
    rig.ok("umount", "--commit", second)
    assert bytes(camera.flash[0].content).startswith(images[0])
    assert camera.statistics.erased_blocks == 0
    (first / "notes.txt").write_bytes(b"changed")
    rig.ok("umount", "--commit", first)
    there = [held(camera, number) for number in (0, 1)]
    assert there[0] is not None
    assert there[1] is not None
    assert there[0]["notes.txt"] == b"changed"
    assert "app.mpy" in there[1]


def test_what_is_said_of_the_second_partition_names_it(rig: Rig, connect: Connect) -> None:
    """Without `--partition`, what umount advises would mount and commit the first one."""
    partitions = (PartitionConfig(2048 * KIB),
                  PartitionConfig(1024 * KIB, 16, kind="mram", word=16, min_write=16))  # fmt: skip
    images = {n: make_image("OPENMV_AE3", n, notes_txt=b"%d" % n) for n in (0, 1)}
    camera = connect("OPENMV_AE3", partitions=partitions, images=images)
    nothing_yet = rig.run("log", camera.port, "--partition", 1).error
    assert nothing_yet.endswith(f"; romfsfs mount {camera.port} DIR --partition 1")
    for number in (0, 1):
        cam = rig.mount(camera.port, "--partition", number)
        (cam / "notes.txt").write_bytes(b"edited %d" % number)
        said = rig.ok("umount", cam)
    assert f"romfsfs commit {camera.port} --partition 1" in said
    assert f"{camera.port}, partition 1: edits" in rig.ok("sessions")
    assert "+edited 1" in rig.ok("diff", camera.port, "--partition", 1)
    assert "+edited 0" in rig.ok("diff", camera.port)
    rig.ok("commit", camera.port, "--partition", 1)
    assert (held(camera, 1) or {})["notes.txt"] == b"edited 1"
    assert (held(camera, 0) or {})["notes.txt"] == b"0"
    assert rig.ok("cat", camera.port, "notes.txt", "--partition", 1) == "edited 1"
    rig.ok("undo", camera.port, "--partition", 1)
    assert (held(camera, 1) or {})["notes.txt"] == b"1"
    cam = rig.mount(camera.port)
    assert "a session of partition 0" in rig.run("status", cam, "--partition", 1).error


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ports that commands opened: each time, what ran on that camera was interrupted."""
    ports: list[str] = []
    really = SerialCamera.open

    def opened(port: str, **choices: Any) -> SerialCamera:
        ports.append(port)
        return really(port, **choices)

    monkeypatch.setattr(SerialCamera, "open", opened)
    return ports


def test_looking_at_a_mounted_cameras_edits_leaves_its_script_running(
    rig: Rig, connect: Connect, asked: list[str]
) -> None:
    camera = connect("OPENMV4P", images={0: make_image("OPENMV4P", notes_txt=b"1")})
    cam = rig.mount("camera")
    (cam / "notes.txt").write_text("edited")
    for source in ("camera", camera.port):
        assert "M notes.txt" in rig.ok("status", source)
        assert "+edited" in rig.ok("diff", source)
        rig.ok("log", source)
    assert asked == []
    rig.ok("umount", cam)  # now any camera may be on that port: it is asked
    assert "M notes.txt" in rig.ok("status", camera.port)
    assert asked == [camera.port]


def test_a_camera_is_known_by_its_usb_serial_number(
    rig: Rig, connect: Connect, monkeypatch: pytest.MonkeyPatch, asked: list[str]
) -> None:
    camera = connect("OPENMV4P", images={0: make_image("OPENMV4P", notes_txt=b"1")})
    other = connect("OPENMV4P", unique_id=bytes(range(12)))
    monkeypatch.delenv("ROMFSFS_PORTS")
    numbers = {camera.port: "335F3A7C3038", other.port: "000000000010"}

    def ports() -> list[SimpleNamespace]:
        [(vid, pid), *_] = get_board("OPENMV4P").runtime_ids
        return [
            SimpleNamespace(device=port, vid=vid, pid=pid, serial_number=number)
            for port, number in numbers.items()
        ]

    monkeypatch.setattr("serial.tools.list_ports.comports", ports)
    session = rig.prepare("camera:335F3A7C3038")
    (session.work / "notes.txt").write_text("edited")
    blank = rig.prepare(other.port)
    (blank.work / "own.txt").write_text("2")
    asked.clear()
    assert "M notes.txt" in rig.ok("status", "camera:335f3a7c3038")
    assert "M notes.txt" in rig.ok("status", camera.port)
    assert asked == []

    # A number that whole series of cameras share tells nothing: the camera is asked.
    assert "A own.txt" in rig.ok("status", other.port)
    assert asked == [other.port]

    # Who is on a port now counts, not who was.
    numbers[camera.port] = "1234567890AB"
    rig.ok("status", camera.port)
    assert asked == [other.port, camera.port]


def test_a_port_that_was_named_from_its_folder(
    rig: Rig, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    camera = connect("OPENMV4P", images={0: make_image("OPENMV4P", notes_txt=b"1")})
    (rig.folder / "port").symlink_to(camera.port)
    cam = rig.mount("port")
    (cam / "notes.txt").write_text("edited")
    monkeypatch.delenv("ROMFSFS_PORTS")
    monkeypatch.chdir("/")
    rig.ok("commit", cam)
    assert (held(camera) or {})["notes.txt"] == b"edited"


def test_edits_of_a_camera_whose_port_is_gone(rig: Rig, connect: Connect) -> None:
    camera = connect("OPENMV4P", images={0: make_image("OPENMV4P", notes_txt=b"1")})
    link = rig.folder / "port"
    link.symlink_to(camera.port)
    cam = rig.mount(str(link))
    (cam / "notes.txt").write_text("edited")
    camera.unplug()
    link.unlink()
    assert "is not connected" in rig.run("commit", cam).error
    rig.ok("umount", cam)
    assert "M notes.txt" in rig.ok("status", link)
    done = rig.run("commit", link)
    assert done.code == 5
    assert "is not connected" in done.error
    assert "your edits are kept" in done.error


_FIRMWARES = {
    "block device": (
        "OPENMV_RT1060",
        {"partitions": (PartitionConfig(512 * KIB, access="block"),)},
    ),
    "no binary stdin": ("OPENMV2", {}),
    "one erase block": ("OPENMV4", {}),
    "no command 6": ("OPENMV4P", {"erase_by_range": False}),
}


@pytest.mark.parametrize("name", _FIRMWARES)
def test_every_memory_and_firmware(rig: Rig, connect: Connect, name: str) -> None:
    board, changes = _FIRMWARES[name]
    camera = connect(board, images={0: make_image(board, notes_txt=b"old")}, **changes)
    session = rig.prepare("camera")
    (session.work / "notes.txt").write_text("new")
    (session.work / "app.py").write_text("print('hello')\n")
    said = rig.ok("commit", "camera", "--dry-run")
    assert "erase block" in said
    assert camera.statistics.programmed == 0
    assert "verified" in rig.ok("commit", "camera")
    there = held(camera)
    assert there is not None
    assert there["notes.txt"] == b"new"
    assert "app.mpy" in there
    assert camera.statistics.bad_programs == 0
    rig.ok("undo", "camera")
    del there["app.mpy"]
    assert held(camera) == {**there, "notes.txt": b"old"}


def test_the_dry_run_says_how_many_erase_blocks(rig: Rig, connect: Connect) -> None:
    camera = connect("OPENMV4P", images={0: make_image("OPENMV4P", notes_txt=b"old")})
    session = rig.prepare("camera")
    (session.work / "notes.txt").write_text("new")
    told = json.loads(rig.ok("commit", "camera", "--dry-run", "--json"))
    assert told["write"] is None
    assert camera.statistics.programmed == 0
    done = json.loads(rig.ok("commit", "camera", "--json"))
    assert done["write"]["erased_blocks"] == camera.statistics.erased_blocks
    assert told["blocks"] == done["blocks"] <= done["write"]["erased_blocks"] <= 2


def test_no_reset_leaves_the_camera_as_it_is(rig: Rig, connect: Connect) -> None:
    camera = connect("OPENMV4P", images={0: make_image("OPENMV4P")}, main_script="print('main')\n")
    for options, more in (((), 1), (("--no-reset",), 0)):
        session = rig.prepare("camera")
        (session.work / "a.txt").write_text(f"{options}")
        before = camera.statistics.soft_resets
        rig.ok("commit", "camera", *options)
        # One reset stops what runs before the write; the other starts what was written.
        assert camera.statistics.soft_resets - before == 1 + more
