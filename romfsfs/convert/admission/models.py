"""Models against the board that is to run them.

The N6's firmware runs only networks that ST Edge AI compiled (`NBIN`). All other boards run
TensorFlow Lite Micro with the operators that their firmware registers, the AE3 also with an
Ethos-U (docs/converters.md; firmware lib/tflm/tflm_backend.cc).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from romfsfs.boards import NeuralArtNpu, VelaNpu
from romfsfs.convert.flatbuffer import ETHOS_U, IDENTIFIER, Model, ModelError, read_model
from romfsfs.convert.types import Diagnostic, Reader, Target, error, warning

#: The first bytes of a model compiled for the Neural-ART.
NEURAL_ART_MAGIC = b"NBIN"
MODEL_SUFFIXES = (".tflite", ".lite", ".onnx")
#: Types that `ml.Model` accepts as inputs and outputs, and the schema version that TFLM reads.
_TYPES = frozenset({"int8", "uint8", "int16", "uint16", "float32"})
_SCHEMA = 3
_MAX_NAMED = 5
_ORIGINAL = "copy the original model"


class Operators(NamedTuple):
    """firmware: the version that the list is from. names: of builtin operators, by number.
    registered: names of the operators that it has, builtin and custom."""

    firmware: str
    names: tuple[str, ...]
    registered: frozenset[str]


@lru_cache(maxsize=1)
def operators() -> Operators:
    """The operators in `tflm.json`, where a minus precedes those that the firmware lacks."""
    table = json.loads(Path(__file__).parent.with_name("tflm.json").read_bytes())
    marked = " ".join(table["builtin"]).split()
    registered = {name for name in marked if not name.startswith("-")}
    names = tuple(name.removeprefix("-") for name in marked)
    return Operators(table["firmware"], names, frozenset(registered.union(table["custom"])))


def operator_name(number: int) -> str:
    """A builtin operator's name in TFLite's schema and tools, or `number N`."""
    names = operators().names
    return names[number] if number < len(names) else f"number {number}"


def suffix(path: str) -> str:
    """The last suffix of a path's name, with its dot, in lower case; "" if it has none."""
    name = path.rpartition("/")[2]
    return "." + name.rpartition(".")[2].lower() if "." in name else ""


def is_model(path: str, head: bytes) -> bool:
    """Whether a file is a model, by its first bytes (`head`, 8 or none), else by its name."""
    if head.startswith(NEURAL_ART_MAGIC) or head[4:8] == IDENTIFIER:
        return True
    return suffix(path) in MODEL_SUFFIXES


def model_findings(path: str, read: Reader, size: int, target: Target) -> tuple[Diagnostic, ...]:
    """What keeps, or may keep, a stored model from running on the target. OSError of `read`."""
    npu = target.partition.npu if target.partition is not None else None
    on_n6 = isinstance(npu, NeuralArtNpu)
    head = read(0, 8)
    if head.startswith(NEURAL_ART_MAGIC):
        if target.board is None or on_n6:
            return ()
        return (_misfit(f"compiled for the N6's Neural-ART, which {target.name} does not have"),)
    if head[4:8] != IDENTIFIER and suffix(path) == ".onnx":
        if target.board is None or on_n6:
            return (_uncompiled(target),) if on_n6 else ()
        message = f"{target.name} runs .tflite models, not ONNX; export it as .tflite"
        return (warning("model-unsupported", message),)
    model = look_into(read, size)
    if isinstance(model, Diagnostic):
        return (model,)
    if on_n6:
        if model.npu:
            return (_misfit(f"compiled for the {_others(model)}, but the N6 has a Neural-ART"),)
        return (_uncompiled(target),)
    return tuple(_on_tflm(model, target, npu if isinstance(npu, VelaNpu) else None))


@lru_cache(maxsize=1)  # a stored model is asked for twice: for its findings, then its figures
def look_into(read: Reader, size: int) -> Model | Diagnostic:
    """Parse a TFLite model; the diagnostic if it is none. OSError of `read`."""
    try:
        return read_model(read, size)
    except ModelError as caught:
        return error("model-invalid", f"not a usable model, {caught}; copy the file again")


def tflm_findings(model: Model) -> Iterator[Diagnostic]:
    """Findings about a model on the firmware's TensorFlow Lite Micro, with or without an NPU."""
    if model.version != _SCHEMA:
        message = f"its schema is version {model.version}, the firmware reads {_SCHEMA}; convert "
        yield error("model-unsupported", f"{message}the original model anew with TensorFlow 2")
    for kind, types in (("input", model.inputs), ("output", model.outputs)):
        wrong = " and ".join(sorted(set(types) - _TYPES))
        if wrong:
            message = f"an {kind} is {wrong}, ml.Model takes int8, uint8, int16, uint16 and "
            yield error("model-unsupported", f"{message}float32; export the model with those")
    missing = _missing(model)
    if missing:
        message = f"needs operators that firmware {operators().firmware} lacks: {missing}; "
        yield warning("operators", f"{message}export the model without them")


def _misfit(what: str) -> Diagnostic:
    return error("npu-mismatch", f"{what}; {_ORIGINAL}")


def _uncompiled(target: Target) -> Diagnostic:
    message = f"{target.name} runs only models compiled by ST Edge AI; let romfsfs convert it"
    return error("model-unsupported", message)


def _others(model: Model) -> str:
    return " and ".join(map(str, sorted(model.npus))) or "Ethos-U"


def _on_tflm(model: Model, target: Target, npu: VelaNpu | None) -> Iterator[Diagnostic]:
    """Findings about a model on any board but the N6. npu: the core's Ethos-U, if it has one."""
    if target.board is None:
        return
    if model.npu and npu is None:
        yield _misfit(f"compiled for the {_others(model)}, but {target.name} has no NPU")
    elif npu is not None:
        here = npu.accelerator_config.rpartition("ethos-")[2].upper().replace("-", " of ")
        here = f"Ethos-{here} MACs"
        if any(str(each) != here for each in model.npus):
            yield _misfit(f"compiled for the {_others(model)}, but this core has an {here}")
    yield from tflm_findings(model)
    have, what = _memory(target, npu)
    if have and model.sram >= have:  # the firmware itself takes some
        message = f"needs {mebibytes(model.sram, have)} {what} at least; "
        yield error("sram", f"{message}use a smaller model or input")


def _missing(model: Model) -> str:
    """The operators that firmware of the listed version lacks, by name, with their count."""
    used = {operator_name(number): count for number, count in model.builtin.items()}
    used.update({name or "a custom operator without a name": n for name, n in model.custom.items()})
    known = operators().registered | {ETHOS_U}
    return listed([f"{name} ({n}x)" for name, n in sorted(used.items()) if name not in known])


def listed(names: list[str]) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - _MAX_NAMED} more" if len(names) > _MAX_NAMED else ""
    return ", ".join(names[:_MAX_NAMED]) + more


def _memory(target: Target, npu: VelaNpu | None) -> tuple[int, str]:
    """The most memory that a model can have, bytes, and what to call it; 0: unknown."""
    if npu is not None:
        return npu.sram_heap_bytes, "SRAM"
    words = target.board.arch_string.split() if target.board is not None else []
    kibibytes = [int(word) for word in words if word.isdigit()]
    return (kibibytes[0] << 10, "RAM") if kibibytes else (0, "")


def mebibytes(need: int, have: int) -> str:
    """`5.1 of 4.0 MiB`, with as many decimals as it takes to tell the two apart."""
    for decimals in (1, 2, 3):
        texts = [f"{value / (1 << 20):.{decimals}f}" for value in (need, have)]
        if texts[0] != texts[1]:
            break
    return f"{texts[0]} of {texts[1]} MiB"
