"""Which session a folder means, when more than one was mounted there, or a link leads to it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import needs
import pytest
from cli_mounts import LIMIT, Mounts
from processes import until

import romfsfs
from romfsfs.fs.mountpoint import wait_for_exit
from romfsfs.image.writer import encode
from romfsfs.session.keep.folder import folder_of
from romfsfs.system.mount_table import find_mount, is_dead


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """A second image; its session comes before that of `image` in any listing."""
    path = tmp_path / "aaa.img"
    path.write_bytes(encode({"other.txt": b"other\n"}))
    return path


def pid_of(image: Path) -> int:
    holder = folder_of(str(image)).mounted_at()
    assert holder is not None
    return holder.pid


def test_a_link_to_the_mountpoint_means_it(mounts: Mounts, image: Path) -> None:
    cam = mounts.folder / "cam"
    cam.mkdir()
    link = mounts.folder / "link"
    link.symlink_to("cam")
    mounts.directories.append(cam)
    done = mounts.shell("mount", image, link)
    assert done.code == 0, done.err
    assert done.out == f"{image} is mounted at {link}\n"
    (cam / "a.txt").write_text("edited\n")
    (cam / "lib/new.txt").write_text("1")
    assert "  M a.txt" in mounts.command("status", link / "lib").out
    deep, file = mounts.folder / "deep", mounts.folder / "file"
    deep.symlink_to("link/lib")
    file.symlink_to(cam / "a.txt")
    assert mounts.command("diff", file).out.splitlines()[-2:] == ["-first", "+edited"]
    assert "b/lib/new.txt" in mounts.command("diff", deep).out
    assert f"({deep}); romfsfs umount {cam}\n" in mounts.command("umount", deep).err
    assert "lib/new.txt\n1 change reverted" in mounts.command("revert", link, deep).out
    assert mounts.command("commit", link).code == 0
    assert mounts.command("umount", link).code == 0
    assert find_mount(str(cam)) is None


def test_a_dead_mount_is_that_of_the_last_one_there(
    mounts: Mounts, image: Path, other: Path
) -> None:
    """The one before was unmounted by a file manager, as `fusermount -u` does."""
    cam = mounts.mount(other)
    (cam / "kept.txt").write_text("an edit")
    pid = pid_of(other)
    subprocess.run(["fusermount3", "-u", cam], check=True, timeout=LIMIT)
    assert wait_for_exit(pid, LIMIT)
    mounts.mount(image)
    (cam / "a.txt").write_text("edited\n")
    pid = pid_of(image)
    os.kill(pid, signal.SIGKILL)
    assert wait_for_exit(pid, LIMIT)
    assert is_dead(cam)
    assert "  M a.txt" in mounts.command("status", cam).out
    assert "discarded 1 change" in mounts.command("umount", "--discard", cam).out
    assert "A kept.txt" in mounts.command("status", other).out
    assert "no edits" in mounts.command("status", image).out


def test_a_mount_that_was_taken_away_lazily_is_not_the_next_one_there(
    mounts: Mounts, image: Path, other: Path
) -> None:
    cam = mounts.mount(other)
    (cam / "kept.txt").write_text("an edit")
    pid = pid_of(other)
    with open(cam / "other.txt", "a") as written:
        assert mounts.shell("umount", "--lazy", cam).code == 0
        refused = mounts.command("status", cam)
        assert "romfsfs has nothing mounted there" in refused.error
        assert "A kept.txt" in mounts.command("status", other).out
        for command in (["commit"], ["revert", "--yes"]):
            refused = mounts.command(*command, other)
            assert (refused.code, written.closed) == (1, False)
            assert f"its mount at {cam} cannot be reached (process {pid})" in refused.error
        mounts.mount(image)
        (cam / "new.txt").write_text("1")
        assert "A new.txt" in mounts.command("status", cam).out
        assert "new.txt\n1 change reverted" in mounts.command("revert", cam, "--yes").out
        assert "cannot be reached" in mounts.command("commit", other).error
        assert mounts.shell("umount", cam).code == 0
    assert wait_for_exit(pid, LIMIT)
    assert "A kept.txt" in mounts.command("status", other).out


def test_a_partition_is_a_number(mounts: Mounts, image: Path) -> None:
    for number in ("", "-1", "\N{SUPERSCRIPT TWO}", "two"):
        refused = mounts.shell("mount", image, mounts.folder, "-o", f"partition={number}")
        assert refused.code == 2
        assert "invalid value for '--partition'" in refused.error


def test_the_current_folder_is_gone(mounts: Mounts, image: Path) -> None:
    """Taken away lazily, with a shell in it: that is where the next commands are given."""
    cam = mounts.mount(image)
    gone = mounts.folder / "gone"
    gone.mkdir()
    script = """
        cd "$1" && rmdir "$1" && romfsfs() { "$python" -m romfsfs "$@"; }
        romfsfs umount "$2" && romfsfs mount "$3" "$2" && romfsfs status "$2"; romfsfs ls x
    """
    done = subprocess.run(
        ["sh", "-c", script, "sh", gone, cam, image], env=os.environ | {"python": sys.executable},
        capture_output=True, text=True, timeout=LIMIT, check=False,
    )  # fmt: skip
    assert f"{image} is mounted at {cam}\n{image} (no board): nothing to commit" in done.stdout
    assert done.stderr.endswith("error: the current folder is gone; go to another one: cd\n")


def test_relative_folders_of_sessions_and_results(
    mounts: Mounts, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Makefile says where they are: below its own folder, for the mount's process too."""
    there = set(os.listdir("/"))
    places = {f"ROMFSFS_{name.upper()}_DIR": f"of the build/{name}" for name in ("state", "cache")}
    for name, value in places.items():
        monkeypatch.setenv(name, value)
    cam = mounts.mount(image)
    (cam / "new.txt").write_text("1")
    status = mounts.shell("status", cam)
    assert (status.code, "  A new.txt" in status.out) == (0, True)
    done = subprocess.run(
        [sys.executable, "-m", "romfsfs", "umount", "."], cwd=cam, capture_output=True, text=True,
        env=os.environ | {name: f"../{value}" for name, value in places.items()}, timeout=LIMIT,
        check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("1 change kept")
    assert len(list((mounts.folder / "of the build/state/sessions").iterdir())) == 1
    assert set(os.listdir("/")) == there


def test_a_mount_over_the_image_itself_is_refused(mounts: Mounts, image: Path) -> None:
    """`mount app.img .` is answered with the advice to say -o nonempty."""
    (mounts.folder / "project").mkdir()
    image.rename(mounts.folder / "project/app.img")
    refused = mounts.shell("mount", "project/app.img", "project", "-o", "nonempty")
    assert refused.code == 2
    assert "the mount would hide" in refused.error
    assert find_mount(str(mounts.folder / "project")) is None
    refused = mounts.shell("mount", "project/app.img", ".", "-o", "nonempty")
    assert "state, which it needs" in refused.error


#: A mount in the foreground, whose process takes every request and answers none while a file is
#: there.
HANGS = """
import os, sys, time
from romfsfs.cli import main
from romfsfs.fs.adapter import Adapter

def hangs(self, path, info=None, answer=Adapter.getattr):
    while os.path.exists(sys.argv[1]):
        try:
            taken = open(sys.argv[1], "r+")  # which does not make it again
        except FileNotFoundError:
            break
        with taken:
            taken.seek(0, 2)
            taken.write(path + "\\n")
        time.sleep(0.1)
    return answer(self, path, info)

Adapter.getattr = hangs
sys.exit(main(["mount", "--foreground", *sys.argv[2:]]))
"""
#: A command that Python's own search for modules in the current folder does not hold up.
INSIDE = f"""
import sys
sys.path.insert(0, {str(Path(romfsfs.__file__).parents[1])!r})
from romfsfs.cli import main
print("ready", flush=True)
input()
sys.exit(main(["status"]))
"""


@pytest.mark.skipif(not needs.LINUX, reason="only /proc tells that a child has ended")
def test_a_daemon_that_has_taken_a_request_holds_up_no_command(
    mounts: Mounts, image: Path, other: Path, tmp_path: Path
) -> None:
    """Nothing ends who waits for its answer: that is a process with nothing of the command's."""
    cam, link, deep, hold = (tmp_path / name for name in ("cam", "link", "deep", "hold"))
    cam.mkdir()
    link.symlink_to("cam")
    deep.symlink_to("link/lib")
    mounts.directories.append(cam)
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True,
                             "stderr": subprocess.STDOUT}  # fmt: skip
    romfs = [sys.executable, "-m", "romfsfs"]
    daemon = subprocess.Popen([sys.executable, "-c", HANGS, hold, image, cam])
    try:
        until(lambda: find_mount(str(cam)) is not None)
        (cam / "a.txt").write_text("edited\n")
        inside = subprocess.Popen([sys.executable, "-I", "-c", INSIDE], cwd=cam / "lib", **pipes)
        assert inside.stdout is not None
        assert inside.stdout.readline() == "ready\n"
        hold.touch()
        commands = {
            subprocess.Popen([*romfs, *map(str, words)], **pipes): code
            for code, *words in (
                (1, "status", cam),
                (1, "status", image),
                (1, "diff", link / "lib"),
                (1, "status", deep),
                (1, "umount", deep),
                (1, "umount", cam),
                (1, "umount", "--lazy", cam / "lib"),
                (2, "mount", other, link),
                (2, "info", cam),
                (2, "ls", cam / "lib/b.bin"),
                (2, "build", cam / "lib", tmp_path / "built.img"),
                (2, "push", cam / "lib/b.bin", "camera"),
            )
        } | {inside: 1}
        for command, code in commands.items():
            said, _ = command.communicate("\n", timeout=LIMIT)  # nobody else has its streams
            assert command.returncode == code, said
            assert "does not answer" in said
            assert f"romfsfs umount --lazy {cam}" in said
        # For /.romfs, or for / if what the kernel knew of it was too old by then.
        assert hold.read_text(), "nothing was asked"
        assert daemon.poll() is None
        hold.unlink()
        until(lambda: "  M a.txt" in mounts.command("status", cam).out)
        assert mounts.command("umount", cam).code == 0
        assert daemon.wait(LIMIT) == 0
    finally:
        daemon.kill()
        daemon.wait()
