"""`Converters` with converters of the test's: what they are asked, and what is made of it."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from convert_helpers import camera, convert, lookup, open_bytes, stored_bytes

from romfsfs.convert import (
    Cancelled,
    Conversion,
    Converters,
    FileOptions,
    Options,
    Rule,
    State,
    Target,
    registry,
)
from romfsfs.convert.cache import Cache, LockTimeout
from romfsfs.convert.options import OptionError
from romfsfs.convert.types import Decision, Figures, Job, Product, error, warning
from romfsfs.errors import RomfsError, ToolMissing

DATA = b"source"
NOTE, WRONG = warning("sram-tight", "note"), error("script-error", "wrong", "detail")


class Fake:
    """A converter whose answers are set by the test."""

    name, version, source_name = "fake", 1, "source.x"

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.decision = Decision(State.PENDING, "a.out", ("parameter",))
        self.wrong: Exception | None = None
        self.product: Any = Product(Path("made"), (NOTE,), figures=Figures(1, 2))

    def concerns(self, path: str) -> bool:
        return path.endswith((".x", ".py"))

    def made_for(self, path: str) -> str:
        return f"made for {path}"

    def decide(self, path: str, read: Any, size: int) -> Decision:
        assert (read(0, 99), read(1, 2), size) == (DATA, DATA[1:3], len(DATA))
        self.asked.append(f"decide {path}")
        if self.wrong is not None:
            raise self.wrong
        return self.decision

    def convert(self, job: Job) -> Product:
        self.asked.append(f"convert {job.path}")
        assert job.source == job.folder / "source.x"
        assert job.source.read_bytes() == DATA
        if isinstance(self.product, Exception):
            raise self.product
        (job.folder / "made").write_bytes(b"result")
        artifact = self.product.artifact and job.folder / self.product.artifact
        return self.product._replace(artifact=artifact)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Fake:
    made = Fake()
    monkeypatch.setattr(registry, "make_converters", lambda target, tools: (made,))
    return made


def failed(path: str, *diagnostics: Any) -> Conversion:
    return Conversion(State.FAILED, path, diagnostics=diagnostics)


def test_which_converters_a_board_needs() -> None:
    for board, names in (
        (None, ["script", "haar"]), ("OPENMV4P", ["script", "haar"]),
        ("OPENMV_AE3", ["script", "haar", "vela"]), ("OPENMV_N6", ["script", "haar", "stedgeai"]),
    ):  # fmt: skip
        target = camera(board) if board else Target()
        made = registry.make_converters(target, Path("/tools"))
        assert [each.name for each in made] == names


def test_what_is_never_asked_of_a_converter(tmp_path: Path, cache: Path, fake: Fake) -> None:
    """Other files, those that are stored as they are, and what is not what it is called."""
    as_it_is = Options((Rule("raw.x", FileOptions(convert=False)),
                        Rule("yes.x", FileOptions(convert=True))))  # fmt: skip
    converters = Converters(Target(options=as_it_is), cache)
    digest = hashlib.sha256(DATA).hexdigest()
    for path, concerned, made_for in (
        ("a.txt", False, ""), ("raw.x", False, "convert=no"), ("yes.x", True, "made for yes.x"),
        ("d/a.x", True, "made for d/a.x"),
    ):  # fmt: skip
        assert (converters.concerns(path), converters.made_for(path)) == (concerned, made_for)
        if not concerned:
            same = Conversion(State.READY, path, None, digest, len(DATA))
            assert lookup(converters, tmp_path, path, DATA) == same
            assert convert(converters, tmp_path, path, DATA) == same
    page = convert(converters, tmp_path, "a.py", b"<html>")
    assert page == failed("a.py", error("not-what-it-is-called", "is a web page, not .py; download "
                                        "the raw file"))  # fmt: skip
    assert fake.asked == []
    assert not cache.exists()


@pytest.mark.parametrize(
    ("decision", "wrong", "found"),
    [
        (Decision(State.READY, "a.x", diagnostics=(NOTE,)), None,
         Conversion(State.READY, "a.x", None, hashlib.sha256(DATA).hexdigest(), 6, (NOTE,))),
        (Decision(State.FAILED, "a.x", diagnostics=(NOTE, WRONG)), None,
         failed("a.x", NOTE, WRONG)),
        (None, OptionError("cannot be"), failed("a.x", error("options", "cannot be"))),
        (None, ToolMissing("no tool", next_step="get it", detail="more"),
         failed("a.x", error("tool-missing", "no tool; get it", "more"))),
    ],
)  # fmt: skip
def test_what_needs_no_tool(
    tmp_path: Path, cache: Path, fake: Fake, decision: Any, wrong: Any, found: Conversion
) -> None:
    fake.decision, fake.wrong = decision, wrong
    converters = Converters(Target(), cache)
    assert lookup(converters, tmp_path, "a.x", DATA) == found
    assert convert(converters, tmp_path, "a.x", DATA) == found
    assert fake.asked == ["decide a.x"] * 2
    assert not cache.exists()


def test_a_result_is_made_once(tmp_path: Path, cache: Path, fake: Fake) -> None:
    converters = Converters(Target(), cache)
    waiting = Conversion(State.PENDING, "a.out")
    assert lookup(converters, tmp_path, "a.x", DATA) == waiting
    made = convert(converters, tmp_path, "a.x", DATA)
    digest = hashlib.sha256(b"result").hexdigest()
    assert made == Conversion(State.READY, "a.out", made.artifact, digest, 6, (NOTE,))
    assert stored_bytes(made) == b"result"
    assert lookup(converters, tmp_path, "b.x", DATA) == made
    assert convert(converters, tmp_path, "b.x", DATA) == made
    assert fake.asked == [
        "decide a.x", "decide a.x", "decide a.x", "convert a.x", "decide b.x", "decide b.x",
    ]  # fmt: skip
    assert converters.figures("m.tflite", lambda at, count: b"", 0, digest) == Figures(1, 2)
    assert Converters(Target(), cache)._cache.get(registry._key(
        fake, fake.decision, hashlib.sha256(DATA).hexdigest()  # type: ignore[arg-type]
    )) == Product(made.artifact, (NOTE,), digest=digest, size=6)  # fmt: skip


@pytest.mark.parametrize("product", [Product(Path("made"), (NOTE, WRONG)), Product(None, (WRONG,))])
def test_a_failure_is_filed_too(tmp_path: Path, cache: Path, fake: Fake, product: Product) -> None:
    fake.product = product
    found = failed("a.out", *product.diagnostics)
    for converters in (Converters(Target(), cache), Converters(Target(), cache)):
        assert convert(converters, tmp_path, "a.x", DATA) == found
    assert fake.asked.count("convert a.x") == 1
    assert not list(cache.glob("results/*/*.bin"))


def test_what_is_only_checked_stays_as_it_is(tmp_path: Path, cache: Path, fake: Fake) -> None:
    fake.decision = Decision(State.PENDING, "a.x", keep_source=True)
    converters = Converters(Target(), cache)
    same = Conversion(State.READY, "a.x", None, hashlib.sha256(DATA).hexdigest(), 6, (NOTE,))
    assert convert(converters, tmp_path, "a.x", DATA) == same
    assert lookup(converters, tmp_path, "a.x", DATA) == same
    assert not list(cache.glob("results/*/*.bin"))
    assert fake.asked.count("convert a.x") == 1


@pytest.mark.parametrize(
    ("product", "found"),
    [
        (Product(None, (WRONG,), cacheable=False), WRONG),
        (OSError(errno.ENOSPC, "full", "/f"), error("io", "could not convert: full (/f); free some "
                                                    "space")),
        (RomfsError("no", next_step="go", detail="more"), error("io", "no; go", "more")),
    ],
)  # fmt: skip
def test_what_may_be_otherwise_next_time(
    tmp_path: Path, cache: Path, fake: Fake, product: Any, found: Any
) -> None:
    """It is remembered for a look, and tried again when that is asked."""
    fake.product = product
    converters = Converters(Target(), cache)
    for count in (1, 2):
        assert convert(converters, tmp_path, "a.x", DATA) == failed("a.x", found)
        assert lookup(converters, tmp_path, "a.x", DATA) == failed("a.x", found)
        assert fake.asked.count("convert a.x") == count
    assert lookup(Converters(Target(), cache), tmp_path, "a.x", DATA).state is State.PENDING
    fake.product = Product(None)
    assert convert(converters, tmp_path, "a.x", DATA).state is State.READY


def test_a_source_that_cannot_be_read_is_no_fault_of_the_cache(
    tmp_path: Path, cache: Path, fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk fails below the file, or its server has lost it: nothing is remembered of it."""

    def fails(fd: int, size: int, offset: int) -> bytes:
        if size < registry.CHUNK:  # the beginning, which decides what it is
            return pread(fd, size, offset)
        raise OSError(errno.EIO, "Input/output error")

    pread = os.pread
    converters = Converters(Target(), cache)
    with monkeypatch.context() as failing, open_bytes(tmp_path, DATA) as (fd, digest):
        failing.setattr(registry.os, "pread", fails)
        with pytest.raises(OSError, match=r"Input/output error: 'd/a\.x'"):
            converters.convert("d/a.x", fd, digest)
    assert fake.asked.count("convert d/a.x") == 0
    assert lookup(converters, tmp_path, "d/a.x", DATA).state is State.PENDING


@pytest.mark.parametrize("wrong", [OptionError("cannot be"), ToolMissing("no tool")])
def test_a_tool_that_goes_meanwhile(
    tmp_path: Path, cache: Path, fake: Fake, wrong: Exception
) -> None:
    fake.product = wrong
    converters = Converters(Target(), cache)
    code = "options" if isinstance(wrong, OptionError) else "tool-missing"
    assert convert(converters, tmp_path, "a.x", DATA) == failed("a.x", error(code, str(wrong)))
    assert lookup(converters, tmp_path, "a.x", DATA).state is State.PENDING


def test_who_is_not_let_wait_for_ever(
    tmp_path: Path, cache: Path, fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    cancel = threading.Event()

    def lock(self: Cache, key: str, seconds: float, stop: Any) -> Any:
        asked.append((seconds, stop))
        raise LockTimeout(key)

    monkeypatch.setattr(Cache, "lock", lock)
    converters = Converters(Target(options=Options(timeout_seconds=2.5)), cache)
    with open_bytes(tmp_path, DATA) as (fd, digest):
        found = converters.convert("a.x", fd, digest, cancel)
    message = "another process has been converting this file for 2.5 s; retry"
    assert found == failed("a.x", error("time-out", message))
    assert asked == [(2.5, cancel)]
    fake.product = Cancelled("stopped")
    monkeypatch.undo()


def test_a_stop_is_passed_on(tmp_path: Path, cache: Path, fake: Fake) -> None:
    fake.product = Cancelled("stopped")
    converters = Converters(Target(), cache)
    with pytest.raises(Cancelled):
        convert(converters, tmp_path, "a.x", DATA)
    assert lookup(converters, tmp_path, "a.x", DATA).state is State.PENDING


def test_the_decision_on_the_copy_counts(
    tmp_path: Path, cache: Path, fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was to be converted at the first look may be well at the second."""
    answers = [Decision(State.PENDING, "a.out"), Decision(State.READY, "a.x")]
    monkeypatch.setattr(fake, "decide", lambda *_: answers.pop(0))
    same = Conversion(State.READY, "a.x", None, hashlib.sha256(DATA).hexdigest(), 6)
    assert convert(Converters(Target(), cache), tmp_path, "a.x", DATA) == same
    assert fake.asked == []


def test_how_much_unfinished_business_is_remembered(
    tmp_path: Path, cache: Path, fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By one thread at a time; when it is too much, all is forgotten."""
    monkeypatch.setattr(registry, "_MAX_REMEMBERED", 2)
    converters = Converters(Target(), cache)
    converters._mutex = held = threading.RLock()  # type: ignore[assignment]

    class Guarded(dict[str, Any]):
        """Complains of who comes without the lock."""

        def get(self, *args: Any) -> Any:
            assert held._is_owned()  # type: ignore[attr-defined]
            return super().get(*args)

        def pop(self, *args: Any) -> Any:
            assert held._is_owned()  # type: ignore[attr-defined]
            return super().pop(*args)

        def __setitem__(self, key: str, value: Any) -> None:
            assert held._is_owned()  # type: ignore[attr-defined]
            super().__setitem__(key, value)

    converters._unfiled = Guarded()
    fake.product = Product(None, (WRONG,), cacheable=False)
    seen = []
    for number in range(4):
        fake.decision = Decision(State.PENDING, "a.out", (str(number),))
        assert convert(converters, tmp_path, "a.x", DATA) == failed("a.x", WRONG)
        seen.append(len(converters._unfiled))
    assert seen == [1, 2, 1, 2]


def test_a_copy_of_what_is_converted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In pieces, compared with its digest."""
    monkeypatch.setattr(registry, "CHUNK", 4)
    with open_bytes(tmp_path, DATA) as (fd, digest):
        os.lseek(fd, 3, os.SEEK_SET)
        assert registry._copy(fd, tmp_path / "copy", "a.x", digest) == 6
        assert (tmp_path / "copy").read_bytes() == DATA
        with pytest.raises(registry.StaleSource) as caught:
            registry._copy(fd, tmp_path / "other", "a.x", "digest")
    assert caught.value.line == "the file changed while it was read for conversion (a.x)"
