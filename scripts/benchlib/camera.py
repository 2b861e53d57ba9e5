"""A camera on its serial port, against mpremote on the same simulated one: section camera.

Flash of 4 KiB blocks that take 45 ms each to erase (what OpenMV's boards have), a link of 1 MB/s.
Those times pass for real, and alike for both: on a slower machine the ratios stay what they are.
"""

from __future__ import annotations

import random
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from measure import CHECKOUT, MIB, MPREMOTE, Bench, Figure, Subject, Task, shown

from romfsfs.boards import get_board
from romfsfs.image.writer import encode
from romfsfs.simulator import Simulator, preset
from romfsfs.simulator.config import PartitionConfig

BOARD = "OPENMV4P"
RATE = 1_000_000
SECTOR = 4096
SECTOR_ERASE_SECONDS = 0.045


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

    def ours(self, *arguments: object) -> Cost:
        return self._counted(lambda: self.bench.ours(*arguments))

    def run(self, *command: object) -> Cost:
        return self._counted(lambda: self.bench.run(*command))

    def _counted(self, task: Task) -> Cost:
        before = self._counts()
        usage = task()
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
        bench.tell("ROMFSFS_PORTS", simulator.port)
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
    """8 MiB with --full, about 10 minutes; else 1 MiB, where starting Python hides most goals.

    Once and not in rounds: nearly all of it is the link's and the flash's time.
    """
    size = 8 * MIB if bench.full else MIB
    label = f"{size // MIB} MiB"
    old, new = contents(size, b"abs(11)\n"), contents(size, b"abs(22)\n")
    names = {
        "edit": f"edit 1 KiB of {label}", "over": f"write {label} over another",
        "blank": f"write {label} onto blank flash", "read": f"read {label}",
        "mount": f"mount {label} that the host knows",
    }  # fmt: skip
    if len(bench.subjects) > 1:
        before, after = (costs(bench, each, size, old) for each in bench.subjects)
        for key, name in names.items():
            yield against(name, after[key], bench.subjects[0].name, before[key], None)
        return
    ours = costs(bench, bench.subject, size, old)
    upstream = deployed(bench, size, old, new)
    yield from edit_figures(ours["edit"], upstream, names["edit"], bench.full)
    third = 1 / 3 if bench.full else None
    yield against(names["over"], ours["over"], "mpremote", upstream, third)
    floor = ours["over"].erased * SECTOR_ERASE_SECONDS
    yield Figure("  of that, erasing", shown(floor), f"{ours['over'].erased:,} blocks",
                 floor / upstream.seconds, goal="the least there is")  # fmt: skip
    yield Figure("  of that, the copy of the old image", shown(len(old) / RATE),
                 f"{len(old):,} B", len(old) / RATE / upstream.seconds)  # fmt: skip
    yield against(names["blank"], ours["blank"], "mpremote", upstream, third)
    yield from read_figures(ours["read"], ours["mount"], len(old), names, bench.full)


def costs(bench: Bench, subject: Subject, size: int, old: bytes) -> dict[str, Cost]:
    """A script of 1 KiB changed in a full partition and committed from the mount; another image
    over a full partition, with a copy of the old one first, and onto a blank one; reading; and
    mounting a camera whose image the host has."""
    bench.subject = subject
    found = {}
    with connected(bench, size, old) as camera, mounted(camera):
        (bench.mountpoint / "main.py").write_bytes(b"abs(22)\n" * 128)
        found["edit"] = camera.ours("commit", bench.mountpoint)
    path = bench.place / "other.img"
    path.write_bytes(
        encode({"all.bin": random.Random(9).randbytes(size - 2 * SECTOR)},
               get_board(BOARD).partition(0).alignment)
    )  # fmt: skip
    with connected(bench, size, old) as camera:
        found["over"] = camera.ours("push", path, "camera")
    with connected(bench, size) as camera:
        found["blank"] = camera.ours("push", path, "camera")
    with connected(bench, size, old) as camera:
        found["read"] = camera.ours("pull", "camera", bench.place / "back.img")
        assert (bench.place / "back.img").read_bytes() == old
        (bench.place / "back.img").unlink()
        with mounted(camera):
            pass
        mounts = []
        for _ in range(bench.rounds):
            with mounted(camera) as cost:
                mounts.append(cost)
        found["mount"] = sorted(mounts)[len(mounts) // 2]
    return found


def deployed(bench: Bench, size: int, old: bytes, new: bytes) -> Cost:
    """mpremote writes all of it, whatever has changed."""
    path = bench.place / "new.img"
    path.write_bytes(new)
    with connected(bench, size, old) as camera:
        return camera.run(MPREMOTE, "connect", camera.port, "romfs", "deploy", path)


def edit_figures(cost: Cost, upstream: Cost, name: str, full: bool) -> Iterator[Figure]:
    yield Figure(f"{name}, bytes sent", f"{cost.sent:,} B",
                 f"mpremote {upstream.sent:,} B", cost.sent / upstream.sent,
                 goal="under 40 KiB", ok=cost.sent < 40 * 1024)  # fmt: skip
    yield Figure(f"{name}, erase blocks", f"{cost.erased}", f"mpremote {upstream.erased:,}",
                 cost.erased / upstream.erased, goal="at most 4", ok=cost.erased <= 4,
                 )  # fmt: skip
    yield against(name, cost, "mpremote", upstream, 1 / 50 if full else None)


def read_figures(
    read: Cost, known: Cost, size: int, names: dict[str, str], full: bool
) -> Iterator[Figure]:
    share = size / read.seconds / RATE
    yield Figure(f"{names['read']}, share of the link's rate", shown(read.seconds),
                 f"link {shown(size / RATE)}", share, goal="at least 0.8" if full else "",
                 ok=share >= 0.8 if full else None)  # fmt: skip
    ratio = known.seconds / read.seconds
    yield Figure(names["mount"], shown(known.seconds), f"reading {shown(read.seconds)}", ratio,
                 goal="at most 0.1 x" if full else "", ok=ratio <= 0.1 if full else None,
                 )  # fmt: skip
    moved = known.sent + known.received
    yield Figure("  bytes on the wire", f"{moved:,} B", f"image {size:,} B", moved / size)


@contextmanager
def mounted(camera: Camera) -> Iterator[Cost]:
    """The camera mounted; the edits, if any, are dropped afterwards."""
    bench = camera.bench
    cost = camera.ours("mount", "camera", bench.mountpoint)
    try:
        yield cost
    finally:
        bench.ours("umount", "--discard", bench.mountpoint)


def against(name: str, cost: Cost, peer: str, theirs: Cost, limit: float | None) -> Figure:
    ratio = cost.seconds / theirs.seconds
    return Figure(
        name, shown(cost.seconds), f"{peer} {shown(theirs.seconds)}", ratio,
        goal="" if limit is None else f"at most {limit:.2f} x",
        ok=None if limit is None else ratio <= limit,
    )  # fmt: skip
