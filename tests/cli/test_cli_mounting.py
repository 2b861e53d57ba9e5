"""`mount` and `umount`: all that they ask for, in order, with a kernel and a session of the test's.

What these do for real: `test_cli_mounts.py`, `test_cli_mountpoints.py`.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cli_mounts import Ran

from romfsfs.cli import mounting
from romfsfs.convert import Options
from romfsfs.convert.types import Diagnostic
from romfsfs.errors import DeviceLost, RomfsError, SessionBusy
from romfsfs.fs.daemon import MountOptions
from romfsfs.session.mounting import MountRequest
from romfsfs.session.plan.problems import ERROR, WARNING, Problem
from romfsfs.session.plan.shadow import Change, ShadowEntry
from romfsfs.session.plan.status import Status
from romfsfs.session.rebase.commit import CommitOptions
from romfsfs.session.rebase.read import OpenOptions
from romfsfs.session.session import Session
from romfsfs.system.files import no_progress
from romfsfs.system.mount_table import Mount

Run = Callable[..., Ran]


def status(*changes: str, clean: bool = False) -> Any:
    """changes: with `stale` before it, of what is only made anew for another target."""
    stale = (Diagnostic("info", "stale", ""),)
    entries = [
        ShadowEntry("a", Change(change.split()[-1]), diagnostics=stale if " " in change else ())
        for change in changes
    ]
    return Status(Any, Any, tuple(entries), (), 0, None, clean)


class World:
    """A session, where it is mounted, and what unmounting comes to. calls: all that was done."""

    def __init__(self, cam: Path) -> None:
        self.calls: list[tuple[object, ...]] = []
        self.cam = cam
        self.mountpoint: Path | None = cam
        self.inside = ""
        self.idle = False
        self.ends: bool | Exception = True
        self.left: Any = status("added", "modified", "deleted", "unchanged", "ignored")
        self.locked: Exception | None = None
        self.dropped: list[str] | Exception = ["a", "b"]
        self.info = SimpleNamespace(
            name="app.img", title="the title", argument="'its name'", commit_on_unmount=False
        )
        self.session: Any = SimpleNamespace(
            info=self.info, folder=self, has_work=True, interrupted=False
        )

    def find(self, *what: object, **how: object) -> Any:
        self.calls.append(("find", *what, how))
        return SimpleNamespace(
            session=self.session, mountpoint=self.mountpoint, inside=self.inside,
            mounted="mounted", idle=self.idle,
        )  # fmt: skip

    def unmount(self, path: str, **how: object) -> bool:
        self.calls.append(("unmount", path, how))
        if isinstance(self.ends, Exception):
            raise self.ends
        return self.ends

    def refuse_changed(self, name: str) -> None:
        self.calls.append(("refuse changed", name))

    def mounted_at(self) -> Any:
        return SimpleNamespace(pid=77)

    @contextlib.contextmanager
    def lock_unmounted(self, name: str) -> Iterator[None]:
        self.calls.append(("lock", name))
        if self.locked is not None:
            raise self.locked
        yield
        self.calls.append(("unlock",))

    def leave_work(self, session: object) -> Any:
        self.calls.append(("leave", session is self.session))
        return self.left

    def revert(self, session: object) -> list[str]:
        self.calls.append(("revert", session is self.session))
        if isinstance(self.dropped, Exception):
            raise self.dropped
        return self.dropped


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    world = World(tmp_path / "cam")
    world.cam.mkdir()
    for name, stand_in in {
        "find_session": world.find, "unmount": world.unmount, "leave_work": world.leave_work,
        "revert": world.revert, "hanging": lambda path: None,
        "dead_mountpoint": lambda path: None,
        "is_stuck": lambda found: False, "server": lambda found: (77, "/its place"),
        "no_answer": lambda found: RomfsError("no answer"),
        "_tell": lambda *what: world.calls.append(("tell", *what)),
        "_leave": lambda path: world.calls.append(("leave folder", path)),
    }.items():  # fmt: skip
        monkeypatch.setattr(mounting, name, stand_in)
    return world


LEFT = [("lock", "app.img"), ("leave", True), ("unlock",)]
KEPT = "; continue: romfsfs mount 'its name' DIR; or write: romfsfs commit 'its name'\n"


def found(cam: Path, partition: int | None = None, slot: str = "") -> tuple[object, ...]:
    return ("find", str(cam), partition, slot, {"stuck": True})


@pytest.mark.parametrize(
    ("given", "ends", "calls", "code", "out", "err"),
    [
        ([], True, ["refuse", "leave", "unmount", *LEFT], 0, f"3 changes kept{KEPT}", ""),
        (["--keep"], True, ["refuse", "leave", "unmount", *LEFT], 0, f"3 changes kept{KEPT}", ""),
        (["--lazy"], True, ["leave", "lazily", *LEFT], 0, f"3 changes kept{KEPT}", ""),
        (["--lazy"], False, ["leave", "lazily"], 0, "the edits are kept\n", "used"),
        (["--lazy", "--discard"], False, ["leave", "discard", "lazily"], 0,
         "the edits are kept; when it has ended, drop them: romfsfs revert 'its name'\n", "used"),
        (["--discard"], True, ["refuse", "leave", "discard", "unmount", ("revert", True)], 0,
         "discarded 2 changes\n", ""),
        (["--discard"], RomfsError("in use"),
         ["refuse", "leave", "discard", "unmount", "keep"], 1, "", "romfsfs: error: in use\n"),
        (["--keep"], RomfsError("in use"), ["refuse", "leave", "unmount"], 1, "",
         "romfsfs: error: in use\n"),
    ],
)  # fmt: skip
def test_an_unmount(
    world: World, run: Run, given: list[str], ends: bool | Exception, calls: list[Any], code: int,
    out: str, err: str,
) -> None:  # fmt: skip
    path = str(world.cam)
    meant = {
        "refuse": ("refuse changed", "app.img"), "leave": ("leave folder", path),
        "unmount": ("unmount", path, {"pid": 77, "lazy": False}),
        "lazily": ("unmount", path, {"pid": 77, "lazy": True}),
        "discard": ("tell", path, "discard"), "keep": ("tell", path, "keep"),
    }  # fmt: skip
    used = (f"romfsfs: programs still use the mount that was at {path}; its process ends when they "
            "do; until then it cannot be mounted again\n")  # fmt: skip
    world.ends = ends
    assert run("umount", path, *given) == (code, out, used if err == "used" else err)
    assert world.calls == [found(world.cam), *(meant.get(each, each) for each in calls)]


def test_which_partition_is_unmounted(world: World, run: Run) -> None:
    assert run("umount", world.cam, "--partition", "1", "--slot", "B").code == 0
    assert world.calls[0] == found(world.cam, 1, "B")


@pytest.mark.parametrize("how", ["asked", "remembered"])
@pytest.mark.parametrize("no_reset", [False, True])
def test_an_unmount_that_commits(
    world: World, run: Run, monkeypatch: pytest.MonkeyPatch, how: str, no_reset: bool
) -> None:
    @contextlib.contextmanager
    def opened(session: object, doing: str) -> Iterator[str]:
        world.calls.append(("open", session is world.session, doing))
        yield "device"
        world.calls.append(("close",))

    def commit(session: object, *what: object) -> str:
        world.calls.append(("commit", session is world.session, *what[:3]))
        return "report"

    monkeypatch.setattr(mounting, "session_device", opened)
    monkeypatch.setattr(mounting, "commit", commit)
    monkeypatch.setattr(mounting, "say_commit", lambda _, *what: world.calls.append(what))
    world.info.commit_on_unmount = how == "remembered"
    words = ["--commit"] * (how == "asked") + ["--no-reset"] * no_reset
    assert run("umount", world.cam, *words).out == f"3 changes kept{KEPT}"
    options = CommitOptions(restart=not no_reset)
    assert world.calls[1:6] == [
        ("open", True, "commit"), ("commit", True, "device", options, "mounted"), ("close",),
        ("app.img", "report"), ("refuse changed", "app.img"),
    ]  # fmt: skip
    world.calls.clear()
    assert run("umount", world.cam, "--keep").code == 0
    assert world.calls[1] == ("refuse changed", "app.img"), "it is not committed"


@pytest.mark.parametrize(
    ("left", "has_work", "interrupted", "locked", "said"),
    [
        (status("added"), True, False, None, f"1 change kept{KEPT}"),
        (status("ignored"), True, False, None, f"not committed so far{KEPT}"),
        (status("added", "stale modified"), True, False, None, f"1 change kept{KEPT}"),
        (status("stale modified"), True, False, None,
         f"it has no edits, but a commit would rebuild 1 file{KEPT}"),
        (status(clean=True), True, False, None,
         "no edits are left; files that are not stored (.git, backups, sources) are kept for the "
         "next mount\n"),
        (status(clean=True), True, True, None, f"not committed so far{KEPT}"),
        (None, True, False, None, ""), (status("added"), False, False, None, ""),
        (status("added"), True, False, SessionBusy("mounted again"), ""),
    ],
)  # fmt: skip
def test_what_is_said_of_the_edits(
    world: World, run: Run, left: Any, has_work: bool, interrupted: bool,
    locked: Exception | None, said: str,
) -> None:  # fmt: skip
    world.left, world.locked = left, locked
    world.session.has_work, world.session.interrupted = has_work, interrupted
    assert run("umount", world.cam) == (0, said, "")
    ends = [*([("leave", True)] if has_work else []), ("unlock",)]
    assert world.calls[4:] == [("lock", "app.img"), *([] if locked else ends)]


@pytest.mark.parametrize(
    ("has_work", "interrupted", "dropped", "out", "err"),
    [
        (True, False, ["a"], "discarded 1 change\n", ""),
        (False, True, [], "discarded 0 changes\n", ""),
        (False, False, None, "discarded 0 changes\n", ""),
        (True, True, DeviceLost("gone"), "",
         "romfsfs: it is unmounted, and the edits are kept; to drop them later: romfsfs recover "
         "'its name' --rollback; romfsfs revert 'its name'\nromfsfs: error: gone\n"),
    ],
)  # fmt: skip
def test_edits_that_are_thrown_away(
    world: World, run: Run, has_work: bool, interrupted: bool, dropped: Any, out: str, err: str
) -> None:
    """Of a mount, and of a source that is not mounted."""
    world.session.has_work, world.session.interrupted, world.dropped = (
        has_work, interrupted, dropped
    )  # fmt: skip
    code = 5 if err else 0
    assert run("umount", world.cam, "--discard") == (code, out, err)
    reverts = [] if dropped is None else [("revert", True)]
    assert world.calls[5:] == reverts
    world.calls.clear()
    world.mountpoint = None
    assert run("umount", "app.img", "--discard") == (code, out, err)
    assert world.calls == [found(Path("app.img")), *reverts]


@pytest.mark.parametrize("place", ["lib", "a.txt"])
def test_what_lies_in_a_mount_is_none(world: World, run: Run, place: str) -> None:
    """Whether it is a folder or a file."""
    (world.cam / "lib").mkdir()
    (world.cam / "a.txt").touch()
    world.inside = place
    path = world.cam / place
    for given in ([], ["--discard"]):
        assert run("umount", path, *given) == (2, "", (
            f"romfsfs: error: not a mountpoint of romfsfs ({path}); romfsfs umount {world.cam}\n"
        ))  # fmt: skip
    assert world.calls == [found(path)] * 2


def test_the_mount_of_a_source(world: World, run: Run, image: Path) -> None:
    assert run("umount", image).code == 0
    assert world.calls[3] == ("unmount", str(world.cam), {"pid": 77, "lazy": False})
    world.mountpoint = None
    error = f"romfsfs: error: it is not mounted ({image}); romfsfs sessions\n"
    assert run("umount", image) == (2, "", error)


@pytest.mark.parametrize(
    ("hangs", "stuck", "inside", "is_gone"),
    [(None, False, "", True), (None, True, "", False), ("/its place", False, "", False),
     ("/its place", True, "lib", False), (None, True, "lib", True)],
)  # fmt: skip
def test_a_mount_that_does_not_answer(
    world: World, run: Run, monkeypatch: pytest.MonkeyPatch, hangs: str | None, stuck: bool,
    inside: str, is_gone: bool,
) -> None:  # fmt: skip
    """It is only taken away lazily, and nothing in it is looked at, nor committed."""
    monkeypatch.setattr(mounting, "hanging", lambda path: hangs)
    monkeypatch.setattr(mounting, "is_stuck", lambda found: stuck)
    looked: list[object] = []
    monkeypatch.setattr(mounting, "dead_mountpoint", looked.append)
    world.inside = inside
    if is_gone:  # that is another matter: it is unmounted as usual, or refused
        assert run("umount", world.cam, "--lazy").code == 0
        assert looked == [str(world.cam)]
        assert ("unmount", str(world.cam), {"pid": 77, "lazy": True}) in world.calls
        return
    for given in ([], ["--commit"], ["--lazy", "--commit"]):
        assert run("umount", world.cam, *given) == (1, "", "romfsfs: error: no answer\n")
    assert world.calls == [found(world.cam)] * 3
    world.info.commit_on_unmount = True  # the next step that is named takes no other words
    for how in ([], ["--discard"]):
        assert run("umount", world.cam, "--lazy", *how) == (
            0, "the edits are kept\n",
            "romfsfs: process 77 does not answer and still holds the session; kill -9 77 frees "
            "it\n",
        )  # fmt: skip
    assert world.calls[3:] == [
        found(world.cam), ("unmount", "/its place", {"lazy": True}),
    ] * 2  # fmt: skip
    assert len(looked) == (0 if hangs else 5)


REMOVED = "the mount's process had ended; the mount was removed\n"


@pytest.fixture
def dead(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """The process of its mount was killed."""
    world.mountpoint = None
    for name, stand_in in {
        "real_place": lambda path: f"the real {path}", "find_mount": lambda path: None,
        "dead_mountpoint": lambda path: f"the real {path}",
        "find_mounted": lambda place, dead: world.calls.append((place, dead)) or world,
        "_after": lambda _, *what: world.calls.append(what),
        "_commit": lambda _, found, no_reset: world.calls.append(
            ("commit", found.session is world.session, no_reset)
        ),
    }.items():  # fmt: skip
        monkeypatch.setattr(mounting, name, stand_in)
    monkeypatch.setattr(Session, "load", lambda folder: folder.session)
    return world


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize(
    ("given", "lazy", "then"),
    [([], False, "keep"), (["--keep"], False, "keep"), (["--discard"], False, "discard"),
     (["--lazy"], True, "keep")],
)  # fmt: skip
def test_a_mount_whose_process_was_killed(
    dead: World, run: Run, monkeypatch: pytest.MonkeyPatch, known: bool, given: list[str],
    lazy: bool, then: str,
) -> None:  # fmt: skip
    place = f"the real {dead.cam}"
    dead.info.commit_on_unmount = "--keep" in given
    if not known:
        monkeypatch.setattr(mounting, "find_mounted", lambda place, dead: None)
    assert run("umount", dead.cam, *given) == (0, REMOVED, "")
    unmounted = ("unmount", place, {"lazy": lazy})
    after = [(place, True), unmounted, (dead.session, then)]
    assert dead.calls == (after if known else [unmounted])


@pytest.mark.parametrize("how", ["asked", "remembered"])
def test_a_commit_of_a_mount_whose_process_was_killed(
    dead: World, run: Run, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """It needs no process, and comes first: where it fails the mount stays, dead."""
    place = f"the real {dead.cam}"
    dead.info.commit_on_unmount = how == "remembered"
    words = ["--commit"] * (how == "asked")
    more = ["--partition", "1", "--slot", "B", "--no-reset", "--lazy"]
    assert run("umount", dead.cam, *words, *more) == (0, REMOVED, "")
    looked = [(place, True), ("find", str(dead.cam), 1, "B", {})]
    gone = ("unmount", place, {"lazy": True})
    assert dead.calls == [*looked, ("commit", True, True), gone, (dead.session, "keep")]
    dead.calls.clear()
    dead.idle = True
    assert run("umount", dead.cam, *words, *more) == (0, REMOVED, "")
    assert dead.calls == [*looked, gone, (dead.session, "keep")], "there are no edits"
    dead.calls.clear()
    dead.idle = False

    def fails(*_: object) -> None:
        raise DeviceLost("gone")

    monkeypatch.setattr(mounting, "_commit", fails)
    assert run("umount", dead.cam, *words, *more) == (5, "", "romfsfs: error: gone\n")
    assert dead.calls == looked


def test_a_dead_mount_of_somebody_else(
    dead: World, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is left to find_session, which says what it is."""
    mount = Mount("/m", "fuse.sshfs", "")
    monkeypatch.setattr(mounting, "find_mount", lambda path: mount)
    assert run("umount", dead.cam).code == 2
    assert dead.calls == [found(dead.cam)]
    mount = mount._replace(kind="fuse.romfsfs")
    assert run("umount", dead.cam).code == 0


def test_what_lies_in_a_dead_mount_is_none(
    dead: World, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mounting, "dead_mountpoint", lambda path: "/my cam")
    assert run("umount", dead.cam / "lib") == (2, "", (
        f"romfsfs: error: not a mountpoint of romfsfs ({dead.cam}/lib); romfsfs umount '/my cam'\n"
    ))  # fmt: skip
    assert dead.calls == []


def test_a_mount_that_takes_no_word_is_unmounted_all_the_same(tmp_path: Path) -> None:
    """One of another version, or one that has just ended."""
    mounting._tell(str(tmp_path), "discard")
    (tmp_path / ".romfs").mkdir()
    mounting._tell(str(tmp_path), "discard")
    assert (tmp_path / ".romfs/ctl").read_text() == "discard"


def test_who_unmounts_is_not_in_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cam" / "lib").mkdir(parents=True)
    (tmp_path / "camera").mkdir()
    for here, there in (("cam", "/"), ("cam/lib", "/"), ("camera", "camera"), (".", ".")):
        monkeypatch.chdir(tmp_path / here)
        mounting._leave(str(tmp_path / "cam"))
        assert Path.cwd() == tmp_path / there
    monkeypatch.setattr(os, "getcwd", lambda: os.stat("/nowhere at all"))
    assert mounting._here() == ""


class Mounted:
    """What `mount` asks the kernel for, and the host that it opens."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[Any] = []
        self.knows: Exception | None = None
        self.request: Any = None

        def open_host(request: MountRequest, progress: object) -> Any:
            self.request = request
            assert progress is no_progress
            request.resumed = True
            return SimpleNamespace(session=SimpleNamespace(info=SimpleNamespace(name="its\nname")))

        def worth_knowing(session: Any, directory: str, resumed: bool) -> Iterator[str]:
            yield f"{session.info.name} {directory} {resumed}"
            if self.knows is not None:
                raise self.knows

        monkeypatch.setattr(MountRequest, "open_host", open_host)
        monkeypatch.setattr(mounting, "_worth_knowing", worth_knowing)
        monkeypatch.setattr(mounting, "mount_fuse", self.mount)
        monkeypatch.setattr(mounting, "wait_for", lambda _, *what: self.calls.append(what))
        monkeypatch.setattr(mounting, "_notifies", lambda _, chosen: chosen is not False)

    def mount(
        self, opened: Callable[..., Any], directory: str, options: MountOptions
    ) -> tuple[int, list[str]]:
        opened(no_progress)
        self.calls.append((opened.__name__, directory, options.source, options.allow_other,
                           options.foreground, options.extra))  # fmt: skip
        return 77, options.mounted()


@pytest.fixture
def mounted(monkeypatch: pytest.MonkeyPatch) -> Mounted:
    return Mounted(monkeypatch)


@pytest.mark.parametrize(
    ("knows", "notes"),
    [
        (None, []), (DeviceLost("gone"), ["gone"]),
        (OSError(errno.EIO, "Input/output error"), [
            "input/output error; the disk may be failing: the system's log (dmesg) says more"
        ]),
    ],
)  # fmt: skip
def test_what_is_said_of_a_mount(
    mounted: Mounted, run: Run, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    knows: Exception | None, notes: list[str],
) -> None:  # fmt: skip
    """What cannot be found out about it is said too: it is mounted."""
    cam = tmp_path / "cam"
    cam.mkdir()
    mounted.knows = knows
    first = ["its\\nname cam True"] if knows is None else []
    lines = [f"romfsfs: {line}\n" for line in (*first, *notes)]
    said = "its\\nname is mounted at cam\n"
    done = run("mount", image.name, "cam")
    assert (done.code, done.out) == (0, said)
    assert done.err.splitlines(True)[-len(notes) or None :] == lines[-len(notes) or None :]
    usual = ("open_host", "cam", str(image), False, False, ())
    assert mounted.calls == [([], None), usual]
    monkeypatch.chdir(cam)
    done = run("mount", image, ".")
    assert done.out == "its\\nname is mounted at .\n"
    assert done.err.splitlines()[-1] == (
        "romfsfs: your shell is still in the folder below the mount; to enter the mount: cd ."
    )


@pytest.mark.parametrize("foreground", [[], ["--foreground"]])
def test_what_a_mount_is_asked_for(
    mounted: Mounted, run: Run, image: Path, tmp_path: Path, foreground: list[str]
) -> None:
    (tmp_path / "cam").mkdir()
    for words, chosen, read_only, notifies, waits, other, extra in (
        ([], OpenOptions(), False, True, [], False, ()),
        (["--no-notify", "--new", "--exclude", "x", "--slot", "B", "--wait", "--commit-on-unmount"],
         OpenOptions(None, None, None, ("x",), True, True, "B"), False, False, [str(image)], False,
         ()),
        (["--board", "AE3:1", "--read-only", "--allow-other", "-o", "nonempty,ro"],
         OpenOptions("OPENMV_AE3", 1), True, True, [], True, ("nonempty",)),
    ):  # fmt: skip
        mounted.calls.clear()
        done = run("mount", image, "cam", *words, *foreground)
        assert (done.code, bool(done.out), bool(done.err)) == (0, not foreground, not foreground)
        request = mounted.request
        assert request.source == str(image)
        assert request.mountpoint == str(tmp_path / "cam")
        assert request.chosen == replace(chosen, options=Options())
        assert (request.read_only, request._notifier is not None) == (read_only, notifies)
        assert mounted.calls == [
            (waits, chosen.partition),
            ("open_host", "cam", str(image), other, bool(foreground), extra),
        ]
        said = ["its\nname", "its\nname cam True"] if not foreground else []
        assert request.said == said


@pytest.mark.parametrize(
    ("board", "size", "capacity", "of_device", "notes", "problems", "resumed", "said"),
    [
        (None, 5, None, None, [], [], None,
         ["no board chosen: scripts become portable bytecode, the size is not limited; romfsfs "
          "boards lists what --board takes"]),
        (None, 5, 4, 4, [], [], None,
         ["no board chosen: scripts become portable bytecode; romfsfs boards lists what --board "
          "takes", "the image is 1 B too large, there is room for 4 B: romfsfs status 'a b'"]),
        (None, 5, None, 4, ["note"], [ERROR], status("added"),
         ["note", "it has edits that are not committed: romfsfs status 'a b'"]),
        ("N6", 4, 4, 4, [], [WARNING], None, []),
        ("N6", 5, 4, 4, ["note"], [ERROR, WARNING, ERROR], status("stale modified"),
         ["note", "the image is 1 B too large, there is room for 4 B: romfsfs status 'a b'",
          "2 files in the image cannot work on N6: romfsfs status 'a b'",
          "it has no edits, but a commit would rebuild 1 file: romfsfs status 'a b'"]),
    ],
)  # fmt: skip
def test_what_is_worth_knowing(
    monkeypatch: pytest.MonkeyPatch, board: str | None, size: int, capacity: int | None,
    of_device: int | None, notes: list[str], problems: list[Any], resumed: Any, said: list[str],
) -> None:  # fmt: skip
    def admit(files: object, fd: int, target: str) -> list[Problem]:
        assert (files, fd, target) == ({"a": 1}.items(), 9, "target")
        return [Problem("x", "a", "is bad", severity) for severity in problems]

    monkeypatch.setattr(mounting, "admit_files", admit)
    session: Any = SimpleNamespace(
        info=SimpleNamespace(notes=notes, board=board, capacity=of_device),
        settings=SimpleNamespace(capacity=capacity, target="target"),
        base=SimpleNamespace(image_size=size),
        held=lambda: SimpleNamespace(extents={"a": 1}, fd=9),
    )
    assert list(mounting._worth_knowing(session, "a b", resumed)) == said


@pytest.mark.parametrize(
    ("chosen", "there", "desktop", "notifies", "said"),
    [
        (None, True, True, True, False), (None, True, False, False, False),
        (None, False, True, False, False), (True, True, False, True, True),
        (True, False, True, False, True), (False, True, True, False, False),
    ],
)  # fmt: skip
def test_who_gets_notifications(
    run: Run, monkeypatch: pytest.MonkeyPatch, chosen: bool | None, there: bool, desktop: bool,
    notifies: bool, said: bool,
) -> None:  # fmt: skip
    told: list[str] = []
    output: Any = SimpleNamespace(note=told.append)
    monkeypatch.setattr(mounting, "missing", lambda names: [f"no {name}" for name in names])
    monkeypatch.setattr(mounting, "find_notifier", lambda: "/bin/notify" if there else None)
    monkeypatch.setattr(mounting, "desktop_runs", lambda: desktop)
    assert mounting._notifies(output, chosen) is notifies
    assert told == (["no notify-send", "no zenity"] if said else [])
