"""Speed of a mount against the bare fusepy loopback: `python measure.py [ROUNDS]`. Not a test.

Prints, for each task, the loopback's time over romfsfs's: 1.0 is as fast, more is faster. The
two take turns, and the best round of each counts.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).parent
MIB = 1 << 20


def timed(task: Callable[[], object]) -> float:
    start = time.perf_counter()
    task()
    return time.perf_counter() - start


def run(*command: object) -> None:
    subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL)


def drop_caches() -> None:
    Path("/proc/sys/vm/drop_caches").write_text("2")  # names and inodes; needs root


def make_tree(root: Path, files: int) -> None:
    for number in range(files):
        if number % 100 == 0:
            folder = root / f"d{number // 100}"
            folder.mkdir(parents=True)
        (folder / f"f{number}.txt").write_text("x" * 50)


def measure(mnt: Path, tree: Path) -> dict[str, float]:
    times = {}
    block = os.urandom(MIB)
    big = mnt / "big"

    def write() -> None:
        with big.open("wb", buffering=0) as file:
            for _ in range(256):
                file.write(block)

    def read() -> None:
        with big.open("rb", buffering=0) as file:
            while file.read(MIB):
                pass

    times["write 256 MiB"] = timed(write)
    drop_pages = big.open("rb")
    os.posix_fadvise(drop_pages.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    drop_pages.close()
    times["read 256 MiB"] = timed(read)
    big.unlink()

    flat = mnt / "flat"
    flat.mkdir()

    def create() -> None:
        for number in range(2000):
            with (flat / f"n{number}").open("wb") as file:
                file.write(b"x")

    times["create 2,000"] = timed(create)
    run("rm", "-r", flat)
    times["cp -r 20,000"] = timed(lambda: run("cp", "-r", tree, mnt / "tree"))
    drop_caches()

    def stats() -> None:
        for number in range(20000):
            os.stat(f"{mnt}/tree/d{number // 100}/f{number}.txt")

    times["stat 20,000"] = timed(stats)
    drop_caches()
    times["find 20,000"] = timed(lambda: run("find", mnt / "tree"))
    times["rm -r 20,000"] = timed(lambda: run("rm", "-r", mnt / "tree"))
    run("cp", "-r", tree.parent / "ten", mnt / "ten")
    drop_caches()
    times["ls 10,000"] = timed(lambda: run("ls", "-U", mnt / "ten"))
    times["list 10,000"] = timed(lambda: os.listdir(mnt / "ten"))
    drop_caches()
    times["ls -l 10,000"] = timed(lambda: run("ls", "-l", mnt / "ten"))
    run("rm", "-r", mnt / "ten")
    return times


def mounted(command: list[object], mnt: Path, work: Callable[[], dict[str, float]],
            environment: dict[str, str]) -> dict[str, float]:  # fmt: skip
    device = mnt.stat().st_dev
    start = time.perf_counter()
    process = subprocess.Popen(
        [str(word) for word in command], stdout=subprocess.DEVNULL,
        env={**os.environ, **environment},
    )  # fmt: skip
    while mnt.stat().st_dev == device:
        time.sleep(0.001)
    os.listdir(mnt)
    times = {"mount until listed": time.perf_counter() - start}
    try:
        times |= work()
    finally:
        subprocess.run(["fusermount3", "-u", str(mnt)], check=False)
        process.wait(20)
    return times


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    base = Path(tempfile.mkdtemp(dir=os.environ.get("TMPDIR")))
    tree = base / "source"
    make_tree(tree, 20000)
    (base / "ten").mkdir()
    for number in range(10000):
        (base / "ten" / f"file{number}.txt").touch()
    mnt = base / "mnt"
    mnt.mkdir()
    best: dict[str, dict[str, float]] = {}
    try:
        for turn in range(rounds):
            for name in ("loopback", "fusepy", "mfusepy"):
                state = base / f"state-{name}-{turn}"
                state.mkdir()
                if name == "loopback":
                    command: list[object] = [sys.executable, HERE / "loopback.py", state, mnt]
                else:
                    command = [sys.executable, HERE / "serve.py", state, mnt]
                times = mounted(command, mnt, lambda: measure(mnt, tree), {"ROMFSFS_FUSE": name}
                                if name != "loopback" else {})  # fmt: skip
                known = best.setdefault(name, times)
                best[name] = {task: min(known[task], times[task]) for task in times}
                shutil.rmtree(state)
    finally:
        shutil.rmtree(base, ignore_errors=True)
    print(f"{'':20} {'loopback s':>10} {'fusepy':>8} {'mfusepy':>8}")
    for task, seconds in best["loopback"].items():
        ratios = [seconds / best[name][task] for name in ("fusepy", "mfusepy")]
        print(f"{task:20} {seconds:10.3f} " + " ".join(f"{ratio:8.2f}" for ratio in ratios))


if __name__ == "__main__":
    main()
