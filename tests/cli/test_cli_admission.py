"""What cannot work on a board is said at the copy, by every command that sees it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cli_mounts import Mounts, Ran

from romfsfs.boards import get_board
from romfsfs.cli.mounting import _worth_knowing
from romfsfs.image.writer import encode

#: A network for the N6's NPU, and what a clone without LFS leaves under a model's name.
NETWORK = b"NBIN" + bytes(200)
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"


def for_board(folder: Path, name: str, board: str, files: dict[str, bytes]) -> Path:
    path = folder / name
    path.write_bytes(encode(files, get_board(board).partition(0).alignment))
    return path


def test_verify_asks_what_runs_on_the_board(tmp_path: Path, run: Callable[..., Ran]) -> None:
    image = for_board(tmp_path, "a.img", "OPENMV_N6", {"m.tflite": NETWORK, "main.py": b"x = 1\n"})
    good = run("verify", image, "--board", "OPENMV_N6")
    assert (good.code, good.out) == (0, f"{image}: valid and fits OPENMV_N6, 2 files, 294 B\n")
    assert "main.py: stock firmware starts main.py from /flash" in good.err
    bad = run("verify", image, "--board", "OPENMV_AE3", "--json")
    assert bad.code == 4
    record = json.loads(bad.out)
    assert not record["ok"]
    assert [(each["code"], each["severity"]) for each in record["problems"]] == [
        ("npu-mismatch", "error"),
        ("not-started", "warning"),
    ]
    assert record["failures"] == [
        "m.tflite: compiled for the N6's Neural-ART, which OPENMV_AE3 does not have; copy the "
        "original model"
    ]
    assert run("verify", image).code == 0  # of an unknown board nothing is known


def test_build_refuses_what_cannot_work(tmp_path: Path, run: Callable[..., Ran]) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "net.tflite").write_bytes(NETWORK)
    (tree / "lost.tflite").write_bytes(POINTER)
    done = run("build", tree, "out.img", "--board", "OPENMV4P")
    assert done.code == 3
    assert "net.tflite: compiled for the N6's Neural-ART, which OPENMV4P does not have" in done.err
    assert "lost.tflite: is a Git LFS pointer, not .tflite; git lfs pull" in done.err
    assert not (tmp_path / "out.img").exists()
    (tree / "lost.tflite").unlink()
    assert run("build", tree, "out.img", "--board", "OPENMV_N6").code == 0


@pytest.mark.usefixtures("fuse_device")
def test_what_the_image_held_is_told_and_what_is_new_is_refused(
    tmp_path: Path, mounts: Mounts, run: Callable[..., Ran]
) -> None:
    image = for_board(tmp_path, "a.img", "OPENMV4P", {"net.tflite": NETWORK, "a.txt": b"a\n"})
    cam = mounts.mount(image, "--board", "OPENMV4P")
    told = run("status", cam).out
    assert "nothing to commit, 1 warning" in told
    assert "net.tflite: already in the image: compiled for the N6's Neural-ART" in told
    (cam / "lost.tflite").write_bytes(POINTER)
    record = json.loads(run("status", cam, "--json").out)
    states = {entry["path"]: entry["state"] for entry in record["entries"]}
    assert states == {"a.txt": "ready", "lost.tflite": "failed", "net.tflite": "ready"}
    refused = run("commit", cam)
    assert refused.code == 3
    assert "lost.tflite: is a Git LFS pointer" in refused.err
    (cam / "lost.tflite").unlink()
    (cam / "a.txt").write_bytes(b"b\n")
    assert run("commit", cam).code == 0  # what nobody touched stops nothing


def test_no_model_is_looked_into_where_no_board_is_chosen() -> None:
    """A mount would wait for notes that are of a board."""
    info = SimpleNamespace(board=None, notes=(), capacity=None)
    session: Any = SimpleNamespace(
        info=info, settings=SimpleNamespace(capacity=None)
    )  # and no image
    (note,) = _worth_knowing(session, "cam", resumed=None)
    assert note.startswith("no board chosen")


@pytest.mark.usefixtures("fuse_device")
def test_a_mount_for_another_board_says_so(tmp_path: Path, mounts: Mounts) -> None:
    image = for_board(tmp_path, "a.img", "OPENMV_N6", {"net.tflite": NETWORK})
    cam = tmp_path / "cam"
    cam.mkdir()
    mounts.directories.append(cam)
    done = mounts.shell("mount", image, cam, "--board", "OPENMV_AE3")
    assert "1 file in the image cannot work on OPENMV_AE3: romfsfs status" in done.err
