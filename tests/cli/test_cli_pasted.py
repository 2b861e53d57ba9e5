"""Commands that messages suggest, pasted into a shell: they mean the very path, whatever is in it.

Each case provokes a message about a path that a shell, or the one line of an error, could take for
something else; bash says which words the suggestion has.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_mounts import Mounts, Ran

from romfsfs.cli import main
from romfsfs.devices.file import FileDevice
from romfsfs.errors import RomfsError, shell_word
from romfsfs.image.writer import encode
from romfsfs.session.rebase.read import session_for

#: Two spaces, a quote, a line break, a tab, a backslash, a dollar, a byte that is no UTF-8, a mark
#: that is written like none, a no-break space.
NAMES = (
    "my  cam's dir",
    'a"b $HOME `id` \\ *',
    "line\nbreak\ttab\\n'",
    os.fsdecode(b"no utf-8 \xff7 \xe9"),
    "\u00e9\u00a0\u202e\u00fc",
)
IMAGE = "-x y.img"

_WORD = r"""(?:\$'(?:\\.|[^'\\])*'|'[^']*'|"[^"]*"|[^\s'"$;,])+"""
_COMMAND = re.compile(
    rf"(?:romfsfs [a-z]+|mkdir -p|ls -ld|chmod [u\d][+w\d]*|fusermount3 -u|umount -l)"
    rf"((?: {_WORD})+)"
)


def pasted(said: str) -> list[list[str]]:
    """The arguments of each command in a message, as bash understands them."""
    found = []
    for command in _COMMAND.finditer(said):
        done = subprocess.run(
            ["bash", "-c", f"printf '%s\\0' {command[1]}"], capture_output=True, check=True
        )
        found.append([os.fsdecode(word) for word in done.stdout.split(b"\0")[:-1]])
    return found


def means(said: str, path: Path | str, at_least: int = 1) -> None:
    """Whether every command in a message that names a path names this one."""
    wanted = os.path.realpath(path)
    named = 0
    for words in pasted(said):
        files = [word for word in words if "/" in word or IMAGE in word]
        for word in files:
            assert not word.startswith("-"), said
            assert os.path.realpath(word) == wanted, said
        named += bool(files)
    assert named >= at_least, said


@pytest.fixture(params=NAMES, ids=range(len(NAMES)))
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / str(request.param)
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("ROMFSFS_PORTS", "")
    (folder / IMAGE).write_bytes(encode({"a.txt": b"a"}))
    return folder


@pytest.mark.mount
def test_what_a_message_suggests_means_that_very_path(place: Path, run: Callable[..., Ran]) -> None:
    image, given = place / IMAGE, f"./{IMAGE}"
    means(run("status", given).err, image)
    means(run("ls", given, "nothere").err, image)
    means(run("cat", given, "nothere").err, image)
    means(run("new", "no/x.img", "--board", "OPENMV4").err, place / "no")
    means(run("build", ".", "no/x.img").err, place / "no")
    means(run("mount", given, "no").err, place / "no")
    broken = place / "-b k.img"
    broken.write_bytes(encode({"a.txt": b"a"})[:-1])
    assert main(["ls", f"./{broken.name}"]) == 4
    image.unlink()
    means(run("new", given, "--board", "OPENMV4").out, image)
    means(run("verify", "./-n y.img").err, place / "-n y.img", 0)


def test_what_is_suggested_of_a_session_means_its_image(
    place: Path, run: Callable[..., Ran]
) -> None:
    image = place / IMAGE
    session_for(FileDevice(str(image)), str(image))
    means(run("undo", image).err, image)
    means(run("undo", "--to", "7", image).err, image)
    means(run("commit", "--compact", image).err, image)


@pytest.mark.parametrize("place", [NAMES[0], NAMES[2] + NAMES[3]], indirect=True, ids=("", "odd"))
@pytest.mark.parametrize("mountpoint", ["-m  t's"])
def test_what_is_suggested_of_a_mount_means_its_folder(
    place: Path, mounts: Mounts, run: Callable[..., Ran], mountpoint: str
) -> None:
    image = place / IMAGE
    mounts.folder = place
    cam = mounts.mount(image, name=mountpoint)
    means(mounts.shell("mount", image, place / mountpoint).err, cam)
    (place / "other").mkdir()
    means(mounts.shell("mount", image, "other").err, cam)
    (cam / "lib").mkdir()
    means(run("umount", f"./{mountpoint}/lib").err, cam)
    (cam / "x.py").write_text("x(")
    assert run("commit", f"./{mountpoint}").code == 3
    kept = run("umount", f"./{mountpoint}")
    means(kept.out, image, 2)
    again = mounts.shell("mount", image, f"./{mountpoint}")
    means(again.err, cam)
    (cam / "x.py").write_text("x = 1")
    image.write_bytes(encode({"elsewhere": b"1"}))
    means(run("commit", f"./{mountpoint}").err, image, 3)
    mounts.shell("umount", f"./{mountpoint}")
    changed = mounts.shell("mount", image, f"./{mountpoint}")
    assert changed.code == 7
    means(changed.err, image, 3)


def test_a_name_keeps_its_spaces_in_the_one_line() -> None:
    error = RomfsError("a  b.img\n  is bad\n\n", where="my  dir/\n x", next_step="ls  a\nthen b")
    assert error.line == r"a  b.img is bad (my  dir/\n x); ls  a then b"


@pytest.mark.parametrize("shell", ["bash", pytest.param("zsh", marks=pytest.mark.program("zsh"))])
@pytest.mark.parametrize("name", [*NAMES, "-", "--help", "~", "", "plain", "\\'", "\n"])
def test_a_shell_takes_a_word_back(shell: str, name: str) -> None:
    word = shell_word(name)
    assert word.isprintable()
    done = subprocess.run([shell, "-c", f"printf %s {word}"], capture_output=True, check=True)
    assert os.fsdecode(done.stdout) in (name, f"./{name}")
