"""Timing commands and functions in turns, and the figures that come out."""

from __future__ import annotations

import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

CHECKOUT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
OPENMV_OTA = str(BIN / "openmv-ota")
MPREMOTE = str(BIN / "mpremote")
MIB = 1 << 20


class Usage(NamedTuple):
    """seconds: wall clock. cpu: processor seconds of all processes, user and system, 0 where that
    is not known. peak: memory, bytes."""

    seconds: float
    cpu: float = 0.0
    peak: int = 0


#: Does something once, and says what that took.
Task = Callable[[], Usage]


class Subject(NamedTuple):
    """A checkout of romfsfs that is measured."""

    name: str
    checkout: Path


class Ratio(NamedTuple):
    """Of two tasks in the same round: the least, the middle and the greatest of all rounds."""

    least: float
    middle: float
    greatest: float

    def __str__(self) -> str:
        return f"{self.middle:.2f} ({self.least:.2f}-{self.greatest:.2f})"

    @staticmethod
    def of(ours: Sequence[float], peer: Sequence[float]) -> Ratio | None:
        ratios = [mine / theirs for mine, theirs in zip(ours, peer, strict=True) if theirs]
        return Ratio(min(ratios), statistics.median(ratios), max(ratios)) if ratios else None


@dataclass(frozen=True)
class Figure:
    """One line of the table. ratio: ours to the peer's, what the goal is about; cpu: the same of
    processor time. ok: None when there is no goal."""

    name: str
    ours: str
    peer: str = ""
    ratio: Ratio | float | None = None
    cpu: Ratio | None = None
    goal: str = ""
    ok: bool | None = None

    HEADER = ("figure", "romfsfs", "peer", "ratio (min-max)", "of CPU", "goal", "")
    _WIDTHS = (32, 20, 26, 20, 20, 20, 0)

    @property
    def cells(self) -> tuple[str, ...]:
        both = self.ratio, self.cpu
        ratios = [f"{each:.2f}" if isinstance(each, float) else str(each or "") for each in both]
        verdict = {True: "ok", False: "MISSED", None: ""}[self.ok]
        return (self.name, self.ours, self.peer, *ratios, self.goal, verdict)

    @classmethod
    def row(cls, cells: Sequence[str]) -> str:
        padded = (f"{cell:{width}}" for cell, width in zip(cells, cls._WIDTHS, strict=True))
        return f"  {' '.join(padded)}".rstrip()

    def record(self) -> dict[str, object]:
        return asdict(self)


def markdown(figures: Sequence[Figure]) -> str:
    rows = [Figure.HEADER, ("---",) * len(Figure.HEADER), *(each.cells for each in figures)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in rows)


class Bench:
    """What the sections share: a folder to work in, how thoroughly to measure, and what.

    subjects: one checkout, against its peers; or an old and a new one, against each other. Each
    has a mountpoint and folders of its own. `ours` runs the one whose turn it is.
    """

    def __init__(
        self, place: Path, rounds: int, full: bool, binding: str, subjects: Sequence[Subject]
    ) -> None:
        self.place = place
        self.rounds = rounds
        self.full = full
        self.subjects = subjects
        self.subject = subjects[-1]
        # Compiled modules are kept, as they are where romfsfs is installed: the first round, which
        # does not count, compiles them.
        kept = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        self._environment = {
            **kept, "ROMFSFS_FUSE": binding, "PYTHONPYCACHEPREFIX": str(place / "compiled")
        }  # fmt: skip
        for subject in subjects:
            (place / f"mnt-{subject.name}").mkdir()

    @property
    def mountpoint(self) -> Path:
        return self.place / f"mnt-{self.subject.name}"

    @property
    def state(self) -> Path:
        return self.place / f"state-{self.subject.name}"

    @property
    def environment(self) -> dict[str, str]:
        return {
            **self._environment,
            "ROMFSFS_STATE_DIR": str(self.state),
            "ROMFSFS_CACHE_DIR": str(self.place / f"cache-{self.subject.name}"),
            "PYTHONPATH": str(self.subject.checkout),
        }

    def tell(self, name: str, value: str) -> None:
        """An environment variable for all commands from here on."""
        self._environment[name] = value

    def ours(self, *arguments: object, quiet: bool = True) -> Usage:
        """Run romfsfs."""
        return self.run(sys.executable, "-m", "romfsfs", *arguments, quiet=quiet)

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
        self.put_away(self.state)

    def put_away(self, path: Path) -> None:
        """Move a folder away, and leave its small files until the end: ext4 looks through all that
        were removed in the last seconds whenever one is made (10 s for 20,000 files)."""
        if path.exists():
            away = Path(tempfile.mkdtemp(prefix="old.", dir=self.place))
            path.rename(away / path.name)
            for file in away.rglob("*"):
                if file.is_file() and file.stat().st_size > MIB:
                    file.unlink()

    def fresh_cache(self) -> None:
        """No conversion is known any more."""
        shutil.rmtree(self.environment["ROMFSFS_CACHE_DIR"], ignore_errors=True)

    def compared(
        self, name: str, ours: Task, peers: Mapping[str, tuple[Task, float | None]],
        rounds: int | None = None,
    ) -> Iterator[Figure]:  # fmt: skip
        """Our task against each peer's, whose greatest ratio of wall time is beside it. Where two
        checkouts are compared, the new one's against the old one's instead."""
        if len(self.subjects) > 1:
            old, new = self.interleaved([self._as(each, ours) for each in self.subjects], rounds)
            yield at_most(name, new, self.subjects[0].name, old, None)
            return
        tasks = [ours, *(task for task, _ in peers.values())]
        own, *others = self.interleaved(tasks, rounds)
        for (peer, (_, limit)), measured in zip(peers.items(), others, strict=True):
            yield at_most(name, own, peer, measured, limit)

    def under(
        self, name: str, ours: Task, seconds: float | None = None, cpu: float | None = None,
        rounds: int | None = None,
    ) -> Iterator[Figure]:  # fmt: skip
        """Our task, that has no peer: under so many seconds, or processor seconds."""
        if len(self.subjects) > 1:
            yield from self.compared(name, ours, {}, rounds)
            return
        (own,) = self.interleaved([ours], rounds)
        goals = [f"under {shown(most)}{what}" for most, what in ((seconds, ""), (cpu, " of CPU"))
                 if most is not None]  # fmt: skip
        ok = (seconds is None or middle(own) < seconds) and (cpu is None or middle_cpu(own) < cpu)
        yield Figure(name, figure(own), goal=", ".join(goals), ok=ok if goals else None)

    def _as(self, subject: Subject, task: Task) -> Task:
        def as_subject() -> Usage:
            self.subject = subject
            return task()

        return as_subject

    def interleaved(self, tasks: Sequence[Task], rounds: int | None = None) -> list[list[Usage]]:
        """Each task once a round, the order turned each round; the results by task.

        One round more comes first and is thrown away: it finds the caches cold.
        """
        results: list[list[Usage]] = [[] for _ in tasks]
        for turn in range(-1, rounds or self.rounds):
            order = range(len(tasks)) if turn % 2 else range(len(tasks) - 1, -1, -1)
            for index in order:
                result = tasks[index]()
                if turn >= 0:
                    results[index].append(result)
        return results

    def close(self) -> None:
        """Whatever an interrupted section left mounted goes."""
        for name in ("fusermount3", "fusermount"):
            program = shutil.which(name)
            for mountpoint in self.place.glob("mnt-*"):
                if program and os.path.ismount(mountpoint):
                    subprocess.run([program, "-uz", str(mountpoint)], check=False)


def middle(usages: Sequence[Usage]) -> float:
    return statistics.median(usage.seconds for usage in usages)


def middle_cpu(usages: Sequence[Usage]) -> float:
    return statistics.median(usage.cpu for usage in usages)


def figure(usages: Sequence[Usage]) -> str:
    """Wall time and, where it is known, processor time."""
    cpu = middle_cpu(usages)
    return shown(middle(usages)) + (f" ({shown(cpu)} CPU)" if cpu else "")


def at_most(
    name: str, ours: Sequence[Usage], peer_name: str, peer: Sequence[Usage], limit: float | None
) -> Figure:
    """Our time over the peer's; the goal is a greatest ratio."""
    ratio = Ratio.of([each.seconds for each in ours], [each.seconds for each in peer])
    assert ratio is not None
    return Figure(
        name, figure(ours), f"{peer_name} {figure(peer)}", ratio,
        Ratio.of([each.cpu for each in ours], [each.cpu for each in peer]),
        "" if limit is None else f"at most {limit:g} x",
        None if limit is None else ratio.middle <= limit,
    )  # fmt: skip


def memory(name: str, peak: int, limit_mib: int) -> Figure:
    return Figure(name, f"{peak / MIB:.0f} MiB", goal=f"under {limit_mib} MiB",
                  ok=peak < limit_mib * MIB)  # fmt: skip


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
