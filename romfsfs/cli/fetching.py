"""What a command may fetch: its options, and the question before the first download."""

from __future__ import annotations

import click

from romfsfs.cli.output import Output, confirmed
from romfsfs.errors import RomfsError
from romfsfs.ide.archive import Fetching
from romfsfs.system.files import Progress

OFFLINE = click.option(
    "--offline", is_flag=True, help="Download nothing: use what is on this machine."
)


def fetching(
    output: Output, progress: Progress, *, offline: bool, yes: bool, update: bool = False
) -> Fetching:
    """As the user allows it."""

    def agree(what: str) -> None:
        if not yes and not confirmed(output, f"No OpenMV IDE is installed. Download {what}?"):
            raise RomfsError("nothing was downloaded", next_step="name another place with --from")

    return Fetching(agree, offline, update, progress)
