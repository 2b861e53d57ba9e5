"""What a session remembers on disk: `session.json` and `base.json`.

Both are JSON files that are replaced atomically, so that a crash leaves the old or the new one.
`session.json` has the target and what the user chose (board, options); `base.json` describes the
image as last read from or committed to the target, and what each of its files is in the work tree.
All sizes are bytes, all times nanoseconds since the epoch.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cached_property
from pathlib import Path
from types import UnionType
from typing import Any, NamedTuple, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from romfsfs.devices.base import Known
from romfsfs.errors import RomfsError, shell_word
from romfsfs.system.files import replace_atomically

VERSION = 2
T = TypeVar("T")


class Signature(NamedTuple):
    """A file's content as `stat` identifies it, as in git's index.

    No program can set the change time, so equal signatures mean equal bytes, except after a write
    within the same clock tick as the one before (see `digests.certain`).
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
    bytes. source: the path in the work tree of what it was made from (the same path when stored
    as it is). source_digest, signature: of that work file when it was extracted or committed.
    made_for: what the bytes were made for when they were committed (`Converters.made_for`), None
    if that is not known.
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

    digest, size: of the whole image file. image_size: of the image record alone; what follows it
    in the file (a partition dump's slack) is `size - image_size` bytes. target_digest: of what the
    target held when it was last read or written, None if it did not exist, '' if it was not read.
    stamp: the target's cheap identity then (`FileDevice.stamp`), None if it has none. fresh: the
    tree was started empty (`--new`), whatever the target holds. image_id: the image file's
    identity (`base_image.image_id`).
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
        """The entries by their paths in the work tree."""
        return {entry.source: entry for entry in self.entries}

    @cached_property
    def folders(self) -> dict[str, list[BaseEntry]]:
        """The entries of each folder ('' is the root), in the order of the image.

        A file's source lies in the same folder of the work tree (`recall.shown_as`)."""
        folders: dict[str, list[BaseEntry]] = {}
        for entry in self.entries:
            folders.setdefault(entry.path.rpartition("/")[0], []).append(entry)
        return folders

    @classmethod
    def load(cls, path: Path) -> Base:
        return load_state(cls, path)


@dataclass(frozen=True, slots=True)
class SessionInfo(Known):
    """What is remembered of the target as it was last opened, and what the user chose.

    The user chooses board and partition of a file, and the board of a camera that does not report
    it. source: how to open the target again. history_bytes: what the images of the log may take
    together, None for the default. slots: the openmv-ota slots, as text.
    """

    source: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    excludes: tuple[str, ...] = ()
    commit_on_unmount: bool = False
    history_bytes: int | None = None
    slots: str = ""

    @property
    def argument(self) -> str:
        """How a command names the target: quoted, to be shown and pasted into a shell."""
        words = shell_word(self.source)
        # An image file has one session, whatever partition it is meant for.
        words += f" --partition {self.partition}" if self._is_second else ""
        return words + (f" --slot {self.slot}" if self.slot else "")

    @property
    def title(self) -> str:
        """How to show it in a list: each partition and slot of a camera is a target of its own."""
        title = f"{self.name}, partition {self.partition}" if self._is_second else self.name
        return f"{title}, slot {self.slot}" if self.slot else title

    @property
    def _is_second(self) -> bool:
        return not self.is_file and self.partition > 0

    @classmethod
    def load(cls, path: Path) -> SessionInfo:
        return load_state(cls, path, usb_serial="", notes=[], slots="", slot="", here=[])


def decoded(kind: Any, value: Any, name: str = "it") -> Any:
    """Turn what `json` parsed back into a value of type `kind`: a dataclass or named tuple of ours,
    or the type of one of their fields. name: of the field, for messages.

    KeyError, TypeError or ValueError if it has another shape. Fields of a named tuple that have a
    default may be missing."""
    inner = get_args(kind)
    if get_origin(kind) in (Union, UnionType):  # `... | None`
        return None if value is None else decoded(inner[0], value, name)
    ours = is_dataclass(kind) or hasattr(kind, "_fields")
    plain = (int, float) if kind is float else get_origin(kind) or kind
    shape: Any = (dict, list) if ours or plain is tuple else plain
    if not isinstance(value, shape):
        raise TypeError(f"{name} is {value!r:.40}")
    if kind == tuple[BaseEntry, ...]:  # a short cut, as there may be thousands
        return tuple([
            BaseEntry(p, size, digest, source, source_digest, Signature(*s) if s else None, what)
            for p, size, digest, source, source_digest, s, what in value
        ])  # fmt: skip
    if plain is tuple:
        kinds = inner[:1] * len(value) if inner[-1] is Ellipsis else inner
        return tuple([decoded(*each) for each in zip(kinds, value, strict=True)])
    if not ours:
        return value
    types, optional = get_type_hints(kind), getattr(kind, "_field_defaults", {})
    record = dict(zip(types, value, strict=True)) if isinstance(value, list) else value
    wanted = [each for each in types if each in record or each not in optional]
    return kind(**{each: decoded(types[each], record[each], each) for each in wanted})


def load_state(kind: type[T], path: Path, **later: Any) -> T:
    """Read a state file. RomfsError, which names it, if it is damaged or of another version.

    later: values of fields that 0.1.0 did not write. OSError if the file cannot be read."""
    with as_ours(path):
        record = json.loads(path.read_bytes())
    if not isinstance(record, dict) or record.get("version") != VERSION:
        raise RomfsError(
            "session state was written by another version of romfsfs",
            where=str(path),
            next_step="finish the session with that version, or copy your files out of 'work' "
            "beside it",
        )
    with as_ours(path):
        return cast(T, decoded(kind, {**later, **record}))


@contextlib.contextmanager
def as_ours(path: Path) -> Iterator[None]:
    """Turn the errors that a malformed record raises in the block into a RomfsError that says how
    to rescue the edits."""
    try:
        yield
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise RomfsError(
            f"session state is damaged: {error}",
            where=str(path),
            next_step="your files are in the folder 'work' beside it: copy them out, then remove "
            "the session's folder",
        ) from None


def dump(state: Any, indent: int | None = None) -> bytes:
    """A dataclass of ours as JSON: an object of its fields, dataclasses among them alike."""
    separators = None if indent else (",", ":")
    return json.dumps(
        _fields(state), default=_fields, indent=indent, separators=separators
    ).encode()


def _fields(state: Any) -> dict[str, Any]:
    return {"version": VERSION, **{each.name: getattr(state, each.name) for each in fields(state)}}


def save(path: Path, data: bytes) -> None:
    """Replace a state file atomically and durably. OSError."""
    with replace_atomically(path) as file:
        file.write(data)
