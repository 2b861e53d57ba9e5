"""A camera on its serial port, against mpremote on the same simulated one: section camera.

Flash of 4 KiB blocks that take 45 ms each to erase (what OpenMV's boards have), a link of 1 MB/s.
Those times pass for real, and alike for both: on a slower machine the ratios stay what they are.
"""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from measure import CHECKOUT, MIB, MPREMOTE, Bench, Figure, Usage, shown

from romfsfs.boards import get_board
from romfsfs.image.writer import encode
from romfsfs.simulator import Simulator, preset
from romfsfs.simulator.config import SECTOR_ERASE_SECONDS, PartitionConfig

BOARD = "OPENMV4P"
RATE = 1_000_000
SECTOR = 4096
ROMFSFS = (sys.executable, "-m", "romfsfs")


class Cost(NamedTuple):
    """What a command cost: seconds; bytes to and from the camera; erase blocks."""

    seconds: float
    sent: int
    received: int
    erased: int


class Camera:
    """A simulated camera, and commands on it."""

    def __init__(self, bench: Bench, simulator: Simulator) -> None:
        self.bench = bench
        self.port = simulator.port
        self._statistics = simulator.statistics

    def run(self, *command: object) -> Cost:
        before = self._counts()
        usage: Usage = self.bench.run(*command)
        sent, received, erased = (
            after - was for after, was in zip(self._counts(), before, strict=True)
        )
        return Cost(usage.seconds, sent, received, erased)

    def _counts(self) -> tuple[int, int, int]:
        counted = self._statistics
        return counted.wire_in, counted.wire_out, counted.erased_blocks


@contextmanager
def connected(bench: Bench, size: int, image: bytes = b"") -> Iterator[Camera]:
    """A camera with a partition of `size` bytes that holds `image`; no session knows it."""
    bench.fresh_state()
    got = subprocess.run(
        [CHECKOUT / "scripts" / "get-micropython"], check=True, capture_output=True, text=True
    )
    config = preset(
        BOARD,
        partitions=(PartitionConfig(size, SECTOR, wedge_tail=512),),
        rate=RATE,
        erase_seconds=SECTOR_ERASE_SECONDS,
        images={0: image} if image else {},
    )
    with Simulator(config, micropython=got.stdout.strip()) as simulator:
        bench.environment["PYTHONPATH"] = str(CHECKOUT)
        bench.environment["ROMFSFS_PORTS"] = simulator.port
        yield Camera(bench, simulator)


def contents(size: int, script: bytes) -> bytes:
    """An image that nearly fills `size` bytes: models, and a script of 1 KiB between them."""
    chance = random.Random(8)
    room = size - 8 * SECTOR
    files = {f"model{number}.tflite": chance.randbytes(room // 8) for number in range(4)}
    files["main.py"] = script * (1024 // len(script))
    files |= {f"more{number}.tflite": chance.randbytes(room // 8) for number in range(4)}
    return encode(files, get_board(BOARD).partition(0).alignment)


def camera_section(bench: Bench) -> Iterator[Figure]:
    """8 MiB with --full, about 10 minutes; else 1 MiB, where starting Python hides most targets."""
    size = 8 * MIB if bench.full else MIB
    label = f"{size // MIB} MiB"
    old, new = contents(size, b"abs(11)\n"), contents(size, b"abs(22)\n")
    upstream = deployed(bench, size, old, new)
    yield from edit_figures(bench, size, old, upstream, label)
    yield from write_figures(bench, size, old, upstream, label)
    yield from read_figures(bench, size, old, label)


def deployed(bench: Bench, size: int, old: bytes, new: bytes) -> Cost:
    """mpremote writes all of it, whatever has changed."""
    path = bench.place / "new.img"
    path.write_bytes(new)
    with connected(bench, size, old) as camera:
        return camera.run(MPREMOTE, "connect", camera.port, "romfs", "deploy", path)


def edit_figures(
    bench: Bench, size: int, old: bytes, upstream: Cost, label: str
) -> Iterator[Figure]:
    """A script of 1 KiB changed in a full partition, and committed from the mount."""
    with connected(bench, size, old) as camera, mounted(camera):
        (bench.mountpoint / "main.py").write_bytes(b"abs(22)\n" * 128)
        cost = camera.run(*ROMFSFS, "commit", bench.mountpoint)
    name = f"edit 1 KiB of {label}"
    yield Figure(f"{name}, bytes to the camera", f"{cost.sent:,} B",
                 f"mpremote {upstream.sent:,} B", cost.sent / upstream.sent, "under 40 KiB",
                 cost.sent < 40 * 1024)  # fmt: skip
    yield Figure(f"{name}, erase blocks", f"{cost.erased}", f"mpremote {upstream.erased:,}",
                 cost.erased / upstream.erased, "at most 4", cost.erased <= 4)  # fmt: skip
    yield against(name, cost, upstream, 1 / 50 if bench.full else None)


def write_figures(
    bench: Bench, size: int, old: bytes, upstream: Cost, label: str
) -> Iterator[Figure]:
    """Another image over a full partition, with a copy of the old one first; onto a blank one."""
    path = bench.place / "other.img"
    path.write_bytes(
        encode({"all.bin": random.Random(9).randbytes(size - 2 * SECTOR)},
               get_board(BOARD).partition(0).alignment)
    )  # fmt: skip
    push = (*ROMFSFS, "push", path, "camera")
    with connected(bench, size, old) as camera:
        full = camera.run(*push)
    with connected(bench, size) as camera:
        blank = camera.run(*push)
    floor = full.erased * SECTOR_ERASE_SECONDS
    yield against(f"write {label} over another", full, upstream, 1 / 3 if bench.full else None)
    yield Figure("  of that, erasing", shown(floor), f"{full.erased:,} blocks",
                 floor / upstream.seconds, "the least there is", None)  # fmt: skip
    yield Figure("  of that, the copy of the old image", shown(len(old) / RATE),
                 f"{len(old):,} B", len(old) / RATE / upstream.seconds, "", None)  # fmt: skip
    yield against(f"write {label} onto blank flash", blank, upstream, 1 / 3 if bench.full else None)


def read_figures(bench: Bench, size: int, image: bytes, label: str) -> Iterator[Figure]:
    """Reading, and mounting a camera whose image the host has."""
    with connected(bench, size, image) as camera:
        read = camera.run(*ROMFSFS, "pull", "camera", bench.place / "back.img")
        assert (bench.place / "back.img").read_bytes() == image
        with mounted(camera):
            pass
        mounts = []
        for _ in range(bench.rounds):
            with mounted(camera) as cost:
                mounts.append(cost)
    known = sorted(mounts)[len(mounts) // 2]
    share = len(image) / read.seconds / RATE
    yield Figure(f"read {label}, share of the link's rate", shown(read.seconds),
                 f"link {shown(len(image) / RATE)}", share,
                 "at least 0.8" if bench.full else "",
                 share >= 0.8 if bench.full else None)  # fmt: skip
    ratio = known.seconds / read.seconds
    yield Figure(f"mount {label} that the host knows", shown(known.seconds),
                 f"reading {shown(read.seconds)}", ratio,
                 "at most 0.1 x" if bench.full else "", ratio <= 0.1 if bench.full else None,
                 )  # fmt: skip
    moved = known.sent + known.received
    yield Figure("  bytes on the wire", f"{moved:,} B", f"image {len(image):,} B",
                 moved / len(image), "", None)  # fmt: skip


@contextmanager
def mounted(camera: Camera) -> Iterator[Cost]:
    """The camera mounted; the edits, if any, are dropped afterwards."""
    bench = camera.bench
    cost = camera.run(*ROMFSFS, "mount", "camera", bench.mountpoint)
    try:
        yield cost
    finally:
        bench.run(*ROMFSFS, "umount", "--discard", bench.mountpoint)


def against(name: str, cost: Cost, upstream: Cost, limit: float | None) -> Figure:
    ratio = cost.seconds / upstream.seconds
    return Figure(
        name, shown(cost.seconds), f"mpremote {shown(upstream.seconds)}", ratio,
        "" if limit is None else f"at most {limit:.2f} x",
        None if limit is None else ratio <= limit,
    )  # fmt: skip
