"""Commands on all sessions: `sessions` lists them, `recover` ends interrupted writes."""

from __future__ import annotations

import os
from typing import Any

import click

from romfsfs.cli import values
from romfsfs.cli.output import Output, confirmed
from romfsfs.cli.parameters import JSON, PARTITION, SLOT, YES, where
from romfsfs.errors import EXIT_FAILURE, EXIT_OK, RomfsError, UsageError, printable
from romfsfs.session.connect import session_device
from romfsfs.session.find import Found, as_found, find_session, is_stuck, no_answer
from romfsfs.session.keep.folder import SessionFolder, all_folders, folder_of
from romfsfs.session.keep.folder import all_sessions as all_infos
from romfsfs.session.keep.state import SessionInfo
from romfsfs.session.opening import drop
from romfsfs.session.rebase.record import interrupted_kind
from romfsfs.session.rebase.recovery import recover as recover_session
from romfsfs.session.session import Session, every_session
from romfsfs.system.errors import worded


@click.command()
@click.option(
    "--forget", metavar="SOURCE", multiple=True, shell_complete=values.sessions,
    help="Drop the session of this file or camera, with its log and its edits.",
)  # fmt: skip
@YES
@JSON
@click.pass_obj
def sessions(output: Output, forget: tuple[str, ...], yes: bool) -> int:
    """Sessions with their targets, where they are mounted, and whether they hold edits.

    The line below each names its folder; the files are in `work` there. A session without edits
    whose image file has been gone for 90 days is dropped automatically.
    """
    if forget:
        return _forget(output, forget, yes)
    found = [_looked_at(folder, session) for folder, session in every_session()]
    output.json([record for record, _ in found])
    for record, line in found:
        output.show(f"{printable(line)}\n    {record['directory']}\n")
    if not found:
        output.say("no sessions")
    return EXIT_OK


def _forget(output: Output, names: tuple[str, ...], yes: bool) -> int:
    for name in names:
        target = os.path.realpath(name)
        same = {name, os.path.abspath(name), target, str(folder_of(target).path)}
        infos = {folder.path: info for folder, info in all_infos()}
        found = [each for each in all_folders() if same & _names(each, infos.get(each.path))]
        if len(found) != 1:
            what = "several sessions have this name" if found else "there is no session for it"
            next_step = "name its folder; romfsfs sessions lists them"
            raise UsageError(what, where=name, next_step=next_step)
        folder = found[0]
        title = infos[folder.path].title if folder.path in infos else name
        edited = folder.work.exists() or folder.record.exists()
        question = f"Drop the log and the edits of {title}?"
        if edited and not yes and not confirmed(output, question):
            return EXIT_FAILURE
        drop(folder, title)
        output.say(f"{printable(title)}: forgotten")
    return EXIT_OK


def _names(folder: SessionFolder, info: SessionInfo | None) -> set[str]:
    """What a session is called; one that cannot be read, by its folder alone."""
    place = str(folder.path)
    return {place} if info is None else {info.source, info.name, info.title, place}


def _of_its_file(info: SessionInfo) -> str:
    """A remark if the image file is gone (nobody needs the session any more), or if its path is a
    link to another file by now (the path no longer leads to these edits); else ''."""
    if not info.is_file or os.path.realpath(info.source) == info.source:
        gone = info.is_file and not os.path.exists(info.source)
        return ", its file is gone" if gone else ""
    return ", its path is now a link to another file"


def _looked_at(folder: SessionFolder, session: Session | RomfsError) -> tuple[dict[str, Any], str]:
    """A session's record for `--json`, and the line for people. Of one that cannot be read, too:
    its edits may be all that is left of them."""
    info = session.info if isinstance(session, Session) else SessionInfo("", "", folder.path.name)
    holder, interrupted, state, doing = None, False, "no edits", ""
    try:
        with worded():
            holder = folder.mounted_at()
            if not isinstance(session, Session):
                raise session
            if folder.changed_by() is not None:
                doing = "being changed"
            elif session.interrupted:
                interrupted, doing = True, f"interrupted {interrupted_kind(folder) or 'write'}"
            if session.has_work:
                state = "edits" if session.status().edited else "clean"
    except RomfsError as error:
        state = f"cannot be read: {error.what}"
    record = {
        "name": info.name, "source": info.source, "board": info.board,
        "partition": info.partition, "state": state, "interrupted": interrupted,
        "mountpoint": holder.mountpoint if holder else None, "pid": holder.pid if holder else None,
        "directory": str(folder.path),
    }  # fmt: skip
    mounted = f", mounted at {holder.mountpoint}" if holder and holder.mountpoint else ""
    return record, f"{info.title}: {doing or state}{_of_its_file(info)}{mounted}"


@click.command()
@where("[DIR or SOURCE]", required=False)
@click.option("--rollback", is_flag=True, help="Restore what the target held before.")
@PARTITION
@SLOT
@click.pass_obj
def recover(
    output: Output, where: str | None, rollback: bool, partition: int | None, slot: str
) -> int:
    """Finish a write that was interrupted, or restore what the target held before it.

    Without DIR or SOURCE: every interrupted write. Edits are never touched.
    """
    named = None if where is None else find_session(where, partition, slot)
    pending: list[Session | RomfsError]
    if named is not None:
        pending = [named.session]
    else:
        pending = [session for folder, session in every_session() if folder.record.exists()]
    worst = EXIT_OK
    for session in pending:
        try:
            with worded():
                if not isinstance(session, Session):
                    raise session
                done = _recovered(output, named or as_found(session), rollback)
        except RomfsError as error:
            output.error(error)
            worst = max(worst, error.exit_code)
            continue
        output.say(f"{session.info.name}: {done or 'nothing to recover'}")
    if not pending:
        output.say("nothing to recover")
    return worst


def _recovered(output: Output, found: Found, rollback: bool) -> str:
    """What a recovery did. RomfsError as `recovery.recover` and `no_answer`; OSError."""
    if is_stuck(found):
        raise no_answer(found)
    with session_device(found.session) as opened, output.progress() as progress:
        return recover_session(
            found.session, opened, rollback=rollback, mounted=found.mounted, progress=progress
        )
