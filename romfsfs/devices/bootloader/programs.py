"""Finding and running dfu-util and blhost. Times in seconds.

Their argument lists are built, and their output read, by pure functions in `dfu_util` and `blhost`.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from romfsfs.errors import DeviceError, DeviceLost, printable
from romfsfs.system.beside import Cancel
from romfsfs.system.programs import find_on_path, install_command
from romfsfs.system.runner import Limits, Outcome, environment, run_tool

#: for a command that moves no image, and for what a transfer needs besides its bytes
QUICK = 20.0
_TRANSFER_START = 60.0
#: bytes per second that even the slowest board keeps up, erasing included
_SLOWEST = 20_000
#: characters of a tool's last line that an error repeats
_WORDS = 160
#: environment variables that a tool gets besides those for every program: blhost is a Python
#: program that may be installed for this user alone
_INHERITED = ("HOME", "LD_LIBRARY_PATH", "SYSTEMROOT", "LOCALAPPDATA", "APPDATA")


def transfer_limit(size: int) -> float:
    """Seconds that a transfer of so many bytes may take."""
    return _TRANSFER_START + size / _SLOWEST


def find_tool(name: str, install: str | None = None) -> str:
    """The tool's absolute path. DeviceError with the command that installs it if it is missing.

    install: that command, if it is not the system package manager's.
    """
    found = find_on_path(name)
    if found is None:
        raise DeviceError(f"{name} is not installed", next_step=install or install_command(name))
    return found


def run(
    argv: Sequence[str],
    seconds: float,
    *,
    cancel: Cancel | None = None,
    on_output: Callable[[str], None] | None = None,
) -> Outcome:
    """Run a tool in an empty folder: paths in `argv` must be absolute. DeviceLost if it takes more
    than `seconds`; Cancelled. `cancel` and `on_output` are called from another thread."""
    with tempfile.TemporaryDirectory(prefix="romfsfs-") as name:
        known = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        folder = Path(name)
        outcome = run_tool(
            argv,
            folder=folder,
            env=environment(folder, **known),
            limits=Limits(seconds),
            cancel=cancel,
            on_output=on_output,
        )
    if outcome.timed_out:
        raise DeviceLost(
            f"{os.path.basename(argv[0])} did not finish within {outcome.seconds:.0f} s",
            next_step="unplug the camera, plug it in again and repeat the command",
            detail=described(argv, outcome),
        )
    return outcome


def described(argv: Sequence[str], outcome: Outcome) -> str:
    """What was run and what it printed, for `-v`."""
    return " ".join(argv) + "\n" + outcome.output


def failed(argv: Sequence[str], outcome: Outcome, what: str, next_step: str) -> DeviceError:
    """The error for a tool that failed, with the last error line of its output."""
    lines = [line.strip() for line in outcome.output.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower()]
    why = f": {printable((errors or lines)[-1][:_WORDS])}" if lines else ""
    return DeviceError(
        f"{os.path.basename(argv[0])} could not {what} (status {outcome.status}{why})",
        next_step=next_step,
        detail=described(argv, outcome),
    )
