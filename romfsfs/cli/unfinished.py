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
from romfsfs.session.find import as_found, find_session, is_stuck, no_answer
from romfsfs.session.keep.folder import all_sessions as folders
from romfsfs.session.keep.folder import sessions_dir
from romfsfs.session.keep.state import SessionInfo
from romfsfs.session.opening import drop
from romfsfs.session.rebase.record import interrupted_kind
from romfsfs.session.rebase.recovery import recover as recover_session
from romfsfs.session.session import Session
from romfsfs.session.session import sessions as all_sessions


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
    known = list(all_sessions())
    records = [_session_record(session) for session in known]
    output.json(records)
    for session, record in zip(known, records, strict=True):
        state = record["state"]
        if record["interrupted"]:
            state = f"interrupted {interrupted_kind(session.folder) or 'write'}"
        if session.folder.changed_by() is not None:
            state = "being changed"
        state += _of_its_file(session.info)
        mounted = f", mounted at {record['mountpoint']}" if record["mountpoint"] else ""
        line = printable(f"{session.info.title}: {state}{mounted}")
        output.show(f"{line}\n    {record['directory']}\n")
    if not records:
        some = any(sessions_dir().iterdir())
        output.say("no session can be read" if some else "no sessions")
    return EXIT_OK


def _forget(output: Output, names: tuple[str, ...], yes: bool) -> int:
    for name in names:
        same = {name, os.path.abspath(name), os.path.realpath(name)}
        found = [(folder, info) for folder, info in folders() if same & {
            info.source, info.name, info.title, str(folder.path)
        }]  # fmt: skip
        if len(found) != 1:
            what = "several sessions have this name" if found else "there is no session for it"
            next_step = "name its folder; romfsfs sessions lists them"
            raise UsageError(what, where=name, next_step=next_step)
        folder, info = found[0]
        edited = folder.work.exists() or folder.record.exists()
        question = f"Drop the log and the edits of {info.title}?"
        if edited and not yes and not confirmed(output, question):
            return EXIT_FAILURE
        drop(folder, info.name)
        output.say(f"{printable(info.title)}: forgotten")
    return EXIT_OK


def _of_its_file(info: SessionInfo) -> str:
    """A remark if the image file is gone (nobody needs the session any more), or if its path is a
    link to another file by now (the path no longer leads to these edits); else ''."""
    if not info.is_file or os.path.realpath(info.source) == info.source:
        gone = info.is_file and not os.path.exists(info.source)
        return ", its file is gone" if gone else ""
    return ", its path is now a link to another file"


def _session_record(session: Session) -> dict[str, Any]:
    holder = session.folder.mounted_at()
    state = "no edits"
    if session.has_work:
        try:
            state = "edits" if session.status().edited else "clean"
        except RomfsError as error:
            state = f"damaged: {error.what}"
    info = session.info
    return {
        "name": info.name, "source": info.source, "board": info.board,
        "partition": info.partition, "state": state,
        "interrupted": session.needs_recovery,
        "mountpoint": holder.mountpoint if holder else None, "pid": holder.pid if holder else None,
        "directory": str(session.folder.path),
    }  # fmt: skip


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
    if where is not None:
        pending = [find_session(where, partition, slot)]
    else:
        pending = [as_found(session) for session in all_sessions() if session.interrupted]
    worst = EXIT_OK
    for found in pending:
        session = found.session
        try:
            if is_stuck(found):
                raise no_answer(found)
            with session_device(session) as opened, output.progress() as progress:
                done = recover_session(
                    session, opened, rollback=rollback, mounted=found.mounted, progress=progress
                )
        except RomfsError as error:
            output.error(error)
            worst = max(worst, error.exit_code)
            continue
        output.say(f"{session.info.name}: {done or 'nothing to recover'}")
    if not pending:
        output.say("nothing to recover")
    return worst
