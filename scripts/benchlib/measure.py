"""Timing commands and functions in turns, and the figures that come out."""

from __future__ import annotations

import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

CHECKOUT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
ROMFSFS = str(BIN / "romfsfs")
OPENMV_OTA = str(BIN / "openmv-ota")
MPREMOTE = str(BIN / "mpremote")
MIB = 1 << 20


class Usage(NamedTuple):
    """seconds: wall clock. cpu: processor seconds, children included. peak: memory, bytes."""

    seconds: float
    cpu: float
    peak: int


@dataclass(frozen=True)
class Figure:
    """One line of the table. ratio: what the target is about; ok: None when there is no target."""

    name: str
    ours: str
    peer: str
    ratio: float | None
    target: str
    ok: bool | None

    @staticmethod
    def header() -> str:
        return f"  {'figure':40} {'ours':>10} {'peer':>22} {'ratio':>6}  {'target':24}"

    def row(self) -> str:
        ratio = "" if self.ratio is None else f"{self.ratio:.2f}"
        verdict = {True: "ok", False: "MISSED", None: ""}[self.ok]
        figures = f"{self.ours:>10} {self.peer:>22} {ratio:>6}"
        return f"  {self.name:40} {figures}  {self.target:24} {verdict}".rstrip()

    def record(self) -> dict[str, object]:
        return asdict(self)


class Bench:
    """What the sections share: a folder to work in, how thoroughly to measure."""

    def __init__(self, place: Path, rounds: int, full: bool, binding: str) -> None:
        self.place = place
        self.rounds = rounds
        self.full = full
        self.environment = {
            **os.environ,
            "ROMFSFS_STATE_DIR": str(place / "state"),
            "ROMFSFS_CACHE_DIR": str(place / "cache"),
            "ROMFSFS_FUSE": binding,
        }
        self.mountpoint = place / "mnt"
        self.mountpoint.mkdir()

    def run(self, *command: object, quiet: bool = True) -> Usage:
        """Run a command to its end and measure it. CalledProcessError when it fails."""
        words = [str(word) for word in command]
        started = time.perf_counter()
        output = subprocess.DEVNULL if quiet else None
        process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.PIPE,
            env=self.environment, cwd=self.place,
        )  # fmt: skip
        assert process.stderr is not None
        said = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        process.stderr.close()
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            sys.stderr.write(said.decode(errors="replace"))
            raise subprocess.CalledProcessError(process.returncode, words)
        return Usage(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)

    def fresh_state(self) -> None:
        """No session knows anything any more."""
        shutil.rmtree(self.place / "state", ignore_errors=True)

    def interleaved(
        self, tasks: Sequence[Callable[[], Usage | float]], rounds: int | None = None
    ) -> list[list[Usage]]:
        """Each task once a round, the order turned each round; the results by task.

        One round more comes first and is thrown away: it finds the caches cold.
        """
        results: list[list[Usage]] = [[] for _ in tasks]
        for turn in range(-1, rounds or self.rounds):
            order = range(len(tasks)) if turn % 2 else range(len(tasks) - 1, -1, -1)
            for index in order:
                result = tasks[index]()
                if turn >= 0:
                    made = result if isinstance(result, Usage) else Usage(result, 0.0, 0)
                    results[index].append(made)
        return results

    def close(self) -> None:
        """Whatever an interrupted section left mounted goes."""
        for name in ("fusermount3", "fusermount"):
            program = shutil.which(name)
            if program and os.path.ismount(self.mountpoint):
                subprocess.run([program, "-uz", str(self.mountpoint)], check=False)


def ratio_of(ours: Sequence[Usage], peer: Sequence[Usage]) -> float:
    return middle(ours) / middle(peer)


def middle(usages: Sequence[Usage]) -> float:
    return statistics.median(usage.seconds for usage in usages)


def at_most(
    name: str, ours: Sequence[Usage], peer_name: str, peer: Sequence[Usage], limit: float | None
) -> Figure:
    """Our time over the peer's; the target is a greatest ratio."""
    ratio = ratio_of(ours, peer)
    return Figure(
        name, shown(middle(ours)), f"{peer_name} {shown(middle(peer))}", ratio,
        "" if limit is None else f"at most {limit:g} x",
        None if limit is None else ratio <= limit,
    )  # fmt: skip


def speed(name: str, ours: Sequence[Usage], peer: Sequence[Usage], least: float | None) -> Figure:
    """Our speed over the loopback's; the target is a least ratio."""
    ratio = ratio_of(peer, ours)
    return Figure(
        name, shown(middle(ours)), f"loopback {shown(middle(peer))}", ratio,
        "" if least is None else f"at least {least:g} of its speed",
        None if least is None else ratio >= least,
    )  # fmt: skip


def memory(name: str, peak: int, limit_mib: int) -> Figure:
    return Figure(name, f"{peak / MIB:.0f} MiB", "", None, f"under {limit_mib} MiB",
                  peak < limit_mib * MIB)  # fmt: skip


def shown(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"


def machine(place: Path, binding: str) -> str:
    """One line on what this was measured with."""
    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(":", 1)[1].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        pass
    kind = subprocess.run(["stat", "-f", "-c", "%T", str(place)], capture_output=True, text=True,
                          check=False).stdout.strip()  # fmt: skip
    return (
        f"{model}, {len(os.sched_getaffinity(0))} cores, Linux {platform.release()}, {kind}, "
        f"Python {platform.python_version()}, {binding} {version(binding)}, "
        f"load {os.getloadavg()[0]:.1f}"
    )
