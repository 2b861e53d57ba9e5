"""Trees and images for the tests of this folder; nothing here uses romfsfs's own encoder."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from hypothesis import strategies as st

from romfsfs.image.layout import TreeEntry

#: path -> data, or None for a directory; parents precede children
Tree = dict[str, bytes | None]


def lines_run(call: Callable[[], object]) -> int:
    """How many lines of Python a call runs: what it costs, whatever else the machine does."""
    count = 0

    def trace(frame: FrameType, event: str, argument: object) -> Callable[..., Any]:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return count


MAGIC = b"\xd2\xcd\x31"


def number(value: int, width: int = 0) -> bytes:
    """A varuint, padded to `width` bytes."""
    groups = [value & 0x7F]
    while value := value >> 7:
        groups.append(0x80 | value & 0x7F)
    return bytes(reversed(groups)).rjust(width, b"\x80")


def record(kind: int, payload: bytes, width: int = 0) -> bytes:
    return number(kind) + number(len(payload), width) + payload


def named(kind: int, name: bytes, payload: bytes) -> bytes:
    return record(kind, number(len(name)) + name + payload)


def file(name: str, data: bytes) -> bytes:
    return named(5, name.encode(), record(2, data))


def directory(name: str, *children: bytes) -> bytes:
    return named(4, name.encode(), b"".join(children))


def image(*records: bytes, width: int = 0) -> bytes:
    payload = b"".join(records)
    return MAGIC + number(len(payload), width) + payload


def entries(tree: Mapping[str, bytes | None]) -> list[TreeEntry]:
    return [TreeEntry(path, None if data is None else len(data)) for path, data in tree.items()]


_STEMS = st.text("abXY_-01", min_size=1, max_size=6) | st.just("n" * 140)
_SUFFIXES = st.sampled_from(["", ".txt", ".py", ".tflite", ".TFLITE", ".lite", ".bin", ".Bin"])
_NAMES = st.builds(str.__add__, _STEMS, _SUFFIXES) | st.just(".bin")
_DATA = st.binary(max_size=40) | st.integers(100, 20000).map(lambda size: b"\xa5" * size)


@st.composite
def trees(draw: st.DrawFn) -> Tree:
    """Nested trees with empty directories, empty files, long names and every alignment."""
    tree: Tree = {}
    directories = [""]
    for _ in range(draw(st.integers(0, 14))):
        parent = draw(st.sampled_from(directories))
        path = f"{parent}/{draw(_NAMES)}".lstrip("/")
        if path in tree:
            continue
        if draw(st.integers(0, 3)) == 0:
            tree[path] = None
            directories.append(path)
        else:
            tree[path] = draw(_DATA)
    return tree


def random_tree(rng: random.Random, files: int, largest: int = 3000) -> Tree:
    """A tree of about `files` files, names in UTF-8, in directories of random depth."""
    tree: Tree = {}
    directories = [""]
    for index in range(files):
        parent = rng.choice(directories)
        suffix = rng.choice(["", ".txt", ".mpy", ".tflite", ".bin", ".é"])
        path = f"{parent}/n{index}{suffix}".lstrip("/")
        if rng.random() < 0.2:
            tree[path] = None
            directories.append(path)
        else:
            tree[path] = rng.randbytes(rng.choice([0, 1, 5, rng.randrange(largest + 1)]))
    return tree


_FIRMWARE_WALK = """
import sys, os, vfs, json, hashlib, binascii
result = []
for name in sys.argv[1:]:
    with open(name, 'rb') as f:
        data = f.read()
    vfs.mount(vfs.VfsRom(memoryview(data)), '/r')
    found = {}
    todo = ['']
    while todo:
        here = todo.pop()
        for entry in os.ilistdir('/r' + here):
            path = here + '/' + entry[0]
            if entry[1] & 0x4000:
                found[path[1:]] = None
                todo.append(path)
            else:
                with open('/r' + path, 'rb') as f:
                    content = f.read()
                digest = hashlib.sha256(content).digest()
                found[path[1:]] = [len(content), binascii.hexlify(digest).decode()]
    result.append(found)
    vfs.umount('/r')
print(json.dumps(result))
"""


def firmware_view(
    micropython: Path, folder: Path, images: list[bytes]
) -> list[dict[str, list[object] | None]]:
    """What the firmware's reader finds in each image: path -> [size, sha256], None: directory."""
    names = []
    for index, data in enumerate(images):
        place = folder / f"{index}.img"
        place.write_bytes(data)
        names.append(str(place))
    script = folder / "walk.py"
    script.write_text(_FIRMWARE_WALK)
    done = subprocess.run(
        [micropython, "-X", "heapsize=200m", script, *names],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr + done.stdout[-500:]
    found: list[dict[str, list[object] | None]] = json.loads(done.stdout)
    return found
