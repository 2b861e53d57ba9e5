"""`automount`: mount cameras when they are plugged in."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from romfsfs.boards import boards
from romfsfs.cli.output import Output
from romfsfs.cli.parameters import JSON
from romfsfs.desktop.installed import File, install, uninstall
from romfsfs.desktop.notify import tell_not_mounted
from romfsfs.desktop.units import RULE, rule, rule_command, units
from romfsfs.devices.discovery import serial_cameras
from romfsfs.errors import EXIT_FAILURE, EXIT_OK, DeviceBusy, RomfsError, SessionBusy
from romfsfs.system.programs import find_on_path
from romfsfs.system.user_folders import home_dir

_SYSTEMCTL_SECONDS = 20
#: Seconds for which a camera that another program uses is retried, and between two tries.
BUSY_SECONDS = 60.0
_PAUSE = 2.0


def program() -> list[str]:
    """The argv with which other programs start romfsfs: this Python's console script, if there.

    Else the `romfsfs` on PATH, else `python -m romfsfs`. That imports from the current folder
    first, so callers start it in `/`.
    """
    script = Path(sys.executable).with_name("romfsfs")
    if os.access(script, os.X_OK):
        return [str(script)]
    found = find_on_path("romfsfs")
    return [os.path.abspath(found)] if found else [sys.executable, "-m", "romfsfs"]


@click.command()
@click.option("--install", "what", flag_value="install", help="Mount cameras from now on.")
@click.option("--uninstall", "what", flag_value="uninstall", help="Stop that; remove the units.")
@click.option("--status", "what", flag_value="status", help="What is set up (the default).")
@click.option("--rule", "what", flag_value="rule", help="Print the udev rule.")
@click.option("--now", "what", flag_value="now", help="Mount those that are plugged in already.")
@click.option("--plugged", "port", type=click.Path(), metavar="PORT", hidden=True)
@click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Mount each camera in a folder below DIR, named after its port. Default: ~/cameras.",
)
@click.option("--dry-run", is_flag=True, help="Only print what would be written, and where.")
@JSON
@click.pass_obj
def automount(
    output: Output, /, what: str | None, port: str | None, directory: Path | None, dry_run: bool
) -> int:
    """Mount cameras when they are plugged in, with systemd and udev. Off until --install.

    The user units are written to your own configuration; the udev rule needs root, so the command
    that installs it is shown. Edits are kept when a camera is unplugged. A camera that another
    program uses is tried again for a minute; a notification says what could not be mounted.
    """
    if sys.platform != "linux":
        raise RomfsError("automount needs systemd and udev: Linux only")
    folder = (directory or home_dir("--dir") / "cameras").absolute()
    wanted = units(program(), folder)
    text = rule(boards().values())
    if port is not None:
        _mount_plugged(output, port, folder)
    elif what == "now":
        _start_units(output)
    elif what == "rule":
        output.show(text)
    elif what == "install" and dry_run:
        shown = "".join(f"# {each.path}\n{each.data.decode()}\n" for each in wanted)
        output.show(f"{shown}# {RULE}\n{text}")
    elif what == "install":
        install(wanted)
        for each in wanted:
            output.say(f"written: {each.path}")
        if not _systemctl("daemon-reload"):
            output.note("takes effect at the next login")
        if _has_rule(text):
            _start_units(output)
        else:
            output.say(f"one more step, once, as root:\n  {rule_command(program())}")
    elif what == "uninstall":
        _uninstall(output, [each.path for each in wanted], dry_run)
    else:
        return _status(output, wanted, text)
    return EXIT_OK


def _mount_plugged(output: Output, port: str, folder: Path) -> None:
    """Mount the camera on `port` in the foreground: what the systemd unit runs. RomfsError.

    The user sees no terminal, so a notification says why a camera is not mounted."""
    from romfsfs.cli.mounting import mount

    name = os.path.basename(port)
    context, place = click.get_current_context(), str(folder / name)
    end = time.monotonic() + BUSY_SECONDS
    said = ""
    try:
        while True:
            try:
                context.invoke(mount, source=port, directory=place, notify=True, foreground=True)
                return
            except (DeviceBusy, SessionBusy) as error:
                if time.monotonic() > end:
                    raise
                if error.line != said:
                    output.note(f"{error.line}; it is tried again")
                    said = error.line
                time.sleep(_PAUSE)
    except RomfsError as error:
        tell_not_mounted(name, error.line)
        raise


def _start_units(output: Output) -> None:
    """Start the units of connected cameras: systemd starts none for a camera that was there before
    the rule or the login."""
    names = [os.path.basename(camera.port) for camera in serial_cameras() if camera.vid]
    named = [f"romfsfs@{name}.service" for name in names]
    if named and not _systemctl("start", "--no-block", *named):
        output.note(f"plug in again to mount: {', '.join(names)}")


def _uninstall(output: Output, paths: list[Path], dry_run: bool) -> None:
    found = remove(output, paths, dry_run=dry_run)
    if found and not dry_run:
        _systemctl("daemon-reload")
    if RULE.exists():
        output.say(f"one more step, once, as root:\n  {rule_command(program(), remove=True)}")
    elif not found:
        output.say("nothing is installed")


def remove(output: Output, paths: list[Path], *, dry_run: bool) -> list[Path]:
    """Remove installed files and print which; return those found. Edited files are left."""
    removed, left = uninstall(paths, dry_run=dry_run)
    for path in removed:
        output.say(f"{'would remove' if dry_run else 'removed'}: {path}")
    for path in left:
        output.note(f"{path} was edited since it was installed, and is left in place")
    return removed + left


def _status(output: Output, wanted: list[File], text: str) -> int:
    """Print what is installed. Exit code 1 if automounting is off, so that scripts can ask."""
    record: dict[str, Any] = {
        "unit": str(wanted[0].path),
        "unit_installed": all(each.path.exists() for each in wanted),
        "rule": str(RULE), "rule_installed": RULE.exists(), "rule_current": _has_rule(text),
    }  # fmt: skip
    on = record["unit_installed"] and record["rule_installed"]
    output.json({**record, "on": on})
    for name in ("unit", "rule"):
        state = "installed" if record[f"{name}_installed"] else "not installed"
        output.show(f"{name}: {state} ({record[name]})\n")
    advice = ""
    if record["rule_installed"] and not record["rule_current"]:
        advice = "the installed rule is from another version; update it: "
        advice += rule_command(program())
    elif record["unit_installed"] and not record["rule_installed"]:
        advice = f"as root: {rule_command(program())}"
    elif not record["unit_installed"]:
        advice = "turn it on with: romfsfs automount --install"
    if advice and not output.as_json:
        output.note(advice)
    return EXIT_OK if on else EXIT_FAILURE


def _has_rule(text: str) -> bool:
    with suppress(OSError):
        return RULE.read_text() == text
    return False


def _systemctl(*words: str) -> bool:
    """Run systemctl for the user's systemd; False if there is none, or it fails."""
    command = ["systemctl", "--user", *words]
    with suppress(OSError, subprocess.SubprocessError):
        subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_SYSTEMCTL_SECONDS,
            check=True,
        )  # fmt: skip
        return True
    return False
