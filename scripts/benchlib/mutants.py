"""`scripts/mutants`: small faults, one at a time, and whether a test notices.

mutmut knows the tests of a function by what runs in pytest's own process, and our daemons and
commands run in others; cosmic-ray runs the whole suite for every fault: so this is a third.

- Each test's commands and daemons are measured too, so the map says which test reaches which line.
  A line is known by its function and text: the map outlives changes elsewhere in a file.
- The tests that reach a fault are run, quick and special ones first, up to the first that fails
  twice, and in all as many as fit into the budget. A time that is over is a fault noticed.
- The order of the faults is drawn by hash: the same seed gives the same sample, also after edits.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import queue
import re
import shutil
import signal
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import coverage
from measure import CHECKOUT
from mutants_copy import PLACE, RUNNING, Copy
from mutants_measure import settings
from mutations import Mutation, mutations, places

RESULTS, MAP = PLACE / "results.jsonl", PLACE / "map"
#: tests that look at the checkout rather than at romfsfs
NOT_OURS = ("tests/vm/", "tests/test_documents.py", "tests/test_imports.py")
#: tests that reach nearly everything are measured last
WIDE = "tests/integration", "tests/fuzz", "tests/camera", "tests/trust"
#: seconds of tests that are tried before the wider ones
QUICK = 15.0


@cache
def known(path: str, source: bytes) -> tuple[dict[int, str], list[str]]:
    return places(source), source.decode().splitlines()


def key(path: str, source: bytes, line: int) -> str:
    functions, texts = known(path, source)
    return f"{path}:{functions.get(line, '')}:{texts[line - 1].strip()}"


def failures(output: str) -> list[str]:
    """Names of tests, each with what pytest says behind it."""
    marks = "FAILED ", "ERROR "
    return [line.split(" ", 1)[1] for line in output.splitlines() if line.startswith(marks)]


# -- the map


def measure(copy: Copy, file: str) -> dict[str, Any]:
    """Run one test file and say which of its tests that passed reaches which lines."""
    place = copy.root / ".measured"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    packages = next((copy.root / ".venv").glob("lib/python*/site-packages"))
    shutil.copy(Path(__file__).with_name("mutants_measure.py"), packages)
    (packages / "mutants_measure.pth").write_text("import mutants_measure; mutants_measure.start()")
    settings(place)
    code, output = copy.pytest([file], 1500, "-p", "mutants_measure", "--timeout=400")
    reached: dict[str, set[str]] = defaultdict(set)
    for data in place.glob("data.*"):
        read = coverage.CoverageData(data)
        with contextlib.suppress(coverage.CoverageException):  # of a process that was killed
            read.read()
            for path in map(Path, read.measured_files()):
                relative, source = str(path.relative_to(copy.root)), path.read_bytes()
                for line, contexts in read.contexts_by_lineno(str(path)).items():
                    for context in contexts if line in known(relative, source)[0] else ():
                        reached[context].add(key(relative, source, line))
    names = sorted(set().union(*reached.values()))
    number = {name: at for at, name in enumerate(names)}
    failed, tests = failures(output), {}
    for at, line in enumerate((place / "seconds").read_text().splitlines()):
        seconds, name = line.split(" ", 1)
        if not any(each.startswith(name) for each in failed):
            tests[name] = [float(seconds), sorted(number[each] for each in reached[f"t{at}"])]
    return {"code": code, "failed": failed, "names": names, "tests": tests}


def digest(file: str) -> str:
    return hashlib.sha256((CHECKOUT / file).read_bytes()).hexdigest()


def test_files() -> dict[str, Path]:
    """Test files, and where what they reach is kept."""
    names = sorted(str(path.relative_to(CHECKOUT)) for path in CHECKOUT.glob("tests/**/test_*.py"))
    names.sort(key=lambda name: (name.startswith(WIDE), name))
    ours = [name for name in names if not name.startswith(NOT_OURS)]
    return {name: MAP / f"{name.replace('/', '+')}.json" for name in ours}


def make_map(jobs: int) -> None:
    """Measure the test files that are not in the map as they are now."""

    def work(number: int, item: tuple[str, Path]) -> None:
        (file, place), started = item, time.monotonic()
        record = {"digest": digest(file), **measure(copies[number], file)}
        place.write_text(json.dumps(record))
        failed = f", {len(record['failed'])} failed" if record["failed"] else ""
        print(f"measured {file} ({time.monotonic() - started:.0f} s{failed})", flush=True)

    todo = [
        (file, place)
        for file, place in test_files().items()
        if not place.exists() or json.loads(place.read_bytes())["digest"] != digest(file)
    ]
    copies = [Copy(f"measured-{number}") for number in range(jobs if todo else 0)]
    side_by_side(work, todo, jobs)


@dataclass(frozen=True)
class Reach:
    """tests: by "path:function:line", "path:function" and "path". lines: how many a test reaches;
    one that reaches few is a special one."""

    seconds: dict[str, float]
    lines: dict[str, int]
    tests: dict[str, set[str]]

    def of(self, mutation: Mutation, source: bytes) -> tuple[list[str], str]:
        """Tests that should notice, the likeliest first, and how near they come to it."""
        lines = range(mutation.lines[0], mutation.lines[1] + 1 if mutation.where else 0)
        near = set[str]().union(
            *(self.tests.get(key(mutation.path, source, line), ()) for line in lines)
        )
        how = "line"
        for wider in (f"{mutation.path}:{mutation.where}", mutation.path):
            if not near:
                near, how = self.tests.get(wider, set()), "function" if ":" in wider else "module"
        return sorted(near, key=lambda test: self.seconds[test] + self.lines[test] / 5000), how


def read_map() -> Reach:
    found = Reach({}, {}, defaultdict(set))
    for place in test_files().values():
        record = json.loads(place.read_bytes()) if place.exists() else {"tests": {}}
        for test, (took, reached) in record["tests"].items():
            found.seconds[test], found.lines[test] = took, len(reached)
            for name in (record["names"][at] for at in reached):
                path, function, _ = name.split(":", 2)
                for wider in (name, f"{path}:{function}", path):
                    found.tests[wider].add(test)
    return found


# -- the faults


def side_by_side(work: Callable[[int, Any], None], items: list[Any], jobs: int) -> None:
    """work(number of the worker, item) for each. KeyboardInterrupt ends what runs."""
    todo: queue.SimpleQueue[Any] = queue.SimpleQueue()
    for item in items:
        todo.put(item)

    def run(number: int) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                work(number, todo.get_nowait())

    threads = [threading.Thread(target=run, args=(at,), daemon=True) for at in range(jobs)]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            while thread.is_alive():
                thread.join(1)
    finally:
        for process in list(RUNNING):
            process.kill()


def notice(copy: Copy, tests: list[str], reach: Reach) -> str:
    """The test that fails twice; what there is instead of one; empty: all pass."""
    while tests:
        code, output = copy.pytest(tests, 60 + 4 * sum(map(reach.seconds.__getitem__, tests)), "-x")
        if code == 0:
            return ""
        failed = failures(output)
        at = next((t for t in tests if any(each.startswith(t) for each in failed)), None)
        if at is None:  # it does not even start, or does not end
            return "the time" if code is None else output.strip()[-200:]
        if copy.pytest([at], 60 + 4 * reach.seconds[at])[0] != 0:
            return at
        tests = tests[tests.index(at) + 1 :]  # it fails now and then: the others decide
    return ""


def hurt(copy: Copy, mutation: Mutation, reach: Reach, budget: float) -> dict[str, Any]:
    """Whether a test notices, and which. The copy is whole again afterwards."""
    started = time.monotonic()
    source = (CHECKOUT / mutation.path).read_bytes()
    tests, how = reach.of(mutation, source)
    first, wider, total = [], [], 0.0
    for test in tests:
        total += reach.seconds[test]
        if total <= QUICK or not first:
            first.append(test)
        elif total <= budget:
            wider.append(test)
    copy.write(mutation.path, mutation.applied(source))
    try:
        noticed = notice(copy, first, reach) or notice(copy, wider, reach)
    finally:
        copy.write(mutation.path, source)
    return {
        "name": mutation.name, "noticed": noticed, "reach": how, "tests": len(tests),
        "left": len(tests) - len(first) - len(wider),
        "seconds": round(time.monotonic() - started),
    }  # fmt: skip


def sample(paths: list[str], seed: str, match: str, count: int) -> list[Mutation]:
    wanted = [Path(path).absolute() for path in paths] or [CHECKOUT / "romfsfs"]
    files = [
        path
        for path in sorted(CHECKOUT.glob("romfsfs/**/*.py"))
        if any(each in (path, *path.parents) for each in wanted)
    ]
    found = [
        each
        for path in files
        for each in mutations(str(path.relative_to(CHECKOUT)), path.read_bytes())
        if re.search(match, each.name)
    ]
    found.sort(key=lambda each: hashlib.sha256(f"{seed}{each.name}".encode()).digest())
    picked: list[Mutation] = []
    for each in found:
        with contextlib.suppress(SyntaxError, ValueError):
            if len(picked) < count:
                compile(each.applied((CHECKOUT / each.path).read_bytes()), each.path, "exec")
                picked.append(each)
    return picked


def shown(mutation: Mutation, result: dict[str, Any]) -> str:
    line = (CHECKOUT / mutation.path).read_bytes().count(b"\n", 0, mutation.start) + 1
    return (
        f"{mutation.path}:{line} {mutation.where}: {result['tests']} tests reach this "
        f"{result['reach']}, {result['left']} were not run\n    {mutation.text}\n"
        f"    {mutation.old!r} -> {mutation.new!r}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/mutants", description="Faults no test notices.")
    parser.add_argument("paths", nargs="*", metavar="PATH", help="files, folders; all of romfsfs")
    parser.add_argument("--sample", type=int, default=300, help="how many faults (300)")
    parser.add_argument("--seed", default="1", help="another seed, another sample")
    parser.add_argument(
        "--match", default="", metavar="REGEX", help="of PATH:FUNCTION:LINE:OLD->NEW"
    )
    parser.add_argument("--jobs", type=int, default=1, help="faults at a time (1)")
    parser.add_argument("--budget", type=float, default=120, help="seconds of tests a fault (120)")
    parser.add_argument("--again", action="store_true", help="those again that nothing noticed")
    parser.add_argument("--map", action="store_true", help="only measure new and changed tests")
    chosen = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    MAP.mkdir(parents=True, exist_ok=True)
    if chosen.map or not any(MAP.iterdir()):
        make_map(chosen.jobs)
    if chosen.map:
        return 0
    reach = read_map()
    lines = RESULTS.read_text().splitlines() if RESULTS.exists() else []
    results = {record["name"]: record for record in map(json.loads, lines)}
    picked = sample(chosen.paths, chosen.seed, chosen.match, chosen.sample)
    todo = [
        each
        for each in picked
        if each.name not in results or (chosen.again and not results[each.name]["noticed"])
    ]

    def work(number: int, mutation: Mutation) -> None:
        result = results[mutation.name] = hurt(copies[number], mutation, reach, chosen.budget)
        with RESULTS.open("a") as file:
            file.write(json.dumps(result) + "\n")
        print("noticed" if result["noticed"] else f"SURVIVED {shown(mutation, result)}", flush=True)

    copies = [Copy(str(number)) for number in range(chosen.jobs if todo else 0)]
    with contextlib.suppress(KeyboardInterrupt):
        side_by_side(work, todo, chosen.jobs)
    done = [(each, results[each.name]) for each in picked if each.name in results]
    survived = [(each, result) for each, result in done if not result["noticed"]]
    print(f"\nseed {chosen.seed}: {len(done)} faults, {len(done) - len(survived)} noticed")
    print("\n".join(shown(*each) for each in survived))
    return 0 if len(done) == len(picked) else 1


if __name__ == "__main__":
    sys.exit(main())
