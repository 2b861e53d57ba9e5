"""What programs rely on, call by call: the plain directory's own behaviour, and what is refused."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import mmap
import os
import shutil
import stat
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fake_host import FakeHost
from mounts import Mounted
from processes import until

from romfsfs.fs.adapter import Adapter
from romfsfs.system.files import sync_file_system


@contextlib.contextmanager
def refused(*numbers: int) -> Iterator[None]:
    with pytest.raises(OSError) as caught:  # noqa: PT011 (errno says which)
        yield
    assert caught.value.errno in numbers, caught.value


def test_a_created_file_can_be_read_and_mapped_through_its_own_handle(mounted: Mounted) -> None:
    fd = os.open(mounted.mnt / "f", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o444)
    os.write(fd, b"hello")
    assert os.pread(fd, 9, 0) == b"hello"
    os.ftruncate(fd, 8192)
    with mmap.mmap(fd, 8192) as shared:
        shared[8000:8003] = b"end"
        shared.flush()
    os.fchmod(fd, 0o600)
    os.utime(fd, ns=(1, 2))
    os.fsync(fd)
    os.close(fd)
    assert (mounted.work / "f").read_bytes()[8000:8003] == b"end"
    assert (mounted.mnt / "f").stat().st_mtime_ns == 2


def test_what_a_program_syncs_is_synced_below(mounted: Mounted) -> None:
    """Editors and sqlite trust it: each sync is one of the same file, with what was written."""
    (mounted.mnt / "lib").mkdir()
    fd = os.open(mounted.mnt / "lib/f", os.O_RDWR | os.O_CREAT)
    folder = os.open(mounted.mnt / "lib", os.O_RDONLY | os.O_DIRECTORY)
    os.write(fd, bytes(100))
    os.fsync(fd)
    os.write(fd, bytes(100))
    os.fdatasync(fd)
    os.fsync(folder)
    lines = (mounted.state / "synced").read_text().splitlines()
    assert lines[:2] == ["fsync work/lib/f 100", "fdatasync work/lib/f 200"]
    assert lines[2].startswith("fsync work/lib ")
    assert len(lines) == 3
    os.close(fd)
    os.close(folder)


def test_sparse_files_stay_sparse(mounted: Mounted) -> None:
    with (mounted.mnt / "f").open("wb") as file:
        file.seek(10 << 20)
        file.write(b"x")
    found = (mounted.mnt / "f").stat()
    assert found.st_size == (10 << 20) + 1
    assert found.st_blocks * 512 < 1 << 20
    assert found.st_ino == (mounted.work / "f").stat().st_ino
    with (mounted.mnt / "f").open("rb") as file:
        assert file.read(5) == bytes(5)


def test_space_is_allocated_in_one_request(mounted: Mounted) -> None:
    """glibc read and wrote a byte of every block, and who had opened to write only got EBADF."""
    (mounted.work / "f").write_bytes(b"data")
    fd = os.open(mounted.mnt / "f", os.O_WRONLY)
    os.posix_fallocate(fd, 2, 1 << 20)
    os.close(fd)
    found = (mounted.work / "f").stat()
    assert found.st_size == (mounted.mnt / "f").stat().st_size == (1 << 20) + 2
    assert found.st_blocks * 512 >= 1 << 20
    assert (mounted.mnt / "f").read_bytes()[:6] == b"data\0\0"
    control = os.open(mounted.mnt / ".romfs/ctl", os.O_WRONLY)
    libc, place = ctypes.CDLL(None, use_errno=True), (ctypes.c_int64(0), ctypes.c_int64(9))
    assert libc.fallocate64(control, 0, *place) == -1
    assert ctypes.get_errno() == errno.EOPNOTSUPP
    os.close(control)


def test_truncating_an_existing_file_keeps_its_beginning(mounted: Mounted) -> None:
    (mounted.work / "f").write_bytes(b"0123456789")
    os.truncate(mounted.mnt / "f", 4)
    assert (mounted.mnt / "f").read_bytes() == b"0123"
    with (mounted.mnt / "f").open("r+b") as file:
        file.truncate(2)
    assert (mounted.work / "f").read_bytes() == b"01"
    (mounted.mnt / "f").open("wb").close()
    assert (mounted.work / "f").read_bytes() == b""


def test_append_then_rename_leaves_only_the_new_name(mounted: Mounted) -> None:
    (mounted.work / "old").write_text("a")
    with (mounted.mnt / "old").open("a") as file:
        file.write("b")
    (mounted.mnt / "old").rename(mounted.mnt / "new")
    assert os.listdir(mounted.mnt) == ["new"]
    assert (mounted.mnt / "new").read_text() == "ab"


def test_appending_from_two_handles_loses_nothing(mounted: Mounted) -> None:
    with (mounted.mnt / "f").open("ab", 0) as one, (mounted.mnt / "f").open("ab", 0) as two:
        for _ in range(10):
            one.write(b"1")
            two.write(b"2")
    assert (mounted.work / "f").read_bytes() == b"12" * 10


def test_a_renamed_folder_takes_its_open_files_along(mounted: Mounted) -> None:
    (mounted.mnt / "a/b").mkdir(parents=True)
    with (mounted.mnt / "a/b/f").open("w") as file:
        file.write("before ")
        file.flush()
        (mounted.mnt / "a").rename(mounted.mnt / "z")
        (mounted.mnt / ".romfs/ctl").write_text("who\n")
        file.write("after")
    assert (mounted.mnt / "z/b/f").read_text() == "before after"
    assert os.listdir(mounted.mnt) == ["z"]
    assert 'control who ["z/b/f"]' in mounted.calls()
    assert mounted.changes()[-1] == "z/b/f"


def test_renaming_onto_a_folder_that_is_not_empty_is_refused(mounted: Mounted) -> None:
    (mounted.mnt / "a").mkdir()
    (mounted.mnt / "full").mkdir()
    (mounted.mnt / "full/f").touch()
    (mounted.mnt / "file").touch()
    with refused(errno.ENOTEMPTY):
        (mounted.mnt / "a").rename(mounted.mnt / "full")
    with refused(errno.ENOTEMPTY):
        (mounted.mnt / "full").rmdir()
    with refused(errno.ENOTDIR):
        (mounted.mnt / "a").rename(mounted.mnt / "file")
    with refused(errno.EISDIR):
        (mounted.mnt / "file").rename(mounted.mnt / "a")
    assert sorted(os.listdir(mounted.mnt)) == ["a", "file", "full"]


def test_two_files_change_places_or_nothing_happens(mounted: Mounted) -> None:
    (mounted.mnt / "a").write_text("1")
    (mounted.mnt / "b").write_text("2")
    python = (
        "import ctypes, sys; libc = ctypes.CDLL(None, use_errno=True)\n"
        "code = libc.renameat2(-100, b'a', -100, b'b', ctypes.c_uint(int(sys.argv[1])))\n"
        "print(ctypes.get_errno() if code else 0)"
    )
    assert int(mounted.run("python3", "-c", python, 1, cwd=mounted.mnt)) == errno.EEXIST
    code = int(mounted.run("python3", "-c", python, 2, cwd=mounted.mnt))
    got = (mounted.mnt / "a").read_text() + (mounted.mnt / "b").read_text()
    assert (code, got) in [(0, "21"), (errno.EINVAL, "12")]  # libfuse 2 knows no such call


def test_a_file_renamed_over_while_open_stays_readable(mounted: Mounted) -> None:
    (mounted.mnt / "f").write_text("old")
    with (mounted.mnt / "f").open() as old:
        (mounted.mnt / "new").write_text("new")
        (mounted.mnt / "new").replace(mounted.mnt / "f")
        assert old.read() == "old"
        assert os.listdir(mounted.mnt) == ["f"]
    assert (mounted.mnt / "f").read_text() == "new"


def test_an_unlinked_open_file_is_nowhere_and_still_works(mounted: Mounted) -> None:
    (mounted.mnt / "d").mkdir()
    with (mounted.mnt / "d/f").open("w+b", 0) as file:
        file.write(b"secret")
        (mounted.mnt / "d/f").unlink()
        assert os.listdir(mounted.mnt / "d") == []
        assert os.listdir(mounted.work / "d") == []
        assert os.fstat(file.fileno()).st_nlink == 0
        (mounted.mnt / ".romfs/ctl").write_text("who\n")
        (mounted.mnt / "d").rename(mounted.mnt / "e")
        (mounted.mnt / "e").rmdir()
        file.write(b" stays")
        assert os.pread(file.fileno(), 99, 0) == b"secret stays"
        assert len(os.listdir(mounted.state / "hidden")) == 1
    until(lambda: not os.listdir(mounted.state / "hidden"))
    assert "control who []" in mounted.calls()
    assert not any("fuse_hidden" in call for call in mounted.calls())


def test_names_that_are_libfuses_own_cannot_be_made(mounted: Mounted) -> None:
    name = mounted.mnt / ".fuse_hidden0000000700000001"
    with refused(errno.EPERM):
        name.touch()
    with refused(errno.EPERM):
        name.mkdir()
    (mounted.mnt / "d").mkdir()
    with refused(errno.EPERM):
        (mounted.mnt / "d").rename(name)
    (mounted.mnt / ".fuse_hidden").touch()  # close to it, but an ordinary name
    assert sorted(os.listdir(mounted.mnt)) == [".fuse_hidden", "d"]
    # What libfuse does to a file whose last close comes while it is removed: nothing may stay.
    (mounted.mnt / ".fuse_hidden").rename(name)
    assert os.listdir(mounted.state / "hidden") == []
    with (mounted.mnt / "open").open("wb") as file:
        (mounted.mnt / "open").rename(name)
        assert os.listdir(mounted.state / "hidden") == [name.name]
        file.write(b"x")
    until(lambda: not os.listdir(mounted.state / "hidden"))


def test_an_image_may_hold_a_name_like_libfuses_own(mounted: Mounted, tmp_path: Path) -> None:
    """It was listed, but could be neither read nor removed, and so its folder could not go."""
    name = ".fuse_hidden0000002a00000001"
    (mounted.work / "d").mkdir()
    (mounted.work / "d" / name).write_bytes(b"from elsewhere")
    subprocess.run(["cp", "-a", mounted.mnt / "d", tmp_path / "copy"], check=True)
    assert (tmp_path / "copy" / name).read_bytes() == b"from elsewhere"
    file = mounted.mnt / "d" / name
    assert file.stat().st_nlink == 1
    with file.open("r+b") as opened:
        opened.write(b"read")
        file.rename(mounted.mnt / "d/better")
        (mounted.mnt / "d/better").rename(file)
    assert (mounted.work / "d" / name).read_bytes() == b"read elsewhere"
    with file.open("rb") as opened:
        shutil.rmtree(mounted.mnt / "d")
        assert os.listdir(mounted.mnt) == os.listdir(mounted.work) == []
        assert opened.read() == b"read elsewhere"
    assert mounted.calls() == [
        f"changed d/{name}", "changed d/better", "changed d/better", f"changed d/{name}",
        f"changed d/{name}", f"changed d/{name}", "changed d",
    ]  # fmt: skip


def test_what_is_removed_the_moment_it_was_closed_is_removed_once(tmp_path: Path) -> None:
    """libfuse before 3.17 forgets such a file, so that we remove it; since then it removes it
    itself, and was told that it is not there: rm(1) of a file that it had removed failed."""
    host = FakeHost(tmp_path)
    adapter = Adapter(host)
    name = "/.fuse_hidden0000000700000001"
    (tmp_path / "work/f").touch()
    assert adapter.rename("/f", name) == 0
    assert os.listdir(tmp_path / "hidden") == []
    assert adapter.unlink(name) == 0
    with refused(errno.ENOENT):
        adapter.unlink("/f")
    host.close()


def test_nothing_is_kept_of_a_folder_of_the_control_directory(tmp_path: Path) -> None:
    """A desktop looks at `.romfs` for months."""
    host = FakeHost(tmp_path)
    adapter = Adapter(host)
    for _ in range(3):
        handle = adapter.opendir("/.romfs")
        assert adapter.readdir(handle)
        assert adapter.releasedir("/.romfs", handle) == 0
        with pytest.raises(KeyError):  # nor does the kernel ask
            adapter.readdir(handle)
    host.close()


def test_files_come_and_go_quickly(mounted: Mounted) -> None:
    """Each close is still on its way when the name goes."""
    path = mounted.mnt / "f"
    for _ in range(300):
        path.write_bytes(b"x")
        os.close(os.open(path, os.O_RDWR))
        path.unlink()
    assert os.listdir(mounted.mnt) == []


def test_times_are_kept_to_the_nanosecond_and_one_may_stay(mounted: Mounted) -> None:
    path = mounted.mnt / "f"
    path.touch()
    os.utime(path, ns=(1_600_000_000_123_456_789, -1_000_000_001))
    found = path.stat()
    assert (found.st_atime_ns, found.st_mtime_ns) == (1_600_000_000_123_456_789, -1_000_000_001)
    mounted.run("touch", "-m", "-d", "@1700000000.5", path)
    found = path.stat()
    assert (found.st_atime_ns, found.st_mtime_ns) == (
        1_600_000_000_123_456_789,
        17 * 10**17 + 5 * 10**8,
    )
    before = time.time_ns() - 10**9
    mounted.run("touch", "-a", path)
    assert path.stat().st_atime_ns > before
    assert path.stat().st_mtime_ns == 17 * 10**17 + 5 * 10**8


def test_odd_names_and_long_paths(mounted: Mounted) -> None:
    odd = os.fsencode(mounted.mnt) + b"/\xff\xfe\n \xc3\xa9.py"
    Path(os.fsdecode(odd)).write_text("x")
    assert os.listdir(os.fsencode(mounted.mnt)) == [b"\xff\xfe\n \xc3\xa9.py"]
    assert os.fsencode(mounted.changes()[0].partition("\n")[0]) == b"\xff\xfe"
    os.unlink(odd)
    with refused(errno.ENAMETOOLONG):
        (mounted.mnt / ("n" * 256)).touch()
    here = os.open(mounted.mnt, os.O_RDONLY)
    opened = [here]
    for _ in range(20):  # 5,120 bytes: more than one call can take
        os.mkdir("d" * 255, dir_fd=here)
        here = os.open("d" * 255, os.O_RDONLY, dir_fd=here)
        opened.append(here)
    for name in ("f", "g"):
        os.close(os.open(name, os.O_CREAT | os.O_WRONLY, dir_fd=here))
    os.rename("g", "h", src_dir_fd=here, dst_dir_fd=here)
    assert sorted(os.listdir(here)) == ["f", "h"]
    os.utime("f", ns=(5, 5), dir_fd=here)
    assert os.stat("f", dir_fd=here).st_mtime_ns == 5
    for fd in opened:
        os.close(fd)
    mounted.run("rm", "-r", mounted.mnt / ("d" * 255))


def test_the_partition_in_numbers(place: Mounted) -> None:
    place.settings(capacity=8 << 20, used=(1 << 20) + 1)
    place.mount()
    found = os.statvfs(place.mnt)
    assert found.f_namemax == 255
    assert found.f_blocks * found.f_frsize == 8 << 20
    assert found.f_bavail * found.f_frsize == (7 << 20) - 512
    assert found.f_ffree > 0


def test_no_more_is_free_than_the_disk_of_the_state_has(place: Mounted) -> None:
    place.settings(capacity=1 << 60, used=1 << 20)
    place.mount()
    found, disk = os.statvfs(place.mnt), os.statvfs(place.work)
    assert found.f_bfree * found.f_frsize == (1 << 60) - (1 << 20)
    assert found.f_bavail * found.f_frsize <= disk.f_blocks * disk.f_frsize


def test_without_a_capacity_the_disk_shows(mounted: Mounted) -> None:
    assert os.statvfs(mounted.mnt).f_blocks == os.statvfs(mounted.work).f_blocks > 0


def test_a_write_beyond_the_files_limit_gets_enospc(place: Mounted) -> None:
    place.settings(limits={"model.bin": 100})
    place.mount()
    with (place.mnt / "model.bin").open("wb", 0) as file:
        file.write(bytes(100))
        with refused(errno.ENOSPC):
            file.write(b"x")
        with refused(errno.EFBIG):
            file.truncate(101)
        with refused(errno.ENOSPC):
            os.posix_fallocate(file.fileno(), 1, 100)
        os.posix_fallocate(file.fileno(), 0, 100)
    with refused(errno.EFBIG):
        os.truncate(place.mnt / "model.bin", 101)
    with (place.mnt / "part").open("wb", 0) as file:
        file.write(bytes(99))
        (place.mnt / "part").rename(place.mnt / "model.bin")
        file.write(b"x")
        with refused(errno.ENOSPC):
            file.write(b"x")
        (place.mnt / "model.bin").rename(place.mnt / "free")
        file.write(b"x")
    assert (place.mnt / "free").stat().st_size == 101


def test_what_a_removed_file_took_another_may_have(place: Mounted) -> None:
    """Also where it was refused before: the tree is counted again."""
    one, two = place.mnt / "one.bin", place.mnt / "two.bin"
    place.settings(limits={"one.bin": 100, "two.bin": 100})
    place.mount()
    one.write_bytes(bytes(60))
    with two.open("wb", 0) as file:
        file.write(bytes(40))
        with refused(errno.ENOSPC):
            file.write(b"x")
        one.unlink()
        file.write(bytes(60))
    assert two.stat().st_size == 100


def test_files_that_are_too_large_together_get_enospc(place: Mounted) -> None:
    """What files take for certain is counted together, and what one gives up another may have."""
    one, two, other = (place.mnt / name for name in ("one.bin", "two.bin", "model.py"))
    place.settings(limits={"one.bin": 100, "two.bin": 100})
    place.mount()
    one.write_bytes(bytes(60))
    with two.open("wb", 0) as file:
        file.write(bytes(40))
        for refusal in range(3):
            with refused(errno.ENOSPC):
                file.write(b"x")
            with refused(errno.ENOSPC):
                file.truncate(41 + refusal)
            with refused(errno.ENOSPC):
                os.posix_fallocate(file.fileno(), 0, 41)
        assert place.calls().count("counted") == 2, "nothing had changed: not counted again"
        other.write_bytes(bytes(1000))  # not stored as it is: nothing is certain
        file.seek(0)
        file.write(bytes(40))
        os.truncate(one, 59)
        file.write(b"x")
        with refused(errno.ENOSPC):
            file.write(b"x")
        one.write_bytes(bytes(58))
        file.write(b"x")
        one.rename(place.mnt / "elsewhere")
        file.write(bytes(58))
        with refused(errno.ENOSPC):
            (place.mnt / "elsewhere").rename(one)
            with one.open("ab", 0) as again:
                again.write(b"x")
        one.unlink()
        one.write_bytes(b"")
    two.unlink()
    one.write_bytes(bytes(100))
    before = place.calls().count("counted")
    for _ in range(5):
        one.write_bytes(bytes(100))
    assert place.calls().count("counted") == before, "what is cut off is room, without a count"


@pytest.mark.parametrize("options", [(), ("-o", "noatime")])
def test_reading_changes_access_times_unless_told_not_to(
    place: Mounted, options: tuple[str, ...]
) -> None:
    place.mount(*options)
    file, folder = place.mnt / "a.txt", place.mnt / "lib"
    file.write_bytes(b"a")
    folder.mkdir()
    for path in (file, folder):
        os.utime(path, ns=(5, 6))
    assert file.read_bytes() == b"a"
    assert list(folder.iterdir()) == []
    times = [(place.work / path.name).stat().st_atime_ns for path in (file, folder)]
    assert times == [5, 5] if options else min(times) > 5


def test_a_read_only_mount_refuses_every_change(place: Mounted) -> None:
    place.work.mkdir()
    (place.work / "f").write_text("x")
    place.settings(read_only=True)
    place.mount()
    assert (place.mnt / "f").read_text() == "x"
    for change in (
        lambda: (place.mnt / "f").open("w"),
        lambda: (place.mnt / "new").touch(),
        lambda: (place.mnt / "d").mkdir(),
        lambda: (place.mnt / "f").unlink(),
        lambda: (place.mnt / "f").rename(place.mnt / "g"),
        lambda: (place.mnt / "f").chmod(0o600),
        lambda: os.utime(place.mnt / "f"),
        lambda: os.truncate(place.mnt / "f", 0),
    ):
        with refused(errno.EROFS):
            change()
    assert not os.access(place.mnt / "f", os.W_OK)


def test_the_state_of_a_file_is_an_attribute_that_is_not_carried_along(mounted: Mounted) -> None:
    (mounted.mnt / "bad.py").touch()
    assert os.getxattr(mounted.mnt / "bad.py", "user.romfs.state") == b"failed"
    assert os.listxattr(mounted.mnt / "bad.py") == []
    for name, number in (("user.other", errno.ENODATA), ("security.x", errno.ENOTSUP)):
        with refused(number):
            os.getxattr(mounted.mnt / "bad.py", name)
    with refused(errno.ENOTSUP):
        os.setxattr(mounted.mnt / "bad.py", "user.x", b"1")


def test_the_session_hears_of_each_change_once_per_close(mounted: Mounted) -> None:
    def since(count: int) -> list[str]:
        return mounted.changes()[count:]

    with (mounted.mnt / "a").open("wb", 0) as file:
        for _ in range(5):
            file.write(b"x")
    assert since(0) == ["a"]  # close(2) has returned: it is known
    (mounted.mnt / "a").read_bytes()
    (mounted.mnt / "a").chmod(0o600)
    assert since(1) == []
    (mounted.mnt / "d").mkdir()
    (mounted.mnt / "a").rename(mounted.mnt / "d/b")
    os.truncate(mounted.mnt / "d/b", 1)
    (mounted.mnt / "d/b").unlink()
    (mounted.mnt / "d").rmdir()
    assert since(1) == ["d", "a", "d/b", "d/b", "d/b", "d"]
    os.mknod(mounted.mnt / "n", stat.S_IFREG | 0o600)
    assert since(7) == ["n"]
    with (mounted.mnt / "n").open("r+b", 0) as file:
        os.ftruncate(file.fileno(), 7)  # and nothing else
    assert since(8) == ["n"]


def test_the_session_hears_of_what_can_no_longer_be_read(mounted: Mounted) -> None:
    """And of what can again. Whether a file may be executed changes nothing of it."""
    (mounted.mnt / "d").mkdir()
    (mounted.mnt / "d/f").write_text("x")
    for path, mode in (("d/f", 0o744), ("d/f", 0o300), ("d/f", 0o600), ("d", 0o600), ("d", 0o700)):
        (mounted.mnt / path).chmod(mode)
    with (mounted.mnt / "d/f").open() as file:
        for mode in (0o700, 0o200):
            os.fchmod(file.fileno(), mode)
    assert mounted.changes()[2:] == ["d/f", "d/f", "d", "d", "d/f"]


def test_a_link_put_there_by_hand_does_not_hide_the_others(mounted: Mounted) -> None:
    (mounted.mnt / "file").touch()
    (mounted.work / "circle").symlink_to("circle")
    assert sorted(os.listdir(mounted.mnt)) == ["circle", "file"]


def test_many_open_files_leave_no_descriptor_behind(mounted: Mounted) -> None:
    before = mounted.open_descriptors()
    files = [(mounted.mnt / f"f{number}").open("w+") for number in range(64)]
    for number, file in enumerate(files):
        file.write(str(number))
        file.flush()
    for number, file in enumerate(files):
        file.seek(0)
        assert file.read() == str(number)
        file.close()
    for number in range(64):
        (mounted.mnt / f"f{number}").unlink()
        os.listdir(mounted.mnt)
    # Fewer: the pipe to who mounted may have been open at the first count.
    until(lambda: mounted.open_descriptors() <= before)


def test_ten_thousand_files_in_a_folder(mounted: Mounted) -> None:
    (mounted.work / "many").mkdir()
    for number in range(10000):
        (mounted.work / f"many/file{number}").touch()
    names = {f"file{number}" for number in range(10000)}
    assert set(os.listdir(mounted.mnt / "many")) == names
    with os.scandir(mounted.mnt / "many") as entries:
        assert {entry.name for entry in entries if entry.is_file()} == names
    mounted.run("rm", "-r", mounted.mnt / "many")
    assert os.listdir(mounted.work) == []


def test_writers_at_the_same_time(mounted: Mounted) -> None:
    block = 4096
    with (mounted.mnt / "shared").open("wb") as file:
        file.truncate(8 * 50 * block)

    def write(writer: int) -> None:
        fd = os.open(mounted.mnt / "shared", os.O_WRONLY)
        for turn in range(50):
            os.pwrite(fd, bytes([writer]) * block, (turn * 8 + writer) * block)
        os.close(fd)
        for turn in range(20):
            path = mounted.mnt / f"w{writer}-{turn}"
            path.write_text("x")
            path.rename(mounted.mnt / f"done{writer}-{turn}")

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    data = (mounted.work / "shared").read_bytes()
    assert all(data[at * block : (at + 1) * block] == bytes([at % 8]) * block for at in range(400))
    assert len(os.listdir(mounted.mnt)) == 161


def test_pages_that_come_late_do_not_make_a_file_longer(mounted: Mounted) -> None:
    """A file is cut off while the kernel writes back what a mapping of it has changed."""
    path, size, ended = mounted.mnt / "f", 64 << 10, threading.Event()

    def sync() -> None:
        while not ended.is_set():
            sync_file_system(mounted.mnt)

    with ThreadPoolExecutor(2) as beside:
        syncing = [beside.submit(sync) for _ in range(2)]
        try:
            for _ in range(200):
                path.write_bytes(bytes(size))
                with path.open("r+b") as file, mmap.mmap(file.fileno(), size) as mapping:
                    mapping[size // 2 :] = b"z" * (size // 2)
                    path.write_bytes(b"new")
                assert (mounted.work / "f").read_bytes() == b"new"
        finally:
            ended.set()
    for each in syncing:
        each.result()


def test_memory_and_threads_stay_flat(mounted: Mounted) -> None:
    def status(key: str) -> int:
        text = Path(f"/proc/{mounted.pid}/status").read_text()
        return next(int(line.split()[1]) for line in text.splitlines() if line.startswith(key))

    with (mounted.mnt / "big").open("wb", 0) as file:
        for _ in range(4):
            subprocess.run(
                ["dd", "if=/dev/zero", "bs=1M", "count=64", "conv=notrunc", "status=none"],
                stdout=file, check=True, timeout=60,
            )  # fmt: skip
            file.seek(0)
    assert status("VmHWM") < 80 << 10
    assert status("Threads") <= 16
