"""`status --watch`: show the status whenever it has changed.

The status of a mounted session is read through the mount: the daemon computes it once for each
change of the tree, so that polling costs next to nothing while nothing happens.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
import time
from collections.abc import Callable

from romfsfs.cli import output as out
from romfsfs.cli.output import Output
from romfsfs.cli.reports import STATUS_COLOURS
from romfsfs.errors import EXIT_OK
from romfsfs.session.find import Found

#: Between two polls. The daemon's text may be up to a second old.
SECONDS = 0.5

_HOME_AND_CLEAR = "\x1b[H\x1b[2J"


def watch(output: Output, found: Found, look: Callable[[], str]) -> int:
    """Show the status at every change until Ctrl-C or until the session is unmounted. Exit code 0.

    On a terminal the screen is drawn anew; elsewhere each status is a block of its own, ended by
    an empty line; with --json each is one line.
    """
    drawing = out.draws(sys.stdout) and not output.as_json
    last = None
    try:
        # Raised when the mount is gone.
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            while _goes_on(found):
                text = look()
                if text != last:
                    last = text
                    if drawing:
                        out.write(_screen(text))
                    elif output.as_json:
                        out.write(json.dumps(json.loads(text)) + "\n")
                    else:
                        output.show(text + "\n")
                    out.flush()
                if out.reader_has_gone():  # a write would notice only at the next change
                    return EXIT_OK
                time.sleep(SECONDS)
    except KeyboardInterrupt:
        if drawing:
            output.show("\n")
        return EXIT_OK
    output.note("no longer mounted" if found.mountpoint is not None else "no edits are left")
    return EXIT_OK


def _goes_on(found: Found) -> bool:
    if found.mountpoint is None:
        return found.session.has_work
    held = found.session.folder.mounted_at()
    return held is not None and bool(held.mountpoint)


def _screen(text: str) -> str:
    """As much of the text as fits an empty screen, which it clears; lines are cut, not wrapped."""
    rows = shutil.get_terminal_size().lines
    lines = [out.fitted(line) for line in out.printable_lines(text).splitlines()]
    if len(lines) > rows - 1:
        # Keep the last line: it says how full the partition is.
        left_out = len(lines) - (rows - 2)
        lines = [*lines[: rows - 3], f"  ... {left_out} lines more", lines[-1]]
    return _HOME_AND_CLEAR + out.drawn("\n".join(lines) + "\n", STATUS_COLOURS)
