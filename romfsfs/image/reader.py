"""Reads images: strict, iterative, without copying file data.

The reference is the camera's own reader (MicroPython `extmod/vfs_rom.c`; docs/format.md says what
it does with 68 hand-made images). Valid images are read with the same result. Images that are cut
short, have records that overrun, or would show other files than they hold are refused with the
offset and the reason. Case by case:

    refused     wrong magic, also with padding in front; fewer than 4 bytes; erased flash
                a record, name or number that ends after its parent or after the image
                a number of more than 32 bits (the camera drops the top bits), more than 64 KiB
                of 0x80 padding in front of a number
                kind 0: the camera stops there and hides what follows
                a data record that overruns its file; a pointer beyond the image record
                a file without data: the camera lists nothing after it
                names that are empty, '.', '..', hold '/' or NUL, or are not UTF-8
                more than 99 entries of one name in a directory
                what would let a small image fill memory or disk: nesting so deep that all paths,
                or data shared so often that all files with pointers, together take more than
                64 times the image's size plus 32 MiB
    read        an empty image, also the 4-byte one; zero-length files; empty directories
                anything after the image record: counted in `trailing` (a partition dump)
                any number of files; nesting of thousands of directories
    with note   padding        padding records: one note for all of them
                unknown-kind   records of a kind that no version defines; cameras skip them
                same-name      an entry whose name is taken in its directory: cameras open the
                               first, here it gets another name (`_Reader.other_name`)
                pointer        a file whose data lies elsewhere; the IDE and openmv-ota misread it
                               (pointers may share bytes: mpremote's writer stores data once)
                extra-data     bytes of a file record after its first data, which nobody reads
                more-notes     how many notes there are beyond the first 1000
                odd-length     `vfs_rom.c` wants an even length; IDE and mkromfs do not keep to it

The buffer may be bytes in memory or a `WindowBuffer`; of that, only the records are read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from romfsfs.errors import ImageFormatError, count_text
from romfsfs.image.model import DirNode, Extent, FileNode, Image, Note
from romfsfs.image.varuint import (
    DATA,
    DIRECTORY,
    FILE,
    MAGIC,
    PADDING,
    POINTER,
    UNUSED,
    decode,
)

if TYPE_CHECKING:
    from romfsfs.image.model import Node
    from romfsfs.image.varuint import Buffer

#: limits of all paths (characters) and of shared data (bytes): so much, and so many times the image
_ALLOWANCE, _FACTOR = 32 << 20, 64
_MAX_NOTES = 1000
#: fewer entries than this may have one name in a directory
_MAX_SAME_NAME = 100
#: characters of a directory's path that an error shows
_SHOWN_PATH = 300
#: bytes that are enough for a usual file record without its data
_HEAD = 96


def is_blank(header: bytes | memoryview) -> bool:
    """Whether these first bytes are erased flash: at least one byte, and all 0xFF."""
    return len(header) > 0 and bytes(header).count(0xFF) == len(header)


def image_size(header: bytes | memoryview) -> int:
    """The size in bytes of the whole image record, from its first bytes.

    16 are enough for any image written by romfsfs, the IDE, openmv-ota or mpremote.
    ImageFormatError if it is no image."""
    payload, length = _header(header)
    return payload + length


def read_image(buffer: Buffer) -> Image:
    """Parse the image that starts at the first byte of `buffer`.

    ImageFormatError if it is no valid image; errors of reading the buffer as they come. No
    reference to the buffer is kept.
    """
    data: Buffer = buffer.cast("B") if isinstance(buffer, memoryview) else buffer
    payload, length = _header(data)
    size = payload + length
    if size > len(data):
        raise ImageFormatError(
            f"truncated: the header declares {size:,} bytes, but only {len(data):,} are present",
            len(data),
        )
    root, notes = _Reader(data, payload, size).read()
    if size % 2:
        notes.append(Note("odd-length", "", f"the image has an odd length, {size:,} bytes", 0))
    return Image(root, size, tuple(notes), len(data) - size)


def _header(data: Buffer) -> tuple[int, int]:
    """The offset of the root's records, and their size in bytes."""
    start = bytes(data[:16])
    if start[:3] != MAGIC:
        if is_blank(start):
            raise ImageFormatError("erased flash, no image", 0)
        if len(data) < 4:
            raise ImageFormatError(f"only {count_text(len(data), 'byte')}", 0)
        raise ImageFormatError("it does not start with d2 cd 31", 0)
    length, payload = decode(data, 3, len(data))
    return payload, length


class _Directory:
    """A directory whose records are being read."""

    __slots__ = ("children", "depth", "end", "name", "names", "record")

    def __init__(self, name: str, record: Extent, depth: int = 0) -> None:
        self.name = name
        self.depth = depth  # characters that precede its entries' names in their paths
        self.record = record
        self.end = record.offset + record.size
        self.names: set[str] = set()
        self.children: list[Node] = []


def _common_file(head: bytes, start: int, directory: _Directory) -> FileNode | None:
    """The file record at `start`, whose first bytes are `head`, if it is of the usual form.

    That is a short name, then data and nothing else. None for others, which the strict reader
    parses. Twice as fast as that, which matters for images of 20,000 files.
    """
    try:
        at = 1
        byte = head[at]
        length = 0
        while byte >= 0x80:
            length = (length | byte & 0x7F) << 7
            at += 1
            byte = head[at]
        end = start + at + 1 + (length | byte)
        raw = head[at + 2 : at + 2 + head[at + 1]]
        at += 2 + head[at + 1]
        if head[at] != DATA:
            return None
        at += 1
        byte = head[at]
        length = 0
        while byte >= 0x80:
            length = (length | byte & 0x7F) << 7
            at += 1
            byte = head[at]
        length |= byte
        name = raw.decode()
    except (IndexError, UnicodeDecodeError):
        return None
    offset = start + at + 1
    names = directory.names
    if (
        offset + length != end
        or end > directory.end
        or name in names
        or not name
        or name[0] == "."  # perhaps '.' or '..'
        or "/" in name
        or "\0" in name
    ):
        return None
    names.add(name)
    return FileNode(name, Extent(offset, length), Extent(start, end - start))


class _Reader:
    def __init__(self, data: Buffer, payload: int, end: int) -> None:
        self.data = data
        self.payload = payload  # pointers count from here
        self.end = end
        self.stack = [_Directory("", Extent(0, end))]
        self.notes: list[Note] = []
        self.noted: tuple[_Directory | None, str] = (None, "")  # directory of the last note, path
        self.more_notes = 0
        self.paddings, self.padding_size, self.first_padding = 0, 0, 0
        self.path_room = self.shared_room = _ALLOWANCE + _FACTOR * end

    def read(self) -> tuple[DirNode, list[Note]]:
        position = self.payload
        data = self.data
        current = self.stack[-1]
        while True:
            if position >= current.end:
                self.take_path_room(current, len(current.children) * current.depth)
                node = DirNode(current.name, tuple(current.children), current.record)
                self.stack.pop()
                if not self.stack:
                    break
                current = self.stack[-1]
                current.children.append(node)
                continue
            start = position
            head = bytes(data[start : start + _HEAD])
            if head[0] == FILE:
                common = _common_file(head, start, current)
                if common is not None:
                    current.children.append(common)
                    position = common[1].end
                    continue
            try:
                kind, position = decode(data, position, current.end)
                length, position = decode(data, position, current.end)
                if position + length > current.end:
                    raise ImageFormatError(
                        f"a record of {count_text(length, 'byte')} extends "
                        f"{count_text(position + length - current.end, 'byte')} beyond the end of "
                        "its parent",
                        start,
                    )
                if kind == FILE:
                    next_record = position + length
                    name, position = self.name(position, next_record, current.names)
                    extent = self.file_data(position, next_record, name)
                    current.children.append(
                        FileNode(name, extent, Extent(start, next_record - start))
                    )
                    position = next_record
                elif kind == DIRECTORY:
                    record = Extent(start, position + length - start)
                    name, position = self.name(position, position + length, current.names)
                    current = _Directory(name, record, current.depth + len(name) + 1)
                    self.stack.append(current)
                    self.take_path_room(current, current.depth)
                else:
                    position += length
                    self.other(kind, start, position)
            except ImageFormatError as error:
                raise error.at(self.path()[-_SHOWN_PATH:]) from None
        if self.more_notes:
            message = f"and {count_text(self.more_notes, 'more note')}"
            self.notes.append(Note("more-notes", "", message, 0))
        if self.paddings:
            records = "record holds" if self.paddings == 1 else "records hold"
            message = f"{self.paddings} padding {records} {self.padding_size} bytes"
            self.notes.append(Note("padding", "", message, self.first_padding))
        return node, self.notes

    def take_path_room(self, directory: _Directory, characters: int) -> None:
        """Charge the length of paths, which whoever walks the tree builds, to their limit."""
        self.path_room -= characters
        if self.path_room < 0:
            reason = "directories are nested so deep that their paths are larger than the image"
            raise ImageFormatError(reason, directory.record.offset)

    def name(self, position: int, end: int, taken: set[str]) -> tuple[str, int]:
        """The name at `position` and the offset after it. Adds it to `taken`."""
        length, start = decode(self.data, position, end)
        stop = start + length
        if stop > end:
            raise ImageFormatError("a name runs over the end of its record", position)
        raw = bytes(self.data[start:stop])
        try:
            name = raw.decode()
        except UnicodeDecodeError:
            raise ImageFormatError(f"a name is not UTF-8: {raw!r}", start) from None
        if not raw or raw == b"." or raw == b".." or b"/" in raw or b"\0" in raw:
            raise ImageFormatError(f"{name!r} cannot be the name of a file", start)
        if name in taken:
            name = self.other_name(name, start, taken)
        taken.add(name)
        return name, stop

    def other_name(self, name: str, start: int, taken: set[str]) -> str:
        """A free name for an entry whose own name is taken in its directory.

        The IDE and openmv-ota make such images: they store `ä.txt` and `ö.txt` both as `?.txt`.
        """
        stem, dot, suffix = name.rpartition(".") if "." in name[1:] else (name, "", "")
        for number in range(2, _MAX_SAME_NAME):
            other = f"{stem}~{number}{dot}{suffix}"
            if other not in taken:
                message = f"the name {name!r} occurs twice, and cameras open the first: shown as "
                self.note("same-name", other, message + repr(other), start)
                return other
        raise ImageFormatError(f"the name {name!r} occurs too often in its directory", start)

    def file_data(self, position: int, end: int, name: str) -> Extent:
        """The data of a file whose nested records lie in `position` to `end`."""
        data = self.data
        first = position
        while position < end:
            start = position
            kind, position = decode(data, position, end)
            length, position = decode(data, position, end)
            next_record = position + length
            if next_record > end:
                raise ImageFormatError(
                    f"the data of {name!r} runs {count_text(next_record - end, 'byte')} over its "
                    "file",
                    start,
                )
            if kind == DATA:
                extent = Extent(position, length)
            elif kind == POINTER:
                extent = self.pointed(position, next_record, name)
                self.shared_room -= extent.size
                if self.shared_room < 0:
                    reason = "files share their data so often that they are larger than the image"
                    raise ImageFormatError(reason, start)
                self.note("pointer", name, "its data is stored elsewhere in the image", start)
            elif kind == UNUSED:
                break
            else:
                self.other(kind, start, next_record, name)
                position = next_record
                continue
            if next_record != end:
                self.note("extra-data", name, f"{end - next_record} unused bytes", next_record)
            return extent
        raise ImageFormatError(f"{name!r} is a file without data", first)

    def pointed(self, position: int, end: int, name: str) -> Extent:
        """The data a pointer record refers to: a size, then an offset from the image's payload."""
        size, position = decode(self.data, position, end)
        offset, position = decode(self.data, position, end)
        offset += self.payload
        if offset + size > self.end:
            raise ImageFormatError(
                f"the data of {name!r}, {count_text(size, 'byte')} at {offset:#x}, is beyond the "
                "image's end",
                position,
            )
        return Extent(offset, size)

    def other(self, kind: int, start: int, end: int, name: str = "") -> None:
        """Note or refuse a record that is neither file nor directory, nor a file's data."""
        if kind == PADDING:
            if not self.paddings:
                self.first_padding = start
            self.paddings += 1
            self.padding_size += end - start
        elif kind == UNUSED:
            raise ImageFormatError("a record of kind 0, where cameras stop reading", start)
        elif name or kind not in (DATA, POINTER):
            self.note("unknown-kind", name, f"a record of unknown kind {kind}", start)

    def note(self, code: str, name: str, message: str, offset: int) -> None:
        if len(self.notes) >= _MAX_NOTES:
            self.more_notes += 1
            return
        self.take_path_room(self.stack[-1], self.stack[-1].depth)
        if self.noted[0] is not self.stack[-1]:  # joining the path of a deep directory is slow
            self.noted = self.stack[-1], self.path()
        path = self.noted[1]
        if name:
            path = f"{path}/{name}" if path else name
        self.notes.append(Note(code, path, message, offset))

    def path(self) -> str:
        """The path of the directory that is being read."""
        return "/".join(directory.name for directory in self.stack[1:])
