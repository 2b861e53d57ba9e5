"""Operations on names and attributes, called without a mount: what each does to the tree, what it
refuses, and what the session is told."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import needs
import pytest
from test_operations import Desk
from test_parts import HIDDEN, refused

from romfsfs.fs import tree
from romfsfs.fs.control import FIRST_HANDLE
from romfsfs.system.clock import wait_until_certain


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path / "state")
    (desk.work / "d").mkdir()
    (desk.work / "d/a").write_bytes(b"a")
    (desk.work / "b.bin").write_bytes(b"b" * 60)
    yield desk
    desk.host.close()


@pytest.fixture
def only(tmp_path: Path) -> Iterator[Desk]:
    """What may not be changed."""
    desk = Desk(tmp_path / "only", read_only=True)
    (desk.work / "a").write_bytes(b"a")
    yield desk
    desk.host.close()


def test_what_is_made_and_removed(desk: Desk) -> None:
    files = desk.files
    assert files.mkdir("/new", 0o40777) == 0
    assert stat.S_IMODE((desk.work / "new").stat().st_mode) == 0o777, "the kernel applied the mask"
    assert files.mknod("/new/f", stat.S_IFREG | 0o666, 0) == 0
    assert stat.S_IMODE((desk.work / "new/f").stat().st_mode) == 0o666
    assert desk.told() == ["changed new", "changed new/f"]
    refused(errno.EEXIST, lambda: files.mknod("/new/f", stat.S_IFREG | 0o640, 0))
    for kind in (stat.S_IFIFO, stat.S_IFCHR, stat.S_IFSOCK):
        refused(errno.EPERM, lambda kind=kind: files.mknod("/x", kind | 0o600, 0))
    refused(errno.EPERM, lambda: files.symlink("/x", "d"))
    refused(errno.EPERM, lambda: files.link("/x", "/d/a"))
    refused(errno.ENOTEMPTY, lambda: files.rmdir("/new"))
    assert files.unlink("/new/f") == 0
    assert files.rmdir("/new") == 0
    refused(errno.ENOENT, lambda: files.unlink("/new/f"))
    assert desk.told() == ["changed new/f", "changed new"]
    for made_up in (f"/{HIDDEN}", f"/d/{HIDDEN}"):
        refused(errno.EPERM, lambda path=made_up: files.mkdir(path, 0o755))
        refused(errno.EPERM, lambda path=made_up: files.mknod(path, stat.S_IFREG, 0))
        refused(errno.EPERM, lambda path=made_up: files.rmdir(path))
        assert files.unlink(made_up) == 0, "libfuse removes what is gone already"
    assert desk.told() == []
    assert sorted(os.listdir(desk.work)) == ["b.bin", "d"]


def test_nothing_is_changed_where_it_may_not_be(only: Desk, desk: Desk) -> None:
    for files, paths in ((only.files, ["/a", "/x"]), (desk.files, ["/.romfs/x", "/.romfs"])):
        for path in paths:
            for work in (
                lambda f=files, p=path: f.mkdir(p, 0o755), lambda f=files, p=path: f.unlink(p),
                lambda f=files, p=path: f.mknod(p, stat.S_IFREG, 0),
                lambda f=files, p=path: f.rmdir(p), lambda f=files, p=path: f.rename(p, "/y"),
                lambda f=files, p=path: f.rename("/d", p), lambda f=files, p=path: f.chmod(p, 0),
                lambda f=files, p=path: f.chown(p, -1, -1),
                lambda f=files, p=path: f.utimens(p, None),
            ):  # fmt: skip
                refused(errno.EROFS, work)
    assert (only.told(), desk.told()) == ([], [])


@pytest.mark.parametrize(
    ("path", "mode", "number"),
    [
        ("/d/a", os.R_OK, 0), ("/d/a", os.W_OK, 0), ("/d", os.F_OK, 0),
        ("/no", os.F_OK, errno.ENOENT),
        ("/d/a", os.X_OK, errno.EACCES), ("/.romfs", os.R_OK, 0), ("/.romfs", os.W_OK, errno.EROFS),
        ("/.romfs/ctl", os.W_OK, 0), ("/.romfs/status", os.R_OK, 0),
        ("/.romfs/status", os.W_OK, errno.EROFS), ("/.romfs/no", os.F_OK, errno.ENOENT),
    ],
)  # fmt: skip
def test_access(desk: Desk, path: str, mode: int, number: int) -> None:
    (desk.work / "d/a").chmod(0o644)
    if number:
        refused(number, lambda: desk.files.access(path, mode))
    else:
        assert desk.files.access(path, mode) == 0


def test_access_where_nothing_may_be_changed(only: Desk) -> None:
    assert only.files.access("/a", os.R_OK) == 0
    for path in ("/a", "/no", "/.romfs/x"):
        number = errno.ENOENT if path.startswith("/.romfs") else errno.EROFS
        refused(number, lambda path=path: only.files.access(path, os.W_OK))


# -- renames


@pytest.mark.skipif(not needs.LINUX, reason="this system exchanges no names")
def test_names_of_open_files_follow(desk: Desk) -> None:
    """And what a file may take is decided by its new name."""
    text, data = desk.open("/d/a", os.O_RDWR), desk.open("/b.bin", os.O_RDONLY)
    files = desk.files
    assert files.rename("/d", "/e") == 0
    assert desk.told() == ["changed d", "changed e"]
    assert files.open_writers() == ["e/a"]
    assert files.rename("/e/a", "/e/a.bin") == 0
    refused(errno.ENOSPC, lambda: desk.write(text, b"x" * 101))
    assert files._handles.get(data.fh).limit is None  # type: ignore[union-attr]
    assert files.rename("/e/a.bin", "/b.bin", 2) == 0
    assert files.open_writers() == ["b.bin"]
    moved = files._handles.get(data.fh)
    assert moved is not None
    assert (moved.path, moved.limit) == ("/e/a.bin", None), "who cannot write has no limit"
    assert (desk.work / "b.bin").read_bytes() == b"a"
    refused(errno.EEXIST, lambda: files.rename("/e/a.bin", "/b.bin", 1))
    for flags in (4, 8, 5):
        refused(errno.EINVAL, lambda flags=flags: files.rename("/b.bin", "/z", flags))
    refused(errno.ENOENT, lambda: files.rename("/no", "/z"))
    assert files.rename("/b.bin", "/z", 1) == 0
    for info in (text, data):
        desk.close(info)


def test_a_file_that_loses_its_name_and_gets_one_again(desk: Desk) -> None:
    info = desk.open("/b.bin", os.O_RDWR)
    assert desk.files.rename("/b.bin", f"/{HIDDEN}") == 0
    assert desk.told() == ["changed b.bin"]
    assert os.listdir(desk.hidden) == [HIDDEN]
    assert desk.files.open_writers() == []
    assert desk.files.getattr(None, info).st_nlink == 0
    assert desk.files.getattr(f"/{HIDDEN}").st_nlink == 0
    assert desk.files.getattr(f"/{HIDDEN}").st_size == 60
    assert desk.write(info, b"x" * 500) == 500, "it is not stored"
    files, path = desk.files, f"/{HIDDEN}"
    assert files.chmod(path, 0o200) == files.chown(path, -1, -1) == files.utimens(path, None) == 0
    assert stat.S_IMODE((desk.hidden / HIDDEN).stat().st_mode) == 0o200
    assert desk.told() == [], "nobody can read it by a name"
    assert desk.files.rename(f"/{HIDDEN}", "/c.bin") == 0
    assert desk.told() == ["changed c.bin"]
    assert desk.files.getattr(None, info).st_nlink == 1
    refused(errno.ENOSPC, lambda: desk.write(info, b"x" * 501))
    desk.close(info)
    assert desk.files.rename("/c.bin", f"/{HIDDEN}") == 0, "closed in between: libfuse forgets it"
    assert (os.listdir(desk.hidden), sorted(os.listdir(desk.work))) == ([], ["d"])
    refused(errno.EPERM, lambda: desk.files.rename("/d", f"/{HIDDEN}"))


def test_what_is_freed_is_room(desk: Desk) -> None:
    """60 of 100 bytes are there; what goes makes room without another count."""
    files = desk.files
    info = desk.create("/c.bin")
    assert desk.write(info, b"c" * 40) == 40
    assert desk.counted == 1
    files.unlink("/b.bin")
    assert desk.write(info, b"c" * 60, 40) == 60
    assert desk.counted == 1
    files.rename("/c.bin", "/c.txt")
    other = desk.create("/e.bin")
    assert desk.write(other, b"e" * 100) == 100
    assert desk.counted == 1
    files.rename("/c.txt", "/c.bin")
    refused(errno.ENOSPC, lambda: desk.write(other, b"e" * 101))
    files.rename("/e.bin", "/c.bin")
    new = desk.create("/n.bin")
    refused(errno.ENOSPC, lambda: desk.write(new, b"n"))
    for each in (info, other, new):
        desk.close(each)


def test_what_frees_nothing_is_no_room(desk: Desk) -> None:
    """To the byte: 60 of 100 are there, and 40 come; then what goes, or is renamed, had none."""
    info = desk.create("/c.bin")
    for name in ("a.txt", "b.txt", "c.txt"):
        (desk.work / name).write_bytes(b"text")
    assert desk.write(info, b"c" * 40) == 40
    (desk.work / "d.bin").mkdir()
    desk.files.unlink("/a.txt")
    desk.files.rename("/b.txt", "/d.txt")
    desk.files.rename("/d.bin", "/e.bin")
    desk.files.rename("/c.bin", "/f.bin")
    desk.files.rename("/c.txt", "/d.txt")
    before = desk.counted
    for _ in range(2):
        refused(errno.ENOSPC, lambda: desk.write(info, b"c", 40))
    assert desk.counted - before == 1
    desk.close(info)


def test_names_that_begin_as_the_control_directory_s(desk: Desk) -> None:
    files, path = desk.files, "/.romfsx"
    info = desk.create(path)
    assert desk.write(info, b"12") == 2
    desk.close(info)
    info = desk.open(path, os.O_RDWR)
    assert not hasattr(info, "direct_io")
    assert desk.read(info) == b"12"
    desk.close(info)
    assert files.getattr(path).st_size == 2
    assert files.access(path, os.W_OK) == files.truncate(path, 1) == files.chmod(path, 0o600) == 0
    assert files.rename(path, "/.romfsy") == files.unlink("/.romfsy") == 0
    names = [".romfsx"] * 2 + [".romfsy"] * 2
    assert desk.told() == [f"changed {name}" for name in names]


# -- attributes


def test_attributes(desk: Desk) -> None:
    info = desk.open("/d/a", os.O_RDONLY)
    found = os.stat(desk.work / "d/a")
    assert desk.files.getattr("/d/a") == desk.files.getattr(None, info) == found
    status = desk.open("/.romfs/status", os.O_RDONLY)
    assert status.fh == FIRST_HANDLE
    assert desk.files.getattr(None, status).st_size == len("2 entries\n")
    assert desk.read(status) == b"2 entries\n"
    assert stat.S_ISDIR(desk.files.getattr("/.romfs").st_mode)
    for path in (None, "/no"):
        refused(errno.ENOENT, lambda path=path: desk.files.getattr(path))
    for each in (info, status):
        desk.close(each)


@pytest.mark.parametrize("by", ["path", "handle"])
@pytest.mark.parametrize(
    ("path", "before", "mode", "told"),
    [
        ("d/a", 0o644, 0o100600, False), ("d/a", 0o644, 0o244, True), ("d/a", 0o244, 0o644, True),
        ("d/a", 0o644, 0o744, False), ("d", 0o755, 0o655, True), ("d", 0o755, 0o355, True),
        ("d", 0o755, 0o777, False), ("d/a", 0o644, 0o4755, False),
    ],
)  # fmt: skip
def test_modes(desk: Desk, by: str, path: str, before: int, mode: int, told: bool) -> None:
    place = desk.work / path
    info = None
    if by == "handle":
        if place.is_dir():
            return  # nobody changes a folder through a handle
        info = desk.open(f"/{path}", os.O_RDONLY)
    place.chmod(before)
    assert desk.files.chmod(f"/{path}" if by == "path" else None, mode, info) == 0
    assert stat.S_IMODE(place.stat().st_mode) == mode & 0o7777
    assert desk.told() == ([f"changed {path}"] if told else [])
    place.chmod(0o755)
    if info is not None:
        desk.close(info)


def test_the_root_stays_open_to_its_owner(desk: Desk) -> None:
    desk.files.chmod("/", 0o077)
    assert stat.S_IMODE(desk.work.stat().st_mode) == 0o577


def test_owners_are_not_changed(desk: Desk) -> None:
    user, group = os.getuid(), os.getgid()
    before = (desk.work / "d/a").stat().st_ctime_ns
    wait_until_certain([before])
    for ids in ((-1, -1), (user, -1), (-1, group), (user, group)):
        assert desk.files.chown("/d/a", *ids) == 0
    for ids in ((user + 1, -1), (-1, group + 1), (user, group + 1), (user + 1, group)):
        refused(errno.EPERM, lambda ids=ids: desk.files.chown("/d/a", *ids))
    assert (desk.work / "d/a").stat().st_ctime_ns > before, "as the system does"


def test_times(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, Any, bool]] = []

    def set_times(name: bytes, times: Any, *, dir_fd: int) -> None:
        asked.append((name, times, dir_fd == desk.host.work_fd))

    monkeypatch.setattr(tree, "set_times", set_times)
    assert desk.files.utimens("/d/a", "t") == 0
    assert asked == [(b"d/a", "t", True)]
    monkeypatch.undo()
    os.utime(desk.work / "d/a", ns=(1, 1))
    desk.files.utimens("/d/a", None)
    assert (desk.work / "d/a").stat().st_mtime_ns > 1
    (desk.work / "l").symlink_to("d/a")
    os.utime(desk.work / "d/a", ns=(1, 1))
    desk.files.utimens("/l", None)
    assert (desk.work / "d/a").stat().st_mtime_ns == 1, "a link's own"
    refused(errno.ENOENT, lambda: desk.files.utimens("/no", None))


def test_extended_attributes(desk: Desk) -> None:
    files = desk.files
    (desk.work / "bad.py").touch()
    assert files.getxattr("/d/a", "user.romfs.state") == b"ready"
    assert files.getxattr("/bad.py", "user.romfs.state") == b"failed"
    for path, name, number in (
        ("/no", "user.romfs.state", errno.ENOENT), ("/.romfs", "user.romfs.state", errno.ENODATA),
        (f"/{HIDDEN}", "user.romfs.state", errno.ENODATA), ("/d/a", "user.other", errno.ENODATA),
        ("/d/a", "security.capability", errno.ENOTSUP),
        ("/d/a", "system.posix_acl_access", errno.ENOTSUP),
    ):  # fmt: skip
        refused(number, lambda path=path, name=name: files.getxattr(path, name))
    assert files.listxattr("/d/a") == []
    refused(errno.ENOTSUP, lambda: files.setxattr("/d/a", "user.x", b"", 0))
    refused(errno.ENOTSUP, lambda: files.removexattr("/d/a", "user.x"))


# -- folders, and the whole


def test_listings(desk: Desk) -> None:
    (desk.work / "l").symlink_to("d")
    (desk.work / os.fsdecode(b"\xe9")).touch()
    folder, file = stat.S_IFDIR, stat.S_IFREG

    def number(name: str) -> int:
        return os.lstat(desk.work / name).st_ino

    handle = desk.files.opendir("/")
    found = desk.files.readdir(handle)
    assert found[:2] == [(b".", folder, number(".")), (b"..", folder, FIRST_HANDLE)]
    assert sorted(found[2:]) == sorted([
        (b"d", folder, number("d")), (b"b.bin", file, number("b.bin")), (b"l", file, number("l")),
        (b"\xe9", file, number(os.fsdecode(b"\xe9"))),
    ])  # fmt: skip
    synced: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", synced.append)
        desk.files.fsyncdir(None, 0, handle)
        desk.files.fsyncdir(None, 0, FIRST_HANDLE)
    assert synced == [handle]
    desk.files.releasedir(None, handle)
    refused(errno.EBADF, lambda: os.fstat(handle))
    for path, wrong in (("/b.bin", errno.ENOTDIR), ("/no", errno.ENOENT), ("/l", errno.ENOTDIR)):
        refused(wrong, lambda path=path: desk.files.opendir(path))
    handle = desk.files.opendir("/.romfs/base")
    (desk.host.state / "base/x").mkdir()
    assert handle >= FIRST_HANDLE
    assert desk.files.readdir(handle) == [
        (b".", folder, FIRST_HANDLE), (b"..", folder, FIRST_HANDLE),
    ]  # fmt: skip
    desk.files.releasedir(None, handle)
    handle = desk.files.opendir("/.romfs/base")
    assert desk.files.readdir(handle)[2:] == [(b"x", folder, FIRST_HANDLE)]
    desk.files.releasedir(None, handle)


@pytest.mark.parametrize(
    ("capacity", "used", "free"),
    [(10240, 1024, 18), (10240, 10240, 0), (10240, 99999, 0), (10241, 0, 20), (0, 0, 0)],
)
def test_what_df_shows(
    desk: Desk, capacity: int, used: int, free: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fstatvfs(desk.host.work_fd)
    monkeypatch.setattr(os, "fstatvfs", lambda fd: real)  # others use the disk meanwhile
    desk.host.settings |= {"capacity": capacity, "used": used}
    assert desk.files.statfs("/") == {
        "f_bsize": 512, "f_frsize": 512, "f_blocks": capacity // 512, "f_bfree": free,
        "f_bavail": min(free, real.f_bavail * real.f_frsize // 512), "f_files": real.f_files,
        "f_namemax": 255, **{name: getattr(real, name) for name in ("f_ffree", "f_favail")},
    }  # fmt: skip


def test_what_df_shows_of_a_full_disk_and_without_a_limit(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = SimpleNamespace(f_bsize=4096, f_frsize=1024, f_blocks=9, f_bfree=8, f_bavail=3,
                           f_files=7, f_ffree=6, f_favail=5)  # fmt: skip
    monkeypatch.setattr(os, "fstatvfs", lambda fd: real)
    assert desk.files.statfs("/") == {**vars(real), "f_namemax": 255}
    desk.host.settings |= {"capacity": 1 << 20, "used": 0}
    assert desk.files.statfs("/") == {
        **vars(real), "f_bsize": 512, "f_frsize": 512, "f_blocks": 2048, "f_bfree": 2048,
        "f_bavail": 6, "f_namemax": 255,
    }  # fmt: skip


def test_the_mount_s_beginning_and_end(tmp_path: Path) -> None:
    ready: list[str] = []
    desk = Desk(tmp_path / "state", ready=lambda: ready.append("ready"))
    (desk.hidden / HIDDEN).touch()
    desk.files.init("/")
    assert ready == ["ready"]
    desk.files.destroy("/")
    assert os.listdir(desk.hidden) == []
    desk.host.close()
