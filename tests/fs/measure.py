"""Speed of a mount against the bare fusepy loopback: `python measure.py [ROUNDS [SHARE]]`.

Not a test. Needs root, to empty the kernel's caches. All are mounted at once and take turns at
each task, and the best of each counts, so that what else the machine does weighs little. SHARE
(default 1) scales the sizes down: 0.1 for a quick look. `$TMPDIR` says on which disk.

Prints the loopback's seconds for each task, and this over romfsfs's with each binding: 1.0 is as
fast, more is faster.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

HERE = Path(__file__).parent
MIB = 1 << 20
KINDS = ("loopback", "fusepy", "mfusepy")


def timed(task: Callable[[], object]) -> float:
    start = time.perf_counter()
    task()
    return time.perf_counter() - start


def run(*command: object) -> None:
    subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL)


def drop_caches() -> None:
    Path("/proc/sys/vm/drop_caches").write_text("2")  # names and inodes; needs root


@contextmanager
def mounted(kind: str, base: Path) -> Iterator[tuple[Path, float]]:
    """(mountpoint, seconds until it could be listed)."""
    mnt, state = base / f"mnt-{kind}", base / f"state-{kind}"
    mnt.mkdir(exist_ok=True)
    state.mkdir(exist_ok=True)
    script = HERE / ("loopback.py" if kind == "loopback" else "serve.py")
    device = mnt.stat().st_dev
    environment = {**os.environ, "ROMFSFS_FUSE": kind}
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, script, state, mnt], stdout=subprocess.DEVNULL, env=environment
    )
    while mnt.stat().st_dev == device:
        time.sleep(0.001)
    os.listdir(mnt)
    seconds = time.perf_counter() - start
    try:
        yield mnt, seconds
    finally:
        subprocess.run(["fusermount3", "-u", str(mnt)], check=False)
        process.wait(20)


class Tasks:
    """What is measured, in order: each leaves what the next needs."""

    def __init__(self, base: Path, share: float) -> None:
        self.files = int(20000 * share)
        self.size = max(1, int(256 * share))
        self.tree, self.flat = base / "tree", base / "flat"
        for number in range(self.files):
            if number % 100 == 0:
                folder = self.tree / f"d{number // 100}"
                folder.mkdir(parents=True)
            (folder / f"f{number}.txt").write_text("x" * 50)
        self.flat.mkdir()
        for number in range(self.files // 2):
            (self.flat / f"file{number}.txt").touch()
        self.block = os.urandom(MIB)

    def all(self) -> list[tuple[str, Callable[[Path], object]]]:
        return [
            (f"write {self.size} MiB", self.write),
            (f"read {self.size} MiB", self.read),
            (f"create {self.files // 10}", self.create),
            (f"cp -r {self.files}", lambda mnt: run("cp", "-r", self.tree, mnt / "tree")),
            (f"stat {self.files}", self.stat),
            (f"find {self.files}", lambda mnt: run("find", mnt / "tree")),
            (f"rm -r {self.files}", lambda mnt: run("rm", "-r", mnt / "tree")),
            (f"copy {self.files // 2} flat", lambda mnt: run("cp", "-r", self.flat, mnt / "flat")),
            (f"ls {self.files // 2}", lambda mnt: run("ls", "-U", mnt / "flat")),
            (f"ls -l {self.files // 2}", lambda mnt: run("ls", "-l", mnt / "flat")),
            ("clean up", lambda mnt: run("rm", "-r", mnt / "flat", mnt / "new", mnt / "big")),
        ]

    def write(self, mnt: Path) -> None:
        with (mnt / "big").open("wb", buffering=0) as file:
            for _ in range(self.size):
                file.write(self.block)

    def read(self, mnt: Path) -> None:
        with (mnt / "big").open("rb", buffering=0) as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            while file.read(MIB):
                pass

    def create(self, mnt: Path) -> None:
        (mnt / "new").mkdir()
        for number in range(self.files // 10):
            with (mnt / f"new/n{number}").open("wb") as file:
                file.write(b"x")

    def stat(self, mnt: Path) -> None:
        for number in range(self.files):
            os.stat(f"{mnt}/tree/d{number // 100}/f{number}.txt")


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    base = Path(tempfile.mkdtemp())
    best: dict[str, dict[str, float]] = {}

    def note(task: str, kind: str, seconds: float) -> None:
        known = best.setdefault(task, {}).get(kind, seconds)
        best[task][kind] = min(known, seconds)

    try:
        tasks = Tasks(base, float(sys.argv[2]) if len(sys.argv) > 2 else 1.0)
        for _ in range(5):
            for kind in KINDS:
                with mounted(kind, base) as (_mnt, seconds):
                    note("mount until listed", kind, seconds)
        with ExitStack() as stack:
            mounts = {kind: stack.enter_context(mounted(kind, base))[0] for kind in KINDS}
            for turn in range(rounds):
                for task, work in tasks.all():
                    for index in range(len(KINDS)):  # each goes first in its turn
                        kind = KINDS[(turn + index) % len(KINDS)]
                        mnt = mounts[kind]
                        drop_caches()
                        note(task, kind, timed(lambda work=work, mnt=mnt: work(mnt)))
    finally:
        shutil.rmtree(base, ignore_errors=True)
    print(f"{'':20} {'loopback s':>10} {'fusepy':>8} {'mfusepy':>8}")
    for task, times in best.items():
        ratios = " ".join(f"{times['loopback'] / times[kind]:8.2f}" for kind in KINDS[1:])
        print(f"{task:20} {times['loopback']:10.3f} {ratios}")


if __name__ == "__main__":
    main()
