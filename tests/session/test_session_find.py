"""Which session a name means, what is said where it means none, and what a mount is asked to be."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from session_desk import Camera, Desk

from romfsfs.errors import DeviceAbsent, RomfsError, SessionBusy, UsageError
from romfsfs.image.writer import encode
from romfsfs.session import find, mounting
from romfsfs.session.find import Found, find_session
from romfsfs.session.keep import folder as folders
from romfsfs.session.keep.locks import MountedAt
from romfsfs.session.mounting import MountRequest
from romfsfs.session.rebase.read import OpenOptions
from romfsfs.session.revert import leave_work
from romfsfs.session.session import Session
from romfsfs.system import mount_table


def said(work: Callable[[], object]) -> str:
    with pytest.raises(RomfsError) as refused:
        work()
    return refused.value.line


@pytest.fixture
def other(tmp_path: Path) -> Desk:
    (tmp_path / "2").mkdir()
    return Desk.with_image(tmp_path / "2", {"b.txt": b"b"})


LISTS = "romfsfs sessions lists them"


def test_a_file_names_its_session(desk: Desk) -> None:
    image = str(desk.image)
    assert said(lambda: find_session(image)) == (
        f"there is no session for it: it has not been mounted yet ({image}); romfsfs mount {image} "
        "DIR"
    )
    assert said(lambda: find_session(image, 1)).endswith(f"mount {image} DIR --partition 1")
    desk.open()
    for how in ((None, ""), (0, "")):
        found = find_session(image, *how)
        assert (found.session.folder.path, found.mountpoint, found.inside) == (
            desk.session.folder.path, None, "",
        )  # fmt: skip
    line = f"that is a session of partition 0 ({image}); {LISTS}"
    assert said(lambda: find_session(image, 1)) == line
    desk.image.unlink()
    assert find_session(image).session.folder.path == desk.session.folder.path, "it has its edits"
    link = desk.image.with_name("link.img")
    desk.image.symlink_to(desk.image.with_name("other.img"))
    desk.image.with_name("other.img").write_bytes(encode({}))
    assert find_session(image).session.folder.path == desk.session.folder.path
    link.symlink_to("other.img")
    assert "it has not been mounted yet" in said(lambda: find_session(str(link)))


def test_what_names_no_session(desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = tmp_path / "no such"
    assert said(lambda: find_session(str(nothing))) == (
        f"no such file or folder ({nothing}); romfsfs sessions lists what is known"
    )
    assert said(lambda: find_session(str(tmp_path))) == (
        f"romfsfs has nothing mounted there ({tmp_path}); romfsfs sessions lists what is"
    )
    monkeypatch.setattr(os.path, "ismount", lambda path: path == str(tmp_path))
    assert said(lambda: find_session(str(tmp_path))) == (
        f"something is mounted there, but not by a session of yours ({tmp_path}); run this as the "
        "user who mounted it, with the same $ROMFSFS_STATE_DIR"
    )

    def refused(path: str) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(find.os, "stat", refused)
    assert said(lambda: find._refuse_hidden("x")) == (
        "permission denied (x); if another user mounted it, run this as that user"
    )


def test_without_a_name_the_only_one_with_edits_is_meant(
    desk: Desk, other: Desk, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    none = f"no session has edits: name a directory or source; {LISTS}"
    assert said(lambda: find_session(None)) == none
    desk.open()
    assert find_session(None).session.folder.path == desk.session.folder.path, "it is the only one"
    other.open()
    assert said(lambda: find_session(None)) == none
    desk.write("a.txt", b"edited")
    assert find_session(None).session.folder.path == desk.session.folder.path
    other.session.folder.base.write_bytes(b"{")  # nobody knows
    both = ", ".join(sorted([str(desk.image), str(other.image)]))
    line = said(lambda: find_session(None))
    assert line.startswith("several sessions have edits: name a directory or source (")
    assert sorted(line.partition(" (")[2].partition(")")[0].split(", ")) == both.split(", ")
    assert line.endswith(f"); {LISTS}")
    other.session.folder.base.unlink()
    shutil.rmtree(other.work)
    assert find_session(None).session.folder.path == desk.session.folder.path


@pytest.mark.parametrize(
    ("where", "work", "interrupted", "idle"),
    [(None, False, False, True), (None, True, False, False), (None, False, True, False),
     (Path("/m"), False, False, False)],
)  # fmt: skip
def test_which_need_not_be_looked_at(
    desk: Desk, where: Path | None, work: bool, interrupted: bool, idle: bool
) -> None:
    desk.open()
    if not work:
        leave_work(desk.session)
    if interrupted:
        desk.session.folder.record.write_text("")
    assert Found(desk.session, where).idle is idle


def test_files_that_are_open_in_a_mount(desk: Desk, tmp_path: Path) -> None:
    session = desk.open()
    (tmp_path / "cam/.romfs").mkdir(parents=True)
    (tmp_path / "cam/.romfs/writers").write_bytes(b"a.py\0lib/\xff\0")
    found = Found(session, tmp_path / "cam")
    assert found.mounted == (tmp_path / "cam", found.open_files)
    assert found.open_files() == ["a.py", "lib/\udcff"]
    assert Found(session, None).open_files() == []
    with session.folder.lock_for_mount("x") as lock:
        lock.write(MountedAt(7, "/gone"))
        with pytest.raises(SessionBusy, match=r"its mount at /gone cannot be reached"):
            Found(session, None).open_files()


@pytest.fixture
def mounts(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Mountpoints and whose they are; those in `stuck` do not answer."""
    there: dict[str, Any] = {"stuck": set()}
    known = lambda **_: {  # noqa: E731
        place: desk.session.folder for place, desk in there.items() if place != "stuck"
    }
    monkeypatch.setattr(find, "mounted_folders", known)
    monkeypatch.setattr(folders, "mounted_folders", known)
    monkeypatch.setattr(find, "answers", lambda place: place not in there["stuck"])
    return there


def test_a_path_in_a_mount_names_it(
    desk: Desk, other: Desk, mounts: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The innermost, where several lie in each other; also without a name, from within."""
    desk.open()
    other.open()
    outer, inner = tmp_path / "cam", tmp_path / "cam/lib/inner"
    (inner / "deep").mkdir(parents=True)
    mounts |= {str(outer): desk, str(inner): other}
    for path, mount, whose, inside in (
        (outer, outer, desk, ""), (outer / "lib", outer, desk, "lib"),
        (outer / "a/b", outer, desk, "a/b"), (inner, inner, other, ""),
        (inner / "deep", inner, other, "deep"),
    ):  # fmt: skip
        found = find_session(str(path))
        assert (found.mountpoint, found.inside) == (mount, inside)
        assert found.session.folder.path == whose.session.folder.path
    for how, what in (((1, ""), "partition 0"), ((None, "B"), "slot A"), ((1, "B"), "slot A")):
        line = f"that is a session of {what} ({desk.image}); {LISTS}"
        assert said(lambda how=how: find_session(str(outer), *how)) == line
    assert find_session(str(outer), 0, "A").mountpoint == outer
    for name, target in (("one", "cam/lib"), ("two", "one/../a.py"), ("back", inner / "deep/..")):
        (tmp_path / name).symlink_to(target)
    for path, mount, inside in (
        ("one", outer, "lib"), ("one/x", outer, "lib/x"), ("two", outer, "a.py"),
        ("one/inner/deep", inner, "deep"), ("back", inner, ""), ("back/..", outer, "lib"),
    ):  # fmt: skip
        found = find_session(str(tmp_path / path))
        assert (found.mountpoint, found.inside) == (mount, inside), f"where {path} leads"
    monkeypatch.chdir(inner / "deep")
    assert find_session(None).mountpoint == inner
    with desk.session.folder.lock_for_mount("x") as lock:
        lock.write(MountedAt(7, "/my cam"))
        no_answer = (
            "the mount does not answer (process 7); if it was stopped, kill -CONT 7; or romfsfs "
            "umount --lazy '/my cam': the edits are kept"
        )
        mounts["stuck"] = {str(outer)}
        looked: list[str] = []
        readlink = os.readlink
        monkeypatch.setattr(os, "readlink", lambda path: looked.append(path) or readlink(path))
        for path in (outer, outer / "lib", inner, tmp_path / "one", tmp_path / "one/inner"):
            assert said(lambda path=path: find_session(str(path))) == no_answer
        assert not [path for path in looked if path.startswith(f"{outer}/")]
        assert find_session(str(outer), stuck=True).mountpoint == outer
        assert said(lambda: find_session(str(outer / "lib"), stuck=True)) == no_answer
        assert find.server(find_session(str(outer), stuck=True)) == (7, "/my cam")
    assert find.server(find_session(str(outer), stuck=True)) == (0, str(outer))
    assert not find.is_stuck(Found(desk.session, None))


def test_a_mount_whose_process_was_killed_names_its_session(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.open()
    where, link = (str(tmp_path / name) for name in ("my cam", "link"))
    os.symlink("my cam/lib", link)
    monkeypatch.setattr(
        mount_table, "is_dead", lambda place: f"{place}/".startswith((f"{where}/", f"{link}/"))
    )
    line = (
        "the daemon of this mount has ended, and no session is recorded as mounted there "
        f"({where}); romfsfs umount '{where}'"
    )
    for path in (where, f"{where}/lib/a.py", link):
        assert said(lambda path=path: find_session(path)) == line
    with desk.session.folder.lock_for_mount("x") as lock:
        lock.write(MountedAt(7, where))
    for path, inside in (
        (where, ""), (f"{where}/lib/a.py", "lib/a.py"), (link, "lib"), (f"{link}/b", "lib/b")
    ):  # fmt: skip
        found = find_session(path)
        assert found == (found.session, None, inside)
        assert found.session.folder.path == desk.session.folder.path


def test_a_session_and_where_it_is_mounted(
    desk: Desk, mounts: dict[str, Any], tmp_path: Path
) -> None:
    desk.open()
    with desk.session.folder.lock_for_mount("x") as lock:
        assert find.as_found(desk.session).mountpoint is None, "not mounted yet"
        lock.write(MountedAt(7, str(tmp_path)))
        assert find.as_found(desk.session).mountpoint is None, "out of reach"
        mounts[str(tmp_path)] = desk
        assert find.as_found(desk.session).mountpoint == tmp_path
    assert find.as_found(desk.session).mountpoint is None


# -- cameras


def test_a_camera_is_asked_unless_it_is_known_and_only_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flash = Camera(tmp_path / "flash")
    asked: list[object] = []
    known: list[Session | None] = [None]
    gone: list[Session | None] = [None]

    @contextmanager
    def device(source: str, **how: object) -> Iterator[Camera]:
        asked.append((source, *how.values()))
        if gone != [None]:
            raise DeviceAbsent("not there", where=source)
        yield flash

    monkeypatch.setattr(find, "device", device)
    monkeypatch.setattr(find, "is_camera", lambda source: source == "camera")
    monkeypatch.setattr(find, "known_session", lambda *how: asked.append(how) or known[0])  # type: ignore[func-returns-value]
    monkeypatch.setattr(find, "unplugged_session", lambda *how: asked.append(how) or gone[0])  # type: ignore[func-returns-value]
    assert said(lambda: find_session("camera", 1, "B")) == (
        "there is no session for it: it has not been mounted yet (camera); romfsfs mount camera "
        "DIR --partition 1 --slot B"
    )
    session = Desk(flash, "camera").open()

    def found(*how: Any, **looks: bool) -> list[object]:
        asked.clear()
        each = find_session("camera", *how, **looks)
        assert each.session.folder.path == session.folder.path
        return list(asked)

    assert found() == [("camera", None, "")]
    assert found(only_looks=True) == [("camera", 0, ""), ("camera", None, "")]
    known[0] = session
    assert found(0, "A", only_looks=True) == [("camera", 0, "A")]
    gone[0] = session
    assert found() == [("camera", None, ""), ("camera", 0, "")]
    gone[0] = None
    gone.append(None)
    with pytest.raises(DeviceAbsent, match="not there"):
        find_session("camera")
    with pytest.raises(UsageError, match="no such file or folder"):
        find_session("elsewhere")


def test_a_camera_is_reached_as_it_is_named_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was opened on a serial port that is gone: it is in its boot loader, which is named."""
    flash = Camera(tmp_path / "flash")

    @contextmanager
    def device(source: str, **how: object) -> Iterator[Camera]:
        yield flash

    monkeypatch.setattr(find, "device", device)
    monkeypatch.setattr(find, "is_camera", lambda source: True)
    folder = Desk(flash, "/dev/ttyACM0").open().folder
    for source in ("dfu:OPENMV4P", "/dev/ttyACM1"):
        session = find_session(source).session
        assert (session.folder.path, session.info.source) == (folder.path, source)
        assert Session.load(folder).info.source == "/dev/ttyACM0", "until it is opened"


# -- what is to be mounted


@pytest.mark.parametrize(
    ("source", "port", "kept"),
    [
        ("camera", False, True), ("camera:AE3", False, True), ("dfu:N6", False, True),
        ("cameras.img", False, False), ("app.img", False, False), ("COM3", True, True),
        ("there", True, False),
    ],
)  # fmt: skip
def test_what_a_source_is_called_by_a_process_that_works_elsewhere(
    source: str, port: bool, kept: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").touch()
    monkeypatch.setattr(mounting, "is_camera", lambda given: port)
    request = MountRequest(source, Path("cam"), OpenOptions(), False)
    assert request.source == (source if kept else str(tmp_path / source))
    assert request.mountpoint == str(tmp_path / "cam")
    assert (request.resumed, request.said, request.say_where()) == (None, [], [])


@pytest.mark.parametrize("hidden", ["state", "cache", "app.img", None])
def test_a_mount_does_not_hide_what_it_needs(
    tmp_path: Path, hidden: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = {name: tmp_path / (f"cam/{name}" if name == hidden else f"camera/{name}")
              for name in ("state", "cache", "app.img")}  # fmt: skip
    monkeypatch.setenv("ROMFSFS_STATE_DIR", str(places["state"]))
    monkeypatch.setenv("ROMFSFS_CACHE_DIR", str(places["cache"]))
    for source in (str(places["app.img"]), "camera"):
        request = MountRequest(source, tmp_path / "cam", OpenOptions(), False)
        if hidden is None or (hidden == "app.img" and source == "camera"):
            request._refuse_to_hide()
            continue
        assert said(request._refuse_to_hide) == (
            f"the mount would hide {places[hidden]}, which it needs ({tmp_path}/cam); choose an "
            "empty folder"
        )


@pytest.mark.parametrize("edits", [True, False])
def test_a_mount_is_opened_locked_and_says_where_it_is(
    desk: Desk, tmp_path: Path, edits: bool
) -> None:
    asked: list[tuple[str, str, str]] = []

    class Told:
        def close(self) -> None:
            asked.append(("", "", "closed"))

        def ended(self, changes: int) -> None:
            asked.append(("", "", f"{changes} left"))

    def notifier(*words: str) -> Any:
        asked.append(words)
        return Told()

    if edits:
        desk.open()
        desk.write("a.txt", b"edited")
    else:
        (tmp_path / "app.img").write_bytes(encode({}))
    request = MountRequest(str(desk.image), tmp_path / "cam", OpenOptions(), not edits, notifier)
    with pytest.raises(UsageError):
        MountRequest(str(desk.image), tmp_path, OpenOptions(), True).open_host(print)
    request.said.append("said")
    host = request.open_host(lambda *told: None)
    try:
        assert host.session.info.source == str(desk.image)
        assert (host.read_only, host.tells_end) == (not edits, False)
        assert (request.resumed is not None) is edits
        folder = host.session.folder
        holder = folder.mounted_at()
        assert holder is not None
        assert (holder.pid, holder.mountpoint) == (os.getpid(), "")
        assert request.say_where() == ["said"]
        holder = folder.mounted_at()
        assert holder is not None
        assert holder[:2] == (os.getpid(), str(tmp_path / "cam"))
        assert host.tells_end
        with host._open_device() as opened:
            assert opened.info().key == str(desk.image)
            assert (folder.changed_by() or os.getpid()) == os.getpid()
    finally:
        host.close()
        request.give_up()  # which it is too late for
        assert request._entered is not None
        assert folder.mounted_at() is not None
        request._entered.lock.release()
    image = str(desk.image)
    assert asked == [
        (image, "in the image file", image), ("", "", "closed"), *[("", "", "1 left")] * edits,
    ]  # fmt: skip
