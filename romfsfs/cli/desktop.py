"""`desktop`: Commit and Status in file managers, and opening image files by double click."""

from __future__ import annotations

import contextlib
import io
import itertools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from romfsfs.cli import values
from romfsfs.cli.automount import program, remove
from romfsfs.cli.output import Output
from romfsfs.cli.parameters import PARTITION
from romfsfs.desktop import file_managers as menus
from romfsfs.desktop.file_managers import ACTIONS
from romfsfs.desktop.installed import File, install
from romfsfs.desktop.notify import notification_command
from romfsfs.desktop.programs import DIALOGS, PROGRAMS, find_notifier, missing
from romfsfs.desktop.units import config_home, data_home
from romfsfs.errors import EXIT_OK, RomfsError, UsageError
from romfsfs.session.find import find_session
from romfsfs.system.files import Progress, no_progress, replace_atomically
from romfsfs.system.mount_table import find_mount, hanging, is_dead, real_place
from romfsfs.system.programs import find_on_path
from romfsfs.system.user_folders import home_dir

#: What `--run` does with an image file.
_OPEN = "open"
_OPEN_TITLE = "Open ROMFS image"


@click.command()
@click.option("--install", "what", flag_value="install", help="Install all of that.")
@click.option("--uninstall", "what", flag_value="uninstall", help="Remove it again.")
@click.option(
    "--run", "action", type=click.Choice([*ACTIONS, _OPEN]),
    help="What the menus call: commit or show the status of the mount that PATH is in, or open the "
    "image file PATH. The outcome is shown in a window.",
)  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Only print what would be written, and where.")
@click.argument("path", required=False, shell_complete=values.files)
@PARTITION
@click.pass_obj
def desktop(
    output: Output, /, what: str | None, action: str | None, dry_run: bool, path: str | None,
    partition: int | None,
) -> int:  # fmt: skip
    """Commit and Status in the menus of file managers; a double click opens an image file.

    Installed in your own configuration: scripts for Nautilus, custom actions for Thunar, and a
    file type for images, which then open below ~/romfs. Nothing else in there is changed.
    """
    if action is not None:
        if path is None:
            raise UsageError("missing argument 'PATH'", next_step="romfsfs desktop --help")
        if action == _OPEN:
            return _open(path)
        return _run(action, path, *(["--partition", str(partition)] if partition else []))
    if what == "install":
        _install(output, dry_run)
    elif what == "uninstall":
        _uninstall(output, dry_run)
    else:
        raise UsageError("one option is needed", next_step="--install or --uninstall")
    return EXIT_OK


def _files() -> list[File]:
    """The files that are ours alone; Thunar's `uca.xml` is edited instead."""
    return [
        *menus.nautilus_scripts(program(), data_home()),
        *menus.image_type(program(), data_home()),
    ]


def _refresh(output: Output) -> None:
    """Update the desktop's caches after a change. `_install` reports programs that are missing."""
    for name, *words in menus.caches(data_home()):
        found = find_on_path(name)
        if found is None:
            continue
        done = subprocess.run([found, *words], capture_output=True, text=True, check=False)
        if done.returncode:
            output.note(f"{name}: {done.stderr.strip().partition(chr(10))[0]}")


def _install(output: Output, dry_run: bool) -> None:
    files = _files()
    actions = menus.uca_path(config_home())
    present = _present(actions)
    before = present if present is not None else _present(menus.SYSTEM_UCA)
    made = menus.with_actions(before, program())
    if dry_run:
        for path, data in [*((file.path, file.data) for file in files), (actions, made)]:
            output.show(f"# {path}\n{data.decode()}\n")
        return
    install(files)
    _refresh(output)
    for line in missing(PROGRAMS):
        output.note(line)
    for file in files:
        output.say(f"written: {file.path}")
    if made == present:
        return
    _write(actions, made)
    output.say(f"written: {actions}")
    # Thunar reads its actions once, at the start, and stays running for further windows.
    output.note("a Thunar that is running shows them after a restart: thunar -q")


def _uninstall(output: Output, dry_run: bool) -> None:
    actions = menus.uca_path(config_home())
    present = _present(actions)
    found = remove(output, [file.path for file in _files()], dry_run=dry_run)
    if found and not dry_run:
        _refresh(output)
    if present is None or (cleaned := menus.without_actions(present)) == present:
        if not found:
            output.say("nothing is installed")
    elif dry_run:
        output.say(f"would clean: {actions}")
    elif cleaned in (_present(menus.SYSTEM_UCA), menus.EMPTY_UCA):  # the user added nothing
        actions.unlink()
        output.say(f"removed: {actions}")
    else:
        _write(actions, cleaned)
        output.say(f"cleaned: {actions}")


def _present(path: Path) -> bytes | None:
    with contextlib.suppress(FileNotFoundError):
        return path.read_bytes()
    return None


def _write(path: Path, data: bytes) -> None:
    """Replace a file of the user's, keeping its mode; of a symbolic link, the file it names."""
    real = path.resolve()
    real.parent.mkdir(parents=True, exist_ok=True)
    mode = real.stat().st_mode & 0o7777 if real.exists() else 0o644
    with replace_atomically(real, mode) as out:
        out.write(data)


class _InWindows(Output):
    """Shows a command's progress in a zenity window. `_said` collects what it prints."""

    def __init__(self, title: str) -> None:
        super().__init__()
        self._title = title

    @contextlib.contextmanager
    def progress(self) -> Iterator[Progress]:
        zenity = find_on_path("zenity")
        if zenity is None:
            yield no_progress
            return
        command = menus.progress_command(zenity, self._title)
        pipe, nowhere = subprocess.PIPE, subprocess.DEVNULL
        with subprocess.Popen(command, stdin=pipe, stderr=nowhere, bufsize=0) as window:
            said = b""

            def show(phase: str, done: int, total: int) -> None:
                nonlocal said
                words = menus.progress_words(phase, done, total)
                if words != said and window.stdin is not None:
                    said = words
                    with contextlib.suppress(OSError):  # it was closed, or could not be shown
                        window.stdin.write(words)

            try:
                show("preparing", 0, 0)
                yield show
            finally:
                window.terminate()


def _run(action: str, path: str, *options: str) -> int:
    """Run the action and show the outcome in a window, or a status in the browser if possible.

    Returns the command's exit code. RomfsError if no window can be shown."""
    if action == "status" and _browse(path):
        return EXIT_OK
    title = ACTIONS[action][1]
    code, text = _said(title, [action, path, *options])
    _show(title, text, failed=code != EXIT_OK)
    return code


def _said(title: str, arguments: list[str]) -> tuple[int, str]:
    """Run a command; its exit code, and all that it printed."""
    from romfsfs.cli.app import run

    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = run(arguments, _InWindows(title))
    return code, said.getvalue().strip()


def _show(title: str, text: str, *, failed: bool) -> None:
    """Print a text and show it in a window until that is closed, else in a notification.

    RomfsError if neither can be shown."""
    sys.stdout.write(text + "\n")
    found = next(filter(None, map(find_on_path, DIALOGS)), None)
    notifier = find_notifier()
    if found is not None:
        command = menus.dialog_command(found, title, text, failed=failed)
    elif notifier is not None:
        command = notification_command(notifier, title, text)
    else:
        raise RomfsError("no window can be shown", next_step="install zenity")
    subprocess.run(command, stdin=subprocess.DEVNULL, check=False)


def _browse(path: str) -> bool:
    """Open the status page of the mount that `path` is in; False if that is not possible."""
    try:
        mountpoint = find_session(path).mountpoint
    except RomfsError:  # the `status` command reports it
        return False
    return mountpoint is not None and _opened(mountpoint / ".romfs" / "status.html")


def _opened(path: Path) -> bool:
    opener = find_on_path("xdg-open")
    if opener is None:
        return False
    return subprocess.run([opener, path], stdin=subprocess.DEVNULL, check=False).returncode == 0


def _open(image: str) -> int:
    """Open an image file as a folder; mount it below ~/romfs if it is not mounted. The exit code.

    RomfsError as `_show`."""
    mountpoint = None
    try:
        mountpoint = find_session(image).mountpoint
    except UsageError:  # it has no session yet
        pass
    except RomfsError as error:
        _show(_OPEN_TITLE, error.line, failed=True)
        return error.exit_code
    if mountpoint is None:
        mountpoint = _free_folder(Path(image).stem)
        code, text = _said(_OPEN_TITLE, ["mount", image, str(mountpoint)])
        if code != EXIT_OK:
            _show(_OPEN_TITLE, text, failed=True)
            return code
    if not _opened(mountpoint):
        _show(_OPEN_TITLE, f"It is mounted at {mountpoint}", failed=False)
    return EXIT_OK


def _free_folder(name: str) -> Path:
    """An empty folder below ~/romfs that is not a mountpoint; a dead mount counts as free."""
    for number in itertools.count(1):
        folder = home_dir("$HOME") / "romfs" / (name if number == 1 else f"{name}-{number}")
        if hanging(folder) is None and is_dead(folder):
            return folder
        if find_mount(real_place(folder)) is None:
            folder.mkdir(parents=True, exist_ok=True)
            if not any(folder.iterdir()):
                return folder
    raise AssertionError("unreachable")
