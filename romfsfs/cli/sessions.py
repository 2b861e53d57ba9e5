"""Commands on a session: status, diff, commit, revert, undo, log."""

from __future__ import annotations

import itertools
import json
import os
import re
import sys
import time
from collections.abc import Callable
from functools import cache, partial

import click

from romfsfs.cli import reports, values
from romfsfs.cli.output import Output, confirmed, fitted, write
from romfsfs.cli.parameters import JSON, NO_RESET, PARTITION, SLOT, SLOT_TO_READ, TRY, force, where
from romfsfs.devices.open import is_camera
from romfsfs.errors import EXIT_FAILURE, EXIT_OK, UsageError, count_text, printable, shell_word
from romfsfs.session.connect import device, session_device
from romfsfs.session.diff import changes_between, diff_images, diff_session
from romfsfs.session.find import Found, find_session
from romfsfs.session.keep import history
from romfsfs.session.rebase.commit import CommitOptions, commit_to
from romfsfs.session.rebase.commit import commit as commit_session
from romfsfs.session.rebase.transaction import WriteOptions
from romfsfs.session.rebase.undo import undo as undo_session
from romfsfs.session.rebase.undo import undo_target
from romfsfs.session.revert import refuse_unknown
from romfsfs.session.revert import revert as revert_session
from romfsfs.session.session import Look, Session
from romfsfs.session.tree.restore import selected
from romfsfs.system.mount_table import real_place

_WHERE = where("[DIR or SOURCE]", required=False)
_PATHS = click.argument("paths", metavar="[PATH]...", nargs=-1, shell_complete=values.files)


@click.command()
@_WHERE
@JSON
@click.option("--html", "as_html", is_flag=True, help="A page for a browser.")
@click.option("-v", "--verbose", is_flag=True, help="Unchanged and ignored files too.")
@click.option("--exit-code", is_flag=True, help="Exit 1 when there is something to commit.")
@click.option(
    "--watch", "follow", is_flag=True, help="Show it again at every change, until Ctrl-C."
)
@PARTITION
@SLOT_TO_READ
@click.pass_obj
def status(
    output: Output, where: str | None, as_html: bool, verbose: bool, exit_code: bool,
    follow: bool, partition: int | None, slot: str,
) -> int:  # fmt: skip
    """What would be committed: A added, M modified, D deleted, and what each becomes."""
    if as_html and (output.as_json or follow):
        raise UsageError("--html cannot be combined with --json or --watch")
    found = find_session(where, partition, slot, only_looks=True)
    if found.idle and not (follow or as_html):
        output.json(reports.idle_record(found.session))
        output.show(f"{printable(found.session.info.title)}: not mounted, no edits\n")
        return EXIT_OK
    kind = ".json" if output.as_json else ".html" if as_html else ""
    look = found.session.look if follow else cache(found.session.look)
    text = partial(_status_text, found, look, verbose=verbose or output.verbose > 0)
    if follow:
        from romfsfs.cli.watch import watch

        return watch(output, found, partial(text, kind))
    write(text(kind)) if kind else output.show(text(kind), reports.STATUS_COLOURS)
    changed = exit_code and not json.loads(text(".json"))["clean"]
    return EXIT_FAILURE if changed else EXIT_OK


def _status_text(found: Found, look: Callable[[], Look], kind: str, *, verbose: bool) -> str:
    """The status; kind: "" for text, ".json" or ".html"."""
    if found.mountpoint is not None and (kind or not verbose):
        # The daemon knows more: which conversions run, and what failed without being kept.
        file = found.mountpoint / ".romfs" / f"status{kind}"
        return file.read_text("utf-8", "surrogateescape")
    seen = look()
    status = found.session.status(seen)
    if kind == ".html":
        return found.session.page(status, seen.held)
    return status.json() if kind else status.text(verbose, mounted=found.mountpoint is not None)


@click.command()
@_WHERE
@_PATHS
@click.option(
    "--images", nargs=2, type=int, metavar="OLD NEW", help="Compare two images of the log instead."
)
@PARTITION
@SLOT_TO_READ
@click.pass_obj
def diff(
    output: Output, where: str | None, paths: tuple[str, ...], images: tuple[int, int] | None,
    partition: int | None, slot: str,
) -> None:  # fmt: skip
    """The edits: a unified diff for text, sizes and digests for the rest."""
    found = find_session(where, partition, slot, only_looks=True)
    if found.idle and images is None:
        return
    wanted = _paths(found, paths)

    def is_wanted(path: str) -> bool:
        return selected(path, wanted)

    if images is None:
        lines = diff_session(found.session, is_wanted)
    else:
        digests = (undo_target(found.session, number).digest for number in images)
        old, new = map(found.session.folder.image, digests)
        lines = diff_images(old, new, is_wanted)
    first = next(lines, None)
    if first is not None:
        output.show_exactly(itertools.chain([first], lines), reports.DIFF_COLOURS)
    elif images is None:
        refuse_unknown(found.session, found.session.look().shadow, wanted)


def _paths(found: Found, paths: tuple[str, ...]) -> list[str]:
    """The paths that a command was given, as paths in the tree; [] stands for all of it."""
    wanted = [relative(found, path) for path in paths]
    if found.inside:
        wanted.append(found.inside)
    return [] if "" in wanted else wanted


def relative(found: Found, path: str) -> str:
    """A path on the command line as one in the tree: below the mount, or as it is given.

    `cam/lib`, a link to it, `lib` inside the mount, and `lib` from anywhere else mean the same.
    """
    if found.mountpoint is not None:
        absolute = os.path.abspath(path)
        folder, name = os.path.split(absolute)
        for candidate in (absolute, os.path.join(real_place(folder), name), real_place(path)):
            inside = os.path.relpath(candidate, found.mountpoint)
            if inside != ".." and not inside.startswith("../"):
                return "" if inside == "." else inside
    shown = os.path.normpath(path).strip("/")
    return "" if shown == "." else shown


@click.command()
@_WHERE
@click.option(
    "--to",
    "elsewhere",
    metavar="SOURCE",
    shell_complete=values.sources,
    help="Write there instead; the session stays as it is.",
)
@click.option("--dry-run", is_flag=True, help="Do everything but write.")
@click.option(
    "--compact", is_flag=True, help="No gaps: the layout that the IDE writes, on cameras too."
)
@click.option(
    "--force", is_flag=True, help="Replace a target that changed elsewhere; with --to, a file."
)
@SLOT
@TRY
@NO_RESET
@PARTITION
@JSON
@click.pass_obj
def commit(
    output: Output, where: str | None, elsewhere: str | None, dry_run: bool, compact: bool,
    force: bool, slot: str, tries: bool, no_reset: bool, partition: int | None,
) -> int:  # fmt: skip
    """Write the edits to the file or camera, read them back and compare."""
    there = slot if elsewhere is not None and is_camera(elsewhere) else ""
    found = find_session(where, partition, "" if there else slot)
    session = found.session
    if found.idle and elsewhere is None and not compact:
        output.json(reports.NOTHING_COMMITTED)
        output.say(f"{printable(session.info.title)}: not mounted, no edits: nothing to commit")
        return EXIT_OK
    options = CommitOptions(force, not no_reset, tries, slot, compact, dry_run)
    with output.progress() as progress:
        if elsewhere is not None:
            with device(elsewhere, session.info.board, session.info.partition, there) as opened:
                report = commit_to(session, opened, options, found.mounted, progress, elsewhere)
        else:
            with session_device(session, "commit") as opened:
                report = commit_session(session, opened, options, found.mounted, progress)
    output.json(reports.commit_record(report))
    reports.say_commit(output, elsewhere or session.info.name, report)
    argument = shell_word(elsewhere) if elsewhere is not None else session.info.argument
    return reports.say_tried(output, argument, report.write)


@click.command()
@where("DIR or SOURCE", required=True)
@_PATHS
@click.option("--yes", "-y", is_flag=True, help="Do not ask before dropping everything.")
@PARTITION
@SLOT
@click.pass_obj
def revert(
    output: Output, where: str, paths: tuple[str, ...], yes: bool, partition: int | None, slot: str
) -> int:
    """Bring PATHs, or everything, back to what was last read or committed."""
    found = find_session(where, partition, slot)
    if found.idle:
        title = printable(found.session.info.title)
        output.say(f"{title}: not mounted, no edits: nothing to revert")
        return EXIT_OK
    wanted = _paths(found, paths)
    if not (wanted or yes or confirmed(output, f"Drop all edits of {found.session.info.name}?")):
        return EXIT_FAILURE
    changed = revert_session(found.session, wanted, found.mountpoint, say=output.say)
    for path in changed:
        output.say(f"  {printable(path)}")
    output.say(f"{count_text(len(changed), 'change')} reverted")
    return EXIT_OK


@click.command()
@where("DIR or SOURCE", required=True)
@click.option(
    "--to", "number", type=int, metavar="N", help="The image with this number in the log."
)
@click.option("--dry-run", is_flag=True, help="Only show what would be written.")
@SLOT
@force("Overwrite a target that changed elsewhere; with --slot, that slot.")
@NO_RESET
@PARTITION
@JSON
@click.pass_obj
def undo(
    output: Output, where: str, number: int | None, dry_run: bool, slot: str, force: bool,
    no_reset: bool, partition: int | None,
) -> None:  # fmt: skip
    """Write the previous image back, or image N of the log.

    An undo is entered in the log too: another undo goes further back, and `undo --to N` returns to
    any image. An image file that was deleted comes back as it was last written. Commit or revert
    edits first.
    """
    found = find_session(where, partition, slot)
    session = found.session
    with session_device(session) as opened, output.progress() as progress:
        done = undo_session(
            session, opened, number, WriteOptions(force, not no_reset, slot=slot),
            dry_run=dry_run, mounted=found.mounted, progress=progress,
        )  # fmt: skip
    entry, report = done.entry, done.report
    write = report and reports.write_record(report)
    output.json({"restored": entry.number, "digest": entry.digest, "write": write})
    if done.there:
        output.say(f"{printable(session.info.name)}: {done.there}")
        return
    _say_undone(output, session, done.before, entry)
    if report is not None:
        output.say(f"{printable(session.info.name)}: {reports.write_text(report, entry.size)}")


def _say_undone(
    output: Output, session: Session, digest: str, wanted: history.HistoryEntry
) -> None:
    """Print what an undo restored. digest: of the image that it replaced, '' if there was none."""
    image = session.folder.image
    changes = list(changes_between(image(digest), image(wanted.digest))) if digest else []
    output.say(f"back to image {wanted.number}: {wanted.size:,} B, "
               f"{printable(wanted.summary or wanted.kind)}")  # fmt: skip
    shown = changes if output.verbose else changes[:_SHOWN]
    for change, path in shown:
        output.say(f"  {change.name[0]} {printable(path)}")
    if len(shown) < len(changes):
        output.say(f"  and {len(changes) - len(shown)} more (-v lists them)")


#: Changes that an undo lists without -v; a screen should hold them.
_SHOWN = 20


def _bytes(context: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    """`200M` and the like as bytes."""
    if value is None:
        return None
    found = re.fullmatch(r"(\d+)([kmg]?)(i?b)?", value.strip().lower())
    if found is None:
        raise click.BadParameter(f"{value!r} is not a size such as 500K, 200M or 2G")
    return int(found[1]) << 10 * " kmg".index(found[2] or " ")


@click.command()
@where("[DIR or SOURCE]", required=False)
@click.option(
    "--keep", metavar="SIZE", callback=_bytes,
    shell_complete=values.choices("200M", "1G", "5G"),
    help="Keep at most this much from now on (default 1G); the last two images always stay.",
)  # fmt: skip
@PARTITION
@SLOT_TO_READ
@JSON
@click.pass_obj
def log(
    output: Output, where: str | None, keep: int | None, partition: int | None, slot: str
) -> None:
    """The images that the target held, newest last; * marks the current one.

    Each read, commit, undo and push adds one. Without DIR or SOURCE: the log of the mount that the
    current folder is in, or else of the only session with edits.
    """
    session = find_session(where, partition, slot, only_looks=keep is None).session
    if keep is not None:
        with session.folder.lock_for_change(session.info.name):
            history.keep_within(session.folder, keep)
    known = history.entries(session.folder)
    none = {"restores": None}
    output.json([each._asdict() | (none if each.restores < 0 else {}) for each in known])
    lines = []
    for entry in known:
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.time))
        mark = "*" if entry is known[-1] else " "
        line = f"{mark}{entry.number:4}  {when}  {entry.kind:6}  {entry.size:>12,} B"
        line = f"{line}  {printable(entry.summary)}".rstrip()
        lines.append(fitted(line) if sys.stdout.isatty() else line)
    output.show_exactly(lines, (("*", "green"),))
