"""What click and the operating system say, in the one form that errors have here.

`WHAT (WHERE); NEXT STEP`: click would print three lines, the system names no next step.
"""

from __future__ import annotations

import difflib
import errno
import os
import re
from pathlib import Path

import click

from romfsfs.errors import RomfsError, UsageError
from romfsfs.files import cache_dir, state_dir

#: What `replace_atomically` adds to a name until the file is whole.
_TEMPORARY = re.compile(r"\.\d+\.tmp$")

_NEXT_STEPS = {
    errno.EACCES: "see who may use it: ls -ld {path}",
    errno.EPERM: "see who may use it: ls -ld {path}",
    errno.EROFS: "choose a place that can be written to",
    errno.ENOSPC: "free space, or choose another place",
    errno.EDQUOT: "free space, or choose another place",
    errno.EMFILE: "close programs, or allow more open files: ulimit -n",
}


def usage_error(error: click.UsageError) -> UsageError:
    """A wrong command line: what is wrong with it, and the help that says what would be right."""
    path = error.ctx.command_path if error.ctx else "romfsfs"
    what = " ".join(error.format_message().split()).rstrip(".")
    unknown = re.fullmatch(r"No such command '(.*?)'.*", what)
    if unknown:
        known = []
        if error.ctx is not None and isinstance(error.ctx.command, click.Group):
            known = error.ctx.command.list_commands(error.ctx)
        like = difflib.get_close_matches(unknown[1], known, 1)
        what = f"no such command '{unknown[1]}'" + (f", did you mean {like[0]}?" if like else "")
    elif isinstance(error, click.MissingParameter):
        what = what[0].lower() + what[1:]
        if error.param is not None and error.param.name == "board":
            return UsageError(what, next_step="romfsfs boards lists them")
    else:
        what = what[0].lower() + what[1:]
    return UsageError(what, next_step=f"{path} --help")


def os_error(error: OSError) -> RomfsError:
    """An error of the system that nobody expected: the path the user knows, and what may help."""
    what = error.strerror or str(error) or "input or output failed"
    what = what[0].lower() + what[1:]
    if not error.filename or isinstance(error.filename, int):
        return RomfsError(what)
    path = _TEMPORARY.sub("", os.fsdecode(error.filename))
    folder = os.path.dirname(path)
    if error.errno == errno.ENOENT and folder and not os.path.isdir(folder):
        return RomfsError("no such folder", where=folder, next_step=f"mkdir -p {folder}")
    next_step = _NEXT_STEPS.get(error.errno or 0, "")
    for name, place in (("STATE", state_dir()), ("CACHE", cache_dir())):
        if next_step and (Path(path).is_relative_to(place) or place.is_relative_to(path)):
            next_step = f"romfsfs keeps its files there; $ROMFSFS_{name}_DIR names another place"
            # One of its parents could not even be made.
            shown = str(place) if place.is_relative_to(path) else path
            return RomfsError(what, where=shown, next_step=next_step)
    if error.errno in (errno.EACCES, errno.EPERM) and not os.path.lexists(path):
        path = folder or "."  # what was to be made in it has a name that nobody knows
    return RomfsError(what, where=path, next_step=next_step.format(path=path))
