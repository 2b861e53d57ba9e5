"""What keeps two parties apart, and what recovery looks at before it believes its files.

Each lock is shown by who must not get past it: with the lock left out these tests fail.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from session_desk import Desk, Flash, PowerLost, files_of
from stopping import ends_at
from test_session_faults import flash_desk, push_image

from romfsfs.errors import RomfsError, SessionBusy
from romfsfs.image.writer import encode
from romfsfs.session.find import Found
from romfsfs.session.keep import base_image, history
from romfsfs.session.keep.locks import Lock, holder_of
from romfsfs.session.rebase.commit import commit, commit_to
from romfsfs.session.rebase.recovery import recover
from romfsfs.session.rebase.target import file as file_target
from romfsfs.session.rebase.undo import undo
from romfsfs.session.revert import revert
from romfsfs.session.session import Session
from romfsfs.system.copying import fill_byte

Work = Callable[[Desk], object]

OPERATIONS: dict[str, Work] = {
    "commit": lambda desk: desk.commit(),
    "commit --to": lambda desk: commit_to(desk.session, Flash(desk.image.parent / "to", 65536)),
    "undo": lambda desk: undo(desk.session, desk.device),
    "recover": lambda desk: recover(desk.session, desk.device),
    "revert": lambda desk: revert(desk.session, ["a.txt"]),
    "revert, mounted": lambda desk: revert(desk.session, ["a.txt"], desk.work),
    "discard": lambda desk: revert(desk.session),
    "open": lambda desk: desk.open(),
}


@pytest.fixture
def edited(desk: Desk) -> Desk:
    """Two images in the log, and an edit."""
    desk.open()
    desk.write("a.txt", b"second\n")
    desk.commit()
    desk.write("a.txt", b"third\n")
    return desk


@pytest.mark.parametrize("operation", OPERATIONS)
def test_nothing_changes_a_session_that_another_process_changes(
    edited: Desk, operation: str
) -> None:
    before = edited.image.read_bytes()
    with (
        edited.session.folder.lock_for_change("app.img", "commit"),
        pytest.raises(SessionBusy, match=rf"app\.img is running \(process {os.getpid()}"),
    ):
        OPERATIONS[operation](edited)
    assert edited.image.read_bytes() == before
    assert (edited.work / "a.txt").read_bytes() == b"third\n"
    OPERATIONS["recover"](edited)  # the lock is given back


def test_nothing_is_pushed_to_a_camera_whose_session_is_changed(tmp_path: Path) -> None:
    desk, flash = flash_desk(tmp_path)
    before = flash.path.read_bytes()
    with desk.session.folder.lock_for_change("camera"), pytest.raises(SessionBusy):
        push_image(flash, encode({"other.txt": b"pushed"}))
    assert flash.path.read_bytes() == before
    with desk.session.folder.lock_for_mount("camera"), pytest.raises(SessionBusy):
        push_image(flash, encode({"other.txt": b"pushed"}))
    assert flash.path.read_bytes() == before
    push_image(flash, encode({"other.txt": b"pushed"}))
    assert files_of(flash.path.read_bytes()) == {"other.txt": b"pushed"}


@pytest.mark.parametrize("operation", ["commit", "undo", "recover", "first read"])
def test_nothing_touches_a_file_that_another_user_s_session_writes(
    edited: Desk, operation: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Two state folders know nothing of each other: the file's folder is locked."""
    monkeypatch.setattr(file_target, "_FOLDER_PATIENCE", 0.0)
    if operation == "undo":
        revert(edited.session, ["a.txt"])
    if operation == "recover":
        with ends_at("recorded", InterruptedError):
            edited.commit()
    if operation == "first read":
        monkeypatch.setenv("ROMFSFS_STATE_DIR", str(tmp_path / "another"))
    before = edited.image.read_bytes()
    fd = os.open(edited.image.parent, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    try:
        with pytest.raises(SessionBusy, match="another program keeps the folder locked"):
            OPERATIONS[operation.replace("first read", "open")](edited)
    finally:
        os.close(fd)
    assert edited.image.read_bytes() == before


def test_a_lock_is_one_party_s(tmp_path: Path) -> None:
    first, second = Lock(tmp_path / "lock"), Lock(tmp_path / "lock")
    assert first.acquire("commit")
    assert not second.acquire()
    holder = holder_of(tmp_path / "lock")
    assert holder is not None
    assert (holder.pid, holder.doing) == (os.getpid(), "commit")
    assert not second.acquire(), "who looks at it does not get it"
    first.release()
    assert holder_of(tmp_path / "lock") is None
    assert second.acquire()
    second.release()


def test_the_base_is_parsed_once_for_all_who_ask(
    edited: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`df`, a status and a commit ask at the same time, and an image may be 24 MiB."""
    held = Session.load(edited.session.folder).held()
    calls = []
    started, both = threading.Event(), threading.Event()

    def slowly(real: Any) -> Any:
        def parse(*args: Any) -> Any:
            calls.append(args)
            started.set()
            both.wait(0.5)  # for who should not come
            return real(*args)

        return parse

    monkeypatch.setattr(base_image, "parse_fd", slowly(base_image.parse_fd))
    monkeypatch.setattr(base_image, "fill_byte", slowly(fill_byte))
    for ask in (lambda: held.extents, lambda: held.trailing_fill):
        calls.clear()
        started.clear()
        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(ask)
            assert started.wait(30)
            assert ask() is first.result(30)
        assert len(calls) == 1


# -- recovery


def interrupted_camera(folder: Path) -> tuple[Session, Flash]:
    """A camera that lost power while a commit was written."""
    desk, flash = flash_desk(folder)
    desk.write("a.txt", b"edited\n" * 500)
    flash.power = 100
    with pytest.raises(PowerLost):
        desk.commit()
    flash.power = 1 << 40
    return Session.load(desk.session.folder), flash


@pytest.mark.parametrize("damage", ["garbled", "cut short", "gone"])
def test_a_camera_is_not_written_with_what_the_disk_garbled(tmp_path: Path, damage: str) -> None:
    session, flash = interrupted_camera(tmp_path)
    before = flash.path.read_bytes()
    [new] = {*session.folder.history.glob("*.img")} - {
        session.folder.image(entry.digest) for entry in history.entries(session.folder)
    }
    whole = new.read_bytes()
    new.unlink()
    if damage != "gone":
        new.write_bytes(whole.replace(b"edited", b"\0" * 6) if damage == "garbled" else whole[:200])
    with pytest.raises(RomfsError, match="the image of the interrupted commit is damaged"):
        recover(session, flash)
    assert flash.path.read_bytes() == before
    assert session.interrupted
    assert recover(session, flash, rollback=True) == "rolled back"
    assert files_of(flash.path.read_bytes()) == {"a.txt": b"mine"}


def test_an_image_of_the_log_that_the_disk_garbled_is_not_written_back(edited: Desk) -> None:
    revert(edited.session, ["a.txt"])
    before = edited.image.read_bytes()
    first = history.entries(edited.session.folder)[0]
    image = edited.session.folder.image(first.digest)
    whole = image.read_bytes()
    image.unlink()
    image.write_bytes(whole.replace(b"first", b"fjrst"))
    for dry_run in (True, False):
        with pytest.raises(RomfsError, match="the image in the log is damaged"):
            undo(edited.session, edited.device, dry_run=dry_run)
    assert edited.image.read_bytes() == before
    assert not edited.session.interrupted


def test_a_base_that_the_disk_garbled_is_not_committed(edited: Desk) -> None:
    """Unchanged files are stored from it byte for byte."""
    before = edited.image.read_bytes()
    image = edited.session.base_image
    whole = image.read_bytes()
    image.unlink()
    image.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(RomfsError, match="the session's copy of the image is damaged"):
        edited.again().commit()
    assert edited.image.read_bytes() == before


def test_a_session_folder_that_was_copied_is_used(edited: Desk) -> None:
    """Other inodes and times, the same bytes."""
    image = edited.session.base_image
    whole = image.read_bytes()
    image.unlink()
    image.write_bytes(whole)
    edited.again().commit()
    assert edited.stored()["a.txt"] == b"third\n"


@pytest.mark.parametrize("operation", ["commit", "recover", "open"])
def test_temporary_files_of_killed_processes_go_and_no_others(edited: Desk, operation: str) -> None:
    """Of the image and of the session's own files; what is being written now is locked."""
    folder, image = edited.session.folder, edited.image
    if operation == "recover":
        with ends_at("recorded", InterruptedError):
            edited.commit()
    old = [image.with_name(f"app.img.romfsfs-{'0a' * 8}.tmp"),
           folder.path / f"base.json.romfsfs-{'1b' * 8}.tmp",
           folder.path / f"rebase.json.romfsfs-{'2c' * 8}.tmp"]  # fmt: skip
    kept = [image.with_name(f"other.img.romfsfs-{'0a' * 8}.tmp"), image.with_name("app.img.tmp")]
    busy = image.with_name(f"app.img.romfsfs-{'3d' * 8}.tmp")
    for path in (*old, *kept, busy):
        path.write_bytes(b"half of it")
    with busy.open("rb") as writing:
        fcntl.flock(writing, fcntl.LOCK_EX)
        OPERATIONS[operation](edited)
    # `open` reads the image and leaves its folder as it is.
    gone = old[1:] if operation == "open" else old
    assert [path.name for path in gone if path.exists()] == []
    assert all(path.exists() for path in (*kept, busy))


def test_a_mount_that_goes_while_it_is_asked_for_open_files(edited: Desk, tmp_path: Path) -> None:
    """It said that a folder is missing, to be made where the mount had been."""
    (tmp_path / "cam").mkdir()
    with pytest.raises(SessionBusy) as refused:
        commit(
            edited.session, edited.device, mounted=Found(edited.session, tmp_path / "cam").mounted
        )
    assert refused.value.line == f"it was unmounted just now ({tmp_path}/cam); repeat the command"
    assert not edited.session.interrupted
