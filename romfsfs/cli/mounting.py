"""`mount` and `umount`."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from romfsfs.cli import values
from romfsfs.cli.choices import chosen, conversion_options
from romfsfs.cli.fstab import split_options
from romfsfs.cli.output import Output
from romfsfs.cli.parameters import (
    DIRECTORY,
    NO_RESET,
    PARTITION,
    SLOT,
    SLOT_TO_READ,
    SOURCE,
    WAIT,
    board,
)
from romfsfs.cli.reports import say_commit, wait_for
from romfsfs.desktop.notify import Notifier, desktop_runs
from romfsfs.desktop.programs import find_notifier, missing
from romfsfs.errors import (
    DeviceError,
    RomfsError,
    SessionBusy,
    UsageError,
    count_text,
    printable,
    shell_word,
    too_large,
)
from romfsfs.fs.daemon import MountOptions
from romfsfs.fs.daemon import mount as mount_fuse
from romfsfs.fs.mountpoint import FILE_SYSTEM, unmount
from romfsfs.session.connect import session_device
from romfsfs.session.find import Found, find_session, is_stuck, no_answer, server
from romfsfs.session.keep.folder import find_mounted
from romfsfs.session.mounting import MountRequest
from romfsfs.session.plan.admission import admit_files
from romfsfs.session.plan.problems import ERROR
from romfsfs.session.plan.status import Status
from romfsfs.session.rebase.commit import CommitOptions, commit
from romfsfs.session.rebase.read import OpenOptions
from romfsfs.session.revert import leave_work, revert
from romfsfs.session.service import SessionHost
from romfsfs.session.session import Session
from romfsfs.system.errors import worded
from romfsfs.system.files import Progress
from romfsfs.system.mount_table import dead_mountpoint, find_mount, hanging, real_place


@click.command()
@SOURCE
@DIRECTORY
@board("The board that the image is for; remembered. See: romfsfs boards.")
@PARTITION
@SLOT
@WAIT
@click.option("--new", "start_new", is_flag=True, help="Start empty, whatever SOURCE holds.")
@click.option("--read-only", is_flag=True, help="Nothing can be changed through the mount.")
@conversion_options
@click.option("--foreground", "-f", is_flag=True, help="Stay in the foreground; Ctrl-C unmounts.")
@click.option(
    "--commit-on-unmount", is_flag=True, help="`romfsfs umount` commits unless told otherwise."
)
@click.option(
    "--notify/--no-notify", default=None,
    help="Desktop notifications of failed conversions, and of edits left at the end; by default "
    "where a desktop is running.",
)  # fmt: skip
@click.option("--allow-other", is_flag=True, help="Other users may use the mount too.")
@click.option(
    "-o", "options", multiple=True, metavar="OPTS", callback=split_options, is_eager=True,
    shell_complete=values.mount_options, help="Mount options, as in fstab.",
)  # fmt: skip
@click.pass_obj
def mount(
    output: Output, /, source: str, directory: str, options: tuple[str, ...], **given: Any
) -> None:
    """Mount SOURCE at DIR; returns when the directory is ready.

    Edits stay in a session on this machine until they are committed; unmounting keeps them. What
    is chosen about conversions is remembered with it.
    """
    options_of_session = OpenOptions(
        given["board"], given["partition"], chosen(given), given["exclude"],
        given["commit_on_unmount"], given["start_new"], given["slot"],
    )  # fmt: skip
    request = MountRequest(
        source, Path(directory), options_of_session, given["read_only"],
        Notifier if _notifies(output, given["notify"]) else None,
    )  # fmt: skip
    inside = request.mountpoint == _here()

    def open_host(progress: Progress) -> SessionHost:
        """Open the host in the daemon, and collect the notes there, where the session is loaded."""
        host = request.open_host(progress)
        request.said.append(host.session.info.name)
        try:
            with worded():
                request.said.extend(_worth_knowing(host.session, directory, request.resumed))
        except RomfsError as error:  # a failing disk, say: mount all the same
            request.said.append(error.line)
        return host

    wait_for(output, [source] if given["wait"] else [], given["partition"])
    with output.progress() as progress:
        # request.source is absolute: mount(8) would resolve a relative path in its own folder.
        mount_options = MountOptions(
            request.source, given["allow_other"], given["foreground"], options, progress,
            request.say_where, request.give_up,
        )  # fmt: skip
        opened = request.open_host if given["foreground"] else open_host
        _, lines = mount_fuse(opened, directory, mount_options)
    if given["foreground"]:
        return
    name, *notes = lines
    output.say(f"{printable(name)} is mounted at {printable(directory)}")
    if inside:
        notes.append("your shell is still in the folder below the mount; to enter the mount: cd .")
    for note in notes:
        output.note(note)


def _notifies(output: Output, chosen: bool | None) -> bool:
    """Whether the mount sends notifications; notes what is missing if they were asked for."""
    if chosen:
        for line in missing(["notify-send", "zenity"]):
            output.note(line)
    return find_notifier() is not None and (desktop_runs() if chosen is None else chosen)


def _worth_knowing(session: Session, directory: str, resumed: Status | None) -> Iterator[str]:
    """Notes for the user on what was mounted. RomfsError, OSError."""
    info, capacity = session.info, session.settings.capacity
    yield from info.notes
    if not info.board and not info.notes:
        limit = "" if info.capacity else ", the size is not limited"
        yield (f"no board chosen: scripts become portable bytecode{limit}; "
               "romfsfs boards lists what --board takes")  # fmt: skip
    if capacity is not None and session.base.image_size > capacity:
        what = too_large(session.base.image_size, capacity, "").what
        yield f"{what}: romfsfs status {shell_word(directory)}"
    if info.board:
        held = session.held()
        problems = admit_files(held.extents.items(), held.fd, session.settings.target)
        wrong = [problem for problem in problems if problem.severity == ERROR]
        if wrong:
            yield (f"{count_text(len(wrong), 'file')} in the image cannot work on {info.board}: "
                   f"romfsfs status {shell_word(directory)}")  # fmt: skip
    if resumed is not None:
        what = "it has edits that are not committed" if resumed.edited else _made_anew(resumed)
        yield f"{what}: romfsfs status {shell_word(directory)}"


def _made_anew(status: Status) -> str:
    return f"it has no edits, but a commit would rebuild {count_text(status.changes, 'file')}"


@click.command()
@click.argument("directory", metavar="DIR or SOURCE", shell_complete=values.mounts)
@click.option(
    "--commit", "save", is_flag=True, help="Commit the edits first; stays mounted if that fails."
)
@click.option("--discard", is_flag=True, help="Throw the edits away.")
@click.option("--keep", is_flag=True, help="Keep the edits for the next mount (the default).")
@click.option("--lazy", is_flag=True, help="Detach the mountpoint even while it is in use.")
@NO_RESET
@PARTITION
@SLOT_TO_READ
@click.pass_obj
def umount(
    output: Output, directory: str, save: bool, discard: bool, keep: bool, lazy: bool,
    no_reset: bool, partition: int | None, slot: str,
) -> None:  # fmt: skip
    """Unmount DIR, or the mount of SOURCE. Without an option the edits are kept for the next mount.

    Where SOURCE is not mounted, --discard drops the edits that were kept for it.
    """
    asked = [name for name, on in (("commit", save), ("discard", discard), ("keep", keep)) if on]
    if len(asked) > 1:
        given = " ".join(f"--{name}" for name in asked)
        raise UsageError("only one of these can be given", where=given, next_step="choose one")
    how = asked[0] if asked else None
    hangs = hanging(directory)
    if hangs is None and _is_dead(directory):
        _umount_dead(output, directory, how, partition, slot, lazy=lazy, no_reset=no_reset)
        return
    found = find_session(directory, partition, slot, stuck=True)
    if hangs is not None or (not found.inside and is_stuck(found)):
        _umount_stuck(output, found, lazily=lazy and how != "commit")
        return
    path = os.path.realpath(directory)
    if found.mountpoint is not None and not found.inside and not os.path.isdir(path):
        path = os.path.realpath(found.mountpoint)  # SOURCE was named
    if found.mountpoint is None or os.path.realpath(found.mountpoint) != path:
        if found.inside:
            raise _no_mountpoint(directory, str(found.mountpoint))
        if how == "discard":
            _after(output, found.session, how)
            return
        raise UsageError("it is not mounted", where=directory, next_step="romfsfs sessions")
    session = found.session
    how = how or _remembered(session)
    if how == "commit":
        _commit(output, found, no_reset)
    if not lazy:  # a commit in progress still updates the tree through the mount
        session.folder.refuse_changed(session.info.name)
    holder = session.folder.mounted_at()
    _leave(path)
    if _unmount(path, how, holder.pid if holder else None, lazy):
        _after(output, session, how)
        return
    output.note(f"programs still use the mount that was at {directory}; its process ends when they "
                "do; until then it cannot be mounted again")  # fmt: skip
    then = "the edits are kept"
    if how == "discard":
        then += f"; when it has ended, drop them: romfsfs revert {session.info.argument}"
    output.say(then)


def _remembered(session: Session) -> str:
    """What becomes of the edits where `umount` was not told."""
    return "commit" if session.info.commit_on_unmount else "keep"


def _commit(output: Output, found: Found, no_reset: bool) -> None:
    session = found.session
    with session_device(session, "commit") as opened, output.progress() as progress:
        options = CommitOptions(restart=not no_reset)
        report = commit(session, opened, options, found.mounted, progress)
    say_commit(output, session.info.name, report)


def _unmount(path: str, how: str, pid: int | None, lazy: bool) -> bool:
    """`unmount`; for `discard`, tell the daemon first, or it notifies the desktop of the edits."""
    if how == "discard":
        _tell(path, how)
    try:
        return unmount(path, pid=pid, lazy=lazy)
    except RomfsError:
        if how == "discard":
            _tell(path, "keep")
        raise


def _tell(path: str, word: str) -> None:
    """Tell the daemon what becomes of the edits: `keep` or `discard`."""
    with contextlib.suppress(OSError):  # a mount of another version, or one that has just ended
        (Path(path) / ".romfs" / "ctl").write_text(word)


def _is_dead(directory: str) -> bool:
    """Whether a mount of ours is there whose daemon was killed. UsageError for a path in one."""
    place = dead_mountpoint(directory)
    mount = None if place is None else find_mount(place)
    if place is None or (mount is not None and mount.kind != FILE_SYSTEM):
        return False
    if place != real_place(directory):
        raise _no_mountpoint(directory, place)
    return True


def _no_mountpoint(directory: str, mountpoint: str) -> UsageError:
    """The error for a path in a mount."""
    next_step = f"romfsfs umount {shell_word(mountpoint)}"
    return UsageError("not a mountpoint of romfsfs", where=directory, next_step=next_step)


def _umount_dead(
    output: Output, directory: str, how: str | None, partition: int | None, slot: str, *,
    lazy: bool, no_reset: bool,
) -> None:  # fmt: skip
    """Remove a mount whose daemon was killed, even if no session knows of it, unless that is to be
    committed: the commit needs no daemon, and comes first here too."""
    place = real_place(directory)
    folder = find_mounted(place, dead=True)
    if folder is not None:
        how = how or _remembered(Session.load(folder))
    if how == "commit":
        found = find_session(directory, partition, slot)
        if not found.idle:
            _commit(output, found, no_reset)
    unmount(place, lazy=lazy)
    output.say("the mount's process had ended; the mount was removed")
    if folder is not None:
        _after(output, Session.load(folder), "discard" if how == "discard" else "keep")


def _umount_stuck(output: Output, found: Found, *, lazily: bool) -> None:
    """Detach a mount that does not answer, and so cannot be committed. RomfsError unless lazily."""
    if not lazily:
        raise no_answer(found)
    pid, where = server(found)
    unmount(where, lazy=True)
    output.note(
        f"process {pid} does not answer and still holds the session; kill -9 {pid} frees it"
    )
    output.say("the edits are kept")


def _here() -> str:
    """The current folder; '' if it is gone, e.g. with a mount that was detached lazily."""
    try:
        return os.getcwd()
    except OSError:
        return ""


def _leave(path: str) -> None:
    """Leave the mount, so that this process does not keep it busy."""
    if f"{_here()}/".startswith(path + "/"):
        os.chdir("/")


def _after(output: Output, session: Session, how: str) -> None:
    """Keep or drop the work tree once it is unmounted, and print what became of it."""
    if how == "discard":
        try:
            dropped = revert(session) if session.has_work or session.interrupted else []
        except DeviceError:  # revert first finishes an interrupted write
            source = session.info.argument
            output.note("it is unmounted, and the edits are kept; to drop them later: romfsfs "
                        f"recover {source} --rollback; romfsfs revert {source}")  # fmt: skip
            raise
        output.say(f"discarded {count_text(len(dropped), 'change')}")
        return
    try:
        with session.folder.lock_unmounted(session.info.name):
            if not session.has_work:
                return
            status = leave_work(session)
            if status is None:
                return
    except SessionBusy:
        return  # mounted again already, or being committed: it is theirs now
    if status.clean and not session.interrupted:
        output.say("no edits are left; files that are not stored (.git, backups, sources) "
                   "are kept for the next mount")  # fmt: skip
        return
    source = session.info.argument
    kept = f"{count_text(status.edits, 'change')} kept"
    if not status.edits:
        kept = _made_anew(status) if status.changes else "not committed so far"
    output.say(f"{kept}; continue: romfsfs mount {source} DIR; or write: romfsfs commit {source}")
