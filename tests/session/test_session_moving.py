"""Folders that are moved while the tree is looked at: nothing is seen at neither place."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from session_desk import Desk

from romfsfs.session.plan import shadow
from romfsfs.session.revert import leave_work
from romfsfs.session.tree import worktree

MODELS = {f"models/{number}": b"model" for number in range(3)}


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    desk = Desk.with_image(tmp_path, {"lib/deep/a": b"a", "lib/deep/b": b"b", **MODELS})
    desk.open()
    return desk


def test_a_folder_moved_up_while_it_is_listed(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """From there `..` led out of the tree, and the image lacked all that came after."""
    listed = worktree._list

    def slowly(fd: int) -> list[tuple[str, os.stat_result]]:
        found = listed(fd)
        if [name for name, _ in found] == ["a", "b"] and (desk.work / "lib/deep").exists():
            (desk.work / "lib/deep").rename(desk.work / "deep")
        return found

    monkeypatch.setattr(worktree, "_list", slowly)
    desk.commit()
    assert desk.stored() == {"deep/a": b"a", "deep/b": b"b", **MODELS}
    assert desk.session.status().clean


def test_a_folder_renamed_while_files_are_hashed(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its files were taken for removed, and the commit stored none of them."""
    desk.write("a", b"1")
    desk.write("new/1", b"1")
    desk.write("new/2", b"2")
    opened = shadow.open_file

    def slowly(root_fd: int, path: str) -> int:
        if path == "a" and (desk.work / "new").exists():
            (desk.work / "new").rename(desk.work / "other")
        return opened(root_fd, path)

    monkeypatch.setattr(shadow, "open_file", slowly)
    desk.commit()
    assert desk.stored()["other/1"] == b"1"
    assert desk.stored()["other/2"] == b"2"
    assert leave_work(desk.session) is None


def test_junk_that_comes_meanwhile_holds_nothing_up(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.write("a", b"1")
    opened = shadow.open_file
    names = iter(range(100))

    def slowly(root_fd: int, path: str) -> int:
        desk.write(f".a.{next(names)}.swp", b"")
        return opened(root_fd, path)

    monkeypatch.setattr(shadow, "open_file", slowly)
    desk.commit()
    assert next(names) == 1  # it was looked at once
