"""The command is interrupted or killed while it writes a camera: every way on from there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest
from camera_rig import KIB, LIMIT, Rig, held, make_image, only_session

from romfsfs.simulator import Simulator

Connect = Callable[..., Simulator]

BEFORE = make_image("OPENMV4P", notes_txt=b"old\n")
EDITED = b"new\n" * 8 * KIB
SLOW = 60_000.0  # bytes a second: the signal comes in the middle


def hit(
    camera: Simulator, number: signal.Signals, *words: object, reads: int = 0
) -> tuple[int, str]:
    """Run a command and send it a signal when it has programmed something, or got as many bytes
    as it `reads`: (exit code, stderr)."""
    done, sent = camera.statistics.programmed, camera.statistics.wire_out + reads
    running = subprocess.Popen(
        [sys.executable, "-m", "romfsfs", *map(str, words)],
        stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    camera.wait_until(
        lambda c: c.statistics.wire_out > sent if reads else c.statistics.programmed > done, LIMIT
    )
    running.send_signal(number)
    _, said = running.communicate(timeout=LIMIT)
    assert "Traceback" not in said
    return running.returncode, said


@pytest.mark.parametrize(
    ("number", "way"),
    [
        (signal.SIGINT, "recover"),
        (signal.SIGKILL, "recover"),
        (signal.SIGKILL, "rollback"),
        (signal.SIGTERM, "commit"),
    ],
)
def test_a_commit(rig: Rig, connect: Connect, number: signal.Signals, way: str) -> None:
    camera = connect("OPENMV4P", images={0: BEFORE}, rate=SLOW)
    session = rig.prepare("camera")
    (session.work / "notes.txt").write_bytes(EDITED)
    code, said = hit(camera, number, "commit", "camera")
    if number is signal.SIGKILL:
        assert code == -signal.SIGKILL
    else:
        assert code == 130
        assert "romfsfs recover camera" in said.splitlines()[-1]
    assert session.interrupted
    assert (session.work / "notes.txt").read_bytes() == EDITED
    assert held(camera) is None, "half an image is none"
    if way == "rollback":
        rig.ok("recover", "camera", "--rollback")
        assert bytes(camera.flash[0].content).startswith(BEFORE)
        rig.ok("commit", "camera")
    else:
        rig.ok(way, "camera")
    there = held(camera)
    assert there is not None
    assert there["notes.txt"] == EDITED
    assert not only_session().interrupted
    assert (session.work / "notes.txt").read_bytes() == EDITED


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize("words", ["push given.img camera", "reset camera --from given.img --yes"])
def test_a_whole_image(rig: Rig, connect: Connect, words: str, number: signal.Signals) -> None:
    """The same again finishes it; what the camera held is in the log."""
    camera = connect("OPENMV4P", images={0: BEFORE}, rate=SLOW)
    given = rig.folder / "given.img"
    given.write_bytes(make_image("OPENMV4P", size=60 * KIB, other_txt=b"other"))
    code, said = hit(camera, number, *words.split())
    assert code in (130, -signal.SIGKILL)
    assert code != 130 or "repeat the command" in said
    rig.ok(*words.split())
    assert bytes(camera.flash[0].content).startswith(given.read_bytes())
    rig.ok("undo", "camera")
    assert bytes(camera.flash[0].content).startswith(BEFORE)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_pull(rig: Rig, connect: Connect, number: signal.Signals) -> None:
    """The file is the one that was there, whole; the same again replaces it and leaves no other."""
    camera = connect("OPENMV4P", images={0: BEFORE}, rate=SLOW)
    (rig.folder / "images").mkdir()
    image = rig.folder / "images/camera.img"
    image.write_bytes(make_image("OPENMV4P", size=KIB))
    old = image.read_bytes()
    words = ("pull", "camera", image, "--force")
    code, said = hit(camera, number, *words, reads=len(BEFORE) // 2)
    assert code == (-signal.SIGKILL if number is signal.SIGKILL else 130), said
    assert image.read_bytes() == old
    rig.ok(*words)
    assert image.read_bytes() == BEFORE
    assert [path.name for path in image.parent.iterdir()] == ["camera.img"]


def test_a_push_that_nobody_looks_at(rig: Rig, connect: Connect) -> None:
    """`romfsfs push ... |& head`: the reader of what it prints is gone while it writes."""
    camera = connect("OPENMV4P", images={0: BEFORE}, rate=SLOW)
    given = rig.folder / "given.img"
    given.write_bytes(make_image("OPENMV4P", size=60 * KIB, other_txt=b"other"))
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "romfsfs", "push", given, "camera"],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=writing, text=True,
        timeout=LIMIT, check=False,
    )  # fmt: skip
    os.close(writing)
    assert done.returncode == 0
    assert "verified" in done.stdout
    assert bytes(camera.flash[0].content).startswith(given.read_bytes())
