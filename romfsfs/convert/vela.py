"""Models for the AE3: `.tflite` through Vela, Arm's compiler for the Ethos-U.

Vela runs as `python -m ethosu.vela` in a process of its own, because it crashes (SIGSEGV) on some
damaged models. The module is run, not the `vela` script, whose place and first line differ between
kinds of installation, while this Python is known to have the package.
Measured: 0.4 s a model, of which 0.35 s is Vela's start.
"""

from __future__ import annotations

import csv
import os
import re
import shlex
import sys
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from romfsfs.convert.admission.models import (
    NEURAL_ART_MAGIC,
    listed,
    look_into,
    mebibytes,
    operator_name,
    suffix,
    tflm_findings,
)
from romfsfs.convert.flatbuffer import ETHOS_U, Model
from romfsfs.convert.options import FileOptions, described
from romfsfs.convert.types import (
    Decision,
    Diagnostic,
    Figures,
    Job,
    Product,
    Reader,
    State,
    Target,
    error,
    failure,
    info,
    refused,
    time_out,
    unchanged,
    warning,
)
from romfsfs.errors import ToolMissing
from romfsfs.system.runner import GIB, Limits, Outcome, environment, made_file, run_tool

if TYPE_CHECKING:
    from romfsfs.boards import VelaNpu

_DISTRIBUTION = "ethos-u-vela"
_SUFFIXES = (".tflite", ".lite")
_CONFIGURATION = "vela.ini"
_OUTPUT = "out"
#: SRAM use above this fraction of the heap is worth a warning (docs/converters.md).
_TIGHT = 0.9
_FALLBACK = re.compile(
    r"^Warning \(supported operators\) operator: (?P<name>\w+).*\n(?:Reason: (?P<reason>.*))?", re.M
)
#: Vela's reason for not compiling a model, between its stack trace and its last line.
_REFUSAL = re.compile(
    r"^RuntimeError: (?:Compilation failed: )?(?:Error: )?(?P<why>.*?)(?:\nFailed to parse|\s*\Z)",
    re.M | re.S,
)
#: The tensor name after a reason: generated ones, of up to 300 characters, that help no author.
_TENSOR = re.compile(r" \([^()]*\)$")
_FLOAT = re.compile(r"float", re.I)
#: What Vela prints before it crashes on a damaged model.
_UNREADABLE = re.compile(r"^.*Failed to load \w+ model.*?(?=\.?$)", re.M)
#: How Vela prints where operators run.
_OPERATORS = re.compile(r"^(?P<where>CPU|NPU) operators = (?P<count>\d{1,9})\b", re.M)
#: A larger number is neither a size in KiB nor a time in seconds.
_MAX_NUMBER = 1e12
#: A summary has two lines; a larger file is not one.
_MAX_SUMMARY_BYTES = 1 << 20


class VelaConverter:
    """Compiles models for the AE3's Ethos-U with Vela."""

    name = "vela"
    version = 4
    source_name = "model.tflite"

    def __init__(self, target: Target, npu: VelaNpu) -> None:
        self._options = target.options
        self._npu = npu

    def concerns(self, path: str) -> bool:
        return suffix(path) in _SUFFIXES

    def made_for(self, path: str) -> str:
        chosen = self._options.for_path(path)
        return described({
            "npu": self._npu.accelerator_config,
            "system": self._npu.system_config,
            "optimise": chosen.strategy,
            "arguments": shlex.join(chosen.arguments or ()),
        })  # fmt: skip

    def decide(self, path: str, read: Reader, size: int) -> Decision:
        if read(0, len(NEURAL_ART_MAGIC)) == NEURAL_ART_MAGIC:
            return unchanged(path)  # compiled for another camera's NPU: no compiler takes it
        model = look_into(read, size)
        if isinstance(model, Diagnostic):
            return refused(path, model)
        npu, chosen = self._npu, self._options.for_path(path)
        if model.npu:
            return unchanged(path)
        found = tuple(tflm_findings(model))
        if any(each.severity == "error" for each in found):
            return refused(path, *found)  # Vela changes neither types nor schema
        heap = str(npu.sram_heap_bytes)
        return Decision(
            State.PENDING, path,
            (installed_version(), configuration(), heap, *vela_argv(npu, chosen, "")[3:]),
        )  # fmt: skip

    def convert(self, job: Job) -> Product:
        (job.folder / _CONFIGURATION).write_text(configuration(), "ascii")
        chosen = self._options.for_path(job.path)
        argv = vela_argv(self._npu, chosen, job.source.name)
        limits = Limits(self._options.timeout_seconds, memory_bytes=8 * GIB)
        env = environment(job.folder, **python_environment())
        outcome = run_tool(argv, folder=job.folder, env=env, limits=limits, cancel=job.cancel)
        if outcome.timed_out:
            return Product(None, (time_out("Vela", outcome, limits.seconds),), cacheable=False)
        output = job.folder / _OUTPUT / f"{job.source.stem}_vela.tflite"
        size = made_file(output, job.folder)
        if outcome.status != 0 or size is None:
            # Only a model's fault is cached: this machine (memory, a damaged package) can change.
            problem = explain(outcome)
            blamed = outcome.status > 0 and problem.code in ("model-invalid", "model-unsupported")
            return Product(None, (problem,), cacheable=blamed)
        return self._judge(output, size, outcome, chosen.strategy)

    def _judge(self, output: Path, size: int, outcome: Outcome, strategy: str) -> Product:
        """The product of a successful run: can the camera run the model that Vela made?"""
        with output.open("rb") as file:
            fd = file.fileno()
            model = look_into(lambda at, count: os.pread(fd, count, at), size)
        if isinstance(model, Diagnostic):
            message = f"the output of Vela is {model.message}"
            return Product(None, (error("tool-failed", message, outcome.output),), cacheable=False)
        found: list[Diagnostic] = []
        told = figures(summary(output.parent), outcome.output, size)
        need = told.sram
        have = self._npu.sram_heap_bytes
        if need is None:
            message = "Vela does not say how much SRAM the model needs; try it on the camera"
            found.append(warning("sram-unknown", message, outcome.output))
        elif need > have:
            message = f"needs {mebibytes(need, have)} SRAM; {_smaller(strategy)}"
            return Product(None, (error("sram", message, outcome.output),))
        elif need > _TIGHT * have:
            message = f"needs {mebibytes(need, have)} SRAM, more than 90 %; {_smaller(strategy)}"
            found.append(warning("sram-tight", message, outcome.output))
        return Product(output, (*found, *cpu_fallback(outcome.output, model)), figures=told)


def _smaller(strategy: str) -> str:
    """What to do about a model that needs too much memory."""
    if strategy == "Size":
        return "use a smaller model or input"
    return "try --optimise Size (optimise in romfs.toml), or use a smaller model or input"


def vela_argv(npu: VelaNpu, chosen: FileOptions, model: str) -> list[str]:
    """The command line, for a folder that holds the model and the configuration.

    The user's arguments come first, because Vela takes the last of an option given twice."""
    npu_words = [
        "--system-config", npu.system_config, "--accelerator-config", npu.accelerator_config,
        "--memory-mode", npu.memory_mode,
    ]  # fmt: skip
    ours = ["--optimise", chosen.strategy, "--config", _CONFIGURATION, "--output-dir", _OUTPUT]
    words = (*(chosen.arguments or ()), *npu_words, *ours)
    return [sys.executable, "-m", "ethosu.vela", *words, model]


def python_environment() -> dict[str, str]:
    """Environment variables with which another Python finds the packages that this one finds.

    Never in the current folder, which may hold the user's scripts."""
    import site

    found = {
        "OPENBLAS_NUM_THREADS": "1",  # each of its threads reserves address space
        "PYTHONSAFEPATH": "1",  # no packages from its current folder, which holds a model
    }
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    absolute = [path for path in paths if os.path.isabs(path)]
    if absolute:
        found["PYTHONPATH"] = os.pathsep.join(absolute)
    if site.ENABLE_USER_SITE:
        found["PYTHONUSERBASE"] = site.getuserbase()
    return found


@lru_cache(maxsize=1)
def configuration() -> str:
    """The INI that Vela reads: the system configurations and memory modes of all boards."""
    return Path(__file__).with_name(_CONFIGURATION).read_text("ascii")


def summary(folder: Path) -> dict[str, str]:
    """The row of the summary that Vela wrote to `folder`, by column; empty if there is none."""
    for path in sorted(folder.glob("*_summary_*.csv")):
        size = made_file(path, folder)
        if size is None or size > _MAX_SUMMARY_BYTES:
            continue
        with path.open(newline="", encoding="utf-8", errors="replace") as file:
            try:
                return next(csv.DictReader(file))
            except (StopIteration, csv.Error):
                return {}
    return {}


def figures(row: Mapping[str, str], output: str, size: int) -> Figures:
    """Vela's figures for the model of `size` bytes that it made.

    Vela 5.2 has KiB and seconds in the summary's `row`, and prints the operators."""
    sram, seconds = (_number(row.get(name)) for name in ("sram_memory_used", "inference_time"))
    found = {match["where"]: int(match["count"]) for match in _OPERATORS.finditer(output)}
    npu, total = found.get("NPU"), sum(found.values()) if len(found) == 2 else None
    needed = None if sram is None else int(sram * 1024)
    return Figures(npu, total, needed, size, seconds if npu else None)


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except (TypeError, ValueError):
        return None
    return value if 0 <= value < _MAX_NUMBER else None


def cpu_fallback(output: str, model: Model) -> tuple[Diagnostic, ...]:
    """A diagnostic for operators that stay on the CPU, with Vela's reasons if it gives any."""
    if not model.cpu:
        return ()
    reasons: dict[str, str] = {}
    for match in _FALLBACK.finditer(output):
        reason = _TENSOR.sub("", match["reason"] or "").strip()
        reasons.setdefault(match["name"], reason)
    names = {operator_name(number): operator_name(number) for number in model.builtin}
    names |= {name: "CUSTOM" for name in model.custom if name != ETHOS_U}
    groups: dict[str, list[str]] = {}
    for name, kind in sorted(names.items()):
        groups.setdefault(reasons.get(kind, ""), []).append(name)
    shown = ", ".join(f"{listed(each)}{why and f' ({why})'}" for why, each in groups.items())
    if model.npu:
        what = "1 operator runs" if model.cpu == 1 else f"{model.cpu} operators run"
        return (info("cpu-fallback", f"{what} on the CPU: {shown}", output),)
    message = f"nothing of it runs on the NPU: {shown}"
    if not _FLOAT.search(shown):  # not a kind of model that an NPU is for: no mistake
        return (info("cpu-fallback", message, output),)
    return (warning("cpu-fallback", f"{message}; quantise the model to int8", output),)


def explain(outcome: Outcome) -> Diagnostic:
    """Why Vela made no model: what it prints before and after its stack trace, in one line."""
    unreadable = _UNREADABLE.search(outcome.output)
    if unreadable:
        message = f"Vela cannot read the model: {unreadable[0].strip()}; copy the file again"
        return error("model-invalid", message, outcome.output)
    refusal = _REFUSAL.search(outcome.output)
    if refusal and outcome.status > 0:
        why = " ".join(re.sub(r"\.?\n -", ":", refusal["why"]).split()).rstrip(" ,.")
        remedy = "quantise the model to int8" if _FLOAT.search(why) else "change that operator"
        remedy += ", or store the model as it is, for the CPU: --convert PATTERN=no"
        return error("model-unsupported", f"Vela: {why}; {remedy}", outcome.output)
    return failure("Vela", outcome)


def installed_version() -> str:
    """Vela's version, read from its package each time: a mount outlives an upgrade. ToolMissing."""
    # Imports 31 modules, sockets and e-mail among them: only for a model that needs converting.
    from importlib import metadata

    try:
        return metadata.version(_DISTRIBUTION)
    except metadata.PackageNotFoundError:
        raise ToolMissing(
            "Vela, the compiler for this NPU, is not installed",
            next_step=f"python -m pip install {_DISTRIBUTION}",
        ) from None
