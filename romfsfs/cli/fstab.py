"""Being called by mount(8): `romfsfs SOURCE DIR -o OPTIONS`, without the word `mount`.

For a line of /etc/fstab of type `fuse.romfsfs`, mount(8) runs `mount.fuse3`, which runs the program
that the type names in just this form (util/mount.fuse.c of libfuse), as it does for the source
`romfsfs#SOURCE` of type `fuse`. And which words of such a list of options are for whom.
"""

from __future__ import annotations

import contextlib
import os
import pwd
from collections.abc import Container

#: mount options of our own among those of `-o` (an fstab line has no other way to say them)
_OWN_OPTIONS = (
    "board",
    "partition",
    "new",
    "ro",
    "rw",
    "commit_on_unmount",
    "no_convert",
    "convert",
    "optimise",
    "profile",
    "mpool",
    "align",
    "stedgeai",
    "notify",
    "no_notify",
)


def with_mount(arguments: list[str], commands: Container[str]) -> list[str]:
    """The arguments with the word `mount` before them where mount(8) left it out.

    Only ever done for what would be no command otherwise.
    """
    if len(arguments) < 4 or arguments[0] in commands or "-o" not in arguments[2:]:
        return list(arguments)
    if arguments[0].startswith("-") or arguments[1].startswith("-"):
        return list(arguments)
    _take_own_home()
    return ["mount", *arguments]


def _take_own_home() -> None:
    """For a line with `user`, mount(8) is setuid root: it leaves root's HOME to the user who
    called it, whose sessions are not there (docs/cameras.md, "udev, systemd, mount(8)")."""
    with contextlib.suppress(KeyError, OSError):
        home = pwd.getpwuid(os.getuid()).pw_dir
        if os.stat(os.path.expanduser("~")).st_uid != os.getuid():
            os.environ["HOME"] = home


def split_options(options: tuple[str, ...]) -> tuple[dict[str, str], list[str]]:
    """`-o` lists: (those that are romfsfs's own, by name; the rest, for libfuse)."""
    own: dict[str, str] = {}
    passed = []
    for word in (word for option in options for word in option.split(",")):
        name, _, value = word.partition("=")
        if name in _OWN_OPTIONS:
            own[name] = value
        elif word:
            passed.append(word)
    return own, passed
