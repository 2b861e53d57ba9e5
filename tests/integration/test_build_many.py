"""`build` for several boards: each converted for itself, each with a line and an outcome."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from romfsfs.cli import building, main
from romfsfs.errors import EXIT_IMAGE, EXIT_OK, EXIT_USAGE, UsageError
from romfsfs.session.build_many import orders


def test_each_board_gets_its_own_image(
    product: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["build", str(product), f"{out}/", "--board", "OPENMV4P", "--board", "openmv2",
                 "--board", "OPENMV_AE3:1"]) == EXIT_OK  # fmt: skip
    said = capsys.readouterr().out.splitlines()
    assert [line.partition(": ")[0] for line in said] == ["OPENMV4P", "OPENMV2", "OPENMV_AE3:1"]
    assert {file.name for file in out.iterdir()} == {
        "OPENMV4P.img", "OPENMV2.img", "OPENMV_AE3.1.img",
    }  # fmt: skip
    assert main(["verify", str(out / "OPENMV4P.img"), "--board", "OPENMV4P"]) == EXIT_OK
    single = tmp_path / "single.img"
    assert main(["build", str(product), str(single), "--board", "OPENMV_AE3:1"]) == EXIT_OK
    assert single.read_bytes() == (out / "OPENMV_AE3.1.img").read_bytes()


def test_a_folder_is_told_by_its_slash_or_by_being_one(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    places = {f"{tmp_path}/there": "there/OPENMV4P.img", f"{tmp_path}/new/": "new/OPENMV4P.img",
              f"{tmp_path}/new": "new"}  # fmt: skip
    for given, made in places.items():
        [order] = orders(["OPENMV4P"], given)
        assert order.image == tmp_path / made


def test_a_warning_names_the_board_that_it_is_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "src"
    folder.mkdir()
    (folder / "main.py").write_text("x = 1\n")
    words = ["build", str(folder), f"{tmp_path}/out/", "--board", "OPENMV4P", "--board", "OPENMV2"]
    assert main(words) == EXIT_OK
    said = capsys.readouterr().err.splitlines()
    for line, board in zip(said, ("OPENMV4P", "OPENMV2"), strict=True):
        assert line.startswith(f"romfsfs: warning: {board}: main.py: stock firmware starts ")


def test_a_board_that_is_too_small_fails_alone(
    product: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (product / "large.dat").write_bytes(bytes(200_000))
    pattern = str(tmp_path / "{board}" / "{partition}.img")
    assert main(["build", str(product), pattern, "--board", "OPENMV2", "--board", "OPENMV4P",
                 "--json"]) == EXIT_IMAGE  # fmt: skip
    said = capsys.readouterr()
    small, large = json.loads(said.out)
    assert (small["board"], small["ok"]) == ("OPENMV2", False)
    assert large["ok"]
    assert Path(large["image"]) == tmp_path / "OPENMV4P" / "0.img"
    assert "romfsfs: error: OPENMV2: " in said.err
    assert not (tmp_path / "OPENMV2" / "0.img").exists()


@pytest.mark.parametrize(
    ("boards", "image"),
    [
        (["OPENMV2", "OPENMV4P"], "one.img"),
        (["OPENMV2", "OPENMV2"], "out/"),
        (["OPENMV_AE3", "OPENMV_AE3:1"], "{board}.img"),
        (["OPENMV_AE3:x"], "a.img"),
        (["OPENMV_AE3:7"], "a.img"),
        (["NOTHING"], "a.img"),
    ],
)
def test_what_cannot_be_meant(boards: list[str], image: str) -> None:
    with pytest.raises(UsageError):
        orders(boards, image)


def test_standard_output_takes_one(
    product: Path, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    assert main(["build", str(product), "-", "--board", "OPENMV4P"]) == EXIT_OK
    data = capfdbinary.readouterr().out
    assert main(["build", str(product), str(tmp_path / "a.img"), "--board", "OPENMV4P"]) == EXIT_OK
    assert data == (tmp_path / "a.img").read_bytes()
    two = ["--board", "OPENMV4P", "--board", "OPENMV2"]
    assert main(["build", str(product), "-", *two]) == EXIT_USAGE


@pytest.mark.parametrize("image", ["new/deep/", "new/deep/{board}-{partition}.img"])
def test_folders_of_a_pattern_are_made_for_one_board_too(
    product: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], image: str
) -> None:
    """But not for an image that was named itself."""
    for _ in range(2):
        words = ["build", str(product), f"{tmp_path}/{image}", "--board", "AE3:1", "--force"]
        assert main(words) == EXIT_OK
    made = [path.name for path in (tmp_path / "new" / "deep").iterdir()]
    assert made == ["OPENMV_AE3.1.img" if image.endswith("/") else "OPENMV_AE3-1.img"]
    assert main(["build", str(product), f"{tmp_path}/no/x.img", "--board", "AE3:1"]) != EXIT_OK
    assert not (tmp_path / "no").exists()


def test_what_goes_to_standard_output_is_not_hashed(
    product: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    asked: list[object] = []

    def build(*what: Any, **how: object) -> Any:
        asked.append(how)
        what[1].write(b"the image")
        return SimpleNamespace(plan=SimpleNamespace(problems=()))

    monkeypatch.setattr(building, "build_image", build)
    assert main(["build", str(product), "-"]) == EXIT_OK
    assert asked == [{"hashed": False}]
    assert capfdbinary.readouterr().out == b"the image"
