"""Files that did not change are told by their signatures, and not opened: the shortcut itself.

A file that was written just now has no signature that proves anything (`digests.certain`), so
these tests let their files grow older than a tick of the kernel's clock before they are committed.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from session_desk import Desk
from stopping import ends_at

from romfsfs.session.keep import steps
from romfsfs.session.rebase.recovery import recover
from romfsfs.session.rebase.undo import undo
from romfsfs.session.session import Session
from romfsfs.session.tree import digests, restore
from romfsfs.session.tree.digests import certain
from romfsfs.system.clock import wait_until_certain


class Stop(Exception):
    """The process ends here."""


def age(desk: Desk) -> None:
    wait_until_certain([path.stat().st_ctime_ns for path in desk.work.rglob("*")])


@pytest.fixture
def aged(desk: Desk) -> Desk:
    """Two commits of files that had signatures: of a.txt and c.txt, other bytes of one length."""
    desk.open()
    for content in (b"one", b"two"):
        for name in ("a.txt", "c.txt", "lib/d.txt"):
            desk.write(name, content)
        age(desk)
        desk.commit()
    assert all(entry.signature for entry in desk.session.base.entries if not entry.is_dir)
    return desk


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files of work trees that are read to be compared."""
    found: list[str] = []
    for module in (digests, restore):
        real = module.digest_fd

        def counted(fd: int, *rest: Any, real: Any = real) -> str:
            found.append(Path(os.readlink(f"/proc/self/fd/{fd}")).name)
            return str(real(fd, *rest))

        monkeypatch.setattr(module, "digest_fd", counted)
    return found


def test_what_did_not_change_is_not_read(aged: Desk, hashed: list[str]) -> None:
    again = aged.again()
    assert again.session.status().clean
    assert hashed == []
    aged.write("a.txt", b"2.5")
    age(aged)
    assert again.changes() == {"a.txt": "M"}
    assert hashed == ["a.txt"]
    assert again.changes() == {"a.txt": "M"}, "read once for as long as it is as it is"
    assert hashed == ["a.txt"]
    again.commit()
    assert set(hashed) == {"a.txt"}


def test_a_file_that_was_changed_just_now_is_read_each_time(aged: Desk, hashed: list[str]) -> None:
    """Another change within the clock's tick may leave the same signature."""
    aged.write("a.txt", b"2.5")
    found = os.stat(aged.work / "a.txt")
    again = aged.again()
    while certain(digests.Signature.of(found)):  # a slow machine: anew
        aged.write("a.txt", b"2.5")
        found = os.stat(aged.work / "a.txt")
    again.changes()
    assert "a.txt" in hashed


def test_an_undo_reads_no_file_that_did_not_change(aged: Desk, hashed: list[str]) -> None:
    undo(aged.session, aged.device)
    assert aged.stored()["a.txt"] == b"one"
    assert (aged.work / "lib/d.txt").read_bytes() == b"one"
    assert hashed == []


@pytest.mark.parametrize("step", ["target-written", "switched", "revert-staged"])
def test_an_edit_between_a_killed_undo_and_its_recovery_stays(aged: Desk, step: str) -> None:
    with ends_at(step, Stop):
        undo(aged.session, aged.device)
    aged.write("a.txt", b"new")
    (aged.work / "c.txt").write_bytes(b"2,5")
    age(aged)
    assert recover(Session.load(aged.session.folder), aged.device) == "finished"
    assert aged.stored()["a.txt"] == b"one"
    assert (aged.work / "a.txt").read_bytes() == b"new"
    assert (aged.work / "c.txt").read_bytes() == b"2,5"
    assert (aged.work / "lib/d.txt").read_bytes() == b"one", "what is as it was follows"
    assert aged.again().changes() == {"a.txt": "M", "c.txt": "M"}


@pytest.mark.parametrize("step", ["switched", "decided", "revert-removed", "revert-staged"])
def test_an_edit_while_an_undo_follows_stays(
    aged: Desk, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Saved after it was compared, and before the old file takes its place: at any moment."""
    from romfsfs.session.rebase import transaction

    def save(reached: str) -> None:
        if reached == step:
            aged.write("a.txt", b"new")
            aged.write("lib/d.txt", b"longer than it was")

    real = transaction.follow

    def follow(*args: Any) -> None:
        *others, decide = args

        def decided(paths: list[str]) -> None:
            save("decided")
            decide(paths)

        real(*others, decided)

    monkeypatch.setattr(transaction, "follow", follow)
    steps.on_step = save
    undo(aged.session, aged.device)
    assert (aged.work / "a.txt").read_bytes() == b"new"
    assert (aged.work / "lib/d.txt").read_bytes() == b"longer than it was"
    assert (aged.work / "c.txt").read_bytes() == b"one"
    assert not list(aged.work.rglob(".romfsfs*"))


def test_a_base_that_another_process_replaced_is_read_again(aged: Desk) -> None:
    mine = aged.session.held()
    assert aged.session.held() is mine, "and not as long as nobody does"
    other = aged.again()
    aged.write("a.txt", b"three")
    other.commit()
    assert aged.session.held() is not mine
    assert aged.session.status().clean


def test_options_are_read_again_when_their_file_changes(aged: Desk) -> None:
    options = aged.write("romfs.toml", b"exclude = ['*.txt']\n")
    age(aged)
    settings = aged.session.settings
    assert aged.session.settings is settings, "and not as long as it does not"
    assert aged.session.settings.excludes.matches("a.txt")
    options.write_bytes(b"exclude = ['*.bin']\n")
    assert not aged.session.settings.excludes.matches("a.txt")
    age(aged)
    settings = aged.session.settings
    assert aged.session.settings is settings
    options.unlink()
    assert not aged.session.settings.excludes.matches("lib/b.bin")
