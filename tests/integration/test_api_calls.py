"""romfsfs from Python: what each call hands on to the session, whole."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import romfsfs
from romfsfs import api
from romfsfs.convert import Options
from romfsfs.errors import RomfsError, SessionBusy
from romfsfs.fs import daemon, mountpoint
from romfsfs.session.opening import Entered
from romfsfs.session.rebase.commit import CommitOptions
from romfsfs.session.rebase.push import PushOptions
from romfsfs.session.rebase.read import OpenOptions
from romfsfs.system.files import no_progress

Calls = list[Any]


def shown(phase: str, done: int, total: int) -> None:
    """A `Progress`."""


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """All that `api` calls of the session and below, with the arguments; each returns its name."""
    made: Calls = []

    def recorder(name: str) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            made.append((name, *given, *([named] if named else [])))
            return name

        return call

    for name in ("commit", "commit_to", "revert", "make_ready", "leave_work", "find_session",
                 "push_all", "open_device", "boards_of"):  # fmt: skip
        monkeypatch.setattr(api, name, recorder(name))
    return made


class Part:
    """A device or a lock that notes when it is let go, or a session with its folder."""

    def __init__(self, calls: Calls, work: bool = False, busy: bool = False) -> None:
        self._calls, self._busy, self.has_work = calls, busy, work
        self.info = SimpleNamespace(name="cam", board="B", partition=1)
        self.folder: Any = self
        self.work = Path("/work tree")

    def close(self) -> None:
        self._calls.append("closed")

    def release(self) -> None:
        self._calls.append("released")

    def status(self) -> str:
        return "the status"

    @contextlib.contextmanager
    def lock_for_change(self, name: str) -> Any:
        assert name == "cam"
        if self._busy:
            raise SessionBusy("busy")
        self._calls.append("locked")
        yield
        self._calls.append("unlocked")

    lock_unmounted = lock_for_change


def test_an_editor_hands_on_what_it_is_told(calls: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    session, device, lock = (Part(calls) for _ in range(3))
    editor = api.Editor(session, device, lock)  # type: ignore[arg-type]
    assert (editor.path, editor.status()) == (session.work, "the status")
    assert editor.commit() == "commit"  # type: ignore[comparison-overlap]
    editor.commit(force=True, slot="B", progress=shown)
    editor.commit(compact=True)
    editor.commit(tries=True)
    wanted = [
        (CommitOptions(), no_progress), (CommitOptions(force=True, slot="B"), shown),
        (CommitOptions(compact=True), no_progress), (CommitOptions(tries=True), no_progress),
    ]  # fmt: skip
    assert calls == [("commit", session, device, how, {"progress": now}) for how, now in wanted]
    calls.clear()
    other = Part(calls)

    @contextlib.contextmanager
    def connected(*given: Any) -> Any:
        calls.append(("connected", *given))
        yield other

    monkeypatch.setattr(api, "connected", connected)
    editor.commit_to("other.img", progress=shown)
    assert calls == [
        ("connected", "other.img", "B", 1),
        ("commit_to", session, other, {"progress": shown, "source": "other.img"}),
    ]
    calls.clear()
    assert editor.revert(["a"]) == "revert"  # type: ignore[comparison-overlap]
    name, *given, how = calls.pop()
    assert (name, given, calls) == ("revert", [session, ["a"]], [])
    with how.pop("connect")("anything") as same:
        assert (same, how) == (device, {})
    assert editor.revert() == "revert"  # type: ignore[comparison-overlap]
    assert [call[:3] for call in calls] == [
        ("revert", session, ()), ("make_ready", session, device),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("work", "busy", "done"),
    [
        (True, False, ["locked", "left", "unlocked"]), (False, False, ["locked", "unlocked"]),
        (True, True, []),
    ],
)  # fmt: skip
def test_an_editor_is_closed_once(calls: Calls, work: bool, busy: bool, done: list[Any]) -> None:
    session = Part(calls, work, busy)
    with api.Editor(session, Part(calls), Part(calls)) as editor:  # type: ignore[arg-type]
        assert editor.session is session  # type: ignore[comparison-overlap]
        assert calls == []
    left = [("leave_work", session) if each == "left" else each for each in done]
    for _ in range(2):
        assert calls == [*left, "closed", "released"]
        editor.close()
    with pytest.raises(RomfsError) as caught:
        editor.status()
    assert caught.value.line == "the editor is closed; romfsfs.open() gives a new one"


def test_opening_hands_on_what_it_is_told(calls: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    device, lock, session = (Part(calls) for _ in range(3))

    def opened(*given: Any, **named: Any) -> Part:
        calls.append((*given, named))
        return device

    def enter(*given: Any) -> Any:
        calls.append(given)
        if refused:
            raise SessionBusy("busy")
        return Entered(session, lock, None, None, False)  # type: ignore[arg-type]

    refused, options = False, Options()
    monkeypatch.setattr(api, "open_device", opened)
    monkeypatch.setattr(api, "enter", enter)
    editor = romfsfs.open(Path("a.img"))
    assert (editor._session, editor._device, editor._lock) == (session, device, lock)
    romfsfs.open("b", board="B", partition=1, slot="A", options=options, new=True, progress=shown)
    none = {"board": None, "partition": None, "slot": ""}
    assert calls == [
        ("a.img", none), (device, "a.img", OpenOptions(None, None, None), no_progress),
        ("b", {"board": "B", "partition": 1, "slot": "A"}),
        (device, "b", OpenOptions("B", 1, options, new=True, slot="A"), shown),
    ]  # fmt: skip
    refused = True
    with pytest.raises(SessionBusy):
        romfsfs.open("a.img")
    assert calls[-1] == "closed"


def test_mounting_hands_on_what_it_is_told(
    calls: Calls, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def mounted(host: Any, directory: Any, options: Any) -> None:
        request = host.__self__
        what = request.source, request.mountpoint, request.chosen, request.read_only
        assert (host.__name__, options.mounted) == ("open_host", request.say_where)
        assert options.failed == request.give_up
        calls.append((*what, directory, options.source, options.progress))

    monkeypatch.setattr(daemon, "mount", mounted)
    monkeypatch.chdir(tmp_path)
    cam, place = Path("cam"), str(tmp_path / "cam")
    assert romfsfs.mount("camera:1", "cam") == "find_session"  # type: ignore[comparison-overlap]
    how = {"board": "B", "partition": 1, "new": True, "read_only": True, "progress": shown}
    romfsfs.mount(Path("b"), cam, **how)  # type: ignore[arg-type]
    image = str(tmp_path / "b")
    assert calls == [
        ("camera:1", place, OpenOptions(None, None), False, "cam", "camera:1", no_progress),
        ("find_session", "cam"),
        (image, place, OpenOptions("B", 1, new=True), True, cam, image, shown),
        ("find_session", "cam"),
    ]
    calls.clear()
    romfsfs.find()
    romfsfs.find(Path("x"), partition=1)
    assert calls == [("find_session", None, None), ("find_session", "x", 1)]


@pytest.mark.parametrize(("pid", "work", "busy"), [(7, True, False), (None, False, True)])
def test_unmounting_keeps_edits(
    calls: Calls, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, pid: int | None, work: bool,
    busy: bool,
) -> None:  # fmt: skip
    session: Any = Part(calls, work, busy)
    session.mounted_at = lambda: None if pid is None else SimpleNamespace(pid=pid)
    (tmp_path / "link").symlink_to("cam")
    monkeypatch.setattr(api, "find_session", lambda where: SimpleNamespace(session=session))
    monkeypatch.setattr(mountpoint, "unmount", lambda *all, **how: calls.append((*all, how)))
    romfsfs.unmount(tmp_path / "link")
    ended = [(f"{tmp_path}/cam", {"pid": pid})]
    assert calls == ended + (
        [] if busy else ["locked", *([("leave_work", session)] * work), "unlocked"]
    )
    calls.clear()
    session.has_work, session._busy = not work, False
    romfsfs.unmount(tmp_path / "link")
    assert calls == [*ended, "locked", *([("leave_work", session)] * (not work)), "unlocked"]


@pytest.mark.parametrize(
    ("image", "boards", "name"),
    [
        ("out", ["A"], "out"),
        ("out", ["A", "B"], "out/"),
        ("out/", ["A", "B"], "out/"),
        ("{board}.img", ["A", "B"], "{board}.img"),
        ("{board}.img", ["A"], "{board}.img"),
        ("out", [], None),
    ],
)
def test_building_hands_on_what_it_is_told(
    calls: Calls, monkeypatch: pytest.MonkeyPatch, image: str, boards: list[str], name: str | None
) -> None:
    def orders(*given: Any, **named: Any) -> list[str]:
        calls.append((*given, named))
        return ["order"]

    def built(name: str) -> Callable[..., Any]:
        def call(*given: Any) -> Any:
            calls.append((name, *given))
            return SimpleNamespace(digest="d") if name == "one" else iter(["result"])

        return call

    options = Options()
    monkeypatch.setattr(api, "orders", orders)
    monkeypatch.setattr(api, "build_order", built("one"))
    monkeypatch.setattr(api, "build_each", built("each"))
    assert romfsfs.build_many("tree", Path(image), boards, progress=shown, options=options) == [
        "result"
    ]
    wanted = [] if name is None else [(boards, name, {"options": options})]
    work = ["order"] if boards else []
    if not image.endswith("/"):  # a Path has none
        assert calls == [*wanted, ("each", Path("tree"), work, (), shown)]
    calls.clear()
    assert romfsfs.build("tree", image) == "d"
    romfsfs.build("tree", image, board="B", partition=1, options=options, progress=shown)
    assert calls == [
        ("boards_of", "tree", ()), ("boards_of", image, 0, None, {}),
        ("one", Path("tree"), "order", (), no_progress),
        ("boards_of", "tree", ("B",)), ("boards_of", image, 1, options, {}),
        ("one", Path("tree"), "order", (), shown),
    ]  # fmt: skip


def test_pushing_hands_on_what_it_is_told(calls: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "connected", lambda *given: given)
    assert romfsfs.push("a.img", ["x", "y"]) == "push_all"  # type: ignore[comparison-overlap]
    how: dict[str, Any] = {"board": "B", "partition": 1, "progress": shown}
    romfsfs.push("a.img", ["x"], force=True, **how)
    romfsfs.push("a.img", ["x"], reset=False)
    romfsfs.push("a.img", ["x"], tries=True)
    connects = [call[3] for call in calls]
    assert [connect("x") for connect in connects[:2]] == [("x", None, None), ("x", "B", 1)]
    assert [(*call[:3], *call[4:]) for call in calls] == [
        ("push_all", "a.img", ["x", "y"], PushOptions(False, True, tries=False), no_progress),
        ("push_all", "a.img", ["x"], PushOptions(True, True, tries=False), shown),
        ("push_all", "a.img", ["x"], PushOptions(False, False, tries=False), no_progress),
        ("push_all", "a.img", ["x"], PushOptions(False, True, tries=True), no_progress),
    ]
