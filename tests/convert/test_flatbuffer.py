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
from romfsfs.convert.flatbuffer import Model, ModelError, read_model


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


def test_elements_take_the_bits_that_their_types_are_called_by() -> None:
    for name, bits in flatbuffer._TYPES:
        number = re.search(r"\d+$", name)
        assert bits == (int(number[0]) if number else {"bool": 8}.get(name, 0)), name
