"""Two processes on one target at once: one is held at a step of its work, the other comes then.

The one that comes second is refused in a line that names the first, or does no harm; when both
are done the target, the log and the tree are as after the first alone, and all goes on.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import pytest
from desks import OLD, Desk, files_of, quiet_fork, tree_of
from processes import ended, until
from real_mount import RealMount

import romfsfs
from romfsfs.cli import main
from romfsfs.session.keep import steps

STORED = {"a.txt", "added/c.txt", "app.mpy"}


def is_busy(said: str) -> bool:
    return bool(re.search("a commit of .* is running|is being changed by another process", said))


class Held:
    """A process that does something and waits at a step until it is told to go on."""

    def __init__(self, step: str, work: Callable[[], object]) -> None:
        self.there, telling = os.pipe()
        waiting, self.go = os.pipe()
        self.pid = quiet_fork()
        if self.pid == 0:
            os.close(self.there)
            os.close(self.go)

            def on_step(name: str) -> None:
                if name == step:
                    with contextlib.suppress(BrokenPipeError):  # there again: it goes on
                        os.write(telling, b"x")
                        os.read(waiting, 1)

            code = 99
            try:
                steps.on_step = on_step
                code = int(work() or 0)  # type: ignore[call-overload]
            finally:
                os._exit(code)
        os.close(telling)
        os.close(waiting)
        assert os.read(self.there, 1) == b"x", "it did not come to the step"

    def finish(self) -> int:
        """Let it go on; its exit code."""
        os.close(self.go)
        os.close(self.there)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    monkeypatch.setenv("ROMFSFS_STATE_DIR", "")
    monkeypatch.setenv("ROMFSFS_CACHE_DIR", "")
    desk = Desk("commit")
    yield desk
    if os.path.ismount(desk.base / "mnt"):
        subprocess.run(["fusermount3", "-uz", desk.base / "mnt"], check=True)
    desk.remove()


def fork(desk: Desk, *words: object) -> tuple[int, str]:
    """A command, in a process of its own: (exit code, what it said)."""
    answer = desk.fork(lambda: main([str(word) for word in words]))[1]
    assert "error" not in answer, answer
    assert "Traceback" not in answer["said"]
    return int(answer["result"]), str(answer["said"])


@pytest.mark.mount
@pytest.mark.parametrize("step", ["after-placed", "target-written"])
def test_while_a_commit_is_under_way(desk: Desk, step: str) -> None:
    desk.fork(desk.prepare)
    held = Held(step, lambda: main(["commit", str(desk.image)]))
    present = desk.image.read_bytes()
    for words in (
        ["commit", desk.image], ["undo", desk.image], ["recover", desk.image],
        ["recover", desk.image, "--rollback"], ["revert", desk.image, "a.txt"],
        ["revert", desk.image, "--yes"], ["log", desk.image, "--keep", "1"],
        ["new", desk.image, "--force", "--board", "OPENMV4P"],
        ["commit", desk.image, "--to", desk.other, "--force"],
        ["mount", desk.image, desk.base / "m"],
    ):  # fmt: skip
        (desk.base / "m").mkdir(exist_ok=True)
        code, said = fork(desk, *words)
        if words[0] == "undo" and "no earlier image" in said:
            continue
        assert code == 1, f"{words}: {said}"
        assert is_busy(said), f"{words}: {said}"
        assert f"process {held.pid}" in said
        assert "; " in said
    assert fork(desk, "status", desk.image)[0] == 0
    assert fork(desk, "sessions")[0] == 0
    assert desk.image.read_bytes() == present
    assert files_of(desk.other.read_bytes()) == {}
    assert held.finish() == 0
    assert set(files_of(desk.image.read_bytes())) == STORED
    assert fork(desk, "recover", desk.image)[1].endswith("nothing to recover\n")
    assert "nothing to commit" in fork(desk, "commit", desk.image)[1]


def test_while_an_undo_and_a_recovery_are_under_way(desk: Desk) -> None:
    desk.operation = "undo"
    desk.fork(desk.prepare)
    undo = Held("recorded", lambda: main(["undo", str(desk.image)]))
    assert is_busy(fork(desk, "commit", desk.image)[1])
    os.kill(undo.pid, 9)
    undo.finish()
    recovery = Held("done", lambda: main(["undo", str(desk.image)]))
    for command in ("commit", "recover"):
        assert is_busy(fork(desk, command, desk.image)[1])
    assert recovery.finish() == 0
    assert files_of(desk.image.read_bytes()) == OLD


@pytest.mark.mount
def test_while_an_interrupted_commit_is_recovered(desk: Desk) -> None:
    desk.operation = "recover"
    desk.fork(desk.prepare)
    recovery = Held("switched", lambda: main(["recover", str(desk.image)]))
    (desk.base / "m").mkdir()
    for words in (["mount", desk.image, desk.base / "m"], ["recover"], ["commit", desk.image]):
        code, said = fork(desk, *words)
        assert code == 1, said
        assert is_busy(said)
    assert recovery.finish() == 0
    assert set(files_of(desk.image.read_bytes())) == STORED


@pytest.mark.mount
def test_while_the_target_is_read(desk: Desk) -> None:
    """Two first mounts at once: one of them reads it, the other says who does."""

    def opened() -> None:
        with romfsfs.open(str(desk.image)):
            pass

    held = Held("after-placed", opened)
    (desk.base / "m").mkdir()
    code, said = fork(desk, "mount", desk.image, desk.base / "m")
    assert code == 1
    assert f"process {held.pid}" in said
    assert held.finish() == 0
    with romfsfs.open(str(desk.image)) as editor:
        assert tree_of(editor.path) == OLD


def test_two_commits_of_two_mounts_of_one_target(desk: Desk) -> None:
    """They start together, again and again: each ends well or is told of the other."""
    desk.fork(desk.prepare)
    ends = []
    for number in range(2):
        barrier = threading.Barrier(2)

        def one(barrier: threading.Barrier = barrier) -> None:
            barrier.wait()
            done = subprocess.run(
                [sys.executable, "-m", "romfsfs", "commit", desk.image],
                capture_output=True, text=True, check=False, timeout=60,
            )  # fmt: skip
            ends.append((done.returncode, done.stderr))

        threads = [threading.Thread(target=one) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert all(code == 0 or (code == 1 and is_busy(said)) for code, said in ends), ends
        assert any(code == 0 for code, _ in ends[-2:]), ends
        with romfsfs.open(str(desk.image)) as editor:
            (editor.path / "a.txt").write_text(str(number))


@pytest.fixture
def place(make_mount: Callable[..., RealMount]) -> RealMount:
    return make_mount()


@pytest.mark.parametrize(
    ("way", "step"),
    [
        ("umount", "target-written"),
        ("fusermount", "target-written"),
        ("killed", "target-written"),
        ("killed", "revert-removed"),  # it writes through the mount
        ("killed", "revert-staged"),
        ("lazily", "revert-staged"),
    ],
)
def test_the_mount_goes_while_an_undo_is_under_way(
    place: RealMount, monkeypatch: pytest.MonkeyPatch, way: str, step: str
) -> None:
    """The tree follows all the same, and nothing is written into the empty mountpoint."""
    for name in ("ROMFSFS_STATE_DIR", "ROMFSFS_CACHE_DIR"):
        monkeypatch.setenv(name, place.env[name])
    place.mount()
    (place.mnt / "a.txt").write_bytes(b"first\n")
    place.run("commit", place.mnt)
    (place.mnt / "a.txt").write_bytes(b"second\n")
    (place.mnt / "b.txt").write_bytes(b"b")
    place.run("commit", place.mnt)
    pid = place.pid
    undo = Held(step, lambda: main(["undo", str(place.mnt)]))
    if way == "umount":
        said = place.run("umount", place.mnt, code=1)
        assert is_busy(said)
        assert f"process {undo.pid}" in said
        assert place.is_mounted
    elif way == "fusermount":
        subprocess.run(["fusermount3", "-u", place.mnt], check=True)
    elif way == "lazily":
        subprocess.run(["fusermount3", "-uz", place.mnt], check=True)
    else:
        place.kill()
    assert undo.finish() == 0
    if way != "umount":
        subprocess.run(["fusermount3", "-uq", place.mnt], check=False)
        assert list(place.mnt.iterdir()) == []
        until(lambda: ended(pid))  # which has the session
        place.mount()
    assert tree_of(place.mnt) == {"a.txt": b"first\n"}
    assert "nothing to commit" in place.run("status", place.mnt)
    place.umount()
