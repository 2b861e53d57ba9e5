"""Every sync of an operation: what must be on the disk before which name appears or goes.

`python ordered.py OPERATION`, with `recorder.c` preloaded: the operation runs once, recorded, and
is played back on `lossy_disk.py`. Where `power.py` tries some of the states that a disk may be
left in, this asks at every step that relies on others whether those are safe, so that a sync that
is left out shows. Prints what was found as JSON.
"""

from __future__ import annotations

import copy
import fnmatch
import json
import sys
from collections.abc import Iterator

from desks import Desk
from lossy_disk import Disk, Names, Record
from power import recorded

SESSION = "state/sessions/*"
#: What may be lost: can be made anew, or is noticed by its digest; locks; words for people.
LOSSY = (
    "cache", "cache/*", "*.tmp", "state/recall/*/.tmp*", "*/.romfsfs.restore.*",
    *(f"{SESSION}/{name}" for name in (
        "log", "lock", "commit.lock", "staged.img", "found.img", "hidden*", "work.new*",
        "work.old/*",
    )),
)  # fmt: skip
#: Nobody misses what the log has dropped; a mark without its text is that of an earlier run.
LOSSY_IN_PART = (
    f"{SESSION}/history/* gone", f"{SESSION}/work.old gone", f"bytes of {SESSION}/unsettled",
)  # fmt: skip
#: What is on the disk when `unsettled` goes, and need not be before.
UNSETTLED = f"{SESSION}/work/*"
#: A rename to, or a removal of, these relies on all that was done before.
REPLACED = ("app.img", "other.img", *(f"{SESSION}/{name}" for name in ("base.json", "rebase.json",
            "work")))  # fmt: skip
REMOVED = tuple(f"{SESSION}/{name}" for name in ("rebase.json", "unsettled", "work.old/*"))


class Played(Disk):
    """A disk that knows the paths of what is not safe on it."""

    def unsafe(self) -> Iterator[str]:
        """Names and bytes that a power cut may take back."""
        paths = {self.top: "", **paths_in(self.safe, self.top), **paths_in(self.folders, self.top)}
        for folder, name, value in (edit for edits in self.pending for edit in edits):
            if folder in paths and self.safe.get(folder, {}).get(name) != value:
                path = f"{paths[folder]}/{name}".lstrip("/")
                yield f"{path} gone" if value is None else path
        for inode, file in self.files.items():
            if file.now != file.safe and inode in paths:
                yield f"bytes of {paths[inode]}"

    def amiss(self) -> list[str]:
        """What is not safe and ought to be."""
        marked = any(is_any(path, f"{SESSION}/unsettled") for path in self.names())
        allowed = (*LOSSY, UNSETTLED) if marked else LOSSY
        return [
            what
            for what in self.unsafe()
            if not is_any(what.removeprefix("bytes of ").removesuffix(" gone"), *allowed)
            and not is_any(what, *LOSSY_IN_PART)
        ]

    def names(self) -> list[str]:
        return list(paths_in(self.folders, self.top).values())


def paths_in(folders: dict[int, Names], top: int) -> dict[int, str]:
    found = {}
    waiting = [("", top)]
    while waiting:
        above, folder = waiting.pop()
        for name, (inode, is_dir) in folders.get(folder, {}).items():
            found[inode] = f"{above}{name}"
            if is_dir:
                waiting.append((f"{above}{name}/", inode))
    return found


def is_any(path: str, *patterns: str) -> bool:
    return any(fnmatch.fnmatchcase(path, each) for each in patterns)


def broken(start: Played, records: list[Record]) -> dict[str, list[str]]:
    """Step -> what was not safe there, and ought to be."""
    disk = copy.deepcopy(start)
    found = {}
    for number, record in enumerate(records):
        path = (record.other or record.path).removeprefix(f"{disk.root}/")
        wrong: list[str] = []
        if (
            record.kind == "!"
            or (record.kind == "R" and is_any(path, *REPLACED))
            or (record.kind == "U" and is_any(path, *REMOVED))
        ):
            wrong = disk.amiss()
        if record.kind == "R" and not record.is_dir and not is_any(path, *LOSSY, "state/recall/*"):
            file = disk.files.get(record.inode)
            lossy = is_any(f"bytes of {path}", *LOSSY_IN_PART)
            if file is not None and file.now != file.safe and not lossy:
                wrong.append("its bytes")
        if wrong:
            found[f"{number} {record.kind} {path}"] = wrong
        if record.kind != "!":
            disk.play(record)
    if wrong := disk.amiss():
        found["the end"] = wrong
    return found


def main(operation: str) -> dict[str, object]:
    desk = Desk(operation)
    prepared = desk.fork(desk.prepare)[1]
    assert "error" not in prepared, prepared["error"]
    start = Played.of(desk.base)
    assert isinstance(start, Played)
    records = recorded(desk)
    desk.remove()
    return {
        "syncs": sum(record.kind in "SY" for record in records),
        "found": broken(start, records),
    }


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1]), indent=1))
