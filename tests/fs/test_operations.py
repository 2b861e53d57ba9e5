"""Operations on files as the kernel asks for them, called without a mount: what each does to the
file, what it tells the session, and how often the tree is counted."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fake_host import FakeHost
from test_parts import HIDDEN, refused

from romfsfs.fs.adapter import Adapter
from romfsfs.fs.control import FIRST_HANDLE
from romfsfs.fs.file_operations import Space


class Desk:
    """A host with a limit of 100 bytes for what is called `*.bin`, and its operations."""

    def __init__(self, folder: Path, **how: Any) -> None:
        folder.mkdir()
        self.host = FakeHost(folder)
        self.host.read_only = how.pop("read_only", False)
        self.host.limit = lambda path: 100 if path.endswith(".bin") else None  # type: ignore[method-assign]
        self.host.least = self.least  # type: ignore[method-assign]
        self.files = Adapter(self.host, **how)  # type: ignore[arg-type]
        self.work = folder / "work"
        self.hidden = folder / "hidden"
        self.counted = 0

    def least(self) -> int:
        self.counted += 1
        return sum(path.stat().st_size for path in self.work.rglob("*.bin"))

    def told(self) -> list[str]:
        """What the session was told since the last time."""
        calls = self.host.state / "calls"
        said = calls.read_text().splitlines()
        os.truncate(calls, 0)
        return said

    def create(self, path: str, flags: int = os.O_WRONLY, mode: int = 0o100644) -> Any:
        info = SimpleNamespace(flags=flags, fh=0, writepage=False)
        assert self.files.create(path, mode, info) == 0
        return info

    def open(self, path: str, flags: int) -> Any:
        info = SimpleNamespace(flags=flags, fh=0, writepage=False)
        assert self.files.open(path, info) == 0
        return info

    def write(self, info: Any, data: bytes, offset: int = 0, pages: bool = False) -> int:
        info.writepage = pages
        return self.files.write(memoryview(data), offset, info)

    def read(self, info: Any, size: int = 999, offset: int = 0) -> bytes:
        space = memoryview(bytearray(size))
        return bytes(space[: self.files.read(space, offset, info)])

    def close(self, info: Any) -> list[str]:
        self.files.flush(None, info)
        said = self.told()
        self.files.release(None, info)
        assert self.told() == [], "a close tells of a change once"
        return said


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path / "state")
    yield desk
    desk.host.close()


def test_a_new_file_is_told_of_at_its_close(desk: Desk) -> None:
    info = desk.create("/a.txt", os.O_WRONLY | os.O_EXCL, 0o100640)
    assert desk.told() == []
    assert stat.S_IMODE((desk.work / "a.txt").stat().st_mode) == 0o640
    assert desk.files.open_writers() == ["a.txt"]
    assert desk.write(info, b"hello") == 5
    assert desk.read(info) == b"hello", "it may be mapped later"
    assert desk.close(info) == ["changed a.txt"]
    assert desk.files.open_writers() == []
    refused(errno.EEXIST, lambda: desk.create("/a.txt", os.O_WRONLY | os.O_EXCL))
    info = desk.create("/a.txt", os.O_WRONLY | os.O_TRUNC)
    assert (desk.work / "a.txt").read_bytes() == b""
    desk.close(info)
    lock = desk.create("/lock", os.O_RDONLY)
    assert desk.files.open_writers() == []
    assert desk.close(lock) == ["changed lock"]
    refused(errno.EBADF, lambda: os.fstat(lock.fh))


@pytest.mark.parametrize(
    ("flags", "writes", "told"),
    [
        (os.O_RDONLY, False, []), (os.O_WRONLY, True, []), (os.O_RDWR, True, []),
        (os.O_RDONLY | os.O_TRUNC, True, ["changed a"]),
        (os.O_WRONLY | os.O_TRUNC, True, ["changed a"]), (os.O_WRONLY | os.O_APPEND, True, []),
    ],
)  # fmt: skip
def test_what_opening_says(desk: Desk, flags: int, writes: bool, told: list[str]) -> None:
    (desk.work / "a").write_bytes(b"there")
    info = desk.open("/a", flags)
    assert desk.files.open_writers() == (["a"] if writes else [])
    assert (desk.work / "a").read_bytes() == (b"" if flags & os.O_TRUNC else b"there")
    assert not hasattr(info, "keep_cache")
    if flags & os.O_APPEND:
        assert desk.write(info, b"X", 1) == 1
        assert (desk.work / "a").read_bytes() == b"tXere", "the kernel sends the offset"
        told = ["changed a"]
    assert desk.close(info) == told


def test_pages_of_a_file_that_another_handle_writes_are_kept(desk: Desk) -> None:
    first = desk.create("/a")
    second = desk.open("/a", os.O_RDONLY)
    assert second.keep_cache == 1
    desk.close(first)
    third = desk.open("/a", os.O_RDONLY)
    assert not hasattr(third, "keep_cache")
    for info in (second, third):
        desk.close(info)


def test_a_change_is_told_of_by_whoever_closes(desk: Desk) -> None:
    info = desk.create("/a")
    desk.close(desk.open("/a", os.O_WRONLY))
    desk.write(info, b"1")
    desk.files.flush(None, info)
    assert desk.told() == ["changed a"]
    desk.files.flush(None, info)
    assert desk.told() == []
    desk.write(info, b"2")
    desk.files.release(None, info)
    assert desk.told() == ["changed a"]


def test_a_full_disk_gives_what_fits_and_then_the_reason(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = desk.create("/a")
    desk.files.flush(None, info)
    desk.told()
    real, room = os.pwrite, [3, 2]

    def pwrite(fd: int, data: Any, offset: int) -> int:
        if not room:
            raise OSError(errno.ENOSPC, "full")
        return real(fd, data[: room.pop(0)], offset)

    monkeypatch.setattr(os, "pwrite", pwrite)
    assert desk.write(info, b"0123456", 1) == 5
    assert (desk.work / "a").read_bytes() == b"\x0001234"
    refused(errno.ENOSPC, lambda: desk.write(info, b"56", 6))
    monkeypatch.undo()
    assert desk.close(info) == ["changed a"]


@pytest.mark.parametrize(
    ("offset", "data", "left"),
    [(0, b"abc", b"abc3456789"), (8, b"abc", b"01234567ab"), (10, b"abc", b"0123456789"),
     (99, b"abc", b"0123456789"), (7, b"abc", b"0123456abc")],
)  # fmt: skip
def test_pages_of_a_mapping_make_no_file_longer(
    desk: Desk, offset: int, data: bytes, left: bytes
) -> None:
    (desk.work / "a").write_bytes(b"0123456789")
    info = desk.open("/a", os.O_RDWR)
    assert desk.write(info, data, offset, pages=True) == len(data)
    assert (desk.work / "a").read_bytes() == left
    assert desk.close(info) == ["changed a"]


def test_what_may_not_be_changed(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "only", read_only=True)
    (desk.work / "a").write_bytes(b"1")
    for flags in (os.O_WRONLY, os.O_RDWR, os.O_RDONLY | os.O_TRUNC):
        refused(errno.EROFS, lambda flags=flags: desk.open("/a", flags))
    refused(errno.EROFS, lambda: desk.create("/b"))
    refused(errno.EROFS, lambda: desk.files.truncate("/a", 0))
    info = desk.open("/a", os.O_RDONLY)
    assert desk.read(info) == b"1"
    refused(errno.EROFS, lambda: desk.files._descriptor(info))
    assert desk.close(info) == []
    assert os.listdir(desk.work) == ["a"]
    desk.host.close()


def test_names_that_are_not_the_user_s(desk: Desk) -> None:
    refused(errno.EPERM, lambda: desk.create(f"/{HIDDEN}"))
    for path in ("/.romfs", "/.romfs/x"):
        refused(errno.EROFS, lambda path=path: desk.create(path))
        refused(errno.EROFS, lambda path=path: desk.files.truncate(path, 0))
    desk.files.truncate("/.romfs/ctl", 0)
    (desk.hidden / HIDDEN).write_bytes(b"hidden")
    info = desk.open(f"/lib/{HIDDEN}", os.O_RDWR)
    assert desk.files.open_writers() == []
    assert desk.write(info, b"H") == 1
    desk.files.truncate(f"/{HIDDEN}", 3)
    assert (desk.hidden / HIDDEN).read_bytes() == b"Hid"
    assert desk.close(info) == []
    assert not (desk.hidden / HIDDEN).exists(), "it goes with its last handle"


def test_commands_and_texts_have_handles_too(desk: Desk) -> None:
    info = desk.open("/.romfs/ctl", os.O_WRONLY)
    assert (info.fh, info.direct_io) == (FIRST_HANDLE, 1)
    assert desk.write(info, b"wr") == 2
    assert desk.write(info, b"ite\nlast") == 8
    assert desk.files.truncate(None, 0, info) == 0
    assert desk.told() == ["control write []"]
    refused(errno.EOPNOTSUPP, lambda: desk.files.fallocate(None, 0, 0, 1, info))
    refused(errno.EROFS, lambda: desk.files._descriptor(info))
    assert desk.files.fsync(None, 0, info) == 0
    assert desk.close(info) == ["control last []"]
    info = desk.open("/.romfs/status", os.O_RDONLY)
    assert desk.read(info) == b"0 entries\n"
    assert desk.read(info, 3, 2) == b"ent"
    desk.close(info)
    refused(errno.EBADF, lambda: desk.read(info))


@pytest.mark.parametrize("by", ["handle", "path"])
def test_truncating(desk: Desk, by: str) -> None:
    (desk.work / "a").write_bytes(b"0123456789")
    (desk.work / "b.bin").write_bytes(b"x" * 50)
    handles = {name: desk.open(f"/{name}", os.O_RDWR) for name in ("a", "b.bin")}

    def cut(name: str, length: int) -> None:
        info = handles[name] if by == "handle" else None
        assert desk.files.truncate(f"/{name}", length, info) == 0

    cut("a", 4)
    assert (desk.work / "a").read_bytes() == b"0123"
    cut("a", 6)
    assert (desk.work / "a").read_bytes() == b"0123\0\0"
    refused(errno.EFBIG, lambda: cut("b.bin", 101))
    assert desk.counted == 0
    cut("b.bin", 100)
    assert desk.counted == 1
    cut("b.bin", 10)
    cut("b.bin", 100)
    assert desk.counted == 1, "what was freed is known"
    full = desk.create("/c.bin")
    refused(errno.ENOSPC, lambda: desk.write(full, b"x"))
    assert desk.counted == 2, "to the byte"
    desk.files.release(None, full)
    desk.told()
    for length in (90, 100):
        cut("b.bin", length)
    said = desk.told()
    assert said == ([] if by == "handle" else ["changed b.bin"] * 2)
    closed = [each for info in handles.values() for each in desk.close(info)]
    assert closed == (["changed a", "changed b.bin"] if by == "handle" else [])
    unknown = SimpleNamespace(fh=999)
    refused(errno.EBADF, lambda: desk.files.truncate("/a", 0, unknown))


def test_what_is_stored_as_it_is_has_a_limit(desk: Desk) -> None:
    """ENOSPC where one alone, or all of them together, would not fit; counted when in doubt."""
    info = desk.create("/a.bin")
    refused(errno.ENOSPC, lambda: desk.write(info, b"x" * 101))
    assert desk.counted == 0
    assert desk.write(info, b"x" * 60) == 60
    assert desk.counted == 1
    other = desk.create("/b.bin")
    assert desk.write(other, b"y" * 40) == 40
    assert desk.counted == 1
    for _ in range(3):
        refused(errno.ENOSPC, lambda: desk.write(other, b"y", 40))
    assert desk.counted == 2, "not again before something changes"
    assert desk.write(other, b"Y" * 40) == 40, "what grows nothing is written"
    assert desk.counted == 2
    desk.close(desk.open("/a.bin", os.O_WRONLY | os.O_TRUNC))
    assert desk.write(other, b"y" * 60, 40) == 60
    assert desk.counted == 2
    source = desk.create("/c.txt")
    assert desk.write(source, b"z" * 5000) == 5000
    desk.close(source)
    refused(errno.ENOSPC, lambda: desk.write(info, b"x"))
    assert desk.counted == 3, "a source may have taken the place of one"
    for each in (info, other):
        desk.close(each)


def test_room_is_allocated_as_it_is_written(desk: Desk) -> None:
    info = desk.create("/a.bin", os.O_RDWR)
    desk.files.flush(None, info)
    desk.told()
    assert desk.files.fallocate(None, 0, 20, 30, info) == 0
    assert (desk.work / "a.bin").stat().st_size == 50
    refused(errno.ENOSPC, lambda: desk.files.fallocate(None, 0, 50, 51, info))
    assert desk.files.fallocate(None, 3, 500, 10, info) == 0, "a hole takes nothing"
    assert (desk.work / "a.bin").stat().st_size == 50
    refused(errno.EBADF, lambda: desk.files.fallocate(None, 0, 0, 1, SimpleNamespace(fh=999)))
    assert desk.close(info) == ["changed a.bin"]


def test_room() -> None:
    counts = [70, 90]
    asked: list[int] = []

    def least() -> int:
        asked.append(1)
        return counts.pop(0)

    space = Space(SimpleNamespace(least=least))  # type: ignore[arg-type]
    space.take(0, 100)
    assert asked == []
    space.take(1, 100)
    assert len(asked) == 1
    space.take(9, 100)
    space.take(20, 100)
    assert len(asked) == 1
    space.give(5)
    space.take(5, 100)
    assert len(asked) == 1
    refused(errno.ENOSPC, lambda: space.take(11, 100))
    refused(errno.ENOSPC, lambda: space.take(11, 100))
    assert len(asked) == 2
    space.take(10, 100)
    counts.append(100)
    refused(errno.ENOSPC, lambda: space.take(1, 100))
    assert len(asked) == 3
    space.give(0)
    counts.append(99)
    space.take(1, 100)
    assert len(asked) == 4


def test_a_file_that_is_larger_than_may_be_is_written_over(desk: Desk) -> None:
    (desk.work / "a.bin").write_bytes(b"x" * 150)
    info = desk.open("/a.bin", os.O_RDWR)
    assert desk.write(info, b"y" * 150) == 150
    assert desk.files.truncate(None, 150, info) == desk.files.truncate("/a.bin", 120) == 0
    refused(errno.ENOSPC, lambda: desk.write(info, b"y" * 121))
    desk.close(info)


def test_a_size_and_what_it_decides_change_one_after_the_other(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opening that cuts off, and late pages that must not make it longer."""
    (desk.work / "a").write_bytes(b"0123456789")
    alone: list[bool] = []
    opened, written, tree = desk.files._tree.open, os.pwrite, desk.files._tree

    def noting(real: Any) -> Any:
        def noted(*args: Any) -> Any:
            alone.append(desk.files._cutting.locked())
            return real(*args)

        return noted

    monkeypatch.setattr(tree, "open", noting(opened))
    monkeypatch.setattr(os, "pwrite", noting(written))
    first = desk.open("/a", os.O_RDWR)
    desk.write(first, b"abc", pages=True)
    desk.write(first, b"abc")
    second = desk.open("/a", os.O_WRONLY | os.O_TRUNC)
    assert alone == [False, True, False, True]
    for info in (first, second):
        desk.close(info)


def test_what_is_synced(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[tuple[str, int]] = []
    for name in ("fsync", "fdatasync"):
        monkeypatch.setattr(os, name, lambda fd, name=name: synced.append((name, fd)))
    info = desk.create("/a")
    desk.files.fsync("/a", 0, info)
    desk.files.fsync("/a", 1, info)
    assert synced == [("fsync", info.fh), ("fdatasync", info.fh)]
    monkeypatch.undo()
    desk.close(info)


def test_a_failure_while_opening_leaves_no_descriptor(desk: Desk) -> None:
    def fails(path: str) -> None:
        raise RuntimeError(path)

    (desk.work / "b").touch()
    before = len(os.listdir("/proc/self/fd"))
    desk.host.limit = fails  # type: ignore[method-assign,assignment]
    with pytest.raises(RuntimeError):
        desk.create("/a")
    with pytest.raises(RuntimeError):
        desk.open("/b", os.O_WRONLY)
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.root("give files to another user")
@pytest.mark.parametrize(
    ("caller", "mode", "set_id", "owner", "left"),
    [
        ((7, 8), 0o100644, False, (7, 8), 0o644), ((7, 8), 0o100666, False, (7, 8), 0o666),
        ((7, 8), 0o106755, False, (7, 8), 0o6755), ((7, 8), 0o100644, True, (7, 99), 0o644),
        ((0, 0), 0o100664, False, (0, 0), 0o664),
    ],
)  # fmt: skip
def test_what_is_made_for_others_is_theirs(
    tmp_path: Path, caller: tuple[int, int], mode: int, set_id: bool, owner: tuple[int, int],
    left: int,
) -> None:  # fmt: skip
    desk = Desk(tmp_path / "state", caller=lambda: caller)
    folder = desk.work / "d"
    folder.mkdir()
    if set_id:
        os.chown(folder, 0, 99)
        folder.chmod(0o2755)
    desk.close(desk.create("/d/a", mode=mode))
    found = (folder / "a").stat()
    assert (found.st_uid, found.st_gid) == owner
    assert stat.S_IMODE(found.st_mode) == left
    assert desk.files.mkdir("/d/inner", 0o40777) == 0
    assert desk.files.mknod("/d/node", 0o100666, 0) == 0
    for name, bits in (("inner", 0o2777 if set_id else 0o777), ("node", 0o666)):
        found = (folder / name).stat()
        assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (*owner, bits), name
    (folder / "a").write_bytes(b"some")
    for bits, kept in ((0o6711, 0o711), (0o6701, 0o2701), (0o755, 0o755)):
        os.chmod(folder / "a", bits)
        desk.close(desk.open("/d/a", os.O_WRONLY | os.O_TRUNC))
        expected = bits if caller[0] == 0 else kept
        assert stat.S_IMODE((folder / "a").stat().st_mode) == expected
    desk.host.close()
