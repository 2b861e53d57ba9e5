"""An image holds no owners: changes of them are refused, what copying tools do is not."""

from __future__ import annotations

import os
import subprocess

import pytest
from mounts import Mounted


def test_a_file_keeps_its_owner(mounted: Mounted) -> None:
    path = mounted.mnt / "a.txt"
    path.write_text("a")
    os.chown(path, os.getuid(), -1)
    os.chown(path, -1, os.getgid())
    with pytest.raises(PermissionError):
        os.chown(path, os.getuid() + 1, -1)
    with open(path, "r+b") as file, pytest.raises(PermissionError):
        os.fchown(file.fileno(), -1, os.getgid() + 1)
    assert path.stat().st_uid == os.getuid()


def test_cp_a_of_own_files(mounted: Mounted) -> None:
    source = mounted.mnt / "source"
    source.write_text("s")
    subprocess.run(["cp", "-a", source, mounted.mnt / "copy"], check=True)
    assert (mounted.mnt / "copy").read_text() == "s"
