"""Commands on all sessions: `sessions` lists them, `recover` ends interrupted commits."""

from __future__ import annotations

import os
from typing import Any

import click

from romfsfs.cli.output import Output
from romfsfs.cli.parameters import JSON, PARTITION, where
from romfsfs.cli.sources import as_found, find_session, session_device
from romfsfs.errors import EXIT_OK, RomfsError
from romfsfs.session.keep import store
from romfsfs.session.keep.state import SessionInfo
from romfsfs.session.rebase.recovery import recover as recover_session
from romfsfs.session.session import Session
from romfsfs.session.session import sessions as all_sessions


@click.command()
@JSON
@click.pass_obj
def sessions(output: Output, as_json: bool) -> None:
    """Sessions with their targets, where they are mounted, and whether they hold edits.

    Below each is its folder, with its files in `work`: when neither these nor its log are wanted,
    it can be removed.
    """
    known = list(all_sessions())
    records = [_session_record(session) for session in known]
    if as_json:
        output.json(records)
        return
    for session, record in zip(known, records, strict=True):
        state = "interrupted commit" if record["interrupted"] else record["state"]
        state += _of_its_file(session.info)
        mounted = f", mounted at {record['mountpoint']}" if record["mountpoint"] else ""
        output.show(f"{session.info.title}: {state}{mounted}\n    {record['directory']}\n")
    if not records:
        output.say("no sessions")


def _of_its_file(info: SessionInfo) -> str:
    """What tells a session that nobody needs any more, or whose edits the target's name does not
    lead to."""
    if info.kind != "file" or os.path.realpath(info.source) == info.source:
        gone = info.kind == "file" and not os.path.exists(info.source)
        return ", its file is gone" if gone else ""
    return ", a link has taken its file's place"


def _session_record(session: Session) -> dict[str, Any]:
    holder = store.mounted_at(session.directory)
    state = "no edits"
    if session.has_work:
        try:
            state = "clean" if session.status().clean else "edits"
        except RomfsError as error:
            state = f"damaged: {error.what}"
    return {
        "name": session.info.name,
        "source": session.info.source,
        "board": session.info.board,
        "partition": session.info.partition,
        "state": state,
        "interrupted": session.interrupted,
        "mountpoint": holder.mountpoint if holder else None,
        "pid": holder.pid if holder else None,
        "directory": str(session.directory),
    }


@click.command()
@where("[SOURCE]", required=False)
@click.option("--rollback", is_flag=True, help="Bring the old image back instead of finishing.")
@PARTITION
@click.pass_obj
def recover(output: Output, where: str | None, rollback: bool, partition: int | None) -> int:
    """Finish (or roll back) commits that were interrupted; all of them without SOURCE."""
    if where is not None:
        pending = [find_session(where, partition)]
    else:
        pending = [as_found(session) for session in all_sessions() if session.interrupted]
    failed: list[RomfsError] = []
    for found in pending:
        session = found.session
        try:
            with session_device(session) as opened, output.progress() as progress:
                done = recover_session(
                    session, opened, rollback=rollback, root=found.mountpoint, progress=progress
                )
        except RomfsError as error:
            failed.append(error)
            if len(pending) > 1:
                output.error(error)
            continue
        output.say(f"{session.info.name}: {done or 'nothing to recover'}")
    if not pending:
        output.say("no interrupted commit")
    if len(pending) == 1 and failed:
        raise failed[0]
    return failed[0].exit_code if failed else EXIT_OK
