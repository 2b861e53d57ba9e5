"""A mounted session derives only what was touched: the answer is that of a look at everything."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from session_desk import Desk

from romfsfs.devices.base import Device
from romfsfs.session import session
from romfsfs.session.service import SessionHost
from romfsfs.session.tree.worktree import Climber, WorkFile, scan_folders

#: Seconds that conversions may take before a test has failed.
LIMIT = 60
FOLDERS = ["", "a", "a/b", "a/b/c", "lib", "lib/a", "x.py"]
NAMES = ["a", "b", "app.py", "app.mpy", "net.tflite", "net.txt", "bad.py", "k~", "café", "x.py"]
DATA = [b"", b"x = 1\n", b"y = 2\n", b"z" * 5000, b"def f(:\n"]
OPTIONS = [
    b"", b'exclude = ["*.txt"]\n', b'["net.*"]\nalign = 256\n', b'["a"]\nconvert = false\n',
    b"wrong", b'board = "OPENMV4P"\n',
]  # fmt: skip


@contextlib.contextmanager
def on(device: Device) -> Iterator[Device]:
    yield device


def settle(host: SessionHost) -> None:
    assert host._pool is not None
    assert host._pool.wait_idle(LIMIT)


class Editor:
    """Who edits a mounted tree: tells the host what the mount would, after each change."""

    def __init__(self, desk: Desk, host: SessionHost, chance: random.Random) -> None:
        self.desk, self.host, self.chance = desk, host, chance
        self.done: list[str] = []

    def path(self) -> str:
        folder, name = self.chance.choice(FOLDERS), self.chance.choice(NAMES)
        return f"{folder}/{name}" if folder else name

    def folder(self) -> str:
        return self.chance.choice(FOLDERS[1:])

    def edit(self) -> None:
        what = self.chance.choice([
            "write", "write", "write", "write", "make", "rename", "rename", "move", "swap", "swap",
            "remove", "remove all", "mode", "options", "revert", "commit", "trim",
        ])  # fmt: skip
        self.done.append(what)
        with contextlib.suppress(OSError):
            getattr(self, what.replace(" ", "_"))()

    def tell(self, *paths: str) -> None:
        self.done.append(" ".join(paths))
        for path in paths:
            self.host.changed(path)

    def write(self) -> None:
        path = self.path()
        (self.desk.work / path).write_bytes(self.chance.choice(DATA))
        self.tell(path)

    def make(self) -> None:
        path = self.folder()
        (self.desk.work / path).mkdir()
        self.tell(path)

    def rename(self) -> None:
        self._rename(self.path(), self.path())

    def move(self) -> None:
        self._rename(self.folder(), self.folder())

    def _rename(self, old: str, new: str) -> None:
        os.rename(self.desk.work / old, self.desk.work / new)
        self.tell(old, new)

    def swap(self) -> None:
        """Between two looks, so that none of both names is ever missing."""
        one, other = self.folder(), self.folder()
        os.rename(self.desk.work / one, self.desk.work / "aside")
        self.tell(one, "aside")
        try:
            self._rename(other, one)
        finally:
            self._rename("aside", one if not (self.desk.work / one).exists() else other)

    def remove(self) -> None:
        path = self.path()
        os.unlink(self.desk.work / path)
        self.tell(path)

    def remove_all(self) -> None:
        folder = self.folder()
        for inside, _, names in os.walk(self.desk.work / folder, topdown=False):
            here = os.path.relpath(inside, self.desk.work)
            for name in names:
                os.unlink(os.path.join(inside, name))
                self.tell(f"{here}/{name}")
            os.rmdir(inside)
            self.tell(here)

    def mode(self) -> None:
        path = self.chance.choice([self.path(), self.folder()])
        os.chmod(self.desk.work / path, self.chance.choice([0o700, 0o300, 0o200]))
        self.tell(path)

    def options(self) -> None:
        (self.desk.work / "romfs.toml").write_bytes(self.chance.choice(OPTIONS))
        self.tell("romfs.toml")

    def revert(self) -> None:
        """As another process does, through the mount."""
        name = self.chance.choice(["a.txt", "lib/b.bin", "lib/old.mpy"])
        file = self.desk.work / name
        if file.parent.is_dir() and not file.is_dir():
            shutil.copy(self.desk.image.with_name("kept") / name, file)
            self.tell(name)

    def trim(self) -> None:
        """The results of conversions go, as those do that nobody has asked for lately."""
        settle(self.host)
        shutil.rmtree(self.desk.session.settings.converters._cache.directory, ignore_errors=True)
        self.tell("elsewhere")

    def commit(self) -> None:
        with contextlib.suppress(Exception):
            self.desk.again().commit()


def answers(host: SessionHost, desk: Desk) -> None:
    """Both for what was touched and for everything."""
    host.status_json(list)  # has converted what is to be converted once more
    settle(host)
    everything = desk.again().session
    whole = everything.look(everything.held())
    assert host.usage() == (whole.plan.capacity, whole.plan.size)
    assert json.loads(host.status_json(list)) == everything.status(whole).record()
    shown = {each.stored_as for each in whole.shadow if each.stored_as and each.change != "deleted"}
    assert {path for path in shown if host.shadow().stat(path) is None} == set()


@pytest.mark.parametrize("seed", range(6))
def test_what_was_touched_and_everything_say_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setenv("ROMFSFS_CACHE_DIR", str(tmp_path / "cache"))
    files = {"a.txt": b"first\n", "lib/b.bin": bytes(200), "lib/old.mpy": b"M\x06", "a/b/a": b"1"}
    desk = Desk.with_image(tmp_path, files, ["empty"])
    desk.open(board="OPENMV4")
    shutil.copytree(desk.work, tmp_path / "kept")
    host = SessionHost(desk.session, False, lambda: on(desk.device))
    host.start()
    editor = Editor(desk, host, random.Random(seed))
    try:
        for _ in range(60):
            for _ in range(editor.chance.randrange(1, 5)):
                editor.edit()
            answers(host, desk)
    except AssertionError:
        print(editor.done)
        raise
    finally:
        os.system(f"chmod -R u+rwX {desk.work}")
        host.close()


def test_a_folder_that_may_not_be_read_stays_so_until_its_mode_is_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And that its mode forbids it is no matter of who asks: root may read it all the same."""
    desk = Desk.with_image(tmp_path, {"lib/a.txt": b"a", "b.txt": b"b"})
    desk.open()
    enter, closed = Climber.enter, {"lib"}

    def may(climber: Climber, folder: str) -> int:
        if folder in closed:
            raise PermissionError(folder)
        return enter(climber, folder)

    monkeypatch.setattr(Climber, "enter", may)
    host = SessionHost(desk.session, False, lambda: on(desk.device))
    host.start()
    try:
        for now in ({"lib"}, set[str]()):
            closed = now
            host.changed("lib")
            for number in range(3):
                answers(host, desk)
                (desk.work / "b.txt").write_bytes(b"b" * number)
                host.changed("b.txt")
    finally:
        host.close()


def test_only_the_folder_of_a_change_is_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = Desk.with_image(tmp_path, {f"d{n}/f{m}": b"x" for n in range(20) for m in range(5)})
    desk.open()
    listed: list[str] = []

    def counted(root_fd: int, known: object) -> dict[str, list[WorkFile] | None]:
        found = scan_folders(root_fd, known)  # type: ignore[arg-type]
        listed.extend(folder for folder, inside in found.items() if inside is not None)
        return found

    monkeypatch.setattr(session, "scan_folders", counted)
    host = SessionHost(desk.session, False, lambda: on(desk.device))
    host.start(resumed=False)
    try:
        host.status_text(list)
        assert len(listed) == 21
        listed.clear()
        desk.write("d7/f3", b"y")
        host.changed("d7/f3")
        before = host._look
        assert before is not None
        plan = before.plan
        assert "M d7/f3" in host.status_text(list)
        host.usage()
        after = host._look
        assert after is not None
        same = {folder for folder, part in plan.parts.items() if after.plan.parts[folder] is part}
        assert same == plan.parts.keys() - {"d7"}, "nor is any other planned anew"
        assert listed == ["d7"]
        listed.clear()
        host._outdated()  # what cannot be told has changed
        host.status_text(list)
        assert len(listed) == 21
    finally:
        host.close()


def test_beside_a_read_only_mount_everything_is_looked_at(tmp_path: Path) -> None:
    """Commands cannot change its tree through it."""
    desk = Desk.with_image(tmp_path, {"a/a.txt": b"first"})
    desk.open()
    host = SessionHost(desk.session, True, lambda: on(desk.device))
    host.start()
    try:
        assert "nothing to commit" in host.status_text(list)
        desk.write("a/a.txt", b"second")
        host.changed("other")
        assert "M a/a.txt" in host.status_text(list)
    finally:
        host.close()


def test_an_alignment_of_one_file_is_that_of_all_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What lies elsewhere was not touched, and takes another size all the same."""
    monkeypatch.setattr(session, "certain", lambda signature: True)  # the options are read once
    desk = Desk.with_image(tmp_path, {"a/b/c": b"1", "lib/d/e": b"2"})
    desk.open()
    host = SessionHost(desk.session, False, lambda: on(desk.device))
    host.start()
    try:
        desk.write("romfs.toml", b'["*.dat"]\nalign = 1024\n')
        host.changed("romfs.toml")
        answers(host, desk)
        for change in (b"3", b""):
            desk.write("lib/wide.dat", change)
            host.changed("lib/wide.dat")
            answers(host, desk)
        (desk.work / "lib/wide.dat").unlink()
        host.changed("lib/wide.dat")
        answers(host, desk)
    finally:
        host.close()
