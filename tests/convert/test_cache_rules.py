"""The cache's rules to the second and the byte: when it is trimmed, what it sweeps, what it files.

Without a tool and without waiting: the clock is set by the test."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from convert_helpers import one_operator, tflite

from romfsfs.convert import cache
from romfsfs.convert.cache import Cache, LockTimeout
from romfsfs.convert.types import Diagnostic, Figures, Product, warning
from romfsfs.errors import Cancelled

NOW = 1_000_000.0
KEY = "ab" + "c" * 62
PART = 64 << 20
BOTH = ("bin", "json")
NOTE = warning("sram-tight", "note", "all that it said")


class Clock:
    """`time` in the cache's module."""

    def __init__(self) -> None:
        self.now = NOW

    def time(self) -> float:
        return self.now

    monotonic = time


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(cache, "time", made)
    return made


@pytest.fixture
def store(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def put(store: Cache, key: str, data: bytes | None, used: float = NOW) -> Path:
    """Files a result, last used then; its record."""
    with store.work_folder() as folder:
        if data is not None:
            (folder / "result").write_bytes(data)
        store.put(key, Product(None if data is None else folder / "result"))
    record = store.directory / "results" / key[:2] / f"{key}.json"
    os.utime(record, (used, used))
    return record


def files(store: Cache) -> list[str]:
    found = store.directory.rglob("*")
    return sorted(str(each.relative_to(store.directory)) for each in found if not each.is_dir())


def test_what_is_filed(store: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    """A result, what was only checked, a failure and figures: the files and what is read again,
    whose bytes are digested once."""
    digested = []
    real = cache.digest_file
    monkeypatch.setattr(cache, "digest_file", lambda path: digested.append(path) or real(path))
    with store.work_folder() as folder:
        assert folder.parent == store.directory / "work"
        (folder / "result").write_bytes(b"abc")
        made = store.put(KEY, Product(folder / "result", (NOTE,)))
        assert list(folder.iterdir()) == []
    assert not folder.exists()
    kept = store.directory / "results" / "ab" / f"{KEY}.bin"
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert made == Product(kept, (NOTE,), digest=digest, size=3)
    assert json.loads(kept.with_suffix(".json").read_text()) == {
        "schema": 1, "digest": digest, "size": 3, "figures": None,
        "diagnostics": [{"severity": "warning", "code": "sram-tight", "message": "note",
                         "detail": "all that it said"}],
    }  # fmt: skip
    assert store._filed == 3
    assert len(digested) == 1
    for _ in range(3):
        assert store.get(KEY) == made
    assert len(digested) == 2
    os.utime(kept, (5, 5))  # another file, as far as its times tell
    assert store.get(KEY) == made
    assert len(digested) == 3
    checked = Product(None, (Diagnostic("error", "io", "no"),), figures=Figures(1, 2, 3, 4, 5.0))
    assert store.put("cd", checked) == checked
    assert store.get("cd") == checked
    assert store.get("ef") is None
    assert store._filed == 3
    assert files(store) == [f"results/ab/{KEY}.bin", f"results/ab/{KEY}.json", "results/cd/cd.json"]
    folders = [store.directory / name for name in ("results/ab", "work")]
    assert [each.stat().st_mode & 0o777 for each in folders] == [0o700] * 2


def test_a_use_is_noted_once_a_minute(store: Cache, clock: Clock) -> None:
    record = put(store, KEY, b"x")
    for age, noted in ((60.0, False), (60.5, True)):
        os.utime(record, (NOW - age, NOW - age))
        assert store.get(KEY) is not None
        assert (record.stat().st_mtime != NOW - age) is noted
    store._touch(record.with_name("none"))  # one that was trimmed just then


@pytest.mark.parametrize(
    ("age", "filed", "due"),
    [
        (None, 0, True), (0.0, 0, False), (0.0, PART - 1, False), (0.0, PART, True),
        (-0.5, 0, True),
        (0.5, 0, False), (3599.5, PART - 1, False), (3600.0, 0, True), (9999.0, 0, True),
    ],
)  # fmt: skip
def test_when_it_is_trimmed(
    store: Cache, clock: Clock, monkeypatch: pytest.MonkeyPatch, age: float | None, filed: int,
    due: bool,
) -> None:  # fmt: skip
    """An hour after the last time, or when a sixteenth of the limit was filed by this process;
    and not again soon, also when it fails."""
    trimmed: list[int] = []

    def trim(limit: int) -> None:
        trimmed.append(limit)
        raise OSError("no")

    monkeypatch.setattr(store, "trim", trim)
    put(store, KEY, b"")
    store._filed = filed
    stamp = store.directory / "trimmed"
    if age is not None:
        stamp.touch()
        os.utime(stamp, (NOW - age, NOW - age))
    store.keep_limit()
    assert trimmed == [1 << 30] * due
    assert store._filed == (0 if due else filed)
    if due:
        assert age is not None or stamp.stat().st_mode & 0o777 == 0o600
        os.utime(stamp, (NOW, NOW))
        store.keep_limit()
        put(store, KEY, bytes(99))
        store.keep_limit()
        assert trimmed == [1 << 30]


def test_what_is_trimmed_and_what_is_left(
    store: Cache, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The longest unused; not what was used in the last ten minutes, nor more than it takes."""
    records = {
        key: put(store, key, data, NOW - age)
        for key, data, age in (
            ("aa1", b"x" * 100, 600), ("bb1", b"x" * 100, 700), ("bb2", None, 800),
            ("cc1", b"x" * 100, 599.5), ("dd1", b"x" * 100, 10),
        )
    }  # fmt: skip
    size = {key: record.stat().st_size + 100 * (key != "bb2") for key, record in records.items()}
    total = sum(size.values())
    assert store.trim(total) == 0
    assert store.trim(total - 1) == size["bb2"]
    assert store.trim(total - size["bb2"] - size["bb1"]) == size["bb1"]
    left = [f"results/{key[:2]}/{key}.{end}" for key in ("aa1", "cc1", "dd1") for end in BOTH]
    assert files(store) == left
    real = Path.unlink
    error: OSError = PermissionError(1, "no")

    def unlink(path: Path, missing_ok: bool = False) -> None:
        if path.name == "aa1.json":
            raise error
        real(path, missing_ok)

    with monkeypatch.context() as refusing:
        refusing.setattr(Path, "unlink", unlink)
        assert store.trim(0) == 0, "it is still there"
        error = FileNotFoundError(2, "no")
        assert store.trim(0) == size["aa1"]  # another removed it just then
    assert store.trim(0) == size["aa1"]
    assert store.trim(0) == 0
    assert {path.split("/")[1] for path in files(store)} == {"cc", "dd"}


def test_records_that_go_while_they_are_counted(
    store: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = put(store, KEY, b"abc", NOW)
    size = 3 + record.stat().st_size
    real = Path.glob

    def glob(path: Path, pattern: str) -> Iterator[Path]:
        yield path / "results" / "zz" / "gone.json"
        yield from real(path, pattern)

    monkeypatch.setattr(Path, "glob", glob)
    assert list(store._usage()) == [(NOW, size, record)]


@pytest.mark.parametrize(
    ("name", "seconds"), [("work/x", 60), ("locks/x", 60), ("results/ab/x.bin", 3600)]
)
def test_what_a_crash_left_is_swept(store: Cache, name: str, seconds: int) -> None:
    """When it is older than that, and nobody holds it; at once, when it is a link."""
    path = store.directory / name
    path.parent.mkdir(parents=True)
    for age, held, swept in ((seconds, False, False), (seconds + 0.5, True, False),
                             (seconds + 0.5, False, True)):  # fmt: skip
        path.write_bytes(b"")
        os.utime(path, (NOW - age, NOW - age))
        with path.open() as file:
            if held:
                fcntl.flock(file, fcntl.LOCK_EX)
            store._sweep(NOW)
        assert path.exists() is not swept
    path.symlink_to("/etc/hostname")
    store._sweep(0.0)
    assert not path.is_symlink()
    record = put(store, "ab", b"x", 1)
    os.utime(record.with_suffix(".bin"), (1, 1))
    store._sweep(NOW)
    assert [path for path in files(store) if "ab.bin" in path] == ["results/ab/ab.bin"]


def test_how_long_a_key_is_waited_for(
    store: Cache, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And that it is free again, whatever happened; also where no folder can be locked."""
    tries: list[float] = []
    cancel = threading.Event()

    def lock_within(fd: int, seconds: float) -> bool:
        tries.append(seconds)
        clock.now += 1
        if len(tries) == 4:
            cancel.set()
        return False

    with monkeypatch.context() as busy:
        busy.setattr(cache, "lock_within", lock_within)
        with pytest.raises(LockTimeout, match=KEY), store.lock(KEY, 3.0):
            pass
        assert tries == [0.02] * 3
        with pytest.raises(Cancelled) as caught, store.lock(KEY, 9.0, cancel):
            pass
        assert caught.value.line == "the conversion was stopped while it waited for another"
        assert len(tries) == 4
    path = store.directory / "locks" / KEY
    for _ in range(2):
        with contextlib.suppress(ZeroDivisionError), store.lock(KEY, 0):
            assert path.stat().st_mode & 0o777 == 0o600
            raise ZeroDivisionError
        assert not path.exists()
    with store.lock(KEY, 0):
        path.unlink()
    assert not path.exists()

    def refused(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", refused)
    with store.work_folder() as folder:
        assert folder.stat().st_mode & 0o777 == 0o700
    assert not folder.exists()


def test_what_is_known_of_a_model(store: Cache) -> None:
    """What its compiler said, or what its bytes tell; of what is no model nothing."""
    plain, compiled = tflite(), one_operator("ethos-u")
    said = Figures(1, 2, 3, 4, 0.5)
    store.keep_figures("known", said)

    def figures(path: str, data: bytes, digest: str = "other") -> Figures | None:
        return store.figures(path, lambda at, count: data[at : at + count], len(data), digest)

    assert figures("a/m.TFLITE", compiled, "known") == said
    assert figures("m.tflite", plain) == Figures(0, 1, None, len(plain))
    for path, data in (("m.tflite", compiled), ("m.lite", b"nonsense"), ("m.onnx", b"x")):
        assert figures(path, data) == Figures(flash=len(data))
    for path in ("m.txt", "tflite", "m.tflite/x"):
        assert figures(path, plain, "known") is None


def test_what_threads_share_is_changed_by_one_at_a_time(store: Cache) -> None:
    entered: list[int] = []
    lock = threading.Lock()

    def enter(*_: Any) -> None:
        lock.acquire()
        entered.append(store._filed)

    store._mutex = type("Mutex", (), {"__enter__": enter, "__exit__": lambda *_: lock.release()})()  # type: ignore[assignment]
    put(store, KEY, b"abc")
    assert (entered, store._filed) == ([0], 3)
    assert store.get(KEY) is not None
    assert entered == [0, 3]
