"""Building without a session: what is built where, for which boards, and how files look then."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from session_desk import files_of, tree_of

from romfsfs.convert import FileOptions, Options, Rule
from romfsfs.errors import ConversionError, RomfsError, UsageError
from romfsfs.image.reader import read_image
from romfsfs.image.writer import encode
from romfsfs.session.build import extract_image
from romfsfs.session.build_many import boards_of, build_each, build_order, orders
from romfsfs.system.files import digest_bytes


@pytest.fixture(autouse=True)
def mask() -> Iterator[None]:
    before = os.umask(0o027)
    yield
    os.umask(before)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    (folder / "lib").mkdir(parents=True)
    (folder / "lib/a.txt").write_bytes(b"a")
    (folder / "b.txt").write_bytes(b"b")
    return folder


@pytest.mark.parametrize(
    ("boards", "image", "more", "found"),
    [
        ([], "x.img", {}, [("", 0, "x.img")]),
        (["OPENMV4"], "x.img", {}, [("OPENMV4", 0, "x.img")]),
        (["OPENMV_AE3:1"], "x.img", {}, [("OPENMV_AE3:1", 1, "x.img")]),
        (["OPENMV_AE3"], "x.img", {"partition": 1}, [("OPENMV_AE3:1", 1, "x.img")]),
        (["OPENMV4", "OPENMV_AE3:1"], "out/", {},
         [("OPENMV4", 0, "out/OPENMV4.img"), ("OPENMV_AE3:1", 1, "out/OPENMV_AE3.1.img")]),
        (["OPENMV_AE3:0", "OPENMV_AE3"], "{board}-{partition}.img", {"partition": 1},
         [("OPENMV_AE3", 0, "OPENMV_AE3-0.img"), ("OPENMV_AE3:1", 1, "OPENMV_AE3-1.img")]),
        (["OPENMV4"], "{partition}.img", {}, [("OPENMV4", 0, "0.img")]),
        (["OPENMV4"], ".", {}, [("OPENMV4", 0, "OPENMV4.img")]),
    ],
)  # fmt: skip
def test_what_is_to_be_built(
    boards: list[str], image: str, more: dict[str, Any], found: list[tuple[str, int, str]]
) -> None:
    options = Options((Rule("a", FileOptions(convert=False)),))
    recipe = Path("recipe")
    wanted = orders(boards, image, options=options, recipe=recipe, **more)
    places = [order.target.partition for order in wanted]
    assert [
        (order.name if boards else "", place.index if place else 0, str(order.image))
        for order, place in zip(wanted, places, strict=True)
    ] == found
    assert all(order.target.options == options for order in wanted)
    assert all(order.recipe == (recipe if boards else None) for order in wanted)


@pytest.mark.parametrize(
    ("boards", "image", "said"),
    [
        (["OPENMV4", "OPENMV2"], "x y.img", "several boards need a folder, or a pattern with "
         "{board} (x y.img); for a folder: 'x y.img/'"),
        (["OPENMV_AE3", "OPENMV_AE3:1"], "{board}.img", "OPENMV_AE3 and OPENMV_AE3:1 would be "
         "written to the same file (OPENMV_AE3.img); give a folder, or a pattern such as "
         "'out/{board}-{partition}.img'"),
    ],
)  # fmt: skip
def test_what_would_be_one_file(boards: list[str], image: str, said: str) -> None:
    with pytest.raises(UsageError) as refused:
        orders(boards, image)
    assert refused.value.line == said


def test_the_boards_that_a_tree_is_for(source: Path) -> None:
    assert boards_of(source, []) == ()
    (source / "romfs.toml").write_text('board = "OPENMV4"\n')
    assert boards_of(source, []) == ("OPENMV4",)
    assert boards_of(source, ["OPENMV2", "OPENMV_AE3"]) == ("OPENMV2", "OPENMV_AE3")


def test_one_that_fails_stops_no_other(source: Path, tmp_path: Path) -> None:
    (source / "big.bin").write_bytes(bytes(1 << 18))  # more than the first of them has
    told: list[str] = []
    wanted = orders(["OPENMV2", "OPENMV_AE3"], str(tmp_path / "new/out") + "/")
    done = list(build_each(source, wanted, ("*.txt",), lambda *each: told.append(each[0])))
    assert [(each.order, each.built is None, each.error is None) for each in done] == [
        (wanted[0], True, False), (wanted[1], False, True),
    ]  # fmt: skip
    image = tmp_path / "new/out/OPENMV_AE3.img"
    assert os.listdir(image.parent) == ["OPENMV_AE3.img"]
    assert files_of(image.read_bytes()) == {"big.bin": bytes(1 << 18)}
    built = done[1].built
    assert built is not None
    assert (built.size, built.digest) == (image.stat().st_size, digest_bytes(image.read_bytes()))
    assert told != []
    (fast,) = build_each(source, wanted[1:], hashed=False)
    assert fast.built is not None
    assert fast.built.digest == ""


def test_a_place_that_cannot_be_made_stops_no_other_board(source: Path, tmp_path: Path) -> None:
    """The images that were made already were not reported."""
    taken = tmp_path / "OPENMV4"
    taken.write_text("not a folder")
    boards = ["OPENMV2", "OPENMV4", "OPENMV_AE3"]
    done = list(build_each(source, orders(boards, f"{tmp_path}/{{board}}/app.img")))
    assert [each.built is not None for each in done] == [True, False, True]
    assert str(done[1].error) == f"file exists ({taken})"
    with pytest.raises(FileNotFoundError):
        list(build_each(tmp_path / "no", orders(boards, f"{tmp_path}/more/")))
    assert not (tmp_path / "more").exists()


def test_an_image_is_no_program(source: Path, tmp_path: Path) -> None:
    os.umask(0)
    (order,) = orders([], str(tmp_path / "new.img"))
    build_order(source, order)
    assert stat.S_IMODE((tmp_path / "new.img").stat().st_mode) == 0o666


@pytest.mark.parametrize(("before", "after"), [(None, 0o640), (0o600, 0o600), (0o4755, 0o4755)])
def test_a_file_keeps_its_mode_and_a_link_stays_one(
    source: Path, tmp_path: Path, before: int | None, after: int
) -> None:
    real, link = tmp_path / "real.img", tmp_path / "link.img"
    if before is not None:
        real.write_bytes(b"old")
        real.chmod(before)
    link.symlink_to(real)
    (order,) = orders([], str(link))
    build_order(source, order)
    assert link.is_symlink()
    assert stat.S_IMODE(real.stat().st_mode) == after
    assert files_of(real.read_bytes()) == {"b.txt": b"b", "lib/a.txt": b"a"}


def test_what_cannot_be_built_leaves_the_old_image(source: Path, tmp_path: Path) -> None:
    (source / "bad.py").write_text("def f(:\n")
    image = tmp_path / "x.img"
    image.write_bytes(b"old")
    (order,) = orders([], str(image))
    with pytest.raises(ConversionError, match="cannot build: 1 error; nothing was written"):
        build_order(source, order)
    assert image.read_bytes() == b"old"
    with pytest.raises(UsageError) as refused:
        build_order(source, orders([], str(tmp_path))[0])
    assert refused.value.line == f"a directory, not an image file ({tmp_path})"
    assert [name for name in os.listdir(tmp_path) if "x.img" in name] == ["x.img"]


def extracted(data: bytes, folder: Path) -> None:
    path = folder.parent.parent / "given.img"
    path.write_bytes(data)
    with path.open("rb") as file:
        extract_image(read_image(data), file, folder)


def test_an_image_is_extracted_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "new/here"
    data = encode({"a.txt": b"a", "lib/b.txt": b"b"}, dirs=["empty"])
    folder.parent.mkdir()
    extracted(data, folder)
    assert tree_of(folder) == {
        "a.txt": b"a", "empty": None, "lib": None, "lib/b.txt": b"b",
    }  # fmt: skip
    assert stat.S_IMODE(folder.stat().st_mode) == 0o750
    with pytest.raises(UsageError) as refused:
        extracted(data, folder)
    said = f"the folder exists and is not empty ({folder}); choose another name"
    assert refused.value.line == said
    empty = tmp_path / "new/empty"
    empty.mkdir()
    extracted(data, empty)
    assert (empty / "a.txt").exists()
    (tmp_path / "new/file").touch()
    with pytest.raises(UsageError):
        extracted(data, tmp_path / "new/file")

    def fails(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fails)
    with pytest.raises(RomfsError) as failed:
        extracted(data, tmp_path / "new/other")
    assert failed.value.line == (
        f"cannot extract: No space left on device ({tmp_path}/new/other); "
        "nothing was left there; free space, or choose another folder"
    )
    assert sorted(os.listdir(tmp_path / "new")) == ["empty", "file", "here"]


@pytest.mark.parametrize("given", [".", "link", "folder"])
def test_an_image_is_extracted_into_a_folder_of_one_s_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    """It stays that folder: a shell may stand in it, and a mountpoint cannot be replaced."""
    folder, image = tmp_path / "folder", tmp_path / "given.img"
    folder.mkdir(0o700)
    (tmp_path / "link").symlink_to("folder")
    monkeypatch.chdir(folder if given == "." else tmp_path)
    data = encode({"a.txt": b"a", "lib/b.txt": b"b"}, dirs=["empty"])
    image.write_bytes(data)
    before, rename, moved = os.stat(folder), os.rename, list[str]()

    def fails(source: Path, target: Path) -> None:
        if len(moved) == 2:
            moved.clear()
            raise OSError(5, "Input/output error")
        moved.append(str(target))
        rename(source, target)

    with image.open("rb") as file, monkeypatch.context() as patched:
        patched.setattr(os, "rename", fails)
        with pytest.raises(RomfsError) as failed:
            extract_image(read_image(data), file, Path(given))
    assert failed.value.line == (
        f"cannot extract: Input/output error ({given}); nothing was left there; free space, or "
        "choose another folder"
    )
    assert tree_of(folder) == {}
    with image.open("rb") as file:
        extract_image(read_image(data), file, Path(given))
    assert tree_of(folder) == {"a.txt": b"a", "empty": None, "lib": None, "lib/b.txt": b"b"}
    after = os.stat(folder)
    assert (after.st_ino, after.st_mode) == (before.st_ino, before.st_mode)
    assert (tmp_path / "link").is_symlink()


@pytest.mark.parametrize("there", [True, False])
def test_a_folder_that_cannot_be_extracted_into(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    """It is made beside one that is not there yet, and in one that is, which may be all that the
    user may write to."""
    places: list[Path] = []

    def refused(prefix: str, dir: Path) -> str:
        places.append(dir)
        raise PermissionError(13, "Permission denied")

    folder = tmp_path / "new/here"
    folder.parent.mkdir()
    if there:
        folder.mkdir()
    monkeypatch.setattr(tempfile, "mkdtemp", refused)
    with pytest.raises(RomfsError) as failed:
        extracted(encode({}), folder)
    assert failed.value.line.startswith(f"cannot extract: Permission denied ({folder}); ")
    assert places == [folder if there else folder.parent]
