"""Reads the operators of a TFLite model, and nothing else, from bytes that may be hostile.

A flatbuffer is offsets all the way: a table starts with a signed offset back to its vtable, which
says where each field is. Only this path is followed, so no loop of offsets can hold the reader:

    root -> operator_codes -> code (builtin number, custom name)
         -> subgraphs -> operators -> operator (index of its code)
                                   -> first input -> tensor -> buffer   (Ethos-U's: its commands)

Every offset is checked against the size, and every step is paid from a budget proportional to it,
because vectors may name one table a million times. Schema: tensorflow/lite/schema/schema.fbs.
The `flatbuffers` package does no such checks, and costs an import.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from romfsfs.convert.types import Reader

IDENTIFIER = b"TFL3"
#: Arm's custom operator: the model has been through Vela.
ETHOS_U = "ethos-u"

_CUSTOM = 32  # BuiltinOperator_CUSTOM
#: deprecated_builtin_code is a byte; from 127 on the number is in builtin_code.
_PLACEHOLDER = 127
_MODEL_OPERATOR_CODES, _MODEL_SUBGRAPHS, _MODEL_BUFFERS = 1, 2, 4
_SUBGRAPH_TENSORS, _SUBGRAPH_OPERATORS = 0, 3
_OPERATOR_CODE_INDEX, _OPERATOR_INPUTS = 0, 1
_TENSOR_BUFFER, _BUFFER_DATA = 2, 0
_CODE_DEPRECATED, _CODE_CUSTOM, _CODE_BUILTIN = 0, 1, 3
_MAX_NAME = 256
#: Vela's command streams: magic, then the driver action "configuration" and its word, whose low
#: four bits are the binary logarithm of the NPU's MACs (ethosu/vela/driver_actions.py).
_STREAM_MAGIC = b"COP1"
_ACTION_CONFIGURATION = 1
#: Tables visited at least and at most, whatever the size of the file. The largest model of the
#: zoo has 500 operators; a table takes 8 bytes or more.
_MIN_BUDGET, _MAX_BUDGET = 1_000, 200_000


class ModelError(ValueError):
    """The bytes are no TFLite model. offset: where that showed, in bytes."""

    def __init__(self, reason: str, offset: int) -> None:
        super().__init__(f"{reason} at offset {offset:#x}")
        self.reason = reason
        self.offset = offset


class Operators(NamedTuple):
    """custom: how often each custom operator is used, by name. builtin: how many others are.

    npu_macs: of the Ethos-U that the model was compiled for (128, 256, ...); 0: not told."""

    custom: dict[str, int]
    builtin: int
    npu_macs: int = 0

    @property
    def npu(self) -> int:
        return self.custom.get(ETHOS_U, 0)

    @property
    def cpu(self) -> int:
        return self.builtin + sum(self.custom.values()) - self.npu


def read_operators(read: Reader, size: int) -> Operators:
    """The operators of the model of `size` bytes that `read` gives. ModelError, OSError."""
    return _Model(read, size).operators()


class _Model:
    def __init__(self, read: Reader, size: int) -> None:
        self._read = read
        self._size = size
        self._budget = min(max(size // 8, _MIN_BUDGET), _MAX_BUDGET)

    def operators(self) -> Operators:
        if self._size < 8 or self._bytes(4, 4) != IDENTIFIER:
            raise ModelError("not a TFLite model: no TFL3 identifier", 4)
        root = self._unsigned(0)
        names = [self._code(each) for each in self._tables(root, _MODEL_OPERATOR_CODES)]
        custom: dict[str, int] = {}
        builtin = 0
        macs = 0
        subgraphs = self._tables(root, _MODEL_SUBGRAPHS)
        if not subgraphs:
            raise ModelError("a model without subgraphs", root)
        for subgraph in subgraphs:
            for operator in self._tables(subgraph, _SUBGRAPH_OPERATORS):
                field = self._field(operator, _OPERATOR_CODE_INDEX)
                index = self._unsigned(field) if field else 0
                if index >= len(names):
                    raise ModelError(f"operator code {index} of {len(names)}", operator)
                name = names[index]
                if name is None:
                    builtin += 1
                else:
                    custom[name] = custom.get(name, 0) + 1
                if name == ETHOS_U and custom[name] == 1:
                    macs = self._npu_macs(root, subgraph, operator)
        return Operators(custom, builtin, macs)

    def _npu_macs(self, root: int, subgraph: int, operator: int) -> int:
        """The MACs that the commands of an Ethos-U operator are for; 0 when they do not tell."""
        inputs = self._field(operator, _OPERATOR_INPUTS)
        if not inputs:
            return 0
        vector = self._follow(inputs)
        if not self._unsigned(vector):
            return 0
        tensors = self._tables(subgraph, _SUBGRAPH_TENSORS)
        tensor = self._unsigned(vector + 4)
        if tensor >= len(tensors):
            return 0
        number = self._field(tensors[tensor], _TENSOR_BUFFER)
        buffers = self._tables(root, _MODEL_BUFFERS)
        buffer = self._unsigned(number) if number else 0
        data = self._field(buffers[buffer], _BUFFER_DATA) if buffer < len(buffers) else 0
        if not data:
            return 0
        commands = self._follow(data)
        if self._unsigned(commands) < 12:
            return 0
        magic, action, word = struct.unpack("<4sII", self._bytes(commands + 4, 12))
        if magic != _STREAM_MAGIC or action & 0xFF != _ACTION_CONFIGURATION:
            return 0
        return 1 << int(word & 0x0F)

    def _code(self, table: int) -> str | None:
        """The name of a custom operator's code; None: a builtin operator."""
        old = self._field(table, _CODE_DEPRECATED)
        new = self._field(table, _CODE_BUILTIN)
        number = self._bytes(old, 1)[0] if old else 0
        if number >= _PLACEHOLDER or not old:
            number = self._unsigned(new) if new else number
        if number != _CUSTOM:
            return None
        field = self._field(table, _CODE_CUSTOM)
        return self._string(field) if field else ""

    def _string(self, field: int) -> str:
        start = self._follow(field)
        length = self._unsigned(start)
        if length > self._size - start - 4:
            raise ModelError(f"a name of {length} bytes", start)
        return self._bytes(start + 4, min(length, _MAX_NAME)).decode("utf-8", "replace")

    def _tables(self, table: int, number: int) -> list[int]:
        """The tables in the vector that field `number` of `table` holds; [] without it."""
        field = self._field(table, number)
        if not field:
            return []
        vector = self._follow(field)
        count = self._unsigned(vector)
        if count > (self._size - vector - 4) // 4:
            raise ModelError(f"a vector of {count}", vector)
        self._spend(count, vector)
        offsets = struct.unpack(f"<{count}I", self._bytes(vector + 4, 4 * count))
        return [
            self._checked(vector + 4 + 4 * index + offset, vector)
            for index, offset in enumerate(offsets)
        ]

    def _field(self, table: int, number: int) -> int:
        """Where field `number` of the table at `table` is; 0 when it is not there."""
        self._spend(1, table)
        (back,) = struct.unpack("<i", self._bytes(table, 4))
        vtable = table - back
        if not 0 <= vtable <= self._size - 4:
            raise ModelError("a table whose vtable is outside of the file", table)
        length, extent = struct.unpack("<HH", self._bytes(vtable, 4))
        entry = 4 + 2 * number
        if entry + 2 > length:
            return 0
        (offset,) = struct.unpack("<H", self._bytes(vtable + entry, 2))
        if offset >= extent:
            if offset:
                raise ModelError("a field outside of its table", table)
            return 0
        return table + offset if offset else 0

    def _follow(self, field: int) -> int:
        return self._checked(field + self._unsigned(field), field)

    def _checked(self, position: int, where: int) -> int:
        if position > self._size - 4:
            raise ModelError("an offset that leads out of the file", where)
        return position

    def _unsigned(self, position: int) -> int:
        (value,) = struct.unpack("<I", self._bytes(position, 4))
        return int(value)

    def _bytes(self, position: int, count: int) -> bytes:
        if position + count > self._size:
            raise ModelError("the file ends too early", position)
        data = self._read(position, count)
        if len(data) != count:  # it became shorter meanwhile
            raise ModelError("the file ends too early", position)
        return data

    def _spend(self, cost: int, where: int) -> None:
        self._budget -= cost
        if self._budget < 0:
            raise ModelError("more tables than the file has room for", where)
