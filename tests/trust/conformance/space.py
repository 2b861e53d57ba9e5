"""Space, holes and copies inside the kernel: what each call does to content, size and blocks."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cases import (
    LIBC,
    Case,
    called,
    case,
    make,
)

KEEP, PUNCH, ZERO = 1, 3, 0x10
BLOCK = 4096


def allocate(fd: int, mode: int, offset: int, length: int) -> int:
    return called(LIBC.fallocate64, fd, mode, ctypes.c_int64(offset), ctypes.c_int64(length))


def copy(source: int, start: int | None, target: int, place: int | None, length: int,
         flags: int = 0) -> int:  # fmt: skip
    """copy_file_range(2) with all its arguments; the places it leaves behind are noted too."""
    places = [None if each is None else ctypes.c_int64(each) for each in (start, place)]
    first, second = (None if each is None else ctypes.byref(each) for each in places)
    LIBC.copy_file_range.restype = ctypes.c_ssize_t
    return called(LIBC.copy_file_range, source, first, target, second, ctypes.c_size_t(length),
                  ctypes.c_uint(flags))  # fmt: skip


def runs(path: str) -> list[tuple[int, int]]:
    """Content in short: which byte how often in a row."""
    data = Path(path).read_bytes()
    return [(found[0][0], len(found[0])) for found in re.finditer(rb"(.)\1*", data, re.DOTALL)]


@case
def holes_of_every_kind(c: Case) -> None:
    """Punched, zeroed and allocated: over data, a hole, the end, beyond; whole blocks and not."""
    whole = (0, 10 * BLOCK)
    ranges = (
        (BLOCK, BLOCK), (100, 50), (BLOCK - 10, 20), (10, 3 * BLOCK), (3 * BLOCK, 5 * BLOCK), whole
    )  # fmt: skip
    for name, mode in (("allocate", 0), ("keep", KEEP), ("punch", PUNCH), ("zero", ZERO),
                       ("zero and keep", ZERO | KEEP)):  # fmt: skip
        for offset, length in ranges:
            make("f", b"a" * (2 * BLOCK + 100))
            fd = os.open("f", os.O_RDWR)
            os.pwrite(fd, b"b" * BLOCK, 3 * BLOCK + 7)
            c.do(f"~{name} {offset} {length}", allocate, fd, mode, offset, length)
            c.do("?content", runs, "f")
            c.do("?blocks", lambda fd=fd: os.fstat(fd).st_blocks)
            os.ftruncate(fd, 5 * BLOCK)
            os.pwrite(fd, b"c", 5 * BLOCK)
            c.do("?longer", runs, "f")
            if (offset, length) == whole:
                with c.changes(f"?{name}", "f"):
                    c.do(f"~{name} again", allocate, fd, mode, offset, length)
            os.close(fd)
            os.unlink("f")


@case
def space_beyond_the_end(c: Case) -> None:
    """Kept without a size: it is there, shows nothing, and goes with the next cut."""
    make("f", b"x" * 10)
    fd = os.open("f", os.O_RDWR)
    c.do("~keep", allocate, fd, KEEP, 0, 20 * BLOCK)
    c.do("?size", os.fstat, fd)
    c.do("?blocks", lambda: os.fstat(fd).st_blocks)
    c.do("?read", os.pread, fd, 100, 0)
    os.pwrite(fd, b"y", 10 * BLOCK)
    c.do("content", runs, "f")
    os.ftruncate(fd, 5)
    c.do("?blocks when cut", lambda: os.fstat(fd).st_blocks)
    os.ftruncate(fd, 3 * BLOCK)
    c.do("longer", runs, "f")
    appender = os.open("f", os.O_WRONLY | os.O_APPEND)
    c.do("~keep by an appender", allocate, appender, KEEP, 0, 8 * BLOCK)
    c.do("append", os.write, appender, b"z")
    c.do("content", runs, "f")
    os.unlink("f")
    c.do("~without a name", allocate, fd, 0, 0, 9 * BLOCK)
    c.do("?size", lambda: os.fstat(fd).st_size)
    c.do("~punch without a name", allocate, fd, PUNCH, 0, BLOCK)
    for each in (fd, appender):
        os.close(each)


@case
def holes_that_are_looked_for(c: Case) -> None:
    """Whatever is told of holes, all data lie where data are told of, and the end is right."""
    fd = os.open("f", os.O_CREAT | os.O_RDWR)
    for block in (3, 9, 40):
        os.pwrite(fd, b"d" * BLOCK, block * BLOCK)
    os.ftruncate(fd, 100 * BLOCK)
    place, told = 0, set[int]()
    with contextlib.suppress(OSError):  # ENXIO: no more data
        while place < 100 * BLOCK:
            start = os.lseek(fd, place, os.SEEK_DATA)
            place = os.lseek(fd, start, os.SEEK_HOLE)
            told |= set(range(start // BLOCK, -(-place // BLOCK)))
    c.note("all are told of", {3, 9, 40} <= told)
    c.note("the end", os.lseek(fd, 99 * BLOCK, os.SEEK_HOLE) in (99 * BLOCK, 100 * BLOCK))
    for what, whence in (("data", os.SEEK_DATA), ("hole", os.SEEK_HOLE)):
        for offset in (100 * BLOCK, 1 << 40, -1):
            c.do(f"{what} at {offset}", os.lseek, fd, offset, whence)
    os.close(fd)


@case
def set_id_bits_and_space(c: Case) -> None:
    for mode in (0o6777, 0o2767, 0o4755):
        for name, call in (
            ("~keep", lambda fd: allocate(fd, KEEP, 0, 9000)),
            ("~punch", lambda fd: allocate(fd, PUNCH, 0, 3)),
            ("~zero", lambda fd: allocate(fd, ZERO, 0, 3)),
            ("splice", lambda fd: os.splice(filled(), fd, 2, offset_dst=0)),
            ("send", lambda fd: os.sendfile(fd, os.open("g", os.O_RDONLY), 0, 2)),
            ("writev", lambda fd: os.writev(fd, [b"1", b"2"])),
            ("nothing", lambda fd: os.write(fd, b"")),
            ("same length", lambda fd: os.ftruncate(fd, 4)),
            ("same length by name", lambda fd: os.truncate("f", 4)),
        ):  # fmt: skip
            make("f", b"1234", mode)
            if not os.path.exists("g"):
                make("g", b"from")
            fd = os.open("f", os.O_RDWR)
            c.do(f"{name} {mode:o}", call, fd)
            mark = "?" if name[0] == "~" else ""
            c.do(f"{mark}{name.strip('~')}: mode", lambda: oct(os.stat("f").st_mode))
            os.close(fd)
            os.unlink("f")


def filled(data: bytes = b"pipe") -> int:
    reading, writing = os.pipe()
    os.write(writing, data)
    os.close(writing)
    return reading


@case
def copies_of_every_kind(c: Case) -> None:
    make("f", b"".join(bytes([n]) * 1000 for n in range(1, 21)))
    make("g", b"g" * 100)
    make("long", b"")
    os.truncate("long", (1 << 32) + 10)
    names = {"f": os.O_RDWR, "g": os.O_RDWR, "long": os.O_RDWR}
    f, g, long = (os.open(name, flags) for name, flags in names.items())
    again, far = os.open("f", os.O_RDWR), os.open("far", os.O_CREAT | os.O_RDWR)
    calls: tuple[tuple[str, Callable[[], Any]], ...] = (
        ("nothing", lambda: copy(f, 0, g, 0, 0)), ("flags", lambda: copy(f, 0, g, 0, 10, 1)),
        ("at the end", lambda: copy(f, 20_000, g, 0, 10)),
        ("beyond", lambda: copy(f, 1 << 40, g, 0, 10)),
        ("across the end", lambda: copy(f, 19_500, g, 50, 5000)),
        ("into a hole", lambda: copy(f, 0, g, 10_000, 10)),
        ("backwards over itself", lambda: copy(f, 500, f, 0, 1000)),
        ("forwards over itself", lambda: copy(f, 0, again, 999, 1000)),
        ("just beside", lambda: copy(f, 0, again, 1000, 1000)),
        ("onto itself", lambda: copy(f, 0, again, 0, 1000)),
        ("to its own end", lambda: copy(f, 0, f, 20_000, 5000)),
        ("much more than there is", lambda: copy(g, 0, f, 100, (1 << 63) - 1)),
        ("negative source", lambda: copy(f, -1, g, 0, 10)),
        ("negative target", lambda: copy(f, 0, g, -1, 10)),
        ("source too far", lambda: copy(f, (1 << 63) - 5, g, 0, 10)),
        ("target too far", lambda: copy(f, 0, far, (1 << 63) - 5, 10)),
        ("last byte of 4 GiB", lambda: copy(long, (1 << 32) - 5, g, 0, 15)),
        ("closed", lambda: copy(f, 0, 99_999, 0, 10)),
        ("by its own place", lambda: (os.lseek(f, 3000, 0), copy(f, None, g, 0, 10))),
        ("and that moved", lambda: os.lseek(f, 0, os.SEEK_CUR)),
        ("target's own place", lambda: (os.lseek(g, 50, 0), copy(f, 0, g, None, 10))),
        ("and that moved too", lambda: os.lseek(g, 0, os.SEEK_CUR)),
    )  # fmt: skip
    watched = {"nothing", "at the end", "across the end", "backwards over itself"}
    for what, call in calls:
        with c.changes(what, "f", "g") if what in watched else contextlib.nullcontext():
            c.do(what, call)
        c.do("f", runs, "f")
        c.do("g", runs, "g")
    os.unlink("f")
    c.do("source without a name", copy, f, 0, g, 0, 500)
    c.do("g", runs, "g")
    os.unlink("g")
    c.do("both without", copy, f, 5000, g, 0, 500)
    c.do("read", os.pread, g, 3, 0)
    for each in (f, g, long, again, far):
        os.close(each)


@case
def pipes_that_hold_pages(c: Case) -> None:
    """What a pipe took from a file is the pipe's: writing behind it does not change the file."""
    make("f", b"0123456789" * 1000)
    fd = os.open("f", os.O_RDWR)
    reading, writing = os.pipe()
    os.splice(fd, writing, 1, offset_src=4)
    os.write(writing, b"pipe")
    c.do("the file", os.pread, fd, 10, 0)
    c.do("the pipe", os.read, reading, 10)
    os.splice(fd, writing, 5000, offset_src=0)
    os.pwrite(fd, b"later", 0)
    c.note("how much", len(os.read(reading, 9000)))
    for size in (1, 4096, 65_536, 200_000):
        moved = os.splice(fd, writing, size, offset_src=0)
        c.note(f"splice {size}", moved)
        c.note("to a file", os.splice(reading, os.open("g", os.O_CREAT | os.O_RDWR), moved))
    c.do("place", os.lseek, fd, 0, os.SEEK_CUR)
    c.do("from its own place", os.splice, fd, writing, 10)
    c.do("place", os.lseek, fd, 0, os.SEEK_CUR)
    c.do("that", os.read, reading, 20)
    appender = os.open("g", os.O_WRONLY | os.O_APPEND)
    os.write(writing, b"end")
    c.do("to append", os.splice, reading, appender, 3)
    c.do("the end", lambda: Path("g").read_bytes()[-3:])
    for each in (fd, reading, writing, appender):
        os.close(each)
