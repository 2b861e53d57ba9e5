"""A file where bytes are asked for; what fails is told, where a map would end the process."""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Iterator

import pytest

from romfsfs.errors import ImageFormatError
from romfsfs.image.file_buffer import FileBuffer, WindowBuffer

DATA = random.Random(0).randbytes(200_000)


@pytest.fixture
def fd() -> Iterator[int]:
    with tempfile.TemporaryFile() as file:
        file.write(DATA)
        file.flush()
        yield file.fileno()


def test_it_is_like_bytes(fd: int) -> None:
    buffer = FileBuffer(fd)
    choose = random.Random(1)
    assert len(buffer) == len(DATA)
    for _ in range(3000):
        start, length = choose.randrange(len(DATA)), int(choose.random() ** 8 * len(DATA))
        assert buffer[start] == DATA[start]
        assert buffer[start : start + length] == DATA[start : start + length]
    for slice_ in (slice(None), slice(-5, None), slice(9, 2), slice(0, 90, 7), slice(1 << 40)):
        assert buffer[slice_] == DATA[slice_]
    with pytest.raises(IndexError):
        buffer[len(DATA)]


def test_it_ends_where_it_is_told(fd: int) -> None:
    buffer = FileBuffer(fd, 100)
    assert len(buffer) == 100
    assert buffer[50:1000] == DATA[50:100]
    with pytest.raises(IndexError):
        buffer[100]
    assert not FileBuffer(fd, 0)


def test_a_file_that_becomes_shorter(fd: int) -> None:
    """An IDE that writes the image anew, while it is listed."""
    buffer = FileBuffer(fd)
    assert buffer[0] == DATA[0]
    os.ftruncate(fd, 100_000)
    with pytest.raises(ImageFormatError, match="become shorter"):
        buffer[150_000]
    with pytest.raises(ImageFormatError, match=r"become shorter .*0x186a0"):
        buffer[99_999:100_001]
    assert buffer[99_999] == DATA[99_999]


def test_no_more_is_read_than_a_window_and_nothing_twice() -> None:
    asked: list[tuple[int, int, int]] = []

    def read(start: int, least: int, most: int) -> bytes:
        asked.append((start, least, most))
        return DATA[start : start + most]

    buffer = WindowBuffer(1000, 100, read)
    assert (buffer[:0], buffer[5:3], asked) == (b"", b"", [])
    for take in (slice(0, 10), slice(0, 100), slice(90, 100), slice(10, 10)):
        assert buffer[take] == DATA[take]
    assert buffer[99] == DATA[99]
    assert buffer[0] == DATA[0]
    assert asked == [(0, 10, 100)]
    assert buffer[100] == DATA[100]
    assert buffer[99:101] == DATA[99:101]
    assert buffer[98] == DATA[98]
    assert buffer[197:199] == DATA[197:199]
    assert buffer[98:298] == DATA[98:298]
    assert buffer[950:1000] == DATA[950:1000]
    assert buffer[999] == DATA[999]
    assert asked[1:] == [
        (100, 1, 100), (99, 2, 100), (98, 1, 100), (197, 2, 100), (98, 200, 200), (950, 50, 50),
    ]  # fmt: skip
    for wrong in (1000, -1):
        with pytest.raises(IndexError):
            buffer[wrong]
