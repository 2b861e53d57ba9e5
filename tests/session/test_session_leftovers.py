"""What is never packed is nowhere but in the work tree: it must not be lost with a clean one."""

from __future__ import annotations

import os

import pytest
from session_desk import Desk, tree_of

from romfsfs.image.writer import encode
from romfsfs.session.revert import leave_work, revert

HEAD = b"ref: refs/heads/main\n"


@pytest.fixture
def desk(desk: Desk) -> Desk:
    """With a repository in its root, and an editor's backup in a folder of the image."""
    desk.open()
    hook = desk.write(".git/hooks/commit", b"#!/bin/sh\n")
    hook.chmod(0o755)
    os.utime(desk.write(".git/HEAD", HEAD), ns=(1, 2))
    os.utime(desk.work / ".git", ns=(3, 4))
    desk.write("lib/b.bin~", b"backup")
    return desk


def test_a_repository_is_still_there_at_the_next_mount(desk: Desk) -> None:
    desk.write("a.txt", b"second\n")
    desk.commit()
    status = leave_work(desk.session)
    assert status is not None
    assert status.clean
    again = desk.again()
    again.open()
    assert (again.work / ".git/HEAD").read_bytes() == HEAD
    assert (again.work / "lib/b.bin~").read_bytes() == b"backup"


def test_without_such_files_nothing_stays(desk: Desk) -> None:
    revert(desk.session)
    for path in (".git/hooks/commit", ".git/HEAD", "lib/b.bin~"):
        (desk.work / path).unlink()
    for path in (".git/hooks", ".git"):
        (desk.work / path).rmdir()
    assert leave_work(desk.session) is None
    assert not desk.session.has_work


@pytest.mark.parametrize("links", [True, False])
def test_it_follows_into_the_tree_of_another_image(
    desk: Desk, links: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not links:

        def refused(*args: object, **how: object) -> None:
            raise PermissionError(1, "Operation not permitted")

        monkeypatch.setattr(os, "link", refused)
    desk.image.write_bytes(encode({"other.txt": b"elsewhere", "lib/b.bin": b"2"}))
    again = desk.again()
    again.open()
    assert tree_of(again.work) == {
        ".git": None, ".git/HEAD": HEAD, ".git/hooks": None, ".git/hooks/commit": b"#!/bin/sh\n",
        "lib": None, "lib/b.bin": b"2", "lib/b.bin~": b"backup", "other.txt": b"elsewhere",
    }  # fmt: skip
    assert (again.work / ".git/hooks/commit").stat().st_mode & 0o777 == 0o755
    assert (again.work / ".git/HEAD").stat().st_mtime_ns == 2
    assert (again.work / ".git").stat().st_mtime_ns == 4
    assert again.session.status().clean


def test_its_folder_is_made_again_where_the_image_has_none(desk: Desk) -> None:
    desk.image.write_bytes(encode({"lib": b"a file now"}))
    (desk.work / "x").mkdir()
    desk.commit(force=True)
    (desk.work / "x/y~").write_bytes(b"backup")
    desk.image.write_bytes(encode({"lib": b"a file now"}))
    again = desk.again()
    again.open()
    assert (again.work / "x/y~").read_bytes() == b"backup"
    assert (again.work / "lib").read_bytes() == b"a file now"


def test_throwing_the_edits_away_keeps_it(desk: Desk) -> None:
    desk.write("a.txt", b"second\n")
    desk.write("new.txt", b"n")
    assert sorted(revert(desk.session)) == ["a.txt", "new.txt"]
    assert (desk.work / "a.txt").read_bytes() == b"first\n"
    assert not (desk.work / "new.txt").exists()
    assert (desk.work / ".git/HEAD").read_bytes() == HEAD


def test_however_deep_it_lies(desk: Desk) -> None:
    here = os.open(desk.work / ".git", os.O_RDONLY)
    for _ in range(25):
        os.mkdir("d" * 200, dir_fd=here)
        below = os.open("d" * 200, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(os.open("deep", os.O_CREAT | os.O_WRONLY, dir_fd=here))
    os.close(here)
    desk.image.write_bytes(encode({}))
    again = desk.again()
    again.open()
    assert any(entry.path.endswith("/deep") for entry in again.session.status().entries)
