"""The control directory `.romfs/`, and a host that fails."""

from __future__ import annotations

import errno
import os
import subprocess
import time

import pytest
from mounts import Mounted
from processes import until
from test_work_tree import refused


@pytest.fixture
def trees(place: Mounted) -> Mounted:
    for name in ("base", "shadow", "zoo"):
        (place.state / name / "lib").mkdir(parents=True)
        (place.state / name / "lib/app.mpy").write_bytes(b"<<<" + name.encode() + b">>>")
        (place.state / name / "x.pending").write_bytes(b"------")
    return place.mount()


#: who is not root may be kept by a mode from even asking
READ_ONLY = (errno.EROFS,) if os.geteuid() == 0 else (errno.EROFS, errno.EACCES)


def test_it_is_there_for_who_knows_it(trees: Mounted) -> None:
    assert os.listdir(trees.mnt) == []
    assert sorted(os.listdir(trees.mnt / ".romfs")) == [
        "base", "ctl", "log", "shadow", "status", "status.html", "status.json",
        "writers", "zoo",
    ]  # fmt: skip
    with os.scandir(trees.mnt / ".romfs") as entries:  # by what the listing itself says
        folders = {entry.name for entry in entries if entry.is_dir(follow_symlinks=False)}
    assert folders == {"base", "shadow", "zoo"}
    with os.scandir(trees.mnt / ".romfs/base") as entries:
        assert {e.name: e.is_dir(follow_symlinks=False) for e in entries} == {
            "lib": True, "x.pending": False,
        }  # fmt: skip
    trees.sh('touch a; rm -r ./*; test -d .romfs; test -z "$(find . -mindepth 1)"')
    with refused(errno.EEXIST):
        (trees.mnt / ".romfs").mkdir()
    with refused(errno.ENOENT):
        (trees.mnt / ".romfs/nothing").stat()
    (trees.mnt / ".romfsx").touch()  # only this very name, only at the top
    (trees.mnt / "d/.romfs").mkdir(parents=True)
    assert os.listdir(trees.mnt / "d") == [".romfs"]


def test_without_a_zoo_there_is_none(mounted: Mounted) -> None:
    assert "zoo" not in os.listdir(mounted.mnt / ".romfs")
    assert not (mounted.mnt / ".romfs/zoo").exists()


def test_trees_read_byte_for_byte_and_only_read(trees: Mounted) -> None:
    for name in ("base", "shadow", "zoo"):
        tree = trees.mnt / ".romfs" / name
        assert (tree / "lib/app.mpy").read_bytes() == name.encode()
        assert sorted(os.listdir(tree)) == ["lib", "x.pending"]
        with refused(errno.EAGAIN):
            (tree / "x.pending").open("rb")
        for change in (
            (tree / "lib/app.mpy").unlink,
            (tree / "new").touch,
            (tree / "new").mkdir,
            (tree / "lib").rmdir,
            lambda tree=tree: (tree / "lib/app.mpy").open("r+b"),
            lambda tree=tree: (tree / "lib/app.mpy").rename(trees.mnt / "app.mpy"),
            lambda tree=tree: (tree / "lib/app.mpy").chmod(0o777),
            lambda tree=tree: os.utime(tree / "lib"),
            lambda tree=tree: os.truncate(tree / "lib/app.mpy", 0),
        ):
            with refused(*READ_ONLY):
                change()
        assert not os.access(tree, os.W_OK)
    trees.run("cp", "-r", trees.mnt / ".romfs/zoo/lib", trees.mnt)
    assert (trees.work / "lib/app.mpy").read_bytes() == b"zoo"


def test_status_is_as_it_was_when_opened(mounted: Mounted) -> None:
    status = mounted.mnt / ".romfs/status"
    with status.open() as before:
        (mounted.mnt / "new").touch()
        assert status.read_text() == "1 entries\n"
        assert before.read() == "0 entries\n"
    assert status.stat().st_size == len("1 entries\n")
    assert mounted.sh("wc -c < .romfs/status.json").strip() == str(len('{"entries": ["new"]}\n'))
    assert (mounted.mnt / ".romfs/log").read_text() == "end\n"
    with refused(*READ_ONLY):
        status.write_text("x")


def test_writing_commit_commits(mounted: Mounted) -> None:
    with (mounted.mnt / "app.py").open("w") as file:
        file.write("x")
        mounted.sh("echo commit > .romfs/ctl")
        assert (mounted.mnt / ".romfs/writers").read_bytes() == b"app.py\0"
    lock = os.open(mounted.mnt / "lock", os.O_RDONLY | os.O_CREAT)  # as flock(1) makes its own
    assert (mounted.mnt / ".romfs/writers").read_bytes() == b""
    os.close(lock)
    mounted.sh(
        "echo commit >> .romfs/ctl; printf commit > .romfs/ctl; printf '\n a b \n\n' > .romfs/ctl"
    )
    commands = [call for call in mounted.calls() if call.startswith("control")]
    assert commands == [
        'control commit ["app.py"]', "control commit []", "control commit []", "control a b []",
    ]  # fmt: skip
    with refused(errno.EACCES):
        (mounted.mnt / ".romfs/ctl").open("r+")


def test_a_command_that_fails_fails_the_write(mounted: Mounted) -> None:
    mounted.expected += ["refused as asked", r"ZeroDivisionError|SystemExit|Traceback|^  |raised$"]
    for command in ("refuse", "crash", "exit"):
        fd = os.open(mounted.mnt / ".romfs/ctl", os.O_WRONLY)
        with refused(errno.EIO):
            os.write(fd, command.encode() + b"\n")
        os.close(fd)
    assert "ask for something else" in mounted.log()
    assert "a bug in the host" in mounted.log()
    assert (mounted.mnt / ".romfs").is_dir()


def test_the_mount_answers_while_a_command_runs(mounted: Mounted) -> None:
    waiting = subprocess.Popen(["sh", "-c", f"echo wait > {mounted.mnt}/.romfs/ctl"])
    try:
        until(lambda: "control wait []" in mounted.calls())
        for number in range(20):
            (mounted.mnt / f"f{number}").write_text("x")
        assert len(os.listdir(mounted.mnt)) == 20
        assert (mounted.mnt / ".romfs/status").read_text() == "20 entries\n"
        assert waiting.poll() is None
        (mounted.state / "go").touch()
        assert waiting.wait(60) == 0
    finally:
        waiting.kill()
        waiting.wait()


def test_a_failing_host_does_not_end_the_mount(mounted: Mounted) -> None:
    mounted.expected += [r"Error|Traceback|^  |raised"]
    for name in ("serial", "bug"):
        (mounted.mnt / name).touch()
        with refused(errno.EIO):
            os.getxattr(mounted.mnt / name, "user.romfs.state")
    assert "without errno" in mounted.log()
    assert sorted(os.listdir(mounted.mnt)) == ["bug", "serial"]


def test_a_text_too_long_for_a_command_is_refused(mounted: Mounted) -> None:
    with refused(errno.EINVAL):
        fd = os.open(mounted.mnt / ".romfs/ctl", os.O_WRONLY)
        try:
            os.write(fd, b"x" * 5000)
        finally:
            os.close(fd)
    assert time.time() - (mounted.mnt / ".romfs/ctl").stat().st_mtime < 3600


def test_a_file_that_became_a_folder_is_one(trees: Mounted) -> None:
    """In the trees nobody tells the kernel; reading makes it ask for the times again."""
    for name in ("one", "two", "three"):
        behind, shown = trees.state / "shadow" / name, trees.mnt / ".romfs/shadow" / name
        behind.write_bytes(b"---some---")
        assert shown.read_bytes() == b"some"
        behind.unlink()
        behind.mkdir()
        until(shown.is_dir)  # attributes are kept for a second
        assert os.listdir(shown) == []
        behind.rmdir()
        behind.write_bytes(b"---back---")
        until(shown.is_file)
        assert shown.read_bytes() == b"back"
