"""A camera that is lost in the middle of a commit, and every way on from there."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable

import pytest
from camera_rig import KIB, Rig, held, make_image, only_session, tree

from romfsfs.devices.serial_camera import writing
from romfsfs.devices.serial_camera.camera import SerialCamera
from romfsfs.errors import DeviceLost
from romfsfs.session.keep import history
from romfsfs.session.session import Session
from romfsfs.simulator import Simulator

Connect = Callable[..., Simulator]

#: bytes programmed before the power goes: with the first word, in the middle, before the header
CUTS = [1, 4 * KIB, 9 * KIB]
BEFORE = make_image("OPENMV4P", notes_txt=b"old\n", z_txt=b"z")
EDITED = "new\n" * 4 * KIB


def interrupted(rig: Rig, camera: Simulator, cut: Callable[[Simulator], None]) -> Session:
    """A session whose commit failed as the camera lost its power; the camera is back again."""
    session = rig.prepare("camera")
    (session.work / "notes.txt").write_text(EDITED)
    (session.work / "app.py").write_text("print('hello')\n")
    edits = tree(session.work)
    cut(camera)
    done = rig.run("commit", "camera")
    assert done.code == 5, done.err
    assert "plug" in done.error
    assert "romfsfs recover camera" in done.error
    assert tree(session.work) == edits
    camera.replug()
    assert held(camera) is None or held(camera) == original(camera)
    return only_session()


def original(camera: Simulator) -> dict[str, bytes] | None:
    content = bytes(camera.flash[0].content)
    return held(camera) if content.startswith(BEFORE) else None


def is_new(camera: Simulator) -> bool:
    there = held(camera)
    assert there is not None
    return there["notes.txt"] == EDITED.encode() and "app.mpy" in there


@pytest.mark.parametrize("count", CUTS)
@pytest.mark.parametrize("way", ["recover", "recover without a name", "rollback", "commit"])
def test_a_power_cut_in_a_commit(rig: Rig, connect: Connect, count: int, way: str) -> None:
    camera = connect("OPENMV4P", images={0: BEFORE})
    session = interrupted(rig, camera, lambda c: c.faults.power_cut_after_programmed(count))
    assert session.interrupted
    assert "interrupted commit" in rig.ok("sessions")
    if way == "rollback":
        assert "rolled back" in rig.ok("recover", "camera", "--rollback")
        assert bytes(camera.flash[0].content).startswith(BEFORE)
    elif way == "commit":
        rig.ok("commit", "camera")
        assert is_new(camera)
    else:
        assert "finished" in rig.ok("recover", *(["camera"] if way == "recover" else []))
        assert is_new(camera)
    assert not session.interrupted
    assert (session.work / "notes.txt").read_text() == EDITED
    if way == "rollback":  # nothing is lost: the edits can be committed after all
        rig.ok("commit", "camera")
        assert is_new(camera)
    assert "nothing to commit" in rig.ok("commit", "camera")
    rig.ok("undo", "camera")
    there = held(camera)
    assert there is not None
    assert there["notes.txt"] == b"old\n"
    assert "app.mpy" not in there


@pytest.mark.parametrize("count", CUTS[:2])
def test_a_camera_that_was_blank_is_blank_again(rig: Rig, connect: Connect, count: int) -> None:
    camera = connect("OPENMV4P")
    session = interrupted(rig, camera, lambda c: c.faults.power_cut_after_programmed(count))
    edits = tree(session.work)
    assert "rolled back" in rig.ok("recover", "camera", "--rollback")
    assert held(camera) is None
    assert bytes(camera.flash[0].content[:16]) == b"\xff" * 16
    assert not session.interrupted
    assert tree(session.work) == edits
    rig.ok("commit", "camera")
    assert is_new(camera)


@pytest.mark.parametrize("count", [2000, 6000, 12000, 16000])
def test_a_cut_anywhere_on_the_wire(rig: Rig, connect: Connect, count: int) -> None:
    """Before the write nothing has begun; the same command again is enough, whenever it was."""
    camera = connect("OPENMV4P", images={0: BEFORE})
    session = rig.prepare("camera")
    (session.work / "notes.txt").write_text(EDITED)
    (session.work / "app.py").write_text("print('hello')\n")
    edits = tree(session.work)
    camera.faults.cut_after_wire_bytes(count)
    done = rig.run("commit", "camera")
    assert done.code == 5, done.err
    assert "; " in done.error
    assert tree(session.work) == edits
    camera.replug()
    rig.ok("commit", "camera")
    assert is_new(camera)
    assert camera.statistics.bad_programs == 0


def test_a_power_cut_in_an_undo_is_finished(rig: Rig, connect: Connect) -> None:
    camera = connect("OPENMV4P", images={0: BEFORE})
    session = rig.prepare("camera")
    (session.work / "notes.txt").write_text(EDITED)
    rig.ok("commit", "camera")
    camera.faults.power_cut_after_programmed(500)
    done = rig.run("undo", "camera")
    assert done.code == 5
    assert "romfsfs recover camera" in done.error
    camera.replug()
    rig.ok("recover", "camera")
    assert bytes(camera.flash[0].content).startswith(BEFORE)
    assert (session.work / "notes.txt").read_text() == "old\n"


def test_edits_that_cannot_be_dropped_while_the_camera_is_away(rig: Rig, connect: Connect) -> None:
    """What was interrupted has to be finished first: the mount goes, the edits stay."""
    camera = connect("OPENMV4P", images={0: BEFORE})
    cam = rig.mount("camera")
    (cam / "notes.txt").write_text(EDITED)
    camera.faults.power_cut_after_programmed(5000)
    assert rig.run("commit", cam).code == 5
    done = rig.run("umount", "--discard", cam)
    assert (done.code, done.out) == (5, "")
    assert done.err.splitlines()[0] == (
        "romfsfs: it is unmounted, and the edits are kept; to drop them later: romfsfs recover "
        "camera --rollback; romfsfs revert camera"
    )
    assert list(cam.iterdir()) == []
    camera.replug()
    rig.ok("recover", "camera", "--rollback")
    assert "1 change reverted" in rig.ok("revert", "camera", "--yes")
    assert bytes(camera.flash[0].content).startswith(BEFORE)


def test_a_cut_while_mounted(rig: Rig, connect: Connect) -> None:
    """The directory stays mounted and usable; unmounting with a commit again finishes."""
    camera = connect("OPENMV4P", images={0: BEFORE})
    cam = rig.mount("camera")
    (cam / "notes.txt").write_text(EDITED)
    camera.faults.power_cut_after_programmed(5000)
    done = rig.run("umount", "--commit", cam)
    assert done.code == 5
    assert (cam / "notes.txt").read_text() == EDITED
    (cam / "later.txt").write_text("more")
    camera.replug()
    rig.ok("umount", "--commit", cam)
    there = held(camera)
    assert there is not None
    assert there["notes.txt"] == EDITED.encode()
    assert there["later.txt"] == b"more"
    assert list(cam.iterdir()) == []


def test_a_cut_and_mounted_again(rig: Rig, connect: Connect) -> None:
    camera = connect("OPENMV4P", images={0: BEFORE})
    interrupted(rig, camera, lambda c: c.faults.power_cut_after_programmed(5000))
    cam = rig.mount("camera")
    assert is_new(camera)
    assert (cam / "app.py").read_text() == "print('hello')\n"
    assert rig.run("status", cam, "--exit-code").code == 0


def test_the_camera_is_gone_when_it_is_time_to_recover(rig: Rig, connect: Connect) -> None:
    camera = connect("OPENMV4P", images={0: BEFORE})
    session = interrupted(rig, camera, lambda c: c.faults.power_cut_after_programmed(5000))
    camera.unplug()
    for way in ((), ("--rollback",)):
        assert rig.run("recover", "camera", *way).code == 5
    assert session.interrupted
    camera.replug()
    rig.ok("recover", "camera")
    assert is_new(camera)


def test_a_power_cut_in_a_push(rig: Rig, connect: Connect) -> None:
    """Repeating it continues where it stopped; what the camera held is in the log."""
    camera = connect("OPENMV4P", images={0: BEFORE})
    given = rig.folder / "given.img"
    given.write_bytes(make_image("OPENMV4P", size=100 * KIB, other_txt=b"other"))
    camera.faults.power_cut_after_programmed(50 * KIB)
    done = rig.run("push", given, "camera")
    assert done.code == 5
    assert "repeat the command" in done.error
    camera.replug()
    assert held(camera) is None
    rig.ok("push", given, "camera")
    assert bytes(camera.flash[0].content).startswith(given.read_bytes())
    rig.ok("undo", "camera")
    assert bytes(camera.flash[0].content).startswith(BEFORE)


def test_a_push_instead_of_a_recovery(rig: Rig, connect: Connect) -> None:
    """An image that is pushed over an interrupted commit stays: nothing is finished later."""
    camera = connect("OPENMV4P", images={0: BEFORE})
    session = interrupted(rig, camera, lambda c: c.faults.power_cut_after_programmed(5000))
    given = rig.folder / "given.img"
    given.write_bytes(make_image("OPENMV4P", other_txt=b"other"))
    rig.ok("push", given, "camera")
    assert not session.interrupted
    rig.ok("recover")
    assert bytes(camera.flash[0].content).startswith(given.read_bytes())
    assert (session.work / "notes.txt").read_text() == EDITED
    rig.ok("commit", "camera")  # the edits, on top of what was pushed
    there = held(camera)
    assert there is not None
    assert there["other.txt"] == b"other"
    assert there["notes.txt"] == EDITED.encode()


@pytest.mark.parametrize(
    ("words", "code"),
    [("recover", 0), ("recover --rollback", 0), ("commit", 7), ("mount", 7)],
)
def test_somebody_else_wrote_the_camera_meanwhile(
    rig: Rig, connect: Connect, words: str, code: int
) -> None:
    """The cut commit is given up, whatever the next command is: it would cost their image."""
    camera = connect("OPENMV4P", images={0: BEFORE})
    session = interrupted(rig, camera, lambda c: c.faults.power_cut_after_programmed(5000))
    theirs = make_image("OPENMV4P", size=60 * KIB, theirs_txt=b"a week's work")
    camera.flash[0].load(theirs)
    command, *options = words.split()
    done = rig.try_mount("camera") if words == "mount" else rig.run(command, "camera", *options)
    assert done.code == code, done.err
    assert code or "given up" in done.out
    assert bytes(camera.flash[0].content).startswith(theirs)
    assert not session.interrupted
    assert (session.work / "notes.txt").read_text() == EDITED
    rig.ok("commit", "camera", "--force")
    assert is_new(camera)
    rig.ok("undo", "camera")
    assert bytes(camera.flash[0].content).startswith(theirs)


def test_silent_in_the_middle_of_a_commit(
    rig: Rig, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    camera = connect("OPENMV4P", images={0: BEFORE}, rate=50_000.0)  # a second for all of it
    session = rig.prepare("camera")
    (session.work / "notes.txt").write_text(EDITED)
    patience = writing.SILENCE

    def hang() -> None:
        camera.wait_until(lambda c: c.statistics.programmed > 0)
        monkeypatch.setattr(writing, "SILENCE", 0.5)
        camera.silence()

    waiting = threading.Thread(target=hang)
    waiting.start()
    started = time.monotonic()
    done = rig.run("commit", "camera")
    waiting.join()
    assert done.code == 5
    assert "romfsfs recover camera" in done.error
    assert time.monotonic() - started < 30
    monkeypatch.setattr(writing, "SILENCE", patience)
    camera.replug()
    rig.ok("recover", "camera")
    there = held(camera)
    assert there is not None
    assert there["notes.txt"] == EDITED.encode()


def test_a_camera_that_goes_silent(
    rig: Rig, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every command ends within its time limit, which is shortened here."""
    camera = connect("OPENMV4P", images={0: BEFORE})
    session = rig.prepare("camera")
    (session.work / "notes.txt").write_text(EDITED)
    camera.silence()
    with monkeypatch.context() as impatient:
        impatient.setattr("romfsfs.devices.serial_camera.repl.ENTER_LIMIT", 1.0)
        for command in (("commit", "camera"), ("ls", "camera"), ("recover", "camera")):
            started = time.monotonic()
            done = rig.run(*command)
            assert done.code == 5
            assert "not answer" in done.error
            assert time.monotonic() - started < 30
    camera.replug()
    rig.ok("commit", "camera")


@pytest.mark.parametrize("paths", [[], ["later.txt"]])
def test_a_revert_ends_the_commit_first(rig: Rig, connect: Connect, paths: list[str]) -> None:
    """Else the edits would go, and the next command would bring half of them back. What is dropped
    as a whole does not get to the camera."""
    camera = connect("OPENMV4P", images={0: BEFORE})
    session = interrupted(rig, camera, lambda c: c.faults.power_cut_after_programmed(5000))
    (session.work / "later.txt").write_text("not committed")
    camera.unplug()
    done = rig.run("revert", "camera", *paths, "--yes")
    assert done.code == 5
    assert (session.work / "later.txt").exists()
    camera.replug()
    said = rig.ok("revert", "camera", *paths, "--yes")
    assert "later.txt" in said
    assert ("finished" if paths else "rolled back") in said
    assert not session.interrupted
    assert is_new(camera) if paths else bytes(camera.flash[0].content).startswith(BEFORE)


HOLDS = """
import sys
from pathlib import Path
from romfsfs.session.keep.folder import SessionFolder
with SessionFolder(Path(sys.argv[1])).lock_for_change("camera", "commit"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("words", ["push given.img", "commit", "pull copy.img", "mount mnt"])
def test_a_port_that_a_commit_uses_is_left_alone(rig: Rig, connect: Connect, words: str) -> None:
    """Root may open it all the same, and what is sent there would spoil the commit."""
    camera = connect("OPENMV4P", images={0: BEFORE})
    session = rig.prepare("camera")
    (rig.folder / "given.img").write_bytes(make_image("OPENMV4P", other_txt=b"other"))
    (rig.folder / "mnt").mkdir()
    command, *rest = words.split()
    places = [*rest, "camera"] if command == "push" else ["camera", *rest]
    asked = camera.statistics.execs
    with subprocess.Popen(
        [sys.executable, "-c", HOLDS, session.folder.path], text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as holder:  # fmt: skip
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        done = rig.run(command, *places)
        holder.communicate()
    assert done.code == 1
    assert "is running" in done.error
    assert camera.statistics.execs == asked


def test_a_camera_is_listed_where_there_is_no_place_for_state(
    rig: Rig, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect("OPENMV4P", images={0: BEFORE})
    monkeypatch.setenv("ROMFSFS_STATE_DIR", "/proc/none")
    assert "notes.txt" in rig.ok("ls", "camera")


@pytest.mark.parametrize("words", ["recover", "push theirs.img", "push third.img"])
def test_what_a_push_had_overwritten_is_in_the_log(rig: Rig, connect: Connect, words: str) -> None:
    """Somebody else wrote the camera after the push was cut, and nothing finishes it any more."""
    camera = connect("OPENMV4P", images={0: BEFORE})
    theirs = make_image("OPENMV4P", size=60 * KIB, theirs_txt=b"theirs")
    for name, image in (
        ("given.img", make_image("OPENMV4P", size=100 * KIB)), ("theirs.img", theirs),
        ("third.img", make_image("OPENMV4P", size=80 * KIB)),
    ):  # fmt: skip
        (rig.folder / name).write_bytes(image)
    camera.faults.power_cut_after_programmed(50 * KIB)
    assert rig.run("push", "given.img", "camera").code == 5
    camera.replug()
    camera.flash[0].load(theirs)
    rig.ok(*words.split(), "camera")
    first = history.entries(only_session().folder)[0]
    assert only_session().folder.image(first.digest).read_bytes() == BEFORE
    rig.prepare("camera")
    rig.ok("undo", "camera", "--to", "0")
    assert bytes(camera.flash[0].content).startswith(BEFORE)


def test_a_forced_commit_given_up_leaves_the_log_as_the_session_stands(
    rig: Rig, connect: Connect
) -> None:
    camera = connect("OPENMV4P", images={0: BEFORE})
    session = rig.prepare("camera")
    (session.work / "notes.txt").write_text(EDITED)
    unseen = make_image("OPENMV4P", size=50 * KIB, unseen_txt=b"unseen")
    camera.flash[0].load(unseen)
    camera.faults.power_cut_after_programmed(9 * KIB)
    assert rig.run("commit", "camera", "--force").code == 5
    camera.replug()
    camera.flash[0].load(make_image("OPENMV4P", size=60 * KIB, theirs_txt=b"theirs"))
    assert "given up" in rig.ok("recover", "camera")
    images = [session.folder.image(e.digest).read_bytes()
              for e in history.entries(session.folder)]  # fmt: skip
    assert images == [BEFORE, unseen, BEFORE]


def test_a_commit_says_that_it_finished_another(rig: Rig, connect: Connect) -> None:
    camera = connect("OPENMV4P", images={0: BEFORE})
    session = interrupted(rig, camera, lambda c: c.faults.power_cut_after_programmed(5000))
    said = rig.ok("commit", "camera")
    assert "an earlier interrupted transaction was finished" in said
    assert "nothing to commit, nothing else written" in said
    assert is_new(camera)
    (session.work / "notes.txt").write_text("third")
    assert "interrupted" not in rig.ok("commit", "camera")


def test_an_undo_says_what_it_went_back_to(rig: Rig, connect: Connect) -> None:
    """The commit that it finishes first is in the log by then, and is what it undoes."""
    camera = connect("OPENMV4P", images={0: BEFORE})
    interrupted(rig, camera, lambda c: c.faults.power_cut_after_programmed(5000))
    done = rig.run("undo", "camera", "--dry-run")
    assert (done.code, "a commit was interrupted" in done.error) == (1, True)
    said = rig.ok("undo", "camera")
    assert "back to image 0" in said
    assert "  D app.mpy" in said
    assert "an earlier interrupted transaction was finished" in said
    assert bytes(camera.flash[0].content).startswith(BEFORE)
    assert len(history.entries(only_session().folder)) == 3


@pytest.mark.parametrize("words", ["recover camera", "revert camera app.py"])
def test_a_restart_that_nothing_confirms_is_told(
    rig: Rig, connect: Connect, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    """Of a camera whose write is finished and verified: the command did what it was to do."""
    camera = connect("OPENMV4P", images={0: BEFORE})
    interrupted(rig, camera, lambda c: c.faults.power_cut_after_programmed(5000))

    def restart(self: SerialCamera) -> None:
        raise DeviceLost("the camera does not confirm the reset")

    monkeypatch.setattr(SerialCamera, "restart", restart)
    assert "finished; the camera's restart was not confirmed: the cam" in rig.ok(*words.split())
    assert is_new(camera)
