"""The commands on a session, unmounted."""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from stopping import ends_at

from romfsfs.cli import unfinished
from romfsfs.devices.file import FileDevice
from romfsfs.errors import DeviceLost, RomfsError, UsageError, shell_word
from romfsfs.image.writer import encode
from romfsfs.session.keep import history
from romfsfs.session.keep.folder import folder_of, make_folder
from romfsfs.session.rebase.read import OpenOptions, make_ready, session_for
from romfsfs.session.session import Session

Run = Callable[..., "tuple[int, str, str]"]


def test_a_status_and_its_exit_code_are_of_one_look(
    run: Run, session: Session, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[object] = []
    look = Session.look
    monkeypatch.setattr(Session, "look", lambda *given: looks.append(given) or look(*given))
    code, out, _ = run("status", image, "--exit-code")
    assert (code, len(looks)) == (1, 1)
    assert "  M a.txt  7 B" in out


def test_the_way_of_an_edit(run: Run, session: Session, image: Path) -> None:
    code, out, _ = run("status", image)
    assert code == 0
    assert "  M a.txt  7 B" in out
    assert run("status", image, "--exit-code")[0] == 1
    code, out, _ = run("diff", image)
    assert out.splitlines()[-3:] == ["@@ -1 +1 @@", "-first", "+edited"]
    code, out, _ = run("commit", image)
    assert code == 0
    assert re.fullmatch(rf"{image}: wrote [\d,]+ of [\d,]+ B, [\d.]+ s, verified\n", out)
    assert run("commit", image)[1] == f"{image}: nothing to commit, nothing written\n"
    assert run("cat", image, "a.txt")[1] == "edited\n"
    code, out, _ = run("log", image)
    assert [line.split()[0] for line in out.splitlines()] == ["0", "*"]
    assert run("undo", image, "--dry-run")[1].startswith("back to image 0: ")
    code, out, _ = run("undo", image)
    assert code == 0
    assert out.splitlines()[0].startswith("back to image 0: ")
    assert out.splitlines()[1] == "  M a.txt"
    assert run("cat", image, "a.txt")[1] == "first\n"


@pytest.mark.parametrize(
    ("size", "wanted"),
    [("500", 500), ("500b", 500), ("2k", 2048), ("200M", 200 << 20), ("1GiB", 1 << 30)],
)
def test_how_much_the_images_of_the_log_may_take(
    run: Run, session: Session, image: Path, monkeypatch: pytest.MonkeyPatch, size: str,
    wanted: int,
) -> None:  # fmt: skip
    kept: list[int] = []
    monkeypatch.setattr(history, "keep_within", lambda folder, most: kept.append(most))
    assert run("log", image, "--keep", size)[0] == 0
    assert kept == [wanted]


def test_a_file_that_was_moved_away_and_linked_to(
    run: Run, session: Session, image: Path, tmp_path: Path
) -> None:
    """Its name led to no edits any more, and they could be neither written nor dropped."""
    other = tmp_path / "other.img"
    image.rename(tmp_path / "moved.img")
    assert f"{image}: edits, its file is gone" in run("sessions")[1]
    image.symlink_to("moved.img")
    assert f"{image}: edits, its path is now a link to another file" in run("sessions")[1]
    assert "  M a.txt  7 B" in run("status", image)[1]
    code, _, said = run("commit", image)
    assert code == 5
    assert f"its path is now a link to another file: {os.path.realpath(image)}" in said
    assert run("commit", image, "--to", other)[0] == 0
    assert run("cat", other, "a.txt")[1] == "edited\n"
    assert run("revert", image, "--yes")[1].endswith("1 change reverted\n")


def test_a_no_is_no_interruption(
    run: Run, session: Session, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", answers := io.StringIO("n\ny\n"))
    monkeypatch.setattr(answers, "isatty", lambda: True, raising=False)
    code, _, err = run("revert", image)
    assert code == 1
    assert err.endswith("romfsfs: nothing was changed\n")
    assert (session.work / "a.txt").read_text() == "edited\n"
    (session.work / "two\nlines").write_text("")
    assert run("revert", image)[1] == "  a.txt\n  two\\nlines\n2 changes reverted\n"


def test_commands_speak_json(run: Run, session: Session, image: Path) -> None:
    assert json.loads(run("status", image, "--json")[1])["clean"] is False
    dry = json.loads(run("commit", image, "--dry-run", "--json")[1])
    assert dry["write"] is None
    done = json.loads(run("commit", image, "--json")[1])
    assert done["digest"] == dry["digest"]
    assert done["write"]["verified"] is True
    assert json.loads(run("commit", image, "--json")[1])["clean"] is True
    assert [entry["kind"] for entry in json.loads(run("log", image, "--json")[1])] == [
        "read", "commit",
    ]  # fmt: skip
    listed = json.loads(run("sessions", "--json")[1])
    assert listed[0]["name"] == str(image)
    assert listed[0]["state"] == "clean"
    assert listed[0]["mountpoint"] is None
    dry = json.loads(run("undo", image, "--dry-run", "--json")[1])
    assert (dry["restored"], dry["write"]) == (0, None)
    assert json.loads(run("undo", image, "--json")[1])["restored"] == 0


def test_without_a_name_the_only_session_is_meant(run: Run, session: Session, image: Path) -> None:
    assert "M a.txt" in run("status")[1]
    other = image.with_name("other.img")
    other.write_bytes(encode({}))
    device = FileDevice(other)
    with make_folder(str(other)).lock_for_mount("other.img"):
        second = session_for(device, str(other))
        make_ready(second, device)
    assert "M a.txt" in run("status")[1]
    (second.work / "b.txt").write_text("b")
    code, _, err = run("status")
    assert code == 2
    assert "several sessions have edits" in err


def test_a_target_that_changed_elsewhere_is_exit_7(run: Run, session: Session, image: Path) -> None:
    image.write_bytes(encode({"x": b"from elsewhere"}))
    code, _, err = run("commit", image)
    assert code == 7
    assert err.count("\n") == 1
    ways = re.findall(r"romfsfs (\w+) \S+ ?(--\w+)?", err)
    assert [way for way, _ in ways] == ["commit", "commit", "revert"]
    assert run("commit", image, "--to", "saved.img")[0] == 0
    assert run("cat", "saved.img", "a.txt")[1] == "edited\n"
    assert run("commit", image, "--force")[0] == 0
    assert run("cat", image, "a.txt")[1] == "edited\n"


def test_exit_codes(run: Run, session: Session, image: Path) -> None:
    (session.work / "bad.py").write_text("def f(:\n")
    code, _, err = run("commit", image)
    assert code == 3
    assert "bad.py" in err
    assert "SyntaxError" in err
    os.mkfifo(session.work / "pipe")
    assert run("commit", image)[0] == 4
    assert run("status", "nowhere.img")[0] == 2
    assert run("status", image.parent)[0] == 2
    assert run("log", "/dev/ttyNOWHERE")[0] == 5
    assert run("commit", image, "--to", image)[0] == 2
    assert run("revert", image, "no/such/file")[0] == 2
    assert run("undo", image, "--to", "77")[0] == 2
    assert run("nonsense")[0] == 2


def test_an_error_is_one_line_with_a_next_step(run: Run, session: Session, image: Path) -> None:
    for command in (("status", "nowhere.img"), ("undo", image), ("diff", image.parent)):
        code, _, err = run(*command)
        assert code != 0
        assert len(err.splitlines()) == 1
        assert err.startswith("romfsfs: error: ")
        assert ";" in err


def test_revert_names_what_it_brought_back(run: Run, session: Session, image: Path) -> None:
    code, out, _ = run("revert", image, "a.txt")
    assert code == 0
    assert out == "  a.txt\n1 change reverted\n"
    assert (session.work / "a.txt").read_text() == "first\n"
    assert run("revert", image, "--yes")[1] == "0 changes reverted\n"
    assert not session.has_work


class Died(BaseException):
    """As a kill ends it: nothing catches it."""


def test_sessions_say_what_was_interrupted(
    run: Run, session: Session, image: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.img"
    assert run("build", session.work, other, "--board", "OPENMV_N6")[0] == 0
    assert run("revert", image, "--yes")[0] == 0
    with ends_at("switched", Died):
        run("push", other, image)
    assert f"{image}: interrupted push\n" in run("sessions")[1]


def test_an_interrupted_commit_is_shown_and_recovered(
    run: Run, session: Session, image: Path
) -> None:
    with ends_at("switched", Died):
        run("commit", image)
    assert "interrupted commit" in run("sessions")[1]
    with session.folder.lock_for_change("recovery"):  # somebody is at it: it is not interrupted
        assert ": being changed" in run("sessions")[1]
        assert json.loads(run("sessions", "--json")[1])[0]["interrupted"] is False
    assert "romfsfs recover" in run("status", image)[1]
    code, out, _ = run("commit", image, "--dry-run")
    assert code == 1
    code, out, _ = run("recover")
    assert code == 0
    assert out == f"{image}: finished\n"
    assert run("recover")[1] == "nothing to recover\n"
    assert run("cat", image, "a.txt")[1] == "edited\n"
    assert json.loads(run("status", image, "--json")[1])["clean"] is True


def test_of_several_interrupted_writes_the_worst_failure_counts(
    run: Run, session: Session, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that fails keeps no other from being finished."""
    second, third = (image.with_name(name) for name in ("second.img", "third.img"))
    session.folder.record.touch()
    for path in (second, third):
        path.write_bytes(image.read_bytes())
        session_for(FileDevice(path), str(path), OpenOptions()).folder.record.touch()
    fails = {"app.img": RomfsError("no"), "second.img": DeviceLost("gone"), "third.img": None}

    def recover(session: Session, *_: object, **__: object) -> str:
        error = fails[Path(session.info.source).name]
        if error is not None:
            raise error
        return "finished"

    monkeypatch.setattr(unfinished, "recover_session", recover)
    code, out, err = run("recover")
    assert code == DeviceLost.exit_code
    assert out == f"{third}: finished\n"
    assert err == "romfsfs: error: no\nromfsfs: error: gone\n"
    code, _, err = run("recover", image)
    assert (code, err) == (1, "romfsfs: error: no\n")


def test_names_no_terminal_should_see(run: Run, session: Session, image: Path) -> None:
    (session.work / "bell\x07").write_text("1")
    (session.work / os.fsdecode(b"latin\xe9")).write_text("1")
    for command in (("status", image), ("status", image, "--json"), ("diff", image)):
        code, out, _ = run(*command)
        assert code == 0
        assert "\x07" not in out
    code, _, err = run("commit", image)
    assert code == 4
    assert "\x07" not in err


def test_quiet_says_only_what_was_asked_for(run: Run, session: Session, image: Path) -> None:
    assert run("-q", "commit", image)[1:] == ("", "")
    assert "a.txt" in run("-q", "ls", image)[1]


def test_diff_between_images_of_the_log(run: Run, session: Session, image: Path) -> None:
    run("commit", image)
    code, out, _ = run("diff", image, "--images", "0", "1")
    assert code == 0
    assert "-first" in out
    assert "+edited" in out
    assert run("diff", image, "lib", "--images", "0", "1")[1] == ""


def test_without_edits_there_is_nothing_to_do_and_no_error(
    run: Run, session: Session, image: Path
) -> None:
    """Scripts unmount, then commit what may have been kept."""
    assert "nobody can be asked" in run("revert", image)[2]
    assert run("revert", image, "--yes")[0] == 0
    assert run("commit", image) == (
        0, f"{image}: not mounted, no edits: nothing to commit\n", ""
    )  # fmt: skip
    assert run("status", "--exit-code", image) == (0, f"{image}: not mounted, no edits\n", "")
    assert json.loads(run("status", "--json", image)[1])["clean"] is True
    assert json.loads(run("commit", "--json", image)[1])["clean"] is True
    assert run("diff", image) == (0, "", "")
    assert run("revert", image)[1].endswith("nothing to revert\n")
    code, _, err = run("commit", image, "--to", image.parent / "other.img")
    assert code == 1
    assert f"not mounted and has no edits; romfsfs mount {shell_word(image)} DIR" in err


def test_a_file_that_is_read_only_is_not_replaced(
    run: Run, session: Session, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its folder would allow it; who took the permission away meant the file."""
    image.chmod(0o444)
    before = image.read_bytes()
    monkeypatch.setattr("romfsfs.devices.file.os.access", lambda path, mode: False)  # root may all
    code, _, err = run("commit", image)
    assert code == 5
    assert f"the file is read-only ({image}); allow it: chmod u+w {shell_word(image)}" in err
    assert image.read_bytes() == before
    read_only = os.statvfs_result((*os.statvfs(image)[:8], os.ST_RDONLY, 255))
    monkeypatch.setattr("romfsfs.devices.file.os.statvfs", lambda path: read_only)
    assert run("commit", image)[2] == (
        f"romfsfs: error: the file system is read-only ({image}); mount it so that it can be "
        "written to; or write another file: commit --to FILE\n"
    )
    monkeypatch.undo()


def test_a_target_whose_name_has_two_lines(run: Run, tmp_path: Path) -> None:
    """It takes one, whichever command names it."""
    image = tmp_path / "two\nlines.img"
    image.write_bytes(encode({"a.txt": b"first"}))
    session = session_for(FileDevice(image), str(image))
    with session.folder.lock_for_mount(image.name):
        make_ready(session, FileDevice(image))
    shown = f"{tmp_path}/two\\nlines.img"
    folder = f"    {session.folder.path}"
    assert run("sessions")[1].splitlines() == [f"{shown}: clean", folder]
    (session.work / "a.txt").write_text("edited")
    assert run("commit", image)[1].startswith(f"{shown}: wrote ")
    assert run("undo", image)[1].splitlines()[-1].startswith(f"{shown}: wrote ")
    assert run("sessions", "--forget", image, "--yes")[1] == f"{shown}: forgotten\n"


def test_a_conflict_is_one_problem(run: Run, session: Session, image: Path) -> None:
    (session.work / "app.py").write_text("x = 1\n")
    (session.work / "app.mpy").write_bytes(b"M\x06\x00\x1f")
    code, _, err = run("commit", image)
    assert code == 4
    assert "1 error;" in err
    assert err.count("would both be stored as app.mpy") == 1
    assert run("status", image)[1].count("would both be stored") == 1
    problems = json.loads(run("status", "--json", image)[1])["problems"]
    assert {problem["path"] for problem in problems} == {"app.py", "app.mpy"}


def test_what_is_to_be_renamed_is_called_as_the_user_called_it(
    run: Run, session: Session, image: Path
) -> None:
    (session.work / "a\nb.py").write_text("x = 1\n")
    assert "a\\nb.py: the name has a control character: rename it" in run("status", image)[1]


def test_advice_can_be_pasted_into_a_shell(run: Run, image: Path, tmp_path: Path) -> None:
    spaced = tmp_path / "my app.img"
    spaced.write_bytes(image.read_bytes())
    device = FileDevice(spaced)
    with make_folder(str(spaced)).lock_for_mount("my app.img"):
        session = session_for(device, str(spaced))
        make_ready(session, device)
    (session.work / "a.txt").write_text("edited\n")
    spaced.write_bytes(encode({"other.txt": b"1"}))
    assert f"romfsfs commit '{spaced}' --force" in run("commit", spaced)[2]


def test_an_undo_names_a_screenful_of_files_and_a_refused_one_none(
    run: Run, session: Session, image: Path
) -> None:
    for number in range(30):
        (session.work / f"{number:02}.txt").write_text(str(number))
    assert run("commit", image)[0] == 0
    (session.work / "00.txt").write_text("an edit")
    code, out, err = run("undo", image)
    assert (code, out) == (1, "")
    assert "edits" in err
    assert run("revert", image, "--yes")[0] == 0
    out = run("undo", image, "--dry-run")[1]
    assert out.count("  D ") == 20
    assert re.search(r"^  and 1\d more \(-v lists them\)$", out, re.MULTILINE)
    assert run("-v", "undo", image)[1].count("  D ") == 30


def test_undo_at_the_end_says_how_to_redo(run: Run, session: Session, image: Path) -> None:
    assert run("commit", image)[0] == 0
    assert run("undo", image)[0] == 0
    code, _, err = run("undo", image)
    assert code == 1
    assert f"a later one too: romfsfs undo {shell_word(image)} --to N" in err
    assert run("undo", image, "--to", 1)[0] == 0


def test_starting_empty_is_said_in_the_status(run: Run, image: Path) -> None:
    device = FileDevice(image)
    with make_folder(str(image)).lock_for_mount("app.img"):
        make_ready(session_for(device, str(image)), device, new=True)
    assert "the commit replaces all that the target holds" in run("status", image)[1]


def test_another_board_does_not_inherit_the_partition(image: Path) -> None:
    device = FileDevice(image)
    assert session_for(device, str(image), OpenOptions("OPENMV_AE3", 1)).info.partition == 1
    assert session_for(device, str(image), OpenOptions("OPENMV_AE3")).info.partition == 1
    assert session_for(device, str(image), OpenOptions("OPENMV4")).info.partition == 0


def test_the_mount_of_another_user_is_not_called_absent(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = tmp_path / "theirs"
    really = os.stat

    def refused(path: object, **how: object) -> os.stat_result:
        if path == str(theirs):
            raise PermissionError(13, "Permission denied", path)
        return really(path, **how)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "stat", refused)
    code, _, err = run("status", theirs)
    assert code == 2
    assert f"permission denied ({theirs}); if another user mounted it" in err


def test_names_that_came_in_the_image_are_no_edits(run: Run, tmp_path: Path) -> None:
    """They are stored as they came; and the log says them without commanding the terminal."""
    image = tmp_path / "strange.img"
    image.write_bytes(encode({"red\x1b[31m.txt": b"1", "two\nlines.txt": b"2"}))
    device = FileDevice(image)
    with make_folder(str(image)).lock_for_mount("strange.img"):
        session = session_for(device, str(image))
        make_ready(session, device)
    code, out, _ = run("status", image)
    assert code == 0
    assert "nothing to commit" in out
    assert r"warning: 2 files (red\x1b[31m.txt, two\nlines.txt): the name has a control" in out
    (session.work / "new.txt").write_text("3")
    assert run("commit", image)[0] == 0
    os.unlink(session.work / "red\x1b[31m.txt")
    assert run("commit", image)[0] == 0
    assert run("ls", image)[1] == "two\\nlines.txt\nnew.txt\n"
    log = run("log", image)[1]
    assert "\x1b" not in log
    assert r"D red\x1b[31m.txt" in log


def test_an_undo_that_is_refused_does_not_say_that_it_went_back(
    run: Run, session: Session, image: Path
) -> None:
    assert run("commit", image)[0] == 0
    with session.folder.lock_for_mount("app.img"):
        make_ready(session, FileDevice(image))
    (session.work / "a.txt").write_text("edited again\n")
    for dry_run in ((), ("--dry-run",)):
        code, out, err = run("undo", image, *dry_run)
        assert (code, out) == (1, "")
        assert "uncommitted edits" in err


def test_commit_to_a_file_that_exists_asks(
    run: Run, session: Session, image: Path, tmp_path: Path
) -> None:
    """An image too: no copy of it is kept."""
    thesis = tmp_path / "thesis.txt"
    thesis.write_text("three years of work\n")
    refused = (2, "", f"romfsfs: error: the file exists ({thesis}); choose another name, or "
               "replace it with --force\n")  # fmt: skip
    assert run("commit", image, "--to", thesis) == refused
    assert thesis.read_text() == "three years of work\n"
    assert run("commit", image, "--to", thesis, "--force")[0] == 0
    written = thesis.read_bytes()
    assert run("commit", image, "--to", thesis) == refused
    assert thesis.read_bytes() == written


def test_a_commit_without_edits_says_that_the_target_changed(
    run: Run, session: Session, image: Path, tmp_path: Path
) -> None:
    """It would be another image that is shipped."""
    assert run("commit", image)[0] == 0
    (session.work / "empty").mkdir()
    assert run("commit", image)[0] == 0
    (session.work / ".notes.swp").write_text("")
    assert run("build", session.work, tmp_path / "other.img", "--board", "OPENMV4")[0] == 0
    image.write_bytes((tmp_path / "other.img").read_bytes() + bytes(16))
    for options in (), ("--dry-run",):
        code, out, err = run("commit", image, *options)
        assert (code, out) == (7, "")
        assert err == (
            f"romfsfs: error: the target changed elsewhere since it was read ({image}); mount it "
            f"again to see what it holds; to overwrite the change: romfsfs commit {image} --force\n"
        )
    assert run("commit", image, "--force")[0] == 0


@pytest.mark.parametrize(
    ("there", "later", "said"),
    [
        ('"version": 2', '"version": 3',
         "session state was written by another version of romfsfs"),
        ('"version": 2,', '"version": 2', "session state is damaged: "
         "Expecting ',' delimiter: line 3 column 2 (char 17)"),
        ('"options": {}', '"options": {"rules": [["*", {"colour": 1}]]}',
         "session state is damaged: unknown option 'colour'; known are convert, optimise, profile, "
         "mpool, arguments, align"),
    ],
    ids=["version", "damaged", "option"],
)  # fmt: skip
def test_a_session_of_another_version_hides_no_other(
    run: Run, session: Session, image: Path, caplog: pytest.LogCaptureFixture, there: str,
    later: str, said: str,
) -> None:  # fmt: skip
    """And is shown: its edits may be all that is left of them."""
    other = image.with_name("other.img")
    assert run("new", other, "--board", "OPENMV4")[0] == 0
    folder = folder_of(str(other))
    assert there in folder.info.read_text()
    folder.info.write_text(folder.info.read_text().replace(there, later))
    code, out, _ = run("sessions")
    assert code == 0
    assert f"{image}: edits" in out
    assert f"{folder.path.name}: cannot be read: {said}\n    {folder.path}\n" in out
    records = {each["directory"]: each for each in json.loads(run("sessions", "--json")[1])}
    assert records[str(session.folder.path)]["state"] == "edits"
    assert records[str(folder.path)] == {
        "name": folder.path.name, "source": "", "board": None, "partition": 0,
        "state": f"cannot be read: {said}", "interrupted": False, "mountpoint": None, "pid": None,
        "directory": str(folder.path),
    }  # fmt: skip
    assert caplog.text == ""
    assert run("status")[0] == 0
    assert f"romfsfs: session {folder.path} is skipped: {said}" in caplog.text
    assert run("recover")[0] == 0
    for name in other, folder.path:
        (folder.path / "work").mkdir(exist_ok=True)
        assert run("sessions", "--forget", name)[0] == 2, "--yes is missing"
    assert run("sessions", "--forget", other, "--yes")[:2] == (0, f"{other}: forgotten\n")
    assert not folder.path.exists()
    assert run("sessions", "--forget", other, "--yes")[0] == 2
    assert session.folder.path.exists()


def test_a_session_folder_that_cannot_be_read_hides_no_other(
    run: Run, session: Session, image: Path
) -> None:
    """Its disk fails, or a command that root ran has made its files."""
    other = image.with_name("a.img")
    other.write_bytes(image.read_bytes())
    folder = session_for(FileDevice(other), str(other)).folder
    (folder.path / "lock").symlink_to("/nowhere")
    assert run("sessions")[:2] == (0, (
        f"{other}: cannot be read: too many levels of symbolic links\n    {folder.path}\n"
        f"{image}: edits\n    {session.folder.path}\n"
    ))  # fmt: skip


def test_an_interrupted_write_that_cannot_be_looked_at_stops_no_other(
    run: Run, session: Session, image: Path
) -> None:
    with ends_at("switched", Died):
        run("commit", image)
    other = image.with_name("a.img")
    other.write_bytes(image.read_bytes())
    folder = session_for(FileDevice(other), str(other)).folder
    folder.record.write_bytes(b"{}")
    (folder.path / "commit.lock").mkdir()
    code, out, err = run("recover")
    assert (code, out) == (1, f"{image}: finished\n")
    assert err == f"romfsfs: error: is a directory ({folder.path}/commit.lock)\n"


def test_an_interrupted_write_of_a_session_that_cannot_be_read_is_told(
    run: Run, session: Session, image: Path
) -> None:
    """It was said that there was nothing to recover."""
    with ends_at("switched", Died):
        run("commit", image)
    info = session.folder.info
    info.write_text(info.read_text().replace('"version": 2', '"version": 3'))
    code, out, err = run("recover")
    assert (code, out) == (1, "")
    what = "session state was written by another version of romfsfs"
    assert err.startswith(f"romfsfs: error: {what} ({info}); ")


def test_edits_for_a_board_that_is_not_known_any_more(
    run: Run, session: Session, image: Path
) -> None:
    """It was in `boards.toml`, or a later romfsfs has it. They are seen, kept and dropped, but
    written only for another board."""
    lost = (
        "unknown board 'MY_BOARD'; choose another with: mount --board BOARD; or enter it in "
        "boards.toml"
    )
    folder, before = session.folder, image.read_bytes()
    folder.info.write_text(folder.info.read_text().replace('"board": null', '"board": "MY_BOARD"'))
    assert run("sessions")[1] == f"{image}: edits\n    {folder.path}\n"
    assert run("status", image)[1].splitlines() == [
        f"{image} (no board): 1 change, 1 error", f"  error: {lost}", "  M a.txt  7 B",
        "  280 B, capacity unknown (no board)",
    ]  # fmt: skip
    (session.work / "romfs.toml").write_text('board = "OPENMV4"\n')  # the remembered one wins
    for command in ("commit", image), ("commit", image, "--to", image.with_name("b.img")):
        assert run(*command) == (
            3, "", "romfsfs: error: cannot commit: 1 error; nothing was written; fix what is "
            f"listed below\n  {lost}\n",
        )  # fmt: skip
    (session.work / "romfs.toml").unlink()
    assert image.read_bytes() == before
    with pytest.raises(UsageError) as refused:  # as a mount does
        session_for(FileDevice(image), str(image))
    assert refused.value.line == lost
    assert run("revert", image, "--yes")[1].endswith("1 change reverted\n")
    assert run("sessions", "--forget", image)[1] == f"{image}: forgotten\n"
