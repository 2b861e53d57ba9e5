"""Fuzz targets for what reads, extracts, lays out and writes images."""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
from pathlib import Path
from zlib import crc32

from romfsfs.errors import ImageFormatError, PlanError, RomfsError
from romfsfs.image import varuint
from romfsfs.image.check import check_image, lint
from romfsfs.image.layout import AlignmentRules, BasePiece, FilePiece, Layout, TreeEntry, canonical
from romfsfs.image.model import FileNode, Image, walk
from romfsfs.image.reader import image_size, is_blank, read_image
from romfsfs.image.rules import DEFAULT_RULES
from romfsfs.image.stable import stable
from romfsfs.image.writer import write_image
from romfsfs.session.build import extract_image
from romfsfs.system.files import digest_bytes

#: A file system in memory where there is one: the disk is not what is tested.
SCRATCH = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
#: Extracting makes files: only small trees are extracted while fuzzing.
MAX_EXTRACTED_FILES, MAX_EXTRACTED_BYTES, MAX_ENTRIES = 40, 1 << 16, 300
EXTRACTED = int(os.environ.get("ROMFSFS_FUZZ_EXTRACTED", "1"))


def image(data: bytes) -> None:
    """Reading, walking, checking and extracting; laying it out anew."""
    with contextlib.suppress(ImageFormatError):
        image_size(data[:16])
    is_blank(data[:16])
    found, refused = _read(data)
    if found is None:
        assert refused is not None
        assert 0 <= refused.offset <= len(data)
        assert "\n" not in refused.line
        return
    assert image_size(data) == found.size == len(data) - found.trailing
    files = check_tree(found)
    lint(found, DEFAULT_RULES)
    total = sum(files.values())
    # Making files takes a hundred times as long as reading: of many inputs, some are extracted.
    few = crc32(data) % EXTRACTED == 0
    few = few and len(files) <= MAX_EXTRACTED_FILES and len(found.notes) < MAX_EXTRACTED_FILES
    if few and total <= MAX_EXTRACTED_BYTES and sum(1 for _ in walk(found)) < MAX_ENTRIES:
        extracted(data, found)
        rebuilt(data, found)


def _read(data: bytes) -> tuple[Image | None, ImageFormatError | None]:
    try:
        return read_image(data), None
    except ImageFormatError as error:
        return None, error


def check_tree(found: Image) -> dict[str, int]:
    """What must hold for every image that is accepted; the files with their sizes."""
    files: dict[str, int] = {}
    seen = set()
    for path, node in walk(found):
        assert path not in seen
        seen.add(path)
        assert all(part not in ("", ".", "..") and "\0" not in part for part in path.split("/"))
        if isinstance(node, FileNode):
            assert 0 <= node.extent.offset <= node.extent.end <= found.size
            files[path] = node.extent.size
    return files


def extracted(data: bytes, found: Image) -> None:
    """Everything lands below the chosen folder, as plain files and folders."""
    with tempfile.TemporaryDirectory(dir=SCRATCH, prefix="romfsfs-fuzz-") as name:
        outside = Path(name, "outside")
        outside.mkdir()
        file_name = Path(name, "image")
        file_name.write_bytes(data)
        folder = outside / "folder"
        with file_name.open("rb") as file:
            try:
                extract_image(found, file, folder)
            except RomfsError:
                assert os.listdir(outside) == []
            else:
                assert os.listdir(outside) == ["folder"]
                check_extracted(data, found, folder)
        assert sorted(os.listdir(name)) == ["image", "outside"]


def check_extracted(data: bytes, found: Image, folder: Path) -> None:
    """The folder holds what the image says and nothing else."""
    expected = dict(walk(found))
    for parent, folders, names in os.walk(folder):
        for each in (*folders, *names):
            path = os.path.join(parent, each)
            assert not os.path.islink(path)
            node = expected.pop(os.path.relpath(path, folder))
            if isinstance(node, FileNode):
                content = Path(path).read_bytes()
                assert content == data[node.extent.offset : node.extent.end]
    assert not expected


def rebuilt(data: bytes, found: Image) -> None:
    """The same tree laid out anew holds the same bytes, canonical and stable."""
    nodes = list(walk(found))
    contents = {
        path: data[node.extent.offset : node.extent.end]
        for path, node in nodes
        if isinstance(node, FileNode)
    }
    entries = [
        TreeEntry(path, len(contents[path]) if path in contents else None) for path, _ in nodes
    ]
    written(canonical(entries, DEFAULT_RULES), contents, DEFAULT_RULES, data)
    changed = set(list(contents)[:: 2 + len(data) % 3])
    new = {path: value + b"!" if path in changed else value for path, value in contents.items()}
    entries = [TreeEntry(path, len(new[path]) if path in new else None) for path, _ in nodes]
    unchanged = set(contents) - changed
    layout = stable(entries, DEFAULT_RULES, found, unchanged, 64, None, data)
    written(layout, new, DEFAULT_RULES, data)


def written(
    layout: Layout, contents: dict[str, bytes], rules: AlignmentRules, base: bytes = b""
) -> bytes:
    """Put a layout together, read it back and compare."""
    out = io.BytesIO()
    for piece in layout.pieces:
        if isinstance(piece, FilePiece):
            out.write(contents[piece.path])
        elif isinstance(piece, BasePiece):
            out.write(base[piece.offset : piece.offset + piece.size])
        else:
            out.write(piece)
    data = out.getvalue()
    assert len(data) == layout.size
    found = read_image(data)
    assert found.size == layout.size
    assert found.size % 2 == 0
    back = {
        path: data[node.extent.offset : node.extent.end]
        for path, node in walk(found)
        if isinstance(node, FileNode)
    }
    assert back == contents
    for path, extent in layout.placements.items():
        assert extent.offset % rules.for_name(path) == 0
    return data


class Numbers:
    """Turns bytes into choices: the same bytes, the same tree."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def below(self, limit: int) -> int:
        value = int.from_bytes(self.take(2), "little")
        return value % limit

    def take(self, count: int) -> bytes:
        data = self._data[self._at : self._at + count]
        self._at += count
        return data


def layout(data: bytes) -> None:
    """A tree made of the input, laid out, written to a file and read back; then edited."""
    numbers = Numbers(data)
    rules = AlignmentRules(4 << numbers.below(3), (("bin", 4 << numbers.below(6)), ("x", 16)))
    contents, entries = tree(numbers)
    try:
        planned = canonical(entries, rules)
    except PlanError:
        return
    base = written(planned, contents, rules)
    assert through_files(planned, contents, rules) == base
    parsed = read_image(base)
    new, edited = dict(contents), []
    for path, size in entries:
        choice = numbers.below(4) if numbers else 3
        if size is not None and choice == 0:
            del new[path]
            continue
        if size is not None and choice == 1:
            new[path] = bytes(numbers.below(5000))
        edited.append(TreeEntry(path, len(new[path]) if path in new else None))
    unchanged = {path for path, value in new.items() if contents[path] == value}
    capacity = None if numbers.below(2) else len(base) + numbers.below(2000)
    placed = stable(edited, rules, parsed, unchanged, 256, capacity, base)
    written(placed, new, rules, base)


def tree(numbers: Numbers) -> tuple[dict[str, bytes], list[TreeEntry]]:
    """Files with their contents, and all entries."""
    contents: dict[str, bytes] = {}
    entries: list[TreeEntry] = []
    folders = [""]
    while numbers and len(entries) < 200:
        parent = folders[numbers.below(len(folders))]
        raw = numbers.take(1 + numbers.below(6))
        suffix = ("", ".bin", ".x", ".tar.bin", "n" * 130)[numbers.below(5)]
        path = (parent + "/" if parent else "") + raw.decode("utf-8", "surrogateescape") + suffix
        if numbers.below(4) == 0:
            entries.append(TreeEntry(path, None))
            folders.append(path)
        else:
            contents[path] = bytes([len(entries) % 256]) * numbers.below(3000)
            entries.append(TreeEntry(path, len(contents[path])))
    return contents, entries


def through_files(planned: Layout, contents: dict[str, bytes], rules: AlignmentRules) -> bytes:
    """What `write_image` makes of it with real descriptors, checked as a commit does."""
    from romfsfs.image.writer import Data

    with tempfile.TemporaryFile(dir=SCRATCH) as sources, tempfile.TemporaryFile(dir=SCRATCH) as out:
        offsets = {}
        for path, value in contents.items():
            offsets[path] = sources.tell()
            sources.write(value)
        sources.flush()
        write_image(planned, out, lambda path: Data(sources.fileno(), offsets[path]))
        out.flush()
        digests = {path: digest_bytes(value) for path, value in contents.items()}
        check_image(out.fileno(), planned, digests, rules)
        out.seek(0)
        return out.read()


def number(data: bytes) -> None:
    """varuints: decoded within bounds, encoded the same again."""
    try:
        value, end = varuint.decode(data, 0, len(data))
    except ImageFormatError:
        pass
    else:
        assert 0 <= value <= varuint.MAX_VALUE
        assert 0 < end <= len(data)
        assert varuint.encode_to(value, end) == data[:end]
    value = int.from_bytes(data[:4], "little")
    short = varuint.encode(value)
    assert varuint.decode(short, 0, len(short)) == (value, len(short))
    total = 2 + int.from_bytes(data[:3], "little")
    head = varuint.padding_head(total)
    length, start = varuint.decode(head, 1, len(head))
    assert start + length == total
