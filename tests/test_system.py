"""What `system/` does with files, folders and programs, in whole results."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import io
import os
import random
import re
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import needs
import pytest

from romfsfs.errors import RomfsError, UsageError
from romfsfs.system import (
    beside,
    clock,
    copying,
    errors,
    files,
    mount_table,
    private,
    programs,
    removal,
    user_folders,
)
from romfsfs.system import environment as variables
from romfsfs.system.beside import Beside, Cancel
from romfsfs.system.runner import (
    HEAD_BYTES,
    TAIL_BYTES,
    Limits,
    Outcome,
    _Capture,
    environment,
    made_file,
    run_tool,
)

DATA = random.Random(1).randbytes((2 << 20) + 5000)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data"
    path.write_bytes(DATA)
    return path


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize(
    ("offset", "size"),
    [
        (0, None), (5, None), (0, 0), (0, 1), (0, files.SMALL - 1), (0, files.SMALL),
        (7, files.SMALL + 1), (0, files.CHUNK), (9, files.CHUNK + 1), (0, len(DATA)),
        (0, len(DATA) + 9), (len(DATA) - 3, 100), (len(DATA), None),
    ],
)  # fmt: skip
def test_digests_of_any_part_of_a_file(data: Path, offset: int, size: int | None) -> None:
    end = len(DATA) if size is None else offset + size
    with files.opened(data) as fd:
        os.lseek(fd, 3, os.SEEK_SET)
        assert files.digest_fd(fd, offset, size) == sha(DATA[offset:end])
        assert os.lseek(fd, 0, os.SEEK_CUR) == 3
    if size is None and not offset:
        assert files.digest_file(data) == files.digest_bytes(DATA) == sha(DATA)


@pytest.mark.parametrize("size", [0, 1, files.CHUNK, files.CHUNK + 1, len(DATA) - 7])
def test_a_range_is_copied_and_digested(data: Path, tmp_path: Path, size: int) -> None:
    with files.opened(data) as fd, (tmp_path / "copy").open("wb", buffering=0) as out:
        out.write(b"before")
        assert copying.copy_range(fd, 7, size, out.fileno()) == sha(DATA[7 : 7 + size])
    assert (tmp_path / "copy").read_bytes() == b"before" + DATA[7 : 7 + size]


def test_a_source_that_ends_early(data: Path, tmp_path: Path) -> None:
    for size in (10, files.CHUNK + 10):
        with files.opened(data) as fd, (tmp_path / "copy").open("wb", buffering=0) as out:
            with pytest.raises(OSError, match="the source ended early") as caught:
                copying.copy_range(fd, len(DATA) - size + 1, size, out.fileno())
            assert caught.value.errno == errno.EIO


def test_a_write_that_takes_a_little_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[bytes] = []

    def write(fd: int, piece: bytes | memoryview) -> int:
        taken.append(bytes(piece)[:3])
        return len(taken[-1])

    monkeypatch.setattr(os, "write", write)
    copying.write_all(9, b"abcdefgh")
    assert taken == [b"abc", b"def", b"gh"]


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (None, None), (0, 0), ((256 << 10) - 1, 0), (256 << 10, 256 << 10),
        (len(DATA) - 10, (len(DATA) - 10) // (256 << 10) * (256 << 10)), (-1, None),
    ],
)  # fmt: skip
def test_where_two_files_differ(
    data: Path, tmp_path: Path, change: int | None, found: int | None
) -> None:
    other = bytearray(b"x" * 9 + DATA)
    if change is not None:
        other[9 + change if change >= 0 else 0] ^= 1
    (tmp_path / "other").write_bytes(other)
    with files.opened(data) as one, files.opened(tmp_path / "other") as two:
        assert copying.difference(one, 0, two, 9, len(DATA)) == found
        if change is None:
            assert copying.difference(one, 0, two, 9, len(DATA) + 1) == len(DATA) // (256 << 10) * (
                256 << 10
            )
            assert copying.difference(one, 1, two, 10, 0) is None


@pytest.mark.parametrize(
    ("content", "offset", "byte"),
    [
        (b"", 0, None), (b"\xff", 0, 0xFF), (b"\0" * 17, 0, 0), (b"\xff" * 16 + b"\xfe", 0, None),
        (b"\xff" * 15 + b"\xfe", 0, None), (b"a" + b"\xff" * 20, 1, 0xFF), (b"\xff" * 9, 9, None),
        (b"\xff" * (files.CHUNK + 17), 0, 0xFF), (b"\xff" * (files.CHUNK + 16) + b"a", 0, None),
    ],
)  # fmt: skip
def test_the_byte_that_fills_a_file(
    tmp_path: Path, content: bytes, offset: int, byte: int | None
) -> None:
    (tmp_path / "file").write_bytes(content)
    with files.opened(tmp_path / "file") as fd:
        assert copying.fill_byte(fd, offset) == byte


@pytest.mark.parametrize("size", [-1, 0, 1, files.CHUNK, files.CHUNK + 1])
def test_a_fill(size: int) -> None:
    out = io.BytesIO()
    copying.fill(out, 0xA5, size)
    assert out.getvalue() == b"\xa5" * max(0, size)


@pytest.mark.skipif(not needs.LINUX, reason="this system's kernel copies none")
def test_what_the_kernel_copies(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, asked = os.copy_file_range, []

    def copy(source: int, target: int, count: int, at: int, to: int) -> int:
        asked.append((count, at, to))
        return real(source, target, min(count, 1 << 20), at, to)

    monkeypatch.setattr(os, "copy_file_range", copy)
    with files.opened(data) as fd, (tmp_path / "copy").open("w+b") as out:
        assert copying.copy_in_kernel(fd, 5, out.fileno(), 3, (1 << 20) + 9) == (1 << 20) + 9
        assert asked == [((1 << 20) + 9, 5, 3), (9, (1 << 20) + 5, (1 << 20) + 3)]
        assert out.read() == b"\0" * 3 + DATA[5 : (1 << 20) + 14]
        assert copying.copy_in_kernel(fd, len(DATA) - 2, out.fileno(), 0, 9) == 2
        assert copying.copy_in_kernel(fd, 0, out.fileno(), 0, 0) == 0

        def refusing(number: int) -> Callable[..., int]:
            def refuse(*_: int) -> int:
                raise OSError(number, os.strerror(number))

            return refuse

        for number in (errno.ENOSYS, errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.EBADF,
                       errno.EPERM):  # fmt: skip
            monkeypatch.setattr(os, "copy_file_range", refusing(number))
            assert copying.copy_in_kernel(fd, 0, out.fileno(), 0, 9) == 0
        monkeypatch.setattr(os, "copy_file_range", refusing(errno.EIO))
        with pytest.raises(OSError, match="Input"):
            copying.copy_in_kernel(fd, 0, out.fileno(), 0, 9)


@pytest.mark.parametrize(
    ("named", "names", "synced"),
    [
        ([], [], []),
        (["a/b"], [], ["a/b"]),
        (["b", "a"], ["a/b/c", "d"], ["a", "b", "a/b", "a", ""]),
        (["gone/x"], [], ["gone/x"]),
        ([str(number) for number in range(24)], [], sorted(map(str, range(24)))),
        ([str(number) for number in range(25)], [], ["all"]),
        (["a" * 1000], [], ["a" * 1000]),
        (["a" * 1001], [], ["all"]),
        ([], ["b/" + "a" * 1001], ["b", ""]),
    ],
)
def test_what_is_synced(
    monkeypatch: pytest.MonkeyPatch, named: list[str], names: list[str], synced: list[str]
) -> None:
    """Files, and the folders that got names, from the deepest up; many are synced all at once."""
    done: list[str] = []

    def sync(path: str, flags: int) -> None:
        assert flags == os.O_NOFOLLOW | os.O_NONBLOCK
        done.append(os.path.relpath(path, "/root") if path != "/root/" else "")
        if "gone" in path:
            raise FileNotFoundError

    monkeypatch.setattr(files, "_sync", sync)
    monkeypatch.setattr(files, "sync_file_system", lambda path: done.append("all"))
    files.sync_paths("/root", named, names)
    assert done == synced


def test_errors_name_the_file_that_they_are_of() -> None:
    for given, name in ((None, "mine"), ("its own", "its own")):
        with pytest.raises(OSError, match="bad") as caught, files.named(Path("mine")):
            raise OSError(5, "bad", given)
        assert caught.value.filename == name


def test_a_lock_that_others_have_for_a_while(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.touch()
    with files.opened(path) as one, files.opened(path) as two:
        assert files.lock_within(one, 0)
        assert not files.lock_within(two, 0)
        assert not files.lock_within(two, 0.02)
        freed = threading.Timer(0.05, fcntl.flock, [one, fcntl.LOCK_UN])
        freed.start()
        assert files.lock_within(two, 60)
        freed.join()


def test_what_a_killed_process_left_goes_with_the_next_success(tmp_path: Path) -> None:
    """Of this file alone, and nothing that only looks alike; never a file that is being written."""
    left = [f"{stem}.romfsfs-{'0' * 16}.tmp" for stem in ("a", "b")]
    alike = ["a.tmp", "a.romfsfs-0.tmp", f"a.romfsfs-{'g' * 16}.tmp", f".romfsfs-{'0' * 16}.tmp"]
    for name in (*left, *alike):
        (tmp_path / name).touch()
    (tmp_path / f"a.romfsfs-{'1' * 16}.tmp").mkdir()
    with files.replace_atomically(tmp_path / "a") as file:
        file.write(b"new")
    assert sorted(os.listdir(tmp_path)) == sorted([
        "a", left[1], *alike, f"a.romfsfs-{'1' * 16}.tmp",
    ])  # fmt: skip
    with files.opened(tmp_path / left[1]) as fd:
        fcntl.flock(fd, fcntl.LOCK_EX)
        files.remove_temporaries(tmp_path)
        assert left[1] in os.listdir(tmp_path)
    files.remove_temporaries(tmp_path)
    assert left[1] not in os.listdir(tmp_path)


def test_a_file_is_replaced_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    steps: list[str] = []
    monkeypatch.setattr(files, "sync_dir", lambda folder: steps.append(f"folder {folder}"))
    monkeypatch.setattr(os, "fsync", lambda fd: steps.append("file"))
    for durable in (True, False):
        with files.replace_atomically(path, 0o640, durable=durable) as file:
            file.write(b"new")
            assert len(os.listdir(tmp_path)) == (1 if durable else 2)
        assert path.read_bytes() == b"new"
        assert path.stat().st_mode & 0o777 == 0o640
        assert steps == ["file", f"folder {tmp_path}"], "not where it need not be durable"
    with pytest.raises(ZeroDivisionError), files.replace_atomically(path) as file:
        file.write(b"half" * (1 // 0))
    assert (path.read_bytes(), os.listdir(tmp_path)) == (b"new", ["file"])
    monkeypatch.chdir(tmp_path)
    with files.replace_atomically("here") as file:
        file.write(b"1")
    assert steps[-1] == "folder ."
    assert Path("here").stat().st_mode & 0o777 == 0o600


def test_what_is_no_plain_file_is_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "file")
    for path in (tmp_path / "file", tmp_path / "link", tmp_path / "none"):
        files.check_plain(path)
    for path in (Path("/dev/null"), tmp_path / "fifo", tmp_path):
        with pytest.raises(RomfsError) as caught:
            files.check_plain(path)
        assert caught.value.line == (
            f"neither a file nor a camera ({path}); give the name of a file; '-' is standard "
            "input or output"
        )
    with pytest.raises(RomfsError, match="neither a file nor a camera"):
        files.replace_atomically(tmp_path / "fifo").__enter__()
    assert sorted(os.listdir(tmp_path)) == ["fifo", "file", "link"]


def test_a_folder_that_is_removed_is_named_or_not_there(tmp_path: Path) -> None:
    removal.remove_folder(tmp_path / "none")
    removal.remove_folder(tmp_path / "none" / "below")
    (tmp_path / "kept").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "kept")
    (tmp_path / "file").touch()
    for name in ("link", "file"):
        removal.remove_folder(tmp_path / name)
    assert os.listdir(tmp_path) == ["kept"]
    removal.discard_folder(tmp_path / "kept")
    removal.discard_folder(tmp_path / "kept")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("call", "variable"),
    [(user_folders.state_dir, "ROMFSFS_STATE_DIR"), (user_folders.cache_dir, "ROMFSFS_CACHE_DIR")],
)
def test_where_our_files_are(
    call: Callable[[], Path], variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(variable, "mine")
    assert call() == tmp_path / "mine"
    monkeypatch.delenv(variable)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert call().is_relative_to(tmp_path)
    assert call().name == "romfsfs"
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", lambda uid: {}[uid])
    with pytest.raises(RomfsError) as caught:
        call()
    assert caught.value.line == (
        f"your home folder is not known (user {os.getuid()}); set $HOME, or ${variable} to a "
        "folder of yours"
    )
    monkeypatch.delenv("ROMFSFS_CONFIG_DIR")
    assert user_folders.config_dir() is None
    monkeypatch.setenv("ROMFSFS_CONFIG_DIR", "conf")
    assert user_folders.config_dir() == tmp_path / "conf"
    with pytest.raises(RomfsError, match="set \\$HOME, or --place to a folder of yours"):
        user_folders.home_dir("--place")


def test_a_private_folder_is_made_with_its_parents(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        made = user_folders.make_private_dir(tmp_path / "a" / "b")
        assert user_folders.make_private_dir(made) == tmp_path / "a" / "b"
    finally:
        os.umask(old)
    assert [path.stat().st_mode & 0o777 for path in (made, made.parent)] == [0o700] * 2


@pytest.mark.parametrize(
    ("mode", "below", "said"),
    [
        (0o700, False, None), (0o755, False, None), (0o1777, True, None),
        (0o757, False, "everybody may write to the folder and could change what is kept there "
         "({}); make it yours alone: chmod go-w {}"),
        (0o757, True, "everybody may write to the folder and could change what is kept there "
         "({}); keep it elsewhere: set $ROMFSFS_STATE_DIR and $ROMFSFS_CACHE_DIR"),
        (0o1777, False, "everybody may write to the folder and could change what is kept there "
         "({}); keep it elsewhere: set $ROMFSFS_STATE_DIR and $ROMFSFS_CACHE_DIR"),
    ],
)  # fmt: skip
def test_who_could_change_what_is_kept(
    tmp_path: Path, mode: int, below: bool, said: str | None
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "below").mkdir()
    folder.chmod(mode)
    path = folder / "below" if below else folder
    if said is None:
        private.check_private(path)
    else:
        with pytest.raises(RomfsError) as caught:
            private.check_private(path)
        assert caught.value.line == said.format(folder, folder)
    (tmp_path / "link").symlink_to("folder")
    private.check_private(tmp_path / "none" / "below")
    with contextlib.nullcontext() if said is None else pytest.raises(RomfsError):
        private.check_private(tmp_path / "link" / ("below" if below else ""))


def test_links_that_lead_round_in_a_circle_end(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    private.check_private(tmp_path / "a")
    assert mount_table.real_place(tmp_path / "a") in map(str, (tmp_path / "a", tmp_path / "b"))


def test_whose_files_may_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    slash = os.stat("/").st_uid
    for sudo, more in (("", set()), ("1000", {1000}), ("x", set()), ("-1", set())):
        monkeypatch.setenv("SUDO_UID", sudo)
        assert private.trusted_users() == {0, slash} | more
    monkeypatch.setattr(os, "geteuid", lambda: 7)
    monkeypatch.setenv("SUDO_UID", "1000")
    assert private.trusted_users() == {7, 0, slash}


TABLE = b"""\
21 1 0:20 / / rw - ext4 /dev/sda1 rw
22 21 0:21 / /mnt/my\\040cam rw,nosuid shared:1 - fuse.romfsfs romfsfs:/dev/ttyACM0 rw
23 22 0:22 / /mnt/my\\040cam rw - tmpfs none rw
24 21 0:23 / /a\\134b\\011\\012 rw - fuse x rw
25 21 0:24 / /short - fuse
26 21 0:24 /
27 21 0:25 / /caf\xe9 rw - fuse y rw
"""


def test_the_mount_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "read_bytes", lambda path: TABLE)
    found = list(mount_table.mounts())
    assert found == [
        ("/", "ext4", "/dev/sda1"),
        ("/mnt/my cam", "fuse.romfsfs", "romfsfs:/dev/ttyACM0"),
        ("/mnt/my cam", "tmpfs", "none"),
        ("/a\\b\t\n", "fuse", "x"),
        ("/caf\udce9", "fuse", "y"),
    ]
    assert mount_table.find_mount("/mnt/my cam") == found[2], "what is on top"
    assert mount_table.find_mount("/mnt") is None

    def none(path: Path) -> bytes:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_bytes", none)
    assert list(mount_table.mounts()) == []


def test_the_real_place_of_a_mountpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "real" / "point").mkdir(parents=True)
    (tmp_path / "folder").symlink_to("real")
    (tmp_path / "one").symlink_to("folder/point")
    (tmp_path / "real" / "two").symlink_to("../one")
    monkeypatch.chdir(tmp_path)
    for name in ("real/point", "folder/point", "one", "folder/two", "./real/../one/"):
        assert mount_table.real_place(name) == str(tmp_path / "real" / "point")
    (tmp_path / "real" / "here").symlink_to(".")
    (tmp_path / "root").symlink_to("/")
    for name, place in (
        ("folder/..", tmp_path), ("one/..", tmp_path / "real"), ("folder/here", tmp_path / "real"),
        ("", tmp_path), ("root", "/"), ("/", "/"), ("none/x/../..", tmp_path),
    ):  # fmt: skip
        assert mount_table.real_place(name) == str(place), "where a program finds it"
    assert list(mount_table.real_places("/..")) == ["/"]


@pytest.mark.parametrize(
    ("number", "dead"),
    [(errno.ENOTCONN, True), (errno.ECONNABORTED, True), (errno.ENXIO, True),
     (errno.EACCES, False), (errno.ENOENT, False), (None, False)],
)  # fmt: skip
def test_a_mount_whose_daemon_is_gone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, number: int | None, dead: bool
) -> None:
    def statvfs(path: Path) -> None:
        assert path == tmp_path
        if number is not None:
            raise OSError(number, "")

    monkeypatch.setattr(os, "statvfs", statvfs)
    assert mount_table.is_dead(tmp_path) == dead


def test_relative_paths_in_variables_stay_those_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They were below the folder that the user is in; a mount's daemon is in another."""
    here = str(tmp_path)
    given = {
        "ROMFSFS_STATE_DIR": "state", "ROMFSFS_CACHE_DIR": "../cache", "ROMFSFS_CONFIG_DIR": "",
        "STEDGEAI_CORE_DIR": "/opt/st", "SSL_CERT_FILE": "~/our.pem", "ROMFSFS_ZOO": "zoo.zip",
        "ROMFSFS_IDE_RESOURCES": "~/ide", "PATH": "bin:/bin::.", "ROMFSFS_PORTS": "./cam:/dev/tty",
    }  # fmt: skip
    monkeypatch.setattr(os, "environ", environ := dict(given))
    monkeypatch.chdir(tmp_path)
    variables.make_absolute()
    there = given | {
        "ROMFSFS_STATE_DIR": f"{here}/state", "ROMFSFS_CACHE_DIR": f"{tmp_path.parent}/cache",
        "SSL_CERT_FILE": f"{here}/~/our.pem", "ROMFSFS_ZOO": f"{here}/zoo.zip",
        "PATH": f"{here}/bin:/bin::{here}", "ROMFSFS_PORTS": f"{here}/cam:/dev/tty",
    }  # fmt: skip
    assert environ == there
    monkeypatch.chdir("/")
    variables.make_absolute()
    assert environ == there
    for source in ("ide", "https://zoo.example/models.zip", "~/zoo"):
        environ["ROMFSFS_ZOO"] = source
        variables.make_absolute()
        assert environ["ROMFSFS_ZOO"] == source


def test_variables_where_the_current_folder_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    monkeypatch.setattr(os, "environ", environ := {"ROMFSFS_STATE_DIR": "state"})
    variables.make_absolute()
    assert environ == {"ROMFSFS_STATE_DIR": "state"}


def test_every_variable_that_names_a_place_is_among_them() -> None:
    """But that of `simulate`, which stays where it is, and which may be a program's name."""
    package = Path(files.__file__).parent.parent
    ours = {
        name for path in package.rglob("*.py")
        for name in re.findall(r"\bROMFSFS_[A-Z_]+[A-Z]", path.read_text("utf-8"))
    }  # fmt: skip
    known = {*variables._PLACES, *variables._LISTS}
    assert ours - known == {"ROMFSFS_FUSE", "ROMFSFS_MICROPYTHON"}


def test_programs_are_not_looked_for_where_we_happen_to_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{os.pathsep}bin{os.pathsep}{os.pathsep}/usr/bin{os.pathsep}.")
    assert programs.search_path() == os.pathsep.join([f"{tmp_path}/bin", "/usr/bin", str(tmp_path)])
    (tmp_path / "bin").mkdir()
    for name, mode in (("tool", 0o755), ("data", 0o644)):
        (tmp_path / "bin" / name).touch()
        (tmp_path / "bin" / name).chmod(mode)
    assert programs.find_on_path("tool") == f"{tmp_path}/bin/tool"
    assert programs.find_on_path("data") is None
    monkeypatch.delenv("PATH")
    assert programs.search_path() == os.defpath


def test_what_is_there_of_other_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for name in ("ide-1/x", "ide-3/x", "ide-2/x", ".config/ide/x", "conf/ide/x"):
        (tmp_path / name).mkdir(parents=True)
    assert programs.installed("~/ide-*/x") == [tmp_path / f"ide-{n}" / "x" for n in (3, 2, 1)]
    assert programs.installed("{config}/ide/x") == [tmp_path / ".config" / "ide" / "x"]
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "conf"))
    assert programs.installed("{config}/ide/x") == [tmp_path / "conf" / "ide" / "x"]
    assert programs.installed("ide-*/x") == []


def test_the_folders_of_a_package_that_is_not_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in ("here", "there"):
        package = tmp_path / place / "romfsfs_test_package"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text("raise RuntimeError\n")
    monkeypatch.chdir(tmp_path / "here")
    there = tmp_path / "there" / "romfsfs_test_package"
    monkeypatch.setattr(sys, "path", ["", str(tmp_path / "here"), "../there", "/none"])
    assert programs.package_folders("romfsfs_test_package") == []
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path / "there")])
    assert programs.package_folders("romfsfs_test_package") == [there]


def test_what_installs_a_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    names = {"pacman": "other", "brew": "third"}
    order = ["apt-get", "dnf", "pacman", "zypper", "apk", "pkg"]
    commands = []
    for manager in order:
        here = order[order.index(manager) :]
        monkeypatch.setattr(programs.shutil, "which", lambda name, path, here=here: name in here)
        commands.append(programs.install_command("tool", names))
    assert commands == [
        "sudo apt-get install tool", "sudo dnf install tool", "sudo pacman -S other",
        "sudo zypper install tool", "sudo apk add tool", "sudo pkg install tool",
    ]  # fmt: skip
    assert programs.install_command("tool") == "sudo pkg install tool"


class Work:
    """Pieces of work that can be held up, and say when they ran."""

    def __init__(self) -> None:
        self.done: list[int] = []
        self.stopped: list[bool] = []

    def piece(self, number: int) -> Callable[[Cancel], int]:
        def work(cancel: Cancel) -> int:
            self.stopped.append(cancel.is_set())
            self.done.append(number)
            return number

        return work


def test_no_more_threads_than_work_or_than_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    start, started = beside._thread.start_new_thread, []

    def count(run: Any, arguments: Any) -> int:
        started.append(1)
        return start(run, arguments)

    monkeypatch.setattr(beside._thread, "start_new_thread", count)
    for pieces, threads, wanted in ((0, 0, 0), (3, 0, 3), (3, 2, 2), (2, 9, 2)):
        started.clear()
        work = Work()
        with Beside([work.piece(n) for n in range(pieces)], threads) as running:
            assert [running.result(number) for number in range(pieces)] == list(range(pieces))
        assert len(started) == wanted
        assert sorted(work.done) == list(range(pieces))
        assert not any(work.stopped)


def test_what_work_raises_is_raised_where_it_is_asked_for() -> None:
    def fail(_: Cancel) -> int:
        raise KeyError("x")

    with Beside([fail, lambda _: 2], 1) as running:
        with pytest.raises(KeyError):
            running.result(0)
        assert running.result(1) == 2


def test_leaving_by_an_exception_tells_what_runs_and_begins_no_more() -> None:
    begun, told = threading.Event(), []

    def wait(cancel: Cancel) -> None:
        begun.set()
        while not cancel.is_set():
            threading.Event().wait(0.001)
        told.append("stopped")

    def never(_: Cancel) -> None:
        told.append("begun")

    def fail() -> None:
        assert begun.wait(60)
        raise KeyError

    with pytest.raises(KeyError), Beside([wait, never], 1):
        fail()
    assert told == ["stopped"]
    cancel = threading.Event()
    with Beside([wait], cancel=cancel) as running:
        assert not running.is_set()
        cancel.set()
        running.result(0)
    assert told == ["stopped", "stopped"]


@pytest.mark.parametrize("have", [0, 1])
def test_a_system_that_has_no_more_threads(monkeypatch: pytest.MonkeyPatch, have: int) -> None:
    start, started = beside._thread.start_new_thread, []

    def few(run: Any, arguments: Any) -> int:
        if len(started) == have:
            raise RuntimeError("can't start new thread")
        started.append(1)
        return start(run, arguments)

    monkeypatch.setattr(beside._thread, "start_new_thread", few)
    work = Work()
    pieces = [work.piece(number) for number in range(3)]
    if have:
        with Beside(pieces) as running:
            assert [running.result(number) for number in range(3)] == [0, 1, 2]
    else:
        with pytest.raises(RomfsError, match=r"^the system cannot start another thread"):
            Beside(pieces).__enter__()
        assert work.done == []


def test_long_output_in_figures() -> None:
    pieces: list[str] = []
    capture = _Capture(pieces.append)
    capture.add(b"a" * (HEAD_BYTES - 1))
    capture.add(b"bc\r\n")
    assert capture.text() == "a" * (HEAD_BYTES - 1) + "bc\n"
    capture.add(b"d" * (TAIL_BYTES - 3))
    assert capture.text() == "a" * (HEAD_BYTES - 1) + "bc\n" + "d" * (TAIL_BYTES - 3)
    capture.add(b"\xffe")
    left_out = "\n[... 2 bytes left out ...]\n"
    head = "a" * (HEAD_BYTES - 1) + "b"
    assert (
        capture.text()
        == head + left_out + "\n" + "d" * (TAIL_BYTES - 3) + "\N{REPLACEMENT CHARACTER}e"
    )
    assert pieces == ["a" * (HEAD_BYTES - 1), "bc\r\n", "d" * (TAIL_BYTES - 3),
                      "\N{REPLACEMENT CHARACTER}e"]  # fmt: skip
    lines = {"": "", "\n \n": "", "a\n b \n\n": "b"}
    assert {text: Outcome(0, text, False, 0).last_line for text in lines} == lines


def test_only_a_plain_file_in_the_folder_is_a_result(tmp_path: Path) -> None:
    folder, outside = tmp_path / "job", tmp_path / "outside"
    folder.mkdir()
    outside.mkdir()
    (outside / "file").write_bytes(b"secret")
    (folder / "made").write_bytes(b"12345")
    (folder / "link").symlink_to(outside / "file")
    (folder / "linked").symlink_to(outside)
    os.link(outside / "file", folder / "hard")
    os.mkfifo(folder / "fifo")
    found = {name: made_file(folder / name, folder) for name in
             ("made", "link", "linked/file", "hard", "fifo", ".", "none", "none/x")}  # fmt: skip
    assert found == {**dict.fromkeys(found), "made": 5}
    (tmp_path / "alias").symlink_to(folder)
    assert made_file(tmp_path / "alias" / "made", folder) == 5


STEPS = {
    errno.EACCES: "check its permissions: ls -ld {}",
    errno.EPERM: "check its permissions: ls -ld {}",
    errno.EROFS: "choose a place that can be written to",
    errno.ENOSPC: "free space, or choose another place",
    errno.EDQUOT: "free space, or choose another place",
    errno.EIO: "the disk may be failing: the system's log (dmesg) says more",
    errno.EMFILE: "close programs, or allow more open files: ulimit -n",
    errno.ENFILE: "close programs: the system has too many files open",
    errno.ENOMEM: "close programs: the system is short of memory",
    errno.ENOTEMPTY: "",
}  # fmt: skip


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ROMFSFS_STATE_DIR", str(tmp_path / "kept" / "state"))
    monkeypatch.setenv("ROMFSFS_CACHE_DIR", str(tmp_path / "kept" / "cache"))
    return tmp_path


@pytest.mark.parametrize("number", STEPS)
def test_what_the_system_says_with_what_may_help(places: Path, number: int) -> None:
    text = os.strerror(number)
    text = text[0].lower() + text[1:]
    file = places / "a file"
    file.touch()
    for name, where, path in (
        (str(file), file, f"'{file}'"),
        (None, None, "FILE"),
        (3, None, "FILE"),
    ):
        error = errors.os_error(OSError(number, os.strerror(number), name))
        shown = f" ({where})" if where else ""
        step = STEPS[number].format(path)
        assert error.line == f"{text}{shown}" + (f"; {step}" if step else "")


@pytest.mark.parametrize(
    ("number", "step"),
    [
        (errno.ENOSPC, "free space there and try again, your edits are kept"),
        (errno.EDQUOT, "free space there and try again, your edits are kept"),
        (errno.EROFS, "make it writable and try again, your edits are kept"),
        (errno.EIO, "the disk may be failing (see dmesg): copy your edits from there"),
        (errno.EACCES, "romfsfs keeps its files there"),
        (errno.EPERM, "romfsfs keeps its files there"),
    ],
)
def test_what_is_wrong_with_our_own_places(places: Path, number: int, step: str) -> None:
    (places / "kept").mkdir()
    text = os.strerror(number)
    text = text[0].lower() + text[1:]

    def said(name: Path) -> str:
        return errors.os_error(OSError(number, os.strerror(number), str(name))).line

    state, cache = places / "kept" / "state", places / "kept" / "cache"
    assert (
        said(state / "x") == f"{text} ({state}/x); {step}; $ROMFSFS_STATE_DIR names another place"
    )
    assert said(cache) == f"{text} ({cache}); {step}; $ROMFSFS_CACHE_DIR names another place"
    assert said(places / "kept") == (
        f"{text} ({state} and {cache}); {step}; $ROMFSFS_STATE_DIR and $ROMFSFS_CACHE_DIR name "
        "other places"
    )


def test_which_of_the_names_in_an_error_is_shown(places: Path) -> None:
    def said(number: int, name: str, other: str | None = None) -> str:
        return errors.os_error(OSError(number, os.strerror(number), name, None, other)).line

    there = places / "there"
    there.touch()
    new = places / "new"
    assert said(errno.EEXIST, str(there), str(new)) == f"file exists ({new})"
    assert said(errno.EEXIST, str(new), str(there)) == f"file exists ({new})"
    temporary = f"{there}.romfsfs-{'0' * 16}.tmp"
    assert said(errno.EIO, temporary).startswith(f"input/output error ({there}); ")
    assert said(errno.ENOENT, f"{places}/no/x") == (
        f"no such folder ({places}/no); mkdir -p {places}/no"
    )
    assert said(errno.ENOENT, str(new)) == f"no such file or directory ({new})"
    assert said(errno.ENOENT, "new") == "no such file or directory (new)"
    assert said(errno.EACCES, str(new)).startswith(f"permission denied ({places}); ")
    assert said(errno.EACCES, "none here").startswith("permission denied (.); ")
    assert errors.os_error(OSError("odd")).line == "odd"
    assert errors.os_error(OSError()).line == "input or output failed"
    with pytest.raises(RomfsError, match=r"^file exists \(x\)$"), errors.worded():
        raise FileExistsError(errno.EEXIST, "File exists", "x")
    with pytest.raises(UsageError, match=r"^a name cannot contain a NUL byte"), errors.worded():
        os.stat("a\0b")
    with pytest.raises(ValueError, match="invalid literal"), errors.worded():
        int("a")


def test_a_current_folder_that_is_gone(places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = FileNotFoundError(errno.ENOENT, "No such file or directory")
    assert errors.os_error(gone).line == "no such file or directory"
    monkeypatch.setattr(os, "getcwd", lambda: os.stat("/none"))
    assert errors.os_error(gone).line == "the current folder is gone; go to another one: cd"


@pytest.mark.parametrize(
    ("changed", "left"),
    [(1_000_000_000, 2.02), (1_000_000_001, 0.02), (500_000_000, -0.48), (2_000_000_001, 0.02)],
)
def test_how_long_a_time_of_change_stays_uncertain(
    monkeypatch: pytest.MonkeyPatch, changed: int, left: float
) -> None:
    """Not longer than that where the file is of the future."""
    monkeypatch.setattr(clock, "clock_ns", lambda: 1_000_000_000)
    assert clock.uncertain_for(changed) == pytest.approx(left, abs=1e-6)
    slept: list[float] = []
    monkeypatch.setattr(clock.time, "sleep", slept.append)
    monkeypatch.setattr(clock.time, "monotonic", lambda: float(len(slept) * 3))
    clock.wait_until_certain([])
    clock.wait_until_certain([500_000_000])
    assert slept == []
    clock.wait_until_certain([changed, 500_000_000])
    assert slept == [pytest.approx(left)] * 2 if left > 0 else slept == []


def test_a_tool_that_closed_its_output_is_not_asked_for_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Again and again, as long as it works on: its end is seen once, and once more at its end."""
    read, ends = os.read, []

    def counted(fd: int, size: int) -> bytes:
        data = read(fd, size)
        if size == 1 << 16 and not data:
            ends.append(fd)
        return data

    monkeypatch.setattr(os, "read", counted)
    done = run_tool(
        ["sh", "-c", "echo said; exec >&- 2>&-; sleep 0.2"], folder=tmp_path,
        env=environment(tmp_path), limits=Limits(60, children=False),
    )  # fmt: skip
    assert (done.status, done.output, done.timed_out) == (0, "said\n", False)
    assert len(ends) <= 2
