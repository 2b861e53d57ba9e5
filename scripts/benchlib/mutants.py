"""`scripts/mutants`: small faults, one at a time, and whether a test notices.

mutmut sees what runs in pytest's own process, and our daemons and commands run in others;
cosmic-ray runs the whole suite for every fault: so this is a third.

- A file with a fault is mounted over the real one, in namespaces of its own: whatever it deletes,
  mounts or leaves running ends there.
- Each test file is measured once, with the processes that it starts. A line that it reaches is
  known by its text, which outlives changes elsewhere.
- The test files that reach the line run first, then those that reach its module; quick ones first,
  as many as fit into BUDGET, up to a test that fails twice.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import itertools
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import coverage
from measure import CHECKOUT
from mutations import Mutation, mutations

PLACE = CHECKOUT / ".cache/mutants"
RESULTS, REACH, TMP = PLACE / "results.jsonl", PLACE / "reach", PLACE / "tmp"
ISOLATED = (  # without copies of mounts, which would keep their daemons alive
    "umount -a -l -t fuse,fuse.romfsfs; "
    'mount --bind "$1" /tmp && mount --bind /tmp/put "$2" && mount -o remount,bind,ro / && shift 2'
    ' && { "$@"; exit $?; }'
)
#: seconds of tests for a fault
BUDGET = 300
#: in a .pth file: of every Python of the .venv
MEASURED = b"\nimport os; os.environ['COVERAGE_PROCESS_START'] = '/tmp/ini'; \
import coverage; coverage.process_startup()\n"
INI = f"[run]\nsource={CHECKOUT}/romfsfs\ndata_file=/tmp/data\nparallel=true\npatch=fork,_exit\n"


def pytest(place: Path, content: bytes, seconds: float, *words: str) -> tuple[int | None, str]:
    """Run it where the file at `place` has this content. Its exit code (None: the time is over)
    and what it printed; what it leaves in /tmp is in TMP."""
    shutil.rmtree(TMP, ignore_errors=True)
    TMP.mkdir(parents=True)
    TMP.chmod(0o1777)
    (TMP / "put").write_bytes(content)
    (TMP / "ini").write_text(INI)
    code, output = None, TMP / "output"
    with output.open("wb") as file, contextlib.suppress(subprocess.TimeoutExpired):
        code = subprocess.run(
            ["unshare", "--fork", "--pid", "--kill-child", "--mount", "--mount-proc",
             "bash", "-c", ISOLATED, "bash", TMP, place, sys.executable, "-m", "pytest", "-q",
             "-rfE", "--tb=short", "-p", "no:xdist", "-p", "no:cacheprovider", *words],
            stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True,
            timeout=seconds, check=False, cwd=CHECKOUT,
        ).returncode  # fmt: skip
    return code, output.read_text(errors="replace")


def failures(output: str) -> list[str]:
    lines = (line for line in output.splitlines() if line.startswith(("FAILED ", "ERROR ")))
    return [line.split(" ", 1)[1].split(" - ")[0] for line in lines]


def measured(file: str) -> dict[str, Any]:
    """What a test file reaches, its seconds, and those of its tests that always fail."""
    place = REACH / f"{file.replace('/', '+')}.json"
    if place.exists():
        return dict(json.loads(place.read_bytes()))
    (pth,) = Path(sys.prefix).glob("lib/python*/site-packages/__editable__*.pth")
    started, data, reached = time.monotonic(), coverage.CoverageData(no_disk=True), set()
    _, output = pytest(pth, pth.read_bytes() + MEASURED, 1500, file)
    for part in map(coverage.CoverageData, TMP.glob("data.*")):
        with contextlib.suppress(coverage.CoverageException):  # of a process that was killed
            part.read()
            data.update(part)
    for path in map(Path, data.measured_files()):
        name, texts = path.relative_to(CHECKOUT), path.read_text().splitlines()
        reached |= {f"{name}:{texts[at - 1].strip()}" for at in data.lines(str(path)) or ()}
    took, failed = time.monotonic() - started, failures(output)
    print(f"measured {file} ({took:.0f} s)", flush=True)
    place.write_text(json.dumps({"seconds": took, "failed": failed, "reached": sorted(reached)}))
    return measured(file)


def nearest(fault: Mutation, source: bytes, reach: dict[str, Any]) -> list[str]:
    """Test files that may notice, the likeliest first."""
    line = f"{fault.path}:{source.splitlines()[fault.line - 1].decode().strip()}"
    found = {}
    for file, record in reach.items():
        if any(each.startswith(f"{fault.path}:") for each in record["reached"]):
            found[file] = line not in record["reached"], record["seconds"]
    return sorted(found, key=found.__getitem__)


def hurt(fault: Mutation, reach: dict[str, Any]) -> str:
    """The test that notices, or what there is instead of one; '': all pass."""
    place = CHECKOUT / fault.path
    source = place.read_bytes()
    near = nearest(fault, source, reach)
    total = list(itertools.accumulate(reach[file]["seconds"] for file in near))
    chosen = near[: max(1, sum(seconds <= BUDGET for seconds in total))]
    left_out = [test for file in chosen for test in reach[file]["failed"]]
    while chosen:
        words = "-x", *chosen, *(f"--deselect={test}" for test in left_out)
        code, output = pytest(place, fault.applied(source), 60 + 4 * BUDGET, *words)
        if code == 0:
            break
        failed = failures(output)
        if not failed:  # it does not even start, or does not end
            return "the time" if code is None else output.strip()[-200:]
        if pytest(place, fault.applied(source), 120, failed[0])[0] != 0:
            return failed[0]
        left_out += failed  # it fails now and then: the others decide
    return ""


def sample(paths: list[Path], seed: str, count: int) -> list[Mutation]:
    """The order is drawn by hash: the same seed gives the same ones, also after edits elsewhere."""
    found = [
        each
        for path in sorted(CHECKOUT.glob("romfsfs/**/*.py"))
        if any(wanted in (path, *path.parents) for wanted in paths)
        for each in mutations(str(path.relative_to(CHECKOUT)), path.read_bytes())
    ]
    found.sort(key=lambda each: hashlib.sha256(f"{seed}{each.name}".encode()).digest())
    picked: list[Mutation] = []
    for each in found:
        with contextlib.suppress(SyntaxError, ValueError):
            if len(picked) < count:
                compile(each.applied((CHECKOUT / each.path).read_bytes()), each.path, "exec")
                picked.append(each)
    return picked


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/mutants", description="Faults no test notices.")
    parser.add_argument("paths", nargs="*", type=Path, default=[CHECKOUT / "romfsfs"])
    parser.add_argument("--sample", type=int, default=300, help="how many faults (300)")
    parser.add_argument("--seed", default="1", help="another seed, another sample")
    parser.add_argument("--again", action="store_true", help="those again that nothing noticed")
    chosen = parser.parse_args()
    REACH.mkdir(parents=True, exist_ok=True)
    tests = sorted(str(each.relative_to(CHECKOUT)) for each in CHECKOUT.glob("tests/**/test_*.py"))
    reach = {file: measured(file) for file in tests}
    survived = []
    picked = sample([path.absolute() for path in chosen.paths], chosen.seed, chosen.sample)
    with RESULTS.open("a+") as file:
        file.seek(0)
        noticed = {each["name"]: each["noticed"] for each in map(json.loads, file)}
        for each in picked:
            if each.name not in noticed or (chosen.again and not noticed[each.name]):
                noticed[each.name] = hurt(each, reach)
                print(json.dumps({"name": each.name, "noticed": noticed[each.name]}), file=file)
                file.flush()
                print(f"{noticed[each.name] or 'SURVIVED'}: {each.name}", flush=True)
            if not noticed[each.name]:
                survived.append(f"{each.path}:{each.line}: {each.name}")
    print(f"seed {chosen.seed}: {len(picked)} faults, unnoticed {len(survived)}:")
    print("\n".join(survived))


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
