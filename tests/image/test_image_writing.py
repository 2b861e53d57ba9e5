"""What writing and checking an image asks of the system, call by call, and what it then says."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from romfsfs.errors import VerifyError
from romfsfs.image import check, writer
from romfsfs.image.check import check_image
from romfsfs.image.layout import (
    DEFAULT_RULES,
    BasePiece,
    FilePiece,
    Layout,
    TreeEntry,
    canonical,
)
from romfsfs.image.model import Extent
from romfsfs.image.writer import Data, DataChanged, encode, write_image

BATCH, LARGE, CHUNK = 1 << 18, 1 << 16, 1 << 20


class Out(io.BytesIO):
    """A stream to which no kernel copies; keeps how much each write had."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[int] = []

    def write(self, data: Any) -> int:
        self.writes.append(len(data))
        return super().write(data)


def written(*pieces: bytes | FilePiece | BasePiece, **more: Any) -> tuple[Out, list[Any]]:
    """What is written of these pieces, and the steps that are told."""
    out, told = Out(), []
    size = sum(len(each) if isinstance(each, bytes) else each.size for each in pieces)
    more.setdefault("open_source", lambda path: Data(-1))
    write_image(Layout(size, {}, [], pieces), out, progress=lambda *step: told.append(step), **more)
    assert all(step[0] == "writing" and step[2] == size for step in told)
    return out, [step[1] for step in told]


@pytest.mark.parametrize(
    ("sizes", "writes", "told"),
    [
        ([5, 6], [11], [11]),
        ([BATCH - 1, 1, 7], [BATCH, 7], [BATCH, BATCH + 7]),
        ([BATCH - 1, BATCH + 1], [2 * BATCH], [2 * BATCH] * 2),
        ([BATCH - 1, BATCH + 2], [BATCH - 1, BATCH + 2], [2 * BATCH + 1] * 2),
        ([BATCH, BATCH + 1, 1], [BATCH, BATCH + 1, 1],
         [BATCH, 2 * BATCH + 1, 2 * BATCH + 2]),
    ],
)  # fmt: skip
def test_small_writes_are_gathered(sizes: list[int], writes: list[int], told: list[int]) -> None:
    """To 256 KiB, in one piece where that costs no large copy."""
    pieces = [bytes([index]) * size for index, size in enumerate(sizes)]
    out, steps = written(*pieces)
    assert out.getvalue() == b"".join(pieces)
    assert [count for count in out.writes if count] == writes
    assert steps == told


@pytest.mark.parametrize("size", [1, BATCH - 1, BATCH, BATCH + 1, 3 * BATCH])
def test_gaps_are_filled_where_there_is_no_base(size: int) -> None:
    out, steps = written(b"a", BasePiece(7, size), b"b")
    assert out.getvalue() == b"a" + b"\xff" * size + b"b"
    assert max(out.writes) <= BATCH + 1
    assert (steps[-1], len(steps) > 1) == (size + 2, size + 2 > BATCH)


@pytest.fixture
def source(tmp_path: Path) -> Iterator[int]:
    path = tmp_path / "source"
    path.write_bytes(bytes(range(251)) * 20_000)
    fd = os.open(path, os.O_RDONLY)
    yield fd
    os.close(fd)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, source: int) -> list[tuple[Any, ...]]:
    """What is read of the source, and copied of it by the kernel: nothing, as it says."""
    calls: list[tuple[Any, ...]] = []
    pread = os.pread

    def read(fd: int, count: int, at: int) -> bytes:
        calls.append(("read", count, at))
        assert fd == source
        return pread(fd, count, at)

    def copy(*arguments: int) -> int:
        calls.append(("copy", *arguments))
        return 0

    monkeypatch.setattr(writer.os, "pread", read)
    monkeypatch.setattr(writer, "copy_in_kernel", copy)
    return calls


@pytest.mark.parametrize(
    ("size", "reads"),
    [
        (LARGE - 1, [("read", LARGE - 1, 9)]),
        (LARGE, [("read", LARGE, 9)]),
        (CHUNK + 5, [("read", CHUNK, 9), ("read", 5, 9 + CHUNK)]),
    ],
)
def test_what_is_read_of_a_source(
    source: int, asked: list[tuple[Any, ...]], size: int, reads: list[tuple[Any, ...]]
) -> None:
    """Small ones at once, with their digest; also of the base image, in its padding."""
    digests: dict[str, str] = {}
    for piece, base in ((FilePiece("a", size), None), (BasePiece(9, size), source)):
        asked.clear()
        digests.clear()
        out, _ = written(b"x", piece, base=base, digests=digests,
                         open_source=lambda path: Data(source, 9))  # fmt: skip
        data = (bytes(range(251)) * 20_000)[9 : 9 + size]
        assert out.getvalue() == b"x" + data
        assert asked == reads
        known = {"a": sha256(data).hexdigest()}
        assert digests == (known if base is None and size < LARGE else {})


@pytest.mark.parametrize("done", [0, 1000, LARGE])
def test_the_kernel_copies_what_is_large(
    source: int, asked: list[tuple[Any, ...]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    done: int,
) -> None:  # fmt: skip
    """To where the output stands, when all before it is there; what it leaves is read."""
    data = bytes(range(251)) * 20_000

    def copy(*arguments: int) -> int:
        asked.append(("copy", *arguments))
        assert (tmp_path / "out").read_bytes() == b"beforex" + data[5 : LARGE + 4]
        os.pwrite(arguments[2], data[5 : 5 + done], arguments[3])
        return done

    monkeypatch.setattr(writer, "copy_in_kernel", copy)
    pieces = (b"x", FilePiece("a", LARGE - 1), FilePiece("b", LARGE), b"y")
    with (tmp_path / "out").open("w+b") as out:
        out.write(b"before")
        layout = Layout(2 * LARGE + 1, {}, [], pieces)
        write_image(layout, out, lambda path: Data(source, 5))
        fd = out.fileno()
    rest = [("read", LARGE - done, 5 + done)] if done < LARGE else []
    assert asked == [
        ("read", LARGE - 1, 5), ("copy", source, 5, fd, 6 + LARGE, LARGE), *rest,
    ]  # fmt: skip
    there = (tmp_path / "out").read_bytes()
    assert there == b"beforex" + data[5 : LARGE + 4] + data[5 : LARGE + 5] + b"y"


@pytest.mark.parametrize(
    ("size", "there", "owned", "found"),
    [
        (10, 9, True, "9"), (10, 9, False, "9"), (10, 11, True, "more"), (10, 11, False, None),
        (10, 10, True, None), (LARGE, LARGE - 1, False, str(LARGE - 1)), (10, 0, True, "0"),
        (LARGE, LARGE + 1, True, "more"), (LARGE, LARGE + 1, False, None),
        (LARGE, LARGE, True, None), (0, 1, True, "more"), (CHUNK + 9, CHUNK, True, str(CHUNK)),
        (LARGE - 1, LARGE, True, "more"), (LARGE - 1, LARGE - 1, True, None),
    ],
)  # fmt: skip
def test_a_source_of_another_length(
    tmp_path: Path, size: int, there: int, owned: bool, found: str | None
) -> None:
    """What was opened for it alone ends where it ends, and is closed; nothing else is."""
    (tmp_path / "a").write_bytes(b"a" * there)
    opened: list[int] = []

    def source(path: str) -> Data:
        opened.append(os.open(tmp_path / path, os.O_RDONLY))
        return Data(opened[0], 0, owned)

    closed = False
    try:
        if found is None:
            assert written(FilePiece("a", size), open_source=source)[0].getvalue() == b"a" * size
        else:
            with pytest.raises(DataChanged) as caught:
                written(FilePiece("a", size), open_source=source)
            assert caught.value.line == (
                f"a changed while it was stored: {size:,} B expected, {found} found (a); try again"
            )
    finally:
        try:
            os.close(opened[0])
        except OSError:
            closed = True
    assert closed == owned


def test_a_small_image_in_memory() -> None:
    files = {"b/c/d.txt": b"1", "a": b"", "b/e": b"22"}
    made = encode(files, DEFAULT_RULES, ["z/y", "b"])
    layout = canonical([
        TreeEntry("z", None), TreeEntry("z/y", None), TreeEntry("b", None),
        TreeEntry("b/c", None), TreeEntry("b/c/d.txt", 1), TreeEntry("a", 0), TreeEntry("b/e", 2),
    ])  # fmt: skip
    assert made == b"".join(
        files[piece.path] if isinstance(piece, FilePiece) else piece
        for piece in layout.pieces
        if not isinstance(piece, BasePiece)
    )
    assert (Data(3).offset, Data(3).owned) == (0, False)


SIZES = {"a": 3600, "b": 1500, "c": 10, "d": 4000}


@pytest.fixture
def stored(tmp_path: Path) -> Iterator[tuple[int, Layout, dict[str, str]]]:
    """An image file of four files, with its layout and their digests."""
    layout = canonical([TreeEntry(name, size) for name, size in SIZES.items()])
    contents = {name: os.urandom(size) for name, size in SIZES.items()}
    with (tmp_path / "image").open("w+b") as out:
        for piece in layout.pieces:
            out.write(contents[piece.path] if isinstance(piece, FilePiece) else piece)  # type: ignore[arg-type]
        out.flush()
        digests = {name: sha256(data).hexdigest() for name, data in contents.items()}
        yield out.fileno(), layout, digests


class Side:
    """In the place of `Beside`: one after the other, here."""

    started: list[int]

    def __init__(self, works: list[Callable[[Any], None]]) -> None:
        self.works = works
        type(self).started.append(len(works))

    def __enter__(self) -> Side:
        return self

    def __exit__(self, *_: object) -> None: ...

    def result(self, number: int) -> None:
        self.works[number](Event())


@pytest.mark.parametrize("limit", [0, 1])
def test_large_images_are_halved(
    stored: tuple[int, Layout, dict[str, str]], monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    """What is read is told about once a chunk, and at the end."""
    fd, layout, digests = stored
    assert (check._CHUNK, check._WINDOW, check._TWO_THREADS) == (CHUNK, LARGE, 8 << 20)
    monkeypatch.setattr(check, "_TWO_THREADS", layout.size + limit)
    monkeypatch.setattr(check, "_CHUNK", 1500)
    monkeypatch.setattr(check, "Beside", Side)
    Side.started = []
    parts: list[list[str]] = []
    made = check._Reader.__init__

    def watched(self: Any, fd: int, files: Any, *rest: Any) -> None:
        parts.append([path for path, _ in files])
        made(self, fd, files, *rest)

    monkeypatch.setattr(check._Reader, "__init__", watched)
    told: list[Any] = []
    check_image(fd, layout, digests, DEFAULT_RULES, lambda *step: told.append(step))
    halved = limit == 0
    assert parts == ([["a", "b"], ["c", "d"]] if halved else [["a", "b", "c", "d"]])
    assert Side.started == [int(halved)]
    steps = [3600, 5100, 9110] if halved else [3600, 5100, 9110, 9110]
    assert told == [("checking", done, layout.size) for done in steps]
    check_image(fd, layout, digests, DEFAULT_RULES)
    os.pwrite(fd, b"?" * 9, layout.placements["d"].offset)
    with pytest.raises(VerifyError, match=r"the data differs \(d, offset"):
        check_image(fd, layout, digests, DEFAULT_RULES)


def test_the_second_reader_ends_when_it_is_told_to(
    stored: tuple[int, Layout, dict[str, str]],
) -> None:
    fd, layout, digests = stored
    stop = Event()
    reader = check._Reader(fd, list(layout.placements.items()), digests, None)
    assert reader.done == 0
    reader.run(stop)
    assert reader.done == 9110
    stop.set()
    reader.done = 0
    reader.run(stop)
    assert reader.done == 0


def test_all_that_an_image_can_have_wrong(
    stored: tuple[int, Layout, dict[str, str]], tmp_path: Path
) -> None:
    fd, layout, digests = stored
    places = dict(layout.placements)
    at = places["a"].offset

    def said(changed: dict[str, Extent | None], *directories: str, size: int = layout.size) -> str:
        merged = {path: extent for path, extent in (places | changed).items() if extent}
        with pytest.raises(VerifyError) as caught:
            check_image(fd, Layout(size, merged, directories, []), digests, DEFAULT_RULES)
        return caught.value.line.removeprefix("the written image differs from the plan: ")

    assert said({}, size=layout.size + 1) == (
        f"the image has {layout.size} bytes instead of {layout.size + 1}"
    )
    assert said({"a": None}) == f"a file that should not be there (a, offset {at:#x})"
    assert said({"a": Extent(at, 9)}) == f"3,600 B instead of 9 B (a, offset {at:#x})"
    assert said({"a": Extent(99, 3600)}) == f"not at offset 0x63 (a, offset {at:#x})"
    assert said({"x": Extent(7, 1)}) == "the file is missing (x, offset 0x7)"
    assert said({}, "e", "d2") == "a directory is missing or unexpected (d2)"
    missing = {name: digests[name] for name in "ad"}
    with pytest.raises(VerifyError) as caught:
        check_image(fd, layout, missing, DEFAULT_RULES)
    assert caught.value.line == "there is no digest to compare with (b)"
    with (tmp_path / "image").open("r+b") as other:
        other.write(b"\xd2\xcd\x31" + b"\x80" * 12 + b"\0")
    with pytest.raises(VerifyError) as caught:
        check_image(fd, layout, digests, DEFAULT_RULES)
    assert caught.value.line == f"the header declares 16 bytes instead of {layout.size}"
    os.pwrite(fd, b"?", 0)
    with pytest.raises(VerifyError) as caught:
        check_image(fd, layout, digests, DEFAULT_RULES)
    assert caught.value.line == (
        "the image that was written cannot be read (not a valid ROMFS image: it does not start "
        "with d2 cd 31 (offset 0x0))"
    )
