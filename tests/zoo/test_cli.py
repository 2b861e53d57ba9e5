"""`romfsfs zoo ...` as a user types it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from zoo_server import FILES, MODELS, Server

from romfsfs.cli import main
from romfsfs.cli.values import models
from romfsfs.devices.open import open_device
from romfsfs.image.writer import encode
from romfsfs.session.rebase.read import OpenOptions, make_ready, session_for
from romfsfs.session.session import Session

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
