"""What `system/` asks of the system, in whole calls, also where that refuses or is slow."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import queue
import select
import signal
import stat
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from romfsfs.errors import RomfsError, UsageError
from romfsfs.system import (
    beside,
    clock,
    errors,
    files,
    mount_table,
    private,
    programs,
    removal,
    user_folders,
)
from romfsfs.system.beside import Beside, Cancel
from romfsfs.system.mount_table import Mount

ELSEWHERE = "keep it elsewhere: set $ROMFSFS_STATE_DIR and $ROMFSFS_CACHE_DIR"


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is synced, by the paths of the descriptors, with the size that it had by then."""
    done: list[str] = []

    def fsync(fd: int) -> None:
        status = os.fstat(fd)
        path = os.path.basename(os.readlink(f"/proc/self/fd/{fd}"))
        done.append(f"{path}/" if stat.S_ISDIR(status.st_mode) else f"{path} {status.st_size}")

    monkeypatch.setattr(os, "fsync", fsync)
    return done


in_proc = pytest.mark.skipif(not any(programs.processes_using("/")), reason="looked for in /proc")


@in_proc
def test_all_bytes_are_on_the_disk_before_a_file_has_its_name(
    tmp_path: Path, synced: list[str]
) -> None:
    with files.replace_atomically(tmp_path / "file") as file:
        file.write(b"12345")
    temporary, size = synced[0].split()
    assert files.TEMPORARY.fullmatch(temporary)
    assert (size, synced[1:]) == ("5", [f"{tmp_path.name}/"])
    made = tmp_path / "a" / "b"
    synced.clear()
    user_folders.make_private_dir(made)
    user_folders.make_private_dir(made)
    assert synced == [f"{tmp_path.name}/", "a/"], "a new folder's own name, once"
    synced.clear()
    files.sync_paths(tmp_path, ["file", "none", "file/none"], ["a/b"])
    assert synced == ["file 5", "a/", f"{tmp_path.name}/"]


def test_a_file_that_went_while_it_was_written(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), files.replace_atomically(tmp_path / "file") as file:
        file.write(bytes(next(tmp_path.iterdir()).unlink() or 1 // 0))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("length", [1, 226, 227, 255])
def test_a_temporary_file_of_a_name_of_any_length(tmp_path: Path, length: int) -> None:
    name = "x" * length
    with files.replace_atomically(tmp_path / name):
        (temporary,) = os.listdir(tmp_path)
        stem = name if length <= 226 else files.digest_bytes(name.encode())
        assert files.TEMPORARY.fullmatch(temporary)[1] == stem  # type: ignore[index]


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(fd: int, how: int) -> None:
        asked.append(how)
        raise OSError(errno.ENOLCK, "No locks available")

    asked: list[int] = []
    monkeypatch.setattr(fcntl, "flock", flock)
    with files.replace_atomically(tmp_path / "file") as file:
        file.write(b"1")
    assert (tmp_path / "file").read_bytes() == b"1"
    assert asked == [fcntl.LOCK_EX | fcntl.LOCK_NB]
    with files.opened(tmp_path / "file") as fd, pytest.raises(OSError, match="No locks"):
        files.lock_within(fd, 0)


def test_what_was_left_and_cannot_be_removed_keeps_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = sorted(f"{stem}.romfsfs-{'0' * 16}.tmp" for stem in "abc")
    for name in left:
        (tmp_path / name).touch()
    tried: list[str] = []

    def refuse(path: str) -> None:
        tried.append(os.path.basename(path))
        raise PermissionError

    monkeypatch.setattr(files, "_remove_unused", refuse)
    files.remove_temporaries(tmp_path)
    assert sorted(tried) == left
    files.remove_temporaries(tmp_path, "b")
    assert tried[3:] == left[1:2]
    files.remove_temporaries(tmp_path / "none")


def test_how_long_is_slept_for_a_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    watch = SimpleNamespace(monotonic=lambda: 5.0 + sum(slept), sleep=slept.append)
    monkeypatch.setattr(files, "time", watch)
    (tmp_path / "lock").touch()
    with files.opened(tmp_path / "lock") as one, files.opened(tmp_path / "lock") as two:
        assert files.lock_within(one, 0.0)
        assert not files.lock_within(two, 0.0)
        assert slept == []
        assert not files.lock_within(two, 0.0125)
        assert slept == [0.005] * 3


def test_a_folder_that_others_could_fill_is_not_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even where it gets its modes just then, from another process."""
    tmp_path.chmod(0o757)
    for path in (tmp_path / "a", tmp_path / "a" / "b"):
        with pytest.raises(RomfsError, match="everybody may write"):
            user_folders.make_private_dir(path)
    assert list(tmp_path.iterdir()) == []
    tmp_path.chmod(0o700)
    make = Path.mkdir

    def meanwhile(path: Path, mode: int = 0o777, **how: bool) -> None:
        make(path)
        path.chmod(0o757)
        make(path, mode)

    monkeypatch.setattr(Path, "mkdir", meanwhile)
    with pytest.raises(RomfsError, match="everybody may write"):
        user_folders.make_private_dir(tmp_path / "a")


def test_a_parent_that_may_be_entered_and_not_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError

    monkeypatch.setattr(user_folders, "sync_dir", refuse)
    assert user_folders.make_private_dir(tmp_path / "a").stat().st_mode & 0o777 == 0o700
    made: list[Path] = []

    def meanwhile(path: Path) -> None:
        made.append(path)
        if len(made) == 1:
            raise FileNotFoundError
        path.mkdir()
        if len(made) == 3:
            raise FileExistsError

    monkeypatch.setattr(user_folders, "_make_durable_dir", meanwhile)
    assert user_folders.make_private_dir(tmp_path / "b" / "c") == tmp_path / "b" / "c"
    assert made == [tmp_path / "b" / "c", tmp_path / "b", tmp_path / "b" / "c"]


def test_folders_are_opened_before_they_are_emptied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for an ordinary user, who cannot enter or move what is closed to him."""
    opening, rename, tried, moved = os.open, os.rename, set[str](), list[tuple[str, int]]()

    def open_it(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        where = os.stat(path, dir_fd=dir_fd, follow_symlinks=False)
        if stat.S_ISDIR(where.st_mode) and not where.st_mode & 0o500:
            tried.add(path)
            raise PermissionError
        return opening(path, flags, mode, dir_fd=dir_fd)

    def move(old: str, new: str, **where: int) -> None:
        moved.append((old, os.stat(old, dir_fd=where["src_dir_fd"]).st_mode & 0o777))
        rename(old, new, **where)

    deep = tmp_path / "top" / "a" / "b" / "c"
    deep.mkdir(parents=True)
    for folder, mode in ((deep, 0o500), (deep.parent, 0), (deep.parent.parent, 0o755)):
        folder.chmod(mode)
    monkeypatch.setattr(os, "open", open_it)
    monkeypatch.setattr(os, "rename", move)
    opened: list[int] = []
    change = os.fchmod
    monkeypatch.setattr(os, "fchmod", lambda fd, mode: change(fd, opened.append(mode) or mode))
    removal.remove_folder(tmp_path / "top")
    assert list(tmp_path.iterdir()) == []
    assert (tried, moved) == ({"b"}, [("b", 0o700), ("c", 0o700)])
    assert set(opened) == {0o700}

    def refuse(fd: int, mode: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "fchmod", refuse)
    (tmp_path / "others").mkdir()
    removal.remove_folder(tmp_path / "others")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_another_user_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "file").touch()
    monkeypatch.setattr(removal, "trusted_users", set)
    with pytest.raises(PermissionError, match="the folder belongs to another user: 'theirs'"):
        removal.remove_folder(tmp_path / "theirs")
    removal.discard_folder(tmp_path / "theirs")
    assert (tmp_path / "theirs" / "file").exists()
    monkeypatch.setattr(private, "trusted_users", set)
    first = f"/{tmp_path.parts[1]}"
    with pytest.raises(RomfsError) as caught:
        private.check_private(tmp_path)
    assert caught.value.line == (
        f"the folder belongs to another user, who could change what is kept there ({first}); "
        + ELSEWHERE
    )


def test_as_many_links_as_linux_follows(tmp_path: Path) -> None:
    (tmp_path / "l0").mkdir()
    (tmp_path / "l0").chmod(0o757)
    for number in range(41):
        (tmp_path / f"l{number + 1}").symlink_to(f"l{number}")
    with pytest.raises(RomfsError, match="everybody may write"):
        private.check_private(tmp_path / "l40")
    private.check_private(tmp_path / "l41")


@pytest.mark.parametrize("answer", [0, -1, None])
def test_a_whole_file_system_is_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: int | None
) -> None:
    """With one call; where there is none for one file system, all are."""
    asked: list[str] = []

    def syncfs(fd: int) -> int:
        asked.append(os.path.realpath(f"/proc/self/fd/{fd}") if sys.platform == "linux" else "")
        ctypes.set_errno(errno.EIO)
        return answer or 0

    def library(name: None, use_errno: bool = False) -> object:
        assert use_errno, "or nobody knows why it failed"
        return SimpleNamespace() if answer is None else SimpleNamespace(syncfs=syncfs)

    monkeypatch.setattr(ctypes, "CDLL", library)
    monkeypatch.setattr(os, "sync", lambda: asked.append("all"))
    if answer == -1:
        with pytest.raises(OSError, match="Input/output error") as caught:
            files.sync_file_system(tmp_path)
        assert (caught.value.errno, caught.value.filename) == (errno.EIO, str(tmp_path))
    else:
        files.sync_file_system(tmp_path)
    where = str(tmp_path) if sys.platform == "linux" else ""
    assert asked == (["all"] if answer is None else [where])


@pytest.mark.parametrize("answered", [True, False])
def test_how_a_mount_is_asked(monkeypatch: pytest.MonkeyPatch, answered: bool) -> None:
    """By a shell of its own, which has nothing of ours and is ended where it gets no answer."""
    me, kept, calls = os.getpid(), list[int](), list[Any]()

    def spawn(path: str, argv: list[str], env: dict[str, str], **how: Any) -> int:
        (kind, writing, one), *nowhere = how.pop("file_actions")
        calls.append((path, argv, env, how, kind, one, nowhere))
        if not answered:
            kept.append(os.dup(writing))
        return 77

    def wait(readers: list[Any], writers: list[Any], odd: list[Any], seconds: float) -> Any:
        calls.append(seconds)
        return choose(readers, writers, odd, 0)

    choose = select.select
    monkeypatch.setattr(select, "select", wait)
    monkeypatch.setattr(os, "posix_spawn", spawn)
    monkeypatch.setattr(os, "killpg", lambda *asked: calls.append(("kill", *asked)))
    monkeypatch.setattr(os, "waitpid", lambda *asked: calls.append(("wait", *asked)))
    before = len(os.listdir("/dev/fd"))
    assert mount_table.answers("/mnt/a", *([] if answered else [3.0])) is answered
    for fd in kept:
        os.close(fd)
    assert len(os.listdir("/dev/fd")) <= before
    nowhere = (os.devnull, os.O_RDWR, 0)
    argv = ["sh", "-c", 'cd / && { test -e "$1" & }', "sh", f"/mnt/a/.romfs/answers-{me}"]
    ended = [("wait", 77, 0)] if answered else [
        ("kill", 77, signal.SIGKILL), ("wait", 77, os.WNOHANG),
    ]  # fmt: skip
    assert calls == [
        ("/bin/sh", argv, {}, {"setsid": True}, os.POSIX_SPAWN_DUP2, 1,
         [(os.POSIX_SPAWN_OPEN, 0, *nowhere), (os.POSIX_SPAWN_OPEN, 2, *nowhere)]),
        5.0 if answered else 3.0, *ended,
    ]  # fmt: skip


def test_a_mount_is_asked_where_the_system_reaps_our_children() -> None:
    """In a program that ignores SIGCHLD."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        assert mount_table.answers("/")
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_a_mount_that_is_asked_when_ctrl_c_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks is ended, and not waited for."""
    calls: list[Any] = []

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(select, "select", interrupted)
    monkeypatch.setattr(os, "posix_spawn", lambda *_, **__: 77)
    monkeypatch.setattr(os, "killpg", lambda *asked: calls.append(("kill", *asked)))
    monkeypatch.setattr(os, "waitpid", lambda *asked: calls.append(("wait", *asked)))
    with pytest.raises(KeyboardInterrupt):
        mount_table.answers("/mnt/a")
    assert calls == [("kill", 77, signal.SIGKILL), ("wait", 77, os.WNOHANG)]


@pytest.mark.parametrize(
    ("path", "asked", "found"),
    [
        ("{}/cam/a/b", ["cam"], "cam"), ("{}/cam", ["cam"], "cam"), ("{}/link", ["cam"], "cam"),
        ("{}/deep", ["cam"], "cam"), ("{}/deep/b", ["cam"], "cam"), ("{}/out", [], None),
        ("{}/well/a", ["well"], None), ("{}/well/in/a", ["well", "well/in"], "well/in"),
        ("{}/disk/a", [], None), ("{}/camera", [], None), ("{}", [], None),
    ],
)  # fmt: skip
def test_a_path_in_a_mount_that_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, asked: list[str], found: str | None
) -> None:
    place = str(tmp_path)
    for name, target in (("link", "cam"), ("deep", "link/a"), ("out", "../x/..")):
        (tmp_path / name).symlink_to(target)
    table = {
        name: Mount(f"{place}/{name}", kind, f"romfsfs:{name}")
        for name, kind in (("cam", "fuse.romfsfs"), ("well", "fuse"), ("well/in", "fuse"),
                           ("disk", "ext4"))
    }  # fmt: skip
    told: list[str] = []

    def answers(mountpoint: str) -> bool:
        told.append(os.path.relpath(mountpoint, place))
        return mountpoint == f"{place}/well"

    monkeypatch.setattr(mount_table, "mounts", lambda: iter(table.values()))
    monkeypatch.setattr(mount_table, "answers", answers)
    named = path.format(place)
    assert mount_table.hanging(named) == (table[found] if found else None)
    assert told == asked
    if found is None:
        mount_table.refuse_hanging(named)
    else:
        with pytest.raises(UsageError) as caught:
            mount_table.refuse_hanging(named)
        assert caught.value.line == (
            f"romfsfs:{found} is mounted there, and does not answer ({place}/{found}); "
            f"romfsfs umount --lazy {place}/{found}"
        )
    monkeypatch.setattr(mount_table, "mounts", lambda: iter([table["disk"]]))
    monkeypatch.setattr(mount_table, "real_places", lambda path: pytest.fail("looked at"))
    assert mount_table.hanging(named) is None, "without such a mount no path is looked at"


@pytest.mark.parametrize(
    ("line", "read"),
    [
        (b"1 2 0:3 / /a - fuse b", True), (b"1 2 0:3 /a - fuse b rw", False),
        (b"1 2 0:3 / /a - fuse", False), (b"1 2 0:3 / /a rw - fuse b", True), (b"", False),
    ],
)  # fmt: skip
def test_the_fewest_fields_of_a_mount(
    monkeypatch: pytest.MonkeyPatch, line: bytes, read: bool
) -> None:
    monkeypatch.setattr(Path, "read_bytes", lambda path: line + b"\n")
    assert list(mount_table.mounts()) == ([Mount("/a", "fuse", "b")] if read else [])


class Bell:
    """A queue that counts how often it is asked, and for how long."""

    def __init__(self, ring: Callable[[int], None]) -> None:
        self.asked: list[float] = []
        self._ring = ring

    def get(self, timeout: float) -> None:
        self.asked.append(timeout)
        self._ring(len(self.asked))


def test_who_waits_for_work_looks_up_now_and_then() -> None:
    running: Any = Beside([lambda _: 1, lambda _: 2])

    def ring(turn: int) -> None:
        if turn < 3:
            raise queue.Empty
        running._outcomes[0] = 7, None

    running._bell = Bell(ring)
    assert running.result(0) == 7
    assert running._bell.asked == [0.05] * 3
    ready: Any = Beside([lambda _: 1, lambda _: 2])
    ready._run()
    assert [ready.result(number) for number in (0, 1)] == [1, 2]
    assert ready._bell.qsize() == 2, "nobody waits longer than the work takes"


def test_a_signal_while_threads_are_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """What has begun is told to stop and waited for, however often it is asked for."""
    start, started, told = beside._thread.start_new_thread, list[int](), list[str]()
    begun = threading.Event()

    def wait(cancel: Cancel) -> None:
        begun.set()
        deadline = time.monotonic() + 60
        while not cancel.is_set() and time.monotonic() < deadline:
            time.sleep(0.001)
        told.append("stopped" if cancel.is_set() else "left alone")

    def interrupted(run: Any, arguments: Any) -> None:
        started.append(1)
        if len(started) == 2:
            assert begun.wait(60)
            raise KeyboardInterrupt
        start(run, arguments)

    monkeypatch.setattr(beside._thread, "start_new_thread", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Beside([wait, wait, wait]).__enter__()
    assert (told, len(started)) == (["stopped"], 2)
    monkeypatch.setattr(beside._thread, "start_new_thread", start)
    real, waits = Beside._wait, list[int]()

    def impatient(self: Beside[None], numbers: Any) -> None:
        waits.append(len(numbers))
        if len(waits) < 3:
            raise KeyboardInterrupt
        real(self, numbers)

    monkeypatch.setattr(Beside, "_wait", impatient)
    begun.clear()
    with pytest.raises(KeyboardInterrupt), Beside([wait]):
        assert begun.wait(60)
    assert (told, waits) == (["stopped", "stopped"], [1, 1, 1])


def test_a_thread_for_each_piece_of_work(monkeypatch: pytest.MonkeyPatch) -> None:
    start, started = beside._thread.start_new_thread, list[int]()

    def count(run: Any, arguments: Any) -> None:
        started.append(1)
        start(run, arguments)

    monkeypatch.setattr(beside._thread, "start_new_thread", count)
    with Beside([lambda _: 1, lambda _: 2, lambda _: 3]) as running:
        assert [running.result(number) for number in range(3)] == [1, 2, 3]
    assert len(started) == 3


@in_proc
def test_who_uses_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside, beside = tmp_path / "cam", tmp_path / "camera"
    for folder in (inside, beside):
        folder.mkdir()
        (folder / "file").write_bytes(bytes(4096))
    me = os.getpid()
    ours = f"{Path('/proc/self/comm').read_text().strip()} (pid {me})"

    def users(path: Path) -> list[str]:
        return list(programs.processes_using(str(path)))

    assert users(inside) == []
    with (beside / "file").open():
        assert users(inside) == []
    with (inside / "file").open():
        assert users(inside) == users(inside / "file") == [ours]
    monkeypatch.chdir(inside)
    assert users(inside) == [ours]
    numbers = [str(me), "1000000000", "no number"]

    def listed(path: str) -> list[str]:
        if path == "/proc":
            return numbers
        raise PermissionError

    monkeypatch.setattr(os, "listdir", listed)
    monkeypatch.setattr(Path, "read_text", lambda path, **how: os.stat("/none"))
    assert users(inside) == [f"? (pid {me})"]
    monkeypatch.setattr(os, "listdir", lambda path: os.stat("/none"))
    assert users(inside) == []


def test_what_installs_a_package_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setenv("PATH", "/opt/bin")
    monkeypatch.setattr(programs.shutil, "which", lambda name, path: asked.append(path))
    monkeypatch.setattr(sys, "platform", "linux")
    assert programs.install_command("x", {}) == "install x with the system's package manager"
    assert set(asked) == {os.pathsep.join(["/opt/bin", "/usr/sbin", "/sbin"])}
    monkeypatch.setattr(sys, "platform", "darwin")
    assert programs.install_command("x", {"brew": "y"}) == "brew install y"
    assert programs.install_command("x") == "brew install x"


def test_an_error_where_nobody_has_a_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ROMFSFS_STATE_DIR", "ROMFSFS_CACHE_DIR", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", lambda uid: {}[uid])
    said = errors.os_error(OSError(errno.EROFS, "Read-only file system", str(tmp_path))).line
    assert said == f"read-only file system ({tmp_path}); choose a place that can be written to"


def test_which_clock_file_times_are_taken_from(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = SimpleNamespace(clock_gettime_ns=lambda number: number * 1000, time_ns=lambda: 7)
    monkeypatch.setattr(clock, "time", watch)
    monkeypatch.setattr(sys, "platform", "linux")
    assert clock.clock_ns() == 5000
    monkeypatch.setattr(sys, "platform", "darwin")
    assert clock.clock_ns() == 7
