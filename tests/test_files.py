"""Replacing a file, where others tidy up at the same time and names are as long as they may be."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from romfsfs.system.files import remove_temporaries, replace_atomically


@pytest.mark.parametrize("held", [False, True])
def test_a_process_that_tidies_up_just_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held: bool
) -> None:
    """It finds a file that is not locked yet, and may be just about to remove it."""
    flock, holders = fcntl.flock, []

    def late(fd: int, how: int) -> None:
        with monkeypatch.context() as once:
            once.setattr(fcntl, "flock", flock)
            if not holders and held:
                (temporary,) = tmp_path.glob("*.tmp")
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
            (tmp_path / f"a.{os.getpid()}.tmp").unlink()
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
