"""Mounting and committing images: sections mount, commit."""

from __future__ import annotations

import os
import shutil
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from images import synced
from measure import MIB, ROMFSFS, Bench, Figure, Usage, at_most
from mounts import cpu_seconds, loopback, ours
from trees import built, camera_image, models, small_files


def first_mount(bench: Bench, image: Path) -> Callable[[], Usage]:
    """A task: mount an image that no session knows yet, until the directory is listed."""

    def task() -> Usage:
        bench.fresh_state()
        os.sync()
        started = time.perf_counter()
        with ours(bench, image):
            os.listdir(bench.mountpoint)
            taken = time.perf_counter() - started
        return Usage(taken, 0.0, 0)

    return task


def mount_section(bench: Bench) -> Iterator[Figure]:
    """24 MB: at most 12 x a bare loopback. 20,000 files: at most 2 x `cp -r` of the tree."""

    def bare() -> float:
        with loopback(bench) as taken:
            return taken

    mounted, peer = bench.interleaved([first_mount(bench, camera_image(bench)), bare])
    yield at_most("mount 24 MB until listed", mounted, "loopback", peer, 12.0)

    tree, copy = small_files(bench), bench.place / "copy"

    def copied() -> Usage:
        shutil.rmtree(copy, ignore_errors=True)
        os.sync()
        return bench.run("cp", "-r", tree, copy)

    mounted, peer = bench.interleaved([first_mount(bench, built(bench, tree)), copied])
    yield at_most("mount 20,000 files until listed", mounted, "cp -r", peer, 2.0)


def edited(bench: Bench, path: str, turn: int) -> None:
    """Change one byte of a file in the mount."""
    with open(bench.mountpoint / path, "r+b", buffering=0) as file:
        file.seek(100 + turn)
        old = file.read(1)
        file.seek(100 + turn)
        file.write(bytes([old[0] ^ 0xFF]))


def commit_section(bench: Bench) -> Iterator[Figure]:
    """24 MB: under 0.5 s of CPU, daemon included. 1 GiB: at most 3 x `cp` and sync of the image."""
    image = bench.place / "commit.img"
    shutil.copy(camera_image(bench), image)
    bench.fresh_state()
    spent = []
    with ours(bench, image) as daemon:
        for turn in range(bench.rounds):
            edited(bench, "models/07/model.tflite", turn)
            before = cpu_seconds(daemon)
            usage = bench.run(ROMFSFS, "commit", bench.mountpoint)
            spent.append(usage.cpu + cpu_seconds(daemon) - before)
    cpu = statistics.median(spent)
    yield Figure("commit one byte of 24 MB, CPU", f"{cpu * 1000:.0f} ms", "", None,
                 "under 0.5 s", cpu < 0.5)  # fmt: skip
    image.unlink()
    if bench.full:
        yield from commit_large(bench, 1024, "1 GiB")
    else:
        yield from commit_large(bench, 256, "256 MiB")


def commit_large(bench: Bench, mib: int, label: str) -> Iterator[Figure]:
    tree = models(bench, mib * MIB)
    image = built(bench, tree)
    shutil.rmtree(tree)
    turn = 0

    def committed() -> Usage:
        nonlocal turn
        turn += 1
        edited(bench, "model07.tflite", turn)
        os.sync()
        started = time.perf_counter()
        usage = bench.run(ROMFSFS, "commit", bench.mountpoint)
        os.sync()
        return usage._replace(seconds=time.perf_counter() - started)

    bench.fresh_state()
    copy = bench.place / "copy.img"
    with ours(bench, image):
        own, peer = bench.interleaved(
            [committed, synced(bench, copy, "cp", image, copy)], 3 if bench.full else None
        )
    yield at_most(f"commit one byte of {label}", own, "cp + sync", peer, 3.0)
    copy.unlink()
    image.unlink()
