"""What is printed of cameras, all of it (`tests/transcripts.py`)."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from camera_rig import KIB, make_image

from romfsfs.simulator import Simulator

HERE = Path(__file__).parent / "transcripts"
Connect = Callable[..., Simulator]


def test_what_is_said_of_one_camera(
    connect: Connect, retell: Callable[..., None], tmp_path: Path, fuse_device: None
) -> None:
    held = make_image("OPENMV4P", size=300 * KIB, notes_txt=b"old\n")
    camera = connect("OPENMV4P", unique_id=bytes(range(12)), images={0: held})
    (tmp_path / "other.img").write_bytes(make_image("OPENMV4P", size=40 * KIB, other_txt=b"1"))
    retell(HERE / "one.txt", {camera.port: "/dev/ttyACM0"})


def test_what_is_said_of_several_cameras(
    connect: Connect, retell: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ports = {str(tmp_path / f"port{number}"): f"/dev/ttyACM{number}" for number in range(2)}
    boards = ("OPENMV_AE3", "OPENMV4P")
    for number, (port, board) in enumerate(zip(ports, boards, strict=True)):
        os.symlink(connect(board, unique_id=bytes([number] * 12)).port, port)
    monkeypatch.setenv("ROMFSFS_PORTS", ":".join(ports))
    (tmp_path / "app.img").write_bytes(make_image("OPENMV_AE3", partition=1, notes_txt=b"1\n"))
    (tmp_path / "large.img").write_bytes(make_image("OPENMV_AE3", size=9000 * KIB))
    retell(HERE / "several.txt", ports)
