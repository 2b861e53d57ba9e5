"""What each file of a work tree becomes, one by one: from which base, opened or not, converted or
not; and which folders are looked at again."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from session_desk import Desk

from romfsfs.convert import Conversion, State
from romfsfs.convert.types import Diagnostic
from romfsfs.errors import RomfsError
from romfsfs.session.keep.state import Base, BaseEntry, Signature
from romfsfs.session.plan import conversions
from romfsfs.session.plan.conversions import Conversions
from romfsfs.session.plan.shadow import (
    SUPERSEDED,
    Change,
    Derived,
    Deriver,
    ShadowEntry,
    flat,
    untouched,
)
from romfsfs.session.plan.stored import InBase, InCache, InWork
from romfsfs.session.snapshot import Leaf, LocatedTree, Snapshot
from romfsfs.session.tree import worktree
from romfsfs.session.tree.worktree import WorkFile, scan_folders
from romfsfs.system.files import EMPTY_DIGEST, digest_bytes, digest_fd

SIGNATURE = Signature(1, 2, 3, 4)


class Bench:
    """A work tree, its base, and a converter that compiles `.py` to `.mpy`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir()
        self.fd = os.open(root, os.O_RDONLY)
        self.entries: list[BaseEntry] = []
        self.state = State.READY
        self.converted: list[str] = []
        self.hashed: list[str] = []
        self.now: str | None = "now"

    def write(self, path: str, data: bytes) -> Path:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
        return file

    def base(self, path: str, data: bytes | None, source: str = "", stored: bytes | None = None,
             made_for: str | None = None, known: bool = False) -> None:  # fmt: skip
        """known: as its signature says."""
        source = source or path
        at = self.root / source
        self.entries.append(BaseEntry(
            path, None if data is None else len(data if stored is None else stored),
            "" if data is None else digest_bytes(data if stored is None else stored), source,
            "" if data is None else digest_bytes(data),
            Signature.of(at.stat()) if known else None, made_for,
        ))  # fmt: skip

    def convert(self, path: str, fd: int, digest: str) -> Conversion:
        self.converted.append(path)
        made = self.state is State.READY
        return Conversion(
            self.state, path[:-3] + ".mpy", Path("artifact") if made else None,
            "made" if made else "", 7 if made else 0, (Diagnostic("warning", "w", "so"),),
        )  # fmt: skip

    def digest(self, fd: int) -> tuple[str, Signature | None]:
        self.hashed.append(os.readlink(f"/proc/self/fd/{fd}"))
        return digest_fd(fd), SIGNATURE

    def derive(self, **more: Any) -> list[ShadowEntry]:
        self.converted.clear()
        self.hashed.clear()
        base = Base("d", 1, 1, "", None, tuple(self.entries))
        deriver = Deriver(
            self.fd, base, lambda path: path.endswith(".py"), self.convert,
            lambda path: path.endswith("~"), self.digest, made_for=lambda path: self.now, **more,
        )  # fmt: skip
        return flat(deriver.derive(scan_folders(self.fd)))

    def one(self, **more: Any) -> ShadowEntry:
        (entry,) = self.derive(**more)
        return entry


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path / "work")
    yield bench
    os.close(bench.fd)


def stored(path: str, change: Change, data: bytes, **more: Any) -> ShadowEntry:
    """What is stored as it is, from the tree."""
    digest = digest_bytes(data)
    known = {"digest": digest, "source_digest": digest, "signature": SIGNATURE}
    return ShadowEntry(
        path, change, stored_as=path, size=len(data), estimate=len(data),
        location=InWork(path), made_for="now", **{**known, **more},
    )  # fmt: skip


def kept(path: str, data: bytes, **more: Any) -> ShadowEntry:
    """What is stored from the base."""
    digest = digest_bytes(data)
    known = {"digest": digest, "source_digest": digest, "stored_as": path}
    return ShadowEntry(
        path, Change.UNCHANGED, size=len(data), estimate=len(data),
        **{"location": InBase(path), **known, **more},
    )  # fmt: skip


def test_a_new_file(bench: Bench) -> None:
    file = bench.write("a", b"new")
    assert bench.one() == stored("a", Change.ADDED, b"new")
    assert bench.hashed == [str(file)]
    signature = Signature.of(file.stat())
    quick = bench.one(quick=True)
    assert quick == stored("a", Change.ADDED, b"new", digest="", source_digest="",
                           signature=signature)  # fmt: skip
    assert bench.hashed == []


def test_a_file_with_its_signature_is_not_opened(bench: Bench) -> None:
    file = bench.write("a", b"same")
    bench.base("a", b"same", known=True, made_for="now")
    assert bench.one() == kept("a", b"same", signature=Signature.of(file.stat()), made_for="now")
    assert bench.hashed == []


@pytest.mark.parametrize("data", [b"", b"same"])
def test_a_file_with_its_bytes_is_hashed_and_unchanged(bench: Bench, data: bytes) -> None:
    bench.write("a", data)
    bench.base("a", data)
    assert bench.one() == kept("a", data, signature=SIGNATURE)
    assert len(bench.hashed) == 1
    assert digest_bytes(b"") == EMPTY_DIGEST


def test_an_edited_file(bench: Bench) -> None:
    bench.write("a", b"edited")
    bench.base("a", b"before")
    assert bench.one() == stored("a", Change.MODIFIED, b"edited")


@pytest.mark.parametrize("state", State)
def test_a_script(bench: Bench, state: State) -> None:
    bench.write("a.py", b"x = 1")
    bench.state = state
    entry = bench.one()
    ready = state is State.READY
    assert entry == stored("a.py", Change.ADDED, b"x = 1")._replace(
        stored_as="a.mpy", state=state.value, diagnostics=(Diagnostic("warning", "w", "so"),),
        size=7 if ready else None, estimate=7 if ready else 5, digest="made" if ready else "",
        location=InCache(Path("artifact")) if ready else None,
    )  # fmt: skip
    assert bench.converted == ["a.py"]
    assert bench.one(quick=True) == entry, "what may be converted is read in any case"


def test_a_script_of_the_base(bench: Bench) -> None:
    """Known by what it was made of; made anew where something else is wanted, unless the same
    bytes come of it."""
    bench.write("a.py", b"x = 1")
    bench.base("a.mpy", b"x = 1", "a.py", b"old", made_for="now", known=True)
    (entry,) = bench.derive()
    assert (entry.path, entry.stored_as, entry.change) == ("a.py", "a.mpy", Change.UNCHANGED)
    assert (bench.converted, bench.hashed) == ([], [])
    bench.now = '{"convert": false}'
    for made_for, stale in (("{}", True), (None, False), (bench.now, False)):
        bench.entries.clear()
        bench.base("a.mpy", b"x = 1", "a.py", b"old", made_for=made_for, known=True)
        entry = bench.one()
        assert (entry.change is Change.MODIFIED) is stale, made_for
        assert [each.code for each in entry.diagnostics] == (["w", "stale"] if stale else [])
        if stale:
            why = entry.diagnostics[1]
            assert why.severity == "info"
            assert why.message.startswith("made for another target (")
            assert why.message.endswith("); a commit would rebuild it")
    bench.entries.clear()
    bench.base("a.mpy", b"x = 1", "a.py", b"old", made_for="{}")
    bench.entries[0] = bench.entries[0]._replace(digest="made")
    assert bench.one().change is Change.UNCHANGED, "the same bytes come of it"
    bench.write("a.py", b"x = 2")
    entry = bench.one()
    assert (entry.change, len(entry.diagnostics)) == (Change.MODIFIED, 1)


def test_folders_and_what_became_of_them(bench: Bench) -> None:
    for name in ("new", "kept", "file"):
        (bench.root / name).mkdir()
    bench.write("folder", b"now a file")
    bench.base("kept", None)
    bench.base("file", b"was a file")
    bench.base("folder", None)
    bench.base("gone", None)
    bench.base("gone/a", b"12")
    assert bench.derive() == [
        ShadowEntry("file", Change.ADDED, True, "file"),
        stored("folder", Change.ADDED, b"now a file"),
        ShadowEntry("kept", Change.UNCHANGED, True, "kept"),
        ShadowEntry("new", Change.ADDED, True, "new"),
        ShadowEntry("gone", Change.DELETED, True, "gone"),
        ShadowEntry("gone/a", Change.DELETED, False, "gone/a", 2),
    ]  # fmt: skip


def test_what_cannot_be_stored(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    (bench.root / "link").symlink_to("x")
    with bench.write("most", b"").open("wb") as file:
        os.truncate(file.fileno(), 1 << 32)
    bench.write("shut", b"1")
    real = worktree._open_unnoticed

    def opened(name: str, flags: int, dir_fd: int) -> int:
        for refused, number in (("shut", errno.EACCES), ("went", errno.ENOENT)):
            if name == refused:
                raise OSError(number, os.strerror(number))
        return real(name, flags, dir_fd)

    bench.write("went", b"1")
    monkeypatch.setattr(worktree, "_open_unnoticed", opened)
    assert [(e.path, e.change, e.state, e.note, e.stored_as) for e in bench.derive()] == [
        ("link", Change.ADDED, "failed", "only files and folders can be stored: remove it", None),
        ("most", Change.ADDED, "failed", "an image holds 4 GiB at most: shrink or remove the file",
         None),
        ("shut", Change.ADDED, "failed", "cannot be read: Permission denied", None),
    ]  # fmt: skip
    closed = WorkFile("c", "closed", SIGNATURE, 0)
    deriver = Deriver(bench.fd, Base("d", 1, 1, "", None), bool, bench.convert, lambda _: False,
                      bench.digest)  # fmt: skip
    ((entry,), inside, passing, quick) = deriver.derive({"": [closed]})[""]
    assert entry.note == "no permission to read the folder: change its mode"
    assert (inside, passing, quick) == ((), True, False)


def test_what_is_never_packed(bench: Bench) -> None:
    """Unless it came with the image; the options of the tree have problems of their own."""
    for path in ("a~", "b~", "romfs.toml"):
        bench.write(path, b"1")
    (bench.root / "d~").mkdir()
    bench.base("b~", b"1")
    wrong = (Diagnostic("error", "options", "line 2"),)
    assert bench.derive(tree_problems=wrong) == [
        ShadowEntry("a~", Change.IGNORED), kept("b~", b"1", signature=SIGNATURE),
        ShadowEntry("d~", Change.IGNORED, True),
        ShadowEntry("romfs.toml", Change.IGNORED, diagnostics=wrong,
                    note="the options of this tree"),
    ]  # fmt: skip
    bench.base("romfs.toml", b"1")
    assert bench.derive(tree_problems=wrong)[-1] == kept("romfs.toml", b"1", signature=SIGNATURE)


def test_a_source_takes_the_place_of_what_was_compiled(bench: Bench) -> None:
    bench.write("a.mpy", b"compiled")
    bench.base("a.mpy", b"compiled")
    assert [entry.change for entry in bench.derive()] == [Change.UNCHANGED]
    bench.write("a.py", b"x = 1")
    first, second = bench.derive()
    assert first == kept("a.mpy", b"compiled", signature=SIGNATURE)._replace(
        change=Change.IGNORED, stored_as=None, note=SUPERSEDED
    )
    assert (second.stored_as, second.change) == ("a.mpy", Change.ADDED)
    bench.write("a.mpy", b"edited too")
    assert [entry.change.value for entry in bench.derive()] == ["modified", "added"]
    (bench.root / "a.mpy").unlink()
    (bench.root / "a.mpy").mkdir()
    bench.entries.clear()
    bench.base("a.mpy", None)
    assert [entry.change.value for entry in bench.derive()] == ["unchanged", "added"]


def test_what_every_entry_is_checked_for(bench: Bench) -> None:
    bench.write("a", b"1")
    bench.base("gone", b"1")

    def check(entry: ShadowEntry) -> ShadowEntry:
        return entry._replace(note="checked")

    assert [(e.path, e.note) for e in bench.derive(check=check)] == [("a", "checked"), ("gone", "")]


def test_which_folders_are_looked_at_again() -> None:
    kept, passing, quick = Derived(()), Derived((), passing=True), Derived((), quick=True)
    known = {"": kept, "a": kept, "a/b": kept, "ab": kept, "p": passing, "q": quick}

    def left(*touched: str, fast: bool = False) -> list[str]:
        return list(untouched(known, touched, fast))

    assert left() == ["", "a", "a/b", "ab"]
    assert left(fast=True) == ["", "a", "a/b", "ab", "q"]
    assert left("x") == ["a", "a/b", "ab"]
    assert left("a/x") == ["", "a/b", "ab"]
    assert left("a") == ["ab"]
    assert left("a/b") == ["", "ab"]
    assert left("a/b/c/d") == ["", "a", "a/b", "ab"]


def test_what_passes_is_looked_at_again(bench: Bench) -> None:
    """Conversions end, results are trimmed, and what is gone may come back."""
    bench.write("d/a", b"1")
    bench.base("gone/b", b"1")
    base = Base("d", 1, 1, "", None, tuple(bench.entries))

    def derive(state: State, **more: Any) -> dict[str, tuple[bool, bool, tuple[str, ...]]]:
        bench.state = state
        deriver = Deriver(bench.fd, base, lambda path: path.endswith(".py"), bench.convert,
                          lambda _: False, bench.digest, **more)  # fmt: skip
        found = deriver.derive(scan_folders(bench.fd))
        return {name: (each.passing, each.quick, each.inside) for name, each in found.items()}

    assert derive(State.READY) == {
        "": (False, False, ("d",)), "d": (False, False, ()), "gone": (True, False, ()),
    }  # fmt: skip
    bench.write("d/a.py", b"1")
    assert derive(State.READY)["d"] == (True, False, ())
    assert derive(State.PENDING, quick=True)["d"] == (True, True, ())
    known = {"": Derived((), ("x",))}
    deriver = Deriver(bench.fd, Base("d", 1, 1, "", None), bool, bench.convert, lambda _: False,
                      bench.digest)  # fmt: skip
    assert deriver.derive({"": None}, known)[""] is known[""]


# -- conversions


class Compiler:
    """Converters that note what they are asked for."""

    def __init__(self, raises: Callable[[], Exception] | None = None) -> None:
        self.asked: list[tuple[str, str]] = []
        self.raises = raises

    def lookup(self, path: str, fd: int, digest: str) -> str:
        return f"looked up {path}"

    def convert(self, path: str, fd: int, digest: str, cancel: object) -> str:
        self.asked.append((path, digest))
        if self.raises is not None:
            raise self.raises()
        return f"converted {path}"


def pending(path: str, state: str = "pending", digest: str = "d") -> ShadowEntry:
    return ShadowEntry(path, Change.ADDED, state=state, source_digest=digest)


def test_what_is_converted_and_what_is_known_then(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversions.os, "cpu_count", lambda: None)
    for name in ("a.py", "b.py"):
        bench.write(name, b"1")
    compiler: Any = Compiler()
    made = Conversions(compiler, bench.fd)
    told: list[tuple[str, int, int]] = []
    entries = [pending("a.py"), pending("b.py", "failed"), pending("c.py", "ready"),
               pending("gone.py"), pending("d.py", "failed", "")]  # fmt: skip
    assert made.run(entries, lambda *each: told.append(each)) is True
    assert compiler.asked == [("a.py", "d"), ("b.py", "d")]
    assert told == [("converting", number, 3) for number in range(4)]
    assert made.lookup("a.py", -1, "d") == "converted a.py"
    assert made.lookup("a.py", -1, "e") == "looked up a.py"
    assert made.run([entries[1], entries[2], entries[4]]) is False, "a failure is asked for once"
    assert made.run([entries[0]]) is True
    assert len(compiler.asked) == 3
    before = len(os.listdir("/proc/self/fd"))
    from romfsfs.convert import Cancelled, StaleSource

    for error in (lambda: Cancelled("x"), lambda: StaleSource("x"), IsADirectoryError):
        made = Conversions(Compiler(error), bench.fd)  # type: ignore[arg-type]
        assert made.run([pending("a.py")]) is True
        assert made.lookup("a.py", -1, "d") == "looked up a.py"
    assert len(os.listdir("/proc/self/fd")) == before


# -- the trees below `.romfs`


def test_a_tree_of_stored_bytes(desk: Desk) -> None:
    session = desk.open()
    held = session.held()
    leaves = {
        "a.txt": Leaf(6, InBase("a.txt"), "ready"), "lib": Leaf(None, None, "ready"),
        "lib/x.mpy": Leaf(0, None, "pending"), "lib/bad.mpy": Leaf(0, None, "failed"),
        "lib/empty": Leaf(None, None, "ready"),
    }  # fmt: skip
    tree = LocatedTree(session, held, leaves)
    assert tree.list("") == [("a.txt", False), ("lib", True)]
    assert tree.list("lib") == [("x.mpy", False), ("bad.mpy", False), ("empty", True)]
    assert tree.list("lib/empty") == []
    time_ns = tree._time_ns
    assert {path: tree.stat(path) for path in ("", *leaves, "no")} == {
        "": (True, 0, time_ns), "a.txt": (False, 6, time_ns), "lib": (True, 0, time_ns),
        "lib/x.mpy": (False, 0, time_ns), "lib/bad.mpy": (False, 0, time_ns),
        "lib/empty": (True, 0, time_ns), "no": None,
    }  # fmt: skip
    fd, offset, size = tree.open("a.txt")
    assert os.pread(fd, size, offset) == b"first\n"
    os.close(fd)
    for path, number in (("lib/x.mpy", errno.EAGAIN), ("lib/bad.mpy", errno.EIO)):
        with pytest.raises(OSError, match=r"pending|failed") as refused:
            tree.open(path)
        assert refused.value.errno == number
    with pytest.raises(KeyError):
        tree.open("no")

    def fails(*_: object) -> None:
        raise RomfsError("the base is damaged")

    session.open_location = fails  # type: ignore[method-assign,assignment]
    with pytest.raises(OSError, match="the base is damaged") as refused:
        tree.open("a.txt")
    assert refused.value.errno == errno.EIO


def test_what_the_shadow_shows(desk: Desk) -> None:
    desk.open()
    desk.write("b.py", b"x = 1\n")
    desk.write("junk~", b"1")
    (desk.work / "lib/b.bin").unlink()
    status = desk.session.status()
    snapshot = Snapshot(1, desk.session.held(), status, desk.session)
    assert snapshot.states == {
        "a.txt": "ready", "empty": "ready", "lib": "ready", "junk~": "ignored",
        "b.py": next(entry.state for entry in status.entries if entry.path == "b.py"),
    }  # fmt: skip
    shown = snapshot.shadow
    assert sorted(shown.list("")) == [
        ("a.txt", False), ("b.mpy", False), ("empty", True), ("lib", True),
    ]  # fmt: skip
    assert shown.list("lib") == []
    assert snapshot.shadow is shown
