"""`automount`: cameras are mounted when they are plugged in."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import click

from romfsfs.boards import boards
from romfsfs.cli.output import Output
from romfsfs.cli.parameters import JSON
from romfsfs.desktop.installed import File, install, uninstall
from romfsfs.desktop.units import RULE, config_home, rule, rule_command, unit, unit_path
from romfsfs.errors import EXIT_FAILURE, EXIT_OK, RomfsError, UsageError
from romfsfs.system.files import home_dir
from romfsfs.system.programs import find_on_path

_SYSTEMCTL_SECONDS = 20


def program() -> list[str]:
    """How other programs call this romfsfs: the console script beside this Python, if there.

    `python -m romfsfs` imports modules from the folder it is started in first: who calls it so,
    starts it in `/`.
    """
    script = Path(sys.executable).with_name("romfsfs")
    if os.access(script, os.X_OK):
        return [str(script)]
    found = find_on_path("romfsfs")
    return [os.path.abspath(found)] if found else [sys.executable, "-m", "romfsfs"]


@click.command()
@click.option("--install", "what", flag_value="install", help="Mount cameras from now on.")
@click.option(
    "--uninstall",
    "what",
    flag_value="uninstall",
    help="Stop that; remove the unit.",
)
@click.option("--status", "what", flag_value="status", help="What is set up (the default).")
@click.option("--rule", "what", flag_value="rule", help="Print the udev rule.")
@click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Where: each camera in a folder of its own, named by its port. Default: ~/cameras.",
)
@click.option("--dry-run", is_flag=True, help="Only print what would be written, and where.")
@JSON
@click.pass_obj
def automount(
    output: Output, /, what: str | None, directory: Path | None, dry_run: bool, as_json: bool
) -> int:
    """Mount cameras when they are plugged in, with systemd and udev. Off until --install.

    The user unit is written to your own configuration; the udev rule needs root, so the command
    that installs it is shown. Edits are kept when a camera is unplugged.
    """
    if sys.platform != "linux":
        raise RomfsError("automount needs systemd and udev: Linux only")
    folder = (directory or home_dir("--dir") / "cameras").absolute()
    wanted = File(unit_path(config_home()), unit(program(), folder).encode())
    text = rule(boards().values())
    if what == "rule":
        output.show(text)
    elif what == "install" and dry_run:
        output.show(f"# {wanted.path}\n{wanted.data.decode()}\n# {RULE}\n{text}")
    elif what == "install":
        install([wanted])
        output.say(f"written: {wanted.path}")
        _reload(output)
        if not _has_rule(text):
            output.say(f"one more step, once, as root:\n  {rule_command(program())}")
    elif what == "uninstall":
        return _uninstall(output, wanted.path, dry_run)
    else:
        return _status(output, wanted, text, as_json)
    return EXIT_OK


def _uninstall(output: Output, path: Path, dry_run: bool) -> int:
    if dry_run:
        output.say(f"would remove: {path}")
        return EXIT_OK
    removed, left = uninstall([path])
    for each in removed:
        output.say(f"removed: {each}")
    for each in left:
        raise UsageError(
            "it was edited since it was installed, and was left in place", where=str(each)
        )
    if removed:
        _reload(output)
    if RULE.exists():
        output.say(f"one more step, once, as root:\n  {rule_command(program(), remove=True)}")
    elif not removed:
        output.say("nothing was installed")
    return EXIT_OK


def _status(output: Output, wanted: File, text: str, as_json: bool) -> int:
    """Exit code 1 when cameras are not mounted, so that scripts can ask."""
    record: dict[str, Any] = {
        "unit": str(wanted.path), "unit_installed": wanted.path.exists(),
        "rule": str(RULE), "rule_installed": RULE.exists(), "rule_current": _has_rule(text),
    }  # fmt: skip
    on = record["unit_installed"] and record["rule_installed"]
    if as_json:
        output.json({**record, "on": on})
    else:
        for name in ("unit", "rule"):
            state = "installed" if record[f"{name}_installed"] else "not installed"
            output.show(f"{name}: {state} ({record[name]})\n")
        if record["rule_installed"] and not record["rule_current"]:
            output.note(
                f"the installed rule is from another version; update it: {rule_command(program())}"
            )
        elif record["unit_installed"] and not record["rule_installed"]:
            output.note(f"as root: {rule_command(program())}")
        elif not record["unit_installed"]:
            output.note("turn it on with: romfsfs automount --install")
    return EXIT_OK if on else EXIT_FAILURE


def _has_rule(text: str) -> bool:
    try:
        return RULE.read_text() == text
    except OSError:
        return False


def _reload(output: Output) -> None:
    """Let the user's systemd see the unit now; without one it will at the next login."""
    command = ["systemctl", "--user", "daemon-reload"]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_SYSTEMCTL_SECONDS,
            check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        done = None
    if done is None or done.returncode:
        output.note(f"takes effect after: {' '.join(command)}, or at the next login")
