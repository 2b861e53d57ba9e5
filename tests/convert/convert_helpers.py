"""Small inputs made on the spot, and short ways to convert them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

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

from romfsfs.boards import get_board
from romfsfs.convert import Conversion, Converters, FileOptions, Options, Rule, Target

INT8, FLOAT32, INT32 = 9, 0, 2
CONV_2D, CUSTOM = 3, 32


@contextmanager
def open_bytes(folder: Path, data: bytes) -> Iterator[tuple[int, str]]:
    """An open file with that content, and its digest."""
    path = folder / f"source-{hashlib.sha256(data).hexdigest()[:8]}"
    path.write_bytes(data)
    fd = os.open(path, os.O_RDONLY)
    try:
        yield fd, hashlib.sha256(data).hexdigest()
    finally:
        os.close(fd)


def convert(converters: Converters, folder: Path, path: str, data: bytes) -> Conversion:
    with open_bytes(folder, data) as (fd, digest):
        return converters.convert(path, fd, digest)


def lookup(converters: Converters, folder: Path, path: str, data: bytes) -> Conversion:
    with open_bytes(folder, data) as (fd, digest):
        return converters.lookup(path, fd, digest)


def stored_bytes(conversion: Conversion) -> bytes:
    assert conversion.artifact is not None, conversion
    data = conversion.artifact.read_bytes()
    assert conversion.size == len(data)
    assert conversion.digest == hashlib.sha256(data).hexdigest()
    return data


def camera(name: str, partition: int = 0, heap: int | None = None, **options: Any) -> Target:
    """The target for a board; heap: another SRAM heap than its own, bytes. options: of every
    file, but for stedgeai and timeout_seconds."""
    board = get_board(name)
    chosen = board.partition(partition)
    if heap is not None:
        chosen = replace(chosen, npu=chosen.npu._replace(sram_heap_bytes=heap))
    of_all = {key: options.pop(key) for key in ("stedgeai", "timeout_seconds") if key in options}
    return Target(board, chosen, Options((Rule("*", FileOptions(**options)),), **of_all))


def tflite(*, dtype: int = INT8, custom_code: str = "", side: int = 8) -> bytes:
    """A model with one operator: a 1x1 convolution over side x side x 4, or a custom one."""
    build = flatbuffers.Builder(4096)
    buffers = [b"", bytes(range(16)), bytes(16)]
    buffer_offsets = []
    for data in buffers:
        vector = build.CreateByteVector(data) if data else 0
        Buffer.Start(build)
        if data:
            Buffer.AddData(build, vector)
        buffer_offsets.append(Buffer.End(build))
    weights = FLOAT32 if dtype == FLOAT32 else INT8
    bias = FLOAT32 if dtype == FLOAT32 else INT32
    if dtype == FLOAT32:
        buffer_offsets[1] = _buffer(build, np.ones(16, np.float32).tobytes())
    tensors = [
        _tensor(build, "input", [1, side, side, 4], dtype, 0, 0.5),
        _tensor(build, "weights", [4, 1, 1, 4], weights, 1, 0.25),
        _tensor(build, "bias", [4], bias, 2, 0.125),
        _tensor(build, "output", [1, side, side, 4], dtype, 0, 1.0),
    ]
    Conv2DOptions.Start(build)
    Conv2DOptions.AddStrideW(build, 1)
    Conv2DOptions.AddStrideH(build, 1)
    options = Conv2DOptions.End(build)
    inputs = build.CreateNumpyVector(np.array([0, 1, 2], np.int32))
    outputs = build.CreateNumpyVector(np.array([3], np.int32))
    Operator.Start(build)
    Operator.AddOpcodeIndex(build, 0)
    Operator.AddInputs(build, inputs)
    Operator.AddOutputs(build, outputs)
    if not custom_code:
        Operator.AddBuiltinOptionsType(build, 1)
        Operator.AddBuiltinOptions(build, options)
    operators = _vector(build, [Operator.End(build)])
    tensor_vector = _vector(build, tensors)
    graph_in = build.CreateNumpyVector(np.array([0], np.int32))
    graph_out = build.CreateNumpyVector(np.array([3], np.int32))
    SubGraph.Start(build)
    SubGraph.AddTensors(build, tensor_vector)
    SubGraph.AddInputs(build, graph_in)
    SubGraph.AddOutputs(build, graph_out)
    SubGraph.AddOperators(build, operators)
    subgraphs = _vector(build, [SubGraph.End(build)])
    name = build.CreateString(custom_code) if custom_code else 0
    OperatorCode.Start(build)
    OperatorCode.AddDeprecatedBuiltinCode(build, CUSTOM if custom_code else CONV_2D)
    OperatorCode.AddBuiltinCode(build, CUSTOM if custom_code else CONV_2D)
    OperatorCode.AddVersion(build, 1)
    if custom_code:
        OperatorCode.AddCustomCode(build, name)
    codes = _vector(build, [OperatorCode.End(build)])
    description = build.CreateString("not ethos-u, whatever this text says")
    buffer_vector = _vector(build, buffer_offsets)
    Model.Start(build)
    Model.AddVersion(build, 3)
    Model.AddOperatorCodes(build, codes)
    Model.AddSubgraphs(build, subgraphs)
    Model.AddDescription(build, description)
    Model.AddBuffers(build, buffer_vector)
    build.Finish(Model.End(build), file_identifier=b"TFL3")
    return bytes(build.Output())


def _buffer(build: flatbuffers.Builder, data: bytes) -> int:
    vector = build.CreateByteVector(data)
    Buffer.Start(build)
    Buffer.AddData(build, vector)
    return int(Buffer.End(build))


def _tensor(
    build: flatbuffers.Builder, name: str, shape: list[int], dtype: int, buffer: int, scale: float
) -> int:
    text = build.CreateString(name)
    dimensions = build.CreateNumpyVector(np.array(shape, np.int32))
    scales = build.CreateNumpyVector(np.array([scale], np.float32))
    zeros = build.CreateNumpyVector(np.array([0], np.int64))
    QuantizationParameters.Start(build)
    QuantizationParameters.AddScale(build, scales)
    QuantizationParameters.AddZeroPoint(build, zeros)
    quantization = QuantizationParameters.End(build)
    Tensor.Start(build)
    Tensor.AddShape(build, dimensions)
    Tensor.AddType(build, dtype)
    Tensor.AddBuffer(build, buffer)
    Tensor.AddName(build, text)
    if dtype != FLOAT32:
        Tensor.AddQuantization(build, quantization)
    return int(Tensor.End(build))


def _vector(build: flatbuffers.Builder, offsets: list[int]) -> int:
    build.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        build.PrependUOffsetTRelative(offset)
    return int(build.EndVector())


def make_model(
    operators: list[tuple[int | str, list[int], list[int]]],
    tensors: list[tuple[int, list[int], int]],
    inputs: list[int],
    outputs: list[int],
    *,
    version: int = 3,
    buffers: tuple[bytes, ...] = (),
) -> bytes:
    """A model of one subgraph. operators: number or custom name, and indexes of tensors. tensors:
    type, shape, index of a buffer (0: the empty one)."""
    build = flatbuffers.Builder(1024)
    made = [_buffer(build, data) if data else _no_buffer(build) for data in (b"", *buffers)]
    buffer_vector = _vector(build, made)
    codes, kinds = [], list(dict.fromkeys(operator[0] for operator in operators))
    for kind in kinds:
        number = CUSTOM if isinstance(kind, str) else kind
        name = build.CreateString(kind) if isinstance(kind, str) else 0
        OperatorCode.Start(build)
        OperatorCode.AddDeprecatedBuiltinCode(build, min(number, 127))
        OperatorCode.AddBuiltinCode(build, number)
        if name:
            OperatorCode.AddCustomCode(build, name)
        codes.append(OperatorCode.End(build))
    code_vector = _vector(build, codes)
    tensor_vector = _vector(
        build, [_tensor(build, f"t{n}", *_order(each)) for n, each in enumerate(tensors)]
    )
    steps = []
    for kind, ins, outs in operators:
        step_in, step_out = (build.CreateNumpyVector(np.array(i, np.int32)) for i in (ins, outs))
        Operator.Start(build)
        Operator.AddOpcodeIndex(build, kinds.index(kind))
        Operator.AddInputs(build, step_in)
        Operator.AddOutputs(build, step_out)
        steps.append(Operator.End(build))
    step_vector = _vector(build, steps)
    graph_in, graph_out = (
        build.CreateNumpyVector(np.array(i, np.int32)) for i in (inputs, outputs)
    )
    SubGraph.Start(build)
    SubGraph.AddTensors(build, tensor_vector)
    SubGraph.AddInputs(build, graph_in)
    SubGraph.AddOutputs(build, graph_out)
    SubGraph.AddOperators(build, step_vector)
    graphs = _vector(build, [SubGraph.End(build)])
    Model.Start(build)
    Model.AddVersion(build, version)
    Model.AddOperatorCodes(build, code_vector)
    Model.AddSubgraphs(build, graphs)
    Model.AddBuffers(build, buffer_vector)
    build.Finish(Model.End(build), file_identifier=b"TFL3")
    return bytes(build.Output())


def one_operator(kind: int | str, dtype: int = INT8, side: int = 4, **options: Any) -> bytes:
    """A model that is one operator, from a tensor of side x side to another."""
    tensors = [(dtype, [1, side, side], 0), (dtype, [1, side, side], 0)]
    return make_model([(kind, [0], [1])], tensors, [0], [1], **options)


def _no_buffer(build: flatbuffers.Builder) -> int:
    Buffer.Start(build)
    return int(Buffer.End(build))


def _order(tensor: tuple[int, list[int], int]) -> tuple[list[int], int, int, float]:
    dtype, shape, buffer = tensor
    return shape, dtype, buffer, 0.5
