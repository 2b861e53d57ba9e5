"""Modes that keep their own user out: an ordinary user's whole mount, since root may read all."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import fuse
import pytest
from processes import SECONDS
from real_mount import CHECKOUT, RealMount, memory_folder

from romfsfs.image.writer import encode

NOBODY = 65534

CLOSES_WHAT_IS_OPEN = """
import os
os.mkdir("closed")
for name in ("text", "script.py"):
    os.chmod("closed", 0o700)
    fd = os.open(f"closed/{name}", os.O_CREAT | os.O_WRONLY)
    os.write(fd, b"print(1)")
    os.chmod("closed", 0)
    os.close(fd)
"""


class UsersMount(RealMount):
    """The program as an ordinary user has it."""

    def __init__(self, base: Path, prefix: tuple[str, ...], python: str) -> None:
        super().__init__(base)
        self.prefix, self.python = prefix, python
        self.env["PYTHONPATH"] = f"{CHECKOUT}:{Path(fuse.__file__).parent}"
        self.image.write_bytes(b"")
        for path in (base, self.mnt, self.image):
            os.chown(path, NOBODY, NOBODY)

    def command(self, *words: object, cwd: Path = Path("/")) -> str:
        inside = ["env", "-C", str(cwd), f"PYTHONPATH={self.env['PYTHONPATH']}", *map(str, words)]
        done = subprocess.run(
            [*self.prefix, *inside], env=self.env, stdin=subprocess.DEVNULL, capture_output=True,
            text=True, timeout=SECONDS, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout

    def run(self, *words: object, code: int = 0) -> str:
        return self.command(self.python, "-m", "romfsfs", *words)

    def sh(self, script: str) -> str:
        return self.command("sh", "-euc", script, cwd=self.mnt)


@pytest.fixture
def users(
    as_nobody: tuple[str, ...], python_of: Callable[[tuple[str, ...]], str], fuse_device: None
) -> Iterator[UsersMount]:
    made = UsersMount(memory_folder("romfsfs-users-"), as_nobody, python_of(as_nobody))
    made.run("mount", "--new", made.image, made.mnt, "--board", "OPENMV_AE3")
    yield made
    assert made.complaints() == []
    made.run("umount", made.mnt)
    made.remove()


def test_the_mountpoint_itself(users: UsersMount) -> None:
    """`chmod 0` of it could not be taken back, and no later mount could read the work tree."""
    users.sh("echo hello > f; chmod 0 .; ls; cat f; df .; chmod 755 .; echo more >> f")
    assert users.sh("stat -c %a .; cat f") == "755\nhello\nmore\n"


def test_a_folder_that_is_closed_while_files_in_it_are_open(users: UsersMount) -> None:
    """Their close(2) failed with EACCES, and the log told of an internal error."""
    users.command(users.python, "-c", CLOSES_WHAT_IS_OPEN, cwd=users.mnt)
    assert "closed: no permission to read the folder" in users.run("status", users.mnt)
    users.sh("chmod 700 closed")
    said = users.run("status", users.mnt)
    assert "no permission to read" not in said
    assert "A closed/text" in said


def test_folders_that_keep_their_own_user_out_are_in_nobodys_way(users: UsersMount) -> None:
    """As copied from a read-only place: once committed, or thrown away, they could not be removed,
    and neither unmounting nor any later mount went through."""
    users.sh("mkdir -p ro/in; echo x > ro/in/x; chmod 555 ro/in ro")
    users.run("commit", users.mnt)
    users.run("umount", users.mnt)
    users.run("mount", users.image, users.mnt)
    assert users.sh("cat ro/in/x") == "x\n"
    users.sh("mkdir closed; echo x > closed/x; chmod 0 closed; chmod 555 ro")
    users.run("umount", "--discard", users.mnt)
    users.run("mount", users.image, users.mnt)
    assert users.sh("ls") == "ro\n"


def test_a_folder_that_may_be_listed_and_not_entered(users: UsersMount) -> None:
    """`chmod -R 644` makes such: no status, no unmounting, no mount, and no list of sessions."""
    users.sh("mkdir d z; echo x > d/x; echo z > z/z; chmod 644 d")
    said = users.run("status", users.mnt)
    assert "d: no permission to read the folder" in said
    assert "A z/z" in said
    assert "changes kept" in users.run("umount", users.mnt)
    assert "edits" in users.run("sessions")
    users.run("mount", users.image, users.mnt)
    users.sh("chmod 755 d")
    users.run("commit", users.mnt)


def test_a_closed_folder_that_is_never_packed(users: UsersMount) -> None:
    """A tree follows to an image that changed elsewhere around what it cannot look into."""
    users.run("commit", users.mnt)
    users.sh("mkdir -p .git/closed; echo x > .git/closed/x; chmod 0 .git/closed")
    users.run("umount", users.mnt)
    users.image.write_bytes(encode({"z": b"z"}))
    users.run("mount", users.image, users.mnt)
    assert users.sh("cat z; chmod u+rwx .git/closed; cat .git/closed/x") == "zx\n"


def test_a_file_that_is_closed(users: UsersMount) -> None:
    """The status went on as if nothing had been opened again."""
    users.sh("echo 'print(1)' > a.py; mkdir d; echo x > d/b; chmod 0 a.py d/b")
    said = users.run("status", users.mnt)
    assert "error: 2 files (a.py, d/b): cannot be read" in " ".join(said.split())
    users.sh("chmod 600 a.py; exec 3< a.py; chmod 200 a.py; chmod 644 d/b")
    said = users.run("status", users.mnt)
    assert "a.py: cannot be read" in said
    assert "d/b: cannot be read" not in said
    users.sh("chmod 600 a.py")
    assert "cannot be read" not in users.run("status", users.mnt)
