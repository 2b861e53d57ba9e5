"""Images made to hurt: what they may cost, and where their files may land."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
from seeds import image, named, number, record

from romfsfs.boards import get_board
from romfsfs.convert import cascade_xml, haar
from romfsfs.convert.flatbuffer import ModelError, read_model
from romfsfs.errors import ImageFormatError, RomfsError
from romfsfs.ide.archive import local_zip
from romfsfs.ide.defaults import find_defaults
from romfsfs.image.model import DirNode, FileNode, walk
from romfsfs.image.reader import read_image
from romfsfs.image.varuint import MAGIC
from romfsfs.session.build import extract_image
from romfsfs.session.keep.images import open_image
from romfsfs.zoo.sources import ZipZoo

#: CPU seconds and bytes of memory for each MiB of a hostile input, whatever is in it; the worst
#: are a million tiny records, each of which becomes an object.
SECONDS_PER_MIB, MEMORY_PER_MIB = 6.0, 220 << 20
MIB = 1 << 20


def names(count: int) -> list[str]:
    return [format(index, "x") for index in range(count)]


def nest(depth: int, inside: bytes = b"") -> bytes:
    """An image of `depth` directories in each other."""
    heads = []
    size = len(inside)
    for _ in range(depth):
        head = b"\x04" + number(size + 2) + b"\x01d"
        heads.append(head)
        size += len(head)
    return MAGIC + number(size) + b"".join(reversed(heads)) + inside


def files(count: int) -> bytes:
    return b"".join(named(5, name, record(2, b"")) for name in names(count))


WORST = {
    "tiny files": lambda: image(files(MIB // 9)),
    "tiny directories": lambda: image(*(named(4, name, b"") for name in names(MIB // 7))),
    "tiny paddings": lambda: image(record(1, b"") * (MIB // 2)),
    "unknown records": lambda: image(record(9, b"") * (MIB // 2)),
    "unknown records in files": lambda: image(
        *(named(5, name, record(9, b"") * 40 + record(2, b"")) for name in names(MIB // 90))
    ),
    "runs of 0x80": lambda: image(*(b"\x01" + b"\x80" * 65000 + b"\0" for _ in range(16))),
    "one long run": lambda: MAGIC + b"\x80" * MIB + b"\0",
    "a long name": lambda: image(named(5, "n" * MIB, record(2, b""))),
    "a long name that is no UTF-8": lambda: image(
        record(5, number(MIB) + b"\xff" * MIB + record(2, b""))
    ),
    "as deep as it gets": lambda: nest(MIB // 7),
    "deep, with files": lambda: nest(4000, files(MIB // 9)),
    "deep, with unknown records": lambda: nest(5000, record(9, b"") * (MIB // 2)),
    "long names and unknown records": lambda: image(
        named(4, "n" * (MIB // 2), record(9, b"") * (MIB // 4))
    ),
    "one name very often": lambda: image(named(5, "same", record(2, b"")) * (MIB // 11)),
    "pointers to everything": lambda: image(
        record(6, bytes(MIB // 2)),
        *(named(5, name, record(3, number(MIB // 2) + number(2))) for name in names(MIB // 30)),
    ),
}

MEASURE = """
import resource, sys, time
from romfsfs.errors import ImageFormatError
from romfsfs.image.check import lint
from romfsfs.image.model import walk
from romfsfs.image.reader import read_image
from romfsfs.image.rules import DEFAULT_RULES
data = sys.stdin.buffer.read()
limit = int(sys.argv[1]) + (64 << 20) + int(open("/proc/self/statm").read().split()[0]) * 4096
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
started = time.process_time()
try:
    image = read_image(data)
    list(walk(image))
    lint(image, DEFAULT_RULES)
except ImageFormatError as error:
    assert len(error.line) < 1000 + len(data) * 5
print(time.process_time() - started)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits a process's memory")
@pytest.mark.parametrize("case", WORST)
def test_time_and_memory_are_in_proportion_to_the_image(case: str) -> None:
    data = WORST[case]()
    mib = len(data) / MIB
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(int(mib * MEMORY_PER_MIB))],
        input=data, capture_output=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()[-300:]
    assert float(done.stdout) < SECONDS_PER_MIB * mib


def test_a_nest_as_deep_as_firmware_was_seen_to_read_is_read() -> None:
    found = read_image(nest(3000, files(10)))
    assert sum(1 for _ in walk(found)) == 3010
    with pytest.raises(ImageFormatError, match="nested so deep"):
        read_image(nest(20_000))


def test_lengths_larger_than_the_image_are_refused_at_once() -> None:
    for claimed in (1 << 20, 0x7FFFFFFF, 0xFFFFFFFF):
        for data in (
            MAGIC + number(claimed),
            image(b"\x02" + number(claimed)),
            image(b"\x05" + number(claimed) + b"\x01a"),
            image(record(5, b"\x01a\x02" + number(claimed))),
            image(record(4, number(claimed) + b"a")),
            image(named(5, "a", record(3, number(claimed) + number(0)))),
            image(named(5, "a", record(3, number(1) + number(claimed)))),
        ):
            with pytest.raises(ImageFormatError):
                read_image(data)


def test_files_that_share_their_data_cannot_fill_a_disk() -> None:
    shared = record(6, bytes(50_000))
    pointer = record(3, number(50_000) + number(4))
    few = image(shared, *(named(5, name, pointer) for name in names(100)))
    total = sum(node.extent.size for _, node in walk(read_image(few)) if isinstance(node, FileNode))
    assert total == 5_000_000
    with pytest.raises(ImageFormatError, match="share their data"):
        read_image(image(shared, *(named(5, name, pointer) for name in names(2000))))


def test_only_so_many_notes() -> None:
    found = read_image(image(record(9, b"") * 5000, record(1, b"-") + record(1, b"") * 3))
    assert len(found.notes) == 1002
    assert [note.code for note in found.notes[-2:]] == ["more-notes", "padding"]
    assert found.notes[-2].message == "and 4,000 more notes"


ESCAPES = (
    "../../evil", "..", ".", "", "/etc/evil", "a/b", "a\0b", "/", "../", "a/../../evil",
)  # fmt: skip


@pytest.mark.parametrize("name", ESCAPES)
@pytest.mark.parametrize("kind", ["file", "directory"])
def test_names_that_lead_elsewhere_are_refused(tmp_path: Path, name: str, kind: str) -> None:
    inner = record(2, b"evil") if kind == "file" else files(1)
    for data in (
        image(named(5 if kind == "file" else 4, name, inner)),
        image(named(4, "d", named(5 if kind == "file" else 4, name, inner))),
    ):
        place = tmp_path / "evil.img"
        place.write_bytes(data)
        with pytest.raises(ImageFormatError), open_image(place):
            pass


def extract(tmp_path: Path, data: bytes) -> Path:
    place = tmp_path / "image"
    place.write_bytes(data)
    with open_image(place) as (found, file):
        extract_image(found, file, tmp_path / "out")
    return tmp_path / "out"


def test_a_name_that_the_file_system_cannot_hold_leaves_nothing(tmp_path: Path) -> None:
    data = image(named(5, "first", record(2, b"1")), named(5, "n" * 300, record(2, b"2")))
    with pytest.raises(RomfsError, match="cannot extract"):
        extract(tmp_path, data)
    assert sorted(os.listdir(tmp_path)) == ["image"]


def test_a_deep_tree_that_cannot_be_extracted_leaves_nothing(tmp_path: Path) -> None:
    data = nest(1500, named(5, "n" * 300, record(2, b"2")))
    with pytest.raises(RomfsError, match="cannot extract"):
        extract(tmp_path, data)
    assert sorted(os.listdir(tmp_path)) == ["image"]


def test_odd_names_land_as_they_are(tmp_path: Path) -> None:
    odd = (".romfs", "-rf", "~", "$(id)", "a b", "CON", "é\u202e", "\x1b[2J", "..x", "...")
    out = extract(tmp_path, image(*(named(5, name, record(2, b"x")) for name in odd)))
    assert sorted(os.listdir(out)) == sorted(odd)
    assert all((out / name).is_file() and not (out / name).is_symlink() for name in odd)
    assert all((out / name).stat().st_mode & 0o7111 == 0 for name in odd)


def test_a_folder_named_romfs_is_only_a_folder(tmp_path: Path) -> None:
    out = extract(tmp_path, image(named(4, ".romfs", named(5, "ctl", record(2, b"commit")))))
    assert (out / ".romfs" / "ctl").read_bytes() == b"commit"


def test_directories_are_directories() -> None:
    found = read_image(image(named(4, "d", b"")))
    assert isinstance(found.root.children[0], DirNode)


BOMBS = {
    "entities": b"""<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">
<!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;&b;&b;">]>
<opencv_storage><cascade type_id="opencv-haar-classifier">&c;</cascade></opencv_storage>""",
    "an outside entity": b"""<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>
<opencv_storage><cascade type_id="opencv-haar-classifier">&a;</cascade></opencv_storage>""",
    "nesting": b"<opencv_storage>" + b"<a>" * (2 * MIB),
    "attributes": b"<opencv_storage " + b" ".join(b'a%d="1"' % n for n in range(100_000)) + b"/>",
    "a long tag": b"<opencv_storage><" + b"a" * (4 * MIB) + b"/></opencv_storage>",
    "a long number": b"<opencv_storage><c><stageNum/><width>" + b"9" * (4 * MIB) + b"</width></c>",
    "text in pieces": b"<opencv_storage><c>" + b"&lt;" * MIB + b"</c></opencv_storage>",
    "elements": b"<opencv_storage>" + b"<a/>" * MIB + b"</opencv_storage>",
}


@pytest.mark.parametrize("case", BOMBS)
def test_xml_made_to_explode_is_refused_quickly(case: str) -> None:
    started = time.process_time()
    xml = BOMBS[case]
    assert cascade_xml.sniff(lambda at, size: xml[at : at + size], len(xml)) in ("", "HAAR")
    with pytest.raises(cascade_xml.CascadeError):
        haar.convert_cascade(BOMBS[case])
    assert time.process_time() - started < 30


def test_models_with_vectors_of_any_length_are_refused_quickly() -> None:
    # a model whose vectors all lead to one table that names itself
    data = bytearray(MIB)
    data[0:8] = b"\x10\0\0\0TFL3"
    for at in range(16, MIB, 4):
        data[at : at + 4] = b"\x08\0\0\0"
    for change in (b"", b"\xff\xff\xff\xff", b"\0\0\x10\0", b"\xf0\xff\xff\xff"):
        for at in (16, 20, 24, 28, 32):
            model = bytearray(data)
            model[at : at + len(change)] = change
            started = time.process_time()
            with pytest.raises(ModelError):
                read_model(lambda at, size: bytes(model[at : at + size]), MIB)  # noqa: B023
            assert time.process_time() - started < 30


def test_zips_give_no_more_than_they_declare(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROMFSFS_CACHE_DIR", str(tmp_path / "cache"))
    bomb = tmp_path / "bomb.zip"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("models/a.tflite", bytes(257 << 20))
        archive.writestr("models/b.tflite", bytes(1 << 20))
    assert bomb.stat().st_size < 400_000
    zoo = ZipZoo(local_zip(bomb))
    zoo.catalog()
    with pytest.raises(RomfsError, match="no camera can hold that"):
        zoo.open("a.tflite")
    # the same, declaring less than it holds
    raw = bomb.read_bytes()
    lying = tmp_path / "lying.zip"
    size = (1 << 20).to_bytes(4, "little")
    assert raw.count(size) == 2
    lying.write_bytes(raw.replace(size, (1000).to_bytes(4, "little")))
    zoo = ZipZoo(local_zip(lying))
    zoo.catalog()
    with pytest.raises(RomfsError, match="cannot read the zip"):
        zoo.open("b.tflite")
    kept = sum(path.stat().st_size for path in (tmp_path / "cache").rglob("*") if path.is_file())
    assert kept < 10_000


def test_a_firmware_zip_takes_no_memory_that_it_merely_asks_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LZMA and bzip2 take what the zip says, before the first byte; releases are deflated."""
    monkeypatch.setenv("ROMFSFS_CACHE_DIR", str(tmp_path / "cache"))
    board = get_board("OPENMV4")
    for method in (zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2, zipfile.ZIP_DEFLATED):
        path = tmp_path / f"firmware_v4.5.{method}.zip"
        with zipfile.ZipFile(path, "w", method) as archive:
            archive.writestr("OPENMV4/romfs0.img", image(record(1, bytes(100))))
        if method == zipfile.ZIP_DEFLATED:
            (found,) = find_defaults(board, 0, path)
            assert len(found.read()) == found.size
        else:
            with pytest.raises(RomfsError, match="not supported"):
                find_defaults(board, 0, path)
