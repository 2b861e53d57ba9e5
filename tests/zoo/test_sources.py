"""Folders and zips, and what a mount sees of them."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import shutil
import stat
import subprocess
import threading
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
from zoo_server import FILES, MODELS, Server

from romfsfs.errors import RomfsError, UsageError
from romfsfs.ide import archive, remote
from romfsfs.ide.archive import Fetching, local_zip
from romfsfs.ide.places import resource_folders
from romfsfs.system.errors import worded
from romfsfs.system.files import replace_atomically
from romfsfs.zoo import open_zoo, sources, tree
from romfsfs.zoo.catalog import Catalog
from romfsfs.zoo.choose import absolute, chosen, open_known, open_source, remember
from romfsfs.zoo.index import parse_index
from romfsfs.zoo.members import Member, checked_path, describe, models
from romfsfs.zoo.sources import Zoo, _zip_root, add, copies

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
    (models / ".hidden.tflite").write_bytes(b"x")
    (models / "program.bin").write_bytes(b"x")
    assert set(opened(str(resources)).catalog().members) == set(FILES)
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
    assert list(tree.list("")) == [("google", True), ("st", True)]
    view = tree._view()
    assert tree._view() is view
    (resources / "models/new.tflite").write_bytes(b"new")
    assert list(tree.list("")) == [("google", True), ("new.tflite", False), ("st", True)]
    assert tree._view() is not view
    for path in ("", "google"):
        assert tree.stat(path) == (True, 0, tree._time_ns)
    status = (resources / "models/new.tflite").stat()
    assert tree.stat("new.tflite") == (False, 3, status.st_mtime_ns)


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


def members(*names: str) -> dict[str, Member]:
    return {name: Member(name, len(name), 0) for name in names}


NAMES = members(
    "b/face/face.tflite", "b/face/FACE.lite", "a/Hand.v2.onnx", "a/hand.txt", "c/notes.txt",
    "c/deep/x/only.tflite", *(f"many/m{number}.tflite" for number in range(9)),
)  # fmt: skip


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("b/face/face.tflite", "b/face/face.tflite"),
        ("/b/face/face.tflite/", "b/face/face.tflite"),
        ("B/FACE/FACE.LITE", "b/face/FACE.lite"),
        ("face", "b/face/face.tflite"),
        ("FACE", "b/face/FACE.lite"),
        ("face.lite", "b/face/FACE.lite"),
        ("hand.V2", "a/Hand.v2.onnx"),
        ("x/only.tflite", "c/deep/x/only.tflite"),
        ("deep", "c/deep/x/only.tflite"),
        ("DEEP/X", "c/deep/x/only.tflite"),
        ("Face", "'Face' is the name of 2 models; give one of the paths: b/face/FACE.lite, "
         "b/face/face.tflite"),
        ("many", "'many' is the name of 9 models; give one of the paths: "
         + ", ".join(f"many/m{number}.tflite" for number in range(8))),
        ("m8", "'m8' is not for N6, says the zoo's index.csv; add it anyway with --all"),
        ("OnL", "the zoo has no model 'OnL'; did you mean c/deep/x/only.tflite?"),
        ("lite", "the zoo has no model 'lite'; did you mean b/face/FACE.lite or b/face/face.tflite "
         "or c/deep/x/only.tflite?"),
        ("handy", "the zoo has no model 'handy'; did you mean a/Hand.v2.onnx?"),
        ("many/m", "the zoo has no model 'many/m'; did you mean many/m0.tflite or many/m1.tflite "
         "or many/m2.tflite?"),
        ("qqqqqqq", "the zoo has no model 'qqqqqqq'; see: romfsfs zoo list"),
    ],
)  # fmt: skip
def test_a_model_is_found_by_what_people_type(text: str, found: str) -> None:
    catalog = Catalog(NAMES, parse_index('"m8", ""', "index.csv"))
    board = "N6" if text == "m8" else None
    try:
        said = catalog.find(text, board).path
    except UsageError as error:
        said = error.line
    assert said == found


def test_models_with_what_belongs_to_them() -> None:
    names = (
        "index.html", "a/one.v2.tflite", "a/one.v2.txt", "a/b/two.lite", "a/b/two.txt",
        "a/b/two.v1.onnx", "a/index.html", "a/b/c/THREE.ONNX", "a/b/c/index.html", "four.tflite",
        "four.txt", "d/five.tflite", "d/five.txt.bak", "six.txt",
    )  # fmt: skip
    found = [(m.path, m.name, m.size, m.label, m.page) for m in models(members(*names))]
    assert found == [
        ("a/b/c/THREE.ONNX", "THREE.ONNX", 16, None, "a/b/c/index.html"),
        ("a/b/two.lite", "two.lite", 12, "a/b/two.txt", "a/index.html"),
        ("a/b/two.v1.onnx", "two.v1.onnx", 15, "a/b/two.txt", "a/index.html"),
        ("a/one.v2.tflite", "one.v2.tflite", 15, "a/one.v2.txt", "a/index.html"),
        ("d/five.tflite", "five.tflite", 13, None, None),
        ("four.tflite", "four.tflite", 11, "four.txt", None),
    ]


@pytest.mark.parametrize(
    ("page", "said"),
    [
        (b"", ("", "")),
        (b"<title>A\n b</title><p>First <b>bold</b>\n&amp;  text</p><p>Second</p>",
         ("A b", "First bold & text")),
        (b"<title> </title><title>Real</title><p>\n</p>no<p>Said</p>more", ("Real", "Said")),
        (b"<h1>no</h1><p>Open <title>In</title> end", ("In", "Open")),
        (b"<p>\xff", ("", "\N{REPLACEMENT CHARACTER}")),
    ],
)  # fmt: skip
def test_what_a_page_says_of_a_model(page: bytes, said: tuple[str, str]) -> None:
    assert tuple(describe(page)) == said


@pytest.mark.parametrize("name", ["/x", "x/", "a//b", "./x", "a/..", "../x", "a\\b", "a\0b", ""])
def test_a_name_that_leads_out_is_said(name: str) -> None:
    assert checked_path("a/b.c/..d", "zip") == "a/b.c/..d"
    with pytest.raises(RomfsError) as caught:
        checked_path(name, "zip")
    assert caught.value.line == (
        f"refused: a file is named {name!r} (zip); a zoo's names are relative, with '/' between "
        "and without '..'"
    )


@pytest.mark.parametrize(
    ("names", "root"),
    [
        ([], ""), (["a/x.tflite"], ""), (["models/a.tflite"], "models/"),
        (["b/models/x.lite", "a/models/y.lite", "a/b/models/z.lite"], "a/models/"),
        (["models/readme.txt", "z/models/x.onnx"], "z/models/"),
        (["mymodels/a.tflite", "z/index.csv", "b/c/index.csv"], "z/"),
        (["index.csv", "a/index.csv"], ""), (["a/noindex.csv"], ""),
    ],
)  # fmt: skip
def test_where_in_a_zip_the_zoo_is(names: list[str], root: str) -> None:
    assert _zip_root(names) == root


def test_what_adding_a_model_means(resources: Path, tmp_path: Path) -> None:
    zoo = opened(str(resources))
    yolo = zoo.catalog().find("yolo.v8", None)
    hand = zoo.catalog().find("hand_96", None)
    labels = "google/objects/small/yolo.txt"
    assert copies(zoo, yolo) == [(yolo.path, "yolo.v8.tflite", 2000), (labels, "yolo.txt", 8)]
    assert copies(zoo, yolo, "a.b") == [(yolo.path, "a.b.tflite", 2000), (labels, "a.txt", 8)]
    assert copies(zoo, yolo, "c.LITE", labels=False) == [(yolo.path, "c.LITE", 2000)]
    assert copies(zoo, hand, "x") == [(hand.path, "x.lite", 800)]
    for name in (".", "..", "a/b", "a\0b"):
        with pytest.raises(UsageError) as caught:
            copies(zoo, yolo, name)
        assert caught.value.line == f"not a file name: {name!r}; choose the folder with --into"
    told: list[tuple[str, int, int]] = []
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    old = os.umask(0o026)
    try:
        add(zoo, copies(zoo, yolo), folder, progress=lambda *now: told.append(now))
    finally:
        os.umask(old)
    assert told == [("copying", 2000, 2008), ("copying", 2008, 2008)]
    assert {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()} == {
        "yolo.v8.tflite": 0o640, "yolo.txt": 0o640,
    }  # fmt: skip
    with pytest.raises(RomfsError) as refused:
        add(zoo, copies(zoo, yolo), folder)
    assert refused.value.line == (
        f"already there: yolo.v8.tflite and yolo.txt ({folder}); replace with --force, or choose "
        "another name with --as"
    )


@pytest.mark.parametrize(
    ("kept", "source"),
    [
        (None, "ide"), (b'{"source": "/zoo"}', "/zoo"), (b'{"source": 3}', "ide"), (b"[]", "ide"),
        (b"{}", "ide"), (b"no", "ide"), (b"\xff", "ide"), (b'{"source": ""}', "ide"),
    ],
)  # fmt: skip
def test_which_source_was_chosen(
    kept: bytes | None, source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "state_dir").mkdir()
    if kept is not None:
        (tmp_path / "state_dir" / "zoo.json").write_bytes(kept)
    assert chosen() == source
    monkeypatch.setenv("ROMFSFS_ZOO", "mine")
    assert chosen() == "mine"
    monkeypatch.setenv("ROMFSFS_ZOO", "")
    assert chosen() == source
    monkeypatch.chdir(tmp_path)
    given = ("ide", "http://x/y", "a/../b", "~/z", "/c")
    assert [absolute(text) for text in given] == [
        "ide", "http://x/y", f"{tmp_path}/b", f"{tmp_path}/home/z", "/c"
    ]  # fmt: skip
    remember("rel")
    monkeypatch.delenv("ROMFSFS_ZOO")
    assert chosen() == f"{tmp_path}/rel"


def test_a_zip_with_what_it_should_not_have(make_zip: Callable[..., Path]) -> None:
    path = make_zip({"models/x.tflite": b"x" * 100})
    data = path.read_bytes()
    where = f"({path}, models/x.tflite); download it again"

    def said(spoil: Callable[[zipfile.ZipInfo], None]) -> str:
        zipped = local_zip(path)
        (info,) = zipped.infos()
        spoil(info)
        assert not zipped.is_kept(info)
        with pytest.raises(RomfsError) as caught:
            zipped.keep([info])
        assert not zipped.is_kept(info)
        return caught.value.line

    def method(info: zipfile.ZipInfo) -> None:
        info.compress_type = zipfile.ZIP_LZMA

    assert said(method) == f"cannot read the zip: compression method 14 is not supported {where}"
    large = archive.MAX_FILE_BYTES + 1
    assert said(lambda info: setattr(info, "file_size", large)) == (
        f"a file of {large:,} bytes: no camera can hold that ({path}, models/x.tflite)"
    )
    longer = said(lambda info: setattr(info, "file_size", 101))
    assert longer == f"cannot read the zip: its size is not as declared {where}"
    zipped = local_zip(path)
    (info,) = zipped.infos()
    (kept,) = zipped.keep([info, info][:1])
    assert kept.read_bytes() == b"x" * 100
    path.unlink()
    assert zipped.keep([info]) == [kept], "nothing is read again"
    with pytest.raises(FileNotFoundError):
        zipped.infos()
    path.write_bytes(data)


def test_a_disk_at_fault_is_told_from_a_damaged_zip(
    make_zip: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    zipped = local_zip(make_zip({"models/x.tflite": b"x" * 100}))
    infos = zipped.infos()
    kept = zipped.folder / archive._kept_name(infos[0])

    def fails(number: int) -> Callable[..., Any]:
        def fail(*_: object) -> Any:
            raise OSError(number, os.strerror(number))

        return fail

    @contextlib.contextmanager
    def full(path: Path) -> Iterator[Any]:
        with replace_atomically(path):
            yield SimpleNamespace(write=fails(errno.ENOSPC))

    def said(owner: object, name: str, stand_in: object) -> str:
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, stand_in)
            with pytest.raises(RomfsError) as caught, worded():
                zipped.keep(infos)
        return caught.value.line

    assert said(archive, "replace_atomically", full) == (
        f"no space left on device ({kept}); free space there and try again, your edits are kept; "
        "$ROMFSFS_CACHE_DIR names another place"
    )
    for owner, name, where in (
        (zipfile, "ZipFile", ""), (zipfile.ZipExtFile, "read", f", {infos[0].filename}"),
    ):  # fmt: skip
        assert said(owner, name, fails(errno.EIO)).startswith("input/output error")
        assert said(owner, name, fails(errno.EINVAL)) == (
            "cannot read the zip: [Errno 22] Invalid argument "
            f"({zipped.name}{where}); download it again"
        )


def test_a_model_that_cannot_be_read(
    make_zip: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the zoo: it is not the camera's folder that fails."""
    zoo = opened(str(make_zip({"models/x.tflite": b"x" * 100})))
    (model,) = zoo.catalog().models(None)

    class Broken(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise OSError(errno.EIO, "Input/output error")

    def broken(fd: int, mode: str) -> Broken:
        os.close(fd)
        return Broken()

    monkeypatch.setattr(sources, "open", broken, raising=False)
    with pytest.raises(RomfsError) as caught, worded():
        add(zoo, copies(zoo, model), tmp_path / "cam")
    assert caught.value.line == (
        f"input/output error ({zoo.name}, x.tflite); the disk may be failing: the system's log "
        "(dmesg) says more"
    )
    assert list((tmp_path / "cam").iterdir()) == []


def test_zips_that_nobody_used_for_long_go(make_zip: Callable[..., Path]) -> None:
    """At a URL, on this machine, and those that were only asked about."""
    path = make_zip({"x.tflite": b"x"})
    zipped = local_zip(path)
    (kept,) = zipped.keep(zipped.infos())
    urls = [f"https://x/{name}" for name in ("old", "new", "used")]
    assert not any(map(remote.is_known, urls))
    folders = [kept.parent, *map(archive.zip_folder, urls)]
    (folders[1] / "lock").touch()
    now = folders[0].stat().st_mtime

    def age(seconds: float) -> None:
        for folder in filter(Path.exists, folders):
            os.utime(folder, (now - seconds,) * 2)

    age(90 * 86_400 + 900)
    assert archive.zip_folder(urls[2]) == folders[3]
    assert all(folder.exists() for folder in folders), "looked for when one is new"
    os.utime(folders[2], (now - 90 * 86_400 + 900,) * 2)
    assert archive.zip_folder("more").is_dir()
    assert [folder.exists() for folder in folders] == [False, False, True, True]
    assert zipped.keep(zipped.infos()) == [kept], "it is made again for a mount that still has it"
    age(90 * 86_400 + 900)
    assert zipped.is_kept(zipped.infos()[0])
    archive.zip_folder("one more")
    assert [folder.exists() for folder in folders] == [True, False, False, False]


@pytest.mark.parametrize(
    ("headers", "about"),
    [
        ({"Content-Range": "bytes 0-0/123", "ETag": '"a"', "Last-Modified": "then"}, (123, '"a"')),
        ({"Content-Range": "bytes 0-0/5", "Last-Modified": "then"}, (5, "then")),
        ({"Content-Range": "bytes 0-0/*"}, (0, "")),
        ({"Content-Range": f"bytes 0-0/{'9' * 20}"}, (0, "")),
    ],
)
def test_what_a_server_says_of_a_file(headers: dict[str, str], about: tuple[int, str]) -> None:
    assert remote._about(SimpleNamespace(headers=headers)) == about  # type: ignore[arg-type]


def test_how_often_a_download_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four times in a row without a byte, each after a longer pause; from anew after some."""
    monkeypatch.setattr(remote, "_PAUSE_SECONDS", 1.0)
    pauses: list[float] = []
    monkeypatch.setattr(remote.time, "sleep", pauses.append)
    have = iter([5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6])

    def attempt() -> None:
        raise remote._Dropped("cut")

    with pytest.raises(RomfsError) as caught:
        remote._patiently("http://x", attempt, lambda: next(have))
    assert caught.value.line == (
        "the download failed: cut (http://x); repeat the command: it continues where it stopped"
    )
    assert pauses == [1.0, 0.0, 1.0, 2.0, 3.0]
    pauses.clear()
    assert remote._patiently("http://x", lambda: "all") == "all"
    assert pauses == []


@pytest.mark.parametrize(
    ("wanted", "first", "last"),
    [
        ((0, None), 0, 9), ((0, 3), 0, 3), ((3, 99), 3, 9), ((9, 9), 9, 9), ((-4, None), 6, 9),
        ((-50, None), 0, 9),
    ],
)  # fmt: skip
def test_which_bytes_of_a_zip_are_asked_for(
    monkeypatch: pytest.MonkeyPatch, wanted: tuple[int, int | None], first: int, last: int
) -> None:
    asked: list[tuple[int, int]] = []

    def send(_: object, part: Path, first: int, last: int) -> None:
        asked.append((first, last))
        part.write_bytes(b"0123456789"[first : last + 1])

    monkeypatch.setattr(remote._Remote, "_go_on", send)
    monkeypatch.setattr(remote._Remote, "about", lambda self: remote._About(10, ""))
    file = remote._Remote("http://x/z.zip", Fetching())
    for stream in (False, True, True):
        with file._open:
            buffer = file.fetch(wanted, stream)
            size = last - first + 1
            assert repr(buffer) == f"<PartialBuffer off={first} size={size} stream={stream}>"
            assert buffer.read(100) == b"0123456789"[first : last + 1]
    assert asked == [(first, last)] * 2, "a member's bytes are kept for one reading"


def test_more_of_a_zip_than_any_camera_holds_is_not_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    size = archive.MAX_FILE_BYTES
    monkeypatch.setattr(remote._Remote, "about", lambda self: remote._About(size + 1, ""))
    monkeypatch.setattr(remote._Remote, "_go_on", lambda self, part, *span: part.touch())
    file = remote._Remote("http://x/z.zip", Fetching())
    with file._open:
        file.fetch((1, None))
    with pytest.raises(RomfsError) as caught:
        file.fetch((0, None))
    assert caught.value.line == f"{size:,} bytes of it are too many (http://x/z.zip)"


@pytest.mark.parametrize("redirected", [False, True])
def test_what_each_answer_of_a_server_means(redirected: bool) -> None:
    """Good; not there; gone for a moment, as an address that has expired; or refused for good."""
    where = "(https://x); check the URL"
    for status in (200, 206, 302, 400, 401, 403, 404, 405, 407, 408, 409, 410, 428, 429, 499, 500,
                   503):  # fmt: skip
        session = _Session(_Answer(status, [1] if redirected else []))
        passing = status >= 500 or status in (408, 429)
        passing |= redirected and status in (400, 401, 403)
        said = ""
        try:
            with remote._answer(session, "https://x", {"Range": "r"}):  # type: ignore[arg-type]
                said = "good"
        except remote._Dropped as error:
            said = f"dropped: {error}"
        except RomfsError as error:
            said = f"{type(error).__name__}: {error.line}"
        gone = f"Missing: the server answered {status}: it has no such file {where}"
        assert said == (
            "good" if status in (200, 206)
            else f"dropped: the server answered {status}" if passing
            else gone if status in (404, 410)
            else f"RomfsError: the server answered {status} Why {where}"
        )  # fmt: skip
        assert session.adapters == {"https://": 2}, "no redirect gives up encryption"
        assert session.asked == {
            "url": "https://x", "stream": True, "timeout": (10.0, 30.0),
            "headers": {"User-Agent": "romfsfs", "Accept-Encoding": "identity", "Range": "r"},
        }  # fmt: skip


class _Answer(NamedTuple):
    status_code: int
    history: list[int]
    reason: str = "Why"

    def __enter__(self) -> _Answer:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class _Session:
    """Answers one request, and writes down what it was asked."""

    def __init__(self, answer: _Answer) -> None:
        self.adapters = {"http://": 1, "https://": 2}
        self.verify: object = None
        self.asked: dict[str, object] = {}
        self._answer = answer

    def get(self, url: str, *, verify: object, **how: object) -> _Answer:
        self.asked = {"url": url, **how}
        return self._answer


@pytest.mark.parametrize(("most", "held"), [(11, True), (10, False)])
def test_what_has_too_many_files_is_no_zoo(
    tmp_path: Path, make_zip: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, most: int,
    held: bool,
) -> None:  # fmt: skip
    """In a folder its folders count, in a zip all files that it has."""
    monkeypatch.setattr("romfsfs.zoo.sources.MAX_FILES", most)
    names = [f"models/{number}.tflite" for number in range(10)]
    zipped = make_zip(dict.fromkeys([*names, "models/readme.txt"], b"x"))
    folder = tmp_path / "folder"
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    for place, where in ((zipped, zipped), (folder, folder / "models")):
        if held:
            assert len(paths(opened(str(place)), None)) == 10
            continue
        with pytest.raises(RomfsError) as caught:
            opened(str(place)).catalog()
        assert caught.value.line == (
            f"not a model zoo: more than 10 files ({where}); choose a resource folder or zip with "
            "--from"
        )


class Lock:
    """Says whether somebody has it, and how often it was taken."""

    def __init__(self) -> None:
        self.held, self.taken = False, 0

    def __enter__(self) -> None:
        assert not self.held
        self.held, self.taken = True, self.taken + 1

    def __exit__(self, *_: object) -> None:
        self.held = False


def test_how_often_a_zoo_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once in a second, and scanned again where it has changed; by one thread at a time."""
    monkeypatch.setattr(sources, "_CHECK_SECONDS", 1.0)
    now, changed, done = 100.0, False, list[str]()
    monkeypatch.setattr(sources, "time", SimpleNamespace(monotonic=lambda: now))

    class Looked(Zoo):
        def _changed(self) -> bool:
            assert lock.held
            done.append("looked")
            return changed

        def _scan(self) -> tuple[dict[str, Member], str]:
            assert lock.held
            done.append("scanned")
            return {"a.lite": Member("a.lite", 1, 2)}, "index"

    zoo: Any = Looked("zoo")
    zoo._lock = lock = Lock()
    first = zoo.catalog()
    for now, changed, wanted in (  # noqa: B007 (the zoo asks for them)
        (100.5, True, []), (101.0, False, ["looked"]), (101.5, True, []),
        (102.0, True, ["looked", "scanned"]), (102.5, True, []),
    ):  # fmt: skip
        assert (zoo.catalog() is first) == (now < 102)
        assert done[1:] == wanted
        del done[1:]
    assert lock.taken == 6


def test_how_often_the_choice_of_a_zoo_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "_CHOICE_SECONDS", 2.0)
    monkeypatch.setattr(tree, "_choice", (float("-inf"), None))
    now, zoos = 50.0, [Zoo("one"), None, Zoo("two"), Zoo("one")]
    lock = Lock()

    def chosen_now() -> Zoo | None:
        assert lock.held
        return zoos.pop(0)

    monkeypatch.setattr(tree, "_lock", lock)
    monkeypatch.setattr(tree, "_chosen", chosen_now)
    clock = SimpleNamespace(monotonic=lambda: now, time_ns=lambda: 7)
    monkeypatch.setattr(tree, "time", clock)
    one, other = open_zoo(None), open_zoo("N6")
    assert one is not None
    assert one is not other
    for now, left in (  # noqa: B007 (the clock)
        (52.0, 3), (52.5, 2), (54.5, 2), (55.0, 1), (58.0, 0),
    ):  # fmt: skip
        found = open_zoo(None)
        assert len(zoos) == left
        assert (found is one) == (left in (3, 0))
        assert (found is None) == (left == 2)
    assert open_zoo("N6") is other
    assert lock.taken == 8


@pytest.mark.parametrize("more", [0, 1])
def test_an_index_that_is_too_large(resources: Path, more: int) -> None:
    (resources / "models" / "index.csv").write_bytes(b"#" * ((4 << 20) + more))
    zoo = opened(str(resources))
    if not more:
        assert paths(zoo, "N6") == MODELS
        return
    with pytest.raises(RomfsError) as caught:
        zoo.catalog()
    assert caught.value.line == (
        f"not a model zoo: its index.csv is too large ({resources}/models); choose a resource "
        "folder or zip with --from"
    )


def test_what_the_pages_of_a_zoo_say(resources: Path) -> None:
    zoo = opened(str(resources))
    listed = zoo.catalog().models(None)
    asked: list[str] = []
    real = zoo.open_here
    zoo.open_here = lambda path: asked.append(path) or real(path)  # type: ignore[method-assign]
    google = ("Google", "Models.")
    assert zoo.descriptions(listed) == {
        BLAZE: ("BlazeFace", "Finds faces & their landmarks."),
        "google/objects/small/yolo.v8.tflite": google,
    }
    assert sorted(asked) == ["google/face/blaze/index.html", "google/index.html"], "each once"
    zoo.open_here = lambda path: None  # type: ignore[method-assign]
    assert zoo.descriptions(listed) == {}
    zoo.fetch([BLAZE])
    with pytest.raises(KeyError):
        zoo.fetch(["none"])
    shutil.rmtree(resources)
    assert paths(zoo, None) == set()
