"""What something relies on is synced before that, at every step: see `ordered.py`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import needs
import pytest
from real_mount import CLEAN, compiled

from romfsfs.devices.file import FileDevice
from romfsfs.image.writer import encode

HERE = Path(__file__).parent

OPERATIONS = (
    "open", "reopen", "commit", "undo", "recover", "rollback", "revert", "discard", "close", "log",
    "build", "commit-to", "cycle",
)  # fmt: skip


@pytest.fixture(scope="module")
def recorder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled("recorder", tmp_path_factory.mktemp("recorder"))


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.program("cc")
def test_what_is_relied_on_is_on_the_disk(
    recorder: Path, operation: str, record_property: Callable[[str, object], None]
) -> None:
    done = subprocess.run(
        [sys.executable, HERE / "ordered.py", operation],
        env={**os.environ, **CLEAN, "LD_PRELOAD": str(recorder), "ROMFSFS_RECORDER": str(recorder)},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=290, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    record_property("syncs", found["syncs"])
    assert found["syncs"]
    assert found["found"] == {}


def test_what_is_read_back_was_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages that are not written yet cannot be dropped: the comparison would be with memory."""
    image = tmp_path / "new.img"
    image.write_bytes(encode({"a.txt": b"1"}))
    calls = []
    for name in ("fsync", "posix_fadvise"):
        real = getattr(os, name)

        def counted(
            fd: int, *rest: int, name: str = name, real: Callable[..., None] = real
        ) -> None:
            calls.append((name, os.fstat(fd).st_size))
            real(fd, *rest)

        monkeypatch.setattr(os, name, counted)
    with image.open("rb") as file:
        FileDevice(tmp_path / "app.img").write_image(file)
    size = image.stat().st_size
    dropped = [("posix_fadvise", size)] * needs.LINUX
    assert calls[: 1 + len(dropped)] == [("fsync", size), *dropped]


def test_a_file_that_is_taken_back_is_gone_for_certain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a commit made where no file was, and a rollback takes away."""
    image = tmp_path / "app.img"
    image.write_bytes(b"")
    synced = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.readlink(f"/proc/self/fd/{fd}")))
    FileDevice(image).clear()
    assert not image.exists()
    assert synced == [str(tmp_path)]
