"""What goes into a conversion and what comes out: plain values, nothing that starts a tool.

    Target      what files are converted for: board, partition, bytecode
    Conversion  the state and result of one file, with Diagnostics for the user
    Decision    what has to be done with a file (between converters and registry)
    Product     what a converter made of it

Sizes are in bytes, times in seconds, digests SHA-256 in hexadecimal. Paths of files in the image
are relative, with `/`, and may hold surrogates (`os.fsdecode`).
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol, get_args

from romfsfs.convert.options import Options
from romfsfs.errors import RomfsError, count_text
from romfsfs.system.beside import Cancel

if TYPE_CHECKING:
    from romfsfs.boards import Board, Partition
    from romfsfs.system.runner import Outcome

Severity = Literal["error", "warning", "info"]
#: `read(offset, size)`: up to `size` bytes of the source, fewer at its end.
Reader = Callable[[int, int], bytes]


@dataclass(frozen=True, slots=True)
class Target:
    """What files are converted for.

    board None: portable bytecode, no NPU. mpy_version and march: what a connected camera says it
    loads (`sys.implementation._mpy`); they override the board table.
    here: its current folder, then the modules and folders in it, which hide those of /rom.
    """

    board: Board | None = None
    partition: Partition | None = None
    options: Options = field(default_factory=Options)
    mpy_version: tuple[int, int] | None = None
    march: str | None = None
    here: tuple[str, ...] = ()

    @property
    def architecture(self) -> str | None:
        """The native architecture, as mpy-cross calls it; None: portable bytecode only."""
        if self.march:
            return self.march
        return (self.board.march if self.board is not None else "") or None

    @property
    def name(self) -> str:
        """The target's name for messages."""
        return self.board.name if self.board is not None else "the camera"


class State(str, Enum):
    """READY: can be packed. PENDING: a conversion has to run. FAILED: see the diagnostics."""

    READY = "ready"
    PENDING = "pending"
    FAILED = "failed"


class Diagnostic(NamedTuple):
    """One thing to tell the user.

    code: stable, for scripts (`script-error`, `firmware-constant`, `encoding`, `byte-order-mark`,
    `look-alike`, `mpy-version`, `sram`, `sram-tight`, `sram-unknown`, `cpu-fallback`,
    `npu-mismatch`, `model-invalid`, `model-unsupported`, `operators`, `not-what-it-is-called`,
    `hides-module`, `not-started`, `cascade-invalid`, `cascade-unsupported`, `cascade-tilted`,
    `hidden`, `stale`, `tool-missing`, `tool-failed`, `time-out`, `options`, `io`, `internal`).
    message: one line, with the remedy. detail: the tool's output (shortened in the middle if it
    is long) or the source line, or "".
    """

    severity: Severity
    code: str
    message: str
    detail: str = ""


class Conversion(NamedTuple):
    """The state of one file's conversion, and its result.

    artifact: the file in the cache to store; None: the source itself is stored (READY), or nothing
    can be (otherwise). digest, size: of what is stored; "" and 0 until that is known.
    Any process may trim an artifact from the cache at any time: open it soon after `lookup`, and
    call `lookup` again if it is gone.
    """

    state: State
    stored_path: str
    artifact: Path | None = None
    digest: str = ""
    size: int = 0
    diagnostics: tuple[Diagnostic, ...] = ()

    @property
    def message(self) -> str:
        """The message of the most serious diagnostic, or ""."""
        rank = {"error": 0, "warning": 1, "info": 2}
        first = min(self.diagnostics, key=lambda each: rank[each.severity], default=None)
        return first.message if first is not None else ""


class Decision(NamedTuple):
    """What has to be done with a file, decided without running a tool.

    state READY: store it unchanged. FAILED: it cannot be used. PENDING: convert it to
    `stored_path`. parameters: all that the result depends on besides the source's bytes and the
    converter. keep_source: the conversion is only a check, and the source is stored.
    """

    state: State
    stored_path: str
    parameters: tuple[str, ...] = ()
    keep_source: bool = False
    diagnostics: tuple[Diagnostic, ...] = ()


class Figures(NamedTuple):
    """What is known of one model; None: unknown.

    npu: how many of its `operators` (Neural-ART: epochs) run on the NPU. sram, flash: bytes.
    seconds: for one inference on the NPU, as the compiler estimates.
    """

    npu: int | None = None
    operators: int | None = None
    sram: int | None = None
    flash: int | None = None
    seconds: float | None = None

    @property
    def text(self) -> str:
        """The figures for people, in one line."""
        parts = []
        if self.operators is not None and self.npu is not None:
            share = f"{self.npu / self.operators:.0%}" if self.operators else "0%"
            operators = count_text(self.operators, "operator")
            parts.append(f"{self.npu} of {operators} on the NPU ({share})")
            if not self.npu:
                parts = [f"{operators}, all on the CPU"]
        parts += [f"{value:,} B {what}" for what, value in (("SRAM", self.sram),
                  ("flash", self.flash)) if value is not None]  # fmt: skip
        if self.seconds is not None:
            parts.append(f"an estimated {self.seconds * 1000:.3g} ms per inference")
        return ", ".join(parts)


class Product(NamedTuple):
    """What a converter made.

    artifact: a file in the job's folder, later in the cache; None: the conversion failed, or was
    only a check. cacheable: the same input gives the same result again (not so after a time-out).
    figures: of a model. digest, size: of the artifact; "" and 0 until it is in the cache."""

    artifact: Path | None
    diagnostics: tuple[Diagnostic, ...] = ()
    cacheable: bool = True
    figures: Figures | None = None
    digest: str = ""
    size: int = 0

    @property
    def failed(self) -> bool:
        return any(each.severity == "error" for each in self.diagnostics)


class Job(NamedTuple):
    """One running conversion. path: of the file in the tree.

    folder: private to it (0700), removed afterwards. source: the copy there, digest verified."""

    path: str
    folder: Path
    source: Path
    cancel: Cancel | None = None


class Converter(Protocol):
    """A kind of conversion. Any thread may call any method: there is no state but memos."""

    name: str
    version: int  # part of the cache key: increment it if the result for the same input changes
    source_name: str  # name of the source's copy in the job's folder

    def concerns(self, path: str) -> bool:
        """Whether this file may need this converter, by its name alone."""
        ...

    def made_for(self, path: str) -> str:
        """What the result depends on besides source and tool version; "": nothing.

        As worded by `options.described`."""
        ...

    def decide(self, path: str, read: Reader, size: int) -> Decision:
        """What has to be done with the file. Runs no tool.

        ToolMissing if the tool is not installed, OptionError for a settings file of the user's that
        cannot be used, OSError of `read`."""
        ...

    def convert(self, job: Job) -> Product:
        """Run the tool. ToolMissing, OptionError, OSError; Cancelled if `job.cancel` is set."""
        ...


class StaleSource(RomfsError):
    """The file's bytes do not match the given digest, or no longer: hash it again and retry."""


def _diagnostic(severity: Severity, code: str, message: str, detail: str = "") -> Diagnostic:
    return Diagnostic(severity, code, " ".join(message.split()), detail)


#: Make a Diagnostic: for what cannot work, for what may not, for what is worth knowing.
error, warning, info = (partial(_diagnostic, each) for each in get_args(Severity))


def time_out(tool: str, outcome: Outcome, limit: float) -> Diagnostic:
    """The diagnostic for a tool that had to be stopped after `limit` seconds."""
    last = f" its last output: {outcome.last_line}" if outcome.last_line else " it said nothing"
    message = f"{tool} did not finish in {limit:g} s and was stopped;{last}"
    return error("time-out", message, outcome.output)


def failure(tool: str, outcome: Outcome) -> Diagnostic:
    """The diagnostic for a tool that gave no result and whose output says nothing better."""
    if outcome.status < 0:
        try:
            how = f"was killed by {signal.Signals(-outcome.status).name}"
        except ValueError:
            how = f"was killed by signal {-outcome.status}"
    else:
        how = f"failed with exit status {outcome.status}" if outcome.status else "made no file"
    said = outcome.last_line or "it said nothing"
    return error("tool-failed", f"{tool} {how}: {said}", outcome.output)


def unchanged(path: str, *diagnostics: Diagnostic) -> Decision:
    """The decision to store the file as it is."""
    return Decision(State.READY, path, diagnostics=diagnostics)


def refused(path: str, *diagnostics: Diagnostic) -> Decision:
    """The decision that the file cannot be used."""
    return Decision(State.FAILED, path, diagnostics=diagnostics)


def labels_name(path: str) -> str:
    """The labels file that `ml.Model` looks for beside the model `path`.

    The firmware cuts the whole path at its FIRST dot: for `yolo.v8.tflite` it reads `yolo.txt`.
    """
    return path.split(".", 1)[0] + ".txt"
