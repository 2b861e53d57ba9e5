"""Differences, what a revert brings back, and what is noted of a session: all of it, compared."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest
from session_desk import Desk, tree_of

from romfsfs.errors import UsageError
from romfsfs.image.writer import encode
from romfsfs.session.diff import (
    MAX_TEXT,
    Side,
    changes_between,
    diff_images,
    diff_session,
    difference,
    side,
)
from romfsfs.session.opening import drop_abandoned
from romfsfs.session.plan.problems import Problem
from romfsfs.session.plan.shadow import Change
from romfsfs.session.revert import leave_work, never_packed, revert
from romfsfs.session.tree.restore import selected
from romfsfs.system.files import digest_bytes


def of(data: bytes, text: bool = True) -> Side:
    return Side(len(data), digest_bytes(data), data.decode() if text else None)


def shown(data: bytes) -> str:
    return f"{len(data):,} B  sha256 {digest_bytes(data)[:16]}"


@pytest.mark.parametrize(
    ("old", "new", "lines"),
    [
        (None, None, ["--- /dev/null", "+++ /dev/null"]), (of(b"x\n"), of(b"x\n"), []),
        (of(b"x\n"), of(b"x\ny\n"), ["--- a/p", "+++ b/p", "@@ -1 +1,2 @@", " x", "+y"]),
        (None, of(b"x\n"), ["--- /dev/null", "+++ b/p", "@@ -0,0 +1 @@", "+x"]),
        (of(b"x\n"), None, ["--- a/p", "+++ /dev/null", "@@ -1 +0,0 @@", "-x"]),
        (None, of(b""), ["--- /dev/null", f"+++ b/p  {shown(b'')}"]),
        (of(b"x\n"), of(b"x"),
         ["--- a/p", "+++ b/p", "@@ -1 +1 @@", "-x", "+x", "\\ No newline at end of file"]),
        (of(b"1\r\n2\f3"), of(b"1\r\n\x1c2\f3"),
         ["--- a/p", "+++ b/p", "@@ -1,2 +1,2 @@", " 1\r", "-2\f3",
          "\\ No newline at end of file", "+\x1c2\f3", "\\ No newline at end of file"]),
        (of(b"x"), of(b"y", text=False), [f"--- a/p  {shown(b'x')}", f"+++ b/p  {shown(b'y')}"]),
        (of(b"x", text=False), of(b"y"), [f"--- a/p  {shown(b'x')}", f"+++ b/p  {shown(b'y')}"]),
        (of(b"x" * 5000, text=False), None, [f"--- a/p  {shown(b'x' * 5000)}", "+++ /dev/null"]),
    ],
)  # fmt: skip
def test_how_two_files_differ(old: Side | None, new: Side | None, lines: list[str]) -> None:
    assert list(difference("p", old, new)) == lines


def test_names_are_made_printable() -> None:
    assert next(difference("a\nb", of(b"1\n"), of(b"2\n"))) == "--- a/a\\nb"


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", ""), ("é".encode(), "é"), (b"\xe9", None), (b"a\0b", None),
        (b"a" * MAX_TEXT, "a" * MAX_TEXT), (b"a" * (MAX_TEXT + 1), None),
    ],
    ids=["nothing", "text", "latin", "zeros", "most", "more"],
)  # fmt: skip
def test_what_is_text(tmp_path: Path, data: bytes, text: str | None) -> None:
    (tmp_path / "x").write_bytes(b"before" + data + b"after")
    with (tmp_path / "x").open("rb") as file:
        assert side(file.fileno(), 6, len(data)) == Side(len(data), digest_bytes(data), text)


def test_how_two_images_differ(tmp_path: Path) -> None:
    old, new = tmp_path / "old.img", tmp_path / "new.img"
    old.write_bytes(encode({"same": b"1", "gone": b"2\n", "other": b"3\n", "z/b": b"\0"}))
    new.write_bytes(encode({"same": b"1", "added": b"4\n", "other": b"5\n", "z/b": b"\1"}))
    assert list(changes_between(old, new)) == [
        (Change.ADDED, "added"), (Change.DELETED, "gone"), (Change.MODIFIED, "other"),
        (Change.MODIFIED, "z/b"),
    ]  # fmt: skip
    assert list(diff_images(old, new, lambda path: path != "gone")) == [
        "--- /dev/null", "+++ b/added", "@@ -0,0 +1 @@", "+4",
        "--- a/other", "+++ b/other", "@@ -1 +1 @@", "-3", "+5",
        f"--- a/z/b  {shown(bytes(1))}", f"+++ b/z/b  {shown(bytes([1]))}",
    ]  # fmt: skip


def test_how_a_tree_differs(desk: Desk) -> None:
    """Sources against sources; folders, junk and what is as it was are left out."""
    desk.open()
    desk.write("app.py", b"x = 1\n")
    desk.commit()
    desk.write("app.py", b"x = 2\n")
    desk.write("a.txt", b"second\n")
    desk.write("new/b.txt", b"b\n")
    desk.write("junk~", b"j\n")
    (desk.work / "lib/b.bin").unlink()
    (desk.work / "link").symlink_to("x")
    whole = list(diff_session(desk.session, lambda path: True))
    assert whole == [
        "--- a/a.txt", "+++ b/a.txt", "@@ -1 +1 @@", "-first", "+second",
        "--- a/app.py", "+++ b/app.py", "@@ -1 +1 @@", "-x = 1", "+x = 2",
        f"--- a/lib/b.bin  {shown(bytes(range(200)))}", "+++ /dev/null",
        "+++ b/link  only files and folders can be stored: remove it",
        "--- /dev/null", "+++ b/new/b.txt", "@@ -0,0 +1 @@", "+b",
    ]  # fmt: skip
    assert list(diff_session(desk.session, lambda path: path == "app.py")) == whole[5:10]


# -- revert


@pytest.fixture
def edited(desk: Desk) -> Desk:
    """Each kind of edit, in a tree with a source and what was compiled from it."""
    desk.open()
    desk.write("app.py", b"x = 1\n")
    desk.write("pkg/mod.py", b"y = 1\n")
    desk.commit()
    compiled = desk.stored()["pkg/mod.mpy"]
    desk.write("app.py", b"x = 2\n")
    (desk.work / "pkg/mod.py").unlink()
    desk.write("pkg/mod.mpy", compiled)
    (desk.work / "a.txt").unlink()
    desk.write("a.txt/inner", b"1")
    desk.write("a.txt/back~", b"a backup")
    shutil.rmtree(desk.work / "lib")
    desk.write("lib", b"a file now")
    desk.write("made/deep/x.txt", b"1")
    desk.write("made/deep/.DS_Store", b"litter")
    desk.write("made/kept~", b"a backup")
    return desk


@pytest.mark.parametrize(
    ("paths", "changed"),
    [
        (["app.py"], ["app.py"]), (["app.mpy"], ["app.py"]),
        (["pkg"], ["pkg/mod.py"]), (["pkg/mod.py"], ["pkg/mod.py"]),
        (["lib"], ["lib", "lib/b.bin"]),
        (["a.txt"], ["a.txt", "a.txt/inner"]),
        (["made"], ["made", "made/deep", "made/deep/x.txt"]),
        (["made/deep/x.txt", "app.py"], ["app.py", "made/deep/x.txt"]),
        ([], ["a.txt", "a.txt/inner", "app.py", "lib", "lib/b.bin", "made", "made/deep",
              "made/deep/x.txt", "pkg/mod.py"]),
    ],
)  # fmt: skip
def test_what_a_revert_brings_back(edited: Desk, paths: list[str], changed: list[str]) -> None:
    """What it says, what is there then, and that nothing else was touched."""
    before = tree_of(edited.work)
    wanted = {"app.py": b"x = 1\n", "pkg/mod.py": b"y = 1\n", "a.txt": b"first\n",
              "lib/b.bin": bytes(range(200))}  # fmt: skip
    done = revert(edited.session, paths)
    after = tree_of(edited.work)
    listed = ["pkg/mod.mpy" if "pkg/mod.mpy" in done and each == "pkg/mod.py" else each
              for each in changed]  # fmt: skip
    assert set(listed) <= set(done)
    for path in changed:
        if path in wanted:
            assert after[path] == wanted[path]
        elif path != "lib":
            assert path not in after or path == "made"
    untouched = (
        {path for path in before if not selected(path, [*paths, *changed])} if paths else set()
    )
    for path in untouched - {"pkg/mod.mpy"}:
        assert after[path] == before[path], path
    assert after["made/kept~"] == b"a backup"
    assert ("made/deep/.DS_Store" in after) is not bool(not paths or "made" in paths)


def test_a_path_that_is_nowhere_is_named(edited: Desk) -> None:
    before = tree_of(edited.work)
    for path in ("nowhere", "app", "made/dee", "lib/b"):
        with pytest.raises(UsageError) as refused:
            revert(edited.session, ["app.py", path])
        said = f"no such file, now or in the image ({path}); romfsfs status {edited.image}"
        assert refused.value.line == said
    assert tree_of(edited.work) == before


def test_which_trees_stay(desk: Desk) -> None:
    """With edits, and with what is never packed; what came with options too."""
    desk.open()
    for name, stays in (("junk~", True), ("romfs.toml", True), ("new.txt", True)):
        file = desk.write(name, b"")
        status = leave_work(desk.session)
        assert (status is not None) is stays, name
        assert desk.session.has_work is stays
        if status is not None and name != "new.txt":
            assert never_packed(status) == [name]
        file.unlink()
    assert leave_work(desk.session) is None
    assert not desk.session.has_work


@pytest.mark.parametrize(
    ("days", "what", "dropped"),
    [
        (91, "", True),
        (89, "", False),
        (91, "image", False),
        (91, "edits", False),
        (91, "record", False),
    ],
)
def test_when_a_session_is_dropped_by_itself(
    desk: Desk, days: int, what: str, dropped: bool
) -> None:
    desk.open()
    folder = desk.session.folder
    if what == "edits":
        desk.write("new.txt", b"")
    if what != "image":
        desk.image.unlink()
    if what == "record":
        folder.record.write_text("{}")
    assert drop_abandoned() == []
    then = time.time() - days * 86400
    for path in [*folder.path.iterdir(), folder.path]:
        os.utime(path, (then, then))
    assert drop_abandoned() == ([str(desk.image)] if dropped else [])
    assert folder.path.exists() is not dropped


# -- what is noted of a session


def notes(desk: Desk) -> list[tuple[str, str, str, str]]:
    return [(p.severity, p.code, p.path, p.message) for p in desk.session.status().problems]


NO_BOARD = (
    "info", "no-board", "",
    "no board chosen: scripts become portable bytecode, models are stored as they are (aligned to "
    "16), no size limit is known; choose one with: mount --board BOARD",
)  # fmt: skip


def test_what_is_noted(desk: Desk) -> None:
    desk.open()
    assert notes(desk) == [NO_BOARD]
    desk.open(board="OPENMV4")
    assert notes(desk) == []
    folder = desk.session.folder
    folder.record.write_text("{}")
    assert notes(desk) == [("warning", "interrupted", "", "a write was interrupted; finish it "
                            f"with: romfsfs recover {desk.image}")]  # fmt: skip
    with folder.lock_for_change("x"):
        assert notes(desk) == [], "it is under way"
    folder.record.unlink()
    desk.write("romfs.toml", b'["*.bin"]\nalign = 16\n["no.such"]\nalign = 16\n')
    assert notes(desk) == [("info", "options", "romfs.toml", 'no file matches ["no.such"]')]


def test_what_is_noted_of_a_tree_that_was_started_empty(tmp_path: Path) -> None:
    desk = Desk.of_file(tmp_path / "app.img")
    desk.open(new=True, board="OPENMV4")
    assert notes(desk) == []
    (tmp_path / "old").mkdir()
    desk = Desk.with_image(tmp_path / "old", {"a": b"1"})
    desk.open(new=True, board="OPENMV4")
    assert notes(desk) == [("info", "new", "", "started empty (mount --new): the commit replaces "
                            "all that the target holds")]  # fmt: skip
    assert Problem("x", "", "y").severity == "error"
