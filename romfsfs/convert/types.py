"""What goes into a conversion and what comes out: plain values, no behaviour that starts a tool.

    Target      what the camera is: board, partition, bytecode
    Conversion  what became of one file, with Diagnostics for the user
    Decision    what would be done with a file (between converters and registry)
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
    loads (`sys.implementation._mpy`); they win over what the board table says.
    here: its current folder and the modules there, which are found before those of /rom.
    """

    board: Board | None = None
    partition: Partition | None = None
    options: Options = field(default_factory=Options)
    mpy_version: tuple[int, int] | None = None
    march: str | None = None
    here: tuple[str, ...] = ()

    @property
    def architecture(self) -> str | None:
        """mpy-cross's name of the native architecture; None: portable bytecode only."""
        if self.march:
            return self.march
        return (self.board.march if self.board is not None else "") or None

    @property
    def name(self) -> str:
        """How to call the target in a message."""
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
    `hidden`, `tool-missing`, `tool-failed`, `time-out`, `options`, `io`, `internal`).
    message: one line, with the remedy. detail: the tool's output (its head and last lines when
    it was long), or "".
    """

    severity: Severity
    code: str
    message: str
    detail: str = ""


class Conversion(NamedTuple):
    """What became of one file.

    artifact: the file in the cache to store; None: the source itself is stored (READY), or
    nothing can be (otherwise). digest, size: of what is stored; "" and 0 until that is known.
    An artifact may be trimmed from the cache by anyone at any time: open it soon after `lookup`,
    and look it up again when it is gone.
    """

    state: State
    stored_path: str
    artifact: Path | None = None
    digest: str = ""
    size: int = 0
    diagnostics: tuple[Diagnostic, ...] = ()

    @property
    def message(self) -> str:
        """The most serious diagnostic's line, or ""."""
        rank = {"error": 0, "warning": 1, "info": 2}
        first = min(self.diagnostics, key=lambda each: rank[each.severity], default=None)
        return first.message if first is not None else ""


class Decision(NamedTuple):
    """What is to be done with a file, found without running a tool.

    state READY: store it unchanged. FAILED: it cannot be used. PENDING: convert it to
    `stored_path`; `parameters` is all that the result depends on besides the source's bytes,
    `keep_source` stores the source all the same and only checks it.
    """

    state: State
    stored_path: str
    parameters: tuple[str, ...] = ()
    keep_source: bool = False
    diagnostics: tuple[Diagnostic, ...] = ()


class Figures(NamedTuple):
    """Of one model; None: nobody says.

    npu, operators: how many of its operators the NPU runs, of how many (Neural-ART: epochs). sram,
    flash: bytes. seconds: an inference on the NPU, as the compiler estimates it.
    """

    npu: int | None = None
    operators: int | None = None
    sram: int | None = None
    flash: int | None = None
    seconds: float | None = None

    @property
    def text(self) -> str:
        """For people, in one line."""
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
            parts.append(f"{self.seconds * 1000:.3g} ms an inference, as estimated")
        return ", ".join(parts)


class Product(NamedTuple):
    """What a converter made. artifact: a file in the job's folder, later in the cache; None: it
    failed, or the source is stored and was only checked.

    cacheable: the same input will give the same again (False: time-out, missing tool). figures: of
    a model. digest, size: the artifact's, "" and 0 until it is filed."""

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
    """One conversion at work. folder: private to it (0700), removed afterwards. source: a copy
    of the file in it, whose bytes have been compared with the digest they are filed under."""

    path: str
    folder: Path
    source: Path
    cancel: Cancel | None = None


class Converter(Protocol):
    """A kind of conversion. Stateless but for memos; every method may be called from any thread."""

    name: str
    version: int  # part of the cache key: count up when the result for the same input changes
    source_name: str  # what the copy of the source is called in the job's folder

    def concerns(self, path: str) -> bool:
        """By name alone: may this file need this converter?"""
        ...

    def made_for(self, path: str) -> str:
        """What its result depends on besides the file and the tool's version, as
        `options.described` words it; "": nothing."""
        ...

    def decide(self, path: str, read: Reader, size: int) -> Decision:
        """What is to be done with it. Runs no tool; ToolMissing when the tool is not there,
        OptionError for a file of the user's that it cannot be given."""
        ...

    def convert(self, job: Job) -> Product:
        """Do it. ToolMissing, OptionError, OSError, Cancelled."""
        ...


class StaleSource(RomfsError):
    """The file is not (or no longer) the bytes it was said to be: hash it again and retry."""


def _diagnostic(severity: Severity, code: str, message: str, detail: str = "") -> Diagnostic:
    return Diagnostic(severity, code, " ".join(message.split()), detail)


#: What cannot work, what may not, and what is worth knowing.
error, warning, info = (partial(_diagnostic, each) for each in get_args(Severity))


def time_out(tool: str, outcome: Outcome, limit: float) -> Diagnostic:
    """The diagnostic for a tool that had to be stopped after `limit` seconds."""
    last = f" its last output: {outcome.last_line}" if outcome.last_line else " it said nothing"
    message = f"{tool} did not finish in {limit:g} s and was stopped;{last}"
    return error("time-out", message, outcome.output)


def failure(tool: str, outcome: Outcome) -> Diagnostic:
    """The diagnostic for a tool that gave no result, when its output says nothing better."""
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
    """The file is stored as it is."""
    return Decision(State.READY, path, diagnostics=diagnostics)


def refused(path: str, *diagnostics: Diagnostic) -> Decision:
    """The file cannot be used."""
    return Decision(State.FAILED, path, diagnostics=diagnostics)


def labels_name(path: str) -> str:
    """The labels file that `ml.Model` looks for beside the model `path`.

    The firmware cuts the whole path at its FIRST dot: `yolo.v8.tflite` reads `yolo.txt`.
    """
    return path.split(".", 1)[0] + ".txt"
