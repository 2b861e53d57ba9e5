"""`scripts/mutants`: small faults, one at a time, and whether a test notices.

mutmut sees what runs in pytest's own process, and our daemons and commands run in others;
cosmic-ray runs the whole suite for every fault: so this is a third.

- A file with a fault is mounted over the real one, in namespaces of its own: whatever it deletes,
  mounts or leaves running ends there.
- The files of quick tests that name the module run first, those of its part and those that name
  few others before the rest; then the rest of its part; then, for BUDGET seconds, files that name
  modules which import it.
- A test that fails is run again, with the fault and without it: one that fails now and then, or
  always, notices nothing.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from measure import CHECKOUT
from mutations import Mutation, mutations

PLACE = CHECKOUT / ".cache/mutants"
RESULTS, TMP = PLACE / "results.jsonl", PLACE / "tmp"
ISOLATED = (  # without copies of mounts, which would keep their daemons alive
    "umount -a -l -t fuse,fuse.romfsfs; "
    'mount --bind "$1" /tmp && mount --bind /tmp/put "$2" && mount -o remount,bind,ro / || exit 99;'
    ' shift 2; "$@"; exit $?'
)
#: seconds for the tests that name the module, for those further away, and for one test: this
#: machine is not as busy as one that `timeout` in pyproject.toml is for
NEAR, BUDGET, HUNG = 900, 300, 100


def pytest(place: Path, content: bytes, seconds: float, *words: str) -> tuple[int | None, str]:
    """Run the quick tests among `words` where the file at `place` has this content. Its exit code
    (None: the time is over) and what it printed."""
    shutil.rmtree(TMP, ignore_errors=True)
    TMP.mkdir(parents=True)
    TMP.chmod(0o1777)
    (TMP / "put").write_bytes(content)
    code, output = None, TMP / "output"
    with output.open("wb") as file, contextlib.suppress(subprocess.TimeoutExpired):
        code = subprocess.run(
            ["unshare", "--fork", "--pid", "--kill-child", "--mount", "--mount-proc",
             "bash", "-c", ISOLATED, "bash", TMP, place, sys.executable, "-m", "pytest", "-q",
             "--quick", "-x", "-rfE", "--tb=short", "-p", "no:xdist", "-p", "no:cacheprovider",
             f"--timeout={HUNG}", *words],
            stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True,
            timeout=seconds, check=False, cwd=CHECKOUT,
        ).returncode  # fmt: skip
    if code == 99:  # no test has run; a checkout below /tmp is one reason
        raise SystemExit(output.read_text(errors="replace"))
    return code, output.read_text(errors="replace")


def failures(output: str) -> list[str]:
    lines = (line for line in output.splitlines() if line.startswith(("FAILED ", "ERROR ")))
    return [line.split(" ", 1)[1].split(" - ")[0] for line in lines]


@cache
def file_of(module: str) -> Path | None:
    """The file of a module of romfsfs, or of the longest part of its name that is one."""
    names = module.split(".")
    while names[0] == "romfsfs" and len(names) > 1:
        path = CHECKOUT.joinpath(*names)
        for file in (path.with_suffix(".py"), path / "__init__.py"):
            if file.exists():
                return file
        names.pop()
    return None


@cache
def names_in(file: Path) -> frozenset[str]:
    """Modules that a file imports, or names in a text: what a test replaces."""
    found = set()
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import):
            found |= {each.name for each in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{each.name}" for each in node.names)}
        elif isinstance(node, ast.Constant) and str(node.value).startswith("romfsfs."):
            found.add(str(node.value))
    return frozenset(found)


@cache
def named(file: Path) -> frozenset[Path]:
    """Files of romfsfs that this file names, itself or, of a test, by its helpers."""
    waiting, seen, found = [file], {file}, set()
    while waiting:
        names = names_in(waiting.pop())
        found |= {each for each in map(file_of, names) if each}
        if CHECKOUT / "tests" in file.parents:
            folders = file.parent, CHECKOUT / "tests"
            helpers = {folder / f"{name}.py" for name in names for folder in folders} - seen
            waiting += filter(Path.exists, helpers)
            seen |= helpers
    return frozenset(found)


def nearest(fault: Mutation) -> Iterator[tuple[int, list[str]]]:
    """Test files that may notice, the likeliest first, and for how many seconds."""
    place, part = CHECKOUT / fault.path, CHECKOUT / "tests" / Path(fault.path).parts[1]
    tests = sorted(
        CHECKOUT.glob("tests/**/test_*.py"),
        key=lambda file: (part not in file.parents, len(named(file)), file),
    )
    users = {each for each in CHECKOUT.glob("romfsfs/**/*.py") if place in named(each)}
    near = [file for file in tests if place in named(file)]
    near += [file for file in tests if part in file.parents and file not in near]
    far = [file for file in tests if users & named(file) and file not in near]
    for seconds, files in ((NEAR, near), (BUDGET, far)):
        if files:
            yield seconds, [str(file.relative_to(CHECKOUT)) for file in files]


def hurt(fault: Mutation) -> str:
    """The test that notices, or what there is instead of one; '': all pass."""
    place = CHECKOUT / fault.path
    source = place.read_bytes()
    for seconds, files in nearest(fault):
        left_out: list[str] = []
        while True:
            words = *files, *(f"--deselect={test}" for test in left_out)
            code, output = pytest(place, fault.applied(source), seconds, *words)
            failed = failures(output)
            if code is None and seconds == NEAR:
                return "the time"
            if code in (None, 0, 5):  # 5: no test of the quick tier
                break
            if not failed:  # it does not even start
                return output.strip()[-200:]
            again = pytest(place, fault.applied(source), 120, failed[0])[0]
            if again != 0 and pytest(place, source, 120, failed[0])[0] == 0:
                return failed[0]
            left_out += failed  # the others decide
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
    PLACE.mkdir(parents=True, exist_ok=True)
    survived = []
    picked = sample([path.absolute() for path in chosen.paths], chosen.seed, chosen.sample)
    with RESULTS.open("a+") as file:
        file.seek(0)
        noticed = {each["name"]: each["noticed"] for each in map(json.loads, file)}
        for each in picked:
            if each.name not in noticed or (chosen.again and not noticed[each.name]):
                noticed[each.name] = hurt(each)
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
