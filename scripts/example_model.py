"""Writes a small int8 TensorFlow Lite model: `example_model.py OUT.tflite`.

A stand-in for a trained model, so that the demo needs no download: four convolutions over a
96 x 96 grey picture down to two scores, with weights that mean nothing. Vela takes it as it takes
any other. Needs flatbuffers and Vela's own TFLite schema classes, both of which come with romfsfs.
Always the same bytes.
"""

from __future__ import annotations

import math
import random
import sys
from pathlib import Path

import flatbuffers
import numpy as np
from ethosu.vela.tflite import (
    Buffer,
    Conv2DOptions,
    Model,
    Operator,
    OperatorCode,
    QuantizationParameters,
    SubGraph,
    Tensor,
)

# Numbers of the TFLite schema: TensorType, BuiltinOperator, BuiltinOptions, Padding.
INT32, INT8 = 2, 9
CONV_2D = 3
CONV_2D_OPTIONS = 1
SAME, VALID = 0, 1

#: kernel side, stride, channels out, padding; the last turns the 12 x 12 picture into two scores
LAYERS = ((3, 2, 16, SAME), (3, 2, 32, SAME), (3, 2, 48, SAME), (12, 1, 2, VALID))


class ModelBuilder:
    """Collects buffers and tensors; their numbers are what operators refer to."""

    def __init__(self) -> None:
        self.build = flatbuffers.Builder(1 << 16)
        self.buffers = [self._buffer(b"")]  # number 0 means: no data
        self.tensors: list[int] = []

    def tensor(
        self, name: str, shape: list[int], kind: int, scales: list[float], data: bytes = b""
    ) -> int:
        """Add a tensor (scales: one, or one for each output channel); its number."""
        build = self.build
        number = 0
        if data:
            number = len(self.buffers)
            self.buffers.append(self._buffer(data))
        text = build.CreateString(name)
        dimensions = build.CreateNumpyVector(np.array(shape, np.int32))
        scale = build.CreateNumpyVector(np.array(scales, np.float32))
        zero = build.CreateNumpyVector(np.zeros(len(scales), np.int64))
        QuantizationParameters.Start(build)
        QuantizationParameters.AddScale(build, scale)
        QuantizationParameters.AddZeroPoint(build, zero)
        quantization = QuantizationParameters.End(build)
        Tensor.Start(build)
        Tensor.AddShape(build, dimensions)
        Tensor.AddType(build, kind)
        Tensor.AddBuffer(build, number)
        Tensor.AddName(build, text)
        Tensor.AddQuantization(build, quantization)
        self.tensors.append(Tensor.End(build))
        return len(self.tensors) - 1

    def convolution(self, inputs: list[int], output: int, stride: int, padding: int) -> int:
        """Add a convolution of [picture, weights, bias]; its offset."""
        build = self.build
        Conv2DOptions.Start(build)
        Conv2DOptions.AddPadding(build, padding)
        Conv2DOptions.AddStrideW(build, stride)
        Conv2DOptions.AddStrideH(build, stride)
        options = Conv2DOptions.End(build)
        takes = build.CreateNumpyVector(np.array(inputs, np.int32))
        gives = build.CreateNumpyVector(np.array([output], np.int32))
        Operator.Start(build)
        Operator.AddInputs(build, takes)
        Operator.AddOutputs(build, gives)
        Operator.AddBuiltinOptionsType(build, CONV_2D_OPTIONS)
        Operator.AddBuiltinOptions(build, options)
        return int(Operator.End(build))

    def vector(self, offsets: list[int]) -> int:
        self.build.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            self.build.PrependUOffsetTRelative(offset)
        return int(self.build.EndVector())

    def _buffer(self, data: bytes) -> int:
        vector = self.build.CreateByteVector(data) if data else 0
        Buffer.Start(self.build)
        if data:
            Buffer.AddData(self.build, vector)
        return int(Buffer.End(self.build))


def example_model() -> bytes:
    """The model's bytes."""
    chance = random.Random(96)
    made = ModelBuilder()
    side, channels = 96, 1
    picture = first = made.tensor("picture", [1, side, side, 1], INT8, [1 / 255])
    operators = []
    for number, (kernel, stride, outputs, padding) in enumerate(LAYERS):
        shape = [outputs, kernel, kernel, channels]
        weights = made.tensor(
            f"weights{number}", shape, INT8, [0.01] * outputs, chance.randbytes(math.prod(shape))
        )
        bias = made.tensor(f"bias{number}", [outputs], INT32, [0.01 / 255] * outputs,
                           bytes(4 * outputs))  # fmt: skip
        side = -(-side // stride) if padding == SAME else (side - kernel) // stride + 1
        channels = outputs
        after = made.tensor(f"layer{number}", [1, side, side, channels], INT8, [0.05])
        operators.append(made.convolution([picture, weights, bias], after, stride, padding))
        picture = after
    return finished(made, operators, first, picture)


def finished(made: ModelBuilder, operators: list[int], first: int, last: int) -> bytes:
    """The model around its one graph."""
    build = made.build
    operator_vector = made.vector(operators)
    tensors = made.vector(made.tensors)
    takes = build.CreateNumpyVector(np.array([first], np.int32))
    gives = build.CreateNumpyVector(np.array([last], np.int32))
    SubGraph.Start(build)
    SubGraph.AddTensors(build, tensors)
    SubGraph.AddInputs(build, takes)
    SubGraph.AddOutputs(build, gives)
    SubGraph.AddOperators(build, operator_vector)
    graphs = made.vector([SubGraph.End(build)])
    OperatorCode.Start(build)
    OperatorCode.AddDeprecatedBuiltinCode(build, CONV_2D)
    OperatorCode.AddBuiltinCode(build, CONV_2D)
    OperatorCode.AddVersion(build, 3)
    codes = made.vector([OperatorCode.End(build)])
    description = build.CreateString("example of romfsfs: weights that mean nothing")
    buffers = made.vector(made.buffers)
    Model.Start(build)
    Model.AddVersion(build, 3)
    Model.AddOperatorCodes(build, codes)
    Model.AddSubgraphs(build, graphs)
    Model.AddDescription(build, description)
    Model.AddBuffers(build, buffers)
    build.Finish(Model.End(build), file_identifier=b"TFL3")
    return bytes(build.Output())


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    Path(sys.argv[1]).write_bytes(example_model())
