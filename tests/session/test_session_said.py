"""What is said when an operation cannot go on, whole: which words come depends on what happened."""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from session_desk import Camera, Desk, files_of
from test_session_faults import push_image

from romfsfs.errors import (
    CapacityError,
    DeviceAnswer,
    DeviceError,
    Interrupted,
    RomfsError,
    VerifyError,
    too_large,
)
from romfsfs.image.writer import encode
from romfsfs.session.keep import history, steps
from romfsfs.session.rebase import prepare
from romfsfs.session.rebase.commit import commit
from romfsfs.session.rebase.prepare import wait_for_writers
from romfsfs.session.rebase.recovery import recover
from romfsfs.session.rebase.transaction import Mounted
from romfsfs.session.rebase.undo import undo
from romfsfs.session.revert import revert
from romfsfs.session.session import Session


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["b"], "1 file is open for writing: b"),
        (["b", "a"], "2 files are open for writing: a, b"),
        (list("edcba"), "5 files are open for writing: a, b, c, d, e"),
        (list("fedcba"), "6 files are open for writing: a, b, c, d, e ..."),
    ],
)
def test_files_that_stay_open(
    desk: Desk, names: list[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare, "WRITERS_SECONDS", 0.0)
    desk.open()
    with pytest.raises(RomfsError) as refused:
        wait_for_writers(desk.session, lambda: [*names, "a~"])
    them = "it" if len(names) == 1 else "them"
    assert refused.value.line == f"{said}; save and close {them}, then try again"


def test_a_file_that_came_with_the_image_is_waited_for_whatever_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was stored half: backups and excluded files are never stored, but these are."""
    monkeypatch.setattr(prepare, "WRITERS_SECONDS", 0.0)
    desk = Desk.with_image(tmp_path, {"a~": b"whole", "a.psd": b"whole"})
    desk.open(excludes=("*.psd",))
    desk.write("a~", b"half")
    with pytest.raises(RomfsError) as refused:
        commit(desk.session, desk.device, mounted=Mounted(None, lambda: ["b~", "a~", "a.psd"]))
    said = "2 files are open for writing: a.psd, a~; save and close them, then try again"
    assert refused.value.line == said
    assert desk.stored() == {"a~": b"whole", "a.psd": b"whole"}


def test_how_long_a_close_is_waited_for(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two seconds, in small steps; nothing where nobody writes."""
    now = [100.0]
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        now[0] += seconds

    desk.open()
    clock = SimpleNamespace(monotonic=lambda: now[0], sleep=sleep)
    monkeypatch.setattr(prepare, "time", clock)
    assert wait_for_writers(desk.session, lambda: ["a~"]) is False
    assert pauses == []
    told = iter([["a"], ["a"], []])
    assert wait_for_writers(desk.session, lambda: next(told)) is True
    assert pauses == [0.02, 0.02]
    with pytest.raises(RomfsError, match="1 file is open"):
        wait_for_writers(desk.session, lambda: ["a"])
    assert 2.0 <= now[0] - 100.04 < 2.05


def test_what_changed_is_in_the_log(desk: Desk) -> None:
    """Up to eight paths, each with what became of it."""
    desk.open()
    desk.write("a.txt", b"second\n")
    (desk.work / "lib/b.bin").unlink()
    for number in range(6):
        desk.write(f"{number}", b"x")
    desk.write("junk~", b"x")
    desk.commit()
    for number in range(9):
        desk.write(f"{number}", b"y")
    desk.commit()
    undo(desk.session, desk.device)
    with tempfile.TemporaryDirectory() as folder:  # as somebody else's image
        other = Desk.with_image(Path(folder), {"other.txt": b"1"})
        desk.image.write_bytes(other.image.read_bytes())
    desk.open()
    log = history.entries(desk.session.folder)
    assert [(e.number, e.kind, e.summary, e.restores, e.missing) for e in log] == [
        (0, "read", "as found on the target", -1, False),
        (1, "commit", "A 0, A 1, A 2, A 3, A 4, A 5, M a.txt, D lib/b.bin", -1, False),
        (2, "commit", "M 0, M 1, M 2, M 3, M 4, M 5, A 6, A 7 and 1 more", -1, False),
        (3, "undo", "back to 1", 1, False),
        (4, "read", "as found on the target", -1, False),
    ]


def camera(folder: Path) -> tuple[Desk, Camera]:
    flash = Camera(folder / "flash")
    desk = Desk(flash, "camera")
    desk.open()
    return desk, flash


FINISHES = "your edits are kept: romfsfs recover camera finishes it"
REPEAT = "repeat the command, or romfsfs recover camera finishes it"
#: How a write ends, and what is said of it.
ERRORS: dict[str, tuple[Callable[[], BaseException], str]] = {
    "verify": (lambda: VerifyError("it differs", where="there"), "it differs (there); "),
    "device": (lambda: DeviceError("it left", next_step="plug it in"), "it left; plug it in; "),
    "answer": (lambda: DeviceAnswer("it refused", where="there"), "it refused (there); "),
    "ours": (
        lambda: RomfsError("it is locked", next_step="unlock it"),
        "it is locked; unlock it; ",
    ),
    "disk": (
        lambda: OSError(errno.EIO, "Input/output error", "there"),
        "input/output error (there); the disk may be failing: the system's log (dmesg) says more; ",
    ),
    "ctrl-c": (
        KeyboardInterrupt,
        "interrupted while writing to the camera: the write may be incomplete (test camera); ",
    ),
}


@pytest.mark.parametrize("before", ["blank", "an image"])
@pytest.mark.parametrize("operation", ["commit", "push", "reset"])
@pytest.mark.parametrize("how", ERRORS)
def test_a_camera_that_was_written_in_part(
    tmp_path: Path, before: str, operation: str, how: str
) -> None:
    desk, flash = camera(tmp_path)
    ways = FINISHES if operation == "commit" else REPEAT
    if before == "an image":
        desk.write("a.txt", b"first")
        desk.commit()
        image = desk.session.base_image
        ways += f", with --rollback it restores the previous image, {image}"
    desk.write("a.txt", b"second")
    error, said = ERRORS[how]
    flash.error = error()
    pushed = encode({"b.txt": b"pushed"})
    with pytest.raises(RomfsError) as refused:
        desk.commit() if operation == "commit" else push_image(flash, pushed, operation)
    assert refused.value.line == said + ways
    assert isinstance(refused.value, Interrupted) is (how == "ctrl-c")
    flash.error = None
    session = Session.load(desk.session.folder)
    assert session.interrupted
    assert recover(session, flash) == "finished"
    wanted = {"a.txt": b"second"} if operation == "commit" else {"b.txt": b"pushed"}
    assert files_of(flash.path.read_bytes()) == wanted


@pytest.mark.parametrize("how", ["answer", "ours", "disk", "ctrl-c"])
def test_a_camera_that_was_not_written_leaves_nothing_to_finish(tmp_path: Path, how: str) -> None:
    """An image of ours that could not be read left a write to be finished, which had not begun."""
    desk, flash = camera(tmp_path)
    desk.write("a.txt", b"first")
    desk.commit()
    desk.write("a.txt", b"second")
    flash.error, flash.untouched = ERRORS[how][0](), True
    with pytest.raises(type(flash.error)) as refused:
        desk.commit()
    if how == "answer":
        assert str(refused.value) == "it refused (there)"
    assert not desk.session.interrupted


def test_a_commit_that_is_too_large_for_the_camera_s_new_firmware(tmp_path: Path) -> None:
    """Its partition is smaller than it was; nothing is erased, and removing files does help."""
    desk, flash = camera(tmp_path)
    desk.write("a.txt", b"first")
    desk.commit()
    desk.write("b.txt", b"large")
    refusal = too_large(20000, 4096, "test camera", "remove files")
    flash.error, flash.untouched = refusal, True
    with pytest.raises(CapacityError) as refused:
        desk.commit()
    assert refused.value is refusal
    assert refused.value.next_step == "remove files"
    assert not desk.session.interrupted
    flash.error = None
    (desk.work / "b.txt").unlink()
    desk.write("c.txt", b"c")
    desk.commit()
    assert files_of(flash.path.read_bytes()) == {"a.txt": b"first", "c.txt": b"c"}


def test_each_operation_passes_its_steps(
    tmp_path: Path, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of them, in order: what is hurt there is hurt at each."""
    passed: list[str] = []
    monkeypatch.setattr(steps, "on_step", passed.append)

    def steps_of(work: Callable[[], object]) -> tuple[str, ...]:
        passed.clear()
        work()
        return tuple(passed)

    known, before, follows = steps.KINDS, ("before-kept",), steps.REVERT

    def without(kind: str, *rare: str) -> tuple[str, ...]:
        return tuple(step for step in known[kind] if step not in rare)

    assert steps_of(desk.open) == known["open"]
    desk.write("a.txt", b"second\n")
    assert steps_of(desk.open) == known["resume"]
    assert steps_of(desk.commit) == without("commit", *before, *follows)
    assert steps_of(lambda: undo(desk.session, desk.device)) == without("undo", *before)
    desk.write("a.txt", b"edited")
    assert steps_of(lambda: revert(desk.session, ["a.txt"])) == known["revert"]
    desk.write("a.txt", b"edited")
    assert steps_of(lambda: revert(desk.session)) == known["discard"]
    desk.open()
    desk.image.write_bytes(encode({"other.txt": b"1"}))
    assert steps_of(desk.open) == known["adopt"]
    flash = Camera(tmp_path / "flash")
    for number, kind in enumerate(("push", "reset")):
        flash.put(encode({"somebody.txt": b"%d" % number}))
        image = encode({"a.txt": b"%d" % number})
        done = steps_of(lambda image=image, kind=kind: push_image(flash, image, kind))
        assert done == without(kind, *follows)
