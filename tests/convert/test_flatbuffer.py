"""Model of TFLite models, sound, damaged and malicious."""

from __future__ import annotations

import random
import re
import struct
import time

import pytest
from convert_helpers import tflite
from hypothesis import given, settings
from hypothesis import strategies as st

from romfsfs.convert import flatbuffer
from romfsfs.convert.flatbuffer import Model, ModelError, Npu, read_model


def read(data: bytes) -> Model:
    return read_model(lambda at, count: data[at : at + count], len(data))


def used(data: bytes) -> tuple[dict[str, int], dict[int, int]]:
    found = read(data)
    return found.custom, found.builtin


def test_operators_of_a_model():
    assert used(tflite()) == ({}, {3: 1})
    assert used(tflite(custom_code="ethos-u")) == ({"ethos-u": 1}, {})
    assert read(tflite(custom_code="ethos-u")).npu == 1
    assert read(tflite(custom_code="mine")).cpu == 1


def test_operator_code_that_no_operator_uses_does_not_make_a_converted_model():
    """The code table alone says nothing: point the operator at a second, builtin code."""
    model = table_model(codes=[("ethos-u", 32), ("", 3)], uses=[1, 1])
    assert used(model) == ({}, {3: 2})
    assert read(table_model(codes=[("ethos-u", 32), ("", 3)], uses=[1, 0])).npu == 1


def test_old_and_new_operator_numbers():
    assert used(table_model(codes=[("", 150)], uses=[0])) == ({}, {150: 1})
    assert used(table_model(codes=[("ethos-u", 3)], uses=[0])) == ({}, {3: 1})


def test_every_truncation_is_refused_or_read():
    model = tflite(custom_code="ethos-u")
    for size in range(len(model)):
        try:
            found = read(model[:size])
        except ModelError:
            continue
        assert size > 200, "nothing that short can hold the operators"
        assert found.custom == {"ethos-u": 1}


def test_file_that_shrinks_while_it_is_read():
    model = tflite()
    with pytest.raises(ModelError, match="ends too early"):
        read_model(lambda at, count: model[at : min(at + count, 50)], len(model))


@pytest.mark.parametrize("page", [1, 7, 64])
def test_what_lies_across_two_pages(monkeypatch, page):
    model = tflite(custom_code="ethos-u")
    whole = read(model)
    monkeypatch.setattr(flatbuffer, "_PAGE", page)
    assert read(model) == whole


def test_the_weights_of_a_large_model_are_not_read():
    """A commit of 256 MiB of models read all of them for what a page of each says."""
    model = tflite() + bytes(16 << 20)
    pages = []

    def counted(at, count):
        pages.append(count)
        return model[at : at + count]

    assert read_model(counted, len(model)) == read(tflite())
    assert sum(pages) <= (1 << 16) + 4


def test_every_offset_replaced_by_one_that_makes_trouble():
    model = tflite(custom_code="ethos-u")
    words = [0, 1, 4, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFFFFFC, len(model) - 4]
    for at in range(0, len(model) - 3, 4):
        for word in words:
            damaged = model[:at] + struct.pack("<I", word) + model[at + 4 :]
            try:
                read(damaged)
            except ModelError:
                pass


@settings(max_examples=300)
@given(st.integers(0, 2**32), st.integers(1, 12))
def test_random_damage(seed, count):
    source = random.Random(seed)
    damaged = bytearray(tflite(custom_code="ethos-u"))
    for _ in range(count):
        damaged[source.randrange(len(damaged))] = source.randrange(256)
    try:
        read(bytes(damaged))
    except ModelError:
        pass


@settings(max_examples=200)
@given(st.binary(max_size=400))
def test_anything_behind_the_identifier(tail):
    try:
        read(b"\x08\0\0\0TFL3" + tail)
    except ModelError:
        pass


def test_subgraphs_that_are_all_one_cost_no_more_than_the_file_is_long():
    """40,000 subgraphs, all the same table of 40,000 operators, all the same: 1.6e9 visits."""
    model = table_model(codes=[("", 3)], uses=[0] * 40_000, subgraphs=40_000)
    started = time.monotonic()
    with pytest.raises(ModelError, match="more tables"):
        read(model)
    assert time.monotonic() - started < 30


def test_what_no_camera_can_hold_is_not_read():
    with pytest.raises(ModelError, match="larger than any camera's flash"):
        read_model(lambda at, count: b"TFL3" if count == 4 else pytest.fail("read"), 1 << 40)


def test_tables_that_lead_back_to_themselves():
    """The root is its own vtable, its own vector and its own subgraph."""
    for word in range(0, 24, 2):
        data = b"\x08\0\0\0TFL3" + struct.pack("<i", 0) + struct.pack("<8H", *[word] * 8)
        with pytest.raises(ModelError):
            read(data + bytes(64))


class Tables:
    """Writes tables and vectors one behind the other; offsets may only point forward."""

    def __init__(self) -> None:
        self.data = bytearray(b"\0\0\0\0TFL3")

    def table(self, *fields: int) -> dict[int, int]:
        """A table with those fields, of 4 bytes each: their positions, and its own under -1."""
        count = max(fields) + 1
        vtable = len(self.data)
        offsets = [4 + 4 * fields.index(n) if n in fields else 0 for n in range(count)]
        self.data += struct.pack("<HH", 4 + 2 * count, 4 + 4 * len(fields))
        self.data += struct.pack(f"<{count}H", *offsets)
        self.data += bytes(-len(self.data) % 4)
        start = len(self.data)
        self.data += struct.pack("<i", start - vtable) + bytes(4 * len(fields))
        return {-1: start, **{number: start + offsets[number] for number in fields}}

    def vector(self, field: int, count: int) -> list[int]:
        """A vector that `field` points to: the positions of its entries."""
        self.point(field, len(self.data))
        start = len(self.data) + 4
        self.data += struct.pack("<I", count) + bytes(4 * count)
        return list(range(start, start + 4 * count, 4))

    def point(self, field: int, target: int) -> None:
        self.put(field, target - field)

    def put(self, field: int, value: int) -> None:
        struct.pack_into("<I", self.data, field, value)


def table_model(codes: list[tuple[str, int]], uses: list[int], subgraphs: int = 1) -> bytes:
    """A model whose vectors name one table many times, as no writer of models does."""
    tables = Tables()
    root = tables.table(1, 2)
    tables.put(0, root[-1])
    for entry, (name, number) in zip(tables.vector(root[1], len(codes)), codes, strict=True):
        code = tables.table(0, 1, 3) if name else tables.table(0, 3)
        tables.point(entry, code[-1])
        tables.put(code[0], min(number, 127))
        tables.put(code[3], number)
        if name:
            tables.point(code[1], len(tables.data))
            tables.data += struct.pack("<I", len(name)) + name.encode() + b"\0"
            tables.data += bytes(-len(tables.data) % 4)
    graphs = tables.vector(root[2], subgraphs)
    graph = tables.table(3)
    for entry in graphs:
        tables.point(entry, graph[-1])
    entries = tables.vector(graph[3], len(uses))
    kinds = {}
    for use in sorted(set(uses)):
        operator = tables.table(0)
        tables.put(operator[0], use)
        kinds[use] = operator[-1]
    for entry, use in zip(entries, uses, strict=True):
        tables.point(entry, kinds[use])
    return bytes(tables.data)


def lay(data: bytearray, value: object) -> int:
    """Appends what a value stands for, and says where: a table ({field: number or value}), a
    vector (of numbers or tables), bytes or a text."""
    start = len(data)
    if isinstance(value, dict):
        slots, count = list(value), max(value, default=-1) + 1
        offsets = [4 + 4 * slots.index(n) if n in value else 0 for n in range(count)]
        data += struct.pack(f"<HH{count}H", 4 + 2 * count, 4 + 4 * len(slots), *offsets)
        data += bytes(-len(data) % 4)
        vtable, start = start, len(data)
        data += struct.pack("<i", start - vtable)
        entries = list(value.values())
    elif isinstance(value, list):
        data += struct.pack("<I", len(value))
        entries = value
    else:
        text = value.encode() if isinstance(value, str) else value
        data += struct.pack("<I", len(text)) + text + bytes(-len(text) % 4)
        return start
    at = len(data)
    data += bytes(4 * len(entries))
    for place, entry in enumerate(entries):
        here = at + 4 * place
        number = entry if isinstance(entry, int) else lay(data, entry) - here
        struct.pack_into("<I", data, here, number & 0xFFFFFFFF)
    return start


def laid(root: dict[int, object]) -> bytes:
    data = bytearray(b"\0\0\0\0TFL3")
    struct.pack_into("<I", data, 0, lay(data, root))
    return bytes(data)


def commands(product: int, macs: int, *, magic: bytes = b"COP1", action: int = 0x10001) -> bytes:
    return struct.pack("<4sII", magic, action, product << 28 | macs.bit_length() - 1)


def graph(
    tensors: list[object], operators: list[object], inputs: list[object], outputs: list[object]
) -> dict[int, object]:
    return {0: tensors, 1: inputs, 2: outputs, 3: operators}


def tensor(kind: int, shape: list[object], buffer: int = 0) -> dict[int, object]:
    return {0: shape, 1: kind, 2: buffer}


def test_all_that_a_model_says():
    codes = [{0: 3}, {0: 32, 1: "ethos-u"}, {0: 127, 3: 150}, {3: 32, 1: "x" * 300}, {0: 32}, {},
             {0: 126, 3: 9}, {0: 127}, {0: 22}]  # fmt: skip
    buffers = [{}, {0: b"weights"}, {2: 5}, {0: commands(0, 256)}, {0: b""}, {0: commands(2, 2048)},
               {0: commands(3, 32768)}, {0: commands(1, 512, magic=b"COP2")},
               {0: commands(1, 512, action=2)}, {0: commands(1, 512)[:11]}]  # fmt: skip
    tensors = [
        tensor(9, [1, 8, 8, 3]), tensor(0, [2, 3], 4), tensor(9, [1 << 20], 1),
        tensor(9, [1 << 20], 2), {}, tensor(17, [3]), tensor(19, [9]), tensor(7, [-1, 5]),
        *(tensor(3, [4], buffer) for buffer in (3, 5, 6, 7, 8, 9, 1)),
    ]  # fmt: skip
    steps = [
        {0: 0, 1: [0, 2, 3, -1], 2: [1]}, {0: 2, 1: [5, 6], 2: [7]}, {0: 3}, {0: 3}, {0: 4},
        {0: 5}, {0: 6}, {0: 7}, {0: 8, 1: [4], 2: [4]},
        *({0: 1, 1: [n, 0], 2: [1]} for n in range(8, 15)), {0: 1, 1: [0], 2: []}, {0: 1},
    ]  # fmt: skip
    second = graph([tensor(9, [77])], [{0: 0, 1: [0], 2: [0]}], [0, 0], [])
    model = read(laid({
        0: 7, 1: codes, 2: [graph(tensors, steps, [0, 5, 4], [7, 6, 1]), second], 4: buffers,
    }))  # fmt: skip
    assert model == Model(
        7, {"ethos-u": 9, "x" * 256: 2, "": 1}, {3: 2, 150: 1, 0: 1, 126: 1, 127: 1, 22: 1},
        frozenset({Npu("U55", 256), Npu("U85", 2048), Npu("product 3", 32768)}),
        ("int8", "int4", "float32"), ("int16", "type 19", "float32"), 192 + 24, (1, 8, 8, 3),
    )  # fmt: skip
    assert (model.npu, model.cpu) == (9, 10)
    assert str(Npu("U55", 256)) == "Ethos-U55 of 256 MACs"
    bare = read(laid({2: [{}]}))
    assert bare == Model(0, {}, {}, frozenset(), (), (), 0, ())


@pytest.mark.parametrize(
    ("kind", "tensors", "ins", "outs", "least"),
    [
        (0, [[8], [3]], [0], [1], 11), (0, [[8], [3]], [0, 0], [0], 8),
        (43, [[8], [3]], [0], [1], 8), (22, [[8], [9]], [0], [1], 9), (70, [[8], [3]], [0], [1], 8),
        (42, [[8], [3]], [0], [1], 11), (44, [[8], [3]], [], [], 0), (0, [[]], [0], [], 1),
        (0, [[1 << 20, 1 << 20]], [0], [], 1 << 40), (0, [[0, 1 << 30]], [0], [], 0),
    ],
)  # fmt: skip
def test_the_memory_that_an_operator_takes(kind, tensors, ins, outs, least):
    steps = [{0: 0, 1: ins, 2: outs}, {0: 0, 1: [], 2: []}]
    shapes = [tensor(9, shape) for shape in tensors]
    assert read(laid({1: [{0: kind}], 2: [graph(shapes, steps, [], [])]})).sram == least


#: Its root is at 0x14, the subgraph at 0x50, the tensor at 0x78, the operator at 0xb4.
ONE = {0: 3, 1: [{0: 3}], 2: [graph([tensor(9, [4])], [{0: 0, 1: [0], 2: [0]}], [0], [0])]}
SMALL = Model(3, {}, {3: 1}, frozenset(), ("int8",), ("int8",), 4, (4,))
NAMED = {2: [{}], 1: [{0: 32, 1: "abcd"}]}


def damaged(at: int, word: int, root: dict[int, object] = ONE, more: bytes = b"") -> bytes:
    data = bytearray(laid(root) + more)
    struct.pack_into("<i", data, at, word)
    return bytes(data)


def one(tensors: list[object], root: dict[int, object]) -> bytes:
    return laid({2: [graph(tensors, [], [0], [])], **root})


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"\x08\0\0\0TFL", "no TFL3 identifier at offset 0x4"),
        (b"\0\0\0\0TFL2" + bytes(9), "no TFL3 identifier at offset 0x4"),
        (b"\0\0\0\0TFL3", "a model without subgraphs at offset 0x0"),
        (laid({1: [{0: 3}]}), "a model without subgraphs at offset 0x10"),
        (laid(ONE)[:-1], "a vector of 1 at offset 0xcc"),
        (damaged(8, 10 | 12 << 16), "a field outside of its table at offset 0x14"),
        (damaged(20, 21), "a table whose vtable is outside of the file at offset 0x14"),
        (damaged(20, 20 - 209), "a table whose vtable is outside of the file at offset 0x14"),
        (damaged(32, 176), "a model without subgraphs at offset 0x14"),
        (damaged(32, 177), "an offset that leads out of the file at offset 0x20"),
        (damaged(40, 169), "an offset that leads out of the file at offset 0x24"),
        (damaged(36, 44), "a vector of 44 at offset 0x24"),
        (damaged(148, 1), "tensor 1 of 1 at offset 0x50"),
        (damaged(148, -2), "tensor -2 of 1 at offset 0x50"),
        (damaged(156, 1), "tensor 1 of 1 at offset 0x50"),
        (damaged(184, 1), "operator code 1 of 1 at offset 0xb4"),
        (damaged(200, 1), "tensor 1 of 1 at offset 0xb4"),
        (damaged(208, -2), "tensor -2 of 1 at offset 0xb4"),
        (damaged(132, 1), "a tensor in buffer 1 of 0 at offset 0x78"),
        (one([tensor(9, [4], 2)], {4: [{}, {}]}), "a tensor in buffer 2 of 2 at offset 0x60"),
        (one([tensor(9, [1 << 20, (1 << 20) + 1])], {}),
         "a tensor of more than 2^40 elements at offset 0x58"),
        (damaged(76, 5, NAMED), "a name of 5 bytes at offset 0x4c"),
    ],
)  # fmt: skip
def test_why_bytes_are_no_model(data, said):
    with pytest.raises(ModelError) as caught:
        read(data)
    assert str(caught.value) == said


def test_what_ends_just_where_the_file_ends():
    assert read(laid(ONE)) == SMALL
    assert read(damaged(8, 10 | 13 << 16)) == SMALL  # a field in the last byte of its table
    behind = damaged(180, 180 - 212, more=struct.pack("<HH", 4, 4))  # an operator without fields
    assert read(behind) == SMALL._replace(sram=0)
    assert read(laid(NAMED)) == Model(0, {}, {}, frozenset(), (), (), 0, ())
    with pytest.raises(ModelError, match=r"^the file ends too early at offset 0x32$"):
        read_model(lambda at, count: laid(ONE)[at : min(at + count, 50)], 212)
    for extent, field, offset, found in (
        (110, 114, 92, SMALL._replace(inputs=("int16",), outputs=("int16",), sram=8)),
        (46, 48, 160, SMALL._replace(builtin={7: 1})),
    ):  # the type of the tensor and the number of the operator are the last byte
        data = bytearray(laid(ONE) + b"\7")
        struct.pack_into("<H", data, extent, offset + 1)
        struct.pack_into("<H", data, field, offset)
        assert read(bytes(data)) == found
    largest = 256 << 20
    assert read_model(lambda at, n: laid(ONE)[at : at + n].ljust(n, b"\0"), largest) == SMALL
    with pytest.raises(ModelError, match=r"^larger than any camera's flash at offset 0x0$"):
        read_model(lambda at, n: laid(ONE)[at : at + n].ljust(n, b"\0"), largest + 1)


def test_how_many_steps_a_file_has_room_for():
    """Each field that is looked at is one, and each entry of a vector: 1,000 for small files, one
    for each four bytes of larger ones."""
    assert read(table_model(codes=[("", 3)], uses=[0] * 247)).builtin == {3: 247}
    more = table_model(codes=[("", 3)] * 4, uses=[0] * 245)
    for data in (more, more.ljust(4003)):
        with pytest.raises(ModelError, match=r"^more tables than the file has room for at offset"):
            read(data)
    assert read(more.ljust(4004)).builtin == {3: 245}


def test_elements_take_the_bits_that_their_types_are_called_by() -> None:
    for name, bits in flatbuffer._TYPES:
        number = re.search(r"\d+$", name)
        assert bits == (int(number[0]) if number else {"bool": 8}.get(name, 0)), name
