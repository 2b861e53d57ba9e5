"""What a session keeps on disk, module by module: records that are damaged, the log and its budget,
locks and their words, remembered sources."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from session_desk import Desk, image_of
from stopping import ends_at

from romfsfs.errors import ImageFormatError, RomfsError, SessionBusy
from romfsfs.image.rules import AlignmentRules
from romfsfs.image.writer import encode
from romfsfs.session.keep import base_image, history, locks, recall, settling
from romfsfs.session.keep import folder as folders
from romfsfs.session.keep.folder import SessionFolder, all_sessions, make_folder, session_id
from romfsfs.session.keep.history import HistoryEntry
from romfsfs.session.keep.images import parse_fd
from romfsfs.session.keep.locks import Lock, MountedAt, holder_of, last_holder
from romfsfs.session.keep.recall import Recalled, shown_as
from romfsfs.session.keep.state import Base, BaseEntry, SessionInfo, dump, save
from romfsfs.session.rebase.record import Record
from romfsfs.session.rebase.undo import undo
from romfsfs.system.files import digest_bytes

# -- records


@pytest.fixture
def interrupted(desk: Desk) -> Desk:
    """A session with all three records."""
    desk.open()
    desk.write("app.py", b"x = 1\n")
    with ends_at("recorded", InterruptedError):
        desk.commit()
    return desk


LOADS: dict[str, Callable[[SessionFolder], object]] = {
    "session.json": lambda folder: SessionInfo.load(folder.info),
    "base.json": lambda folder: Base.load(folder.base),
    "rebase.json": Record.load,
}
RESCUE = (
    "your files are in the folder 'work' beside it: copy them out, then remove the session's folder"
)


@pytest.mark.parametrize("name", LOADS)
def test_a_record_that_is_damaged_says_how_to_rescue_the_edits(
    interrupted: Desk, name: str
) -> None:
    """Whatever is wrong with it: each field gone or of a kind that it never is."""
    folder = interrupted.session.folder
    path = folder.path / name
    whole = json.loads(path.read_bytes())
    load = LOADS[name]
    assert load(folder) == load(folder)
    #: Those that came later than sessions of 0.1.0.
    later = {"usb_serial", "notes", "slots", "slot", "here", "same"}

    def said(record: object) -> str:
        path.write_bytes(record if isinstance(record, bytes) else json.dumps(record).encode())
        with pytest.raises(RomfsError) as refused:
            load(folder)
        line = refused.value.line
        assert line.startswith("session state ")
        assert f"({path}); " in line
        return line.partition(f" ({path}); ")[0]

    for field in whole.keys() - {"version"}:
        left = {key: value for key, value in whole.items() if key != field}
        if field in later:
            path.write_bytes(json.dumps(left).encode())
            load(folder)
        else:
            assert said(left) == f"session state is damaged: '{field}'"
        assert said({**whole, field: 1.5}) == f"session state is damaged: {field} is 1.5"
    other = "session state was written by another version of romfsfs"
    assert said({**whole, "version": 1}) == said([1]) == said({}) == other
    assert said(b"{").startswith("session state is damaged: ")
    assert said(b"[" * 100_000).startswith("session state is damaged: ")
    if name != "session.json":
        entries = "entries" if name == "base.json" else "before"
        assert said({**whole, entries: [[1]]}).startswith("session state is damaged: ")
    path.write_bytes(json.dumps({**whole, "version": "2"}).encode())
    with pytest.raises(RomfsError) as refused:
        load(folder)
    assert refused.value.next_step == (
        "finish the session with that version, or copy your files out of 'work' beside it"
    )
    path.write_bytes(b"")
    with pytest.raises(RomfsError) as refused:
        load(folder)
    assert refused.value.next_step == RESCUE


def test_a_record_comes_back_as_it_was(interrupted: Desk) -> None:
    folder = interrupted.session.folder
    record = Record.load(folder)
    assert (record.kind, record.restores, record.writes, record.logged) == ("commit", -1, True, 0)
    assert (record.follows, record.slot, record.pid) == (None, "", os.getpid())
    assert record.base.entries != ()
    assert record.stood_on is not None
    assert sorted((entry.path, entry.is_dir) for entry in record.base.entries) == [
        ("a.txt", False), ("app.mpy", False), ("empty", True), ("lib", True), ("lib/b.bin", False),
    ]  # fmt: skip
    for follows in (None, (), ("a", "b")):
        for stood_on in (None, record.base):
            other = Record("undo", record.before, record.base, stood_on, "x", 3, False, follows, 7)
            other.save(folder)
            assert Record.load(folder) == other
    info = SessionInfo(
        key="k", kind="serial", source="camera", name="n", mpy_version=(6, 3), excludes=("a",),
        notes=("b",), here=("c",), history_bytes=5,
    )  # fmt: skip
    save(folder.info, dump(info, 1))
    assert SessionInfo.load(folder.info) == info
    assert folder.info.read_text().startswith('{\n "version": 2,\n')
    assert folder.base.read_text().startswith('{"version":2,"')


@pytest.mark.parametrize(
    ("kind", "partition", "slot", "argument", "title"),
    [
        ("file", 0, "", "'my camera'", "N"), ("file", 1, "", "'my camera'", "N"),
        ("serial", 0, "", "'my camera'", "N"),
        ("serial", 1, "", "'my camera' --partition 1", "N, partition 1"),
        ("dfu", 2, "B", "'my camera' --partition 2 --slot B", "N, partition 2, slot B"),
        ("serial", 0, "B", "'my camera' --slot B", "N, slot B"),
    ],
)  # fmt: skip
def test_how_a_target_is_named(
    kind: str, partition: int, slot: str, argument: str, title: str
) -> None:
    info = SessionInfo(
        key="k", kind=kind, name="N", source="my camera", partition=partition, slot=slot
    )
    assert (info.argument, info.title) == (argument, title)


def test_the_base_by_folder_and_by_source() -> None:
    entries = tuple(
        BaseEntry(path, None if path == "lib" else 1, "d", source, "s", None)
        for path, source in (("a.mpy", "a.py"), ("lib", "lib"), ("lib/b", "lib/b"))
    )
    base = Base("d", 20, 16, None, None, entries)
    assert {name: [e.path for e in found] for name, found in base.folders.items()} == {
        "": ["a.mpy", "lib"], "lib": ["lib/b"],
    }  # fmt: skip
    assert [(name, entry.path) for name, entry in base.by_source.items()] == [
        ("a.py", "a.mpy"), ("lib", "lib"), ("lib/b", "lib/b"),
    ]  # fmt: skip
    assert base.trailing == 4


# -- the folder


def test_the_names_in_a_session_s_folder(tmp_path: Path) -> None:
    folder = SessionFolder(tmp_path / "app.img-0123456789ab")
    assert {name: path.name for name, path in vars(folder).items() if isinstance(path, Path)} == {
        "path": "app.img-0123456789ab", "info": "session.json", "base": "base.json",
        "record": "rebase.json", "work": "work", "new_work": "work.new", "old_work": "work.old",
        "hidden": "hidden", "history": "history", "staged": "staged.img", "found": "found.img",
        "unsettled": "unsettled", "log": "log", "gone": "gone", "_mount_lock": "lock",
        "_change_lock": "commit.lock",
    }  # fmt: skip
    assert folder.beside == ".romfsfs.restore.0123456789ab."
    assert folder.image("ab") == folder.path / "history/ab.img"


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("/home/me/my app.img", "my_app.img"), ("/", "target"),
        ("OPENMV4P/0123/0", "OPENMV4P_0123_0"), ("/a/" + "x" * 99, "x" * 60),
    ],
)  # fmt: skip
def test_a_session_is_called_after_its_target(key: str, name: str) -> None:
    stem, _, digest = session_id(key).rpartition("-")
    assert stem == name
    assert digest == digest_bytes(os.fsencode(key))[:12]


def test_a_new_file_takes_the_place_of_a_leftover_and_goes_when_it_fails(tmp_path: Path) -> None:
    path = tmp_path / "staged.img"
    path.write_bytes(b"an earlier attempt's, which is longer")
    other = tmp_path / "other"
    os.link(path, other)
    with SessionFolder.create(path) as file:
        file.write(b"new")
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o600
    assert other.read_bytes().startswith(b"an earlier"), "what another name has is left alone"
    with pytest.raises(ZeroDivisionError), SessionFolder.create(path) as file:
        raise ZeroDivisionError
    assert not path.exists()


def test_sessions_that_can_be_read(desk: Desk) -> None:
    desk.open()
    folder = desk.session.folder
    for name in ("a-1", "z-1"):
        damaged = make_folder(f"/x/{name}")
        damaged.info.write_text("{")
    make_folder("/x/empty")
    (folder.path.parent / "file").write_text("")
    assert [(each.path, info) for each, info in all_sessions()] == [
        (folder.path, SessionInfo.load(folder.info))
    ]


# -- locks


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"pid": 7, "mountpoint": "/m"}', MountedAt(7, "/m")),
        ('{"pid": 7, "mountpoint": "/m", "resumed": true, "boot": "b", "since": 3, '
         '"doing": "commit"}',
         MountedAt(7, "/m", "b", 3.0, "commit")),
        ("", MountedAt(0, "")), ('{"pid": 7}', MountedAt(0, "")), ("[]", MountedAt(0, "")),
        ('{"pid": 1e999, "mountpoint": ""}', MountedAt(0, "")), ("[" * 8000, MountedAt(0, "")),
        ('{"pid": "x", "mountpoint": ""}', MountedAt(0, "")),
    ],
)  # fmt: skip
def test_the_words_of_a_lock(tmp_path: Path, text: str, said: MountedAt) -> None:
    path = tmp_path / "lock"
    with pytest.raises(FileNotFoundError):
        last_holder(path)
    assert holder_of(path) is None
    path.write_text(text)
    assert last_holder(path) == said
    assert holder_of(path) is None
    with path.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert holder_of(path) == said


def test_what_is_said_with_a_lock_replaces_what_was_said_before(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.write_text("x" * 999)
    before = time.monotonic()
    with Lock(path) as lock:
        assert lock.acquire("commit")
        held = last_holder(path)
        assert held.is_me
        assert held._replace(since=0.0, who="") == MountedAt(
            os.getpid(), "", settling.boot_id(), 0.0, "commit"
        )
        assert before <= held.since <= time.monotonic()
        for said in (MountedAt(3, "/somewhere/else"), MountedAt(3, "")):
            lock.write(said)
            assert last_holder(path)[:2] == said[:2]
    assert holder_of(path) is None
    lock.release()  # once more does nothing
    fresh = tmp_path / "fresh"
    with Lock(fresh) as lock:
        assert lock.acquire()
    assert fresh.stat().st_mode & 0o777 == 0o600


def test_a_lock_whose_words_cannot_be_written_is_given_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    lock = Lock(tmp_path / "lock")
    with monkeypatch.context() as hurting:
        hurting.setattr(os, "pwrite", full)
        with pytest.raises(OSError, match=r"No space left on device: .*lock"):
            lock.acquire()
    other = Lock(tmp_path / "lock")
    assert other.acquire()
    other.release()


def test_who_is_in_the_way_is_named(tmp_path: Path) -> None:
    folder = make_folder("x")
    pid = os.getpid()

    def refused(work: Callable[[], object]) -> str:
        with pytest.raises(SessionBusy) as busy:
            work()
        return busy.value.line

    again = "; try again when it has finished"
    with folder.lock_for_mount("N") as lock:
        assert refused(lambda: folder.lock_for_mount("N")) == (
            f"N is being mounted or changed by another process (process {pid}){again}"
        )
        lock.write(MountedAt(pid, str(tmp_path)))
        gone = f"its mount at {tmp_path} cannot be reached (process {pid}); "
        gone += "end the programs that still use it, and try again"
        assert refused(lambda: folder.lock_for_mount("N")) == gone
        out = folder.out_of_reach()
        assert out is not None
        assert out.line == gone
        (folder.path / "lock").write_text("")
        assert refused(lambda: folder.lock_for_mount("N")) == (
            f"N is being mounted or changed by another process{again}"
        )
    assert folder.out_of_reach() is None
    assert folder.changed_by() is None
    with folder.lock_for_change("N", "commit"):
        assert folder.changed_by() == pid
        folder.refuse_changed("N")  # by ourselves
        assert refused(lambda: folder.lock_for_change("N")) == (
            f"a commit of N is running (process {pid}){again}"
        )
    with folder.lock_for_change("N") as lock:
        said = f"N is being changed by another process (process {pid}){again}"
        assert refused(lambda: folder.lock_for_change("N")) == said
        lock.write(MountedAt(1, ""))
        assert refused(lambda: folder.refuse_changed("N")).endswith(f"(process 1){again}")
        (folder.path / "commit.lock").write_text("")
        assert folder.changed_by() == 0
        assert refused(lambda: folder.lock_for_change("N")) == (
            f"N is being changed by another process{again}"
        )
    folder.refuse_changed("N")


def test_both_locks_are_taken_and_given_back() -> None:
    folder = make_folder("x")
    with folder.lock_unmounted("N"):
        for taken in (folder.lock_for_mount, folder.lock_for_change):
            with pytest.raises(SessionBusy):
                taken("N")
    with folder.lock_for_mount("N") as mine:
        with folder.lock_unmounted("N"):
            assert folder.changed_by() == os.getpid()
        for other in (MountedAt(os.getpid(), "/m"), MountedAt(1, "")):
            mine.write(other)
            with pytest.raises(SessionBusy), folder.lock_unmounted("N"):
                pass
    with folder.lock_unmounted("N"):
        pass


def test_a_process_of_another_container_may_have_our_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every command is process 1 there; a volume holds the sessions of all. The tree of one was
    removed by another, which took the lock for its own."""
    folder = make_folder("x")
    with contextlib.ExitStack() as held:
        with monkeypatch.context() as there:
            there.setattr(locks, "_ME", "theirs")
            held.enter_context(folder.lock_for_mount("N"))
            held.enter_context(folder.lock_for_change("N", "commit"))
        assert folder.changed_by() == os.getpid()
        assert not folder.changed_by_me
        with pytest.raises(SessionBusy), folder.lock_unmounted("N"):
            pass
        with pytest.raises(SessionBusy, match="a commit of N is running"):
            folder.refuse_changed("N")
    with folder.lock_for_change("N"):
        assert folder.changed_by_me
    assert not folder.changed_by_me


# -- images and the log


def parsed(data: bytes, path: Path) -> Any:
    path.write_bytes(data)
    with path.open("rb") as file:
        return parse_fd(file.fileno(), "N", "look")


def test_what_is_no_image_is_named(tmp_path: Path) -> None:
    whole = encode({"a.txt": bytes(99)})
    for blank in (b"", b"\xff" * 999):
        image = parsed(blank, tmp_path / "x")
        assert (image.size, image.root.children, image.trailing) == (0, (), len(blank))
    image = parsed(whole + b"\xff" * 9, tmp_path / "x")
    assert (image.size, image.trailing) == (len(whole), 9)
    for garbled in (whole[:50], whole[:16] + b"\xff" * 60 + whole[76:], b"\xfe" * 99):
        with pytest.raises(ImageFormatError) as refused:
            parsed(garbled, tmp_path / "x")
        assert refused.value.line.startswith("not a valid ROMFS image: ")
        assert "(N, offset 0x" in refused.value.line
        assert refused.value.line.endswith("; look")


def entry(number: int, kind: str = "commit", digest: str = "", **more: Any) -> HistoryEntry:
    return HistoryEntry(number, kind, 0.0, digest or f"d{number}", 10, "", **more)


def write_log(folder: SessionFolder, entries: list[HistoryEntry]) -> None:
    folder.history.mkdir(exist_ok=True)
    for each in entries:
        record = json.dumps(each._asdict())
        (folder.history / f"{each.number:06d}.json").write_text(record)
        folder.image(each.digest).write_bytes(b"")


@pytest.fixture
def folder(desk: Desk) -> SessionFolder:
    """Of a session that was opened, with an empty log: its base is of 10 bytes, called `base`."""
    desk.open()
    folder = desk.session.folder
    for path in folder.history.iterdir():
        path.unlink()
    record = json.loads(folder.base.read_bytes())
    folder.base.write_text(json.dumps({**record, "digest": "base"}))
    return folder


def numbers(folder: SessionFolder) -> list[int]:
    return [each.number for each in history.entries(folder)]


def images(folder: SessionFolder) -> set[str]:
    return {path.stem for path in folder.history.glob("*.img")}


@pytest.mark.parametrize(
    ("sizes", "budget", "kept"),
    [
        ([10, 10, 10, 10], 40, [0, 1, 2, 3]), ([10, 10, 10, 10], 39, [1, 2, 3]),
        ([10, 10, 10, 10], 30, [1, 2, 3]), ([10, 10, 10, 10], 0, [2, 3]),
        ([1, 99, 10, 10], 20, [2, 3]), ([1, 99, 10, 10], 21, [2, 3]), ([10], 0, [0]),
        ([1 << 29, 1 << 29, 1 << 28, 1 << 28], None, [1, 2, 3]),
        ([1, 1 << 29, 1 << 28, 1 << 28], None, [1, 2, 3]), ([0, 0, 0], 0, [0, 1, 2]),
    ],
)  # fmt: skip
def test_the_oldest_images_go_where_the_log_takes_too_much(
    folder: SessionFolder, sizes: list[int], budget: int | None, kept: list[int]
) -> None:
    write_log(folder, [entry(n)._replace(size=size) for n, size in enumerate(sizes)])
    for other in ("base", "unnamed"):
        folder.image(other).write_bytes(b"")
    if budget is None:
        history.trim(folder, "base")
    else:
        history.keep_within(folder, budget)
        assert SessionInfo.load(folder.info).history_bytes == budget
    assert numbers(folder) == kept
    assert images(folder) == {"base", *(f"d{number}" for number in kept)}
    assert sorted(int(path.stem) for path in folder.history.glob("*.json")) == kept


def test_an_image_that_is_there_several_times_takes_its_bytes_once(folder: SessionFolder) -> None:
    """And the base's takes none: it stays in any case."""
    log = [entry(0), entry(1), entry(2, digest="d0"), entry(3, digest="base"), entry(4)]
    write_log(folder, log)
    history.keep_within(folder, 30)
    assert numbers(folder) == [0, 1, 2, 3, 4]
    history.keep_within(folder, 29)
    assert numbers(folder) == [2, 3, 4]
    history.keep_within(folder, 19)
    assert numbers(folder) == [3, 4]
    assert images(folder) == {"base", "d4"}


def test_nothing_goes_while_a_transaction_is_under_way(folder: SessionFolder) -> None:
    write_log(folder, [entry(n) for n in range(4)])
    folder.record.write_text("")
    history.trim(folder, "", 0)
    with pytest.raises(RomfsError, match="nothing was dropped; first: romfsfs recover"):
        history.keep_within(folder, 0)
    assert numbers(folder) == [0, 1, 2, 3]
    folder.record.unlink()
    folder.base.unlink()
    history.keep_within(folder, 0)
    assert numbers(folder) == [2, 3]


def test_records_of_the_log_that_are_damaged_are_left_out(folder: SessionFolder) -> None:
    write_log(folder, [entry(n) for n in range(6)])
    for number, text in enumerate(["{", "[]", '{"number": 2}', "[" * 100_000]):
        (folder.history / f"{number:06d}.json").write_text(text)
    folder.image("d4").unlink()
    (folder.history / "000009.json").mkdir()
    assert numbers(folder) == [5]
    assert history.last_number(folder) == 5
    assert history.last_number(make_folder("another")) == -1
    assert history.entries(make_folder("another")) == []


def test_what_is_entered_into_the_log(folder: SessionFolder) -> None:
    """Each thing once, whatever crash comes between."""

    def add(
        kind: str, digest: str, since: int, missing: bool = False
    ) -> list[tuple[int, str, str]]:
        folder.image(digest).write_bytes(b"")
        new = HistoryEntry(-1, kind, 0, digest, 10, "", -1, missing)
        history.add(folder, new, since=since)
        return [(e.number, e.kind, e.digest) for e in history.entries(folder)]

    started = time.time()
    log = add("read", "a", -1)
    assert log == [(0, "read", "a")]
    assert started <= history.entries(folder)[0].time <= time.time()
    assert add("read", "a", -1) == add("read", "a", 0) == log, "it ends with that"
    log = add("commit", "a", 0)
    assert log[1:] == [(1, "commit", "a")]
    assert add("commit", "a", 0) == log, "entered before a crash"
    log = add("commit", "a", 1)
    assert log[2:] == [(2, "commit", "a")]
    log = add("read", "b", 2)
    assert log[3:] == [(3, "read", "b")]
    log = add("undo", "a", 3)
    assert log[4:] == [(4, "undo", "a")]
    log = add("read", "a", 4, missing=True)
    assert log[5:] == [(5, "read", "a")], "an empty file and none are two things"
    (folder.history / "000005.json").unlink()
    assert add("push", "c", 4)[5:] == [(5, "push", "c")]


@pytest.mark.parametrize(
    ("log", "wanted"),
    [
        ([], None), ([entry(0)], None), ([entry(0), entry(1)], 0),
        ([entry(0), entry(1, digest="d0"), entry(2, digest="d0")], None),
        ([entry(0), entry(1), entry(2, digest="d1")], 0),
        ([entry(0), entry(1), entry(2), entry(3, "undo", "d1", restores=1)], 0),
        ([entry(0), entry(1), entry(2, "undo", "d0", restores=0)], None),
        ([entry(0), entry(1), entry(2), entry(3, "undo", "d1", restores=1),
          entry(4, "undo", "d0", restores=0)], None),
        ([entry(0), entry(1), entry(2), entry(3, "undo", "d2", restores=2)], 1),
        ([entry(1), entry(2), entry(3, "undo", "d0", restores=0)], None),
        ([entry(0), entry(1), entry(2), entry(5, "undo", "d2", restores=4),
          entry(6, "undo", "d2", restores=5)], 1),
        ([entry(0, "read", "e", missing=True), entry(1, "read", "e"), entry(2, digest="e")], 0),
    ],
)  # fmt: skip
def test_what_an_undo_brings_back(
    folder: SessionFolder, log: list[HistoryEntry], wanted: int | None
) -> None:
    write_log(folder, log)
    info = SessionInfo(key="k", kind="file", name="N", source="app.img")
    if wanted is not None:
        assert history.previous(folder, info).number == wanted
        return
    with pytest.raises(RomfsError) as refused:
        history.previous(folder, info)
    others = (
        "to write back any image of the log, a later one too: romfsfs undo app.img --to N; "
        "to list them: "
    )
    assert refused.value.line == (
        "there is no earlier image to go back to (N); "
        f"{others if len(log) > 1 else ''}romfsfs log app.img"
    )


# -- the base


def test_a_base_that_is_not_there_or_not_whole(desk: Desk) -> None:
    desk.open()
    folder = desk.session.folder
    image = desk.session.base_image
    damaged = (
        f"the session's copy of the image is damaged ({image}); your files are in {desk.work}: "
        "copy them out, then romfsfs umount --discard or remove the session's folder"
    )

    def said() -> str:
        with pytest.raises(RomfsError) as refused:
            base_image.open_base(folder, desk.session.info)
        return refused.value.line

    whole = image.read_bytes()
    image.write_bytes(whole[:-1] + b"?")
    assert said() == damaged
    image.unlink()
    looks = []
    load = Base.load

    def counted(path: Path) -> Base:
        looks.append(path)
        return load(path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Base, "load", counted)
        assert said() == damaged
    assert len(looks) == 3, "another process may have replaced both between two looks"
    image.write_bytes(whole)
    held = base_image.open_base(folder, desk.session.info)
    assert os.pread(held.fd, len(whole) + 1, 0) == whole
    folder.base.unlink()
    assert said() == (
        f"its image has not been read yet ({desk.image}); romfsfs mount {desk.image} DIR"
    )


def test_what_is_asked_of_a_base_again_and_again_is_found_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = encode({"a.bin": b"12345", "empty.bin": b"", "b.bin": b"1"})
    (tmp_path / "app.img").write_bytes(image + b"\x07" * 30)
    desk = Desk.of_file(tmp_path / "app.img")
    desk.open()
    held = desk.session.held()
    calls: list[str] = []
    for name in ("parse_fd", "fill_byte"):
        real = getattr(base_image, name)

        def counted(*args: Any, name: str = name, real: Any = real) -> Any:
            calls.append(name)
            return real(*args)

        monkeypatch.setattr(base_image, name, counted)
    assert {path: image[e.offset : e.offset + e.size] for path, e in held.extents.items()} == {
        "a.bin": b"12345", "empty.bin": b"", "b.bin": b"1",
    }  # fmt: skip
    assert (held.trailing_fill, held.trailing_fill) == (7, 7)
    rules = AlignmentRules(4, (("bin", 4096),))
    wrong = [(path, held.extents[path].offset, 4096) for path in ("a.bin", "b.bin")]
    assert held.misaligned(rules) == wrong
    assert held.misaligned(rules) is held.misaligned(AlignmentRules(4, (("bin", 4096),)))
    assert held.misaligned(AlignmentRules()) == []
    assert held.misaligned(rules) == wrong
    assert calls == ["parse_fd", "fill_byte"]


# -- sources


class TestRecall:
    @pytest.fixture
    def memory(self) -> recall.Recall:
        return recall.Recall("mine")

    @staticmethod
    def remember(
        memory: recall.Recall, source: bytes, name: str = "app.py", stored: str = "lib/app.mpy",
        digest: str = "d", made_for: str | None = "x",
    ) -> str:  # fmt: skip
        with tempfile.TemporaryFile() as file:
            file.write(source)
            file.flush()
            memory.remember(stored, digest, name, digest_bytes(source), file.fileno(), made_for)
        return digest_bytes(source)

    def test_what_was_remembered_is_found(self, memory: recall.Recall) -> None:
        assert not memory.knows_any
        assert memory.find("lib/app.mpy", "d") is None
        digest = self.remember(memory, b"x = 1\n")
        found = memory.find_own("lib/app.mpy", "d")
        assert found == Recalled("app.py", digest, memory.folder / "objects" / digest, "x")
        assert memory.find("lib/app.mpy", "d") == found
        assert memory.knows_any
        for other in (("lib/app.mpy", "e"), ("app.mpy", "d")):
            assert memory.find(*other) is None
        theirs = recall.Recall("theirs")
        assert theirs.find_own("lib/app.mpy", "d") is None
        assert theirs.find("lib/app.mpy", "d") == found
        self.remember(theirs, b"x = 2\n", made_for=None)
        assert memory.find("lib/app.mpy", "d") == found, "its own comes first"
        newest = theirs.find("lib/app.mpy", "d")
        assert newest is not None
        assert (newest.file.read_bytes(), newest.made_for) == (b"x = 2\n", None)

    @pytest.mark.parametrize(
        "text",
        [b"{", b"[]", b'{"name": "a"}', b'{"name": "../a", "digest": "D"}', b"[" * 100_000,
         b'{"name": "app.py", "digest": 7}', b'{"name": "app.py", "digest": "nowhere"}'],
    )  # fmt: skip
    def test_a_damaged_record_is_none(self, memory: recall.Recall, text: bytes) -> None:
        digest = self.remember(memory, b"x = 1\n")
        for record in (memory.folder / "index").iterdir():
            record.write_bytes(text.replace(b"D", digest.encode()))
        assert memory.find("lib/app.mpy", "d") is None

    def test_a_disk_that_fails_is_no_lost_source(
        self, memory: recall.Recall, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.remember(memory, b"x = 1\n")
        for number, raised in ((errno.EIO, True), (errno.EACCES, False)):

            def failing(fd: int, number: int = number) -> str:
                raise OSError(number, os.strerror(number))

            monkeypatch.setattr(recall, "digest_fd", failing)
            if raised:
                with pytest.raises(OSError, match="Input/output error"):
                    memory.find("lib/app.mpy", "d")
            else:
                assert memory.find("lib/app.mpy", "d") is None

    def test_what_is_synced_is_what_was_written(
        self, memory: recall.Recall, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        synced: list[tuple[Path, list[str], list[str]]] = []
        monkeypatch.setattr(recall, "sync_paths", lambda *how: synced.append(how))
        memory.sync()
        assert synced == []
        digest = self.remember(memory, b"x = 1\n")
        assert synced == []
        memory.sync()
        [(root, files, names)] = synced
        index = sorted(path.name for path in (memory.folder / "index").iterdir())
        assert root == memory.folder
        assert files == names
        assert sorted(files) == sorted([f"objects/{digest}", *(f"index/{n}" for n in index)])
        assert len(index) == 2
        memory.sync()
        assert len(synced) == 1

    def test_the_longest_unused_go_first(
        self, memory: recall.Recall, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        digests = []
        for number in range(4):
            digests.append(self.remember(memory, b"%d" % number * 10, stored=f"{number}.mpy"))
        for age, digest in enumerate(digests):
            os.utime(memory.folder / "objects" / digest, (age, age))
        assert memory.find("0.mpy", "d") is not None  # used: the last to go
        memory.trim(40)
        assert len(list((memory.folder / "index").iterdir())) == 8
        memory.trim(39)
        left = {path.name for path in (memory.folder / "objects").iterdir()}
        assert left == {digests[0], digests[2], digests[3]}
        assert len(list((memory.folder / "index").iterdir())) == 6
        (memory.folder / "index/damaged").write_text("{")
        monkeypatch.setattr(recall, "MOST_RECORDS", 5)
        memory.trim()
        assert len(list((memory.folder / "index").iterdir())) == 4
        assert not (memory.folder / "index/damaged").exists()
        recall.Recall("x").trim(0)
        assert list((memory.folder / "objects").iterdir()) == []
        assert recall.BUDGET_BYTES == 1 << 30

    def test_what_another_remembers_meanwhile_stays(
        self, memory: recall.Recall, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A mount trims when its disk has synced: a commit may be on its way by then. Its record
        was lost, and its source shown as bytecode; or it failed, as what it wrote was gone."""
        self.remember(memory, b"x = 1\n")
        listdir, late = os.listdir, [b"x = 2\n"]

        def listed(place: Path) -> list[str]:
            found = listdir(place)
            if late:
                self.remember(memory, late.pop(), stored="late.mpy")
            return found

        written, left = (memory.folder / f"index/x.romfsfs-{digit * 16}.tmp" for digit in "01")
        left.touch()
        with written.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            with monkeypatch.context() as meanwhile:
                meanwhile.setattr(recall.os, "listdir", listed)
                recall.Recall("x").trim()
            assert (written.exists(), left.exists()) == (True, False)
        found = recall.Recall("mine").find_own("late.mpy", "d")
        assert found is not None
        assert found.file.read_bytes() == b"x = 2\n"

    def test_there_is_nothing_to_trim(self, memory: recall.Recall) -> None:
        memory.trim(0)
        assert not memory.folder.exists()


def test_what_stands_for_a_stored_file() -> None:
    source = Recalled("app.py", "d", Path("x"))
    assert shown_as("lib/app.mpy", None, ()) is None
    assert shown_as("lib/app.mpy", source, ("app.py",)) == "lib/app.py"
    assert shown_as("app.mpy", source, ("app.py",)) is None
    same = Recalled("app.mpy", "d", Path("x"))
    assert shown_as("app.mpy", same, ("app.mpy",)) == "app.mpy"


# -- settling


@pytest.mark.parametrize(
    ("boots", "lost"),
    [
        (("one", "one"), False), (("one", "two"), True), (("", ""), False), (("", "one"), False),
        (("one", ""), True),
    ],
)  # fmt: skip
def test_whether_the_power_went(
    tmp_path: Path, boots: tuple[str, str], lost: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_folder("x")
    assert not settling.lost_power(folder)
    monkeypatch.setattr(settling, "boot_id", lambda: boots[0])
    settling.mark(folder)
    assert folder.unsettled.read_text() == (boots[0] or "unknown")
    monkeypatch.setattr(settling, "boot_id", lambda: boots[1])
    assert settling.lost_power(folder) is lost
    folder.unsettled.write_text("")
    assert settling.lost_power(folder), "a mark that lost its text"


def test_a_tree_is_settled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_folder("x")
    synced: list[tuple[str, bool]] = []

    def sync(name: str, fails: bool = False) -> Callable[[Path], None]:
        def synced_(path: Path) -> None:
            synced.append((name, folder.unsettled.exists()))
            if fails:
                raise OSError(errno.EIO, "the disk")

        return synced_

    monkeypatch.setattr(settling, "sync_dir", sync("folder"))
    monkeypatch.setattr(settling, "sync_file_system", sync("all", fails=True))
    settling.settle(folder)
    assert synced == []
    settling.mark(folder)
    settling.settle(folder)
    assert synced == [("all", True)]
    monkeypatch.setattr(settling, "sync_file_system", sync("all"))
    settling.settle(folder)
    settling.settle(folder)
    assert synced == [("all", True), ("all", True), ("folder", False)]
    assert not folder.unsettled.exists()


def test_what_was_interrupted_is_finished_by_whatever_comes_next(interrupted: Desk) -> None:
    """Its image is in the log before the next one is."""
    desk = interrupted

    def log() -> list[str]:
        return [each.kind for each in history.entries(desk.session.folder)]

    before = ["read"]
    for work in (
        lambda: desk.commit(),
        lambda: desk.open(),
        lambda: undo(desk.session, desk.device),
    ):
        desk.write("a.txt", b"%d" % len(before))
        with ends_at("target-written", InterruptedError):
            desk.commit()
        assert desk.session.interrupted
        work()
        before.append("commit")
        assert log()[: len(before)] == before
    assert log() == [*before, "undo"]
    assert not desk.session.interrupted
    assert desk.session.status().clean
    assert image_of(desk, 3).read_bytes() != desk.image.read_bytes()


@pytest.mark.parametrize(
    ("there", "dead", "found"),
    [
        (["/a", "/c"], False, {"/a": "k2"}), (["/d"], False, {}), (["/d"], True, {"/d": "k4"}),
        ([], False, {"/a": "k2", "/b": "k3"}), ([], True, {"/d": "k4"}),
    ],
)  # fmt: skip
def test_which_sessions_are_mounted_where(
    monkeypatch: pytest.MonkeyPatch, there: list[str], dead: bool, found: dict[str, str]
) -> None:
    """The last that was mounted at a place, in this run of the system rather than another, if
    anything is mounted there: where the system tells, and for those that are alive."""
    alive = {
        "k1": MountedAt(1, "/a", "now", 5.0), "k2": MountedAt(2, "/a", "now", 6.0),
        "k3": MountedAt(3, "/b", "now", 7.0), "k4": None, "k5": MountedAt(5, ""),
        "k6": MountedAt(6, "/a", "before", 9.0), "k7": None,
    }  # fmt: skip
    dead_ones = {"k4": MountedAt(4, "/d", "before", 1.0), "k1": MountedAt(1, "")}
    keys = {make_folder(key).path: key for key in alive}

    def holder(folder: SessionFolder, of: dict[str, MountedAt | None]) -> MountedAt | None:
        if keys[folder.path] == "k7":
            raise PermissionError(13, "Permission denied")
        return of.get(keys[folder.path])

    monkeypatch.setattr(SessionFolder, "mounted_at", lambda folder: holder(folder, alive))
    monkeypatch.setattr(SessionFolder, "last_mounted_at", lambda folder: holder(folder, dead_ones))
    monkeypatch.setattr(folders, "boot_id", lambda: "now")
    monkeypatch.setattr(folders, "real_place", lambda path: f"/real{path}")
    mounted = [SimpleNamespace(mountpoint=path) for path in there]
    monkeypatch.setattr(folders, "mounts", lambda: mounted)
    shown = {where: keys[each.path] for where, each in folders.mounted_folders(dead=dead).items()}
    assert shown == found
    for where in ("/a", "/b", "/d"):
        each = folders.find_mounted(where, dead=dead)
        assert (each and keys[each.path]) == found.get(where)


def test_a_disk_that_does_not_give_the_image_is_named(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where its stamp is another and its bytes are looked at. That is no damage."""
    folder = desk.open().folder
    image = folder.image(Base.load(folder.base).digest)

    def fails(fd: int) -> str:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(base_image, "image_id", lambda status: "another")
    monkeypatch.setattr(base_image, "digest_fd", fails)
    with pytest.raises(OSError, match="Input/output error") as caught:
        base_image.open_base(folder, desk.session.info)
    assert (caught.value.errno, caught.value.filename) == (errno.EIO, str(image))
