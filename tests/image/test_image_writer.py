"""Writing images to files, and checking what was written."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest
from image_trees import Tree, directory, entries, file, image

from romfsfs.errors import VerifyError
from romfsfs.image.check import check_image, lint
from romfsfs.image.layout import DEFAULT_RULES, AlignmentRules, Layout, TreeEntry, canonical
from romfsfs.image.reader import read_image
from romfsfs.image.writer import Data, DataChanged, encode, write_image

TREE: Tree = {
    "main.py": b"print('hi')\n",
    "models": None,
    "models/face.tflite": os.urandom(300_000),
    "models/empty": None,
    "models/face.txt": b"",
    "data.bin": os.urandom(70_000),
}
FILES = {path: data for path, data in TREE.items() if data is not None}
IMAGE = encode(FILES, dirs=["models/empty"])


@pytest.fixture
def sources(tmp_path: Path) -> Callable[[str], Data]:
    folder = tmp_path / "sources"
    folder.mkdir()
    for path, data in FILES.items():
        (folder / path.replace("/", "-")).write_bytes(data)

    def open_source(path: str) -> Data:
        return Data(os.open(folder / path.replace("/", "-"), os.O_RDONLY), owned=True)

    return open_source


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("buffering", [0, -1])
def test_writes_the_image(tmp_path: Path, sources: Callable[[str], Data], buffering: int) -> None:
    layout = canonical(entries(TREE))
    before = open_files()
    seen: list[tuple[str, int, int]] = []
    with (tmp_path / "image").open("wb", buffering=buffering) as out:
        write_image(layout, out, sources, lambda *args: seen.append(args))
        assert out.tell() == layout.size
    data = (tmp_path / "image").read_bytes()
    assert len(data) == layout.size
    for path, extent in layout.placements.items():
        assert data[extent.offset : extent.end] == TREE[path]
    assert open_files() == before
    assert seen[-1] == ("writing", layout.size, layout.size)
    assert [done for _, done, _ in seen] == sorted(done for _, done, _ in seen)


@pytest.mark.parametrize(("count", "writes"), [(10, 0), (100, 0), (700, 3)])
def test_progress_is_told_when_something_was_written(
    tmp_path: Path, count: int, writes: int
) -> None:
    """Not for each of the files: they are gathered to 256 KiB. Digests of those that have none."""
    layout = canonical([TreeEntry(f"{number}.txt", 1200) for number in range(count)])
    source = tmp_path / "source"
    source.write_bytes(b"a" * 1200)
    fd = os.open(source, os.O_RDONLY)
    seen: list[tuple[str, int, int]] = []
    digests = {"0.txt": "known"}
    with (tmp_path / "image").open("wb") as out:
        write_image(layout, out, lambda _: Data(fd), lambda *args: seen.append(args), None, digests)
    os.close(fd)
    assert len(seen) == writes + 1
    assert all(done % (1 << 18) < 1300 for _, done, _ in seen[:-1])
    assert seen[-1] == ("writing", layout.size, layout.size)
    told = dict.fromkeys((f"{n}.txt" for n in range(count)), sha256(b"a" * 1200).hexdigest())
    assert digests == told | {"0.txt": "known"}


def test_pieces_may_lie_inside_another_file(tmp_path: Path) -> None:
    """Files of the base image are taken from it; its descriptor is not closed."""
    layout = canonical(entries(TREE))
    base = tmp_path / "base.img"
    with base.open("wb") as out:
        joined = b"".join(FILES.values())
        out.write(joined)
    fd = os.open(base, os.O_RDONLY)
    out = io.BytesIO()
    write_image(layout, out, lambda path: Data(fd, joined.index(FILES[path])))
    os.close(fd)
    assert read_image(out.getvalue()).size == layout.size
    extent = layout.placements["models/face.tflite"]
    assert out.getvalue()[extent.offset : extent.end] == TREE["models/face.tflite"]


@pytest.mark.parametrize(
    "number", [errno.ENOSYS, errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, None]
)
def test_where_the_kernel_cannot_copy(
    tmp_path: Path,
    sources: Callable[[str], Data],
    monkeypatch: pytest.MonkeyPatch,
    number: int | None,
) -> None:
    """The kernel refuses, or copies a part and then finds "the end" (None)."""
    real = os.copy_file_range

    def copy(src: int, dst: int, count: int, at: int, to: int) -> int:
        if number is not None:
            raise OSError(number, os.strerror(number))
        return real(src, dst, min(count, 1000), at, to) if at == 0 else 0

    monkeypatch.setattr(os, "copy_file_range", copy)
    layout = canonical(entries(TREE))
    with (tmp_path / "image").open("w+b") as out:
        out.write(b"before")
        write_image(layout, out, sources)
        out.seek(6)
        data = out.read()
    assert len(data) == layout.size
    for path, extent in layout.placements.items():
        assert data[extent.offset : extent.end] == TREE[path]


def test_other_errors_of_the_kernel_are_errors(
    tmp_path: Path, sources: Callable[[str], Data], monkeypatch: pytest.MonkeyPatch
) -> None:
    def copy(*args: int) -> int:
        raise OSError(errno.ENOSPC, "disk full")

    monkeypatch.setattr(os, "copy_file_range", copy)
    before = open_files()
    with (tmp_path / "image").open("wb") as out, pytest.raises(OSError, match="disk full"):
        write_image(canonical(entries(TREE)), out, sources)
    assert open_files() == before


@pytest.mark.parametrize("path", ["main.py", "data.bin", "models/face.tflite", "models/face.txt"])
@pytest.mark.parametrize("change", [-1, 1])
def test_a_source_that_changed_is_noticed(
    tmp_path: Path, sources: Callable[[str], Data], path: str, change: int
) -> None:
    sized = [
        entry._replace(size=(entry.size or 0) + change) if entry.path == path else entry
        for entry in entries(TREE)
    ]
    if path == "models/face.txt" and change < 0:
        return
    with (tmp_path / "image").open("wb") as out, pytest.raises(DataChanged, match=path):
        write_image(canonical(sized), out, sources)


def test_any_stream_will_do(sources: Callable[[str], Data]) -> None:
    """Standard output as a pipe: no fileno tricks, short writes are completed."""

    class Dribble(io.RawIOBase):
        def __init__(self) -> None:
            self.data = bytearray()

        def writable(self) -> bool:
            return True

        def write(self, data: object) -> int:
            part = bytes(data)[:50_000]  # type: ignore[call-overload]
            self.data += part
            return len(part)

    out = Dribble()
    write_image(canonical(entries(TREE)), out, sources)  # type: ignore[arg-type]
    check_bytes(bytes(out.data))


def check_bytes(
    data: bytes, layout: Layout | None = None, rules: AlignmentRules = DEFAULT_RULES
) -> None:
    with tempfile.TemporaryFile() as out:
        out.write(data)
        out.flush()
        digests = {path: sha256(content).hexdigest() for path, content in FILES.items()}
        check_image(out.fileno(), layout or canonical(entries(TREE)), digests, rules)


def good_image() -> bytes:
    layout = canonical(entries(TREE))
    return b"".join(p if isinstance(p, bytes) else FILES[p.path] for p in layout.pieces)  # type: ignore[union-attr]


def test_a_good_image_passes() -> None:
    check_bytes(good_image())


def test_every_kind_of_difference_is_found() -> None:
    good = good_image()
    layout = canonical(entries(TREE))
    at = layout.placements["models/face.tflite"].offset
    flipped = bytearray(good)
    flipped[at + 123_456] ^= 1
    with pytest.raises(VerifyError, match=rf"data differs \(models/face.tflite, offset {at:#x}"):
        check_bytes(bytes(flipped))
    with pytest.raises(VerifyError, match="bytes instead of"):
        check_bytes(good[:-2])
    with pytest.raises(VerifyError, match="cannot be read"):
        check_bytes(bytes(16) + good[16:])
    with pytest.raises(VerifyError, match="should not be there"):
        check_bytes(good.replace(b"main.py", b"main.px"))
    with pytest.raises(VerifyError, match="a directory is missing or unexpected"):
        check_bytes(good.replace(b"\x05empty", b"\x05empti"))
    with pytest.raises(VerifyError, match="not at a multiple of 64"):
        check_bytes(good, rules=AlignmentRules(64))
    moved = Layout(layout.size, {**layout.placements, "main.py": layout.placements["data.bin"]},
                   layout.directories, [])  # fmt: skip
    with pytest.raises(VerifyError, match=r"12 B instead of 70,000 B \(main.py"):
        check_bytes(good, moved)
    extra = Layout(layout.size, {**layout.placements, "x": layout.placements["main.py"]},
                   layout.directories, [])  # fmt: skip
    with pytest.raises(VerifyError, match=r"missing \(x"):
        check_bytes(good, extra)


def test_what_has_no_digest_is_compared_with_its_source(tmp_path: Path) -> None:
    """Byte for byte; what was opened for that alone is closed, and nothing else."""
    layout = canonical([TreeEntry("a", 700_000), TreeEntry("b", 700_000), TreeEntry("c", 9)])
    contents = {name: os.urandom(layout.placements[name].size) for name in "abc"}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    before = open_files()
    base = os.open(tmp_path / "b", os.O_RDONLY)

    def source(path: str) -> Data:
        owned = path != "b"
        return Data(os.open(tmp_path / path, os.O_RDONLY) if owned else base, 0, owned)

    seen: list[tuple[str, int, int]] = []
    known = {"c": sha256(contents["c"]).hexdigest()}
    with (tmp_path / "image").open("w+b") as out:
        write_image(layout, out, source)
        out.flush()
        fd = out.fileno()
        stream = io.BytesIO()  # to which no kernel copies
        write_image(layout, stream, source)
        assert stream.getvalue() == (tmp_path / "image").read_bytes()
        check_image(fd, layout, known, DEFAULT_RULES, lambda *args: seen.append(args), source)
        total = 1_400_009
        assert seen == [
            ("checking", 1_400_000, layout.size), ("checking", total, layout.size),
        ]  # fmt: skip
        with pytest.raises(VerifyError) as caught:
            check_image(fd, layout, known, DEFAULT_RULES)
        assert caught.value.line == "there is no digest to compare with (a)"
        for name in "abc":
            at = layout.placements[name].offset
            os.pwrite(fd, bytes([contents[name][0] ^ 1]), at)
            with pytest.raises(VerifyError, match=rf"the data differs \({name}, offset {at:#x}"):
                check_image(fd, layout, known, DEFAULT_RULES, None, source)
            os.pwrite(fd, contents[name][:1], at)
        moved = {**layout.placements, "c": layout.placements["c"]._replace(offset=64)}
        other = Layout(layout.size, moved, layout.directories, [])
        with pytest.raises(VerifyError, match=r"plan: not at offset 0x40 \(c, offset"):
            check_image(fd, other, known, DEFAULT_RULES, None, source)
    os.close(base)
    assert open_files() == before


def test_large_images_are_hashed_by_two_threads_in_flat_memory(tmp_path: Path) -> None:
    script = f"""
import hashlib, os, resource, sys
from romfsfs.errors import VerifyError
from romfsfs.image.check import check_image
from romfsfs.image.layout import DEFAULT_RULES, TreeEntry, canonical
from romfsfs.image.writer import Data, write_image
place = {str(tmp_path / "part")!r}
part = os.urandom(1 << 20) * 12
open(place, 'wb').write(part)
digest = hashlib.sha256(part).hexdigest()
del part
names = [f'm{{i}}.tflite' for i in range(5)]
layout = canonical([TreeEntry(name, 12 << 20) for name in names])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with open(place + '.img', 'w+b') as out:
    write_image(layout, out, lambda _: Data(os.open(place, os.O_RDONLY), owned=True))
    out.flush()
    digests = dict.fromkeys(names, digest)
    check_image(out.fileno(), layout, digests, DEFAULT_RULES)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for name in names:
        at = layout.placements[name].offset + 7
        os.pwrite(out.fileno(), bytes([os.pread(out.fileno(), 1, at)[0] ^ 1]), at)
        try:
            check_image(out.fileno(), layout, digests, DEFAULT_RULES)
        except VerifyError as error:
            assert name in error.line
        else:
            raise AssertionError
        os.pwrite(out.fileno(), bytes([os.pread(out.fileno(), 1, at)[0] ^ 1]), at)
print(after - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 6 << 10  # KiB


def test_lint() -> None:
    """All that is said: of each file once, and of nothing else."""
    inside = [file("ä.txt", b"1"), file("b\x7f", b"")]
    data = image(file("model.tflite", b"12"), directory("d?", *inside), file("x", b""))
    found = read_image(data + b"\xff" * 1005)
    said = [(note.code, note.path, note.message, note.offset) for note in found.notes]
    noted = [
        (note.code, note.path, note.message, note.offset) for note in lint(found, DEFAULT_RULES)
    ]
    assert noted == [
        *said,
        ("misaligned", "model.tflite", "its data is at 0x15, not a multiple of 16", 0x15),
        ("ide-name", "d?/ä.txt", "the IDE turns the name 'ä.txt' into one with '?'", 0x1C),
        ("misaligned", "d?/ä.txt", "its data is at 0x27, not a multiple of 4", 0x27),
        ("ide-name", "d?/b\x7f", "the IDE turns the name 'b\\x7f' into one with '?'", 0x28),
        ("trailing", "", "1,005 bytes after the image", len(data)),
    ]
    assert lint(read_image(IMAGE), DEFAULT_RULES) == ()
