"""What work costs, in counts that do not depend on how busy this machine is.

`scripts/bench` measures the times.
"""

from __future__ import annotations

import errno
import hashlib
import os
import random
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import needs
import pytest
from session_desk import Desk, files_of

from romfsfs.convert import Target
from romfsfs.devices.file import copy_all
from romfsfs.errors import RomfsError, VerifyError
from romfsfs.image import check
from romfsfs.image.layout import TreeEntry, canonical
from romfsfs.image.model import Image
from romfsfs.image.reader import read_image
from romfsfs.image.rules import DEFAULT_RULES
from romfsfs.image.writer import LARGE, Data, DataChanged, encode
from romfsfs.session.build import build
from romfsfs.session.rebase import encoding
from romfsfs.session.rebase.commit import commit
from romfsfs.session.rebase.encoding import TreeChanged
from romfsfs.system.copying import difference
from romfsfs.system.files import no_progress

MIB = 1 << 20


class Work:
    """hashed: bytes. opened: how often each file was, by its name."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.hashed = 0
        self.opened: Counter[str] = Counter()
        work, real, open_ = self, hashlib.sha256, os.open

        class Counted:
            def __init__(self, data: Any = b"") -> None:
                self._hash = real()
                self.update(data)

            def update(self, data: Any) -> None:
                work.hashed += len(data)
                self._hash.update(data)

            def hexdigest(self) -> str:
                return self._hash.hexdigest()

        def opened(path: Any, *how: Any, **where: Any) -> int:
            work.opened[os.path.basename(os.fspath(path))] += 1
            return open_(path, *how, **where)

        monkeypatch.setattr(hashlib, "sha256", Counted)
        monkeypatch.setattr(os, "open", opened)


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Work:
    return Work(monkeypatch)


def big_files(count: int = 3) -> dict[str, bytes]:
    chance = random.Random(14)
    return {f"{number}.bin": chance.randbytes(MIB) for number in range(count)}


def make_tree(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def built(tree: Path) -> bytes:
    with open(tree.with_suffix(".img"), "w+b") as out:
        build(tree, out, Target())
    return tree.with_suffix(".img").read_bytes()


def test_a_build_opens_each_small_file_once(tmp_path: Path, work: Work) -> None:
    files = {f"f{number}.txt": b"%d" % number for number in range(50)}
    tree = make_tree(tmp_path / "tree", files)
    assert files_of(built(tree)) == files
    assert {work.opened[name] for name in files} == {1}


def test_a_build_of_large_files_hashes_the_image_alone(tmp_path: Path, work: Work) -> None:
    tree = make_tree(tmp_path / "tree", big_files())
    image = built(tree)
    assert image == encode(big_files())
    assert len(image) <= work.hashed < len(image) + LARGE


def test_a_build_hashes_no_large_file_where_nobody_asks_for_the_digest(
    tmp_path: Path, work: Work
) -> None:
    """That each byte is as it was is found by comparing it."""
    tree = make_tree(tmp_path / "tree", big_files())
    with open(tmp_path / "out.img", "w+b") as out:
        assert build(tree, out, Target(), hashed=False).digest == ""
    assert work.hashed < LARGE
    assert (tmp_path / "out.img").read_bytes() == encode(big_files())


def test_a_commit_hashes_the_image_once_and_what_changed(tmp_path: Path, work: Work) -> None:
    """Neither target nor log is hashed, whatever else has not changed."""
    desk = Desk.with_image(tmp_path, big_files(8))
    desk.open()
    desk.write("3.bin", random.Random(15).randbytes(MIB))
    work.hashed = 0
    desk.commit()
    # The image; the changed file as it is found, as it is stored, and looked at once more.
    assert work.hashed < desk.image.stat().st_size + 3 * MIB + LARGE
    assert desk.stored()["3.bin"] == random.Random(15).randbytes(MIB)


@pytest.mark.skipif(not needs.LINUX, reason="this system's kernel copies none")
def test_a_commit_reads_nothing_twice_for_the_small_files_between_large_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {}
    for name, data in big_files(8).items():
        files |= {f"{name}/model.bin": data, f"{name}/labels.txt": b"beside it"}
    desk = Desk.with_image(tmp_path, files)
    desk.open()
    desk.write("0.bin/labels.txt", b"edited")
    read = []
    pread = os.pread

    def counted(fd: int, count: int, offset: int) -> bytes:
        data = pread(fd, count, offset)
        read.append(len(data))
        return data

    monkeypatch.setattr(os, "pread", counted)
    desk.commit()
    # To hash the image, to compare it with the base, and the target with it.
    assert sum(read) < (1 + 2 + 2) * desk.image.stat().st_size + 2 * MIB


def test_the_log_is_written_without_reading_an_image_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = Desk.with_image(tmp_path, {"a.txt": b"a"})
    desk.open()
    desk.write("a.txt", b"b")
    parsed: list[object] = []
    monkeypatch.setattr("romfsfs.session.rebase.transaction.open_image", parsed.append)
    desk.commit()
    assert parsed == []


def test_a_first_mount_hashes_the_image_and_each_file_once(tmp_path: Path, work: Work) -> None:
    desk = Desk.with_image(tmp_path, big_files())
    work.hashed = 0
    desk.open()
    assert work.hashed < 2 * desk.image.stat().st_size + LARGE


def test_a_first_mount_parses_the_image_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tenth of a mount of 20,000 files."""
    desk = Desk.with_image(tmp_path, {f"f{number}.txt": b"" for number in range(20)})
    parsed = []

    def counted(data: Any) -> Image:
        parsed.append(len(data))
        return read_image(data)

    monkeypatch.setattr("romfsfs.session.keep.images.read_image", counted)
    desk.open()
    assert parsed == [desk.image.stat().st_size]


def test_a_commit_says_at_once_how_much_it_has_to_convert(tmp_path: Path) -> None:
    desk = Desk.with_image(tmp_path, {})
    desk.open(board="OPENMV4")
    for number in range(3):
        desk.write(f"m{number}.py", b"x = %d  # at once\n" % random.randrange(1 << 60))
    shown: list[tuple[str, int, int]] = []
    commit(desk.session, desk.device, progress=lambda *told: shown.append(told))
    assert [each for each in shown if each[0] == "converting"] == [
        ("converting", number, 3) for number in range(4)
    ]


@pytest.mark.parametrize("at", [0, MIB // 2, MIB - 1])
def test_data_that_differs_from_its_source_is_found(tmp_path: Path, at: int) -> None:
    """Where there is no digest the image is compared with what it was made of."""
    files = big_files()
    source, image = tmp_path / "source", tmp_path / "image"
    source.write_bytes(files["1.bin"])
    layout = canonical([TreeEntry(name, len(data)) for name, data in files.items()], DEFAULT_RULES)
    data = bytearray(encode(files, DEFAULT_RULES))
    digests = {name: hashlib.sha256(files[name]).hexdigest() for name in ("0.bin", "2.bin")}

    def open_source(path: str) -> Data:
        assert path == "1.bin"
        return Data(os.open(source, os.O_RDONLY), owned=True)

    def checked() -> None:
        image.write_bytes(data)
        with open(image, "rb") as file:
            check.check_image(file.fileno(), layout, digests, DEFAULT_RULES, None, open_source)

    checked()
    data[layout.placements["1.bin"].offset + at] ^= 1
    with pytest.raises(VerifyError, match="the data differs"):
        checked()


@pytest.mark.parametrize("edited", [False, True])
def test_what_the_disk_gives_back_wrong_is_no_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, edited: bool
) -> None:
    """A large file is not as in the image: it was edited meanwhile, or the disk is at fault."""
    tree = make_tree(tmp_path / "tree", big_files())
    real = check.check_image

    def late(fd: int, *rest: Any) -> None:
        if edited:
            with open(tree / "1.bin", "r+b") as file:
                file.write(b"edited")
        else:
            os.pwrite(fd, b"wrong", MIB + MIB // 2)
        real(fd, *rest)

    monkeypatch.setattr("romfsfs.session.rebase.encoding.check_image", late)
    with pytest.raises(TreeChanged if edited else VerifyError):
        built(tree)


def test_a_file_that_may_not_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = make_tree(tmp_path / "tree", {"a.txt": b"a", "secret.txt": b"s"})
    open_ = os.open

    def refused(path: Any, *how: Any, **where: Any) -> int:
        if path == "secret.txt":
            raise PermissionError(13, "Permission denied")
        return open_(path, *how, **where)

    monkeypatch.setattr(os, "open", refused)
    with pytest.raises(RomfsError, match=r"cannot be read: Permission denied \(secret.txt\)"):
        built(tree)


def test_the_base_that_an_unchanged_file_comes_from_is_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = Desk.with_image(tmp_path, big_files())
    before = desk.image.read_bytes()
    desk.open()
    desk.write("new.txt", b"new")
    real = check.check_image

    def late(fd: int, *rest: Any) -> None:
        os.pwrite(fd, b"wrong", MIB + MIB // 2)
        real(fd, *rest)

    monkeypatch.setattr("romfsfs.session.rebase.encoding.check_image", late)
    with pytest.raises(VerifyError, match="the data differs"):
        desk.commit()
    assert desk.image.read_bytes() == before


@pytest.mark.parametrize("answer", [None, errno.EXDEV, errno.ENOSYS])
def test_a_file_is_copied_whether_or_not_the_kernel_does_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: int | None
) -> None:
    """Where it does, files may share blocks, and nothing passes through this process."""
    data = random.Random(16).randbytes(17 * MIB + 5)
    (tmp_path / "from").write_bytes(data)
    by_hand = []
    pwrite = os.pwrite

    def written(*how: Any) -> int:
        by_hand.append(how)
        return pwrite(*how)

    def refuses(*_: Any) -> int:
        raise OSError(answer, "not here")

    if answer is not None:
        monkeypatch.setattr(os, "copy_file_range", refuses)
    monkeypatch.setattr(os, "pwrite", written)
    with open(tmp_path / "from", "rb") as source, open(tmp_path / "to", "w+b") as target:
        target.write(b"before")
        copy_all(source, target, len(data), "copying", no_progress)
        target.write(b"after")
        with pytest.raises(RomfsError, match="became shorter"):
            copy_all(source, target, len(data) + 1, "copying", no_progress)
    copied = (tmp_path / "to").read_bytes()
    assert copied.startswith(b"before" + data + b"after")
    assert bool(by_hand) == (answer is not None or not needs.LINUX)


def test_where_two_files_differ(tmp_path: Path) -> None:
    data = random.Random(17).randbytes(MIB)
    (tmp_path / "one").write_bytes(b"skipped" + data)
    (tmp_path / "same").write_bytes(data)
    (tmp_path / "short").write_bytes(data[:-1])
    (tmp_path / "other").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with open(tmp_path / "one", "rb") as one:
        found = []
        for name in ("same", "short", "other"):
            with open(tmp_path / name, "rb") as other:
                found.append(difference(one.fileno(), 7, other.fileno(), 0, MIB))
                assert difference(other.fileno(), 0, one.fileno(), 7, MIB) == found[-1]
        assert difference(one.fileno(), 7, one.fileno(), 7, MIB + 1) == MIB  # neither has it
    assert found == [None, MIB * 3 // 4, MIB * 3 // 4]


def test_a_source_of_another_length_is_an_edit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Said as it was found; what was written so far is not even looked at."""

    def write(*_: object) -> None:
        raise DataChanged("it became shorter", where="a.txt")

    monkeypatch.setattr(encoding, "write_image", write)
    monkeypatch.setattr(encoding, "check_image", lambda *_: pytest.fail("it was looked at"))
    sources: Any = SimpleNamespace(digests=dict, open=None, base_fd=-1)
    layout: Any = SimpleNamespace(size=0)
    plan: Any = None
    for hashed in (True, False):
        with (tmp_path / "image").open("w+b") as file, pytest.raises(TreeChanged) as caught:
            encoding.encode_plan(plan, layout, sources, file, hashed=hashed)
        assert caught.value.line == "it became shorter (a.txt); try again when it is saved"
