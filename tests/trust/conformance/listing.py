"""Listings: places in them, changes meanwhile, and what they and statx(2) say of what is there."""

from __future__ import annotations

import ctypes
import os
import platform
import stat
from collections.abc import Iterator

from cases import (
    LIBC,
    Case,
    called,
    case,
    make,
)

MANY = 600
GETDENTS = 217 if platform.machine() == "x86_64" else 61  # <asm/unistd.h>, getdents64


class Dirent(ctypes.Structure):
    """<dirent.h> of 64-bit Linux"""

    _fields_ = (
        ("number", ctypes.c_uint64),
        ("place", ctypes.c_int64),
        ("size", ctypes.c_ushort),
        ("kind", ctypes.c_ubyte),
        ("name", ctypes.c_char * 256),
    )


class Stream:
    """A directory stream of the C library."""

    def __init__(self, path: str) -> None:
        LIBC.opendir.restype = ctypes.c_void_p
        LIBC.readdir.restype = ctypes.POINTER(Dirent)
        LIBC.telldir.restype = ctypes.c_long
        self._stream = ctypes.c_void_p(LIBC.opendir(os.fsencode(path)))

    def read(self) -> Dirent | None:
        found = LIBC.readdir(self._stream)
        return Dirent.from_buffer_copy(found.contents) if found else None

    def names(self, count: int = 1 << 30) -> list[str]:
        found: list[str] = []
        while len(found) < count and (entry := self.read()) is not None:
            found.append(entry.name.decode())
        return found

    def rewind(self) -> None:
        LIBC.rewinddir(self._stream)

    def tell(self) -> int:
        return int(LIBC.telldir(self._stream))

    def seek(self, place: int) -> None:
        LIBC.seekdir(self._stream, ctypes.c_long(place))

    def close(self) -> None:
        LIBC.closedir(self._stream)


def entries(path: str) -> Iterator[Dirent]:
    stream = Stream(path)
    while (entry := stream.read()) is not None:
        yield entry
    stream.close()


@case
def what_a_listing_says(c: Case) -> None:
    os.makedirs("d/e")
    make("d/f")
    for entry in sorted(entries("d"), key=lambda entry: bytes(entry.name)):
        name = entry.name.decode()
        right = os.stat(f"d/{name}").st_ino
        c.note(f"number of {name}", name == ".." or entry.number == right)
        c.note(f"kind of {name}", entry.kind)
    os.rename("d/f", "d/g")
    c.note("renamed", sorted(entry.name.decode() for entry in entries("d")))
    os.unlink("d/g")
    os.rmdir("d/e")
    c.note("empty", sorted(entry.name.decode() for entry in entries("d")))


@case
def places_in_a_listing(c: Case) -> None:
    os.mkdir("d")
    for number in range(200):
        make(f"d/{number}")
    stream = Stream("d")
    first = stream.names(57)
    place = stream.tell()
    rest = stream.names()
    c.note("all", sorted(first + rest) == sorted([".", "..", *os.listdir("d")]))
    stream.seek(place)
    c.note("the rest again", stream.names() == rest)
    stream.rewind()
    c.note("from the beginning", stream.names() == first + rest)
    stream.seek(place)
    for name in rest[:20]:
        if name[0] != ".":
            os.unlink(f"d/{name}")
    make("d/new")
    left = stream.names()
    kept = [name for name in rest[20:] if name[0] != "."]
    c.note("what stayed, once each", [left.count(name) for name in kept] == [1] * len(kept))
    stream.rewind()
    found = stream.names()
    c.note("the new one after a rewind", found.count("new"))
    c.note("the removed ones", [name for name in rest[:20] if name[0] != "." and name in found])
    stream.close()
    folder = os.open("d", os.O_RDONLY)
    c.note("a descriptor", len(os.listdir(folder)) == len(os.listdir(folder)))
    os.close(folder)


@case
def removed_while_it_is_listed(c: Case) -> None:
    os.mkdir("d")
    for number in range(MANY):
        os.mknod(f"d/{number:05}")
    stream = Stream("d")
    seen: list[str] = []
    while (entry := stream.read()) is not None:
        name = entry.name.decode()
        if name[0] == ".":
            continue
        seen.append(name)
        os.unlink(f"d/{name}")
        if len(seen) % 100 == 0:
            make(f"d/new{len(seen)}")
    stream.close()
    old = [name for name in seen if name[0] != "n"]
    c.note("each once", (len(old), len(set(old)), len(seen) == len(set(seen))))
    c.note("left", [name for name in os.listdir("d") if name[0] != "n"])


@case
def every_place_in_a_listing(c: Case) -> None:
    """Whatever was read before: from a place on, the same follows."""
    os.mkdir("d")
    for number in range(200):
        os.mknod(f"d/{number:03}")
    stream = Stream("d")
    places, names = [], []
    while True:
        places.append(stream.tell())
        entry = stream.read()
        if entry is None:
            break
        names.append(entry.name)
    c.note("all", (len(names), len(set(names)), len(set(places))))
    order = [n * 51 % len(names) for n in range(len(names))]
    right = 0
    for number in order:
        stream.seek(places[number])
        entry = stream.read()
        right += entry is not None and entry.name == names[number]
    c.note("each found again", right)
    stream.seek(places[-1])
    c.note("the end again", stream.names(1))
    stream.close()


def pieces(fd: int, size: int) -> list[str]:
    """The names that getdents64(2) gives with so much room at a time."""
    found: list[str] = []
    while True:
        room = ctypes.create_string_buffer(size)
        length = called(LIBC.syscall, GETDENTS, fd, room, size)
        if not length:
            return found
        place = 0
        while place < length:
            entry_size = int.from_bytes(room[place + 16 : place + 18], "little")
            found.append(room[place + 19 : place + entry_size].split(b"\0")[0].decode())
            place += entry_size


@case
def listings_in_pieces(c: Case) -> None:
    os.mkdir("d")
    for number in range(100):
        os.mknod(f"d/{'n' * (number % 60)}{number}")
    right = sorted([".", "..", *os.listdir("d")])
    for size in (1, 23, 24, 100, 300, 1 << 16, 1 << 20):
        fd = os.open("d", os.O_RDONLY)
        c.do(f"room of {size}", lambda fd=fd, size=size: sorted(pieces(fd, size)) == right)
        os.close(fd)
    fd = os.open("d", os.O_RDONLY)
    again = os.dup(fd)
    first = ctypes.create_string_buffer(300)
    c.note("some", called(LIBC.syscall, GETDENTS, fd, first, 300) > 0)
    c.note("a copy goes on", 0 < len(pieces(again, 1 << 16)) < len(right))
    c.note("and has ended it", pieces(fd, 1 << 16))
    make("d/new")
    os.lseek(fd, 0, os.SEEK_SET)
    c.note("new, from the beginning", "new" in pieces(fd, 300))
    os.unlink("d/new")
    os.lseek(again, 0, os.SEEK_SET)
    c.note("removed, from the beginning", "new" in pieces(again, 300))
    for each in (fd, again):
        os.close(each)
    fd = os.open(make("f"), os.O_RDONLY)
    c.do("of a file", pieces, fd, 1000)
    os.close(fd)
    fd = os.open("d", os.O_PATH)
    c.do("by path only", pieces, fd, 1000)
    os.close(fd)


@case
def renamed_while_it_is_listed(c: Case) -> None:
    """It comes to an end, and what stays where it is comes once."""
    os.mkdir("d")
    for number in range(100):
        os.mknod(f"d/{number:03}")
        os.mknod(f"d/stays{number:03}")
    stream = Stream("d")
    seen: list[str] = []
    while len(seen) < 5000 and (entry := stream.read()) is not None:
        name = entry.name.decode()
        seen.append(name)
        if len(name) == 3:
            os.rename(f"d/{name}", f"d/{name}x")
        elif len(name) == 4:
            os.rename(f"d/{name}", f"d/{name[:3]}")
    stream.close()
    c.note("it ends", len(seen) < 5000)
    c.note("once", sorted(name for name in seen if name[0] == "s")
           == [f"stays{number:03}" for number in range(100)])  # fmt: skip
    c.note("each is there", len(os.listdir("d")))


@case
def listed_while_others_change_it(c: Case) -> None:
    os.mkdir("d")
    stays = {f"stays{number:03}" for number in range(60)}
    for name in stays:
        os.mknod(f"d/{name}")
    child = os.fork()
    if child == 0:
        for number in range(60):
            os.mknod(f"d/{number}")
            os.rename(f"d/{number}", f"d/{number}-renamed")
            os.unlink(f"d/{number}-renamed")
        os._exit(0)
    wrong, ended = 0, 0
    while not ended:
        ended = os.waitpid(child, os.WNOHANG)[0]
        names = os.listdir("d")
        wrong += len(names) != len(set(names)) or not stays <= set(names)
    c.note("wrong", wrong)
    c.note("in the end", set(os.listdir("d")) == stays)


class Statx(ctypes.Structure):
    """<linux/stat.h>"""

    _fields_ = (
        *((name, ctypes.c_uint32) for name in ("mask", "block")), ("attributes", ctypes.c_uint64),
        *((name, ctypes.c_uint32) for name in ("links", "uid", "gid")),
        ("mode", ctypes.c_uint16), ("unused", ctypes.c_uint16),
        *((name, ctypes.c_uint64) for name in ("number", "size", "blocks", "attributes_mask")),
        ("rest", ctypes.c_char * 192),
    )  # fmt: skip


@case
def statx(c: Case) -> None:
    make("f", b"x" * 5000, 0o640)
    os.mkdir("d")
    fd = os.open("f", os.O_RDONLY)
    for name, place, path, flags in (
        ("file", -100, b"f", 0), ("folder", -100, b"d", 0), ("now", -100, b"f", 0x2000),
        ("whatever is known", -100, b"f", 0x4000), ("open file", fd, b"", 0x1000),
        ("unknown flag", -100, b"f", 1), ("missing", -100, b"missing", 0),
    ):  # fmt: skip
        found = Statx()
        c.do(name, lambda place=place, path=path, flags=flags, found=found: called(
            LIBC.statx, place, path, flags, 0x7FF, ctypes.byref(found)))  # fmt: skip
        c.note("it says", hex(found.mask & 0x7FF))
        c.note("mode", stat.filemode(found.mode))
        c.note("links, size", [found.links, found.size if path != b"d" else "a folder's"])
    os.close(fd)
    one, two = os.stat("f"), os.stat("d")
    c.note("one file system", one.st_dev == two.st_dev == os.stat(".").st_dev)
    c.note("block size", one.st_blksize)
    c.note("blocks", one.st_blocks)
    os.rename("f", "g")
    c.note("number stays", os.stat("g").st_ino == one.st_ino)
    make("f")
    c.note("another number", os.stat("f").st_ino != one.st_ino)
