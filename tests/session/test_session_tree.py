"""The work tree's own tools: listing it, climbing in it, extracting, putting back."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from session_desk import Desk, tree_of

from romfsfs.errors import RomfsError
from romfsfs.session.keep.recall import Recall
from romfsfs.session.keep.state import BaseEntry, Signature
from romfsfs.session.tree import digests, restore, worktree
from romfsfs.session.tree.extraction import Item, extract
from romfsfs.session.tree.follow import is_litter
from romfsfs.session.tree.restore import (
    change_tree,
    is_below,
    parents,
    selected,
    shown_item,
    work_digest,
)
from romfsfs.session.tree.worktree import (
    Climber,
    WorkFile,
    kind_at,
    open_file,
    remove_file,
    scan,
    scan_folders,
    status_at,
)
from romfsfs.system.files import CHUNK, digest_bytes, opened_folder


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Files, folders three deep, a link and a pipe."""
    root = tmp_path / "tree"
    (root / "b/c/d").mkdir(parents=True)
    (root / "b2").mkdir()
    for path in ("z", "b/one", "b/c/two", "b/c/d/three", "b2/four", "é"):
        (root / path).write_bytes(path.encode())
    (root / "link").symlink_to("b")
    os.mkfifo(root / "pipe")
    return root


# -- listing


def seen(found: list[WorkFile]) -> list[tuple[str, str]]:
    return [(work.path, work.kind) for work in found]


def test_a_scan_has_parents_first_and_names_in_order(tree: Path) -> None:
    with opened_folder(tree) as root_fd:
        found = scan(root_fd)
    assert seen(found) == [
        ("b", "dir"), ("b2", "dir"), ("link", "other"), ("pipe", "other"), ("z", "file"),
        ("é", "file"), ("b/c", "dir"), ("b/one", "file"), ("b/c/d", "dir"), ("b/c/two", "file"),
        ("b/c/d/three", "file"), ("b2/four", "file"),
    ]  # fmt: skip
    for work in found:
        status = os.lstat(tree / work.path)
        assert (work.signature, work.mode) == (Signature.of(status), status.st_mode)


def test_folders_that_are_known_are_not_listed(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed: list[int] = []
    real = worktree._list

    def counted(fd: int) -> list[tuple[str, os.stat_result]]:
        listed.append(os.fstat(fd).st_ino)
        return real(fd)

    monkeypatch.setattr(worktree, "_list", counted)
    with opened_folder(tree) as root_fd:
        found = scan_folders(root_fd, {"": ["b", "b2"], "b": ["b/c"]})
    names = {folder: None if each is None else [work.path for work in each]
             for folder, each in found.items()}  # fmt: skip
    assert names == {
        "": None, "b": None, "b/c": ["b/c/d", "b/c/two"], "b/c/d": ["b/c/d/three"],
        "b2": ["b2/four"],
    }  # fmt: skip
    assert list(found) == ["", "b", "b/c", "b/c/d", "b2"]
    assert listed == [os.stat(tree / name).st_ino for name in ("b/c", "b/c/d", "b2")]


def test_what_goes_while_it_is_listed_and_what_may_not_be_listed(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = worktree._open_unnoticed

    def opened(name: str, flags: int, dir_fd: int) -> int:
        if name == "c":
            raise PermissionError(errno.EACCES, "no")
        if name == "b2":
            raise FileNotFoundError(errno.ENOENT, "gone")
        return real(name, flags, dir_fd)

    monkeypatch.setattr(worktree, "_open_unnoticed", opened)
    with opened_folder(tree) as root_fd:
        found = scan(root_fd)
    assert seen(found) == [
        ("b", "dir"), ("b2", "dir"), ("link", "other"), ("pipe", "other"), ("z", "file"),
        ("é", "file"), ("b/c", "closed"), ("b/one", "file"),
    ]  # fmt: skip


# -- climbing


def test_a_climber_goes_no_further_than_it_must(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    step = Climber._step

    def counted(self: Climber, name: str) -> None:
        steps.append(name)
        step(self, name)

    monkeypatch.setattr(Climber, "_step", counted)
    before = len(os.listdir("/proc/self/fd"))
    with opened_folder(tree) as root_fd, Climber(root_fd) as climber:
        for folder, way in (
            ("", []), ("b/c", ["b", "c"]), ("b/c", []), ("b/c/d", ["d"]), ("b", ["..", ".."]),
            ("b2", ["..", "b2"]), ("b/c/d", ["..", "b", "c", "d"]), ("", ["..", "..", ".."]),
        ):  # fmt: skip
            steps.clear()
            fd = climber.enter(folder)
            assert os.fstat(fd).st_ino == os.stat(tree / folder).st_ino, folder
            assert steps == way, folder
        assert len(os.listdir("/proc/self/fd")) == before + 2
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_climber_that_lost_its_way_begins_at_the_root(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    real = worktree._open_unnoticed

    def noted(name: str, flags: int, dir_fd: int) -> int:
        opened.append(name)
        return real(name, flags, dir_fd)

    monkeypatch.setattr(worktree, "_open_unnoticed", noted)
    with opened_folder(tree) as root_fd, Climber(root_fd) as climber:
        climber.enter("b/c/d")
        (tree / "b/c/d").rename(tree / "b2/d")
        assert os.fstat(climber.enter("b/c")).st_ino == os.stat(tree / "b/c").st_ino
        with pytest.raises(OSError, match=r"Not a directory|Too many levels"):
            climber.enter("link/c")
        assert os.fstat(climber.enter("b")).st_ino == os.stat(tree / "b").st_ino
        opened.clear()
        assert os.fstat(climber.enter("b2")).st_ino == os.stat(tree / "b2").st_ino
        assert opened == ["..", "b2"], "from then on it knows where it is"


def test_a_folder_may_have_any_name_after_one_that_cannot_be_entered(tree: Path) -> None:
    """`?` stood for a move that had failed: the folder where that ended was taken for the one of
    this name, and a commit lost what is in it."""
    (tree / "?").mkdir()
    (tree / "?/inside").touch()
    with opened_folder(tree) as root_fd, Climber(root_fd) as climber:
        with pytest.raises(FileNotFoundError):
            climber.enter("b/no")
        assert os.listdir(climber.enter("?")) == ["inside"]


@pytest.mark.parametrize("deep", [False, True])
def test_what_is_at_a_path(tree: Path, deep: bool) -> None:
    """Also where the path is too long for the system."""
    with opened_folder(tree) as root_fd:
        place = ""
        if deep:
            place = "/".join(["d" * 200] * 25) + "/"
            with Climber(root_fd) as climber:
                folder = ""
                for name in place[:-1].split("/"):
                    os.mkdir(name, dir_fd=climber.enter(folder))
                    folder = f"{folder}/{name}".lstrip("/")
                fd = climber.enter(folder)
                os.mkdir("b", dir_fd=fd)
                os.symlink("b", "link", dir_fd=fd)
                os.mkfifo("pipe", dir_fd=fd)
                with open(os.open("z", os.O_CREAT | os.O_WRONLY, dir_fd=fd), "wb") as file:
                    file.write(b"z")
        kinds = {"z": "file", "b": "dir", "link": "other", "pipe": "other", "no": "", "z/x": ""}
        assert {name: kind_at(root_fd, place + name) for name in kinds} == kinds
        link = status_at(root_fd, place + "link")
        assert link is not None
        assert stat.S_ISLNK(link.st_mode)
        assert status_at(root_fd, place + "no") is None
        fd = open_file(root_fd, place + "z")
        assert os.read(fd, 9) == b"z"
        os.close(fd)
        os.close(open_file(root_fd, place + "pipe"))  # which is not waited for
        with pytest.raises(OSError, match="Too many levels"):
            open_file(root_fd, place + "link")
        with pytest.raises(FileNotFoundError):
            open_file(root_fd, place + "z/x")
        for name in ("z", "link", "pipe", "no", "no/such"):
            remove_file(root_fd, place + name)
            assert kind_at(root_fd, place + name) == ""
        with pytest.raises(OSError, match=r"Is a directory|Operation not permitted"):
            remove_file(root_fd, place + "b")


@pytest.mark.parametrize("length", [999, 1000, 1001])
def test_a_path_of_any_length_is_opened(tree: Path, length: int) -> None:
    folder = "/".join(["d" * 99] * 9)
    (tree / folder).mkdir(parents=True)
    path = folder + "/" + "f" * (length - len(folder) - 1)
    (tree / path).write_bytes(b"there")
    with opened_folder(tree) as root_fd:
        fd = open_file(root_fd, path)
        assert os.read(fd, 9) == b"there"
        os.close(fd)


def test_a_look_leaves_access_times_alone(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flags: list[int] = []
    real = os.open

    def opened(path: Any, how: int, *rest: Any, **where: Any) -> int:
        flags.append(how)
        if how & os.O_NOATIME:
            raise PermissionError(errno.EPERM, "the owner's alone")
        return real(path, how, *rest, **where)

    with opened_folder(tree) as root_fd:
        monkeypatch.setattr(os, "open", opened)
        os.close(open_file(root_fd, "z"))
    common = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    assert flags == [common | os.O_NOATIME, common]


# -- extracting


def test_what_is_extracted_and_how_often_it_is_told(tmp_path: Path) -> None:
    source, root = tmp_path / "source", tmp_path / "root"
    source.write_bytes(b"0123456789")
    (tmp_path / "large").write_bytes(bytes(CHUNK + 1))
    root.mkdir()
    told: list[tuple[str, int, int]] = []
    old_mask = os.umask(0)
    try:
        with source.open("rb") as file, opened_folder(root) as root_fd:
            items = [
                Item("lib", None, 0, 0), Item("lib/a", file.fileno(), 2, 5),
                Item("lib/large", tmp_path / "large", 0, CHUNK + 1),
                Item("chunk", tmp_path / "large", 0, CHUNK),
                *(Item(f"f{number:03}", source, 9, 1) for number in range(128)),
            ]  # fmt: skip
            done = extract(items, root_fd, lambda *each: told.append(each))
    finally:
        os.umask(old_mask)
    total = 5 + CHUNK + 1 + CHUNK + 128
    assert told == [
        ("extracting", 0, total), ("extracting", 5 + CHUNK + 1, total),
        ("extracting", total - 128 + 61, total), ("extracting", total - 128 + 125, total),
    ]  # fmt: skip
    assert done[0] is None
    first = done[1]
    assert first is not None
    assert first.digest == digest_bytes(b"23456")
    assert first.signature == Signature.of(os.stat(root / "lib/a"))
    assert stat.S_IMODE(os.stat(root / "lib").st_mode) == 0o755
    assert stat.S_IMODE(os.stat(root / "lib/a").st_mode) == 0o644
    assert (root / "lib/a").read_bytes() == b"23456"
    assert (root / "f127").read_bytes() == b"9"
    assert os.stat(root / "chunk").st_size == CHUNK


@pytest.mark.parametrize(
    ("name", "where", "said"),
    [
        ("n" * 256, "n" * 256, "cannot extract: File name too long (WHERE); file names on this "
         "machine are limited to 255 bytes, the camera's are not; romfsfs ls, cat and push still "
         "work on the image"),
        ("n" * 300, "n" * 300, "cannot extract: File name too long (WHERE); file names"),
        ("n" * 301, "n" * 300 + "...", "cannot extract: File name too long (WHERE); file names"),
        ("there", "there", "cannot extract: File exists (WHERE); this file system treats two "
         "names of the image as one; use a case-sensitive file system"),
        ("no/such", "no/such", "cannot extract: No such file or directory (WHERE); free space or "
         "choose another state folder with $ROMFSFS_STATE_DIR"),
    ],
)  # fmt: skip
def test_what_the_disk_cannot_hold_is_named(
    tmp_path: Path, name: str, where: str, said: str
) -> None:
    (tmp_path / "there").write_bytes(b"")
    with opened_folder(tmp_path) as root_fd, pytest.raises(RomfsError) as refused:
        extract([Item(name, tmp_path / "there", 0, 0)], root_fd)
    assert refused.value.line.startswith(said.replace("WHERE", where))


# -- digests


def test_a_digest_is_kept_where_its_signature_proves_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"x")
    reads: list[int] = []

    def read(fd: int) -> str:
        reads.append(fd)
        return "digest"

    monkeypatch.setattr(digests, "digest_fd", read)
    signature = Signature.of(path.stat())
    cache = digests.DigestCache()
    with path.open("rb") as file:
        for uncertain, answer, count in (
            (1, ("digest", None), 1), (1, ("digest", None), 2), (0, ("digest", signature), 3),
            (1, ("digest", signature), 3),
        ):  # fmt: skip
            monkeypatch.setattr(digests, "uncertain_for", lambda ns, each=uncertain: each)
            assert cache.digest(file.fileno()) == answer
            assert len(reads) == count
    monkeypatch.setattr(digests, "uncertain_for", lambda ns: ns)
    assert [digests.certain(Signature(1, 1, 1, ns)) for ns in (-1, 0, 1)] == [True, True, False]


def test_digests_of_what_is_gone_go_in_time() -> None:
    def of(number: int) -> Signature:
        return Signature(number, 0, 0, 0)

    cache = digests.DigestCache()
    for number in range(100):
        cache._known[of(number)] = "d"
    cache.keep([])
    assert len(cache._known) == 100
    cache._known[of(100)] = "d"
    cache.keep([*map(of, range(60)), of(777), None])
    assert sorted(each.inode for each in cache._known) == list(range(60))
    for number in range(60, 220):
        cache._known[of(number)] = "d"
    cache.keep([])
    assert len(cache._known) == 220, "twice as many, and some"
    cache._known[of(220)] = "d"
    cache.keep([])
    assert cache._known == {}


# -- paths


def test_paths() -> None:
    assert parents("a/b/c") == ["a", "a/b"]
    assert parents("a") == parents("") == []
    assert is_below("a/b/c", {"a/b"})
    assert is_below("a/b/c", {"a"})
    assert not is_below("a/b", {"a/b", "b", "a/b/c"})
    assert selected("a/b", [])
    assert selected("a/b", ["x", "a/b"])
    assert selected("a/b", ["a"])
    assert not selected("ab", ["a", "a/b"])
    litter = [".DS_Store", "._x", "Thumbs.db", "desktop.ini", ".directory", "__pycache__", "m.pyc"]
    assert all(is_litter(f"a/{name}") for name in litter)
    assert not any(map(is_litter, [".DS_Store/x", "a~", ".git", "thumbs.db", "__pycache__/x"]))


@pytest.mark.parametrize(
    ("number", "answer"),
    [(errno.ENOENT, True), (errno.ELOOP, True), (errno.EACCES, True), (errno.EPERM, True),
     (errno.ENXIO, True), (errno.EISDIR, True), (errno.EIO, False), (errno.EMFILE, False)],
)  # fmt: skip
def test_a_disk_that_fails_says_nothing_about_a_file(
    tmp_path: Path, number: int, answer: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(root_fd: int, path: str) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(restore, "open_file", failing)
    if answer:
        assert work_digest(-1, "x") is None
    else:
        with pytest.raises(OSError, match=os.strerror(number)):
            work_digest(-1, "x")


def test_a_file_with_its_signature_is_not_read(tree: Path) -> None:
    signature = Signature.of((tree / "z").stat())
    with opened_folder(tree) as root_fd:
        assert work_digest(root_fd, "z", signature, "known") == "known"
        for other in (None, signature._replace(size=7)):
            assert work_digest(root_fd, "z", other, "known") == digest_bytes(b"z")


# -- through the mount, or past it


class Changes:
    """A change of a tree, and the folders that it was done in."""

    def __init__(self, errors: list[BaseException] = []) -> None:  # noqa: B006 (only read)
        self.errors = list(errors)
        self.places: list[int] = []

    def __call__(self, fd: int) -> None:
        self.places.append(os.fstat(fd).st_ino)
        if self.errors:
            raise self.errors.pop(0)


def like_a_mount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A work tree, and a folder that passes for a mount of it: the same inode, with `ctl`."""
    work, root = tmp_path / "work", tmp_path / "root"
    work.mkdir()
    (root / ".romfs").mkdir(parents=True)
    (root / ".romfs/ctl").write_text("")
    real, number = os.stat, root.stat().st_ino

    def same(path: Any, *rest: Any, **how: Any) -> Any:
        found = real(path, *rest, **how)
        if path != work:
            return found
        return os.stat_result((found[0], number, *found[2:10]))

    monkeypatch.setattr(restore.os, "stat", same)
    return work, root


def wrapped(number: int) -> RomfsError:
    error = RomfsError("cannot restore")
    error.__cause__ = OSError(number, "no")
    return error


@pytest.mark.parametrize(
    ("error", "goes_on"),
    [
        (None, None), (OSError(errno.ENOTCONN, "gone"), True), (OSError(errno.EROFS, "ro"), True),
        (OSError(errno.ECONNABORTED, "gone"), True), (OSError(errno.EIO, "disk"), False),
        (wrapped(errno.ENOTCONN), True), (wrapped(errno.ENOSPC), False),
        (RomfsError("of another kind"), False), (FileNotFoundError(errno.ENOENT, "x"), False),
    ],
)  # fmt: skip
def test_a_tree_is_changed_through_its_mount_while_there_is_one(
    tmp_path: Path, error: BaseException | None, goes_on: bool | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    work, root = like_a_mount(tmp_path, monkeypatch)
    inner, outer = os.lstat(work).st_ino, os.lstat(root).st_ino
    change = Changes([] if error is None else [error])
    if goes_on is False:
        assert error is not None
        with pytest.raises(type(error)) as raised:
            change_tree(work, root, change)
        assert raised.value is error
        assert change.places == [outer]
    else:
        change_tree(work, root, change)
        assert change.places == ([outer, inner] if goes_on else [outer])
    if error is not None:  # not to be kept with its traceback
        error.__traceback__ = None


@pytest.mark.parametrize("what", ["the folder below", "another mount", "gone", "a file", "itself"])
def test_a_mount_that_is_not_there_any_more_is_gone_past(
    tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    work, root = tmp_path / "work", tmp_path / "root"
    work.mkdir()
    if what == "another mount":
        (root / ".romfs").mkdir(parents=True)
        (root / ".romfs/ctl").write_text("")
    elif what == "a file":
        root.write_text("")
    elif what == "the folder below":
        root.mkdir()
    elif what == "itself":
        root = work
    change = Changes()
    change_tree(work, root, change)
    assert change.places == [work.stat().st_ino]


# -- putting back


def test_what_the_tree_shows_of_the_base(desk: Desk) -> None:
    desk.open()
    desk.write("lib/app.py", b"x = 1\n")
    desk.commit()
    held, memory = desk.session.held(), desk.session.recall()
    entries = {entry.source: entry for entry in held.base.entries}
    assert shown_item(entries["empty"], held, memory) == Item("empty", None, 0, 0)
    offset, size = held.extents["a.txt"]
    assert shown_item(entries["a.txt"], held, memory) == Item("a.txt", held.fd, offset, size)
    shown = shown_item(entries["lib/app.py"], held, memory)
    assert (shown.path, shown.offset, shown.size) == ("lib/app.py", 0, 6)
    memory.trim(0)
    forgotten = shown_item(entries["lib/app.py"], held, Recall("x"))
    assert forgotten == Item("lib/app.mpy", held.fd, *held.extents["lib/app.mpy"])


def test_what_is_put_back_is_whole_and_nothing_else_is_touched(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is left, one over another, one in a folder that is gone, one that was new."""
    desk.open()
    session = desk.session
    synced: list[tuple[str, list[str]]] = []

    def sync(folder: Path, files: Any = (), names: Any = ()) -> None:
        synced.append((folder.name, sorted([*files, *names])))

    monkeypatch.setattr(restore, "sync_paths", sync)
    other = desk.write("kept.txt", b"kept")
    before = Signature.of(other.stat())
    desk.write("a.txt", b"edited")
    (desk.work / "lib/b.bin").unlink()
    (desk.work / "lib").rmdir()
    desk.write("made/deep/new", b"new")
    desk.write("made/stays", b"stays")
    leftover = desk.write(f"{session.folder.beside}000000", b"of a killed process")
    wanted = ["a.txt", "lib/b.bin", "made", "made/deep", "made/deep/new", "gone"]
    restore.restore(session.held(), wanted, session.folder, None, session.recall())
    assert tree_of(desk.work) == {
        "a.txt": b"first\n", "empty": None, "kept.txt": b"kept", "lib": None,
        "lib/b.bin": bytes(range(200)), "made": None, "made/stays": b"stays",
    }  # fmt: skip
    assert not leftover.exists()
    assert Signature.of(other.stat()) == before
    beside = session.folder.beside
    assert synced == [
        ("work", sorted([f"{beside}000000", f"lib/{beside}000002"])), ("work", sorted(wanted)),
    ]  # fmt: skip


def test_what_is_edited_at_the_last_moment_stays(desk: Desk) -> None:
    desk.open()
    session = desk.session
    asked: list[str] = []

    def edited(path: str) -> bool:
        asked.append(path)
        return path in ("a.txt", "new")

    desk.write("a.txt", b"just saved")
    desk.write("new", b"just made")
    desk.write("lib/b.bin", b"edited")
    wanted = ["a.txt", "new", "lib/b.bin"]
    restore.restore(session.held(), wanted, session.folder, None, session.recall(), edited)
    assert tree_of(desk.work) == {
        "a.txt": b"just saved", "empty": None, "lib": None, "lib/b.bin": bytes(range(200)),
        "new": b"just made",
    }  # fmt: skip
    assert set(asked) == set(wanted)


def test_a_disk_that_fails_leaves_no_half_of_a_file(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.open()
    session = desk.session
    desk.write("a.txt", b"edited")
    desk.write("lib/b.bin", b"edited")
    renames: list[str] = []
    rename = os.rename

    def failing(old: Any, new: Any, **how: Any) -> None:
        renames.append(str(new))
        if len(renames) == 2:
            raise OSError(errno.EIO, "the disk")
        rename(old, new, **how)

    monkeypatch.setattr(os, "rename", failing)
    with pytest.raises(OSError, match="the disk"):
        restore.restore(
            session.held(), ["a.txt", "lib/b.bin"], session.folder, None, session.recall()
        )
    assert renames == ["b.bin", "a.txt"]
    assert tree_of(desk.work) == {
        "a.txt": b"edited", "empty": None, "lib": None, "lib/b.bin": bytes(range(200)),
    }  # fmt: skip


def test_a_folder_that_cannot_be_removed_is_named(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.open()
    session = desk.session

    def failing(*_: Any, **__: Any) -> None:
        raise OSError(errno.EIO, "Input/output error")

    desk.write("made/x", b"x").unlink()
    monkeypatch.setattr(os, "rmdir", failing)
    with pytest.raises(RomfsError) as refused:
        restore.restore(session.held(), ["made"], session.folder, None, session.recall())
    assert refused.value.line == (
        "cannot restore: Input/output error (made); nothing else was lost; check the disk, "
        "then repeat the command"
    )
    assert isinstance(refused.value.__cause__, OSError)


def test_what_a_killed_process_left_is_told_from_the_user_s(desk: Desk) -> None:
    desk.open()
    session = desk.session
    beside = session.folder.beside
    desk.write(f"lib/{beside}000001", b"half of a file")
    desk.write(f"x{beside}000001", b"the user's")
    held = session.held()
    stored = BaseEntry(f"{beside}7", 1, "d", f"{beside}7", "d", None)
    object.__setattr__(held.base, "entries", (*held.base.entries, stored))
    desk.write(f"{beside}7", b"of the image")
    restore.remove_unfinished(held, session.folder)
    assert not (desk.work / f"lib/{beside}000001").exists()
    assert (desk.work / f"x{beside}000001").exists()
    assert (desk.work / f"{beside}7").exists()


def test_only_what_looks_torn_is_put_back(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Missing; or with the time of the extraction, no longer than it was, and with other bytes."""
    files = {
        name: bytes(50) for name in ("torn", "longer", "later", "same", "gone", "link", "zero")
    }
    (desk.image.parent / "2").mkdir()
    desk = Desk.with_image(desk.image.parent / "2", files, ["folder"])
    desk.open()
    work = desk.work

    def put(name: str, data: bytes, later: int = 0) -> None:
        time_ns = (work / name).stat().st_mtime_ns + later
        (work / name).write_bytes(data)
        os.utime(work / name, ns=(time_ns, time_ns))

    put("torn", b"\1" * 50)
    put("zero", b"")
    put("longer", bytes(51))
    put("later", b"\1" * 50, later=1)
    (work / "gone").unlink()
    (work / "link").unlink()
    (work / "link").symlink_to("same")
    (work / "folder").rmdir()
    put_back: list[list[str]] = []
    real: Callable[..., None] = restore.restore

    def noted(held: Any, paths: list[str], *rest: Any) -> None:
        put_back.append(list(paths))
        real(held, paths, *rest)

    monkeypatch.setattr(restore, "restore", noted)
    session = desk.session
    restore.mend_torn(session.held(), session.folder, session.recall())
    assert [sorted(paths) for paths in put_back] == [["folder", "gone", "torn", "zero"]]
    restore.mend_torn(session.held(), session.folder, session.recall())
    assert len(put_back) == 1
