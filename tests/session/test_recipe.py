"""Recipes as a checkout of the firmware has them, written here: order, globs, labels, options."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from romfsfs.cli import main
from romfsfs.convert import FileOptions
from romfsfs.errors import UsageError
from romfsfs.image.model import FileNode, walk
from romfsfs.image.reader import read_image
from romfsfs.session.recipe import MAX_BYTES, board_of, ingredients, laid_out

MODEL = "lib/models/b.tflite"


@pytest.fixture
def top(tmp_path: Path) -> Path:
    folder = tmp_path / "firmware"
    for path in (MODEL, "lib/models/b.txt", "data/z.py", "data/a.bin", "data/inner/c.bin"):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(f"# {path}\n")
    return folder


def write(top: Path, entries: object, board: str = "OPENMV4", partition: int = 0) -> Path:
    recipe = top / "boards" / board / "romfs_config.json"
    recipe.parent.mkdir(parents=True, exist_ok=True)
    recipe.write_text(json.dumps({str(partition): {"size": "0x20000", "entries": entries}}))
    return recipe


def entry(kind: str, path: str, **more: Any) -> dict[str, Any]:
    return {"type": kind, "path": path, **more}


def places(image: Path) -> dict[str, int]:
    nodes = walk(read_image(image.read_bytes()))
    return {path: node.extent.offset for path, node in nodes if isinstance(node, FileNode)}


def test_order_globs_labels_and_alignment(top: Path, tmp_path: Path) -> None:
    for name in ("c.bin", "c.txt"):  # no model: what it is called decides what is converted
        (top / "lib/models" / name).write_text("1")
    recipe = write(top, [
        entry("data", "{TOP}/data/*"),
        entry("tflite", "{TOP}/lib/models/c.bin", alignment=512, optimize="Performance"),
        entry("data", "{TOP}/nowhere", enabled=False),
    ])  # fmt: skip
    image = tmp_path / "a.img"
    # It is for the board that its folder is called after.
    assert main(["build", str(top), str(image), "--recipe", str(recipe)]) == 0
    found = places(image)
    assert list(found) == ["a.bin", "z.py", "c.bin", "c.txt"]  # sorted, no folders, uncompiled
    assert found["c.bin"] % 512 == 0


def test_options_of_an_entry(top: Path) -> None:
    recipe = write(top, [entry("tflite", MODEL, optimize="Size", profile="default", alignment=32)])
    model, labels = ingredients(recipe, top, 0)
    assert model.options == FileOptions(optimise="Size", profile="default", align=32)
    assert (labels.file, labels.options.convert) == (top / "lib/models/b.txt", False)


def test_what_is_taken_as_it_is_and_what_is_left_out(top: Path) -> None:
    """Labels belong to models alone; stages of 0 are all of them; an entry may be switched off."""
    entries = [
        entry("haar", "{TOP}/data/a.bin", stages=0), entry("data", MODEL, enabled=True),
        entry("tflite", "data/z.py"), entry("tflite", "data/inner/*"), entry("data", "data/*b*"),
        entry("data", "nowhere", enabled=False),
    ]  # fmt: skip
    plain, as_it_is = FileOptions(), FileOptions(convert=False)
    assert ingredients(write(top, entries), top, 0) == [
        (top / "data/a.bin", plain), (top / MODEL, as_it_is), (top / "data/z.py", plain),
        (top / "data/inner/c.bin", plain), (top / "data/a.bin", as_it_is),
    ]  # fmt: skip
    for name, board in (("OPENMV4", "OPENMV4"), ("NO_BOARD", None)):
        assert board_of(write(top, [], name)) == board
    big = write(top, entries)
    big.write_bytes(big.read_bytes() + b" " * (MAX_BYTES - big.stat().st_size))
    assert len(ingredients(big, top, 0)) == 5
    big.write_bytes(b" " * MAX_BYTES + b"{}")
    with pytest.raises(UsageError, match="not JSON"):
        ingredients(big, top, 0)
    for text in ("[]", '{"0": []}', '{"0": {"entries": {}}}'):
        big.write_text(text)
        with pytest.raises(UsageError, match="it has no entries for partition 0"):
            ingredients(big, top, 0)


def test_a_file_that_is_named_twice_is_there_once(top: Path) -> None:
    recipe = write(top, [entry("tflite", MODEL), entry("txt", "{TOP}/lib/models/b.txt")])
    with laid_out(recipe, top, 0) as laid:
        assert laid.order == ("b.tflite", "b.txt")
        assert (laid.folder / "b.txt").read_bytes() == (top / "lib/models/b.txt").read_bytes()
    assert not laid.folder.exists()


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ([entry("data", "{TOP}/data/q*")], "there is no {TOP}/data/q*"),
        (
            [entry("data", "{BUILD}/x.bin")],
            "{BUILD}/x.bin uses a variable that only the firmware's make defines",
        ),
        (
            [entry("haar", MODEL, stages=12)],
            f"{MODEL}: stages is 12, but only 0 (all stages) is supported",
        ),
        ([entry("tflite", MODEL, alignment=24)], f"{MODEL}: align is 24"),
        ([entry("tflite", MODEL, optimize="Fast")], f"{MODEL}: optimise is 'Fast'"),
        ([{"type": "data"}], "an entry has no path: {'type': 'data'}"),
        ([{"path": 7 * "x", "type": 9}, ["x" * 99]], "there is no xxxxxxx"),
        ([["x" * 99]], f"an entry has no path: ['{'x' * 58}"),
        (
            [entry("data", "data/a.bin"), entry("data", "other/a.bin")],
            "two entries would be stored as a.bin",
        ),
        ({}, "it has no entries for partition 0"),
    ],
)
def test_what_cannot_be_followed_is_refused(top: Path, entries: object, said: str) -> None:
    (top / "other").mkdir()
    (top / "other/a.bin").write_text("another")
    recipe = write(top, entries)
    with pytest.raises(UsageError) as refused, laid_out(recipe, top, 0):
        pass
    line = refused.value.line
    assert line.startswith(f"the recipe cannot be followed: {said}")
    rest = line.removeprefix(f"the recipe cannot be followed: {said}").partition(" (")[2]
    end = f"{recipe}); DIR is the checkout of the firmware, {{TOP}} in the recipe"
    assert rest.endswith(end)
    assert said.startswith((f"{MODEL}: align", f"{MODEL}: opt")) or rest == end


def test_no_json_no_partition_no_board(top: Path, tmp_path: Path, capsys) -> None:
    recipe = write(top, [], partition=1)
    with pytest.raises(UsageError, match="no entries for partition 0"):
        ingredients(recipe, top, 0)
    recipe.write_text("{")
    with pytest.raises(UsageError, match="not JSON"):
        ingredients(recipe, top, 0)
    elsewhere = tmp_path / "my.json"
    elsewhere.write_text(json.dumps({"0": {"entries": []}}))
    assert main(["build", str(top), str(tmp_path / "a.img"), "--recipe", str(elsewhere)]) == 2
    assert "a recipe is built for one board" in capsys.readouterr().err
