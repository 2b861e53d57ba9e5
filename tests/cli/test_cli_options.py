"""Options of conversion, on the command line and in `romfs.toml`, for `build` and `mount`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_mounts import Mounts

import romfsfs
from romfsfs.image.model import FileNode, walk
from romfsfs.image.reader import read_image

Run = Callable[..., "tuple[int, str, str]"]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "src"
    (folder / "lib").mkdir(parents=True)
    (folder / "lib/mod.py").write_text("x = 1\n")
    (folder / "lib/raw.py").write_text("x = 2\n")
    (folder / "a.bin").write_bytes(bytes(10))
    (folder / "b.bin").write_bytes(bytes(10))
    return folder


def offsets(image: Path) -> dict[str, int]:
    nodes = walk(read_image(image.read_bytes()))
    return {path: node.extent.offset for path, node in nodes if isinstance(node, FileNode)}


def test_build_takes_options_by_pattern(run: Run, tree: Path, tmp_path: Path) -> None:
    image = tmp_path / "a.img"
    assert run("build", tree, image, "--convert", "lib/r*=no", "--align", "b.*=1024")[0] == 0
    found = offsets(image)
    assert sorted(found) == ["a.bin", "b.bin", "lib/mod.mpy", "lib/raw.py"]
    assert (found["b.bin"] % 1024, found["a.bin"] % 1024 != 0) == (0, True)
    assert run("build", tree, image, "--force", "--no-convert", "--convert", "mod.py=yes")[0] == 0
    assert sorted(offsets(image)) == ["a.bin", "b.bin", "lib/mod.mpy", "lib/raw.py"]


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--optimise", "size", "optimise is 'size'; it can be 'Performance' or 'Size'"),
        ("--align", "x=12", "align is 12; it can be a power of two from 4 to 65536"),
        ("--convert", "maybe", "convert is 'maybe'; it can be true or false"),
    ],
)
def test_a_value_that_cannot_be_is_refused(
    run: Run, tree: Path, tmp_path: Path, option: str, value: str, said: str
) -> None:
    code, _, err = run("build", tree, tmp_path / "a.img", option, value)
    assert code == 2
    assert f"{said}" in err
    assert option in err
    assert not (tmp_path / "a.img").exists()


def test_the_tree_says_for_which_board_it_is(run: Run, tree: Path, tmp_path: Path) -> None:
    (tree / "romfs.toml").write_text('board = "OPENMV_N6"\nexclude = ["a.bin"]\n')
    image = tmp_path / "a.img"
    assert run("build", tree, image)[0] == 0
    assert sorted(offsets(image)) == ["b.bin", "lib/mod.mpy", "lib/raw.mpy"]
    digest = romfsfs.build(tree, tmp_path / "b.img")
    assert (tmp_path / "b.img").read_bytes() == image.read_bytes()
    assert len(digest) == 64
    n6 = image.read_bytes()
    run("build", tree, image, "--force", "--board", "OPENMV4")  # the command line wins
    assert image.read_bytes() != n6


def test_mount_remembers_and_romfs_toml_counts_while_it_is_edited(mounts: Mounts) -> None:
    image, run = mounts.folder / "new.img", mounts.command
    cam = mounts.mount(image, "--new", "--convert", "raw.py=no")
    (cam / "raw.py").write_text("x = 1\n")
    (cam / "other.py").write_text("x = 1\n")
    (cam / "romfs.toml").write_text('board = "OPENMV4"\n["other.py"]\nconvert = false\n')
    status = json.loads(run("status", cam, "--json").out)
    assert status["board"] == "OPENMV4"
    assert {e["path"]: e["stored_as"] for e in status["entries"]} == {
        "raw.py": "raw.py", "other.py": "other.py", "romfs.toml": None,
    }  # fmt: skip
    (cam / "romfs.toml").write_text("board = 4\n")
    assert "error: romfs.toml: line 1: board is 4" in run("status", cam).out
    done = run("commit", cam)
    assert (done.code, "romfs.toml: line 1" in done.err) == (3, True)
    (cam / "romfs.toml").unlink()
    assert run("commit", cam).code == 0
    assert sorted(offsets(image)) == ["other.mpy", "raw.py"]
    (cam / "more.py").write_text("x = 1\n")
    run("umount", cam)
    mounts.mount(image, "--convert", "more.py=no")
    run("commit", cam)
    assert sorted(offsets(image)) == ["more.py", "other.mpy", "raw.py"]
