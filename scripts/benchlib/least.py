"""The least that a build and a commit can do in Python: copy, read back, hash, sync.

    least.py build TREE OUT          each file into OUT, compared with what was written
    least.py commit IMAGE KEPT OUT   two durable copies, each compared; hashed, to know it by

Nothing of romfsfs is in it: no plan, no records, no conversion, no log, no lock. What a figure of
`scripts/bench` is above its own is ours; what it is itself, nobody can save.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Thread

_CHUNK = 1 << 18


@contextmanager
def beside(work: Callable[[], object]) -> Iterator[None]:
    thread = Thread(target=work)
    thread.start()
    yield
    thread.join()


def copy(source: int, out: int, start: int = 0) -> int:
    """Append all of `source` to `out`; where it then ends."""
    size = os.fstat(source).st_size
    done = 0
    while done < size:
        done += os.copy_file_range(source, out, size - done, done, start + done)
    return start + size


def compare(source: int, out: int, start: int = 0) -> int:
    """Read both; where `source` ends in `out`."""
    offset = 0
    while data := os.pread(source, _CHUNK, offset):
        assert data == os.pread(out, len(data), start + offset)
        offset += len(data)
    return start + offset


def digest(fd: int) -> str:
    known, buffer, offset = hashlib.sha256(), bytearray(_CHUNK), 0
    while count := os.preadv(fd, [buffer], offset):
        known.update(memoryview(buffer)[:count])
        offset += count
    return known.hexdigest()


def each_file(tree: str, do: Callable[[int, int, int], int], out: int) -> None:
    end = 0
    for folder, _, names in os.walk(tree):
        for name in names:
            fd = os.open(os.path.join(folder, name), os.O_RDONLY)
            end = do(fd, out, end)
            os.close(fd)


def created(path: str) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)


def build(tree: str, path: str) -> None:
    out = created(path)
    each_file(tree, copy, out)
    with beside(lambda: os.fsync(out)):
        each_file(tree, compare, out)


def commit(path: str, kept: str, target: str) -> None:
    image, first, second = os.open(path, os.O_RDONLY), created(kept), created(target)
    copy(image, first)
    with beside(lambda: os.fsync(first)), beside(lambda: digest(first)):
        compare(image, first)
    copy(first, second)
    with beside(lambda: os.fsync(second)):
        compare(first, second)


if __name__ == "__main__":
    {"build": build, "commit": commit}[sys.argv[1]](*sys.argv[2:])
