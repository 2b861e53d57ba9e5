"""Commands on images, without sessions."""

from __future__ import annotations

import contextlib
import io
import json
import os
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from convert.convert_helpers import make_model

from romfsfs.cli import images, main
from romfsfs.devices.base import DeviceInfo
from romfsfs.image.reader import read_image
from romfsfs.image.writer import encode
from romfsfs.session import build
from romfsfs.session.keep.folder import make_folder
from romfsfs.session.keep.locks import MountedAt

Run = Callable[..., "tuple[int, str, str]"]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "src"
    (folder / "lib").mkdir(parents=True)
    (folder / "main.py").write_text("import lib.mod\n")
    (folder / "lib/mod.py").write_text("x = 1\n")
    (folder / "data.bin").write_bytes(bytes(100_000))
    (folder / ".DS_Store").write_bytes(b"junk")
    (folder / "empty").mkdir()
    return folder


def test_new_makes_an_empty_image_and_remembers_the_board(run: Run, tmp_path: Path) -> None:
    image = tmp_path / "new.img"
    code, out, _ = run("new", image, "--board", "openmv_n6")
    assert code == 0
    assert "OPENMV_N6" in out
    assert image.read_bytes() == encode({})
    code, _, err = run("new", image, "--board", "OPENMV_N6")
    assert code == 2
    assert "--force" in err
    assert run("new", image, "--board", "OPENMV4", "--force")[0] == 0
    code, _, err = run("new", tmp_path / "x.img", "--board", "OPENMV5")
    assert code == 2
    assert not (tmp_path / "x.img").exists()


@pytest.mark.parametrize(("mask", "mode"), [(0o077, 0o600), (0o022, 0o644), (0o002, 0o664)])
def test_a_new_image_is_for_whom_the_umask_says(
    run: Run, tree: Path, tmp_path: Path, mask: int, mode: int
) -> None:
    before = os.umask(mask)
    try:
        assert run("new", tmp_path / "new.img", "--board", "OPENMV4")[0] == 0
        assert run("build", tree, tmp_path / "built.img", "--board", "OPENMV4")[0] == 0
        assert run("pull", tmp_path / "new.img", tmp_path / "pulled.img")[0] == 0
        assert run("commit", tmp_path / "new.img", "--to", tmp_path / "to.img")[0] in (0, 1)
        (tmp_path / "kept.img").write_bytes(encode({}))
        (tmp_path / "kept.img").chmod(0o604)
        assert run("build", tree, tmp_path / "kept.img", "--force")[0] == 0
    finally:
        assert os.umask(before) == mask, "asking for it must not change it"
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.glob("*.img")}
    assert modes.pop("kept.img") == 0o604
    assert {"new.img", "built.img", "pulled.img"} <= set(modes)
    assert set(modes.values()) == {mode}


def test_build_makes_the_same_bytes_every_time(run: Run, tree: Path, tmp_path: Path) -> None:
    images = []
    for name in ("one.img", "two.img"):
        code, out, _ = run("build", tree, tmp_path / name, "--board", "OPENMV4")
        assert code == 0
        images.append((tmp_path / name).read_bytes())
    assert images[0] == images[1]
    code, out, _ = run("ls", tmp_path / "one.img")
    assert out.splitlines() == ["data.bin", "empty/", "lib/", "lib/mod.mpy", "main.py"]
    assert run("verify", tmp_path / "one.img", "--board", "OPENMV4")[0] == 0


def test_build_stores_as_is_or_leaves_out_when_told(run: Run, tree: Path, tmp_path: Path) -> None:
    run("build", tree, tmp_path / "raw.img", "--no-convert", "--exclude", "*.bin")
    assert run("ls", tmp_path / "raw.img")[1].split() == ["empty/", "lib/", "lib/mod.py", "main.py"]


def test_build_refuses_and_keeps_the_old_image(run: Run, tree: Path, image: Path) -> None:
    before = image.read_bytes()
    (tree / "bad.py").write_text("def f(:\n")
    code, _, err = run("build", tree, image, "--force")
    assert code == 3
    assert err.startswith("romfsfs: error: cannot build: 1 error; nothing was written")
    assert "bad.py" in err
    assert image.read_bytes() == before
    assert not list(image.parent.glob("*.tmp"))
    assert run("build", tree / "nowhere", image)[0] == 2


def test_build_keeps_the_mode_and_gives_new_files_the_users(
    run: Run, tree: Path, image: Path, tmp_path: Path
) -> None:
    image.chmod(0o600)
    run("build", tree, image, "--force")
    assert stat.S_IMODE(image.stat().st_mode) == 0o600
    run("build", tree, tmp_path / "new.img", "--json")
    assert stat.S_IMODE((tmp_path / "new.img").stat().st_mode) & 0o077 != 0


def test_an_image_can_come_through_a_pipe(
    run: Run, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(image.read_bytes())))
    code, out, _ = run("ls", "-")
    assert code == 0
    assert out.split() == ["a.txt", "lib/", "lib/b.bin"]


def test_ls_long_and_below(run: Run, image: Path) -> None:
    line = run("ls", "-l", image)[1].splitlines()[0].split()
    assert line[0] == "6"
    assert line[2] == "a.txt"
    assert run("ls", image, "lib")[1].split() == ["lib/", "lib/b.bin"]
    assert run("ls", image, "nowhere")[0] == 2
    record = json.loads(run("ls", image, "--json")[1])
    assert [entry["path"] for entry in record] == ["a.txt", "lib", "lib/b.bin"]


def test_extract_gives_the_tree_back(run: Run, image: Path, tmp_path: Path) -> None:
    assert run("extract", image, tmp_path / "out")[0] == 0
    assert (tmp_path / "out/a.txt").read_bytes() == b"first\n"
    code, _, err = run("extract", image, tmp_path / "out")
    assert code == 2
    assert "not empty" in err


def test_what_is_no_image_is_exit_4_with_the_offset(run: Run, tmp_path: Path) -> None:
    bad = tmp_path / "bad.img"
    bad.write_bytes(b"\xd2\xcd\x31\x7f truncated")
    for command in ("ls", "info", "verify", "cat"):
        code, _, err = run(command, bad, *(["x"] if command == "cat" else []))
        assert code == 4, command
        assert "offset 0x" in err
    bad.write_bytes(b"\xff" * 100)
    assert run("verify", bad)[0] == 4


def test_verify_tells_what_does_not_fit_the_board(run: Run, tmp_path: Path) -> None:
    image = tmp_path / "big.img"
    image.write_bytes(encode({"x.bin": bytes(300_000)}))
    code, _, err = run("verify", image, "--board", "OPENMV2")
    assert code == 4
    assert "big.img: 168,976 B too large, OPENMV2 has room for 131,072 B" in err
    assert json.loads(run("verify", image, "--json")[1])["ok"] is True


def test_info_and_cat(run: Run, image: Path) -> None:
    code, out, _ = run("info", image, "--board", "OPENMV4")
    assert code == 0
    assert "2 files, 1 directory" in out
    assert run("cat", image, "a.txt")[1] == "first\n"
    assert run("cat", image, "lib")[0] == 2


def test_new_over_a_mounted_image_is_refused(run: Run, image: Path) -> None:
    before = image.read_bytes()
    with make_folder(str(image)).lock_for_mount("app.img") as lock:
        lock.write(MountedAt(1, "/somewhere"))
        code, _, err = run("new", image, "--board", "OPENMV4", "--force")
    assert code == 1
    assert "/somewhere" in err
    assert image.read_bytes() == before


def test_a_board_names_its_partition(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`AE3:1` wherever a board is named; global options in front and behind."""
    monkeypatch.chdir(tmp_path)
    assert main(["new", "a.img", "--board", "AE3:1"]) == 0
    assert ", for OPENMV_AE3, 1,048,576 B; " in capsys.readouterr().out
    assert main(["new", "a.img", "--partition", "1", "--board", "ae3:1", "--force", "-q"]) == 0
    assert main(["verify", "a.img", "--board", "AE3:1", "--quiet"]) == 0
    assert capsys.readouterr().out == ""
    assert main(["info", "--map", "a.img"]) == 0
    assert "OPENMV_AE3 partition 1" in capsys.readouterr().out
    assert main(["boards", "AE3:1"]) == 0
    shown = capsys.readouterr().out
    assert "partition 1 (High Efficiency Core)" in shown
    assert "partition 0" not in shown
    assert main(["boards", "AE3:2"]) == 2


@pytest.mark.parametrize(
    ("words", "code"),
    [([], 0), (["zoo", "add"], 0), (["unmount"], 0), (["ls", "no"], 0), (["nosuch"], 2),
     (["zoo", "nosuch"], 2)],
)  # fmt: skip
def test_help_is_a_word_too(
    words: list[str], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "--help"]) == code
    said = capsys.readouterr()
    assert main(["help", *words]) == code
    assert capsys.readouterr() == said
    shown = f"Usage: romfsfs {' '.join([word for word in words if word != 'no'])}"
    assert said.out.startswith(shown) is (code == 0)


def test_a_folder_that_is_taken_while_it_is_extracted_to(
    run: Run, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = build.extract

    def slowly(*arguments: Any) -> Any:
        (tmp_path / "out").mkdir()
        (tmp_path / "out/mine").touch()
        return real(*arguments)

    monkeypatch.setattr(build, "extract", slowly)
    before = set(tmp_path.iterdir())
    code, _, said = run("extract", image, tmp_path / "out")
    assert code == 1
    assert "cannot extract: Directory not empty" in said
    assert set(tmp_path.iterdir()) - before == {tmp_path / "out"}
    assert os.listdir(tmp_path / "out") == ["mine"]


def test_info_tells_what_the_models_in_an_image_cost(run: Run, tmp_path: Path) -> None:
    image, shape = tmp_path / "a.img", [1, 4, 4]
    model = make_model([(0, [0], [1])], [(9, shape, 0), (9, shape, 0)], [0], [1])
    image.write_bytes(encode({"a.tflite": model, "a.txt": model, "b.tflite": b"x" * 100}))
    models = json.loads(run("info", image, "--json")[1])["models"]
    assert {path: (each["operators"], each["flash"]) for path, each in models.items()} == {
        "a.tflite": (1, len(model)), "b.tflite": (None, 100),
    }  # fmt: skip
    told = [line for line in run("info", image)[1].splitlines() if ".t" in line]
    assert [line.partition(": ")[0] for line in told] == ["  a.tflite", "  b.tflite"]


def test_what_just_fits(run: Run, tmp_path: Path) -> None:
    """Of misaligned data the problem is said, not the note too."""
    image = tmp_path / "a.img"
    for size, code in ((131_072, 0), (131_074, 4)):
        image.write_bytes(encode({"a.bin": bytes(size - 48)}))
        assert image.stat().st_size == size
        assert run("verify", image, "--board", "OPENMV2")[0] == code
    image.write_bytes(b"\xd2\xcd\x31\x0f\x05\x0d\x05x.bin\x02\x05abcde")
    done = run("verify", image, "--board", "OPENMV2", "-v")
    assert done == (4, "", (
        f"romfsfs: {image}: the image has an odd length, 19 bytes\n"
        f"romfsfs: error: {image}: x.bin: its data is at 0xe, not a multiple of 16; mount it, then "
        "romfsfs commit --compact\n"
    ))  # fmt: skip


def test_a_partition_that_there_is_not_makes_nothing(run: Run, tmp_path: Path) -> None:
    assert run("new", tmp_path / "a.img", "--board", "AE3", "--partition", "2")[0] == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "board", "partition"),
    [([], "OPENMV4P", 0), (["--board", "N6"], "OPENMV_N6", 0)],
)
def test_for_what_an_image_of_a_camera_is_checked(
    run: Run, monkeypatch: pytest.MonkeyPatch, image: Path, words: list[str], board: str,
    partition: int,
) -> None:  # fmt: skip
    """The camera's own board, or another that is named."""
    checked: list[Any] = []
    info = DeviceInfo("serial", "K/1/0", "its name", "OPENMV4P", 0, 8 << 20)

    @contextlib.contextmanager
    def image_of(source: str, progress: object, **place: object) -> Iterator[Any]:
        with open(image, "rb") as file:
            yield read_image(image.read_bytes()), file, info

    monkeypatch.setattr(images, "image_of", image_of)
    monkeypatch.setattr(images, "admit_image", lambda *what: checked.append(what[2]) or [])
    assert run("verify", "camera", *words)[0] == 0
    (target,) = checked
    assert (target.board.name, target.partition.index) == (board, partition)
