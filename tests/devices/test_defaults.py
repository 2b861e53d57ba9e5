"""Default images: in a file, a release, a development build, an IDE's folder."""

from __future__ import annotations

import contextlib
import json
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from romfsfs.boards import get_board
from romfsfs.errors import RomfsError, UsageError
from romfsfs.ide.archive import Fetching, local_zip
from romfsfs.ide.defaults import _in_zip, _matching, find_defaults
from romfsfs.image.rules import DEFAULT_RULES
from romfsfs.image.writer import encode

N6 = get_board("OPENMV_N6")
AE3 = get_board("OPENMV_AE3")
IMAGE = encode({"main.py": b"print('default')\n"}, DEFAULT_RULES)
OTHER = encode({"main.py": b"print('the second core')\n"}, DEFAULT_RULES)


@pytest.fixture(autouse=True)
def own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of this machine's, nor of the user's."""
    monkeypatch.setenv("ROMFSFS_CACHE_DIR", str(tmp_path / "cache"))
    for name in ("ROMFSFS_IDE_RESOURCES", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)


def release(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("OPENMV_N6/firmware.bin", b"firmware")
        for name, data in members.items():
            archive.writestr(name.replace("__", "/") + ".img", data)
    return path


def test_a_release(tmp_path: Path) -> None:
    path = release(
        tmp_path / "firmware_v4.8.1.zip",
        OPENMV_N6__romfs0=IMAGE,
        OPENMV_AE3__romfs0=IMAGE,
        OPENMV_AE3__romfs1=OTHER,
    )
    (found,) = find_defaults(N6, 0, path)
    assert (found.version, found.size) == ((4, 8, 1), len(IMAGE))
    assert found.label == f"OPENMV_N6 4.8.1 ({path}, OPENMV_N6/romfs0.img)"
    assert found.read() == IMAGE
    assert find_defaults(AE3, 1, path)[0].read() == OTHER
    with pytest.raises(UsageError, match=r"no default image of OPENMV4P"):
        find_defaults(get_board("OPENMV4P"), 0, path)


def test_a_development_build_is_of_one_board(tmp_path: Path) -> None:
    path = release(tmp_path / "firmware_OPENMV4P (1).zip", romfs0=IMAGE)
    assert find_defaults(get_board("OPENMV4P"), 0, path)[0].read() == IMAGE
    with pytest.raises(UsageError):
        find_defaults(get_board("OPENMV4"), 0, path)


def test_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.img"
    path.write_bytes(IMAGE + b"\xff" * 100)
    assert find_defaults(N6, 0, path)[0].read() == IMAGE
    path.write_bytes(b"no image")
    with pytest.raises(UsageError):
        find_defaults(N6, 0, path)


def ide(folder: Path, version: str, image: bytes, old: bool = False) -> Path:
    board = folder / "firmware" / "OPENMV_N6"
    board.mkdir(parents=True)
    (board / "romfs0.img").write_bytes(image)
    if old:
        (board.parent / "firmware.txt").write_text(f"{version}\n")
    else:
        settings = {"firmware_version": version, "boards": [{"boardType": "9.9.9"}]}
        (board.parent / "settings.json").write_text(json.dumps(settings, indent=4))
    return folder


def test_the_newest_that_fits_the_firmware(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    monkeypatch.setenv("HOME", str(home))
    ide(home / ".config" / "OpenMV" / "openmvide", "4.10.0", OTHER)
    ide(home / "openmvide-4.8.0" / "share" / "qtcreator", "4.7.0", IMAGE, old=True)
    ide(tmp_path / "extra", "4.9.2", IMAGE)
    found = find_defaults(N6)
    assert [image.version for image in found] == [(4, 10, 0), (4, 7, 0)]
    found = find_defaults(N6, firmware="OpenMV 4.7.0, MicroPython 1.25.0")
    assert [image.version for image in found] == [(4, 7, 0), (4, 10, 0)]
    assert find_defaults(N6, 0, tmp_path / "extra")[0].version == (4, 9, 2)
    monkeypatch.setenv("ROMFSFS_IDE_RESOURCES", str(tmp_path / "extra"))
    assert [image.version for image in find_defaults(N6)] == [(4, 9, 2)]


def test_nothing_on_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(RomfsError, match=r"download a firmware release.*--from"):
        find_defaults(N6)


def test_nothing_there_is_said_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    releases = "https://github.com/openmv/openmv/releases"
    with pytest.raises(RomfsError) as caught:
        find_defaults(N6, 1)
    assert caught.value.line == (
        "no default image of OPENMV_N6, partition 1, on this machine; download a firmware release "
        f"from {releases} and add --from FILE.zip"
    )
    with pytest.raises(UsageError) as there:
        find_defaults(N6, 0, tmp_path)
    assert there.value.line == (
        f"no default image of OPENMV_N6, partition 0 ({tmp_path}); firmware releases: {releases}"
    )


@pytest.mark.parametrize(
    ("name", "partition", "there"),
    [
        ("romfs0.img", 0, True), ("ROMFS1.IMG", 0, False), ("romfs1.img", 1, True),
        ("romfs.img", 0, True), ("v4.6.20-mine.img", 0, True),
    ],
)  # fmt: skip
def test_a_file_by_its_name(tmp_path: Path, name: str, partition: int, there: bool) -> None:
    path = tmp_path / name
    path.write_bytes(IMAGE)
    if not there:
        with pytest.raises(UsageError):
            find_defaults(AE3, partition, path)
        return
    (found,) = find_defaults(AE3, partition, str(path))
    version = (4, 6, 20) if "4.6" in name else None
    label = f"OPENMV_AE3 4.6.20 ({path})" if version else f"OPENMV_AE3 ({path})"
    assert (found.path, found.place, found.version, found.label) == (
        path, str(path), version, label,
    )  # fmt: skip
    assert (found.board, found.partition, found.size) == ("OPENMV_AE3", partition, len(IMAGE))


def test_an_image_larger_than_the_partition_is_none(tmp_path: Path) -> None:
    path = tmp_path / "romfs0.img"
    path.write_bytes(IMAGE)
    for missing in (0, 1):
        part = replace(N6.partition(0), size=len(IMAGE) - missing)
        board = replace(N6, partitions=(part,))
        with pytest.raises(UsageError) if missing else contextlib.nullcontext():
            assert find_defaults(board, 0, path)[0].size == len(IMAGE)


def test_where_in_a_folder_images_are(tmp_path: Path) -> None:
    """In a board's folder, also as a third party calls it; in that folder itself; in zips beside
    them; each with the version of its own place."""
    root = tmp_path / "res"
    for place in ("openmv-n6", "firmware/OPENMV_N6", "share/qtcreator/firmware/OPENMV_N6", "OTHER",
                  "openmv_n6/deep"):  # fmt: skip
        (root / place).mkdir(parents=True)
        (root / place / "romfs0.img").write_bytes(IMAGE)
        (root / place / "romfs1.img").write_bytes(OTHER)
        (root / place / "romfs0.img.txt").write_bytes(IMAGE)
    (root / "romfs0.img").write_bytes(OTHER)  # of no board
    (root / "firmware" / "firmware.txt").write_text("none here\n4.5.0 4.6.0\n")
    (root / "settings.json").write_text('{"other": "9.9.9", "firmware_version" : "4.4.1"}')
    release(root / "firmware_OPENMV_N6.zip", romfs0=IMAGE)
    release(root / "firmware_v4.7.2.zip", OPENMV_N6__romfs0=IMAGE)
    release(root / "other.zip", OPENMV_N6__romfs0=IMAGE)
    found = [(image.place.removeprefix(f"{root}/"), image.version)
             for image in find_defaults(N6, 0, root)]  # fmt: skip
    assert found == [
        ("firmware_v4.7.2.zip, OPENMV_N6/romfs0.img", (4, 7, 2)),
        ("firmware/OPENMV_N6/romfs0.img", (4, 5, 0)),
        ("openmv-n6/romfs0.img", (4, 4, 1)),
        ("firmware_OPENMV_N6.zip, romfs0.img", None),
        ("share/qtcreator/firmware/OPENMV_N6/romfs0.img", None),
    ]
    itself = find_defaults(N6, 0, root / "firmware" / "OPENMV_N6")
    assert [image.read() for image in itself] == [IMAGE]


@pytest.mark.parametrize(
    ("name", "flat", "fits"),
    [
        ("OPENMV_N6/romfs0.img", False, True), ("OPENMV_N6/romfs0.img", True, True),
        ("a/openmv-n6/ROMFS0.IMG", False, True), ("OPENMV_N6\\romfs0.img", False, True),
        ("romfs0.img", True, True), ("romfs0.img", False, False), ("romfs1.img", True, False),
        ("OPENMV_N6/romfs1.img", False, False), ("OPENMV_N6/romfs00.img", False, True),
        ("OPENMV_N6/romfs0.img/x", False, False), ("OPENMV_N6/deep/romfs0.img", False, False),
        ("OPENMV_N6/romfs.img", False, False), ("", True, False), (".", True, False),
    ],
)  # fmt: skip
def test_which_names_are_of_a_board(name: str, flat: bool, fits: bool) -> None:
    assert list(_matching([name], N6, 0, flat=flat)) == [name] * fits


def test_an_image_beside_the_folders_of_a_zip_is_of_no_board(tmp_path: Path) -> None:
    zipped = local_zip(release(tmp_path / "all.zip", romfs0=IMAGE, OPENMV_N6__romfs0=IMAGE))
    (found,) = _in_zip(zipped, N6, 0, (1, 2, 3))
    place = f"{tmp_path}/all.zip, OPENMV_N6/romfs0.img"
    assert (found.place, found.version, found.size) == (place, (1, 2, 3), len(IMAGE))


def test_a_url_is_not_asked_offline() -> None:
    with pytest.raises(RomfsError) as caught:
        find_defaults(N6, 0, "http://127.0.0.1:1/x.zip", fetching=Fetching(offline=True))
    assert caught.value.line == (
        "it is not on this machine (http://127.0.0.1:1/x.zip); repeat without --offline"
    )
