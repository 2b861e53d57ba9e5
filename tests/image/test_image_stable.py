"""The stable layout: the same content to every reader, in few changed erase blocks."""

from __future__ import annotations

import io
import random
import tempfile
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_trees import (
    Tree,
    directory,
    entries,
    file,
    firmware_view,
    lines_run,
    named,
    random_tree,
    record,
)
from image_trees import image as raw_image
from oracles import openmv_ota

from romfsfs.image.check import check_image, lint
from romfsfs.image.layout import (
    DEFAULT_RULES,
    AlignmentRules,
    BasePiece,
    FilePiece,
    Layout,
    TreeEntry,
    canonical,
)
from romfsfs.image.model import FileNode, walk
from romfsfs.image.reader import read_image
from romfsfs.image.stable import stable
from romfsfs.image.writer import Data, write_image

BLOCK = 4096


def join(layout: Layout, tree: Tree, base: bytes = b"") -> bytes:
    out = io.BytesIO()
    for piece in layout.pieces:
        if isinstance(piece, BasePiece):
            assert piece.offset == out.tell()
            out.write(base[piece.offset : piece.offset + piece.size])
        elif isinstance(piece, FilePiece):
            data = tree[piece.path]
            assert data is not None
            assert len(data) == piece.size
            out.write(data)
        else:
            out.write(piece)
    assert out.tell() == layout.size
    return out.getvalue()


def fresh(tree: Tree, rules: AlignmentRules = DEFAULT_RULES) -> bytes:
    return join(canonical(entries(tree), rules), tree)


def edit(
    base: bytes,
    old: Tree,
    new: Tree,
    rules: AlignmentRules = DEFAULT_RULES,
    erase_size: int = BLOCK,
    capacity: int | None = None,
) -> tuple[bytes, Layout]:
    """The new image, after checking everything that must be true of every one."""
    unchanged = {path for path in new if new[path] is not None and new[path] == old.get(path)}
    parsed = read_image(base)
    layout = stable(entries(new), rules, parsed, unchanged, erase_size, capacity, base)
    image = join(layout, new, base)
    assert len(image) % 2 == 0
    result = read_image(image)
    assert view(image) == new
    assert {note.code for note in lint(result, rules)} <= {"padding", "ide-name"}
    places = {path: node.extent for path, node in walk(result) if isinstance(node, FileNode)}
    assert places == dict(layout.placements)
    if layout.stable:
        before = {path: node.extent for path, node in walk(parsed) if isinstance(node, FileNode)}
        moved = {path for path in unchanged if before[path] != places[path]}
        assert moved == layout.moved
    return image, layout


def view(image: bytes) -> Tree:
    return {
        path: image[node.extent.offset : node.extent.end] if isinstance(node, FileNode) else None
        for path, node in walk(read_image(image))
    }


def changed_blocks(old: bytes, new: bytes, erase_size: int = BLOCK) -> list[int]:
    """Blocks that a camera has to rewrite; behind the old image it is anybody's guess."""
    return [
        at // erase_size
        for at in range(0, len(new), erase_size)
        if new[at : at + erase_size] != old[at : at + erase_size][: len(new) - at]
    ]


def random_edit(rng: random.Random, tree: Tree, largest: int) -> Tree:
    """A few of what users do: add, delete, rewrite, grow, shrink, a directory more or less."""
    new = dict(tree)
    for _ in range(rng.randint(1, 3)):
        files = [path for path, data in new.items() if data is not None]
        folders = ["", *(path for path, data in new.items() if data is None)]
        action = rng.randrange(7)
        if action <= 1 or not files:
            name = f"f{rng.randrange(10**6)}{rng.choice(['.txt', '.tflite', '.mpy'])}"
            path = f"{rng.choice(folders)}/{name}".lstrip("/")
            new[path] = rng.randbytes(rng.randrange(largest))
        elif action == 2:
            del new[rng.choice(files)]
        elif action == 3:
            path = f"{rng.choice(folders)}/d{rng.randrange(10**6)}".lstrip("/")
            new[path] = None
            new[path + "/x"] = rng.randbytes(rng.randrange(largest))
        elif action == 4 and len(folders) > 1 and rng.random() < 0.3:
            gone = rng.choice(folders[1:])
            new = {p: d for p, d in new.items() if p != gone and not p.startswith(gone + "/")}
        else:
            path = rng.choice(files)
            data = new[path] or b""
            new[path] = rng.choice(
                [
                    rng.randbytes(len(data)),
                    data + rng.randbytes(rng.randrange(1, 9)),
                    data[: -rng.randrange(1, 6)],
                    rng.randbytes(rng.randrange(largest)),
                ]
            )
    return new


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([16, 512, 4096]), st.sampled_from([4, 30, 900]))
def test_any_edits_of_any_tree(seed: int, erase_size: int, largest: int) -> None:
    rng = random.Random(seed)
    tree = random_tree(rng, rng.choice([2, 8, 25]), largest)
    rules = rng.choice([DEFAULT_RULES, AlignmentRules(4, (("tflite", 32), ("txt", 8)))])
    if rng.random() < 0.5:  # what the user wants for single files
        chosen = {path: rng.choice([8, 64, 512]) for path in tree if rng.random() < 0.3}
        rules = rules._replace(paths=chosen)
    image = fresh(tree, rules)
    for _ in range(8):
        new = random_edit(rng, tree, largest)
        new_image, _ = edit(image, tree, ordered(new, image), rules, erase_size)
        image, tree = new_image, view(new_image)


def ordered(tree: Tree, image: bytes) -> Tree:
    """In the order of the image, as the reader sees it, new ones last; for comparing content."""

    class Unordered(dict[str, "bytes | None"]):
        pass

    known = [path for path, _ in walk(read_image(image)) if path in tree]
    return Unordered({path: tree[path] for path in [*known, *sorted(set(tree) - set(known))]})


@pytest.mark.parametrize("capacity", [None, 120_000])
def test_a_hundred_edits_do_not_grow_the_image_without_bound(capacity: int | None) -> None:
    rng = random.Random(7)
    tree = random_tree(rng, 25, 4000)
    image = fresh(tree)
    stayed = 0
    for _ in range(100):
        new = random_edit(rng, tree, 4000)
        if sum(len(data or b"") for data in new.values()) > 90_000:
            new.pop(max((p for p, d in new.items() if d), key=lambda p: len(new[p] or b"")))
        image, layout = edit(image, tree, ordered(new, image), capacity=capacity)
        tree = view(image)
        stayed += layout.stable
        compact = len(fresh(tree))
        assert layout.size <= (capacity or 2 * compact + 16 * BLOCK)
    assert stayed > 50


def models_and_script(size: int = 1024) -> Tree:
    rng = random.Random(3)
    tree: Tree = {f"model{i:02}.tflite": rng.randbytes(300_000) for i in range(13)}
    tree["lib"] = None
    tree["lib/util.mpy"] = rng.randbytes(700)
    tree["lib/app.mpy"] = rng.randbytes(size)
    tree["lib/last.mpy"] = rng.randbytes(900)
    tree["main.py"] = rng.randbytes(size)
    tree |= {f"model{i:02}.tflite": rng.randbytes(300_000) for i in range(13, 26)}
    return tree


@pytest.mark.parametrize("path", ["main.py", "lib/app.mpy", "lib/last.mpy", "new.py"])
@pytest.mark.parametrize("size", [0, 900, 1022, 1023, 1024, 1025, 1100, 2000])
def test_editing_a_script_among_models_changes_four_blocks(path: str, size: int) -> None:
    old = models_and_script()
    base = fresh(old)
    new = old | {path: random.Random(size).randbytes(size)}
    image, layout = edit(base, old, ordered(new, base), capacity=8 << 20)
    blocks = changed_blocks(base, image)
    was = old.get(path)
    if path.startswith("lib/") and size > len(was or b""):  # `lib`, or what follows it, must move
        assert len(blocks) <= 6
    else:
        assert len(blocks) <= 4
        assert not layout.moved
    assert layout.stable or len(blocks) <= 4


def test_new_files_share_the_gap_of_a_deleted_one() -> None:
    data = random.Random(3).randbytes(500_000)
    kept = {"a.txt": data[:1000], "z.txt": data[60_000:]}
    old: Tree = {**kept, "big.txt": data[2000:52_000]}
    old = {name: old[name] for name in sorted(old)}
    base = fresh(old)
    new: Tree = {**kept, **{f"m{n}.txt": data[n * 4000 : n * 4000 + 4000] for n in range(10)}}
    image, layout = edit(base, old, new)
    assert layout.stable
    assert not layout.moved
    assert len(image) == len(base)


def test_deleting_a_model_rewrites_one_or_two_blocks() -> None:
    old = models_and_script()
    base = fresh(old)
    new = dict(old)
    del new["model05.tflite"]
    image, layout = edit(base, old, new, capacity=8 << 20)
    assert layout.stable
    assert len(changed_blocks(base, image)) <= 2
    again = dict(new) | {"other.tflite": bytes(290_000)}
    third, layout = edit(image, new, ordered(again, image), capacity=8 << 20)
    assert len(third) == len(image)
    assert 290_000 // BLOCK <= len(changed_blocks(image, third)) <= 290_000 // BLOCK + 4


def test_a_deleted_secret_is_cleared_where_its_block_is_rewritten() -> None:
    old: Tree = {"a.py": b"A" * 3000, "secrets.py": b"hunter2", "m.tflite": b"M" * 50_000}
    base = fresh(old)
    new = {path: data for path, data in old.items() if path != "secrets.py"}
    image, layout = edit(base, old, new)
    assert layout.stable
    assert b"hunter2" not in image


def test_of_a_large_deleted_file_only_the_blocks_that_change_anyway_are_cleared() -> None:
    """At both of its ends; what lies between is left as it is, which costs no erasing."""
    old: Tree = {
        "a.py": b"A" * 3000, "big.txt": b"S" * 20_000, "z.py": b"Z" * 200, "m.bin": b"M" * 90_000,
    }  # fmt: skip
    base = fresh(old)
    new = {**old, "z.py": b"z" * 200}
    del new["big.txt"]
    image, layout = edit(base, old, new)
    assert layout.stable
    end = read_image(base).root.children[1].record.end
    last = end // BLOCK * BLOCK
    assert 4 * BLOCK < last < end
    assert image[BLOCK:last] == base[BLOCK:last] == b"S" * (last - BLOCK)
    assert b"S" not in image[:BLOCK] + image[last:]
    assert changed_blocks(base, image) == [0, last // BLOCK]


def test_a_change_that_changes_nothing_is_the_same_image() -> None:
    tree = random_tree(random.Random(5), 40)
    base = fresh(tree)
    assert edit(base, tree, tree)[0] == base


def test_no_change_to_an_edited_image_is_the_same_image() -> None:
    old = models_and_script()
    new = old | {"main.py": b"x" * 600}
    image, _ = edit(fresh(old), old, new, capacity=8 << 20)
    tree = view(image)
    assert edit(image, tree, tree, capacity=8 << 20)[0] == image


def test_one_byte_gaps_are_taken_up_by_the_next_header() -> None:
    """A file one byte shorter leaves a gap that no padding record fits in."""
    widened = 0
    for size in range(5000, 5016):
        old: Tree = {"a.txt": b"1" * size, "b.tflite": b"2" * 20_000, "d": None,
                     "d/c": b"3" * (size + 3), "z.tflite": b"4" * 90_000}  # fmt: skip
        base = fresh(old)
        for path in ("a.txt", "d/c"):
            new = old | {path: b"5" * (len(old[path] or b"") - 1)}
            image, layout = edit(base, old, new, erase_size=256)
            if layout.stable:
                assert not layout.moved
                assert layout.placements[path].offset == read_place(base, path)
                assert not any(note.code == "padding" for note in read_image(image).notes)
                widened += 1
            assert view(edit(image, new, old, erase_size=256)[0]) == old
    assert widened >= 2


def read_place(image: bytes, path: str) -> int:
    node = dict(walk(read_image(image)))[path]
    assert isinstance(node, FileNode)
    return node.extent.offset


def test_a_growing_directory_moves_rather_than_a_large_neighbour() -> None:
    old: Tree = {
        "lib": None,
        "lib/a": b"a" * 3000,
        "lib/b": b"b" * 3000,
        "m.tflite": b"m" * 200_000,
    }
    new = old | {"lib/a": b"A" * 8000}
    base = fresh(old)
    image, layout = edit(base, old, new)
    assert layout.stable
    assert layout.moved == {"lib/b"}
    assert len(changed_blocks(base, image)) <= 6


def test_a_small_neighbour_moves_rather_than_a_large_directory() -> None:
    old: Tree = {"lib": None, "lib/m.tflite": b"m" * 200_000, "note.txt": b"n" * 100,
                 "big.tflite": b"b" * 100_000}  # fmt: skip
    new = old | {"lib/new": b"x" * 50}
    base = fresh(old)
    image, layout = edit(base, old, ordered(new, base))
    assert layout.stable
    assert layout.moved == {"note.txt"}
    assert len(changed_blocks(base, image)) <= 5


#: in the first four all data is at multiples of 4: nothing else keeps them from being edited
UNSAFE = {
    "pointer": raw_image(record(2, b"abcd"), named(5, b"a", record(3, b"\x04\x02")),
                         file("b", b"1" * 9000), width=3),
    "unknown kind": raw_image(record(77, b"?"), file("a", b"12"), file("bbb", b"1" * 9000),
                              width=4),
    "extra data": raw_image(named(5, b"a", record(2, b"12") + record(9, b"x")),
                            file("bbbb", b"1" * 9000), width=3),
    "more notes": raw_image(*(file(f"a{n}", b"") for n in range(10, 21) for _ in range(99)),
                            file("b", b"1" * 9000), width=5),
    "misaligned": raw_image(file("a.tflite", b"12"), file("b", b"1" * 9000), width=13),
    "header without room": raw_image(file("abc", b"12"), width=1),
}  # fmt: skip


@pytest.mark.parametrize("case", UNSAFE)
def test_bases_that_cannot_be_edited_in_place(case: str) -> None:
    base = UNSAFE[case]
    old = view(base)
    new = old | {"new": b"n" * 500}
    layout = stable(entries(new), DEFAULT_RULES, read_image(base), set(old), 64, None, base)
    assert not layout.stable
    assert join(layout, new) == fresh(new)


def same_names() -> bytes:
    """An image with three files `?.txt` and two folders `?`, as openmv-ota makes of `ä` and `ö`."""
    tree: Tree = {f"{letter}.txt": letter.encode() * 3001 for letter in "ABC"}
    tree |= {"D": None, "D/in": b"d" * 3003, "E": None, "E/in": b"e" * 3003, "f": b"f" * 30_001}
    base = fresh(tree)
    for name in (b"\x05A.txt", b"\x05B.txt", b"\x05C.txt", b"\x01D", b"\x01E"):
        assert base.count(name) == 1
        base = base.replace(name, name[:1] + b"?" + name[2:])
    return base


@pytest.mark.parametrize(
    "gone", [(), ("?.txt",), ("?~2.txt",), ("?.txt", "?~2.txt"), ("?", "?/in"), ("?~2", "?~2/in")]
)
def test_of_files_of_one_name_each_stays_the_one_that_it_was(gone: tuple[str, ...]) -> None:
    """Stored as it is, the second `?.txt` would become the first once that is deleted or moves."""
    base = same_names()
    old = view(base)
    assert list(old) == ["?.txt", "?~2.txt", "?~3.txt", "?", "?/in", "?~2", "?~2/in", "f"]
    kept = {path: data for path, data in old.items() if path not in gone}
    for edited in ("", "new", *(path for path, data in kept.items() if data)):
        new = ordered(kept | ({edited: b"x" * 3200} if edited else {}), base)
        image, _ = edit(base, old, new, erase_size=16)
        assert len(changed_blocks(base, image, 16)) * 16 < len(old["f"] or b"")


def test_images_of_mpremote_are_edited_in_place_where_nothing_is_misaligned() -> None:
    # Data at multiples of 4, directories and headers as mpremote writes them.
    base = raw_image(file("ab", b"1" * 9002), directory("d", file("xyz1", b"2" * 9000)), width=5)
    old = view(base)
    places = [read_place(base, path) % 4 for path in ("ab", "d/xyz1")]
    new = old | {"d/n": b"n" * 10}
    layout = stable(entries(new), DEFAULT_RULES, read_image(base), set(old), 64, None, base)
    assert layout.stable == (places == [0, 0])
    assert view(join(layout, new, base)) == new


def test_canonical_when_the_partition_would_overflow() -> None:
    old = models_and_script()
    base = fresh(old)
    new = old | {"main.py": b"x" * 5000}
    size = canonical(entries(new)).size
    _, roomy = edit(base, old, new, capacity=size + 2 * BLOCK)
    assert roomy.stable
    image, tight = edit(base, old, new, capacity=size)
    assert not tight.stable
    assert image == fresh(new)
    assert not edit(base, old, new, capacity=size - 100)[1].stable  # the caller reports it


def test_canonical_where_any_change_rewrites_everything() -> None:
    """OPENMV2's partition is one erase block: there is nothing to win."""
    old: Tree = {"a": b"1" * 3000, "b": b"2" * 3000, "c": b"3" * 3000}
    image, layout = edit(fresh(old), old, old | {"a": b"0"}, erase_size=128 << 10)
    assert not layout.stable
    assert image == fresh(old | {"a": b"0"})


def test_openmv_ota_reads_it() -> None:
    rng = random.Random(11)
    tree = {path.replace("é", "e"): data for path, data in random_tree(rng, 30).items()}
    image = fresh(tree)
    for _ in range(20):
        new = random_edit(rng, tree, 3000)
        image, _ = edit(image, tree, ordered(new, image), erase_size=256)
        tree = view(image)
        assert {path: entry.data for path, entry in openmv_ota().VfsRomReader(image).walk()} == tree


def test_the_firmware_reads_it(micropython: Path, tmp_path: Path) -> None:
    rng = random.Random(2)
    images: list[bytes] = []
    expected = []
    for _ in range(12):
        tree = random_tree(rng, rng.choice([3, 12, 30]))
        image = fresh(tree)
        for _ in range(6):
            new = random_edit(rng, tree, 3000)
            image, _ = edit(image, tree, ordered(new, image), erase_size=64)
            tree = view(image)
            images.append(image)
            expected.append(
                {
                    path: None if data is None else [len(data), sha256(data).hexdigest()]
                    for path, data in tree.items()
                }
            )
    for found, wanted in zip(firmware_view(micropython, tmp_path, images), expected, strict=True):
        assert found == wanted


@pytest.mark.parametrize("with_base", [True, False])
def test_written_and_checked_from_files(tmp_path: Path, with_base: bool) -> None:
    old = models_and_script()
    base = fresh(old)
    new = {path: data for path, data in old.items() if path != "model03.tflite"}
    layout = stable(
        entries(new), DEFAULT_RULES, read_image(base), set(new), BLOCK, 8 << 20, base
    )  # fmt: skip
    assert layout.stable
    with tempfile.TemporaryFile() as base_file, (tmp_path / "new.img").open("w+b") as out:
        base_file.write(base)
        base_file.flush()
        fd = base_file.fileno()

        def open_source(path: str) -> Data:
            return Data(fd, read_place(base, path))

        write_image(layout, out, open_source, base=fd if with_base else None)
        out.flush()
        digests = {path: sha256(data).hexdigest() for path, data in new.items() if data is not None}
        check_image(out.fileno(), layout, digests, DEFAULT_RULES)
    image = (tmp_path / "new.img").read_bytes()
    assert len(changed_blocks(base, image)) <= (2 if with_base else 80)


def test_3000_directories_deep() -> None:
    paths = ["/".join(["d"] * depth) for depth in range(1, 3001)]
    old: Tree = dict.fromkeys(paths)
    old[paths[-1] + "/keep"] = b"k" * 5000
    old[paths[-1] + "/edit"] = b"e" * 5000
    new = old | {paths[-1] + "/edit": b"E" * 4000}
    base = fresh(old)
    layout = stable(
        entries(new), DEFAULT_RULES, read_image(base), {paths[-1] + "/keep"}, 64, None, base
    )
    assert layout.stable
    assert view(join(layout, new, base)) == new


def test_lays_out_20000_files_in_a_few_times_what_canonical_takes() -> None:
    tree = [TreeEntry(f"d{i}", None) for i in range(200)]
    tree += [TreeEntry(f"d{i % 200}/file_{i}.py", 100 + i % 77) for i in range(20000)]
    layout = canonical(tree)
    base = b"".join(
        piece if isinstance(piece, bytes) else bytes(piece.size) for piece in layout.pieces
    )
    unchanged = {entry.path for entry in tree if entry.size is not None}
    edited = [entry._replace(size=5000) if "file_77" in entry.path else entry for entry in tree]
    parsed = read_image(base)
    quick = lines_run(lambda: canonical(edited))
    slow = lines_run(lambda: stable(edited, DEFAULT_RULES, parsed, unchanged, BLOCK, None, base))
    assert slow < 6 * quick


@pytest.mark.parametrize(
    ("erase_size", "largest", "figures"),
    [(256, 900, (59, 54, 374, 513_514)), (4096, 9000, (59, 101, 460, 11_330_792))],
)
def test_the_figures_of_many_edits(erase_size: int, largest: int, figures: tuple[int, ...]) -> None:
    """Images that keep their places, files that move all the same, blocks that change, bytes.
    Another choice of gaps shows here: if it is a better one, write its figures."""
    rng = random.Random(erase_size)
    tree = random_tree(rng, 20, largest)
    image = fresh(tree)
    kept = moved = blocks = size = 0
    for _ in range(60):
        new = ordered(random_edit(rng, tree, largest), image)
        old, (image, layout) = image, edit(image, tree, new, erase_size=erase_size)
        tree = view(image)
        kept += layout.stable
        moved += len(layout.moved)
        blocks += len(changed_blocks(old, image, erase_size))
        size += len(image)
    assert (kept, moved, blocks, size) == figures


def gone(gap: int) -> tuple[bytes, Tree]:
    """An image with a large file between two small ones, and the tree without it."""
    old: Tree = {"a": b"a" * 100, "gone": b"g" * gap, "z": b"z" * 100}
    return fresh(old), {path: data for path, data in old.items() if path != "gone"}


def test_an_image_that_is_half_gaps_is_made_anew() -> None:
    """Where nothing limits its size; 16 blocks more are let be."""
    found = set()
    for gap in range(1200, 1500):
        base, new = gone(gap)
        parsed = read_image(base)
        unlimited, limited = (
            stable(entries(new), DEFAULT_RULES, parsed, set(new), 64, capacity, base)
            for capacity in (1 << 30, None)
        )
        assert unlimited.stable
        over = unlimited.size - 2 * len(fresh(new)) - 16 * 64
        assert limited.stable == (over <= 0)
        found.add(over)
    assert {min(found) < 0, 0 in found, max(found) > 0} == {True}


def test_the_stable_layout_may_fill_the_partition() -> None:
    base, new = gone(9000)
    parsed = read_image(base)
    for less in (0, 1):
        found = stable(entries(new), DEFAULT_RULES, parsed, set(new), 64, len(base) - less, base)
        assert found.stable == (not less)


def test_what_saves_no_block_is_canonical() -> None:
    """Also where it is the same image."""
    old: Tree = {"a": b"a" * 100, "b": b"b" * 100, "c": b"c" * 200}
    base = fresh(old)
    for new in (old, old | {"c": b"C" * 200}, old | {"c": b"c" * 300}):
        assert not edit(base, old, new, erase_size=64)[1].stable
    assert edit(base, old, old | {"a": b"A" * 90}, erase_size=64)[1].stable
