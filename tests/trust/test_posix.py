"""POSIX conformance: a mount answers as the plain directory behind it would, errno for errno.

The cases are in `conformance/`; the yardstick is the same cases in a plain directory of the same
file system, by the same user. pjdfstest itself cannot be pointed at a user's mount (it needs
root and changes users) and makes links and devices for most of what it asks, so there are cases of
our own for what each of its files asks about; not for BSD's flags and access lists. The same of
xfstests' generic group, as far as it asks about files and folders: not about disks that are made,
frozen or cut off, links, devices, quotas, access lists, shared extents, encryption or swap.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import shutil
import subprocess
import sys
import zipapp
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import needs
import pytest
from real_mount import RealMount, memory_folder, remove_tree

SECONDS = 290
CASES = Path(__file__).with_name("conformance")

#: What a file system says that does not have what was asked for.
DECLINED = {"EPERM", "ENOTSUP", "EOPNOTSUPP"}
OPTIONAL = {*DECLINED, "EINVAL", "EISDIR"}  # O_TMPFILE where it is not known looks like a folder

#: Where the answer differs all the same, and why nothing here can mend it.
KNOWN = {
    # Whatever FUSE serves may be waited for, says the kernel; a file is ready at once anyway.
    "waiting_for_a_file: epoll",
    # libfuse finds no path for what was left open in a folder that is gone, and the kernel asks
    # for attributes by path. Content can be read and written (`unlink_and_folders` does).
    "unlink_and_folders: fchmod",
    "unlink_and_folders: fstat",
    "a_removed_folder: list it",
    "a_removed_folder: fstat",
    # Who names no owner and no group changes nothing that FUSE could tell us of. POSIX lets a
    # file system leave the times alone then.
    "chown_of_set_id: chown of [False, False]: times of f",
    "chown_of_set_id: chown of [False, False]: times of d",
    # Opening and cutting is one request, so that a save is not converted empty first; and only
    # after it does the kernel look whether the file runs, if it was opened for reading.
    "a_program_that_runs: cut by a reader",
    "a_program_that_runs: size after that",
    # The kernel has the bits cleared, and only then hears that the disk cannot do that.
    "set_id_bits_and_space: ?zero: mode",
    # The kernel answers 0, "a hole", for all that FUSE serves from no disk of its own.
    "requests_for_files: map of blocks",
    # libfuse offers handles, and for one of a file that has gone it finds nothing; not stale.
    "opened_by_handle: gone",
}
if not needs.LINUX:  # there is no path to truncate an open file by, and ftruncate(2) sets the times
    KNOWN.add("truncate: truncate to the same: times of f")

#: The same where an ordinary user's daemon serves: it may do no more than its user.
KNOWN_OF_USERS = KNOWN | {
    # Running a program means reading it to the kernel, and to the daemon reading needs the bit.
    "programs_and_scripts: true 111",
    "programs_and_scripts: script 111",
    # The kernel asks for the set-id bits to be cleared. This daemon may not change the mode of
    # another user's file; there are none but those that this test has put into the work tree.
    "foreign_groups_and_bits: write to another's set-id file",
    "foreign_groups_and_bits: its mode after a write",
    "foreign_groups_and_bits: truncate another's",
    "foreign_groups_and_bits: its mode after a truncate",
} | {
    # What the daemon's own umask took away it gives back with chmod(2), and that takes the
    # set-group-id bit from who is not in the group: again only where this test has put a folder.
    f"made_where_another_group_owns: group/{made} as made"
    for made in ("folder2775", "folder6777", "folder2664", "folder1777", "file2664", "node2664")
}  # fmt: skip

Answers = dict[str, list[list[Any]]]


def run(*words: object) -> str:
    done = subprocess.run(
        [str(word) for word in words], stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def program() -> Iterator[Path]:
    """The cases as one file that any user may read: the checkout may be out of his reach."""
    folder = memory_folder("romfsfs-cases-")
    folder.chmod(0o755)
    zipapp.create_archive(CASES, folder / "cases.pyz", filter=lambda path: path.suffix == ".py")
    yield folder / "cases.pyz"
    shutil.rmtree(folder)


@dataclass
class Question:
    """Who asks, with which program."""

    program: Path
    prefix: tuple[str, ...] = ()
    python: str = sys.executable

    def ask(self, folder: Path, *options: str) -> Answers:
        found: Answers = json.loads(run(*self.prefix, self.python, self.program, *options, folder))
        for case, answers in found.items():
            # What comes after would be compared with nothing, on both sides.
            assert dict(map(tuple, answers)).get("the case itself") is None, (case, answers[-1])  # type: ignore[arg-type]
        return found

    def both(self, mount: Path, plain: Path) -> tuple[Answers, Answers]:
        """The answers of both, asked at the same time."""
        with ThreadPoolExecutor(1) as beside:
            expected = beside.submit(self.ask, plain)
            return self.ask(mount), expected.result()


def differences(got: Answers, expected: Answers, known: set[str] = KNOWN) -> list[str]:
    """Each answer that is neither the plain directory's nor an allowed way to decline."""
    found = []
    for case, theirs in expected.items():
        mine = got[case]
        declined = False  # something that the plain directory did
        for number, (what, right) in enumerate(theirs):
            if number >= len(mine):
                found.append(f"{case}: it ended before {what!r}")
                break
            said, answer = mine[number]
            assert said == what or case != said, (case, what, said)
            allowed = OPTIONAL if what[0] == "~" else set()
            if what[0] == "!" and right not in errno.errorcode.values():
                allowed = DECLINED  # and where it would fail anyway, for the same reason
            if what[0] in "~!":
                declined = declined or answer != right
            if (
                answer == right
                or (what[0] == "?" and declined)
                or (isinstance(answer, str) and answer in allowed)
            ):
                continue
            if f"{case}: {what}" in known:
                continue
            found.append(f"{case}: {what}: {answer} instead of {right}")
        if len(mine) > len(theirs):
            found.append(f"{case}: {mine[len(theirs)]} too many")
    return found


class Comparison(Protocol):
    def __call__(self, got: Answers, expected: Answers, known: set[str] = KNOWN) -> None: ...


@pytest.fixture
def compare(record_property: Callable[[str, object], None]) -> Comparison:
    """Fails with each answer that differs, and counts those compared."""

    def judge(got: Answers, expected: Answers, known: set[str] = KNOWN) -> None:
        found = differences(got, expected, known)
        assert not found, "\n".join(found)
        record_property("posix_cases", len(expected))
        record_property("posix_answers", sum(map(len, expected.values())))

    return judge


@pytest.fixture
def plain() -> Iterator[Path]:
    folder = memory_folder("romfsfs-plain-")
    yield folder
    remove_tree(folder)


def test_as_who_mounted_it(
    mounted: RealMount, plain: Path, program: Path, compare: Comparison
) -> None:
    got, expected = Question(program).both(mounted.mnt, plain)
    assert len(expected) >= 30
    compare(got, expected, KNOWN if os.geteuid() == 0 else KNOWN_OF_USERS)
    # It would leave a device where the file was.
    assert dict(got["rename_flags"])["~whiteout"] == "EINVAL"  # type: ignore[arg-type]
    links = dict(got["links_and_devices"])  # type: ignore[arg-type]
    refused = {what: answer for what, answer in links.items() if what[0] == "!"}
    assert set(refused.values()) <= {*DECLINED, "EEXIST", "ENOENT"}, refused
    assert {refused[what] for what in ("!symlink", "!link", "!fifo", "!device")} == {"EPERM"}


def refused_with(call: Callable[..., Any], *args: Any, **options: Any) -> str:
    try:
        call(*args, **options)
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "no error"


def test_the_mountpoint(mounted: RealMount) -> None:
    """What is where two file systems meet, which no plain directory can show."""
    root, outside = mounted.mnt, mounted.base
    (root / "f").write_bytes(b"inside")
    (root / "d").mkdir()
    (outside / "g").write_bytes(b"outside")
    (outside / "d").mkdir()
    busy, across = {"EBUSY", "EINVAL"}, {"EXDEV"}
    for call, args, allowed in (
        (os.rmdir, (root,), busy), (os.rmdir, (f"{root}/.",), busy),
        (os.rename, (root, outside / "x"), busy), (os.rename, (outside / "d", root), busy),
        (os.rename, (f"{root}/.", root / "d/x"), busy),
        (os.rename, (root / "d", f"{root}/."), busy),
        (os.rename, (root, root / "d/x"), across), (os.rename, (root / "f", root), across),
        (os.rename, (root / "f", outside / "f"), across),
        (os.rename, (root / "d", outside / "e"), across),
        (os.rename, (outside / "g", root / "g"), across),
        (os.link, (root / "f", outside / "f"), across),
        (os.link, (outside / "g", root / "g"), across),
        (os.rename, (outside / "g", root), {"EISDIR"}), (os.unlink, (root,), {"EISDIR"}),
        (os.truncate, (root, 0), {"EISDIR"}), (os.open, (root, os.O_WRONLY), {"EISDIR"}),
        (os.open, (root, os.O_CREAT | os.O_RDONLY), {"EISDIR"}), (os.mkdir, (root,), {"EEXIST"}),
    ):  # fmt: skip
        answer = refused_with(call, *args)
        assert answer in allowed, (call.__name__, args, answer)
    assert os.stat(root).st_dev == os.stat(root / "d").st_dev != os.stat(outside).st_dev
    how = (8 | 1).to_bytes(8, "little")  # below, and on the same mount
    folder = os.open(outside, os.O_PATH)
    request = bytes(16) + how
    crossing = ctypes.CDLL(None, use_errno=True).syscall(437, folder, b"mnt/f", request, 24)
    assert (crossing, errno.errorcode[ctypes.get_errno()]) == (-1, "EXDEV")
    os.close(folder)
    assert sorted(os.listdir(root)) == ["d", "f"]
    assert (root / "f").read_bytes() == b"inside"
    assert (outside / "g").read_bytes() == b"outside"
    for call, *args in ((os.chmod, root, 0o750), (os.utime, root, (1, 2))):
        call(*args)
    found = os.stat(root)
    assert (found.st_mode & 0o777, found.st_atime, found.st_mtime) == (0o750, 1, 2)


def test_read_only(place: RealMount, plain: Path, program: Path, compare: Comparison) -> None:
    """The yardstick is the plain directory once more, mounted over itself in a namespace."""
    prefix = _read_only(plain)
    plain.chmod(0o755)  # as a mount shows itself
    place.mount()
    for folder in (place.mnt, plain):
        run(sys.executable, program, "--prepare-read-only", folder)
    place.umount()
    place.mount("--read-only")
    got = Question(program).ask(place.mnt, "--read-only")
    expected = Question(program, prefix).ask(plain, "--read-only")
    assert dict(expected["read_only"])["mkdir 'new'"] == "EROFS"  # type: ignore[arg-type]
    compare(got, expected)
    assert place.complaints() == []
    place.umount()


def _read_only(folder: Path) -> tuple[str, ...]:
    """What to put before a command for whom this folder is to be mounted read-only."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a plain directory read-only")
    # Its copies of others' mounts would keep those, and their daemons, alive.
    script = "umount -a -l -t fuse,fuse.romfsfs 2>/dev/null; "
    script += 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"'
    return "unshare", "--mount", "sh", "-c", script, str(folder)


def test_as_an_ordinary_user(
    users_place: Any, plain: Path, program: Path, compare: Comparison
) -> None:
    """All that permissions decide; the user's own mount."""
    _prepare(program, plain)
    users_place.work.mkdir()
    os.chown(users_place.work, 65534, 65534)
    _prepare(program, users_place.work)
    users_place.mount()
    _own(plain)
    who = Question(program, users_place.prefix, users_place.python)
    got, expected = who.both(users_place.mnt, plain)
    assert dict(expected["foreign_files"])["sticky: unlink"] == "EPERM"  # type: ignore[arg-type]
    compare(got, expected, KNOWN_OF_USERS)


def test_as_an_ordinary_user_on_roots_mount(
    place: RealMount, plain: Path, program: Path, nobody: tuple[str, ...],
    python_of: Callable[..., str], compare: Comparison,
) -> None:  # fmt: skip
    """A mount by root for everyone: the kernel checks permissions, files are their maker's."""
    place.base.chmod(0o755)
    place.mount("--allow-other")
    _prepare(program, plain)
    _prepare(program, place.mnt)
    place.mnt.chmod(0o777)
    _own(plain)
    who = Question(program, nobody, python_of(nobody))
    got, expected = who.both(place.mnt, plain)
    compare(got, expected)
    assert place.complaints() == []
    place.umount()


def _prepare(program: Path, folder: Path) -> None:
    run(sys.executable, program, "--prepare", folder)


def _own(folder: Path) -> None:
    folder.chmod(0o755)
    os.chown(folder, 65534, 65534)
