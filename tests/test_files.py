"""Replacing a file, where others tidy up at the same time and names are as long as they may be."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from romfsfs.errors import RomfsError
from romfsfs.system.files import remove_temporaries, replace_atomically
from romfsfs.system.private import check_private
from romfsfs.system.removal import remove_folder


@pytest.mark.parametrize("held", [False, True])
def test_a_process_that_tidies_up_just_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held: bool
) -> None:
    """It finds a file that is not locked yet, and may be just about to remove it."""
    flock, holders, abandoned = fcntl.flock, [], []

    def late(fd: int, how: int) -> None:
        with monkeypatch.context() as once:
            once.setattr(fcntl, "flock", flock)
            if not holders and held:
                (temporary,) = tmp_path.glob("*.tmp")
                abandoned.append(temporary)
                holders.append(os.open(temporary, os.O_RDONLY))
                flock(holders[0], fcntl.LOCK_EX)
            elif not holders:
                holders.append(os.open(tmp_path, os.O_RDONLY))
                remove_temporaries(tmp_path)
        flock(fd, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with replace_atomically(tmp_path / "a") as file:
        file.write(b"1")
        if held:
            abandoned[0].unlink()
    os.close(holders[0])
    assert (tmp_path / "a").read_bytes() == b"1"
    assert os.listdir(tmp_path) == ["a"]


def test_a_name_of_255_bytes(tmp_path: Path) -> None:
    target = tmp_path / ("é" * 127 + "x")
    target.write_bytes(b"old")
    pid = os.fork()
    if pid == 0:
        with replace_atomically(target):
            os._exit(0)  # as if it had been killed
    os.waitpid(pid, 0)
    assert len(os.listdir(tmp_path)) == 2
    with replace_atomically(target) as file:
        file.write(b"new")
    assert os.listdir(tmp_path) == [target.name]
    assert target.read_bytes() == b"new"


@pytest.mark.parametrize("deep", ["sub", "a/sub", "a/b/sub"])
def test_a_folder_is_swapped_for_a_link_while_it_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deep: str
) -> None:
    """By somebody who may write to it: what the link leads to is not touched."""
    victim = tmp_path / "victim"
    (victim / "sub").mkdir(parents=True)
    (victim / "file").write_bytes(b"precious")
    victim.chmod(0o755)
    doomed = tmp_path / "doomed"
    folder = doomed / deep
    (folder / "inner").mkdir(parents=True)
    scandir = os.scandir

    def slow(where: Any) -> contextlib.nullcontext[list[os.DirEntry[str]]]:
        with scandir(where) as found:
            entries = list(found)
        for entry in entries:
            if entry.name == "sub":
                target = entry.name if isinstance(where, int) else entry.path
                fd = where if isinstance(where, int) else None
                os.rename(target, tmp_path / "away", src_dir_fd=fd)
                os.symlink(victim, target, dir_fd=fd)
        return contextlib.nullcontext(entries)

    monkeypatch.setattr(os, "scandir", slow)
    with contextlib.suppress(OSError):
        remove_folder(doomed)
    monkeypatch.undo()
    assert (victim / "file").read_bytes() == b"precious"
    assert (victim / "sub").is_dir()
    assert victim.stat().st_mode & 0o777 == 0o755
    remove_folder(doomed)
    assert not doomed.exists()
    assert victim.exists()


def test_a_tree_that_its_owner_closed_and_that_is_deeper_than_any_path(tmp_path: Path) -> None:
    doomed = tmp_path / "doomed"
    doomed.mkdir()
    here = os.open(doomed, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("folder", dir_fd=here)
        os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=here))
        below = os.open("folder", os.O_RDONLY, dir_fd=here)
        os.fchmod(here, 0)
        os.close(here)
        here = below
    os.close(here)
    remove_folder(doomed)
    assert not os.path.lexists(doomed)


@pytest.mark.parametrize(
    ("group", "members", "refused"),
    [("me", [], False), ("me", ["me"], False), ("me", ["me", "you"], True), ("me", ["you"], True),
     ("staff", [], True), (None, [], True)],
)  # fmt: skip
def test_a_folder_for_a_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group: str | None, members: list[str],
    refused: bool,
) -> None:  # fmt: skip
    """Many systems give each user a group of his own, which may write to his folders."""

    def of_group(gid: int) -> SimpleNamespace:
        if group is None:
            raise KeyError(gid)
        return SimpleNamespace(gr_name=group, gr_mem=members)

    monkeypatch.setattr("grp.getgrgid", of_group)
    monkeypatch.setattr("pwd.getpwuid", lambda uid: SimpleNamespace(pw_name="me"))
    folder = tmp_path / "kept"
    folder.mkdir()
    folder.chmod(0o770)
    if refused:
        with pytest.raises(RomfsError, match="other users may write to the folder"):
            check_private(folder)
    else:
        check_private(folder)
