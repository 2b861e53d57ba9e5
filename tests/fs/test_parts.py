"""The FUSE layer's parts without a mount: options, guard, handles, `.romfs/`, paths, refusals."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import logging
import os
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import needs
import pytest

from romfsfs.errors import RomfsError, UsageError
from romfsfs.fs import binding, control, guard, mountpoint, options
from romfsfs.fs import tree as trees
from romfsfs.fs.control import FIRST_HANDLE, Attributes, ControlDirectory
from romfsfs.fs.guard import AskAgain, guarded
from romfsfs.fs.handles import Handle, Handles
from romfsfs.fs.tree import PATH_MAX, WorkTree, hidden_name, renamer, to_text
from romfsfs.system.mount_table import Mount


def refused(number: int, work: Callable[[], object]) -> None:
    try:
        work()
    except OSError as error:
        assert error.errno == number  # noqa: PT017 (its message is the system's)
    else:
        pytest.fail("it was done")


# -- options


@pytest.mark.parametrize(
    ("values", "parsed"),
    [
        ([], {}), (["allow_other,max_read=4096"], {"allow_other": True, "max_read": "4096"}),
        (["a=", "b=c=d", " e , ,,f"], {"a": "", "b": "c=d", "e": True, "f": True}),
        (["defaults,noauto,user,users,nofail,_netdev,relatime,x-systemd.automount,comment=hi"], {}),
        (["user=me,uhelper=x,auto,nouser,owner,group,diratime,nostrictatime,nolazytime"], {}),
        (["noatime,ro"], {"noatime": True, "ro": True}),
    ],
)  # fmt: skip
def test_words_after_o(values: list[str], parsed: dict[str, object]) -> None:
    assert options.parse_extra(values) == parsed


@pytest.mark.parametrize(
    "word", ["encoding", "errors", "foreground", "mountpoint", "operations", "raw_fi", "self"]
)
def test_words_that_a_binding_would_take_for_its_own(word: str) -> None:
    for text in (word, f"{word}=1"):
        with pytest.raises(UsageError) as refused:
            options.parse_extra([text])
        assert refused.value.line == f"no such mount option: {word} (-o {word})"


@pytest.mark.parametrize(
    "word",
    ["allow_other", "nonempty", "hard_remove", "use_ino", "readdir_ino", "direct_io", "nopath",
     "intr"],
)  # fmt: skip
def test_a_mount_is_not_opened_to_others_by_a_word_that_says_no(word: str) -> None:
    for text in ("0", "no", "", "1"):
        with pytest.raises(UsageError) as refused:
            options.parse_extra([f"noatime,{word}={text}"])
        assert refused.value.line == (
            f"{word} takes no value (-o {word}={text}); write -o {word}, or leave it out"
        )
    assert options.parse_extra([word]) == {word: True}


ALWAYS = {"fsname": "camera\\, a\\\\b?", "use_ino": True, "subtype": "romfsfs", "auto_cache": True}
OLD = {"big_writes": True, "atomic_o_trunc": True}
NEW = {"max_idle_threads": "10", "max_threads": "200"}


@pytest.mark.parametrize(
    ("libfuse", "user", "how", "more"),
    [
        ((2, 9), 0, {}, OLD), ((3, 10), 0, {}, {}), ((3, 11), 0, {}, {}), ((3, 12), 0, {}, NEW),
        ((3, 17), 7, {}, {**NEW, "default_permissions": True}),
        ((2, 9), 7, {}, {**OLD, "default_permissions": True}),
        ((2, 9), 0, {"nonempty": True}, {**OLD, "nonempty": True}),
        ((3, 12), 0, {"nonempty": True}, NEW), ((3, 10), 0, {"read_only": True}, {"ro": True}),
        ((3, 10), 0, {"allow_other": True}, {"default_permissions": True, "allow_other": True}),
        ((3, 12), 0, {"extra": {"max_threads": "5", "x": "y"}}, {**NEW, "max_threads": "5",
                                                               "x": "y"}),
        ((3, 10), 0, {"extra": dict.fromkeys(["big_writes", "large_read", "atomic_o_trunc",
                                              "async_read"], True)}, {}),
        ((2, 9), 0, {"extra": {"large_read": True}}, {**OLD, "large_read": True}),
    ],
)  # fmt: skip
def test_what_libfuse_is_told(
    libfuse: tuple[int, int], user: int, how: dict[str, Any], more: dict[str, object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(options.os, "geteuid", lambda: user)
    monkeypatch.setattr(options.sys, "platform", "linux")
    chosen = {"read_only": False, "allow_other": False, "nonempty": False, "extra": {}, **how}
    source = "camera, a\\b\n"
    assert options.fuse_options(libfuse, source, **chosen) == {**ALWAYS, **more}
    monkeypatch.setattr(options.sys, "platform", "darwin")
    mac = options.fuse_options(libfuse, "/a/my app.img", **{**chosen, "extra": {}})
    rest = {"default_permissions", "allow_other", "ro"}
    assert {key: value for key, value in mac.items() if key not in rest} == {
        "fsname": "/a/my app.img", "use_ino": True, "volname": "my app.img",
    }  # fmt: skip
    assert options.fuse_options(libfuse, "/", **chosen)["volname"] == "romfsfs"


@pytest.mark.parametrize(("version", "added"), [((2, 8), False), ((2, 9), True), ((2, 10), True)])
def test_which_operations_libfuse_2_is_told_of(
    version: tuple[int, int], added: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And its own function is put back, however the mount ends."""
    told: list[object] = []
    library = SimpleNamespace(fuse_main_real="theirs")
    module: Any = SimpleNamespace(_libfuse=library)

    def fuse(operations: object, place: str, **how: object) -> None:
        told.append((place, how, library.fuse_main_real))
        raise RuntimeError(1)

    monkeypatch.setattr(binding.sys, "platform", "linux")
    monkeypatch.setattr(binding, "_Operations2", lambda adapter: adapter)
    monkeypatch.setattr(binding, "main_2", lambda library: "ours")
    monkeypatch.setattr(binding, "add_operations_of_29", lambda module: told.append("added"))
    monkeypatch.setattr(binding, "fuse_class_of", lambda module, major: fuse)
    with pytest.raises(RuntimeError):
        binding.Binding("fusepy", module, version).run(None, "/m\udce9", {"a": True, "b": "\udce9"})
    how = {"raw_fi": True, "encoding": "latin-1", "foreground": True, "a": True, "b": "\xe9"}
    assert told == [*(["added"] if added else []), ("/m\xe9", how, "ours")]
    assert library.fuse_main_real == "theirs"


# -- the guard


@pytest.mark.parametrize(
    ("error", "number", "logged"),
    [
        (FileNotFoundError(errno.ENOENT, "x"), errno.ENOENT, []),
        (AskAgain(), errno.ESTALE, []), (OSError(errno.ENOSPC, "full"), errno.ENOSPC, []),
        (PermissionError(errno.EPERM, "x"), errno.EPERM, []),
        *((OSError(each, "x"), each, [f"read(7, <3 bytes>, handle 5) failed: [Errno {each}] x"])
          for each in (errno.EIO, errno.EBADF, errno.EFAULT, errno.EMFILE, errno.ENFILE,
                       errno.ENOMEM, errno.ESTALE)),
        (OSError("serial"), errno.EIO, ["read(7, <3 bytes>, handle 5) raised an OSError without "
                                        "errno"]),
        (OSError(0, "x"), errno.EIO, ["read(7, <3 bytes>, handle 5) raised an OSError without "
                                      "errno"]),
        (RomfsError("no", where="w", next_step="n"), errno.EIO, ["read(7, <3 bytes>, handle 5): "
                                                                 "no (w); n"]),
        (RomfsError("no", detail="all of it"), errno.EIO, ["read(7, <3 bytes>, handle 5): no",
                                                           "all of it"]),
        (ZeroDivisionError("bug"), errno.EIO, ["read(7, <3 bytes>, handle 5) raised"]),
        (SystemExit(3), errno.EIO, ["read(7, <3 bytes>, handle 5) raised"]),
    ],
    ids=lambda each: type(each).__name__ if isinstance(each, BaseException) else None,
)  # fmt: skip
def test_every_exception_leaves_as_an_error_number(
    error: BaseException, number: int, logged: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    def operation(*args: object) -> None:
        raise error

    with caplog.at_level(logging.INFO, guard.log.name):
        refused(number, lambda: guarded("read", operation)(7, b"abc", SimpleNamespace(fh=5)))
    assert [record.message for record in caplog.records] == logged
    assert all(record.levelno == logging.ERROR for record in caplog.records)
    error.__traceback__ = None


def test_what_is_no_exception_is_passed_on() -> None:
    assert guarded("getattr", lambda *args: args)("a", None) == ("a", None)


def test_only_so_many_threads_keep_their_state(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[int] = []
    monkeypatch.setattr(guard, "_numbers", iter(range(1, 1000)))
    monkeypatch.setattr(guard.ctypes, "pythonapi",
                        SimpleNamespace(PyGILState_Ensure=lambda: kept.append(1)))  # fmt: skip
    for _ in range(70):
        monkeypatch.setattr(guard, "_thread", SimpleNamespace())  # another thread's
        for _ in range(3):
            guarded("x", lambda: None)()
    assert len(kept) == 64


# -- handles


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Callable[..., Handle]]:
    """Opens a file below the test's folder as a mount does."""
    fds: list[int] = []

    def open_(name: str, path: str, writable: bool = False) -> Handle:
        fds.append(os.open(tmp_path / name, os.O_RDWR | os.O_CREAT))
        return Handle(fds[-1], path, writable, 9)

    yield open_
    for fd in fds:
        os.close(fd)


def test_who_writes_is_counted_by_file(opened: Callable[..., Handle]) -> None:
    handles = Handles()
    reader, first = opened("a", "/a"), opened("a", "/a", True)
    assert handles.add(reader) is False
    assert handles.add(first) is False
    assert handles.get(first.fd) is first
    second, other = opened("a", "/b", True), opened("c", "/c", True)
    assert handles.add(second) is True
    assert handles.add(other) is False
    assert handles.writers() == ["/a", "/b", "/c"]
    assert handles.remove(first.fd) == (first, None)
    assert handles.get(first.fd) is None
    assert handles.remove(first.fd) == (None, None)
    again = opened("a", "/a")
    assert handles.add(again) is True
    handles.remove(second.fd)
    assert handles._writing == {other.inode: 1}
    assert handles.add(opened("a", "/a")) is False
    assert handles.writers() == ["/c"]


def test_a_nameless_file_goes_with_its_last_handle(opened: Callable[..., Handle]) -> None:
    handles = Handles()
    one, two, three = opened("a", "/a", True), opened("a", "/a"), opened("b", "/b", True)
    for handle in (one, two, three):
        handles.add(handle)
    assert handles.hide("/no", b"h") is False
    assert handles.hide("/a", b"h") is True
    assert [(h.path, h.hidden, h.limit) for h in (one, two, three)] == [
        (None, b"h", None), (None, b"h", None), ("/b", None, 9),
    ]  # fmt: skip
    assert handles.writers() == ["/b"]
    assert handles.move({"/a": "/z"}) == []
    assert handles.remove(two.fd) == (two, None)
    assert handles.remove(one.fd) == (one, b"h")
    handles.add(one)
    assert handles.reveal(b"other", "/c") == []
    assert handles.reveal(b"h", "/c") == [one]
    assert (one.path, one.hidden) == ("/c", None)
    assert handles.remove(one.fd) == (one, None)


def test_names_follow_renames(opened: Callable[..., Handle]) -> None:
    handles = Handles()
    found = {path: opened(f"{n}", path, True)
             for n, path in enumerate(["/a", "/a/b", "/ab", "/c/d"])}  # fmt: skip
    for handle in found.values():
        handles.add(handle)
    assert handles.move({"/a": "/x/y", "/c": "/a"}) == [found["/a"], found["/a/b"], found["/c/d"]]
    assert [handle.path for handle in found.values()] == ["/x/y", "/x/y/b", "/ab", "/a/d"]


# -- the control directory


class Host:
    """What `.romfs/` asks of a session."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.has_zoo = True
        self.kinds = {"": True, "lib": True, "lib/a": False}

    def tree(self, name: str) -> Any:
        def listed(path: str) -> list[tuple[str, bool]]:
            if path not in self.kinds:
                raise KeyError(path)
            return [(f"{name}-of-{path}", False)]

        def opened(path: str) -> tuple[int, int, int]:
            if self.kinds.get(path, True):
                raise KeyError(path)
            return os.open(__file__, os.O_RDONLY), 3, 4

        def status(path: str) -> tuple[bool, int, int] | None:
            return (self.kinds[path], 1025, 77) if path in self.kinds else None

        return SimpleNamespace(list=listed, open=opened, stat=status)

    def __getattr__(self, name: str) -> Any:
        def answer(*args: Any) -> Any:
            self.asked.append(name)
            if name in ("shadow", "base"):
                return self.tree(name)
            if name == "zoo":
                return self.tree(name) if self.has_zoo else None
            return f"{name}é\udce9"

        return answer

    def control(self, command: str, writers: Callable[[], list[str]]) -> None:
        self.asked.append(f"control {command} {writers()}")


@pytest.fixture
def host() -> Host:
    return Host()


@pytest.fixture
def directory(host: Host) -> ControlDirectory:
    return ControlDirectory(host, lambda: ["a", "b\udce9"])  # type: ignore[arg-type]


def test_which_paths_are_its_own() -> None:
    assert [ControlDirectory.owns(path) for path in ("/.romfs", "/.romfs/x", "/.romfsx", "/",
                                                     "/a/.romfs", ".romfs")] == [
        True, True, False, False, False, False,
    ]  # fmt: skip


def test_what_stat_says_below_it(directory: ControlDirectory, host: Host) -> None:
    started = directory._started

    def of(path: str) -> tuple[int, int, int, int, int]:
        found = directory.attributes(path)
        assert (found.st_uid, found.st_gid, found.st_blksize) == (os.getuid(), os.getgid(), 4096)
        assert found.st_ino >> 48 == 1
        assert found.st_atime_ns == found.st_mtime_ns == found.st_ctime_ns
        return found.st_mode, found.st_nlink, found.st_size, found.st_blocks, found.st_mtime_ns

    folder, file = stat.S_IFDIR, stat.S_IFREG
    assert of("/.romfs") == of("/.romfs/") == (folder | 0o500, 2, 0, 0, started)
    for tree in ("shadow", "base", "zoo"):
        assert of(f"/.romfs/{tree}") == (folder | 0o555, 2, 0, 0, started)
        assert of(f"/.romfs/{tree}/lib") == (folder | 0o555, 2, 1025, 3, 77)
        assert of(f"/.romfs/{tree}/lib/a") == (file | 0o444, 1, 1025, 3, 77)
    assert of("/.romfs/ctl") == (file | 0o200, 1, 0, 0, started)
    assert of("/.romfs/log")[:4] == (file | 0o444, 1, len("log_text") + 3, 1)
    assert of("/.romfs/writers")[:4] == (file | 0o444, 1, 5, 1)
    numbers = {directory.attributes(f"/.romfs/{name}").st_ino for name in ("ctl", "log", "base")}
    assert len(numbers) == 3
    for path in ("x", "base/no", "ctl/x", "status/x", "zoo/no"):
        refused(errno.ENOENT, lambda path=path: directory.attributes(f"/.romfs/{path}"))
    host.has_zoo = False
    for path in ("zoo", "zoo/lib"):
        refused(errno.ENOENT, lambda path=path: directory.attributes(f"/.romfs/{path}"))


def test_texts_are_made_once_a_second_and_at_each_opening(
    directory: ControlDirectory, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    clock = SimpleNamespace(monotonic=lambda: now[0], time_ns=time.time_ns)
    monkeypatch.setattr(control, "time", clock)

    def asked(work: Callable[[], object]) -> list[str]:
        host.asked.clear()
        work()
        return list(host.asked)

    def look() -> Attributes:
        return directory.attributes("/.romfs/status.json")

    assert asked(look) == ["status_json"]
    assert asked(look) == []
    now[0] += 0.99
    assert asked(look) == []
    now[0] += 0.01
    assert asked(look) == ["status_json"]
    before = look().st_mtime_ns
    assert asked(lambda: directory.open("/.romfs/status.json", os.O_RDONLY)) == ["status_json"]
    assert look().st_mtime_ns > before
    assert asked(look) == []
    for name, function in (("status", "status_text"), ("status.html", "status_html"),
                           ("log", "log_text"), ("writers", "")):  # fmt: skip
        handle = directory.open(f"/.romfs/{name}", os.O_RDONLY)
        file = directory.file(handle)
        text = f"{function}é\udce9" if function else "a\0b\udce9\0"
        data = text.encode("utf-8", "surrogateescape")
        assert (file.read(1000, 0), file.read(2, 3), file.read(5, 999)) == (data, data[3:5], b"")
        assert file.attributes.st_size == len(data)
        directory.close(handle)
        refused(errno.EBADF, lambda handle=handle: directory.file(handle))
        directory.close(handle)


def test_listings(directory: ControlDirectory, host: Host) -> None:
    handle = directory.open_dir("/.romfs")
    assert handle == FIRST_HANDLE
    names = ["shadow", "base", "zoo", "status", "status.json", "status.html", "log", "writers",
             "ctl"]  # fmt: skip
    assert directory.listing(handle) == [(name, number < 3) for number, name in enumerate(names)]
    host.has_zoo = False
    other = directory.open_dir("/.romfs/")
    assert other == handle + 1
    assert [name for name, _ in directory.listing(other)] == [n for n in names if n != "zoo"]
    directory.close_dir(other)
    directory.close_dir(other)
    with pytest.raises(KeyError):
        directory.listing(other)
    handle = directory.open_dir("/.romfs/base/lib")
    assert directory.listing(handle) == [("base-of-lib", False)]
    for path in ("base/no", "x", "zoo"):
        refused(errno.ENOENT, lambda path=path: directory.open_dir(f"/.romfs/{path}"))


def test_what_may_be_opened(directory: ControlDirectory) -> None:
    for path, flags, number in (
        ("", os.O_RDONLY, errno.EISDIR), ("/base", os.O_RDONLY, errno.EISDIR),
        ("/base/lib", os.O_RDWR, errno.EISDIR), ("/base/lib/a", os.O_WRONLY, errno.EROFS),
        ("/base/lib/a", os.O_RDWR, errno.EROFS), ("/status", os.O_WRONLY, errno.EROFS),
        ("/ctl", os.O_RDONLY, errno.EACCES), ("/ctl", os.O_RDWR, errno.EACCES),
        ("/no", os.O_RDONLY, errno.ENOENT),
    ):  # fmt: skip
        refused(number, lambda path=path, flags=flags: directory.open("/.romfs" + path, flags))
    handle = directory.open("/.romfs/base/lib/a", os.O_RDONLY)
    file = directory.file(handle)
    assert file.attributes.st_size == 4
    here = Path(__file__).read_bytes()
    assert [file.read(9, 0), file.read(2, 1), file.read(9, 4), file.read(9, 5)] == [
        here[3:7], here[4:6], b"", b"",
    ]  # fmt: skip
    refused(errno.EBADF, lambda: file.write(b"x"))
    file.flush()
    fd = file.fd
    directory.close(handle)
    refused(errno.EBADF, lambda: os.fstat(fd))
    directory.truncate("/.romfs/ctl")
    for path in ("/.romfs/status", "/.romfs/base/lib/a", "/.romfs/ctl/"):
        refused(errno.EROFS, lambda path=path: directory.truncate(path))


def test_a_command_is_a_line(directory: ControlDirectory, host: Host) -> None:
    file = directory.file(directory.open("/.romfs/ctl", os.O_WRONLY))

    def commands(*parts: bytes) -> list[str]:
        host.asked.clear()
        for part in parts:
            file.write(part)
        return [each.split()[1] for each in host.asked]

    assert commands(b"one\ntwo", b"2\n\n \n three \n") == ["one", "two2", "three"]
    assert commands(b"four") == []
    file.flush()
    assert host.asked == ["control four ['a', 'b\\udce9']"]
    file.flush()
    assert len(host.asked) == 1
    assert commands(b"\xe9\n") == ["\ufffd"]
    assert commands(b"x" * 4096) == []
    refused(errno.EINVAL, lambda: file.write(b"y"))
    assert commands(b"five\n") == ["five"], "what was refused is forgotten"


def test_only_who_mounted_it_and_root_look_in(host: Host) -> None:
    user = [0]
    directory = ControlDirectory(host, list, lambda: (user[0], 5))  # type: ignore[arg-type]
    directory._owner = 1000, 5
    for number, may in ((0, True), (1000, True), (1001, False), (5, False)):
        user[0] = number
        for work in (
            lambda: directory.open_dir("/.romfs"),
            lambda: directory.open("/.romfs/status", os.O_RDONLY),
        ):
            work() if may else refused(errno.EACCES, work)
        directory.attributes("/.romfs/status")  # its mode says it


def test_a_path_that_changed_its_kind_is_asked_for_anew(
    directory: ControlDirectory, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory.attributes("/.romfs/base/lib")
    directory.attributes("/.romfs/base/lib")
    host.kinds["lib"] = False
    with pytest.raises(AskAgain):
        directory.attributes("/.romfs/base/lib")
    assert stat.S_ISREG(directory.attributes("/.romfs/base/lib").st_mode)
    monkeypatch.setattr(control, "_KINDS", 3)
    for name in "abcd":
        host.kinds[name] = False
        directory.attributes(f"/.romfs/base/{name}")
        assert len(directory._kinds) <= 3
    assert len(directory._kinds) < 4


# -- paths

HIDDEN = ".fuse_hidden0123456789abcdef"


def test_names_of_files_without_a_name() -> None:
    assert hidden_name(f"/a/{HIDDEN}") == HIDDEN.encode()
    for other in ("/a", f"/{HIDDEN}0", f"/x{HIDDEN}", f"/{HIDDEN}/x", "/.fuse_hidden0123"):
        assert hidden_name(other) is None
    assert to_text("/a/b") == "a/b"
    assert to_text("/" + "é".encode().decode("latin-1")) == "é"
    assert to_text("/\xe9") == "\udce9"


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[WorkTree]:
    (tmp_path / "work").mkdir()
    (tmp_path / "hidden").mkdir()
    fds = [os.open(tmp_path / name, os.O_RDONLY) for name in ("work", "hidden")]
    yield WorkTree(*fds, keeps_times=False)
    for fd in fds:
        os.close(fd)


def test_where_a_path_leads(tree: WorkTree, tmp_path: Path) -> None:
    """Also one that is longer than the kernel takes, however it is divided."""
    os.close(tree.open("/a", os.O_WRONLY | os.O_CREAT, 0o600))
    assert stat.S_IMODE(tree.stat("/a").st_mode) == 0o600
    assert tree.stat("/").st_ino == (tmp_path / "work").stat().st_ino
    tree.rename("/a", f"/{HIDDEN}")
    assert os.listdir(tmp_path / "hidden") == [HIDDEN]
    assert os.listdir(tmp_path / "work") == []
    tree.rename(f"/x/y/{HIDDEN}", "/b")
    assert os.listdir(tmp_path / "work") == ["b"]
    (tmp_path / "hidden/left").touch()
    (tmp_path / "hidden/folder").mkdir()
    tree.remove_leftovers()
    assert os.listdir(tmp_path / "hidden") == ["folder"]
    before = len(os.listdir("/proc/self/fd"))
    path = ""
    for number in range(60):
        path += "/" + "d" * (200 if number % 2 else 7)
        tree.at(os.mkdir, path)
    for length in (PATH_MAX - 1, PATH_MAX, PATH_MAX + 1):
        stem = path[: path.rindex("/", 0, length - 3)]
        name = stem + "/" + "f" * min(250, length - len(stem))
        os.close(tree.open(name, os.O_WRONLY | os.O_CREAT))
        assert stat.S_ISREG(tree.stat(name).st_mode)
    os.close(tree.open(path + "/deep", os.O_WRONLY | os.O_CREAT))
    tree.rename(path + "/deep", "/deep")
    assert (tmp_path / "work/deep").exists()
    assert len(os.listdir("/proc/self/fd")) == before
    refused(errno.ELOOP, lambda: (os.symlink("b", tmp_path / "work/l"), tree.open("/l", 0)))


def test_as_much_of_a_path_at_a_time_as_the_kernel_takes(tree: WorkTree) -> None:
    """One byte less than PATH_MAX: a zero ends it."""
    for longest in (PATH_MAX - 1, PATH_MAX):
        parts, left = [], longest + 1
        while left > 256 + 200:
            parts.append(f"{len(parts):a>200}")
            left -= 201
        parts += ["b" * (left // 2 - 1), "c" * (left - left // 2 - 1), f"{longest}"]
        assert len("/".join(parts[:-1])) == longest
        for number in range(len(parts)):
            with contextlib.suppress(FileExistsError):
                tree.at(os.mkdir, "/" + "/".join(parts[: number + 1]))
        assert stat.S_ISDIR(tree.stat("/" + "/".join(parts)).st_mode)


@pytest.mark.parametrize("keeps", [True, False])
def test_access_times_that_are_to_stay(
    tmp_path: Path, tree: WorkTree, keeps: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some disks know no such thing."""
    flags: list[int] = []
    real = os.open

    def opened(path: Any, how: int, *rest: Any, **where: Any) -> int:
        flags.append(how & os.O_NOATIME)
        if how & os.O_NOATIME:
            raise OSError(errno.EPERM, "no")
        if path == b"shut":
            raise OSError(errno.EPERM, "no")
        return real(path, how, *rest, **where)

    chosen = WorkTree(tree.work_fd, tree.hidden_fd, keeps)
    (tmp_path / "work/a").touch()
    monkeypatch.setattr(os, "open", opened)
    os.close(chosen.open("/a", os.O_RDONLY))
    assert flags == ([os.O_NOATIME, 0] if keeps else [0])
    flags.clear()
    refused(errno.EPERM, lambda: chosen.open("/shut", os.O_RDONLY))
    assert len(flags) == (2 if keeps else 1)


def test_an_allocation_that_a_signal_interrupts_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    errors = [errno.EINTR, errno.EINTR, 0, errno.ENOSPC]
    asked: list[tuple[int, ...]] = []

    def call(fd: int, mode: int, offset: Any, length: Any) -> int:
        asked.append((fd, mode, offset.value, length.value))
        ctypes.set_errno(errors.pop(0) if errors else 0)
        return -1 if ctypes.get_errno() else 0

    monkeypatch.setattr(trees, "_FALLOCATE", call)
    trees.allocate(7, 1, 2, 1 << 40)
    assert asked == [(7, 1, 2, 1 << 40)] * 3
    refused(errno.ENOSPC, lambda: trees.allocate(7, 1, 2, 3))
    monkeypatch.setattr(trees, "_FALLOCATE", None)
    refused(errno.EOPNOTSUPP, lambda: trees.allocate(7, 1, 2, 3))


@pytest.mark.skipif(not needs.LINUX, reason="this system exchanges no names")
def test_renames_with_flags(tree: WorkTree, tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / "work" / name).write_text(name)
    refused(errno.EEXIST, lambda: tree.rename("/a", "/b", renamer(1)))
    tree.rename("/a", "/b", renamer(2))
    assert [(tmp_path / "work" / name).read_text() for name in "ab"] == ["b", "a"]
    tree.rename("/a", "/b", renamer(0))
    assert os.listdir(tmp_path / "work") == ["b"]
    with pytest.MonkeyPatch.context() as elsewhere:  # an old C library, another system
        elsewhere.setattr(trees, "_LIBC", object())
        refused(errno.EINVAL, lambda: renamer(1))
        assert renamer(0) is os.rename
    with pytest.MonkeyPatch.context() as elsewhere:
        elsewhere.setattr(trees.sys, "platform", "darwin")
        refused(errno.EINVAL, lambda: renamer(1))
        assert renamer(0) is os.rename


# -- the mountpoint


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the system says of a mountpoint: nothing is there, until a test says so."""
    said: dict[str, Any] = {"mount": None, "dead": None}
    monkeypatch.setattr(mountpoint, "find_mount", lambda path: said["mount"])
    monkeypatch.setattr(mountpoint, "dead_mountpoint", lambda path: said["dead"])
    monkeypatch.setattr(mountpoint, "check_device", lambda: None)
    return said


def mounted(kind: str, path: Path) -> Mount:
    return SimpleNamespace(source="app.img", mountpoint=str(path), kind=kind)  # type: ignore[return-value]


def prepared(path: Path, **how: bool) -> str:
    try:
        return mountpoint.prepare(path, **{"allow_other": False, "nonempty": False, **how})
    except RomfsError as error:
        return error.line


def test_where_can_be_mounted(table: dict[str, Any], tmp_path: Path) -> None:
    place = tmp_path / "my cam"
    assert prepared(place) == f"no such folder ({place}); mkdir -p '{place}'"
    place.touch()
    assert prepared(place) == f"not a folder ({place}); choose an empty folder"
    place.unlink()
    place.symlink_to("nowhere")
    assert prepared(place).startswith("no such folder") or "not a folder" in prepared(place)
    place.unlink()
    place.mkdir()
    assert prepared(place) == str(place)
    (place / "x").touch()
    assert prepared(place, nonempty=True) == str(place)
    assert prepared(place) == (
        f"the folder is not empty, and what is in it would be hidden ({place}); "
        "choose an empty folder, or add -o nonempty"
    )
    table["mount"] = mounted("fuse.romfsfs", place)
    assert prepared(place, nonempty=True) == (
        f"app.img is mounted there already ({place}); romfsfs umount '{place}'"
    )
    table["mount"] = mounted("nfs", place)
    assert prepared(place, nonempty=True) == str(place)


def test_what_is_left_of_an_earlier_mount(
    table: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[list[str]] = []
    codes: list[int] = []

    def run(command: list[str]) -> tuple[int, str]:
        runs.append(command)
        return codes.pop(0), "what it said"

    monkeypatch.setattr(mountpoint, "_run", run)
    monkeypatch.setattr(mountpoint, "_unmounter", lambda lazy=False: ["u", "-z" if lazy else "-"])
    table["dead"] = str(tmp_path)
    for answers, commands in (([0], 1), ([1, 0], 2)):
        runs.clear()
        codes[:] = answers
        assert prepared(tmp_path) == str(tmp_path)
        assert runs == [["u", "-", str(tmp_path)], ["u", "-z", str(tmp_path)]][:commands]
    codes[:] = [1, 1]
    assert prepared(tmp_path) == (
        f"cannot remove what is left of an earlier mount ({tmp_path}); sudo umount -l {tmp_path}"
    )
    table["mount"] = mounted("fuse.sshfs", tmp_path)
    runs.clear()
    assert prepared(tmp_path) == (
        f"a file system that does not answer is mounted there (fuse.sshfs) ({tmp_path}); "
        f"fusermount3 -u {tmp_path}"
    )
    assert runs == []
    (tmp_path / "lib").mkdir()
    table["mount"] = mounted("fuse.romfsfs", tmp_path)
    assert prepared(tmp_path / "lib") == (
        f"the folder is in a mount whose daemon has ended ({tmp_path}/lib); romfsfs umount "
        f"{tmp_path}"
    )
    assert runs == []


def test_two_that_would_mount_there_at_once(table: dict[str, Any], tmp_path: Path) -> None:
    with mountpoint.claimed(str(tmp_path), nonempty=False) as done:
        with (
            pytest.raises(UsageError) as refused_,
            mountpoint.claimed(str(tmp_path), nonempty=False),
        ):
            pass
        assert refused_.value.line == (
            f"another mount is being made there ({tmp_path}); choose another folder"
        )
        done()
        with mountpoint.claimed(str(tmp_path), nonempty=False):
            pass
    (tmp_path / "x").touch()
    with pytest.raises(UsageError, match="not empty"):
        mountpoint.claimed(str(tmp_path), nonempty=False).__enter__()
    with mountpoint.claimed(str(tmp_path), nonempty=True):
        pass


@pytest.mark.parametrize(
    ("text", "allowed"),
    [("user_allow_other\n", True), ("# x\n  user_allow_other # y", True), ("", False),
     ("#user_allow_other", False), ("user_allow_others", False), (None, False)],
)  # fmt: skip
def test_who_may_mount_for_others(
    text: str | None, allowed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    conf = tmp_path / "fuse.conf"
    if text is not None:
        conf.write_text(text)
    monkeypatch.setattr(mountpoint, "_FUSE_CONF", conf)
    monkeypatch.setattr(mountpoint.os, "geteuid", lambda: 0)
    mountpoint.check_allow_other()
    monkeypatch.setattr(mountpoint.os, "geteuid", lambda: 7)
    if allowed:
        mountpoint.check_allow_other()
        return
    with pytest.raises(UsageError) as refused_:
        mountpoint.check_allow_other()
    assert refused_.value.line == (
        f"allow_other is not allowed to ordinary users on this system ({conf}); add the line "
        f"user_allow_other to it: echo user_allow_other | sudo tee -a {conf}"
    )


def test_who_can_mount_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Root, where there is the device; others, where they may use it and fusermount is there."""
    there = {"device": True, "usable": True, "fusermount3": False, "fusermount": True}
    user = [7]
    monkeypatch.setattr(mountpoint.sys, "platform", "linux")
    monkeypatch.setattr(mountpoint.os, "geteuid", lambda: user[0])
    monkeypatch.setattr(mountpoint.os.path, "exists", lambda path: there["device"])
    monkeypatch.setattr(mountpoint.os, "access", lambda path, mode: there["usable"])
    monkeypatch.setattr(mountpoint, "find_on_path", lambda name: name if there[name] else None)
    monkeypatch.setattr(mountpoint, "install_command", lambda: "install it")

    def said() -> str:
        try:
            mountpoint.check_device()
        except RomfsError as error:
            return error.line
        return ""

    assert said() == ""
    there |= {"fusermount3": True, "fusermount": False}
    assert said() == ""
    there["fusermount3"] = False
    assert said() == "fusermount is not installed; install it"
    there["usable"] = False
    assert said() == "no permission to use /dev/fuse; sudo chmod a+rw /dev/fuse"
    user[0] = 0
    assert said() == ""
    there["device"] = False
    assert said() == (
        "this system has no /dev/fuse; sudo modprobe fuse; in a container start it with --device "
        "/dev/fuse --cap-add SYS_ADMIN"
    )
    monkeypatch.setattr(mountpoint.sys, "platform", "darwin")
    assert said() == ""
