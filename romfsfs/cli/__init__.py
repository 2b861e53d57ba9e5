"""The command line. The only part of romfsfs that prints.

app        the click group; commands are imported when they are called
output     results, errors, progress; mistakes: errors of click, in our form
mounting, sessions, unfinished, images, building, machines, whole, zoo    the commands
watch      `status --watch`; maps: `info --map`
fstab      being called by mount(8); automount, desktop: by systemd and by file managers
parameters options that several commands share; values: what shells complete for them
completion, man, help    for people who look for the words
"""

from __future__ import annotations

import gc
import os
import sys

_GC_THRESHOLD = (100_000, 20, 20)


def main(argv: list[str] | None = None) -> int:
    """Run a command line; the exit code (see `romfsfs.errors`)."""
    _open_closed_streams()
    # Modules, and trees of thousands of small objects, with no cycles worth a name: with the usual
    # threshold the collector takes a tenth of the time of a start, and a third of a large mount.
    gc.set_threshold(*_GC_THRESHOLD)
    try:
        if argv is None and (question := os.environ.get("_ROMFSFS_COMPLETE")):
            from romfsfs.cli.completion import answer

            return answer(question)
        from romfsfs.cli.app import run

        return run(sys.argv[1:] if argv is None else argv)
    except KeyboardInterrupt:  # while modules are imported too: there is no handler of `app` yet
        from romfsfs.errors import EXIT_INTERRUPTED

        sys.stderr.write(
            "romfsfs: interrupted; nothing is lost, run the command again to continue\n"
        )
        return EXIT_INTERRUPTED


def _open_closed_streams() -> None:
    """Give what was started without them (`>&-`) its standard streams, to nowhere.

    The next files opened would take their places, and a daemon's words would end in those.
    """
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest free one
    for name, fd, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(fd, mode, encoding="utf-8", closefd=False))
