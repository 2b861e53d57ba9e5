"""Mappings: what lies beyond the end, what handles see of them, and several at once."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from cases import (
    LIBC,
    Case,
    called,
    case,
    make,
)
from sharing import elsewhere

PAGE = mmap.PAGESIZE
LIBC.mmap64.restype = ctypes.c_void_p


@contextlib.contextmanager
def mapped(fd: int, length: int) -> Iterator[memoryview]:
    """A shared mapping to read and write; Python's own looks at the file's size first."""
    address = LIBC.mmap64(
        None, ctypes.c_size_t(length), mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED, fd,
        ctypes.c_int64(0),
    )  # fmt: skip
    if address == ctypes.c_void_p(-1).value:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    try:
        yield memoryview((ctypes.c_char * length).from_address(address)).cast("B")
    finally:
        LIBC.munmap(ctypes.c_void_p(address), ctypes.c_size_t(length))


def synced(view: memoryview) -> int:
    address = ctypes.addressof(ctypes.c_char.from_buffer(view))
    return int(LIBC.msync(ctypes.c_void_p(address), ctypes.c_size_t(len(view)), 4))  # MS_SYNC


#: Ways to make a file longer than the page that its end is in.
LONGER: dict[str, Callable[[int], object]] = {
    "ftruncate": lambda fd: os.ftruncate(fd, 3 * PAGE),
    "write beyond": lambda fd: os.pwrite(fd, b"end", 3 * PAGE - 3),
    "write in the page": lambda fd: os.pwrite(fd, b"end", PAGE - 3),
    "allocate": lambda fd: os.posix_fallocate(fd, 0, 3 * PAGE),
    "truncate": lambda fd: os.truncate("f", 3 * PAGE),
}


@case
def beyond_the_end_in_a_mapping(c: Case) -> None:
    """A page reaches further than the file: that is zeros, and what is put there is no content.

    What becomes of it when the file gets longer is not asked here, as a file system in memory
    shows it again; `fsx.py` knows what is right.
    """
    for name, longer in LONGER.items():
        make("f", b"x" * 100)
        fd = os.open("f", os.O_RDWR)
        with mapped(fd, 2 * PAGE) as view:
            c.note("zeros", any(view[100:PAGE]))
            view[50:52] = b"yy"
            view[200:204] = b"tail"
            c.do("size", os.fstat, fd)
            c.do("read", os.pread, fd, PAGE, 98)
            c.note("msync", synced(view[:PAGE]))
            c.do("size", os.fstat, fd)
            c.do("content", lambda: Path("f").read_bytes().count(b"y"))
            view[200:204] = bytes(4)
            # Nothing is left for the kernel to write back by itself (a sync(2) by anybody): Linux
            # 6.18 clears what lies behind the old end then, a write on its way there included.
            synced(view[:PAGE])
            c.do(name, longer, fd)
            c.do("size", os.fstat, fd)
            c.note("the mapping", any(view[100 : PAGE - 3]))
            c.note("its end", bytes(view[PAGE - 3 : PAGE]).hex())
            c.do("read", os.pread, fd, 10, 2 * PAGE - 3)
        os.close(fd)
        os.unlink("f")


@case
def a_mapping_and_what_is_done_beside_it(c: Case) -> None:
    make("f", b"a" * 3 * PAGE)
    fd, other = os.open("f", os.O_RDWR), os.open("f", os.O_RDWR)
    with mapped(fd, 3 * PAGE) as view:

        def see(what: str) -> None:
            places = (0, PAGE, 2 * PAGE)
            c.note(what, [bytes(view[n : n + 2]).hex() for n in places])
            c.note("read", [os.pread(other, 2, n).hex() for n in places])

        view[PAGE : PAGE + 2] = b"mm"
        see("by the mapping")
        os.pwrite(other, b"ww", 0)
        see("by another handle")
        os.close(os.open("f", os.O_WRONLY | os.O_TRUNC))
        c.do("cut by opening: first page", elsewhere, lambda: view[0])
        os.pwrite(other, b"nn" * PAGE + b"oo" * PAGE, 0)
        see("written anew")
        os.ftruncate(other, PAGE)
        os.ftruncate(other, 3 * PAGE)
        see("cut and longer")
        make("g", b"g" * 3 * PAGE)
        os.rename("g", "f")
        view[0:2] = b"rr"
        see("without a name")
        c.do("the new one", lambda: Path("f").read_bytes()[:2])
        os.close(other)
        other = os.open(f"/proc/self/fd/{fd}", os.O_RDWR)
        os.close(fd)
        view[2 * PAGE : 2 * PAGE + 2] = b"zz"
        see("its descriptor closed")
    c.do("and unmapped", os.pread, other, 2, 2 * PAGE)
    os.close(other)


@case
def times_of_mappings(c: Case) -> None:
    for name, end in (("msync", "msync"), ("unmapped", "unmap"), ("closed", "close")):
        make("f", b"x" * PAGE)
        fd = os.open("f", os.O_RDWR)
        with c.changes(name, "f"):
            with mapped(fd, PAGE) as view:
                view[5] = 5
                if end == "msync":
                    synced(view)
            if end == "close":
                os.close(fd)
        if end != "close":
            os.close(fd)
        c.do("blocks", lambda: os.stat("f").st_blocks)
        os.unlink("f")
    make("f", b"x" * PAGE)
    fd = os.open("f", os.O_RDWR)
    with mapped(fd, PAGE) as view:
        view[5] = 5
        synced(view)
        os.utime("f", ns=(1, 2))
        # With nothing to be written back: that may set the times whenever the kernel likes.
        with c.changes("reading a mapping", "f"):
            c.note("read", view[6])
    os.close(fd)


@case
def pages_of_many_processes(c: Case) -> None:
    """Each has its own bytes of each page of a hole: half write to a mapping, half to the file."""
    pages, processes = 20, 4
    fd = os.open("f", os.O_CREAT | os.O_RDWR)
    os.ftruncate(fd, pages * PAGE)
    children = []
    for number in range(processes):
        child = os.fork()
        if child == 0:
            mine = bytes([number + 1]) * 8
            with mapped(fd, pages * PAGE) as view:
                for page in range(pages):
                    place = page * PAGE + number * 8
                    if number % 2:
                        view[place : place + 8] = mine
                    else:
                        os.pwrite(fd, mine, place)
            os._exit(0)
        children.append(child)
    c.note("ended", [os.waitpid(child, 0)[1] for child in children])
    right = b"".join(bytes([number + 1]) * 8 for number in range(processes))
    c.note("right", [os.pread(fd, 64, n * PAGE) == right.ljust(64, b"\0")
                     for n in range(pages)].count(True))  # fmt: skip
    c.do("blocks", lambda: os.fstat(fd).st_blocks)
    os.close(fd)


@case
def cut_and_mapped_at_once(c: Case) -> None:
    """One process makes a file shorter and longer, one reads and writes it through a mapping."""
    pages = 8
    fd = os.open("f", os.O_CREAT | os.O_RDWR)
    zeros, nowhere = os.open("/dev/zero", os.O_RDONLY), os.memfd_create("nowhere")
    cutter = os.fork()
    if cutter == 0:
        for number in range(50):
            os.ftruncate(fd, pages * PAGE * (number % 5) // 4 + number % 7)
        os.ftruncate(fd, pages * PAGE)
        os._exit(0)
    ended = 0
    with mapped(fd, pages * PAGE) as view:
        while not ended:
            for page in range(pages):
                part = view[page * PAGE : page * PAGE + 100]
                # The system says EFAULT where touching it would be SIGBUS.
                with contextlib.suppress(OSError):
                    os.pwrite(nowhere, part, 0)
                with contextlib.suppress(OSError):
                    os.readv(zeros, [part])
            ended = os.waitpid(cutter, os.WNOHANG)[0]
        c.do("size", os.fstat, fd)
        c.note("nothing else in it", any(os.pread(fd, pages * PAGE, 0)))
        view[0:3] = b"abc"
    c.do("and then", os.pread, fd, 4, 0)
    for each in (fd, zeros, nowhere):
        os.close(each)


@case
def a_file_as_its_own_buffer(c: Case) -> None:
    """A mapping of a file is where it is written from and read to."""
    for name, flag in (("", 0), ("~direct", os.O_DIRECT)):
        for kind, target in (("the same page", 0), ("another", PAGE), ("between", 100)):
            if flag and target % PAGE:
                continue
            make("f", bytes(range(1, 251)) * 200)
            fd = os.open("f", os.O_RDWR | flag)

            def both(fd: int = fd, target: int = target) -> list[int]:
                found = []
                with mapped(fd, 4 * PAGE) as view:
                    found.append(os.pwrite(fd, view[:PAGE], target))
                    found.append(os.preadv(fd, [view[2 * PAGE : 3 * PAGE]], target))
                    view[0] = 0
                    found.append(os.preadv(fd, [view[:PAGE]], 3 * PAGE))
                    found.append(os.pwrite(fd, view[PAGE : 4 * PAGE], PAGE))
                return found

            c.do(f"{name} {kind}".strip(), elsewhere, both)
            os.close(fd)
            c.do("?sum", lambda: sum(n * byte for n, byte in enumerate(Path("f").read_bytes())))
            os.unlink("f")


@case
def a_hole_under_a_mapping(c: Case) -> None:
    def punched(fd: int, view: memoryview) -> int:
        place = ctypes.c_int64(PAGE), ctypes.c_int64(PAGE)
        return called(LIBC.fallocate64, fd, 3, *place)

    def removed(fd: int, view: memoryview) -> int:
        start = ctypes.addressof(ctypes.c_char.from_buffer(view)) + PAGE
        return called(LIBC.madvise, ctypes.c_void_p(start), ctypes.c_size_t(PAGE), 9)

    for call in (punched, removed):
        make("f", b"x" * 4 * PAGE)
        fd = os.open("f", os.O_RDWR)
        with mapped(fd, 4 * PAGE) as view:
            view[PAGE : 3 * PAGE] = b"y" * 2 * PAGE
            c.do(f"~{call.__name__}", call, fd, view)
            c.note("?the mapping", [view[n * PAGE] for n in range(4)])
            c.note("?the file", [os.pread(fd, 1, n * PAGE).hex() for n in range(4)])
            view[PAGE] = 7
        c.do("?then", os.pread, fd, 2, PAGE)
        os.close(fd)
        os.unlink("f")
