"""Everything that is printed: results, errors, progress. Nothing below `cli/` prints.

Results go to standard output, errors and progress to standard error. Progress is a bar on a
terminal (rich, imported only then), one line for each phase otherwise, nothing with `--quiet`.
"""

from __future__ import annotations

import json
import logging
import os
import select
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, BinaryIO, TextIO

import click

from romfsfs.errors import EXIT_FAILURE, EXIT_OK, RomfsError, UsageError, printable
from romfsfs.system.errors import os_error
from romfsfs.system.files import CHUNK, Progress, named, no_progress
from romfsfs.system.programs import find_on_path

if TYPE_CHECKING:
    from rich.progress import Progress as Bars

#: (prefix, click's name of the colour) for lines that begin with it; the first match counts.
Colours = Sequence[tuple[str, str]]

#: The file name in an OSError of standard output.
STANDARD_OUTPUT = "standard output"

#: A shorter phase than this is not shown: it would only flicker.
_SHOWN_AFTER_SECONDS = 0.3


class Output:
    """Prints results, notes, errors and progress, as much as the options ask for.

    verbose: 0, 1 (`-v`) or 2 (`-vv`: also the log). as_json: `--json` was given; then only `json`
    prints results, else only `say` and `show` do, so that a command calls both."""

    def __init__(self) -> None:
        self.verbose = 0
        self.quiet = False
        self.as_json = False

    def adjust(self, verbose: int = 0, quiet: int = 0) -> None:
        """Apply `-v` and `-q`, given before or after the command; they add up."""
        self.verbose += verbose
        self.quiet |= bool(quiet)
        if self.verbose > 1:
            logging.basicConfig(
                level=logging.DEBUG, format="%(name)s: %(message)s", stream=sys.stderr
            )

    def say(self, text: str) -> None:
        """Print a result for people, unless `--quiet` or `--json` was given."""
        if not self.quiet and not self.as_json:
            with suppress(BrokenPipeError):  # nobody reads it; the work goes on
                write(printable_lines(text) + "\n")

    def show(self, text: str, colours: Colours = ()) -> None:
        """Print what was asked for, even with `--quiet`; in these colours on a terminal."""
        if not self.as_json:
            write(drawn(text, colours))

    def show_exactly(self, lines: Iterable[str], colours: Colours = ()) -> None:
        """Print lines: unchanged to a file or program (`romfsfs diff > patch`), on a terminal
        through the user's pager, as git does it."""
        if self.as_json:
            return
        if not sys.stdout.isatty():
            for line in lines:
                write(line + "\n")
        else:
            _page(drawn(line, colours) + "\n" for line in lines)

    def json(self, record: Any) -> None:
        """Print a JSON document, if `--json` was given."""
        if self.as_json:
            write(json.dumps(record, indent=1) + "\n")

    def refuse_json(self) -> None:
        """UsageError if `--json` was given: standard output is to get an image."""
        if self.as_json:
            raise UsageError("an image and --json cannot both go to standard output", where="-")

    def note(self, text: str) -> None:
        """Print something worth knowing that is no result to standard error, unless `--quiet`."""
        if not self.quiet:
            _tell(f"romfsfs: {printable(text)}")

    def error(self, error: RomfsError) -> None:
        """Print an error's line, and below it a tool's output, or with `-v` any detail."""
        with suppress(OSError):  # results come before it; if nobody reads them, go on
            sys.stdout.flush()
        self.fault(error.line)
        if error.detail and (error.show_detail or self.verbose):
            for line in error.detail.rstrip().splitlines():
                _tell(f"  {printable(line.expandtabs())}")

    def fault(self, text: str) -> None:
        """Print one error line, without detail, for faults of which there may be several."""
        _tell(f"romfsfs: error: {printable(text)}", "red")

    @contextmanager
    def progress(self) -> Iterator[Progress]:
        """A `Progress` callback for the work in this block. It never raises.

        Work must not stop half-way because its terminal is gone.
        """
        if self.quiet:
            yield no_progress
        elif draws(sys.stderr):
            with _phase_bars() as progress:
                yield progress
        else:
            yield phase_lines()


def _page(lines: Iterable[str]) -> None:
    """Show lines in the user's pager; less ends by itself (`F`) if they fit on one screen."""
    import subprocess

    pager = os.environ.get("PAGER") or find_on_path("less") or "cat"
    paging = subprocess.Popen(  # noqa: S602 ($PAGER is the user's own)
        pager, shell=True, stdin=subprocess.PIPE, errors="backslashreplace",
        env={"LESS": "FRX", **os.environ},
    )  # fmt: skip
    assert paging.stdin is not None
    try:
        with suppress(BrokenPipeError), paging.stdin:  # the user quit before the end
            paging.stdin.writelines(lines)
    finally:
        while True:
            with suppress(KeyboardInterrupt):  # Ctrl-C does not end a pager
                paging.wait()
                break


def write(data: str | bytes) -> None:
    """Write text or bytes to standard output. OSError, which names it."""
    with named(STANDARD_OUTPUT):
        if isinstance(data, str):
            sys.stdout.write(data)
        else:
            sys.stdout.buffer.write(data)


def write_all(file: BinaryIO) -> None:
    """Write an open file to standard output, from its start. OSError; `finish` flushes."""
    file.seek(0)
    with named(STANDARD_OUTPUT):
        shutil.copyfileobj(file, sys.stdout.buffer, CHUNK)


def flush() -> None:
    """Flush standard output. OSError, which names it, if not everything arrives."""
    with named(STANDARD_OUTPUT):
        sys.stdout.flush()


def drawn(text: str, colours: Colours) -> str:
    """Text of several lines as people get it: control characters escaped, as names come from
    images and cameras; coloured if standard output is a terminal."""
    lines = printable_lines(text).split("\n")
    if colours and draws(sys.stdout) and not os.environ.get("NO_COLOR"):
        for number, line in enumerate(lines):
            colour = next((colour for begins, colour in colours if line.startswith(begins)), None)
            lines[number] = click.style(line, fg=colour) if colour else line
    return "\n".join(lines)


def draws(stream: TextIO) -> bool:
    """Whether the stream is a terminal that can redraw a line."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def _tell(line: str, colour: str | None = None) -> None:
    """Write a line to standard error; it does not matter if nobody reads it."""
    if colour and draws(sys.stderr) and not os.environ.get("NO_COLOR"):
        line = click.style(line, fg=colour)
    with suppress(OSError):
        sys.stderr.write(f"{line}\n")


def _after_a_moment(show: Progress) -> Progress:
    """A `Progress` that calls `show` once a phase has taken `_SHOWN_AFTER_SECONDS`."""
    started: dict[str, float] = {}

    def progress(phase: str, done: int, total: int) -> None:
        now = time.monotonic()
        if now - started.setdefault(phase, now) >= _SHOWN_AFTER_SECONDS:
            show(phase, done, total)

    return progress


def phase_lines() -> Progress:
    """A `Progress` that prints one line for each phase."""
    said: set[str] = set()

    def show(phase: str, done: int, total: int) -> None:
        if phase not in said:
            said.add(phase)
            size = f" {total:,} bytes" if total > 1 and phase != "converting" else ""
            _tell(f"romfsfs: {phase}{size}")

    return _after_a_moment(show)


@contextmanager
def _phase_bars() -> Iterator[Progress]:
    """A `Progress` that draws a bar for each phase."""
    bars: Bars | None = None
    tasks: dict[str, Any] = {}

    def show(phase: str, done: int, total: int) -> None:
        nonlocal bars
        with suppress(OSError):  # the terminal is gone
            if bars is None:
                bars = _bars()
                bars.start()
            if phase not in tasks:
                tasks[phase] = bars.add_task(phase, total=None)
            bars.update(tasks[phase], completed=done, total=total or None)

    try:
        yield _after_a_moment(show)
    finally:
        with suppress(OSError):
            if bars is not None:
                bars.stop()


def _bars() -> Bars:
    from rich import progress as rich_progress
    from rich.console import Console

    columns = (
        rich_progress.TextColumn("{task.description:>12}"),
        rich_progress.BarColumn(),
        rich_progress.TextColumn("{task.percentage:>3.0f}%"),
        rich_progress.TimeRemainingColumn(),
    )
    return rich_progress.Progress(*columns, console=Console(stderr=True), transient=True)


def printable_lines(text: str) -> str:
    """Text with control characters escaped (`printable`), except newlines and tabs."""
    if text.isprintable():
        return text
    return "\n".join("\t".join(map(printable, line.split("\t"))) for line in text.split("\n"))


def fitted(line: str) -> str:
    """A line cut to the width of the terminal."""
    columns = shutil.get_terminal_size().columns
    return line[: columns - 3] + "..." if len(line) > columns else line


def confirmed(output: Output, question: str) -> bool:
    """Ask the user; True for yes. UsageError if standard input is not a terminal."""
    if not sys.stdin.isatty():
        what = "standard input is not a terminal, so nobody can be asked"
        raise UsageError(what, where=question, next_step="add --yes")
    if click.confirm(printable(question), err=True):
        return True
    output.note("nothing was changed")
    return False


def reader_has_gone() -> bool:
    """Whether standard output is a pipe whose reader is gone."""
    looker = select.poll()
    looker.register(sys.stdout.fileno(), 0)
    return any(events & select.POLLERR for _, events in looker.poll(0))


def finish(output: Output, code: int) -> int:
    """Flush the output and return the exit code: a full disk behind it is a failure, a reader
    that is gone is none."""
    for stream in (sys.stdout, sys.stderr):
        try:
            with named(STANDARD_OUTPUT):
                stream.flush()
        except OSError as error:
            # Discard what is left in the buffer: the interpreter's last flush must not fail.
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, stream.fileno())
            os.close(null)
            lost = stream is sys.stdout and not isinstance(error, BrokenPipeError)
            if lost and code == EXIT_OK:
                output.error(os_error(error))
                code = EXIT_FAILURE
    return code
