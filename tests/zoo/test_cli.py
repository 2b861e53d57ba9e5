"""`romfsfs zoo ...` as a user types it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest
from zoo_server import FILES, MODELS, Server

from romfsfs.cli import main, zoo
from romfsfs.cli.values import models
from romfsfs.devices.open import open_device
from romfsfs.errors import CapacityError, UsageError
from romfsfs.image.writer import encode
from romfsfs.session.rebase.read import OpenOptions, make_ready, session_for
from romfsfs.session.session import Session
from romfsfs.zoo.sources import Copy

BLAZE = "google/face/blaze/blaze_128.tflite"
YOLO = "google/objects/small/yolo.v8.tflite"


@pytest.fixture
def session(tmp_path: Path) -> Session:
    """A session of an image for the OpenMV H7 Plus, with its work tree, not mounted."""
    image = tmp_path / "camera.img"
    image.write_bytes(encode({"main.py": b"pass\n"}))
    device = open_device(str(image), board="OPENMV4P", partition=None)
    session = session_for(device, str(image), OpenOptions("OPENMV4P"))
    make_ready(session, device)
    device.close()
    return session


def listed(capsys: pytest.CaptureFixture[str], *arguments: str) -> set[str]:
    assert main(["zoo", "list", "--json", *arguments]) == 0
    return {model["path"] for model in json.loads(capsys.readouterr().out)["models"]}


def test_list_filters_for_a_board_and_remembers_the_source(
    resources: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(resources.parent)
    assert listed(capsys, "--from", "resources", "--board", "openmv-n6") == {
        BLAZE,
        "st/gestures/hand/hand_96.lite",
    }
    monkeypatch.chdir("/")
    assert listed(capsys, "--all") == MODELS
    monkeypatch.setenv("ROMFSFS_ZOO", str(resources / "models" / "st"))
    assert listed(capsys, "--all") == {"gestures/hand/hand_96.lite", "secret/hidden/hidden.tflite"}


def test_list_is_for_the_board_of_the_session(
    resources: Path, session: Session, capsys: pytest.CaptureFixture[str]
) -> None:
    assert listed(capsys, "--from", str(resources)) == {YOLO, "st/gestures/hand/hand_96.lite"}


def test_list_for_people(resources: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["zoo", "list", "--from", str(resources)]) == 0
    printed = capsys.readouterr()
    assert "BlazeFace: Finds faces & their landmarks.\n" in printed.out
    assert "Google: Models.\n" in printed.out  # of the folder above
    assert "licence" not in printed.out.casefold()
    (line,) = [line for line in printed.out.splitlines() if BLAZE in line]
    assert line.split() == ["5,000", "B", "-", BLAZE, "+", "labels"]
    assert "choose one with --board" in printed.err


def test_list_as_json_says_all_about_a_model(
    resources: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["zoo", "list", "--json", "--board", "OPENMV_N6", "--from", str(resources)]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["board"] == "OPENMV_N6"
    assert record["source"] == str(resources / "models")
    assert record["models"][0] == {
        "path": BLAZE,
        "size": 5000,
        "labels": "google/face/blaze/blaze_128.txt",
        "title": "BlazeFace",
        "text": "Finds faces & their landmarks.",
        "input": "-",
        "fits": "fits",
    }


def test_a_source_that_is_none_is_not_remembered(
    resources: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["zoo", "list", "--all"]) == 2
    assert "No OpenMV IDE is installed. Download" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert main(["zoo", "list", "--all", "--from", str(tmp_path / "empty")]) == 1
    assert main(["zoo", "list", "--all", "--from", str(tmp_path / "absent")]) == 2
    assert not (tmp_path / "state_dir" / "zoo.json").exists()


def test_add_brings_the_labels_under_the_name_that_the_firmware_looks_for(
    resources: Path, session: Session, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["zoo", "add", "yolo.v8", "--from", str(resources)]) == 0
    assert (session.work / "yolo.v8.tflite").read_bytes() == FILES[YOLO]
    assert (session.work / "yolo.txt").read_bytes() == b"cat\ndog\n"
    assert capsys.readouterr().out.splitlines() == [
        f"{YOLO} -> yolo.v8.tflite, 2,000 B",
        "google/objects/small/yolo.txt -> yolo.txt, 8 B",
    ]
    assert {e.path for e in session.status().entries} == {"main.py", "yolo.v8.tflite", "yolo.txt"}


def test_add_under_another_name_into_a_folder(resources: Path, session: Session) -> None:
    words = ["zoo", "add", YOLO, "--from", str(resources), "--as", "pets", "--into", "ml/models"]
    assert main(words) == 0
    folder = session.work / "ml" / "models"
    assert sorted(p.name for p in folder.iterdir()) == ["pets.tflite", "pets.txt"]
    assert main([*words[:-2], "--into", "../up"]) == 2
    assert main([*words[:-4], "--as", "a/b"]) == 2


def test_add_replaces_nothing_unless_it_is_told_to(
    resources: Path, session: Session, capsys: pytest.CaptureFixture[str]
) -> None:
    (session.work / "yolo.txt").write_text("mine\n")
    assert main(["zoo", "add", YOLO, "--from", str(resources)]) == 1
    assert "already there: yolo.txt (" in capsys.readouterr().err
    assert not (session.work / "yolo.v8.tflite").exists()
    assert main(["zoo", "add", YOLO, "--no-labels"]) == 0
    assert (session.work / "yolo.txt").read_text() == "mine\n"
    assert main(["zoo", "add", YOLO, "--force"]) == 0
    assert (session.work / "yolo.txt").read_text() == "cat\ndog\n"
    assert sorted(p.name for p in session.work.iterdir()) == [
        "main.py",
        "yolo.txt",
        "yolo.v8.tflite",
    ]


def test_add_understands_names_and_suggests_close_ones(
    resources: Path, session: Session, capsys: pytest.CaptureFixture[str]
) -> None:
    def say(name: str, *more: str) -> str:
        assert main(["zoo", "add", name, "--from", str(resources), *more]) == 2
        return capsys.readouterr().err

    assert "did you mean " + YOLO in say("yolo_v8")
    assert "did you mean " + YOLO in say("yol")
    assert "romfsfs zoo list" in say("zzzzzzzz")
    assert "index.csv" in say("blaze_128")
    assert "--all" in say(BLAZE)
    assert "the name of 2 models" in say("google", "--all")
    assert main(["zoo", "add", "BLAZE_128.TFLITE", "--all"]) == 0
    assert main(["zoo", "add", "gestures"]) == 0


def test_add_refuses_what_can_never_fit(
    resources: Path, session: Session, capsys: pytest.CaptureFixture[str]
) -> None:
    with open(resources / "models" / YOLO, "r+b") as file:
        file.truncate(9 << 20)
    assert main(["zoo", "add", YOLO, "--from", str(resources)]) == 4
    assert "larger than the partition" in capsys.readouterr().err
    assert not (session.work / "yolo.v8.tflite").exists()


def test_add_needs_somewhere_to_add_to(
    resources: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["zoo", "add", YOLO, "--from", str(resources)]) == 2
    assert main(["zoo", "add", YOLO, str(tmp_path), "--from", str(resources)]) == 2
    assert "romfsfs has nothing mounted there" in capsys.readouterr().err


def test_update_sees_a_newer_version(
    server: Server, make_zip: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    server.files["/r.zip"] = make_zip({"models/a.tflite": b"a"}).read_bytes()
    assert listed(capsys, "--all", "--from", server.url + "/r.zip") == {"a.tflite"}
    server.files["/r.zip"] = make_zip({"models/b.tflite": b"b"}).read_bytes()
    assert listed(capsys, "--all") == {"a.tflite"}
    assert listed(capsys, "--all", "--update") == {"b.tflite"}


def test_names_are_completed_as_paths_and_as_what_add_takes(
    resources: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROMFSFS_ZOO", str(resources))
    context = click.Context(click.Command("add"))

    def completed(word: str) -> set[str]:
        return {item.value for item in models(context, click.Argument(["model"]), word)}

    assert completed("") == MODELS
    assert completed("google/f") == {BLAZE}
    assert completed("bla") == {"blaze_128"}
    assert completed("YOLO") == {"yolo.v8"}


@pytest.mark.parametrize(
    ("size", "capacity", "free", "fits"),
    [(8, 8, 8, "fits"), (9, 9, 8, "no room"), (9, 8, 8, "too large"), (8, 9, 9, "fits"),
     (1, 9, 0, "no room")],
)  # fmt: skip
def test_what_fits(size: int, capacity: int, free: int, fits: str) -> None:
    assert zoo._fits(size, capacity, free) == fits


@pytest.mark.parametrize(
    ("board", "partition", "there", "capacity", "size", "wanted"),
    [
        (None, 0, True, 100, 30, ("OPENMV4P", (100, 70))),
        ("OPENMV4P", 0, True, 100, 130, ("OPENMV4P", (100, 0))),
        (None, 0, True, None, 30, ("OPENMV4P", None)),
        ("OPENMV_AE3", 1, True, 100, 30, ("OPENMV_AE3", (1 << 20, 1 << 20))),
        ("OPENMV_AE3", 0, False, 0, 0, ("OPENMV_AE3", (24 << 20, 24 << 20))),
        (None, 0, False, 0, 0, (None, None)),
    ],
)  # fmt: skip
def test_for_which_board_and_how_much_room(
    monkeypatch: pytest.MonkeyPatch, board: str | None, partition: int, there: bool,
    capacity: int | None, size: int, wanted: object,
) -> None:  # fmt: skip
    """The mounted one, unless another is named. Nothing is converted for it."""
    looks: list[object] = []
    plan = SimpleNamespace(plan=SimpleNamespace(capacity=capacity, size=size))
    session = SimpleNamespace(
        info=SimpleNamespace(board="OPENMV4P"), look=lambda **how: looks.append(how) or plan
    )

    def find(directory: str | None) -> Any:
        if not there:
            raise UsageError("none is mounted")
        return SimpleNamespace(session=session)

    monkeypatch.setattr(zoo, "find_session", find)
    assert zoo._board(board, partition, None) == wanted
    assert looks == ([{"quick": True}] if there and board != "OPENMV_AE3" else [])
    if not there:
        with pytest.raises(UsageError):
            zoo._board(board, partition, "cam")


@pytest.mark.parametrize("columns", [40, 80])
def test_a_description_takes_two_lines_at_most(
    resources: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    columns: int,
) -> None:  # fmt: skip
    monkeypatch.setenv("COLUMNS", str(columns))
    width = 2 * columns - 10
    for more, shown in ((0, "Google: {}"), (1, "Google: {} ...")):
        text = "ab " * 10 + "c" * (width - len("Google: ") - 30 + more)
        page = f"<html><title>Google</title><p>{text}</p></html>"
        (resources / "models/google/index.html").write_text(page)
        assert main(["zoo", "list", "--from", str(resources), "--all"]) == 0
        line = shown.format(text if more == 0 else text.rpartition(" ")[0])
        assert line in capsys.readouterr().out.splitlines()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--board", "OPENMV2"], "no models in {} for OPENMV2; see --all"),
        (["--board", "OPENMV2", "--all"], None), ([], None),
    ],
)  # fmt: skip
def test_a_zoo_without_models_for_a_board(
    resources: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str],
    said: str | None,
) -> None:  # fmt: skip
    folder = tmp_path / "one" / "models" / "x"
    folder.mkdir(parents=True)
    (folder / "a.tflite").write_bytes(b"x")
    (folder.parent / "index.csv").write_text('"a", "N6"\n')
    assert main(["zoo", "list", "--from", str(folder.parent.parent), *words]) == 0
    shown = capsys.readouterr()
    assert (shown.out == "") is (said is not None)
    if said:
        assert shown.err == f"romfsfs: {said.format(folder.parent)}\n"
    assert main(["zoo", "list", "--json", *words]) == 0
    assert capsys.readouterr().err.count("no models") == 0


@pytest.mark.parametrize(
    ("size", "capacity", "converted", "refused"),
    [(8, 8, False, False), (9, 8, False, True), (9, 8, True, False), (9, None, False, False)],
)
def test_what_is_refused_before_it_is_copied(
    size: int, capacity: int | None, converted: bool, refused: bool
) -> None:
    """What is stored as it is; what a converter makes of another may well fit."""
    asked: list[str] = []
    converters = SimpleNamespace(concerns=lambda path: asked.append(path) or converted)
    settings = SimpleNamespace(capacity=capacity, converters=converters)
    found: Any = SimpleNamespace(session=SimpleNamespace(settings=settings))
    small, copy = Copy("s", "s.txt", 1), Copy("zoo/a.tflite", "b.tflite", size)
    if refused:
        with pytest.raises(CapacityError) as caught:
            zoo._check_capacity(found, Path("lib"), [small, copy])
        assert caught.value.line == (
            "larger than the partition: 9 B of 8 B (zoo/a.tflite); choose a smaller one: romfsfs "
            "zoo list"
        )
    else:
        zoo._check_capacity(found, Path("lib"), [small, copy])
    assert asked == (["lib/b.tflite"] if capacity == 8 and size > 8 else [])
