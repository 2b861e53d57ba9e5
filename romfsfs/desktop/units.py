"""Mounting a camera when it is plugged in: systemd user units, and the udev rule that starts them.

The rule tags the serial ports of known boards, by USB id, for systemd, and lets users open the
boards' boot loaders. Installing it needs root, once.
systemd then starts `romfsfs@ttyACM0.service` in the session of every user who installed the units
(systemd.device(5): SYSTEMD_USER_WANTS), and stops it when the device goes. It does not start it for
devices that were there before the user's systemd: a second unit does that at login.
"""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path

from romfsfs.boards import Board
from romfsfs.desktop.installed import File, filled
from romfsfs.errors import UsageError
from romfsfs.system.user_folders import home_dir

UNIT = "romfsfs@.service"
#: Runs at login. A drop-in wants it: enabling it would make a link, which `installed` cannot list.
LOGIN = "romfsfs-login.service"
_WANTED = "default.target.d/romfsfs.conf"
#: After 60-serial.rules, which names the device, and before 73-seat-late.rules, which grants
#: access to what is tagged uaccess.
RULE = Path("/etc/udev/rules.d/70-romfsfs.rules")


#: Groups that serial ports belong to: Debian and Fedora, Arch.
PORT_GROUPS = ("dialout", "uucp")


def units(program: Sequence[str], folder: Path) -> list[File]:
    """The user units: the template, whose instance is the device's kernel name (`ttyACM0`), and
    the one at login.

    program: romfsfs's argv, with an absolute path. folder: cameras are mounted in folders below it.
    UsageError for paths that a unit cannot express.
    """
    if any(c in program[0] for c in "\"'\\$"):
        what = "systemd cannot start a program whose path has a quote, a backslash or a $"
        raise UsageError(what, where=program[0])
    command = " ".join(_quoted(word) for word in program)
    below = _quoted(str(folder))
    place = f'{below[:-1]}/%i"' if below.endswith('"') else f"{below}/%i"
    texts = {UNIT: filled(UNIT, PROGRAM=command, FOLDER=below, PLACE=place)}
    texts |= {LOGIN: filled(LOGIN, PROGRAM=command), _WANTED: f"[Unit]\nWants={LOGIN}\n"}
    home = config_home() / "systemd" / "user"
    return [File(home / name, text.encode()) for name, text in texts.items()]


def _quoted(word: str) -> str:
    """A word of a unit's command line (systemd.service(5), systemd.syntax(7))."""
    if any(c in word for c in "\n\r\0"):
        raise UsageError("a path with a line break cannot be used here", where=repr(word))
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    plain = all(c.isalnum() or c in "/._-+@:,=" for c in word)
    return escaped if plain else f'"{escaped}"'


def rule(boards: Iterable[Board]) -> str:
    """The udev rule for these boards: their serial ports, and their boot loaders on USB, which
    only root may open otherwise."""
    named: dict[tuple[int, int], list[str]] = {}
    loaders: dict[tuple[int, int], list[str]] = {}
    for board in boards:
        for ids in board.runtime_ids:
            named.setdefault(ids, []).append(board.name)
        for ids in (*board.runtime_ids, *board.loader_ids):
            loaders.setdefault(ids, []).append(board.name)
    opened = f'TAG+="uaccess", MODE="0660", GROUP="{port_group()}"'
    mounted = 'TAG+="systemd", TAG+="uaccess", ENV{ID_MM_DEVICE_IGNORE}="1", '
    mounted += 'ENV{SYSTEMD_USER_WANTS}+="romfsfs@%k.service"'
    return filled("romfsfs.rules", LOADERS=_each(loaders, opened), PORTS=_each(named, mounted))


def _each(found: dict[tuple[int, int], list[str]], actions: str) -> str:
    return "\n".join(
        f"# {', '.join(names)}\n"
        f'ATTRS{{idVendor}}=="{vid:04x}", ATTRS{{idProduct}}=="{pid:04x}", {actions}'
        for (vid, pid), names in sorted(found.items())
    )


def port_group() -> str:
    """The group that serial ports belong to on this system."""
    import grp

    for name in PORT_GROUPS:
        with contextlib.suppress(KeyError):
            return grp.getgrnam(name).gr_name
    return PORT_GROUPS[0]


def rule_command(program: Sequence[str], *, remove: bool = False) -> str:
    """The shell command that installs or removes the rule with sudo, and reloads udev."""
    trigger = "sudo udevadm trigger --subsystem-match=tty --subsystem-match=usb"
    reload = f"sudo udevadm control --reload && {trigger}"
    if remove:
        return f"sudo rm -f {RULE} && {reload}"
    return f"{shlex.join(program)} automount --rule | sudo tee {RULE} >/dev/null && {reload}"


def config_home() -> Path:
    """The folder of the user's configuration (XDG Base Directory Specification)."""
    chosen = os.environ.get("XDG_CONFIG_HOME", "")
    return Path(chosen) if os.path.isabs(chosen) else home_dir("$XDG_CONFIG_HOME") / ".config"


def data_home() -> Path:
    """The folder of the user's data files (XDG Base Directory Specification)."""
    chosen = os.environ.get("XDG_DATA_HOME", "")
    if os.path.isabs(chosen):
        return Path(chosen)
    return home_dir("$XDG_DATA_HOME") / ".local" / "share"
