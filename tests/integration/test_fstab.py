"""Mounting by /etc/fstab: mount(8), mount.fuse3 and the kernel, for real."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from romfsfs.cli.app import COMMANDS
from romfsfs.cli.fstab import FLAGS, with_mount
from romfsfs.cli.mounting import mount
from romfsfs.errors import UsageError, shell_word
from romfsfs.image.writer import encode

CHECKOUT = Path(__file__).parent.parent.parent

#: mount.fuse3 looks for programs in the system's folders alone, so one of them is covered, in a
#: mount namespace of the test's own; what is mounted goes with it.
SCRIPT = """
umount -a -l -t fuse,fuse.romfsfs 2>/dev/null  # copies, which would keep others' mounts alive
set -eu
mount --bind "$PWD/programs" /usr/local/bin
mount -T fstab "$PWD/cam"
grep -F '/cam fuse.romfsfs rw,' /proc/self/mounts
cat cam/main.py
echo 'print(2)' > cam/new.py
romfsfs status --json "$PWD/cam" > status.json
umount cam
for i in $(seq 100); do romfsfs sessions | grep -q mounted || break; sleep 0.05; done
mount -T fstab "$PWD/again"
grep -F '/again fuse.romfsfs ro,' /proc/self/mounts
cat again/new.py
if touch again/x 2>/dev/null; then exit 9; fi
umount again
! mount -t fuse.romfsfs -o noauto "$PWD/missing.img" cam
"""

FSTAB = """
{folder}/app.img {folder}/cam fuse.romfsfs user,noauto,nofail,x-systemd.automount,board=OPENMV4P 0 0
{folder}/programs/romfsfs#{folder}/app.img {folder}/again fuse ro,noauto,noexec,comment=x 0 0
"""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    folder = tmp_path / "programs"
    folder.mkdir()
    script = folder / "romfsfs"
    script.write_text(f'#!/bin/sh\nPYTHONPATH={shell_word(CHECKOUT)} '
                      f'exec {shell_word(sys.executable)} -m romfsfs "$@"\n')  # fmt: skip
    script.chmod(0o755)
    return folder


@pytest.mark.mount
def test_lines_of_fstab_mount(tmp_path: Path, program: Path) -> None:
    assert shutil.which("mount.fuse3") or Path("/sbin/mount.fuse3").exists(), "install fuse3"
    for name in ("cam", "again"):
        (tmp_path / name).mkdir()
    (tmp_path / "app.img").write_bytes(encode({"main.py": b"print(1)\n"}))
    (tmp_path / "fstab").write_text(FSTAB.format(folder=str(tmp_path).replace(" ", "\\040")))
    as_root = [] if os.geteuid() == 0 else ["--map-root-user"]
    done = subprocess.run(
        ["unshare", *as_root, "--mount", "sh", "-c", SCRIPT],
        cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False,
        stdin=subprocess.DEVNULL, env=os.environ | {"PATH": f"{os.environ['PATH']}:{program}"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "print(1)" in done.stdout
    assert "print(2)" in done.stdout
    assert "no such image file" in done.stderr
    assert '"board": "OPENMV4P"' in (tmp_path / "status.json").read_text()


@pytest.mark.parametrize(
    ("arguments", "is_mount"),
    [
        (["/a/b.img", "/mnt", "-o", "rw,noexec"], True),
        (["camera", "/mnt", "-o", "rw"], True),
        (["mount", "/a/b.img", "/mnt", "-o", "rw"], False),
        (["ls", "b.img", "-o"], False),
        (["-v", "mount", "-o", "rw"], False),
        (["a.img", "/mnt", "-o"], False),
        (["nonsense", "--json"], False),
        (["a.img", "/mnt"], False),
    ],
)
def test_only_the_form_of_mount_is_taken_for_it(arguments: list[str], is_mount: bool) -> None:
    assert (with_mount(arguments, COMMANDS) == ["mount", *arguments]) is is_mount


def test_a_user_has_his_own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """mount(8), setuid root, leaves HOME=/root to the user's romfsfs."""
    user = SimpleNamespace(pw_dir=str(tmp_path))
    line = ["/a/b.img", "/mnt", "-o", "rw"]
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: user)
    monkeypatch.setenv("HOME", str(tmp_path / "of-mine"))
    (tmp_path / "of-mine").mkdir()
    with_mount(line, COMMANDS)
    assert os.environ["HOME"] == str(tmp_path / "of-mine")  # the user's choice
    monkeypatch.setattr(os, "getuid", lambda: os.stat(tmp_path).st_uid + 1)
    with_mount(["mount", *line], COMMANDS)
    assert os.environ["HOME"] == str(tmp_path / "of-mine")
    with_mount(line, COMMANDS)
    assert os.environ["HOME"] == str(tmp_path)


@pytest.mark.parametrize(
    ("words", "given", "passed"),
    [
        ("ro", {"read_only": True}, ()),
        ("ro,rw", {"read_only": False}, ()),
        ("new", {"start_new": True}, ()),
        ("commit_on_unmount", {"commit_on_unmount": True}, ()),
        ("no_convert", {"no_convert": True}, ()),
        ("notify", {"notify": True}, ()),
        ("no_notify", {"notify": False}, ()),
        ("board=AE3:1,slot=B", {"board": "OPENMV_AE3", "partition": 1, "slot": "B"}, ()),
        ("partition=2,stedgeai=/opt", {"partition": 2, "stedgeai": "/opt"}, ()),
        ("convert=*.py=no,align=64", {"convert": ("*.py=no",), "align": ("64",)}, ()),
        ("optimise=Size,profile=p,mpool=m",
         {"optimise": ("Size",), "profile": ("p",), "mpool": ("m",)}, ()),
        ("convert=*.py=no,ro,convert=*.tflite=no",
         {"convert": ("*.py=no", "*.tflite=no"), "read_only": True}, ()),
        ("nonempty,,noatime", {}, ("nonempty", "noatime")),
    ],
)  # fmt: skip
def test_words_of_a_line_are_options_of_mount(
    words: str, given: dict[str, object], passed: tuple[str, ...]
) -> None:
    usual = mount.make_context("mount", ["app.img", "cam"]).params
    params = mount.make_context("mount", ["app.img", "cam", "-o", words]).params
    assert params == usual | given | {"options": passed}


@pytest.mark.parametrize("name", FLAGS)
def test_words_that_turn_something_on_take_no_value(name: str) -> None:
    """`commit_on_unmount=0` must not commit."""
    with pytest.raises(UsageError) as refused:
        mount.make_context("mount", ["app.img", "cam", "-o", f"noatime,{name}=0"])
    assert refused.value.line == (
        f"{name} takes no value (-o {name}=0); write -o {name}, or leave it out"
    )


def test_a_user_without_a_name_keeps_the_home(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(number: int) -> None:
        raise KeyError(number)

    monkeypatch.setattr(pwd, "getpwuid", nobody)
    monkeypatch.setenv("HOME", "/nowhere")
    assert with_mount(["a.img", "/mnt", "-o", "rw"], COMMANDS)[0] == "mount"
    assert os.environ["HOME"] == "/nowhere"
