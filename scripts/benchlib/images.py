"""Building and listing images, without a mount: sections build, small, ls."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from measure import MIB, MPREMOTE, OPENMV_OTA, ROMFSFS, Bench, Figure, Usage, at_most, memory
from trees import camera_image, models, small_files


def synced(bench: Bench, target: Path, *command: object) -> Callable[[], Usage]:
    """A task: the command, then `sync`; what it made before is removed first."""

    def task() -> Usage:
        if target.is_dir():
            shutil.rmtree(target)
        target.unlink(missing_ok=True)
        os.sync()
        started = time.perf_counter()
        usage = bench.run(*command)
        os.sync()
        return usage._replace(seconds=time.perf_counter() - started)

    return task


def build_section(bench: Bench) -> Iterator[Figure]:
    """A gigabyte of models: at most 2 x `cp -r` and sync, memory under 120 MiB."""
    size = 1024 * MIB if bench.full else 256 * MIB
    label = "1 GiB" if bench.full else "256 MiB"
    tree, out = models(bench, size), bench.place / "out.img"
    rounds = 3 if bench.full else bench.rounds
    ours, copy, ota, upstream = bench.interleaved(
        [
            synced(bench, out, ROMFSFS, "build", tree, out, "--no-convert"),
            synced(bench, bench.place / "copy", "cp", "-r", tree, bench.place / "copy"),
            synced(bench, out, OPENMV_OTA, "romfs", "pack", tree, "-o", out, "-q"),
            synced(bench, out, MPREMOTE, "romfs", "--no-mpy", "-o", out, "build", tree),
        ],
        rounds,
    )
    shutil.rmtree(bench.place / "copy")
    out.unlink()
    yield at_most(f"build {label}", ours, "cp -r", copy, 2.0)
    yield at_most(f"build {label}", ours, "openmv-ota", ota, None)
    yield at_most(f"build {label}", ours, "mpremote", upstream, None)
    yield memory(f"build {label}, memory", max(usage.peak for usage in ours), 120)
    if bench.full:
        shutil.rmtree(tree)


def small_section(bench: Bench) -> Iterator[Figure]:
    """20,000 small files: at most half of openmv-ota's time."""
    tree, out = small_files(bench), bench.place / "out.img"
    ours, ota = bench.interleaved(
        [
            synced(bench, out, ROMFSFS, "build", tree, out, "--no-convert"),
            synced(bench, out, OPENMV_OTA, "romfs", "pack", tree, "-o", out, "-q"),
        ]
    )
    out.unlink()
    yield at_most("build 20,000 files", ours, "openmv-ota", ota, 0.5)


def ls_section(bench: Bench) -> Iterator[Figure]:
    """`ls -l` of a 24 MB image: at most half of openmv-ota's time."""
    image = camera_image(bench)
    ours, ota = bench.interleaved(
        [
            lambda: bench.run(ROMFSFS, "ls", "-l", image),
            lambda: bench.run(OPENMV_OTA, "romfs", "ls", "-l", image),
        ],
        2 * bench.rounds,
    )
    yield at_most("ls -l, 24 MB", ours, "openmv-ota", ota, 0.5)
