"""POSIX conformance: a mount answers as the plain directory behind it would, errno for errno.

The cases are in `conformance/`; the yardstick is the same cases in a plain directory of the same
file system, by the same user. pjdfstest itself cannot be pointed at a user's mount (it needs
root and changes users), so its chapters are cases of our own.
"""

from __future__ import annotations

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
from typing import Any

import pytest
from real_mount import RealMount, memory_folder

SECONDS = 110
CASES = Path(__file__).with_name("conformance")

#: What a file system says that does not have what was asked for.
DECLINED = {"EPERM", "ENOTSUP", "EOPNOTSUPP"}
OPTIONAL = {*DECLINED, "EINVAL", "EISDIR"}  # O_TMPFILE where it is not known looks like a folder

#: Where the answer differs all the same, and why nothing here can mend it.
KNOWN = {
    # libfuse finds no path for what was left open in a folder that is gone, and the kernel asks
    # for attributes by path. Content can be read and written (`unlink_and_folders` does).
    "unlink_and_folders: fchmod",
    "unlink_and_folders: fstat",
    "a_removed_folder: list it",
    "a_removed_folder: fstat",
}

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

    def ask(self, folder: Path) -> Answers:
        found: Answers = json.loads(run(*self.prefix, self.python, self.program, folder))
        return found

    def both(self, mount: Path, plain: Path) -> tuple[Answers, Answers]:
        """The answers of both, asked at the same time."""
        with ThreadPoolExecutor(1) as beside:
            expected = beside.submit(self.ask, plain)
            return self.ask(mount), expected.result()


def differences(got: Answers, expected: Answers) -> list[str]:
    """Each answer that is neither the plain directory's nor an allowed way to decline."""
    found = []
    for case, theirs in expected.items():
        mine = got[case]
        for number, (what, right) in enumerate(theirs):
            if number >= len(mine):
                found.append(f"{case}: it ended before {what!r}")
                break
            said, answer = mine[number]
            assert said == what or case != said, (case, what, said)
            allowed = DECLINED if what[0] == "!" else OPTIONAL if what[0] == "~" else set()
            if answer == right or (isinstance(answer, str) and answer in allowed):
                continue
            if what == "~both files" or f"{case}: {what}" in KNOWN:
                continue
            found.append(f"{case}: {what}: {answer} instead of {right}")
        if len(mine) > len(theirs):
            found.append(f"{case}: {mine[len(theirs)]} too many")
    return found


@pytest.fixture
def plain() -> Iterator[Path]:
    folder = memory_folder("romfsfs-plain-")
    yield folder
    run("rm", "-rf", folder)  # shutil.rmtree cannot remove paths near PATH_MAX


def test_as_who_mounted_it(mounted: RealMount, plain: Path, program: Path) -> None:
    got, expected = Question(program).both(mounted.mnt, plain)
    assert len(expected) >= 30
    found = differences(got, expected)
    assert not found, "\n".join(found)
    links = dict(got["links_and_devices"])  # type: ignore[arg-type]
    refused = {what: answer for what, answer in links.items() if what[0] == "!"}
    assert set(refused.values()) <= {*DECLINED, "EEXIST", "ENOENT"}, refused
    assert {refused[what] for what in ("!symlink", "!link", "!fifo", "!device")} == {"EPERM"}


def test_as_an_ordinary_user(users_place: Any, plain: Path, program: Path) -> None:
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
    found = differences(got, expected)
    assert not found, "\n".join(found)


def test_as_an_ordinary_user_on_roots_mount(
    place: RealMount, plain: Path, program: Path, as_nobody: tuple[str, ...],
    python_of: Callable[..., str],
) -> None:  # fmt: skip
    """A mount by root for everyone: the kernel checks permissions, files are their maker's."""
    place.base.chmod(0o755)
    place.mount("--allow-other")
    _prepare(program, plain)
    _prepare(program, place.mnt)
    place.mnt.chmod(0o777)
    _own(plain)
    who = Question(program, as_nobody, python_of(as_nobody))
    got, expected = who.both(place.mnt, plain)
    found = differences(got, expected)
    assert not found, "\n".join(found)
    assert place.complaints() == []
    place.umount()


def _prepare(program: Path, folder: Path) -> None:
    run(sys.executable, program, "--prepare", folder)


def _own(folder: Path) -> None:
    folder.chmod(0o755)
    os.chown(folder, 65534, 65534)
