"""Building and listing images, without a mount: sections build, small, ls."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from measure import MIB, MPREMOTE, OPENMV_OTA, Bench, Figure, Task, Usage, memory
from trees import camera_image, models, small_files


def synced(target: Path, command: Task) -> Task:
    """A task: the command, then `sync`; what it made before is removed first."""

    def task() -> Usage:
        if target.is_dir():
            shutil.rmtree(target)
        target.unlink(missing_ok=True)
        os.sync()
        started = time.perf_counter()
        usage = command()
        os.sync()
        return usage._replace(seconds=time.perf_counter() - started)

    return task


def building(bench: Bench, tree: Path, peaks: list[int] | None = None) -> Task:
    """Our build of a tree, synced. peaks: gets the memory that each took."""
    out = bench.place / "out.img"

    def build() -> Usage:
        usage = bench.ours("build", tree, out, "--no-convert")
        if peaks is not None:
            peaks.append(usage.peak)
        return usage

    return synced(out, build)


def least(bench: Bench, kind: str, *paths: Path) -> tuple[Task, None]:
    """A peer: what Python alone takes for what cannot be saved (`least.py`)."""
    script = Path(__file__).with_name("least.py")
    return synced(paths[-1], lambda: bench.run(sys.executable, script, kind, *paths)), None


def build_section(bench: Bench) -> Iterator[Figure]:
    """A gigabyte of models: at most 2 x `cp -r` and sync, memory under 120 MiB."""
    size = 1024 * MIB if bench.full else 256 * MIB
    label = "1 GiB" if bench.full else "256 MiB"
    tree, out, copy = models(bench, size), bench.place / "out.img", bench.place / "copy"
    peaks: list[int] = []
    ota = synced(out, lambda: bench.run(OPENMV_OTA, "romfs", "pack", tree, "-o", out, "-q"))
    upstream = synced(
        out, lambda: bench.run(MPREMOTE, "romfs", "--no-mpy", "-o", out, "build", tree)
    )
    copied = synced(copy, lambda: bench.run("cp", "-r", tree, copy))
    yield from bench.compared(
        f"build {label}", building(bench, tree, peaks),
        {
            "cp -r": (copied, 2.0), "openmv-ota": (ota, None), "mpremote": (upstream, None),
            "the least": least(bench, "build", tree, out),
        },
        3 if bench.full else None,
    )  # fmt: skip
    yield memory(f"build {label}, memory", max(peaks), 120)
    shutil.rmtree(copy, ignore_errors=True)
    out.unlink()
    if bench.full:
        shutil.rmtree(tree)


def small_section(bench: Bench) -> Iterator[Figure]:
    """20,000 small files: at most 0.9 of openmv-ota's time."""
    tree, out = small_files(bench), bench.place / "out.img"
    ota = synced(out, lambda: bench.run(OPENMV_OTA, "romfs", "pack", tree, "-o", out, "-q"))
    yield from bench.compared(
        "build 20,000 files", building(bench, tree),
        {"openmv-ota": (ota, 0.9), "the least": least(bench, "build", tree, out)},
    )  # fmt: skip
    out.unlink()


def ls_section(bench: Bench) -> Iterator[Figure]:
    """`ls -l` of a 24 MB image: at most half of openmv-ota's time."""
    image = camera_image(bench)
    yield from bench.compared(
        "ls -l, 24 MB",
        lambda: bench.ours("ls", "-l", image),
        {"openmv-ota": (lambda: bench.run(OPENMV_OTA, "romfs", "ls", "-l", image), 0.5)},
        2 * bench.rounds,
    )
