"""State, caches and a mount's commands are the user's alone. Needs root, to become another."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from romfsfs.errors import RomfsError
from romfsfs.files import make_private_dir, replace_atomically

NOBODY = 65534
CHECKOUT = Path(__file__).parents[2]
SECONDS = 60


class Place:
    """Folders of a user with the worst umask, where others can reach the mountpoint."""

    def __init__(self, base: Path, binding: str) -> None:
        self.base = base
        self.mnt = base / "mnt"
        self.image = base / "app.img"
        self.mnt.mkdir()
        self.environment = {
            **os.environ,
            "ROMFSFS_STATE_DIR": str(base / "home" / "state" / "romfsfs"),
            "ROMFSFS_CACHE_DIR": str(base / "home" / "cache" / "romfsfs"),
            "ROMFSFS_FUSE": binding,
            "PYTHONPATH": str(CHECKOUT),
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def romfsfs(self, *words: object) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "romfsfs", *map(str, words)], env=self.environment, cwd="/",
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SECONDS,
            umask=0, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def as_nobody(self, script: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", "-c", script], user=NOBODY, group=NOBODY, extra_groups=[], cwd="/",
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SECONDS, check=False,
        )  # fmt: skip


@pytest.fixture(params=["fusepy", "mfusepy"])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    if os.geteuid() != 0:
        pytest.skip("only root can run a command as another user")
    memory = Path("/dev/shm")
    base = Path(tempfile.mkdtemp(prefix="romfsfs-", dir=memory if memory.is_dir() else None))
    base.chmod(0o755)
    try:
        yield Place(base, request.param)
    finally:
        subprocess.run(
            ["fusermount3", "-uz", str(base / "mnt")], stderr=subprocess.DEVNULL, check=False
        )
        shutil.rmtree(base)


def test_everything_that_is_kept_is_private_whatever_the_umask(place: Place) -> None:
    place.romfsfs("new", place.image, "--board", "OPENMV4P")
    place.romfsfs("mount", place.image, place.mnt)
    (place.mnt / "app.py").write_text("print(1)\n")
    (place.mnt / "lib").mkdir()
    place.romfsfs("commit", place.mnt)
    (place.mnt / "app.py").write_text("print(2)\n")
    place.romfsfs("commit", place.mnt)
    place.romfsfs("undo", place.image)
    (place.mnt / "data.bin").write_bytes(bytes(100))
    place.romfsfs("umount", place.mnt)
    home = place.base / "home"
    open_to_others = []
    for folder, folders, names in os.walk(home):
        for name in (*folders, *names):
            path = Path(folder, name)
            mode = path.lstat().st_mode
            if path.relative_to(home).parts[1:] and "work" in path.parts:
                continue  # what the user sees in the mount has the modes that he gives
            if mode & 0o077:
                open_to_others.append((oct(mode), str(path.relative_to(home))))
    inside_private = ("artifact", "result.json")  # their folder is 0700, renamed as a whole
    assert [each for each in open_to_others if not each[1].endswith(inside_private)] == []
    assert list(home.glob("state/romfsfs/sessions/*/session.json"))
    assert list(home.glob("cache/romfsfs/convert/results/*/*/result.json"))
    seen = place.as_nobody(f"ls {home}/state || ls {home}/cache || cat {home}/state/romfsfs/*")
    assert seen.stdout == ""


def test_another_user_cannot_look_into_a_mount(place: Place) -> None:
    place.romfsfs("new", place.image, "--board", "OPENMV4P")
    place.romfsfs("mount", place.image, place.mnt)
    for command in ("ls {}", "cat {}/.romfs/status", "echo commit > {}/.romfs/ctl"):
        done = place.as_nobody(command.format(place.mnt))
        assert done.returncode != 0
        assert "ermission denied" in done.stderr
    place.romfsfs("umount", place.mnt)


@pytest.mark.parametrize("option", ["", "umask=0", "uid=65534"])
def test_another_user_of_a_shared_mount_may_read_but_command_nothing(
    place: Place, option: str
) -> None:
    place.romfsfs("new", place.image, "--board", "OPENMV4P")
    options = ["-o", f"allow_other,{option}".rstrip(",")]
    place.romfsfs("mount", place.image, place.mnt, *options)
    (place.mnt / "a.txt").write_text("for all\n")
    (place.mnt / "a.txt").chmod(0o644)
    before = place.image.read_bytes()
    assert place.as_nobody(f"cat {place.mnt}/a.txt").stdout == "for all\n"
    for command in ("echo commit > {}", "echo commit >> {}", "printf commit | dd of={}"):
        done = place.as_nobody(command.format(place.mnt / ".romfs" / "ctl"))
        assert done.returncode != 0
        assert "ermission denied" in done.stderr
    assert place.image.read_bytes() == before
    (place.mnt / ".romfs" / "ctl").write_text("commit\n")  # who mounted it may
    assert place.image.read_bytes() != before
    place.romfsfs("umount", place.mnt)


def test_folders_that_others_could_fill_are_refused(tmp_path: Path) -> None:
    private = make_private_dir(tmp_path / "a" / "b" / "c")
    for folder in (private, private.parent, private.parent.parent):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert make_private_dir(private) == private
    private.chmod(0o777)
    with pytest.raises(RomfsError, match="everybody may write"):
        make_private_dir(private)
    private.chmod(0o755)
    make_private_dir(private)
    if os.geteuid() == 0:
        os.chown(private, NOBODY, NOBODY)
        with pytest.raises(RomfsError, match="belongs to another user"):
            make_private_dir(private)
        link = tmp_path / "link"
        link.symlink_to(tmp_path / "a")
        os.lchown(link, NOBODY, NOBODY)
        with pytest.raises(RomfsError, match="belongs to another user"):
            make_private_dir(link)


def test_a_link_laid_where_a_temporary_file_goes_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    target = tmp_path / "app.img"
    trap = tmp_path / f"app.img.{os.getpid()}.tmp"
    trap.symlink_to(victim)
    with replace_atomically(target) as file:
        file.write(b"new")
    assert victim.read_bytes() == b"precious"
    assert target.read_bytes() == b"new"
    assert not target.is_symlink()
