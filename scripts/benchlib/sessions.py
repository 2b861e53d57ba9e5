"""Mounting, asking and committing images: sections mount, status, commit."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

from images import least, synced
from measure import MIB, Bench, Figure, Task, Usage
from mounts import Mount, loopback, ours
from trees import built, camera_image, models, small_files


def first_mount(bench: Bench, image: Path) -> Task:
    """A task: mount an image that no session knows yet, until the directory is listed."""

    def task() -> Usage:
        bench.fresh_state()
        os.sync()
        with ours(bench, image) as mount:
            return mount.taken

    return task


def mount_section(bench: Bench) -> Iterator[Figure]:
    """24 MB: at most 4 x a bare loopback. 20,000 files: at most 0.5 x `cp -r` of the tree."""

    def bare() -> Usage:
        with loopback(bench) as mount:
            return mount.taken

    yield from bench.compared(
        "mount 24 MB until listed", first_mount(bench, camera_image(bench)),
        {"loopback": (bare, 4.0)}, 2 * bench.rounds,
    )  # fmt: skip
    tree, copy = small_files(bench), bench.place / "copy"

    def copied() -> Usage:
        bench.put_away(copy)
        os.sync()
        return bench.run("cp", "-r", tree, copy)

    yield from bench.compared(
        "mount 20,000 files until listed", first_mount(bench, built(bench, tree)),
        {"cp -r": (copied, 0.5)},
    )  # fmt: skip
    bench.put_away(copy)


def edited(bench: Bench, path: str) -> None:
    """Change one byte near the end of a file in the mount."""
    with open(bench.mountpoint / path, "r+b", buffering=0) as file:
        at = file.seek(-10, os.SEEK_END)
        old = file.read(1)
        file.seek(at)
        file.write(bytes([old[0] ^ 0xFF]))


def asking(bench: Bench, mounted: Mapping[str, Mount], ask: Callable[[], object]) -> Task:
    """A task: after a change of one file of a mounted image, ask; what the daemon does for that.

    What was there before was asked for and is known: people leave a status on the screen.
    """

    def task() -> Usage:
        ask()
        edited(bench, "d150/f15000.txt")
        time.sleep(0.1)  # the close is on its way, and the clock of file times goes on
        return of_daemon(mounted[bench.subject.name], ask)

    return task


def of_daemon(mount: Mount, ask: Callable[[], object]) -> Usage:
    before, started = mount.cpu, time.perf_counter()
    ask()
    return Usage(time.perf_counter() - started, mount.cpu - before)


def status_section(bench: Bench) -> Iterator[Figure]:
    """One change in 20,000 files: under 50 ms of CPU for a look at the status, and for `df`."""
    image = built(bench, small_files(bench))
    asked = {
        "status": lambda: (bench.mountpoint / ".romfs/status").read_bytes(),
        "df": lambda: os.statvfs(bench.mountpoint),
    }
    with ExitStack() as stack:
        mounted = {}
        for subject in bench.subjects:
            bench.subject = subject
            bench.fresh_state()
            mounted[subject.name] = stack.enter_context(ours(bench, image))
        for name, ask in asked.items():
            yield from bench.under(
                f"{name}, 1 change in 20,000 files", asking(bench, mounted, ask), cpu=0.05
            )


def commit_section(bench: Bench) -> Iterator[Figure]:
    """A one-byte edit. 24 MB: under 0.2 s. 256 MiB (1 GiB with --full): at most 3 x `cp` + sync."""
    image = bench.place / "commit.img"
    shutil.copy(camera_image(bench), image)
    yield from bench.under(
        "commit one byte of 24 MB", committing(bench, image, "models/07/model.tflite"), seconds=0.2
    )
    image.unlink()
    mib, label = (1024, "1 GiB") if bench.full else (256, "256 MiB")
    tree = models(bench, mib * MIB)
    image, copy = built(bench, tree), bench.place / "copy.img"
    yield from bench.compared(
        f"commit one byte of {label}", committing(bench, image, "model07.tflite"),
        {
            "cp": (synced(copy, lambda: bench.run("cp", image, copy)), 3.0),
            "the least": least(bench, "commit", image, bench.place / "kept.img", copy),
        },
        3 if bench.full else None,
    )  # fmt: skip
    shutil.rmtree(tree)
    for made in (copy, bench.place / "kept.img", image):
        made.unlink(missing_ok=True)


def committing(bench: Bench, image: Path, path: str) -> Task:
    """A task: the commit of an edit, and `sync`; with what the daemon does meanwhile."""

    def task() -> Usage:
        bench.fresh_state()
        with ours(bench, image) as mount:
            edited(bench, path)
            os.sync()
            before, started = mount.cpu, time.perf_counter()
            usage = bench.ours("commit", bench.mountpoint)
            os.sync()
            seconds = time.perf_counter() - started
            return Usage(seconds, usage.cpu + mount.cpu - before)

    return task
