"""What people get wrong: one line that names the place and the next step, never a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from romfsfs.cli import app, main
from romfsfs.cli.doctor import _folder
from romfsfs.cli.output import _SHOWN_AFTER_SECONDS, phase_lines
from romfsfs.cli.reports import write_text
from romfsfs.devices.base import WriteReport
from romfsfs.errors import (
    EXIT_DEVICE,
    EXIT_FAILURE,
    EXIT_IMAGE,
    EXIT_INTERRUPTED,
    EXIT_USAGE,
    RomfsError,
    count_text,
    printable,
)
from romfsfs.image.writer import encode
from romfsfs.system.errors import os_error


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ROMFSFS_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("ROMFSFS_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("ROMFSFS_PORTS", "")
    (tmp_path / "app.img").write_bytes(encode({"main.py": b"pass\n", "a.bin": b"1"}))
    (tmp_path / "short.img").write_bytes(encode({"a.bin": bytes(100)})[:48])
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/x.txt").write_text("x")
    return tmp_path


@pytest.mark.parametrize(("line", "code", "said"), [
    ("sttaus", EXIT_USAGE, "no such command 'sttaus', did you mean status?; romfsfs --help"),
    ("new x.img", EXIT_USAGE, "missing option '--board'; romfsfs boards lists them"),
    ("mount app.img", EXIT_USAGE, "missing argument 'DIR'; romfsfs mount --help"),
    ("undo app.img --to x", EXIT_USAGE, "'x' is not a valid integer; romfsfs undo --help"),
    ("status nothere", EXIT_USAGE, "no such file or folder (nothere); romfsfs sessions"),
    ("umount folder", EXIT_USAGE, "romfsfs has nothing mounted there (folder)"),
    ("umount --commit --discard folder", EXIT_USAGE, "can be given (--commit --discard)"),
    ("ls app.img nope", EXIT_USAGE, "no such file in the image (app.img: nope); romfsfs ls"),
    ("extract app.img app.img", EXIT_USAGE, "not a folder (app.img); choose another name"),
    ("push folder camera", EXIT_USAGE, "not an image file (folder); romfsfs push IMAGE CAMERA"),
    ("ls folder", EXIT_USAGE, "a folder, not an image file (folder); to make an image of it"),
    ("build app.img x.img", EXIT_USAGE, "not a folder (app.img)"),
    ("build nothere x.img", EXIT_USAGE, "no such folder (nothere)"),
    ("build folder no/x.img", EXIT_FAILURE, "/no); mkdir -p"),
    ("new no/x.img --board OPENMV4", EXIT_DEVICE, "/no); mkdir -p"),
    ("push app.img", EXIT_USAGE, "name a camera, or --all; romfsfs cameras lists them"),
    ("push nothere.img camera", EXIT_USAGE, "no such image file (nothere.img); romfsfs push"),
    ("new x.img --board AE", EXIT_USAGE, "unknown board 'AE', did you mean OPENMV_AE3?; romfsfs"),
    ("new x.img --board AE3:7", EXIT_USAGE, "has no partition 7"),
    ("new x.img --board AE3:one", EXIT_USAGE, "not a partition number: 'one' (AE3:one); such as"),
    ("new x.img --board AE3:1 --partition 0", EXIT_USAGE, "name different partitions"),
    ("new x.img --partition 0 --board AE3:1", EXIT_USAGE, "name different partitions"),
    ("mount app.img folder -o board=AE3:1,partition=0", EXIT_USAGE, "name different partitions"),
    ("mount dfu:AE3:1 folder -o partition=0", EXIT_USAGE, "name different partitions"),
    ("info dfu:AE3:1 --partition 0", EXIT_USAGE, "that is partition 1, not 0 (dfu:AE3:1)"),
    ("new x.img --board Xyz", EXIT_USAGE, "unknown board 'Xyz'; romfsfs boards lists them"),
    pytest.param(
        "mount app.img app.img", EXIT_USAGE, "app.img); choose an empty folder",
        marks=pytest.mark.mount,
    ),
    pytest.param(
        "mount nothere.img folder -o nonempty", EXIT_DEVICE, "no such image file",
        marks=pytest.mark.mount,
    ),
    ("status app.img", EXIT_USAGE, "no session for it: it has not been mounted yet (app"),
    ("cat short.img a", EXIT_IMAGE, "(short.img, offset 0x30); is it the right file, and copied"),
    ("reset app.img", EXIT_USAGE, "an image file, not a camera (app.img)"),
    ("mount app.img folder --stedgeai /no", EXIT_USAGE, "no such file or folder (--stedgeai /no)"),
])  # fmt: skip
def test_a_mistake_is_one_line(
    line: str, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(line.split()) == code
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("romfsfs: error: ")
    assert shown.err.count("\n") == 1
    assert said in shown.err


def test_an_error_of_the_system_names_the_path_that_the_user_knows(place: Path) -> None:
    full = os_error(
        OSError(28, "No space left on device", f"{place}/x.img.romfsfs-0123456789abcdef.tmp")
    )
    assert (
        full.line == f"no space left on device ({place}/x.img); free space, or choose another place"
    )
    state = os_error(PermissionError(13, "Permission denied", f"{place}/state"))
    assert state.line.endswith("$ROMFSFS_STATE_DIR names another place")
    home = os_error(PermissionError(13, "Permission denied", str(place)))  # of which it is made
    assert home.line.endswith("$ROMFSFS_STATE_DIR and $ROMFSFS_CACHE_DIR name other places")
    assert home.where == f"{place}/state and {place}/cache"
    made = os_error(PermissionError(13, "Permission denied", f"{place}/.x.random"))
    assert made.where == str(place)


@pytest.mark.parametrize("line", [
    "sessions", "status", "build folder x.img", "new x.img --board OPENMV4", "recover",
    "automount", "automount --install", "desktop --install", "zoo list", "log --json",
])  # fmt: skip
def test_a_user_without_a_home(
    place: Path, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a container's: `docker run --user 54321`."""
    without_home(monkeypatch)
    assert main(line.split()) == EXIT_FAILURE
    assert "your home folder is not known (user " in (said := capsys.readouterr().err)
    assert "; set $HOME, or " in said
    assert said.count("\n") == 1
    assert main(["ls", "--json", "app.img"]) == 0, "what needs no home works"
    assert main(["verify", "app.img"]) == 0


def test_doctor_for_a_user_without_a_home_or_a_name(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    without_home(monkeypatch)
    monkeypatch.setattr("os.geteuid", lambda: 54321)
    assert main(["doctor"]) == EXIT_FAILURE
    said = capsys.readouterr().out
    assert "MISSING  state folder             your home folder is not known" in said
    assert "set $HOME, or $ROMFSFS_CACHE_DIR to a folder of yours" in said
    assert f"{os.getuid()} is not in the group" in said


def without_home(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(number: int) -> object:
        raise KeyError(number)

    for name in ("HOME", "ROMFSFS_STATE_DIR", "ROMFSFS_CACHE_DIR", "XDG_STATE_HOME",
                 "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):  # fmt: skip
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", nobody)
    monkeypatch.setattr("grp.getgrgid", nobody)


def test_ctrl_c_while_starting_is_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(arguments: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(app, "run", interrupted)
    assert main(["boards"]) == EXIT_INTERRUPTED
    assert capsys.readouterr().err.startswith("romfsfs: interrupted; nothing is lost")


def test_padding_is_worth_no_note_when_all_is_well(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "a.img").write_bytes(encode({"a.bin": b"1"}))
    assert main(["info", "a.img"]) == 0
    assert "1 padding record holds " in capsys.readouterr().out
    assert main(["verify", "a.img"]) == 0
    assert capsys.readouterr().err == ""
    assert main(["-v", "verify", "a.img"]) == 0
    assert "padding record" in capsys.readouterr().err


def test_a_phase_is_shown_when_it_has_itself_lasted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    monkeypatch.setattr("romfsfs.cli.output.time.monotonic", lambda: now[0])
    monkeypatch.setattr("romfsfs.cli.output._SHOWN_AFTER_SECONDS", _SHOWN_AFTER_SECONDS)
    progress = phase_lines()
    for second, phase, done in [(0.0, "writing", 0), (5.0, "reading", 0), (5.1, "reading", 16),
                                (6.0, "verifying", 0), (6.4, "verifying", 9)]:  # fmt: skip
        now[0] = second
        progress(phase, done, 16)
    assert capsys.readouterr().err == "romfsfs: verifying 16 bytes\n"
    for second, phase, total in [(7.0, "converting", 9), (9.0, "converting", 9),
                                 (10.0, "erasing", 0), (12.0, "erasing", 0),
                                (13.0, "trying", 1), (15.0, "trying", 1),
                                (16.0, "copying", 2), (18.0, "copying", 2)]:  # fmt: skip
        now[0] = second
        progress(phase, 0, total)
    assert capsys.readouterr().err == (
        "romfsfs: converting\nromfsfs: erasing\nromfsfs: trying\nromfsfs: copying 2 bytes\n"
    )


@pytest.mark.mount
def test_a_new_image_is_made_where_it_was_said(place: Path) -> None:
    """The daemon works in `/`: a relative name would be one there."""
    program = [sys.executable, "-m", "romfsfs"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    (place / "cam").mkdir()
    for words in (["mount", "new.img", "cam", "--new"], ["umount", "--commit", "cam"]):
        done = subprocess.run(
            [*program, *words], env=environment, capture_output=True, text=True, timeout=60,
            stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    assert (place / "new.img").exists()


def test_a_terminal_without_the_characters_of_a_name(place: Path) -> None:
    """The short way of `ls` must not be stricter than the long one."""
    (place / "names.img").write_bytes(encode({"größe.txt": b"1"}))
    environment = {
        **os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONIOENCODING": "ascii"
    }  # fmt: skip
    for command in (["ls", "names.img"], ["ls", "names.img", "--board", "OPENMV4"]):
        done = subprocess.run(
            [sys.executable, "-m", "romfsfs", *command],
            capture_output=True, text=True, env=environment, cwd=place, check=False, timeout=60,
        )  # fmt: skip
        assert (done.returncode, done.stdout, done.stderr) == (0, "gr\\xf6\\xdfe.txt\n", "")


@pytest.mark.parametrize("buffered", ["", "1"])
@pytest.mark.parametrize("line", [
    "--version", "ls app.img", "ls --json app.img", "cat app.img a.bin", "boards", "man", "--help",
])  # fmt: skip
def test_a_full_disk_behind_standard_output(place: Path, line: str, buffered: str) -> None:
    environment = {
        **os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONUNBUFFERED": buffered
    }  # fmt: skip
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "romfsfs", *line.split()], stdout=full, stderr=subprocess.PIPE,
            text=True, env=environment, cwd=place, check=False, timeout=60,
        )  # fmt: skip
    assert done.returncode == EXIT_FAILURE, done.stderr
    place_of_it = "" if line.startswith("--") else " (standard output)"
    assert done.stderr == (
        f"romfsfs: error: no space left on device{place_of_it}; free space, or choose another "
        "place\n"
    )


def test_a_link_that_cannot_be_made_names_its_place() -> None:
    with pytest.raises(FileNotFoundError) as caught:
        os.symlink("/", "no/link")
    assert os_error(caught.value).line == "no such folder (no); mkdir -p no"


def test_a_byte_that_is_no_text_is_shown_as_a_shell_takes_it() -> None:
    assert printable(os.fsdecode(b"bad\xff\n")) == r"bad\xff\n"


def test_what_was_written_is_never_more_than_the_image() -> None:
    """Flash is programmed in pages: 48 bytes take 256."""
    report = WriteReport(written=256, erased_blocks=1, seconds=0.5, verified=True)
    assert write_text(report, 48) == "wrote 48 of 48 B, 1 erase block, 0.50 s, verified"


def test_doctor_gives_no_folder_of_the_system_away(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("romfsfs.cli.doctor.os.access", lambda path, mode: False)
    with pytest.raises(RomfsError) as caught:
        _folder("state", lambda: place / "state")
    assert caught.value.next_step == "export ROMFSFS_STATE_DIR=DIR, a folder of yours"


@pytest.mark.mount
def test_doctor_says_what_mount_would(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """fusermount is setuid root, but libfuse opens the device as the user."""
    monkeypatch.setattr("os.geteuid", lambda: 54321)
    monkeypatch.setattr("os.access", lambda path, mode: path != "/dev/fuse")
    main(["doctor"])
    said = capsys.readouterr().out
    assert "MISSING  /dev/fuse                no permission to use /dev/fuse\n" in said
    assert "sudo chmod a+rw /dev/fuse\n" in said


def test_counts_read_well() -> None:
    assert [count_text(n, w) for n, w in ((1, "file"), (2, "directory"), (1000, "change"))] == [
        "1 file", "2 directories", "1,000 changes",
    ]  # fmt: skip
