"""Random operations on a mount and on a plain directory: trees, contents, errors, times agree.

Beside what programs do (several handles, renames over, unlinked open files), the mount is
committed, unmounted and mounted again, and its daemon killed. After each commit the image is
what the shadow tree showed, and what the plain directory holds.

`$ROMFSFS_LONG` is the number of examples of a long run.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from real_mount import LONG, RealMount, image_tree, memory_folder, remove_tree
from twin_trees import Trees, Twin, answer, settled_shadow

from romfsfs.image.writer import encode

EXAMPLES = LONG or 6
STEPS = 100 if LONG else 50

# Few names, so that operations meet. `s.py` is converted, `k~` is never packed.
NAMES = st.sampled_from(["a", "b", "d", "s.py", "k~"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
DATA = st.sampled_from([b"", b"x = 1\n", b"y = 2\n" * 3, b"z" * 5000, b"#" + b"." * 70_000 + b"\n"])
OFFSETS = st.sampled_from([0, 1, 6, 4095, 4096, 70_000, 200_000])
TIMES = st.sampled_from([(1, 2), (10**9, 10**9 + 123_456_789), (5, 0)])
MODES = st.sampled_from([0o644, 0o600, 0o755, 0o444, 0o4755, 0o1777])
FLAGS = st.sampled_from(
    [
        os.O_RDONLY, os.O_RDWR, os.O_WRONLY | os.O_APPEND, os.O_RDWR | os.O_CREAT,
        os.O_RDWR | os.O_CREAT | os.O_EXCL, os.O_WRONLY | os.O_CREAT | os.O_TRUNC,
        os.O_RDWR | os.O_TRUNC, os.O_RDONLY | os.O_DIRECTORY,
    ]
)  # fmt: skip


class Model(RuleBasedStateMachine):
    """In a short run one mount serves all examples: what one leaves in the session is the next
    one's past. In a long run each starts anew, so that a failing one can be made smaller."""

    place: RealMount
    trees: Trees
    counts: dict[str, int]
    failed: list[BaseException]

    def __init__(self) -> None:
        super().__init__()
        self.open: list[Twin] = []
        if self.failed:
            raise self.failed[0]
        if LONG:
            self.start_anew()
        self.trees.clear()
        for path in ("a", "a/b", "d"):
            self.trees.both(os.mkdir, path)
        for path in ("a/a", "d/s.py", "b", "k~"):
            self.trees.both(Path.write_bytes, path, data=b"x = 1\n")

    def start_anew(self) -> None:
        if self.place.is_mounted:
            self.place.run("umount", self.place.mnt, "--discard")
        remove_tree(self.place.base / "state")
        self.place.image.write_bytes(encode({}))
        self.place.mount()

    def teardown(self) -> None:
        error = sys.exc_info()[1]  # of the step that just failed
        if isinstance(error, AssertionError | OSError) and not LONG:
            self.failed.append(error)
            print("\n".join([*self.trees.history, *self.place.log().splitlines()[-30:]]))
        self.close_all()

    def close_all(self) -> None:
        while self.open:
            self.open.pop().close()

    # -- names

    @rule(path=PATHS)
    def mkdir(self, path: str) -> None:
        self.trees.both(os.mkdir, path)

    @rule(path=PATHS)
    def rmdir(self, path: str) -> None:
        self.trees.both(os.rmdir, path)

    @rule(path=PATHS)
    def unlink(self, path: str) -> None:
        self.trees.both(os.unlink, path)

    @rule(old=PATHS, new=PATHS)
    def rename(self, old: str, new: str) -> None:
        self.trees.both(os.rename, old, new)

    @rule(old=NAMES, new=NAMES)
    def rename_at_the_top(self, old: str, new: str) -> None:
        self.trees.both(os.rename, old, new)

    @rule(path=PATHS)
    def link(self, path: str) -> None:
        if not (self.trees.plain / path).exists() and (self.trees.plain / path).parent.is_dir():
            assert answer(os.symlink, "a", self.trees.mount / path) == "EPERM"
            assert answer(os.mkfifo, self.trees.mount / path) == "EPERM"

    # -- content

    @rule(path=PATHS, data=DATA)
    def save(self, path: str, data: bytes) -> None:
        self.trees.both(Path.write_bytes, path, data=data)

    @rule(path=PATHS, data=DATA)
    def save_by_rename(self, path: str, data: bytes) -> None:
        folder = path.rpartition("/")[0]
        temporary = f"{folder}/.goutputstream-X" if folder else ".goutputstream-X"
        if isinstance(self.trees.both(Path.write_bytes, temporary, data=data), int):
            self.trees.both(os.rename, temporary, path)
            answer(os.unlink, self.trees.mount / temporary)
            answer(os.unlink, self.trees.plain / temporary)

    @rule(path=PATHS, data=DATA)
    def append(self, path: str, data: bytes) -> None:
        def add(place: Path) -> None:
            with place.open("ab") as file:
                file.write(data)

        self.trees.both(add, path)

    @rule(path=PATHS, size=OFFSETS)
    def truncate(self, path: str, size: int) -> None:
        plain = self.trees.plain / path
        if not plain.is_file() or plain.stat().st_size != size:  # see KNOWN in test_posix.py
            self.trees.both(os.truncate, path, length=size)

    # -- attributes

    @rule(path=PATHS, mode=MODES)
    def chmod(self, path: str, mode: int) -> None:
        self.trees.both(os.chmod, path, mode=mode)

    @rule(path=PATHS, times=TIMES)
    def utimens(self, path: str, times: tuple[int, int]) -> None:
        if self.trees.both(os.utime, path, ns=times) is None:
            found = os.stat(self.trees.mount / path)
            assert (found.st_atime_ns, found.st_mtime_ns) == times

    # -- open files

    @rule(path=PATHS, flags=FLAGS)
    def open_file(self, path: str, flags: int) -> None:
        twin = self.trees.open(path, flags)
        if twin is not None:
            self.open.append(twin)

    @rule(which=st.integers(0, 9), offset=OFFSETS, data=DATA)
    def write(self, which: int, offset: int, data: bytes) -> None:
        for twin in self.open[which : which + 1]:
            twin.both(os.pwrite, data, offset)

    @rule(which=st.integers(0, 9), offset=OFFSETS, data=DATA)
    def map(self, which: int, offset: int, data: bytes) -> None:
        for twin in self.open[which : which + 1]:
            if data and twin.writable:
                twin.map(offset, data)

    @rule(which=st.integers(0, 9), size=OFFSETS)
    def ftruncate(self, which: int, size: int) -> None:
        for twin in self.open[which : which + 1]:
            twin.both(os.ftruncate, size)

    @rule(which=st.integers(0, 9), offset=OFFSETS)
    def read(self, which: int, offset: int) -> None:
        for twin in self.open[which : which + 1]:
            twin.both(os.pread, 80_000, offset)
            twin.fstat()

    @rule(which=st.integers(0, 9))
    def fsync(self, which: int) -> None:
        for twin in self.open[which : which + 1]:
            twin.both(os.fsync)

    @rule(which=st.integers(0, 9))
    def close(self, which: int) -> None:
        for twin in self.open[which : which + 1]:
            self.open.remove(twin)
            twin.close()

    # -- the mount's life

    @rule()
    def commit_by_control_file(self) -> None:
        self.commit(lambda: (self.place.mnt / ".romfs/ctl").write_text("commit"))

    @rule(what=st.sampled_from(["nothing", "nothing", "commit", "remount", "kill"]))
    def live(self, what: str) -> None:
        if what == "commit":
            self.commit(lambda: self.place.run("commit", self.place.mnt))
        elif what == "remount":
            self.remount()
        elif what == "kill":
            self.kill()
        if what in ("remount", "kill"):
            self.count(what)

    # Not twice in a row: with nothing done between, Hypothesis's simplest example would do no more.
    @precondition(lambda self: [*self.trees.history][-1:] != ["answer"])
    @rule()
    def ask(self) -> None:
        """The daemon, which looks at what was touched, and a command, which looks at everything."""
        if any(twin.writable for twin in self.open):
            return
        settled_shadow(self.place.mnt)
        told = json.loads((self.place.mnt / ".romfs/status.json").read_bytes())
        assert told == json.loads(self.place.run("status", "--json", "-v", self.place.mnt))
        self.count("answer")

    def count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1
        self.trees.history.append(what)

    def commit(self, how: Any) -> None:
        before = self.place.image.read_bytes()
        shadow, failed = settled_shadow(self.place.mnt)
        writing = any(twin.writable and twin.named for twin in self.open)
        if failed or writing:
            with pytest.raises((OSError, AssertionError)):
                how()
            assert self.place.image.read_bytes() == before
            self.count("refused commit")
            return
        how()
        self.count("commit")
        stored = image_tree(self.place.image.read_bytes())
        assert stored == shadow
        self.compare_with_plain(stored)

    def compare_with_plain(self, stored: dict[str, bytes | None]) -> None:
        expected: dict[str, bytes | None] = {}
        for path in sorted(self.trees.plain.rglob("*")):
            name = path.relative_to(self.trees.plain).as_posix()
            if "~" in name or ".goutput" in name:
                continue
            if path.is_dir():
                expected[name] = None
            elif name.endswith(".py"):
                compiled = name.removesuffix("py") + "mpy"
                assert (stored[compiled] or b"").startswith(b"M\x06")
                expected[compiled] = stored[compiled]
            else:
                expected[name] = path.read_bytes()
        assert stored == expected

    def remount(self) -> None:
        self.close_all()
        self.trees.compare(self.place.work)
        self.place.umount()
        if not self.place.work.exists():
            self.trees.forget_attributes()
        self.place.mount()

    def kill(self) -> None:
        self.place.kill()
        for twin in self.open:
            answer(os.close, twin.mine)
            os.close(twin.theirs)
        self.open.clear()
        assert answer(os.listdir, self.place.mnt) in ("ENOTCONN", "ECONNABORTED")
        self.trees.compare(self.place.work)
        self.place.mount()

    @invariant()
    def agree(self) -> None:
        self.trees.compare()


def of_a_refusal(line: str) -> bool:
    """That a script is wrong, that a commit was refused, and that no status can be told of a folder
    that the user may not read, may be said; and a tool's words."""
    said = ("s.py: ", "cannot commit: ", "open for writing: ", "no permission to read the folder: ")
    return line.startswith("    ") or any(words in line for words in said)


@pytest.mark.timeout(300 if not LONG else 24 * 3600)
def test_mount_and_directory_agree(
    place: RealMount, record_property: Callable[[str, object], None]
) -> None:
    place.mount()
    plain = memory_folder("romfsfs-model-")
    trees = Trees(place.mnt, plain)
    counts: dict[str, int] = {}
    failed: list[BaseException] = []
    shared = {"place": place, "trees": trees, "counts": counts, "failed": failed}
    machine = type("Machine", (Model,), shared)
    # Where it fails, a short run says how at once; a long one takes the time to find the core.
    phases = [Phase.generate, Phase.shrink] if LONG else [Phase.generate]
    try:
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=EXAMPLES, stateful_step_count=STEPS, deadline=None, database=None,
                suppress_health_check=list(HealthCheck), phases=phases, derandomize=not LONG,
            ),
        )  # fmt: skip
    except BaseException:
        if failed:
            raise failed[0] from None
        raise
    finally:
        print(f"{trees.done} operations on names and contents, {counts}")
        record_property("examples", EXAMPLES)
        record_property("operations", trees.done)
        for what, times in counts.items():
            record_property(f"{what}s", times)
        remove_tree(plain)
    assert [line for line in place.complaints() if not of_a_refusal(line)] == []
    place.umount()
