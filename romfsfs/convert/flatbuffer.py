"""Reads what a TFLite model demands of a camera, from bytes that may be hostile.

A flatbuffer consists of offsets: a table starts with a signed offset back to its vtable, which
says where each field is. Only these paths are followed, so no loop of offsets traps the reader:

    root -> version
         -> operator_codes -> code (builtin number, custom name)
         -> buffers -> buffer (whether it holds data; Ethos-U's: its commands)
         -> subgraphs -> tensors -> tensor (shape, type, index of its buffer)
                      -> operators -> operator (indexes of its code, inputs, outputs)
                      -> inputs, outputs (indexes of tensors)

Every offset and index is checked, because Vela and the firmware follow them blindly. Every step is
charged to a budget proportional to the size, because vectors may refer to one table a million
times. Schema: tensorflow/lite/schema/schema.fbs. The `flatbuffers` package makes no such checks,
and costs an import.
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
#: Operators whose output may share the input's memory: SQUEEZE, RESHAPE, EXPAND_DIMS.
_IN_PLACE = frozenset({43, 22, 70})
_MODEL_VERSION, _MODEL_OPERATOR_CODES, _MODEL_SUBGRAPHS, _MODEL_BUFFERS = 0, 1, 2, 4
_SUBGRAPH_TENSORS, _SUBGRAPH_INPUTS, _SUBGRAPH_OUTPUTS, _SUBGRAPH_OPERATORS = 0, 1, 2, 3
_OPERATOR_CODE_INDEX, _OPERATOR_INPUTS, _OPERATOR_OUTPUTS = 0, 1, 2
_TENSOR_SHAPE, _TENSOR_TYPE, _TENSOR_BUFFER = 0, 1, 2
_BUFFER_DATA, _BUFFER_SIZE = 0, 2
_CODE_DEPRECATED, _CODE_CUSTOM, _CODE_BUILTIN = 0, 1, 3
_MAX_NAME = 256
_MAX_ELEMENTS = 1 << 40
#: TensorType: its name and the bits of an element (0: not in the tensor arena).
_TYPES = (
    ("float32", 32), ("float16", 16), ("int32", 32), ("uint8", 8), ("int64", 64), ("string", 0),
    ("bool", 8), ("int16", 16), ("complex64", 64), ("int8", 8), ("float64", 64),
    ("complex128", 128), ("uint64", 64), ("resource", 0), ("variant", 0), ("uint32", 32),
    ("uint16", 16), ("int4", 4), ("bfloat16", 16),
)  # fmt: skip
#: Vela's command streams: magic, then the driver action "configuration" and its word. Its low
#: four bits are the binary logarithm of the NPU's MACs, its highest four the product
#: (docs/converters.md; ethosu/vela/driver_actions.py).
_STREAM_MAGIC = b"COP1"
_ACTION_CONFIGURATION = 1
_PRODUCTS = ("U55", "U65", "U85")
#: Limits of the budget, in steps, whatever the size of the file. A tensor or an operator costs
#: about ten steps, and takes 40 bytes or more.
_MIN_BUDGET, _MAX_BUDGET = 1_000, 400_000
#: More than any camera holds: they have up to 64 MiB for a model.
MAX_BYTES = 256 << 20
#: Bytes read at once: small models whole, of large ones only what lies beside their weights.
_PAGE = 1 << 16


class ModelError(ValueError):
    """The bytes are no TFLite model. offset: of the fault, in bytes."""

    def __init__(self, reason: str, offset: int) -> None:
        super().__init__(f"{reason} at offset {offset:#x}")


class Npu(NamedTuple):
    """The Ethos-U that a command stream is for: product (`U55`) and MACs per cycle."""

    product: str
    macs: int

    def __str__(self) -> str:
        return f"Ethos-{self.product} of {self.macs} MACs"


class Model(NamedTuple):
    """The demands of a model.

    version: of the schema. custom, builtin: how often each operator is used, by name and by
    number. npus: what its Ethos-U operators are compiled for, if they say. inputs, outputs: types
    of the model's inputs and outputs. shape: of its first input. sram: a lower bound of the memory
    it needs, bytes: the non-constant inputs and outputs of its largest operator.
    """

    version: int
    custom: dict[str, int]
    builtin: dict[int, int]
    npus: frozenset[Npu]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    sram: int
    shape: tuple[int, ...] = ()

    @property
    def npu(self) -> int:
        """How many operators run on an Ethos-U."""
        return self.custom.get(ETHOS_U, 0)

    @property
    def cpu(self) -> int:
        return sum(self.builtin.values()) + sum(self.custom.values()) - self.npu


class _Tensor(NamedTuple):
    """size: bytes in the arena, 0 for constants. buffer: offset of the table of its data, or 0."""

    type: str
    size: int
    buffer: int
    shape: tuple[int, ...] = ()


def read_model(read: Reader, size: int) -> Model:
    """Parse the model of `size` bytes that `read` reads. ModelError; OSError of `read`."""
    if size < 8 or read(4, 4) != IDENTIFIER:
        raise ModelError("no TFL3 identifier", 4)
    if size > MAX_BYTES:
        raise ModelError("larger than any camera's flash", 0)
    return _Reader(read, size).model()


class _Reader:
    def __init__(self, read: Reader, size: int) -> None:
        self._read = read
        self._size = size
        self._pages: dict[int, bytes] = {}
        self._budget = min(max(size // 4, _MIN_BUDGET), _MAX_BUDGET)
        self._custom: dict[str, int] = {}
        self._builtin: dict[int, int] = {}
        self._npus: set[Npu] = set()
        self._sram = 0

    def model(self) -> Model:
        root = self._unsigned(0)
        codes = [self._code(each) for each in self._tables(root, _MODEL_OPERATOR_CODES)]
        buffers = self._tables(root, _MODEL_BUFFERS)
        subgraphs = self._tables(root, _MODEL_SUBGRAPHS)
        if not subgraphs:
            raise ModelError("a model without subgraphs", root)
        ends = []
        for subgraph in subgraphs:
            tables = self._tables(subgraph, _SUBGRAPH_TENSORS)
            tensors = [self._tensor(each, buffers) for each in tables]
            for operator in self._tables(subgraph, _SUBGRAPH_OPERATORS):
                self._operator(operator, codes, tensors)
            kinds = (_SUBGRAPH_INPUTS, _SUBGRAPH_OUTPUTS)
            ends.append([self._named(subgraph, kind, tensors) for kind in kinds])
        ins, outs = ends[0]  # the others are called by operators
        inputs, outputs = (tuple(each.type for each in side) for side in (ins, outs))
        version, shape = self._number(root, _MODEL_VERSION), ins[0].shape if ins else ()
        return Model(
            version, self._custom, self._builtin, frozenset(self._npus), inputs, outputs,
            self._sram, shape,
        )  # fmt: skip

    def _tensor(self, table: int, buffers: list[int]) -> _Tensor:
        number = self._number(table, _TENSOR_BUFFER)
        if number >= max(len(buffers), 1):
            raise ModelError(f"a tensor in buffer {number} of {len(buffers)}", table)
        buffer = buffers[number] if buffers else 0
        field = self._field(table, _TENSOR_TYPE)
        kind = self._bytes(field, 1)[0] if field else 0
        name, bits = _TYPES[kind] if kind < len(_TYPES) else (f"type {kind}", 0)
        if buffer and self._is_constant(buffer):
            return _Tensor(name, 0, buffer)
        count = 1
        shape = self._numbers(table, _TENSOR_SHAPE)
        for dimension in shape:
            count *= max(dimension, 0)
            if count > _MAX_ELEMENTS:
                raise ModelError("a tensor of more than 2^40 elements", table)
        return _Tensor(name, (count * bits + 7) // 8, buffer, shape)

    def _is_constant(self, buffer: int) -> bool:
        data = self._field(buffer, _BUFFER_DATA)
        if data and self._unsigned(self._follow(data)):
            return True
        return bool(self._field(buffer, _BUFFER_SIZE))  # data behind the flatbuffer

    def _operator(self, table: int, codes: list[int | str], tensors: list[_Tensor]) -> None:
        index = self._number(table, _OPERATOR_CODE_INDEX)
        if index >= len(codes):
            raise ModelError(f"operator code {index} of {len(codes)}", table)
        code = codes[index]
        ins = self._named(table, _OPERATOR_INPUTS, tensors)
        outs = self._named(table, _OPERATOR_OUTPUTS, tensors)
        used = {id(each): each.size for each in (*ins, *outs)}
        if isinstance(code, int):
            self._builtin[code] = self._builtin.get(code, 0) + 1
        else:
            self._custom[code] = self._custom.get(code, 0) + 1
        if code == ETHOS_U and ins and ins[0].buffer:
            self._commands(ins[0].buffer)
        # One input of an Ethos-U operator is the memory that the others lie in.
        shared = code == ETHOS_U or code in _IN_PLACE
        least = max(used.values(), default=0) if shared else sum(used.values())
        self._sram = max(self._sram, least)

    def _commands(self, buffer: int) -> None:
        """Record which NPU the command stream in a buffer is for, if it says."""
        data = self._field(buffer, _BUFFER_DATA)
        if not data:
            return
        commands = self._follow(data)
        if self._unsigned(commands) < 12:
            return
        magic, action, word = struct.unpack("<4sII", self._bytes(commands + 4, 12))
        product = word >> 28
        if magic == _STREAM_MAGIC and action & 0xFF == _ACTION_CONFIGURATION:
            name = _PRODUCTS[product] if product < len(_PRODUCTS) else f"product {product}"
            self._npus.add(Npu(name, 1 << (word & 0x0F)))

    def _code(self, table: int) -> int | str:
        """The number of a builtin operator, or the name of a custom one."""
        old = self._field(table, _CODE_DEPRECATED)
        new = self._field(table, _CODE_BUILTIN)
        number = self._bytes(old, 1)[0] if old else 0
        if number >= _PLACEHOLDER or not old:
            number = self._unsigned(new) if new else number
        if number != _CUSTOM:
            return number
        field = self._field(table, _CODE_CUSTOM)
        return self._string(field) if field else ""

    def _string(self, field: int) -> str:
        start = self._follow(field)
        length = self._unsigned(start)
        if length > self._size - start - 4:
            raise ModelError(f"a name of {length} bytes", start)
        return self._bytes(start + 4, min(length, _MAX_NAME)).decode("utf-8", "replace")

    def _named(self, table: int, number: int, tensors: list[_Tensor]) -> list[_Tensor]:
        """The tensors whose indexes a field holds; -1, an omitted one, is skipped."""
        found = []
        for index in self._numbers(table, number):
            if not -1 <= index < len(tensors):
                raise ModelError(f"tensor {index} of {len(tensors)}", table)
            if index >= 0:
                found.append(tensors[index])
        return found

    def _number(self, table: int, number: int) -> int:
        field = self._field(table, number)
        return self._unsigned(field) if field else 0

    def _numbers(self, table: int, number: int) -> tuple[int, ...]:
        """The vector of int32 in field `number` of `table`; () if it has none."""
        vector, count = self._vector(table, number)
        return struct.unpack(f"<{count}i", self._bytes(vector + 4, 4 * count)) if count else ()

    def _tables(self, table: int, number: int) -> list[int]:
        """Offsets of the tables in the vector in field `number` of `table`; [] if it has none."""
        vector, count = self._vector(table, number)
        offsets = struct.unpack(f"<{count}I", self._bytes(vector + 4, 4 * count)) if count else ()
        places = (vector + 4 + 4 * index + offset for index, offset in enumerate(offsets))
        return [self._checked(each, vector) for each in places]

    def _vector(self, table: int, number: int) -> tuple[int, int]:
        """The offset of a vector of four-byte entries, and their number; 0, 0 if there is none."""
        field = self._field(table, number)
        if not field:
            return 0, 0
        vector = self._follow(field)
        count = self._unsigned(vector)
        if count > (self._size - vector - 4) // 4:
            raise ModelError(f"a vector of {count}", vector)
        self._spend(count, vector)
        return vector, count

    def _field(self, table: int, number: int) -> int:
        """The offset of field `number` of the table at `table`; 0 if it is not there."""
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
        if offset and offset >= extent:
            raise ModelError("a field outside of its table", table)
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
        number, start = divmod(position, _PAGE)
        found = self._page(number)[start : start + count]
        while len(found) < count:
            number += 1
            found += self._page(number)[: count - len(found)]
        return found

    def _page(self, number: int) -> bytes:
        page = self._pages.get(number)
        if page is None:
            start = number * _PAGE
            page = self._pages[number] = self._read(start, min(_PAGE, self._size - start))
            if len(page) < min(_PAGE, self._size - start):  # it became shorter meanwhile
                raise ModelError("the file ends too early", start + len(page))
        return page

    def _spend(self, cost: int, where: int) -> None:
        self._budget -= cost
        if self._budget < 0:
            raise ModelError("more tables than the file has room for", where)
