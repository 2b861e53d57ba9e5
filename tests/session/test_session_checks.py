"""What is looked for in the bytes that are stored, and where each byte of a partition lies."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from romfsfs.boards import get_board
from romfsfs.convert import Target
from romfsfs.convert.types import Diagnostic, Figures
from romfsfs.image.model import DirNode, Extent, FileNode, Image
from romfsfs.image.reader import read_image
from romfsfs.image.rules import DEFAULT_RULES, AlignmentRules
from romfsfs.image.writer import encode
from romfsfs.session.plan import admission
from romfsfs.session.plan.admission import Admission, admit_files, admit_image, image_figures
from romfsfs.session.plan.partition_map import Row, partition_map
from romfsfs.session.plan.problems import Problem
from romfsfs.session.plan.shadow import Change, ShadowEntry
from romfsfs.session.plan.stored import InWork
from romfsfs.session.tree.digests import SPARE

BOARD = get_board("OPENMV_AE3")
TARGET = Target(BOARD, BOARD.partition(0), mpy_version=(6, 3))
OLD = b"M\x05\x00\x1f"
BYTECODE = "is bytecode 5, the camera loads 6.3; copy the .py instead of the .mpy"


class Checks:
    """The check with its bytes in a file, of which it must read the stored part alone."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "bytes"
        self.data = OLD
        self.opened: list[object] = []
        self.figures_asked: list[tuple[str, int, str]] = []
        self.found: Figures | None = None
        self.admission = Admission(self)  # type: ignore[arg-type]
        self.target = TARGET

    def figures(self, path: str, read: Any, size: int, digest: str) -> Figures | None:
        assert read(0, 99) == self.data
        assert (read(1, 2), read(size, 9)) == (self.data[1:3], b"")
        self.figures_asked.append((path, size, digest))
        return self.found

    def open(self, location: object) -> tuple[int, int, int]:
        self.opened.append(location)
        self.path.write_bytes(b"before" + self.data + b"after")
        return os.open(self.path, os.O_RDONLY), 6, len(self.data)

    def of(self, **more: Any) -> ShadowEntry:
        fields: dict[str, Any] = {
            "path": "a.mpy", "change": Change.ADDED, "stored_as": "a.mpy", "size": 4, "digest": "d",
            "location": InWork("a.mpy"), **more,
        }  # fmt: skip
        return self.admission.checked(ShadowEntry(**fields), self.open)


@pytest.fixture
def checks(tmp_path: Path) -> Checks:
    return Checks(tmp_path)


def test_what_cannot_work_fails_unless_it_was_there(checks: Checks) -> None:
    before = Diagnostic("info", "x", "as before")
    entry = checks.of(diagnostics=(before,))
    [_, error] = entry.diagnostics
    assert (entry.state, entry.diagnostics[0]) == ("failed", before)
    assert (error.severity, error.code) == ("error", "mpy-version")
    again = checks.of(change=Change.UNCHANGED)
    assert again.state == "ready"
    assert again.diagnostics == (
        error._replace(severity="warning", message=f"already in the image: {error.message}"),
    )
    assert (len(checks.opened), checks.figures_asked) == (1, [("a.mpy", 4, "d")])


def test_what_is_found_is_known_by_the_bytes_and_their_name(checks: Checks) -> None:
    checks.data, checks.found = b"M\x06\x00\x1f", Figures(1, 2, 3, 4)
    entry = checks.of()
    assert (entry.state, entry.diagnostics, entry.figures) == ("ready", (), checks.found)
    for more, count in (
        ({}, 1), ({"digest": "e"}, 2), ({"stored_as": "b.mpy"}, 3), ({"digest": ""}, 4),
        ({"digest": ""}, 5),
    ):  # fmt: skip
        checks.of(**more)
        assert len(checks.opened) == count
    assert len(checks.figures_asked) == 3, "a build shows none"
    checks.found = None
    plain = checks.of(digest="f")
    assert (plain.diagnostics, plain.figures) == ((), None)


@pytest.mark.parametrize(
    "more",
    [{"location": None}, {"stored_as": None}, {"change": Change.IGNORED}, {"stored_as": "a.txt"}],
)
def test_what_is_not_stored_or_is_no_program_is_not_opened(
    checks: Checks, more: dict[str, Any]
) -> None:
    assert checks.of(**more).diagnostics == ()
    assert checks.opened == []


def test_a_file_that_is_gone_meanwhile_is_looked_at_another_time(checks: Checks) -> None:
    def gone(location: object) -> tuple[int, int, int]:
        raise FileNotFoundError

    checks.open = gone  # type: ignore[method-assign]
    assert checks.of().diagnostics == ()
    del checks.open
    assert checks.of().state == "failed"


def test_what_is_known_of_files_that_are_gone_goes_in_time(checks: Checks) -> None:
    known = checks.admission._known

    def entry(number: int) -> ShadowEntry:
        return ShadowEntry("x", Change.ADDED, stored_as="x", digest=str(number))

    def learn(*numbers: int) -> None:
        known.update({("x", str(number)): ((), None) for number in numbers})

    learn(*range(SPARE))
    checks.admission.keep([])
    assert len(known) == SPARE
    learn(SPARE)
    checks.admission.keep([*map(entry, range(60)), ShadowEntry("y", Change.DELETED)])
    assert sorted(int(digest) for _, digest in known) == list(range(60))
    learn(*range(2 * 60 + SPARE))
    checks.admission.keep([])
    assert len(known) == 2 * 60 + SPARE, "twice as many, and some"
    learn(2 * 60 + SPARE)
    checks.admission.keep([])
    assert known == {}


def test_what_speaks_against_an_image(tmp_path: Path) -> None:
    files = {"empty.tflite": b"", "main.py": b"x = 1\n", "old.mpy": OLD, "z.tflite": b"NBIN" * 9}
    path = tmp_path / "app.img"
    path.write_bytes(encode(files, AlignmentRules(4)))
    with path.open("rb") as file:
        image = read_image(path.read_bytes())
        places = {node.name: node.extent for node in image.root.children}  # type: ignore[union-attr]
        found = admit_image(image, file, TARGET)
        rest = admit_files(reversed(list(places.items())), file.fileno(), TARGET)
    at = places["z.tflite"].offset
    assert at % 16
    assert found[0] == Problem(
        "misaligned", "z.tflite", f"its data is at {at:#x}, not a multiple of 16; mount it, then "
        "romfsfs commit --compact",
    )  # fmt: skip
    assert [(each.severity, each.code, each.path) for each in found[1:]] == [
        ("error", "not-what-it-is-called", "empty.tflite"), ("error", "mpy-version", "old.mpy"),
        ("error", "npu-mismatch", "z.tflite"), ("warning", "not-started", "main.py"),
    ]  # fmt: skip
    assert found[2].message == BYTECODE
    assert sorted(found[1:]) == sorted(rest)
    assert [each.severity for each in rest] == ["error"] * 3 + ["warning"]


def test_what_is_known_of_the_models_of_an_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, bytes, int]] = []

    def figures(self: object, path: str, read: Any, size: int, digest: str) -> Figures | None:
        asked.append((path, read(0, 99), size))
        return Figures(flash=size) if path == "a.tflite" else None

    monkeypatch.setattr(admission.Cache, "figures", figures)
    path = tmp_path / "app.img"
    path.write_bytes(encode({"a.tflite": b"one", "a.txt": b"x", "lib/b.TFLITE": b"three"}))
    with path.open("rb") as file:
        found = image_figures(read_image(path.read_bytes()), file)
    assert found == {"a.tflite": Figures(flash=3)}
    assert asked == [("a.tflite", b"one", 3), ("lib/b.TFLITE", b"three", 5)]


# -- where each byte lies

FILES = {"a.bin": b"a" * 500, "empty.txt": b"", "lib/net.mpy": b"n" * 100,
         "lib/z.tflite": b"z" * 64, "w.tflite": b"1"}  # fmt: skip
INSIDE = (
    Row("header", 0, 16), Row("records", 16, 32), Row("file", 48, 500, "a.bin", 16, 16),
    Row("file", 548, 0, "empty.txt", 4, 4), Row("records", 548, 20),
    Row("directory", 568, 8, "lib"), Row("records", 576, 20),
    Row("file", 596, 100, "lib/net.mpy", 4, 4), Row("records", 696, 24),
    Row("file", 720, 64, "lib/z.tflite", 16, 16), Row("records", 784, 32),
    Row("file", 816, 1, "w.tflite", 16, 16), Row("records", 817, 3),
)  # fmt: skip


@pytest.mark.parametrize(
    ("trailing", "capacity", "after"),
    [
        (0, None, []), (0, 820, []), (0, 900, [Row("free", 820, 80)]), (0, 700, []),
        (30, None, [Row("trailing", 820, 30)]), (30, 850, [Row("trailing", 820, 30)]),
        (30, 851, [Row("trailing", 820, 30), Row("free", 850, 1)]),
        (30, 830, [Row("trailing", 820, 10)]), (30, 820, []), (30, 700, []),
    ],
)  # fmt: skip
def test_each_byte_of_a_partition(trailing: int, capacity: int | None, after: list[Row]) -> None:
    image = read_image(encode(FILES, DEFAULT_RULES) + b"\xff" * trailing)
    assert partition_map(image, capacity=capacity) == (*INSIDE, *after)
    assert Row("file", 720, 64, "lib/z.tflite", 16, 16).record() == {
        "kind": "file", "offset": 720, "size": 64, "path": "lib/z.tflite", "alignment": 16,
        "wanted_alignment": 16, "misaligned": False,
    }  # fmt: skip
    assert Row("file", 720, 1, "x", 32).record()["misaligned"] is True
    assert not Row("file", 720, 0, "x", 32).misaligned
    assert not Row("gap", 720, 1).misaligned
    assert Row("gap", 720, 1).record()["path"] is None


@pytest.mark.parametrize(("space", "kind"), [(0, ""), (1, "records"), (96, "records"),
                                             (97, "gap")])  # fmt: skip
def test_what_is_more_than_names_and_padding_take_is_a_gap(space: int, kind: str) -> None:
    """16 bytes of header, 64 of a name, and the largest alignment."""
    start = 10
    file = FileNode("a", Extent(start + space, 5), Extent(start, space + 5))
    image = Image(DirNode("", (file,), Extent(0, 100)), start + space + 5, (), 0)
    found = partition_map(image, AlignmentRules(4, (("bin", 16),)))
    between = [Row(kind, start, space)] if kind else []
    at = start + space
    assert found == (
        Row("header", 0, 10), *between, Row("file", at, 5, "a", 4, at & -at)
    )  # fmt: skip
    tail = image._replace(size=at + 5 + space)
    assert partition_map(tail, AlignmentRules(16))[len(found) :] == (
        (Row(kind, at + 5, space),) if kind else ()
    )


def test_data_that_several_records_point_to_is_shown_once() -> None:
    """And what a record points to behind the image's end is not."""
    nodes = (
        FileNode("a", Extent(40, 8), Extent(20, 10)), FileNode("b", Extent(40, 8), Extent(30, 10)),
        FileNode("c", Extent(95, 9), Extent(48, 10)), FileNode("d", Extent(0, 0), Extent(60, 4)),
        DirNode("e", (FileNode("f", Extent(90, 5), Extent(18, 2)),), Extent(70, 10)),
    )  # fmt: skip
    image = Image(DirNode("", nodes, Extent(0, 100)), 100, (), 0)
    assert partition_map(image, AlignmentRules(4)) == (
        Row("header", 0, 16), Row("records", 16, 24), Row("file", 40, 8, "a", 4, 8),
        Row("records", 48, 12), Row("file", 60, 0, "d", 4, 4), Row("records", 60, 10),
        Row("directory", 70, 10, "e"), Row("records", 80, 10), Row("file", 90, 5, "e/f", 4, 2),
        Row("records", 95, 5),
    )  # fmt: skip
    assert partition_map(Image(DirNode("", (), Extent(0, 0)), 0, (), 7)) == (
        Row("header", 0, 0), Row("trailing", 0, 7)
    )  # fmt: skip
    assert partition_map(Image(DirNode("", (), Extent(0, 4)), 4, (), 0)) == (Row("header", 0, 4),)
