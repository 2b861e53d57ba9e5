"""Reports on commits and writes, and questions, that several commands share."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from romfsfs.cli.output import Output, confirmed
from romfsfs.devices.base import Tensor, WriteReport
from romfsfs.devices.open import open_device
from romfsfs.errors import EXIT_FAILURE, EXIT_OK, RomfsError, count_text, file_exists, printable
from romfsfs.session.plan.problems import WARNING, Problem, told
from romfsfs.session.rebase.commit import CommitReport
from romfsfs.session.session import Session
from romfsfs.system.files import Progress

if TYPE_CHECKING:
    from romfsfs.ide.archive import Fetching

#: Printed for a camera that holds the image already.
HELD = "has this image already, nothing written"


def refuse_existing(*files: str | os.PathLike[str], force: bool) -> None:
    """UsageError if one of these is a file that exists, unless `force`."""
    for file in files if not force else ():
        if os.path.isfile(file):
            raise file_exists(file)


STATUS_COLOURS = (
    ("  A ", "green"), ("  M ", "yellow"), ("  D ", "red"), ("  error", "red"), ("    |", "red"),
    ("  warning", "yellow"),
)  # fmt: skip
DIFF_COLOURS = (
    ("+++ ", "white"), ("--- ", "white"), ("+", "green"), ("-", "red"), ("@@", "cyan"),
)  # fmt: skip


def say_warnings(output: Output, problems: Iterable[Problem], before: str = "") -> None:
    """Print the warnings among the problems, grouped as by `told`. before: a prefix."""
    for problem in told(problems, output.verbose > 0):
        if problem.severity == WARNING:
            output.note(f"warning: {before}{problem.text}")


def say_commit(output: Output, name: str, report: CommitReport) -> None:
    """Print what a commit did."""
    name = printable(name)
    say_warnings(output, report.plan.problems)
    if report.recovered:
        output.say(f"{name}: an earlier interrupted transaction was {report.recovered}")
    if report.clean:
        more = "else " if report.recovered else ""
        output.say(f"{name}: nothing to commit, nothing {more}written")
        return
    if report.write is None:
        blocks = ""
        if report.blocks is not None:
            blocks = f", which differs in {count_text(report.blocks, 'erase block')}"
        output.say(f"{name}: would write an image of {report.size:,} B{blocks} (dry run)")
        return
    said = [problem.text for problem in told(report.plan.problems)]
    output.say(f"{name}: {write_text(report.write, report.size, said)}")


_TYPES = {"b": "int8", "B": "uint8", "h": "int16", "H": "uint16", "f": "float32"}


def say_tried(output: Output, argument: str, write: WriteReport | None) -> int:
    """Print how the camera opened the models (`--try`); exit code 1 if one did not open.

    argument: the camera, as a shell word."""
    code = EXIT_OK
    for model in write.tried if write is not None else ():
        if model.error:
            code = EXIT_FAILURE
            printed = model.detail.partition("\n")[0].removeprefix("tflm_backend: ")
            why = f"{model.error} ({printed})" if printed else model.error
            output.fault(f"{model.path} does not open on the camera: {why}; "
                         f"the image before: romfsfs undo {argument}")  # fmt: skip
        else:
            ends = " -> ".join(map(_ends_text, (model.inputs, model.outputs)))
            output.say(f"  {model.path} opens: {model.memory:,} B of memory, {ends}")
    return code


def _ends_text(tensors: Iterable[Tensor]) -> str:
    """Each tensor as `1x96x96x3 int8`."""
    return ", ".join(
        f"{'x'.join(map(str, each.shape))} {_TYPES.get(each.dtype, each.dtype)}" for each in tensors
    )


def write_text(report: WriteReport, size: int, said: Collection[str] = ()) -> str:
    """`wrote 65,536 B ...`: bytes, erase blocks, seconds, whether it was verified, and notes.

    said: notes that were printed before and are left out."""
    # Flash is programmed in whole pages: the end of the last one is no part of the image.
    parts = [f"wrote {min(report.written, size):,} of {size:,} B"]
    if report.erased_blocks:
        parts.append(count_text(report.erased_blocks, "erase block"))
    parts.append(f"{report.seconds:.2f} s")
    parts.append("verified" if report.verified else "NOT verified")
    return ", ".join(parts) + "".join(f"; {note}" for note in report.notes if note not in said)


def commit_record(report: CommitReport) -> dict[str, Any]:
    """A commit as JSON."""
    return {
        "clean": report.clean, "size": report.size, "digest": report.digest,
        "blocks": report.blocks, "write": report.write and write_record(report.write),
    }  # fmt: skip


#: `commit --json` of a session without edits: its image is only on the target.
NOTHING_COMMITTED: dict[str, Any] = {
    "clean": True, "size": None, "digest": None, "blocks": None, "write": None
}  # fmt: skip


def idle_record(session: Session) -> dict[str, Any]:
    """`status --json` of a session without edits; what the target holds is not looked at."""
    info = session.info
    return {
        "source": info.name, "board": info.board, "partition": info.partition,
        "capacity": session.settings.capacity, "used": None, "free": None, "clean": True,
        "entries": [], "problems": [],
    }  # fmt: skip


def write_record(report: WriteReport) -> dict[str, Any]:
    """A write as JSON: bytes and seconds."""
    return asdict(report) | {"seconds": round(report.seconds, 3)}


def wait_for(output: Output, sources: Iterable[str], partition: int | None) -> None:
    """Wait until these boot loaders appear, and keep them from starting the firmware.

    UsageError for a source that is no boot loader."""
    for source in sources:
        open_device(source, partition=partition, wait=output.note).close()


def fetching(
    output: Output, progress: Progress, *, offline: bool, yes: bool, update: bool
) -> Fetching:
    """What may be fetched, as the options say; the user is asked before the first download."""
    from romfsfs.ide.archive import Fetching

    def agree(what: str) -> None:
        if not yes and not confirmed(output, f"No OpenMV IDE is installed. Download {what}?"):
            raise RomfsError("nothing was downloaded", next_step="name another place with --from")

    return Fetching(agree, offline, update, progress)
