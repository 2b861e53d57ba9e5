"""An image file as a device: what it says, how it is replaced, and what it refuses."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import needs
import pytest

from romfsfs.devices import file as files
from romfsfs.devices.base import DeviceInfo, WriteReport, declared_size, size_to_write
from romfsfs.devices.file import FileDevice, copy_all
from romfsfs.errors import (
    CapacityError,
    DeviceAbsent,
    DeviceError,
    ImageFormatError,
    RomfsError,
    UsageError,
    VerifyError,
)
from romfsfs.image.rules import DEFAULT_RULES
from romfsfs.image.writer import encode

IMAGE = encode({"a.bin": random.Random(1).randbytes(5000)}, DEFAULT_RULES)
OTHER = encode({"a.bin": random.Random(2).randbytes(700)}, DEFAULT_RULES)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "my image.img"


@pytest.fixture
def image(tmp_path: Path) -> Any:
    made = tmp_path / "source"
    made.write_bytes(IMAGE)
    with made.open("rb") as file:
        yield file


def test_what_is_known_of_a_file(path: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(path)
    device = FileDevice(tmp_path / "link")
    assert (device.given, device.path) == (str(tmp_path / "link"), str(path))
    info = device.info()
    assert info == DeviceInfo(kind="file", key=str(path), name=str(tmp_path / "link"))
    assert (info.is_file, info.is_serial) == (True, False)
    assert (device.slots(5), device.read_tree(), device.open_model("a")) == ((), None, None)
    device.restart()
    device.close()


@pytest.mark.parametrize(
    ("content", "size"),
    [(b"", 0), (b"\xff" * 40, 0), (IMAGE, len(IMAGE)), (IMAGE + b"more", len(IMAGE) + 4)],
)
def test_the_whole_file_is_read(path: Path, content: bytes, size: int) -> None:
    path.write_bytes(content)
    device, told = FileDevice(path), []
    with (path.parent / "out").open("w+b") as out:
        assert device.read_image(out, lambda *step: told.append(step)) == size
        out.seek(0)
        assert out.read() == content[:size]
        assert told == ([("reading", size, size)] if size else [])
    with (path.parent / "out").open("w+b") as out:
        assert device.read_bytes(out) == len(content)
        out.seek(0)
        assert out.read() == content
    assert device.digest(len(content)) == hashlib.sha256(content).hexdigest()


def test_what_a_file_holds_is_compared(path: Path) -> None:
    """Wherever the other one stands."""
    path.write_bytes(IMAGE)
    device = FileDevice(path)
    same, other = io.BytesIO(IMAGE), io.BytesIO(OTHER)
    same.seek(0, io.SEEK_END)
    assert device.matches(same, len(IMAGE)) is True
    assert device.matches(same, 100) is True
    assert device.matches(other, len(OTHER)) is False


def test_a_file_is_replaced_and_read_back(path: Path, image: Any) -> None:
    """A new one for all, as the umask has it; an old one keeps its mode, whatever the umask."""
    device, told = FileDevice(path), []
    done = device.write_image(image, None, lambda *step: told.append(step))
    assert replace(done, seconds=0) == WriteReport(len(IMAGE), 0, 0, verified=True)
    assert done.seconds >= 0
    assert told == [("writing", len(IMAGE), len(IMAGE))]
    assert path.read_bytes() == IMAGE
    assert path.stat().st_mode & 0o777 == 0o644
    path.chmod(0o626)
    path.write_bytes(OTHER)
    looked: list[bytes] = []
    device.write_image(image, last_look=lambda: looked.append(path.read_bytes()))
    assert looked == [OTHER], "just before it is replaced"
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (IMAGE, 0o626)
    assert sorted(os.listdir(path.parent)) == sorted([path.name, "source"])


def test_what_the_last_look_raises_leaves_the_old_file(path: Path, image: Any) -> None:
    path.write_bytes(OTHER)

    def changed() -> None:
        raise RomfsError("somebody else was here")

    with pytest.raises(RomfsError, match="somebody else"):
        FileDevice(path).write_image(image, last_look=changed)
    assert path.read_bytes() == OTHER
    assert sorted(os.listdir(path.parent)) == sorted([path.name, "source"])


@pytest.mark.parametrize("times", [1, 2])
def test_a_disk_that_keeps_something_else(
    path: Path, image: Any, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """Once more in full, then the old file stays."""
    path.write_bytes(OTHER)
    left = [4096] * times
    monkeypatch.setattr(files, "difference", lambda *_: left.pop() if left else None)
    device = FileDevice(path)
    if times == 1:
        assert device.write_image(image).verified
        assert path.read_bytes() == IMAGE
    else:
        with pytest.raises(VerifyError) as caught:
            device.write_image(image)
        assert caught.value.line == (
            "what was read back differs from what was written; the file is unchanged "
            f"({path}, offset 0x1000); the disk may be failing; commit --to a file on another one"
        )
        assert path.read_bytes() == OTHER
    assert left == []


def said(kind: type[RomfsError], work: Callable[..., object], *arguments: object) -> str:
    with pytest.raises(kind) as caught:
        work(*arguments)
    assert type(caught.value) is kind
    return caught.value.line


def test_every_refusal(path: Path, image: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = path.parent
    assert said(UsageError, FileDevice, folder) == (
        f"a folder, not an image file ({folder}); to make an image of it: romfsfs build FOLDER "
        "IMAGE --board BOARD"
    )
    device = FileDevice(path)
    assert said(DeviceAbsent, device.read_image, io.BytesIO()) == (
        f"no such image file ({path}); make one: romfsfs new '{path}' --board BOARD"
    )
    device.clear()  # there is none
    path.write_bytes(b"no image")
    assert said(ImageFormatError, device.read_image, io.BytesIO()) == (
        f"not a valid ROMFS image: it does not start with d2 cd 31 ({path}, offset 0x0); is this a "
        "ROMFS image? 'romfsfs new' makes an empty one"
    )
    monkeypatch.setattr(os, "access", lambda name, mode: (name, mode) != (str(path), os.W_OK))
    read_only = (
        f"the file is read-only ({path}); allow it: chmod u+w '{path}'; or write another file: "
        "commit --to FILE"
    )
    assert said(DeviceError, device.write_image, image) == read_only
    assert said(DeviceError, device.clear) == read_only
    assert path.read_bytes() == b"no image"
    monkeypatch.undo()
    lost = FileDevice(folder / "no such" / "a.img")
    assert said(DeviceError, lost.write_image, image) == (
        f"no such folder ({folder}/no such); mkdir -p '{folder}/no such'"
    )

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "replace_atomically", refuse)
    assert said(DeviceError, device.write_image, image) == (
        f"cannot write: No space left on device ({path}); nothing was changed; free space or check "
        "permissions and try again, or write another file (commit --to FILE)"
    )
    monkeypatch.setattr(os, "unlink", refuse)
    assert said(DeviceError, device.clear) == (
        f"cannot remove: No space left on device ({path}); check the folder's permissions and the "
        "disk, and try again"
    )
    monkeypatch.setattr("builtins.open", refuse)
    assert said(DeviceError, device.read_bytes, io.BytesIO()) == (
        f"cannot read: No space left on device ({path}); check the file: ls -ld '{path}'"
    )


def test_a_file_is_cleared_durably(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_bytes(IMAGE)
    synced: list[str] = []
    monkeypatch.setattr(files, "sync_dir", synced.append)
    FileDevice(path).clear()
    assert not path.exists()
    assert synced == [str(path.parent)]


@pytest.mark.parametrize("kernel", [True, False])
@pytest.mark.parametrize("size", [0, 10, (1 << 20) + 5])
def test_a_copy_begins_where_the_target_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kernel: bool, size: int
) -> None:
    data = random.Random(3).randbytes((1 << 20) + 9)
    (tmp_path / "source").write_bytes(data)
    if not kernel:
        monkeypatch.setattr(files, "copy_in_kernel", lambda *_: 0)
    told: list[tuple[str, int, int]] = []
    with (tmp_path / "source").open("rb") as source, (tmp_path / "target").open("w+b") as target:
        target.write(b"before")
        copy_all(source, target, size, "reading", lambda *step: told.append(step))
        assert target.tell() == 6 + size
        target.write(b"after")
        target.seek(0)
        assert target.read() == b"before" + data[:size] + b"after"
        with pytest.raises(RomfsError) as caught:
            copy_all(source, target, len(data) + 1, "reading", lambda *_: None)
    assert caught.value.line == (
        f"the file became shorter while it was read ({tmp_path / 'source'})"
    )
    if size:
        assert told[-1] == ("reading", size, size)
        assert len(told) == (1 if (kernel and needs.LINUX) or size < 1 << 20 else 2)


@pytest.mark.parametrize(
    ("header", "capacity", "line"),
    [
        (IMAGE[:16], len(IMAGE), None),
        (IMAGE[:16], len(IMAGE) - 1,
         f"its header declares {len(IMAGE)} bytes, the partition has {len(IMAGE) - 1} "
         "(name, offset 0x0); {}"),
        (b"littlefs", 9999, "it does not start with d2 cd 31 (name, offset 0x0); {}"),
    ],
)  # fmt: skip
def test_what_a_header_declares(header: bytes, capacity: int, line: str | None) -> None:
    advice = "nothing was changed; `romfsfs push --force IMAGE` or `mount --new` replaces it"
    if line is None:
        assert declared_size(header, capacity, "name") == len(IMAGE)
    else:
        assert said(ImageFormatError, declared_size, header, capacity, "name") == (
            "not a valid ROMFS image: " + line.format(advice)
        )


def test_how_much_of_an_image_is_written() -> None:
    """What follows it is not, and what is not all there is refused."""
    size = len(IMAGE)
    assert size_to_write(io.BytesIO(IMAGE + b"more"), size, "name") == size
    assert said(ImageFormatError, size_to_write, io.BytesIO(IMAGE[:-1]), size, "name") == (
        "not a valid ROMFS image: the image is shorter than its header declares (offset 0x0)"
    )
    with pytest.raises(CapacityError) as caught:
        size_to_write(io.BytesIO(IMAGE), size - 1, "name")
    assert (caught.value.size, caught.value.capacity) == (size, size - 1)
    assert caught.value.line == (
        f"the image is 1 B too large, there is room for {size - 1:,} B (name); remove files, or "
        "build the image for another partition"
    )


@pytest.mark.parametrize(
    ("mine", "other", "has_id", "may_be"),
    [
        ("B/1/0", "B/1/0", True, True), ("B/1/0", "B/2/0", True, False),
        ("B/ttyX/0", "B/2/0", False, True), ("B/ttyX/0", "C/2/0", False, False),
        ("B/ttyX/0", "B/2/1", False, False),
    ],
)  # fmt: skip
def test_a_camera_without_a_number_may_be_any_of_its_board(
    mine: str, other: str, has_id: bool, may_be: bool
) -> None:
    assert DeviceInfo("serial", mine, "x", has_id=has_id).may_be(other) == may_be
