"""Commit and Status in file managers, without touching what the user has there."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import pytest
from processes import until

from romfsfs.cli import desktop, main
from romfsfs.desktop import file_managers, programs
from romfsfs.desktop.file_managers import (
    dialog_command,
    image_type,
    nautilus_scripts,
    progress_words,
    with_actions,
    without_actions,
)
from romfsfs.errors import RomfsError, UsageError
from romfsfs.image.writer import encode
from romfsfs.system.files import no_progress

DATA = ".local/share"
SCRIPTS = f"{DATA}/nautilus/scripts/romfsfs"
ACTIONS = ".config/Thunar/uca.xml"

#: As Thunar 4.18 writes it, with a comment, an entity and odd white space that have to survive.
MINE = b"""<?xml version="1.0" encoding="UTF-8"?>
<!-- mine -->
<actions>
<action>
\t<icon>utilities-terminal</icon>
\t<name>Open Terminal &amp; More</name>
\t<unique-id>1611411331000000-1</unique-id>
\t<command>exo-open --working-directory %f --launch TerminalEmulator</command>
\t<description>\xc3\xa4</description>
\t<patterns>*</patterns>
\t<startup-notify/>
\t<directories/>
</action>

</actions>
"""


@pytest.fixture(autouse=True)
def no_system_actions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "system-uca.xml"
    monkeypatch.setattr(file_managers, "SYSTEM_UCA", place)
    return place


def names(data: bytes) -> list[str | None]:
    return [each.findtext("name") for each in ElementTree.fromstring(data).iter("action")]


def test_actions_are_put_in_and_taken_out_byte_for_byte() -> None:
    made = with_actions(MINE, ["/opt/my romfs/romfsfs"])
    assert names(made) == ["Open Terminal & More", "Commit to camera", "ROMFS status"]
    assert with_actions(made, ["/opt/my romfs/romfsfs"]) == made
    assert names(with_actions(made, ["/usr/bin/romfsfs"])) == names(made)
    assert without_actions(made) == MINE


def test_actions_are_found_after_thunar_has_written_the_file_anew() -> None:
    made = ElementTree.fromstring(with_actions(MINE, ["romfsfs"]))
    rewritten = ElementTree.tostring(made, encoding="utf-8", xml_declaration=True)
    assert names(without_actions(rewritten)) == ["Open Terminal & More"]


@pytest.mark.parametrize("data", [b"", b"<actions>", b"<other></other>", b"not xml"])
def test_what_is_no_action_file_is_left_alone(data: bytes) -> None:
    with pytest.raises(RomfsError):
        with_actions(data, ["romfsfs"])


def test_what_would_take_an_action_of_the_users_along_is_not_done() -> None:
    """`</action >` is XML too, which Thunar does not write."""
    made = with_actions(MINE.replace(b"</action>", b"</action >"), ["romfsfs"])
    with pytest.raises(RomfsError, match="cannot be edited"):
        without_actions(made)


def test_install_and_uninstall_leave_the_home_as_it_was(home: Path) -> None:
    (home / ACTIONS).parent.mkdir(parents=True)
    (home / ACTIONS).write_bytes(MINE)
    (home / ".local/share/nautilus/scripts").mkdir(parents=True)
    (home / ".local/share/nautilus/scripts/mine").write_text("#!/bin/sh\n")
    before = tree(home)
    assert main(["desktop", "--install", "--dry-run"]) == 0
    assert tree(home) == before
    assert main(["desktop", "--install"]) == 0
    assert {file.name for file in (home / SCRIPTS).iterdir()} == {"Commit", "Status"}
    assert main(["desktop", "--install"]) == 0
    assert main(["desktop", "--uninstall"]) == 0
    assert tree(home) == before
    assert main(["desktop", "--uninstall"]) == 0
    assert tree(home) == before


def tree(folder: Path) -> dict[str, bytes]:
    """All but what other programs make of the types of files, where they are installed."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b""
        for path in folder.rglob("*")
        if not path.is_relative_to(folder / DATA / "mime")
        if not path.is_relative_to(folder / DATA / "applications")
        or path.suffix == ".desktop"
        or path.name == "romfsfs.xml"
    }


def test_the_systems_actions_stay_visible(home: Path, no_system_actions: Path) -> None:
    no_system_actions.write_bytes(MINE)
    assert main(["desktop", "--install"]) == 0
    assert names((home / ACTIONS).read_bytes())[0] == "Open Terminal & More"
    assert main(["desktop", "--uninstall"]) == 0
    assert not (home / ACTIONS).exists()


def test_actions_added_meanwhile_stay(home: Path) -> None:
    assert main(["desktop", "--install"]) == 0
    data = (home / ACTIONS).read_bytes()
    added = MINE[MINE.index(b"<action>") : MINE.index(b"</actions>")]
    (home / ACTIONS).write_bytes(data.replace(b"</actions>", added + b"</actions>"))
    assert main(["desktop", "--uninstall"]) == 0
    assert names((home / ACTIONS).read_bytes()) == ["Open Terminal & More"]


def test_a_script_of_the_users_own_is_never_replaced(home: Path) -> None:
    (home / SCRIPTS).mkdir(parents=True)
    (home / SCRIPTS / "Status").write_text("mine")
    assert main(["desktop", "--install"]) == 2
    assert not (home / SCRIPTS / "Commit").exists()
    assert not (home / ACTIONS).exists()
    assert main(["desktop", "--uninstall"]) == 0
    assert (home / SCRIPTS / "Status").read_text() == "mine"


@pytest.fixture
def recorder(tmp_path: Path) -> Path:
    """A program that writes down the folder it is started in, and its arguments."""
    place = tmp_path / "the program's"
    place.mkdir()
    program = place / "romfsfs"
    program.write_text(f"#!/bin/sh\n{{ pwd; printf '%s\\n' \"$@\"; }} > '{tmp_path}/said'\n")
    program.chmod(0o755)
    return program


@pytest.mark.parametrize("selected", [True, False])
def test_the_nautilus_script_names_the_folder(
    tmp_path: Path, recorder: Path, selected: bool
) -> None:
    (script, _) = nautilus_scripts([str(recorder)], tmp_path)
    file = tmp_path / "script"
    file.write_bytes(script.data)
    file.chmod(script.mode)
    folder = tmp_path / "it's $HOME ä"
    folder.mkdir()
    chosen = f"{folder}\n/other\n" if selected else ""
    subprocess.run(
        [file], cwd=folder, check=True, timeout=60,
        env={**os.environ, "NAUTILUS_SCRIPT_SELECTED_FILE_PATHS": chosen},
    )  # fmt: skip
    said = (tmp_path / "said").read_text().splitlines()
    assert said == ["/", "desktop", "--run", "commit", str(folder)]


def test_the_thunar_command_names_the_folder(tmp_path: Path, recorder: Path) -> None:
    made = ElementTree.fromstring(with_actions(None, [str(recorder)]))
    command = made.findtext("action/command") or ""
    folder = "/home/me/it's $HOME"
    quoted = "'" + folder.replace("'", "'\\''") + "'"  # as Thunar does with g_shell_quote
    subprocess.run(command.replace("%f", quoted), shell=True, check=True, timeout=60)
    assert (tmp_path / "said").read_text().splitlines()[1:] == [
        "desktop",
        "--run",
        "commit",
        folder,
    ]


def test_the_outcome_is_shown_in_a_window(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    zenity = tmp_path / "zenity"
    zenity.write_text(f"#!/bin/sh\nprintf '%s\\n' \"$@\" > '{tmp_path}/said'\n")
    zenity.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    image = tmp_path / "app.img"
    image.write_bytes(encode({"main.py": b"pass\n"}))
    assert main(["desktop", "--run", "status", str(image)]) == 2
    said = (tmp_path / "said").read_text()
    assert "--error" in said
    assert "there is no session for it" in said


@pytest.mark.mount
def test_the_status_of_a_mount_is_a_page_in_the_browser(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opener = tmp_path / "xdg-open"
    opener.write_text(f"#!/bin/sh\nprintf '%s\\n' \"$@\" > '{tmp_path}/said'\ncat \"$1\"\n")
    opener.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    (tmp_path / "app.img").write_bytes(encode({"lib/a.txt": b"pass\n"}))
    cam = tmp_path / "cam"
    cam.mkdir()
    assert main(["mount", str(tmp_path / "app.img"), str(cam)]) == 0
    try:
        assert main(["desktop", "--run", "status", str(cam / "lib")]) == 0
    finally:
        assert main(["umount", str(cam)]) == 0
    assert (tmp_path / "said").read_text() == f"{cam}/.romfs/status.html\n"


def in_use(*args: object, **options: object) -> None:
    raise RomfsError("the port is in use", next_step="end the process")


@pytest.mark.mount
def test_a_second_commit_says_that_one_is_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before it asks for the target: of a camera, the first one has the port."""
    zenity = tmp_path / "zenity"
    zenity.write_text(f"#!/bin/sh\nprintf '%s\\n' \"$@\" > '{tmp_path}/said'\n")
    zenity.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    image, cam = tmp_path / "app.img", tmp_path / "cam"
    image.write_bytes(encode({"a.txt": b"pass\n"}))
    cam.mkdir()
    assert main(["mount", str(image), str(cam)]) == 0
    try:
        (cam / "b.txt").write_text("b")
        monkeypatch.setattr("romfsfs.session.connect.open_device", in_use)
        code = (  # opens the port, which takes a while
            "import sys; from romfsfs.cli import main; from romfsfs.session import connect\n"
            "def open_device(*args, **options): print('ready', flush=True); input(); sys.exit()\n"
            "connect.open_device = open_device\n"
            "main(['commit', sys.argv[1]])"
        )
        with subprocess.Popen(
            [sys.executable, "-c", code, cam], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        ) as first:  # fmt: skip
            assert first.stdout is not None
            assert first.stdout.readline() == b"ready\n"
            assert main(["desktop", "--run", "commit", str(cam)]) == 1
            first.communicate(b"\n")
    finally:
        assert main(["umount", "--discard", str(cam)]) == 0
    said = (tmp_path / "said").read_text()
    assert "a commit of" in said
    assert "is running" in said


@pytest.mark.program(
    "gio", "update-mime-database", "desktop-file-validate", "dbus-run-session", "xdg-mime"
)
def test_an_image_opens_by_a_double_click(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As file managers do it, by GIO; a disk image stays what it is to the system."""
    opener = tmp_path / "xdg-open"
    opener.write_text(f"#!/bin/sh\nls \"$1\" > '{tmp_path}/new'; echo \"$1\" >> '{tmp_path}/new'\n"
                      f"mv '{tmp_path}/new' '{tmp_path}/said'\n")  # fmt: skip
    opener.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    image = tmp_path / "it's $HOME.img"
    image.write_bytes(encode({"a.txt": b"a"}))
    disk = tmp_path / "disk.img"
    disk.write_bytes(bytes(4096))
    before = type_of(disk)
    assert type_of(image) == before
    assert main(["desktop", "--install"]) == 0
    entry = home / DATA / "applications/romfsfs.desktop"
    subprocess.run(["desktop-file-validate", entry], check=True, timeout=60)
    assert type_of(image) == "application/x-micropython-romfs"
    assert type_of(disk) == before
    monkeypatch.setenv("XDG_CURRENT_DESKTOP", "XFCE")
    assert xdg_mime("filetype", image) == "application/x-micropython-romfs"
    assert xdg_mime("default", "application/x-micropython-romfs") == "romfsfs.desktop"
    mountpoint = home / "romfs" / image.stem
    try:
        for _ in range(2):  # mounted, and shown again
            (tmp_path / "said").unlink(missing_ok=True)
            subprocess.run(["dbus-run-session", "gio", "open", image], check=True, timeout=60)
            until((tmp_path / "said").exists)
            assert (tmp_path / "said").read_text() == f"a.txt\n{mountpoint}\n"
    finally:
        assert main(["umount", str(mountpoint)]) == 0
    (mountpoint / "mine").touch()
    other = tmp_path / "other" / image.name
    other.parent.mkdir()
    other.write_bytes(encode({"b.txt": b"b"}))
    assert main(["desktop", "--run", "open", str(other)]) == 0
    assert main(["umount", f"{mountpoint}-2"]) == 0
    assert main(["desktop", "--uninstall"]) == 0
    assert type_of(image) == before
    assert xdg_mime("default", "application/x-micropython-romfs") == ""


def xdg_mime(*words: str | Path) -> str:
    """What xdg-open would do, and scripts that ask for it."""
    return subprocess.run(
        ["xdg-mime", "query", *words], capture_output=True, text=True, check=False, timeout=60
    ).stdout.strip()


def type_of(file: Path) -> str:
    done = subprocess.run(
        ["gio", "info", "-a", "standard::content-type", file], capture_output=True, text=True,
        check=True, timeout=60,
    )  # fmt: skip
    return done.stdout.rpartition("content-type: ")[2].strip()


def test_a_program_of_any_path_is_named_in_the_entry(tmp_path: Path) -> None:
    (_, entry) = image_type(['/opt/my "romfs" $1 \\ 100%/romfsfs'], tmp_path)
    line = next(line for line in entry.data.decode().splitlines() if line.startswith("Exec="))
    assert line == r'Exec="/opt/my \\"romfs\\" \\$1 \\\\ 100%%/romfsfs" desktop --run open %f'


@pytest.mark.mount
def test_how_far_a_commit_is_shows_in_a_window(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zenity = tmp_path / "zenity"
    zenity.write_text(f"""#!/bin/sh
case $1 in --progress) exec cat > '{tmp_path}/progress' ;; esac
printf '%s\\n' "$@" > '{tmp_path}/said'
""")
    zenity.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    image, cam = tmp_path / "app.img", tmp_path / "cam"
    image.write_bytes(encode({"a.txt": b"pass\n"}))
    cam.mkdir()
    assert main(["mount", str(image), str(cam)]) == 0
    try:
        (cam / "b.bin").write_bytes(bytes(3 << 20))
        assert main(["desktop", "--run", "commit", str(cam / "b.bin")]) == 0
    finally:
        assert main(["umount", "--discard", str(cam)]) == 0
    shown = (tmp_path / "progress").read_text().splitlines()
    assert shown[:2] == ["# preparing", "pulsate:true"]
    assert {line for line in shown if line.startswith("# ")} > {"# writing"}
    assert "100" not in shown
    assert "verified" in (tmp_path / "said").read_text()


@pytest.mark.parametrize(
    ("program", "failed", "argv"),
    [
        ("/usr/bin/zenity", False, [
            "/usr/bin/zenity", "--info", "--no-markup", "--width=600", "--title=T",
            "--text=a <b>\nc",
        ]),
        ("/usr/bin/zenity", True, [
            "/usr/bin/zenity", "--error", "--no-markup", "--width=600", "--title=T",
            "--text=a <b>\nc",
        ]),
        ("kdialog", False, ["kdialog", "--title", "T", "--msgbox", "<p>a &lt;b&gt;<br>c</p>"]),
        ("kdialog", True, ["kdialog", "--title", "T", "--error", "<p>a &lt;b&gt;<br>c</p>"]),
        ("xmessage", True, ["xmessage", "-center", "-title", "T", "a <b>\nc"]),
    ],
)  # fmt: skip
def test_the_window_of_each_program(program: str, failed: bool, argv: list[str]) -> None:
    assert dialog_command(program, "T", "a <b>\nc", failed=failed) == argv


@pytest.mark.parametrize(
    ("done", "total", "words"),
    [
        (0, 0, b"# writing\npulsate:true\n0\n"),
        (1, 1, b"# writing\npulsate:true\n0\n"),
        (0, 200, b"# writing\npulsate:false\n0\n"),
        (199, 200, b"# writing\npulsate:false\n99\n"),
        (200, 200, b"# writing\npulsate:false\n99\n"),
        (1, 2, b"# writing\npulsate:false\n50\n"),
    ],
)
def test_what_the_window_of_progress_reads(done: int, total: int, words: bytes) -> None:
    assert progress_words("writing", done, total) == words


@pytest.mark.parametrize(
    ("there", "argv"),
    [
        (["zenity", "kdialog", "notify-send"],
         ["/bin/zenity", "--error", "--no-markup", "--width=600", "--title=ROMFS status"]),
        (["kdialog", "notify-send"], ["/bin/kdialog", "--title", "ROMFS status", "--error"]),
        (["notify-send"], ["/bin/notify-send", "--app-name=romfsfs", "--icon=dialog-warning",
                           "--category=transfer.error", "--", "ROMFS status"]),
        ([], None),
    ],
)  # fmt: skip
def test_where_an_outcome_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    there: list[str], argv: list[str] | None,
) -> None:  # fmt: skip
    """In the best window there is, else in a notification; and always where it was called."""
    told: list[tuple[list[str], dict[str, object]]] = []
    for module in (desktop, programs):
        monkeypatch.setattr(
            module, "find_on_path", lambda name: f"/bin/{name}" if name in there else None
        )
    monkeypatch.setattr(desktop.subprocess, "run", lambda c, **how: told.append((c, how)))
    code = main(["desktop", "--run", "status", str(tmp_path)])
    shown = capsys.readouterr()
    said = f"romfsfs: error: romfsfs has nothing mounted there ({tmp_path}); romfsfs sessions lists"
    assert shown.out == f"{said} what is\n"
    if argv is None:
        assert (code, told) == (1, [])
        assert shown.err == "romfsfs: error: no window can be shown; install zenity\n"
        return
    assert (code, shown.err) == (2, "")
    ((command, how),) = told
    assert command[:-1] == argv
    assert said in command[-1]
    assert how == {"stdin": subprocess.DEVNULL, "check": False}


@pytest.mark.mount
def test_an_image_that_is_opened_without_a_file_manager(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A window says where it is; one that is mounted is shown, and one that cannot be is said."""
    told: list[tuple[str, str, bool]] = []
    monkeypatch.setattr(desktop, "_opened", lambda path: False)
    monkeypatch.setattr(desktop, "_show", lambda *said, failed: told.append((*said, failed)))
    image, bad = tmp_path / "app.img", tmp_path / "bad.img"
    image.write_bytes(encode({"a.txt": b"a"}))
    bad.write_bytes(b"no image")
    place = home / "romfs" / "app"
    try:
        assert main(["desktop", "--run", "open", str(image)]) == 0
        assert main(["desktop", "--run", "open", str(image)]) == 0
    finally:
        assert main(["umount", str(place)]) == 0
    assert main(["desktop", "--run", "open", str(bad)]) == 4
    said = "romfsfs: error: not a valid ROMFS image: it does not start with d2 cd 31 "
    said += f"({bad}, offset 0x0)"
    assert told[:2] == [("Open ROMFS image", f"It is mounted at {place}", False)] * 2
    assert told[2][0::2] == ("Open ROMFS image", True)
    assert told[2][1].startswith(said)
    assert len(told) == 3


def test_others_are_told_what_was_installed(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """At each installation and removal; a program that complains is heard, its first line."""
    told: list[tuple[list[str], dict[str, object]]] = []
    here = str(home / DATA)

    def run(command: list[str], **how: object) -> subprocess.CompletedProcess[str]:
        told.append((command, how))
        said = "no such thing\nat all\n" if "database" in command[0] else ""
        return subprocess.CompletedProcess(command, int("mime" in command[0]), "", said)

    there = ["update-mime-database", "update-desktop-database"]
    for module in (desktop, programs):
        monkeypatch.setattr(
            module, "find_on_path", lambda name: f"/bin/{name}" if name in there else None
        )
    monkeypatch.setattr(desktop.subprocess, "run", run)
    monkeypatch.setattr(desktop, "missing", lambda names: [])
    how = {"capture_output": True, "text": True, "check": False}
    mime = (["/bin/update-mime-database", f"{here}/mime"], how)
    entries = (["/bin/update-desktop-database", f"{here}/applications"], how)
    complaint = "romfsfs: update-mime-database: no such thing\n"
    restart = "romfsfs: a Thunar that is running shows them after a restart: thunar -q\n"
    for words, wanted, said in (
        (["--install", "--dry-run"], [], ""), (["--install"], [mime, entries], complaint + restart),
        (["--install"], [mime, entries], complaint), (["--uninstall", "--dry-run"], [], ""),
        (["--uninstall"], [mime, entries], complaint), (["--uninstall"], [], ""),
    ):  # fmt: skip
        assert main(["desktop", *words]) == 0
        assert told == wanted
        assert capsys.readouterr().err == said
        told.clear()
    there.remove("update-mime-database")
    assert main(["desktop", "--install", "-q"]) == 0
    assert told == [entries]


def test_what_becomes_of_the_file_of_actions(
    home: Path, no_system_actions: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """It goes where nobody has added to it; its mode stays, and where it is a link, the link."""
    monkeypatch.setattr(desktop, "_refresh", lambda output: None)
    actions, elsewhere = home / ACTIONS, home / "my actions.xml"
    for before, verb in ((None, "removed"), (MINE, "removed"), (b"", "cleaned")):
        no_system_actions.write_bytes(before or MINE)
        if before is None:
            no_system_actions.unlink()
        if verb == "cleaned":
            elsewhere.write_bytes(MINE.replace(b"&amp;", b"and"))
            elsewhere.chmod(0o640)
            actions.symlink_to(elsewhere)
        assert main(["desktop", "--install", "-q"]) == 0
        assert actions.stat().st_mode & 0o7777 == (0o640 if verb == "cleaned" else 0o644)
        capsys.readouterr()
        assert main(["desktop", "--uninstall"]) == 0
        said = capsys.readouterr().out.splitlines()
        assert said[-1] == f"{verb}: {actions}"
        assert len(said) == 5
        assert actions.exists() is (verb == "cleaned")
    assert actions.is_symlink()
    assert elsewhere.stat().st_mode & 0o7777 == 0o640


@pytest.mark.parametrize(
    ("opener", "code", "opened"), [(None, 0, False), ("/bin/o", 0, True), ("/bin/o", 1, False)]
)
def test_what_opens_a_folder(
    monkeypatch: pytest.MonkeyPatch, opener: str | None, code: int, opened: bool
) -> None:
    calls: list[object] = []

    def run(command: list[str], **how: object) -> subprocess.CompletedProcess[str]:
        calls.append((command, how))
        return subprocess.CompletedProcess(command, code)

    monkeypatch.setattr(desktop, "find_on_path", {"xdg-open": opener}.get)
    monkeypatch.setattr(desktop.subprocess, "run", run)
    assert desktop._opened(Path("/p")) is opened
    how = {"stdin": subprocess.DEVNULL, "check": False}
    assert calls == ([([opener, Path("/p")], how)] if opener else [])


@pytest.mark.parametrize("opens", [True, False])
def test_an_image_is_opened(home: Path, monkeypatch: pytest.MonkeyPatch, opens: bool) -> None:
    """Where it is mounted, or else where it then is; a window says what nothing else shows."""
    told: list[object] = []
    found: list[Any] = [SimpleNamespace(mountpoint=Path("/cam")), UsageError("not so far"),
                        RomfsError("it hangs"), SimpleNamespace(mountpoint=None),
                        UsageError("not so far")]  # fmt: skip
    codes = [0, 0, 4]

    def find(image: str) -> Any:
        if isinstance(found[0], Exception):
            raise found.pop(0)
        return found.pop(0)

    def said(title: str, words: list[str]) -> tuple[int, str]:
        told.append(words)
        return codes.pop(0), "its words"

    monkeypatch.setattr(desktop, "find_session", find)
    monkeypatch.setattr(desktop, "_said", said)
    monkeypatch.setattr(desktop, "_opened", lambda path: told.append(path) or opens)
    monkeypatch.setattr(desktop, "_show", lambda *what, failed: told.append((*what, failed)))
    title, place = "Open ROMFS image", home / "romfs" / "app"
    mount = ["mount", "/x/app.img", str(place)]
    for code, wanted in (
        (0, [Path("/cam"), *([] if opens else [(title, "It is mounted at /cam", False)])]),
        (0, [mount, place, *([] if opens else [(title, f"It is mounted at {place}", False)])]),
        (1, [(title, "it hangs", True)]),
        (0, [mount, place, *([] if opens else [(title, f"It is mounted at {place}", False)])]),
        (4, [mount, (title, "its words", True)]),
    ):
        told.clear()
        assert main(["desktop", "--run", "open", "/x/app.img"]) == code
        assert told == wanted


def test_a_folder_for_an_image_is_one_that_nothing_is_in(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or mounted at, or hangs at; a dead mount makes room for the next."""
    romfs = home / "romfs"
    states: dict[str, str] = {}

    def is_(state: str) -> Callable[[object], bool]:
        return lambda path: states.get(Path(str(path)).name) == state

    def looked(path: Path) -> bool:
        assert not is_("hangs")(path), "who looks at it waits for good"
        return is_("dead")(path)

    monkeypatch.setattr(desktop, "hanging", lambda path: "/p" if is_("hangs")(path) else None)
    monkeypatch.setattr(desktop, "is_dead", looked)
    monkeypatch.setattr(desktop, "find_mount", lambda path: states.get(Path(path).name))
    assert desktop._free_folder("a") == romfs / "a"
    assert (romfs / "a").is_dir()
    assert desktop._free_folder("a") == romfs / "a", "it is there, and empty"
    (romfs / "a" / "mine").touch()
    assert desktop._free_folder("a") == romfs / "a-2"
    states["a-2"] = "mounted"
    assert desktop._free_folder("a") == romfs / "a-3"
    states["a-3"] = "hangs"
    assert desktop._free_folder("a") == romfs / "a-4"
    states["a-3"] = "dead"
    assert desktop._free_folder("a") == romfs / "a-3"


class Window:
    """A window of progress, which is closed at some time."""

    def __init__(self, told: list[object], closed_after: int) -> None:
        self.told, self.closed_after = told, closed_after
        self.stdin = self

    def __call__(self, command: list[str], **how: object) -> Window:
        self.told.append((command, how))
        return self

    def __enter__(self) -> Window:
        return self

    def __exit__(self, *error: object) -> None:
        self.told.append("waited for")

    def write(self, words: bytes) -> None:
        self.told.append(words)
        if len(self.told) > self.closed_after:
            raise BrokenPipeError

    def terminate(self) -> None:
        self.told.append("ended")


@pytest.mark.parametrize("closed_after", [0, 9])
def test_the_window_of_progress(monkeypatch: pytest.MonkeyPatch, closed_after: int) -> None:
    """Is told what is new, and ended when the work ends, also by an error."""
    told: list[object] = []
    monkeypatch.setattr(desktop.subprocess, "Popen", Window(told, closed_after))
    monkeypatch.setattr(desktop, "find_on_path", {"zenity": "/bin/zenity"}.get)
    with contextlib.suppress(KeyError), desktop._InWindows("T").progress() as show:
        for done in (0, 1, 50, 50, 100):
            show("writing", done, 100)
        raise KeyError
    how = {"stdin": subprocess.PIPE, "stderr": subprocess.DEVNULL, "bufsize": 0}
    assert told[0] == (file_managers.progress_command("/bin/zenity", "T"), how)
    shown = [progress_words("preparing", 0, 0)]
    shown += [progress_words("writing", done, 100) for done in (0, 1, 50, 100)]
    assert told[1:] == [*shown, "ended", "waited for"]
    monkeypatch.setattr(desktop, "find_on_path", {}.get)
    with desktop._InWindows("T").progress() as show:
        assert show is no_progress
    assert len(told) == len(shown) + 3


@pytest.mark.parametrize(
    ("action", "words", "browses", "code", "asked", "shown"),
    [
        ("commit", [], True, 0, ["commit", "/p"], ("Commit to camera", False)),
        ("commit", ["--partition", "1"], True, 4, ["commit", "/p", "--partition", "1"],
         ("Commit to camera", True)),
        ("status", [], False, 0, ["status", "/p"], ("ROMFS status", False)),
        ("status", [], True, 0, None, None),
    ],
)  # fmt: skip
def test_an_action_of_the_menu(
    monkeypatch: pytest.MonkeyPatch, action: str, words: list[str], browses: bool, code: int,
    asked: list[str] | None, shown: tuple[str, bool] | None,
) -> None:  # fmt: skip
    told: list[object] = []
    monkeypatch.setattr(desktop, "_browse", lambda path: browses)
    monkeypatch.setattr(desktop, "_said", lambda *what: told.append(what) or (code, "its words"))
    monkeypatch.setattr(desktop, "_show", lambda *what, failed: told.append((*what, failed)))
    assert main(["desktop", "--run", action, "/p", *words]) == code
    title, failed = shown or ("", False)
    assert told == ([(title, asked), (title, "its words", failed)] if shown else [])
