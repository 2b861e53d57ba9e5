"""Click's usage errors in the one form of ours: `WHAT (WHERE); NEXT STEP`.

Click would print three lines. Errors of the operating system: `system.errors`.
"""

from __future__ import annotations

import difflib
import re

import click

from romfsfs.errors import UsageError


def usage_error(error: click.UsageError, command: str) -> UsageError:
    """The error for a wrong command line; its next step names the help.

    command: the one that was called, which click's error does not always name."""
    path = error.ctx.command_path if error.ctx else f"romfsfs {command}".strip()
    what = " ".join(error.format_message().split()).rstrip(".").replace(". (Did", " (did")
    what = what[0].lower() + what[1:]
    unknown = re.fullmatch(r"no such command '(.*?)'.*", what)
    if unknown:
        known = []
        if error.ctx is not None and isinstance(error.ctx.command, click.Group):
            known = error.ctx.command.list_commands(error.ctx)
        like = difflib.get_close_matches(unknown[1], known)
        what = f"no such command '{unknown[1]}'" + (f", did you mean {like[0]}?" if like else "")
    elif isinstance(error, click.MissingParameter) and getattr(error.param, "name", "") == "board":
        return UsageError(what, next_step="romfsfs boards lists them")
    return UsageError(what, next_step=f"{path} --help")
