"""A tool runs, and a signal interrupts who waits for it: at each place where Python lets it.

`python interrupted_child.py WHAT FOLDER [TWICE]`: the handler of a signal runs where Python calls a
function or returns from one of C. So KeyboardInterrupt is raised at each of these places in turn,
once the tool runs (or cannot start before this thread goes on), each time in a child of its own.
Prints the places as JSON, with what was wrong at each: a hang, another error, a tool that runs on,
a file that stays. With TWICE the first comes while it waits, and a second at each place after it.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any

from romfsfs.convert import Conversion
from romfsfs.convert.types import State
from romfsfs.session.plan.conversions import Conversions
from romfsfs.system import runner
from romfsfs.system.interrupts import interrupt
from romfsfs.system.runner import Cancel, Limits, environment, run_tool

#: After so long a child that has not ended never will, seconds.
NEVER = 60.0
#: How long an interrupt waits for the tool to run, seconds.
SOON = 0.2
#: Who waits without passing another place is interrupted there, after so long, seconds.
WAITS = 1.5
AT_A_TIME = 12
#: How long the tool takes, once for all.
SECONDS = ["600"]


def tool(folder: Path, cancel: Cancel | None = None) -> None:
    with tempfile.TemporaryDirectory(dir=folder) as name:
        place = Path(name)
        run_tool(["sleep", SECONDS[0]], folder=place, env=environment(place),
                 limits=Limits(700, children=False), cancel=cancel)  # fmt: skip


class Slow:
    """Converters that run the tool."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def convert(self, path: str, fd: int, digest: str, cancel: Cancel) -> Conversion:
        tool(self.folder, cancel)
        return Conversion(State.FAILED, path)


def conversions(folder: Path, count: int) -> None:
    names = [f"{number}.py" for number in range(count)]
    for name in names:
        (folder / name).write_text("x = 1\n")
    entries: Any = [SimpleNamespace(path=n, state="pending", source_digest="") for n in names]
    slow: Any = Slow(folder)
    Conversions(slow, os.open(folder, os.O_RDONLY)).run(entries)


WHAT: dict[str, Callable[[Path], None]] = {
    "tool": tool,
    "conversion": lambda folder: conversions(folder, 1),
    "conversions": lambda folder: conversions(folder, 3),
}


class Interrupted:
    """Does it, interrupted at the place with this number.

    twice: first while it waits; places are counted from there on."""

    def __init__(self, what: Callable[[], None], number: int, twice: bool = False) -> None:
        self.what = what
        self.number = number
        self.twice = twice
        self.passed = 0
        self.place = ""
        self.started: list[Any] = []
        self.over = False

    def run(self) -> str:
        """What was wrong."""
        start = runner._start

        def noted(*arguments: Any) -> Any:
            process = start(*arguments)
            self.started.append(process)
            return process

        runner._start = noted
        if not self.twice:
            sys.setprofile(self.pass_by)
        try:
            self.what()
        except KeyboardInterrupt:
            self.over = True
            left = [process.pid for process in self.started if process.returncode is None]
            return f"{len(left)} tools run on" if left else ""
        except BaseException as error:
            return f"{type(error).__name__}: {error}"
        finally:
            sys.setprofile(None)
        return "it ended without an interrupt"

    def pass_by(self, frame: FrameType, event: str, _: object) -> None:
        if event not in ("call", "c_return"):
            return
        self.passed += 1
        if self.passed == self.number:
            sys.setprofile(None)
            self.place = f"{frame.f_code.co_name} line {frame.f_lineno}, {event}"
            until = time.monotonic() + SOON
            while not self.started and time.monotonic() < until:
                time.sleep(0.005)
            interrupt(signal.SIGINT, frame)

    def ring(self, number: int, frame: object) -> None:
        """It has waited for long."""
        if self.over:
            return  # on a busy machine it takes as long to get here
        if not self.twice:
            self.place = "waiting"
        elif self.started:
            sys.setprofile(self.pass_by)
        else:  # it does not wait yet, on a busy machine
            signal.setitimer(signal.ITIMER_REAL, SOON)
            return
        interrupt(number, frame)


def child(
    what: Callable[[Path], None], folder: Path, number: int, twice: bool
) -> tuple[str, str, int]:
    """The place, what was wrong there, and how many places there were."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        one = Interrupted(lambda: what(Path(name)), number, twice)
        if number or twice:
            signal.signal(signal.SIGALRM, one.ring)
            signal.setitimer(signal.ITIMER_REAL, SOON if twice else WAITS)
        else:
            SECONDS[0] = "0.2"
        wrong = one.run()
        # Once, it may come before the folder's owner knows of it.
        left = [path.name for path in Path(name).iterdir() if twice and path.is_dir()]
        return one.place, wrong or (f"{left} stay" if left else ""), one.passed


def forked(what: Callable[[Path], None], folder: Path, number: int, twice: bool) -> tuple[int, int]:
    """The child's process id, and where it tells what it found."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException):
            os.write(writing, json.dumps(child(what, folder, number, twice)).encode())
        os._exit(0)
    os.close(writing)
    return pid, reading


def heard(pid: int, reading: int) -> tuple[str, str, int]:
    said = b""
    if select.select([reading], [], [], NEVER)[0]:
        said = os.read(reading, 1 << 16)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(reading)
    return tuple(json.loads(said)) if said else ("somewhere", "it never ended", 0)


def main(what: str, folder: Path, twice: bool) -> None:
    places = heard(*forked(WHAT[what], folder, 0, twice))[2]
    found = {}
    for first in range(1, places + 1, AT_A_TIME):
        numbers = range(first, min(first + AT_A_TIME, places + 1))
        children = [forked(WHAT[what], folder, number, twice) for number in numbers]
        for number, one in zip(numbers, children, strict=True):
            place, wrong, _ = heard(*one)
            found[f"{number}: {place}"] = wrong
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:] == ["TWICE"])
