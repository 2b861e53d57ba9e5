"""Folders and zips, and what a mount sees of them."""

from __future__ import annotations

import os
import stat
import subprocess
import threading
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from zoo_server import FILES, MODELS, Server

from romfsfs.errors import RomfsError, UsageError
from romfsfs.ide.archive import Fetching
from romfsfs.ide.places import resource_folders
from romfsfs.zoo import open_zoo
from romfsfs.zoo.choose import open_known, open_source, remember
from romfsfs.zoo.sources import Zoo

BLAZE = "google/face/blaze/blaze_128.tflite"


def opened(text: str, **how: Any) -> Zoo:
    return open_source(text, Fetching(**how))


def paths(zoo: Zoo, board: str | None) -> set[str]:
    return {model.path for model in zoo.catalog().models(board)}


def content(zoo: Zoo, path: str) -> bytes:
    with open(zoo.open(path), "rb") as file:
        return file.read()


@pytest.mark.parametrize("inner", ["", "models"])
def test_a_folder_with_models_or_the_models_folder_itself(resources: Path, inner: str) -> None:
    zoo = opened(str(resources / inner))
    assert paths(zoo, None) == MODELS
    assert paths(zoo, "OPENMV_N6") == {BLAZE, "st/gestures/hand/hand_96.lite"}
    assert paths(zoo, "OPENMV4P") == {
        "google/objects/small/yolo.v8.tflite",
        "st/gestures/hand/hand_96.lite",
    }
    assert content(zoo, BLAZE) == FILES[BLAZE]


def test_labels_belong_to_the_model_that_the_firmware_looks_for_them_with(resources: Path) -> None:
    labels = {m.path: m.label for m in opened(str(resources)).catalog().models(None)}
    assert labels[BLAZE] == "google/face/blaze/blaze_128.txt"
    assert labels["google/objects/small/yolo.v8.tflite"] == "google/objects/small/yolo.txt"
    assert labels["st/gestures/hand/hand_96.lite"] is None


def test_a_changed_folder_is_scanned_again(resources: Path) -> None:
    zoo = opened(str(resources))
    before = zoo.catalog()
    assert zoo.catalog() is before
    (resources / "models/st/gestures/new.tflite").write_bytes(b"new")
    assert "st/gestures/new.tflite" in paths(zoo, None)
    (resources / "models/index.csv").write_text('"gestures", ""\n')
    assert "st/gestures/new.tflite" not in paths(zoo, "OPENMV_N6")


def test_what_is_no_file_of_a_zoo_is_left_alone(resources: Path) -> None:
    models = resources / "models"
    (models / "dangling.tflite").symlink_to("nowhere")
    os.mkfifo(models / "pipe.tflite")
    (models / ".git").mkdir()
    (models / ".git" / "x.tflite").write_bytes(b"")
    (models / "loop").symlink_to(models)
    assert paths(opened(str(resources)), None) == MODELS


def test_a_zip_gives_what_its_folder_gives(resources: Path, resource_zip: Path) -> None:
    folder, zipped = opened(str(resources)), opened(str(resource_zip))
    for board in (None, "OPENMV_N6", "OPENMV4P"):
        assert paths(zipped, board) == paths(folder, board)
    for path in MODELS:
        assert content(zipped, path) == FILES[path]
        assert content(zipped, path) == FILES[path]  # now from the cache


def test_a_zip_without_a_models_folder(make_zip: Callable[..., Path]) -> None:
    assert paths(opened(str(make_zip({"a/x.tflite": b"x"}))), None) == {"a/x.tflite"}
    rooted = make_zip({"zoo/index.csv": b"", "zoo/a/x.tflite": b"x"})
    assert paths(opened(str(rooted)), None) == {"a/x.tflite"}


def test_a_replaced_zip_never_gives_the_old_bytes(make_zip: Callable[..., Path]) -> None:
    zoo = opened(str(make_zip({"models/x.tflite": b"old"})))
    assert content(zoo, "x.tflite") == b"old"
    make_zip({"models/x.tflite": b"new"})
    assert content(zoo, "x.tflite") == b"new"


@pytest.mark.parametrize("name", ["../x.tflite", "/x.tflite", "models/../../x.tflite", "a\\x.lite"])
def test_a_zip_whose_names_lead_out_is_refused(make_zip: Callable[..., Path], name: str) -> None:
    zoo = opened(str(make_zip({name: b"x"})))
    with pytest.raises(RomfsError, match="refused"):
        zoo.catalog()


def test_links_in_a_zip_are_not_followed(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "zoo.zip", "w") as archive:
        link = zipfile.ZipInfo("models/link.tflite")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
        archive.writestr("models/x.tflite", b"x")
    assert paths(opened(str(tmp_path / "zoo.zip")), None) == {"x.tflite"}


def test_a_damaged_member_is_an_error_and_is_not_cached(make_zip: Callable[..., Path]) -> None:
    path = make_zip({"models/x.tflite": os.urandom(10_000)})
    data = bytearray(path.read_bytes())
    data[5000] ^= 1
    path.write_bytes(data)
    zoo = opened(str(path))
    for _ in range(2):
        with pytest.raises(RomfsError, match="cannot read the zip"):
            zoo.open("x.tflite")


def test_a_member_too_large_for_any_camera_is_not_extracted(
    make_zip: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    zoo = opened(str(make_zip({"models/bomb.tflite": bytes(1_000_000)})))
    zoo.catalog()
    monkeypatch.setattr("romfsfs.ide.archive.MAX_FILE_BYTES", 100_000)
    with pytest.raises(RomfsError, match="no camera can hold that"):
        zoo.open("bomb.tflite")


def test_a_server_that_sends_all_whatever_is_asked(server: Server, resource_zip: Path) -> None:
    """As that of Python; and a hotel's network, which answers with its own page."""
    url = server.url + "/resources.zip"
    server.ranges = False
    server.files["/resources.zip"] = resource_zip.read_bytes()
    with pytest.raises(RomfsError, match="does not send parts") as caught:
        opened(url)
    assert "name it with --from" in caught.value.next_step
    assert open_known(url) is None
    server.ranges = True
    assert paths(opened(url), None) == MODELS
    server.ranges = False
    with pytest.raises(RomfsError, match="does not send parts"):
        opened(url, update=True)
    assert content(opened(url), BLAZE) == FILES[BLAZE]  # what it had before


def test_half_a_zip_is_not_kept(server: Server, resource_zip: Path) -> None:
    url = server.url + "/resources.zip"
    whole = resource_zip.read_bytes()
    server.files["/resources.zip"] = whole[: len(whole) // 2]
    with pytest.raises(RomfsError, match="cannot read the zip"):
        opened(url).catalog()
    assert open_known(url) is None
    server.files["/resources.zip"] = whole
    assert content(opened(url), BLAZE) == FILES[BLAZE]


@pytest.mark.parametrize(
    "text", ["http://[x", "http://x:port/", "http://x:99999/", "https://", "ftp://x/y.zip"]
)
def test_what_is_no_url_is_said_so(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="not a URL"):
        opened(text)
    monkeypatch.setenv("ROMFSFS_ZOO", text)
    monkeypatch.setattr("romfsfs.zoo.tree._choice", (float("-inf"), None))
    assert open_zoo(None) is None  # a mount works all the same


def test_an_installed_ide_is_found_and_its_updated_copy_wins(
    resources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = tmp_path / "home/openmvide/share/qtcreator"
    updated = tmp_path / "home/.config/OpenMV/openmvide"
    assert open_known("ide") is None
    for folder in (installed, updated):
        (folder / "models").mkdir(parents=True)
        (folder / "firmware").mkdir()
    assert resource_folders() == [updated, installed]
    assert opened("ide").name == str(updated / "models")
    monkeypatch.setenv("ROMFSFS_IDE_RESOURCES", str(resources))
    assert resource_folders() == [resources]
    monkeypatch.setenv("ROMFSFS_IDE_RESOURCES", "~/absent")
    with pytest.raises(UsageError) as caught:
        resource_folders()
    assert caught.value.line == "$ROMFSFS_IDE_RESOURCES is not a folder (~/absent)"
    monkeypatch.setenv("ROMFSFS_IDE_RESOURCES", str(resources))
    assert paths(opened("ide"), None) == MODELS


def test_a_mount_shows_models_with_labels_and_nothing_else(
    resources: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert open_zoo("OPENMV4P") is None
    monkeypatch.setenv("ROMFSFS_ZOO", str(resources))
    tree = open_zoo("OPENMV4P")
    assert tree is not None
    assert open_zoo("OPENMV4P") is tree
    assert list(tree.list("")) == [("google", True), ("st", True)]
    assert list(tree.list("google")) == [("objects", True)]
    small = "google/objects/small"
    assert list(tree.list(small)) == [("yolo.txt", False), ("yolo.v8.tflite", False)]
    found = tree.stat(small + "/yolo.v8.tflite")
    assert found is not None
    assert found[:2] == (False, 2000)
    assert tree.stat(BLAZE) is None
    assert tree.stat("google/objects")[0]  # type: ignore[index]
    fd, offset, size = tree.open(small + "/yolo.txt")
    assert os.pread(fd, size, offset) == b"cat\ndog\n"
    os.close(fd)
    for absent in (BLAZE, "index.csv", "google", "../x"):
        with pytest.raises(KeyError):
            tree.open(absent)
    with pytest.raises(KeyError):
        tree.list("google/face")


def test_a_mount_scans_only_when_somebody_looks(
    resources: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROMFSFS_ZOO", str(resources))
    (resources / "models/index.csv").write_text("broken\n")
    tree = open_zoo(None)
    assert tree is not None
    assert tree.stat("") is not None
    with pytest.raises(OSError, match="a line is not"):
        tree.list("")
    (resources / "models/index.csv").write_text("")
    assert list(tree.list(""))


def test_patterns_that_take_for_ever_hold_up_nobody_else(
    resources: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the other readers of the mount, and not those who ask again."""
    monkeypatch.setenv("ROMFSFS_ZOO", str(resources))
    started, asked, runs = threading.Event(), threading.Event(), []
    run = subprocess.run

    def slow(*args: Any, **options: Any) -> subprocess.CompletedProcess[bytes]:
        runs.append(args)
        started.set()
        assert asked.wait(60)
        return run(*args, **options)

    (resources / "models/index.csv").write_text('"(g|o|go)+$", "N6"\n')
    (resources / "models" / ("go" * 60 + ".tflite")).write_bytes(b"x")
    monkeypatch.setattr(subprocess, "run", slow)
    tree, other = open_zoo("OPENMV_N6"), open_zoo(None)
    assert tree is not None
    assert other is not None
    with ThreadPoolExecutor(1) as pool:
        listing = pool.submit(tree.list, "")
        assert started.wait(60)
        assert open_zoo("OPENMV_N6") is tree
        assert tree.stat("") is not None
        assert list(other.list(""))
        asked.set()
        with pytest.raises(OSError, match="take too long"):
            listing.result(60)
    with pytest.raises(OSError, match="take too long"):
        tree.list("")
    assert len(runs) == 1


def test_a_mount_downloads_nothing_before_somebody_reads(
    server: Server, make_zip: Callable[..., Path]
) -> None:
    url = server.url + "/resources.zip"
    members = {f"models/{path}": data for path, data in FILES.items()}
    members["tools/program"] = os.urandom(400_000)  # the end of a zip comes as a whole
    server.files["/resources.zip"] = make_zip(members).read_bytes()
    remember(url)
    assert open_zoo(None) is None
    assert server.requests == []
    opened(url).catalog()  # as `zoo list`
    server.requests.clear()
    tree = open_zoo(None)
    assert tree is not None
    tree.list("")
    assert server.requests == []
    fd, _, size = tree.open(BLAZE)
    os.close(fd)
    assert size == len(FILES[BLAZE])
    assert len(server.asked) == 1
    server.files.clear()
    with pytest.raises(OSError, match="404"):
        tree.open("st/gestures/hand/hand_96.lite")
