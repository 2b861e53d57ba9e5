"""What the commands on sessions ask of what is below them: every argument of theirs arrives."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cli_mounts import Ran

from romfsfs.cli import images, sessions, unfinished, values
from romfsfs.cli.choices import chosen
from romfsfs.convert import FileOptions, Options, Rule
from romfsfs.errors import RomfsError, UsageError
from romfsfs.session.keep import history
from romfsfs.session.keep.history import HistoryEntry
from romfsfs.session.keep.locks import MountedAt
from romfsfs.session.rebase.commit import CommitOptions, CommitReport
from romfsfs.session.rebase.transaction import WriteOptions
from romfsfs.session.rebase.undo import Undone
from romfsfs.session.session import Session

Run = Callable[..., Ran]

LOOKS = {"only_looks": True}


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        ("status", (None, None, "", LOOKS)), ("status x --slot B", ("x", None, "B", LOOKS)),
        ("diff x a", ("x", None, "", LOOKS)),
        ("diff x --partition 1 --slot B", ("x", 1, "B", LOOKS)),
        ("log", (None, None, "", LOOKS)),
        ("log x --keep 1k --slot A", ("x", None, "A", {"only_looks": False})),
        ("commit", (None, None, "", {})), ("commit x --slot B", ("x", None, "B", {})),
        ("commit x --to y.img --slot B --partition 1", ("x", 1, "B", {})),
        ("commit x --to camera:7 --slot B", ("x", None, "", {})),
        ("commit x --to camera:7", ("x", None, "", {})),
        ("revert x --partition 1 --slot B", ("x", 1, "B", {})),
        ("undo x --partition 1 --slot B", ("x", 1, "B", {})),
        ("recover x --partition 1 --slot B", ("x", 1, "B", {})),
        ("info src --slot B", ("src", {"slot": "B", **LOOKS})),
    ],
)  # fmt: skip
def test_which_session(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str, asked: object
) -> None:
    found: list[object] = []

    def find(*what: object, **how: object) -> None:
        found.append((*what, how))
        raise RomfsError("enough")

    (tmp_path / "src").mkdir()
    for module in (sessions, unfinished, images):
        monkeypatch.setattr(module, "find_session", find)
    assert run(*words.split()) == (1, "", "romfsfs: error: enough\n")
    assert found == [asked]


class Below:
    """A session, what is opened for it, and what the operations are asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, session: Session) -> None:
        self.calls: list[object] = []
        self.found: Any = SimpleNamespace(
            session=session, mountpoint=None, inside="", mounted="mounted", idle=False
        )

        @contextlib.contextmanager
        def opened(*what: object) -> Iterator[str]:
            self.calls.append(("open", *(each for each in what if each is not session)))
            yield "the device"

        for module in (sessions, unfinished):
            monkeypatch.setattr(module, "find_session", lambda *_, **__: self.found)
            monkeypatch.setattr(module, "session_device", opened)
        monkeypatch.setattr(sessions, "device", opened)

    def operation(self, answer: object) -> Callable[..., object]:
        """One that is asked, without its progress."""

        def ask(*what: object, **how: object) -> object:
            how.pop("progress", None)
            self.calls.append(
                tuple(each for each in what if not callable(each)) + ((how,) if how else ())
            )
            return answer

        return ask


@pytest.fixture
def below(monkeypatch: pytest.MonkeyPatch, session: Session) -> Below:
    return Below(monkeypatch, session)


ALL = "--force --no-reset --try --compact --dry-run"


@pytest.mark.parametrize(
    ("words", "opens", "options", "elsewhere"),
    [
        ("", ("open", "commit"), CommitOptions(), []),
        (f"{ALL} --slot B", ("open", "commit"),
         CommitOptions(True, False, True, "B", True, True), []),
        ("--to x.img --slot A", ("open", "x.img", None, 0, ""), CommitOptions(slot="A"), ["x.img"]),
        (f"{ALL} --to camera:7 --slot A", ("open", "camera:7", None, 0, "A"),
         CommitOptions(True, False, True, "A", True, True), ["camera:7"]),
    ],
)  # fmt: skip
def test_what_a_commit_is_asked_for(
    below: Below, run: Run, session: Session, monkeypatch: pytest.MonkeyPatch, words: str,
    opens: object, options: CommitOptions, elsewhere: list[str],
) -> None:  # fmt: skip
    plan: Any = SimpleNamespace(problems=())
    report = CommitReport(True, plan, ())
    for name in ("commit_session", "commit_to"):
        monkeypatch.setattr(sessions, name, below.operation(report))
    done = run("commit", "x", *words.split())
    name = elsewhere[0] if elsewhere else session.info.name
    assert done == (0, f"{name}: nothing to commit, nothing written\n", "")
    assert below.calls == [opens, (session, "the device", options, "mounted", *elsewhere)]


@pytest.mark.parametrize(
    ("words", "number", "options", "dry_run"),
    [
        ("", None, WriteOptions(), False),
        (
            "--to 3 --force --no-reset --slot B --dry-run",
            3,
            WriteOptions(True, False, slot="B"),
            True,
        ),
    ],
)
def test_what_an_undo_is_asked_for(
    below: Below, run: Run, session: Session, monkeypatch: pytest.MonkeyPatch, words: str,
    number: int | None, options: WriteOptions, dry_run: bool,
) -> None:  # fmt: skip
    """Of an image without a summary its kind is said."""
    entry = HistoryEntry(3, "read", 0.0, "d", 5000, "")
    monkeypatch.setattr(sessions, "undo_session", below.operation(Undone(entry, None, "")))
    assert run("undo", "x", *words.split()) == (0, "back to image 3: 5,000 B, read\n", "")
    how = {"dry_run": dry_run, "mounted": "mounted"}
    assert below.calls == [("open",), (session, "the device", number, options, how)]


@pytest.mark.parametrize("rollback", [False, True])
def test_what_a_recovery_is_asked_for(
    below: Below, run: Run, session: Session, monkeypatch: pytest.MonkeyPatch, rollback: bool
) -> None:
    monkeypatch.setattr(unfinished, "recover_session", below.operation("finished"))
    words = ["--rollback"] * rollback
    assert run("recover", "x", *words) == (0, f"{session.info.name}: finished\n", "")
    asked = (session, "the device", {"rollback": rollback, "mounted": "mounted"})
    assert below.calls == [("open",), asked]
    below.calls.clear()
    monkeypatch.setattr(unfinished, "is_stuck", lambda found: found is below.found)
    monkeypatch.setattr(unfinished, "no_answer", lambda found: RomfsError("no answer"))
    assert run("recover", "x", *words) == (1, "", "romfsfs: error: no answer\n")
    assert below.calls == [], "who waits for it waits for good"


def test_what_the_log_keeps_is_changed_by_one_alone(
    run: Run, session: Session, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def keep(folder: Any, most: int) -> None:
        assert folder.changed_by() is not None

    monkeypatch.setattr(history, "keep_within", keep)
    assert run("log", image, "--keep", "1k").code == 0


def test_what_an_undo_brought_back_is_in_the_log(run: Run, session: Session, image: Path) -> None:
    assert run("commit", image).code == 0
    for number in (0, 1):
        assert run("undo", image, "--to", number).code == 0
    restored = [each["restores"] for each in json.loads(run("log", image, "--json").out)]
    assert restored == [None, None, 0, 1]


@pytest.mark.parametrize(
    ("words", "listed"), [(["status"], False), (["status", "-v"], True), (["-v", "status"], True)]
)
def test_what_is_unchanged_is_listed_for_who_asks_for_more(
    run: Run, session: Session, image: Path, words: list[str], listed: bool
) -> None:
    assert ("\n    lib/b.bin " in run(*words, image).out) is listed


NO = FileOptions(convert=False)
#: the options of conversion, none of which was given
NOTHING: dict[str, Any] = {
    **dict.fromkeys(("convert", "optimise", "profile", "mpool", "arg", "align"), ()),
    "no_convert": False, "stedgeai": None,
}  # fmt: skip


@pytest.mark.parametrize(
    ("option", "texts", "rules"),
    [
        ("no_convert", True, [Rule("*", NO)]),
        ("convert", ["no", "a=YES", "b=true", "c=False"],
         [Rule("*", NO), *(Rule(name, FileOptions(True)) for name in "ab"), Rule("c", NO)]),
        ("optimise", ["2", "a=Size"],
         [Rule("*", FileOptions(optimise=2)), Rule("a", FileOptions(optimise="Size"))]),
        ("profile", ["7", "x=7@/p.json"],
         [Rule("*", FileOptions(profile="7")), Rule("x", FileOptions(profile="7@/p.json"))]),
        ("mpool", ["/9"], [Rule("*", FileOptions(mpool="/9"))]),
        ("align", ["16", "x=32", "x=64"],
         [Rule("*", FileOptions(align=16)), Rule("x", FileOptions(align=64))]),
        ("arg", ["-a=1", "b", "*.x=-c=2", "*.x=d"],
         [Rule("*", FileOptions(arguments=("-a=1", "b"))),
          Rule("*.x", FileOptions(arguments=("-c=2", "d")))]),
    ],
)  # fmt: skip
def test_what_is_chosen_about_conversions(option: str, texts: Any, rules: list[Rule]) -> None:
    assert chosen(NOTHING) == Options()
    assert chosen({**NOTHING, option: texts}) == Options(tuple(rules))


def test_where_st_edge_ai_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a path from the root: what mounts works elsewhere."""
    (tmp_path / "tool").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    for text in ("tool", "~/tool", str(tmp_path / "tool")):
        assert chosen({**NOTHING, "stedgeai": text}) == Options((), str(tmp_path / "tool"))
    with pytest.raises(UsageError, match=f"--stedgeai {tmp_path}/no"):
        chosen({**NOTHING, "stedgeai": "no"})


def test_a_place_is_offered_as_it_is_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for path, word, shown in (
        (f"{tmp_path}/cam", "", "cam"), (f"{tmp_path}/cam", "c", "cam"),
        (f"{tmp_path}/cam", "/", f"{tmp_path}/cam"), ("/elsewhere", "", "/elsewhere"),
        ("camera:77", "", "camera:77"), ("camera:77", "/", "camera:77"), ("..x", "", "..x"),
    ):  # fmt: skip
        assert values._near(path, word) == shown


def test_only_what_is_mounted_is_offered_as_a_mount(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    context: Any = None
    assert list(values._mounts(context, "")) == []
    with session.folder.lock_for_mount("app.img") as lock:
        assert list(values._mounts(context, "")) == [], "it is only being mounted"
        lock.write(MountedAt(1, "/cam"))
        assert list(values._mounts(context, "")) == [
            ("/cam", f"{session.info.name} is mounted there")
        ]


def test_models_are_offered_without_asking_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def open_known(source: str, *, offline: bool) -> None:
        asked.append(offline)

    monkeypatch.setattr("romfsfs.zoo.choose.open_known", open_known)
    context: Any = SimpleNamespace(params={})
    assert list(values._models(context, "")) == []
    assert asked == [True]
