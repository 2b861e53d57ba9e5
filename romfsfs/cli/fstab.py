"""Calls from mount(8): `romfsfs SOURCE DIR -o OPTIONS`, without the word `mount`.

For an /etc/fstab line of type `fuse.romfsfs`, mount(8) runs `mount.fuse3`, which runs the program
named by the type in this form (util/mount.fuse.c of libfuse); the same for the source
`romfsfs#SOURCE` of type `fuse`. Also: which words of `-o` are for `mount`, and which for libfuse.
"""

from __future__ import annotations

import contextlib
import os
import pwd
from collections.abc import Container

import click

#: Words of `-o` that are for `mount`, as an fstab line has no other way to give its options:
#: word -> (parameter of the command, value).
FLAGS = {
    "ro": ("read_only", True),
    "rw": ("read_only", False),
    "new": ("start_new", True),
    "commit_on_unmount": ("commit_on_unmount", True),
    "no_convert": ("no_convert", True),
    "notify": ("notify", True),
    "no_notify": ("notify", False),
}
#: Words with a value (`board=NAME`), named like the options; LISTS: options that take several.
VALUES = ("board", "partition", "slot", "stedgeai")
LISTS = ("convert", "optimise", "profile", "mpool", "align")


def with_mount(arguments: list[str], commands: Container[str]) -> list[str]:
    """The arguments, with the word `mount` before them where mount(8) left it out.

    Only if the first word is no command. Sets $HOME then (`_take_own_home`).
    """
    if len(arguments) < 4 or arguments[0] in commands or "-o" not in arguments[2:]:
        return list(arguments)
    if arguments[0].startswith("-") or arguments[1].startswith("-"):
        return list(arguments)
    _take_own_home()
    return ["mount", *arguments]


def _take_own_home() -> None:
    """Correct $HOME: for a line with `user`, mount(8) is setuid root and passes on root's HOME,
    where the user's sessions are not (docs/cameras.md, "udev, systemd, mount(8)")."""
    with contextlib.suppress(KeyError, OSError):
        home = pwd.getpwuid(os.getuid()).pw_dir
        if os.stat(os.path.expanduser("~")).st_uid != os.getuid():
            os.environ["HOME"] = home


def split_options(
    context: click.Context, option: click.Parameter, lists: tuple[str, ...]
) -> tuple[str, ...]:
    """Make words of `-o` the defaults of `mount`'s options; return the rest, for libfuse.

    A click callback; it must run before those of the other options. UsageError for `ro=0`."""
    from romfsfs.fs.options import takes_no_value  # every command imports this module

    own: dict[str, object] = {}
    listed: dict[str, list[str]] = {}
    passed = []
    for word in (word for options in lists for word in options.split(",")):
        name, has_value, value = word.partition("=")
        if name in FLAGS:
            if has_value:
                raise takes_no_value(name, value)
            own.update([FLAGS[name]])
        elif name in VALUES:
            own[name] = value
        elif name in LISTS:
            listed.setdefault(name, []).append(value)
        elif word:
            passed.append(word)
    context.default_map = own | listed
    return tuple(passed)
