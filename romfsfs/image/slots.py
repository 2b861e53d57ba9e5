"""The slots of an openmv-ota partition, found by their trailers (docs/cameras.md).

Each half of the partition, in whole blocks of 4 KiB, is a slot, or all of the partition is one: an
image, what is left of the body, a block of status and a block that begins with the trailer. The
trailer has the body's size and SHA-256, and a signature over them; the boot code starts the newer
slot whose body and signature are right, and whose status says that it was confirmed or is on trial.
The signature is not checked here: its key is not known.
"""

from __future__ import annotations

import hashlib
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
_SMALLEST = 3 * BLOCK
#: Bytes from a record of the status to the next: 32 on OPENMV4, whose flash is the H7's own. The
#: third says that the slot was confirmed, the fifth is the counter, whose second word is the
#: complement of the first, as of no other record (ota/status.py).
_STRIDES = (16, 32)
_PENDING, _CONFIRMED = (
    hashlib.sha256(b"openmv-ota.status." + word).digest()[:16]
    for word in (b"pending", b"confirmed")
)
#: Boards lose the last bytes of the flash when these are read. Openmv-ota takes 4,096, and writes
#: some 700: its metadata are a dozen words and numbers.
MOST_TRAILER = 3072

#: The bytes at an offset, so many or fewer; and the SHA-256 from start to end, '' if not asked.
Read = Callable[[int, int], bytes]
Digest = Callable[[int, int], str]


class Slot(NamedTuple):
    """name: 'A' or 'B', '' where a file is one slot. size: bytes of all of it. counter: the higher
    one is newer, None where its status says none. whole: the body is what the trailer says; None:
    the trailer is of a version that is not known, and body_size is 0. room: bytes that an image in
    it may have; 0 where what is erased at once reaches into the other, or is all there is. status:
    'confirmed', 'trial' or '', with which nothing starts. only: there is no other, it lies over the
    whole partition or file."""

    name: str
    offset: int
    size: int
    body_size: int
    counter: int | None
    whole: bool | None
    room: int
    status: str
    only: bool

    def record(self) -> dict[str, Any]:
        """As JSON."""
        return self._asdict()


def slot_size(partition_size: int) -> int:
    """Bytes of each of the two slots."""
    return partition_size // 2 // BLOCK * BLOCK


def trailer_places(partition_size: int) -> list[int]:
    """Where there may be trailers, ascending: those of A and B, and that of a single slot, which
    mostly is B's place."""
    if partition_size < _SMALLEST:
        return []
    size = slot_size(partition_size)
    two = {size - BLOCK, 2 * size - BLOCK} if size >= _SMALLEST else set()
    return sorted(two | {partition_size - BLOCK})


def find_slots(read: Read, size: int, digest: Digest, unit: int = BLOCK) -> tuple[Slot, ...]:
    """The slots of a partition of that size; those without a trailer are left out. unit: bytes
    that are erased at once; no write may erase a status or trailer."""
    if size < _SMALLEST:
        return ()
    half = slot_size(size)
    only = half < _SMALLEST or _is_only(_trailer(read, size - BLOCK), size, unit)
    places = (("A", 0, size),) if only else (("A", 0, half), ("B", half, half))
    found = (_slot(read, *place, digest, unit, only) for place in places)
    return tuple(slot for slot in found if slot is not None)


def find_slots_of_file(read: Read, size: int, digest: Digest) -> tuple[Slot, ...]:
    """The same of a file, which may also be a single slot."""
    found = find_slots(read, size, digest)
    if len(found) < 2 and size >= _SMALLEST and not (found and found[0].only):
        one = _slot(read, "", 0, size, digest, BLOCK, True)
        if one is not None and (one.whole or not found):
            return (one,)
    return tuple(slot._replace(name="") if slot.only else slot for slot in found)


def running(slots: Sequence[Slot]) -> Slot | None:
    """The one that the boot code starts, if its signature is right."""
    fit = [slot for slot in slots if slot.whole and slot.status]
    return max(fit, key=_rank, default=None)


def _rank(slot: Slot) -> tuple[int, bool]:
    """As build/device/boot.py has it: without a counter it comes last."""
    return -1 if slot.counter is None else slot.counter, slot.status == "confirmed"


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
        elif slot.name and slot.status != "confirmed":
            state = size + ("on trial" if slot.status else "neither confirmed nor on trial")
        elif slot.only:
            state = size + "as it was signed"
        else:
            state = size + ("runs" if slot is started else "older")
        over = " over the whole partition" if slot.name and slot.only else ""
        words.append(f"slot {slot.name or 'of a partition'}{over}, {state}")
    return "; ".join(words)


class _Trailer(NamedTuple):
    """body_size, pad: as it says, -1 where its version is not known. sound: its CRC is right."""

    body_size: int = -1
    pad: int = -1
    digest: str = ""
    sound: bool = False


def _trailer(read: Read, place: int) -> _Trailer | None:
    head = read(place, _LONGEST)
    if len(head) < _LONGEST or not head.startswith(MAGIC):
        return None
    header = _HEADERS.get(int.from_bytes(head[4:8], "little"))
    if header is None:
        return _Trailer()
    words = header.unpack_from(head)
    length = header.size + words[4] + words[5] + 4
    sound = length <= MOST_TRAILER
    if sound:
        trailer = (head + read(place + _LONGEST, max(0, length - _LONGEST)))[:length]
        sound = trailer[-4:] == struct.pack("<I", zlib.crc32(trailer[:-4]))
    return _Trailer(words[2], words[3], words[-1].hex(), sound)


def _is_only(last: _Trailer | None, size: int, unit: int) -> bool:
    """Whether the trailer at a partition's end is that of a single slot. Body and pad fill its
    slot; the pad is 0 where the body was too large for one and was let through (build/romfs.py):
    for half. Where it says nothing: no half is less than what is erased at once (ota/geometry.py).
    """
    if last is None or not last.sound:
        return last is not None and unit > size // 2
    room = slot_size(size) - 2 * BLOCK
    return last.body_size + last.pad == size - 2 * BLOCK or last.body_size > room


def _slot(
    read: Read, name: str, offset: int, size: int, digest: Digest, unit: int, only: bool
) -> Slot | None:
    place = offset + size - BLOCK
    trailer = _trailer(read, place)
    if trailer is None:
        return None
    room = 0 if size % unit else (size - 2 * BLOCK) // unit * unit
    status, counter = _status(read(place - BLOCK, 4 * _STRIDES[-1] + 8))
    body = max(trailer.body_size, 0)
    whole: bool | None = None
    if trailer.body_size >= 0:
        whole = trailer.sound and body <= size - 2 * BLOCK
        whole = whole and digest(offset, offset + body) in ("", trailer.digest)
    return Slot(name, offset, size, body, counter, whole, room, status, only)


def _status(block: bytes) -> tuple[str, int | None]:
    """What its records say, and the counter."""
    status, found = "trial" if block.startswith(_PENDING) else "", None
    for stride in _STRIDES:
        if block[2 * stride :].startswith(_CONFIRMED):
            status = "confirmed"
        words = block[4 * stride : 4 * stride + 8]
        if found is None and len(words) == 8:
            counter, check = struct.unpack("<II", words)
            found = counter if counter ^ check == 0xFFFFFFFF else None
    return status, found
