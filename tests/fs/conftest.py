"""Real mounts of a fake host, on both bindings, as root and as an ordinary user.

A mount's log must stay empty but for the lines a test expects, its daemon must end when it is
unmounted, and nothing may stay mounted.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import fuse
import needs
import pytest

from romfsfs.fs.request_loop import END, NUDGE

pytest.register_assert_rewrite("mounts")

from mounts import Mounted  # noqa: E402
from processes import SECONDS  # noqa: E402

NOBODY = 65534
#: fusepy needs libfuse 2; without it, libfuse 3 alone is tried
BINDINGS = ["fusepy", "mfusepy"] if needs.libfuse(2) else ["mfusepy"]


@pytest.fixture(params=BINDINGS)
def binding(request: pytest.FixtureRequest, fuse_device: None) -> str:
    if sys.platform != "linux":
        pytest.skip("mounts of these tests are watched through /proc, which is Linux's")
    return str(request.param)


@pytest.fixture
def signals() -> Iterator[None]:
    """The handlers that a mount sets are afterwards as they were."""
    before = {number: signal.getsignal(number) for number in (*END, NUDGE)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def _place() -> Path:
    # A file system in memory where there is one: what is tested is not the disk.
    memory = Path("/dev/shm")
    where = memory if os.access(memory, os.W_OK) else None
    base = Path(tempfile.mkdtemp(prefix="romfsfs-test-", dir=where))
    base.chmod(0o755)
    return base


def _clean(base: Path, prefix: tuple[str, ...] = ()) -> None:
    subprocess.run(
        [*prefix, "fusermount3", "-uz", str(base / "mnt")],
        stderr=subprocess.DEVNULL, check=False, timeout=SECONDS,
    )  # fmt: skip
    subprocess.run(["chmod", "-R", "u+rwX", base], check=True, timeout=SECONDS)
    shutil.rmtree(base)


@pytest.fixture
def place(binding: str) -> Iterator[Mounted]:
    """A place to mount for the user who runs the tests; nothing is mounted yet."""
    base = _place()
    mounted = Mounted(base, binding)
    try:
        yield mounted
        mounted.finish()
    finally:
        _clean(base)


@pytest.fixture
def mounted(place: Mounted) -> Mounted:
    """A mount."""
    return place.mount()


@pytest.fixture(scope="session")
def nobody() -> tuple[str, ...]:
    """What to put before a command to run it as an ordinary user."""
    if os.geteuid() != 0:
        pytest.skip("only root can run a test as another user; the others run as you")
    ids = f"--reuid={NOBODY}", f"--regid={NOBODY}"
    packages = Path(fuse.__file__).parent
    return ("setpriv", *ids, "--clear-groups", "env", "HOME=/tmp", f"PYTHONPATH={packages}")


@pytest.fixture(scope="session")
def as_nobody(nobody: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """What to put before a command to run it as an ordinary user who may mount.

    /dev/fuse is for everyone on a usual system. Where it is root's alone, these commands see a
    device of their own, in a mount namespace that ends with the tests; what root mounts after that
    may be out of their sight, where mounts are not shared.
    """
    if os.stat("/dev/fuse").st_mode & 0o006 == 0o006:
        yield nobody
        return
    # Its copies of others' mounts would keep those, and their daemons, alive.
    script = """
        umount -a -l -t fuse,fuse.romfsfs
        mount -t tmpfs -o mode=755 none /mnt && mknod /mnt/fuse c 10 229 && chmod 666 /mnt/fuse &&
        mount --bind /mnt/fuse /dev/fuse && umount -l /mnt && echo ready && exec sleep 3600
    """
    holder = subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", script], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "ready\n"
        yield ("nsenter", f"--target={holder.pid}", "--mount", "--", *nobody)
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()


def _python_for(prefix: tuple[str, ...]) -> str:
    """An interpreter that this user may run: ours may be in root's home. fuse needs no more."""
    for python in (sys.executable, "/usr/bin/python3"):
        command = [*prefix, python, "-c", "import fuse, mfusepy, logging, tempfile"]
        if subprocess.run(command, stderr=subprocess.DEVNULL, timeout=SECONDS).returncode == 0:
            return python
    pytest.skip(
        "an ordinary user can run no Python here: ours is out of his reach, no other is there"
    )


@pytest.fixture
def users_place(binding: str, as_nobody: tuple[str, ...]) -> Iterator[Mounted]:
    """A place to mount for an ordinary user; only `run` and `sh` can look into it."""
    base = _place()
    mounted = Mounted(base, binding, as_nobody)
    mounted.python = _python_for(as_nobody)
    for path in (base, mounted.state, mounted.mnt):
        os.chown(path, NOBODY, NOBODY)
    try:
        yield mounted
        mounted.finish()
    finally:
        _clean(base, as_nobody)


@pytest.fixture(params=["own user", "ordinary user"])
def users_mount(request: pytest.FixtureRequest, binding: str) -> Mounted:
    """A mount by who runs the tests, and one by an ordinary user; for `sh` only."""
    name = "place" if request.param == "own user" else "users_place"
    place: Mounted = request.getfixturevalue(name)
    return place.mount()
