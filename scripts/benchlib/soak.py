"""`scripts/soak`: which long runs there are, and the table of what they did."""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from measure import CHECKOUT, machine, shown

#: Where the output of each run is kept.
LOGS = CHECKOUT / ".cache/soak"


@dataclass(frozen=True)
class Run:
    """A long run: pytest on `tests`, `rounds` times.

    The tests find `size` in $ROMFSFS_LONG, and the number of the round, from 0 on, in
    $ROMFSFS_ROUND. What both mean is theirs to say: examples, operations, seconds, every
    so-many-th place; the defaults here are the long run that a release should have had.
    """

    what: str
    tests: tuple[str, ...]
    size: int
    rounds: int


RUNS = {
    "model": Run("random operations on a mount and a plain directory; size: examples a binding",
                 ("tests/trust/test_model.py",), 50, 10),
    "fsx": Run("one file changed in every way, against memory; size: operations a binding",
               ("tests/trust/test_fsx.py",), 50_000, 10),
    "hurt": Run("killed and refused at each change of a file; size: every so-many-th in a round",
                ("tests/trust/test_hurt.py", "tests/trust/test_faulty_disk.py"), 8, 8),
    "table": Run("every kind hurt at each step, and each command after; size: every so-many-th",
                 ("tests/session/test_session_table.py",), 4, 4),
    "transactions": Run("random commits, undos, pushes, mounts, edits, hurt; size: sequences",
                        ("tests/trust/test_transactions.py",), 300, 10),
    "hammer": Run("many threads, few names, every operation at once; size: seconds a binding",
                  ("tests/trust/test_hammer.py",), 120, 5),
    "processes": Run("several processes, each held to what it knows; size: seconds a binding",
                     ("tests/trust/test_processes.py",), 60, 5),
    "load": Run("fio, stress-ng, 20,000 files, 1 GiB, 200 mounts; size: seconds a kind of writer",
                ("tests/trust/test_load.py",), 60, 1),
}  # fmt: skip


@dataclass(frozen=True)
class Script:
    """Another script that runs long, only where it is named; `{size}` in its words: the size.

    failed, tests, figure: patterns of lines of its output: a failure's name, a test, a figure's
    name and value.
    """

    what: str
    words: tuple[str, ...]
    failed: str
    size: int = 0
    tests: str = r"(?!)"
    figure: str = r"(?!)()()"


SCRIPTS = {
    "fuzz": Script("scripts/fuzz --all; size: seconds a target",
                   ("scripts/fuzz", "--all", "--seconds", "{size}"),
                   r"scripts/fuzz: (\S+): a fault", 120,
                   figure=r"(number_of_executed_units|peak_rss_mb): *(\d+)"),
    "vm": Script("scripts/vm: cameras on USB, in a virtual machine",
                 ("scripts/vm",), r"^FAILED +(\S+)", tests=r"^(?:ok|FAILED) +\S+"),
    "mutants": Script("scripts/mutants: faults that no test notices; size: faults",
                      ("scripts/mutants", "--sample", "{size}"), r"^(romfsfs/\S+\.py:\d+): ", 300),
}  # fmt: skip


@dataclass
class Outcome:
    """What a run did. figures: by name; the sum of its tests', the greatest where named peak."""

    name: str
    seconds: float = 0.0
    rounds: int = 0
    tests: int = 0
    failed: list[str] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)

    def add(self, name: str, value: float) -> None:
        peak = name.startswith("peak")
        known = self.figures.get(name, 0)
        self.figures[name] = max(known, value) if peak else known + value

    def lines(self) -> Iterator[str]:
        verdict = f"{len(self.failed)} FAILED" if self.failed else "clean"
        done = f"{self.rounds} rounds, {self.tests} tests" if self.tests else ""
        yield f"{self.name:9} {shown(self.seconds):>10}  {verdict:10} {done}".rstrip()
        for name, value in sorted(self.figures.items()):
            yield f"  {name.replace('_', ' '):40} {value:>14,.0f}"
        yield from (f"  FAILED {test}" for test in self.failed)

    def record(self) -> dict[str, object]:
        return {**vars(self)}


def parse(arguments: list[str]) -> argparse.Namespace:
    runs = {name: run.what for name, run in RUNS.items()}
    runs |= {name: f"{script.what}; only when named" for name, script in SCRIPTS.items()}
    parser = argparse.ArgumentParser(
        prog="scripts/soak",
        description="Repeat the long runs of the trust tests.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="runs:\n" + "\n".join(f"  {name:9} {what}" for name, what in runs.items()),
    )
    parser.add_argument("runs", nargs="*", metavar="RUN", help="without: all of pytest")
    parser.add_argument("--seconds", type=float, help="begin no more rounds of a run after this")
    parser.add_argument("--rounds", type=int, help="rounds, instead of a run's own number")
    parser.add_argument("--size", type=int, help="size of a round, instead of a run's own")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="tests at a time")
    parser.add_argument("--json", metavar="FILE", type=Path, help="the figures, to keep")
    chosen = parser.parse_args(arguments)
    unknown = set(chosen.runs) - set(runs)
    if unknown:
        parser.error(f"no such run: {', '.join(sorted(unknown))}")
    return chosen


def soak(name: str, chosen: argparse.Namespace) -> Outcome:
    run, outcome = RUNS[name], Outcome(name)
    started = time.monotonic()
    rounds = chosen.rounds or run.rounds
    for number in range(rounds):
        one_round(run, number, chosen, outcome)
        outcome.rounds += 1
        outcome.seconds = time.monotonic() - started
        failed = f", {len(outcome.failed)} failed" if outcome.failed else ""
        print(f"{name}: round {number + 1} of {rounds}, {shown(outcome.seconds)}{failed}",
              file=sys.stderr)  # fmt: skip
        if chosen.seconds is not None and outcome.seconds >= chosen.seconds:
            break
    return outcome


def one_round(run: Run, number: int, chosen: argparse.Namespace, outcome: Outcome) -> None:
    said, report = LOGS / f"{outcome.name}-{number}.log", LOGS / f"{outcome.name}-{number}.xml"
    report.unlink(missing_ok=True)
    workers = ["-n", str(chosen.jobs), "--dist", "worksteal"] if chosen.jobs > 1 else []
    command = [
        sys.executable, "-m", "pytest", "-q", f"--junitxml={report}",
        "-o", "junit_family=xunit1",  # the one that has properties of tests
        *workers, *run.tests,
    ]  # fmt: skip
    environment = {
        "ROMFSFS_LONG": str(chosen.size or run.size), "ROMFSFS_ROUND": str(number),
    }  # fmt: skip
    with open(said, "wb") as output:
        done = subprocess.run(
            command, cwd=CHECKOUT, env={**os.environ, **environment}, stdin=subprocess.DEVNULL,
            stdout=output, stderr=subprocess.STDOUT, check=False,
        )  # fmt: skip
    failed = len(outcome.failed)
    if report.exists():
        count(report, outcome)
    if done.returncode and len(outcome.failed) == failed:
        outcome.failed.append(f"pytest ended with {done.returncode}")
    if done.returncode:
        tail = said.read_text(errors="replace").splitlines()[-40:]
        print("\n".join([*tail, f"all of it: {said}"]), file=sys.stderr)


def count(report: Path, outcome: Outcome) -> None:
    """Add up what pytest's report in JUnit's format says."""
    for case in ElementTree.parse(report).iter("testcase"):
        outcome.tests += 1
        if case.find("failure") is not None or case.find("error") is not None:
            outcome.failed.append(f"{case.get('classname')}::{case.get('name')}")
        for each in case.iter("property"):
            try:
                outcome.add(each.get("name", ""), float(each.get("value", "")))
            except ValueError:  # words, not a figure
                continue


def run_script(name: str, chosen: argparse.Namespace) -> Outcome:
    script, outcome = SCRIPTS[name], Outcome(name)
    started = time.monotonic()
    said = LOGS / f"{name}.log"
    words = [word.format(size=chosen.size or script.size) for word in script.words]
    with open(said, "wb") as output:
        done = subprocess.run(
            words, cwd=CHECKOUT, stdin=subprocess.DEVNULL, stdout=output,
            stderr=subprocess.STDOUT, check=False,
        )  # fmt: skip
    outcome.seconds = time.monotonic() - started
    text = said.read_text(errors="replace")
    outcome.tests = len(re.findall(script.tests, text, re.M))
    for figure, value in re.findall(script.figure, text):
        outcome.add({"number_of_executed_units": "inputs"}.get(figure, figure), int(value))
    outcome.failed = re.findall(script.failed, text, re.M)
    if done.returncode and not outcome.failed:
        outcome.failed.append(f"{words[0]} ended with {done.returncode}; see {said}")
    return outcome


def main() -> int:
    chosen = parse(sys.argv[1:])
    LOGS.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # say what was done until then, too
    memory = Path("/dev/shm")
    print(machine(memory if memory.exists() else CHECKOUT, "fusepy"), flush=True)
    outcomes: list[Outcome] = []
    try:
        for name in chosen.runs or RUNS:
            outcomes.append((run_script if name in SCRIPTS else soak)(name, chosen))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
    width = min(100, shutil.get_terminal_size().columns)
    print("-" * width)
    for outcome in outcomes:
        print("\n".join(outcome.lines()))
    failed = sum(len(outcome.failed) for outcome in outcomes)
    complete = len(outcomes) == len(chosen.runs or RUNS)
    total = sum(outcome.seconds for outcome in outcomes)
    print(f"{len(outcomes)} runs, {shown(total)}, {failed} failed")
    if chosen.json:
        chosen.json.write_text(json.dumps([outcome.record() for outcome in outcomes], indent=1))
    return 130 if not complete else int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
