"""Being called by mount(8): `romfsfs SOURCE DIR -o OPTIONS`, without the word `mount`.

For a line of /etc/fstab of type `fuse.romfsfs`, mount(8) runs `mount.fuse3`, which runs the program
that the type names in just this form (util/mount.fuse.c of libfuse), as it does for the source
`romfsfs#SOURCE` of type `fuse`.
"""

from __future__ import annotations

from collections.abc import Container


def with_mount(arguments: list[str], commands: Container[str]) -> list[str]:
    """The arguments with the word `mount` before them where mount(8) left it out.

    Only ever done for what would be no command otherwise.
    """
    if len(arguments) < 4 or arguments[0] in commands or "-o" not in arguments[2:]:
        return list(arguments)
    if arguments[0].startswith("-") or arguments[1].startswith("-"):
        return list(arguments)
    return ["mount", *arguments]
