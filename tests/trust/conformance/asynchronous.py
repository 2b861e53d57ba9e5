"""Requests that are handed over and answered later: aio(7)'s kernel calls and io_uring(7)."""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
import struct
from collections.abc import Callable
from typing import Any

from cases import (
    LIBC,
    Case,
    called,
    case,
    make,
)

#: io_setup, io_destroy, io_getevents, io_submit
NUMBERS = {"x86_64": (206, 207, 208, 209), "aarch64": (0, 1, 4, 2)}
READ, WRITE, SYNC = 0, 1, 2  # <linux/aio_abi.h>


def room(size: int) -> tuple[mmap.mmap, int]:
    """Memory as direct transfers need it, and its address."""
    space = mmap.mmap(-1, size)
    return space, ctypes.addressof(ctypes.c_char.from_buffer(space))


class Context:
    """A queue of requests. `ask` gives their answers, in the order in which they were asked."""

    def __init__(self) -> None:
        self.setup, self.destroy, self.wait, self.submit = NUMBERS[platform.machine()]
        self.number = ctypes.c_ulong()
        called(LIBC.syscall, self.setup, 64, ctypes.byref(self.number))

    def ask(self, *requests: tuple[int, int, int, int, int]) -> list[int]:
        """requests: (kind, descriptor, address, length, place)."""
        blocks = [
            ctypes.create_string_buffer(struct.pack(
                "<QIIHhIQQqQII", number, 0, 0, kind, 0, fd, address, length, place, 0, 0, 0), 64)
            for number, (kind, fd, address, length, place) in enumerate(requests)
        ]  # fmt: skip
        pointers = (ctypes.c_void_p * len(blocks))(*map(ctypes.addressof, blocks))
        called(LIBC.syscall, self.submit, self.number, ctypes.c_long(len(blocks)), pointers)
        events = ctypes.create_string_buffer(32 * len(blocks))
        count = ctypes.c_long(len(blocks))
        called(LIBC.syscall, self.wait, self.number, count, count, events, None)
        answers = {number: result for number, _, result, _ in struct.iter_unpack("<QQqq", events)}
        return [answers[number] for number in range(len(requests))]

    def close(self) -> None:
        LIBC.syscall(self.destroy, self.number)


@case
def asynchronous(c: Case) -> None:
    if platform.machine() not in NUMBERS:
        return
    space, address = room(1 << 16)
    queue = Context()
    for name, flags in (("buffered", 0), ("~direct", os.O_DIRECT)):
        space[:] = bytes(range(256)) * 256
        fd = c.opened(name, "f", os.O_CREAT | os.O_RDWR | flags)
        if fd < 0:
            continue
        c.do("write", queue.ask, *(
            (WRITE, fd, address + 8192 * n, 8192, 8192 * (7 - n)) for n in range(8)))  # fmt: skip
        c.do("size", os.fstat, fd)
        space[:] = bytes(1 << 16)
        c.do("read", queue.ask, *(
            (READ, fd, address + 4096 * n, 4096, 4096 * n) for n in range(16)))  # fmt: skip
        c.note("read as written", bytes(space) == bytes(range(256)) * 256)
        c.do("read at the end", queue.ask, (READ, fd, address, 4096, 1 << 16))
        c.do("sync", queue.ask, (SYNC, fd, 0, 0, 0))
        c.do("longer", queue.ask, (WRITE, fd, address, 4096, (1 << 16) + 8192))
        c.do("size", os.fstat, fd)
        c.do("the hole", queue.ask, (READ, fd, address, 4096, 1 << 16))
        c.note("is zeros", any(space[:4096]))
        c.do("negative", queue.ask, (READ, fd, address, 4096, -1))
        os.close(fd)
        os.unlink("f")
    fd = os.open(make("f", b"x"), os.O_RDONLY)
    c.do("write to read-only", queue.ask, (WRITE, fd, address, 4096, 0))
    os.close(fd)
    queue.close()


class Ring:
    """An io_uring of 64 entries. OSError where the system has none, or does not give it."""

    # <linux/io_uring.h>
    READ, WRITE, SYNC, ALLOCATE, OPEN, CLOSE, RENAME, UNLINK, MKDIR, TRUNCATE = (
        22, 23, 3, 17, 18, 19, 35, 36, 37, 55,
    )  # fmt: skip
    LINKED, ASYNC = 4, 16

    def __init__(self) -> None:
        parameters = ctypes.create_string_buffer(120)
        self.fd = called(LIBC.syscall, 425, 64, parameters)
        found = struct.unpack("<30I", parameters.raw)
        self.tail, self.mask, _, _, _, self.array = found[11:17]
        self.done_head, self.done_tail, self.done_mask, _, _, self.events = found[20:26]
        size = max(self.array + 4 * found[0], self.events + 16 * found[1])
        self.ring = mmap.mmap(self.fd, size, mmap.MAP_SHARED | mmap.MAP_POPULATE, offset=0)
        self.entries = mmap.mmap(self.fd, 64 * found[0], mmap.MAP_SHARED, offset=0x10000000)

    def number(self, place: int) -> int:
        return int(struct.unpack_from("<I", self.ring, place)[0])

    def ask(self, *requests: tuple[int, ...]) -> list[int]:
        """The answers to (flags, kind, descriptor, place, address, length, more), in order."""
        for index, (flags, kind, fd, place, address, length, more) in enumerate(requests):
            tail = self.number(self.tail)
            slot = tail & self.number(self.mask)
            struct.pack_into("<BBHiQQIIQ24x", self.entries, 64 * slot, kind, flags, 0, fd,
                             place, address, length, more, index)  # fmt: skip
            struct.pack_into("<I", self.ring, self.array + 4 * slot, slot)
            struct.pack_into("<I", self.ring, self.tail, tail + 1)
        count = len(requests)
        called(LIBC.syscall, 426, self.fd, count, count, 1, None, 0)
        answers = {}
        while (head := self.number(self.done_head)) != self.number(self.done_tail):
            slot = head & self.number(self.done_mask)
            index, answer, _ = struct.unpack_from("<QiI", self.ring, self.events + 16 * slot)
            answers[index] = answer
            struct.pack_into("<I", self.ring, self.done_head, head + 1)
        return [answers[index] for index in range(count)]

    def close(self) -> None:
        self.ring.close()
        self.entries.close()
        os.close(self.fd)


def _ring(c: Case) -> Ring | None:
    made: list[Ring] = []
    c.do("a ring=", lambda: made.append(Ring()))
    return made[0] if made else None


@case
def content_by_a_ring(c: Case) -> None:
    ring = _ring(c)
    if ring is None:
        return
    space, address = room(1 << 16)
    for name, flags, how in (
        ("buffered", 0, 0), ("by a thread", 0, Ring.ASYNC), ("~direct", os.O_DIRECT, 0),
        ("append", os.O_APPEND, 0),
    ):  # fmt: skip
        space[:] = bytes(range(256)) * 256
        fd = c.opened(name, "f", os.O_CREAT | os.O_RDWR | flags)
        if fd < 0:
            continue
        order = (3, 0, 2, 1) if not flags & os.O_APPEND else (0, 1, 2, 3)
        link = Ring.LINKED if flags & os.O_APPEND else 0
        c.do("write", ring.ask, *(
            (how | link * (n != order[-1]), Ring.WRITE, fd, 16384 * n, address + 16384 * n, 16384,
             0) for n in order))  # fmt: skip
        c.do("size", os.fstat, fd)
        space[:] = bytes(1 << 16)
        c.do("read", ring.ask, *((how, Ring.READ, fd, 4096 * n, address + 4096 * n, 4096, 0)
                                 for n in range(16)))  # fmt: skip
        c.note("read as written", bytes(space) == bytes(range(256)) * 256)
        c.do("write, sync, read", ring.ask, (Ring.LINKED, Ring.WRITE, fd, 0, address, 4096, 0),
             (Ring.LINKED, Ring.SYNC, fd, 0, 0, 0, 0),
             (0, Ring.READ, fd, 0, address, 4096, 0))  # fmt: skip
        c.do("at the end", ring.ask, (how, Ring.READ, fd, 1 << 17, address, 4096, 0))
        os.close(fd)
        os.unlink("f")
    ring.close()


@case
def names_by_a_ring(c: Case) -> None:
    ring = _ring(c)
    if ring is None:
        return
    here = -100 & 0xFFFFFFFF
    kept: list[Any] = []

    def name(text: bytes) -> int:
        kept.append(ctypes.create_string_buffer(text))
        return ctypes.addressof(kept[-1])

    def one(kind: int, path: bytes, length: int = 0, second: bytes = b"", more: int = 0) -> Any:
        place = name(second) if second else 0

        def ask() -> bool:
            (answer,) = ring.ask((0, kind, -100, place, name(path), length, more))
            if answer < 0:
                raise OSError(-answer, os.strerror(-answer))
            return answer > 0  # a descriptor

        return ask

    create = os.O_CREAT | os.O_RDWR | os.O_EXCL
    calls: tuple[tuple[str, Callable[[], Any]], ...] = (
        ("mkdir", one(Ring.MKDIR, b"d", 0o755)), ("mkdir again", one(Ring.MKDIR, b"d", 0o755)),
        ("rename", one(Ring.RENAME, b"f", here, b"d/g")),
        ("rename what is gone", one(Ring.RENAME, b"f", here, b"d/g")),
        ("~exchange", one(Ring.RENAME, b"new", here, b"d/g", 2)),
        ("unlink", one(Ring.UNLINK, b"d/g")), ("unlink again", one(Ring.UNLINK, b"d/g")),
        ("rmdir", one(Ring.UNLINK, b"d", 0, b"", 0x200)),
        ("create over it", one(Ring.OPEN, b"new", 0o644, b"", create)),
        ("create", one(Ring.OPEN, b"created", 0o644, b"", create)),
    )  # fmt: skip
    make("f", b"f")
    make("new", b"new")
    for what, call in calls:
        c.do(what, call)
        c.do("?left", lambda: sorted(os.listdir(".")))
    fd = os.open(make("h", b"0123456789"), os.O_RDWR)
    c.do("cut", ring.ask, (0, Ring.TRUNCATE, fd, 4, 0, 0, 0))
    c.do("size", os.fstat, fd)
    c.do("allocate", ring.ask, (0, Ring.ALLOCATE, fd, 0, 5000, 0, 0))
    c.do("size", os.fstat, fd)
    os.close(fd)
    ring.close()
