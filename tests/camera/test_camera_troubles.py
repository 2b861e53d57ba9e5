"""What else happens to people: no room, a cable pulled, worn flash, a program that runs on."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest
from camera_rig import KIB, Rig, held, make_image, only_session

from romfsfs.boards import get_board
from romfsfs.simulator import TO_CAMERA, TO_HOST, Simulator

Connect = Callable[..., Simulator]

BEFORE = make_image("OPENMV4P", notes_txt=b"old\n")


def test_more_than_the_partition_holds(rig: Rig, connect: Connect) -> None:
    image = make_image("OPENMV2", notes_txt=b"old\n")
    camera = connect("OPENMV2", images={0: image})
    cam = rig.mount("camera")
    with pytest.raises(OSError, match="No space left") as caught, open(cam / "huge", "wb") as file:
        file.write(bytes(200 * KIB))
    assert caught.value.errno == errno.ENOSPC
    (cam / "huge").unlink()
    for number in range(2):
        (cam / f"large{number}").write_bytes(bytes(40 * KIB))
    with pytest.raises(OSError, match="No space left"):
        (cam / "large2").write_bytes(bytes(40 * KIB))  # the three together
    size = get_board("OPENMV2").partitions[0].size
    (cam / "large2").write_bytes(bytes(size - 3 * 40 * KIB - len(b"old\n")))  # but for the names
    done = rig.run("commit", cam)
    assert done.code == 4
    assert camera.statistics.programmed == camera.statistics.erased_blocks == 0
    (cam / "large0").unlink()
    (cam / "large1").unlink()
    rig.ok("umount", "--commit", cam)
    assert "large2" in (held(camera) or {})


def test_mounted_once_only(rig: Rig, connect: Connect) -> None:
    connect("OPENMV4P", images={0: BEFORE})
    cam = rig.mount("camera")
    done = rig.try_mount("camera", name="other")
    assert done.code == 1
    assert f"already mounted at {cam}" in done.error


def test_commit_by_the_control_file(rig: Rig, connect: Connect) -> None:
    camera = connect("OPENMV4P", images={0: BEFORE})
    cam = rig.mount("camera")
    (cam / "notes.txt").write_text("new\n")
    (cam / ".romfs" / "ctl").write_text("commit\n")
    assert (held(camera) or {})["notes.txt"] == b"new\n"
    (cam / "notes.txt").write_text("newer\n")
    camera.unplug()
    with pytest.raises(OSError, match="Input/output error"):
        (cam / ".romfs" / "ctl").write_text("commit\n")
    assert "error" in (cam / ".romfs" / "log").read_text().lower()
    assert (cam / "notes.txt").read_text() == "newer\n"


@pytest.mark.parametrize("count", [1500, 20_000])
def test_the_cable_is_pulled_while_it_is_mounted(rig: Rig, connect: Connect, count: int) -> None:
    """Nothing is mounted then; the next try starts afresh."""
    camera = connect("OPENMV4P", images={0: BEFORE})
    camera.faults.cut_after_wire_bytes(count)
    done = rig.try_mount("camera")
    assert done.code == 5
    assert "plug" in done.error
    camera.replug()
    cam = rig.mount("camera")
    assert (cam / "notes.txt").read_bytes() == b"old\n"


def test_unplugged_at_the_commit(rig: Rig, connect: Connect) -> None:
    camera = connect("OPENMV4P", images={0: BEFORE})
    cam = rig.mount("camera")
    (cam / "notes.txt").write_text("new\n")
    camera.unplug()
    done = rig.run("umount", "--commit", cam)
    assert done.code == 5
    assert (cam / "notes.txt").read_text() == "new\n"  # still mounted
    camera.replug()
    rig.ok("umount", "--commit", cam)
    assert (held(camera) or {})["notes.txt"] == b"new\n"


def test_a_program_that_runs_on_and_prints(rig: Rig, connect: Connect) -> None:
    camera = connect(
        "OPENMV4P",
        images={0: BEFORE},
        main_script="while True:\n    try:\n        print('frame')\n    except Exception: pass\n",
    )
    session = rig.prepare("camera")
    (session.work / "notes.txt").write_text("new\n")
    rig.ok("commit", "camera")
    assert (held(camera) or {})["notes.txt"] == b"new\n"


@pytest.mark.parametrize("command", [3, 4], ids=["erase", "program"])
def test_a_driver_that_refuses(rig: Rig, connect: Connect, command: int) -> None:
    """Its answer is not ignored, as mpremote does; once it works again, recovery finishes. Where
    the camera holds what it held, as after a refused erase, there is nothing to recover."""
    camera = connect("OPENMV4P", images={0: BEFORE})
    session = rig.prepare("camera")
    (session.work / "notes.txt").write_text("new\n")
    camera.faults.fail_ioctl(command=command, count=3)
    done = rig.run("commit", "camera")
    assert done.code == 5
    assert "refuses" in done.error
    assert ("romfsfs recover camera" in done.error) == session.interrupted == (command == 4)
    camera.faults.clear()
    rig.ok("recover" if session.interrupted else "commit", "camera")
    assert (held(camera) or {})["notes.txt"] == b"new\n"


def test_worn_flash(rig: Rig, connect: Connect) -> None:
    """Exit 6, with the ways on and where the image before is; the other tree can be saved."""
    camera = connect("OPENMV4P", images={0: BEFORE})
    session = rig.prepare("camera")
    (session.work / "more.bin").write_bytes(b"x" * 30 * KIB)
    camera.faults.stuck_block(11, on="both")
    done = rig.run("commit", "camera")
    assert done.code == 6
    assert str(session.base_image) in done.error
    assert "--rollback" in done.error
    assert held(camera) is None  # nothing wrong runs
    assert session.base_image.read_bytes() == BEFORE
    assert (session.work / "more.bin").stat().st_size == 30 * KIB
    camera.faults.clear()
    rig.ok("recover", "camera", "--rollback")
    assert bytes(camera.flash[0].content).startswith(BEFORE)


def test_bytes_that_the_wire_spoils(rig: Rig, connect: Connect) -> None:
    camera = connect("OPENMV4P", images={0: BEFORE})
    camera.faults.garble(TO_HOST, 20_000)
    session = rig.prepare("camera")
    assert session.base_image.read_bytes() == BEFORE
    (session.work / "more.bin").write_bytes(b"x" * 30 * KIB)
    camera.faults.garble(TO_CAMERA, 20_000)
    rig.ok("commit", "camera")
    assert (held(camera) or {})["more.bin"] == b"x" * 30 * KIB


@pytest.mark.parametrize("known", [True, False], ids=["N6", "homemade"])
def test_firmware_that_cannot_write_its_romfs(rig: Rig, connect: Connect, known: bool) -> None:
    """Said at the mount; nothing is left to be finished, and nothing to be rolled back."""
    image = make_image("OPENMV_N6", size=KIB, notes_txt=b"old\n")
    said: dict[str, str] = {} if known else {"machine": "Homemade", "arch_string": "HOME 1"}
    camera = connect("OPENMV_N6", images={0: image}, writable=False, **said)
    done = rig.try_mount("camera")
    assert "cannot write its ROMFS" in done.err
    assert ("dfu:" in done.err) == known, "no advice that cannot help"
    cam = rig.folder / "cam"
    (cam / "notes.txt").write_bytes(b"new\n")
    done = rig.run("commit", cam)
    assert done.code == 5
    assert "cannot write its ROMFS" in done.error
    assert "nothing was changed" in done.error
    assert not only_session().interrupted
    rig.ok("recover", "camera", "--rollback")
    rig.ok("commit", cam, "--to", rig.folder / "saved.img")
    rig.ok("umount", cam)
    assert bytes(camera.flash[0].content).startswith(image)


def test_two_cameras_without_an_id_change_places(rig: Rig, connect: Connect) -> None:
    """Nothing tells them apart but what they hold: the second is not written for the first."""
    mine = connect("OPENMV4P", images={0: BEFORE}, unique_id=b"")
    link = rig.folder / "port"
    link.symlink_to(mine.port)
    cam = rig.mount(str(link))
    (cam / "notes.txt").write_text("edited")
    mine.unplug()
    held_by_other = make_image("OPENMV4P", notes_txt=b"another\n")
    other = connect("OPENMV4P", images={0: held_by_other}, unique_id=b"")
    link.unlink()
    link.symlink_to(other.port)
    for words in (("commit", cam), ("undo", cam), ("umount", "--commit", cam)):
        done = rig.run(*words)
        assert done.code in (1, 7), words
    assert other.statistics.programmed == other.statistics.erased_blocks == 0
    assert (cam / "notes.txt").read_text() == "edited"


@pytest.mark.parametrize("same", [True, False])
def test_an_id_that_cannot_be_read_is_not_another_camera(
    rig: Rig, connect: Connect, same: bool
) -> None:
    """Its contents decide: the same go on, others are exit 7."""
    before = connect("OPENMV4P", images={0: BEFORE})
    link = rig.folder / "port"
    link.symlink_to(before.port)
    cam = rig.mount(str(link))
    (cam / "notes.txt").write_text("edited")
    before.unplug()
    image = BEFORE if same else make_image("OPENMV4P", notes_txt=b"another\n")
    after = connect("OPENMV4P", images={0: image}, missing=("machine.unique_id",))
    link.unlink()
    link.symlink_to(after.port)
    done = rig.run("commit", cam)
    if same:
        assert done.code == 0, done.err
        assert (held(after) or {})["notes.txt"] == b"edited"
    else:
        assert done.code == 7
        assert after.statistics.erased_blocks == 0
