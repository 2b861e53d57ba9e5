"""Runs one operation of romfsfs again and again, hurt at another place each time.

`python hurt.py OPERATION HOW EVERY [FIRST]`: HOW is `kill` (kill -9), or the name of an errno
with which a system call fails (`EIO`: that call; `ENOSPC+`: that call and all after it; `EIO read`:
that reading of, or look at, a file; needs `faults.c` preloaded), or a signal (`SIGINT`).
EVERY: hurt at every so many-th place only, from the FIRST (1) on. Prints what was found as JSON.
The operations `mounted-...` are done by a command while a daemon serves the session; `daemon` is
a commit by the daemon itself, asked for through `.romfs/ctl`.

The places are counted, not timed: each change that the process makes of a file (creating,
writing, syncing, renaming, linking, removing). Each run is a fork of this process, which has
imported all. What must hold afterwards: the target is the old image or the new one, byte for
byte; the edits are there; a fresh start works and can commit.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from desks import Desk

_CHANGES = {
    "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.truncate", "shutil.rmtree",
}  # fmt: skip
_CREATES = os.O_CREAT | os.O_TRUNC
SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")
_TEMPORARY = (
    "*.tmp", "work.new", "work.old", "staged.img", "found.img",
    "cache/convert/work/*", "cache/convert/locks/*", "cache/convert/results/*/tmp*",
    "recall/*/.tmp*", ".extracted.*", ".romfsfs.*",
)  # fmt: skip
_CALLS = ("write", "pwrite", "fsync", "copy_file_range", "ftruncate")


def hurt(desk: Desk, how: str, at: int) -> tuple[int, dict[str, Any]]:
    """Run a desk's operation, hurt at its `at`-th place (0: unhurt, to count them)."""

    def killed() -> tuple[int, int]:
        # A shell starts what runs in the background with Ctrl-C ignored.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        killer = Killer(at, signal.SIGKILL if how == "kill" else getattr(signal, how))
        killer.start()
        return desk.run_hurt(killer), killer.count

    def failing() -> tuple[int, int]:
        library = ctypes.CDLL(os.environ["ROMFSFS_FAULTS"])
        number = getattr(errno, how.removesuffix("+").removesuffix(" read"))
        library.fault_arm(at, number, how.endswith("+"), how.endswith(" read"))
        try:
            return desk.run(), library.fault_count()
        finally:
            library.fault_arm(0, 0, 0, 0)

    return desk.fork(killed if how == "kill" or how in SIGNALS else failing)


# -- hurting


class Killer:
    """Counts this process's changes of files, and sends it a signal before the `at`-th (0: never).

    In whatever thread that is: a worker's change interrupts the main thread.
    """

    def __init__(self, at: int, number: signal.Signals = signal.SIGKILL) -> None:
        self.at, self.count, self.number = at, 0, number
        self.armed = True

    def start(self) -> None:
        for name in filter(vars(os).__contains__, _CALLS):  # tests/without takes some away
            setattr(os, name, self.counted(getattr(os, name)))
        sys.addaudithook(self.heard)

    def counted(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **options: Any) -> Any:
            self.reached()
            return call(*args, **options)

        return wrapped

    def heard(self, event: str, args: tuple[Any, ...]) -> None:
        creates = event == "open" and isinstance(args[2], int) and args[2] & _CREATES
        if creates or event in _CHANGES:
            self.reached()

    def reached(self) -> None:
        self.count += self.armed
        if self.armed and self.count == self.at:
            os.kill(os.getpid(), self.number)


def desk_for(operation: str) -> Desk:
    from hurt_mounted import DaemonDesk, MountedDesk

    if operation == "daemon":
        return DaemonDesk(operation)
    return (MountedDesk if operation.startswith("mounted-") else Desk)(operation)


def attempt(operation: str, how: str, at: int, after: bytes = b"") -> tuple[int, str, bytes]:
    """(how many places there are, what is wrong, the target's bytes after it)."""
    desk = desk_for(operation)
    try:
        prepared = desk.fork(desk.prepare)[1]
        assert "error" not in prepared, prepared["error"]
        before = desk.image.read_bytes()
        status, answer = desk.hurt(how, at)
        places = answer.get("result", [0, 0])[1]
        said = answer.get("said", "") + answer.get("error", "")
        if at == 0 and answer.get("result", [1])[0] != 0:
            return places, f"it fails unhurt: {said}", b""
        if at and how == "kill" and not os.WIFSIGNALED(status) and operation != "daemon":
            return places, f"it was not killed: {said}", b""
        if at and how in SIGNALS and (wrong := left_behind(desk, said, answer)):
            return places, wrong, b""
        if how != "kill" and how not in SIGNALS and (wrong := unclear(said, answer)):
            return places, f"no clear error: {wrong}", b""
        found = desk.image.read_bytes()
        checked = desk.fork(lambda: desk.check(before, after))[1]
        return places, checked.get("result", "") or checked.get("error", ""), found
    finally:
        desk.remove()


def left_behind(desk: Desk, said: str, answer: dict[str, Any]) -> str:
    """What is wrong after a signal: one line, exit code 130, no temporary files, no tools."""
    code = answer.get("result", [None])[0]
    lines = [line for line in said.splitlines() if line.startswith("romfsfs: ")]
    if code not in (0, 130) or "Traceback" in said:
        return f"it ended with {code}: {said}"
    if code == 130 and not (len(lines) == 1 and "interrupted" in lines[0] and "; " in lines[0]):
        return f"it does not say how to go on: {said}"
    if said and code == 0:
        return f"the signal was swallowed: {said}" if "recover" not in said else ""
    left = [
        str(path.relative_to(desk.base))
        for pattern in _TEMPORARY
        for path in desk.base.rglob(pattern)
    ]
    running = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if str(desk.base) in os.readlink(process / "cwd"):
                running.append(process.name)
    return f"left behind: {left} {running}" if left or running else ""


def unclear(said: str, answer: dict[str, Any]) -> str:
    """What is wrong with what a failing operation said: an error is ours, on one line.

    A command prints `romfsfs: error: WHAT (WHERE); NEXT STEP`; a Python program gets a RomfsError.
    """
    if "error" in answer:
        last = next(
            line
            for line in said.splitlines()[::-1]
            if re.match(r"[\w.]+(Error|Lost|Busy|Absent|Answer|Changed)\b", line)
        )
        return "" if last.startswith("romfsfs.errors.") else said
    if "Traceback" in said:
        return said
    if answer["result"][0] == 0:
        return ""
    lines = [line for line in said.splitlines() if line.startswith("romfsfs: error: ")]
    if len(lines) != 1 or "; " not in lines[0]:
        return f"not one line with a next step: {said}"
    return ""


def hurt_all(operation: str, how: str, every: int, first: int = 1) -> dict[str, Any]:
    places, wrong, after = attempt(operation, how, 0)
    found = {0: wrong} if wrong else {}
    assert places, wrong
    tried = range(first, places + 1, every)
    for at in tried:
        wrong = attempt(operation, how, at, after)[1]
        if wrong:
            found[at] = wrong
    return {"places": places, "tried": len(tried), "found": found}


if __name__ == "__main__":
    print(json.dumps(hurt_all(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:]))))
