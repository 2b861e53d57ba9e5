"""What is printed of cameras, all of it (`tests/transcripts.py`)."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from camera_rig import KIB, make_image
from convert.convert_helpers import make_model
from ota_slots import one_slot, two_slots

from romfsfs.boards import get_board
from romfsfs.image.writer import encode
from romfsfs.simulator import Simulator
from romfsfs.simulator.config import PartitionConfig

HERE = Path(__file__).parent / "transcripts"
#: many commands, one after the other
pytestmark = pytest.mark.timeout(600)
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


def test_what_is_said_of_a_single_slot(
    connect: Connect, retell: Callable[..., None], tmp_path: Path
) -> None:
    """On a board whose flash is one erase unit."""
    sizes = {"held": 20 * KIB, "other": 24 * KIB, "large": 122 * KIB}
    images = {
        name: make_image("OPENMV4", size=size, notes_txt=b"A\n") for name, size in sizes.items()
    }
    single = one_slot(128 * KIB, images.pop("held"), stride=32)
    camera = connect("OPENMV4", unique_id=bytes(12), images={0: single}, runs_rom=True)
    for name, image in (images | {"single": single}).items():
        (tmp_path / f"{name}.img").write_bytes(image)
    retell(HERE / "single.txt", {camera.port: "/dev/ttyACM0"})
    assert bytes(camera.flash[0].content) == single


def test_what_is_said_of_slots_and_models(
    connect: Connect, retell: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A camera of openmv-ota, and an image with models for it, one of which it cannot open."""
    size, shape = 512 * KIB, [1, 4, 4]
    a, b = (make_image("OPENMV4P", notes_txt=text) for text in (b"A\n", b"B\n"))
    slots = two_slots(size, a, b, newer="B")
    camera = connect(
        "OPENMV4P", unique_id=bytes(12), partitions=(PartitionConfig(size),), images={0: slots},
        runs_rom=True,
    )  # fmt: skip
    (tmp_path / "slots.img").write_bytes(slots)
    models = {
        name: make_model([(kind, [0], [1])], [(9, shape, 0), (9, shape, 0)], [0], [1])
        for name, kind in (("add.tflite", 0), ("pow.tflite", 78))
    }
    plain = connect("OPENMV4P", unique_id=bytes([1] * 12))
    (tmp_path / "models.img").write_bytes(
        encode(models, get_board("OPENMV4P").partition().alignment)
    )
    ports = {str(tmp_path / name): f"/dev/{name}" for name in ("ttyACM0", "ttyACM1")}
    for port, each in zip(ports, (camera, plain), strict=True):
        os.symlink(each.port, port)
    monkeypatch.setenv("ROMFSFS_PORTS", ":".join(ports))
    retell(HERE / "slots.txt", ports)
