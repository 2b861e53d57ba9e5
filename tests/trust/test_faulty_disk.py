"""A disk that fails once, at any change or any reading of the daemon's: the program that asked is
told, what was there before or what it asked for is there, and the mount goes on.

The same steps are done in the mount and in a plain directory; `faults.c` in the daemon fails at
its first, second, third... system call.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import mmap
import os
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from processes import until
from real_mount import LONG, ROUND, RealMount, compiled
from twin_trees import answer

pytestmark = [pytest.mark.timeout(3600 if LONG else 300), pytest.mark.program("cc")]

Tree = dict[str, bytes | None]

RENAME_EXCHANGE = 2
_LIBC = ctypes.CDLL(None, use_errno=True)


class Faults:
    """What `faults.c` fails at, in the processes that are started with `env`."""

    def __init__(self, folder: Path, below: Path) -> None:
        control = folder / "plan"
        control.write_bytes(bytes(20))
        with control.open("r+b") as file:
            self._plan = mmap.mmap(file.fileno(), 20)
        self.env = {
            "LD_PRELOAD": str(compiled("faults", folder)),
            "FAULTS_CONTROL": str(control),
            "FAULTS_BELOW": str(below),
        }

    @contextlib.contextmanager
    def meets(self, place: RealMount) -> Iterator[None]:
        """What is started for a place is hurt, when the time comes."""
        env = place.env
        place.env = {**env, **self.env}
        try:
            yield
        finally:
            place.env = env

    def arm(self, at: int, reads: bool) -> None:
        """Fail with EIO at the `at`-th change, or reading, from now on; 0: never."""
        self._plan[:] = struct.pack("5i", 0, at, 0, errno.EIO, reads)

    @property
    def count(self) -> int:
        return int(struct.unpack_from("i", self._plan)[0])


class Side:
    """The mount, or the plain directory: where the steps are done, and what is open there."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.fd = -1

    def tree(self) -> Tree:
        found: Tree = {}
        for folder, folders, files in os.walk(self.root, onerror=_raise):
            for name in folders:
                found[os.path.relpath(os.path.join(folder, name), self.root)] = None
            for name in files:
                path = os.path.join(folder, name)
                found[os.path.relpath(path, self.root)] = Path(path).read_bytes()
        return found

    def close(self) -> None:
        if self.fd >= 0:
            fd, self.fd = self.fd, -1
            os.close(fd)


def _raise(error: OSError) -> None:
    raise error


def _open(path: str, flags: int) -> Callable[[Side], object]:
    def step(side: Side) -> None:
        side.fd = os.open(side.root / path, flags, 0o640)

    return step


def _with_fd(call: Callable[[int], object]) -> Callable[[Side], object]:
    return lambda side: call(side.fd) if side.fd >= 0 else None


def _exchange(side: Side) -> None:
    one, other = (os.fsencode(side.root / name) for name in ("a.txt", "d"))
    if _LIBC.renameat2(-100, one, -100, other, RENAME_EXCHANGE) != 0:
        raise OSError(ctypes.get_errno(), "renameat2")


def _commit(side: Side) -> None:
    ctl = side.root / ".romfs/ctl"
    if os.path.lexists(ctl):  # in the mount
        ctl.write_text("commit\n")


def _status(side: Side) -> None:
    os.statvfs(side.root)
    status = side.root / ".romfs/status"
    if os.path.lexists(status):
        status.read_bytes()


_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL

#: What a failing disk may be answered with; libfuse says EBUSY where it cannot look for a free name
#: for a file that is removed while it is open.
REFUSED = ("EIO", "EBUSY")

#: One system call each, as far as the tree is concerned.
STEPS: list[Callable[[Side], object]] = [
    _open("a.txt", _NEW),
    _with_fd(lambda fd: os.write(fd, b"first\n")),
    _with_fd(os.fsync),
    _with_fd(lambda fd: os.ftruncate(fd, 3)),
    _with_fd(lambda fd: os.posix_fallocate(fd, 0, 5000)),
    _with_fd(lambda fd: os.fchmod(fd, 0o600)),
    Side.close,
    _open("app.py", _NEW),
    _with_fd(lambda fd: os.write(fd, b"x = 1\n")),
    Side.close,
    _open("a.txt", os.O_WRONLY | os.O_TRUNC),
    _with_fd(lambda fd: os.write(fd, bytes(100_000))),
    Side.close,
    lambda side: os.truncate(side.root / "a.txt", 50_000),
    lambda side: os.utime(side.root / "a.txt", (5, 5)),
    lambda side: os.chmod(side.root / "a.txt", 0o755),
    _status,
    _commit,
    lambda side: os.mkdir(side.root / "d", 0o700),
    _open("d/b.txt", _NEW),
    _with_fd(lambda fd: os.write(fd, b"bb")),
    lambda side: os.rename(side.root / "d/b.txt", side.root / "d/c.txt"),
    _with_fd(lambda fd: os.write(fd, b"bb")),
    lambda side: os.unlink(side.root / "d/c.txt"),
    _with_fd(lambda fd: os.pread(fd, 10, 0)),
    Side.close,
    _exchange,
    _exchange,
    lambda side: os.mknod(side.root / "d/n"),
    lambda side: os.rename(side.root / "app.py", side.root / "d/n"),
    lambda side: os.listdir(side.root / "d"),
    lambda side: os.rename(side.root / "d/n", side.root / "app.py"),
    lambda side: os.rmdir(side.root / "d"),
    lambda side: (side.root / "a.txt").read_bytes(),
]


Record = Callable[[str, object], None]


def _places(count: int, every: int) -> range:
    """Which of so many places are tried: all in a long run, every so many-th in a short one."""
    every = LONG or every
    return range(1 + ROUND % every, count + 1, every)


KINDS = pytest.mark.parametrize("reads", [False, True], ids=["changes", "readings"])


@KINDS
def test_the_daemon_goes_on(
    place: RealMount, tmp_path: Path, reads: bool, record_property: Record
) -> None:
    fault = Faults(tmp_path, place.base)
    with fault.meets(place):
        place.mount()
    fault.arm(0, reads)
    count = max(_round(fault, place, tmp_path / "twin", 0, reads) for _ in range(2))
    descriptors = place.descriptors()
    tried = _places(count, 13)
    for at in tried:
        _round(fault, place, tmp_path / "twin", at, reads)
    until(lambda: place.descriptors() <= descriptors)
    assert "Traceback" not in place.log()
    until(lambda: not list(place.session.glob("hidden/*")))
    place.umount()
    record_property("places_refused_at", len(tried))


@KINDS
def test_a_mount_comes_or_says_why(
    make_mount: Callable[..., RealMount], tmp_path: Path, reads: bool, record_property: Record
) -> None:
    """With edits that were kept, and without; never half a mount, and never a wait for ever."""
    place = make_mount()
    fault = Faults(tmp_path, place.base)
    place.mount()
    (place.mnt / "kept.txt").write_text("kept")
    (place.mnt / "app.py").write_text("x = 1\n")
    place.run("commit", place.mnt)
    (place.mnt / "edit.txt").write_text("edit")
    place.umount()
    tried = []
    for edited in (True, False):
        count = _mount_hurt(fault, place, 0, reads, edited)
        tried += [(edited, at) for at in _places(count, 83)]
    for edited, at in tried:
        if not edited and place.work.exists():
            place.run("commit", place.image)
        _mount_hurt(fault, place, at, reads, edited)
    record_property("places_refused_at", len(tried))


def _mount_hurt(fault: Faults, place: RealMount, at: int, reads: bool, edited: bool) -> int:
    fault.arm(at, reads)
    with fault.meets(place):
        done = place.try_run("mount", place.image, place.mnt)
    count = fault.count
    fault.arm(0, reads)
    said = done.stderr
    assert "Traceback" not in said, (at, said)
    if done.returncode:
        (line,) = [line for line in said.splitlines() if line.startswith("romfsfs: error: ")]
        assert "; " in line, (at, line)
        assert not place.is_mounted, (at, said)
        place.mount()
    names = {"app.py", "kept.txt"} | ({"edit.txt"} if edited else set())
    assert set(os.listdir(place.mnt)) >= names, at
    assert (place.mnt / "app.py").read_text() == "x = 1\n", at
    place.umount()
    return count


def _round(fault: Faults, place: RealMount, plain: Path, at: int, reads: bool) -> int:
    """All steps, with a fault at the `at`-th place; how many places there are."""
    plain.mkdir()
    mount, twin, disk = Side(place.mnt), Side(plain), Side(place.work)
    fault.arm(at, reads)
    for number, step in enumerate(STEPS):
        before = disk.tree()
        here, there = answer(step, mount), None
        if step is _exchange and here == "EINVAL":
            continue  # libfuse 2 has no such call
        refused = here in REFUSED
        if not refused:
            there = answer(step, twin)
        elif disk.tree() != before:  # done, although it did not say so
            answer(step, twin)
        same = here == there or isinstance(here, list) or refused
        assert same, (at, number, here, there)
    seen = fault.count
    fault.arm(0, False)
    mount.close()
    twin.close()
    assert mount.tree() == disk.tree() == twin.tree(), at
    assert answer(_commit, mount) is None, (at, place.log()[-1500:])
    stored = {name: data for name, data in place.stored().items() if name != "app.mpy"}
    expected_tree = {name: data for name, data in twin.tree().items() if name != "app.py"}
    assert stored == expected_tree, at
    shutil.rmtree(plain)
    for name in os.listdir(place.mnt):
        path = place.mnt / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return seen
