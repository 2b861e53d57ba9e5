"""What the two NPU converters share: telling model files apart, and wording sizes."""

from __future__ import annotations

from romfsfs.convert.flatbuffer import ModelError, Operators, read_operators
from romfsfs.convert.types import Diagnostic, Reader, error

#: How a model compiled for the Neural-ART begins (docs/converters.md).
NEURAL_ART_MAGIC = b"NBIN"


def suffix(path: str) -> str:
    """`.tflite`, `.lite`, `.onnx` or whatever the name ends with, in lower case."""
    name = path.rpartition("/")[2]
    return "." + name.rpartition(".")[2].lower() if "." in name else ""


def inspect(read: Reader, size: int) -> Operators | Diagnostic:
    """The operators of a TFLite model, or why it is none."""
    try:
        return read_operators(read, size)
    except ModelError as caught:
        if read(0, len(NEURAL_ART_MAGIC)) == NEURAL_ART_MAGIC:
            message = "compiled for the Neural-ART of the N6; copy the original model"
            return error("model-invalid", message)
        return error("model-invalid", f"not a usable model, {caught}; copy the file again")


def mebibytes(need: int, have: int) -> str:
    """`5.1 of 4.0 MiB`, with as many decimals as it takes to tell the two apart."""
    for decimals in (1, 2, 3):
        texts = [f"{value / (1 << 20):.{decimals}f}" for value in (need, have)]
        if texts[0] != texts[1]:
            break
    return f"{texts[0]} of {texts[1]} MiB"
