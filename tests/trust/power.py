"""The power goes: after every change of a file that an operation makes, as the disk may be then.

`python power.py OPERATION EVERY FIRST`: the operation runs once, recorded (`recorder.c`,
preloaded); then the states that a disk may be left in (`lossy_disk.py`) are made one after the
other, every so many-th of them from the FIRST on, and a fresh start on each is checked as
`desks.py` says. Prints what was found as JSON. A kill -9 loses nothing of what the kernel holds;
this does.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from pathlib import Path
from typing import Any, NamedTuple

from desks import Desk
from lossy_disk import Disk, Record, State, Was, read_records

from romfsfs.devices import file as image_file
from romfsfs.session.keep import base_image, settling
from romfsfs.session.keep.state import Signature


class Found(NamedTuple):
    state: State
    promises: tuple[str, ...]
    at: str


def recorded(desk: Desk) -> list[Record]:
    """What the operation does to files. In a fork: its threads and locks end with it."""
    library = ctypes.CDLL(os.environ["ROMFSFS_RECORDER"])
    log = Path(f"{desk.base}.records")
    desk.told = lambda what: library.record_mark(os.fsencode(what))

    def run() -> int:
        library.record_start(os.fsencode(desk.base), os.fsencode(log))
        return desk.run()

    answer = desk.fork(run)[1]
    assert answer.get("result") == 0, answer
    records = read_records(log)
    log.unlink()
    return records


def states(disk: Disk, records: list[Record]) -> list[Found]:
    """Every state that differs from all before it, after each record."""
    found = []
    seen = set()
    promises: tuple[str, ...] = ()
    for number, record in enumerate(records):
        if record.kind == "!":
            promises = (*promises, record.path)
        else:
            disk.play(record)
        for state in disk.states():
            key = (state.key(), promises)
            if key not in seen:
                seen.add(key)
                place = os.path.basename(record.other or record.path) or record.inode
                found.append(Found(state, promises, f"{number} {record.kind} {place}"))
    return found


def as_it_was(was: dict[int, Was]) -> None:
    """Let this process see files as if they had not been made anew: inodes and times are what
    romfsfs tells files by."""
    signature, stamp, image_id = Signature.of, image_file._stamp, base_image.image_id

    def known(status: os.stat_result) -> Was | None:
        found = was.get(status.st_ino)
        return found if found is not None and found.new_ctime == status.st_ctime_ns else None

    def signature_of(status: os.stat_result) -> Signature:
        found, new = known(status), signature(status)
        return new if found is None else new._replace(inode=found.inode, ctime_ns=found.ctime)

    def stamp_of(status: os.stat_result) -> image_file.Stamp:
        found, new = known(status), stamp(status)
        return new if found is None else (new[0], found.inode, new[2], new[3], found.ctime)

    def id_of(status: os.stat_result) -> tuple[int, int, int]:
        found = was.get(status.st_ino)  # a renaming changes the change time
        same = found is not None and found.mtime == status.st_mtime_ns
        return (found.inode, *image_id(status)[1:]) if found and same else image_id(status)

    settling.boot_id = lambda: "the next one"
    Signature.of = staticmethod(signature_of)  # type: ignore[method-assign]
    image_file._stamp = stamp_of
    base_image.image_id = id_of


def check(desk: Desk, found: Found, before: bytes, after: bytes) -> str:
    desk.base.mkdir()
    was = found.state.make(desk.base)

    def checked() -> str:
        as_it_was(was)
        return desk.check(before, after, found.promises)

    answer = desk.fork(checked)[1]
    if desk.base.exists():
        desk.remove()
    return str(answer.get("error", "") or answer.get("result", "nothing said"))


def cut_all(operation: str, every: int, first: int) -> dict[str, Any]:
    desk = Desk(operation)
    prepared = desk.fork(desk.prepare)[1]
    assert "error" not in prepared, prepared["error"]
    before = desk.image.read_bytes()
    disk = Disk.of(desk.base)
    records = recorded(desk)
    after = desk.image.read_bytes()
    desk.remove()
    every_state = states(disk, records)
    tried = every_state[first - 1 :: every]
    wrong = {}
    for number, found in enumerate(tried):
        said = check(desk, found, before, after)
        if said:
            wrong[number] = (
                f"after {found.at} ({', '.join(found.promises)}), {found.state.what}: {said}"
            )
    return {
        "changes": len(records),
        "places": len(every_state),
        "tried": len(tried),
        "found": wrong,
    }


if __name__ == "__main__":
    print(json.dumps(cut_all(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])), indent=1))
