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

import click

#: words of `-o` that are for `mount` (an fstab line has no other way to say them), and what they
#: are to its options
FLAGS = {
    "ro": ("read_only", True),
    "rw": ("read_only", False),
    "new": ("start_new", True),
    "commit_on_unmount": ("commit_on_unmount", True),
    "no_convert": ("no_convert", True),
    "notify": ("notify", True),
    "no_notify": ("notify", False),
}
#: those with a value, called as the options are; of some an option takes several
VALUES = ("board", "partition", "slot", "stedgeai")
LISTS = ("convert", "optimise", "profile", "mpool", "align")


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


def split_options(
    context: click.Context, option: click.Parameter, lists: tuple[str, ...]
) -> tuple[str, ...]:
    """Let words of `-o` be options of `mount`'s, where these are not given; the rest, for libfuse.

    A callback of click's, which must come before those of the others."""
    own: dict[str, object] = {}
    passed = []
    for word in (word for options in lists for word in options.split(",")):
        name, _, value = word.partition("=")
        if name in FLAGS:
            own.update([FLAGS[name]])
        elif name in VALUES:
            own[name] = value
        elif name in LISTS:
            own[name] = [value]
        elif word:
            passed.append(word)
    context.default_map = own
    return tuple(passed)
