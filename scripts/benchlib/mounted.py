"""Files through the mount: sections fuse, memory."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from measure import MIB, Bench, Figure, Ratio, Usage, figure, memory
from mounts import drop_names, loopback, ours
from trees import flat_files, small_files

#: Files of a tree; the loopback takes 5 s to get them.
COUNT = 4000
#: task -> the least share of the loopback's speed
TARGETS = {
    "write 256 MiB": 0.9,
    "read 256 MiB": 0.9,
    "create 2,000 files": 0.7,
    "cp -r 4,000 files": 0.7,
    "stat 4,000 cold files": 0.7,
    "list 4,000 files": 0.7,
    "rm -r 4,000 files": 0.7,
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
    times["cp -r 4,000 files"] = bench.run("cp", "-r", small_files(bench, COUNT), tree).seconds
    drop_names()
    times["stat 4,000 cold files"] = timed(lambda: stat_all(tree, COUNT))
    drop_names()
    times["rm -r 4,000 files"] = bench.run("rm", "-r", tree).seconds
    bench.run("cp", "-r", flat_files(bench, COUNT), mounted / "flat")
    drop_names()
    times["list 4,000 files"] = timed(lambda: os.listdir(mounted / "flat"))
    bench.run("rm", "-r", mounted / "flat")
    return times


def fuse_section(bench: Bench) -> Iterator[Figure]:
    """Against a bare fusepy loopback with the same options, in the same run."""
    small_files(bench, COUNT)
    flat_files(bench, COUNT)
    image = empty_image(bench)
    old = bench.subjects[0] if len(bench.subjects) > 1 else None
    own: dict[str, list[Usage]] = {name: [] for name in TARGETS}
    peer: dict[str, list[Usage]] = {name: [] for name in TARGETS}
    for turn in range(bench.rounds):
        for who in (own, peer) if turn % 2 else (peer, own):
            bench.subject = old if old is not None and who is peer else bench.subjects[-1]
            bench.fresh_state()
            with ours(bench, image) if who is own or old else loopback(bench):
                for name, seconds in tasks(bench).items():
                    who[name].append(Usage(seconds))
    for name, least in TARGETS.items():
        yield speed(name, own[name], old.name if old else "loopback", peer[name], least)


def speed(name: str, ours: list[Usage], peer_name: str, peer: list[Usage], least: float) -> Figure:
    """Our speed over the peer's; the goal is a least ratio."""
    ratio = Ratio.of([each.seconds for each in peer], [each.seconds for each in ours])
    assert ratio is not None
    return Figure(name, figure(ours), f"{peer_name} {figure(peer)}", ratio,
                  goal=f"at least {least:g} of its speed", ok=ratio.middle >= least)  # fmt: skip


def empty_image(bench: Bench) -> Path:
    image = bench.place / "empty.img"
    if not image.exists():
        tree = bench.place / "empty"
        tree.mkdir()
        bench.ours("build", tree, image)
    return image


def memory_section(bench: Bench) -> Iterator[Figure]:
    """The daemon stays under 80 MiB while a large file is written and read back."""
    mib = 1024 if bench.full else 256
    bench.fresh_state()
    with ours(bench, empty_image(bench)) as mount:
        write(bench.mountpoint / "big.bin", mib)
        drop_pages(bench.mountpoint / "big.bin")
        read(bench.mountpoint / "big.bin")
        (bench.mountpoint / ".romfs/status").read_bytes()
        yield memory(f"daemon while writing {mib} MiB", mount.peak_memory, 80)
