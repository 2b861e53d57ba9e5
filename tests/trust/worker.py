"""One of several processes in the same folders, each of which knows what is its own.

`python worker.py FOLDER SECONDS SEED NUMBER` does random things to names that no other process
uses, to its part of a file that all write to, to a journal that all append to, and to a counter
behind a lock. What a call answers and what is there must be what it remembers, to the errno. It
prints as JSON what it did, what was wrong, and what must be there in the end.

The file that all write to keeps its length: while one makes a file longer, another's mapping of
its last page may cost what is written there. That is the kernel's (6.18), whatever FUSE serves: to
write back that page it clears all behind the end that it knows of yet.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import mmap
import os
import random
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

FOLDERS = ("one", "two", "two/three")
NAMES = 4  # of each process in each folder
PART = 5000  # bytes of the shared file that are one process's: pages belong to two
PROCESSES = 4
RECORD = "%03d %07d\n"  # of the journal: process, number


class Wrong(Exception):
    """Not what this process knows."""


class Worker:
    """content: of its files by path; None: a folder."""

    def __init__(self, seed: int, number: int) -> None:
        self.dice = random.Random(seed)
        self.number = number
        self.content: dict[str, bytes | None] = {}
        self.times: dict[str, int] = {}
        self.open: dict[int, bytearray] = {}  # files without a name
        self.part = bytearray(PART)
        self.records = self.counted = self.done = 0
        self.shared = os.open("shared", os.O_RDWR)
        self.journal = os.open("journal", os.O_WRONLY | os.O_APPEND)
        self.counter = os.open("counter", os.O_RDWR)
        self.operations: list[Callable[[], None]] = [
            *[self.save] * 4, *[self.append] * 2, self.cut, *[self.rename] * 3, *[self.unlink] * 2,
            self.forget, self.mkdir, self.rmdir, self.look, self.list, self.touch,
            *[self.write_part] * 2, *[self.map_part] * 2, self.read_part, self.reopen, self.record,
            self.count,
        ]  # fmt: skip

    def run(self, until: float) -> list[str]:
        try:
            while time.monotonic() < until:
                self.dice.choice(self.operations)()
                self.done += 1
            for path in self.content:
                self.check(path)
        except (Wrong, OSError) as error:
            return [f"process {self.number}, operation {self.done}: {error!r}"]
        finally:
            for fd in (*self.open, self.shared, self.journal, self.counter):
                os.close(fd)
        return []

    def answers(self, right: int, call: Callable[..., Any], *args: Any) -> bool:
        """Whether the call did what it should; it must answer with this errno, 0 for none."""
        try:
            call(*args)
            found = 0
        except OSError as error:
            found = error.errno or 0
        if found != right:
            names = [errno.errorcode.get(each, "no error") for each in (found, right)]
            raise Wrong(f"{call.__name__}{args[:2]!r}: {names[0]} instead of {names[1]}")
        return not right

    # -- names

    @property
    def path(self) -> str:
        name = f"{self.number}-{self.dice.randrange(NAMES)}"
        return f"{self.dice.choice(FOLDERS)}/{name}"

    @property
    def file(self) -> str | None:
        files = [path for path, content in self.content.items() if content is not None]
        return self.dice.choice(files) if files else None

    @property
    def data(self) -> bytes:
        return bytes([self.dice.randrange(1, 256)]) * self.dice.choice((0, 1, 100, 4096, 9000))

    def check(self, path: str) -> None:
        content = self.content[path]
        found = os.stat(path)
        if content is None:
            if os.listdir(path):
                raise Wrong(f"{path} is not empty")
            return
        with open(path, "rb") as file:
            got = file.read()
        if got != content or found.st_size != len(content):
            raise Wrong(f"{path}: {len(got)}, {found.st_size} bytes, not {len(content)}")
        if path in self.times and found.st_mtime_ns != self.times[path]:
            raise Wrong(f"{path}: changed at {found.st_mtime_ns}, not {self.times[path]}")

    def save(self) -> None:
        path, data = self.path, self.data

        def saved(path: str) -> None:
            with open(path, "wb") as file:
                file.write(data)

        is_folder = path in self.content and self.content[path] is None
        if self.answers(errno.EISDIR if is_folder else 0, saved, path):
            self.content[path] = data
            self.times.pop(path, None)

    def append(self) -> None:
        if (path := self.file) is not None:
            data = self.data
            with open(path, "ab") as file:
                file.write(data)
            self.content[path] = (self.content[path] or b"") + data
            if data:
                self.times.pop(path, None)

    def cut(self) -> None:
        if (path := self.file) is not None:
            size = self.dice.randrange(10_000)
            os.truncate(path, size)
            old = self.content[path] or b""
            self.content[path] = old[:size].ljust(size, b"\0")
            self.times.pop(path, None)
            self.check(path)

    def rename(self) -> None:
        old, new = self.path, self.path
        right = 0
        if old not in self.content:
            right = errno.ENOENT
        elif old != new and new in self.content:
            kinds = self.content[old] is None, self.content[new] is None
            right = {(True, False): errno.ENOTDIR, (False, True): errno.EISDIR}.get(kinds, 0)
        if self.answers(right, os.rename, old, new) and old != new:
            self.content[new] = self.content.pop(old)
            self.times.pop(new, None)
            if old in self.times:
                self.times[new] = self.times.pop(old)

    def unlink(self) -> None:
        path = self.path
        right = 0 if self.content.get(path) is not None else errno.ENOENT
        if path in self.content and self.content[path] is None:
            right = errno.EISDIR
        if self.answers(right, os.unlink, path):
            self.content.pop(path)
            self.times.pop(path, None)

    def forget(self) -> None:
        """A file is open when its name goes; sometimes one of those is looked at and closed."""
        if (path := self.file) is not None and len(self.open) < 3:
            fd = os.open(path, os.O_RDWR)
            os.unlink(path)
            self.open[fd] = bytearray(self.content.pop(path) or b"")
            self.times.pop(path, None)
            self.open[fd][:3] = b"now"
            os.pwrite(fd, b"now", 0)
        elif self.open:
            fd, content = self.open.popitem()
            found, links = os.pread(fd, 1 << 20, 0), os.fstat(fd).st_nlink
            os.close(fd)
            if found != content or links:
                raise Wrong(f"without a name: {len(found)} bytes for {len(content)}, {links} links")

    def mkdir(self) -> None:
        path = self.path
        if self.answers(errno.EEXIST if path in self.content else 0, os.mkdir, path):
            self.content[path] = None

    def rmdir(self) -> None:
        path = self.path
        right = 0 if path in self.content else errno.ENOENT
        if self.content.get(path) is not None:
            right = errno.ENOTDIR
        if self.answers(right, os.rmdir, path):
            self.content.pop(path)

    def look(self) -> None:
        path = self.path
        if self.answers(0 if path in self.content else errno.ENOENT, os.stat, path):
            self.check(path)

    def list(self) -> None:
        folder = self.dice.choice(FOLDERS)
        mine = f"{self.number}-"
        found = sorted(name for name in os.listdir(folder) if name.startswith(mine))
        there = [path.rpartition("/") for path in self.content]
        right = sorted(name for above, _, name in there if above == folder)
        if found != right:
            raise Wrong(f"{folder} has {found}, not {right}")

    def touch(self) -> None:
        if (path := self.file) is not None:
            self.times[path] = when = self.dice.randrange(1 << 60)
            os.utime(path, ns=(when, when))

    # -- what is shared

    def _piece(self) -> tuple[int, bytes]:
        start = self.dice.randrange(PART)
        return start, self.dice.randbytes(self.dice.randrange(1, PART - start + 1))

    def write_part(self) -> None:
        start, data = self._piece()
        os.pwrite(self.shared, data, self.number * PART + start)
        self.part[start : start + len(data)] = data

    def map_part(self) -> None:
        start, data = self._piece()
        place = self.number * PART + start
        with mmap.mmap(self.shared, PROCESSES * PART) as mapping:
            mapping[place : place + len(data)] = data
            if self.dice.random() < 0.3:
                mapping.flush()
        self.part[start : start + len(data)] = data

    def read_part(self) -> None:
        if self.dice.random() < 0.5:
            found = os.pread(self.shared, PART, self.number * PART)
        else:
            with mmap.mmap(self.shared, PROCESSES * PART, prot=mmap.PROT_READ) as mapping:
                found = mapping[self.number * PART : (self.number + 1) * PART]
        if found != self.part:
            first = next(n for n in range(PART) if found[n : n + 1] != self.part[n : n + 1])
            raise Wrong(f"its part of the shared file, from {first}")

    def reopen(self) -> None:
        old, self.shared = self.shared, os.open("shared", os.O_RDWR)
        os.close(old)

    def record(self) -> None:
        os.write(self.journal, (RECORD % (self.number, self.records)).encode())
        self.records += 1

    def count(self) -> None:
        with self._locked():
            before = int(os.pread(self.counter, 20, 0) or b"0")
            os.pwrite(self.counter, b"%d" % (before + 1), 0)
        self.counted += 1

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        fcntl.flock(self.counter, fcntl.LOCK_EX)
        yield
        fcntl.flock(self.counter, fcntl.LOCK_UN)


def main(folder: str, seconds: float, seed: int, number: int) -> None:
    os.chdir(folder)
    worker = Worker(seed, number)
    wrong = worker.run(time.monotonic() + seconds)
    json.dump({
        "operations": worker.done, "wrong": wrong, "records": worker.records,
        "counted": worker.counted, "part": hashlib.sha256(worker.part).hexdigest(),
        "files": {path: None if content is None else hashlib.sha256(content).hexdigest()
                  for path, content in worker.content.items()},
    }, sys.stdout)  # fmt: skip


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
