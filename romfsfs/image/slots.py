"""The two slots of an openmv-ota partition, found by their trailers (docs/cameras.md).

Each half of the partition, in whole blocks of 4 KiB, is an image, what is left of the body, a block
of status and a block that begins with the trailer. The trailer has the body's size and SHA-256, and
a signature over them; the boot code starts the newer slot whose body and signature are right. The
signature is not checked here: its key is not known.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

BLOCK = 4096
MAGIC = b"OMVR"
#: version -> magic, version, sizes of body, pad, metadata and signature, others, algorithm, digest.
#: 3 is that of openmv-ota 1.0.7 (ota/trailer.py), whose firmware takes no other.
_HEADERS = {1: struct.Struct("<4s10Ii32s"), 3: struct.Struct("<4s5I3Q3Ii32s")}
_LONGEST = max(header.size for header in _HEADERS.values())
#: Where the counter is: the fifth record of 16 bytes, or of 32 in the flash of an H7. Its second
#: word is the complement of the first, as of no other record (ota/status.py).
_STATUS_COUNTERS = (64, 128)
#: Boards lose the last bytes of the flash when these are read; no trailer is longer.
MOST_TRAILER = 3072

#: The bytes at an offset, so many or fewer; and the SHA-256 from start to end, '' if not asked.
Read = Callable[[int, int], bytes]
Digest = Callable[[int, int], str]


class Slot(NamedTuple):
    """name: 'A' or 'B', '' where a file is one slot. size: bytes of all of it. counter: the higher
    one is newer, None where its status says none. whole: the body is what the trailer says; None:
    the trailer is of a version that is not known, and body_size is 0. room: bytes that an image in
    it may have; 0 where what is erased at once reaches into the other."""

    name: str
    offset: int
    size: int
    body_size: int
    counter: int | None
    whole: bool | None
    room: int

    def record(self) -> dict[str, Any]:
        """As JSON."""
        return self._asdict()


def slot_size(partition_size: int) -> int:
    """Bytes of each of the two slots."""
    return partition_size // 2 // BLOCK * BLOCK


def trailer_places(partition_size: int) -> tuple[int, int]:
    """Where the trailers of A and B are."""
    size = slot_size(partition_size)
    return size - BLOCK, 2 * size - BLOCK


def find_slots(read: Read, size: int, digest: Digest, unit: int = BLOCK) -> tuple[Slot, ...]:
    """The slots of a partition of that size; those without a trailer are left out. unit: bytes
    that are erased at once; no write may erase a status or trailer."""
    half = slot_size(size)
    if half < 3 * BLOCK:
        return ()
    found = (_slot(read, name, at, half, digest, unit) for name, at in (("A", 0), ("B", half)))
    return tuple(slot for slot in found if slot is not None)


def find_slots_of_file(read: Read, size: int, digest: Digest) -> tuple[Slot, ...]:
    """The same of a file, which may also be a single slot."""
    found = find_slots(read, size, digest)
    if len(found) == 2 or size % BLOCK or size < 3 * BLOCK:
        return found
    one = _slot(read, "", 0, size, digest)  # its trailer is where that of B would be
    return (one,) if one is not None and (one.whole or not found) else found


def running(slots: Sequence[Slot]) -> Slot | None:
    """The one that the boot code starts, if its signature is right."""
    fit = [slot for slot in slots if slot.whole and slot.counter is not None]
    return max(fit, key=lambda slot: slot.counter or 0, default=None)


def slots_text(slots: Sequence[Slot]) -> str:
    """How to show them: 'slot A, 1,234 B, runs; slot B, 2,345 B, changed since it was signed'."""
    started = running(slots)
    words = []
    for slot in slots:
        size = f"{slot.body_size:,} B, "
        if slot.whole is None:
            state = "its trailer is of a version that is not known here"
        elif not slot.whole:
            state = size + "changed since it was signed"
        elif not slot.name:
            state = size + "as it was signed"
        else:
            state = size + ("runs" if slot is started else "older")
        words.append(f"slot {slot.name or 'of a partition'}, {state}")
    return "; ".join(words)


def _slot(
    read: Read, name: str, offset: int, size: int, digest: Digest, unit: int = BLOCK
) -> Slot | None:
    place = offset + size - BLOCK
    head = read(place, _LONGEST)
    if len(head) < _LONGEST or not head.startswith(MAGIC):
        return None
    room = 0 if size % unit else (size - 2 * BLOCK) // unit * unit
    counter = _counter(read(place - BLOCK, _STATUS_COUNTERS[-1] + 8))
    header = _HEADERS.get(int.from_bytes(head[4:8], "little"))
    if header is None:
        return Slot(name, offset, size, 0, counter, None, room)
    words = header.unpack_from(head)
    body_size, length = words[2], header.size + words[4] + words[5] + 4
    whole = body_size <= size - 2 * BLOCK and length <= MOST_TRAILER
    if whole:
        trailer = (head + read(place + _LONGEST, max(0, length - _LONGEST)))[:length]
        whole = trailer[-4:] == struct.pack("<I", zlib.crc32(trailer[:-4]))
        whole = whole and digest(offset, offset + body_size) in ("", words[-1].hex())
    return Slot(name, offset, size, body_size, counter, whole, room)


def _counter(status: bytes) -> int | None:
    for place in _STATUS_COUNTERS:
        found = status[place : place + 8]
        if len(found) == 8:
            counter, check = struct.unpack("<II", found)
            if counter ^ check == 0xFFFFFFFF:
                return int(counter)
    return None
