"""An image file as a device, step by step: what is waited for, synced, compared and kept."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO

import pytest

from romfsfs.devices import file as files
from romfsfs.devices.base import DeviceInfo, OpenedModel, WriteReport
from romfsfs.devices.discovery import CameraPort
from romfsfs.devices.file import FileDevice, copy_all
from romfsfs.errors import DeviceError, RomfsError
from romfsfs.image.writer import encode

IMAGE = encode({"a.bin": b"a" * 5000})
STAMP = (1, 2, 3, 4, 5)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "my.img"


@pytest.fixture
def image(tmp_path: Path) -> Iterator[BinaryIO]:
    (tmp_path / "source").write_bytes(IMAGE)
    with (tmp_path / "source").open("rb") as file:
        yield file


def test_what_records_say_by_themselves() -> None:
    assert CameraPort("x") == CameraPort("x", 0, 0, "", ())
    assert OpenedModel("x") == OpenedModel("x", "", "", 0, (), ())
    assert WriteReport(1, 2, 3.0, True) == WriteReport(1, 2, 3.0, True, 0, 0, (), ())
    assert DeviceInfo("file", "k", "n") == DeviceInfo(
        "file", "k", "n", None, 0, None, None, None, None, (), "", (), "", "", 0, True, (),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("left", "found", "waits"),
    [([0.0], STAMP, 0), ([-1.0], STAMP, 0), ([0.01, 0.0], STAMP, 1), ([1.0, 1.0, 0.0], STAMP, 2),
     ([1.0, 1.0, 1.0], None, 3), ([None], None, 0), ([1.0, None], None, 1)],
)  # fmt: skip
def test_a_stamp_that_a_later_change_will_alter(
    monkeypatch: pytest.MonkeyPatch, path: Path, left: list[float | None],
    found: tuple[int, ...] | None, waits: int,
) -> None:  # fmt: skip
    """By the time of change; three looks, and none at a file that is not there."""
    device = FileDevice(path)
    waited: list[list[int]] = []

    def uncertain(changed: int) -> float:
        assert changed == 5
        seconds = left.pop(0)
        assert seconds is not None
        return seconds

    monkeypatch.setattr(device, "stamp", lambda: None if left[0] is None else STAMP)
    monkeypatch.setattr(files, "uncertain_for", uncertain)
    monkeypatch.setattr(files, "wait_until_certain", waited.append)
    assert device.certain_stamp() == found
    assert waited == [[5]] * waits


def test_who_a_file_is(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = FileDevice(path)
    assert device.stamp() is None
    path.write_bytes(IMAGE)
    status = path.stat()
    assert device.stamp() == (
        status.st_dev, status.st_ino, len(IMAGE), status.st_mtime_ns, status.st_ctime_ns,
    )  # fmt: skip
    assert device.exists()

    def refuse(name: str) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(files.os, "stat", refuse)
    with pytest.raises(DeviceError) as caught:
        device.stamp()
    assert caught.value.line == (
        f"cannot read: Permission denied ({path}); check the file: ls -ld {path}"
    )


def test_what_is_no_file(path: Path) -> None:
    os.mkfifo(path)
    with pytest.raises(DeviceError) as caught:
        FileDevice(str(path))
    assert type(caught.value) is DeviceError
    assert caught.value.line == (
        f"neither a file nor a camera ({path}); give the name of a file; '-' is standard input or "
        "output"
    )


class Syncing:
    """In the place of `Beside`: what is done beside is done when its result is asked for first."""

    events: list[Any]

    def __init__(self, works: list[Callable[[Any], None]]) -> None:
        (self.work,) = works
        self.events.append("begin")
        self.done = False

    def __enter__(self) -> Syncing:
        return self

    def __exit__(self, *_: object) -> None: ...

    def result(self, number: int) -> None:
        assert number == 0
        self.events.append("wait")
        if not self.done:
            self.work(None)
        self.done = True


@pytest.mark.parametrize("larger", [False, True])
@pytest.mark.parametrize("old", [False, True])
def test_the_steps_of_replacing(
    path: Path, image: BinaryIO, monkeypatch: pytest.MonkeyPatch, larger: bool, old: bool
) -> None:
    """Up to 64 MiB what is compared comes from the disk; above, it is compared while it is
    synced."""
    assert files._FROM_DISK == 64 << 20
    monkeypatch.setattr(files, "_FROM_DISK", len(IMAGE) - larger)
    events: list[Any] = []
    monkeypatch.setattr(Syncing, "events", events, raising=False)
    monkeypatch.setattr(files, "Beside", Syncing)
    fds: list[int] = []

    def fsync(fd: int) -> None:
        if stat.S_ISREG(os.fstat(fd).st_mode):  # of the folder: another's matter
            fds.append(fd)
            events.append("sync")
            assert os.fstat(fd).st_size == len(IMAGE)

    def difference(fd: int, at: int, other: int, there: int, size: int) -> None:
        assert (at, other, there, size) == (0, image.fileno(), 0, len(IMAGE))
        fds.append(fd)
        events.append("compare")

    def waits(times: list[int]) -> None:
        events.append("clock")
        assert times == [os.fstat(fds[0]).st_ctime_ns]

    def owner(fd: int, before: os.stat_result) -> None:
        events.append("owner")
        assert before.st_ino == there

    monkeypatch.setattr(files.os, "fsync", fsync)
    monkeypatch.setattr(files, "difference", difference)
    monkeypatch.setattr(files, "_drop_from_memory", lambda fd: events.append("drop"))
    monkeypatch.setattr(files, "wait_until_certain", waits)
    monkeypatch.setattr(files, "_keep_owner", owner)
    if old:
        path.write_bytes(b"old")
        path.chmod(0o640)
        there = path.stat().st_ino
    device = FileDevice(path)
    device.write_image(image, last_look=lambda: events.append("look"))
    fsynced = ["begin", "compare", "wait", "sync"] if larger else [
        "begin", "wait", "sync", "drop", "compare", "wait"]  # fmt: skip
    assert events == [*(["owner"] if old else []), *fsynced, "clock", "look", "sync"]
    assert path.read_bytes() == IMAGE
    assert stat.S_IMODE(path.stat().st_mode) == (0o640 if old else 0o644)
    assert device.written_stamp == device.stamp()


@pytest.mark.parametrize("field", range(6))
def test_what_was_written_and_what_is_there_now(
    path: Path, image: BinaryIO, monkeypatch: pytest.MonkeyPatch, field: int
) -> None:
    """A rename changes the time of change and nothing else; None too where the file has gone."""
    device = FileDevice(path)
    assert device.written_stamp is None
    device.write_image(image)
    now = device.stamp()
    assert now is not None
    assert device.written_stamp == now
    changed: Any = None
    if field < 5:
        changed = lambda: tuple(each + (at == field) for at, each in enumerate(real() or ()))  # noqa: E731
    real = device.stamp
    monkeypatch.setattr(device, "stamp", changed or (lambda: None))
    device.write_image(image)
    assert (device.written_stamp is not None) == (field == 4)


def test_a_file_that_changed_while_it_could_not_be_written(
    path: Path, image: BinaryIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.write_bytes(b"old")

    def refuse(*_: object) -> None:
        path.write_bytes(b"another")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "copy_all", refuse)
    with pytest.raises(DeviceError) as caught:
        FileDevice(path).write_image(image)
    assert caught.value.line == (
        f"cannot write: No space left on device ({path}); the file has changed; free space or "
        "check permissions and try again, or write another file (commit --to FILE)"
    )


def test_a_disk_that_is_pulled_while_the_file_is_written(
    path: Path, image: BinaryIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor can the file be looked at then: what is told is what failed first."""
    device = FileDevice(path)

    def fails(*_: object) -> None:
        raise OSError(5, "Input/output error")

    def pulled(*_: object) -> None:
        monkeypatch.setattr(files, "_stamp", fails)
        path.write_bytes(b"")  # so that there is a file to look at
        fails()

    monkeypatch.setattr(files, "copy_all", pulled)
    with pytest.raises(DeviceError) as caught:
        device.write_image(image)
    assert caught.value.line == (
        f"cannot write: Input/output error ({path}); whether the file has changed is not known; "
        "free space or check permissions and try again, or write another file (commit --to FILE)"
    )


def test_a_file_system_that_is_read_only(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_bytes(IMAGE)
    monkeypatch.setattr(files.os, "access", lambda name, mode: False)
    monkeypatch.setattr(
        files.os, "statvfs", lambda name: SimpleNamespace(f_flag=os.ST_RDONLY | 1 << 12)
    )
    with pytest.raises(DeviceError) as caught:
        FileDevice(path).clear()
    assert caught.value.line == (
        f"the file system is read-only ({path}); mount it so that it can be written to; or write "
        "another file: commit --to FILE"
    )
    path.unlink()
    FileDevice(path).clear()  # what is not there is not protected


@pytest.mark.parametrize(
    "number", [0, errno.EPERM, errno.EACCES, errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EIO]
)
@pytest.mark.parametrize("group", [True, False])
def test_owner_and_group_are_kept_where_that_may_be_done(
    monkeypatch: pytest.MonkeyPatch, number: int, group: bool
) -> None:
    """Not by everyone, not where a container has no such group, not on every file system; but a
    file that a group shares stays the group's, whoever of it commits."""
    given: list[Any] = []

    def chown(fd: int, uid: int, gid: int) -> None:
        given.append((fd, uid, gid))
        if number and not (group and uid == -1):
            raise OSError(number, "no")

    monkeypatch.setattr(files.os, "fchown", chown)
    before: Any = SimpleNamespace(st_uid=7, st_gid=9)
    disk = number == errno.EIO
    with pytest.raises(OSError, match="no") if disk else contextlib.nullcontext():
        files._keep_owner(3, before)
    assert given == ([(3, 7, 9)] if disk or not number else [(3, 7, 9), (3, -1, 9)])


def test_what_is_dropped_from_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(os, "posix_fadvise", lambda *words: asked.append(words), raising=False)
    monkeypatch.setattr(os, "POSIX_FADV_DONTNEED", 77, raising=False)
    files._drop_from_memory(5)
    monkeypatch.delattr(os, "POSIX_FADV_DONTNEED")
    files._drop_from_memory(5)
    assert asked == [(5, 0, 0, 77), (5, 0, 0, 4)]
    monkeypatch.delattr(os, "posix_fadvise")
    files._drop_from_memory(5)
    assert len(asked) == 2


def test_the_steps_of_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the kernel has copied is not read; what is read may be written in parts."""
    size, mib = (17 << 20) + 10, 1 << 20
    calls: list[tuple[Any, ...]] = []
    (tmp_path / "source").touch()
    os.truncate(tmp_path / "source", size)
    kernel = [mib, 0, 0, 15 * mib, 0]

    def copy(source: int, at: int, target: int, there: int, count: int) -> int:
        calls.append(("kernel", at, there, count))
        return kernel.pop(0)

    def pread(fd: int, count: int, at: int) -> bytes:
        calls.append(("read", count, at))
        return bytes(count)

    def pwrite(fd: int, data: bytes, at: int) -> int:
        calls.append(("write", len(data), at))
        return 5 if len(calls) < 5 else len(data)

    monkeypatch.setattr(files, "copy_in_kernel", copy)
    monkeypatch.setattr(files.os, "pread", pread)
    monkeypatch.setattr(files.os, "pwrite", pwrite)
    steps: list[Any] = []
    with (tmp_path / "source").open("rb") as source, (tmp_path / "out").open("w+b") as out:
        out.write(b"abc")
        copy_all(source, out, size, "reading", lambda *step: steps.append(step))
        assert out.tell() == 3 + size
        assert os.fstat(out.fileno()).st_size == 3, "what was before is written first"
    done = [mib, mib + 5, 2 * mib + 5, 17 * mib + 5, size]
    assert steps == [("reading", each, size) for each in done]
    assert calls == [
        ("kernel", 0, 3, 16 * mib),
        ("kernel", mib, 3 + mib, 16 * mib), ("read", mib, mib), ("write", mib, 3 + mib),
        ("kernel", mib + 5, 8 + mib, 16 * mib), ("read", mib, mib + 5), ("write", mib, 8 + mib),
        ("kernel", 2 * mib + 5, 8 + 2 * mib, 15 * mib + 5),
        ("kernel", 17 * mib + 5, 8 + 17 * mib, 5), ("read", 5, 17 * mib + 5),
        ("write", 5, 8 + 17 * mib),
    ]  # fmt: skip
    monkeypatch.setattr(files.os, "pread", lambda *_: b"")
    kernel[:] = [0]
    with (
        (tmp_path / "source").open("rb") as source,
        (tmp_path / "out").open("w+b") as out,
        pytest.raises(RomfsError, match=f"became shorter while it was read .{tmp_path}/source"),
    ):
        copy_all(source, out, 1, "reading", lambda *_: None)
