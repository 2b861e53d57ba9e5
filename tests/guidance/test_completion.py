"""What a shell offers when the tabulator key is pressed, asked of the shells themselves."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.shell_completion import BashComplete, CompletionItem

from romfsfs.boards import boards
from romfsfs.cli import completion, main, values
from romfsfs.cli.app import COMMANDS, romfsfs
from romfsfs.cli.completion import answer
from romfsfs.devices.discovery import CameraPort
from romfsfs.image.writer import encode
from romfsfs.session.keep.folder import all_sessions
from romfsfs.session.keep.locks import MountedAt
from romfsfs.system.user_folders import state_dir

Run = Callable[..., subprocess.CompletedProcess[str]]

_SHELLS = [
    "bash",
    pytest.param("zsh", marks=pytest.mark.program("zsh")),
    pytest.param("fish", marks=pytest.mark.program("fish")),
]

_ASK = {
    "bash": """
        source ./script
        COMP_WORDS=($LINE) COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
        [[ $LINE == *' ' ]] && COMP_CWORD=$((COMP_CWORD + 1))
        _romfsfs_completion romfsfs 2>/dev/null
        printf '%s\\n' "${COMPREPLY[@]}"
    """,
    "zsh": """
        compdef() { }
        _path_files() { print FILES }
        compadd() { print -l -- "${(@P)@[-1]}" }
        _describe() { local each; for each in "${(@P)3}"; do print -r -- "${each%%:*}"; done }
        source ./script
        words=(${(z)LINE}); [[ $LINE == *' ' ]] && words+=('')
        CURRENT=$#words
        _romfsfs_completion
    """,
    "fish": "source ./script; complete -C $LINE",
}


@pytest.fixture
def offers(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[str, str], list[str]]:
    """`offers(shell, line)`: the words that the shell offers at the end of the line; "none": what
    it would be answered, without starting it."""

    def answers(line: str) -> list[str]:
        capsys.readouterr()
        monkeypatch.chdir(tmp_path)
        # As bash hands them over: a colon is a word of its own.
        words = line.replace(":", " : ").replace("\\ ", "\0").split(" ")
        words = [word.replace("\0", "\\ ") for word in words]
        monkeypatch.setenv("COMP_WORDS", " ".join(words))
        monkeypatch.setenv("COMP_CWORD", str(len(words) - 1))
        assert answer("bash_complete") == 0
        rows = capsys.readouterr().out.splitlines()
        return [row.partition(",")[2] for row in rows if row.startswith("plain,")]

    def ask(shell: str, line: str) -> list[str]:
        if shell == "none":
            return answers(line)
        assert main(["completion", shell]) == 0
        (tmp_path / "script").write_text(capsys.readouterr().out)
        plain = {"bash": ["--norc"], "zsh": ["-f"], "fish": ["--no-config"]}[shell]
        done = run(shell, *plain, "-c", _ASK[shell], LINE=line)
        return [row.partition("\t")[0] for row in done.stdout.splitlines() if row]

    return ask


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "app.img"
    path.write_bytes(encode({"main.py": b"pass\n", "lib/net.mpy": b"M" * 20}, dirs=["lib"]))
    return path


@pytest.mark.parametrize("shell", _SHELLS)
def test_commands_options_boards_and_files(
    shell: str, offers: Callable[[str, str], list[str]], image: Path
) -> None:
    assert offers(shell, "romfsfs um") == ["umount"]
    assert set(offers(shell, "romfsfs mount --com")) == {"--commit-on-unmount"}
    assert set(offers(shell, "romfsfs new x.img --board OPENMV_")) == {
        name for name in boards() if name.startswith("OPENMV_")
    }
    assert offers(shell, "romfsfs ls ap") == ["app.img"]
    assert offers(shell, "romfsfs cat app.img main.py lib/") == ["lib/", "lib/net.mpy"]


def test_the_board_is_offered_whatever_its_case(offers: Callable[[str, str], list[str]]) -> None:
    assert offers("none", "romfsfs build d i --board arduino_n") == [
        name for name in boards() if name.startswith("ARDUINO_N")
    ]


def test_connected_cameras_are_offered(
    offers: Callable[[str, str], list[str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ROMFSFS_PORTS", str(tmp_path / "cam0"))
    place = str(tmp_path).replace(" ", "\\ ")
    assert offers("none", f"romfsfs push x.img {place}/c") == [f"{tmp_path}/cam0"]
    assert offers("none", "romfsfs pull cam") == ["camera"]
    # bash breaks words at colons, and puts back what stands before one itself
    assert offers("none", "romfsfs pull dfu:OPENMV_N") == ["OPENMV_N6"]


def test_mounted_directories_and_sessions_are_offered(
    offers: Callable[[str, str], list[str]], image: Path, tmp_path: Path
) -> None:
    assert offers("none", "romfsfs umount c") == []
    assert main(["new", str(tmp_path / "new.img"), "--board", "OPENMV4P"]) == 0
    (folder,) = (folder for folder, _ in all_sessions())
    with folder.lock_for_mount("new.img") as lock:
        lock.write(MountedAt(1, str(tmp_path / "cam ä")))
        assert offers("none", "romfsfs umount c") == ["cam ä"]
        assert len(offers("none", "romfsfs status ")) == 2
        place = str(tmp_path).replace(" ", "\\ ")
        assert offers("none", f"romfsfs umount {place}/c") == [f"{tmp_path}/cam ä"]
    assert offers("none", "romfsfs commit ") == ["new.img"]


def test_models_of_the_zoo_are_offered(
    offers: Callable[[str, str], list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "zoo" / "models" / "google" / "face" / "blaze" / "blaze.tflite"
    model.parent.mkdir(parents=True)
    model.write_bytes(b"model")
    monkeypatch.setenv("ROMFSFS_ZOO", str(tmp_path / "zoo"))
    assert offers("none", "romfsfs zoo add goo") == ["google/face/blaze/blaze.tflite"]


def test_no_state_and_no_sense_are_no_error(
    offers: Callable[[str, str], list[str]], tmp_path: Path
) -> None:
    assert offers("none", "romfsfs ls missing.img x") == []
    assert offers("none", "romfsfs nonsense --x 'unfinished") == []
    assert not state_dir().exists() or not list(state_dir().rglob("session.json"))
    assert answer("tcsh_complete") == 1


def free_parameters() -> Iterator[tuple[click.Context, click.Parameter]]:
    """Every parameter of every command whose value is a text of the user's choice."""
    root = click.Context(romfsfs, info_name="romfsfs")
    pending = [
        (click.Context(command, info_name=name, parent=root), command)
        for name in COMMANDS
        if (command := romfsfs.get_command(root, name)) is not None
    ]
    while pending:
        context, command = pending.pop()
        if isinstance(command, click.Group):
            pending += [
                (click.Context(inner, info_name=name, parent=context), inner)
                for name, inner in command.commands.items()
            ]
        for parameter in command.params:
            if parameter.type is click.STRING and not getattr(parameter, "is_flag", False):
                yield context, parameter


def test_every_value_has_a_completion_or_is_a_name_of_its_own() -> None:
    own_names = {"arg", "exclude", "name", "words"}
    missing = [
        f"{context.command_path} {parameter.name}"
        for context, parameter in free_parameters()
        if parameter._custom_shell_complete is None and parameter.name not in own_names
    ]
    assert not missing, f"give them a shell_complete of cli/values.py: {missing}"


def test_the_command_prints_the_script(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "fish"]) == 0
    assert "_ROMFSFS_COMPLETE=fish_complete" in capsys.readouterr().out
    assert main(["completion", "tcsh"]) == 2


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ("ls a", ["ls", "a b.img"]),
        ('ls "a', ["ls", "a b.img"]),
        ("cat a\\ b.img c", ["cat", "a b.img", "c,d 'e'*.txt"]),
        ('cat "a b.img" "c,', ["cat", "a b.img", "c,d 'e'*.txt"]),
        ("pull dfu:OPENMV_N", ["pull", "dfu:OPENMV_N6"]),
        ('pull "dfu:OPENMV_N', ["pull", "dfu:OPENMV_N6"]),
        ("bui", ["build"]),
    ],
)
def test_bash_quotes_what_it_completes(
    keys: str, words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a terminal, as a user presses the keys; the shell then runs just these words."""
    (tmp_path / "a b.img").write_bytes(encode({"c,d 'e'*.txt": b"c"}))
    (tmp_path / "build").mkdir()
    assert main(["completion", "bash"]) == 0
    (tmp_path / "rc").write_text(
        f"""{capsys.readouterr().out}
        romfsfs() {{
            if [ "$_ROMFSFS_COMPLETE" ]; then command romfsfs; else printf '<%s>' "$@"; fi
        }}
        PS1='ready> '
        bind 'set enable-bracketed-paste off'
        """
    )
    terminal, shells = os.openpty()
    with subprocess.Popen(
        ["bash", "--rcfile", "rc", "-i"], stdin=shells, stdout=shells, stderr=shells, cwd=tmp_path,
        start_new_session=True,
    ), open(terminal, "r+b", buffering=0) as screen:  # fmt: skip
        os.close(shells)
        said = b""
        with contextlib.suppress(OSError):  # the shell has ended
            while chunk := screen.read(4096):
                before, said = said, said + chunk
                if b"ready> " in said and b"ready> " not in before:
                    screen.write(f"romfsfs {keys}\t\nexit\n".encode())
    assert "".join(f"<{word}>" for word in words) in said.decode()


@pytest.mark.program("fish")
def test_fish_completes_names_with_commas(
    offers: Callable[[str, str], list[str]], tmp_path: Path
) -> None:
    (tmp_path / "app.img").write_bytes(encode({"c,d (1).txt": b"c"}))
    assert offers("fish", "romfsfs cat app.img c") == ["c,d (1).txt"]


def test_commands_are_offered_without_importing_them(
    run: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    code = "import sys; from romfsfs.cli import main; main(); "
    code += "print(sorted(name for name in sys.modules if name.startswith('romfsfs.cli.')))"
    asked = {"_ROMFSFS_COMPLETE": "bash_complete", "COMP_WORDS": "romfsfs ", "COMP_CWORD": "1"}
    done = run(sys.executable, "-c", code, PYTHONPATH=str(Path(__file__).parents[2]), **asked)
    assert "plain,umount" in done.stdout, done.stderr
    assert "romfsfs.cli.sessions" not in done.stdout


def test_what_is_offered_with_what_it_is(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = (
        CameraPort("/dev/ttyACM0", 1, 2, "77", ("OPENMV4", "OPENMV4P")), CameraPort("/dev/x y"),
        CameraPort("/dev/a\nb"),
    )  # fmt: skip
    monkeypatch.setattr("romfsfs.devices.discovery.serial_cameras", lambda: found)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "B.ROMFS").touch()
    (tmp_path / "sub" / "notes.txt").touch()
    known = boards()

    def offered(completer: values.Completer, word: str, **given: object) -> list[Any]:
        context = click.Context(click.Command("x"))
        context.params = given
        return [
            (item.value, item.help) if item.type == "plain" else f"{item.type} {item.value}"
            for item in completer(context, click.Argument(["a"]), word)
        ]

    cameras = [
        ("camera", "the only camera connected"), ("camera:77", "OPENMV4 or OPENMV4P"),
        ("/dev/ttyACM0", "OPENMV4 or OPENMV4P"), ("/dev/x y", "camera"),
    ]  # fmt: skip
    ae3 = known["OPENMV_AE3"]
    for completer, word, given, wanted in (
        (values.boards, "", {}, [(each.name, each.display_name) for each in known.values()]),
        (values.boards, "openmv_ae", {}, [("OPENMV_AE3", ae3.display_name)]),
        (values.boards, "openmv_ae3:", {},
         [(f"OPENMV_AE3:{part.index}", part.name) for part in ae3.partitions]),
        (values.boards, "q", {}, []),
        (values.partitions, "", {"board": "OPENMV_AE3"},
         [(str(part.index), part.name) for part in ae3.partitions]),
        (values.partitions, "1", {"board": "OPENMV2"}, []),
        (values.partitions, "1", {"board": "none"}, []),
        (values.cameras, "", {}, cameras),
        (values.cameras, "/dev/tty", {}, cameras[2:3]),
        (values.cameras, "zz", {}, ["file zz"]),
        (values.cameras, "dfu:OPENMV_A", {}, [("dfu:OPENMV_AE3", ae3.display_name)]),
        (values.sources, "", {}, [("app.img", "image file"), *cameras]),
        (values.sources, "sub/", {}, [("sub/B.ROMFS", "image file")]),
        (values.sources, "gone/", {}, ["file gone/"]),
        (values.mounts, "x", {}, ["dir x"]),
        (values.sessions, "x", {}, ["file x"]),
        (values.files, "x", {}, ["file x"]),
        (values.folders, "x", {}, ["dir x"]),
        (values.in_image, "", {"source": "app.img"},
         [("lib/", None), ("lib/net.mpy", None), ("main.py", None)]),
        (values.in_image, "", {"source": "sub"}, []),
        (values.in_image, "", {}, []),
        (values.choices("a", "b"), "A", {}, [("a", None)]),
        (values.mount_options, "n", {},
         [("new", None), ("no_convert", None), ("notify", None), ("no_notify", None)]),
        (values.mount_options, "al", {}, [("allow_other", None), ("align=", None)]),
        (values.mount_options, "s", {}, [("slot=", None), ("stedgeai=", None)]),
    ):  # fmt: skip
        assert offered(completer, word, **given) == wanted, (word, given)


def test_models_are_offered_by_path_and_by_a_name_of_one_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("index.csv", "a/one.tflite", "a/two.tflite", "b/two.lite"):
        path = tmp_path / "zoo" / "models" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('"one", "N6"' if name == "index.csv" else "")
    monkeypatch.setenv("ROMFSFS_ZOO", str(tmp_path / "zoo"))
    for word, board, wanted in (
        ("", None, ["a/one.tflite", "a/two.tflite", "b/two.lite"]),
        ("o", None, ["one"]),
        ("o", "OPENMV2", []),
        ("t", None, []),
        ("a", "OPENMV2", ["a/two.tflite"]),
    ):  # fmt: skip
        context = click.Context(click.Command("x"))
        context.params = {"board": board}
        found = values.models(context, click.Argument(["a"]), word)
        assert [item.value for item in found] == wanted, word


@pytest.mark.parametrize(
    ("args", "word", "whole", "shown"),
    [
        (["ls"], "x", (["ls"], "x"), "dfu:N6"), ([], "", ([], ""), "dfu:N6"),
        (["ls", "dfu", ":"], "N", (["ls"], "dfu:N"), "N6"),
        (["ls", "dfu"], ":", (["ls"], "dfu:"), "N6"),
        (["ls"], "dfu:N", (["ls"], "dfu:N"), "dfu:N6"), (["ls"], "d:N", (["ls"], "d:N"), "dfu:N6"),
    ],
)  # fmt: skip
def test_bash_has_the_words_before_a_colon_already(
    monkeypatch: pytest.MonkeyPatch, args: list[str], word: str, whole: object, shown: str
) -> None:
    """Which are words of their own to it, but not in quotes."""
    monkeypatch.setattr(BashComplete, "get_completion_args", lambda self: (args, word))
    asked = completion._Bash(romfsfs, {}, "romfsfs", "X")
    assert asked.get_completion_args() == whole
    assert asked.format_completion(CompletionItem("dfu:N6")) == f"plain,{shown}"
