"""An exerciser of one file after fsx: random reads, writes, truncates and mmaps, against memory.

Some of it goes past the page cache, leaves holes, or comes out of a pipe; one mapping is kept
while the file changes under it.

`python fsx.py FILE OPERATIONS [SEED]` prints how many it did; on the first difference it prints
the operations before it and ends with 1.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import mmap
import os
import random
import sys
from collections import deque
from pathlib import Path

LARGEST = 96 << 10  # bytes of the file: two dozen pages
LONGEST = 12 << 10  # bytes of one operation


KEEP, PUNCH = 1, 3  # <linux/falloc.h>, the second with the first

LIBC = ctypes.CDLL(None, use_errno=True)


class Difference(Exception):
    """The file is not what memory says."""


class Exerciser:
    def __init__(self, path: Path, seed: int) -> None:
        self.path = path
        self.random = random.Random(seed)
        self.expected = bytearray()
        self.log: deque[str] = deque(maxlen=50)
        self.noise = self.random.randbytes(LARGEST + LONGEST)
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
        self.other = os.open(path, os.O_RDWR)
        self.direct = os.open(path, os.O_RDWR | os.O_DIRECT)
        self.room = mmap.mmap(-1, LONGEST)  # direct transfers want whole pages of memory
        self.kept: mmap.mmap | None = None
        self.pipe = os.pipe()
        self.operations = [
            (30, self.write), (30, self.read), (8, self.truncate), (10, self.map_write),
            (10, self.map_read), (3, self.append), (2, self.copy), (2, self.sync),
            (2, self.grow), (1, self.reopen), (1, self.check_all), (1, self.cut_and_rewrite),
            (3, self.direct_write), (3, self.direct_read), (3, self.punch), (1, self.keep),
            (3, self.splice), (2, self.map_anew), (6, self.kept_write), (6, self.kept_read),
        ]  # fmt: skip

    def run(self, count: int) -> None:
        weights = [weight for weight, _ in self.operations]
        functions = [function for _, function in self.operations]
        for function in self.random.choices(functions, weights, k=count):
            function()
        self.check_all()

    def close(self) -> None:
        for fd in (self.fd, self.other, self.direct):
            os.close(fd)

    def end(self) -> None:
        self.close()
        for fd in self.pipe:
            os.close(fd)
        if self.kept is not None:
            self.kept.close()  # or it stays open in the mount

    # -- operations

    def write(self) -> None:
        offset, data = self.random.randrange(LARGEST), self.data()
        self.note("write", offset, len(data))
        if os.pwrite(self.handle(), data, offset) != len(data):
            raise Difference("a short write")
        self.put(offset, data)

    def append(self) -> None:
        data = self.data()[: max(0, LARGEST - len(self.expected))]
        self.note("append", len(self.expected), len(data))
        fd = os.open(self.path, os.O_WRONLY | os.O_APPEND)
        os.write(fd, data)
        os.close(fd)
        self.put(len(self.expected), data)

    def read(self) -> None:
        offset, size = self.random.randrange(LARGEST), self.random.randrange(LONGEST)
        self.note("read", offset, size)
        self.compare(os.pread(self.handle(), size, offset), offset, size)

    def truncate(self) -> None:
        size = self.random.randrange(LARGEST)
        self.note("truncate", size)
        if self.random.random() < 0.5:
            os.ftruncate(self.handle(), size)
        else:
            os.truncate(self.path, size)
        self.cut(size)

    def grow(self) -> None:
        offset, size = self.random.randrange(LARGEST), 1 + self.random.randrange(LONGEST)
        self.note("grow", offset, size)
        os.posix_fallocate(self.handle(), offset, size)
        self.cut(max(len(self.expected), offset + size))

    def copy(self) -> None:
        if len(self.expected) < 2:
            return
        half = len(self.expected) // 2
        size = self.random.randrange(1, half + 1)
        source, target = self.random.randrange(half - size + 1), half
        self.note("copy", source, target, size)
        done = 0
        while done < size:
            done += os.copy_file_range(
                self.fd, self.other, size - done, source + done, target + done
            )
        self.expected[target : target + size] = self.expected[source : source + size]

    def map_write(self) -> None:
        if not self.expected:
            return
        offset = self.random.randrange(len(self.expected))
        data = self.data()[: len(self.expected) - offset]
        self.note("map write", offset, len(data))
        with mmap.mmap(self.handle(), len(self.expected)) as mapping:
            mapping[offset : offset + len(data)] = data
            if self.random.random() < 0.5:
                mapping.flush()
        self.put(offset, data)

    def map_read(self) -> None:
        if not self.expected:
            return
        offset, size = self.random.randrange(len(self.expected)), self.random.randrange(LONGEST)
        self.note("map read", offset, size)
        with mmap.mmap(self.handle(), len(self.expected), prot=mmap.PROT_READ) as mapping:
            self.compare(bytes(mapping[offset : offset + size]), offset, size)

    def sync(self) -> None:
        self.note("sync")
        os.fsync(self.handle())

    def reopen(self) -> None:
        self.note("reopen")
        self.close()
        self.fd = os.open(self.path, os.O_RDWR)
        self.other = os.open(self.path, os.O_RDWR)
        self.direct = os.open(self.path, os.O_RDWR | os.O_DIRECT)
        self.check_all()

    def cut_and_rewrite(self) -> None:
        data = self.data()
        self.note("rewrite", len(data))
        self.path.write_bytes(data)
        self.expected[:] = data

    # -- past the page cache, holes, pipes

    def direct_write(self) -> None:
        offset, size = self.blocks()
        start = self.random.randrange(LARGEST)
        self.room[:size] = data = self.noise[start : start + size]
        self.note("direct write", offset, size)
        if os.pwritev(self.direct, [memoryview(self.room)[:size]], offset) != size:
            raise Difference("a short write")
        self.put(offset, data)

    def direct_read(self) -> None:
        offset, size = self.blocks()
        self.note("direct read", offset, size)
        count = os.preadv(self.direct, [memoryview(self.room)[:size]], offset)
        self.compare(self.room[:count], offset, size)

    def punch(self) -> None:
        offset, size = self.random.randrange(LARGEST), 1 + self.random.randrange(LONGEST)
        self.note("punch", offset, size)
        with contextlib.suppress(NotImplementedError):
            self.allocate(PUNCH, offset, size)
            end = min(offset + size, len(self.expected))
            self.expected[offset:end] = bytes(max(0, end - offset))

    def keep(self) -> None:
        offset, size = self.random.randrange(LARGEST), 1 + self.random.randrange(LONGEST)
        self.note("keep", offset, size)
        with contextlib.suppress(NotImplementedError):
            self.allocate(KEEP, offset, size)

    def allocate(self, mode: int, offset: int, size: int) -> None:
        place = ctypes.c_int64(offset), ctypes.c_int64(size)
        if LIBC.fallocate64(self.handle(), mode, *place) != 0:
            number = ctypes.get_errno()
            if number != errno.EOPNOTSUPP:
                raise Difference(f"fallocate: {os.strerror(number)}")
            raise NotImplementedError

    def splice(self) -> None:
        offset, data = self.random.randrange(LARGEST), self.data()
        self.note("splice", offset, len(data))
        os.write(self.pipe[1], data)
        done = 0
        while done < len(data):
            done += os.splice(
                self.pipe[0], self.handle(), len(data) - done, offset_dst=offset + done
            )
        self.put(offset, data)

    # -- a mapping that is kept

    def map_anew(self) -> None:
        self.note("map", len(self.expected))
        self.kept = mmap.mmap(self.fd, len(self.expected)) if self.expected else None

    def kept_write(self) -> None:
        limit = self.mapped()
        if self.kept is not None and limit:
            offset = self.random.randrange(limit)
            data = self.data()[: limit - offset]
            self.note("write to the mapping", offset, len(data))
            self.kept[offset : offset + len(data)] = data
            self.put(offset, data)

    def kept_read(self) -> None:
        limit = self.mapped()
        if self.kept is not None and limit:
            offset, size = self.random.randrange(limit), self.random.randrange(LONGEST)
            size = min(size, limit - offset)
            self.note("read the mapping", offset, size)
            self.compare(self.kept[offset : offset + size], offset, size)

    def mapped(self) -> int:
        """How much of it is in the mapping and in the file: beyond is SIGBUS."""
        return min(len(self.kept), len(self.expected)) if self.kept is not None else 0

    # -- all of it

    def check_all(self) -> None:
        self.note("check")
        size = os.stat(self.path).st_size
        if size != len(self.expected) or os.fstat(self.fd).st_size != size:
            raise Difference(f"the size is {size}, not {len(self.expected)}")
        self.compare(self.path.read_bytes(), 0, size)

    # -- helpers

    def blocks(self) -> tuple[int, int]:
        """Place and length in whole pages."""
        last = LARGEST // mmap.PAGESIZE
        size = 1 + self.random.randrange(LONGEST // mmap.PAGESIZE)
        return self.random.randrange(last - size) * mmap.PAGESIZE, size * mmap.PAGESIZE

    def handle(self) -> int:
        return self.fd if self.random.random() < 0.7 else self.other

    def data(self) -> bytes:
        start = self.random.randrange(LARGEST)
        return self.noise[start : start + 1 + self.random.randrange(LONGEST)]

    def put(self, offset: int, data: bytes) -> None:
        if offset > len(self.expected):
            self.cut(offset)
        self.expected[offset : offset + len(data)] = data

    def cut(self, size: int) -> None:
        del self.expected[size:]
        self.expected.extend(bytes(size - len(self.expected)))

    def compare(self, got: bytes, offset: int, size: int) -> None:
        wanted = self.expected[offset : offset + size]
        if got != wanted:
            first = next(
                (i for i, (a, b) in enumerate(zip(got, wanted, strict=False)) if a != b),
                min(len(got), len(wanted)),
            )
            raise Difference(f"{len(got)} bytes for {len(wanted)}, differing from {offset + first}")

    def note(self, what: str, *numbers: int) -> None:
        self.log.append(f"{what} {' '.join(map(str, numbers))}")


def exercise(path: Path, count: int, seed: int) -> None:
    """Do `count` operations on a new file. Difference tells what was done last."""
    exerciser = Exerciser(path, seed)
    try:
        exerciser.run(count)
    except Difference as difference:
        raise Difference("\n".join([*exerciser.log, str(difference)])) from None
    finally:
        exerciser.end()


if __name__ == "__main__":
    operations, chosen = int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 1
    try:
        exercise(Path(sys.argv[1]), operations, chosen)
    except Difference as found:
        sys.exit(f"seed {chosen}: {found}")
    print(f"{operations:,} operations, seed {chosen}: clean")
