"""`desktop`: Commit and Status in the menus of file managers."""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
from pathlib import Path

import click

from romfsfs.cli import values
from romfsfs.cli.automount import program
from romfsfs.cli.output import Output
from romfsfs.desktop.file_managers import (
    ACTIONS,
    DIALOGS,
    SYSTEM_UCA,
    dialog_command,
    nautilus_scripts,
    uca_path,
    with_actions,
    without_actions,
)
from romfsfs.desktop.installed import install, uninstall
from romfsfs.desktop.notify import find_program, installing, notification_command
from romfsfs.desktop.units import config_home, data_home
from romfsfs.errors import EXIT_OK, RomfsError, UsageError
from romfsfs.session.find import find_session
from romfsfs.system.files import replace_atomically
from romfsfs.system.programs import find_on_path
from romfsfs.system.programs import install_command as package_command

_BACKUP = ".before-romfsfs"


@click.command()
@click.option("--install", "what", flag_value="install", help="Put the actions into the menus.")
@click.option("--uninstall", "what", flag_value="uninstall", help="Take them out again.")
@click.option("--run", "action", type=click.Choice(list(ACTIONS)), hidden=True)
@click.option("--dry-run", is_flag=True, help="Only print what would be written, and where.")
@click.argument("folder", required=False, shell_complete=values.folders)
@click.pass_obj
def desktop(
    output: Output, /, what: str | None, action: str | None, dry_run: bool, folder: str | None
) -> int:
    """Commit and Status in the context menus of Nautilus and Thunar.

    Scripts for Nautilus, custom actions for Thunar, in your own configuration; what else is in
    there stays as it is.
    """
    if action is not None:
        if folder is None:
            raise UsageError("no folder was named")
        return _run(action, folder)
    if what == "install":
        _install(output, dry_run)
    elif what == "uninstall":
        _uninstall(output, dry_run)
    else:
        raise UsageError("one option is needed", next_step="--install or --uninstall")
    return EXIT_OK


def _say_missing(output: Output) -> None:
    """Name the programs without which the actions have no window, and a mount no notifications."""
    if not any(map(find_on_path, DIALOGS)):
        output.note(
            f"zenity is not installed, which shows the outcome: {package_command('zenity')}"
        )
    if find_program() is None:
        output.note(f"notify-send is not installed, which tells of edits that a mount leaves: "
                    f"{installing()}")  # fmt: skip


def _install(output: Output, dry_run: bool) -> None:
    scripts = nautilus_scripts(program(), data_home())
    actions = uca_path(config_home())
    present = _present(actions)
    made = with_actions(present if present is not None else _present(SYSTEM_UCA), program())
    if dry_run:
        for path, data in [*((file.path, file.data) for file in scripts), (actions, made)]:
            output.show(f"# {path}\n{data.decode()}\n")
        return
    install(scripts)
    _say_missing(output)
    for file in scripts:
        output.say(f"written: {file.path}")
    if made == present:
        return
    if present is not None and without_actions(present) == present:
        with replace_atomically(_backup(actions)) as out:
            out.write(present)
        output.say(f"kept: {_backup(actions)}")
    _write(actions, made)
    output.say(f"written: {actions}")
    # It reads them once, when it starts, and then stays to serve further windows.
    output.note("a Thunar that is running shows them after a restart: thunar -q")


def _uninstall(output: Output, dry_run: bool) -> None:
    scripts = [file.path for file in nautilus_scripts(program(), data_home())]
    actions = uca_path(config_home())
    present = _present(actions)
    if dry_run:
        for path in [*(path for path in scripts if path.exists()), actions]:
            output.say(f"would remove or clean: {path}")
        return
    removed, left = uninstall(scripts)
    for path in removed:
        output.say(f"removed: {path}")
    for path in left:
        output.note(f"{path} was edited since it was installed, and was left in place")
    if present is None or (cleaned := without_actions(present)) == present:
        return
    if not _backup(actions).exists() and cleaned in (_present(SYSTEM_UCA), _without_any()):
        actions.unlink()  # there was none before, and nobody added to it
        output.say(f"removed: {actions}")
        return
    _write(actions, cleaned)
    output.say(f"cleaned: {actions}")
    if _present(_backup(actions)) == cleaned:
        _backup(actions).unlink()


def _without_any() -> bytes:
    return without_actions(with_actions(None, ["romfsfs"]))


def _backup(path: Path) -> Path:
    return path.with_name(path.name + _BACKUP)


def _present(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _write(path: Path, data: bytes) -> None:
    """Replace the user's file, keeping its mode and, where it is a link, the link."""
    real = path.resolve()
    real.parent.mkdir(parents=True, exist_ok=True)
    mode = real.stat().st_mode & 0o7777 if real.exists() else 0o644
    with replace_atomically(real, mode) as out:
        out.write(data)


def _run(action: str, folder: str) -> int:
    """Do it, and show the outcome in a window or, of `status`, in the browser; the exit code of the
    command."""
    from romfsfs.cli import main

    if action == "status" and _browse(folder):
        return EXIT_OK
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = main([action, folder])
    text = said.getvalue().strip()
    title = ACTIONS[action][1]
    command = _window(title, text, failed=code != EXIT_OK)
    if command is None:
        sys.stdout.write(text + "\n")
        raise RomfsError("no window can be shown", next_step="install zenity")
    subprocess.run(command, stdin=subprocess.DEVNULL, check=False)  # until it is closed
    return code


def _browse(folder: str) -> bool:
    """Open the status page of the mount that a folder lies in; whether that could be done."""
    opener = find_on_path("xdg-open")
    try:
        mountpoint = find_session(folder).mountpoint
    except RomfsError:  # the command says so
        return False
    if opener is None or mountpoint is None:
        return False
    page = str(mountpoint / ".romfs" / "status.html")
    return subprocess.run([opener, page], stdin=subprocess.DEVNULL, check=False).returncode == 0


def _window(title: str, text: str, *, failed: bool) -> list[str] | None:
    """A window, else a notification, else None."""
    for name in DIALOGS:
        found = find_on_path(name)
        if found is not None:
            return dialog_command(found, title, text, failed=failed)
    notifier = find_program()
    return notification_command(notifier, title, text) if notifier is not None else None
