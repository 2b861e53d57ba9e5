"""What tests need of a machine, by their marks, and what of that is missing here.

`mount` and `camera` come with the fixtures `fuse_device` and `micropython`; `desktop`,
`slow` and `program("zsh")` are written at the tests. docs/testing.md says what the tiers are.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parent.parent
#: the marks that a quick run leaves out whatever the machine has, and why
NOT_QUICK = {
    "camera": "simulated cameras, which need MicroPython",
    "desktop": "a desktop and its file manager",
    "program": "other programs",
    "slow": "long runs",
}
#: whether romfsfs has what Linux alone has; tests/without takes that from it, and from it alone
LINUX = hasattr(os, "O_PATH") and "lacking" not in sys.modules
#: what shows and works windows for tests/trust/desktop.py
DESKTOP = ("Xvfb", "xfwm4", "thunar", "xdotool", "xclip", "dbus-daemon", "zenity")


def find_program(name: str) -> str | None:
    """The path of a program, also of those that only root has on his PATH; None: not installed."""
    return shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")


@functools.cache
def libfuse(major: int) -> str:
    """The name under which the dynamic loader finds this libfuse; empty: it does not."""
    for name in {2: ["libfuse.so.2"], 3: ["libfuse3.so.4", "libfuse3.so.3"]}[major]:
        with contextlib.suppress(OSError):
            ctypes.CDLL(name)
            return name
    return ""


@functools.cache
def no_mounts() -> str:
    """Why nothing can be mounted here; empty: it can."""
    if sys.platform == "linux" and not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "there is no /dev/fuse that may be used here"
    if sys.platform == "linux" and not any(map(libfuse, (2, 3))):
        return "libfuse is not installed: scripts/prepare run"
    return ""


@functools.cache
def micropython(*bits: str) -> tuple[Path | None, str]:
    """An executable MicroPython with VfsRom, the firmware's own ROMFS reader, or why there is none.

    bits: "32", "64", or what there is. Fetched once by `scripts/get-micropython`.
    """
    done = subprocess.run(
        [CHECKOUT / "scripts" / "get-micropython", *bits],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=110, check=False,
    )  # fmt: skip
    if done.returncode:
        return None, done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "it failed"
    return Path(done.stdout.strip()), ""


def _missing(mark: pytest.Mark) -> str:
    """Why a test with this mark cannot run here; empty: it can."""
    if mark.name == "mount":
        return no_mounts()
    if mark.name == "camera":
        return micropython(*mark.args)[1]
    if mark.name in ("program", "desktop"):
        names = mark.args if mark.name == "program" else DESKTOP
        missing = [name for name in names if find_program(name) is None]
        return f"not installed: {', '.join(missing)}" if missing else ""
    return ""


def left_out(item: pytest.Item, *, quick: bool) -> str:
    """Why a test is not run, in the words of the summary; empty: it is run."""
    for mark in item.iter_markers():
        if quick and mark.name in NOT_QUICK:
            return NOT_QUICK[mark.name]
    for mark in item.iter_markers():
        if missing := _missing(mark):
            return missing
    return ""
