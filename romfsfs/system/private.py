"""Whether other users of the machine could change what is kept in a folder.

State and caches are protected by this check of every part of their path, together with folders
made for one user alone (0700): nobody else can put a link or another folder into such a path later.
POSIX access control lists are not looked at.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from romfsfs.errors import RomfsError, shell_word

_ELSEWHERE = "keep it elsewhere: set $ROMFSFS_STATE_DIR and $ROMFSFS_CACHE_DIR"
#: As many links as Linux follows in a path.
_MAX_LINKS = 40


def trusted_users() -> set[int]:
    """The users whose files may be used: this one, root, for root the user who called sudo, and the
    owner of `/` (in a user namespace root has another number)."""
    trusted = {os.geteuid(), 0, os.stat("/").st_uid}
    if os.geteuid() == 0 and os.environ.get("SUDO_UID", "").isdecimal():
        trusted.add(int(os.environ["SUDO_UID"]))
    return trusted


def check_private(path: Path) -> None:
    """RomfsError if others could put things into the folder `path`, or another folder in its place:
    checks each part of the path that exists, and each link in it."""
    trusted = trusted_users()
    # Strings: each command does this some ten times, and a Path takes longer than a stat.
    at, rest = "", _names(os.fspath(path))
    links = 0
    while rest and links <= _MAX_LINKS:
        part = f"{at}/{rest.pop()}"
        try:
            status = os.lstat(part)
        except OSError:  # not made yet, or the error of using it says more
            return
        if status.st_uid not in trusted:
            raise _refused(part, "the folder belongs to another user, who", _ELSEWHERE)
        if stat.S_ISLNK(status.st_mode):
            links += 1
            target = os.readlink(part)
            at = "" if target.startswith("/") else at
            rest += _names(target)
            continue
        at = part
        # In a sticky folder (/tmp) others can make names of their own, but not remove ours.
        who = "" if status.st_mode & stat.S_ISVTX and rest else _others(status)
        if who:
            ours = not rest and status.st_uid == os.geteuid()
            own = ours and not status.st_mode & stat.S_ISVTX
            remedy = f"make it yours alone: chmod go-w {shell_word(part)}" if own else _ELSEWHERE
            raise _refused(part, f"{who} may write to the folder and", remedy)


def _names(path: str) -> list[str]:
    """The names in a path, in reverse order."""
    return [name for name in path.split("/") if name][::-1]


def _others(status: os.stat_result) -> str:
    """Who else may write there; '' if nobody."""
    if status.st_mode & stat.S_IWOTH:
        return "everybody"
    if status.st_mode & stat.S_IWGRP and not _is_own_group(status.st_gid, status.st_uid):
        return "other users"
    return ""


def _is_own_group(gid: int, uid: int) -> bool:
    """Whether the group is its owner's alone: many systems give each user one of the same name, and
    make new folders writable for it."""
    import grp
    import pwd

    try:
        group, name = grp.getgrgid(gid), pwd.getpwuid(uid).pw_name
    except KeyError:
        return False
    return group.gr_name == name and set(group.gr_mem) <= {name}


def _refused(part: str, why: str, next_step: str) -> RomfsError:
    return RomfsError(f"{why} could change what is kept there", where=part, next_step=next_step)
