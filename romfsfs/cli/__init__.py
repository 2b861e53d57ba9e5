"""The command line. The only part of romfsfs that prints.

app        the click group; imports a command's module when the command is called
output     results, errors, progress; mistakes: click's errors in the form of ours
mounting, sessions, unfinished, images, reading, building, machines, whole, pushing, zoo
           the commands; watch: `status --watch`; maps: `info --map`
production `push --all`; plugged: the cameras that it finds; production_log: its log
fstab      calls from mount(8); automount, desktop: calls from systemd and file managers
parameters options that several commands share; choices: those about conversion; values: what
           shells complete; reports: sentences that several commands print
completion, man, doctor    shell completion; manual page and `help`; the checks of `doctor`
"""

from __future__ import annotations

import gc
import os
import sys

_GC_THRESHOLD = (100_000, 20, 20)


def main(argv: list[str] | None = None) -> int:
    """Run a command line and return its exit code (see `romfsfs.errors`)."""
    _open_closed_streams()
    # Modules and trees are thousands of small objects with hardly a reference cycle: with the
    # default thresholds the collector takes a tenth of a start, and a third of a large mount.
    gc.set_threshold(*_GC_THRESHOLD)
    try:
        if argv is None and (question := os.environ.get("_ROMFSFS_COMPLETE")):
            from romfsfs.cli.completion import answer

            return answer(question)
        from romfsfs.cli.app import run

        return run(sys.argv[1:] if argv is None else argv)
    except KeyboardInterrupt:  # also during imports, before `app` installs its handlers
        from romfsfs.errors import EXIT_INTERRUPTED

        sys.stderr.write(
            "romfsfs: interrupted; nothing is lost, run the command again to continue\n"
        )
        return EXIT_INTERRUPTED


def _open_closed_streams() -> None:
    """Open the standard streams that the caller closed (`>&-`) on /dev/null.

    Otherwise the next files opened get descriptors 0 to 2, and a daemon's messages end in them.
    """
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest free descriptor
    for name, fd, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(fd, mode, encoding="utf-8", closefd=False))
