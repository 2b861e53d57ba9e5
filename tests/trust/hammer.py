"""Many threads, a few names, every operation: what one does is in the way of all others.

`python hammer.py FOLDER SECONDS SEED THREADS` prints how many operations it did, and each answer
that no file system should give. Which of two comes first is nobody's business; what is left when
all are done is the caller's to compare.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import mmap
import os
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

FOLDERS = ("d", "d/e", "x")
NAMES = ("a.py", "b.py", "c.txt")
PATHS = (*NAMES, *(f"{folder}/{name}" for folder in FOLDERS for name in NAMES))
LINE = b"print(12345678)\n"  # as many as you like, wherever they begin, are a script
LINES = 40
HANDLES = 6  # of each thread

#: What another thread's doing is a good reason for.
EXPECTED = {
    errno.ENOENT, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENOTEMPTY, errno.EINVAL,
}  # fmt: skip

#: libfuse 3's answer for a file whose name went between looking it up and using it. The kernel
#: looks it up again, once; twice in a row, which is seldom, is the caller's to count.
STALE = {f"{operation} ESTALE" for operation in ("open", "cut_path", "look", "times", "mode")}

LIBC = ctypes.CDLL(None, use_errno=True)


class Worker:
    """One thread's handles and dice. root: a descriptor of the folder."""

    def __init__(self, root: int, seed: int) -> None:
        self.root = root
        self.dice = random.Random(seed)
        self.handles: list[int] = []
        self.done = 0
        self.answers: Counter[str] = Counter()
        self.unexpected: list[str] = []
        self.operations: list[Callable[[], Any]] = [
            *[self.open] * 6, *[self.write] * 8, *[self.close] * 4, *[self.unlink] * 3,
            *[self.rename] * 4, self.exchange, self.rename_folder, self.mkdir, self.mkdir,
            self.rmdir, self.read, self.cut, self.cut_path, self.sync, self.map, self.look,
            self.list, self.times, self.mode, self.control,
        ]  # fmt: skip

    def run(self, until: float) -> None:
        while time.monotonic() < until:
            operation = self.dice.choice(self.operations)
            try:
                operation()
            except OSError as error:
                answer = f"{operation.__name__} {errno.errorcode[error.errno or 0]}"
                self.answers[answer] += 1
                if error.errno not in EXPECTED and answer not in STALE:
                    self.unexpected.append(f"{operation.__name__}: {error}")
            else:
                self.answers[f"{operation.__name__} ok"] += 1
            self.done += 1
        for handle in self.handles:
            os.close(handle)

    # -- names

    @property
    def path(self) -> str:
        return self.dice.choice(PATHS)

    @property
    def folder(self) -> str:
        return self.dice.choice(FOLDERS)

    def open(self) -> None:
        if len(self.handles) >= HANDLES:
            return
        flags = self.dice.choice((os.O_RDONLY, os.O_RDWR, os.O_RDWR, os.O_WRONLY))
        for flag, chance in ((os.O_CREAT, 0.8), (os.O_TRUNC, 0.3), (os.O_EXCL, 0.1),
                             (os.O_APPEND, 0.2), (os.O_NOFOLLOW, 0.2)):  # fmt: skip
            flags |= flag * (self.dice.random() < chance)
        if not flags & os.O_CREAT:
            flags &= ~os.O_EXCL
        self.handles.append(os.open(self.path, flags, 0o644, dir_fd=self.root))

    def unlink(self) -> None:
        os.unlink(self.path, dir_fd=self.root)

    def rename(self) -> None:
        os.rename(self.path, self.path, src_dir_fd=self.root, dst_dir_fd=self.root)

    def exchange(self) -> None:
        one, other = self.path.encode(), self.path.encode()
        if LIBC.renameat2(self.root, one, self.root, other, ctypes.c_uint(2)) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))

    def rename_folder(self) -> None:
        old, new = self.folder, self.folder
        if new == "d/e" and os.access(f"{old}/e", os.F_OK, dir_fd=self.root):
            return  # or the tree would grow ever deeper
        os.rename(old, new, src_dir_fd=self.root, dst_dir_fd=self.root)

    def mkdir(self) -> None:
        os.mkdir(self.folder, dir_fd=self.root)

    def rmdir(self) -> None:
        os.rmdir(self.folder, dir_fd=self.root)

    def cut_path(self) -> None:
        place = f"/proc/self/fd/{self.root}/{self.path}"
        os.truncate(place, self.dice.randrange(LINES) * len(LINE))

    def look(self) -> None:
        os.stat(self.path, dir_fd=self.root)

    def list(self) -> None:
        fd = os.open(self.dice.choice((*FOLDERS, ".")), os.O_RDONLY, dir_fd=self.root)
        try:
            for name in os.listdir(fd):
                assert not name.startswith(".fuse_hidden"), name
            os.fsync(fd)
        except OSError as error:
            if error.errno != errno.ESTALE:  # removed since: libfuse knows no path to it
                raise
        finally:
            os.close(fd)

    def times(self) -> None:
        os.utime(self.path, dir_fd=self.root)

    def mode(self) -> None:
        os.chmod(self.path, self.dice.choice((0o600, 0o644, 0o755)), dir_fd=self.root)

    def control(self) -> None:
        if self.dice.random() < 0.9 or not os.access(".romfs", os.F_OK, dir_fd=self.root):
            return  # a status looks at everything
        name = self.dice.choice(("status", "writers", "shadow"))
        fd = os.open(f".romfs/{name}", os.O_RDONLY, dir_fd=self.root)
        try:
            _ = os.listdir(fd) if name == "shadow" else os.read(fd, 1 << 16)
        finally:
            os.close(fd)

    # -- open files

    @property
    def handle(self) -> int:
        if not self.handles:
            raise FileNotFoundError(errno.ENOENT, "nothing open")
        return self.dice.choice(self.handles)

    def close(self) -> None:
        handle = self.handle
        self.handles.remove(handle)
        os.close(handle)

    def _quietly(self, call: Callable[..., Any], *args: Any) -> None:
        try:
            call(*args)
        except OSError as error:
            if error.errno not in (errno.EBADF, errno.EINVAL):  # not opened for that
                raise

    def write(self) -> None:
        place = self.dice.randrange(LINES) * len(LINE)
        self._quietly(os.pwrite, self.handle, LINE * self.dice.randrange(1, 4), place)

    def read(self) -> None:
        self._quietly(os.pread, self.handle, 1 << 14, 0)

    def cut(self) -> None:
        self._quietly(os.ftruncate, self.handle, self.dice.randrange(LINES) * len(LINE))

    def sync(self) -> None:
        os.fsync(self.handle)

    def map(self) -> None:
        # Only looked at, and only its first page: who cuts off a file under a mapping gets SIGBUS.
        with contextlib.suppress(ValueError, PermissionError):  # an empty file, not for reading
            mmap.mmap(self.handle, 1, prot=mmap.PROT_READ).close()


def main(folder: str, seconds: float, seed: int, threads: int) -> None:
    root = os.open(folder, os.O_RDONLY)
    workers = [Worker(root, seed * 1000 + number) for number in range(threads)]
    until = time.monotonic() + seconds
    running = [threading.Thread(target=worker.run, args=(until,)) for worker in workers]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    os.close(root)
    answers: Counter[str] = sum((worker.answers for worker in workers), Counter())
    json.dump({
        "operations": sum(worker.done for worker in workers),
        "answers": dict(sorted(answers.items())),
        "unexpected": [line for worker in workers for line in worker.unexpected][:20],
    }, sys.stdout)  # fmt: skip


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
