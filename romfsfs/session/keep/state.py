"""What a session remembers on disk: `session.json` and `base.json`.

Both are small JSON files replaced atomically; nothing else in a session folder could be torn
by a crash. `session.json` is what the user chose (target, board, options); `base.json` is the
image as last read from or committed to the target, with what each of its files is in the work
tree. All sizes are bytes, all times nanoseconds since the epoch.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from romfsfs.devices.base import Known
from romfsfs.errors import RomfsError, shell_word
from romfsfs.system.files import replace_atomically

VERSION = 2


class Signature(NamedTuple):
    """The identity of a file's content as `stat` sees it, as git's index does.

    The change time cannot be set by a program, so equal signatures mean equal bytes, but for a
    write within the same clock tick as the one before it (see `digests.certain`).
    """

    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> Signature:
        return cls(status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


class BaseEntry(NamedTuple):
    """A file or folder of the base image.

    path: in the image. size: of the stored bytes, None for a folder. digest: of the stored
    bytes. source: the work tree's path of what it was made from (the same path when stored as
    it is). source_digest, signature: of that work file when it was extracted or committed.
    made_for: what the bytes were made for when they were committed (`Converters.made_for`), None
    where that is not known.
    """

    path: str
    size: int | None
    digest: str
    source: str
    source_digest: str
    signature: Signature | None
    made_for: str | None = None

    @property
    def is_dir(self) -> bool:
        return self.size is None


@dataclass(frozen=True)
class Base:
    """The image that the work tree started from.

    digest: of its image, the whole file. image_size: the image record alone; what follows it
    in the file (a partition dump's slack) is `size - image_size` bytes. target_digest: what the
    target held when it was last read or written, None if it did not exist, '' if that was not
    looked at. stamp: the target's cheap identity then (`FileDevice.stamp`), None where there is
    none. fresh: the tree was started empty (`--new`), whatever the target holds. image_id: which
    file the image is (`base_image.image_id`).
    """

    digest: str
    size: int
    image_size: int
    target_digest: str | None
    stamp: tuple[int, ...] | None
    entries: tuple[BaseEntry, ...] = ()
    fresh: bool = False
    image_id: tuple[int, ...] | None = None

    @property
    def trailing(self) -> int:
        return self.size - self.image_size

    @cached_property
    def by_source(self) -> dict[str, BaseEntry]:
        """By the path in the work tree."""
        return {entry.source: entry for entry in self.entries}

    @cached_property
    def folders(self) -> dict[str, list[BaseEntry]]:
        """What lies in each folder ('' is the root), in the order of the image. What a file was
        made from lies in the same folder of the work tree (`recall.shown_as`)."""
        folders: dict[str, list[BaseEntry]] = {}
        for entry in self.entries:
            folders.setdefault(entry.path.rpartition("/")[0], []).append(entry)
        return folders

    @classmethod
    def load(cls, path: Path) -> Base:
        record = load_json(path)
        with as_ours(path):
            return cls.of(record)

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Base:
        """Of what `dump` wrote. KeyError, TypeError, ValueError for anything else."""
        check_types(record, _BASE_TYPES)
        entries = tuple([
            BaseEntry(p, size, digest, source, source_digest, Signature(*s) if s else None, what)
            for p, size, digest, source, source_digest, s, what in record["entries"]
        ])  # fmt: skip
        known = {each.name: record[each.name] for each in fields(cls)} | {"entries": entries}
        for name in ("stamp", "image_id"):
            known[name] = tuple(known[name]) if known[name] else None
        return cls(**known)


@dataclass(frozen=True, slots=True)
class SessionInfo(Known):
    """What is remembered of the target as it was last opened, and what the user chose.

    board and partition of a file, and the board of a camera that does not say it, are the user's.
    source: how to open the target again. history_bytes: what the images of the log may take
    together, None for the default. slots: of openmv-ota, as text.
    """

    source: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    excludes: tuple[str, ...] = ()
    commit_on_unmount: bool = False
    history_bytes: int | None = None
    slots: str = ""

    @property
    def argument(self) -> str:
        """How a command names the target, to be shown to people and pasted into a shell."""
        words = shell_word(self.source)
        # An image file is one session, whatever partition it is meant for.
        words += f" --partition {self.partition}" if self._is_second else ""
        return words + (f" --slot {self.slot}" if self.slot else "")

    @property
    def title(self) -> str:
        """How to show it beside others: a camera's second partition, and slot, is a target of its
        own."""
        title = f"{self.name}, partition {self.partition}" if self._is_second else self.name
        return f"{title}, slot {self.slot}" if self.slot else title

    @property
    def _is_second(self) -> bool:
        return not self.is_file and self.partition > 0

    @classmethod
    def load(cls, path: Path) -> SessionInfo:
        record = load_json(path)
        later = {"usb_serial": "", "notes": [], "slots": "", "slot": "", "here": []}
        record = {**later, **record}  # sessions of 0.1.0 have none
        with as_ours(path):
            check_types(record, _INFO_TYPES)
            for name in ("excludes", "notes", "here"):
                record[name] = tuple(record[name])
            if record["mpy_version"] is not None:
                major, minor = record["mpy_version"]
                record["mpy_version"] = int(major), int(minor)
            return cls(**{each.name: record[each.name] for each in fields(cls)})


#: what a field of a state file may be
Types = Mapping[str, "type | tuple[type, ...]"]
_OPTIONAL_INT = (int, type(None))
_OPTIONAL_STR = (str, type(None))
_BASE_TYPES: Types = {
    "digest": str, "size": int, "image_size": int, "target_digest": _OPTIONAL_STR,
    "stamp": (list, type(None)), "entries": list, "fresh": bool, "image_id": (list, type(None)),
}  # fmt: skip
_INFO_TYPES: Types = {
    "key": str, "kind": str, "source": str, "name": str, "board": _OPTIONAL_STR, "partition": int,
    "capacity": _OPTIONAL_INT, "erase_size": _OPTIONAL_INT, "mpy_version": (list, type(None)),
    "march": _OPTIONAL_STR, "options": dict, "excludes": list, "commit_on_unmount": bool,
    "history_bytes": _OPTIONAL_INT, "usb_serial": str, "notes": list, "slots": str, "here": list,
    "slot": str,
}  # fmt: skip


def check_types(record: Mapping[str, Any], types: Types) -> None:
    """KeyError or TypeError unless every one of these is there and of its type."""
    for name, kind in types.items():
        if not isinstance(record[name], kind):
            raise TypeError(f"{name} is {record[name]!r:.40}")


@contextlib.contextmanager
def as_ours(path: Path) -> Iterator[None]:
    """Turns what a record of another shape than ours raises into the RomfsError of a damaged
    file, which says how to rescue the edits."""
    try:
        yield
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise RomfsError(
            f"session state is damaged: {error}",
            where=str(path),
            next_step="your files are in the folder 'work' beside it: copy them out, then remove "
            "the session's folder",
        ) from None


def load_json(path: Path) -> dict[str, Any]:
    """A JSON object of ours. RomfsError when it is not one: the file names itself."""
    with as_ours(path):
        record = json.loads(path.read_bytes())
    if not isinstance(record, dict) or record.get("version") != VERSION:
        raise RomfsError(
            "session state was written by another version of romfsfs",
            where=str(path),
            next_step="finish the session with that version, or copy your files out of 'work' "
            "beside it",
        )
    return record


def dump(state: Any, indent: int | None = None) -> bytes:
    """A dataclass of ours, and those in it, as JSON objects of their fields."""
    separators = None if indent else (",", ":")
    return json.dumps(
        _fields(state), default=_fields, indent=indent, separators=separators
    ).encode()


def _fields(state: Any) -> dict[str, Any]:
    return {"version": VERSION, **{each.name: getattr(state, each.name) for each in fields(state)}}


def save(path: Path, data: bytes) -> None:
    """Replace a state file, durably."""
    with replace_atomically(path) as file:
        file.write(data)
