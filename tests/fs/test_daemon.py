"""Mounting, unmounting, and everything that can go wrong in between."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import importlib.util
import io
import json
import os
import pkgutil
import random
import re
import signal
import subprocess
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import needs
import pytest
from mounts import Mounted
from processes import SECONDS, ended, until

import romfsfs
from romfsfs.devices.serial_camera.identity import NoRomfsAccess
from romfsfs.errors import EXIT_DEVICE, RomfsError, UsageError
from romfsfs.fs import binding as bindings
from romfsfs.fs import daemon, messages, mountpoint
from romfsfs.fs.daemon import _fail
from romfsfs.fs.fuse_class import fuse_class_of
from romfsfs.fs.messages import Sender, rebuilt
from romfsfs.fs.options import fuse_options, parse_extra
from romfsfs.fs.output import Captured, shorten
from romfsfs.fs.request_loop import main_2
from romfsfs.system.mount_table import find_mount, is_dead

#: this machine's own: .so.4 since 3.17
LIBFUSE_3 = needs.libfuse(3) or "libfuse3.so"


def error_classes() -> list[type[RomfsError]]:
    """Every class of error that any module of ours defines."""
    for module in pkgutil.walk_packages(romfsfs.__path__, "romfsfs."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    found, pending = [], [RomfsError]
    while pending:
        kind = pending.pop()
        found.append(kind)
        pending += kind.__subclasses__()
    return found


def test_it_is_ready_when_mount_returns_and_ended_when_unmount_does(place: Mounted) -> None:
    place.mount()
    assert os.listdir(place.mnt) == []
    found = find_mount(str(place.mnt))
    assert found is not None
    assert found.kind == "fuse.romfsfs"
    assert found.source == f"{place.state}/camera, the first.img"
    mountpoint.unmount(place.mnt, pid=place.pid)
    assert ended(place.pid)
    assert place.calls() == ["close"]
    place.pid = 0
    with pytest.raises(UsageError, match="nothing is mounted"):
        mountpoint.unmount(place.mnt)


def test_the_folder_in_which_it_was_started_can_go(place: Mounted, tmp_path: Path) -> None:
    """A stick could not be taken away, as a mount had been started on it."""
    here = tmp_path / "stick"
    here.mkdir()
    before = os.getcwd()
    os.chdir(here)
    try:
        place.mount()
    finally:
        os.chdir(before)
    assert os.readlink(f"/proc/{place.pid}/cwd") == "/"
    opened = []
    for each in Path(f"/proc/{place.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # its threads open and close files
            opened.append(os.readlink(each))
    assert not [path for path in opened if path.startswith(str(here))]


#: Runs a script where no folder takes a temporary file.
FULL = """
import runpy, sys, tempfile
tempfile.tempdir = "/no/such/folder"
sys.argv = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.skipif(not needs.LINUX, reason="this system has no files in memory")
@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="no files in memory: macOS")
def test_no_temporary_folder_can_be_written_to(place: Mounted) -> None:
    """As on a full disk, or in a container whose disks are read-only."""
    place.prefix = (place.python, "-c", FULL)
    place.mount()
    place.prefix = ()
    (place.mnt / "f").write_text("x")
    place.unmount()
    place.prefix = (place.python, "-c", FULL)
    done = place.try_mount("-o", "no_such_option")
    assert "no_such_option" in done.stderr.splitlines()[0]


#: Runs a command that is not told how its children end.
UNTOLD = """
import os, signal, sys
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
os.execvp(sys.argv[1], sys.argv[1:])
"""


def test_a_caller_that_ignores_the_end_of_its_children(place: Mounted) -> None:
    """The daemon does not: its tools would all seem to have ended well."""
    place.prefix = (place.python, "-c", UNTOLD)
    place.mount()
    place.prefix = ()  # an ordinary user's fusermount3 fails then, as it waits for a child too
    status = Path(f"/proc/{place.pid}/status").read_text()
    ignored = int(status.partition("SigIgn:")[2].split()[0], 16)
    assert ignored >> (signal.SIGCHLD - 1) & 1 == 0
    place.unmount()


@pytest.mark.parametrize("there", [True, False])
def test_its_threads_share_one_heap(monkeypatch: pytest.MonkeyPatch, there: bool) -> None:
    """Where the C library has that: <malloc.h>, M_ARENA_MAX is -8."""
    asked: list[tuple[int, int]] = []
    library = SimpleNamespace(mallopt=lambda *words: asked.append(words)) if there else object()
    monkeypatch.setattr(daemon.ctypes, "CDLL", lambda name: library)
    daemon._share_one_heap()
    assert asked == ([(-8, 1)] if there else [])


def test_work_is_there_again_after_the_next_mount(place: Mounted) -> None:
    place.mount()
    (place.mnt / "f").write_text("x")
    number = (place.mnt / "f").stat().st_ino
    place.unmount()
    place.mount()
    assert (place.mnt / "f").read_text() == "x"
    assert (place.mnt / "f").stat().st_ino == number  # git and rsync go by it


def test_progress_comes_through(place: Mounted) -> None:
    assert place.try_mount().stdout.splitlines()[:2] == ["reading 1/2", "reading 2/2"]


def test_progress_is_passed_on_as_often_as_it_can_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each phase as soon as it begins and when it is done, and in between now and then."""
    now = [0.0]
    monkeypatch.setattr(messages, "time", SimpleNamespace(monotonic=lambda: now[0]))
    reading, writing = os.pipe()
    with open(reading, "rb") as pipe:
        sender = Sender(writing)
        for phase in ("reading", "extracting"):
            for done in range(1001):
                now[0] += 0.001
                sender.progress(phase, done, 1000)
        sender.close()
        told = [tuple(json.loads(line)["progress"]) for line in pipe]
    for phase in ("reading", "extracting"):
        steps = [done for name, done, _ in told if name == phase]
        assert (steps[0], steps[-1]) == (0, 1000)
        assert 10 < len(steps) < 30


def test_a_session_that_refuses_is_the_mounts_error(place: Mounted) -> None:
    (place.state / "refuse").touch()
    done = place.try_mount()
    assert done.returncode == 1
    assert "RomfsError: the session refuses (there); go on" in done.stderr
    assert find_mount(str(place.mnt)) is None


def test_an_error_comes_out_of_the_daemon_with_its_exit_code(place: Mounted) -> None:
    """Also one that only the daemon's modules know."""
    kind = NoRomfsAccess
    (place.state / "refuse").write_text(f"{kind.__module__} {kind.__name__}")
    done = place.try_mount()
    assert done.returncode == EXIT_DEVICE
    assert "NoRomfsAccess: the session refuses (there); go on" in done.stderr


@pytest.mark.parametrize("kind", error_classes(), ids=lambda kind: kind.__name__)
def test_every_error_crosses_the_fork(kind: type[RomfsError]) -> None:
    error = kind.__new__(kind)
    RomfsError.__init__(error, "what\n", where="where", next_step="next", detail="said\nmore")
    reading, writing = os.pipe()
    with open(reading, "rb") as pipe:
        _fail(error, Sender(writing), Captured(io.BytesIO(), io.BytesIO()))
        raised = rebuilt(json.loads(pipe.read())["error"])
    assert type(raised) is kind
    assert (raised.line, raised.detail) == (error.line, error.detail)
    assert raised.exit_code == kind.exit_code


def test_a_log_keeps_its_last_part(place: Mounted) -> None:
    """A mount may last for months."""
    log = place.state / "log"
    log.write_bytes(b"".join(b"%06d a line of last year\n" % n for n in range(60_000)))
    place.mount()
    kept = log.read_bytes()
    assert len(kept) < 1 << 19
    assert re.match(rb"\d{6} a line of last year\n", kept)
    assert b"059999 a line of last year\n" in kept
    place.unmount()
    log.unlink()


def test_a_log_stays_within_bounds_while_it_grows(tmp_path: Path) -> None:
    """And nobody else's file is made shorter: a pipe, or one that others write to."""
    plain = os.open(tmp_path / "plain", os.O_RDWR | os.O_CREAT)
    appended = os.open(tmp_path / "log", os.O_RDWR | os.O_CREAT | os.O_APPEND)
    for _ in range(30):
        for fd in (plain, appended):
            os.write(fd, b"x" * 99_999 + b"\n")
            shorten(fd)
    assert os.fstat(plain).st_size == 3_000_000
    assert 100_000 <= os.fstat(appended).st_size <= 1 << 20
    os.close(plain)
    os.close(appended)


def test_a_log_that_cannot_be_written_is_an_error_before_the_mount(place: Mounted) -> None:
    """A disk without a free inode, say."""
    (place.state / "log").mkdir()
    done = place.try_mount()
    assert done.returncode == 1
    assert "RomfsError: is a directory" in done.stderr
    assert mountpoint.find_mount(str(place.mnt)) is None
    assert place.calls() == ["close"]
    (place.state / "log").rmdir()


@pytest.mark.parametrize("options", [[], ["-o", "nothreads"], ["--foreground"]])
def test_a_mount_that_cannot_be_recorded_ends(place: Mounted, options: list[str]) -> None:
    """The disk is full by then: nobody would find the mount, and who made it waited for ever."""
    (place.state / "full").touch()
    done = place.try_mount(*options)
    assert (done.returncode, "no space left on device" in done.stderr.lower()) == (1, True)
    if not options:
        line = f"no space left on device ({place.state}/lock); free space, or choose another place"
        assert done.stderr.startswith(f"RomfsError: {line}\n")
    assert find_mount(str(place.mnt)) is None
    assert place.calls() == ["close"]
    (place.state / "full").unlink()
    place.mount()


def test_what_libfuse_says_is_passed_on(place: Mounted) -> None:
    place.settings(notes=True)
    done = place.try_mount("-o", "no_such_option")
    assert done.returncode == 1
    first, *others = done.stderr.splitlines()
    assert first.startswith("RomfsError: could not mount: fuse: ")
    assert "no_such_option" in first  # in the one line that a user sees
    assert [line for line in others if line.endswith(" INFO fake_host: it is opened")]
    assert place.calls() == ["close"]


def test_a_wrong_mountpoint_is_refused_before_anything_happens(place: Mounted) -> None:
    (place.base / "file").touch()
    (place.base / "full").mkdir()
    (place.base / "full/f").touch()
    for name, words in (("none", "mkdir"), ("file", "not a folder"), ("full", "not empty")):
        place.mnt = place.base / name
        done = place.try_mount()
        assert done.returncode == 2
        assert words in done.stderr
    assert not (place.state / "calls").exists()
    place.mount("-o", "nonempty")
    assert os.listdir(place.mnt) == []
    place.unmount()
    place.mnt = place.base / "mnt"
    place.mount()
    pid = place.pid
    done = place.try_mount()
    assert (done.returncode, "romfsfs umount" in done.stderr) == (2, True)
    found = find_mount(str(place.mnt))
    assert found is not None
    place.pid = pid


def test_a_killed_daemon_leaves_a_dead_mountpoint_and_loses_nothing(place: Mounted) -> None:
    place.mount()
    (place.mnt / "kept").write_text("x")
    gone = (place.mnt / "gone").open("w")
    (place.mnt / "gone").unlink()
    place.kill()
    with contextlib.suppress(OSError):
        gone.close()
    assert is_dead(str(place.mnt))
    with pytest.raises(OSError, match="not connected"):
        os.listdir(place.mnt)
    assert len(os.listdir(place.state / "hidden")) == 1
    place.mount()
    assert (place.mnt / "kept").read_text() == "x"
    assert os.listdir(place.state / "hidden") == []


def test_signals_end_it_cleanly(place: Mounted) -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        place.mount()
        (place.mnt / "f").write_text("x")
        os.kill(place.pid, number)
        place.wait_for_end()
        assert place.calls()[-1] == "close"
        assert not is_dead(str(place.mnt))
        assert os.listdir(place.mnt) == []


def test_it_ends_in_the_middle_of_things(place: Mounted) -> None:
    """Whatever is asked of it at that moment, by whom, and however it is told to end."""
    # The kernel answers so to who takes a request in the moment of the end (`fuse_dev_do_read`),
    # and libfuse 2 says it.
    place.expected.append("^fuse: reading device: Software caused connection abort$")
    dice = random.Random(1)

    def use(number: int) -> None:
        while os.path.ismount(place.mnt):
            with contextlib.suppress(OSError):
                path = place.mnt / f"{number}-{dice.randrange(5)}"
                path.write_bytes(bytes(dice.randrange(300_000)))
                path.rename(f"{path}r").stat()
                os.listdir(place.mnt)
                os.unlink(f"{path}r")

    for clients in (0, 4):
        for how in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, "lazily"):
            place.mount()
            threads = [threading.Thread(target=use, args=(number,)) for number in range(clients)]
            for thread in threads:
                thread.start()
            time.sleep(dice.random() / 4)
            if isinstance(how, signal.Signals):
                os.kill(place.pid, how)
            else:
                place.run("fusermount3", "-uz", place.mnt)
            place.wait_for_end()
            for thread in threads:
                thread.join(SECONDS)
            assert not os.path.ismount(place.mnt)
            assert place.calls()[-1] == "close"
            for path in place.mnt.iterdir():
                path.unlink()  # written when it was a plain folder already


def test_in_the_foreground_ctrl_c_ends_it(place: Mounted) -> None:
    process = subprocess.Popen(
        place.command("--foreground"), env=place.environment(), stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        until(lambda: find_mount(str(place.mnt)) is not None)
        (place.mnt / "f").write_text("x")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=SECONDS)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, "rror" in err) == (0, False)
    assert "pid 0" in out
    assert find_mount(str(place.mnt)) is None
    assert place.calls()[-1] == "close"


@pytest.mark.skipif(not needs.LINUX, reason="this system has no /proc")
def test_a_mount_in_use_names_who_uses_it(mounted: Mounted) -> None:
    (mounted.mnt / "d").mkdir()
    user = subprocess.Popen(["sleep", "60"], cwd=mounted.mnt / "d")
    try:
        with pytest.raises(RomfsError, match=rf"in use by sleep \(pid {user.pid}\)"):
            mountpoint.unmount(mounted.mnt, pid=mounted.pid)
        assert (mounted.mnt / "d").is_dir()
    finally:
        user.kill()
        user.wait()
    mountpoint.unmount(mounted.mnt, pid=mounted.pid)
    mounted.pid = 0


@pytest.mark.parametrize(("times", "code"), [(3, 0), (10_000, 1)])
def test_busy_is_not_believed_at_once_where_nobody_is_found(
    mounted: Mounted, monkeypatch: pytest.MonkeyPatch, times: int, code: int
) -> None:
    """The release of a file may be on its way in the kernel."""
    counter = mounted.base / "asked"
    script = mounted.base / "unmounter"
    script.write_text(
        f"#!/bin/sh\necho >> '{counter}'\n[ $(wc -l < '{counter}') -le {times} ] && "
        '{ echo "umount: target is busy"; exit 1; }\nexec fusermount3 "$@"\n'
    )
    script.chmod(0o755)
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        time.sleep(seconds)

    # Half a second each, however long the system takes to ask: it is asked for 2 s.
    timed = SimpleNamespace(monotonic=lambda: len(pauses) / 2, sleep=pause)
    monkeypatch.setattr(mountpoint, "time", timed)
    with monkeypatch.context() as busy:
        busy.setattr(mountpoint, "_unmounter", lambda lazy: [str(script), "-u", "--"])
        if code == 0:
            mountpoint.unmount(mounted.mnt, pid=mounted.pid)
            mounted.pid = 0
        else:
            with pytest.raises(RomfsError, match="cannot unmount: umount: target is busy"):
                mountpoint.unmount(mounted.mnt, pid=mounted.pid)
    asked = len(counter.read_text().splitlines())
    assert asked > times if code == 0 else asked == 6
    assert pauses.count(mountpoint._BUSY_PAUSE_SECONDS) == asked - 1


@pytest.mark.root("mount in his own mount: fusermount may not look into a user's")
def test_a_mount_with_another_in_it_says_which(mounted: Mounted) -> None:
    (mounted.base / "inner").mkdir()
    inner = Mounted(mounted.base / "inner", mounted.binding)
    inner.mnt = mounted.mnt / "in"
    inner.mnt.mkdir()
    inner.mount()
    with pytest.raises(RomfsError, match=f"mounted in it, at {inner.mnt} "):
        mountpoint.unmount(mounted.mnt, pid=mounted.pid)
    inner.unmount()


def test_unmounting_lazily_does_not_wait_for_users(mounted: Mounted) -> None:
    with (mounted.mnt / "f").open("w") as file:
        mountpoint.unmount(mounted.mnt, lazy=True)
        assert os.listdir(mounted.mnt) == []
        file.write("still there")
    mounted.wait_for_end()
    assert (mounted.work / "f").read_text() == "still there"


def test_an_ordinary_user_mounts_and_unmounts(users_place: Mounted) -> None:
    users_place.mount()
    assert users_place.sh("touch a; ls") == "a\n"
    users_place.unmount()
    assert users_place.calls()[-1] == "close"


def test_an_ordinary_user_needs_a_folder_of_his_own(users_place: Mounted) -> None:
    os.chown(users_place.mnt, 0, 0)
    done = users_place.try_mount()
    assert done.returncode == 2
    assert "a folder of your own" in done.stderr


def test_a_missing_library_is_said_with_the_command_that_installs_it(
    binding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FUSE_LIBRARY_PATH", "/nowhere/libfuse.so")
    with pytest.raises(RomfsError) as caught:
        bindings.load_binding(binding)
    assert caught.value.next_step == bindings.install_command()


def test_a_library_of_the_wrong_version_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUSE_LIBRARY_PATH", LIBFUSE_3)
    with pytest.raises(RomfsError, match="libfuse 2 is not installed"):
        bindings.load_binding("fusepy")
    with pytest.raises(UsageError, match="auto"):
        bindings.load_binding("pyfuse3")


@pytest.mark.parametrize("libfuse", [2, 3])
def test_a_binding_that_calls_no_method_of_ours_is_refused(libfuse: int) -> None:
    """What we put in the place of its methods would never be called."""
    module = SimpleNamespace(__name__="mfusepy", FUSE=type("FUSE", (), {"read": None}))
    with pytest.raises(RomfsError, match=r"mfusepy is not supported \(it has no FUSE\.write"):
        fuse_class_of(module, libfuse)


def test_a_libfuse_2_that_lacks_a_function_is_refused() -> None:
    with pytest.raises(RomfsError, match=r"no fuse_setup \(.*fuse3"):
        main_2(ctypes.CDLL(None))


def test_a_libfuse_3_that_can_stop_for_good_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    libraries = {2: ("libfuse.so.2", (2, 9)), 3: (LIBFUSE_3, (3, 12))}
    monkeypatch.setattr(bindings, "_find_library", libraries.get)
    assert bindings.load_binding("auto").libfuse == (2, 9)
    del libraries[2]
    with pytest.raises(RomfsError, match=r"libfuse 3\.12 .*deadlock a mount") as caught:
        bindings.load_binding("auto")
    assert caught.value.next_step == bindings.install_command()
    libraries[3] = (LIBFUSE_3, (3, 13))
    assert bindings.load_binding("auto").libfuse == (3, 13)


def test_where_only_libfuse_3_is_its_binding_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `pipx install romfsfs` finds Debian 13: fuse3 is there, libfuse 2 is not."""
    monkeypatch.setattr(bindings, "_find_library", {3: (LIBFUSE_3, (3, 17))}.get)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name == "fuse" or None)
    with pytest.raises(RomfsError, match=r"libfuse 3\.17 is installed") as caught:
        bindings.load_binding("auto")
    assert caught.value.next_step.startswith("pip install 'romfsfs[fuse3]'")
    monkeypatch.setattr(bindings, "_find_library", {}.get)
    with pytest.raises(RomfsError, match="libfuse is not installed"):
        bindings.load_binding("auto")


@pytest.mark.parametrize("options", [
    "max_read=4096",  # libfuse 3 mounted, and ended when that was not said a second time
    "big_writes,async_read,relatime,noatime,dirsync",  # one library's, or said of what is so
    "attr_timeout=0,entry_timeout=0,kernel_cache,uid=1,umask=022,noexec,hard_remove",
])  # fmt: skip
def test_options_of_either_library(place: Mounted, options: str) -> None:
    if os.geteuid() != 0:
        options = options.replace("uid=1", f"uid={os.getuid()}")  # or he may not read it himself
    place.mount("-o", options)
    (place.mnt / "f").write_bytes(bytes(100_000))
    assert (place.mnt / "f").read_bytes() == bytes(100_000)
    assert (place.mnt / "f").stat().st_uid == (1 if "uid=1," in options else os.getuid())
    place.unmount()


def test_options_of_fstab_are_understood() -> None:
    extra = parse_extra(["rw,noauto,user,x-systemd.automount,allow_other", "max_read=4096, ,"])
    assert extra == {"rw": True, "allow_other": True, "max_read": "4096"}
    options = fuse_options(
        (2, 9), "a,b\\c\n", extra, read_only=True, allow_other=True, nonempty=True
    )
    assert options["fsname"] == "a\\,b\\\\c?"
    assert {"ro", "default_permissions", "big_writes", "nonempty"} <= set(options)
    options = fuse_options((3, 14), "x", {}, read_only=False, allow_other=False, nonempty=True)
    assert not {"big_writes", "nonempty", "ro", "allow_other"} & set(options)


@pytest.mark.parametrize("word", ["foreground", "encoding=utf-8", "mountpoint=/mnt", "self"])
def test_words_of_the_bindings_are_no_mount_options(word: str) -> None:
    with pytest.raises(UsageError, match="no such mount option: " + word.partition("=")[0]):
        parse_extra([f"noatime,{word}"])


def test_waiting_for_a_process_ends_with_it() -> None:
    process = subprocess.Popen(["sleep", "60"])
    start = time.monotonic()
    assert not mountpoint.wait_for_exit(process.pid, 0.05)
    process.kill()
    process.wait()
    assert mountpoint.wait_for_exit(process.pid, 10)
    assert time.monotonic() - start < 30
