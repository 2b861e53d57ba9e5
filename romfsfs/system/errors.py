"""Errors of the operating system, in the one form that errors have here.

`WHAT (WHERE); NEXT STEP`: the system names no next step, and often no path.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from romfsfs.errors import RomfsError, UsageError, shell_word
from romfsfs.system.files import TEMPORARY
from romfsfs.system.user_folders import cache_dir, state_dir

_NEXT_STEPS = {
    errno.EACCES: "check its permissions: ls -ld {path}",
    errno.EPERM: "check its permissions: ls -ld {path}",
    errno.EROFS: "choose a place that can be written to",
    errno.ENOSPC: "free space, or choose another place",
    errno.EDQUOT: "free space, or choose another place",
    errno.EIO: "the disk may be failing: the system's log (dmesg) says more",
    errno.EMFILE: "close programs, or allow more open files: ulimit -n",
    errno.ENFILE: "close programs: the system has too many files open",
    errno.ENOMEM: "close programs: the system is short of memory",
}

#: Next steps for our own state and cache folders; choosing another place comes second.
_OURS = {
    errno.ENOSPC: "free space there and try again, your edits are kept",
    errno.EDQUOT: "free space there and try again, your edits are kept",
    errno.EROFS: "make it writable and try again, your edits are kept",
    errno.EIO: "the disk may be failing (see dmesg): copy your edits from there",
    errno.EACCES: "romfsfs keeps its files there",
    errno.EPERM: "romfsfs keeps its files there",
}


def os_error(error: OSError) -> RomfsError:
    """Word an error of the system that nothing else handled: the user's path, what may help."""
    what = error.strerror or str(error) or "input or output failed"
    what = what[0].lower() + what[1:]
    number = error.errno or 0
    if number == errno.ENOENT and not error.filename and _is_nowhere():
        return RomfsError("the current folder is gone", next_step="go to another one: cd")
    if not error.filename or isinstance(error.filename, int):
        return RomfsError(what, next_step=_NEXT_STEPS.get(number, "").format(path="FILE"))
    name = error.filename
    if error.filename2 and os.path.lexists(name):  # a link or a rename: the new name is at fault
        name = error.filename2
    path = os.fsdecode(name)
    temporary = TEMPORARY.fullmatch(path)
    path = temporary[1] if temporary else path
    folder = os.path.dirname(path)
    if number == errno.ENOENT and folder and not os.path.isdir(folder):
        return RomfsError(
            "no such folder", where=folder, next_step=f"mkdir -p {shell_word(folder)}"
        )
    ours = _ours(path) if number in _OURS else {}
    if ours:
        another = "names another place" if len(ours) == 1 else "name other places"
        return RomfsError(
            what,
            where=" and ".join(ours.values()),
            next_step=f"{_OURS[number]}; {' and '.join(ours)} {another}",
        )
    if number in (errno.EACCES, errno.EPERM) and not os.path.lexists(path):
        path = folder or "."  # the file was to be created: its folder forbids that
    return RomfsError(
        what, where=path, next_step=_NEXT_STEPS.get(number, "").format(path=shell_word(path))
    )


def _is_nowhere() -> bool:
    """Whether the current folder was removed, or its mount lazily unmounted."""
    try:
        os.getcwd()
    except FileNotFoundError:
        return True
    return False


def _ours(path: str) -> dict[str, str]:
    """The variables that move our own folders -> the path at fault, if `path` lies in such a
    folder, or is a parent of it that could not be made."""
    found = {}
    for variable, find in (("$ROMFSFS_STATE_DIR", state_dir), ("$ROMFSFS_CACHE_DIR", cache_dir)):
        with contextlib.suppress(RomfsError):  # no home folder
            place = find()
            if place.is_relative_to(path):
                found[variable] = str(place)
            elif Path(path).is_relative_to(place):
                found[variable] = path
    return found


@contextlib.contextmanager
def worded() -> Iterator[None]:
    """Turn an OSError of the block into a RomfsError that says what to do, and Python's ValueError
    for a name with a NUL byte into a UsageError."""
    try:
        yield
    except OSError as error:
        raise os_error(error) from error
    except ValueError as error:
        if "embedded null" not in str(error):
            raise
        raise UsageError("a name cannot contain a NUL byte") from error
