"""What click says, in the one form that errors have here.

`WHAT (WHERE); NEXT STEP`: click would print three lines. What the system says: `system.errors`.
"""

from __future__ import annotations

import difflib
import re

import click

from romfsfs.errors import UsageError


def usage_error(error: click.UsageError, command: str) -> UsageError:
    """A wrong command line: what is wrong with it, and the help that says what would be right.
    command: the one that was called, which click does not always say."""
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
