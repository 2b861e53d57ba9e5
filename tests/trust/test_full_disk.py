"""A disk that is really full or read-only, while romfsfs is in use: the reason in one line with a
way on, nothing lost, and all goes on once there is room again.

The disks are small file systems in memory: of the session, of the cache, of the target.
"""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from processes import until
from real_mount import RealMount

from romfsfs.convert import Converters, State, Target, script
from romfsfs.system.files import digest_fd

KIB = 1024
CONTENT = os.urandom(3000)


class SmallDisk:
    """A file system of its own; what fills it is a file outside of what romfsfs looks at."""

    def __init__(self, folder: Path, kib: int) -> None:
        self.folder = folder
        folder.mkdir(mode=0o700, exist_ok=True)
        options = f"size={kib}k,mode=0700,nr_inodes=400"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "small", folder], check=True)

    def fill(self) -> None:
        with open(self.folder / "filler", "ab", buffering=0) as file:
            for size in (64 * KIB, 4 * KIB):
                while os.statvfs(self.folder).f_bavail * 4 * KIB >= size:
                    file.write(bytes(size))

    def free(self) -> None:
        (self.folder / "filler").unlink()

    def read_only(self, on: bool = True) -> None:
        how = "ro" if on else "rw"
        subprocess.run(["mount", "-o", f"remount,{how}", self.folder], check=True)

    def remove(self) -> None:
        subprocess.run(["umount", "-l", self.folder], check=True)


pytestmark = pytest.mark.root("mount a small disk")


@pytest.fixture
def place(make_mount: Callable[..., RealMount]) -> RealMount:
    return make_mount()


@pytest.fixture
def small_disk(place: RealMount) -> Iterator[Callable[..., SmallDisk]]:
    """`small_disk("state")`: what is kept there of a place is on a small disk."""
    disks: list[SmallDisk] = []

    def make(name: str, kib: int = 512) -> SmallDisk:
        disks.append(SmallDisk(place.base / name, kib))
        return disks[-1]

    yield make
    if place.is_mounted:
        subprocess.run(["fusermount3", "-uz", place.mnt], check=False)
    for disk in disks:
        disk.remove()


def refused(said: str, why: str, where: Path | str) -> None:
    """One line: what is wrong, where, and what to do."""
    (line,) = [line for line in said.splitlines() if line.startswith("romfsfs: error: ")]
    assert why in line.lower()
    assert str(where) in line
    assert "; " in line


def test_a_mount_with_no_room_for_its_session(
    place: RealMount, small_disk: Callable[..., SmallDisk]
) -> None:
    disk = small_disk("state")
    place.mount()
    place.umount()
    disk.fill()
    refused(place.run("mount", place.image, place.mnt, code=1), "no space left", disk.folder)
    assert not place.is_mounted
    disk.free()
    disk.read_only()
    refused(place.run("mount", place.image, place.mnt, code=1), "read-only", disk.folder)
    disk.read_only(False)
    place.mount()
    place.umount()


def test_the_disk_fills_while_it_is_mounted(
    place: RealMount, small_disk: Callable[..., SmallDisk]
) -> None:
    """A program that writes gets ENOSPC; the daemon serves on, and what was written stays."""
    disk = small_disk("state")
    place.mount()
    (place.mnt / "before.bin").write_bytes(CONTENT)
    place.run("commit", place.mnt)
    (place.mnt / "edit.txt").write_bytes(CONTENT)
    image = place.image.read_bytes()
    disk.fill()
    for attempt in range(3):
        with pytest.raises(OSError, match="No space left") as full:
            (place.mnt / f"more{attempt}.bin").write_bytes(bytes(900 * KIB))
        assert full.value.errno == errno.ENOSPC
    os.truncate(place.mnt / "before.bin", 0)
    with pytest.raises(OSError, match="No space left"):
        (place.mnt / "before.bin").write_bytes(bytes(900 * KIB))
    refused(place.run("commit", place.mnt, code=1), "no space left", "state")
    refused(place.run("undo", place.mnt, code=1), "edits", "app.img")
    with pytest.raises(OSError, match="Input/output"):
        (place.mnt / ".romfs/ctl").write_text("commit\n")
    assert place.image.read_bytes() == image
    assert (place.mnt / "edit.txt").read_bytes() == CONTENT
    place.run("status", place.mnt)
    place.run("revert", place.mnt, "more0.bin", "more1.bin", "more2.bin")  # it frees some
    disk.free()
    place.run("revert", place.mnt, "before.bin")
    place.run("commit", place.mnt)
    assert place.stored() == {"before.bin": CONTENT, "edit.txt": CONTENT}
    disk.fill()
    refused(place.run("undo", place.mnt, code=1), "no space left", "state")
    assert (place.mnt / "edit.txt").read_bytes() == CONTENT
    assert place.stored() == {"before.bin": CONTENT, "edit.txt": CONTENT}
    place.umount()
    disk.free()
    place.mount()
    assert (place.mnt / "edit.txt").read_bytes() == CONTENT
    place.umount()


def test_what_the_log_holds_can_be_dropped_when_the_disk_is_full(
    place: RealMount, small_disk: Callable[..., SmallDisk]
) -> None:
    """As the refused commit says."""
    disk = small_disk("state", 1024)
    place.mount()
    for number in range(4):
        (place.mnt / "a.bin").write_bytes(bytes([number]) * 100 * KIB)
        place.run("commit", place.mnt)
    (place.mnt / "a.bin").write_bytes(b"edited" * 5 * KIB)
    disk.fill()
    said = place.run("commit", place.mnt, code=1)
    way = f"romfsfs log {place.image} --keep 0"
    assert f"free space there, {way} drops all but the last two images, and try again" in said
    place.run("log", place.mnt, "--keep", "0")
    place.run("commit", place.mnt)
    assert place.stored() == {"a.bin": b"edited" * 5 * KIB}
    place.umount()


def test_the_disk_has_room_for_no_more_files(
    place: RealMount, small_disk: Callable[..., SmallDisk]
) -> None:
    """No inode is left: nothing can be made; what is there can be changed, renamed and removed."""
    small_disk("state")
    place.mount()
    place.mnt.joinpath("kept").write_bytes(CONTENT)
    made = [place.mnt / "open"]
    with made[0].open("wb", 0) as file:
        with contextlib.suppress(OSError):
            while True:
                made.append(place.mnt / f"{len(made)}")
                os.mknod(made[-1])
        new = made.pop()
        assert 300 < len(made) < 400  # as many as the disk has inodes, but for the session's own
        makers: tuple[Callable[[], object], ...] = (
            new.mkdir, new.touch, lambda: os.mknod(new), lambda: new.write_bytes(b"x"),
        )  # fmt: skip
        for make in makers:
            with pytest.raises(OSError, match="No space left") as full:
                make()
            assert full.value.errno == errno.ENOSPC
            assert not new.exists()
        made[0].unlink()  # it stays until it is closed
        with pytest.raises(OSError, match="No space left"):
            new.mkdir()
        assert file.write(CONTENT) == len(CONTENT)
        (place.mnt / "kept").rename(place.mnt / "renamed")
        made[1].write_bytes(CONTENT)

    def is_made() -> bool:
        with contextlib.suppress(OSError):
            new.mkdir()
        return new.is_dir()

    until(is_made)  # the kernel tells of closed files when it comes to it
    (new / "..").joinpath("renamed").replace(new / "moved")
    for path in made[2:]:
        path.unlink()
    place.run("commit", place.mnt)
    assert place.stored() == {"1": CONTENT, new.name: None, f"{new.name}/moved": CONTENT}
    place.umount()


def test_edits_on_a_disk_that_became_full_or_read_only(
    place: RealMount, small_disk: Callable[..., SmallDisk]
) -> None:
    disk = small_disk("state")
    place.mount()
    (place.mnt / "app.py").write_text("x = 1  # mine\n")
    disk.fill()
    assert "1 change kept" in place.umount()
    refused(place.run("commit", place.image, code=1), "no space left", "state")
    disk.free()
    disk.read_only()
    place.run("status", place.image)
    for command in (["commit"], ["revert", "--yes"]):
        refused(place.run(*command, place.image, code=1), "read-only", "state")
    disk.read_only(False)
    place.run("commit", place.image)
    disk.fill()
    refused(place.run("mount", place.image, place.mnt, code=1), "no space left", "state")
    disk.free()
    place.mount()
    assert (place.mnt / "app.py").read_text() == "x = 1  # mine\n"
    place.umount()


def test_no_room_for_conversions(place: RealMount, small_disk: Callable[..., SmallDisk]) -> None:
    """The save succeeds, the commit says why not; with room again it is just repeated."""
    disk = small_disk("cache")
    place.mount()
    disk.fill()
    (place.mnt / "app.py").write_text("x = 1\n")
    said = place.run("commit", place.mnt, code=3)
    assert f"app.py: could not convert: No space left on device ({disk.folder}" in said
    assert "; free some space" in said
    assert (place.mnt / "app.py").read_text() == "x = 1\n"
    place.run("status", place.mnt)
    disk.free()
    place.run("commit", place.mnt)
    assert list(place.stored()) == ["app.mpy"]
    assert not list((disk.folder / "convert/work").iterdir())
    place.umount()


def test_a_disk_that_is_full_for_a_moment(
    small_disk: Callable[..., SmallDisk], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """mpy-cross ends well with a piece of its result, which must not get onto a camera."""
    disk = small_disk("cache")
    converters = Converters(Target(), disk.folder / "convert")
    source = tmp_path / "app.py"
    source.write_text(
        "".join(f"def f{number}(): return 'text {number}'\n" for number in range(900))
    )
    real = script.run_tool

    def run(*args: Any, **options: Any) -> Any:
        (disk.folder / "room").write_bytes(bytes(8 * KIB))
        disk.fill()
        (disk.folder / "room").unlink()
        try:
            return real(*args, **options)
        finally:
            disk.free()

    with source.open("rb") as file:
        digest = digest_fd(file.fileno())
        with monkeypatch.context() as patch:
            patch.setattr(script, "run_tool", run)
            result = converters.convert("app.py", file.fileno(), digest)
        assert "No space left on device" in result.message
        assert converters.convert("app.py", file.fileno(), digest).state is State.READY


@pytest.mark.parametrize("way", ["full", "read-only"])
def test_no_room_for_the_target(
    place: RealMount, small_disk: Callable[..., SmallDisk], way: str
) -> None:
    disk = small_disk("target", 64)
    place.image = disk.folder / "app.img"
    place.mount()
    (place.mnt / "a.bin").write_bytes(CONTENT)
    before = place.image.read_bytes()
    disk.fill() if way == "full" else disk.read_only()
    why = "no space left" if way == "full" else "read-only"
    refused(place.run("umount", "--commit", place.mnt, code=5), why, "app.img")
    assert place.is_mounted
    assert place.image.read_bytes() == before
    assert [path.name for path in disk.folder.glob("*.tmp")] == []
    disk.free() if way == "full" else disk.read_only(False)
    place.umount("--commit")
    assert place.stored() == {"a.bin": CONTENT}
