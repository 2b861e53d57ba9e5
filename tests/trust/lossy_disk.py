"""A disk that loses at a power cut what was not synced: played back from `recorder.c`'s records.

The model is the weakest that programs may count on (POSIX; what ALICE and CrashMonkey check for).
The data of a file is there for certain once the file was synced; until then it may be missing,
or be half of it, or zeros. Names are there for certain once their folder was synced; until then
each creation, renaming and removal may be lost by itself, in any order. A renaming is one step.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

_HEADER = struct.Struct("=cBHHIQQqq")


class Record(NamedTuple):
    """A change. kind: as in `recorder.c`; times in nanoseconds."""

    kind: str
    is_dir: bool
    inode: int
    offset: int
    mtime: int
    ctime: int
    path: str
    other: str
    data: bytes


def read_records(log: Path) -> list[Record]:
    data = log.read_bytes()
    found = []
    at = 0
    while at < len(data):
        kind, is_dir, first, second, size, inode, offset, mtime, ctime = _HEADER.unpack_from(
            data, at
        )
        at += _HEADER.size
        path, other = data[at : at + first], data[at + first : at + first + second]
        at += first + second
        found.append(
            Record(kind.decode(), bool(is_dir), inode, offset, mtime, ctime,
                   os.fsdecode(path), os.fsdecode(other), data[at : at + size])
        )  # fmt: skip
        at += size
    return found


@dataclass
class File:
    """now: what programs see. safe: what the disk has for certain."""

    now: bytes = b""
    safe: bytes = b""
    mtime: int = 0
    ctime: int = 0

    @property
    def key(self) -> tuple[int, int, int, int]:
        return len(self.now), hash(self.now), self.mtime, self.ctime


#: A folder's names: the inode of each, and whether it is a folder.
Names = dict[str, tuple[int, bool]]
#: What a change does to names: (folder's inode, name, what it now is).
Edit = tuple[int, str, tuple[int, bool] | None]


@dataclass
class Disk:
    """What a folder is after some records. pending: changes of names that may be lost yet."""

    root: str
    files: dict[int, File] = field(default_factory=dict)
    folders: dict[int, Names] = field(default_factory=dict)
    safe: dict[int, Names] = field(default_factory=dict)
    pending: list[tuple[Edit, ...]] = field(default_factory=list)
    top: int = 0

    @classmethod
    def of(cls, root: Path) -> Disk:
        """As a folder is now, all of it safe."""
        disk = cls(str(root), top=os.stat(root).st_ino)
        for folder, names, files in os.walk(root):
            inode = os.stat(folder).st_ino
            entries = disk.folders[inode] = {}
            for name in names:
                entries[name] = os.stat(os.path.join(folder, name)).st_ino, True
            for name in files:
                path = os.path.join(folder, name)
                found = os.stat(path)
                data = Path(path).read_bytes()
                disk.files[found.st_ino] = File(data, data, found.st_mtime_ns, found.st_ctime_ns)
                entries[name] = found.st_ino, False
        disk.safe = {inode: dict(names) for inode, names in disk.folders.items()}
        return disk

    # -- playing records

    def play(self, record: Record) -> None:
        if record.kind in "WTLR" and not record.is_dir:
            self._change(record)
        if record.kind == "C":
            self._create(record)
        elif record.kind == "L":
            self._rename([(*self._place(record.other), (record.inode, False))])
        elif record.kind == "R":
            self._rename([
                (*self._place(record.path), None),
                (*self._place(record.other), (record.inode, record.is_dir)),
            ])  # fmt: skip
        elif record.kind == "U":
            folder, name = self._place(record.path)
            if name in self.folders.get(folder, {}):
                self._rename([(folder, name, None)])
        elif record.kind == "S":
            self._sync(record)
        elif record.kind == "Y":
            for file in self.files.values():
                file.safe = file.now
            while self.pending:
                self._keep(self.pending[0])

    def _change(self, record: Record) -> None:
        file = self.files.setdefault(record.inode, File())
        if record.kind == "W":
            gap = bytes(max(0, record.offset - len(file.now)))
            end = record.offset + len(record.data)
            file.now = file.now[: record.offset] + gap + record.data + file.now[end:]
        elif record.kind == "T":
            file.now = file.now[: record.offset].ljust(record.offset, b"\0")
        elif file.now != record.data:  # a program that was not recorded wrote it
            file.now = record.data
        file.mtime, file.ctime = record.mtime, record.ctime

    def _create(self, record: Record) -> None:
        if record.is_dir:
            self.folders[record.inode] = {}
            self.safe[record.inode] = {}
        else:  # an inode number may be another file's that is gone
            self.files[record.inode] = File(mtime=record.mtime, ctime=record.ctime)
        self._rename([(*self._place(record.path), (record.inode, record.is_dir))])

    def _rename(self, edits: list[Edit]) -> None:
        known = tuple(edit for edit in edits if edit[0] in self.folders)
        self._apply(self.folders, known)
        if known:
            self.pending.append(known)

    def _sync(self, record: Record) -> None:
        if not record.is_dir:
            file = self.files.setdefault(record.inode, File())
            file.safe = file.now
            return
        for edits in [each for each in self.pending if any(e[0] == record.inode for e in each)]:
            if edits in self.pending:
                self._keep(edits)

    def _keep(self, edits: tuple[Edit, ...]) -> None:
        """Make a change of names safe, and those before it of the same names."""
        touched = {edit[:2] for edit in edits}
        earlier = self.pending[: self.pending.index(edits)]
        for each in earlier:
            if each in self.pending and touched & {edit[:2] for edit in each}:
                self._keep(each)
        self.pending.remove(edits)
        self._apply(self.safe, edits)

    def _place(self, path: str) -> tuple[int, str]:
        """The inode of the folder that a path is in (0: none of ours), and the name."""
        folder, _, name = path.rpartition("/")
        inside = os.path.relpath(folder, self.root)
        inode = self.top
        for part in [] if inside == "." else inside.split("/"):
            inode = self.folders.get(inode, {}).get(part, (0, True))[0]
        return inode, name

    @staticmethod
    def _apply(folders: dict[int, Names], edits: tuple[Edit, ...]) -> None:
        for folder, name, value in edits:
            if value is None:
                folders[folder].pop(name, None)
            else:
                folders[folder][name] = value

    # -- losing power

    def states(self) -> Iterator[State]:
        """What the disk may hold if the power goes now: the extremes, and each change by itself."""
        everything = tuple(range(len(self.pending)))
        yield self._state("all is there", everything, "now")
        if any(file.now != file.safe for file in self.files.values()):
            for data in ("safe", "empty", "half", "zeros"):
                yield self._state(f"names, data {data}", everything, data)
        if self.pending:
            yield self._state("no names, old data", (), "safe")
            yield self._state("no names", (), "now")
        for lost in everything if len(everything) > 1 else ():
            others = tuple(number for number in everything if number != lost)
            yield self._state(f"{self._shown(lost)} is lost", others, "now")
            yield self._state(f"only {self._shown(lost)} is there", (lost,), "safe")
            if lost:
                yield self._state(f"up to {self._shown(lost)}", everything[:lost], "safe")

    def _shown(self, number: int) -> str:
        return " and ".join(
            f"{name}{' gone' if value is None else ''}" for _, name, value in self.pending[number]
        )

    def _state(self, what: str, kept: tuple[int, ...], data: str) -> State:
        folders = {inode: dict(names) for inode, names in self.safe.items()}
        for number in kept:
            self._apply(folders, self.pending[number])
        files = {}
        for inode, file in self.files.items():
            held = file.now if data == "now" or file.now == file.safe else file.safe
            if file.now != file.safe and data == "half":
                held = file.now[: len(file.now) // 2]
            elif file.now != file.safe and data == "empty":
                held = b""
            elif file.now != file.safe and data == "zeros":
                held = bytes(len(file.now))
            files[inode] = File(held, b"", file.mtime, file.ctime)
        return State(what, self.top, folders, files)


class Was(NamedTuple):
    """What a file's inode was before the power cut. new_ctime: since it was put back here."""

    inode: int
    mtime: int
    ctime: int
    new_ctime: int


@dataclass
class State:
    """A folder as it may be found after a power cut."""

    what: str
    top: int
    folders: dict[int, Names]
    files: dict[int, File]

    def key(self) -> int:
        """Equal for states that are the same to any program. (Python hashes bytes once.)"""
        return hash(
            tuple(
                (path, inode) if is_dir else (path, inode, self.files[inode].key)
                for path, inode, is_dir in self.tree()
            )
        )

    def tree(self) -> Iterator[tuple[str, int, bool]]:
        """(path, inode, whether it is a folder), parents first."""
        waiting = [("", self.top)]
        while waiting:
            above, folder = waiting.pop()
            for name, (inode, is_dir) in sorted(self.folders.get(folder, {}).items()):
                path = f"{above}{name}"
                if is_dir or inode in self.files:
                    yield path, inode, is_dir
                if is_dir:
                    waiting.append((path + "/", inode))

    def make(self, root: Path) -> dict[int, Was]:
        """Make it in an empty folder; what each new inode was."""
        made: dict[int, Path] = {}
        was = {}
        for path, inode, is_dir in self.tree():
            place = root / path
            if is_dir:
                place.mkdir(mode=0o700)
            elif inode in made:
                os.link(made[inode], place)
            else:
                place.write_bytes(self.files[inode].now)
                made[inode] = place
        for inode, place in made.items():
            file = self.files[inode]
            os.utime(place, ns=(file.mtime, file.mtime))
            found = os.stat(place)
            was[found.st_ino] = Was(inode, file.mtime, file.ctime, found.st_ctime_ns)
        return was
