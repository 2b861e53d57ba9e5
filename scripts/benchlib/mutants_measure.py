"""In the measured copy of `scripts/mutants`: which test reaches which line, in whatever process.

Every Python of that copy's .venv imports this before anything else, by a .pth file; pytest takes
it as a plugin too. `coverage.ini` names the test that runs: commands and daemons that it starts
count for it, also where a test gives them an environment of their own.
PYTEST_DONT_REWRITE, as it is here before pytest is.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import coverage

PLACE = Path(sys.prefix).parent / ".measured"
#: seconds of each test, by its name; the place of a test in here is its context
SECONDS: dict[str, float] = {}


def start() -> None:
    if (PLACE / "coverage.ini").exists():
        os.environ["COVERAGE_PROCESS_START"] = str(PLACE / "coverage.ini")
        coverage.process_startup()


def settings(place: Path, context: str = "") -> None:
    """Write what coverage is to do in processes that start from now on."""
    new = place / f"settings.{os.getpid()}"
    new.write_text(
        f"[run]\nsource = {place.parent}/romfsfs\ndata_file = {place}/data\nparallel = true\n"
        f"context = {context}\npatch = fork, _exit\n"
    )
    new.replace(place / "coverage.ini")


def pytest_runtest_logstart(nodeid: str) -> None:
    context = f"t{len(SECONDS)}"
    settings(PLACE, context)
    _switch(context)
    SECONDS[nodeid] = -time.monotonic()


def pytest_runtest_logfinish(nodeid: str) -> None:
    SECONDS[nodeid] += time.monotonic()
    _switch("")


def _switch(context: str) -> None:
    measured = coverage.Coverage.current()
    assert measured is not None
    measured.switch_context(context)


def pytest_sessionfinish() -> None:
    lines = (f"{took:.3f} {name}\n" for name, took in SECONDS.items())
    (PLACE / "seconds").write_text("".join(lines))
