"""Files through the mount: sections fuse, memory."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from measure import MIB, ROMFSFS, Bench, Figure, Usage, memory, speed
from mounts import drop_names, loopback, ours, peak_memory
from trees import flat_files, small_files

#: task -> the least share of the loopback's speed
TARGETS = {
    "write 256 MiB": 0.9,
    "read 256 MiB": 0.9,
    "create 2,000 files": 0.7,
    "cp -r 20,000 files": 0.7,
    "stat 20,000 cold files": 0.7,
    "list 10,000 files": 0.7,
    "rm -r 20,000 files": 0.7,
}


def timed(task: Callable[[], object]) -> float:
    started = time.perf_counter()
    task()
    return time.perf_counter() - started


def write(path: Path, mib: int) -> None:
    block = os.urandom(MIB)
    with open(path, "wb", buffering=0) as file:
        for _ in range(mib):
            file.write(block)


def read(path: Path) -> None:
    with open(path, "rb", buffering=0) as file:
        while file.read(MIB):
            pass


def drop_pages(path: Path) -> None:
    """Let the next read go through the daemon."""
    with open(path, "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def create(folder: Path) -> None:
    folder.mkdir()
    for number in range(2000):
        with open(folder / f"n{number}", "wb") as file:
            file.write(b"x")


def stat_all(tree: Path, count: int) -> None:
    for number in range(count):
        os.stat(f"{tree}/d{number // 100:03}/f{number:05}.txt")


def tasks(bench: Bench) -> dict[str, float]:
    """Every task once in whatever is mounted; seconds by task."""
    mounted = bench.mountpoint
    times = {}
    big = mounted / "big.bin"
    times["write 256 MiB"] = timed(lambda: write(big, 256))
    drop_pages(big)
    times["read 256 MiB"] = timed(lambda: read(big))
    big.unlink()
    times["create 2,000 files"] = timed(lambda: create(mounted / "many"))
    bench.run("rm", "-r", mounted / "many")
    tree = mounted / "tree"
    times["cp -r 20,000 files"] = bench.run("cp", "-r", small_files(bench), tree).seconds
    drop_names()
    times["stat 20,000 cold files"] = timed(lambda: stat_all(tree, 20_000))
    drop_names()
    times["rm -r 20,000 files"] = bench.run("rm", "-r", tree).seconds
    bench.run("cp", "-r", flat_files(bench), mounted / "flat")
    drop_names()
    times["list 10,000 files"] = timed(lambda: os.listdir(mounted / "flat"))
    bench.run("rm", "-r", mounted / "flat")
    return times


def fuse_section(bench: Bench) -> Iterator[Figure]:
    """Against a bare fusepy loopback with the same options, in the same run."""
    small_files(bench)
    flat_files(bench)
    empty = bench.place / "empty"
    empty.mkdir()
    image = bench.place / "empty.img"
    bench.run(ROMFSFS, "build", empty, image)
    own: dict[str, list[Usage]] = {name: [] for name in TARGETS}
    peer: dict[str, list[Usage]] = {name: [] for name in TARGETS}
    for turn in range(max(3, bench.rounds - 2)):
        for who in (own, peer) if turn % 2 else (peer, own):
            bench.fresh_state()
            with ours(bench, image) if who is own else loopback(bench):
                for name, seconds in tasks(bench).items():
                    who[name].append(Usage(seconds, 0.0, 0))
    shutil.rmtree(empty)
    for name, least in TARGETS.items():
        yield speed(name, own[name], peer[name], least)


def memory_section(bench: Bench) -> Iterator[Figure]:
    """The daemon stays under 80 MiB while a large file is written and read back."""
    mib = 1024 if bench.full else 256
    empty = bench.place / "nothing"
    empty.mkdir()
    image = bench.place / "nothing.img"
    bench.run(ROMFSFS, "build", empty, image)
    bench.fresh_state()
    with ours(bench, image) as daemon:
        write(bench.mountpoint / "big.bin", mib)
        drop_pages(bench.mountpoint / "big.bin")
        read(bench.mountpoint / "big.bin")
        (bench.mountpoint / ".romfs/status").read_bytes()
        yield memory(f"daemon while writing {mib} MiB", peak_memory(daemon), 80)
